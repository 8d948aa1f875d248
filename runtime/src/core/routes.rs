//! The place of every role of the cluster, as one process sees it.

use loggos_protocol::{
    AcceptorId, ClusterSettings, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, RoleId,
};

/// The place of each role, by its id.
#[derive(Debug)]
pub(crate) struct Routes {
    gateways: Box<[Place]>,
    proposers: Box<[Place]>,
    proxy_leaders: Box<[Place]>,
    acceptors: Box<[Place]>,
    replicas: Box<[Place]>,
}

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
        Self {
            gateways: gateways.map(|id| place_of(RoleId::Gateway(id))).collect(),
            proposers: cluster.all_proposers().map(|id| place_of(RoleId::Proposer(id))).collect(),
            proxy_leaders: cluster
                .all_proxy_leaders()
                .map(|id| place_of(RoleId::ProxyLeader(id)))
                .collect(),
            acceptors: acceptors.iter().map(|id| place_of(RoleId::Acceptor(id))).collect(),
            replicas: replicas.map(|id| place_of(RoleId::Replica(id))).collect(),
        }
    }

    /// Returns the place of a role; `None` if the cluster has no such role, which an answer to an
    /// unknown sender may name.
    pub(crate) fn place(&self, id: RoleId) -> Option<Place> {
        let (places, index) = match id {
            RoleId::Gateway(id) => (&self.gateways, id.0),
            RoleId::Proposer(id) => (&self.proposers, id.0),
            RoleId::ProxyLeader(id) => (&self.proxy_leaders, id.0),
            RoleId::Acceptor(id) => (&self.acceptors, id.0),
            RoleId::Replica(id) => (&self.replicas, id.0),
        };
        places.get(usize::from(index)).copied()
    }

    /// The roles that a link leads to.
    pub(crate) fn behind(&self, link: usize) -> Vec<RoleId> {
        let of = move |places: &'_ [Place], id: fn(u8) -> RoleId| {
            let places = (0..).zip(places.iter().copied());
            let behind = places.filter(move |(_, place)| *place == Place::There { link });
            behind.map(move |(index, _)| id(index)).collect::<Vec<_>>()
        };
        let all = [
            of(&self.gateways, |id| RoleId::Gateway(GatewayId(id))),
            of(&self.proposers, |id| RoleId::Proposer(ProposerId(id))),
            of(&self.proxy_leaders, |id| RoleId::ProxyLeader(ProxyLeaderId(id))),
            of(&self.acceptors, |id| RoleId::Acceptor(AcceptorId(id))),
            of(&self.replicas, |id| RoleId::Replica(ReplicaId(id))),
        ];
        all.concat()
    }
}
