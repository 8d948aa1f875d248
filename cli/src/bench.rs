//! `loggos bench`: a load of independent callers, and what came of it.
//!
//! ```text
//!   start the cluster ─▶ warm up ─▶ measure ─▶ let calls end ─▶ read back ─▶ report
//! ```

mod floor;
mod html;
mod load;
mod memory;
mod read_back;
mod report;
mod setting;
mod subject;
mod sweep;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use clap::{Args, Parser, ValueEnum};
use loggos::kv::{EncodeError, Kv};
use loggos::{
    Config, Consistency, CoreTrace, Durability, Idle, LocalCluster, QuorumSystem, RemoteOptions,
    RoleId, Settings,
};

use serde_json::Value;

use load::{Callers, Load, Measured, Share};
use memory::Memory;
use read_back::read_back;
use report::{Checked, Found, Report};
use setting::Setting;
use subject::{RoleState, Subject};
use sweep::{Axis, Run, Sweep};
use tempfile::TempDir;

use crate::exit::{self, Exit};
use crate::log;
use crate::remote::Named;
use crate::signals;

/// The bytes that a value may have.
pub(crate) const SIZES: RangeInclusive<i64> = 8..=16_384;
/// The longest time until the cluster has elected its first leader and answered a command.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// The bytes of values that are in flight at once for a plan.
const IN_FLIGHT_BYTES: u32 = 4 << 20;
/// The moment that the turns of cores are shown of.
const TRACED: Duration = Duration::from_millis(2);
/// The longest time until replicas are equal, once no command is under way.
const QUIET_TIMEOUT: Duration = Duration::from_secs(10);

/// The options of `bench`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The cluster to measure, as `loggos config example` shows it; by default as it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Measure what is left without replication: the same load, gateway and batching before one
    /// state machine, in a cluster of one role of each kind, all on the first core, that survives
    /// no loss (f = 0). What replication costs is the difference to a run without this option.
    #[arg(long, conflicts_with_all = ["config", "kill"])]
    unreplicated: bool,
    /// Where acceptors of a cluster that is started for the purpose keep what they promised; by
    /// default as the configuration says, or in memory.
    #[arg(long, value_name = "memory|sync", conflicts_with = "connect", value_parser = durability)]
    durability: Option<Durability>,
    /// Where a directory is made for their logs, and removed at the end; by default where temporary
    /// files are.
    #[arg(long, value_name = "DIR", conflicts_with = "connect")]
    data: Option<PathBuf>,
    /// The address of a node of a running cluster to measure, which must have a gateway.
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["config", "unreplicated", "kill"], value_parser = crate::remote::address)]
    connect: Option<SocketAddr>,
    /// Connections that callers share, to a cluster of other processes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    connections: u32,
    /// Independent callers.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    clients: u32,
    /// Commands that each caller has in flight at most.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pipeline: u32,
    /// Bytes of a value.
    #[arg(long, value_name = "B", default_value_t = 16, value_parser = clap::value_parser!(u32).range(SIZES))]
    size: u32,
    /// The part of operations that are reads, from 0 to 1: see --consistency.
    #[arg(long, value_name = "PART", default_value_t = 0.0, value_parser = part)]
    reads: f64,
    /// What a read must reflect. With `log` it is a command like the others; at all other levels a
    /// replica is asked.
    #[arg(long, value_name = "LEVEL", default_value = "linearizable")]
    consistency: ReadAs,
    /// Keys, of 16 bytes each.
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    keys: u32,
    /// Send this many operations a second, whether earlier ones are answered or not, and count
    /// latency from when each should have been sent. Without it every caller sends its next when it
    /// has an answer.
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
    /// Kill this role when warming up begins, such as "replica 1": what is measured is what is
    /// left.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    kill: Option<RoleId>,
    /// Measure once for each of these values, such as clients=1,16,256, in place of --clients.
    /// Given more than once, every combination is measured, and the first setting varies fastest.
    /// Settings are clients, pipeline and size; and proxy-leaders, acceptors (as in 2x2,3x3) and
    /// replicas of the default cluster.
    #[arg(long, value_name = "WHAT=V,V,...", conflicts_with_all = ["kill", "floor"])]
    sweep: Vec<Axis>,
    /// Measure a round trip over loopback and a sync in the same run, and tell latencies as
    /// multiples.
    #[arg(long)]
    floor: bool,
    /// Write the figures to this file, or to standard output for `-`.
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Write the figures to this file as a page of HTML, with pictures of throughput and latency.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

