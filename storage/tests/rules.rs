//! The rules of the disk, one by one.

mod harness;

use std::io::ErrorKind;
use std::sync::Arc;

use harness::{
    ACCEPTORS, Node, OPTIONS, ballot, identity, noop, promise, revote, table, truncated, view_in,
    vote,
};
use loggos_protocol::{
    AcceptorId, AcceptorSet, DirectoryId, Incarnation, Payload, Record, ReplicaId, Slot,
    SnapshotId, Table, Watermark,
};
use loggos_storage::sim::{Fault, FaultyDisk};
use loggos_storage::{
    Buffer, Disk, FileId, Folder, Identity, LogEntry, Options, Poison, StorageError, Write, format,
    recover, scan,
};

const A: AcceptorId = ACCEPTORS[0];
const B: AcceptorId = ACCEPTORS[1];

fn gather(node: &mut Node) -> Write {
    node.make_file();
    node.wal.gather().expect("something to write")
}

/// Where the last batch of a log begins, and how long it is.
fn last_batch(node: &mut Node) -> (FileId, u64, usize) {
    let mut last = None;
    let found = scan(&mut node.disk, None, &mut |place, _| last = Some(place));
    let found = found.expect("a log");
    let last = last.expect("a batch with entries");
    let end = if found.end.0 == last.file { found.end.1 } else { last.offset + 4096 };
    (last.file, last.offset, usize::try_from(end - last.offset).expect("a batch"))
}

#[test]
fn r31_nothing_is_durable_before_its_sync_and_what_comes_meanwhile_waits_for_the_next() {
    let mut node = Node::new(1);
    node.append(promise(A, 1));
    let first = gather(&mut node);
    node.append(vote(A, 0, 1, (100, 7)));
    node.append(promise(B, 1));
    assert_eq!(node.wal.durable(), 0);
    assert!(node.wal.gather().is_none(), "two writes under way");
    assert!(node.wal.gather_mark().is_none(), "a mark beside a write");
    node.finish(first);
    assert_eq!((node.wal.durable(), node.wal.appended()), (1, 3));
    let second = gather(&mut node);
    assert_eq!(node.wal.durable(), 1);
    node.finish(second);
    assert_eq!(node.wal.durable(), 3);
    assert!(node.wal.gather().is_none(), "nothing is left");
}

#[test]
fn r31_more_than_a_write_holds_is_durable_piece_by_piece_and_in_order() {
    let mut node = Node::new(1);
    (0..10).for_each(|slot| node.append(vote(A, slot, 1, (4000, 1))));
    let mut durable = Vec::new();
    while let Some(write) = {
        node.make_file();
        node.wal.gather()
    } {
        assert!(
            write.bytes.len() <= OPTIONS.write_bytes_max as usize,
            "{} bytes",
            write.bytes.len()
        );
        assert!(write.offset % 4096 == 0 && write.bytes.len() % 4096 == 0, "not in blocks");
        assert!(write.bytes.as_ptr().addr() % 4096 == 0, "not aligned");
        node.finish(write);
        durable.push(node.wal.durable());
    }
    durable.dedup(); // a segment was opened in between
    assert_eq!(durable, [2, 4, 6, 8, 10]);
}

#[test]
fn r31_what_recovery_has_told_survives_a_loss_of_power_right_after() {
    for seed in 0..200 {
        let mut node = Node::new(seed);
        node.append_all([promise(A, 1), vote(A, 0, 1, (100, 7))]);
        node.append(vote(A, 1, 1, (9000, 8)));
        let write = gather(&mut node);
        node.disk.write_at(write.file, write.offset, &write.bytes).unwrap();
        node.restart(true);
        assert_eq!(node.told, 3, "a write that was not synced is read back and told");
        node.restart(false);
        assert_eq!(node.told, 3);
    }
}

#[test]
fn r32_a_segment_opens_with_all_that_is_known_of_its_acceptors_but_votes() {
    let mut node = Node::new(1);
    for acceptor in ACCEPTORS {
        node.append(Record::Table { acceptor, table: table() });
    }
    node.append_all([promise(B, 7), truncated(B, 40)]);
    node.fill_segment(0);
    let mut heads = Vec::new();
    scan(&mut node.disk, Some(&identity()), &mut |place, entry| {
        if let (2, LogEntry::State(state)) = (place.segment, entry) {
            heads.push((place.acceptor, state.clone()));
        }
    })
    .unwrap();
    let [(first, a), (second, b)] = &heads[..] else { panic!("{heads:?}") };
    assert_eq!((*first, *second), (A, B));
    assert_eq!((a.promised, b.promised), (ballot(1), ballot(7)));
    assert_eq!((a.truncated, b.truncated), (Watermark(0), Watermark(40)));
    assert_eq!(b.vote_watermark, Some(Slot(39)));
    assert!(a.vote_watermark > Some(Slot(5)), "{:?}", a.vote_watermark);
    assert_eq!(a.table.as_ref().zip(b.table.as_ref()), Some((&table(), &table())));
}

