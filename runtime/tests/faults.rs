//! Clusters in this process that lose a role, or have one paused, under load: commands go on,
//! nothing acknowledged is lost or executed twice, and replicas stay equal.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a fault was felt is reported, not asserted")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loggos::kv::{Answer, Command, Kv};
use loggos::{
    AcceptorId, At, CallError, Client, Config, Durability, Halt, Idle, LocalCluster, Node,
    NodeConfig, ProposerId, ProxyLeaderId, ReplicaId, Reply, RoleId, RoleStatus, Standing,
    StateMachine,
};

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
const CALLERS: usize = 4;

fn config() -> Config {
    let mut config = Config::standard();
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config
}

/// The same with durable acceptors, formatted in a folder that is removed with it.
fn durable() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.durability = Some(Durability::Sync);
    config.data = Some(folder.path().join("data"));
    LocalCluster::format(&config).unwrap();
    (folder, config)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Adds one to a counter of its own, over and over: every answer must be one more than the last.
fn count(client: &Client, caller: usize, counted: &AtomicU64, is_over: &AtomicBool) {
    let mut command = Vec::new();
    let key = format!("counter {caller}").into_bytes();
    Command::Increment { key: &key, by: 1 }.encode(&mut command).unwrap();
    while !is_over.load(Ordering::Relaxed) {
        let executed = client.execute_blocking(&command).unwrap();
        let answer = Answer::decode(executed.reply.as_slice()).unwrap();
        let expected = i64::try_from(counted.load(Ordering::Relaxed) + 1).unwrap();
        assert_eq!(answer, Answer::Number(expected), "caller {caller}: lost, or run twice");
        counted.fetch_add(1, Ordering::Release);
    }
}

/// Runs a load, lets `fault` strike in the middle of it, and waits until every caller has got on
/// well after that; returns the roles at the end.
fn under_load(fault: impl FnOnce(&LocalCluster)) -> Vec<RoleStatus> {
    under_load_of(&config(), fault)
}

fn under_load_of(config: &Config, fault: impl FnOnce(&LocalCluster)) -> Vec<RoleStatus> {
    let cluster = LocalCluster::start(config, |_| Kv::default()).unwrap();
    let counted: Vec<AtomicU64> = (0..CALLERS).map(|_| AtomicU64::new(0)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (caller, counted) in (0..).zip(&counted) {
            let (client, is_over) = (cluster.client(), &is_over);
            scope.spawn(move || count(&client, caller, counted, is_over));
        }
        let all_reach = |least: &[u64]| {
            counted.iter().zip(least).all(|(c, least)| c.load(Ordering::Acquire) >= *least)
        };
        wait_for("the first commands", || all_reach(&[50; CALLERS]));
        fault(&cluster);
        let now: Vec<u64> = counted.iter().map(|c| c.load(Ordering::Acquire)).collect();
        let (first, later): (Vec<_>, Vec<_>) = now.iter().map(|n| (n + 1, n + 200)).unzip();
        let struck = Instant::now();
        wait_for("the next command", || all_reach(&first));
        println!("every caller had its next answer {:?} after the fault", struck.elapsed());
        wait_for("many more commands", || all_reach(&later));
        is_over.store(true, Ordering::Relaxed);
    });
    let statuses = wait_until_equal(&cluster);
    cluster.stop().unwrap();
    statuses
}

/// Waits until all replicas that run have executed as much, and compares them.
fn wait_until_equal(cluster: &LocalCluster) -> Vec<RoleStatus> {
    let mut statuses = Vec::new();
    wait_for("equal watermarks", || {
        statuses = cluster.status();
        let mut executed = replicas(&statuses).map(|(executed, _)| executed);
        let first = executed.next();
        first.is_some() && executed.all(|other| Some(other) == first)
    });
    let standings: Vec<_> = replicas(&statuses).collect();
    assert!(standings.iter().all(|s| *s == standings[0]), "replicas differ: {statuses:#?}");
    statuses
}

fn replicas(statuses: &[RoleStatus]) -> impl Iterator<Item = (u64, u64)> {
    let replicas = statuses.iter().filter_map(|status| status.standing.replica());
    replicas.filter(|r| r.halted.is_none()).map(|r| (r.executed.0, r.state_hash))
}

fn leader(cluster: &LocalCluster) -> RoleId {
    let statuses = cluster.status();
    statuses
        .iter()
        .find(|status| status.standing.is_leading())
        .expect("there is a leader under load")
        .role
}

#[test]
fn commands_go_on_when_the_leader_is_killed() {
    let statuses = under_load(|cluster| {
        let leader = leader(cluster);
        cluster.kill(leader).unwrap();
    });
    assert_eq!(replicas(&statuses).count(), 3);
}

#[test]
fn commands_go_on_when_the_leader_retires() {
    under_load(|cluster| {
        let leader = leader(cluster);
        cluster.retire(leader).unwrap();
    });
}

