//! What `loggos wal` says of logs: sound ones, ones in use, and damaged ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use loggos_protocol::{
    AcceptorId, Ballot, Batch, BatchId, Content, DirectoryId, GatewayId, Incarnation, Payload,
    ProposerId, Record, ReplicaId, Slot, Table, Time, Value, Vote, Watermark,
};
use loggos_storage::{Disk, Folder, Identity, Options, Wal, format, recover};

const OPTIONS: Options = Options {
    segment_bytes: 64 << 10,
    segments_max: 6,
    segments_reserve: 2,
    write_bytes_max: 12 << 10,
};

/// A log of acceptors 1 and 3 in a folder, as a node writes it.
struct Node {
    folder: Folder,
    wal: Wal,
}

impl Node {
    fn start(path: &Path) -> Self {
        let acceptors = [AcceptorId(1), AcceptorId(3)].into_iter().collect();
        let identity = Identity { cluster: 11, directory: DirectoryId(22), quorums: 33, acceptors };
        let mut folder = Folder::lock(path).unwrap();
        if folder.files().unwrap().is_empty() {
            format(&mut folder, &identity, &OPTIONS).unwrap();
        }
        let wal = recover(&mut folder, &identity, &OPTIONS).unwrap().wal;
        Self { folder, wal }
    }

    fn append(&mut self, records: &[Record]) {
        for record in records {
            self.wal.append(record);
            while let Some(write) = self.wal.gather() {
                self.folder.write_at(write.file, write.offset, &write.bytes).unwrap();
                self.folder.sync(write.file).unwrap();
                self.wal.on_synced(write);
            }
        }
    }
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: ProposerId(1), incarnation: Incarnation(9) }
}

fn vote(slot: u64, block_bytes: usize) -> Record {
    let block = Payload::copy(&vec![7; block_bytes]);
    let id = BatchId { gateway: GatewayId(2), incarnation: Incarnation(5), number: slot };
    let (attempt, checksum) = (1, block.checksum());
    let batch = Batch { id, attempt, answerer: ReplicaId(2), commands_count: 3, block, checksum };
    let value = Value { stamp: Time(slot), content: Content::Batch(Arc::new(batch)) };
    let vote = Vote { ballot: ballot(1), value };
    Record::Vote { acceptor: AcceptorId(1), slot: Slot(slot), vote }
}

fn some_records() -> Vec<Record> {
    let table = Arc::new(Table::new(33, (20..24).map(DirectoryId).collect()));
    let mut records = vec![
        Record::Table { acceptor: AcceptorId(1), table },
        Record::Promise { acceptor: AcceptorId(3), ballot: ballot(7) },
    ];
    records.extend((0..5).map(|slot| vote(slot, 100)));
    records.push(Record::Truncated { acceptor: AcceptorId(1), truncated: Watermark(2) });
    let noop = Vote { ballot: ballot(7), value: Value::noop(Time(5)) };
    records.push(Record::Vote { acceptor: AcceptorId(3), slot: Slot(4), vote: noop });
    records.push(Record::Revote { acceptor: AcceptorId(3), slot: Slot(4), ballot: ballot(8) });
    records
}

fn wal(arguments: &[&str], path: &Path) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggos"));
    let Output { status, stdout, stderr } =
        command.arg("wal").args(arguments).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn flip(path: &Path, offset: u64) {
    let file =
        std::fs::File::options().read(true).write(true).open(path.join("log.00000")).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_sound_log_is_told_with_all_that_is_known_of_its_acceptors() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let mut node = Node::start(path);
    node.append(&some_records());
    let (code, live, _) = wal(&["verify"], path);
    assert_eq!(code, 0, "{live}");
    assert!(live.contains("in use "), "a node has it locked: {live}");
    drop(node);
    let (code, said, errors) = wal(&["verify"], path);
    assert_eq!((code, errors.as_str()), (0, ""), "{said}");
    let expected = "\
acceptor 1: promised b1.1.9, truncated below 2, vote watermark 4, votes in 3 slots, table of 4 acceptors
acceptor 3: promised b8.1.9, truncated below 0, vote watermark 4, votes in 1 slots, no table
sound
";
    assert!(said.ends_with(expected), "{said}");
    assert!(said.contains("segments  1 of 65536 bytes: 1 in log.00000"), "{said}");

    let (code, said, _) = wal(&["verify", "--json"], path);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["verdict"], &said["in_use"]), (0, &"sound".into(), &false.into()));
    assert_eq!(said["identity"]["directory"], "0000000000000016");
    assert_eq!(said["acceptors"][0]["votes"], 3);
    assert_eq!(said["acceptors"][1]["promised"]["round"], 8);
}

