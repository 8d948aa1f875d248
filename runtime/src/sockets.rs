//! The sockets of a core: links to cores of other nodes, and the connections of clients. The core's ring, which
//! they are on, is an argument.
//!
//! ```text
//!   this core                                        a core of another node
//!   link ──── connect, Hello ───────────────────────▶ whichever core listens, which hands the
//!        ◀─── Welcome, or a Refusal with a reason ──── socket to the core that Hello names
//!        ──── frames, for as long as it lives ───────▶ that core's roles
//! ```
//!
//! A link carries messages one way: who wants to be answered is answered over the other's link. What a
//! link cannot take is dropped and counted, since whoever sent it will send it again (R27, R29). A
//! connection that says anything but what is expected of it is closed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use loggos_net::wire::{
    self, BatchPool, FrameReader, Hello, LogPosition, Message, Purpose, Reason, Refusal, Welcome,
    WireError,
};
use loggos_net::{CloseReason, ConnectionId, Ring, RingEvent};
use loggos_protocol::{Envelope, Failure, FormationId, Payload, Position, Time};
use tracing::{info, warn};

use crate::callers::RemoteCall;
use crate::client::CallError;
use crate::sightings::Sightings;

/// How long a stranger may take to say who it is, and whom we call to answer.
const GREETING_MAX: Duration = Duration::from_secs(5);
/// How long a link may fail to send anything before it is taken for dead.
const STALL_MAX: Duration = Duration::from_secs(5);
/// The least that a link waits before it calls again, and the most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The least that it waits where it was up until then: that nobody answers is worth knowing soon (R28).
const DOUBT_BACK_OFF: Duration = Duration::from_millis(1);
/// Bytes that wait to be sent over a link; what exceeds them is dropped. As many again are reserved for
/// what elections need.
const LINK_BYTES_MAX: usize = 8 << 20;
/// Bytes of results that wait for a client that does not read: with more it is read no further either, and with
/// the most, which only long replies to what was read before can make, it is cut off.
const CLIENT_BYTES_HELD: usize = 1 << 20;
const CLIENT_BYTES_MAX: usize = 64 << 20;
/// Strangers, clients and peers that may be connected at once.
const CONNECTIONS_MAX: usize = 4096;
/// How many of them may be clients: the rest is for peers.
const CLIENTS_MAX: usize = 3072;
/// How often it is looked whether something has taken too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The longest frame that a peer may send: a page of votes is one, and ends after the batch that is one too many. Its own
/// checksum has been checked before room is made for it.
const PEER_FRAME_BYTES_MAX: u32 = 256 << 20;
/// Commands of one connection without an answer; a client that has as many is read no further.
const CLIENT_COMMANDS_MAX: u32 = 65_536;

/// Who we are, to other nodes and to clients.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cluster_name: String,
    /// What nodes must agree on: quorums, f, windows (R3), and where everybody lives.
    pub(crate) digest: u64,
    pub(crate) node: u8,
    pub(crate) core: u8,
    /// The last core of this node.
    pub(crate) core_last: u8,
    /// Of this core: another one under the same name is another life.
    pub(crate) nonce: u64,
    /// The core whose gateway serves clients, if this node has one.
    pub(crate) gateway_core: Option<u8>,
    pub(crate) command_bytes_max: u32,
    pub(crate) frame_bytes_max: u32,
}

/// A core of another node.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) node: u8,
    pub(crate) core: u8,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Whether the link is kept up even if there is nothing to say: a leader may live there, and that it ends is to be
    /// known at once.
    pub(crate) is_watched: bool,
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message for a role of this core.
    Envelope(Envelope),
    /// A client's command.
    Command { from: ConnectionId, number: u64, command: Payload },
    /// Somebody wants to know how the roles of this process stand.
    StatusRequest(ConnectionId),
    /// A connection that belongs to another core of this node.
    HandOver { core: u8, visitor: Visitor },
    /// Another node has seen more of our log than we came back with, and says so (R33).
    Outdated { why: String },
    /// The process that this link led to has ended: it has closed the link, and nobody is at its address, or another life
    /// of it (R28).
    Gone { link: usize },
}

/// A connection on its way to another core, with what it has said.
#[derive(Debug)]
pub(crate) struct Visitor {
    socket: OwnedFd,
    hello: Hello,
    /// With whatever came behind the hello.
    connection: Box<Connection>,
}

