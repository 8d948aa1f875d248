//! What an unknown sender can do to a node: nothing. A connection that sends what it may not is
//! closed or refused, and counted; a client that is connected meanwhile gets all its answers, and
//! all are right.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod harness;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::{
    DEADLINE, Nodes, PEER, Spread, Stranger, bytes_of, command, commands, frame, hello, increment,
    kv, seal, session,
};
use loggos::kv::{Answer, Command};
use loggos::{ClusterSettings, Settings};
use loggos_net::wire::{
    self, HEAD_BYTES, Hello, Kind, LogPosition, Message, Purpose, Reason, Refusal, RepliesWriter,
    Welcome,
};
use loggos_protocol::{
    AcceptorId, Ask, Ballot, Batch, BatchId, DirectoryId, Envelope, Executed, Failure, Fetch,
    Fetched, FillTo, Form, FormationId, Formed, GatewayId, HeartbeatAck, Identify, Incarnation,
    Listener, Nack, Need, NotExecuted, NotLeader, P1a, P1b, P2a, P2b, Payload, Position, PreRead,
    PreReadAck, PreVote, PreVoteAck, Probe, ProbeAck, Propose, ProposerId, ProxyLeaderId, Read,
    ReadResults, Rememberer, Replay, Replayed, ReplicaId, Results, Rng, Slot, Table, Time, To,
    ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica, Truncated, Value, Watcher,
    Watermark,
};

/// How long a node waits for a hello.
const GREETING_MAX: Duration = Duration::from_secs(5);
/// What a process may grow by under an attack that would take gigabytes.
const GROWTH_MAX: u64 = 512 << 20;

/// Tests that need much memory or many descriptors have this process to themselves, among their
/// like.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::new(());
    HEAVY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// A hello as a client sends it, of no cluster in particular.
fn client_hello() -> Hello {
    Hello::of_client(String::new(), Purpose::Client, 1)
}

/// Says each of `words` over a connection of its own; all are closed without an answer, and
/// counted.
fn all_are_closed(nodes: &Nodes, node: usize, words: &[(String, Vec<u8>)]) {
    let (malformed, refused) = nodes.counts(node);
    for (what, bytes) in words {
        let mut stranger = Stranger::connect(nodes.address(node));
        stranger.say(bytes);
        stranger.is_closed(what);
    }
    nodes.wait_for_counts(node, malformed + words.len() as u64, refused);
}

