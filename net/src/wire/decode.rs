//! Frames on their way in.

use bytes::Bytes;

use super::cursor::Cursor;
use super::head::Head;
use super::{BatchPool, Kind, Message, WireError, kind};

/// A frame cut out of a stream, whose head and header are as they were sent.
#[derive(Clone, Debug)]
pub struct Frame {
    kind: Kind,
    version: u8,
    header_end: usize,
    /// All of it.
    bytes: Bytes,
}

impl Frame {
    /// Returns the frame of `bytes`, whose head and header were checked.
    #[inline]
    pub(super) fn new(head: &Head, bytes: Bytes) -> Self {
        assert_eq!(bytes.len(), head.length, "a frame is as long as its head says");
        Self { kind: head.kind, version: head.version, header_end: head.header_end, bytes }
    }

    /// Returns its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its length, head and payloads included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a frame has a head at the least")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What it says. Long payloads are slices of the memory that it was received in; batches come
    /// from `batches`.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it; the connection that it came from is of no more use.
    #[inline]
    pub fn decode(&self, batches: &mut BatchPool) -> Result<Message, WireError> {
        let mut from = Cursor::new(&self.bytes, self.header_end, self.version, batches);
        // Written to be built in its place: a message is copied slowly right after it was written.
        let mut said = kind::decode(self.kind, &mut from);
        if said.is_ok()
            && let Err(error) = from.end()
        {
            said = Err(error);
        }
        said
    }
}
