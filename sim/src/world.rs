//! The world: virtual time, the roles, and what befalls them.
//!
//! ```text
//!  event      does
//!  Deliver    hands a message to its role, unless that is down; a paused one gets it later
//!  Release    lets go of what an acceptor in memory held for a sync, unless it has crashed since
//!  Disk       does a piece of a durable acceptor's disk work, unless its process has ended since
//!  Wake       fires a role's due timers
//!  Submit     lets the clients of a gateway submit, and the gateway flush
//!  Fault      crashes or pauses a process or a quorum, sets a clock ahead, or moves the network's partition
//!  Restart    starts a crashed process over: with a blank memory, or with what is on its disk
//!  Gone       tells a role that another's life has ended, which may be false
//!  Heal       ends all faults
//! ```

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, Envelope, Event, GatewayId, Incarnation, Life,
    Outbox, ProposerId, ProxyLeaderId, Replica, ReplicaId, Rng, Role, RoleId, Slot, Time, To,
    Watermark,
};
use loggos_storage::StorageError;
use loggos_storage::sim::Fault;

use crate::checker::Checker;
use crate::clock::Clock;
use crate::ladder::Ladder;
use crate::linearizability::{STEPS_MAX, Verdict};
use crate::load::Load;
use crate::network::{ACCEPTORS, Fate, KINDS, Network, PROPOSERS, kind};
use crate::outsiders::{Condition, Outsiders};
use crate::recorder::Recorder;
use crate::sights::{Sight, Sights, Witness};
use crate::store::{Done, Store, Work};
use crate::swarm::Plan;
use crate::wire::Wire;

/// How long a healed cluster has until every client is done: where the network overtakes itself all the time, a
/// session that sends many batches at once gets one or two of them in order, and sends the others again. With
/// disks each such round takes the time of a sync more.
const LIVENESS_BOUND: Duration = Duration::from_secs(60);
const LIVENESS_BOUND_ON_DISK: Duration = Duration::from_secs(240);
/// How long it goes on where only safety is checked.
const SAFETY_TIME: Duration = Duration::from_secs(5);
/// More events than any run needs: whoever gets here answers messages with more messages for ever.
const EVENTS_MAX: u64 = 5_000_000;
/// How long it takes at the most to see that a process has ended.
const EVIDENCE_MAX: Duration = Duration::from_millis(5);
/// Between two turns of a gateway's clients.
const TURN: Duration = Duration::from_micros(500);
/// When it all begins, in true time and on a clock that is right: late enough that one set wrong is not before
/// the epoch.
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
    /// Durable acceptors whose logs are not to be used any more.
    refused: Vec<RoleId>,
    /// Those that have been damaged: they may be refused, and come back with everything or not at all.
    damaged: Vec<RoleId>,
    network: Network,
    outsiders: Outsiders,
    /// Whose disks hang, until when.
    hung_until: BTreeMap<RoleId, Time>,
    /// Whose syncs take long although all has healed.
    slow_disks: BTreeSet<RoleId>,
    /// Whose logs have had little room.
    were_low: BTreeSet<RoleId>,
    wire: Wire,
    load: Load,
    checker: Checker,
    witness: Witness,
    rng: Rng,
    out: Outbox,
    hasher: DefaultHasher,
    /// Acceptors that have lost their memory, and replicas that have and do not yet have it back from their peers.
    lost: Vec<RoleId>,
    has_formed: bool,
    is_healed: bool,
    is_safety_only: bool,
    elections: u64,
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
    /// Slots that the replica that is furthest has executed.
    pub slots: u64,
    /// Commands whose clients were told that the outcome is unknown.
    pub unknown: u64,
    /// Elections won.
    pub elections: u64,
    /// Whether more was lost than the cluster claims to survive, so that only safety was checked.
    pub is_safety_only: bool,
    /// Whether the search for an order of the clients' operations was given up.
    pub is_undecided: bool,
    /// The longest that a client waited for an answer to the first command it asked once all had healed.
    pub longest_wait: Duration,
    /// The cluster's election timeout, which that is compared with.
    pub election_timeout: Duration,
    /// Whether syncs took longer than that, until all clients were served.
    pub has_slow_disks: bool,
    /// Situations come across.
    pub sights: Sights,
}

#[derive(Debug)]
struct Process {
    /// `None` while it is down.
    role: Option<Role<Recorder>>,
    incarnation: Incarnation,
    clock: Clock,
    /// What arrived while it was paused.
    backlog: Vec<Happening>,
    paused_until: Option<Time>,
    wake_at: Option<Time>,
    /// Syncs that are under way.
    releases: u32,
}

