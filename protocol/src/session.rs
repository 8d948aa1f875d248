//! Sessions: what lets a command be sent twice and executed once.
//!
//! ```text
//!   numbers   0 ─────────┬──────────────────────┬──────────▶
//!             trimmed    │ executed, answers    │ next
//!                        │ kept                 │
//!                 lowest unanswered
//! ```
//!
//! A session belongs to the replicated state: every replica has the same sessions with the same answers
//! at the same slot, because all that happens to them follows from the log. So a command that was
//! executed is known as executed wherever it is sent again, and gets the same answer.
//!
//! source: R22, R23

use std::collections::{BTreeMap, VecDeque};

use crate::block::{Items, RunAnswers};
use crate::snapshot::Fields;
use crate::{GatewayId, Incarnation, MalformedSnapshot, Payload, Position, SessionId, Slot};

/// The length of a session's record in a snapshot.
const SESSION_BYTES: usize = 1 + 12 + 9 + 8 + 8;
/// The length of a record of answers in a snapshot, without the replies.
const ANSWERS_BYTES: usize = 1 + 12 + 8 + 12 + 4 + 4;

/// All sessions of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
    sessions_max: usize,
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    opened_by: (GatewayId, Incarnation),
    /// The number that is executed next; all below have been.
    next: u64,
    /// The slot that last used it.
    used_at: Slot,
    /// The answers from the owner's lowest unanswered number up to `next`.
    answers: VecDeque<Answers>,
    /// In the copy that is written to a snapshot: whether all but the answers is written.
    is_written: bool,
}

/// The answers to one run.
#[derive(Clone, Debug)]
struct Answers {
    first: u64,
    /// Where the first was executed.
    at: Position,
    count: u32,
    replies: Payload,
}

impl Sessions {
    pub(crate) fn new(sessions_max: u32) -> Self {
        Self { sessions: BTreeMap::new(), sessions_max: sessions_max as usize }
    }

