//! Phase 1: what earlier ballots may have got chosen.

use std::collections::BTreeMap;

use crate::{
    AcceptorId, AcceptorSet, Ballot, Incarnation, P1a, P1b, QuorumSystem, ReplicaId, Slot, Time,
    Value, Vote, Watermark,
};

/// A campaign under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Phase1 {
    pub(super) ballot: Ballot,
    /// The first slot of interest. Never changes within the ballot: acceptors that counted for one
    /// would not for another.
    first: Slot,
    /// How much of each acceptor's votes is known.
    coverage: Box<[Coverage]>,
    /// For each slot, the vote of the largest ballot reported so far.
    votes: BTreeMap<Slot, Vote>,
    /// The largest truncation reported.
    truncated: Watermark,
    /// When a page last brought something new.
    pub(super) progress_at: Time,
    /// For whom slots are proposed again that f+1 replicas have executed (R8).
    pub(super) rerun_for: Option<(ReplicaId, Incarnation)>,
}

/// How much of one acceptor's votes is known: everything from the campaign's first slot up to `next`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Coverage {
    next: Slot,
    is_whole: bool,
}

/// What phase 1 found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The slot that the values start at; everything below is left alone.
    pub(super) base: Slot,
    /// A value for each slot from `base` on: the vote of the highest ballot, or `None` for a hole.
    pub(super) values: Vec<Option<Value>>,
    /// The largest truncation reported.
    pub(super) truncated: Watermark,
    /// For whom it was done, if that can still be served (R8).
    pub(super) rerun_for: Option<(ReplicaId, Incarnation)>,
}

impl Phase1 {
    pub(super) fn new(
        ballot: Ballot,
        first: Slot,
        acceptors_count: u8,
        now: Time,
        rerun_for: Option<(ReplicaId, Incarnation)>,
    ) -> Self {
        let coverage = Coverage { next: first, is_whole: false };
        Self {
            ballot,
            first,
            coverage: vec![coverage; acceptors_count.into()].into(),
            votes: BTreeMap::new(),
            truncated: Watermark(0),
            progress_at: now,
            rerun_for,
        }
    }

    /// The P1a that asks `acceptor` for the page we miss next; `None` if we have them all.
    pub(super) fn p1a_for(&self, acceptor: AcceptorId) -> Option<P1a> {
        let coverage = self.coverage[usize::from(acceptor.0)];
        let p1a = P1a { ballot: self.ballot, first: self.first, page: coverage.next };
        (!coverage.is_whole).then_some(p1a)
    }

    /// Takes a page in; returns whether it brought something new.
    ///
    /// Pages are asked for one after the other, so a page that starts above what is covered has
    /// overtaken another, or is left from before a resend: it would leave a hole, and is ignored. A hole
    /// that truncation made is covered by `truncated`. Votes of acceptors that do not make it into the
    /// quorum are merged too: more reports can only raise the ballot that is found, and by induction over
    /// ballots any vote of a ballot above a chosen one's is for the chosen value.
    ///
    /// source: R6
    pub(super) fn on_page(&mut self, p1b: P1b, now: Time) -> bool {
        assert_eq!(p1b.ballot, self.ballot, "a page of another ballot");
        let coverage = &mut self.coverage[usize::from(p1b.acceptor.0)];
        self.truncated.raise(p1b.truncated);
        coverage.next = coverage.next.max(p1b.truncated.first_open());
        if coverage.is_whole || p1b.from > coverage.next {
            return false;
        }
        for (slot, vote) in p1b.votes {
            match self.votes.get_mut(&slot) {
                Some(best) if best.ballot >= vote.ballot => {}
                Some(best) => *best = vote,
                None => drop(self.votes.insert(slot, vote)),
            }
        }
        let is_new = match p1b.to {
            None => {
                coverage.is_whole = true;
                true
            }
            Some(to) => {
                let is_new = to.first_open() > coverage.next;
                coverage.next = coverage.next.max(to.first_open());
                is_new
            }
        };
        if is_new {
            self.progress_at = now;
        }
        is_new
    }

    /// Whether the acceptors known in full hold a read quorum.
    pub(super) fn is_whole(&self, quorums: QuorumSystem) -> bool {
        let whole = self.coverage.iter().zip(0..).filter(|(coverage, _)| coverage.is_whole);
        let whole: AcceptorSet = whole.map(|(_, acceptor)| AcceptorId(acceptor)).collect();
        quorums.is_read_quorum(whole)
    }

    /// What is to be proposed anew.
    ///
    /// Whatever was chosen at or above `base` has the votes of a write quorum, our read quorum meets it,
    /// and what they reported has been merged: so `values` holds it. A hole was not chosen and never will
    /// be in a smaller ballot, since a read quorum has promised. Below `base` everything was executed by
    /// f+1 replicas: nothing is filled there, since acceptors may have forgotten what it was.
    ///
    /// source: R7
    pub(super) fn finish(mut self) -> Recovered {
        let base = self.first.max(self.truncated.first_open());
        let next = self.votes.last_key_value().map_or(base, |(slot, _)| slot.next()).max(base);
        let values = (base.0..next.0)
            .map(|slot| self.votes.remove(&Slot(slot)).map(|vote| vote.value))
            .collect();
        let rerun_for = self.rerun_for.filter(|_| !self.truncated.covers(self.first));
        Recovered { base, values, truncated: self.truncated, rerun_for }
    }

    /// The first slot of interest.
    pub(super) fn first(&self) -> Slot {
        self.first
    }
}