/// What went over the sockets of a core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketCounters {
    /// Messages for other nodes that were dropped for want of a link or of room.
    pub(crate) dropped: u64,
    /// Connections closed for what they said.
    pub(crate) malformed: u64,
    /// Connections refused with a reason.
    pub(crate) refused: u64,
    /// Bytes of frames that had not arrived in one piece, and were copied together.
    pub(crate) copied_bytes: u64,
}

/// All sockets of a core.
#[derive(Debug)]
pub(crate) struct Sockets {
    identity: Identity,
    links: Vec<Link>,
    connections: BTreeMap<ConnectionId, Connection>,
    /// What has come in, until the core takes it; oldest first.
    incoming: VecDeque<Incoming>,
    /// How many more commands of clients this tick takes in.
    room: usize,
    /// Clients that were not read to the end for want of room.
    stalled: VecDeque<ConnectionId>,
    /// When to look next whether something has taken too long.
    sweep_at: Time,
    /// Whether nothing has happened since it was last looked.
    is_quiet: bool,
    batches: BatchPool,
    /// The formation that roles of this core belong to, once they know of one (R4).
    pub(crate) formation: Option<FormationId>,
    /// Where the log of this core stands, if it has one and that serves (R33).
    pub(crate) log: Option<LogPosition>,
    /// What was seen of the logs of others.
    sightings: Sightings,
    counters: SocketCounters,
    /// Nodes that were refused, by their place, and why.
    refused_nodes: Vec<(u8, Reason)>,
}

/// Our way to a core of another node.
#[derive(Debug)]
struct Link {
    remote: Remote,
    state: LinkState,
    back_off: Duration,
    /// In which life it was last up: the nonce of whom it led to.
    life: Option<u64>,
    /// Whether it was up and has ended, and it is not known yet whether its process has.
    is_in_doubt: bool,
    /// When something was last sent, or there was nothing to send.
    moved_at: Time,
    /// The last batch of our log that it was told of.
    told: u64,
    /// Whether its trouble was told: once, and not with every attempt.
    is_reported: bool,
}

#[derive(Clone, Copy, Debug)]
enum LinkState {
    /// Not connected; nobody calls before then.
    Down {
        until: Time,
    },
    /// Calling, or waiting for the welcome.
    Calling {
        connection: ConnectionId,
        since: Time,
    },
    Up {
        connection: ConnectionId,
    },
}

#[derive(Debug)]
struct Connection {
    reader: FrameReader,
    stage: ConnectionStage,
    address: Option<SocketAddr>,
    /// Whether it is read no further until it has read what we say.
    is_held: bool,
}

#[derive(Clone, Copy, Debug)]
enum ConnectionStage {
    /// Called by us, for a link.
    Link(usize),
    /// Has not said who it is.
    Stranger { since: Time },
    /// A core of another node, in that life.
    Peer { node: u8, life: u64 },
    /// A client, with so many commands unanswered.
    Client { commands: u32 },
    /// Asks how we stand.
    Status,
    /// Was refused, and is closed once it has been told why.
    Refused { since: Time },
}

/// The answer to whoever does not speak our version: its hello is read no further than that.
fn other_versions(least: u8, most: u8) -> Refusal {
    let text = format!("we speak version {}, you {least} to {most}", wire::WIRE_VERSION);
    Refusal { reason: Reason::Version, text }
}

/// The answer to whoever speaks our version with other words.
fn other_wire() -> Refusal {
    let text = "messages of the same version that look otherwise: another build?";
    Refusal { reason: Reason::Wire, text: text.to_owned() }
}

/// Why a link is down whose other end has refused us.
fn refused_us(refusal: &Refusal) -> String {
    format!("it refuses us: {}", refusal.text)
}

/// Why a connection ended, for a person.
pub(crate) fn describe(reason: &CloseReason) -> String {
    match reason {
        CloseReason::PeerClosed => "it closed the connection".to_owned(),
        CloseReason::Failed(kind) | CloseReason::ConnectFailed(kind) => kind.to_string(),
    }
}

