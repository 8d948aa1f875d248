//! What every simulation must hold to, and seeds that once found a bug.

/// Seeds that found a bug, with what it was. They run for ever; where the swarm has changed since, they
/// are as good as any others.
const REGRESSIONS: [(u64, &str); 7] = [
    (3, "a gateway whose guess at the leader was wrong asked replicas for ever"),
    (80, "a lost session failed commands that had been answered"),
    (1880, "an acceptor that missed the forming never got the table"),
    (4920, "likewise, where no leader had been elected yet"),
    (9037, "an acceptor that missed a replica's last report refused what was beyond its ring"),
    (14640, "the checker lost votes that a larger ballot had replaced while they were held"),
    (22370, "replicas that missed truncated slots were never told of them"),
];

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..5 {
        assert_eq!(loggos_sim::run(seed, false), loggos_sim::run(seed, false), "seed {seed}");
    }
}

#[test]
fn seeds_that_found_a_bug_pass() {
    for (seed, _) in REGRESSIONS {
        let outcome = loggos_sim::run(seed, false);
        assert!(outcome.events > 0, "seed {seed} did nothing");
    }
}
