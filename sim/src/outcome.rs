//! What a run comes to.

use std::time::Duration;

use crate::sights::Sights;

/// The result of a run.
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
    /// The longest that a client waited for an answer to the first command it asked once all had
    /// healed.
    pub longest_wait: Duration,
    /// The cluster's election timeout, which that is compared with.
    pub election_timeout: Duration,
    /// Whether syncs took longer than that, until all clients were served.
    pub has_slow_disks: bool,
    /// Situations come across.
    pub sights: Sights,
}
