//! Three nodes under load for as long as is asked for, with `kill -9` of one of them every now and
//! then, and a replica whose directory is wiped: nothing that was acknowledged is lost, replicas
//! are equal, and memory and disk of every node stay within their bounds. At the end all are killed
//! at once, and started again.
//!
//! `LOGGOS_MINUTES` says how long (1, if nothing is said), `LOGGOS_SEED` repeats what was drawn.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what a node takes is reported")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod calls;
#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use calls::{Chance, Counter, End, call_all, drawn_seed, given, read_all};
use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command;
use loggos::{CallError, Client, RemoteCluster, RemoteOptions};
use serde_json::Value;

const NODES: usize = 3;
const CALLERS: usize = 6;
/// Keys that a caller writes at once.
const KEYS: usize = 64;
const VALUE_BYTES: usize = 256;
/// The most that the log of a node may take.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// The most that a snapshot takes: most of it are keys whose writing had no answer, of which there
/// are some hundreds after each kill.
const SNAPSHOT_BYTES_MAX: u64 = 16 << 20;
/// Two that are kept, one that a peer gets, and one that is being written.
const SNAPSHOTS_MAX: u64 = 4;
/// The most that a node may have in memory.
const MEMORY_BYTES_MAX: u64 = 400 << 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A key of a caller, which it alone writes: ever larger numbers.
struct Key {
    name: String,
    acknowledged: u64,
    /// The number whose writing had no answer, if there is one. It may be written at any time, or
    /// never, so the key is not written again.
    unknown: Option<u64>,
}

/// What a caller has done.
#[derive(Default)]
struct Ledger {
    /// Those that are written again and again.
    keys: Vec<Key>,
    /// Those with an unknown write.
    retired: Vec<Key>,
    made: usize,
    number: u64,
    counter: Counter,
}

/// The most that was seen of a node.
#[derive(Clone, Copy, Default)]
struct Taken {
    disk_bytes: u64,
    memory_bytes: u64,
}

#[test]
fn r16_three_nodes_run_for_ever_within_their_bounds() {
    let minutes = given("LOGGOS_MINUTES").unwrap_or(1);
    let seed = drawn_seed();
    println!("LOGGOS_SEED={seed} LOGGOS_MINUTES={minutes}");
    let mut cluster = start();
    let connections: Vec<RemoteCluster> =
        (0..NODES).map(|first| connect(&cluster, first)).collect();
    let mut ledgers: Vec<Ledger> = (0..CALLERS).map(|_| Ledger::default()).collect();
    let answered = AtomicU64::new(0);
    under_load(&connections, &mut ledgers, &answered, || {
        harass(&mut cluster, minutes, &mut Chance(seed), &answered);
    });
    check(&connections[0].client(), &ledgers);
    cluster.wait_until_equal(NODES);
    restart_all(&mut cluster, &connections[0].client());
    check(&connections[0].client(), &ledgers);
    let retired: usize = ledgers.iter().map(|ledger| ledger.retired.len()).sum();
    println!("{} acknowledged, {retired} unknown", answered.into_inner());
}

/// As `three-nodes.toml` has it, on disk.
fn start() -> Cluster {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let plans = (0..NODES).map(|id| {
        let roles: Vec<String> = kinds.iter().map(|kind| format!("{kind} {id}")).collect();
        Plan::new(format!("node-{id}"), &roles)
    });
    let config = format!(
        "[cluster]\nname = \"forever\"\ndurability = \"sync\"\nquorums = \"majority\"\ngateways = 3\n\
         proposers = 3\nproxy_leaders = 0\nreplicas = 3\n\
         [limits]\nlog_segment_bytes = \"4MiB\"\nlog_bytes_max = {LOG_BYTES_MAX}\n\
         checkpoint_interval = 2000\ncheckpoint_bytes = \"8MiB\""
    );
    let mut cluster = Cluster::new(&config, plans.collect(), |_| None);
    cluster.start(&[0, 1, 2]);
    cluster
}

fn connect(cluster: &Cluster, first: usize) -> RemoteCluster {
    let mut addresses = cluster.gateways();
    addresses.rotate_left(first);
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    RemoteCluster::connect(options).unwrap()
}

