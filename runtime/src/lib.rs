//! Loggos: a replicated log and state-machine replication engine.
//!
//! This is the crate to embed: a cluster on pinned cores of this process, and a client whose
//! futures run on any executor.

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
pub use client::{Call, CallError, Client, Executed, NotReady, Ready};
pub use cluster::{LocalCluster, NoSuchRole};
pub use config::{
    Config, ConfigError, ConfigErrors, Durability, LogLimits, Losses, Missing, NoSuchNode,
    NodeConfig, Part, TextPlace, Weakness,
};
pub use data::DataError;
pub use descriptors::{Descriptors, TooFewDescriptors, descriptors_max};
pub use idle::Idle;
pub use log::LogState;
pub use loggos_kv as kv;
pub use loggos_protocol::conformance;
pub use loggos_protocol::{
    AcceptorId, AcceptorSet, At, ClusterSettings, GatewayId, Halt, Items, LoggedCommand,
    MalformedSnapshot, NoRole, Payload, Position, ProposerId, ProxyLeaderId, QuorumError,
    QuorumSystem, ReplicaId, Reply, RoleId, RunReplies, Settings, SettingsError, Slot, SnapshotId,
    SnapshotInfo, StateMachine, Time, TransferProgress, Watermark,
};
pub use node::Node;
pub use process::StartError;
pub use remote::{RemoteCluster, RemoteOptions, remote_skip, remote_status};
pub use resident::{Desk, Next, Resident};
pub use status::{CoreStatus, CoreTime, ReplicaStanding, RoleStatus, Standing, Traffic};
pub use trace::{CoreTrace, Doing, Turn};

/// The README's example, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct ReadmeExample;