/// How a read is made.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum ReadAs {
    Linearizable,
    Sequential,
    Eventual,
    Log,
}

impl ReadAs {
    /// What a query must reflect; `None` if a read is a command.
    fn consistency(self) -> Option<Consistency> {
        match self {
            Self::Linearizable => Some(Consistency::Linearizable),
            Self::Sequential => Some(Consistency::Sequential),
            Self::Eventual => Some(Consistency::Eventual),
            Self::Log => None,
        }
    }

    /// Its name.
    fn words(self) -> &'static str {
        match self {
            Self::Linearizable => "linearizable",
            Self::Sequential => "sequential",
            Self::Eventual => "eventual",
            Self::Log => "by the log",
        }
    }
}

/// Runs the benchmark and prints what it measured.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = match &options.config {
        Some(file) => Config::load(file)?,
        None if options.unreplicated => unreplicated(),
        None => Config::standard(),
    };
    if options.poll {
        config.idle = Idle::Poll;
    } else if options.park {
        config.idle = Idle::Park;
    }
    config.durability = options.durability.or(config.durability);
    let runs = sweep::runs(options, &config).map_err(|why| Exit { code: exit::USAGE, why })?;
    for file in options.files() {
        let opened = File::options().create(true).append(true).open(file);
        opened.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&is_interrupted);
    signals::hear(&signals::ENDING, move |_| {
        // The first ends it early: the figures so far are still told.
        if interrupted.swap(true, Ordering::AcqRel) {
            std::process::exit(exit::INTERRUPTED.into()); // not even the figures are wanted
        }
    })?;
    if options.sweep.is_empty() {
        let report = measure(options, config, &is_interrupted)?;
        tell(options, &report)?;
        return verdict(&report, &is_interrupted);
    }
    let mut sweep = Sweep::new(command_line(), &options.sweep);
    let is_told = options.json.as_deref() != Some("-");
    if is_told {
        sweep.print_head(exit::stdout())?;
    }
    // Whatever becomes of a run, those before it are told.
    let ended = runs.into_iter().try_for_each(|(steps, options, config)| {
        let report = measure(&options, config, &is_interrupted)?;
        let ended = verdict(&report, &is_interrupted);
        if is_interrupted.load(Ordering::Acquire) {
            return ended; // it was cut short, and is not like the others
        }
        sweep.runs.push(Run { values: steps.iter().map(ToString::to_string).collect(), report });
        if is_told {
            sweep.print_last(exit::stdout())?;
        }
        ended
    });
    write_files(options, |to| sweep.print_json(to), |to| html::print_sweep(&sweep, to))?;
    ended
}

/// Measures once.
fn measure(
    options: &Options,
    mut config: Config,
    is_interrupted: &Arc<AtomicBool>,
) -> Result<Report, Box<dyn std::error::Error>> {
    let setting = Setting::now(durability_of(options, &config));
    let load = Arc::new(Load::new(options, is_interrupted));
    // Held to the end: it is removed then.
    let data = data(options, &config)?;
    config.data = data.as_ref().map(|data| data.path().to_owned());
    let subject = subject(options, &config)?;

    let floor = options.floor.then(floor::measure).transpose()?;
    let started = start_clients(&subject, &load);
    if let (Some(role), Subject::Local(cluster)) = (options.kill, &subject) {
        cluster.kill(role)?;
    }
    wait(&load, options.warmup, "warming up");
    let before = subject.state();
    load.start_measuring();
    let traces = measure_and_trace(options, &subject, &load);
    load.stop_measuring();
    let after = subject.state();
    let is_local = matches!(subject, Subject::Local(_));
    let memory = is_local.then(Memory::now).flatten();
    let measured = started.iter().reduce(Measured::merge).ok_or("no caller has finished")?;
    let checked = check(&subject, &measured);
    subject.stop()?;
    let expected = if is_local { config.expected_shares(None) } else { Vec::new() };
    let cluster = options.connect.is_none().then_some(config.cluster);
    let found = Found { before, after, cluster, expected, memory, checked, setting, floor, traces };
    Ok(Report::new(command_line(), options, &measured, &found))
}