/// Kills nodes, and wipes replicas, and looks at what nodes take, until the time is over.
fn harass(cluster: &mut Cluster, minutes: u64, chance: &mut Chance, answered: &AtomicU64) {
    let every = Duration::from_secs(if minutes > 2 { 20 } else { 8 });
    let started = Instant::now();
    let (mut kills, mut wipes, mut next_kill) = (0, 0, every);
    let (mut most, mut minute, mut before) = ([Taken::default(); NODES], 1, 0);
    println!("minute | kills | wiped | answers/s | disk and memory of each node, MiB at the most");
    while minute <= minutes {
        look(cluster, &mut most);
        if started.elapsed() >= next_kill {
            let node = usize::try_from(chance.below(NODES as u64)).unwrap();
            let is_wiped = kills % 4 == 2 && may_wipe(cluster);
            strike(cluster, node, is_wiped);
            (kills, wipes) = (kills + 1, wipes + u64::from(is_wiped));
            next_kill = started.elapsed() + every;
        }
        if started.elapsed() >= MINUTE * u32::try_from(minute).unwrap() {
            let now = answered.load(Ordering::Relaxed);
            let taken =
                most.iter().map(|it| format!("{} {}", it.disk_bytes >> 20, it.memory_bytes >> 20));
            let taken = taken.collect::<Vec<_>>().join(" | ");
            println!("{minute} | {kills} | {wipes} | {} | {taken}", (now - before) / 60);
            (most, minute, before) = ([Taken::default(); NODES], minute + 1, now);
        }
        std::thread::sleep(Duration::from_millis(200)); // between two looks
    }
}

/// Kills a node, and starts it again; with an empty directory of its replica, if that `is_wiped`.
fn strike(cluster: &mut Cluster, node: usize, is_wiped: bool) {
    cluster.kill(&[node]);
    if is_wiped {
        let name = cluster.name(node).to_owned();
        let folder = cluster.data(node).join(format!("replica-{node}"));
        std::fs::remove_dir_all(folder).unwrap();
        let done = cluster.command("format", &name).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    cluster.start(&[node]);
}

/// Waits until every replica holds what acceptors have forgotten: then one can be lost.
fn may_wipe(cluster: &Cluster) -> bool {
    wait_for("a snapshot of each replica", || {
        let status = cluster.status();
        let marks = |role: &'static str, key: &'static str| -> Vec<u64> {
            let roles = status["roles"].as_array().into_iter().flatten();
            let alike =
                roles.filter(|it| it["role"].as_str().is_some_and(|it| it.starts_with(role)));
            alike.filter_map(|it| it[key].as_u64()).collect()
        };
        let (held, forgotten) =
            (marks("replica", "snapshot_watermark"), marks("acceptor", "truncated"));
        let are_there = held.len() == NODES && forgotten.len() == NODES;
        are_there && held.iter().min() >= forgotten.iter().max()
    });
    true
}

/// Looks at what each node takes; asserts that it is within the bounds.
fn look(cluster: &Cluster, most: &mut [Taken; NODES]) {
    for (node, most) in most.iter_mut().enumerate() {
        let disk_bytes = bytes_in(&cluster.data(node));
        let disk_bytes_max = LOG_BYTES_MAX + SNAPSHOTS_MAX * SNAPSHOT_BYTES_MAX;
        assert!(disk_bytes <= disk_bytes_max, "node {node} has {disk_bytes} bytes on disk");
        let memory_bytes = cluster.memory_bytes(node);
        assert!(memory_bytes <= MEMORY_BYTES_MAX, "node {node} has {memory_bytes} bytes in memory");
        most.disk_bytes = most.disk_bytes.max(disk_bytes);
        most.memory_bytes = most.memory_bytes.max(memory_bytes);
    }
}

/// The bytes of all files in a folder, of those that are there while it looks.
fn bytes_in(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(it) if it.is_dir() => bytes_in(&entry.path()),
        Ok(it) => it.len(),
        Err(_) => 0, // it was removed meanwhile
    });
    bytes.sum()
}

