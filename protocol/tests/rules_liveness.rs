//! R27 to R29 and R31: losses, elections, credit, and what waits for a sync.

mod harness;

use std::time::Duration;

use harness::{
    B1, B2, B3, Net, ProposerMessages, START, acceptor, ask_pre_votes, batch, campaign, checked,
    directory, executed, grid, heartbeat, introduce, leader, millis, out_of, p1a, p1b, p2a, pick,
    proposer, quiet, set, small, square, table, truncated, vote,
};
use loggos_protocol::{
    Acceptor, AcceptorId, Ballot, Event, Form, GatewayId, HeartbeatAck, Incarnation, Listener,
    Nack, Need, Outbox, P1b, PreVote, PreVoteAck, Proposer, ProposerId, ProposerTimer,
    ProxyLeaderId, ReplicaId, Rng, RoleId, Settings, Slot, Stage, Time, To, ToAcceptor, ToGateway,
    ToProposer, ToProxyLeader, ToReplica, Unserved, Watermark,
};

const P0: RoleId = RoleId::Proposer(ProposerId(0));
const P1: RoleId = RoleId::Proposer(ProposerId(1));

/// The commands 0 to `count`, each answered with its place in the order of execution.
fn in_order(count: u64) -> Vec<(u64, String)> {
    (0..count).map(|tag| (tag, format!("{tag}#{}", tag + 1))).collect()
}

#[test]
fn r27_lost_and_doubled_messages_are_mended() {
    for seed in 0..4 {
        let mut net = Net::new(small());
        let mut rng = Rng::new(seed);
        net.deliver(move |_, _| match rng.below(20) {
            0..3 => 0,
            3..6 => 2,
            _ => 1,
        });
        for tag in 0..30 {
            net.write(tag);
            net.run_for(millis(30));
        }
        net.run_for(Duration::from_secs(20));
        net.deliver(|_, _| 1);
        net.run_for(Duration::from_secs(5));
        let mut replies = net.replies();
        replies.sort_unstable();
        assert_eq!(replies, in_order(30), "seed {seed}: each once, in the order of submission");
        for replica in net.replicas() {
            assert_eq!(replica.machine(), net.replica(0).machine(), "seed {seed}");
        }
    }
}

#[test]
fn r27_a_role_that_vanishes_and_returns_holds_nothing_up_for_good() {
    let victims = [
        P0,
        P1,
        RoleId::ProxyLeader(ProxyLeaderId(0)),
        RoleId::Acceptor(AcceptorId(0)),
        RoleId::Replica(ReplicaId(0)),
    ];
    for victim in victims {
        let mut net = Net::new(grid(2, 2));
        net.write(0);
        net.stop(victim);
        (1..5).for_each(|tag| net.write(tag));
        net.run_for(millis(3000));
        assert_eq!(net.replies().len(), 5, "without {victim:?}");
        net.start(victim);
        (5..10).for_each(|tag| net.write(tag));
        net.run_for(millis(3000));
        let mut replies = net.replies();
        replies.sort_unstable();
        assert_eq!(replies, in_order(10), "{victim:?} is back");
        let last = net.replica(1).executed();
        assert!(net.replicas().all(|r| r.executed() == last), "{victim:?}: all caught up");
    }
}

#[test]
fn r27_a_gateway_in_a_new_life_gets_a_session_of_its_own() {
    let mut net = Net::new(grid(2, 2));
    net.write(0);
    let before = net.gateway(0).session();
    net.start(RoleId::Gateway(GatewayId(0)));
    net.run_for(millis(1000));
    assert!(net.gateway(0).session().is_some() && net.gateway(0).session() != before);
    net.write(1);
    assert_eq!(net.replies(), in_order(2));
}

/// Whether an acceptor would let a proposer campaign now.
fn is_quiet(acceptor: &mut Acceptor, now: Time) -> bool {
    let pre_vote = PreVote { proposer: ProposerId(1), nonce: 3 };
    let out = out_of(|out| acceptor.on_pre_vote(pre_vote, now, out));
    pick!(out.sends, Proposer(ToProposer::PreVoteAck))[0].1.is_quiet
}

/// An acceptor tells something at `START`; how long it then is not quiet.
fn deafness(tell: impl FnOnce(&mut Acceptor)) -> u64 {
    let mut acceptor = acceptor(&square(), 0);
    tell(&mut acceptor);
    let is_quiet_after = |after: &u64| is_quiet(&mut acceptor, START + millis(*after));
    (0..=1000).step_by(50).find(is_quiet_after).expect("quiet in the end")
}

#[test]
fn r28_heartbeats_first_p1as_and_new_slots_are_hearing_somebody() {
    let out = &mut Outbox::default();
    let beat = |ballot, stage| heartbeat(&square(), ballot, stage);
    assert_eq!(deafness(|_| ()), 0);
    assert_eq!(deafness(|a| a.on_heartbeat(&beat(B1, Stage::Leading), START, out)), 300);
    assert_eq!(deafness(|a| a.on_heartbeat(&beat(B1, Stage::Campaigning), START, out)), 300);
    assert_eq!(deafness(|a| a.on_p1a(p1a(B1), START, out)), 300);
    assert_eq!(deafness(|a| a.on_p2a(p2a(B1, 0), START, out)), 300);
}

