//! A cluster of other processes, as its clients see it: one connection to one of its gateways.
//!
//! ```text
//!   any thread                this connection's own thread                        a node with a gateway
//!   execute ──▶ port ──▶ Callers ──▶ frames ──▶ ring ════ socket ════▶ Sockets ──▶ Callers ──▶ Gateway
//!      ▲                    │
//!      └──── completion ◀───┘
//! ```
//!
//! When a connection breaks, calls whose commands were sent over it end as unknown. Commands that
//! were not sent wait for the next connection, to the next address; they may be executed before
//! those of unknown outcome, if these are executed at all.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_net::wire::{self, BatchPool, FrameReader, Hello, Message, Purpose, Welcome};
use loggos_net::{ConnectionId, Outgoing, Ring, RingEvent, RingOptions};
use loggos_protocol::{FormationId, Time};
use tracing::warn;

use crate::alarm::Alarm;
use crate::callers::Callers;
use crate::client::{CallError, Client, Port};
use crate::clock::Clock;
use crate::dial::{Dial, DialState, Pace};
use crate::idle::{Idle, IdlePolicy};
use crate::random::random_u64;
use crate::resident::{MoveIn, Resident};
use crate::ring_report::RingReport;
use crate::sockets::{describe, refused_us};

/// The longest time until an address has answered our hello.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// The wait before the next address is tried.
const BACK_OFF: Duration = Duration::from_millis(50);
const PACE: Pace = Pace { wait_first: BACK_OFF, wait_after_up: BACK_OFF, wait_max: BACK_OFF };
/// The longest sleep of the thread.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// The most bytes that wait to be sent; more commands wait in the queue.
const OUTGOING_BYTES_MAX: usize = 1 << 20;
/// The longest frame that a gateway sends us: a reply.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// The options to reach a cluster.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Nodes that have gateways. One is connected to at a time; the next is tried when the
    /// connection has ended.
    pub addresses: Vec<SocketAddr>,
    /// The cluster's name; empty takes any.
    pub cluster: String,
    /// The deadline of a call.
    pub deadline: Duration,
    /// Commands in flight at the most; others wait.
    pub commands_in_flight_max: u32,
    /// The behaviour of the connection's thread when it has no work.
    pub idle: Idle,
}

/// A connection to a cluster of other processes.
///
/// Dropping it ends it; calls under way end as [`CallError::Stopped`].
#[derive(Debug)]
pub struct RemoteCluster {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: Arc<Port>,
    residents: SegQueue<MoveIn>,
    alarm: Alarm,
    is_stopping: AtomicBool,
}

/// The connection's thread.
#[derive(Debug)]
struct Caller {
    options: RemoteOptions,
    shared: Arc<Shared>,
    callers: Callers,
    ring: Ring,
    ring_report: RingReport,
    events: Vec<RingEvent>,
    /// To one of the addresses.
    dial: Dial,
    /// The limits of the gateway that it leads to; valid while it is up.
    limits: Limits,
    /// Commands that were sent over it, and have no answer yet.
    commands: u32,
    reader: FrameReader,
    batches: BatchPool,
    /// The next address to try, modulo their number.
    next_address: usize,
    /// The formation of the first gateway that welcomed us. Another formation is another cluster,
    /// even under the same name, and refuses us (R4).
    formation: Option<FormationId>,
}

/// The limits that a gateway's welcome sets.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    commands_in_flight: u32,
    command_bytes: u32,
}

impl RemoteOptions {
    /// Returns the options to reach any cluster at `addresses`.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            cluster: String::new(),
            deadline: Duration::from_secs(5),
            commands_in_flight_max: 65_536,
            idle: Idle::Park,
        }
    }
}

impl RemoteCluster {
    /// Starts to connect. Commands wait until that has succeeded, or their deadline has passed.
    ///
    /// # Errors
    ///
    /// If the machine lets us have no ring or thread: the text says what to set.
    ///
    /// # Panics
    ///
    /// If there are no addresses, or the cluster's name is longer than one can be.
    pub fn connect(options: RemoteOptions) -> io::Result<Self> {
        assert!(!options.addresses.is_empty(), "a cluster without an address");
        let name_bytes = options.cluster.len();
        assert!(name_bytes <= wire::CLUSTER_NAME_BYTES_MAX, "a name of {name_bytes} bytes");
        let alarm = Alarm::new()?;
        let shared = Arc::new(Shared {
            port: Port::new(alarm.clone()),
            residents: SegQueue::new(),
            alarm,
            is_stopping: AtomicBool::new(false),
        });
        let (ready, opened) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("loggos-client".to_owned()).spawn(move || {
                // The ring belongs to the thread that opens it.
                match Caller::new(options, theirs) {
                    Ok(caller) => {
                        drop(ready.send(Ok(())));
                        caller.run();
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let opened = opened.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        opened.map(|()| Self { shared, thread: Some(thread) })
    }

    /// Returns a handle to submit commands with, from any thread.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.shared.port))
    }

    /// Lets a caller live on the connection's thread, and be called by its loop. `make` makes it
    /// there.
    pub fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        self.shared.residents.push(MoveIn(Box::new(|| Box::new(make()))));
        self.shared.alarm.ring();
    }
}

impl Drop for RemoteCluster {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.alarm.ring();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a connection had panicked");
        }
        self.shared.port.close();
    }
}

