//! Frames: what a message costs that leaves its process, beyond the socket, by the size of its
//! payload.
//!
//! A slot of an idle cluster is about a dozen frames and as many in the other direction, so each of
//! these numbers counts some twelve times in a slot's latency, and once or twice in the throughput
//! of each core that it passes. The socket operation that carries them costs some 5 µs, with any
//! content.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use loggos_benches::messages::{p2a_to_acceptor, p2a_to_proxy_leader, p2b, results};
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Message};
use loggos_protocol::{AcceptorId, Envelope, To, ToAcceptor, ToProxyLeader};

/// A command alone in its batch, a batch of some, a full one.
const PAYLOAD_BYTES: [usize; 3] = [16, 1024, 16 * 1024];
/// Frames in a piece of the stream.
const FRAMES: u32 = 32;

/// A piece of a stream: one message over and over.
fn stream(envelope: &Envelope) -> Bytes {
    let mut out = Outgoing::default();
    (0..FRAMES).for_each(|_| wire::encode(envelope, &mut out));
    out.pieces().flatten().copied().collect()
}

/// The time of `frames` frames, of which `round` handles [`FRAMES`].
fn time(frames: u64, mut round: impl FnMut()) -> Duration {
    let rounds = u32::try_from(frames.div_ceil(u64::from(FRAMES))).expect("few enough");
    let start = Instant::now();
    (0..rounds).for_each(|_| round());
    let each = start.elapsed().as_nanos() * u128::from(frames);
    let each = each / u128::from(rounds * FRAMES);
    Duration::from_nanos(u64::try_from(each).expect("short enough"))
}

fn encode_one(envelope: &Envelope, frames: u64) -> Duration {
    let mut out = Outgoing::default();
    time(frames, || {
        out.clear();
        (0..FRAMES).for_each(|_| wire::encode(black_box(envelope), &mut out));
        black_box(out.len());
    })
}

/// Cuts and decodes a stream of `envelope`, and hands each message to `take`.
fn decode_one(envelope: &Envelope, frames: u64, mut take: impl FnMut(Message)) -> Duration {
    let stream = stream(envelope);
    let mut batches = BatchPool::new(64);
    let mut reader = FrameReader::new(1 << 20);
    time(frames, || {
        reader.push(stream.clone());
        while let Some(frame) = reader.next() {
            take(frame.and_then(|frame| frame.decode(&mut batches)).expect("a good frame"));
        }
    })
}

/// What a sender pays a message. Payloads go by reference, so their size is not to be seen, but for
/// outcomes, whose checksum the sender makes: that of 16 KiB is what a replica pays for answering
/// 512 commands.
fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/encode");
    group.bench_function("P2b", |b| b.iter_custom(|n| encode_one(&p2b(), n)));
    for bytes in PAYLOAD_BYTES {
        let (p2a, results) = (p2a_to_acceptor(bytes), results(bytes));
        group.bench_function(BenchmarkId::new("P2a", bytes), |b| {
            b.iter_custom(|n| encode_one(&p2a, n));
        });
        group.bench_function(BenchmarkId::new("Results", bytes), |b| {
            b.iter_custom(|n| encode_one(&results, n));
        });
    }
    group.finish();
}

/// What a receiver pays a message: cutting it out of the stream, checking and reading it. At a
/// proxy leader that is the same for all payloads that are referenced; an acceptor also checks the
/// block, and the difference is the price of never logging what was damaged on the way.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/decode");
    let take = |message| drop(black_box(message));
    group.bench_function("P2b", |b| b.iter_custom(|n| decode_one(&p2b(), n, take)));
    for bytes in PAYLOAD_BYTES {
        let messages = [
            ("P2a to a proxy leader", p2a_to_proxy_leader(bytes)),
            ("P2a to an acceptor", p2a_to_acceptor(bytes)),
            ("Results", results(bytes)),
        ];
        for (name, message) in messages {
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter_custom(|n| decode_one(&message, n, take));
            });
        }
    }
    group.finish();
}

/// What a proxy leader pays a slot for passing a P2a on to an acceptor, apart from its own state
/// machine: one over this number bounds the slots a second that a proxy leader's core can take in.
fn forward(c: &mut Criterion) {
    let mut group = c.benchmark_group("wire/forward");
    for bytes in PAYLOAD_BYTES {
        let message = p2a_to_proxy_leader(bytes);
        group.bench_function(BenchmarkId::new("P2a", bytes), |b| {
            b.iter_custom(|n| {
                let mut out = Outgoing::default();
                decode_one(&message, n, |message| {
                    if out.frames() == 32 {
                        out.clear();
                    }
                    let Message::Envelope(Envelope { formation, to }) = message else { return };
                    let To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) = to else { return };
                    let to = To::Acceptor(AcceptorId(0), ToAcceptor::P2a(p2a));
                    wire::encode(&Envelope { formation, to }, &mut out);
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode, decode, forward);
criterion_main!(benches);