#[test]
fn r28_repeated_or_refused_messages_are_not_hearing_somebody() {
    let out = &mut Outbox::default();
    let long_ago = START - Duration::from_millis(500);
    let repeat_p1a = deafness(|a| {
        a.on_p1a(p1a(B1), long_ago, out);
        a.on_p1a(p1a(B1), START, out);
    });
    let repeat_p2a = deafness(|a| {
        a.on_p2a(p2a(B1, 0), long_ago, out);
        a.on_p2a(p2a(B1, 0), START, out);
    });
    let below_the_promise = deafness(|a| {
        a.on_p1a(p1a(B2), long_ago, out);
        a.on_heartbeat(&heartbeat(&square(), B1, Stage::Leading), START, out);
        a.on_p1a(p1a(B1), START, out);
        a.on_p2a(p2a(B1, 0), START, out);
    });
    assert_eq!([repeat_p1a, repeat_p2a, below_the_promise], [0, 0, 0]);
}

#[test]
fn r28_a_campaign_takes_a_quiet_read_quorum_and_a_quiet_write_quorum() {
    for (asked, is_campaign) in [(vec![0, 2], false), (vec![0, 1], false), (vec![0, 2, 3], true)] {
        let mut candidate = proposer(&square(), 0);
        let nonce = ask_pre_votes(&mut candidate, START);
        for acceptor in &asked {
            let ack = quiet(*acceptor, nonce, Ballot::default());
            candidate.tell_pre_vote_ack(ack, START, &mut Outbox::default());
        }
        assert_eq!(candidate.ballot().is_some(), is_campaign, "{asked:?}");
    }
}

#[test]
fn r28_an_acceptor_that_hears_a_leader_or_answers_late_allows_no_campaign() {
    let mut candidate = proposer(&square(), 0);
    let nonce = ask_pre_votes(&mut candidate, START);
    for acceptor in 0..4 {
        let busy = PreVoteAck { is_quiet: false, ..quiet(acceptor, nonce, B1) };
        candidate.tell_pre_vote_ack(busy, START, &mut Outbox::default());
        let late = quiet(acceptor, nonce ^ 1, B1);
        candidate.tell_pre_vote_ack(late, START, &mut Outbox::default());
    }
    assert_eq!(candidate.ballot(), None);
}

#[test]
fn r28_a_partitioned_proposer_that_returns_deposes_nobody() {
    let mut net = Net::new(grid(2, 2));
    let reign = net.proposer(0).ballot();
    net.cut_off(P1);
    net.run_for(millis(5000));
    net.deliver(|_, _| 1);
    net.run_for(millis(5000));
    net.write(0);
    assert_eq!(net.replies(), in_order(1));
    assert_eq!(net.proposer(0).ballot(), reign);
    assert!((0..4).all(|a| Some(net.acceptor(a).promised()) == reign), "no acceptor promised more");
}

#[test]
fn r28_a_deposed_leader_that_returns_follows() {
    let mut net = Net::new(grid(2, 2));
    net.cut_off(P0);
    net.run_for(millis(2000));
    let reign = net.proposer(1).ballot();
    assert!(net.proposer(1).is_leading());
    net.deliver(|_, _| 1);
    net.run_for(millis(3000));
    assert_eq!((net.proposer(0).ballot(), net.proposer(1).ballot()), (None, reign));
}

/// DESIGN §4: from leader kill to the first new commit: under twice the election timeout.
#[test]
fn r28_a_dead_leader_is_replaced_within_two_election_timeouts() {
    let mut net = Net::new(grid(2, 2));
    net.run_for(millis(1000));
    net.stop(P0);
    let killed_at = net.now;
    net.write(0);
    while net.replies.is_empty() {
        net.run_for(millis(5));
    }
    let took = net.now.since(killed_at);
    assert!(took < 2 * net.cluster.election_timeout, "{took:?}");
}

/// Stage of each heartbeat to an acceptor.
fn stages(out: &Outbox) -> Vec<Stage> {
    let heartbeats = pick!(out.sends, Acceptor(ToAcceptor::Heartbeat));
    heartbeats.into_iter().map(|(_, heartbeat)| heartbeat.stage).collect()
}

#[test]
fn r28_a_candidate_heartbeats_from_its_p1a_on_and_gives_up_silent() {
    let mut candidate = proposer(&square(), 0);
    let out = campaign(&square(), &mut candidate, Ballot::default(), START);
    assert_eq!(stages(&out), [Stage::Campaigning; 4]);
    let late = START + millis(200);
    let page = P1b { to: Some(Watermark(3)), ..p1b(0, B1, vec![]) };
    candidate.tell_p1b(page, late, &mut Outbox::default());
    candidate.on_timeout(ProposerTimer::Phase1, START + millis(310), &mut Outbox::default());
    assert_eq!(candidate.ballot(), Some(B1), "there was a new page");
    let out = out_of(|out| candidate.on_timeout(ProposerTimer::Phase1, late + millis(300), out));
    assert_eq!(out.events, [Event::CampaignFailed { ballot: B1 }]);
    assert!(out.sends.is_empty() && candidate.ballot().is_none());
    assert!(!candidate.timers().is_set(ProposerTimer::Heartbeat));
}

