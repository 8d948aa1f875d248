//! R15, R16 and R26: execution, forgetting, and the log's time.

mod harness;

use std::ops::Range;
use std::time::Duration;

use harness::{
    B1, B2, B3, Echo, ProposerMessages, START, acceptor, campaign, checked, directory, executed,
    heartbeat, introduce_to, millis, out_of, p1a, p1b, p2a, pick, proposer, replica, small, square,
    table, truncate, truncated,
};
use loggos_protocol::{
    Acceptor, AcceptorId, Ballot, Batch, BatchWriter, Chosen, Content, Event, Executed, Fetch,
    Fetched, Form, GatewayId, Halt, Heartbeat, HeartbeatAck, Identify, Incarnation, Listener,
    Outbox, P2a, PAGES_AHEAD, Payload, Proposer, ProposerId, Replay, Replayed, Replica, ReplicaId,
    ReplicaTimer, Roster, SessionId, Settings, Slot, Stage, Time, To, ToAcceptor, ToProposer,
    ToProxyLeader, ToReplica, Value, Vote, Watcher, Watermark,
};

/// The session that slot 0 opens.
const SESSION: SessionId = SessionId { slot: Slot(0), index: 0 };

/// A log of which slot 0 opens a session and every other slot holds its next command, the slot's
/// number.
fn chosen(slot: u64) -> Chosen {
    let mut writer = BatchWriter::default();
    let block = if let Some(number) = slot.checked_sub(1) {
        writer.push(slot.to_string().as_bytes());
        writer.close(SESSION, number, 0)
    } else {
        BatchWriter::open(GatewayId(0), Incarnation(1))
    };
    Chosen { slot: Slot(slot), ballot: B1, value: held(block, slot) }
}

fn held(block: Payload, number: u64) -> Value {
    let batch = Batch { checksum: block.checksum(), block, ..harness::batch(number) };
    Value { stamp: Time(number), content: Content::Batch(batch.into()) }
}

fn tell(replica: &mut Replica<Echo>, slot: u64) -> Outbox {
    out_of(|out| replica.on_chosen(chosen(slot), START, out))
}

/// A replica that was told of these slots.
fn told(id: u8, slots: impl IntoIterator<Item = u64>) -> Replica<Echo> {
    let mut replica = replica(&square(), id);
    slots.into_iter().for_each(|slot| drop(tell(&mut replica, slot)));
    replica
}

fn commands(replica: &Replica<Echo>) -> Vec<u64> {
    let text = replica.machine().executed.iter().map(|(_, c)| String::from_utf8_lossy(c));
    text.map(|number| number.parse().expect("a number")).collect()
}

#[test]
fn r15_nothing_past_a_hole_is_executed() {
    let mut replica = told(0, [0, 1, 3, 4]);
    assert_eq!((replica.executed(), commands(&replica)), (Watermark(2), vec![1]));
    tell(&mut replica, 2);
    assert_eq!((replica.executed(), commands(&replica)), (Watermark(5), vec![1, 2, 3, 4]));
}

#[test]
fn r15_a_slot_told_of_again_is_executed_once() {
    let replica = told(0, [0, 1, 1, 0, 2, 2, 1]);
    assert_eq!(commands(&replica), [1, 2]);
    assert_eq!(replica.counters().slots, 3);
}

#[test]
fn r15_a_missing_slot_is_asked_of_every_peer_and_then_of_the_leader() {
    let mut replica = told(1, [0, 2]);
    let (mut peers, mut leaders, mut now) = (Vec::new(), Vec::new(), START);
    while leaders.is_empty() {
        now = now + millis(20);
        assert!(now < START + millis(1000), "peers fail it, and no other role is asked");
        let out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, now, out));
        let fetches = pick!(out.sends, Replica(ToReplica::Fetch));
        assert!(fetches.iter().all(|(_, f)| (f.replica, f.first) == (ReplicaId(1), Slot(1))));
        peers.extend(fetches.iter().map(|(peer, _)| peer.0));
        leaders
            .extend(pick!(out.sends, Proposer(ToProposer::Need)).iter().map(|(p, n)| (*p, n.slot)));
    }
    assert!(peers.contains(&0) && peers.contains(&2), "before the leader: {peers:?}");
    assert_eq!(leaders, [(ProposerId(0), Slot(1))]);
}

