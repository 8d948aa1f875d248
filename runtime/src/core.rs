//! A core: the roles that live on it, and the loop that drives them.
//!
//! ```text
//!   tick:   mailboxes, ring, orders ──┐
//!           residents' turns,         │
//!           clients' commands ────────┼─▶ inboxes of roles ──▶ roles ──▶ outbox
//!           due timers ───────────────┘         ▲                          │
//!                                               │   same core              │
//!                                               ├──────────────────────────┤
//!                                               │   after the sync: held   ├──▶ mailboxes
//!                                               └──────────────────────────┤
//!           until quiet; then replies, a write of the log, a send a socket ◀┘
//! ```
//!
//! Each role takes its whole inbox before the next role has its turn, so its code and state are in
//! cache for all of it. What arrived while a tick ran is the next one's batch: no message waits on
//! purpose.
//!
//! Other cores get what a tick has for them piece by piece, not all at its end: after each batch
//! that was formed and each that was executed, they can go on with it. Otherwise the cores of a
//! process would take turns: all that is in flight would be with one of them at a time.
//!
//! Held promises and votes are released by a sync. In memory there is nothing to wait for, but they
//! pass through the same lane: the loop releases them once all inboxes are empty. Those of durable
//! acceptors wait in the core's [`Log`] until a write has completed that covers their records, and
//! the loop goes on meanwhile: what was appended since is the next write.

mod durable;
mod network;
mod orders;
mod plan;
mod routes;
mod seats;
mod snapshots;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loggos_net::{MailboxReceiver, Ring, RingEvent};
use loggos_protocol::{
    ClusterSettings, Envelope, Event, Outbox, Query, ReplicaId, Role, StateMachine, Submission,
    Time, To, ToReplica,
};

pub(crate) use self::orders::{Order, Sibling};
pub(crate) use self::plan::{CorePlan, NetworkPlan, Outlet};
pub(crate) use self::routes::{Place, Routes};
use self::seats::Seat;
use self::status::StatusRequest;
use crate::alarm::Alarm;
use crate::callers::{CALLS_A_TICK, Callers};
use crate::client::CallError;
use crate::clock::Clock;
use crate::executor::yield_now;
use crate::idle::IdlePolicy;
use crate::log::Log;
use crate::ring_report::RingReport;
use crate::snapshots::Snapshots;
use crate::sockets::Sockets;
use crate::status::CoreTime;
use crate::trace::{Doing, Tracing, Turn};

/// The bytes of commands that a replica executes before other cores get what it has said of them.
const SHARE_BYTES: usize = 8 * 1024;
/// The longest sleep of a core.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A core at work.
pub(crate) struct Core<M> {
    /// Its number in this process.
    core: usize,
    cluster: ClusterSettings,
    routes: Arc<Routes>,
    /// All cores of this process, this one among them.
    siblings: Arc<[Sibling]>,
    /// Makes the state machine of a replica.
    factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>,
    clock: Clock,
    idle: IdlePolicy,
    is_stopping: Arc<AtomicBool>,

    seats: Vec<Seat<M>>,
    /// The seat of the gateway that callers of this core have, if it lives here.
    gateway: Option<usize>,
    callers: Callers,
    /// To each core of this process; `None` in the place of this one.
    outlets: Vec<Option<Outlet>>,
    /// From each other core.
    inlets: Vec<MailboxReceiver<Envelope>>,
    /// All I/O of the core: its sockets', its log's and its sleep.
    ring: Ring,
    /// The ring's events of connections, until the sockets have taken them in.
    events: Vec<RingEvent>,
    /// `None` where all roles live in this process.
    sockets: Option<Sockets>,
    ring_report: RingReport,
    /// `None` where no durable acceptor lives on this core.
    log: Option<Log>,
    /// `None` where no durable replica lives on this core.
    snapshots: Option<Snapshots>,
    /// Whether a replica may have to start over: it has halted in this tick or the last, or has
    /// noted that it can go on.
    has_replica_to_start_over: bool,
    status_requests: Vec<StatusRequest>,
    /// Whether the cluster serves the gateway that callers of this core have, and how that was last
    /// told.
    is_served: bool,
    /// The time when this core had last stood still for so long that it may not have heard yet what
    /// has come meanwhile; or when it began.
    stood_still_at: Time,

