//! Loggos beside other consensus libraries, on the same load and in the same minutes.
//!
//! - As function calls: three replicas on one thread, and each reads every byte of every command
//!   that is decided, in order.
//! - On threads, in one process on two cores: three replicas that each execute puts, and callers
//!   that send their next command when they have an answer. Loggos is `loggos bench`.
//!
//! Turn by turn, for a second each; ratios are of two turns of one round, and of all rounds the
//! median is told, with the least and the largest.
//!
//! Usage: `peers [ROUNDS]`, 5 without.

mod engine;
mod figures;
mod load;
mod omni;
mod raft;

use std::time::{Duration, Instant};

use loggos_benches::{Line, settings};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::figures::{Figures, told};

/// Batches under way at once, as function calls.
const WINDOW: u32 = 256;
/// Commands a batch, as function calls.
const BATCHES: [u32; 2] = [1, 512];
/// A put of 16-byte key and value.
const COMMAND_BYTES: usize = 35;
/// How long each runs before it counts, and while it does.
const TURN: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

fn main() {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse());
    let rounds: u32 = rounds.expect("a number of rounds");
    println!("| commands a batch, {WINDOW} batches at once | omnipaxos M/s | Loggos M/s | ratio |");
    println!("|---|---|---|---|");
    for batch in BATCHES {
        let figures = in_turn(rounds, || {
            let (theirs, ours) = (omnipaxos(batch), loggos(batch));
            [theirs, ours, ours / theirs]
        });
        println!("| {batch} | {} |", figures.join(" | "));
    }
    println!();
    println!(
        "| callers × in flight | openraft | omnipaxos | Loggos | to openraft | to omnipaxos |"
    );
    println!("|---|---|---|---|---|---|");
    let figures = in_turn(rounds, || {
        beside(256 * 16, || engine::run(256, 16).0, |figures| figures.millions())
    });
    println!("| 256 × 16, M/s | {} |", figures.join(" | "));
    let figures = in_turn(rounds, || beside(1, || engine::run(1, 1).1, Figures::median_us));
    println!("| 1 × 1, p50 in µs | {} |", figures.join(" | "));
}

/// A figure of both peers with so many commands in flight, of Loggos, and its ratios to theirs.
fn beside(in_flight: usize, ours: impl Fn() -> f64, figure: fn(Figures) -> f64) -> [f64; 5] {
    let peers = [figure(raft::run(in_flight)), figure(omni::run(in_flight))];
    let ours = ours();
    [peers[0], peers[1], ours, ours / peers[0], ours / peers[1]]
}

/// So many rounds; of each figure of a round what is told of it.
fn in_turn<const N: usize>(rounds: u32, mut round: impl FnMut() -> [f64; N]) -> [String; N] {
    let mut found = [const { Vec::new() }; N];
    for _ in 0..rounds {
        found.iter_mut().zip(round()).for_each(|(all, figure)| all.push(figure));
    }
    found.map(told)
}

fn omnipaxos(batch: u32) -> f64 {
    let mut cluster = omni::Cluster::new(batch as usize);
    let commands = WINDOW * batch;
    rate(commands, || cluster.run(commands))
}

fn loggos(batch: u32) -> f64 {
    let mut line = Line::new(&settings(batch, WINDOW), COMMAND_BYTES);
    let commands = WINDOW * batch;
    rate(commands, || _ = line.run(commands))
}

/// Millions of commands a second, of which `run` does so many.
fn rate(commands: u32, mut run: impl FnMut()) -> f64 {
    let mut figures = Figures::default();
    for time in TURN {
        figures = Figures::default();
        let began = Instant::now();
        while began.elapsed() < time {
            run();
            figures.operations += u64::from(commands);
        }
        figures.time = began.elapsed();
    }
    figures.millions()
}

/// Keeps this thread on one core.
fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).expect("there are two cores");
}
