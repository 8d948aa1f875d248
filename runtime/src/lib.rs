//! Loggos: a replicated log and state-machine replication engine.
//!
//! This is the crate to embed. It runs clusters on pinned cores of this process, or one node of a
//! cluster of several, and its clients are futures that any executor can poll.
//!
//! # A state machine
//!
//! What is replicated is a [`StateMachine`]: it executes commands, which are bytes, in the order of
//! the log, and answers each with bytes. Every replica has one, and all must come to the same state
//! and the same answers. So what a command does may follow from the commands before it, itself and
//! [`At`] (its place in the log, and the log's time), and from nothing else: no clock, no
//! randomness, no order of a hash map. [`kv::Kv`] is a machine that is ready to use.
//!
//! ```
//! use loggos::{At, NotAQuery, Reply, Slot, StateMachine, Time, apply, query};
//!
//! /// Keeps the largest number it was given.
//! #[derive(Default)]
//! struct Largest(u64);
//!
//! impl StateMachine for Largest {
//!     fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
//!         // Commands come from clients: anything may be in them.
//!         if let Ok(number) = command.try_into() {
//!             self.0 = self.0.max(u64::from_le_bytes(number));
//!         }
//!         reply.put(&self.0.to_le_bytes());
//!     }
//!
//!     /// Reads without a command: optional.
//!     fn query(&self, _: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
//!         if query != b"largest" {
//!             return Err(NotAQuery);
//!         }
//!         reply.put(&self.0.to_le_bytes());
//!         Ok(())
//!     }
//!
//!     fn state_hash(&self) -> u64 {
//!         self.0
//!     }
//! }
//!
//! // Its unit tests need no cluster.
//! let at = At { slot: Slot(1), index: 0, time: Time(0) };
//! assert_eq!(apply(&mut Largest(3), at, &7_u64.to_le_bytes()), 7_u64.to_le_bytes());
//! assert_eq!(query(&Largest(3), at, b"largest"), Ok(3_u64.to_le_bytes().to_vec()));
//! ```
//!
//! [`conformance`] tests what replication asks of a machine, with random commands, and that its
//! snapshots bring another one to the same state. A machine with snapshots lets a replica that was
//! away catch up, and the log forget: see [`StateMachine`].
//!
//! # A cluster in this process
//!
//! [`LocalCluster::start`] runs all roles on the processor cores that this process may use;
//! [`Config::standard`] survives the loss of one role of each kind.
//!
//! ```
//! use std::time::Duration;
//!
//! use loggos::kv::{Answer, Command, Kv};
//! use loggos::{Config, LocalCluster};
//!
//! let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default())?;
//! cluster.wait_ready(Duration::from_secs(10))?;
//!
//! let mut command = Vec::new();
//! Command::Put { key: b"port", value: b"Loggos" }.encode(&mut command)?;
//! let executed = cluster.client().execute_blocking(&command)?;
//! assert_eq!(Answer::decode(executed.reply.as_slice())?, Answer::Stored);
//! println!("stored in slot {}", executed.at.slot.0);
//!
//! cluster.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Calls
//!
//! A [`Client`] is cheap to clone, and serves any number of threads and tasks.
//!
//! - [`Client::execute`]: a future, which may be spawned. The command is sent when it is first
//!   polled, and waits for room.
//! - [`Client::execute_blocking`]: the same, for a thread that waits.
//! - [`Client::try_execute`]: sends the command at once, or says [`Busy`](CallError::Busy).
//! - [`Client::query`] and [`Client::query_blocking`]: ask the state machine of one replica,
//!   without a command in the log. Replicas share queries among them, and the leader sees none.
//!   [`Consistency`] says what an answer must reflect; linearizable is what commands are.
//! - [`Client::ready`]: a future that is over once commands are served.
//!
//! What one client executes and asks takes effect in the order in which it is submitted. A clone is
//! another client, and waits for nothing of the first.
//!
//! A result says where in the log the command was executed, once, whatever was lost on the way. An
//! error says whether it may have been ([`CallError::may_have_executed`]): where it may not, it is
//! safe to try again; where it may, only the caller knows whether it is. A call lasts no longer
//! than `deadline`, of the configuration or of [`RemoteOptions`]; that ends the wait, and not the
//! command.
//!
//! A caller that submits much lives on the gateway's core: it implements [`Resident`], moves in by
//! [`LocalCluster::move_in`], and is called by the loop, without task, waker or thread between.
//!
//! # Several nodes
//!
//! A configuration with `[nodes]` describes a cluster of several processes, and each of them starts
//! its own: [`Config::load`], [`Node::format`] once where it is durable, [`Node::start`]. Clients
//! in other processes connect with [`RemoteCluster`], whose [`Client`] is the same. It goes from a
//! gateway that has ended, or is not served, to another, with all that has no answer: each command
//! is executed once.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use loggos::kv::Kv;
//! use loggos::{Config, Node, RemoteCluster, RemoteOptions};
//!
//! let config = Config::load("cluster.toml")?;
//! let node = Node::start(&config, config.node("a")?, |_| Kv::default())?;
//!
//! let cluster = RemoteCluster::connect(RemoteOptions::new(vec![node.address()]))?;
//! cluster.wait_ready(Duration::from_secs(10))?; // or why not
//! let client = cluster.client();
//! # let _ = client;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What there is to see
//!
//! [`LocalCluster::status`] tells how each role stands, [`LocalCluster::cores`] what each core
//! does, and has sent, received and written; [`LocalCluster::watch`] has a hook told again and
//! again, for metrics. [`LocalCluster::leader`] tells who leads, [`LocalCluster::trace`] what cores
//! do turn by turn. A [`Node`] tells how its own roles and cores stand, and [`remote_status`] asks
//! a node of another process. Events go to `tracing`.

