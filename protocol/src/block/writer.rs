//! Writing blocks: of batches, and of their outcomes.

use std::ops::Range;

use bytes::BufMut;

use super::{
    CLIENT_BYTES, COMMAND_HEADER_BYTES, DONE_HEADER_BYTES, NoReply, REPLY_HEADER_BYTES,
    RUN_HEADER_BYTES, RunAnswers, TAG_COMMANDS, TAG_DONE, TAG_OF_CLIENT, TAG_OF_NEW_CLIENT,
    TAG_OPEN, TAG_OPENED, TAG_OUT_OF_ORDER, TAG_SKIP, TAG_TRIMMED, TAG_UNKNOWN_SESSION, TOO_LARGE,
};
use crate::pool::Arena;
use crate::{GatewayId, Incarnation, LoggedCommand, Payload, Position, RunOwner, SessionId};

/// The end of a `Done`'s header: the number of its replies, and their bytes.
const DONE_LENGTHS_BYTES: usize = 4 + 4;
/// The most that a buffer keeps for the next block.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// A block in the making. A short one is copied into its payload, a long one into memory that is
/// used again.
#[derive(Clone, Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    arena: Arena,
    /// Short blocks since the last long one.
    short_blocks: u32,
}

/// The number of short blocks, one after the other, after which memory of long ones is freed: where
/// blocks are short, none is needed.
const RELEASE_INTERVAL: u32 = 64;

impl Buffer {
    fn take(&mut self) -> Payload {
        let payload = self.copy(0..self.bytes.len());
        self.clear();
        payload
    }

    /// Copies a part of the block.
    #[inline]
    fn copy(&mut self, range: Range<usize>) -> Payload {
        let bytes = &self.bytes[range];
        if let Some(payload) = Payload::inline(bytes) {
            self.short_blocks = self.short_blocks.wrapping_add(1);
            if self.short_blocks.is_multiple_of(RELEASE_INTERVAL) {
                self.arena.release_one();
            }
            return payload;
        }
        self.short_blocks = 0;
        Payload::from(self.arena.copy(bytes))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_BYTES_MAX {
            self.bytes = Vec::new();
        }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    fn session(&mut self, session: SessionId) {
        self.u64(session.slot.0);
        self.u32(session.index);
    }

    fn patch_u32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or_else(|_| panic!("{bytes} bytes in one block"))
}

/// Encodes the batches of one session: a run for each stretch of commands with the same owner.
///
/// The headers of runs are written when the batch is closed: until then its session may not be open
/// yet.
#[derive(Clone, Debug, Default)]
pub struct BatchWriter {
    block: Buffer,
    commands_count: u32,
    runs: Vec<RunStart>,
    /// Whether the last of them has no other owner than the gateway.
    is_plain: bool,
    /// The session of the client that the last of them is of, and its next number in it.
    client: Option<(SessionId, u64)>,
    /// What the header of that run says to be its lowest number without an answer.
    client_lowest: u64,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug)]
struct RunStart {
    /// Its offset in the block.
    at: usize,
    /// Of its header, which is filled in when the batch is closed, but for what its owner is.
    header_bytes: usize,
    /// The number of commands before it.
    before: u32,
}

impl BatchWriter {
    /// Adds a command of this owner, of which a client's is the one that it calls `first`; returns
    /// how many commands there are now.
    #[inline(always)]
    pub fn put(&mut self, owner: RunOwner, command: &[u8]) -> u32 {
        match owner {
            RunOwner::Gateway => self.push(command),
            RunOwner::Client { .. } | RunOwner::NewClient { .. } => {
                self.put_of_client(owner, command)
            }
        }
    }

    #[inline(never)]
    fn put_of_client(&mut self, owner: RunOwner, command: &[u8]) -> u32 {
        match owner {
            RunOwner::Gateway => self.push(command),
            RunOwner::Client { session, first, lowest_unanswered } => {
                self.push_of_client(session, first, lowest_unanswered, command)
            }
            RunOwner::NewClient { key } => self.push_new_client(key),
        }
    }

