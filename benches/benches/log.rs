//! The acceptors' log: what a vote costs without a disk, what a write and its sync cost with one,
//! and how fast a log is read when a node comes back.
//!
//! The folder is made where `TMPDIR` says; what is measured with a disk is that disk.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_benches::votes::{Log, OPTIONS, identity};
use loggos_storage::sim::FaultyDisk;
use loggos_storage::{Disk, Folder, recover};

/// Votes a batch, and bytes of each one's block.
const SHAPES: [(u64, usize); 4] = [(1, 128), (16, 128), (256, 128), (16, 16 << 10)];

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
