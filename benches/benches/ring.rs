//! The socket ring: how long an echo takes over loopback, between two threads with a ring each.
//!
//! *One connection*: half of it is what a message pays for each hop between two machines, wire
//! aside; a slot takes five of them. *16 connections*: divided by 16 it is what one more peer costs
//! a core in a tick, an operation each to send and to receive, as the system calls are shared. *By
//! size*: up to a few KiB an operation costs the same, and what 16 KiB cost above 64 bytes is
//! copying, twice in and twice out; so frames leave together. *Asleep*: what a core pays that does
//! not poll, each side woken by what arrives; half the difference to the first row is what parking
//! adds to each hop of a slot.
//!
//! *Tasks when we enter* is how a polled ring is made, *tasks by interrupt* how the other is.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loggos_net::{ConnectionId, Ring, RingEvent, RingOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a core sleeps at the most.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// A ring in a loop, as a core has one.
struct Core {
    ring: Ring,
    events: Vec<RingEvent>,
    /// Whether it sleeps when it has nothing to do; else it polls.
    sleeps: bool,
}

impl Core {
    /// Makes one and pins this thread to `cpu`, as a runtime would: two that poll on one core wait
    /// for each other's time slices. Where there is no such core, it goes anywhere.
    fn new(cpu: usize, is_polled: bool, sleeps: bool) -> Self {
        let mut cpus = CpuSet::new();
        cpus.set(cpu);
        let _is_pinned = sched_setaffinity(None, &cpus);
        let options = RingOptions { is_polled, ..RingOptions::default() };
        let ring = Ring::new(&options).expect("io_uring is there");
        Self { ring, events: Vec::new(), sleeps }
    }

    /// Flushes, and hands what has happened to `take`.
    fn tick(&mut self, mut take: impl FnMut(&mut Ring, RingEvent)) {
        self.ring.flush();
        self.ring.poll(&mut self.events).expect("the ring works");
        if self.events.is_empty() {
            self.rest();
        }
        for event in self.events.drain(..) {
            take(&mut self.ring, event);
        }
    }

    fn rest(&mut self) {
        if self.sleeps {
            self.ring.sleep(SLEEP_MAX).expect("the ring works");
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Sends back what it gets, until the first connection closes.
fn echo(is_polled: bool, sleeps: bool, tell: &mpsc::Sender<SocketAddr>) {
    let mut core = Core::new(1, is_polled, sleeps);
    let address = core.ring.listen((Ipv4Addr::LOCALHOST, 0).into()).expect("a port is free");
    tell.send(address).expect("the other thread waits for it");
    let mut is_over = false;
    while !is_over {
        core.tick(|ring, event| match event {
            RingEvent::Accepted(id, _) => ring.receive(id),
            RingEvent::Received(id, bytes) => {
                ring.outgoing(id).expect("it is open").put(&bytes);
                ring.receive(id);
            }
            RingEvent::Closed(..) => is_over = true,
            RingEvent::Connected(_) | RingEvent::Sent(..) | RingEvent::SentPart(_) => {}
        });
    }
}

/// Sends `message` on each connection and waits until all of it is back.
fn round_trip(core: &mut Core, ids: &[ConnectionId], message: &[u8]) {
    for id in ids {
        core.ring.outgoing(*id).expect("it is open").put(message);
    }
    let mut left = ids.len() * message.len();
    while left > 0 {
        core.tick(|ring, event| {
            if let RingEvent::Received(id, bytes) = event {
                left -= bytes.len();
                ring.receive(id);
            }
        });
    }
}

fn connect(core: &mut Core, address: SocketAddr, connections: usize) -> Vec<ConnectionId> {
    let connect = |_| core.ring.connect(address).expect("there is a descriptor");
    let ids: Vec<_> = (0..connections).map(connect).collect();
    let mut connected = 0;
    while connected < connections {
        core.tick(|ring, event| {
            if let RingEvent::Connected(id) = event {
                connected += 1;
                ring.receive(id);
            }
        });
    }
    ids
}

fn echoes(c: &mut Criterion) {
    let both = [(true, "tasks when we enter"), (false, "tasks by interrupt")];
    for sleeps in [false, true] {
        let mut group = c.benchmark_group(if sleeps { "ring echo, asleep" } else { "ring echo" });
        for (is_polled, mode) in both {
            for (connections, bytes) in
                [1, 16].into_iter().flat_map(|n| [64, 1024, 16_384].map(|bytes| (n, bytes)))
            {
                if sleeps && (connections, bytes) != (1, 64) {
                    continue;
                }
                let (tell, hear) = mpsc::channel();
                let server = thread::spawn(move || echo(is_polled, sleeps, &tell));
                let address = hear.recv().expect("the echo listens");
                let mut core = Core::new(0, is_polled, sleeps);
                let ids = connect(&mut core, address, connections);
                let message = vec![7; bytes];
                group.throughput(Throughput::Elements(connections as u64));
                group.bench_function(format!("{connections} x {bytes} bytes, {mode}"), |b| {
                    b.iter(|| round_trip(&mut core, &ids, &message));
                });
                drop(core);
                server.join().expect("the echo does not panic");
            }
        }
        group.finish();
    }
}

criterion_group!(benches, echoes);
criterion_main!(benches);
