//! Phase 2: giving batches slots, and seeing to it that they are chosen.
//!
//! ```text
//!      floor              sent                next          ring
//!        ▼                 ▼                   ▼              ▼
//!  ──────┬─────────────────┬───────────────────┬ ─ ─ ─ ─ ─ ─ ─┐
//!  closed│ open, asked for │ recovered, waiting│  free        │
//!  ──────┴─────────────────┴───────────────────┴ ─ ─ ─ ─ ─ ─ ─┘
//! ```
//!
//! `floor` follows what f+1 replicas have executed; in a rerun (R8) it follows the replica that asked.
//!
//! Acceptors with a disk may hold more votes than a reign has room for. Then it is one over a part: nothing is
//! free, and once all is closed the next campaign starts where it ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::{
    AcceptorId, Ballot, Batch, BatchId, ClusterSettings, Incarnation, Latency, Outbox, P2a,
    Propose, ProxyLeaderId, ReplicaId, Roster, Slot, Time, ToProxyLeader, Value, Watermark, Window,
};

use super::phase1::Recovered;

/// The least that a proxy leader is said to have held others up for: zero means not measured.
const HOLD_MIN: Duration = Duration::from_micros(1);

/// How many open slots are asked for again at once where no proxy leader can be blamed.
const RESEND_SLOTS_MAX: u64 = 64;

/// A reign.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Phase2 {
    cluster: ClusterSettings,
    pub(super) ballot: Ballot,
    /// Everything below is closed: executed by f+1 replicas, or not ours to propose.
    floor: Watermark,
    /// Everything below has been asked for at least once.
    sent: Watermark,
    /// The first free slot. Only goes up: a slot gets one value in our ballot (R7).
    next: Slot,
    /// Whether phase 1 ended at `next` because there was no room for more: no slot is free then.
    is_part: bool,
    open: Window<Open>,
    /// Batches that wait for credit.
    queue: VecDeque<Arc<Batch>>,
    /// When one of them last got a slot, or the first of them came.
    queue_moved_at: Time,
    /// Of each gateway, which batch is next.
    sequences: Box<[Sequence]>,
    /// Below are the slots that phase 1 has found.
    recovered: Watermark,
    /// When each acceptor last acknowledged a heartbeat.
    pub(super) acceptors_heard_at: Box<[Time]>,
    /// What each proxy leader is under suspicion for, by its number.
    pub(super) suspicions: Suspicions,
    pub(super) rerun: Option<Rerun>,
    /// When the floor last rose, or the first open slot was asked for.
    progress_at: Time,
    /// When that was, or the last resend since.
    waiting_since: Time,
    /// Resends since progress.
    attempt: u32,
    pub(super) has_chosen: bool,
    /// Whether a write quorum of acceptors has room for what is proposed for the first time (R34).
    pub(super) has_room: bool,
    /// Whether it has stopped its heartbeats, so that another may try (R28).
    pub(super) is_silent: bool,
}

/// A slot that f+1 replicas have not executed yet.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Open {
    value: Value,
    via: ProxyLeaderId,
    /// When it got its place, and when it was last asked for.
    asked_at: (Time, Time),
}

/// A slot that f+1 replicas have executed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    pub(super) since_first_ask: Duration,
    pub(super) since_last_ask: Duration,
}

impl Open {
    fn new(value: Value, now: Time) -> Self {
        Self { value, via: ProxyLeaderId(0), asked_at: (now, now) }
    }
}

/// What a proxy leader is under suspicion for: a slot that was in its hands held all others up, until it was given to
/// another, or much longer than slots in the hands of others do.
///
/// The latter is not visible from one slot. A proxy leader that reaches acceptors and no replica gets slots voted for;
/// replicas get them from acceptors in the end, and the time from asking to execution is what it is for half of all
/// slots.
///
/// That it answers heartbeats clears it of having ended, but not of reaching no acceptor, or no replica. So it is
/// tried again, once it is heard, after a time that doubles with each trial that failed.
///
/// source: R12
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Suspicion {
    /// Until when it gets no slot, heard or not; `None` while it is not suspected.
    pub(super) until: Option<Time>,
    /// Suspicions since a slot in its hands was last chosen without delay.
    trials: u32,
    /// How long slots in its hands are the first open one.
    holds: Latency,
    /// The bound of the slots that this was measured with last.
    measured: Watermark,
}