    /// The effects of the role that has its turn.
    out: Outbox,
    /// Events that are not to be logged again.
    logged_events: Vec<Event>,
    /// Messages of acceptors in memory, held until all inboxes are empty.
    held_in_memory: Vec<Envelope>,
    /// Messages in the inboxes of this core, those of paused roles left out.
    pending: usize,
    /// The time of this tick.
    now: Time,
    /// The time when something is due next.
    next_due: Time,
    /// Ticks that had something to do. Never goes down.
    ticks: u64,
    time: CoreTime,
    /// Clock cycles that the callers of this core took.
    callers_cycles: u64,
    /// The trace that was asked for, until it is over.
    tracing: Option<Tracing>,
}

impl<M: StateMachine> Core<M> {
    /// Opens the core's ring and starts its roles. Must be called on the core's own thread, to
    /// which the ring belongs.
    ///
    /// Also returns the address that it listens on, if any.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the ring, or the address is not available: the text says what to set.
    pub(crate) fn start(
        plan: CorePlan,
        factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>,
    ) -> io::Result<(Self, Option<SocketAddr>)> {
        let us = &plan.siblings[plan.core];
        let ring = plan::open_ring(us.alarm(), plan.recorder)?;
        let listen_at = plan.network.as_ref().and_then(|network| network.listen);
        let now = plan.clock.now();
        let window = plan.cluster.session_window as usize;
        let mut core = Self {
            core: plan.core,
            routes: plan.routes,
            siblings: plan.siblings,
            factory,
            idle: IdlePolicy::new(plan.idle, now),
            clock: plan.clock,
            is_stopping: plan.is_stopping,
            seats: plan.roles.into_iter().map(Seat::new).collect(),
            gateway: plan.gateway,
            callers: Callers::new(plan.port, plan.deadline, window),
            outlets: plan.outlets,
            inlets: plan.inlets,
            ring,
            events: Vec::new(),
            sockets: plan.network.map(|network| network.open(&plan.cluster)),
            ring_report: RingReport::new("a core"),
            log: plan.log,
            snapshots: plan.snapshots,
            has_replica_to_start_over: false,
            status_requests: Vec::new(),
            is_served: true,
            stood_still_at: now,
            out: Outbox { is_tracing: crate::status::is_tracing(), ..Outbox::default() },
            logged_events: Vec::new(),
            held_in_memory: Vec::new(),
            pending: 0,
            now,
            next_due: now,
            ticks: 0,
            time: CoreTime::default(),
            callers_cycles: 0,
            tracing: None,
            cluster: plan.cluster,
        };
        for index in 0..core.seats.len() {
            core.begin_life(index, now);
        }
        // Not before: a node that listens must answer, and state machines may take long to make.
        let address = listen_at.map(|at| plan::listen(&mut core.ring, at)).transpose()?;
        Ok((core, address))
    }

    /// Runs until the process is told to stop. Must be called on the core's own executor.
    pub(crate) async fn run(mut self) {
        let mut now = self.clock.now();
        while !self.is_stopping.load(Ordering::Relaxed) {
            let has_worked = self.tick(now);
            let may_sleep = self.idle.may_sleep(now, has_worked);
            yield_now().await;
            let began = std::mem::replace(&mut now, self.clock.now());
            if has_worked {
                self.time.busy += now.since(began);
                self.trace(Doing::Tick, |_| (began, now));
            } else {
                self.time.polling += now.since(began);
            }
            if may_sleep {
                self.sleep(now);
                let slept = std::mem::replace(&mut now, self.clock.now());
                self.time.asleep += now.since(slept);
                self.trace(Doing::Sleep, |_| (slept, now));
                self.idle.woke(now);
            } else {
                self.idle.offer(began);
            }
        }
        if self.gateway.is_some() {
            self.callers.stop();
        }
    }

    /// Notes what the core has done from one time to another, if it is traced.
    #[inline]
    fn trace(&mut self, doing: Doing, times: impl FnOnce(&Clock) -> (Time, Time)) {
        if let Some(tracing) = &mut self.tracing {
            let (from, to) = times(&self.clock);
            tracing.note(Turn { doing, from, to });
            if tracing.is_over(to)
                && let Some(tracing) = self.tracing.take()
            {
                tracing.end(self.core);
            }
        }
    }

    /// Notes what it has done since the counter said `started`; returns for how many cycles.
    #[inline]
    fn note_turn(&mut self, doing: Doing, started: u64) -> u64 {
        let ended = self.clock.cycles();
        self.trace(doing, |clock| (clock.time(started), clock.time(ended)));
        ended - started
    }

