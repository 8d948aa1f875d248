//! Sessions: what lets a command be sent twice and executed once.
//!
//! ```text
//!   numbers   0 ─────────┬──────────────────────┬──────────▶
//!             trimmed    │ executed, answers    │ next
//!                        │ kept                 │
//!                 lowest unanswered
//! ```
//!
//! Gateways have sessions, and so have clients that go from one gateway to another. Those of
//! clients end when they were not used for long by the log's time, and both when there are too
//! many.
//!
//! A session belongs to the replicated state: every replica has the same sessions with the same
//! answers at the same slot, because all that happens to them follows from the log. So a command
//! that was executed is known as executed wherever it is sent again, and gets the same answer.
//!
//! Answers are kept to be given again, should they get lost. There may be `answers_bytes_max` of
//! those to gateways, and as much of those to clients: beyond that, all replicas let go of the same
//! ones, and remember of these only that their commands were executed.
//!
//! source: R22, R23, R26, R29

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::block::{
    self, REPLY_HEADER_BYTES, ReplyItems, RunAnswers, SESSION_BYTES as SESSION_NAME_BYTES,
};
use crate::snapshot::Fields;
use crate::{
    At, GatewayId, Incarnation, MalformedSnapshot, Payload, Position, SessionId, Slot, Time,
};

/// The length of a session's record in a snapshot: that of a client, which is the longer one.
const SESSION_BYTES: usize = 1 + 12 + 8 + 8 + 8 + 8;
/// The length of a record of answers in a snapshot, without the replies.
const ANSWERS_BYTES: usize = 1 + 12 + 8 + 12 + 4 + 4;

/// What the answers to a run of a client count for beside its replies. A client says how many runs
/// it has, so that their number is bounded, too: each takes about as much memory.
const CLIENT_RUN_BYTES: usize = 128;
/// Where there is no room for another client's session, this part of them ends at once; and where
/// there is none for its answers, this part of these is let go of. To look for what to end takes a
/// look at all of them.
const CLIENT_PART: usize = 16;

/// The life that a session was opened for. Another one never has the same.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Opener {
    Gateway(GatewayId, Incarnation),
    /// A client, by the key that it has drawn.
    Client(u64),
}

/// All sessions of the gateways, or of the clients, as a replica knows them.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    /// By name, in ascending order: each new one is the last, for names are places in the log.
    sessions: Vec<(SessionId, Session)>,
    /// Their names by who has opened them.
    names: BTreeMap<Opener, SessionId>,
    /// The index of the session that was last used, where it is looked for first.
    last_used: usize,
    /// In the copy that is written to a snapshot: how many are written, but for the answers of the
    /// last.
    written: usize,
    sessions_max: usize,
    /// A session ends once it was not used for longer, by the log's time.
    unused_max: Option<Duration>,
    /// The bytes of all answers that are kept: see [`Answers::bytes`].
    answers_bytes: usize,
    answers_bytes_max: usize,
    /// Runs whose replies were let go.
    pub(crate) let_go: u64,
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    opened_by: Opener,
    /// The number that is executed next; all below have been.
    next: u64,
    /// The slot that last used it, and the log's time there; this only for clients.
    used_at: Slot,
    used_time: Time,
    /// The answers from the owner's lowest unanswered number up to `next`.
    answers: VecDeque<Answers>,
    /// Their bytes: see [`Answers::bytes`].
    answers_bytes: usize,
}

/// The answers to one run.
#[derive(Clone, Debug)]
struct Answers {
    first: u64,
    /// The place where the first was executed.
    at: Position,
    count: u32,
    replies: Replies,
}

/// The replies to a run, as they were encoded.
#[derive(Clone, Debug)]
pub(crate) enum Replies {
    /// Within what holds them, or in a block.
    Payload(Payload),
    /// In memory of their own, which is used again.
    Copy(Arc<Vec<u8>>),
    /// Where the session of the client keeps them whose commands they answer, of which the first is
    /// `first` there.
    OfClient { client: SessionId, first: u64 },
}

impl Sessions {
    pub(crate) fn new(
        sessions_max: u32,
        answers_bytes_max: u32,
        unused_max: Option<Duration>,
    ) -> Self {
        Self {
            sessions: Vec::new(),
            names: BTreeMap::new(),
            last_used: 0,
            written: 0,
            sessions_max: sessions_max as usize,
            unused_max,
            answers_bytes: 0,
            answers_bytes_max: answers_bytes_max as usize,
            let_go: 0,
        }
    }

