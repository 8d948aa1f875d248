//! A core: the roles that live on it, and the loop that drives them.
//!
//! ```text
//!   tick:   mailboxes of other cores ─┐
//!           residents' turns,         │
//!           clients' commands ────────┼─▶ inboxes of roles ──▶ roles ──▶ outbox
//!           due timers ───────────────┘         ▲                          │
//!                                               │   same core              │
//!                                               ├──────────────────────────┤
//!                                               │   after the sync: held   │
//!                                               └──────────────────────────┤
//!           until quiet; then one mailbox message a core, replies ◀────────┘
//! ```
//!
//! Each role takes its whole inbox before the next role has its turn, so its code and state are in cache
//! for all of it. What arrived while a tick ran is the next one's batch: nobody waits on purpose.
//!
//! A sync is where held promises and votes are let go. In memory there is nothing to wait for, but they
//! pass through the same lane: the loop releases them once everybody is quiet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_net::{MailboxReceiver, MailboxSender};
use loggos_protocol::{
    Client, ClientId, Cluster, Envelope, Incarnation, Outbox, Payload, Position, ReplicaId, Role,
    RoleId, StateMachine, Time, To,
};

use crate::client::{Answer, CallError, Executed, Port};
use crate::clock::Clock;
use crate::executor::{Alarm, Bed, yield_now};
use crate::random::random_u64;
use crate::resident::{Commands, MoveIn, Tenant};
use crate::status::{RoleStatus, Standing, Traffic};

/// Messages that wait for a role that is paused; what exceeds them is dropped and sent again by its
/// sender (R29).
const INBOX_MESSAGES_MAX: usize = 1 << 16;
/// Commands that one tick takes from the clients.
const SUBMISSIONS_A_TICK: usize = 4096;
/// How long a core sleeps at the most.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// What a core does when it has nothing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Idle {
    /// Keeps looking: the lowest latency, and a whole processor core for each core.
    Poll,
    /// Sleeps at once, until it is woken.
    Park,
    /// Keeps looking for a while, then sleeps.
    Adaptive {
        /// How long.
        poll_idle: Duration,
    },
}

/// Where every role of the process lives.
#[derive(Debug)]
pub(crate) struct Routes {
    gateways: Box<[Place]>,
    proposers: Box<[Place]>,
    proxy_leaders: Box<[Place]>,
    acceptors: Box<[Place]>,
    replicas: Box<[Place]>,
}

/// A role's core, and its place there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) core: usize,
    pub(crate) index: usize,
}

/// All that a core is started with.
#[derive(Debug)]
pub(crate) struct CorePlan {
    pub(crate) core: usize,
    pub(crate) cluster: Cluster,
    pub(crate) roles: Vec<RoleId>,
    pub(crate) routes: Arc<Routes>,
    /// To each other core, with what wakes it.
    pub(crate) senders: Vec<(usize, MailboxSender<Envelope>, Alarm)>,
    pub(crate) receivers: Vec<MailboxReceiver<Envelope>>,
    pub(crate) port: Arc<Port>,
    /// The role that the port's commands go to, if it lives here.
    pub(crate) gateway: Option<usize>,
    pub(crate) deadline: Duration,
    pub(crate) orders: Arc<SegQueue<Order>>,
    pub(crate) is_stopping: Arc<AtomicBool>,
    pub(crate) idle: Idle,
    pub(crate) alarm: Alarm,
    pub(crate) clock: Clock,
}

/// What a core can be told to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Ends a role, as a crash would.
    Kill(RoleId),
    /// Ends a role in good order: a leader hands over first.
    Retire(RoleId),
    /// Lets a role take nothing in for a while.
    Pause(RoleId, Duration),
    /// Starts a role over, with a blank memory.
    Restart(RoleId),
    /// Tells how everybody stands.
    Report(std::sync::mpsc::Sender<Vec<RoleStatus>>),
    /// Takes a resident in.
    MoveIn(MoveIn),
}

