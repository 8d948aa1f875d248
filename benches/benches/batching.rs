//! Batching: what a gateway pays to put commands into a batch, and what a tick's P2as cost by the
//! size of their batches.
//!
//! The first is paid by every command: written behind the others into one block, as Loggos does, or
//! into an allocation of its own, as a straightforward version does, which would be sent on, logged
//! and executed piece by piece besides. The second shows what is paid by reference: from the size
//! on at which a block no longer travels inside its message, a P2a costs the same with any batch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_benches::settings;
use loggos_protocol::{
    Ballot, Batch, BatchId, BatchWriter, Content, Outbox, P2a, ProxyLeader, ProxyLeaderId,
    ReplicaId, SessionId, Slot, Time, Value,
};

const COMMAND: [u8; 35] = [7; 35];
const SESSION: SessionId = SessionId { slot: Slot(0), index: 0 };
/// The P2as that a busy tick has for one proxy leader.
const SLOTS_A_TICK: u64 = 64;

fn encoding(c: &mut Criterion) {
    let mut group = c.benchmark_group("commands to a batch");
    for commands in [1, 16, 512_u32] {
        group.throughput(Throughput::Elements(commands.into()));
        group.bench_function(format!("{commands} commands"), |b| {
            let mut writer = BatchWriter::default();
            b.iter(|| {
                for _ in 0..commands {
                    writer.push(black_box(&COMMAND));
                }
                writer.close(SESSION, 0, 0)
            });
        });
        group.bench_function(format!("{commands} commands, each in its own vector"), |b| {
            b.iter(|| (0..commands).map(|_| black_box(&COMMAND).to_vec()).collect::<Vec<_>>());
        });
    }
    group.finish();
}

fn p2as(c: &mut Criterion) {
    let mut group = c.benchmark_group("a tick's P2as through a proxy leader");
    group.throughput(Throughput::Elements(SLOTS_A_TICK));
    let cluster = settings(512, 256);
    for commands in [1, 2, 16, 512_u32] {
        let mut writer = BatchWriter::default();
        for _ in 0..commands {
            writer.push(black_box(&COMMAND));
        }
        let block = writer.close(SESSION, 0, 0);
        let batch = Batch {
            id: BatchId::default(),
            attempt: 0,
            answerer: ReplicaId(0),
            commands_count: commands,
            checksum: block.checksum(),
            block,
        };
        let value = Value { stamp: Time(1), content: Content::Batch(batch.into()) };
        group.bench_function(format!("{commands} commands a batch"), |b| {
            let mut proxy_leader = ProxyLeader::new(cluster.clone(), ProxyLeaderId(0));
            let ballot = Ballot { round: 1, ..Ballot::default() };
            let (mut out, mut next, via) = (Outbox::default(), 0, ProxyLeaderId(0));
            b.iter(|| {
                for slot in (next..next + SLOTS_A_TICK).map(Slot) {
                    let p2a = P2a { ballot, slot, via, is_recovered: false, value: value.clone() };
                    proxy_leader.on_p2a(p2a, Time(next), &mut out);
                }
                next += SLOTS_A_TICK;
                out.sends.clear();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encoding, p2as);
criterion_main!(benches);
