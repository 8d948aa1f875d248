//! The proposer: claims the log, then sequences.
//!
//! ```text
//!            no leader heard      read and write         read quorum
//!            for a while          quorum are quiet       is whole
//!  Following ───────────▶ PreVote ──────────────▶ Phase1 ───────────▶ Phase2
//!      ▲                     │                      │ │ ▲                │ │
//!      └──── leader heard ───┘  ◀── no new page ────┘ │ └─ slot needed ──┘ │
//!      ▲                                              │    (R8)            │
//!      └────────── Nack of our ballot, a higher leader ────────────────────┘
//!
//!  input         when                       does                             says
//!  Propose       leading, next in number    next slot ← batch                P2a, to a proxy leader
//!                leading, overtook others   keeps it for later               nothing
//!                not leading                                                 NotLeader
//!  P1b           ballot is ours, a new page merges it                        P1a, for the next page
//!                … and a read quorum whole  every recovered slot is open     P2a each, Heartbeat
//!  Executed      f+1 replicas are further   closes slots                     P2a, for what waited
//!                … and over a part of a log  Phase1 in a new ballot, of more  P1a
//!  Nack          of our ballot              steps down                       NotLeader, for what waited
//!  Heartbeat     of a higher ballot         notes it; a leader's: steps down
//!  Need          slot is open                                                P2a, once more
//!                slot is closed             Phase1 in a new ballot from it   P1a
//!  Truncated     leading                    closes slots                     Truncated, to the asker
//!  Halted        leading                    notes it                         nothing
//!  Skip          all replicas have halted   next slot ← the skip              P2a
//!                at that command
//!  Unserved      of a gateway that is not   hands over                        Heartbeat, of stage Leaving
//!                heard, for too long
//!  gone          the leader has ended       waits for it no more             PreVote, soon
//!                a proxy leader has ended   suspects it                      P2a of its slots, by another
//! ```
//!
//! Could two proposers both believe that they lead? Yes, and it does no harm: a value is chosen
//! only by a write quorum voting in one ballot; the later leader's read quorum has promised to
//! refuse the earlier one's ballot, and what had been chosen before is in what that quorum
//! reported.

mod forming;
mod heartbeats;
mod next;
mod phase1;
mod phase2;
mod pre_vote;
mod shared;
mod suspicion;
mod transitions;

use next::Next;
use phase1::Phase1;
use phase2::Phase2;
use pre_vote::PreVote;
use shared::Shared;

use crate::{
    Ballot, ClusterSettings, Event, Executed, FormationId, Heartbeat, Incarnation, Nack, Outbox,
    P1b, PreVoteAck, ProposerId, RoleId, Slot, Stage, Time, TimerName, Timers, ToProposer,
};

/// The timers of a proposer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProposerTimer {
    /// Ask again for the memories and tables that formation misses.
    Formation,
    /// Send the next heartbeat.
    Heartbeat,
    /// No leader was heard for an election timeout: ask for pre-votes.
    Election,
    /// Ask again for the pages that phase 1 misses.
    Phase1,
    /// Open slots make no progress: ask for them again.
    Resend,
}

impl TimerName<5> for ProposerTimer {
    const ALL: [Self; 5] =
        [Self::Formation, Self::Heartbeat, Self::Election, Self::Phase1, Self::Resend];

    fn index(self) -> usize {
        self as usize
    }
}

/// One of the proposers; at most one at a time gets anything chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Proposer {
    shared: Shared,
    phase: Phase,
}

/// A phase, with all that ends with it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Phase {
    /// Another proposer leads, or none.
    Following,
    /// Asking whether a campaign would depose a leader that is heard.
    PreVote(PreVote),
    /// Campaigning.
    Phase1(Box<Phase1>),
    /// Leading.
    Phase2(Box<Phase2>),
}

/// The counters of a proposer's work.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ProposerCounters {
    /// Batches given a slot.
    pub proposed: u64,
    /// Slots sent to a proxy leader again.
    pub resent: u64,
    /// Holes filled with no-ops.
    pub noops: u64,
    /// Times it asked whether it might campaign.
    pub pre_votes: u64,
    /// Times it left it to replicas to replay first.
    pub waits: u64,
    /// Campaigns started.
    pub campaigns: u64,
    /// Campaigns won.
    pub elections: u64,
    /// Campaigns and reigns ended by a larger ballot.
    pub preemptions: u64,
    /// Campaigns for a slot that a replica could get from no other role (R8).
    pub reruns: u64,
    /// Reigns ended for a gateway that was not heard.
    pub hand_overs: u64,
    /// Batches refused because it does not lead.
    pub not_leader: u64,
    /// Batches that came before one of a lower number.
    pub early: u64,
    /// Batches dropped because they have a slot, or were answered.
    pub duplicates: u64,
    /// Batches dropped because too many waited.
    pub dropped: u64,
    /// Times that slots were filled because reads waited for them.
    pub fills: u64,
    /// Times that this was asked of slots too far ahead.
    pub fills_refused: u64,
    /// Messages of acceptors that are not the table's, or of another cluster.
    pub foreign: u64,
}

