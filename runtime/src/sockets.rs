//! The sockets of a core: links to cores of other nodes, and the connections of clients. The core's
//! ring, which they are on, is an argument.
//!
//! ```text
//!   this core                                        a core of another node
//!   link ──── connect, Hello ───────────────────────▶ the core that listens, which hands the
//!        ◀─── Welcome, or a Refusal with a reason ──── socket to the core that Hello names
//!        ──── frames, for as long as it lives ───────▶ that core's roles
//! ```
//!
//! A connection that says anything but what is expected of it is closed.

mod budget;
mod clients;
mod connections;
mod handshake;
mod links;
mod sightings;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loggos_net::wire::{
    self, BatchPool, Hello, LogPosition, Message, Purpose, Reason, Refusal, RepliesWriter,
    WireError,
};
use loggos_net::{CloseReason, ConnectionId, Ring, RingEvent};
use loggos_protocol::{Envelope, FormationId, LoggedCommand, Payload, ReadLevel, RunOwner, Time};
use tracing::{info, warn};

use self::budget::Budget;
pub(crate) use self::budget::Charge;
use self::clients::Pause;
use self::connections::{Asked, Connection, Party, Stage};
pub(crate) use self::connections::{CLIENTS_MAX, HandedOver, STATUS_MAX, STRANGERS_MAX};
pub(crate) use self::handshake::NodeIdentity;
use self::handshake::{Admission, Handshake, Parties, other_versions, other_wire};
use self::links::Link;
pub(crate) use self::links::Remote;
use crate::callers::{RemoteCall, RemoteName};

/// The interval of checks for what has taken too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two ticks by which a stop of this process is known: a core sleeps for less.
const STOPPED_MIN: Duration = Duration::from_secs(1);

/// Something that came in over the sockets.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A message for a role of this core.
    Envelope(Envelope),
    /// A client's command.
    Command { call: RemoteCall, command: Payload },
    /// A read of a client.
    Read { call: RemoteCall, level: ReadLevel, query: Payload },
    /// A question for how the roles of this process stand.
    StatusRequest(ConnectionId),
    /// An operator wants a command skipped.
    Skip(LoggedCommand),
    /// A connection that belongs to another core of this node.
    HandOver { core: u8, handed_over: HandedOver },
    /// Another node has seen more of our log than we came back with, and says so (R33).
    Outdated { why: String },
    /// The process that this link led to has ended: it has closed the link, and a new call was
    /// refused or led to another life (R28).
    Gone { link: usize },
}

/// Counters of the sockets of a core. None ever goes down, but for `clients`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SocketCounters {
    /// Messages for other nodes that were dropped for want of a link or of room.
    pub dropped: u64,
    /// Connections closed for what they said.
    pub malformed: u64,
    /// Connections refused with a reason.
    pub refused: u64,
    /// Clients among them that were turned away for want of room.
    pub turned_away: u64,
    /// Connections that had not said what they are, and made room for others.
    pub evicted: u64,
    /// Clients that are connected.
    pub clients: usize,
    /// The most that may be.
    pub clients_max: usize,
    /// Bytes of frames that had not arrived in one piece, and were copied together.
    pub copied_bytes: u64,
}

/// All sockets of a core.
#[derive(Debug)]
pub(crate) struct Sockets {
    handshake: Handshake,
    links: Vec<Link>,
    connections: BTreeMap<ConnectionId, Connection>,
    parties: Parties,
    /// What clients hold.
    budget: Budget,
    /// Connections that were accepted and not welcomed, the oldest first.
    strangers: VecDeque<ConnectionId>,
    /// Has a copy in each connection that is on its way to another core.
    on_its_way: Arc<()>,
    /// Whether clients are turned away, and that was said.
    is_full: bool,
    /// Arrivals, until the core takes them; oldest first.
    incoming: VecDeque<Incoming>,
    /// The number of commands of clients that this tick still takes in.
    room: usize,
    /// Clients that were not read to the end for want of room.
    stalled: VecDeque<ConnectionId>,
    /// Clients with replies of this tick that are not on their way yet.
    answered: Vec<ConnectionId>,
    /// To be used again for the next.
    replies: Vec<RepliesWriter>,
    /// The time when the last tick began.
    tick_at: Time,
    /// The time to look next whether something has taken too long.
    sweep_at: Time,
    /// Whether nothing has happened since the last look.
    is_quiet: bool,
    batches: BatchPool,
    counters: SocketCounters,
}