    /// Sleeps in the ring until it has something, the alarm rings or something is due.
    fn sleep(&mut self, now: Time) {
        let most = self.next_due.since(now).min(SLEEP_MAX);
        if self.alarm().begin_sleep(|| self.has_work(now)) {
            self.ring_report.sleep(&mut self.ring, most);
        }
        self.alarm().end_sleep();
    }

    /// Takes in all that has arrived and hands out all that follows from it; returns whether there
    /// was anything.
    fn tick(&mut self, now: Time) -> bool {
        if now.since(self.now) > self.cluster.election_timeout / 2 {
            self.stood_still_at = now;
        }
        self.now = now;
        let mut has_worked = self.drain_mailboxes();
        has_worked |= self.poll_ring(now);
        has_worked |= self.take_orders(now);
        has_worked |= self.tell_status(now);
        has_worked |= self.has_calls(now);
        has_worked |= self.take_time(now);
        // What a full mailbox did not take is tried again, whether there is anything new or not.
        has_worked |= self.has_waiting_outlet();
        if !has_worked {
            return false;
        }
        self.ticks += 1;
        // As many as there is room for at its beginning: answers make more, and callers that always
        // want more would keep it from ending. And no more than a tick should take.
        let mut calls_left = self.callers.room().min(CALLS_A_TICK);
        loop {
            let calls = self.take_calls(calls_left, now);
            calls_left -= calls;
            let has_more = self.submit(now) || calls > 0 && calls_left > 0 && self.has_calls(now);
            if self.pending == 0 && !self.can_release() && !has_more {
                break;
            }
            self.exchange(now);
            self.release();
            self.hand_over();
        }
        self.write_log(now);
        self.answer();
        self.watch_service(now);
        self.flush(now);
        self.next_due = self.find_next_due(now);
        true
    }

    /// Takes in what other cores of this process have sent; returns whether there was anything.
    fn drain_mailboxes(&mut self) -> bool {
        let (seats, pending, routes) = (&mut self.seats, &mut self.pending, &self.routes);
        let mut items = 0;
        for inlet in &mut self.inlets {
            items += inlet.drain(|envelope| match routes.place(envelope.to.role()) {
                Some(Place::Here { index, .. }) => *pending += seats[index].take_in(envelope),
                Some(Place::There { .. }) | None => {
                    unreachable!("mailboxes are for roles of this process")
                }
            });
        }
        items > 0
    }

    /// Takes in what the ring has done, for the sockets and for the log; returns whether there was
    /// anything.
    fn poll_ring(&mut self, now: Time) -> bool {
        self.ring_report.poll(&mut self.ring, &mut self.events);
        let has_events = !self.events.is_empty();
        let has_incoming = self.poll_sockets(now);
        let has_log_work = self.poll_log(now);
        let has_snapshots = self.poll_snapshots(now);
        has_events | has_incoming | has_log_work | has_snapshots
    }

    /// Whether residents or futures have commands, where the gateway is.
    fn has_calls(&self, now: Time) -> bool {
        self.gateway.is_some() && self.callers.has_work(now)
    }

    /// Gives residents their turns and takes in the commands of futures, where the gateway is: up
    /// to a batch, and at the most so many. Returns how many were taken in.
    fn take_calls(&mut self, calls_max: usize, now: Time) -> usize {
        let Some(index) = self.gateway else { return 0 };
        let most = calls_max.min(self.cluster.batch_commands_max as usize);
        let seat = &mut self.seats[index];
        let mut gateway = match &mut seat.role {
            Some(Role::Gateway(gateway)) if seat.paused_until.is_none() => Some(gateway),
            Some(_) | None => None,
        };
        let (started, out) = (self.clock.cycles(), &mut self.out);
        let of_residents = self.callers.take_turns(most, now, |caller, command| {
            gateway.as_mut().is_some_and(|it| it.try_submit(caller, command.into(), now, out))
        });
        self.callers_cycles += self.note_turn(Doing::Callers, started);
        if of_residents > 0 {
            self.post(index);
        }
        of_residents + self.callers.take_submissions(most - of_residents, now)
    }