#[test]
fn r33_what_recovery_adds_does_not_stand_for_a_write_that_is_missing() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1)]);
    let copy = node.disk.clone();
    node.append_all([promise(A, 2)]);
    let told = node.wal.synced();
    node.restart(true);
    assert_eq!(node.wal.found(), told, "all that was told is there");
    node.disk = copy;
    node.recover().unwrap();
    assert_eq!(node.wal.synced(), told, "the mark has the number of what is missing");
    assert_eq!(node.wal.found(), told - 1);
}

#[test]
fn r32_a_segment_is_recycled_only_when_what_truncates_its_votes_is_synced() {
    let mut node = Node::new(1);
    let slot = node.fill_segment(0);
    assert_eq!(node.wal.segments_count(), 2);
    node.append(truncated(A, slot));
    let write = gather(&mut node);
    assert_eq!(node.wal.segments_count(), 2, "appended, and not synced");
    node.finish(write);
    assert_eq!(node.wal.segments_count(), 1);
}

#[test]
fn r32_a_truncation_that_comes_while_a_write_is_under_way_recycles_nothing_when_that_is_synced() {
    let mut node = Node::new(1);
    let slot = node.fill_segment(0);
    node.append(promise(A, 2));
    let write = gather(&mut node);
    node.append(truncated(A, slot));
    node.finish(write);
    assert_eq!(node.wal.segments_count(), 2);
    node.flush();
    assert_eq!(node.wal.segments_count(), 1);
}

#[test]
fn r32_a_vote_that_is_not_truncated_keeps_its_segment_and_all_after_it() {
    let mut node = Node::new(1);
    node.append_all([noop(B, 5, 1)]);
    let mut slot = node.fill_segment(0);
    slot = node.fill_segment(slot);
    node.append_all([truncated(A, slot), truncated(B, 5)]);
    assert_eq!(node.wal.segments_count(), 3, "slot 5 of the other acceptor is in the first");
    node.append_all([truncated(B, 6)]);
    assert_eq!(node.wal.segments_count(), 1);
}

#[test]
fn r32_promise_table_and_watermark_outlive_the_segments_they_were_written_in() {
    let mut node = Node::new(1);
    node.append_all([promise(B, 9), Record::Table { acceptor: B, table: table() }, noop(B, 3, 9)]);
    node.append_all([truncated(B, 4)]);
    let mut slot = 0;
    for _ in 0..20 {
        slot = node.fill_segment(slot);
        node.append_all([truncated(A, slot)]);
    }
    node.restart(false);
    assert_eq!(node.disk.files().unwrap().len(), 4, "files are used again");
    let state = node.wal.state(B).unwrap();
    assert_eq!((state.promised, state.vote_watermark), (ballot(9), Some(Slot(3))));
    assert_eq!(state.table, Some(table()));
}

/// From the record of its table, and from the heads of later segments.
#[test]
fn r04_the_snapshot_that_a_log_starts_from_is_read_back() {
    let mut node = Node::new(1);
    let origin = SnapshotId {
        at: Watermark(1 << 40),
        replica: ReplicaId(2),
        incarnation: Incarnation(u64::MAX),
    };
    let table = Arc::new(Table::clone(&table()).with_origin(Some(origin)));
    node.append_all([Record::Table { acceptor: B, table: Arc::clone(&table) }]);
    let mut slot = 0;
    for _ in 0..4 {
        let state = node.wal.state(B).unwrap();
        let last = Some(Slot(origin.at.0 - 1));
        assert_eq!((state.truncated, state.vote_watermark), (origin.at, last));
        assert_eq!(state.table.as_ref(), Some(&table));
        for _ in 0..3 {
            slot = node.fill_segment(slot);
            node.append_all([truncated(A, slot)]);
        }
        node.restart(false);
    }
}

#[test]
fn r18_the_vote_watermark_is_at_least_the_last_truncated_slot() {
    let mut node = Node::new(1);
    assert_eq!(node.wal.state(A).unwrap().vote_watermark, None);
    node.append_all([truncated(A, 100)]);
    node.restart(false);
    assert_eq!(node.wal.state(A).unwrap().vote_watermark, Some(Slot(99)));
}

#[test]
fn r33_a_torn_tail_is_cut_and_what_comes_next_takes_its_place() {
    for torn in 0..3 {
        let mut node = Node::new(1);
        node.append_all([promise(A, 1), vote(A, 0, 1, (9000, 1))]);
        let (file, offset, _) = last_batch(&mut node);
        node.disk.overwrite(file, offset + torn * 4096 + 100, &[0xEE; 512]);
        node.told = 1; // as if it had not been synced
        node.restart(true);
        assert_eq!(node.told, 1, "block {torn} of the last batch is bad");
        node.append_all([vote(A, 0, 2, (9000, 2))]);
        node.restart(false);
        assert_eq!(node.told, 2);
    }
}

