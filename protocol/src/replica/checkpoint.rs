//! Checkpoints: the durable snapshots of a replica that has a directory.
//!
//! ```text
//!   input      when                                   does                        orders
//!   execute    so many slots or bytes since the last  freezes the state           Begin
//!              one, or one is needed at once
//!   Checkpoint frozen, and the disk keeps up          writes the next part        Part
//!              that was the last part                                             Finish
//!   Written    the disk had too much to do            goes on
//!   Finished   always                                 it counts: reported         Remove, of older ones
//!   Failed     always                                 gives it up, tries later
//! ```
//!
//! The state machine stays frozen until all of it is written, so what is given up is written to its
//! end all the same, and dropped. No turn takes longer than writing one part of
//! `snapshot_part_bytes`, and the pace, `checkpoint_bytes_per_second_max`, leaves the core to the
//! commands in between.
//!
//! **Why a snapshot may be counted on.** Acceptors forget what f+1 replicas say that they hold, so
//! a replica says so only of a snapshot that it has written or restored in this life, and when the
//! driver has told that it is durable. One that it merely found may be damaged: until it is
//! restored it counts for nothing. It is removed only when two newer ones are there.
//!
//! The replicas of a cluster are frozen in turn: the slots at which they are differ by id.
//!
//! source: R16

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::donation::time_of;
use super::lending::Request;
use super::{Replica, ReplicaTimer};
use crate::executor::Frozen;
use crate::snapshot::PartsDigest;
use crate::{
    ClusterSettings, DirectoryId, Event, FormationId, LoggedCommand, Outbox, ReplicaId,
    SnapshotDone, SnapshotId, SnapshotInfo, SnapshotOrder, StateMachine, Time, Value, Watermark,
};

/// Parts that the disk may have been given and not yet written.
pub(super) const PARTS_UNWRITTEN: u32 = 16;
/// Snapshots that are kept, those left out that a peer is getting.
const KEPT: usize = 2;
/// The wait after a first failure. It is doubled by each further one.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The most that it is doubled to.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The findings of a durable replica in its directory, when it starts.
#[derive(Clone, Debug)]
pub struct ReplicaDirectory {
    /// The identity of the directory.
    pub directory: DirectoryId,
    /// The snapshots that are whole, as far as headers and footers tell. One of no formation is
    /// that from which a cluster is to start, or has started.
    pub snapshots: Vec<SnapshotInfo>,
    /// Whether an earlier life has left anything there, damaged snapshots included, but for that of
    /// no formation.
    pub is_used: bool,
    /// The commands that are not to be executed, as an earlier life has noted (R38).
    pub skips: Vec<LoggedCommand>,
}

/// A durable replica's snapshots.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Whether the directory had nothing in it when the replica started, but for `origin`, which is
    /// of use as far as is known (R4).
    pub(super) is_blank: bool,
    /// The snapshot that the cluster's log starts from, until there are newer ones. It is restored
    /// without its sessions, counts for nothing and is lent to no peer: each replica has its own,
    /// and takes its first snapshot of the log at once.
    pub(super) origin: Option<SnapshotInfo>,
    /// Whole and durable, oldest first.
    pub(super) stored: BTreeMap<SnapshotId, SnapshotInfo>,
    /// Everything below is in a stored snapshot that this life has written or restored. Never goes
    /// down, unless that one is damaged.
    pub(super) counted: Watermark,
    writing: Option<Writing>,
    /// The bytes of the batches executed since the state was last frozen, and up to then in this
    /// life `bytes_ahead` more.
    bytes: u64,
    /// The bytes that this replica is ahead of others, so that they do not freeze all at once; zero
    /// once that has had its effect.
    bytes_ahead: u64,
    /// Whether one is to be written as soon as possible.
    is_wanted: bool,
    /// Whether the state machine has snapshots, as far as is known.
    is_possible: bool,
    /// Failures since the last one succeeded.
    failures: u32,
    /// No snapshot is begun, and no peer's is fetched, before this time.
    pub(super) retry_at: Time,
    /// The snapshots that peers are getting, and when each was last asked for.
    pub(super) lent: BTreeMap<SnapshotId, Time>,
    /// The parts that peers wait for, oldest first.
    pub(super) requests: VecDeque<Request>,
    /// Those of them that are being read.
    pub(super) reading: VecDeque<Request>,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Writing {
    id: SnapshotId,
    formation: FormationId,
    frozen: Frozen,
    digest: PartsDigest,
    state_hash: u64,
    written: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Writing,
    /// All parts are handed out.
    Finishing(SnapshotInfo),
    /// Given up; what is still frozen is written and dropped.
    Abandoned,
}

