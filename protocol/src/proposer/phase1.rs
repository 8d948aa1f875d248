//! Phase 1: what earlier ballots may have got chosen.

use std::collections::BTreeMap;

use crate::{
    AcceptorId, AcceptorSet, Ballot, ClusterSettings, Event, Outbox, P1a, P1b, QuorumSystem, Slot,
    Stage, Time, ToAcceptor, Value, Vote, Watermark,
};

use super::ProposerTimer;
use super::heartbeats::Beat;
use super::next::{Asker, Campaign, Next};
use super::shared::Shared;

/// A campaign under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Phase1 {
    pub(super) ballot: Ballot,
    /// The first slot of interest. Never changes within the ballot: acceptors that counted for one
    /// would not for another.
    first: Slot,
    /// The number of slots that it takes in: as many as a reign has room for. If there are votes
    /// above, the reign is one over a part.
    slots_max: u32,
    /// How much of each acceptor's votes is known.
    coverage: Box<[Coverage]>,
    /// For each slot, the vote of the largest ballot reported so far.
    votes: BTreeMap<Slot, Vote>,
    /// The largest truncation reported.
    truncated: Watermark,
    /// The time when a page last brought something new.
    progress_at: Time,
    /// The replica for which slots are proposed again that f+1 replicas have executed (R8).
    pub(super) rerun_for: Option<Asker>,
}

/// How much of one acceptor's votes is known: everything from the campaign's first slot up to
/// `next`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Coverage {
    next: Slot,
    is_whole: bool,
}

/// The values that phase 1 found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The slot that the values start at; everything below is left alone.
    pub(super) base: Slot,
    /// A value for each slot from `base` on: the vote of the highest ballot, or `None` for a hole.
    pub(super) values: Vec<Option<Value>>,
    /// The largest truncation reported.
    pub(super) truncated: Watermark,
    /// The replica for which it was done, if that can still be served (R8).
    pub(super) rerun_for: Option<Asker>,
    /// Whether slots above these may have been voted in: then none is free.
    pub(super) is_part: bool,
}

impl Phase1 {
    pub(super) fn new(
        cluster: &ClusterSettings,
        ballot: Ballot,
        campaign: Campaign,
        now: Time,
    ) -> Self {
        let Campaign { first, rerun_for } = campaign;
        assert!(ballot.round > 0, "{ballot} is the ballot below all others");
        let coverage = Coverage { next: first, is_whole: false };
        Self {
            ballot,
            first,
            slots_max: cluster.open_slots_max(),
            coverage: vec![coverage; cluster.quorums.acceptors_count().into()].into(),
            votes: BTreeMap::new(),
            truncated: Watermark(0),
            progress_at: now,
            rerun_for,
        }
    }

    /// Takes in a page of a promise; the one that completes a read quorum ends phase 1.
    ///
    /// source: R4, R6, \[CP §2.1\]
    pub(super) fn on_p1b(
        &mut self,
        p1b: P1b,
        quorums: QuorumSystem,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        if p1b.ballot != self.ballot {
            out.ignored("P1b: of a campaign since abandoned");
            return Next::Stay;
        }
        let acceptor = p1b.acceptor;
        if !self.on_page(p1b, now) {
            out.ignored("P1b: a page that is known, or the one before it is not");
            return Next::Stay;
        }
        if self.is_done(quorums) {
            return Next::Lead;
        }
        if let Some(p1a) = self.p1a_for(acceptor) {
            out.tell_acceptor(acceptor, ToAcceptor::P1a(p1a));
        }
        Next::Stay
    }

    /// Asks again for the pages that it misses; gives up when nothing new has come for an election
    /// timeout: another may be luckier.
    ///
    /// Each time that was in vain, the next campaign waits twice as long: where syncs take longer
    /// than an election timeout, a promise comes later than that, and a campaign that never waits
    /// for it elects no leader.
    ///
    /// source: R5, R28
    pub(super) fn resend(&self, shared: &mut Shared, now: Time, out: &mut Outbox) -> Next {
        if now.since(self.progress_at) >= shared.grown(shared.cluster.election_timeout) {
            let ballot = self.ballot;
            out.event(Event::CampaignFailed { ballot });
            return Next::Fail;
        }
        self.ask(shared, now, out);
        Next::Stay
    }

    /// Asks each acceptor for the page that is missing, until a read quorum is known.
    ///
    /// source: R5
    pub(super) fn ask(&self, shared: &mut Shared, now: Time, out: &mut Outbox) {
        for acceptor in shared.cluster.quorums.acceptors().iter() {
            if let Some(p1a) = self.p1a_for(acceptor) {
                out.tell_acceptor(acceptor, ToAcceptor::P1a(p1a));
            }
        }
        shared.timers.set(ProposerTimer::Phase1, now + 2 * shared.cluster.resend_min);
    }

    /// Says that we campaign, and sets when to say so again.
    ///
    /// source: R28
    pub(super) fn heartbeat(&self, shared: &mut Shared, now: Time, out: &mut Outbox) {
        let (ballot, chosen) = (self.ballot, shared.executed());
        shared.say_heartbeat(
            Beat { ballot, stage: Stage::Campaigning, chosen, is_silent: false },
            out,
        );
        shared.timers.set(ProposerTimer::Heartbeat, now + shared.cluster.heartbeat_interval);
    }

