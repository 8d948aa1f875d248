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
/// would leave cores without any. A node often has one role of each kind, and all of these would
/// share the first core.
pub(super) fn spread_in_node(roles: &[RoleId], cores: usize) -> BTreeMap<RoleId, usize> {
    let placement = by_kind(roles, cores);
    let used: BTreeSet<_> = placement.values().collect();
    if used.len() == cores {
        return placement;
    }
    roles.iter().enumerate().map(|(turn, role)| (*role, turn % cores)).collect()
}

/// Spreads the roles of each kind over the cores in turn; of replicas the first comes last, so that
/// no core has all of the first ones. Acceptors are split in contiguous parts: a write quorum of a
/// grid then shares a core, and a slot crosses between cores as seldom as can be.
fn by_kind(roles: &[RoleId], cores: usize) -> BTreeMap<RoleId, usize> {
    let mut placement = BTreeMap::new();
    for kind in roles.chunk_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b)) {
        let count = kind.len();
        for (index, role) in kind.iter().enumerate() {
            let core = match role {
                RoleId::Acceptor(_) => index * cores / count,
                RoleId::Replica(_) => (index + count - 1) % count % cores,
                RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => index % cores,
            };
            placement.insert(*role, core);
        }
    }
    placement
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
    fn a_node_with_one_role_of_each_kind_uses_its_cores() {
        let roles = ["gateway 1", "proposer 1", "acceptor 1", "replica 1"];
        assert_eq!(cores(&roles, 1), [0, 0, 0, 0]);
        assert_eq!(cores(&roles, 2), [0, 1, 0, 1]);
        assert_eq!(cores(&roles, 8), [0, 1, 2, 3]);
        assert_eq!(cores(&["acceptor 0", "acceptor 3", "replica 2"], 2), [0, 1, 0]);
    }
}
