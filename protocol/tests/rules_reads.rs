//! R18 to R20: reads that no leader sees.

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{
    B1, Echo, Net, ProposerMessages, REPLICA, START, acceptor, checked, directory, grid, heartbeat,
    leader, millis, out_of, p2a, pick, proposer, replica, small, square, table, truncate,
};
use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorState, Caller, ClientId, Event, Failure, FillTo, Gateway,
    GatewayId, Halt, Halted, Incarnation, Items, Outbox, Payload, PreRead, PreReadAck, Proposer,
    ProposerId, Query, Read, ReadLevel, ReadResults, Replica, ReplicaId, ReplicaTimer, ReplyItems,
    RoleId, Settings, Slot, Stage, Time, To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader,
    ToReplica, Watermark,
};

const LIFE: Incarnation = Incarnation(1);

/// What an acceptor answers to probe 5 of gateway 0.
fn voted(acceptor: &mut Acceptor) -> Vec<Option<Slot>> {
    let pre_read = PreRead { gateway: GatewayId(0), incarnation: LIFE, probe: 5 };
    let out = out_of(|out| acceptor.on_pre_read(pre_read, out));
    let acks = pick!(out.sends, Gateway(ToGateway::PreReadAck));
    assert!(acks.iter().all(|(to, ack)| (*to, ack.probe) == (GatewayId(0), 5)), "to that probe");
    assert!(acks.iter().all(|(_, ack)| ack.directory == directory(acceptor.id().0)), "its own");
    assert!(out.held.is_empty(), "nothing waits for a sync");
    acks.iter().map(|(_, ack)| ack.vote_watermark).collect()
}

fn vote_in(acceptor: &mut Acceptor, slot: u64) -> Outbox {
    out_of(|out| acceptor.on_p2a(p2a(B1, slot), START, out))
}

#[test]
fn r18_the_vote_watermark_is_the_largest_slot_voted_in_and_outlives_the_votes() {
    let mut acceptor = acceptor(&square(), 0);
    assert_eq!(voted(&mut acceptor), [None]);
    for (slot, largest) in [(3, 3), (7, 7), (1, 7), (7, 7)] {
        vote_in(&mut acceptor, slot);
        assert_eq!(voted(&mut acceptor), [Some(Slot(largest))]);
    }
    truncate(&mut acceptor, 8);
    assert_eq!(voted(&mut acceptor), [Some(Slot(7))], "no vote is held");
    vote_in(&mut acceptor, 9);
    assert_eq!(voted(&mut acceptor), [Some(Slot(9))]);
}

#[test]
fn r18_a_vote_counts_before_it_is_synced_and_the_watermark_comes_back_from_the_log() {
    let cluster = square();
    let mut state = AcceptorState { table: Some(table(&cluster)), ..AcceptorState::default() };
    let restore = |state: &AcceptorState| {
        let (id, directory) = (AcceptorId(0), directory(0));
        let mut acceptor = Acceptor::restore(cluster.clone(), id, directory, state, 1);
        acceptor.on_start(START);
        acceptor
    };
    let mut acceptor = restore(&state);
    let out = vote_in(&mut acceptor, 4);
    assert_eq!(voted(&mut acceptor), [Some(Slot(4))], "its records are not synced");
    out.records.iter().for_each(|record| state.on_record(record));
    assert_eq!(voted(&mut restore(&state)), [Some(Slot(4))]);
    state.truncate(Watermark(12));
    assert_eq!(voted(&mut restore(&state)), [Some(Slot(11))]);
}

#[test]
fn r18_an_acceptor_without_a_table_answers_no_gateway() {
    let mut blank = Acceptor::new(square(), AcceptorId(0), directory(0), 1);
    assert_eq!(voted(&mut blank), []);
    let mut acceptor = acceptor(&square(), 0);
    let pre_read = PreRead { gateway: GatewayId(9), incarnation: LIFE, probe: 0 };
    assert_eq!(out_of(|out| acceptor.on_pre_read(pre_read, out)).sends, []);
}

/// A gateway of a square grid that knows its table: columns {0, 2} and {1, 3} read.
struct Desk {
    gateway: Gateway,
    now: Time,
}