    /// Adds a command of a caller without a session of its own; returns how many commands there are
    /// now.
    #[inline(always)]
    pub fn push(&mut self, command: &[u8]) -> u32 {
        if !self.is_plain {
            self.start_run(TAG_COMMANDS, &[]);
            self.is_plain = true;
        }
        self.append(command)
    }

    /// Adds the command that a client's session calls `number`; returns how many commands there are
    /// now. The client has the answers to all below `lowest_unanswered`.
    pub fn push_of_client(
        &mut self,
        session: SessionId,
        number: u64,
        lowest_unanswered: u64,
        command: &[u8],
    ) -> u32 {
        if self.client == Some((session, number)) {
            if lowest_unanswered > self.client_lowest
                && let Some(RunStart { at, .. }) = self.runs.last()
            {
                let lowest_at = at + RUN_HEADER_BYTES + CLIENT_BYTES - 8;
                self.block.bytes[lowest_at..lowest_at + 8]
                    .copy_from_slice(&lowest_unanswered.to_le_bytes());
                self.client_lowest = lowest_unanswered;
            }
        } else {
            let mut owner = [0; CLIENT_BYTES];
            let mut fields = &mut owner[..];
            fields.put_u64_le(session.slot.0);
            fields.put_u32_le(session.index);
            fields.put_u64_le(number);
            fields.put_u64_le(lowest_unanswered);
            self.start_run(TAG_OF_CLIENT, &owner);
            self.client_lowest = lowest_unanswered;
        }
        self.client = number.checked_add(1).map(|next| (session, next));
        self.append(command)
    }

    /// Adds a client's wish for a session; returns how many commands there are now.
    pub fn push_new_client(&mut self, key: u64) -> u32 {
        self.start_run(TAG_OF_NEW_CLIENT, &key.to_le_bytes());
        self.append(&[])
    }

    #[inline]
    fn start_run(&mut self, tag: u8, owner: &[u8]) {
        let (at, before) = (self.block.len(), self.commands_count);
        self.runs.push(RunStart { at, header_bytes: RUN_HEADER_BYTES + owner.len(), before });
        (self.is_plain, self.client) = (false, None);
        let mut header = [0; RUN_HEADER_BYTES];
        header[0] = tag;
        self.block.put(&header);
        self.block.put(owner);
    }

    #[inline(always)]
    fn append(&mut self, command: &[u8]) -> u32 {
        self.block.bytes.reserve(COMMAND_HEADER_BYTES + command.len());
        self.block.u32(length(command.len()));
        self.block.put(command);
        self.commands_count += 1;
        self.commands_count
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// Whether no command was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.commands_count == 0
    }

    /// The number of commands that were added.
    #[must_use]
    pub fn commands_count(&self) -> u32 {
        self.commands_count
    }

    /// Closes the batch: all commands since the last one, of which the first has the number `first`
    /// in `session`.
    pub fn close(&mut self, session: SessionId, first: u64, lowest_unanswered: u64) -> Payload {
        assert!(!self.is_empty(), "a batch of no commands");
        let (mut end, mut commands) = (self.block.len(), self.commands_count);
        while let Some(RunStart { at, header_bytes, before }) = self.runs.pop() {
            let bytes = length(end - at - header_bytes);
            let mut header = &mut self.block.bytes[at + 1..at + RUN_HEADER_BYTES];
            header.put_u64_le(session.slot.0);
            header.put_u32_le(session.index);
            header.put_u64_le(first + u64::from(before));
            header.put_u64_le(lowest_unanswered);
            header.put_u32_le(commands - before);
            header.put_u32_le(bytes);
            (end, commands) = (at, before);
        }
        (self.commands_count, self.is_plain, self.client) = (0, false, None);
        self.block.take()
    }

    /// Forgets the commands since the last batch.
    pub fn clear(&mut self) {
        self.block.clear();
        self.runs.clear();
        (self.commands_count, self.is_plain, self.client) = (0, false, None);
    }

