//! Loggos beside other consensus libraries, on the same load and in the same minutes.
//!
//! Today's peer is omnipaxos, and the load is of function calls: three replicas on one thread, and
//! each reads every byte of every command that is decided, in order. Turn by turn, for a second
//! each; ratios are of two turns that followed each other, and of all rounds the median is told,
//! with the least and the largest.
//!
//! Usage: `peers [ROUNDS]`, 5 without.

mod omni;

use std::time::{Duration, Instant};

use loggos_benches::{Line, settings};

/// Batches under way at once.
const WINDOW: u32 = 256;
/// Commands a batch.
const BATCHES: [u32; 2] = [1, 512];
/// A put of 16-byte key and value.
const COMMAND_BYTES: usize = 35;
/// How long each runs before it counts, and while it does.
const TURN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];

fn main() {
    let rounds = std::env::args().nth(1).map_or(Ok(5), |rounds| rounds.parse());
    let rounds: u32 = rounds.expect("a number of rounds");
    println!("| commands a batch, {WINDOW} batches at once | omnipaxos M/s | Loggos M/s | ratio |");
    println!("|---|---|---|---|");
    for batch in BATCHES {
        let mut found = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            let theirs = omnipaxos(batch);
            let ours = loggos(batch);
            let figures = [theirs / 1e6, ours / 1e6, ours / theirs];
            found.iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
        }
        let [theirs, ours, ratio] = found.map(told);
        println!("| {batch} | {theirs} | {ours} | {ratio} |");
    }
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

/// Commands a second, of which `run` does so many.
fn rate(commands: u32, mut run: impl FnMut()) -> f64 {
    let mut rate = 0.0;
    for time in TURN {
        let (began, mut runs) = (Instant::now(), 0);
        while began.elapsed() < time {
            run();
            runs += 1;
        }
        rate = f64::from(commands) * f64::from(runs) / began.elapsed().as_secs_f64();
    }
    rate
}

/// The median, the least and the largest.
fn told(mut figures: Vec<f64>) -> String {
    figures.sort_unstable_by(f64::total_cmp);
    let median = figures[figures.len() / 2];
    format!("{median:.2} ({:.2}-{:.2})", figures[0], figures[figures.len() - 1])
}