impl Desk {
    fn new(settings: Settings) -> Self {
        let cluster = checked(settings);
        let mut gateway = Gateway::new(cluster.clone(), GatewayId(0), LIFE, 7, START);
        let leading = heartbeat(&cluster, B1, Stage::Leading);
        gateway.on_heartbeat(&leading, START, &mut Outbox::default());
        Self { gateway, now: START }
    }

    fn read(&mut self, tag: u64, level: ReadLevel) {
        let (caller, now) = (Caller { client: ClientId(0), tag }, self.now);
        let query = Query { level, bytes: b"q" };
        let out = out_of(|out| self.gateway.read(caller, query, now, out));
        assert!(out.sends.is_empty() && out.replies.is_empty(), "it waits for the end of a tick");
    }

    fn flush(&mut self) -> Outbox {
        let now = self.now;
        let out = out_of(|out| self.gateway.flush(now, out));
        self.gateway.validate();
        out
    }

    fn ack(&mut self, acceptor: u8, probe: u64, voted: Option<u64>) -> Outbox {
        self.on_ack(PreReadAck {
            acceptor: AcceptorId(acceptor),
            directory: directory(acceptor),
            incarnation: LIFE,
            probe,
            vote_watermark: voted.map(Slot),
        })
    }

    fn on_ack(&mut self, ack: PreReadAck) -> Outbox {
        let now = self.now;
        let out = out_of(|out| self.gateway.on_pre_read_ack(ack, now, out));
        self.gateway.validate();
        out
    }

    fn answer(&mut self, replica: u8, read: &Read, executed: u64, replies: u8) -> Outbox {
        let one = [1, 0, 0, 0, b'r'];
        let results = ReadResults {
            replica: ReplicaId(replica),
            incarnation: read.incarnation,
            group: read.group,
            first: read.first,
            executed: Watermark(executed),
            replies: Payload::copy(&one.repeat(replies.into())),
        };
        let now = self.now;
        let out = out_of(|out| self.gateway.on_read_results(&results, now, out));
        self.gateway.validate();
        out
    }

    fn pass(&mut self, time: Duration) -> Outbox {
        self.now = self.now + time;
        let now = self.now;
        let out = out_of(|out| self.gateway.on_time(now, out));
        self.gateway.validate();
        out
    }
}

/// The acceptors that are asked how far they have voted, and by which probes.
fn probed(out: &Outbox) -> Vec<(u8, u64)> {
    pick!(out.sends, Acceptor(ToAcceptor::PreRead)).iter().map(|(a, p)| (a.0, p.probe)).collect()
}

/// The replicas that are asked, of what they must have executed, and for how many answers.
fn asked(out: &Outbox) -> Vec<(u8, u64, usize)> {
    let reads = pick!(out.sends, Replica(ToReplica::Read));
    let count = |read: &Read| Items::new(read.queries.as_slice()).count();
    reads.iter().map(|(r, read)| (r.0, read.at_least.0, count(read))).collect()
}

fn only_read(out: &Outbox) -> Arc<Read> {
    Arc::clone(pick!(out.sends, Replica(ToReplica::Read)).first().expect("a replica is asked").1)
}

/// The tags that were answered, each with the slot that its reply reflects.
fn answered(out: &Outbox) -> Vec<(u64, u64)> {
    let replies = out.replies.iter();
    replies.map(|(c, reply)| (c.tag, reply.expect("a reply").0.slot.0)).collect()
}

#[test]
fn r19_only_acks_of_the_reads_own_probe_make_its_read_quorum() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(1, ReadLevel::Linearizable);
    assert_eq!(probed(&desk.flush()), [(0, 0), (2, 0)]);
    let nothing: [(u8, u64, usize); 0] = [];
    assert_eq!(asked(&desk.ack(0, 0, Some(4))), nothing);
    assert_eq!(asked(&desk.ack(0, 0, Some(4))), nothing, "the same acceptor again");
    assert_eq!(asked(&desk.ack(1, 0, Some(4))), nothing, "one of another column");
    assert_eq!(asked(&desk.ack(2, 1, Some(9))), nothing, "of a probe that is not sent");
    let of_another_life = PreReadAck {
        acceptor: AcceptorId(2),
        directory: directory(2),
        incarnation: Incarnation(2),
        probe: 0,
        vote_watermark: None,
    };
    assert_eq!(asked(&desk.on_ack(of_another_life)), nothing);
    assert_eq!(asked(&desk.ack(2, 0, Some(3))), [(0, 5, 1)], "above the largest of its own");
    assert_eq!(asked(&desk.ack(3, 0, Some(30))), nothing, "it is being read");
}

