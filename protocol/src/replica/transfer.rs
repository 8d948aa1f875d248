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
//! A replica in memory holds the parts until all are there. A durable one writes them to its disk,
//! as a snapshot of its own, and restores that, as it does at its start ([`Source`]).
//!
//! **Why `executed` may jump to the snapshot's slot.** A snapshot is a function of the log below
//! its slot, the digests say that every part and the state are as they were at its writer, and the
//! formation is compared like that of any message (R4). Until the last part is restored the state
//! is that of no slot: the replica executes nothing, answers nothing and reports the slot that it
//! had before. It has told others that it executed everything up to there, so if the state machine
//! refuses a part it must not go on with less: it halts. A replica that had executed nothing has
//! told nothing, and tries again: with an older snapshot of its own, if it has one.
//!
//! source: R15, R16

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::checkpoint::{Checkpoints, PARTS_UNWRITTEN};
use super::donation::time_of;
use super::{Replica, ReplicaTimer};
use crate::snapshot::PartsDigest;
use crate::{
    Event, FetchPart, FetchedPart, Halt, Outbox, Payload, ReplicaId, SnapshotId, SnapshotInfo,
    SnapshotOrder, StateMachine, Time, ToReplica, Watermark,
};

/// Parts that may be on their way from the donor at once.
const PARTS_AHEAD: u32 = 16;

/// After this turn of the core, and before any other work is due.
const NEXT_TURN: Duration = Duration::from_nanos(1);

/// The rounds in which acceptors are asked in vain, before a durable replica gets a peer's
/// snapshot.
const REPLAY_ROUNDS: u32 = 5;

/// The progress of getting a snapshot from a peer, or of restoring it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TransferProgress {
    /// The peer that it comes from; `None` while it is restored.
    pub donor: Option<ReplicaId>,
    /// The snapshot, once a part of it has come.
    pub snapshot: Option<SnapshotInfo>,
    /// The bytes of it that have come, or are restored.
    pub bytes: u64,
    /// The time when the transfer, or the restoring, began.
    pub since: Time,
}

/// A snapshot on its way from a peer.
#[derive(Debug)]
pub(super) struct Transfer {
    donor: ReplicaId,
    since: Time,
    /// The time when the donor last said anything of use.
    heard_at: Time,
    /// Known from the first part on.
    incoming: Option<Incoming>,
}

#[derive(Debug)]
struct Incoming {
    info: SnapshotInfo,
    received: Received,
    /// The digest of the parts that have arrived without a hole.
    digest: PartsDigest,
    /// Parts that arrived before one that is missing.
    early: BTreeMap<u32, Payload>,
    /// All parts below were asked for.
    asked: u32,
}

/// The place where the parts that have arrived without a hole are.
#[derive(Debug)]
enum Received {
    /// In memory.
    Held(VecDeque<Payload>),
    /// On disk, or on their way there.
    Stored {
        /// The number of parts that the disk has written.
        written: u32,
        /// Whether all were handed out, and the disk was told to make the whole durable.
        is_finishing: bool,
    },
}

/// A whole snapshot that is being restored.
#[derive(Debug)]
pub(super) struct Restoring {
    info: SnapshotInfo,
    source: Source,
    /// The digest of the parts restored so far.
    digest: PartsDigest,
    since: Time,
    /// The digest of the state that was cleared, at `executed`.
    pub(super) state_hash_before: u64,
}

/// The place from which the parts of a snapshot are restored.
#[derive(Debug)]
enum Source {
    /// Memory.
    Held {
        donor: ReplicaId,
        /// The parts that are not restored yet.
        parts: VecDeque<Payload>,
        /// The time when the donor was last told to keep the log above.
        pinned_at: Time,
    },
    /// The disk.
    Stored {
        /// The parts that were read and are not restored yet.
        parts: VecDeque<Payload>,
        /// All parts below were asked for.
        asked: u32,
    },
}

