//! The world: virtual time, the roles, and what befalls them.
//!
//! ```text
//!  event      does
//!  Deliver    hands a message to its role, unless that is down; a paused one gets it later
//!  Release    lets go of what an acceptor in memory held for a sync, unless it has crashed since
//!  Disk       does a piece of a durable acceptor's disk work, unless its process has ended since
//!  Snapshot   does what a durable replica has ordered of its snapshots, likewise
//!  Wake       fires a role's due timers
//!  Resume     has a process that was paused go on, with what came meanwhile
//!  Submit     lets the clients of a gateway submit, and the gateway flush
//!  Fault      crashes or pauses a process or a quorum, sets a clock ahead, or moves the network's partition
//!  Restart    starts a crashed process over: with a blank memory, or with what is on its disk
//!  Gone       tells a role that another's life has ended, which may be false
//!  Operate    has the operator see to replicas whose machine has panicked
//!  Heal       ends all faults
//! ```

mod blows;
mod disks;
mod end;
mod happening;
mod heal;
mod lives;
mod operator;
mod process;
mod snapshots;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use loggos_protocol::{
    AcceptorId, Envelope, Event, GatewayId, Halt, Outbox, Query, Replica, ReplicaId, Rng, Role,
    RoleId, Submission, Time, To, Watermark,
};

use happening::{Happening, Scheduled};
use process::Process;

use crate::checker::Checker;
use crate::ladder::Ladder;
use crate::linearizability::{STEPS_MAX, Verdict};
use crate::load::Load;
use crate::network::{Fate, Network};
use crate::origin;
use crate::outcome::Outcome;
use crate::outsiders::Outsiders;
use crate::recorder::Recorder;
use crate::replica_store::ReplicaStore;
use crate::sights::{Sight, Witness};
use crate::store::Store;
use crate::swarm::Plan;
use crate::trap::Trap;
use crate::wire::Wire;

/// How long a healed cluster has until every client is done: where the network overtakes itself all
/// the time, a session that sends many batches at once gets one or two of them in order, and sends
/// the others again. With disks each such round takes the time of a sync more.
const LIVENESS_BOUND: Duration = Duration::from_secs(60);
const LIVENESS_BOUND_ON_DISK: Duration = Duration::from_secs(240);
/// How long it goes on where only safety is checked.
const SAFETY_TIME: Duration = Duration::from_secs(5);
/// More events than any run needs: a role that gets here answers messages with more messages for
/// ever.
const EVENTS_MAX: u64 = 5_000_000;
/// How long it takes at the most to see that a process has ended.
const EVIDENCE_MAX: Duration = Duration::from_millis(5);
/// Between two turns of a gateway's clients.
const TURN: Duration = Duration::from_micros(500);
/// The time when it all begins, in true time and on a clock that is right: late enough that one set
/// wrong is not before the epoch.
const START: Time = Time(10_000_000_000);

/// A cluster under simulation.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    /// What is written down, for a person.
    ladder: Rc<RefCell<Ladder>>,
    /// The true time.
    now: Time,
    made: u64,
    events: BinaryHeap<Reverse<Scheduled>>,
    processes: BTreeMap<RoleId, Process>,
    /// The disks of durable acceptors.
    stores: BTreeMap<RoleId, Store>,
    /// The disks of durable replicas: where acceptors are durable, replicas are.
    replica_stores: BTreeMap<RoleId, ReplicaStore>,
    /// Durable acceptors whose logs are not to be used any more.
    refused: Vec<RoleId>,
    /// Those that have been damaged: they may be refused, and come back with everything or not at
    /// all.
    damaged: Vec<RoleId>,
    network: Network,
    outsiders: Outsiders,
    /// The acceptors whose disks hang, until when.
    hung_until: BTreeMap<RoleId, Time>,
    /// The acceptors whose syncs take long although all has healed.
    slow_disks: BTreeSet<RoleId>,
    /// The acceptors whose logs have had little room.
    were_low: BTreeSet<RoleId>,
    wire: Wire,
    load: Load,
    checker: Checker,
    witness: Witness,
    rng: Rng,
    out: Outbox,
    hasher: DefaultHasher,
    /// Replicas whose directories were wiped, or whose snapshots were damaged: they come back with
    /// less than they had.
    set_back: BTreeSet<RoleId>,
    /// Acceptors that have lost their memory, and replicas that have and do not yet have it back
    /// from their peers.
    lost: Vec<RoleId>,
    /// The largest bound that any durable acceptor has truncated to.
    truncated: Watermark,
    has_formed: bool,
    is_healed: bool,
    is_safety_only: bool,
    elections: u64,
    /// The trap of each replica's machine.
    traps: BTreeMap<RoleId, Trap>,
    /// Whether a command was skipped since all replicas were last restarted for that.
    has_skipped: bool,
}

