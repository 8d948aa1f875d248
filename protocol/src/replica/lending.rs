//! The donor's side of a state transfer, of a durable replica: it sends parts of a stored snapshot.
//!
//! ```text
//!   FetchPart  of a stored snapshot, or of any, and one is new enough  waits its turn, then reads it  SnapshotOrder::Read
//!              of any, and none is new enough                          takes a snapshot, if it can    FetchedPart: coming
//!              of one that is not stored                                                              FetchedPart: none
//!   Read       the part is read                                                                       FetchedPart
//! ```
//!
//! Nothing is held in memory for the peers: the parts are on disk, and the log above the snapshot
//! is with the acceptors, which while they have room wait for the snapshots of all that are up, the
//! peer's among them. If they could not wait, the peer starts over with a newer snapshot.
//!
//! source: R16, "the donor pins it"

use super::donation::{REQUESTS_MAX, time_of};
use super::{Replica, ReplicaTimer};
use crate::{
    FetchPart, FetchedPart, Halt, Outbox, Payload, ReplicaId, SnapshotId, SnapshotInfo,
    SnapshotOrder, StateMachine, Time, ToReplica,
};

/// A part that a peer waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Request {
    peer: ReplicaId,
    pub(super) snapshot: SnapshotId,
    part: u32,
}

impl<M: StateMachine> Replica<M> {
    /// Notes that a peer waits for a part of a stored snapshot, or answers that there is none, or
    /// not yet.
    pub(super) fn lend(&mut self, fetch: FetchPart, now: Time, out: &mut Outbox) {
        let FetchPart { replica: peer, snapshot, part, beyond } = fetch;
        // What it has executed and others have skipped may be in its snapshots.
        let is_of_use = !matches!(self.halted, Some(Halt::Executed { .. }));
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let newest = checkpoints.newest().filter(|info| info.id.at > beyond);
        let wanted = match snapshot {
            Some(id) => checkpoints.stored.get(&id).copied(),
            None => newest,
        };
        let Some(info) = wanted.filter(|_| is_of_use) else {
            let may_take_one =
                snapshot.is_none() && self.executed > beyond && self.halted.is_none();
            if may_take_one {
                checkpoints.want();
                self.checkpoint_if_due(now, out);
            }
            // A peer waits for what is coming: of a disk that has failed it must not hear that.
            let is_coming = may_take_one && self.is_checkpointing();
            let (replica, info, bytes) = (self.id, None, Payload::empty());
            let none = FetchedPart { replica, snapshot, info, is_coming, part, bytes };
            return out.tell_replica(peer, ToReplica::FetchedPart(Box::new(none)));
        };
        checkpoints.lent.insert(info.id, now);
        let request = Request { peer, snapshot: info.id, part };
        let is_new = part < info.parts
            && !checkpoints.requests.contains(&request)
            && !checkpoints.reading.contains(&request);
        let count = checkpoints.requests.len() + checkpoints.reading.len();
        if is_new && count < REQUESTS_MAX {
            checkpoints.requests.push_back(request);
            self.timers.set_if_unset(ReplicaTimer::Donation, now);
        }
    }

    /// Has the part read that a peer has waited for longest.
    pub(super) fn go_on_lending(&mut self, now: Time, out: &mut Outbox) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let Some(request) = checkpoints.requests.pop_front() else { return };
        let Request { snapshot, part, .. } = request;
        if checkpoints.stored.contains_key(&snapshot) {
            checkpoints.reading.push_back(request);
            out.snapshots.push(SnapshotOrder::Read { snapshot, part });
        }
        let part_bytes = self.cluster.snapshot_part_bytes as usize;
        let pace = self.cluster.transfer_bytes_per_second_max;
        self.timers.set(ReplicaTimer::Donation, now + time_of(part_bytes, pace));
    }

    /// Sends a part that was read to the peers that wait for it.
    ///
    /// source: R16
    pub(super) fn on_part_to_lend(
        &mut self,
        snapshot: SnapshotId,
        part: u32,
        bytes: &Payload,
        out: &mut Outbox,
    ) {
        let Some(checkpoints) = &mut self.checkpoints else { return };
        let info: Option<SnapshotInfo> = checkpoints.stored.get(&snapshot).copied();
        checkpoints.reading.retain(|request| {
            let is_it = (request.snapshot, request.part) == (snapshot, part);
            if let Some(info) = info.filter(|_| is_it) {
                let (replica, info, is_coming) = (self.id, Some(info), false);
                let (snapshot, bytes) = (Some(snapshot), bytes.clone());
                let fetched = FetchedPart { replica, snapshot, info, is_coming, part, bytes };
                out.tell_replica(request.peer, ToReplica::FetchedPart(Box::new(fetched)));
                self.counters.parts_sent += 1;
            }
            !is_it
        });
    }
}
