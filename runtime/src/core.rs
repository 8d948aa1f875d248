//! A core: the roles that live on it, and the loop that drives them.
//!
//! ```text
//!   tick:   mailboxes, sockets ───────┐
//!           residents' turns,         │
//!           clients' commands ────────┼─▶ inboxes of roles ──▶ roles ──▶ outbox
//!           due timers ───────────────┘         ▲                          │
//!                                               │   same core              │
//!                                               ├──────────────────────────┤
//!                                               │   after the sync: held   │
//!                                               └──────────────────────────┤
//!           until quiet; then replies, one message a mailbox, a send a socket ◀┘
//! ```
//!
//! Each role takes its whole inbox before the next role has its turn, so its code and state are in cache
//! for all of it. What arrived while a tick ran is the next one's batch: nobody waits on purpose.
//!
//! A sync is where held promises and votes are let go. In memory there is nothing to wait for, but they
//! pass through the same lane: the loop releases them once everybody is quiet. Durable ones wait in the core's
//! [`Log`] until a write has completed that covers what they rest on, and the loop goes on meanwhile: what
//! was appended since is the next write.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use loggos_net::{
    ConnectionId, MailboxReceiver, MailboxSender, Ring, RingEvent, RingOptions, RingRecord,
};
use loggos_protocol::{
    AcceptorId, Cluster, Envelope, Event, GatewayId, Incarnation, Outbox, ProposerId,
    ProxyLeaderId, ReplicaId, Role, RoleId, StateMachine, Time, To,
};

use crate::alarm::Alarm;
use crate::callers::{Callers, RemoteCall};
use crate::client::{CallError, Port};
use crate::clock::Clock;
use crate::executor::yield_now;
use crate::idle::{Idle, Vigil};
use crate::log::{Log, LogStatus};
use crate::random::random_u64;
use crate::resident::MoveIn;
use crate::sockets::{Identity, Incoming, Remote, Sockets, Visitor};
use crate::status::{CoreStatus, RoleStatus, Standing, Traffic, to_json};
use tracing::{error, warn};

/// Messages that wait for a role that is paused; what exceeds them is dropped and sent again by its
/// sender (R29).
const INBOX_MESSAGES_MAX: usize = 1 << 16;
/// How long a core may take to tell how its roles stand; whoever asked does without it then.
const REPORT_MAX: Duration = Duration::from_secs(1);
/// How long a core sleeps at the most.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// How long a node waits for an address that is in use.
const ADDRESS_MAX: Duration = Duration::from_secs(2);
const ADDRESS_PAUSE: Duration = Duration::from_millis(10);

/// Where every role of the process lives.
#[derive(Debug)]
pub(crate) struct Routes {
    gateways: Box<[Place]>,
    proposers: Box<[Place]>,
    proxy_leaders: Box<[Place]>,
    acceptors: Box<[Place]>,
    replicas: Box<[Place]>,
}

/// Where a role lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// On a core of this process, in that place there.
    Here { core: usize, index: usize },
    /// On a core of another node, reached over that link.
    There { link: usize },
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
    /// All cores of this process, in order.
    pub(crate) siblings: Arc<[Sibling]>,
    /// What it takes to talk to other processes, if the cluster has several.
    pub(crate) network: Option<NetworkPlan>,
    /// Of the acceptors that live here, if they are durable.
    pub(crate) log: Option<Log>,
    /// Hears of what the ring does, in tests.
    pub(crate) recorder: Option<mpsc::Sender<RingRecord>>,
}

/// What a core's sockets are started with.
#[derive(Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) identity: Identity,
    pub(crate) remotes: Arc<[Remote]>,
    /// Where this core accepts other nodes and clients, if it is the one that does.
    pub(crate) listen: Option<SocketAddr>,
}

/// How to reach a core of this process from another one.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(crate) orders: Arc<SegQueue<Order>>,
    pub(crate) alarm: Alarm,
}

impl Sibling {
    pub(crate) fn order(&self, order: Order) {
        self.orders.push(order);
        self.alarm.ring();
    }
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
    /// Tells how everybody stands, and wakes who waits for it.
    Report(mpsc::Sender<CoreStatus>, Option<Alarm>),
    /// Takes a resident in.
    MoveIn(MoveIn),
    /// Takes a connection over from another core.
    Adopt(Visitor),
}