fn beat(leader: &mut Proposer, now: Time) -> Vec<Stage> {
    stages(&out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, now, out)))
}

fn acknowledge(leader: &mut Proposer, acceptor: u8, now: Time) {
    let from = Listener::Acceptor(AcceptorId(acceptor));
    leader
        .tell_heartbeat_ack(HeartbeatAck { from, ballot: B1, is_low: false, clock: Time(0) }, now);
}

#[test]
fn r28_a_leader_that_no_read_quorum_hears_falls_silent_and_resumes() {
    let mut leader = leader(&square());
    let now = START + millis(400);
    [0, 1].into_iter().for_each(|row| acknowledge(&mut leader, row, now));
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, now, out));
    assert_eq!((stages(&out), &*out.events), (vec![], &[Event::Silenced { ballot: B1 }][..]));
    let is_silent = |out: &Outbox| pick!(out.sends, Gateway(ToGateway::Heartbeat))[0].1.is_silent;
    assert!(is_silent(&out), "R37");
    let followers = (
        pick!(out.sends, Gateway(ToGateway::Heartbeat)).len(),
        pick!(out.sends, ProxyLeader(ToProxyLeader::Heartbeat)).len(),
        pick!(out.sends, Replica(ToReplica::Heartbeat)).len(),
    );
    assert_eq!(followers, (1, 2, 3), "what they do may be the progress that is missing");
    assert!(leader.timers().is_set(ProposerTimer::Heartbeat), "it looks again");
    acknowledge(&mut leader, 2, now);
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, now, out));
    assert_eq!(stages(&out), [Stage::Leading; 4], "a0 and a2 are a column");
    assert!(!is_silent(&out), "R37");
}

#[test]
fn r28_a_leader_that_gets_nothing_chosen_falls_silent_and_resumes_with_progress() {
    let mut leader = leader(&square());
    leader.tell_propose(harness::propose(batch(0)), START, &mut Outbox::default());
    let heard = |leader: &mut Proposer, after| {
        (0..4).for_each(|acceptor| acknowledge(leader, acceptor, START + millis(after)));
        beat(leader, START + millis(after))
    };
    assert_eq!(heard(&mut leader, 550).len(), 4, "patience is two election timeouts");
    assert_eq!(heard(&mut leader, 600).len(), 0);
    assert_eq!(heard(&mut leader, 5000).len(), 0, "for as long as nothing moves");
    for replica in [0, 1] {
        let now = START + millis(5010);
        leader.tell_executed(&executed(replica, 1, 1), now, &mut Outbox::default());
    }
    let due = std::iter::from_fn(|| leader.timers().take_due(START + millis(5010)));
    assert!(due.collect::<Vec<_>>().contains(&ProposerTimer::Heartbeat), "at once");
    assert_eq!(heard(&mut leader, 5010).len(), 4);
}

/// A replica that is heard and slow holds up any leader, until it has lost its credit.
#[test]
fn r28_a_leader_that_waits_for_a_replicas_credit_is_not_stalled() {
    let mut leader = leader(&checked(small()));
    assert_eq!(offer(&mut leader, 9, START), 8, "a window");
    for replica in [0, 1] {
        report(&mut leader, replica, 8, START);
    }
    let grace = u64::try_from(small().replica_grace.as_millis()).expect("a short time");
    for after in (0..grace).step_by(100) {
        let now = START + millis(after);
        report(&mut leader, 2, 0, now);
        (0..4).for_each(|acceptor| acknowledge(&mut leader, acceptor, now));
        let out = out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, now, out));
        assert_eq!((asked(&out), stages(&out)), (0, vec![Stage::Leading; 4]), "{after} ms");
    }
}

/// Has acceptors say how much room they have; returns for want of whose the leader says that it
/// proposes nothing.
fn tell_room(leader: &mut Proposer, low: &[u8], after: u64) -> Outbox {
    let now = START + millis(after);
    for acceptor in 0..4 {
        let is_low = low.contains(&acceptor);
        let from = Listener::Acceptor(AcceptorId(acceptor));
        leader.tell_heartbeat_ack(HeartbeatAck { from, ballot: B1, is_low, clock: Time(0) }, now);
    }
    out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, now, out))
}

#[test]
fn r34_a_leader_proposes_nothing_new_without_a_write_quorum_that_has_room() {
    let mut leader = leader(&square());
    let no_room = |out: &Outbox| pick!(out.sends, Gateway(ToGateway::Heartbeat))[0].1.no_room;
    assert_eq!(no_room(&tell_room(&mut leader, &[0, 1], 0)), set([]), "row 1 has room");
    assert_eq!(offer(&mut leader, 1, START), 1);
    report(&mut leader, 0, 1, START);
    report(&mut leader, 1, 1, START);
    assert_eq!(no_room(&tell_room(&mut leader, &[0, 3], 0)), set([0, 3]), "one in each row");
    leader.tell_propose(harness::propose(batch(1)), START, &mut Outbox::default());
    for after in [1000, 10_000, 100_000] {
        let out = tell_room(&mut leader, &[0, 3], after);
        assert_eq!(
            (asked(&out), stages(&out)),
            (0, vec![Stage::Leading; 4]),
            "no other leader would do better"
        );
    }
    let out = tell_room(&mut leader, &[0], 100_010);
    assert_eq!((asked(&out), no_room(&out)), (1, set([])), "what has waited is proposed");
}

