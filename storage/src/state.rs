//! What the log knows of each acceptor, but for its votes: what segments open with.

use std::sync::Arc;

use loggos_protocol::{AcceptorId, Ballot, Slot, Table, Watermark};

use crate::Entry;
use crate::record::Record;

/// What an acceptor must know to serve, besides its votes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    /// The largest ballot promised or voted in. Never goes down.
    ///
    /// source: R32, "recovered promise = max(promise records, ballots of all votes)"
    pub promised: Ballot,
    /// Every slot below is durable elsewhere. Never goes down.
    pub truncated: Watermark,
    /// The largest slot ever voted in; at least the last one truncated. Never goes down.
    ///
    /// It needs no record of its own: votes and truncations raise it, and heads carry it on when those
    /// are gone.
    ///
    /// source: R18
    pub vote_watermark: Option<Slot>,
    /// The cluster it belongs to, if any, for good.
    pub table: Option<Arc<Table>>,
}

/// The states of all acceptors that share a log, in the order of their ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct States(Vec<(AcceptorId, State)>);

impl State {
    fn promise(&mut self, ballot: Ballot) {
        self.promised = self.promised.max(ballot);
    }

    fn vote(&mut self, slot: Slot, ballot: Ballot) {
        self.promise(ballot);
        self.vote_watermark = self.vote_watermark.max(Some(slot));
    }

    fn truncate(&mut self, truncated: Watermark) {
        self.truncated.raise(truncated);
        let last = self.truncated.0.checked_sub(1).map(Slot);
        self.vote_watermark = self.vote_watermark.max(last);
    }

    fn join(&mut self, table: &Arc<Table>) {
        if self.table.is_none() {
            self.table = Some(Arc::clone(table));
        }
    }

    fn on_record(&mut self, record: &Record) {
        match record {
            Record::Promise { ballot, .. } => self.promise(*ballot),
            Record::Vote { slot, vote, .. } => self.vote(*slot, vote.ballot),
            Record::Truncated { truncated, .. } => self.truncate(*truncated),
            Record::Table { table, .. } => self.join(table),
        }
    }

    fn on_entry(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Promise(ballot) => self.promise(*ballot),
            Entry::Vote { slot, ballot, .. } => self.vote(*slot, *ballot),
            Entry::Truncated(truncated) => self.truncate(*truncated),
            Entry::Table(table) => self.join(table),
            // All of an earlier state is in a later one, unless it was dropped for good reason: a state
            // only adds.
            Entry::State(state) => {
                self.promise(state.promised);
                self.truncate(state.truncated);
                self.vote_watermark = self.vote_watermark.max(state.vote_watermark);
                if let Some(table) = &state.table {
                    self.join(table);
                }
            }
        }
    }
}

impl States {
    /// Blank states of `acceptors`.
    pub(crate) fn new(acceptors: impl Iterator<Item = AcceptorId>) -> Self {
        Self(acceptors.map(|acceptor| (acceptor, State::default())).collect())
    }

    /// Asserts that `record` takes nothing back: the pair of the acceptor's own assertions.
    pub(crate) fn check(&self, record: &Record) {
        let state = self.at(record.acceptor());
        let Some(State { promised, truncated, .. }) = state else { return };
        match record {
            Record::Promise { ballot, .. } => {
                assert!(ballot >= promised, "{ballot} is below the promise {promised}");
            }
            Record::Vote { slot, vote, .. } => {
                assert!(vote.ballot >= *promised, "{slot}: {} is below {promised}", vote.ballot);
                assert!(!truncated.covers(*slot), "{slot}: a vote below {truncated}");
            }
            Record::Truncated { truncated: to, .. } => {
                assert!(to >= truncated, "{to} is below {truncated}");
            }
            Record::Table { .. } => {}
        }
    }

    /// Takes in a record of one of these acceptors.
    pub(crate) fn on_record(&mut self, record: &Record) {
        let acceptor = record.acceptor();
        let state = self.at_mut(acceptor);
        state.unwrap_or_else(|| panic!("{acceptor:?} is not of this log")).on_record(record);
    }

    /// Takes in an entry that was read back; returns whether its acceptor is one of these.
    pub(crate) fn on_entry(&mut self, acceptor: AcceptorId, entry: &Entry<'_>) -> bool {
        self.at_mut(acceptor).map(|state| state.on_entry(entry)).is_some()
    }

    pub(crate) fn at(&self, acceptor: AcceptorId) -> Option<&State> {
        self.iter().find(|(id, _)| *id == acceptor).map(|(_, state)| state)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AcceptorId, &State)> {
        self.0.iter().map(|(acceptor, state)| (*acceptor, state))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no vote that these states know of is at or above what `later` ones say is truncated.
    ///
    /// source: R32
    pub(crate) fn are_truncated_by(&self, later: &Self) -> bool {
        self.iter().all(|(acceptor, state)| {
            let truncated = later.at(acceptor).map_or(Watermark(0), |state| state.truncated);
            state.vote_watermark.is_none_or(|slot| truncated.covers(slot))
        })
    }

    /// Whether `later` ones know at least as much.
    pub(crate) fn are_covered_by(&self, later: &Self) -> bool {
        self.iter().zip(later.iter()).all(|((_, this), (_, later))| {
            this.promised <= later.promised
                && this.truncated <= later.truncated
                && this.vote_watermark <= later.vote_watermark
        })
    }

    /// Becomes what `other` is, in the room it has: this is done at each write.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }

    fn at_mut(&mut self, acceptor: AcceptorId) -> Option<&mut State> {
        self.0.iter_mut().find(|(id, _)| *id == acceptor).map(|(_, state)| state)
    }
}