#[test]
fn commands_go_on_when_the_leader_is_killed_and_comes_back() {
    under_load(|cluster| {
        let leader = leader(cluster);
        cluster.kill(leader).unwrap();
        cluster.restart(leader).unwrap();
    });
}

#[test]
fn commands_go_on_when_an_acceptor_is_killed() {
    under_load(|cluster| cluster.kill(RoleId::Acceptor(AcceptorId(0))).unwrap());
}

#[test]
fn an_acceptor_that_comes_back_without_its_memory_is_refused() {
    let id = RoleId::Acceptor(AcceptorId(3));
    let acceptor_of = |statuses: &[RoleStatus]| {
        let acceptor = statuses.iter().find(|status| status.role == id).unwrap();
        let Standing::Acceptor { promised, counters, .. } = acceptor.standing else {
            panic!("{acceptor:?}")
        };
        (promised, counters)
    };
    let statuses = under_load(|cluster| {
        cluster.kill(id).unwrap();
        cluster.restart(id).unwrap();
        wait_for("the table and P2as that it is offered", || {
            acceptor_of(&cluster.status()).1.foreign > 0
        });
    });
    let (promised, counters) = acceptor_of(&statuses);
    assert_eq!((promised.round, counters.votes, counters.promises), (0, 0, 0));
}

/// Each at any moment of its writes, all of them again and again; then a replica replays what they
/// have on disk.
#[test]
fn durable_acceptors_that_start_over_in_their_process_forget_nothing() {
    let (_folder, config) = durable();
    let acceptors: Vec<_> =
        config.cluster.quorums.acceptors().iter().map(RoleId::Acceptor).collect();
    let statuses = under_load_of(&config, |cluster| {
        for round in 0..50 {
            acceptors.iter().for_each(|id| cluster.restart(*id).unwrap());
            std::thread::sleep(Duration::from_micros(700 * round % 9_000));
        }
        cluster.restart(RoleId::Replica(ReplicaId(0))).unwrap();
    });
    assert_eq!(replicas(&statuses).count(), 3);
    let are_up = acceptors.iter().all(|id| {
        let status = statuses.iter().find(|status| status.role == *id);
        status.is_some_and(|status| matches!(status.standing, Standing::Acceptor { .. }))
    });
    assert!(are_up, "{statuses:#?}");
}

/// Restarted while votes of its former life are not durable yet, it would come back a little later.
#[test]
fn a_durable_acceptor_that_is_retired_while_it_starts_over_stays_down() {
    let (_folder, config) = durable();
    let id = RoleId::Acceptor(AcceptorId(0));
    let mut came_back = None;
    under_load_of(&config, |cluster| {
        let client = cluster.client();
        let work = || drop(client.execute_blocking(b"not even a command").unwrap());
        for _ in 0..100 {
            (0..20).for_each(|_| work()); // it votes again
            cluster.restart(id).unwrap();
            cluster.retire(id).unwrap();
            // What its former life had under way is durable by the time that others have answered.
            (0..20).for_each(|_| work());
            let statuses = cluster.status();
            let status = statuses.into_iter().find(|status| status.role == id).unwrap();
            if !matches!(status.standing, Standing::Down) {
                came_back.get_or_insert(status);
            }
            cluster.restart(id).unwrap();
        }
    });
    assert!(came_back.is_none(), "{came_back:?}");
}

#[test]
fn a_cluster_on_a_processor_core_that_is_not_there_does_not_start() {
    let config = Config::on_cpus(config().cluster, vec![config().cpus[0], 4_000]);
    let error = LocalCluster::start(&config, |_| Kv::default()).unwrap_err();
    assert!(error.to_string().contains("core 4000"), "{error}");
}

