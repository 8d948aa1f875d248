//! A node: one process of a cluster, and the roles in it.

use std::fmt;
use std::path::PathBuf;

use loggos_protocol::{Digest, RoleId};

use super::Config;
use super::error::instead;
use crate::Address;

/// One process of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeConfig {
    /// Unique in its cluster: 1 to 64 bytes of letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The address where it listens to nodes and clients. Unique in its cluster; its port is not 0.
    pub address: Address,
    /// The processor core of each of its cores; from 1 to 256. Another machine's cannot be checked
    /// here.
    pub cpus: Vec<usize>,
    /// The roles that live in it, in their order; at least one. Every role of a cluster lives in
    /// one node.
    pub roles: Vec<RoleId>,
    /// Where it keeps what must not be lost; only one with durable acceptors needs it. Another
    /// machine's cannot be checked here.
    pub data: Option<PathBuf>,
}

/// A name that no node of a configuration has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoSuchNode {
    /// The name.
    pub name: String,
    /// The nodes there are, in order; none where all roles live in one process.
    pub known: Vec<String>,
}

impl Config {
    /// Returns the place of the node `name` in [`Config::nodes`].
    ///
    /// # Errors
    ///
    /// If there is none of this name; names are compared letter by letter.
    pub fn node(&self, name: &str) -> Result<usize, NoSuchNode> {
        let is_it = |node: &NodeConfig| node.name == name;
        self.nodes.iter().position(is_it).ok_or_else(|| NoSuchNode {
            name: name.to_owned(),
            known: self.nodes.iter().map(|node| node.name.clone()).collect(),
        })
    }

    /// Returns the digest of where every role lives: the cluster's name, its nodes with their roles
    /// and numbers of cores, and each role's core. Not the processor cores, which only their node
    /// depends on; nor addresses, since a node may move, and is known by its name (R36). Two
    /// processes that differ in it refuse each other, for they would send messages to cores that do
    /// not host the receiver.
    ///
    /// It is the same on every machine and for every build. What else nodes must agree on is in the
    /// digest of [`Config::cluster`].
    ///
    /// source: R3, R36
    #[must_use]
    pub fn layout_digest(&self) -> u64 {
        let count = |count: usize| count as u64;
        let mut digest = Digest::new("loggos layout").text(&self.name);
        digest = digest.word(count(self.nodes.len()));
        for node in &self.nodes {
            digest = digest.text(&node.name);
            digest = digest.word(count(node.cpus.len())).word(count(node.roles.len()));
            digest = node.roles.iter().fold(digest, |digest, role| digest.text(&role.to_string()));
        }
        digest = digest.word(count(self.placement.len()));
        for (role, core) in &self.placement {
            digest = digest.text(&role.to_string()).word(count(*core));
        }
        digest.finish()
    }
}

impl fmt::Display for NoSuchNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        if self.known.is_empty() {
            return write!(f, "there is no node `{name}`: the configuration has no [nodes]");
        }
        let hint = instead(name, self.known.iter().map(String::as_str));
        write!(f, "there is no node `{name}`; {hint}")
    }
}

impl std::error::Error for NoSuchNode {}
