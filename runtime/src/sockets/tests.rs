//! Two cores that talk over loopback, with the time as the test has it.

use std::time::Instant;

use loggos_net::{Outgoing, RingOptions};
use loggos_protocol::{Fetch, ReplicaId, Slot, To, ToReplica};

use super::connections::GREETING_MAX;
use super::*;
use crate::names::Destination;

/// The longest time until the kernel has carried a message over loopback.
const DEADLINE: Duration = Duration::from_secs(30);

/// A core with sockets and without roles.
struct Core {
    ring: Ring,
    sockets: Sockets,
    address: SocketAddr,
    /// What has come in.
    incoming: Vec<Incoming>,
}

/// Core 0 of node `node`, which listens at a free port.
fn core(node: u8, remotes: &[Remote]) -> Core {
    core_with_gateway(node, 0, remotes)
}

/// The same; the gateway is on core `gateway_core`.
fn core_with_gateway(node: u8, gateway_core: u8, remotes: &[Remote]) -> Core {
    let mut ring = Ring::new(&RingOptions::default()).unwrap();
    let address = ring.listen(([127, 0, 0, 1], 0).into()).unwrap();
    let identity = NodeIdentity {
        cluster_name: "pair".to_owned(),
        digest: 1,
        node,
        core: 0,
        core_last: 1,
        nonce: u64::from(node),
        gateway_core: Some(gateway_core),
        command_bytes_max: 1 << 16,
        session_window: 1 << 16,
        frame_bytes_max: 1 << 17,
        clients_max: 2,
        strangers_max: 4,
    };
    let sockets = Sockets::new(identity, remotes, 8, 1);
    Core { ring, sockets, address, incoming: Vec::new() }
}

impl Core {
    /// One tick of the core's loop at `now`.
    fn tick(&mut self, now: Time) {
        let mut events = Vec::new();
        self.ring.poll(&mut events).unwrap();
        self.sockets.begin_tick(&mut self.ring, 1, now);
        for event in events {
            self.sockets.on_event(&mut self.ring, event, now);
        }
        self.incoming.extend(std::iter::from_fn(|| self.sockets.next_incoming()));
        self.sockets.on_time(&mut self.ring, now);
        self.sockets.note_idle_links(&mut self.ring, now);
        self.ring.flush();
    }

    fn is_up(&self) -> bool {
        self.sockets.links[0].dial.up().is_some()
    }
}

/// Returns two cores at `now`: a link of the first to the second is up.
fn linked(now: Time) -> [Core; 2] {
    let mut to = core(1, &[]);
    [link_to(&mut to, now), to]
}

/// Returns another core at `now`, whose link to this one is up.
fn link_to(to: &mut Core, now: Time) -> Core {
    let remote = Remote {
        node: 1,
        core: 0,
        name: "other".to_owned(),
        address: to.address.into(),
        destination: Destination::Known(to.address),
        is_watched: true,
    };
    let mut from = core(0, &[remote]);
    let started = Instant::now();
    while !from.is_up() {
        assert!(started.elapsed() < DEADLINE, "{:?}", from.sockets.links);
        from.tick(now);
        to.tick(now);
    }
    from
}

/// A stop of a process shows nothing of its links, however it lies to the sweeps.
#[test]
fn r28_a_link_outlives_a_stop_of_this_process_of_any_length() {
    for stop_ms in (1_000..12_000).step_by(250) {
        let mut now = Time(1_000_000_000);
        let [mut from, mut to] = linked(now);
        for _ in 0..20 {
            now = now + Duration::from_millis(70);
            from.tick(now);
            to.tick(now);
        }
        now = now + Duration::from_millis(stop_ms);
        from.tick(now);
        assert!(from.is_up(), "after a stop of {stop_ms} ms");
    }
}

