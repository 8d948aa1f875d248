//! The measured cluster: one in this process, or one of other processes.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use loggos::{CoreStatus, LocalCluster, RemoteCluster, RemoteOptions, Resident, RoleStatus};
use serde::Deserialize;

use crate::remote::Named;

/// The longest time until a node has reported the state of its roles.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster that is measured.
#[derive(Debug)]
pub(crate) enum Subject {
    /// In this process.
    Local(LocalCluster),
    /// Of other processes: the connections to it, and all its nodes that we know.
    Remote { connections: Vec<RemoteCluster>, nodes: Vec<Named> },
}

/// The measured state of a role.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RoleState {
    pub(crate) role: String,
    /// Its node, of a cluster of several.
    #[serde(skip)]
    pub(crate) node: Option<String>,
    pub(crate) core: usize,
    pub(crate) busy_ns: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    /// The executed watermark of a replica, and the digest of its state there.
    pub(crate) executed_watermark: Option<u64>,
    pub(crate) state_hash: Option<String>,
    #[serde(default)]
    pub(crate) halted: Option<String>,
}

/// The measured state of a core.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CoreState {
    /// Its node, of a cluster of several.
    #[serde(skip)]
    pub(crate) node: Option<String>,
    pub(crate) core: usize,
    pub(crate) busy_ns: u64,
    pub(crate) polling_ns: u64,
    pub(crate) asleep_ns: u64,
    pub(crate) callers_ns: u64,
    /// What its sockets have done; `None` if it has none.
    pub(crate) sockets: Option<SocketState>,
}

/// What a core's sockets have done.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct SocketState {
    pub(crate) sends: u64,
    pub(crate) sent_frames: u64,
    pub(crate) receives: u64,
    /// System calls.
    pub(crate) enters: u64,
}

/// The state of a cluster.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) roles: Vec<RoleState>,
    pub(crate) cores: Vec<CoreState>,
}

#[derive(Deserialize)]
struct NodeStatus {
    roles: Vec<RoleState>,
    cores: Vec<CoreState>,
}

impl Subject {
    /// Connects to a cluster of other processes.
    pub(crate) fn connect(
        options: &RemoteOptions,
        connections: u32,
        nodes: Vec<Named>,
    ) -> std::io::Result<Self> {
        let connections = (0..connections as usize).map(|connection| {
            // Each begins with another gateway.
            let mut options = options.clone();
            let gateways = options.addresses.len();
            options.addresses.rotate_left(connection % gateways);
            RemoteCluster::connect(options)
        });
        Ok(Self::Remote { connections: connections.collect::<Result<_, _>>()?, nodes })
    }

    /// Returns the number of residents that share the load.
    pub(crate) fn entrances(&self) -> u32 {
        match self {
            Self::Local(_) => 1,
            Self::Remote { connections, .. } => u32::try_from(connections.len()).unwrap_or(1),
        }
    }

    /// Lets a resident live at each entrance.
    pub(crate) fn move_in<R: Resident + 'static>(
        &self,
        make: impl Fn(u32) -> Box<dyn FnOnce() -> R + Send>,
    ) {
        match self {
            Self::Local(cluster) => cluster.move_in(make(0)),
            Self::Remote { connections, .. } => {
                for (connection, entrance) in connections.iter().zip(0..) {
                    connection.move_in(make(entrance));
                }
            }
        }
    }

    /// Returns the state of all roles and cores. Nodes that do not answer are left out.
    pub(crate) fn state(&self) -> State {
        match self {
            Self::Local(cluster) => State {
                roles: cluster.status().iter().map(RoleState::of).collect(),
                cores: cluster.cores().iter().map(CoreState::of).collect(),
            },
            Self::Remote { nodes, .. } => {
                let mut state = State::default();
                for (node, address) in nodes {
                    let Ok(address) = address.resolve() else { continue };
                    let Ok(status) = loggos::remote_status(address, STATUS_TIMEOUT) else {
                        continue;
                    };
                    let Ok(status) = serde_json::from_slice::<NodeStatus>(&status) else {
                        continue;
                    };
                    let of_node = |role| RoleState { node: Some(node.clone()), ..role };
                    state.roles.extend(status.roles.into_iter().map(of_node));
                    let of_node = |core| CoreState { node: Some(node.clone()), ..core };
                    state.cores.extend(status.cores.into_iter().map(of_node));
                }
                state.roles.sort_by(|a, b| a.role.cmp(&b.role));
                state
            }
        }
    }

    /// Does something at the first entrance, as a resident, and waits for what it makes of it.
    pub(crate) fn ask<R, T>(
        &self,
        make: impl FnOnce(std::sync::mpsc::Sender<T>) -> R + Send + 'static,
    ) -> Receiver<T>
    where
        R: Resident + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = channel();
        match self {
            Self::Local(cluster) => cluster.move_in(move || make(sender)),
            Self::Remote { connections, .. } => connections[0].move_in(move || make(sender)),
        }
        receiver
    }

    /// Ends what was started for the measurement.
    pub(crate) fn stop(self) -> std::io::Result<()> {
        match self {
            Self::Local(cluster) => cluster.stop(),
            Self::Remote { .. } => Ok(()),
        }
    }
}

impl RoleState {
    fn of(status: &RoleStatus) -> Self {
        let replica = status.standing.replica();
        Self {
            role: status.role.to_string(),
            node: None,
            core: status.core,
            busy_ns: u64::try_from(status.busy.as_nanos()).unwrap_or(u64::MAX),
            messages_in: status.traffic.messages_in,
            messages_out: status.traffic.messages_out,
            executed_watermark: replica.map(|replica| replica.executed.0),
            state_hash: replica.map(|replica| format!("{:016x}", replica.state_hash)),
            halted: replica.and_then(|r| r.halted.as_ref().map(ToString::to_string)),
        }
    }
}

impl CoreState {
    fn of(status: &CoreStatus) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            node: None,
            core: status.core,
            busy_ns: nanos(status.time.busy),
            polling_ns: nanos(status.time.polling),
            asleep_ns: nanos(status.time.asleep),
            callers_ns: nanos(status.time.callers),
            sockets: None, // a cluster in this process has none
        }
    }
}