    /// Opens a session named by its place in the log, or returns the one that this very life of the
    /// opener has. Where there is no room, the one unused for longest is closed, and with it the
    /// next ones of clients: deterministically, so on every replica.
    ///
    /// source: R22
    pub(crate) fn open(&mut self, opener: Opener, at: At) -> SessionId {
        let existing = self.opened_by(opener).filter(|id| self.trim_in_time(*id, 0, at).is_some());
        if let Some(existing) = existing {
            return existing;
        }
        if self.sessions.len() >= self.sessions_max {
            self.make_room();
        }
        let name = SessionId { slot: at.slot, index: at.index };
        let is_last = self.sessions.last().is_none_or(|(last, _)| *last < name);
        assert!(is_last, "{name} was opened after a later one, or twice");
        self.sessions.push((name, Session::new(opener, 0, at.slot, at.time)));
        self.names.insert(opener, name);
        let count = self.sessions.len();
        assert!(count <= self.sessions_max, "{count} sessions are open, {} may", self.sessions_max);
        name
    }

    fn close(&mut self, index: usize) {
        let (_, closed) = self.sessions.remove(index);
        self.names.remove(&closed.opened_by);
        self.answers_bytes -= closed.answers_bytes;
    }

    /// Closes the session that was unused for longest; of clients a part of all.
    fn make_room(&mut self) {
        let last_use = |(id, session): &(SessionId, Session)| (session.used_at, *id);
        let mut uses: Vec<_> = self.sessions.iter().map(last_use).collect();
        let count = if self.are_of_clients() { uses.len().div_ceil(CLIENT_PART) } else { 1 };
        let Some(last) = count.checked_sub(1).filter(|last| *last < uses.len()) else { return };
        let (_, last_closed, _) = uses.select_nth_unstable(last);
        let (names, answers_bytes) = (&mut self.names, &mut self.answers_bytes);
        self.sessions.retain(|entry| {
            let is_kept = last_use(entry) > *last_closed;
            if !is_kept {
                names.remove(&entry.1.opened_by);
                *answers_bytes -= entry.1.answers_bytes;
            }
            is_kept
        });
    }

    fn are_of_clients(&self) -> bool {
        self.unused_max.is_some()
    }

