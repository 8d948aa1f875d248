//! R16: replicas that miss more than the log that is left, and are brought up by the state of a
//! peer.

mod harness;

use std::cell::RefCell;
use std::rc::Rc;

use harness::{Echo, Net, REPLICA, millis, pick, small, worked};
use loggos_protocol::{
    Ask, At, BatchId, Chosen, Event, FetchPart, FetchedPart, FormationId, GatewayId, Halt,
    Heartbeat, Incarnation, Outbox, Payload, Replica, ReplicaId, Reply, Role, Settings, Slot,
    SnapshotId, SnapshotInfo, Stage, StateMachine, To, ToGateway, ToReplica, Value, Watermark,
};

fn settings() -> Settings {
    Settings { snapshot_part_bytes: 100, ..small() }
}

/// A cluster whose replica 2 has missed more than the others hold of the log, and is still cut off.
fn with_one_left_behind() -> Net {
    left_behind(settings())
}

fn left_behind(settings: Settings) -> Net {
    let mut net = worked(Net::new(settings), 10);
    net.cut_off(REPLICA(2));
    net.run_for(2 * net.cluster.replica_grace); // it holds no credit any more
    let net = worked(net, 200);
    let missed = net.replica(0).executed().0 - net.replica(2).executed().0;
    assert!(missed > u64::from(net.cluster.ring_slots()), "{missed} slots are held by its peers");
    net
}

fn are_equal(net: &Net) -> bool {
    let mut replicas = net.replicas().map(|replica| (replica.executed(), replica.machine()));
    let first = replicas.next().expect("a replica is up");
    replicas.all(|other| (other.0, &other.1.executed) == (first.0, &first.1.executed))
}

fn assert_brought_up(net: &Net) {
    assert!(are_equal(net), "{:?}", net.replica(2));
    assert_eq!(net.replica(2).counters().restored, 1, "by one snapshot");
}

/// The snapshots that all replicas have written.
fn snapshots(net: &Net) -> u64 {
    net.replicas().map(|replica| replica.counters().snapshots).sum()
}

/// The part of a snapshot that a message carries, if it does.
fn sent_part(to: &To) -> Option<&FetchedPart> {
    let To::Replica(_, ToReplica::FetchedPart(part)) = to else { return None };
    part.info.is_some().then_some(part)
}

fn step_replica(net: &mut Net, id: u8, act: impl FnOnce(&mut Replica<Echo>, &mut Outbox)) {
    net.step(REPLICA(id), |role, out| {
        let Role::Replica(replica) = role else { unreachable!("it is a replica") };
        act(replica, out);
    });
}

/// Lets time pass until `is_so`, for a minute at the most.
fn run_until(net: &mut Net, is_so: impl Fn(&Net) -> bool) {
    for _ in 0..60_000 {
        if is_so(net) {
            return;
        }
        net.run_for(millis(1));
    }
    panic!("a minute has passed: {:?}", net.replica(2));
}

#[test]
fn r16_a_replica_that_has_missed_more_than_is_held_gets_the_state_of_a_peer() {
    let mut net = with_one_left_behind();
    net.deliver(|_, _| 1);
    net.run_for(millis(3000));
    assert_brought_up(&net);
    net.write(1000);
    assert!(are_equal(&net), "and goes on with the others");
}

#[test]
fn r16_a_replica_that_is_started_blank_comes_back_again_and_again() {
    let mut net = worked(Net::new(settings()), 200);
    for round in 0..6 {
        let replica = round % 3;
        net.stop(REPLICA(replica));
        net = worked(net, 20);
        net.start(REPLICA(replica));
        net = worked(net, 20);
        net.run_for(millis(3000));
        assert!(are_equal(&net), "round {round}: {:?}", net.replica(replica));
    }
    assert_eq!(net.replies().len(), 200 + 6 * 40, "each command was answered, once");
}

/// While parts are on their way the cluster goes on, and what it executes is kept for the asker.
#[test]
fn r16_the_donor_keeps_the_log_above_its_snapshot_and_changes_nothing_in_it() {
    let slow = Settings { transfer_bytes_per_second_max: 4_000, ..settings() };
    let mut net = left_behind(slow);
    net.deliver(|_, _| 1);
    let mut net = worked(net, 400);
    net.run_for(millis(3000));
    assert_brought_up(&net);
    assert_eq!(snapshots(&net), 1, "one was enough");
}

