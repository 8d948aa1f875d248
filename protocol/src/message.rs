//! What the roles say to each other. Names and fields are the paper's where it has them.
//!
//! Every message names its sender where the receiver cares (R1), so that no transport has to. A
//! message is addressed by its type: what a role cannot understand cannot be sent to it.
//!
//! ```text
//!              Propose ▶           P2a ▶               P2a ▶
//!   Gateway ─────────── Proposer ───────── ProxyLeader ─────── Acceptor
//!      │  ◀ NotLeader                          │       ◀ P2b, Nack, Truncated
//!      │                                       │ Chosen ▶
//!      └──────────────── Results ◀ ────────── Replica
//!
//!              PreRead ▶ Acceptor       Read ▶ Replica       a read, without a leader
//!   Gateway  ◀ PreReadAck           ◀ ReadResults
//! ```

use std::sync::Arc;

use crate::{
    AcceptorId, AcceptorSet, Ballot, BatchId, BatchWriter, DirectoryId, FormationId, GatewayId,
    Halt, Incarnation, LoggedCommand, Payload, Position, ProposerId, ProxyLeaderId, ReplicaId, Run,
    Runs, SessionId, Slot, SnapshotId, SnapshotInfo, Table, Time, Watermark,
};

/// A message on its way: the role that it is for, and the cluster that it is of.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Envelope {
    /// The formation that the sender belongs to; `None` before it knows of one (R4).
    pub formation: Option<FormationId>,
    /// Receiver and message.
    pub to: To,
}

/// A receiver, and what it is told.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum To {
    /// To a gateway.
    Gateway(GatewayId, ToGateway),
    /// To a proposer.
    Proposer(ProposerId, ToProposer),
    /// To a proxy leader.
    ProxyLeader(ProxyLeaderId, ToProxyLeader),
    /// To an acceptor.
    Acceptor(AcceptorId, ToAcceptor),
    /// To a replica.
    Replica(ReplicaId, ToReplica),
}

/// A message to a gateway.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ToGateway {
    /// The leader's ballot, and the cluster's table.
    Heartbeat(Heartbeat),
    /// A proposer does not lead.
    NotLeader(NotLeader),
    /// A batch was executed, or why not.
    Results(Arc<Results>),
    /// A replica has not executed a batch it was asked about.
    NotExecuted(NotExecuted),
    /// A replica goes no further.
    Halted(Box<Halted>),
    /// How far an acceptor has voted.
    PreReadAck(PreReadAck),
    /// The replies to reads.
    ReadResults(Arc<ReadResults>),
}

/// A message to a proposer.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ToProposer {
    /// An acceptor's or replica's memory, before formation.
    ProbeAck(Box<ProbeAck>),
    /// The table that an acceptor holds.
    Formed(Formed),
    /// Whether an acceptor has heard of a leader lately.
    PreVoteAck(PreVoteAck),
    /// A page of a promise.
    P1b(Box<P1b>),
    /// A larger ballot got to an acceptor first.
    Nack(Nack),
    /// Another proposer leads, or means to.
    Heartbeat(Heartbeat),
    /// A heartbeat got through.
    HeartbeatAck(HeartbeatAck),
    /// A batch for the log.
    Propose(Propose),
    /// A slot was chosen and forgotten long ago.
    Truncated(Truncated),
    /// A replica's executed watermark.
    Executed(Executed),
    /// A replica misses a slot that none of its peers can give it.
    Need(Need),
    /// A gateway gets no answers, as an acceptor has heard.
    Unserved(Unserved),
    /// A replica goes no further.
    Halted(Box<Halted>),
    /// An operator wants a command skipped, at which all replicas have halted.
    Skip(LoggedCommand),
    /// Reads wait for slots that may never be proposed.
    FillTo(FillTo),
}

