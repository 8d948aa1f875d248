//! What a replica's key-value machine does with a batch, by the number of keys and the size of
//! values.
//!
//! With 1000 keys everything is in the processor's caches, and the time is that of the
//! instructions. With a million it is that of the memory: a put that waited for each line in turn
//! would take several hundred nanoseconds. The difference between the two is what prefetching a
//! batch ahead and huge pages leave of that. Values of 16 bytes lie beside their keys, those of 100
//! behind a pointer.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loggos_benches::KeyValue;

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply a put");
    group.throughput(Throughput::Elements(KeyValue::BATCH_COMMANDS.into()));
    for value_bytes in [16, 100] {
        let value = vec![b'v'; value_bytes];
        let put = |key: &[u8], out: &mut Vec<u8>| KeyValue::put(key, &value, out);
        for keys in [1_000, 100_000, 1_000_000] {
            let mut store = KeyValue::new(keys, put);
            let id = BenchmarkId::new(format!("{value_bytes}-byte values"), format!("{keys} keys"));
            group.bench_function(id, |b| {
                b.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        let commands = store.commands(put);
                        store.run(&commands, &mut |work| {
                            let start = Instant::now();
                            work();
                            time += start.elapsed();
                        });
                    }
                    time
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, puts);
criterion_main!(benches);
