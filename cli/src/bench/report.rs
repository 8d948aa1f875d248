//! The report of a benchmark, for people and for programs.

use std::fmt;
use std::io::{self, Write};
use std::iter::once;
use std::time::Duration;

use hdrhistogram::Histogram;
use loggos::{AcceptorSet, ClusterSettings, CoreTrace, RoleId, Slot};
use serde::Serialize;

use super::Options;
use super::floor::Floor;
use super::load::Measured;
use super::memory::Memory;
use super::setting::Setting;
use super::subject::{CoreState, RoleState, SocketState, State};

/// The description of `--unreplicated` in every report.
pub(super) const UNREPLICATED: &str = "unreplicated: one role of each kind, all on one core, f = 0";

/// What is told of sockets.
pub(super) const SOCKETS: [&str; 4] =
    ["sends/slot", "frames/send", "receives/slot", "system calls/slot"];

/// A last second is shown if so much of it was measured.
const PART_MILLIS_MIN: u32 = 100;

/// Points of a curve: more than a picture of it has room for.
const CURVE_POINTS: u32 = 100;

/// The figures beside those of the callers.
#[derive(Debug)]
pub(crate) struct Found {
    /// The state of the cluster when measuring began.
    pub(crate) before: State,
    /// And when it ended.
    pub(crate) after: State,
    /// The size of the cluster, where that is known here.
    pub(crate) cluster: Option<ClusterSettings>,
    /// The part of the work that each of its cores was expected to have; empty where it is not of
    /// this process.
    pub(crate) expected: Vec<f64>,
    /// The memory of a cluster in this process, then.
    pub(crate) memory: Option<Memory>,
    /// What was there at the end, or what was wrong with it.
    pub(crate) checked: Result<Checked, String>,
    pub(crate) setting: Setting,
    /// The times of the machine itself, with `--floor`.
    pub(crate) floor: Option<Floor>,
    /// What the cores of this process did in a moment, where a page shows it.
    pub(crate) traces: Vec<CoreTrace>,
}

/// What was there at the end.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Keys read back.
    pub(crate) keys: usize,
    /// The replicas that were equal.
    pub(crate) replicas: Vec<RoleState>,
}

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The command line.
    pub(super) command: String,
    pub(super) setting: Setting,
    pub(super) unreplicated: bool,
    /// `None` where only the cluster knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterFigures>,
    pub(super) throughput_mean: f64,
    pub(super) throughput_p90_1s: f64,
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) latency_us: Latency,
    pub(super) roles: Vec<RoleFigures>,
    pub(super) cores: Vec<CoreFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) floor: Option<FloorFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
    pub(super) read_back: ReadBack,
    pub(super) load: LoadFigures,
    /// Without a last second of which less than a tenth was measured.
    pub(super) operations_by_second: Vec<u64>,
    /// The same seconds; empty where nothing was answered, or no file was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) latency_us_by_second: Vec<SecondLatency>,
    /// The number of these that were measured from beginning to end: all, or all but the last.
    #[serde(skip)]
    pub(super) whole_seconds: usize,
    /// What cores of this process did in a moment half-way, if a page shows it.
    #[serde(skip)]
    pub(super) traces: Vec<CoreTrace>,
}

/// The size of the cluster.
#[derive(Debug, Serialize)]
pub(super) struct ClusterFigures {
    pub(super) gateways: u8,
    pub(super) proposers: u8,
    pub(super) proxy_leaders: usize,
    pub(super) acceptors: u8,
    pub(super) replicas: u8,
    /// Acceptors that are asked to vote for a slot.
    pub(super) votes_per_slot: u32,
    /// The role that was killed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) killed: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
    /// From the fastest to the slowest operation; empty if there was none.
    #[serde(skip)]
    pub(super) curve: Vec<Point>,
}

/// The latency of the operations that were answered in one second.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct SecondLatency {
    pub(super) second: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// A point of the curve of latencies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// One in 10 to the power of this many operations took longer: 2 is p99.
    pub(super) nines: f64,
    pub(super) latency_us: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct RoleFigures {
    pub(super) role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    pub(super) core: usize,
    pub(super) cpu_ns_per_command: f64,
    pub(super) messages_in_per_slot: f64,
    pub(super) messages_out_per_slot: f64,
}

