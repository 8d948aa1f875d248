//! The store of a replica's snapshots: what was finished is there, whatever befalls the disk, and
//! what is not whole is never taken for a snapshot.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;

use loggos_protocol::{
    DirectoryId, FormationId, Incarnation, LoggedCommand, PartsDigest, Payload, Position,
    ReplicaId, Rng, Slot, SnapshotDone, SnapshotId, SnapshotInfo, SnapshotOrder, Watermark,
};
use loggos_storage::sim::{Fault, FaultySnapshotDisk};
use loggos_storage::{
    SavedError, SavedSnapshot, SnapshotDamage, SnapshotDisk, SnapshotError, SnapshotFolder,
    SnapshotOwner, SnapshotStore, StoreOriginError,
};

const OWNER: SnapshotOwner =
    SnapshotOwner { cluster: 1, directory: DirectoryId(2), replica: ReplicaId(0) };
const FORMATION: FormationId = FormationId(3);

type Store = SnapshotStore<FaultySnapshotDisk>;

fn id(at: u64) -> SnapshotId {
    SnapshotId { at: Watermark(at), replica: ReplicaId(1), incarnation: Incarnation(at + 9) }
}

fn info(at: u64, parts: &[Vec<u8>]) -> SnapshotInfo {
    SnapshotInfo {
        id: id(at),
        formation: FORMATION,
        parts: u32::try_from(parts.len()).expect("a few"),
        bytes: parts.iter().map(|part| part.len() as u64).sum(),
        digest: at ^ 0xD1,
        state_hash: at ^ 0x5A,
    }
}

/// Parts of different lengths, that tell which snapshot they are of.
fn parts(at: u64) -> Vec<Vec<u8>> {
    (0..1 + at % 4)
        .map(|part| {
            format!("{at}.{part};")
                .repeat(usize::try_from(at % 7 + part * 30).expect("a few"))
                .into()
        })
        .collect()
}

fn write<D: SnapshotDisk>(store: &mut SnapshotStore<D>, at: u64) -> std::io::Result<()> {
    store.begin(id(at), FORMATION)?;
    for part in parts(at) {
        store.append(id(at), &part)?;
    }
    store.finish(info(at, &parts(at)))
}

fn open(disk: FaultySnapshotDisk) -> (Store, Vec<SnapshotDamage>) {
    Store::open(disk, OWNER).expect("a directory that can be used")
}

fn stored<D: SnapshotDisk>(store: &SnapshotStore<D>) -> Vec<u64> {
    store.stored().map(|info| info.id.at.0).collect()
}

/// Asserts that a stored snapshot is the one that was written.
fn assert_whole<D: SnapshotDisk>(store: &mut SnapshotStore<D>, found: SnapshotInfo) {
    let at = found.id.at.0;
    assert_eq!(found, info(at, &parts(at)), "another snapshot");
    for (number, part) in (0..).zip(parts(at)) {
        assert_eq!(
            store.read(found.id, number).expect("it is there"),
            part,
            "part {number} of {at}"
        );
    }
    let beyond = store.read(found.id, found.parts).expect_err("a part that it does not have");
    assert_eq!(beyond.kind(), ErrorKind::NotFound, "{beyond}");
}

/// A disk with one snapshot, and the name of its file.
fn with_one(at: u64) -> (FaultySnapshotDisk, String) {
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    write(&mut store, at).expect("nothing is wrong with the disk");
    let mut disk = store.into_disk();
    let names = disk.names().expect("nothing is wrong with the disk");
    assert_eq!(names.len(), 1, "{names:?}");
    (disk, names[0].clone())
}

#[test]
fn r16_what_is_finished_is_there_after_a_loss_of_power_and_the_oldest_comes_first() {
    let (mut store, damaged) = open(FaultySnapshotDisk::new(7));
    assert_eq!((stored(&store), damaged), (vec![], vec![]));
    for at in [5, 300, 70] {
        write(&mut store, at).unwrap();
    }
    store.begin(id(400), FORMATION).unwrap();
    store.append(id(400), b"never finished").unwrap();
    let mut disk = store.into_disk();
    disk.lose_power();
    let (mut store, damaged) = open(disk);
    assert_eq!((stored(&store), damaged), (vec![5, 70, 300], vec![]));
    let all: Vec<_> = store.stored().collect();
    all.into_iter().for_each(|info| assert_whole(&mut store, info));
    assert_eq!(store.disk().names().unwrap().len(), 3, "what was never finished is removed");
}

