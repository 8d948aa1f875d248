//! The report as one page of HTML that needs nothing else: no script, no file beside it, no
//! network.
//!
//! ```text
//!   command line ─▶ totals ─▶ bars by second ─▶ latency: table, curve ─▶ roles ─▶ load, read-back, floor
//! ```
//!
//! Figures are computed in `report`; here they are only drawn. Colours follow the reader's light or
//! dark mode.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use super::report::{Latency, Point, Report, UNREPLICATED, as_f64};

/// The size of a picture, and where in it the values are drawn.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 228.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 680.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 200.0;

/// More lines across a picture than this are in each other's way.
const LINES_MAX: usize = 9;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>loggos bench</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --faint: #59636e; --line: #d9dee3; --mark: #2463c9; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e4e8ec; --faint: #9aa5b1; --line: #2e363f; --mark: #6ea5f7; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 2rem 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
h2 { font-size: 1.125rem; margin: 2.5rem 0 .5rem; }
pre { margin: 0; padding: .75rem 1rem; border: 1px solid var(--line); border-radius: 6px; overflow-x: auto; }
dl { margin: 1rem 0; }
dl.totals { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; }
dt { color: var(--faint); font-size: .875rem; }
dd { margin: 0 0 .75rem; }
.totals dd { margin: 0; font-size: 1.375rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { color: var(--faint); font-size: .875rem; font-weight: normal; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }
figure { margin: 1rem 0; }
figcaption { color: var(--faint); font-size: .875rem; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; }
text { fill: var(--faint); font: 12px system-ui, sans-serif; }
.line { stroke: var(--line); }
.bar, .dot { fill: var(--mark); }
.part { opacity: .45; }
.mean { stroke: var(--ink); stroke-dasharray: 5 4; }
.curve { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; }
</style>
</head>
<body>
<main>
<h1>loggos bench</h1>
"#;

/// Writes the page.
pub(super) fn print(report: &Report, mut to: impl Write) -> io::Result<()> {
    let parts = [
        format!("{HEAD}<pre><code>{}</code></pre>\n", Escaped(&report.command)),
        totals(report),
        "<h2>Operations per second</h2>\n".to_owned(),
        by_second(report),
        "<h2>Latency</h2>\n".to_owned(),
        percentiles(&report.latency_us),
        curve(&report.latency_us),
        "<h2>Roles</h2>\n".to_owned(),
        roles(report),
        "<h2>About this run</h2>\n".to_owned(),
        about(report),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    parts.iter().try_for_each(|part| to.write_all(part.as_bytes()))
}

fn totals(report: &Report) -> String {
    let mut html = String::new();
    if report.unreplicated {
        push(&mut html, format_args!("<p>This run is <strong>{UNREPLICATED}</strong>.</p>\n"));
    }
    html.push_str("<dl class=\"totals\">\n");
    for (what, figure) in [
        ("operations/s, mean", grouped(report.throughput_mean)),
        ("p90 of one-second windows", grouped(report.throughput_p90_1s)),
        ("operations", grouped(report.operations)),
        ("errors", grouped(report.errors)),
        ("measured for", format!("{:.1} s", report.load.duration_s)),
    ] {
        push(&mut html, format_args!("<div><dt>{what}</dt><dd>{figure}</dd></div>\n"));
    }
    html.push_str("</dl>\n");
    html
}

fn about(report: &Report) -> String {
    let mut html = String::from("<dl>\n");
    let mut tell = |what, text: &dyn Display| {
        let text = text.to_string();
        push(&mut html, format_args!("<dt>{what}</dt><dd>{}</dd>\n", Escaped(&text)));
    };
    tell("Load", &report.load);
    tell("Read back at the end", &report.read_back);
    if let Some(floor) = &report.floor {
        tell("Floor: the machine itself", floor);
    }
    tell("Version", &env!("CARGO_PKG_VERSION"));
    html.push_str("</dl>\n");
    html
}

fn roles(report: &Report) -> String {
    let head = ["role", "core", "CPU ns/command", "messages in/slot", "messages out/slot"];
    table(
        &head,
        report.roles.iter().map(|role| {
            [
                Escaped(&role.role).to_string(),
                role.core.to_string(),
                format!("{:.1}", role.cpu_ns_per_command),
                format!("{:.2}", role.messages_in_per_slot),
                format!("{:.2}", role.messages_out_per_slot),
            ]
        }),
    )
}

fn percentiles(latency: &Latency) -> String {
    table(
        &["percentile", "µs"],
        named(latency).map(|(name, us, _)| [name.to_owned(), format!("{us:.1}")]),
    )
}

/// The percentiles that have a name, and the nines of each; those of the slowest operation are the
/// curve's.
fn named(latency: &Latency) -> impl Iterator<Item = (&'static str, f64, f64)> {
    let Latency { p50, p90, p99, p999, max, curve } = latency;
    let nines_max = curve.last().map_or(0.0, |last| last.nines);
    let half = 2_f64.log10();
    [
        ("p50", *p50, half),
        ("p90", *p90, 1.0),
        ("p99", *p99, 2.0),
        ("p99.9", *p999, 3.0),
        ("max", *max, nines_max),
    ]
    .into_iter()
}

fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut html = String::from("<div class=\"wide\"><table>\n<tr>");
    for cell in head {
        push(&mut html, format_args!("<th>{cell}</th>"));
    }
    html.push_str("</tr>\n");
    for row in rows {
        push(&mut html, format_args!("<tr><td>{}</td></tr>\n", row.join("</td><td>")));
    }
    html.push_str("</table></div>\n");
    html
}

/// Bars of the operations of each second, from zero.
fn by_second(report: &Report) -> String {
    let seconds = &report.operations_by_second;
    let most = seconds.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return nothing();
    }
    let count = seconds.len() as u64;
    let (rise, apart) = (step(most, 5), step(count, 12));
    let up = Axis { from: 0.0, to: as_f64(most.next_multiple_of(rise)), start: BOTTOM, end: TOP };
    let along = Axis { from: 0.0, to: as_f64(count), start: LEFT, end: RIGHT };
    let mut svg = picture("Operations per second, by second");
    for level in (0..=most.div_ceil(rise)).map(|n| n * rise) {
        push_level(&mut svg, up.at(as_f64(level)), &short(level));
    }
    for second in (0..=count / apart).map(|n| n * apart) {
        push_below(&mut svg, along.at(as_f64(second)), &format!("{second} s"));
    }
    for (second, operations) in (0..).zip(seconds) {
        let class = if second < report.whole_seconds as u64 { "bar" } else { "bar part" };
        let (left, right) = (along.at(as_f64(second) + 0.05), along.at(as_f64(second) + 0.95));
        let (top, width) = (up.at(as_f64(*operations)), right - left);
        let (height, operations) = (BOTTOM - top, grouped(operations));
        push(
            &mut svg,
            format_args!(
                "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.2}\" \
                 height=\"{height:.1}\"><title>from {second} s: {operations} operations</title></rect>\n"
            ),
        );
    }
    let mean = up.at(report.throughput_mean.min(up.to));
    push(
        &mut svg,
        format_args!(
            "<path class=\"mean\" d=\"M{LEFT} {mean:.1}H{RIGHT}\"/>\n</svg></div>\n<figcaption>"
        ),
    );
    svg.push_str("Dashed: the mean.");
    if report.whole_seconds < seconds.len() {
        svg.push_str(" Paler: a second that was not measured to its end.");
    }
    svg.push_str("</figcaption></figure>\n");
    svg
}

