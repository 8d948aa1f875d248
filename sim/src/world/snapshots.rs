//! The disks of durable replicas: their work, in its own time, and what is lost with them.

use std::time::Duration;

use loggos_protocol::{Incarnation, Replica, ReplicaId, Role, RoleId, SnapshotOrder};

use super::World;
use super::happening::Happening;
use crate::recorder::Recorder;
use crate::replica_store::{Outcome, ReplicaStore};
use crate::sights::Sight;

impl World {
    /// A durable replica with what is in its directory; `None` if that cannot be read just now.
    pub(super) fn start_replica(
        &mut self,
        id: RoleId,
        replica: ReplicaId,
        incarnation: Incarnation,
    ) -> Option<Role<Recorder>> {
        let store = self.replica_stores.get_mut(&id).expect("it is durable");
        match store.start() {
            Ok(found) => {
                let cluster = self.plan.cluster.clone();
                let machine = Recorder::with(self.traps[&id].clone());
                let replica = Replica::durable(cluster, replica, incarnation, machine, found);
                Some(Role::Replica(Box::new(replica)))
            }
            Err(error) => panic!("{id} cannot open its directory: {error}"),
        }
    }

    /// Lets a durable replica that was just started restore what is in its directory.
    pub(super) fn begin_replica(&mut self, id: RoleId) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let shown = process.clock.show(self.now);
        if let (true, Some(Role::Replica(replica))) =
            (self.replica_stores.contains_key(&id), &mut process.role)
        {
            replica.on_start(shown, &mut self.out);
            self.settle(id, false);
        }
    }

    /// Has a replica's disk do what comes next, in its own time.
    pub(super) fn schedule_snapshot(&mut self, id: RoleId) {
        let incarnation = self.processes.get(&id).map(|process| process.incarnation);
        let next = self.replica_stores.get(&id).and_then(ReplicaStore::next);
        let (Some(incarnation), Some(next)) = (incarnation, next) else { return };
        let most = match next {
            SnapshotOrder::Finish(_) => 4 * self.plan.faults.sync_max,
            SnapshotOrder::Begin { .. } | SnapshotOrder::Read { .. } | SnapshotOrder::Skip(_) => {
                self.plan.faults.sync_max
            }
            SnapshotOrder::Part { .. } => self.plan.faults.sync_max / 4,
            SnapshotOrder::Abandon(_) | SnapshotOrder::Remove(_) | SnapshotOrder::SetAside(_) => {
                Duration::ZERO
            }
        };
        let at = self.now + self.rng.up_to(most);
        self.schedule(at, Happening::Snapshot(id, incarnation));
    }

    /// Has a replica's disk do what comes next, and tells the replica.
    pub(super) fn snapshot(&mut self, id: RoleId, incarnation: Incarnation) {
        let process = self.processes.get_mut(&id).expect("every role has a process");
        if incarnation != process.incarnation || process.role.is_none() {
            return;
        }
        if process.paused_until.is_some() {
            return process.backlog.push(Happening::Snapshot(id, incarnation));
        }
        let store = self.replica_stores.get_mut(&id).expect("it is durable");
        let done = match store.work() {
            Outcome::Done(done) => done,
            Outcome::Failed(done) => {
                self.witness.see(Sight::DiskFailed);
                done
            }
            Outcome::Crashed => return self.stop(id),
        };
        self.schedule_snapshot(id);
        let process = self.processes.get_mut(&id).expect("every role has a process");
        let shown = process.clock.show(self.now);
        if let (Some(done), Some(Role::Replica(replica))) = (done, &mut process.role) {
            replica.on_snapshot_done(done, shown, &mut self.out);
            self.settle(id, false);
        }
    }

    /// Whether a crash of a replica is to wipe its directory.
    pub(super) fn draws_wipe(&mut self) -> bool {
        let percent = self.plan.faults.disks.as_ref().map_or(0, |disks| disks.wipe_percent);
        percent > 0 && !self.is_healed && self.rng.below(100) < percent
    }

    /// What becomes of a replica's disk when its process ends.
    pub(super) fn crash_snapshots(&mut self, id: RoleId, is_wiped: bool) {
        let RoleId::Replica(replica) = id else { return };
        let Some(disks) = self.plan.faults.disks.clone() else { return };
        let loses_power = self.rng.below(100) < disks.power_percent;
        let store = self.replica_stores.get_mut(&id).expect("it is durable");
        store.crash(loses_power);
        if is_wiped {
            *store = ReplicaStore::new(replica, &mut self.rng);
            self.note(|| format!("the directory of {id} is wiped"));
            self.witness.see(Sight::ReplicaWiped);
            self.set_back.insert(id);
            return;
        }
        let is_damaged = !self.is_healed && self.rng.below(100) < disks.damage_percent;
        if is_damaged
            && self.may_lose(id)
            && self.replica_stores.get_mut(&id).is_some_and(|store| store.damage(&mut self.rng))
        {
            self.note(|| format!("a snapshot of {id} is damaged"));
            self.set_back.insert(id);
            self.lose(id);
        }
    }

    /// Checks that f + 1 replicas hold what a durable acceptor has forgotten, those included that
    /// the cluster has lost since they said so.
    ///
    /// source: R16
    pub(super) fn check_truncated(&mut self, id: RoleId) {
        let Some(Role::Acceptor(acceptor)) = &self.processes[&id].role else { return };
        let truncated = acceptor.truncated();
        if self.stores.is_empty() || truncated <= self.truncated {
            return;
        }
        self.truncated = truncated;
        self.witness.see(Sight::TruncatedOnDisk);
        let holds = |(id, store): &(&RoleId, &ReplicaStore)| {
            store.holds(truncated) || self.lost.contains(id)
        };
        let count = self.replica_stores.iter().filter(holds).count();
        let is_enough = count > usize::from(self.plan.cluster.f);
        assert!(is_enough, "an acceptor forgets all below {truncated}: {count} hold snapshots");
    }

    /// Whether no acceptor that is up counts on an earlier life of `replica`.
    pub(super) fn is_known_everywhere(&self, replica: &Replica<Recorder>) -> bool {
        self.processes.values().all(|process| match &process.role {
            Some(Role::Acceptor(acceptor)) => {
                let counted = acceptor.counted_life(replica.id());
                counted.is_none_or(|life| life == replica.incarnation())
            }
            Some(
                Role::Gateway(_) | Role::Proposer(_) | Role::ProxyLeader(_) | Role::Replica(_),
            )
            | None => true,
        })
    }
}
