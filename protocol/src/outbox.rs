//! What a role wants done, in the order it wants it.
//!
//! ```text
//!   lane      what                        leaves
//!   sends     messages                    at once
//!   records   what must not be forgotten  to the log, in order (durable acceptors only)
//!   held      P1b, P2b, Formed, Replayed, after a sync completes that covers all records
//!             an acceptor's ProbeAck      until then, these included (R31)
//!   recalls   votes wanted from the log   to the disk (durable acceptors only)
//!   snapshots snapshots written and read  to the disk, in order (durable replicas only)
//!   replies   results to a gateway's      at once
//!             own clients
//!   events    what a person should know   to the operator's log
//! ```
//!
//! The held lane is the whole of the protocol's interest in a disk. In memory the driver syncs by
//! doing nothing and releases it in the same tick.

use std::ops::Range;
use std::slice;
use std::sync::Arc;

use crate::block::{NoReply, ReplyItems};
use crate::{
    AcceptorId, AcceptorSet, ClientId, Event, GatewayId, Halt, Position, ProposerId, ProxyLeaderId,
    Recall, Record, ReplicaId, SnapshotOrder, To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader,
    ToReplica,
};

/// Collects what roles want done.
///
/// Owned by the driver and reused, so a warm role allocates nothing to speak.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Messages to send at once.
    pub sends: Vec<To>,
    /// What is to be written down, in this order, before anything that is held is sent.
    pub records: Vec<Record>,
    /// Messages that wait for the next sync.
    pub held: Vec<To>,
    /// Votes to be read back.
    pub recalls: Vec<Recall>,
    /// What is to be done with snapshots, in this order.
    pub snapshots: Vec<SnapshotOrder>,
    /// Replies to the clients of a gateway.
    pub replies: Replies,
    /// Events for the operator's log.
    pub events: Vec<Event>,
    /// Whether each message that is ignored is an event, which says why.
    pub is_tracing: bool,
}

/// Replies to a gateway's clients: those of a run of commands as they were encoded, side by side.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    callers: Vec<Caller>,
    entries: Vec<ReplyEntry>,
}

#[derive(Debug)]
enum ReplyEntry {
    /// One reply, and where its command was executed.
    Reply { caller: Caller, at: Position, bytes: Range<usize> },
    /// One caller that gets no reply.
    Failure { caller: Caller, why: Failure },
    /// Encoded replies to callers, one each, and where the first one's command was executed; each
    /// of the others is `step` further on.
    Run { callers: Range<usize>, at: Position, step: u32, bytes: Range<usize> },
}

/// A caller, and what it is told.
type Told<'a> = (Caller, Result<(Position, &'a [u8]), Failure>);

/// The replies of one entry.
struct EntryReplies<'a> {
    one: Option<Told<'a>>,
    callers: slice::Iter<'a, Caller>,
    at: Position,
    step: u32,
    run: ReplyItems<'a>,
}

/// The caller whose command a reply is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Caller {
    /// The client.
    pub client: ClientId,
    /// The client's own name for the command.
    pub tag: u64,
}

/// The reason why a command has no reply.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Failure {
    /// It was never sent on: the gateway has as many commands under way as it may. Try again.
    Busy,
    /// It was never sent on: it is longer than `command_bytes_max`.
    TooLarge,
    /// It was never sent on: so little room is left in the logs of these acceptors that nothing new
    /// is proposed.
    NoRoom(AcceptorSet),
    /// It was executed. Its reply is longer than `reply_bytes_max`; or it got lost, and replicas
    /// have let go of it, for they keep no more than `answers_bytes_max`.
    ReplyTooLarge,
    /// It may have been executed, now or never: the gateway lost its session.
    OutcomeUnknown,
    /// Its client's session does not exist, or no longer: it was not executed now. What it was
    /// before, if it was sent before, nobody knows.
    NoSession,
    /// Its client's commands before it were not executed, or it is beyond the session's window: it
    /// was not executed now.
    OutOfOrder,
    /// It was to be read, and the state machine answers no such query.
    NotAQuery,
    /// It was to be read, and the state machine panicked at it. Nothing has changed.
    Panicked,
    /// It was skipped, and will never be executed: replicas had halted at it (R38).
    Skipped,
    /// It may have been executed, or may yet be: so many replicas have halted that no f+1 are left,
    /// of which one for this reason.
    Halted(Arc<Halt>),
    /// It may have been executed, or may yet be: no answer came within the client's deadline.
    DeadlineExceeded,
}

