//! Messages that a slot of a cluster takes.

use std::sync::Arc;

use bytes::Bytes;
use loggos_protocol::{
    AcceptorId, Ballot, Batch, BatchId, Content, DirectoryId, Envelope, FormationId, GatewayId,
    Incarnation, P2a, P2b, Payload, ProposerId, ProxyLeaderId, ReplicaId, Results, Slot, Time, To,
    ToAcceptor, ToGateway, ToProxyLeader, Value,
};

/// A message of a formed cluster.
#[must_use]
pub fn envelope(to: To) -> Envelope {
    Envelope { formation: Some(FormationId(7)), to }
}

/// The leader's message to a proxy leader, with a block of `bytes`.
#[must_use]
pub fn p2a_to_proxy_leader(bytes: usize) -> Envelope {
    envelope(To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2a(p2a(bytes))))
}

/// The proxy leader's message to an acceptor, with a block of `bytes`.
#[must_use]
pub fn p2a_to_acceptor(bytes: usize) -> Envelope {
    envelope(To::Acceptor(AcceptorId(0), ToAcceptor::P2a(p2a(bytes))))
}

/// The acceptor's answer.
#[must_use]
pub fn p2b() -> Envelope {
    let (acceptor, directory) = (AcceptorId(0), DirectoryId(1));
    let p2b = P2b { acceptor, directory, ballot: ballot(), slot: Slot(6) };
    envelope(To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2b(p2b)))
}

/// A replica's answer to a gateway, with `bytes` of outcomes.
#[must_use]
pub fn results(bytes: usize) -> Envelope {
    let outcomes = payload(bytes);
    let (replica, slot) = (ReplicaId(0), Slot(6));
    let results = Results { replica, batch: batch_id(), attempt: 0, slot, outcomes };
    envelope(To::Gateway(GatewayId(0), ToGateway::Results(Arc::new(results))))
}

fn p2a(bytes: usize) -> P2a {
    let block = payload(bytes);
    let checksum = block.checksum();
    let (id, answerer) = (batch_id(), ReplicaId(0));
    let batch = Batch { id, attempt: 0, answerer, commands_count: 1, block, checksum };
    let value = Value { stamp: Time(5), content: Content::Batch(Arc::new(batch)) };
    P2a { ballot: ballot(), slot: Slot(6), via: ProxyLeaderId(0), is_recovered: false, value }
}

fn payload(bytes: usize) -> Payload {
    Payload::from(Bytes::from(vec![7; bytes]))
}

fn ballot() -> Ballot {
    Ballot { round: 1, proposer: ProposerId(0), incarnation: Incarnation(2) }
}

fn batch_id() -> BatchId {
    BatchId { gateway: GatewayId(0), incarnation: Incarnation(3), number: 4 }
}
