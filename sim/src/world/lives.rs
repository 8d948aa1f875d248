//! Lives of roles: how they start, stand still, end and start over, and what the cluster can do
//! without.

use std::time::Duration;

use loggos_protocol::{
    Acceptor, AcceptorId, Ballot, Incarnation, Life, ProposerId, ProxyLeaderId, Replica, Role,
    RoleId, Slot, Time, Watermark,
};
use loggos_storage::StorageError;
use loggos_storage::sim::Fault;

use super::happening::Happening;
use super::process::Process;
use super::{EVIDENCE_MAX, World};
use crate::clock::Clock;
use crate::recorder::Recorder;
use crate::sights::Sight;
use crate::store::Store;

impl World {
    /// Starts a process, with all the roles that share it.
    pub(super) fn start(&mut self, id: RoleId) {
        let sharers = self.sharers(id);
        sharers.iter().for_each(|sharer| self.start_role(*sharer));
        if sharers.iter().any(|sharer| !self.is_up(*sharer)) {
            // The log that they share is not to be used, or not just now.
            for sharer in sharers {
                self.processes.get_mut(&sharer).expect("every role has a process").role = None;
            }
        }
    }

    fn start_role(&mut self, id: RoleId) {
        let cluster = self.plan.cluster.clone();
        let incarnation = Incarnation(self.rng.next_u64());
        let seed = self.rng.next_u64();
        let life = Life { incarnation, seed };
        let clock = self.draw_clock();
        let shown = clock.show(self.now);
        let role = match id {
            RoleId::Acceptor(acceptor) if !self.stores.is_empty() => {
                self.restore(id, acceptor, seed, shown)
            }
            RoleId::Replica(replica) if !self.replica_stores.is_empty() => {
                self.start_replica(id, replica, incarnation)
            }
            RoleId::Gateway(_)
            | RoleId::Proposer(_)
            | RoleId::ProxyLeader(_)
            | RoleId::Acceptor(_)
            | RoleId::Replica(_) => {
                Some(Role::start(cluster, id, life, shown, |_| Recorder::default()))
            }
        };
        let process = Process {
            role,
            incarnation,
            clock,
            backlog: Vec::new(),
            paused_until: None,
            wake_at: None,
            releases: 0,
        };
        let before = self.processes.insert(id, process);
        if before.is_some() {
            self.note(|| format!("{id} starts over"));
            self.witness.see(Sight::Restarted);
        }
        if let (RoleId::Gateway(gateway), Some(_)) = (id, before) {
            self.load.start_life(gateway, self.now);
        }
        self.wake(id, Some(self.now));
        self.begin_replica(id);
    }

    /// A durable acceptor with what is on its disk; `None` if it cannot come back now, or ever.
    fn restore(
        &mut self,
        id: RoleId,
        acceptor: AcceptorId,
        seed: u64,
        shown: Time,
    ) -> Option<Role<Recorder>> {
        let cluster = self.plan.cluster.clone();
        let host = self.host(id);
        if host != id && !self.is_up(host) {
            return None;
        }
        let store = self.stores.get_mut(&host).expect("it is durable");
        if !self.is_healed && self.rng.below(20) == 0 {
            store.order(self.rng.below(30), Fault::Crash);
        }
        match store.start(cluster, acceptor, seed) {
            Ok((restored, votes)) => {
                let restored = self.restored(restored, &votes, shown);
                if self.processes.contains_key(&id) {
                    self.witness.see(Sight::CameBack);
                }
                if self.damaged.contains(&host) {
                    self.witness.see(Sight::DamageDropped);
                }
                Some(restored)
            }
            Err(StorageError::Disk { .. }) => {
                self.witness.see(Sight::RecoveryCut);
                store.crash(self.rng.below(2) == 0);
                self.schedule(self.now + Duration::from_millis(10), Happening::Restart(host));
                None
            }
            Err(error) => {
                assert!(self.damaged.contains(&host), "{id} cannot come back: {error}");
                self.witness.see(Sight::DiskRefused);
                self.refused.extend(self.sharers(id));
                None
            }
        }
    }

    /// A clock that is set as wrong, and runs as wrong, as the plan has it.
    fn draw_clock(&mut self) -> Clock {
        let (skew_max, drift) =
            (self.plan.faults.clock_skew_max, self.plan.faults.clock_drift_parts);
        // A life's clock is later than all before it showed, or not: nothing follows from it.
        let shown = self.now - skew_max + self.rng.up_to(2 * skew_max);
        let fast_parts = self.rng.below(2 * drift + 1).cast_signed() - drift.cast_signed();
        if !skew_max.is_zero() {
            self.witness.see(Sight::ClockSkewed);
        }
        Clock::new(self.now, shown, fast_parts)
    }

    /// Takes in that an acceptor has come back with what is on its disk.
    fn restored(
        &self,
        mut acceptor: Acceptor,
        votes: &[(Slot, Ballot)],
        shown: Time,
    ) -> Role<Recorder> {
        acceptor.on_start(shown);
        self.checker.on_restored(&acceptor, votes);
        Role::Acceptor(Box::new(acceptor))
    }

