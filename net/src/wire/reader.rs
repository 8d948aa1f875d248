//! Cuts a stream into frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

use super::head::{HEAD_BYTES, Head};
use super::{Frame, WireError};

/// The least room that is made for frames that straddle pieces: enough for several, as a rule.
const ROOM_BYTES_MIN: usize = 16 << 10;
/// Room that is made at once for what has not arrived: enough for a frame of any usual length.
const AHEAD_BYTES_MAX: usize = 1 << 20;

/// Cuts a stream of received pieces into frames, without copying.
///
/// ```text
///   pieces    │ frame │ frame │ fra│me │ frame │
///                                └─┬─┘
///                          copied together, and counted
/// ```
///
/// A frame inside one piece is a slice of it. One that straddles pieces is copied together, as far
/// as it has arrived. Its length is judged by its head alone, and its header is checked before
/// there is room made for its payloads; for either there is never much more than has arrived, since
/// a length is only a claim.
#[derive(Debug)]
pub struct FrameReader {
    frame_bytes_max: u32,
    /// The pieces that were not looked at yet, oldest first. None is empty.
    pieces: VecDeque<Bytes>,
    /// The beginning of a frame that straddles pieces.
    straddling: BytesMut,
    /// The part of it that is wanted.
    wanted: Wanted,
    /// Whether a frame was broken: where the next one would begin is unknown.
    is_broken: bool,
    copied_bytes: u64,
}

/// The part that is wanted of a frame that straddles pieces, before more is known of it.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Head,
    Header(Head),
    Payloads(Head),
}

impl FrameReader {
    /// Returns a reader of frames of up to `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: u32) -> Self {
        Self {
            frame_bytes_max,
            pieces: VecDeque::new(),
            straddling: BytesMut::new(),
            wanted: Wanted::Head,
            is_broken: false,
            copied_bytes: 0,
        }
    }

    /// Takes frames of up to `frame_bytes_max` bytes from here on: a peer's may be longer than
    /// those of a sender that is not known yet.
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// Takes the next piece of the stream.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() && !self.is_broken {
            self.pieces.push_back(piece);
        }
    }

    /// The next frame, once all of it has arrived; or what is wrong with the stream, once: there is
    /// nothing after that.
    #[allow(clippy::should_implement_trait, reason = "after None, more may come")]
    #[inline]
    pub fn next(&mut self) -> Option<Result<Frame, WireError>> {
        let is_straddling = !self.straddling.is_empty();
        let mut next = if is_straddling { Ok(None) } else { self.whole() };
        if let Ok(None) = next
            && (is_straddling || !self.pieces.is_empty())
        {
            next = self.joined();
        }
        if next.is_err() {
            self.stop();
        }
        next.transpose()
    }

    /// Returns the number of bytes copied so far, because their frames straddled pieces.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// The next frame, if it lies whole in the oldest piece: the common case, in which nothing is
    /// written down.
    #[inline]
    fn whole(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(piece) = self.pieces.front_mut() else { return Ok(None) };
        let Some(head) = piece.first_chunk() else { return Ok(None) };
        let head = Head::read(head, self.frame_bytes_max)?;
        if piece.len() < head.length {
            return Ok(None);
        }
        head.check(piece)?;
        let frame = if piece.len() > head.length {
            piece.split_to(head.length)
        } else {
            self.pieces.pop_front().unwrap_or_default()
        };
        Ok(Some(Frame::new(&head, frame)))
    }

    /// Forgets what has arrived, and will take no more.
    #[cold]
    fn stop(&mut self) {
        self.is_broken = true;
        self.pieces.clear();
        self.straddling.clear();
    }

    /// The next frame, some of which has arrived, but not in one piece.
    #[cold]
    fn joined(&mut self) -> Result<Option<Frame>, WireError> {
        while self.gather() {
            match self.wanted {
                Wanted::Head => {
                    let Some(head) = self.straddling.first_chunk() else { return Ok(None) };
                    self.wanted = Wanted::Header(Head::read(head, self.frame_bytes_max)?);
                }
                Wanted::Header(head) => {
                    head.check(&self.straddling)?;
                    self.wanted = Wanted::Payloads(head);
                }
                Wanted::Payloads(head) => {
                    self.wanted = Wanted::Head;
                    let frame = self.straddling.split().freeze();
                    return Ok(Some(Frame::new(&head, frame)));
                }
            }
        }
        Ok(None)
    }

    /// Copies what has arrived of what is wanted; returns whether that is all of it.
    fn gather(&mut self) -> bool {
        let wanted = match self.wanted {
            Wanted::Head => HEAD_BYTES,
            Wanted::Header(head) => head.header_end,
            Wanted::Payloads(head) => head.length,
        };
        // Memory is used again once the frames that were in it are held no more. Beyond this it
        // grows by doubling.
        let left = (wanted - self.straddling.len()).min(AHEAD_BYTES_MAX);
        if self.straddling.capacity() - self.straddling.len() < left {
            self.straddling.reserve(left.max(ROOM_BYTES_MIN));
        }
        while self.straddling.len() < wanted {
            let Some(piece) = self.pieces.front_mut() else { return false };
            let copied = piece.len().min(wanted - self.straddling.len());
            self.straddling.extend_from_slice(&piece[..copied]);
            piece.advance(copied);
            self.copied_bytes += copied as u64;
            if piece.is_empty() {
                self.pieces.pop_front();
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::head::checksum;
    use crate::wire::{Kind, WIRE_VERSION};

    /// The head of a frame that is said to be of such a length.
    fn head(length: u32, header_bytes: u32) -> Bytes {
        let mut head = [0; HEAD_BYTES];
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..10].copy_from_slice(&[WIRE_VERSION, Kind::StatusRequest.number()]);
        head[12..].copy_from_slice(&header_bytes.to_le_bytes());
        let checksum = checksum(&head[4..]);
        head[..4].copy_from_slice(&checksum.to_le_bytes());
        Bytes::copy_from_slice(&head)
    }

    #[test]
    fn what_is_only_said_to_come_takes_little_room() {
        for header_bytes in [0, 200 << 20] {
            let mut reader = FrameReader::new(u32::MAX);
            reader.push(head(256 << 20, header_bytes));
            assert!(reader.next().is_none(), "little of it has arrived");
            assert!(reader.straddling.capacity() <= 2 * AHEAD_BYTES_MAX);
            for _ in 0..5 {
                reader.push(Bytes::from(vec![0; AHEAD_BYTES_MAX]));
                assert!(reader.next().is_none(), "little of it has arrived");
            }
            assert!(reader.straddling.capacity() <= 2 * (5 + 1) * AHEAD_BYTES_MAX);
        }
    }

    #[test]
    fn room_grows_with_a_long_frame_that_does_arrive() {
        let (length, piece) = (5 * AHEAD_BYTES_MAX, AHEAD_BYTES_MAX / 3);
        let mut reader = FrameReader::new(u32::MAX);
        reader.push(head(u32::try_from(length).unwrap(), 0));
        let payloads = Bytes::from(vec![0; length - HEAD_BYTES]);
        let mut frames = Vec::new();
        for at in (0..payloads.len()).step_by(piece) {
            reader.push(payloads.slice(at..payloads.len().min(at + piece)));
            frames.extend(reader.next());
        }
        let lengths: Vec<_> = frames.into_iter().map(|frame| frame.unwrap().len()).collect();
        assert_eq!(lengths, [length]);
    }
}