#[test]
fn r04_a_vote_watermark_of_a_memory_that_is_not_the_tables_does_not_count() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(1, ReadLevel::Linearizable);
    desk.flush();
    desk.ack(0, 0, Some(4));
    let forgetful = PreReadAck {
        acceptor: AcceptorId(2),
        directory: directory(9),
        incarnation: LIFE,
        probe: 0,
        vote_watermark: None,
    };
    let out = desk.on_ack(forgetful);
    assert_eq!(asked(&out), []);
    assert_eq!(out.events, [Event::Forgotten { acceptor: AcceptorId(2) }]);
}

#[test]
fn r19_a_read_joins_only_a_probe_that_is_sent_after_it_came() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(1, ReadLevel::Linearizable);
    assert_eq!(probed(&desk.flush()), [(0, 0), (2, 0)]);
    desk.ack(0, 0, Some(9));
    // Slot 10 is chosen by {a2, a3} and answered. A read comes.
    desk.read(2, ReadLevel::Linearizable);
    let out = desk.ack(2, 0, Some(8));
    assert_eq!(asked(&out), [(0, 10, 1)], "the first one only");
    assert_eq!(probed(&desk.flush()), [(1, 1), (3, 1)], "the second has a probe of its own");
    desk.ack(1, 1, Some(9));
    assert_eq!(asked(&desk.ack(3, 1, Some(10))), [(1, 11, 1)], "of another replica");
}

#[test]
fn r19_all_reads_of_a_tick_share_a_probe() {
    let mut desk = Desk::new(grid(2, 2));
    (0..5).for_each(|tag| desk.read(tag, ReadLevel::Linearizable));
    assert_eq!(probed(&desk.flush()), [(0, 0), (2, 0)]);
    desk.ack(0, 0, None);
    let out = desk.ack(2, 0, None);
    assert_eq!(asked(&out), [(0, 0, 5)]);
    let out = desk.answer(0, &only_read(&out), 3, 5);
    assert_eq!(answered(&out), [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3)]);
    assert_eq!(desk.gateway.reads_unanswered(), 0);
}

/// No ack of a probe that was sent before would do: one that was sent after it does.
#[test]
fn r19_where_acks_are_late_all_others_are_asked_by_the_same_probe() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(1, ReadLevel::Linearizable);
    desk.flush();
    desk.ack(0, 0, Some(4));
    assert_eq!(probed(&desk.pass(millis(79))), []);
    assert_eq!(probed(&desk.pass(millis(1))), [(1, 0), (2, 0), (3, 0)], "not whom it has heard");
    desk.ack(1, 0, Some(6));
    let out = desk.ack(3, 0, Some(5));
    assert_eq!(only_read(&out).at_least, Watermark(7), "a0 had voted in slot 4, a1 in 6");
    // The acceptor that did not answer in time is left out, and only now and then asked again.
    for probe in 1..4 {
        desk.read(probe, ReadLevel::Linearizable);
        assert_eq!(probed(&desk.flush()), [(1, probe), (3, probe)]);
    }
    desk.now = desk.now + millis(100);
    desk.read(9, ReadLevel::Linearizable);
    assert_eq!(probed(&desk.flush()), [(1, 4), (2, 4), (3, 4)]);
    desk.ack(2, 4, None);
    desk.read(10, ReadLevel::Linearizable);
    assert_eq!(probed(&desk.flush()), [(1, 5), (3, 5)], "it is this column's turn");
    desk.read(11, ReadLevel::Linearizable);
    assert_eq!(probed(&desk.flush()), [(0, 6), (2, 6)], "it has answered");
}

#[test]
fn r19_an_acceptor_that_has_ended_is_not_waited_for() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(1, ReadLevel::Linearizable);
    desk.flush();
    desk.ack(0, 0, Some(4));
    let now = desk.now;
    let gone = |acceptor| RoleId::Acceptor(AcceptorId(acceptor));
    let out = out_of(|out| desk.gateway.on_gone(gone(3), now, out));
    assert_eq!(probed(&out), [], "it was not asked");
    let out = out_of(|out| desk.gateway.on_gone(gone(2), now, out));
    assert_eq!(probed(&out), [(1, 0), (2, 0), (3, 0)]);
}

