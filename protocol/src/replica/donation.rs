//! The donor's side of a state transfer, of a replica in memory: a snapshot of its own state, and
//! the log above it.
//!
//! ```text
//!   FetchPart: any snapshot beyond what I have
//!        │
//!        ▼
//!   freeze ──▶ write a part, write a part, … ──▶ whole ──▶ a part to each peer that asks, at the pace allowed
//!        │                                                                      │
//!        └── execute goes on; what it executes is kept, for the peer's Fetch ───┘   until no peer asks any more
//! ```
//!
//! A snapshot that takes longer to send than its peers hold the log above it would be useless. So
//! the donor keeps that log, up to `transfer_log_bytes_max`, until no peer has asked for anything
//! for twice `replica_grace`. Beyond that bound it abandons the snapshot, and the asker starts over
//! with another one.
//!
//! A replica has at most one donation at a time, which serves every peer that needs one: a peer
//! that is behind the snapshot restores it, and one that is not finds the slots it misses in the
//! log above.
//!
//! No turn takes longer than writing or sending one part of `snapshot_part_bytes`, and the pace,
//! `transfer_bytes_per_second_max`, leaves the core to the commands in between.
//!
//! source: R16, "the donor pins it, and the log above, up to a bound"

use std::collections::VecDeque;
use std::time::Duration;

use super::{Replica, ReplicaTimer};
use crate::executor::Frozen;
use crate::snapshot::PartsDigest;
use crate::{
    Ballot, Batch, Content, Event, FetchPart, FetchedPart, Outbox, Payload, ReplicaId, Slot,
    SnapshotId, SnapshotInfo, StateMachine, Time, ToReplica, Value,
};

/// Requests for parts that may wait at once, of all peers together. A peer asks again for what is
/// dropped.
pub(super) const REQUESTS_MAX: usize = 256;

/// A snapshot that a replica gives to its peers.
#[derive(Debug)]
pub(super) struct Donation {
    id: SnapshotId,
    progress: Progress,
    parts: Vec<Payload>,
    /// The values executed from the slot of the snapshot on, without a hole.
    log: VecDeque<(Ballot, Value)>,
    log_bytes: u64,
    /// The time when a peer last asked for a part or for the log above.
    asked_at: Time,
    /// The parts that peers wait for, oldest first.
    requests: VecDeque<(ReplicaId, u32)>,
}

/// The progress of writing a snapshot.
#[derive(Debug)]
enum Progress {
    Writing {
        frozen: Frozen,
        digest: PartsDigest,
        state_hash: u64,
    },
    Whole(SnapshotInfo),
    /// Given up while it was written: the rest is written and dropped, because the state machine
    /// stays frozen until all of it is written.
    Abandoned(Frozen),
}

/// The time that `bytes` take at `bytes_per_second`.
pub(super) fn time_of(bytes: usize, bytes_per_second: u32) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / u64::from(bytes_per_second.max(1)))
}

impl Donation {
    /// What was executed in `slot`, if the donation keeps it.
    pub(super) fn executed(&self, slot: Slot) -> Option<&(Ballot, Value)> {
        self.log.get(usize::try_from(slot.0.checked_sub(self.id.at.0)?).ok()?)
    }

    fn is_abandoned(&self) -> bool {
        matches!(self.progress, Progress::Abandoned(_))
    }

    /// Keeps what was executed in the next slot. The block is copied: a reference would keep alive
    /// the whole buffer that it was received into.
    fn push(&mut self, ballot: Ballot, value: &Value) {
        let content = match &value.content {
            Content::Noop => Content::Noop,
            Content::Batch(batch) => {
                let block = Payload::copy(batch.block.as_slice());
                self.log_bytes += block.len() as u64;
                Content::Batch(Batch { block, ..Batch::clone(batch) }.into())
            }
        };
        self.log.push_back((ballot, Value { content, ..*value }));
    }

    fn validate(&self, executed: Slot) {
        let end = self.id.at.0 + self.log.len() as u64;
        let is_whole_log = self.is_abandoned() || end == executed.0;
        assert!(is_whole_log, "the log above {} ends at {end}, executed is {executed}", self.id);
    }
}

impl<M: StateMachine> Replica<M> {
    /// Sends a peer a part of a snapshot when it is its turn; or answers that there is none, or not
    /// yet.
    ///
    /// Safe because a part says which snapshot it belongs to: a peer never puts parts of two
    /// together.
    ///
    /// source: R16
    pub fn on_fetch_part(&mut self, fetch: FetchPart, now: Time, out: &mut Outbox) {
        let FetchPart { replica, snapshot, part, beyond } = fetch;
        if replica == self.id || replica.0 >= self.cluster.replicas {
            return out.ignored("FetchPart: of no peer");
        }
        if self.checkpoints.is_some() {
            return self.lend(fetch, now, out);
        }
        if snapshot.is_none() && self.executed > beyond && self.halted.is_none() {
            self.begin_donation(now, out);
        }
        let mut is_coming = false;
        if let Some(donation) = &mut self.donation {
            let is_it = snapshot.map_or(donation.id.at > beyond, |id| id == donation.id);
            match &donation.progress {
                Progress::Whole(info) if is_it => {
                    donation.asked_at = now;
                    let request = (replica, part);
                    let is_new = part < info.parts && !donation.requests.contains(&request);
                    if is_new && donation.requests.len() < REQUESTS_MAX {
                        donation.requests.push_back(request);
                        self.timers.set_if_unset(ReplicaTimer::Donation, now);
                    }
                    return;
                }
                Progress::Writing { .. } if is_it => {
                    donation.asked_at = now;
                    is_coming = true;
                }
                Progress::Abandoned(_) => is_coming = snapshot.is_none(),
                Progress::Whole(_) | Progress::Writing { .. } => {}
            }
        }
        let (info, bytes) = (None, Payload::empty());
        let none = FetchedPart { replica: self.id, snapshot, info, is_coming, part, bytes };
        out.tell_replica(replica, ToReplica::FetchedPart(Box::new(none)));
    }

