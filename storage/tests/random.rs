//! Random lives of a log on a faulty disk, compared with the list of what was appended.

mod harness;

use std::io::ErrorKind;

use harness::{Node, Records, seeds};
use loggos_protocol::Rng;
use loggos_storage::sim::Fault;
use loggos_storage::{Disk, FileId, Poison, StorageError, Write, scan};

/// A life that crashes now and then, at any point, in recovery too.
struct Life {
    node: Node,
    records: Records,
    rng: Rng,
    /// A write on its way, and how far it has come.
    write: Option<(Write, Stage)>,
    crashes: u32,
    recycled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Gathered,
    Written,
    Synced,
}

impl Life {
    fn new(seed: u64) -> Self {
        let (node, records) = (Node::new(seed), Records::new(seed + 1));
        Self { node, records, rng: Rng::new(seed + 2), write: None, crashes: 0, recycled: false }
    }

    fn step(&mut self) {
        self.node.make_file();
        match self.rng.below(40) {
            0 => self.crash(),
            1 => self.fail(),
            16 => self.fill_or_empty_the_disk(),
            2 if self.write.is_none() => {
                self.write = self.node.wal.gather_mark().map(|write| (write, Stage::Gathered));
            }
            3..=15 => {
                let record = self.records.next(self.node.wal.is_low());
                self.node.append(record);
            }
            17 => self.node.check_live(),
            _ => self.drive(),
        }
        self.node.wal.validate();
        self.recycled |= self.node.wal.segments_count() < 2 && self.node.wal.synced() > 50;
    }

    /// Takes the write on its way one stage further.
    fn drive(&mut self) {
        let Some((write, stage)) = self.write.take() else {
            self.write = self.node.wal.gather().map(|write| (write, Stage::Gathered));
            return;
        };
        let disk = &mut self.node.disk;
        match stage {
            Stage::Gathered => match disk.write_at(write.file, write.offset, &write.bytes) {
                Ok(()) => self.write = Some((write, Stage::Written)),
                Err(error) => self.node.wal.poison(Poison::Write(error.kind())),
            },
            Stage::Written => match disk.sync(write.file) {
                Ok(()) => self.write = Some((write, Stage::Synced)),
                Err(error) => {
                    self.node.wal.poison(Poison::Sync(error.kind()));
                    self.write = Some((write, Stage::Written)); // a driver that tries again
                }
            },
            Stage::Synced => self.node.on_synced(write),
        }
    }

    /// The next write or sync fails: whatever the disk says later, nothing more is told.
    fn fail(&mut self) {
        if self.rng.below(4) > 0 {
            return;
        }
        self.node.disk.order(self.rng.below(2), Fault::Error(ErrorKind::Other));
        for _ in 0..8 {
            let record = self.records.next(true);
            self.node.append(record);
            self.drive();
        }
        self.crash();
    }

    /// Others take the room for further files, or leave it again.
    fn fill_or_empty_the_disk(&mut self) {
        let is_full = self.node.disk.capacity_bytes == 0;
        self.node.disk.capacity_bytes = if is_full { u64::MAX } else { 0 };
        self.node.wal.try_again();
    }

    fn crash(&mut self) {
        if self.rng.below(2) == 0 {
            let after = self.rng.below(2);
            self.node.disk.order(after, Fault::Crash);
            self.node.make_file(); // in the midst of making a file
            self.drive(); // in the midst of a write or sync
        }
        self.write = None;
        self.stop();
        for _ in 0..self.rng.below(3) {
            let after = self.rng.below(14);
            let fault = match self.rng.below(3) {
                0 => Fault::Error(ErrorKind::Other), // of a read, a write or a sync
                _ => Fault::Crash,
            };
            self.node.disk.order(after, fault);
            match self.node.recover() {
                Ok(()) => {
                    self.node.disk.kill(); // the order came too late
                    self.node.check(); // it has answered, and is told
                }
                Err(StorageError::Disk { .. }) => {}
                Err(error) => panic!("refused for a crash or an error of the disk: {error}"),
            }
            self.stop();
        }
        self.node.recover().unwrap_or_else(|error| panic!("refused after a crash: {error}"));
        self.node.check();
        self.records.resume(&self.node.wal);
        self.crashes += 1;
    }