impl Sockets {
    /// Starts without a connection: links to `remotes` are called once there is something to say, or once it is time.
    /// `batches_max` batches may be held at once; `logs_max` logs of other cores are remembered.
    pub(crate) fn new(
        identity: Identity,
        remotes: &[Remote],
        batches_max: usize,
        logs_max: usize,
    ) -> Self {
        let links = remotes.iter().map(|remote| Link {
            remote: remote.clone(),
            state: LinkState::Down { until: Time(0) },
            back_off: BACK_OFF.0,
            life: None,
            is_in_doubt: false,
            moved_at: Time(0),
            told: 0,
            is_reported: false,
        });
        Self {
            identity,
            links: links.collect(),
            connections: BTreeMap::new(),
            incoming: VecDeque::new(),
            room: 0,
            stalled: VecDeque::new(),
            sweep_at: Time(0),
            is_quiet: true,
            batches: BatchPool::new(batches_max),
            formation: None,
            log: None,
            sightings: Sightings::new(logs_max),
            counters: SocketCounters::default(),
            refused_nodes: Vec::new(),
        }
    }

    /// Begins a tick that takes in no more than `room` commands of clients. Those clients that were not read to the end
    /// are read on; the one that has waited longest is the first.
    pub(crate) fn begin_tick(&mut self, ring: &mut Ring, room: usize, now: Time) {
        self.room = room;
        for _ in 0..self.stalled.len() {
            if let Some(connection) = self.stalled.pop_front() {
                self.read(ring, connection, now);
            }
        }
    }

    /// Returns the oldest of what has come in, once.
    pub(crate) fn next_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// Whether there are clients that were not read to the end.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Sends a message over a link, or drops it.
    pub(crate) fn send(&mut self, ring: &mut Ring, link: usize, envelope: &Envelope, now: Time) {
        let connection = match self.links[link].state {
            LinkState::Up { connection } => connection,
            LinkState::Calling { .. } => return self.counters.dropped += 1,
            LinkState::Down { until } => {
                self.counters.dropped += 1;
                if until <= now {
                    self.call(ring, link, now);
                }
                return;
            }
        };
        let room = if envelope.to.is_urgent() { 2 * LINK_BYTES_MAX } else { LINK_BYTES_MAX };
        match ring.outgoing(connection).filter(|outgoing| outgoing.len() < room) {
            Some(outgoing) => wire::encode(envelope, outgoing),
            None => self.counters.dropped += 1,
        }
    }

    /// Answers a client's command, unless it has gone.
    pub(crate) fn answer(
        &mut self,
        ring: &mut Ring,
        call: RemoteCall,
        result: Result<(Position, &[u8]), CallError>,
    ) {
        let RemoteCall { connection: to, number } = call;
        let Some(connection) = self.connections.get_mut(&to) else { return };
        if let ConnectionStage::Client { commands } = &mut connection.stage {
            if *commands == CLIENT_COMMANDS_MAX {
                self.stalled.push_back(to); // it may be read on
            }
            *commands = commands.saturating_sub(1);
        }
        let Some(outgoing) = ring.outgoing(to) else { return };
        if outgoing.len() > CLIENT_BYTES_MAX {
            warn!(address = ?connection.address, "a client does not read its results");
            return self.close(ring, to);
        }
        let result = result.map_err(|why| match why {
            CallError::Busy => Failure::Busy,
            CallError::TooLarge => Failure::TooLarge,
            CallError::ReplyTooLarge => Failure::ReplyTooLarge,
            CallError::NoRoom(acceptors) => Failure::NoRoom(acceptors),
            CallError::DeadlineExceeded => Failure::DeadlineExceeded,
            CallError::OutcomeUnknown | CallError::Stopped => Failure::OutcomeUnknown,
        });
        wire::encode_result(number, result, outgoing);
    }

    /// Answers whoever asked how we stand.
    pub(crate) fn tell_status(&mut self, ring: &mut Ring, to: ConnectionId, status: &[u8]) {
        match ring.outgoing(to) {
            Some(outgoing) if outgoing.len() > CLIENT_BYTES_MAX => self.close(ring, to),
            Some(outgoing) => wire::encode_status(status, outgoing),
            None => {}
        }
    }

