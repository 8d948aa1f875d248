//! Reads: of any replica, once it has executed what acceptors have voted for. No leader sees them.
//!
//! ```text
//!  input        when                          does                               says
//!  read         there is room                 forming ← query                    nothing yet
//!               else                                                             Busy, to the client
//!  flush        linearizable reads wait       group ← forming                    PreRead, to a read quorum
//!               others do                     group ← forming                    Read, to a replica
//!  PreReadAck   of a group's own probe        at_least ↑ its vote watermark      nothing
//!               and a read quorum is whole                                       Read, to a replica
//!  ReadResults  of the next reads of a group  at_least ↑ what they reflect       replies; Read, for the rest
//!  Read timer   acks are missing for long     suspects those that are missing    PreRead, to all others
//!               replies are                   suspects the replica               Read, to another; FillTo
//!  gone         the replica that was asked    likewise                           Read, to another
//!  Halted       of that replica                                                  Read, to another
//!               all have                      group → gone                       Halted, to clients
//! ```
//!
//! **Why a linearizable read misses nothing.** A group is closed before its probe leaves, so all of
//! its reads came before any acceptor answered (R19). A command that was answered before one of
//! them came had been chosen, so one acceptor of whichever read quorum had voted for it: the
//! group's `at_least` is above its slot (R18,
//! [`Acceptor::on_pre_read`](crate::Acceptor::on_pre_read)). The same goes for what an earlier read
//! has reflected: all of it was chosen. A replica answers once it has executed all below
//! `at_least`, in log order.
//!
//! **Why a pause does no harm.** No clock decides what is answered. Acks that a gateway finds after
//! a pause were given after its reads had come; a replica answers after a pause from what it has
//! executed, or waits. Another life has another incarnation, so the acks of its predecessor's
//! probes count for nothing.
//!
//! **Why a group may be answered in parts**, by several replicas: the rest is asked for with what
//! the last part reflected as its least, so that later reads of a group never reflect less than
//! earlier ones. Groups are answered in any order: it is for clients to submit no read before the
//! answers that it has to come after (R21).
//!
//! source: R18 to R21, \[CP §3.4\], \[PQR\]

use std::collections::VecDeque;

use super::{Gateway, GatewayTimer};
use crate::block::{COMMAND_HEADER_BYTES, ItemsWriter};
use crate::outbox::Caller;
use crate::{
    AcceptorId, AcceptorSet, Event, Failure, FillTo, Incarnation, Items, Latency, Outbox, Payload,
    Pool, Position, PreRead, PreReadAck, Read, ReadResults, ReplicaId, ReplyItems, RoleId, Slot,
    Time, ToAcceptor, ToProposer, ToReplica, Watermark,
};

/// What a read must reflect.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ReadLevel {
    /// Every command that was answered before the read was submitted, whoever sent it; and all that
    /// any read had reflected by then.
    Linearizable,
    /// Everything below `seen`: what its client has seen the effects of. Above it, whatever a
    /// replica has executed.
    Sequential {
        /// The bound.
        seen: Watermark,
    },
    /// Whatever a replica has executed.
    Eventual,
}

/// A read, and what it must reflect.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What it must reflect.
    pub level: ReadLevel,
    /// What is asked of the state machine.
    pub bytes: &'a [u8],
}

/// Names a group of reads that forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReadGroup {
    kind: Kind,
    /// The number of groups of that kind before it.
    before: u64,
}

impl ReadGroup {
    /// The one group of all reads that go to a gateway which keeps them in order itself.
    pub const ALL: Self = Self { kind: Kind::Any, before: 0 };

    /// The group after so many others.
    #[cfg(test)]
    pub(crate) fn test(before: u64) -> Self {
        Self { kind: Kind::Probed, before }
    }
}

/// Reads that are sent together, for they must reflect the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// What acceptors have voted for.
    Probed,
    /// What some replica is known to have executed.
    Seen,
    /// Anything.
    Any,
}