/// A core at work.
pub(crate) struct Core<M> {
    plan: CorePlan,
    factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>,
    seats: Vec<Seat<M>>,
    callers: Callers,
    /// All I/O of the core: its sockets', its log's and its sleep.
    ring: Ring,
    /// What the ring has told of connections, until the sockets have taken it in.
    events: Vec<RingEvent>,
    /// `None` where all roles live in this process.
    sockets: Option<Sockets>,
    /// `None` where no durable acceptor lives on this core.
    log: Option<Log>,
    /// Who asked how this process stands, and the cores' answers on their way.
    status_requests: Vec<StatusRequest>,
    out: Outbox,
    /// What need not be told again.
    told: Vec<Event>,
    /// Messages that wait for the sync.
    held: Vec<Envelope>,
    /// The time of this tick.
    now: Time,
    /// Ticks that had something to do.
    ticks: u64,
    /// When something is due next.
    next_due: Time,
    /// Messages in the inboxes of this core.
    pending: usize,
}

/// Somebody who asked how this process stands.
struct StatusRequest {
    from: ConnectionId,
    since: Time,
    reports: mpsc::Receiver<CoreStatus>,
    /// What has come so far.
    cores: Vec<CoreStatus>,
}

/// A role's place on a core.
struct Seat<M> {
    id: RoleId,
    /// `None` once it was killed, or its log has failed.
    role: Option<Role<M>>,
    /// Whether it is to start over, once what its former life has left is settled.
    is_to_start: bool,
    inbox: VecDeque<Envelope>,
    paused_until: Option<Time>,
    traffic: Traffic,
    cycles: u64,
}

impl Routes {
    pub(crate) fn new(cluster: &Cluster, place_of: impl Fn(RoleId) -> Place) -> Self {
        let gateways = (0..cluster.gateways).map(GatewayId);
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

    /// Where a message goes: nowhere, if it answers somebody who named a role that the cluster has not.
    fn to(&self, to: &To) -> Option<Place> {
        match to {
            To::Gateway(id, _) => self.gateways.get(usize::from(id.0)),
            To::Proposer(id, _) => self.proposers.get(usize::from(id.0)),
            To::ProxyLeader(id, _) => self.proxy_leaders.get(usize::from(id.0)),
            To::Acceptor(id, _) => self.acceptors.get(usize::from(id.0)),
            To::Replica(id, _) => self.replicas.get(usize::from(id.0)),
        }
        .copied()
    }

    /// The roles that a link leads to.
    fn behind(&self, link: usize) -> impl Iterator<Item = RoleId> + '_ {
        let of = move |places: &'_ [Place], id: fn(u8) -> RoleId| {
            let places = (0..).zip(places.iter().copied());
            let behind = places.filter(move |(_, place)| *place == Place::There { link });
            behind.map(move |(index, _)| id(index)).collect::<Vec<_>>()
        };
        let all = [
            of(&self.gateways, |id| RoleId::Gateway(GatewayId(id))),
            of(&self.proposers, |id| RoleId::Proposer(ProposerId(id))),
            of(&self.proxy_leaders, |id| RoleId::ProxyLeader(ProxyLeaderId(id))),
            of(&self.acceptors, |id| RoleId::Acceptor(AcceptorId(id))),
            of(&self.replicas, |id| RoleId::Replica(ReplicaId(id))),
        ];
        all.into_iter().flatten()
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

impl NetworkPlan {
    fn open(self, cluster: &Cluster) -> Sockets {
        // Whatever a role may hold, and as much again on its way.
        let batches_max = 8 * cluster.ring_slots() as usize;
        let acceptors = cluster.quorums.acceptors_count();
        Sockets::new(self.identity, &self.remotes, batches_max, acceptors.into())
    }
}

/// Listens for other nodes and for clients. Waits a while for an address that is in use: the kernel closes the sockets
/// of a ring after its process has ended, not before, and a process that is started again at once meets them.
fn listen(ring: &mut Ring, address: SocketAddr) -> io::Result<SocketAddr> {
    let started = Instant::now();
    loop {
        let listens = ring.listen(address);
        let in_use = listens.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::AddrInUse);
        if !in_use || started.elapsed() >= ADDRESS_MAX {
            return listens;
        }
        std::thread::sleep(ADDRESS_PAUSE); // nothing else is on this core yet
    }
}

