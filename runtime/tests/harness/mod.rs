//! Nodes in this process, a client that is served all along, and strangers that talk to them in
//! bytes.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use loggos::kv::{Answer, Command, Kv};
use loggos::{
    CallError, ClusterSettings, Config, Durability, Idle, Node, NodeConfig, RemoteCluster,
    RemoteOptions, RoleId,
};
use loggos_net::Outgoing;
use loggos_net::wire::{
    self, BatchPool, CommandsWriter, FrameReader, Hello, Message, Purpose, Replies, Welcome,
};
use loggos_protocol::{Digest, SessionId};
use serde_json::Value;

/// What anything that must happen may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The longest frame that a stranger takes.
const FRAME_BYTES_MAX: u32 = 64 << 20;
/// Answers of the witness after which it goes on.
const ANSWERS: u64 = 20;

pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nodes, and a client of the first of them.
pub(crate) struct Nodes {
    pub(crate) config: Config,
    nodes: Vec<Node>,
    witness: Witness,
}

/// How the roles of a cluster are spread.
#[derive(Clone, Copy)]
pub(crate) enum Spread {
    /// One node, one core.
    OneCore,
    /// One node, whose gateway is on the core that does not listen.
    TwoCores,
    /// Two nodes: the first has the gateway, the second everything else.
    TwoNodes,
    /// A node each, the gateway's the first.
    NodeEach,
}

impl Nodes {
    pub(crate) fn start(spread: Spread) -> Self {
        Self::start_with(spread, |cluster| cluster)
    }

    /// Starts nodes, and waits until their client is served.
    pub(crate) fn start_with(
        spread: Spread,
        change: impl FnOnce(ClusterSettings) -> ClusterSettings,
    ) -> Self {
        let config = config(spread, change);
        let start = |index| Node::start(&config, index, |_| Kv::default()).unwrap();
        let nodes: Vec<Node> = (0..config.nodes.len()).map(start).collect();
        let witness = Witness::start(nodes[0].address());
        let nodes = Self { config, nodes, witness };
        assert!(nodes.go_on(), "the client was never served");
        nodes
    }

    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].address()
    }

    /// Whether the client gets more answers, all of them right.
    pub(crate) fn go_on(&self) -> bool {
        self.witness.goes_on()
    }

    /// Returns the status of a node.
    pub(crate) fn status(&self, node: usize) -> Value {
        let status = loggos::remote_status(self.address(node), DEADLINE).unwrap();
        serde_json::from_slice(&status).unwrap()
    }

    /// Connections closed for what they said, and refused ones, as the node's status counts them.
    pub(crate) fn counts(&self, node: usize) -> (u64, u64) {
        let status = self.status(node);
        let cores = status["cores"].as_array().unwrap();
        let sum = |key: &str| cores.iter().map(|c| c["sockets"][key].as_u64().unwrap()).sum();
        (sum("connections_malformed"), sum("connections_refused"))
    }

    /// Waits until so many connections were closed for what they said, and so many refused.
    pub(crate) fn wait_for_counts(&self, node: usize, malformed: u64, refused: u64) {
        let mut counts = self.counts(node);
        wait_for("its counting", || {
            counts = self.counts(node);
            counts.0 >= malformed && counts.1 >= refused
        });
        assert_eq!(counts, (malformed, refused), "malformed, refused");
    }

    /// A hello that the first node welcomes.
    pub(crate) fn hello(&self, purpose: Purpose) -> Hello {
        Hello {
            wire_digest: wire::wire_digest(),
            versions: (wire::WIRE_VERSION, wire::WIRE_VERSION),
            cluster_name: self.config.name.clone(),
            cluster_digest: agreement(&self.config),
            formation: None,
            nonce: 1,
            log: None,
            purpose,
        }
    }

    /// Connects to a node, and is welcomed there.
    pub(crate) fn admitted(&self, node: usize, purpose: Purpose) -> (Stranger, Welcome) {
        let mut stranger = Stranger::connect(self.address(node));
        stranger.say(&hello(&self.hello(purpose)));
        match stranger.hear() {
            Some(Message::Welcome(welcome)) => (stranger, welcome),
            other => panic!("{purpose:?} is answered {other:?}"),
        }
    }

    /// The same as a client that has a session.
    pub(crate) fn client(&self, node: usize) -> (Stranger, Welcome) {
        static KEYS: AtomicU64 = AtomicU64::new(1);
        let (mut stranger, welcome) = self.admitted(node, Purpose::Client);
        stranger.open_session(KEYS.fetch_add(1, Ordering::Relaxed));
        (stranger, welcome)
    }

    /// The client was served all along, and no core has failed.
    pub(crate) fn stop(self) {
        assert!(self.go_on(), "the client is not served any more");
        self.witness.stop();
        self.nodes.into_iter().for_each(|node| node.stop().unwrap());
    }
}

