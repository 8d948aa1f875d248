//! The network between roles: every message may be lost, copied, damaged, late, cut off, or too
//! many for its link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use loggos_protocol::{ReplicaId, Rng, RoleId, Time, To, ToReplica};

use crate::sights::Sight;

/// The faults of the network.
#[derive(Clone, Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) loss_percent: u64,
    pub(crate) copy_percent: u64,
    /// Percent of messages that are damaged on the way, and lost with that.
    pub(crate) damage_percent: u64,
    /// Percent of messages with a delay of up to `slow_max`: a heavy tail, hence reordering.
    pub(crate) slow_percent: u64,
    pub(crate) delay_max: Duration,
    pub(crate) slow_max: Duration,
    /// Percent of the faulty time that some partition is up.
    pub(crate) partition_percent: u64,
    /// Percent of the faulty time that some node is slow, and how much later at the most what it is
    /// sent comes then.
    pub(crate) slow_node_percent: u64,
    pub(crate) slow_node_max: Duration,
    /// A replica that hears late of what is chosen, and by how much at the most: it stays behind
    /// the others, as far as they let it.
    pub(crate) lagging: Option<(ReplicaId, Duration)>,
    /// The number of messages that may be under way on a link, and as many again that are urgent;
    /// those beyond are dropped, after all has healed too.
    pub(crate) link_messages_max: Option<u32>,
}

/// The network's state.
#[derive(Debug)]
pub(crate) struct Network {
    plan: NetworkPlan,
    is_healed: bool,
    partition: Option<Partition>,
    /// The partition is only up every other time that so much has passed.
    flapping: Option<Duration>,
    /// A node that is slow, and by how much.
    slow_node: Option<(RoleId, Duration)>,
    next_change_at: Time,
    /// How many messages are under way on each link.
    under_way: BTreeMap<(RoleId, RoleId), u32>,
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It never arrives, for want of luck.
    Lost,
    /// It never arrives: a partition is up.
    CutOff,
    /// It never arrives: too many are under way on its link.
    Full,
    /// It never arrives: its frame is damaged, and its receiver refuses it.
    Damaged,
    /// It arrives then.
    Arrives(Time),
}

/// The pairs of roles that cannot reach each other.
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
    /// Single links, each one way: quorums are still to be had, but not every role hears of
    /// everything, so leaders leave slots behind that some acceptors voted in.
    Links(BTreeSet<(RoleId, RoleId)>),
    /// All that one kind of role says to another. Where it is votes, decisions or reports, the log
    /// stands still over the same slots while leaders come and go.
    Kinds(usize, usize),
}

