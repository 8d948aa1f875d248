//! The replica: executes the log in slot order, and answers.
//!
//! ```text
//!  input      when                             does                          says
//!  Chosen     slot = executed                  executes it, and what follows Results, if named to answer
//!             executed < slot < + window       log[slot] ←                   nothing
//!             below, or beyond the window      counts it                     nothing
//!  Heartbeat  others have executed more        waits, then asks them         Executed, to all watchers
//!             its proposer waits for us        replays                       Replay, to all acceptors
//!             a leader's, and nothing missing  replays no more
//!  Fetch      it still holds the slots                                       Fetched
//!  Fetched    of the slot it misses            as if chosen                  Fetch, for the next ones
//!  Identify   always                                                         Executed, with the nonce
//!  panic      of the machine                   halts                         Halted, to gateways
//!  Ask        the batch was executed                                         Results
//!             it was not                                                     NotExecuted
//!  Replayed   a write quorum voted in one      as if chosen                  Replay, for the next ones
//!             ballot for the slot it misses
//!  Gap        a slot was missing for long                                   Fetch, to a peer in turn;
//!                                                                            Replay; Need, to the leader
//!  Truncated  always                           notes what acceptors          nothing
//!                                              have truncated
//!             and peers have let go of it too  starts a transfer             FetchPart, to one of them
//!  FetchPart  in memory: it has executed more  freezes its state, writes it  FetchedPart, at its pace
//!             durable: a snapshot is stored    reads it                      FetchedPart, at its pace
//!  FetchedPart  it completes the snapshot      restores it                   Executed, to all watchers
//!  Report     has executed more                                              Executed, to all watchers
//!  Read       has executed all below at_least                                 ReadResults
//!             it has not                       waits, also for the slots       nothing yet
//!  start      durable: has a snapshot          restores it
//!  snapshot   one of its own is durable        counts it                     Executed, to all watchers
//!  done       a peer's is durable              restores it                   Executed, to all watchers
//! ```
//!
//! What it executes, it knows to be chosen: from a proxy leader that counted a write quorum, from a
//! peer that executed it, or by counting a write quorum itself. One acceptor's vote proves nothing,
//! however low the slot (R15).

mod checkpoint;
mod donation;
mod gap;
mod halting;
mod lending;
mod reads;
mod replay;
mod transfer;

use self::checkpoint::Checkpoints;
pub use self::checkpoint::ReplicaDirectory;
use self::donation::Donation;
use self::gap::{Fetching, Following, Gap};
use self::halting::Skip;
use self::reads::Waiting;
use self::replay::Pages;
pub use self::transfer::TransferProgress;
use self::transfer::{Restoring, Transfer};
use crate::block;
use crate::executor::{Executor, Known};
use crate::{
    AcceptorId, Ask, Ballot, Chosen, ClusterSettings, DirectoryId, Event, Executed, FormationId,
    Halt, Heartbeat, Identify, Incarnation, Membership, NotExecuted, Outbox, Pool, Probe, ProbeAck,
    ReadResults, Rememberer, ReplicaId, Results, Slot, Stage, StateMachine, Time, TimerName,
    Timers, ToAcceptor, ToGateway, ToProposer, ToReplica, Truncated, Value, Watcher, Watermark,
    Window,
};

/// The timers of a replica.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ReplicaTimer {
    /// A slot is missing: ask for it.
    Gap,
    /// Ask again for the votes that a replay misses.
    Replay,
    /// Report the executed watermark.
    Report,
    /// Write the next part of a snapshot for peers, or send it.
    Donation,
    /// Write the next part of a durable snapshot.
    Checkpoint,
    /// Ask again for the parts of a peer's snapshot, or restore the next one.
    Transfer,
}

impl TimerName<6> for ReplicaTimer {
    const ALL: [Self; 6] =
        [Self::Gap, Self::Replay, Self::Report, Self::Donation, Self::Checkpoint, Self::Transfer];

    fn index(self) -> usize {
        self as usize
    }
}

