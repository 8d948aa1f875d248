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
//! `floor` follows what f+1 replicas have executed; in a rerun (R8) it follows the replica that
//! asked.
//!
//! Acceptors with a disk may hold more votes than a reign has room for. Then it is one over a part:
//! nothing is free, and once all is closed the next campaign starts where it ends.

mod halts;
mod handlers;
mod proxy_leaders;
mod sequence;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Ballot, Batch, ClusterSettings, Latency, LoggedCommand, Outbox, P2a, ProxyLeaderId, ReplicaId,
    Roster, Slot, Time, ToProxyLeader, Value, Watermark, Window,
};

use super::next::Asker;
use super::phase1::Recovered;
use super::shared::Shared;
use super::suspicion::Suspicions;
use halts::LastHalt;
use sequence::Sequence;

/// The number of open slots that are asked for again at once where no proxy leader can be blamed.
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
    /// Reads wait for all below: what no batch fills is filled with no-ops.
    fill_to: Watermark,
    /// Batches that wait for credit.
    queue: VecDeque<Arc<Batch>>,
    /// The time when one of them last got a slot, or the first of them came.
    queue_moved_at: Time,
    /// Of each gateway, which batch is next.
    sequences: Box<[Sequence]>,
    /// Below are the slots that phase 1 has found.
    recovered: Watermark,
    /// The time when each acceptor last acknowledged a heartbeat.
    acceptors_heard_at: Box<[Time]>,
    /// What each proxy leader is under suspicion for, by its number.
    suspicions: Suspicions,
    rerun: Option<Rerun>,
    /// Of each replica, why it has halted, if it has said so to this reign.
    halts: Box<[Option<LastHalt>]>,
    /// The bound that was found last.
    credit: Option<Credit>,
    /// The last slot that was given to a skip, and what it skips.
    skip: Option<(Slot, LoggedCommand)>,
    /// The time when the floor last rose, or the first open slot was asked for.
    progress_at: Time,
    /// The time of that, or of the last resend since.
    waiting_since: Time,
    /// Resends since progress.
    attempt: u32,
    has_chosen: bool,
    /// Whether a write quorum of acceptors has room for what is proposed for the first time (R34).
    has_room: bool,
    /// Whether it has stopped its heartbeats, so that another may try (R28).
    is_silent: bool,
}

/// The bound on slots to ask for, as it was found.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Credit {
    limit: Watermark,
    /// What it was found with: the floor, and the lives of replicas ([`Roster::lives`]).
    floor: Watermark,
    lives: u64,
}

/// A slot that f+1 replicas have not executed yet.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Open {
    value: Value,
    via: ProxyLeaderId,
    /// The time when it got its place, and when it was last asked for.
    asked_at: (Time, Time),
}

/// A slot that f+1 replicas have executed.
#[derive(Clone, Copy, Debug)]
struct Closed {
    since_first_ask: Duration,
    since_last_ask: Duration,
}

impl Open {
    fn new(value: Value, now: Time) -> Self {
        Self { value, via: ProxyLeaderId(0), asked_at: (now, now) }
    }
}

/// A second look at slots that f+1 replicas have executed, for one that can get them from no other
/// role.
///
/// source: R8
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Rerun {
    asker: Asker,
    /// The bound of what it is about.
    until: Watermark,
    /// How far the asker was when that last changed, and when.
    progress: (Watermark, Time),
}

