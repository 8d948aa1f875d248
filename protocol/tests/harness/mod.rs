//! What the tests share: messages with defaults, roles that know their cluster, and a whole cluster
//! in which every message arrives at once.

#![allow(dead_code, unused_macros, unused_imports, reason = "each test crate uses its own part")]

mod net;
mod snapshots;

use std::sync::Arc;
use std::time::Duration;

use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, Batch, BatchId, Chosen, ClusterSettings, Content,
    DirectoryId, Executed, Form, Formed, GatewayId, Heartbeat, HeartbeatAck, Incarnation, Nack,
    Need, Outbox, P1a, P1b, P2a, P2b, Payload, PreVoteAck, Propose, Proposer, ProposerId,
    ProposerTimer, ProxyLeader, ProxyLeaderId, QuorumSystem, Replica, ReplicaId, RoleId, Settings,
    Slot, Stage, Table, Time, To, ToAcceptor, ToProposer, ToReplica, Truncated, Unserved, Value,
    Vote, Watermark,
};

pub(crate) use net::{Echo, Net, read_back, worked};

/// When tests start.
pub(crate) const START: Time = Time(1_000_000_000);
pub(crate) const REPLICA: fn(u8) -> RoleId = |id| RoleId::Replica(ReplicaId(id));
/// The larger of any two proposers' ballots is of the larger round.
pub(crate) const B1: Ballot = ballot(1, 0);
pub(crate) const B2: Ballot = ballot(2, 1);
pub(crate) const B3: Ballot = ballot(3, 0);

/// The messages of one kind in a lane, each with the role that it is for.
macro_rules! pick {
    ($lane:expr, $role:ident($message:path)) => {
        $lane
            .iter()
            .filter_map(|to| match to {
                loggos_protocol::To::$role(to, $message(message)) => Some((*to, message)),
                loggos_protocol::To::Gateway(..)
                | loggos_protocol::To::Proposer(..)
                | loggos_protocol::To::ProxyLeader(..)
                | loggos_protocol::To::Acceptor(..)
                | loggos_protocol::To::Replica(..) => None,
            })
            .collect::<Vec<_>>()
    };
}
pub(crate) use pick;

/// What its gateway sends if all batches of lower numbers are answered.
pub(crate) fn propose(batch: Batch) -> Propose {
    Propose { lowest: batch.id.number, batch: Arc::new(batch) }
}

/// What a role wants done when told this.
pub(crate) fn out_of(what: impl FnOnce(&mut Outbox)) -> Outbox {
    let mut out = Outbox::default();
    what(&mut out);
    out
}

pub(crate) const fn ballot(round: u64, proposer: u8) -> Ballot {
    Ballot { round, proposer: ProposerId(proposer), incarnation: Incarnation(10 + proposer as u64) }
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn grid(rows: u8, columns: u8) -> Settings {
    Settings::new(1, QuorumSystem::grid(rows, columns, 1).expect("both sides hold f + 1"))
}

/// The defaults on a 2 × 2 grid: rows {0, 1} and {2, 3} write, columns {0, 2} and {1, 3} read.
pub(crate) fn square() -> ClusterSettings {
    checked(grid(2, 2))
}

/// The same with the smallest window there is.
pub(crate) fn small() -> Settings {
    Settings { slot_window: 8, ..grid(2, 2) }
}

pub(crate) fn checked(settings: Settings) -> ClusterSettings {
    settings.check().expect("settings that make a cluster")
}

pub(crate) fn directory(acceptor: u8) -> DirectoryId {
    DirectoryId(100 + u64::from(acceptor))
}

/// The table that names every acceptor's [`directory`].
pub(crate) fn table(cluster: &ClusterSettings) -> Arc<Table> {
    let directories = (0..cluster.quorums.acceptors_count()).map(directory).collect();
    Arc::new(Table::new(cluster.digest(), directories))
}

pub(crate) fn set(acceptors: impl IntoIterator<Item = u8>) -> AcceptorSet {
    acceptors.into_iter().map(AcceptorId).collect()
}

/// Every set of acceptors that `is_quorum` and holds no smaller one that is.
pub(crate) fn least_quorums(
    acceptors: u8,
    is_quorum: impl Fn(AcceptorSet) -> bool,
) -> Vec<AcceptorSet> {
    let members = |bits: u32| set((0..acceptors).filter(move |a| bits >> a & 1 == 1));
    let is_least =
        |s: &AcceptorSet| s.iter().all(|a| !is_quorum(s.iter().filter(|b| *b != a).collect()));
    (0..1 << acceptors).map(members).filter(|s| is_quorum(*s)).filter(is_least).collect()
}

pub(crate) fn batch_id(number: u64) -> BatchId {
    BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number }
}

pub(crate) fn batch(number: u64) -> Batch {
    let block = Payload::inline(&number.to_le_bytes()).expect("eight bytes are short");
    let (answerer, attempt) = (ReplicaId(0), 0);
    let checksum = block.checksum();
    Batch { id: batch_id(number), attempt, answerer, commands_count: 1, block, checksum }
}

