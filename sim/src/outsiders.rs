//! Outsiders: f of each role that stay dead, cut off or half connected for good, while all else has
//! healed.
//!
//! ```text
//!   room      of each role f at the most, together with what the cluster has lost already
//!   dead      its process has ended and is not started again
//!   cut off   it runs, and reaches and hears no other role
//!   hung      an acceptor's disk takes in what is written, and never says that it is synced
//!   half      it runs, and each of its links works both ways, one way or not at all: drawn for every link by
//!             itself, or for all links to a kind of role at once
//! ```
//!
//! The others are the healthy core, and must serve all of their clients (once a fault is healed and
//! a read and a write quorum live, every client makes progress). What outsiders say to the core may
//! be wrong, late or misleading; none of it may hold the core up.

use std::collections::{BTreeMap, BTreeSet};

use loggos_protocol::{Rng, RoleId};

use crate::sights::Sight;

/// The roles outside the healthy core.
#[derive(Debug, Default)]
pub(crate) struct Outsiders {
    conditions: BTreeMap<RoleId, Condition>,
    /// Links that do not work, each one way.
    cuts: BTreeSet<(RoleId, RoleId)>,
}

/// The condition that an outsider is left in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Condition {
    Dead,
    CutOff,
    Hung,
    Half,
}

impl Condition {
    /// Draws how a role is left, which may have a disk that can hang.
    pub(crate) fn draw(has_disk: bool, rng: &mut Rng) -> Self {
        match rng.below(if has_disk { 5 } else { 4 }) {
            0 => Self::Dead,
            1 => Self::CutOff,
            2 | 3 => Self::Half,
            _ => Self::Hung,
        }
    }

    /// The situation of an outsider of this kind.
    pub(crate) fn sight(self, id: RoleId) -> Sight {
        match (self, id) {
            (Self::Dead | Self::CutOff, RoleId::Gateway(_)) => Sight::GatewayGone,
            (Self::Dead | Self::CutOff, RoleId::Proposer(_)) => Sight::ProposerGone,
            (Self::Dead | Self::CutOff, RoleId::ProxyLeader(_)) => Sight::ProxyLeaderGone,
            (Self::Dead | Self::CutOff, RoleId::Acceptor(_)) => Sight::AcceptorGone,
            (Self::Dead | Self::CutOff, RoleId::Replica(_)) => Sight::ReplicaGone,
            (Self::Hung, _) => Sight::AcceptorHung,
            (Self::Half, RoleId::Gateway(_)) => Sight::GatewayHalf,
            (Self::Half, RoleId::Proposer(_)) => Sight::ProposerHalf,
            (Self::Half, RoleId::ProxyLeader(_)) => Sight::ProxyLeaderHalf,
            (Self::Half, RoleId::Acceptor(_)) => Sight::AcceptorHalf,
            (Self::Half, RoleId::Replica(_)) => Sight::ReplicaHalf,
        }
    }
}

impl Outsiders {
    /// Puts `id` outside; `all` are the roles that it has links to.
    pub(crate) fn add(&mut self, id: RoleId, condition: Condition, all: &[RoleId], rng: &mut Rng) {
        self.conditions.insert(id, condition);
        let others = all.iter().copied().filter(|other| *other != id);
        match condition {
            Condition::Dead | Condition::Hung => {}
            Condition::CutOff => others.for_each(|other| {
                self.cuts.extend([(id, other), (other, id)]);
            }),
            Condition::Half => {
                let is_by_kind = rng.below(2) == 0;
                let mut of_kinds = BTreeMap::new();
                for other in others {
                    let drawn = (rng.below(2) == 0, rng.below(2) == 0);
                    let of_kind = *of_kinds.entry(crate::network::kind(other)).or_insert(drawn);
                    let (cuts_out, cuts_in) = if is_by_kind { of_kind } else { drawn };
                    self.cuts.extend(cuts_out.then_some((id, other)));
                    self.cuts.extend(cuts_in.then_some((other, id)));
                }
            }
        }
    }

    /// Leaves `id` as `other` is left: the two are one process.
    pub(crate) fn add_with(&mut self, id: RoleId, other: RoleId) {
        self.conditions.insert(id, self.conditions[&other]);
        let of_other: Vec<_> = self.cuts.iter().copied().collect();
        self.cuts.extend(of_other.into_iter().filter_map(|(from, to)| match (from, to) {
            (from, to) if from == other && to != id => Some((id, to)),
            (from, to) if to == other && from != id => Some((from, id)),
            _ => None,
        }));
        self.cuts.remove(&(id, other));
        self.cuts.remove(&(other, id));
    }

    /// Whether `id` is one.
    pub(crate) fn contains(&self, id: RoleId) -> bool {
        self.conditions.contains_key(&id)
    }

    /// Whether its process has ended for good.
    pub(crate) fn is_dead(&self, id: RoleId) -> bool {
        self.conditions.get(&id) == Some(&Condition::Dead)
    }

    /// Whether its disk hangs for good.
    pub(crate) fn is_hung(&self, id: RoleId) -> bool {
        self.conditions.get(&id) == Some(&Condition::Hung)
    }

    /// Whether what `from` says to `to` never arrives.
    pub(crate) fn cuts(&self, from: RoleId, to: RoleId) -> bool {
        self.cuts.contains(&(from, to))
    }
}
