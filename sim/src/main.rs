//! `loggos-sim`: runs simulated clusters, seed after seed, and tells which one broke, and how it
//! came to that.

#![expect(clippy::print_stdout, reason = "results of a command go to standard output")]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use loggos_sim::{Keep, Ladder, Outcome, Plan, Sight};

/// Seeds after which every situation should have been come across.
const COVERING_SEEDS: u64 = 500;

/// Simulates Loggos clusters under faults, each a pure function of its seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Run this many seeds. With 500 or more, all situations that there are must have come up.
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

thread_local! {
    /// What the last panic of this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let options = Options::parse();
    std::panic::set_hook(Box::new(|panic| {
        SAID.with(|said| *said.borrow_mut() = panic.to_string());
    }));
    let Some(seed) = options.seed else {
        let seeds = options.first..options.first + options.seeds.unwrap_or(0);
        return run(seeds);
    };
    let plan = Plan::draw(seed);
    println!("{plan:#?}");
    let keep = if options.trace { Keep::TellAll } else { Keep::Last };
    match attempt(plan, keep) {
        Ok(outcome) => {
            println!("{outcome:#?}");
            let seen = Sight::ALL.iter().filter(|sight| outcome.sights.contains(**sight));
            seen.for_each(|sight| println!("came across {sight}"));
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a plan; returns what broke, and how it came to that, if `keep` has it kept.
fn attempt(plan: Plan, keep: Keep) -> Result<Outcome, String> {
    let ladder = Rc::new(RefCell::new(Ladder::new(keep)));
    let run = || loggos_sim::run_plan(plan, Rc::clone(&ladder));
    catch_unwind(AssertUnwindSafe(run)).map_err(|_| {
        let said = SAID.with(RefCell::take);
        let slot = loggos_sim::slot_of(said.split_once('\n').map_or("", |(_, said)| said));
        let about = slot.map_or_else(String::new, |slot| format!(" about {slot}"));
        let lines = ladder.borrow().about(slot);
        format!("{said}\n\nthe last that was said{about}:\n{lines}")
    })
}

/// What seeds have come to, together.
#[derive(Debug)]
struct Totals {
    seeds: u64,
    events: u64,
    virtual_time: Duration,
    acknowledged: u64,
    elections: u64,
    safety_only: u64,
    undecided: u64,
    /// Of each seed, the longest that a client waited once all had healed, in election timeouts.
    waits: Vec<(f64, u64)>,
    /// Likewise, where syncs took longer than one.
    slow_waits: Vec<(f64, u64)>,
    /// Of each seed, how many slots were spent on a command that was acknowledged.
    slots_a_command: Vec<(f64, u64)>,
    /// In how many seeds each situation came up.
    sights: Vec<u64>,
}

impl Totals {
    fn new() -> Self {
        Self {
            seeds: 0,
            events: 0,
            virtual_time: Duration::ZERO,
            acknowledged: 0,
            elections: 0,
            safety_only: 0,
            undecided: 0,
            waits: Vec::new(),
            slow_waits: Vec::new(),
            slots_a_command: Vec::new(),
            sights: vec![0; Sight::ALL.len()],
        }
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.virtual_time += outcome.took;
        self.acknowledged += outcome.acknowledged;
        self.elections += outcome.elections;
        self.safety_only += u64::from(outcome.is_safety_only);
        self.undecided += u64::from(outcome.is_undecided);
        if !outcome.is_safety_only {
            let timeout = outcome.election_timeout.as_secs_f64();
            let waits = if outcome.has_slow_disks { &mut self.slow_waits } else { &mut self.waits };
            waits.push((outcome.longest_wait.as_secs_f64() / timeout, seed));
        }
        // Where only safety is checked, a run may end with little more than it was begun with; and
        // few commands say little, for an election costs slots, too.
        if outcome.acknowledged >= 100 && !outcome.is_safety_only {
            let slots_a_command = outcome.slots as f64 / outcome.acknowledged as f64;
            self.slots_a_command.push((slots_a_command, seed));
        }
        for (sight, count) in Sight::ALL.iter().zip(&mut self.sights) {
            *count += u64::from(outcome.sights.contains(*sight));
        }
    }

    /// Tells what came up, and how fast it went; returns the situations that never did.
    fn tell(&self, took: Duration) -> Vec<Sight> {
        for (sight, count) in Sight::ALL.iter().zip(&self.sights) {
            println!("{count:>8} seeds with {sight}");
        }
        let per_second = |count: f64| count / took.as_secs_f64();
        let per_seed = |count: u64| count as f64 / self.seeds.max(1) as f64;
        println!(
            "{} seeds passed in {took:.1?}: {:.0} virtual seconds and {:.0} events a second; {:.0} \
             events, {:.0} commands acknowledged and {:.1} elections a seed; {} seeds of safety only, \
             {} with operations too many to order",
            self.seeds,
            per_second(self.virtual_time.as_secs_f64()),
            per_second(self.events as f64),
            per_seed(self.events),
            per_seed(self.acknowledged),
            per_seed(self.elections),
            self.safety_only,
            self.undecided,
        );
        tell_spread(
            "once all had healed, election timeouts until a client's next answer",
            &self.waits,
        );
        tell_spread("likewise, where syncs took longer than one", &self.slow_waits);
        tell_spread("slots a command", &self.slots_a_command);
        let missing = Sight::ALL.iter().zip(&self.sights).filter(|(_, count)| **count == 0);
        missing.map(|(sight, _)| *sight).collect()
    }
}

/// Tells the median of what was measured, and the most, with the seed of that.
fn tell_spread(what: &str, measured: &[(f64, u64)]) {
    let mut measured = measured.to_vec();
    measured.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    if let (Some((median, _)), Some((most, seed))) =
        (measured.get(measured.len() / 2), measured.last())
    {
        let mean = measured.iter().map(|(it, _)| it).sum::<f64>() / measured.len() as f64;
        println!("{what}: median {median:.1}, mean {mean:.1}, at the most {most:.1} (seed {seed})");
    }
}

/// Runs `seeds` on all cores; stops at the first that fails, and explains it.
fn run(seeds: std::ops::Range<u64>) -> ExitCode {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let totals = Mutex::new(Totals::new());
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
                    let Ok(outcome) = attempt(Plan::draw(seed), Keep::Nothing) else {
                        failed.fetch_min(seed, Ordering::Relaxed);
                        return;
                    };
                    totals.lock().expect("no thread panics with it").add(seed, &outcome);
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed != u64::MAX {
        let why = attempt(Plan::draw(failed), Keep::Last).err();
        let why =
            why.unwrap_or_else(|| "not a second time: a run is not its seed's alone".to_owned());
        println!("seed {failed} failed: {why}\n\nagain with: loggos-sim --seed {failed} --trace");
        return ExitCode::FAILURE;
    }
    let missing = totals.into_inner().expect("no thread panics with it").tell(started.elapsed());
    if seeds.end - seeds.start >= COVERING_SEEDS && !missing.is_empty() {
        missing.iter().for_each(|sight| println!("never came up: {sight}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