#[test]
fn r15_a_peers_executed_log_is_as_good_as_chosen() {
    let mut full = told(0, 0..5);
    let mut late = replica(&square(), 1);
    let fetch = Fetch { replica: ReplicaId(1), first: Slot(0) };
    let out = out_of(|out| full.on_fetch(fetch, START, out));
    let fetched: &Fetched = pick!(out.sends, Replica(ToReplica::Fetched))[0].1;
    late.on_fetched(fetched.clone(), START, &mut Outbox::default());
    assert_eq!((late.executed(), commands(&late)), (Watermark(5), vec![1, 2, 3, 4]));
}

#[test]
fn r15_a_replica_gives_peers_only_what_it_has_executed() {
    let mut replica = told(0, [0, 1, 3]);
    for (first, given) in [(1, 1), (3, 0)] {
        let fetch = Fetch { replica: ReplicaId(1), first: Slot(first) };
        let out = out_of(|out| replica.on_fetch(fetch, START, out));
        let fetched = pick!(out.sends, Replica(ToReplica::Fetched))[0].1;
        assert_eq!((fetched.slots.len(), fetched.executed), (given, Watermark(2)));
    }
}

#[test]
fn r15_a_slot_beyond_the_window_is_not_kept_and_nothing_is_displaced() {
    let cluster = checked(small());
    let mut replica = replica(&cluster, 0);
    (0..6).for_each(|slot| drop(tell(&mut replica, slot)));
    tell(&mut replica, 6 + 8);
    tell(&mut replica, 6 + 16);
    assert_eq!(replica.counters().above_window, 2);
    let fetch = Fetch { replica: ReplicaId(1), first: Slot(0) };
    let out = out_of(|out| replica.on_fetch(fetch, START, out));
    assert_eq!(pick!(out.sends, Replica(ToReplica::Fetched))[0].1.slots.len(), 6);
}

#[test]
fn r15_a_replica_hears_by_heartbeat_that_it_misses_something() {
    let mut replica = replica(&square(), 0);
    let heartbeat = Heartbeat { chosen: Watermark(3), ..heartbeat(&square(), B1, Stage::Leading) };
    replica.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    let out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, START + millis(20), out));
    assert_eq!(pick!(out.sends, Replica(ToReplica::Fetch)).len(), 1);
}

fn hear(acceptor: &mut Acceptor, executed: Executed) -> Outbox {
    out_of(|out| acceptor.on_executed(&executed, START, out))
}

#[test]
fn r16_votes_are_forgotten_when_f_plus_1_replicas_have_executed_them() {
    let mut acceptor = acceptor(&square(), 0);
    (0..5).for_each(|slot| acceptor.on_p2a(p2a(B1, slot), START, &mut Outbox::default()));
    introduce_to(&mut acceptor, 0, 1, 4);
    hear(&mut acceptor, executed(0, 1, 5));
    assert_eq!(acceptor.truncated(), Watermark(0), "one replica, told of twice");
    introduce_to(&mut acceptor, 1, 1, 2);
    assert_eq!(acceptor.truncated(), Watermark(2), "f + 1 have executed slots 0 and 1");
    introduce_to(&mut acceptor, 2, 1, 3);
    assert_eq!(acceptor.truncated(), Watermark(3), "replicas 0 and 2 now");
    let held: Vec<_> = (0..6).filter(|slot| acceptor.vote(Slot(*slot)).is_some()).collect();
    assert_eq!(held, [3, 4]);
}

#[test]
fn r16_more_than_f_plus_1_replicas_are_enough_too() {
    let mut roster = Roster::new(3, 1);
    for replica in 0..3 {
        let first = executed(replica, 1, 7);
        let nonce = roster.on_executed(&first, START);
        assert_eq!(roster.on_executed(&Executed { nonce, ..first }, START), None);
    }
    assert_eq!(roster.executed_by_f_plus_1(1), Watermark(7), "all three stand at one mark");
}

#[test]
fn r16_a_replica_in_a_new_life_does_not_count_for_what_its_former_life_did() {
    let mut acceptor = acceptor(&square(), 0);
    introduce_to(&mut acceptor, 0, 1, 10);
    introduce_to(&mut acceptor, 0, 2, 0); // it has forgotten
    introduce_to(&mut acceptor, 1, 1, 10);
    assert_eq!(acceptor.truncated(), Watermark(0));
    let late = hear(&mut acceptor, executed(0, 1, 10));
    assert_eq!(acceptor.truncated(), Watermark(0), "a late report of the former life");
    assert!(pick!(late.sends, Replica(ToReplica::Identify)).is_empty(), "not even asked");
}

