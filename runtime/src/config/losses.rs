//! Whether every loss of f leaves a cluster live, by trying.
//!
//! What is lost at once is a node, with all its roles. Where there is one process only, its loss is
//! the cluster's; what is tried then is the loss of acceptors, the one kind whose number alone does
//! not tell.

use std::fmt;

use loggos_protocol::{AcceptorId, AcceptorSet, ClusterSettings, RoleId};

use super::{Config, NodeConfig};

/// The most sets of losses to try: a few seconds' worth. It is enough for all grids up to f = 6 and
/// majorities up to f = 12 with a node for each acceptor.
const SETS_MAX: u64 = 1 << 24;

/// The result of trying all losses of f nodes, or of f acceptors in one process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Losses {
    /// Each leaves the cluster live.
    Survived {
        /// The number of losses that were tried.
        sets: u64,
    },
    /// There are too many to try; that the cluster survives them follows from the sizes of its
    /// quorums, since no node has two roles of a kind.
    TooMany {
        /// The number of losses.
        sets: u64,
    },
    /// Unknown: there are too many to try, and some nodes have two roles of a kind.
    Unproven {
        /// The number of losses.
        sets: u64,
    },
    /// The cluster does not survive this one.
    Fatal {
        /// The lost parts.
        lost: Vec<Part>,
        /// What would be missing; at least one.
        missing: Vec<Missing>,
    },
}

/// A part of a cluster that can be lost at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Part {
    /// An acceptor, in one process.
    Acceptor(AcceptorId),
    /// A node, by its name, with all its roles.
    Node(String),
}

/// A need of a cluster that is not met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// No leader could be elected, and nothing read.
    ReadQuorum,
    /// Nothing could be chosen.
    WriteQuorum,
    /// No proposer could lead.
    Proposer,
    /// No living proposer would have a proxy leader.
    ProxyLeader,
    /// Nothing could be truncated, so that the cluster would halt at its bound (R29).
    Replicas {
        /// Replicas that would be left.
        left: u8,
        /// f + 1; or what is left of fewer than 2f + 1 when f are lost: that there are few is a
        /// [weakness](super::Weakness) of its own.
        wanted: u8,
    },
}

/// Roles that live or are lost together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Roles {
    /// By number, at most 64.
    proposers: u64,
    /// By number, at most 64.
    proxy_leaders: u64,
    acceptors: AcceptorSet,
    /// By number, at most 64.
    replicas: u64,
}

impl Config {
    /// Tries every loss of f nodes, or of f acceptors in one process: whether it leaves a read and
    /// a write quorum of acceptors, a proposer with a proxy leader, and f + 1 replicas.
    ///
    /// May take seconds.
    #[must_use]
    pub fn try_losses(&self) -> Losses {
        let cluster = &self.cluster;
        let parts: Vec<(Part, Roles)> = if self.is_one_process() {
            let acceptors = cluster.quorums.acceptors();
            acceptors
                .iter()
                .map(|id| (Part::Acceptor(id), Roles::of(&[RoleId::Acceptor(id)])))
                .collect()
        } else {
            let part = |node: &NodeConfig| (Part::Node(node.name.clone()), Roles::of(&node.roles));
            self.nodes.iter().map(part).collect()
        };
        let roles: Vec<_> = parts.iter().map(|(_, roles)| *roles).collect();
        let lost_count = usize::from(cluster.f).min(parts.len());
        let sets = choose(parts.len(), lost_count);
        if sets > SETS_MAX {
            let is_proven = roles.iter().all(|roles| roles.has_one_of_a_kind(cluster));
            return if is_proven { Losses::TooMany { sets } } else { Losses::Unproven { sets } };
        }
        let mut search = Search { cluster, parts: &roles, lost: Vec::new(), tried: 0 };
        let all: Vec<_> = self.placement.keys().copied().collect();
        match search.fatal_loss(Roles::of(&all), 0, lost_count) {
            None => Losses::Survived { sets: search.tried },
            Some(missing) => {
                let lost = search.lost.iter().map(|index| parts[*index].0.clone()).collect();
                Losses::Fatal { lost, missing }
            }
        }
    }

    /// Whether all roles live in one process, in a node or without any.
    pub(super) fn is_one_process(&self) -> bool {
        self.nodes.len() <= 1
    }
}

/// The trial of all losses of a given number of parts.
struct Search<'a> {
    cluster: &'a ClusterSettings,
    parts: &'a [Roles],
    /// The parts that are lost at present.
    lost: Vec<usize>,
    /// Whole losses that were tried.
    tried: u64,
}