    /// Fires due timers; returns whether it was time for that.
    fn take_time(&mut self, now: Time) -> bool {
        if now < self.next_due {
            return false;
        }
        for index in 0..self.seats.len() {
            let seat = &mut self.seats[index];
            if seat.paused_until.take_if(|until| *until <= now).is_some() {
                self.pending += seat.inbox.len();
            }
            if let Some(role) = seat.role.as_mut().filter(|_| seat.paused_until.is_none()) {
                role.on_time(now, &mut self.out);
                self.post(index);
            }
        }
        if let Some(sockets) = &mut self.sockets {
            sockets.on_time(&mut self.ring, now);
        }
        if let Some(log) = &mut self.log {
            log.on_time(&mut self.ring, now);
        }
        while let Some(told) = self.callers.overdue(&CallError::Busy, now) {
            if let (Some(told), Some(sockets)) = (told, &mut self.sockets) {
                sockets.answer(&mut self.ring, told);
            }
        }
        true
    }

    /// Submits waiting commands while the gateway has room, up to the end of a batch that is full;
    /// if there is none, closes the last. Returns whether there may be more. Where the gateway is
    /// down or paused, commands wait for their deadline.
    fn submit(&mut self, now: Time) -> bool {
        let Some(index) = self.gateway else { return false };
        let seat = &mut self.seats[index];
        let Some(Role::Gateway(gateway)) = &mut seat.role else { return false };
        let has_nothing = !self.callers.is_waiting() && !gateway.is_forming();
        if has_nothing || seat.paused_until.is_some() {
            return false;
        }
        let started = self.clock.cycles();
        while self.out.sends.is_empty()
            && let Some((caller, owner, command)) =
                self.callers.next(|bytes| gateway.has_room(bytes, now))
        {
            let submission = Submission { owner, command: command.as_slice() };
            gateway.submit(caller, submission, now, &mut self.out);
        }
        let has_more = !self.out.sends.is_empty();
        while let Some((caller, level, query)) =
            self.callers.next_read(|level, bytes| gateway.read_group(level, bytes))
        {
            let query = Query { level, bytes: query.as_slice() };
            gateway.read(caller, query, now, &mut self.out);
        }
        if !has_more {
            gateway.flush(now, &mut self.out);
        }
        let doing = Doing::Role(seat.id);
        self.seats[index].cycles += self.note_turn(doing, started);
        self.post(index);
        has_more
    }

    /// Lets every role take its inbox, until all are empty.
    fn exchange(&mut self, now: Time) {
        while self.pending > 0 {
            for index in 0..self.seats.len() {
                while !self.seats[index].inbox.is_empty()
                    && self.seats[index].paused_until.is_none()
                {
                    self.take_turn(index, now);
                    self.hand_over();
                }
            }
        }
    }

    /// Lets a role take its inbox, or of one that has much to execute a share; then empties the
    /// outbox.
    fn take_turn(&mut self, index: usize, now: Time) {
        let started = self.clock.cycles();
        let seat = &mut self.seats[index];
        let before = seat.inbox.len();
        match &mut seat.role {
            Some(role) => {
                let mut bytes_left = SHARE_BYTES;
                while bytes_left > 0
                    && let Some(envelope) = seat.inbox.pop_front()
                {
                    bytes_left = bytes_left.saturating_sub(execution_bytes(&envelope.to));
                    let is_too_much = |log: &Log| log.is_too_much(&envelope.to);
                    if self.log.as_ref().is_some_and(is_too_much) {
                        seat.traffic.dropped += 1;
                    } else {
                        role.on_envelope(envelope, now, &mut self.out);
                    }
                }
            }
            None => seat.inbox.clear(),
        }
        let messages = before - seat.inbox.len();
        self.pending -= messages;
        seat.traffic.messages_in += messages as u64;
        self.post(index);
        let doing = Doing::Role(self.seats[index].id);
        self.seats[index].cycles += self.note_turn(doing, started);
    }

    /// Empties the outbox after the turn of the role in seat `index`: its messages, held messages,
    /// records and events.
    fn post(&mut self, index: usize) {
        let formation = self.seats[index].role.as_ref().and_then(Role::formation);
        let mut sends = std::mem::take(&mut self.out.sends);
        self.seats[index].traffic.messages_out += (sends.len() + self.out.held.len()) as u64;
        for to in sends.drain(..) {
            self.route(Envelope { formation, to });
        }
        self.out.sends = sends;
        if let (Some(log), Some(Role::Acceptor(acceptor))) =
            (&mut self.log, &self.seats[index].role)
        {
            log.take(acceptor, &mut self.out);
        }
        assert!(self.out.records.is_empty(), "a record of a role without a log");
        self.order_snapshots(index);
        self.held_in_memory.extend(self.out.held.drain(..).map(|to| Envelope { formation, to }));
        for event in self.out.events.drain(..) {
            self.has_replica_to_start_over |=
                matches!(event, Event::Halted { .. } | Event::Skips { .. });
            // These come again and again for as long as their cause lasts; once is enough to tell.
            let is_repeated = matches!(
                event,
                Event::Forgotten { .. }
                    | Event::Foreign { .. }
                    | Event::NoSnapshots { .. }
                    | Event::OriginsDiffer { .. }
                    | Event::SkipRefused { .. }
            );
            if !is_repeated || !self.logged_events.contains(&event) {
                crate::status::tell(&event, self.seats[index].id);
                self.logged_events.extend(is_repeated.then_some(event));
            }
        }
    }

