//! The pictures of the page: bars and curves, with their scales.

use super::super::report::{Latency, Point, Report, SecondLatency, as_f64};
use super::super::sweep::{Run, Sweep};
use super::{grouped, named, push};

/// The size of a picture, and where in it the values are drawn.
pub(super) const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 244.0;
pub(super) const LEFT: f64 = 64.0;
pub(super) const RIGHT: f64 = 680.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 200.0;

/// The title of an axis of time.
const SECONDS: &str = "time since measuring began";

/// More lines across a picture than this are in each other's way.
const LINES_MAX: usize = 9;

/// The classes of curves that are beside one another: the colours that roles have elsewhere. After
/// the last the first comes again.
const COLOURS: [&str; 6] = ["callers", "gateway", "proposer", "proxy", "acceptor", "replica"];

/// Bars of the operations of each second, from zero.
pub(super) fn by_second(report: &Report) -> String {
    let seconds = &report.operations_by_second;
    let most = seconds.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return nothing();
    }
    let count = seconds.len() as u64;
    let rise = step(most, 5);
    let up = Axis { from: 0.0, to: as_f64(most.next_multiple_of(rise)), start: BOTTOM, end: TOP };
    let along = Axis { from: 0.0, to: as_f64(count), start: LEFT, end: RIGHT };
    let mut svg = picture("Operations per second, by second");
    for level in (0..=most.div_ceil(rise)).map(|n| n * rise) {
        push_level(&mut svg, up.at(as_f64(level)), &short(level));
    }
    push_seconds(&mut svg, along, count);
    push_titles(&mut svg, "operations per second", SECONDS);
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
pub(super) fn curve(latency: &Latency) -> String {
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
    push_titles(&mut svg, "latency", "percentile of the operations");
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
    svg.push_str("</svg></div>\n<figcaption>Each nine is as wide as the last; ");
    svg.push_str("the curve ends at the slowest operation.</figcaption></figure>\n");
    svg
}

/// The median and the p99 of the operations of each second, on a scale of powers.
pub(super) fn latency_by_second(report: &Report) -> String {
    let seconds = &report.latency_us_by_second;
    let least = seconds.iter().map(|second| second.p50).fold(f64::INFINITY, f64::min);
    let most = seconds.iter().map(|second| second.p99).fold(0.0, f64::max);
    if seconds.is_empty() {
        return nothing();
    }
    let levels = levels(least, most);
    let [from, to] =
        [levels.first(), levels.last()].map(|level| level.map_or(0.0, |us| us.log10()));
    let count = report.operations_by_second.len() as u64;
    let up = Axis { from, to, start: BOTTOM, end: TOP };
    let along = Axis { from: 0.0, to: as_f64(count), start: LEFT, end: RIGHT };
    let mut svg = picture("Latency by second");
    for us in levels {
        push_level(&mut svg, up.at(us.log10()), &time(us));
    }
    push_seconds(&mut svg, along, count);
    push_titles(&mut svg, "latency", SECONDS);
    for (name, class, of) in [
        ("p50", "", (|second| second.p50) as fn(&SecondLatency) -> f64),
        ("p99", " part", |second| second.p99),
    ] {
        let points = seconds.iter().map(|second| {
            let (middle, us) = (as_f64(second.second as u64) + 0.5, of(second));
            (second.second, us, along.at(middle), up.at(us.log10().max(up.from)))
        });
        push(&mut svg, format_args!("<polyline class=\"curve{class}\" points=\""));
        for (.., x, y) in points.clone() {
            push(&mut svg, format_args!("{x:.1},{y:.1} "));
        }
        svg.push_str("\"/>\n");
        for (second, us, x, y) in points {
            push(
                &mut svg,
                format_args!(
                    "<circle class=\"dot{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>from \
                     {second} s, {name}: {us:.1} µs</title></circle>\n"
                ),
            );
        }
    }
    svg.push_str("</svg></div>\n<figcaption>p50; paler: p99.</figcaption></figure>\n");
    svg
}