/// A link on which something waits and nothing moves, while this process runs, is ended.
#[test]
fn r28_a_link_that_sends_nothing_is_ended_while_this_process_runs() {
    let start = Time(1_000_000_000);
    let [mut from, _to] = linked(start);
    let mut now = start;
    while from.is_up() {
        now = now + Duration::from_millis(90);
        assert!(now.since(start) < Duration::from_secs(30), "it is up for ever");
        from.sockets.begin_tick(&mut from.ring, 1, now);
        from.sockets.on_time(&mut from.ring, now);
        let fetch = Fetch { replica: ReplicaId(0), first: Slot(0) };
        let to = To::Replica(ReplicaId(1), ToReplica::Fetch(fetch));
        from.sockets.send(&mut from.ring, 0, &Envelope { formation: None, to }, now);
        from.sockets.note_idle_links(&mut from.ring, now);
    }
    assert!(now.since(start) > Duration::from_secs(5), "it was ended at {now:?}");
}

/// Those that say nothing make room, the oldest first; a peer says hello, and has its own.
#[test]
fn r35_silent_strangers_do_not_keep_a_peer_out() {
    let mut here = core(1, &[]);
    let now = Time(1_000_000_000);
    let started = Instant::now();
    let mut strangers = Vec::new();
    for accepted in 1..=9 {
        strangers.push(std::net::TcpStream::connect(here.address).unwrap());
        while here.ring.counters().accepted < accepted {
            assert!(started.elapsed() < DEADLINE, "{accepted} were not accepted");
            here.tick(now);
        }
    }
    here.tick(now);
    assert_eq!(here.sockets.counters().evicted, 5, "four have room");
    assert_eq!(here.sockets.connections.len(), 4, "four have room");
    let _peer = link_to(&mut here, now);
    assert_eq!(here.sockets.counters().evicted, 6, "it came as a stranger");
    assert_eq!(here.sockets.strangers.len(), 3, "and is none");
}

/// Connects to a core, and says hello.
fn say_hello(to: &Core, purpose: Purpose) -> std::net::TcpStream {
    let mut hello = Outgoing::default();
    wire::encode_hello(&Hello::of_client(String::new(), purpose, 1), &mut hello);
    let mut connection = std::net::TcpStream::connect(to.address).unwrap();
    hello.pieces().for_each(|piece| io::Write::write_all(&mut connection, piece).unwrap());
    connection
}

/// Those that stay do not keep others from asking, and are no clients.
#[test]
fn r35_connections_for_the_status_that_ask_nothing_make_room() {
    let mut here = core(1, &[]);
    let now = Time(1_000_000_000);
    let started = Instant::now();
    let mut connections = Vec::new();
    for said in 1..=STATUS_MAX + 1 {
        connections.push(say_hello(&here, Purpose::Status));
        while said > here.sockets.parties.asking && here.sockets.counters().refused == 0 {
            assert!(started.elapsed() < DEADLINE, "{said} have said hello");
            here.tick(now);
        }
    }
    assert_eq!(here.sockets.parties.asking, STATUS_MAX, "the last one was refused");
    assert_eq!((here.sockets.counters().turned_away, here.sockets.is_full), (0, false));
    here.tick(now + GREETING_MAX);
    assert_eq!(here.sockets.parties.asking, STATUS_MAX, "they may ask yet");
    here.tick(now + GREETING_MAX + SWEEP_INTERVAL);
    assert_eq!(here.sockets.parties.asking, 0, "they have not");
}

/// The core of the gateway takes none of them for a while: they are not more and more.
#[test]
fn r35_clients_on_their_way_to_another_core_are_bounded() {
    let mut here = core_with_gateway(1, 1, &[]);
    let now = Time(1_000_000_000);
    let started = Instant::now();
    let mut clients = Vec::new();
    let mut say = |here: &mut Core, count: usize| {
        for _ in 0..count {
            clients.push(say_hello(here, Purpose::Client));
            let judged = |here: &Core| here.incoming.len() as u64 + here.sockets.counters().refused;
            let before = judged(here);
            while judged(here) == before {
                assert!(started.elapsed() < DEADLINE, "nothing has become of one");
                here.tick(now);
            }
        }
    };
    say(&mut here, 7);
    assert_eq!((here.incoming.len(), here.sockets.counters().turned_away), (4, 3));
    here.incoming.pop(); // as if it had been judged
    say(&mut here, 2);
    assert_eq!((here.incoming.len(), here.sockets.counters().turned_away), (4, 4));
}
