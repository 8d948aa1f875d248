//! The acceptor: promises, and votes.
//!
//! ```text
//!  input      when                         does                        says
//!  Probe      always                                                   ProbeAck
//!  Form       no table, names our memory   table ← form.table          Formed, after sync
//!             table                                                    Formed: the table we have
//!  PreVote    always                                                   PreVoteAck
//!  P1a        ballot ≥ promised            promised ← ballot           P1b, after sync
//!             ballot < promised                                        Nack, to the proposer
//!  P2a        ballot ≥ promised            promised, votes[slot] ←     P2b, after sync
//!             ballot < promised                                        Nack, to both
//!             slot < truncated             promised ← ballot           Truncated
//!             slot ≥ truncated + ring      counts it                   nothing
//!             voted otherwise in ballot    counts it                   nothing, loudly
//!  Heartbeat  no table, names our memory   table ← heartbeat.table
//!             ballot ≥ promised            heard ← now                 HeartbeatAck
//!             ballot < promised                                        Nack, to the proposer
//!  Executed   f+1 replicas are further     truncated ↑, votes dropped  nothing
//! ```
//!
//! An acceptor without a table, or whose memory is not in its place of the table, neither promises nor
//! votes (R4).

use crate::{
    AcceptorId, Ballot, Cluster, DirectoryId, Event, Executed, Form, FormationId, Formed,
    Heartbeat, HeartbeatAck, Identify, Listener, Membership, Nack, Outbox, P1a, P1b, P2a, P2b,
    Payload, PreVote, PreVoteAck, Probe, ProbeAck, Rememberer, Roster, Slot, Stage, Time,
    ToAcceptor, ToProposer, ToProxyLeader, ToReplica, Truncated, Vote, Watcher, Watermark, Window,
};

/// One acceptor: the only truth about what may have been chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Acceptor {
    cluster: Cluster,
    id: AcceptorId,
    /// The identity of this memory.
    directory: DirectoryId,
    /// The first table that named this memory, for good.
    membership: Membership,
    /// The largest ballot promised or voted in. Never goes down.
    promised: Ballot,
    /// Everything below is executed by f+1 replicas, and forgotten here. Never goes down.
    truncated: Watermark,
    /// The last vote in each slot from `truncated` on; replaced only by one of a larger ballot.
    votes: Window<Vote>,
    /// The largest slot voted in that may still be held.
    last_vote: Option<Slot>,
    /// When somebody who leads, or means to, was last heard.
    heard_at: Option<Time>,
    roster: Roster,
    counters: AcceptorCounters,
}

/// What an acceptor did.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct AcceptorCounters {
    /// P2as voted for, repeated ones included.
    pub votes: u64,
    /// P2as among these that had been voted for before.
    pub repeated_votes: u64,
    /// Pages of promises.
    pub promises: u64,
    /// Ballots refused.
    pub nacks: u64,
    /// P2as of slots that are forgotten.
    pub truncated: u64,
    /// P2as beyond the ring.
    pub above_window: u64,
    /// P2as with another value for a ballot and slot that had been voted in.
    pub equivocations: u64,
    /// Messages that came before a table, or from another quorum system.
    pub foreign: u64,
}

