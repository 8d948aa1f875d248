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
enum Partition {
    /// Two groups.
    Sides {
        side: BTreeSet<RoleId>,
        /// Messages out of `side` are lost.
        cuts_out: bool,
        /// Messages into `side` are lost.
        cuts_in: bool,
        /// A role that both sides reach all the same.
        bridge: Option<RoleId>,
    },
    /// Single links, each one way: quorums are still to be had, but not everybody hears of everything, so
    /// leaders leave slots behind that some acceptors voted in.
    Links(BTreeSet<(RoleId, RoleId)>),
    /// All that one kind of role says to another. Where it is votes, decisions or reports, the log stands
    /// still over the same slots while leaders come and go.
    Kinds(usize, usize),
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
        self.partition =
            (rng.below(100) < self.plan.partition_percent).then(|| Partition::draw(roles, rng));
    }

    fn cuts(&self, from: RoleId, to: RoleId) -> bool {
        match &self.partition {
            None => false,
            Some(Partition::Links(links)) => links.contains(&(from, to)),
            Some(Partition::Kinds(from_kind, to_kind)) => {
                (kind(from), kind(to)) == (*from_kind, *to_kind)
            }
            Some(Partition::Sides { side, cuts_out, cuts_in, bridge }) => {
                if *bridge == Some(from) || *bridge == Some(to) {
                    return false;
                }
                match (side.contains(&from), side.contains(&to)) {
                    (true, false) => *cuts_out,
                    (false, true) => *cuts_in,
                    (true, true) | (false, false) => false,
                }
            }
        }
    }
}

impl Partition {
    fn draw(roles: &[RoleId], rng: &mut Rng) -> Self {
        let shape = rng.below(3);
        if shape == 0 {
            let percent = 5 + rng.below(30);
            let links = roles.iter().flat_map(|from| roles.iter().map(move |to| (*from, *to)));
            return Self::Links(links.filter(|_| rng.below(100) < percent).collect());
        }
        if shape == 1 {
            let any = |rng: &mut Rng| usize::try_from(rng.below(KINDS)).unwrap_or(0);
            return Self::Kinds(any(rng), any(rng));
        }
        let side = roles.iter().filter(|_| rng.below(2) == 0).copied().collect();
        let (cuts_out, cuts_in) = [(true, true), (true, false), (false, true)]
            [usize::try_from(rng.below(3)).unwrap_or(0)];
        let any = usize::try_from(rng.below(roles.len() as u64)).unwrap_or(0);
        let bridge = (rng.below(4) == 0).then(|| roles[any]);
        Self::Sides { side, cuts_out, cuts_in, bridge }
    }
}

/// How many kinds of role there are.
pub(crate) const KINDS: u64 = 5;
/// The kind of proposers.
pub(crate) const PROPOSERS: usize = 1;
/// The kind of acceptors.
pub(crate) const ACCEPTORS: usize = 3;

/// Which kind of role it is, as a number below [`KINDS`].
pub(crate) fn kind(id: RoleId) -> usize {
    match id {
        RoleId::Gateway(_) => 0,
        RoleId::Proposer(_) => PROPOSERS,
        RoleId::ProxyLeader(_) => 2,
        RoleId::Acceptor(_) => ACCEPTORS,
        RoleId::Replica(_) => 4,
    }
}