/// A message to a proxy leader.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ToProxyLeader {
    /// The leader's ballot, and the cluster's table.
    Heartbeat(Heartbeat),
    /// A value to get chosen.
    P2a(P2a),
    /// A vote.
    P2b(P2b),
    /// A larger ballot got to an acceptor first.
    Nack(Nack),
    /// A slot was chosen and forgotten long ago.
    Truncated(Truncated),
}

/// A message to an acceptor.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ToAcceptor {
    /// A proposer asks whether its memory is blank.
    Probe(Probe),
    /// The cluster's table.
    Form(Form),
    /// A proposer asks whether it may campaign.
    PreVote(PreVote),
    /// Phase 1.
    P1a(P1a),
    /// Phase 2.
    P2a(P2a),
    /// A leader or candidate is alive.
    Heartbeat(Heartbeat),
    /// A replica's executed watermark.
    Executed(Executed),
    /// A replica asks for votes.
    Replay(Replay),
    /// A gateway gets no answers.
    Unserved(Unserved),
    /// A gateway asks how far it has voted.
    PreRead(PreRead),
}

/// A message to a replica.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ToReplica {
    /// A proposer asks whether its memory is blank.
    Probe(Probe),
    /// The leader's ballot, and how far the other replicas are.
    Heartbeat(Heartbeat),
    /// A decided slot.
    Chosen(Chosen),
    /// A proposer or acceptor asks which life of it is the current one.
    Identify(Identify),
    /// A peer asks for slots.
    Fetch(Fetch),
    /// Slots that a peer has executed.
    Fetched(Fetched),
    /// A gateway asks what became of a batch.
    Ask(Ask),
    /// The leader cannot get a needed slot any more.
    Truncated(Truncated),
    /// Votes of an acceptor.
    Replayed(Box<Replayed>),
    /// A peer asks for a part of our snapshot.
    FetchPart(FetchPart),
    /// A part of a peer's snapshot.
    FetchedPart(Box<FetchedPart>),
    /// Reads of a gateway.
    Read(Arc<Read>),
}

/// A value that a slot may hold, with the time when its leader first proposed it.
///
/// source: R26, "the stamp is part of the voted value"
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Value {
    /// The log's time at this slot, as its first proposer saw it.
    pub stamp: Time,
    /// Commands, or nothing.
    pub content: Content,
}

/// Commands, or nothing.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Content {
    /// Fills a hole that a new leader found in the log.
    Noop,
    /// Commands of a gateway.
    Batch(Arc<Batch>),
}

/// An opaque block of commands, encoded once by a gateway and only referenced from there on.
///
/// Messages and windows hold it by count: a slot is stored eight times and moved some thirty on its
/// way, and counting a batch costs less than copying even the smallest.
///
/// source: \[CP §4.1\], "the leader is responsible for sequencing batches"
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Batch {
    /// The batch's id; equal ids have equal blocks.
    pub id: BatchId,
    /// Counts its sendings, from 0 (R23).
    pub attempt: u32,
    /// The one replica that answers it. \[CP §3.3\]
    pub answerer: ReplicaId,
    /// The number of commands that it holds.
    pub commands_count: u32,
    /// The commands: see [`Runs`](crate::Runs).
    pub block: Payload,
    /// The block's checksum, made once by its gateway and carried along: a role that logs or
    /// executes a block that came over a wire checks it against this.
    pub checksum: u32,
}

/// Gateway → proposer: "give this batch a slot".
///
/// source: R24, \[CP §4.1\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Propose {
    /// The batch.
    pub batch: Arc<Batch>,
    /// The number of its gateway's lowest batch without an answer, in this life; the batch's own at
    /// the most. All below is executed, so a batch whose number this is can be executed wherever it
    /// is put.
    pub lowest: u64,
}

/// An acceptor's vote: the value, and the ballot it was voted for in.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Vote {
    /// The ballot of the P2a that was voted for.
    pub ballot: Ballot,
    /// The value of that P2a.
    pub value: Value,
}

/// Proposer → acceptors and replicas: "who are you, and have you ever done anything?"
///
/// source: R4
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Probe {
    /// The proposer that asks.
    pub proposer: ProposerId,
    /// Names this probe: an answer to another does not count.
    pub nonce: u64,
    /// The asker's quorum system and f (R3).
    pub cluster_digest: u64,
}

