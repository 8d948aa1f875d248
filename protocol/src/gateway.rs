//! The gateway: forms batches, sees them through, and hands results back.
//!
//! ```text
//!  input        when                           does                            says
//!  submit       there is room                  number, batch ← command         nothing yet
//!               the leader proposes nothing                                    NoRoom, to the client
//!               else                                                           Busy, to the client
//!  flush        commands wait, batches in      in flight ← batch               Propose, to the leader
//!               flight below the most
//!  Results      done, of a batch in flight     batch → gone                    replies, to the clients
//!               … of some of its commands                                      replies, to the clients; Ask
//!               out of order, of its current   doubts nothing: resends from
//!               attempt                        the gap, in number order        Propose each
//!               unknown session                all in flight → outcome unknown failures; Propose an Open
//!               of another life, or answered   counts it                       nothing
//!  NotLeader    of the current attempt         moves on                        Propose, to the hint
//!  Heartbeat    a new leader                   doubts all in flight            Ask each, of a replica
//!  Resend       no answer for too long         doubts it; suspects its answerer  Ask, of another replica
//!               doubted for too long           a new attempt                   Propose, to the next
//!  Unserved     nothing answered for an election                               Unserved, to all acceptors
//!               timeout, and something waits
//!  gone         a replica has ended            doubts what it was to answer    Ask each, of another replica
//!  Halted       others live                    likewise                        likewise
//!               too few do                     waits                           Halted, to clients
//!  NotExecuted  of the current attempt         a new attempt of all doubted    Propose each, in order
//! ```
//!
//! Reads go another way, past the leader: their chart is in `gateway/reads.rs`.
//!
//! It is the paper's batcher, unbatcher and read batcher in one \[CP §3.4, §4.1, §4.2\]. All its
//! clients share one session: numbers are given in the order in which commands arrive, and replicas
//! execute them in that order exactly once, however often they are sent (R22, R23).

mod batching;
mod halts;
mod in_flight;
mod reads;
mod resending;
mod results;

use std::collections::VecDeque;
use std::time::Duration;

use crate::block::BatchWriter;
use crate::outbox::Caller;
use crate::{
    AcceptorSet, Ballot, Batch, BatchId, ClusterSettings, Event, FormationId, GatewayId, Heartbeat,
    HeartbeatAck, Incarnation, Latency, Listener, Membership, NotExecuted, NotLeader, Outbox, Pool,
    ProposerId, ReplicaId, Rng, RoleId, SessionId, Stage, Time, TimerName, Timers, ToGateway,
    ToProposer,
};

pub use batching::Submission;
use halts::Halts;
use in_flight::{InFlight, InFlightStage};
use reads::Reads;
pub use reads::{Query, ReadGroup, ReadLevel};

/// The most election timeouts that a gateway waits for an answer until it counts itself as not
/// served, however long answers take.
const UNSERVED_PATIENCE_MAX: u32 = 10;

/// The timers of a gateway.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GatewayTimer {
    /// Batches in flight have no answer: send them again.
    Resend,
    /// Close the open batch: its oldest command has waited long enough.
    Batch,
    /// Nothing was answered for an election timeout: complain to acceptors.
    Unserved,
    /// Reads have no answer: ask others.
    Read,
}

impl TimerName<4> for GatewayTimer {
    const ALL: [Self; 4] = [Self::Resend, Self::Batch, Self::Unserved, Self::Read];

    fn index(self) -> usize {
        self as usize
    }
}

