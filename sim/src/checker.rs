//! What must never happen, whatever befalls the cluster.
//!
//! ```text
//!  invariant                                                   checked
//!  no promise or vote is sent before it is released (R31)      when a role speaks
//!  a ballot names the life that campaigns in it (R2)           when a proposer has acted
//!  a reign ends only by a larger ballot (R13)                  when a proposer has acted
//!  a campaign has the leave of a read and a write quorum (R28) when it begins
//!  a nack names a larger ballot, to the refused one (R13)      when an acceptor speaks
//!  one ballot has one value a slot (R2, R7)                    when a vote is released
//!  one value is chosen a slot                                  when a vote completes a write quorum
//!  a durable acceptor comes back with all that it has told     when it has
//!  what is said to be chosen was voted for by a write quorum   when a proxy leader speaks
//!  a replica executes what was chosen, in order, once (R15)    when it has executed
//!  f + 1 replicas have executed what is forgotten (R16)        when an acceptor has acted
//!  and hold it in durable snapshots, if it is durable (R16)    likewise, by the world, which has the disks
//!  and what a leader no longer answers for (R5, R9, R17)       when it names its chosen watermark
//!  replicas are equal at equal watermarks                      when one has executed
//!  promises, truncations and watermarks never go back          after every step
//!  no stamp is beyond acceptors' clocks (R26)                  when a leader speaks
//!  log time never goes back; a session's commands in order     by the recorder, as it executes
//!  an acknowledged command is executed, at the position that   at the end
//!  its reply named, after all that was acknowledged before
//!  it was submitted
//! ```

use std::collections::{BTreeMap, BTreeSet};

use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, Chosen, ClusterSettings, Incarnation, Nack, P2b,
    Proposer, ProposerId, Rememberer, ReplicaId, Role, RoleId, Slot, Time, To, ToAcceptor,
    ToProposer, ToProxyLeader, ToReplica, Value, Vote, Watermark,
};

use crate::load::Acknowledged;
use crate::recorder::{CommandId, Recorder};

/// What others were told of an acceptor's promises and votes, each after its sync.
#[derive(Debug, Default)]
struct Told {
    promised: Ballot,
    /// The largest ballot of each slot.
    votes: BTreeMap<Slot, Ballot>,
}

/// That a proposer leads or led, as it saw it when it last acted.
#[derive(Debug)]
struct Reign {
    life: Incarnation,
    ballot: Ballot,
    /// The number of times that it had handed over before.
    hand_overs: u64,
    is_over: bool,
}

/// The facts that a run has shown so far.
#[derive(Debug)]
pub(crate) struct Checker {
    cluster: ClusterSettings,
    /// What each ballot proposed for each slot, and which acceptors voted for it.
    votes: BTreeMap<(Slot, Ballot), (Value, AcceptorSet)>,
    /// What a write quorum voted for, by slot.
    chosen: BTreeMap<Slot, Value>,
    /// The largest ballot that any proposer campaigned in.
    ballot: Ballot,
    /// Ballots that campaigns were begun in.
    campaigns: BTreeSet<Ballot>,
    /// The acceptors that have told each proposer, in answer to which pre-vote, that they hear no
    /// leader.
    quiet: BTreeMap<(ProposerId, u64), AcceptorSet>,
    /// The last reign of each proposer, in its current life.
    reigns: BTreeMap<ProposerId, Reign>,
    /// The state's hash after each slot, as the first replica to get there had it.
    hashes: BTreeMap<Watermark, u64>,
    /// What each role's numbers were, by its life.
    acceptors: BTreeMap<(RoleId, Incarnation), (Ballot, Watermark)>,
    replicas: BTreeMap<(RoleId, Incarnation), Watermark>,
    told: BTreeMap<AcceptorId, Told>,
    /// The largest stamp that a leader has given, and the latest time that an acceptor has said its
    /// clock to show.
    stamp: Time,
    clock: Time,
}