/// The curve of latency against percentile. Each nine has the same room: what is rare is what it is
/// for.
fn curve(latency: &Latency) -> String {
    let points = &latency.curve;
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return nothing() };
    let levels = levels(first.latency_us, last.latency_us);
    let [from, to] =
        [levels.first(), levels.last()].map(|level| level.map_or(0.0, |us| us.log10()));
    let up = Axis { from, to, start: BOTTOM, end: TOP };
    let along = Axis { from: 0.0, to: last.nines.max(1.0), start: LEFT, end: RIGHT };
    let mut svg = picture("Latency by percentile");
    for us in levels {
        push_level(&mut svg, up.at(us.log10()), &time(us));
    }
    push_below(&mut svg, along.at(2_f64.log10()), "50");
    for nines in (1_u8..).take_while(|nines| f64::from(*nines) <= along.to) {
        push_below(&mut svg, along.at(nines.into()), &percentile(nines.into()));
    }
    let at = |nines, us: f64| (along.at(nines), up.at(us.log10().max(up.from)));
    svg.push_str("<polyline class=\"curve\" points=\"");
    for Point { nines, latency_us } in points {
        let (x, y) = at(*nines, *latency_us);
        push(&mut svg, format_args!("{x:.1},{y:.1} "));
    }
    svg.push_str("\"/>\n");
    for (name, us, nines) in named(latency).filter(|(_, _, nines)| *nines <= last.nines) {
        let (x, y) = at(nines, us);
        push(
            &mut svg,
            format_args!(
                "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{name}: {us:.1} µs</title>\
                 </circle>\n"
            ),
        );
    }
    svg.push_str("</svg></div>\n<figcaption>Percentile across, each nine as wide as the last; ");
    svg.push_str("the curve ends at the slowest operation.</figcaption></figure>\n");
    svg
}