impl Caller {
    fn new(options: RemoteOptions, shared: Arc<Shared>) -> io::Result<Self> {
        let mut ring = Ring::new(&RingOptions::default())?;
        ring.set_alarm(shared.alarm.eventfd()?);
        let window = options.commands_in_flight_max as usize;
        Ok(Self {
            callers: Callers::new(Arc::clone(&shared.port), options.deadline, window),
            ring,
            ring_report: RingReport::new("a connection"),
            events: Vec::new(),
            dial: Dial::new(PACE),
            limits: Limits::default(),
            commands: 0,
            reader: FrameReader::new(FRAME_BYTES_MAX),
            batches: BatchPool::new(1),
            next_address: 0,
            formation: None,
            options,
            shared,
        })
    }

    fn run(mut self) {
        let clock = Clock::start();
        let mut idle = IdlePolicy::new(self.options.idle, clock.now());
        while !self.shared.is_stopping.load(Ordering::Relaxed) {
            let now = clock.now();
            let has_worked = self.tick(now);
            if idle.may_sleep(now, has_worked) {
                self.sleep(clock.now());
                idle.woke(clock.now());
            } else {
                idle.offer(now);
            }
        }
        self.callers.stop();
    }

    fn tick(&mut self, now: Time) -> bool {
        let mut has_worked = self.poll(now);
        while let Some(resident) = self.shared.residents.pop() {
            self.callers.move_in(resident, now);
        }
        has_worked |= self.callers.take_turns(now);
        has_worked |= self.callers.take_submissions(now);
        while self.callers.overdue(now).is_some() {
            has_worked = true;
        }
        if self.dial.is_due(now) {
            self.call(now);
        } else if let Some(connection) = self.dial.unanswered(GREETING_MAX, now) {
            self.give_up(connection, now, "it does not answer");
        }
        self.submit();
        self.ring.flush();
        has_worked
    }

    fn poll(&mut self, now: Time) -> bool {
        self.ring_report.poll(&mut self.ring, &mut self.events);
        let mut events = std::mem::take(&mut self.events);
        let has_happened = !events.is_empty();
        for event in events.drain(..) {
            match event {
                RingEvent::Connected(id) => self.greet(id),
                RingEvent::Received(id, piece) => {
                    self.reader.push(piece);
                    self.read(id, now);
                }
                RingEvent::Closed(id, reason) if self.dial.connection() == Some(id) => {
                    self.on_end(now, &describe(&reason));
                }
                RingEvent::Closed(..) => {} // given up before
                RingEvent::Accepted(..) | RingEvent::Sent(..) | RingEvent::SentPart(_) => {}
            }
        }
        self.events = events;
        has_happened
    }

    fn read(&mut self, id: ConnectionId, now: Time) {
        loop {
            let message = match self.reader.next() {
                None => return self.ring.receive(id),
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            let why = match (self.dial.state(), message) {
                (DialState::Up { .. }, Ok(Message::Result { number, result })) => {
                    self.commands = self.commands.saturating_sub(1);
                    let result = match &result {
                        Ok((at, reply)) => Ok((*at, reply.as_slice())),
                        Err(why) => Err(CallError::from(*why)),
                    };
                    self.callers.answer(number, result);
                    continue;
                }
                (DialState::Calling { .. }, Ok(Message::Welcome(welcome))) => {
                    match self.on_welcome(id, &welcome) {
                        Ok(()) => continue,
                        Err(why) => why.to_owned(),
                    }
                }
                (_, Ok(Message::Refusal(refusal))) => refused_us(&refusal),
                (_, Ok(_)) => "unexpected message".to_owned(),
                (_, Err(error)) => error.to_string(),
            };
            return self.give_up(id, now, &why);
        }
    }

    /// Takes in the gateway's welcome.
    ///
    /// # Errors
    ///
    /// If it belongs to no formation, or to another one than the gateways that we have talked to
    /// before. A gateway that knows of none yet may come to belong to any (R4).
    fn on_welcome(&mut self, id: ConnectionId, welcome: &Welcome) -> Result<(), &'static str> {
        match (welcome.formation, self.formation) {
            (None, _) => return Err("the cluster has not formed yet"),
            (theirs, Some(_)) if theirs != self.formation => {
                return Err("it belongs to another formation: the cluster was started anew");
            }
            (Some(_), _) => {}
        }
        self.formation = welcome.formation;
        self.limits = Limits {
            commands_in_flight: welcome.commands_in_flight_max,
            command_bytes: welcome.command_bytes_max,
        };
        self.commands = 0;
        self.dial.on_welcome(id);
        Ok(())
    }