#[test]
fn r16_a_life_counts_only_once_it_has_answered_a_nonce() {
    let mut acceptor = acceptor(&square(), 0);
    for nonce in [None, Some(0), Some(7)] {
        for replica in [0, 1] {
            hear(&mut acceptor, Executed { nonce, ..executed(replica, 1, 10) });
        }
    }
    assert_eq!(acceptor.truncated(), Watermark(0));
}

#[test]
fn r16_a_replica_answers_a_nonce_with_the_life_it_has_now() {
    let mut replica = replica(&square(), 2);
    tell(&mut replica, 0);
    let identify = Identify { watcher: Watcher::Acceptor(AcceptorId(3)), nonce: 77 };
    let out = out_of(|out| replica.on_identify(identify, out));
    let answer = Executed { nonce: Some(77), ..executed(2, 201, 1) };
    assert_eq!(out.sends, [To::Acceptor(AcceptorId(3), ToAcceptor::Executed(answer))]);
}

#[test]
fn r16_what_was_truncated_stays_so() {
    let mut acceptor = acceptor(&square(), 0);
    truncate(&mut acceptor, 5);
    introduce_to(&mut acceptor, 0, 2, 0);
    introduce_to(&mut acceptor, 1, 2, 0);
    assert_eq!(acceptor.truncated(), Watermark(5), "never goes down");
}

#[test]
fn r26_the_stamp_is_a_part_of_the_voted_value_and_comes_back() {
    let mut acceptor = acceptor(&square(), 0);
    let value = Value { stamp: Time(1234), ..harness::value(0) };
    let out = out_of(|out| acceptor.on_p2a(P2a { value: value.clone(), ..p2a(B1, 0) }, START, out));
    assert_eq!(out.held.len(), 1);
    let restamped = P2a { value: Value { stamp: Time(1235), ..value.clone() }, ..p2a(B1, 0) };
    let out = out_of(|out| acceptor.on_p2a(restamped, START, out));
    assert!(out.held.is_empty(), "another stamp is another value: {:?}", out.held);
    let out = out_of(|out| acceptor.on_p1a(p1a(B2), START, out));
    let reported = &pick!(out.held, Proposer(ToProposer::P1b))[0].1.votes;
    assert_eq!(*reported, [(Slot(0), Vote { ballot: B1, value })]);
}

/// Has acceptors tell a proposer what their clocks show, when its own shows `now`.
fn tell_clocks(proposer: &mut Proposer, clocks: &[Time], now: Time) -> Vec<Event> {
    let mut out = Outbox::default();
    for (acceptor, clock) in (0..).zip(clocks) {
        let from = Listener::Acceptor(AcceptorId(acceptor));
        let ack = HeartbeatAck { from, ballot: B1, is_low: false, clock: *clock };
        proposer.on_message(ToProposer::HeartbeatAck(ack), now, &mut out);
    }
    out.events
}

/// The stamp that a leader gives a batch now.
fn stamp(leader: &mut Proposer, number: u64, now: Time) -> Time {
    let propose = harness::propose(harness::batch(number));
    let out = out_of(|out| leader.tell_propose(propose, now, out));
    pick!(out.sends, ProxyLeader(ToProxyLeader::P2a))[0].1.value.stamp
}

#[test]
fn r26_a_leader_whose_clock_is_ahead_repeats_the_last_stamp_and_says_so() {
    let cluster = square();
    let allowed = cluster.clock_jump_max + cluster.election_timeout;
    let mut leader = harness::leader(&cluster);
    assert_eq!(stamp(&mut leader, 0, START), Time(0), "it knows of no clock but its own");
    // As long as half of them have not been heard, these may be the wrong ones.
    tell_clocks(&mut leader, &[START; 1], START);
    assert_eq!(stamp(&mut leader, 1, START), Time(0));
    assert_eq!(tell_clocks(&mut leader, &[START; 4], START + allowed), []);
    assert_eq!(stamp(&mut leader, 2, START + allowed), START + allowed, "as far as it may be");
    // It jumps ahead, between two acks.
    let ahead = START + allowed + millis(1);
    assert_eq!(stamp(&mut leader, 3, ahead), START + allowed);
    let by = ahead.since(START);
    assert_eq!(tell_clocks(&mut leader, &[START; 4], ahead), [Event::ClockAhead { by }]);
    assert_eq!(tell_clocks(&mut leader, &[START; 4], ahead), [], "it is said once");
    assert_eq!(stamp(&mut leader, 4, ahead + millis(5)), START + allowed);
    // They catch up.
    assert_eq!(tell_clocks(&mut leader, &[START + millis(10); 4], ahead + millis(6)), []);
    assert_eq!(stamp(&mut leader, 5, ahead + millis(6)), ahead + millis(6));
    let by = Duration::from_secs(3600) - millis(10);
    let said =
        tell_clocks(&mut leader, &[START + millis(10); 4], START + Duration::from_secs(3600));
    assert_eq!(said, [Event::ClockAhead { by }], "once more ahead, it is said again");
}

