//! Losses that a cluster does not survive, though its configuration is valid.

use std::collections::BTreeMap;
use std::fmt;

use loggos_protocol::RoleId;

use super::durability::log_bytes_needed;
use super::nodes::is_durable;
use super::{Config, NodeConfig};

/// A reason why a cluster may stop, although no more was lost than it is made for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Weakness {
    /// The slowest replica holds credit, and f + 1 must be there (R29).
    FewReplicas {
        /// Replicas there are.
        replicas: u8,
        /// 2f + 1.
        wanted: u8,
    },
    /// `f` losses can leave clients without any gateway.
    FewGateways {
        /// Gateways there are.
        gateways: u8,
        /// f + 1.
        wanted: u8,
    },
    /// There are gateways enough, on so few nodes that `f` losses can leave clients without any.
    GatewaysTogether {
        /// The nodes that have gateways, by name.
        nodes: Vec<String>,
        /// f + 1.
        wanted: u8,
    },
    /// Nothing is said of durability, so that `loggos node` takes "sync", and these nodes have
    /// acceptors or replicas and no data directory.
    NoData {
        /// The nodes, by name.
        nodes: Vec<String>,
    },
    /// The acceptors of a core may have to stop taking new commands for a while, because their log
    /// is full before replicas have taken snapshots of what is in it.
    ShortLog {
        /// The node, if there are nodes.
        node: Option<String>,
        /// The core, as an index into its `cpus`.
        core: usize,
        /// The bytes that the log may need.
        needed: u64,
    },
    /// All roles live in one process.
    OneProcess,
}

impl Config {
    /// Returns all that speaks against this cluster without being a mistake.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let (f, mut found) = (self.cluster.f, Vec::new());
        let (replicas, gateways) = (self.cluster.replicas, self.cluster.gateways);
        let wanted = f.saturating_mul(2).saturating_add(1);
        if replicas < wanted {
            found.push(Weakness::FewReplicas { replicas, wanted });
        }
        let wanted = f.saturating_add(1);
        if gateways < wanted {
            found.push(Weakness::FewGateways { gateways, wanted });
        }
        let nodes: Vec<_> = match self.durability {
            None => {
                self.nodes.iter().filter(|node| needs_data(node)).map(|n| n.name.clone()).collect()
            }
            Some(_) => Vec::new(), // it was looked at as the text was read
        };
        if !nodes.is_empty() {
            found.push(Weakness::NoData { nodes });
        }
        found.extend(self.short_logs());
        if self.is_one_process() {
            found.push(Weakness::OneProcess);
        } else if gateways >= wanted {
            let is_gateway = |role: &RoleId| matches!(role, RoleId::Gateway(_));
            let nodes = self.nodes.iter().filter(|node| node.roles.iter().any(is_gateway));
            let nodes: Vec<_> = nodes.map(|node| node.name.clone()).collect();
            if nodes.len() < usize::from(wanted) {
                found.push(Weakness::GatewaysTogether { nodes, wanted });
            }
        }
        found
    }

    /// The logs that may fill up before replicas have snapshots.
    fn short_logs(&self) -> Vec<Weakness> {
        let is_durable = self.is_durable();
        let mut acceptors: BTreeMap<(Option<&str>, usize), u32> = BTreeMap::new();
        for (role, core) in &self.placement {
            if is_durable && matches!(role, RoleId::Acceptor(_)) {
                let node = self.nodes.iter().find(|node| node.roles.contains(role));
                *acceptors.entry((node.map(|it| it.name.as_str()), *core)).or_default() += 1;
            }
        }
        let needed = |count| log_bytes_needed(&self.cluster, count);
        let short = acceptors.into_iter().filter(|(_, count)| needed(*count) > self.log.bytes_max);
        let weaknesses = short.map(|((node, core), count)| Weakness::ShortLog {
            node: node.map(str::to_owned),
            core,
            needed: needed(count),
        });
        weaknesses.collect()
    }
}

