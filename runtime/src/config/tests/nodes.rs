//! Clusters of several nodes: what is read, and every kind of mistake.

use loggos_protocol::RoleId;

use super::{config, mistakes, refused};
use crate::config::{Config, NodeConfig};

/// Three machines with one role of each kind, f = 1; line 6 is the first node's header.
const THREE: &str = "\
[cluster]
name = \"orders\"
quorums = \"majority\"
proposers = 3
proxy_leaders = 0
[nodes.b]
address = \"127.0.0.1:7402\"
cpus = [5, 3]
roles = [\"proposer 1\", \"acceptor 1\", \"replica 1\"]
[nodes.a]
address = \"127.0.0.1:7401\"
cpus = [0]
roles = [\"gateway 0\", \"replica 0\", \"acceptor 0\", \"proposer 0\"]
[nodes.C]
address = \"[::1]:7401\"
roles = [\"proposer 2\", \"acceptor 2\", \"replica 2\"]
";

/// [`THREE`] with something else instead of `from`.
fn with(from: &str, to: &str) -> String {
    assert_eq!(THREE.matches(from).count(), 1, "{from}");
    THREE.replace(from, to)
}

fn role(text: &str) -> RoleId {
    text.parse().unwrap()
}

fn node<'c>(config: &'c Config, name: &str) -> &'c NodeConfig {
    &config.nodes[config.node(name).unwrap()]
}

fn core(config: &Config, text: &str) -> usize {
    config.placement[&role(text)]
}

#[test]
fn nodes_are_read_in_order_of_name() {
    let config = config(THREE);
    assert_eq!(config.name, "orders");
    let names: Vec<_> = config.nodes.iter().map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["C", "a", "b"]);
    assert!(config.cpus.is_empty());
    let a = node(&config, "a");
    assert_eq!((a.address.clone(), &a.cpus[..]), ("127.0.0.1:7401".parse().unwrap(), &[0][..]));
    let roles = ["gateway 0", "proposer 0", "proxy leader 0", "acceptor 0", "replica 0"].map(role);
    assert_eq!(a.roles, roles);
    assert_eq!(node(&config, "b").cpus, [5, 3], "another machine's cores are not ours to check");
    assert_eq!(node(&config, "C").cpus, [0, 1, 3], "all usable");
    let placed: usize = config.nodes.iter().map(|node| node.roles.len()).sum();
    assert_eq!(config.placement.len(), placed);
}

#[test]
fn no_nodes_are_one_process() {
    assert_eq!(Config::from_toml("[nodes]"), Ok(Config::standard()));
    let config = config("[cluster]\nname = \"x.y-z_1\"");
    assert_eq!((config.name.as_str(), config.nodes.len()), ("x.y-z_1", 0));
    assert_eq!(config.cpus, [0, 1, 3]);
}

#[test]
fn a_role_that_is_not_placed_is_spread_over_its_nodes_cores() {
    let config = config(THREE);
    let cores = |roles: [&str; 4]| roles.map(|role| core(&config, role));
    assert_eq!(cores(["proposer 0", "proxy leader 0", "acceptor 0", "replica 0"]), [0; 4]);
    assert_eq!(cores(["proposer 1", "proxy leader 1", "acceptor 1", "replica 1"]), [0, 0, 1, 0]);
    assert_eq!(cores(["proposer 2", "proxy leader 2", "acceptor 2", "replica 2"]), [0, 0, 1, 2]);
}

#[test]
fn placement_is_within_the_node_and_a_proxy_leader_follows_its_proposer() {
    let place = |lines: &str| config(&format!("{THREE}[placement]\n{lines}"));
    let config = place("\"proposer 1\" = 1\n\"replica 2\" = 1");
    assert_eq!((core(&config, "proposer 1"), core(&config, "proxy leader 1")), (1, 1));
    assert_eq!(core(&config, "replica 2"), 1);
    let config = place("\"proposer 1\" = 1\n\"proxy leader 1\" = 0");
    assert_eq!((core(&config, "proposer 1"), core(&config, "proxy leader 1")), (1, 0));
    refused(
        &format!("{THREE}[placement]\n\"acceptor 1\" = 2\n\"acceptor 2\" = 2"),
        "18:16: a role's core, an index into `cpus` of its node, must be a whole number from 0 to 1, \
         not 2",
    );
}

#[test]
fn a_proxy_leader_that_is_named_lives_where_it_is_named() {
    let config = config(&with("\"gateway 0\",", "\"gateway 0\", \"proxy leader 1\","));
    assert!(node(&config, "a").roles.contains(&role("proxy leader 1")));
    assert!(!node(&config, "b").roles.contains(&role("proxy leader 1")));
    assert!(node(&config, "b").roles.contains(&role("proposer 1")));
}

