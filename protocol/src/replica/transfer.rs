//! State transfer: a replica that misses slots which no peer holds any more gets a peer's state
//! instead.
//!
//! ```text
//!   behind                                              donor: one peer at a time
//!     │  FetchPart: any snapshot beyond what I have ─────▶ freezes its state and writes it
//!     │ ◀──────────────────── FetchedPart: coming
//!     │ ◀──────────────────── FetchedPart: info, part 0
//!     │  FetchPart 1, 2, 3 … ────────────────────────────▶ sends them, at its pace
//!     ▼
//!   all parts, and their digest is right ──▶ clear, restore part by part ──▶ executed = the snapshot's slot
//!                                                                       └──▶ Fetch: the log above, from the donor
//! ```
//!
//! A part that is lost is asked for again. A donor that says nothing for `replica_grace` is given
//! up together with every part that came from it, and the next peer is asked: the snapshots of two
//! replicas are not the same bytes.
//!
//! **Why `executed` may jump to the snapshot's slot.** A snapshot is a function of the log below
//! its slot, the digests say that every part and the state are as they were at its writer, and the
//! formation is compared like that of any message (R4). Until the last part is restored the state
//! is that of no slot: the replica executes nothing, answers nothing and reports the slot that it
//! had before. It has told others that it executed everything up to there, so if the state machine
//! refuses a part it must not go on with less: it halts. A replica that had executed nothing has
//! told nothing, and tries again.
//!
//! source: R15, R16

use std::collections::{BTreeMap, VecDeque};

use super::donation::time_of;
use super::{Replica, ReplicaTimer};
use crate::snapshot::PartsDigest;
use crate::{
    FetchPart, FetchedPart, Halt, Outbox, Payload, ReplicaId, SnapshotInfo, StateMachine, Time,
    ToReplica, Watermark,
};

/// Parts that may be on their way from the donor at once.
const PARTS_AHEAD: u32 = 16;

/// A snapshot on its way from a peer.
#[derive(Debug)]
pub(super) struct Transfer {
    donor: ReplicaId,
    /// The time when the donor last said anything of use.
    heard_at: Time,
    /// Known from the first part on.
    incoming: Option<Incoming>,
}

#[derive(Debug)]
struct Incoming {
    info: SnapshotInfo,
    /// The parts that have arrived without a hole, and their digest.
    parts: VecDeque<Payload>,
    digest: PartsDigest,
    /// Parts that arrived before one that is missing.
    early: BTreeMap<u32, Payload>,
    /// All parts below were asked for.
    asked: u32,
}

/// A whole snapshot that is being restored.
#[derive(Debug)]
pub(super) struct Restoring {
    donor: ReplicaId,
    info: SnapshotInfo,
    /// The parts that are not restored yet.
    parts: VecDeque<Payload>,
    /// The time when the donor was last told to keep the log above.
    pinned_at: Time,
    /// The digest of the state that was cleared, at `executed`.
    pub(super) state_hash_before: u64,
}

impl Incoming {
    fn new(info: SnapshotInfo) -> Self {
        let (parts, early) = (VecDeque::new(), BTreeMap::new());
        Self { info, parts, digest: PartsDigest::new(info.id), early, asked: 1 }
    }

    /// Takes a part in; returns whether it was one that was missing.
    ///
    /// source: R16
    fn on_part(&mut self, part: u32, bytes: Payload) -> bool {
        let next = self.digest.parts();
        if part < next || part >= self.end() || self.early.contains_key(&part) {
            return false;
        }
        self.early.insert(part, bytes);
        while let Some(bytes) = self.early.remove(&self.digest.parts()) {
            self.digest.add(&bytes);
            self.parts.push_back(bytes);
        }
        true
    }

    /// The parts below may be asked for.
    fn end(&self) -> u32 {
        self.digest.parts().saturating_add(PARTS_AHEAD).min(self.info.parts)
    }

    fn is_whole(&self) -> bool {
        self.digest.parts() == self.info.parts
    }

