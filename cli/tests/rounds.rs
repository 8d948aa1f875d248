//! Rounds of: load, `kill -9` of some nodes or all, at any moment, restart, read back. Every
//! acknowledged write is there, no unknown one counts twice, and replicas are equal.
//!
//! `LOGGOS_ROUNDS` says how many rounds (3, if nothing is said), `LOGGOS_SEED` repeats what was
//! drawn: the layouts, whom each kill struck, and when. A run of many rounds is one of several
//! clusters, one after the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a recovery takes is reported, not asserted")]

mod calls;
#[expect(dead_code, reason = "other tests ask for single roles")]
mod kept;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calls::{Chance, Counter, End, drawn_seed, given, read_all};
use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command;
use loggos::{CallError, Client, RemoteCluster, RemoteOptions};

/// Rounds of one cluster: its log is executed anew by every replica that comes back, and grows with
/// each.
const ROUNDS_OF_A_CLUSTER: u64 = 25;
const CALLERS: usize = 8;
const REPLICAS: usize = 3;
/// Between two commands of a caller: many moments to be killed at, few slots.
const PAUSE: Duration = Duration::from_millis(2);
/// Reads under way at once.
const READS: usize = 256;

/// What a caller has done.
#[derive(Default)]
struct Ledger {
    /// Keys of their own, each written once; whether that was acknowledged.
    written: BTreeMap<String, (u64, bool)>,
    counter: Counter,
}

/// What came of a run.
#[derive(Default)]
struct Tally {
    kills: u64,
    acknowledged: u64,
    unknown: u64,
    longest_round: Duration,
    longest_recovery: Duration,
}

#[test]
fn r31_what_was_acknowledged_survives_any_kill() {
    let rounds = given("LOGGOS_ROUNDS").unwrap_or(3);
    let seed = drawn_seed();
    println!("LOGGOS_SEED={seed} LOGGOS_ROUNDS={rounds}");
    let (mut chance, mut tally, started) = (Chance(seed), Tally::default(), Instant::now());
    let mut left = rounds;
    while left > 0 {
        let of_this = left.min(ROUNDS_OF_A_CLUSTER);
        run(of_this, &mut chance, &mut tally);
        left -= of_this;
    }
    let Tally { kills, acknowledged, unknown, longest_round, longest_recovery } = tally;
    println!(
        "{rounds} rounds of seed {seed} in {:.1?}: {kills} kills, {acknowledged} acknowledged writes, all there, \
         {unknown} unknown; the longest round {longest_round:.1?}, the longest recovery {longest_recovery:.1?}",
        started.elapsed()
    );
}

/// Who lives where. All survive the loss of any one acceptor and any one replica.
fn layout(chance: &mut Chance) -> (&'static str, Vec<Plan>) {
    let roles = |kinds: &[&str], id: u64| -> Vec<String> {
        kinds.iter().map(|kind| format!("{kind} {id}")).collect()
    };
    let all = ["gateway", "proposer", "proxy leader", "acceptor", "replica"];
    let front = ["gateway", "proposer", "proxy leader"];
    let fronts =
        |count: u64| (0..count).map(|id| Plan::new(format!("front-{id}"), &roles(&front, id)));
    match chance.below(3) {
        0 => {
            let nodes = (0..3).map(|id| Plan::new(format!("all-{id}"), &roles(&all, id)));
            (
                "quorums = \"majority\"\ngateways = 3\nproposers = 3\nproxy_leaders = 3",
                nodes.collect(),
            )
        }
        1 => {
            let acceptors =
                (0..3).map(|id| Plan::new(format!("acceptor-{id}"), &roles(&["acceptor"], id)));
            let replicas =
                (0..3).map(|id| Plan::new(format!("replica-{id}"), &roles(&["replica"], id)));
            (
                "quorums = \"majority\"\ngateways = 2",
                fronts(2).chain(acceptors).chain(replicas).collect(),
            )
        }
        _ => {
            let grid = (0..4).map(|id| {
                let kinds: &[&str] = if id < 3 { &["acceptor", "replica"] } else { &["acceptor"] };
                Plan::new(format!("grid-{id}"), &roles(kinds, id))
            });
            ("gateways = 2", fronts(2).chain(grid).collect())
        }
    }
}

fn run(rounds: u64, chance: &mut Chance, tally: &mut Tally) {
    let (config, plans) = layout(chance);
    println!("{}", plans.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join(" "));
    let config = format!(
        "[cluster]\nname = \"rounds\"\ndurability = \"sync\"\n{config}\n\
         [limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"512MiB\"\ncheckpoint_interval = 500"
    );
    let mut cluster = Cluster::new(&config, plans, |_| None);
    let all_nodes: Vec<usize> = (0..cluster.nodes_count()).collect();
    cluster.start(&all_nodes);
    let mut addresses = cluster.gateways();
    let connections: Vec<RemoteCluster> = (0..2)
        .map(|_| {
            addresses.rotate_left(1);
            let options =
                RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses.clone()) };
            RemoteCluster::connect(options).unwrap()
        })
        .collect();
    let mut ledgers: Vec<Ledger> = (0..CALLERS).map(|_| Ledger::default()).collect();
    for round in 0..rounds {
        let started = Instant::now();
        let what = under_load(&connections, &mut ledgers, round, |answered| {
            strike(&mut cluster, chance, tally, answered)
        });
        let loaded = started.elapsed();
        check(&connections[0].client(), &ledgers);
        cluster.wait_until_equal(REPLICAS);
        let status = cluster.status();
        for role in status["roles"].as_array().unwrap() {
            let state = role["state"].as_str().unwrap();
            assert!(["up", "leads", "follows"].contains(&state), "{role:#}");
        }
        let (took, keys) =
            (started.elapsed(), ledgers.iter().map(|it| it.written.len()).sum::<usize>());
        println!("round {round}: {what}; {took:.2?}, of that {loaded:.2?} load; {keys} keys");
        tally.longest_round = tally.longest_round.max(took);
    }
    for ledger in &ledgers {
        let acknowledged = ledger.written.values().filter(|(_, is_sure)| *is_sure).count() as u64;
        tally.acknowledged += acknowledged + ledger.counter.acknowledged;
        tally.unknown += ledger.written.len() as u64 - acknowledged + ledger.counter.unknown;
    }
}

