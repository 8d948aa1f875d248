//! The proposer: claims the log, then sequences.
//!
//! ```text
//!            nobody heard         read and write         read quorum
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
//!  Truncated     leading                    closes slots                     Truncated, to who needed it
//!  Unserved      of a gateway that is not   hands over                        Heartbeat, of stage Leaving
//!                heard, for too long
//!  gone          the leader has ended       waits for it no more             PreVote, soon
//!                a proxy leader has ended   suspects it                      P2a of its slots, by another
//! ```
//!
//! Could two proposers both believe that they lead? Yes, and it does no harm: a value is chosen only by a
//! write quorum voting in one ballot; the later leader's read quorum has promised to refuse the earlier
//! one's ballot, and what had been chosen before is in what that quorum reported.

mod phase1;
mod phase2;

use std::sync::Arc;
use std::time::Duration;

use phase1::Phase1;
use phase2::{Admission, Phase2, Suspicion, Suspicions};

use crate::{
    AcceptorId, AcceptorSet, Ballot, Batch, ClusterSettings, Event, Executed, Form, FormationId,
    Formed, Former, Heartbeat, HeartbeatAck, Identify, Incarnation, Latency, Listener, Membership,
    Nack, Need, NotLeader, Outbox, P1b, PreVote, PreVoteAck, Probe, ProbeAck, Propose, ProposerId,
    ReplicaId, Rng, RoleId, Roster, Slot, Stage, Table, Time, TimerName, Timers, ToAcceptor,
    ToGateway, ToProposer, ToProxyLeader, ToReplica, Truncated, Unserved, Watcher, Watermark,
};

/// How many election timeouts f+1 replicas that replay may stay where they are, before a campaign proposes anew
/// what they do not get on with.
const REPLAY_PATIENCE: u32 = 2;

/// How often a leader's patience with a gateway that it does not hear doubles at the most.
const HAND_OVERS_MAX: u32 = 16;

/// How much later each proposer asks for pre-votes than the one before it, when the leader's life has ended, and how
/// often: acceptors come to know of it at other moments.
const EVIDENCE_STAGGER: Duration = Duration::from_millis(10);
const EVIDENCE_RETRY: Duration = Duration::from_millis(5);

/// What a proposer waits for.
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
    cluster: ClusterSettings,
    id: ProposerId,
    incarnation: Incarnation,
    former: Former,
    membership: Membership,
    /// The largest ballot seen anywhere: the next campaign outbids it. Never goes down.
    seen: Ballot,
    /// Who leads, as far as we know.
    leader: Option<ProposerId>,
    /// When another leader or candidate was last heard, and which.
    heard: Option<(Time, ProposerId)>,
    /// Until when it asks for pre-votes often: the life of the leader that it heard has ended.
    urgent_until: Option<Time>,
    phase: Phase,
    roster: Roster,
    /// From asking for a slot, the last time, to its execution by f+1 replicas: how long to wait before it is asked for
    /// again.
    latency: Latency,
    /// Likewise, from the first time: how long to wait before another may do better (R28).
    pace: Latency,
    /// Campaigns of ours in a row that elected nobody, or a leader who got nothing chosen: each doubles our patience
    /// (R28).
    fruitless_campaigns: u32,
    /// What proxy leaders were under suspicion for when it last led.
    suspicions: Suspicions,
    /// Acceptors whose logs had little room when they were last heard.
    low: AcceptorSet,
    /// Those of them for want of whose room nothing new was proposed, when that was last looked at.
    no_room: AcceptorSet,
    /// When each acceptor was last heard to say how much room it has.
    room_heard_at: Box<[Time]>,
    /// Of each gateway, what it says by way of acceptors.
    complaints: Box<[Complaint]>,
    /// Since when f+1 replicas have been where they are, while a campaign waits for them to replay.
    replay_awaited: Option<(Slot, Time)>,
    /// The last stamp given (R26). Never goes down.
    stamp: Time,
    /// Whether it was told to stop, and must not campaign any more.
    has_left: bool,
    rng: Rng,
    timers: Timers<ProposerTimer, 5>,
    counters: ProposerCounters,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Phase {
    /// Somebody else leads, or nobody.
    Following,
    /// Asking whether a campaign would disturb anybody.
    PreVote {
        nonce: u64,
        /// Who has heard nobody.
        quiet: AcceptorSet,
        /// Above every slot that any of them has voted in.
        votes_end: Watermark,
    },
    /// Campaigning.
    Phase1(Box<Phase1>),
    /// Leading.
    Phase2(Box<Phase2>),
}

/// That a gateway gets no answers from the leader we are, as acceptors have heard.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
struct Complaint {
    /// When it was first made, unless the gateway was heard since.
    since: Option<Time>,
    /// How often we have handed over for it since the gateway was last heard.
    hand_overs: u32,
}

/// What a proposer did.
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
    /// Campaigns for a slot that a replica could get from nobody (R8).
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
    /// Messages of acceptors that are not the table's, or of another cluster.
    pub foreign: u64,
}