/// One gateway.
#[derive(Debug)]
pub struct Gateway {
    cluster: ClusterSettings,
    id: GatewayId,
    incarnation: Incarnation,
    membership: Membership,
    session: Option<SessionId>,
    /// The proposer that batches go to.
    leader: ProposerId,
    /// The ballot of the last leader heard, and the time when it was heard last.
    ballot: Ballot,
    leader_heard_at: Option<Time>,
    /// The last proposer tried for want of an answer: the others get their turns after it.
    tried: ProposerId,
    /// Times that batches went without an answer for too long.
    losses: u64,
    /// The acceptors for want of whose room nothing new is proposed, and when the leader said so.
    no_room: Option<(Time, AcceptorSet)>,
    /// Since when it has had no answer, while it waits for one.
    unserved_since: Time,
    /// The time of the last sign that the cluster serves: an answer, or the heartbeat of a leader
    /// that is not silent.
    served_at: Time,
    writer: BatchWriter,
    /// The time when the oldest command that waits for a batch came.
    waiting_since: Option<Time>,
    /// Batches without an answer, in number order. The session's `Open` is one, alone.
    in_flight: VecDeque<InFlight>,
    /// The callers of the commands without an answer, in number order: those in flight, then those
    /// waiting.
    callers: VecDeque<Caller>,
    /// The memory of batches.
    batches: Pool<Batch>,
    /// The number of the first of `callers`: the lowest unanswered.
    lowest_unanswered: u64,
    next_batch: u64,
    /// Replicas that let a batch go unanswered and have not been heard since.
    suspects: Vec<ReplicaId>,
    /// Replicas that answer nothing, as they have said.
    halts: Halts,
    reads: Reads,
    /// From sending a batch to its results.
    latency: Latency,
    /// Draws the incarnation that follows a lost session.
    incarnations: Rng,
    timers: Timers<GatewayTimer, 4>,
    counters: GatewayCounters,
}

/// The counters of a gateway's work.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GatewayCounters {
    /// Commands taken in.
    pub commands: u64,
    /// Commands answered with their result.
    pub replies: u64,
    /// Batches formed.
    pub batches: u64,
    /// Batches sent again.
    pub resends: u64,
    /// Replicas asked what became of a batch.
    pub asks: u64,
    /// Commands and reads told to come again.
    pub busy: u64,
    /// Reads taken in.
    pub reads: u64,
    /// Reads answered.
    pub read_replies: u64,
    /// Times that acceptors were asked how far they have voted.
    pub probes: u64,
    /// Groups of reads of which others were asked, for want of answers.
    pub reads_again: u64,
    /// Times that commands arrived out of order at the replicas.
    pub out_of_order: u64,
    /// Results of batches that are answered, or of a former life.
    pub stale_results: u64,
    /// Sessions lost.
    pub sessions_lost: u64,
    /// Times it told acceptors that it gets no answers.
    pub complaints: u64,
    /// Messages of another cluster.
    pub foreign: u64,
}

