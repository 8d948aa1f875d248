//! The cores of roles that the configuration does not place.

use std::collections::{BTreeMap, BTreeSet};

use loggos_protocol::{ClusterSettings, GatewayId, ReplicaId, RoleId};

/// Spreads all roles of a cluster over the cores of one process.
pub(super) fn spread(cluster: &ClusterSettings, cores: usize) -> BTreeMap<RoleId, usize> {
    let gateways = (0..cluster.gateways).map(|id| RoleId::Gateway(GatewayId(id)));
    let proposers = cluster.all_proposers().map(RoleId::Proposer);
    let proxy_leaders = cluster.all_proxy_leaders().map(RoleId::ProxyLeader);
    let acceptors = cluster.quorums.acceptors().iter().map(RoleId::Acceptor);
    let replicas = (0..cluster.replicas).map(|id| RoleId::Replica(ReplicaId(id)));
    let roles = gateways.chain(proposers).chain(proxy_leaders).chain(acceptors).chain(replicas);
    by_kind(&roles.collect::<Vec<_>>(), cores)
}

/// Spreads the roles of a node, in their order, over its cores: as in one process, unless that
/// would leave cores without any. A node often has one role of each kind: then each goes to the
/// next core.
pub(super) fn spread_in_node(roles: &[RoleId], cores: usize) -> BTreeMap<RoleId, usize> {
    let placement = by_kind(roles, cores);
    let used: BTreeSet<_> = placement.values().collect();
    if used.len() == cores && kinds(roles).any(|kind| kind.len() > 1) {
        return placement;
    }
    roles.iter().enumerate().map(|(turn, role)| (*role, turn % cores)).collect()
}

/// Spreads roles over cores: gateways and replicas by what they cost, each to the core that has
/// least to do so far; the roles of each other kind in turn. Acceptors are split in contiguous
/// parts: a write quorum of a grid then shares a core, and a slot crosses between cores as seldom
/// as can be.
fn by_kind(roles: &[RoleId], cores: usize) -> BTreeMap<RoleId, usize> {
    let (mut placement, mut costs) = (BTreeMap::new(), vec![0; cores]);
    for kind in kinds(roles) {
        let count = kind.len();
        for (index, role) in kind.iter().enumerate() {
            let core = match role {
                RoleId::Gateway(_) | RoleId::Replica(_) => {
                    let least = (0..cores).min_by_key(|core| costs[*core]);
                    least.expect("a process has a core")
                }
                RoleId::Acceptor(_) => index * cores / count,
                RoleId::Proposer(_) | RoleId::ProxyLeader(_) => index % cores,
            };
            costs[core] += cost(*role);
            placement.insert(*role, core);
        }
    }
    placement
}

/// The part of the work on commands that each of so many cores has, with `placed` roles on them.
pub(super) fn shares(placed: impl Iterator<Item = (RoleId, usize)>, cores: usize) -> Vec<f64> {
    let mut costs = vec![0; cores];
    placed.for_each(|(role, core)| costs[core] += cost(role));
    let all = f64::from(costs.iter().sum::<u32>().max(1));
    costs.into_iter().map(|cost| f64::from(cost) / all).collect()
}

/// The roles of each kind that there are, in their order.
fn kinds(roles: &[RoleId]) -> impl Iterator<Item = &[RoleId]> {
    roles.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b))
}

/// What a role costs a command, next to others, where batches are full: a gateway as much as some
/// three replicas of the key-value machine, since it serves the callers, too; all that is done once
/// a batch is next to nothing.
fn cost(role: RoleId) -> u32 {
    match role {
        RoleId::Gateway(_) => 3,
        RoleId::Replica(_) => 1,
        RoleId::Proposer(_) | RoleId::ProxyLeader(_) | RoleId::Acceptor(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::standard_grid;
    use loggos_protocol::Settings;

    fn cores(roles: &[&str], cores: usize) -> Vec<usize> {
        let roles: Vec<RoleId> = roles.iter().map(|role| role.parse().unwrap()).collect();
        let placement = spread_in_node(&roles, cores);
        roles.iter().map(|role| placement[role]).collect()
    }

    #[test]
    fn a_node_with_all_roles_is_spread_as_one_process_is() {
        let cluster = Settings::new(1, standard_grid()).check().unwrap();
        for cores in 1..=4 {
            let placement = spread(&cluster, cores);
            let roles: Vec<_> = placement.keys().copied().collect();
            assert_eq!(spread_in_node(&roles, cores), placement, "{cores}");
        }
    }

    #[test]
    fn replicas_go_where_gateways_leave_room() {
        let replicas_of = |gateways: u8, cores: usize| {
            let settings = Settings { gateways, ..Settings::new(1, standard_grid()) };
            let placement = spread(&settings.check().unwrap(), cores);
            let replicas = (0..3).map(|id| placement[&RoleId::Replica(ReplicaId(id))]);
            replicas.collect::<Vec<_>>()
        };
        assert_eq!(replicas_of(1, 1), [0, 0, 0]);
        assert_eq!(replicas_of(1, 2), [1, 1, 1]);
        assert_eq!(replicas_of(1, 3), [1, 2, 1]);
        assert_eq!(replicas_of(1, 8), [1, 2, 3]);
        assert_eq!(replicas_of(2, 2), [0, 1, 0]);
        assert_eq!(replicas_of(2, 4), [2, 3, 2]);
    }

    #[test]
    fn a_node_with_one_role_of_each_kind_uses_its_cores() {
        let roles = ["gateway 1", "proposer 1", "acceptor 1", "replica 1"];
        assert_eq!(cores(&roles, 1), [0, 0, 0, 0]);
        assert_eq!(cores(&roles, 2), [0, 1, 0, 1]);
        assert_eq!(cores(&roles, 8), [0, 1, 2, 3]);
        assert_eq!(cores(&["acceptor 0", "acceptor 3", "replica 2"], 2), [0, 1, 0]);
    }
}
