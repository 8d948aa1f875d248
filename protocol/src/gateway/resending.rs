//! Batches without an answer: what is asked, sent again, and complained about.

use std::sync::Arc;

use super::in_flight::{InFlight, InFlightStage, Sending};
use super::{Gateway, GatewayTimer};
use crate::{
    Batch, Outbox, Propose, ProposerId, ReplicaId, Time, ToAcceptor, ToProposer, ToReplica,
    Unserved,
};

impl Gateway {
    /// A new attempt of the batch at `place` and of all behind it that have no answer, in number
    /// order.
    pub(super) fn resend_from(&mut self, place: usize, now: Time, out: &mut Outbox) {
        for place in place..self.in_flight.len() {
            if self.in_flight[place].stage == InFlightStage::Done {
                continue;
            }
            let Batch { id, attempt, .. } = *self.in_flight[place].batch;
            let answerer = self.next_answerer(id.number + u64::from(attempt) + 1);
            let in_flight = &mut self.in_flight[place];
            // A role that holds the last attempt keeps it as it was.
            let batch = Arc::make_mut(&mut in_flight.batch);
            (batch.attempt, batch.answerer) = (attempt + 1, answerer);
            in_flight.sent_last = Sending::new(batch, now);
            (in_flight.since, in_flight.stage) = (now, InFlightStage::Sent);
            self.counters.resends += 1;
            self.propose(&self.in_flight[place].batch, out);
        }
    }

    /// Asks a replica other than the batch's answerer what became of it.
    ///
    /// source: R25
    pub(super) fn doubt(&mut self, place: usize, now: Time, out: &mut Outbox) {
        let in_flight = &self.in_flight[place];
        if in_flight.stage == InFlightStage::Done {
            return;
        }
        let (batch, ask) = (&in_flight.batch, in_flight.ask(self.session));
        assert!(ask.session.is_some() || ask.count == 0, "commands were sent without a session");
        let mut turn = u64::from(batch.answerer.0) + 1;
        let mut asked = self.next_answerer(turn);
        if asked == batch.answerer && self.cluster.replicas > 1 {
            turn += 1;
            asked = self.next_answerer(turn);
        }
        let in_flight = &mut self.in_flight[place];
        (in_flight.stage, in_flight.since) = (InFlightStage::Doubted(asked), now);
        self.counters.asks += 1;
        out.tell_replica(asked, ToReplica::Ask(ask));
    }

    /// Doubts what has gone unanswered for too long, and sends anew what was doubted for too long.
    ///
    /// source: R9, R25
    pub(super) fn resend(&mut self, now: Time, out: &mut Outbox) {
        let is_late = |sent: &InFlight, timeout| now.since(sent.since) >= timeout;
        let (mut lost, mut refused) = (None, None);
        for place in 0..self.in_flight.len() {
            let sent = &self.in_flight[place];
            match sent.stage {
                InFlightStage::Refused if is_late(sent, self.cluster.resend_min) => {
                    refused.get_or_insert(place);
                }
                InFlightStage::Done | InFlightStage::Refused => {}
                InFlightStage::Sent | InFlightStage::Doubted(_)
                    if !is_late(sent, self.timeout(sent.batch.attempt)) => {}
                InFlightStage::Sent => {
                    self.suspect(sent.batch.answerer);
                    self.doubt(place, now, out);
                }
                InFlightStage::Doubted(asked) => {
                    self.suspect(asked);
                    lost.get_or_insert(place);
                }
            }
        }
        if self.halted(now).is_some() {
            (lost, refused) = (None, None); // another attempt would have no answer either
        }
        if lost.is_some() {
            // No answer came: neither replica nor leader can be taken for alive.
            self.leader = self.leader_after_loss(now);
        }
        if let Some(place) = lost.into_iter().chain(refused).min() {
            self.resend_from(place, now, out);
        }
        self.trust_replicas_if_none_is_left();
        if !self.in_flight.is_empty() {
            self.timers.set(GatewayTimer::Resend, now + self.cluster.resend_min);
        }
    }