/// One replica of the state machine.
#[derive(Debug)]
pub struct Replica<M> {
    cluster: ClusterSettings,
    id: ReplicaId,
    incarnation: Incarnation,
    /// The identity of this memory. In memory, each life has another.
    directory: DirectoryId,
    membership: Membership,
    /// Chosen slots: those not executed yet, and one window of those that were, for peers.
    log: Window<(Ballot, Value)>,
    /// Everything below is executed. Never goes down.
    executed: Watermark,
    /// The end of what is known to be chosen: something below that was not executed is missing.
    /// Never goes down.
    chosen: Watermark,
    executor: Executor<M>,
    gap: Option<Gap>,
    /// The peer that was last asked for slots.
    fetching: Option<Fetching>,
    /// The peer that it asks for what comes next, since no proxy leader tells it.
    following: Option<Following>,
    /// The votes that acceptors tell of, while it replays them.
    replay: Option<Pages>,
    /// The number of times that it has asked acceptors since that last brought something.
    replay_rounds: u32,
    /// The largest bound that an acceptor was heard to have truncated to. Never goes down.
    truncated: Watermark,
    /// The snapshot that it gives to its peers, if it is a replica in memory.
    donation: Option<Donation>,
    /// Its durable snapshots; `None` for a replica in memory.
    checkpoints: Option<Checkpoints>,
    /// The snapshot that it gets from a peer.
    transfer: Option<Transfer>,
    /// The snapshot that it restores. Nothing is executed meanwhile.
    restoring: Option<Restoring>,
    /// The watermark that the watchers were last told.
    reported: Watermark,
    /// The largest ballot that was heard to lead.
    leader: Ballot,
    halted: Option<Halt>,
    /// Once it has halted: everything below is executed, or held to be. Never goes down.
    held: Watermark,
    skip: Skip,
    /// Reads that wait for slots to be executed.
    reads: Waiting,
    /// The memory of what it tells gateways.
    results: Pool<Results>,
    read_results: Pool<ReadResults>,
    timers: Timers<ReplicaTimer, 6>,
    counters: ReplicaCounters,
}

/// The counters of a replica's work.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReplicaCounters {
    /// Slots executed.
    pub slots: u64,
    /// No-ops among them.
    pub noops: u64,
    /// Commands executed.
    pub commands: u64,
    /// Runs answered from a session's memory.
    pub repeated_runs: u64,
    /// Runs refused: out of order, or of no session.
    pub refused_runs: u64,
    /// Batches answered.
    pub answers: u64,
    /// Answers that had no room for all results of a batch, those to gateways that asked included.
    pub partial_answers: u64,
    /// Runs whose replies are not kept any more, for there were more than `answers_bytes_max` of
    /// them.
    pub replies_let_go: u64,
    /// Queries answered, and those among them at which the machine panicked.
    pub queries: u64,
    /// See [`queries`](Self::queries).
    pub queries_panicked: u64,
    /// Groups of reads that had to wait for slots to be executed.
    pub reads_waited: u64,
    /// Groups of reads that were refused, since too many waited.
    pub reads_refused: u64,
    /// Slots told of again, after they were executed.
    pub repeated_slots: u64,
    /// Slots told of too early to be kept.
    pub above_window: u64,
    /// Times a slot was missing long enough to ask for it.
    pub gaps: u64,
    /// Slots got from peers.
    pub fetched: u64,
    /// Slots got from acceptors.
    pub replayed: u64,
    /// Snapshots written for peers.
    pub snapshots: u64,
    /// Parts of them sent.
    pub parts_sent: u64,
    /// Transfers begun: peers asked for a snapshot.
    pub transfers: u64,
    /// Transfers given up: the donor was lost, or had no snapshot, or the parts were not those of
    /// its snapshot.
    pub transfers_abandoned: u64,
    /// Snapshots restored: of peers, and of its own after a restart.
    pub restored: u64,
    /// Snapshots that its disk could not write.
    pub snapshots_failed: u64,
    /// Messages of another cluster.
    pub foreign: u64,
}

