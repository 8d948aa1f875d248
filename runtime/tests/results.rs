//! Results that are longer than a frame may be, and replies that are longer than replies may be.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use loggos::{
    At, CallError, Config, Desk, Durability, Idle, Next, Node, NodeConfig, Position, RemoteCluster,
    RemoteOptions, Reply, Resident, RoleId, Settings, StateMachine,
};

const DEADLINE: Duration = Duration::from_secs(120);
const MEGABYTE: usize = 1 << 20;
/// More than half of what a frame between nodes may have, in two batches' results: 256 MiB.
const COMMANDS: u64 = 90;
const REPLY_BYTES: usize = 3 * MEGABYTE;

/// Answers with how many commands were executed before, and as many bytes as it is told.
#[derive(Debug, Default)]
struct Long(u64);

impl StateMachine for Long {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        reply.put(&self.0.to_le_bytes());
        self.0 += 1;
        let bytes: usize = std::str::from_utf8(command).unwrap().parse().unwrap();
        for at in (0..bytes).step_by(1 << 16) {
            reply.put(&vec![7; (bytes - at).min(1 << 16)]);
        }
    }

    fn state_hash(&self) -> u64 {
        self.0
    }
}

/// What came of a command: the count and the length of its reply.
type Told = (u64, Result<(u64, usize), CallError>);

/// Asks for everything at once: one batch.
struct Asker {
    commands: Vec<String>,
    told: Sender<Told>,
}

impl Resident for Asker {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        for (tag, command) in (0..).zip(std::mem::take(&mut self.commands)) {
            assert!(desk.execute(tag, command.as_bytes()), "there is room for all");
        }
        Next::OnResult
    }

    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        let told = result.map(|(_, reply)| {
            let (count, rest) = reply.split_first_chunk().unwrap();
            assert!(rest.iter().all(|byte| *byte == 7), "{tag}: a reply was changed on its way");
            (u64::from_le_bytes(*count), rest.len())
        });
        self.told.send((tag, told)).unwrap();
    }
}

/// A gateway, and a node with all the others: results go from one to the other.
fn start(settings: impl FnOnce(Settings) -> Settings) -> [Node; 2] {
    let mut config = Config::standard();
    let settings = settings(Settings::clone(&config.cluster));
    config = Config::on_cpus(settings.check().unwrap(), vec![config.cpus[0]]);
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    let cpus = std::mem::take(&mut config.cpus);
    let is_gateway = |role: &RoleId| matches!(role, RoleId::Gateway(_));
    let roles = config.placement.keys().copied();
    let (front, back): (Vec<_>, Vec<_>) = roles.partition(is_gateway);
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    config.durability = Some(Durability::Memory);
    let nodes = [("front", front), ("back", back)].into_iter().zip(&ports);
    config.nodes = nodes
        .map(|((name, roles), port)| NodeConfig {
            name: name.to_owned(),
            address: port.local_addr().unwrap().into(),
            cpus: cpus.clone(),
            roles,
            data: None,
        })
        .collect();
    drop(ports);
    [0, 1].map(|index| Node::start(&config, index, |_| Long::default()).unwrap())
}

/// Has the gateway's node ask for these many bytes each; returns what it was told, in order.
fn ask(front: &Node, bytes: impl Iterator<Item = usize>) -> Vec<Told> {
    let commands: Vec<String> = bytes.map(|bytes| bytes.to_string()).collect();
    let count = commands.len();
    let (told, hears) = channel();
    front.move_in(move || Asker { commands, told });
    let mut all: Vec<Told> = (0..count).map(|_| hears.recv_timeout(DEADLINE).unwrap()).collect();
    all.sort_by_key(|(tag, _)| *tag);
    all
}

#[test]
fn r29_results_longer_than_a_frame_arrive_in_parts() {
    let [front, back] = start(|settings| Settings {
        reply_bytes_max: 4 << 20,
        answers_bytes_max: 1 << 30,
        ..settings
    });
    let told = ask(&front, (0..COMMANDS).map(|_| REPLY_BYTES));
    let expected = (0..COMMANDS).map(|tag| (tag, Ok((tag, REPLY_BYTES))));
    assert!(told.into_iter().eq(expected), "all are executed once, and answered");
    front.client().execute_blocking(b"0").unwrap();
    drop((front, back));
}

#[test]
fn r29_a_reply_that_is_too_large_is_an_error_of_its_own() {
    let [front, back] = start(|settings| Settings {
        reply_bytes_max: 100_008,
        answers_bytes_max: 350_000,
        ..settings
    });
    let told = ask(&front, [5, 100_000, 100_001, 100 * MEGABYTE, 7].into_iter());
    let too_large = || Err(CallError::ReplyTooLarge);
    let expected = [Ok((0, 5)), Ok((1, 100_000)), too_large(), too_large(), Ok((4, 7))];
    assert!(told.into_iter().map(|(_, told)| told).eq(expected), "each is executed");
    let told = ask(&front, [100_000; 5].into_iter());
    let expected = [Ok((5, 100_000)), Ok((6, 100_000)), Ok((7, 100_000)), too_large(), too_large()];
    assert!(told.into_iter().map(|(_, told)| told).eq(expected), "as much as a batch may have");
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![front.address()]) };
    let remote = RemoteCluster::connect(options).unwrap();
    assert_eq!(
        remote.client().execute_blocking(b"200000").map(|it| it.at),
        too_large().map(|_| unreachable!())
    );
    let next = remote.client().execute_blocking(b"0").unwrap();
    assert_eq!(next.reply.as_slice(), 11_u64.to_le_bytes(), "it was executed");
    drop(back);
}
