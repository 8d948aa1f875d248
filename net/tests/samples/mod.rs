//! One or more of every message that there is.

use std::sync::Arc;

use bytes::Bytes;
use loggos_net::Outgoing;
use loggos_net::wire::{
    self, BatchPool, CommandsWriter, FrameReader, HEAD_BYTES, Hello, Kind, LogPosition, Message,
    Purpose, ReadsWriter, Reason, Refusal, RepliesWriter, Welcome,
};
use loggos_protocol::{
    AcceptorId, AcceptorSet, Ask, Ballot, Batch, BatchId, Chosen, Content, DirectoryId, Envelope,
    Executed, Failure, Fetch, FetchPart, Fetched, FetchedPart, FillTo, Form, FormationId, Formed,
    GatewayId, Halt, Halted, Heartbeat, HeartbeatAck, Identify, Incarnation, Listener,
    LoggedCommand, Nack, Need, NotExecuted, NotLeader, P1a, P1b, P2a, P2b, Payload, Position,
    PreRead, PreReadAck, PreVote, PreVoteAck, Probe, ProbeAck, Propose, ProposerId, ProxyLeaderId,
    Read, ReadLevel, ReadResults, Rememberer, Replay, Replayed, ReplicaId, Results, SessionId,
    Slot, SnapshotId, SnapshotInfo, Stage, Table, Time, To, ToAcceptor, ToGateway, ToProposer,
    ToProxyLeader, ToReplica, Truncated, Unserved, Value, Vote, Watcher, Watermark,
};

/// As much as nodes take from each other, and more than any sample.
pub(crate) const FRAME_BYTES_MAX: u32 = 256 << 20;
/// A block that lies inside its batch.
pub(crate) const SHORT: usize = 21;
/// A block that is referenced.
pub(crate) const LONG: usize = 150;

/// The kind that a message between roles is to have. A new one does not compile until it is added
/// here; then it needs a sample, or [`Kind::ALL`] is not covered.
pub(crate) fn kind(to: &To) -> Kind {
    match to {
        To::Gateway(_, message) => match message {
            ToGateway::Heartbeat(_) => Kind::GatewayHeartbeat,
            ToGateway::NotLeader(_) => Kind::GatewayNotLeader,
            ToGateway::Results(_) => Kind::GatewayResults,
            ToGateway::NotExecuted(_) => Kind::GatewayNotExecuted,
            ToGateway::Halted(_) => Kind::GatewayHalted,
            ToGateway::PreReadAck(_) => Kind::GatewayPreReadAck,
            ToGateway::ReadResults(_) => Kind::GatewayReadResults,
        },
        To::Proposer(_, message) => match message {
            ToProposer::ProbeAck(_) => Kind::ProposerProbeAck,
            ToProposer::Formed(_) => Kind::ProposerFormed,
            ToProposer::PreVoteAck(_) => Kind::ProposerPreVoteAck,
            ToProposer::P1b(_) => Kind::ProposerP1b,
            ToProposer::Nack(_) => Kind::ProposerNack,
            ToProposer::Heartbeat(_) => Kind::ProposerHeartbeat,
            ToProposer::HeartbeatAck(_) => Kind::ProposerHeartbeatAck,
            ToProposer::Unserved(_) => Kind::ProposerUnserved,
            ToProposer::Halted(_) => Kind::ProposerHalted,
            ToProposer::Skip(_) => Kind::ProposerSkip,
            ToProposer::FillTo(_) => Kind::ProposerFillTo,
            ToProposer::Propose(_) => Kind::ProposerPropose,
            ToProposer::Truncated(_) => Kind::ProposerTruncated,
            ToProposer::Executed(_) => Kind::ProposerExecuted,
            ToProposer::Need(_) => Kind::ProposerNeed,
        },
        To::ProxyLeader(_, message) => match message {
            ToProxyLeader::Heartbeat(_) => Kind::ProxyLeaderHeartbeat,
            ToProxyLeader::P2a(_) => Kind::ProxyLeaderP2a,
            ToProxyLeader::P2b(_) => Kind::ProxyLeaderP2b,
            ToProxyLeader::Nack(_) => Kind::ProxyLeaderNack,
            ToProxyLeader::Truncated(_) => Kind::ProxyLeaderTruncated,
        },
        To::Acceptor(_, message) => match message {
            ToAcceptor::Probe(_) => Kind::AcceptorProbe,
            ToAcceptor::Form(_) => Kind::AcceptorForm,
            ToAcceptor::PreVote(_) => Kind::AcceptorPreVote,
            ToAcceptor::Unserved(_) => Kind::AcceptorUnserved,
            ToAcceptor::PreRead(_) => Kind::AcceptorPreRead,
            ToAcceptor::P1a(_) => Kind::AcceptorP1a,
            ToAcceptor::P2a(_) => Kind::AcceptorP2a,
            ToAcceptor::Heartbeat(_) => Kind::AcceptorHeartbeat,
            ToAcceptor::Executed(_) => Kind::AcceptorExecuted,
            ToAcceptor::Replay(_) => Kind::AcceptorReplay,
        },
        To::Replica(_, message) => match message {
            ToReplica::Probe(_) => Kind::ReplicaProbe,
            ToReplica::Heartbeat(_) => Kind::ReplicaHeartbeat,
            ToReplica::Chosen(_) => Kind::ReplicaChosen,
            ToReplica::Identify(_) => Kind::ReplicaIdentify,
            ToReplica::Fetch(_) => Kind::ReplicaFetch,
            ToReplica::Fetched(_) => Kind::ReplicaFetched,
            ToReplica::Ask(_) => Kind::ReplicaAsk,
            ToReplica::Truncated(_) => Kind::ReplicaTruncated,
            ToReplica::Replayed(_) => Kind::ReplicaReplayed,
            ToReplica::FetchPart(_) => Kind::ReplicaFetchPart,
            ToReplica::FetchedPart(_) => Kind::ReplicaFetchedPart,
            ToReplica::Read(_) => Kind::ReplicaRead,
        },
    }
}