    /// Ends the life of a durable acceptor, in a process that goes on, and has it start over.
    pub(super) fn end_life(&mut self, id: RoleId) {
        let RoleId::Acceptor(acceptor) = id else { return };
        let host = self.host(id);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let Some(store) = self.stores.get_mut(&host) else { return };
        if process.role.is_none() || process.paused_until.is_some() {
            return;
        }
        process.role = None;
        self.witness.see(match store.is_holding() {
            true => Sight::StartedOverUnsynced,
            false => Sight::StartedOver,
        });
        store.end_life(acceptor);
        self.note(|| format!("{id} is to start over, in its process"));
        self.start_over(id);
    }

    /// Starts an acceptor over whose process goes on, if what its former life has left is settled.
    pub(super) fn start_over(&mut self, id: RoleId) {
        let RoleId::Acceptor(acceptor) = id else { return };
        let (cluster, seed) = (self.plan.cluster.clone(), self.rng.next_u64());
        let host = self.host(id);
        let store = self.stores.get_mut(&host).expect("it is durable");
        match store.restart(cluster, acceptor, seed) {
            Ok(Some((restored, votes))) => {
                self.note(|| format!("{id} starts over"));
                let shown = self.processes.get(&id).map(|process| process.clock.show(self.now));
                let restored = self.restored(restored, &votes, shown.unwrap_or(self.now));
                self.processes.get_mut(&id).expect("every role has a process").role =
                    Some(restored);
            }
            Ok(None) if self.is_failed(id) => self.stop(id),
            Ok(None) => {} // a sync is under way, or will be
            Err(_) => self.stop(id),
        }
    }

    pub(super) fn pause(&mut self, id: RoleId, down: Duration) {
        let until = self.now + down;
        for id in self.sharers(id) {
            let process = self.processes.get_mut(&id).expect("every role has a process");
            if process.role.is_some() && process.paused_until.is_none() {
                let sight = if process.leads() { Sight::LeaderPaused } else { Sight::Paused };
                self.witness.see(sight);
                process.paused_until = Some(until);
                self.note(|| format!("{id} stands still for {down:?}"));
                self.schedule(until, Happening::Resume(id));
            }
        }
    }