    /// Killed, or without power.
    fn stop(&mut self) {
        match self.rng.below(2) {
            0 => self.node.disk.kill(),
            _ => self.node.disk.lose_power(),
        }
    }
}

#[test]
fn r31_r33_what_was_told_is_back_after_any_crash_and_what_is_back_was_appended_in_this_order() {
    let (mut crashes, mut recycled, mut told) = (0, 0, 0);
    let seeds = seeds(2000);
    let runs = seeds.len() as u64;
    for seed in seeds {
        let mut life = Life::new(seed);
        for _ in 0..600 {
            life.step();
        }
        life.crash();
        crashes += life.crashes;
        recycled += u32::from(life.recycled);
        told += life.node.told;
    }
    assert!(
        u64::from(crashes) > runs * 5,
        "{crashes} crashes in {runs} lives: too few to say anything"
    );
    assert!(
        u64::from(recycled) * 4 > runs,
        "segments were used again in {recycled} lives of {runs}"
    );
    println!("{runs} lives, {crashes} crashes, {told} records told, recycling in {recycled}");
}

/// A log that has seen some use, has crashed once, and is idle: all is told, and marked.
fn idle(seed: u64, records_count: u64) -> Node {
    let mut life = Life::new(seed);
    for at in 0..records_count {
        let record = life.records.next(life.node.wal.is_low());
        life.node.append(record);
        if life.rng.below(3) > 0 {
            life.node.flush();
        }
        if at == records_count / 2 {
            life.crash();
        }
    }
    life.node.flush();
    life.node.mark();
    life.node
}