#[test]
fn a_read_waits_for_the_table() {
    let mut gateway = Gateway::new(square(), GatewayId(0), LIFE, 7, START);
    let caller = Caller { client: ClientId(0), tag: 1 };
    let query = Query { level: ReadLevel::Eventual, bytes: b"q" };
    let out = out_of(|out| {
        gateway.read(caller, query, START, out);
        gateway.flush(START, out);
    });
    assert_eq!(asked(&out), []);
    let leading = heartbeat(&square(), B1, Stage::Leading);
    gateway.on_heartbeat(&leading, START, &mut Outbox::default());
    assert_eq!(asked(&out_of(|out| gateway.flush(START, out))), [(0, 0, 1)]);
}

#[test]
fn what_a_client_has_seen_is_asked_of_acceptors_only_where_no_replica_has_it_yet() {
    let mut desk = Desk::new(grid(2, 2));
    let seen = |seen| ReadLevel::Sequential { seen: Watermark(seen) };
    desk.read(1, seen(7));
    assert_eq!(probed(&desk.flush()), [(0, 0), (2, 0)], "seen by another gateway, perhaps");
    desk.ack(0, 0, Some(7));
    let out = desk.ack(2, 0, Some(7));
    assert_eq!(asked(&out), [(0, 8, 1)]);
    desk.answer(0, &only_read(&out), 8, 1);
    (0..3).for_each(|tag| desk.read(tag, seen(5 + tag)));
    desk.read(3, ReadLevel::Eventual);
    let out = desk.flush();
    assert_eq!((probed(&out), asked(&out)), (vec![], vec![(1, 7, 3), (2, 0, 1)]));
}

#[test]
fn a_group_is_answered_in_parts_that_never_go_back() {
    let mut desk = Desk::new(grid(2, 2));
    (0..5).for_each(|tag| desk.read(tag, ReadLevel::Eventual));
    let first = only_read(&desk.flush());
    let out = desk.answer(0, &first, 6, 2);
    assert_eq!(answered(&out), [(0, 6), (1, 6)]);
    assert_eq!(asked(&out), [(0, 6, 3)], "the rest reflects as much at least");
    let rest = only_read(&out);
    assert_eq!(answered(&desk.answer(0, &first, 6, 2)), [], "it comes twice");
    assert_eq!(answered(&desk.answer(1, &rest, 5, 3)), [], "an older state");
    assert_eq!(answered(&desk.answer(1, &rest, 9, 3)), [(2, 9), (3, 9), (4, 9)]);
    assert_eq!(answered(&desk.answer(0, &rest, 9, 3)), [], "all have their answers");
}

#[test]
fn r29_as_many_reads_are_under_way_as_commands_may_be() {
    let settings = Settings { session_window: 512, batch_commands_max: 2, ..grid(2, 2) };
    let mut desk = Desk::new(Settings { batches_in_flight_max: 2, ..settings });
    let now = desk.now;
    let read = |desk: &mut Desk, tag| {
        let query = Query { level: ReadLevel::Eventual, bytes: b"q" };
        let mut out = Outbox::default();
        let caller = Caller { client: ClientId(0), tag };
        let is_taken = desk.gateway.try_read(caller, query, now, &mut out);
        (is_taken, asked(&out))
    };
    let taken: Vec<_> = (0..7).map(|tag| read(&mut desk, tag)).collect();
    let expected = [
        (true, vec![]),
        (true, vec![]),
        (true, vec![(0, 0, 2)]),
        (true, vec![]),
        (true, vec![(1, 0, 2)]),
        (true, vec![]),
        (false, vec![]),
    ];
    assert_eq!(taken, expected, "two groups of two, and one that forms");
}

