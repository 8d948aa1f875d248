//! Counting votes until a write quorum is whole: the proxy leader's inner loop.
//!
//! The bit-set window is what Loggos does: a tagged ring of slots, one bit an acceptor. The hash
//! map of sets is what a straightforward version does. The difference is what a slot saves at its
//! proxy leader.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_protocol::{AcceptorId, AcceptorSet, QuorumSystem, Slot, Window};

const SLOTS: u64 = 1024;

fn quorums() -> impl Iterator<Item = (u8, QuorumSystem)> {
    [(1, 1), (2, 2), (3, 3), (4, 4), (8, 8)].into_iter().map(|(rows, columns)| {
        let grid = QuorumSystem::grid(rows, columns, 0).expect("a grid that survives no loss");
        (rows * columns, grid)
    })
}

/// All votes of one write quorum for each of [`SLOTS`] slots, slot by slot.
fn votes(quorums: QuorumSystem) -> Vec<(Slot, AcceptorId)> {
    let asked = |slot| quorums.write_quorum(slot, 0, AcceptorSet::default());
    (0..SLOTS).map(Slot).flat_map(|slot| asked(slot).iter().map(move |a| (slot, a))).collect()
}

fn quorum(c: &mut Criterion) {
    let mut group = c.benchmark_group("quorum");
    for (acceptors, quorums) in quorums() {
        let votes = votes(quorums);
        group.throughput(Throughput::Elements(votes.len() as u64));
        group.bench_function(format!("bit-set window, {acceptors} acceptors"), |b| {
            let mut window = Window::new(1024);
            b.iter(|| {
                let mut chosen = 0;
                for (slot, acceptor) in &votes {
                    if window.at(*slot).is_none() {
                        window.insert(*slot, AcceptorSet::default());
                    }
                    let votes = window.at_mut(*slot).expect("just inserted");
                    votes.insert(*acceptor);
                    chosen += u32::from(quorums.is_write_quorum(*votes));
                }
                window.clear();
                black_box(chosen)
            });
        });
        group.bench_function(format!("hash map of sets, {acceptors} acceptors"), |b| {
            b.iter(|| {
                let mut map: HashMap<Slot, HashSet<AcceptorId>> = HashMap::new();
                let mut chosen = 0;
                for (slot, acceptor) in &votes {
                    let votes = map.entry(*slot).or_default();
                    votes.insert(*acceptor);
                    let votes = votes.iter().copied().collect();
                    chosen += u32::from(quorums.is_write_quorum(votes));
                }
                black_box(chosen)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quorum);
criterion_main!(benches);