#[test]
fn r33_a_flipped_bit_in_an_idle_log_is_refused_or_harmless() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds(300) {
        let node = idle(seed, 60);
        let mut rng = Rng::new(seed);
        let mut disk = node.disk.clone();
        let files = disk.files().unwrap();
        for _ in 0..40 {
            let (file, bytes) = files[usize::try_from(rng.below(files.len() as u64)).unwrap()];
            let bit = match rng.below(2) {
                0 => rng.below(bytes * 8),
                _ => rng.below(bytes / 4096) * 4096 * 8 + rng.below(64 * 8), // heads and headers
            };
            let mut damaged = idle_copy(&node);
            damaged.disk.flip(file, bit);
            match damaged.recover() {
                Err(_) => refused += 1,
                Ok(()) => {
                    assert!(
                        damaged.is_complete(),
                        "seed {seed}: bit {bit} of {file} took something"
                    );
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 100 && harmless > 100, "{refused} refused, {harmless} harmless");
}

#[test]
fn r33_a_misdirected_write_is_refused_or_harmless_and_a_lost_one_once_something_later_is_synced() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds(1500) {
        let mut node = idle(seed, 30);
        let mut rng = Rng::new(seed);
        let files = node.disk.files().unwrap();
        let (file, bytes) = files[usize::try_from(rng.below(files.len() as u64)).unwrap()];
        let fault = match rng.below(3) {
            0 => Fault::Lie,
            _ => Fault::Misdirect(file, rng.below(bytes / 4096 - 4) * 4096),
        };
        node.disk.order(rng.below(4), fault);
        let mut records = Records::new(seed + 1);
        records.resume(&node.wal);
        let order = node.disk.operations() + 4;
        for _ in 0..rng.below(12) + 2 {
            let record = records.next(node.wal.is_low());
            node.append(record);
            node.flush();
            // What has gone astray can be seen where it lies, at once.
            if fault != Fault::Lie && node.disk.operations() >= order && rng.below(4) == 0 {
                break;
            }
        }
        if fault == Fault::Lie {
            node.append(harness::promise(harness::ACCEPTORS[0], 1 << 40));
            node.flush();
            node.mark();
        }
        node.disk.lose_power();
        match node.recover() {
            Err(_) => refused += 1,
            Ok(()) => {
                assert!(node.is_complete(), "seed {seed}: {fault:?} took something");
                harmless += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} refused, {harmless} harmless");
}

#[test]
fn r33_a_flipped_bit_in_a_busy_log_is_refused_or_takes_the_last_write_at_most() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in seeds(150) {
        let mut node = idle(seed, 40);
        let mut records = Records::new(seed + 1);
        records.resume(&node.wal);
        for _ in 0..5 {
            node.told = node.history.len();
            let record = records.next(node.wal.is_low());
            node.append_all([record]);
        }
        node.told = node.history.len() - 1; // the last has nobody to speak for it
        let mut rng = Rng::new(seed);
        for _ in 0..40 {
            let mut damaged = idle_copy(&node);
            let (file, bit) = any_bit(&mut damaged, &mut rng);
            damaged.disk.flip(file, bit);
            match damaged.recover() {
                Err(_) => refused += 1,
                Ok(()) => {
                    damaged.check();
                    harmless += 1;
                }
            }
        }
    }
    assert!(refused > 100 && harmless > 100, "{refused} refused, {harmless} harmless");
}

/// A bit of a header, of a head, of what a batch or record begins with, of a block, or of what is
/// unused.
fn any_bit(node: &mut Node, rng: &mut Rng) -> (FileId, u64) {
    let mut places = Vec::new();
    let scanned = scan(&mut node.disk, None, &mut |place, _| {
        places.push((place.file, place.offset));
    });
    scanned.expect("sound");
    let files = node.disk.files().expect("no fault is ordered");
    let (file, bytes) = files[usize::try_from(rng.below(files.len() as u64)).expect("few")];
    let (batch_file, batch) = places[usize::try_from(rng.below(places.len() as u64)).expect("few")];
    match rng.below(4) {
        0 => (file, rng.below(bytes * 8)),
        1 => (file, rng.below(80 * 8)),
        2 => (batch_file, (batch + rng.below(56)) * 8 + rng.below(8)),
        _ => (batch_file, (batch + 56 + rng.below(4096 - 56)) * 8 + rng.below(8)),
    }
}

#[test]
fn a_sync_that_lied_before_a_crash_makes_nothing_up_and_no_recovery_panic() {
    let (mut refused, mut recovered) = (0, 0);
    for seed in seeds(500) {
        let mut life = Life::new(seed);
        let mut appended = Vec::new();
        for _ in 0..4 {
            for _ in 0..life.rng.below(120) {
                if life.rng.below(5) == 0 {
                    let after = life.rng.below(6);
                    life.node.disk.order(after, Fault::Lie);
                }
                let record = life.records.next(life.node.wal.is_low());
                appended.push(record.clone());
                life.node.append(record);
                life.node.flush();
            }
            if life.rng.below(2) == 0 {
                let after = life.rng.below(14);
                life.node.disk.order(after, Fault::Lie); // in recovery
            }
            match life.rng.below(2) {
                0 => life.node.disk.kill(),
                _ => life.node.disk.lose_power(),
            }
            if life.node.recover().is_err() {
                refused += 1;
                break;
            }
            recovered += 1;
            life.node.wal.validate();
            life.node.check_nothing_is_made_up(&appended);
            life.records.resume(&life.node.wal);
        }
    }
    assert!(refused > 100 && recovered > 100, "{refused} refused, {recovered} recovered");
}

fn idle_copy(node: &Node) -> Node {
    let mut copy = Node::new(0);
    copy.disk = node.disk.clone();
    copy.history.clone_from(&node.history);
    copy.told = node.told;
    copy
}