/// A process that is killed after the rename and before the sync of the directory leaves a snapshot
/// that the next life finds, counts on, and must not lose.
#[test]
fn r16_what_is_found_at_a_start_is_durable_from_then_on() {
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    let before = store.disk().operations();
    write(&mut store, 9).unwrap();
    let count = store.disk().operations() - before;
    let mut found = 0;
    for (seed, killed_at) in (0..20).flat_map(|seed| (0..count).map(move |at| (seed, at))) {
        let (mut store, _) = open(FaultySnapshotDisk::new(seed));
        store.disk().order(killed_at, Fault::Crash);
        assert!(write(&mut store, 9).is_err(), "killed at operation {killed_at}");
        let mut disk = store.into_disk();
        disk.kill();
        let (store, _) = open(disk);
        let told = stored(&store);
        let mut disk = store.into_disk();
        disk.lose_power();
        let (store, damaged) = open(disk);
        assert_eq!((stored(&store), damaged), (told.clone(), vec![]), "killed at {killed_at}");
        found += told.len();
    }
    assert!(found > 0, "none was left by a process that was killed");
}

#[test]
fn r16_snapshots_that_are_written_at_once_do_not_mix() {
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    let (first, second) = (7, 11);
    for at in [first, second] {
        store.begin(id(at), FORMATION).unwrap();
    }
    for number in 0..parts(first).len() {
        for at in [first, second] {
            store.append(id(at), &parts(at)[number]).unwrap();
        }
    }
    for at in [second, first] {
        store.finish(info(at, &parts(at))).unwrap();
    }
    let all: Vec<_> = store.stored().collect();
    assert_eq!(all.len(), 2);
    all.into_iter().for_each(|info| assert_whole(&mut store, info));
}

#[test]
fn r38_a_skip_that_is_noted_is_known_ever_after_and_harms_no_snapshot() {
    let command = |slot, checksum| {
        let at = Position { slot: Slot(slot), index: 3 };
        LoggedCommand { at, checksum }
    };
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    write(&mut store, 5).unwrap();
    let commands = [command(6, 0xFFFF_FFFF), command(6, 0), command(1 << 63, 7)];
    for command in commands {
        store.note_skip(command).unwrap();
    }
    store.note_skip(commands[0]).unwrap(); // once more
    for name in ["skip-", "skip-1-2-3", "skip-0000000000000006-00000003-0000000g"] {
        store.disk().create(name).unwrap();
    }
    let mut disk = store.into_disk();
    disk.lose_power();
    let (store, damaged) = open(disk);
    assert_eq!((stored(&store), damaged), (vec![5], vec![]));
    let noted: BTreeSet<_> = store.skips().collect();
    assert_eq!(noted, BTreeSet::from(commands));
}

/// Whatever the last thing is that the process does: what was said to be noted is.
#[test]
fn r38_a_skip_is_noted_or_it_is_not_said_to_be() {
    let at = Position { slot: Slot(6), index: 3 };
    let command = LoggedCommand { at, checksum: 9 };
    let mut noted = 0;
    for (seed, after) in (0..200).flat_map(|seed| (0..5).map(move |after| (seed, after))) {
        let (mut store, _) = open(FaultySnapshotDisk::new(seed));
        let fault = if seed % 2 == 0 { Fault::Crash } else { Fault::Error(ErrorKind::StorageFull) };
        store.disk().order(after, fault);
        let done = store.carry_out(SnapshotOrder::Skip(command)).done;
        let is_durable = done == Some(SnapshotDone::Noted { command, is_durable: true });
        noted += u32::from(is_durable);
        let mut disk = store.into_disk();
        disk.lose_power();
        let (store, damaged) = open(disk);
        assert!(!is_durable || store.skips().eq([command]), "seed {seed}: it was said to be noted");
        assert_eq!(damaged, [], "seed {seed}");
    }
    assert!((200..1000).contains(&noted), "{noted} were noted");
}

