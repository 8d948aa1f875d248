//! The ledger: which votes an acceptor has, and where.
//!
//! ```text
//!   0          truncated              held_from                  held_from + ring
//!   │ forgotten     │  on disk only        │  in the ring, and        │  refused
//!   │               │  (durable acceptors) │  soon or already on disk │
//! ```
//!
//! An acceptor in memory has nothing between the first two: what it lets go, it forgets. A durable
//! one forgets nothing but what is truncated. What it lets go is on disk, synced, and is asked for
//! when another role wants to know: a *recall*, answered by the driver when the disk has.
//!
//! Between asking and answering, the ledger goes on. Could an answer be out of date? A vote below
//! `held_from` may be replaced meanwhile, by one of a larger ballot. The new one waits in `pending`
//! until it is synced and no recall is under way that might have read before; and every look-up of
//! a slot looks there first. So what a lookup tells is always the last vote.
//!
//! source: R10, R16, R31

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    AcceptorId, Cause, ClusterSettings, Outbox, Payload, ProposerId, Recall, Recalled, Record,
    ReplicaId, Slot, Vote, Watermark, Window,
};

/// An acceptor's votes.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Ledger {
    acceptor: AcceptorId,
    page_slots_max: u32,
    page_bytes_max: u32,
    /// Everything below is chosen and kept by others, and forgotten here. Never goes down.
    truncated: Watermark,
    /// Votes from here on are in `ring`. Never goes down.
    held_from: Watermark,
    ring: Window<HeldVote>,
    /// Votes below `held_from`, until they are synced and no recall could miss them.
    pending: BTreeMap<Slot, HeldVote>,
    /// The largest slot ever voted in; at least the last one truncated. Never goes down (R18).
    vote_watermark: Option<Slot>,
    /// `None` for an acceptor in memory.
    journal: Option<Journal>,
}

/// The log of a durable acceptor, as far as it knows.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct Journal {
    /// Records written down in this life.
    recorded: u64,
    /// The number of them that are synced.
    durable: u64,
    /// Everything below is executed by f+1 replicas: of no use in memory.
    executed: Watermark,
    /// Recalls that have no answer yet.
    recalls: u32,
    /// The roles that wait for a page that is being read.
    askers: BTreeSet<PageAsker>,
    /// The last page that each of them was given, and with how many records durable it leaves.
    given: BTreeMap<PageAsker, (Cause, u64)>,
}

/// A role that asks for pages, one at a time.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum PageAsker {
    Proposer(ProposerId),
    Replica(ReplicaId),
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct HeldVote {
    vote: Vote,
    /// The number of records that had been written down, with this one.
    recorded: u64,
}

/// The place of a slot's vote.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lookup<'a> {
    /// In memory, or nowhere.
    Here(Option<&'a Vote>),
    /// On disk, or nowhere: that takes a recall.
    OnDisk,
    /// Nowhere, and there is no place for it.
    AboveWindow,
}

/// Every vote in a range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Page {
    pub(super) from: Slot,
    /// `None` if there is no vote above.
    pub(super) to: Option<Watermark>,
    pub(super) votes: Vec<(Slot, Vote)>,
}

impl PageAsker {
    fn of(cause: &Cause) -> Option<Self> {
        match cause {
            Cause::P1a(p1a) => Some(Self::Proposer(p1a.ballot.proposer)),
            Cause::Replay(page) => Some(Self::Replica(page.replay.replica)),
            Cause::P2a(_) => None,
        }
    }
}

impl Ledger {
    /// Returns the ledger of an acceptor in memory that has never voted.
    pub(super) fn new(cluster: &ClusterSettings, acceptor: AcceptorId) -> Self {
        Self {
            acceptor,
            page_slots_max: cluster.page_slots_max,
            page_bytes_max: cluster.page_bytes_max,
            truncated: Watermark(0),
            held_from: Watermark(0),
            ring: Window::new(cluster.ring_slots()),
            pending: BTreeMap::new(),
            vote_watermark: None,
            journal: None,
        }
    }

    /// Returns the ledger of a durable acceptor, of which everything is on disk.
    pub(super) fn restore(
        cluster: &ClusterSettings,
        acceptor: AcceptorId,
        truncated: Watermark,
        vote_watermark: Option<Slot>,
    ) -> Self {
        let journal = Some(Journal::default());
        let blank = Self::new(cluster, acceptor);
        let held_from = vote_watermark.map_or(Watermark(0), Slot::watermark_after);
        Self { truncated, held_from, vote_watermark, journal, ..blank }
    }