impl Gateway {
    /// Returns a gateway that has no session yet; it asks for one once it hears of a leader, and
    /// complains to acceptors if it hears of none.
    ///
    /// `incarnation` must never have been used by this gateway before (R24); should its session get
    /// lost, further ones follow from `seed`.
    #[must_use]
    pub fn new(
        cluster: ClusterSettings,
        id: GatewayId,
        incarnation: Incarnation,
        seed: u64,
        now: Time,
    ) -> Self {
        assert!(id.0 < cluster.gateways, "{id:?} is not in the cluster");
        let mut timers = Timers::default();
        timers.set(GatewayTimer::Unserved, now + cluster.election_timeout);
        Self {
            id,
            incarnation,
            membership: Membership::new(cluster.digest(), cluster.quorums.acceptors_count()),
            session: None,
            leader: ProposerId(0),
            ballot: Ballot::default(),
            leader_heard_at: None,
            tried: ProposerId(0),
            losses: 0,
            no_room: None,
            unserved_since: now,
            served_at: now,
            writer: BatchWriter::default(),
            waiting_since: None,
            in_flight: VecDeque::new(),
            callers: VecDeque::new(),
            batches: Pool::new((2 * cluster.ring_slots() + cluster.batches_in_flight_max) as usize),
            lowest_unanswered: 0,
            next_batch: 0,
            suspects: Vec::new(),
            halts: Halts::default(),
            reads: Reads::new(incarnation, cluster.batches_in_flight_max, now),
            latency: Latency::default(),
            incarnations: Rng::new(seed),
            timers,
            counters: GatewayCounters::default(),
            cluster,
        }
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToGateway, now: Time, out: &mut Outbox) {
        match message {
            ToGateway::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now, out),
            ToGateway::NotLeader(not_leader) => self.on_not_leader(not_leader, now, out),
            ToGateway::Results(results) => self.on_results(&results, now, out),
            ToGateway::NotExecuted(not_executed) => self.on_not_executed(not_executed, now, out),
            ToGateway::Halted(halted) => self.on_halted(*halted, now, out),
            ToGateway::PreReadAck(ack) => self.on_pre_read_ack(ack, now, out),
            ToGateway::ReadResults(results) => self.on_read_results(&results, now, out),
        }
    }

    /// Joins the leader's cluster and shows it that a gateway reaches it; with a new leader, finds
    /// out what became of what the old one had.
    ///
    /// source: R4, R9, R25, R28
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) {
        if !self.membership.join(&heartbeat.table) {
            self.counters.foreign += 1;
            return out.event(Event::Foreign { at: "gateway: heartbeat" });
        }
        let is_new = heartbeat.ballot > self.ballot;
        if heartbeat.stage == Stage::Leading && heartbeat.ballot >= self.ballot {
            self.ballot = heartbeat.ballot;
            self.leader_heard_at = Some(now);
            if !heartbeat.is_silent {
                self.served_at = now;
            }
            self.leader = heartbeat.ballot.proposer; // also where we had tried others meanwhile
            let no_room = heartbeat.no_room;
            self.no_room = (!no_room.is_empty()).then_some((now, no_room));
            let from = Listener::Gateway(self.id);
            let ack =
                HeartbeatAck { from, ballot: heartbeat.ballot, is_low: false, clock: Time(0) };
            out.tell_proposer(self.leader, ToProposer::HeartbeatAck(ack));
        }
        if heartbeat.stage == Stage::Leading && is_new {
            for place in 0..self.in_flight.len() {
                self.doubt(place, now, out);
            }
        }
        let may_open = self.session.is_none() && self.in_flight.is_empty();
        if may_open && heartbeat.stage == Stage::Leading {
            self.open_session(now, out);
        }
    }

    /// Moves on to another proposer.
    ///
    /// The refused attempt was not proposed, so nothing is in doubt. A batch's first refusal with a
    /// hint sends it there at once; later ones wait a little, so that two proposers that name each
    /// other do not make us run in circles. Without a hint it is the next one's turn.
    ///
    /// source: R9
    pub fn on_not_leader(&mut self, not_leader: NotLeader, now: Time, out: &mut Outbox) {
        let Some(place) = self.current(not_leader.batch, not_leader.attempt) else {
            return out.ignored("NotLeader: not of a batch's current attempt");
        };
        let hint = not_leader.hint.filter(|hint| hint.0 < self.cluster.proposers);
        if not_leader.proposer == self.leader {
            self.leader = hint.unwrap_or_else(|| self.next_tried());
        }
        if hint.is_some() && not_leader.attempt == 0 {
            return self.resend_from(place, now, out);
        }
        let batch = &mut self.in_flight[place];
        (batch.stage, batch.since) = (InFlightStage::Refused, now);
    }

    /// Sends what is in doubt once more: a replica says that it was not executed so far.
    ///
    /// It may still be chosen and executed later; then the session's numbers see to it that it
    /// counts once.
    ///
    /// source: R23, R25
    pub fn on_not_executed(&mut self, not_executed: NotExecuted, now: Time, out: &mut Outbox) {
        self.hear(not_executed.replica);
        let current = self.current(not_executed.batch, not_executed.attempt);
        let is_doubted =
            |place: &usize| matches!(self.in_flight[*place].stage, InFlightStage::Doubted(_));
        match current.filter(is_doubted) {
            Some(place) => self.resend_from(place, now, out),
            None => out.ignored("NotExecuted: no answer about that attempt is awaited"),
        }
    }

    /// Takes in that the life of a replica or acceptor has ended: what it was to answer, another is
    /// asked.
    ///
    /// source: R25
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        match gone {
            RoleId::Replica(replica) => self.suspect(replica),
            RoleId::Acceptor(acceptor) => self.suspect_acceptor(acceptor),
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => return,
        }
        self.ask_others_than(gone, now, out);
        for place in 0..self.in_flight.len() {
            if RoleId::Replica(self.in_flight[place].batch.answerer) == gone {
                self.doubt(place, now, out);
            }
        }
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timeout(timer, now, out);
        }
    }

    /// Does what a timer asks for.
    pub fn on_timeout(&mut self, timer: GatewayTimer, now: Time, out: &mut Outbox) {
        match timer {
            GatewayTimer::Resend => self.resend(now, out),
            GatewayTimer::Batch => self.close_batch(now, out),
            GatewayTimer::Unserved => self.complain(now, out),
            GatewayTimer::Read => self.on_read_timeout(now, out),
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        let most = self.cluster.batches_in_flight_max as usize;
        assert!(self.in_flight.len() <= most, "{} batches in flight", self.in_flight.len());
        let session_window = self.cluster.session_window as usize;
        assert!(self.callers.len() <= session_window, "{} commands under way", self.callers.len());
        self.halts.validate(self.callers.len());
        let mut next = self.in_flight.front().map_or(self.lowest_unanswered, |b| b.first);
        assert_eq!(next, self.lowest_unanswered, "the first batch is not the lowest unanswered");
        for sent in &self.in_flight {
            assert_eq!(sent.first, next, "{:?} is out of order", sent.batch.id);
            let is_answered = sent.unanswered().is_empty() && sent.count() > 0;
            assert_eq!(is_answered, sent.stage == InFlightStage::Done, "{:?}", sent.batch.id);
            next = sent.end();
        }
        let is_watched = self.timers.is_set(GatewayTimer::Resend) || self.in_flight.is_empty();
        assert!(is_watched, "batches in flight and no timer");
        let may_complain = self.timers.is_set(GatewayTimer::Unserved) || !self.awaits_answer();
        assert!(may_complain, "an answer is awaited and no timer");
        self.validate_reads();
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<GatewayTimer, 4> {
        &mut self.timers
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// The gateway's id.
    #[must_use]
    pub fn id(&self) -> GatewayId {
        self.id
    }

    /// Its session, once open.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// Commands that have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.callers.len()
    }

    /// For how long the cluster has not served it: it has waited for an answer for longer than
    /// answers take, or hears of no leader that gets anything chosen, for an election timeout at
    /// the least. `None` while it is served, as far as it can tell.
    ///
    /// It may be wrong either way, and then its clients lose time and nothing else: they take what
    /// they have not sent yet to another gateway, and what they have sent is answered here. Where
    /// acceptors have no room, or replicas have halted, no other gateway would do better, and
    /// clients are told that.
    ///
    /// source: R37
    #[must_use]
    pub fn unserved_for(&self, now: Time) -> Option<Duration> {
        let least = self.cluster.election_timeout;
        let patience = self.latency.timeout(0, least, UNSERVED_PATIENCE_MAX * least);
        let would_be_served = self.wanting_room(now).is_none() && self.halted(now).is_none();
        let awaits = self.awaits_answer() && would_be_served;
        let waited = awaits.then(|| now.since(self.unserved_since));
        let waited = waited.max(self.reads.waiting_since().map(|since| now.since(since)));
        let waited = waited.filter(|waited| *waited >= patience);
        let quiet = Some(now.since(self.served_at)).filter(|quiet| *quiet >= least);
        waited.max(quiet)
    }

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> GatewayCounters {
        self.counters
    }

    /// The place of a batch of this life among those in flight.
    fn place_of(&self, batch: BatchId) -> Option<usize> {
        if (batch.gateway, batch.incarnation) != (self.id, self.incarnation) {
            return None;
        }
        let first = self.in_flight.front()?.batch.id.number;
        let place = usize::try_from(batch.number.checked_sub(first)?).ok()?;
        (place < self.in_flight.len()).then_some(place)
    }

    /// Likewise, if `attempt` is its current one and it has no answer.
    fn current(&self, batch: BatchId, attempt: u32) -> Option<usize> {
        self.place_of(batch).filter(|place| {
            let in_flight = &self.in_flight[*place];
            in_flight.batch.attempt == attempt && in_flight.stage != InFlightStage::Done
        })
    }
}