#[test]
fn a_node_is_found_by_its_exact_name() {
    let config = config(THREE);
    assert_eq!(config.node("C"), Ok(0));
    assert_eq!(config.node("b"), Ok(2));
    let said = |name: &str| config.node(name).unwrap_err().to_string();
    assert_eq!(said("A"), "there is no node `A`; known are `C`, `a`, `b`");
    assert_eq!(said("bb"), "there is no node `bb`; did you mean `b`?");
    assert_eq!(
        Config::standard().node("a").unwrap_err().to_string(),
        "there is no node `a`: the configuration has no [nodes]"
    );
}

#[test]
fn the_layout_digest_tells_layouts_apart_and_nothing_else() {
    let digest = |text: &str| config(text).layout_digest();
    let whole = digest(THREE);
    let mut other = config(THREE);
    other.nodes[2].cpus.push(7);
    assert_ne!(other.layout_digest(), whole, "a core more");
    // Fixed: builds of today and tomorrow must agree.
    assert_eq!(whole, 8_679_666_083_594_373_059);
    for (from, to) in [
        ("orders", "order"),
        ("[nodes.b]", "[nodes.c]"),
        ("\"gateway 0\",", "\"gateway 0\", \"proxy leader 1\","),
        ("[nodes.C]", "[placement]\n\"proposer 1\" = 1\n[nodes.C]"),
    ] {
        assert_ne!(digest(&with(from, to)), whole, "{to}");
    }
    for (from, to) in [
        ("cpus = [5, 3]", "cpus = [1, 2]"),
        ("127.0.0.1:7402", "b.example:7403"), // a node may move (R36)
        ("[nodes.b]", "[timing]\ndeadline = \"1s\"\n[nodes.b]"),
    ] {
        assert_eq!(digest(&with(from, to)), whole, "{to}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let wanted = "must be 1 to 64 letters, digits, '-', '_' and '.', not";
    refused(&with("\"orders\"", "\"a b\""), &format!("2:8: `name` {wanted} \"a b\""));
    refused(&with("\"orders\"", "\"\""), &format!("2:8: `name` {wanted} \"\""));
    refused(&with("\"orders\"", "7"), "2:8: `name` must be a string such as \"loggos\", not 7");
    refused(&with("[nodes.b]", "[nodes.\"b/1\"]"), &format!("6:8: a node's name {wanted} \"b/1\""));
    config(&with("[nodes.b]", "[nodes.\"eu.1\"]"));
    assert_eq!(
        mistakes(&with("[nodes.b]", "[nodes.eu.1]")),
        [
            "6:8: `address` is missing in [nodes.eu]: where it listens, such as \"127.0.0.1:7401\"",
            "6:8: `roles` is missing in [nodes.eu]: an array of at least one role, such as \
             [\"acceptor 0\", \"replica 0\"]",
            "6:11: unknown key `1` in [nodes.eu]; known are `address`, `cpus`, `roles`, `data`; a name with a \
             dot is quoted: [nodes.\"eu.1\"]",
        ]
    );
}

#[test]
fn unknown_keys_of_nodes_are_refused_with_the_nearest() {
    let key = |key: &str| with("[nodes.b]\n", &format!("[nodes.b]\n{key} = 1\n"));
    refused(&key("adress"), "7:1: unknown key `adress` in [nodes.b]; did you mean `address`?");
    refused(
        &key("port"),
        "7:1: unknown key `port` in [nodes.b]; known are `address`, `cpus`, `roles`, `data`",
    );
    refused(&key("poll_idle"), "7:1: `poll_idle` belongs in [cores]");
    refused(&key("name"), "7:1: a node's name is that of its table: [nodes.b]");
    refused(
        "[cluster]\nroles = []",
        "2:1: `roles` belongs in the table of a node, such as [nodes.a]",
    );
    refused(
        "[nodes]\nroles = []",
        "2:1: `roles` belongs in the table of a node, such as [nodes.a]",
    );
    refused("address = 1", "1:1: `address` belongs in the table of a node, such as [nodes.a]");
    refused("[nodes]\na = 1", "2:1: a node must be a table, written [nodes.a], not 1");
    refused("[node.a]", "1:2: unknown section `node`; did you mean `nodes`?");
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let of = |address: &str| with("\"127.0.0.1:7402\"", address);
    let wanted = "7:11: `address` must be a host and a port, such as \"127.0.0.1:7401\", not";
    refused(&of("\"local host:7402\""), &format!("{wanted} \"local host:7402\""));
    refused(&of("\"10.0.0:7402\""), &format!("{wanted} \"10.0.0:7402\""));
    refused(&of("\"127.0.0.1\""), &format!("{wanted} \"127.0.0.1\""));
    refused(&of("7402"), &format!("{wanted} 7402"));
    refused(
        &of("\"127.0.0.1:0\""),
        "7:11: `address` must have a port other than 0: others connect to it",
    );
    refused(
        &of("\"0.0.0.0:7402\""),
        "7:11: `address` must be one that others can connect to, not 0.0.0.0",
    );
    refused(
        &of("\"127.0.0.1:7401\""),
        "11:11: `address` 127.0.0.1:7401 is the address of node `b` already: each needs its own",
    );
    refused(
        &of("\"[::ffff:127.0.0.1]:7401\""),
        "11:11: `address` 127.0.0.1:7401 is the address of node `b` already: each needs its own",
    );
    let named = of("\"Node.Example:7402\"").replace("[::1]:7401", "node.example:7402");
    refused(
        &named,
        "15:11: `address` node.example:7402 is the address of node `b` already: each needs its own",
    );
}

#[test]
fn a_node_may_have_the_name_of_a_host() {
    let config = config(&with("127.0.0.1:7402", "node-b.example:7402"));
    assert_eq!(node(&config, "b").address.to_string(), "node-b.example:7402");
    assert_eq!(node(&config, "b").address.ip(), None, "it is looked up when it is called");
}

#[test]
fn cores_of_nodes_are_checked_and_those_of_one_process_refused() {
    refused(&with("[5, 3]", "[5, 5]"), "8:12: cpu 5 is listed twice: each can be used once");
    refused(
        &with("[5, 3]", "[]"),
        "8:8: `cpus` must be an array of at least one processor core, such as [0, 1], not an empty one",
    );
    refused(
        &with("[nodes.b]", "[cores]\nidle = \"park\"\ncpus = [0]\n[nodes.b]"),
        "8:1: `cpus` in [cores] is for one process: here are [nodes], so write it in the table of each \
         node, such as [nodes.C]",
    );
}

#[test]
fn more_than_256_cores_are_refused() {
    let cpus = |count: usize| with("[5, 3]", &format!("{:?}", (0..count).collect::<Vec<_>>()));
    assert_eq!(node(&config(&cpus(256)), "b").cpus.len(), 256);
    let said = mistakes(&cpus(257));
    assert_eq!(said.len(), 1);
    assert!(said[0].ends_with(": more than 256 cpus: a process has at most as many"), "{said:?}");
}

#[test]
fn every_role_must_be_in_exactly_one_node() {
    assert_eq!(
        mistakes(&with("\"gateway 0\", \"replica 0\", ", "")),
        [
            "6:2: `gateway 0` is in no node: name it in the `roles` of one",
            "6:2: `replica 0` is in no node: name it in the `roles` of one",
        ]
    );
    // Its proxy leader would live with it.
    refused(
        &with("\"proposer 1\", ", ""),
        "6:2: `proposer 1` is in no node: name it in the `roles` of one",
    );
    refused(
        &with("\"gateway 0\", ", "\"gateway 0\", \"acceptor 1\", "),
        "13:23: `acceptor 1` is in node `b` already: each role lives in one node",
    );
    refused(
        &with("\"gateway 0\", ", "\"gateway 0\", \"gateway  0\", "),
        "13:23: `gateway 0` is in node `a` already: each role lives in one node",
    );
    refused(
        &with("\"gateway 0\", ", "\"gateway 0\", \"gateway 1\", "),
        "13:23: there is no `gateway 1`: the cluster has only `gateway 0`",
    );
    let explicit = with("proxy_leaders = 0", "proxy_leaders = 2");
    assert_eq!(
        mistakes(&explicit),
        [
            "6:2: `proxy leader 0` is in no node: name it in the `roles` of one",
            "6:2: `proxy leader 1` is in no node: name it in the `roles` of one",
        ]
    );
}

#[test]
fn a_node_without_roles_is_refused() {
    let roles = |roles: &str| with("\"proposer 2\", \"acceptor 2\", \"replica 2\"", roles);
    let mistakes = mistakes(&roles(""));
    assert_eq!(mistakes.len(), 4, "the three roles are missing too: {mistakes:?}");
    assert_eq!(
        mistakes[3],
        "16:9: `roles` must be an array of at least one role, such as [\"acceptor 0\", \"replica 0\"], \
         not an empty one"
    );
    refused(
        &roles("\"proposer 2\", 2, \"replica 2\""),
        "16:24: a role must be a string such as \"acceptor 0\", not 2",
    );
}

/// What is written wrong is not missing on top of that.
#[test]
fn a_role_that_was_not_understood_is_not_missing() {
    refused(
        &with("\"acceptor 2\"", "\"aceptor 2\""),
        "16:24: unknown role `aceptor 2`; did you mean `acceptor 2`?",
    );
    refused(
        &with("\"acceptor 2\"", "\"acceptor\""),
        "16:24: `acceptor` says not which acceptor: add its number, such as `acceptor 0`",
    );
    assert_eq!(
        mistakes(&with("\"acceptor 2\"", "\"acceptor 3\"")),
        [
            "6:2: `acceptor 2` is in no node: name it in the `roles` of one",
            "16:24: there is no `acceptor 3`: the cluster has 3 of this kind, `acceptor 0` to \
             `acceptor 2`",
        ]
    );
    refused(
        &with("proposers = 3", "proposers = \"3\""),
        "4:13: `proposers` must be a whole number from 0 to 255, not \"3\"",
    );
    refused(
        &with("[\"proposer 2\", \"acceptor 2\", \"replica 2\"]", "7"),
        "16:9: `roles` must be an array of at least one role, such as [\"acceptor 0\", \"replica 0\"], \
         not 7",
    );
    assert_eq!(mistakes(&with("address = \"[::1]:7401\"", "address =")).len(), 1);
}

#[test]
fn more_than_64_nodes_are_refused() {
    let mut text = THREE.to_owned();
    for index in 0..62 {
        text += &format!(
            "[nodes.x{index}]\naddress = \"127.0.0.1:{}\"\nroles = [\"gateway 0\"]\n",
            8000 + index
        );
    }
    let mistakes = mistakes(&text);
    let expected = "200:8: more than 64 nodes: a cluster has at most as many";
    assert!(mistakes.iter().any(|what| what == expected), "{mistakes:?}");
    let text = text.rsplit_once("[nodes.x61]").unwrap().0;
    assert!(super::mistakes(text).iter().all(|what| !what.contains("more than 64")));
}

/// Texts that are nearly right are those that people write.
#[test]
fn any_text_with_nodes_is_read_or_refused() {
    for (at, character) in THREE.char_indices() {
        let (prefix, rest) = (&THREE[..at], &THREE[at + character.len_utf8()..]);
        for other in ["", "=", "[", "]", "\"", "9", "-", "{", "é", "a"] {
            let text = format!("{prefix}{other}{rest}");
            let Err(errors) = super::read(&text, &[0, 1]) else { continue };
            assert!(errors.is_sorted_by_key(|error| error.place), "{text}: {errors:?}");
            assert!(!errors.is_empty(), "{text}");
        }
    }
}

#[test]
fn data_that_is_missing_or_another_nodes_is_refused() {
    let text = |durability: &str, nodes: [(&str, &str); 3]| {
        let mut text = format!(
            "[cluster]\nquorums = \"majority\"\nproposers = 3\nproxy_leaders = 0\n{durability}\n"
        );
        for (id, (address, data)) in nodes.iter().enumerate() {
            let gateway = if id == 0 { "\"gateway 0\", " } else { "" };
            text += &format!(
                "[nodes.n{id}]\naddress = \"{address}\"\n{data}\n\
                 roles = [{gateway}\"proposer {id}\", \"acceptor {id}\", \"replica {id}\"]\n"
            );
        }
        text
    };
    let sync = "durability = \"sync\"";
    let (a, b, c) = ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1");
    let data = "data = \"data\"";
    config(&text(sync, [(a, data), (b, data), (c, data)]));
    config(&text("", [(a, ""), (b, ""), (c, "")]));
    config(&text("durability = \"memory\"", [(a, ""), (b, ""), (c, "")]));
    refused(
        &text(sync, [(a, data), (b, ""), (c, data)]),
        "10:8: `data` is missing in [nodes.n1]: with durability = \"sync\" its acceptors and replicas \
         need a directory, such as \"data/n1\"",
    );
    let twice = "8: `data` is that of node `n1` already, on the same machine: each needs its own";
    for (first, second) in [("10.0.0.2:1", "10.0.0.2:2"), ("127.0.0.1:1", "[::1]:1")] {
        for other in ["data = \"./data\"", "data = \"data/\""] {
            let text = text(sync, [(a, data), (first, data), (second, other)]);
            refused(&text, &format!("16:{twice}"));
        }
    }
}
