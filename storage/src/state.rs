//! What the log knows of each acceptor, but for its votes: what segments open with.

use loggos_protocol::{AcceptorId, AcceptorState, Record, Watermark};

use crate::LogEntry;

/// The states of all acceptors that share a log, in the order of their ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct States(Vec<(AcceptorId, AcceptorState)>);

impl States {
    /// Blank states of `acceptors`.
    pub(crate) fn new(acceptors: impl Iterator<Item = AcceptorId>) -> Self {
        Self(acceptors.map(|acceptor| (acceptor, AcceptorState::default())).collect())
    }

    /// Asserts that `record` takes nothing back: the pair of the acceptor's own assertions.
    pub(crate) fn check(&self, record: &Record) {
        let state = self.at(record.acceptor());
        let Some(AcceptorState { promised, truncated, vote_watermark, .. }) = state else { return };
        match record {
            Record::Promise { ballot, .. } => {
                assert!(ballot >= promised, "{ballot} is below the promise {promised}");
            }
            Record::Vote { slot, vote, .. } => {
                assert!(vote.ballot >= *promised, "{slot}: {} is below {promised}", vote.ballot);
                assert!(!truncated.covers(*slot), "{slot}: a vote below {truncated}");
            }
            Record::Revote { slot, ballot, .. } => {
                assert!(ballot >= promised, "{slot}: {ballot} is below {promised}");
                assert!(!truncated.covers(*slot), "{slot}: a vote below {truncated}");
                assert!(Some(*slot) <= *vote_watermark, "{slot}: a vote again, before the first");
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
    pub(crate) fn on_entry(&mut self, acceptor: AcceptorId, entry: &LogEntry<'_>) -> bool {
        self.at_mut(acceptor).map(|state| on_entry(state, entry)).is_some()
    }

    pub(crate) fn at(&self, acceptor: AcceptorId) -> Option<&AcceptorState> {
        self.iter().find(|(id, _)| *id == acceptor).map(|(_, state)| state)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (AcceptorId, &AcceptorState)> {
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

    fn at_mut(&mut self, acceptor: AcceptorId) -> Option<&mut AcceptorState> {
        self.0.iter_mut().find(|(id, _)| *id == acceptor).map(|(_, state)| state)
    }
}

fn on_entry(state: &mut AcceptorState, entry: &LogEntry<'_>) {
    match entry {
        LogEntry::Promise(ballot) => state.promise(*ballot),
        LogEntry::Vote { slot, ballot, .. } | LogEntry::Revote { slot, ballot } => {
            state.vote(*slot, *ballot);
        }
        LogEntry::Truncated(truncated) => state.truncate(*truncated),
        LogEntry::Table(table) => state.join(table),
        // All of an earlier state is in a later one, unless it was dropped for good reason: a state
        // only adds.
        LogEntry::State(earlier) => state.add(earlier),
    }
}