pub(crate) fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: ProposerId(3), incarnation: Incarnation(0xB0B1_B2B3_B4B5_B6B7) }
}

fn batch_id(number: u64) -> BatchId {
    BatchId { gateway: GatewayId(6), incarnation: Incarnation(0xC0C1_C2C3_C4C5_C6C7), number }
}

pub(crate) fn batch(bytes: usize) -> Arc<Batch> {
    let block: Vec<u8> = (1..=251).cycle().take(bytes).collect();
    let block = Payload::from(Bytes::from(block));
    Arc::new(Batch {
        id: batch_id(bytes as u64),
        attempt: 7,
        answerer: ReplicaId(2),
        commands_count: 5,
        checksum: block.checksum(),
        block,
    })
}

pub(crate) fn propose(bytes: usize) -> Propose {
    Propose { batch: batch(bytes), lowest: 0xD0D1_D2D3_D4D5_D6D7 }
}

pub(crate) fn value(bytes: usize) -> Value {
    Value { stamp: Time(0x1817_1615_1413_1211), content: Content::Batch(batch(bytes)) }
}

fn halted(why: Halt) -> Box<Halted> {
    let incarnation = Incarnation(0x1A1B_1C1D_1E1F_2021);
    Box::new(Halted { replica: ReplicaId(1), incarnation, why })
}

fn logged_command() -> LoggedCommand {
    let at = Position { slot: Slot(1 << 41), index: 5 };
    LoggedCommand { at, checksum: 0xC0FF_EE00 }
}

fn halts() -> [Halt; 4] {
    let message = "the machine has met its command".to_owned();
    [
        Halt::Panicked { command: logged_command(), message },
        Halt::Executed { command: logged_command() },
        Halt::Malformed { slot: Slot(6) },
        Halt::SnapshotRefused { at: Watermark(7) },
    ]
}

fn noop() -> Value {
    Value::noop(Time(1))
}

pub(crate) fn p2a(bytes: usize) -> P2a {
    let (slot, via, is_recovered) = (Slot(1 << 40), ProxyLeaderId(1), bytes.is_multiple_of(2));
    P2a { ballot: ballot(9), slot, via, is_recovered, value: value(bytes) }
}

pub(crate) fn chosen(bytes: usize) -> Chosen {
    Chosen { slot: Slot(77), ballot: ballot(8), value: value(bytes) }
}

pub(crate) fn results(bytes: usize) -> Arc<Results> {
    Arc::new(Results {
        replica: ReplicaId(1),
        batch: batch_id(4),
        attempt: 1,
        slot: Slot(99),
        outcomes: batch(bytes).block.clone(),
    })
}

pub(crate) fn p2b() -> P2b {
    let directory = DirectoryId(0xD1D2_D3D4_D5D6_D7D8);
    P2b { acceptor: AcceptorId(63), directory, ballot: ballot(4), slot: Slot(u64::MAX) }
}

