//! What roles count is what they did: each situation comes up once or twice here, and nothing else
//! is counted.

mod harness;

use harness::{
    B1, B2, B3, Net, ProposerMessages, START, acceptor, ask_pre_votes, batch, batch_id, campaign,
    checked, directory, executed, grid, heartbeat, introduce, leader, millis, p1a, p1b, p2a, p2b,
    proposer, proxy_leader, replica, small, square, truncate, value, vote,
};
use loggos_protocol::{
    Acceptor, AcceptorCounters, AcceptorId, Ballot, Batch, BatchId, BatchWriter, Caller, Chosen,
    ClientId, Content, DirectoryId, Fetched, Form, Gateway, GatewayCounters, GatewayId,
    GatewayTimer, Heartbeat, Incarnation, LogRoom, Nack, Need, Outbox, P2a, P2b, Payload,
    PreVoteAck, ProposerCounters, ProposerId, ProposerTimer, ProxyLeaderCounters, ProxyLeaderTimer,
    ReplicaCounters, ReplicaId, ReplicaTimer, ResultWriter, Results, Role, SessionId, Settings,
    Slot, Stage, Time, Value, Watermark,
};

const SESSION: SessionId = SessionId { slot: Slot(0), index: 0 };

/// A heartbeat of a cluster with other quorums.
fn stranger() -> Heartbeat {
    heartbeat(&checked(grid(2, 3)), B2, Stage::Leading)
}

#[test]
fn without_trouble_only_work_is_counted() {
    let mut net = Net::new(grid(2, 2));
    (1..=3).for_each(|tag| net.write(tag));
    (4..=5).for_each(|tag| net.submit(tag, "in one batch"));
    net.tick();
    let (mut chosen, mut votes, mut answers) = (0, 0, 0);
    for role in net.roles.values() {
        match role {
            Role::Gateway(role) => assert_eq!(
                role.counters(),
                GatewayCounters { commands: 5, replies: 5, batches: 4, ..Default::default() }
            ),
            Role::Proposer(role) if role.id() == ProposerId(0) => assert_eq!(
                role.counters(),
                ProposerCounters {
                    proposed: 5, // the session's opening is one
                    pre_votes: 1,
                    campaigns: 1,
                    elections: 1,
                    ..Default::default()
                }
            ),
            Role::Proposer(role) => assert_eq!(role.counters(), ProposerCounters::default()),
            Role::ProxyLeader(role) => {
                let all = role.counters();
                assert_eq!(all, ProxyLeaderCounters { chosen: all.chosen, ..Default::default() });
                chosen += all.chosen;
            }
            Role::Acceptor(role) => {
                let all = role.counters();
                let work = AcceptorCounters { votes: all.votes, promises: 1, ..Default::default() };
                assert_eq!(all, work);
                votes += all.votes;
            }
            Role::Replica(role) => {
                let all = role.counters();
                let (slots, commands, answers_now) = (5, 5, all.answers);
                let work =
                    ReplicaCounters { slots, commands, answers: answers_now, ..Default::default() };
                assert_eq!(all, work);
                answers += answers_now;
            }
        }
    }
    assert_eq!(
        (chosen, votes, answers),
        (5, 10, 5),
        "a slot takes one row, and one replica answers"
    );
}

#[test]
fn an_acceptor_counts_what_it_refuses() {
    let (mut acceptor, mut out) = (acceptor(&square(), 0), Outbox::default());
    acceptor.on_p1a(p1a(B2), START, &mut out);
    (0..2).for_each(|_| acceptor.on_p2a(p2a(B2, 0), START, &mut out));
    acceptor.on_p2a(P2a { value: value(9), ..p2a(B2, 0) }, START, &mut out);
    acceptor.on_p2a(p2a(B1, 1), START, &mut out);
    acceptor.on_p2a(p2a(B2, u64::from(square().ring_slots())), START, &mut out);
    acceptor.set_room(LogRoom::Low);
    acceptor.on_p2a(p2a(B2, 3), START, &mut out);
    truncate(&mut acceptor, 1);
    acceptor.on_p2a(p2a(B2, 0), START, &mut out);
    acceptor.on_heartbeat(&stranger(), START, &mut out);
    let all = AcceptorCounters {
        votes: 2,
        repeated_votes: 1,
        promises: 1,
        nacks: 1,
        truncated: 1,
        above_window: 1,
        refused_low: 1,
        equivocations: 1,
        foreign: 1,
    };
    assert_eq!(acceptor.counters(), all);
}

#[test]
fn an_acceptor_without_a_table_counts_all_as_foreign() {
    let mut acceptor = Acceptor::new(square(), AcceptorId(0), DirectoryId(7), 0);
    acceptor.on_p1a(p1a(B1), START, &mut Outbox::default());
    assert_eq!(acceptor.counters().foreign, 1, "a P1a");
    let form = Form { proposer: ProposerId(0), table: harness::table(&square()) };
    acceptor.on_form(&form, &mut Outbox::default());
    assert_eq!(acceptor.counters().foreign, 2, "a table that names another memory");
}

