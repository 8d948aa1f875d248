//! Whether a cluster serves, as `loggos status` and clients are told it (R37).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::time::{Duration, Instant};

use kept::{Cluster, wait_for};
use serde_json::Value;

/// Three nodes with all roles each, in memory; two of them are a quorum.
fn three_nodes() -> Cluster {
    let config = "[cluster]\nname = \"served\"\ndurability = \"memory\"\nquorums = \"majority\"\n\
                  proposers = 3\nproxy_leaders = 0\ngateways = 3";
    Cluster::laid_out(config, kept::three_nodes(), |_| None)
}

/// What `status` says of the cluster, or of one of its nodes: its exit code, and its first line.
fn verdict(cluster: &Cluster, node: Option<usize>) -> (i32, String) {
    let mut command = match node {
        None => cluster.client_command(&["status"]),
        Some(node) => {
            let mut command = kept::loggos();
            command.args(["status", "--connect", &cluster.gateways()[node].to_string()]);
            command
        }
    };
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), said.lines().next().unwrap_or_default().to_owned())
}

/// What `kv put` at one node says that fails, and how long it took.
fn refused(cluster: &Cluster, node: usize) -> (String, Duration) {
    let address = cluster.gateways()[node].to_string();
    let started = Instant::now();
    let output =
        kept::loggos().args(["kv", "put", "a", "1", "--connect", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    (String::from_utf8(output.stderr).unwrap(), started.elapsed())
}

#[test]
fn r37_status_tells_whether_a_cluster_serves() {
    let mut cluster = three_nodes();
    assert_eq!(verdict(&cluster, None).0, 5, "no node is there");
    // One node has not formed a cluster, and serves nobody.
    cluster.start(&[0]);
    wait_for("a node that is not served", || {
        let (code, said) = verdict(&cluster, Some(0));
        let expected = "not serving: gateway 0 of node 127.";
        code == 5 && said.starts_with(expected) && said.contains("has not been served for ")
    });
    let (code, said) = verdict(&cluster, None);
    assert_eq!(code, 5, "{said}");
    let too_few =
        "not serving: too few are left of: acceptors, replicas; gateway 0 of node node-0 has not";
    assert!(said.starts_with(too_few) && said.contains("node node-1 at "), "{said}");
    // All of them serve.
    cluster.start(&[1, 2]);
    wait_for("service", || verdict(&cluster, None) == (0, "serving".to_owned()));
    assert_eq!(verdict(&cluster, Some(1)), (0, "serving".to_owned()));
    // Two of them do, too.
    cluster.kill(&[2]);
    wait_for("service with a loss", || verdict(&cluster, None).0 == 4);
    let (_, said) = verdict(&cluster, None);
    assert!(said.starts_with("degraded: node node-2 at "), "{said}");
    // The last of them may lead, and serves nobody, whoever asks, and without a call under way.
    cluster.kill(&[1]);
    wait_for("no service", || verdict(&cluster, Some(0)).0 == 5 && verdict(&cluster, None).0 == 5);
    let status: Value = cluster.status();
    assert_eq!(status["verdict"], "not serving", "{status}");
    let (said, _) = refused(&cluster, 0);
    assert!(said.contains("the cluster has not served this gateway for "), "{said}");
    // Where none listens, that is said soon, and not at the deadline.
    let (said, took) = refused(&cluster, 1);
    let address = cluster.gateways()[1];
    assert!(said.contains(&format!("{address}: connection refused")), "{said}");
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
}
