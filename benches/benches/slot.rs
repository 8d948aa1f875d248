//! A slot through all roles, from a client's command to its reply, with nothing between them.
//!
//! The time of one command a batch is what the protocol itself costs a slot on one core: gateway,
//! proposer, proxy leader, two acceptors, three replicas, sessions and results. The time of 512 is
//! what a command costs once batching has spread that over many: encoding, three replicas that read
//! it, a reply.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_benches::{Line, settings};

/// Slots under way at once.
const WINDOW: u32 = 256;
/// A put of 16-byte key and value.
const COMMAND_BYTES: usize = 35;

fn slot(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot");
    for batch in [1, 512] {
        let mut line = Line::new(&settings(batch, WINDOW), COMMAND_BYTES);
        let commands = WINDOW * batch;
        group.throughput(Throughput::Elements(commands.into()));
        group.bench_function(format!("{batch} commands a batch, window {WINDOW}"), |b| {
            b.iter(|| {
                let slots = line.run(commands);
                assert_eq!(slots, u64::from(WINDOW), "batches of another size");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, slot);
criterion_main!(benches);