#[test]
fn a_proxy_leader_counts_what_it_refuses_repeats_and_gives_up() {
    let (mut proxy_leader, mut out) = (proxy_leader(&square()), Outbox::default());
    proxy_leader.on_p2a(p2a(B2, 0), START, &mut out);
    proxy_leader.on_p2a(P2a { value: value(9), ..p2a(B2, 0) }, START, &mut out);
    proxy_leader.on_p2a(p2a(B1, 0), START, &mut out);
    proxy_leader.on_p2b(p2b(0, B1, 0), START, &mut out);
    proxy_leader.on_p2b(P2b { directory: directory(9), ..p2b(0, B2, 0) }, START, &mut out);
    (0..2).for_each(|acceptor| proxy_leader.on_p2b(p2b(acceptor, B2, 0), START, &mut out));
    proxy_leader.on_p2a(p2a(B2, 0), START, &mut out);
    proxy_leader.on_p2a(p2a(B2, 2), START, &mut out);
    proxy_leader.on_p2b(p2b(0, B2, 2), START, &mut out);
    proxy_leader.on_timeout(ProxyLeaderTimer::Retry, START + millis(1000), &mut out);
    proxy_leader.on_nack(Nack { slot: Some(Slot(2)), refused: B2, promised: B3 }, &mut out);
    let all = ProxyLeaderCounters {
        chosen: 1,
        chosen_again: 1,
        retries: 1,
        stale_p2as: 1,
        equivocations: 1,
        stale_p2bs: 1,
        preempted: 1,
        suspicions: 1,
        foreign: 1,
    };
    assert_eq!(proxy_leader.counters(), all);
    proxy_leader.on_heartbeat(&stranger(), &mut out);
    assert_eq!(proxy_leader.counters().foreign, 2);
}

#[test]
fn a_leader_counts_what_it_fills_resends_and_drops() {
    let (cluster, mut out) = (checked(small()), Outbox::default());
    let mut leader = proposer(&cluster, 0);
    (0..3).for_each(|replica| drop(introduce(&mut leader, replica, 1, 0, START)));
    leader.tell_propose(harness::propose(batch(0)), START, &mut out);
    campaign(&cluster, &mut leader, Ballot::default(), START);
    leader.tell_p1b(p1b(0, B1, vec![vote(1, Ballot::default(), 50)]), START, &mut out);
    leader.tell_p1b(p1b(2, B1, vec![]), START, &mut out);
    (0..12)
        .chain([0])
        .for_each(|number| leader.tell_propose(harness::propose(batch(number)), START, &mut out));
    let id = BatchId { gateway: GatewayId(7), ..batch_id(1) };
    leader.tell_propose(harness::propose(Batch { id, ..batch(1) }), START, &mut out);
    leader.on_timeout(ProposerTimer::Resend, START + millis(2000), &mut out);
    let all = ProposerCounters {
        proposed: 6, // a window of 8, of which 2 are recovered
        resent: 4,
        noops: 1,
        pre_votes: 1,
        campaigns: 1,
        elections: 1,
        not_leader: 1,
        duplicates: 1,
        foreign: 1,
        ..Default::default()
    };
    assert_eq!(leader.counters(), all);
}

#[test]
fn a_proposer_counts_what_ends_its_reigns() {
    let (mut leader, mut out) = (leader(&square()), Outbox::default());
    leader.tell_nack(Nack { slot: None, refused: B1, promised: B2 }, START, &mut out);
    assert_eq!((leader.counters().preemptions, leader.is_leading()), (1, false));
    ask_pre_votes(&mut leader, START + millis(5000));
    assert_eq!(leader.counters().pre_votes, 2);

    let mut leader = harness::leader(&square());
    leader.tell_heartbeat(&heartbeat(&square(), B2, Stage::Leading), START, &mut out);
    assert_eq!((leader.counters().preemptions, leader.is_leading()), (1, false));
    leader.tell_heartbeat(&stranger(), START, &mut out);
    leader.tell_pre_vote_ack(
        PreVoteAck { directory: directory(9), ..harness::quiet(0, 1, B1) },
        START,
        &mut out,
    );
    assert_eq!(leader.counters().foreign, 2);

    let mut leader = harness::leader(&square());
    (0..2).for_each(|number| leader.tell_propose(harness::propose(batch(number)), START, &mut out));
    (0..2).for_each(|replica| leader.tell_executed(&executed(replica, 1, 2), START, &mut out));
    let need = Need { replica: ReplicaId(2), incarnation: Incarnation(1), slot: Slot(0) };
    leader.tell_need(need, START, &mut out);
    let counters = leader.counters();
    assert_eq!((counters.reruns, counters.campaigns, counters.elections), (1, 2, 1));
}

