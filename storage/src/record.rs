//! What an acceptor must not forget, as it lies in a batch.
//!
//! ```text
//!   0          4        8             12     13         14
//!   │ checksum │ length │ block bytes │ kind │ acceptor │ fields …       │ block │
//!              └──────────── what the checksum covers ───────────────────┘
//!
//!   kind         fields
//!   1 promise    ballot
//!   2 vote       slot, ballot, stamp, 0                                            a no-op
//!                slot, ballot, stamp, 1, gateway, incarnation, number, attempt,
//!                answerer, commands, block's checksum                              a batch
//!   3 truncated  watermark
//!   4 table      cluster digest, count, a directory id for each acceptor
//!   5 state      ballot, watermark, 0 or 1, slot, 0, 1 or 2, table, snapshot if 2  in heads only
//!   6 revote     slot, ballot                                                      since version 2
//!   7 origin     table, snapshot: a table of a log that starts from one            since version 3
//! ```
//!
//! The length is the record's, block included. A record has a checksum of its own, besides its
//! batch's, so that a single vote can be read back: the block has been given one by its gateway,
//! and is not summed again.

use std::sync::Arc;

use loggos_protocol::{
    AcceptorId, AcceptorState, Ballot, Batch, BatchId, Content, GatewayId, Incarnation, Payload,
    Record, ReplicaId, Slot, Table, Time, Value, Watermark,
};

use crate::Buffer;
use crate::fields::{Fields, Malformed, Put, checksum, length};

/// The bytes before a record's fields.
const FIXED_BYTES: usize = 14;
/// The longest that a record is without its block: a state with a table of 64 acceptors is 576
/// bytes.
pub(crate) const RECORD_BYTES_MAX: u32 = 640;

/// A record as it lies in the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogEntry<'a> {
    /// See [`loggos_protocol::Record::Promise`].
    Promise(Ballot),
    /// See [`loggos_protocol::Record::Vote`].
    Vote {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
        /// The value, not yet looked at.
        value: EncodedValue<'a>,
    },
    /// See [`loggos_protocol::Record::Revote`].
    Revote {
        /// The slot.
        slot: Slot,
        /// The ballot.
        ballot: Ballot,
    },
    /// See [`loggos_protocol::Record::Truncated`].
    Truncated(Watermark),
    /// See [`loggos_protocol::Record::Table`].
    Table(Arc<Table>),
    /// All that is known of the acceptor but its votes: what a segment opens with (R32).
    State(AcceptorState),
}

/// A value as it lies in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EncodedValue<'a> {
    fields: &'a [u8],
    block: &'a [u8],
}

/// A record taken out of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Decoded<'a> {
    pub(crate) acceptor: AcceptorId,
    pub(crate) entry: LogEntry<'a>,
    pub(crate) checksum: u32,
    /// The record's length.
    pub(crate) bytes: u32,
}

/// The most that `record` takes in the log, in bytes.
pub(crate) fn bytes_max(record: &Record) -> u32 {
    let block_bytes = match record {
        Record::Vote { vote, .. } => vote.value.batch().map_or(0, |batch| batch.block.len()),
        Record::Promise { .. }
        | Record::Revote { .. }
        | Record::Truncated { .. }
        | Record::Table { .. } => 0,
    };
    RECORD_BYTES_MAX + length(block_bytes)
}

/// Appends `record`; returns its checksum.
pub(crate) fn put(record: &Record, out: &mut Buffer) -> u32 {
    match record {
        Record::Promise { acceptor, ballot } => {
            put_entry(out, 1, *acceptor, &[], |out| out.put_ballot(*ballot))
        }
        Record::Vote { acceptor, slot, vote } => {
            let block = vote.value.batch().map_or(&[][..], |batch| batch.block.as_slice());
            put_entry(out, 2, *acceptor, block, |out| {
                out.put_u64(slot.0);
                out.put_ballot(vote.ballot);
                put_value(&vote.value, out);
            })
        }
        Record::Revote { acceptor, slot, ballot } => put_entry(out, 6, *acceptor, &[], |out| {
            out.put_u64(slot.0);
            out.put_ballot(*ballot);
        }),
        Record::Truncated { acceptor, truncated } => {
            put_entry(out, 3, *acceptor, &[], |out| out.put_u64(truncated.0))
        }
        Record::Table { acceptor, table } => {
            let kind = if table.origin().is_none() { 4 } else { 7 };
            put_entry(out, kind, *acceptor, &[], |out| out.put_table(table))
        }
    }
}

/// Appends the state of `acceptor`, as a record of a head.
pub(crate) fn put_state(state: &AcceptorState, acceptor: AcceptorId, out: &mut Buffer) {
    put_entry(out, 5, acceptor, &[], |out| {
        out.put_ballot(state.promised);
        out.put_u64(state.truncated.0);
        out.put_maybe_slot(state.vote_watermark);
        let table = state.table.as_deref();
        out.put_u8(table.map_or(0, |table| 1 + u8::from(table.origin().is_some())));
        table.into_iter().for_each(|table| out.put_table(table));
    });
}

