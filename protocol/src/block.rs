//! Blocks: how a batch's commands, and their results, lie in a payload.
//!
//! ```text
//!  batch block    run*     run      0 │ session slot u64, index u32 │ first u64 │ lowest u64
//!                                     │ count u32 │ bytes u32 │ (length u32, command)*
//!                                  3  a client's: the same, and before the commands
//!                                     │ its session │ its first u64 │ its lowest u64
//!                                  4  a client that has no session: the same, and before its one
//!                                     command, which is empty, │ its key u64
//!                          open     1 │ gateway u8 │ incarnation u64
//!                          skip     2 │ slot u64, index u32 │ checksum u32
//!
//!  result block   outcome*, one a run
//!                          done     0 │ session │ first u64 │ slot u64, index u32
//!                                     │ count u32 │ bytes u32 │ (length u32, reply)*
//!                                     a length of 2^32 - 1: there is no reply, it was too large;
//!                                     of 2^32 - 2: the command was skipped
//!                                     of 2^32 - 3 to - 7: see [`NoReply`]
//!                          opened   1 │ session
//!                          out of order, unknown, trimmed   2, 3, 4 │ session │ next u64
//!
//!  queries        (length u32, query)*         their replies   (length u32, reply)*
//! ```
//!
//! All integers are little-endian. A block is encoded once, by the gateway, and from there to the
//! replica only referenced; the session check is paid per run, not per command (R23).

mod writer;

use bytes::Bytes;

pub(crate) use writer::ItemsWriter;
pub(crate) use writer::{ANSWERS_BYTES_LIMIT, REPLY_BYTES_LIMIT, ReplyLimits};
pub use writer::{BatchWriter, ResultWriter};

use crate::{GatewayId, Incarnation, LoggedCommand, Payload, Position, SessionId, Slot};

const TAG_COMMANDS: u8 = 0;
const TAG_OPEN: u8 = 1;
const TAG_SKIP: u8 = 2;
const TAG_OF_CLIENT: u8 = 3;
const TAG_OF_NEW_CLIENT: u8 = 4;
const TAG_DONE: u8 = 0;
const TAG_OPENED: u8 = 1;
const TAG_OUT_OF_ORDER: u8 = 2;
const TAG_UNKNOWN_SESSION: u8 = 3;
const TAG_TRIMMED: u8 = 4;

/// Bytes of a run before its first command.
pub(crate) const RUN_HEADER_BYTES: usize = 1 + SESSION_BYTES + 8 + 8 + 4 + 4;
/// Bytes of a command beside the command itself.
pub(crate) const COMMAND_HEADER_BYTES: usize = 4;
/// Bytes of a session's name.
pub(crate) const SESSION_BYTES: usize = 8 + 4;
/// Bytes of a client's part of the header of its runs.
const CLIENT_BYTES: usize = SESSION_BYTES + 8 + 8;
/// Bytes of a client's run before its first command: no run has more.
pub(crate) const CLIENT_RUN_HEADER_BYTES: usize = RUN_HEADER_BYTES + CLIENT_BYTES;
/// Bytes of a `Done` before its first reply.
const DONE_HEADER_BYTES: usize = 1 + SESSION_BYTES + 8 + 8 + 4 + 4 + 4;
/// Bytes of a reply beside the reply itself.
pub(crate) const REPLY_HEADER_BYTES: usize = 4;
/// One reply that says that it is not kept.
pub(crate) const TOO_LARGE_REPLY: ReplyItems<'static> = ReplyItems(&TOO_LARGE.to_le_bytes());
/// The lengths that say why there is no reply.
const TOO_LARGE: u32 = u32::MAX;
const SKIPPED: u32 = u32::MAX - 1;
const NO_SESSION: u32 = u32::MAX - 2;
const OUT_OF_ORDER: u32 = u32::MAX - 3;
const FORGOTTEN: u32 = u32::MAX - 4;
const NOT_A_QUERY: u32 = u32::MAX - 5;
const PANICKED: u32 = u32::MAX - 6;
/// Lengths from here on say why there is none.
const NO_REPLY_MIN: u32 = PANICKED;