impl Source {
    /// The disk, from the first part on.
    fn stored() -> Self {
        Self::Stored { parts: VecDeque::new(), asked: 0 }
    }
}

impl Incoming {
    fn new(info: SnapshotInfo, received: Received) -> Self {
        let (digest, early) = (PartsDigest::new(info.id), BTreeMap::new());
        Self { info, received, digest, early, asked: 1 }
    }

    /// Takes a part in; returns whether it was one that was missing.
    ///
    /// source: R16
    fn on_part(&mut self, part: u32, bytes: Payload, out: &mut Outbox) -> bool {
        let next = self.digest.parts();
        if part < next || part >= self.end() || self.early.contains_key(&part) {
            return false;
        }
        self.early.insert(part, bytes);
        while let Some(bytes) = self.early.remove(&self.digest.parts()) {
            self.digest.add(&bytes);
            match &mut self.received {
                Received::Held(parts) => parts.push_back(bytes),
                Received::Stored { .. } => {
                    out.snapshots.push(SnapshotOrder::Part { id: self.info.id, bytes });
                }
            }
        }
        true
    }

    /// The parts below may be asked for: as many as may be on their way, and wait for the disk.
    fn end(&self) -> u32 {
        let end = self.digest.parts().saturating_add(PARTS_AHEAD);
        let end = match self.received {
            Received::Held(_) => end,
            Received::Stored { written, .. } => end.min(written.saturating_add(PARTS_UNWRITTEN)),
        };
        end.min(self.info.parts)
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
    /// asked several times. Where acceptors are durable they have it, and are asked several times,
    /// too: after a restart of all, peers hold no log at first.
    ///
    /// source: R8, "after live peers (R15) and snapshots have failed the asker"
    pub(super) fn transfer_if_needed(&mut self, now: Time, out: &mut Outbox) {
        if self.halted.is_some() {
            return; // its next life may get the state of a peer, if it cannot do without
        }
        let next = self.executed.first_open();
        let Some(gap) = self.gap.as_ref().filter(|gap| gap.slot == next) else { return };
        let may_replay = self.checkpoints.is_some() && self.replay_rounds < REPLAY_ROUNDS;
        let is_hopeless =
            self.truncated.covers(next) || gap.asked >= self.asks_of_peers() && !may_replay;
        let is_too_early = self.checkpoints.as_ref().is_some_and(|it| now < it.retry_at);
        if !is_hopeless || gap.let_go.is_empty() || self.is_transferring() || is_too_early {
            return;
        }
        let turn = usize::try_from(self.counters.transfers).unwrap_or(0);
        let donor = gap.let_go[turn % gap.let_go.len()];
        self.counters.transfers += 1;
        self.transfer = Some(Transfer { donor, since: now, heard_at: now, incoming: None });
        self.ask_for_parts(now, out);
    }

    /// The snapshot that it is getting from a peer, or restoring, and how far that is.
    #[must_use]
    pub fn transfer_progress(&self) -> Option<TransferProgress> {
        if let Some(Restoring { info, digest, since, .. }) = &self.restoring {
            let (donor, snapshot, bytes) = (None, Some(*info), digest.bytes());
            return Some(TransferProgress { donor, snapshot, bytes, since: *since });
        }
        let Transfer { donor, since, incoming, .. } = self.transfer.as_ref()?;
        Some(TransferProgress {
            donor: Some(*donor),
            snapshot: incoming.as_ref().map(|incoming| incoming.info),
            bytes: incoming.as_ref().map_or(0, |incoming| incoming.digest.bytes()),
            since: *since,
        })
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
            return self.abandon_transfer(out);
        }
        if let Some(incoming) = &mut transfer.incoming {
            incoming.asked = incoming.digest.parts(); // whatever is missing
        }
        self.ask_for_parts(now, out);
    }

