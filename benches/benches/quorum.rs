//! Counting votes until a write quorum is whole: the proxy leader's inner loop.
//!
//! The bit-set window is what Loggos does: a tagged ring of slots, one bit an acceptor. The maps of
//! sets are what a straightforward version does: the hash map where only votes are looked up, the
//! B-tree where slots are also wanted in order. The difference is what a slot saves at its proxy
//! leader.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

/// Counts votes that make a write quorum whole, by what `vote` says of all that a slot has then.
#[inline]
fn chosen(
    votes: &[(Slot, AcceptorId)],
    quorums: QuorumSystem,
    mut vote: impl FnMut(Slot, AcceptorId) -> AcceptorSet,
) -> u32 {
    let votes = votes.iter().map(|(slot, acceptor)| vote(*slot, *acceptor));
    black_box(votes.map(|votes| u32::from(quorums.is_write_quorum(votes))).sum())
}

fn quorum(c: &mut Criterion) {
    let mut group = c.benchmark_group("quorum");
    for (acceptors, quorums) in quorums() {
        let votes = votes(quorums);
        group.throughput(Throughput::Elements(votes.len() as u64));
        group.bench_function(format!("bit-set window, {acceptors} acceptors"), |b| {
            let mut window = Window::new(1024);
            b.iter(|| {
                let chosen = chosen(&votes, quorums, |slot, acceptor| {
                    if window.at(slot).is_none() {
                        window.insert(slot, AcceptorSet::default());
                    }
                    let votes = window.at_mut(slot).expect("just inserted");
                    votes.insert(acceptor);
                    *votes
                });
                window.clear();
                chosen
            });
        });
        group.bench_function(format!("hash map of sets, {acceptors} acceptors"), |b| {
            b.iter(|| {
                let mut map: HashMap<Slot, HashSet<AcceptorId>> = HashMap::new();
                chosen(&votes, quorums, |slot, acceptor| {
                    let votes = map.entry(slot).or_default();
                    votes.insert(acceptor);
                    votes.iter().copied().collect()
                })
            });
        });
        group.bench_function(format!("B-tree of sets, {acceptors} acceptors"), |b| {
            b.iter(|| {
                let mut map: BTreeMap<Slot, BTreeSet<AcceptorId>> = BTreeMap::new();
                chosen(&votes, quorums, |slot, acceptor| {
                    let votes = map.entry(slot).or_default();
                    votes.insert(acceptor);
                    votes.iter().copied().collect()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, quorum);
criterion_main!(benches);
