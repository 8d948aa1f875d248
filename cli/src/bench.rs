//! `loggos bench`: a load of independent callers, and what came of it.
//!
//! ```text
//!   start the cluster ─▶ warm up ─▶ measure ─▶ let calls end ─▶ read back ─▶ report
//! ```

mod floor;
mod load;
mod report;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::Args;
use loggos::kv::Kv;
use loggos::{CallError, Config, Idle, LocalCluster, RoleId, RoleStatus};

use load::{Callers, Load, Measured};
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
    /// Send this many operations a second, whether earlier ones are answered or not, and count latency
    /// from when each should have been sent. Without it every caller sends its next when it has an answer.
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
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
    /// Kill this role when warming up begins, such as "replica 1": what is measured is what is left.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    kill: Option<RoleId>,
    /// Measure a round trip over loopback and a sync in the same run, and tell latencies as multiples.
    #[arg(long)]
    floor: bool,
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

    let floor = options.floor.then(floor::measure).transpose()?;
    let load = Arc::new(Load::new(options));
    let interrupted = Arc::clone(&load);
    ctrlc::set_handler(move || interrupted.interrupt())?;
    let started = start_clients(&cluster, &load);
    if let Some(role) = options.kill {
        cluster.kill(role)?;
    }
    wait(&load, options.warmup, "warming up");
    let before = cluster.status();
    load.start_measuring();
    wait(&load, options.duration, "measuring");
    load.stop_measuring();
    let after = cluster.status();
    let measured = started.recv()?;
    let checked_keys = read_back(&cluster, &measured)?;
    let replicas = wait_until_equal(&cluster)?;
    cluster.stop()?;

    let report =
        Report::new(options, &measured, &Found { before, after, checked_keys, replicas, floor });
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
fn start_clients(cluster: &LocalCluster, load: &Arc<Load>) -> Receiver<Measured> {
    let (sender, receiver) = channel();
    let load = Arc::clone(load);
    cluster.move_in(move || Callers::new(load, sender));
    receiver
}

/// Waits, unless it is interrupted, and tells a person how it goes.
fn wait(load: &Load, most: Duration, what: &str) {
    let is_watched = std::io::stderr().is_terminal();
    let (started, mut told_at, mut told) = (Instant::now(), Instant::now(), load.answered());
    while started.elapsed() < most && !load.is_interrupted() {
        std::thread::sleep(Duration::from_millis(10).min(most));
        let since = told_at.elapsed();
        if is_watched && since >= Duration::from_secs(1) {
            let answered = load.answered();
            let rate = report::ratio(answered - told, since.as_secs_f64());
            let seconds = started.elapsed().as_secs();
            eprint!("\r{what}: {seconds} s, {rate:.0} operations/s      ");
            (told_at, told) = (Instant::now(), answered);
        }
    }
    if is_watched {
        eprint!("\r{:60}\r", "");
    }
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

fn role(text: &str) -> Result<RoleId, String> {
    text.parse().map_err(|error: loggos::NoRole| error.to_string())
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
