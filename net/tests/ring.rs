//! The socket ring over real loopback sockets, in both modes.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "an event that was not expected is a failure")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loggos_net::{
    AlignedBytes, CloseReason, ConnectionId, Ring, RingEvent, RingFile, RingOptions, RingRecord,
    Written,
};
use loggos_protocol::Payload;
use rustix::event::EventfdFlags;

/// How long anything may take before it counts as stuck.
const DEADLINE: Duration = Duration::from_secs(30);

/// A ring, and its events that no test has looked at yet.
struct Node {
    ring: Ring,
    told: VecDeque<RingEvent>,
    events: Vec<RingEvent>,
}

impl Node {
    fn new(is_polled: bool) -> Self {
        Self::with(&RingOptions { is_polled, ..RingOptions::default() })
    }

    fn with(options: &RingOptions) -> Self {
        let ring = Ring::new(options).unwrap();
        Self { ring, told: VecDeque::new(), events: Vec::new() }
    }

    fn listening(is_polled: bool) -> (Self, SocketAddr) {
        let mut node = Self::new(is_polled);
        let address = node.ring.listen(any_port()).unwrap();
        (node, address)
    }

    /// One tick; returns whether anything was told.
    fn turn(&mut self) -> bool {
        self.ring.flush();
        self.ring.poll(&mut self.events).unwrap();
        self.told.extend(self.events.drain(..));
        !self.told.is_empty()
    }

    /// Hands events to `take` until it breaks. What was told after that is for the next call.
    fn until<T>(&mut self, mut take: impl FnMut(&mut Ring, RingEvent) -> ControlFlow<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            while let Some(event) = self.told.pop_front() {
                if let Break(found) = take(&mut self.ring, event) {
                    return found;
                }
            }
            if !self.turn() {
                assert!(Instant::now() < deadline, "stuck: {:?}", self.ring);
                thread::yield_now();
            }
        }
    }

    /// Ticks until `is_over`; what is told waits.
    fn turn_until(&mut self, mut is_over: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_over() {
            self.turn();
            assert!(Instant::now() < deadline, "stuck: {:?}", self.ring);
            thread::yield_now();
        }
    }

    fn accepted(&mut self) -> ConnectionId {
        self.until(|_, event| match event {
            RingEvent::Accepted(id, _) => Break(id),
            other => panic!("{other:?}"),
        })
    }

    fn closed(&mut self, id: ConnectionId) -> CloseReason {
        self.until(|_, event| match event {
            RingEvent::Closed(closed, why) if closed == id => Break(why),
            _ => Continue(()),
        })
    }

    fn received(&mut self, id: ConnectionId) -> Bytes {
        self.ring.receive(id);
        self.until(|_, event| match event {
            RingEvent::Received(from, bytes) if from == id => Break(bytes),
            other => panic!("{other:?}"),
        })
    }

    /// A connection to a plain socket of this process.
    fn connected(&mut self, address: SocketAddr) -> (ConnectionId, TcpStream) {
        let client = TcpStream::connect(address).unwrap();
        (self.accepted(), client)
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Bytes that differ by `seed` and place.
fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(step).collect()
}

fn in_both_modes(test: impl Fn(bool)) {
    [false, true].into_iter().for_each(test);
}

