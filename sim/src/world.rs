//! The world: virtual time, the roles, and what befalls them.
//!
//! ```text
//!  event      does
//!  Deliver    hands a message to its role, unless that is down; a paused one gets it later
//!  Release    lets go of what an acceptor held for a sync, unless it has crashed since
//!  Wake       fires a role's due timers
//!  Submit     lets the clients of a gateway submit, and the gateway flush
//!  Fault      crashes or pauses a process, or moves the network's partition
//!  Restart    starts a crashed process over, with a blank memory
//!  Heal       ends all faults
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use loggos_protocol::{
    Envelope, Event, GatewayId, Halt, Incarnation, Outbox, ProposerId, Replica, ReplicaId, Rng,
    Role, RoleId, Time, To,
};

use crate::checker::Checker;
use crate::load::Load;
use crate::network::{ACCEPTORS, KINDS, Network, PROPOSERS, kind};
use crate::recorder::Recorder;
use crate::swarm::Plan;

/// How long a healed cluster has until every client is done.
const LIVENESS_BOUND: Duration = Duration::from_secs(60);
/// More events than any run needs: whoever gets here answers messages with more messages for ever.
const EVENTS_MAX: u64 = 5_000_000;
/// Between two turns of a gateway's clients.
const TURN: Duration = Duration::from_micros(500);
const START: Time = Time(1_000_000_000);

/// A cluster under simulation.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    trace: bool,
    now: Time,
    made: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    processes: BTreeMap<RoleId, Process>,
    network: Network,
    load: Load,
    checker: Checker,
    rng: Rng,
    out: Outbox,
    hasher: DefaultHasher,
    /// Acceptors and replicas that have lost their memory, or cannot go on for what they miss.
    lost: Vec<RoleId>,
    /// Replicas among them that we took ourselves.
    crashed_replicas: u8,
    has_formed: bool,
    is_healed: bool,
    is_safety_only: bool,
    elections: u64,
    halts: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// A digest of every event, in order: equal for equal seeds.
    pub trace_hash: u64,
    /// Events taken.
    pub events: u64,
    /// Virtual time that passed.
    pub took: Duration,
    /// Commands acknowledged.
    pub acknowledged: u64,
    /// Commands whose clients were told that the outcome is unknown.
    pub unknown: u64,
    /// Elections won.
    pub elections: u64,
    /// Replicas that fell too far behind.
    pub halts: u64,
    /// Whether more was lost than the cluster claims to survive, so that only safety was checked.
    pub is_safety_only: bool,
}

#[derive(Debug)]
struct Process {
    /// `None` while it is down.
    role: Option<Role<Recorder>>,
    incarnation: Incarnation,
    /// What arrived while it was paused.
    backlog: Vec<Happening>,
    paused_until: Option<Time>,
    wake_at: Option<Time>,
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    /// In which order it was made: breaks ties.
    made: u64,
    what: Happening,
}

#[derive(Clone, Debug, Hash)]
enum Happening {
    Deliver(Envelope),
    Release(RoleId, Incarnation, Vec<To>),
    Wake(RoleId),
    Resume(RoleId),
    Submit(GatewayId),
    Fault,
    Restart(RoleId),
    Heal,
}

