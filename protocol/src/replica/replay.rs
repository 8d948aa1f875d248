//! Replay: what is chosen, from the votes of acceptors.
//!
//! ```text
//!            a0        a1        a2           a write quorum is any two
//!   s7     b2 x      b2 x      b1 x           chosen: a0 and a1 have voted for it in b2
//!   s8     b2 y      ·         b2 y           chosen
//!   s9     b3 z      b2 z      ·              not told: no two in one ballot. Phase 1 must find out
//! ```
//!
//! A slot is chosen if every member of one write quorum has voted for it in one ballot, whenever
//! each of them did. So pages may be of different moments, as long as each vote in them is durable.
//! Votes of two ballots do not add up, not even for the same value: the first may have been
//! overruled before the second was cast.
//!
//! With all nodes stopped and started again, this is how replicas come back. It costs the acceptors
//! reads and no writes, and leaves the leader out.
//!
//! source: R15

use std::collections::VecDeque;

use super::{Replica, ReplicaTimer};
use crate::{
    AcceptorId, AcceptorSet, Ballot, Chosen, Event, Outbox, PAGES_AHEAD, QuorumSystem, Replay,
    Replayed, Slot, StateMachine, Time, ToAcceptor, Value, Vote, Watermark,
};

/// The rounds in which acceptors are asked with nothing to show for it, before it is left to phase
/// 1.
const REPLAY_ROUNDS_MAX: u32 = 20;

/// The votes that each acceptor has told of.
#[derive(Clone, Debug)]
pub(super) struct Pages(Box<[Told]>);

/// The last pages of an acceptor, one behind the other.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The range that they cover; empty if there is none. Open-ended if the acceptor has no more.
    from: Slot,
    to: Option<Watermark>,
    is_there: bool,
    /// The votes in them that are still of use, in slot order.
    votes: VecDeque<(Slot, Vote)>,
    /// The first slot that it was last asked for.
    asked: Slot,
    /// How many of the pages that were asked for have not come.
    due: u32,
    /// Whether any page has come that was not behind a lost one, since the timer last looked.
    has_come: bool,
    /// Whether there may be more by now, if it had none above.
    is_stale: bool,
}

impl Pages {
    /// Returns no pages, of `acceptors_count` acceptors.
    pub(super) fn new(acceptors_count: u8) -> Self {
        Self((0..acceptors_count).map(|_| Told::default()).collect())
    }

    /// Takes a page in, if it continues the pages that are there, or covers `next`, the slot that
    /// is missing; then it takes their place.
    ///
    /// So of an acceptor there is one vote for a slot, the one told last.
    ///
    /// source: R15
    pub(super) fn on_page(&mut self, replayed: Replayed, next: Slot) {
        let Replayed { acceptor, from, to, votes, .. } = replayed;
        let Some(told) = self.0.get_mut(usize::from(acceptor.0)) else { return };
        let continues = told.is_there && told.to == Some(Watermark(from.0));
        if from > next && !continues {
            return; // the one before it is lost, or truncated: asked for again at once, it would come at once
        }
        told.has_come = true;
        if from >= told.asked {
            // One of an earlier request, which was taken for lost, does not stand for one of this.
            told.due = if to.is_none() { 0 } else { told.due.saturating_sub(1) };
        }
        if continues {
            told.votes.extend(votes);
        } else if to.is_none_or(|to| to.covers(next)) {
            (told.from, told.is_there, told.votes) = (from, true, votes.into());
        } else {
            return; // what it tells is executed meanwhile
        }
        (told.to, told.is_stale) = (to, false);
    }

    /// The first slot to ask `acceptor` for, if it is to be asked; counts it as asked.
    ///
    /// It is asked for more when all that it was asked for has come, and what it had told before
    /// that is used up: so while some of its pages are on their way, others are here, and never
    /// more than those of two requests.
    pub(super) fn ask(&mut self, acceptor: AcceptorId, next: Slot) -> Option<Slot> {
        let told = &mut self.0[usize::from(acceptor.0)];
        let first = match told.to {
            _ if told.due > 0 => return None,
            _ if !told.covers(next) => next,
            None if told.is_stale => next,
            Some(to) if next > told.asked => to.first_open(),
            None | Some(_) => return None,
        };
        (told.asked, told.due) = (first, PAGES_AHEAD);
        Some(first)
    }

