//! In a steady state, frames on the hot path are written, cut and read without allocating anything but the
//! box of results.

#[allow(dead_code, reason = "shared with other tests")]
mod samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;

use bytes::Bytes;
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Message};
use loggos_protocol::{
    AcceptorId, Envelope, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, To, ToAcceptor,
    ToGateway, ToProposer, ToProxyLeader, ToReplica,
};

/// The system's allocator, counting.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `GlobalAlloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: it was allocated above, by the system's allocator, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// A slot's messages, each with a payload of `bytes`.
fn slot(bytes: usize) -> Vec<Envelope> {
    let p2a = || samples::p2a(bytes);
    let all = vec![
        To::Proposer(ProposerId(0), ToProposer::Propose(samples::batch(bytes))),
        To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2a(p2a())),
        To::Acceptor(AcceptorId(0), ToAcceptor::P2a(p2a())),
        To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2b(samples::p2b())),
        To::Replica(ReplicaId(0), ToReplica::Chosen(samples::chosen(bytes))),
        To::Gateway(GatewayId(0), ToGateway::Results(samples::results(bytes))),
    ];
    all.into_iter().map(|to| Envelope { formation: None, to }).collect()
}

#[test]
fn a_slot_allocates_nothing_but_the_box_of_its_results() {
    for bytes in [16, 1024, 16 * 1024] {
        let sent = slot(bytes);
        let mut out = Outgoing::default();
        let mut batches = BatchPool::new(64);
        let mut reader = FrameReader::new(samples::FRAME_BYTES_MAX);
        let mut held = VecDeque::with_capacity(128);
        sent.iter().for_each(|envelope| wire::encode(envelope, &mut out));
        let stream: Bytes = out.pieces().flatten().copied().collect();
        for slot in 0..100 {
            let before = allocations();
            out.clear();
            sent.iter().for_each(|envelope| wire::encode(envelope, &mut out));
            assert_eq!(allocations(), before, "to encode a slot of {bytes} bytes");
            reader.push(stream.clone());
            while let Some(frame) = reader.next() {
                held.push_back(frame.unwrap().decode(&mut batches).unwrap());
            }
            // Once as many are held as ever will be.
            assert!(slot <= 10 || allocations() == before + 1, "to decode a slot of {bytes} bytes");
            if slot >= 10 {
                held.drain(..sent.len());
            }
            assert!(matches!(held.back(), Some(Message::Envelope(_))));
        }
    }
}