#[test]
fn r33_damage_before_the_tail_is_refused_and_file_and_offset_are_named() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1), vote(A, 0, 1, (100, 1))]);
    let (file, offset, _) = last_batch(&mut node);
    node.append_all([promise(A, 2)]);
    node.disk.flip(file, offset * 8 + 300);
    let error = node.recover().unwrap_err();
    let StorageError::Damaged(damage) = &error else { panic!("{error}") };
    assert_eq!((damage.file, damage.offset), (file, offset));
    let text = error.to_string();
    assert!(text.contains(&format!("{file} is damaged at byte {offset}")), "{text}");
}

#[test]
fn r33_a_mark_makes_damage_to_the_last_batch_known() {
    for with_mark in [false, true] {
        let mut node = Node::new(1);
        node.append_all([promise(A, 1), vote(A, 0, 1, (100, 1))]);
        let (file, offset, _) = last_batch(&mut node);
        if with_mark {
            node.mark();
            assert!(node.wal.gather_mark().is_none(), "one mark");
        }
        node.disk.flip(file, offset * 8 + 300);
        assert_eq!(node.recover().is_err(), with_mark, "with a mark: {with_mark}");
    }
}

#[test]
fn r33_a_restart_leaves_a_mark_and_the_next_one_no_other() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1)]);
    node.restart(true);
    let marked = node.wal.synced();
    node.restart(false);
    assert_eq!(node.wal.synced(), marked);
}

#[test]
fn r33_damage_wholly_below_what_is_truncated_is_dropped_and_told() {
    let mut node = Node::new(1);
    let slot = node.fill_segment(0);
    node.disk.flip(FileId(0), 3 * 4096 * 8 + 300);
    assert!(matches!(node.recover(), Err(StorageError::Damaged(_))), "its votes are needed");
    node.append_all([truncated(A, slot)]);
    let recovered = recover(&mut node.disk, &identity(), &OPTIONS).unwrap();
    assert_eq!(recovered.dropped.len(), 1);
    assert_eq!((recovered.dropped[0].file, recovered.dropped[0].offset), (FileId(0), 3 * 4096));
    node.wal = recovered.wal;
    assert!(node.is_complete());
}

#[test]
fn r33_a_batch_is_read_back_only_behind_the_one_it_was_written_behind() {
    // Two logs that differ in one batch, and a later batch of one in the other.
    let [mut one, mut other] = [1, 2].map(|fill| {
        let mut node = Node::new(1);
        node.append_all([vote(A, 0, 1, (100, fill)), vote(A, 1, 1, (100, fill))]);
        node
    });
    let (file, offset, length) = last_batch(&mut other);
    let at = usize::try_from(offset).unwrap();
    let batch = other.disk.content(file)[at..at + length].to_vec();
    one.disk.overwrite(file, offset, &batch);
    match one.recover() {
        Err(StorageError::Misdirected { offset: at, .. }) => assert_eq!(at, offset),
        Err(error) => panic!("{error}"),
        Ok(()) => assert_eq!(view_in(&one.wal, &mut one.disk)[&A].1.len(), 1, "read a stranger"),
    }
}

#[test]
fn r33_a_batch_in_another_place_or_segment_is_not_read() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1), promise(A, 2)]);
    let (file, offset, _) = last_batch(&mut node);
    let at = usize::try_from(offset).unwrap();
    let batch = node.disk.content(file)[at..at + 4096].to_vec();
    node.disk.overwrite(file, offset + 4096, &batch);
    node.disk.overwrite(FileId(1), 4096, &batch);
    node.restart(false);
    assert_eq!(node.told, 2);
}

#[test]
fn r33_a_batch_that_was_cut_off_is_not_made_whole_by_a_later_one_that_is_torn() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1)]);
    node.mark();
    let torn = 2560..3072; // a sector of the block, the same in both
    node.append(vote(A, 0, 1, (3500, 7)));
    let write = gather(&mut node);
    node.disk.overwrite(write.file, write.offset, &write.bytes[..torn.start]);
    let rest = write.offset + torn.end as u64;
    node.disk.overwrite(write.file, rest, &write.bytes[torn.end..]);
    node.restart(true);
    assert_eq!(node.told, 1);
    node.append(vote(A, 0, 2, (3500, 7)));
    let again = gather(&mut node);
    assert_eq!((again.file, again.offset), (write.file, write.offset));
    let sector = write.offset + torn.start as u64;
    node.disk.overwrite(write.file, sector, &again.bytes[torn]);
    node.restart(true);
    assert_eq!(node.told, 1, "the vote that was cut off is back");
}