/// A memory, which answers a probe.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Rememberer {
    /// An acceptor.
    Acceptor(AcceptorId),
    /// A replica.
    Replica(ReplicaId),
}

/// Acceptor or replica → proposer: its memory.
///
/// source: R4
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ProbeAck {
    /// The memory that answers.
    pub from: Rememberer,
    /// The probe.
    pub nonce: u64,
    /// The memory's identity.
    pub directory: DirectoryId,
    /// Whether it holds neither table, promise, vote nor executed slot, but for those of `origin`.
    pub is_blank: bool,
    /// The snapshot that it has restored to start a log from, if it is a replica that has.
    pub origin: Option<SnapshotId>,
    /// The table it holds, if it is an acceptor that has one.
    pub table: Option<Arc<Table>>,
}

/// Proposer → acceptors: "this is the cluster".
///
/// source: R4
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Form {
    /// The proposer that asks.
    pub proposer: ProposerId,
    /// The table to store.
    pub table: Arc<Table>,
}

/// Acceptor → proposer: the table it holds. **After sync.**
///
/// source: R4
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Formed {
    /// The acceptor that answers.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// The first table it stored, whatever was offered later.
    pub table: Arc<Table>,
}

/// Proposer → acceptors: "may I campaign?"
///
/// source: R28
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PreVote {
    /// The proposer that asks.
    pub proposer: ProposerId,
    /// Names this question: an answer to an earlier one does not count.
    pub nonce: u64,
}

/// Acceptor → proposer: whether it has heard no leader for an election timeout.
///
/// source: R28
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PreVoteAck {
    /// The acceptor that answers.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// The question.
    pub nonce: u64,
    /// Whether it has heard of no leader for an election timeout.
    pub is_quiet: bool,
    /// Whether its log has so little room that it votes for nothing that is proposed for the first
    /// time.
    pub is_low: bool,
    /// Its promise: the campaign must outbid it.
    pub promised: Ballot,
    /// Above every slot it has ever voted in: what a campaign has to recover ends there.
    pub votes_end: Watermark,
}

/// Leader → all acceptors: "promise me `ballot`, and send me a page of what you voted for".
///
/// source: R5, R6, \[CP §2.1\]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct P1a {
    /// The ballot to promise.
    pub ballot: Ballot,
    /// The first slot of interest. Never changes within a ballot.
    pub first: Slot,
    /// The place where the wanted page starts; `first` in the first one.
    pub page: Slot,
}

/// Acceptor → leader: "promised; this is what I voted for in `[from, to)`". **After sync.**
///
/// source: R6
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct P1b {
    /// The acceptor that promises.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// The ballot that is promised.
    pub ballot: Ballot,
    /// Everything below is chosen, executed by f+1 replicas, and forgotten here.
    pub truncated: Watermark,
    /// The slot where this page starts.
    pub from: Slot,
    /// The bound that it ends at; `None` if there is nothing above.
    pub to: Option<Watermark>,
    /// Every vote in the page's range, in slot order.
    pub votes: Vec<(Slot, Vote)>,
}

/// Leader → proxy leader → acceptors of one write quorum: "vote for `value` in `slot`".
///
/// source: \[CP §3.1\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct P2a {
    /// The leader's ballot.
    pub ballot: Ballot,
    /// The slot to vote in.
    pub slot: Slot,
    /// The proxy leader that it goes through, and that is answered.
    pub via: ProxyLeaderId,
    /// Whether phase 1 has found that something may be chosen in the slot, or above it; likewise if
    /// it is a no-op, for which some acceptor has voted at or above it (R7, R20), or skips a
    /// command. Otherwise it is proposed for the first time, and an acceptor whose log is low
    /// refuses it.
    pub is_recovered: bool,
    /// The value to vote for.
    pub value: Value,
}