/// The suspicions of each proxy leader, by its number.
pub(super) type Suspicions = Box<[Suspicion]>;

/// A second look at slots that f+1 replicas have executed, for one that can get them from nobody.
///
/// source: R8
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Rerun {
    pub(super) replica: ReplicaId,
    pub(super) incarnation: Incarnation,
    /// The bound of what it is about.
    until: Watermark,
    /// How far the asker was when that last changed, and when.
    progress: (Watermark, Time),
}

/// What a reign has to say about one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It has a slot, or will get one; and so may others that have waited for it.
    Accepted,
    /// It waits for one of a lower number.
    Early,
    /// It has a slot, or is answered (R24).
    Duplicate,
    /// There is no room for it (R29).
    Dropped,
}

/// The batches of one gateway, in the order in which they get slots: that of their numbers.
///
/// Replicas execute a session's commands in the order of their numbers, and refuse a batch that comes before another
/// (R23). Its slot is wasted then, and so are those of all batches behind it, which have to be sent again: where
/// messages overtake each other all the time, that multiplies. So a reign gives slots in the order of numbers only,
/// and each batch one slot. It begins with the lowest batch that has no answer: all before that were executed, so it
/// will be, wherever it is put; and so will those behind it, each in a later slot than the one before.
///
/// Does a batch that is sent again never need another slot? Not while the one it has is open: it will be chosen, and
/// the batch executed there at the latest. If its answer is lost, its gateway asks a replica (R25). A session that was
/// opened and closed again before its gateway knew is the exception: no replica can tell. So once all that a gateway was
/// given is closed, its lowest batch gets another slot if it is sent again. If the reign ends, the next one begins anew.
///
/// source: R23, R24
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Sequence {
    /// The gateway's life.
    incarnation: Option<Incarnation>,
    /// The number of the next batch to get a slot. Only goes up, within a life.
    next: u64,
    /// Batches above that, by number.
    early: BTreeMap<u64, Arc<Batch>>,
    /// All slots that were given are below.
    given: Watermark,
}

impl Phase2 {
    /// Starts to reign over what phase 1 found: every recovered slot is open, with its value or a no-op,
    /// and this happens once.
    ///
    /// source: R7
    pub(super) fn new(
        cluster: &ClusterSettings,
        ballot: Ballot,
        recovered: Recovered,
        noop_stamp: Time,
        now: Time,
    ) -> Self {
        let Recovered { base, values, rerun_for, is_part, .. } = recovered;
        let mut open = Window::new(Self::open_slots_max(cluster));
        let mut next = base;
        for value in values {
            let value = value.unwrap_or_else(|| Value::noop(noop_stamp));
            open.insert(next, Open::new(value, now));
            next = next.next();
        }
        assert!(next.0 - base.0 <= open.capacity(), "recovered more slots than a ring holds");
        let floor = Watermark(base.0);
        let rerun = rerun_for.map(|(replica, incarnation)| Rerun {
            replica,
            incarnation,
            until: Watermark(next.0),
            progress: (floor, now),
        });
        Self {
            ballot,
            floor,
            sent: floor,
            next,
            is_part,
            open,
            queue: VecDeque::new(),
            queue_moved_at: now,
            recovered: Watermark(next.0),
            sequences: vec![Sequence::default(); cluster.gateways.into()].into(),
            acceptors_heard_at: vec![now; cluster.quorums.acceptors_count().into()].into(),
            suspicions: vec![Suspicion::default(); cluster.proxy_leaders_running().into()].into(),
            rerun,
            progress_at: now,
            waiting_since: now,
            attempt: 0,
            has_chosen: false,
            has_room: true,
            is_silent: false,
            cluster: cluster.clone(),
        }
    }

    /// How many slots may be open at once.
    pub(super) fn open_slots_max(cluster: &ClusterSettings) -> u32 {
        2 * cluster.ring_slots()
    }