    /// Freezes the state for a donation, unless there is one.
    fn begin_donation(&mut self, now: Time, out: &mut Outbox) {
        let is_known = self.membership.formation().is_some();
        if self.donation.is_some() || self.restoring.is_some() || !is_known {
            return;
        }
        let Some(frozen) = self.executor.freeze() else {
            return out.event(Event::NoSnapshots { replica: self.id });
        };
        assert!(self.halted.is_none(), "a halted replica gives its state away");
        let (at, replica, incarnation) = (self.executed, self.id, self.incarnation);
        let id = SnapshotId { at, replica, incarnation };
        let (digest, state_hash) = (PartsDigest::new(id), self.executor.machine.state_hash());
        self.donation = Some(Donation {
            id,
            progress: Progress::Writing { frozen, digest, state_hash },
            parts: Vec::new(),
            log: VecDeque::new(),
            log_bytes: 0,
            asked_at: now,
            requests: VecDeque::new(),
        });
        self.timers.set(ReplicaTimer::Donation, now);
    }

    /// Writes the next part of the donation, or sends the one that a peer has waited for longest.
    pub(super) fn go_on_donating(&mut self, now: Time, out: &mut Outbox) {
        if self.checkpoints.is_some() {
            return self.go_on_lending(now, out);
        }
        let Some(donation) = &mut self.donation else { return };
        let part_bytes = self.cluster.snapshot_part_bytes as usize;
        let bytes = match &mut donation.progress {
            Progress::Writing { frozen, digest, state_hash } => {
                match self.executor.write(frozen, part_bytes) {
                    Some(part) => {
                        let bytes = part.len();
                        digest.add(&part);
                        donation.parts.push(part);
                        bytes
                    }
                    None => {
                        let formation = self.membership.formation();
                        let formation = formation.expect("a member never leaves its formation");
                        donation.progress = Progress::Whole(digest.info(formation, *state_hash));
                        self.counters.snapshots += 1;
                        return;
                    }
                }
            }
            Progress::Abandoned(frozen) => match self.executor.write(frozen, part_bytes) {
                Some(part) => part.len(),
                None => {
                    self.donation = None;
                    return;
                }
            },
            Progress::Whole(info) => {
                let Some((replica, part)) = donation.requests.pop_front() else { return };
                assert_eq!(donation.parts.len(), info.parts as usize, "parts of {}", info.id);
                let (info, bytes) = (*info, donation.parts[part as usize].clone());
                let count = bytes.len();
                let (snapshot, is_coming) = (Some(info.id), false);
                let info = Some(info);
                let fetched =
                    FetchedPart { replica: self.id, snapshot, info, is_coming, part, bytes };
                out.tell_replica(replica, ToReplica::FetchedPart(Box::new(fetched)));
                self.counters.parts_sent += 1;
                count
            }
        };
        let pace = self.cluster.transfer_bytes_per_second_max;
        self.timers.set(ReplicaTimer::Donation, now + time_of(bytes, pace));
    }

    /// Keeps what was executed in `slot` just now for the peers that restore the donation.
    pub(super) fn keep_for_peers(&mut self, slot: Slot) {
        let Some(donation) = &mut self.donation else { return };
        if donation.is_abandoned() {
            return;
        }
        let (ballot, value) = self.log.at(slot).expect("it was executed from there");
        let end = donation.id.at.0 + donation.log.len() as u64;
        assert_eq!(end, slot.0, "the log above {} has a hole", donation.id);
        donation.push(*ballot, value);
        if donation.log_bytes > u64::from(self.cluster.transfer_log_bytes_max) {
            self.abandon_donation();
        }
    }

    /// Notes that a peer still reads the log above the donation.
    pub(super) fn note_fetch(&mut self, first: Slot, now: Time) {
        let is_above = |donation: &&mut Donation| first.0 >= donation.id.at.0;
        if let Some(donation) = self.donation.as_mut().filter(is_above) {
            donation.asked_at = now;
        }
    }

    /// Drops a donation that no peer asks for any more.
    pub(super) fn end_donation_if_unused(&mut self, now: Time) {
        let Some(donation) = &self.donation else { return };
        if now.since(donation.asked_at) >= 2 * self.cluster.replica_grace {
            self.abandon_donation();
        }
    }

    fn abandon_donation(&mut self) {
        let Some(mut donation) = self.donation.take_if(|it| !it.is_abandoned()) else { return };
        let Progress::Writing { frozen, .. } = donation.progress else { return };
        // Only what is still frozen remains of it.
        donation.progress = Progress::Abandoned(frozen);
        (donation.parts, donation.log) = (Vec::new(), VecDeque::new());
        (donation.log_bytes, donation.requests) = (0, VecDeque::new());
        self.donation = Some(donation);
    }

    pub(super) fn validate_donation(&self) {
        if let Some(donation) = &self.donation {
            donation.validate(self.executed.first_open());
            let bound = u64::from(self.cluster.transfer_log_bytes_max);
            assert!(donation.log_bytes <= bound, "the log of a donation outgrew its bound");
        }
    }
}