#[test]
fn a_replica_counts_what_it_executes_and_what_it_was_told_in_vain() {
    let cluster = checked(small());
    let (mut replica, mut out) = (replica(&cluster, 0), Outbox::default());
    let of = |block: Payload, number| {
        let batch = Batch { checksum: block.checksum(), block, ..batch(number) };
        Value { stamp: START, content: Content::Batch(batch.into()) }
    };
    let commands = |first, count| {
        let mut writer = BatchWriter::default();
        for _ in 0..count {
            writer.push(b"x");
        }
        writer.close(SESSION, first, 0)
    };
    let values = [
        of(BatchWriter::open(GatewayId(0), Incarnation(1)), 0),
        of(commands(0, 2), 1),
        of(commands(0, 2), 2), // answered again
        of(commands(9, 1), 3), // out of order
        Value::noop(START),
    ];
    let chosen = |slot: usize| {
        let value = values[slot].clone();
        Chosen { slot: Slot(slot as u64), ballot: B1, value }
    };
    for slot in [0, 1, 1, 3, 3] {
        replica.on_chosen(chosen(slot), START, &mut out);
    }
    let value = Value::noop(START);
    replica.on_chosen(Chosen { slot: Slot(99), ballot: B1, value }, START, &mut out);
    (1..3).for_each(|n| replica.on_timeout(ReplicaTimer::Gap, START + millis(20 * n), &mut out));
    let (slots, executed) = (vec![(B1, values[2].clone())], Watermark(3));
    let fetched = Fetched { replica: ReplicaId(1), first: Slot(2), slots, executed };
    replica.on_fetched(fetched, START, &mut out);
    replica.on_chosen(chosen(4), START, &mut out);
    replica.on_heartbeat(&stranger(), START, &mut out);
    let all = ReplicaCounters {
        slots: 5,
        noops: 1,
        commands: 2,
        repeated_runs: 1,
        refused_runs: 1,
        answers: 4,
        repeated_slots: 2,
        above_window: 1,
        gaps: 1,
        fetched: 1,
        foreign: 1,
        ..Default::default()
    };
    assert_eq!(replica.counters(), all);
    let unknown = SessionId { slot: Slot(3), index: 0 };
    let mut writer = BatchWriter::default();
    writer.push(b"x");
    let value = of(writer.close(unknown, 0, 0), 5);
    replica.on_chosen(Chosen { slot: Slot(5), ballot: B1, value }, START, &mut out);
    assert_eq!(replica.counters().refused_runs, 2);
}

#[test]
fn a_gateway_counts_what_it_sends_again_asks_and_refuses() {
    let settings = Settings { batch_commands_max: 1, batches_in_flight_max: 1, ..grid(2, 2) };
    let cluster = checked(settings);
    let mut gateway = Gateway::new(cluster.clone(), GatewayId(0), Incarnation(1), 5, Time(0));
    let mut out = Outbox::default();
    gateway.on_heartbeat(&stranger(), START, &mut out);
    gateway.on_heartbeat(&heartbeat(&cluster, B1, Stage::Leading), START, &mut out);
    let results = |number, attempt, write: &dyn Fn(&mut ResultWriter)| {
        let mut writer = ResultWriter::default();
        write(&mut writer);
        let (replica, batch, slot) = (ReplicaId(0), batch_id(number), Slot(9));
        Results { replica, batch, attempt, slot, outcomes: writer.take() }
    };
    gateway.on_results(&results(0, 0, &|w| w.opened(SESSION)), START, &mut out);
    for tag in 0..3 {
        let caller = Caller { client: ClientId(0), tag };
        gateway.submit(caller, b"x".into(), START, &mut out);
        gateway.flush(START, &mut out);
    }
    let out_of_order = |attempt| results(1, attempt, &|w| w.out_of_order(SESSION, 0));
    gateway.on_results(&out_of_order(0), START, &mut out);
    gateway.on_results(&out_of_order(0), START, &mut out);
    gateway.on_results(&results(1, 1, &|w| w.trimmed(SESSION)), START, &mut out);
    gateway.on_results(&results(0, 0, &|w| w.opened(SESSION)), START, &mut out);
    gateway.on_timeout(GatewayTimer::Resend, START + millis(1000), &mut out);
    let all = GatewayCounters {
        commands: 2,
        batches: 1,
        resends: 1,
        asks: 1,
        busy: 1,
        out_of_order: 1,
        stale_results: 3,
        foreign: 1,
        ..Default::default()
    };
    assert_eq!(gateway.counters(), all);
    gateway.on_results(&results(1, 1, &|w| w.unknown_session(SESSION)), START, &mut out);
    assert_eq!(gateway.counters().sessions_lost, 1);
}