    /// Encodes a batch that asks for a session and nothing else.
    #[must_use]
    pub fn open(gateway: GatewayId, incarnation: Incarnation) -> Payload {
        let mut block = Buffer::default();
        block.u8(TAG_OPEN);
        block.u8(gateway.0);
        block.u64(incarnation.0);
        block.take()
    }

    /// Encodes a batch that skips a command and does nothing else.
    #[must_use]
    pub fn skip(command: LoggedCommand) -> Payload {
        let mut block = Buffer::default();
        block.u8(TAG_SKIP);
        block.u64(command.at.slot.0);
        block.u32(command.at.index);
        block.u32(command.checksum);
        block.take()
    }
}

/// Encodes queries, one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct ItemsWriter(Buffer);

impl ItemsWriter {
    /// Adds one.
    pub(crate) fn put(&mut self, item: &[u8]) {
        self.0.u32(length(item.len()));
        self.0.put(item);
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes all out.
    pub(crate) fn take(&mut self) -> Payload {
        self.0.take()
    }
}

/// How long replies may be. Part of what replicas agree on: whether one is too large follows from
/// the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplyLimits {
    /// The longest reply.
    pub(crate) reply_bytes_max: usize,
    /// The most that the replies of a block have together.
    pub(crate) block_bytes_max: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            reply_bytes_max: REPLY_BYTES_LIMIT as usize,
            block_bytes_max: ANSWERS_BYTES_LIMIT as usize,
        }
    }
}

/// The most that `reply_bytes_max` may be: each frame holds one, wherever it goes.
pub(crate) const REPLY_BYTES_LIMIT: u32 = 16 << 20;
/// The most that `answers_bytes_max` may be: the lengths in a block have four bytes.
pub(crate) const ANSWERS_BYTES_LIMIT: u32 = 1 << 30;

/// Encodes what became of a batch, and the replies of single runs.
#[derive(Clone, Debug, Default)]
pub struct ResultWriter {
    block: Buffer,
    limits: ReplyLimits,
    /// Whether the reply under way has become too large: then it takes no more room.
    is_too_large: bool,
    /// The bytes of the replies of outcomes before the `Done` under way.
    replies_before: usize,
    /// The offset at which the `Done` under way keeps its count.
    done_at: usize,
    done_count: u32,
    /// The offset at which the reply under way keeps its length.
    reply_at: usize,
}

impl ResultWriter {
    /// Returns a writer of replies within `limits`.
    pub(crate) fn new(limits: ReplyLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Starts the outcome of a run executed at `at`; one reply for each of its commands follows.
    pub fn start_done(&mut self, session: SessionId, first: u64, at: Position) {
        let mut header = [0; DONE_HEADER_BYTES];
        let mut fields = &mut header[..];
        fields.put_u8(TAG_DONE);
        fields.put_u64_le(session.slot.0);
        fields.put_u32_le(session.index);
        fields.put_u64_le(first);
        fields.put_u64_le(at.slot.0);
        fields.put_u32_le(at.index);
        self.block.put(&header);
        self.done_at = self.block.len() - DONE_LENGTHS_BYTES;
        self.done_count = 0;
    }

    /// Starts the replies to queries, which have no outcome around them.
    pub(crate) fn start_queries(&mut self) {
        assert!(self.is_empty(), "queries are answered amid a batch");
        (self.done_at, self.done_count) = (0, 0);
    }

    /// Starts a reply.
    pub fn start_reply(&mut self) {
        self.reply_at = self.block.len();
        self.block.u32(0);
    }

    /// Adds to the reply under way. One that gets too long is dropped, and takes no more in.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.block.len() + bytes.len();
        self.is_too_large |= end - self.reply_at - REPLY_HEADER_BYTES > self.limits.reply_bytes_max
            || self.replies_before + end - self.done_at > self.limits.block_bytes_max;
        if self.is_too_large {
            self.block.bytes.truncate(self.reply_at + REPLY_HEADER_BYTES);
        } else {
            self.block.put(bytes);
        }
    }

