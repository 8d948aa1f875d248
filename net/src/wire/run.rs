//! Runs: many short things in one frame, such as a client's commands or the replies to them.
//!
//! ```text
//!   header    │ of commands and queries: their numbers │ how many, and the checksum of all payloads │ entry │ entry │ entry │
//!   payloads                                               │ command │ command │ command │
//! ```
//!
//! A frame costs two checksums and a reference to the memory that it lies in, however short it is.
//! Here they are paid once for many.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

use bytes::{Buf, Bytes};
use loggos_protocol::Payload;

use super::cursor::Cursor;
use super::encode::{checked, frame};
use super::head::HEAD_BYTES;
use super::headers::{self, Command, Commands, Query, Reads, Reply};
use super::layout::{Layout, put, take};
use super::{Kind, WireError};
use crate::Outgoing;

/// The most bytes of entries and payloads in a frame that has several of them. More would save next
/// to nothing, and a longer frame more often straddles two receive buffers, and is copied then.
pub const RUN_BYTES_MAX: u32 = 4 << 10;

/// The layout of an entry.
pub(super) trait Entry: Layout {
    /// What the header has before the run.
    type Head: Layout + Debug;

    /// The length of its payload.
    fn payload_bytes(&self) -> usize;
}

impl Entry for Command {
    type Head = Commands;

    #[inline]
    fn payload_bytes(&self) -> usize {
        u32::from(self.bytes) as usize
    }
}

impl Entry for Query {
    type Head = Reads;

    fn payload_bytes(&self) -> usize {
        u32::from(self.bytes) as usize
    }
}

impl Entry for Reply {
    type Head = [u8; 0];

    #[inline]
    fn payload_bytes(&self) -> usize {
        u32::from(self.bytes) as usize
    }
}

/// A run on its way out.
#[derive(Debug)]
pub(super) struct RunWriter<E: Entry> {
    kind: Kind,
    /// Of the frame that is made.
    head: E::Head,
    count: u32,
    entries: Outgoing,
    payloads: Vec<u8>,
    of: PhantomData<fn(E)>,
}

impl<E: Entry> RunWriter<E> {
    pub(super) fn new(kind: Kind) -> Self {
        let (entries, payloads) = (Outgoing::default(), Vec::new());
        Self { kind, head: E::Head::ZERO, count: 0, entries, payloads, of: PhantomData }
    }

    /// Adds an entry and its payload. Appends a frame with those before it to `out` if there is no
    /// room for it, and one of its own if it is long. If it is the first of a frame, that begins
    /// with `head`.
    #[inline]
    pub(super) fn put(&mut self, head: E::Head, entry: &E, payload: &[u8], out: &mut Outgoing) {
        let bytes = size_of::<E>() + payload.len();
        if self.entries.len() + self.payloads.len() + bytes > RUN_BYTES_MAX as usize {
            self.end(out);
            if bytes > RUN_BYTES_MAX as usize {
                return self.put_apart(head, entry, payload, out);
            }
        }
        if self.count == 0 {
            self.head = head;
        }
        put(entry, &mut self.entries);
        self.payloads.extend_from_slice(payload);
        self.count += 1;
    }

    /// Appends one entry as a frame. Its payload lies apart: a buffer of many would have room for
    /// up to twice as much, and be copied each time it grows.
    #[cold]
    fn put_apart(&self, head: E::Head, entry: &E, payload: &[u8], out: &mut Outgoing) {
        let header = headers::Run { count: 1.into(), payloads: checked(payload) };
        let put_header = |out: &mut Outgoing| {
            put(&head, out);
            put(&header, out);
            put(entry, out);
        };
        frame(self.kind, out, put_header, |out| out.put_payload(&Payload::copy(payload)));
    }

    /// Returns how many bytes [`RunWriter::end`] would append.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self.count {
            0 => 0,
            _ => {
                let head_bytes = size_of::<E::Head>() + size_of::<headers::Run>();
                HEAD_BYTES + head_bytes + self.entries.len() + self.payloads.len()
            }
        }
    }

    /// Appends a frame with what there is, if there is anything.
    pub(super) fn end(&mut self, out: &mut Outgoing) {
        if self.count == 0 {
            return;
        }
        let header = headers::Run { count: self.count.into(), payloads: checked(&self.payloads) };
        let put_header = |out: &mut Outgoing| {
            put(&self.head, out);
            put(&header, out);
            out.put(self.entries.written_from(0));
        };
        frame(self.kind, out, put_header, |out| out.put(&self.payloads));
        self.entries.clear();
        self.payloads.clear();
        self.count = 0;
    }
}

