//! Clients of other processes: one whose cluster has forgotten everything is told so, and not that
//! its commands are done; one whose gateway is not served goes to another.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use loggos::kv::{Answer, Command, Kv};
use loggos::{
    CallError, Config, Consistency, Desk, Durability, Executed, Idle, Next, Node, NodeConfig,
    Position, RemoteCluster, RemoteOptions, Resident, Settings,
};
use loggos_net::Outgoing;
use loggos_net::wire::{
    self, BatchPool, FrameReader, Message, Reason, Refusal, RepliesWriter, Welcome,
};
use loggos_protocol::{FormationId, ReadLevel, SessionId, Slot, Watermark};

/// The longest that anything may take that must happen.
const DEADLINE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn start(address: SocketAddr) -> Node {
    start_with(address, |_| ())
}

fn start_with(address: SocketAddr, change: impl FnOnce(&mut Settings)) -> Node {
    let mut config = Config::standard();
    let mut settings = Settings::clone(&config.cluster);
    change(&mut settings);
    config.cluster = settings.check().unwrap();
    config.idle = Idle::Park; // tests share the machine
    config.durability = Some(Durability::Memory);
    config.nodes = vec![NodeConfig {
        name: "all".to_owned(),
        address: address.into(),
        cpus: std::mem::take(&mut config.cpus),
        roles: config.placement.keys().copied().collect(),
        data: None,
    }];
    Node::start(&config, 0, |_| Kv::default()).unwrap()
}

/// The welcome of a gateway that belongs to that formation.
fn welcome(formation: Option<FormationId>) -> Welcome {
    Welcome {
        version: wire::WIRE_VERSION,
        nonce: 1,
        formation,
        log: None,
        commands_in_flight_max: 1_000,
        command_bytes_max: 1_000,
    }
}

fn not_served() -> Refusal {
    Refusal { reason: Reason::Unserved, text: "as the test wants it".to_owned() }
}

fn say(stream: &mut TcpStream, encode: impl FnOnce(&mut Outgoing)) {
    let mut out = Outgoing::default();
    encode(&mut out);
    out.pieces().for_each(|piece| stream.write_all(piece).unwrap());
}

/// The gateway's end of a connection, in a test's hands.
struct Gateway {
    stream: TcpStream,
    reader: FrameReader,
}

impl Gateway {
    /// Accepts a client, and welcomes it.
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut gateway = Self { stream, reader: FrameReader::new(1 << 20) };
        assert!(matches!(gateway.hear(), Some(Message::Hello(_))), "it says what it is");
        gateway.say(|out| wire::encode_welcome(&welcome(Some(FormationId(7))), out));
        gateway
    }

    fn say(&mut self, encode: impl FnOnce(&mut Outgoing)) {
        say(&mut self.stream, encode);
    }

    /// The next message; `None` once the client has closed.
    fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.reader.next() {
                return Some(frame.unwrap().decode(&mut BatchPool::new(1)).unwrap());
            }
            let mut piece = vec![0; 1024];
            match self.stream.read(&mut piece).unwrap() {
                0 => return None,
                bytes => piece.truncate(bytes),
            }
            self.reader.push(piece.into());
        }
    }

    /// The number of the next command, which is to be `expected`. A session that is wished for
    /// before is opened.
    fn command(&mut self, expected: &[u8]) -> u64 {
        match self.hear() {
            Some(Message::Session { session, key }) => {
                if session.is_none() {
                    let session = SessionId { slot: Slot(key), index: 0 };
                    self.say(|out| wire::encode_session(Some(session), 0, out));
                }
                self.command(expected)
            }
            Some(Message::Commands(commands)) => {
                let [(number, command)] = &commands.collect::<Vec<_>>()[..] else {
                    panic!("several commands instead of {expected:?}")
                };
                assert_eq!(command.as_slice(), expected, "another command");
                *number
            }
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }

    /// The number of the next read, which is to be `expected`, and its level.
    fn read(&mut self, expected: &[u8]) -> (u64, ReadLevel) {
        let Some(Message::Reads(reads)) = self.hear() else { panic!("no read") };
        let level = reads.level();
        let [(number, query)] = &reads.collect::<Vec<_>>()[..] else { panic!("several reads") };
        assert_eq!(query.as_slice(), expected, "another query");
        (*number, level)
    }

    fn answer(&mut self, number: u64, reply: &[u8]) {
        let at = Position { slot: Slot(77), index: 0 };
        let mut writer = RepliesWriter::default();
        self.say(|out| {
            writer.put(number, at, reply, out);
            writer.end(out);
        });
    }

    fn is_not_served(&mut self) {
        self.say(|out| wire::encode_refusal(&not_served(), out));
    }
}