    /// The session that this life has opened.
    pub(crate) fn opened_by(&self, opener: Opener) -> Option<SessionId> {
        self.names.get(&opener).copied()
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<&Session> {
        let index = self.index(id)?;
        self.sessions.get(index).map(|(_, session)| session)
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.last_used = self.index(id)?;
        self.sessions.get_mut(self.last_used).map(|(_, session)| session)
    }

    #[inline]
    fn index(&self, id: SessionId) -> Option<usize> {
        let is_here =
            self.sessions.get(self.last_used).is_some_and(|(last_used, _)| *last_used == id);
        if is_here {
            return Some(self.last_used);
        }
        self.sessions.binary_search_by_key(&id, |(id, _)| *id).ok()
    }

    /// Notes a use of a session, and forgets answers that its owner has; returns the number that it
    /// executes next.
    ///
    /// source: R23, "windows are trimmed only by the client's own lowest unanswered number"
    #[inline(always)]
    pub(crate) fn trim(
        &mut self,
        id: SessionId,
        lowest_unanswered: u64,
        used_at: Slot,
    ) -> Option<u64> {
        let session = self.session_mut(id)?;
        let (next, trimmed) =
            (session.next, session.trim(lowest_unanswered.min(session.next), used_at));
        self.answers_bytes -= trimmed;
        Some(next)
    }

    /// The same for one that ends when it is not used for long by the log's time: here, on every
    /// replica, for that time is the same on all.
    ///
    /// source: R26
    #[inline(never)]
    pub(crate) fn trim_in_time(
        &mut self,
        id: SessionId,
        lowest_unanswered: u64,
        at: At,
    ) -> Option<u64> {
        let unused_max = self.unused_max;
        let session = self.session_mut(id)?;
        if unused_max.is_some_and(|most| at.time.since(session.used_time) > most) {
            self.close(self.last_used);
            return None;
        }
        session.used_time = at.time;
        self.trim(id, lowest_unanswered, at.slot)
    }

    /// Takes in that the next `count` commands of a session were executed, the first of them at
    /// `at`; lets go of replies where too many are kept now.
    #[inline]
    pub(crate) fn executed(&mut self, id: SessionId, at: Position, count: u32, replies: Replies) {
        let session = self.session_mut(id).expect("it was just used");
        self.answers_bytes += session.executed(at, count, replies);
        while self.answers_bytes > self.answers_bytes_max {
            if self.are_of_clients() {
                return self.forget_answers();
            }
            self.let_go();
        }
    }

    /// Forgets the oldest answers of those clients that keep most, until there is room for a while.
    /// As its number tells, each of their commands was executed: its client is told that, and no
    /// reply.
    #[cold]
    fn forget_answers(&mut self) {
        let most = self.answers_bytes_max - self.answers_bytes_max / CLIENT_PART;
        let sessions = self.sessions.iter().enumerate();
        let mut by_bytes: BinaryHeap<_> =
            sessions.map(|(index, (_, it))| (it.answers_bytes, Reverse(index))).collect();
        while self.answers_bytes > most
            && let Some((_, Reverse(index))) = by_bytes.pop()
        {
            let (_, session) = &mut self.sessions[index];
            let oldest = session.answers.pop_front().expect("a client that keeps most keeps some");
            let bytes = oldest.bytes(session.opened_by);
            session.answers_bytes -= bytes;
            self.answers_bytes -= bytes;
            self.let_go += 1;
            by_bytes.push((session.answers_bytes, Reverse(index)));
        }
    }

    /// Lets go of the oldest replies of the gateway's session that keeps most: an answer that got
    /// lost cannot be given again then. Which these are follows from the log, so all replicas let
    /// go of the same.
    fn let_go(&mut self) {
        let most = self.sessions.iter_mut().max_by_key(|(_, session)| session.answers_bytes);
        let (_, session) = most.expect("replies are kept by sessions");
        let oldest = session.answers.iter_mut().find(|answers| answers.replies_bytes() > 0);
        let oldest = oldest.expect("its replies have bytes");
        let bytes = oldest.replies_bytes();
        oldest.replies = Replies::Payload(block::no_replies(oldest.replies.here()));
        session.answers_bytes -= bytes;
        self.answers_bytes -= bytes;
        self.let_go += 1;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Forgets every session.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
        self.names.clear();
        (self.last_used, self.answers_bytes) = (0, 0);
    }

    /// Moves sessions from here to `part` for as long as it stays within `bytes_max` bytes, but at
    /// least one record if that is longer; returns whether any are left. Each session is followed
    /// by its answers, of which some may come in the next part.
    pub(crate) fn write(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let start = part.len();
        let is_full = |part: &Vec<u8>, bytes| part.len() > start && part.len() + bytes > bytes_max;
        loop {
            if let Some((id, session)) =
                self.written.checked_sub(1).map(|it| &mut self.sessions[it])
            {
                while let Some(answers) = session.answers.front() {
                    if is_full(part, ANSWERS_BYTES + answers.replies.written_bytes()) {
                        return true;
                    }
                    answers.write(*id, answers_record(session.opened_by, &answers.replies), part);
                    session.answers.pop_front();
                }
            }
            if is_full(part, SESSION_BYTES) {
                return self.written < self.sessions.len();
            }
            let Some((id, session)) = self.sessions.get(self.written) else { return false };
            part.push(session_record(session.opened_by));
            part.extend(id.slot.0.to_le_bytes());
            part.extend(id.index.to_le_bytes());
            match session.opened_by {
                Opener::Gateway(gateway, incarnation) => {
                    part.push(gateway.0);
                    part.extend(incarnation.0.to_le_bytes());
                }
                Opener::Client(key) => {
                    part.extend(key.to_le_bytes());
                    part.extend(session.used_time.0.to_le_bytes());
                }
            }
            part.extend(session.next.to_le_bytes());
            part.extend(session.used_at.0.to_le_bytes());
            self.written += 1;
        }
    }

    /// Restores one record that [`write`](Self::write) has appended, without its first byte, which
    /// is `record`.
    ///
    /// # Errors
    ///
    /// If it does not follow from the records before it.
    pub(crate) fn restore(
        &mut self,
        record: u8,
        fields: &mut Fields<'_>,
    ) -> Result<(), MalformedSnapshot> {
        let id = SessionId { slot: Slot(fields.u64()?), index: fields.u32()? };
        match record {
            b'S' | b'C' => {
                let (opened_by, used_time) = match record {
                    b'S' => {
                        let opener =
                            Opener::Gateway(GatewayId(fields.u8()?), Incarnation(fields.u64()?));
                        (opener, Time(0))
                    }
                    _ => (Opener::Client(fields.u64()?), Time(fields.u64()?)),
                };
                let (next, used_at) = (fields.u64()?, Slot(fields.u64()?));
                let session = Session::new(opened_by, next, used_at, used_time);
                let is_next = self.sessions.last().is_none_or(|(last, _)| *last < id);
                let is_second = self.names.insert(opened_by, id).is_some();
                if !is_next || is_second || self.sessions.len() >= self.sessions_max {
                    return Err(MalformedSnapshot);
                }
                self.sessions.push((id, session));
                Ok(())
            }
            b'A' | b'B' | b'R' => {
                let session = self.session_mut(id).ok_or(MalformedSnapshot)?;
                let first = fields.u64()?;
                let at = Position { slot: Slot(fields.u64()?), index: fields.u32()? };
                let (count, bytes) = (fields.u32()?, fields.u32()?);
                let bytes = fields.bytes(bytes)?;
                let replies = match record {
                    b'R' => {
                        let (client, first) =
                            bytes.split_at_checked(SESSION_NAME_BYTES).ok_or(MalformedSnapshot)?;
                        let client = SessionId::from_bytes(client).ok_or(MalformedSnapshot)?;
                        let first = first.try_into().map_err(|_| MalformedSnapshot)?;
                        Replies::OfClient { client, first: u64::from_le_bytes(first) }
                    }
                    // A copy: a reference would keep the whole part alive for one reply.
                    _ => Replies::Payload(Payload::copy(bytes)),
                };
                let bytes = session.keep(Answers { first, at, count, replies });
                self.answers_bytes += bytes;
                Ok(())
            }
            _ => Err(MalformedSnapshot),
        }
    }

    /// Whether the answers of each session are those up to its next number, without a hole.
    pub(crate) fn are_whole(&self) -> bool {
        self.sessions.iter().all(|(_, session)| {
            let Some(first) = session.answers.front() else { return true };
            let end = session.answers.iter().try_fold(first.first, |next, answers| {
                let is_next = answers.first == next;
                is_next.then(|| next.checked_add(answers.count.into())).flatten()
            });
            end == Some(session.next)
        })
    }

    pub(crate) fn validate(&self, session_window: u32) {
        assert!(self.sessions.len() <= self.sessions_max, "{} sessions", self.sessions.len());
        let bytes = self.sessions.iter().map(|(_, session)| session.answers_bytes).sum::<usize>();
        let names = self.sessions.iter().map(|(id, _)| id);
        assert!(names.is_sorted_by(|a, b| a < b), "sessions are out of order");
        assert_eq!(bytes, self.answers_bytes, "answers were not counted");
        assert!(bytes <= self.answers_bytes_max, "{bytes} bytes of answers are kept");
        assert_eq!(self.names.len(), self.sessions.len(), "a session has no name, or a name none");
        for (id, session) in &self.sessions {
            assert_eq!(self.opened_by(session.opened_by), Some(*id), "{id} has another name");
            let mut next = session.answers.front().map_or(session.next, |a| a.first);
            assert!(session.next - next <= 2 * u64::from(session_window), "{id} keeps too much");
            for answers in &session.answers {
                assert_eq!(answers.first, next, "{id}: answers have a hole");
                next += u64::from(answers.count);
            }
            assert_eq!(next, session.next, "{id}: answers end early");
            let bytes = session.answers.iter().map(|it| it.bytes(session.opened_by)).sum::<usize>();
            assert_eq!(bytes, session.answers_bytes, "{id}: answers were not counted");
        }
    }
}

/// The first byte of a session's record in a snapshot.
fn session_record(opened_by: Opener) -> u8 {
    match opened_by {
        Opener::Gateway(..) => b'S',
        Opener::Client(_) => b'C',
    }
}

/// The first byte of a record of its answers.
fn answers_record(opened_by: Opener, replies: &Replies) -> u8 {
    match (opened_by, replies) {
        (Opener::Gateway(..), Replies::OfClient { .. }) => b'R',
        (Opener::Gateway(..), Replies::Payload(_) | Replies::Copy(_)) => b'A',
        (Opener::Client(_), _) => b'B',
    }
}

impl Session {
    fn new(opened_by: Opener, next: u64, used_at: Slot, used_time: Time) -> Self {
        let answers = VecDeque::new();
        Self { opened_by, next, used_at, used_time, answers, answers_bytes: 0 }
    }