#[test]
fn every_size_comes_back_whole_on_many_connections() {
    in_both_modes(|is_polled| {
        let (mut server, address) = Node::listening(is_polled);
        let mut client = Node::new(is_polled);
        let sizes = [1, 7, 94, 95, 1000, 65_535, 65_536, 65_537, 300_000, 1 << 20];
        let mut sent = BTreeMap::new();
        for seed in 0..2 * sizes.len() {
            let id = client.ring.connect(address).unwrap();
            let bytes = pattern(seed, sizes[seed % sizes.len()]);
            // Before there is a connection: it goes out once there is.
            client.ring.outgoing(id).unwrap().put(&bytes);
            sent.insert(id, (bytes, Vec::new()));
        }
        let mut left = sent.len();
        let deadline = Instant::now() + DEADLINE;
        while left > 0 {
            server.turn();
            while let Some(event) = server.told.pop_front() {
                match event {
                    RingEvent::Accepted(id, _) => server.ring.receive(id),
                    RingEvent::Received(id, bytes) => {
                        server.ring.outgoing(id).unwrap().put_payload(&Payload::from(bytes));
                        server.ring.receive(id);
                    }
                    RingEvent::Sent(..) | RingEvent::SentPart(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            client.turn();
            while let Some(event) = client.told.pop_front() {
                match event {
                    RingEvent::Connected(id) => client.ring.receive(id),
                    RingEvent::Received(id, bytes) => {
                        let (sent, back) = sent.get_mut(&id).unwrap();
                        back.extend_from_slice(&bytes);
                        if back.len() < sent.len() {
                            client.ring.receive(id);
                        } else {
                            assert!(sent == back, "{} bytes came back changed", sent.len());
                            left -= 1;
                        }
                    }
                    RingEvent::Sent(id, bytes) => assert_eq!(bytes, sent[&id].0.len()),
                    RingEvent::SentPart(id) => assert!(client.ring.unsent_bytes(id) > 0),
                    other => panic!("{other:?}"),
                }
            }
            assert!(Instant::now() < deadline, "stuck: {:?} {:?}", server.ring, client.ring);
        }
        let (server, client) = (server.ring.counters(), client.ring.counters());
        assert_eq!((server.accepted, client.connected), (sent.len() as u64, sent.len() as u64));
        assert_eq!(client.received_bytes, client.sent_bytes);
        assert_eq!(server.received_bytes, server.sent_bytes);
        assert_eq!(client.sends, sent.len() as u64);
    });
}

#[test]
fn more_pieces_than_one_send_takes_arrive_in_order() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        let payloads: Vec<_> = (0..3000).map(|seed| pattern(seed, 100 + seed % 7)).collect();
        let outgoing = node.ring.outgoing(id).unwrap();
        let mut expected = Vec::new();
        for (place, payload) in payloads.iter().enumerate() {
            let head = pattern(place, place % 5);
            outgoing.put(&head);
            outgoing.put_payload(&Payload::copy(payload));
            expected.extend([head, payload.clone()].concat());
        }
        assert!(outgoing.pieces().count() > 5000);
        let reader = thread::spawn(move || {
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            got
        });
        let sent = node.until(|_, event| match event {
            RingEvent::Sent(_, bytes) => Break(bytes),
            RingEvent::SentPart(_) => Continue(()),
            other => panic!("{other:?}"),
        });
        assert_eq!(sent, expected.len());
        assert_eq!((node.ring.counters().sends, node.ring.counters().sent_bytes), (1, sent as u64));
        node.ring.close(id);
        node.turn_until(|| reader.is_finished());
        assert!(reader.join().unwrap() == expected, "changed on the way");
    });
}

#[test]
fn a_slow_reader_gets_everything_before_anything_newer() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        rustix::net::sockopt::set_socket_recv_buffer_size(&client, 128 << 10).unwrap();
        let expected = [pattern(1, 8 << 20), pattern(2, 1 << 20), pattern(3, 10)].concat();
        let mut parts = VecDeque::from([&expected[..8 << 20], &expected[8 << 20..9 << 20]]);
        parts.push_back(&expected[9 << 20..]);
        let whole = expected.len();
        let reader = thread::spawn(move || {
            let (mut got, mut piece) = (Vec::new(), [0; 10_000]);
            while got.len() < whole {
                let bytes = client.read(&mut piece).unwrap();
                got.extend_from_slice(&piece[..bytes]);
                thread::yield_now();
            }
            got
        });
        let first = Payload::copy(parts.pop_front().unwrap());
        node.ring.outgoing(id).unwrap().put_payload(&first);
        node.ring.flush();
        // While the first is under way, the others are appended behind it and go out together.
        for part in parts {
            node.ring.outgoing(id).unwrap().put(part);
            node.ring.flush();
        }
        let mut unsent = node.ring.unsent_bytes(id);
        assert_eq!(unsent, whole);
        for (expected, left) in [(8 << 20, (1 << 20) + 10), ((1 << 20) + 10, 0)] {
            let mut parts = 0;
            node.until(|ring, event| match event {
                RingEvent::SentPart(id) => {
                    let before = std::mem::replace(&mut unsent, ring.unsent_bytes(id));
                    assert!(unsent < before, "{unsent} of {before} bytes are left");
                    parts += 1;
                    Continue(())
                }
                RingEvent::Sent(_, bytes) => {
                    assert_eq!(bytes, expected);
                    Break(())
                }
                other => panic!("{other:?}"),
            });
            unsent = node.ring.unsent_bytes(id);
            assert_eq!(unsent, left);
            assert!(parts >= expected >> 20, "that it came forward was told {parts} times");
        }
        assert_eq!(node.ring.counters().sends, 2);
        assert!(reader.join().unwrap() == expected, "changed on the way");
    });
}

