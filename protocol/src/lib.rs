//! Compartmentalized MultiPaxos as sans-IO state machines.
//!
//! One module a role; every role is a struct that is told what happened and says what to do about
//! it. Nothing here opens a socket, reads a clock, draws a random number or starts a thread, so a
//! run is a pure function of its inputs and can be replayed from a seed.
//!
//! ```text
//!             Propose        P2a             P2a
//!   Gateway ─────────▶ Proposer ──▶ ProxyLeader ──▶ Acceptor     a write quorum of them
//!      ▲                                │  ▲          │
//!      │                         Chosen │  └── P2b ───┘
//!      │           Results              ▼
//!      └───────────────────────────── Replica                    all execute, one answers
//! ```
//!
//! Source: Whittaker et al., "Scaling Replicated State Machines with Compartmentalization", VLDB
//! 2021, cited below as \[CP §n\]; \[seed\] is Hydro's dataflow version of it, \[FP\] Howard et
//! al., "Flexible Paxos", \[PQR\] Charapko et al., "Linearizable Quorum Reads in Paxos", and R1 to
//! R38 are the rules of `docs/PROTOCOL.md`.

#![forbid(unsafe_code)]

mod acceptor;
mod block;
mod client;
pub mod conformance;
mod digest;
mod event;
mod executor;
mod formation;
mod gateway;
mod ids;
mod machine;
mod message;
mod outbox;
mod payload;
mod pool;
mod proposer;
mod proxy_leader;
mod quorum;
mod record;
mod replica;
mod rng;
mod role;
mod roster;
mod session;
mod settings;
mod snapshot;
mod time;
mod timer;
mod trial;
mod window;

pub use acceptor::{Acceptor, AcceptorCounters};
pub use block::{
    BatchWriter, CommandRun, Items, MalformedBlock, NoReply, Outcome, Outcomes, ReplyItems,
    ResultWriter, Run, RunAnswers, RunOwner, Runs,
};
pub use client::{Client, ClientSession, OrderId, Start};
pub use digest::Digest;
pub use event::{Event, Halt};
pub use formation::{Former, Membership, Table};
pub use gateway::{
    Gateway, GatewayCounters, GatewayTimer, Query, ReadGroup, ReadLevel, Submission,
};
pub use ids::{
    AcceptorId, Ballot, BatchId, ClientId, DirectoryId, FormationId, GatewayId, Incarnation,
    LoggedCommand, Position, ProposerId, ProxyLeaderId, ReplicaId, SessionId, Slot, Watermark,
};
pub use machine::{At, NotAQuery, Reply, RunReplies, StateMachine};
pub use message::{
    Ask, Batch, Chosen, Content, Envelope, Executed, Fetch, FetchPart, Fetched, FetchedPart,
    FillTo, Form, Formed, Halted, Heartbeat, HeartbeatAck, Identify, Listener, Nack, Need,
    NotExecuted, NotLeader, P1a, P1b, P2a, P2b, PAGES_AHEAD, PreRead, PreReadAck, PreVote,
    PreVoteAck, Probe, ProbeAck, Propose, Read, ReadResults, Rememberer, Replay, Replayed, Results,
    Stage, To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica, Truncated, Unserved,
    Value, Vote, Watcher,
};
pub use outbox::{Caller, Failure, Outbox, Replies};
pub use payload::{INLINE_BYTES_MAX, Payload};
pub use pool::Pool;
pub use proposer::{Proposer, ProposerCounters, ProposerTimer};
pub use proxy_leader::{ProxyLeader, ProxyLeaderCounters, ProxyLeaderTimer};
pub use quorum::{ACCEPTORS_MAX, AcceptorSet, QuorumError, QuorumSystem};
pub use record::{AcceptorState, Cause, LogRoom, Recall, Recalled, Record, ReplayPage};
pub use replica::{Replica, ReplicaCounters, ReplicaDirectory, ReplicaTimer, TransferProgress};
pub use rng::Rng;
pub use role::{Life, NoRole, Role, RoleId};
pub use roster::Roster;
pub use settings::{ClusterSettings, Settings, SettingsError};
pub use snapshot::{
    MalformedSnapshot, PartsDigest, SnapshotDone, SnapshotId, SnapshotInfo, SnapshotOrder,
};
pub use time::Time;
pub use timer::{Latency, TimerName, Timers};
pub use trial::SnapshotTrial;
pub use window::Window;