/// A block that is not what the module's chart says. Blocks are checksummed on the wire, so this is
/// a bug of its encoder, or memory gone bad.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedBlock;

/// One run of a batch block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Run<'a> {
    /// Consecutive commands of one session.
    Commands(CommandRun<'a>),
    /// Asks for a session.
    Open {
        /// The gateway that asks.
        gateway: GatewayId,
        /// In which life; a second `Open` of the same one gets the same session.
        incarnation: Incarnation,
    },
    /// Skips a command at which replicas have halted. Alone in its block.
    Skip(LoggedCommand),
}

/// Consecutive commands of one session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CommandRun<'a> {
    /// The session that they belong to.
    pub session: SessionId,
    /// The number of the first; the others follow by one.
    pub first: u64,
    /// The lowest number that the session's owner has no answer to: all below may be forgotten.
    pub lowest_unanswered: u64,
    /// Their number.
    pub count: u32,
    /// The commands.
    pub commands: Items<'a>,
    /// On whose behalf the session's gateway sends them.
    pub owner: RunOwner,
}

/// On whose behalf a gateway sends a run of its session.
///
/// Its own session sees to it that the run is executed once, however often the gateway sends it. A
/// client has a session of its own beneath that, which goes with it to another gateway: there its
/// commands have other numbers of that gateway's session, and the same of its own.
///
/// source: R22, R23
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunOwner {
    /// Callers that share the gateway's session.
    Gateway,
    /// A client with a session.
    Client {
        /// Its session.
        session: SessionId,
        /// The number, in its session, of the run's first command; the others follow by one.
        first: u64,
        /// The lowest number that it has no answer to: all below may be forgotten.
        lowest_unanswered: u64,
    },
    /// A client that asks for a session, by the one command of the run. A second one with the same
    /// key gets the same session. The reply is a [`SessionId`]: slot u64, index u32.
    NewClient {
        /// The key: drawn by the client, at random.
        key: u64,
    },
}

/// The remembered answers to a run.
#[derive(Clone, Copy, Debug)]
pub struct RunAnswers<'a> {
    /// The position at which its first command was executed.
    pub at: Position,
    /// Their number.
    pub count: u32,
    /// The replies.
    pub replies: ReplyItems<'a>,
}

/// The outcome of one run of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome<'a> {
    /// All of its commands have been executed, now or earlier.
    Done {
        /// The session that they belong to.
        session: SessionId,
        /// The number of the first reply; the others follow by one.
        first: u64,
        /// The place where the first was executed; the others follow by one index.
        at: Position,
        /// Their number.
        count: u32,
        /// The replies.
        replies: ReplyItems<'a>,
    },
    /// The session that an `Open` asked for.
    Opened(SessionId),
    /// Nothing was executed: commands before the run's first are missing.
    OutOfOrder {
        /// The session that they belong to.
        session: SessionId,
        /// The number that the session would execute next.
        next: u64,
    },
    /// Nothing was executed: there is no such session, or no longer.
    UnknownSession(SessionId),
    /// The run was executed once, and its owner has said that it has the answers.
    Trimmed(SessionId),
}

/// Length-prefixed byte strings, one after the other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// Reads `encoded`.
    #[must_use]
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The encoded form.
    #[must_use]
    pub fn as_slice(self) -> &'a [u8] {
        self.0
    }

    /// All after the first `count`.
    #[must_use]
    pub fn skipping(mut self, count: u64) -> Self {
        for _ in 0..count {
            self.next();
        }
        self
    }

    /// The first `count`.
    #[must_use]
    pub fn first(self, count: u64) -> Self {
        Self(&self.0[..self.0.len() - self.skipping(count).0.len()])
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk::<4>()?;
        // A length that runs over the end cuts the block short; `Runs` has counted and would have
        // refused it, were it to matter.
        let (item, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(item)
    }
}

