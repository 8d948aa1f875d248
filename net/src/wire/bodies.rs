//! The messages between roles, into a header and out of one.
//!
//! Most lie there field by field. Those with tables, votes or slots have entries behind the fixed
//! part of their header, those with blocks and outcomes have payloads.

use std::sync::Arc;

use loggos_protocol::{
    AcceptorId, AcceptorSet, Ballot, Batch, BatchId, Chosen, Content, DirectoryId, Fetched,
    FetchedPart, Form, Formed, GatewayId, Heartbeat, Incarnation, P1b, P2a, Payload, ProbeAck,
    Propose, ProposerId, ProxyLeaderId, Read, ReadResults, Rememberer, Replayed, ReplicaId,
    Results, Slot, SnapshotId, Stage, Table, Time, Value, Vote, Watermark,
};

use super::cursor::Cursor;
use super::encode::{checked, payload_bytes};
use super::layout::{Laid, Maybe, put};
use super::{WireError, headers};
use crate::Outgoing;

/// A message between roles, without its receiver.
pub(super) trait Body: Sized {
    /// Appends its header.
    fn put(&self, out: &mut Outgoing);

    /// Appends its payloads.
    #[inline]
    fn put_payloads(&self, _out: &mut Outgoing) {}

    /// Takes it out of a frame.
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError>;
}

impl<M: Laid> Body for M {
    #[inline]
    fn put(&self, out: &mut Outgoing) {
        put(&self.lay_out(), out);
    }

    #[inline]
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        Self::read(from.header()?)
    }
}

impl Body for Heartbeat {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Heartbeat {
            ballot: self.ballot.lay_out(),
            stage: self.stage.lay_out(),
            chosen: self.chosen.lay_out(),
            no_room: self.no_room.lay_out(),
            is_silent: self.is_silent.lay_out(),
            table: table(&self.table),
        };
        put(&header, out);
        put_directories(&self.table, out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Heartbeat = from.header()?;
        Ok(Self {
            ballot: Ballot::read(&header.ballot)?,
            stage: Stage::read(&header.stage)?,
            chosen: Watermark::read(&header.chosen)?,
            no_room: AcceptorSet::read(&header.no_room)?,
            is_silent: bool::read(&header.is_silent)?,
            table: from.table(&header.table)?,
        })
    }
}

impl Body for Box<ProbeAck> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::ProbeAck {
            from: self.from.lay_out(),
            nonce: self.nonce.lay_out(),
            directory: self.directory.lay_out(),
            is_blank: self.is_blank.lay_out(),
            origin: self.origin.lay_out(),
            table: Maybe::new(self.table.as_deref().map(table)),
        };
        put(&header, out);
        if let Some(table) = &self.table {
            put_directories(table, out);
        }
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::ProbeAck = from.header()?;
        Ok(Self::new(ProbeAck {
            from: Rememberer::read(&header.from)?,
            nonce: u64::read(&header.nonce)?,
            directory: DirectoryId::read(&header.directory)?,
            is_blank: bool::read(&header.is_blank)?,
            origin: Laid::read(&header.origin)?,
            table: header.table.get()?.map(|table| from.table(table)).transpose()?,
        }))
    }
}

impl Body for Form {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Form { proposer: self.proposer.lay_out(), table: table(&self.table) };
        put(&header, out);
        put_directories(&self.table, out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Form = from.header()?;
        let proposer = ProposerId::read(&header.proposer)?;
        Ok(Self { proposer, table: from.table(&header.table)? })
    }
}

impl Body for Formed {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Formed {
            acceptor: self.acceptor.lay_out(),
            directory: self.directory.lay_out(),
            table: table(&self.table),
        };
        put(&header, out);
        put_directories(&self.table, out);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Formed = from.header()?;
        Ok(Self {
            acceptor: AcceptorId::read(&header.acceptor)?,
            directory: DirectoryId::read(&header.directory)?,
            table: from.table(&header.table)?,
        })
    }
}

