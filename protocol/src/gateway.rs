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
//!  NotExecuted  of the current attempt         a new attempt of all doubted    Propose each, in order
//! ```
//!
//! It is the paper's batcher and unbatcher in one \[CP §4.1, §4.2\]. All its clients share one
//! session: numbers are given in the order in which commands arrive, and replicas execute them in
//! that order exactly once, however often they are sent (R22, R23).

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;
use std::sync::Arc;

use crate::block::{BatchWriter, Outcome, Outcomes, ReplyItems, ReplyTooLarge};
use crate::outbox::Caller;
use crate::{
    AcceptorSet, Ask, Ballot, Batch, BatchId, ClusterSettings, Event, Failure, FormationId,
    GatewayId, Heartbeat, HeartbeatAck, Incarnation, Latency, Listener, Membership, NotExecuted,
    NotLeader, Outbox, Payload, Position, Propose, ProposerId, ReplicaId, Results, Rng, RoleId,
    SessionId, Stage, Time, TimerName, Timers, ToAcceptor, ToGateway, ToProposer, ToReplica,
    Unserved,
};

/// The timers of a gateway.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum GatewayTimer {
    /// Batches in flight have no answer: send them again.
    Resend,
    /// Close the open batch: its oldest command has waited long enough.
    Batch,
    /// Nothing was answered for an election timeout: complain to acceptors.
    Unserved,
}

impl TimerName<3> for GatewayTimer {
    const ALL: [Self; 3] = [Self::Resend, Self::Batch, Self::Unserved];

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
    /// The ballot of the last leader heard.
    ballot: Ballot,
    /// The acceptors for want of whose room nothing new is proposed, and when the leader said so.
    no_room: Option<(Time, AcceptorSet)>,
    /// Since when it has had no answer, while it waits for one.
    unserved_since: Time,
    writer: BatchWriter,
    /// The time when the oldest command that waits for a batch came.
    waiting_since: Option<Time>,
    /// Batches without an answer, in number order. The session's `Open` is one, alone.
    in_flight: VecDeque<InFlight>,
    /// The callers of the commands without an answer, in number order: those in flight, then those
    /// waiting.
    callers: VecDeque<Caller>,
    /// The number of the first of `callers`: the lowest unanswered.
    lowest_unanswered: u64,
    next_batch: u64,
    /// Replicas that let a batch go unanswered and have not been heard since.
    suspects: Vec<ReplicaId>,
    /// From sending a batch to its results.
    latency: Latency,
    /// Draws the incarnation that follows a lost session.
    incarnations: Rng,
    timers: Timers<GatewayTimer, 3>,
    counters: GatewayCounters,
}

/// A batch without an answer.
#[derive(Clone, Debug)]
struct InFlight {
    /// As it was last sent.
    batch: Arc<Batch>,
    /// The number of its first command.
    first: u64,
    /// The numbers of its commands that have no answer, if some have one: its results may come in
    /// parts.
    left: Option<Vec<Range<u64>>>,
    /// The first of these when the replica that answered was last asked for the others.
    asked_rest_from: Option<u64>,
    /// Its first attempt.
    sent_first: Sending,
    /// Its current one.
    sent_last: Sending,
    /// The time when it got into its stage.
    since: Time,
    stage: InFlightStage,
}

/// An attempt on its way.
#[derive(Clone, Copy, Debug)]
struct Sending {
    attempt: u32,
    answerer: ReplicaId,
    at: Time,
}

/// Commands of a batch that are answered together.
struct AnsweredRun<'a> {
    numbers: Range<u64>,
    /// The place where the first of them was executed.
    at: Position,
    /// A reply to each.
    replies: ReplyItems<'a>,
}

impl InFlight {
    fn count(&self) -> u32 {
        self.batch.commands_count
    }

    /// Whether the command of this number has no answer.
    fn is_left(&self, number: u64) -> bool {
        let all = || (self.first..self.end()).contains(&number);
        self.left.as_ref().map_or_else(all, |left| left.iter().any(|it| it.contains(&number)))
    }

    /// From the first to the last command that has no answer.
    fn unanswered(&self) -> Range<u64> {
        let Some(left) = &self.left else { return self.first..self.end() };
        let start = left.first().map_or_else(|| self.end(), |first| first.start);
        start..left.last().map_or(start, |last| last.end)
    }