impl World {
    /// Returns the world of `plan`, in which nothing has happened yet. `trace` tells everything that
    /// happens on standard error.
    #[must_use]
    pub fn new(plan: Plan, trace: bool) -> Self {
        let cluster = plan.cluster.clone();
        let mut world = Self {
            trace,
            now: START,
            made: 0,
            events: BinaryHeap::new(),
            processes: BTreeMap::new(),
            network: Network::new(plan.network.clone(), START + plan.faults.from),
            load: Load::new(plan.load.clone(), cluster.gateways),
            checker: Checker::new(cluster.clone()),
            rng: Rng::new(plan.seed),
            out: Outbox::default(),
            hasher: DefaultHasher::new(),
            lost: Vec::new(),
            crashed_replicas: 0,
            has_formed: false,
            is_healed: false,
            is_safety_only: false,
            elections: 0,
            halts: 0,
            plan,
        };
        let acceptors = cluster.quorums.acceptors().iter().map(RoleId::Acceptor);
        let replicas = (0..cluster.replicas).map(|r| RoleId::Replica(ReplicaId(r)));
        let gateways = (0..cluster.gateways).map(GatewayId);
        let roles = (cluster.all_proposers().map(RoleId::Proposer))
            .chain(cluster.all_proxy_leaders().map(RoleId::ProxyLeader))
            .chain(acceptors)
            .chain(replicas)
            .chain(gateways.clone().map(RoleId::Gateway));
        for role in roles {
            world.start(role);
        }
        for gateway in gateways {
            world.schedule(START, Happening::Submit(gateway));
        }
        world.schedule(START + world.plan.faults.from, Happening::Fault);
        world.schedule(START + world.plan.faults.until, Happening::Heal);
        world
    }