fn table() -> Arc<Table> {
    Arc::new(Table::new(0xE1E2, (10..14).map(DirectoryId).collect()))
}

fn origin() -> SnapshotId {
    let (at, incarnation) = (Watermark(0xF1F2_F3F4), Incarnation(0xA1A2_A3A4_A5A6_A7A8));
    SnapshotId { at, replica: ReplicaId(2), incarnation }
}

fn table_with_origin() -> Arc<Table> {
    let table = Table::new(0xE1E2, (10..14).map(DirectoryId).collect());
    Arc::new(table.with_origin(Some(origin())))
}

pub(crate) fn heartbeat(stage: Stage) -> Heartbeat {
    let no_room = AcceptorSet::from_bits(0b1010);
    let is_silent = stage == Stage::Leading;
    Heartbeat {
        ballot: ballot(3),
        stage,
        chosen: Watermark(500),
        no_room,
        is_silent,
        table: table(),
    }
}

fn nack(slot: Option<Slot>) -> Nack {
    Nack { slot, refused: ballot(1), promised: ballot(2) }
}

fn truncated(acceptor: Option<AcceptorId>) -> Truncated {
    Truncated { acceptor, slot: Slot(4), ballot: ballot(6), truncated: Watermark(5) }
}

fn executed(nonce: Option<u64>) -> Executed {
    let incarnation = Incarnation(17);
    Executed {
        replica: ReplicaId(1),
        incarnation,
        executed: Watermark(1234),
        snapshot: Watermark(0),
        nonce,
    }
}

fn probe() -> Probe {
    Probe { proposer: ProposerId(1), nonce: 5, cluster_digest: 0xFFFF_0000_FFFF_0000 }
}

fn probe_ack(from: Rememberer, table: Option<Arc<Table>>) -> ProbeAck {
    let (is_blank, origin) = (table.is_none(), table.is_none().then(origin));
    ProbeAck { from, nonce: 5, directory: DirectoryId(44), is_blank, origin, table }
}

pub(crate) fn p1b(votes: Vec<(Slot, Vote)>, to: Option<Watermark>) -> Box<P1b> {
    Box::new(P1b {
        acceptor: AcceptorId(2),
        directory: DirectoryId(3),
        ballot: ballot(11),
        truncated: Watermark(4),
        from: Slot(6),
        to,
        votes,
    })
}

fn replayed(votes: Vec<(Slot, Vote)>, to: Option<Watermark>) -> Box<Replayed> {
    let (acceptor, directory) = (AcceptorId(2), DirectoryId(3));
    let truncated = Watermark(5);
    Box::new(Replayed { acceptor, directory, truncated, from: Slot(6), to, votes })
}

pub(crate) fn fetched(slots: Vec<(Ballot, Value)>) -> Fetched {
    Fetched { replica: ReplicaId(2), first: Slot(7), slots, executed: Watermark(70) }
}

fn snapshot() -> SnapshotId {
    SnapshotId { at: Watermark(90), replica: ReplicaId(2), incarnation: Incarnation(u64::MAX) }
}

fn fetch_part(snapshot: Option<SnapshotId>) -> FetchPart {
    FetchPart { replica: ReplicaId(1), snapshot, part: 77, beyond: Watermark(12) }
}

fn fetched_part(bytes: usize, is_coming: bool) -> Box<FetchedPart> {
    let (id, formation, parts) = (snapshot(), FormationId(6), 78);
    let (bytes_all, digest, state_hash) = (1 << 33, 0xD1_6E57, 0x57A7E);
    let info = SnapshotInfo { id, formation, parts, bytes: bytes_all, digest, state_hash };
    Box::new(FetchedPart {
        replica: ReplicaId(2),
        snapshot: (bytes > 0).then_some(id),
        info: (bytes > 0).then_some(info),
        is_coming,
        part: 77,
        bytes: Payload::copy(&vec![0xA5; bytes]),
    })
}

fn ask(session: Option<SessionId>) -> Ask {
    Ask { batch: batch_id(8), attempt: 2, session, first: 12, count: 30 }
}

fn pre_read_ack(vote_watermark: Option<Slot>) -> PreReadAck {
    let (acceptor, directory) = (AcceptorId(2), DirectoryId(3));
    PreReadAck { acceptor, directory, incarnation: Incarnation(4), probe: 5, vote_watermark }
}