#[test]
fn a_flush_is_one_send_a_connection_and_one_system_call() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let clients: Vec<_> = (0..8).map(|_| node.connected(address)).collect();
        node.turn();
        let before = node.ring.counters();
        for (id, _) in &clients {
            for frame in 0..10 {
                node.ring.outgoing(*id).unwrap().put(&[frame; 10]);
            }
            node.ring.receive(*id);
        }
        node.ring.flush();
        node.ring.flush();
        let after = node.ring.counters();
        assert_eq!((after.sends - before.sends, after.enters - before.enters), (8, 1));
        for (_, mut client) in clients {
            client.read_exact(&mut [0; 100]).unwrap();
        }
    });
}

#[test]
fn an_idle_poll_makes_no_system_call() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, _client) = node.connected(address);
        node.ring.receive(id);
        node.turn();
        let before = node.ring.counters().enters;
        (0..1000).for_each(|_| assert!(!node.turn()));
        assert_eq!(node.ring.counters().enters, before);
    });
}

#[test]
fn a_steady_echo_uses_the_same_buffer() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        let mut places = BTreeSet::new();
        for _ in 0..1000 {
            client.write_all(&[7; 500]).unwrap();
            let mut bytes = 0;
            while bytes < 500 {
                let received = node.received(id);
                places.insert(received.as_ptr().addr());
                bytes += received.len();
            }
        }
        assert_eq!((places.len(), node.ring.counters().receive_buffers), (1, 1));
    });
}

#[test]
fn a_call_to_a_closed_port_is_refused() {
    in_both_modes(|is_polled| {
        let address = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
        let mut node = Node::new(is_polled);
        let id = node.ring.connect(address).unwrap();
        assert!(node.ring.release(id).is_none(), "there is nothing to give away yet");
        let refused = CloseReason::ConnectFailed(io::ErrorKind::ConnectionRefused);
        assert_eq!(node.closed(id), refused);
        assert!(node.ring.outgoing(id).is_none());
    });
}

#[test]
fn a_connection_that_is_not_accepted_is_given_up() {
    in_both_modes(|is_polled| {
        // With the backlog full, the kernel leaves further connections without an answer.
        let listener = TcpListener::bind(any_port()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let mut node = Node::new(is_polled);
        let address = listener.local_addr().unwrap();
        let ids: BTreeSet<_> = (0..4).map(|_| node.ring.connect(address).unwrap()).collect();
        let last = node.until(|_, event| match event {
            RingEvent::Closed(id, why) => Break((id, why)),
            _ => Continue(()),
        });
        assert!(ids.contains(&last.0));
        assert_eq!(last.1, CloseReason::ConnectFailed(io::ErrorKind::TimedOut));
    });
}

#[test]
fn a_peer_that_leaves_half_way_is_heard_to_the_end() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        client.write_all(b"half a mess").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(node.received(id), &b"half a mess"[..]);
        node.ring.receive(id);
        assert_eq!(node.closed(id), CloseReason::PeerClosed);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "closed on our side too");

        let (id, client) = node.connected(address);
        node.ring.receive(id);
        node.turn();
        let at_once = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(&client, at_once).unwrap();
        drop(client);
        let reset = CloseReason::Failed(io::ErrorKind::ConnectionReset);
        assert_eq!(node.closed(id), reset);
        // Nothing can be sent there, and that raises no signal.
        assert!(node.ring.outgoing(id).is_none());
    });
}

