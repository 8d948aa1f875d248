//! An older copy of a data directory in its place: nodes that have seen more of it refuse it, its
//! acceptors stop, and the cluster goes on without them; with the latest one they are back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loggos::kv::{Answer, Command, Kv};
use loggos::{
    AcceptorId, Config, Durability, Idle, Node, NodeConfig, QuorumSystem, RoleId, Settings,
    Standing,
};

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than it takes until a log's number is told.
const TOLD: Duration = Duration::from_millis(2500);

/// Three nodes with one role of each kind, the gateway with the first.
fn config(folder: &Path) -> Config {
    let mut settings = Settings::new(1, QuorumSystem::majority(1).unwrap());
    (settings.proposers, settings.proxy_leaders) = (3, 0);
    let cpu = Config::standard().cpus[0];
    let mut config = Config::on_cpus(settings.check().unwrap(), vec![cpu]);
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config.durability = Some(Durability::Sync);
    config.log.segment_bytes = 1 << 20;
    let cpus = std::mem::take(&mut config.cpus);
    let ports = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let home = |role: &RoleId| match role {
        RoleId::Gateway(id) => id.0,
        RoleId::Proposer(id) => id.0,
        RoleId::ProxyLeader(id) => id.0,
        RoleId::Acceptor(id) => id.0,
        RoleId::Replica(id) => id.0,
    };
    let nodes = (0_u8..).zip(&ports).map(|(id, port)| NodeConfig {
        name: format!("n{id}"),
        address: port.local_addr().unwrap().into(),
        cpus: cpus.clone(),
        roles: config.placement.keys().filter(|role| home(role) == id).copied().collect(),
        data: Some(folder.join(format!("n{id}"))),
    });
    config.nodes = nodes.collect();
    config
}

fn start(config: &Config, node: usize) -> Node {
    Node::start(config, node, |_| Kv::default()).unwrap()
}

/// Adds one to a counter so many times; it had been added to `before` times.
fn count(node: &Node, before: i64, times: i64) {
    let mut command = Vec::new();
    Command::Increment { key: b"counter", by: 1 }.encode(&mut command).unwrap();
    for nth in 1..=times {
        let executed = node.client().execute_blocking(&command).unwrap();
        let answer = Answer::decode(executed.reply.as_slice()).unwrap();
        assert_eq!(answer, Answer::Number(before + nth), "lost, or executed twice");
    }
}

fn acceptor(node: &Node) -> Standing {
    let is_acceptor = |role| matches!(role, RoleId::Acceptor(AcceptorId(_)));
    let mut roles = node.status().into_iter();
    roles.find(|status| is_acceptor(status.role)).unwrap().standing
}

fn votes(node: &Node) -> u64 {
    let standing = acceptor(node);
    let Standing::Acceptor { counters, .. } = standing else { panic!("it is {standing:?}") };
    counters.votes
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn r33_an_older_copy_of_a_directory_is_refused_and_the_latest_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    (0..3).for_each(|node| drop(Node::format(&config, node).unwrap()));
    let first = start(&config, 0);
    let second = start(&config, 1);
    let third = start(&config, 2);
    count(&first, 0, 5);
    drop(third);
    let data: PathBuf = config.nodes[2].data.clone().unwrap();
    let [older, latest] = ["older", "latest"].map(|name| folder.path().join(name));
    copy(&data, &older);
    // It comes back, and votes on.
    let third = start(&config, 2);
    drop(second);
    count(&first, 5, 5);
    assert!(votes(&third) > 0, "it was needed, and has not voted");
    // No node connects meanwhile: the first node hears of it by its link, or not at all.
    std::thread::sleep(TOLD);
    drop(third);
    std::fs::rename(&data, &latest).unwrap();
    copy(&older, &data);
    // The copy knows nothing of the last five, and no node is told so.
    let third = start(&config, 2);
    let mut standing = acceptor(&third);
    wait_for("the acceptor's end", || {
        standing = acceptor(&third);
        matches!(standing, Standing::Stopped { .. })
    });
    let Standing::Stopped { why } = standing else { unreachable!("it was just that") };
    assert!(why.contains("older copy") && why.contains("was synced"), "{why}");
    let second = start(&config, 1);
    count(&first, 10, 5);
    // The other roles of that node are at work.
    wait_for("its replica's return", || {
        let executed = |node: &Node| {
            node.status().iter().find_map(|s| s.standing.replica().map(|r| r.executed)).unwrap()
        };
        executed(&third) >= executed(&first)
    });
    drop(third);
    // It stays an older copy, even if no node remembers.
    let again = Node::start(&config, 2, |_| Kv::default()).unwrap_err().to_string();
    assert!(again.contains("core-0 is an older copy"), "{again}");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&latest, &data).unwrap();
    let third = start(&config, 2);
    drop(second);
    count(&first, 15, 5);
    assert!(votes(&third) > 0, "it was needed, and has not voted");
}