/// A run that came in, and how far it was read.
#[derive(Clone, Debug)]
pub(super) struct Run<E: Entry> {
    pub(super) head: E::Head,
    /// Those that were not read yet.
    entries: Bytes,
    payloads: Bytes,
    /// The offset of the next payload.
    read: usize,
    of: PhantomData<fn(E)>,
}

impl<E: Entry> Run<E> {
    /// Takes a frame's run, and checks that its payloads are as long as its entries say.
    pub(super) fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let head = *from.header()?;
        let header: &headers::Run = from.header()?;
        let entries = from.run::<E>(header.count.into())?;
        let payloads = from.bytes(&header.payloads)?;
        let (mut rest, mut wanted) = (&entries[..], 0_usize);
        while !rest.is_empty() {
            wanted = wanted.saturating_add(take::<E>(&mut rest)?.payload_bytes());
        }
        if wanted != payloads.len() {
            return Err(WireError::Payloads { wanted, there: payloads.len() });
        }
        Ok(Self { head, entries, payloads, read: 0, of: PhantomData })
    }

    /// Returns the number of entries that were not read yet.
    pub(super) fn count(&self) -> usize {
        self.entries.len() / size_of::<E>()
    }

    /// Returns the next entry, all payloads, and the place of its own among them.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(E, &Bytes, Range<usize>)> {
        let entry = *take::<E>(&mut &self.entries[..]).ok()?;
        self.entries.advance(size_of::<E>());
        let range = self.read..self.read + entry.payload_bytes();
        self.read = range.end;
        Some((entry, &self.payloads, range))
    }
}

impl<E: Entry> PartialEq for Run<E> {
    fn eq(&self, other: &Self) -> bool {
        let parts = |it: &Self| (it.head, it.entries.clone(), it.payloads.slice(it.read..));
        parts(self) == parts(other)
    }
}