/// The reason why there is no reply to a command or query.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoReply {
    /// It was longer than `reply_bytes_max`, or replicas have let go of it because they kept more
    /// than `answers_bytes_max`. The command was executed.
    TooLarge,
    /// The command was skipped, and will never be executed (R38).
    Skipped,
    /// A client's, whose session does not exist, or no longer. It was not executed now; what it was
    /// in a session that has ended nobody knows.
    NoSession,
    /// A client's, of which earlier commands are missing, or that is beyond its window. It was not
    /// executed.
    OutOfOrder,
    /// A client's that was executed before, and whose reply the client has said to have.
    Forgotten,
    /// The state machine answers no such query.
    NotAQuery,
    /// The state machine panicked at a query, which changed nothing.
    Panicked,
}

impl NoReply {
    /// The length that says so.
    fn length(self) -> u32 {
        match self {
            Self::TooLarge => TOO_LARGE,
            Self::Skipped => SKIPPED,
            Self::NoSession => NO_SESSION,
            Self::OutOfOrder => OUT_OF_ORDER,
            Self::Forgotten => FORGOTTEN,
            Self::NotAQuery => NOT_A_QUERY,
            Self::Panicked => PANICKED,
        }
    }

    #[cold]
    fn of_length(length: u32) -> Self {
        match length {
            SKIPPED => Self::Skipped,
            NO_SESSION => Self::NoSession,
            OUT_OF_ORDER => Self::OutOfOrder,
            FORGOTTEN => Self::Forgotten,
            NOT_A_QUERY => Self::NotAQuery,
            PANICKED => Self::Panicked,
            _ => Self::TooLarge,
        }
    }
}

/// Encoded replies, one after the other, of which some may have been too large.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReplyItems<'a>(&'a [u8]);

impl<'a> ReplyItems<'a> {
    /// Reads `encoded`.
    #[must_use]
    pub fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    /// The encoded form.
    #[must_use]
    pub fn as_slice(self) -> &'a [u8] {
        self.0
    }

    /// All after the first `count`.
    #[must_use]
    pub fn skipping(mut self, count: u64) -> Self {
        let _ = (0..count).try_for_each(|_| self.next().map(|_| ()));
        self
    }

    /// The first `count`.
    #[must_use]
    pub fn first(self, count: u64) -> Self {
        Self(&self.0[..self.0.len() - self.skipping(count).0.len()])
    }
}

impl<'a> Iterator for ReplyItems<'a> {
    type Item = Result<&'a [u8], NoReply>;

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.0.split_first_chunk::<REPLY_HEADER_BYTES>()?;
        let len = u32::from_le_bytes(*len);
        if len >= NO_REPLY_MIN {
            self.0 = rest;
            return Some(Err(NoReply::of_length(len)));
        }
        let (item, rest) = rest.split_at_checked(len as usize)?;
        self.0 = rest;
        Some(Ok(item))
    }
}

/// Encodes the same number of replies, of which none is to be had any more. Those that were none
/// still say why.
pub(crate) fn no_replies(replies: &[u8]) -> Payload {
    let mut none = Vec::new();
    for reply in ReplyItems::new(replies) {
        none.extend(reply.err().unwrap_or(NoReply::TooLarge).length().to_le_bytes());
    }
    Payload::from(Bytes::from(none))
}

