//! `loggos`: runs, measures and inspects clusters.

mod bench;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// A replicated log and state-machine replication engine: Compartmentalized MultiPaxos, thread per core.
#[derive(Debug, Parser)]
#[command(name = "loggos", version, propagate_version = true)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure throughput and latency of a cluster started for the purpose, in memory.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("LOGGOS_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let done = match Options::parse().command {
        Command::Bench(options) => bench::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loggos: {error}");
            ExitCode::FAILURE
        }
    }
}