#[test]
fn r16_a_log_above_the_snapshot_that_outgrows_its_bound_is_let_go() {
    let bounded = Settings {
        transfer_bytes_per_second_max: 4_000,
        transfer_log_bytes_max: 400,
        ..settings()
    };
    let mut net = left_behind(bounded);
    net.deliver(|_, _| 1);
    let mut net = worked(net, 400);
    assert_eq!(snapshots(&net), 0, "400 commands are more than a donor keeps");
    net.run_for(millis(20_000));
    assert_brought_up(&net);
}

/// The state machine stays frozen until all is written: to freeze it again before that would mix
/// two states.
#[test]
fn r16_what_is_frozen_is_written_to_its_end_though_nobody_asks_for_it_any_more() {
    let mut net = left_behind(Settings { transfer_bytes_per_second_max: 300, ..settings() });
    let ask = |net: &mut Net| {
        let (replica, now) = (ReplicaId(2), net.now);
        let fetch = FetchPart { replica, snapshot: None, part: 0, beyond: Watermark(0) };
        step_replica(net, 0, |replica, out| replica.on_fetch_part(fetch, now, out));
    };
    for _ in 0..5 {
        ask(&mut net);
        net.run_for(4 * net.cluster.replica_grace);
    }
    assert_eq!(net.replica(0).counters().snapshots, 0, "no peer asks for long enough");
}

#[test]
fn r16_parts_that_are_lost_doubled_and_late_are_asked_for_again() {
    let mut net = with_one_left_behind();
    let mut count = 0;
    net.deliver(move |_, to| {
        count += 1;
        let is_of_transfer =
            matches!(to, To::Replica(_, ToReplica::FetchPart(_) | ToReplica::FetchedPart(_)));
        if is_of_transfer { count % 3 } else { 1 }
    });
    net.run_for(millis(20_000));
    assert_brought_up(&net);
    assert_eq!(net.replica(2).counters().transfers, 1, "of one snapshot");
}

#[test]
fn r16_a_donor_that_is_lost_is_replaced_and_the_transfer_starts_over() {
    let mut net = with_one_left_behind();
    // No donor sends a part beyond 5 of what it sends first.
    let donor = Rc::new(RefCell::new(None));
    let first = Rc::clone(&donor);
    net.lose(move |from, to| {
        sent_part(to).is_some_and(|it| {
            let mut first = first.borrow_mut();
            *first.get_or_insert(from) == from && it.part > 5
        })
    });
    net.run_for(millis(10_000));
    assert_brought_up(&net);
    let counters = net.replica(2).counters();
    assert_eq!((counters.transfers, counters.transfers_abandoned), (2, 1));
    let donors = [0, 1].map(|id| net.replica(id).counters().snapshots);
    assert_eq!(donors, [1, 1], "the first and another");
}

#[test]
fn r16_a_donor_that_starts_over_has_none_of_its_former_lifes_snapshot() {
    let mut net = with_one_left_behind();
    net.lose(|_, to| sent_part(to).is_some_and(|it| it.part > 5));
    net.run_for(millis(1000));
    for donor in [0, 1] {
        if net.replica(donor).counters().snapshots > 0 {
            net.stop(REPLICA(donor));
            net.start(REPLICA(donor));
        }
    }
    net.deliver(|_, _| 1);
    net.run_for(millis(20_000));
    assert!(are_equal(&net), "{net:?}");
}

/// A transfer that has just begun: its first two parts have arrived.
fn begun() -> (Net, SnapshotInfo, Vec<FetchedPart>) {
    let mut net = with_one_left_behind();
    let sent = Rc::new(RefCell::new(Vec::new()));
    let parts = Rc::clone(&sent);
    net.lose(move |_, to| {
        sent_part(to).is_some_and(|it| {
            parts.borrow_mut().push(it.clone());
            it.part > 1
        })
    });
    net.run_for(millis(1000));
    let mut parts = sent.take();
    parts.sort_by_key(|part| part.part);
    parts.dedup();
    let info = parts[0].info.expect("it has parts");
    assert!(info.parts > 100, "{info:?}");
    (net, info, parts)
}