/// The beginning of a result block, up to the first reply or outcome that ends at `bytes_max` bytes
/// or beyond. The rest is for its gateway to ask for.
pub(crate) fn head(block: Payload, bytes_max: usize) -> Payload {
    if block.len() <= bytes_max {
        return block;
    }
    let mut writer = ResultWriter::default();
    let mut reader = Reader(block.as_slice());
    while !reader.0.is_empty() && writer.len() < bytes_max {
        let before = reader.0;
        match reader.outcome() {
            Some(Outcome::Done { session, first, at, count, replies }) => {
                let room = bytes_max.saturating_sub(writer.len() + DONE_HEADER_BYTES);
                writer.done(session, first, RunAnswers { at, count, replies }.within(room));
            }
            Some(_) => writer.copy_outcomes(&before[..before.len() - reader.0.len()]),
            None => break,
        }
    }
    writer.take()
}

impl RunAnswers<'_> {
    /// As many of them as end within `bytes_max` bytes, and one more if there is.
    pub(crate) fn within(self, bytes_max: usize) -> Self {
        let (mut rest, mut count) = (self.replies, 0);
        let bytes = |rest: ReplyItems<'_>| self.replies.0.len() - rest.0.len();
        while count < self.count && bytes(rest) < bytes_max.max(1) && rest.next().is_some() {
            count += 1;
        }
        let replies = ReplyItems(&self.replies.0[..bytes(rest)]);
        Self { at: self.at, count, replies }
    }
}

/// Reads a batch block, run by run.
#[derive(Clone, Debug)]
pub struct Runs<'a>(Reader<'a>);

impl<'a> Runs<'a> {
    /// Starts at the first run.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self(Reader(block))
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Result<Run<'a>, MalformedBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.0.is_empty()).then(|| self.0.run().ok_or(MalformedBlock))
    }
}

/// Reads a result block, outcome by outcome.
#[derive(Clone, Debug)]
pub struct Outcomes<'a>(Reader<'a>);

impl<'a> Outcomes<'a> {
    /// Starts at the first outcome.
    #[must_use]
    pub fn new(block: &'a [u8]) -> Self {
        Self(Reader(block))
    }
}

impl<'a> Iterator for Outcomes<'a> {
    type Item = Result<Outcome<'a>, MalformedBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        (!self.0.0.is_empty()).then(|| self.0.outcome().ok_or(MalformedBlock))
    }
}