/// Acceptor → proxy leader: "voted". **After sync.**
///
/// source: R4, R11
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct P2b {
    /// The acceptor that voted.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// The ballot voted in.
    pub ballot: Ballot,
    /// The slot voted in.
    pub slot: Slot,
}

/// Acceptor → proposer of the refused ballot, and → proxy leader: "a larger ballot got here first".
///
/// source: R13
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Nack {
    /// The slot of the refused P2a; `None` for a refused P1a or heartbeat.
    pub slot: Option<Slot>,
    /// The ballot that was refused.
    pub refused: Ballot,
    /// The ballot that was promised instead; always larger.
    pub promised: Ballot,
}

/// Acceptor → proxy leader → proposer → replica: "that slot was chosen, executed by f+1 replicas,
/// and forgotten; its value is not to be had here".
///
/// source: R10
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Truncated {
    /// The acceptor that says so; `None` if it is the leader, of its whole read quorum.
    pub acceptor: Option<AcceptorId>,
    /// The slot that was asked for.
    pub slot: Slot,
    /// The ballot it was asked for in.
    pub ballot: Ballot,
    /// Everything below is forgotten.
    pub truncated: Watermark,
}

/// Proxy leader → replicas: "`slot` is decided, for ever".
///
/// source: R14, \[CP §3.1\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Chosen {
    /// The decided slot.
    pub slot: Slot,
    /// A ballot it was chosen in.
    pub ballot: Ballot,
    /// The decided value.
    pub value: Value,
}

/// Leader or candidate → all roles: "I am here".
///
/// source: R28
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Heartbeat {
    /// The ballot, which names its sender.
    pub ballot: Ballot,
    /// The stage that its sender is in.
    pub stage: Stage,
    /// Everything below is chosen: a replica that has not executed as much has missed something.
    pub chosen: Watermark,
    /// The acceptors for want of whose room nothing is proposed for the first time; none if
    /// something is.
    pub no_room: AcceptorSet,
    /// Of a leader: whether it is silent towards acceptors and proposers, since no read quorum
    /// hears it or nothing gets chosen. Gateways that hear it are not served for that (R37).
    pub is_silent: bool,
    /// The cluster's table, for roles that have just started.
    pub table: Arc<Table>,
}

/// The stage that the sender of a heartbeat is in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
    /// In phase 1.
    Campaigning,
    /// In phase 2.
    Leading,
    /// About to stop: a proposer that hears this need not wait for an election timeout.
    Leaving,
    /// Would campaign, and waits for replicas to replay what acceptors have: told to replicas only.
    Waiting,
    /// Follows, or asks whether it may campaign: told to replicas only, which may not hear the
    /// leader.
    Following,
}

/// The role that acknowledges a heartbeat.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Listener {
    /// An acceptor.
    Acceptor(AcceptorId),
    /// A proxy leader.
    ProxyLeader(ProxyLeaderId),
    /// A gateway.
    Gateway(GatewayId),
}

/// Acceptor, proxy leader or gateway → leader: "heard you".
///
/// source: R28
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct HeartbeatAck {
    /// The role that heard it.
    pub from: Listener,
    /// The heartbeat's ballot.
    pub ballot: Ballot,
    /// Of an acceptor: whether its log has so little room that it votes for nothing that is
    /// proposed for the first time.
    pub is_low: bool,
    /// Of an acceptor: what its clock shows (R26); else zero.
    pub clock: Time,
}

/// Proposer → gateway: "I do not lead; ask another".
///
/// source: R9
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NotLeader {
    /// The proposer that says so.
    pub proposer: ProposerId,
    /// The refused batch: it was not proposed in this attempt.
    pub batch: BatchId,
    /// The refused attempt.
    pub attempt: u32,
    /// The proposer that might lead.
    pub hint: Option<ProposerId>,
}

/// Replica → gateway: what became of a batch's commands.
///
/// source: \[CP §4.2\], R23
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Results {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: u32,
    /// The slot that the answer reflects.
    pub slot: Slot,
    /// The outcome of each run: see [`Outcomes`](crate::Outcomes).
    pub outcomes: Payload,
}