/// Waits for as long as it is to be measured; returns what cores of this process did in a moment
/// half-way, if a page is to show it.
fn measure_and_trace(options: &Options, subject: &Subject, load: &Load) -> Vec<CoreTrace> {
    let half = options.duration / 2;
    wait(load, half, "measuring");
    let started = Instant::now();
    let traces = match subject {
        Subject::Local(cluster) if options.report.is_some() => cluster.trace(TRACED),
        Subject::Local(_) | Subject::Remote { .. } => Vec::new(),
    };
    wait(load, (options.duration - half).saturating_sub(started.elapsed()), "measuring");
    traces
}

/// Measures puts of values of `size` bytes on the default cluster, with at most `batch` commands in
/// a slot, and more in flight than that takes; returns the figures as they are written to a file.
pub(crate) fn measure_here(size: u32, batch: u32) -> Result<Value, Box<dyn std::error::Error>> {
    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        options: Options,
    }
    // Large values are not to wait for one another.
    let pipeline = (IN_FLIGHT_BYTES / (256 * size)).clamp(1, 16).to_string();
    let size = size.to_string();
    let words =
        ["bench", "--size", &size, "--pipeline", &pipeline, "--warmup", "1s", "--duration", "2s"];
    let Words { options } = Words::parse_from(words);
    let standard = Config::standard();
    let settings = Settings { batch_commands_max: batch, ..Settings::clone(&standard.cluster) };
    let cluster = settings.check().expect("the default cluster, with smaller batches");
    let config = Config::on_cpus(cluster, standard.cpus);
    let report = measure(&options, config, &Arc::default())?;
    if let Some(why) = &report.read_back.failed {
        return Err(why.clone().into());
    }
    Ok(serde_json::to_value(&report)?)
}

/// How a run ends: well, unless what was read back is wrong, or it was cut short.
fn verdict(report: &Report, is_interrupted: &AtomicBool) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(why) = &report.read_back.failed {
        return Err(why.clone().into());
    }
    if is_interrupted.load(Ordering::Acquire) {
        let why = format!("cut short by a signal: {:.1} s were measured", report.load.duration_s);
        return Err(Exit { code: exit::INTERRUPTED, why }.into());
    }
    Ok(())
}

/// Where acceptors keep their votes, as far as that is known here.
fn durability_of(options: &Options, config: &Config) -> Option<Durability> {
    match options.connect {
        Some(_) => None,
        None if config.is_durable() => Some(Durability::Sync),
        None => Some(Durability::Memory),
    }
}

/// Reads back what was written, and compares the replicas.
fn check(subject: &Subject, measured: &Measured) -> Result<Checked, String> {
    let keys = subject.ask(read_back(measured)).recv().map_err(|error| error.to_string())??;
    Ok(Checked { keys, replicas: wait_until_equal(subject)? })
}

/// Makes the data directory of a cluster that is started for the purpose, if its acceptors are
/// durable.
fn data(options: &Options, config: &Config) -> Result<Option<TempDir>, Box<dyn std::error::Error>> {
    let is_ours = options.connect.is_none() && config.nodes.is_empty();
    if !is_ours || !config.is_durable() {
        return Ok(None);
    }
    let parent = options.data.clone().unwrap_or_else(std::env::temp_dir);
    let data = tempfile::Builder::new()
        .prefix("loggos-bench-")
        .tempdir_in(&parent)
        .map_err(|error| format!("{}: {error}", parent.display()))?;
    LocalCluster::format(&Config { data: Some(data.path().to_owned()), ..config.clone() })?;
    Ok(Some(data))
}