    /// Takes a batch in: it gets the next free slot, now or when there is credit, if it is the next of its gateway.
    ///
    /// source: R23, R24, R29
    pub(super) fn admit(&mut self, propose: Propose, now: Time) -> Admission {
        if self.queue.is_empty() {
            self.queue_moved_at = now;
        }
        let Propose { batch, lowest } = propose;
        let BatchId { gateway, incarnation, number } = batch.id;
        let in_flight_max = u64::from(self.cluster.batches_in_flight_max);
        let most = usize::from(self.cluster.gateways) * self.cluster.batches_in_flight_max as usize;
        let has_room = self.queue.len() < most;
        if self.is_recovered(&batch) {
            return Admission::Duplicate;
        }
        let sequence = &mut self.sequences[usize::from(gateway.0)];
        if sequence.incarnation != Some(incarnation) {
            // A late message of a former life must not hold up the current one, which begins with its lowest.
            if sequence.incarnation.is_some() && number != lowest {
                return Admission::Dropped;
            }
            let incarnation = Some(incarnation);
            *sequence = Sequence { incarnation, next: lowest, ..Sequence::default() };
        }
        sequence.skip_to(lowest);
        if number < sequence.next {
            let is_closed = sequence.given <= self.floor
                && !self.queue.iter().any(|batch| batch.id.gateway == gateway);
            if number != lowest || !is_closed {
                return Admission::Duplicate;
            }
            sequence.next = number;
        }
        if number - sequence.next >= in_flight_max || !has_room {
            return Admission::Dropped;
        }
        if number > sequence.next && !sequence.early.contains_key(&sequence.next) {
            sequence.early.insert(number, batch);
            return Admission::Early;
        }
        if number == sequence.next {
            self.queue.push_back(batch);
            sequence.next += 1;
        } else {
            sequence.early.insert(number, batch);
        }
        while self.queue.len() < most
            && let Some(batch) = sequence.early.remove(&sequence.next)
        {
            self.queue.push_back(batch);
            sequence.next += 1;
        }
        Admission::Accepted
    }

    /// Whether this very attempt is open in a slot that phase 1 has found. A later one is not the same: its gateway may
    /// have been told that this one was out of order.
    fn is_recovered(&self, batch: &Batch) -> bool {
        let mut open = (self.floor.0..self.recovered.0).filter_map(|slot| self.open.at(Slot(slot)));
        open.any(|open| {
            let found = open.value.batch();
            found.is_some_and(|it| (it.id, it.attempt) == (batch.id, batch.attempt))
        })
    }

    /// Asks for every slot that there is credit for: recovered ones first, then new ones for what waits
    /// in the queue. Returns how many new slots were filled.
    ///
    /// source: R29, \[CP §3.1\]
    pub(super) fn pump(
        &mut self,
        roster: &Roster,
        stamp: Time,
        now: Time,
        out: &mut Outbox,
    ) -> u64 {
        if self.queue.is_empty() && self.sent.first_open() == self.next {
            return 0;
        }
        let limit = self.credit(roster, now);
        if self.floor.0 == self.sent.0 {
            // Nothing was under way: the wait starts here.
            (self.progress_at, self.waiting_since) = (now, now);
        }
        while self.sent.first_open() < self.next && self.sent < limit {
            self.ask(self.sent.first_open(), now, out);
            self.sent.0 += 1;
        }
        let before = self.next;
        while self.has_room
            && !self.is_part
            && self.sent.first_open() == self.next
            && self.sent < limit
        {
            let Some(batch) = self.queue.pop_front() else { break };
            self.queue_moved_at = now;
            let slot = self.next;
            self.sequences[usize::from(batch.id.gateway.0)].given = slot.watermark_after();
            let value = Value { stamp, content: crate::Content::Batch(batch) };
            self.open.insert(slot, Open::new(value, now));
            self.next = slot.next();
            self.ask(slot, now, out);
            self.sent = Watermark(self.next.0);
        }
        self.next.0 - before.0
    }

    /// Closes what f+1 replicas have executed; in a rerun, what the asker has. Returns how long the last of them
    /// took, if any was closed.
    ///
    /// source: R8, R9
    pub(super) fn close(&mut self, roster: &Roster, now: Time, out: &mut Outbox) -> Option<Closed> {
        let mut executed = roster.executed_by_f_plus_1(self.cluster.f);
        if let Some(rerun) = &mut self.rerun {
            let asker = roster.executed(rerun.replica);
            let is_current = roster.incarnation(rerun.replica) == Some(rerun.incarnation);
            if asker > rerun.progress.0 {
                rerun.progress = (asker, now);
            }
            // Sooner than the rule's `replica_grace`, and whether it is heard or not: nobody else gets a
            // slot chosen meanwhile, and it can ask again.
            let is_stuck = now.since(rerun.progress.1) > self.cluster.election_timeout;
            if !is_current || is_stuck || asker >= rerun.until {
                self.rerun = None;
            } else {
                executed = executed.min(asker);
            }
        }
        // Beyond `sent` others have executed what we never asked for: a larger ballot's, or a rerun's.
        let to = executed.min(Watermark(self.next.0));
        if to <= self.floor {
            return None;
        }
        let closed = self.open.at(Slot(to.0 - 1)).map(|open| Closed {
            since_first_ask: now.since(open.asked_at.0),
            since_last_ask: now.since(open.asked_at.1),
        });
        let held_by = self.measure_holds(to, now);
        self.raise_floor(to, now);
        if let Some(slow) = held_by.filter(|held_by| self.is_slow(*held_by)) {
            self.give_to_others(slow, now, out);
        }
        closed
    }