impl Outbox {
    /// Takes the messages out that may leave now, oldest first.
    pub fn drain_sends(&mut self) -> impl Iterator<Item = To> + '_ {
        self.sends.drain(..)
    }

    pub(crate) fn tell_gateway(&mut self, to: GatewayId, message: ToGateway) {
        self.sends.push(To::Gateway(to, message));
    }

    pub(crate) fn tell_proposer(&mut self, to: ProposerId, message: ToProposer) {
        self.sends.push(To::Proposer(to, message));
    }

    pub(crate) fn tell_proxy_leader(&mut self, to: ProxyLeaderId, message: ToProxyLeader) {
        self.sends.push(To::ProxyLeader(to, message));
    }

    pub(crate) fn tell_acceptor(&mut self, to: AcceptorId, message: ToAcceptor) {
        self.sends.push(To::Acceptor(to, message));
    }

    pub(crate) fn tell_replica(&mut self, to: ReplicaId, message: ToReplica) {
        self.sends.push(To::Replica(to, message));
    }

    /// Sends to a proposer, but not before the next sync completes.
    ///
    /// source: R31
    pub(crate) fn hold_to_proposer(&mut self, to: ProposerId, message: ToProposer) {
        self.held.push(To::Proposer(to, message));
    }

    /// Sends to a proxy leader, but not before the next sync completes.
    ///
    /// source: R31
    pub(crate) fn hold_to_proxy_leader(&mut self, to: ProxyLeaderId, message: ToProxyLeader) {
        self.held.push(To::ProxyLeader(to, message));
    }

    /// Sends to a replica, but not before the next sync completes.
    ///
    /// source: R31
    pub(crate) fn hold_to_replica(&mut self, to: ReplicaId, message: ToReplica) {
        self.held.push(To::Replica(to, message));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Notes that a message was ignored, and why, while that is traced.
    pub(crate) fn ignored(&mut self, why: &'static str) {
        if self.is_tracing {
            self.events.push(Event::Ignored { why });
        }
    }
}

impl Replies {
    /// Answers `caller` with `reply`, executed at `at`.
    pub fn push(&mut self, caller: Caller, at: Position, reply: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(reply);
        self.entries.push(ReplyEntry::Reply { caller, at, bytes: start..self.bytes.len() });
    }

    /// Answers each of `callers` with one of `replies`, as far as there are both; the first one's
    /// command was executed at `at`, and the others right after it. Returns how many there are.
    #[inline]
    pub(crate) fn push_run(
        &mut self,
        callers: impl Iterator<Item = Caller>,
        at: Position,
        replies: ReplyItems<'_>,
    ) -> u64 {
        self.push_all(callers, at, replies, 1) as u64
    }

    /// Answers each of `callers` with one of `replies` to reads, as far as there are both, which
    /// all reflect what is before `at`. Returns how many there are.
    pub(crate) fn push_reads(
        &mut self,
        callers: &[Caller],
        at: Position,
        replies: ReplyItems<'_>,
    ) -> usize {
        self.push_all(callers.iter().copied(), at, replies, 0)
    }

    #[inline(always)]
    fn push_all(
        &mut self,
        callers: impl Iterator<Item = Caller>,
        at: Position,
        replies: ReplyItems<'_>,
        step: u32,
    ) -> usize {
        let (first, start) = (self.callers.len(), self.bytes.len());
        self.callers.extend(callers);
        let count = replies.take(self.callers.len() - first).count();
        self.callers.truncate(first + count);
        self.bytes.extend_from_slice(replies.as_slice());
        let (callers, bytes) = (first..self.callers.len(), start..self.bytes.len());
        self.entries.push(ReplyEntry::Run { callers, at, step, bytes });
        count
    }

    /// Tells `caller` that there is no reply.
    pub fn fail(&mut self, caller: Caller, why: Failure) {
        self.entries.push(ReplyEntry::Failure { caller, why });
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All replies, oldest first, each with where its command was executed; of a read, where the
    /// next command would have been.
    pub fn iter(&self) -> impl Iterator<Item = (Caller, Result<(Position, &[u8]), Failure>)> {
        self.entries.iter().flat_map(|entry| {
            let (mut at, mut step, mut one) = (Position::default(), 0, None);
            let (mut callers, mut run) = (&[][..], ReplyItems::default());
            match entry {
                ReplyEntry::Reply { caller, at, bytes } => {
                    one = Some((*caller, Ok((*at, &self.bytes[bytes.clone()]))));
                }
                ReplyEntry::Failure { caller, why } => one = Some((*caller, Err(why.clone()))),
                ReplyEntry::Run { callers: range, at: first, step: by, bytes } => {
                    (callers, at, step) = (&self.callers[range.clone()], *first, *by);
                    run = ReplyItems::new(&self.bytes[bytes.clone()]);
                }
            }
            EntryReplies { one, callers: callers.iter(), at, step, run }
        })
    }

    /// Forgets them, keeping the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.callers.clear();
        self.entries.clear();
    }
}

impl<'a> Iterator for EntryReplies<'a> {
    type Item = Told<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(caller) = self.callers.next() else { return self.one.take() };
        let at = self.at;
        self.at.index += self.step;
        let reply = self.run.next()?;
        Some((*caller, reply.map(|reply| (at, reply)).map_err(Failure::from)))
    }
}

impl From<NoReply> for Failure {
    fn from(why: NoReply) -> Self {
        match why {
            // It was executed, and its client has had the reply, or a copy of it has.
            NoReply::TooLarge | NoReply::Forgotten => Self::ReplyTooLarge,
            NoReply::Skipped => Self::Skipped,
            NoReply::NoSession => Self::NoSession,
            NoReply::OutOfOrder => Self::OutOfOrder,
            NoReply::NotAQuery => Self::NotAQuery,
            NoReply::Panicked => Self::Panicked,
        }
    }
}