/// Random lives: whatever fails, a snapshot that was finished and not removed is there and whole,
/// and what is there is whole.
#[test]
fn r16_a_snapshot_is_stored_whole_or_not_at_all() {
    let first = std::env::var("LOGGOS_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let seeds =
        std::env::var("LOGGOS_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    for seed in first..first + seeds {
        let mut rng = Rng::new(seed);
        let mut disk = FaultySnapshotDisk::new(seed);
        // What must be there, and what may be.
        let (mut finished, mut uncertain) = (BTreeMap::new(), BTreeMap::new());
        let mut at = 0;
        for _ in 0..4 {
            let (mut store, damaged) = open(disk);
            assert_eq!(damaged, [], "seed {seed}: nothing was damaged");
            let all: Vec<_> = store.stored().collect();
            for must in finished.keys() {
                assert!(all.iter().any(|info| info.id == *must), "seed {seed}: {must} is lost");
            }
            for info in all {
                let may = finished.contains_key(&info.id) || uncertain.contains_key(&info.id);
                assert!(may, "seed {seed}: {} came back", info.id);
                assert_whole(&mut store, info);
            }
            let operations = rng.below(40);
            let fault = match rng.below(3) {
                0 => Fault::Crash,
                1 => Fault::Error(ErrorKind::Other),
                _ => Fault::Error(ErrorKind::StorageFull),
            };
            store.disk().order(operations, fault);
            for _ in 0..rng.below(6) {
                at += 1 + rng.below(50);
                match write(&mut store, at) {
                    Ok(()) => drop(finished.insert(id(at), ())),
                    Err(_) => drop(uncertain.insert(id(at), ())), // renamed, perhaps, and not removed
                }
                let oldest = store.stored().next().map(|info| info.id);
                if let Some(oldest) = oldest.filter(|_| rng.below(2) == 0) {
                    finished.remove(&oldest);
                    uncertain.insert(oldest, ());
                    let _failed = store.remove(oldest);
                }
            }
            disk = store.into_disk();
            if rng.below(2) == 0 { disk.lose_power() } else { disk.kill() }
        }
    }
}

#[test]
fn r16_a_bit_flipped_anywhere_is_found() {
    let (disk, name) = with_one(9);
    let bytes = disk.content(&name).unwrap().len() as u64;
    for bit in 0..bytes * 8 {
        let mut flipped = disk.clone();
        flipped.flip(&name, bit);
        match Store::open(flipped, OWNER) {
            Ok((mut store, damaged)) if damaged.is_empty() => {
                let info = store.stored().next().expect("not damaged, so it is there");
                let reads = (0..info.parts).map(|part| store.read(info.id, part));
                let errors: Vec<_> =
                    reads.filter_map(Result::err).map(|error| error.kind()).collect();
                assert_eq!(errors, [ErrorKind::InvalidData], "bit {bit}: one part is damaged");
                store.set_aside(info.id).unwrap();
                assert_eq!(stored(&store), [0; 0]);
                assert_eq!(store.disk().names().unwrap(), [name.clone() + ".damaged"]);
            }
            Ok((mut store, damaged)) => {
                assert_eq!(damaged.len(), 1, "bit {bit}");
                assert_eq!(stored(&store), [0; 0]);
                assert_eq!(store.disk().names().unwrap(), [name.clone() + ".damaged"]);
            }
            Err(error) => panic!("bit {bit}: {error}"),
        }
    }
}

#[test]
fn r16_a_file_that_is_cut_or_has_another_name_is_damaged_and_kept_aside() {
    let (disk, name) = with_one(9);
    let bytes = disk.content(&name).unwrap().len() as u64;
    for cut in (0..bytes).chain(bytes + 1..bytes + 3) {
        let mut shortened = disk.clone();
        shortened.resize(&name, cut);
        let (store, damaged) = open(shortened);
        assert_eq!((stored(&store), damaged.len()), (vec![], 1), "{cut} of {bytes} bytes");
    }
    let mut renamed = disk;
    renamed.rename(&name, "snapshot-0000000000000001-0000000000000001").unwrap();
    let (mut store, damaged) = open(renamed);
    assert_eq!(damaged[0].what, "holds another snapshot");
    // Only the last one that was damaged is kept, so that they do not fill the disk.
    write(&mut store, 50).unwrap();
    store.set_aside(id(50)).unwrap();
    let names = store.disk().names().unwrap();
    assert!(names.len() == 1 && names[0].ends_with(".damaged"), "{names:?}");
}

/// A misdirected write, or a file system that mixes up blocks: each part says which file it is of.
#[test]
fn r16_a_part_of_another_snapshot_is_not_read_as_one_of_this() {
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    for at in [8, 12] {
        store.begin(id(at), FORMATION).unwrap();
        store.append(id(at), b"a part").unwrap();
        let parts = [b"a part".to_vec()];
        store.finish(info(at, &parts)).unwrap();
    }
    let mut disk = store.into_disk();
    let names = disk.names().unwrap();
    let contents =
        names.iter().map(|name| disk.content(name).unwrap().to_vec()).collect::<Vec<_>>();
    let (header, part) = (68, 20 + 6);
    let mixed = [
        &contents[0][..header],
        &contents[1][header..header + part],
        &contents[0][header + part..],
    ];
    disk.put(&names[0], &mixed.concat());
    let (mut store, damaged) = open(disk);
    assert_eq!(damaged, []);
    assert_eq!(store.read(id(8), 0).unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(store.read(id(12), 0).unwrap(), b"a part");
}

#[test]
fn r04_a_snapshot_of_another_owner_or_version_is_refused_and_nothing_is_removed() {
    let (mut disk, name) = with_one(9);
    disk.put("snapshot-1.new", b"unfinished");
    let others = [
        SnapshotOwner { cluster: 8, ..OWNER },
        SnapshotOwner { directory: DirectoryId(8), ..OWNER },
        SnapshotOwner { replica: ReplicaId(8), ..OWNER },
    ];
    for expected in others {
        let mut copy = disk.clone();
        match SnapshotStore::open(copy.clone(), expected) {
            Err(error @ SnapshotError::Foreign { .. }) => {
                let said = error.to_string();
                let names = [expected.to_string(), OWNER.to_string(), name.clone()];
                assert!(names.iter().all(|name| said.contains(name)), "{said}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(copy.names().unwrap().len(), 2);
    }
    let mut content = disk.content(&name).unwrap().to_vec();
    content[8] = 2;
    let sum = crc_fast::crc32_iscsi(&content[..12]);
    content[12..16].copy_from_slice(&sum.to_le_bytes());
    disk.put(&name, &content);
    let opened = SnapshotStore::open(disk, OWNER);
    assert!(matches!(opened, Err(SnapshotError::Newer { version: 2, .. })), "{opened:?}");
}

#[test]
fn r16_without_room_the_snapshots_that_are_there_stay_and_a_later_one_succeeds() {
    let length = |at| {
        let (disk, name) = with_one(at);
        disk.content(&name).unwrap().len() as u64
    };
    let (mut store, _) = open(with_one(9).0);
    for room in 0..length(16) {
        store.disk().capacity_bytes = length(9) + room;
        let written = write(&mut store, 16);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::StorageFull, "room for {room} bytes");
        assert_eq!(stored(&store), [9]);
        assert_eq!(store.disk().names().unwrap().len(), 1, "what was begun is removed");
    }
    store.disk().capacity_bytes = u64::MAX;
    write(&mut store, 16).unwrap();
    assert_eq!(stored(&store), [9, 16]);
    store.remove(id(9)).unwrap();
    let all: Vec<_> = store.stored().collect();
    assert_eq!(stored(&store), [16]);
    assert_whole(&mut store, all[0]);
}

#[test]
fn r16_a_read_that_fails_once_is_tried_again_and_one_that_is_wrong_is_not_believed() {
    let (disk, name) = with_one(9);
    let read = |store: &mut Store, part| match store
        .carry_out(SnapshotOrder::Read { snapshot: id(9), part })
        .done
    {
        Some(SnapshotDone::Read { bytes, .. }) => bytes.map(|bytes| bytes.as_slice().to_vec()),
        other => panic!("{other:?}"),
    };
    let (mut store, _) = open(disk.clone());
    store.disk().order(0, Fault::Error(ErrorKind::Other));
    assert_eq!(read(&mut store, 1).as_ref(), Some(&parts(9)[1]), "it is there");
    for after in 0..3 {
        store.disk().order(after, Fault::Error(ErrorKind::Other));
    }
    assert_eq!(read(&mut store, 1), None, "the disk fails for good");
    let mut damaged = disk;
    damaged.flip(&name, 8 * 100);
    let (mut store, _) = open(damaged);
    assert!((0..2).any(|part| read(&mut store, part).is_none()), "a part is damaged");
}

#[test]
fn r34_a_sync_that_has_failed_is_not_believed_when_the_next_one_succeeds() {
    // Which operations of writing a snapshot are syncs is found by letting each one fail.
    let (mut store, _) = open(FaultySnapshotDisk::new(1));
    let before = store.disk().operations();
    write(&mut store, 9).unwrap();
    let count = store.disk().operations() - before;
    for failing in 0..count {
        let (mut store, _) = open(FaultySnapshotDisk::new(failing));
        store.disk().order(failing, Fault::Error(ErrorKind::Other));
        assert!(write(&mut store, 9).is_err(), "operation {failing}");
        assert_eq!(stored(&store), [0; 0], "operation {failing}");
        write(&mut store, 16).unwrap();
        let mut disk = store.into_disk();
        disk.lose_power();
        let (store, damaged) = open(disk);
        assert_eq!((stored(&store), damaged), (vec![16], vec![]), "operation {failing}");
    }
}

#[test]
fn r16_a_directory_of_the_file_system_keeps_them_too() {
    let folder = tempfile::tempdir().unwrap();
    let open = || SnapshotStore::open(SnapshotFolder::new(folder.path()), OWNER).unwrap();
    let (mut store, _) = open();
    for at in [9, 300] {
        write(&mut store, at).unwrap();
    }
    store.begin(id(400), FORMATION).unwrap();
    store.append(id(400), b"never finished").unwrap();
    drop(store);
    let (mut store, damaged) = open();
    assert_eq!((stored(&store), damaged.len()), (vec![9, 300], 0));
    let all: Vec<_> = store.stored().collect();
    all.into_iter().for_each(|info| assert_whole(&mut store, info));
    store.remove(id(9)).unwrap();
    store.set_aside(id(300)).unwrap();
    let (store, damaged) = open();
    assert_eq!((stored(&store), damaged.len()), (vec![], 0));
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "the one that was set aside");
}

/// A directory with a snapshot that is what it says, in a few parts; and its file.
fn folder_with_snapshot() -> (tempfile::TempDir, SnapshotStore<SnapshotFolder>, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = SnapshotStore::open(SnapshotFolder::new(folder.path()), OWNER).unwrap();
    let (parts, mut digest) = (parts(7), PartsDigest::new(id(7)));
    store.begin(id(7), FORMATION).unwrap();
    for part in &parts {
        store.append(id(7), part).unwrap();
        digest.add(&Payload::copy(part));
    }
    store.finish(digest.info(FORMATION, 99)).unwrap();
    let file = SavedSnapshot::newest(folder.path()).unwrap().path().to_owned();
    (folder, store, file)
}

fn read_all(saved: &mut SavedSnapshot) -> Result<Vec<Vec<u8>>, SavedError> {
    let mut read = Vec::new();
    saved.read_all(|part, _| {
        read.push(part.as_slice().to_vec());
        Ok::<(), SavedError>(())
    })?;
    Ok(read)
}

#[test]
fn r04_a_snapshot_is_saved_as_it_is_though_its_replica_removes_it_meanwhile() {
    let (folder, mut store, file) = folder_with_snapshot();
    let content = std::fs::read(&file).unwrap();
    let mut saved = SavedSnapshot::newest(folder.path()).unwrap();
    assert_eq!((saved.owner(), saved.info().id), (OWNER, id(7)));
    store.remove(id(7)).unwrap();
    let none = SavedSnapshot::newest(folder.path());
    assert!(matches!(none, Err(SavedError::NoSnapshot(_))), "{none:?}");
    let (to, mut shown) = (folder.path().join("copy"), 0);
    saved.save(&to, |bytes| shown = bytes).unwrap();
    assert_eq!((std::fs::read(&to).unwrap(), shown), (content, saved.info().bytes));
    assert_eq!(read_all(&mut SavedSnapshot::open(&to).unwrap()).unwrap(), parts(7));
    let again = saved.save(&to, |_| {});
    assert!(matches!(again, Err(SavedError::File { .. })), "there is a file: {again:?}");
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    assert!(saved.save(&dangling, |_| {}).is_err() && dangling.is_symlink(), "there is a name");
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 2, "the copy, and the link that was there");
}

/// Lengths around blocks and chunks, with syncs between.
#[test]
fn r16_a_file_has_what_was_appended_and_is_as_long() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = SnapshotFolder::new(folder.path());
    let mut rng = Rng::new(4);
    for round in 0..40 {
        let name = format!("file-{round}");
        disk.create(&name).unwrap();
        let mut expected = Vec::new();
        for _ in 0..rng.below(12) {
            let around =
                [0, 1, 4096, 8192, 1 << 20, 3 << 20][usize::try_from(rng.below(6)).unwrap()];
            let length =
                (around + rng.below(3)).saturating_sub(1) + rng.below(2) * rng.below(70_000);
            let byte = rng.next_u64().to_le_bytes()[0];
            let bytes: Vec<u8> = (0..length).map(|at| byte ^ at.to_le_bytes()[0]).collect();
            disk.append(&name, &bytes).unwrap();
            expected.extend(bytes);
            if rng.below(3) == 0 {
                disk.sync(&name).unwrap();
                assert_eq!(std::fs::read(folder.path().join(&name)).unwrap(), expected);
            }
        }
        disk.sync(&name).unwrap();
        disk.rename(&name, "file").unwrap();
        assert_eq!(disk.length("file").unwrap(), expected.len() as u64);
        let mut read = vec![0; expected.len()];
        disk.read_at("file", 0, &mut read).unwrap();
        assert_eq!(read, expected, "round {round}");
    }
}

#[test]
fn r16_a_damaged_snapshot_is_passed_over_for_an_older_one() {
    let (folder, mut store, newest) = folder_with_snapshot();
    write(&mut store, 3).unwrap();
    let newest_id = || SavedSnapshot::newest(folder.path()).map(|saved| saved.info().id);
    assert_eq!(newest_id().unwrap(), id(7));
    std::fs::write(&newest, b"no snapshot").unwrap();
    assert_eq!(newest_id().unwrap(), id(3));
    store.remove(id(3)).unwrap();
    assert!(matches!(newest_id(), Err(SavedError::Damaged { .. })));
    std::fs::remove_file(&newest).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("snapshot-z")).unwrap();
    assert!(matches!(newest_id(), Err(SavedError::NoSnapshot(_))));
}