    /// Asks what became of those of its commands that have no answer.
    fn ask(&self, session: Option<SessionId>) -> Ask {
        let Range { start: first, end } = self.unanswered();
        let count = u32::try_from(end - first).unwrap_or(u32::MAX);
        let Batch { id: batch, attempt, .. } = *self.batch;
        Ask { batch, attempt, session, first, count }
    }

    /// Takes in that commands have their answers.
    ///
    /// source: R24
    fn on_answered(&mut self, numbers: Range<u64>) {
        let mut left = Vec::new();
        if numbers == (self.first..self.end()) {
            self.left = Some(left); // as almost always
            return;
        }
        let before = self.left.take();
        for range in before.unwrap_or_else(|| iter::once(self.first..self.end()).collect()) {
            for rest in
                [range.start..range.end.min(numbers.start), range.start.max(numbers.end)..range.end]
            {
                left.extend((!rest.is_empty()).then_some(rest));
            }
        }
        self.left = Some(left);
    }

    /// The number of the first command after it.
    fn end(&self) -> u64 {
        self.first + u64::from(self.count())
    }
}

impl Sending {
    fn new(batch: &Batch, now: Time) -> Self {
        Self { attempt: batch.attempt, answerer: batch.answerer, at: now }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum InFlightStage {
    /// Sent, and not heard of since.
    Sent,
    /// Maybe lost: a replica was asked.
    Doubted,
    /// Not proposed: the proposer that it was sent to does not lead.
    Refused,
    /// Answered; waits for those before it.
    Done,
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
    /// Commands told to come again.
    pub busy: u64,
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
            membership: Membership::new(cluster.digest()),
            session: None,
            leader: ProposerId(0),
            ballot: Ballot::default(),
            no_room: None,
            unserved_since: now,
            writer: BatchWriter::default(),
            waiting_since: None,
            in_flight: VecDeque::new(),
            callers: VecDeque::new(),
            lowest_unanswered: 0,
            next_batch: 0,
            suspects: Vec::new(),
            latency: Latency::default(),
            incarnations: Rng::new(seed),
            timers,
            counters: GatewayCounters::default(),
            cluster,
        }
    }

    /// Takes a command in, to be sent with the next batch, or refuses it.
    ///
    /// A command that is refused here was never sent on, and never will be: `Busy`, `TooLarge` and
    /// `NoRoom` are safe to answer with another try. A driver that asks [`Gateway::has_room`] first
    /// is not refused as busy, and so keeps its commands in order.
    ///
    /// source: R23, R24, R29
    pub fn submit(&mut self, caller: Caller, command: &[u8], now: Time, out: &mut Outbox) {
        if command.len() > self.cluster.command_bytes_max as usize {
            return out.replies.fail(caller, Failure::TooLarge);
        }
        if let Some(acceptors) = self.wanting_room(now) {
            return out.replies.fail(caller, Failure::NoRoom(acceptors));
        }
        if !self.has_room(command.len(), now) {
            self.counters.busy += 1;
            return out.replies.fail(caller, Failure::Busy);
        }
        if !self.fits(command.len()) {
            self.close_batch(now, out);
        }
        self.counters.commands += 1;
        self.callers.push_back(caller);
        self.writer.push(command);
        self.waiting_since.get_or_insert(now);
        debug_assert!(self.callers.len() <= self.cluster.session_window as usize, "no room left");
    }

    /// Whether a command of so many bytes can be taken in now, or is refused for another reason
    /// than being too many.
    #[must_use]
    pub fn has_room(&self, command_bytes: usize, now: Time) -> bool {
        if self.wanting_room(now).is_some() {
            return true;
        }
        self.callers.len() < self.cluster.session_window as usize
            && (self.fits(command_bytes) || self.may_send())
    }