    /// Whether so many bytes of replies that are at hand may be added.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.replies_before + DONE_LENGTHS_BYTES + bytes <= self.limits.block_bytes_max
    }

    /// Ends the reply under way.
    pub fn end_reply(&mut self) {
        let bytes = length(self.block.len() - self.reply_at - REPLY_HEADER_BYTES);
        debug_assert!(self.reply_at >= self.done_at, "a reply outside of an outcome");
        let is_too_large = std::mem::take(&mut self.is_too_large);
        self.block.patch_u32(self.reply_at, if is_too_large { TOO_LARGE } else { bytes });
        self.done_count += 1;
    }

    /// Adds a reply that is not the machine's, and has room whatever the limits are; or says why
    /// there is none.
    pub(crate) fn reply(&mut self, reply: Result<&[u8], NoReply>) {
        self.start_reply();
        self.block.put(reply.unwrap_or_default());
        self.end_reply();
        if let Err(why) = reply {
            self.block.patch_u32(self.reply_at, why.length());
        }
    }

    /// Puts the reason why there is none in the place of the last reply.
    pub(crate) fn withdraw_reply(&mut self, why: NoReply) {
        self.block.bytes.truncate(self.reply_at + REPLY_HEADER_BYTES);
        self.block.patch_u32(self.reply_at, why.length());
    }

    /// Ends the run's outcome; returns where in the block its encoded replies are, for the
    /// session's memory.
    pub fn end_done(&mut self) -> Range<usize> {
        let replies_at = self.done_at + DONE_LENGTHS_BYTES;
        assert!(self.block.len() >= replies_at, "an outcome ended that was not started");
        let bytes = length(self.block.len() - replies_at);
        self.block.patch_u32(self.done_at, self.done_count);
        self.block.patch_u32(self.done_at + 4, bytes);
        self.replies_before += self.block.len() - self.done_at;
        replies_at..self.block.len()
    }

    /// Bytes so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.block.bytes.is_empty()
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.replies_before = 0;
        self.block.clear();
    }

    /// Copies a part of what was written.
    #[must_use]
    pub fn copy(&mut self, range: Range<usize>) -> Payload {
        self.block.copy(range)
    }

    /// Adds the outcome of a run whose replies are at hand; returns where in the block these are.
    pub fn done(
        &mut self,
        session: SessionId,
        first: u64,
        answers: RunAnswers<'_>,
    ) -> Range<usize> {
        self.start_done(session, first, answers.at);
        self.block.put(answers.replies.0);
        self.done_count = answers.count;
        self.end_done()
    }

    /// The number of replies that the outcome under way has.
    #[must_use]
    pub fn replies_count(&self) -> u32 {
        self.done_count
    }

    /// Says that an `Open` got `session`.
    pub fn opened(&mut self, session: SessionId) {
        self.refusal(TAG_OPENED, session);
    }

    /// Says that commands from `next` on are missing.
    pub fn out_of_order(&mut self, session: SessionId, next: u64) {
        self.refusal(TAG_OUT_OF_ORDER, session);
        self.block.u64(next);
    }

    /// Says that there is no such session.
    pub fn unknown_session(&mut self, session: SessionId) {
        self.refusal(TAG_UNKNOWN_SESSION, session);
    }

    /// Says that the answers were given and forgotten.
    pub fn trimmed(&mut self, session: SessionId) {
        self.refusal(TAG_TRIMMED, session);
    }

    /// Adds outcomes that are encoded already.
    pub(super) fn copy_outcomes(&mut self, encoded: &[u8]) {
        self.block.put(encoded);
    }

    /// Takes all outcomes out.
    pub fn take(&mut self) -> Payload {
        self.replies_before = 0;
        self.block.take()
    }

    fn refusal(&mut self, tag: u8, session: SessionId) {
        self.block.u8(tag);
        self.block.session(session);
    }
}
