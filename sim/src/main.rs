//! `loggos-sim`: runs simulated clusters, seed after seed, and tells which one broke.

#![expect(clippy::print_stdout, reason = "results of a command go to standard output")]

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// Simulates Loggos clusters under faults, each a pure function of its seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Run this many seeds.
    #[arg(long, value_name = "N", conflicts_with = "seed", required_unless_present = "seed")]
    seeds: Option<u64>,
    /// Start with this one.
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// Run just this seed, and tell its plan.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Tell everything that happens, on standard error.
    #[arg(long, requires = "seed")]
    trace: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(seed) = options.seed {
        println!("{:#?}", loggos_sim::Plan::draw(seed));
        println!("{:#?}", loggos_sim::run(seed, options.trace));
        return ExitCode::SUCCESS;
    }
    let seeds = options.first..options.first + options.seeds.unwrap_or(0);
    run(seeds)
}

/// Runs `seeds` on all cores; stops at the first that fails.
fn run(seeds: std::ops::Range<u64>) -> ExitCode {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let totals = [const { AtomicU64::new(0) }; 5];
    let started = Instant::now();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.load(Ordering::Relaxed) < seed {
                        return;
                    }
                    let Ok(outcome) = catch_unwind(|| loggos_sim::run(seed, false)) else {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        return;
                    };
                    let counts = [
                        outcome.events,
                        outcome.acknowledged,
                        outcome.elections,
                        outcome.halts,
                        outcome.is_safety_only.into(),
                    ];
                    for (total, count) in totals.iter().zip(counts) {
                        total.fetch_add(count, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        println!("seed {failed} failed; again with: loggos-sim --seed {failed} --trace");
        return ExitCode::FAILURE;
    }
    let [events, acknowledged, elections, halts, safety_only] = totals.map(AtomicU64::into_inner);
    println!(
        "{} seeds passed in {:.1?}: {events} events, {acknowledged} commands acknowledged, \
         {elections} elections, {halts} replicas left behind, {safety_only} seeds of safety only",
        seeds.end - seeds.start,
        started.elapsed(),
    );
    ExitCode::SUCCESS
}