    fn is_intact(&self) -> bool {
        self.digest.info(self.info.formation, self.info.state_hash) == self.info
    }
}

impl<M: StateMachine> Replica<M> {
    /// Asks a peer for its state, if nothing less will do: a peer has executed the slot that is
    /// missing and let go of it, and either acceptors have truncated the slot or every peer was
    /// asked several times.
    ///
    /// source: R8, "after live peers (R15) and snapshots have failed the asker"
    pub(super) fn transfer_if_needed(&mut self, now: Time, out: &mut Outbox) {
        let next = self.executed.first_open();
        let Some(gap) = self.gap.as_ref().filter(|gap| gap.slot == next) else { return };
        let is_hopeless = self.truncated.covers(next) || gap.asked >= self.asks_of_peers();
        if !is_hopeless || gap.let_go.is_empty() || self.is_transferring() {
            return;
        }
        let turn = usize::try_from(self.counters.transfers).unwrap_or(0);
        let donor = gap.let_go[turn % gap.let_go.len()];
        self.counters.transfers += 1;
        self.transfer = Some(Transfer { donor, heard_at: now, incoming: None });
        self.ask_for_parts(now, out);
    }

    /// Whether it is getting or restoring the state of a peer.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some() || self.restoring.is_some()
    }

    /// Restores the next part; or asks again for the parts that have not come, or gives the donor
    /// up.
    pub(super) fn go_on_transferring(&mut self, now: Time, out: &mut Outbox) {
        if self.restoring.is_some() {
            return self.restore_next(now, out);
        }
        let Some(transfer) = &mut self.transfer else { return };
        let is_silent = now.since(transfer.heard_at) >= self.cluster.replica_grace;
        let at = transfer.incoming.as_ref().map(|incoming| incoming.info.id.at);
        let is_needless = at.is_some_and(|at| self.executed >= at);
        if is_silent || is_needless {
            return self.abandon_transfer();
        }
        if let Some(incoming) = &mut transfer.incoming {
            incoming.asked = incoming.digest.parts(); // whatever is missing
        }
        self.ask_for_parts(now, out);
    }

    fn ask_for_parts(&mut self, now: Time, out: &mut Outbox) {
        let Some(transfer) = &mut self.transfer else { return };
        self.timers.set(ReplicaTimer::Transfer, now + 2 * self.cluster.resend_min);
        let (replica, executed, donor) = (self.id, self.executed, transfer.donor);
        let mut ask = |snapshot, part| {
            let fetch = FetchPart { replica, snapshot, part, executed };
            out.tell_replica(donor, ToReplica::FetchPart(fetch));
        };
        let Some(incoming) = &mut transfer.incoming else { return ask(None, 0) };
        let end = incoming.end();
        let missing = (incoming.asked..end).filter(|part| !incoming.early.contains_key(part));
        missing.for_each(|part| ask(Some(incoming.info.id), part));
        incoming.asked = incoming.asked.max(end);
    }

    /// Takes in a part of the snapshot that it is getting.
    ///
    /// source: R4, R16
    pub fn on_fetched_part(&mut self, fetched: FetchedPart, now: Time, out: &mut Outbox) {
        let FetchedPart { replica, snapshot, info, is_coming, part, bytes } = fetched;
        let Some(transfer) = self.transfer.as_mut().filter(|it| it.donor == replica) else {
            return out.ignored("FetchedPart: not of the current donor");
        };
        let Some(info) = info else {
            let wanted = transfer.incoming.as_ref().map(|incoming| incoming.info.id);
            if snapshot == wanted && is_coming {
                transfer.heard_at = now;
            } else if snapshot == wanted {
                self.abandon_transfer();
            }
            return;
        };
        let is_ours = Some(info.formation) == self.membership.formation();
        if transfer.incoming.is_none() && info.id.at > self.executed && is_ours {
            transfer.incoming = Some(Incoming::new(info));
        }
        let Some(incoming) = transfer.incoming.as_mut().filter(|it| it.info == info) else {
            return out.ignored("FetchedPart: of another snapshot");
        };
        if !incoming.on_part(part, bytes) {
            return out.ignored("FetchedPart: it is here, or was not asked for");
        }
        transfer.heard_at = now;
        if !incoming.is_whole() {
            return self.ask_for_parts(now, out);
        }
        if !incoming.is_intact() || self.executed >= info.id.at {
            return self.abandon_transfer();
        }
        let Some(Transfer { donor, incoming: Some(incoming), .. }) = self.transfer.take() else {
            unreachable!("it has all parts")
        };
        self.begin_restore(donor, incoming, now);
    }

    /// Gives up what it was getting, with all that has come of it.
    fn abandon_transfer(&mut self) {
        self.timers.stop(ReplicaTimer::Transfer);
        self.transfer = None;
        self.counters.transfers_abandoned += 1;
    }

    /// Clears the state, to restore it from a whole snapshot.
    fn begin_restore(&mut self, donor: ReplicaId, incoming: Incoming, now: Time) {
        assert!(incoming.is_whole() && incoming.is_intact(), "restored from half a snapshot");
        assert!(incoming.info.id.at > self.executed, "restored from an older state");
        assert!(self.restoring.is_none(), "two states are restored at once");
        let Incoming { info, parts, .. } = incoming;
        let state_hash_before = self.executor.machine.state_hash();
        // A frozen state is cleared, too. Peers that are getting it from us start over with another
        // donor.
        self.donation = None;
        self.timers.stop(ReplicaTimer::Donation);
        self.stop_replay();
        self.executor.clear();
        self.restoring = Some(Restoring { donor, info, parts, pinned_at: now, state_hash_before });
        self.timers.set(ReplicaTimer::Transfer, now);
    }

    fn restore_next(&mut self, now: Time, out: &mut Outbox) {
        let Some(restoring) = &mut self.restoring else { return };
        let info = restoring.info;
        if now.since(restoring.pinned_at) >= self.cluster.replica_grace / 2 {
            restoring.pinned_at = now;
            let (replica, executed) = (self.id, self.executed);
            // No part has this number: it asks only that the log above be kept.
            let (snapshot, part) = (Some(info.id), info.parts);
            let fetch = FetchPart { replica, snapshot, part, executed };
            out.tell_replica(restoring.donor, ToReplica::FetchPart(fetch));
        }
        let Some(part) = restoring.parts.pop_front() else {
            return self.end_restore(now, out);
        };
        if self.executor.restore(part.as_slice()).is_err() {
            return self.refuse_restore(now, out);
        }
        let pace = self.cluster.transfer_bytes_per_second_max;
        self.timers.set(ReplicaTimer::Transfer, now + time_of(part.len(), pace));
    }

    /// The last part is restored: goes on from the snapshot's slot.
    fn end_restore(&mut self, now: Time, out: &mut Outbox) {
        let Some(restoring) = self.restoring.take_if(|restoring| {
            let state_hash = self.executor.machine.state_hash();
            self.executor.check_restored().is_ok() && state_hash == restoring.info.state_hash
        }) else {
            return self.refuse_restore(now, out);
        };
        let at = restoring.info.id.at;
        assert!(at > self.executed, "restored {at}, and had executed {}", self.executed);
        self.counters.restored += 1;
        self.executed = at;
        self.chosen.raise(at);
        assert!(self.replay.is_none(), "a replay went on under a restored state");
        self.log.clear();
        self.gap = None;
        self.timers.stop(ReplicaTimer::Gap);
        self.watch_gap(now);
        self.report_to_all(out);
    }

    /// The state machine cannot restore what a peer's has written.
    fn refuse_restore(&mut self, now: Time, out: &mut Outbox) {
        let Some(restoring) = self.restoring.take() else { return };
        self.executor.clear();
        self.counters.transfers_abandoned += 1;
        if self.executed > Watermark(0) {
            return self.halt(Halt::SnapshotRefused { at: restoring.info.id.at }, out);
        }
        self.watch_gap(now);
    }
}