    /// Measures, for the slots below `to` that are about to be closed, how long each proxy leader has held all others up:
    /// the one of the first slot since there was progress last, the others not at all. Returns the former.
    ///
    /// A slot that was asked for again tells nothing: it may have been chosen by either.
    fn measure_holds(&mut self, to: Watermark, now: Time) -> Option<ProxyLeaderId> {
        let mut unmeasured = self.cluster.proxy_leaders_of(self.ballot.proposer).len();
        if self.attempt > 0 || unmeasured == 1 {
            return None;
        }
        let first = self.open.at(self.floor.first_open())?;
        let (held_by, since) = (first.via, self.progress_at.max(first.asked_at.1));
        for slot in (self.floor.0..to.0).map(Slot) {
            if unmeasured == 0 {
                break;
            }
            let Some(open) = self.open.at(slot) else { continue };
            let suspicion = &mut self.suspicions[usize::from(open.via.0)];
            if suspicion.measured < to {
                unmeasured -= 1;
                let held_for = if open.via == held_by { now.since(since) } else { Duration::ZERO };
                if suspicion.holds.mean().is_zero() {
                    suspicion.holds.sample(HOLD_MIN);
                }
                // One slot may be late for many reasons: it takes two in a row to be slow.
                suspicion.holds.sample(held_for.clamp(HOLD_MIN, 8 * self.cluster.resend_min));
                suspicion.measured = to;
            }
        }
        Some(held_by)
    }