/// Who hears of a command's result.
#[derive(Debug)]
enum Recipient {
    /// Whoever holds the call's future.
    Call(Answer),
    /// A resident, which calls the command so.
    Resident { id: u64, tag: u64 },
}

/// A core at work.
pub(crate) struct Core<M> {
    plan: CorePlan,
    factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>,
    seats: Vec<Seat<M>>,
    client: Client<Recipient>,
    /// By id.
    residents: Vec<Tenant>,
    residents_count: u64,
    /// Which of them has the first turn, modulo their number.
    first_turn: usize,
    /// What residents submit in this tick.
    commands: Commands,
    out: Outbox,
    /// Messages that wait for the sync.
    held: Vec<Envelope>,
    /// When something is due next.
    next_due: Time,
    /// Messages in the inboxes of this core.
    pending: usize,
}

/// A role's place on a core.
struct Seat<M> {
    id: RoleId,
    /// `None` once it was killed.
    role: Option<Role<M>>,
    inbox: VecDeque<Envelope>,
    paused_until: Option<Time>,
    traffic: Traffic,
    cycles: u64,
}

impl Routes {
    pub(crate) fn new(cluster: &Cluster, place_of: impl Fn(RoleId) -> Place) -> Self {
        let gateways = (0..cluster.gateways).map(loggos_protocol::GatewayId);
        let replicas = (0..cluster.replicas).map(ReplicaId);
        Self {
            gateways: gateways.map(|id| place_of(RoleId::Gateway(id))).collect(),
            proposers: cluster.all_proposers().map(|id| place_of(RoleId::Proposer(id))).collect(),
            proxy_leaders: cluster
                .all_proxy_leaders()
                .map(|id| place_of(RoleId::ProxyLeader(id)))
                .collect(),
            acceptors: cluster
                .quorums
                .acceptors()
                .iter()
                .map(|id| place_of(RoleId::Acceptor(id)))
                .collect(),
            replicas: replicas.map(|id| place_of(RoleId::Replica(id))).collect(),
        }
    }

    fn to(&self, to: &To) -> Place {
        match to {
            To::Gateway(id, _) => self.gateways[usize::from(id.0)],
            To::Proposer(id, _) => self.proposers[usize::from(id.0)],
            To::ProxyLeader(id, _) => self.proxy_leaders[usize::from(id.0)],
            To::Acceptor(id, _) => self.acceptors[usize::from(id.0)],
            To::Replica(id, _) => self.replicas[usize::from(id.0)],
        }
    }

    pub(crate) fn role(&self, id: RoleId) -> Option<Place> {
        let (places, index) = match id {
            RoleId::Gateway(id) => (&self.gateways, id.0),
            RoleId::Proposer(id) => (&self.proposers, id.0),
            RoleId::ProxyLeader(id) => (&self.proxy_leaders, id.0),
            RoleId::Acceptor(id) => (&self.acceptors, id.0),
            RoleId::Replica(id) => (&self.replicas, id.0),
        };
        places.get(usize::from(index)).copied()
    }
}

impl<M: StateMachine> Core<M> {
    pub(crate) fn new(plan: CorePlan, factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>) -> Self {
        let now = plan.clock.now();
        let mut core = Self {
            client: Client::new(ClientId(0), plan.deadline),
            factory,
            seats: Vec::new(),
            residents: Vec::new(),
            residents_count: 0,
            first_turn: 0,
            commands: Commands::default(),
            out: Outbox::default(),
            held: Vec::new(),
            next_due: now,
            pending: 0,
            plan,
        };
        for id in core.plan.roles.clone() {
            let role = Some(core.make(id, now));
            let (inbox, traffic) = (VecDeque::new(), Traffic::default());
            core.seats.push(Seat { id, role, inbox, paused_until: None, traffic, cycles: 0 });
        }
        core
    }