impl Body for Propose {
    #[inline]
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Propose { batch: batch(&self.batch), lowest: self.lowest.lay_out() };
        put(&header, out);
    }

    #[inline]
    fn put_payloads(&self, out: &mut Outgoing) {
        out.put_payload(&self.batch.block);
    }

    #[inline]
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Propose = from.header()?;
        Ok(Self { batch: from.batch(&header.batch)?, lowest: u64::read(&header.lowest)? })
    }
}

impl Body for P2a {
    #[inline]
    fn put(&self, out: &mut Outgoing) {
        let header = headers::P2a {
            ballot: self.ballot.lay_out(),
            slot: self.slot.lay_out(),
            via: self.via.lay_out(),
            is_recovered: self.is_recovered.lay_out(),
            value: value(&self.value),
        };
        put(&header, out);
    }

    #[inline]
    fn put_payloads(&self, out: &mut Outgoing) {
        put_block(&self.value, out);
    }

    #[inline]
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::P2a = from.header()?;
        Ok(Self {
            ballot: Ballot::read(&header.ballot)?,
            slot: Slot::read(&header.slot)?,
            via: ProxyLeaderId::read(&header.via)?,
            is_recovered: bool::read(&header.is_recovered)?,
            value: from.value(&header.value)?,
        })
    }
}

impl Body for Chosen {
    #[inline]
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Chosen {
            slot: self.slot.lay_out(),
            ballot: self.ballot.lay_out(),
            value: value(&self.value),
        };
        put(&header, out);
    }

    #[inline]
    fn put_payloads(&self, out: &mut Outgoing) {
        put_block(&self.value, out);
    }

    #[inline]
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Chosen = from.header()?;
        Ok(Self {
            slot: Slot::read(&header.slot)?,
            ballot: Ballot::read(&header.ballot)?,
            value: from.value(&header.value)?,
        })
    }
}

impl Body for Arc<Results> {
    #[inline]
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Results {
            replica: self.replica.lay_out(),
            batch: self.batch.lay_out(),
            attempt: self.attempt.lay_out(),
            slot: self.slot.lay_out(),
            outcomes: checked(self.outcomes.as_slice()),
        };
        put(&header, out);
    }

    #[inline]
    fn put_payloads(&self, out: &mut Outgoing) {
        out.put_payload(&self.outcomes);
    }

    #[inline]
    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Results = from.header()?;
        let results = Results {
            replica: ReplicaId::read(&header.replica)?,
            batch: BatchId::read(&header.batch)?,
            attempt: u32::read(&header.attempt)?,
            slot: Slot::read(&header.slot)?,
            outcomes: from.checked(&header.outcomes)?,
        };
        Ok(from.keep_results(results))
    }
}

impl Body for Box<P1b> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::P1b {
            acceptor: self.acceptor.lay_out(),
            directory: self.directory.lay_out(),
            ballot: self.ballot.lay_out(),
            truncated: self.truncated.lay_out(),
            from: self.from.lay_out(),
            to: self.to.lay_out(),
            votes_count: count(self.votes.len()).into(),
        };
        put(&header, out);
        put_votes(&self.votes, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        self.votes.iter().for_each(|(_, vote)| put_block(&vote.value, out));
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::P1b = from.header()?;
        let votes = from.votes(header.votes_count.into())?;
        Ok(Self::new(P1b {
            acceptor: AcceptorId::read(&header.acceptor)?,
            directory: DirectoryId::read(&header.directory)?,
            ballot: Ballot::read(&header.ballot)?,
            truncated: Watermark::read(&header.truncated)?,
            from: Slot::read(&header.from)?,
            to: Laid::read(&header.to)?,
            votes,
        }))
    }
}

impl Body for Box<Replayed> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Replayed {
            acceptor: self.acceptor.lay_out(),
            directory: self.directory.lay_out(),
            truncated: self.truncated.lay_out(),
            from: self.from.lay_out(),
            to: self.to.lay_out(),
            votes_count: count(self.votes.len()).into(),
        };
        put(&header, out);
        put_votes(&self.votes, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        self.votes.iter().for_each(|(_, vote)| put_block(&vote.value, out));
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Replayed = from.header()?;
        let votes = from.votes(header.votes_count.into())?;
        Ok(Self::new(Replayed {
            acceptor: AcceptorId::read(&header.acceptor)?,
            directory: DirectoryId::read(&header.directory)?,
            truncated: Watermark::read(&header.truncated)?,
            from: Slot::read(&header.from)?,
            to: Laid::read(&header.to)?,
            votes,
        }))
    }
}