const KINDS: [Kind; 3] = [Kind::Probed, Kind::Seen, Kind::Any];

/// Reads that wait for their group to be closed.
#[derive(Debug, Default)]
struct Forming {
    queries: ItemsWriter,
    callers: Vec<Caller>,
    at_least: Watermark,
    /// The number of groups of this kind that were closed.
    closed: u64,
}

/// Reads that are under way together.
#[derive(Debug)]
struct Group {
    number: u64,
    callers: Vec<Caller>,
    /// How many of them have their answers: always the first ones.
    answered: usize,
    /// Those of the others.
    queries: Payload,
    /// What must be executed before any of the others is answered. Never goes down.
    at_least: Watermark,
    stage: Stage,
    /// The time when it got into its stage, and when it last asked there.
    since: Time,
    asked_at: Time,
    /// How often it has asked again there.
    attempt: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Acceptors are asked how far they have voted.
    Probing { asked: AcceptorSet, acks: AcceptorSet },
    /// A replica is asked.
    Reading(ReplicaId),
    /// All are answered.
    Done,
}

/// The reads of a gateway.
#[derive(Debug)]
pub(super) struct Reads {
    /// The life that its groups are numbered in. It stays the same where a session is lost.
    incarnation: Incarnation,
    /// By [`Kind`].
    forming: [Forming; KINDS.len()],
    /// In number order; the first is not done.
    groups: VecDeque<Group>,
    next: u64,
    /// Reads without an answer.
    unanswered: usize,
    /// Everything below was executed by some replica, as far as is known. Never goes down.
    executed: Watermark,
    /// Acceptors that let a probe go unanswered and have not been heard since; and when they were
    /// last asked whether they are back.
    suspects: AcceptorSet,
    suspects_asked_at: Time,
    /// The time when acceptors were last told that a read gets no answer.
    complained_at: Time,
    probe_latency: Latency,
    read_latency: Latency,
    sent: Pool<Read>,
    spare_callers: Vec<Vec<Caller>>,
}

impl Reads {
    pub(super) fn new(incarnation: Incarnation, groups_max: u32, now: Time) -> Self {
        Self {
            incarnation,
            forming: Default::default(),
            groups: VecDeque::new(),
            next: 0,
            unanswered: 0,
            executed: Watermark(0),
            suspects: AcceptorSet::default(),
            suspects_asked_at: now,
            complained_at: now,
            probe_latency: Latency::default(),
            read_latency: Latency::default(),
            sent: Pool::new(2 * groups_max as usize),
            spare_callers: Vec::new(),
        }
    }

    /// Notes that some replica has executed all below `executed`.
    pub(super) fn note_executed(&mut self, executed: Watermark) {
        self.executed.raise(executed);
    }

    /// Whether reads wait to be sent.
    #[inline]
    pub(super) fn are_forming(&self) -> bool {
        self.forming.iter().any(|forming| !forming.callers.is_empty())
    }

    /// Since when the oldest read waits that was sent on.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        self.groups.iter().filter(|group| group.stage != Stage::Done).map(|group| group.since).min()
    }

    /// A client that has seen what no replica is known to have executed has seen it by another
    /// gateway: acceptors know of it. Nor does one that errs wait for ever then.
    fn kind_of(&self, level: ReadLevel) -> Kind {
        match level {
            ReadLevel::Sequential { seen } if seen <= self.executed => Kind::Seen,
            ReadLevel::Linearizable | ReadLevel::Sequential { .. } => Kind::Probed,
            ReadLevel::Eventual => Kind::Any,
        }
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        let first = self.groups.front()?.number;
        let place = usize::try_from(number.checked_sub(first)?).ok()?;
        (place < self.groups.len()).then_some(place)
    }

    fn forget_done(&mut self) {
        while let Some(done) = self.groups.pop_front_if(|group| group.stage == Stage::Done) {
            let mut callers = done.callers;
            callers.clear();
            self.spare_callers.push(callers);
        }
    }

    fn validate(&self, groups_max: usize, reads_max: usize) {
        assert!(self.groups.len() <= groups_max, "{} groups of reads", self.groups.len());
        assert!(self.unanswered <= reads_max, "{} reads without an answer", self.unanswered);
        let forming: usize = self.forming.iter().map(|forming| forming.callers.len()).sum();
        let sent: usize =
            self.groups.iter().map(|group| group.callers.len() - group.answered).sum();
        assert_eq!(forming + sent, self.unanswered, "reads without an answer");
        for (place, group) in self.groups.iter().enumerate() {
            assert_eq!(self.place_of(group.number), Some(place), "groups in number order");
            let is_done = group.answered == group.callers.len();
            assert_eq!(is_done, group.stage == Stage::Done, "group {}", group.number);
        }
        let is_first_done = self.groups.front().is_some_and(|group| group.stage == Stage::Done);
        assert!(!is_first_done, "the first group is done");
    }
}