#[test]
fn r34_a_write_quorum_that_has_room_and_is_not_heard_is_none() {
    let asked_beside = |heard: &[u8]| {
        let mut leader = leader(&square());
        tell_room(&mut leader, &[0], 0);
        let after = START + millis(400);
        for acceptor in heard {
            let (from, is_low) = (Listener::Acceptor(AcceptorId(*acceptor)), *acceptor == 0);
            leader.tell_heartbeat_ack(
                HeartbeatAck { from, ballot: B1, is_low, clock: Time(0) },
                after,
            );
        }
        let out = out_of(|out| {
            leader.on_timeout(ProposerTimer::Heartbeat, after, out);
            leader.tell_propose(harness::propose(batch(0)), after, out);
        });
        asked(&out)
    };
    assert_eq!(asked_beside(&[0, 1, 2]), 0, "a3 may be lost, and a0 is low");
    assert_eq!(asked_beside(&[0, 1, 2, 3]), 1);
    assert_eq!(asked_beside(&[0, 2]), 1, "a leader that hears no write quorum cannot tell");
}

/// Has acceptors pass on that gateway 0 gets no answers; returns the stages of what the leader says
/// then.
fn complain(leader: &mut Proposer, after: u64) -> (Vec<Stage>, Vec<Event>) {
    let unserved = Unserved { gateway: GatewayId(0) };
    let out = out_of(|out| leader.tell_unserved(unserved, START + millis(after), out));
    (stages(&out), out.events)
}

#[test]
fn r28_a_leader_hands_over_for_a_gateway_that_it_does_not_hear() {
    let mut leader = leader(&square());
    let nothing = (vec![], vec![]);
    assert_eq!(complain(&mut leader, 0), nothing);
    assert_eq!(complain(&mut leader, 599), nothing, "patience is two election timeouts");
    let handed_over = Event::HandedOver { ballot: B1, unserved: GatewayId(0) };
    assert_eq!(complain(&mut leader, 600), (vec![Stage::Leaving; 4], vec![handed_over]));
    assert!(!leader.is_leading() && leader.timers().is_set(ProposerTimer::Election));
    assert_eq!(complain(&mut leader, 2000), nothing, "it does not lead");
}

#[test]
fn r28_a_gateway_that_is_heard_has_nothing_to_complain_of() {
    let ack = HeartbeatAck {
        from: Listener::Gateway(GatewayId(0)),
        ballot: B1,
        is_low: false,
        clock: Time(0),
    };
    for is_batch in [false, true] {
        let mut leader = leader(&square());
        complain(&mut leader, 0);
        if is_batch {
            leader.tell_propose(harness::propose(batch(0)), START, &mut Outbox::default());
        } else {
            leader.tell_heartbeat_ack(ack, START);
        }
        complain(&mut leader, 600);
        assert!(leader.is_leading(), "heard by a batch: {is_batch}");
        complain(&mut leader, 1200);
        assert!(!leader.is_leading(), "it was not heard since, by a batch: {is_batch}");
    }
}

#[test]
fn r28_acceptors_pass_a_complaint_on_to_the_leader_that_they_hear() {
    let mut acceptor = acceptor(&square(), 0);
    let pass_on = |acceptor: &mut Acceptor, gateway| {
        let unserved = Unserved { gateway: GatewayId(gateway) };
        out_of(|out| acceptor.on_unserved(unserved, out)).sends
    };
    assert_eq!(pass_on(&mut acceptor, 0), [], "no leader was heard");
    let heartbeat = heartbeat(&square(), B1, Stage::Leading);
    acceptor.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    let unserved = ToProposer::Unserved(Unserved { gateway: GatewayId(0) });
    assert_eq!(pass_on(&mut acceptor, 0), [To::Proposer(B1.proposer, unserved)]);
    assert_eq!(pass_on(&mut acceptor, 200), [], "no such gateway");
}

#[test]
fn r28_a_silent_leader_that_hears_of_a_larger_promise_steps_down() {
    let mut leader = leader(&square());
    for (promised, leads) in [(Ballot::default(), true), (B1, true), (B2, false)] {
        leader.tell_pre_vote_ack(quiet(0, 0, promised), START, &mut Outbox::default());
        assert_eq!(leader.is_leading(), leads, "an acceptor has promised {promised}");
    }
}

/// How long after [`START`] its next election timer fires.
fn next_election(proposer: &mut Proposer) -> Duration {
    proposer.timers().stop(ProposerTimer::Heartbeat);
    proposer.timers().next_at().expect("it never rests").since(START)
}

