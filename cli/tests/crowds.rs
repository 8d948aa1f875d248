//! Crowds of clients and of connections that say nothing, at nodes that may have few file
//! descriptors: the log grows, a peer comes back, and the status is told. And clients with many
//! long answers due: those that read none, and one that reads (R35).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command;
use loggos::{RemoteCluster, RemoteOptions};
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, CommandsWriter, FrameReader, Hello, Message, Purpose};
use serde_json::Value;

const NODES: [usize; 3] = [0, 1, 2];
/// The descriptors of a node, and those of its crowds.
const LIMIT: &str = "-n 300";
const CLIENTS: usize = 250;
const STRANGERS: usize = 150;
/// Values that fill several segments of a log.
const VALUES: u32 = 128;
const VALUE_BYTES: usize = 24 << 10;

/// Commands that are sent at once and have answers of VALUE_BYTES: 1.5 GiB.
const GETS: u64 = 65_000;
/// Clients that read nothing, but for so many short answers at first.
const DEAF: u64 = 20;
const SHORT: u64 = 1000;
/// The most memory that a node asks for more: what clients hold when they are closed, the replies
/// that its replica keeps (answers_bytes_max), and as much again for what the allocator keeps.
const GROWTH_MAX: u64 = 640 << 20;
/// The longest time for which a client that reads waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// An election shows that a node stood still for longer than a busy machine lets it.
const PATIENT: &str = "[timing]\nelection_timeout = \"2s\"";

/// The bytes of what `encode` writes.
fn bytes_of(encode: impl FnOnce(&mut Outgoing)) -> Vec<u8> {
    let mut out = Outgoing::default();
    encode(&mut out);
    out.pieces().flatten().copied().collect()
}

fn client_hello() -> Vec<u8> {
    let hello = Hello::of_client(String::new(), Purpose::Client, 1);
    bytes_of(|out| wire::encode_hello(&hello, out))
}

/// The key that commands with long answers ask for.
const LONG: &[u8] = b"long";

fn put(key: &[u8], value_bytes: usize) -> Vec<u8> {
    let mut put = Vec::new();
    Command::Put { key, value: &vec![7; value_bytes] }.encode(&mut put).unwrap();
    put
}

/// Commands with their numbers, as a client sends them that says of no answer that it has it.
fn commands(commands: impl IntoIterator<Item = (u64, impl AsRef<[u8]>)>) -> Vec<u8> {
    let mut writer = CommandsWriter::default();
    bytes_of(|out| {
        commands
            .into_iter()
            .for_each(|(number, command)| writer.put(number, 0, command.as_ref(), out));
        writer.end(out);
    })
}

/// Commands with long answers, as a client sends them.
fn gets(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut get = Vec::new();
    Command::Get { key: LONG }.encode(&mut get).unwrap();
    commands(numbers.map(|number| (number, &get[..])))
}

/// Three nodes with all roles each; `config` is of the file.
fn three_nodes(config: &str) -> Cluster {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let roles = |id: usize| kinds.map(|kind| format!("{kind} {id}"));
    let plans = NODES.map(|id| Plan::new(format!("node-{id}"), &roles(id)));
    let config = format!(
        "[cluster]\nname = \"crowded\"\ndurability = \"sync\"\nquorums = \"majority\"\n\
         proposers = 3\nproxy_leaders = 0\ngateways = 3\n{config}"
    );
    Cluster::new(&config, plans.to_vec(), |_| None)
}

fn client_of(addresses: Vec<SocketAddr>) -> RemoteCluster {
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    RemoteCluster::connect(options).unwrap()
}

/// The leader, and its life: another one shows an election. A leader may well go on in a new ballot
/// (R8).
fn leader(cluster: &Cluster) -> String {
    let status = cluster.status();
    let mut roles = status["roles"].as_array().unwrap().iter();
    let leader = roles.find(|role| role["state"] == "leads").unwrap();
    let (_round, proposer) = leader["ballot"].as_str().unwrap().split_once('.').unwrap();
    proposer.to_owned()
}

/// Connects a client that says hello, and nothing once it was welcomed or refused.
fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&client_hello()).unwrap();
    let mut answer = [0; 1];
    client.read_exact(&mut answer).unwrap();
    client
}

