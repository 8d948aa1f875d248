//! What a message or a timer makes of a proposer's phase.

use crate::{Ballot, Incarnation, ReplicaId, Slot};

/// What a message or a timer makes of the phase.
#[derive(Debug)]
#[must_use]
pub(super) enum Next {
    /// The phase goes on.
    Stay,
    /// Another leads, or is given time to.
    Follow,
    /// It has asked for pre-votes, with this nonce.
    PreVote { nonce: u64 },
    /// It campaigns, in a new ballot.
    Campaign(Campaign),
    /// Its campaign has found all that it must.
    Lead,
    /// Its campaign was in vain.
    Fail,
    /// Its reign ends so that another may try.
    HandOver,
    /// Its campaign or reign is ended by this larger ballot.
    StepDown(Ballot),
}

/// A campaign to begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Campaign {
    /// The first slot of interest: what f+1 replicas have executed, or the slot that `rerun_for`
    /// needs.
    pub(super) first: Slot,
    /// The replica for which slots are proposed again that f+1 replicas have executed (R8).
    pub(super) rerun_for: Option<Asker>,
}

/// The life of a replica that can get a slot from no other role.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Asker {
    pub(super) replica: ReplicaId,
    pub(super) incarnation: Incarnation,
}
