//! A whole cluster in this process: the embedded default, and what `loggos bench` measures.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use loggos_protocol::{ProposerId, ReplicaId, RoleId, StateMachine};

use crate::client::{Client, NotReady};
use crate::config::Config;
use crate::core::Order;
use crate::data::{self, DataError};
use crate::process::{Process, StartError};
use crate::resident::Resident;
use crate::status::{CoreStatus, RoleStatus, Standing};
use crate::trace::CoreTrace;

/// A cluster whose roles all live in this process, on pinned cores.
///
/// Dropping it stops it.
#[derive(Debug)]
pub struct LocalCluster {
    process: Process,
}

/// A role that this cluster does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoSuchRole(pub RoleId);

impl LocalCluster {
    /// Starts the cluster that `config` describes; `machine` makes each replica's state machine, in
    /// its initial state, on the replica's own core.
    ///
    /// Returns once all cores have started and the state machines are made; commands wait until a
    /// leader is elected.
    ///
    /// # Errors
    ///
    /// If the machine's cores or rings are not available, or a state machine panics as it is made.
    ///
    /// # Panics
    ///
    /// If `config` has nodes: [`Node`](crate::Node) starts one of them.
    pub fn start<M, F>(config: &Config, machine: F) -> Result<Self, StartError>
    where
        M: StateMachine + 'static,
        F: Fn(ReplicaId) -> M + Send + Sync + 'static,
    {
        assert!(config.nodes.is_empty(), "a cluster of several nodes is not local");
        let process = Process::start(config, None, machine)?;
        Ok(Self { process })
    }

    /// Makes the data directory of a cluster in one process, [`Config::data`], once; returns where
    /// it is.
    ///
    /// # Errors
    ///
    /// If there is something there already, or it cannot be made.
    pub fn format(config: &Config) -> Result<PathBuf, DataError> {
        assert!(config.nodes.is_empty(), "each node has a directory of its own");
        data::format(config, None)
    }

    /// Returns a handle to submit commands with, from any thread.
    #[must_use]
    pub fn client(&self) -> Client {
        self.process.client()
    }

    /// Waits until commands are served, like [`Client::ready`], for `most` at the most; blocks this
    /// thread meanwhile.
    ///
    /// # Errors
    ///
    /// If they are not.
    pub fn wait_ready(&self, most: Duration) -> Result<(), NotReady> {
        self.client().wait_ready(most, Vec::new)
    }

    /// Lets a caller live on the core of the first gateway, and be called by its loop: the nearest
    /// that a caller can be. `make` makes it there.
    pub fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        self.process.move_in(make);
    }

    /// Tells how every role stands. The roles of a core that has failed are left out.
    #[must_use]
    pub fn status(&self) -> Vec<RoleStatus> {
        self.process.status()
    }

    /// Tells how every core stands, and has spent its time. One that has failed is left out.
    #[must_use]
    pub fn cores(&self) -> Vec<CoreStatus> {
        self.process.cores()
    }

    /// Returns the proposer that leads; `None` in an election.
    #[must_use]
    pub fn leader(&self) -> Option<ProposerId> {
        let leads = |status: RoleStatus| match (status.role, status.standing) {
            (RoleId::Proposer(id), Standing::Proposer { is_leading: true, ballot, .. }) => {
                Some((ballot, id))
            }
            _ => None,
        };
        // One that was deposed may not know yet.
        self.status().into_iter().filter_map(leads).max().map(|(_, id)| id)
    }

    /// Has `hook` told how every core stands, once each `interval`, such as to keep metrics. It is
    /// called on a thread of its own, which may take its time and ends with the cluster.
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

    /// Returns what each core does in the next `time`, turn by turn; blocks meanwhile. A trace ends
    /// sooner if it has 65 536 turns, or another one is asked for.
    #[must_use]
    pub fn trace(&self, time: Duration) -> Vec<CoreTrace> {
        self.process.trace(time)
    }

    /// Ends a role, as a crash would: at once, and with all that it remembers.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn kill(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Kill(role))
    }

    /// Ends a role in good order: a leader announces it first, so that the next one need not wait
    /// for an election timeout.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn retire(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Retire(role))
    }

    /// Lets a role take nothing in for a while, as a stopped process would not.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn pause(&self, role: RoleId, most: Duration) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Pause(role, most))
    }

    /// Starts a role over in a new life, with a blank memory, or a durable acceptor with what its
    /// log says.
    ///
    /// An acceptor in memory that has forgotten is not let in again (R4); a replica gets what it
    /// missed from its peers, as far back as they hold it.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn restart(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Restart(role))
    }

    /// Stops all cores and waits for them. Calls under way end as
    /// [`CallError::Stopped`](crate::CallError::Stopped).
    ///
    /// # Errors
    ///
    /// If a core had failed.
    pub fn stop(mut self) -> io::Result<()> {
        self.process.halt()
    }

    fn order_role(&self, role: RoleId, order: Order) -> Result<(), NoSuchRole> {
        if self.process.order_role(role, order) { Ok(()) } else { Err(NoSuchRole(role)) }
    }
}

impl fmt::Display for NoSuchRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cluster has no {}", self.0)
    }
}

impl std::error::Error for NoSuchRole {}