/// One of four is wrong, or not heard.
#[test]
fn r26_the_clocks_of_f_acceptors_do_not_count() {
    let day = Duration::from_hours(24);
    for wrong in [Time(0), START, START + day + day] {
        let mut leader = harness::leader(&square());
        let right = START + day;
        tell_clocks(&mut leader, &[wrong, right, right, right], right);
        assert_eq!(stamp(&mut leader, 0, right + millis(1)), right + millis(1), "{wrong}");
        assert_eq!(stamp(&mut leader, 1, right + day), right + millis(1), "{wrong}");
    }
}

#[test]
fn r26_a_new_leader_keeps_recovered_stamps_and_goes_on_from_the_largest() {
    let (ahead, mut leader) = (Time(START.0 + 1_000_000), proposer(&square(), 0));
    tell_clocks(&mut leader, &[START; 4], START);
    campaign(&square(), &mut leader, B2, START);
    let stamped = Value { stamp: ahead, ..harness::value(1) };
    let votes = vec![(Slot(1), Vote { ballot: B1, value: stamped.clone() })];
    leader.tell_p1b(p1b(0, B3, votes), START, &mut Outbox::default());
    let mut out = out_of(|out| leader.tell_p1b(p1b(2, B3, vec![]), START, out));
    leader.tell_propose(harness::propose(harness::batch(2)), START, &mut out);
    leader.tell_propose(harness::propose(harness::batch(3)), ahead + millis(1), &mut out);
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    let stamps: Vec<_> = p2as.iter().map(|(_, p2a)| p2a.value.stamp).collect();
    assert_eq!(p2as[1].1.value, stamped);
    assert_eq!(stamps[2..], [ahead, ahead + millis(1)], "its own clock is behind, then ahead");
    assert!(stamps.is_sorted(), "{stamps:?}");
}

#[test]
fn r26_a_leaders_stamps_never_go_down_within_its_life() {
    let mut leader = harness::leader(&square());
    tell_clocks(&mut leader, &[START; 4], START);
    let mut out = Outbox::default();
    for (number, now) in [(0, 100), (1, 50), (2, 200)] {
        leader.tell_propose(
            harness::propose(harness::batch(number)),
            START + millis(now),
            &mut out,
        );
    }
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    let stamps: Vec<_> = p2as.iter().map(|(_, p2a)| p2a.value.stamp).collect();
    assert_eq!(stamps, [100, 100, 200].map(|ms| START + millis(ms)));
}

#[test]
fn r26_the_logs_time_never_goes_down() {
    let mut replica = replica(&square(), 0);
    tell(&mut replica, 0);
    for (slot, stamp) in [(1, 10), (2, 5), (3, 20)] {
        let Chosen { ballot, value, .. } = chosen(slot);
        let value = Value { stamp: Time(stamp), ..value };
        let chosen = Chosen { slot: Slot(slot), ballot, value };
        replica.on_chosen(chosen, START, &mut Outbox::default());
    }
    let times: Vec<_> = replica.machine().executed.iter().map(|(time, _)| time.0).collect();
    assert_eq!(times, [10, 10, 20]);
}

#[test]
fn r26_a_no_op_has_a_stamp_too_and_moves_the_logs_time() {
    let mut replica = replica(&square(), 0);
    let noop = |slot, stamp| Chosen {
        slot: Slot(slot),
        ballot: Ballot::default(),
        value: Value::noop(Time(stamp)),
    };
    tell(&mut replica, 0);
    replica.on_chosen(noop(1, 500), START, &mut Outbox::default());
    let Chosen { ballot, value, .. } = chosen(1);
    let after = Chosen { slot: Slot(2), ballot, value };
    replica.on_chosen(after, START, &mut Outbox::default());
    assert_eq!(replica.machine().executed, [(Time(500), b"1".to_vec())]);
}