/// What a core did with its time, in parts of one.
#[derive(Debug, Serialize)]
pub(super) struct CoreFigures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    pub(super) core: usize,
    /// The part of the whole work that its roles were expected to make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected: Option<f64>,
    pub(super) busy: f64,
    pub(super) polling: f64,
    pub(super) asleep: f64,
    /// What the callers themselves took, of the time it was busy.
    pub(super) callers_ns_per_command: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sockets: Option<SocketFigures>,
}

/// What the sockets of a core did for a slot.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct SocketFigures {
    pub(super) sends_per_slot: f64,
    pub(super) frames_per_send: f64,
    pub(super) receives_per_slot: f64,
    /// System calls.
    pub(super) enters_per_slot: f64,
}

/// The times of the machine itself, and the measured times as multiples of them.
#[derive(Debug, Serialize)]
pub(super) struct FloorFigures {
    #[serde(flatten)]
    pub(super) floor: Floor,
    pub(super) p50_per_loopback_rtt: f64,
    pub(super) p99_per_loopback_rtt: f64,
}

/// The result of the read-back.
#[derive(Debug, Serialize)]
pub(super) struct ReadBack {
    /// What was wrong.
    pub(super) failed: Option<String>,
    pub(super) keys: usize,
    pub(super) replicas: usize,
    pub(super) executed_watermark: u64,
    pub(super) state_hash: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadFigures {
    pub(super) clients: u32,
    pub(super) pipeline: u32,
    pub(super) value_bytes: u32,
    pub(super) keys: u32,
    pub(super) reads: f64,
    /// How they are made, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) consistency: Option<&'static str>,
    pub(super) duration_s: f64,
    pub(super) commands_per_slot: f64,
}

impl Report {
    /// Computes the figures of a run that `command` started.
    pub(crate) fn new(
        command: String,
        options: &Options,
        measured: &Measured,
        found: &Found,
    ) -> Self {
        let Found { before, after, cluster, expected, memory, checked, setting, floor, traces } =
            found;
        let operations = measured.operations();
        let slots = slots(&after.roles).saturating_sub(slots(&before.roles));
        let roles = after.roles.iter().filter_map(|role| {
            let before = before.roles.iter().find(|before| before.role == role.role)?;
            Some(figures(before, role, operations, slots))
        });
        let cores = after.cores.iter().filter_map(|core| {
            let is_it = |it: &&CoreState| (&it.node, it.core) == (&core.node, core.core);
            let before = before.cores.iter().find(is_it)?;
            let expected = expected.get(core.core).copied();
            Some(CoreFigures::of(before, core, expected, [operations, slots]))
        });
        let whole_seconds = whole_seconds(&measured.by_second, measured.elapsed);
        let has_part = measured.elapsed.subsec_millis() >= PART_MILLIS_MIN;
        let seconds_shown = measured.by_second.len().min(whole_seconds + usize::from(has_part));
        let throughput_mean = ratio(operations, measured.elapsed.as_secs_f64());
        let latency_us = Latency::of(&measured.latency);
        Self {
            command,
            setting: setting.clone(),
            unreplicated: options.unreplicated,
            cluster: cluster.as_ref().map(|cluster| ClusterFigures::of(cluster, options.kill)),
            throughput_mean,
            throughput_p90_1s: p90(&measured.by_second[..whole_seconds]).unwrap_or(throughput_mean),
            operations,
            errors: measured.errors,
            floor: floor.map(|floor| FloorFigures::of(floor, &latency_us)),
            memory: *memory,
            latency_us,
            roles: roles.collect(),
            cores: cores.collect(),
            read_back: ReadBack::of(checked),
            load: LoadFigures {
                clients: options.clients,
                pipeline: options.pipeline,
                value_bytes: options.size,
                keys: options.keys,
                reads: options.reads,
                consistency: (options.reads > 0.0).then(|| options.consistency.words()),
                duration_s: measured.elapsed.as_secs_f64(),
                commands_per_slot: ratio(operations, as_f64(slots)),
            },
            operations_by_second: measured.by_second[..seconds_shown].to_vec(),
            latency_us_by_second: latency_by_second(measured, seconds_shown),
            whole_seconds,
            traces: traces.clone(),
        }
    }