impl Process {
    /// Whether it is a proposer that leads, as it sees it.
    fn leads(&self) -> bool {
        match &self.role {
            Some(Role::Proposer(proposer)) => proposer.is_leading(),
            Some(
                Role::Gateway(_) | Role::ProxyLeader(_) | Role::Acceptor(_) | Role::Replica(_),
            )
            | None => false,
        }
    }
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
    Deliver(RoleId, Envelope),
    Release(RoleId, Incarnation, Vec<To>),
    Disk(RoleId, Incarnation, Work),
    Wake(RoleId),
    Resume(RoleId),
    Submit(GatewayId),
    Fault,
    Gone(RoleId, RoleId),
    Restart(RoleId),
    Heal,
}

impl World {
    /// Returns the world of `plan`, in which nothing has happened yet. What happens is written down in `ladder`.
    #[must_use]
    pub fn new(plan: Plan, ladder: Rc<RefCell<Ladder>>) -> Self {
        let cluster = plan.cluster.clone();
        let mut world = Self {
            ladder,
            now: START,
            made: 0,
            events: BinaryHeap::new(),
            processes: BTreeMap::new(),
            stores: BTreeMap::new(),
            refused: Vec::new(),
            damaged: Vec::new(),
            network: Network::new(plan.network.clone(), START + plan.faults.from),
            outsiders: Outsiders::default(),
            hung_until: BTreeMap::new(),
            slow_disks: BTreeSet::new(),
            were_low: BTreeSet::new(),
            wire: Wire::new(&cluster),
            load: Load::new(plan.load.clone(), cluster.gateways),
            checker: Checker::new(cluster.clone()),
            witness: Witness::default(),
            rng: Rng::new(plan.seed),
            out: Outbox::default(),
            hasher: DefaultHasher::new(),
            lost: Vec::new(),
            has_formed: false,
            is_healed: false,
            is_safety_only: false,
            elections: 0,
            plan,
        };
        if let Some(disks) = &world.plan.faults.disks {
            let acceptors: Vec<AcceptorId> = cluster.quorums.acceptors().iter().collect();
            for sharers in acceptors.chunks(disks.acceptors_per_log.into()) {
                let set = sharers.iter().copied().collect();
                let store = Store::new(&cluster, set, disks, &mut world.rng);
                world.stores.insert(RoleId::Acceptor(sharers[0]), store);
                if sharers.len() > 1 {
                    world.witness.see(Sight::LogShared);
                }
            }
        }
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
        world
    }