impl World {
    /// Returns the world of `plan`, in which nothing has happened yet. What happens is written down
    /// in `ladder`.
    #[must_use]
    pub fn new(plan: Plan, ladder: Rc<RefCell<Ladder>>) -> Self {
        let cluster = plan.cluster.clone();
        let is_tracing = ladder.borrow().tells_all();
        let mut world = Self {
            ladder,
            now: START,
            made: 0,
            events: BinaryHeap::new(),
            processes: BTreeMap::new(),
            stores: BTreeMap::new(),
            replica_stores: BTreeMap::new(),
            refused: Vec::new(),
            damaged: Vec::new(),
            network: Network::new(plan.network.clone(), START + plan.faults.from),
            outsiders: Outsiders::default(),
            hung_until: BTreeMap::new(),
            slow_disks: BTreeSet::new(),
            were_low: BTreeSet::new(),
            wire: Wire::new(&cluster),
            load: Load::new(
                plan.load.clone(),
                cluster.gateways,
                &mut Rng::new(plan.seed ^ 0x0000_A10E),
            ),
            checker: Checker::new(cluster.clone()),
            witness: Witness::default(),
            rng: Rng::new(plan.seed),
            out: Outbox { is_tracing, ..Outbox::default() },
            hasher: DefaultHasher::new(),
            set_back: BTreeSet::new(),
            lost: Vec::new(),
            truncated: Watermark(0),
            has_formed: false,
            is_healed: false,
            is_safety_only: false,
            elections: 0,
            traps: (0..cluster.replicas)
                .map(|r| (RoleId::Replica(ReplicaId(r)), Trap::of(plan.trap, r, cluster.f)))
                .collect(),
            has_skipped: false,
            plan,
        };
        world.format();
        let acceptors = cluster.quorums.acceptors().iter().map(RoleId::Acceptor);
        let replicas = (0..cluster.replicas).map(|r| RoleId::Replica(ReplicaId(r)));
        let gateways = (0..cluster.gateways).map(GatewayId);
        let roles = (cluster.all_proposers().map(RoleId::Proposer))
            .chain(cluster.all_proxy_leaders().map(RoleId::ProxyLeader))
            .chain(acceptors)
            .chain(replicas)
            .chain(gateways.clone().map(RoleId::Gateway));
        let roles: Vec<RoleId> = roles.filter(|role| world.host(*role) == *role).collect();
        for role in roles {
            world.start(role);
        }
        for gateway in gateways {
            world.schedule(START, Happening::Submit(gateway));
        }
        world.schedule(START + world.plan.faults.from, Happening::Fault);
        world.schedule(START + world.plan.faults.until, Happening::Heal);
        world.schedule(START + world.plan.faults.from, Happening::Operate);
        world
    }

    /// Makes the disks of acceptors and replicas, if they have any; and writes there what their log
    /// is to start from.
    fn format(&mut self) {
        let Some(disks) = self.plan.faults.disks.clone() else { return };
        let cluster = self.plan.cluster.clone();
        let acceptors: Vec<AcceptorId> = cluster.quorums.acceptors().iter().collect();
        for sharers in acceptors.chunks(disks.acceptors_per_log.into()) {
            let set = sharers.iter().copied().collect();
            let store = Store::new(&cluster, set, &disks, &mut self.rng);
            self.stores.insert(RoleId::Acceptor(sharers[0]), store);
            if sharers.len() > 1 {
                self.witness.see(Sight::LogShared);
            }
        }
        for replica in (0..cluster.replicas).map(ReplicaId) {
            let store = ReplicaStore::new(replica, &mut self.rng);
            self.replica_stores.insert(RoleId::Replica(replica), store);
        }
        if let Some(start) = self.plan.origin {
            let orders = origin::orders(&cluster, start, &mut self.rng);
            self.replica_stores.values_mut().for_each(|store| store.restore(&orders));
            self.witness.see(Sight::StartedFromSnapshot);
        }
    }