    /// Starts a log at `start`: all below is forgotten, and was never voted for here. Its record is
    /// that of the table.
    ///
    /// source: R4
    pub(super) fn start_at(&mut self, start: Watermark) {
        assert!(self.vote_watermark.is_none(), "a log that has votes starts at {start}");
        self.truncated.raise(start);
        self.held_from.raise(start);
        self.vote_watermark = start.0.checked_sub(1).map(Slot);
    }

    pub(super) fn truncated(&self) -> Watermark {
        self.truncated
    }

    /// Above every slot ever voted in, or truncated.
    ///
    /// source: R18
    pub(super) fn vote_watermark(&self) -> Option<Slot> {
        self.vote_watermark
    }

    /// Likewise, as a bound.
    pub(super) fn votes_end(&self) -> Watermark {
        self.vote_watermark.map_or(Watermark(0), Slot::watermark_after)
    }

    pub(super) fn recorded(&self) -> u64 {
        self.journal.as_ref().map_or(0, |journal| journal.recorded)
    }

    /// The place of the vote in `slot`, which is not truncated.
    pub(super) fn place(&self, slot: Slot) -> Lookup<'_> {
        assert!(!self.truncated.covers(slot), "{slot} is truncated");
        if self.held_from.covers(slot) {
            let pending = self.pending.get(&slot);
            return pending.map_or(Lookup::OnDisk, |entry| Lookup::Here(Some(&entry.vote)));
        }
        if slot.0 - self.held_from.0 >= self.ring.capacity() {
            return Lookup::AboveWindow;
        }
        Lookup::Here(self.ring.at(slot).map(|entry| &entry.vote))
    }

    /// Has `record` written down, by a durable acceptor; the others have nowhere to write.
    pub(super) fn record(&mut self, record: impl FnOnce() -> Record, out: &mut Outbox) {
        if let Some(journal) = &mut self.journal {
            journal.recorded += 1;
            out.records.push(record());
        }
    }

    /// Puts a vote in, in place of an earlier one. If the earlier one `has_value`, the same as
    /// this, only the ballot is written down.
    ///
    /// Could the value be missing, when the vote is read back? Its record is before this one in the
    /// log, and so durable first; and it is of the same slot, so whatever lets it go lets this vote
    /// go as well.
    ///
    /// source: R31, R32
    pub(super) fn insert(&mut self, slot: Slot, vote: Vote, has_value: bool, out: &mut Outbox) {
        let (acceptor, ballot) = (self.acceptor, vote.ballot);
        match has_value {
            true => self.record(|| Record::Revote { acceptor, slot, ballot }, out),
            false => self.record(|| Record::Vote { acceptor, slot, vote: vote.clone() }, out),
        }
        debug_assert!(!self.truncated.covers(slot), "{slot} is truncated");
        let entry = HeldVote { vote, recorded: self.recorded() };
        if self.held_from.covers(slot) {
            assert!(self.journal.is_some(), "{slot}: a vote that is on no disk was let go");
            self.pending.insert(slot, entry);
        } else {
            let is_near = slot.0 - self.held_from.0 < self.ring.capacity();
            assert!(is_near, "{slot} would displace a vote from {} on", self.held_from);
            self.ring.insert(slot, entry);
        }
        self.vote_watermark = self.vote_watermark.max(Some(slot));
    }

    /// Asks the driver for votes on disk, unless it has been asked for a ring's worth already: a
    /// role that wants them asks again. A leader that proposes old slots anew (R8) does so by the
    /// window.
    pub(super) fn recall(&mut self, range: (Slot, Watermark), cause: Cause, out: &mut Outbox) {
        let journal = self.journal.as_mut().expect("only a durable acceptor has votes on disk");
        let most = self.ring.capacity();
        let has_room = u64::from(journal.recalls) < most && (self.pending.len() as u64) < most;
        // Asking again for a page that is on its way would only keep it back.
        let is_new =
            has_room && PageAsker::of(&cause).is_none_or(|asker| journal.askers.insert(asker));
        if is_new {
            journal.recalls += 1;
            let (from, to) = range;
            assert!(to.covers(from), "a recall of nothing");
            assert!(to <= self.held_from, "a recall of what is in memory: to {to}");
            assert!(!self.truncated.covers(from), "a recall of what is truncated: from {from}");
            out.recalls.push(Recall { acceptor: self.acceptor, from, to, cause });
        }
    }

    /// Whether the answer to `cause` waits for a sync already, or that to another request of the
    /// same replica: the next one would have to wait as long, and a disk that hangs would fill
    /// memory with pages. Of a proposer's pages each waits by itself, for it asks for the next when
    /// it has one; those of another ballot are others.
    pub(super) fn is_given(&self, cause: &Cause) -> bool {
        let Some(journal) = &self.journal else { return false };
        let given = PageAsker::of(cause).and_then(|asker| journal.given.get(&asker));
        let is_for_replica = matches!(cause, Cause::Replay(_));
        given.is_some_and(|(given, recorded)| {
            (given == cause || is_for_replica) && *recorded > journal.durable
        })
    }

    /// Takes in that `cause` has been answered.
    ///
    /// source: R15
    pub(super) fn on_given(&mut self, cause: Cause) {
        if let (Some(journal), Some(asker)) = (&mut self.journal, PageAsker::of(&cause)) {
            journal.given.insert(asker, (cause, journal.recorded));
        }
    }

    /// Takes in that a recall has its answer.
    ///
    /// source: R10, R15
    pub(super) fn on_recalled(&mut self, cause: &Cause) {
        let journal = self.journal.as_mut().expect("only a durable acceptor recalls");
        assert!(journal.recalls > 0, "an answer to no recall");
        journal.recalls -= 1;
        if let Some(asker) = PageAsker::of(cause) {
            assert!(journal.askers.remove(&asker), "a page that was not asked for");
        }
    }

    /// Takes in how many records are synced: what is, need not be in memory.
    ///
    /// source: R31
    pub(super) fn on_durable(&mut self, records: u64) {
        let journal = self.journal.as_mut().expect("only a durable acceptor has a log");
        assert!(records <= journal.recorded, "more is durable than was written");
        journal.durable = journal.durable.max(records);
        self.let_go();
        assert!(self.truncated <= self.held_from, "let go of less than is truncated");
    }

    /// Takes in what f+1 replicas have executed. In memory that is forgotten (R16); a durable
    /// acceptor only lets go of it, once it is synced.
    ///
    /// source: R10, R16
    pub(super) fn on_executed(&mut self, executed: Watermark) {
        match &mut self.journal {
            Some(journal) => {
                journal.executed.raise(executed);
                self.let_go();
            }
            None => _ = self.forget(executed),
        }
    }

    /// Takes in what is kept in durable snapshots: a durable acceptor forgets it, and has that
    /// written down, so that its log can be used again. One in memory does not wait for snapshots.
    ///
    /// Nothing waits for the record: if it is lost in a crash, the acceptor comes back with votes
    /// that are not needed, and forgets them again.
    ///
    /// source: R16, R32
    pub(super) fn on_snapshot(&mut self, snapshot: Watermark, out: &mut Outbox) {
        if self.journal.is_some() && self.forget(snapshot) {
            let (acceptor, truncated) = (self.acceptor, self.truncated);
            self.record(|| Record::Truncated { acceptor, truncated }, out);
        }
    }

    /// Forgets every vote below `truncated`; returns whether that is news.
    fn forget(&mut self, truncated: Watermark) -> bool {
        if !self.truncated.raise(truncated) {
            return false;
        }
        if self.held_from < truncated {
            self.ring.remove_range(self.held_from, truncated);
            self.held_from = truncated;
        }
        if !self.pending.is_empty() {
            self.pending = self.pending.split_off(&truncated.first_open());
        }
        let last = truncated.0.checked_sub(1).map(Slot);
        self.vote_watermark = self.vote_watermark.max(last);
        assert!(truncated <= self.votes_end(), "truncated above the last vote");
        true
    }

    /// Collects votes from `first` on, until the page is full or there are no more. What is on disk
    /// is asked for, or taken from `recalled`: those come in pages of their own.
    ///
    /// # Errors
    ///
    /// The range to recall first.
    pub(super) fn page(
        &self,
        first: Slot,
        recalled: Option<&Recalled>,
    ) -> Result<Page, (Slot, Watermark)> {
        let from = first.max(self.truncated.first_open());
        let end = self.votes_end();
        if self.held_from.covers(from) && end.covers(from) {
            let recalled = recalled.filter(|it| it.recall.from <= from && it.covered.covers(from));
            return match recalled {
                Some(recalled) => Ok(self.page_on_disk(from, end, recalled)),
                None => {
                    let to = from.0.saturating_add(self.page_slots_max.into());
                    Err((from, Watermark(to).min(self.held_from).min(end)))
                }
            };
        }
        let (mut votes, mut bytes, mut to) = (Vec::new(), 0, None);
        for slot in (from.0..end.0).map(Slot) {
            if slot.0 - from.0 >= u64::from(self.page_slots_max)
                || bytes >= self.page_bytes_max as usize
            {
                to = Some(Watermark(slot.0));
                break;
            }
            if let Some(HeldVote { vote, .. }) = self.ring.at(slot) {
                bytes += vote.value.batch().map_or(0, |batch| Payload::len(&batch.block));
                votes.push((slot, vote.clone()));
            }
        }
        assert!(to.is_none_or(|to| to.covers(from)), "a page of nothing at {from}");
        Ok(Page { from, to, votes })
    }

    fn page_on_disk(&self, from: Slot, end: Watermark, recalled: &Recalled) -> Page {
        let to = recalled.covered;
        assert!(to.covers(from) && to <= self.held_from, "a page from disk of {from} to {to}");
        let votes = recalled.votes.iter().filter(|(slot, _)| *slot >= from);
        let mut votes: BTreeMap<Slot, &Vote> = votes.map(|(slot, vote)| (*slot, vote)).collect();
        for (slot, entry) in self.pending.range(from..to.first_open()) {
            votes.insert(*slot, &entry.vote); // newer than what the disk had
        }
        let votes = votes.into_iter().map(|(slot, vote)| (slot, vote.clone())).collect();
        Page { from, to: Some(to).filter(|to| *to < end), votes }
    }

    /// The vote in `slot`, if it is in memory.
    pub(super) fn vote(&self, slot: Slot) -> Option<&Vote> {
        let entry = self.ring.at(slot).or_else(|| self.pending.get(&slot));
        entry.map(|entry| &entry.vote)
    }

    /// Asserts what must hold between any two messages.
    pub(super) fn validate(&self, is_promised: impl Fn(&Vote) -> bool) {
        for (slot, entry) in self.ring.iter() {
            assert!(!self.held_from.covers(slot), "{slot} is held below {}", self.held_from);
            assert!(slot.0 - self.held_from.0 < self.ring.capacity(), "{slot} is beyond the ring");
            assert!(is_promised(&entry.vote), "{slot}: voted above the promise");
            assert!(Some(slot) <= self.vote_watermark, "{slot} is above the last vote");
        }
        for (slot, entry) in &self.pending {
            assert!(is_promised(&entry.vote), "{slot}: voted above the promise");
            assert!(Some(*slot) <= self.vote_watermark, "{slot} is above the last vote");
        }
        let pending_max = 2 * self.ring.capacity();
        assert!(self.pending.len() as u64 <= pending_max, "{} votes wait", self.pending.len());
        let are_below = self.pending.keys().all(|slot| self.held_from.covers(*slot));
        assert!(are_below, "what is in the ring waits besides");
        assert!(self.truncated <= self.held_from, "held what is truncated");
        assert!(self.truncated <= self.votes_end(), "the last vote is below what is truncated");
        let is_forgetful = self.journal.is_none();
        assert!(!is_forgetful || self.truncated == self.held_from, "let go of what is on no disk");
    }

    /// Raises `held_from` as far as memory is of no use, and nothing is only there.
    ///
    /// source: R10, "no vote is dropped from memory that is neither truncated nor synced on disk"
    pub(super) fn let_go(&mut self) {
        let Some(journal) = &self.journal else { return };
        while self.held_from < journal.executed {
            let slot = self.held_from.first_open();
            if self.vote_watermark < Some(slot) {
                self.held_from = journal.executed; // the ring is empty
                break;
            }
            if self.ring.at(slot).is_some_and(|entry| entry.recorded > journal.durable) {
                break;
            }
            assert!(!self.held_from.covers(slot), "{slot} was let go before");
            self.ring.remove(slot);
            self.held_from = slot.watermark_after();
        }
        if journal.recalls == 0 {
            self.pending.retain(|_, entry| entry.recorded > journal.durable);
        }
    }
}
