//! `loggos-model`: searches through every behaviour of a small cluster, and tells how one breaks a
//! rule.

#![expect(clippy::print_stdout, reason = "results of a command go to standard output")]
#![expect(clippy::print_stderr, reason = "and its errors to standard error")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use loggos_model::{Bounds, Finding, Findings, Limits, World, search};
use loggos_protocol::QuorumSystem;

/// Searches through every behaviour of a small Loggos cluster, within bounds.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How acceptors form quorums.
    #[arg(long, value_enum)]
    world: Quorums,
    /// Look no further than this many steps; without, to the end.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Search on this many threads; with one, a path that is told is a shortest one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Proxy leaders; with 0 each proposer has its own.
    #[arg(long, value_name = "N", default_value_t = 2)]
    proxy_leaders: u8,
    /// Slots that may be filled.
    #[arg(long, value_name = "N", default_value_t = 1)]
    slots: u64,
    /// Campaigns of each proposer.
    #[arg(long, value_name = "N,N", default_value = "1,1", value_parser = pair)]
    campaigns: [u8; 2],
    /// Commands that each proposer is given.
    #[arg(long, value_name = "N,N", default_value = "1,1", value_parser = pair)]
    commands: [u8; 2],
    /// Times each proposer tries another proxy leader.
    #[arg(long, value_name = "N", default_value_t = 0)]
    resends: u8,
    /// Times each proxy leader tries other acceptors.
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u8,
    /// Times each acceptor takes in a P1a, and each proxy leader a P2a, that it had before.
    #[arg(long, value_name = "N", default_value_t = 0)]
    repeats: u8,
    /// Lose all answers of acceptors to proxy leaders: look further, at agreement only.
    #[arg(long)]
    deaf: bool,
    /// Slots in a page of a P1b.
    #[arg(long, value_name = "N", default_value_t = 256)]
    page: u32,
    /// Tell how each of the interesting things comes about.
    #[arg(long)]
    examples: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Quorums {
    /// A 2 × 2 grid.
    Grid,
    /// A majority of 3.
    Majority,
}

fn pair(text: &str) -> Result<[u8; 2], String> {
    let (first, second) = text.split_once(',').ok_or("two numbers are needed, as in 1,1")?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
    Ok([number(first)?, number(second)?])
}

fn main() -> ExitCode {
    let options = Options::parse();
    let quorums = match options.world {
        Quorums::Grid => QuorumSystem::grid(2, 2, 1),
        Quorums::Majority => QuorumSystem::majority(1),
    };
    let bounds = Bounds {
        slots: options.slots,
        campaigns: options.campaigns,
        commands: options.commands,
        resends: options.resends,
        retries: options.retries,
        repeats: options.repeats,
        is_deaf: options.deaf,
    };
    let quorums = quorums.expect("survives one loss");
    let world = match World::new(quorums, options.proxy_leaders, options.page, bounds) {
        Ok(world) => world,
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = search(world, Limits { steps: options.depth, threads: options.threads });
    tell(&findings, options.examples);
    if findings.is_broken() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tell(findings: &Findings, with_examples: bool) {
    for Finding { property, is_rule, path } in &findings.properties {
        let expectation = if *is_rule { "always" } else { "sometimes" };
        let verdict = match (path, is_rule) {
            (None, true) => "holds".to_owned(),
            (None, false) => "not seen".to_owned(),
            (Some(path), true) => format!("BROKEN after {} steps", path.steps),
            (Some(path), false) => format!("seen after {} steps", path.steps),
        };
        println!("{expectation:<9} {property}: {verdict}");
        if let Some(path) = path.as_ref().filter(|_| *is_rule || with_examples) {
            print!("{}", path.text);
        }
    }
    let Findings { states, steps, is_complete, took, .. } = findings;
    let extent = if *is_complete { "complete" } else { "not complete" };
    println!("{states} states, {steps} steps deep, {extent}, in {took:.1?}");
}