    /// Puts a message on its way, to an inbox of this core, a mailbox or a link.
    fn route(&mut self, envelope: Envelope) {
        match self.routes.place(envelope.to.role()) {
            None => {}
            Some(Place::Here { core, index }) => match &mut self.outlets[core] {
                None => self.pending += self.seats[index].take_in(envelope),
                Some(outlet) => outlet.mailbox.push(envelope, |envelope| envelope.to.is_urgent()),
            },
            Some(Place::There { link }) => {
                let sockets = self.sockets.as_mut().expect("other nodes are reached by sockets");
                sockets.send(&mut self.ring, link, &envelope, self.now);
            }
        }
    }

    /// Hands results to the callers.
    fn answer(&mut self) {
        if self.out.replies.is_empty() {
            return;
        }
        let started = self.clock.cycles();
        for (caller, reply) in self.out.replies.iter() {
            let told = self.callers.answer(caller.tag, reply);
            if let (Some(told), Some(sockets)) = (told, &mut self.sockets) {
                sockets.answer(&mut self.ring, told);
            }
        }
        self.out.replies.clear();
        self.callers_cycles += self.note_turn(Doing::Callers, started);
    }

    /// Sends each other core of this process what there is for it so far.
    fn hand_over(&mut self) {
        for outlet in self.outlets.iter_mut().flatten() {
            if outlet.mailbox.flush() {
                outlet.alarm.ring();
            }
        }
    }

    /// Sends each connection what the tick has for it, as one send.
    fn flush(&mut self, now: Time) {
        self.hand_over();
        if let Some(sockets) = &mut self.sockets {
            sockets.end_replies(&mut self.ring);
            sockets.note_idle_links(&mut self.ring, now);
        }
        self.ring.flush();
    }

    /// Whether there is work for which neither a timer nor a completion of the ring would wake this
    /// core.
    fn has_work(&self, now: Time) -> bool {
        let can_read_on = |sockets: &Sockets| sockets.is_stalled() && self.callers.room() > 0;
        self.has_calls(now)
            || self.inlets.iter().any(|inlet| !inlet.is_empty())
            || self.siblings[self.core].has_orders()
            || self.has_waiting_outlet()
            || self.log.as_ref().is_some_and(Log::has_work)
            || self.snapshots.as_ref().is_some_and(Snapshots::has_answered)
            || self.sockets.as_ref().is_some_and(can_read_on)
            || self.is_stopping.load(Ordering::Relaxed)
    }

    fn has_waiting_outlet(&self) -> bool {
        self.outlets.iter().flatten().any(|outlet| outlet.mailbox.is_waiting())
    }

    fn find_next_due(&mut self, now: Time) -> Time {
        let mut next = now + SLEEP_MAX;
        for seat in &mut self.seats {
            match (&mut seat.role, seat.paused_until) {
                (_, Some(until)) => next = next.min(until),
                (Some(role), None) => next = next.min(role.next_timeout().unwrap_or(next)),
                (None, None) => {}
            }
        }
        let sockets = self.sockets.as_ref().map(Sockets::next_timeout);
        let log = self.log.as_ref().and_then(Log::next_timeout);
        sockets.into_iter().chain(log).chain(self.callers.next_timeout()).fold(next, Time::min)
    }

    /// The alarm of this core.
    fn alarm(&self) -> &Alarm {
        self.siblings[self.core].alarm()
    }
}

/// The bytes of commands that a message has its role execute.
fn execution_bytes(to: &To) -> usize {
    match to {
        To::Replica(_, ToReplica::Chosen(chosen)) => {
            chosen.value.batch().map_or(0, |batch| batch.block.len())
        }
        To::Replica(..)
        | To::Gateway(..)
        | To::Proposer(..)
        | To::ProxyLeader(..)
        | To::Acceptor(..) => 0,
    }
}
