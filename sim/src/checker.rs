//! What must never happen, whatever befalls the cluster.
//!
//! ```text
//!  invariant                                                   checked
//!  no promise or vote is sent before it is released (R31)      when a role speaks
//!  one ballot has one value a slot (R2, R7)                    when a vote is released
//!  one value is chosen a slot                                  when a vote completes a write quorum
//!  what is said to be chosen was voted for by a write quorum   when a proxy leader speaks
//!  a replica executes what was chosen, in order, once (R15)    when it has executed
//!  replicas are equal at equal watermarks                      when one has executed
//!  promises, truncations and watermarks never go back          after every step
//!  log time never goes back; a session's commands in order     by the recorder, as it executes
//!  an acknowledged command is executed, at the position that   at the end
//!  its reply named, after all that was acknowledged before
//!  it was submitted
//! ```

use std::collections::BTreeMap;

use loggos_protocol::{
    AcceptorSet, Ballot, Chosen, Cluster, Incarnation, P2b, Role, RoleId, Slot, StateMachine, To,
    ToProposer, ToProxyLeader, ToReplica, Value, Watermark,
};

use crate::load::Acknowledged;
use crate::recorder::Recorder;

/// What a run has shown so far.
#[derive(Debug)]
pub(crate) struct Checker {
    cluster: Cluster,
    /// What each ballot proposed for each slot, and which acceptors voted for it.
    votes: BTreeMap<(Slot, Ballot), (Value, AcceptorSet)>,
    /// What a write quorum voted for, by slot.
    chosen: BTreeMap<Slot, Value>,
    /// The state's hash after each slot, as the first replica to get there had it.
    hashes: BTreeMap<Watermark, u64>,
    /// What each role's numbers were, by its life.
    acceptors: BTreeMap<(RoleId, Incarnation), (Ballot, Watermark)>,
    replicas: BTreeMap<(RoleId, Incarnation), Watermark>,
}

impl Checker {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self {
            cluster,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            hashes: BTreeMap::new(),
            acceptors: BTreeMap::new(),
            replicas: BTreeMap::new(),
        }
    }

    /// Checks what a role wants sent at once.
    pub(crate) fn on_sends(&self, sends: &[To]) {
        for to in sends {
            let waits_for_sync = match to {
                To::Proposer(_, message) => {
                    matches!(message, ToProposer::P1b(_) | ToProposer::Formed(_))
                }
                To::ProxyLeader(_, message) => matches!(message, ToProxyLeader::P2b(_)),
                To::Gateway(..) | To::Acceptor(..) | To::Replica(..) => false,
            };
            assert!(!waits_for_sync, "sent before its sync: {to:?}");
            if let To::Replica(_, ToReplica::Chosen(chosen)) = to {
                self.on_chosen(chosen);
            }
        }
    }

    /// Checks that what a proxy leader says to be chosen is: a write quorum voted for it in that ballot.
    fn on_chosen(&self, chosen: &Chosen) {
        let votes = self.votes.get(&(chosen.slot, chosen.ballot));
        let is_chosen = votes.is_some_and(|(value, voters)| {
            *value == chosen.value && self.cluster.quorums.is_write_quorum(*voters)
        });
        assert!(is_chosen, "{} is said to be chosen in {} and is not", chosen.slot, chosen.ballot);
    }

    /// Notes what an acceptor has voted for and holds back. By the time it is let go, a larger ballot may
    /// have replaced the vote.
    pub(crate) fn on_held(&mut self, acceptor: &Role<Recorder>, held: &[To]) {
        let Role::Acceptor(acceptor) = acceptor else { return };
        for p2b in held.iter().filter_map(p2b) {
            let vote = acceptor.vote(p2b.slot).filter(|vote| vote.ballot == p2b.ballot);
            let value = &vote.expect("an acceptor says what it has just voted").value;
            let nobody = || (value.clone(), AcceptorSet::default());
            let (first, _) = self.votes.entry((p2b.slot, p2b.ballot)).or_insert_with(nobody);
            assert_eq!(first, value, "{}: {} has two values", p2b.slot, p2b.ballot);
        }
    }

    /// Counts the votes that an acceptor's sync lets go.
    pub(crate) fn on_released(&mut self, released: &[To]) {
        for p2b in released.iter().filter_map(p2b) {
            let votes = self.votes.get_mut(&(p2b.slot, p2b.ballot));
            let (value, voters) = votes.expect("what is released was held");
            voters.insert(p2b.acceptor);
            if self.cluster.quorums.is_write_quorum(*voters) {
                let chosen = self.chosen.entry(p2b.slot).or_insert_with(|| value.clone());
                let (slot, ballot) = (p2b.slot, p2b.ballot);
                assert_eq!(chosen, value, "{slot}: two values were chosen, the second in {ballot}");
            }
        }
    }

    /// Checks a role after it has done something.
    pub(crate) fn on_step(&mut self, role: &Role<Recorder>, incarnation: Incarnation) {
        role.validate();
        match role {
            Role::Acceptor(acceptor) => {
                let now = (acceptor.promised(), acceptor.truncated());
                let before =
                    self.acceptors.insert((role.id(), incarnation), now).unwrap_or_default();
                assert!(before.0 <= now.0, "{:?}: promise went back from {}", role.id(), before.0);
                assert!(
                    before.1 <= now.1,
                    "{:?}: truncation went back from {}",
                    role.id(),
                    before.1
                );
            }
            Role::Replica(replica) => {
                let executed = replica.executed();
                let from = self.replicas.insert((role.id(), incarnation), executed);
                let from = from.unwrap_or_default();
                assert!(from <= executed, "{:?}: watermark went back from {from}", role.id());
                for slot in (from.0..executed.0).map(Slot) {
                    if let Some(value) = replica.executed_value(slot) {
                        self.on_executed(slot, value);
                    }
                }
                let hash = replica.machine().state_hash();
                let first = *self.hashes.entry(executed).or_insert(hash);
                assert_eq!(first, hash, "{:?} differs from its peers at {executed}", role.id());
            }
            Role::Gateway(_) | Role::Proposer(_) | Role::ProxyLeader(_) => {}
        }
    }

    /// Checks what clients were told against what a replica executed.
    pub(crate) fn at_end(&self, recorder: &Recorder, acknowledged: &[Acknowledged]) {
        for ack in acknowledged {
            let at = usize::try_from(ack.position).unwrap_or(usize::MAX);
            let executed = recorder.executed.get(at);
            assert_eq!(executed, Some(&ack.id), "acknowledged at position {at}, but not there");
            assert!(
                ack.not_before < Some(ack.position),
                "{:?} was acknowledged at {} but submitted after {:?} was",
                ack.id,
                ack.position,
                ack.not_before
            );
        }
    }

    fn on_executed(&self, slot: Slot, value: &Value) {
        let chosen = self.chosen.get(&slot);
        assert_eq!(chosen, Some(value), "{slot}: executed what was not chosen");
    }
}

fn p2b(to: &To) -> Option<&P2b> {
    match to {
        To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) => Some(p2b),
        To::ProxyLeader(..)
        | To::Gateway(..)
        | To::Proposer(..)
        | To::Acceptor(..)
        | To::Replica(..) => None,
    }
}