impl Checkpoints {
    pub(super) fn new(
        found: ReplicaDirectory,
        replica: ReplicaId,
        cluster: &ClusterSettings,
    ) -> Self {
        let share = cluster.checkpoint_bytes / u64::from(cluster.replicas);
        let bytes_ahead = share * u64::from(replica.0);
        let origin = found.snapshots.iter().copied().filter(SnapshotInfo::is_origin).max();
        let stored = found.snapshots.into_iter().filter(|info| !info.is_origin());
        Self {
            is_blank: !found.is_used,
            origin,
            stored: stored.map(|info| (info.id, info)).collect(),
            counted: Watermark(0),
            writing: None,
            bytes: bytes_ahead,
            bytes_ahead,
            is_wanted: false,
            is_possible: true,
            failures: 0,
            retry_at: Time(0),
            lent: BTreeMap::new(),
            requests: VecDeque::new(),
            reading: VecDeque::new(),
        }
    }

    /// The newest snapshot that is stored.
    pub(super) fn newest(&self) -> Option<SnapshotInfo> {
        self.stored.last_key_value().map(|(_, info)| *info)
    }

    /// Notes that a slot was executed.
    ///
    /// source: R16
    pub(super) fn on_executed(&mut self, value: &Value) {
        self.bytes += value.batch().map_or(0, |batch| batch.block.len() as u64);
    }

    /// Wants a snapshot as soon as possible.
    pub(super) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// Whether it is time for a snapshot of everything below `executed`. The first is due at once:
    /// a directory with a snapshot in it is known to be of this formation.
    fn is_due(&self, executed: Watermark, replica: ReplicaId, cluster: &ClusterSettings) -> bool {
        let interval = u64::from(cluster.checkpoint_interval);
        let offset = interval * u64::from(replica.0) / u64::from(cluster.replicas);
        let turn = |at: Watermark| (at.0 + offset) / interval;
        let is_turn = turn(executed) > turn(self.counted) || self.bytes >= cluster.checkpoint_bytes;
        executed > self.counted && (is_turn || self.is_wanted || self.stored.is_empty())
    }

    /// Notes a failure of the disk: the next attempt waits the longer the more there were.
    ///
    /// source: R16
    pub(super) fn on_failure(&mut self, now: Time) {
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(6)).min(RETRY_MAX);
        self.retry_at = now + wait;
        self.failures = self.failures.saturating_add(1);
        self.is_wanted = true;
    }

    /// Takes in that a snapshot of this replica's state is durable: it counts.
    pub(super) fn count(&mut self, info: SnapshotInfo) {
        self.stored.insert(info.id, info);
        self.counted.raise(info.id.at);
        self.failures = 0;
    }

    /// Forgets a snapshot that cannot be restored; returns whether it was stored. If it was
    /// counted, nothing is until the next one, which is wanted at once.
    pub(super) fn set_aside(&mut self, id: SnapshotId) -> bool {
        if id.at == self.counted {
            (self.counted, self.is_wanted) = (Watermark(0), true);
        }
        self.reading.retain(|request| request.snapshot != id);
        let origin = self.origin.take_if(|origin| origin.id == id);
        // Not a memory that has never been anything: a cluster must not start with nothing because
        // what it was to start from is of no use.
        self.is_blank &= origin.is_none();
        self.stored.remove(&id).is_some() || origin.is_some()
    }

    /// Removes what is older than the snapshots that are kept, and not lent.
    pub(super) fn prune(&mut self, now: Time, lent_for: Duration, out: &mut Outbox) {
        self.lent.retain(|_, asked_at| now.since(*asked_at) < lent_for);
        let older = self.stored.len().saturating_sub(KEPT);
        let older = self.stored.keys().take(older).filter(|id| id.at < self.counted);
        let (lent, unused): (Vec<SnapshotId>, Vec<SnapshotId>) =
            older.partition(|id| self.lent.contains_key(id));
        // The newest that is lent stays. Others do not: they take room, and their readers start
        // over.
        let given_up = lent.iter().rev().skip(1);
        for id in unused.iter().chain(given_up) {
            self.stored.remove(id);
            out.snapshots.push(SnapshotOrder::Remove(*id));
        }
        let origin = self.origin.take_if(|_| self.stored.len() >= KEPT);
        out.snapshots.extend(origin.map(|origin| SnapshotOrder::Remove(origin.id)));
    }

    pub(super) fn validate(&self, executed: Watermark) {
        assert!(self.counted <= executed, "{} is counted, {executed} executed", self.counted);
        let is_stored = self.stored.keys().any(|id| id.at == self.counted);
        assert!(self.counted == Watermark(0) || is_stored, "{} is not stored", self.counted);
        let is_late = self.writing.as_ref().is_some_and(|writing| writing.id.at > executed);
        assert!(!is_late, "a snapshot of what is not executed");
    }
}