impl Proposer {
    /// Returns a proposer that knows of no cluster yet.
    ///
    /// `incarnation` must never have been used by this proposer before (R2). Back-off and nonces follow
    /// from `seed`.
    #[must_use]
    pub fn new(
        cluster: ClusterSettings,
        id: ProposerId,
        incarnation: Incarnation,
        seed: u64,
        now: Time,
    ) -> Self {
        assert!(id.0 < cluster.proposers, "{id:?} is not in the cluster");
        let mut rng = Rng::new(seed);
        let nonce = rng.next_u64();
        let mut timers = Timers::default();
        timers.set(ProposerTimer::Formation, now);
        Self {
            id,
            incarnation,
            former: Former::new(cluster.quorums, cluster.digest(), cluster.replicas, nonce),
            membership: Membership::new(cluster.digest()),
            seen: Ballot::default(),
            leader: None,
            heard: None,
            urgent_until: None,
            phase: Phase::Following,
            roster: Roster::new(cluster.replicas, rng.next_u64()),
            latency: Latency::default(),
            pace: Latency::default(),
            fruitless_campaigns: 0,
            suspicions: vec![Suspicion::default(); cluster.proxy_leaders_running().into()].into(),
            low: AcceptorSet::default(),
            no_room: AcceptorSet::default(),
            room_heard_at: vec![Time(0); cluster.quorums.acceptors_count().into()].into(),
            complaints: vec![Complaint::default(); cluster.gateways.into()].into(),
            replay_awaited: None,
            stamp: Time(0),
            has_left: false,
            rng,
            timers,
            counters: ProposerCounters::default(),
            cluster,
        }
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToProposer, now: Time, out: &mut Outbox) {
        match message {
            ToProposer::ProbeAck(ack) => self.on_probe_ack(&ack, now, out),
            ToProposer::Formed(formed) => self.on_formed(&formed, now, out),
            ToProposer::PreVoteAck(ack) => self.on_pre_vote_ack(ack, now, out),
            ToProposer::P1b(p1b) => self.on_p1b(*p1b, now, out),
            ToProposer::Nack(nack) => self.on_nack(nack, now, out),
            ToProposer::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now, out),
            ToProposer::HeartbeatAck(ack) => self.on_heartbeat_ack(ack, now),
            ToProposer::Propose(propose) => self.on_propose(propose, now, out),
            ToProposer::Truncated(truncated) => self.on_truncated(truncated, now, out),
            ToProposer::Executed(executed) => self.on_executed(&executed, now, out),
            ToProposer::Need(need) => self.on_need(need, now, out),
            ToProposer::Unserved(unserved) => self.on_unserved(unserved, now, out),
        }
    }

    /// Formation: counts a memory.
    ///
    /// source: R4
    pub fn on_probe_ack(&mut self, ack: &ProbeAck, now: Time, out: &mut Outbox) {
        let next_nonce = self.rng.next_u64();
        let goes_on = self.former.on_probe_ack(ack, next_nonce);
        self.after_formation_step(now, out);
        if goes_on {
            self.form(now, out);
        }
    }

    /// Formation: counts a stored table.
    ///
    /// source: R4
    pub fn on_formed(&mut self, formed: &Formed, now: Time, out: &mut Outbox) {
        self.former.on_formed(formed);
        self.after_formation_step(now, out);
    }

    /// Campaigns once a read and a write quorum of acceptors have heard nobody for an election timeout:
    /// whom we would depose would have been heard by one of them.
    ///
    /// source: R28
    pub fn on_pre_vote_ack(&mut self, ack: PreVoteAck, now: Time, out: &mut Outbox) {
        if !self.counts(ack.acceptor, ack.directory, out) {
            return;
        }
        self.seen = self.seen.max(ack.promised);
        self.hear_room(ack.acceptor, ack.is_low, now);
        let (nonce, quiet, votes_end) = match &mut self.phase {
            Phase::PreVote { nonce, quiet, votes_end } => (nonce, quiet, votes_end),
            Phase::Phase2(phase2) => {
                // We asked because we had fallen silent: somebody hears us, or has a better leader.
                if ack.promised > phase2.ballot {
                    return self.step_down(ack.promised, now, out);
                }
                return phase2.on_acceptor(ack.acceptor, now);
            }
            Phase::Following | Phase::Phase1(_) => return,
        };
        if ack.nonce != *nonce || !ack.is_quiet {
            return;
        }
        quiet.insert(ack.acceptor);
        votes_end.raise(ack.votes_end);
        let (quorums, votes_end) = (self.cluster.quorums, *votes_end);
        if quorums.is_read_quorum(*quiet) && quorums.is_write_quorum(*quiet) {
            let first = self.roster.executed_by_f_plus_1(self.cluster.f).first_open();
            if self.awaits_replay(first, votes_end, now) {
                self.await_replay(now, out);
            } else {
                self.campaign(first, None, now, out);
            }
        }
    }

    /// Whether replicas should rather replay what acceptors hold than have it all proposed anew: there is more
    /// than a reign leaves behind, as when everybody was stopped, and they get on. A campaign then would
    /// recover, keep and write again the whole log.
    ///
    /// Waiting ends: votes are added by leaders only, and f+1 replicas that are stuck are not waited for. With
    /// fewer than f+1 there, nothing could be executed by enough, whoever led.
    fn awaits_replay(&mut self, first: Slot, votes_end: Watermark, now: Time) -> bool {
        if votes_end.0.saturating_sub(first.0) <= self.cluster.ring_slots().into() {
            self.replay_awaited = None;
            return false;
        }
        let are_here = self.roster.known_count() > usize::from(self.cluster.f);
        match self.replay_awaited.filter(|(at, _)| *at == first && are_here) {
            Some((_, since)) => now.since(since) < REPLAY_PATIENCE * self.cluster.election_timeout,
            None => {
                self.replay_awaited = Some((first, now));
                true
            }
        }
    }

    /// Has replicas replay, and asks again soon whether to campaign.
    fn await_replay(&mut self, now: Time, out: &mut Outbox) {
        self.say_heartbeat_to_replicas(self.seen, Stage::Waiting, out);
        self.counters.waits += 1;
        self.phase = Phase::Following;
        self.timers.set(ProposerTimer::Election, now + self.cluster.heartbeat_interval);
    }

    /// Phase 1: takes in a page of a promise; the one that completes a read quorum ends it.
    ///
    /// source: R4, R6, \[CP §2.1\]
    pub fn on_p1b(&mut self, p1b: P1b, now: Time, out: &mut Outbox) {
        if !self.counts(p1b.acceptor, p1b.directory, out) {
            return;
        }
        let Phase::Phase1(phase1) = &mut self.phase else {
            return;
        };
        if p1b.ballot != phase1.ballot {
            return; // an answer to a campaign since abandoned
        }
        let acceptor = p1b.acceptor;
        if !phase1.on_page(p1b, now) {
            return;
        }
        if phase1.is_done(self.cluster.quorums) {
            self.lead(now, out);
        } else if let Some(p1a) = phase1.p1a_for(acceptor) {
            out.tell_acceptor(acceptor, ToAcceptor::P1a(p1a));
        }
    }

    /// Gives a batch the next slot, or says who might. One that has overtaken others of its gateway waits for them.
    ///
    /// source: R9, R24, \[CP §4.1\]
    pub fn on_propose(&mut self, propose: Propose, now: Time, out: &mut Outbox) {
        let Phase::Phase2(phase2) = &mut self.phase else {
            return self.refuse(&propose.batch, out);
        };
        let id = propose.batch.id;
        if id.gateway.0 >= self.cluster.gateways || propose.lowest > id.number {
            self.counters.foreign += 1;
            return;
        }
        self.complaints[usize::from(id.gateway.0)] = Complaint::default();
        match phase2.admit(propose, now) {
            Admission::Accepted => self.pump(now, out),
            Admission::Early => self.counters.early += 1,
            Admission::Duplicate => self.counters.duplicates += 1,
            Admission::Dropped => self.counters.dropped += 1,
        }
    }

    /// Steps down if it is our ballot that was refused.
    ///
    /// source: R13
    pub fn on_nack(&mut self, nack: Nack, now: Time, out: &mut Outbox) {
        self.seen = self.seen.max(nack.promised);
        if self.ballot() == Some(nack.refused) && nack.refused < nack.promised {
            self.counters.preemptions += 1;
            self.step_down(nack.promised, now, out);
        }
    }

    /// Notes who leads; a higher ballot that leads ends ours.
    ///
    /// source: R28
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) {
        if !self.membership.join(&heartbeat.table) {
            self.counters.foreign += 1;
            return out.event(Event::Foreign { at: "proposer: heartbeat" });
        }
        self.former.on_standing(&heartbeat.table);
        self.after_formation_step(now, out);
        let ballot = heartbeat.ballot;
        if ballot < self.seen {
            return;
        }
        self.seen = ballot;
        if self.ballot().is_some_and(|ours| ours >= ballot) {
            return;
        }
        match heartbeat.stage {
            Stage::Waiting | Stage::Following => {} // told to replicas only
            Stage::Campaigning => self.heard = Some((now, ballot.proposer)),
            Stage::Leading => {
                self.heard = Some((now, ballot.proposer));
                self.urgent_until = None;
                self.leader = Some(ballot.proposer);
                if self.ballot().is_some() {
                    self.counters.preemptions += 1;
                    self.step_down(ballot, now, out);
                } else if matches!(self.phase, Phase::PreVote { .. }) {
                    self.phase = Phase::Following;
                }
            }
            Stage::Leaving => {
                (self.heard, self.leader) = (None, None);
                let turn = self.cluster.heartbeat_interval * u32::from(self.id.0);
                if !self.has_left {
                    self.timers.set(ProposerTimer::Election, now + turn);
                }
            }
        }
    }

    /// Notes who hears us.
    ///
    /// source: R28
    pub fn on_heartbeat_ack(&mut self, ack: HeartbeatAck, now: Time) {
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        if ack.ballot != phase2.ballot {
            return;
        }
        match ack.from {
            Listener::Acceptor(acceptor) => {
                phase2.on_acceptor(acceptor, now);
                self.hear_room(acceptor, ack.is_low, now);
            }
            Listener::ProxyLeader(proxy_leader) => phase2.on_proxy_leader(proxy_leader, now),
            Listener::Gateway(gateway) => {
                if let Some(complaint) = self.complaints.get_mut(usize::from(gateway.0)) {
                    *complaint = Complaint::default();
                }
            }
        }
    }

    /// Notes how far a replica is: closes slots, and fills as many as that gives credit for.
    ///
    /// source: R5, R9, R29
    pub fn on_executed(&mut self, executed: &Executed, now: Time, out: &mut Outbox) {
        if let Some(nonce) = self.roster.on_executed(executed, now) {
            let identify = Identify { watcher: Watcher::Proposer(self.id), nonce };
            return out.tell_replica(executed.replica, ToReplica::Identify(identify));
        }
        self.roster.note_progress(self.cluster.f, now);
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        if let Some(closed) = phase2.close(&self.roster, now, out) {
            self.latency.sample(closed.since_last_ask);
            self.pace.sample(closed.since_first_ask);
            self.fruitless_campaigns = 0;
            if std::mem::take(&mut phase2.is_silent) {
                self.timers.set(ProposerTimer::Heartbeat, now);
            }
        }
        self.go_on(now, out);
    }

    /// Sees to a replica that can get a slot from nobody.
    ///
    /// An open slot is asked for again. One that we closed, or never covered, is not in our hands: to
    /// know what was chosen there takes a phase 1 that covers it, in a new ballot. Until that is over,
    /// or while one is under way, the question is dropped: it will come again.
    ///
    /// A leader that is stalled serves the request, too: the asker may be the replica without which nothing is
    /// executed by f+1.
    ///
    /// source: R8, R28
    pub fn on_need(&mut self, need: Need, now: Time, out: &mut Outbox) {
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        if self.roster.incarnation(need.replica) != Some(need.incarnation) {
            return;
        }
        if !phase2.floor().covers(need.slot) {
            return phase2.resend_one(need.slot, now, out);
        }
        // The asker may have been served since. And a leader that no read quorum has heard of late, such as one
        // that was paused, must not depose a leader it does not know of: a rerun asks no pre-vote.
        let is_served = self.roster.executed(need.replica).covers(need.slot);
        if phase2.rerun.is_some() || is_served || !self.is_heard(now) {
            return;
        }
        self.counters.reruns += 1;
        self.campaign(need.slot, Some((need.replica, need.incarnation)), now, out);
    }

    /// Hands over to a proposer that may reach a gateway which does not reach us, after the time that a leader that is
    /// stalled has.
    ///
    /// The next one may do no better, and another gateway may need us: so each hand-over for a gateway that is not
    /// heard afterwards doubles the time until the next, and one that is half connected hardly disturbs the others.
    /// Only time rests on it: it is an election like any other.
    ///
    /// source: R28
    pub fn on_unserved(&mut self, unserved: Unserved, now: Time, out: &mut Outbox) {
        let Phase::Phase2(phase2) = &self.phase else {
            return;
        };
        let (ballot, patience) = (phase2.ballot, self.patience());
        let Some(complaint) = self.complaints.get_mut(usize::from(unserved.gateway.0)) else {
            self.counters.foreign += 1;
            return;
        };
        let since = *complaint.since.get_or_insert(now);
        if now.since(since) < patience * (1 << complaint.hand_overs.min(HAND_OVERS_MAX)) {
            return;
        }
        complaint.hand_overs += 1;
        self.counters.hand_overs += 1;
        out.event(Event::HandedOver { ballot, unserved: unserved.gateway });
        self.hand_over(out);
        self.back_off(now);
    }

    /// Takes in that the life of a role has ended, as its driver has seen: that it need not wait for its silence. The
    /// next proposer asks for pre-votes almost at once, the others a little later each.
    ///
    /// Nothing but time rests on it. If it is false, or of a former life, acceptors that still hear the leader refuse
    /// the pre-votes; and if they are misled as well, the leader is deposed as it would be after a silence: by a larger
    /// ballot, whose phase 1 finds what it has had chosen.
    ///
    /// source: R28, R29
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        match gone {
            RoleId::Proposer(gone) if self.heard.is_some_and(|(_, heard)| heard == gone) => {
                (self.heard, self.leader) = (None, None);
                if self.ballot().is_none() && !self.has_left && self.membership.table().is_some() {
                    let count = self.cluster.proposers;
                    let turn = (self.id.0 + count - gone.0 - 1) % count;
                    self.urgent_until = Some(now + self.cluster.election_timeout);
                    self.timers
                        .set(ProposerTimer::Election, now + EVIDENCE_STAGGER * u32::from(turn));
                }
            }
            RoleId::Replica(gone) => self.roster.on_gone(gone),
            RoleId::ProxyLeader(gone) => match &mut self.phase {
                Phase::Phase2(phase2) => phase2.on_gone(gone, now, out),
                Phase::Following | Phase::PreVote { .. } | Phase::Phase1(_) => {
                    // It may have ended with the leader: who follows that does without it.
                    let suspicion = self.suspicions.get_mut(usize::from(gone.0));
                    let until = now + self.cluster.election_timeout;
                    suspicion.into_iter().for_each(|suspicion| suspicion.until = Some(until));
                }
            },
            RoleId::Proposer(_) | RoleId::Gateway(_) | RoleId::Acceptor(_) => {}
        }
    }

    /// Closes what was chosen, executed and forgotten long ago.
    ///
    /// source: R10
    pub fn on_truncated(&mut self, truncated: Truncated, now: Time, out: &mut Outbox) {
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        if truncated.ballot != phase2.ballot {
            return;
        }
        if let Some(rerun) = phase2.rerun {
            out.tell_replica(rerun.replica, ToReplica::Truncated(truncated));
        }
        phase2.on_truncated(truncated.truncated, now);
        self.go_on(now, out);
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timeout(timer, now, out);
        }
    }

    /// Does what a timer asks for.
    pub fn on_timeout(&mut self, timer: ProposerTimer, now: Time, out: &mut Outbox) {
        match timer {
            ProposerTimer::Formation => self.form(now, out),
            ProposerTimer::Heartbeat => self.heartbeat(now, out),
            ProposerTimer::Election => self.election(now, out),
            ProposerTimer::Phase1 => self.resend_p1a(now, out),
            ProposerTimer::Resend => self.resend(now, out),
        }
    }

    /// Hands over before a planned stop: tells the others not to wait for an election timeout.
    ///
    /// source: R28, "a leader told to stop announces a hand-over first"
    pub fn leave(&mut self, out: &mut Outbox) {
        self.hand_over(out);
        self.timers.clear();
        self.has_left = true;
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        if let Some(ballot) = self.ballot() {
            assert!(self.former.standing().is_some(), "campaigned without a table");
            let is_ours = (ballot.proposer, ballot.incarnation) == (self.id, self.incarnation);
            assert!(is_ours, "campaigned in somebody else's ballot {ballot}");
            assert!(ballot <= self.seen, "our own ballot was not seen");
        }
        if let Phase::Phase2(phase2) = &self.phase {
            phase2.validate();
            let is_idle = !phase2.has_open();
            assert!(
                is_idle || self.timers.is_set(ProposerTimer::Resend),
                "a slot is open, and no timer"
            );
        }
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<ProposerTimer, 5> {
        &mut self.timers
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// Which proposer it is.
    #[must_use]
    pub fn id(&self) -> ProposerId {
        self.id
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
            Phase::Following | Phase::PreVote { .. } => None,
            Phase::Phase1(phase1) => Some(phase1.ballot),
            Phase::Phase2(phase2) => Some(phase2.ballot),
        }
    }

    /// The first slot it would fill next, while it leads.
    #[must_use]
    pub fn next_slot(&self) -> Option<Slot> {
        match &self.phase {
            Phase::Following | Phase::PreVote { .. } | Phase::Phase1(_) => None,
            Phase::Phase2(phase2) => Some(phase2.next()),
        }
    }

    /// What it did.
    #[must_use]
    pub fn counters(&self) -> ProposerCounters {
        self.counters
    }

    /// Takes out what it did since this was last asked.
    pub fn take_counters(&mut self) -> ProposerCounters {
        std::mem::take(&mut self.counters)
    }

    /// Asks for the memories, or tables, that formation misses.
    fn form(&mut self, now: Time, out: &mut Outbox) {
        if self.former.standing().is_some() {
            return;
        }
        self.timers.set(ProposerTimer::Formation, now + self.cluster.heartbeat_interval);
        if let Some(nonce) = self.former.probe_nonce() {
            let cluster_digest = self.cluster.digest();
            let probe = Probe { proposer: self.id, nonce, cluster_digest };
            for acceptor in self.cluster.quorums.acceptors().iter() {
                out.tell_acceptor(acceptor, ToAcceptor::Probe(probe));
            }
            for replica in self.roster.replicas() {
                out.tell_replica(replica, ToReplica::Probe(probe));
            }
        }
        self.say_form(out);
    }

    /// Offers the table to every acceptor that is not known to have one.
    ///
    /// source: R4
    fn say_form(&self, out: &mut Outbox) {
        let Some((table, missing)) = self.former.to_store() else { return };
        for acceptor in missing.iter() {
            let form = Form { proposer: self.id, table: Arc::clone(table) };
            out.tell_acceptor(acceptor, ToAcceptor::Form(form));
        }
    }

    /// Joins the table once it stands; proposer 0 then campaigns at once, the others in their turn.
    fn after_formation_step(&mut self, now: Time, out: &mut Outbox) {
        let Some(table) = self.former.standing() else { return };
        let is_new = self.membership.table().is_none();
        if is_new && self.membership.join(&Arc::clone(table)) {
            let formation = table.id();
            out.event(Event::Formed { proposer: self.id, formation });
        }
        if !self.timers.is_set(ProposerTimer::Election) && !self.has_left {
            let turn = self.cluster.election_stagger * u32::from(self.id.0);
            self.timers.set(ProposerTimer::Election, now + turn);
            self.timers.stop(ProposerTimer::Formation);
        }
    }

    /// Nobody was heard for a while: asks whether we may campaign.
    ///
    /// source: R28
    fn election(&mut self, now: Time, out: &mut Outbox) {
        let cluster = &self.cluster;
        let again = cluster.election_timeout / 2 + self.rng.up_to(cluster.election_stagger);
        self.timers.set(ProposerTimer::Election, now + again);
        if self.ballot().is_some() || self.membership.table().is_none() {
            return;
        }
        let patience = cluster.election_timeout + cluster.election_stagger * u32::from(self.id.0);
        if let Some((at, _)) = self.heard.filter(|(at, _)| now.since(*at) < patience) {
            self.timers.set(ProposerTimer::Election, at + patience);
            return self.say_heartbeat_to_replicas(self.seen, Stage::Following, out);
        }
        self.urgent_until.take_if(|until| *until <= now);
        if self.urgent_until.is_some() {
            // Acceptors may come to know of it a little later: they are asked again, and what the others have said
            // meanwhile still counts.
            self.timers.set(ProposerTimer::Election, now + EVIDENCE_RETRY);
            if let Phase::PreVote { nonce, .. } = self.phase {
                return self.say_pre_vote(nonce, out);
            }
        }
        self.say_heartbeat_to_replicas(self.seen, Stage::Following, out);
        self.leader = None;
        self.counters.pre_votes += 1;
        let nonce = self.rng.next_u64();
        let quiet = AcceptorSet::default();
        self.phase = Phase::PreVote { nonce, quiet, votes_end: Watermark(0) };
        self.say_form(out); // who has no table cannot answer
        self.say_pre_vote(nonce, out);
    }

    fn say_pre_vote(&self, nonce: u64, out: &mut Outbox) {
        for acceptor in self.cluster.quorums.acceptors().iter() {
            let pre_vote = PreVote { proposer: self.id, nonce };
            out.tell_acceptor(acceptor, ToAcceptor::PreVote(pre_vote));
        }
    }

    /// Starts phase 1 in a ballot larger than any seen, over all slots from `first` on.
    ///
    /// `first` is what f+1 replicas have executed, or, in a rerun, the slot that a replica needs. An old
    /// reign's open slots are dropped: what of them was chosen, phase 1 finds. A leader that goes on in a new ballot is
    /// no better for it: its patience is what it was, or one that achieves nothing would lead for as long as anybody
    /// asks it for reruns.
    ///
    /// source: R5, R8, R28, \[CP §2.1\]
    fn campaign(
        &mut self,
        first: Slot,
        rerun_for: Option<(ReplicaId, Incarnation)>,
        now: Time,
        out: &mut Outbox,
    ) {
        let Some(table) = self.membership.table().cloned() else { return };
        let before = (self.complaints.clone(), self.fruitless_campaigns);
        let goes_on = self.is_leading();
        self.give_up(out);
        if goes_on {
            (self.complaints, self.fruitless_campaigns) = before;
        }
        let round = self.seen.round + 1;
        let ballot = Ballot { round, proposer: self.id, incarnation: self.incarnation };
        assert!(ballot > self.seen, "{ballot} does not outbid {}", self.seen);
        self.seen = ballot;
        self.counters.campaigns += 1;
        let phase1 = Phase1::new(&self.cluster, ballot, first, now, rerun_for);
        self.phase = Phase::Phase1(Box::new(phase1));
        self.say_heartbeat(ballot, Stage::Campaigning, &table, out);
        self.timers.set(ProposerTimer::Heartbeat, now + self.cluster.heartbeat_interval);
        self.resend_p1a(now, out);
    }

    /// Asks for the pages that phase 1 misses; gives up when nothing new has come for an election
    /// timeout: another may be luckier.
    ///
    /// Each time that was in vain, the next campaign waits twice as long: where syncs take longer than an election
    /// timeout, a promise comes later than that, and a campaign that never waits for it elects nobody.
    ///
    /// source: R5, R28
    fn resend_p1a(&mut self, now: Time, out: &mut Outbox) {
        let Phase::Phase1(phase1) = &self.phase else {
            return;
        };
        if now.since(phase1.progress_at) >= self.grown(self.cluster.election_timeout) {
            let ballot = phase1.ballot;
            out.event(Event::CampaignFailed { ballot });
            self.fruitless_campaigns += 1;
            self.give_up(out);
            return self.back_off(now);
        }
        for acceptor in self.cluster.quorums.acceptors().iter() {
            if let Some(p1a) = phase1.p1a_for(acceptor) {
                out.tell_acceptor(acceptor, ToAcceptor::P1a(p1a));
            }
        }
        self.timers.set(ProposerTimer::Phase1, now + 2 * self.cluster.resend_min);
    }

    /// Ends phase 1: every slot that it covers and somebody voted in, or that lies between such, is
    /// proposed anew in our ballot. This happens once a ballot, because the campaign ends here.
    ///
    /// source: R7
    fn lead(&mut self, now: Time, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Following);
        let Phase::Phase1(phase1) = phase else { unreachable!("only a candidate is elected") };
        let (ballot, first, rerun_for) = (phase1.ballot, phase1.first(), phase1.rerun_for);
        let recovered = phase1.finish(self.cluster.quorums);
        let noops = recovered.values.iter().filter(|v| v.is_none()).count() as u64;
        let stamps = recovered.values.iter().flatten().map(|value| value.stamp);
        self.stamp = stamps.fold(self.stamp, Time::max);
        if let (Some((replica, _)), None) = (rerun_for, recovered.rerun_for) {
            let (slot, truncated) = (first, recovered.truncated);
            let truncated = Truncated { acceptor: None, slot, ballot, truncated };
            out.tell_replica(replica, ToReplica::Truncated(truncated));
        }
        let mut phase2 = Phase2::new(&self.cluster, ballot, recovered, self.stamp, now);
        phase2.suspicions.clone_from(&self.suspicions);
        self.counters.elections += 1;
        self.counters.noops += noops;
        self.leader = Some(self.id);
        out.event(Event::Elected { ballot, first, next: phase2.next(), noops });
        self.phase = Phase::Phase2(Box::new(phase2));
        self.timers.stop(ProposerTimer::Phase1);
        self.heartbeat(now, out);
        self.pump(now, out);
    }

    /// Notes how much room an acceptor has.
    fn hear_room(&mut self, acceptor: AcceptorId, is_low: bool, now: Time) {
        let Some(heard_at) = self.room_heard_at.get_mut(usize::from(acceptor.0)) else { return };
        *heard_at = now;
        if is_low {
            self.low.insert(acceptor);
        } else {
            self.low.remove(acceptor);
        }
    }

    /// The acceptors for want of whose room nothing can be proposed for the first time: those that are low, if a write
    /// quorum was heard within an election timeout, and none without them. None if something can be.
    ///
    /// What they refuse would hold up all that comes behind it until the next leader, which would do no better; and each
    /// election takes some of the room that is left. So a cluster whose logs are low has a leader, and stands still,
    /// until there is room. A leader that does not hear a write quorum cannot tell: it proposes, and if it stalls, another
    /// may do better.
    ///
    /// source: R34
    fn wanting_room(&self, now: Time) -> AcceptorSet {
        if self.low.is_empty() {
            return self.low;
        }
        let quorums = self.cluster.quorums;
        let is_heard = |acceptor: &AcceptorId| {
            now.since(self.room_heard_at[usize::from(acceptor.0)]) < self.cluster.election_timeout
        };
        let heard: AcceptorSet = quorums.acceptors().iter().filter(is_heard).collect();
        let is_wanted =
            quorums.is_write_quorum(heard) && !quorums.is_write_quorum(heard.without(self.low));
        if is_wanted { self.low } else { AcceptorSet::default() }
    }

    /// Goes on after slots were closed. If that was the last of a part of the log, phase 1 has to find what
    /// comes above: in a new ballot, for this one's has found what it was asked for.
    ///
    /// source: R8, R29
    fn go_on(&mut self, now: Time, out: &mut Outbox) {
        let is_over = matches!(&self.phase, Phase::Phase2(phase2) if phase2.is_over());
        if is_over && self.is_heard(now) {
            let first = self.roster.executed_by_f_plus_1(self.cluster.f).first_open();
            return self.campaign(first, None, now, out);
        }
        self.pump(now, out);
    }

    /// Asks for all slots there is credit for.
    fn pump(&mut self, now: Time, out: &mut Outbox) {
        self.no_room = self.wanting_room(now);
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        self.stamp = self.stamp.max(now);
        phase2.has_room = self.no_room.is_empty();
        self.counters.proposed += phase2.pump(&self.roster, self.stamp, now, out);
        match phase2.resend_at(&self.latency) {
            // Only ever later than what is set: the timer looks again when it fires.
            Some(at) => self.timers.set_if_unset(ProposerTimer::Resend, at),
            None => self.timers.stop(ProposerTimer::Resend),
        }
    }

    /// Asks again for slots that make no progress.
    ///
    /// source: R9
    fn resend(&mut self, now: Time, out: &mut Outbox) {
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        let due = phase2.resend_at(&self.latency);
        if due.is_some_and(|at| at <= now) {
            self.counters.resent += phase2.resend(now, out);
        }
        if let Some(at) = phase2.resend_at(&self.latency) {
            self.timers.set(ProposerTimer::Resend, at);
        }
        self.pump(now, out);
    }

    /// Says that we are here; or falls silent towards acceptors and proposers, if being heard there only keeps a
    /// better leader away.
    ///
    /// Proxy leaders, replicas and gateways hear of the table and the ballot all the while: what they do with it may
    /// be the progress that is missing. A replica that has just started, for example, learns the table from here
    /// only, and f+1 may not be there without it. It keeps no other leader away, because none of them is asked
    /// before a campaign.
    ///
    /// source: R28
    fn heartbeat(&mut self, now: Time, out: &mut Outbox) {
        let Some(table) = self.membership.table().cloned() else { return };
        let ballot = match &self.phase {
            Phase::Following | Phase::PreVote { .. } => return,
            Phase::Phase1(phase1) => {
                self.say_heartbeat(phase1.ballot, Stage::Campaigning, &table, out);
                return self
                    .timers
                    .set(ProposerTimer::Heartbeat, now + self.cluster.heartbeat_interval);
            }
            Phase::Phase2(phase2) => phase2.ballot,
        };
        self.timers.set(ProposerTimer::Heartbeat, now + self.cluster.heartbeat_interval);
        // There may be room by now, or none; and a replica that is silent or stands still has given its credit up.
        self.pump(now, out);
        let is_useless = self.is_useless(now);
        let Phase::Phase2(phase2) = &mut self.phase else {
            return;
        };
        let was_silent = std::mem::replace(&mut phase2.is_silent, is_useless);
        self.say_heartbeat_to_followers(ballot, Stage::Leading, &table, out);
        if !is_useless {
            self.say_heartbeat_to_electors(ballot, Stage::Leading, &table, out);
        } else {
            if !was_silent {
                out.event(Event::Silenced { ballot });
            }
            // Whether acceptors are back is asked in a way that does not count as being heard.
            self.say_pre_vote(0, out);
        }
    }

    /// Whether another might do better: no read quorum hears us, or nothing gets chosen although something is open.
    ///
    /// source: R28
    fn is_useless(&self, now: Time) -> bool {
        let Phase::Phase2(phase2) = &self.phase else {
            return false;
        };
        let patience = self.patience();
        let is_stalled = phase2.stalled_since().is_some_and(|since| now.since(since) >= patience);
        is_stalled || !self.is_heard(now)
    }

    /// How long a leader goes on that achieves nothing, before it makes way.
    ///
    /// source: R28
    fn patience(&self) -> Duration {
        let measured = (8 * self.pace.estimate()).min(8 * self.cluster.resend_max);
        self.grown((2 * self.cluster.election_timeout).max(measured))
    }

    /// Patience, as it has grown by campaigns that were in vain.
    ///
    /// source: R28
    fn grown(&self, patience: Duration) -> Duration {
        patience * (1 << self.fruitless_campaigns.min(6))
    }

    /// Whether a read quorum of acceptors has heard us within an election timeout.
    ///
    /// source: R28
    fn is_heard(&self, now: Time) -> bool {
        let Phase::Phase2(phase2) = &self.phase else {
            return false;
        };
        let timeout = self.cluster.election_timeout;
        let heard = phase2.acceptors_heard_at.iter().zip(0..);
        let hearing: AcceptorSet = heard
            .filter(|(at, _)| now.since(**at) < timeout)
            .map(|(_, acceptor)| AcceptorId(acceptor))
            .collect();
        self.cluster.quorums.is_read_quorum(hearing)
    }

    /// What is known to be chosen: what f+1 replicas have executed, or acceptors have truncated. The
    /// latter may be more: of the f+1 that had executed it one may have died since, and the others do not
    /// know of what they miss but by this.
    fn chosen_watermark(&self) -> Watermark {
        let executed = self.roster.executed_by_f_plus_1(self.cluster.f);
        match &self.phase {
            Phase::Phase2(phase2) => executed.max(phase2.floor()),
            Phase::Following | Phase::PreVote { .. } | Phase::Phase1(_) => executed,
        }
    }

    fn say_heartbeat(&self, ballot: Ballot, stage: Stage, table: &Arc<Table>, out: &mut Outbox) {
        self.say_heartbeat_to_electors(ballot, stage, table, out);
        self.say_heartbeat_to_followers(ballot, stage, table, out);
    }

    /// Tells those without whose silence nobody campaigns.
    fn say_heartbeat_to_electors(
        &self,
        ballot: Ballot,
        stage: Stage,
        table: &Arc<Table>,
        out: &mut Outbox,
    ) {
        let chosen = self.chosen_watermark();
        let no_room = AcceptorSet::default();
        let heartbeat = || Heartbeat { ballot, stage, chosen, no_room, table: Arc::clone(table) };
        for acceptor in self.cluster.quorums.acceptors().iter() {
            out.tell_acceptor(acceptor, ToAcceptor::Heartbeat(heartbeat()));
        }
        for proposer in self.cluster.all_proposers().filter(|p| *p != self.id) {
            out.tell_proposer(proposer, ToProposer::Heartbeat(heartbeat()));
        }
    }

    /// Tells those that work for the leader.
    fn say_heartbeat_to_followers(
        &self,
        ballot: Ballot,
        stage: Stage,
        table: &Arc<Table>,
        out: &mut Outbox,
    ) {
        let chosen = self.chosen_watermark();
        let no_room = self.no_room;
        let heartbeat = || Heartbeat { ballot, stage, chosen, no_room, table: Arc::clone(table) };
        for proxy_leader in self.cluster.all_proxy_leaders() {
            out.tell_proxy_leader(proxy_leader, ToProxyLeader::Heartbeat(heartbeat()));
        }
        self.say_heartbeat_to_replicas(ballot, stage, out);
        for gateway in (0..self.cluster.gateways).map(crate::GatewayId) {
            out.tell_gateway(gateway, ToGateway::Heartbeat(heartbeat()));
        }
    }

    /// Tells replicas the table, and how far the others are. Proposers that follow do so, too, once in an election timeout: a
    /// replica that does not hear the leader would know of neither, and not that it misses anything.
    ///
    /// source: R4, R15
    fn say_heartbeat_to_replicas(&self, ballot: Ballot, stage: Stage, out: &mut Outbox) {
        let Some(table) = self.membership.table() else { return };
        let chosen = self.chosen_watermark();
        for replica in self.roster.replicas() {
            let (no_room, table) = (AcceptorSet::default(), Arc::clone(table));
            let heartbeat = Heartbeat { ballot, stage, chosen, no_room, table };
            out.tell_replica(replica, ToReplica::Heartbeat(heartbeat));
        }
    }

    /// Ends a campaign or reign, and has the others not wait for an election timeout.
    fn hand_over(&mut self, out: &mut Outbox) {
        if let (Some(ballot), Some(table)) = (self.ballot(), self.membership.table().cloned()) {
            self.say_heartbeat(ballot, Stage::Leaving, &table, out);
        }
        self.leader = None;
        self.give_up(out);
    }

    /// Ends a campaign or reign that a larger ballot has overtaken.
    fn step_down(&mut self, promised: Ballot, now: Time, out: &mut Outbox) {
        if let Some(ballot) = self.ballot() {
            out.event(Event::SteppedDown { ballot, promised });
        }
        self.leader = Some(promised.proposer).filter(|winner| *winner != self.id);
        self.give_up(out);
        self.heard = Some((now, promised.proposer));
        self.back_off(now);
    }

    /// Drops whatever belongs to the campaign or reign: open slots, timers, and what waits for a slot,
    /// whose gateways are told.
    ///
    /// source: R9
    fn give_up(&mut self, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Following);
        self.complaints.iter_mut().for_each(|complaint| complaint.since = None);
        for timer in [ProposerTimer::Heartbeat, ProposerTimer::Phase1, ProposerTimer::Resend] {
            self.timers.stop(timer);
        }
        if let Phase::Phase2(mut phase2) = phase {
            self.suspicions.clone_from(&phase2.suspicions);
            if !phase2.has_chosen {
                self.fruitless_campaigns += 1;
            }
            for batch in phase2.drain_queue() {
                self.refuse(&batch, out);
            }
        }
    }

    fn refuse(&mut self, batch: &Batch, out: &mut Outbox) {
        self.counters.not_leader += 1;
        let hint = self.leader.filter(|leader| *leader != self.id);
        let (proposer, attempt) = (self.id, batch.attempt);
        let not_leader = NotLeader { proposer, batch: batch.id, attempt, hint };
        out.tell_gateway(batch.id.gateway, ToGateway::NotLeader(not_leader));
    }

    fn back_off(&mut self, now: Time) {
        let cluster = &self.cluster;
        let turn = cluster.election_stagger * u32::from(self.id.0);
        let wait = cluster.election_timeout + turn + self.rng.up_to(cluster.election_stagger);
        self.timers.set(ProposerTimer::Election, now + wait);
    }

    /// Whether `acceptor` with this memory is the table's; if not, it has forgotten, and says nothing
    /// that counts.
    ///
    /// source: R4
    fn counts(
        &mut self,
        acceptor: AcceptorId,
        directory: crate::DirectoryId,
        out: &mut Outbox,
    ) -> bool {
        let counts = self.membership.names(acceptor, directory);
        if !counts {
            self.counters.foreign += 1;
            out.event(Event::Forgotten { acceptor });
        }
        counts
    }
}