/// A replica waits for slot 0 and asks all around; every peer answers that it has `executed`, and
/// gives nothing. Returns the peer that it asks for a snapshot, and when, by how often it had asked
/// for the slot.
fn asked_for_snapshots(executed: Watermark, is_truncated: bool) -> Vec<(u32, u8)> {
    let mut replica = replica(&square(), 0);
    let chosen = Chosen { slot: Slot(2), ballot: B1, value: Value::noop(START) };
    replica.on_chosen(chosen, START, &mut Outbox::default());
    if is_truncated {
        replica.on_truncated(truncated(0, B1, 1), START, &mut Outbox::default());
    }
    let mut asked = Vec::new();
    for turn in 1..=20 {
        let now = START + millis(20 * u64::from(turn));
        let mut out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, now, out));
        let fetches = pick!(out.sends, Replica(ToReplica::Fetch));
        let fetches: Vec<_> = fetches.iter().map(|(peer, fetch)| (*peer, fetch.first)).collect();
        for (replica_id, first) in fetches {
            let fetched = Fetched { replica: replica_id, first, slots: vec![], executed };
            replica.on_fetched(fetched, now, &mut out);
        }
        let parts = pick!(out.sends, Replica(ToReplica::FetchPart));
        asked.extend(parts.iter().map(|(peer, _)| (turn, peer.0)));
    }
    asked
}

#[test]
fn r08_peers_that_had_not_executed_it_yet_have_not_failed_the_asker() {
    assert_eq!(asked_for_snapshots(Watermark(0), true), [], "it may come yet");
}

#[test]
fn r08_peers_that_have_let_go_of_it_are_asked_for_a_snapshot_before_the_leader_for_phase_1() {
    assert_eq!(asked_for_snapshots(Watermark(3), true).first(), Some(&(1, 1)), "acceptors, too");
    let asked = asked_for_snapshots(Watermark(3), false);
    assert!(asked.first().is_some_and(|(turn, _)| (5..=8).contains(turn)), "{asked:?}");
}

#[test]
fn r16_a_replaced_life_that_still_runs_never_counts_again() {
    let mut acceptor = acceptor(&square(), 0);
    for (replica, life, executed) in [(0, 1, 10), (0, 2, 0), (0, 1, 10), (1, 1, 10)] {
        introduce_to(&mut acceptor, replica, life, executed);
    }
    assert_eq!(acceptor.truncated(), Watermark(0));
}

/// The acceptors that a replica asks for votes, and from which slot on.
fn replays(out: &Outbox) -> Vec<(u8, u64)> {
    let replays = pick!(out.sends, Acceptor(ToAcceptor::Replay));
    replays.into_iter().map(|(to, replay)| (to.0, replay.first.0)).collect()
}

fn hear_from_proposer(replica: &mut Replica<Echo>, stage: Stage, chosen: u64) -> Outbox {
    let chosen = Watermark(chosen);
    let heartbeat = Heartbeat { chosen, ..heartbeat(&square(), B1, stage) };
    out_of(|out| replica.on_heartbeat(&heartbeat, START, out))
}

/// A replica that was told to replay, and has asked all acceptors.
fn replaying() -> Replica<Echo> {
    let mut replica = replica(&square(), 0);
    let out = hear_from_proposer(&mut replica, Stage::Waiting, 0);
    assert_eq!(replays(&out), [0, 1, 2, 3].map(|acceptor| (acceptor, 0)), "it asks all at once");
    replica
}

/// An acceptor's page: the votes in B1 for these slots of the log, and how far it goes.
fn page(acceptor: u8, slots: Range<u64>, to: Option<u64>) -> Replayed {
    Replayed {
        acceptor: AcceptorId(acceptor),
        directory: directory(acceptor),
        truncated: Watermark(0),
        from: Slot(slots.start),
        to: to.map(Watermark),
        votes: slots.map(|slot| (Slot(slot), voted(slot))).collect(),
    }
}

fn voted(slot: u64) -> Vote {
    Vote { ballot: B1, value: chosen(slot).value }
}

fn replay(replica: &mut Replica<Echo>, replayed: Replayed) -> Outbox {
    out_of(|out| replica.on_replayed(replayed, START, out))
}

/// Both acceptors of row 0 tell the same.
fn row_replays(replica: &mut Replica<Echo>, slots: Range<u64>, to: Option<u64>) {
    (0..2).for_each(|acceptor| drop(replay(replica, page(acceptor, slots.clone(), to))));
}

fn on_replay_timer(replica: &mut Replica<Echo>) -> Outbox {
    replica.timers().stop(ReplicaTimer::Replay);
    out_of(|out| replica.on_timeout(ReplicaTimer::Replay, START, out))
}

