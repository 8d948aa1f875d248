//! What an acceptor must not forget: what it has written down before it says so, and what it comes
//! back with.

use std::sync::Arc;

use crate::{AcceptorId, Ballot, P1a, P2a, Replay, Slot, Table, Vote, Watermark};

/// A fact that an acceptor must not forget, before it says so (R31).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// It will take part in no ballot below this one.
    Promise {
        /// The acceptor that promises.
        acceptor: AcceptorId,
        /// What.
        ballot: Ballot,
    },
    /// It has voted; a promise too.
    Vote {
        /// The acceptor that has voted.
        acceptor: AcceptorId,
        /// In which slot.
        slot: Slot,
        /// In which ballot, and for what.
        vote: Vote,
    },
    /// It has voted again for the value of its last vote in the slot, in a larger ballot; a promise
    /// too.
    ///
    /// The value is written down already, in an older record that goes when this one may, too: both
    /// are of one slot. So an election costs a log some bytes for each open slot, however long its
    /// value is.
    Revote {
        /// The acceptor that has voted.
        acceptor: AcceptorId,
        /// In which slot.
        slot: Slot,
        /// In which ballot.
        ballot: Ballot,
    },
    /// Every slot below is durable elsewhere (R16): its votes may go.
    Truncated {
        /// The acceptor whose votes they are.
        acceptor: AcceptorId,
        /// The bound. Never goes down.
        truncated: Watermark,
    },
    /// It belongs to this cluster, for good (R4).
    Table {
        /// The acceptor.
        acceptor: AcceptorId,
        /// The cluster.
        table: Arc<Table>,
    },
}

/// The room that is left in a durable acceptor's log.
///
/// source: R16, R34
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LogRoom {
    /// So little that nothing is voted for that is proposed for the first time.
    Low,
    /// Less than half: only as many snapshots are waited for as it takes to be safe.
    Scarce,
    /// Half of the log or more.
    #[default]
    Ample,
}

/// All that an acceptor must know to serve, besides its votes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AcceptorState {
    /// The largest ballot promised or voted in. Never goes down.
    ///
    /// source: R32, "recovered promise = max(promise records, ballots of all votes)"
    pub promised: Ballot,
    /// Every slot below is durable elsewhere. Never goes down.
    pub truncated: Watermark,
    /// The largest slot ever voted in; at least the last one truncated. Never goes down.
    ///
    /// It needs no record of its own: votes and truncations raise it, and heads carry it on when
    /// those are gone.
    ///
    /// source: R18
    pub vote_watermark: Option<Slot>,
    /// The cluster it belongs to, if any, for good.
    pub table: Option<Arc<Table>>,
}

/// Votes that a durable acceptor wants read back from its log: every last one in `[from, to)`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Recall {
    /// The acceptor whose votes they are.
    pub acceptor: AcceptorId,
    /// The first slot.
    pub from: Slot,
    /// The bound, above `from`.
    pub to: Watermark,
    /// The message that asked for them.
    pub cause: Cause,
}

/// A message that has to wait for votes on disk.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// A page of a promise.
    P1a(P1a),
    /// A value for a slot whose vote is on disk, if there is one.
    P2a(P2a),
    /// A page for a replica.
    Replay(ReplayPage),
}

/// One of the pages that answer a [`Replay`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ReplayPage {
    /// The message that asked for it.
    pub replay: Replay,
    /// The first slot of the page.
    pub first: Slot,
    /// How many may follow.
    pub left: u32,
}

/// Votes that a driver has read back.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Recalled {
    /// The request.
    pub recall: Recall,
    /// How far it got: above `recall.from`, up to `recall.to`. It may stop early where votes are
    /// long.
    pub covered: Watermark,
    /// Of each slot from `recall.from` to `covered` the last vote that was synced when the recall
    /// was made, or a later one; in slot order.
    pub votes: Vec<(Slot, Vote)>,
}

impl Recalled {
    /// The vote in `slot`, if there is one.
    pub(crate) fn vote(&self, slot: Slot) -> Option<&Vote> {
        assert!(self.recall.from <= slot && self.covered.covers(slot), "{slot} was not recalled");
        self.votes.iter().find(|(at, _)| *at == slot).map(|(_, vote)| vote)
    }
}

impl Record {
    /// The acceptor that it is of.
    #[must_use]
    pub fn acceptor(&self) -> AcceptorId {
        match self {
            Self::Promise { acceptor, .. }
            | Self::Vote { acceptor, .. }
            | Self::Revote { acceptor, .. }
            | Self::Truncated { acceptor, .. }
            | Self::Table { acceptor, .. } => *acceptor,
        }
    }
}

impl AcceptorState {
    /// Takes in a record of this acceptor, in the order of its log.
    ///
    /// source: R32
    pub fn on_record(&mut self, record: &Record) {
        match record {
            Record::Promise { ballot, .. } => self.promise(*ballot),
            Record::Vote { slot, vote, .. } => self.vote(*slot, vote.ballot),
            Record::Revote { slot, ballot, .. } => self.vote(*slot, *ballot),
            Record::Truncated { truncated, .. } => self.truncate(*truncated),
            Record::Table { table, .. } => self.join(table),
        }
    }

    /// Takes in a promise.
    pub fn promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    /// Takes in a vote, which is a promise too.
    pub fn vote(&mut self, slot: Slot, ballot: Ballot) {
        self.promise(ballot);
        self.vote_watermark = self.vote_watermark.max(Some(slot));
    }

    /// Takes in a truncation.
    pub fn truncate(&mut self, truncated: Watermark) {
        self.truncated.raise(truncated);
        let last = self.truncated.0.checked_sub(1).map(Slot);
        self.vote_watermark = self.vote_watermark.max(last);
    }

    /// Takes in a table: the first counts. Nothing below the start of its log is there to be voted
    /// for.
    pub fn join(&mut self, table: &Arc<Table>) {
        if self.table.is_none() {
            self.table = Some(Arc::clone(table));
            self.truncate(table.start());
        }
    }

    /// Takes in all that `other`, of the same acceptor, says.
    pub fn add(&mut self, other: &Self) {
        self.promise(other.promised);
        self.truncate(other.truncated);
        self.vote_watermark = self.vote_watermark.max(other.vote_watermark);
        if let Some(table) = &other.table {
            self.join(table);
        }
    }
}