    /// Runs until the cluster is told to stop. Must be called on the core's own executor.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        let bed = Bed::new(self.plan.alarm.clone())?;
        let poll_idle = match self.plan.idle {
            Idle::Poll => None,
            Idle::Park => Some(Duration::ZERO),
            Idle::Adaptive { poll_idle } => Some(poll_idle),
        };
        let mut busy_at = self.plan.clock.now();
        while !self.plan.is_stopping.load(Ordering::Relaxed) {
            let now = self.plan.clock.now();
            if self.tick(now) {
                busy_at = now;
            }
            yield_now().await;
            if poll_idle.is_some_and(|most| now.since(busy_at) >= most) {
                let now = self.plan.clock.now();
                let most = self.next_due.since(now).min(SLEEP_MAX);
                bed.sleep(most, || self.has_work(now)).await;
            }
        }
        // Whoever still waits for an answer is told that we have stopped, as the answers are dropped.
        self.plan.port.close();
        for recipient in self.client.stop() {
            recipient.hear(&mut self.residents, Err(CallError::Stopped));
        }
        Ok(())
    }

    /// Takes in all that has arrived and hands out all that follows from it; returns whether there was
    /// anything.
    fn tick(&mut self, now: Time) -> bool {
        let mut has_worked = self.receive();
        has_worked |= self.take_orders(now);
        has_worked |= self.take_turns(now);
        has_worked |= self.take_submissions(now);
        if now >= self.next_due {
            has_worked = true;
            self.take_time(now);
        }
        if !has_worked {
            return false;
        }
        self.submit(now);
        while self.pending > 0 || !self.held.is_empty() {
            self.exchange(now);
            self.sync();
            self.submit(now); // results have made room
        }
        self.answer();
        self.flush();
        self.next_due = self.find_next_due(now);
        true
    }

    fn receive(&mut self) -> bool {
        let (seats, pending) = (&mut self.seats, &mut self.pending);
        let routes = &self.plan.routes;
        let mut items = 0;
        for receiver in &mut self.plan.receivers {
            items += receiver.drain(|envelope| {
                *pending += seats[routes.to(&envelope.to).index].take_in(envelope);
            });
        }
        items > 0
    }

    /// Gives residents their turns.
    ///
    /// Where room is short everybody gets an equal part, callers at the port among them, and another is the
    /// first to choose: whoever always wants more takes nobody else's.
    fn take_turns(&mut self, now: Time) -> bool {
        let room = self.room();
        let due = self.residents.iter().filter(|tenant| tenant.is_due(now, room)).count();
        if due == 0 {
            return false;
        }
        let share = (room / (due + usize::from(!self.plan.port.is_empty()))).max(1);
        let mut commands = std::mem::take(&mut self.commands);
        let count = self.residents.len();
        self.first_turn += 1;
        for offset in 0..count {
            let place = (self.first_turn + offset) % count;
            let share = share.min(self.room());
            let tenant = &mut self.residents[place];
            if !tenant.is_due(now, share) {
                continue;
            }
            let id = tenant.id;
            tenant.turn(&mut commands, share, now);
            for (tag, command) in commands.iter() {
                let recipient = Recipient::Resident { id, tag };
                self.client.submit(recipient, Payload::copy(command), now);
            }
            commands.clear();
        }
        self.commands = commands;
        self.residents.retain(|tenant| !tenant.has_left);
        true
    }

    /// Takes in what callers have submitted at the port.
    fn take_submissions(&mut self, now: Time) -> bool {
        if self.plan.gateway.is_none() {
            return false;
        }
        let waiting = self.plan.port.len().min(SUBMISSIONS_A_TICK).min(self.room());
        if waiting == 0 {
            return false;
        }
        for _ in 0..waiting {
            let Some(submission) = self.plan.port.pop() else { break };
            self.client.submit(Recipient::Call(submission.answer), submission.command, now);
        }
        true
    }

    /// How many commands more this core takes in: what exceeds the session waits at the port, and its
    /// callers with it (R29).
    fn room(&self) -> usize {
        (self.plan.cluster.session_window as usize).saturating_sub(self.client.under_way())
    }

    /// Gives the gateway what it has room for; the last batch is closed after it. Where the gateway is
    /// down or paused, commands wait for their deadline.
    fn submit(&mut self, now: Time) {
        let Some(index) = self.plan.gateway.filter(|_| self.client.is_waiting()) else { return };
        let seat = &mut self.seats[index];
        let Some(Role::Gateway(gateway)) = &mut seat.role else { return };
        if seat.paused_until.is_some() {
            return;
        }
        let started = self.plan.clock.cycles();
        while let Some((caller, command)) = self.client.next(|bytes| gateway.has_room(bytes)) {
            gateway.submit(caller, command.as_slice(), now, &mut self.out);
        }
        gateway.flush(now, &mut self.out);
        seat.cycles += self.plan.clock.cycles() - started;
        self.post(index);
    }

    /// Fires due timers.
    fn take_time(&mut self, now: Time) {
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
        while let Some((recipient, why)) = self.client.overdue(now) {
            recipient.hear(&mut self.residents, Err(why.into()));
        }
    }

    /// Lets every role take its inbox, until all are empty.
    fn exchange(&mut self, now: Time) {
        while self.pending > 0 {
            for index in 0..self.seats.len() {
                let seat = &mut self.seats[index];
                if seat.inbox.is_empty() || seat.paused_until.is_some() {
                    continue;
                }
                let started = self.plan.clock.cycles();
                let messages = seat.inbox.len();
                self.pending -= messages;
                seat.traffic.messages_in += messages as u64;
                match &mut seat.role {
                    Some(role) => {
                        for envelope in seat.inbox.drain(..) {
                            role.on_envelope(envelope, now, &mut self.out);
                        }
                    }
                    None => seat.inbox.clear(),
                }
                self.post(index);
                self.seats[index].cycles += self.plan.clock.cycles() - started;
            }
        }
    }

    /// Makes what the acceptors of this core have promised and voted durable, then lets it be known. In
    /// memory that is no work; the lane is the same.
    ///
    /// source: R31
    fn sync(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        for envelope in held.drain(..) {
            self.route(envelope);
        }
        self.held = held;
    }

    /// Takes what the role of `index` wants done out of the outbox.
    fn post(&mut self, index: usize) {
        let formation = match &self.seats[index].role {
            Some(role) => role.formation(),
            None => None,
        };
        let mut sends = std::mem::take(&mut self.out.sends);
        self.seats[index].traffic.messages_out += (sends.len() + self.out.held.len()) as u64;
        for to in sends.drain(..) {
            self.route(Envelope { formation, to });
        }
        self.out.sends = sends;
        self.held.extend(self.out.held.drain(..).map(|to| Envelope { formation, to }));
        for event in self.out.events.drain(..) {
            crate::status::tell(&event);
        }
    }

    fn route(&mut self, envelope: Envelope) {
        let place = self.plan.routes.to(&envelope.to);
        if place.core == self.plan.core {
            self.pending += self.seats[place.index].take_in(envelope);
            return;
        }
        let sender = self.plan.senders.iter_mut().find(|(core, ..)| *core == place.core);
        let (_, sender, _) = sender.expect("every other core has a mailbox");
        sender.push(envelope);
    }

    /// Hands results to the callers.
    fn answer(&mut self) {
        for (caller, reply) in self.out.replies.iter() {
            if let Some(recipient) = self.client.on_reply(caller.tag) {
                recipient.hear(&mut self.residents, reply.map_err(CallError::from));
            }
        }
        self.out.replies.clear();
    }

    /// Sends each other core what this tick has for it, as one message.
    fn flush(&mut self) {
        for (_, sender, alarm) in &mut self.plan.senders {
            if sender.flush() {
                alarm.ring();
            }
        }
    }

    fn has_work(&self, now: Time) -> bool {
        !self.plan.port.is_empty() && self.plan.gateway.is_some() && self.room() > 0
            || self.plan.receivers.iter().any(|receiver| !receiver.is_empty())
            || !self.plan.orders.is_empty()
            || self.residents.iter().any(|tenant| tenant.is_due(now, self.room()))
            || self.plan.senders.iter().any(|(_, sender, _)| sender.is_waiting())
            || self.plan.is_stopping.load(Ordering::Relaxed)
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
        let residents = self.residents.iter().filter_map(|tenant| tenant.due);
        residents.chain(self.client.next_timeout()).fold(next, Time::min)
    }

    fn take_orders(&mut self, now: Time) -> bool {
        let mut has_worked = false;
        while let Some(order) = self.plan.orders.pop() {
            has_worked = true;
            match order {
                Order::Kill(id) => {
                    if let Some(seat) = self.seat_mut(id) {
                        seat.role = None;
                    }
                }
                Order::Retire(id) => self.retire(id),
                Order::Pause(id, most) => {
                    if let Some(seat) = self.seat_mut(id) {
                        let waiting = seat.inbox.len();
                        let was_paused = seat.paused_until.replace(now + most).is_some();
                        self.pending -= if was_paused { 0 } else { waiting };
                    }
                }
                Order::Restart(id) => {
                    let role = self.make(id, now);
                    if let Some(seat) = self.seat_mut(id) {
                        seat.role = Some(role);
                    }
                }
                Order::Report(to) => drop(to.send(self.statuses())), // nobody may wait any more
                Order::MoveIn(MoveIn(make)) => {
                    self.residents.push(Tenant::new(self.residents_count, make(), now));
                    self.residents_count += 1;
                }
            }
        }
        has_worked
    }

    fn retire(&mut self, id: RoleId) {
        let Some(index) = self.seats.iter().position(|seat| seat.id == id) else { return };
        if let Some(Role::Proposer(proposer)) = &mut self.seats[index].role {
            proposer.leave(&mut self.out);
            self.post(index);
        }
        self.seats[index].role = None;
    }

    fn seat_mut(&mut self, id: RoleId) -> Option<&mut Seat<M>> {
        self.seats.iter_mut().find(|seat| seat.id == id)
    }

    fn make(&self, id: RoleId, now: Time) -> Role<M> {
        let life = (Incarnation(random_u64()), random_u64());
        Role::start(self.plan.cluster.clone(), id, life, now, |replica| (self.factory)(replica))
    }

    fn statuses(&self) -> Vec<RoleStatus> {
        let statuses = self.seats.iter().map(|seat| RoleStatus {
            role: seat.id,
            core: self.plan.core,
            standing: seat.role.as_ref().map_or(Standing::Down, Standing::of),
            traffic: seat.traffic,
            busy: self.plan.clock.duration(seat.cycles),
        });
        statuses.collect()
    }
}

impl<M> Seat<M> {
    /// Puts a message in the inbox; returns how many more are pending for that.
    fn take_in(&mut self, envelope: Envelope) -> usize {
        if self.paused_until.is_some() && self.inbox.len() >= INBOX_MESSAGES_MAX {
            self.traffic.dropped += 1;
            return 0;
        }
        self.inbox.push_back(envelope);
        usize::from(self.paused_until.is_none())
    }
}

impl Recipient {
    fn hear(self, residents: &mut [Tenant], result: Result<(Position, &[u8]), CallError>) {
        match self {
            Self::Call(answer) => {
                answer.give(result.map(|(at, reply)| Executed { at, reply: Payload::copy(reply) }));
            }
            Self::Resident { id, tag } => {
                // Whoever has moved out hears nothing.
                if let Ok(place) = residents.binary_search_by_key(&id, |tenant| tenant.id) {
                    residents[place].on_result(tag, result);
                }
            }
        }
    }
}
