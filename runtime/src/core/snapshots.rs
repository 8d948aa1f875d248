//! The durable replicas of a core, and the thread that writes and reads their snapshots.

use loggos_protocol::{Role, RoleId, StateMachine, Time};

use super::Core;
use crate::snapshots::Snapshots;

impl<M: StateMachine> Core<M> {
    /// Takes in what was done with snapshots; returns whether there was anything.
    ///
    /// source: R16
    pub(super) fn poll_snapshots(&mut self, now: Time) -> bool {
        let has_answers = self.snapshots.as_ref().is_some_and(Snapshots::has_answered);
        while let Some((replica, done)) = self.snapshots.as_mut().and_then(Snapshots::next) {
            let Some(index) = self.seat_of(RoleId::Replica(replica)) else { continue };
            if let Some(Role::Replica(replica)) = &mut self.seats[index].role {
                replica.on_snapshot_done(done, now, &mut self.out);
                self.post(index);
            }
        }
        let is_over = std::mem::take(&mut self.has_replica_to_start_over);
        if is_over {
            self.restart_halted(now);
        }
        if has_answers {
            self.start_over(now);
        }
        has_answers | is_over
    }

    /// Hands the orders of the role in seat `index`, which has had its turn, to the thread.
    pub(super) fn order_snapshots(&mut self, index: usize) {
        if self.out.snapshots.is_empty() {
            return;
        }
        if let (Some(snapshots), RoleId::Replica(replica)) = (&self.snapshots, self.seats[index].id)
            && snapshots.has(replica)
        {
            snapshots.take(replica, &mut self.out.snapshots);
        }
        assert!(self.out.snapshots.is_empty(), "an order of a role without snapshots");
    }

    /// Starts replicas over that have halted, and whose next life goes on with what is in the
    /// directory.
    fn restart_halted(&mut self, now: Time) {
        for index in 0..self.seats.len() {
            if let Some(Role::Replica(replica)) = &self.seats[index].role
                && replica.is_to_start_over()
            {
                self.restart(self.seats[index].id, now);
            }
        }
    }
}