#[test]
fn a_replica_that_does_not_answer_is_left_out_and_another_is_asked() {
    let mut desk = Desk::new(grid(2, 2));
    desk.read(0, ReadLevel::Eventual);
    assert_eq!(asked(&desk.flush()), [(0, 0, 1)]);
    let out = desk.pass(millis(80));
    assert_eq!(asked(&out), [(1, 0, 1)]);
    assert!(pick!(out.sends, Proposer(ToProposer::FillTo)).is_empty(), "it waits for no slot");
    let now = desk.now;
    let out = out_of(|out| desk.gateway.on_gone(REPLICA(1), now, out));
    assert_eq!(asked(&out), [(2, 0, 1)]);
    let why = Halt::Malformed { slot: Slot(3) };
    let halted = |replica| {
        let (replica, incarnation) = (ReplicaId(replica), Incarnation(1));
        Halted { replica, incarnation, why: why.clone() }
    };
    let out = out_of(|out| desk.gateway.on_halted(halted(2), now, out));
    assert_eq!(asked(&out).len(), 1, "one that was suspected, for there is no other");
    for (replica, told) in [(0, 0), (1, 1)] {
        let out = out_of(|out| desk.gateway.on_halted(halted(replica), now, out));
        let failures: Vec<_> = out.replies.iter().filter_map(|(_, reply)| reply.err()).collect();
        assert_eq!(failures, vec![Failure::Halted(Arc::new(why.clone())); told]);
    }
    desk.gateway.validate();
}

/// What a replica answers: where it stood, and its replies.
fn results(out: &Outbox) -> Vec<(u64, Vec<String>)> {
    let said = pick!(out.sends, Gateway(ToGateway::ReadResults));
    let text = |results: &ReadResults| {
        let replies = ReplyItems::new(results.replies.as_slice());
        let text = |reply: Result<&[u8], _>| match reply {
            Ok(reply) => String::from_utf8_lossy(reply).into_owned(),
            Err(why) => format!("{why:?}"),
        };
        replies.map(text).collect()
    };
    said.iter().map(|(_, results)| (results.executed.0, text(results))).collect()
}

fn read_of(queries: &[&str], at_least: u64) -> Arc<Read> {
    let mut block = Vec::new();
    for query in queries {
        block.extend(u32::try_from(query.len()).expect("a short one").to_le_bytes());
        block.extend(query.as_bytes());
    }
    Arc::new(Read {
        gateway: GatewayId(0),
        incarnation: LIFE,
        group: 0,
        first: 0,
        at_least: Watermark(at_least),
        queries: Payload::copy(&block),
    })
}

fn ask(replica: &mut Replica<Echo>, read: Arc<Read>) -> Outbox {
    let out = out_of(|out| replica.on_read(read, START, out));
    replica.validate();
    out
}

/// Has a replica execute slots of no commands up to a bound.
fn execute(replica: &mut Replica<Echo>, to: u64) -> Outbox {
    out_of(|out| {
        for slot in replica.executed().0..to {
            let value = loggos_protocol::Value::noop(START);
            let chosen = loggos_protocol::Chosen { slot: Slot(slot), ballot: B1, value };
            replica.on_chosen(chosen, START, out);
            replica.validate();
        }
    })
}

#[test]
fn a_replica_answers_once_it_has_executed_enough_and_not_sooner() {
    let mut replica = replica(&square(), 0);
    assert_eq!(results(&ask(&mut replica, read_of(&["a"], 0))), [(0, vec!["a@0".to_owned()])]);
    for at_least in [3, 2, 4] {
        assert_eq!(results(&ask(&mut replica, read_of(&["a", "b"], at_least))), []);
    }
    let both = vec!["a@0".to_owned(), "b@0".to_owned()];
    assert_eq!(results(&execute(&mut replica, 1)), []);
    assert_eq!(results(&execute(&mut replica, 3)), [(2, both.clone()), (3, both.clone())]);
    assert_eq!(results(&execute(&mut replica, 6)), [(4, both)]);
}

#[test]
fn a_query_that_is_none_or_panics_has_no_reply_and_the_others_do() {
    let mut replica = replica(&square(), 0);
    let read = read_of(&["a", "panic", "command", "b"], 0);
    let said = results(&ask(&mut replica, read));
    let expected = ["a@0", "Panicked", "NotAQuery", "b@0"].map(str::to_owned);
    assert_eq!(said, [(0, expected.to_vec())]);
    assert!(replica.halted().is_none());
    assert_eq!((replica.counters().queries, replica.counters().queries_panicked), (4, 1));
}