    fn ask_for_parts(&mut self, now: Time, out: &mut Outbox) {
        let Some(transfer) = &mut self.transfer else { return };
        self.timers.set(ReplicaTimer::Transfer, now + 2 * self.cluster.resend_min);
        // A durable donor keeps no log: what begins below what is truncated leaves a hole that no
        // acceptor can fill.
        let beyond = match self.checkpoints {
            Some(_) => self.executed.max(Watermark(self.truncated.0.saturating_sub(1))),
            None => self.executed,
        };
        let (replica, donor) = (self.id, transfer.donor);
        let mut ask = |snapshot, part| {
            let fetch = FetchPart { replica, snapshot, part, beyond };
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
            let has_all = transfer.incoming.as_ref().is_some_and(Incoming::is_whole);
            if snapshot == wanted && is_coming {
                transfer.heard_at = now;
            } else if snapshot == wanted && !has_all {
                self.abandon_transfer(out);
            }
            return;
        };
        let is_ours = Some(info.formation) == self.membership.formation();
        if transfer.incoming.is_none() && info.id.at > self.executed && is_ours {
            let received = match &self.checkpoints {
                None => Received::Held(VecDeque::new()),
                Some(checkpoints) => {
                    assert!(!checkpoints.stored.contains_key(&info.id), "{} is here", info.id);
                    let SnapshotInfo { id, formation, .. } = info;
                    out.snapshots.push(SnapshotOrder::Begin { id, formation });
                    Received::Stored { written: 0, is_finishing: false }
                }
            };
            transfer.incoming = Some(Incoming::new(info, received));
        }
        let Some(incoming) = transfer.incoming.as_mut().filter(|it| it.info == info) else {
            return out.ignored("FetchedPart: of another snapshot");
        };
        if !incoming.on_part(part, bytes, out) {
            return out.ignored("FetchedPart: it is here, or was not asked for");
        }
        transfer.heard_at = now;
        if !incoming.is_whole() {
            return self.ask_for_parts(now, out);
        }
        if !incoming.is_intact() || self.executed >= info.id.at {
            return self.abandon_transfer(out);
        }
        if let Received::Stored { is_finishing, .. } = &mut incoming.received {
            *is_finishing = true;
            self.timers.stop(ReplicaTimer::Transfer);
            return out.snapshots.push(SnapshotOrder::Finish(info));
        }
        let Some(Transfer { donor, incoming: Some(incoming), .. }) = self.transfer.take() else {
            unreachable!("it has all parts")
        };
        let Received::Held(parts) = incoming.received else {
            unreachable!("it is a replica in memory")
        };
        self.begin_restore(info, Source::Held { donor, parts, pinned_at: now }, now, out);
    }

    /// The disk has written a part that came from the donor.
    ///
    /// source: R16
    pub(super) fn on_received_part_written(&mut self, id: SnapshotId, now: Time, out: &mut Outbox) {
        let Some(transfer) = &mut self.transfer else { return };
        let Some(incoming) = transfer.incoming.as_mut().filter(|it| it.info.id == id) else {
            return;
        };
        let Received::Stored { written, is_finishing } = &mut incoming.received else { return };
        // The answer may be to a part of an earlier attempt to get the same snapshot.
        *written = (*written + 1).min(incoming.digest.parts());
        if !*is_finishing {
            transfer.heard_at = now; // it waited for the disk, not for the donor
            self.ask_for_parts(now, out);
        }
    }