#[test]
fn r28_pre_votes_are_asked_for_again_after_half_a_timeout_and_some_of_a_stagger() {
    for id in [0, 1] {
        let mut proposer = proposer(&square(), id);
        ask_pre_votes(&mut proposer, START);
        let after = next_election(&mut proposer);
        assert!(millis(150) < after && after < millis(300), "{after:?}");
    }
}

#[test]
fn r28_who_was_overtaken_waits_for_a_timeout_its_turn_and_some_of_a_stagger() {
    for id in [0, 1] {
        let mut proposer = proposer(&square(), id);
        campaign(&square(), &mut proposer, Ballot::default(), START);
        let (refused, promised) = (proposer.ballot().expect("a campaign"), B3);
        proposer.tell_nack(Nack { slot: None, refused, promised }, START, &mut Outbox::default());
        let (after, turn) = (next_election(&mut proposer), millis(150 * u64::from(id)));
        assert!(turn + millis(300) < after && after < turn + millis(450), "{id}: {after:?}");
    }
}

/// A proposer whose last campaign was in vain.
fn proposer_in_vain() -> Proposer {
    let mut proposer = proposer(&square(), 1);
    campaign(&square(), &mut proposer, Ballot::default(), START);
    let now = START + millis(600);
    proposer.on_timeout(ProposerTimer::Phase1, now, &mut Outbox::default());
    assert_eq!(proposer.ballot(), None, "no page came: it gave up");
    proposer
}

#[test]
fn r28_a_reign_in_which_nothing_was_wanted_was_not_in_vain() {
    let mut leader = leader(&square());
    let nack = Nack { slot: None, refused: B1, promised: B2 };
    leader.tell_nack(nack, START, &mut Outbox::default());
    ask_leave(&mut leader, 0, START + millis(5000));
    assert!(leader.ballot().is_some(), "it has no reason to let others go first");
}

/// A timeout, and the stagger of both proposers: others have as long at the least, and the stagger
/// once more at the most.
const DEFERRED: u64 = 300 + 2 * 150;
const DEFERRED_MAX: u64 = DEFERRED + 2 * 150;

/// Asks whether it may campaign, of acceptors that have promised `promised`.
fn ask_leave_at(proposer: &mut Proposer, after: u64, promised: Ballot) {
    let now = START + millis(after);
    let nonce = ask_pre_votes(proposer, now);
    for acceptor in [0, 2, 3] {
        let ack = quiet(acceptor, nonce, promised);
        proposer.tell_pre_vote_ack(ack, now, &mut Outbox::default());
    }
}

#[test]
fn r28_a_proposer_that_campaigned_in_vain_lets_others_go_first() {
    let mut proposer = proposer_in_vain();
    for after in [0, 1, DEFERRED - 1] {
        ask_leave_at(&mut proposer, 1000 + after, Ballot::default());
        assert_eq!(proposer.ballot(), None, "after {after} ms");
    }
    let after = next_election(&mut proposer);
    let bounds = millis(1000 + DEFERRED)..=millis(1000 + DEFERRED_MAX);
    assert!(bounds.contains(&after), "it looks again when the others had their time: {after:?}");
    ask_leave(&mut proposer, 0, START + after);
    assert!(proposer.ballot().is_some(), "no other has campaigned");
}

#[test]
fn r28_the_time_that_others_get_starts_anew_when_one_has_campaigned() {
    let mut proposer = proposer_in_vain();
    ask_leave_at(&mut proposer, 1000, Ballot::default());
    let other = Ballot { round: 9, proposer: ProposerId(0), ..B1 };
    let overtaken = 1000 + DEFERRED_MAX;
    for after in [0, DEFERRED - 1] {
        ask_leave_at(&mut proposer, overtaken + after, other);
        assert_eq!(proposer.ballot(), None, "after {after} ms");
    }
    ask_leave(&mut proposer, 0, START + millis(overtaken + DEFERRED_MAX));
    assert!(proposer.ballot().is_some());
}

/// Else the one with the lowest number would be first each time.
#[test]
fn r28_how_long_others_go_first_is_left_to_chance() {
    let mut proposer = proposer_in_vain();
    let mut waits = Vec::new();
    for round in 1..6 {
        let at = round * 10_000;
        ask_leave_at(&mut proposer, at, Ballot { round, proposer: ProposerId(0), ..B1 });
        waits.push(next_election(&mut proposer) - millis(at));
    }
    waits.sort();
    waits.dedup();
    assert!(waits.len() > 3, "{waits:?}");
}

#[test]
fn r28_a_silent_leader_makes_way_for_another() {
    let mut net = Net::new(grid(2, 2));
    let is_its_p2a =
        |from, to: &To| from == P0 && matches!(to, To::ProxyLeader(_, ToProxyLeader::P2a(_)));
    net.lose(is_its_p2a);
    net.write(0);
    net.run_for(millis(4000));
    assert!(net.events.iter().any(|event| matches!(event, Event::Silenced { .. })));
    assert!(net.proposer(1).is_leading());
    assert_eq!(net.replies(), in_order(1));
}