    /// The core that had least time left, and how much of it was busy.
    pub(super) fn busiest_core(&self) -> String {
        let busiest = self.cores.iter().max_by(|a, b| a.busy.total_cmp(&b.busy));
        busiest.map_or_else(String::new, |core| {
            let node = core.node.as_ref().map_or_else(String::new, |node| format!("{node}, "));
            format!("{node}{}: {}", core.core, percent(core.busy))
        })
    }

    pub(crate) fn print_json(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut to, self)?;
        writeln!(to)
    }

    pub(crate) fn print_text(&self, mut to: impl Write) -> io::Result<()> {
        let Latency { p50, p90, p99, p999, max, .. } = self.latency_us;
        if self.unreplicated {
            writeln!(to, "cluster      {UNREPLICATED}")?;
        }
        writeln!(
            to,
            "throughput   {:.0} operations/s (p90 of one-second windows {:.0}), {} in {:.1} s, {} errors",
            self.throughput_mean,
            self.throughput_p90_1s,
            self.operations,
            self.load.duration_s,
            self.errors
        )?;
        writeln!(
            to,
            "latency      p50 {p50:.1} µs, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"
        )?;
        if let Some(floor) = &self.floor {
            writeln!(to, "floor        {floor}")?;
        }
        let durability = self.setting.durability.unwrap_or("as its nodes have it");
        writeln!(to, "load         {}; {durability}", self.load)?;
        writeln!(to, "read back    {}", self.read_back)?;
        if let Some(memory) = &self.memory {
            writeln!(to, "memory       {memory}")?;
        }
        self.print_roles(&mut to)?;
        self.print_cores(&mut to)?;
        self.print_sockets(&mut to)
    }

    fn print_roles(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(
            to,
            "{:<16} {:>4} {:>14} {:>12} {:>12}",
            "role", "core", "cpu ns/command", "in/slot", "out/slot"
        )?;
        for role in &self.roles {
            writeln!(
                to,
                "{:<16} {:>4} {:>14.1} {:>12.2} {:>12.2}",
                role.role,
                role.core,
                role.cpu_ns_per_command,
                role.messages_in_per_slot,
                role.messages_out_per_slot
            )?;
        }
        Ok(())
    }

    fn print_cores(&self, to: &mut dyn Write) -> io::Result<()> {
        writeln!(
            to,
            "{:<16} {:>4} {:>13} {:>7} {:>9} {:>8} {:>20}",
            "node", "core", "expected work", "busy", "polling", "asleep", "callers ns/command"
        )?;
        for core in &self.cores {
            writeln!(
                to,
                "{:<16} {:>4} {:>13} {:>5.0} % {:>7.0} % {:>6.0} % {:>20.1}",
                core.node.as_deref().unwrap_or("this process"),
                core.core,
                core.expected.map_or_else(|| "-".to_owned(), percent),
                100.0 * core.busy,
                100.0 * core.polling,
                100.0 * core.asleep,
                core.callers_ns_per_command
            )?;
        }
        Ok(())
    }

    /// Prints nothing of a cluster without sockets.
    fn print_sockets(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut with_sockets =
            self.cores.iter().filter_map(|core| Some((core, core.sockets?))).peekable();
        if with_sockets.peek().is_none() {
            return Ok(());
        }
        let [sends, frames, receives, calls] = SOCKETS;
        writeln!(
            to,
            "{:<16} {:>4} {sends:>11} {frames:>12} {receives:>14} {calls:>18}",
            "node", "core"
        )?;
        for (core, sockets) in with_sockets {
            let node = core.node.as_deref().unwrap_or("this process");
            let [sends, frames, receives, calls] = sockets.figures();
            writeln!(
                to,
                "{node:<16} {:>4} {sends:>11.2} {frames:>12.2} {receives:>14.2} {calls:>18.2}",
                core.core
            )?;
        }
        Ok(())
    }
}

