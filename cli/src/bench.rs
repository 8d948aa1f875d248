//! `loggos bench`: a load of independent callers, and what came of it.
//!
//! ```text
//!   start the cluster ─▶ warm up ─▶ measure ─▶ let calls end ─▶ read back ─▶ report
//! ```

mod load;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use loggos::kv::Kv;
use loggos::{CallError, Config, Idle, LocalCluster, RoleStatus};

use load::{Load, Measured};
use report::{Found, Report};

/// How long the cluster may take to elect its first leader and answer a command.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long replicas may take to be equal once nothing is under way.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The cluster to measure, as `loggos config example` shows it; by default as it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Independent callers.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Commands that each caller has in flight at most.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pipeline: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "B", default_value_t = 16, value_parser = clap::value_parser!(u32).range(8..=16_384))]
    size: u32,
    /// The part of operations that are reads, from 0 to 1.
    #[arg(long, value_name = "PART", default_value_t = 0.0, value_parser = part)]
    reads: f64,
    /// Keys, of 16 bytes each.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// How long to measure.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to run before that.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = duration)]
    warmup: Duration,
    /// Keep looking for work: the lowest latency, if the cores are ours alone.
    #[arg(long, conflicts_with = "park")]
    poll: bool,
    /// Sleep as soon as there is no work.
    #[arg(long)]
    park: bool,
    /// Write the figures to this file, or to standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

/// Runs the benchmark and prints what it measured.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = match &options.config {
        Some(file) => Config::load(file)?,
        None => Config::standard(),
    };
    if options.poll {
        config.idle = Idle::Poll;
    } else if options.park {
        config.idle = Idle::Park;
    }
    let keys = options.keys as usize;
    let cluster = LocalCluster::start(&config, move |_| Kv::with_capacity(2 * keys))?;
    wait_until_ready(&cluster)?;

    let load = Arc::new(Load::new(options));
    let clients = u64::from(options.clients) * u64::from(options.pipeline);
    let under_way = Arc::new(AtomicU64::new(clients));
    let started = start_clients(&cluster, options, &load, &under_way);
    std::thread::sleep(options.warmup);
    let before = cluster.status();
    load.start_measuring();
    std::thread::sleep(options.duration);
    load.stop_measuring();
    let after = cluster.status();
    while under_way.load(Ordering::Acquire) > 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let measured = started.recv()?;
    let checked_keys = read_back(&cluster, &measured)?;
    let replicas = wait_until_equal(&cluster)?;
    cluster.stop()?;

    let report = Report::new(options, &measured, &Found { before, after, checked_keys, replicas });
    match options.json.as_deref() {
        Some("-") => report.print_json(std::io::stdout().lock())?,
        Some(file) => {
            report.print_json(std::fs::File::create(file)?)?;
            report.print_text(std::io::stdout().lock())?;
        }
        None => report.print_text(std::io::stdout().lock())?,
    }
    Ok(())
}

/// Waits for a leader, by asking for something that is not there.
fn wait_until_ready(cluster: &LocalCluster) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let mut get = Vec::new();
    loggos::kv::Command::Get { key: b"is anybody there?" }.encode(&mut get)?;
    loop {
        match cluster.client().execute_blocking(&get) {
            Ok(_) => return Ok(()),
            Err(_) if started.elapsed() < READY_TIMEOUT => {}
            Err(error) => return Err(format!("the cluster does not answer: {error}").into()),
        }
    }
}

/// Starts all callers on the gateway's core; what they measured comes through the channel when the last
/// of them has ended.
fn start_clients(
    cluster: &LocalCluster,
    options: &Options,
    load: &Arc<Load>,
    under_way: &Arc<AtomicU64>,
) -> std::sync::mpsc::Receiver<Measured> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (client, load, under_way) = (cluster.client(), Arc::clone(load), Arc::clone(under_way));
    let callers = u64::from(options.clients) * u64::from(options.pipeline);
    cluster.spawn_near(move || load::run_callers(client, load, callers, under_way, sender));
    receiver
}

/// Reads every key that was written back: it must hold what the highest acknowledged write left there.
///
/// A write without an answer may have come later than the last one with: a key that holds such a value
/// is left out.
fn read_back(
    cluster: &LocalCluster,
    measured: &Measured,
) -> Result<usize, Box<dyn std::error::Error>> {
    let client = cluster.client();
    let mut checked = 0;
    for (key, written) in measured.written() {
        let mut get = Vec::new();
        loggos::kv::Command::GetVersioned { key: &load::key(key) }.encode(&mut get)?;
        let executed = client.execute_blocking(&get)?;
        let answer = loggos::kv::Answer::decode(executed.reply.as_slice())
            .map_err(|_| format!("key {key}: the answer is none"))?;
        let loggos::kv::Answer::Versioned { version, .. } = answer else {
            return Err(format!("key {key}: {written:?} was acknowledged and is not there").into());
        };
        let found = (version.slot, version.index);
        if found != (written.slot, written.index) && measured.unknown == 0 {
            return Err(format!("key {key}: holds {version}, acknowledged was {written:?}").into());
        }
        checked += 1;
    }
    Ok(checked)
}

/// Waits until every replica that has not halted has executed as much as the others, and compares them.
fn wait_until_equal(cluster: &LocalCluster) -> Result<Vec<RoleStatus>, Box<dyn std::error::Error>> {
    let started = Instant::now();
    loop {
        let statuses = cluster.status();
        let replicas: Vec<_> = statuses
            .into_iter()
            .filter(|status| status.standing.replica().is_some_and(|r| r.halted.is_none()))
            .collect();
        let standings = replicas.iter().filter_map(|status| status.standing.replica());
        let mut standings = standings.map(|replica| (replica.executed, replica.state_hash));
        let first = standings.next();
        let others: Vec<_> = standings.collect();
        if others.iter().all(|other| Some(*other) == first) {
            return Ok(replicas);
        }
        let is_level = others.iter().all(|other| Some(other.0) == first.map(|first| first.0));
        if is_level || started.elapsed() > QUIET_TIMEOUT {
            return Err(format!("replicas differ: {first:?} and {others:?}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err("must be from 0 to 1".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time, such as 10s"))?;
    let seconds = match unit {
        "s" | "" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        _ => return Err(format!("`{unit}` is no unit of time: use us, ms, s or min")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is too long"))
}

impl Options {
    fn is_read(&self, random: u64) -> bool {
        // 53 bits are what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "of 53 bits none is lost")]
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        unit < self.reads
    }
}

/// Whether a call that failed was certainly not executed.
fn was_never_sent(error: CallError) -> bool {
    match error {
        CallError::Busy | CallError::TooLarge => true,
        CallError::OutcomeUnknown | CallError::DeadlineExceeded | CallError::Stopped => false,
    }
}
