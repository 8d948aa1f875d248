//! Replay: what is chosen, from the votes of acceptors.
//!
//! ```text
//!            a0        a1        a2           a write quorum is any two
//!   s7     b2 x      b2 x      b1 x           chosen: a0 and a1 have voted for it in b2
//!   s8     b2 y      ·         b2 y           chosen
//!   s9     b3 z      b2 z      ·              not told: no two in one ballot. Phase 1 must find out
//! ```
//!
//! A slot is chosen if every member of one write quorum has voted for it in one ballot, whenever each of them
//! did. So pages may be of different moments, as long as each vote in them is durable. Votes of two ballots do
//! not add up, not even for the same value: the first may have been overruled before the second was cast.
//!
//! With everybody stopped and started again, this is how replicas come back. It costs the acceptors reads and
//! no writes, and leaves the leader out.
//!
//! source: R15

use std::collections::VecDeque;

use crate::{
    AcceptorId, AcceptorSet, Ballot, QuorumSystem, Replayed, Slot, Value, Vote, Watermark,
};

/// The last page of each acceptor.
#[derive(Clone, Debug)]
pub(super) struct Pages(Box<[Page]>);

#[derive(Clone, Debug, Default)]
struct Page {
    /// The range that it covers; empty if there is none. Open-ended if its acceptor has no more.
    from: Slot,
    to: Option<Watermark>,
    is_there: bool,
    /// The votes in it that are still of use, in slot order.
    votes: VecDeque<(Slot, Vote)>,
}

impl Pages {
    /// Returns no pages, of `acceptors_count` acceptors.
    pub(super) fn new(acceptors_count: u8) -> Self {
        Self((0..acceptors_count).map(|_| Page::default()).collect())
    }

    /// Takes a page in, if it covers `next`, the slot that is missing; returns whether it did.
    ///
    /// An acceptor has one page, the last one: a slot is decided from one vote of each.
    pub(super) fn on_page(&mut self, replayed: Replayed, next: Slot) -> bool {
        let Replayed { acceptor, from, to, votes, .. } = replayed;
        let Some(page) = self.0.get_mut(usize::from(acceptor.0)) else { return false };
        if from > next || to.is_some_and(|to| !to.covers(next)) {
            return false;
        }
        *page = Page { from, to, is_there: true, votes: votes.into() };
        true
    }

    /// Whether the page of `acceptor` says what it has voted for in `next`.
    pub(super) fn covers(&self, acceptor: AcceptorId, next: Slot) -> bool {
        let page = &self.0[usize::from(acceptor.0)];
        page.is_there && page.from <= next && page.to.is_none_or(|to| to.covers(next))
    }

    /// Whether the page of `acceptor` was the last one there was.
    pub(super) fn is_last(&self, acceptor: AcceptorId) -> bool {
        self.0[usize::from(acceptor.0)].to.is_none()
    }

    /// What is chosen in `slot`, if the pages tell. Slots below are dropped: they are not asked for again.
    ///
    /// source: R1, R15
    pub(super) fn chosen(&mut self, slot: Slot, quorums: QuorumSystem) -> Option<(Ballot, Value)> {
        for page in &mut self.0 {
            while page.votes.front().is_some_and(|(at, _)| *at < slot) {
                page.votes.pop_front();
            }
        }
        let votes = || {
            let first = |page: &Page| page.votes.front().filter(|(at, _)| *at == slot).cloned();
            self.0
                .iter()
                .zip((0..).map(AcceptorId))
                .filter_map(move |(page, acceptor)| first(page).map(|(_, vote)| (acceptor, vote)))
        };
        votes().find_map(|(_, vote)| {
            let alike = votes().filter(|(_, other)| other.ballot == vote.ballot);
            let voters: AcceptorSet = alike
                .map(|(acceptor, other)| {
                    assert!(other.value == vote.value, "{slot}: two values in {}", vote.ballot);
                    acceptor
                })
                .collect();
            quorums.is_write_quorum(voters).then_some((vote.ballot, vote.value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DirectoryId, Incarnation, ProposerId, Time};

    fn vote(round: u64, stamp: u64) -> Vote {
        let ballot = Ballot { round, proposer: ProposerId(0), incarnation: Incarnation(1) };
        Vote { ballot, value: Value::noop(Time(stamp)) }
    }

    fn page(acceptor: u8, from: u64, to: Option<u64>, votes: &[(u64, Vote)]) -> Replayed {
        Replayed {
            acceptor: AcceptorId(acceptor),
            directory: DirectoryId(0),
            from: Slot(from),
            to: to.map(Watermark),
            votes: votes.iter().map(|(slot, vote)| (Slot(*slot), vote.clone())).collect(),
        }
    }

    fn stamp(chosen: Option<(Ballot, Value)>) -> Option<u64> {
        chosen.map(|(_, value)| value.stamp.0)
    }

    #[test]
    fn r15_one_write_quorum_in_one_ballot_or_nothing() {
        let quorums = QuorumSystem::grid(2, 2, 1).unwrap(); // rows {0, 1} and {2, 3} are write quorums
        let mut pages = Pages::new(4);
        let of = |acceptor, vote: Vote| page(acceptor, 7, None, &[(7, vote)]);
        for (acceptor, vote) in [(0, vote(2, 5)), (2, vote(2, 5)), (3, vote(3, 5))] {
            assert!(pages.on_page(of(acceptor, vote), Slot(7)));
            assert_eq!(pages.chosen(Slot(7), quorums), None, "no row has voted in one ballot");
        }
        assert!(pages.on_page(of(1, vote(2, 5)), Slot(7)));
        assert_eq!(stamp(pages.chosen(Slot(7), quorums)), Some(5));
        assert_eq!(pages.chosen(Slot(8), quorums), None);
    }

    #[test]
    fn a_page_that_does_not_cover_the_missing_slot_is_ignored() {
        let mut pages = Pages::new(3);
        assert!(!pages.on_page(page(0, 8, None, &[]), Slot(7)), "it starts above");
        assert!(!pages.on_page(page(0, 3, Some(7), &[]), Slot(7)), "it ends below");
        assert!(!pages.on_page(page(9, 0, None, &[]), Slot(7)), "of nobody");
        assert!(!pages.covers(AcceptorId(0), Slot(7)));
        assert!(pages.on_page(page(0, 3, Some(8), &[]), Slot(7)));
        assert!(pages.covers(AcceptorId(0), Slot(7)) && !pages.covers(AcceptorId(0), Slot(8)));
    }
}
