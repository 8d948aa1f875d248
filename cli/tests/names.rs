//! Nodes that are known by the names of their hosts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use kept::{Cluster, three_nodes, wait_for};

/// Three nodes with all roles each, in memory, all of them at localhost.
fn at_localhost() -> Cluster {
    let config = "[cluster]\nname = \"names\"\ndurability = \"memory\"\nquorums = \"majority\"\n\
                  proposers = 3\nproxy_leaders = 0\ngateways = 3";
    let cluster = Cluster::laid_out(config, three_nodes(), |_| None);
    // Below those that the kernel gives to outgoing calls; others for each cluster of this process.
    static CLUSTERS: AtomicU16 = AtomicU16::new(0);
    let offset = 1000 * CLUSTERS.fetch_add(1, Ordering::Relaxed);
    let first = 20_000 + offset + u16::try_from(std::process::id() % 8_000).unwrap();
    let free = (first..32_000).filter(|port| TcpListener::bind(("localhost", *port)).is_ok());
    let mut text = std::fs::read_to_string(cluster.config()).unwrap();
    for (address, port) in cluster.gateways().iter().zip(free) {
        text = text.replace(&address.to_string(), &format!("localhost:{port}"));
    }
    std::fs::write(cluster.config(), text).unwrap();
    cluster
}

/// The configuration with another address for the first node.
fn move_first(cluster: &Cluster, to: &str) {
    let text = std::fs::read_to_string(cluster.config()).unwrap();
    let start = text.find("\"localhost:").unwrap();
    let end = start + 1 + text[start + 1..].find('"').unwrap();
    std::fs::write(cluster.config(), format!("{}\"{to}{}", &text[..start], &text[end..])).unwrap();
}

#[test]
fn r36_nodes_and_clients_find_nodes_by_the_names_of_their_hosts() {
    let mut cluster = at_localhost();
    cluster.start(&[0, 1, 2]);
    let done = |words: &[&str]| cluster.client_command(words).output().unwrap();
    wait_for("a cluster", || done(&["status"]).status.code() == Some(0));
    let put = done(&["kv", "put", "a", "1"]);
    assert!(put.status.success(), "{put:?}");
    let incremented = done(&["kv", "incr", "a"]);
    assert_eq!(String::from_utf8_lossy(&incremented.stdout), "2\n", "{incremented:?}");
}

/// What cannot be looked up is called in vain; nothing waits for it, and everybody says what it is.
#[test]
fn r36_a_host_that_is_not_found_is_told() {
    let mut cluster = at_localhost();
    move_first(&cluster, "nowhere.invalid:7401");
    cluster.start(&[1, 2]);
    wait_for("a warning", || {
        let log = cluster.log(1);
        log.contains("nowhere.invalid:7401") && log.contains("its host cannot be looked up: ")
    });
    let output = cluster.client_command(&["status"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("node node-0 at nowhere.invalid:7401: "), "{said}");
    let output = cluster.command("node", "node-0").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nowhere.invalid:7401 cannot be looked up: "), "{said}");
}
