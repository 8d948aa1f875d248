//! Rounds of: load, `kill -9` of some nodes or all, at any moment, restart, read back. Every
//! acknowledged write is there, no unknown one counts twice, and replicas are equal.
//!
//! `LOGGOS_ROUNDS` says how many rounds (3, if nothing is said), `LOGGOS_SEED` repeats what was
//! drawn: the layouts, whom each kill struck, and when. A run of many rounds is one of several
//! clusters, one after the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a recovery takes is reported, not asserted")]

#[expect(dead_code, reason = "other tests ask for single roles")]
mod kept;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::{Answer, Command};
use loggos::{CallError, Client, Executed, RemoteCluster, RemoteOptions};

/// Rounds of one cluster: its log is executed anew by every replica that comes back, and grows with
/// each.
const ROUNDS_OF_A_CLUSTER: u64 = 25;
const CALLERS: usize = 8;
const REPLICAS: usize = 3;
/// Between two commands of a caller: many moments to be killed at, few slots.
const PAUSE: Duration = Duration::from_millis(2);
/// Reads under way at once.
const READS: usize = 256;

/// Chance, by `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap();
            items.swap(last, other);
        }
    }

    /// Sleeps for less than `max`: when a fault strikes is drawn, too.
    fn sleep(&mut self, max: Duration) {
        let max = u64::try_from(max.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.below(max)));
    }
}

/// What a caller has done.
#[derive(Default)]
struct Ledger {
    /// Keys of their own, each written once; whether that was acknowledged.
    written: BTreeMap<String, (u64, bool)>,
    counter: u64,
    /// Increments of the counter that may have counted, or not.
    unknown: u64,
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
    let given = |name: &str| std::env::var(name).ok().map(|it| it.parse::<u64>().unwrap());
    let rounds = given("LOGGOS_ROUNDS").unwrap_or(3);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = given("LOGGOS_SEED").unwrap_or_else(now);
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
         [limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"512MiB\""
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
        tally.acknowledged += acknowledged + ledger.counter;
        tally.unknown += ledger.written.len() as u64 - acknowledged + ledger.unknown;
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
    /// Ends the load, also where a test fails in the middle of it: its threads are waited for.
    struct End<'a>(&'a AtomicBool);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

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
            return self.count(client, caller);
        }
        let key = format!("{caller}/{round}/{command}");
        let value = round * 1_000_000 + command;
        let mut put = Vec::new();
        let text = value.to_string();
        Command::Put { key: key.as_bytes(), value: text.as_bytes() }.encode(&mut put).unwrap();
        let is_sure = match client.execute_blocking(&put) {
            Ok(_) => true,
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => false,
            Err(CallError::Busy) => return false, // never sent: no gateway was there to take it
            Err(error) => panic!("{key}: {error}"),
        };
        self.written.insert(key, (value, is_sure));
        is_sure
    }

    fn count(&mut self, client: &Client, caller: usize) -> bool {
        let mut command = Vec::new();
        Command::Increment { key: &counter(caller), by: 1 }.encode(&mut command).unwrap();
        match client.execute_blocking(&command) {
            Ok(executed) => {
                let answer = Answer::decode(executed.reply.as_slice()).unwrap();
                let Answer::Number(number) = answer else { panic!("{answer:?}") };
                let number = u64::try_from(number).unwrap();
                let allowed = self.counter + 1..=self.counter + 1 + self.unknown;
                assert!(allowed.contains(&number), "{caller}: {number} is not in {allowed:?}");
                self.unknown -= number - self.counter - 1;
                self.counter = number;
                true
            }
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => {
                self.unknown += 1;
                false
            }
            Err(CallError::Busy) => false,
            Err(error) => panic!("counter {caller}: {error}"),
        }
    }
}

fn counter(caller: usize) -> Vec<u8> {
    format!("counter of {caller}").into_bytes()
}

/// Reads everything back that was ever written.
fn check(client: &Client, ledgers: &[Ledger]) {
    let keys = ledgers.iter().flat_map(|ledger| &ledger.written);
    let keys: Vec<(&String, &(u64, bool))> = keys.collect();
    for some in keys.chunks(READS) {
        let names: Vec<&[u8]> = some.iter().map(|(key, _)| key.as_bytes()).collect();
        for ((key, (value, is_sure)), found) in some.iter().zip(read(client, &names)) {
            let is_right = found.map_or(!is_sure, |found| found == *value);
            assert!(is_right, "{key}: {found:?}, {value} was written, acknowledged: {is_sure}");
        }
    }
    let names: Vec<Vec<u8>> = (0..ledgers.len()).map(counter).collect();
    let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
    for (caller, (ledger, found)) in ledgers.iter().zip(read(client, &names)).enumerate() {
        let allowed = ledger.counter..=ledger.counter + ledger.unknown;
        let found = found.unwrap_or(0);
        assert!(allowed.contains(&found), "counter of {caller}: {found} is not in {allowed:?}");
    }
}

/// Reads keys, all at once.
fn read(client: &Client, keys: &[&[u8]]) -> Vec<Option<u64>> {
    let mut calls: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut get = Vec::new();
            Command::Get { key }.encode(&mut get).unwrap();
            Box::pin(client.execute(&get))
        })
        .collect();
    // A command is sent when its call is first polled.
    let mut no_task = Context::from_waker(Waker::noop());
    let first: Vec<_> = calls.iter_mut().map(|call| call.as_mut().poll(&mut no_task)).collect();
    let answers = calls.into_iter().zip(first).map(|(call, first)| match first {
        Poll::Ready(done) => done,
        Poll::Pending => wait(call),
    });
    answers.map(|done: Result<Executed, CallError>| number(&done.unwrap())).collect()
}

fn number(executed: &Executed) -> Option<u64> {
    let answer = Answer::decode(executed.reply.as_slice()).unwrap();
    if answer == Answer::Missing {
        return None;
    }
    let Answer::Value(value) = answer else { panic!("{answer:?}") };
    Some(std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// Waits on this thread.
fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Thread(std::thread::Thread);

    impl Wake for Thread {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(std::sync::Arc::new(Thread(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = std::pin::Pin::new(&mut future).poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}