#[test]
fn a_torn_end_is_sound_and_damage_before_it_is_told_by_file_and_offset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    Node::start(path).append(&some_records());
    let (_, said, _) = wal(&["verify", "--json"], path);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let end = said["end"]["offset"].as_u64().unwrap();
    flip(path, end - 4096 + 60);
    let (code, said, _) = wal(&["verify"], path);
    assert_eq!(code, 0, "nothing names the last batch as synced: {said}");
    assert!(said.contains("after it an older or unfinished batch"), "{said}");
    let damaged = end - 3 * 4096;
    flip(path, damaged + 60);
    let (code, said, errors) = wal(&["verify"], path);
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(errors.contains(&format!("log.00000 is damaged at byte {damaged}")), "{errors}");
    let (code, said, _) = wal(&["verify", "--json"], path);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["verdict"], &said["offset"]), (1, &"damaged".into(), &damaged.into()));
    let (code, said, errors) = wal(&["dump"], path);
    assert!(code == 1 && said.lines().count() == 2 + 7, "what comes before: {said}{errors}");
}

#[test]
fn records_are_dumped_one_a_line_and_filtered() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    Node::start(path).append(&some_records());
    let (code, said, _) = wal(&["dump"], path);
    assert_eq!((code, said.lines().count()), (0, 2 + 10), "two states, and the records: {said}");
    assert!(said.contains(" vote slot 3 b1.1.9 3 commands, 100 bytes, "), "{said}");
    assert!(said.contains(" acceptor 3 vote slot 4 b7.1.9 no-op"), "{said}");
    assert!(said.contains(" acceptor 3 vote slot 4 b8.1.9 again, for the same value"), "{said}");
    assert!(said.contains(" acceptor 1 truncated below 2"), "{said}");
    let (_, said, _) = wal(&["dump", "--from-slot", "1", "--to-slot", "4"], path);
    assert_eq!(said.lines().count(), 3, "{said}");
    let (_, said, _) = wal(&["dump", "--acceptor", "3", "--json"], path);
    let kinds: Vec<_> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].clone())
        .collect();
    assert_eq!(kinds, ["state", "promise", "vote", "revote"]);
}

#[test]
fn what_is_no_log_and_what_cannot_be_read_have_other_exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, errors) = wal(&["verify"], directory.path());
    assert!(code == 1 && errors.contains("there is no log here"), "{code}: {errors}");
    let (code, _, errors) = wal(&["verify"], &directory.path().join("elsewhere"));
    assert!(code == 2 && errors.contains("No such file"), "{code}: {errors}");
    let (code, _, _) = wal(&["verify", "--what"], directory.path());
    assert_eq!(code, 2, "usage");
    std::fs::write(directory.path().join("log.00000"), [0; 8192]).unwrap();
    let (code, said, _) = wal(&["verify", "--json"], directory.path());
    assert!(code == 1 && said.contains("\"verdict\": \"no log\""), "{code}: {said}");
}

#[test]
fn the_directory_above_a_log_is_told_from_a_lost_log() {
    let data = tempfile::tempdir().unwrap();
    for core in ["core-1", "core-0"] {
        std::fs::create_dir(data.path().join(core)).unwrap();
    }
    drop(Node::start(&data.path().join("core-0")));
    for words in [&["verify"][..], &["verify", "--json"], &["dump"]] {
        let (code, said, errors) = wal(words, data.path());
        assert_eq!((code, said.as_str()), (2, ""), "{errors}");
        let above = "is a node's data directory: name a log in it, core-0 or core-1\n";
        assert!(errors.ends_with(above), "{errors}");
    }
    assert_eq!(wal(&["verify"], &data.path().join("core-0")).0, 0);
    let (code, _, errors) = wal(&["verify"], &data.path().join("core-1"));
    assert_eq!(code, 1, "{errors}");
}