/// Gateway → replica: "what became of this batch?"
///
/// source: R25
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ask {
    /// The batch.
    pub batch: BatchId,
    /// The attempt that is in doubt.
    pub attempt: u32,
    /// The session of its commands; `None` for the batch that opens the session.
    pub session: Option<SessionId>,
    /// The number of the first.
    pub first: u64,
    /// Their number.
    pub count: u32,
}

/// Replica → gateway: "not executed here so far".
///
/// source: R25
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct NotExecuted {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The batch.
    pub batch: BatchId,
    /// The attempt.
    pub attempt: u32,
}

/// Replica → gateways and leader: "I go no further, and answer nothing". Told when it halts, and
/// with each heartbeat of a leader from then on; gateways also in answer to an [`Ask`].
///
/// source: R25, R28
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Halted {
    /// The replica that has halted.
    pub replica: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// Why.
    pub why: Halt,
}

/// Gateway → acceptors → the leader that they hear: "I get no answers".
///
/// What a gateway says to a leader that it cannot reach gets there through acceptors: each leader
/// is heard by a read quorum of them, and a gateway that nothing is wrong with reaches one of these
/// at the least.
///
/// source: R28
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Unserved {
    /// The gateway.
    pub gateway: GatewayId,
}

/// Gateway → acceptors of one read quorum: "how far have you voted?"
///
/// source: R19, \[CP §3.4\], \[PQR\]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PreRead {
    /// The gateway that asks.
    pub gateway: GatewayId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The number of its probe, in that life.
    pub probe: u64,
}

/// Acceptor → gateway: "so far".
///
/// source: R18, R19
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PreReadAck {
    /// The acceptor that answers.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// The life of the gateway that asked.
    pub incarnation: Incarnation,
    /// The probe.
    pub probe: u64,
    /// The largest slot it has ever voted in; at least the last one truncated. Never goes down.
    pub vote_watermark: Option<Slot>,
}

/// Gateway → replica: "answer these queries, once you have executed all below `at_least`".
///
/// source: \[CP §3.4\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Read {
    /// The gateway that asks.
    pub gateway: GatewayId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The number of its group of reads, in that life.
    pub group: u64,
    /// How many of the group's reads have their answers: the first of these queries is the next.
    pub first: u32,
    /// What must be executed before any is answered.
    pub at_least: Watermark,
    /// The queries: see [`Items`](crate::Items).
    pub queries: Payload,
}

/// Replica → gateway: the replies to the first queries of a [`Read`], as many as one message has
/// room for.
///
/// source: R21, R29, \[CP §3.4\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ReadResults {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The life of the gateway that asked.
    pub incarnation: Incarnation,
    /// The group of reads.
    pub group: u64,
    /// The place of the first reply among the group's.
    pub first: u32,
    /// What the replies reflect: all below is executed, and nothing else.
    pub executed: Watermark,
    /// The replies: see [`ReplyItems`](crate::ReplyItems).
    pub replies: Payload,
}

/// Gateway → proposers: "see to it that all below `to` is chosen: reads wait for it".
///
/// Some acceptor has voted for something below `to`, in a slot that no leader may know of.
///
/// source: R20
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FillTo {
    /// The gateway that asks.
    pub gateway: GatewayId,
    /// The bound.
    pub to: Watermark,
}

/// A role that follows the replicas' progress.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Watcher {
    /// A proposer: for phase 1 and for credit (R5, R29).
    Proposer(ProposerId),
    /// An acceptor: for truncation (R16).
    Acceptor(AcceptorId),
}

/// Proposer or acceptor → replica: "answer with this nonce, so that I know you are alive now".
///
/// source: R16
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Identify {
    /// The role that asks.
    pub watcher: Watcher,
    /// To be sent back.
    pub nonce: u64,
}