impl<M: StateMachine> Core<M> {
    /// Opens the core's ring and starts its roles. Must be called on the core's own thread, to which the ring belongs.
    ///
    /// Returns where it listens as well, if it does.
    ///
    /// # Errors
    ///
    /// If the kernel has no ring for us, or the address cannot be had: the text says what to set.
    pub(crate) fn start(
        mut plan: CorePlan,
        factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync>,
    ) -> io::Result<(Self, Option<SocketAddr>)> {
        let mut ring = Ring::new(&RingOptions::default())?;
        ring.set_alarm(plan.alarm.eventfd()?);
        plan.recorder.take().into_iter().for_each(|recorder| ring.set_recorder(recorder));
        let listen_at = plan.network.as_ref().and_then(|network| network.listen);
        let address = listen_at.map(|address| listen(&mut ring, address)).transpose()?;
        let now = plan.clock.now();
        let mut core = Self {
            callers: Callers::new(
                Arc::clone(&plan.port),
                plan.deadline,
                plan.cluster.session_window as usize,
            ),
            factory,
            seats: Vec::new(),
            ring,
            events: Vec::new(),
            sockets: plan.network.take().map(|network| network.open(&plan.cluster)),
            log: plan.log.take(),
            status_requests: Vec::new(),
            out: Outbox::default(),
            told: Vec::new(),
            held: Vec::new(),
            now,
            ticks: 0,
            next_due: now,
            pending: 0,
            plan,
        };
        for id in core.plan.roles.clone() {
            let role = core.make(id, now);
            let (inbox, traffic) = (VecDeque::new(), Traffic::default());
            core.seats.push(Seat {
                id,
                role,
                is_to_start: false,
                inbox,
                paused_until: None,
                traffic,
                cycles: 0,
            });
        }
        Ok((core, address))
    }

    /// Runs until the cluster is told to stop. Must be called on the core's own executor.
    pub(crate) async fn run(mut self) {
        let mut vigil = Vigil::new(self.plan.idle, self.plan.clock.now());
        while !self.plan.is_stopping.load(Ordering::Relaxed) {
            let now = self.plan.clock.now();
            let has_worked = self.tick(now);
            let may_sleep = vigil.may_sleep(now, has_worked);
            yield_now().await;
            if may_sleep {
                self.sleep(self.plan.clock.now());
                vigil.woke(self.plan.clock.now());
            } else {
                vigil.offer(now);
            }
        }
        if self.plan.gateway.is_some() {
            self.callers.stop();
        }
    }

    /// Sleeps in the ring until it has something, the alarm rings or something is due.
    fn sleep(&mut self, now: Time) {
        let most = self.next_due.since(now).min(SLEEP_MAX);
        if self.plan.alarm.begin_sleep(|| self.has_work(now))
            && let Err(error) = self.ring.sleep(most)
        {
            warn!(%error, "the ring of a core fails");
        }
        self.plan.alarm.end_sleep();
    }

    /// Takes in all that has arrived and hands out all that follows from it; returns whether there was
    /// anything.
    fn tick(&mut self, now: Time) -> bool {
        self.now = now;
        let mut has_worked = self.receive();
        has_worked |= self.poll_ring(now);
        has_worked |= self.take_orders(now);
        has_worked |= self.tell_status(now);
        if self.plan.gateway.is_some() {
            has_worked |= self.callers.take_turns(now);
            has_worked |= self.callers.take_submissions(now);
        }
        if now >= self.next_due {
            has_worked = true;
            self.take_time(now);
        }
        // What a full mailbox did not take is tried again, whether there is anything new or not.
        has_worked |= self.plan.senders.iter().any(|(_, sender, _)| sender.is_waiting());
        if !has_worked {
            return false;
        }
        self.ticks += 1;
        self.submit(now);
        while self.pending > 0 || !self.held.is_empty() || self.has_released() {
            self.exchange(now);
            self.sync();
            self.submit(now); // results have made room
        }
        self.write_log(now);
        self.answer();
        self.flush(now);
        self.next_due = self.find_next_due(now);
        true
    }

