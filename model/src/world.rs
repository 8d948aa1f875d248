//! A world: which cluster, and how much may happen in it.

use std::sync::Arc;

use loggos_protocol::{
    Acceptor, AcceptorSet, Ballot, ClusterSettings, Form, Heartbeat, Incarnation, Outbox, Proposer,
    ProposerId, ProxyLeader, QuorumSystem, Settings, SettingsError, Stage, Table, To, ToAcceptor,
    ToProxyLeader, Watermark,
};

use crate::actor::{Actor, Role, START, directory};
use crate::bounds::Bounds;

/// A cluster with two proposers, and what may happen in it.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) cluster: ClusterSettings,
    pub(crate) bounds: Bounds,
}

impl World {
    /// Returns the world of `quorums` in which `bounds` may happen. Without proxy leaders of the
    /// cluster's own, `proxy_leaders` = 0, each proposer has one. A page of a P1b holds
    /// `page_slots` slots.
    ///
    /// # Errors
    ///
    /// If that makes no cluster: every setting that contradicts another.
    pub fn new(
        quorums: QuorumSystem,
        proxy_leaders: u8,
        page_slots: u32,
        bounds: Bounds,
    ) -> Result<Self, Vec<SettingsError>> {
        let mut settings = Settings::new(1, quorums);
        (settings.proposers, settings.proxy_leaders, settings.replicas) = (2, proxy_leaders, 2);
        (settings.slot_window, settings.batches_in_flight_max) = (8, 4);
        settings.page_slots_max = page_slots;
        Ok(Self { cluster: settings.check()?, bounds })
    }

    /// The roles once their cluster has formed, in the order of [`Self::place`].
    ///
    /// Each acceptor is offered the table by each proposer, which hears of all; proxy leaders learn
    /// of it by a heartbeat, as they would.
    pub(crate) fn formed(&self) -> Vec<Actor> {
        let cluster = &self.cluster;
        let acceptors = cluster.quorums.acceptors();
        let table = Table::new(cluster.digest(), acceptors.iter().map(directory).collect());
        let table = Arc::new(table);
        let start = |id: ProposerId| {
            let life = Incarnation(1 + u64::from(id.0));
            Proposer::new(cluster.clone(), id, life, id.0.into(), START)
        };
        let mut proposers: Vec<Proposer> = cluster.all_proposers().map(start).collect();
        let mut out = Outbox::default();
        let mut offer = |id| {
            let mut acceptor = Acceptor::new(cluster.clone(), id, directory(id), id.0.into());
            for proposer in cluster.all_proposers() {
                let form = Form { proposer, table: Arc::clone(&table) };
                acceptor.on_message(ToAcceptor::Form(form), START, &mut out);
            }
            Role::Acceptor(Box::new(acceptor))
        };
        let acceptors: Vec<Role> = acceptors.iter().map(&mut offer).collect();
        for to in std::mem::take(&mut out.held) {
            if let To::Proposer(ProposerId(id), message) = to {
                proposers[usize::from(id)].on_message(message, START, &mut out);
            }
        }
        let proxy_leaders = cluster.all_proxy_leaders().map(|id| {
            let mut proxy_leader = ProxyLeader::new(cluster.clone(), id);
            let (ballot, chosen) = (Ballot::default(), Watermark(0));
            let stage = Stage::Campaigning;
            let (no_room, table) = (AcceptorSet::default(), Arc::clone(&table));
            let heartbeat = Heartbeat { ballot, stage, chosen, no_room, is_silent: false, table };
            let heartbeat = ToProxyLeader::Heartbeat(heartbeat);
            proxy_leader.on_message(heartbeat, START, &mut Outbox::default());
            Role::ProxyLeader(Box::new(proxy_leader))
        });
        let proposers = proposers.into_iter().map(|p| Role::Proposer(Box::new(p)));
        let roles = proposers.chain(proxy_leaders).chain(acceptors);
        roles.map(|role| Actor::new(role, &self.bounds)).collect()
    }

    /// Where the receiver of `to` stands among the roles; `None` if it never arrives.
    pub(crate) fn place(&self, to: &To) -> Option<usize> {
        let proposers = usize::from(self.cluster.proposers);
        let proxy_leaders = usize::from(self.cluster.proxy_leaders_running());
        match to {
            To::Proposer(id, _) => Some(usize::from(id.0)),
            To::ProxyLeader(_, message)
                if self.bounds.is_deaf && !matches!(message, ToProxyLeader::P2a(_)) =>
            {
                None
            }
            To::ProxyLeader(id, _) => Some(proposers + usize::from(id.0)),
            To::Acceptor(id, _) => Some(proposers + proxy_leaders + usize::from(id.0)),
            To::Gateway(..) | To::Replica(..) => None,
        }
    }

    /// What to call the role at `place`.
    pub(crate) fn name(&self, place: usize) -> String {
        let proposers = usize::from(self.cluster.proposers);
        let proxy_leaders = usize::from(self.cluster.proxy_leaders_running());
        if place < proposers {
            format!("proposer {place}")
        } else if place < proposers + proxy_leaders {
            format!("proxy leader {}", place - proposers)
        } else {
            format!("acceptor {}", place - proposers - proxy_leaders)
        }
    }
}
