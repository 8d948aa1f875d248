//! Crowds of clients and of connections that say nothing, at nodes that may have few file
//! descriptors: the log grows, a peer comes back, and the status is told (R35).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command;
use loggos::{RemoteCluster, RemoteOptions};
use loggos_net::Outgoing;
use loggos_net::wire::{self, Hello, Purpose};
use serde_json::Value;

const NODES: [usize; 3] = [0, 1, 2];
/// The descriptors of a node, and those of its crowds.
const LIMIT: &str = "-n 300";
const CLIENTS: usize = 250;
const STRANGERS: usize = 150;
/// Values that fill several segments of a log.
const VALUES: u32 = 128;
const VALUE_BYTES: usize = 24 << 10;

fn client_hello() -> Vec<u8> {
    let hello = Hello::of_client(String::new(), Purpose::Client, 1);
    let mut out = Outgoing::default();
    wire::encode_hello(&hello, &mut out);
    out.pieces().flatten().copied().collect()
}

/// Connects a client that says hello, and nothing once it was welcomed or refused.
fn connect(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(&client_hello()).unwrap();
    let mut answer = [0; 1];
    client.read_exact(&mut answer).unwrap();
    client
}

/// The sum of a counter over the cores of the node at `address`.
fn counted(address: SocketAddr, counter: &str) -> u64 {
    let status = loggos::remote_status(address, DEADLINE).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    let cores = status["cores"].as_array().unwrap();
    cores.iter().map(|core| core["sockets"][counter].as_u64().unwrap()).sum()
}

#[test]
fn r35_clients_that_take_all_descriptors_stop_neither_the_log_nor_a_peer() {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let roles = |id: usize| kinds.map(|kind| format!("{kind} {id}"));
    let plans = NODES.map(|id| Plan::new(format!("node-{id}"), &roles(id)));
    let config = "[cluster]\nname = \"crowded\"\ndurability = \"sync\"\nquorums = \"majority\"\nproposers = 3\n\
                  proxy_leaders = 0\ngateways = 3\n[limits]\nlog_segment_bytes = \"1MiB\"\n\
                  log_bytes_max = \"32MiB\"";
    let mut cluster = Cluster::new(config, plans.to_vec(), |_| None);
    cluster.limit = Some(LIMIT);
    cluster.start(&NODES);
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(cluster.gateways()) };
    let served = RemoteCluster::connect(options).unwrap();
    let put_all = || {
        for key in 0..VALUES {
            let (mut put, value) = (Vec::new(), vec![7; VALUE_BYTES]);
            Command::Put { key: &key.to_le_bytes(), value: &value }.encode(&mut put).unwrap();
            served.client().execute_blocking(&put).unwrap();
        }
    };
    let come = |node: usize| -> (Vec<TcpStream>, Vec<TcpStream>) {
        let address = cluster.gateways()[node];
        let clients = (0..CLIENTS).map(|_| connect(address)).collect();
        let strangers = (0..STRANGERS).map(|_| TcpStream::connect(address).unwrap()).collect();
        (clients, strangers)
    };
    put_all();
    let mut crowds = NODES.map(come);
    for address in cluster.gateways() {
        let (clients, most) = (counted(address, "clients"), counted(address, "clients_max"));
        assert!(clients == most && most < CLIENTS as u64, "{clients} of {most} are connected");
        assert!(counted(address, "clients_turned_away") >= CLIENTS as u64 - most, "the others");
        wait_for("strangers that make room", || counted(address, "connections_evicted") > 0);
    }
    put_all();
    // One comes back, to others that are as crowded as before.
    cluster.kill(&[2]);
    put_all();
    cluster.start(&[2]);
    crowds[2] = (Vec::new(), Vec::new());
    let address = cluster.gateways()[0];
    crowds[0].1.extend((0..STRANGERS).map(|_| TcpStream::connect(address).unwrap()));
    cluster.wait_until_equal(NODES.len());
    put_all();
    for node in NODES {
        let log = cluster.log(node);
        assert!(!log.contains("cannot make") && !log.contains("for good"), "{log}");
        let told = log.lines().filter(|line| line.contains("clients are turned away"));
        assert_eq!(told.count(), 1, "it is said once: {log}");
    }
}