    /// Whether slots in the hands of a proxy leader hold others up much longer than those of some other that is not
    /// suspected.
    fn is_slow(&self, proxy_leader: ProxyLeaderId) -> bool {
        let hold = |p: ProxyLeaderId| self.suspicions[usize::from(p.0)].holds.mean();
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer).map(ProxyLeaderId);
        let others = ours.filter(|p| *p != proxy_leader && !self.is_suspected(*p));
        let least = others.map(hold).filter(|hold| !hold.is_zero()).min();
        least.is_some_and(|least| hold(proxy_leader) > 2 * least + self.cluster.resend_min)
    }

    /// Asks again for what makes no progress. Where there is another proxy leader to try, the one whose slot holds
    /// all others up is suspected, and all of its slots go elsewhere.
    ///
    /// Ballot and value are the slot's own: a resend never reads the current ones, and a reign has but
    /// one ballot.
    ///
    /// source: R9, R12
    pub(super) fn resend(&mut self, now: Time, out: &mut Outbox) -> u64 {
        let Some(stalled) = self.open.at(self.floor.first_open()) else { return 0 };
        let blamed = stalled.via;
        self.attempt += 1;
        self.waiting_since = now;
        let is_new = self.suspect(blamed, now);
        // All of its slots only once for each of them: if that does not help, it is not the proxy leaders' fault.
        let is_first =
            self.attempt as usize <= self.cluster.proxy_leaders_of(self.ballot.proposer).len();
        let most = if is_new && is_first { u64::MAX } else { RESEND_SLOTS_MAX };
        let mut resent = 0;
        for slot in (self.floor.0..self.sent.0).map(Slot) {
            let Some(open) = self.open.at(slot) else { continue };
            if resent >= most {
                break;
            }
            if !is_new || open.via == blamed || slot == self.floor.first_open() {
                self.ask(slot, now, out);
                resent += 1;
            }
        }
        resent
    }

    /// Asks once more for `slot`, which some replica misses.
    pub(super) fn resend_one(&mut self, slot: Slot, now: Time, out: &mut Outbox) {
        if self.sent.covers(slot) && self.open.at(slot).is_some() {
            self.ask(slot, now, out);
        }
    }

    /// Closes a slot that was chosen and forgotten long ago, value unknown: every slot below the
    /// truncation is.
    ///
    /// source: R10
    pub(super) fn on_truncated(&mut self, truncated: Watermark, now: Time) {
        let to = truncated.min(Watermark(self.next.0));
        if to > self.floor {
            self.raise_floor(to, now);
            self.rerun = None;
        }
    }

    /// Closes everything below `to`: that is progress.
    fn raise_floor(&mut self, to: Watermark, now: Time) {
        if self.attempt == 0
            && let Some(via) = self.open.at(Slot(to.0 - 1)).map(|open| open.via)
            && !self.is_slow(via)
        {
            self.suspicions[usize::from(via.0)].trials = 0;
        }
        self.open.remove_range(self.floor, to);
        self.floor = to;
        self.sent.raise(to);
        (self.progress_at, self.waiting_since) = (now, now);
        self.attempt = 0;
        self.has_chosen = true;
    }

    /// Hears a proxy leader: it is alive, and may be tried again if its time has come.
    pub(super) fn on_proxy_leader(&mut self, proxy_leader: ProxyLeaderId, now: Time) {
        if let Some(suspicion) = self.suspicions.get_mut(usize::from(proxy_leader.0)) {
            suspicion.until.take_if(|until| *until <= now);
        }
    }

    /// Takes in that the life of a proxy leader has ended: what is in its hands goes elsewhere at once.
    pub(super) fn on_gone(&mut self, gone: ProxyLeaderId, now: Time, out: &mut Outbox) {
        if usize::from(gone.0) < self.suspicions.len() {
            self.give_to_others(gone, now, out);
        }
    }

    /// Suspects a proxy leader, and gives what is in its hands to others.
    fn give_to_others(&mut self, blamed: ProxyLeaderId, now: Time, out: &mut Outbox) {
        if !self.suspect(blamed, now) {
            return;
        }
        for slot in (self.floor.0..self.sent.0).map(Slot) {
            if self.open.at(slot).is_some_and(|open| open.via == blamed) {
                self.ask(slot, now, out);
            }
        }
    }

    /// Suspects a proxy leader, if there is another to try; returns whether that is new. Where all others are
    /// suspected already they are cleared: the one that fails now is no better.
    fn suspect(&mut self, proxy_leader: ProxyLeaderId, now: Time) -> bool {
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer);
        if ours.len() == 1 || self.is_suspected(proxy_leader) {
            return false;
        }
        if ours.clone().map(ProxyLeaderId).all(|p| p == proxy_leader || self.is_suspected(p)) {
            ours.for_each(|p| self.suspicions[usize::from(p)].until = None);
        }
        let suspicion = &mut self.suspicions[usize::from(proxy_leader.0)];
        suspicion.until =
            Some(now + self.cluster.election_timeout * (1 << suspicion.trials.min(6)));
        suspicion.trials += 1;
        true
    }

    fn is_suspected(&self, proxy_leader: ProxyLeaderId) -> bool {
        self.suspicions[usize::from(proxy_leader.0)].until.is_some()
    }

    /// Hears an acceptor.
    pub(super) fn on_acceptor(&mut self, acceptor: AcceptorId, now: Time) {
        if let Some(heard_at) = self.acceptors_heard_at.get_mut(usize::from(acceptor.0)) {
            *heard_at = now;
        }
    }

    /// Takes the batches out that have no slot.
    pub(super) fn drain_queue(&mut self) -> impl Iterator<Item = Arc<Batch>> + '_ {
        self.queue.drain(..)
    }

    /// Whether some slot is asked for and not closed.
    pub(super) fn has_open(&self) -> bool {
        self.floor < self.sent
    }

    /// Whether batches wait for a slot.
    fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// When the next resend is due, by `latency`.
    pub(super) fn resend_at(&self, latency: &Latency) -> Option<Time> {
        let (least, most) = (2 * self.cluster.resend_min, self.cluster.resend_max);
        self.has_open().then(|| self.waiting_since + latency.timeout(self.attempt, least, most))
    }

    /// Since when nothing was executed although something is open, or nothing was given a slot although it waits, longer
    /// than it may.
    ///
    /// With nothing open it waits for a replica that is heard and holds credit: at any leader, and for `replica_grace` at
    /// the most (R29). For want of room nobody would do better either.
    pub(super) fn stalled_since(&self) -> Option<Time> {
        let open = self.has_open().then_some(self.progress_at);
        let waits = self.has_waiting() && self.has_room;
        open.or_else(|| waits.then_some(self.queue_moved_at + self.cluster.replica_grace))
    }

    /// The bound below which everything is closed.
    pub(super) fn floor(&self) -> Watermark {
        self.floor
    }

    /// The first free slot; of a reign over a part, where the next one starts.
    pub(super) fn next(&self) -> Slot {
        self.next
    }

    /// Whether this was over a part of the log, and all of it is closed.
    pub(super) fn is_over(&self) -> bool {
        self.is_part && self.floor.0 == self.next.0
    }

    pub(super) fn validate(&self) {
        assert!(self.floor <= self.sent && self.sent.0 <= self.next.0, "floor ≤ sent ≤ next");
        assert!(self.next.0 - self.floor.0 <= self.open.capacity(), "open slots outgrow the ring");
        for slot in self.floor.0..self.next.0 {
            assert!(self.open.at(Slot(slot)).is_some(), "s{slot} is open and has no value");
        }
        let most = usize::from(self.cluster.gateways) * self.cluster.batches_in_flight_max as usize;
        assert!(self.queue.len() <= most, "{} batches wait", self.queue.len());
    }

    /// The bound on slots to ask for: one window beyond the slowest replica that holds credit, and never
    /// beyond what the ring has room for.
    ///
    /// A replica holds credit while it is within a window of what f+1 have executed, was heard within
    /// `replica_grace`, and has not stood still for as long while f+1 went on: one that is heard and gets nothing
    /// would otherwise stop all others a window later. One without credit is brought up in another way. That f+1-th
    /// watermark itself always holds, silent or not: acceptors keep, and the leader reproposes, all that is above it.
    ///
    /// source: R29
    fn credit(&self, roster: &Roster, now: Time) -> Watermark {
        let executed = roster.executed_by_f_plus_1(self.cluster.f);
        let window = u64::from(self.cluster.slot_window);
        let holds = |replica: &ReplicaId| {
            let is_near = roster.executed(*replica).0 + window >= executed.0;
            let is_heard = now.since(roster.heard_at(*replica)) <= self.cluster.replica_grace;
            let stuck_since = roster.stuck_since(*replica);
            let gets_on = stuck_since.is_none_or(|at| now.since(at) <= self.cluster.replica_grace);
            roster.incarnation(*replica).is_some() && is_near && is_heard && gets_on
        };
        let slowest = roster.replicas().filter(holds).map(|r| roster.executed(r)).min();
        let base = slowest.map_or(executed, |slowest| slowest.min(executed));
        // In a rerun the asker is behind all of them: recovered slots go at its pace.
        let base = if self.rerun.is_some_and(|r| self.sent < r.until) { self.floor } else { base };
        Watermark((base.0 + window).min(self.floor.0 + self.open.capacity()))
    }

    /// Sends `slot` to its proxy leader, or, from the second time on, to another.
    fn ask(&mut self, slot: Slot, now: Time, out: &mut Outbox) {
        let via = self.proxy_leader_for(slot);
        let Some(open) = self.open.at_mut(slot) else { return };
        (open.via, open.asked_at.1) = (via, now);
        let is_recovered = self.recovered.covers(slot);
        let value = open.value.clone();
        let p2a = P2a { ballot: self.ballot, slot, via, is_recovered, value };
        out.tell_proxy_leader(via, ToProxyLeader::P2a(p2a));
    }

    /// The proxy leader of `slot`: they take turns by slot, and by attempt, leaving out suspects while
    /// there are others.
    ///
    /// source: \[seed\], "slot % proxies"
    fn proxy_leader_for(&self, slot: Slot) -> ProxyLeaderId {
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer);
        let count = u64::try_from(ours.len()).unwrap_or(u64::MAX);
        let turn = slot.0.wrapping_add(u64::from(self.attempt)) % count;
        let in_turn = |i: u64| {
            let offset = u8::try_from((turn + i) % count).unwrap_or(0);
            ProxyLeaderId(ours.start + offset)
        };
        let healthy = (0..count).map(in_turn).find(|p| !self.is_suspected(*p));
        healthy.unwrap_or_else(|| in_turn(0))
    }
}

impl Sequence {
    /// Goes on at `lowest` at the least: all below is answered.
    fn skip_to(&mut self, lowest: u64) {
        if lowest > self.next {
            self.next = lowest;
            self.early = self.early.split_off(&lowest);
        }
    }
}