#[test]
fn r28_a_leader_told_to_stop_hands_over() {
    let mut net = Net::new(grid(2, 2));
    net.run_for(millis(500));
    net.step(P0, |role, out| {
        let loggos_protocol::Role::Proposer(leader) = role else { unreachable!() };
        leader.leave(out);
    });
    net.run_for(2 * net.cluster.heartbeat_interval);
    assert!(net.proposer(1).is_leading(), "without an election timeout");
    assert_eq!(net.proposer(0).ballot(), None);
}

#[test]
fn r28_acceptors_count_a_leaver_as_not_heard() {
    let out = &mut Outbox::default();
    let deaf = deafness(|a| {
        for stage in [Stage::Leading, Stage::Leaving] {
            a.on_heartbeat(&heartbeat(&square(), B1, stage), START, out);
        }
    });
    assert_eq!(deaf, 0);
}

/// How many slots a role wants asked for.
fn asked(out: &Outbox) -> usize {
    pick!(out.sends, ProxyLeader(ToProxyLeader::P2a)).len()
}

fn offer(leader: &mut Proposer, batches: u64, now: Time) -> usize {
    asked(&out_of(|out| {
        (0..batches).for_each(|n| leader.tell_propose(harness::propose(batch(n)), now, out));
    }))
}

fn report(leader: &mut Proposer, replica: u8, at: u64, now: Time) -> usize {
    asked(&out_of(|out| leader.tell_executed(&executed(replica, 1, at), now, out)))
}

#[test]
fn r29_credit_reaches_one_window_beyond_the_slowest_replica() {
    let mut leader = leader(&checked(small()));
    assert_eq!(offer(&mut leader, 20, START), 8);
    assert_eq!([0, 1].map(|r| report(&mut leader, r, 6, START)), [0, 0], "replica 2 is at 0");
    assert_eq!(report(&mut leader, 2, 3, START), 3);
    assert_eq!(leader.next_slot(), Some(Slot(11)));
}

#[test]
fn r29_a_silent_replica_holds_credit_only_for_its_grace() {
    let cluster = checked(small());
    let mut leader = leader(&cluster);
    offer(&mut leader, 20, START);
    let at = |late: u64| START + cluster.replica_grace + Duration::from_nanos(late);
    assert_eq!([0, 1].map(|r| report(&mut leader, r, 6, at(0))), [0, 0]);
    assert_eq!(report(&mut leader, 0, 6, at(1)), 6, "up to 6 + 8, from 8 on");
    assert_eq!(leader.next_slot(), Some(Slot(14)));
}

/// A leader from slot 100 on, when its third replica is at `slowest`; how much it may ask for.
fn credit_beside(slowest: u64) -> (Proposer, usize) {
    let cluster = checked(small());
    let mut leader = proposer(&cluster, 0);
    for (replica, at) in [(0, 100), (1, 100), (2, slowest)] {
        introduce(&mut leader, replica, 1, at, START);
    }
    campaign(&cluster, &mut leader, Ballot::default(), START);
    for acceptor in [0, 2] {
        let promise = P1b { from: Slot(100), ..p1b(acceptor, B1, vec![]) };
        leader.tell_p1b(promise, START, &mut Outbox::default());
    }
    let asked = offer(&mut leader, 20, START);
    (leader, asked)
}

#[test]
fn r29_a_replica_more_than_a_window_behind_holds_no_credit() {
    assert_eq!(credit_beside(100).1, 8);
    assert_eq!(credit_beside(95).1, 3);
    assert_eq!(credit_beside(92).1, 0, "a window behind is not more than a window behind");
    assert_eq!(credit_beside(91).1, 8);
}

#[test]
fn r29_a_replica_that_another_life_has_replaced_holds_no_credit() {
    let (mut leader, asked_before) = credit_beside(95);
    let out = introduce(&mut leader, 2, 2, 0, START);
    assert_eq!((asked_before, asked(&out)), (3, 5));
}

#[test]
fn r29_the_proposers_queue_has_a_bound() {
    let mut leader = leader(&checked(Settings { batches_in_flight_max: 4, ..small() }));
    assert_eq!(offer(&mut leader, 20, START), 8);
    assert_eq!(leader.counters().dropped, 8, "8 are under way and 4 wait");
    leader.validate();
}

#[test]
fn r29_a_gateway_takes_no_more_commands_than_its_session_may_have() {
    let settings = Settings { session_window: 8, batch_commands_max: 8, ..grid(2, 2) };
    let mut net = Net::new(settings);
    net.lose(|_, _| true);
    (0..12).for_each(|tag| net.submit(tag, "x"));
    assert_eq!(net.replies(), [8, 9, 10, 11].map(|tag| (tag, "Busy".to_owned())));
}