/// Kills all nodes at once, starts them again, and tells how long that takes.
fn restart_all(cluster: &mut Cluster, client: &Client) {
    let executed = |status: &Value| -> Vec<u64> {
        let replicas = status["replicas"].as_array().into_iter().flatten();
        replicas.filter_map(|it| it["executed_watermark"].as_u64()).collect()
    };
    let before = executed(&cluster.status()).into_iter().max().unwrap();
    cluster.kill(&[0, 1, 2]);
    let started = Instant::now();
    cluster.start(&[0, 1, 2]);
    let listen = started.elapsed();
    assert_eq!(read_all(client, &[b"no such key"]), [None], "a key that was never written");
    let served = started.elapsed();
    wait_for("replicas that are as far as before", || {
        let now = executed(&cluster.status());
        now.len() == NODES && now.iter().all(|it| *it >= before)
    });
    println!(
        "all were killed at slot {before} and started again: they listened after {listen:.2?}, served after \
         {served:.2?}, and all replicas were as far as before after {:.2?}",
        started.elapsed()
    );
}

/// Lets callers write while `strike` does its worst.
fn under_load(
    connections: &[RemoteCluster],
    ledgers: &mut [Ledger],
    answered: &AtomicU64,
    strike: impl FnOnce(),
) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = End(&is_over);
        for (caller, ledger) in ledgers.iter_mut().enumerate() {
            let client = connections[caller % connections.len()].client();
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let count = ledger.write(&client, caller);
                    answered.fetch_add(count, Ordering::Relaxed);
                }
            });
        }
        strike();
        drop(end);
    });
}

impl Ledger {
    /// Writes the next number to all keys at once, and adds one to the caller's counter; returns
    /// how many of these were acknowledged.
    fn write(&mut self, client: &Client, caller: usize) -> u64 {
        while self.keys.len() < KEYS {
            let name = format!("{caller}/{}", self.made);
            self.keys.push(Key { name, acknowledged: 0, unknown: None });
            self.made += 1;
        }
        self.number += 1;
        let number = self.number;
        let mut commands: Vec<Vec<u8>> =
            self.keys.iter().map(|key| put(&key.name, number)).collect();
        commands.push(Counter::add(caller));
        let mut results = call_all(client, &commands);
        let counted = results.pop().unwrap();
        let mut count = u64::from(self.counter.on_added(counted));
        let mut retired = Vec::new();
        for (index, result) in results.into_iter().enumerate() {
            let key = &mut self.keys[index];
            match result {
                Ok(_) => (key.acknowledged, count) = (number, count + 1),
                Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => {
                    key.unknown = Some(number);
                    retired.push(index);
                }
                Err(CallError::Busy | CallError::Unreachable) => {} // never sent
                Err(error) => panic!("{}: {error}", key.name),
            }
        }
        for index in retired.into_iter().rev() {
            self.retired.push(self.keys.swap_remove(index));
        }
        count
    }
}

/// Puts a number, and what makes it as long as values are.
fn put(key: &str, number: u64) -> Vec<u8> {
    let (mut put, value) = (Vec::new(), format!("{number:0VALUE_BYTES$}"));
    Command::Put { key: key.as_bytes(), value: value.as_bytes() }.encode(&mut put).unwrap();
    put
}

/// Reads everything back that was ever written.
fn check(client: &Client, ledgers: &[Ledger]) {
    for (caller, ledger) in ledgers.iter().enumerate() {
        let keys: Vec<&Key> = ledger.keys.iter().chain(&ledger.retired).collect();
        for some in keys.chunks(KEYS) {
            let names: Vec<&[u8]> = some.iter().map(|key| key.name.as_bytes()).collect();
            for (key, found) in some.iter().zip(read_all(client, &names)) {
                let found = found.unwrap_or(0);
                let is_right = found == key.acknowledged || Some(found) == key.unknown;
                let Key { name, acknowledged, unknown } = key;
                assert!(
                    is_right,
                    "{name}: {found}, acknowledged {acknowledged}, unknown {unknown:?}"
                );
            }
        }
        ledger.counter.check(read_all(client, &[&Counter::key(caller)])[0]);
    }
}