    /// Notes a use, and forgets answers that the owner has; returns their bytes.
    #[inline]
    fn trim(&mut self, lowest_unanswered: u64, used_at: Slot) -> usize {
        debug_assert!(lowest_unanswered <= self.next, "trimmed what was not executed");
        self.used_at = used_at;
        let mut bytes = 0;
        while let Some(answers) = self.answers.front()
            && answers.end() <= lowest_unanswered
        {
            bytes += answers.bytes(self.opened_by);
            self.answers.pop_front();
        }
        self.answers_bytes -= bytes;
        bytes
    }

    /// Takes in that the next `count` commands were executed, the first of them at `at`; returns
    /// the bytes of the answers.
    #[inline]
    fn executed(&mut self, at: Position, count: u32, replies: Replies) -> usize {
        let first = self.next;
        let end = || self.answers.back().map_or(first, Answers::end);
        debug_assert_eq!(end(), first, "the answers end before the next command");
        self.next += u64::from(count);
        self.keep(Answers { first, at, count, replies })
    }

    #[inline]
    fn keep(&mut self, answers: Answers) -> usize {
        let bytes = answers.bytes(self.opened_by);
        self.answers_bytes += bytes;
        self.answers.push_back(answers);
        bytes
    }

    /// The run that `number` was executed in, unless it was trimmed.
    fn run_of(&self, number: u64) -> Option<&Answers> {
        let place = self.answers.partition_point(|answers| answers.end() <= number);
        self.answers.get(place).filter(|a| a.first <= number)
    }