/// The sum of a counter over the cores of the node at `address`.
fn counted(address: SocketAddr, counter: &str) -> u64 {
    let status = loggos::remote_status(address, DEADLINE).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    let cores = status["cores"].as_array().unwrap();
    cores.iter().map(|core| core["sockets"][counter].as_u64().unwrap()).sum()
}

#[test]
fn r35_clients_that_take_all_descriptors_stop_neither_the_log_nor_a_peer() {
    let mut cluster =
        three_nodes("[limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"32MiB\"");
    cluster.limit = Some(LIMIT);
    cluster.start(&NODES);
    let served = client_of(cluster.gateways());
    let put_all = || {
        for key in 0..VALUES {
            served.client().execute_blocking(&put(&key.to_le_bytes(), VALUE_BYTES)).unwrap();
        }
    };
    let come = |node: usize| -> (Vec<TcpStream>, Vec<TcpStream>) {
        let address = cluster.gateways()[node];
        let clients = (0..CLIENTS).map(|_| connect(address)).collect();
        let strangers = (0..STRANGERS).map(|_| TcpStream::connect(address).unwrap()).collect();
        (clients, strangers)
    };
    put_all();
    let mut crowds = NODES.map(come);
    for address in cluster.gateways() {
        let (clients, most) = (counted(address, "clients"), counted(address, "clients_max"));
        assert!(clients == most && most < CLIENTS as u64, "{clients} of {most} are connected");
        assert!(counted(address, "clients_turned_away") >= CLIENTS as u64 - most, "the others");
        wait_for("strangers that make room", || counted(address, "connections_evicted") > 0);
    }
    put_all();
    // One comes back, to others that are as crowded as before.
    cluster.kill(&[2]);
    put_all();
    cluster.start(&[2]);
    crowds[2] = (Vec::new(), Vec::new());
    let address = cluster.gateways()[0];
    crowds[0].1.extend((0..STRANGERS).map(|_| TcpStream::connect(address).unwrap()));
    cluster.wait_until_equal(NODES.len());
    put_all();
    for node in NODES {
        let log = cluster.log(node);
        assert!(!log.contains("cannot make") && !log.contains("for good"), "{log}");
        let told = log.lines().filter(|line| line.contains("clients are turned away"));
        assert_eq!(told.count(), 1, "it is said once: {log}");
    }
}

/// A cluster before clients have come that want much.
struct Before {
    /// Of the node that they come to.
    memory_bytes: u64,
    leader: String,
}

impl Before {
    fn of(cluster: &Cluster) -> Self {
        Self { memory_bytes: cluster.memory_bytes(0), leader: leader(cluster) }
    }

    /// They have had the node ask for no more than GROWTH_MAX, when it had the `most`; there was no
    /// election, and replicas are equal.
    fn check(&self, cluster: &Cluster, most: u64) {
        let growth = most.saturating_sub(self.memory_bytes);
        println!("grew by {} MiB", growth >> 20);
        assert!(growth < GROWTH_MAX, "grew by {} MiB", growth >> 20);
        assert_eq!(leader(cluster), self.leader, "an election");
        cluster.wait_until_equal(NODES.len());
    }
}

/// A client that has a session.
struct Talker {
    stream: TcpStream,
    reader: FrameReader,
    batches: BatchPool,
}

impl Talker {
    fn connect(address: SocketAddr, key: u64) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&client_hello()).unwrap();
        stream.write_all(&bytes_of(|out| wire::encode_session(None, key, out))).unwrap();
        let (reader, batches) = (FrameReader::new(1 << 20), BatchPool::new(1));
        let mut talker = Self { stream, reader, batches };
        while !matches!(talker.hear(), Message::Session { session: Some(_), .. }) {}
        talker
    }

    fn hear(&mut self) -> Message {
        loop {
            if let Some(frame) = self.reader.next() {
                return frame.unwrap().decode(&mut self.batches).unwrap();
            }
            let mut piece = vec![0; 64 << 10];
            let bytes = self.stream.read(&mut piece).unwrap();
            assert!(bytes > 0, "it was closed");
            piece.truncate(bytes);
            self.reader.push(piece.into());
        }
    }

    /// Sends commands with short answers, and reads these.
    fn converse(&mut self, answers: u64) {
        let (mut increment, mut heard) = (Vec::new(), 0);
        Command::Increment { key: b"short", by: 1 }.encode(&mut increment).unwrap();
        for number in 0..answers {
            self.stream.write_all(&commands([(number, &increment[..])])).unwrap();
        }
        while heard < answers {
            if let Message::Replies(replies) = self.hear() {
                heard += replies.count() as u64;
            }
        }
    }
}