/// What connects cores of the first node to cores of another.
pub(crate) const PEER: Purpose =
    Purpose::Peer { from_node: 1, from_core: 0, to_node: 0, to_core: 0 };

/// What nodes must agree on, as the handshake has it.
fn agreement(config: &Config) -> u64 {
    let cluster = &config.cluster;
    let digest = Digest::new("loggos nodes").word(cluster.digest()).word(config.layout_digest());
    let limits = [
        cluster.batch_bytes_max,
        cluster.batch_commands_max,
        cluster.command_bytes_max,
        cluster.page_bytes_max,
        cluster.page_slots_max,
    ];
    limits.into_iter().fold(digest, |digest, limit| digest.word(limit.into())).finish()
}

pub(crate) fn config(
    spread: Spread,
    change: impl FnOnce(ClusterSettings) -> ClusterSettings,
) -> Config {
    let standard = Config::standard();
    let cpu = standard.cpus[0];
    let cores = match spread {
        Spread::OneCore | Spread::TwoNodes | Spread::NodeEach => 1,
        Spread::TwoCores => 2,
    };
    let mut config = Config::on_cpus(change(standard.cluster), vec![cpu; cores]);
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config.durability = Some(Durability::Memory);
    let cpus = std::mem::take(&mut config.cpus);
    let is_gateway = |role: &RoleId| matches!(role, RoleId::Gateway(_));
    if cores == 2 {
        let placed = config.placement.iter_mut();
        placed.for_each(|(role, core)| *core = usize::from(is_gateway(role)));
    }
    let roles: Vec<RoleId> = config.placement.keys().copied().collect();
    let homes = match spread {
        Spread::OneCore | Spread::TwoCores => vec![roles],
        Spread::TwoNodes => {
            let (front, back) = roles.into_iter().partition(is_gateway);
            vec![front, back]
        }
        Spread::NodeEach => roles.into_iter().map(|role| vec![role]).collect(),
    };
    // Held until all are known, so that no two are the same.
    let ports: Vec<TcpListener> =
        homes.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let nodes =
        homes.into_iter().zip(&ports).enumerate().map(|(index, (roles, port))| NodeConfig {
            name: format!("n{index}"),
            address: port.local_addr().unwrap().into(),
            cpus: cpus.clone(),
            roles,
            data: None,
        });
    config.nodes = nodes.collect();
    config
}

/// A client that adds one to a counter, over and over, over one connection.
struct Witness {
    answers: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), CallError>>,
}