#[test]
fn r33_a_head_that_was_cut_off_is_not_made_whole_by_a_later_header() {
    let mut node = Node::new(1);
    let mut slot = 0;
    let opening = loop {
        node.append(vote(A, slot, 1, (3000, 1)));
        let write = gather(&mut node);
        if write.offset == 0 {
            break write;
        }
        node.finish(write);
        slot += 1;
    };
    // Its head is there, and its header is not; the log goes on before it.
    node.disk.overwrite(opening.file, 4096, &opening.bytes[4096..]);
    node.restart(true);
    node.append(vote(A, slot, 1, (9000, 2)));
    let again = gather(&mut node);
    assert_eq!((again.file, again.offset), (opening.file, 0));
    node.disk.overwrite(again.file, 0, &again.bytes[..4096]);
    node.restart(true);
}

#[test]
fn r33_a_file_that_recovery_has_found_is_still_there_after_a_loss_of_power() {
    for seed in 0..50 {
        let mut node = Node::new(seed);
        node.disk.order(1, Fault::Crash);
        node.make_file(); // its name is not durable yet
        assert_eq!(node.disk.files().unwrap().len(), 3);
        node.restart(true);
        node.restart(false);
        assert_eq!(node.disk.files().unwrap().len(), 3, "a log may be in it by now");
    }
}

#[test]
fn r33_a_missing_file_is_refused() {
    let mut node = Node::new(1);
    let slot = node.fill_segment(0);
    node.fill_segment(slot);
    for file in [FileId(0), FileId(1)] {
        let mut copy = node.disk.clone();
        copy.remove(file);
        let refused = recover(&mut copy, &identity(), &OPTIONS);
        let is_refused = matches!(refused, Err(StorageError::Missing { file: f }) if f == file);
        assert!(is_refused, "without {file}: {refused:?}");
    }
}

#[test]
fn r33_a_file_in_use_that_was_shortened_or_has_grown_is_refused() {
    for (change, is_used) in [(-4096, true), (-1, true), (4096, true), (4096, false)] {
        let mut node = Node::new(1);
        node.append_all([promise(A, 1)]);
        let file = FileId(u32::from(!is_used));
        let bytes = u64::from(OPTIONS.segment_bytes).checked_add_signed(change).unwrap();
        node.disk.resize(file, bytes);
        let refused = node.recover();
        let is_refused =
            matches!(&refused, Err(StorageError::Length { file: f, .. }) if *f == file);
        assert!(is_refused, "{file} by {change}: {refused:?}");
    }
}

#[test]
fn r33_a_misdirected_batch_in_the_same_segment_is_not_read_there() {
    // It follows the last one in the chain, and is in its own segment, and lies one block too far
    // on.
    let mut node = Node::new(1);
    node.append_all([promise(A, 1)]);
    let mark = node.wal.gather_mark().expect("a mark");
    node.disk.order(0, Fault::Misdirect(mark.file, mark.offset - 4096));
    node.finish(mark); // over what it was to mark
    let refused = node.recover();
    assert!(matches!(refused, Err(StorageError::Damaged(_))), "{refused:?}");

    let mut node = Node::new(1);
    node.append_all([promise(A, 1), promise(A, 2)]);
    let before = node.disk.clone();
    node.append(promise(A, 3));
    let write = gather(&mut node);
    let (file, offset) = (write.file, write.offset);
    node.disk = before;
    // The place it is at is the next to be read: its own place is, by its words, another.
    let mut bytes = write.bytes.to_vec();
    bytes[48] ^= 0x10; // the third byte of a block's number: another place
    reseal(&mut bytes);
    node.disk.overwrite(file, offset, &bytes);
    let refused = node.recover();
    assert!(matches!(refused, Err(StorageError::Misdirected { .. })), "{refused:?}");
}

