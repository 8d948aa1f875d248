//! What a leader knows of replicas that have halted.

use super::Phase2;
use crate::proposer::shared::Shared;
use crate::{Halt, Halted, Incarnation, Outbox, ReplicaId, Roster, Time};

/// What a replica has said last of why it has halted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct LastHalt {
    incarnation: Incarnation,
    why: Halt,
    heard_at: Time,
}

impl Phase2 {
    /// Notes that a replica has halted.
    ///
    /// source: R28
    pub(in crate::proposer) fn on_halted(
        &mut self,
        halted: Halted,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        let Halted { replica, incarnation, why } = halted;
        let Some(last) = self.halts.get_mut(usize::from(replica.0)) else {
            shared.counters.foreign += 1;
            return out.ignored("Halted: of no replica");
        };
        *last = Some(LastHalt { incarnation, why, heard_at: now });
    }

    /// Why a replica has halted, if its current life has said so within an election timeout.
    fn halt_of(&self, replica: ReplicaId, roster: &Roster, now: Time) -> Option<&Halt> {
        let last = self.halts[usize::from(replica.0)].as_ref()?;
        let is_current = roster.incarnation(replica) == Some(last.incarnation)
            && now.since(last.heard_at) < self.cluster.election_timeout;
        is_current.then_some(&last.why)
    }

    /// Whether so many replicas have halted that no f+1 of them can execute what is open: no other
    /// leader would do better.
    ///
    /// source: R28
    pub(super) fn is_halted(&self, roster: &Roster, now: Time) -> bool {
        let halted = roster.replicas().filter(|it| self.halt_of(*it, roster, now).is_some());
        roster.replicas().count() - halted.count() <= usize::from(self.cluster.f)
    }
}