impl Search<'_> {
    /// Takes `more` parts from `first` on out of `left`, in every way, until something is missing;
    /// returns that, with `lost` as it then was.
    fn fatal_loss(&mut self, left: Roles, first: usize, more: usize) -> Option<Vec<Missing>> {
        if more == 0 {
            self.tried += 1;
            let missing = left.missing(self.cluster);
            return (!missing.is_empty()).then_some(missing);
        }
        // So many must be left to be taken after it.
        for lost in first..=self.parts.len() - more {
            self.lost.push(lost);
            let left = left.without(self.parts[lost]);
            if let Some(missing) = self.fatal_loss(left, lost + 1, more - 1) {
                return Some(missing);
            }
            self.lost.pop();
        }
        None
    }
}

impl Roles {
    fn of(roles: &[RoleId]) -> Self {
        let mut all = Self::default();
        for role in roles {
            match role {
                RoleId::Gateway(_) => {} // clients lose their way, the cluster lives
                RoleId::Proposer(id) => all.proposers |= 1 << id.0,
                RoleId::ProxyLeader(id) => all.proxy_leaders |= 1 << id.0,
                RoleId::Acceptor(id) => {
                    all.acceptors.insert(*id);
                }
                RoleId::Replica(id) => all.replicas |= 1 << id.0,
            }
        }
        all
    }

    fn without(self, lost: Self) -> Self {
        Self {
            proposers: self.proposers & !lost.proposers,
            proxy_leaders: self.proxy_leaders & !lost.proxy_leaders,
            acceptors: self.acceptors.without(lost.acceptors),
            replicas: self.replicas & !lost.replicas,
        }
    }

    /// Returns what `cluster` lacks if these are all its living roles.
    fn missing(&self, cluster: &ClusterSettings) -> Vec<Missing> {
        let f = cluster.f;
        // No layout can do better than to lose one replica with each node.
        let wanted = (f + 1).min(cluster.replicas - f);
        let left = u8::try_from(self.replicas.count_ones()).unwrap_or(u8::MAX);
        let proxy_leaders = match cluster.proxy_leaders {
            0 => self.proxy_leaders & self.proposers,
            _ => self.proxy_leaders,
        };
        let needs = [
            (cluster.quorums.is_read_quorum(self.acceptors), Missing::ReadQuorum),
            (cluster.quorums.is_write_quorum(self.acceptors), Missing::WriteQuorum),
            (self.proposers != 0, Missing::Proposer),
            (proxy_leaders != 0, Missing::ProxyLeader),
            (left >= wanted, Missing::Replicas { left, wanted }),
        ];
        needs.into_iter().filter(|(is_there, _)| !is_there).map(|(_, missing)| missing).collect()
    }

    /// Whether a loss of this is a loss of at most one of each kind, so that f of them are what the
    /// cluster's sizes are made for.
    fn has_one_of_a_kind(&self, cluster: &ClusterSettings) -> bool {
        let is_paired = cluster.proxy_leaders > 0 || self.proposers == self.proxy_leaders;
        is_paired
            && self.acceptors.len() <= 1
            && [self.proposers, self.proxy_leaders, self.replicas]
                .iter()
                .all(|kind| kind.count_ones() <= 1)
    }
}

