//! Faults: the adversary draws blows, and the world strikes them.

use std::collections::BTreeMap;
use std::time::Duration;

use loggos_protocol::{AcceptorSet, RoleId, Time};

use super::World;
use super::happening::Happening;
use super::process::Process;
use crate::adversary::{Adversary, Blow, Part, View};
use crate::sights::Sight;
use crate::swarm::Plan;

impl World {
    /// Crashes or pauses a process or a quorum, sets a clock ahead, moves the partition, and draws
    /// when to do so again.
    pub(super) fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        for sight in self.network.change(&ids, self.now, &mut self.rng) {
            self.note(|| sight.to_string());
            self.witness.see(sight);
        }
        let view = look(&self.plan, &self.processes, &ids, self.now);
        let adversary = Adversary::draw(&view, &mut self.rng);
        for part in Part::ALL {
            let view = look(&self.plan, &self.processes, &ids, self.now);
            if let Some(blow) = adversary.blow(part, &view, &mut self.rng) {
                self.strike(blow);
            }
        }
        let next = self.now + self.rng.up_to(2 * self.plan.faults.every);
        self.schedule(next.max(self.now + Duration::from_millis(1)), Happening::Fault);
    }

    fn strike(&mut self, blow: Blow) {
        match blow {
            Blow::FailDisk { acceptor, after, fault } => {
                if self.is_up(acceptor) {
                    let host = self.host(acceptor);
                    let store =
                        self.stores.get_mut(&host).expect("only a durable acceptor has a disk");
                    store.order(after, fault);
                }
            }
            Blow::FailSnapshots { replica, after, fault } => {
                if let Some(store) = self.replica_stores.get_mut(&replica) {
                    store.order(after, fault);
                }
            }
            Blow::HangDisk { acceptor, until } => {
                self.note(|| format!("the disk of {acceptor} hangs until {until}"));
                self.witness.see(Sight::DiskHung);
                self.hung_until.insert(self.host(acceptor), until);
            }
            Blow::EndLife(acceptor) => self.end_life(acceptor),
            Blow::Blackout { down } => {
                self.witness.see(Sight::Blackout);
                let ids: Vec<RoleId> = self.processes.keys().copied().collect();
                ids.into_iter().for_each(|id| self.crash(id, down));
            }
            Blow::Quorum { quorum, is_write, down } => self.strike_quorum(quorum, is_write, down),
            Blow::Crash { id, down } => self.crash(id, down),
            Blow::Pause { id, down } => self.pause(id, down),
            Blow::SetClockAhead { id, by } => self.set_clock_ahead(id, by),
            Blow::SayGone(id) => {
                if self.is_up(id) {
                    self.witness.see(Sight::FalselyGone);
                    self.tell_gone(id);
                }
            }
        }
    }

    /// Pauses a whole quorum; where the plan is reckless, crashes a write quorum.
    fn strike_quorum(&mut self, quorum: AcceptorSet, is_write: bool, down: Duration) {
        let sight = if is_write { Sight::WriteQuorumPaused } else { Sight::ReadQuorumPaused };
        for acceptor in quorum.iter().map(RoleId::Acceptor) {
            if is_write && self.plan.faults.is_reckless {
                self.crash(acceptor, down);
            } else {
                self.witness.see(sight);
                self.pause(acceptor, down);
            }
        }
    }

    fn set_clock_ahead(&mut self, id: RoleId, by: Duration) {
        if by.is_zero() {
            return;
        }
        self.note(|| format!("the clock of {id} jumps ahead by {by:?}"));
        self.witness.see(Sight::ClockJumped);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        process.clock.jump(self.now, by);
        if process.role.is_some() {
            self.wake(id, Some(self.now));
        }
    }
}

/// What the adversary sees.
pub(super) fn look<'a>(
    plan: &'a Plan,
    processes: &BTreeMap<RoleId, Process>,
    ids: &'a [RoleId],
    now: Time,
) -> View<'a> {
    let leads = |id: &&RoleId| processes.get(id).is_some_and(Process::leads);
    let leader = ids.iter().find(leads).copied();
    View { faults: &plan.faults, quorums: plan.cluster.quorums, ids, leader, now }
}