impl Body for Fetched {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Fetched {
            replica: self.replica.lay_out(),
            first: self.first.lay_out(),
            executed: self.executed.lay_out(),
            slots_count: count(self.slots.len()).into(),
        };
        put(&header, out);
        for (ballot, content) in &self.slots {
            put(&headers::SlotValue { ballot: ballot.lay_out(), value: value(content) }, out);
        }
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        self.slots.iter().for_each(|(_, value)| put_block(value, out));
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Fetched = from.header()?;
        let slots =
            from.entries(header.slots_count.into(), |from, entry: &headers::SlotValue| {
                Ok((Ballot::read(&entry.ballot)?, from.value(&entry.value)?))
            })?;
        Ok(Self {
            replica: ReplicaId::read(&header.replica)?,
            first: Slot::read(&header.first)?,
            slots,
            executed: Watermark::read(&header.executed)?,
        })
    }
}

impl Body for Box<FetchedPart> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::FetchedPart {
            replica: self.replica.lay_out(),
            snapshot: self.snapshot.lay_out(),
            info: self.info.lay_out(),
            is_coming: self.is_coming.lay_out(),
            part: self.part.lay_out(),
            bytes: checked(self.bytes.as_slice()),
        };
        put(&header, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        out.put_payload(&self.bytes);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::FetchedPart = from.header()?;
        Ok(Self::new(FetchedPart {
            replica: ReplicaId::read(&header.replica)?,
            snapshot: Laid::read(&header.snapshot)?,
            info: Laid::read(&header.info)?,
            is_coming: bool::read(&header.is_coming)?,
            part: u32::read(&header.part)?,
            bytes: from.checked(&header.bytes)?,
        }))
    }
}

impl Body for Arc<Read> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::Read {
            gateway: self.gateway.lay_out(),
            incarnation: self.incarnation.lay_out(),
            group: self.group.lay_out(),
            first: self.first.lay_out(),
            at_least: self.at_least.lay_out(),
            queries: checked(self.queries.as_slice()),
        };
        put(&header, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        out.put_payload(&self.queries);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Read = from.header()?;
        Ok(Self::new(Read {
            gateway: GatewayId::read(&header.gateway)?,
            incarnation: Incarnation::read(&header.incarnation)?,
            group: u64::read(&header.group)?,
            first: u32::read(&header.first)?,
            at_least: Watermark::read(&header.at_least)?,
            queries: from.checked(&header.queries)?,
        }))
    }
}

impl Body for Arc<ReadResults> {
    fn put(&self, out: &mut Outgoing) {
        let header = headers::ReadResults {
            replica: self.replica.lay_out(),
            incarnation: self.incarnation.lay_out(),
            group: self.group.lay_out(),
            first: self.first.lay_out(),
            executed: self.executed.lay_out(),
            replies: checked(self.replies.as_slice()),
        };
        put(&header, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        out.put_payload(&self.replies);
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::ReadResults = from.header()?;
        Ok(Self::new(ReadResults {
            replica: ReplicaId::read(&header.replica)?,
            incarnation: Incarnation::read(&header.incarnation)?,
            group: u64::read(&header.group)?,
            first: u32::read(&header.first)?,
            executed: Watermark::read(&header.executed)?,
            replies: from.checked(&header.replies)?,
        }))
    }
}

#[inline]
fn batch(batch: &Batch) -> headers::Batch {
    headers::Batch {
        id: batch.id.lay_out(),
        attempt: batch.attempt.lay_out(),
        answerer: batch.answerer.lay_out(),
        commands_count: batch.commands_count.lay_out(),
        block_bytes: payload_bytes(batch.block.as_slice()).into(),
        checksum: batch.checksum.lay_out(),
    }
}

#[inline]
fn value(value: &Value) -> headers::Value {
    let stamp = value.stamp.lay_out();
    headers::Value { stamp, batch: Maybe::new(value.batch().map(|b| batch(b))) }
}

fn put_votes(votes: &[(Slot, Vote)], out: &mut Outgoing) {
    for (slot, vote) in votes {
        let ballot = vote.ballot.lay_out();
        let value = value(&vote.value);
        put(&headers::SlotVote { slot: slot.lay_out(), ballot, value }, out);
    }
}

#[inline]
fn put_block(value: &Value, out: &mut Outgoing) {
    if let Some(batch) = value.batch() {
        out.put_payload(&batch.block);
    }
}

fn table(table: &Table) -> headers::Table {
    headers::Table {
        cluster_digest: table.cluster_digest().lay_out(),
        origin: table.origin().lay_out(),
        acceptors_count: count(table.acceptors().len()).into(),
    }
}

fn put_directories(table: &Table, out: &mut Outgoing) {
    for directory in table.acceptors() {
        put(&headers::Directory { id: directory.lay_out() }, out);
    }
}

fn count(entries: usize) -> u32 {
    u32::try_from(entries).expect("fewer than 2^32 entries")
}

impl Cursor<'_> {
    fn votes(&mut self, count: u32) -> Result<Vec<(Slot, Vote)>, WireError> {
        self.entries(count, |from, entry: &headers::SlotVote| {
            let ballot = Ballot::read(&entry.ballot)?;
            Ok((Slot::read(&entry.slot)?, Vote { ballot, value: from.value(&entry.value)? }))
        })
    }

