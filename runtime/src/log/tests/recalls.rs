//! Votes that only the disk has, asked for by a test that speaks as the rest of the cluster.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use loggos_net::Outgoing;
use loggos_net::wire::{self, Hello, Purpose, Welcome};
use loggos_protocol::{
    Envelope, FormationId, Incarnation, P1a, Payload, ProposerId, Replay, ReplicaId, ToAcceptor,
    ToProposer, ToReplica, Vote, Watermark,
};

use super::*;
use crate::layout::agreement;
use crate::status::Standing;

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// The pause before a question is repeated.
const PATIENCE: Duration = Duration::from_millis(200);

/// The acceptor's node, alone, with all its votes on disk; and in the place of the other node,
/// sockets of the test.
struct Asker {
    node: Process,
    /// To the node.
    speaks: TcpStream,
    /// From it, once it had something to say.
    listens: Option<(TcpStream, FrameReader)>,
    port: TcpListener,
    formation: Option<FormationId>,
}

fn bytes_of(encode: impl FnOnce(&mut Outgoing)) -> Vec<u8> {
    let mut out = Outgoing::default();
    encode(&mut out);
    out.pieces().flatten().copied().collect()
}

impl Asker {
    fn start(config: &Config) -> Self {
        let port = TcpListener::bind(config.nodes[1].address.resolve().unwrap()).unwrap();
        let node = Process::start(config, Some(0), |_| Kv::default()).unwrap();
        let mut speaks = TcpStream::connect(config.nodes[0].address.resolve().unwrap()).unwrap();
        let hello = Hello {
            wire_digest: wire::wire_digest(),
            versions: (wire::WIRE_VERSION, wire::WIRE_VERSION),
            cluster_name: config.name.clone(),
            cluster_digest: agreement(config),
            formation: None,
            nonce: 1,
            log: None,
            purpose: Purpose::Peer { from_node: 1, from_core: 0, to_node: 0, to_core: 0 },
        };
        speaks.write_all(&bytes_of(|out| wire::encode_hello(&hello, out))).unwrap();
        let (welcome, _) = hear(&mut speaks, FrameReader::new(1 << 20));
        let Some(Message::Welcome(welcome)) = welcome else { panic!("{welcome:?}") };
        assert!(welcome.log.is_some(), "it says where its log stands");
        Self { node, speaks, listens: None, port, formation: welcome.formation }
    }

    fn say(&mut self, message: ToAcceptor) {
        let envelope =
            Envelope { formation: self.formation, to: To::Acceptor(AcceptorId(0), message) };
        self.speaks.write_all(&bytes_of(|out| wire::encode(&envelope, out))).unwrap();
    }

    /// Says it again and again, until something is answered that `take` takes.
    fn ask<T>(&mut self, message: &ToAcceptor, take: impl Fn(To) -> Option<T>) -> T {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            self.say(message.clone());
            let (mut stream, mut reader) = match self.listens.take() {
                Some(link) => link,
                None => (self.port.accept().unwrap().0, FrameReader::new(1 << 20)),
            };
            let mut answer = None;
            loop {
                let (said, rest) = hear(&mut stream, reader);
                reader = rest;
                match said {
                    None => break,
                    Some(Message::Hello(_)) => {
                        let welcome = Welcome {
                            version: wire::WIRE_VERSION,
                            nonce: 1,
                            formation: self.formation,
                            log: None,
                            commands_in_flight_max: 1,
                            command_bytes_max: 1,
                        };
                        let welcome = bytes_of(|out| wire::encode_welcome(&welcome, out));
                        stream.write_all(&welcome).unwrap();
                    }
                    Some(Message::Envelope(envelope)) => answer = take(envelope.to),
                    Some(Message::Log(log)) => assert!(log.synced > 0, "{log:?}"),
                    Some(other) => panic!("{other:?} is said by one core to another"),
                }
                if answer.is_some() {
                    break;
                }
            }
            self.listens = Some((stream, reader));
            if let Some(answer) = answer {
                return answer;
            }
        }
        panic!("{message:?} was not answered in {DEADLINE:?}")
    }

    fn standing(&self) -> Standing {
        self.node.status().pop().unwrap().standing
    }

    /// The first slot that the acceptor has not forgotten: replicas hold a snapshot of the others.
    fn first_held(&self) -> Slot {
        let standing = self.standing();
        let Standing::Acceptor { truncated, .. } = standing else { panic!("it is {standing:?}") };
        truncated.first_open()
    }
}

/// Returns the next message, if one comes within a while.
fn hear(stream: &mut TcpStream, mut reader: FrameReader) -> (Option<Message>, FrameReader) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    loop {
        if let Some(frame) = reader.next() {
            return (Some(frame.unwrap().decode(&mut BatchPool::new(8)).unwrap()), reader);
        }
        let mut piece = vec![0; 64 << 10];
        match stream.read(&mut piece) {
            Ok(0) => panic!("it has closed"),
            Ok(count) => piece.truncate(count),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return (None, reader);
            }
            Err(error) => panic!("{error}"),
        }
        reader.push(piece.into());
    }
}