fn nothing() -> String {
    "<p>No operation was answered while it counted.</p>\n".to_owned()
}

fn picture(label: &str) -> String {
    format!(
        "<figure><div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n"
    )
}

/// Draws a line across the picture, and what it stands for.
fn push_level(svg: &mut String, y: f64, label: &str) {
    let (x, baseline) = (LEFT - 8.0, y + 4.0);
    push(
        svg,
        format_args!(
            "<path class=\"line\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text x=\"{x}\" y=\"{baseline:.1}\" text-anchor=\"end\">{label}</text>\n"
        ),
    );
}

/// Marks a place below the picture.
fn push_below(svg: &mut String, x: f64, label: &str) {
    let (end, baseline) = (BOTTOM + 5.0, BOTTOM + 20.0);
    push(
        svg,
        format_args!(
            "<path class=\"line\" d=\"M{x:.1} {BOTTOM}V{end}\"/>\
             <text x=\"{x:.1}\" y=\"{baseline}\" text-anchor=\"middle\">{label}</text>\n"
        ),
    );
}

/// The scale of one direction of a picture.
#[derive(Clone, Copy, Debug)]
struct Axis {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
}

impl Axis {
    fn at(self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }
}

/// The first of 1, 2, 5, 10, 20, … of which `parts` are at least `most`.
fn step(most: u64, parts: u64) -> u64 {
    let mut steps = (0..19).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)));
    steps.find(|step| step.saturating_mul(parts) >= most).unwrap_or(most)
}

/// Two or more round times in µs that enclose all from `least` to `most`: 1, 2, 5, 10, …, or, where
/// these would be too many, powers of ten.
fn levels(least: f64, most: f64) -> Vec<f64> {
    let enclosing = |digits: &[f64]| {
        let decades = (-3..=9).map(|power| 10_f64.powi(power));
        let all: Vec<_> = decades.flat_map(|ten| digits.iter().map(move |n| n * ten)).collect();
        let last = all.partition_point(|us| *us <= most).clamp(1, all.len() - 1);
        let first = all.partition_point(|us| *us <= least).saturating_sub(1).min(last - 1);
        all[first..=last].to_vec()
    };
    let fine = enclosing(&[1.0, 2.0, 5.0]);
    if fine.len() <= LINES_MAX { fine } else { enclosing(&[1.0]) }
}

/// 90, 99, 99.9, …
fn percentile(nines: usize) -> String {
    match nines {
        1 => "90".to_owned(),
        2 => "99".to_owned(),
        _ => format!("99.{}", "9".repeat(nines - 2)),
    }
}

/// A round time, in its unit.
fn time(us: f64) -> String {
    // A little below each unit, since what is round need not be exact.
    match us {
        us if us < 0.999 => format!("{:.0} ns", us * 1e3),
        us if us < 999.0 => format!("{us:.0} µs"),
        us if us < 999e3 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

/// A round number, in thousands or millions.
fn short(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{} k", as_f64(number) / 1e3),
        _ => format!("{} M", as_f64(number) / 1e6),
    }
}

/// A number without its fraction, its thousands apart.
fn grouped(number: impl Display) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202F}'); // a narrow space at which no line breaks
        }
        text.push(digit);
    }
    text
}

/// Text in which nothing is markup.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => f.write_char(c),
        })
    }
}