fn put_entry(
    out: &mut Buffer,
    kind: u8,
    acceptor: AcceptorId,
    block: &[u8],
    fields: impl FnOnce(&mut Buffer),
) -> u32 {
    let start = out.len();
    out.put(&[0; 8]);
    out.put_u32(length(block.len()));
    out.put(&[kind, acceptor.0]);
    fields(out);
    let bytes = length(out.len() - start + block.len());
    out[start + 4..start + 8].copy_from_slice(&bytes.to_le_bytes());
    let checksum = checksum(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    out.put(block);
    checksum
}

fn put_value(value: &Value, out: &mut Buffer) {
    out.put_u64(value.stamp.0);
    match &value.content {
        Content::Noop => out.put_u8(0),
        Content::Batch(batch) => {
            out.put_u8(1);
            out.put_u8(batch.id.gateway.0);
            out.put_u64(batch.id.incarnation.0);
            out.put_u64(batch.id.number);
            out.put_u32(batch.attempt);
            out.put_u8(batch.answerer.0);
            out.put_u32(batch.commands_count);
            out.put_u32(batch.checksum);
        }
    }
}

impl EncodedValue<'_> {
    /// Reads it, its block copied; `None` if it is no value, or the block is not what its gateway
    /// summed.
    #[must_use]
    pub fn decode(self) -> Option<Value> {
        self.take().ok()
    }

    fn take(self) -> Result<Value, Malformed> {
        let mut fields = Fields(self.fields);
        let stamp = Time(fields.u64()?);
        if !fields.flag()? {
            Fields(self.block).end()?;
            fields.end()?;
            return Ok(Value::noop(stamp));
        }
        let gateway = GatewayId(fields.u8()?);
        let (incarnation, number) = (Incarnation(fields.u64()?), fields.u64()?);
        let batch = Batch {
            id: BatchId { gateway, incarnation, number },
            attempt: fields.u32()?,
            answerer: ReplicaId(fields.u8()?),
            commands_count: fields.u32()?,
            checksum: fields.u32()?,
            block: Payload::copy(self.block),
        };
        fields.end()?;
        if checksum(self.block) != batch.checksum {
            return Err(Malformed);
        }
        Ok(Value { stamp, content: Content::Batch(Arc::new(batch)) })
    }
}

/// Takes the record that `bytes` begin with.
pub(crate) fn take(bytes: &[u8]) -> Result<Decoded<'_>, Malformed> {
    let mut fixed = Fields(bytes);
    let (said, record_bytes, block_bytes) = (fixed.u32()?, fixed.u32()?, fixed.u32()?);
    let record = Fields(bytes).bytes(record_bytes as usize)?;
    let fields_end = record.len().checked_sub(block_bytes as usize).ok_or(Malformed)?;
    if fields_end < FIXED_BYTES || checksum(&record[4..fields_end]) != said {
        return Err(Malformed);
    }
    let (kind, acceptor) = (record[12], AcceptorId(record[13]));
    let (fields, block) = record[FIXED_BYTES..].split_at(fields_end - FIXED_BYTES);
    let entry = take_entry(kind, Fields(fields), block)?;
    Ok(Decoded { acceptor, entry, checksum: said, bytes: record_bytes })
}

fn take_entry<'a>(
    kind: u8,
    mut fields: Fields<'a>,
    block: &'a [u8],
) -> Result<LogEntry<'a>, Malformed> {
    let entry = match kind {
        1 => LogEntry::Promise(fields.ballot()?),
        2 => {
            let (slot, ballot) = (Slot(fields.u64()?), fields.ballot()?);
            let value = EncodedValue { fields: fields.0, block };
            return Ok(LogEntry::Vote { slot, ballot, value });
        }
        3 => LogEntry::Truncated(Watermark(fields.u64()?)),
        4 => LogEntry::Table(Arc::new(fields.table(false)?)),
        5 => {
            let promised = fields.ballot()?;
            let (truncated, vote_watermark) = (Watermark(fields.u64()?), fields.maybe_slot()?);
            let table = match fields.u8()? {
                0 => None,
                has_origin @ (1 | 2) => Some(Arc::new(fields.table(has_origin == 2)?)),
                _ => return Err(Malformed),
            };
            LogEntry::State(AcceptorState { promised, truncated, vote_watermark, table })
        }
        6 => LogEntry::Revote { slot: Slot(fields.u64()?), ballot: fields.ballot()? },
        7 => LogEntry::Table(Arc::new(fields.table(true)?)),
        _ => return Err(Malformed),
    };
    fields.end()?;
    Fields(block).end()?;
    Ok(entry)
}