    /// Takes in what the ring has done, for the sockets and for the log; returns whether there was anything.
    fn poll_ring(&mut self, now: Time) -> bool {
        if let Err(error) = self.ring.poll(&mut self.events) {
            warn!(%error, "the ring of a core fails");
        }
        let has_events = !self.events.is_empty();
        let has_incoming = self.poll_sockets(now);
        let has_log_work = self.poll_log(now);
        has_events | has_incoming | has_log_work
    }

    /// Hands the sockets what has happened to connections, and takes from them what has come in; returns whether
    /// anything has.
    fn poll_sockets(&mut self, now: Time) -> bool {
        let Some(sockets) = &mut self.sockets else {
            assert!(self.events.is_empty(), "a connection of a core without sockets");
            return false;
        };
        // Callers of this process have their part, too.
        let room = self.callers.room() / if self.callers.has_work(now) { 2 } else { 1 };
        if sockets.formation().is_none() {
            let formation = |seat: &Seat<M>| seat.role.as_ref().and_then(Role::formation);
            sockets.set_formation(self.seats.iter().find_map(formation));
        }
        sockets.set_log(self.log.as_ref().and_then(Log::position));
        sockets.begin_tick(&mut self.ring, room, now);
        for event in self.events.drain(..) {
            sockets.on_event(&mut self.ring, event, now);
        }
        let mut has_incoming = false;
        while let Some(what) = self.sockets.as_mut().and_then(Sockets::next_incoming) {
            has_incoming = true;
            self.on_incoming(what, now);
        }
        has_incoming
    }

    /// Takes in what has come over the sockets.
    fn on_incoming(&mut self, what: Incoming, now: Time) {
        match what {
            Incoming::Envelope(envelope) => {
                // Not hosted here: the sender's configuration differs from ours.
                if let Some(Place::Here { .. }) = self.plan.routes.role(envelope.to.role()) {
                    self.route(envelope);
                }
            }
            Incoming::Command { from, number, command } => {
                let call = RemoteCall { connection: from, number };
                self.callers.submit_remote(call, command, now);
            }
            Incoming::StatusRequest(from) => self.ask_status(from, now),
            Incoming::HandOver { core, visitor } => {
                if let Some(sibling) = self.plan.siblings.get(usize::from(core)) {
                    sibling.order(Order::Adopt(visitor));
                }
            }
            Incoming::Gone { link } => self.on_gone(link, now),
            Incoming::Outdated { why } => {
                self.log.iter_mut().for_each(|log| log.on_outdated(why.clone()));
                self.watch_log(); // before an acceptor of this core takes in what has come with it
            }
        }
    }

    /// Tells the roles of this core that those behind a link have ended.
    ///
    /// source: R28, R29
    fn on_gone(&mut self, link: usize, now: Time) {
        let gone: Vec<RoleId> = self.plan.routes.behind(link).collect();
        for index in 0..self.seats.len() {
            let Seat { role: Some(role), paused_until: None, .. } = &mut self.seats[index] else {
                continue;
            };
            gone.iter().for_each(|gone| role.on_gone(*gone, now, &mut self.out));
            self.post(index);
        }
    }

    /// Takes in what the log has done, and what was read back from it.
    fn poll_log(&mut self, now: Time) -> bool {
        let Some(log) = &mut self.log else { return false };
        let mut has_worked = false;
        while let Some(written) = self.ring.next_written() {
            has_worked = true;
            log.on_written(written);
        }
        while let Some(recalled) = self.log.as_mut().and_then(Log::next_recalled) {
            has_worked = true;
            let index = self.seat_of(recalled.recall.acceptor);
            if let Some(role) = &mut self.seats[index].role {
                role.on_recalled(&recalled, now, &mut self.out);
                self.post(index);
            }
        }
        self.watch_log();
        self.start_over(now);
        has_worked
    }

