//! All sockets of a core on one `io_uring`: accepted, connected, received and sent without a system
//! call each; and the writes of its log.
//!
//! ```text
//!   of a tick                the ring                                  the kernel
//!   poll      ◀── events ─── takes completions
//!   receive   ─────────────▶ queues a receive of this connection
//!   outgoing  ── frames ───▶ gathers what this connection sends next
//!   write     ─────────────▶ queues a write to a file, which is a sync, too
//!   next_written ◀ ends ──── keeps what poll found
//!   flush     ─────────────▶ queues one send a connection; one enter ─▶ all that is queued
//!   sleep     ─────────────▶ waits for a completion, or the alarm   ◀── the first that comes
//! ```
//!
//! A socket operation costs about as much for a byte as for 8 KiB, and a system call comes on top:
//! so all frames that a tick has for a connection leave with one send, and all queued operations
//! with one `enter`. A send that was only done in part goes on before anything newer.
//!
//! Nothing is received unless it was asked for. The core that has handled a piece asks for more, or
//! stops reading, or gives the socket to another core; no operation is under way that would have to
//! be undone.
//!
//! # Memory
//!
//! Each connection receives into a buffer of [`RingOptions::receive_bytes`] and hands out counted
//! pieces of it. A buffer of which no piece is held is used again from its start. While pieces are
//! held, it is filled up to seven eighths; then it is left to the holders and replaced, by a buffer
//! that was left earlier and is free again, if there is one. So a connection has one buffer, plus
//! those of which pieces are held. A held piece keeps up to `receive_bytes` alive: copy a small
//! piece that is kept for long.
//!
//! A send keeps its bytes and payloads until the kernel has taken the last of them. How much waits
//! behind it is bounded by the caller that appends.

mod buffers;
mod completion;
mod connection;
mod files;
mod gather;
#[expect(unsafe_code, reason = "the kernel works on memory that is lent to it")]
mod operations;
mod options;
mod record;
mod socket;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use io_uring::types::Timespec;
use rustix::net::{SocketAddrAny, sockopt};

use self::buffers::ReceiveBuffers;
use self::connection::{Connecting, Connection, Seat};
use self::files::{FileWrite, OpenFile};
use self::operations::{Operation, Operations, Timer};
use self::options::refusal;
use self::socket::{new_socket, prepare};
use crate::Outgoing;

pub use self::files::{AlignedBytes, RingFile, Written};
pub use self::options::RingOptions;
pub use self::record::RingRecord;

/// The longest time until a connection has come about.
pub const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Names a connection of one ring. A closed connection's name is never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId {
    index: u32,
    generation: u32,
}

/// An event of a connection.
///
/// Of a connection that was closed or released since, events can still come out of the same
/// [`poll`](Ring::poll): its name is dead by then, and everything done with it is ignored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RingEvent {
    /// A listener has a new connection, from there. It is not received from yet.
    Accepted(ConnectionId, SocketAddr),
    /// A connection has come about. It is not received from yet.
    Connected(ConnectionId),
    /// Bytes have come, at least one. Nothing more is received until that is asked for.
    Received(ConnectionId, Bytes),
    /// The kernel has taken all bytes of a send; their number.
    Sent(ConnectionId, usize),
    /// The kernel has taken some bytes of a send, and is at the next of them.
    SentPart(ConnectionId),
    /// A connection has ended, or was not established; its name is dead. Bytes that were not sent
    /// are lost, and those that were sent may be, too. Not reported for connections that
    /// [`close`](Ring::close) closes.
    Closed(ConnectionId, CloseReason),
}

/// The reason why a connection has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// The peer sends no more. That it might still read is not made use of.
    PeerClosed,
    /// It broke.
    Failed(io::ErrorKind),
    /// It did not come about, within [`CONNECT_MAX`] if the kind is
    /// [`TimedOut`](io::ErrorKind::TimedOut).
    ConnectFailed(io::ErrorKind),
}