impl<E: Entry> Eq for Run<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{BatchPool, CommandsWriter, FrameReader, Message, RepliesWriter};

    /// What the frames of `out` say.
    fn read(out: &Outgoing) -> Vec<Result<Message, WireError>> {
        let mut reader = FrameReader::new(u32::MAX);
        reader.push(Bytes::from(out.pieces().flatten().copied().collect::<Vec<u8>>()));
        let mut batches = BatchPool::new(1);
        std::iter::from_fn(|| reader.next())
            .map(|frame| frame.and_then(|frame| frame.decode(&mut batches)))
            .collect()
    }

    fn command(number: usize, bytes: usize) -> Vec<u8> {
        vec![u8::try_from(number % 251).unwrap(); bytes]
    }

    /// Writes commands of such lengths, and returns the numbers of commands in each frame.
    fn frames_of(lengths: &[usize]) -> Vec<usize> {
        let (mut writer, mut out) = (CommandsWriter::default(), Outgoing::default());
        for (number, bytes) in lengths.iter().enumerate() {
            writer.put(number as u64, 7, &command(number, *bytes), &mut out);
        }
        writer.end(&mut out);
        writer.end(&mut out); // nothing is left
        let runs = read(&out).into_iter().map(|message| match message {
            Ok(Message::Commands(commands)) if commands.lowest_unanswered() == 7 => {
                commands.collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        });
        let runs: Vec<_> = runs.collect();
        let read = runs.iter().flatten().map(|(number, command)| (*number, command.as_slice()));
        let written: Vec<_> = lengths
            .iter()
            .enumerate()
            .map(|(at, bytes)| (at as u64, command(at, *bytes)))
            .collect();
        assert!(read.eq(written.iter().map(|(number, command)| (*number, &command[..]))));
        runs.iter().map(Vec::len).collect()
    }

    #[test]
    fn commands_share_a_frame_while_they_are_short_and_keep_their_order() {
        let (entry_bytes, most) = (size_of::<Command>(), RUN_BYTES_MAX as usize);
        let fit = most / (entry_bytes + 20);
        assert_eq!(frames_of(&[]), [0; 0]);
        assert_eq!(frames_of(&[0]), [1]);
        assert_eq!(frames_of(&vec![20; 2 * fit + 1]), [fit, fit, 1]);
        assert_eq!(frames_of(&[20, most, 0, 3]), [1, 1, 2]);
        assert_eq!(frames_of(&[most - entry_bytes, 0]), [1, 1], "one fills a frame");
        assert_eq!(frames_of(&[100_000, 100_000]), [1, 1]);
    }

    #[test]
    fn commands_whose_numbers_do_not_follow_each_other_are_in_frames_of_their_own() {
        let (mut writer, mut out) = (CommandsWriter::default(), Outgoing::default());
        for (number, lowest) in [(5, 5), (6, 5), (8, 6), (9, 6), (3, 3), (u64::MAX, 3), (0, 0)] {
            writer.put(number, lowest, &command(1, 2), &mut out);
        }
        writer.end(&mut out);
        let frames = read(&out).into_iter().map(|message| match message {
            Ok(Message::Commands(commands)) => {
                (commands.lowest_unanswered(), commands.map(|(number, _)| number).collect())
            }
            other => panic!("{other:?}"),
        });
        let frames: Vec<(u64, Vec<u64>)> = frames.collect();
        let expected =
            [(5, vec![5, 6]), (6, vec![8, 9]), (3, vec![3]), (3, vec![u64::MAX]), (0, vec![0])];
        assert_eq!(frames, expected);
    }

    #[test]
    fn a_long_reply_is_not_copied_among_others() {
        let (mut writer, mut out) = (RepliesWriter::default(), Outgoing::default());
        let at = loggos_protocol::Position { slot: loggos_protocol::Slot(1), index: 2 };
        for bytes in [10, 50_000, 10] {
            writer.put(7, at, &vec![1; bytes], &mut out);
        }
        assert_eq!((out.frames(), out.written() < 200), (2, true), "the last one waits for more");
        let before = out.len();
        let left = writer.len();
        writer.end(&mut out);
        assert_eq!((out.len(), writer.is_empty()), (before + left, true));
        let replies = read(&out).into_iter().flat_map(|message| match message {
            Ok(Message::Replies(mut replies)) => {
                let mut all = Vec::new();
                while let Some((number, at, reply)) = replies.next() {
                    all.push((number, at, reply.len()));
                }
                all
            }
            other => panic!("{other:?}"),
        });
        assert!(replies.eq([10, 50_000, 10].map(|bytes| (7, at, bytes))));
    }

    /// Returns what a frame with such a run says; `payloads` has a right checksum.
    fn say(count: u32, entries: &[u32], payloads: &[u8]) -> Result<Message, WireError> {
        let mut out = Outgoing::default();
        let header = headers::Run { count: count.into(), payloads: checked(payloads) };
        let put_header = |out: &mut Outgoing| {
            put(&Commands::ZERO, out);
            put(&header, out);
            entries.iter().for_each(|bytes| put(&Command { bytes: (*bytes).into() }, out));
        };
        frame(Kind::Commands, &mut out, put_header, |out| out.put(payloads));
        read(&out).pop().unwrap()
    }

    #[test]
    fn a_run_whose_lengths_do_not_add_up_is_refused() {
        assert!(say(2, &[3, 4], &[0; 7]).is_ok());
        let wrong_count = |count, entries: &[u32], payloads: &[u8]| {
            matches!(say(count, entries, payloads), Err(WireError::HeaderLength { .. }))
        };
        assert!(wrong_count(0, &[], &[]), "there is no reason to send it");
        assert!(wrong_count(0, &[3], &[0; 3]));
        assert!(wrong_count(1, &[3, 4], &[0; 7]));
        assert!(wrong_count(3, &[3, 4], &[0; 7]));
        assert!(wrong_count(u32::MAX, &[3, 4], &[0; 7]));
        for (lengths, wanted) in [([3, 5], 8), ([3, 3], 6)] {
            assert_eq!(say(2, &lengths, &[0; 7]), Err(WireError::Payloads { wanted, there: 7 }));
        }
        let most = [u32::MAX; 2];
        assert!(matches!(say(2, &most, &[0; 7]), Err(WireError::Payloads { .. })));
    }
}