    /// The place of an acceptor of this core's log.
    fn seat_of(&self, acceptor: AcceptorId) -> usize {
        match self.plan.routes.role(RoleId::Acceptor(acceptor)) {
            Some(Place::Here { core, index }) if core == self.plan.core => index,
            Some(Place::Here { .. } | Place::There { .. }) | None => {
                unreachable!("the log is of acceptors of this core")
            }
        }
    }

    /// Starts the log's next write, if there is anything to write and none is under way.
    fn write_log(&mut self, now: Time) {
        if let Some(log) = &mut self.log {
            log.write(&mut self.ring, now);
            self.watch_log();
        }
    }

    /// Tells acceptors that little room is left in their log, and stops them for good when it has failed, or is an
    /// older copy: what they hold is never sent, and the other roles go on.
    ///
    /// source: R33, R34
    fn watch_log(&mut self) {
        let Some(log) = &mut self.log else { return };
        if let Some(why) = log.stopped() {
            for seat in &mut self.seats {
                if let (RoleId::Acceptor(id), Some(_)) = (seat.id, &seat.role) {
                    error!(%why, "acceptor {} stops for good", id.0);
                    seat.role = None;
                    log.end_life(id);
                }
            }
        }
        if let Some(is_low) = log.low_has_changed() {
            match is_low {
                true => warn!("little room is left in the log: its acceptors vote for nothing new"),
                false => warn!("there is room in the log again"),
            }
            for seat in &mut self.seats {
                if let Some(Role::Acceptor(acceptor)) = &mut seat.role {
                    acceptor.set_low(is_low);
                }
            }
        }
    }

    /// Whether something that was held may leave.
    fn has_released(&self) -> bool {
        self.log.as_ref().is_some_and(Log::has_released)
    }

    /// Asks all cores of this process how their roles stand, for somebody on the other end of a connection.
    fn ask_status(&mut self, from: ConnectionId, now: Time) {
        if self.status_requests.iter().any(|request| request.from == from) {
            return; // it is being answered
        }
        let (sender, reports) = mpsc::channel();
        for sibling in self.plan.siblings.iter() {
            let alarm = Some(self.plan.alarm.clone());
            sibling.order(Order::Report(sender.clone(), alarm));
        }
        self.status_requests.push(StatusRequest { from, since: now, reports, cores: Vec::new() });
    }

    /// Answers those about whom all cores have reported, or of which one never will; returns whether there
    /// was any.
    fn tell_status(&mut self, now: Time) -> bool {
        let (before, cores) = (self.status_requests.len(), self.plan.siblings.len());
        let Some(sockets) = &mut self.sockets else { return false };
        self.status_requests.retain_mut(|request| {
            request.cores.extend(request.reports.try_iter());
            if request.cores.len() < cores && now.since(request.since) < REPORT_MAX {
                return true;
            }
            request.cores.sort_by_key(|status| status.core);
            sockets.tell_status(&mut self.ring, request.from, &to_json(&request.cores));
            false
        });
        self.status_requests.len() < before
    }

    fn receive(&mut self) -> bool {
        let (seats, pending) = (&mut self.seats, &mut self.pending);
        let routes = &self.plan.routes;
        let mut items = 0;
        for receiver in &mut self.plan.receivers {
            items += receiver.drain(|envelope| match routes.to(&envelope.to) {
                Some(Place::Here { index, .. }) => *pending += seats[index].take_in(envelope),
                Some(Place::There { .. }) | None => {
                    unreachable!("mailboxes are for roles of this process")
                }
            });
        }
        items > 0
    }

