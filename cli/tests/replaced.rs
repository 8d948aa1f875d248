//! A replica that is replaced under its name: with an empty directory it gets the snapshot of a
//! peer over sockets while the cluster works, also if the donor is killed half-way; `loggos status`
//! tells how far it is, and what the cluster survives meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod calls;
#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use calls::{call_all, read_all};
use kept::{Cluster, DEADLINE, Plan, wait_for};
use loggos::kv::Command;
use loggos::{Client, RemoteCluster, RemoteOptions};
use serde_json::Value;

/// Keys of a KiB each: a snapshot takes some seconds at the pace that is set.
const KEYS: u64 = 4096;
/// Calls at once.
const CALLS: u64 = 256;
/// The bytes of a snapshot that have come when its donor is killed.
const HALF_WAY: u64 = 1 << 20;

/// Nodes with a replica each come last.
fn start() -> (Cluster, usize) {
    let roles = |kinds: &[&str], id: usize| -> Vec<String> {
        kinds.iter().map(|kind| format!("{kind} {id}")).collect()
    };
    let front = ["gateway", "proposer", "proxy leader"];
    let fronts = (0..2).map(|id| Plan::new(format!("front-{id}"), &roles(&front, id)));
    let alone = |kind: &'static str| {
        (0..3).map(move |id| Plan::new(format!("{kind}-{id}"), &roles(&[kind], id)))
    };
    let plans: Vec<Plan> = fronts.chain(alone("acceptor")).chain(alone("replica")).collect();
    let config = "[cluster]\nname = \"replaced\"\ndurability = \"sync\"\nquorums = \"majority\"\ngateways = 2\n\
                  [limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"64MiB\"\n\
                  checkpoint_interval = 20\nslot_window = 8\n\
                  transfer_bytes_per_second_max = \"1MiB\"";
    let (replicas, nodes): (usize, Vec<usize>) = (plans.len() - 3, (0..plans.len()).collect());
    let mut cluster = Cluster::new(config, plans, |_| None);
    cluster.start(&nodes);
    (cluster, replicas)
}

/// Puts `number` and a KiB under each key.
fn put_all(client: &Client, number: u64) {
    for first in (0..KEYS).step_by(usize::try_from(CALLS).unwrap()) {
        let puts = (first..first + CALLS).map(|key| {
            let (mut put, value) = (Vec::new(), format!("{number:01024}"));
            let (key, value) = (key.to_le_bytes(), value.as_bytes());
            Command::Put { key: &key, value }.encode(&mut put).unwrap();
            put
        });
        for result in call_all(client, &puts.collect::<Vec<_>>()) {
            assert!(result.is_ok(), "{result:?}");
        }
    }
}

fn transfer(cluster: &Cluster) -> Value {
    cluster.role("replica 2")["transfer"].clone()
}

#[test]
fn r16_a_replica_with_an_empty_directory_is_brought_up_though_its_donor_is_killed_half_way() {
    let (mut cluster, first_replica) = start();
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(cluster.gateways()) };
    let connection = RemoteCluster::connect(options).unwrap();
    let client = connection.client();
    put_all(&client, 1);
    wait_for("a whole cluster", || cluster.status()["survives"]["replicas"] == 1);
    let replaced = first_replica + 2;
    cluster.kill(&[replaced]);
    std::fs::remove_dir_all(cluster.data(replaced)).unwrap();
    let done = cluster.command("format", "replica-2").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    put_all(&client, 2);
    cluster.start(&[replaced]);
    wait_for("half of a transfer", || transfer(&cluster)["bytes"].as_u64() > Some(HALF_WAY));
    assert_eq!(cluster.status()["survives"]["replicas"], 0, "one is not there yet");
    assert!(
        transfer(&cluster)["bytes_total"].as_u64() > Some(KEYS << 10),
        "{:#}",
        transfer(&cluster)
    );
    let donor = transfer(&cluster)["donor"].as_str().unwrap().to_owned();
    let donor = first_replica + donor.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap();
    cluster.kill(&[donor]);
    cluster.start(&[donor]);
    // The cluster works meanwhile.
    let keys: Vec<[u8; 8]> = (0..CALLS).map(u64::to_le_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 8]>::as_slice).collect();
    assert_eq!(read_all(&client, &keys), vec![Some(2); keys.len()], "what was written last");
    wait_for("a replica that is brought up", || {
        let replica = cluster.role("replica 2");
        replica["restored"].as_u64() > Some(0) && replica["transfer"].is_null()
    });
    put_all(&client, 3);
    cluster.wait_until_equal(3);
    wait_for("a cluster that is whole again", || cluster.status()["survives"]["replicas"] == 1);
}
