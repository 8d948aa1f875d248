//! The acceptors' log: what a vote costs without a disk, what a write and its sync cost with one,
//! and how fast a log is read when a node comes back.
//!
//! The folder is made where `TMPDIR` says; what is measured with a disk is that disk.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_protocol::{
    AcceptorId, Ballot, Batch, BatchId, Content, DirectoryId, GatewayId, Incarnation, Payload,
    ProposerId, Record, ReplicaId, Slot, Time, Value, Vote, Watermark,
};
use loggos_storage::sim::FaultyDisk;
use loggos_storage::{Disk, Folder, Identity, Options, Wal, format, recover};

const ACCEPTOR: AcceptorId = AcceptorId(0);
const OPTIONS: Options = Options {
    segment_bytes: 16 << 20,
    segments_max: 16,
    segments_reserve: 2,
    write_bytes_max: 1 << 20,
};
/// Votes a batch, and bytes of each one's block.
const SHAPES: [(u64, usize); 4] = [(1, 128), (16, 128), (256, 128), (16, 16 << 10)];

/// A log that votes are appended to, slot after slot; what is old is truncated.
struct Log<D> {
    disk: D,
    wal: Wal,
    next: u64,
    record: Record,
    /// How many slots are kept.
    kept: u64,
}

impl<D: Disk> Log<D> {
    fn new(mut disk: D, block_bytes: usize, kept: u64) -> Self {
        format(&mut disk, &identity(), &OPTIONS).expect("an empty directory");
        let wal = recover(&mut disk, &identity(), &OPTIONS).expect("just formatted").wal;
        Self { disk, wal, next: 0, record: vote(block_bytes), kept }
    }

    fn append(&mut self, votes: u64) {
        for _ in 0..votes {
            if let Record::Vote { slot, .. } = &mut self.record {
                *slot = Slot(self.next);
            }
            self.wal.append(&self.record);
            self.next += 1;
            if self.kept > 0 && self.next.is_multiple_of(self.kept) {
                let truncated = Watermark(self.next - self.kept);
                self.wal.append(&Record::Truncated { acceptor: ACCEPTOR, truncated });
            }
        }
    }

    /// Takes what is gathered through `write`, until nothing is left.
    fn flush(&mut self, write: impl Fn(&mut D, &loggos_storage::Write)) {
        loop {
            if let Some(file) = self.wal.wants_file() {
                let created = self.disk.create(file, OPTIONS.segment_bytes.into());
                created.expect("room for a few segments");
                self.wal.on_file_created();
            }
            let Some(next) = self.wal.gather() else { break };
            write(&mut self.disk, &next);
            self.wal.on_synced(next);
        }
        assert_eq!(self.wal.poisoned(), None, "the log has stopped");
    }
}

fn identity() -> Identity {
    let acceptors = [ACCEPTOR].into_iter().collect();
    Identity { cluster: 1, directory: DirectoryId(2), quorums: 3, acceptors }
}

fn vote(block_bytes: usize) -> Record {
    let block = Payload::copy(&vec![7; block_bytes]);
    let id = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number: 1 };
    let (attempt, checksum) = (1, block.checksum());
    let batch = Batch { id, attempt, answerer: ReplicaId(0), commands_count: 1, block, checksum };
    let value = Value { stamp: Time(1), content: Content::Batch(Arc::new(batch)) };
    let ballot = Ballot { round: 1, proposer: ProposerId(0), incarnation: Incarnation(1) };
    Record::Vote { acceptor: ACCEPTOR, slot: Slot(0), vote: Vote { ballot, value } }
}

fn name((votes, block_bytes): (u64, usize)) -> String {
    format!("{votes} votes of {block_bytes} bytes")
}

/// Append, seal, take back: all but the disk.
fn gather(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/gather");
    for shape in SHAPES {
        let (votes, block_bytes) = shape;
        let mut log = Log::new(FaultyDisk::new(1), block_bytes, 512);
        group.throughput(Throughput::Elements(votes));
        group.bench_function(name(shape), |b| {
            b.iter(|| {
                log.append(votes);
                log.flush(|_, _| {});
            });
        });
    }
    group.finish();
}

/// Append, write, sync, one after the other: a tick of a core that has nothing else to do.
fn sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/sync");
    group.sample_size(20);
    for shape in SHAPES {
        let (votes, block_bytes) = shape;
        let directory = tempfile::tempdir().expect("a directory");
        let folder = Folder::lock(directory.path()).expect("direct I/O");
        let mut log = Log::new(folder, block_bytes, 512);
        group.throughput(Throughput::Elements(votes));
        group.bench_function(name(shape), |b| {
            b.iter(|| {
                log.append(votes);
                log.flush(|disk, write| {
                    disk.write_at(write.file, write.offset, &write.bytes).expect("a disk");
                    disk.sync(write.file).expect("a disk");
                });
            });
        });
    }
    group.finish();
}

/// Recovery of 64 MiB that are all needed, in memory and from a disk.
fn recovery(c: &mut Criterion) {
    let mut group = c.benchmark_group("log/recovery");
    group.sample_size(10);
    for shape in SHAPES {
        let directory = tempfile::tempdir().expect("a directory");
        recover_from(&mut group, &format!("in memory, {}", name(shape)), shape, FaultyDisk::new(1));
        let folder = Folder::lock(directory.path()).expect("direct I/O");
        recover_from(&mut group, &format!("on disk, {}", name(shape)), shape, folder);
    }
    group.finish();
}

fn recover_from(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    (votes, block_bytes): (u64, usize),
    disk: impl Disk,
) {
    const SEGMENTS: usize = 4;
    let mut log = Log::new(disk, block_bytes, 0);
    while log.wal.segments_count() <= SEGMENTS {
        log.append(votes);
        log.flush(|disk, write| {
            disk.write_at(write.file, write.offset, &write.bytes).expect("a disk");
            // What is synced is none of what is measured: each file is, once, when it is recovered
            // from.
        });
    }
    drop(recover(&mut log.disk, &identity(), &OPTIONS).expect("sound"));
    #[expect(clippy::print_stderr, reason = "how long the log is that is recovered")]
    {
        eprintln!("{name}: {} votes", log.next);
    }
    group.throughput(Throughput::Bytes(SEGMENTS as u64 * u64::from(OPTIONS.segment_bytes)));
    group.bench_function(name, |b| {
        b.iter_with_large_drop(|| recover(&mut log.disk, &identity(), &OPTIONS).expect("sound"));
    });
}

criterion_group!(benches, gather, sync, recovery);
criterion_main!(benches);