impl Network {
    pub(crate) fn new(plan: NetworkPlan, faults_from: Time) -> Self {
        Self {
            plan,
            is_healed: false,
            partition: None,
            flapping: None,
            slow_node: None,
            next_change_at: faults_from,
            under_way: BTreeMap::new(),
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        (self.is_healed, self.partition, self.slow_node) = (true, None, None);
    }

    /// The fate of each copy of a message.
    pub(crate) fn fates(
        &mut self,
        from: RoleId,
        to: &To,
        now: Time,
        rng: &mut Rng,
    ) -> impl Iterator<Item = Fate> + use<> {
        let lag = self.lag(to, rng);
        let (to, is_urgent) = (to.role(), to.is_urgent());
        let plan = &self.plan;
        let hits = |rng: &mut Rng, percent: u64| !self.is_healed && rng.below(100) < percent;
        let mut fates = [None; 2];
        if self.cuts(from, to, now) {
            fates[0] = Some(Fate::CutOff);
        } else if self.is_full((from, to), is_urgent) {
            fates[0] = Some(Fate::Full);
        } else if hits(rng, plan.loss_percent) {
            fates[0] = Some(Fate::Lost);
        } else {
            let copies = 1 + usize::from(hits(rng, plan.copy_percent));
            for fate in fates.iter_mut().take(copies) {
                *fate = Some(if hits(rng, plan.damage_percent) {
                    Fate::Damaged
                } else {
                    let is_slow = hits(rng, plan.slow_percent);
                    let delay = rng.up_to(if is_slow { plan.slow_max } else { plan.delay_max });
                    Fate::Arrives(now + delay + lag + self.slowness(to, rng))
                });
            }
        }
        let arrive = fates.iter().filter(|fate| matches!(fate, Some(Fate::Arrives(_)))).count();
        if plan.link_messages_max.is_some() && arrive > 0 {
            *self.under_way.entry((from, to)).or_default() += u32::try_from(arrive).unwrap_or(0);
        }
        fates.into_iter().flatten()
    }

    /// Takes in that a message has arrived.
    pub(crate) fn on_arrival(&mut self, from: RoleId, to: RoleId) {
        if let Some(under_way) = self.under_way.get_mut(&(from, to)) {
            *under_way -= 1;
        }
    }

    fn is_full(&self, link: (RoleId, RoleId), is_urgent: bool) -> bool {
        let reserved = if is_urgent { 2 } else { 1 };
        let most = self.plan.link_messages_max.map(|most| most * reserved);
        most.is_some_and(|most| {
            self.under_way.get(&link).is_some_and(|under_way| *under_way >= most)
        })
    }

    /// Puts a partition up or takes it down, and slows a node, when it is time. Returns what is up
    /// now.
    pub(crate) fn change(&mut self, roles: &[RoleId], now: Time, rng: &mut Rng) -> Vec<Sight> {
        if self.is_healed || now < self.next_change_at {
            return Vec::new();
        }
        self.next_change_at = now + Duration::from_millis(50 + rng.below(900));
        let plan = &self.plan;
        self.partition =
            (rng.below(100) < plan.partition_percent).then(|| Partition::draw(roles, rng));
        self.flapping = (rng.below(4) == 0).then(|| Duration::from_millis(1 + rng.below(60)));
        self.slow_node = (rng.below(100) < plan.slow_node_percent).then(|| {
            let any = usize::try_from(rng.below(roles.len() as u64)).unwrap_or(0);
            (roles[any], rng.up_to(plan.slow_node_max))
        });
        let partition = self.partition.as_ref();
        let flapping = partition.and(self.flapping).map(|_| Sight::Flapping);
        let slow_node = self.slow_node.map(|_| Sight::SlowNode);
        partition.map(Partition::sight).into_iter().chain(flapping).chain(slow_node).collect()
    }

    /// How much later a replica hears of what is chosen because it lags.
    fn lag(&self, to: &To, rng: &mut Rng) -> Duration {
        match (self.plan.lagging.filter(|_| !self.is_healed), to) {
            (Some((lagging, most)), To::Replica(id, ToReplica::Chosen(_))) if *id == lagging => {
                rng.up_to(most)
            }
            (Some(_) | None, _) => Duration::ZERO,
        }
    }

    /// How much later a message comes because its receiver is slow.
    fn slowness(&self, to: RoleId, rng: &mut Rng) -> Duration {
        match self.slow_node {
            Some((slow, most)) if slow == to => most / 2 + rng.up_to(most / 2),
            Some(_) | None => Duration::ZERO,
        }
    }

    fn cuts(&self, from: RoleId, to: RoleId, now: Time) -> bool {
        if let Some(period) = self.flapping
            && (now.0 / u64::try_from(period.as_nanos()).unwrap_or(u64::MAX)).is_multiple_of(2)
        {
            return false;
        }
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

    fn sight(&self) -> Sight {
        match self {
            Self::Sides { bridge: Some(_), .. } => Sight::Bridged,
            Self::Sides { cuts_out: true, cuts_in: true, .. } => Sight::CutOff,
            Self::Sides { .. } => Sight::CutOneWay,
            Self::Links(_) => Sight::CutLinks,
            Self::Kinds(..) => Sight::CutKinds,
        }
    }
}

/// The number of kinds of role.
pub(crate) const KINDS: u64 = 5;
/// The kind of proposers.
pub(crate) const PROPOSERS: usize = 1;
/// The kind of acceptors.
pub(crate) const ACCEPTORS: usize = 3;
/// The kind of replicas.
pub(crate) const REPLICAS: usize = 4;

/// Which kind of role it is, as a number below [`KINDS`].
pub(crate) fn kind(id: RoleId) -> usize {
    match id {
        RoleId::Gateway(_) => 0,
        RoleId::Proposer(_) => PROPOSERS,
        RoleId::ProxyLeader(_) => 2,
        RoleId::Acceptor(_) => ACCEPTORS,
        RoleId::Replica(_) => REPLICAS,
    }
}