    /// Sends what has arrived, as one batch: the driver calls this at the end of each tick, so what
    /// came while the last tick ran is the next batch.
    ///
    /// source: \[CP §4.1\]
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        let Some(since) = self.waiting_since else { return };
        let due = since + self.cluster.batch_delay;
        if now < due {
            return self.timers.set_if_unset(GatewayTimer::Batch, due);
        }
        self.close_batch(now, out);
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToGateway, now: Time, out: &mut Outbox) {
        match message {
            ToGateway::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now, out),
            ToGateway::NotLeader(not_leader) => self.on_not_leader(not_leader, now, out),
            ToGateway::Results(results) => self.on_results(&results, now, out),
            ToGateway::NotExecuted(not_executed) => self.on_not_executed(not_executed, now, out),
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
            self.leader = heartbeat.ballot.proposer; // also where we had tried others meanwhile
            let no_room = heartbeat.no_room;
            self.no_room = (!no_room.is_empty()).then_some((now, no_room));
            let from = Listener::Gateway(self.id);
            let ack = HeartbeatAck { from, ballot: heartbeat.ballot, is_low: false };
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
            self.leader = hint.unwrap_or_else(|| self.next_leader());
        }
        if hint.is_some() && not_leader.attempt == 0 {
            return self.resend_from(place, now, out);
        }
        let batch = &mut self.in_flight[place];
        (batch.stage, batch.since) = (InFlightStage::Refused, now);
    }

    /// Hands results back to the clients.
    ///
    /// source: R23, R24, \[CP §4.2\]
    pub fn on_results(&mut self, results: &Results, now: Time, out: &mut Outbox) {
        self.suspects.retain(|suspect| *suspect != results.replica);
        for outcome in Outcomes::new(results.outcomes.as_slice()) {
            let Ok(outcome) = outcome else { return out.ignored("Results: malformed") };
            let is_open = |place: &usize| self.in_flight[*place].stage != InFlightStage::Done;
            let Some(place) = self.place_of(results.batch).filter(is_open) else {
                self.counters.stale_results += 1;
                return out.ignored("Results: their batch is answered, or not ours");
            };
            match outcome {
                Outcome::Done { session, first, at, count, replies } => {
                    let batch = &self.in_flight[place];
                    let numbers = first..first.saturating_add(count.into());
                    let is_part = numbers.start >= batch.first && numbers.end <= batch.end();
                    if self.session == Some(session) && is_part && count > 0 {
                        self.sample_latency(place, results, now);
                        self.unserved_since = now;
                        self.done(place, AnsweredRun { numbers, at, replies }, out);
                        self.ask_for_rest(results, now, out);
                    } else {
                        out.ignored("Results: of another session, or not of these commands");
                    }
                }
                Outcome::Opened(session) => self.opened(session, out),
                Outcome::OutOfOrder { session, next } => {
                    if self.session == Some(session) {
                        self.out_of_order(results, next, now, out);
                    }
                }
                Outcome::UnknownSession(session) => {
                    if self.session == Some(session) {
                        self.lose_session(session, now, out);
                    }
                }
                Outcome::Trimmed(_) => {
                    // Only what we have said to be answered is trimmed, and that is not in flight.
                    self.counters.stale_results += 1;
                    out.ignored("Results: trimmed");
                }
            }
        }
        self.flush(now, out);
    }

    /// Sends what is in doubt once more: a replica says that it was not executed so far.
    ///
    /// It may still be chosen and executed later; then the session's numbers see to it that it
    /// counts once.
    ///
    /// source: R23, R25
    pub fn on_not_executed(&mut self, not_executed: NotExecuted, now: Time, out: &mut Outbox) {
        self.suspects.retain(|suspect| *suspect != not_executed.replica);
        let current = self.current(not_executed.batch, not_executed.attempt);
        let is_doubted = |place: &usize| self.in_flight[*place].stage == InFlightStage::Doubted;
        match current.filter(is_doubted) {
            Some(place) => self.resend_from(place, now, out),
            None => out.ignored("NotExecuted: no answer about that attempt is awaited"),
        }
    }

    /// Takes in that the life of a replica has ended: what it was to answer, another is asked.
    ///
    /// source: R25
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        let RoleId::Replica(replica) = gone else { return };
        if !self.suspects.contains(&replica) {
            self.suspects.push(replica);
        }
        for place in 0..self.in_flight.len() {
            if self.in_flight[place].batch.answerer == replica {
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
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        let most = self.cluster.batches_in_flight_max as usize;
        assert!(self.in_flight.len() <= most, "{} batches in flight", self.in_flight.len());
        let session_window = self.cluster.session_window as usize;
        assert!(self.callers.len() <= session_window, "{} commands under way", self.callers.len());
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
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<GatewayTimer, 3> {
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

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> GatewayCounters {
        self.counters
    }

    /// The acceptors for want of whose room nothing new is proposed, as the leader says. One that
    /// was not heard for an election timeout says nothing: the next may have room.
    fn wanting_room(&self, now: Time) -> Option<AcceptorSet> {
        let (said_at, acceptors) = self.no_room?;
        (now.since(said_at) < self.cluster.election_timeout).then_some(acceptors)
    }

    fn fits(&self, command_bytes: usize) -> bool {
        let bytes = self.writer.len() + crate::block::COMMAND_HEADER_BYTES + command_bytes;
        self.writer.is_empty()
            || (bytes <= self.cluster.batch_bytes_max as usize
                && self.writer.commands_count() < self.cluster.batch_commands_max)
    }

    /// Whether there may be one more batch in flight.
    fn may_send(&self) -> bool {
        self.session.is_some() && self.in_flight.len() < self.cluster.batches_in_flight_max as usize
    }

    /// Sends what waits as one batch, if there may be one more in flight.
    fn close_batch(&mut self, now: Time, out: &mut Outbox) {
        let Some(session) = self.session.filter(|_| self.may_send()) else { return };
        if self.writer.is_empty() {
            return;
        }
        let count = self.writer.commands_count();
        let end = self.lowest_unanswered + self.callers.len() as u64;
        let first = end - u64::from(count);
        let next = self.in_flight.back().map_or(self.lowest_unanswered, InFlight::end);
        assert_eq!(first, next, "commands between two batches belong to neither");
        let block = self.writer.close(session, first, self.lowest_unanswered);
        self.waiting_since = None;
        self.timers.stop(GatewayTimer::Batch);
        self.counters.batches += 1;
        self.send_new(count, block, now, out);
    }

    fn open_session(&mut self, now: Time, out: &mut Outbox) {
        let block = BatchWriter::open(self.id, self.incarnation);
        self.send_new(0, block, now, out);
    }

    fn send_new(&mut self, count: u32, block: Payload, now: Time, out: &mut Outbox) {
        let last = self.in_flight.back();
        let first = last.map_or(self.lowest_unanswered, InFlight::end);
        let most = self.cluster.batches_in_flight_max as usize;
        assert!(self.in_flight.len() < most, "{most} batches are in flight");
        let number = self.next_batch;
        self.next_batch += 1;
        let batch = Arc::new(Batch {
            id: BatchId { gateway: self.id, incarnation: self.incarnation, number },
            attempt: 0,
            answerer: self.next_answerer(number),
            commands_count: count,
            checksum: block.checksum(),
            block,
        });
        if self.in_flight.is_empty() {
            self.unserved_since = now;
            self.timers.set_if_unset(GatewayTimer::Unserved, now + self.cluster.election_timeout);
        }
        self.propose(&batch, out);
        let sent = Sending::new(&batch, now);
        self.in_flight.push_back(InFlight {
            batch,
            first,
            left: None,
            asked_rest_from: None,
            sent_first: sent,
            sent_last: sent,
            since: now,
            stage: InFlightStage::Sent,
        });
        let at = now + self.timeout(0);
        self.timers.set_if_unset(GatewayTimer::Resend, at);
    }

    fn next_leader(&self) -> ProposerId {
        ProposerId((self.leader.0 + 1) % self.cluster.proposers)
    }

    fn propose(&self, batch: &Arc<Batch>, out: &mut Outbox) {
        let first = self.in_flight.front();
        let lowest = first.map_or(batch.id.number, |in_flight| in_flight.batch.id.number);
        debug_assert!(lowest <= batch.id.number, "{:?} is sent, {lowest} is the lowest", batch.id);
        let propose = Propose { batch: Arc::clone(batch), lowest };
        out.tell_proposer(self.leader, ToProposer::Propose(propose));
    }

    /// The replica that answers a batch: they take turns, leaving out suspects while there are
    /// others.
    ///
    /// source: R25, \[CP §3.3\]
    fn next_answerer(&self, turn: u64) -> ReplicaId {
        let count = u64::from(self.cluster.replicas);
        let in_turn = |i: u64| ReplicaId(u8::try_from((turn + i) % count).unwrap_or(0));
        let healthy = (0..count).map(in_turn).find(|replica| !self.suspects.contains(replica));
        healthy.unwrap_or_else(|| in_turn(0))
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

    /// Measures how long an attempt took, if it was answered by the replica that was to answer it:
    /// another was asked what had become of the batch.
    fn sample_latency(&mut self, place: usize, results: &Results, now: Time) {
        let InFlight { sent_first, sent_last, left: None, .. } = self.in_flight[place] else {
            return; // a later part of it
        };
        let is_answered =
            |sent: &Sending| (sent.attempt, sent.answerer) == (results.attempt, results.replica);
        if let Some(sent) = [sent_last, sent_first].into_iter().find(is_answered) {
            self.latency.sample(now.since(sent.at));
        }
    }

    /// Hands on the replies to commands of a batch.
    fn done(&mut self, place: usize, run: AnsweredRun<'_>, out: &mut Outbox) {
        let AnsweredRun { numbers, mut at, replies } = run;
        let batch = &mut self.in_flight[place];
        let is_part = numbers.start >= batch.first && numbers.end <= batch.end();
        debug_assert!(is_part, "{numbers:?} are not all of {:?}", batch.batch.id);
        let offset = usize::try_from(numbers.start - self.lowest_unanswered).unwrap_or(usize::MAX);
        let callers = self.callers.range(offset..).zip(numbers.clone());
        let mut end = numbers.start;
        for ((caller, number), reply) in callers.zip(replies) {
            end = number + 1;
            if batch.is_left(number) {
                match reply {
                    Ok(reply) => out.replies.push(*caller, at, reply),
                    Err(ReplyTooLarge) => out.replies.fail(*caller, Failure::ReplyTooLarge),
                }
                self.counters.replies += 1;
            }
            at.index += 1;
        }
        batch.on_answered(numbers.start..end);
        if batch.unanswered().is_empty() {
            batch.stage = InFlightStage::Done;
        }
        self.forget_done();
    }

    /// Asks a replica whose answer had no room for all of a batch's results for the others, unless
    /// it is asked already.
    ///
    /// source: R29
    fn ask_for_rest(&mut self, results: &Results, now: Time, out: &mut Outbox) {
        let Some(place) = self.place_of(results.batch) else { return };
        let batch = &mut self.in_flight[place];
        let unanswered = batch.unanswered();
        if batch.stage == InFlightStage::Done || batch.asked_rest_from == Some(unanswered.start) {
            return;
        }
        batch.asked_rest_from = Some(unanswered.start);
        (batch.stage, batch.since) = (InFlightStage::Sent, now);
        let ask = batch.ask(self.session);
        self.counters.asks += 1;
        out.tell_replica(results.replica, ToReplica::Ask(ask));
    }

    fn forget_done(&mut self) {
        while self.in_flight.front().is_some_and(|b| b.stage == InFlightStage::Done) {
            let Some(batch) = self.in_flight.pop_front() else { return };
            assert_eq!(batch.first, self.lowest_unanswered, "answered out of order");
            self.callers.drain(..batch.count() as usize);
            self.lowest_unanswered = batch.end();
        }
        if self.in_flight.is_empty() {
            self.timers.stop(GatewayTimer::Resend);
        }
    }

    fn opened(&mut self, session: SessionId, out: &mut Outbox) {
        if self.session.is_some() {
            return out.ignored("Results: a session is open already");
        }
        assert_eq!(self.in_flight.len(), 1, "a batch was sent before the session was open");
        assert_eq!(self.in_flight[0].count(), 0, "commands were sent before the session was open");
        self.in_flight.clear();
        self.timers.stop(GatewayTimer::Resend);
        self.session = Some(session);
        out.event(Event::SessionOpened { gateway: self.id, session });
    }

    /// Sends everything from the gap on once more, in number order, unless that was done since: the
    /// attempt that was out of order is then no longer the current one.
    ///
    /// source: R23, "once per gap, in number order"
    fn out_of_order(&mut self, results: &Results, next: u64, now: Time, out: &mut Outbox) {
        if self.current(results.batch, results.attempt).is_none() {
            self.counters.stale_results += 1;
            return out.ignored("Results: out of order, and sent again since");
        }
        self.counters.out_of_order += 1;
        let gap = self.in_flight.iter().position(|b| b.end() > next);
        if let Some(gap) = gap {
            self.resend_from(gap, now, out);
        }
    }

    /// A new attempt of the batch at `place` and of all behind it that have no answer, in number
    /// order.
    fn resend_from(&mut self, place: usize, now: Time, out: &mut Outbox) {
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
    fn doubt(&mut self, place: usize, now: Time, out: &mut Outbox) {
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
        (in_flight.stage, in_flight.since) = (InFlightStage::Doubted, now);
        self.counters.asks += 1;
        out.tell_replica(asked, ToReplica::Ask(ask));
    }

    /// Doubts what has gone unanswered for too long, and sends anew what was doubted for too long.
    ///
    /// source: R9, R25
    fn resend(&mut self, now: Time, out: &mut Outbox) {
        let is_late = |sent: &InFlight, timeout| now.since(sent.since) >= timeout;
        let (mut lost, mut refused) = (None, None);
        for place in 0..self.in_flight.len() {
            let sent = &self.in_flight[place];
            match sent.stage {
                InFlightStage::Refused if is_late(sent, self.cluster.resend_min) => {
                    refused.get_or_insert(place);
                }
                InFlightStage::Done | InFlightStage::Refused => {}
                InFlightStage::Sent | InFlightStage::Doubted
                    if !is_late(sent, self.timeout(sent.batch.attempt)) => {}
                InFlightStage::Sent => {
                    let answerer = sent.batch.answerer;
                    if !self.suspects.contains(&answerer) {
                        self.suspects.push(answerer);
                    }
                    self.doubt(place, now, out);
                }
                InFlightStage::Doubted => {
                    lost.get_or_insert(place);
                }
            }
        }
        if lost.is_some() {
            // No answer came: neither replica nor leader can be taken for alive.
            self.leader = self.next_leader();
        }
        if let Some(place) = lost.into_iter().chain(refused).min() {
            self.resend_from(place, now, out);
        }
        if self.suspects.len() >= usize::from(self.cluster.replicas) {
            self.suspects.clear(); // all suspected is none suspected: the trouble lies elsewhere
        }
        if !self.in_flight.is_empty() {
            self.timers.set(GatewayTimer::Resend, now + self.cluster.resend_min);
        }
    }

    /// Whether an answer is awaited: to a batch, or to the first word of a leader.
    fn awaits_answer(&self) -> bool {
        self.session.is_none() || !self.in_flight.is_empty()
    }

    /// Tells acceptors, and through them the leader, that nothing has been answered for an election
    /// timeout.
    ///
    /// The leader may be in good health and serve other gateways: it has no other way to know of
    /// one that does not reach it, or that has just started and does not hear it. One that does
    /// reach it is none of its concern.
    ///
    /// source: R28
    fn complain(&mut self, now: Time, out: &mut Outbox) {
        if !self.awaits_answer() {
            return;
        }
        let due = self.unserved_since + self.cluster.election_timeout;
        if now < due {
            return self.timers.set(GatewayTimer::Unserved, due);
        }
        let unserved = Unserved { gateway: self.id };
        for acceptor in self.cluster.quorums.acceptors().iter() {
            out.tell_acceptor(acceptor, ToAcceptor::Unserved(unserved));
        }
        self.counters.complaints += 1;
        self.timers.set(GatewayTimer::Unserved, now + self.cluster.election_timeout);
    }

    /// The replicated state has closed our session: what is in flight was executed or will never
    /// be, and we cannot tell which.
    ///
    /// The next session is asked for in a new life, and numbers start over with it. Were it the
    /// same life, a replica that lags behind could still answer for the old session: that it is
    /// open, and with the replies that its numbers had then.
    ///
    /// source: R22, R24, "an unknown outcome is an error of its own"
    fn lose_session(&mut self, session: SessionId, now: Time, out: &mut Outbox) {
        self.counters.sessions_lost += 1;
        out.event(Event::SessionLost { gateway: self.id, session });
        let mut callers = self.callers.drain(..);
        for batch in self.in_flight.drain(..) {
            let of_batch = (batch.first..batch.end()).zip(callers.by_ref());
            for (_, caller) in of_batch.filter(|(number, _)| batch.is_left(*number)) {
                out.replies.fail(caller, Failure::OutcomeUnknown);
            }
        }
        // What was not sent on yet waits for the next session.
        let waiting = callers.collect();
        self.callers = waiting;
        assert!(self.in_flight.is_empty(), "a batch of a session that is lost");
        self.session = None;
        self.incarnation = Incarnation(self.incarnations.next_u64());
        self.lowest_unanswered = 0;
        self.open_session(now, out);
    }

    fn timeout(&self, attempt: u32) -> std::time::Duration {
        let (least, most) = (4 * self.cluster.resend_min, self.cluster.resend_max);
        self.latency.timeout(attempt, least, most)
    }
}