impl<M: StateMachine> Replica<M> {
    /// Takes in what the disk has done with a snapshot.
    ///
    /// source: R16
    pub fn on_snapshot_done(&mut self, done: SnapshotDone, now: Time, out: &mut Outbox) {
        if self.checkpoints.is_none() {
            return;
        }
        match done {
            SnapshotDone::Written(id) if self.is_writing(id) => self.on_part_written(now),
            SnapshotDone::Written(id) => self.on_received_part_written(id, now, out),
            SnapshotDone::Finished(id) if self.is_writing(id) => self.on_finished(now, out),
            SnapshotDone::Finished(id) => self.on_received(id, now, out),
            SnapshotDone::Failed(id) if self.is_writing(id) => self.abandon_checkpoint(now),
            SnapshotDone::Failed(id) => self.on_receiving_failed(id, now, out),
            SnapshotDone::Noted { command, is_durable } => {
                self.on_skip_noted(command, is_durable, out);
            }
            SnapshotDone::Read { snapshot, part, bytes: Some(bytes) } => {
                self.on_part_to_restore(snapshot, part, &bytes, now);
                self.on_part_to_lend(snapshot, part, &bytes, out);
            }
            SnapshotDone::Read { snapshot, bytes: None, .. } => {
                self.on_unreadable(snapshot, now, out);
            }
        }
    }

    fn is_writing(&self, id: SnapshotId) -> bool {
        self.writing().is_some_and(|writing| writing.id == id)
    }

    /// Whether it is writing a snapshot that is not given up.
    pub(super) fn is_checkpointing(&self) -> bool {
        self.writing().is_some_and(|writing| writing.stage != Stage::Abandoned)
    }

    fn writing(&self) -> Option<&Writing> {
        self.checkpoints.as_ref()?.writing.as_ref()
    }

    fn writing_mut(&mut self) -> Option<&mut Writing> {
        self.checkpoints.as_mut()?.writing.as_mut()
    }