fn queries(bytes: usize) -> Arc<Read> {
    Arc::new(Read {
        gateway: GatewayId(1),
        incarnation: Incarnation(0xC0C1),
        group: 2,
        first: 3,
        at_least: Watermark(4),
        queries: Payload::copy(&vec![0x5A; bytes]),
    })
}

fn read_results(bytes: usize) -> Arc<ReadResults> {
    Arc::new(ReadResults {
        replica: ReplicaId(1),
        incarnation: Incarnation(0xC0C1),
        group: 2,
        first: 3,
        executed: Watermark(4),
        replies: Payload::copy(&vec![0xA5; bytes]),
    })
}

fn gateway_messages() -> Vec<ToGateway> {
    let not_leader =
        |hint| NotLeader { proposer: ProposerId(1), batch: batch_id(2), attempt: 3, hint };
    let halted = |why| ToGateway::Halted(halted(why));
    let mut all = vec![
        ToGateway::Heartbeat(heartbeat(Stage::Leading)),
        ToGateway::NotLeader(not_leader(None)),
        ToGateway::NotLeader(not_leader(Some(ProposerId(0)))),
        ToGateway::Results(results(0)),
        ToGateway::Results(results(SHORT)),
        ToGateway::Results(results(LONG)),
        ToGateway::NotExecuted(NotExecuted {
            replica: ReplicaId(2),
            batch: batch_id(1),
            attempt: 4,
        }),
    ];
    all.extend(halts().map(halted));
    all.extend([None, Some(Slot(77))].map(|voted| ToGateway::PreReadAck(pre_read_ack(voted))));
    all.extend([SHORT, LONG].map(|bytes| ToGateway::ReadResults(read_results(bytes))));
    all
}

fn proposer_messages() -> Vec<ToProposer> {
    let acceptor = Rememberer::Acceptor(AcceptorId(1));
    let vote = |value| Vote { ballot: ballot(5), value };
    let votes =
        vec![(Slot(6), vote(value(LONG))), (Slot(8), vote(noop())), (Slot(9), vote(value(SHORT)))];
    let quiet = PreVoteAck {
        acceptor: AcceptorId(0),
        directory: DirectoryId(1),
        nonce: 2,
        is_quiet: true,
        is_low: true,
        promised: ballot(0),
        votes_end: Watermark(0),
    };
    let ack = |from| HeartbeatAck { from, ballot: ballot(7), is_low: true, clock: Time(0) };
    vec![
        ToProposer::ProbeAck(Box::new(probe_ack(acceptor, None))),
        ToProposer::ProbeAck(Box::new(probe_ack(acceptor, Some(table())))),
        ToProposer::ProbeAck(Box::new(probe_ack(Rememberer::Replica(ReplicaId(0)), None))),
        ToProposer::Formed(Formed {
            acceptor: AcceptorId(3),
            directory: DirectoryId(13),
            table: table_with_origin(),
        }),
        ToProposer::PreVoteAck(quiet),
        ToProposer::PreVoteAck(PreVoteAck { is_quiet: false, votes_end: Watermark(1), ..quiet }),
        ToProposer::P1b(p1b(Vec::new(), None)),
        ToProposer::P1b(p1b(votes, Some(Watermark(10)))),
        ToProposer::Nack(nack(None)),
        ToProposer::Nack(nack(Some(Slot(0)))),
        ToProposer::Heartbeat(heartbeat(Stage::Campaigning)),
        ToProposer::HeartbeatAck(ack(Listener::Acceptor(AcceptorId(5)))),
        ToProposer::HeartbeatAck(ack(Listener::ProxyLeader(ProxyLeaderId(1)))),
        ToProposer::HeartbeatAck(ack(Listener::Gateway(GatewayId(3)))),
        ToProposer::Unserved(Unserved { gateway: GatewayId(2) }),
        ToProposer::FillTo(FillTo { gateway: GatewayId(2), to: Watermark(3) }),
        ToProposer::Halted(halted(halts()[0].clone())),
        ToProposer::Skip(logged_command()),
        ToProposer::Propose(propose(0)),
        ToProposer::Propose(propose(SHORT)),
        ToProposer::Propose(propose(LONG)),
        ToProposer::Truncated(truncated(None)),
        ToProposer::Executed(executed(Some(0))),
        ToProposer::Need(Need {
            replica: ReplicaId(1),
            incarnation: Incarnation(2),
            slot: Slot(3),
        }),
    ]
}