/// Describes why a connection has ended, for a person.
pub(crate) fn describe(reason: &CloseReason) -> String {
    match reason {
        CloseReason::PeerClosed => "it closed the connection".to_owned(),
        CloseReason::Failed(kind) | CloseReason::ConnectFailed(kind) => kind.to_string(),
    }
}

/// Describes the end of a connection whose other end has refused us.
pub(crate) fn refused_us(refusal: &Refusal) -> String {
    format!("it refuses us: {}", refusal.text)
}

impl Sockets {
    /// Starts without a connection: links to `remotes` are called once there is something to say,
    /// or once it is time. `batches_max` batches may be held at once; `logs_max` logs of other
    /// cores are remembered.
    pub(crate) fn new(
        identity: NodeIdentity,
        remotes: &[Remote],
        batches_max: usize,
        logs_max: usize,
    ) -> Self {
        Self {
            handshake: Handshake::new(identity, logs_max),
            links: remotes.iter().cloned().map(Link::new).collect(),
            connections: BTreeMap::new(),
            parties: Parties::default(),
            budget: Budget::default(),
            strangers: VecDeque::new(),
            on_its_way: Arc::new(()),
            is_full: false,
            incoming: VecDeque::new(),
            room: 0,
            stalled: VecDeque::new(),
            answered: Vec::new(),
            replies: Vec::new(),
            tick_at: Time(0),
            sweep_at: Time(0),
            is_quiet: true,
            batches: BatchPool::new(batches_max),
            counters: SocketCounters::default(),
        }
    }

    /// The formation that was named by [`Sockets::set_formation`].
    pub(crate) fn formation(&self) -> Option<FormationId> {
        self.handshake.formation()
    }

    /// Names the formation that roles of this core belong to: the first one, for good (R4).
    pub(crate) fn set_formation(&mut self, formation: Option<FormationId>) {
        self.handshake.set_formation(formation);
    }

    /// Takes in the position of this core's log (R33); `None` if it has no log, or one that has
    /// stopped.
    pub(crate) fn set_log(&mut self, log: Option<LogPosition>) {
        self.handshake.set_log(log);
    }

    /// Begins a tick that takes in no more than `room` commands of clients. Those clients that were
    /// not read to the end are read on; the one that has waited longest is the first.
    pub(crate) fn begin_tick(&mut self, ring: &mut Ring, room: usize, now: Time) {
        self.room = room;
        if now.since(self.tick_at) > STOPPED_MIN {
            // This process was stopped itself: that links have sent nothing shows nothing.
            self.links.iter_mut().for_each(|link| link.note_progress(now));
        }
        self.tick_at = now;
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

    /// Takes a connection over from another core.
    pub(crate) fn adopt(&mut self, ring: &mut Ring, handed_over: HandedOver, now: Time) {
        let HandedOver { socket, hello, connection, on_its_way } = handed_over;
        match ring.adopt(socket) {
            Ok(id) => {
                self.connections.insert(id, *connection);
                self.on_hello(ring, id, hello, now);
                self.stalled.push_back(id); // what came behind the hello is read next
            }
            Err(error) => warn!(%error, "cannot take a connection over from another core"),
        }
        drop(on_its_way);
    }

    /// Calls links that are in doubt, and ends what has taken too long, if it is time to look.
    pub(crate) fn on_time(&mut self, ring: &mut Ring, now: Time) {
        for link in 0..self.links.len() {
            if self.links[link].is_doubt_due(now) {
                self.call(ring, link, now);
            }
        }
        if now >= self.sweep_at {
            self.sweep(ring, now);
        }
    }

    fn sweep(&mut self, ring: &mut Ring, now: Time) {
        self.sweep_at = now + SWEEP_INTERVAL;
        if std::mem::replace(&mut self.is_quiet, true) {
            self.batches.release(); // unused batches keep no receive buffer
        }
        self.sweep_links(ring, now);
        let late = self.connections.iter().filter(|(_, connection)| connection.is_late(now));
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(ring, id);
        }
        self.tell_log(ring);
    }