#[test]
fn sending_to_a_peer_that_is_gone_is_no_signal() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, client) = node.connected(address);
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
        let why = loop {
            let Some(outgoing) = node.ring.outgoing(id) else { panic!("closed untold") };
            outgoing.put(&[7; 1000]);
            node.turn();
            let closed = node.told.drain(..).find_map(|event| match event {
                RingEvent::Closed(_, why) => Some(why),
                _ => None,
            });
            if let Some(why) = closed {
                break why;
            }
        };
        assert!(matches!(why, CloseReason::Failed(_)), "{why:?}");
    });
}

#[test]
fn closing_cancels_what_is_in_flight_and_then_frees_it() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        let payload = Bytes::from(pattern(0, 64 << 20));
        node.ring.outgoing(id).unwrap().put_payload(&Payload::from(payload.clone()));
        node.ring.receive(id);
        node.turn();
        assert!(!payload.is_unique(), "it is on its way");
        node.told.clear(); // that a part has gone
        node.ring.close(id);
        assert!(node.ring.outgoing(id).is_none());
        node.turn_until(|| payload.is_unique());
        let left = thread::spawn(move || {
            let mut got = Vec::new();
            let ended = client.read_to_end(&mut got);
            assert!(got.len() < 64 << 20, "it was cut off");
            ended
        });
        node.turn_until(|| left.is_finished());
        drop(left.join().unwrap()); // an end or a reset
        assert_eq!(node.told.pop_front(), None, "nothing is told of what we closed");
        assert_eq!(node.ring.counters().closed, 1);
    });
}

#[test]
fn a_name_is_never_used_again() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let mut names = BTreeSet::new();
        for _ in 0..50 {
            let (id, mut client) = node.connected(address);
            assert!(names.insert(id), "{id:?} again");
            node.ring.receive(id);
            node.ring.outgoing(id).unwrap().put(b"not sent");
            node.ring.close(id);
            assert!(node.ring.outgoing(id).is_none());
            assert!(node.ring.release(id).is_none());
            node.ring.receive(id);
            node.ring.close(id);
            node.turn();
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        }
        assert_eq!(node.ring.counters().closed, 50);
    });
}

#[test]
fn a_socket_moves_to_another_core_without_losing_a_byte() {
    in_both_modes(|is_polled| {
        let (mut first, address) = Node::listening(is_polled);
        let client = TcpStream::connect(address).unwrap();
        let expected = pattern(9, 1 << 20);
        let to_send = expected.clone();
        let client = thread::spawn(move || {
            let mut client = client;
            client.write_all(&to_send).unwrap();
            let mut back = [0; 4];
            client.read_exact(&mut back).unwrap();
            back
        });
        let id = first.accepted();
        let mut got = first.received(id).to_vec();
        first.ring.receive(id);
        assert!(first.ring.release(id).is_none(), "a receive is armed");
        first.until(|_, event| match event {
            RingEvent::Received(_, bytes) => {
                got.extend_from_slice(&bytes);
                Break(())
            }
            other => panic!("{other:?}"),
        });
        first.ring.outgoing(id).unwrap().put(b"back");
        assert!(first.ring.release(id).is_none(), "something is to be sent");
        first.until(|_, event| match event {
            RingEvent::Sent(..) => Break(()),
            other => panic!("{other:?}"),
        });
        let socket: OwnedFd = first.ring.release(id).unwrap();
        assert!(first.ring.outgoing(id).is_none());
        let whole = expected.len();
        let second = thread::spawn(move || {
            let mut second = Node::new(is_polled);
            let id = second.ring.adopt(socket).unwrap();
            while got.len() < whole {
                got.extend_from_slice(&second.received(id));
            }
            second.ring.receive(id);
            assert_eq!(second.closed(id), CloseReason::PeerClosed);
            got
        });
        assert_eq!(&client.join().unwrap(), b"back");
        assert!(second.join().unwrap() == expected, "changed on the way");
    });
}