/// Counters of a ring. None ever goes down.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RingCounters {
    /// Flushes that found something to send.
    pub flushes: u64,
    /// Sends, one a connection and flush; partial ones go on uncounted.
    pub sends: u64,
    /// Frames that left with them.
    pub sent_frames: u64,
    /// Bytes that were sent.
    pub sent_bytes: u64,
    /// Receives that brought something.
    pub receives: u64,
    /// Bytes that were received.
    pub received_bytes: u64,
    /// System calls that entered the ring.
    pub enters: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections that came about at our wish.
    pub connected: u64,
    /// Connections closed, by whomever.
    pub closed: u64,
    /// Receive buffers allocated.
    pub receive_buffers: u64,
    /// Writes to files that have completed and are durable.
    pub syncs: u64,
    /// Bytes of them.
    pub synced_bytes: u64,
}

/// The sockets of a core, the writes of its log, and its sleep. It stays on the thread that made
/// it: the kernel takes a polled ring's submissions from no other.
pub struct Ring {
    /// Dropped before the sockets that the kernel still uses.
    operations: Operations,
    seats: Vec<Seat>,
    vacant: Vec<u32>,
    listeners: Vec<OwnedFd>,
    files: Vec<OpenFile>,
    /// Writes that have ended, until they are taken; oldest first.
    written: VecDeque<Written>,
    /// Connections that the next flush looks at, each once.
    dirty: Vec<ConnectionId>,
    buffers: ReceiveBuffers,
    /// The eventfd that ends a sleep.
    alarm: Option<OwnedFd>,
    counters: RingCounters,
    /// Hears of every send and write, in order; in tests.
    recorder: Option<mpsc::Sender<RingRecord>>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.seats.len() - self.vacant.len();
        f.debug_struct("Ring")
            .field("connections", &connections)
            .field("listeners", &self.listeners.len())
            .field("files", &self.files.len())
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// Makes a ring for this thread.
    ///
    /// # Errors
    ///
    /// If the kernel has none for us: the text says what to set.
    pub fn new(options: &RingOptions) -> io::Result<Self> {
        let operations = Operations::new(options).map_err(|error| refusal(&error, options))?;
        Ok(Self {
            operations,
            seats: Vec::new(),
            vacant: Vec::new(),
            listeners: Vec::new(),
            files: Vec::new(),
            written: VecDeque::new(),
            dirty: Vec::new(),
            buffers: ReceiveBuffers::new(options.receive_bytes),
            alarm: None,
            counters: RingCounters::default(),
            recorder: None,
        })
    }

    /// Asks the kernel which operations it has, to see that it allows such questions.
    ///
    /// # Errors
    ///
    /// If it does not: the text says what to set.
    pub fn probe(&self) -> io::Result<()> {
        self.operations.probe().map_err(|error| refusal(&error, &RingOptions::default()))
    }