    /// Gives the gateway what it has room for; the last batch is closed after it. Where the gateway is
    /// down or paused, commands wait for their deadline.
    fn submit(&mut self, now: Time) {
        let Some(index) = self.plan.gateway.filter(|_| self.callers.is_waiting()) else { return };
        let seat = &mut self.seats[index];
        let Some(Role::Gateway(gateway)) = &mut seat.role else { return };
        if seat.paused_until.is_some() {
            return;
        }
        let started = self.plan.clock.cycles();
        while let Some((caller, command)) = self.callers.next(|bytes| gateway.has_room(bytes, now))
        {
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
        if let Some(sockets) = &mut self.sockets {
            sockets.on_time(&mut self.ring, now);
        }
        if let Some(log) = &mut self.log {
            log.on_time(&mut self.ring, now);
        }
        while let Some((call, why)) = self.callers.overdue(now) {
            if let (Some(call), Some(sockets)) = (call, &mut self.sockets) {
                sockets.answer(&mut self.ring, call, Err(why));
            }
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
                self.post(index);
                self.seats[index].cycles += self.plan.clock.cycles() - started;
            }
        }
    }

    /// Lets be known what the acceptors of this core have promised and voted: what is durable, if they have a
    /// log; in memory, all of it.
    ///
    /// source: R31
    fn sync(&mut self) {
        while let Some((acceptor, recorded)) = self.log.as_mut().and_then(Log::next_durable) {
            let index = self.seat_of(acceptor);
            if let Some(role) = &mut self.seats[index].role {
                role.on_durable(recorded);
            }
        }
        while let Some(envelope) = self.log.as_mut().and_then(Log::release) {
            self.route(envelope);
        }
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
        if let (Some(log), Some(Role::Acceptor(acceptor))) =
            (&mut self.log, &self.seats[index].role)
        {
            log.take(acceptor, &mut self.out);
        }
        assert!(self.out.records.is_empty(), "a record of somebody without a log");
        self.held.extend(self.out.held.drain(..).map(|to| Envelope { formation, to }));
        for event in self.out.events.drain(..) {
            // These come again and again for as long as their cause lasts; once is enough to tell.
            let is_repeated = matches!(
                event,
                Event::Forgotten { .. } | Event::Foreign { .. } | Event::NoSnapshots { .. }
            );
            if !is_repeated || !self.told.contains(&event) {
                crate::status::tell(&event);
                self.told.extend(is_repeated.then_some(event));
            }
        }
    }

    fn route(&mut self, envelope: Envelope) {
        match self.plan.routes.to(&envelope.to) {
            None => {}
            Some(Place::Here { core, index }) if core == self.plan.core => {
                self.pending += self.seats[index].take_in(envelope);
            }
            Some(Place::Here { core, .. }) => {
                let sender = self.plan.senders.iter_mut().find(|(to, ..)| *to == core);
                let (_, sender, _) = sender.expect("every other core has a mailbox");
                sender.push(envelope, |envelope| envelope.to.is_urgent());
            }
            Some(Place::There { link }) => {
                let sockets = self.sockets.as_mut().expect("other nodes are reached by sockets");
                sockets.send(&mut self.ring, link, &envelope, self.now);
            }
        }
    }

    /// Hands results to the callers.
    fn answer(&mut self) {
        for (caller, reply) in self.out.replies.iter() {
            let result = reply.map_err(CallError::from);
            let call = self.callers.answer(caller.tag, result);
            if let (Some(call), Some(sockets)) = (call, &mut self.sockets) {
                sockets.answer(&mut self.ring, call, result);
            }
        }
        self.out.replies.clear();
    }

    /// Sends each other core what this tick has for it, as one message.
    fn flush(&mut self, now: Time) {
        for (_, sender, alarm) in &mut self.plan.senders {
            if sender.flush() {
                alarm.ring();
            }
        }
        if let Some(sockets) = &mut self.sockets {
            sockets.note_idle_links(&mut self.ring, now);
        }
        self.ring.flush();
    }

    fn has_work(&self, now: Time) -> bool {
        let can_read_on = |sockets: &Sockets| sockets.is_stalled() && self.callers.room() > 0;
        self.plan.gateway.is_some() && self.callers.has_work(now)
            || self.plan.receivers.iter().any(|receiver| !receiver.is_empty())
            || !self.plan.orders.is_empty()
            || self.plan.senders.iter().any(|(_, sender, _)| sender.is_waiting())
            || self.log.as_ref().is_some_and(Log::has_work)
            || self.sockets.as_ref().is_some_and(can_read_on)
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
        let sockets = self.sockets.as_ref().map(Sockets::next_timeout);
        let log = self.log.as_ref().and_then(Log::next_timeout);
        sockets.into_iter().chain(log).chain(self.callers.next_timeout()).fold(next, Time::min)
    }