/// A peer that reaches it takes silence for a fault, and a refused call for a process that is not
/// there yet.
#[test]
fn a_node_does_not_listen_before_its_state_machines_are_made() {
    let mut config = Config::on_cpus(config().cluster, vec![config().cpus[0]]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    config.durability = Some(Durability::Memory);
    config.nodes = vec![NodeConfig {
        name: "all".to_owned(),
        address: address.into(),
        cpus: std::mem::take(&mut config.cpus),
        roles: config.placement.keys().copied().collect(),
        data: None,
    }];
    let node = Node::start(&config, 0, move |_| {
        assert!(std::net::TcpStream::connect(address).is_err(), "it listens already");
        Kv::default()
    });
    let node = node.unwrap();
    assert!(std::net::TcpStream::connect(address).is_ok(), "it does not listen");
    node.stop().unwrap();
}

/// The machine of a replica is made on the replica's core.
#[test]
fn a_cluster_whose_state_machine_cannot_be_made_does_not_start() {
    let refuse = |id: ReplicaId| -> Kv {
        assert!(id != ReplicaId(1), "no machine for replica 1");
        Kv::default()
    };
    let error = LocalCluster::start(&config(), refuse).unwrap_err();
    assert!(error.to_string().contains("panicked"), "{error}");
}

#[test]
fn commands_go_on_when_a_proxy_leader_is_killed() {
    under_load(|cluster| cluster.kill(RoleId::ProxyLeader(ProxyLeaderId(0))).unwrap());
}

#[test]
fn commands_go_on_when_a_replica_is_killed() {
    let statuses = under_load(|cluster| cluster.kill(RoleId::Replica(ReplicaId(1))).unwrap());
    assert_eq!(replicas(&statuses).count(), 2);
}

/// Three election timeouts of the defaults.
const PAUSE: Duration = Duration::from_millis(900);

#[test]
fn commands_go_on_when_the_leader_is_paused() {
    under_load(|cluster| {
        let leader = leader(cluster);
        cluster.pause(leader, PAUSE).unwrap();
    });
}

#[test]
fn commands_go_on_when_others_are_paused() {
    for role in [
        RoleId::Acceptor(AcceptorId(2)),
        RoleId::ProxyLeader(ProxyLeaderId(1)),
        RoleId::Replica(ReplicaId(0)),
        RoleId::Proposer(ProposerId(1)),
    ] {
        let statuses = under_load(|cluster| cluster.pause(role, PAUSE).unwrap());
        assert_eq!(replicas(&statuses).count(), 3, "{role:?} was paused");
    }
}

/// Panics on a command of its own.
#[derive(Debug, Default)]
struct Grenade(u64);

impl StateMachine for Grenade {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        assert!(command != b"boom", "the machine has met its command");
        self.0 += 1;
        reply.put(command);
    }

    fn state_hash(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_machine_that_panics_halts_its_replicas_and_nothing_else() {
    let cluster = LocalCluster::start(&config(), |_| Grenade::default()).unwrap();
    let client = cluster.client();
    wait_for("the first command", || client.execute_blocking(b"hello").is_ok());
    let message = "the machine has met its command";
    for command in [b"boom", b"more"] {
        let told = client.execute_blocking(command);
        let Err(CallError::Halted(why)) = &told else { panic!("{told:?}") };
        let is_why = matches!(&**why, Halt::Panicked { message: of, .. } if of == message);
        assert!(is_why, "{why:?}");
        assert!(told.unwrap_err().to_string().contains(message));
    }
    let halted = |s: &RoleStatus| {
        let why = s.standing.replica().and_then(|replica| replica.halted.as_ref());
        matches!(why, Some(Halt::Panicked { message: of, .. }) if of == message)
    };
    wait_for("all replicas to halt", || {
        cluster.status().iter().filter(|status| halted(status)).count() == 3
    });
    let is_up = |s: &RoleStatus| !matches!(s.standing, Standing::Down);
    assert!(cluster.status().iter().all(is_up), "the others are unharmed");
    cluster.stop().unwrap();
}

#[test]
fn a_stopped_cluster_answers_every_call_with_an_error() {
    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    let client = cluster.client();
    let caller = std::thread::spawn({
        let client = client.clone();
        move || loop {
            if let Err(error) = client.execute_blocking(b"not even a command") {
                return error;
            }
        }
    });
    cluster.stop().unwrap();
    assert_eq!(caller.join().unwrap(), CallError::Stopped);
    assert_eq!(client.execute_blocking(b"late"), Err(CallError::Stopped));
}

#[test]
fn a_command_over_the_limit_is_refused_and_others_are_served() {
    let config = config();
    let cluster = LocalCluster::start(&config, |_| Kv::default()).unwrap();
    let client = cluster.client();
    let long = vec![0; config.cluster.command_bytes_max as usize + 1];
    assert_eq!(client.execute_blocking(&long), Err(CallError::TooLarge));
    assert!(client.execute_blocking(&long[1..]).is_ok());
    cluster.stop().unwrap();
}

/// What the client promises: futures that any executor can poll, here one made of nothing but a
/// waker.
#[test]
fn futures_of_one_client_take_effect_in_the_order_they_were_polled() {
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    let client = cluster.client();
    let mut command = Vec::new();
    Command::Increment { key: b"n", by: 1 }.encode(&mut command).unwrap();
    let mut calls: Vec<_> = (0..100).map(|_| Box::pin(client.execute(&command))).collect();
    let mut cx = Context::from_waker(Waker::noop());
    for call in &mut calls {
        assert!(call.as_mut().poll(&mut cx).is_pending());
    }
    for (expected, call) in (1..).zip(&mut calls) {
        let mut answer = None;
        wait_for("an answer", || match call.as_mut().poll(&mut cx) {
            Poll::Ready(result) => {
                answer = Some(result.unwrap());
                true
            }
            Poll::Pending => false,
        });
        let reply = answer.unwrap().reply;
        assert_eq!(Answer::decode(reply.as_slice()).unwrap(), Answer::Number(expected));
    }
    cluster.stop().unwrap();
}
