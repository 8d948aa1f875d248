//! How the file descriptors of a process are shared out: clients get what the rest does not need.
//!
//! ```text
//!   the limit of the process
//!   ├─ what is open before it starts
//!   ├─ each core                      rings, alarms: CORE_DESCRIPTORS
//!   ├─ the log of a core              its segments
//!   ├─ a durable replica              its snapshots: REPLICA_DESCRIPTORS
//!   ├─ each link to a core elsewhere  and from there; twice, since an old one may be there yet
//!   ├─ questions for the status       STATUS_MAX
//!   ├─ connections that say nothing   a fifth of what is left, STRANGERS_MAX at the most
//!   ├─ clients on their way           as many: to the core of the gateway
//!   └─ clients                        what is left then, CLIENTS_MAX at the most
//! ```
//!
//! Without that, clients that take all descriptors keep an acceptor from making segments, and peers
//! from calling.
//!
//! source: R35

use std::fmt;
use std::io;

use loggos_protocol::RoleId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::executor::CORE_DESCRIPTORS;
use crate::sockets::{CLIENTS_MAX, STATUS_MAX, STRANGERS_MAX};

/// Files of a log beyond its segments: one that is being made, the lock, and the directory.
const LOG_DESCRIPTORS: u64 = 4;
/// Snapshots that are kept, read, written and set aside, the lock, and the directory.
const REPLICA_DESCRIPTORS: u64 = 8;
/// What a process has open before it starts, where that is not counted.
const OTHERS: u64 = 16;
/// The fewest clients for which a node with a gateway starts.
const CLIENTS_MIN: u64 = 16;

/// How the file descriptors of a node are shared out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Descriptors {
    /// The limit of the process.
    pub limit: u64,
    /// Those that are for neither clients nor connections that have not said what they are.
    pub reserved: u64,
    /// The most connections that have not said what they are: the oldest makes room for a new one.
    /// And the most clients that are on their way to the core of the gateway.
    pub strangers_max: usize,
    /// The most clients that are connected at once; 0 where there is no gateway.
    pub clients_max: usize,
}

/// A limit of file descriptors that is too low for a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooFewDescriptors {
    /// The limit of the process.
    pub limit: u64,
    /// The least with which the node starts.
    pub needed: u64,
}

impl Config {
    /// Shares out the file descriptors of the node at place `node`, in a process that may have
    /// `limit` of them, and has `open` for other purposes; `None` if that is not known.
    ///
    /// # Errors
    ///
    /// If they are too few.
    pub fn descriptors(
        &self,
        node: usize,
        limit: u64,
        open: Option<u64>,
    ) -> Result<Descriptors, TooFewDescriptors> {
        let plan = &self.nodes[node];
        let has = |kind: fn(&RoleId) -> bool| plan.roles.iter().filter(move |role| kind(role));
        let mut logs: Vec<usize> =
            has(|role| matches!(role, RoleId::Acceptor(_))).map(|it| self.placement[it]).collect();
        logs.sort_unstable();
        logs.dedup();
        let segments = u64::from(self.log.options().segments_max) + LOG_DESCRIPTORS;
        let replicas = has(|role| matches!(role, RoleId::Replica(_))).count() as u64;
        let files = logs.len() as u64 * segments + replicas * REPLICA_DESCRIPTORS;
        let cores = plan.cpus.len() as u64;
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
        let elsewhere: u64 = others.map(|(_, other)| other.cpus.len() as u64).sum();
        let reserved = open.unwrap_or(OTHERS)
            + cores * CORE_DESCRIPTORS
            + if self.is_durable() { files } else { 0 }
            + cores * elsewhere * 2 * 2
            + STATUS_MAX as u64;
        let has_gateway = has(|role| matches!(role, RoleId::Gateway(_))).next().is_some();
        // A third as many may say nothing, or be on their way.
        let needed = reserved + CLIENTS_MIN + 2 * (CLIENTS_MIN / 3);
        if limit < needed {
            return Err(TooFewDescriptors { limit, needed });
        }
        let rest = limit - reserved;
        let strangers = (rest / 5).min(STRANGERS_MAX as u64);
        let clients = if has_gateway { (rest - 2 * strangers).min(CLIENTS_MAX as u64) } else { 0 };
        let count = |of: u64| usize::try_from(of).expect("it is no more than a constant");
        let (strangers_max, clients_max) = (count(strangers), count(clients));
        Ok(Descriptors { limit, reserved, strangers_max, clients_max })
    }
}