#[test]
fn r31_promises_votes_and_tables_wait_for_a_sync() {
    let mut acceptor = Acceptor::new(square(), AcceptorId(0), directory(0), 1);
    let out = &mut Outbox::default();
    acceptor.on_form(&Form { proposer: ProposerId(0), table: table(&square()) }, out);
    acceptor.on_p1a(p1a(B1), START, out);
    acceptor.on_p2a(p2a(B1, 0), START, out);
    acceptor.on_p2a(p2a(B1, 0), START, out);
    let is_held = |to: &To| {
        matches!(to, To::Proposer(_, ToProposer::Formed(_) | ToProposer::P1b(_)))
            || matches!(to, To::ProxyLeader(_, ToProxyLeader::P2b(_)))
    };
    assert_eq!(out.held.len(), 4);
    assert!(out.held.iter().all(is_held) && out.sends.is_empty(), "{out:?}");
}

#[test]
fn r28_closing_slots_by_truncation_is_progress() {
    let mut leader = leader(&square());
    for number in 0..2 {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    }
    let at = START + millis(590);
    for acceptor in (0..4).map(AcceptorId) {
        let ack = HeartbeatAck {
            from: Listener::Acceptor(acceptor),
            ballot: B1,
            is_low: false,
            clock: Time(0),
        };
        leader.tell_heartbeat_ack(ack, at);
    }
    leader.tell_heartbeat_ack(
        HeartbeatAck {
            from: Listener::Gateway(GatewayId(0)),
            ballot: B1,
            is_low: false,
            clock: Time(0),
        },
        at,
    );
    leader.tell_truncated(truncated(0, B1, 1), at, &mut Outbox::default());
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Heartbeat, START + millis(600), out));
    assert!(out.events.is_empty(), "it fell silent: {:?}", out.events);
}

#[test]
fn r28_a_leader_told_to_stop_never_campaigns_again() {
    let mut leader = leader(&square());
    leader.leave(&mut Outbox::default());
    for stage in [Stage::Leading, Stage::Leaving] {
        let heartbeat = heartbeat(&square(), B2, stage);
        leader.tell_heartbeat(&heartbeat, START, &mut Outbox::default());
        assert!(!leader.timers().is_set(ProposerTimer::Election), "after a heartbeat of {stage:?}");
    }
}

#[test]
fn r28_a_replica_that_is_stuck_does_not_silence_the_leader_that_serves_it() {
    let cluster = checked(small());
    let mut leader = leader(&cluster);
    for number in 0..6 {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    }
    for (replica, at) in [(0, 6), (1, 6), (2, 2)] {
        leader.tell_executed(&executed(replica, 1, at), START, &mut Outbox::default());
    }
    let need = Need { replica: ReplicaId(2), incarnation: Incarnation(1), slot: Slot(2) };
    leader.tell_need(need, START, &mut Outbox::default());
    let ballot = leader.ballot().expect("it campaigns for the asker");
    for acceptor in [0, 2] {
        let votes = (2..6).map(|slot| vote(slot, B1, slot)).collect();
        let p1b = P1b { from: Slot(2), ..p1b(acceptor, ballot, votes) };
        leader.tell_p1b(p1b, START, &mut Outbox::default());
    }
    let (mut now, mut sent, mut silenced) = (START, 6, Vec::new());
    for number in 10..38 {
        now = now + millis(50);
        for acceptor in (0..4).map(AcceptorId) {
            let ack = HeartbeatAck {
                from: Listener::Acceptor(acceptor),
                ballot,
                is_low: false,
                clock: Time(0),
            };
            leader.tell_heartbeat_ack(ack, now);
        }
        let out = out_of(|out| {
            leader.tell_propose(harness::propose(batch(number)), now, out);
            for (replica, at) in [(0, sent), (1, sent), (2, 2)] {
                leader.tell_executed(&executed(replica, 1, at), now, out);
            }
            leader.on_timeout(ProposerTimer::Heartbeat, now, out);
        });
        let asked = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
        sent = asked.into_iter().map(|(_, p2a)| p2a.slot.0 + 1).fold(sent, u64::max);
        silenced.extend(out.events);
    }
    assert!(silenced.is_empty(), "{silenced:?}");
    // The replica is heard, not a window behind and not stuck for `replica_grace`: it holds credit
    // (R29), and no more.
    assert_eq!(sent, 2 + u64::from(cluster.slot_window), "one window beyond the stuck one");
}

/// A read and a write quorum are quiet, and have voted below `votes_end`; what the proposer says to
/// that.
fn ask_leave(proposer: &mut Proposer, votes_end: u64, now: Time) -> Outbox {
    let nonce = ask_pre_votes(proposer, now);
    let votes_end = Watermark(votes_end);
    let acks = [0, 2, 3].map(|a| PreVoteAck { votes_end, ..quiet(a, nonce, Ballot::default()) });
    out_of(|out| acks.into_iter().for_each(|ack| proposer.tell_pre_vote_ack(ack, now, out)))
}

/// A proposer of a cluster with a ring of 16 slots, that knows so many replicas; they have executed
/// nothing.
fn proposer_after_a_stop(replicas: u8) -> Proposer {
    let mut proposer = proposer(&checked(small()), 0);
    (0..replicas).for_each(|replica| drop(introduce(&mut proposer, replica, 1, 0, START)));
    proposer
}

