//! The thread of a connection to a cluster: what is sent to which gateway, and what is answered.
//!
//! ```text
//!   down ──due──▶ calling ──welcome──▶ up ──the gateway is not served──▶ down, the connection is a former one
//!     ▲              │                  ▲                                        │
//!     └─ the next address ◀─ refused    └── answered, before another welcomes ───┘
//! ```
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
    self, BatchPool, CommandsWriter, FrameReader, Hello, Message, Purpose, Reason, Refusal,
    Replies, Welcome,
};
use loggos_net::{ConnectionId, Outgoing, Ring, RingEvent, RingOptions};
use loggos_protocol::{FormationId, Time, Way};
use tracing::warn;

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
const OUTGOING_BYTES_MAX: usize = 1 << 20;

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
    /// The limits of the gateway that it leads to; valid while it is up.
    limits: Limits,
    /// The way of commands over it; another one with each connection.
    way: Way,
    /// Commands that were sent over it, and have no answer yet.
    commands: u32,
    reader: FrameReader,
    /// Commands on their way out.
    commands_writer: CommandsWriter,
    /// Connections to gateways that it has left, while they have commands without an answer; the
    /// oldest first, and no more than two for each address.
    former: Vec<Former>,
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
    way: Way,
    limits: Limits,
    reader: FrameReader,
    /// The time when a command was last sent over it, or it became a former one.
    used_at: Time,
    /// Commands that were sent over it, and have no answer yet.
    commands: u32,
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
struct Limits {
    commands_in_flight: u32,
    command_bytes: u32,
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
            way: Way::default(),
            commands: 0,
            reader: FrameReader::new(FRAME_BYTES_MAX),
            commands_writer: CommandsWriter::default(),
            former: Vec::new(),
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
                (DialState::Up { .. }, Ok(Message::Replies(replies))) => {
                    self.commands = answer(&mut self.callers, replies, self.commands);
                    if self.is_troubled {
                        self.note_trouble(None);
                    }
                    continue;
                }
                (DialState::Up { .. }, Ok(Message::Failed { number, failure })) => {
                    self.commands = self.commands.saturating_sub(1);
                    self.callers.answer(number, Err(failure.into()));
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
                    match self.on_welcome(id, &welcome, now) {
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
    fn on_welcome(
        &mut self,
        id: ConnectionId,
        welcome: &Welcome,
        now: Time,
    ) -> Result<(), &'static str> {
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
        (self.commands, self.outage) = (0, None);
        self.way = Way(self.way.0.wrapping_add(1));
        self.callers.set_way(self.way);
        self.dial.on_welcome(id);
        self.callers.set_ready(true);
        self.note_trouble(None);
        self.end_idle(now);
        Ok(())
    }

    /// Looks for another gateway, since this one is not served. Its connection is kept for answers,
    /// and for what is sent if there is no other.
    ///
    /// source: R37
    fn leave(&mut self, id: ConnectionId, now: Time, refusal: &Refusal) {
        if self.former.len() >= 2 * self.options.addresses.len() {
            self.end_former(self.former[0].connection);
        }
        self.former.push(Former {
            connection: id,
            address: self.address_index(),
            way: self.way,
            limits: self.limits,
            reader: std::mem::replace(&mut self.reader, FrameReader::new(FRAME_BYTES_MAX)),
            used_at: now,
            commands: std::mem::take(&mut self.commands),
        });
        self.on_down(now, &refused_us(refusal));
        self.outage.iter_mut().for_each(|outage| outage.answered = Some(outage.tries));
        self.read_former(id, Bytes::new(), now);
    }

    /// Goes back to the gateway that was left last: it is served again.
    fn come_back(&mut self, now: Time) {
        let Some(former) = self.former.pop() else { return };
        if let Some(other) = self.dial.connection() {
            self.ring.close(other);
        }
        let Former { connection, address, way, limits, reader, commands, used_at: _ } = former;
        (self.way, self.limits, self.reader, self.commands) = (way, limits, reader, commands);
        (self.next_address, self.outage) = (address, None);
        self.shared.command_bytes_max.store(limits.command_bytes, Ordering::Relaxed);
        self.callers.set_way(way);
        self.dial.on_welcome(connection);
        self.callers.set_ready(true);
        self.note_trouble(None);
        self.end_idle(now);
    }

    /// A connection, if it is a former one, has ended or is of no use any more: the outcome of what
    /// was sent over it and has no answer is unknown.
    fn end_former(&mut self, id: ConnectionId) {
        if let Some(place) = self.former.iter().position(|it| it.connection == id) {
            let former = self.former.remove(place);
            self.callers.lose_sent(former.way);
            self.ring.close(id);
        }
    }

    /// Ends former connections from which nothing is awaited: their commands are answered, or over
    /// by their deadline. Until another gateway is found, one may be of use yet.
    fn end_idle(&mut self, now: Time) {
        let deadline = self.options.deadline;
        let is_idle = |it: &&Former| it.commands == 0 || now.since(it.used_at) > deadline;
        let found = self.outage.is_none();
        let idle = self.former.iter().filter(|it| found && is_idle(it)).map(|it| it.connection);
        for id in idle.collect::<Vec<_>>() {
            self.end_former(id);
        }
    }

    /// Takes in what has come over a former connection.
    fn read_former(&mut self, id: ConnectionId, piece: Bytes, now: Time) {
        let Some(place) = self.former.iter().position(|it| it.connection == id) else { return };
        self.former[place].reader.push(piece);
        loop {
            let former = &mut self.former[place];
            let message = match former.reader.next() {
                None => {
                    self.ring.receive(id);
                    return self.end_idle(now);
                }
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            match message {
                Ok(Message::Replies(replies)) => {
                    former.commands = answer(&mut self.callers, replies, former.commands);
                    let is_last = place + 1 == self.former.len();
                    if is_last && self.outage.is_some() {
                        self.come_back(now);
                        return self.read(id, now);
                    }
                }
                Ok(Message::Failed { number, failure }) => {
                    former.commands = former.commands.saturating_sub(1);
                    self.callers.answer(number, Err(failure.into()));
                }
                Ok(Message::Refusal(_)) => {} // not served yet, or not again
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
        self.end_idle(now);
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
        if let Some(id) = self.dial.up() {
            let Some(outgoing) = self.ring.outgoing(id) else { return };
            let (callers, writer) = (&mut self.callers, &mut self.commands_writer);
            self.commands = send(callers, writer, outgoing, self.limits, self.commands);
            return;
        }
        let others = self.options.addresses.len() - 1;
        let Some(former) = self.former.last_mut() else { return };
        let is_long = |it: Outage| it.tries >= others || now.since(it.since) >= SEARCH_MAX;
        if self.outage.is_some_and(is_long)
            && let Some(outgoing) = self.ring.outgoing(former.connection)
        {
            let before = former.commands;
            self.callers.set_way(former.way);
            let (callers, writer) = (&mut self.callers, &mut self.commands_writer);
            former.commands = send(callers, writer, outgoing, former.limits, before);
            if former.commands > before {
                former.used_at = now;
            }
        }
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

    /// The connection has ended, and the outcome of what was sent over it is unknown.
    fn on_end(&mut self, now: Time, why: &str) {
        if self.dial.up().is_some() {
            self.callers.lose_sent(self.way);
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

/// Sends commands, until as many are in flight as `limits` allow; returns how many are, given that
/// there are `commands` already.
fn send(
    callers: &mut Callers,
    writer: &mut CommandsWriter,
    outgoing: &mut Outgoing,
    limits: Limits,
    mut commands: u32,
) -> u32 {
    while outgoing.len() < OUTGOING_BYTES_MAX && commands < limits.commands_in_flight {
        let Some((caller, command)) = callers.next(|_| true) else { break };
        if command.len() > limits.command_bytes as usize {
            callers.answer(caller.tag, Err(CallError::TooLarge));
            continue;
        }
        commands += 1;
        writer.put(caller.tag, command.as_slice(), outgoing);
    }
    writer.end(outgoing);
    commands
}

/// Hands replies on; returns how many commands have none yet, given that these were `commands`.
fn answer(callers: &mut Callers, mut replies: Replies, mut commands: u32) -> u32 {
    while let Some((number, at, reply)) = replies.next() {
        commands = commands.saturating_sub(1);
        callers.answer(number, Ok((at, reply)));
    }
    commands
}
