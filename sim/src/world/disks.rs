//! The disks of durable acceptors: their work, in its own time.

use std::time::Duration;

use loggos_protocol::{Incarnation, Role, RoleId, To};

use super::World;
use super::happening::Happening;
use crate::sights::Sight;
use crate::store::{Done, Work};

impl World {
    /// Has a disk do a piece of work. Its log goes on where the acceptor is to start over.
    pub(super) fn disk(&mut self, id: RoleId, incarnation: Incarnation, work: Work) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let store = self.stores.get_mut(&id).expect("disk work is done on a disk");
        if incarnation != process.incarnation || !store.is_running() {
            return;
        }
        if process.paused_until.is_some() {
            return process.backlog.push(Happening::Disk(id, incarnation, work));
        }
        let (done, next) = store.work(work);
        if matches!(done, Done::Failed) {
            return self.stop(id);
        }
        let mut next = Some(next);
        for sharer in self.sharers(id) {
            let is_up = self.tell_done(sharer, &done);
            next.take().into_iter().for_each(|work| self.schedule_work(id, work));
            match is_up {
                true => self.settle(sharer, matches!(done, Done::Synced(..))),
                false => self.start_over(sharer),
            }
        }
    }

    /// Tells an acceptor what its disk has done, if it is up; returns whether it is.
    fn tell_done(&mut self, id: RoleId, done: &Done) -> bool {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(Role::Acceptor(role)) = &mut process.role else { return false };
        match done {
            Done::Failed | Done::Nothing => {}
            Done::Synced(released, recorded) => {
                recorded.get(&role.id()).into_iter().for_each(|it| role.on_durable(*it));
                let own = released.iter().filter(|(from, _)| *from == role.id());
                let released: Vec<To> = own.map(|(_, envelope)| envelope.to.clone()).collect();
                self.checker.on_released(&released);
                self.out.sends.extend(released);
            }
            Done::Read(recalled) => {
                if recalled.recall.acceptor == role.id() {
                    self.witness.see(Sight::Recalled);
                    role.on_recalled(recalled, process.clock.show(self.now), &mut self.out);
                }
            }
        }
        true
    }

    /// Has a disk do its work, in its own time.
    pub(super) fn schedule_work(&mut self, id: RoleId, work: Vec<Work>) {
        let Some(incarnation) = self.processes.get(&id).map(|process| process.incarnation) else {
            return;
        };
        let disks = self.plan.faults.disks.clone().filter(|_| !self.outsiders.is_hung(id));
        let Some(disks) = disks else { return };
        let sync_max = self.plan.faults.sync_max;
        for work in work {
            let mut most = match work {
                Work::Write => sync_max / 2,
                Work::Sync | Work::Read(_) => sync_max,
                Work::Create(_) => 4 * sync_max,
                Work::Mark | Work::TryAgain => Duration::from_millis(200),
            };
            if !self.is_healed && self.rng.below(100) < disks.slow_percent {
                most = most.max(disks.slow_max);
            }
            let least = match work {
                Work::Sync if self.slow_disks.contains(&id) => disks.healed_sync,
                Work::Sync
                | Work::Write
                | Work::Create(_)
                | Work::Read(_)
                | Work::Mark
                | Work::TryAgain => Duration::ZERO,
            };
            let hung_until = self.hung_until.get(&id).copied().unwrap_or(self.now);
            let at = hung_until.max(self.now + least + self.rng.up_to(most));
            self.schedule(at, Happening::Disk(id, incarnation, work));
        }
    }

    /// Notes how much room a log has.
    pub(super) fn watch_room(&mut self, id: RoleId) {
        let Some(store) = self.stores.get(&id) else { return };
        match store.is_low_or_full() {
            (_, true) => self.witness.see(Sight::LogFull),
            (true, false) => self.witness.see(Sight::LogLow),
            (false, false) if self.were_low.remove(&id) => self.witness.see(Sight::LogRoomy),
            (false, false) => return,
        }
        if store.is_low_or_full().0 {
            self.were_low.insert(id);
        }
    }
}