    /// The proposer that is sent what had no answer: by turns the leader that is heard, and one of
    /// the others.
    ///
    /// The leader that is heard may never have got what was sent, or may have got it and waited for
    /// too long for f+1 replicas: then it is the one to ask again. Or it was deposed, and its
    /// successor is not heard: then another proposer leads, or knows which does. Silence does not
    /// tell which of these it is, so both are tried. If neither helps, acceptors are told (R28).
    ///
    /// source: R9
    fn leader_after_loss(&mut self, now: Time) -> ProposerId {
        self.losses += 1;
        let timeout = self.cluster.election_timeout;
        let is_heard = self.leader_heard_at.is_some_and(|at| now.since(at) < timeout);
        if is_heard && self.losses % 2 == 1 { self.ballot.proposer } else { self.next_tried() }
    }

    /// The proposer whose turn it is to be tried: each but the one that batches go to.
    pub(super) fn next_tried(&mut self) -> ProposerId {
        let count = self.cluster.proposers;
        let next = |proposer: ProposerId| ProposerId((proposer.0 + 1) % count);
        self.tried = next(self.tried);
        if self.tried == self.leader {
            self.tried = next(self.tried);
        }
        self.tried
    }

    pub(super) fn propose(&self, batch: &Arc<Batch>, out: &mut Outbox) {
        let first = self.in_flight.front();
        let lowest = first.map_or(batch.id.number, |in_flight| in_flight.batch.id.number);
        debug_assert!(lowest <= batch.id.number, "{:?} is sent, {lowest} is the lowest", batch.id);
        let propose = Propose { batch: Arc::clone(batch), lowest };
        out.tell_proposer(self.leader, ToProposer::Propose(propose));
    }

    /// Leaves a replica out, while there are others, until it is heard.
    pub(super) fn suspect(&mut self, replica: ReplicaId) {
        if !self.suspects.contains(&replica) {
            self.suspects.push(replica);
        }
    }

    /// All suspected is none suspected: the trouble lies elsewhere.
    pub(super) fn trust_replicas_if_none_is_left(&mut self) {
        if self.suspects.len() >= usize::from(self.cluster.replicas) {
            self.suspects.clear();
        }
    }

    /// The replica that answers a batch or a group of reads: they take turns, leaving out suspects
    /// while there are others.
    ///
    /// source: R25, \[CP §3.3\]
    pub(super) fn next_answerer(&self, turn: u64) -> ReplicaId {
        let count = u64::from(self.cluster.replicas);
        let in_turn = |i: u64| ReplicaId(u8::try_from((turn + i) % count).unwrap_or(0));
        let healthy = (0..count).map(in_turn).find(|replica| !self.suspects.contains(replica));
        healthy.unwrap_or_else(|| in_turn(0))
    }

    /// Tells acceptors, and through them the leader, that nothing has been answered for an election
    /// timeout.
    ///
    /// The leader may be in good health and serve other gateways: it has no other way to know of
    /// one that does not reach it, or that has just started and does not hear it. One that does
    /// reach it is none of its concern.
    ///
    /// source: R28
    pub(super) fn complain(&mut self, now: Time, out: &mut Outbox) {
        if !self.awaits_answer() {
            return;
        }
        let due = self.unserved_since + self.cluster.election_timeout;
        if now < due {
            return self.timers.set(GatewayTimer::Unserved, due);
        }
        self.say_unserved(out);
        self.timers.set(GatewayTimer::Unserved, now + self.cluster.election_timeout);
    }

    pub(super) fn say_unserved(&mut self, out: &mut Outbox) {
        let unserved = Unserved { gateway: self.id };
        for acceptor in self.cluster.quorums.acceptors().iter() {
            out.tell_acceptor(acceptor, ToAcceptor::Unserved(unserved));
        }
        self.counters.complaints += 1;
    }

    /// Whether an answer is awaited: to a batch, or to the first word of a leader.
    pub(super) fn awaits_answer(&self) -> bool {
        self.session.is_none() || !self.in_flight.is_empty()
    }

    pub(super) fn timeout(&self, attempt: u32) -> std::time::Duration {
        let (least, most) = (4 * self.cluster.resend_min, self.cluster.resend_max);
        self.latency.timeout(attempt, least, most)
    }
}