fn proxy_leader_messages() -> Vec<ToProxyLeader> {
    vec![
        ToProxyLeader::Heartbeat(heartbeat(Stage::Leaving)),
        ToProxyLeader::P2a(p2a(LONG)),
        ToProxyLeader::P2a(P2a { value: noop(), ..p2a(0) }),
        ToProxyLeader::P2b(p2b()),
        ToProxyLeader::Nack(nack(Some(Slot(9)))),
        ToProxyLeader::Truncated(truncated(Some(AcceptorId(0)))),
    ]
}

fn acceptor_messages() -> Vec<ToAcceptor> {
    vec![
        ToAcceptor::Probe(probe()),
        ToAcceptor::Form(Form { proposer: ProposerId(1), table: table() }),
        ToAcceptor::PreVote(PreVote { proposer: ProposerId(0), nonce: 1 }),
        ToAcceptor::Unserved(Unserved { gateway: GatewayId(2) }),
        ToAcceptor::PreRead(PreRead {
            gateway: GatewayId(2),
            incarnation: Incarnation(3),
            probe: 4,
        }),
        ToAcceptor::P1a(P1a { ballot: ballot(1), first: Slot(2), page: Slot(3) }),
        ToAcceptor::P2a(p2a(SHORT)),
        ToAcceptor::P2a(p2a(LONG)),
        ToAcceptor::Heartbeat(heartbeat(Stage::Leading)),
        ToAcceptor::Executed(executed(None)),
        ToAcceptor::Replay(Replay { replica: ReplicaId(1), first: Slot(17) }),
    ]
}

fn replica_messages() -> Vec<ToReplica> {
    let vote = |value| Vote { ballot: ballot(6), value };
    let votes =
        vec![(Slot(6), vote(value(LONG))), (Slot(8), vote(noop())), (Slot(9), vote(value(SHORT)))];
    let identify = |watcher| Identify { watcher, nonce: 21 };
    let slots = vec![(ballot(1), noop()), (ballot(2), value(LONG)), (ballot(2), value(SHORT))];
    vec![
        ToReplica::Probe(probe()),
        ToReplica::Heartbeat(heartbeat(Stage::Leading)),
        ToReplica::Heartbeat(heartbeat(Stage::Waiting)),
        ToReplica::Heartbeat(heartbeat(Stage::Following)),
        ToReplica::Chosen(chosen(SHORT)),
        ToReplica::Chosen(chosen(LONG)),
        ToReplica::Chosen(Chosen { value: noop(), ..chosen(0) }),
        ToReplica::Identify(identify(Watcher::Proposer(ProposerId(1)))),
        ToReplica::Identify(identify(Watcher::Acceptor(AcceptorId(1)))),
        ToReplica::Fetch(Fetch { replica: ReplicaId(0), first: Slot(1) }),
        ToReplica::Fetched(fetched(Vec::new())),
        ToReplica::Fetched(fetched(slots)),
        ToReplica::Ask(ask(None)),
        ToReplica::Ask(ask(Some(SessionId { slot: Slot(0), index: 0 }))),
        ToReplica::Truncated(truncated(Some(AcceptorId(3)))),
        ToReplica::Replayed(replayed(Vec::new(), Some(Watermark(9)))),
        ToReplica::Replayed(replayed(votes, None)),
        ToReplica::FetchPart(fetch_part(None)),
        ToReplica::FetchPart(fetch_part(Some(snapshot()))),
        ToReplica::FetchedPart(fetched_part(0, false)),
        ToReplica::FetchedPart(fetched_part(0, true)),
        ToReplica::FetchedPart(fetched_part(SHORT, false)),
        ToReplica::FetchedPart(fetched_part(SHORT, true)),
        ToReplica::FetchedPart(fetched_part(LONG, false)),
        ToReplica::Read(queries(SHORT)),
        ToReplica::Read(queries(LONG)),
    ]
}

/// Every message between roles, half of them of a formation.
pub(crate) fn envelopes() -> Vec<Envelope> {
    let mut all = Vec::new();
    all.extend(gateway_messages().into_iter().map(|m| To::Gateway(GatewayId(1), m)));
    all.extend(proposer_messages().into_iter().map(|m| To::Proposer(ProposerId(2), m)));
    all.extend(proxy_leader_messages().into_iter().map(|m| To::ProxyLeader(ProxyLeaderId(3), m)));
    all.extend(acceptor_messages().into_iter().map(|m| To::Acceptor(AcceptorId(63), m)));
    all.extend(replica_messages().into_iter().map(|m| To::Replica(ReplicaId(255), m)));
    let formations = [None, Some(FormationId(0xF1F2_F3F4_F5F6_F7F8))].into_iter().cycle();
    all.into_iter().zip(formations).map(|(to, formation)| Envelope { formation, to }).collect()
}

