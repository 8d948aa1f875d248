//! The end of a run: when it is reached, what must hold there, and what to say if it is not.

use loggos_protocol::{Replica, Role, RoleId};

use super::World;
use crate::load::NO_GATEWAY;
use crate::recorder::Recorder;

impl World {
    pub(super) fn is_finished(&self) -> bool {
        let is_core = |id: RoleId| !self.outsiders.contains(id) && !self.may_stay_halted(id);
        let counts = |gateway| match gateway == NO_GATEWAY {
            true => !self.may_stay_unserved(),
            false => is_core(RoleId::Gateway(gateway)),
        };
        if !self.is_healed || !self.load.is_done(counts) {
            return false;
        }
        let core = self.replicas().filter(|replica| is_core(RoleId::Replica(replica.id())));
        let mut executed = core.map(Replica::executed);
        let first = executed.next();
        executed.all(|other| Some(other) == first) && self.has_replayed()
    }

    /// Whether some replica has executed all that was ever acknowledged: after all processes were
    /// stopped, all of them being equal says little.
    fn has_replayed(&self) -> bool {
        // While a state is restored, the machine is in that of no slot.
        let whole = self.replicas().filter(|replica| !replica.is_restoring());
        let executed = whole.map(|replica| replica.machine().executed.len() as u64).max();
        self.load.acknowledged.iter().all(|it| Some(it.position) < executed)
    }

    pub(super) fn check_end(&self) {
        let furthest = self.replicas().max_by_key(|replica| replica.executed());
        let nothing = Recorder::default();
        let recorder = furthest.map_or(&nothing, Replica::machine);
        let mut acknowledged = &self.load.acknowledged[..];
        let mut unanswerable = &self.load.unanswerable[..];
        let known;
        if self.is_safety_only && !self.stores.is_empty() {
            // Replicas may not have come as far again as they were: what they lack is on disks.
            let executed = recorder.executed.len() as u64;
            known = acknowledged
                .iter()
                .filter(|it| it.position < executed)
                .copied()
                .collect::<Vec<_>>();
            acknowledged = &known;
            unanswerable = &[];
        }
        if furthest.is_some() || !self.is_safety_only {
            self.checker.at_end(recorder, acknowledged, unanswerable);
            self.load.check_reads(recorder);
        }
    }

    /// Checks that slots are not wasted: one for each batch, and after an election another for each
    /// that was in flight, and for what phase 1 has found. A gap that is answered by sending all
    /// behind it again, which makes gaps, costs many times that.
    pub(super) fn check_slots(&self) {
        let cluster = &self.plan.cluster;
        let in_flight = u64::from(cluster.gateways) * u64::from(cluster.batches_in_flight_max);
        let an_election = 2 * in_flight + u64::from(cluster.slot_window);
        let executed = self.load.acknowledged.len() + self.load.unanswerable.len();
        let commands = executed as u64 + self.load.unknown + self.load.copies;
        let most = 2 * commands + an_election * (self.elections + 1);
        let slots = self.replicas().map(|replica| replica.executed().0).max().unwrap_or(0);
        let slots = slots - self.plan.origin.map_or(0, |start| start.0.min(slots));
        assert!(slots <= most, "{slots} slots for {commands} commands:\n{}", self.describe());
    }

    /// The state of every role, for the message of a failure.
    pub(super) fn describe(&self) -> String {
        let mut lines = vec![self.load.waiting(), format!("lost: {:?}", self.lost)];
        for process in self.processes.values() {
            lines.push(match &process.role {
                Some(Role::Proposer(p)) => {
                    format!(
                        "{:?} {:?} next {:?} {:?}",
                        p.id(),
                        p.ballot(),
                        p.next_slot(),
                        p.counters()
                    )
                }
                Some(Role::ProxyLeader(p)) => {
                    format!("{:?} {:?} {:?}", p.id(), p.suspects(), p.counters())
                }
                Some(Role::Acceptor(a)) => {
                    format!("{:?} {} {} {:?}", a.id(), a.promised(), a.truncated(), a.counters())
                }
                Some(Role::Replica(r)) => {
                    format!("{:?} {} {:?} {:?}", r.id(), r.executed(), r.halted(), r.counters())
                }
                Some(Role::Gateway(g)) => {
                    format!("{:?} {:?} {:?}", g.id(), g.session(), g.counters())
                }
                None => "down".to_owned(),
            });
        }
        lines.join("\n")
    }
}
