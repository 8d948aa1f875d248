//! What a cluster in this process is made of, checked.
//!
//! ```text
//!  text ─▶ TOML ─▶ known keys ─▶ values in range ─▶ settings that agree ─▶ roles on cores ─▶ Config
//!           │          │               │                   │                    │
//!           └──────────┴───────────────┴─── every mistake, with its place ──────┴──────────▶ ConfigErrors
//! ```
//!
//! A mistake does not end the reading: whoever mends a file wants to know all that is wrong with it. What
//! only follows from another mistake is left out.

mod cores;
mod error;
mod example;
mod keys;
mod placement;
mod quorums;
mod read;
#[cfg(test)]
mod tests;
mod value;
mod weakness;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use loggos_protocol::{Cluster, GatewayId, QuorumSystem, ReplicaId, RoleId, Settings};

use crate::core::Idle;

pub use error::{ConfigError, ConfigErrors, TextPlace};
pub use weakness::{Losses, Weakness};

/// How long a core looks for work before it sleeps, if nothing else is said.
const POLL_IDLE: Duration = Duration::from_micros(200);
/// How long a call may take, if nothing else is said.
const DEADLINE: Duration = Duration::from_secs(5);
/// Messages that wait for a core, if nothing else is said.
const MAILBOX_MESSAGES_MAX: u32 = 1 << 16;

/// A cluster, and where its roles live.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Sizes, limits and timing.
    pub cluster: Cluster,
    /// The processor core of each of our cores.
    pub cpus: Vec<usize>,
    /// The core, an index into `cpus`, of each role.
    pub placement: BTreeMap<RoleId, usize>,
    /// What a core does when it has nothing to do.
    pub idle: Idle,
    /// How long a call may take.
    pub deadline: Duration,
    /// Messages that wait for a core whose mailbox is full; what exceeds them is dropped (R29).
    pub mailbox_messages_max: usize,
}

impl Config {
    /// Returns the default cluster: it survives one loss of each role, in memory, on all cores that this
    /// process may use.
    #[must_use]
    pub fn standard() -> Self {
        let cluster =
            Settings::new(1, standard_grid()).check().expect("the defaults make a cluster");
        Self::on_cpus(cluster, usable_cpus())
    }

    /// Returns `cluster` spread over `cpus`.
    ///
    /// # Panics
    ///
    /// If there are no cores.
    #[must_use]
    pub fn on_cpus(cluster: Cluster, cpus: Vec<usize>) -> Self {
        assert!(!cpus.is_empty(), "a cluster on no cores");
        let placement = spread(&cluster, cpus.len());
        Self {
            cluster,
            cpus,
            placement,
            idle: Idle::Adaptive { poll_idle: POLL_IDLE },
            deadline: DEADLINE,
            mailbox_messages_max: MAILBOX_MESSAGES_MAX as usize,
        }
    }

    /// Reads a configuration in TOML. What it does not name is as in [`Config::standard`];
    /// [`Config::example`] names everything.
    ///
    /// # Errors
    ///
    /// Every mistake in it, with its place and what would be right.
    pub fn from_toml(text: &str) -> Result<Self, ConfigErrors> {
        read::read(text, &usable_cpus())
            .map_err(|errors| ConfigErrors { source: "configuration".to_owned(), errors })
    }

    /// Reads the configuration in a file, as [`Config::from_toml`] does.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; else every mistake in it, with its place and what would be right.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let read = match std::fs::read_to_string(path) {
            Ok(text) => read::read(&text, &usable_cpus()),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                Err(vec![ConfigError { place: None, what }])
            }
        };
        read.map_err(|errors| ConfigErrors { source: path.display().to_string(), errors })
    }

    /// Returns a configuration in TOML that names every key, with what it means and its default.
    #[must_use]
    pub fn example() -> String {
        example::example()
    }
}

/// The smallest grid that survives one loss.
fn standard_grid() -> QuorumSystem {
    QuorumSystem::grid(2, 2, 1).expect("a 2 × 2 grid survives one loss")
}

/// The processor cores that this process may run on.
fn usable_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// Spreads roles over cores in turn, each kind starting where the last one left off, so that no core has
/// all of the first ones. Acceptors are split in contiguous parts: a write quorum of a grid then shares
/// a core, and a slot crosses between cores as seldom as can be.
fn spread(cluster: &Cluster, cores: usize) -> BTreeMap<RoleId, usize> {
    let mut placement = BTreeMap::new();
    let gateways = (0..cluster.gateways).map(|id| RoleId::Gateway(GatewayId(id)));
    let proposers = cluster.all_proposers().map(RoleId::Proposer);
    let proxy_leaders = cluster.all_proxy_leaders().map(RoleId::ProxyLeader);
    let replicas =
        (1..=cluster.replicas).map(|id| RoleId::Replica(ReplicaId(id % cluster.replicas)));
    for kind in [
        gateways.collect::<Vec<_>>(),
        proposers.collect(),
        proxy_leaders.collect(),
        replicas.collect(),
    ] {
        for (turn, role) in kind.into_iter().enumerate() {
            placement.insert(role, turn % cores);
        }
    }
    let acceptors = usize::from(cluster.quorums.acceptors_count());
    for id in cluster.quorums.acceptors().iter() {
        placement.insert(RoleId::Acceptor(id), usize::from(id.0) * cores / acceptors);
    }
    placement
}
