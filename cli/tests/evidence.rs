//! Processes that end under real nodes whose timeouts are far longer than any test: only by what is
//! left of their connections can the others know.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a cluster stands whose test has failed is said")]

#[expect(dead_code, reason = "other tests kill at random, and look at logs and disks")]
mod kept;

use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command as KvCommand;
use loggos::{RemoteCluster, RemoteOptions};

/// Two nodes know it each by itself, and elect a leader that both work with.
#[test]
fn r28_a_leader_whose_process_was_killed_is_replaced_without_waiting_for_silence() {
    let kinds = ["gateway", "proposer", "proxy leader", "acceptor", "replica"];
    let plan = |id: u8| Plan::new(format!("node-{id}"), &kinds.map(|kind| format!("{kind} {id}")));
    let config = "[cluster]\nname = \"evidence\"\ndurability = \"sync\"\nquorums = \"majority\"\n\
                  gateways = 3\nproposers = 3\nproxy_leaders = 3\n\
                  [timing]\nelection_timeout = \"30min\"\nreplica_grace = \"30min\"\ndeadline = \"60s\"";
    let mut cluster = Cluster::new(config, (0..3).map(plan).collect(), |_| None);
    cluster.start(&[0, 1, 2]);
    let mut put = Vec::new();
    KvCommand::Put { key: b"key", value: b"value" }.encode(&mut put).unwrap();
    let mut gateways = cluster.gateways();
    let leader = {
        let mut found = None;
        wait_for("a leader", || {
            let leads = |id: &u8| cluster.role(&format!("proposer {id}"))["state"] == "leads";
            found = (0..3_u8).find(leads);
            found.is_some()
        });
        usize::from(found.unwrap())
    };
    gateways.remove(leader);
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(gateways) };
    let remote = RemoteCluster::connect(options).unwrap();
    remote.client().execute_blocking(&put).unwrap();
    cluster.kill(&[leader]);
    remote.client().execute_blocking(&put).unwrap();
    cluster.start(&[leader]);
    cluster.wait_until_equal(3);
}
