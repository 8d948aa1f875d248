//! The thread of a connection to a cluster: what is sent to which gateway, and what is answered.
//!
//! ```text
//!   down ──due──▶ calling ──welcome──▶ up ──── the gateway is not served ────▶ down, and the former one is
//!     ▲              │                  │                                      kept until it has answered all
//!     └── the next address ◀── it ended, or refused us
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use loggos_net::wire::{
    self, BatchPool, FrameReader, Hello, Message, Purpose, Reason, Refusal, Welcome,
};
use loggos_net::{ConnectionId, Ring, RingEvent, RingOptions};
use loggos_protocol::{Failure, FormationId, Payload, Position, Time, Way};
use tracing::warn;

use super::{FRAME_BYTES_MAX, RemoteOptions, Shared};
use crate::callers::Callers;
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
    /// Connections to gateways that it has left, while they have commands without an answer; the
    /// oldest first, and no more than there are addresses.
    former: Vec<Former>,
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
    way: Way,
    reader: FrameReader,
    /// Commands that were sent over it, and have no answer yet.
    commands: u32,
}

/// A time without a connection.
#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Time,
    /// Addresses tried in vain.
    tries: usize,
    /// Whether a process has answered at one of them, if only to refuse us.
    is_answered: bool,
}

/// The limits that a gateway's welcome sets.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    commands_in_flight: u32,
    command_bytes: u32,
}

impl Outage {
    fn new(now: Time) -> Self {
        Self { since: now, tries: 0, is_answered: false }
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
            former: Vec::new(),
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
        has_worked |= self.callers.take_turns(now);
        has_worked |= self.callers.take_submissions(now);
        has_worked |= self.end_overdue(now);
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
                RingEvent::Received(id, piece) if self.dial.connection() == Some(id) => {
                    self.reader.push(piece);
                    self.read(id, now);
                }
                RingEvent::Received(id, piece) => self.read_former(id, piece),
                RingEvent::Closed(id, reason) if self.dial.connection() == Some(id) => {
                    self.on_end(now, &describe(&reason));
                }
                RingEvent::Closed(id, _) => self.end_former(id),
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
                    self.answer(number, &result);
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
                    self.outage.iter_mut().for_each(|outage| outage.is_answered = true);
                    match self.on_welcome(id, &welcome) {
                        Ok(()) => continue,
                        Err(why) => why.to_owned(),
                    }
                }
                (_, Ok(Message::Refusal(refusal))) => {
                    self.outage.iter_mut().for_each(|outage| outage.is_answered = true);
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
        (self.commands, self.outage) = (0, None);
        self.way = Way(self.way.0.wrapping_add(1));
        self.callers.set_way(self.way);
        self.dial.on_welcome(id);
        self.note_trouble(None);
        Ok(())
    }

    /// Hands an answer on.
    fn answer(&mut self, number: u64, result: &Result<(Position, Payload), Failure>) {
        let result = match result {
            Ok((at, reply)) => Ok((*at, reply.as_slice())),
            Err(why) => Err(CallError::from(*why)),
        };
        self.callers.answer(number, result);
    }

    /// Goes to another gateway, since this one is not served; its connection is kept for answers.
    ///
    /// source: R37
    fn leave(&mut self, id: ConnectionId, now: Time, refusal: &Refusal) {
        let reader = std::mem::replace(&mut self.reader, FrameReader::new(FRAME_BYTES_MAX));
        let (way, commands) = (self.way, std::mem::take(&mut self.commands));
        if self.former.len() >= self.options.addresses.len() {
            self.end_former(self.former[0].connection);
        }
        self.former.push(Former { connection: id, way, reader, commands });
        self.on_down(now, &refused_us(refusal));
        self.read_former(id, Bytes::new());
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

    /// Takes in what has come over a former connection.
    fn read_former(&mut self, id: ConnectionId, piece: Bytes) {
        let Some(place) = self.former.iter().position(|it| it.connection == id) else { return };
        self.former[place].reader.push(piece);
        while self.former[place].commands > 0 {
            let former = &mut self.former[place];
            let message = match former.reader.next() {
                None => return self.ring.receive(id),
                Some(frame) => frame.and_then(|frame| frame.decode(&mut self.batches)),
            };
            match message {
                Ok(Message::Result { number, result }) => {
                    former.commands -= 1;
                    self.answer(number, &result);
                }
                Ok(Message::Refusal(_)) => {} // not served yet, or not again
                Ok(_) | Err(_) => break,
            }
        }
        self.end_former(id);
    }

    /// Ends calls whose deadline has passed, or that wait while no process answers; returns whether
    /// there were any.
    fn end_overdue(&mut self, now: Time) -> bool {
        let unsent = if self.outage.is_some() { CallError::Unreachable } else { CallError::Busy };
        let is_over = |outage: &Outage, most| {
            let is_tried = outage.tries >= self.options.addresses.len() && !outage.is_answered;
            is_tried && now.since(outage.since) >= most
        };
        let limits = self.outage.zip(self.options.unreachable_after);
        if limits.is_some_and(|(outage, most)| is_over(&outage, most)) {
            self.callers.give_up_unsent(CallError::Unreachable);
        }
        let mut has_ended = false;
        while self.callers.overdue(unsent, now).is_some() {
            has_ended = true;
        }
        has_ended
    }

    /// The index of the address that is tried, or was last.
    fn address_index(&self) -> usize {
        self.next_address % self.options.addresses.len()
    }

    /// Notes why the address that was tried cannot be used; `None` if it can.
    fn note_trouble(&self, why: Option<&str>) {
        self.shared.troubles()[self.address_index()] = why.map(str::to_owned);
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
        let address = self.options.addresses[self.address_index()];
        let end = self.dial.on_end(now);
        if end.is_news {
            warn!(%address, why, "cannot be reached");
        }
        let outage = self.outage.get_or_insert_with(|| Outage::new(now));
        outage.tries += usize::from(!end.was_up);
        self.note_trouble(Some(why));
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