#[test]
fn r15_a_replica_replays_what_write_quorums_have_voted_for() {
    let mut replica = replaying();
    for (acceptor, slots) in [(0, 0..4), (2, 0..4), (3, 3..4)] {
        replay(&mut replica, Replayed { from: Slot(0), ..page(acceptor, slots, None) });
    }
    assert_eq!(replica.executed(), Watermark(0), "no row has voted for slot 0");
    replay(&mut replica, page(1, 0..3, None));
    assert_eq!((replica.executed(), commands(&replica)), (Watermark(4), vec![1, 2, 3]));
    assert_eq!(replica.counters().replayed, 4, "three by the one row, the last by the other");
}

#[test]
fn r15_acceptors_are_asked_once_every_peer_was() {
    let mut replica = told(1, [0, 2]);
    let (mut peers, mut asked) = (Vec::new(), Vec::new());
    for turn in 1..=9 {
        let out =
            out_of(|out| replica.on_timeout(ReplicaTimer::Gap, START + millis(20 * turn), out));
        if asked.is_empty() && !replays(&out).is_empty() {
            assert!(peers.contains(&0) && peers.contains(&2), "before acceptors: {peers:?}");
        }
        asked.extend(replays(&out));
        peers.extend(pick!(out.sends, Replica(ToReplica::Fetch)).iter().map(|(peer, _)| peer.0));
    }
    assert_eq!(asked, [0, 1, 2, 3].map(|acceptor| (acceptor, 1)), "once: the rest has a timer");
    assert!(replica.timers().is_set(ReplicaTimer::Replay));
}

#[test]
fn r15_acceptors_that_were_not_heard_or_had_no_more_are_asked_again() {
    let mut replica = replaying();
    replay(&mut replica, page(0, 0..5, Some(5)));
    replay(&mut replica, page(2, 0..5, None));
    replay(&mut replica, Replayed { from: Slot(1), ..page(3, 1..5, Some(5)) });
    let out = on_replay_timer(&mut replica);
    assert_eq!(replays(&out), [(1, 0), (2, 0), (3, 0)], "a0 has told what it has in slot 0");
    assert!(replica.timers().is_set(ReplicaTimer::Replay));
}

#[test]
fn r15_pages_that_are_used_are_followed_by_the_next_at_once() {
    let mut replica = replaying();
    replay(&mut replica, page(2, 0..5, Some(5)));
    for at in 0..PAGES_AHEAD.into() {
        replay(&mut replica, page(0, at..at + 1, Some(at + 1)));
    }
    let mut asked = vec![];
    for at in 0..PAGES_AHEAD.into() {
        asked.push(replays(&replay(&mut replica, page(1, at..at + 1, Some(at + 1)))));
    }
    assert_eq!(replica.executed(), Watermark(4));
    assert_eq!(
        asked,
        [vec![(0, 4)], vec![], vec![], vec![(1, 4)]],
        "a0's next when its first is used"
    );
}

#[test]
fn r15_acceptors_tell_several_pages_one_behind_the_other() {
    let cluster = checked(Settings { page_slots_max: 3, ..small() });
    let mut acceptor = Acceptor::new(cluster.clone(), AcceptorId(0), directory(0), 1);
    let form = Form { proposer: ProposerId(0), table: table(&cluster) };
    out_of(|out| acceptor.on_form(&form, out));
    (0..15).for_each(|slot| drop(out_of(|out| acceptor.on_p2a(p2a(B1, slot), START, out))));
    let pages = |acceptor: &mut Acceptor, first| {
        let replay = Replay { replica: ReplicaId(0), first: Slot(first) };
        let out = out_of(|out| acceptor.on_replay(replay, out));
        let pages = pick!(out.held, Replica(ToReplica::Replayed));
        let of = |page: &Replayed| (page.from.0, page.to.map(|to| to.0), page.votes.len());
        pages.into_iter().map(|(_, page)| of(page)).collect::<Vec<_>>()
    };
    let wanted = [(0, Some(3), 3), (3, Some(6), 3), (6, Some(9), 3), (9, Some(12), 3)];
    assert_eq!(pages(&mut acceptor, 0), wanted);
    assert_eq!(pages(&mut acceptor, 12), [(12, None, 3)]);
}

