//! What people write: configurations in TOML.

use loggos::{Config, ConfigErrors, NodeConfig};

/// Losses of which all are tried; for more it takes too long.
const F_TRIED_MAX: u8 = 2;

/// A text that is refused with mistakes that lie in it, or accepted, and all that follows from it
/// is there.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::from_toml(text) {
        Ok(config) => accepted(text, &config),
        Err(errors) => refused(text, &errors),
    }
}

fn refused(text: &str, errors: &ConfigErrors) {
    let shown = errors.to_string();
    assert!(!errors.errors.is_empty(), "refused without a reason");
    assert!(errors.errors.is_sorted_by_key(|error| error.place), "{shown}");
    for error in &errors.errors {
        let place = error.place.expect("there is a text");
        let line = text.split('\n').nth(place.line - 1).expect("a line of the text");
        // One beyond the last is the end of the line.
        assert!((1..=line.chars().count() + 1).contains(&place.column), "{error}");
        assert!(!error.what.is_empty(), "a mistake of which nothing is said");
    }
}

fn accepted(text: &str, config: &Config) {
    let again = Config::from_toml(text).expect("it was accepted");
    assert_eq!(again, *config, "read twice, it is two");
    assert_eq!(again.layout_digest(), config.layout_digest(), "nodes refuse each other");
    assert_eq!(again.cluster.digest(), config.cluster.digest(), "likewise");

    let cluster = &config.cluster;
    let roles = usize::from(cluster.gateways)
        + usize::from(cluster.proposers)
        + usize::from(cluster.proxy_leaders_running())
        + usize::from(cluster.quorums.acceptors_count())
        + usize::from(cluster.replicas);
    assert_eq!(config.placement.len(), roles, "a role without a core");
    if config.nodes.is_empty() {
        let cores = config.cpus.len();
        assert!(config.placement.values().all(|core| *core < cores), "none of {cores} cores");
    } else {
        let at_home = config.nodes.iter().map(|node| node.roles.len()).sum::<usize>();
        assert_eq!(at_home, roles, "a role without a node");
        config.nodes.iter().for_each(|node| lives(node, config));
    }
    assert!(config.node("").is_err(), "a node without a name");
    for weakness in config.weaknesses() {
        assert!(!weakness.to_string().is_empty(), "{weakness:?}");
    }
    if cluster.f <= F_TRIED_MAX {
        drop(config.try_losses());
    }
}

/// Every role of `node` has a core of it.
fn lives(node: &NodeConfig, config: &Config) {
    let place = config.node(&node.name).expect("a node of the configuration");
    assert_eq!(config.nodes[place], *node, "another of this name");
    assert!(node.address.port() != 0, "{} cannot be reached", node.name);
    assert!(node.roles.iter().all(|role| config.placement[role] < node.cpus.len()), "{node:?}");
}
