//! Reads while nodes are suspended and killed: none is stale, whatever its gateway or its replica
//! has slept through.
//!
//! `LOGGOS_SEED` repeats what was drawn.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what was done to nodes is reported, not asserted")]

#[expect(dead_code, reason = "other tests keep counters, and call many at once")]
mod calls;
#[expect(dead_code, reason = "other tests ask for single roles, memory and logs")]
mod kept;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use calls::{Chance, End, call_all, drawn_seed};
use kept::{Cluster, DEADLINE, three_nodes, wait_for};
use loggos::kv::{Answer, Command};
use loggos::{Consistency, Executed, RemoteCluster, RemoteOptions};
use rustix::process::Signal;

const NODES: [usize; 3] = [0, 1, 2];
const STRIKES: u64 = 12;
/// Longer than an election takes: what a node that slept so long believes is out of date.
const ASLEEP_MAX: Duration = Duration::from_millis(1500);
/// Enough that replicas are hardly ever equal.
const UNDER_WAY: usize = 50;
const READERS: usize = 4;
const KEY: &[u8] = b"count";

/// What is known to be there.
#[derive(Default)]
struct Known {
    /// The largest number that an increment, or a linearizable read, has been answered with.
    told: AtomicU64,
    reads: AtomicU64,
    is_over: AtomicBool,
}

impl Known {
    fn tell(&self, number: u64) {
        self.told.fetch_max(number, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

fn connect(cluster: &Cluster, first: usize) -> RemoteCluster {
    let mut addresses = cluster.gateways();
    addresses.rotate_left(first);
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    RemoteCluster::connect(options).unwrap()
}

fn number(executed: &Executed) -> u64 {
    let answer = Answer::decode(executed.reply.as_slice()).unwrap();
    match answer {
        Answer::Number(number) => u64::try_from(number).unwrap(),
        Answer::Missing => 0,
        Answer::Value(value) => std::str::from_utf8(value).unwrap().parse().unwrap(),
        Answer::Stored
        | Answer::Versioned { .. }
        | Answer::Deleted
        | Answer::Swapped
        | Answer::Mismatch(_)
        | Answer::NotANumber
        | Answer::Overflow
        | Answer::Malformed => panic!("{answer:?}"),
    }
}

/// Counts, until it is over.
fn write(cluster: &RemoteCluster, known: &Known) {
    let mut increment = Vec::new();
    Command::Increment { key: KEY, by: 1 }.encode(&mut increment).unwrap();
    let increments = vec![increment; UNDER_WAY];
    while !known.is_over() {
        for result in call_all(&cluster.client(), &increments) {
            known.tell(number(&result.unwrap()));
        }
    }
}

/// Reads by turns what all know, and what this client alone does.
fn read(cluster: &RemoteCluster, known: &Known) {
    let mut get = Vec::new();
    Command::Get { key: KEY }.encode(&mut get).unwrap();
    let (client, mut last) = (cluster.client(), 0);
    while !known.is_over() {
        let told = known.told.load(Ordering::SeqCst);
        let seen = number(&client.query_blocking(Consistency::Linearizable, &get).unwrap());
        assert!(seen >= told, "{seen} was read, where {told} had been answered");
        known.tell(seen);
        let own = number(&client.query_blocking(Consistency::Sequential, &get).unwrap());
        assert!(own >= seen.max(last), "{own} was read after {seen} and {last}");
        last = own;
        known.reads.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn r19_nodes_that_were_suspended_or_killed_answer_nothing_stale() {
    let seed = drawn_seed();
    println!("LOGGOS_SEED={seed}");
    let mut chance = Chance(seed);
    let config = "[cluster]\nname = \"read\"\ndurability = \"sync\"\nquorums = \"majority\"\n\
                  proposers = 3\nproxy_leaders = 0\ngateways = 3";
    let mut cluster = Cluster::new(config, three_nodes(), |_| None);
    cluster.start(&NODES);
    let known = Known::default();
    let clients: Vec<_> = NODES.iter().map(|node| connect(&cluster, *node)).collect();
    std::thread::scope(|scope| {
        let over = End(&known.is_over);
        for client in &clients {
            scope.spawn(|| write(client, &known));
            for _ in 0..READERS {
                scope.spawn(|| read(client, &known));
            }
        }
        for strike in 0..STRIKES {
            let node = usize::try_from(chance.below(3)).unwrap();
            let before = (known.told.load(Ordering::SeqCst), known.reads.load(Ordering::SeqCst));
            if strike % 3 == 2 {
                cluster.kill(&[node]);
                chance.sleep(ASLEEP_MAX);
                cluster.start(&[node]);
            } else {
                cluster.signal(node, Signal::STOP);
                chance.sleep(ASLEEP_MAX);
                cluster.signal(node, Signal::CONT);
            }
            wait_for("more that was written and read", || {
                known.told.load(Ordering::SeqCst) > before.0 + 10
                    && known.reads.load(Ordering::SeqCst) > before.1 + 10
            });
        }
        drop(over);
    });
    let (told, reads) = (known.told.into_inner(), known.reads.into_inner());
    println!("{told} written, {reads} read twice each, through {STRIKES} suspensions and kills");
    cluster.wait_until_equal(NODES.len());
}
