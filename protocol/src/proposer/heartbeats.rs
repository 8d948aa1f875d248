//! Heartbeats: what a proposer lets the others know of its ballot, the table and the chosen
//! watermark.

use std::sync::Arc;

use crate::{
    AcceptorSet, Ballot, GatewayId, Heartbeat, Outbox, Stage, ToAcceptor, ToGateway, ToProposer,
    ToProxyLeader, ToReplica, Watermark,
};

use super::shared::Shared;

/// A heartbeat, without the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) ballot: Ballot,
    pub(super) stage: Stage,
    /// Everything below is chosen.
    pub(super) chosen: Watermark,
    /// Whether the leader says nothing to acceptors and proposers.
    pub(super) is_silent: bool,
}

impl Shared {
    /// Tells all roles.
    pub(super) fn say_heartbeat(&self, beat: Beat, out: &mut Outbox) {
        self.say_heartbeat_to_electors(beat, out);
        self.say_heartbeat_to_followers(beat, out);
    }

    /// Tells acceptors and proposers: no proposer campaigns while they hear a leader.
    ///
    /// source: R28
    pub(super) fn say_heartbeat_to_electors(&self, beat: Beat, out: &mut Outbox) {
        let Some(heartbeat) = self.heartbeat(beat, AcceptorSet::default()) else { return };
        for acceptor in self.cluster.quorums.acceptors().iter() {
            out.tell_acceptor(acceptor, ToAcceptor::Heartbeat(heartbeat.clone()));
        }
        for proposer in self.cluster.all_proposers().filter(|p| *p != self.id) {
            out.tell_proposer(proposer, ToProposer::Heartbeat(heartbeat.clone()));
        }
    }

    /// Tells proxy leaders, replicas and gateways, which work for the leader.
    pub(super) fn say_heartbeat_to_followers(&self, beat: Beat, out: &mut Outbox) {
        let Some(heartbeat) = self.heartbeat(beat, self.no_room) else { return };
        for proxy_leader in self.cluster.all_proxy_leaders() {
            out.tell_proxy_leader(proxy_leader, ToProxyLeader::Heartbeat(heartbeat.clone()));
        }
        self.say_heartbeat_to_replicas(beat, self.no_room, out);
        for gateway in (0..self.cluster.gateways).map(GatewayId) {
            out.tell_gateway(gateway, ToGateway::Heartbeat(heartbeat.clone()));
        }
    }

    /// Tells replicas the table, and how far the others are. Proposers that follow do so, too, once
    /// in an election timeout: a replica that does not hear the leader would know of neither, and
    /// not that it misses anything.
    ///
    /// source: R4, R15
    pub(super) fn say_heartbeat_to_replicas(
        &self,
        beat: Beat,
        no_room: AcceptorSet,
        out: &mut Outbox,
    ) {
        let Some(heartbeat) = self.heartbeat(beat, no_room) else { return };
        for replica in self.roster.replicas() {
            out.tell_replica(replica, ToReplica::Heartbeat(heartbeat.clone()));
        }
    }

    /// A heartbeat; `None` before a table stands.
    fn heartbeat(&self, beat: Beat, no_room: AcceptorSet) -> Option<Heartbeat> {
        let Beat { ballot, stage, chosen, is_silent } = beat;
        assert!(ballot <= self.seen, "a heartbeat of {ballot}, which was not seen");
        let table = Arc::clone(self.membership.table()?);
        Some(Heartbeat { ballot, stage, chosen, no_room, is_silent, table })
    }
}
