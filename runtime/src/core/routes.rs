//! The place of every role of the cluster, as one process sees it.

use loggos_protocol::{
    AcceptorId, ClusterSettings, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, RoleId,
};

/// The place of each role, by its kind and number.
#[derive(Debug)]
pub(crate) struct Routes([Box<[Place]>; RoleId::KINDS]);

/// The place of a role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// In seat `index` of a core of this process.
    Here { core: usize, index: usize },
    /// On a core of another node, reached over that link.
    There { link: usize },
}

impl Routes {
    pub(crate) fn new(cluster: &ClusterSettings, place_of: impl Fn(RoleId) -> Place) -> Self {
        let gateways = (0..cluster.gateways).map(GatewayId);
        let replicas = (0..cluster.replicas).map(ReplicaId);
        let acceptors = cluster.quorums.acceptors();
        Self([
            gateways.map(|id| place_of(RoleId::Gateway(id))).collect(),
            cluster.all_proposers().map(|id| place_of(RoleId::Proposer(id))).collect(),
            cluster.all_proxy_leaders().map(|id| place_of(RoleId::ProxyLeader(id))).collect(),
            acceptors.iter().map(|id| place_of(RoleId::Acceptor(id))).collect(),
            replicas.map(|id| place_of(RoleId::Replica(id))).collect(),
        ])
    }

    /// Returns the place of a role; `None` if the cluster has no such role, which an answer to an
    /// unknown sender may name.
    pub(crate) fn place(&self, id: RoleId) -> Option<Place> {
        self.0[id.kind()].get(usize::from(id.number())).copied()
    }

    /// The roles that a link leads to.
    pub(crate) fn behind(&self, link: usize) -> Vec<RoleId> {
        let names: [fn(u8) -> RoleId; RoleId::KINDS] = [
            |id| RoleId::Gateway(GatewayId(id)),
            |id| RoleId::Proposer(ProposerId(id)),
            |id| RoleId::ProxyLeader(ProxyLeaderId(id)),
            |id| RoleId::Acceptor(AcceptorId(id)),
            |id| RoleId::Replica(ReplicaId(id)),
        ];
        let kinds = self.0.iter().zip(names);
        let behind = kinds.flat_map(|(places, name)| {
            let places = (0..).zip(places.iter());
            let behind = places.filter(|(_, place)| **place == Place::There { link });
            behind.map(move |(number, _)| name(number))
        });
        behind.collect()
    }
}
