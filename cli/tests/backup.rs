//! Backups: a snapshot is saved from a cluster at work, checked, and a new cluster starts from it.
//! What is no snapshot that can be used is refused, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod calls;
#[expect(dead_code, reason = "other tests kill at random")]
mod kept;

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use calls::{End, call_all, read_all};
use kept::{Cluster, DEADLINE, Plan, loggos, wait_for};
use loggos::kv::Command;
use loggos::{RemoteCluster, RemoteOptions};
use serde_json::Value;

const NODES: usize = 3;
/// Keys that the load writes, again and again.
const KEYS: u64 = 512;

fn plans() -> Vec<Plan> {
    let kinds = ["gateway", "proposer", "proxy leader", "acceptor", "replica"];
    let plan = |id| Plan::new(format!("node-{id}"), &kinds.map(|kind| format!("{kind} {id}")));
    (0..NODES).map(plan).collect()
}

fn config(name: &str) -> String {
    format!(
        "[cluster]\nname = \"{name}\"\ndurability = \"sync\"\nquorums = \"majority\"\ngateways = 3\n\
         proposers = 3\nproxy_leaders = 3\n[limits]\nlog_segment_bytes = \"1MiB\"\n\
         log_bytes_max = \"64MiB\"\ncheckpoint_interval = 20\nslot_window = 8"
    )
}

fn connect(cluster: &Cluster) -> RemoteCluster {
    let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(cluster.gateways()) };
    RemoteCluster::connect(options).unwrap()
}

/// Puts `number` under each key.
fn put_all(remote: &RemoteCluster, number: u64) {
    let puts = (0..KEYS).map(|key| {
        let (mut put, value) = (Vec::new(), number.to_string());
        Command::Put { key: &key.to_le_bytes(), value: value.as_bytes() }.encode(&mut put).unwrap();
        put
    });
    for result in call_all(&remote.client(), &puts.collect::<Vec<_>>()) {
        assert!(result.is_ok(), "{result:?}");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn save(cluster: &Cluster, node: usize, to: &Path) -> Output {
    let name = format!("node-{node}");
    cluster.command_of(&["snapshot", "save", "--json"], &name).arg(to).output().unwrap()
}

fn restore(cluster: &Cluster, node: usize, from: &Path) -> Output {
    let name = format!("node-{node}");
    cluster.command_of(&["snapshot", "restore", "--json"], &name).arg(from).output().unwrap()
}

fn info(file: &Path) -> Output {
    loggos().args(["snapshot", "info", "--json"]).arg(file).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Saves a snapshot of a new cluster, while it works; returns what was said of it.
fn back_up(name: &str, to: &Path) -> Value {
    let mut cluster = Cluster::new(&config(name), plans(), |_| None);
    cluster.start(&[0, 1, 2]);
    let (remote, is_over, round) = (connect(&cluster), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                put_all(&remote, round.fetch_add(1, Ordering::Relaxed));
            }
        });
        wait_for("a snapshot with something in it", || {
            let slot = cluster.role("replica 1")["snapshot_watermark"].as_u64();
            round.load(Ordering::Relaxed) > 2 && slot > Some(100)
        });
        json(&save(&cluster, 1, to))
    })
}

#[test]
fn r04_a_cluster_starts_from_a_snapshot_of_another_and_is_in_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    let saved = back_up("backup", &file);
    let found = json(&info(&file));
    for what in ["snapshot", "slot", "state_hash", "bytes", "parts"] {
        assert_eq!(found[what], saved[what], "{what}");
    }
    let mut cluster = Cluster::laid_out(&config("backup"), plans(), |_| None);
    for node in 0..NODES {
        assert_eq!(json(&restore(&cluster, node, &file))["slot"], saved["slot"]);
    }
    cluster.start(&[0, 1, 2]);
    // Sessions are opened, and nothing else happens.
    let slot = saved["slot"].as_u64().unwrap();
    wait_for("replicas in the state that was saved", || {
        let status = cluster.status();
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        let has_all = |replica: &Value| replica["executed_watermark"].as_u64() >= Some(slot);
        replicas.len() == NODES
            && replicas.iter().all(|it| has_all(it) && it["state_hash"] == saved["state_hash"])
    });
    let remote = connect(&cluster);
    let keys: Vec<[u8; 8]> = (0..KEYS).map(u64::to_le_bytes).collect();
    let keys: Vec<&[u8]> = keys.iter().map(<[u8; 8]>::as_slice).collect();
    let before = read_all(&remote.client(), &keys);
    let (least, most) = (before.iter().min().unwrap(), before.iter().max().unwrap());
    assert!(least.is_some() && most.unwrap() - least.unwrap() <= 1, "a prefix of what was put");
    put_all(&remote, 1_000_000);
    assert_eq!(read_all(&remote.client(), &keys), vec![Some(1_000_000); keys.len()]);
    // It has snapshots of its own by now, and starts from them.
    cluster.kill(&[0, 1, 2]);
    cluster.start(&[0, 1, 2]);
    let remote = connect(&cluster);
    assert_eq!(read_all(&remote.client(), &keys), vec![Some(1_000_000); keys.len()]);
    cluster.wait_until_equal(NODES);
    // One with an empty directory is brought up by the others, as in any cluster.
    cluster.kill(&[2]);
    std::fs::remove_dir_all(cluster.data(2).join("replica-2")).unwrap();
    let done = cluster.command("format", "node-2").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    cluster.start(&[2]);
    cluster.wait_until_equal(NODES);
}

#[test]
fn r04_what_cannot_be_restored_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup");
    back_up("refused", &file);
    let cluster = Cluster::laid_out(&config("refused"), plans(), |_| None);
    let data = cluster.data(0);
    let refuses = |file: &Path, why: &str| {
        let (told, restored) = (info(file), restore(&cluster, 0, file));
        assert_eq!(restored.status.code(), Some(1), "{why}: {restored:?}");
        assert!(said(&restored).contains(why), "{why}: {}", said(&restored));
        assert!(!data.exists() || data.read_dir().unwrap().next().is_none(), "{why}");
        said(&told)
    };
    // A bit of each kind of place: header, parts, lengths and footer.
    let whole = std::fs::read(&file).unwrap();
    let changed = folder.path().join("changed");
    let step = whole.len() / 20;
    for at in (0..whole.len()).step_by(step).chain([whole.len() - 1, whole.len() - 60]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&changed, bytes).unwrap();
        assert!(refuses(&changed, "is damaged").contains("is damaged"), "byte {at}");
    }
    for length in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&changed, &whole[..length]).unwrap();
        assert!(refuses(&changed, "is damaged").contains("is damaged"), "{length} bytes");
    }
    assert!(refuses(&folder.path().join("none"), "No such file").contains("No such file"));
    // Of a cluster of another name, unless that is said to be meant.
    let other = Cluster::laid_out(&config("other"), plans(), |_| None);
    let restored = restore(&other, 0, &file);
    assert!(said(&restored).contains("of another cluster than other"), "{}", said(&restored));
    let arguments = ["snapshot", "restore", "--from-other-cluster"];
    let restored = other.command_of(&arguments, "node-0").arg(&file).output().unwrap();
    assert!(restored.status.success(), "{restored:?}");
    // Where there is a data directory, and where there is a file.
    let again = other.command_of(&arguments, "node-0").arg(&file).output().unwrap();
    assert!(said(&again).contains("is not empty"), "{}", said(&again));
    let over = save(&other, 0, &file);
    assert!(said(&over).contains("exists"), "{}", said(&over));
    assert_eq!(std::fs::read(&file).unwrap(), whole, "it is as it was");
}