    /// The P1a that asks `acceptor` for the page we miss next; `None` if we have them all.
    fn p1a_for(&self, acceptor: AcceptorId) -> Option<P1a> {
        let coverage = self.coverage[usize::from(acceptor.0)];
        assert!(coverage.next >= self.first, "a page below the first slot of {}", self.ballot);
        let p1a = P1a { ballot: self.ballot, first: self.first, page: coverage.next };
        (!self.is_covered(coverage)).then_some(p1a)
    }

    /// Takes a page in; returns whether it brought something new.
    ///
    /// Pages are asked for one after the other, so a page that starts above what is covered has
    /// overtaken another, or is left from before a resend: it would leave a hole, and is ignored. A
    /// hole that truncation made is covered by `truncated`. Votes of acceptors that do not make it
    /// into the quorum are merged too: more reports can only raise the ballot that is found, and by
    /// induction over ballots any vote of a ballot above a chosen one's is for the chosen value.
    ///
    /// Votes above the bound are left where they are: of these it only counts that there are some.
    ///
    /// source: R6, R29
    fn on_page(&mut self, p1b: P1b, now: Time) -> bool {
        assert_eq!(p1b.ballot, self.ballot, "a page of another ballot");
        self.truncated.raise(p1b.truncated);
        let bound = self.bound();
        let coverage = &mut self.coverage[usize::from(p1b.acceptor.0)];
        coverage.next = coverage.next.max(p1b.truncated.first_open());
        if coverage.is_whole || p1b.from > coverage.next {
            return false;
        }
        let mut to = p1b.to;
        for (slot, vote) in p1b.votes {
            if bound.covers(slot) {
                self.merge(slot, vote);
            } else {
                to = Some(bound);
            }
        }
        let coverage = &mut self.coverage[usize::from(p1b.acceptor.0)];
        let before = coverage.next;
        let is_new = match to {
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
        assert!(coverage.next >= before, "{:?} tells less than before", p1b.acceptor);
        if is_new {
            self.progress_at = now;
        }
        is_new
    }

    fn merge(&mut self, slot: Slot, vote: Vote) {
        match self.votes.get_mut(&slot) {
            Some(best) if best.ballot >= vote.ballot => {
                // Either may be chosen where a proposer has broken R2: no candidate may keep one.
                let is_alike = best.ballot > vote.ballot || best.value == vote.value;
                assert!(is_alike, "{slot}: two values were voted for in {}", vote.ballot);
            }
            Some(best) => *best = vote,
            None => drop(self.votes.insert(slot, vote)),
        }
    }

    /// Whether the acceptors known in full, or up to the bound, hold a read quorum.
    fn is_done(&self, quorums: QuorumSystem) -> bool {
        quorums.is_read_quorum(self.acceptors(|coverage| self.is_covered(coverage)))
    }

    /// The acceptors of which as much is known as `is_enough`.
    fn acceptors(&self, is_enough: impl Fn(Coverage) -> bool) -> AcceptorSet {
        let enough = self.coverage.iter().zip(0..).filter(|(coverage, _)| is_enough(**coverage));
        enough.map(|(_, acceptor)| AcceptorId(acceptor)).collect()
    }

    /// Whether all of an acceptor's votes that are taken in are known.
    fn is_covered(&self, coverage: Coverage) -> bool {
        coverage.is_whole || !self.bound().covers(coverage.next)
    }

    /// The first slot that is proposed anew, if any is.
    fn base(&self) -> Slot {
        self.first.max(self.truncated.first_open())
    }

    /// The bound of what is taken in. Never goes down.
    fn bound(&self) -> Watermark {
        Watermark(self.base().0.saturating_add(self.slots_max.into()))
    }

    /// Ends the campaign: returns the values to be proposed anew.
    ///
    /// Whatever was chosen at or above `base` has the votes of a write quorum, our read quorum
    /// meets it, and what they reported has been merged: so `values` holds it. A hole was not
    /// chosen and never will be in a smaller ballot, since a read quorum has promised. Below `base`
    /// everything was executed by f+1 replicas: nothing is filled there, since acceptors may have
    /// forgotten what it was.
    ///
    /// Above, it ends with the last vote, unless no read quorum is known to have none beyond the
    /// bound: then it ends with the bound, and nothing beyond is known, hence free.
    ///
    /// source: R7, R8
    pub(super) fn finish(mut self, quorums: QuorumSystem) -> Recovered {
        assert!(self.is_done(quorums), "no read quorum has told all of its votes");
        let base = self.base();
        let is_part = !quorums.is_read_quorum(self.acceptors(|coverage| coverage.is_whole));
        let next = match self.votes.last_key_value() {
            _ if is_part => self.bound().first_open(),
            Some((slot, _)) => slot.next().max(base),
            None => base,
        };
        assert!(next >= base && next <= self.bound().first_open(), "recovered up to {next}");
        let values = (base.0..next.0)
            .map(|slot| self.votes.remove(&Slot(slot)).map(|vote| vote.value))
            .collect();
        let rerun_for = self.rerun_for.filter(|_| !self.truncated.covers(self.first));
        Recovered { base, values, truncated: self.truncated, rerun_for, is_part }
    }

    /// The first slot of interest.
    pub(super) fn first(&self) -> Slot {
        self.first
    }
}