impl<M: StateMachine> Replica<M> {
    /// Returns a replica that has executed nothing on `machine`, which must be in its initial
    /// state.
    #[must_use]
    pub fn new(
        cluster: ClusterSettings,
        id: ReplicaId,
        incarnation: Incarnation,
        machine: M,
    ) -> Self {
        assert!(id.0 < cluster.replicas, "{id:?} is not in the cluster");
        Self {
            id,
            incarnation,
            directory: DirectoryId(incarnation.0),
            membership: Membership::new(cluster.digest(), cluster.quorums.acceptors_count()),
            log: Window::new(cluster.ring_slots()),
            executed: Watermark(0),
            chosen: Watermark(0),
            executor: Executor::new(machine, &cluster),
            gap: None,
            fetching: None,
            following: None,
            replay: None,
            replay_rounds: 0,
            truncated: Watermark(0),
            donation: None,
            checkpoints: None,
            transfer: None,
            restoring: None,
            reported: Watermark(0),
            leader: Ballot::default(),
            halted: None,
            held: Watermark(0),
            skip: Skip::default(),
            reads: Waiting::default(),
            results: Pool::new(cluster.ring_slots() as usize),
            read_results: Pool::new(reads::results_held_max(&cluster)),
            timers: Timers::default(),
            counters: ReplicaCounters::default(),
            cluster,
        }
    }

    /// Returns a durable replica, which comes back with what it `found` in its directory: it
    /// restores the newest snapshot, and gets the log above from peers and acceptors.
    ///
    /// What it wants written and read leaves by [`Outbox::snapshots`], and the driver answers by
    /// [`on_snapshot_done`](Self::on_snapshot_done). Before the snapshot is restored it has
    /// executed nothing, and says so.
    ///
    /// source: R4, R16
    #[must_use]
    pub fn durable(
        cluster: ClusterSettings,
        id: ReplicaId,
        incarnation: Incarnation,
        machine: M,
        found: ReplicaDirectory,
    ) -> Self {
        let mut replica = Self::new(cluster, id, incarnation, machine);
        replica.directory = found.directory;
        replica.executor.skip(found.skips.iter().copied());
        let checkpoints = Checkpoints::new(found, id, &replica.cluster);
        if let Some(newest) = checkpoints.newest() {
            replica.membership.belong_to(newest.formation);
        }
        replica.membership.start_from(checkpoints.origin.map(|origin| origin.id));
        replica.checkpoints = Some(checkpoints);
        replica
    }