    /// Runs to the end: every client is done, and every replica that could be has caught up.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold, or a healed cluster makes no progress.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        if self.plan.network.lagging.is_some() {
            self.witness.see(Sight::Lagging);
        }
        let healed_at = START + self.plan.faults.until;
        let is_on_disk = self.plan.faults.disks.is_some();
        let bound = if is_on_disk { LIVENESS_BOUND_ON_DISK } else { LIVENESS_BOUND };
        let mut events = 0;
        while !self.is_finished() {
            let Some(Reverse(next)) = self.events.pop() else { panic!("nothing left to happen") };
            assert!(next.at >= self.now, "time went back");
            self.now = next.at;
            if self.is_safety_only && self.now > healed_at + SAFETY_TIME {
                break;
            }
            if self.now > healed_at + bound {
                panic!("no progress in {bound:?} after all healed:\n{}", self.describe());
            }
            (next.at, &next.what).hash(&mut self.hasher);
            events += 1;
            assert!(events < EVENTS_MAX, "a storm of messages:\n{}", self.describe());
            self.take(next.what);
        }
        self.check_end();
        self.check_slots();
        let verdict = self.load.history.check(STEPS_MAX);
        assert!(!matches!(verdict, Verdict::NotLinearizable(_)), "{verdict}");
        Outcome {
            trace_hash: self.hasher.finish(),
            events,
            took: self.now.since(START),
            acknowledged: self.load.acknowledged.len() as u64,
            slots: self.replicas().map(|replica| replica.executed().0).max().unwrap_or(0),
            unknown: self.load.unknown,
            elections: self.elections,
            is_safety_only: self.is_safety_only,
            is_undecided: matches!(verdict, Verdict::Undecided { .. }),
            longest_wait: self.load.longest_wait,
            election_timeout: self.plan.cluster.election_timeout,
            has_slow_disks: self.plan.faults.disks.is_some_and(|it| !it.healed_sync.is_zero()),
            sights: self.witness.sights.and(self.load.sights),
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

    /// The acceptor by whose name its disk goes, where several share one; others are their own.
    fn host(&self, id: RoleId) -> RoleId {
        match (id, &self.plan.faults.disks) {
            (RoleId::Acceptor(AcceptorId(a)), Some(disks)) => {
                RoleId::Acceptor(AcceptorId(a - a % disks.acceptors_per_log))
            }
            (_, _) => id,
        }
    }

    /// The acceptors that share a process, a disk and a log with `id`, itself among them; no others
    /// do.
    fn sharers(&self, id: RoleId) -> Vec<RoleId> {
        let RoleId::Acceptor(_) = id else { return vec![id] };
        let acceptors = self.plan.cluster.quorums.acceptors();
        let host = self.host(id);
        acceptors.iter().map(RoleId::Acceptor).filter(|other| self.host(*other) == host).collect()
    }

    fn take(&mut self, what: Happening) {
        match what {
            Happening::Deliver(from, envelope) => {
                let id = envelope.to.role();
                self.network.on_arrival(from, id);
                self.step(id, Happening::Deliver(from, envelope));
            }
            Happening::Release(id, incarnation, held) => {
                self.step(id, Happening::Release(id, incarnation, held));
            }
            Happening::Disk(id, incarnation, work) => self.disk(id, incarnation, work),
            Happening::Snapshot(id, incarnation) => self.snapshot(id, incarnation),
            Happening::Wake(id) => {
                let process = self.processes.get_mut(&id).expect("every role has a process");
                if process.wake_at.take_if(|at| *at <= self.now).is_some() {
                    self.step(id, Happening::Wake(id));
                }
            }
            Happening::Resume(id) => self.resume(id),
            Happening::Submit(gateway) if self.outsiders.contains(RoleId::Gateway(gateway)) => {}
            Happening::Submit(gateway) => {
                let is_core = |gateway| !self.outsiders.contains(RoleId::Gateway(gateway));
                if !self.slow_disks.is_empty() && self.load.is_served(is_core) {
                    self.slow_disks.clear();
                }
                self.step(RoleId::Gateway(gateway), Happening::Submit(gateway));
                self.schedule(self.now + TURN, Happening::Submit(gateway));
            }
            Happening::Fault => self.fault(),
            Happening::Gone(id, gone) => self.step(id, Happening::Gone(id, gone)),
            Happening::Restart(id) if self.stays_down(id) => self.witness.see(Sight::GoneForGood),
            Happening::Restart(id) if self.is_running(id) => {} // healed meanwhile
            Happening::Restart(id) => self.start(id),
            Happening::Operate => self.operate(),
            Happening::Heal => self.heal(),
        }
    }

    /// Lets a role take one thing in, checks it, and sends what it says.
    fn step(&mut self, id: RoleId, what: Happening) {
        let host = self.host(id);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(role) = &mut process.role else { return };
        if process.paused_until.is_some() {
            process.backlog.push(what);
            return;
        }
        let is_release = matches!(what, Happening::Release(..));
        let shown = process.clock.show(self.now);
        match what {
            Happening::Deliver(from, envelope) => {
                self.ladder.borrow_mut().message(self.now, from, &envelope.to, "");
                self.witness.on_delivered(&envelope);
                if self.stores.get(&host).is_some_and(|store| store.is_too_much(&envelope.to)) {
                    return self.witness.see(Sight::TooMuch);
                }
                role.on_envelope(envelope, shown, &mut self.out);
            }
            Happening::Release(_, incarnation, held) => {
                if incarnation == process.incarnation {
                    process.releases -= 1;
                    self.checker.on_released(&held);
                    self.out.sends.extend(held);
                }
            }
            Happening::Wake(_) => role.on_time(shown, &mut self.out),
            Happening::Gone(_, gone) => role.on_gone(gone, shown, &mut self.out),
            Happening::Submit(gateway) => {
                if let Role::Gateway(role) = role {
                    // Told at once why none is executed, clients rest.
                    let rests = role.halted(shown).is_some() && self.rng.below(100) > 0;
                    let submissions = match rests {
                        true => Vec::new(),
                        false => self.load.submissions(gateway, self.now, &mut self.rng),
                    };
                    for (caller, owner, command) in submissions {
                        let submission = Submission { owner, command: &command };
                        role.submit(caller, submission, shown, &mut self.out);
                    }
                    for (caller, level, query) in self.load.reads(gateway, self.now, &mut self.rng)
                    {
                        let query = Query { level, bytes: &query };
                        role.read(caller, query, shown, &mut self.out);
                    }
                    role.flush(shown, &mut self.out);
                }
            }
            Happening::Disk(..)
            | Happening::Snapshot(..)
            | Happening::Resume(_)
            | Happening::Fault
            | Happening::Restart(_)
            | Happening::Operate
            | Happening::Heal => unreachable!("not a role's business"),
        }
        self.settle(id, is_release);
    }

    /// After a role has acted: checks, and hands on what it wants done.
    fn settle(&mut self, id: RoleId, is_release: bool) {
        let host = self.host(id);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let role = process.role.as_mut().expect("only a role that is up acts");
        let incarnation = process.incarnation;
        let released: Vec<To> = self.out.sends.drain(..).collect();
        let formation = role.formation();
        if !is_release {
            self.checker.on_sends(&released);
        }
        self.checker.on_step(role, incarnation);
        self.witness.on_step(role);
        let wake_at = role.next_timeout().map(|at| process.clock.when(at));
        self.checker.on_held(role, &self.out.held);
        let (work, at_once) = match (&mut *role, self.stores.get_mut(&host)) {
            (Role::Acceptor(acceptor), Some(store)) => {
                self.witness.on_records(&self.out.records);
                store.take(acceptor, &mut self.out)
            }
            _ => (Vec::new(), Vec::new()),
        };
        let has_orders = match self.replica_stores.get_mut(&id) {
            Some(store) => store.take(&mut self.out.snapshots),
            None => false,
        };
        assert!(self.out.snapshots.is_empty(), "a role without a disk orders snapshots");
        let is_own = |from| RoleId::Acceptor(from) == id;
        assert!(at_once.iter().all(|(from, _)| is_own(*from)), "another's message was overlooked");
        let at_once: Vec<To> = at_once.into_iter().map(|(_, envelope)| envelope.to).collect();
        self.checker.on_released(&at_once);
        let held: Vec<To> = self.out.held.drain(..).collect();
        if let RoleId::Gateway(gateway) = id {
            for (caller, reply) in self.out.replies.iter() {
                if let Err(why) = &reply {
                    self.witness.on_failure(why);
                }
                self.load.on_reply(gateway, caller, reply, self.now);
            }
        }
        self.out.replies.clear();
        if !held.is_empty() {
            process.releases += 1;
            let at = self.now + self.rng.up_to(self.plan.faults.sync_max);
            self.schedule(at, Happening::Release(id, incarnation, held));
        }
        for to in released.into_iter().chain(at_once) {
            self.send(id, Envelope { formation, to });
        }
        self.schedule_work(host, work);
        if has_orders {
            self.schedule_snapshot(id);
        }
        self.check_truncated(id);
        self.watch_room(host);
        self.wake(id, wake_at);
        self.take_events(id);
        if self.lost.contains(&id) && self.has_all_back(id) {
            self.lost.retain(|lost| *lost != id);
            self.set_back.remove(&id);
            self.witness.see(Sight::BackFromNothing);
        }
        if self.is_failed(id) {
            self.stop(id);
        }
    }

    /// Has a message carried over, or whatever the network makes of it.
    fn send(&mut self, from: RoleId, envelope: Envelope) {
        self.witness.on_send(self.now, &envelope.to);
        let to = envelope.to.role();
        if self.outsiders.cuts(from, to) {
            return;
        }
        let mut copies = 0;
        for fate in self.network.fates(from, &envelope.to, self.now, &mut self.rng) {
            let lost = match fate {
                Fate::Arrives(at) => {
                    let arrives = self.wire.carry(&envelope, &mut self.rng);
                    self.schedule(at, Happening::Deliver(from, arrives));
                    if at > self.now + self.plan.network.delay_max {
                        self.witness.see(Sight::Late);
                    }
                    copies += 1;
                    continue;
                }
                Fate::Damaged => {
                    self.wire.damage(&envelope, &mut self.rng);
                    self.witness.see(Sight::Damaged);
                    "damaged"
                }
                Fate::Lost => {
                    self.witness.see(Sight::Lost);
                    "lost"
                }
                Fate::CutOff => "cut off",
                Fate::Full => {
                    self.witness.see(Sight::LinkFull);
                    "dropped, for its link is full"
                }
            };
            self.ladder.borrow_mut().message(self.now, from, &envelope.to, lost);
        }
        if copies > 1 {
            self.witness.see(Sight::Copied);
        }
    }

    fn wake(&mut self, id: RoleId, at: Option<Time>) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(at) = at.filter(|at| process.wake_at.is_none_or(|set| *at < set)) else { return };
        process.wake_at = Some(at);
        let at = at.max(self.now);
        self.schedule(at, Happening::Wake(id));
    }

    fn take_events(&mut self, id: RoleId) {
        let events: Vec<Event> = self.out.events.drain(..).collect();
        for event in events {
            self.ladder.borrow_mut().event(self.now, id, &event);
            let processes = &self.processes;
            self.witness.on_event(&event, || processes.values().filter(|it| it.leads()).count());
            match event {
                Event::Formed { .. } => self.has_formed = true,
                Event::Elected { .. } => {
                    self.elections += 1;
                    if self.is_healed && self.slow_disks.len() == self.stores.len() {
                        self.witness.see(Sight::SlowElection);
                    }
                }
                Event::Halted { why: Halt::SnapshotRefused { .. }, .. }
                    if self.replica_stores.get(&id).is_some_and(ReplicaStore::may_fail) => {}
                Event::Halted { why: Halt::Panicked { .. }, .. } if self.plan.trap.is_some() => {}
                Event::Skips { .. } => self.on_skips(id),
                // A replica that has lost its snapshot before the cluster has formed.
                Event::OriginsDiffer { .. }
                    if self.plan.origin.is_some()
                        && (!self.lost.is_empty()
                            || self.replica_stores.values().any(ReplicaStore::may_fail)) => {}
                Event::Equivocation { .. }
                | Event::Halted { .. }
                | Event::NoSnapshots { .. }
                | Event::OriginsDiffer { .. } => {
                    panic!("{event:?}")
                }
                Event::SteppedDown { .. }
                | Event::CampaignFailed { .. }
                | Event::Silenced { .. }
                | Event::HandedOver { .. }
                | Event::Suspected { .. }
                | Event::Forgotten { .. }
                | Event::Foreign { .. }
                | Event::Ignored { .. }
                | Event::SnapshotSetAside { .. }
                | Event::ClockAhead { .. }
                | Event::SkipRefused { .. }
                | Event::FillRefused { .. } // of a leader that is deposed and does not know it
                | Event::SessionOpened { .. }
                | Event::SessionLost { .. } => {}
            }
        }
        let role = self.processes.get(&id).and_then(|process| process.role.as_ref());
        if matches!(role, Some(Role::Replica(replica)) if replica.is_to_start_over()) {
            self.stop(id); // its driver starts it over
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.ladder.borrow_mut().note(self.now, what);
    }

    fn schedule(&mut self, at: Time, what: Happening) {
        self.made += 1;
        self.events.push(Reverse(Scheduled { at, made: self.made, what }));
    }
}
