//! `loggos config`: is a configuration right, and what cluster does it make?

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use loggos::{Config, Losses, NodeConfig, RoleId};

use crate::exit;
use crate::log;

/// The operation on a configuration.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Say what cluster a configuration makes, or all that is wrong with it.
    ///
    /// Prints one line for each kind of role, with the node or processor core of each, and one for
    /// each node; of several cores, what part of the work each can expect. Then tries every loss of
    /// f nodes, or, in one process, of f acceptors: whether the cluster can go on without them.
    /// What it does not survive goes to standard error, as do all mistakes, each with its line and
    /// column. Succeeds if there are no mistakes and every such loss is survived.
    Check(CheckOptions),
    /// Print a configuration that names every key, with what it means and its default.
    Example,
}

#[derive(Args, Clone, Debug)]
struct CheckOptions {
    /// The configuration, in TOML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `loggos config`.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    match &options.command {
        Command::Check(options) => check(options),
        Command::Example => Ok(exit::stdout().write_all(Config::example().as_bytes())?),
    }
}

fn check(options: &CheckOptions) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&options.file)?;
    let mut out = exit::stdout();
    let limit = loggos::descriptors_max();
    let work = work(&config);
    write!(out, "{}{work}{}{}", roles(&config), clients(&config, limit), nodes(&config))?;
    for weakness in config.weaknesses() {
        log::say(&format!("{}: warning: {weakness}", options.file.display()));
    }
    let losses = losses(&config).map_err(|fatal| format!("{}: {fatal}", options.file.display()))?;
    writeln!(out, "{losses}")?;
    if has_disks(&config) {
        writeln!(out, "{DISKS}")?;
    }
    Ok(())
}

/// What no configuration tells.
const DISKS: &str = "all acceptors of a node count as one loss; nodes whose `data` is on one disk, or in one machine, are \
                     lost together too: that is not known here";

/// Whether several nodes may keep what their acceptors must not forget on disks.
fn has_disks(config: &Config) -> bool {
    config.nodes.len() > 1 && config.is_durable()
}

/// One line for each kind of role, with the nodes, or else the processor cores, in the order of the
/// roles.
fn roles(config: &Config) -> String {
    let kinds = ["gateways", "proposers", "proxy leaders", "acceptors", "replicas"];
    let mut text = String::new();
    for kind in kinds {
        let roles = config.placement.iter().filter(|(role, _)| kind_of(**role) == kind);
        let places: Vec<_> = roles.map(|(role, core)| place_of(config, *role, *core)).collect();
        let whose = if config.nodes.is_empty() { "on cpus" } else { "in nodes" };
        let note = if kind == "acceptors" {
            format!(" ({})", config.cluster.quorums)
        } else {
            String::new()
        };
        let (count, places) = (places.len(), places.join(" "));
        writeln!(text, "{kind:<13} {count:>3}  {whose} {places}{note}")
            .expect("writing to a string does not fail");
    }
    text
}

/// The expected part of the work that each processor core has, where all roles live in one process
/// on several.
fn work(config: &Config) -> String {
    if config.cpus.len() < 2 {
        return String::new();
    }
    let parts = config.cpus.iter().zip(config.expected_shares(None));
    let parts = parts.map(|(cpu, part)| format!("{:.0} % on cpu {cpu}", 100.0 * part));
    format!("expected work      {}, with full batches\n", joined(&parts.collect::<Vec<_>>(), ", "))
}

/// The node of a role by name; in one process the processor core.
fn place_of(config: &Config, role: RoleId, core: usize) -> String {
    let node = config.nodes.iter().find(|node| node.roles.contains(&role));
    node.map_or_else(|| config.cpus[core].to_string(), |node| node.name.clone())
}

