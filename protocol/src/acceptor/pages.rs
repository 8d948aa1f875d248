//! Pages of past votes: promises, for phase 1, and replays, for replicas; from memory or from disk.

use super::Acceptor;
use super::ledger::Page;
use crate::{
    Cause, Outbox, P1a, P1b, PAGES_AHEAD, Recalled, Replay, ReplayPage, Replayed, Time, ToProposer,
    ToReplica,
};

impl Acceptor {
    /// Phase 1: promises to refuse every smaller ballot, and reports a page of past votes.
    ///
    /// The pages of one ballot agree with each other whenever they are asked for: after the promise
    /// no vote of a smaller ballot is added, and the proposer of this one has proposed nothing yet.
    /// What truncation takes away between two pages, `truncated` of the later one covers.
    ///
    /// source: R6, \[CP §2.1\]
    pub fn on_p1a(&mut self, p1a: P1a, now: Time, out: &mut Outbox) {
        if !self.is_member(out) {
            return;
        }
        if p1a.ballot < self.promised {
            return self.refuse(p1a.ballot, None, out);
        }
        if self.adopt(p1a.ballot, out) {
            self.hear(p1a.ballot.proposer, now); // a repeated P1a does not count as hearing a proposer (R28)
        }
        self.promise(p1a, None, out);
    }

    /// Answers a P1a of the ballot promised.
    pub(super) fn promise(&mut self, p1a: P1a, recalled: Option<&Recalled>, out: &mut Outbox) {
        if self.ledger.is_given(&Cause::P1a(p1a)) {
            return out.ignored("P1a: the page waits for its sync");
        }
        let page = match self.ledger.page(p1a.page.max(p1a.first), recalled) {
            Ok(page) => page,
            Err(range) => return self.ledger.recall(range, Cause::P1a(p1a), out),
        };
        assert_eq!(p1a.ballot, self.promised, "a page of a ballot that is not promised");
        assert!(
            page.from >= p1a.first,
            "a page from {} on for a P1a from {}",
            page.from,
            p1a.first
        );
        debug_assert!(
            page.votes.iter().all(|(_, vote)| vote.ballot <= self.promised),
            "a vote above the promise"
        );
        self.counters.promises += 1;
        let (acceptor, directory, ballot) = (self.id, self.directory, p1a.ballot);
        let truncated = self.ledger.truncated();
        let (from, to, votes) = (page.from, page.to, page.votes);
        let p1b = P1b { acceptor, directory, ballot, truncated, from, to, votes };
        out.hold_to_proposer(p1a.ballot.proposer, ToProposer::P1b(Box::new(p1b)));
        self.ledger.on_given(Cause::P1a(p1a));
    }

    /// Tells a replica what this acceptor has voted for: that much of what may have been chosen, in
    /// several pages.
    ///
    /// A vote that is told of counts as much as its P2b would: it waits for its sync like that.
    ///
    /// source: R15, R31
    pub fn on_replay(&mut self, replay: Replay, out: &mut Outbox) {
        let page = ReplayPage { replay, first: replay.first, left: PAGES_AHEAD - 1 };
        if !self.is_member(out) {
            return;
        }
        if self.ledger.is_given(&Cause::Replay(page)) {
            return out.ignored("Replay: a page for this replica waits for its sync");
        }
        self.replay(page, None, out);
    }

    /// Sends the pages that are left: those in memory at once, and of those on disk the next when
    /// the last is read.
    pub(super) fn replay(
        &mut self,
        next: ReplayPage,
        mut recalled: Option<&Recalled>,
        out: &mut Outbox,
    ) {
        let (replay, mut next) = (next.replay, Some(next));
        while let Some(page) = next {
            let found = match self.ledger.page(page.first, recalled.take()) {
                Ok(found) => found,
                Err(range) => return self.ledger.recall(range, Cause::Replay(page), out),
            };
            let (acceptor, directory) = (self.id, self.directory);
            let (truncated, Page { from, to, votes }) = (self.ledger.truncated(), found);
            let replayed = Replayed { acceptor, directory, truncated, from, to, votes };
            let replayed = Box::new(replayed);
            out.hold_to_replica(replay.replica, ToReplica::Replayed(replayed));
            self.ledger.on_given(Cause::Replay(page));
            next = to.zip(page.left.checked_sub(1)).map(|(to, left)| {
                let first = to.first_open();
                ReplayPage { replay, first, left }
            });
        }
    }

    /// Handles a message again that had to wait for votes on disk.
    ///
    /// A P1a counts only if its ballot is still the one promised; then no vote of a smaller one has
    /// been added since, so the page is what it would have been at once.
    ///
    /// source: R6, R10, R15
    pub fn on_recalled(&mut self, recalled: &Recalled, now: Time, out: &mut Outbox) {
        assert_eq!(recalled.recall.acceptor, self.id, "the votes of another acceptor");
        self.ledger.on_recalled(&recalled.recall.cause);
        match &recalled.recall.cause {
            Cause::P1a(p1a) if p1a.ballot < self.promised => self.refuse(p1a.ballot, None, out),
            Cause::P1a(p1a) => self.promise(*p1a, Some(recalled), out),
            Cause::P2a(p2a) => self.vote_for(p2a.clone(), Some(recalled), now, out),
            Cause::Replay(replay) => self.replay(*replay, Some(recalled), out),
        }
        self.ledger.let_go(); // only now: what waited there was newer than what the disk had
    }
}
