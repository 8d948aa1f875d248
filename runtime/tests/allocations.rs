//! A slot allocates nothing once all windows, pools and buffers have the size that they need: with
//! all roles in one process, and with each behind sockets of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use harness::{DEADLINE, Spread};
use loggos::kv::{Command, Kv};
use loggos::{
    CallError, ClusterSettings, Config, Desk, Idle, LocalCluster, Next, Node, Position,
    RemoteCluster, RemoteOptions, Resident, Settings,
};

/// Counts what all threads of this process allocate.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is done by the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.realloc(memory, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Tests run one at a time: each counts what the process allocates.
static TURN: Mutex<()> = Mutex::new(());

/// How many commands are under way at once: alone in their batches, a few in each, full batches.
const IN_FLIGHT: [u64; 3] = [1, 64, 1024];
/// Slots before it counts, and those that count.
const SLOTS: [u64; 2] = [2000, 8000];
/// What may be allocated in a second, whatever is done: for heartbeats, and by the timers of twelve
/// executors.
const A_SECOND: u64 = 1000;

/// A put, again and again, of which some are under way at once.
struct Load {
    in_flight: u64,
    under_way: u64,
    command: Vec<u8>,
    began: Option<Count>,
    done: Sender<(Count, Count)>,
    is_done: bool,
}

/// What had been allocated by a slot.
#[derive(Clone, Copy, Debug)]
struct Count {
    slot: u64,
    allocations: u64,
    at: Instant,
}

impl Load {
    fn new(in_flight: u64, done: Sender<(Count, Count)>) -> Self {
        let mut command = Vec::new();
        let put = Command::Put { key: b"sixteen bytes of", value: b"another sixteen." };
        put.encode(&mut command).unwrap();
        Self { in_flight, under_way: 0, command, began: None, done, is_done: false }
    }
}

impl Resident for Load {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        while self.under_way < self.in_flight && desk.execute(0, &self.command) {
            self.under_way += 1;
        }
        Next::OnResult
    }

    fn on_result(&mut self, _: u64, result: Result<(Position, &[u8]), CallError>) {
        let Ok((at, _)) = result else { return }; // the cluster stops
        self.under_way -= 1;
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        let now = Count { slot: at.slot.0, allocations, at: Instant::now() };
        match self.began {
            None if now.slot >= SLOTS[0] => self.began = Some(now),
            Some(began) if now.slot >= began.slot + SLOTS[1] && !self.is_done => {
                self.is_done = true;
                self.done.send((began, now)).unwrap();
            }
            Some(_) | None => {}
        }
    }
}

/// Has `in_flight` commands under way all the time; asserts that the slots after the first ones
/// allocate nothing, but for what is done now and then, such as heartbeats.
fn check(what: &str, in_flight: u64, move_in: impl FnOnce(u64, Sender<(Count, Count)>)) {
    let (done, counts) = channel();
    move_in(in_flight, done);
    let (began, ended) = counts.recv_timeout(DEADLINE).unwrap();
    let slots = ended.slot - began.slot;
    let allocations = ended.allocations - began.allocations;
    let took = ended.at - began.at;
    let most = slots / 50 + u64::try_from(took.as_micros()).unwrap() * A_SECOND / 1_000_000;
    assert!(
        allocations <= most,
        "{what}, {in_flight} in flight: {allocations} allocations in {slots} slots and {took:?}"
    );
}

/// Small windows, which are soon full for the first time.
fn small(cluster: ClusterSettings) -> ClusterSettings {
    let mut settings = Settings::clone(&cluster);
    (settings.slot_window, settings.batch_commands_max) = (32, 128);
    settings.check().unwrap()
}

#[test]
fn a_slot_allocates_nothing_in_one_process() {
    let _turn = TURN.lock();
    for in_flight in IN_FLIGHT {
        let mut config = Config::standard();
        config.cluster = small(config.cluster);
        config.idle = Idle::Park; // tests share the machine
        config.deadline = DEADLINE;
        let cluster = LocalCluster::start(&config, |_| Kv::default()).unwrap();
        check("in one process", in_flight, |in_flight, done| {
            cluster.move_in(move || Load::new(in_flight, done));
        });
        cluster.stop().unwrap();
    }
}

#[test]
fn a_slot_allocates_nothing_by_sockets() {
    let _turn = TURN.lock();
    for in_flight in IN_FLIGHT {
        let config = harness::config(Spread::NodeEach, small);
        let start = |index| Node::start(&config, index, |_| Kv::default()).unwrap();
        let nodes: Vec<Node> = (0..config.nodes.len()).map(start).collect();
        let options =
            RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![nodes[0].address()]) };
        let cluster = RemoteCluster::connect(options).unwrap();
        check("by sockets", in_flight, |in_flight, done| {
            cluster.move_in(move || Load::new(in_flight, done));
        });
        drop(cluster);
        nodes.into_iter().for_each(|node| node.stop().unwrap());
    }
}