    /// Takes a batch, and checks its block: also where it is only passed on, since what goes from
    /// there to a role of the same process goes without a frame. An acceptor there would vote for a
    /// damaged block, which could then be neither executed nor replaced.
    #[inline]
    pub(super) fn batch(&mut self, header: &headers::Batch) -> Result<Arc<Batch>, WireError> {
        let checksum = u32::read(&header.checksum)?;
        let block = self.payload(header.block_bytes.into(), checksum)?;
        let batch = Batch {
            id: BatchId::read(&header.id)?,
            attempt: u32::read(&header.attempt)?,
            answerer: ReplicaId::read(&header.answerer)?,
            commands_count: u32::read(&header.commands_count)?,
            block,
            checksum,
        };
        Ok(self.keep(batch))
    }

    #[inline]
    fn value(&mut self, header: &headers::Value) -> Result<Value, WireError> {
        let content = match header.batch.get()? {
            None => Content::Noop,
            Some(batch) => Content::Batch(self.batch(batch)?),
        };
        Ok(Value { stamp: Time::read(&header.stamp)?, content })
    }

    /// Takes a table. It comes with every heartbeat and is always the same, so it is read once.
    fn table(&mut self, header: &headers::Table) -> Result<Arc<Table>, WireError> {
        let cluster_digest = header.cluster_digest.into();
        let (origin, count) = (Laid::read(&header.origin)?, u32::from(header.acceptors_count));
        if let Some(known) = self.known_table(cluster_digest, origin, count) {
            return Ok(known);
        }
        let directories =
            self.entries(count, |_, entry: &headers::Directory| DirectoryId::read(&entry.id))?;
        let table = Table::new(cluster_digest, directories.into()).with_origin(origin);
        Ok(self.keep_table(table))
    }

    /// The table that was read last, if it is this one: then its entries are taken.
    fn known_table(
        &mut self,
        cluster_digest: u64,
        origin: Option<SnapshotId>,
        count: u32,
    ) -> Option<Arc<Table>> {
        let is_alike = |known: &&Arc<Table>| {
            (known.cluster_digest(), known.origin()) == (cluster_digest, origin)
        };
        let known = self.last_table().filter(is_alike)?;
        let known = (known.acceptors().len() == count as usize).then(|| Arc::clone(known))?;
        let before = self.rest();
        let is_it = known.acceptors().iter().all(|known| {
            let entry = self.header::<headers::Directory>();
            entry.and_then(|entry| DirectoryId::read(&entry.id)).as_ref() == Ok(known)
        });
        if !is_it {
            self.set_rest(before);
        }
        is_it.then_some(known)
    }

    /// Takes a payload that has a checksum of its own.
    #[inline]
    pub(super) fn checked(&mut self, header: &headers::Checked) -> Result<Payload, WireError> {
        self.payload(header.bytes.into(), header.checksum.into())
    }
}
