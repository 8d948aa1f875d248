//! Frames on their way in.

use std::sync::Arc;

use bytes::Bytes;
use loggos_protocol::{Batch, INLINE_BYTES_MAX, Payload, Table};

use super::head::{HEAD_BYTES, Head, checksum};
use super::layout::{Layout, take};
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

    /// What it holds.
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

    /// What it says. Long payloads are slices of the memory that it was received in; batches come from
    /// `batches`.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it; the connection that it came from is of no more use.
    #[inline]
    pub fn decode(&self, batches: &mut BatchPool) -> Result<Message, WireError> {
        let mut from = Incoming {
            version: self.version,
            header: &self.bytes[HEAD_BYTES..self.header_end],
            frame: &self.bytes,
            read: self.header_end,
            batches,
        };
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

/// What is left to read of a frame.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    version: u8,
    /// The rest of the header.
    header: &'a [u8],
    frame: &'a Bytes,
    /// Where in the frame the next payload begins.
    read: usize,
    batches: &'a mut BatchPool,
}

impl<'a> Incoming<'a> {
    /// Takes the next part of the header.
    #[inline]
    pub(super) fn header<L: Layout>(&mut self) -> Result<&'a L, WireError> {
        take(&mut self.header)
    }

    /// Takes the entries that the rest of the header is said to be.
    pub(super) fn entries<L: Layout, T>(
        &mut self,
        count: u32,
        mut take_entry: impl FnMut(&mut Self, &'a L) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        // Before memory is allocated for them.
        let needed = u64::from(count) * size_of::<L>() as u64;
        if needed != self.header.len() as u64 {
            return Err(WireError::HeaderLength { needed, is: self.header.len() });
        }
        let mut entries = Vec::with_capacity(self.header.len() / size_of::<L>());
        for _ in 0..count {
            let entry = self.header()?;
            entries.push(take_entry(self, entry)?);
        }
        Ok(entries)
    }

    /// Takes the next payload, and checks it.
    #[inline]
    pub(super) fn payload(&mut self, bytes: u32, said: u32) -> Result<Payload, WireError> {
        let there = self.frame.len() - self.read;
        let wanted = bytes as usize;
        if wanted > there {
            return Err(WireError::Payloads { wanted, there });
        }
        let range = self.read..self.read + wanted;
        self.read = range.end;
        let payload = &self.frame[range.clone()];
        let is = checksum(payload);
        if said != is {
            return Err(WireError::PayloadChecksum { said, is });
        }
        // A short one is copied anyway, and then need not be counted.
        if wanted <= INLINE_BYTES_MAX {
            return Ok(Payload::copy(payload));
        }
        Ok(Payload::from(self.frame.slice(range)))
    }

    /// The version of its header.
    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// Puts a batch where it is counted.
    #[inline]
    pub(super) fn keep(&mut self, batch: Batch) -> Arc<Batch> {
        self.batches.batch(batch)
    }

    /// Remembers a table as the one that was read last.
    pub(super) fn keep_table(&mut self, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        self.batches.last_table = Some(Arc::clone(&table));
        table
    }

    /// The table that was read last.
    pub(super) fn last_table(&self) -> Option<&Arc<Table>> {
        self.batches.last_table.as_ref()
    }

    /// What is left of the header.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.header
    }

    /// Goes back to where that was left of the header.
    pub(super) fn set_rest(&mut self, rest: &'a [u8]) {
        self.header = rest;
    }

    /// Checks that nothing is left.
    #[inline]
    pub(super) fn end(&self) -> Result<(), WireError> {
        if !self.header.is_empty() {
            return Err(WireError::HeaderLength { needed: 0, is: self.header.len() });
        }
        let there = self.frame.len() - self.read;
        if there > 0 {
            return Err(WireError::Payloads { wanted: 0, there });
        }
        Ok(())
    }
}