    /// Runs to the end: every client is done, and every replica that could be has caught up.
    ///
    /// # Panics
    ///
    /// If an invariant does not hold, or a healed cluster makes no progress.
    #[must_use]
    pub fn run(mut self) -> Outcome {
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
                panic!("no progress in {bound:?} after all healed:\n{}", self.standing());
            }
            (next.at, &next.what).hash(&mut self.hasher);
            events += 1;
            assert!(events < EVENTS_MAX, "a storm of messages:\n{}", self.standing());
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
            sights: self.witness.sights,
        }
    }

    fn is_finished(&self) -> bool {
        let is_core = |id: RoleId| !self.outsiders.contains(id);
        if !self.is_healed || !self.load.is_done(|gateway| is_core(RoleId::Gateway(gateway))) {
            return false;
        }
        let core = self.replicas().filter(|replica| is_core(RoleId::Replica(replica.id())));
        let mut executed = core.map(Replica::executed);
        let first = executed.next();
        executed.all(|other| Some(other) == first) && self.has_replayed()
    }

    /// Whether some replica has executed all that was ever acknowledged: after everybody was stopped, all of
    /// them being equal says little.
    fn has_replayed(&self) -> bool {
        let executed = self.replicas().map(|replica| replica.machine().executed.len() as u64).max();
        self.load.acknowledged.iter().all(|it| Some(it.position) < executed)
    }

    fn check_end(&self) {
        let furthest = self.replicas().max_by_key(|replica| replica.executed());
        let nothing = Recorder::default();
        let recorder = furthest.map_or(&nothing, Replica::machine);
        let mut acknowledged = &self.load.acknowledged[..];
        let mut unanswerable = &self.load.unanswerable[..];
        let known;
        if self.is_safety_only && !self.stores.is_empty() {
            // Replicas may not have come as far again as they were: what they lack is on disks.
            let executed = recorder.executed.len() as u64;
            known = acknowledged
                .iter()
                .filter(|it| it.position < executed)
                .copied()
                .collect::<Vec<_>>();
            acknowledged = &known;
            unanswerable = &[];
        }
        if furthest.is_some() || !self.is_safety_only {
            self.checker.at_end(recorder, acknowledged, unanswerable);
        }
    }

    /// Checks that slots are not wasted: one for each batch, and after an election another for each that was in flight,
    /// and for what phase 1 has found. A gap that is answered by sending all behind it again, which makes gaps, costs many
    /// times that.
    fn check_slots(&self) {
        let cluster = &self.plan.cluster;
        let in_flight = u64::from(cluster.gateways) * u64::from(cluster.batches_in_flight_max);
        let an_election = 2 * in_flight + u64::from(cluster.slot_window);
        let commands = self.load.acknowledged.len() as u64 + self.load.unknown;
        let most = 2 * commands + an_election * (self.elections + 1);
        let slots = self.replicas().map(|replica| replica.executed().0).max().unwrap_or(0);
        assert!(slots <= most, "{slots} slots for {commands} commands:\n{}", self.standing());
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

    /// The acceptors that share a process, a disk and a log with `id`, itself among them; no others do.
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
                    let submissions = self.load.submissions(gateway, self.now, &mut self.rng);
                    for (caller, command) in submissions {
                        role.submit(caller, &command, shown, &mut self.out);
                    }
                    role.flush(shown, &mut self.out);
                }
            }
            Happening::Disk(..)
            | Happening::Resume(_)
            | Happening::Fault
            | Happening::Restart(_)
            | Happening::Heal => unreachable!("not a role's business"),
        }
        self.settle(id, is_release);
    }

    /// Has a disk do a piece of work. Its log goes on where the acceptor is to start over.
    fn disk(&mut self, id: RoleId, incarnation: Incarnation, work: Work) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let store = self.stores.get_mut(&id).expect("disk work is done on a disk");
        if incarnation != process.incarnation || !store.is_running() {
            return;
        }
        if process.paused_until.is_some() {
            return process.backlog.push(Happening::Disk(id, incarnation, work));
        }
        let (done, next) = store.work(work);
        let mut next = Some(next);
        for sharer in self.sharers(id) {
            let RoleId::Acceptor(acceptor) = sharer else { unreachable!("acceptors have disks") };
            let process = self.processes.get_mut(&sharer).expect("every role has a process");
            let shown = process.clock.show(self.now);
            let mut is_release = false;
            let mut role = match &mut process.role {
                Some(Role::Acceptor(role)) => Some(role),
                _ => None,
            };
            match (&done, &mut role) {
                (Done::Failed, _) => return self.stop(id),
                (Done::Nothing, _) | (_, None) => {}
                (Done::Synced(released, recorded), Some(role)) => {
                    recorded.get(&acceptor).into_iter().for_each(|it| role.on_durable(*it));
                    let own = released.iter().filter(|(from, _)| *from == acceptor);
                    let released: Vec<To> = own.map(|(_, envelope)| envelope.to.clone()).collect();
                    self.checker.on_released(&released);
                    self.out.sends.extend(released);
                    is_release = true;
                }
                (Done::Read(recalled), Some(role)) => {
                    if recalled.recall.acceptor == acceptor {
                        self.witness.see(Sight::Recalled);
                        role.on_recalled(recalled, shown, &mut self.out);
                    }
                }
            }
            let is_up = process.role.is_some();
            next.take().into_iter().for_each(|work| self.schedule_work(id, work));
            match is_up {
                true => self.settle(sharer, is_release),
                false => self.start_over(sharer),
            }
        }
    }

    /// Ends the life of a durable acceptor, in a process that goes on, and has it start over.
    fn end_life(&mut self, id: RoleId) {
        let RoleId::Acceptor(acceptor) = id else { return };
        let host = self.host(id);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(store) = self.stores.get_mut(&host) else { return };
        if process.role.is_none() || process.paused_until.is_some() {
            return;
        }
        process.role = None;
        self.witness.see(match store.is_holding() {
            true => Sight::StartedOverUnsynced,
            false => Sight::StartedOver,
        });
        store.end_life(acceptor);
        self.note(|| format!("{id} is to start over, in its process"));
        self.start_over(id);
    }

    /// Starts an acceptor over whose process goes on, if what its former life has left is settled.
    fn start_over(&mut self, id: RoleId) {
        let RoleId::Acceptor(acceptor) = id else { return };
        let (cluster, seed) = (self.plan.cluster.clone(), self.rng.next_u64());
        let host = self.host(id);
        let store = self.stores.get_mut(&host).expect("it is durable");
        match store.restart(cluster, acceptor, seed) {
            Ok(Some((restored, votes))) => {
                self.note(|| format!("{id} starts over"));
                let shown = self.processes.get(&id).map(|process| process.clock.show(self.now));
                let restored = self.restored(restored, &votes, shown.unwrap_or(self.now));
                self.processes.get_mut(&id).expect("every role has a process").role =
                    Some(restored);
            }
            Ok(None) if self.is_failed(id) => self.stop(id),
            Ok(None) => {} // a sync is under way, or will be
            Err(_) => self.stop(id),
        }
    }

    /// Takes in that an acceptor has come back with what is on its disk.
    fn restored(
        &self,
        mut acceptor: Acceptor,
        votes: &[(Slot, Ballot)],
        shown: Time,
    ) -> Role<Recorder> {
        acceptor.on_start(shown);
        self.checker.on_restored(&acceptor, votes);
        Role::Acceptor(Box::new(acceptor))
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
        let is_own = |from| RoleId::Acceptor(from) == id;
        assert!(at_once.iter().all(|(from, _)| is_own(*from)), "another's message was overlooked");
        let at_once: Vec<To> = at_once.into_iter().map(|(_, envelope)| envelope.to).collect();
        self.checker.on_released(&at_once);
        let held: Vec<To> = self.out.held.drain(..).collect();
        if let RoleId::Gateway(gateway) = id {
            for (caller, reply) in self.out.replies.iter() {
                if let Err(why) = reply {
                    self.witness.on_failure(why);
                }
                self.load.on_reply(gateway, caller, reply.map(|(_, reply)| reply), self.now);
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
        self.watch_room(host);
        self.wake(id, wake_at);
        self.take_events();
        if self.lost.contains(&id) && self.has_all_back(id) {
            self.lost.retain(|lost| *lost != id);
            self.witness.see(Sight::BackFromNothing);
        }
        if self.is_failed(id) {
            self.stop(id);
        }
    }

    /// Notes how much room a log has.
    fn watch_room(&mut self, id: RoleId) {
        let Some(store) = self.stores.get(&id) else { return };
        match store.is_low_or_full() {
            (_, true) => self.witness.see(Sight::LogFull),
            (true, false) => self.witness.see(Sight::LogLow),
            (false, false) if self.were_low.remove(&id) => self.witness.see(Sight::LogRoomy),
            (false, false) => return,
        }
        if store.is_low_or_full().0 {
            self.were_low.insert(id);
        }
    }

    /// Has a disk do its work, in its own time.
    fn schedule_work(&mut self, id: RoleId, work: Vec<Work>) {
        let Some(incarnation) = self.processes.get(&id).map(|process| process.incarnation) else {
            return;
        };
        let disks = self.plan.faults.disks.clone().filter(|_| !self.outsiders.is_hung(id));
        let Some(disks) = disks else { return };
        let sync_max = self.plan.faults.sync_max;
        for work in work {
            let mut most = match work {
                Work::Write => sync_max / 2,
                Work::Sync | Work::Read(_) => sync_max,
                Work::Create(_) => 4 * sync_max,
                Work::Mark | Work::TryAgain => Duration::from_millis(200),
            };
            if !self.is_healed && self.rng.below(100) < disks.slow_percent {
                most = most.max(disks.slow_max);
            }
            let least = match work {
                Work::Sync if self.slow_disks.contains(&id) => disks.healed_sync,
                Work::Sync
                | Work::Write
                | Work::Create(_)
                | Work::Read(_)
                | Work::Mark
                | Work::TryAgain => Duration::ZERO,
            };
            let hung_until = self.hung_until.get(&id).copied().unwrap_or(self.now);
            let at = hung_until.max(self.now + least + self.rng.up_to(most));
            self.schedule(at, Happening::Disk(id, incarnation, work));
        }
    }

    /// Ends a durable acceptor that its disk has failed, or taken down with it.
    fn stop(&mut self, id: RoleId) {
        self.witness.see(Sight::DiskFailed);
        let down = self.rng.up_to(self.plan.faults.down_max) + Duration::from_millis(1);
        self.crash(id, down);
    }

    /// Whether a replica that has lost its memory has executed as much again as each of the others: whatever
    /// acceptors have forgotten, it has.
    fn has_all_back(&self, id: RoleId) -> bool {
        let RoleId::Replica(id) = id else { return false };
        let executed = |replica: &Replica<Recorder>| replica.executed();
        let ours = self.replicas().find(|replica| replica.id() == id).map(executed);
        ours > Some(Watermark(0)) && self.replicas().map(executed).max() <= ours
    }

    fn is_up(&self, id: RoleId) -> bool {
        self.processes.get(&id).is_some_and(|process| process.role.is_some())
    }

    /// Whether its process runs: its role may be about to start over there.
    fn is_running(&self, id: RoleId) -> bool {
        self.is_up(id) || self.stores.get(&self.host(id)).is_some_and(Store::is_running)
    }

    /// Whether its log takes nothing in any more.
    fn is_failed(&self, id: RoleId) -> bool {
        self.stores.get(&self.host(id)).is_some_and(|store| store.poisoned().is_some())
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

    fn take_events(&mut self) {
        let events: Vec<Event> = self.out.events.drain(..).collect();
        for event in events {
            self.ladder.borrow_mut().event(self.now, &event);
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
                Event::Equivocation { .. } | Event::Halted { .. } | Event::NoSnapshots { .. } => {
                    panic!("{event:?}")
                }
                Event::SteppedDown { .. }
                | Event::CampaignFailed { .. }
                | Event::Silenced { .. }
                | Event::HandedOver { .. }
                | Event::Suspected { .. }
                | Event::Forgotten { .. }
                | Event::Foreign { .. }
                | Event::SessionOpened { .. }
                | Event::SessionLost { .. } => {}
            }
        }
    }

    /// Starts a process, with all the roles that share it.
    fn start(&mut self, id: RoleId) {
        let sharers = self.sharers(id);
        sharers.iter().for_each(|sharer| self.start_role(*sharer));
        if sharers.iter().any(|sharer| !self.is_up(*sharer)) {
            // The log that they share is not to be used, or not just now.
            for sharer in sharers {
                self.processes.get_mut(&sharer).expect("every role has a process").role = None;
            }
        }
    }

    fn start_role(&mut self, id: RoleId) {
        let cluster = self.plan.cluster.clone();
        let incarnation = Incarnation(self.rng.next_u64());
        let seed = self.rng.next_u64();
        let life = Life { incarnation, seed };
        let clock = self.draw_clock();
        let shown = clock.show(self.now);
        let role = match id {
            RoleId::Acceptor(acceptor) if !self.stores.is_empty() => {
                self.restore(id, acceptor, seed, shown)
            }
            RoleId::Gateway(_)
            | RoleId::Proposer(_)
            | RoleId::ProxyLeader(_)
            | RoleId::Acceptor(_)
            | RoleId::Replica(_) => {
                Some(Role::start(cluster, id, life, shown, |_| Recorder::default()))
            }
        };
        let process = Process {
            role,
            incarnation,
            clock,
            backlog: Vec::new(),
            paused_until: None,
            wake_at: None,
            releases: 0,
        };
        let before = self.processes.insert(id, process);
        if before.is_some() {
            self.note(|| format!("{id} starts over"));
            self.witness.see(Sight::Restarted);
        }
        if let (RoleId::Gateway(gateway), Some(_)) = (id, before) {
            self.load.start_life(gateway, self.now);
        }
        self.wake(id, Some(self.now));
    }

    /// A durable acceptor with what is on its disk; `None` if it cannot come back now, or ever.
    fn restore(
        &mut self,
        id: RoleId,
        acceptor: AcceptorId,
        seed: u64,
        shown: Time,
    ) -> Option<Role<Recorder>> {
        let cluster = self.plan.cluster.clone();
        let host = self.host(id);
        if host != id && !self.is_up(host) {
            return None;
        }
        let store = self.stores.get_mut(&host).expect("it is durable");
        if !self.is_healed && self.rng.below(20) == 0 {
            store.order(self.rng.below(30), Fault::Crash);
        }
        match store.start(cluster, acceptor, seed) {
            Ok((restored, votes)) => {
                let restored = self.restored(restored, &votes, shown);
                if self.processes.contains_key(&id) {
                    self.witness.see(Sight::CameBack);
                }
                if self.damaged.contains(&host) {
                    self.witness.see(Sight::DamageDropped);
                }
                Some(restored)
            }
            Err(StorageError::Disk { .. }) => {
                self.witness.see(Sight::RecoveryCut);
                store.crash(self.rng.below(2) == 0);
                self.schedule(self.now + Duration::from_millis(10), Happening::Restart(host));
                None
            }
            Err(error) => {
                assert!(self.damaged.contains(&host), "{id} cannot come back: {error}");
                self.witness.see(Sight::DiskRefused);
                self.refused.extend(self.sharers(id));
                None
            }
        }
    }

    /// A clock that is set as wrong, and runs as wrong, as the plan has it.
    fn draw_clock(&mut self) -> Clock {
        let (skew_max, drift) =
            (self.plan.faults.clock_skew_max, self.plan.faults.clock_drift_parts);
        // A life's clock is later than all before it showed, or not: nothing follows from it.
        let shown = self.now - skew_max + self.rng.up_to(2 * skew_max);
        let fast_parts = self.rng.below(2 * drift + 1).cast_signed() - drift.cast_signed();
        if !skew_max.is_zero() {
            self.witness.see(Sight::ClockSkewed);
        }
        Clock::new(self.now, shown, fast_parts)
    }

    /// Crashes or pauses a process or a quorum, sets a clock ahead, moves the partition, and draws when to do so
    /// again.
    fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        for sight in self.network.change(&ids, self.now, &mut self.rng) {
            self.note(|| sight.to_string());
            self.witness.see(sight);
        }
        let victim = self.draw_victim(&ids);
        let faults = &self.plan.faults;
        let down = self.rng.up_to(faults.down_max) + Duration::from_millis(1);
        let (blackout_percent, failure_percent) =
            faults.disks.as_ref().map_or((0, 0), |it| (it.blackout_percent, it.failure_percent));
        if self.rng.below(100) < failure_percent {
            self.fail_disk(&ids);
        }
        let hang = self.plan.faults.disks.as_ref().map(|it| (it.hang_percent, it.hang_max));
        if let Some((percent, most)) = hang
            && self.rng.below(100) < percent
        {
            let acceptor = self.draw_of(ACCEPTORS, &ids);
            let until = self.now + self.rng.up_to(most);
            self.note(|| format!("the disk of {acceptor} hangs until {until}"));
            self.witness.see(Sight::DiskHung);
            self.hung_until.insert(self.host(acceptor), until);
        }
        if !self.stores.is_empty() && self.rng.below(8) == 0 {
            let acceptor = self.draw_of(ACCEPTORS, &ids);
            self.end_life(acceptor);
        }
        if self.rng.below(100) < blackout_percent {
            self.witness.see(Sight::Blackout);
            ids.iter().for_each(|id| self.crash(*id, down));
        } else if self.rng.below(100) < self.plan.faults.quorum_percent {
            self.fault_quorum(down);
        } else if self.rng.below(100) < self.plan.faults.crash_percent {
            self.crash(victim, down);
        } else {
            self.pause(victim, down);
        }
        if kind(victim) == PROPOSERS && self.rng.below(2) == 0 {
            // An acceptor that sleeps through the election wakes up with votes that nobody recovered.
            let acceptor = self.draw_of(ACCEPTORS, &ids);
            self.pause(acceptor, down);
        }
        if self.rng.below(4) == 0 {
            let any = usize::try_from(self.rng.below(ids.len() as u64)).unwrap_or(0);
            self.set_clock_ahead(ids[any]);
        }
        if self.rng.below(8) == 0 {
            let alive = self.draw_victim(&ids);
            if self.is_up(alive) {
                self.witness.see(Sight::FalselyGone);
                self.tell_gone(alive);
            }
        }
        let next = self.now + self.rng.up_to(2 * self.plan.faults.every);
        self.schedule(next.max(self.now + Duration::from_millis(1)), Happening::Fault);
    }

    /// Has an acceptor's disk fail soon, or take the process down with it.
    fn fail_disk(&mut self, ids: &[RoleId]) {
        let acceptor = self.draw_of(ACCEPTORS, ids);
        let after = self.rng.below(6);
        let fault = match self.rng.below(2) {
            0 => Fault::Crash,
            _ => Fault::Error(ErrorKind::Other),
        };
        if self.is_up(acceptor) {
            let host = self.host(acceptor);
            let store = self.stores.get_mut(&host).expect("disks fail of those that have some");
            store.order(after, fault);
        }
    }

    /// Pauses a whole quorum, a row or a column of a grid; where the plan is reckless, crashes a write quorum.
    fn fault_quorum(&mut self, down: Duration) {
        let quorums = self.plan.cluster.quorums;
        let is_write = self.rng.below(2) == 0;
        let is_quorum = |set: AcceptorSet| {
            if is_write { quorums.is_write_quorum(set) } else { quorums.is_read_quorum(set) }
        };
        // Whoever can be spared is, in an order that is drawn.
        let mut left: Vec<AcceptorId> = quorums.acceptors().iter().collect();
        let mut quorum = quorums.acceptors();
        while !left.is_empty() {
            let any = usize::try_from(self.rng.below(left.len() as u64)).unwrap_or(0);
            let acceptor = left.swap_remove(any);
            quorum.remove(acceptor);
            if !is_quorum(quorum) {
                quorum.insert(acceptor);
            }
        }
        let sight = if is_write { Sight::WriteQuorumPaused } else { Sight::ReadQuorumPaused };
        for acceptor in quorum.iter().map(RoleId::Acceptor) {
            if is_write && self.plan.faults.is_reckless {
                self.crash(acceptor, down);
            } else {
                self.witness.see(sight);
                self.pause(acceptor, down);
            }
        }
    }

    fn set_clock_ahead(&mut self, id: RoleId) {
        let ahead = self.rng.up_to(self.plan.faults.clock_jump_max);
        if ahead.is_zero() {
            return;
        }
        self.note(|| format!("the clock of {id} jumps ahead by {ahead:?}"));
        self.witness.see(Sight::ClockJumped);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        process.clock.jump(self.now, ahead);
        if process.role.is_some() {
            self.wake(id, Some(self.now));
        }
    }

    /// Every third time it is who leads, if anybody does: elections are where bugs hide. Else a kind of
    /// role is drawn first, so that few of a kind are hit as often as many.
    fn draw_victim(&mut self, ids: &[RoleId]) -> RoleId {
        let leads = |id: &&RoleId| self.processes.get(id).is_some_and(Process::leads);
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
        if !self.is_running(id) {
            return;
        }
        let is_durable = !self.stores.is_empty();
        // Once all has healed, a disk may still fail that was ordered to before: its acceptor comes back.
        let is_for_good = self.plan.faults.is_for_good && !self.is_healed;
        let is_loss = !is_durable || is_for_good && self.rng.below(4) == 0;
        match id {
            RoleId::Acceptor(_) | RoleId::Replica(_) if is_loss => {
                if self.may_lose(id) {
                    self.lose(id);
                } else if !is_durable {
                    return;
                }
            }
            RoleId::Acceptor(_)
            | RoleId::Replica(_)
            | RoleId::Gateway(_)
            | RoleId::Proposer(_)
            | RoleId::ProxyLeader(_) => {}
        }
        let mut ids = self.sharers(id);
        if let (RoleId::Proposer(ProposerId(p)), 0) = (id, self.plan.cluster.proxy_leaders) {
            ids.push(RoleId::ProxyLeader(ProxyLeaderId(p))); // lives with it
        }
        for id in ids {
            self.note(|| format!("{id} crashes"));
            let process = self.processes.get_mut(&id).expect("every role has a process");
            let is_holding = self.stores.get(&id).is_some_and(Store::is_holding);
            self.witness.on_crash(id, process.leads(), process.releases > 0 || is_holding);
            process.role = None;
            process.releases = 0;
            process.backlog.clear();
            process.paused_until = None;
            self.crash_disk(id);
            if self.host(id) == id {
                self.schedule(self.now + down, Happening::Restart(id));
            }
            self.tell_gone(id);
        }
    }

    /// Has some of the other roles told that the life of `gone` has ended, each at its own time.
    fn tell_gone(&mut self, gone: RoleId) {
        let ids: Vec<RoleId> = self.processes.keys().copied().filter(|id| *id != gone).collect();
        let percent = self.rng.below(4) * 33;
        for id in ids {
            if self.rng.below(100) < percent {
                let at = self.now + self.rng.up_to(EVIDENCE_MAX);
                self.schedule(at, Happening::Gone(id, gone));
            }
        }
    }

    /// What becomes of a disk when its process ends.
    fn crash_disk(&mut self, id: RoleId) {
        let (Some(store), Some(disks)) = (self.stores.get_mut(&id), &self.plan.faults.disks) else {
            return;
        };
        let is_writing = store.is_writing();
        let loses_power = self.rng.below(100) < disks.power_percent;
        store.crash(loses_power);
        if loses_power {
            self.witness.see(if is_writing { Sight::TornWrite } else { Sight::PowerLost });
        }
        let is_damaged = !self.is_healed && self.rng.below(100) < disks.damage_percent;
        if is_damaged
            && self.may_lose(id)
            && self.stores.get_mut(&id).is_some_and(|store| store.damage(&mut self.rng))
        {
            self.note(|| format!("the disk of {id} is damaged"));
            self.damaged.push(id);
            self.lose(id);
        }
    }

    /// Whether the cluster claims to survive the loss of this one too. An acceptor or replica in memory
    /// is lost for good; f of each, and f + 1 replicas must be left that are not too far behind.
    fn may_lose(&self, id: RoleId) -> bool {
        let f = usize::from(self.plan.cluster.f);
        let lost_alike =
            |is_alike: fn(&RoleId) -> bool| self.lost.iter().filter(|r| is_alike(r)).count();
        match id {
            // A write quorum more, where that is allowed: what was chosen is still with the replicas.
            RoleId::Acceptor(_) => {
                let most = if self.plan.faults.is_reckless { usize::MAX } else { f };
                lost_alike(|r| matches!(r, RoleId::Acceptor(_))) + self.sharers(id).len() <= most
            }
            RoleId::Replica(_) => {
                let lost = lost_alike(|r| matches!(r, RoleId::Replica(_)));
                lost < f && usize::from(self.plan.cluster.replicas) - lost > f + 1
            }
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => true,
        }
    }

    /// Whether a crashed process never comes back, which the cluster must do without.
    fn stays_down(&self, id: RoleId) -> bool {
        let is_gone = self.plan.faults.is_for_good && !self.damaged.contains(&id);
        let is_lost = is_gone && self.lost.contains(&id);
        is_lost || self.refused.contains(&id) || self.outsiders.is_dead(id)
    }

    fn lose(&mut self, id: RoleId) {
        if self.lost.contains(&id) {
            return;
        }
        self.lost.extend(self.sharers(id));
        let lost = self.lost.iter().filter(|r| matches!(r, RoleId::Replica(_))).count();
        let left = usize::from(self.plan.cluster.replicas) - lost;
        let f = usize::from(self.plan.cluster.f);
        let acceptors = self.lost.iter().filter(|r| matches!(r, RoleId::Acceptor(_))).count();
        if acceptors > f {
            self.witness.see(Sight::BeyondF);
        }
        if !self.has_formed || left <= f || acceptors > f {
            self.is_safety_only = true;
        }
        // What acceptors forget, f + 1 replicas have (R16): at most f of those may be missing.
        assert!(lost <= f, "no replica has what was forgotten:\n{}", self.standing());
    }

    fn pause(&mut self, id: RoleId, down: Duration) {
        let until = self.now + down;
        for id in self.sharers(id) {
            let process = self.processes.get_mut(&id).expect("every role has a process");
            if process.role.is_some() && process.paused_until.is_none() {
                let sight = if process.leads() { Sight::LeaderPaused } else { Sight::Paused };
                self.witness.see(sight);
                process.paused_until = Some(until);
                self.note(|| format!("{id} stands still for {down:?}"));
                self.schedule(until, Happening::Resume(id));
            }
        }
    }

    fn resume(&mut self, id: RoleId) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        if process.paused_until.take().is_none() {
            return;
        }
        for what in std::mem::take(&mut process.backlog) {
            if let Happening::Disk(_, incarnation, work) = what {
                self.disk(id, incarnation, work);
            } else {
                self.step(id, what);
            }
        }
        self.wake(id, Some(self.now));
    }

    fn heal(&mut self) {
        self.is_healed = true;
        self.network.heal();
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        if self.plan.has_outsiders && self.has_formed {
            self.draw_outsiders(&ids);
        }
        self.load.heal(self.now);
        self.hung_until.clear();
        self.stores.values_mut().for_each(|store| store.set_capacity(None));
        self.slow_disks = self.draw_slow_disks();
        for id in ids {
            if self.host(id) == id && !self.is_running(id) && !self.stays_down(id) {
                self.start(id);
            }
            self.resume(id);
        }
        self.is_safety_only |= !self.has_formed && !self.lost.is_empty();
    }

    /// Draws whose syncs take long, until all clients are served: all, or f.
    fn draw_slow_disks(&mut self) -> BTreeSet<RoleId> {
        let Some(disks) = self.plan.faults.disks.as_ref() else { return BTreeSet::new() };
        if disks.healed_sync.is_zero() {
            return BTreeSet::new();
        }
        let mut slow: Vec<RoleId> = self.stores.keys().copied().collect();
        let count = if disks.are_all_slow { slow.len() } else { self.plan.cluster.f.into() };
        while slow.len() > count {
            let any = usize::try_from(self.rng.below(slow.len() as u64)).unwrap_or(0);
            slow.swap_remove(any);
        }
        slow.into_iter().collect()
    }

    /// Draws who stays outside for good: of each role f, counting what is lost already, and in such a way that the
    /// cluster claims to survive it. The leader is drawn more often than others.
    fn draw_outsiders(&mut self, ids: &[RoleId]) {
        let f = usize::from(self.plan.cluster.f);
        let has_own_proxy_leaders = self.plan.cluster.proxy_leaders > 0;
        for drawn in 0..usize::try_from(KINDS).unwrap_or(0) {
            let is_alike = |id: &&RoleId| kind(**id) == drawn;
            let out = self.lost.iter().chain(&self.refused).filter(is_alike).count();
            let alike: Vec<RoleId> = ids.iter().filter(is_alike).copied().collect();
            let room = match alike.first() {
                Some(RoleId::Gateway(_) | RoleId::Proposer(_)) => f.min(alike.len() - 1),
                Some(RoleId::ProxyLeader(_)) if !has_own_proxy_leaders => 0,
                Some(RoleId::ProxyLeader(_)) => f.min(alike.len() - 1),
                Some(acceptor @ RoleId::Acceptor(_)) if self.sharers(*acceptor).len() > 1 => 0,
                Some(RoleId::Acceptor(_)) => f.saturating_sub(out),
                // f + 1 have to be left, and what they have in memory.
                Some(RoleId::Replica(_)) => f.min(alike.len() - (f + 1)).saturating_sub(out),
                None => 0,
            };
            for _ in 0..self.rng.below(room as u64 + 1) {
                let victim = self.draw_of(drawn, ids);
                let leads = |id: &&RoleId| self.processes.get(id).is_some_and(Process::leads);
                let leader = alike.iter().find(leads).copied();
                let victim = leader.filter(|_| self.rng.below(2) == 0).unwrap_or(victim);
                let is_out = self.lost.contains(&victim) || self.refused.contains(&victim);
                if is_out || self.outsiders.contains(victim) {
                    continue;
                }
                self.put_outside(victim, ids);
                if let (RoleId::Proposer(ProposerId(p)), false) = (victim, has_own_proxy_leaders) {
                    let with_it = RoleId::ProxyLeader(ProxyLeaderId(p));
                    self.outsiders.add_with(with_it, victim);
                    self.end_if_dead(with_it);
                }
            }
        }
    }

    fn put_outside(&mut self, id: RoleId, ids: &[RoleId]) {
        let has_disk = self.stores.contains_key(&id);
        let condition = Condition::draw(has_disk, &mut self.rng);
        self.outsiders.add(id, condition, ids, &mut self.rng);
        self.note(|| format!("{id} stays outside: {condition:?}"));
        self.witness.see(condition.sight(id));
        self.end_if_dead(id);
    }

    fn end_if_dead(&mut self, id: RoleId) {
        if self.outsiders.is_dead(id)
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.role = None;
            process.releases = 0;
            process.backlog.clear();
            self.stores.get_mut(&id).into_iter().for_each(|store| store.crash(false));
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.ladder.borrow_mut().note(self.now, what);
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
