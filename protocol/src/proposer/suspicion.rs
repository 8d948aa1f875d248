//! Suspicion: what proxy leaders are under suspicion for, from reign to reign.

use crate::{Latency, Time, Watermark};

/// What a proxy leader is under suspicion for: a slot that was in its hands held all others up,
/// until it was given to another, or much longer than slots in the hands of others do.
///
/// The latter is not visible from one slot. A proxy leader that reaches acceptors and no replica
/// gets slots voted for; replicas get them from acceptors in the end, and the time from asking to
/// execution is what it is for half of all slots.
///
/// That it answers heartbeats clears it of having ended, but not of reaching no acceptor, or no
/// replica. So it is tried again, once it is heard, after a time that doubles with each trial that
/// failed.
///
/// source: R12
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Suspicion {
    /// Until when it gets no slot, heard or not; `None` while it is not suspected.
    pub(super) until: Option<Time>,
    /// Suspicions since a slot in its hands was last chosen without delay.
    pub(super) trials: u32,
    /// How long slots in its hands are the first open one.
    pub(super) holds: Latency,
    /// The bound of the slots that this was measured with last.
    pub(super) measured: Watermark,
}

/// The suspicions of each proxy leader, by its number.
pub(super) type Suspicions = Box<[Suspicion]>;