/// Returns the number of sets of `k` among `n`, which is at most 64.
fn choose(n: usize, k: usize) -> u64 {
    let (n, k) = (n as u128, k as u128);
    // Exact at every step: it is the number of sets of i + 1 among n.
    let sets = (0..k).fold(1_u128, |sets, i| sets * n.saturating_sub(i) / (i + 1));
    u64::try_from(sets).unwrap_or(u64::MAX)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acceptor(id) => write!(f, "acceptor {}", id.0),
            Self::Node(name) => write!(f, "node {name}"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadQuorum => f.write_str("no read quorum of acceptors"),
            Self::WriteQuorum => f.write_str("no write quorum of acceptors"),
            Self::Proposer => f.write_str("no proposer"),
            Self::ProxyLeader => f.write_str("no proxy leader for a living proposer"),
            Self::Replicas { left, wanted } => {
                write!(f, "{left} of the {wanted} replicas it needs")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::read;

    fn config(text: &str) -> Config {
        read(text, &[0, 1]).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
    }

    /// A cluster of nodes n0, n1 and so on with these roles.
    fn nodes(cluster: &str, roles: &[&str]) -> Config {
        let mut text = format!("[cluster]\n{cluster}\n");
        for (index, roles) in roles.iter().enumerate() {
            let roles: Vec<_> = roles.split(", ").collect();
            text += &format!(
                "[nodes.n{index}]\naddress = \"127.0.0.1:{}\"\nroles = {roles:?}\n",
                7000 + index
            );
        }
        config(&text)
    }

    fn fatal(lost: &[&str], missing: &[Missing]) -> Losses {
        let lost = lost.iter().map(|name| Part::Node((*name).to_owned())).collect();
        Losses::Fatal { lost, missing: missing.to_vec() }
    }

    /// Plain Paxos on three machines.
    const MAJORITY: &str = "quorums = \"majority\"\nproposers = 3\nproxy_leaders = 0";

    #[test]
    fn in_one_process_every_loss_of_f_acceptors_is_tried_and_survived() {
        for (text, sets) in [
            ("", 4),
            ("f = 0", 1),
            ("f = 2", 36),
            ("f = 2\nquorums = { grid = { rows = 3, columns = 4 } }", 66),
            ("f = 3\nquorums = \"majority\"", 35),
            ("quorums = { flexible = { acceptors = 4, read = 3, write = 2 } }", 4),
            ("f = 4", 12_650),
        ] {
            let config = config(&format!("[cluster]\n{text}"));
            assert_eq!(config.try_losses(), Losses::Survived { sets }, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_tried_in_time_is_not() {
        let text = "f = 31\nquorums = \"majority\"\nproxy_leaders = 0\nreplicas = 63";
        let sets = 916_312_070_471_295_267;
        assert_eq!(config(&format!("[cluster]\n{text}")).try_losses(), Losses::TooMany { sets });
        let mut roles: Vec<_> = (0..63).map(|id| format!("acceptor {id}, replica {id}")).collect();
        for (id, roles) in roles.iter_mut().take(32).enumerate() {
            *roles += &format!(", proposer {id}");
        }
        roles[0] += ", gateway 0";
        let of = |roles: &[String]| {
            nodes(text, &roles.iter().map(String::as_str).collect::<Vec<_>>()).try_losses()
        };
        assert_eq!(of(&roles), Losses::TooMany { sets });
        roles[1] = roles[1].replace(", proposer 1", "");
        roles[0] += ", proposer 1";
        assert_eq!(of(&roles), Losses::Unproven { sets });
    }

    #[test]
    fn three_nodes_with_one_role_of_each_kind_survive_one_loss() {
        let roles =
            [0, 1, 2].map(|id| format!("gateway {id}, proposer {id}, acceptor {id}, replica {id}"));
        let roles: Vec<_> = roles.iter().map(String::as_str).collect();
        let text = format!("{MAJORITY}\ngateways = 3\ndurability = \"memory\"");
        let config = nodes(&text, &roles);
        assert_eq!(config.try_losses(), Losses::Survived { sets: 3 });
        assert_eq!(config.weaknesses(), []);
    }

    /// Two acceptors of a grid on one node: each column has lost one, or each row.
    #[test]
    fn a_fatal_loss_is_named_with_what_would_be_missing() {
        let rest = ["gateway 0, proposer 0, replica 0, proxy leader 0", "proposer 1, replica 1"];
        let last = "replica 2, proxy leader 1";
        let grid = |first: &str, second: &str| {
            nodes("", &[rest[0], rest[1], last, first, second]).try_losses()
        };
        assert_eq!(
            grid("acceptor 0, acceptor 1", "acceptor 2, acceptor 3"),
            fatal(&["n3"], &[Missing::ReadQuorum])
        );
        assert_eq!(
            grid("acceptor 0, acceptor 2", "acceptor 1, acceptor 3"),
            fatal(&["n3"], &[Missing::WriteQuorum])
        );
        assert_eq!(
            grid("acceptor 0", "acceptor 1, acceptor 2, acceptor 3"),
            fatal(&["n4"], &[Missing::ReadQuorum, Missing::WriteQuorum])
        );
    }

    #[test]
    fn all_proposers_or_proxy_leaders_on_one_node_are_a_fatal_loss() {
        let acceptors = ["acceptor 0, replica 0", "acceptor 1, replica 1", "acceptor 2, replica 2"];
        let of = |last: [&str; 2]| {
            nodes("quorums = \"majority\"", &[&acceptors[..], &last].concat()).try_losses()
        };
        assert_eq!(
            of(["proposer 0, proposer 1", "proxy leader 0, proxy leader 1, gateway 0"]),
            fatal(&["n3"], &[Missing::Proposer])
        );
        assert_eq!(
            of(["proposer 0, proxy leader 0, proxy leader 1", "proposer 1, gateway 0"]),
            fatal(&["n3"], &[Missing::ProxyLeader])
        );
    }

    /// A proposer's own proxy leader is of no use to another.
    #[test]
    fn where_each_proposer_has_its_own_proxy_leader_one_pair_must_be_left() {
        let of = |first: &str, second: &str| {
            let roles = [first, second, "acceptor 2, replica 2, gateway 0"];
            nodes("quorums = \"majority\"\nproxy_leaders = 0", &roles).try_losses()
        };
        assert_eq!(
            of(
                "acceptor 0, replica 0, proposer 0, proxy leader 1",
                "acceptor 1, replica 1, proposer 1, proxy leader 0"
            ),
            fatal(&["n0"], &[Missing::ProxyLeader])
        );
        assert_eq!(
            of("acceptor 0, replica 0, proposer 0", "acceptor 1, replica 1, proposer 1"),
            Losses::Survived { sets: 3 }
        );
    }

    /// Fewer than 2f + 1 replicas are a weakness; a layout that makes it worse is fatal.
    #[test]
    fn f_plus_1_replicas_must_be_left_unless_there_are_fewer_than_2f_plus_1() {
        let of = |replicas: u8, last: [&str; 3]| {
            let roles = [0, 1, 2].map(|id| {
                let last = last[id];
                format!("acceptor {id}, proposer {id}{last}")
            });
            let roles: Vec<_> = roles.iter().map(String::as_str).collect();
            nodes(&format!("{MAJORITY}\nreplicas = {replicas}"), &roles).try_losses()
        };
        assert_eq!(
            of(3, [", replica 0, gateway 0", ", replica 1, replica 2", ""]),
            fatal(&["n1"], &[Missing::Replicas { left: 1, wanted: 2 }])
        );
        assert_eq!(
            of(2, [", replica 0, gateway 0", ", replica 1", ""]),
            Losses::Survived { sets: 3 }
        );
        assert_eq!(
            of(2, [", replica 0, gateway 0, replica 1", "", ""]),
            fatal(&["n0"], &[Missing::Replicas { left: 0, wanted: 1 }])
        );
    }

    /// A failed disk stops all acceptors whose log is on it: they are not lost one by one.
    #[test]
    fn r34_all_acceptors_of_a_node_are_one_loss() {
        let rest = "proposer 0, proxy leader 0, replica 0, gateway 0";
        let more = ["proposer 1, proxy leader 1, replica 1", "replica 2"];
        let of = |acceptors: [&str; 2]| {
            nodes("quorums = \"majority\"", &[rest, more[0], more[1], acceptors[0], acceptors[1]])
        };
        let together = of(["acceptor 0", "acceptor 1, acceptor 2"]).try_losses();
        let missing = [Missing::ReadQuorum, Missing::WriteQuorum];
        assert_eq!(together, fatal(&["n4"], &missing));
        let text = "acceptor 0, acceptor 1";
        assert_eq!(of([text, "acceptor 2"]).try_losses(), fatal(&["n3"], &missing));
    }

    #[test]
    fn f_nodes_are_lost_together() {
        let roles = [0, 1, 2].map(|id| format!("acceptor {id}, proposer {id}, replica {id}"));
        let pairs: Vec<_> =
            roles.iter().map(String::as_str).chain(["acceptor 3, acceptor 4, gateway 0"]).collect();
        let text = "f = 2\nquorums = \"majority\"\nproxy_leaders = 0\nreplicas = 3";
        let lost = nodes(text, &pairs).try_losses();
        assert_eq!(lost, fatal(&["n0", "n3"], &[Missing::ReadQuorum, Missing::WriteQuorum]));
    }

    #[test]
    fn no_more_nodes_than_f_are_all_lost() {
        let all = "gateway 0, proposer 0, proposer 1, acceptor 0, acceptor 1, replica 0, replica 1";
        let text = "quorums = \"majority\"\nproposers = 3\nproxy_leaders = 0\nf = 2\nreplicas = 5";
        let more =
            "acceptor 2, acceptor 3, acceptor 4, replica 2, replica 3, replica 4, proposer 2";
        let Losses::Fatal { lost, missing } = nodes(text, &[all, more]).try_losses() else {
            panic!("two nodes survive their loss");
        };
        assert_eq!((lost.len(), missing.len()), (2, 5));
        let one = format!("{all}, {more}");
        assert_eq!(nodes(text, &[&one]).try_losses(), Losses::Survived { sets: 10 });
    }
}