#[test]
fn a_ring_dropped_with_everything_in_flight_waits_for_the_kernel() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let (id, mut client) = node.connected(address);
        let silent = TcpListener::bind(any_port()).unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        for _ in 0..4 {
            node.ring.connect(silent.local_addr().unwrap()).unwrap();
        }
        let payload = Bytes::from(pattern(0, 64 << 20));
        node.ring.outgoing(id).unwrap().put_payload(&Payload::from(payload.clone()));
        node.ring.receive(id);
        node.turn();
        assert!(!payload.is_unique(), "it is on its way");
        // Accepted by the kernel, but not yet taken by us.
        let mut unseen = TcpStream::connect(address).unwrap();
        let started = Instant::now();
        drop(node);
        assert!(started.elapsed() < Duration::from_millis(900), "something was given up");
        assert!(payload.is_unique(), "something was leaked");
        for client in [&mut client, &mut unseen] {
            client.set_read_timeout(Some(DEADLINE)).unwrap();
            let ended = io::copy(client, &mut io::sink());
            assert!(!matches!(&ended, Err(e) if e.kind() == io::ErrorKind::WouldBlock), "open");
        }
        assert!(TcpStream::connect(address).is_err(), "it listens no more");
    });
}

#[test]
fn a_sleeping_core_is_woken_by_connections_pieces_and_ends() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        let is_asleep = Arc::new(AtomicBool::new(false));
        let is_it_asleep = Arc::clone(&is_asleep);
        let client = thread::spawn(move || {
            let mut client = TcpStream::connect(address).unwrap();
            for round in 0..2000_u32 {
                // Now and then just as it falls asleep.
                while round % 3 == 0 && !is_it_asleep.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
                client.write_all(&round.to_ne_bytes()).unwrap();
                let mut back = [0; 4];
                client.read_exact(&mut back).unwrap();
                assert_eq!(u32::from_ne_bytes(back), round);
            }
        });
        let mut is_over = false;
        while !is_over {
            if !node.turn() {
                is_asleep.store(true, Ordering::SeqCst);
                let began = Instant::now();
                node.ring.sleep(DEADLINE).unwrap();
                assert!(began.elapsed() < DEADLINE, "it was not woken");
                is_asleep.store(false, Ordering::SeqCst);
            }
            while let Some(event) = node.told.pop_front() {
                match event {
                    RingEvent::Accepted(id, _) => node.ring.receive(id),
                    RingEvent::Received(id, bytes) => {
                        node.ring.outgoing(id).unwrap().put(&bytes);
                        node.ring.receive(id);
                    }
                    RingEvent::Sent(..) | RingEvent::SentPart(_) => {}
                    RingEvent::Closed(..) => is_over = true,
                    RingEvent::Connected(id) => panic!("connected, {id:?}"),
                }
            }
        }
        client.join().unwrap();
    });
}

#[test]
fn an_alarm_ends_a_sleep_each_time_it_rings() {
    in_both_modes(|is_polled| {
        let (mut node, _) = Node::listening(is_polled);
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        node.ring.set_alarm(eventfd.try_clone().unwrap());
        let (asleep, rung) = std::sync::mpsc::channel();
        let ringer = thread::spawn(move || {
            // Sometimes before it sleeps, sometimes after.
            for () in rung {
                rustix::io::write(&eventfd, &1_u64.to_ne_bytes()).unwrap();
            }
        });
        for _ in 0..200 {
            asleep.send(()).unwrap();
            let began = Instant::now();
            node.ring.sleep(DEADLINE).unwrap();
            assert!(began.elapsed() < DEADLINE, "the alarm was not heard");
            node.turn();
        }
        drop(asleep);
        ringer.join().unwrap();
    });
}

