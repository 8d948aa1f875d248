//! The end of all faults, and what is left outside for good.

use std::collections::BTreeSet;

use loggos_protocol::{ProposerId, ProxyLeaderId, RoleId};

use super::World;
use super::blows::look;
use crate::network::{KINDS, kind};
use crate::outsiders::Condition;

impl World {
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.network.heal();
        let ids: Vec<RoleId> = self.processes.keys().copied().collect();
        if self.plan.has_outsiders && self.has_formed {
            self.draw_outsiders(&ids);
        }
        self.load.heal(self.now);
        self.hung_until.clear();
        self.stores.values_mut().for_each(|store| store.set_capacity(None));
        self.slow_disks = self.draw_slow_disks();
        for id in ids {
            if self.host(id) == id && !self.is_running(id) && !self.stays_down(id) {
                self.start(id);
            }
            self.resume(id);
        }
        self.is_safety_only |= !self.has_formed && !self.lost.is_empty();
    }

    /// Draws the acceptors whose syncs take long, until all clients are served: all, or f.
    fn draw_slow_disks(&mut self) -> BTreeSet<RoleId> {
        let Some(disks) = self.plan.faults.disks.as_ref() else { return BTreeSet::new() };
        if disks.healed_sync.is_zero() {
            return BTreeSet::new();
        }
        let mut slow: Vec<RoleId> = self.stores.keys().copied().collect();
        let count = if disks.are_all_slow { slow.len() } else { self.plan.cluster.f.into() };
        while slow.len() > count {
            let any = usize::try_from(self.rng.below(slow.len() as u64)).unwrap_or(0);
            slow.swap_remove(any);
        }
        slow.into_iter().collect()
    }

    /// Draws the roles that stay outside for good: of each role f, counting what is lost already,
    /// and in such a way that the cluster claims to survive it. The leader is drawn more often than
    /// others.
    fn draw_outsiders(&mut self, ids: &[RoleId]) {
        let f = usize::from(self.plan.cluster.f);
        let has_own_proxy_leaders = self.plan.cluster.proxy_leaders > 0;
        for drawn in 0..usize::try_from(KINDS).unwrap_or(0) {
            let is_alike = |id: &&RoleId| kind(**id) == drawn;
            let out = self.lost.iter().chain(&self.refused).filter(is_alike).count();
            let alike: Vec<RoleId> = ids.iter().filter(is_alike).copied().collect();
            let room = match alike.first() {
                Some(RoleId::Gateway(_) | RoleId::Proposer(_)) => f.min(alike.len() - 1),
                Some(RoleId::ProxyLeader(_)) if !has_own_proxy_leaders => 0,
                Some(RoleId::ProxyLeader(_)) => f.min(alike.len() - 1),
                Some(acceptor @ RoleId::Acceptor(_)) if self.sharers(*acceptor).len() > 1 => 0,
                Some(RoleId::Acceptor(_)) => f.saturating_sub(out),
                // f + 1 have to be left, and what they have in memory.
                Some(RoleId::Replica(_)) => f.min(alike.len() - (f + 1)).saturating_sub(out),
                None => 0,
            };
            for _ in 0..self.rng.below(room as u64 + 1) {
                let view = look(&self.plan, &self.processes, ids, self.now);
                let victim = view.draw_of(drawn, &mut self.rng);
                let leader = view.leader.filter(|leader| alike.contains(leader));
                let victim = leader.filter(|_| self.rng.below(2) == 0).unwrap_or(victim);
                let is_out = self.lost.contains(&victim) || self.refused.contains(&victim);
                if is_out || self.outsiders.contains(victim) {
                    continue;
                }
                self.put_outside(victim, ids);
                if let (RoleId::Proposer(ProposerId(p)), false) = (victim, has_own_proxy_leaders) {
                    let with_it = RoleId::ProxyLeader(ProxyLeaderId(p));
                    self.outsiders.add_with(with_it, victim);
                    self.end_if_dead(with_it);
                }
            }
        }
    }

    fn put_outside(&mut self, id: RoleId, ids: &[RoleId]) {
        let has_disk = self.stores.contains_key(&id);
        let condition = Condition::draw(has_disk, &mut self.rng);
        self.outsiders.add(id, condition, ids, &mut self.rng);
        self.note(|| format!("{id} stays outside: {condition:?}"));
        self.witness.see(condition.sight(id));
        self.end_if_dead(id);
    }

    fn end_if_dead(&mut self, id: RoleId) {
        if self.outsiders.is_dead(id)
            && let Some(process) = self.processes.get_mut(&id)
        {
            process.role = None;
            process.releases = 0;
            process.backlog.clear();
            self.stores.get_mut(&id).into_iter().for_each(|store| store.crash(false));
            self.replica_stores.get_mut(&id).into_iter().for_each(|store| store.crash(false));
        }
    }
}
