//! What every simulation must hold to, and seeds that once found a bug.

/// Seeds that found a bug, with what it was. They run for ever; where the swarm has changed since,
/// they are as good as any others.
const REGRESSIONS: &str = include_str!("../regressions");

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..5 {
        assert_eq!(loggos_sim::run(seed), loggos_sim::run(seed), "seed {seed}");
    }
}

#[test]
fn seeds_that_found_a_bug_pass() {
    for line in REGRESSIONS.lines() {
        let (seed, bug) = line.split_once(' ').expect("a seed, and what it found");
        let outcome = loggos_sim::run(seed.parse().expect("a number"));
        assert!(outcome.events > 0, "seed {seed} ({bug}) did nothing");
    }
}
