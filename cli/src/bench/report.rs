//! What a benchmark has to say, for people and for programs.

use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use loggos::RoleStatus;
use serde::Serialize;

use super::Options;
use super::floor::Floor;
use super::load::Measured;

/// What was seen besides the callers' own figures.
#[derive(Debug)]
pub(crate) struct Found {
    /// How the roles stood when measuring began.
    pub(crate) before: Vec<RoleStatus>,
    /// And when it ended.
    pub(crate) after: Vec<RoleStatus>,
    /// Keys read back.
    pub(crate) checked_keys: usize,
    /// The replicas that were equal at the end.
    pub(crate) replicas: Vec<RoleStatus>,
    /// What the machine itself takes, if that was asked.
    pub(crate) floor: Option<Floor>,
}

/// The figures.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    throughput_mean: f64,
    throughput_p90_1s: f64,
    operations: u64,
    errors: u64,
    latency_us: Latency,
    roles: Vec<RoleFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor: Option<Floor>,
    read_back: ReadBack,
    load: LoadFigures,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct RoleFigures {
    role: String,
    core: usize,
    cpu_ns_per_command: f64,
    messages_in_per_slot: f64,
    messages_out_per_slot: f64,
}

/// What was found at the end.
#[derive(Debug, Serialize)]
struct ReadBack {
    keys: usize,
    replicas: usize,
    executed_watermark: u64,
    state_hash: String,
}

#[derive(Debug, Serialize)]
struct LoadFigures {
    clients: u32,
    pipeline: u32,
    value_bytes: u32,
    keys: u32,
    reads: f64,
    duration_s: f64,
    commands_per_slot: f64,
}

impl Report {
    pub(crate) fn new(options: &Options, measured: &Measured, found: &Found) -> Self {
        let Found { before, after, checked_keys, replicas, floor } = found;
        let operations = measured.operations();
        let slots = slots(after).saturating_sub(slots(before));
        let roles = before.iter().zip(after).map(|(b, a)| figures(b, a, operations, slots));
        let (executed_watermark, state_hash) = replicas.first().map_or((0, 0), replica);
        Self {
            throughput_mean: ratio(operations, measured.elapsed.as_secs_f64()),
            throughput_p90_1s: p90_of_seconds(&measured.by_second, measured.elapsed),
            operations,
            errors: measured.errors,
            latency_us: Latency::of(&measured.latency),
            roles: roles.collect(),
            floor: *floor,
            read_back: ReadBack {
                keys: *checked_keys,
                replicas: replicas.len(),
                executed_watermark,
                state_hash: format!("{state_hash:016x}"),
            },
            load: LoadFigures {
                clients: options.clients,
                pipeline: options.pipeline,
                value_bytes: options.size,
                keys: options.keys,
                reads: options.reads,
                duration_s: measured.elapsed.as_secs_f64(),
                commands_per_slot: ratio(operations, as_f64(slots)),
            },
        }
    }

    pub(crate) fn print_json(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut to, self)?;
        writeln!(to)
    }

    pub(crate) fn print_text(&self, mut to: impl Write) -> io::Result<()> {
        let Latency { p50, p90, p99, p999, max } = self.latency_us;
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
        if let Some(Floor { loopback_rtt_us, sync_us }) = self.floor {
            writeln!(
                to,
                "floor        loopback {loopback_rtt_us:.1} µs, sync {sync_us:.1}; p50 is {:.2} × \
                 loopback, p99 {:.2} ×",
                p50 / loopback_rtt_us,
                p99 / loopback_rtt_us
            )?;
        }
        writeln!(
            to,
            "load         {} clients × {} in flight, 16-byte keys, {}-byte values, {:.1} commands a slot",
            self.load.clients,
            self.load.pipeline,
            self.load.value_bytes,
            self.load.commands_per_slot
        )?;
        writeln!(
            to,
            "read back    {} keys as acknowledged, {} replicas equal at slot {} ({})",
            self.read_back.keys,
            self.read_back.replicas,
            self.read_back.executed_watermark,
            self.read_back.state_hash
        )?;
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
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let us = |quantile| as_f64(histogram.value_at_quantile(quantile)) / 1e3;
        Self {
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p999: us(0.999),
            max: as_f64(histogram.max()) / 1e3,
        }
    }
}

/// The slots that the furthest replica has executed.
fn slots(statuses: &[RoleStatus]) -> u64 {
    statuses.iter().map(|status| replica(status).0).max().unwrap_or(0)
}

/// A replica's watermark and hash; zeros for any other role.
fn replica(status: &RoleStatus) -> (u64, u64) {
    let replica = status.standing.replica();
    replica.map_or((0, 0), |replica| (replica.executed.0, replica.state_hash))
}

fn figures(before: &RoleStatus, after: &RoleStatus, operations: u64, slots: u64) -> RoleFigures {
    let per_slot = |a: u64, b: u64| ratio(a.saturating_sub(b), as_f64(slots));
    let busy = after.busy.saturating_sub(before.busy);
    let busy_ns = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
    RoleFigures {
        role: after.role.to_string(),
        core: after.core,
        cpu_ns_per_command: ratio(busy_ns, as_f64(operations)),
        messages_in_per_slot: per_slot(after.traffic.messages_in, before.traffic.messages_in),
        messages_out_per_slot: per_slot(after.traffic.messages_out, before.traffic.messages_out),
    }
}

/// The throughput that the best tenth of whole seconds reached, as the paper quotes it; the mean where
/// no second was whole.
fn p90_of_seconds(by_second: &[u64], elapsed: Duration) -> f64 {
    let whole = usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX).min(by_second.len());
    let mut seconds = by_second[..whole].to_vec();
    if seconds.is_empty() {
        return ratio(by_second.iter().sum(), elapsed.as_secs_f64());
    }
    seconds.sort_unstable();
    as_f64(seconds[(seconds.len() * 9 / 10).min(seconds.len() - 1)])
}

pub(super) fn ratio(count: u64, per: f64) -> f64 {
    if per == 0.0 { 0.0 } else { as_f64(count) / per }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people, of which seven digits are shown"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}