    fn take_orders(&mut self, now: Time) -> bool {
        let mut has_worked = false;
        while let Some(order) = self.plan.orders.pop() {
            has_worked = true;
            match order {
                Order::Kill(id) => self.end_life(id),
                Order::Retire(id) => self.retire(id),
                Order::Pause(id, most) => {
                    if let Some(seat) = self.seat_mut(id) {
                        let waiting = seat.inbox.len();
                        let was_paused = seat.paused_until.replace(now + most).is_some();
                        self.pending -= if was_paused { 0 } else { waiting };
                    }
                }
                Order::Restart(id) => {
                    self.end_life(id);
                    if let Some(seat) = self.seat_mut(id) {
                        seat.is_to_start = true;
                    }
                    self.start_over(now);
                }
                Order::Report(to, alarm) => {
                    drop(to.send(self.status())); // nobody may wait any more
                    alarm.iter().for_each(Alarm::ring);
                }
                Order::Adopt(visitor) => {
                    if let Some(sockets) = &mut self.sockets {
                        sockets.adopt(&mut self.ring, visitor, now);
                    }
                }
                Order::MoveIn(resident) => self.callers.move_in(resident, now),
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

    /// Ends the life of a role of this core; what it has under way with the log, it will not hear of.
    fn end_life(&mut self, id: RoleId) {
        let Some(seat) = self.seats.iter_mut().find(|seat| seat.id == id) else { return };
        (seat.role, seat.is_to_start) = (None, false);
        if let (Some(log), RoleId::Acceptor(acceptor)) = (&mut self.log, id) {
            log.end_life(acceptor);
        }
    }

    /// Starts the roles that are to start over, once their former lives are settled.
    fn start_over(&mut self, now: Time) {
        for index in 0..self.seats.len() {
            let Seat { id, is_to_start, .. } = self.seats[index];
            let is_settled = match (&self.log, id) {
                (Some(log), RoleId::Acceptor(acceptor)) => log.is_settled(acceptor),
                (_, _) => true,
            };
            if is_to_start && is_settled {
                self.seats[index].is_to_start = false;
                self.seats[index].role = self.make(id, now);
            }
        }
    }

    /// Starts a role: a durable acceptor with what its log says, unless that has failed; anybody else with a blank
    /// memory.
    ///
    /// source: R2, R4, R34
    fn make(&self, id: RoleId, now: Time) -> Option<Role<M>> {
        let (cluster, seed) = (self.plan.cluster.clone(), random_u64());
        if let (Some(log), RoleId::Acceptor(id)) = (&self.log, id) {
            let mut acceptor = log.restart(cluster, id, seed)?;
            acceptor.on_start(now);
            return Some(Role::Acceptor(Box::new(acceptor)));
        }
        let life = (Incarnation(random_u64()), seed);
        Some(Role::start(cluster, id, life, now, |replica| (self.factory)(replica)))
    }

    fn status(&self) -> CoreStatus {
        let log = self.log.as_ref().map(|log| log.status(self.now));
        let stopped = log.as_ref().and_then(|log| log.stopped.as_ref());
        let log_state = log.as_ref().map(LogStatus::state).unwrap_or_default();
        let absent = |seat: &Seat<M>| match (seat.id, stopped) {
            (RoleId::Acceptor(_), Some(why)) => Standing::Stopped { why: why.to_string() },
            (_, _) => Standing::Down,
        };
        let standing = |seat: &Seat<M>| match &seat.role {
            Some(role) => Standing::of(role, log_state),
            None => absent(seat),
        };
        let roles = self.seats.iter().map(|seat| RoleStatus {
            role: seat.id,
            core: self.plan.core,
            standing: standing(seat),
            traffic: seat.traffic,
            busy: self.plan.clock.duration(seat.cycles),
        });
        let sockets = self.sockets.as_ref().map(Sockets::counters);
        let roles = roles.collect();
        let ring = self.ring.counters();
        CoreStatus { core: self.plan.core, ticks: self.ticks, roles, ring, sockets, log }
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