/// Twenty connections at one node read nothing, and 65 000 long answers are due to them, after
/// short ones. Memory stays within its bound; another client at that node is served all along.
#[test]
fn r35_clients_that_read_no_answers_take_neither_memory_nor_service_from_others() {
    let mut cluster = three_nodes(PATIENT);
    cluster.start(&NODES);
    let address = cluster.gateways()[0];
    let served = client_of(vec![address]);
    served.client().execute_blocking(&put(LONG, VALUE_BYTES)).unwrap();
    let before = Before::of(&cluster);
    let mut deaf: Vec<Talker> = (0..DEAF)
        .map(|key| {
            let mut client = Talker::connect(address, key);
            client.converse(SHORT);
            client
        })
        .collect();
    std::thread::scope(|scope| {
        for Talker { stream, .. } in &mut deaf {
            stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            // It may be taken no further, or be closed.
            scope.spawn(|| drop(stream.write_all(&gets(SHORT..SHORT + GETS / DEAF))));
        }
    });
    let mut most = cluster.memory_bytes(0);
    let started = Instant::now();
    let mut answers = 0;
    while started.elapsed() < Duration::from_secs(8) {
        let asked = Instant::now();
        served.client().execute_blocking(&put(b"other", 10)).unwrap();
        assert!(asked.elapsed() < PATIENCE, "answer {answers} came after {:?}", asked.elapsed());
        answers += 1;
        most = most.max(cluster.memory_bytes(0));
    }
    println!("{answers} answers to the other");
    before.check(&cluster, most);
}

/// One connection reads all of its 65 000 long answers, which were asked for at once.
#[test]
fn r35_a_client_that_reads_is_not_cut_off_for_long_answers() {
    let mut cluster = three_nodes(PATIENT);
    cluster.start(&NODES);
    let address = cluster.gateways()[0];
    client_of(vec![address]).client().execute_blocking(&put(LONG, VALUE_BYTES)).unwrap();
    let before = Before::of(&cluster);
    let mut client = Talker::connect(address, 1);
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut asks = client.stream.try_clone().unwrap();
    let most = AtomicU64::new(before.memory_bytes);
    std::thread::scope(|scope| {
        scope.spawn(move || asks.write_all(&gets(0..GETS)).unwrap());
        let mut answers = 0;
        while answers < GETS {
            let said = client.hear();
            let Message::Replies(mut replies) = said else { panic!("{said:?} after {answers}") };
            while let Some((number, _, reply)) = replies.next() {
                assert!(reply.len() > VALUE_BYTES, "{number}");
                answers += 1;
                if answers % 1000 == 0 {
                    most.fetch_max(cluster.memory_bytes(0), Ordering::Relaxed);
                }
            }
        }
    });
    before.check(&cluster, most.into_inner());
}

/// A hundred connections, one after the other, each with 3000 long answers due, none of which it
/// waits for.
#[test]
fn r35_clients_that_ask_and_go_leave_nothing_behind() {
    let mut cluster = three_nodes(PATIENT);
    cluster.start(&NODES);
    let address = cluster.gateways()[0];
    let served = client_of(vec![address]);
    served.client().execute_blocking(&put(LONG, VALUE_BYTES)).unwrap();
    let before = Before::of(&cluster);
    let asked = gets(0..3000);
    let mut most = before.memory_bytes;
    for key in 0..100 {
        Talker::connect(address, key).stream.write_all(&asked).unwrap();
        served.client().execute_blocking(&put(b"other", 10)).unwrap();
        most = most.max(cluster.memory_bytes(0));
    }
    wait_for("nobody but the one", || counted(address, "clients") == 1);
    before.check(&cluster, most);
}