/// Starts the cluster to measure, or connects to it.
fn subject(options: &Options, config: &Config) -> Result<Subject, Box<dyn std::error::Error>> {
    let remote = |remote: &RemoteOptions, nodes: Vec<Named>| {
        let patient = RemoteOptions { deadline: READY_TIMEOUT, ..remote.clone() };
        crate::remote::execute(patient, &nodes, &first_command()?)?;
        let connections = options.connections.min(options.clients);
        Ok(Subject::connect(remote, connections, nodes)?)
    };
    let idle = if options.poll { Idle::Poll } else { Idle::Park };
    if let Some(address) = options.connect {
        let nodes = vec![(address.to_string(), address.into())];
        return remote(&RemoteOptions { idle, ..RemoteOptions::new(vec![address]) }, nodes);
    }
    if config.nodes.is_empty() {
        let keys = options.keys as usize;
        let cluster = LocalCluster::start(config, move |_| Kv::with_capacity(2 * keys))?;
        wait_until_ready(&cluster)?;
        return Ok(Subject::Local(cluster));
    }
    if let Some(role) = options.kill {
        return Err(format!("{role} is in another process: end that one to kill it").into());
    }
    let options = crate::remote::options_of(config)?;
    remote(&RemoteOptions { idle, ..options }, crate::remote::named(config))
}

/// What is left of a cluster when nothing is replicated: one role of each kind. On one core they
/// are faster than on two (nothing is handed over), and a baseline shall be hard to beat.
fn unreplicated() -> Config {
    let grid = QuorumSystem::grid(1, 1, 0).expect("one acceptor survives no loss");
    let cluster = Settings::new(0, grid).check().expect("one role of each kind makes a cluster");
    let mut cpus = Config::standard().cpus;
    cpus.truncate(1);
    Config::on_cpus(cluster, cpus)
}

/// Prints and writes the figures: on the terminal first, since writing a file may fail; and to the
/// files, whether the reader of standard output wanted all of it or not.
fn tell(options: &Options, report: &Report) -> Result<(), Box<dyn std::error::Error>> {
    let printed = match options.json.as_deref() {
        Some("-") => Ok(()),
        Some(_) | None => report.print_text(exit::stdout()),
    };
    write_files(options, |to| report.print_json(to), |to| html::print(report, to))?;
    Ok(printed?)
}

/// Writes the files that were asked for, of which standard output may be one.
fn write_files(
    options: &Options,
    json: impl Fn(&mut dyn Write) -> io::Result<()>,
    page: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    match options.json.as_deref() {
        Some("-") => json(&mut exit::stdout())?,
        Some(file) => json(&mut create(file)?)?,
        None => {}
    }
    if let Some(file) = &options.report {
        page(&mut create(file)?)?;
    }
    Ok(())
}