impl ClusterFigures {
    fn of(cluster: &ClusterSettings, killed: Option<RoleId>) -> Self {
        let quorum = cluster.quorums.write_quorum(Slot(0), 0, AcceptorSet::default());
        Self {
            gateways: cluster.gateways,
            proposers: cluster.proposers,
            proxy_leaders: cluster.all_proxy_leaders().count(),
            acceptors: cluster.quorums.acceptors_count(),
            replicas: cluster.replicas,
            votes_per_slot: quorum.len(),
            killed: killed.map(|role| role.to_string()),
        }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| as_f64(histogram.value_at_quantile(quantile)) / 1e3;
        let us_max = as_f64(histogram.max()) / 1e3;
        // Evenly on the scale on which it is drawn, to where the slowest operation is the one in
        // all of them.
        let nines_max = as_f64(histogram.len().max(1)).log10();
        let nines = (0..CURVE_POINTS).map(|n| nines_max * f64::from(n) / f64::from(CURVE_POINTS));
        let point = |nines: f64| Point { nines, latency_us: us(1.0 - 10_f64.powf(-nines)) };
        let last = Point { nines: nines_max, latency_us: us_max };
        let curve = if histogram.is_empty() {
            Vec::new()
        } else {
            nines.map(point).chain(once(last)).collect()
        };
        Self { p50: us(0.5), p90: us(0.9), p99: us(0.99), p999: us(0.999), max: us_max, curve }
    }
}

impl ReadBack {
    fn of(checked: &Result<Checked, String>) -> Self {
        let replicas = checked.as_ref().map_or(&[][..], |checked| &checked.replicas);
        let replica = replicas.first();
        Self {
            failed: checked.as_ref().err().cloned(),
            keys: checked.as_ref().map_or(0, |checked| checked.keys),
            replicas: replicas.len(),
            executed_watermark: replica.and_then(|r| r.executed_watermark).unwrap_or(0),
            state_hash: replica.and_then(|r| r.state_hash.clone()).unwrap_or_default(),
        }
    }
}

impl FloorFigures {
    fn of(floor: Floor, latency: &Latency) -> Self {
        Self {
            floor,
            p50_per_loopback_rtt: latency.p50 / floor.loopback_rtt_us,
            p99_per_loopback_rtt: latency.p99 / floor.loopback_rtt_us,
        }
    }
}

impl fmt::Display for FloorFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Floor { loopback_rtt_us, sync_us } = self.floor;
        write!(
            f,
            "loopback {loopback_rtt_us:.1} µs, sync {sync_us:.1}; p50 is {:.2} × loopback, p99 {:.2} ×",
            self.p50_per_loopback_rtt, self.p99_per_loopback_rtt
        )
    }
}

impl fmt::Display for LoadFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients × {} in flight, {} keys of 16 bytes, {}-byte values, {} % {}reads, {:.1} commands a slot",
            self.clients,
            self.pipeline,
            self.keys,
            self.value_bytes,
            self.reads * 100.0,
            self.consistency.map(|it| format!("{it} ")).unwrap_or_default(),
            self.commands_per_slot
        )
    }
}

impl fmt::Display for ReadBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failed, keys, replicas, executed_watermark, state_hash } = self;
        if let Some(why) = failed {
            return write!(f, "FAILED: {why}");
        }
        write!(f, "{keys} keys as acknowledged, ")?;
        match replicas {
            1 => write!(f, "one replica")?,
            _ => write!(f, "{replicas} replicas equal")?,
        }
        write!(f, " at slot {executed_watermark} ({state_hash})")
    }
}

/// The slots that the furthest replica has executed.
fn slots(roles: &[RoleState]) -> u64 {
    roles.iter().filter_map(|role| role.executed_watermark).max().unwrap_or(0)
}

fn figures(before: &RoleState, after: &RoleState, operations: u64, slots: u64) -> RoleFigures {
    let per_slot = |a: u64, b: u64| ratio(a.saturating_sub(b), as_f64(slots));
    let busy_ns = after.busy_ns.saturating_sub(before.busy_ns);
    RoleFigures {
        role: after.role.clone(),
        node: after.node.clone(),
        core: after.core,
        cpu_ns_per_command: ratio(busy_ns, as_f64(operations)),
        messages_in_per_slot: per_slot(after.messages_in, before.messages_in),
        messages_out_per_slot: per_slot(after.messages_out, before.messages_out),
    }
}