/// What was sent to the first is sent again to the other, under its number, before anything new.
#[test]
fn r37_a_client_of_a_gateway_that_is_not_served_goes_to_another_with_all_that_it_has() {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses.clone()) };
    let cluster = RemoteCluster::connect(options).unwrap();
    let replies = |reply: Result<Executed, CallError>| reply.unwrap().reply.as_slice().to_vec();
    std::thread::scope(|scope| {
        let execute = |command: &'static [u8]| {
            let client = cluster.client();
            scope.spawn(move || client.execute_blocking(command))
        };
        let old = execute(b"old");
        let mut first = Gateway::accept(&listeners[0]);
        let number = first.command(b"old");
        first.is_not_served();
        // The next one is not served either, and says so at once.
        let (mut refusing, _) = listeners[1].accept().unwrap();
        say(&mut refusing, |out| wire::encode_refusal(&not_served(), out));
        let (refused, _) = listeners[0].accept().unwrap();
        drop(refused);
        let mut second = Gateway::accept(&listeners[1]);
        wait_for("its welcome", || cluster.troubles().iter().all(|(at, _)| *at == addresses[0]));
        assert!(first.hear().is_none(), "nothing more is due there");
        assert_eq!(second.command(b"old"), number, "under the same number");
        let new = execute(b"new");
        let new_number = second.command(b"new");
        assert_eq!(new_number, number + 1);
        second.answer(new_number, b"new reply");
        second.answer(number, b"old reply");
        assert_eq!(replies(new.join().unwrap()), b"new reply");
        assert_eq!(replies(old.join().unwrap()), b"old reply");
        // If that one is not served either, it goes on.
        second.is_not_served();
        let mut first = Gateway::accept(&listeners[0]);
        let last = execute(b"last");
        let number = first.command(b"last");
        first.answer(number, b"again of the first");
        assert_eq!(replies(last.join().unwrap()), b"again of the first");
        assert!(second.hear().is_none(), "nothing was due there");
    });
}

/// It needs no session; what it has seen goes with it.
#[test]
fn a_read_whose_gateway_ends_is_asked_again_of_another() {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses: Vec<_> = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        let query = |consistency, query: &'static [u8]| {
            let client = cluster.client();
            scope.spawn(move || client.query_blocking(consistency, query).unwrap())
        };
        let first_read = query(Consistency::Linearizable, b"first");
        let mut first = Gateway::accept(&listeners[0]);
        let (number, level) = first.read(b"first");
        assert_eq!(level, ReadLevel::Linearizable);
        first.answer(number, b"reply");
        assert_eq!(first_read.join().unwrap().reply.as_slice(), b"reply");
        let second_read = query(Consistency::Sequential, b"second");
        let asked = first.read(b"second");
        assert_eq!(asked.1, ReadLevel::Sequential { seen: Watermark(77) });
        drop(first);
        let mut second = Gateway::accept(&listeners[1]);
        assert_eq!(second.read(b"second"), asked, "the same, and nothing else");
        second.answer(asked.0, b"of another");
        assert_eq!(second_read.join().unwrap().reply.as_slice(), b"of another");
    });
}

/// It goes around all others once. Then what is sent to the one that it has left is answered there,
/// and it is back.
#[test]
fn r37_a_client_that_finds_no_gateway_that_is_served_stays_with_its_own() {
    let listeners = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.iter().map(|it| it.local_addr().unwrap()).collect();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        let execute = |command: &'static [u8]| {
            let client = cluster.client();
            scope.spawn(move || client.execute_blocking(command))
        };
        let mut own = Gateway::accept(&listeners[0]);
        own.is_not_served();
        // Until the other has answered, it may be the one.
        let (mut refusing, _) = listeners[1].accept().unwrap();
        let call = execute(b"meanwhile");
        own.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let said = own.stream.read(&mut [0; 1]).unwrap_err().kind();
        assert!(matches!(said, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{said}");
        own.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        say(&mut refusing, |out| wire::encode_refusal(&not_served(), out));
        let number = own.command(b"meanwhile");
        own.answer(number, b"reply");
        assert_eq!(call.join().unwrap().unwrap().reply.as_slice(), b"reply");
        let call = execute(b"after that");
        let number = own.command(b"after that");
        own.answer(number, b"reply");
        assert_eq!(call.join().unwrap().unwrap().reply.as_slice(), b"reply");
        assert!(
            cluster
                .troubles()
                .iter()
                .all(|(address, _)| { *address == listeners[1].local_addr().unwrap() })
        );
    });
}