/// Returns the most file descriptors that this process may have, once it has raised its limit.
#[must_use]
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit of this process as far as it may, and returns what it is then.
pub(crate) fn raise_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is forbidden, what there is has to do.
    let _raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Shares out for a node what file descriptors there are.
///
/// # Errors
///
/// If they are too few.
pub(crate) fn share_out(config: &Config, node: usize, limit: u64) -> io::Result<Descriptors> {
    let open = std::fs::read_dir("/proc/self/fd").map(|open| open.count() as u64);
    config.descriptors(node, limit, open.ok()).map_err(io::Error::other)
}

impl fmt::Display for TooFewDescriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, needed } = self;
        write!(
            f,
            "{needed} file descriptors are the least for its cores, log, links and some clients, and the limit \
             is {limit}: raise the hard limit with `ulimit -Hn`, or LimitNOFILE= of a systemd unit"
        )
    }
}

impl std::error::Error for TooFewDescriptors {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Durability;

    /// Three nodes of two cores each, with a log of 1024 segments.
    const CONFIG: &str = r#"
        [cluster]
        durability = "sync"
        quorums = "majority"
        proposers = 3
        proxy_leaders = 0
        gateways = 2
        [limits]
        log_bytes_max = "1GiB"
        log_segment_bytes = "1MiB"
        batch_bytes_max = "64KiB"
        [nodes.a]
        address = "127.0.0.1:7401"
        data = "a"
        cpus = [0, 1]
        roles = ["gateway 0", "proposer 0", "acceptor 0", "replica 0"]
        [nodes.b]
        address = "127.0.0.1:7402"
        data = "b"
        cpus = [0, 1]
        roles = ["gateway 1", "proposer 1", "acceptor 1", "replica 1"]
        [nodes.c]
        address = "127.0.0.1:7403"
        data = "c"
        cpus = [0, 1]
        roles = ["proposer 2", "acceptor 2", "replica 2"]
    "#;

    #[test]
    fn r35_clients_get_what_is_left() {
        let config = Config::from_toml(CONFIG).expect("a cluster");
        let of = |node, limit| config.descriptors(node, limit, Some(10));
        let plenty = of(0, 1 << 20).expect("plenty");
        assert_eq!((plenty.clients_max, plenty.strangers_max), (CLIENTS_MAX, STRANGERS_MAX));
        let links = 2 * 4 * 2 * 2; // our cores, theirs, both ways, twice
        let files = 1024 + LOG_DESCRIPTORS + REPLICA_DESCRIPTORS;
        let own = 10 + 2 * CORE_DESCRIPTORS + STATUS_MAX as u64;
        assert_eq!(plenty.reserved, own + files + links, "what the rest needs");
        assert_eq!(of(2, 1 << 20).expect("plenty").clients_max, 0, "it has no gateway");
        let few = of(0, plenty.reserved + 400).expect("enough");
        assert_eq!((few.clients_max, few.strangers_max), (240, 80));
        let TooFewDescriptors { needed, .. } = of(0, plenty.reserved).expect_err("too few");
        let least = of(0, needed).expect("just enough");
        assert_eq!((least.clients_max, least.strangers_max), (16, 5));
        assert_eq!(of(0, needed - 1), Err(TooFewDescriptors { limit: needed - 1, needed }));
        let memory = Config { durability: Some(Durability::Memory), ..config.clone() };
        let memory = memory.descriptors(0, 1 << 20, Some(10)).expect("plenty");
        assert_eq!(memory.reserved, own + links, "no files");
    }
}