impl Gateway {
    /// Takes a read in, or refuses it.
    ///
    /// Whatever it is told, a read changes nothing, and may be submitted again.
    ///
    /// source: R29
    pub fn read(&mut self, caller: Caller, query: Query<'_>, now: Time, out: &mut Outbox) {
        if !self.try_read(caller, query, now, out) {
            self.counters.busy += 1;
            out.replies.fail(caller, Failure::Busy);
        }
    }

    /// Likewise, but for one that is refused as busy: then nothing is done, and it returns false.
    /// There may be as many reads under way as commands.
    ///
    /// source: R29
    pub fn try_read(
        &mut self,
        caller: Caller,
        query: Query<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> bool {
        let Query { level, bytes } = query;
        if bytes.len() > self.cluster.command_bytes_max as usize {
            out.replies.fail(caller, Failure::TooLarge);
            return true;
        }
        let Some(ReadGroup { kind, before }) = self.read_group(level, bytes.len()) else {
            return false;
        };
        if before > self.reads.forming[kind as usize].closed {
            self.close_group(kind, now, out);
        }
        self.counters.reads += 1;
        self.reads.unanswered += 1;
        let forming = &mut self.reads.forming[kind as usize];
        forming.queries.put(bytes);
        forming.callers.push(caller);
        if let (Kind::Seen, ReadLevel::Sequential { seen }) = (kind, level) {
            forming.at_least.raise(seen);
        }
        true
    }

    /// The group that a read of so many bytes would be in if it were submitted now; `None` if there
    /// is no room for it.
    ///
    /// Replies to reads of one group reflect ever more, in the order of the reads. Those of two
    /// groups may reflect more or less, in any order.
    ///
    /// source: R21, R29
    #[must_use]
    pub fn read_group(&self, level: ReadLevel, bytes: usize) -> Option<ReadGroup> {
        if self.reads.unanswered >= self.cluster.session_window as usize {
            return None;
        }
        let kind = self.reads.kind_of(level);
        let Forming { queries, callers, closed, .. } = &self.reads.forming[kind as usize];
        let fits = queries.len() + COMMAND_HEADER_BYTES + bytes
            <= self.cluster.batch_bytes_max as usize
            && callers.len() < self.cluster.batch_commands_max as usize;
        if fits || callers.is_empty() {
            return Some(ReadGroup { kind, before: *closed });
        }
        self.may_send_reads().then_some(ReadGroup { kind, before: *closed + 1 })
    }

    /// Reads that have no answer yet.
    #[must_use]
    pub fn reads_unanswered(&self) -> usize {
        self.reads.unanswered
    }

    /// Takes in how far an acceptor had voted when it was asked.
    ///
    /// source: R4, R18, R19
    pub fn on_pre_read_ack(&mut self, ack: PreReadAck, now: Time, out: &mut Outbox) {
        if !self.membership.names(ack.acceptor, ack.directory) {
            self.counters.foreign += 1;
            return out.event(Event::Forgotten { acceptor: ack.acceptor });
        }
        self.reads.suspects.remove(ack.acceptor);
        let is_ours = ack.incarnation == self.reads.incarnation;
        let Some(place) = self.reads.place_of(ack.probe).filter(|_| is_ours) else {
            return out.ignored("PreReadAck: its probe is answered, or of another life");
        };
        let group = &mut self.reads.groups[place];
        let Stage::Probing { acks, .. } = &mut group.stage else {
            return out.ignored("PreReadAck: a read quorum has answered");
        };
        acks.insert(ack.acceptor);
        let voted = ack.vote_watermark.map_or(Watermark(0), Slot::watermark_after);
        group.at_least.raise(voted);
        if self.cluster.quorums.is_read_quorum(*acks) {
            if group.attempt == 0 {
                self.reads.probe_latency.sample(now.since(group.since));
            }
            (group.since, group.attempt) = (now, 0);
            self.read_at_next(place, now, out);
        }
    }

    /// Hands replies back to the clients, and asks the same replica for the rest of its group.
    ///
    /// source: R21, R29
    pub fn on_read_results(&mut self, results: &ReadResults, now: Time, out: &mut Outbox) {
        if results.replica.0 >= self.cluster.replicas {
            self.counters.foreign += 1;
            return out.ignored("ReadResults: of no replica of this cluster");
        }
        self.hear(results.replica);
        let is_ours = results.incarnation == self.reads.incarnation;
        let Some(place) = self.reads.place_of(results.group).filter(|_| is_ours) else {
            return out.ignored("ReadResults: their group is answered, or of another life");
        };
        let group = &mut self.reads.groups[place];
        let is_next = results.first as usize == group.answered;
        if !matches!(group.stage, Stage::Reading(_)) || !is_next {
            return out.ignored("ReadResults: these reads have their answers");
        }
        if results.executed < group.at_least {
            return out.ignored("ReadResults: they reflect less than was asked for");
        }
        let at = Position { slot: results.executed.first_open(), index: 0 };
        let replies = ReplyItems::new(results.replies.as_slice());
        let told = out.replies.push_reads(&group.callers[group.answered..], at, replies);
        if told == 0 {
            return out.ignored("ReadResults: no reply");
        }
        if group.attempt == 0 {
            self.reads.read_latency.sample(now.since(group.asked_at));
        }
        group.answered += told;
        group.at_least.raise(results.executed);
        self.reads.unanswered -= told;
        self.reads.executed.raise(results.executed);
        self.counters.read_replies += told as u64;
        if group.answered < group.callers.len() {
            let queries = Items::new(group.queries.as_slice());
            let rest = queries.skipping(told as u64).as_slice().len();
            let all = group.queries.len();
            group.queries = group.queries.slice(all - rest..all);
            (group.since, group.attempt) = (now, 0);
            return self.read_at(place, results.replica, now, out);
        }
        group.stage = Stage::Done;
        self.end_groups(now, out);
    }

    /// Sends the reads that have arrived, as a group of each kind.
    pub(super) fn flush_reads(&mut self, now: Time, out: &mut Outbox) {
        for kind in KINDS {
            let is_empty = self.reads.forming[kind as usize].callers.is_empty();
            if !is_empty && self.may_send_reads() {
                self.close_group(kind, now, out);
            }
        }
    }

    /// Leaves an acceptor out, while there are others, until it is heard.
    pub(super) fn suspect_acceptor(&mut self, acceptor: AcceptorId) {
        self.reads.suspects.insert(acceptor);
    }

    /// Asks others for what a replica or an acceptor was to answer.
    pub(super) fn ask_others_than(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        for place in 0..self.reads.groups.len() {
            match (self.reads.groups[place].stage, gone) {
                (Stage::Reading(replica), RoleId::Replica(gone)) if replica == gone => {
                    self.read_at_next(place, now, out);
                }
                (Stage::Probing { asked, acks }, RoleId::Acceptor(gone))
                    if asked.without(acks).contains(gone) =>
                {
                    self.probe_others(place, now, out);
                }
                (Stage::Reading(_) | Stage::Probing { .. } | Stage::Done, _) => {}
            }
        }
    }

    /// Tells callers that no replica is left to read from, if all have halted.
    pub(super) fn fail_reads_if_halted(&mut self, now: Time, out: &mut Outbox) {
        let Some(why) = self.all_halted(now) else { return };
        for group in &mut self.reads.groups {
            for caller in &group.callers[group.answered..] {
                out.replies.fail(*caller, Failure::Halted(why.clone()));
            }
            self.reads.unanswered -= group.callers.len() - group.answered;
            (group.answered, group.stage) = (group.callers.len(), Stage::Done);
        }
        self.end_groups(now, out);
    }

    /// Asks others where answers are late.
    ///
    /// source: R19, R20
    pub(super) fn on_read_timeout(&mut self, now: Time, out: &mut Outbox) {
        let (least, most) = (4 * self.cluster.resend_min, self.cluster.resend_max);
        let (mut fill_to, mut is_unserved) = (Watermark(0), false);
        for place in 0..self.reads.groups.len() {
            let Group { stage, attempt, asked_at, since, at_least, .. } = self.reads.groups[place];
            let latency = match stage {
                Stage::Probing { .. } => &self.reads.probe_latency,
                Stage::Reading(_) => &self.reads.read_latency,
                Stage::Done => continue,
            };
            if now.since(asked_at) < latency.timeout(attempt, least, most) {
                continue;
            }
            match stage {
                Stage::Probing { asked, acks } => {
                    let missing = asked.without(acks);
                    self.reads.suspects = self.reads.suspects.union(missing);
                    self.probe_others(place, now, out);
                }
                Stage::Reading(replica) => {
                    self.suspect(replica);
                    self.read_at_next(place, now, out);
                    fill_to.raise(at_least);
                    is_unserved |= now.since(since) >= self.cluster.election_timeout;
                }
                Stage::Done => {}
            }
            self.reads.groups[place].attempt = attempt + 1;
            self.counters.reads_again += 1;
        }
        if fill_to > Watermark(0) {
            // All of them: which one leads is not known for certain, and the others do nothing.
            let fill = FillTo { gateway: self.id, to: fill_to };
            for proposer in self.cluster.all_proposers() {
                out.tell_proposer(proposer, ToProposer::FillTo(fill));
            }
        }
        if is_unserved && now.since(self.reads.complained_at) >= self.cluster.election_timeout {
            self.reads.complained_at = now;
            self.say_unserved(out);
        }
        if self.reads.suspects == self.cluster.quorums.acceptors() {
            self.reads.suspects = AcceptorSet::default(); // the trouble lies elsewhere
        }
        self.trust_replicas_if_none_is_left();
        if !self.reads.groups.is_empty() {
            self.timers.set(GatewayTimer::Read, now + self.cluster.resend_min);
        }
    }

    pub(super) fn validate_reads(&self) {
        let groups_max = self.cluster.batches_in_flight_max as usize;
        self.reads.validate(groups_max, self.cluster.session_window as usize);
        let is_watched = self.timers.is_set(GatewayTimer::Read) || self.reads.groups.is_empty();
        assert!(is_watched, "reads are under way and no timer");
    }

    /// Whether there may be one more group under way. Before it knows its cluster's table, no
    /// acceptor counts.
    fn may_send_reads(&self) -> bool {
        self.membership.table().is_some()
            && self.reads.groups.len() < self.cluster.batches_in_flight_max as usize
    }

    fn close_group(&mut self, kind: Kind, now: Time, out: &mut Outbox) {
        let reads = &mut self.reads;
        let number = reads.next;
        let next_callers = reads.spare_callers.pop().unwrap_or_default();
        let forming = &mut reads.forming[kind as usize];
        let callers = std::mem::replace(&mut forming.callers, next_callers);
        forming.closed += 1;
        assert!(!callers.is_empty(), "a group of no reads");
        let asked = match kind {
            Kind::Probed => self.cluster.quorums.read_quorum(number, reads.suspects),
            Kind::Seen | Kind::Any => AcceptorSet::default(),
        };
        reads.groups.push_back(Group {
            number,
            callers,
            answered: 0,
            queries: forming.queries.take(),
            at_least: std::mem::take(&mut forming.at_least),
            stage: Stage::Probing { asked, acks: AcceptorSet::default() },
            since: now,
            asked_at: now,
            attempt: 0,
        });
        reads.next += 1;
        let place = reads.groups.len() - 1;
        match kind {
            Kind::Probed => {
                let besides = self.suspects_to_ask(now);
                self.probe(number, asked.union(besides), out);
            }
            Kind::Seen | Kind::Any => self.read_at_next(place, now, out),
        }
        let due = now + 4 * self.cluster.resend_min;
        self.timers.set_if_unset(GatewayTimer::Read, due);
    }

    /// Suspects that are asked besides, now and then: one that answers is none any more.
    fn suspects_to_ask(&mut self, now: Time) -> AcceptorSet {
        let reads = &mut self.reads;
        let is_time = now.since(reads.suspects_asked_at) >= self.cluster.probe_interval;
        if reads.suspects.is_empty() || !is_time {
            return AcceptorSet::default();
        }
        reads.suspects_asked_at = now;
        reads.suspects
    }

    /// Asks all acceptors that have not answered a group's probe, by that same probe.
    fn probe_others(&mut self, place: usize, now: Time, out: &mut Outbox) {
        let group = &mut self.reads.groups[place];
        let Stage::Probing { asked, acks } = &mut group.stage else { return };
        *asked = self.cluster.quorums.acceptors();
        let (number, missing) = (group.number, asked.without(*acks));
        group.asked_at = now;
        self.probe(number, missing, out);
    }

    fn probe(&mut self, probe: u64, asked: AcceptorSet, out: &mut Outbox) {
        let pre_read = PreRead { gateway: self.id, incarnation: self.reads.incarnation, probe };
        for acceptor in asked.iter() {
            out.tell_acceptor(acceptor, ToAcceptor::PreRead(pre_read));
        }
        self.counters.probes += 1;
    }

    /// Asks the replica whose turn it is for the answers to a group; another one than last time.
    ///
    /// source: \[CP §3.4\]
    fn read_at_next(&mut self, place: usize, now: Time, out: &mut Outbox) {
        let group = &self.reads.groups[place];
        let last = match group.stage {
            Stage::Reading(replica) => Some(replica),
            Stage::Probing { .. } | Stage::Done => None,
        };
        let turn = last.map_or(group.number, |last| u64::from(last.0) + 1);
        let mut replica = self.next_answerer(turn);
        if Some(replica) == last {
            replica = self.next_answerer(turn + 1);
        }
        self.read_at(place, replica, now, out);
    }

    fn read_at(&mut self, place: usize, replica: ReplicaId, now: Time, out: &mut Outbox) {
        let group = &mut self.reads.groups[place];
        (group.stage, group.asked_at) = (Stage::Reading(replica), now);
        let read = Read {
            gateway: self.id,
            incarnation: self.reads.incarnation,
            group: group.number,
            first: u32::try_from(group.answered).unwrap_or(u32::MAX),
            at_least: group.at_least,
            queries: group.queries.clone(),
        };
        let read = self.reads.sent.hand_out_holding(group.queries.len(), read);
        out.tell_replica(replica, ToReplica::Read(read));
    }

    /// Lets go of groups that are done; those that wait may follow.
    fn end_groups(&mut self, now: Time, out: &mut Outbox) {
        self.reads.forget_done();
        if self.reads.groups.is_empty() {
            self.timers.stop(GatewayTimer::Read);
        }
        self.flush_reads(now, out);
    }
}