/// With nowhere else to go it stays.
#[test]
fn r37_a_client_that_has_one_gateway_stays_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![address]) };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        let client = cluster.client();
        let first = client.clone();
        let call = scope.spawn(move || first.execute_blocking(b"first"));
        let mut gateway = Gateway::accept(&listener);
        let number = gateway.command(b"first");
        gateway.answer(number, b"reply");
        assert!(call.join().unwrap().is_ok(), "it is served");
        gateway.is_not_served();
        let call = scope.spawn(move || client.execute_blocking(b"command"));
        let number = gateway.command(b"command");
        let told = vec![(address, "as the test wants it".to_owned())];
        wait_for("its trouble", || cluster.troubles() == told);
        gateway.answer(number, b"reply");
        assert_eq!(call.join().unwrap().unwrap().reply.as_slice(), b"reply");
        wait_for("that it is served again", || cluster.troubles().is_empty());
    });
}

#[test]
fn calls_end_where_no_process_answers_and_the_reason_is_told() {
    let addresses = [0; 2].map(|_| {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        unused.local_addr().unwrap()
    });
    let options = RemoteOptions {
        deadline: Duration::from_secs(3600),
        unreachable_after: Some(Duration::from_millis(100)),
        ..RemoteOptions::new(addresses.to_vec())
    };
    let cluster = RemoteCluster::connect(options).unwrap();
    for _ in 0..2 {
        assert_eq!(cluster.client().execute_blocking(b"command"), Err(CallError::Unreachable));
    }
    let expected = addresses.map(|address| (address, "connection refused".to_owned()));
    assert_eq!(cluster.troubles(), expected);
}

#[test]
fn r04_a_client_stays_with_the_formation_that_it_has_talked_to() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut put = Vec::new();
    Command::Put { key: b"key", value: b"value" }.encode(&mut put).unwrap();
    let deadline = Duration::from_secs(3);
    let connect = |deadline| {
        RemoteCluster::connect(RemoteOptions { deadline, ..RemoteOptions::new(vec![address]) })
    };
    let node = start(address);
    let cluster = connect(Duration::from_secs(60)).unwrap();
    cluster.client().execute_blocking(&put).unwrap();
    let forgetful = connect(deadline).unwrap();
    forgetful.client().execute_blocking(&put).unwrap();
    node.stop().unwrap();
    // In memory, another life is another cluster.
    let _node = start(address);
    let stranger = connect(Duration::from_secs(60)).unwrap();
    stranger.client().execute_blocking(&put).unwrap();
    let told = forgetful.client().execute_blocking(&put);
    assert_eq!(told, Err(CallError::Unreachable), "never sent on");
}

#[test]
fn r04_a_gateway_that_knows_of_no_formation_is_given_no_command() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = RemoteOptions {
        deadline: Duration::from_secs(3),
        ..RemoteOptions::new(vec![listener.local_addr().unwrap()])
    };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        let client = cluster.client();
        let call = scope.spawn(move || client.execute_blocking(b"command"));
        let (mut gateway, _) = listener.accept().unwrap();
        gateway.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut hello = [0; 1024];
        assert!(gateway.read(&mut hello).unwrap() > 0, "it says who it is");
        say(&mut gateway, |out| wire::encode_welcome(&welcome(None), out));
        let mut said = Vec::new();
        // Closed, whether in good order or not.
        let _ended = gateway.read_to_end(&mut said);
        assert!(said.is_empty(), "{} bytes were said to who may forget them", said.len());
        assert_eq!(call.join().unwrap(), Err(CallError::Unreachable), "never sent on");
    });
}

/// Alone, with nothing behind it that would ask for another session.
#[test]
fn r22_a_command_after_a_long_pause_is_executed_in_another_session() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unused_max = Duration::from_millis(50);
    let _node = start_with(address, |settings| settings.client_session_unused_max = unused_max);
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![address]) };
    let cluster = RemoteCluster::connect(options).unwrap();
    let mut increment = Vec::new();
    Command::Increment { key: b"pauses", by: 1 }.encode(&mut increment).unwrap();
    for expected in 1..=3 {
        let executed = cluster.client().execute_blocking(&increment).unwrap();
        let answer = Answer::decode(executed.reply.as_slice()).unwrap();
        assert_eq!(answer, Answer::Number(expected));
        std::thread::sleep(3 * unused_max); // the pause is what is tested
    }
}

/// A core that ends as if the machine had failed.
#[test]
fn a_node_of_which_a_core_has_panicked_says_so() {
    struct Panics;

    impl Resident for Panics {
        fn turn(&mut self, _desk: &mut Desk<'_>) -> Next {
            panic!("as the test wants it");
        }

        fn on_result(&mut self, _tag: u64, _result: Result<(Position, &[u8]), CallError>) {}
    }

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = start(address);
    assert!(!node.has_failed(), "nothing has happened yet");
    node.move_in(|| Panics);
    let started = Instant::now();
    while !node.has_failed() {
        assert!(started.elapsed() < Duration::from_secs(60), "nobody notices");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(node.client().execute_blocking(b"command"), Err(CallError::Stopped));
    let error = node.stop().unwrap_err().to_string();
    assert!(error.contains("has panicked"), "{error}");
}
