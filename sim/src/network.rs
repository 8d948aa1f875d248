//! The network between roles: every message may be lost, copied, late, or cut off.

use std::collections::BTreeSet;
use std::time::Duration;

use loggos_protocol::{Rng, RoleId, Time};

/// What the network does.
#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) loss_percent: u64,
    pub(crate) copy_percent: u64,
    /// Percent of messages with a delay of up to `slow_max`: a heavy tail, hence reordering.
    pub(crate) slow_percent: u64,
    pub(crate) delay_max: Duration,
    pub(crate) slow_max: Duration,
    /// Percent of the faulty time that some partition is up.
    pub(crate) partition_percent: u64,
}

/// The network's state.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    is_healed: bool,
    partition: Option<Partition>,
    next_change_at: Time,
}

/// Who cannot reach whom.
#[derive(Debug)]
struct Partition {
    side: BTreeSet<RoleId>,
    /// Messages out of `side` are lost.
    cuts_out: bool,
    /// Messages into `side` are lost.
    cuts_in: bool,
    /// A role that both sides reach all the same.
    bridge: Option<RoleId>,
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan, faults_from: Time) -> Self {
        Self { plan, is_healed: false, partition: None, next_change_at: faults_from }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        (self.is_healed, self.partition) = (true, None);
    }

    /// When each copy of a message arrives: none if it is lost.
    pub(crate) fn arrivals(
        &self,
        from: RoleId,
        to: RoleId,
        now: Time,
        rng: &mut Rng,
    ) -> impl Iterator<Item = Time> + use<> {
        let plan = &self.plan;
        let hits = |rng: &mut Rng, percent: u64| !self.is_healed && rng.below(100) < percent;
        let is_lost = hits(rng, plan.loss_percent) || self.cuts(from, to);
        let copies = 1 + usize::from(hits(rng, plan.copy_percent));
        let mut arrivals = [None; 2];
        for arrival in arrivals.iter_mut().take(if is_lost { 0 } else { copies }) {
            let is_slow = hits(rng, plan.slow_percent);
            let delay = rng.up_to(if is_slow { plan.slow_max } else { plan.delay_max });
            *arrival = Some(now + delay);
        }
        arrivals.into_iter().flatten()
    }

    /// Puts a partition up or takes it down, when it is time.
    pub(crate) fn change(&mut self, roles: &[RoleId], now: Time, rng: &mut Rng) {
        if self.is_healed || now < self.next_change_at {
            return;
        }
        self.next_change_at = now + Duration::from_millis(50 + rng.below(900));
        self.partition = (rng.below(100) < self.plan.partition_percent).then(|| {
            let side = roles.iter().filter(|_| rng.below(2) == 0).copied().collect();
            let (cuts_out, cuts_in) = [(true, true), (true, false), (false, true)]
                [usize::try_from(rng.below(3)).unwrap_or(0)];
            let any = usize::try_from(rng.below(roles.len() as u64)).unwrap_or(0);
            let bridge = (rng.below(4) == 0).then(|| roles[any]);
            Partition { side, cuts_out, cuts_in, bridge }
        });
    }

    fn cuts(&self, from: RoleId, to: RoleId) -> bool {
        let Some(partition) = &self.partition else { return false };
        if partition.bridge == Some(from) || partition.bridge == Some(to) {
            return false;
        }
        match (partition.side.contains(&from), partition.side.contains(&to)) {
            (true, false) => partition.cuts_out,
            (false, true) => partition.cuts_in,
            (true, true) | (false, false) => false,
        }
    }
}