fn push(text: &mut String, more: fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::super::floor::Floor;
    use super::super::report::{FloorFigures, LoadFigures, ReadBack, RoleFigures};
    use super::*;

    fn report() -> Report {
        let curve = [(0.0, 3.25), (1.0, 151.5), (2.0, 5115.75), (7.0, 67_239.5)];
        let floor = Floor { loopback_rtt_us: 21.5, sync_us: 654.25 };
        Report {
            command: "loggos bench --json 'a <b> & c' --report r.html".to_owned(),
            unreplicated: false,
            throughput_mean: 2_345_678.4,
            throughput_p90_1s: 2_468_013.0,
            operations: 7_037_035,
            errors: 11,
            latency_us: Latency {
                p50: 80.5,
                p90: 151.5,
                p99: 5115.8,
                p999: 14_196.7,
                max: 67_239.5,
                curve: curve.map(|(nines, latency_us)| Point { nines, latency_us }).to_vec(),
            },
            roles: vec![RoleFigures {
                role: "proxy leader 1".to_owned(),
                core: 3,
                cpu_ns_per_command: 32.9,
                messages_in_per_slot: 1.57,
                messages_out_per_slot: 2.49,
            }],
            floor: Some(FloorFigures {
                floor,
                p50_per_loopback_rtt: 3.74,
                p99_per_loopback_rtt: 237.94,
            }),
            read_back: ReadBack {
                failed: None,
                keys: 99_999,
                replicas: 3,
                executed_watermark: 110_286,
                state_hash: "a2f67aa381309c36".to_owned(),
            },
            load: LoadFigures {
                clients: 257,
                pipeline: 16,
                value_bytes: 18,
                keys: 100_000,
                reads: 0.125,
                duration_s: 2.9,
                commands_per_slot: 255.8,
            },
            operations_by_second: vec![2_222_222, 2_468_013, 2_346_800],
            whole_seconds: 2,
        }
    }

    fn page(report: &Report) -> String {
        let mut page = Vec::new();
        print(report, &mut page).unwrap();
        String::from_utf8(page).unwrap()
    }

    /// Whether every element is closed, in its turn, and no markup is left open.
    fn assert_balanced(page: &str) {
        let mut open = Vec::new();
        for rest in page.split('<').skip(1) {
            let (tag, text) = rest.split_once('>').expect(rest);
            assert!(!text.contains('>') || open.last() == Some(&"style"), "{rest}");
            let name = tag.split_whitespace().next().unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "closed here: {rest}");
            } else if !["!doctype", "meta"].contains(&name) && !tag.ends_with('/') {
                open.push(name);
            }
        }
        assert_eq!(open, [""; 0]);
    }

    #[test]
    fn every_figure_is_on_the_page() {
        let page = page(&report()).replace('\u{202F}', "");
        let totals = ["2345678", "2468013", "7037035", ">11<", "2.9 s", "2222222", "2346800"];
        let latency = ["80.5", "151.5", "5115.8", "14196.7", "67239.5"];
        let role = ["proxy leader 1", ">3<", "32.9", "1.57", "2.49"];
        let load = ["257 clients × 16", "18-byte values", "100000 keys", "12.5 % reads", "255.8"];
        let read_back = ["99999 keys", "3 replicas equal", "110286", "a2f67aa381309c36"];
        let floor = ["21.5", "654.2", "3.74", "237.94"];
        let figures = [&totals[..], &latency, &role, &load, &read_back, &floor].concat();
        for figure in figures {
            assert!(page.contains(figure), "{figure} is missing in {page}");
        }
    }

    #[test]
    fn the_page_is_balanced_escaped_and_needs_nothing_else() {
        let page = page(&report());
        assert_balanced(&page);
        assert!(page.contains("--json &#39;a &lt;b&gt; &amp; c&#39; --report"), "{page}");
        for foreign in ["<script", "<link", "@import", "url(", "src=", "href=", "://"] {
            assert!(!page.contains(foreign), "{foreign} in {page}");
        }
        for nonsense in ["NaN", "inf"] {
            assert!(!page.contains(nonsense), "{nonsense} in {page}");
        }
    }

    #[test]
    fn a_baseline_says_so() {
        assert!(!page(&report()).contains("unreplicated"));
        let page = page(&Report { unreplicated: true, ..report() });
        assert!(page.contains(UNREPLICATED), "{page}");
    }

    #[test]
    fn a_run_without_an_answer_or_with_one_makes_a_page() {
        let mut report = report();
        (report.operations_by_second, report.whole_seconds) = (vec![1], 0);
        report.latency_us.curve = vec![Point { nines: 0.0, latency_us: 0.0 }];
        for curve in [report.latency_us.curve.clone(), Vec::new()] {
            report.latency_us.curve = curve;
            let page = page(&report);
            assert_balanced(&page);
            assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
            report.operations_by_second.clear();
        }
    }

    #[test]
    fn scales_are_round_and_enclose_what_they_show() {
        assert_eq!([step(0, 5), step(7, 5), step(2_468_013, 5)], [1, 2, 500_000]);
        assert_eq!(step(u64::MAX, 1), u64::MAX);
        assert_eq!(levels(33.0, 210.0), [20.0, 50.0, 100.0, 200.0, 500.0]);
        assert_eq!(levels(3.0, 67_239.5), [1.0, 10.0, 100.0, 1e3, 1e4, 1e5]);
        for same in [0.0, 0.001, 10.0, 1e8, 1e12] {
            assert!(levels(same, same).len() >= 2, "{same}");
        }
        let times = [0.5, 1.0, 500.0, 1e3, 2e6].map(time);
        assert_eq!(times, ["500 ns", "1 µs", "500 µs", "1 ms", "2 s"]);
        assert_eq!([short(0), short(1500), short(2_500_000)], ["0", "1.5 k", "2.5 M"]);
        assert_eq!([percentile(1), percentile(2), percentile(5)], ["90", "99", "99.999"]);
    }
}