/// Kills nodes and starts them again, some of them twice in a row, and waits until every caller is
/// served. Says what was done.
fn strike(
    cluster: &mut Cluster,
    chance: &mut Chance,
    tally: &mut Tally,
    answered: &[AtomicU64],
) -> String {
    chance.sleep(Duration::from_millis(150));
    let mut victims: Vec<usize> = (0..cluster.nodes_count()).collect();
    chance.shuffle(&mut victims);
    let count = match chance.below(8) {
        0 | 1 => victims.len() as u64,
        2 | 3 => 1 + chance.below(victims.len() as u64),
        _ => 1,
    };
    victims.truncate(usize::try_from(count).unwrap());
    let struck = Instant::now();
    cluster.kill(&victims);
    chance.sleep(Duration::from_millis(200));
    chance.shuffle(&mut victims);
    let restarted = Instant::now();
    let mut starting: Vec<_> = victims.iter().map(|node| Some(cluster.spawn(*node))).collect();
    let mut again = 0;
    if chance.one_in(3) {
        chance.sleep(Duration::from_millis(100));
        for (node, starting) in victims.iter().zip(&mut starting) {
            if chance.one_in(2) {
                cluster.kill(&[*node]);
                *starting = Some(cluster.spawn(*node));
                again += 1;
            }
        }
    }
    for (node, starting) in victims.iter().zip(&mut starting) {
        cluster.await_start(*node, starting.take().unwrap());
    }
    let listen = restarted.elapsed();
    // What was answered before may be counted after: the second is surely a new one.
    let counts = || -> Vec<u64> { answered.iter().map(|it| it.load(Ordering::Acquire)).collect() };
    let before = counts();
    wait_for("answers to every caller", || {
        counts().iter().zip(&before).all(|(now, before)| *now >= before + 2)
    });
    let recovery = restarted.elapsed();
    tally.kills += count + again;
    tally.longest_recovery = tally.longest_recovery.max(recovery);
    let names: Vec<&str> = victims.iter().map(|node| cluster.name(*node)).collect();
    let names =
        if victims.len() == cluster.nodes_count() { "all".to_owned() } else { names.join(" ") };
    format!(
        "{names}, {again} of them again, were away for {:.2?}; they listened after {listen:.2?}, and all were served after {recovery:.2?}",
        restarted - struck
    )
}

/// Lets callers write while `strike` does its worst.
fn under_load<T>(
    connections: &[RemoteCluster],
    ledgers: &mut [Ledger],
    round: u64,
    strike: impl FnOnce(&[AtomicU64]) -> T,
) -> T {
    let is_over = AtomicBool::new(false);
    let answered: Vec<AtomicU64> = ledgers.iter().map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let end = End(&is_over);
        for (caller, (ledger, answered)) in ledgers.iter_mut().zip(&answered).enumerate() {
            let client = connections[caller % connections.len()].client();
            let is_over = &is_over;
            scope.spawn(move || {
                for command in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    if ledger.write(&client, caller, round, command) {
                        answered.fetch_add(1, Ordering::Release);
                    }
                    std::thread::sleep(PAUSE); // else logs would be long
                }
            });
        }
        wait_for("the first commands", || {
            answered.iter().all(|it| it.load(Ordering::Relaxed) >= 2)
        });
        let struck = strike(&answered);
        drop(end);
        struck
    })
}

impl Ledger {
    /// Writes a key of its own, or adds one to the caller's counter, in turn; whether that was
    /// acknowledged.
    fn write(&mut self, client: &Client, caller: usize, round: u64, command: u64) -> bool {
        if command % 4 == 3 {
            return self.counter.on_added(client.execute_blocking(&Counter::add(caller)));
        }
        let key = format!("{caller}/{round}/{command}");
        let value = round * 1_000_000 + command;
        let mut put = Vec::new();
        let text = value.to_string();
        Command::Put { key: key.as_bytes(), value: text.as_bytes() }.encode(&mut put).unwrap();
        let is_sure = match client.execute_blocking(&put) {
            Ok(_) => true,
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => false,
            Err(CallError::Busy | CallError::Unreachable) => return false, // never sent: no gateway was there to take it
            Err(error) => panic!("{key}: {error}"),
        };
        self.written.insert(key, (value, is_sure));
        is_sure
    }
}

/// Reads everything back that was ever written.
fn check(client: &Client, ledgers: &[Ledger]) {
    let keys = ledgers.iter().flat_map(|ledger| &ledger.written);
    let keys: Vec<(&String, &(u64, bool))> = keys.collect();
    for some in keys.chunks(READS) {
        let names: Vec<&[u8]> = some.iter().map(|(key, _)| key.as_bytes()).collect();
        for ((key, (value, is_sure)), found) in some.iter().zip(read_all(client, &names)) {
            let is_right = found.map_or(!is_sure, |found| found == *value);
            assert!(is_right, "{key}: {found:?}, {value} was written, acknowledged: {is_sure}");
        }
    }
    let names: Vec<Vec<u8>> = (0..ledgers.len()).map(Counter::key).collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    for (ledger, found) in ledgers.iter().zip(read_all(client, &names)) {
        ledger.counter.check(found);
    }
}