impl Witness {
    fn start(address: SocketAddr) -> Self {
        let (answers, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over) = (Arc::clone(&answers), Arc::clone(&is_over));
        let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![address]) };
        let thread = std::thread::spawn(move || {
            let cluster = RemoteCluster::connect(options).unwrap();
            let client = cluster.client();
            for expected in 1.. {
                let executed = client.execute_blocking(&increment(b"witness"))?;
                let answer = Answer::decode(executed.reply.as_slice()).unwrap();
                assert_eq!(answer, Answer::Number(expected), "lost, or executed twice");
                counted.fetch_add(1, Ordering::Release);
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(())
        });
        Self { answers, is_over, thread }
    }

    fn goes_on(&self) -> bool {
        let least = self.answers.load(Ordering::Acquire) + ANSWERS;
        let started = Instant::now();
        while self.answers.load(Ordering::Acquire) < least {
            if self.thread.is_finished() || started.elapsed() > DEADLINE {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap().unwrap();
    }
}

/// A connection of the test, on which it may send anything.
pub(crate) struct Stranger {
    stream: TcpStream,
    reader: FrameReader,
    batches: BatchPool,
    /// Those that [`Stranger::result`] has not returned yet.
    replies: Option<Replies>,
}

impl Stranger {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let (reader, batches) = (FrameReader::new(FRAME_BYTES_MAX), BatchPool::new(1));
        Self { stream, reader, batches, replies: None }
    }

    /// Sends bytes; returns whether the node has taken all of them: it may have closed, or take no
    /// more for `patience`.
    pub(crate) fn say_within(&mut self, bytes: &[u8], patience: Duration) -> bool {
        self.stream.set_write_timeout(Some(patience)).unwrap();
        let said = self.stream.write_all(bytes).map_err(|error| error.kind());
        let is_expected = |kind| {
            let is_late = matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
            is_late || matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
        };
        assert!(said.is_ok() || said.is_err_and(is_expected), "{said:?}");
        said.is_ok()
    }

    /// Sends bytes; the node may have closed.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let started = Instant::now();
        self.say_within(bytes, DEADLINE);
        assert!(started.elapsed() < DEADLINE, "the node neither listens nor closes");
    }

    /// What the node says next; `None` when it has closed.
    pub(crate) fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = self.reader.next() {
                return Some(frame.unwrap().decode(&mut self.batches).unwrap());
            }
            let mut piece = vec![0; 64 << 10];
            let count = self.stream.read(&mut piece).or_else(|error| {
                let is_reset = error.kind() == ErrorKind::ConnectionReset;
                if is_reset { Ok(0) } else { Err(error) }
            });
            match count {
                Ok(0) => return None,
                Ok(count) => piece.truncate(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("neither a word nor a close: {error}"),
            }
            self.reader.push(piece.into());
        }
    }

    /// Asks for a session by `key`, and waits for it.
    pub(crate) fn open_session(&mut self, key: u64) {
        self.say(&session(None, key));
        let said = self.hear();
        let is_open = matches!(said, Some(Message::Session { session: Some(_), .. }));
        assert!(is_open, "{said:?} instead of a session");
    }

    /// The node closes the connection without a further word.
    pub(crate) fn is_closed(&mut self, what: &str) {
        let said = self.hear();
        assert!(said.is_none(), "{what} is answered {said:?}");
    }

    /// The result of a command, and no other message.
    pub(crate) fn result(&mut self) -> (u64, Result<Vec<u8>, loggos_protocol::Failure>) {
        loop {
            if let Some((number, _, reply)) = self.replies.as_mut().and_then(Replies::next) {
                return (number, Ok(reply.to_vec()));
            }
            match self.hear() {
                Some(Message::Replies(replies)) => self.replies = Some(replies),
                Some(Message::Failed { number, failure }) => return (number, Err(failure)),
                other => panic!("{other:?} instead of a result"),
            }
        }
    }
}

pub(crate) fn increment(key: &[u8]) -> Vec<u8> {
    kv(&Command::Increment { key, by: 1 })
}

pub(crate) fn kv(command: &Command<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    command.encode(&mut bytes).unwrap();
    bytes
}

/// What `encode` makes.
pub(crate) fn bytes_of(encode: impl FnOnce(&mut Outgoing)) -> Vec<u8> {
    let mut out = Outgoing::default();
    encode(&mut out);
    out.pieces().flatten().copied().collect()
}

pub(crate) fn hello(hello: &Hello) -> Vec<u8> {
    bytes_of(|out| wire::encode_hello(hello, out))
}

pub(crate) fn session(session: Option<SessionId>, key: u64) -> Vec<u8> {
    bytes_of(|out| wire::encode_session(session, key, out))
}

pub(crate) fn command(number: u64, command: &[u8]) -> Vec<u8> {
    commands([(number, command)])
}

/// Commands in as few frames as there may be, of a client that says that it has all answers.
pub(crate) fn commands(commands: impl IntoIterator<Item = (u64, impl AsRef<[u8]>)>) -> Vec<u8> {
    let mut writer = CommandsWriter::default();
    bytes_of(|out| {
        commands
            .into_iter()
            .for_each(|(number, command)| writer.put(number, u64::MAX, command.as_ref(), out));
        writer.end(out);
    })
}

/// Returns a frame with any content, whose head and checksum are right.
pub(crate) fn frame(kind: u8, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(wire::HEAD_BYTES + header.len() + payload.len()).unwrap();
    let header_bytes = u32::try_from(header.len()).unwrap();
    let mut frame = vec![0; 4];
    frame.extend(length.to_le_bytes());
    frame.extend([wire::WIRE_VERSION, kind, 0, 0]);
    frame.extend(header_bytes.to_le_bytes());
    frame.extend_from_slice(header);
    seal(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Makes the checksum of a frame's head and header right again.
pub(crate) fn seal(frame: &mut [u8]) {
    let header_bytes = u32::from_le_bytes(frame[12..16].try_into().unwrap());
    let end = wire::HEAD_BYTES + usize::try_from(header_bytes).unwrap();
    let checksum = crc32c(&frame[4..end]);
    frame[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC32C, bit by bit: nothing of it is shared with the node's.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        let shift = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), shift)
    });
    !crc
}
