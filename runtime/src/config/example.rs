//! The configuration that names everything.

use std::fmt::Write;

use loggos_protocol::Settings;

use super::keys::{Draft, KEYS, Kind, NODE_KEYS, NODES, PLACEMENT, SECTIONS};
use super::{Config, standard_grid};

const HEAD: &str = "\
# The configuration of a Loggos cluster; as it is here, of one in a single process. Every section and key may
# be left out: what is written here is used then, and where f is another, what is said to follow from it.
";

/// Nodes of the default cluster that survive the loss of any one, each with its roles.
const EXAMPLE_NODES: [(&str, &str); 4] = [
    ("a", r#"["gateway 0", "proposer 0", "acceptor 0", "replica 0"]"#),
    ("b", r#"["proposer 1", "acceptor 1", "replica 1"]"#),
    ("c", r#"["proxy leader 0", "acceptor 2", "replica 2"]"#),
    ("d", r#"["proxy leader 1", "acceptor 3"]"#),
];

pub(super) fn example() -> String {
    let settings = Settings::new(1, standard_grid());
    let cluster = settings.clone().check().expect("the defaults make a cluster");
    let mut draft = Draft::new(settings);
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        line(&mut text, format_args!("\n# {}\n[{}]", section.what, section.name));
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            line(&mut text, format_args!("# {}", key.what));
            match (&key.kind, key.shown(&mut draft)) {
                (Kind::Own(own), _) => line(&mut text, format_args!("{own}")),
                (_, shown) => {
                    let shown = shown.unwrap_or_default();
                    line(&mut text, format_args!("{} = {shown}", key.name));
                }
            }
        }
        if section.name == NODES {
            nodes(&mut text);
        }
        if section.name == PLACEMENT {
            for (role, core) in Config::on_cpus(cluster.clone(), vec![0, 1]).placement {
                line(&mut text, format_args!("# \"{role}\" = {core}"));
            }
        }
    }
    text
}

/// The nodes as comments: with them the cluster would not be in one process.
fn nodes(text: &mut String) {
    for (index, (name, roles)) in EXAMPLE_NODES.iter().enumerate() {
        line(text, format_args!("# [nodes.{name}]"));
        for key in &NODE_KEYS {
            if index == 0 {
                line(text, format_args!("# # {}", key.what.replace("\n# ", "\n# # ")));
            }
            let value = match key.name {
                "address" => format!("\"192.168.1.{}:7420\"", index + 1),
                "cpus" => "[0, 1]".to_owned(),
                "data" => format!("\"data/{name}\""),
                _ => (*roles).to_owned(),
            };
            line(text, format_args!("# {} = {value}", key.name));
        }
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Losses;

    #[test]
    fn the_example_is_the_default() {
        assert_eq!(Config::from_toml(&example()), Ok(Config::standard()), "{}", example());
    }

    #[test]
    fn the_example_has_every_key() {
        let example = example();
        for key in &KEYS {
            let is_there = |line: &str| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.split_once(" = ").is_some_and(|(name, _)| name == key.name)
            };
            assert!(example.lines().any(is_there), "{} is not in\n{example}", key.name);
        }
        for section in &SECTIONS {
            assert!(example.contains(&format!("\n[{}]\n", section.name)), "{}", section.name);
        }
    }

    #[test]
    fn the_examples_nodes_survive_the_loss_of_any_one() {
        let example = example();
        let (_, nodes) = example.split_once("\n# [nodes.a]").unwrap();
        let (nodes, _) = nodes.split_once("\n\n").unwrap();
        let text = format!("[nodes.a]{}", nodes.replace("\n# ", "\n"));
        let config = crate::config::read::read(&text, &[]).unwrap();
        assert_eq!(config.nodes.len(), 4);
        assert_eq!(config.try_losses(), Losses::Survived { sets: 4 });
        for key in &NODE_KEYS {
            assert_eq!(text.matches(&format!("\n{} = ", key.name)).count(), 4, "{}", key.name);
        }
    }

    /// The commented parts of the example are valid, too.
    #[test]
    fn the_examples_placement_is_the_default_on_two_cores() {
        let example = example();
        let (_, placement) = example.split_once("[placement]\n").unwrap();
        let text = format!("[placement]\n{}", placement.replace("# \"", "\""));
        let config = crate::config::read::read(&text, &[0, 1]).unwrap();
        assert_eq!(config.placement, Config::on_cpus(config.cluster, vec![0, 1]).placement);
        assert_eq!(placement.lines().count(), 12);
    }
}