/// Sums a batch anew that was changed.
fn reseal(batch: &mut [u8]) {
    let length = u32::from_le_bytes(batch[8..12].try_into().expect("four bytes")) as usize;
    let sum = Payload::copy(&batch[4..length]).checksum();
    batch[..4].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn r33_a_write_that_went_astray_is_missed_though_nothing_later_was_written() {
    let mut free = 0;
    for place in 0..31 {
        let mut node = Node::new(1);
        node.append_all([promise(A, 1), vote(A, 0, 1, (100, 1)), promise(A, 2)]);
        let (file, offset) = (FileId(place / 16), u64::from(place % 16) * 4096);
        node.append(vote(A, 1, 2, (100, 2)));
        let write = gather(&mut node);
        if (file, offset) == (write.file, write.offset) {
            continue;
        }
        node.disk.order(0, Fault::Misdirect(file, offset));
        node.finish(write);
        assert_eq!(node.told, 4, "and told");
        let refused = node.recover().expect_err("a vote that was told is forgotten");
        free += u32::from(matches!(refused, StorageError::Misdirected { .. }));
    }
    assert!(free > 20, "{free} in places that were free");
}

#[test]
fn r32_a_promise_is_missed_though_the_record_and_the_head_that_repeats_it_are_damaged() {
    let mut node = Node::new(1);
    let opening = {
        let mut slot = 0;
        loop {
            node.append(vote(A, slot, 1, (3000, 1)));
            let write = gather(&mut node);
            if write.offset == 0 {
                break write;
            }
            node.finish(write);
            slot += 1;
        }
    };
    let (file, offset, _) = last_batch(&mut node);
    node.finish(opening); // nothing follows it
    node.disk.flip(file, offset * 8 + 300);
    node.disk.flip(FileId(1), 4096 * 8 + 300);
    let refused = node.recover();
    assert!(matches!(refused, Err(StorageError::Damaged(_))), "{refused:?}");
}

#[test]
fn r33_two_files_that_claim_one_segment_are_no_reason_to_panic() {
    // Only a disk that lies leaves such a thing: a segment that was being opened is wiped.
    let mut node = Node::new(1);
    let slot = node.fill_segment(0);
    node.append_all([truncated(A, slot)]);
    let mut copy = node.disk.content(FileId(1)).to_vec();
    copy[20] = 2; // the file that it says it is in
    let sum = Payload::copy(&copy[20..80]).checksum();
    copy[16..20].copy_from_slice(&sum.to_le_bytes());
    node.make_file();
    node.disk.overwrite(FileId(2), 0, &copy);
    node.recover().expect("nothing is missing");
    node.check();
}

#[test]
fn a_recovery_does_not_need_the_room_that_an_unfinished_file_would_take() {
    let mut node = Node::new(1);
    node.disk.order(0, Fault::Crash);
    node.make_file();
    let files = node.disk.files().unwrap();
    assert!(files[2].1 < u64::from(OPTIONS.segment_bytes), "{files:?}");
    node.disk.capacity_bytes = 0; // others have filled the disk
    node.restart(true);
    node.append_all([promise(A, 2)]);
    node.disk.capacity_bytes = u64::MAX;
    let [made, next] = [(); 2].map(|()| {
        node.wal.try_again();
        let file = node.wal.wants_file();
        node.disk.create(file?, u64::from(OPTIONS.segment_bytes)).unwrap();
        node.wal.on_file_created();
        node.wal.validate();
        file
    });
    assert_eq!((made, next), (Some(FileId(2)), None), "it is made first, and is enough");
}

#[test]
fn r33_a_block_once_synced_is_not_written_again_until_its_segment_is_recycled() {
    let mut node = Node::new(1);
    let mut synced = std::collections::BTreeSet::new();
    for slot in 0..40 {
        node.append(vote(A, slot, 1, (2000, 1)));
        loop {
            node.make_file();
            let write = node.wal.gather().or_else(|| node.wal.gather_mark());
            let Some(write) = write else { break };
            let first = write.offset / 4096;
            for block in first..first + write.bytes.len() as u64 / 4096 {
                assert!(
                    synced.insert((write.file, block)),
                    "block {block} of {} twice",
                    write.file
                );
            }
            node.finish(write);
        }
    }
}

#[test]
fn r34_after_a_failed_sync_nothing_is_durable_any_more_though_the_next_one_succeeds() {
    for (after, reason) in
        [(0, Poison::Write(ErrorKind::Other)), (1, Poison::Sync(ErrorKind::Other))]
    {
        let mut node = Node::new(1);
        node.append_all([promise(A, 1)]);
        node.append(vote(A, 0, 1, (100, 1)));
        node.disk.order(after, Fault::Error(ErrorKind::Other));
        let write = gather(&mut node);
        let again = node.disk.write_at(write.file, write.offset, &write.bytes);
        let result = again.and_then(|()| node.disk.sync(write.file));
        node.wal.poison(if result.is_err() { reason } else { Poison::Sync(ErrorKind::Other) });
        node.disk.sync(write.file).unwrap();
        node.wal.on_synced(write);
        node.append(promise(A, 2));
        assert!(node.wal.gather().is_none() && node.wal.gather_mark().is_none());
        node.wal.poison(Poison::Read(ErrorKind::InvalidData));
        assert_eq!((node.wal.durable(), node.wal.poisoned()), (1, Some(reason)));
    }
}

#[test]
fn r34_what_is_appended_to_a_log_that_has_stopped_never_becomes_durable() {
    let mut node = Node::new(1);
    node.append_all([promise(A, 1)]);
    node.wal.poison(Poison::Read(ErrorKind::InvalidData)); // nothing is under way
    node.wal.append(&vote(A, 0, 1, (100, 1)));
    assert!(node.wal.appended() > node.wal.durable(), "a vote that is not written may leave");
}

#[test]
fn r34_a_file_that_could_not_be_made_is_asked_for_again_when_the_clock_says_so() {
    let mut node = Node::new(1);
    node.disk.capacity_bytes = 0;
    node.make_file();
    assert_eq!((node.wal.wants_file(), node.wal.is_low()), (None, true), "no more for now");
    node.disk.capacity_bytes = u64::MAX;
    assert_eq!(node.wal.wants_file(), None, "not asked at each turn");
    node.wal.try_again();
    assert!(node.wal.is_low(), "there is no room yet");
    node.make_file();
    assert!(!node.wal.is_low(), "there is room again");
    node.wal.try_again();
    node.wal.validate();
}

#[test]
fn r34_a_log_is_low_before_it_is_full_and_truncation_mends_it() {
    let mut node = Node::new(1);
    node.disk.capacity_bytes = 5 * u64::from(OPTIONS.segment_bytes);
    let mut slot = 0;
    while !node.wal.is_low() {
        slot = node.fill_segment(slot);
    }
    assert_eq!(node.wal.poisoned(), None);
    node.append_all([promise(A, 2), truncated(A, slot)]);
    assert!(!node.wal.is_low(), "segments were freed");
    while !node.wal.is_full() {
        node.append(vote(A, slot, 2, (3000, 1)));
        node.flush();
        slot += 1;
    }
    assert!(node.wal.is_low());
    node.restart(false);
    node.make_file();
    assert_eq!((node.wal.is_low(), node.wal.poisoned()), (true, None), "what waited is lost");
}

/// Elections may use up what a low log keeps back. Then it waits, however often that is tried and
/// the node is started.
#[test]
fn r34_a_full_log_waits_for_room_and_goes_on_with_what_was_appended() {
    let mut node = Node::with(3, Options { segments_max: 16, ..OPTIONS });
    node.disk.capacity_bytes = 5 * u64::from(OPTIONS.segment_bytes);
    let (mut slot, mut round) = (0, 1);
    while !node.wal.is_low() {
        slot = node.fill_segment(slot);
    }
    let mut elect = |node: &mut Node| {
        round += 1;
        node.append(promise(A, round));
        for open in slot - 8..slot {
            node.append(vote(A, open, round, (3000, 1)));
        }
        node.flush();
    };
    while !node.wal.is_full() {
        elect(&mut node);
    }
    for _ in 0..3 {
        node.restart(false);
        (0..3).for_each(|_| elect(&mut node));
        assert!(node.wal.is_full() && node.wal.is_low());
        assert_eq!(node.wal.poisoned(), None);
    }
    let (durable, appended) = (node.wal.durable(), node.wal.appended());
    assert!(durable < appended, "what waits is not said");
    node.disk.capacity_bytes = u64::MAX;
    node.wal.try_again();
    node.flush();
    assert_eq!((node.wal.durable(), node.wal.is_full()), (appended, false));
}

/// The last segment is kept for it, or nothing could ever free one.
#[test]
fn r34_a_full_log_is_truncated() {
    let mut node = Node::new(4);
    node.disk.capacity_bytes = 5 * u64::from(OPTIONS.segment_bytes);
    let mut slot = 0;
    while !node.wal.is_full() {
        node.append(vote(A, slot, 1, (3000, 1)));
        node.flush();
        slot += 1;
    }
    let appended = node.wal.appended();
    node.append(truncated(A, slot));
    node.flush();
    assert_eq!((node.wal.durable(), node.wal.is_low()), (appended + 1, false));
    node.restart(false);
}

#[test]
fn options_leave_room_for_a_full_write_behind_the_longest_opening() {
    let acceptors: AcceptorSet = (0..64).map(AcceptorId).collect();
    let table = Arc::new(Table::new(33, (0..64).map(DirectoryId).collect()));
    for segment_bytes in (64 << 10..=96 << 10).step_by(4096) {
        let fits = |write_bytes_max: &u32| {
            Options { segment_bytes, write_bytes_max: *write_bytes_max, ..OPTIONS }
                .problem()
                .is_none()
        };
        let write_bytes_max = (4096..=32 << 10).step_by(4096).filter(fits).max().unwrap();
        let options = Options { segment_bytes, write_bytes_max, ..OPTIONS };
        let identity = Identity { acceptors, ..identity() };
        let mut disk = FaultyDisk::new(1);
        format(&mut disk, &identity, &options).unwrap();
        let mut wal = recover(&mut disk, &identity, &options).unwrap().wal;
        for acceptor in acceptors.iter() {
            wal.append(&Record::Table { acceptor, table: Arc::clone(&table) });
            wal.append(&noop(acceptor, 1, 1));
        }
        let block_bytes = options.record_bytes_max(&identity) as usize - 640;
        wal.append(&vote(A, 2, 1, (block_bytes, 1)));
        wal.append(&vote(A, 3, 1, (write_bytes_max as usize - 56 - 640, 1)));
        while wal.durable() < wal.appended() {
            if let Some(file) = wal.wants_file() {
                disk.create(file, u64::from(segment_bytes)).unwrap();
                wal.on_file_created();
            }
            let write = wal.gather().expect("it goes on");
            disk.write_at(write.file, write.offset, &write.bytes).unwrap();
            wal.on_synced(write);
        }
        assert!(wal.segments_count() < 5, "segments of {segment_bytes}: one opened for nothing");
    }
    let longest = Options { segment_bytes: 64 << 10, write_bytes_max: 16 << 10, ..OPTIONS };
    assert!(longest.problem().is_some(), "no room behind 64 acceptors' longest states");
}

#[test]
fn r04_a_directory_that_is_empty_foreign_newer_or_half_formatted_is_refused_with_a_reason() {
    let mut disk = FaultyDisk::new(1);
    let refused = |disk: &mut FaultyDisk, identity: &Identity| {
        recover(disk, identity, &OPTIONS).unwrap_err().to_string()
    };
    assert!(refused(&mut disk, &identity()).contains("there is no log here"));
    for step in 0..6 {
        let mut disk = FaultyDisk::new(step);
        disk.order(step, Fault::Crash);
        format(&mut disk, &identity(), &OPTIONS).unwrap_err();
        disk.lose_power();
        if let Err(error) = recover(&mut disk, &identity(), &OPTIONS) {
            let is_known = matches!(error, StorageError::Empty | StorageError::Unformatted);
            assert!(is_known, "after step {step}: {error}");
        }
    }
    format(&mut disk, &identity(), &OPTIONS).unwrap();
    let again = format(&mut disk, &identity(), &OPTIONS);
    assert!(matches!(again, Err(StorageError::NotEmpty)), "formatted twice");
    let others = [
        Identity { cluster: 12, ..identity() },
        Identity { directory: DirectoryId(23), ..identity() },
        Identity { quorums: 34, ..identity() },
        Identity { acceptors: [A].into_iter().collect(), ..identity() },
    ];
    for other in others {
        assert!(refused(&mut disk, &other).contains("belongs to another log"), "{other}");
    }
    let larger = Options { segment_bytes: 128 << 10, ..OPTIONS };
    let error = recover(&mut disk, &identity(), &larger).unwrap_err();
    assert!(matches!(error, StorageError::SegmentBytes { .. }), "{error}");
    recover(&mut disk, &identity(), &OPTIONS).unwrap();
}

#[test]
fn r10_votes_are_found_where_they_were_written_when_other_segments_were_opened_since() {
    let mut node = Node::new(1);
    let mut slot = 0;
    while node.wal.segments_count() < 4 {
        slot = node.fill_segment(slot);
        let view = view_in(&node.wal, &mut node.disk); // panics where one is not
        assert_eq!(view[&A].1.len() as u64, slot);
    }
}

#[test]
fn r10_a_vote_that_memory_has_let_go_is_answered_from_disk_or_known_to_be_bad() {
    let mut node = Node::new(1);
    let value = vote(A, 7, 3, (5000, 9));
    node.append_all([
        vote(A, 7, 1, (4000, 8)),
        noop(B, 7, 1),
        value.clone(),
        vote(A, 9, 3, (10, 1)),
    ]);
    let places = node.wal.votes(A, Slot(7), Watermark(9));
    let [place] = &places[..] else { panic!("{places:?}") };
    let (offset, length) = place.blocks();
    let mut blocks = Buffer::new();
    blocks.resize(length, 0);
    node.disk.read_at(place.file, offset, &mut blocks).unwrap();
    let Record::Vote { vote: wanted, .. } = value else { unreachable!() };
    assert_eq!(place.vote(&blocks), Some(wanted));
    let mut other = Node::new(1);
    let value = vote(A, 7, 3, (5000, 10));
    other.append_all([vote(A, 7, 1, (4000, 8)), noop(B, 7, 1), value]);
    let mut others = Buffer::new();
    others.resize(length, 0);
    other.disk.read_at(place.file, offset, &mut others).unwrap();
    assert_eq!(place.vote(&others), None, "another vote, whole, in its place");
    node.append_all((10..30).map(|slot| vote(A, slot, 3, (3000, 1))));
    assert_eq!(node.wal.votes(A, Slot(7), Watermark(8)), [*place], "its segment is in use");
    node.append_all([truncated(A, 30), truncated(B, 30)]);
    assert_eq!(node.wal.votes(A, Slot(7), Watermark(8)), [], "what is read there is of no account");
    for bit in [100 * 8, 4000 * 8 + 3] {
        blocks[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(place.vote(&blocks), None, "bit {bit} flipped");
        blocks[bit / 8] ^= 1 << (bit % 8);
    }
}

/// In the log there is one value, and the ballots after it; what is looked up is the last vote.
#[test]
fn r32_a_vote_that_was_cast_again_comes_back_with_its_value_and_the_last_ballot() {
    let mut node = Node::new(1);
    node.append_all([vote(A, 0, 1, (100, 1)), vote(A, 1, 1, (100, 2)), vote(B, 0, 1, (100, 3))]);
    node.append_all((2..40).map(|slot| vote(A, slot, 1, (3000, 4)))); // further segments
    assert!(node.wal.segments_count() > 2, "the values are in older segments");
    node.append_all([revote(A, 0, 2), revote(A, 1, 2), revote(A, 1, 5), revote(A, 2, 5)]);
    node.append_all([vote(A, 0, 6, (100, 9)), revote(B, 0, 3), revote(A, 3, 6)]);
    let ballots = |node: &mut Node, acceptor| {
        let (_, votes) = &view_in(&node.wal, &mut node.disk)[&acceptor];
        votes.values().map(|vote| vote.ballot.round).take(5).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        node.check_live();
        assert_eq!(ballots(&mut node, A), [6, 5, 5, 6, 1]);
        assert_eq!(ballots(&mut node, B), [3]);
        node.disk.lose_power();
        node.recover().unwrap();
        node.check();
    }
    node.append_all([truncated(A, 2), truncated(B, 1), revote(A, 2, 7)]);
    assert_eq!(ballots(&mut node, A), [7, 6, 1, 1, 1]);
    node.append_all([truncated(A, 40)]);
    assert_eq!(node.wal.segments_count(), 1, "no value is kept for a vote that is truncated");
}

#[test]
fn r31_a_vote_that_is_cast_again_is_looked_up_in_the_last_durable_ballot() {
    let mut node = Node::new(1);
    node.append_all([vote(A, 0, 1, (100, 1))]);
    let before = view_in(&node.wal, &mut node.disk);
    node.append(revote(A, 0, 2));
    let write = node.wal.gather().unwrap();
    assert_eq!(view_in(&node.wal, &mut node.disk)[&A].1, before[&A].1, "not synced");
    node.disk.write_at(write.file, write.offset, &write.bytes).unwrap();
    node.disk.sync(write.file).unwrap();
    node.on_synced(write);
    node.check_live();
}

/// It would be forgotten in silence.
#[test]
#[should_panic(expected = "s3: a vote again, and no value for it")]
fn r32_a_vote_that_was_cast_again_is_not_left_out_for_want_of_its_value() {
    let mut node = Node::new(1);
    [vote(A, 5, 1, (100, 1)), revote(A, 3, 2)].iter().for_each(|record| node.wal.append(record));
    let write = gather(&mut node);
    node.wal.on_synced(write);
    assert_eq!(node.wal.votes(A, Slot(4), Watermark(4)), [], "no slots");
    let _ = node.wal.votes(A, Slot(0), Watermark(9));
}

#[test]
#[should_panic(expected = "before the first")]
fn r32_a_vote_is_not_cast_again_where_there_was_none() {
    Node::new(1).append(revote(A, 0, 1));
}

#[test]
fn a_directory_is_formatted_locked_recovered_and_looked_at_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let mut folder = Folder::lock(directory.path()).unwrap();
    format(&mut folder, &identity(), &OPTIONS).unwrap();
    let mut wal = recover(&mut folder, &identity(), &OPTIONS).unwrap().wal;
    wal.append(&vote(A, 0, 1, (100, 1)));
    let write = wal.gather().unwrap();
    folder.write_at(write.file, write.offset, &write.bytes).unwrap();
    folder.sync(write.file).unwrap();
    wal.on_synced(write);
    assert!(Folder::lock(directory.path()).is_err(), "locked twice");
    let mut tool = Folder::read_only(directory.path());
    let mut votes = 0;
    let found = scan(&mut tool, None, &mut |_, entry| {
        votes += u32::from(matches!(entry, LogEntry::Vote { .. }));
    });
    assert_eq!((found.unwrap().last, votes), (wal.synced(), 1));
    assert!(tool.write_at(FileId(0), 0, &[0; 4096]).is_err(), "a tool has written");
    let before = view_in(&wal, &mut folder);
    let again = recover(&mut folder, &identity(), &OPTIONS).unwrap().wal;
    assert_eq!(view_in(&again, &mut folder), before);
}

#[test]
fn a_directory_is_locked_while_a_write_to_one_of_its_files_may_be_on_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let mut folder = Folder::lock(directory.path()).unwrap();
    format(&mut folder, &identity(), &OPTIONS).unwrap();
    let written_to = folder.file(FileId(0)).unwrap(); // as a ring holds it, which may outlive its process
    drop(folder);
    let again = |held: &str| {
        let mut folder = Folder::lock(directory.path()).unwrap_or_else(|e| panic!("{held}: {e}"));
        recover(&mut folder, &identity(), &OPTIONS).map(|_| ())
    };
    let Err(StorageError::Disk { file, error }) = again("a file is held") else {
        panic!("recovered beside a write that is on its way");
    };
    assert_eq!((file, error.kind()), (Some(FileId(0)), ErrorKind::WouldBlock));
    drop(written_to);
    again("nothing is held").unwrap();
}

#[test]
fn a_file_that_was_not_finished_is_made_anew_in_zeros() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("log.00000"), [0xEE; 5000]).unwrap();
    let mut folder = Folder::lock(directory.path()).unwrap();
    folder.create(FileId(0), 3 << 20).unwrap();
    assert_eq!(folder.files().unwrap(), [(FileId(0), 3 << 20)]);
    let mut content = Buffer::new();
    content.resize(3 << 20, 1);
    folder.read_at(FileId(0), 0, &mut content).unwrap();
    assert!(content.iter().all(|byte| *byte == 0), "remains");
}