#[test]
fn r15_a_proposer_waits_while_replicas_get_on() {
    let mut proposer = proposer_after_a_stop(3);
    let out = ask_leave(&mut proposer, 100, START);
    let heartbeats = pick!(out.sends, Replica(ToReplica::Heartbeat));
    assert_eq!(out.sends.len(), heartbeats.len(), "acceptors hear no leader: others may campaign");
    let told: Vec<_> = heartbeats.iter().map(|(to, it)| (to.0, it.stage)).collect();
    assert_eq!(told, [0, 1, 2].map(|replica| (replica, Stage::Waiting)));
    assert_eq!(next_election(&mut proposer), millis(50), "it looks again soon");
    let mut now = START;
    for at in 1..84 {
        now = now + millis(500);
        for replica in [0, 1] {
            let executed = executed(replica, 1, at);
            proposer.tell_executed(&executed, now, &mut Outbox::default());
        }
        ask_leave(&mut proposer, 100, now);
        assert_eq!(proposer.ballot(), None, "f+1 replicas are at {at}");
    }
    assert_eq!(proposer.counters().waits, 84);
    for replica in [0, 1] {
        proposer.tell_executed(&executed(replica, 1, 84), now, &mut Outbox::default());
    }
    let out = ask_leave(&mut proposer, 100, now);
    let p1as = pick!(out.sends, Acceptor(ToAcceptor::P1a));
    assert!(proposer.ballot().is_some() && p1as.iter().all(|(_, p1a)| p1a.first == Slot(84)));
    assert_eq!(proposer.counters().waits, 84);
}

#[test]
fn r15_replicas_that_are_stuck_are_waited_for_during_two_election_timeouts() {
    let mut proposer = proposer_after_a_stop(3);
    for after in [0, 300, 599] {
        ask_leave(&mut proposer, 100, START + millis(after));
        proposer.tell_executed(&executed(0, 1, 1 + after), START, &mut Outbox::default());
        assert_eq!(proposer.ballot(), None, "after {after} ms");
    }
    ask_leave(&mut proposer, 100, START + millis(600));
    assert!(proposer.ballot().is_some(), "one replica gets on, and no other");
}

#[test]
fn r15_too_few_replicas_are_waited_for() {
    let mut proposer = proposer_after_a_stop(1);
    for after in [0, 1000, 2000] {
        ask_leave(&mut proposer, 100, START + millis(after));
    }
    introduce(&mut proposer, 1, 1, 0, START);
    for after in [2100, 2599] {
        ask_leave(&mut proposer, 100, START + millis(after));
        assert_eq!(proposer.ballot(), None, "after {after} ms");
    }
    ask_leave(&mut proposer, 100, START + millis(2600));
    assert!(proposer.ballot().is_some(), "two timeouts after it last found too few");
}

#[test]
fn r15_what_a_reign_leaves_behind_is_not_waited_for() {
    for (votes_end, campaigns) in [(0, true), (16, true), (17, false)] {
        let mut proposer = proposer_after_a_stop(3);
        ask_leave(&mut proposer, votes_end, START);
        assert_eq!(proposer.ballot().is_some(), campaigns, "votes up to {votes_end}");
        assert_eq!(proposer.counters().waits, u64::from(!campaigns));
    }
}

/// Else every reign would begin by giving slots to a proxy leader that achieves nothing, and wait
/// for each of them.
#[test]
fn r12_a_suspected_proxy_leader_is_suspected_in_the_next_reign_as_well() {
    let mut leader = leader(&square());
    leader.on_gone(RoleId::ProxyLeader(ProxyLeaderId(0)), START, &mut Outbox::default());
    let nack = Nack { slot: None, refused: B1, promised: B2 };
    leader.tell_nack(nack, START, &mut Outbox::default());
    let later = START + millis(5000);
    campaign(&square(), &mut leader, B2, later);
    let mut out = Outbox::default();
    for acceptor in 0..4 {
        let votes = (0..4).map(|slot| vote(slot, B1, slot)).collect();
        leader.tell_p1b(p1b(acceptor, B3, votes), later, &mut out);
    }
    let asked = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    assert_eq!(asked.len(), 4, "all that was recovered: {:?}", leader.ballot());
    assert!(asked.iter().all(|(via, _)| *via == ProxyLeaderId(1)), "{asked:?}");
}

/// A replica gives its credit up with time, not with a message: with nothing open, nothing else
/// would come.
#[test]
fn r29_what_waits_for_credit_gets_it_when_a_replica_has_lost_its_own() {
    let mut leader = leader(&checked(small()));
    assert_eq!(offer(&mut leader, 9, START), 8, "a window");
    for replica in [0, 1] {
        leader.tell_executed(&executed(replica, 1, 8), START, &mut Outbox::default());
    }
    let end = START + 2 * small().replica_grace;
    let mut asked_at = None;
    while let Some(now) = leader.timers().next_at().filter(|at| *at <= end) {
        let timer = leader.timers().take_due(now).expect("it is due");
        let out = out_of(|out| leader.on_timeout(timer, now, out));
        leader.validate();
        asked_at = asked_at.or_else(|| (asked(&out) > 0).then_some(now));
    }
    let grace = small().replica_grace;
    assert!(asked_at.is_some_and(|at| at.since(START) >= grace), "{asked_at:?}");
}