    /// Opens a session named by its place in the log, or returns the one that this very life of the
    /// gateway has. Where there is no room, the one unused for longest is closed: deterministically, so
    /// on every replica.
    ///
    /// source: R22
    pub(crate) fn open(
        &mut self,
        gateway: GatewayId,
        incarnation: Incarnation,
        name: SessionId,
    ) -> SessionId {
        let opened_by = (gateway, incarnation);
        if let Some(existing) = self.opened_by(gateway, incarnation) {
            return existing;
        }
        if self.sessions.len() >= self.sessions_max {
            let oldest = self.sessions.iter().min_by_key(|(id, s)| (s.used_at, **id));
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.sessions.remove(&oldest);
            }
        }
        let (used_at, answers) = (name.slot, VecDeque::new());
        let session = Session { opened_by, next: 0, used_at, answers, is_written: false };
        let before = self.sessions.insert(name, session);
        assert!(before.is_none(), "{name} was opened twice");
        name
    }

    /// The session that this life of the gateway has opened.
    pub(crate) fn opened_by(
        &self,
        gateway: GatewayId,
        incarnation: Incarnation,
    ) -> Option<SessionId> {
        let is_ours = |s: &Session| s.opened_by == (gateway, incarnation);
        self.sessions.iter().find(|(_, session)| is_ours(session)).map(|(id, _)| *id)
    }

    pub(crate) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(crate) fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    /// Forgets every session.
    pub(crate) fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Moves sessions from here to `part` for as long as it stays within `bytes_max` bytes, but at least one record
    /// if that is longer; returns whether any are left. Each session is followed by its answers, of which some may
    /// come in the next part.
    pub(crate) fn write(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let start = part.len();
        let is_full = |part: &Vec<u8>, bytes| part.len() > start && part.len() + bytes > bytes_max;
        while !is_full(part, SESSION_BYTES) {
            let Some(mut entry) = self.sessions.first_entry() else { return false };
            let id = *entry.key();
            let session = entry.get_mut();
            if !std::mem::replace(&mut session.is_written, true) {
                let (gateway, incarnation) = session.opened_by;
                part.push(b'S');
                part.extend(id.slot.0.to_le_bytes());
                part.extend(id.index.to_le_bytes());
                part.push(gateway.0);
                part.extend(incarnation.0.to_le_bytes());
                part.extend(session.next.to_le_bytes());
                part.extend(session.used_at.0.to_le_bytes());
            }
            while let Some(answers) = session.answers.front() {
                if is_full(part, ANSWERS_BYTES + answers.replies.len()) {
                    return true;
                }
                let replies = answers.replies.as_slice();
                part.push(b'A');
                part.extend(id.slot.0.to_le_bytes());
                part.extend(id.index.to_le_bytes());
                part.extend(answers.first.to_le_bytes());
                part.extend(answers.at.slot.0.to_le_bytes());
                part.extend(answers.at.index.to_le_bytes());
                part.extend(answers.count.to_le_bytes());
                let bytes = u32::try_from(replies.len()).expect("replies of a run are below 4 GiB");
                part.extend(bytes.to_le_bytes());
                part.extend(replies);
                session.answers.pop_front();
            }
            entry.remove();
        }
        !self.sessions.is_empty()
    }

    /// Restores one record that [`write`](Self::write) has appended, without its first byte, which is `record`.
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
            b'S' => {
                let opened_by = (GatewayId(fields.u8()?), Incarnation(fields.u64()?));
                let (next, used_at) = (fields.u64()?, Slot(fields.u64()?));
                let answers = VecDeque::new();
                let session = Session { opened_by, next, used_at, answers, is_written: false };
                let is_new = self.sessions.insert(id, session).is_none();
                let has_room = self.sessions.len() <= self.sessions_max;
                if is_new && has_room { Ok(()) } else { Err(MalformedSnapshot) }
            }
            b'A' => {
                let session = self.sessions.get_mut(&id).ok_or(MalformedSnapshot)?;
                let first = fields.u64()?;
                let at = Position { slot: Slot(fields.u64()?), index: fields.u32()? };
                let (count, bytes) = (fields.u32()?, fields.u32()?);
                // A copy: a reference would keep the whole part alive for one reply.
                let replies = Payload::copy(fields.bytes(bytes)?);
                session.answers.push_back(Answers { first, at, count, replies });
                Ok(())
            }
            _ => Err(MalformedSnapshot),
        }
    }

    /// Whether the answers of each session are those up to its next number, without a hole.
    pub(crate) fn are_whole(&self) -> bool {
        self.sessions.values().all(|session| {
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
        for (id, session) in &self.sessions {
            let mut next = session.answers.front().map_or(session.next, |a| a.first);
            assert!(session.next - next <= 2 * u64::from(session_window), "{id} keeps too much");
            for answers in &session.answers {
                assert_eq!(answers.first, next, "{id}: answers have a hole");
                next += u64::from(answers.count);
            }
            assert_eq!(next, session.next, "{id}: answers end early");
        }
    }
}

impl Session {
    /// The number that is executed next.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Notes a use, and forgets answers that the owner has.
    ///
    /// source: R23, "windows are trimmed only by the client's own lowest unanswered number"
    pub(crate) fn trim(&mut self, lowest_unanswered: u64, used_at: Slot) {
        self.used_at = used_at;
        let is_done = |a: &Answers| a.first + u64::from(a.count) <= lowest_unanswered;
        while self.answers.front().is_some_and(is_done) {
            self.answers.pop_front();
        }
    }

    /// Takes in that the next `count` commands were executed, the first of them at `at`.
    pub(crate) fn executed(&mut self, at: Position, count: u32, replies: Payload) {
        self.answers.push_back(Answers { first: self.next, at, count, replies });
        self.next += u64::from(count);
    }

    /// The answer to an executed command, unless it was trimmed.
    pub(crate) fn answer(&self, number: u64) -> Option<&[u8]> {
        let place = self.answers.partition_point(|a| a.first + u64::from(a.count) <= number);
        let answers = self.answers.get(place).filter(|a| a.first <= number)?;
        Items::new(answers.replies.as_slice()).skipping(number - answers.first).next()
    }

    /// The answers to exactly this run, if it was executed as one and not trimmed.
    pub(crate) fn run_answers(&self, first: u64, count: u32) -> Option<RunAnswers<'_>> {
        let place = self.answers.partition_point(|a| a.first < first);
        let answers = self.answers.get(place)?;
        let replies = Items::new(answers.replies.as_slice());
        let is_it = (answers.first, answers.count) == (first, count);
        is_it.then_some(RunAnswers { at: answers.at, count, replies })
    }
}
