//! The report as one page of HTML that needs nothing else: no script, no file beside it, no
//! network.
//!
//! ```text
//!   command line ─▶ totals ─▶ bars by second ─▶ latency: table, curve, by second ─▶ roles
//!   ─▶ setting, load, read-back, floor
//! ```
//!
//! Figures are computed in `report`; here they are only drawn. Colours follow the reader's light or
//! dark mode.

mod pictures;
mod turns;

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use self::pictures::{by_second, curve, latency_by_second, latency_by_throughput};
use self::turns::turns;
use super::report::{Latency, Report, RoleFigures, SOCKETS, UNREPLICATED, percent};
use super::sweep::{Run, Sweep};

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
.callers { fill: #2463c9; color: #2463c9; }
.gateway { fill: #d9822b; color: #d9822b; }
.proposer { fill: #8250df; color: #8250df; }
.proxy { fill: #bf3989; color: #bf3989; }
.acceptor { fill: #2da44e; color: #2da44e; }
.replica { fill: #1b7c83; color: #1b7c83; }
.tick { fill: var(--line); }
.curve { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; }
.curve.callers { fill: none; stroke: #2463c9; }
.curve.gateway { fill: none; stroke: #d9822b; }
.curve.proposer { fill: none; stroke: #8250df; }
.curve.proxy { fill: none; stroke: #bf3989; }
.curve.acceptor { fill: none; stroke: #2da44e; }
.curve.replica { fill: none; stroke: #1b7c83; }
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
        "<h2>Latency by second</h2>\n".to_owned(),
        latency_by_second(report),
        "<h2>Roles</h2>\n".to_owned(),
        roles(report),
        "<h2>Cores</h2>\n".to_owned(),
        cores(report),
        turns(&report.traces),
        sockets(report),
        "<h2>About this run</h2>\n".to_owned(),
        about(report),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    parts.iter().try_for_each(|part| to.write_all(part.as_bytes()))
}

/// Writes the page of a sweep.
pub(super) fn print_sweep(sweep: &Sweep, mut to: impl Write) -> io::Result<()> {
    let parts = [
        format!("{HEAD}<pre><code>{}</code></pre>\n", Escaped(&sweep.command)),
        "<h2>Latency over throughput</h2>\n".to_owned(),
        latency_by_throughput(sweep),
        "<h2>Runs</h2>\n".to_owned(),
        runs(sweep),
        "<h2>CPU by role, ns a command</h2>\n".to_owned(),
        costs(sweep),
        "<h2>About the last run</h2>\n".to_owned(),
        sweep.runs.last().map_or_else(String::new, |run| about(&run.report)),
        "</main>\n</body>\n</html>\n".to_owned(),
    ];
    parts.iter().try_for_each(|part| to.write_all(part.as_bytes()))
}

fn runs(sweep: &Sweep) -> String {
    let head =
        ["run", "operations/s", "p50 µs", "p99 µs", "errors", "commands/slot", "busiest core"];
    let row = |run: &Run| {
        let Run { report, .. } = run;
        [
            sweep.told(run),
            grouped(report.throughput_mean),
            format!("{:.1}", report.latency_us.p50),
            format!("{:.1}", report.latency_us.p99),
            grouped(report.errors),
            format!("{:.1}", report.load.commands_per_slot),
            Escaped(&report.busiest_core()).to_string(),
        ]
    };
    table(&head, sweep.runs.iter().map(row))
}

/// What all roles of each kind took for a command, and the callers.
fn costs(sweep: &Sweep) -> String {
    let kinds = ["gateway", "proposer", "proxy leader", "acceptor", "replica"];
    let head =
        ["run", "gateways", "proposers", "proxy leaders", "acceptors", "replicas", "callers"];
    let row = |run: &Run| {
        let Run { report, .. } = run;
        let of_kind = |kind| {
            let is_one = |role: &&RoleFigures| role.role.starts_with(&format!("{kind} "));
            report.roles.iter().filter(is_one).map(|role| role.cpu_ns_per_command).sum::<f64>()
        };
        let [gateways, proposers, proxy_leaders, acceptors, replicas] =
            kinds.map(|kind| format!("{:.1}", of_kind(kind)));
        let callers = report.cores.iter().map(|core| core.callers_ns_per_command).sum::<f64>();
        let callers = format!("{callers:.1}");
        [sweep.told(run), gateways, proposers, proxy_leaders, acceptors, replicas, callers]
    };
    table(&head, sweep.runs.iter().map(row))
}

fn totals(report: &Report) -> String {
    let mut html = String::new();
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
    let mut html = String::new();
    if report.unreplicated {
        push(&mut html, format_args!("<p>It is <strong>{UNREPLICATED}</strong>.</p>\n"));
    }
    html.push_str("<dl>\n");
    let mut tell = |what, text: &dyn Display| {
        let text = text.to_string();
        push(&mut html, format_args!("<dt>{what}</dt><dd>{}</dd>\n", Escaped(&text)));
    };
    tell("Run", &report.setting);
    tell(
        "Acceptors' votes",
        &report.setting.durability.unwrap_or("as the cluster's nodes keep them"),
    );
    tell("Load", &report.load);
    tell("Read back at the end", &report.read_back);
    if let Some(memory) = &report.memory {
        tell("Memory of the process", memory);
    }
    if let Some(floor) = &report.floor {
        tell("Floor: the machine itself", floor);
    }
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

/// What sockets did, if there are any.
fn sockets(report: &Report) -> String {
    let rows = report.cores.iter().filter_map(|core| {
        let [sends, frames, receives, enters] =
            core.sockets?.figures().map(|figure| format!("{figure:.2}"));
        let node = Escaped(core.node.as_deref().unwrap_or_default()).to_string();
        Some([node, core.core.to_string(), sends, frames, receives, enters])
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return String::new();
    }
    let [sends, frames, receives, enters] = SOCKETS;
    let head = ["node", "core", sends, frames, receives, enters];
    format!("<h2>Sockets</h2>\n{}", table(&head, rows.into_iter()))
}

fn cores(report: &Report) -> String {
    let head = ["node", "core", "expected work", "busy", "polling", "asleep", "callers ns/command"];
    table(
        &head,
        report.cores.iter().map(|core| {
            [
                Escaped(core.node.as_deref().unwrap_or("this process")).to_string(),
                core.core.to_string(),
                core.expected.map_or_else(String::new, percent),
                percent(core.busy),
                percent(core.polling),
                percent(core.asleep),
                format!("{:.1}", core.callers_ns_per_command),
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
    use super::super::memory::Memory;
    use super::super::report::{
        CoreFigures, FloorFigures, LoadFigures, Point, ReadBack, RoleFigures, SecondLatency,
        SocketFigures,
    };
    use super::super::setting::Setting;
    use super::*;
    use loggos::{CoreTrace, Doing, ReplicaId, RoleId, Time, Turn};

    fn trace() -> CoreTrace {
        let turn = |doing, from, to| Turn { doing, from: Time(from), to: Time(to) };
        let replica = Doing::Role(RoleId::Replica(ReplicaId(2)));
        let turns = vec![
            turn(replica, 1_002_000, 1_004_500),
            turn(Doing::Tick, 1_000_000, 1_010_000),
            turn(Doing::Sleep, 1_010_000, 1_020_000),
        ];
        CoreTrace { core: 3, turns }
    }

    fn core() -> CoreFigures {
        CoreFigures {
            node: Some("node & 1".to_owned()),
            core: 3,
            expected: Some(0.5),
            busy: 0.914,
            polling: 0.08,
            asleep: 0.006,
            callers_ns_per_command: 41.2,
            sockets: Some(SocketFigures {
                sends_per_slot: 1.25,
                frames_per_send: 2.5,
                receives_per_slot: 0.75,
                enters_per_slot: 0.5,
            }),
        }
    }

    fn report() -> Report {
        let curve = [(0.0, 3.25), (1.0, 151.5), (2.0, 5115.75), (7.0, 67_239.5)];
        let floor = Floor { loopback_rtt_us: 21.5, sync_us: 654.25 };
        Report {
            command: "loggos bench --json 'a <b> & c' --report r.html".to_owned(),
            setting: Setting {
                date: "2026-11-30T05:00:00Z".to_owned(),
                host: "a<b>".to_owned(),
                kernel: "Linux 6.1".to_owned(),
                processor: "Some & Other CPU".to_owned(),
                cpus: 2,
                durability: Some("synced to disk"),
                version: "0.1.0",
            },
            unreplicated: false,
            cluster: None,
            throughput_mean: 2_345_678.4,
            throughput_p90_1s: 2_468_013.0,
            operations: 7_037_035,
            errors: 11,
            memory: Some(Memory { resident_bytes: 170 << 20, huge_page_bytes: 90 << 20 }),
            latency_us: Latency {
                p50: 80.5,
                p90: 151.5,
                p99: 5115.8,
                p999: 14_196.7,
                max: 67_239.5,
                curve: curve.map(|(nines, latency_us)| Point { nines, latency_us }).to_vec(),
            },
            roles: vec![RoleFigures {
                node: None,
                role: "proxy leader 1".to_owned(),
                core: 3,
                cpu_ns_per_command: 32.9,
                messages_in_per_slot: 1.57,
                messages_out_per_slot: 2.49,
            }],
            cores: vec![core()],
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
                consistency: Some("linearizable"),
                duration_s: 2.9,
                commands_per_slot: 255.8,
            },
            operations_by_second: vec![2_222_222, 2_468_013, 2_346_800],
            latency_us_by_second: vec![
                SecondLatency { second: 0, p50: 81.2, p99: 5000.5 },
                SecondLatency { second: 2, p50: 79.9, p99: 4000.5 },
            ],
            whole_seconds: 2,
            traces: vec![trace()],
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
        let core = ["node &amp; 1", "50 %", "91 %", "8 %", "1 %", "41.2"];
        let turns = ["core 3", "replica 2: 2.5 µs", "tick: 10.0 µs"];
        let sockets = [">1.25<", ">2.50<", ">0.75<", ">0.50<"];
        let load = [
            "257 clients × 16",
            "18-byte values",
            "100000 keys",
            "12.5 % linearizable reads",
            "255.8",
        ];
        let read_back = ["99999 keys", "3 replicas equal", "110286", "a2f67aa381309c36"];
        let floor = ["21.5", "654.2", "3.74", "237.94"];
        let setting =
            ["2026-11-30T05:00:00Z", "a&lt;b&gt;", "Some &amp; Other CPU", "2 cores", "6.1"];
        let seconds = ["from 0 s, p50: 81.2", "from 2 s, p99: 4000.5", "synced to disk"];
        let figures = [
            &totals[..],
            &latency,
            &role,
            &core,
            &turns,
            &sockets,
            &load,
            &read_back,
            &floor,
            &setting,
        ];
        let figures = [&figures.concat()[..], &seconds].concat();
        for title in ["operations per second", "time since measuring began", "percentile of"] {
            assert!(page.contains(&format!(">{title}")), "{title} is missing in {page}");
        }
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
            report.latency_us_by_second.clear();
        }
    }
}