/// Replica → proposers and acceptors: "I have executed everything below, and hold a snapshot".
///
/// source: R5, R16
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Executed {
    /// The replica.
    pub replica: ReplicaId,
    /// In which life: another one may have to start over.
    pub incarnation: Incarnation,
    /// Everything below is executed. Never goes down within a life.
    pub executed: Watermark,
    /// Everything below is in a snapshot that is durable in the replica's directory; zero for a
    /// replica in memory. At most `executed`.
    pub snapshot: Watermark,
    /// The nonce of the [`Identify`] that this answers.
    pub nonce: Option<u64>,
}

/// Replica → leader: "no peer or acceptor can give me this slot".
///
/// source: R8
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Need {
    /// The replica that asks.
    pub replica: ReplicaId,
    /// In which life.
    pub incarnation: Incarnation,
    /// The slot it is stuck at.
    pub slot: Slot,
}

/// How many pages answer a [`Fetch`] or a [`Replay`], one behind the other, if there is so much:
/// catching up then takes as many fewer times what it takes a message to be answered.
pub const PAGES_AHEAD: u32 = 4;

/// Replica → replica: "give me what you executed from `first` on". Answered in up to
/// [`PAGES_AHEAD`] pages.
///
/// source: R15
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Fetch {
    /// The replica that asks.
    pub replica: ReplicaId,
    /// The first slot wanted.
    pub first: Slot,
}

/// Replica → replica: slots of its executed log.
///
/// source: R15
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Fetched {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The first slot of this page.
    pub first: Slot,
    /// The slots from `first` on that the sender has executed and still holds: possibly none.
    pub slots: Vec<(Ballot, Value)>,
    /// How far the sender has executed: more than `first` with no slots means that it has let go of
    /// them.
    pub executed: Watermark,
}

/// Replica → acceptors: "tell me what you voted for, from `first` on". Answered in up to
/// [`PAGES_AHEAD`] pages.
///
/// source: R15
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Replay {
    /// The replica that asks.
    pub replica: ReplicaId,
    /// The first slot wanted.
    pub first: Slot,
}

/// Acceptor → replica: "this is what I voted for in `[from, to)`". **After sync.**
///
/// source: R15
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Replayed {
    /// The acceptor that answers.
    pub acceptor: AcceptorId,
    /// Its memory's identity.
    pub directory: DirectoryId,
    /// Every vote below is forgotten.
    pub truncated: Watermark,
    /// The slot where this page starts: above the slot asked for, if that is truncated, or if
    /// others came before it.
    pub from: Slot,
    /// The bound that it ends at; `None` if there is nothing above.
    pub to: Option<Watermark>,
    /// Every last vote in the page's range, in slot order.
    pub votes: Vec<(Slot, Vote)>,
}

/// Replica → replica: "send me a part of your snapshot".
///
/// source: R16
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FetchPart {
    /// The replica that asks.
    pub replica: ReplicaId,
    /// Of which snapshot; `None`: of any that is beyond `beyond`.
    pub snapshot: Option<SnapshotId>,
    /// Which part, from 0. A number beyond the last part asks only that the snapshot and the log
    /// above it be kept.
    pub part: u32,
    /// What the asker can do without: it has executed everything below, or acceptors have truncated
    /// it. Only a snapshot of more than that is of use.
    pub beyond: Watermark,
}

/// Replica → replica: a part of a snapshot, or that it is not to be had.
///
/// source: R16, "chunks name (donor, snapshot id)"
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct FetchedPart {
    /// The replica that answers.
    pub replica: ReplicaId,
    /// The snapshot that was asked for, or of which this is a part.
    pub snapshot: Option<SnapshotId>,
    /// The snapshot of which this is a part. `None`: there is none here, or not yet.
    pub info: Option<SnapshotInfo>,
    /// Without `info`: whether one is being written, so that it is worth asking again.
    pub is_coming: bool,
    /// The part.
    pub part: u32,
    /// The part.
    pub bytes: Payload,
}

