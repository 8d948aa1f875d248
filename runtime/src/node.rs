//! One node of a cluster: the roles that the configuration puts there, in this process.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use loggos_protocol::{ReplicaId, RoleId, StateMachine};

use crate::client::{Client, NotReady};
use crate::config::Config;
use crate::core::Order;
use crate::data::{self, DataError};
use crate::process::{Process, StartError};
use crate::resident::Resident;
use crate::status::{CoreStatus, RoleStatus};

/// A node, with its roles on pinned cores and sockets to all the others.
///
/// Dropping it stops it at once; [`Node::stop`] hands over first.
#[derive(Debug)]
pub struct Node {
    process: Process,
    roles: Vec<RoleId>,
    address: SocketAddr,
}

impl Node {
    /// Starts the node of `config` at place `node`, as [`Config::node`] finds it by name; `machine`
    /// makes the state machine of each replica that lives here, in its initial state.
    ///
    /// Returns when it listens. The cluster forms once all acceptors and replicas are there.
    ///
    /// # Errors
    ///
    /// If the machine's cores, rings or the node's address cannot be had; if its acceptors are
    /// durable, and the data directory is missing, damaged, in use, or belongs to another node.
    pub fn start<M, F>(config: &Config, node: usize, machine: F) -> Result<Self, StartError>
    where
        M: StateMachine + 'static,
        F: Fn(ReplicaId) -> M + Send + Sync + 'static,
    {
        let process = Process::start(config, Some(node), machine)?;
        let address = process.address().expect("a node listens");
        Ok(Self { process, roles: config.nodes[node].roles.clone(), address })
    }

    /// Makes the data directory of the node of `config` at place `node`, once; returns where it is.
    ///
    /// # Errors
    ///
    /// If there is something there already, or it cannot be made; if the node has no acceptors, and
    /// needs none.
    ///
    /// source: R4
    pub fn format(config: &Config, node: usize) -> Result<PathBuf, DataError> {
        data::format(config, Some(node))
    }

    /// Returns the address where it listens, to nodes and clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a handle to submit commands with, from any thread. Where the node has no gateway,
    /// every call ends as [`CallError::Stopped`](crate::CallError::Stopped).
    #[must_use]
    pub fn client(&self) -> Client {
        self.process.client()
    }

    /// Waits until commands are served, like [`Client::ready`], for `most` at the most; blocks this
    /// thread meanwhile.
    ///
    /// # Errors
    ///
    /// If they are not; at once where the node has no gateway.
    pub fn wait_ready(&self, most: Duration) -> Result<(), NotReady> {
        self.client().wait_ready(most, Vec::new)
    }

    /// Lets a caller live on the core of the node's first gateway; where it has none, `make` is not
    /// called.
    pub fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        self.process.move_in(make);
    }

    /// Tells how the roles of this node stand.
    #[must_use]
    pub fn status(&self) -> Vec<RoleStatus> {
        self.process.status()
    }

    /// Tells how every core stands, and has spent its time. One that has failed is left out.
    #[must_use]
    pub fn cores(&self) -> Vec<CoreStatus> {
        self.process.cores()
    }

    /// Has `hook` told how every core stands, once each `interval`, such as to keep metrics. It is
    /// called on a thread of its own, which may take its time and ends with the node.
    ///
    /// # Errors
    ///
    /// If there can be no thread for it.
    pub fn watch(
        &self,
        interval: Duration,
        hook: impl FnMut(Vec<CoreStatus>) + Send + 'static,
    ) -> io::Result<()> {
        self.process.watch(interval, hook)
    }

    /// Whether a core has failed, and its roles with it: the process had better end, and be started
    /// again.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.process.has_failed()
    }

    /// Stops in good order: a leader hands over, so that the next need not wait for an election
    /// timeout.
    ///
    /// # Errors
    ///
    /// If a core had failed.
    pub fn stop(mut self) -> io::Result<()> {
        for role in self.roles.iter().filter(|role| matches!(role, RoleId::Proposer(_))) {
            self.process.order_role(*role, Order::Retire(*role));
        }
        // Orders are taken in order: with the answer to this one, the farewells are on their way.
        drop(self.process.status());
        self.process.halt()
    }
}