    /// Listens at `address`, for as long as there is this ring, and returns the address that it
    /// got: port 0 is any that is free. Without a descriptor or memory for another connection it
    /// accepts more after a pause.
    ///
    /// # Errors
    ///
    /// If it cannot be bound.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<SocketAddr> {
        let socket = new_socket(address)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
        self.listeners.push(socket);
        self.accept(self.listeners.len() - 1);
        Ok(bound)
    }

    /// Connects to `address`. What comes of it is told by [`RingEvent::Connected`] or
    /// [`RingEvent::Closed`]; what is appended to its [`Outgoing`] until then is sent after it.
    ///
    /// # Errors
    ///
    /// If there is no socket for it.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<ConnectionId> {
        let socket = new_socket(address)?;
        prepare(&socket)?;
        let id = self.seat(socket);
        let connection = live(&mut self.seats, id).expect("it was just seated");
        let to = Operation::Connect(id, Box::new(SocketAddrAny::from(address)));
        let connect = self.operations.start(to, Some(connection.socket.as_fd()));
        let timeout = Operation::Wait(Timer::Connect(id), Box::new(Timespec::from(CONNECT_MAX)));
        let timeout = self.operations.start(timeout, None);
        connection.connecting = Some(Connecting { connect, timeout });
        Ok(id)
    }

    /// Takes a connected socket over, from another core's ring or from anywhere.
    ///
    /// # Errors
    ///
    /// If it is not a TCP socket.
    pub fn adopt(&mut self, socket: OwnedFd) -> io::Result<ConnectionId> {
        // The kernel waits for us; of a non-blocking socket it would only tell us to come again.
        rustix::io::ioctl_fionbio(&socket, false)?;
        prepare(&socket)?;
        Ok(self.seat(socket))
    }

    /// Gives a connection's socket away, to be adopted by another ring, if nothing is under way on
    /// it: it is connected, no receive is armed and nothing sent or to be sent. Its name is dead
    /// then. Else returns `None` and changes nothing.
    pub fn release(&mut self, id: ConnectionId) -> Option<OwnedFd> {
        let connection = live(&mut self.seats, id)?;
        if connection.in_flight().next().is_some() || !connection.outgoing.is_empty() {
            return None;
        }
        self.unseat(id).map(|connection| connection.socket)
    }

    /// Receives from a connection, once. Nothing changes if it does so already.
    pub fn receive(&mut self, id: ConnectionId) {
        let Some(connection) = live(&mut self.seats, id) else { return };
        assert!(connection.connecting.is_none(), "a receive before there is a connection");
        if connection.receive.is_some() {
            return;
        }
        let buffer = self.buffers.with_room(connection.buffer.take());
        connection.start_receive(id, buffer, &mut self.operations);
    }

    /// Where to append what a connection sends with the next flush, or with the one after the send
    /// that is under way. `None` if its name is dead.
    pub fn outgoing(&mut self, id: ConnectionId) -> Option<&mut Outgoing> {
        let connection = live(&mut self.seats, id)?;
        connection.mark_dirty(id, &mut self.dirty);
        Some(&mut connection.outgoing)
    }

    /// Returns the number of bytes of a connection that the kernel has not taken yet; 0 if its name
    /// is dead. While an operation is at some of them, none of those has been taken.
    #[must_use]
    pub fn unsent_bytes(&mut self, id: ConnectionId) -> usize {
        live(&mut self.seats, id).map_or(0, |it| it.outgoing.len() + it.sending_bytes)
    }

    /// Starts a send for each connection that has something and is not sending, and submits all
    /// that is queued with one system call.
    pub fn flush(&mut self) {
        let mut dirty = mem::take(&mut self.dirty);
        let sends = self.counters.sends;
        for id in dirty.drain(..) {
            let Some(connection) = live(&mut self.seats, id) else { continue };
            connection.is_dirty = false;
            if connection.outgoing.is_empty() || connection.connecting.is_some() {
                continue; // once connected, or appended to, it is dirty again
            }
            let Some(mut gather) = connection.gather.take() else { continue };
            self.counters.sends += 1;
            self.counters.sent_frames += connection.outgoing.frames() as u64;
            record(self.recorder.as_ref(), || {
                RingRecord::Send(id, connection.outgoing.pieces().collect::<Vec<_>>().concat())
            });
            gather.load(&mut connection.outgoing);
            connection.start_send(id, gather, &mut self.operations);
        }
        self.dirty = dirty;
        self.counters.flushes += u64::from(self.counters.sends > sends);
        // What failed stays queued: the next poll tries again, and tells.
        drop(self.operations.submit());
    }

    /// Appends what has happened to connections to `events`, in order for each of them, and keeps
    /// the writes that have ended for [`next_written`](Ring::next_written). Never blocks.
    ///
    /// # Errors
    ///
    /// If the kernel takes nothing more from us; what had happened before is told all the same.
    pub fn poll(&mut self, events: &mut Vec<RingEvent>) -> io::Result<()> {
        let mut submitted = self.operations.submit();
        loop {
            let mut taken = 0;
            while let Some((operation, result)) = self.operations.next() {
                self.on_completion(operation, result, events);
                taken += 1;
            }
            // Taking them has made room for those that the queue had no room for.
            if taken == 0 || submitted.is_err() || !self.operations.is_held_back() {
                return submitted;
            }
            submitted = self.operations.submit();
        }
    }

    /// Closes a connection: what is under way is cancelled, what was not sent is lost, its name is
    /// dead. The peer hears of it once the kernel has let go, after the next flush or poll.
    pub fn close(&mut self, id: ConnectionId) {
        let Some(connection) = live(&mut self.seats, id) else { return };
        connection.is_closing = true;
        let timeout = connection.connecting.map(|connecting| connecting.timeout);
        for other in connection.in_flight().chain(timeout) {
            self.operations.start(Operation::Cancel(other), None);
        }
        self.counters.closed += 1;
        self.settle(id);
    }

    /// Takes a file in to be written to, for as long as there is this ring.
    ///
    /// A file open for direct I/O (`O_DIRECT`) takes offsets, lengths and memory in whole blocks
    /// only, and a write to it does not block this thread. Any other file would do, more slowly.
    pub fn add_file(&mut self, file: OwnedFd) -> RingFile {
        let place = u32::try_from(self.files.len()).expect("fewer files than descriptors");
        self.files.push(OpenFile::new(file));
        RingFile(place)
    }

    /// Writes all of `bytes` to a file at `offset`, and makes them durable; the kernel hears of it
    /// with the next flush or poll. [`Ring::next_written`] tells how it ended, once; until then the
    /// file takes no other.
    ///
    /// It is one operation (`RWF_DSYNC`): there is no write that succeeds beside a sync that does
    /// not. What was only written in part is written again from there, a few times.
    ///
    /// source: R31, R34
    pub fn write(&mut self, file: RingFile, offset: u64, bytes: AlignedBytes) {
        let open = &mut self.files[file.0 as usize];
        assert!(!open.is_busy, "one write at a time to a file");
        open.is_busy = true;
        let count = bytes.len();
        record(self.recorder.as_ref(), || RingRecord::Write { file, offset, bytes: count });
        let write = Operation::Write(FileWrite::new(file, offset, bytes));
        self.operations.start(write, Some(open.file.as_fd()));
    }

    /// Returns the oldest write that a [`poll`](Ring::poll) found to have ended, with the memory
    /// that was lent to it; each one once.
    pub fn next_written(&mut self) -> Option<Written> {
        self.written.pop_front()
    }

    /// Tells `recorder` from now on of every send and write that is started and of every write that
    /// is done, in order: for tests of what leaves before what. It copies what is sent.
    pub fn set_recorder(&mut self, recorder: mpsc::Sender<RingRecord>) {
        self.recorder = Some(recorder);
    }

    /// Names the eventfd that ends a [`sleep`](Ring::sleep) when something is written to it.
    pub fn set_alarm(&mut self, eventfd: OwnedFd) {
        assert!(self.alarm.is_none(), "a ring has one alarm, which the kernel reads");
        self.operations.start(Operation::Alarm(Box::default()), Some(eventfd.as_fd()));
        self.alarm = Some(eventfd);
    }

    /// Submits what is queued and sleeps, with all of its thread, until something has happened or
    /// `most` has passed. What has happened before ends it at once.
    ///
    /// # Errors
    ///
    /// If the kernel takes nothing more from us.
    pub fn sleep(&mut self, most: Duration) -> io::Result<()> {
        if self.operations.has_work() {
            return Ok(());
        }
        self.operations.sleep(most)
    }

    /// Returns the counters so far.
    #[must_use]
    pub fn counters(&self) -> RingCounters {
        let receive_buffers = self.buffers.allocated();
        RingCounters { enters: self.operations.enters(), receive_buffers, ..self.counters }
    }

    fn seat(&mut self, socket: OwnedFd) -> ConnectionId {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            u32::try_from(self.seats.len() - 1).expect("fewer connections than descriptors")
        });
        let seat = &mut self.seats[index as usize];
        seat.connection = Some(Connection::new(socket));
        ConnectionId { index, generation: seat.generation }
    }

    fn unseat(&mut self, id: ConnectionId) -> Option<Connection> {
        let seat = &mut self.seats[id.index as usize];
        // A seat that has no name left is not used again.
        if let Some(next) = seat.generation.checked_add(1) {
            seat.generation = next;
            self.vacant.push(id.index);
        }
        seat.connection.take()
    }
}

/// Tells the recorder, if there is one.
fn record(recorder: Option<&mpsc::Sender<RingRecord>>, what: impl FnOnce() -> RingRecord) {
    if let Some(recorder) = recorder {
        drop(recorder.send(what())); // the test may be over
    }
}

/// The connection of that name, unless the name is dead.
fn live(seats: &mut [Seat], id: ConnectionId) -> Option<&mut Connection> {
    let seat = seats.get_mut(id.index as usize).filter(|seat| seat.generation == id.generation)?;
    seat.connection.as_mut().filter(|connection| !connection.is_closing)
}

/// The connection of that name, which is there while anything of it is in flight.
fn seated(seats: &mut [Seat], id: ConnectionId) -> &mut Connection {
    let seat = &mut seats[id.index as usize];
    assert_eq!(seat.generation, id.generation, "a connection left while the kernel was at it");
    seat.connection.as_mut().expect("a seat stays taken while anything is in flight")
}