    pub(super) fn resume(&mut self, id: RoleId) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        if process.paused_until.take().is_none() {
            return;
        }
        for what in std::mem::take(&mut process.backlog) {
            if let Happening::Disk(_, incarnation, work) = what {
                self.disk(id, incarnation, work);
            } else if let Happening::Snapshot(_, incarnation) = what {
                self.snapshot(id, incarnation);
            } else {
                self.step(id, what);
            }
        }
        self.wake(id, Some(self.now));
    }

    /// Ends a process, and its memory, if the cluster can do without.
    pub(super) fn crash(&mut self, id: RoleId, down: Duration) {
        if !self.is_running(id) {
            return;
        }
        let is_durable = !self.stores.is_empty();
        // Once all has healed, a disk may still fail that was ordered to before: its acceptor comes
        // back.
        let is_for_good = self.plan.faults.is_for_good && !self.is_healed;
        let is_wiped = matches!(id, RoleId::Replica(_)) && self.draws_wipe();
        let is_loss = !is_durable || is_wiped || is_for_good && self.rng.below(4) == 0;
        let may_wipe = is_wiped && self.may_lose(id);
        match id {
            RoleId::Acceptor(_) | RoleId::Replica(_) if is_loss => {
                if self.may_lose(id) {
                    self.lose(id);
                } else if !is_durable {
                    return;
                }
            }
            RoleId::Acceptor(_)
            | RoleId::Replica(_)
            | RoleId::Gateway(_)
            | RoleId::Proposer(_)
            | RoleId::ProxyLeader(_) => {}
        }
        let mut ids = self.sharers(id);
        if let (RoleId::Proposer(ProposerId(p)), 0) = (id, self.plan.cluster.proxy_leaders) {
            ids.push(RoleId::ProxyLeader(ProxyLeaderId(p))); // lives with it
        }
        for id in ids {
            self.note(|| format!("{id} crashes"));
            let process = self.processes.get_mut(&id).expect("every role has a process");
            let is_holding = self.stores.get(&id).is_some_and(Store::is_holding);
            self.witness.on_crash(id, process.leads(), process.releases > 0 || is_holding);
            process.role = None;
            process.releases = 0;
            process.backlog.clear();
            process.paused_until = None;
            self.crash_disk(id);
            self.crash_snapshots(id, may_wipe);
            if self.host(id) == id {
                self.schedule(self.now + down, Happening::Restart(id));
            }
            self.tell_gone(id);
        }
    }

    /// Has some of the other roles told that the life of `gone` has ended, each at its own time.
    pub(super) fn tell_gone(&mut self, gone: RoleId) {
        let ids: Vec<RoleId> = self.processes.keys().copied().filter(|id| *id != gone).collect();
        let percent = self.rng.below(4) * 33;
        for id in ids {
            if self.rng.below(100) < percent {
                let at = self.now + self.rng.up_to(EVIDENCE_MAX);
                self.schedule(at, Happening::Gone(id, gone));
            }
        }
    }

    /// What becomes of a disk when its process ends.
    fn crash_disk(&mut self, id: RoleId) {
        let (Some(store), Some(disks)) = (self.stores.get_mut(&id), &self.plan.faults.disks) else {
            return;
        };
        let is_writing = store.is_writing();
        let loses_power = self.rng.below(100) < disks.power_percent;
        store.crash(loses_power);
        if loses_power {
            self.witness.see(if is_writing { Sight::TornWrite } else { Sight::PowerLost });
        }
        let is_damaged = !self.is_healed && self.rng.below(100) < disks.damage_percent;
        if is_damaged
            && self.may_lose(id)
            && self.stores.get_mut(&id).is_some_and(|store| store.damage(&mut self.rng))
        {
            self.note(|| format!("the disk of {id} is damaged"));
            self.damaged.push(id);
            self.lose(id);
        }
    }

    /// Crashes a durable acceptor whose disk has failed, or taken it down; it may start again
    /// later.
    pub(super) fn stop(&mut self, id: RoleId) {
        self.witness.see(Sight::DiskFailed);
        let down = self.rng.up_to(self.plan.faults.down_max) + Duration::from_millis(1);
        self.crash(id, down);
    }

    /// Whether the cluster claims to survive the loss of this one too. An acceptor or replica in
    /// memory is lost for good; f of each, and f + 1 replicas must be left that are not too far
    /// behind.
    pub(super) fn may_lose(&self, id: RoleId) -> bool {
        let f = usize::from(self.plan.cluster.f);
        let lost_alike =
            |is_alike: fn(&RoleId) -> bool| self.lost.iter().filter(|r| is_alike(r)).count();
        match id {
            // A write quorum more, where that is allowed: what was chosen is still with the
            // replicas.
            RoleId::Acceptor(_) => {
                let most = if self.plan.faults.is_reckless { usize::MAX } else { f };
                lost_alike(|r| matches!(r, RoleId::Acceptor(_))) + self.sharers(id).len() <= most
            }
            // Those whose machine panics at what the others execute are lost as it is.
            RoleId::Replica(_) if self.plan.has_trap_on_some() => false,
            RoleId::Replica(_) => {
                let lost = lost_alike(|r| matches!(r, RoleId::Replica(_)));
                lost < f && usize::from(self.plan.cluster.replicas) - lost > f + 1
            }
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => true,
        }
    }

    /// Whether a crashed process never comes back, which the cluster must do without.
    pub(super) fn stays_down(&self, id: RoleId) -> bool {
        let is_gone = self.plan.faults.is_for_good && !self.damaged.contains(&id);
        let is_lost = is_gone && self.lost.contains(&id) && !self.set_back.contains(&id);
        is_lost || self.refused.contains(&id) || self.outsiders.is_dead(id)
    }

    pub(super) fn lose(&mut self, id: RoleId) {
        if self.lost.contains(&id) {
            return;
        }
        self.lost.extend(self.sharers(id));
        let lost = self.lost.iter().filter(|r| matches!(r, RoleId::Replica(_))).count();
        let left = usize::from(self.plan.cluster.replicas) - lost;
        let f = usize::from(self.plan.cluster.f);
        let acceptors = self.lost.iter().filter(|r| matches!(r, RoleId::Acceptor(_))).count();
        if acceptors > f {
            self.witness.see(Sight::BeyondF);
        }
        if !self.has_formed || left <= f || acceptors > f {
            self.is_safety_only = true;
        }
        // What acceptors forget, f + 1 replicas have (R16): at most f of those may be missing.
        assert!(lost <= f, "no replica has what was forgotten:\n{}", self.describe());
    }

    /// Whether a replica that has lost its memory has executed as much again as each of the others:
    /// whatever acceptors have forgotten, it has. If it is durable, in a snapshot, and no acceptor
    /// counts on what its lost directory had.
    pub(super) fn has_all_back(&self, id: RoleId) -> bool {
        let RoleId::Replica(id) = id else { return false };
        let executed = |replica: &Replica<Recorder>| replica.executed();
        let Some(ours) = self.replicas().find(|replica| replica.id() == id) else { return false };
        let has_executed = ours.executed() > Watermark(0)
            && self.replicas().map(executed).max() <= Some(ours.executed());
        let is_durable = !self.replica_stores.is_empty();
        has_executed
            && (!is_durable || ours.snapshot() >= self.truncated && self.is_known_everywhere(ours))
    }

    pub(super) fn is_up(&self, id: RoleId) -> bool {
        self.processes.get(&id).is_some_and(|process| process.role.is_some())
    }

    /// Whether its process runs: its role may be about to start over there.
    pub(super) fn is_running(&self, id: RoleId) -> bool {
        self.is_up(id) || self.stores.get(&self.host(id)).is_some_and(Store::is_running)
    }

    /// Whether its log takes nothing in any more.
    pub(super) fn is_failed(&self, id: RoleId) -> bool {
        self.stores.get(&self.host(id)).is_some_and(|store| store.poisoned().is_some())
    }
}
