//! A frame's header and payloads, taken one after the other.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use loggos_protocol::{Batch, INLINE_BYTES_MAX, Payload, Results, Table};

use super::head::{HEAD_BYTES, checksum};
use super::headers::Checked;
use super::layout::{Layout, take};
use super::{BatchPool, WireError};

/// The part of a frame that is left to read.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    version: u8,
    /// The rest of the header.
    header: &'a [u8],
    frame: &'a Bytes,
    /// The offset of the next payload in the frame.
    read: usize,
    batches: &'a mut BatchPool,
}

impl<'a> Cursor<'a> {
    /// Returns the cursor at the beginning of a frame's header, which ends at `header_end`. Batches
    /// come from `batches`.
    #[inline]
    pub(super) fn new(
        frame: &'a Bytes,
        header_end: usize,
        version: u8,
        batches: &'a mut BatchPool,
    ) -> Self {
        let header = &frame[HEAD_BYTES..header_end];
        Self { version, header, frame, read: header_end, batches }
    }

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

    /// Takes the entries of a run, which the rest of the header is said to be, where they lie.
    /// There is one at the least: there is no reason to send none.
    pub(super) fn run<L: Layout>(&mut self, count: u32) -> Result<Bytes, WireError> {
        let needed = u64::from(count.max(1)) * size_of::<L>() as u64;
        if count == 0 || needed != self.header.len() as u64 {
            return Err(WireError::HeaderLength { needed, is: self.header.len() });
        }
        Ok(self.frame.slice_ref(std::mem::take(&mut self.header)))
    }

    /// Takes the next payload, and checks it.
    #[inline]
    pub(super) fn payload(&mut self, bytes: u32, said: u32) -> Result<Payload, WireError> {
        let range = self.payload_range(bytes, said)?;
        Ok(part(self.frame, range))
    }

    /// Takes the next payload where it lies, and checks it.
    pub(super) fn bytes(&mut self, header: &Checked) -> Result<Bytes, WireError> {
        let range = self.payload_range(header.bytes.into(), header.checksum.into())?;
        Ok(self.frame.slice(range))
    }

    #[inline]
    fn payload_range(&mut self, bytes: u32, said: u32) -> Result<Range<usize>, WireError> {
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
        Ok(range)
    }

    /// The version of its header.
    pub(super) fn version(&self) -> u8 {
        self.version
    }

    /// Puts a batch where it is counted.
    #[inline]
    pub(super) fn keep(&mut self, batch: Batch) -> Arc<Batch> {
        self.batches.batches.hand_out(batch)
    }

    /// Puts results where they are counted.
    #[inline]
    pub(super) fn keep_results(&mut self, results: Results) -> Arc<Results> {
        self.batches.results.hand_out(results)
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

    /// Returns the rest of the header.
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

/// Returns a part of `bytes` as a payload.
#[inline]
pub(super) fn part(bytes: &Bytes, range: Range<usize>) -> Payload {
    // A short one is copied anyway, and then need not be counted.
    match range.len() <= INLINE_BYTES_MAX {
        true => Payload::copy(&bytes[range]),
        false => Payload::from(bytes.slice(range)),
    }
}