impl CoreFigures {
    fn of(
        before: &CoreState,
        after: &CoreState,
        expected: Option<f64>,
        [operations, slots]: [u64; 2],
    ) -> Self {
        let spent = |time: fn(&CoreState) -> u64| time(after).saturating_sub(time(before));
        let (busy, polling) = (spent(|core| core.busy_ns), spent(|core| core.polling_ns));
        let asleep = spent(|core| core.asleep_ns);
        let part = |time: u64| ratio(time, as_f64(busy + polling + asleep));
        Self {
            node: after.node.clone(),
            core: after.core,
            expected,
            busy: part(busy),
            polling: part(polling),
            asleep: part(asleep),
            callers_ns_per_command: ratio(spent(|core| core.callers_ns), as_f64(operations)),
            sockets: before
                .sockets
                .zip(after.sockets)
                .map(|(before, after)| SocketFigures::of(before, after, as_f64(slots))),
        }
    }
}

impl SocketFigures {
    /// The figures, in the order of [`SOCKETS`].
    pub(super) fn figures(&self) -> [f64; 4] {
        [self.sends_per_slot, self.frames_per_send, self.receives_per_slot, self.enters_per_slot]
    }

    fn of(before: SocketState, after: SocketState, slots: f64) -> Self {
        let since = |count: fn(&SocketState) -> u64| count(&after).saturating_sub(count(&before));
        let sends = since(|sockets| sockets.sends);
        Self {
            sends_per_slot: ratio(sends, slots),
            frames_per_send: ratio(since(|sockets| sockets.sent_frames), as_f64(sends)),
            receives_per_slot: ratio(since(|sockets| sockets.receives), slots),
            enters_per_slot: ratio(since(|sockets| sockets.enters), slots),
        }
    }
}

/// The latency of each of the first `seconds`, those aside in which nothing was answered.
fn latency_by_second(measured: &Measured, seconds: usize) -> Vec<SecondLatency> {
    let all = measured.latency_by_second.iter().flatten().take(seconds).enumerate();
    let answered = all.filter(|(_, latency)| !latency.is_empty());
    let of = |(second, latency): (usize, &Histogram<u64>)| {
        let us = |quantile| as_f64(latency.value_at_quantile(quantile)) / 1e3;
        SecondLatency { second, p50: us(0.5), p99: us(0.99) }
    };
    answered.map(of).collect()
}

fn whole_seconds(by_second: &[u64], elapsed: Duration) -> usize {
    usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX).min(by_second.len())
}

/// The throughput that the best tenth of whole seconds reached, as the paper quotes it; none where
/// no second was whole.
fn p90(whole_seconds: &[u64]) -> Option<f64> {
    let mut seconds = whole_seconds.to_vec();
    seconds.sort_unstable();
    seconds.get(seconds.len() * 9 / 10).map(|operations| as_f64(*operations))
}

pub(super) fn percent(part: f64) -> String {
    format!("{:.0} %", 100.0 * part)
}

pub(super) fn ratio(count: u64, per: f64) -> f64 {
    if per == 0.0 { 0.0 } else { as_f64(count) / per }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, of which seven digits are shown"
)]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_of_latencies_rises_from_the_fastest_to_the_slowest() {
        let mut histogram = Histogram::new_with_bounds(1, 1 << 40, 3).unwrap();
        assert!(Latency::of(&histogram).curve.is_empty());
        for nanos in 1..=1000 {
            histogram.record(nanos).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert!(
            latency.curve.is_sorted_by(|a, b| a.nines < b.nines && a.latency_us <= b.latency_us)
        );
        let ends = [latency.curve.first(), latency.curve.last()];
        let ends = ends.map(|end| end.map(|end| (end.nines, end.latency_us)));
        assert_eq!(ends, [Some((0.0, 0.001)), Some((3.0, latency.max))]);
    }

    #[test]
    fn the_p90_of_seconds_needs_a_whole_one() {
        assert_eq!(p90(&[]), None);
        assert_eq!(p90(&[7]), Some(7.0));
        assert_eq!(p90(&[9, 1, 2, 3, 4, 5, 6, 7, 8, 10]), Some(10.0));
        assert_eq!(whole_seconds(&[5, 5, 1], Duration::from_millis(2100)), 2);
    }
}