    /// Gives up the pages that have not come, of acceptors of which nothing has since it was last
    /// called; and takes it that there may be more where there were none.
    pub(super) fn ask_again(&mut self) {
        for told in &mut self.0 {
            told.due = if told.has_come { told.due } else { 0 };
            (told.has_come, told.is_stale) = (false, true);
        }
    }

    /// What is chosen in `slot`, if the pages tell. Slots below are dropped: they are not asked for
    /// again.
    ///
    /// source: R1, R15
    pub(super) fn chosen(&mut self, slot: Slot, quorums: QuorumSystem) -> Option<(Ballot, Value)> {
        for told in &mut self.0 {
            while told.votes.front().is_some_and(|(at, _)| *at < slot) {
                told.votes.pop_front();
            }
        }
        let votes = || {
            let first = |told: &Told| told.votes.front().filter(|(at, _)| *at == slot).cloned();
            self.0
                .iter()
                .zip((0..).map(AcceptorId))
                .filter_map(move |(told, acceptor)| first(told).map(|(_, vote)| (acceptor, vote)))
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

impl Told {
    /// Whether it says what was voted for in `next`.
    fn covers(&self, next: Slot) -> bool {
        self.is_there && self.from <= next && self.to.is_none_or(|to| to.covers(next))
    }
}

impl<M: StateMachine> Replica<M> {
    /// Takes in what an acceptor has voted for, and executes what a write quorum has.
    ///
    /// source: R4, R15
    pub fn on_replayed(&mut self, replayed: Replayed, now: Time, out: &mut Outbox) {
        if !self.membership.names(replayed.acceptor, replayed.directory) {
            self.counters.foreign += 1;
            return out.event(Event::Forgotten { acceptor: replayed.acceptor });
        }
        let before = self.missing();
        if self.truncated.raise(replayed.truncated) {
            self.transfer_if_needed(now, out);
        }
        let Some(pages) = &mut self.replay else {
            return out.ignored("Replayed: no replay is under way");
        };
        pages.on_page(replayed, before);
        loop {
            let slot = self.missing();
            let has_room = self.has_room_for(slot);
            let Some(pages) = self.replay.as_mut().filter(|_| has_room) else { break };
            let Some((ballot, value)) = pages.chosen(slot, self.cluster.quorums) else { break };
            self.counters.replayed += 1;
            self.on_chosen(Chosen { slot, ballot, value }, now, out);
        }
        if self.missing() > before {
            self.replay_rounds = 0;
        }
        self.say_replay(out);
    }

    /// Asks all acceptors for what they have voted for, unless that is under way.
    ///
    /// source: R15
    pub(super) fn start_replay(&mut self, now: Time, out: &mut Outbox) {
        if self.replay.is_none() {
            self.replay = Some(Pages::new(self.cluster.quorums.acceptors_count()));
            self.replay_rounds = 0;
            self.say_replay(out);
            self.timers.set(ReplicaTimer::Replay, now + 2 * self.cluster.resend_min);
        }
    }

    /// Asks those acceptors again that have not answered, or stops, when they have nothing more for
    /// us.
    pub(super) fn go_on_replaying(&mut self, now: Time, out: &mut Outbox) {
        self.replay_rounds += 1;
        if self.replay_rounds > REPLAY_ROUNDS_MAX {
            return self.stop_replay();
        }
        if let Some(pages) = &mut self.replay {
            pages.ask_again();
        }
        self.say_replay(out);
        self.timers.set(ReplicaTimer::Replay, now + 2 * self.cluster.resend_min);
    }

    pub(super) fn stop_replay(&mut self) {
        self.replay = None;
        self.timers.stop(ReplicaTimer::Replay);
    }

    /// Asks acceptors for the pages that are wanted of them.
    pub(super) fn say_replay(&mut self, out: &mut Outbox) {
        let next = self.missing();
        let has_room = self.has_room_for(next);
        let Some(pages) = self.replay.as_mut().filter(|_| has_room) else { return };
        for acceptor in self.cluster.quorums.acceptors().iter() {
            if let Some(first) = pages.ask(acceptor, next) {
                let replay = Replay { replica: self.id, first };
                out.tell_acceptor(acceptor, ToAcceptor::Replay(replay));
            }
        }
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
            truncated: Watermark(0),
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
            pages.on_page(of(acceptor, vote), Slot(7));
            assert_eq!(pages.chosen(Slot(7), quorums), None, "no row has voted in one ballot");
        }
        pages.on_page(of(1, vote(2, 5)), Slot(7));
        assert_eq!(stamp(pages.chosen(Slot(7), quorums)), Some(5));
        assert_eq!(pages.chosen(Slot(8), quorums), None);
    }

    #[test]
    fn a_page_that_does_not_cover_the_missing_slot_is_ignored() {
        let mut pages = Pages::new(3);
        let covers = |pages: &Pages, next| pages.0[0].covers(Slot(next));
        pages.on_page(page(0, 8, None, &[]), Slot(7));
        assert!(!covers(&pages, 7), "it starts above");
        pages.on_page(page(0, 3, Some(7), &[]), Slot(7));
        assert!(!covers(&pages, 7), "it ends below");
        pages.on_page(page(9, 0, None, &[]), Slot(7));
        assert!(!covers(&pages, 7), "of no acceptor");
        pages.on_page(page(0, 3, Some(8), &[]), Slot(7));
        assert!(covers(&pages, 7) && !covers(&pages, 8));
    }

    #[test]
    fn r15_pages_that_follow_each_other_are_one() {
        let quorums = QuorumSystem::majority(1).unwrap();
        let mut pages = Pages::new(3);
        let of = |acceptor, from, to| page(acceptor, from, to, &[(from, vote(1, from))]);
        for from in 0..3 {
            pages.on_page(of(0, from, Some(from + 1)), Slot(0));
        }
        pages.on_page(of(0, 4, Some(5)), Slot(0)); // the one before is lost
        pages.on_page(of(1, 0, Some(1)), Slot(0));
        assert_eq!(stamp(pages.chosen(Slot(0), quorums)), Some(0));
        assert_eq!(pages.chosen(Slot(1), quorums), None, "a quorum has told of the first only");
        pages.on_page(of(1, 1, Some(2)), Slot(1));
        pages.on_page(of(1, 2, Some(3)), Slot(1));
        assert_eq!([1, 2].map(|at| stamp(pages.chosen(Slot(at), quorums))), [Some(1), Some(2)]);
        assert!(!pages.0[0].covers(Slot(3)));
    }

    #[test]
    fn pages_are_asked_for_ahead_and_never_more_than_of_two_requests() {
        let mut pages = Pages::new(1);
        let ask = |pages: &mut Pages, next| pages.ask(AcceptorId(0), Slot(next)).map(|at| at.0);
        assert_eq!(ask(&mut pages, 0), Some(0));
        for from in [0, 10, 20] {
            pages.on_page(page(0, from, Some(from + 10), &[]), Slot(0));
            assert_eq!(ask(&mut pages, 5), None, "a page is on its way");
        }
        pages.on_page(page(0, 30, Some(40), &[]), Slot(0));
        assert_eq!(ask(&mut pages, 5), Some(40), "it is used");
        (4..8).for_each(|i| pages.on_page(page(0, i * 10, Some(i * 10 + 10), &[]), Slot(5)));
        assert_eq!(ask(&mut pages, 40), None, "there are enough");
        assert_eq!(ask(&mut pages, 41), Some(80));
        pages.on_page(page(0, 90, Some(100), &[]), Slot(80));
        assert_eq!(ask(&mut pages, 80), None, "one was lost, or overtaken");
        pages.ask_again();
        assert_eq!(ask(&mut pages, 80), None, "others have come: it may be slow");
        pages.ask_again();
        assert_eq!(ask(&mut pages, 80), Some(80));
        (4..8).for_each(|i| pages.on_page(page(0, i * 10, Some(i * 10 + 10), &[]), Slot(80)));
        assert_eq!(ask(&mut pages, 80), None, "pages of an earlier request are none of this one");
        pages.on_page(page(0, 80, None, &[]), Slot(80));
        assert_eq!(ask(&mut pages, 85), None, "that is all there is");
        pages.ask_again();
        assert_eq!(ask(&mut pages, 85), Some(85), "there may be more by now");
    }
}
