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
//!             slot is above the ring       counts it                   nothing
//!             voted otherwise in ballot    counts it                   nothing, loudly
//!             the log is low, and it is    counts it                   nothing
//!             proposed for the first time
//!  Heartbeat  no table, names our memory   table ← heartbeat.table
//!             ballot ≥ promised            heard ← its proposer, now   HeartbeatAck
//!             ballot < promised                                        Nack, to the proposer
//!  Replay     always                                                   Replayed, after sync
//!  Executed   f+1 replicas are further     in memory: truncated ↑      nothing
//!                                          durable: lets go of votes
//!             f+1 replicas, and with room  durable: truncated ↑        nothing
//!             for that all that are up,
//!             hold snapshots of more
//!  Unserved   a proposer was heard                                     Unserved, to the one heard last
//!  PreRead    always                                                   PreReadAck
//!  gone       the proposer heard last      heard ← none                nothing
//! ```
//!
//! An acceptor without a table, or whose memory is not in its place of the table, neither promises
//! nor votes (R4).
//!
//! A durable acceptor has whatever it must not forget written down before it speaks of it:
//! promises, votes, its table. The driver syncs these records, and only then lets the held messages
//! go (R31). What it needs from disk it recalls: the message that asked is put aside, and handled
//! as if it came just then once the votes are there. In between anything may have happened, so
//! everything is looked at again.

mod forming;
mod ledger;
mod pages;

use self::ledger::{Ledger, Lookup};
use crate::{
    AcceptorId, AcceptorState, Ballot, Cause, ClusterSettings, DirectoryId, Event, Executed,
    FormationId, Heartbeat, HeartbeatAck, Identify, Incarnation, Listener, LogRoom, Membership,
    Nack, Outbox, P2a, P2b, PreRead, PreReadAck, PreVote, PreVoteAck, ProposerId, Recalled, Record,
    ReplicaId, RoleId, Roster, Slot, Stage, Time, ToAcceptor, ToGateway, ToProposer, ToProxyLeader,
    ToReplica, Truncated, Unserved, Vote, Watcher, Watermark,
};

/// One acceptor: the only truth about what may have been chosen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Acceptor {
    cluster: ClusterSettings,
    id: AcceptorId,
    /// The identity of this memory.
    directory: DirectoryId,
    /// The first table that named this memory, for good.
    membership: Membership,
    /// The largest ballot promised or voted in. Never goes down.
    promised: Ballot,
    /// The last vote in each slot that is not truncated; replaced only by one of a larger ballot.
    ledger: Ledger,
    /// How much room its log has; ample for an acceptor in memory.
    room: LogRoom,
    /// The time when it came back from its log, if it did.
    started_at: Option<Time>,
    /// The time when a proposer that leads, or means to, was last heard, and which; `None` for the
    /// one that it may have heard before it started.
    heard: Option<(Time, Option<ProposerId>)>,
    roster: Roster,
    counters: AcceptorCounters,
}

/// The counters of an acceptor's work.
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
    /// P2as of new slots for which the log has no room.
    pub refused_low: u64,
    /// P2as with another value for a ballot and slot that had been voted in.
    pub equivocations: u64,
    /// Messages that came before a table, or from another quorum system.
    pub foreign: u64,
}

impl Acceptor {
    /// Returns an acceptor with a blank memory, identified by `directory`; nonces follow from
    /// `seed`.
    #[must_use]
    pub fn new(
        cluster: ClusterSettings,
        id: AcceptorId,
        directory: DirectoryId,
        seed: u64,
    ) -> Self {
        assert!(id.0 < cluster.quorums.acceptors_count(), "{id:?} is not in the cluster");
        Self {
            id,
            directory,
            membership: Membership::new(cluster.digest(), cluster.quorums.acceptors_count()),
            promised: Ballot::default(),
            ledger: Ledger::new(&cluster, id),
            room: LogRoom::Ample,
            started_at: None,
            heard: None,
            roster: Roster::new(cluster.replicas, seed),
            counters: AcceptorCounters::default(),
            cluster,
        }
    }