    /// Takes a connection over from another core.
    pub(crate) fn adopt(&mut self, ring: &mut Ring, visitor: Visitor, now: Time) {
        let Visitor { socket, hello, connection } = visitor;
        match ring.adopt(socket) {
            Ok(id) => {
                self.connections.insert(id, *connection);
                match self.objection(&hello).or_else(|| self.see_hello(&hello)) {
                    Some(refusal) => {
                        self.tell_refused(&hello, &refusal);
                        self.refuse(ring, id, refusal, now);
                    }
                    None => self.welcome(ring, id, &hello),
                }
                self.stalled.push_back(id); // what came behind the hello is read next
            }
            Err(error) => warn!(%error, "a connection was lost between two cores"),
        }
    }

    /// Notes which links have nothing left to send, before the ring sends what has gathered.
    pub(crate) fn note_idle_links(&mut self, ring: &mut Ring, now: Time) {
        for link in 0..self.links.len() {
            if let LinkState::Up { connection } = self.links[link].state {
                let is_idle = ring.outgoing(connection).is_none_or(|o| o.is_empty());
                if is_idle {
                    self.links[link].moved_at = now;
                }
            }
        }
    }

    /// Ends what has taken too long, if it is time to look.
    pub(crate) fn on_time(&mut self, ring: &mut Ring, now: Time) {
        for link in 0..self.links.len() {
            let Link { is_in_doubt, state, .. } = self.links[link];
            if is_in_doubt && matches!(state, LinkState::Down { until } if until <= now) {
                self.call(ring, link, now);
            }
        }
        if now < self.sweep_at {
            return;
        }
        if now.since(self.sweep_at) > STALL_MAX {
            // We were stopped ourselves: nobody else is late.
            self.links.iter_mut().for_each(|link| link.moved_at = now);
        }
        self.sweep_at = now + SWEEP_INTERVAL;
        if std::mem::replace(&mut self.is_quiet, true) {
            self.batches.release(); // what nobody needs keeps no receive buffer
        }
        for link in 0..self.links.len() {
            let late = match self.links[link].state {
                LinkState::Calling { connection, since } if now.since(since) > GREETING_MAX => {
                    Some(connection)
                }
                LinkState::Up { connection }
                    if now.since(self.links[link].moved_at) > STALL_MAX =>
                {
                    Some(connection)
                }
                LinkState::Down { .. } | LinkState::Calling { .. } | LinkState::Up { .. } => None,
            };
            if let Some(connection) = late {
                self.close(ring, connection);
                self.link_down(link, now, "it does not answer");
            }
        }
        for link in 0..self.links.len() {
            let Link { state, remote: Remote { is_watched, .. }, .. } = self.links[link];
            if is_watched && matches!(state, LinkState::Down { until } if until <= now) {
                self.call(ring, link, now);
            }
        }
        let is_late = |connection: &Connection| match connection.stage {
            ConnectionStage::Stranger { since } | ConnectionStage::Refused { since } => {
                now.since(since) > GREETING_MAX
            }
            ConnectionStage::Link(_)
            | ConnectionStage::Peer { .. }
            | ConnectionStage::Client { .. }
            | ConnectionStage::Status => false,
        };
        let late = self.connections.iter().filter(|(_, connection)| is_late(connection));
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(ring, id);
        }
        self.tell_log(ring);
    }

    /// Tells those we are connected to how far our log is, where it has moved on.
    ///
    /// source: R33
    fn tell_log(&mut self, ring: &mut Ring) {
        let Some(log) = self.log else { return };
        for link in self.links.iter_mut().filter(|link| link.told < log.synced) {
            if let LinkState::Up { connection } = link.state
                && let Some(outgoing) = ring.outgoing(connection)
            {
                wire::encode_log(&log, outgoing);
                link.told = log.synced;
            }
        }
    }

    /// When [`Sockets::on_time`] is to be called next.
    pub(crate) fn next_timeout(&self) -> Time {
        let in_doubt = self.links.iter().filter(|link| link.is_in_doubt);
        let call_at = in_doubt.filter_map(|link| match link.state {
            LinkState::Down { until } => Some(until),
            LinkState::Calling { .. } | LinkState::Up { .. } => None,
        });
        call_at.fold(self.sweep_at, Time::min)
    }

    pub(crate) fn counters(&self) -> SocketCounters {
        self.counters
    }

    /// Takes in what has happened to a connection.
    pub(crate) fn on_event(&mut self, ring: &mut Ring, event: RingEvent, now: Time) {
        self.is_quiet = false;
        match event {
            RingEvent::Accepted(id, address) => {
                if self.connections.len() >= CONNECTIONS_MAX {
                    self.counters.refused += 1;
                    return ring.close(id);
                }
                let connection = self.stranger(Some(address), now);
                self.connections.insert(id, connection);
                ring.receive(id);
            }
            RingEvent::Connected(id) => self.greet(ring, id),
            RingEvent::Received(id, piece) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.reader.push(piece);
                    self.read(ring, id, now);
                }
            }
            RingEvent::Sent(id, _) => match self.connections.get(&id).map(|c| c.stage) {
                Some(ConnectionStage::Refused { .. }) => self.close(ring, id),
                Some(ConnectionStage::Link(link)) => self.links[link].moved_at = now,
                Some(ConnectionStage::Client { .. }) => {
                    let connection = self.connections.get_mut(&id);
                    if connection.is_some_and(|it| std::mem::take(&mut it.is_held)) {
                        self.read(ring, id, now);
                    }
                }
                Some(
                    ConnectionStage::Stranger { .. }
                    | ConnectionStage::Peer { .. }
                    | ConnectionStage::Status,
                )
                | None => {}
            },
            RingEvent::Closed(id, reason) => {
                let connection = self.connections.remove(&id);
                if let Some(ConnectionStage::Link(link)) = connection.map(|c| c.stage) {
                    let nobody_is_there =
                        reason == CloseReason::ConnectFailed(io::ErrorKind::ConnectionRefused);
                    self.link_down(link, now, &describe(&reason));
                    if nobody_is_there && std::mem::take(&mut self.links[link].is_in_doubt) {
                        self.on_gone(ring, link);
                    }
                }
            }
        }
    }

    /// Takes in all whole frames that a connection has sent.
    fn read(&mut self, ring: &mut Ring, id: ConnectionId, now: Time) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            // Read no further, a client is slowed (R29): until there is room, or it has an answer.
            if let ConnectionStage::Client { commands } = connection.stage {
                if commands >= CLIENT_COMMANDS_MAX {
                    return;
                }
                if self.room == 0 {
                    return self.stalled.push_back(id);
                }
                if ring.outgoing(id).is_some_and(|o| o.len() > CLIENT_BYTES_HELD) {
                    connection.is_held = true;
                    return;
                }
            }
            let copied_bytes = connection.reader.copied_bytes();
            let frame = connection.reader.next();
            self.counters.copied_bytes += connection.reader.copied_bytes() - copied_bytes;
            let message = match frame {
                None => return ring.receive(id),
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            match (&mut connection.stage, message) {
                (ConnectionStage::Peer { .. }, Ok(Message::Envelope(envelope))) => {
                    self.incoming.push_back(Incoming::Envelope(envelope));
                }
                (ConnectionStage::Peer { .. }, Ok(Message::Log(log))) => {
                    self.on_log(ring, id, log, now);
                }
                (
                    ConnectionStage::Client { commands },
                    Ok(Message::Command { number, command }),
                ) => {
                    *commands += 1;
                    self.room -= 1;
                    self.incoming.push_back(Incoming::Command { from: id, number, command });
                }
                (
                    ConnectionStage::Client { .. } | ConnectionStage::Status,
                    Ok(Message::StatusRequest),
                ) => self.incoming.push_back(Incoming::StatusRequest(id)),
                (ConnectionStage::Stranger { .. }, Ok(Message::Hello(hello))) => {
                    if !self.admit(ring, id, hello, now) {
                        return;
                    }
                }
                (ConnectionStage::Link(link), Ok(Message::Welcome(welcome))) => {
                    let link = *link;
                    self.on_welcome(ring, (link, id), &welcome, now);
                }
                (
                    ConnectionStage::Link(_) | ConnectionStage::Peer { .. },
                    Ok(Message::Refusal(refusal)),
                ) => return self.on_refusal(ring, id, &refusal, now),
                (ConnectionStage::Refused { .. }, _) => {} // hears the reason, and is gone
                (ConnectionStage::Stranger { .. }, Err(WireError::Versions { min, max })) => {
                    self.refuse(ring, id, other_versions(min, max), now);
                }
                (ConnectionStage::Stranger { .. }, Err(WireError::WireDigest { .. })) => {
                    self.refuse(ring, id, other_wire(), now);
                }
                (_, Ok(_)) => return self.malformed(ring, id, now, "says what is not its to say"),
                (_, Err(error)) => return self.malformed(ring, id, now, &error.to_string()),
            }
        }
    }

    /// The life that a link led to has ended: what it has said and is not read yet counts no more, or its last heartbeat
    /// would be heard after its end.
    fn on_gone(&mut self, ring: &mut Ring, link: usize) {
        let Some(gone) = self.links[link].life.take() else { return };
        let is_of_it = |stage| match stage {
            ConnectionStage::Peer { life, .. } => life == gone,
            ConnectionStage::Link(_)
            | ConnectionStage::Stranger { .. }
            | ConnectionStage::Client { .. }
            | ConnectionStage::Status
            | ConnectionStage::Refused { .. } => false,
        };
        let of_it = self.connections.iter().filter(|(_, connection)| is_of_it(connection.stage));
        for id in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(ring, id);
        }
        self.incoming.push_back(Incoming::Gone { link });
    }

    /// Takes in how far the log of a node is by now that has connected.
    fn on_log(&mut self, ring: &mut Ring, id: ConnectionId, log: LogPosition, now: Time) {
        let stage = self.connections.get(&id).map(|connection| connection.stage);
        let Some(ConnectionStage::Peer { node, life }) = stage else { return };
        if let Some(refusal) = self.see(life, log) {
            self.tell_refused_node(node, &refusal);
            self.refuse(ring, id, refusal, now);
        }
    }

    /// A link is up, unless whom it leads to has a log that is an older copy: then that one is told.
    fn on_welcome(
        &mut self,
        ring: &mut Ring,
        (link, id): (usize, ConnectionId),
        welcome: &Welcome,
        now: Time,
    ) {
        if self.links[link].life.is_some_and(|life| life != welcome.nonce) {
            self.on_gone(ring, link);
        }
        match welcome.log.and_then(|log| self.see(welcome.nonce, log)) {
            Some(refusal) => {
                self.tell_refused_node(self.links[link].remote.node, &refusal);
                self.refuse(ring, id, refusal, now);
                self.link_down(link, now, "its log is an older copy");
            }
            None => self.link_up(link, id, welcome.nonce, now),
        }
    }

    /// Looks at who a stranger says it is; returns whether its connection stays here.
    fn admit(&mut self, ring: &mut Ring, id: ConnectionId, hello: Hello, now: Time) -> bool {
        if let Some(refusal) = self.objection(&hello) {
            self.tell_refused(&hello, &refusal);
            self.refuse(ring, id, refusal, now);
            return true;
        }
        let core = match hello.purpose {
            Purpose::Peer { to_core, .. } => to_core,
            Purpose::Client => self.identity.gateway_core.unwrap_or(self.identity.core),
            Purpose::Status => self.identity.core,
        };
        if core != self.identity.core {
            let connection = self.connections.remove(&id).map(Box::new);
            if let (Some(connection), Some(socket)) = (connection, ring.release(id)) {
                let visitor = Visitor { socket, hello, connection };
                self.incoming.push_back(Incoming::HandOver { core, visitor });
            }
            return false;
        }
        match self.see_hello(&hello) {
            Some(refusal) => {
                self.tell_refused(&hello, &refusal);
                self.refuse(ring, id, refusal, now);
            }
            None => self.welcome(ring, id, &hello),
        }
        true
    }

    /// Takes in where the log of a core stands that calls us; or why it is refused.
    fn see_hello(&mut self, hello: &Hello) -> Option<Refusal> {
        self.see(hello.nonce, hello.log?)
    }

    /// Takes in where another core's log stands, in that life of it; or why it is refused.
    ///
    /// source: R33
    fn see(&mut self, life: u64, log: LogPosition) -> Option<Refusal> {
        let older = self.sightings.see(life, log).err()?;
        Some(Refusal { reason: Reason::Older, text: older.to_string() })
    }

    /// Another node refuses us. If it knows our log for an older copy, acceptors that live by that log must stop, and we
    /// speak of it no more.
    ///
    /// source: R33
    fn on_refusal(&mut self, ring: &mut Ring, id: ConnectionId, refusal: &Refusal, now: Time) {
        let stage = self.connections.get(&id).map(|connection| connection.stage);
        let is_link = matches!(stage, Some(ConnectionStage::Link(_)));
        let is_older = refusal.reason == Reason::Older;
        if !is_link && !is_older {
            return self.malformed(ring, id, now, "says what is not its to say");
        }
        if is_older && self.log.take().is_some() {
            self.incoming.push_back(Incoming::Outdated { why: refusal.text.clone() });
        }
        self.close(ring, id);
        if let Some(ConnectionStage::Link(link)) = stage {
            self.link_down(link, now, &refused_us(refusal));
        }
    }

    /// Tells whoever runs this node of a node that it refuses: once, since that one calls again and again.
    fn tell_refused(&mut self, hello: &Hello, refusal: &Refusal) {
        if let Purpose::Peer { from_node: node, .. } = hello.purpose {
            self.tell_refused_node(node, refusal);
        }
    }

    fn tell_refused_node(&mut self, node: u8, refusal: &Refusal) {
        let refused = (node, refusal.reason);
        if !self.refused_nodes.contains(&refused) {
            warn!(node, reason = refusal.text, "refused a node");
            self.refused_nodes.push(refused);
        }
    }

    /// Tells a connection why it is refused, and closes it once that is sent.
    fn refuse(&mut self, ring: &mut Ring, id: ConnectionId, refusal: Refusal, now: Time) {
        self.counters.refused += 1;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        info!(address = ?connection.address, reason = refusal.text, "refused a connection");
        connection.stage = ConnectionStage::Refused { since: now };
        if let Some(outgoing) = ring.outgoing(id) {
            wire::encode_refusal(&refusal, outgoing);
        }
    }

    /// Why we have nothing to say to whoever sent `hello`, if so.
    ///
    /// source: R3, R4
    fn objection(&self, hello: &Hello) -> Option<Refusal> {
        let ours = &self.identity;
        let refuse = |reason, text: String| Some(Refusal { reason, text });
        if hello.wire_digest != wire::wire_digest() {
            return Some(other_wire());
        }
        let is_peer = matches!(hello.purpose, Purpose::Peer { .. });
        if hello.cluster_name != ours.cluster_name && (is_peer || !hello.cluster_name.is_empty()) {
            let text =
                format!("this is cluster `{}`, not `{}`", ours.cluster_name, hello.cluster_name);
            return refuse(Reason::Cluster, text);
        }
        if is_peer && hello.cluster_digest != ours.digest {
            let text = "our configurations differ: roles, limits, nodes or placement";
            return refuse(Reason::Digest, text.to_owned());
        }
        if let (Some(theirs), Some(our)) = (hello.formation, self.formation)
            && theirs != our
        {
            let text = "we belong to another formation of the cluster: one of us has forgotten";
            return refuse(Reason::Formation, text.to_owned());
        }
        let is_client = |connection: &&Connection| {
            matches!(connection.stage, ConnectionStage::Client { .. } | ConnectionStage::Status)
        };
        if !is_peer && self.connections.values().filter(is_client).count() >= CLIENTS_MAX {
            return refuse(Reason::Busy, format!("{CLIENTS_MAX} clients are connected"));
        }
        match hello.purpose {
            Purpose::Peer { to_node, .. } if to_node != ours.node => {
                refuse(Reason::Node, "you were looking for another node".to_owned())
            }
            Purpose::Peer { to_core, .. } if to_core > ours.core_last => {
                refuse(Reason::Node, format!("this node has no core {to_core}"))
            }
            Purpose::Client if ours.gateway_core.is_none() => {
                refuse(Reason::Node, "this node has no gateway: ask one that has".to_owned())
            }
            Purpose::Peer { .. } | Purpose::Client | Purpose::Status => None,
        }
    }

    fn welcome(&mut self, ring: &mut Ring, id: ConnectionId, hello: &Hello) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.stage = match hello.purpose {
            Purpose::Peer { from_node: node, .. } => {
                connection.reader.set_frame_bytes_max(PEER_FRAME_BYTES_MAX);
                ConnectionStage::Peer { node, life: hello.nonce }
            }
            Purpose::Client => ConnectionStage::Client { commands: 0 },
            Purpose::Status => ConnectionStage::Status,
        };
        let welcome = Welcome {
            version: wire::WIRE_VERSION,
            nonce: self.identity.nonce,
            formation: self.formation,
            log: self.log.filter(|_| matches!(hello.purpose, Purpose::Peer { .. })),
            commands_in_flight_max: CLIENT_COMMANDS_MAX,
            command_bytes_max: self.identity.command_bytes_max,
        };
        if let Some(outgoing) = ring.outgoing(id) {
            wire::encode_welcome(&welcome, outgoing);
        }
        ring.receive(id);
    }

    /// Says who we are to whom we have called.
    fn greet(&mut self, ring: &mut Ring, id: ConnectionId) {
        let stage = self.connections.get(&id).map(|connection| connection.stage);
        let Some(ConnectionStage::Link(link)) = stage else { return };
        self.links[link].told = self.log.map_or(0, |log| log.synced);
        let remote = &self.links[link].remote;
        let hello = Hello {
            wire_digest: wire::wire_digest(),
            versions: (wire::WIRE_VERSION, wire::WIRE_VERSION),
            cluster_name: self.identity.cluster_name.clone(),
            cluster_digest: self.identity.digest,
            formation: self.formation,
            nonce: self.identity.nonce,
            log: self.log,
            purpose: Purpose::Peer {
                from_node: self.identity.node,
                from_core: self.identity.core,
                to_node: remote.node,
                to_core: remote.core,
            },
        };
        if let Some(outgoing) = ring.outgoing(id) {
            wire::encode_hello(&hello, outgoing);
        }
        ring.receive(id);
    }

    fn call(&mut self, ring: &mut Ring, link: usize, now: Time) {
        match ring.connect(self.links[link].remote.address) {
            Ok(id) => {
                self.links[link].state = LinkState::Calling { connection: id, since: now };
                let connection = Connection {
                    stage: ConnectionStage::Link(link),
                    ..self.stranger(Some(self.links[link].remote.address), now)
                };
                self.connections.insert(id, connection);
            }
            Err(error) => self.link_down(link, now, &error.to_string()),
        }
    }

    fn link_up(&mut self, link: usize, connection: ConnectionId, life: u64, now: Time) {
        let link = &mut self.links[link];
        (link.life, link.is_in_doubt) = (Some(life), false);
        link.state = LinkState::Up { connection };
        (link.back_off, link.moved_at) = (BACK_OFF.0, now);
        if std::mem::take(&mut link.is_reported) {
            info!(node = link.remote.name, address = %link.remote.address, "reached again");
        }
    }

    /// Says so once, and not before whoever has just started has had its time to listen.
    fn link_down(&mut self, link: usize, now: Time, why: &str) {
        let link = &mut self.links[link];
        let was_up = matches!(link.state, LinkState::Up { .. });
        if was_up {
            (link.is_in_doubt, link.back_off) = (true, DOUBT_BACK_OFF);
        }
        link.state = LinkState::Down { until: now + link.back_off };
        link.back_off = (2 * link.back_off).min(BACK_OFF.1);
        link.is_in_doubt &= link.back_off < BACK_OFF.1;
        let is_news = was_up || link.back_off == BACK_OFF.1;
        if is_news && !std::mem::replace(&mut link.is_reported, true) {
            warn!(node = link.remote.name, address = %link.remote.address, why, "cannot be reached");
        }
    }

    fn malformed(&mut self, ring: &mut Ring, id: ConnectionId, now: Time, why: &str) {
        self.counters.malformed += 1;
        let connection = self.connections.get(&id);
        let address = connection.and_then(|connection| connection.address);
        info!(?address, why, "closed a connection");
        let stage = connection.map(|connection| connection.stage);
        self.close(ring, id);
        if let Some(ConnectionStage::Link(link)) = stage {
            self.link_down(link, now, why);
        }
    }

    fn close(&mut self, ring: &mut Ring, id: ConnectionId) {
        self.connections.remove(&id);
        ring.close(id);
    }

    fn stranger(&self, address: Option<SocketAddr>, now: Time) -> Connection {
        Connection {
            reader: FrameReader::new(self.identity.frame_bytes_max),
            stage: ConnectionStage::Stranger { since: now },
            address,
            is_held: false,
        }
    }
}