/// The latency of each run of a sweep over its throughput: a line for each curve and percentile,
/// with a dot for each run.
pub(super) fn latency_by_throughput(sweep: &Sweep) -> String {
    let answered = |run: &&Run| run.report.operations > 0;
    let latencies = || sweep.runs.iter().filter(answered).map(|run| &run.report.latency_us);
    if latencies().next().is_none() {
        return nothing();
    }
    let least = latencies().map(|latency| latency.p50).fold(f64::INFINITY, f64::min);
    let most = latencies().map(|latency| latency.p99).fold(0.0, f64::max);
    let levels = levels(least, most);
    let [from, to] =
        [levels.first(), levels.last()].map(|level| level.map_or(0.0, |us| us.log10()));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "of a picture")]
    let fastest = sweep.runs.iter().map(|run| run.report.throughput_mean as u64).max().unwrap_or(0);
    let rise = step(fastest, 6);
    let up = Axis { from, to, start: BOTTOM, end: TOP };
    let end = as_f64(fastest.next_multiple_of(rise).max(rise));
    let along = Axis { from: 0.0, to: end, start: LEFT, end: RIGHT };
    let mut svg = picture("Latency over throughput");
    for us in levels {
        push_level(&mut svg, up.at(us.log10()), &time(us));
    }
    for mark in (0..=fastest.div_ceil(rise)).map(|n| n * rise) {
        push_below(&mut svg, along.at(as_f64(mark)), &short(mark));
    }
    push_titles(&mut svg, "latency", "operations per second");
    for (curve, colour) in sweep.curves().zip(COLOURS.iter().cycle()) {
        for (name, class, of) in [
            ("p50", "", (|latency| latency.p50) as fn(&Latency) -> f64),
            ("p99", " part", |latency| latency.p99),
        ] {
            let points = curve.iter().filter(answered).map(|run| {
                let us = of(&run.report.latency_us);
                let x = along.at(run.report.throughput_mean);
                (run, us, x, up.at(us.log10().max(up.from)))
            });
            push(&mut svg, format_args!("<polyline class=\"curve {colour}{class}\" points=\""));
            for (.., x, y) in points.clone() {
                push(&mut svg, format_args!("{x:.1},{y:.1} "));
            }
            svg.push_str("\"/>\n");
            for (run, us, x, y) in points {
                let (what, rate) = (sweep.told(run), grouped(run.report.throughput_mean));
                push(
                    &mut svg,
                    format_args!(
                        "<circle class=\"dot {colour}{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{what}: \
                         {rate} operations/s, {name} {us:.1} µs</title></circle>\n"
                    ),
                );
            }
        }
    }
    svg.push_str("</svg></div>\n<figcaption>p50; paler: p99. Along a line, ");
    push(&mut svg, format_args!("{} varies.", sweep.axes[0]));
    for (curve, colour) in sweep.curves().zip(COLOURS.iter().cycle()) {
        if sweep.axes.len() > 1 {
            let what = sweep.told_of(&curve[0], 1);
            push(&mut svg, format_args!(" <span class=\"key {colour}\">●</span> {what}"));
        }
    }
    svg.push_str("</figcaption></figure>\n");
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

/// Marks seconds below the picture.
fn push_seconds(svg: &mut String, along: Axis, count: u64) {
    let apart = step(count, 12);
    for second in (0..=count / apart).map(|n| n * apart) {
        push_below(svg, along.at(as_f64(second)), &format!("{second} s"));
    }
}

/// Says what the two axes are of.
fn push_titles(svg: &mut String, up: &str, along: &str) {
    let (x, y, baseline) = ((LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0, BOTTOM + 38.0);
    push(
        svg,
        format_args!(
            "<text x=\"{x}\" y=\"{baseline}\" text-anchor=\"middle\">{along}</text>\n\
             <text x=\"12\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 12 {y})\">{up}</text>\n"
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
pub(super) fn step(most: u64, parts: u64) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

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