    /// The time when [`Sockets::on_time`] is to be called next.
    pub(crate) fn next_timeout(&self) -> Time {
        self.links.iter().filter_map(Link::doubt_due_at).fold(self.sweep_at, Time::min)
    }

    pub(crate) fn counters(&self) -> SocketCounters {
        let (clients, clients_max) = (self.parties.clients, self.handshake.clients_max());
        SocketCounters { clients, clients_max, ..self.counters }
    }

    /// Takes in what has happened to a connection.
    pub(crate) fn on_event(&mut self, ring: &mut Ring, event: RingEvent, now: Time) {
        self.is_quiet = false;
        match event {
            RingEvent::Accepted(id, address) => {
                // A peer says hello at once: those that say nothing are the oldest before long.
                while self.strangers.len() >= self.handshake.strangers_max() {
                    let Some(oldest) = self.strangers.front() else { break };
                    self.counters.evicted += 1;
                    self.close(ring, *oldest);
                }
                self.strangers.push_back(id);
                self.insert(id, Stage::Unknown { since: now }, address);
                ring.receive(id);
            }
            RingEvent::Connected(id) => self.greet(ring, id),
            RingEvent::Received(id, piece) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.reader.push(piece);
                    self.read(ring, id, now);
                }
            }
            RingEvent::Sent(id, _) | RingEvent::SentPart(id) => self.on_sent(ring, id, now),
            RingEvent::Closed(id, reason) => {
                let connection = self.remove(id);
                let Some(link) = connection.and_then(|it| it.link()) else { return };
                self.links[link].on_end(now, &describe(&reason));
                let refused = CloseReason::ConnectFailed(io::ErrorKind::ConnectionRefused);
                if reason == refused && self.links[link].on_refused() {
                    self.on_gone(ring, link);
                }
            }
        }
    }

    fn on_sent(&mut self, ring: &mut Ring, id: ConnectionId, now: Time) {
        let Some(connection) = self.connections.get(&id) else { return };
        match connection.stage {
            Stage::Refused { .. } => {
                // Else this was an earlier send, and the refusal is in the next.
                if ring.unsent_bytes(id) == 0 {
                    self.close(ring, id);
                }
            }
            Stage::Link(link) => self.links[link].note_progress(now),
            Stage::Admitted(_) => self.on_answers_sent(ring, id, now),
            Stage::Unknown { .. } => {}
        }
    }

    /// Takes in all whole frames that a connection has sent.
    fn read(&mut self, ring: &mut Ring, id: ConnectionId, now: Time) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            // Read no further, a client is slowed (R29).
            loop {
                match connection.pause(&self.budget, self.room) {
                    None => {}
                    Some(Pause::ForShare) => return, // an answer, or its way out, ends that
                    Some(Pause::ForRoom) => return self.stalled.push_back(id),
                }
                let (name, level, bytes) = match connection.next_asked() {
                    None => break,
                    Some(Ok(asked)) => asked,
                    Some(Err(why)) => return self.on_malformed(ring, id, now, why),
                };
                self.room -= 1;
                let charge = self.budget.charge(&mut connection.account, bytes.len());
                let call = RemoteCall { connection: id, name, charge };
                self.incoming.push_back(match level {
                    None => Incoming::Command { call, command: bytes },
                    Some(level) => Incoming::Read { call, level, query: bytes },
                });
            }
            connection.asked = None;
            let copied_bytes = connection.reader.copied_bytes();
            let frame = connection.reader.next();
            self.counters.copied_bytes += connection.reader.copied_bytes() - copied_bytes;
            let message = match frame {
                None => return ring.receive(id),
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            match (&mut connection.stage, message) {
                (Stage::Admitted(Party::Peer { .. }), Ok(Message::Envelope(envelope))) => {
                    self.incoming.push_back(Incoming::Envelope(envelope));
                }
                (Stage::Admitted(Party::Peer { node, life }), Ok(Message::Log(log))) => {
                    if let Err(refusal) = self.handshake.see(*life, log) {
                        self.handshake.report_refused(*node, &refusal);
                        self.refuse(ring, id, refusal, now);
                    }
                }
                (Stage::Admitted(Party::Client), Ok(Message::Commands(commands))) => {
                    connection.asked = Some(Asked::Commands(commands));
                }
                (Stage::Admitted(Party::Client), Ok(Message::Reads(reads))) => {
                    connection.asked = Some(Asked::Reads(reads));
                }
                (Stage::Admitted(Party::Client), Ok(Message::Session { session, key })) => {
                    connection.session = session;
                    if session.is_none() {
                        self.room = self.room.saturating_sub(1);
                        let charge = self.budget.charge(&mut connection.account, 0);
                        let name = RemoteName::Command(RunOwner::NewClient { key });
                        let call = RemoteCall { connection: id, name, charge };
                        let command = Payload::copy(b"");
                        self.incoming.push_back(Incoming::Command { call, command });
                    }
                }
                (Stage::Admitted(Party::Status), Ok(Message::Skip(command))) => {
                    self.incoming.push_back(Incoming::Skip(command));
                }
                (Stage::Admitted(Party::Client | Party::Status), Ok(Message::StatusRequest)) => {
                    self.incoming.push_back(Incoming::StatusRequest(id));
                }
                (Stage::Refused { .. }, _) => {} // it is closed once the refusal is sent
                (_, message) => self.on_other(ring, id, message, now),
            }
        }
    }

    /// Takes in the messages of a handshake, and closes the connection on any other that is
    /// unexpected.
    fn on_other(
        &mut self,
        ring: &mut Ring,
        id: ConnectionId,
        message: Result<Message, WireError>,
        now: Time,
    ) {
        let Some(connection) = self.connections.get(&id) else { return };
        match (connection.stage, message) {
            (Stage::Unknown { .. }, Ok(Message::Hello(hello))) => {
                self.on_hello(ring, id, hello, now);
            }
            (Stage::Unknown { .. }, Err(WireError::Versions { min, max })) => {
                self.refuse(ring, id, other_versions(min, max), now);
            }
            (Stage::Unknown { .. }, Err(WireError::WireDigest { .. })) => {
                self.refuse(ring, id, other_wire(), now);
            }
            (Stage::Link(link), Ok(Message::Welcome(welcome))) => {
                self.on_welcome(ring, link, &welcome, now);
            }
            (Stage::Link(link), Ok(Message::Refusal(refusal))) => {
                self.note_older(&refusal);
                self.close(ring, id);
                self.links[link].on_end(now, &refused_us(&refusal));
            }
            (Stage::Admitted(Party::Peer { .. }), Ok(Message::Refusal(refusal)))
                if refusal.reason == Reason::Older =>
            {
                self.note_older(&refusal);
                self.close(ring, id);
            }
            (_, Ok(_)) => self.on_malformed(ring, id, now, "unexpected message"),
            (_, Err(error)) => self.on_malformed(ring, id, now, &error.to_string()),
        }
    }

    /// A connection says who it is: it is refused, welcomed, or handed to another core.
    fn on_hello(&mut self, ring: &mut Ring, id: ConnectionId, hello: Hello, now: Time) {
        match self.handshake.judge(&hello, self.parties) {
            Ok(Admission::Here(party)) => {
                // As if it were another: what it counts as has changed.
                if let Some(mut connection) = self.remove(id) {
                    connection.admit(party, now);
                    self.connections.insert(id, connection);
                }
                match party {
                    Party::Client => self.parties.clients += 1,
                    Party::Status => self.parties.asking += 1,
                    Party::Peer { .. } => {}
                }
                if let Some(outgoing) = ring.outgoing(id) {
                    wire::encode_welcome(&self.handshake.welcome(party), outgoing);
                }
                ring.receive(id);
            }
            // That core may stand still: it counts its clients once it looks at them.
            Ok(Admission::Elsewhere { .. })
                if hello.purpose == Purpose::Client
                    && Arc::strong_count(&self.on_its_way) > self.handshake.strangers_max() =>
            {
                let text = "too many clients are on their way to the gateway's core".to_owned();
                let refusal = Refusal { reason: Reason::Busy, text };
                self.note_turned_away(&refusal);
                self.refuse(ring, id, refusal, now);
            }
            Ok(Admission::Elsewhere { core }) => {
                let Some(connection) = self.remove(id).map(Box::new) else { return };
                let Some(socket) = ring.release(id) else {
                    return ring.close(id); // something was sent to it, which is not in its turn
                };
                let on_its_way = Arc::clone(&self.on_its_way);
                let handed_over = HandedOver { socket, hello, connection, on_its_way };
                self.incoming.push_back(Incoming::HandOver { core, handed_over });
            }
            Err(refusal) => {
                match hello.purpose {
                    Purpose::Peer { from_node, .. } => {
                        self.handshake.report_refused(from_node, &refusal);
                    }
                    Purpose::Client if refusal.reason == Reason::Busy => {
                        self.note_turned_away(&refusal);
                    }
                    Purpose::Client | Purpose::Status => {}
                }
                self.refuse(ring, id, refusal, now);
            }
        }
    }

    /// If another node refuses us because our log is an older copy, the acceptors of that log must
    /// stop, and this core tells no node of that log any more.
    ///
    /// source: R33
    fn note_older(&mut self, refusal: &Refusal) {
        if refusal.reason == Reason::Older && self.handshake.log().is_some() {
            self.handshake.set_log(None);
            self.incoming.push_back(Incoming::Outdated { why: refusal.text.clone() });
        }
    }

    /// Tells a connection why it is refused, and closes it once that is sent.
    fn refuse(&mut self, ring: &mut Ring, id: ConnectionId, refusal: Refusal, now: Time) {
        self.counters.refused += 1;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !matches!(refusal.reason, Reason::Busy | Reason::Unserved) {
            info!(address = %connection.address, reason = refusal.text, "refused a connection");
        }
        connection.stage = Stage::Refused { since: now };
        if let Some(outgoing) = ring.outgoing(id) {
            wire::encode_refusal(&refusal, outgoing);
        }
    }

    /// A client is refused for want of room: that is said once, until there is some again.
    fn note_turned_away(&mut self, refusal: &Refusal) {
        self.counters.turned_away += 1;
        if !std::mem::replace(&mut self.is_full, true) {
            warn!("clients are turned away: {}", refusal.text);
        }
    }

    /// A connection has said what it may not: it is closed.
    fn on_malformed(&mut self, ring: &mut Ring, id: ConnectionId, now: Time, why: &str) {
        self.counters.malformed += 1;
        let Some(connection) = self.remove(id) else { return };
        info!(address = %connection.address, why, "closed a connection");
        ring.close(id);
        if let Some(link) = connection.link() {
            self.links[link].on_end(now, why);
        }
    }

    fn insert(&mut self, id: ConnectionId, stage: Stage, address: SocketAddr) {
        let connection = Connection::new(stage, address, self.handshake.frame_bytes_max());
        self.connections.insert(id, connection);
    }

    fn close(&mut self, ring: &mut Ring, id: ConnectionId) {
        self.remove(id);
        ring.close(id);
    }

    /// Forgets a connection, and what it has counted as.
    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        self.budget.close(&connection.account);
        match connection.party() {
            Some(Party::Client) => {
                self.parties.clients -= 1;
                // At the limit clients come and go: that is said once.
                self.is_full &= self.parties.clients * 10 >= self.handshake.clients_max() * 9;
            }
            Some(Party::Status) => self.parties.asking -= 1,
            Some(Party::Peer { .. }) => {}
            None if connection.is_stranger() => self.strangers.retain(|it| *it != id),
            None => {}
        }
        Some(connection)
    }
}