impl Checker {
    pub(crate) fn new(cluster: ClusterSettings) -> Self {
        Self {
            cluster,
            votes: BTreeMap::new(),
            chosen: BTreeMap::new(),
            ballot: Ballot::default(),
            campaigns: BTreeSet::new(),
            quiet: BTreeMap::new(),
            reigns: BTreeMap::new(),
            hashes: BTreeMap::new(),
            acceptors: BTreeMap::new(),
            told: BTreeMap::new(),
            replicas: BTreeMap::new(),
            stamp: Time(0),
            clock: Time(0),
        }
    }

    /// Checks what a role wants sent at once.
    pub(crate) fn on_sends(&mut self, sends: &[To]) {
        for to in sends {
            match to {
                To::Proposer(id, message) => self.on_send_to_proposer(*id, message),
                To::ProxyLeader(_, ToProxyLeader::P2b(_)) => panic!("sent before its sync: {to:?}"),
                To::ProxyLeader(_, ToProxyLeader::Nack(nack)) => on_nack(nack),
                To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) => self.on_stamp(p2a.value.stamp),
                To::Acceptor(_, ToAcceptor::P1a(p1a)) => self.on_campaign(p1a.ballot),
                To::Replica(_, ToReplica::Chosen(chosen)) => self.on_chosen(chosen),
                To::Replica(_, ToReplica::Replayed(_)) => panic!("sent before its sync: {to:?}"),
                To::Replica(_, ToReplica::Heartbeat(heartbeat)) => {
                    self.check_executed(heartbeat.chosen, "a leader closes");
                }
                To::ProxyLeader(..) | To::Acceptor(..) | To::Replica(..) | To::Gateway(..) => {}
            }
        }
    }

    fn on_send_to_proposer(&mut self, to: ProposerId, message: &ToProposer) {
        match message {
            ToProposer::P1b(_) | ToProposer::Formed(_) => {
                panic!("sent before its sync: {message:?}");
            }
            ToProposer::ProbeAck(ack) => {
                let is_acceptor = matches!(ack.from, Rememberer::Acceptor(_));
                assert!(!is_acceptor, "sent before its sync: {message:?}");
            }
            ToProposer::Nack(nack) => {
                on_nack(nack);
                assert_eq!(nack.refused.proposer, to, "told of another's refusal: {nack:?}");
            }
            ToProposer::PreVoteAck(ack) if ack.is_quiet && ack.nonce != 0 => {
                // A leader that has fallen silent asks under 0, and not for leave.
                self.quiet.entry((to, ack.nonce)).or_default().insert(ack.acceptor);
            }
            ToProposer::HeartbeatAck(ack) => self.clock = self.clock.max(ack.clock),
            ToProposer::PreVoteAck(_)
            | ToProposer::Heartbeat(_)
            | ToProposer::Propose(_)
            | ToProposer::Truncated(_)
            | ToProposer::Executed(_)
            | ToProposer::Need(_)
            | ToProposer::Unserved(_)
            | ToProposer::Halted(_)
            | ToProposer::FillTo(_)
            | ToProposer::Skip(_) => {}
        }
    }

    /// Checks that a leader stamps with no time that is beyond all that acceptors' clocks have
    /// shown by more than may be. An earlier stamp may be repeated.
    fn on_stamp(&mut self, stamp: Time) {
        let most = self.clock + self.cluster.clock_jump_max + self.cluster.election_timeout;
        let is_right = stamp <= self.stamp || stamp <= most && self.clock > Time(0);
        assert!(is_right, "the stamp {stamp}, where acceptors' clocks have shown {}", self.clock);
        self.stamp = self.stamp.max(stamp);
    }

    /// Checks that a campaign deposes no leader that is heard, as its proposer was told, or is a
    /// leader's rerun (R8).
    fn on_campaign(&mut self, ballot: Ballot) {
        let leads = self.reigns.get(&ballot.proposer).is_some_and(|reign| !reign.is_over);
        if !self.campaigns.insert(ballot) || leads {
            return;
        }
        let quorums = self.cluster.quorums;
        let has_leave =
            |quiet: &AcceptorSet| quorums.is_read_quorum(*quiet) && quorums.is_write_quorum(*quiet);
        let of_proposer = (ballot.proposer, 0)..=(ballot.proposer, u64::MAX);
        let has_leave = self.quiet.range(of_proposer).any(|(_, quiet)| has_leave(quiet));
        assert!(has_leave, "{ballot} campaigns, and would depose a leader that is heard");
        self.quiet.retain(|(proposer, _), _| *proposer != ballot.proposer);
    }

    /// Checks that what a proxy leader says to be chosen is: a write quorum voted for it in that
    /// ballot.
    fn on_chosen(&self, chosen: &Chosen) {
        let votes = self.votes.get(&(chosen.slot, chosen.ballot));
        let is_chosen = votes.is_some_and(|(value, voters)| {
            *value == chosen.value && self.cluster.quorums.is_write_quorum(*voters)
        });
        assert!(is_chosen, "{} is said to be chosen in {} and is not", chosen.slot, chosen.ballot);
    }

    /// Notes what an acceptor has voted for and holds back. By the time it is let go, a larger
    /// ballot may have replaced the vote.
    pub(crate) fn on_held(&mut self, acceptor: &Role<Recorder>, held: &[To]) {
        let Role::Acceptor(acceptor) = acceptor else { return };
        for p2b in held.iter().filter_map(p2b) {
            let vote = acceptor.vote(p2b.slot).filter(|vote| vote.ballot == p2b.ballot);
            let Some(Vote { value, .. }) = vote else {
                // Found on disk: it was written down, and so held, before.
                let is_known = self.votes.contains_key(&(p2b.slot, p2b.ballot));
                assert!(is_known, "{}: no acceptor has ever voted in {}", p2b.slot, p2b.ballot);
                continue;
            };
            let nobody = || (value.clone(), AcceptorSet::default());
            let (first, _) = self.votes.entry((p2b.slot, p2b.ballot)).or_insert_with(nobody);
            assert_eq!(first, value, "{}: {} has two values", p2b.slot, p2b.ballot);
        }
    }

    /// Counts the votes that an acceptor's sync lets go.
    pub(crate) fn on_released(&mut self, released: &[To]) {
        for to in released {
            match to {
                To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) => {
                    self.count(p2b.acceptor, p2b.slot, p2b.ballot);
                }
                To::Proposer(_, ToProposer::P1b(p1b)) => {
                    let told = self.told.entry(p1b.acceptor).or_default();
                    told.promised = told.promised.max(p1b.ballot);
                }
                To::Replica(_, ToReplica::Replayed(page)) => {
                    for (slot, vote) in &page.votes {
                        self.count(page.acceptor, *slot, vote.ballot);
                    }
                }
                To::ProxyLeader(..)
                | To::Gateway(..)
                | To::Proposer(..)
                | To::Acceptor(..)
                | To::Replica(..) => {}
            }
        }
    }

    /// Checks that a durable acceptor has come back with all that any role was told of: its
    /// promise, and its vote in each slot, or one of a larger ballot.
    ///
    /// source: R31, R33
    pub(crate) fn on_restored(&self, acceptor: &Acceptor, votes: &[(Slot, Ballot)]) {
        let Some(told) = self.told.get(&acceptor.id()) else { return };
        let promised = acceptor.promised();
        let id = acceptor.id();
        assert!(told.promised <= promised, "{id:?} has promised {} and forgot", told.promised);
        let votes: BTreeMap<_, _> = votes.iter().copied().collect();
        for (slot, ballot) in told.votes.range(acceptor.truncated().first_open()..) {
            let is_kept = votes.get(slot).is_some_and(|kept| kept >= ballot);
            assert!(is_kept, "{slot}: {id:?} has voted in {ballot} and forgot");
        }
    }

    /// Counts a vote that is known to its voter's disk and to another role.
    fn count(&mut self, acceptor: AcceptorId, slot: Slot, ballot: Ballot) {
        let told = self.told.entry(acceptor).or_default();
        told.promised = told.promised.max(ballot);
        let last = told.votes.entry(slot).or_default();
        *last = ballot.max(*last);
        let (value, voters) = self.votes.get_mut(&(slot, ballot)).expect("what is told was held");
        voters.insert(acceptor);
        if self.cluster.quorums.is_write_quorum(*voters) {
            let chosen = self.chosen.entry(slot).or_insert_with(|| value.clone());
            assert_eq!(chosen, value, "{slot}: two values were chosen, the second in {ballot}");
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
                if before.1 < now.1 {
                    self.check_executed(now.1, "an acceptor forgets");
                }
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
                if replica.halted().is_some() {
                    return; // its state is that of no slot
                }
                let hash = replica.state_hash();
                let first = *self.hashes.entry(executed).or_insert(hash);
                assert_eq!(first, hash, "{:?} differs from its peers at {executed}", role.id());
            }
            Role::Proposer(proposer) => self.on_proposer(proposer, incarnation),
            Role::Gateway(_) | Role::ProxyLeader(_) => {}
        }
    }

    /// Checks that a proposer campaigns in ballots of its own life, that a reign ends only by a
    /// larger one or handed over, and that none comes back.
    fn on_proposer(&mut self, proposer: &Proposer, incarnation: Incarnation) {
        let id = proposer.id();
        if let Some(ballot) = proposer.ballot() {
            let life = (ballot.proposer, ballot.incarnation);
            assert_eq!(life, (id, incarnation), "{ballot} is of another life than its proposer");
            self.ballot = self.ballot.max(ballot);
        }
        let leads = proposer.ballot().filter(|_| proposer.is_leading());
        let hand_overs = proposer.counters().hand_overs;
        if self.reigns.get(&id).is_some_and(|reign| reign.life != incarnation) {
            self.reigns.remove(&id);
        }
        if let Some(reign) = self.reigns.get_mut(&id) {
            let is_over = leads != Some(reign.ballot);
            if is_over && !reign.is_over && reign.hand_overs == hand_overs {
                let led = reign.ballot;
                assert!(
                    self.ballot > led,
                    "the reign of {led} ends, and there is no larger ballot"
                );
            }
            let is_back = reign.is_over && leads.is_some_and(|ballot| ballot <= reign.ballot);
            assert!(!is_back, "{} leads again", reign.ballot);
            reign.is_over = is_over;
        }
        if let Some(ballot) = leads {
            let reign = Reign { life: incarnation, ballot, hand_overs, is_over: false };
            self.reigns.insert(id, reign);
        }
    }

    /// Checks that f + 1 replicas have executed all below `mark`, in whichever of their lives:
    /// `who` relies on it.
    fn check_executed(&self, mark: Watermark, who: &str) {
        let has_executed = |replica: &ReplicaId| {
            let id = RoleId::Replica(*replica);
            let lives = (id, Incarnation(0))..=(id, Incarnation(u64::MAX));
            self.replicas.range(lives).any(|(_, executed)| *executed >= mark)
        };
        let count = (0..self.cluster.replicas).map(ReplicaId).filter(has_executed).count();
        let is_enough = mark == Watermark(0) || count > usize::from(self.cluster.f);
        assert!(is_enough, "{who} {mark}, which {count} replicas have executed");
    }

    /// Checks what clients were told against what a replica executed.
    pub(crate) fn at_end(
        &self,
        recorder: &Recorder,
        acknowledged: &[Acknowledged],
        unanswerable: &[CommandId],
    ) {
        if !unanswerable.is_empty() {
            let executed: BTreeSet<_> = recorder.executed.iter().collect();
            let lost = unanswerable.iter().find(|id| !executed.contains(id));
            assert_eq!(lost, None, "its reply was too large, and it was not executed");
        }
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

/// Checks that a nack names a ballot that is larger than the refused one.
fn on_nack(nack: &Nack) {
    assert!(nack.refused < nack.promised, "refused for no larger ballot: {nack:?}");
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