#[test]
fn r29_replies_to_reads_that_are_long_come_in_parts() {
    let settings = Settings { results_bytes_max: 64, ..grid(2, 2) };
    let mut replica = replica(&checked(settings), 0);
    let long = "q".repeat(30);
    let said = results(&ask(&mut replica, read_of(&[&long[..]; 5], 0)));
    assert_eq!(said, [(0, vec![format!("{long}@0"); 2])]);
    let said = results(&ask(&mut replica, read_of(&[&"q".repeat(1000)[..]; 5], 0)));
    assert_eq!(said[0].1.len(), 1, "one at the least");
}

#[test]
fn r20_a_read_that_waits_has_the_slots_it_waits_for_asked_for() {
    let mut replica = replica(&square(), 0);
    execute(&mut replica, 2);
    ask(&mut replica, read_of(&["a"], 4));
    assert!(replica.timers().is_set(ReplicaTimer::Gap));
    let out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, START + millis(20), out));
    let fetches = pick!(out.sends, Replica(ToReplica::Fetch));
    assert_eq!(fetches.iter().map(|(_, fetch)| fetch.first).collect::<Vec<_>>(), [Slot(2)]);
    execute(&mut replica, 4);
    let out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, START + millis(40), out));
    assert_eq!(out.sends, [], "nothing is missing any more");
}

#[test]
fn r29_no_more_reads_wait_at_a_replica_than_gateways_have_under_way() {
    let settings = Settings { batches_in_flight_max: 3, ..grid(2, 2) };
    let mut replica = replica(&checked(settings), 0);
    (5..10).for_each(|at_least| drop(ask(&mut replica, read_of(&["a"], at_least))));
    assert_eq!((replica.counters().reads_waited, replica.counters().reads_refused), (3, 2));
    assert_eq!(results(&execute(&mut replica, 20)).len(), 3);
}

fn fill(leader: &mut Proposer, to: u64) -> Outbox {
    let fill = FillTo { gateway: GatewayId(0), to: Watermark(to) };
    out_of(|out| leader.tell(ToProposer::FillTo(fill), START, out))
}

/// The no-ops that are asked for.
fn noops(out: &Outbox) -> Vec<u64> {
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    assert!(p2as.iter().all(|(_, p2a)| p2a.value.is_noop() && p2a.is_recovered), "{p2as:?}");
    p2as.iter().map(|(_, p2a)| p2a.slot.0).collect()
}

#[test]
fn r20_a_leader_fills_slots_that_reads_wait_for_once_and_none_far_ahead() {
    let mut leader = leader(&checked(small()));
    assert_eq!(noops(&fill(&mut leader, 3)), [0, 1, 2]);
    assert_eq!(noops(&fill(&mut leader, 3)), [], "they have their value");
    assert_eq!(noops(&fill(&mut leader, 2)), []);
    assert_eq!(noops(&fill(&mut leader, 5)), [3, 4]);
    let out = fill(&mut leader, 5 + 8 + 1);
    let refused = Event::FillRefused { gateway: GatewayId(0), to: Watermark(14), next: Slot(5) };
    assert_eq!((noops(&out), out.events), (vec![], vec![refused]), "more than a window");
    assert_eq!(noops(&fill(&mut leader, 5 + 8)), [5, 6, 7], "as far as there is credit");
    let out = out_of(|out| leader.tell_executed(&harness::executed(0, 1, 4), START, out));
    assert_eq!(noops(&out), []);
    let out = out_of(|out| {
        leader.tell_executed(&harness::executed(1, 1, 4), START, out);
        leader.tell_executed(&harness::executed(2, 1, 4), START, out);
    });
    assert_eq!(noops(&out), [8, 9, 10, 11], "the rest, when there is");
}

#[test]
fn r20_a_batch_fills_a_slot_as_well_as_a_no_op() {
    let mut leader = leader(&square());
    fill(&mut leader, 2);
    let propose = harness::propose(harness::batch(0));
    let out = out_of(|out| leader.tell_propose(propose, START, out));
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    assert_eq!(p2as.iter().map(|(_, p2a)| p2a.slot.0).collect::<Vec<_>>(), [2]);
    assert!(!p2as[0].1.is_recovered, "it is proposed for the first time");
    assert_eq!(noops(&fill(&mut leader, 3)), [], "slot 2 has a value");
}

#[test]
fn r20_a_proposer_that_does_not_lead_fills_nothing() {
    let mut proposer = proposer(&square(), 1);
    assert_eq!(fill(&mut proposer, 3).sends, []);
}

const PROPOSER_0: RoleId = RoleId::Proposer(ProposerId(0));