const LOG: LogPosition =
    LogPosition { directory: DirectoryId(0xD1D2), recovered: 1 << 40, synced: u64::MAX };

pub(crate) fn hello(purpose: Purpose) -> Hello {
    Hello {
        wire_digest: wire::wire_digest(),
        versions: (1, 1),
        cluster_name: "skåne".to_owned(),
        cluster_digest: 0xA1A2,
        formation: Some(FormationId(0)),
        nonce: 0x7777,
        log: matches!(purpose, Purpose::Peer { .. }).then_some(LOG),
        purpose,
    }
}

/// Every message that is not between roles.
fn connection_messages() -> Vec<Message> {
    let peer = Purpose::Peer { from_node: 1, from_core: 2, to_node: 3, to_core: 4 };
    let mut all: Vec<_> =
        [peer, Purpose::Client, Purpose::Status].map(|p| Message::Hello(hello(p))).into();
    all.extend(Reason::ALL.map(|reason| {
        Message::Refusal(Refusal { reason, text: format!("because of {reason:?}") })
    }));
    let failures = [
        Failure::Busy,
        Failure::TooLarge,
        Failure::OutcomeUnknown,
        Failure::DeadlineExceeded,
        Failure::ReplyTooLarge,
        Failure::NoRoom(AcceptorSet::from_bits(1 << 63 | 5)),
        Failure::Skipped,
        Failure::NoSession,
        Failure::OutOfOrder,
        Failure::NotAQuery,
        Failure::Panicked,
    ];
    let halts = halts().map(|why| Failure::Halted(Arc::new(why)));
    let failures = failures.into_iter().chain(halts);
    all.extend(failures.zip(1..).map(|(failure, number)| Message::Failed { number, failure }));
    all.extend([&[SHORT][..], &[LONG], &[0, SHORT, 0, 4 * SHORT]].map(commands));
    all.extend([&[SHORT][..], &[LONG], &[0, SHORT, 0, 4 * SHORT]].map(replies));
    let sequential = ReadLevel::Sequential { seen: Watermark(77) };
    all.extend([
        reads(ReadLevel::Linearizable, &[SHORT]),
        reads(sequential, &[LONG]),
        reads(ReadLevel::Eventual, &[0, SHORT, 0, 4 * SHORT]),
    ]);
    all.extend([
        Message::Welcome(Welcome {
            version: 1,
            nonce: 2,
            formation: None,
            log: None,
            commands_in_flight_max: 3,
            command_bytes_max: 4,
        }),
        Message::Welcome(Welcome {
            version: 1,
            nonce: 2,
            formation: Some(FormationId(3)),
            log: Some(LOG),
            commands_in_flight_max: 4,
            command_bytes_max: 5,
        }),
        Message::Log(LOG),
        Message::Session { session: None, key: 77 },
        Message::Session { session: Some(SessionId { slot: Slot(3), index: 9 }), key: 0 },
        Message::StatusRequest,
        Message::Skip(logged_command()),
        Message::Status(batch(LONG).block.clone()),
    ]);
    all
}

/// Commands with so many bytes each.
pub(crate) fn commands(lengths: &[usize]) -> Message {
    let (mut writer, mut out) = (CommandsWriter::default(), Outgoing::default());
    for (number, bytes) in (1..).zip(lengths) {
        let command = vec![u8::try_from(number).unwrap_or(0); *bytes];
        writer.put(number, 1, &command, &mut out);
    }
    writer.end(&mut out);
    read_out(&out)
}

/// Reads with so many bytes each.
fn reads(level: ReadLevel, lengths: &[usize]) -> Message {
    let (mut writer, mut out) = (ReadsWriter::default(), Outgoing::default());
    for (number, bytes) in (1 << 63..).zip(lengths) {
        writer.put(number, level, &vec![7; *bytes], &mut out);
    }
    writer.end(&mut out);
    read_out(&out)
}