/// What a peer has executed comes in several pages; the next are asked for when the last of them is
/// here.
#[test]
fn r15_peers_give_several_pages_one_behind_the_other() {
    let cluster = checked(Settings { page_slots_max: 1, ..small() });
    let replica =
        |id| Replica::new(cluster.clone(), ReplicaId(id), Incarnation(7), Echo::default());
    let (mut ahead, mut behind) = (replica(2), replica(1));
    (0..6).for_each(|slot| drop(out_of(|out| ahead.on_chosen(chosen(slot), START, out))));
    behind.on_chosen(chosen(5), START, &mut Outbox::default());
    let out = out_of(|out| behind.on_timeout(ReplicaTimer::Gap, START, out));
    let mut fetch = *pick!(out.sends, Replica(ToReplica::Fetch))[0].1;
    for executed in [4, 6] {
        let out = out_of(|out| ahead.on_fetch(fetch, START, out));
        let pages = pick!(out.sends, Replica(ToReplica::Fetched));
        let mut next = vec![];
        for (_, page) in pages {
            assert_eq!(next, [], "others are on their way");
            let out = out_of(|out| behind.on_fetched(page.clone(), START, out));
            next = pick!(out.sends, Replica(ToReplica::Fetch)).iter().map(|it| *it.1).collect();
        }
        assert_eq!(behind.executed(), Watermark(executed));
        if let [then] = next[..] {
            fetch = then;
        }
    }
    assert_eq!(fetch.first, Slot(4));
}

/// Fires its timer for missing slots twice, and answers each question from what `peer` has; returns
/// how often it asked.
fn ask_again(behind: &mut Replica<Echo>, peer: &mut Replica<Echo>, now: Time) -> usize {
    let mut asked = 0;
    for _ in 0..2 {
        let out = out_of(|out| behind.on_timeout(ReplicaTimer::Gap, now, out));
        for (_, fetch) in pick!(out.sends, Replica(ToReplica::Fetch)) {
            asked += 1;
            let out = out_of(|out| peer.on_fetch(*fetch, now, out));
            for (_, page) in pick!(out.sends, Replica(ToReplica::Fetched)) {
                behind.on_fetched(page.clone(), now, &mut Outbox::default());
            }
        }
    }
    asked
}

#[test]
fn r29_a_replica_that_got_on_by_a_peer_asks_it_for_what_comes_next() {
    let (mut behind, mut peer) = (replica(&square(), 1), told(2, 0..2));
    let heartbeat = Heartbeat { chosen: Watermark(1), ..heartbeat(&square(), B1, Stage::Leading) };
    behind.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    for executed in [2, 4, 6] {
        assert!(ask_again(&mut behind, &mut peer, START) > 0, "at {executed}");
        assert_eq!(behind.executed(), Watermark(executed), "nothing but the peer tells it");
        (executed..executed + 2).for_each(|slot| drop(tell(&mut peer, slot)));
    }
    assert!(ask_again(&mut behind, &mut peer, START) > 0);
    let asked: Vec<usize> = (0..4).map(|_| ask_again(&mut behind, &mut peer, START)).collect();
    assert_eq!(asked.iter().sum::<usize>(), 2, "it has nothing: {asked:?}");
}

#[test]
fn r27_a_question_for_what_comes_next_that_is_lost_is_asked_again() {
    let (mut behind, mut peer) = (replica(&square(), 1), told(2, 0..2));
    let heartbeat = Heartbeat { chosen: Watermark(1), ..heartbeat(&square(), B1, Stage::Leading) };
    behind.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    ask_again(&mut behind, &mut peer, START);
    let mut lost = 0;
    while let Some(at) = behind.timers().next_at().filter(|_| lost < 10) {
        let out = out_of(|out| behind.on_time(at, out));
        lost += pick!(out.sends, Replica(ToReplica::Fetch)).len();
    }
    assert_eq!(lost, 2, "of three, one was answered");
}

#[test]
fn r29_a_replica_that_is_told_what_is_chosen_asks_no_peer_for_what_comes_next() {
    let (mut behind, mut peer) = (replica(&square(), 1), told(2, 0..2));
    let heartbeat = Heartbeat { chosen: Watermark(1), ..heartbeat(&square(), B1, Stage::Leading) };
    behind.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    assert_eq!(ask_again(&mut behind, &mut peer, START), 2);
    let told = ToReplica::Chosen(chosen(2));
    behind.on_message(told, START, &mut Outbox::default());
    assert_eq!(ask_again(&mut behind, &mut peer, START), 0);
}