    /// Sends what the gateway lets us have in flight.
    fn submit(&mut self) {
        let Some(outgoing) = self.dial.up().and_then(|id| self.ring.outgoing(id)) else { return };
        let limits = self.limits;
        while outgoing.len() < OUTGOING_BYTES_MAX && self.commands < limits.commands_in_flight {
            let Some((caller, command)) = self.callers.next(|_| true) else { return };
            if command.len() > limits.command_bytes as usize {
                self.callers.answer(caller.tag, Err(CallError::TooLarge));
                continue;
            }
            self.commands += 1;
            wire::encode_command(caller.tag, command.as_slice(), outgoing);
        }
    }

    fn call(&mut self, now: Time) {
        let address = self.options.addresses[self.next_address % self.options.addresses.len()];
        match self.ring.connect(address) {
            Ok(connection) => self.dial.on_called(connection, now),
            Err(error) => self.on_end(now, &error.to_string()),
        }
    }

    fn greet(&mut self, id: ConnectionId) {
        self.reader = FrameReader::new(FRAME_BYTES_MAX);
        let formation = self.formation;
        let hello = Hello {
            formation,
            ..Hello::of_client(self.options.cluster.clone(), Purpose::Client, random_u64())
        };
        if let Some(outgoing) = self.ring.outgoing(id) {
            wire::encode_hello(&hello, outgoing);
        }
        self.ring.receive(id);
    }

    /// Closes the connection.
    fn give_up(&mut self, id: ConnectionId, now: Time, why: &str) {
        self.ring.close(id);
        self.on_end(now, why);
    }

    /// The connection has ended, and the outcome of what was sent over it is unknown.
    fn on_end(&mut self, now: Time, why: &str) {
        let address = self.options.addresses[self.next_address % self.options.addresses.len()];
        if self.dial.on_end(now).is_news {
            warn!(%address, why, "cannot be reached");
        }
        self.callers.lose_sent();
        self.next_address += 1;
    }

    fn sleep(&mut self, now: Time) {
        let due = match self.dial.state() {
            DialState::Down { until } => Some(until),
            DialState::Calling { since, .. } => Some(since + GREETING_MAX),
            DialState::Up { .. } => None,
        };
        let due = due.into_iter().chain(self.callers.next_timeout()).min();
        let most = due.map_or(SLEEP_MAX, |due| due.since(now).min(SLEEP_MAX));
        let (callers, shared, ring) = (&self.callers, &self.shared, &mut self.ring);
        let has_work = || {
            callers.has_work(now)
                || !shared.residents.is_empty()
                || shared.is_stopping.load(Ordering::Relaxed)
        };
        if shared.alarm.begin_sleep(has_work) {
            self.ring_report.sleep(ring, most);
        }
        shared.alarm.end_sleep();
    }
}

/// Asks the node at `address` how its roles stand; returns its answer, in JSON.
///
/// # Errors
///
/// If it cannot be reached, does not answer within `timeout`, or refuses us: the text is its
/// reason.
pub fn remote_status(address: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut outgoing = Outgoing::default();
    wire::encode_hello(
        &Hello::of_client(String::new(), Purpose::Status, random_u64()),
        &mut outgoing,
    );
    wire::encode_status_request(&mut outgoing);
    for piece in outgoing.pieces() {
        stream.write_all(piece)?;
    }
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    loop {
        while let Some(frame) = reader.next() {
            let message = frame.and_then(|frame| frame.decode(&mut BatchPool::new(1)));
            match message.map_err(io::Error::other)? {
                Message::Welcome(_) => {}
                Message::Status(status) => return Ok(status.as_slice().to_vec()),
                Message::Refusal(refusal) => return Err(io::Error::other(refusal.text)),
                Message::Envelope(_)
                | Message::Hello(_)
                | Message::Log(_)
                | Message::Command { .. }
                | Message::Result { .. }
                | Message::StatusRequest => {
                    return Err(io::Error::other("unexpected message"));
                }
            }
        }
        let mut piece = vec![0; 64 << 10];
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => piece.truncate(count),
            // A read with a timeout is not begun again by the kernel.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        reader.push(piece.into());
    }
}
