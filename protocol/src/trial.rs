//! A snapshot restored into a state machine beside any cluster, to see that it can be.

use crate::executor::Executor;
use crate::snapshot::PartsDigest;
use crate::{ClusterSettings, MalformedSnapshot, Payload, SnapshotInfo, StateMachine};

/// A state machine that a snapshot is restored into, part by part, as replicas do that start a log
/// from it.
#[derive(Debug)]
pub struct SnapshotTrial<M> {
    info: SnapshotInfo,
    digest: PartsDigest,
    executor: Executor<M>,
}

impl<M: StateMachine> SnapshotTrial<M> {
    /// Begins with `machine`, which must be in its initial state.
    #[must_use]
    pub fn new(cluster: &ClusterSettings, machine: M, info: SnapshotInfo) -> Self {
        let executor = Executor::new(machine, cluster);
        Self { info, digest: PartsDigest::new(info.id), executor }
    }

    /// Restores the next part.
    ///
    /// # Errors
    ///
    /// If the state machine refuses it.
    pub fn add(&mut self, part: &Payload) -> Result<(), MalformedSnapshot> {
        self.digest.add(part);
        self.executor.restore_without_sessions(part.as_slice())
    }

    /// Returns the state machine, with all parts restored.
    ///
    /// # Errors
    ///
    /// If they are not those of the snapshot, or the state is not the one that was written.
    pub fn end(self) -> Result<M, MalformedSnapshot> {
        let Self { info, digest, executor } = self;
        let is_whole = digest.info(info.formation, executor.machine.state_hash()) == info;
        if is_whole { Ok(executor.machine) } else { Err(MalformedSnapshot) }
    }
}
