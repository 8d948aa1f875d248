//! A batch in the making.

use loggos_protocol::Record;

use crate::batch::HEAD_BYTES;
use crate::fields::length;
use crate::segment::Indexed;
use crate::state::States;
use crate::{Buffer, record};

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// Begins with room for the head.
    pub(crate) bytes: Buffer,
    pub(crate) records_count: u32,
    /// Offsets count from the batch's start.
    pub(crate) votes: Vec<Indexed>,
    /// Records appended in this life up to its last, and what is known then; set once it is full.
    pub(crate) end: Option<(u64, States)>,
}

impl Gathering {
    pub(crate) fn new(mut bytes: Buffer, mut votes: Vec<Indexed>) -> Self {
        bytes.clear();
        bytes.resize(HEAD_BYTES as usize, 0);
        votes.clear();
        Self { bytes, records_count: 0, votes, end: None }
    }

    pub(crate) fn append(&mut self, record: &Record) {
        let offset = length(self.bytes.len());
        let checksum = record::put(record, &mut self.bytes);
        self.records_count += 1;
        if let Record::Vote { acceptor, slot, .. } = record {
            let bytes = length(self.bytes.len()) - offset;
            let (acceptor, slot) = (*acceptor, *slot);
            self.votes.push(Indexed { slot, offset, bytes, checksum, acceptor });
        }
    }
}