    /// Returns a durable acceptor that comes back with what its log says: `state`, and votes on
    /// disk. With the blank state it is one that has just been formatted.
    ///
    /// Call [`on_start`](Self::on_start) when it starts to serve.
    ///
    /// It says nothing that is not written down before: what it writes down leaves by
    /// [`Outbox::records`], and what it says of it by [`Outbox::held`].
    ///
    /// # Panics
    ///
    /// If the log is of an acceptor of another cluster, which its driver must have refused (R3,
    /// R4).
    ///
    /// source: R4, R18, R32
    #[must_use]
    pub fn restore(
        cluster: ClusterSettings,
        id: AcceptorId,
        directory: DirectoryId,
        state: &AcceptorState,
        seed: u64,
    ) -> Self {
        let AcceptorState { promised, truncated, vote_watermark, table } = state;
        let ledger = Ledger::restore(&cluster, id, *truncated, *vote_watermark);
        let mut acceptor = Self::new(cluster, id, directory, seed);
        if let Some(table) = table {
            let is_ours = table.names(id, directory) && acceptor.membership.join(table);
            assert!(is_ours, "the log of {id:?} is of another cluster");
        }
        let is_blank = *promised == Ballot::default() && vote_watermark.is_none();
        assert!(table.is_some() || is_blank, "{id:?} has promised or voted without a table");
        let restored = Self { promised: *promised, ledger, ..acceptor };
        restored.validate();
        restored
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
            ToAcceptor::Replay(replay) => self.on_replay(replay, out),
            ToAcceptor::Unserved(unserved) => self.on_unserved(unserved, out),
            ToAcceptor::PreRead(pre_read) => self.on_pre_read(pre_read, out),
        }
    }

    /// Tells whether it has heard no leader for an election timeout: then a campaign deposes none
    /// that works.
    ///
    /// source: R28
    pub fn on_pre_vote(&mut self, pre_vote: PreVote, now: Time, out: &mut Outbox) {
        if !self.is_member(out) {
            return;
        }
        let timeout = self.cluster.election_timeout;
        let ack = PreVoteAck {
            acceptor: self.id,
            directory: self.directory,
            nonce: pre_vote.nonce,
            is_quiet: self.heard.is_none_or(|(at, _)| now.since(at) >= timeout),
            is_low: self.room == LogRoom::Low,
            promised: self.promised,
            votes_end: self.ledger.votes_end(),
        };
        out.tell_proposer(pre_vote.proposer, ToProposer::PreVoteAck(ack));
    }

    /// Phase 2: votes, unless a larger ballot was promised.
    ///
    /// A vote is a promise too: a P2a may overtake its ballot's P1a. One ballot gets one value a
    /// slot from its proposer (R2, R7), so a second one means that the proposer broke that: it is
    /// refused, for an acceptor that voted twice could make two values chosen in one ballot.
    ///
    /// Below `truncated` there is no vote to compare with, hence no vote: the slot was chosen, and
    /// another value there must not be.
    ///
    /// source: R10, \[CP §2.3\]
    pub fn on_p2a(&mut self, p2a: P2a, now: Time, out: &mut Outbox) {
        if self.is_member(out) {
            self.vote_for(p2a, None, now, out);
        }
    }

    fn vote_for(&mut self, p2a: P2a, recalled: Option<&Recalled>, now: Time, out: &mut Outbox) {
        if p2a.ballot < self.promised {
            let nack = self.nack(p2a.ballot, Some(p2a.slot));
            out.tell_proxy_leader(p2a.via, ToProxyLeader::Nack(nack));
            return self.refuse(p2a.ballot, Some(p2a.slot), out);
        }
        self.adopt(p2a.ballot, out);
        let (ballot, slot, via) = (p2a.ballot, p2a.slot, p2a.via);
        if self.ledger.truncated().covers(slot) {
            self.counters.truncated += 1;
            let (acceptor, truncated) = (Some(self.id), self.ledger.truncated());
            let truncated = Truncated { acceptor, slot, ballot, truncated };
            return out.tell_proxy_leader(via, ToProxyLeader::Truncated(truncated));
        }
        let earlier = match (self.ledger.place(slot), recalled) {
            (Lookup::Here(vote), _) => vote,
            (Lookup::OnDisk, Some(recalled)) => recalled.vote(slot),
            (Lookup::OnDisk, None) => {
                let range = (slot, slot.watermark_after());
                return self.ledger.recall(range, Cause::P2a(p2a), out);
            }
            (Lookup::AboveWindow, _) => {
                // Its place belongs to a slot that is still needed: refused, and asked for again.
                self.counters.above_window += 1;
                return out.ignored("P2a: its slot is above the ring");
            }
        };
        match earlier {
            Some(vote) if vote.ballot == ballot => {
                if vote.value != p2a.value {
                    self.counters.equivocations += 1;
                    return out.event(Event::Equivocation { acceptor: self.id, ballot, slot });
                }
                self.counters.repeated_votes += 1;
            }
            None if self.room == LogRoom::Low && !p2a.is_recovered => {
                // What may be chosen still gets in: after the loss of an acceptor that has voted
                // for it, the others are needed, or nothing above would ever be executed. There is
                // room kept for that.
                self.counters.refused_low += 1;
                return out.ignored("P2a: little room is left in the log, and its slot is new");
            }
            earlier => {
                let is_newer = earlier.is_none_or(|vote| vote.ballot < ballot);
                assert!(is_newer, "{slot}: a vote went back to {ballot}");
                assert_eq!(
                    ballot, self.promised,
                    "{slot}: a vote in a ballot that is not promised"
                );
                let has_value = earlier.is_some_and(|vote| vote.value == p2a.value);
                self.ledger.insert(slot, Vote { ballot, value: p2a.value }, has_value, out);
                self.hear(ballot.proposer, now);
            }
        }
        debug_assert!(
            self.ledger.vote(slot).is_none_or(|vote| vote.ballot == ballot),
            "{slot}: a P2b of another vote"
        );
        self.counters.votes += 1;
        let p2b = P2b { acceptor: self.id, directory: self.directory, ballot, slot };
        out.hold_to_proxy_leader(via, ToProxyLeader::P2b(p2b));
    }

    /// Remembers which proposer leads, or means to. An acceptor that missed the forming of its
    /// cluster gets the table here: it stands, or its sender would not campaign.
    ///
    /// source: R4, R28
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) {
        if self.membership.table().is_none() && heartbeat.table.names(self.id, self.directory) {
            self.join(&heartbeat.table, out);
        }
        if !self.membership.is_joined(&heartbeat.table) {
            return self.refuse_foreign("acceptor: heartbeat", out);
        }
        if heartbeat.ballot < self.promised {
            return self.refuse(heartbeat.ballot, None, out);
        }
        match heartbeat.stage {
            Stage::Campaigning | Stage::Leading => self.hear(heartbeat.ballot.proposer, now),
            Stage::Waiting | Stage::Following => {} // told to replicas only
            Stage::Leaving => self.heard = None,
        }
        let (from, is_low) = (Listener::Acceptor(self.id), self.room == LogRoom::Low);
        let ack = HeartbeatAck { from, ballot: heartbeat.ballot, is_low, clock: now };
        out.tell_proposer(heartbeat.ballot.proposer, ToProposer::HeartbeatAck(ack));
    }

    /// Tells a gateway how far it has voted, be it synced or not.
    ///
    /// A command that was answered before the gateway asked was chosen before: each acceptor of
    /// some write quorum had voted for it, and synced that. Every read quorum has one of them, so
    /// the largest slot that a whole read quorum names is not below the command's. A vote that is
    /// not synced, or was never chosen, makes a read wait for more, and for nothing else.
    ///
    /// Why it is enough that a number comes back after a crash, with the votes that are synced: no
    /// other vote can have been counted. An acceptor that has forgotten more than that is in no
    /// table, and answers nothing (R4).
    ///
    /// source: R18, R19, \[CP §3.4\], \[PQR\]
    pub fn on_pre_read(&mut self, pre_read: PreRead, out: &mut Outbox) {
        let PreRead { gateway, incarnation, probe } = pre_read;
        if gateway.0 >= self.cluster.gateways {
            return self.refuse_foreign("acceptor: read of no gateway", out);
        }
        if !self.is_member(out) {
            return;
        }
        let vote_watermark = self.ledger.vote_watermark();
        let (acceptor, directory) = (self.id, self.directory);
        let ack = PreReadAck { acceptor, directory, incarnation, probe, vote_watermark };
        out.tell_gateway(gateway, ToGateway::PreReadAck(ack));
    }

    /// Passes a gateway's complaint on to the leader, which the gateway may not reach.
    ///
    /// source: R28
    pub fn on_unserved(&mut self, unserved: Unserved, out: &mut Outbox) {
        if unserved.gateway.0 >= self.cluster.gateways {
            return self.refuse_foreign("acceptor: complaint of no gateway", out);
        }
        match self.heard {
            Some((_, Some(leader))) => out.tell_proposer(leader, ToProposer::Unserved(unserved)),
            Some((_, None)) | None => out.ignored("Unserved: no leader is heard"),
        }
    }

    /// In memory: forgets what f+1 replicas have executed, each in its current life. Durable: lets
    /// go of it in memory, and keeps it on disk until f+1 replicas hold it in durable snapshots.
    ///
    /// What is forgotten is never needed again for phase 1: a leader starts above it, or is told
    /// that it is truncated; and a replica that misses it gets the state of one of those f+1, of
    /// which one survives. Where all may stop at once and come back, what those f+1 had executed is
    /// gone with their memories, so only what their directories hold counts.
    ///
    /// Two acceptors may believe different snapshots, and forget different slots. Neither can err:
    /// each counts directories that held the snapshot when they said so, and a directory that has
    /// been lost since is one of the f losses. A former life's word is not taken once its successor
    /// is known (`Roster`).
    ///
    /// While the log has ample room, the snapshots of all replicas that are up are waited for: then
    /// a restart of all leaves none of them behind what is kept. Who is up is not known at a start:
    /// until all were heard, or for `replica_grace`, nothing is forgotten. A replica that is down,
    /// or has none, cannot hold the log up for longer than there is room.
    ///
    /// source: R10, R16
    pub fn on_executed(&mut self, executed: &Executed, now: Time, out: &mut Outbox) {
        if let Some(nonce) = self.roster.on_executed(executed, now) {
            let identify = Identify { watcher: Watcher::Acceptor(self.id), nonce };
            return out.tell_replica(executed.replica, ToReplica::Identify(identify));
        }
        let f = self.cluster.f;
        self.ledger.on_executed(self.roster.executed_by_f_plus_1(f));
        let mut snapshot = self.roster.snapshot_by_f_plus_1(f);
        if self.room == LogRoom::Ample {
            let grace = self.cluster.replica_grace;
            let has_just_started = self.started_at.is_some_and(|at| now.since(at) < grace);
            if has_just_started && self.roster.known_count() < usize::from(self.cluster.replicas) {
                return;
            }
            let by_all_up = self.roster.snapshot_by_all_up(now, grace);
            snapshot = by_all_up.map_or(snapshot, |by_all_up| snapshot.min(by_all_up));
        }
        self.ledger.on_snapshot(snapshot, out);
    }

    /// Takes in that it has come back: a leader that it heard in its last life may still lead. So
    /// its start counts as hearing a leader, or a restart of all acceptors would let a cut-off
    /// proposer depose a leader. One that has just been formatted has no leader to hear.
    ///
    /// source: R16, R28
    pub fn on_start(&mut self, now: Time) {
        self.started_at = Some(now);
        if self.membership.table().is_some() {
            self.heard = Some((now, None));
        }
    }

    /// Takes in that so many of its records, counted by [`recorded`](Self::recorded), are durable:
    /// the driver says so when it lets go of what was held for them.
    ///
    /// source: R10, R31
    pub fn on_durable(&mut self, records: u64) {
        self.ledger.on_durable(records);
    }

    /// Takes in how much room its log has. While it is low, slots that it has not voted in are
    /// refused: promises, and votes for what may have been chosen, need the rest. While it is not
    /// ample, replicas without a recent snapshot are not waited for.
    ///
    /// source: R16, R34
    pub fn set_room(&mut self, room: LogRoom) {
        self.room = room;
    }

    /// Takes in that the life of a role has ended: a leader that is gone counts as not heard.
    ///
    /// source: R28
    pub fn on_gone(&mut self, gone: RoleId) {
        if let (RoleId::Proposer(gone), Some((_, Some(heard)))) = (gone, self.heard)
            && gone == heard
        {
            self.heard = None;
        }
    }

    /// How many records it has had written down in this life.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.ledger.recorded()
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        self.ledger.validate(|vote| vote.ballot <= self.promised);
        let has_voted = self.ledger.votes_end() > Watermark(0);
        let is_blank = self.promised == Ballot::default() && !has_voted;
        let is_member = self.membership.names(self.id, self.directory);
        assert!(is_member || is_blank, "promised or voted without a table");
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// The acceptor's id.
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
        self.ledger.truncated()
    }

    /// Its vote in `slot`, if it holds one in memory.
    #[must_use]
    pub fn vote(&self, slot: Slot) -> Option<&Vote> {
        self.ledger.vote(slot)
    }

    /// The life of a replica that it counts on, if it knows any.
    #[must_use]
    pub fn counted_life(&self, replica: ReplicaId) -> Option<Incarnation> {
        self.roster.incarnation(replica)
    }

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> AcceptorCounters {
        self.counters
    }

    /// Takes out what it did since this was last asked.
    pub fn take_counters(&mut self) -> AcceptorCounters {
        std::mem::take(&mut self.counters)
    }

    fn hear(&mut self, proposer: ProposerId, now: Time) {
        self.heard = Some((now, Some(proposer)));
    }

    /// Whether it may promise and vote.
    fn is_member(&mut self, out: &mut Outbox) -> bool {
        let is_member = self.membership.names(self.id, self.directory);
        if !is_member {
            self.counters.foreign += 1;
            out.ignored("PreVote, P1a, P2a, Replay or PreRead: this memory is in no table");
        }
        is_member
    }

    /// Raises the promise; returns whether it moved.
    ///
    /// It is written down even where a vote, which is a promise too, might follow: not all do, and
    /// a proposer that asks for the promise later finds it made.
    fn adopt(&mut self, ballot: Ballot, out: &mut Outbox) -> bool {
        assert!(ballot >= self.promised, "{ballot} is below the promise {}", self.promised);
        let is_first = ballot > self.promised;
        if is_first {
            self.promised = ballot;
            let acceptor = self.id;
            self.ledger.record(|| Record::Promise { acceptor, ballot }, out);
        }
        is_first
    }

    fn nack(&self, refused: Ballot, slot: Option<Slot>) -> Nack {
        assert!(refused < self.promised, "refused {refused}, promised {}", self.promised);
        Nack { slot, refused, promised: self.promised }
    }

    /// Sends a Nack to the proposer *of the refused ballot*; \[seed\] sends it to that of the
    /// larger one (R13).
    fn refuse(&mut self, refused: Ballot, slot: Option<Slot>, out: &mut Outbox) {
        self.counters.nacks += 1;
        out.tell_proposer(refused.proposer, ToProposer::Nack(self.nack(refused, slot)));
    }
}