#[test]
fn a_sleep_ends_when_its_time_has_passed_or_something_was_there_before() {
    in_both_modes(|is_polled| {
        let (mut node, address) = Node::listening(is_polled);
        node.ring.sleep(Duration::from_millis(5)).unwrap();
        let (id, mut client) = node.connected(address);
        node.ring.receive(id);
        node.turn();
        client.write_all(b"ping").unwrap();
        let began = Instant::now();
        node.ring.sleep(DEADLINE).unwrap();
        assert!(began.elapsed() < DEADLINE, "what had come before was not seen");
        node.until(|_, event| match event {
            RingEvent::Received(..) => Break(()),
            other => panic!("{other:?}"),
        });
    });
}

#[test]
fn a_hundred_connections_on_a_ring_of_four_entries_lose_nothing() {
    in_both_modes(|is_polled| {
        let options = RingOptions { entries: 4, receive_bytes: 4096, is_polled };
        let mut node = Node::with(&options);
        let address = node.ring.listen(any_port()).unwrap();
        let mut clients: BTreeMap<_, _> = (0..100)
            .map(|_| {
                let client = TcpStream::connect(address).unwrap();
                (client.local_addr().unwrap(), client)
            })
            .collect();
        let mut ids = BTreeMap::new();
        while ids.len() < clients.len() {
            node.until(|_, event| match event {
                RingEvent::Accepted(id, peer) => Break(ids.insert(id, peer)),
                other => panic!("{other:?}"),
            });
        }
        for _ in 0..20 {
            ids.keys().for_each(|id| node.ring.receive(*id));
            node.ring.flush();
            for client in clients.values_mut() {
                client.write_all(b"ping").unwrap();
            }
            // More has completed than the queue of completions holds.
            let mut waiting: BTreeSet<_> = ids.keys().copied().collect();
            while !waiting.is_empty() {
                node.until(|ring, event| match event {
                    RingEvent::Received(id, bytes) => {
                        assert!(waiting.remove(&id), "{id:?} was not armed");
                        ring.outgoing(id).unwrap().put(&bytes);
                        Break(())
                    }
                    RingEvent::Sent(..) | RingEvent::SentPart(_) => Continue(()),
                    other => panic!("{other:?}"),
                });
            }
            node.ring.flush();
            for client in clients.values_mut() {
                client.read_exact(&mut [0; 4]).unwrap();
            }
        }
        assert_eq!((node.ring.counters().receives, node.ring.counters().accepted), (2000, 100));
    });
}

#[test]
fn both_families_of_addresses_are_accepted_and_connected() {
    in_both_modes(|is_polled| {
        for at in [any_port(), (Ipv6Addr::LOCALHOST, 0).into()] {
            let mut node = Node::new(is_polled);
            let Ok(address) = node.ring.listen(at) else { continue }; // a machine without IPv6
            let id = node.ring.connect(address).unwrap();
            let (mut peer, mut connected) = (None, None);
            while peer.is_none() || connected.is_none() {
                match node.until(|_, event| Break(event)) {
                    RingEvent::Accepted(_, from) => peer = Some(from.ip()),
                    RingEvent::Connected(to) => connected = Some(to),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!((peer, connected), (Some(at.ip()), Some(id)));
            assert!(node.ring.listen(address).is_err(), "that port is taken");
        }
    });
}

/// Tells the child process of the next test that it is one.
const SHORT_OF_DESCRIPTORS: &str = "LOGGOS_TEST_SHORT_OF_DESCRIPTORS";

#[test]
fn a_listener_short_of_descriptors_accepts_again_when_there_are_some() {
    if std::env::var_os(SHORT_OF_DESCRIPTORS).is_none() {
        // The limit is one of the process: alone in another, it disturbs no other test.
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "a_listener_short_of_descriptors_accepts_again_when_there_are_some"]);
        assert!(child.env(SHORT_OF_DESCRIPTORS, "1").status().unwrap().success());
        return;
    }
    in_both_modes(|is_polled| {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let (mut node, address) = Node::listening(is_polled);
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
        let mut others: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        others.pop();
        let mut client = TcpStream::connect(address).unwrap(); // with the last descriptor
        let pause = Instant::now() + Duration::from_millis(250);
        node.turn_until(|| Instant::now() > pause);
        assert!(node.told.is_empty(), "accepted without a descriptor");
        assert!(node.ring.counters().enters < 20, "it asks for ever");
        others.truncate(10);
        let id = node.accepted();
        node.ring.outgoing(id).unwrap().put(b"hello");
        node.turn();
        client.read_exact(&mut [0; 5]).unwrap();
        setrlimit(Resource::Nofile, limit).unwrap();
    });
}