impl Proposer {
    /// Returns a proposer that knows of no cluster yet.
    ///
    /// `incarnation` must never have been used by this proposer before (R2). Back-off and nonces
    /// follow from `seed`.
    #[must_use]
    pub fn new(
        cluster: ClusterSettings,
        id: ProposerId,
        incarnation: Incarnation,
        seed: u64,
        now: Time,
    ) -> Self {
        assert!(id.0 < cluster.proposers, "{id:?} is not in the cluster");
        let shared = Shared::new(cluster, id, incarnation, seed, now);
        Self { shared, phase: Phase::Following }
    }

    /// Takes a message in.
    ///
    /// What only a candidate or a leader can answer is ignored in any other phase, but for batches:
    /// their gateways are told that we do not lead.
    pub fn on_message(&mut self, message: ToProposer, now: Time, out: &mut Outbox) {
        let shared = &mut self.shared;
        let next = match (message, &mut self.phase) {
            (ToProposer::ProbeAck(ack), _) => {
                shared.on_probe_ack(&ack, now, out);
                Next::Stay
            }
            (ToProposer::Formed(formed), _) => {
                shared.on_formed(&formed, now, out);
                Next::Stay
            }
            (ToProposer::PreVoteAck(ack), _) => self.on_pre_vote_ack(ack, now, out),
            (ToProposer::P1b(p1b), _) => self.on_p1b(*p1b, now, out),
            (ToProposer::Nack(nack), _) => self.on_nack(nack, out),
            (ToProposer::Heartbeat(heartbeat), _) => self.on_heartbeat(&heartbeat, now, out),
            (ToProposer::Executed(executed), _) => self.on_executed(&executed, now, out),
            (ToProposer::Propose(propose), Phase::Phase2(reign)) => {
                reign.on_propose(propose, shared, now, out);
                Next::Stay
            }
            (ToProposer::HeartbeatAck(ack), Phase::Phase2(reign)) => {
                reign.on_heartbeat_ack(ack, shared, now, out);
                Next::Stay
            }
            (ToProposer::Truncated(truncated), Phase::Phase2(reign)) => {
                reign.on_truncated(truncated, shared, now, out)
            }
            (ToProposer::Need(need), Phase::Phase2(reign)) => reign.on_need(need, shared, now, out),
            (ToProposer::Unserved(unserved), Phase::Phase2(reign)) => {
                reign.on_unserved(unserved, shared, now, out)
            }
            (ToProposer::Skip(command), Phase::Phase2(reign)) => {
                reign.on_skip(command, shared, now, out);
                Next::Stay
            }
            (ToProposer::FillTo(fill), Phase::Phase2(reign)) => {
                reign.on_fill_to(fill, shared, now, out);
                Next::Stay
            }
            (ToProposer::Halted(halted), Phase::Phase2(reign)) => {
                reign.on_halted(*halted, shared, now, out);
                Next::Stay
            }
            (
                ToProposer::Propose(propose),
                Phase::Following | Phase::PreVote(_) | Phase::Phase1(_),
            ) => {
                shared.refuse(&propose.batch, out);
                Next::Stay
            }
            (
                ToProposer::HeartbeatAck(ack),
                Phase::Following | Phase::PreVote(_) | Phase::Phase1(_),
            ) => {
                shared.hear_clock(&ack, now, out);
                Next::Stay
            }
            (
                ToProposer::Truncated(_)
                | ToProposer::Need(_)
                | ToProposer::Unserved(_)
                | ToProposer::Halted(_)
                | ToProposer::Skip(_)
                | ToProposer::FillTo(_),
                Phase::Following | Phase::PreVote(_) | Phase::Phase1(_),
            ) => {
                out.ignored("any of a leader's messages: we do not lead");
                Next::Stay
            }
        };
        self.enter(next, now, out);
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.shared.timers.take_due(now) {
            self.on_timeout(timer, now, out);
        }
    }

