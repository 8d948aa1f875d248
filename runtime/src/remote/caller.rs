//! The thread of a connection to a cluster: what is sent to which gateway, and what is answered.
//!
//! ```text
//!   down ──due──▶ calling ──welcome──▶ up ──the gateway is not served──▶ down, the connection is the former one
//!     ▲              │                  ▲                                        │
//!     └─ the next address ◀─ refused    └── answered, before another welcomes ───┘
//! ```
//!
//! Commands have their numbers in a session of their own, which is asked for once, and named to
//! each gateway. What has no answer when another gateway welcomes is sent again there, under the
//! same numbers: it is executed once (R23).
//!
//! A gateway that is not served may be the only one of its cluster, or one of many in an election.
//! So the client goes once around its addresses; if none serves, it sends to the former gateway
//! again, whose answer brings it back, and goes on looking ever less often.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use loggos_net::wire::{
    self, BatchPool, CommandsWriter, FrameReader, Hello, Message, Purpose, ReadsWriter, Reason,
    Refusal, Welcome,
};
use loggos_net::{ConnectionId, Outgoing, Ring, RingEvent, RingOptions};
use loggos_protocol::{ClientSession, Failure, FormationId, RunOwner, Time};
use tracing::warn;

use super::reads::Reads;
use super::{FRAME_BYTES_MAX, RemoteOptions, Shared};
use crate::callers::{CALLS_A_TICK, Callers};
use crate::client::CallError;
use crate::clock::Clock;
use crate::dial::{Dial, DialState, Pace};
use crate::idle::IdlePolicy;
use crate::random::random_u64;
use crate::ring_report::RingReport;
use crate::sockets::{describe, refused_us};

/// The longest time until an address has answered our hello.
const GREETING_MAX: Duration = Duration::from_secs(2);
/// The wait before the next address is tried.
const BACK_OFF: Duration = Duration::from_millis(50);
/// The wait doubles as often, each time that processes at all addresses have refused us.
const ROUNDS_MAX: usize = 4;
/// How long commands wait for another gateway, before they are sent to the one that was left.
const SEARCH_MAX: Duration = Duration::from_millis(500);
const PACE: Pace = Pace { wait_first: BACK_OFF, wait_after_up: BACK_OFF, wait_max: BACK_OFF };
/// The longest sleep of the thread.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// The most bytes that wait to be sent; more commands wait in the queue.
pub(super) const OUTGOING_BYTES_MAX: usize = 1 << 20;

/// The connection's thread.
#[derive(Debug)]
pub(super) struct Caller {
    options: RemoteOptions,
    shared: Arc<Shared>,
    callers: Callers,
    ring: Ring,
    ring_report: RingReport,
    events: Vec<RingEvent>,
    /// To one of the addresses.
    dial: Dial,
    /// The limits of the gateway that welcomed last.
    limits: Limits,
    /// What was sent over the connection that is up, or the former one, and has no answer yet.
    session: ClientSession,
    /// Likewise of reads.
    reads: Reads,
    reader: FrameReader,
    /// Commands and reads on their way out.
    commands_writer: CommandsWriter,
    reads_writer: ReadsWriter,
    /// The connection to a gateway that it has left, until another one welcomes.
    former: Option<Former>,
    /// Whether [`Shared::troubles`] has one of the gateway that is connected.
    is_troubled: bool,
    /// `None` while a connection is up.
    outage: Option<Outage>,
    batches: BatchPool,
    /// The next address to try, modulo their number.
    next_address: usize,
    /// The formation of the first gateway that welcomed us. Another formation is another cluster,
    /// even under the same name, and refuses us (R4).
    formation: Option<FormationId>,
}

/// The connection to a gateway that is not served: it is kept for answers.
#[derive(Debug)]
struct Former {
    connection: ConnectionId,
    /// The index of its address.
    address: usize,
    reader: FrameReader,
}

/// A time without a connection.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Time,
    /// Addresses tried in vain.
    tries: usize,
    /// The number of tries by when a process had last answered, if only to refuse us.
    answered: Option<usize>,
    /// The next address is not tried before.
    paused_until: Time,
}

/// The limits that a gateway's welcome sets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) commands_in_flight: u32,
    pub(super) command_bytes: u32,
}

impl Outage {
    fn new(now: Time) -> Self {
        Self { since: now, tries: 0, answered: None, paused_until: now }
    }
}

