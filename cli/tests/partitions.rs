//! Clusters whose network is cut, in one way or another, under load from both gateways: who can go
//! on does, the others commit nothing, and once it is whole again all go on. Nothing acknowledged
//! is lost or executed twice, each caller's commands stay in order, and replicas are equal in the
//! end.
//!
//! Every node has a host of its own, which takes network namespaces, and so root and `ip` of
//! iproute2.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a fault was felt is reported, not asserted")]

#[expect(dead_code, reason = "no process is killed or stopped here")]
mod harness;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::hosts::Hosts;
use harness::load::{GATEWAYS, Load, under_load};
use harness::{DEADLINE, Nodes, wait_for};
use loggos::kv::Command;
use loggos::{RemoteCluster, RemoteOptions};

/// How long a cut lasts at the least: several election timeouts, on defaults.
const CUT: Duration = Duration::from_millis(1500);
/// Answers to every caller that show that all goes on.
const MANY: u64 = 100;

/// Lets `strike` do its worst to a cluster under load, where there can be one.
fn cut(strike: impl FnOnce(&Nodes, &Load)) {
    if let Some(nodes) = Nodes::start_apart() {
        under_load(nodes, |nodes, load| strike(nodes, load));
    }
}

/// Lets `strike` silence first one leader and then the other, which shows whether `heal` has healed
/// the first.
fn silence_leaders(fault: &str, strike: impl Fn(&Hosts, &str), heal: impl Fn(&Hosts, &str)) {
    cut(|nodes, load| {
        for _ in 0..2 {
            let leader = nodes.leader();
            strike(nodes.hosts(), &leader);
            let struck = Instant::now();
            load.go_on_after(&format!("{leader} {fault}"), &GATEWAYS);
            wait_for("another leader", || nodes.leads(other(&leader)));
            load.wait_for_more(MANY, &GATEWAYS);
            // How long it lasts is the fault.
            std::thread::sleep(CUT.saturating_sub(struck.elapsed()));
            heal(nodes.hosts(), &leader);
            load.go_on_after(&format!("{leader} healed"), &GATEWAYS);
            wait_for("one leader", || !nodes.leads(&leader) || !nodes.leads(other(&leader)));
        }
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

fn other(proposer: &str) -> &'static str {
    if proposer == "proposer-0" { "proposer-1" } else { "proposer-0" }
}

/// A number of a role of a node that has just one.
fn counter(nodes: &Nodes, name: &str, what: &str) -> u64 {
    nodes.status(name).unwrap()["roles"][0][what].as_u64().unwrap()
}

/// Messages that a node has dropped for want of a link.
fn dropped(nodes: &Nodes, name: &str) -> u64 {
    let sockets = &nodes.status(name).unwrap()["cores"][0]["sockets"];
    sockets["messages_dropped"].as_u64().unwrap()
}

#[test]
fn a_leader_that_is_cut_off_is_replaced() {
    let strike = |hosts: &Hosts, leader: &str| hosts.part(&[leader]);
    let heal = |hosts: &Hosts, leader: &str| hosts.join(&[leader]);
    silence_leaders("cut off", strike, heal);
}

#[test]
fn a_leader_that_is_not_heard_is_replaced() {
    let strike = |hosts: &Hosts, leader: &str| hosts.mute(&[leader], &hosts.others(leader));
    let heal = |hosts: &Hosts, leader: &str| hosts.unmute(&[leader], &hosts.others(leader));
    silence_leaders("not heard", strike, heal);
}

#[test]
fn a_leader_that_hears_no_other_is_replaced() {
    let strike = |hosts: &Hosts, leader: &str| hosts.mute(&hosts.others(leader), &[leader]);
    let heal = |hosts: &Hosts, leader: &str| hosts.unmute(&hosts.others(leader), &[leader]);
    silence_leaders("deaf", strike, heal);
}

/// On one side are a row and a column of the grid; it lasts until the connections between the sides
/// are taken for dead and called anew.
#[test]
fn of_two_halves_the_one_with_quorums_goes_on() {
    cut(|nodes, load| {
        let leader = nodes.leader();
        let half = [&leader, "gateway-1", "client-1", "proxy-leader-1", "acceptor-3", "replica-2"];
        let across = [&leader, other(&leader)];
        let dropped_before = across.map(|name| dropped(nodes, name));
        nodes.hosts().part(&half);
        let struck = Instant::now();
        let stuck = load.acknowledged_at(1);
        load.go_on_after("split in two, the half with quorums", &[0]);
        wait_for("another leader", || nodes.leads(other(&leader)));
        load.wait_for_more(MANY, &[0]);
        for (name, before) in across.into_iter().zip(dropped_before) {
            wait_for("the end of connections", || dropped(nodes, name) > before);
        }
        println!("the connections between them were given up after {:?}", struck.elapsed());
        // Of what was asked before the split an answer may have come after it, and no other.
        let in_vain = load.acknowledged_at(1).into_iter().zip(stuck);
        in_vain.for_each(|(now, before)| assert!(now <= before + 1, "{now} after {before}"));
        nodes.hosts().join(&half);
        load.go_on_after("one again", &GATEWAYS);
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

/// Each of them is left with one row, and not with the same.
#[test]
fn a_proxy_leader_that_cannot_reach_an_acceptor_asks_another_row() {
    cut(|nodes, load| {
        let lost = [("proxy-leader-0", "acceptor-1"), ("proxy-leader-1", "acceptor-2")];
        let retries = || lost.map(|(proxy_leader, _)| counter(nodes, proxy_leader, "retries"));
        let before = retries();
        lost.iter().for_each(|(from, to)| nodes.hosts().mute(&[from], &[to]));
        load.go_on_after("an acceptor lost to each proxy leader", &GATEWAYS);
        wait_for("retries of both", || retries().iter().zip(before).all(|(now, it)| *now > it));
        load.wait_for_more(MANY, &GATEWAYS);
        lost.iter().for_each(|(from, to)| nodes.hosts().unmute(&[from], &[to]));
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

#[test]
fn a_proposer_that_cannot_reach_an_acceptor_is_elected_by_the_other_column() {
    cut(|nodes, load| {
        let leader = nodes.leader();
        nodes.hosts().mute(&[other(&leader)], &["acceptor-0"]);
        nodes.hosts().part(&[&leader]);
        load.go_on_after("the leader cut off, and a column lost to the next", &GATEWAYS);
        wait_for("another leader", || nodes.leads(other(&leader)));
        nodes.hosts().join(&[&leader]);
        nodes.hosts().unmute(&[other(&leader)], &["acceptor-0"]);
        load.go_on_after("both healed", &GATEWAYS);
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

/// Its client reaches that gateway as before, and another one.
#[test]
fn r37_a_client_leaves_a_gateway_that_its_cluster_cannot_be_reached_from() {
    let Some(nodes) = Nodes::start_apart() else { return };
    let addresses = ["gateway-0", "gateway-1"].map(|name| nodes.address(name));
    let connect = |addresses: &[SocketAddr]| {
        let addresses = addresses.to_vec();
        let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(addresses) };
        nodes.on("client-1", || RemoteCluster::connect(options).unwrap())
    };
    let put = |client: &RemoteCluster, number: u32| {
        let mut put = Vec::new();
        let value = number.to_string();
        Command::Put { key: b"key", value: value.as_bytes() }.encode(&mut put).unwrap();
        client.client().execute_blocking(&put)
    };
    addresses.iter().for_each(|address| drop(put(&connect(&[*address]), 0).unwrap()));
    let client = connect(&addresses);
    put(&client, 0).unwrap();
    let state = || nodes.status("gateway-0").unwrap()["roles"][0]["state"].clone();
    assert_eq!(state(), "up");
    // Its status can still be asked, on its own host.
    let mut others = nodes.hosts().others("gateway-0");
    others.retain(|name| *name != "client-1");
    nodes.hosts().mute(&["gateway-0"], &others);
    nodes.hosts().mute(&others, &["gateway-0"]);
    let struck = Instant::now();
    std::thread::scope(|scope| {
        // What is under way there goes with its client to the other.
        let under_way = scope.spawn(|| put(&client, 1));
        wait_for("not served", || state() == "unserved");
        for number in 2..100 {
            put(&client, number).unwrap();
        }
        println!("another gateway served after {:?}", struck.elapsed());
        under_way.join().unwrap().unwrap();
        // One that comes now is turned away, and served by the other.
        put(&connect(&addresses), 100).unwrap();
        assert_eq!(state(), "unserved");
        nodes.hosts().unmute(&["gateway-0"], &others);
        nodes.hosts().unmute(&others, &["gateway-0"]);
    });
    wait_for("served again", || state() == "up");
    nodes.wait_until_equal();
}

/// Parts a node again and again, for ever longer.
fn flap(name: &str) {
    cut(|nodes, load| {
        for milliseconds in [20, 50, 100, 200, 400, 800] {
            let length = Duration::from_millis(milliseconds); // how long it lasts is the fault
            nodes.hosts().part(&[name]);
            let struck = Instant::now();
            load.go_on_after(&format!("{name} cut off for {length:?}"), &GATEWAYS);
            std::thread::sleep(length.saturating_sub(struck.elapsed()));
            nodes.hosts().join(&[name]);
            std::thread::sleep(length);
            load.wait_for_more(2, &GATEWAYS);
        }
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

#[test]
fn a_proxy_leader_whose_cable_is_loose_holds_up_no_client() {
    flap("proxy-leader-0");
}

#[test]
fn an_acceptor_whose_cable_is_loose_holds_up_no_client() {
    flap("acceptor-2");
}