impl Value {
    /// A value that fills a hole.
    #[must_use]
    pub fn noop(stamp: Time) -> Self {
        Self { stamp, content: Content::Noop }
    }

    /// A value that skips a command, proposed by a leader and no gateway. Equal commands make equal
    /// batches.
    ///
    /// source: R38
    pub(crate) fn skip(stamp: Time, command: LoggedCommand) -> Self {
        let LoggedCommand { at: Position { slot, index }, checksum } = command;
        let block = BatchWriter::skip(command);
        let batch = Batch {
            id: BatchId {
                gateway: GatewayId(0),
                incarnation: Incarnation(u64::from(index) << 32 | u64::from(checksum)),
                number: slot.0,
            },
            attempt: 0,
            answerer: ReplicaId(0),
            commands_count: 0,
            checksum: block.checksum(),
            block,
        };
        Self { stamp, content: Content::Batch(Arc::new(batch)) }
    }

    /// The command that it skips, if it is such a value.
    #[must_use]
    pub fn skipped(&self) -> Option<LoggedCommand> {
        let batch = self.batch().filter(|batch| batch.commands_count == 0)?;
        match Runs::new(batch.block.as_slice()).next() {
            Some(Ok(Run::Skip(command))) => Some(command),
            _ => None,
        }
    }

    /// Whether it fills a hole.
    #[must_use]
    pub fn is_noop(&self) -> bool {
        matches!(self.content, Content::Noop)
    }

    /// The batch, if it is one.
    #[must_use]
    pub fn batch(&self) -> Option<&Arc<Batch>> {
        match &self.content {
            Content::Noop => None,
            Content::Batch(batch) => Some(batch),
        }
    }
}

impl To {
    /// Whether elections need it to arrive where all else is stuck: it has room reserved in every
    /// queue.
    ///
    /// source: R29, "heartbeats, nacks, P1a and P1b have reserved room"
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Gateway(_, message) => matches!(message, ToGateway::Heartbeat(_)),
            Self::Proposer(_, message) => matches!(
                message,
                ToProposer::Heartbeat(_)
                    | ToProposer::HeartbeatAck(_)
                    | ToProposer::PreVoteAck(_)
                    | ToProposer::P1b(_)
                    | ToProposer::Nack(_)
            ),
            Self::ProxyLeader(_, message) => {
                matches!(message, ToProxyLeader::Heartbeat(_) | ToProxyLeader::Nack(_))
            }
            Self::Acceptor(_, message) => matches!(
                message,
                ToAcceptor::Heartbeat(_) | ToAcceptor::PreVote(_) | ToAcceptor::P1a(_)
            ),
            Self::Replica(_, message) => matches!(message, ToReplica::Heartbeat(_)),
        }
    }

    /// Whether this may pass between roles that do not both know the formation yet (R4): what sets
    /// it up, the heartbeats that spread it, and the complaint of a gateway that hears no leader.
    #[must_use]
    pub fn precedes_formation(&self) -> bool {
        match self {
            Self::Gateway(_, message) => matches!(message, ToGateway::Heartbeat(_)),
            Self::Proposer(_, message) => matches!(
                message,
                ToProposer::ProbeAck(_) | ToProposer::Formed(_) | ToProposer::Heartbeat(_)
            ),
            Self::ProxyLeader(_, message) => matches!(message, ToProxyLeader::Heartbeat(_)),
            Self::Acceptor(_, message) => {
                matches!(
                    message,
                    ToAcceptor::Probe(_)
                        | ToAcceptor::Form(_)
                        | ToAcceptor::Heartbeat(_)
                        | ToAcceptor::Unserved(_)
                )
            }
            Self::Replica(_, message) => {
                matches!(message, ToReplica::Probe(_) | ToReplica::Heartbeat(_))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_small_since_every_hop_moves_it() {
        assert!(size_of::<To>() <= 72, "{} bytes", size_of::<To>());
        assert!(size_of::<Envelope>() <= 88, "{} bytes", size_of::<Envelope>());
    }
}
