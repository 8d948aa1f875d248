//! In a steady state, frames on the hot path are written, cut and read without allocating anything;
//! and proposer, proxy leaders and acceptors, each behind its own sockets,
//! allocate nothing.

#[allow(dead_code, reason = "shared with other tests")]
mod samples;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Message};
use loggos_protocol::{
    AcceptorId, At, Caller, ClientId, ClusterSettings, Envelope, GatewayId, Incarnation, Life,
    Outbox, ProposerId, ProxyLeaderId, QuorumSystem, ReplicaId, Reply, Role, RoleId, Settings,
    StateMachine, Time, To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica,
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
        To::Proposer(ProposerId(0), ToProposer::Propose(samples::propose(bytes))),
        To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2a(p2a())),
        To::Acceptor(AcceptorId(0), ToAcceptor::P2a(p2a())),
        To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2b(samples::p2b())),
        To::Replica(ReplicaId(0), ToReplica::Chosen(samples::chosen(bytes))),
        To::Gateway(GatewayId(0), ToGateway::Results(samples::results(bytes))),
    ];
    all.into_iter().map(|to| Envelope { formation: None, to }).collect()
}

#[test]
fn a_slot_allocates_nothing() {
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
            assert!(slot <= 10 || allocations() == before, "to decode a slot of {bytes} bytes");
            if slot >= 10 {
                held.drain(..sent.len());
            }
            assert!(matches!(held.back(), Some(Message::Envelope(_))));
        }
    }
}

/// Answers what it is told.
struct Echo;

impl StateMachine for Echo {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        reply.put(command);
    }

    fn state_hash(&self) -> u64 {
        0
    }
}

/// A role, as a process of its own has it: all messages are frames.
struct Process {
    role: Role<Echo>,
    reader: FrameReader,
    batches: BatchPool,
    /// What it says to each of the others.
    outgoing: Vec<Outgoing>,
    /// What it receives into, from each of them.
    buffers: Vec<BytesMut>,
    out: Outbox,
    allocated: u64,
}

impl Process {
    /// Takes in what has come, if anything, and what is due, and writes down what follows from it.
    fn turn(&mut self, piece: Option<Bytes>, ids: &[RoleId], now: Time) {
        let before = allocations();
        if let Some(piece) = piece {
            self.reader.push(piece);
        }
        while let Some(frame) = self.reader.next() {
            let message = frame.and_then(|frame| frame.decode(&mut self.batches));
            let Ok(Message::Envelope(envelope)) = message else {
                panic!("roles send each other nothing else");
            };
            self.role.on_envelope(envelope, now, &mut self.out);
        }
        self.role.on_time(now, &mut self.out);
        self.write(ids);
        self.allocated += allocations() - before;
    }

    fn write(&mut self, ids: &[RoleId]) {
        let formation = self.role.formation();
        let Outbox { sends, held, events, .. } = &mut self.out;
        for to in sends.drain(..).chain(held.drain(..)) {
            let place = ids.iter().position(|id| *id == to.role());
            let place = place.expect("all roles are here");
            wire::encode(&Envelope { formation, to }, &mut self.outgoing[place]);
        }
        events.clear();
    }
}

/// A cluster of one process a role.
struct Processes {
    ids: Vec<RoleId>,
    processes: Vec<Process>,
    now: Time,
    replies: usize,
}

impl Processes {
    fn start(cluster: &ClusterSettings) -> Self {
        let ids: Vec<RoleId> = std::iter::once(RoleId::Gateway(GatewayId(0)))
            .chain(cluster.all_proposers().map(RoleId::Proposer))
            .chain(cluster.all_proxy_leaders().map(RoleId::ProxyLeader))
            .chain(cluster.quorums.acceptors().iter().map(RoleId::Acceptor))
            .chain((0..cluster.replicas).map(|id| RoleId::Replica(ReplicaId(id))))
            .collect();
        let now = Time(1_000_000_000);
        let lives = (1..).map(|seed| Life { incarnation: Incarnation(seed), seed });
        let processes = ids.iter().zip(lives).map(|(id, life)| Process {
            role: Role::start(cluster.clone(), *id, life, now, |_| Echo),
            reader: FrameReader::new(samples::FRAME_BYTES_MAX),
            batches: BatchPool::new(8 * cluster.ring_slots() as usize),
            outgoing: ids.iter().map(|_| Outgoing::default()).collect(),
            buffers: ids.iter().map(|_| BytesMut::new()).collect(),
            out: Outbox::default(),
            allocated: 0,
        });
        Self { processes: processes.collect(), ids, now, replies: 0 }
    }

    /// Submits commands of `bytes` bytes, and lets all roles work for a while.
    fn round(&mut self, commands: u64, bytes: usize) {
        let gateway = &mut self.processes[0];
        if let Role::Gateway(role) = &mut gateway.role {
            for tag in 0..commands {
                let caller = Caller { client: ClientId(0), tag };
                role.submit(caller, vec![7; bytes][..].into(), self.now, &mut gateway.out);
                role.flush(self.now, &mut gateway.out);
            }
        }
        gateway.write(&self.ids);
        for _ in 0..20 {
            self.now = self.now + Duration::from_millis(1);
            for place in 0..self.ids.len() {
                self.processes[place].turn(None, &self.ids, self.now);
                for from in 0..self.ids.len() {
                    if let Some(piece) = self.carry(from, place) {
                        self.processes[place].turn(Some(piece), &self.ids, self.now);
                    }
                }
            }
            let replies = &mut self.processes[0].out.replies;
            self.replies += replies.iter().filter(|(_, reply)| reply.is_ok()).count();
            replies.clear();
        }
    }

    /// Carries what one has for another over, into the buffer that the other receives into.
    fn carry(&mut self, from: usize, to: usize) -> Option<Bytes> {
        let outgoing = &mut self.processes[from].outgoing[to];
        if outgoing.is_empty() {
            return None;
        }
        let whole: Vec<u8> = outgoing.pieces().flatten().copied().collect();
        outgoing.clear();
        let buffer = &mut self.processes[to].buffers[from];
        buffer.extend_from_slice(&whole);
        Some(buffer.split().freeze())
    }

    fn allocated(&self) -> Vec<(RoleId, u64)> {
        self.ids.iter().copied().zip(self.processes.iter().map(|p| p.allocated)).collect()
    }
}

#[test]
fn proposer_proxy_leaders_and_acceptors_allocate_nothing_in_a_steady_state() {
    for bytes in [16, 4096] {
        let mut settings = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap());
        (settings.slot_window, settings.batch_commands_max) = (32, 1);
        let mut cluster = Processes::start(&settings.check().unwrap());
        (0..300).for_each(|_| cluster.round(8, bytes));
        let (before, replies) = (cluster.allocated(), cluster.replies);
        (0..50).for_each(|_| cluster.round(8, bytes));
        assert_eq!(cluster.replies - replies, 400, "commands of {bytes} bytes were not answered");
        for ((id, before), (_, after)) in before.into_iter().zip(cluster.allocated()) {
            match id {
                RoleId::Proposer(_) | RoleId::ProxyLeader(_) | RoleId::Acceptor(_) => {
                    assert_eq!(after - before, 0, "{id} allocated, for commands of {bytes} bytes");
                }
                RoleId::Gateway(_) | RoleId::Replica(_) => {}
            }
        }
    }
}