/// What a log writes: whole blocks.
fn blocks(count: usize, byte: u8) -> AlignedBytes {
    let mut bytes = AlignedBytes::new();
    bytes.resize(count * 4096, byte);
    bytes
}

/// Waits for a write to end; returns where it went, how it ended and how much memory comes back.
fn written(node: &mut Node) -> (RingFile, Result<(), io::ErrorKind>, usize) {
    let deadline = Instant::now() + DEADLINE;
    let Written { file, bytes, outcome } = loop {
        node.turn();
        if let Some(written) = node.ring.next_written() {
            break written;
        }
        assert!(Instant::now() < deadline, "stuck: {:?}", node.ring);
        thread::yield_now();
    };
    assert!(node.ring.next_written().is_none(), "it is told once");
    (file, outcome, bytes.len())
}

#[test]
fn r31_what_is_told_as_written_is_in_the_file_and_its_memory_comes_back() {
    for is_polled in [false, true] {
        let mut file = tempfile::tempfile().unwrap();
        let mut node = Node::new(is_polled);
        let to = node.ring.add_file(file.try_clone().unwrap().into());
        node.ring.write(to, 4096, blocks(3, 7));
        assert!(node.ring.next_written().is_none(), "the kernel has it");
        assert_eq!(written(&mut node), (to, Ok(()), 3 * 4096));
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, [vec![0; 4096], vec![7; 3 * 4096]].concat());
        assert_eq!((node.ring.counters().syncs, node.ring.counters().synced_bytes), (1, 3 * 4096));
    }
}

#[test]
fn r34_a_write_that_fails_is_told_as_that() {
    for is_polled in [false, true] {
        let mut node = Node::new(is_polled);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let to = node.ring.add_file(full.into());
        node.ring.write(to, 0, blocks(1, 7));
        assert_eq!(written(&mut node), (to, Err(io::ErrorKind::StorageFull), 4096));
        assert_eq!(node.ring.counters().syncs, 0);
    }
}

#[test]
fn r31_a_recorder_hears_of_sends_and_writes_in_their_order() {
    let (mut node, address) = Node::listening(true);
    let (recorder, recorded) = std::sync::mpsc::channel();
    node.ring.set_recorder(recorder);
    let file = node.ring.add_file(tempfile::tempfile().unwrap().into());
    let _client = TcpStream::connect(address).unwrap();
    let to = node.until(|_, event| match event {
        RingEvent::Accepted(id, _) => Break(id),
        other => panic!("{other:?}"),
    });
    node.ring.write(file, 0, blocks(2, 1));
    assert_eq!(written(&mut node), (file, Ok(()), 2 * 4096));
    node.ring.outgoing(to).unwrap().put(b"synced");
    node.ring.flush();
    let expected = [
        RingRecord::Write { file, offset: 0, bytes: 8192 },
        RingRecord::Written { file, is_durable: true },
        RingRecord::Send(to, b"synced".to_vec()),
    ];
    assert_eq!(recorded.try_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_sleep_ends_with_a_write() {
    for is_polled in [false, true] {
        let mut node = Node::new(is_polled);
        let to = node.ring.add_file(tempfile::tempfile().unwrap().into());
        let started = Instant::now();
        node.ring.write(to, 0, blocks(1, 7));
        node.ring.sleep(DEADLINE).unwrap();
        assert_eq!(written(&mut node), (to, Ok(()), 4096));
        assert!(started.elapsed() < DEADLINE, "it has slept through it");
    }
}
