//! Clients whose connections are cut at random, and whose leaders are killed, add one to a counter,
//! many times: each counts once.
//!
//! `LOGGOS_SEED` repeats what was drawn.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what was done to clients is reported, not asserted")]

#[expect(dead_code, reason = "other tests lose answers, and keep count of that")]
mod calls;
#[expect(dead_code, reason = "other tests ask for single roles, memory and logs")]
mod kept;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use calls::{Chance, End, call_all, drawn_seed, read_all};
use kept::{Cluster, DEADLINE, Plan};
use loggos::kv::{Answer, Command};
use loggos::{RemoteCluster, RemoteOptions};

const NODES: [usize; 3] = [0, 1, 2];
const INCREMENTS: u64 = 100_000;
const CALLERS: u64 = 8;
/// What a caller has under way at once.
const UNDER_WAY: usize = 50;
const KEY: &[u8] = b"sum";
/// The longest time between two connections that are cut, and between two leaders that are killed.
const CUT_AFTER: Duration = Duration::from_millis(20);
const KILL_AFTER: Duration = Duration::from_millis(800);

/// What lies between clients and gateways, and cuts connections.
#[derive(Default)]
struct Meddler {
    is_over: AtomicBool,
    /// Both ends of each connection that was not cut.
    connections: Mutex<Vec<[TcpStream; 2]>>,
    cuts: AtomicU64,
}

impl Meddler {
    /// Passes connections on to a gateway, until it is over.
    fn serve<'s>(
        &'s self,
        listener: TcpListener,
        gateway: SocketAddr,
        scope: &'s std::thread::Scope<'s, '_>,
    ) {
        listener.set_nonblocking(true).unwrap();
        scope.spawn(move || {
            while !self.is_over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => self.connect(client, gateway, scope),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            self.connections.lock().unwrap().drain(..).for_each(|ends| cut(&ends));
        });
    }

    fn connect<'s>(
        &self,
        client: TcpStream,
        gateway: SocketAddr,
        scope: &'s std::thread::Scope<'s, '_>,
    ) {
        let Ok(node) = TcpStream::connect(gateway) else { return }; // it is down
        client.set_nonblocking(false).unwrap();
        let both = || [client.try_clone().unwrap(), node.try_clone().unwrap()];
        let (there, [client_again, node_again]) = (both(), both());
        for [from, to] in [there, [node_again, client_again]] {
            scope.spawn(move || pass(from, to));
        }
        self.connections.lock().unwrap().push([client, node]);
    }

    /// Cuts connections at random, until it is over.
    fn meddle(&self, mut chance: Chance) {
        while !self.is_over.load(Ordering::Relaxed) {
            chance.sleep(CUT_AFTER);
            let mut connections = self.connections.lock().unwrap();
            if connections.is_empty() {
                continue;
            }
            let index = usize::try_from(chance.below(connections.len() as u64)).unwrap();
            cut(&connections.swap_remove(index));
            self.cuts.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Passes bytes on until either end has gone.
fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut piece = [0; 16 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut piece) {
        if to.write_all(&piece[..bytes]).is_err() {
            break;
        }
    }
    cut(&[from, to]);
}

fn cut(ends: &[TcpStream; 2]) {
    for end in ends {
        let _gone_already = end.shutdown(Shutdown::Both);
    }
}

fn increment() -> Vec<u8> {
    let mut command = Vec::new();
    Command::Increment { key: KEY, by: 1 }.encode(&mut command).unwrap();
    command
}

/// The node whose proposer leads, if one does now.
fn leader(cluster: &Cluster) -> Option<usize> {
    let status = cluster.status();
    let role = status["roles"].as_array()?.iter().find(|role| role["state"] == "leads")?;
    role["ballot"].as_str()?.split('.').nth(1)?.parse().ok()
}

/// Adds one to the counter `count` times; all are acknowledged, in the order in which they were
/// asked for.
fn add(addresses: Vec<SocketAddr>, count: u64) {
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    let cluster = RemoteCluster::connect(options).unwrap();
    let (client, increments) = (cluster.client(), vec![increment(); UNDER_WAY]);
    let (mut left, mut last) = (usize::try_from(count).unwrap(), 0);
    while left > 0 {
        let some = &increments[..left.min(UNDER_WAY)];
        for result in call_all(&client, some) {
            let executed = result.unwrap_or_else(|why| panic!("an increment: {why}"));
            let answer = Answer::decode(executed.reply.as_slice()).unwrap();
            let Answer::Number(number) = answer else { panic!("{answer:?}") };
            assert!(number > last, "{number} after {last}");
            last = number;
        }
        left -= some.len();
    }
}

#[test]
fn r23_increments_through_cut_connections_and_killed_leaders_count_once_each() {
    let seed = drawn_seed();
    println!("LOGGOS_SEED={seed}");
    let mut chance = Chance(seed);
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let plans =
        NODES.map(|id| Plan::new(format!("node-{id}"), &kinds.map(|kind| format!("{kind} {id}"))));
    let config = "[cluster]\nname = \"once\"\ndurability = \"sync\"\nquorums = \"majority\"\n\
                  proposers = 3\nproxy_leaders = 0\ngateways = 3\n\
                  [limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"512MiB\"";
    let mut cluster = Cluster::new(config, plans.to_vec(), |_| None);
    cluster.start(&NODES);
    let (meddler, mut kills) = (Meddler::default(), 0);
    std::thread::scope(|scope| {
        let over = End(&meddler.is_over);
        let meddled = cluster.gateways().into_iter().map(|gateway| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            meddler.serve(listener, gateway, scope);
            address
        });
        let mut addresses: Vec<SocketAddr> = meddled.collect();
        scope.spawn(|| meddler.meddle(Chance(seed ^ 1)));
        let callers = (0..CALLERS).map(|_| {
            addresses.rotate_left(1);
            let addresses = addresses.clone();
            scope.spawn(move || add(addresses, INCREMENTS / CALLERS))
        });
        let callers: Vec<_> = callers.collect();
        while !callers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            chance.sleep(KILL_AFTER);
            let Some(victim) = leader(&cluster) else { continue };
            cluster.kill(&[victim]);
            chance.sleep(KILL_AFTER / 4);
            cluster.start(&[victim]);
            kills += 1;
        }
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        drop(over);
    });
    let reader = RemoteCluster::connect(RemoteOptions::new(cluster.gateways())).unwrap();
    let counted = read_all(&reader.client(), &[KEY]);
    let cuts = meddler.cuts.load(Ordering::Relaxed);
    println!("{counted:?} through {cuts} cut connections and {kills} killed leaders");
    assert_eq!(counted, [Some(INCREMENTS)], "increments were lost, or counted twice");
    cluster.wait_until_equal(NODES.len());
}