/// The second page of an answer begins above the slot that is missing, and nothing is truncated.
#[test]
fn r15_a_replay_that_gets_on_asks_no_peer_for_its_state() {
    let mut replica = replica(&square(), 0);
    hear_from_proposer(&mut replica, Stage::Leading, 600);
    let mut now = START;
    while replica.timers().is_set(ReplicaTimer::Gap)
        && !replica.timers().is_set(ReplicaTimer::Replay)
    {
        now = now + millis(20);
        replica.timers().stop(ReplicaTimer::Gap);
        let out = out_of(|out| replica.on_timeout(ReplicaTimer::Gap, now, out));
        for (peer, fetch) in pick!(out.sends, Replica(ToReplica::Fetch)) {
            let executed = Watermark(600);
            let fetched = Fetched { replica: peer, first: fetch.first, slots: vec![], executed };
            replica.on_fetched(fetched, now, &mut Outbox::default());
        }
    }
    let told = [page(0, 0..2, Some(2)), page(0, 2..4, Some(4)), page(2, 2..4, Some(4))];
    for page in told {
        let out = replay(&mut replica, page);
        assert_eq!(pick!(out.sends, Replica(ToReplica::FetchPart)).len(), 0, "a state");
    }
    let truncated = Replayed { truncated: Watermark(4), ..page(3, 4..5, None) };
    let out = replay(&mut replica, truncated);
    assert_eq!(pick!(out.sends, Replica(ToReplica::FetchPart)).len(), 1, "no vote tells of slot 0");
}

/// Otherwise its next page would come a timer later than the others', page for page.
#[test]
fn r15_an_acceptor_whose_pages_came_too_late_is_asked_for_the_next_at_once() {
    let mut replica = replaying();
    row_replays(&mut replica, 0..8, Some(8));
    (0..3).for_each(|at| {
        assert_eq!(replays(&replay(&mut replica, page(2, at..at + 1, Some(at + 1)))), []);
    });
    let out = replay(&mut replica, page(2, 3..4, Some(4)));
    assert_eq!((replica.executed(), replays(&out)), (Watermark(8), vec![(2, 8)]));
    let ahead = Replayed { from: Slot(9), ..page(2, 9..11, Some(11)) };
    assert_eq!(replays(&replay(&mut replica, ahead)), [], "it is not behind");
}

#[test]
fn r15_a_replay_that_brings_nothing_ends() {
    let rounds = |replica: &mut Replica<Echo>| {
        let asks = |_: &usize| !replays(&on_replay_timer(replica)).is_empty();
        (0..100).take_while(asks).count()
    };
    let mut replica = replaying();
    (0..15).for_each(|_| drop(on_replay_timer(&mut replica)));
    row_replays(&mut replica, 0..1, Some(1));
    assert_eq!((replica.executed(), rounds(&mut replica)), (Watermark(1), 20), "counted anew");
    assert!(!replica.timers().is_set(ReplicaTimer::Replay));
    row_replays(&mut replica, 1..2, None);
    assert_eq!(replica.executed(), Watermark(1), "it did not ask");
    assert!(!replays(&hear_from_proposer(&mut replica, Stage::Waiting, 0)).is_empty());
}

/// Otherwise it would go on for as long as acceptors hear of slots before it does: for ever.
#[test]
fn r29_a_replica_that_misses_nothing_and_hears_a_leader_replays_no_more() {
    for (stage, chosen, goes_on) in
        [(Stage::Leading, 0, false), (Stage::Leading, 1, true), (Stage::Campaigning, 0, true)]
    {
        let mut replica = replaying();
        hear_from_proposer(&mut replica, stage, chosen);
        assert_eq!(replica.timers().is_set(ReplicaTimer::Replay), goes_on, "{stage:?}, {chosen}");
        row_replays(&mut replica, 0..1, None);
        assert_eq!(replica.executed(), Watermark(goes_on.into()), "{stage:?}, {chosen}");
    }
}

#[test]
fn r04_the_votes_of_an_acceptor_that_has_forgotten_are_not_replayed() {
    let mut replica = replaying();
    replay(&mut replica, page(0, 0..1, None));
    let out = replay(&mut replica, Replayed { directory: directory(9), ..page(1, 0..1, None) });
    assert_eq!((replica.executed(), replica.counters().foreign), (Watermark(0), 1));
    assert_eq!(out.events, [Event::Forgotten { acceptor: AcceptorId(1) }]);
    replay(&mut replica, page(1, 0..1, None));
    assert_eq!(replica.executed(), Watermark(1));
}

#[test]
fn r15_a_replica_that_halts_replays_no_more() {
    let mut replica = replaying();
    let junk = Payload::inline(&[255; 9]).expect("nine bytes are short");
    let vote = Vote { ballot: B1, value: held(junk, 0) };
    let of =
        |acceptor| Replayed { votes: vec![(Slot(0), vote.clone())], ..page(acceptor, 0..1, None) };
    let events = [0, 1].map(|acceptor| replay(&mut replica, of(acceptor)).events.len());
    assert_eq!(events, [0, 1], "it says so once");
    assert_eq!(replica.halted(), Some(&Halt::Malformed { slot: Slot(0) }));
}