impl Acceptor {
    /// Returns an acceptor with a blank memory, identified by `directory`; nonces follow from `seed`.
    #[must_use]
    pub fn new(cluster: Cluster, id: AcceptorId, directory: DirectoryId, seed: u64) -> Self {
        assert!(id.0 < cluster.quorums.acceptors_count(), "{id:?} is not in the cluster");
        Self {
            id,
            directory,
            membership: Membership::new(cluster.digest()),
            promised: Ballot::default(),
            truncated: Watermark(0),
            votes: Window::new(cluster.ring_slots()),
            last_vote: None,
            heard_at: None,
            roster: Roster::new(cluster.replicas, seed),
            counters: AcceptorCounters::default(),
            cluster,
        }
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToAcceptor, now: Time, out: &mut Outbox) {
        match message {
            ToAcceptor::Probe(probe) => self.on_probe(probe, out),
            ToAcceptor::Form(form) => self.on_form(&form, out),
            ToAcceptor::PreVote(pre_vote) => self.on_pre_vote(pre_vote, now, out),
            ToAcceptor::P1a(p1a) => self.on_p1a(p1a, now, out),
            ToAcceptor::P2a(p2a) => self.on_p2a(p2a, now, out),
            ToAcceptor::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now, out),
            ToAcceptor::Executed(executed) => self.on_executed(&executed, now, out),
        }
    }

    /// Formation: tells whether this memory has ever done anything, and which table it holds.
    ///
    /// source: R3, R4
    pub fn on_probe(&mut self, probe: Probe, out: &mut Outbox) {
        if probe.cluster_digest != self.cluster.digest() {
            return self.refuse_foreign("acceptor: probe of another quorum system", out);
        }
        let ack = ProbeAck {
            from: Rememberer::Acceptor(self.id),
            nonce: probe.nonce,
            directory: self.directory,
            is_blank: self.membership.table().is_none(),
            table: self.membership.table().cloned(),
        };
        // A table that is told of counts as stored: it waits for its sync like `Formed` does.
        out.hold_to_proposer(probe.proposer, ToProposer::ProbeAck(ack));
    }

    /// Formation: stores the first table that names this memory, for good, and tells which one it has.
    ///
    /// Stored before it is told (held lane): a table is taken to stand by what acceptors say they hold.
    ///
    /// source: R4
    pub fn on_form(&mut self, form: &Form, out: &mut Outbox) {
        if self.membership.table().is_none() {
            if !form.table.names(self.id, self.directory) {
                self.counters.foreign += 1;
                return out.event(Event::Forgotten { acceptor: self.id });
            }
            if !self.membership.join(&form.table) {
                return self.refuse_foreign("acceptor: table of another quorum system", out);
            }
        }
        let Some(table) = self.membership.table().cloned() else { return };
        let formed = Formed { acceptor: self.id, directory: self.directory, table };
        out.hold_to_proposer(form.proposer, ToProposer::Formed(formed));
    }

    /// Tells whether a campaign would disturb nobody.
    ///
    /// source: R28
    pub fn on_pre_vote(&mut self, pre_vote: PreVote, now: Time, out: &mut Outbox) {
        if !self.is_member() {
            return;
        }
        let timeout = self.cluster.election_timeout;
        let ack = PreVoteAck {
            acceptor: self.id,
            directory: self.directory,
            nonce: pre_vote.nonce,
            is_quiet: self.heard_at.is_none_or(|at| now.since(at) >= timeout),
            promised: self.promised,
        };
        out.tell_proposer(pre_vote.proposer, ToProposer::PreVoteAck(ack));
    }

    /// Phase 1: promises to refuse every smaller ballot, and reports a page of past votes.
    ///
    /// The pages of one ballot agree with each other whenever they are asked for: after the promise no
    /// vote of a smaller ballot is added, and the proposer of this one has proposed nothing yet. What
    /// truncation takes away between two pages, `truncated` of the later one covers.
    ///
    /// source: R6, \[CP §2.1\]
    pub fn on_p1a(&mut self, p1a: P1a, now: Time, out: &mut Outbox) {
        if !self.is_member() {
            return;
        }
        if p1a.ballot < self.promised {
            return self.refuse(p1a.ballot, None, out);
        }
        if self.adopt(p1a.ballot) {
            self.heard_at = Some(now); // a repeated P1a is not hearing somebody (R28)
        }
        self.counters.promises += 1;
        let p1b = self.page(p1a);
        out.hold_to_proposer(p1a.ballot.proposer, ToProposer::P1b(Box::new(p1b)));
    }

    /// Phase 2: votes, unless a larger ballot was promised.
    ///
    /// A vote is a promise too: a P2a may overtake its ballot's P1a. One ballot gets one value a slot
    /// from its proposer (R2, R7), so a second one means that somebody broke that: it is refused, for an
    /// acceptor that voted twice could make two values chosen in one ballot.
    ///
    /// Below `truncated` there is no vote to compare with, hence no vote: the slot was chosen, and
    /// another value there must not be.
    ///
    /// source: R10, \[CP §2.3\]
    pub fn on_p2a(&mut self, p2a: P2a, now: Time, out: &mut Outbox) {
        if !self.is_member() {
            return;
        }
        if p2a.ballot < self.promised {
            let nack = self.nack(p2a.ballot, Some(p2a.slot));
            out.tell_proxy_leader(p2a.via, ToProxyLeader::Nack(nack));
            return self.refuse(p2a.ballot, Some(p2a.slot), out);
        }
        self.adopt(p2a.ballot);
        let P2a { ballot, slot, via, value } = p2a;
        if self.truncated.covers(slot) {
            self.counters.truncated += 1;
            let (acceptor, truncated) = (Some(self.id), self.truncated);
            let truncated = Truncated { acceptor, slot, ballot, truncated };
            return out.tell_proxy_leader(via, ToProxyLeader::Truncated(truncated));
        }
        if slot.0 - self.truncated.0 >= self.votes.capacity() {
            // Its place belongs to a slot that is not yet truncated: refused, and asked for again.
            self.counters.above_window += 1;
            return;
        }
        match self.votes.at(slot) {
            Some(vote) if vote.ballot == ballot => {
                if vote.value != value {
                    self.counters.equivocations += 1;
                    return out.event(Event::Equivocation { acceptor: self.id, ballot, slot });
                }
                self.counters.repeated_votes += 1;
            }
            earlier => {
                let is_newer = earlier.is_none_or(|vote| vote.ballot < ballot);
                assert!(is_newer, "{slot}: a vote went back to {ballot}");
                self.votes.insert(slot, Vote { ballot, value });
                self.last_vote = self.last_vote.max(Some(slot));
                self.heard_at = Some(now);
            }
        }
        self.counters.votes += 1;
        let p2b = P2b { acceptor: self.id, directory: self.directory, ballot, slot };
        out.hold_to_proxy_leader(via, ToProxyLeader::P2b(p2b));
    }

    /// Remembers that somebody leads, or means to. An acceptor that missed the forming of its cluster
    /// gets the table here: it stands, or its sender would not campaign.
    ///
    /// source: R4, R28
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) {
        if self.membership.table().is_none() && heartbeat.table.names(self.id, self.directory) {
            self.membership.join(&heartbeat.table);
        }
        if !self.membership.is_joined(&heartbeat.table) {
            return self.refuse_foreign("acceptor: heartbeat", out);
        }
        if heartbeat.ballot < self.promised {
            return self.refuse(heartbeat.ballot, None, out);
        }
        self.heard_at = match heartbeat.stage {
            Stage::Campaigning | Stage::Leading => Some(now),
            Stage::Leaving => None,
        };
        let ack = HeartbeatAck { from: Listener::Acceptor(self.id), ballot: heartbeat.ballot };
        out.tell_proposer(heartbeat.ballot.proposer, ToProposer::HeartbeatAck(ack));
    }

    /// Forgets what f+1 replicas have executed, each in its current life.
    ///
    /// Such a slot is never needed again for phase 1: a leader starts above it, or is told that it is
    /// truncated; and whoever misses its value gets it from one of those f+1, of which one survives.
    ///
    /// source: R16
    pub fn on_executed(&mut self, executed: &Executed, now: Time, out: &mut Outbox) {
        if let Some(nonce) = self.roster.on_executed(executed, now) {
            let identify = Identify { watcher: Watcher::Acceptor(self.id), nonce };
            return out.tell_replica(executed.replica, ToReplica::Identify(identify));
        }
        let before = self.truncated;
        if self.truncated.raise(self.roster.executed_by_f_plus_1(self.cluster.f)) {
            self.votes.remove_range(before, self.truncated);
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        for (slot, vote) in self.votes.iter() {
            assert!(!self.truncated.covers(slot), "{slot} is held below {}", self.truncated);
            assert!(slot.0 - self.truncated.0 < self.votes.capacity(), "{slot} is beyond the ring");
            assert!(vote.ballot <= self.promised, "{slot}: voted above the promise");
            assert!(Some(slot) <= self.last_vote, "{slot} is above the last vote");
        }
        let is_blank = self.promised == Ballot::default() && self.last_vote.is_none();
        let is_member = self.membership.names(self.id, self.directory);
        assert!(is_member || is_blank, "promised or voted without a table");
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// Which acceptor it is.
    #[must_use]
    pub fn id(&self) -> AcceptorId {
        self.id
    }

    /// The largest ballot promised or voted in.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// The bound below which it has forgotten.
    #[must_use]
    pub fn truncated(&self) -> Watermark {
        self.truncated
    }

    /// Its vote in `slot`, if it holds one.
    #[must_use]
    pub fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.votes.at(slot)
    }

    /// What it did.
    #[must_use]
    pub fn counters(&self) -> AcceptorCounters {
        self.counters
    }

    /// Takes out what it did since this was last asked.
    pub fn take_counters(&mut self) -> AcceptorCounters {
        std::mem::take(&mut self.counters)
    }

    /// Whether it may promise and vote.
    fn is_member(&mut self) -> bool {
        let is_member = self.membership.names(self.id, self.directory);
        if !is_member {
            self.counters.foreign += 1;
        }
        is_member
    }

    /// Raises the promise; returns whether it moved.
    fn adopt(&mut self, ballot: Ballot) -> bool {
        assert!(ballot >= self.promised, "{ballot} is below the promise {}", self.promised);
        let is_first = ballot > self.promised;
        self.promised = ballot;
        is_first
    }

    /// Collects votes from the page's start on, until the page is full or there are no more.
    fn page(&self, p1a: P1a) -> P1b {
        let from = p1a.page.max(p1a.first).max(self.truncated.first_open());
        let end = self.last_vote.map_or(Watermark(0), Slot::watermark_after);
        let (mut votes, mut bytes, mut to) = (Vec::new(), 0, None);
        for slot in (from.0..end.0).map(Slot) {
            if slot.0 - from.0 >= u64::from(self.cluster.page_slots_max)
                || bytes >= self.cluster.page_bytes_max as usize
            {
                to = Some(Watermark(slot.0));
                break;
            }
            if let Some(vote) = self.votes.at(slot) {
                bytes += vote.value.batch().map_or(0, |batch| Payload::len(&batch.block));
                votes.push((slot, vote.clone()));
            }
        }
        let (acceptor, directory, ballot) = (self.id, self.directory, p1a.ballot);
        P1b { acceptor, directory, ballot, truncated: self.truncated, from, to, votes }
    }

    fn nack(&self, refused: Ballot, slot: Option<Slot>) -> Nack {
        assert!(refused < self.promised, "refused {refused}, promised {}", self.promised);
        Nack { slot, refused, promised: self.promised }
    }

    /// Tells the proposer *of the refused ballot*; the seed tells the winner (R13).
    fn refuse(&mut self, refused: Ballot, slot: Option<Slot>, out: &mut Outbox) {
        self.counters.nacks += 1;
        out.tell_proposer(refused.proposer, ToProposer::Nack(self.nack(refused, slot)));
    }

    fn refuse_foreign(&mut self, at: &'static str, out: &mut Outbox) {
        self.counters.foreign += 1;
        out.event(Event::Foreign { at });
    }
}