    /// Starts to restore what a durable replica has found; call it once, when it starts to serve.
    ///
    /// source: R16
    pub fn on_start(&mut self, now: Time, out: &mut Outbox) {
        assert_eq!(self.executed, Watermark(0), "a replica starts twice");
        self.restore_newest(now, out);
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToReplica, now: Time, out: &mut Outbox) {
        match message {
            ToReplica::Probe(probe) => self.on_probe(probe, out),
            ToReplica::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now, out),
            ToReplica::Chosen(chosen) => {
                self.following = None; // proxy leaders reach us
                self.on_chosen(chosen, now, out);
            }
            ToReplica::Identify(identify) => self.on_identify(identify, out),
            ToReplica::Fetch(fetch) => self.on_fetch(fetch, now, out),
            ToReplica::Fetched(fetched) => self.on_fetched(fetched, now, out),
            ToReplica::Ask(ask) => self.on_ask(&ask, out),
            ToReplica::Truncated(truncated) => self.on_truncated(truncated, now, out),
            ToReplica::Replayed(replayed) => self.on_replayed(*replayed, now, out),
            ToReplica::FetchPart(fetch) => self.on_fetch_part(fetch, now, out),
            ToReplica::FetchedPart(part) => self.on_fetched_part(*part, now, out),
            ToReplica::Read(read) => self.on_read(read, now, out),
        }
    }

    /// Formation: tells whether this memory has ever done anything, but to restore the snapshot
    /// that a log is to start from.
    ///
    /// source: R4
    pub fn on_probe(&mut self, probe: Probe, out: &mut Outbox) {
        let origin = self.membership.origin();
        let ack = ProbeAck {
            from: Rememberer::Replica(self.id),
            nonce: probe.nonce,
            directory: self.directory,
            is_blank: self.executed == origin.map_or(Watermark(0), |origin| origin.at)
                && self.membership.table().is_none()
                && self.checkpoints.as_ref().is_none_or(|checkpoints| checkpoints.is_blank),
            origin,
            table: None,
        };
        out.tell_proposer(probe.proposer, ToProposer::ProbeAck(Box::new(ack)));
    }

    /// Joins the leader's cluster, shows it that we live, and learns how far the others are.
    ///
    /// source: R4, R29
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Time, out: &mut Outbox) {
        if !self.membership.join(&heartbeat.table) {
            self.counters.foreign += 1;
            return out.event(Event::Foreign { at: "replica: heartbeat" });
        }
        if heartbeat.stage == Stage::Leading && heartbeat.ballot >= self.leader {
            self.leader = heartbeat.ballot;
        }
        self.chosen.raise(heartbeat.chosen);
        self.end_donation_if_unused(now);
        self.look_after_checkpoints(!heartbeat.no_room.is_empty(), now, out);
        self.watch_gap(now);
        match heartbeat.stage {
            Stage::Waiting if self.restoring.is_none() => self.start_replay(now, out),
            // All that is chosen from here on we are told: acceptors need not tell it besides.
            Stage::Leading if self.missing() >= self.chosen.first_open() => self.stop_replay(),
            Stage::Waiting
            | Stage::Leading
            | Stage::Campaigning
            | Stage::Leaving
            | Stage::Following => {}
        }
        // To all, whether it has changed or not: an acceptor that missed the last report could not
        // truncate, and would refuse what is beyond its ring, for as long as nothing else is
        // executed.
        self.report_to_all(out);
        self.repeat_halted(heartbeat, out);
    }

    /// Takes a decided slot in, and executes what is in order now.
    ///
    /// source: R15, \[CP §2.3\], "replicas execute commands in log order"
    pub fn on_chosen(&mut self, chosen: Chosen, now: Time, out: &mut Outbox) {
        let Chosen { slot, ballot, value } = chosen;
        self.chosen.raise(slot.watermark_after());
        if self.halted.is_some() {
            self.look_for_skip(&value, out);
        }
        if self.restoring.is_some() {
            return out.ignored("Chosen: a state is restored; what is missing then is asked for");
        }
        if self.executed.covers(slot) {
            self.counters.repeated_slots += 1;
            return out.ignored("Chosen: its slot is executed");
        }
        if !self.has_room_for(slot) {
            // Its place still holds what a peer may need; it will be fetched in its turn.
            self.counters.above_window += 1;
            out.ignored("Chosen: its slot is above the window");
            return self.watch_gap(now);
        }
        match self.log.occupant(slot) {
            Some((occupant, (_, known))) if occupant == slot => {
                assert!(*known == value, "{slot}: two values were chosen");
                self.counters.repeated_slots += 1;
            }
            occupant => {
                let displaced = occupant.map_or(Slot(0), |(displaced, _)| displaced);
                let is_free = occupant.is_none() || self.executed.covers(displaced);
                assert!(is_free, "{slot} displaces {displaced}, which is not executed");
                self.log.insert(slot, (ballot, value));
            }
        }
        match self.halted {
            None => self.execute(now, out),
            Some(_) => self.note_held(),
        }
        if self.executed < self.chosen {
            self.watch_gap(now);
        }
    }

    /// Shows a watcher which life of this replica is the current one.
    ///
    /// source: R16
    pub fn on_identify(&mut self, identify: Identify, out: &mut Outbox) {
        let executed = self.report(Some(identify.nonce));
        match identify.watcher {
            Watcher::Proposer(id) => out.tell_proposer(id, ToProposer::Executed(executed)),
            Watcher::Acceptor(id) => out.tell_acceptor(id, ToAcceptor::Executed(executed)),
        }
    }

    /// Tells a gateway what became of a batch.
    ///
    /// source: R25
    pub fn on_ask(&mut self, ask: &Ask, out: &mut Outbox) {
        if self.halted.is_some() {
            return self.tell_halted(ask.batch.gateway, out);
        }
        if self.restoring.is_some() {
            let not_yet = NotExecuted { replica: self.id, batch: ask.batch, attempt: ask.attempt };
            return out.tell_gateway(ask.batch.gateway, ToGateway::NotExecuted(not_yet));
        }
        let is_past_open = ask.session.is_some_and(|session| self.executed.covers(session.slot));
        let (replica, Ask { batch, attempt, .. }) = (self.id, *ask);
        match self.executor.known(ask, is_past_open) {
            Known::Executed(outcomes) => {
                let slot = Slot(self.executed.0.saturating_sub(1));
                self.answer(Results { replica, batch, attempt, slot, outcomes }, out);
            }
            Known::NotYet => {
                let not_yet = NotExecuted { replica, batch, attempt };
                out.tell_gateway(batch.gateway, ToGateway::NotExecuted(not_yet));
            }
        }
    }

    /// Tells a gateway what became of a batch, as far as one message has room. For the rest the
    /// gateway asks when it has this: so however long replies are, no more of them are on their way
    /// at once.
    ///
    /// source: R29
    fn answer(&mut self, whole: Results, out: &mut Outbox) {
        let (gateway, whole_bytes) = (whole.batch.gateway, whole.outcomes.len());
        let outcomes = block::head(whole.outcomes, self.cluster.results_bytes_max as usize);
        self.counters.partial_answers += u64::from(outcomes.len() < whole_bytes);
        let (bytes, results) = (outcomes.len(), Results { outcomes, ..whole });
        let results = self.results.hand_out_holding(bytes, results);
        out.tell_gateway(gateway, ToGateway::Results(results));
    }

    /// Learns that acceptors have truncated the slots it misses. What they truncate at least f+1
    /// replicas have executed, and a peer has it in its log or its state.
    ///
    /// source: R8, R10, R16
    pub fn on_truncated(&mut self, truncated: Truncated, now: Time, out: &mut Outbox) {
        self.truncated.raise(truncated.truncated);
        self.transfer_if_needed(now, out);
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timeout(timer, now, out);
        }
    }

    /// Does what a timer asks for.
    pub fn on_timeout(&mut self, timer: ReplicaTimer, now: Time, out: &mut Outbox) {
        match timer {
            ReplicaTimer::Gap => self.fill_gap(now, out),
            ReplicaTimer::Replay => self.go_on_replaying(now, out),
            ReplicaTimer::Report => self.report_to_all(out),
            ReplicaTimer::Donation => self.go_on_donating(now, out),
            ReplicaTimer::Checkpoint => self.go_on_checkpointing(now, out),
            ReplicaTimer::Transfer => self.go_on_transferring(now, out),
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        assert!(self.reported <= self.executed, "reported more than was executed");
        assert!(self.executed <= self.chosen, "executed more than was chosen");
        let executed = self.executed.0;
        for (slot, _) in self.log.iter() {
            let is_near = (self.executed.covers(slot) || self.has_room_for(slot))
                && slot.0 + self.log.capacity() >= executed;
            assert!(is_near, "{slot} is held at {}", self.executed);
        }
        let is_next_held = self.log.at(self.executed.first_open()).is_some();
        assert!(!is_next_held || self.halted.is_some(), "the next slot is held and not executed");
        if self.restoring.is_none() && self.halted.is_none() {
            self.executor.validate();
        }
        self.validate_reads();
        self.validate_donation();
        if let Some(checkpoints) = &self.checkpoints {
            checkpoints.validate(self.executed);
            assert!(self.donation.is_none(), "a durable replica holds a snapshot in memory");
        }
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<ReplicaTimer, 6> {
        &mut self.timers
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// The replica's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The bound below which it has executed everything.
    #[must_use]
    pub fn executed(&self) -> Watermark {
        self.executed
    }

    /// The bound below which everything is in a durable snapshot that it counts on: zero in memory.
    #[must_use]
    pub fn snapshot(&self) -> Watermark {
        self.checkpoints.as_ref().map(|checkpoints| checkpoints.counted).unwrap_or_default()
    }

    /// Its life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &M {
        &self.executor.machine
    }

    /// The digest of its state at [`executed`](Self::executed).
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        match &self.restoring {
            Some(restoring) => restoring.state_hash_before,
            None => self.executor.machine.state_hash(),
        }
    }

    /// Whether it restores the state of a peer: its machine is in the state of no slot then.
    #[must_use]
    pub fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// The value that it executed in `slot`, if it still holds that.
    #[must_use]
    pub fn executed_value(&self, slot: Slot) -> Option<&Value> {
        self.log.at(slot).filter(|_| self.executed.covers(slot)).map(|(_, value)| value)
    }

    /// The reason why it goes no further.
    #[must_use]
    pub fn halted(&self) -> Option<&Halt> {
        self.halted.as_ref()
    }

    /// Whether its driver is to end this life, and begin the next: it has halted, and what it has
    /// in its directory is all that it needs to go on.
    ///
    /// source: R16, R38
    #[must_use]
    pub fn is_to_start_over(&self) -> bool {
        let is_state_gone = matches!(self.halted, Some(Halt::SnapshotRefused { .. }));
        self.checkpoints.is_some() && (is_state_gone || self.skip == Skip::Noted)
    }

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> ReplicaCounters {
        ReplicaCounters {
            commands: self.executor.commands,
            repeated_runs: self.executor.repeated_runs,
            refused_runs: self.executor.refused_runs,
            replies_let_go: self.executor.let_go(),
            queries: self.executor.queries,
            queries_panicked: self.executor.queries_panicked,
            ..self.counters
        }
    }

    /// Executes slots for as long as the next one is known.
    fn execute(&mut self, now: Time, out: &mut Outbox) {
        while let Some((_, value)) = self.log.at(self.executed.first_open()) {
            let slot = self.executed.first_open();
            let outcomes = match value.batch() {
                Some(batch) => {
                    let is_answerer = batch.answerer == self.id;
                    match self.executor.execute(slot, batch, value.stamp, is_answerer) {
                        Ok(outcomes) => outcomes,
                        Err(why) => return self.halt(*why, out),
                    }
                }
                None => {
                    self.counters.noops += 1;
                    self.executor.pass(value.stamp);
                    None
                }
            };
            if let Some(checkpoints) = &mut self.checkpoints {
                checkpoints.on_executed(value);
            }
            self.executed = slot.watermark_after();
            self.counters.slots += 1;
            if let (Some(batch), Some(outcomes)) = (value.batch(), outcomes) {
                self.counters.answers += 1;
                let (replica, batch, attempt) = (self.id, batch.id, batch.attempt);
                self.answer(Results { replica, batch, attempt, slot, outcomes }, out);
            }
            if self.donation.is_some() {
                self.keep_for_peers(slot);
            }
        }
        if !self.reads.is_empty() {
            self.answer_waiting(out);
        }
        if self.checkpoints.is_some() {
            self.checkpoint_if_due(now, out);
        }
        assert!(self.executed <= self.chosen, "executed {}, chosen {}", self.executed, self.chosen);
        assert!(self.reported <= self.executed, "reported {}", self.reported);
        if self.executed.0 - self.reported.0 >= u64::from(self.cluster.slot_window / 8) {
            self.report_to_all(out);
        } else if self.executed > self.reported {
            self.timers.set_if_unset(ReplicaTimer::Report, now + self.cluster.report_interval);
        }
    }

    fn report(&self, nonce: Option<u64>) -> Executed {
        let (replica, incarnation) = (self.id, self.incarnation);
        let (executed, snapshot) = (self.executed, self.snapshot());
        Executed { replica, incarnation, executed, snapshot, nonce }
    }

    fn report_to_all(&mut self, out: &mut Outbox) {
        self.timers.stop(ReplicaTimer::Report);
        assert!(self.reported <= self.executed, "a report goes back to {}", self.executed);
        self.reported = self.executed;
        let executed = self.report(None);
        for proposer in self.cluster.all_proposers() {
            out.tell_proposer(proposer, ToProposer::Executed(executed));
        }
        for acceptor in (0..self.cluster.quorums.acceptors_count()).map(AcceptorId) {
            out.tell_acceptor(acceptor, ToAcceptor::Executed(executed));
        }
    }
}