    /// The answers to the command `number` and those after it that were executed in the same run:
    /// `count` at the most; unless it was trimmed. Replies that are kept for clients are taken from
    /// there: where one is kept no longer, its client has it, or there were too many to keep.
    pub(crate) fn answers_from<'a>(
        &'a self,
        number: u64,
        count: u32,
        clients: &'a Sessions,
    ) -> Option<RunAnswers<'a>> {
        let answers = self.run_of(number)?;
        let rest = u32::try_from(answers.end() - number).unwrap_or(u32::MAX);
        let skipped = u32::try_from(number - answers.first).ok()?;
        let count = count.min(rest);
        if let Replies::OfClient { client, first } = answers.replies {
            let number = first + u64::from(skipped);
            let kept = clients.session(client).and_then(|it| it.own_answers_from(number, count));
            let at = Position { index: answers.at.index + skipped, ..answers.at };
            return Some(kept.unwrap_or(RunAnswers {
                at,
                count: 1,
                replies: block::TOO_LARGE_REPLY,
            }));
        }
        self.own_answers_from(number, count)
    }

    /// Likewise; but those that are kept for clients elsewhere are none.
    pub(crate) fn own_answers_from(&self, number: u64, count: u32) -> Option<RunAnswers<'_>> {
        let answers = self.run_of(number)?;
        let skipped = u32::try_from(number - answers.first).ok()?;
        let count = count.min(answers.count - skipped);
        let at = Position { index: answers.at.index + skipped, ..answers.at };
        let replies = ReplyItems::new(answers.replies.here()).skipping(skipped.into());
        Some(RunAnswers { at, count, replies: replies.first(count.into()) })
    }

    /// The number that it executes next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

impl Replies {
    /// Those that are kept here.
    #[inline]
    fn here(&self) -> &[u8] {
        match self {
            Self::Payload(replies) => replies.as_slice(),
            Self::Copy(replies) => replies,
            Self::OfClient { .. } => &[],
        }
    }

    /// Their bytes in a snapshot.
    fn written_bytes(&self) -> usize {
        match self {
            Self::OfClient { .. } => SESSION_NAME_BYTES + 8,
            Self::Payload(_) | Self::Copy(_) => self.here().len(),
        }
    }
}

impl Answers {
    /// Appends their record in a snapshot.
    fn write(&self, id: SessionId, record: u8, part: &mut Vec<u8>) {
        part.push(record);
        part.extend(id.slot.0.to_le_bytes());
        part.extend(id.index.to_le_bytes());
        part.extend(self.first.to_le_bytes());
        part.extend(self.at.slot.0.to_le_bytes());
        part.extend(self.at.index.to_le_bytes());
        part.extend(self.count.to_le_bytes());
        let bytes = self.replies.written_bytes();
        let bytes = u32::try_from(bytes).expect("replies of a run are below 4 GiB");
        part.extend(bytes.to_le_bytes());
        match &self.replies {
            Replies::OfClient { client, first } => {
                part.extend(client.to_bytes());
                part.extend(first.to_le_bytes());
            }
            Replies::Payload(_) | Replies::Copy(_) => part.extend(self.replies.here()),
        }
    }

    /// The number of the first command after them.
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// What they count for: the bytes of the replies, without their lengths; and of a client each
    /// run by itself.
    #[inline]
    fn bytes(&self, opened_by: Opener) -> usize {
        match opened_by {
            Opener::Gateway(..) => self.replies_bytes(),
            Opener::Client(_) => self.replies_bytes() + CLIENT_RUN_BYTES,
        }
    }

    /// The bytes of the replies, without their lengths.
    fn replies_bytes(&self) -> usize {
        self.replies.here().len().saturating_sub(self.count as usize * REPLY_HEADER_BYTES)
    }
}
