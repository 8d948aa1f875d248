//! A command from a thread that blocks to its answer: all roles, and all that is between them.
//!
//! In process the caller's thread and the cluster's cores hand it to each other by mailboxes. Over
//! loopback three nodes of a role of each kind do, by sockets, as they would from machine to
//! machine: the difference is what a network of no distance costs. The time is that of one command
//! at a time, with everything in memory; where the machine has fewer cores than the cluster has
//! threads, it is above all that of waking them.

use std::hint::black_box;
use std::net::TcpListener;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use loggos::kv::{Command, Kv};
use loggos::{Client, Config, LocalCluster, Node, RemoteCluster, RemoteOptions};

/// The longest time until a cluster serves.
const DEADLINE: Duration = Duration::from_secs(30);

fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default()).expect("it starts");
    measure(&mut group, "in process", &cluster.client());
    cluster.stop().expect("it stops");

    let config = three_nodes();
    let start = |node| Node::start(&config, node, |_| Kv::default()).expect("it starts");
    let nodes: Vec<Node> = (0..3).map(start).collect();
    let addresses = nodes.iter().map(Node::address).collect();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
    let cluster = RemoteCluster::connect(options).expect("it connects");
    measure(&mut group, "over loopback, three nodes", &cluster.client());
    drop(cluster);
    nodes.into_iter().for_each(|node| node.stop().expect("it stops"));
    group.finish();
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, client: &Client) {
    let mut put = Vec::new();
    let command = Command::Put { key: b"sixteen bytes of", value: b"another sixteen." };
    command.encode(&mut put).expect("a short key");
    // There may be no leader yet.
    while client.execute_blocking(&put).is_err() {}
    group.bench_function(name, |b| {
        b.iter(|| black_box(client.execute_blocking(&put)).expect("it is executed"));
    });
}

/// The example's three nodes, on ports that are free.
fn three_nodes() -> Config {
    let mut text = include_str!("../../cli/examples/three-nodes.toml").to_owned();
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners = [free(), free(), free()];
    for (listener, port) in listeners.iter().zip(7401..) {
        let address = listener.local_addr().expect("it is bound").to_string();
        text = text.replace(&format!("127.0.0.1:{port}"), &address);
    }
    Config::from_toml(&text).expect("the example is sound")
}

criterion_group!(benches, commit);
criterion_main!(benches);