#[derive(Clone, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn run(&mut self) -> Option<Run<'a>> {
        match self.u8()? {
            tag @ (TAG_COMMANDS | TAG_OF_CLIENT | TAG_OF_NEW_CLIENT) => {
                // One check for all of it.
                let (header, rest) = self.0.split_first_chunk::<{ RUN_HEADER_BYTES - 1 }>()?;
                let mut header = Reader(header);
                let (session, first, lowest_unanswered) =
                    (header.session()?, header.u64()?, header.u64()?);
                let (count, bytes) = (header.u32()?, header.u32()?);
                self.0 = rest;
                let owner =
                    if tag == TAG_COMMANDS { RunOwner::Gateway } else { self.owner(tag, count)? };
                let commands = Items(self.bytes(bytes)?);
                Some(Run::Commands(CommandRun {
                    session,
                    first,
                    lowest_unanswered,
                    count,
                    commands,
                    owner,
                }))
            }
            TAG_OPEN => Some(Run::Open {
                gateway: GatewayId(self.u8()?),
                incarnation: Incarnation(self.u64()?),
            }),
            TAG_SKIP => {
                let at = Position { slot: Slot(self.u64()?), index: self.u32()? };
                Some(Run::Skip(LoggedCommand { at, checksum: self.u32()? }))
            }
            _ => None,
        }
    }

    /// Reads what only the runs of clients have.
    fn owner(&mut self, tag: u8, count: u32) -> Option<RunOwner> {
        if tag == TAG_OF_NEW_CLIENT {
            let key = self.u64()?;
            return (count == 1).then_some(RunOwner::NewClient { key });
        }
        let (session, first, lowest_unanswered) = (self.session()?, self.u64()?, self.u64()?);
        Some(RunOwner::Client { session, first, lowest_unanswered })
    }

    fn outcome(&mut self) -> Option<Outcome<'a>> {
        let tag = self.u8()?;
        let session = self.session()?;
        match tag {
            TAG_DONE => {
                const REST_BYTES: usize = DONE_HEADER_BYTES - 1 - SESSION_BYTES;
                let (header, rest) = self.0.split_first_chunk::<REST_BYTES>()?;
                let mut header = Reader(header);
                let first = header.u64()?;
                let at = Position { slot: Slot(header.u64()?), index: header.u32()? };
                let (count, bytes) = (header.u32()?, header.u32()?);
                self.0 = rest;
                let replies = ReplyItems(self.bytes(bytes)?);
                Some(Outcome::Done { session, first, at, count, replies })
            }
            TAG_OPENED => Some(Outcome::Opened(session)),
            TAG_OUT_OF_ORDER => Some(Outcome::OutOfOrder { session, next: self.u64()? }),
            TAG_UNKNOWN_SESSION => Some(Outcome::UnknownSession(session)),
            TAG_TRIMMED => Some(Outcome::Trimmed(session)),
            _ => None,
        }
    }

    fn session(&mut self) -> Option<SessionId> {
        Some(SessionId { slot: Slot(self.u64()?), index: self.u32()? })
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len as usize)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId { slot: Slot(7), index: 3 };

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let mut writer = BatchWriter::default();
        for len in [0usize, 16, 300] {
            let commands = [vec![1; len], vec![2; len], vec![]];
            for command in &commands {
                writer.push(command);
            }
            let block = writer.close(SESSION, 40, 38);
            assert!(writer.is_empty());
            let runs: Vec<_> = Runs::new(block.as_slice()).collect();
            let [Ok(Run::Commands(run))] = runs[..] else { panic!("{runs:?}") };
            assert_eq!((run.session, run.first, run.lowest_unanswered), (SESSION, 40, 38));
            assert_eq!(run.count, 3);
            assert!(run.commands.eq(commands.iter().map(Vec::as_slice)));
        }
        let block = BatchWriter::open(GatewayId(2), Incarnation(9));
        let open = Run::Open { gateway: GatewayId(2), incarnation: Incarnation(9) };
        assert!(Runs::new(block.as_slice()).eq([Ok(open)]));
        let at = Position { slot: Slot(1 << 40), index: 7 };
        let command = LoggedCommand { at, checksum: 0xC0FF_EE00 };
        let block = BatchWriter::skip(command);
        assert!(Runs::new(block.as_slice()).eq([Ok(Run::Skip(command))]));
    }

    #[test]
    fn results_read_back_as_they_were_written() {
        let mut writer = ResultWriter::default();
        assert!(writer.is_empty());
        writer.opened(SESSION);
        assert!(!writer.is_empty());
        let at = Position { slot: Slot(9), index: 2 };
        writer.start_done(SESSION, 5, at);
        for reply in [&b"yes"[..], b"", b"no"] {
            writer.start_reply();
            writer.put(reply);
            writer.end_reply();
        }
        writer.end_done();
        writer.out_of_order(SESSION, 11);
        writer.unknown_session(SESSION);
        writer.trimmed(SESSION);
        let block = writer.take();
        let outcomes: Vec<_> = Outcomes::new(block.as_slice()).map(Result::unwrap).collect();
        let Outcome::Done { session, first: 5, at: done_at, count: 3, replies } = outcomes[1]
        else {
            panic!("{outcomes:?}")
        };
        assert_eq!((session, done_at), (SESSION, at));
        assert!(replies.eq([&b"yes"[..], b"", b"no"].map(Ok)));
        assert_eq!(outcomes[0], Outcome::Opened(SESSION));
        assert_eq!(outcomes[2], Outcome::OutOfOrder { session: SESSION, next: 11 });
        assert_eq!(outcomes[3..], [Outcome::UnknownSession(SESSION), Outcome::Trimmed(SESSION)]);
    }

    /// A writer of a `Done` of these replies, within limits.
    fn done_of(replies: &[&[u8]], limits: ReplyLimits) -> ResultWriter {
        let mut writer = ResultWriter::new(limits);
        writer.start_done(SESSION, 5, Position { slot: Slot(9), index: 2 });
        for reply in replies {
            writer.start_reply();
            reply.chunks(3).for_each(|chunk| writer.put(chunk));
            writer.end_reply();
        }
        writer.end_done();
        writer
    }

    /// A reply, unless it was too large.
    type Told = Option<Vec<u8>>;

    /// The first number, the first index and the replies of each `Done` of a block that has nothing
    /// else.
    fn replies_of(block: &Payload) -> Vec<(u64, u32, Vec<Told>)> {
        let outcomes = Outcomes::new(block.as_slice()).map(Result::unwrap);
        let done = outcomes.map(|outcome| {
            let Outcome::Done { first, at, count, replies, .. } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!(replies.count(), count as usize);
            (first, at.index, replies.map(|reply| reply.ok().map(<[u8]>::to_vec)).collect())
        });
        done.collect()
    }

    #[test]
    fn a_reply_that_is_too_large_takes_no_room() {
        let limits = ReplyLimits { reply_bytes_max: 7, block_bytes_max: 1000 };
        let mut writer = done_of(&[b"one", b"12345678", b"1234567", &[0; 500], b""], limits);
        assert!(writer.len() < DONE_HEADER_BYTES + 5 * REPLY_HEADER_BYTES + 3 + 7 + 1);
        let some = |reply: &[u8]| Some(reply.to_vec());
        let replies = vec![some(b"one"), None, some(b"1234567"), None, some(b"")];
        assert_eq!(replies_of(&writer.take()), [(5, 2, replies)]);
    }

    #[test]
    fn replies_that_are_too_large_together_are_cut_at_the_same_one_everywhere() {
        let limits =
            ReplyLimits { reply_bytes_max: 100, block_bytes_max: 8 + 4 + 50 + 4 + 30 + 4 + 9 };
        let mut writer = done_of(&[&[1; 50], &[2; 30], &[3; 10], &[4; 9], b""], limits);
        let replies = vec![Some(vec![1; 50]), Some(vec![2; 30]), None, None, Some(vec![])];
        assert_eq!(replies_of(&writer.take()), [(5, 2, replies)]);
    }

    #[test]
    fn the_head_of_a_block_ends_after_a_reply_and_has_one_at_least() {
        let replies: Vec<Vec<u8>> = (0..20).map(|n| vec![n; usize::from(n) * 3]).collect();
        let replies: Vec<&[u8]> = replies.iter().map(Vec::as_slice).collect();
        let block = done_of(&replies, ReplyLimits::default()).take();
        assert_eq!(head(block.clone(), block.len()), block);
        let mut least = 0;
        for bytes_max in 1..block.len() {
            let part = head(block.clone(), bytes_max);
            let [(5, 2, told)] = &replies_of(&part)[..] else { panic!("{part:?}") };
            assert!(
                told.iter().flatten().map(Vec::as_slice).eq(replies[..told.len()].iter().copied())
            );
            assert!(told.len() >= least && !told.is_empty(), "{bytes_max}: {}", told.len());
            assert!(part.len() < bytes_max.max(DONE_HEADER_BYTES) + REPLY_HEADER_BYTES + 57 + 1);
            least = told.len();
        }
        assert_eq!(least, 20);
    }

    #[test]
    fn a_block_cut_anywhere_is_malformed_or_shorter_and_never_read_past() {
        let mut writer = BatchWriter::default();
        writer.push(b"one");
        writer.push(b"two");
        let block = writer.close(SESSION, 0, 0);
        for cut in 1..block.len() {
            assert_eq!(Runs::new(&block.as_slice()[..cut]).next(), Some(Err(MalformedBlock)));
        }
        assert_eq!(Runs::new(&[9]).next(), Some(Err(MalformedBlock)));
    }
}
