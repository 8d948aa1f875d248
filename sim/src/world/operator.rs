//! The operator: sees to replicas whose machine has panicked.
//!
//! ```text
//!   a trap        the operator
//!   everywhere    has the command skipped, again and again until it is
//!   on some       likewise, which must be in vain: the others have executed it
//!   once          has halted replicas restarted; where all have halted and nothing else befalls
//!                 them, has the command skipped, and later all replicas restarted
//! ```

use std::time::Duration;

use loggos_protocol::{
    Envelope, FormationId, Halt, LoggedCommand, ReplicaId, Role, RoleId, To, ToProposer,
};

use super::World;
use super::happening::Happening;
use crate::sights::Sight;
use crate::trap::TrapKind;

/// Between two looks at the cluster, at the most.
const LOOK_MAX: Duration = Duration::from_millis(400);

impl World {
    pub(super) fn operate(&mut self) {
        let Some(trap) = self.plan.trap else { return };
        let at = self.now + Duration::from_millis(50) + self.rng.up_to(LOOK_MAX);
        self.schedule(at, Happening::Operate);
        let halted: Vec<_> = self.replicas().filter_map(halted_at).collect();
        let Some((_, command, formation)) = halted.first().copied() else {
            return self.restart_once_skipped(trap.kind);
        };
        let is_all = halted.len() == usize::from(self.plan.cluster.replicas)
            && halted.iter().all(|(_, other, _)| *other == command);
        match trap.kind {
            TrapKind::Everywhere | TrapKind::OnSome => self.want_skipped(command, formation),
            TrapKind::Once if is_all && self.is_healed => self.want_skipped(command, formation),
            TrapKind::Once if is_all => {} // something may befall them while it is skipped
            TrapKind::Once => {
                for (id, ..) in halted {
                    self.note(|| format!("{id} is restarted by the operator"));
                    self.crash(id, Duration::from_millis(1));
                }
            }
        }
    }

    /// Tells all proposers that `command` is to be skipped.
    fn want_skipped(&mut self, command: LoggedCommand, formation: Option<FormationId>) {
        self.note(|| format!("the operator wants {command} skipped"));
        self.witness.see(Sight::SkipWanted);
        for proposer in self.plan.cluster.all_proposers() {
            let to = To::Proposer(proposer, ToProposer::Skip(command));
            let from = RoleId::Proposer(proposer);
            let at = self.now + self.rng.up_to(Duration::from_millis(5));
            self.schedule(at, Happening::Deliver(from, Envelope { formation, to }));
        }
    }

    /// Restarts all replicas once after a command was skipped: what is replayed must not be
    /// executed, although the machine would not panic any more.
    fn restart_once_skipped(&mut self, kind: TrapKind) {
        if kind == TrapKind::Once && self.has_skipped && self.is_healed {
            self.has_skipped = false;
            let replicas: Vec<RoleId> =
                self.replicas().map(|replica| RoleId::Replica(replica.id())).collect();
            for id in replicas {
                self.note(|| format!("{id} is restarted by the operator"));
                self.crash(id, Duration::from_millis(1));
            }
        }
    }

    /// Takes in that a replica begins another life, in which it skips a command.
    pub(super) fn on_skips(&mut self, id: RoleId) {
        self.witness.see(Sight::CommandSkipped);
        self.has_skipped = true;
        let is_right = self.plan.trap.is_some_and(|trap| trap.kind != TrapKind::OnSome);
        assert!(is_right, "{id} skips a command that others have executed");
    }

    /// Whether a replica has halted for good, as it may where others have not.
    pub(super) fn may_stay_halted(&self, id: RoleId) -> bool {
        let is_on_some = self.plan.trap.is_some_and(|trap| trap.kind == TrapKind::OnSome);
        let role = self.processes.get(&id).and_then(|process| process.role.as_ref());
        is_on_some && matches!(role, Some(Role::Replica(replica)) if replica.halted().is_some())
    }
}

impl World {
    /// Whether so many replicas have halted for good that no f+1 are left. Clients that share a
    /// session with others are told that of each command, and go on to the next; those with
    /// sessions of their own wait, for the next is not executed before that.
    pub(super) fn may_stay_unserved(&self) -> bool {
        let ids =
            (0..self.plan.cluster.replicas).map(|replica| RoleId::Replica(ReplicaId(replica)));
        let left = ids.filter(|id| !self.may_stay_halted(*id)).count();
        left <= usize::from(self.plan.cluster.f)
    }
}

fn halted_at(
    replica: &loggos_protocol::Replica<crate::recorder::Recorder>,
) -> Option<(RoleId, LoggedCommand, Option<FormationId>)> {
    match replica.halted() {
        Some(Halt::Panicked { command, .. }) => {
            Some((RoleId::Replica(replica.id()), *command, replica.formation()))
        }
        _ => None,
    }
}