fn create(file: impl AsRef<Path>) -> Result<File, String> {
    let file = file.as_ref();
    File::create(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Returns the command line, quoted so that a shell would run it again.
fn command_line() -> String {
    let arguments = std::env::args_os().skip(1);
    let arguments = arguments.map(|argument| quoted(&argument.to_string_lossy()));
    std::iter::once("loggos".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// An argument as a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A command that is answered once there is a leader: it asks for something that is not there.
fn first_command() -> Result<Vec<u8>, EncodeError> {
    let mut get = Vec::new();
    loggos::kv::Command::Get { key: b"is anybody there?" }.encode(&mut get)?;
    Ok(get)
}

/// Waits for a leader.
fn wait_until_ready(cluster: &LocalCluster) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let command = first_command()?;
    loop {
        match cluster.client().execute_blocking(&command) {
            Ok(_) => return Ok(()),
            Err(_) if started.elapsed() < READY_TIMEOUT => {}
            Err(error) => return Err(format!("the cluster does not answer: {error}").into()),
        }
    }
}

/// Starts all callers, shared among the entrances; what they measured comes through the channel
/// when the last ones of each have ended.
fn start_clients(subject: &Subject, load: &Arc<Load>) -> Receiver<Measured> {
    let (sender, receiver) = channel();
    let count = subject.entrances();
    subject.move_in(|index| {
        let (load, sender) = (Arc::clone(load), sender.clone());
        Box::new(move || Callers::new(load, sender, Share { index, count }))
    });
    receiver
}

/// Waits, unless it is interrupted, and tells a person how it goes.
fn wait(load: &Load, most: Duration, what: &str) {
    let is_watched = io::stderr().is_terminal();
    let (started, mut told_at, mut told) = (Instant::now(), Instant::now(), load.answered());
    while started.elapsed() < most && !load.is_interrupted() {
        std::thread::sleep(Duration::from_millis(10).min(most));
        let since = told_at.elapsed();
        if is_watched && since >= Duration::from_secs(1) {
            let answered = load.answered();
            let rate = report::ratio(answered - told, since.as_secs_f64());
            let seconds = started.elapsed().as_secs();
            log::show(&format!("\r{what}: {seconds} s, {rate:.0} operations/s      "));
            (told_at, told) = (Instant::now(), answered);
        }
    }
    if is_watched {
        log::show(&format!("\r{:60}\r", ""));
    }
}

/// Waits until every replica that has not halted has executed as much as the others, and compares
/// them.
fn wait_until_equal(subject: &Subject) -> Result<Vec<RoleState>, String> {
    let started = Instant::now();
    loop {
        let is_replica = |role: &RoleState| role.state_hash.is_some() && role.halted.is_none();
        let replicas: Vec<_> = subject.state().roles.into_iter().filter(is_replica).collect();
        let mut standings = replicas.iter().map(|r| (r.executed_watermark, r.state_hash.clone()));
        let first = standings.next();
        let others: Vec<_> = standings.collect();
        if others.iter().all(|other| Some(other) == first.as_ref()) {
            return Ok(replicas);
        }
        let is_level = others.iter().all(|other| Some(other.0) == first.as_ref().map(|f| f.0));
        if is_level || started.elapsed() > QUIET_TIMEOUT {
            return Err(format!("replicas differ: {first:?} and {others:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn role(text: &str) -> Result<RoleId, String> {
    text.parse().map_err(|error: loggos::NoRole| error.to_string())
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "sync" => Ok(Durability::Sync),
        _ => Err("is \"memory\" or \"sync\"".to_owned()),
    }
}

fn part(text: &str) -> Result<f64, String> {
    let part: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if (0.0..=1.0).contains(&part) { Ok(part) } else { Err("must be from 0 to 1".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is not a time such as 10s"))?;
    let seconds = match unit {
        "s" | "" => number,
        "ms" => number / 1e3,
        "us" => number / 1e6,
        "m" | "min" => number * 60.0,
        _ => return Err(format!("`{unit}` is not a unit of time: use us, ms, s or min")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("`{text}` is too long"))
}

impl Options {
    /// The files that the figures are written to.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let json = self.json.as_deref().filter(|file| *file != "-").map(Path::new);
        json.into_iter().chain(self.report.as_deref())
    }

    fn is_read(&self, random: u64) -> bool {
        // 53 bits are what a float holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "of 53 bits none is lost")]
        let unit = (random >> 11) as f64 / (1_u64 << 53) as f64;
        unit < self.reads
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_baseline_has_one_role_of_each_kind_on_one_core() {
        let config = unreplicated();
        assert_eq!((config.cluster.f, config.placement.len()), (0, 5));
        assert!(config.cpus.len() == 1 && config.placement.values().all(|core| *core == 0));
    }

    #[test]
    fn a_baseline_takes_no_other_cluster_and_no_loss() {
        assert!(Line::try_parse_from(["bench", "--unreplicated"]).unwrap().options.unreplicated);
        for other in [["--config", "a.toml"], ["--kill", "replica 0"]] {
            let line = ["bench", "--unreplicated"].into_iter().chain(other);
            let error = Line::try_parse_from(line).unwrap_err();
            assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict, "{other:?}");
        }
    }

    #[test]
    fn a_quoted_argument_is_one_argument() {
        assert_eq!(quoted("--rate=10"), "--rate=10");
        assert_eq!(quoted("replica 1"), "'replica 1'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