/// An acceptor has voted for what its leader got no further with; the next leader does not hear of
/// it, and nobody writes.
#[test]
fn r20_a_read_that_waits_for_a_slot_nobody_fills_is_answered() {
    let mut net = Net::new(Settings { gateways: 2, ..grid(2, 2) });
    net.write(1);
    let is_old_p2a = |to: &To| {
        let To::Acceptor(id, ToAcceptor::P2a(p2a)) = to else { return false };
        *id != AcceptorId(0) && p2a.ballot.proposer == ProposerId(0)
    };
    net.lose(move |_, to| is_old_p2a(to));
    net.submit(2, "lost");
    net.tick();
    net.stop(PROPOSER_0);
    // Its gateway would send that again, or open a session there.
    net.stop(RoleId::Gateway(GatewayId(0)));
    net.lose(move |from, to| {
        let is_promise = matches!(to, To::Proposer(_, ToProposer::P1b(_)));
        is_promise && from == RoleId::Acceptor(AcceptorId(0)) || is_old_p2a(to)
    });
    net.run_for(millis(2000));
    assert!(net.proposer(1).is_leading());
    net.lose(|_, _| false);
    let next = net.replicas().map(Replica::executed).max();
    for tag in 10..14 {
        net.read(1, tag, ReadLevel::Linearizable, "q");
    }
    net.run_for(millis(3000));
    let answered: Vec<_> = net.replies().into_iter().filter(|(tag, _)| *tag >= 10).collect();
    let expected: Vec<_> = (10..14).map(|tag| (tag, "q@1".to_owned())).collect();
    let mut sorted = answered;
    sorted.sort();
    assert_eq!(sorted, expected);
    assert!(next < net.replicas().map(Replica::executed).max(), "slots were filled");
    assert!(net.count(|_, to| matches!(to, To::Proposer(_, ToProposer::FillTo(_)))) > 0);
}

#[test]
fn reads_reflect_what_was_answered_before_and_take_turns_at_replicas() {
    let mut net = Net::new(grid(2, 2));
    for tag in 1..=9 {
        net.write(tag);
        net.read(0, 100 + tag, ReadLevel::Linearizable, "q");
    }
    let reads: Vec<_> = net.replies().into_iter().filter(|(tag, _)| *tag > 100).collect();
    let expected: Vec<_> = (1..=9).map(|n| (100 + n, format!("q@{n}"))).collect();
    assert_eq!(reads, expected);
    let at = |replica| {
        net.count(|from, to| {
            from == REPLICA(replica) && matches!(to, To::Gateway(_, ToGateway::ReadResults(_)))
        })
    };
    assert_eq!([at(0), at(1), at(2)], [3, 3, 3]);
}

/// The reason for R19's incarnation: what a former life asked is answered to nobody.
#[test]
fn r19_answers_to_a_former_life_of_a_gateway_count_for_nothing() {
    let mut net = Net::new(grid(2, 2));
    net.write(1);
    net.lose(|_, to| matches!(to, To::Acceptor(_, ToAcceptor::PreRead(_))));
    net.read(0, 5, ReadLevel::Linearizable, "q");
    let sent: Vec<_> = net.sent.iter().map(|(_, to)| to.clone()).collect();
    let late = pick!(sent, Acceptor(ToAcceptor::PreRead));
    assert_eq!(late.len(), 2);
    net.stop(RoleId::Gateway(GatewayId(0)));
    net.start(RoleId::Gateway(GatewayId(0)));
    net.run_for(millis(100));
    net.read(0, 6, ReadLevel::Linearizable, "q");
    let now = net.now;
    for (acceptor, pre_read) in late {
        let message = ToAcceptor::PreRead(*pre_read);
        net.step(RoleId::Acceptor(acceptor), |role, out| {
            let formation = role.formation();
            let to = To::Acceptor(acceptor, message);
            role.on_envelope(loggos_protocol::Envelope { formation, to }, now, out);
        });
    }
    net.run_for(Duration::ZERO);
    let reads = |net: &Net| net.replies().into_iter().filter(|(tag, _)| *tag > 4).count();
    assert_eq!(reads(&net), 0, "no acceptor has answered its own probe");
    net.lose(|_, _| false);
    net.run_for(millis(500));
    assert_eq!(reads(&net), 1);
}