fn named(words: impl IntoIterator<Item = (&'static str, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    words.into_iter().map(|(what, bytes)| (what.to_owned(), bytes)).collect()
}

/// A head alone, with what stands in some of its places.
fn head(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut head = hello(&client_hello())[..HEAD_BYTES].to_vec();
    for (at, bytes) in changes {
        head[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    head
}

#[test]
fn what_is_no_frame_is_closed() {
    let nodes = Nodes::start(Spread::OneCore);
    let mut rng = Rng::new(7);
    let mut words = named([
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl\r\n\r\n".to_vec()),
        ("TLS", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], &[0x5A; 506]].concat()),
        ("SSH", b"SSH-2.0-OpenSSH_9.6 and so on\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("ones", vec![0xFF; 4096]),
    ]);
    for length in [HEAD_BYTES, 100, 1000, 100_000] {
        for nth in 0..10 {
            // All begin with a length that the node may take: more than the first word is looked
            // at.
            let mut noise: Vec<u8> = (0..length).map(|_| rng.below(256).to_le_bytes()[0]).collect();
            if nth % 2 == 0 {
                noise[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            }
            words.push((format!("noise {nth} of {length} bytes"), noise));
        }
    }
    all_are_closed(&nodes, 0, &words);
    nodes.stop();
}

/// None of them is followed by what it claims: the node does not wait for it.
#[test]
fn a_head_that_is_wrong_is_enough_to_be_closed() {
    let nodes = Nodes::start(Spread::OneCore);
    // The longest command, and room for its header.
    let above = nodes.config.cluster.command_bytes_max + 4096 + 1;
    let started = Instant::now();
    let words = named([
        ("4 GiB", head(&[(4, &u32::MAX.to_le_bytes())])),
        ("4 GiB, all of it header", head(&[(4, &[0xFF; 4]), (12, &[0xFF; 4])])),
        ("a byte above the limit", head(&[(4, &above.to_le_bytes())])),
        ("a length below the head's", head(&[(4, &15_u32.to_le_bytes())])),
        ("no length", head(&[(4, &[0; 4])])),
        ("a header longer than the frame", head(&[(12, &1000_u32.to_le_bytes())])),
        ("spare bytes that are used", head(&[(10, &[0, 1])])),
        ("kind 0", head(&[(9, &[0])])),
        ("an unknown kind", head(&[(9, &[0x6F])])),
        ("another version's command", head(&[(8, &[2]), (9, &[Kind::Commands.number()])])),
        ("another version's unknown kind", head(&[(8, &[200, 0xEE])])),
    ]);
    all_are_closed(&nodes, 0, &words);
    // As a client that was welcomed: the same.
    for (what, bytes) in &words {
        let (mut stranger, _) = nodes.admitted(0, Purpose::Client);
        stranger.say(bytes);
        stranger.is_closed(what);
    }
    nodes.wait_for_counts(0, 2 * words.len() as u64, 0);
    assert!(started.elapsed() < DEADLINE, "it waits for what does not come");
    nodes.stop();
}

#[test]
fn no_byte_of_a_hello_may_be_another() {
    let nodes = Nodes::start(Spread::OneCore);
    let right = hello(&nodes.hello(Purpose::Client));
    let flipped = (0..right.len()).map(|at| {
        let mut hello = right.clone();
        hello[at] ^= 1 << (at % 8);
        (format!("a hello whose byte {at} was damaged"), hello)
    });
    all_are_closed(&nodes, 0, &flipped.collect::<Vec<_>>());
    nodes.stop();
}

#[test]
fn a_hello_that_is_sealed_but_wrong_is_closed() {
    let nodes = Nodes::start(Spread::OneCore);
    let right = hello(&client_hello());
    let header = &right[HEAD_BYTES..];
    let kind = Kind::Hello.number();
    let changed = |at: usize, byte: u8| {
        let mut hello = right.clone();
        hello[HEAD_BYTES + at] = byte;
        seal(&mut hello);
        hello
    };
    let words = named([
        ("no header", frame(kind, &[], &[])),
        ("a header too short", frame(kind, &header[..header.len() - 1], &[])),
        ("a header too long", frame(kind, &[header, &[0]].concat(), &[])),
        ("bytes behind the header", frame(kind, header, &[0])),
        ("another magic", changed(0, b'l')),
        ("no purpose", changed(16 + 50, 0)),
        ("an unknown purpose", changed(16 + 50, 4)),
        ("a client with a path", changed(16 + 51, 1)),
        ("a client with a log", changed(16 + 25, 1)),
        ("a log that is absent, yet not zero", changed(16 + 26, 1)),
        ("a formation that is there by half", changed(16 + 8, 2)),
        ("a formation that is absent, yet not zero", changed(16 + 9, 1)),
        ("a name longer than its place", changed(16 + 55, 65)),
        ("a name longer than said", changed(16 + 56, b'a')),
    ]);
    all_are_closed(&nodes, 0, &words);
    let mut not_utf8 = right.clone();
    (not_utf8[HEAD_BYTES + 71], not_utf8[HEAD_BYTES + 72]) = (1, 0xFF);
    seal(&mut not_utf8);
    all_are_closed(&nodes, 0, &named([("a name that is no text", not_utf8)]));
    nodes.stop();
}

#[test]
fn any_frame_before_a_hello_closes_the_connection() {
    let nodes = Nodes::start(Spread::OneCore);
    let envelope = Envelope { formation: None, to: fetch() };
    let mut words = other_words();
    words.extend(named([
        ("a command", command(0, &increment(b"strangers"))),
        ("a wish for a session", session(None, 1)),
        ("a question for the status", bytes_of(wire::encode_status_request)),
        ("an envelope", bytes_of(|out| wire::encode(&envelope, out))),
    ]));
    all_are_closed(&nodes, 0, &words);
    nodes.stop();
}

/// Frames that no sender may send to a node, at any time.
fn other_words() -> Vec<(String, Vec<u8>)> {
    let welcome = Welcome {
        version: wire::WIRE_VERSION,
        nonce: 1,
        formation: None,
        log: None,
        commands_in_flight_max: 1,
        command_bytes_max: 1,
    };
    let refusal = Refusal { reason: Reason::Busy, text: "no".to_owned() };
    let position = Position { slot: Slot(1), index: 0 };
    named([
        ("a welcome", bytes_of(|out| wire::encode_welcome(&welcome, out))),
        ("a refusal", bytes_of(|out| wire::encode_refusal(&refusal, out))),
        (
            "a reply",
            bytes_of(|out| {
                let mut replies = RepliesWriter::default();
                replies.put(1, position, b"reply", out);
                replies.end(out);
            }),
        ),
        ("a failure", bytes_of(|out| wire::encode_failed(1, &Failure::Busy, out))),
        ("a status", bytes_of(|out| wire::encode_status(b"{}", out))),
    ])
}

#[test]
fn a_message_that_another_kind_of_sender_may_send_closes_the_connection() {
    let nodes = Nodes::start(Spread::OneCore);
    let envelope = Envelope { formation: None, to: fetch() };
    let envelope = ("an envelope", bytes_of(|out| wire::encode(&envelope, out)));
    let question = ("a question for the status", bytes_of(wire::encode_status_request));
    let order = ("a command", command(0, &increment(b"strangers")));
    let wish = ("a wish for a session", session(None, 1));
    for (purpose, forbidden) in [
        // Without a session it has no commands.
        (Purpose::Client, vec![envelope.clone(), order.clone()]),
        (PEER, vec![order.clone(), wish.clone(), question]),
        (Purpose::Status, vec![order, wish, envelope]),
    ] {
        let mut words = other_words();
        words.extend(named(forbidden));
        for again in [Purpose::Client, PEER, Purpose::Status] {
            words.push((format!("a hello as {again:?}"), hello(&nodes.hello(again))));
        }
        let (malformed, refused) = nodes.counts(0);
        for (what, bytes) in &words {
            let (mut stranger, _) = nodes.admitted(0, purpose);
            stranger.say(bytes);
            stranger.is_closed(&format!("{purpose:?} who says {what}"));
        }
        nodes.wait_for_counts(0, malformed + words.len() as u64, refused);
    }
    let get = kv(&Command::Get { key: b"strangers" });
    let (mut client, _) = nodes.client(0);
    client.say(&command(0, &get));
    let (_, reply) = client.result();
    assert_eq!(Answer::decode(&reply.unwrap()).unwrap(), Answer::Missing, "a command was executed");
    nodes.stop();
}

/// Says `hello`, and is refused for that reason in words that name it; nothing else is counted.
fn is_refused(nodes: &Nodes, node: usize, hello: &[u8], reason: Reason, word: &str) {
    let (malformed, refused) = nodes.counts(node);
    let mut stranger = Stranger::connect(nodes.address(node));
    stranger.say(hello);
    match stranger.hear() {
        Some(Message::Refusal(refusal)) => {
            assert_eq!(refusal.reason, reason, "{refusal:?}");
            assert!(refusal.text.contains(word), "{refusal:?} does not name {word}");
        }
        other => panic!("{reason:?} was to be told, not {other:?}"),
    }
    stranger.is_closed("a refused hello");
    nodes.wait_for_counts(node, malformed, refused + 1);
}

#[test]
fn a_node_of_another_cluster_is_refused_with_the_reason() {
    let nodes = Nodes::start(Spread::OneCore);
    let right = nodes.hello(PEER);
    let refused =
        |hello_is: Hello, reason, word| is_refused(&nodes, 0, &hello(&hello_is), reason, word);
    let name = |name: &str| Hello { cluster_name: name.to_owned(), ..right.clone() };
    refused(name("another"), Reason::Cluster, "`another`");
    refused(name(""), Reason::Cluster, "cluster");
    refused(Hello { purpose: Purpose::Client, ..name("another") }, Reason::Cluster, "`another`");
    refused(Hello { purpose: Purpose::Status, ..name("another") }, Reason::Cluster, "`another`");
    let cluster_digest = right.cluster_digest ^ 1;
    refused(Hello { cluster_digest, ..right.clone() }, Reason::Digest, "configurations");
    let formation = Some(FormationId(12345));
    refused(Hello { formation, ..right.clone() }, Reason::Formation, "formation");
    refused(
        Hello { formation, purpose: Purpose::Client, ..right.clone() },
        Reason::Formation,
        "formation",
    );
    let wire_digest = right.wire_digest ^ 1;
    refused(Hello { wire_digest, ..right.clone() }, Reason::Wire, "build");
    nodes.stop();
}

/// By hello or later; what others tell of their own logs changes nothing.
#[test]
fn r33_a_peer_whose_log_is_an_older_copy_is_refused_whenever_it_says_so() {
    let nodes = Nodes::start(Spread::OneCore);
    let log = |recovered, synced| LogPosition { directory: DirectoryId(7), recovered, synced };
    let as_peer = |nonce, log| hello(&Hello { nonce, log, ..nodes.hello(PEER) });
    let is_admitted = |nonce, log| {
        let mut stranger = Stranger::connect(nodes.address(0));
        stranger.say(&as_peer(nonce, log));
        let said = stranger.hear();
        assert!(matches!(said, Some(Message::Welcome(_))), "{said:?}");
        stranger
    };
    let mut first = is_admitted(1, Some(log(5, 8)));
    first.say(&bytes_of(|out| wire::encode_log(&log(5, 9), out)));
    drop(is_admitted(1, Some(log(5, 6))));
    is_refused(&nodes, 0, &as_peer(2, Some(log(8, 20))), Reason::Older, "batch 9");
    drop(is_admitted(2, None));
    drop(is_admitted(3, Some(LogPosition { directory: DirectoryId(8), ..log(1, 1) })));
    let mut later = is_admitted(4, None);
    later.say(&bytes_of(|out| wire::encode_log(&log(8, 20), out)));
    let said = later.hear();
    assert!(matches!(&said, Some(Message::Refusal(it)) if it.reason == Reason::Older), "{said:?}");
    later.is_closed("a log of an older copy");
    drop(is_admitted(5, Some(log(9, 9))));
    nodes.stop();
}

#[test]
fn a_hello_for_another_node_is_refused() {
    let nodes = Nodes::start(Spread::OneCore);
    let path = |to_node, to_core| {
        let purpose = Purpose::Peer { from_node: 1, from_core: 0, to_node, to_core };
        hello(&nodes.hello(purpose))
    };
    is_refused(&nodes, 0, &path(1, 0), Reason::Node, "not the node 1");
    is_refused(&nodes, 0, &path(255, 0), Reason::Node, "not the node 255");
    nodes.stop();
}

#[test]
fn a_hello_for_a_core_that_is_not_there_is_refused() {
    for spread in [Spread::OneCore, Spread::TwoCores] {
        let nodes = Nodes::start(spread);
        for to_core in [2, 9, 255] {
            let purpose = Purpose::Peer { from_node: 1, from_core: 0, to_node: 0, to_core };
            is_refused(&nodes, 0, &hello(&nodes.hello(purpose)), Reason::Node, "core");
        }
        nodes.stop();
    }
}

#[test]
fn a_client_of_a_node_without_a_gateway_is_refused() {
    let nodes = Nodes::start(Spread::TwoNodes);
    is_refused(&nodes, 1, &hello(&client_hello()), Reason::Node, "gateway");
    nodes.stop();
}

#[test]
fn a_hello_of_other_versions_is_told_so() {
    let nodes = Nodes::start(Spread::OneCore);
    for versions in [(2, 3), (0, 0), (255, 255), (3, 2)] {
        let newer = hello(&Hello { versions, ..client_hello() });
        is_refused(&nodes, 0, &newer, Reason::Version, "version");
    }
    // In its own version, as a process that does not speak ours writes it: only how it begins is
    // certain.
    let mut newer = hello(&Hello { versions: (2, 3), ..client_hello() });
    newer[8] = 2;
    newer.truncate(newer.len() - 40);
    let header_bytes = u32::try_from(newer.len() - HEAD_BYTES).unwrap();
    newer[12..16].copy_from_slice(&header_bytes.to_le_bytes());
    let length = u32::try_from(newer.len()).unwrap();
    newer[4..8].copy_from_slice(&length.to_le_bytes());
    seal(&mut newer);
    is_refused(&nodes, 0, &newer, Reason::Version, "version");
    nodes.stop();
}

#[test]
fn a_hello_of_another_build_that_cannot_be_read_is_told_so() {
    let nodes = Nodes::start(Spread::OneCore);
    let other = hello(&Hello { wire_digest: wire::wire_digest() ^ 1, ..client_hello() });
    let longer = frame(Kind::Hello.number(), &[&other[HEAD_BYTES..], &[0; 8]].concat(), &[]);
    is_refused(&nodes, 0, &longer, Reason::Wire, "build");
    nodes.stop();
}

#[test]
fn a_port_scanner_leaves_no_trace() {
    for spread in [Spread::OneCore, Spread::TwoNodes] {
        let nodes = Nodes::start(spread);
        let at = usize::from(matches!(spread, Spread::TwoNodes));
        for _ in 0..50 {
            drop(Stranger::connect(nodes.address(at)));
        }
        for length in 1..40 {
            let mut stranger = Stranger::connect(nodes.address(at));
            stranger.say(&hello(&client_hello())[..length]);
        }
        assert!(nodes.go_on(), "after connections without a word");
        nodes.wait_for_counts(at, 0, 0);
        nodes.stop();
    }
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    for spread in [Spread::OneCore, Spread::TwoCores] {
        let nodes = Nodes::start(spread);
        let mut client = Stranger::connect(nodes.address(0));
        for byte in hello(&client_hello()) {
            client.say(&[byte]);
            std::thread::sleep(Duration::from_millis(1)); // so that it comes alone
        }
        assert!(matches!(client.hear(), Some(Message::Welcome(_))), "it is not welcomed");
        client.open_session(1);
        for byte in command(0, &increment(b"slow")) {
            client.say(&[byte]);
            std::thread::sleep(Duration::from_millis(1));
        }
        let (number, reply) = client.result();
        let reply = reply.unwrap();
        assert_eq!((number, Answer::decode(&reply).unwrap()), (0, Answer::Number(1)));
        nodes.stop();
    }
}

#[test]
fn a_client_that_does_not_wait_for_its_welcome_is_served_on_whichever_core() {
    for spread in [Spread::OneCore, Spread::TwoCores] {
        let nodes = Nodes::start(spread);
        let mut client = Stranger::connect(nodes.address(0));
        let wishes = [session(None, 1), session(None, 2)];
        let words = [hello(&client_hello()), wishes[0].clone()].concat();
        client.say(&[&words[..], &wishes[1][..20]].concat());
        assert!(matches!(client.hear(), Some(Message::Welcome(_))), "it is not welcomed");
        let Some(Message::Session { session: Some(first), .. }) = client.hear() else {
            panic!("no session")
        };
        client.say(&wishes[1][20..]);
        let said = client.hear();
        let is_another =
            matches!(said, Some(Message::Session { session: Some(second), .. }) if second > first);
        assert!(is_another, "{said:?}");
        client.say(&session(Some(first), 0)); // it may have several, one at a time
        client.say(&command(0, &increment(b"hasty")));
        let (number, reply) = client.result();
        assert_eq!((number, Answer::decode(&reply.unwrap()).unwrap()), (0, Answer::Number(1)));
        nodes.stop();
    }
}

/// At a node that only has a gateway: it is busy all the time, and no timer of its role is ever
/// due.
#[test]
fn half_a_hello_and_then_silence_is_closed_after_the_greeting_time() {
    let nodes = Nodes::start(Spread::TwoNodes);
    let mut silent = Stranger::connect(nodes.address(0));
    let mut half = Stranger::connect(nodes.address(0));
    half.say(&hello(&client_hello())[..60]);
    let started = Instant::now();
    half.is_closed("half a hello");
    silent.is_closed("silence");
    let took = started.elapsed();
    assert!(took > GREETING_MAX / 2, "closed after {took:?}");
    assert!(took < 4 * GREETING_MAX, "closed only after {took:?}");
    nodes.stop();
}

fn fetch() -> To {
    let fetch = Fetch { replica: ReplicaId(0), first: Slot(0) };
    To::Replica(ReplicaId(0), ToReplica::Fetch(fetch))
}

/// Says it as a node of the same cluster and formation; then the connection is ended by nonsense.
fn say_as_peer(nodes: &Nodes, node: u8, to: impl IntoIterator<Item = To>) {
    let purpose = Purpose::Peer { from_node: 9, from_core: 0, to_node: node, to_core: 0 };
    let (mut peer, welcome) = nodes.admitted(usize::from(node), purpose);
    assert!(welcome.formation.is_some(), "it has been served, so it has been formed");
    for to in to {
        let envelope = Envelope { formation: welcome.formation, to };
        peer.say(&bytes_of(|out| wire::encode(&envelope, out)));
    }
    peer.say(&head(&[(9, &[0])]));
    peer.is_closed("nonsense");
}

#[test]
fn envelopes_for_roles_that_are_not_here_go_nowhere() {
    let nodes = Nodes::start(Spread::TwoNodes);
    let ballot = Ballot::default();
    let all_roles = (0..=255_u8).flat_map(|id| {
        let nack = Nack { slot: None, refused: ballot, promised: ballot };
        let pre_vote = PreVote { proposer: ProposerId(0), nonce: 1 };
        let identify = Identify { watcher: Watcher::Proposer(ProposerId(0)), nonce: 1 };
        [
            To::Proposer(ProposerId(id), ToProposer::Nack(nack)),
            To::ProxyLeader(ProxyLeaderId(id), ToProxyLeader::Nack(nack)),
            To::Acceptor(AcceptorId(id), ToAcceptor::PreVote(pre_vote)),
            To::Replica(ReplicaId(id), ToReplica::Identify(identify)),
        ]
    });
    // The first node has but a gateway.
    say_as_peer(&nodes, 0, all_roles);
    assert!(nodes.go_on(), "after envelopes for roles elsewhere");
    let absent = (0..=255_u8).map(|id| {
        let batch = batch_id(0);
        let not_executed = NotExecuted { replica: ReplicaId(0), batch, attempt: 0 };
        To::Gateway(GatewayId(id), ToGateway::NotExecuted(not_executed))
    });
    say_as_peer(&nodes, 1, absent);
    nodes.wait_for_counts(0, 1, 0);
    nodes.wait_for_counts(1, 1, 0);
    nodes.stop();
}

/// Where there is no such role.
const NOBODY: u8 = 200;

fn batch_id(gateway: u8) -> BatchId {
    BatchId { gateway: GatewayId(gateway), incarnation: Incarnation(77), number: 5 }
}

/// A ballot below all that were ever used.
const OLD: Ballot = Ballot { round: 0, proposer: ProposerId(NOBODY), incarnation: Incarnation(1) };
const ACCEPTOR: AcceptorId = AcceptorId(NOBODY);
const REPLICA: ReplicaId = ReplicaId(NOBODY);
const DIRECTORY: DirectoryId = DirectoryId(9);
const LIFE: Incarnation = Incarnation(3);
/// A slot beyond any window.
const FAR: Slot = Slot(1 << 40);
const EXECUTED: Executed = Executed {
    replica: REPLICA,
    incarnation: LIFE,
    executed: Watermark(1 << 30),
    snapshot: Watermark(0),
    nonce: None,
};
const TRUNCATED: Truncated =
    Truncated { acceptor: Some(ACCEPTOR), slot: Slot(0), ballot: OLD, truncated: Watermark(1) };
const NACK: Nack = Nack { slot: Some(Slot(0)), refused: OLD, promised: OLD };
const PROBE: Probe = Probe { proposer: ProposerId(NOBODY), nonce: 1, cluster_digest: 1 };

fn p1b(ballot: Ballot) -> ToProposer {
    let (truncated, from, votes) = (Watermark(0), Slot(0), Vec::new());
    let (acceptor, directory) = (ACCEPTOR, DIRECTORY);
    ToProposer::P1b(Box::new(P1b { acceptor, directory, ballot, truncated, from, to: None, votes }))
}

fn p2b(ballot: Ballot, slot: Slot) -> P2b {
    P2b { acceptor: ACCEPTOR, directory: DIRECTORY, ballot, slot }
}

fn p2a() -> P2a {
    P2a {
        ballot: OLD,
        slot: FAR,
        via: ProxyLeaderId(NOBODY),
        is_recovered: false,
        value: Value::noop(Time(1)),
    }
}

fn table() -> Arc<Table> {
    Arc::new(Table::new(1, [DIRECTORY].into()))
}

fn acks(ballot: Ballot) -> [ToProposer; 3] {
    [
        Listener::Acceptor(ACCEPTOR),
        Listener::ProxyLeader(ProxyLeaderId(NOBODY)),
        Listener::Gateway(GatewayId(NOBODY)),
    ]
    .map(|from| {
        ToProposer::HeartbeatAck(HeartbeatAck { from, ballot, is_low: false, clock: Time(0) })
    })
}

/// To a proposer, of roles that no cluster has. As all that follow, they are well-formed, and move
/// no ballot that is in use and no slot that is to be decided.
fn to_proposer() -> Vec<ToProposer> {
    let (acceptor, replica, directory) = (ACCEPTOR, REPLICA, DIRECTORY);
    let probe_ack = |from| {
        let (nonce, is_blank, table) = (1, false, None);
        ToProposer::ProbeAck(Box::new(ProbeAck {
            from,
            nonce,
            directory,
            is_blank,
            origin: None,
            table,
        }))
    };
    let pre_vote_ack = PreVoteAck {
        acceptor,
        directory,
        nonce: 1,
        is_quiet: true,
        is_low: false,
        promised: OLD,
        votes_end: Watermark(0),
    };
    let batch = Batch {
        id: batch_id(NOBODY),
        attempt: 0,
        answerer: replica,
        commands_count: 0,
        block: Payload::empty(),
        checksum: 0,
    };
    let mut messages = vec![
        probe_ack(Rememberer::Acceptor(acceptor)),
        probe_ack(Rememberer::Replica(replica)),
        ToProposer::Formed(Formed { acceptor, directory, table: table() }),
        ToProposer::FillTo(FillTo { gateway: GatewayId(NOBODY), to: Watermark(1) }),
        ToProposer::FillTo(FillTo { gateway: GatewayId(0), to: FAR.watermark_after() }),
        ToProposer::PreVoteAck(pre_vote_ack),
        p1b(OLD),
        ToProposer::Nack(NACK),
        ToProposer::Propose(Propose { batch: Arc::new(batch), lowest: 0 }),
        ToProposer::Truncated(TRUNCATED),
        ToProposer::Executed(EXECUTED),
        ToProposer::Need(Need { replica, incarnation: LIFE, slot: Slot(0) }),
    ];
    messages.extend(acks(OLD));
    messages
}

fn to_proxy_leader() -> [ToProxyLeader; 4] {
    [
        ToProxyLeader::P2a(p2a()),
        ToProxyLeader::P2b(p2b(OLD, Slot(0))),
        ToProxyLeader::Nack(NACK),
        ToProxyLeader::Truncated(TRUNCATED),
    ]
}

fn to_acceptor() -> [ToAcceptor; 9] {
    let proposer = ProposerId(NOBODY);
    let pre_read = |gateway| {
        let gateway = GatewayId(gateway);
        ToAcceptor::PreRead(PreRead { gateway, incarnation: LIFE, probe: 0 })
    };
    [
        pre_read(NOBODY),
        pre_read(0),
        ToAcceptor::Probe(PROBE),
        ToAcceptor::Form(Form { proposer, table: table() }),
        ToAcceptor::PreVote(PreVote { proposer, nonce: 1 }),
        ToAcceptor::P1a(P1a { ballot: OLD, first: Slot(0), page: Slot(0) }),
        ToAcceptor::P2a(p2a()),
        ToAcceptor::Executed(EXECUTED),
        ToAcceptor::Replay(Replay { replica: REPLICA, first: Slot(0) }),
    ]
}

fn to_replica() -> [ToReplica; 10] {
    let identify = |watcher| ToReplica::Identify(Identify { watcher, nonce: 1 });
    let (acceptor, directory, votes) = (ACCEPTOR, DIRECTORY, Vec::new());
    let replayed =
        Replayed { acceptor, directory, truncated: Watermark(0), from: Slot(0), to: None, votes };
    let (replica, slots) = (REPLICA, Vec::new());
    let fetched = Fetched { replica, first: FAR, slots, executed: Watermark(1 << 41) };
    let ask = Ask { batch: batch_id(NOBODY), attempt: 0, session: None, first: 0, count: 1 };
    let read = |gateway| {
        let queries = Payload::copy(b"no queries");
        let (gateway, incarnation, at_least) = (GatewayId(gateway), LIFE, FAR.watermark_after());
        let read = Read { gateway, incarnation, group: 0, first: u32::MAX, at_least, queries };
        ToReplica::Read(Arc::new(read))
    };
    [
        read(NOBODY),
        read(0),
        ToReplica::Probe(PROBE),
        identify(Watcher::Proposer(ProposerId(NOBODY))),
        identify(Watcher::Acceptor(ACCEPTOR)),
        ToReplica::Fetch(Fetch { replica, first: Slot(0) }),
        ToReplica::Fetched(fetched),
        ToReplica::Ask(ask),
        ToReplica::Truncated(TRUNCATED),
        ToReplica::Replayed(Box::new(replayed)),
    ]
}

fn to_gateway() -> [ToGateway; 5] {
    let (proposer, hint) = (ProposerId(NOBODY), Some(ProposerId(NOBODY)));
    let (replica, batch, attempt) = (REPLICA, batch_id(0), 0);
    let (slot, outcomes) = (Slot(0), Payload::empty());
    let results = ReadResults {
        replica,
        incarnation: LIFE,
        group: 0,
        first: 0,
        executed: Watermark(0),
        replies: Payload::copy(b"no replies"),
    };
    let ack = PreReadAck {
        acceptor: ACCEPTOR,
        directory: DIRECTORY,
        incarnation: LIFE,
        probe: 0,
        vote_watermark: Some(FAR),
    };
    [
        ToGateway::ReadResults(Arc::new(results)),
        ToGateway::PreReadAck(ack),
        ToGateway::NotLeader(NotLeader { proposer, batch, attempt, hint }),
        ToGateway::Results(Arc::new(Results { replica, batch, attempt, slot, outcomes })),
        ToGateway::NotExecuted(NotExecuted { replica, batch, attempt }),
    ]
}

/// All of the above, to every proposer and proxy leader and the first of each other role.
fn from_unknown_roles() -> Vec<To> {
    let proposers = [0, 1].map(ProposerId).into_iter();
    let proposers =
        proposers.flat_map(|id| to_proposer().into_iter().map(move |m| To::Proposer(id, m)));
    let proxies = [0, 1].map(ProxyLeaderId).into_iter();
    let proxies =
        proxies.flat_map(|id| to_proxy_leader().into_iter().map(move |m| To::ProxyLeader(id, m)));
    let acceptors = to_acceptor().into_iter().map(|m| To::Acceptor(AcceptorId(0), m));
    let replicas = to_replica().into_iter().map(|m| To::Replica(ReplicaId(0), m));
    let gateways = to_gateway().into_iter().map(|m| To::Gateway(GatewayId(0), m));
    let all = proposers.chain(proxies).chain(acceptors).chain(replicas).chain(gateways);
    all.collect()
}

#[test]
fn a_message_of_a_role_that_is_not_there_ends_no_node() {
    let mut nodes = Nodes::start(Spread::OneCore);
    let mut fatal = Vec::new();
    for to in from_unknown_roles() {
        say_as_peer(&nodes, 0, [to.clone()]);
        if !nodes.go_on() {
            fatal.push(format!("{to:?}"));
            drop(std::mem::replace(&mut nodes, Nodes::start(Spread::OneCore)));
        }
    }
    nodes.stop();
    assert!(fatal.is_empty(), "a node ends of: {fatal:#?}");
}

/// In the ballot that leads and the slots that are being decided, so that no role takes them for
/// stale.
#[test]
fn a_vote_of_an_acceptor_that_is_not_there_ends_no_node() {
    let nodes = Nodes::start(Spread::OneCore);
    for _ in 0..10 {
        let (ballot, executed) = leading(&nodes);
        let to_leader = acks(ballot).into_iter().chain([p1b(ballot)]);
        let to_leader = to_leader.map(|message| To::Proposer(ballot.proposer, message));
        let votes = (executed..executed + 200).map(Slot).flat_map(|slot| {
            let votes = ToProxyLeader::P2b(p2b(ballot, slot));
            let forgot = ToProxyLeader::Truncated(Truncated { slot, ballot, ..TRUNCATED });
            let both = [0, 1].map(ProxyLeaderId).map(|proxy| {
                [&votes, &forgot].map(|message| To::ProxyLeader(proxy, message.clone()))
            });
            both.into_iter().flatten()
        });
        say_as_peer(&nodes, 0, to_leader.chain(votes));
        assert!(nodes.go_on(), "a vote of an unknown acceptor ends a node");
    }
    nodes.stop();
}

/// The ballot that leads, and how far replicas are.
fn leading(nodes: &Nodes) -> (Ballot, u64) {
    let status = nodes.status(0);
    let roles = status["roles"].as_array().unwrap();
    let leader = roles.iter().find(|role| role["state"] == "leads").unwrap();
    // As `Ballot` is shown: `b3.1.a5f`, round, proposer and incarnation.
    let mut parts = leader["ballot"].as_str().unwrap()[1..].split('.');
    let mut part = |radix| u64::from_str_radix(parts.next().unwrap(), radix).unwrap();
    let (round, proposer) = (part(10), ProposerId(u8::try_from(part(10)).unwrap()));
    let ballot = Ballot { round, proposer, incarnation: Incarnation(part(16)) };
    let executed = status["replicas"].as_array().unwrap().iter();
    (ballot, executed.filter_map(|replica| replica["executed_watermark"].as_u64()).max().unwrap())
}

#[test]
fn a_command_too_long_is_told_so_and_the_connection_lives() {
    for spread in [Spread::OneCore, Spread::TwoNodes] {
        let nodes = Nodes::start(spread);
        let (mut client, welcome) = nodes.client(0);
        let longest = welcome.command_bytes_max as usize;
        let put = |length: usize| {
            let header = kv(&Command::Put { key: b"long", value: b"" }).len();
            kv(&Command::Put { key: b"long", value: &vec![7; length - header] })
        };
        for (number, length, expected) in [
            (0, longest, Ok(vec![])),
            // Not sent on, so its number may be another's.
            (1, longest + 1, Err(Failure::TooLarge)),
            (1, longest + 2000, Err(Failure::TooLarge)),
            (1, longest, Ok(vec![])),
        ] {
            client.say(&command(number, &put(length)));
            assert_eq!(client.result(), (number, expected), "{length} bytes");
        }
        nodes.wait_for_counts(0, 0, 0);
        // What is no command by any measure is not even received.
        client.say(&command(2, &put(20 * longest)));
        client.is_closed("a frame of 20 commands");
        nodes.wait_for_counts(0, 1, 0);
        nodes.stop();
    }
}

/// What they answer fits in no one frame that the gateway would take.
#[test]
fn many_short_commands_with_long_replies_are_answered() {
    for spread in [Spread::OneCore, Spread::TwoNodes] {
        let nodes = Nodes::start(spread);
        let (mut client, _) = nodes.client(0);
        let value = vec![7; 30_000];
        client.say(&command(0, &kv(&Command::Put { key: b"long", value: &value })));
        assert_eq!(client.result(), (0, Ok(vec![])));
        let get = kv(&Command::Get { key: b"long" });
        client.say(&commands((1..=400).map(|number| (number, &get))));
        for _ in 1..=400 {
            let (number, reply) = client.result();
            let reply = reply.unwrap_or_else(|why| panic!("command {number}: {why:?}"));
            assert_eq!(Answer::decode(&reply).unwrap(), Answer::Value(&value), "{number}");
        }
        nodes.wait_for_counts(0, 0, 0);
        nodes.stop();
    }
}

/// A run is longer than the window: what there is no room for waits, and the client with it.
#[test]
fn r29_a_run_of_more_commands_than_there_is_room_for_is_executed_whole_and_once() {
    const WINDOW: u32 = 16;
    const COMMANDS: u64 = 40 * WINDOW as u64;
    let few = |cluster: ClusterSettings| {
        let mut settings = Settings::clone(&cluster);
        (settings.session_window, settings.batch_commands_max) = (WINDOW, 4);
        settings.check().unwrap()
    };
    for spread in [Spread::OneCore, Spread::TwoNodes] {
        let nodes = Nodes::start_with(spread, few);
        let mut clients = [(); 2].map(|()| nodes.client(0).0);
        let add = increment(b"run");
        for client in &mut clients {
            client.say(&commands((0..COMMANDS).map(|number| (number, &add))));
        }
        for client in &mut clients {
            let mut numbers: Vec<u64> = (0..COMMANDS)
                .map(|_| {
                    let (number, result) = client.result();
                    result.map(|_| number).unwrap_or_else(|why| panic!("{number}: {why:?}"))
                })
                .collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..COMMANDS), "each has one reply");
        }
        clients[0].say(&command(COMMANDS, &add));
        let (_, reply) = clients[0].result();
        let executed = i64::try_from(2 * COMMANDS + 1).unwrap();
        assert_eq!(Answer::decode(&reply.unwrap()).unwrap(), Answer::Number(executed));
        nodes.wait_for_counts(0, 0, 0);
        nodes.stop();
    }
}

#[test]
fn a_client_that_reads_no_results_does_not_slow_others() {
    let _alone = one_at_a_time();
    let nodes = Nodes::start(Spread::OneCore);
    let before = memory();
    let (mut client, _) = nodes.client(0);
    let mut most = before;
    let add = increment(b"deaf");
    let (mut sent, mut is_taken) = (0, true);
    while is_taken && sent < 200_000 {
        let commands: Vec<u8> = (sent..sent + 10_000).flat_map(|n| command(n, &add)).collect();
        is_taken = client.say_within(&commands, Duration::from_secs(5));
        sent += 10_000;
        assert!(nodes.go_on(), "after {sent} commands of another");
        most = most.max(memory());
    }
    assert!(most - before < GROWTH_MAX, "grew by {} MiB", (most - before) >> 20);
    drop(client);
    nodes.wait_for_counts(0, 0, 0);
    nodes.stop();
}

/// Replies of some 180 MB: more than sockets hold, and than a node keeps for one client.
#[test]
fn a_client_that_reads_no_long_replies_is_cut_off_or_slowed() {
    let _alone = one_at_a_time();
    let few = |cluster: ClusterSettings| {
        let mut settings = Settings::clone(&cluster);
        (settings.session_window, settings.batch_commands_max) = (256, 16);
        settings.check().unwrap()
    };
    let nodes = Nodes::start_with(Spread::OneCore, few);
    let before = memory();
    let (mut client, _) = nodes.client(0);
    client.say(&command(0, &kv(&Command::Put { key: b"long", value: &vec![7; 30_000] })));
    assert_eq!(client.result(), (0, Ok(vec![])));
    let get = kv(&Command::Get { key: b"long" });
    let mut most = before;
    for round in 0..60 {
        let gets: Vec<u8> = (1..=100).flat_map(|n| command(100 * round + n, &get)).collect();
        let is_taken = client.say_within(&gets, Duration::from_secs(1));
        assert!(nodes.go_on(), "in round {round}");
        most = most.max(memory());
        if !is_taken {
            break;
        }
    }
    assert!(most - before < GROWTH_MAX, "grew by {} MiB", (most - before) >> 20);
    drop(client);
    nodes.stop();
}

#[test]
fn a_sender_that_asks_for_the_status_and_reads_no_answer_is_cut_off_or_slowed() {
    let _alone = one_at_a_time();
    for purpose in [Purpose::Status, Purpose::Client] {
        let nodes = Nodes::start(Spread::OneCore);
        let before = memory();
        let (mut stranger, _) = nodes.admitted(0, purpose);
        let questions: Vec<u8> =
            (0..1000).flat_map(|_| bytes_of(wire::encode_status_request)).collect();
        let mut most = before;
        for round in 0..200 {
            let is_taken = stranger.say_within(&questions, Duration::from_secs(1));
            most = most.max(memory());
            assert!(most - before < GROWTH_MAX, "round {round}: {} MiB", (most - before) >> 20);
            if !is_taken {
                break;
            }
        }
        assert!(nodes.go_on(), "beside 200 000 questions");
        drop(stranger);
        assert!(memory().saturating_sub(before) < GROWTH_MAX, "it stays");
        nodes.stop();
    }
}

#[test]
fn hundreds_of_connections_come_and_go() {
    let _alone = one_at_a_time();
    for spread in [Spread::OneCore, Spread::TwoCores] {
        let nodes = Nodes::start(spread);
        for round in 0..3 {
            let mut strangers: Vec<Stranger> =
                (0..300).map(|_| Stranger::connect(nodes.address(0))).collect();
            for stranger in &mut strangers {
                stranger.say(&hello(&client_hello()));
            }
            for (index, stranger) in strangers.iter_mut().enumerate() {
                assert!(matches!(stranger.hear(), Some(Message::Welcome(_))), "{index}");
                stranger.open_session((round + 1) << 32 | index as u64);
                stranger.say(&command(0, &increment(b"crowd")));
            }
            assert!(nodes.go_on(), "beside them");
            // Half of them hear their result, half go before it.
            for stranger in strangers.iter_mut().take(150) {
                let (number, result) = stranger.result();
                assert_eq!((number, result.is_ok()), (0, true));
            }
            drop(strangers);
            assert!(nodes.go_on(), "after round {round}");
        }
        // Each was executed once, though not each result was heard.
        let (mut client, _) = nodes.client(0);
        client.say(&command(0, &increment(b"crowd")));
        let (_, reply) = client.result();
        assert_eq!(Answer::decode(&reply.unwrap()).unwrap(), Answer::Number(901));
        nodes.wait_for_counts(0, 0, 0);
        nodes.stop();
    }
}

#[test]
fn a_connection_may_end_anywhere() {
    let nodes = Nodes::start(Spread::OneCore);
    let get = kv(&Command::Get { key: b"cut" });
    let put = command(0, &kv(&Command::Put { key: b"cut", value: &[7; 20_000] }));
    let (mut client, _) = nodes.client(0);
    client.say(&put);
    assert_eq!(client.result(), (0, Ok(vec![])));
    // In the middle of a command.
    for end in [1, HEAD_BYTES - 1, HEAD_BYTES, HEAD_BYTES + 5, HEAD_BYTES + 16, put.len() - 1] {
        let (mut client, _) = nodes.client(0);
        client.say(&put[..end]);
    }
    // In the middle of results: some were read, others are on their way, or not executed yet.
    for heard in [0, 1, 50] {
        let (mut client, _) = nodes.client(0);
        let gets: Vec<u8> = (0..300).flat_map(|number| command(number, &get)).collect();
        client.say(&gets);
        (0..heard).for_each(|_| assert!(client.result().1.is_ok(), "a result is missing"));
    }
    assert!(nodes.go_on(), "after connections that ended anywhere");
    nodes.wait_for_counts(0, 0, 0);
    nodes.stop();
}

/// Only the client's own is lost: a command with damage is not executed, what came before it is.
#[test]
fn a_damaged_command_is_not_executed() {
    let nodes = Nodes::start(Spread::OneCore);
    let (mut client, _) = nodes.client(0);
    let mut words = command(0, &increment(b"damaged"));
    let mut damaged = command(1, &increment(b"damaged"));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    words.extend(damaged);
    words.extend(command(2, &increment(b"damaged")));
    client.say(&words);
    while client.hear().is_some() {}
    nodes.wait_for_counts(0, 1, 0);
    let (mut client, _) = nodes.client(0);
    client.say(&command(0, &increment(b"damaged")));
    let (_, reply) = client.result();
    assert_eq!(Answer::decode(&reply.unwrap()).unwrap(), Answer::Number(2));
    nodes.stop();
}