impl Caller {
    pub(super) fn new(options: RemoteOptions, shared: Arc<Shared>) -> io::Result<Self> {
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
            session: ClientSession::new(random_u64()),
            reads: Reads::default(),
            reader: FrameReader::new(FRAME_BYTES_MAX),
            commands_writer: CommandsWriter::default(),
            reads_writer: ReadsWriter::default(),
            former: None,
            is_troubled: false,
            outage: None,
            batches: BatchPool::new(1),
            next_address: 0,
            formation: None,
            options,
            shared,
        })
    }

    pub(super) fn run(mut self) {
        let clock = Clock::start();
        self.outage = Some(Outage::new(clock.now()));
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
        has_worked |= self.callers.has_work(now);
        self.callers.take_turns(usize::MAX, now, |_, _| false);
        self.callers.take_submissions(CALLS_A_TICK, now);
        has_worked |= self.end_overdue(now);
        if self.dial.is_due(now) && self.outage.is_none_or(|outage| outage.paused_until <= now) {
            self.call(now);
        } else if let Some(connection) = self.dial.unanswered(GREETING_MAX, now) {
            self.give_up(connection, now, "it does not answer");
        }
        self.submit(now);
        self.ring.flush();
        has_worked
    }

    fn poll(&mut self, now: Time) -> bool {
        self.ring_report.poll(&mut self.ring, &mut self.events);
        let mut events = std::mem::take(&mut self.events);
        let has_happened = !events.is_empty();
        for event in events.drain(..) {
            match event {
                RingEvent::Connected(id) if self.dial.connection() == Some(id) => self.greet(id),
                RingEvent::Received(id, piece) if self.dial.connection() == Some(id) => {
                    self.reader.push(piece);
                    self.read(id, now);
                }
                RingEvent::Received(id, piece) => self.read_former(id, piece, now),
                RingEvent::Closed(id, reason) if self.dial.connection() == Some(id) => {
                    self.on_end(now, &describe(&reason));
                }
                RingEvent::Closed(id, _) => self.end_former(id),
                RingEvent::Connected(_) // given up before
                | RingEvent::Accepted(..)
                | RingEvent::Sent(..)
                | RingEvent::SentPart(_) => {}
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
                (
                    DialState::Up { .. },
                    Ok(
                        message @ (Message::Replies(_)
                        | Message::Failed { .. }
                        | Message::Session { .. }),
                    ),
                ) => {
                    if self.take(message, now) && self.is_troubled {
                        self.note_trouble(None);
                    }
                    continue;
                }
                (DialState::Up { .. }, Ok(Message::Refusal(refusal)))
                    if refusal.reason == Reason::Unserved =>
                {
                    if self.options.addresses.len() > 1 {
                        return self.leave(id, now, &refusal);
                    }
                    self.note_trouble(Some(&refusal.text));
                    continue;
                }
                (DialState::Calling { .. }, Ok(Message::Welcome(welcome))) => {
                    self.outage.iter_mut().for_each(|outage| outage.answered = Some(outage.tries));
                    match self.on_welcome(id, &welcome) {
                        Ok(()) => continue,
                        Err(why) => why.to_owned(),
                    }
                }
                (_, Ok(Message::Refusal(refusal))) => {
                    self.outage.iter_mut().for_each(|outage| outage.answered = Some(outage.tries));
                    refused_us(&refusal)
                }
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
        self.shared.command_bytes_max.store(welcome.command_bytes_max, Ordering::Relaxed);
        self.outage = None;
        if let Some(former) = self.former.take() {
            self.ring.close(former.connection);
        }
        self.end_way();
        if let (Some(session), Some(outgoing)) = (self.session.id(), self.ring.outgoing(id)) {
            wire::encode_session(Some(session), 0, outgoing);
        }
        self.dial.on_welcome(id);
        self.callers.set_ready(true);
        self.note_trouble(None);
        Ok(())
    }

    /// Takes in an answer of the gateway that commands were sent to; returns whether it shows that
    /// the gateway is served.
    fn take(&mut self, answer: Message, now: Time) -> bool {
        match answer {
            Message::Replies(mut replies) => {
                let mut has_executed = false;
                while let Some((number, at, reply)) = replies.next() {
                    let is_read = Reads::has(number);
                    has_executed |= !is_read;
                    let tag = match is_read {
                        true => self.reads.on_answer(number),
                        false => self.session.on_reply(number),
                    };
                    if let Some(tag) = tag {
                        self.callers.answer(tag, Ok((at, reply)));
                    }
                }
                has_executed
            }
            Message::Session { session: Some(session), .. } => {
                self.session.on_opened(session);
                true
            }
            Message::Failed { number: u64::MAX, failure } => {
                self.session.on_not_opened(now);
                self.callers.give_up_unsent_for(&failure);
                false
            }
            Message::Failed { number, failure } if Reads::has(number) => {
                if let Some(tag) = self.reads.on_answer(number) {
                    self.callers.answer(tag, Err(failure));
                }
                false
            }
            Message::Failed { number, failure } => {
                if matches!(failure, Failure::Halted(_)) {
                    // No later command is executed before this one.
                    self.callers.give_up_unsent_for(&failure);
                }
                if let Some((tag, why)) = self.session.on_failure(number, failure) {
                    self.callers.answer(tag, Err(why));
                }
                false
            }
            Message::Session { session: None, .. }
            | Message::Commands(_)
            | Message::Reads(_)
            | Message::Envelope(_)
            | Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refusal(_)
            | Message::Log(_)
            | Message::StatusRequest
            | Message::Skip(_)
            | Message::Status(_) => false,
        }
    }

    /// Looks for another gateway, since this one is not served. Its connection is kept for answers,
    /// and for what is sent if there is no other.
    ///
    /// source: R37
    fn leave(&mut self, id: ConnectionId, now: Time, refusal: &Refusal) {
        assert!(self.former.is_none(), "a gateway has welcomed since another one was left");
        self.former = Some(Former {
            connection: id,
            address: self.address_index(),
            reader: std::mem::replace(&mut self.reader, FrameReader::new(FRAME_BYTES_MAX)),
        });
        self.on_down(now, &refused_us(refusal));
        self.outage.iter_mut().for_each(|outage| outage.answered = Some(outage.tries));
        self.read_former(id, Bytes::new(), now);
    }

    /// Goes back to the gateway that was left last: it is served again.
    fn come_back(&mut self) {
        let Some(Former { connection, address, reader }) = self.former.take() else { return };
        if let Some(other) = self.dial.connection() {
            self.ring.close(other);
        }
        self.reader = reader;
        (self.next_address, self.outage) = (address, None);
        self.dial.on_welcome(connection);
        self.callers.set_ready(true);
        self.note_trouble(None);
    }

    /// A connection, if it is the former one, has ended: what was sent over it and has no answer
    /// goes to the next gateway.
    fn end_former(&mut self, id: ConnectionId) {
        if self.former.take_if(|it| it.connection == id).is_some() {
            self.end_way();
            self.ring.close(id);
        }
    }

    /// Takes in what has come over the former connection.
    fn read_former(&mut self, id: ConnectionId, piece: Bytes, now: Time) {
        let Some(former) = self.former.as_mut().filter(|it| it.connection == id) else { return };
        former.reader.push(piece);
        loop {
            let Some(former) = &mut self.former else { return };
            let message = match former.reader.next() {
                None => return self.ring.receive(id),
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            match message {
                Ok(Message::Refusal(_)) => {} // not served yet, or not again
                Ok(
                    message @ (Message::Replies(_)
                    | Message::Failed { .. }
                    | Message::Session { .. }),
                ) => {
                    if self.take(message, now) {
                        self.come_back();
                        return self.read(id, now);
                    }
                }
                Ok(_) | Err(_) => return self.end_former(id),
            }
        }
    }

    /// Ends calls whose deadline has passed, or that wait while no process answers; returns whether
    /// there were any.
    fn end_overdue(&mut self, now: Time) -> bool {
        let unsent = if self.outage.is_some() { CallError::Unreachable } else { CallError::Busy };
        let is_over = |outage: &Outage, most| {
            let silent =
                outage.tries - outage.answered.map_or(0, |tries| tries + 1).min(outage.tries);
            silent >= self.options.addresses.len() && now.since(outage.since) >= most
        };
        let limits = self.outage.zip(self.options.unreachable_after);
        if limits.is_some_and(|(outage, most)| is_over(&outage, most)) {
            self.callers.give_up_unsent(&CallError::Unreachable);
        }
        let mut has_ended = false;
        while self.callers.overdue(&unsent, now).is_some() {
            has_ended = true;
        }
        has_ended
    }

    /// The index of the address that is tried, or was last.
    fn address_index(&self) -> usize {
        self.next_address % self.options.addresses.len()
    }

    /// Notes why the address that was tried cannot be used; `None` if it can.
    fn note_trouble(&mut self, why: Option<&str>) {
        self.is_troubled = why.is_some();
        self.shared.troubles()[self.address_index()] = why.map(str::to_owned);
    }

    /// Sends what the gateway lets us have in flight: the one that is connected; or the one that
    /// was left last, once all others were tried in vain, or have kept us for long.
    fn submit(&mut self, now: Time) {
        while let Some((tag, why)) = self.session.settle(random_u64()) {
            self.callers.answer(tag, Err(why));
        }
        let others = self.options.addresses.len() - 1;
        let is_long = |it: Outage| it.tries >= others || now.since(it.since) >= SEARCH_MAX;
        let former = self.former.as_ref().filter(|_| self.outage.is_some_and(is_long));
        let connection = self.dial.up().or_else(|| former.map(|former| former.connection));
        if let Some(id) = connection
            && let Some(outgoing) = self.ring.outgoing(id)
        {
            let (callers, session) = (&mut self.callers, &mut self.session);
            let writer = &mut self.commands_writer;
            send(callers, session, writer, outgoing, (self.limits, now));
            self.reads.send(callers, &mut self.reads_writer, outgoing, self.limits);
        }
    }

    /// What was sent over a connection, and has no answer, is sent again over the next.
    fn end_way(&mut self) {
        self.session.on_way_ended();
        self.reads.on_way_ended(&self.callers);
    }

    fn call(&mut self, now: Time) {
        let address = self.options.addresses[self.address_index()];
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

    /// The connection has ended: what was sent over it and has no answer goes to the next gateway.
    fn on_end(&mut self, now: Time, why: &str) {
        if self.dial.up().is_some() {
            self.end_way();
        }
        self.on_down(now, why);
    }

    /// There is no connection for new commands: the next address is tried.
    fn on_down(&mut self, now: Time, why: &str) {
        self.callers.set_ready(false);
        let address = self.options.addresses[self.address_index()];
        let end = self.dial.on_end(now);
        if end.is_news {
            warn!(%address, why, "cannot be reached");
        }
        let outage = self.outage.get_or_insert_with(|| Outage::new(now));
        outage.tries += usize::from(!end.was_up);
        if outage.answered.is_some() {
            // Each time around takes longer: a cluster in trouble has other things to do.
            let rounds = outage.tries / self.options.addresses.len();
            let pause = BACK_OFF * (1 << rounds.min(ROUNDS_MAX));
            // Not all clients at once.
            let jitter = Duration::from_micros(random_u64() % 50_000);
            outage.paused_until = now + pause + jitter;
        }
        self.note_trouble(Some(why));
        self.next_address += 1;
    }

    fn sleep(&mut self, now: Time) {
        let due = match self.dial.state() {
            DialState::Down { until } => {
                Some(self.outage.map_or(until, |outage| until.max(outage.paused_until)))
            }
            DialState::Calling { since, .. } => Some(since + GREETING_MAX),
            DialState::Up { .. } => None,
        };
        let again = self.session.next_timeout(self.callers.has_commands());
        let again = again.filter(|_| self.dial.up().is_some());
        let due = due.into_iter().chain(again).chain(self.callers.next_timeout()).min();
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

/// Sends what has to be sent again, and then new commands, until as many are in flight as the
/// limits allow.
fn send(
    callers: &mut Callers,
    session: &mut ClientSession,
    writer: &mut CommandsWriter,
    outgoing: &mut Outgoing,
    (limits, now): (Limits, Time),
) {
    let window = limits.commands_in_flight as usize;
    let mut put = |name: RunOwner, command: &[u8], outgoing: &mut Outgoing| match name {
        RunOwner::Client { first, lowest_unanswered, .. } => {
            writer.put(first, lowest_unanswered, command, outgoing);
        }
        RunOwner::NewClient { key } => wire::encode_session(None, key, outgoing),
        RunOwner::Gateway => unreachable!("commands have names in their session"),
    };
    if let Some(wish) = session.ask(callers.has_commands(), now) {
        put(wish, &[], outgoing);
    }
    while outgoing.len() < OUTGOING_BYTES_MAX
        && let Some((name, command)) = session.next_again(window, now)
    {
        put(name, command.as_slice(), outgoing);
    }
    while outgoing.len() < OUTGOING_BYTES_MAX && session.has_room(window) {
        let (tag, command) = match session.next_given_back() {
            Some(given_back) => given_back,
            None => match callers.next(|_| true) {
                Some((caller, _, command)) => (caller.tag, command),
                None => break,
            },
        };
        if command.len() > limits.command_bytes as usize {
            callers.answer(tag, Err(Failure::TooLarge));
            continue;
        }
        let (name, command) = session.push(tag, command);
        put(name, command.as_slice(), outgoing);
    }
    writer.end(outgoing);
}