    /// The snapshot that came from the donor is durable: restores it.
    ///
    /// source: R16
    pub(super) fn on_received(&mut self, id: SnapshotId, now: Time, out: &mut Outbox) {
        let incoming = self.transfer.as_ref().and_then(|transfer| transfer.incoming.as_ref());
        let Some(info) = incoming.map(|incoming| incoming.info).filter(|info| info.id == id) else {
            return out.snapshots.push(SnapshotOrder::Remove(id)); // given up meanwhile
        };
        self.transfer = None;
        if self.executed >= id.at {
            return out.snapshots.push(SnapshotOrder::Remove(id)); // the log came sooner
        }
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.stored.insert(id, info);
        }
        self.begin_restore(info, Source::stored(), now, out);
    }

    /// The disk could not write what came from the donor: gives the transfer up for a while.
    ///
    /// source: R16
    pub(super) fn on_receiving_failed(&mut self, id: SnapshotId, now: Time, out: &mut Outbox) {
        let incoming = self.transfer.as_ref().and_then(|transfer| transfer.incoming.as_ref());
        if incoming.is_some_and(|incoming| incoming.info.id == id) {
            self.counters.snapshots_failed += 1;
            self.abandon_transfer(out);
            self.checkpoints.iter_mut().for_each(|checkpoints| checkpoints.on_failure(now));
        }
    }

    /// Gives up what it was getting, with all that has come of it.
    pub(super) fn abandon_transfer(&mut self, out: &mut Outbox) {
        self.timers.stop(ReplicaTimer::Transfer);
        self.counters.transfers_abandoned += 1;
        let incoming = self.transfer.take().and_then(|transfer| transfer.incoming);
        if let Some(incoming) = incoming
            && matches!(incoming.received, Received::Stored { .. })
        {
            out.snapshots.push(SnapshotOrder::Abandon(incoming.info.id));
        }
    }

    /// Restores the newest snapshot that is stored, if there is one: what a durable replica does
    /// first. Without any of its cluster's it is the one that the log starts from.
    pub(super) fn restore_newest(&mut self, now: Time, out: &mut Outbox) {
        let of = |checkpoints: &Checkpoints| checkpoints.newest().or(checkpoints.origin);
        if let Some(info) = self.checkpoints.as_ref().and_then(of) {
            self.begin_restore(info, Source::stored(), now, out);
        }
    }

    /// Clears the state, to restore it from a whole snapshot.
    fn begin_restore(&mut self, info: SnapshotInfo, source: Source, now: Time, out: &mut Outbox) {
        assert!(info.id.at > self.executed, "restored from an older state");
        assert!(self.restoring.is_none(), "two states are restored at once");
        let state_hash_before = self.executor.machine.state_hash();
        // A frozen state is cleared, too. Peers that are getting it from us start over with another
        // donor.
        if self.donation.take().is_some() {
            self.timers.stop(ReplicaTimer::Donation);
        }
        self.drop_checkpoint(out);
        self.stop_replay();
        self.executor.clear();
        let digest = PartsDigest::new(info.id);
        self.restoring = Some(Restoring { info, source, digest, since: now, state_hash_before });
        self.timers.set(ReplicaTimer::Transfer, now);
    }

    fn restore_next(&mut self, now: Time, out: &mut Outbox) {
        let Some(restoring) = &mut self.restoring else { return };
        let info = restoring.info;
        let part = match &mut restoring.source {
            Source::Held { donor, parts, pinned_at } => {
                if now.since(*pinned_at) >= self.cluster.replica_grace / 2 {
                    *pinned_at = now;
                    let (replica, beyond) = (self.id, self.executed);
                    // No part has this number: it asks only that the log above be kept.
                    let (snapshot, part) = (Some(info.id), info.parts);
                    let fetch = FetchPart { replica, snapshot, part, beyond };
                    out.tell_replica(*donor, ToReplica::FetchPart(fetch));
                }
                parts.pop_front()
            }
            Source::Stored { parts, asked } => {
                let restored = restoring.digest.parts();
                let end = restored.saturating_add(PARTS_AHEAD).min(info.parts);
                for part in *asked..end {
                    out.snapshots.push(SnapshotOrder::Read { snapshot: info.id, part });
                }
                *asked = end.max(*asked);
                let part = parts.pop_front();
                if part.is_none() && restored < info.parts {
                    return; // goes on when it is read
                }
                part
            }
        };
        let Some(part) = part else { return self.end_restore(now, out) };
        let restored = match info.is_origin() {
            true => self.executor.restore_without_sessions(part.as_slice()),
            false => self.executor.restore(part.as_slice()),
        };
        if restored.is_err() {
            return self.refuse_restore("the state machine refuses a part of it", now, out);
        }
        restoring.digest.add(&part);
        let wait = match restoring.source {
            Source::Held { .. } => time_of(part.len(), self.cluster.transfer_bytes_per_second_max),
            // As fast as the disk, but a part a turn: the other roles of the core have theirs.
            Source::Stored { .. } => NEXT_TURN,
        };
        self.timers.set(ReplicaTimer::Transfer, now + wait);
    }

    /// Takes in a part that was read from its own disk, if it is the next one to be restored.
    ///
    /// source: R16
    pub(super) fn on_part_to_restore(
        &mut self,
        snapshot: SnapshotId,
        part: u32,
        bytes: &Payload,
        now: Time,
    ) {
        let Some(restoring) = self.restoring.as_mut().filter(|it| it.info.id == snapshot) else {
            return;
        };
        let next = restoring.digest.parts();
        if let Source::Stored { parts, .. } = &mut restoring.source
            && part == next + u32::try_from(parts.len()).unwrap_or(u32::MAX)
        {
            parts.push_back(bytes.clone());
            self.timers.set_if_unset(ReplicaTimer::Transfer, now);
        }
    }

    /// A part of a stored snapshot cannot be read: sets the snapshot aside, and takes another in
    /// its place.
    ///
    /// If others were told of it, this directory does not hold what they count on any more: that is
    /// the loss of one replica, until the next snapshot.
    ///
    /// source: R16
    pub(super) fn on_unreadable(&mut self, snapshot: SnapshotId, now: Time, out: &mut Outbox) {
        if self.restoring.as_ref().is_some_and(|it| it.info.id == snapshot) {
            return self.refuse_restore("a part of it cannot be read", now, out);
        }
        self.set_aside(snapshot, "a part of it cannot be read", out);
        self.checkpoint_if_due(now, out);
    }

    fn set_aside(&mut self, snapshot: SnapshotId, why: &'static str, out: &mut Outbox) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        if checkpoints.set_aside(snapshot) {
            if checkpoints.origin.is_none() && self.membership.table().is_none() {
                self.membership.start_from(None);
            }
            out.snapshots.push(SnapshotOrder::SetAside(snapshot));
            out.event(Event::SnapshotSetAside { replica: self.id, snapshot, why });
        }
    }

    /// The last part is restored: goes on from the snapshot's slot.
    fn end_restore(&mut self, now: Time, out: &mut Outbox) {
        let Some(restoring) = self.restoring.take_if(|restoring| {
            let Restoring { info, digest, .. } = restoring;
            let state_hash = self.executor.machine.state_hash();
            self.executor.check_restored().is_ok()
                && state_hash == info.state_hash
                && digest.info(info.formation, info.state_hash) == *info
        }) else {
            return self.refuse_restore("it is not the state that was written", now, out);
        };
        let at = restoring.info.id.at;
        assert!(at > self.executed, "restored {at}, and had executed {}", self.executed);
        self.counters.restored += 1;
        self.executed = at;
        self.chosen.raise(at);
        if let Some(checkpoints) = &mut self.checkpoints
            && !restoring.info.is_origin()
        {
            checkpoints.count(restoring.info);
        }
        assert!(self.replay.is_none(), "a replay went on under a restored state");
        self.log.clear();
        self.gap = None;
        self.timers.stop(ReplicaTimer::Gap);
        self.watch_gap(now);
        self.report_to_all(out);
        self.answer_waiting(out);
    }

    /// The snapshot cannot be restored.
    fn refuse_restore(&mut self, why: &'static str, now: Time, out: &mut Outbox) {
        let Some(restoring) = self.restoring.take() else { return };
        self.executor.clear();
        self.counters.transfers_abandoned += 1;
        self.set_aside(restoring.info.id, why, out);
        if self.executed > Watermark(0) {
            return self.halt(Halt::SnapshotRefused { at: restoring.info.id.at }, out);
        }
        self.restore_newest(now, out);
        self.watch_gap(now);
    }
}