/// A value that no other number has.
pub(crate) fn value(number: u64) -> Value {
    Value { stamp: Time(number), content: Content::Batch(batch(number).into()) }
}

/// A P2a of `value(slot)`, through proxy leader 0.
/// That a batch of this block is chosen in `slot`.
pub(crate) fn chosen(slot: Slot, block: Payload) -> Chosen {
    let batch = Batch { checksum: block.checksum(), block, ..batch(slot.0) };
    let value = Value { stamp: START, content: Content::Batch(batch.into()) };
    Chosen { slot, ballot: B1, value }
}

pub(crate) fn p2a(ballot: Ballot, slot: u64) -> P2a {
    let via = ProxyLeaderId(0);
    P2a { ballot, slot: Slot(slot), via, is_recovered: false, value: value(slot) }
}

pub(crate) fn p2b(acceptor: u8, ballot: Ballot, slot: u64) -> P2b {
    P2b { acceptor: AcceptorId(acceptor), directory: directory(acceptor), ballot, slot: Slot(slot) }
}

/// A P1a for everything there is.
pub(crate) fn p1a(ballot: Ballot) -> P1a {
    P1a { ballot, first: Slot(0), page: Slot(0) }
}

/// A vote of ballot `ballot` for `value(number)` in `slot`.
pub(crate) fn vote(slot: u64, ballot: Ballot, number: u64) -> (Slot, Vote) {
    (Slot(slot), Vote { ballot, value: value(number) })
}

/// A promise in one page, from slot 0 on.
pub(crate) fn p1b(acceptor: u8, ballot: Ballot, votes: Vec<(Slot, Vote)>) -> P1b {
    P1b {
        acceptor: AcceptorId(acceptor),
        directory: directory(acceptor),
        ballot,
        truncated: Watermark(0),
        from: Slot(0),
        to: None,
        votes,
    }
}

/// What acceptor 0 says of a slot below `bound`.
pub(crate) fn truncated(slot: u64, ballot: Ballot, bound: u64) -> Truncated {
    let (acceptor, truncated) = (Some(AcceptorId(0)), Watermark(bound));
    Truncated { acceptor, slot: Slot(slot), ballot, truncated }
}

pub(crate) fn heartbeat(cluster: &ClusterSettings, ballot: Ballot, stage: Stage) -> Heartbeat {
    let (chosen, no_room) = (Watermark(0), AcceptorSet::default());
    Heartbeat { ballot, stage, chosen, no_room, is_silent: false, table: table(cluster) }
}

pub(crate) fn executed(replica: u8, life: u64, executed: u64) -> Executed {
    let (replica, incarnation) = (ReplicaId(replica), Incarnation(life));
    Executed {
        replica,
        incarnation,
        executed: Watermark(executed),
        snapshot: Watermark(0),
        nonce: None,
    }
}

/// An acceptor that has stored the cluster's [`table`].
pub(crate) fn acceptor(cluster: &ClusterSettings, id: u8) -> Acceptor {
    let mut acceptor = Acceptor::new(cluster.clone(), AcceptorId(id), directory(id), id.into());
    let form = Form { proposer: ProposerId(0), table: table(cluster) };
    acceptor.on_form(&form, &mut Outbox::default());
    acceptor
}

pub(crate) fn acceptors(cluster: &ClusterSettings) -> Vec<Acceptor> {
    (0..cluster.quorums.acceptors_count()).map(|id| acceptor(cluster, id)).collect()
}

/// Proxy leader 0, which has heard of the cluster's [`table`].
pub(crate) fn proxy_leader(cluster: &ClusterSettings) -> ProxyLeader {
    let mut proxy_leader = ProxyLeader::new(cluster.clone(), ProxyLeaderId(0));
    proxy_leader.on_heartbeat(&heartbeat(cluster, B1, Stage::Leading), &mut Outbox::default());
    proxy_leader
}

/// A replica in its first life, that has heard of the cluster's [`table`].
pub(crate) fn replica(cluster: &ClusterSettings, id: u8) -> Replica<Echo> {
    let life = Incarnation(100 * u64::from(id) + 1);
    let mut replica = Replica::new(cluster.clone(), ReplicaId(id), life, Echo::default());
    let heartbeat = heartbeat(cluster, B1, Stage::Leading);
    replica.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    replica
}

/// A proposer for which the cluster's [`table`] stands; its ballots are those of [`ballot`].
pub(crate) fn proposer(cluster: &ClusterSettings, id: u8) -> Proposer {
    proposer_in_life(cluster, id, ballot(1, id).incarnation)
}

pub(crate) fn proposer_in_life(cluster: &ClusterSettings, id: u8, life: Incarnation) -> Proposer {
    let mut proposer = Proposer::new(cluster.clone(), ProposerId(id), life, id.into(), START);
    for acceptor in cluster.quorums.acceptors().iter() {
        let directory = directory(acceptor.0);
        let formed = Formed { acceptor, directory, table: table(cluster) };
        proposer.tell_formed(&formed, START, &mut Outbox::default());
    }
    proposer
}