impl Phase2 {
    /// Starts to reign over what phase 1 found: every recovered slot is open, with its value or a
    /// no-op, and this happens once.
    ///
    /// source: R7
    pub(super) fn new(shared: &Shared, ballot: Ballot, recovered: Recovered, now: Time) -> Self {
        let cluster = &shared.cluster;
        let Recovered { base, values, rerun_for, is_part, .. } = recovered;
        assert_eq!(ballot.proposer, shared.id, "the reign of another proposer");
        assert!(ballot <= shared.seen, "{ballot} was not seen");
        let mut open = Window::new(cluster.open_slots_max());
        let mut next = base;
        for value in values {
            let value = value.unwrap_or_else(|| Value::noop(shared.last_stamp()));
            open.insert(next, Open::new(value, now));
            next = next.next();
        }
        assert!(next.0 - base.0 <= open.capacity(), "recovered more slots than a ring holds");
        let floor = Watermark(base.0);
        let rerun = rerun_for.map(|asker| Rerun {
            asker,
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
            fill_to: floor,
            queue: VecDeque::new(),
            queue_moved_at: now,
            recovered: Watermark(next.0),
            sequences: vec![Sequence::default(); cluster.gateways.into()].into(),
            acceptors_heard_at: vec![now; cluster.quorums.acceptors_count().into()].into(),
            suspicions: shared.suspicions.clone(),
            rerun,
            halts: vec![None; cluster.replicas.into()].into(),
            credit: None,
            skip: None,
            progress_at: now,
            waiting_since: now,
            attempt: 0,
            has_chosen: false,
            has_room: true,
            is_silent: false,
            cluster: cluster.clone(),
        }
    }

    /// Asks for every slot that there is credit for: recovered ones first, then new ones for what
    /// waits in the queue, then no-ops for reads. Returns how many batches got a slot.
    ///
    /// source: R20, R29, \[CP §3.1\]
    fn pump(&mut self, roster: &Roster, stamp: Time, now: Time, out: &mut Outbox) -> u64 {
        let is_filled = self.fill_to.0 <= self.next.0;
        if self.queue.is_empty() && is_filled && self.sent.first_open() == self.next {
            return 0;
        }
        let limit = self.limit(roster, now);
        let most = self.floor.0 + self.open.capacity();
        assert!(limit.0 <= most, "credit for slots up to {limit}, and room up to {most}");
        if self.floor.0 == self.sent.0 {
            // Nothing was under way: the wait starts here.
            (self.progress_at, self.waiting_since) = (now, now);
        }
        if self.sent.first_open() < self.next {
            // Replicas that have halted free no credit, and what skips the command at which they
            // have may lie beyond it (R38).
            let ring = Watermark(self.floor.0 + u64::from(self.cluster.ring_slots()));
            let recovered_limit = if self.is_halted(roster, now) { limit.max(ring) } else { limit };
            while self.sent.first_open() < self.next && self.sent < recovered_limit {
                self.ask(self.sent.first_open(), now, out);
                self.sent.0 += 1;
            }
        }
        let before = self.next;
        while self.has_room && self.may_give(limit) {
            let Some(batch) = self.queue.pop_front() else { break };
            self.queue_moved_at = now;
            self.sequences[usize::from(batch.id.gateway.0)].given = self.next.watermark_after();
            self.give_next(Value { stamp, content: crate::Content::Batch(batch) }, now, out);
        }
        let given = self.next.0 - before.0;
        while self.fill_to.covers(self.next) && self.may_give(limit) {
            self.give_next(Value::noop(stamp), now, out);
        }
        self.assert_order();
        given
    }

    /// Whether the next slot is free, and there is credit for it.
    fn may_give(&self, limit: Watermark) -> bool {
        !self.is_part && self.sent.first_open() == self.next && self.sent < limit
    }

    /// Gives the next slot a value, for good in this ballot (R7).
    fn give_next(&mut self, value: Value, now: Time, out: &mut Outbox) {
        let slot = self.next;
        assert!(self.open.occupant(slot).is_none(), "{slot} is not free");
        assert!(!self.recovered.covers(slot), "{slot} was found by phase 1");
        self.open.insert(slot, Open::new(value, now));
        self.next = slot.next();
        self.ask(slot, now, out);
        self.sent = Watermark(self.next.0);
    }

    /// Closes what f+1 replicas have executed; in a rerun, what the asker has. Returns how long the
    /// last of them took, if any was closed.
    ///
    /// source: R8, R9
    fn close(&mut self, roster: &Roster, now: Time, out: &mut Outbox) -> Option<Closed> {
        let mut executed = roster.executed_by_f_plus_1(self.cluster.f);
        if let Some(rerun) = &mut self.rerun {
            let Asker { replica, incarnation } = rerun.asker;
            let executed_there = roster.executed(replica);
            let is_current = roster.incarnation(replica) == Some(incarnation);
            if executed_there > rerun.progress.0 {
                rerun.progress = (executed_there, now);
            }
            // Sooner than the rule's `replica_grace`, and whether it is heard or not: no other
            // proposer gets a slot chosen meanwhile, and it can ask again.
            let is_stuck = now.since(rerun.progress.1) > self.cluster.election_timeout;
            if !is_current || is_stuck || executed_there >= rerun.until {
                self.rerun = None;
            } else {
                executed = executed.min(executed_there);
            }
        }
        // Beyond `sent` others have executed what we never asked for: a larger ballot's, or a
        // rerun's.
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

    /// Asks again for what makes no progress. Where there is another proxy leader to try, the one
    /// whose slot holds all others up is suspected, and all of its slots go elsewhere.
    ///
    /// Ballot and value are the slot's own: a resend never reads the current ones, and a reign has
    /// but one ballot.
    ///
    /// source: R9, R12
    fn resend(&mut self, now: Time, out: &mut Outbox) -> u64 {
        assert!(self.has_open(), "asked again, and nothing is asked for");
        let Some(stalled) = self.open.at(self.floor.first_open()) else { return 0 };
        let blamed = stalled.via;
        self.attempt += 1;
        self.waiting_since = now;
        let is_new = self.suspect(blamed, now);
        // All of its slots only once for each of them: if that does not help, it is not the proxy
        // leaders' fault.
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
    fn resend_one(&mut self, slot: Slot, now: Time, out: &mut Outbox) {
        if self.sent.covers(slot) && self.open.at(slot).is_some() {
            self.ask(slot, now, out);
        }
    }

    /// Closes a slot that was chosen and forgotten long ago, value unknown: every slot below the
    /// truncation is.
    ///
    /// source: R10
    fn close_truncated(&mut self, truncated: Watermark, now: Time) {
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
        assert!(to > self.floor, "the floor would go back from {} to {to}", self.floor);
        assert!(to.0 <= self.next.0, "{to} would close slots that have no value");
        self.open.remove_range(self.floor, to);
        self.floor = to;
        self.sent.raise(to);
        self.assert_order();
        (self.progress_at, self.waiting_since) = (now, now);
        self.attempt = 0;
        self.has_chosen = true;
    }

    /// Whether some slot is asked for and not closed.
    pub(super) fn has_open(&self) -> bool {
        self.floor < self.sent
    }

    /// Whether batches wait for a slot.
    fn has_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The time when the next resend is due, by `latency`.
    fn resend_at(&self, latency: &Latency) -> Option<Time> {
        let (least, most) = (2 * self.cluster.resend_min, self.cluster.resend_max);
        self.has_open().then(|| self.waiting_since + latency.timeout(self.attempt, least, most))
    }

    /// Since when nothing was executed although something is open, or nothing was given a slot
    /// although it waits, longer than it may.
    ///
    /// With nothing open it waits for a replica that is heard and holds credit: at any leader, and
    /// for `replica_grace` at the most (R29). For want of room no other leader would do better
    /// either.
    fn stalled_since(&self) -> Option<Time> {
        let open = self.has_open().then_some(self.progress_at);
        let waits = self.has_waiting() && self.has_room;
        open.or_else(|| waits.then_some(self.queue_moved_at + self.cluster.replica_grace))
    }

    /// The first free slot; of a reign over a part, where the next one starts.
    pub(super) fn next(&self) -> Slot {
        self.next
    }

    /// Whether this was over a part of the log, and all of it is closed.
    fn is_over(&self) -> bool {
        self.is_part && self.floor.0 == self.next.0
    }

    /// Asserts that the marks are in order.
    fn assert_order(&self) {
        let Self { floor, sent, next, .. } = self;
        assert!(floor <= sent && sent.0 <= next.0, "floor {floor} ≤ sent {sent} ≤ next {next}");
    }

    pub(super) fn validate(&self) {
        self.assert_order();
        assert!(self.next.0 - self.floor.0 <= self.open.capacity(), "open slots outgrow the ring");
        for slot in self.floor.0..self.next.0 {
            assert!(self.open.at(Slot(slot)).is_some(), "s{slot} is open and has no value");
        }
        let most = usize::from(self.cluster.gateways) * self.cluster.batches_in_flight_max as usize;
        assert!(self.queue.len() <= most, "{} batches wait", self.queue.len());
    }

    /// The bound on slots to ask for, as it was found last until that is reached. What replicas
    /// have executed since, and those that hold no credit any more, can only raise it. One that was
    /// silent or stood still, and does no more, counts again from then on: of what is asked for
    /// before, it gets from its peers what is beyond its window.
    ///
    /// source: R29
    fn limit(&mut self, roster: &Roster, now: Time) -> Watermark {
        let found = self.credit.filter(|found| {
            let is_same = (found.floor, found.lives) == (self.floor, roster.lives());
            is_same && self.sent < found.limit
        });
        if let Some(found) = found.filter(|_| self.rerun.is_none()) {
            return found.limit;
        }
        let limit = self.credit(roster, now);
        self.credit = Some(Credit { limit, floor: self.floor, lives: roster.lives() });
        limit
    }

    /// The bound on slots to ask for: one window beyond the slowest replica that holds credit, and
    /// never beyond what the ring has room for.
    ///
    /// A replica holds credit while it is within a window of what f+1 have executed, was heard
    /// within `replica_grace`, and has not stood still for as long while f+1 went on: one that is
    /// heard and gets nothing would otherwise stop all others a window later. One without credit is
    /// brought up in another way. That f+1-th watermark itself always holds, silent or not:
    /// acceptors keep, and the leader reproposes, all that is above it.
    ///
    /// source: R29
    fn credit(&self, roster: &Roster, now: Time) -> Watermark {
        let executed = roster.executed_by_f_plus_1(self.cluster.f);
        let window = u64::from(self.cluster.slot_window);
        let grace_began = now - self.cluster.replica_grace;
        let holds = |replica: &ReplicaId| {
            let is_near = roster.executed(*replica).0 + window >= executed.0;
            let is_heard = roster.heard_at(*replica) >= grace_began;
            let gets_on = roster.stuck_since(*replica).is_none_or(|at| at >= grace_began);
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
        assert!(!self.floor.covers(slot) && slot < self.next, "{slot} is closed, or has no value");
        let open = self.open.at_mut(slot).expect("an open slot has a value");
        (open.via, open.asked_at.1) = (via, now);
        let value = open.value.clone();
        let is_recovered =
            self.recovered.covers(slot) || value.is_noop() || value.skipped().is_some();
        let p2a = P2a { ballot: self.ballot, slot, via, is_recovered, value };
        out.tell_proxy_leader(via, ToProxyLeader::P2a(p2a));
    }
}
