//! Queries: of a cluster in this process and of another, by futures and by residents.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use loggos::kv::{Answer, Command, Kv};
use loggos::{
    At, CallError, Client, Config, Consistency, Desk, Durability, Executed, Idle, LocalCluster,
    Next, Node, NodeConfig, NotAQuery, Position, RemoteCluster, RemoteOptions, Reply, Resident,
    StateMachine,
};

/// The longest that anything may take that must happen.
const DEADLINE: Duration = Duration::from_secs(60);
const LEVELS: [Consistency; 3] =
    [Consistency::Linearizable, Consistency::Sequential, Consistency::Eventual];

fn config() -> Config {
    let mut config = Config::standard();
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config
}

fn start() -> LocalCluster {
    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    cluster.wait_ready(DEADLINE).unwrap();
    cluster
}

/// A node that runs a whole cluster.
fn node() -> Node {
    let mut config = config();
    config.durability = Some(Durability::Memory);
    config.nodes = vec![NodeConfig {
        name: "all".to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
        cpus: std::mem::take(&mut config.cpus),
        roles: config.placement.keys().copied().collect(),
        data: None,
    }];
    Node::start(&config, 0, |_| Kv::default()).unwrap()
}

fn encode(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes).unwrap();
    bytes
}

fn increment() -> Vec<u8> {
    encode(&Command::Increment { key: b"counter", by: 1 })
}

fn get() -> Vec<u8> {
    encode(&Command::Get { key: b"counter" })
}

/// The number that a reply to `get` says.
fn number(reply: &[u8]) -> u64 {
    let answer = Answer::decode(reply).unwrap();
    let Answer::Value(value) = answer else {
        assert_eq!(answer, Answer::Missing, "a read");
        return 0;
    };
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

fn read(client: &Client, consistency: Consistency) -> Executed {
    client.query_blocking(consistency, &get()).unwrap()
}

/// Reads what it has written: at any level but the last its own write is there.
fn write_and_read(client: &Client) {
    for count in 1..=60 {
        let executed = client.execute_blocking(&increment()).unwrap();
        let level = LEVELS[usize::try_from(count % 2).unwrap()];
        let seen = read(client, level);
        assert_eq!(number(seen.reply.as_slice()), count, "{level:?}");
        assert!(seen.at > executed.at, "{:?} after {:?}", seen.at, executed.at);
        let any = number(read(client, Consistency::Eventual).reply.as_slice());
        assert!(any <= count, "{any} of {count}");
    }
}

/// Without waiting for its writes: each read comes behind those before it, and before those behind.
fn write_and_read_without_waiting(client: &Client) {
    let before = number(read(client, Consistency::Linearizable).reply.as_slice());
    for round in 0..100 {
        let write = |_| client.try_execute(&increment()).unwrap();
        let under_way: Vec<_> = (0..3).map(write).collect();
        let seen = number(read(client, LEVELS[round % 2]).reply.as_slice());
        assert_eq!(seen, before + 3 * (round as u64 + 1), "round {round}");
        drop(under_way);
    }
}

#[test]
fn r21_a_client_reads_what_it_has_written() {
    let cluster = start();
    write_and_read(&cluster.client());
    cluster.stop().unwrap();
}

#[test]
fn r21_a_read_comes_behind_writes_that_have_no_answer_yet() {
    let cluster = start();
    write_and_read_without_waiting(&cluster.client());
    cluster.stop().unwrap();
}

#[test]
fn r21_clients_of_other_processes_read_what_they_have_written() {
    let node = node();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![node.address()]) };
    let cluster = RemoteCluster::connect(options).unwrap();
    cluster.wait_ready(DEADLINE).unwrap();
    write_and_read(&cluster.client());
    write_and_read_without_waiting(&cluster.client());
    drop(cluster);
    node.stop().unwrap();
}

#[test]
fn many_read_at_once_and_replicas_share_that() {
    let cluster = start();
    let client = cluster.client();
    client.execute_blocking(&increment()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for round in 0..200 {
                    let seen = read(&client, LEVELS[round % 2]);
                    assert_eq!(number(seen.reply.as_slice()), 1);
                }
            });
        }
    });
    let status = cluster.status();
    let replicas = status.iter().filter_map(|role| role.standing.replica());
    let queries: Vec<u64> = replicas.map(|replica| replica.counters.queries).collect();
    assert!(queries.iter().all(|count| *count > 0), "of each replica: {queries:?}");
    assert_eq!(queries.iter().sum::<u64>(), 1600);
    cluster.stop().unwrap();
}

#[test]
fn what_writes_is_refused_as_a_query() {
    let cluster = start();
    for level in LEVELS {
        let refused = cluster.client().query_blocking(level, &increment()).unwrap_err();
        assert_eq!(refused, CallError::NotAQuery);
        assert!(!refused.may_have_executed());
    }
    assert_eq!(number(read(&cluster.client(), Consistency::Linearizable).reply.as_slice()), 0);
    cluster.stop().unwrap();
}

/// Panics at any query but of nothing.
struct Grumpy;

impl StateMachine for Grumpy {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        reply.put(command);
    }

    fn query(&self, _: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        assert!(query.is_empty(), "as the test wants it");
        reply.put(b"nothing");
        Ok(())
    }

    fn state_hash(&self) -> u64 {
        0
    }
}

#[test]
fn a_query_at_which_the_machine_panics_ends_nothing_but_itself() {
    let cluster = LocalCluster::start(&config(), |_| Grumpy).unwrap();
    cluster.wait_ready(DEADLINE).unwrap();
    let client = cluster.client();
    for level in LEVELS.into_iter().cycle().take(9) {
        assert_eq!(client.query_blocking(level, b"panic"), Err(CallError::Panicked));
        assert_eq!(client.query_blocking(level, b"").unwrap().reply.as_slice(), b"nothing");
    }
    assert_eq!(client.execute_blocking(b"echo").unwrap().reply.as_slice(), b"echo");
    cluster.stop().unwrap();
}

/// Increments, reads twice, and increments again in each turn: the reads see just what was there
/// before them.
struct Alternating {
    turns: u64,
    tag: u64,
    unanswered: u64,
    done: Sender<u64>,
}

impl Resident for Alternating {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        if self.turns == 50 && self.unanswered == 0 {
            self.done.send(self.tag).unwrap();
            return Next::Leave;
        }
        if self.turns < 50 {
            for step in 0..4 {
                let is_taken = match step {
                    0 | 3 => desk.execute(self.tag, &increment()),
                    _ => desk.query(self.tag, LEVELS[step - 1], &get()),
                };
                assert!(is_taken, "there is room");
                self.tag += 1;
                self.unanswered += 1;
            }
            self.turns += 1;
        }
        Next::After(Duration::from_micros(200))
    }

    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        let (_, reply) = result.unwrap();
        let answer = Answer::decode(reply).unwrap();
        let incremented = if let Answer::Number(number) = answer { Some(number) } else { None };
        let said = incremented.map_or_else(|| number(reply), i64::cast_unsigned);
        let written = 2 * (tag / 4) + 1 + u64::from(tag % 4 == 3);
        assert_eq!(said, written, "call {tag}");
        self.unanswered -= 1;
    }
}

#[test]
fn r21_what_a_resident_reads_and_writes_takes_effect_in_its_order() {
    let cluster = start();
    let (done, is_done) = channel();
    cluster.move_in(move || Alternating { turns: 0, tag: 0, unanswered: 0, done });
    assert_eq!(is_done.recv_timeout(DEADLINE).unwrap(), 200);
    cluster.stop().unwrap();
}