/// Lets its election timer fire; returns the nonce of the pre-votes it asks for.
pub(crate) fn ask_pre_votes(proposer: &mut Proposer, now: Time) -> u64 {
    let out = out_of(|out| proposer.on_timeout(ProposerTimer::Election, now, out));
    let pre_votes = pick!(out.sends, Acceptor(ToAcceptor::PreVote));
    pre_votes.first().expect("no leader was heard for long enough").1.nonce
}

pub(crate) fn quiet(acceptor: u8, nonce: u64, promised: Ballot) -> PreVoteAck {
    let (directory, acceptor) = (directory(acceptor), AcceptorId(acceptor));
    let (is_quiet, is_low, votes_end) = (true, false, Watermark(0));
    PreVoteAck { acceptor, directory, nonce, is_quiet, is_low, promised, votes_end }
}

/// Brings it into phase 1, in a ballot above `promised`; returns what it says then.
pub(crate) fn campaign(
    cluster: &ClusterSettings,
    proposer: &mut Proposer,
    promised: Ballot,
    now: Time,
) -> Outbox {
    let nonce = ask_pre_votes(proposer, now);
    let mut said = Outbox::default();
    for acceptor in cluster.quorums.acceptors().iter() {
        let ack = quiet(acceptor.0, nonce, promised);
        let out = out_of(|out| proposer.tell_pre_vote_ack(ack, now, out));
        said.sends.extend(out.sends);
    }
    said
}

/// Proposer 0, that leads in [`B1`] over acceptors which have never voted, with all replicas
/// introduced as having executed nothing.
pub(crate) fn leader(cluster: &ClusterSettings) -> Proposer {
    let mut leader = proposer(cluster, 0);
    for replica in 0..cluster.replicas {
        introduce(&mut leader, replica, 1, 0, START);
    }
    campaign(cluster, &mut leader, Ballot::default(), START);
    for acceptor in cluster.quorums.acceptors().iter() {
        leader.tell_p1b(p1b(acceptor.0, B1, vec![]), START, &mut Outbox::default());
    }
    assert_eq!(leader.ballot().filter(|_| leader.is_leading()), Some(B1), "it leads");
    leader
}

/// Lets a replica's life become known to a proposer; returns what the proposer says to it.
pub(crate) fn introduce(
    proposer: &mut Proposer,
    replica: u8,
    life: u64,
    at: u64,
    now: Time,
) -> Outbox {
    let first = executed(replica, life, at);
    let asked = out_of(|out| proposer.tell_executed(&first, now, out));
    let identify = pick!(asked.sends, Replica(ToReplica::Identify));
    let nonce = identify.first().map(|(_, identify)| identify.nonce);
    out_of(|out| proposer.tell_executed(&Executed { nonce, ..first }, now, out))
}

/// Lets a replica's life become known to an acceptor.
pub(crate) fn introduce_to(acceptor: &mut Acceptor, replica: u8, life: u64, at: u64) {
    let first = executed(replica, life, at);
    let asked = out_of(|out| acceptor.on_executed(&first, START, out));
    let identify = pick!(asked.sends, Replica(ToReplica::Identify));
    let nonce = identify.first().map(|(_, identify)| identify.nonce);
    acceptor.on_executed(&Executed { nonce, ..first }, START, &mut Outbox::default());
}

/// Makes an acceptor forget everything below `bound`.
pub(crate) fn truncate(acceptor: &mut Acceptor, bound: u64) {
    introduce_to(acceptor, 0, 1, bound);
    introduce_to(acceptor, 1, 1, bound);
}

/// A proposer that is handed one kind of message, as a test reads best.
pub(crate) trait ProposerMessages {
    fn tell(&mut self, message: ToProposer, now: Time, out: &mut Outbox);

    fn tell_formed(&mut self, message: &Formed, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Formed(message.clone()), now, out);
    }

    fn tell_pre_vote_ack(&mut self, message: PreVoteAck, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::PreVoteAck(message), now, out);
    }

    fn tell_p1b(&mut self, message: P1b, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::P1b(Box::new(message)), now, out);
    }

    fn tell_nack(&mut self, message: Nack, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Nack(message), now, out);
    }

    fn tell_heartbeat(&mut self, message: &Heartbeat, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Heartbeat(message.clone()), now, out);
    }

    fn tell_propose(&mut self, message: Propose, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Propose(message), now, out);
    }

    fn tell_executed(&mut self, message: &Executed, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Executed(*message), now, out);
    }

    fn tell_need(&mut self, message: Need, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Need(message), now, out);
    }

    fn tell_unserved(&mut self, message: Unserved, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Unserved(message), now, out);
    }

    fn tell_truncated(&mut self, message: Truncated, now: Time, out: &mut Outbox) {
        self.tell(ToProposer::Truncated(message), now, out);
    }

    fn tell_heartbeat_ack(&mut self, message: HeartbeatAck, now: Time) {
        self.tell(ToProposer::HeartbeatAck(message), now, &mut Outbox::default());
    }
}

impl ProposerMessages for Proposer {
    fn tell(&mut self, message: ToProposer, now: Time, out: &mut Outbox) {
        self.on_message(message, now, out);
    }
}