    /// Does what a timer asks for; nothing, if it is of a phase that has ended.
    pub fn on_timeout(&mut self, timer: ProposerTimer, now: Time, out: &mut Outbox) {
        let next = match timer {
            ProposerTimer::Formation => {
                self.shared.form(now, out);
                Next::Stay
            }
            ProposerTimer::Heartbeat => {
                self.heartbeat(now, out);
                Next::Stay
            }
            ProposerTimer::Election => self.election(now, out),
            ProposerTimer::Phase1 => match &self.phase {
                Phase::Phase1(campaign) => campaign.resend(&mut self.shared, now, out),
                Phase::Following | Phase::PreVote(_) | Phase::Phase2(_) => Next::Stay,
            },
            ProposerTimer::Resend => {
                if let Phase::Phase2(reign) = &mut self.phase {
                    reign.resend_if_due(&mut self.shared, now, out);
                }
                Next::Stay
            }
        };
        self.enter(next, now, out);
    }

    /// Takes in that the life of a role has ended, as its driver has seen: that it need not wait
    /// for its silence. The next proposer asks for pre-votes almost at once, the others a little
    /// later each.
    ///
    /// Nothing but time rests on it. If it is false, or of a former life, acceptors that still hear
    /// the leader refuse the pre-votes; and if they are misled as well, the leader is deposed as it
    /// would be after a silence: by a larger ballot, whose phase 1 finds what it has had chosen.
    ///
    /// source: R28, R29
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        let (has_ballot, shared) = (self.ballot().is_some(), &mut self.shared);
        match gone {
            RoleId::Proposer(gone) if shared.heard.is_some_and(|(_, heard)| heard == gone) => {
                (shared.heard, shared.leader) = (None, None);
                if !has_ballot && !shared.has_left && shared.membership.table().is_some() {
                    shared.hurry(gone, now);
                }
            }
            RoleId::Replica(gone) => shared.roster.on_gone(gone),
            RoleId::ProxyLeader(gone) => match &mut self.phase {
                Phase::Phase2(reign) => reign.on_gone(gone, now, out),
                Phase::Following | Phase::PreVote(_) | Phase::Phase1(_) => {
                    // It may have ended with the leader: the next one does without it.
                    let suspicion = shared.suspicions.get_mut(usize::from(gone.0));
                    let until = now + shared.cluster.election_timeout;
                    suspicion.into_iter().for_each(|suspicion| suspicion.until = Some(until));
                }
            },
            RoleId::Proposer(_) | RoleId::Gateway(_) | RoleId::Acceptor(_) => {}
        }
    }

    /// Hands over before a planned stop: tells the others not to wait for an election timeout.
    ///
    /// source: R28, "a leader told to stop announces a hand-over first"
    pub fn leave(&mut self, out: &mut Outbox) {
        self.hand_over(out);
        self.shared.timers.clear();
        self.shared.has_left = true;
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        let shared = &self.shared;
        if let Some(ballot) = self.ballot() {
            assert!(shared.former.standing().is_some(), "campaigned without a table");
            let is_ours = (ballot.proposer, ballot.incarnation) == (shared.id, shared.incarnation);
            assert!(is_ours, "campaigned in the ballot of another proposer or life: {ballot}");
            assert!(ballot <= shared.seen, "our own ballot was not seen");
        }
        if let Phase::Phase2(reign) = &self.phase {
            reign.validate();
            let is_watched = shared.timers.is_set(ProposerTimer::Resend);
            assert!(!reign.has_open() || is_watched, "a slot is open, and no timer");
        }
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<ProposerTimer, 5> {
        &mut self.shared.timers
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.shared.membership.formation()
    }

    /// The proposer's id.
    #[must_use]
    pub fn id(&self) -> ProposerId {
        self.shared.id
    }

    /// Whether it leads, as far as it knows.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        matches!(self.phase, Phase::Phase2(_))
    }

    /// The ballot it campaigns or leads in.
    #[must_use]
    pub fn ballot(&self) -> Option<Ballot> {
        match &self.phase {
            Phase::Following | Phase::PreVote(_) => None,
            Phase::Phase1(campaign) => Some(campaign.ballot),
            Phase::Phase2(reign) => Some(reign.ballot),
        }
    }

    /// The first slot it would fill next, while it leads.
    #[must_use]
    pub fn next_slot(&self) -> Option<Slot> {
        match &self.phase {
            Phase::Following | Phase::PreVote(_) | Phase::Phase1(_) => None,
            Phase::Phase2(reign) => Some(reign.next()),
        }
    }

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> ProposerCounters {
        self.shared.counters
    }

    /// Takes out what it did since this was last asked.
    pub fn take_counters(&mut self) -> ProposerCounters {
        std::mem::take(&mut self.shared.counters)
    }

    /// Counts a pre-vote, or hears an acceptor that a silent leader has asked.
    ///
    /// source: R4, R28
    fn on_pre_vote_ack(&mut self, ack: PreVoteAck, now: Time, out: &mut Outbox) -> Next {
        let shared = &mut self.shared;
        if !shared.counts(ack.acceptor, ack.directory, out) {
            return Next::Stay;
        }
        shared.seen = shared.seen.max(ack.promised);
        shared.hear_room(ack.acceptor, ack.is_low, now);
        match &mut self.phase {
            Phase::PreVote(asked) => asked.on_ack(ack, shared, now, out),
            Phase::Phase2(reign) => reign.on_pre_vote_ack(ack, now),
            Phase::Following | Phase::Phase1(_) => {
                out.ignored("PreVoteAck: no answer is awaited");
                Next::Stay
            }
        }
    }

    /// Takes in a page of a promise, while it campaigns.
    ///
    /// source: R4, R6
    fn on_p1b(&mut self, p1b: P1b, now: Time, out: &mut Outbox) -> Next {
        if !self.shared.counts(p1b.acceptor, p1b.directory, out) {
            return Next::Stay;
        }
        match &mut self.phase {
            Phase::Phase1(campaign) => campaign.on_p1b(p1b, self.shared.cluster.quorums, now, out),
            Phase::Following | Phase::PreVote(_) | Phase::Phase2(_) => {
                out.ignored("P1b: we do not campaign");
                Next::Stay
            }
        }
    }

    /// Steps down if it is our ballot that was refused.
    ///
    /// source: R13
    fn on_nack(&mut self, nack: Nack, out: &mut Outbox) -> Next {
        self.shared.seen = self.shared.seen.max(nack.promised);
        if self.ballot() == Some(nack.refused) && nack.refused < nack.promised {
            self.shared.counters.preemptions += 1;
            return Next::StepDown(nack.promised);
        }
        out.ignored("Nack: not of the ballot that we campaign or lead in");
        Next::Stay
    }

    /// Notes the leader; a higher ballot that leads ends ours.
    ///
    /// source: R28
    fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) -> Next {
        let (ours, shared) = (self.ballot(), &mut self.shared);
        if !shared.membership.join(&heartbeat.table) {
            shared.counters.foreign += 1;
            out.event(Event::Foreign { at: "proposer: heartbeat" });
            return Next::Stay;
        }
        shared.former.on_standing(&heartbeat.table);
        shared.after_formation_step(now, out);
        let ballot = heartbeat.ballot;
        if ballot < shared.seen {
            out.ignored("Heartbeat: a larger ballot was seen");
            return Next::Stay;
        }
        shared.seen = ballot;
        if ours.is_some_and(|ours| ours >= ballot) {
            return Next::Stay;
        }
        match heartbeat.stage {
            Stage::Waiting | Stage::Following => Next::Stay, // told to replicas only
            Stage::Campaigning => {
                shared.heard = Some((now, ballot.proposer));
                Next::Stay
            }
            Stage::Leading => {
                shared.heard = Some((now, ballot.proposer));
                shared.urgent_until = None;
                shared.leader = Some(ballot.proposer);
                if ours.is_none() {
                    return Next::Follow;
                }
                shared.counters.preemptions += 1;
                Next::StepDown(ballot)
            }
            Stage::Leaving => {
                (shared.heard, shared.leader) = (None, None);
                let turn = shared.cluster.heartbeat_interval * u32::from(shared.id.0);
                if !shared.has_left {
                    shared.timers.set(ProposerTimer::Election, now + turn);
                }
                Next::Stay
            }
        }
    }

    /// Notes how far a replica is; a leader closes slots by it.
    ///
    /// source: R5, R9
    fn on_executed(&mut self, executed: &Executed, now: Time, out: &mut Outbox) -> Next {
        if !self.shared.on_executed(executed, now, out) {
            return Next::Stay;
        }
        match &mut self.phase {
            Phase::Phase2(reign) => reign.on_executed(&mut self.shared, now, out),
            Phase::Following | Phase::PreVote(_) | Phase::Phase1(_) => Next::Stay,
        }
    }

    /// Asks whether it may campaign, unless it campaigns or leads, and sets when to look again.
    ///
    /// source: R28
    fn election(&mut self, now: Time, out: &mut Outbox) -> Next {
        self.shared.look_again(now);
        match &self.phase {
            Phase::Following => self.shared.election(None, now, out),
            Phase::PreVote(asked) => self.shared.election(Some(asked), now, out),
            Phase::Phase1(_) | Phase::Phase2(_) => Next::Stay,
        }
    }

    /// Says that it campaigns or leads.
    ///
    /// source: R28
    fn heartbeat(&mut self, now: Time, out: &mut Outbox) {
        match &mut self.phase {
            Phase::Following | Phase::PreVote(_) => {}
            Phase::Phase1(campaign) => campaign.heartbeat(&mut self.shared, now, out),
            Phase::Phase2(reign) => reign.heartbeat(&mut self.shared, now, out),
        }
    }
}
