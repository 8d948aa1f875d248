//! Disks that are full, or fail, under the acceptor or the replica of a real node: a file system of
//! its own, on a file that is taken for a disk. What was acknowledged is there, and the other two
//! go on meanwhile.
//!
//! That takes root, loop devices and `mkfs.ext4`; where `LOGGOS_DISKS` is `must`, it is a failure
//! if they are missing.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "what is not tested is said")]
#![expect(unsafe_code, reason = "a namespace of mounts, and a file system that is shut down")]

#[expect(dead_code, reason = "other tests kill at random")]
mod kept;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use kept::{Cluster, Plan, wait_for};
use loggos::kv::Command as KvCommand;
use loggos::{CallError, RemoteCluster, RemoteOptions};
use rustix::ioctl::{Setter, ioctl, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tempfile::TempDir;

const DISK_BYTES: u64 = 32 << 20;

/// What may wait for a disk that hangs, in messages and in memory: these, their records, and what
/// is around them.
const HELD_MAX: u64 = 1 << 16;
const MEMORY_MAX: u64 = 256 << 20;

/// A disk with a file system, seen by the thread that made it and by what that starts.
struct Disk {
    folder: TempDir,
}

impl Disk {
    fn new() -> Option<Self> {
        match Self::make() {
            Ok(disk) => Some(disk),
            Err(error) => {
                let is_must = std::env::var("LOGGOS_DISKS").is_ok_and(|it| it == "must");
                assert!(!is_must, "no disk can be made: {error}");
                println!("NOT TESTED, since no disk can be made: {error}");
                None
            }
        }
    }

    fn make() -> io::Result<Self> {
        // SAFETY: it parts this thread from the others in what is mounted where, and in no
        // descriptor.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        run("mount", &["--make-rprivate", "/"])?;
        let folder = tempfile::tempdir()?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(DISK_BYTES)?;
        run("mkfs.ext4", &["-q", "-m", "0", "-J", "size=4", image.to_str().unwrap()])?;
        std::fs::create_dir(folder.path().join("disk"))?;
        let disk = Self { folder };
        disk.mount()?;
        Ok(disk)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn mount(&self) -> io::Result<()> {
        let image = self.folder.path().join("image");
        run("mount", &["-o", "loop", image.to_str().unwrap(), self.path().to_str().unwrap()])
    }

    /// Unmounts it: no process may use it any more.
    fn unmount(&self) -> io::Result<()> {
        run("umount", &[self.path().to_str().unwrap()])
    }

    /// Takes all room but so much; others may take some of it at the same time.
    fn fill(&self, but_bytes: u64) {
        let of = rustix::fs::statvfs(self.path()).unwrap();
        let mut left = (of.f_bavail * of.f_frsize).saturating_sub(but_bytes);
        let file = File::options().create(true).append(true).open(self.path().join("others"));
        let file = file.unwrap();
        let (mut at, mut step) = (file.metadata().unwrap().len(), left);
        while left >= of.f_frsize && step >= of.f_frsize {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, step) {
                Ok(()) => (at, left) = (at + step, left - step),
                Err(rustix::io::Errno::NOSPC) => step /= 2,
                Err(error) => panic!("{error}"),
            }
            step = step.min(left);
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.path().join("others")).unwrap();
    }

    /// From now on every read, write and sync is an error (EIO), until it is mounted again.
    fn fail(&self) {
        const SHUT_DOWN: u32 = opcode::read::<u32>(b'X', 125);
        // SAFETY: the request of ext4 takes the address of a `u32`, and only reads it.
        let request = unsafe { Setter::<SHUT_DOWN, u32>::new(0) };
        let disk = File::open(self.path()).unwrap();
        // SAFETY: it stops a file system, and touches no memory of ours.
        unsafe { ioctl(&disk, request).unwrap() };
    }
}

/// A disk that hangs until this is dropped: before its cluster is, since who waits for such a disk
/// cannot be killed.
struct Hung(PathBuf);

impl Disk {
    /// From now on every write hangs.
    fn freeze(&self) -> Hung {
        run("fsfreeze", &["--freeze", self.path().to_str().unwrap()]).unwrap();
        Hung(self.path())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        run("fsfreeze", &["--unfreeze", self.0.to_str().unwrap()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = self.path();
        drop(run("umount", &["--lazy", path.to_str().unwrap()])); // it may not be mounted
    }
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let done = Command::new(program).args(arguments).output();
    let done = done.map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    let said = String::from_utf8_lossy(&done.stderr);
    done.status
        .success()
        .then_some(())
        .ok_or_else(|| io::Error::other(format!("{program}: {said}")))
}

/// Three nodes with everything, the first with its data on `disk`; started.
fn cluster(disk: &Disk) -> Cluster {
    let kinds = ["gateway", "proposer", "proxy leader", "acceptor", "replica"];
    let plan = |id: u8| Plan::new(format!("node-{id}"), &kinds.map(|kind| format!("{kind} {id}")));
    let config = "[cluster]\nname = \"disks\"\ndurability = \"sync\"\nquorums = \"majority\"\ngateways = 3\n\
                  proposers = 3\nproxy_leaders = 3\n[limits]\nlog_segment_bytes = \"1MiB\"\n\
                  log_bytes_max = \"4GiB\"\n[timing]\ndeadline = \"60s\"";
    let data = disk.path().join("data");
    let on_disk = |name: &str| (name == "node-0").then(|| data.clone());
    let mut cluster = Cluster::new(config, (0..3).map(plan).collect(), on_disk);
    cluster.start(&[0, 1, 2]);
    cluster
}

/// A cluster whose nodes 3 to 5 have a replica each, and nothing else; that of node 3 has its
/// snapshots on the disk. One is taken each 20 slots.
fn cluster_of_replicas(disk: &Disk) -> Cluster {
    let kinds = ["gateway", "proposer", "proxy leader", "acceptor"];
    let front = |id: u8| Plan::new(format!("node-{id}"), &kinds.map(|kind| format!("{kind} {id}")));
    let replica = |id: u8| Plan::new(format!("node-{}", 3 + id), &[format!("replica {id}")]);
    let config = "[cluster]\nname = \"disks\"\ndurability = \"sync\"\nquorums = \"majority\"\ngateways = 3\n\
                  proposers = 3\nproxy_leaders = 3\n[limits]\nlog_segment_bytes = \"1MiB\"\n\
                  log_bytes_max = \"64MiB\"\ncheckpoint_interval = 20\nslot_window = 8\n\
                  [timing]\ndeadline = \"60s\"";
    let data = disk.path().join("data");
    let on_disk = |name: &str| (name == "node-3").then(|| data.clone());
    let plans = (0..3).map(front).chain((0..3).map(replica)).collect();
    let mut cluster = Cluster::new(config, plans, on_disk);
    cluster.start(&[0, 1, 2, 3, 4, 5]);
    cluster
}

/// Below which slot a replica's newest durable snapshot has everything.
fn snapshot(cluster: &Cluster, replica: u8) -> u64 {
    cluster.role(&format!("replica {replica}"))["snapshot_watermark"].as_u64().unwrap_or_default()
}

/// Writes until the snapshot of a replica is of a slot beyond `slot`.
fn write_until_snapshot(cluster: &Cluster, writer: &mut Writer, replica: u8, slot: u64) {
    wait_for("a snapshot", || {
        (0..5).for_each(|_| writer.write());
        snapshot(cluster, replica) > slot
    });
}

/// Writes keys, and remembers how many were acknowledged.
struct Writer {
    remote: RemoteCluster,
    written: u32,
}

impl Writer {
    fn new(cluster: &Cluster) -> Self {
        let options =
            RemoteOptions { deadline: kept::DEADLINE, ..RemoteOptions::new(cluster.gateways()) };
        Self { remote: RemoteCluster::connect(options).unwrap(), written: 0 }
    }

    fn write(&mut self) {
        let (mut put, value) = (Vec::new(), self.value(self.written));
        let key = self.written.to_be_bytes();
        KvCommand::Put { key: &key, value: &value }.encode(&mut put).unwrap();
        // Its gateway may be killed; to write it again changes nothing.
        while let Err(error) = self.remote.client().execute_blocking(&put) {
            assert_eq!(error, CallError::OutcomeUnknown, "its gateway lives");
        }
        self.written += 1;
    }

    #[expect(clippy::unused_self, reason = "whose values they are")]
    fn value(&self, key: u32) -> Vec<u8> {
        key.to_be_bytes().repeat(3000)
    }

    /// All that was acknowledged is there.
    fn check(&self) {
        for key in 0..self.written {
            let mut get = Vec::new();
            KvCommand::Get { key: &key.to_be_bytes() }.encode(&mut get).unwrap();
            let executed = self.remote.client().execute_blocking(&get).or_else(|error| {
                assert_eq!(error, CallError::OutcomeUnknown, "its gateway lives");
                self.remote.client().execute_blocking(&get)
            });
            let executed = executed.unwrap();
            let answer = loggos::kv::Answer::decode(executed.reply.as_slice()).unwrap();
            assert!(answer == loggos::kv::Answer::Value(&self.value(key)), "key {key}: {answer:?}");
        }
    }
}

fn state(cluster: &Cluster, acceptor: u8) -> String {
    cluster.role(&format!("acceptor {acceptor}"))["state"].as_str().unwrap_or_default().to_owned()
}

/// The acceptor whose disk was in trouble is needed for a quorum, and its log is read back with the
/// others.
fn assert_votes_again(cluster: &mut Cluster, writer: &mut Writer) {
    cluster.kill(&[1]);
    writer.write();
    cluster.kill(&[0, 2]);
    cluster.start(&[0, 1, 2]);
    writer.check();
}

#[test]
fn r34_an_acceptor_whose_disk_is_full_votes_for_nothing_new_until_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let mut cluster = cluster(&disk);
    let mut writer = Writer::new(&cluster);
    writer.write();
    disk.fill(5 << 19); // two and a half segments
    wait_for("a log that is low", || {
        writer.write();
        state(&cluster, 0) == "log low"
    });
    // The others go on; it is asked again and again, and keeps its reserve.
    let segments = || cluster.status()["cores"][0]["log"]["segments"].clone();
    let before = segments();
    for _ in 0..400 {
        writer.write();
        std::thread::sleep(Duration::from_millis(10)); // it tries for room each second
    }
    assert_eq!((state(&cluster, 0), segments()), ("log low".to_owned(), before));
    assert_eq!((state(&cluster, 1), state(&cluster, 2)), ("up".to_owned(), "up".to_owned()));
    disk.empty();
    wait_for("room", || state(&cluster, 0) == "up");
    assert_votes_again(&mut cluster, &mut writer);
    cluster.wait_until_equal(3);
}

#[test]
fn r34_an_acceptor_whose_disk_fails_stops_for_good_and_comes_back_when_that_is_mended() {
    let Some(disk) = Disk::new() else { return };
    let mut cluster = cluster(&disk);
    let mut writer = Writer::new(&cluster);
    (0..50).for_each(|_| writer.write());
    disk.fail();
    wait_for("an acceptor that stops", || {
        writer.write();
        state(&cluster, 0) == "stopped"
    });
    let why = cluster.role("acceptor 0")["why"].to_string();
    assert!(why.contains("a write to the log failed"), "{why}");
    (0..50).for_each(|_| writer.write());
    assert_eq!((state(&cluster, 1), state(&cluster, 2)), ("up".to_owned(), "up".to_owned()));
    writer.check();
    cluster.kill(&[0]);
    let refused = loggos_refuses(&cluster, "node-0");
    assert!(refused.contains("nput/output error"), "{refused}");
    disk.unmount().unwrap();
    disk.mount().unwrap();
    cluster.start(&[0]);
    assert_votes_again(&mut cluster, &mut writer);
    cluster.wait_until_equal(3);
}

/// It executes on, its old snapshots stay, and it starts from them on the full disk.
#[test]
fn r16_a_replica_whose_disk_is_full_keeps_its_snapshots_and_takes_new_ones_when_there_is_room() {
    let Some(disk) = Disk::new() else { return };
    let mut cluster = cluster_of_replicas(&disk);
    let mut writer = Writer::new(&cluster);
    write_until_snapshot(&cluster, &mut writer, 0, 0);
    disk.fill(0);
    // One that was under way may have got what it needs, and an older one was removed then.
    let all = u64::from(writer.written);
    write_until_snapshot(&cluster, &mut writer, 1, all + 100);
    disk.fill(0);
    let kept = snapshot(&cluster, 0);
    write_until_snapshot(&cluster, &mut writer, 1, all + 200);
    assert_eq!(snapshot(&cluster, 0), kept, "no room for another");
    cluster.wait_until_equal(3);
    cluster.kill(&[3]);
    writer.write();
    cluster.start(&[3]);
    wait_for("a replica that starts", || snapshot(&cluster, 0) == kept);
    cluster.wait_until_equal(3);
    assert!(cluster.role("replica 0")["restored"].as_u64() > Some(0), "from its snapshot");
    disk.empty();
    write_until_snapshot(&cluster, &mut writer, 0, kept);
    writer.check();
}

/// It executes on, and is no donor: a replica with an empty directory gets the snapshot of the
/// other.
#[test]
fn r16_a_replica_whose_disk_fails_goes_on_and_another_is_donor() {
    let Some(disk) = Disk::new() else { return };
    let mut cluster = cluster_of_replicas(&disk);
    let mut writer = Writer::new(&cluster);
    write_until_snapshot(&cluster, &mut writer, 0, 0);
    let kept = snapshot(&cluster, 0);
    disk.fail();
    write_until_snapshot(&cluster, &mut writer, 2, kept + 100);
    cluster.wait_until_equal(3);
    cluster.kill(&[4]);
    std::fs::remove_dir_all(cluster.data(4)).unwrap();
    let done = cluster.command("format", "node-4").output().unwrap();
    assert!(done.status.success(), "{done:?}");
    cluster.start(&[4]);
    write_until_snapshot(&cluster, &mut writer, 1, 0);
    cluster.wait_until_equal(3);
    cluster.kill(&[3]);
    let refused = loggos_refuses(&cluster, "node-3");
    assert!(refused.contains("nput/output error"), "{refused}");
    writer.write();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    cluster.start(&[3]);
    write_until_snapshot(&cluster, &mut writer, 0, kept);
    cluster.wait_until_equal(3);
    writer.check();
}

/// For so long, in seconds (`LOGGOS_HANG`).
fn hang() -> Duration {
    let set = std::env::var("LOGGOS_HANG").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(set.unwrap_or(5))
}

/// The others serve meanwhile, and it asks for no more memory than may wait for the disk.
#[test]
fn r34_a_disk_that_hangs_is_waited_for() {
    let Some(disk) = Disk::new() else { return };
    let mut cluster = cluster(&disk);
    let mut writer = Writer::new(&cluster);
    (0..10).for_each(|_| writer.write());
    let before = cluster.memory_bytes(0);
    let hung_disk = disk.freeze();
    let (hung, mut increment) = (Instant::now(), Vec::new());
    KvCommand::Increment { key: b"count", by: 1 }.encode(&mut increment).unwrap();
    let counted = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let (client, increment) = (writer.remote.client(), &increment);
                scope.spawn(move || {
                    let mut counted = 0;
                    while hung.elapsed() < hang() {
                        client.execute_blocking(increment).unwrap();
                        counted += 1;
                    }
                    counted
                })
            })
            .collect();
        wait_for("a disk that hangs", || state(&cluster, 0) == "disk hangs");
        callers.into_iter().map(|caller| caller.join().unwrap()).sum::<i64>()
    });
    assert_eq!((state(&cluster, 1), state(&cluster, 2)), ("up".to_owned(), "up".to_owned()));
    let log = cluster.status()["cores"][0]["log"].clone();
    let more = cluster.memory_bytes(0).saturating_sub(before);
    println!("{counted} commands in {:?}; {} MiB more; {log}", hang(), more >> 20);
    assert!(log["held"].as_u64().unwrap() <= HELD_MAX, "{log}");
    assert!(more < MEMORY_MAX, "{} MiB more", more >> 20);
    drop(hung_disk);
    wait_for("its disk", || state(&cluster, 0) == "up");
    assert_votes_again(&mut cluster, &mut writer);
    let executed = writer.remote.client().execute_blocking(&increment).unwrap();
    let answer = loggos::kv::Answer::decode(executed.reply.as_slice()).unwrap();
    assert_eq!(answer, loggos::kv::Answer::Number(counted + 1));
    cluster.wait_until_equal(3);
}

/// What a node says that does not start.
fn loggos_refuses(cluster: &Cluster, node: &str) -> String {
    let done = cluster.command("node", node).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    String::from_utf8(done.stderr).unwrap()
}
