//! The configuration of a cluster: its roles and settings, and the processes that it is spread
//! over; checked.
//!
//! ```text
//!  text ─▶ TOML ─▶ known keys ─▶ values in range ─▶ settings that agree ─▶ roles in nodes, on cores ─▶ Config
//!           │          │               │                   │                       │
//!           └──────────┴───────────────┴─── every mistake, with its place ─────────┴──────────▶ ConfigErrors
//! ```
//!
//! Reading goes on after a mistake, so that all mistakes of a file are reported at once. Those that
//! only follow from another one are left out.

mod cores;
mod durability;
mod error;
mod example;
mod given;
mod keys;
mod layout;
mod losses;
mod nodes;
mod placement;
mod quorums;
mod read;
mod roles;
mod spread;
#[cfg(test)]
mod tests;
mod value;
mod weakness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loggos_protocol::{ClusterSettings, QuorumSystem, RoleId, Settings};

use self::spread::spread;
use crate::idle::Idle;

pub use durability::{Durability, LogLimits};
pub use error::{ConfigError, ConfigErrors, TextPlace};
pub use layout::{NoSuchNode, NodeConfig};
pub use losses::{Losses, Missing, Part};
pub use weakness::Weakness;

/// The default name of a cluster.
const NAME: &str = "loggos";
/// The default time that a core polls before it sleeps.
const POLL_IDLE: Duration = Duration::from_micros(500);
/// The default deadline of a call.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most cores of one process: they are numbered in a byte.
const CPUS_MAX: usize = 256;
/// The most messages that wait for a core, by default.
const MAILBOX_MESSAGES_MAX: u32 = 1 << 16;

/// A cluster, and where its roles live.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// The cluster's name: processes of clusters with different names refuse each other. 1 to 64
    /// bytes of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Sizes, limits and timing.
    pub cluster: ClusterSettings,
    /// The processes that the cluster is spread over, in order of name. Empty if all roles live in
    /// one process.
    pub nodes: Vec<NodeConfig>,
    /// The processor core of each of our cores, where all roles live in one process. Empty where
    /// there are `nodes`: each has its own.
    pub cpus: Vec<usize>,
    /// The core of each role: an index into the `cpus` of its node, or into ours without nodes.
    pub placement: BTreeMap<RoleId, usize>,
    /// The behaviour of a core that has no work.
    pub idle: Idle,
    /// The deadline of a call.
    pub deadline: Duration,
    /// Where acceptors keep their promises and votes; see [`Config::is_durable`].
    pub durability: Option<Durability>,
    /// The data directory, where all roles live in one process and acceptors are durable; no text
    /// names it. Where there are `nodes`, each has its own.
    pub data: Option<PathBuf>,
    /// The bounds of the acceptors' logs.
    pub log: LogLimits,
    /// Messages that wait for a core whose mailbox is full; what exceeds them is dropped (R29).
    pub mailbox_messages_max: usize,
}

impl Config {
    /// The part of the work on commands that each core has, in a node, or in the one process that
    /// there is, as far as batches are full: then gateways and replicas cost nearly all of it.
    /// Their callers are counted with the gateways.
    #[must_use]
    pub fn expected_shares(&self, node: Option<&NodeConfig>) -> Vec<f64> {
        let is_there = |role: &RoleId| node.is_none_or(|node| node.roles.contains(role));
        let placed = self.placement.iter().filter(|(role, _)| is_there(role));
        let cores = node.map_or(&self.cpus, |node| &node.cpus).len();
        spread::shares(placed.map(|(role, core)| (*role, *core)), cores)
    }

    /// Whether acceptors and replicas keep on disk what they must not forget: as `durability` says.
    /// If it says nothing, they do in a cluster of several processes, or that is to be one: where
    /// there are `nodes`.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        match self.durability {
            Some(durability) => durability == Durability::Sync,
            None => !self.nodes.is_empty(),
        }
    }

    /// Returns the default cluster: it survives one loss of each role, in memory, on all cores that
    /// this process may use.
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
    pub fn on_cpus(cluster: ClusterSettings, cpus: Vec<usize>) -> Self {
        assert!(!cpus.is_empty(), "a cluster on no cores");
        let placement = spread(&cluster, cpus.len());
        Self {
            name: NAME.to_owned(),
            cluster,
            nodes: Vec::new(),
            cpus,
            placement,
            idle: Idle::Adaptive { poll_idle: POLL_IDLE },
            deadline: DEADLINE,
            durability: None,
            data: None,
            log: LogLimits::default(),
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

    /// Reads the configuration in a file, as [`Config::from_toml`] does. Paths in it count from
    /// where the file is.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; else every mistake in it, with its place and what would be
    /// right.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let read = match std::fs::read_to_string(path) {
            Ok(text) => read::read(&text, &usable_cpus()),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                Err(vec![ConfigError { place: None, what }])
            }
        };
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let read = read.map(|mut config| {
            let nodes = config.nodes.iter_mut();
            nodes
                .filter_map(|node| node.data.as_mut())
                .for_each(|data| *data = folder.join(&*data));
            config
        });
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

/// The processor cores that this process may run on, as many as it can use.
fn usable_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => {
            let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
            cpus.take(CPUS_MAX).collect()
        }
        Err(_) => vec![0],
    }
}
