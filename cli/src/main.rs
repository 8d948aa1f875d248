//! `loggos`: runs, measures and inspects clusters.

mod bench;
mod config;
mod exit;
mod kv;
mod lines;
mod log;
mod node;
mod plan;
mod remote;
mod signals;
mod skip;
mod snapshot;
mod status;
mod wal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loggos::ConfigErrors;
use tracing_subscriber::filter::LevelFilter;

use crate::exit::Exit;

/// A replicated log and state-machine replication engine: Compartmentalized MultiPaxos, thread per
/// core.
#[derive(Debug, Parser)]
#[command(name = "loggos", version, propagate_version = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure throughput and latency: of a running cluster, or of one started for the purpose.
    Bench(bench::Options),
    /// Tell how many of each role a load takes, which is the bottleneck, and what the next one
    /// buys.
    Plan(plan::Options),
    /// Run a whole cluster in this process, for clients to connect to.
    Up(node::UpOptions),
    /// Run one node of a cluster.
    Node(node::NodeOptions),
    /// Create the data directory of a node, once.
    Format(node::NodeOptions),
    /// Read and write keys of a running cluster.
    Kv(kv::Options),
    /// Tell how the roles of a running cluster stand.
    Status(status::Options),
    /// Skip a command at which every replica has halted, since it makes the state machine panic.
    Skip(skip::Options),
    /// Save a snapshot of a cluster, or start a new one from it.
    Snapshot(snapshot::Options),
    /// Look at an acceptor's log.
    Wal(wal::Options),
    /// Check a configuration, or print one that names everything.
    Config(config::Options),
}

fn main() -> ExitCode {
    let command = Options::parse().command;
    let is_server = matches!(command, Command::Up(_) | Command::Node(_));
    let level = if is_server { LevelFilter::INFO } else { LevelFilter::WARN };
    let code = match log::start(level) {
        Ok(()) => run(command),
        Err(error) => {
            log::complain(&error);
            ExitCode::from(exit::USAGE)
        }
    };
    log::finish();
    code
}

fn run(command: Command) -> ExitCode {
    let done = match command {
        Command::Bench(options) => bench::run(&options),
        Command::Plan(options) => plan::run(&options),
        Command::Up(options) => node::up(&options),
        Command::Node(options) => node::run(&options),
        Command::Format(options) => node::format(&options),
        Command::Kv(options) => kv::run(&options),
        Command::Status(options) => status::run(&options),
        Command::Skip(options) => skip::run(&options),
        Command::Snapshot(options) => snapshot::run(&options),
        Command::Wal(options) => return wal::run(&options),
        Command::Config(options) => config::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if exit::is_reader_gone(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let why = error.to_string();
            if error.is::<ConfigErrors>() {
                // Each mistake begins with its file and line: editors find them by that.
                log::say(&why);
            } else if !why.is_empty() {
                log::complain(&why);
            }
            error.downcast_ref().map_or(ExitCode::FAILURE, |Exit { code, .. }| (*code).into())
        }
    }
}