#[test]
fn r16_a_part_of_another_snapshot_is_not_taken() {
    let (mut net, info, parts) = begun();
    net.deliver(|_, _| 1);
    let now = net.now;
    step_replica(&mut net, 2, |replica, out| {
        let id = SnapshotId { at: Watermark(info.id.at.0 + 1), ..info.id };
        let other = SnapshotInfo { id, ..info };
        let bytes = Payload::copy(b"another's");
        let part = FetchedPart { snapshot: Some(id), info: Some(other), bytes, ..parts[2].clone() };
        replica.on_fetched_part(part, now, out);
        let (info, bytes) = (parts[2].info, Payload::copy(b"a stranger's"));
        let stranger = FetchedPart { replica: ReplicaId(3), info, bytes, ..parts[2].clone() };
        replica.on_fetched_part(stranger, now, out);
        assert!(pick!(out.sends, Replica(ToReplica::FetchPart)).is_empty());
    });
    net.run_for(millis(5000));
    assert_brought_up(&net);
    assert_eq!(
        net.replica(2).counters().transfers_abandoned,
        0,
        "the digest was that of one snapshot"
    );
}

#[test]
fn r16_nothing_of_a_snapshot_is_used_when_a_part_is_not_as_it_was_written() {
    let (mut net, info, parts) = begun();
    net.deliver(|_, _| 1);
    let (now, executed) = (net.now, net.replica(2).executed());
    let state = net.replica(2).machine().clone();
    step_replica(&mut net, 2, |replica, out| {
        let bytes = Payload::copy(b"damaged");
        replica.on_fetched_part(FetchedPart { bytes, ..parts[2].clone() }, now, out);
    });
    run_until(&mut net, |net| {
        let replica = net.replica(2);
        assert!(!replica.is_restoring(), "restored from half of {info:?}");
        assert_eq!((replica.executed(), replica.machine()), (executed, &state));
        replica.counters().transfers_abandoned > 0
    });
    net.run_for(millis(5000));
    assert_brought_up(&net);
}

#[test]
fn r04_a_snapshot_of_another_formation_is_not_taken() {
    let (mut net, info, parts) = begun();
    let now = net.now;
    step_replica(&mut net, 2, |replica, out| {
        let foreign = SnapshotInfo { formation: FormationId(99), ..info };
        let part = FetchedPart { info: Some(foreign), ..parts[2].clone() };
        replica.on_fetched_part(part, now, out);
        assert!(pick!(out.sends, Replica(ToReplica::FetchPart)).is_empty());
    });
}

/// No role may take a state for that of a slot while it is being restored.
#[test]
fn r16_a_replica_that_restores_reports_and_answers_nothing_of_it() {
    let slow = Settings { transfer_bytes_per_second_max: 4_000, ..settings() };
    let mut net = left_behind(slow);
    net.deliver(|_, _| 1);
    let (executed, state_hash) = (net.replica(2).executed(), net.replica(2).state_hash());
    run_until(&mut net, |net| net.replica(2).is_restoring());
    net.run_for(millis(50));
    let session = net.gateway(0).session().expect("it has one");
    let now = net.now;
    step_replica(&mut net, 2, |replica, out| {
        assert!(replica.is_restoring(), "it takes its time");
        assert_eq!((replica.executed(), replica.state_hash()), (executed, state_hash));
        let (slot, ballot) = (executed.first_open(), harness::B1);
        let chosen = Chosen { slot, ballot, value: Value::noop(harness::START) };
        replica.on_chosen(chosen, now, out);
        assert_eq!(replica.executed(), executed, "half a state executes nothing");
        let batch = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number: 1 };
        let ask = Ask { batch, attempt: 0, session: Some(session), first: 0, count: 1 };
        replica.on_ask(&ask, out);
        assert!(matches!(&out.sends[..], [To::Gateway(_, ToGateway::NotExecuted(_))]));
        out.sends.clear();
    });
    net.run_for(millis(10_000));
    assert_brought_up(&net);
}

/// Without the session table a restored replica would execute again what its peers have executed.
#[test]
fn r23_sessions_and_their_answers_are_in_a_snapshot() {
    let mut net = with_one_left_behind();
    net.deliver(|_, _| 1);
    net.run_for(millis(3000));
    assert_brought_up(&net);
    let session = net.gateway(0).session().expect("it has one");
    let mut known = |id, number| {
        let mut is_known = false;
        step_replica(&mut net, id, |replica, out| {
            let batch = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number };
            let ask = Ask { batch, attempt: 0, session: Some(session), first: number, count: 1 };
            replica.on_ask(&ask, out);
            is_known = matches!(&out.sends[..], [To::Gateway(_, ToGateway::Results(_))]);
            out.sends.clear();
        });
        is_known
    };
    let by_peer: Vec<bool> = (0..220).map(|number| known(0, number)).collect();
    let by_restored: Vec<bool> = (0..220).map(|number| known(2, number)).collect();
    assert!(by_peer.contains(&true));
    assert_eq!(by_restored, by_peer);
}