/// Replies with so many bytes each.
pub(crate) fn replies(lengths: &[usize]) -> Message {
    let (mut writer, mut out) = (RepliesWriter::default(), Outgoing::default());
    for (number, bytes) in (1..).zip(lengths) {
        let at = Position { slot: Slot(5), index: 6 };
        writer.put(number, at, &vec![u8::try_from(number).unwrap_or(0); *bytes], &mut out);
    }
    writer.end(&mut out);
    read_out(&out)
}

/// The one message that `out` is.
fn read_out(out: &Outgoing) -> Message {
    let bytes: Vec<u8> = out.pieces().flatten().copied().collect();
    let mut said = read([Bytes::from(bytes)]);
    assert_eq!(said.len(), 1, "one frame");
    said.pop().expect("one message").expect("it can be read")
}

/// Every message.
pub(crate) fn messages() -> Vec<Message> {
    let mut all = connection_messages();
    all.extend(envelopes().into_iter().map(Message::Envelope));
    all
}

pub(crate) fn encode(message: &Message, out: &mut Outgoing) {
    match message {
        Message::Envelope(envelope) => wire::encode(envelope, out),
        Message::Hello(hello) => wire::encode_hello(hello, out),
        Message::Welcome(welcome) => wire::encode_welcome(welcome, out),
        Message::Refusal(refusal) => wire::encode_refusal(refusal, out),
        Message::Log(log) => wire::encode_log(log, out),
        Message::Commands(commands) => {
            let mut writer = CommandsWriter::default();
            let lowest = commands.lowest_unanswered();
            for (number, command) in commands.clone() {
                writer.put(number, lowest, command.as_slice(), out);
            }
            writer.end(out);
        }
        Message::Reads(reads) => {
            let mut writer = ReadsWriter::default();
            let level = reads.level();
            for (number, query) in reads.clone() {
                writer.put(number, level, query.as_slice(), out);
            }
            writer.end(out);
        }
        Message::Replies(replies) => {
            let (mut replies, mut writer) = (replies.clone(), RepliesWriter::default());
            while let Some((number, at, reply)) = replies.next() {
                writer.put(number, at, reply, out);
            }
            writer.end(out);
        }
        Message::Session { session, key } => wire::encode_session(*session, *key, out),
        Message::Failed { number, failure } => wire::encode_failed(*number, failure, out),
        Message::StatusRequest => wire::encode_status_request(out),
        Message::Skip(command) => wire::encode_skip(*command, out),
        Message::Status(status) => wire::encode_status(status.as_slice(), out),
    }
}

/// The frame of `message`.
pub(crate) fn frame(message: &Message) -> Vec<u8> {
    let mut out = Outgoing::default();
    encode(message, &mut out);
    assert_eq!(out.frames(), 1, "one message is one frame");
    out.pieces().flatten().copied().collect()
}

/// Returns a frame with any content, whose head is right.
pub(crate) fn craft(version: u8, kind: u8, header: &[u8], payloads: &[u8]) -> Vec<u8> {
    let number = |bytes: usize| u32::try_from(bytes).expect("a short frame");
    let length = number(HEAD_BYTES + header.len() + payloads.len());
    let mut frame = vec![0; 4];
    frame.extend(length.to_le_bytes());
    frame.extend([version, kind, 0, 0]);
    frame.extend(number(header.len()).to_le_bytes());
    frame.extend([header, payloads].concat());
    seal(&mut frame);
    frame
}

/// What [`craft`] would have to be given to make `frame`, but for its version.
pub(crate) fn parts(frame: &[u8]) -> (u8, &[u8], &[u8]) {
    let header_bytes = u32::from_le_bytes([frame[12], frame[13], frame[14], frame[15]]);
    let (header, payloads) = frame[HEAD_BYTES..].split_at(header_bytes as usize);
    (frame[9], header, payloads)
}

/// Makes the checksum of head and header of `frame` right.
pub(crate) fn seal(frame: &mut [u8]) {
    let header_end = HEAD_BYTES + parts(frame).1.len();
    let checksum = crc_fast::crc32_iscsi(&frame[4..header_end]);
    frame[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// What a stream says up to its first error.
pub(crate) fn read(
    pieces: impl IntoIterator<Item = Bytes>,
) -> Vec<Result<Message, wire::WireError>> {
    let mut batches = BatchPool::new(8);
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    let mut said = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(frame) = reader.next() {
            said.push(frame.and_then(|frame| frame.decode(&mut batches)));
        }
    }
    said
}