#![forbid(unsafe_code)]

mod address;
mod alarm;
mod backup;
mod callers;
mod client;
mod clock;
mod cluster;
mod config;
mod core;
mod data;
mod descriptors;
mod dial;
mod executor;
mod idle;
mod layout;
mod log;
mod machine;
mod names;
mod node;
mod process;
mod random;
mod remote;
mod resident;
mod ring_report;
mod snapshots;
mod sockets;
mod status;
mod trace;

pub use address::{Address, NoAddress};
pub use backup::{Backup, BackupError};
pub use client::{Call, CallError, Client, Consistency, Executed, NotReady, Ready};
pub use cluster::{LocalCluster, NoSuchRole};
pub use config::{
    Config, ConfigError, ConfigErrors, Durability, LogLimits, Losses, Missing, NoSuchNode,
    NodeConfig, Part, TextPlace, Weakness,
};
pub use data::DataError;
pub use descriptors::{Descriptors, TooFewDescriptors, descriptors_max};
pub use idle::Idle;
pub use log::{LogState, LogStatus};
pub use loggos_kv as kv;
pub use loggos_net::RingCounters;
pub use loggos_protocol::conformance;
pub use loggos_protocol::{
    AcceptorCounters, AcceptorId, AcceptorSet, At, Ballot, ClusterSettings, GatewayCounters,
    GatewayId, Halt, Incarnation, Items, LoggedCommand, MalformedSnapshot, NoRole, NotAQuery,
    Payload, Position, ProposerCounters, ProposerId, ProxyLeaderCounters, ProxyLeaderId,
    QuorumError, QuorumSystem, ReplicaCounters, ReplicaId, Reply, RoleId, RunReplies, Settings,
    SettingsError, Slot, SnapshotId, SnapshotInfo, StateMachine, Time, TransferProgress, Watermark,
};
pub use machine::{apply, query};
pub use node::Node;
pub use process::StartError;
pub use remote::{RemoteCluster, RemoteOptions, remote_skip, remote_status};
pub use resident::{Desk, Next, Resident};
pub use sockets::SocketCounters;
pub use status::{CoreStatus, CoreTime, ReplicaStanding, RoleStatus, Standing, Traffic};
pub use trace::{CoreTrace, Doing, Turn};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct ReadmeExample;