/// Whether a node has acceptors or replicas, and nowhere to keep what they must not forget.
fn needs_data(node: &NodeConfig) -> bool {
    node.data.is_none() && node.roles.iter().any(is_durable)
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewReplicas { replicas, wanted } => write!(
                f,
                "{replicas} replicas are fewer than 2f + 1 = {wanted}: the cluster halts at its bound \
                 when one replica is lost"
            ),
            Self::FewGateways { gateways, wanted } => write!(
                f,
                "{gateways} {} fewer than f + 1 = {wanted}: the loss of f can leave clients without any",
                if *gateways == 1 { "gateway is" } else { "gateways are" }
            ),
            Self::GatewaysTogether { nodes, wanted } => write!(
                f,
                "all gateways are in {}, fewer than f + 1 = {wanted} nodes: the loss of f can leave \
                 clients without any",
                nodes.join(", ")
            ),
            Self::NoData { nodes } => write!(
                f,
                "`loggos node` would not start {}: there are acceptors or replicas and no `data`, and durability is not \
                 given, which means \"sync\"; name directories, or write durability = \"memory\"",
                nodes.join(", ")
            ),
            Self::ShortLog { node, core, needed } => {
                let node = node.as_ref().map_or_else(String::new, |node| format!(" of {node}"));
                let needed = needed.div_ceil(1 << 20);
                write!(
                    f,
                    "the log of core {core}{node} may need {needed} MiB until replicas have taken snapshots, and \
                     its acceptors take nothing new when it is full: raise log_bytes_max, or lower \
                     checkpoint_interval or checkpoint_bytes"
                )
            }
            Self::OneProcess => f.write_str(
                "all roles live in one process: the cluster survives the loss of roles, but no loss \
                 of that process or its machine",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read::read;

    fn config(text: &str) -> Config {
        read(text, &[0, 1]).unwrap()
    }

    #[test]
    fn the_default_has_one_gateway_in_one_process() {
        let few = Weakness::FewGateways { gateways: 1, wanted: 2 };
        assert_eq!(config("").weaknesses(), [few, Weakness::OneProcess]);
        let two = config("[cluster]\ngateways = 2");
        assert_eq!(two.weaknesses(), [Weakness::OneProcess]);
    }

    #[test]
    fn few_replicas_are_a_weakness() {
        let weaknesses = config("[cluster]\ngateways = 2\nreplicas = 2").weaknesses();
        assert_eq!(weaknesses[0], Weakness::FewReplicas { replicas: 2, wanted: 3 });
        assert!(weaknesses[0].to_string().contains("halts at its bound"), "{}", weaknesses[0]);
    }

    #[test]
    fn a_single_node_is_one_process() {
        let roles = Config::standard().placement;
        let roles: Vec<_> = roles.keys().map(ToString::to_string).collect();
        let text = format!("[nodes.all]\naddress = \"[::1]:7420\"\nroles = {roles:?}");
        assert_eq!(config(&text).weaknesses().last(), Some(&Weakness::OneProcess));
    }

    #[test]
    fn nodes_with_acceptors_and_no_data_are_a_weakness_unless_acceptors_are_in_memory() {
        let roles = Config::standard().placement;
        let roles: Vec<_> = roles.keys().map(ToString::to_string).collect();
        let of = |durability: &str, data: &str| {
            let node = format!("[nodes.all]\naddress = \"[::1]:7420\"\nroles = {roles:?}\n{data}");
            config(&format!("[cluster]\ngateways = 1\n{durability}\n{node}")).weaknesses()
        };
        let none = Weakness::NoData { nodes: vec!["all".to_owned()] };
        assert!(of("", "").contains(&none));
        assert!(!of("durability = \"memory\"", "").contains(&none));
        assert!(!of("", "data = \"data\"").contains(&none));
    }

    #[test]
    fn a_log_that_may_fill_up_before_a_snapshot_is_a_weakness() {
        let of = |limits: &str| {
            let text =
                format!("[cluster]\ngateways = 2\ndurability = \"sync\"\n[limits]\n{limits}");
            let weaknesses = config(&text).weaknesses();
            let short = weaknesses.iter().filter(|it| matches!(it, Weakness::ShortLog { .. }));
            short.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(""), [""; 0], "the defaults fit");
        let short = of("log_bytes_max = \"1GiB\"");
        assert_eq!(short.len(), 2, "both cores have acceptors: {short:?}");
        assert!(short[0].starts_with("the log of core 0 may need 1806 MiB until"), "{}", short[0]);
        let fits =
            "log_bytes_max = \"1GiB\"\ncheckpoint_interval = 10000\ncheckpoint_bytes = \"64MiB\"";
        assert_eq!(of(fits), [""; 0]);
    }

    #[test]
    fn gateways_on_one_node_are_a_weakness() {
        let node = |name: &str, id: u8, gateways: &str| {
            let roles = format!("\"acceptor {id}\", \"replica {id}\", \"proposer {id}\"{gateways}");
            format!("[nodes.{name}]\naddress = \"10.0.0.{id}:1\"\nroles = [{roles}]\n")
        };
        let head = "[cluster]\ndurability = \"memory\"\nquorums = \"majority\"\nproposers = 3\nproxy_leaders = 0\n\
            gateways = 2\n";
        let of = |b: &str, c: &str| {
            let nodes = node("b", 0, b) + &node("a", 1, "") + &node("c", 2, c);
            config(&format!("{head}{nodes}")).weaknesses()
        };
        let together = Weakness::GatewaysTogether { nodes: vec!["c".to_owned()], wanted: 2 };
        assert_eq!(of("", ", \"gateway 0\", \"gateway 1\""), [together]);
        assert_eq!(of(", \"gateway 0\"", ", \"gateway 1\""), []);
    }
}