/// A machine that writes parts which an [`Echo`] cannot restore, if it has snapshots at all.
struct Other {
    has_snapshots: bool,
}

impl StateMachine for Other {
    fn apply(&mut self, _: At, _: &[u8], _: &mut Reply<'_>) {}

    fn state_hash(&self) -> u64 {
        0
    }

    fn freeze(&mut self) -> bool {
        self.has_snapshots
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        part.push(1);
        false
    }
}

/// Runs two replicas for ten seconds: one that has executed 500 slots, and one that has executed as
/// many as `asker_has` and needs the state of the first. Returns what the second says.
fn transferred(has_snapshots: bool, asker_has: u64) -> (Replica<Echo>, Vec<Event>) {
    let cluster = harness::checked(settings());
    let mut asker = harness::replica(&cluster, 0);
    let (id, life) = (ReplicaId(1), Incarnation(7));
    let mut donor = Replica::new(cluster.clone(), id, life, Other { has_snapshots });
    let heartbeat = harness::heartbeat(&cluster, harness::B1, Stage::Leading);
    let heartbeat = Heartbeat { chosen: Watermark(500), ..heartbeat };
    let (mut now, mut out) = (harness::START, Outbox::default());
    donor.on_heartbeat(&heartbeat, now, &mut out);
    for slot in 0..500 {
        let (ballot, value) = (harness::B1, Value::noop(harness::START));
        let chosen = Chosen { slot: Slot(slot), ballot, value };
        donor.on_chosen(chosen.clone(), now, &mut out);
        if slot < asker_has {
            asker.on_chosen(chosen, now, &mut out);
        }
    }
    asker.on_heartbeat(&heartbeat, now, &mut out);
    asker.on_truncated(harness::truncated(0, harness::B1, 400), now, &mut out);
    for _ in 0..10_000 {
        while let Some(timer) = asker.timers().take_due(now) {
            asker.on_timeout(timer, now, &mut out);
        }
        while let Some(timer) = donor.timers().take_due(now) {
            donor.on_timeout(timer, now, &mut out);
        }
        for to in out.sends.drain(..).collect::<Vec<_>>() {
            match to {
                To::Replica(ReplicaId(0), message) => asker.on_message(message, now, &mut out),
                To::Replica(ReplicaId(1), message) => donor.on_message(message, now, &mut out),
                To::Replica(..)
                | To::Acceptor(..)
                | To::Proposer(..)
                | To::ProxyLeader(..)
                | To::Gateway(..) => {}
            }
        }
        now = now + millis(1);
    }
    (asker, out.events)
}

/// Others know that it has executed something, and that is gone: it may not go on with less.
#[test]
fn r16_a_replica_whose_machine_refuses_a_snapshot_halts_if_it_had_executed_anything() {
    let (asker, _) = transferred(true, 3);
    assert_eq!(asker.halted(), Some(&Halt::SnapshotRefused { at: Watermark(500) }));
    let (asker, _) = transferred(true, 0);
    assert_eq!((asker.halted(), asker.executed()), (None, Watermark(0)), "nothing is gone");
    assert!(asker.counters().transfers > 1, "it tries again");
}

#[test]
fn r16_a_machine_without_snapshots_says_that_a_peer_cannot_be_brought_up() {
    let (asker, events) = transferred(false, 3);
    assert!(events.contains(&Event::NoSnapshots { replica: ReplicaId(1) }));
    assert_eq!((asker.halted(), asker.executed()), (None, Watermark(3)));
}

#[test]
fn r29_a_donor_sends_at_its_pace() {
    let slow = Settings { transfer_bytes_per_second_max: 2_000, ..settings() };
    let mut net = worked(Net::new(slow), 200);
    let now = net.now;
    let ask = |net: &mut Net, snapshot, part| {
        step_replica(net, 0, |replica, out| {
            let (asker, executed) = (ReplicaId(1), Watermark(0));
            replica.on_fetch_part(
                FetchPart { replica: asker, snapshot, part, beyond: executed },
                now,
                out,
            );
        });
    };
    ask(&mut net, None, 0);
    net.run_for(millis(100));
    assert_eq!(net.replica(0).counters().snapshots, 0, "200 parts take their time");
    run_until(&mut net, |net| net.replica(0).counters().snapshots > 0);
    (0..5).for_each(|part| ask(&mut net, None, part));
    let sent = |net: &Net| net.replica(0).counters().parts_sent;
    net.run_for(millis(1));
    assert_eq!(sent(&net), 1);
    net.run_for(millis(1000));
    assert_eq!(sent(&net), 5, "each in its turn");
}