#[test]
fn r04_no_bit_of_a_saved_snapshot_changes_unnoticed_and_none_is_copied_then() {
    let (folder, _store, file) = folder_with_snapshot();
    let content = std::fs::read(&file).unwrap();
    let (changed, to) = (folder.path().join("changed"), folder.path().join("copy"));
    for bit in 0..content.len() * 8 {
        let mut bytes = content.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&changed, bytes).unwrap();
        let copied = SavedSnapshot::open(&changed).and_then(|mut it| it.save(&to, |_| {}));
        assert!(copied.is_err() && !to.exists(), "bit {bit}");
    }
    for length in 0..content.len() {
        std::fs::write(&changed, &content[..length]).unwrap();
        let read = SavedSnapshot::open(&changed).and_then(|mut it| read_all(&mut it));
        assert!(matches!(read, Err(SavedError::Damaged { .. })), "{length} bytes: {read:?}");
    }
    let left = folder.path().read_dir().unwrap().count();
    assert_eq!(left, 2, "the snapshot, and what was changed");
}

#[test]
fn r04_a_saved_snapshot_is_stored_as_one_that_a_log_starts_from_or_not_at_all() {
    let (_folder, _store, file) = folder_with_snapshot();
    let owner = SnapshotOwner { directory: DirectoryId(77), replica: ReplicaId(2), ..OWNER };
    let other = tempfile::tempdir().unwrap();
    let open = || SnapshotStore::open(SnapshotFolder::new(other.path()), owner).unwrap().0;
    open().store_origin(&mut SavedSnapshot::open(&file).unwrap()).unwrap();
    let mut store = open();
    let stored: Vec<SnapshotInfo> = store.stored().collect();
    let origin = SavedSnapshot::open(&file).unwrap().info().as_origin();
    assert_eq!(stored, [origin]);
    for (part, bytes) in (0..).zip(parts(7)) {
        assert_eq!(store.read(origin.id, part).unwrap(), bytes);
    }
    store.remove(origin.id).unwrap();
    // The last part is damaged: the first ones were written already.
    let mut content = std::fs::read(&file).unwrap();
    let last = parts(7).pop().unwrap();
    let at = content.windows(last.len()).rposition(|bytes| *bytes == last[..]).unwrap();
    content[at] ^= 1;
    std::fs::write(&file, content).unwrap();
    let stored = store.store_origin(&mut SavedSnapshot::open(&file).unwrap());
    assert!(
        matches!(stored, Err(StoreOriginError::Saved(SavedError::Damaged { .. }))),
        "{stored:?}"
    );
    assert_eq!(other.path().read_dir().unwrap().count(), 0);
}