/// An acceptor's node that has voted, and was started again; and the votes that its log has.
fn restarted(folder: &std::path::Path) -> (Config, Asker, BTreeMap<Slot, Ballot>) {
    let config = config(folder);
    for node in 0..2 {
        crate::data::format(&config, Some(node)).unwrap();
    }
    let first = Process::start(&config, Some(0), |_| Kv::default()).unwrap();
    let others = Process::start(&config, Some(1), |_| Kv::default()).unwrap();
    load(&others);
    drop((others, first));
    let votes: BTreeMap<_, _> = votes(&config).into_keys().collect();
    assert!(votes.len() > 5 * 16, "{} votes are few pages", votes.len());
    let asker = Asker::start(&config);
    (config, asker, votes)
}

/// Asks for one page after the other, and checks that they are all that the log has.
fn are_all_told(
    votes: &BTreeMap<Slot, Ballot>,
    first_held: Slot,
    mut page: impl FnMut(Slot) -> (Slot, Option<Watermark>, Vec<(Slot, Vote)>),
) {
    let (mut next, mut pages, mut told) = (first_held, 0, BTreeMap::new());
    loop {
        let (from, to, some) = page(next);
        assert_eq!(from, next, "a page that was not asked for");
        for (slot, vote) in some {
            let block = &vote.value.batch().expect("no slot was given up").block;
            let is_whole = block.as_slice().windows(500).any(|bytes| bytes == [7; 500]);
            // The first slot of a gateway opens its session.
            assert!(is_whole || Payload::len(block) < 500, "{slot} has another value");
            told.insert(slot, vote.ballot);
        }
        pages += 1;
        let Some(to) = to else { break };
        next = to.first_open();
    }
    assert!(pages > 5, "{pages} pages");
    assert!(told.iter().eq(votes.range(first_held..)), "some are missing");
}

#[test]
fn r16_pages_of_votes_that_only_the_disk_has_are_told_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let (_config, mut asker, votes) = restarted(folder.path());
    let first_held = asker.first_held();
    are_all_told(&votes, first_held, |first| {
        let replay = ToAcceptor::Replay(Replay { replica: ReplicaId(0), first });
        asker.ask(&replay, |to| {
            let To::Replica(_, ToReplica::Replayed(it)) = to else { return None };
            (it.from == first).then_some((it.from, it.to, it.votes))
        })
    });
    let ballot = Ballot { round: 1 << 20, proposer: ProposerId(1), incarnation: Incarnation(9) };
    are_all_told(&votes, first_held, |page| {
        let p1a = ToAcceptor::P1a(P1a { ballot, first: Slot(0), page });
        asker.ask(&p1a, |to| {
            let To::Proposer(_, ToProposer::P1b(it)) = to else { return None };
            (it.ballot == ballot && it.from == page).then_some((it.from, it.to, it.votes))
        })
    });
}

#[test]
fn r34_a_vote_that_cannot_be_read_back_stops_the_acceptor_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let (config, mut asker, _votes) = restarted(folder.path());
    // A byte of the value that was written last, in the middle of its block. Votes of one record
    // are in the order in which they were voted, which need not be that of their slots: it is one
    // of these.
    let places = votes(&config);
    let path = config.nodes[0].data.clone().unwrap().join("core-0/log.00000");
    let log = std::fs::read(&path).unwrap();
    let at = (log.windows(500).rposition(|bytes| bytes == [7; 500]).unwrap() + 250) as u64;
    let record = *places.values().filter(|offset| **offset <= at).max().unwrap();
    let of_record = places.iter().filter(|(_, offset)| **offset == record);
    let mut suspects = of_record.map(|((slot, _), _)| *slot).cycle();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[8], at).unwrap();
    file.sync_all().unwrap();
    let replay = |first| ToAcceptor::Replay(Replay { replica: ReplicaId(0), first });
    // A request for other votes is answered.
    let first = asker.ask(&replay(Slot(0)), |to| {
        let To::Replica(_, ToReplica::Replayed(it)) = to else { return None };
        Some(it.from)
    });
    assert_eq!(first, asker.first_held());
    let started = Instant::now();
    let why = loop {
        asker.say(replay(suspects.next().unwrap()));
        let standing = asker.standing();
        if let Standing::Stopped { why } = standing {
            break why;
        }
        assert!(started.elapsed() < DEADLINE, "it is {standing:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(why.contains("a vote could not be read back"), "{why}");
    // It says nothing any more, of other votes neither.
    let (mut stream, mut reader) = asker.listens.take().unwrap();
    for is_over in [false, true] {
        asker.say(replay(Slot(0)));
        while let (Some(said), rest) = hear(&mut stream, reader) {
            assert!(!is_over || matches!(said, Message::Log(_)), "{said:?}");
            reader = rest;
        }
        reader = FrameReader::new(1 << 20);
    }
}