    /// Freezes the state, if it is time for a snapshot.
    pub(super) fn checkpoint_if_due(&mut self, now: Time, out: &mut Outbox) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let may_begin = checkpoints.writing.is_none()
            && checkpoints.is_possible
            && self.restoring.is_none()
            && self.halted.is_none()
            && now >= checkpoints.retry_at;
        let at = self.executed;
        if !may_begin || !checkpoints.is_due(at, self.id, &self.cluster) {
            return;
        }
        let Some(formation) = self.membership.formation() else { return };
        let Some(frozen) = self.executor.freeze() else {
            checkpoints.is_possible = false;
            return out.event(Event::NoSnapshots { replica: self.id });
        };
        let id = SnapshotId { at, replica: self.id, incarnation: self.incarnation };
        let (digest, state_hash) = (PartsDigest::new(id), self.executor.machine.state_hash());
        let (written, stage) = (0, Stage::Writing);
        // The first of a life may be taken at the same slot by all.
        checkpoints.bytes = std::mem::take(&mut checkpoints.bytes_ahead);
        checkpoints.is_wanted = false;
        checkpoints.writing =
            Some(Writing { id, formation, frozen, digest, state_hash, written, stage });
        out.snapshots.push(SnapshotOrder::Begin { id, formation });
        self.timers.set(ReplicaTimer::Checkpoint, now);
    }

    /// Writes the next part of the state that is frozen.
    pub(super) fn go_on_checkpointing(&mut self, now: Time, out: &mut Outbox) {
        let part_bytes = self.cluster.snapshot_part_bytes as usize;
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let Some(writing) = &mut checkpoints.writing else { return };
        let is_abandoned = writing.stage == Stage::Abandoned;
        let is_ahead = writing.digest.parts() - writing.written >= PARTS_UNWRITTEN;
        let is_whole = matches!(writing.stage, Stage::Finishing(_));
        if is_whole || is_ahead && !is_abandoned {
            return; // the disk's answer goes on with it
        }
        match self.executor.write(&mut writing.frozen, part_bytes) {
            Some(part) => {
                let pace = self.cluster.checkpoint_bytes_per_second_max;
                self.timers.set(ReplicaTimer::Checkpoint, now + time_of(part.len(), pace));
                if !is_abandoned {
                    writing.digest.add(&part);
                    out.snapshots.push(SnapshotOrder::Part { id: writing.id, bytes: part });
                }
            }
            None if is_abandoned => checkpoints.writing = None,
            None => {
                let info = writing.digest.info(writing.formation, writing.state_hash);
                writing.stage = Stage::Finishing(info);
                out.snapshots.push(SnapshotOrder::Finish(info));
            }
        }
    }

    /// Goes on when the disk has written a part.
    ///
    /// source: R16
    fn on_part_written(&mut self, now: Time) {
        let Some(writing) = self.writing_mut() else { return };
        writing.written += 1;
        assert!(writing.written <= writing.digest.parts(), "more is written than was handed out");
        if !matches!(writing.stage, Stage::Finishing(_)) {
            self.timers.set_if_unset(ReplicaTimer::Checkpoint, now);
        }
    }

    /// A snapshot of its own state is durable: it counts, and others are told.
    ///
    /// source: R16
    fn on_finished(&mut self, now: Time, out: &mut Outbox) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let Some(writing) = checkpoints.writing.take() else { return };
        let Stage::Finishing(info) = writing.stage else {
            unreachable!("{} is finished before all of it was handed out", writing.id)
        };
        assert!(info.id.at <= self.executed, "a snapshot of what is not executed");
        checkpoints.count(info);
        checkpoints.prune(now, 2 * self.cluster.replica_grace, out);
        self.counters.snapshots += 1;
        self.report_to_all(out);
        self.checkpoint_if_due(now, out);
    }

    /// Gives up the snapshot that is being written: the disk has failed.
    fn abandon_checkpoint(&mut self, now: Time) {
        self.counters.snapshots_failed += 1;
        let Some(checkpoints) = &mut self.checkpoints else { return };
        checkpoints.on_failure(now);
        let Some(writing) = &mut checkpoints.writing else { return };
        match writing.stage {
            // Nothing is frozen any more.
            Stage::Finishing(_) => checkpoints.writing = None,
            Stage::Writing | Stage::Abandoned => {
                writing.stage = Stage::Abandoned;
                self.timers.set_if_unset(ReplicaTimer::Checkpoint, now);
            }
        }
    }

    /// Drops the snapshot that is being written, because the state is cleared.
    pub(super) fn drop_checkpoint(&mut self, out: &mut Outbox) {
        self.timers.stop(ReplicaTimer::Checkpoint);
        let Some(checkpoints) = &mut self.checkpoints else { return };
        if let Some(writing) = checkpoints.writing.take() {
            out.snapshots.push(SnapshotOrder::Abandon(writing.id));
        }
    }

    /// Does what is to be done from time to time: begins a snapshot that could not be begun before,
    /// or that acceptors need to have room again; removes those that no peer gets any more.
    pub(super) fn look_after_checkpoints(
        &mut self,
        is_room_needed: bool,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        if is_room_needed {
            checkpoints.want();
        }
        checkpoints.prune(now, 2 * self.cluster.replica_grace, out);
        self.checkpoint_if_due(now, out);
    }
}