    /// Runs to the end: every client is done, and every replica that could be has caught up.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold, or a healed cluster makes no progress.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let end = START + self.plan.faults.until + LIVENESS_BOUND;
        let mut events = 0;
        while !self.is_finished() {
            let Some(Reverse(next)) = self.events.pop() else { panic!("nothing left to happen") };
            assert!(next.at >= self.now, "time went back");
            self.now = next.at;
            if self.now > end {
                if self.is_safety_only {
                    break;
                }
                panic!("no progress in {LIVENESS_BOUND:?} after all healed:\n{}", self.standing());
            }
            (next.at, &next.what).hash(&mut self.hasher);
            if self.trace {
                eprintln!("{} {:?}", self.now, next.what);
            }
            events += 1;
            assert!(events < EVENTS_MAX, "a storm of messages:\n{}", self.standing());
            self.take(next.what);
        }
        self.check_end();
        Outcome {
            trace_hash: self.hasher.finish(),
            events,
            took: self.now.since(START),
            acknowledged: self.load.acknowledged.len() as u64,
            unknown: self.load.unknown,
            elections: self.elections,
            halts: self.halts,
            is_safety_only: self.is_safety_only,
        }
    }

    fn is_finished(&self) -> bool {
        if !self.is_healed || !self.load.is_done() {
            return false;
        }
        let mut executed = self.replicas().filter(|r| r.halted().is_none()).map(Replica::executed);
        let first = executed.next();
        executed.all(|other| Some(other) == first)
    }

    fn check_end(&self) {
        let furthest = self.replicas().max_by_key(|replica| replica.executed());
        let nothing = Recorder::default();
        let recorder = furthest.map_or(&nothing, Replica::machine);
        if furthest.is_some() || !self.is_safety_only {
            self.checker.at_end(recorder, &self.load.acknowledged);
        }
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica<Recorder>> {
        self.processes.values().filter_map(|process| match &process.role {
            Some(Role::Replica(replica)) => Some(&**replica),
            Some(
                Role::Gateway(_) | Role::Proposer(_) | Role::ProxyLeader(_) | Role::Acceptor(_),
            )
            | None => None,
        })
    }

    fn take(&mut self, what: Happening) {
        match what {
            Happening::Deliver(envelope) => {
                let id = envelope.to.role();
                self.step(id, Happening::Deliver(envelope));
            }
            Happening::Release(id, incarnation, held) => {
                self.step(id, Happening::Release(id, incarnation, held));
            }
            Happening::Wake(id) => {
                let process = self.processes.get_mut(&id).expect("every role has a process");
                if process.wake_at.take_if(|at| *at <= self.now).is_some() {
                    self.step(id, Happening::Wake(id));
                }
            }
            Happening::Resume(id) => self.resume(id),
            Happening::Submit(gateway) => {
                self.step(RoleId::Gateway(gateway), Happening::Submit(gateway));
                self.schedule(self.now + TURN, Happening::Submit(gateway));
            }
            Happening::Fault => self.fault(),
            Happening::Restart(id) => self.start(id),
            Happening::Heal => self.heal(),
        }
    }

    /// Lets a role take one thing in, checks it, and sends what it says.
    fn step(&mut self, id: RoleId, what: Happening) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(role) = &mut process.role else { return };
        if process.paused_until.is_some() {
            process.backlog.push(what);
            return;
        }
        let is_release = matches!(what, Happening::Release(..));
        match what {
            Happening::Deliver(envelope) => role.on_envelope(envelope, self.now, &mut self.out),
            Happening::Release(_, incarnation, held) => {
                if incarnation == process.incarnation {
                    self.checker.on_released(&held);
                    self.out.sends.extend(held);
                }
            }
            Happening::Wake(_) => role.on_time(self.now, &mut self.out),
            Happening::Submit(gateway) => {
                if let Role::Gateway(role) = role {
                    for (caller, command) in self.load.submissions(gateway, &mut self.rng) {
                        role.submit(caller, &command, self.now, &mut self.out);
                    }
                    role.flush(self.now, &mut self.out);
                }
            }
            Happening::Resume(_) | Happening::Fault | Happening::Restart(_) | Happening::Heal => {
                unreachable!("not a role's business")
            }
        }
        self.settle(id, is_release);
    }

    /// After a role has acted: checks, and hands on what it wants done.
    fn settle(&mut self, id: RoleId, is_release: bool) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let role = process.role.as_mut().expect("only a role that is up acts");
        let incarnation = process.incarnation;
        let released: Vec<To> = self.out.sends.drain(..).collect();
        let formation = role.formation();
        if !is_release {
            self.checker.on_sends(&released);
        }
        self.checker.on_step(role, incarnation);
        let wake_at = role.next_timeout();
        let held: Vec<To> = self.out.held.drain(..).collect();
        self.checker.on_held(role, &held);
        if let RoleId::Gateway(gateway) = id {
            for (caller, reply) in self.out.replies.iter() {
                self.load.on_reply(gateway, caller, reply.map(|(_, reply)| reply));
            }
        }
        self.out.replies.clear();
        if !held.is_empty() {
            let at = self.now + self.rng.up_to(self.plan.faults.sync_max);
            self.schedule(at, Happening::Release(id, incarnation, held));
        }
        for to in released {
            self.send(id, Envelope { formation, to });
        }
        self.wake(id, wake_at);
        self.take_events();
    }

    fn send(&mut self, from: RoleId, envelope: Envelope) {
        let arrivals = self.network.arrivals(from, envelope.to.role(), self.now, &mut self.rng);
        for at in arrivals {
            self.schedule(at, Happening::Deliver(envelope.clone()));
        }
    }

    fn wake(&mut self, id: RoleId, at: Option<Time>) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(at) = at.filter(|at| process.wake_at.is_none_or(|set| *at < set)) else { return };
        process.wake_at = Some(at);
        let at = at.max(self.now);
        self.schedule(at, Happening::Wake(id));
    }

    fn take_events(&mut self) {
        let events: Vec<Event> = self.out.events.drain(..).collect();
        for event in events {
            if self.trace {
                eprintln!("{} {event:?}", self.now);
            }
            match event {
                Event::Formed { .. } => self.has_formed = true,
                Event::Elected { .. } => self.elections += 1,
                Event::Equivocation { .. } => panic!("{event:?}"),
                Event::Halted { replica, executed, why: Halt::TooFarBehind { .. } } => {
                    self.halts += 1;
                    let slot = executed.first_open();
                    let holds = |r: &Replica<Recorder>| {
                        r.halted().is_none() && r.executed_value(slot).is_some()
                    };
                    let is_needless = self.is_healed && self.replicas().any(holds);
                    assert!(!is_needless, "{replica:?} halts at {slot}, which a peer holds");
                    self.lose(RoleId::Replica(replica));
                }
                Event::Halted { why: Halt::Panicked { .. } | Halt::Malformed { .. }, .. } => {
                    panic!("{event:?}")
                }
                Event::SteppedDown { .. }
                | Event::CampaignFailed { .. }
                | Event::Silenced { .. }
                | Event::Suspected { .. }
                | Event::Forgotten { .. }
                | Event::Foreign { .. }
                | Event::SessionOpened { .. }
                | Event::SessionLost { .. } => {}
            }
        }
    }

    fn start(&mut self, id: RoleId) {
        let cluster = self.plan.cluster.clone();
        let incarnation = Incarnation(self.rng.next_u64());
        let seed = self.rng.next_u64();
        let life = (incarnation, seed);
        let role = Role::start(cluster, id, life, self.now, |_| Recorder::default());
        let process = Process {
            role: Some(role),
            incarnation,
            backlog: Vec::new(),
            paused_until: None,
            wake_at: None,
        };
        let before = self.processes.insert(id, process);
        if let (RoleId::Gateway(gateway), Some(_)) = (id, before) {
            self.load.start_life(gateway);
        }
        self.wake(id, Some(self.now));
    }

    /// Crashes or pauses a process, moves the partition, and draws when to do so again.
    fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        self.network.change(&ids, self.now, &mut self.rng);
        let victim = self.draw_victim(&ids);
        let down = self.rng.up_to(self.plan.faults.down_max) + Duration::from_millis(1);
        if self.rng.below(100) < self.plan.faults.crash_percent {
            self.crash(victim, down);
        } else {
            self.pause(victim, down);
        }
        if kind(victim) == PROPOSERS && self.rng.below(2) == 0 {
            // An acceptor that sleeps through the election wakes up with votes that nobody recovered.
            let acceptor = self.draw_of(ACCEPTORS, &ids);
            self.pause(acceptor, down);
        }
        let next = self.now + self.rng.up_to(2 * self.plan.faults.every);
        self.schedule(next.max(self.now + Duration::from_millis(1)), Happening::Fault);
    }

    /// Every third time it is who leads, if anybody does: elections are where bugs hide. Else a kind of
    /// role is drawn first, so that few of a kind are hit as often as many.
    fn draw_victim(&mut self, ids: &[RoleId]) -> RoleId {
        let leads = |id: &&RoleId| match self.processes.get(id).map(|process| &process.role) {
            Some(Some(Role::Proposer(proposer))) => proposer.is_leading(),
            Some(_) | None => false,
        };
        let leader = ids.iter().find(leads).copied();
        if let Some(leader) = leader.filter(|_| self.rng.below(3) == 0) {
            return leader;
        }
        let kind = usize::try_from(self.rng.below(KINDS)).unwrap_or(0);
        self.draw_of(kind, ids)
    }

    fn draw_of(&mut self, drawn: usize, ids: &[RoleId]) -> RoleId {
        let alike: Vec<_> = ids.iter().filter(|id| kind(**id) == drawn).collect();
        *alike[usize::try_from(self.rng.below(alike.len() as u64)).unwrap_or(0)]
    }

    /// Ends a process, and its memory, if the cluster can do without.
    fn crash(&mut self, id: RoleId, down: Duration) {
        if !self.may_lose(id) {
            return;
        }
        match id {
            RoleId::Acceptor(_) => self.lose(id),
            RoleId::Replica(_) => {
                self.crashed_replicas += u8::from(!self.lost.contains(&id));
                self.lose(id);
            }
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => {}
        }
        let mut ids = vec![id];
        if let (RoleId::Proposer(ProposerId(p)), 0) = (id, self.plan.cluster.proxy_leaders) {
            ids.push(RoleId::ProxyLeader(loggos_protocol::ProxyLeaderId(p))); // lives with it
        }
        for id in ids {
            let process = self.processes.get_mut(&id).expect("every role has a process");
            process.role = None;
            process.backlog.clear();
            process.paused_until = None;
            self.schedule(self.now + down, Happening::Restart(id));
        }
    }

    /// Whether the cluster claims to survive the loss of this one too. An acceptor or replica in memory
    /// is lost for good; f of each, and f + 1 replicas must be left that are not too far behind.
    fn may_lose(&self, id: RoleId) -> bool {
        let f = usize::from(self.plan.cluster.f);
        let lost_alike =
            |is_alike: fn(&RoleId) -> bool| self.lost.iter().filter(|r| is_alike(r)).count();
        match id {
            RoleId::Acceptor(_) => lost_alike(|r| matches!(r, RoleId::Acceptor(_))) < f,
            RoleId::Replica(_) => {
                let lost = lost_alike(|r| matches!(r, RoleId::Replica(_)));
                lost < f && usize::from(self.plan.cluster.replicas) - lost > f + 1
            }
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => true,
        }
    }

    fn lose(&mut self, id: RoleId) {
        if self.lost.contains(&id) {
            return;
        }
        self.lost.push(id);
        let lost = self.lost.iter().filter(|r| matches!(r, RoleId::Replica(_))).count();
        let left = usize::from(self.plan.cluster.replicas) - lost;
        let f = usize::from(self.plan.cluster.f);
        if !self.has_formed || left <= f {
            self.is_safety_only = true;
        }
        // What acceptors forget, f + 1 replicas have: of those only what we took may be missing (R16).
        let least = f + 1 - usize::from(self.crashed_replicas);
        assert!(left >= least, "nobody has what was forgotten:\n{}", self.standing());
    }

    fn pause(&mut self, id: RoleId, down: Duration) {
        let until = self.now + down;
        let process = self.processes.get_mut(&id).expect("every role has a process");
        if process.role.is_some() && process.paused_until.is_none() {
            process.paused_until = Some(until);
            self.schedule(until, Happening::Resume(id));
        }
    }

    fn resume(&mut self, id: RoleId) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        if process.paused_until.take().is_none() {
            return;
        }
        for what in std::mem::take(&mut process.backlog) {
            self.step(id, what);
        }
        self.wake(id, Some(self.now));
    }

    fn heal(&mut self) {
        self.is_healed = true;
        self.network.heal();
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        for id in ids {
            if self.processes.get(&id).is_some_and(|process| process.role.is_none()) {
                self.start(id);
            }
            self.resume(id);
        }
        self.is_safety_only |= !self.has_formed && !self.lost.is_empty();
    }

    fn schedule(&mut self, at: Time, what: Happening) {
        self.made += 1;
        self.events.push(Reverse(Scheduled { at, made: self.made, what }));
    }

    /// What everybody is about, for a person.
    fn standing(&self) -> String {
        let mut lines = vec![self.load.waiting(), format!("lost: {:?}", self.lost)];
        for process in self.processes.values() {
            lines.push(match &process.role {
                Some(Role::Proposer(p)) => {
                    format!(
                        "{:?} {:?} next {:?} {:?}",
                        p.id(),
                        p.ballot(),
                        p.next_slot(),
                        p.counters()
                    )
                }
                Some(Role::ProxyLeader(p)) => {
                    format!("{:?} {:?} {:?}", p.id(), p.suspects(), p.counters())
                }
                Some(Role::Acceptor(a)) => {
                    format!("{:?} {} {} {:?}", a.id(), a.promised(), a.truncated(), a.counters())
                }
                Some(Role::Replica(r)) => {
                    format!("{:?} {} {:?} {:?}", r.id(), r.executed(), r.halted(), r.counters())
                }
                Some(Role::Gateway(g)) => {
                    format!("{:?} {:?} {:?}", g.id(), g.session(), g.counters())
                }
                None => "down".to_owned(),
            });
        }
        lines.join("\n")
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.made) == (other.at, other.made)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.made).cmp(&(other.at, other.made))
    }
}
