//! State machines of an embedder on disk: without snapshots, with one that is refused for a while,
//! and started anew from one. Nothing is lost.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use loggos::kv::Kv;
use loggos::{
    At, Backup, BackupError, Config, DataError, Durability, Idle, LocalCluster, MalformedSnapshot,
    ReplicaId, Reply, RoleId, RoleStatus, Settings, Standing, StateMachine, Watermark,
};

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts commands, and answers with their number so far.
#[derive(Default)]
struct Tally {
    count: u64,
    /// The number of parts that it still refuses; with `None` it has no snapshots.
    refusals: Option<Arc<AtomicU32>>,
    frozen: Option<u64>,
}

impl StateMachine for Tally {
    fn apply(&mut self, _: At, _: &[u8], reply: &mut Reply<'_>) {
        self.count += 1;
        reply.put(&self.count.to_le_bytes());
    }

    fn state_hash(&self) -> u64 {
        self.count
    }

    fn freeze(&mut self) -> bool {
        self.frozen = Some(self.count);
        self.refusals.is_some()
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        part.extend(self.frozen.take().unwrap().to_le_bytes());
        false
    }

    fn clear(&mut self) {
        (self.count, self.frozen) = (0, None);
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        let refusals = self.refusals.as_ref().ok_or(MalformedSnapshot)?;
        let is_left = |left: u32| left.checked_sub(1);
        if refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_left).is_ok() {
            return Err(MalformedSnapshot);
        }
        self.count = u64::from_le_bytes(part.try_into().map_err(|_| MalformedSnapshot)?);
        Ok(())
    }
}

/// A durable cluster in this process that takes a snapshot each 20 slots.
fn config(folder: &Path) -> Config {
    let mut config = Config::standard();
    let settings =
        Settings { checkpoint_interval: 20, slot_window: 8, ..(*config.cluster).clone() };
    config.cluster = settings.check().unwrap();
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config.durability = Some(Durability::Sync);
    config.data = Some(folder.join("data"));
    LocalCluster::format(&config).unwrap();
    config
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Executes `times` commands more; `before` were executed.
fn count(cluster: &LocalCluster, before: u64, times: u64) {
    for nth in before + 1..=before + times {
        let executed = cluster.client().execute_blocking(b"count").unwrap();
        assert_eq!(executed.reply.as_slice(), nth.to_le_bytes(), "lost, or run twice");
    }
}

/// Waits until all replicas are in the same state; returns the roles then.
fn wait_until_equal(cluster: &LocalCluster) -> Vec<RoleStatus> {
    let mut statuses = Vec::new();
    wait_for("equal replicas", || {
        statuses = cluster.status();
        let mut replicas = statuses.iter().filter_map(|status| status.standing.replica());
        let first = replicas.next().map(|it| (it.executed, it.state_hash));
        first.is_some() && replicas.all(|it| Some((it.executed, it.state_hash)) == first)
    });
    statuses
}

#[test]
fn r16_a_machine_without_snapshots_starts_from_the_log_and_nothing_of_that_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    for life in 0..3 {
        let cluster = LocalCluster::start(&config, |_| Tally::default()).unwrap();
        count(&cluster, life * 100, 100);
        let statuses = wait_until_equal(&cluster);
        for status in &statuses {
            match &status.standing {
                Standing::Replica(replica) => assert_eq!(replica.snapshot, Watermark(0)),
                Standing::Acceptor { truncated, .. } => assert_eq!(*truncated, Watermark(0)),
                Standing::Down
                | Standing::Stopped { .. }
                | Standing::Gateway { .. }
                | Standing::Proposer { .. }
                | Standing::ProxyLeader(_) => {}
            }
        }
        cluster.stop().unwrap();
    }
}

/// Its own snapshots are set aside one after the other, then it has that of a peer.
#[test]
fn r16_a_replica_whose_machine_refuses_snapshots_for_a_while_comes_back_with_all() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let (refusals, none) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let machine = {
        let refusals = Arc::clone(&refusals);
        move |replica: ReplicaId| {
            let of_it = if replica == ReplicaId(0) { &refusals } else { &none };
            Tally { refusals: Some(Arc::clone(of_it)), ..Tally::default() }
        }
    };
    let cluster = LocalCluster::start(&config, machine).unwrap();
    let has_two = |cluster: &LocalCluster| {
        let statuses = cluster.status();
        let mut replicas = statuses.iter().filter_map(|status| status.standing.replica());
        replicas.all(|it| it.counters.snapshots >= 2)
    };
    let mut counted = 0;
    wait_for("snapshots", || {
        count(&cluster, counted, 10);
        counted += 10;
        has_two(&cluster)
    });
    for to_refuse in 1..5 {
        refusals.store(to_refuse, Ordering::Relaxed);
        cluster.restart(RoleId::Replica(ReplicaId(0))).unwrap();
        wait_for("a refusal", || refusals.load(Ordering::Relaxed) == 0);
        count(&cluster, counted, 50);
        counted += 50;
        wait_until_equal(&cluster);
    }
    cluster.stop().unwrap();
}

/// The state machine is asked before anything is made.
#[test]
fn r04_a_cluster_starts_from_a_snapshot_of_its_own_state_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let (former, saved) = (config(folder.path()), folder.path().join("saved"));
    let machine = |_| Tally { refusals: Some(Arc::default()), ..Tally::default() };
    let cluster = LocalCluster::start(&former, machine).unwrap();
    count(&cluster, 0, 100);
    let mut counted = 100;
    wait_for("a snapshot of a hundred commands", || {
        count(&cluster, counted, 10);
        counted += 10;
        Backup::newest(&former, None).is_ok_and(|backup| backup.info().id.at.0 > 100)
    });
    Backup::newest(&former, None).unwrap().save(&saved, |_| {}).unwrap();
    cluster.stop().unwrap();
    let mut backup = Backup::open(&saved).unwrap();
    let info = backup.info();
    let again = Config { data: Some(folder.path().join("again")), ..former };
    let refused = backup.restore(&again, None, Kv::default(), |_| {});
    assert!(matches!(refused, Err(BackupError::OtherMachine { .. })), "{refused:?}");
    assert!(!folder.path().join("again").exists(), "nothing was made");
    let in_memory = Config { durability: None, ..again.clone() };
    let refused = backup.restore(&in_memory, None, machine(ReplicaId(0)), |_| {});
    assert!(matches!(refused, Err(BackupError::InMemory { .. })), "{refused:?}");
    // Another process is about to make it: nothing of that is removed.
    let (data, lock) = (folder.path().join("again"), folder.path().join("again/lock"));
    std::fs::create_dir(&data).unwrap();
    let other = std::fs::File::create(&lock).unwrap();
    other.lock().unwrap();
    let refused = backup.restore(&again, None, machine(ReplicaId(0)), |_| {});
    assert!(matches!(refused, Err(BackupError::Data(DataError::Locked(_)))), "{refused:?}");
    assert!(lock.exists(), "its lock is its own");
    drop(other);
    let mut shown = 0;
    backup.restore(&again, None, machine(ReplicaId(0)), |bytes| shown = bytes).unwrap();
    assert_eq!(shown, info.bytes);
    let cluster = LocalCluster::start(&again, machine).unwrap();
    count(&cluster, info.state_hash, 10); // the tally's hash is its count
    let statuses = wait_until_equal(&cluster);
    let mut replicas = statuses.iter().filter_map(|status| status.standing.replica());
    assert!(replicas.all(|replica| replica.executed.0 > info.id.at.0), "it goes on from there");
    cluster.stop().unwrap();
}