/// One line for each node, with its roles by processor core.
fn nodes(config: &Config) -> String {
    let width = config.nodes.iter().map(|node| node.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for node in &config.nodes {
        let (name, address) = (&node.name, &node.address);
        let cpus = cpus_of(config, node).join("; ");
        writeln!(text, "node {name:<width$}  {address}  {cpus}")
            .expect("writing to a string does not fail");
    }
    text
}

/// How many clients nodes have room for, in a process that may have `limit` file descriptors: one
/// line for those that have the same.
fn clients(config: &Config, limit: u64) -> String {
    let mut rooms: Vec<(String, Vec<&str>)> = Vec::new();
    for (place, node) in config.nodes.iter().enumerate() {
        let room = match config.descriptors(place, limit, None) {
            Ok(shared) if shared.clients_max == 0 => continue, // it has no gateway
            Ok(shared) => {
                let (room, reserved) = (shared.clients_max, shared.reserved);
                format!(
                    "{room:>3}  at the most, of {limit} file descriptors {reserved} reserved, at"
                )
            }
            Err(too_few) => format!("  0  ({too_few}), which does not start, at"),
        };
        match rooms.iter_mut().find(|(text, _)| *text == room) {
            Some((_, names)) => names.push(&node.name),
            None => rooms.push((room, vec![&node.name])),
        }
    }
    let lines =
        rooms.iter().map(|(room, names)| format!("clients       {room} {}\n", names.join(" ")));
    lines.collect()
}

/// Each processor core of a node with its roles.
fn cpus_of(config: &Config, node: &NodeConfig) -> Vec<String> {
    let on = |core: usize| {
        let roles = node.roles.iter().filter(move |role| config.placement[role] == core);
        roles.map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    let cpus = node.cpus.iter().enumerate().map(|(core, cpu)| (cpu, on(core)));
    let parts = config.expected_shares(Some(node));
    let is_shared = node.cpus.len() > 1;
    let used = cpus.zip(parts).filter(|((_, roles), _)| !roles.is_empty());
    let told = used.map(|((cpu, roles), part)| match is_shared {
        true => format!("cpu {cpu} ({:.0} %): {roles}", 100.0 * part),
        false => format!("cpu {cpu}: {roles}"),
    });
    told.collect()
}

fn kind_of(role: RoleId) -> &'static str {
    match role {
        RoleId::Gateway(_) => "gateways",
        RoleId::Proposer(_) => "proposers",
        RoleId::ProxyLeader(_) => "proxy leaders",
        RoleId::Acceptor(_) => "acceptors",
        RoleId::Replica(_) => "replicas",
    }
}

/// What every loss of f nodes leaves, or, in one process, of f acceptors.
fn losses(config: &Config) -> Result<String, String> {
    let (f, cluster) = (config.cluster.f, &config.cluster);
    let kept = if config.nodes.len() <= 1 {
        let acceptors = cluster.quorums.acceptors_count();
        format!("every loss of {f} of {acceptors} acceptors leaves a read and a write quorum")
    } else {
        let (nodes, replicas) = (config.nodes.len(), (f + 1).min(cluster.replicas - f));
        format!(
            "every loss of {f} of {nodes} nodes leaves a read and a write quorum, a proposer with a \
             proxy leader and at least {replicas} replica{}",
            if replicas == 1 { "" } else { "s" }
        )
    };
    match config.try_losses() {
        Losses::Survived { sets } => Ok(format!("{kept}: {sets} tried")),
        Losses::TooMany { sets } => {
            Ok(format!("{kept}, by the sizes of its quorums: {sets} are too many to try"))
        }
        Losses::Unproven { sets } => Err(format!(
            "whether the cluster survives every loss of {f} nodes is not known: {sets} are too many to \
             try; with one role of a kind in each node it would be certain"
        )),
        Losses::Fatal { lost, missing } => {
            let lost = joined(&lost, " and ");
            Err(format!(
                "the cluster stops without {lost}: what is left has {}",
                joined(&missing, ", ")
            ))
        }
    }
}

fn joined(parts: &[impl ToString], separator: &str) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use loggos::Durability;
    use loggos::{QuorumSystem, Settings, Weakness};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn config() -> Config {
        let settings = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap());
        Config::on_cpus(settings.check().unwrap(), vec![0, 3])
    }

    #[test]
    fn each_kind_of_role_has_a_line_with_its_cores() {
        let expected = "\
gateways        1  on cpus 0
proposers       2  on cpus 0 3
proxy leaders   2  on cpus 0 3
acceptors       4  on cpus 0 0 3 3 (2 × 2 grid)
replicas        3  on cpus 3 3 3
";
        assert_eq!(roles(&config()), expected);
    }

    #[test]
    fn the_work_that_each_core_can_expect_is_told() {
        let expected = "expected work      50 % on cpu 0, 50 % on cpu 3, with full batches\n";
        assert_eq!(work(&config()), expected);
    }

    #[test]
    fn the_losses_that_were_tried_are_counted() {
        let said = losses(&config()).unwrap();
        assert_eq!(
            said,
            "every loss of 1 of 4 acceptors leaves a read and a write quorum: 4 tried"
        );
    }

    fn example(name: &str) -> Config {
        Config::load(format!("{}/examples/{name}.toml", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    #[test]
    fn the_examples_are_what_they_are_called() {
        let one = example("one-process");
        assert_eq!((one.nodes.len(), one.nodes[0].roles.len()), (1, one.placement.len()));
        assert_eq!(one.nodes[0].address.to_string(), "127.0.0.1:7420");
        assert!(one.weaknesses().contains(&Weakness::OneProcess));
        let three = example("three-nodes");
        let each = |id: u8| {
            ["gateway", "proposer", "proxy leader", "acceptor", "replica"]
                .map(|kind| format!("{kind} {id}").parse().unwrap())
        };
        for (id, node) in (0..).zip(&three.nodes) {
            assert_eq!((&node.roles[..], node.cpus.len()), (&each(id)[..], 1));
        }
        assert_eq!((three.nodes.len(), three.weaknesses()), (3, vec![]));
        let twelve = example("process-per-role");
        assert_eq!(twelve.nodes.len(), 12);
        assert!(twelve.nodes.iter().all(|node| node.roles.len() == 1 && node.cpus.len() == 1));
        assert_eq!(twelve.weaknesses(), [Weakness::FewGateways { gateways: 1, wanted: 2 }]);
    }

    /// Their cores are 0 and 1, so that they run where there are two.
    #[test]
    fn the_examples_survive_every_loss_of_one_node() {
        for (name, sets) in [("one-process", 4), ("three-nodes", 3), ("process-per-role", 12)] {
            let config = example(name);
            assert_eq!(config.try_losses(), Losses::Survived { sets }, "{name}");
            assert!(losses(&config).unwrap().ends_with(&format!(": {sets} tried")));
            assert!(config.nodes.iter().all(|node| node.cpus.iter().all(|cpu| *cpu < 2)), "{name}");
        }
    }

    #[test]
    fn each_kind_of_role_and_each_node_has_a_line() {
        let config = example("three-nodes");
        let expected = "\
gateways        3  in nodes a b c
proposers       3  in nodes a b c
proxy leaders   3  in nodes a b c
acceptors       3  in nodes a b c (3 acceptors, any 2 read, any 2 write)
replicas        3  in nodes a b c
node a  127.0.0.1:7401  cpu 0: gateway 0, proposer 0, proxy leader 0, acceptor 0, replica 0
node b  127.0.0.1:7402  cpu 1: gateway 1, proposer 1, proxy leader 1, acceptor 1, replica 1
node c  127.0.0.1:7403  cpu 0: gateway 2, proposer 2, proxy leader 2, acceptor 2, replica 2
";
        assert_eq!(roles(&config) + &nodes(&config), expected);
    }

    #[test]
    fn a_fatal_loss_is_told_with_what_would_be_missing() {
        let text = "[nodes.a]\naddress = \"10.0.0.1:1\"\n\
            roles = [\"gateway 0\", \"proposer 0\", \"proxy leader 0\", \"acceptor 0\", \"acceptor 1\"]\n\
            [nodes.b]\naddress = \"10.0.0.2:1\"\n\
            roles = [\"proposer 1\", \"proxy leader 1\", \"acceptor 2\", \"acceptor 3\", \"replica 0\"]\n\
            [nodes.c]\naddress = \"10.0.0.3:1\"\nroles = [\"replica 1\", \"replica 2\"]\n";
        let config = Config::from_toml(text).unwrap();
        assert_eq!(
            losses(&config).unwrap_err(),
            "the cluster stops without node a: what is left has no read quorum of acceptors"
        );
    }

    #[test]
    fn what_no_configuration_tells_of_disks_is_said_where_there_are_some() {
        let memory = example("three-nodes");
        assert!(!has_disks(&memory));
        assert!(has_disks(&Config { durability: Some(Durability::Sync), ..memory.clone() }));
        assert!(has_disks(&Config { durability: None, ..memory }));
        assert!(!has_disks(&config()), "one process");
    }

    #[test]
    fn a_check_needs_a_file() {
        assert!(Line::try_parse_from(["config", "check"]).is_err());
        assert!(Line::try_parse_from(["config", "check", "a.toml"]).is_ok());
        assert!(Line::try_parse_from(["config", "example"]).is_ok());
    }

    #[test]
    fn the_room_for_clients_is_told_once_for_nodes_that_have_the_same() {
        let config =
            Config::from_toml(include_str!("../examples/three-nodes.toml")).expect("sound");
        let plenty = clients(&config, 1 << 20);
        assert_eq!(plenty.lines().count(), 1, "{plenty}");
        assert!(plenty.starts_with("clients       3072  at the most, of 1048576 "), "{plenty}");
        assert!(plenty.ends_with(" at a b c\n"), "{plenty}");
        let few = clients(&config, 60);
        assert!(few.starts_with("clients         0  (") && few.contains("`ulimit -Hn`"), "{few}");
    }
}
