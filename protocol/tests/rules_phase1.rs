//! R5 to R9: phase 1, and what a leader makes of it.

mod harness;

use harness::{
    B1, B2, B3, ProposerMessages, START, acceptor, batch, campaign, checked, executed, grid,
    heartbeat, introduce, leader, millis, out_of, p1a, p1b, p2a, p2b, pick, proposer, proxy_leader,
    small, square, truncate, truncated, value, vote,
};
use loggos_protocol::{
    Acceptor, Ballot, ClusterSettings, Event, Executed, HeartbeatAck, Incarnation, Listener, Nack,
    Need, NotLeader, Outbox, P1a, P1b, P2a, Proposer, ProposerId, ProposerTimer, ProxyLeader,
    ReplicaId, Settings, Slot, Stage, Time, ToAcceptor, ToGateway, ToProposer, ToProxyLeader,
    ToReplica, Truncated, Value, Vote, Watermark,
};

/// Slot and value of each P2a to a proxy leader.
fn asked(out: &Outbox) -> Vec<(u64, Value)> {
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    p2as.into_iter().map(|(_, p2a)| (p2a.slot.0, p2a.value.clone())).collect()
}

fn asked_slots(out: &Outbox) -> Vec<u64> {
    asked(out).into_iter().map(|(slot, _)| slot).collect()
}

/// The acceptors that it asks, and the P1a of each.
fn p1as(out: &Outbox) -> Vec<(u8, P1a)> {
    let p1as = pick!(out.sends, Acceptor(ToAcceptor::P1a));
    p1as.into_iter().map(|(to, p1a)| (to.0, *p1a)).collect()
}

/// A candidate in [`B1`], from slot 0 on.
fn candidate(cluster: &ClusterSettings) -> Proposer {
    let mut candidate = proposer(cluster, 0);
    campaign(cluster, &mut candidate, Ballot::default(), START);
    candidate
}

fn hand(proposer: &mut Proposer, p1b: P1b) -> Outbox {
    out_of(|out| proposer.tell_p1b(p1b, START, out))
}

fn hear(proposer: &mut Proposer, executed: Executed, now: Time) -> Outbox {
    out_of(|out| proposer.tell_executed(&executed, now, out))
}

fn need(replica: u8, life: u64, slot: u64) -> Need {
    Need { replica: ReplicaId(replica), incarnation: Incarnation(life), slot: Slot(slot) }
}

fn ask_for(proposer: &mut Proposer, need: Need) -> Outbox {
    out_of(|out| proposer.tell_need(need, START, out))
}

#[test]
fn r05_phase_1_starts_at_what_f_plus_1_replicas_have_executed_in_their_current_lives() {
    let mut candidate = proposer(&square(), 0);
    for (replica, at) in [(0, 100), (1, 70), (2, 20)] {
        introduce(&mut candidate, replica, 1, at, START);
    }
    introduce(&mut candidate, 1, 2, 5, START); // a restart lowers it
    let out = campaign(&square(), &mut candidate, Ballot::default(), START);
    let first = Slot(20);
    let to_all = [0, 1, 2, 3].map(|a| (a, P1a { ballot: B1, first, page: first }));
    assert_eq!(p1as(&out), to_all);
}

#[test]
fn r05_p1a_is_resent_to_whoever_is_missing_until_a_read_quorum_is_whole() {
    let mut candidate = candidate(&square());
    hand(&mut candidate, p1b(0, B1, vec![]));
    let out = out_of(|out| candidate.on_timeout(ProposerTimer::Phase1, START + millis(40), out));
    assert_eq!(p1as(&out), [1, 2, 3].map(|a| (a, p1a(B1))));
    hand(&mut candidate, p1b(2, B1, vec![]));
    assert!(candidate.is_leading());
    assert!(!candidate.timers().is_set(ProposerTimer::Phase1));
}

#[test]
fn r06_pages_are_asked_for_until_one_is_open_ended() {
    let cluster = checked(Settings { page_slots_max: 2, ..grid(2, 2) });
    let mut acceptors = [acceptor(&cluster, 0), acceptor(&cluster, 2)];
    for slot in 0..5 {
        acceptors[0].on_p2a(p2a(B1, slot), START, &mut Outbox::default());
    }
    let mut leader = proposer(&cluster, 1);
    let mut said = campaign(&cluster, &mut leader, B1, START);
    let mut ranges = Vec::new();
    for acceptor in &mut acceptors {
        let mut next = p1as(&said).into_iter().find(|(to, _)| *to == acceptor.id().0);
        while let Some((_, p1a)) = next {
            let p1b = promise(acceptor, p1a);
            ranges.push((p1b.acceptor.0, p1b.from.0, p1b.to.map(|to| to.0)));
            let out = hand(&mut leader, p1b);
            next = p1as(&out).first().copied();
            said.sends.extend(out.sends);
        }
    }
    assert_eq!(ranges, [(0, 0, Some(2)), (0, 2, Some(4)), (0, 4, None), (2, 0, None)]);
    assert_eq!(asked(&said), (0..5).map(|slot| (slot, value(slot))).collect::<Vec<_>>());
}

fn promise(acceptor: &mut Acceptor, p1a: P1a) -> P1b {
    let out = out_of(|out| acceptor.on_p1a(p1a, START, out));
    P1b::clone(pick!(out.held, Proposer(ToProposer::P1b))[0].1)
}

#[test]
fn r06_an_acceptor_whose_pages_leave_a_hole_does_not_count() {
    let mut candidate = candidate(&square());
    hand(&mut candidate, p1b(2, B1, vec![]));
    let page = |from, to: Option<u64>, votes| P1b {
        from: Slot(from),
        to: to.map(Watermark),
        ..p1b(0, B1, votes)
    };
    hand(&mut candidate, page(0, Some(2), vec![vote(1, B1, 1)]));
    hand(&mut candidate, page(4, None, vec![vote(4, B1, 4)]));
    assert!(!candidate.is_leading(), "[2, 4) is not covered");
    let out = hand(&mut candidate, page(2, None, vec![vote(3, B1, 3)]));
    assert!(candidate.is_leading());
    assert_eq!(asked(&out)[1], (1, value(1)));
    assert_eq!(asked(&out)[3], (3, value(3)));
}

#[test]
fn r06_what_is_truncated_between_two_pages_is_covered() {
    let cluster = checked(Settings { page_slots_max: 2, ..grid(2, 2) });
    let mut acceptor = acceptor(&cluster, 0);
    (0..6).for_each(|slot| acceptor.on_p2a(p2a(B1, slot), START, &mut Outbox::default()));
    let mut leader = proposer(&cluster, 1);
    campaign(&cluster, &mut leader, B1, START);
    hand(&mut leader, p1b(2, B2, vec![]));
    let out = hand(&mut leader, promise(&mut acceptor, p1a(B2)));
    let (_, next) = p1as(&out)[0];
    truncate(&mut acceptor, 5);
    let out = hand(&mut leader, promise(&mut acceptor, next));
    assert!(leader.is_leading(), "[0, 2) by a page, [2, 5) by truncation, the rest by a page");
    assert_eq!(asked(&out), [(5, value(5))]);
}

#[test]
fn r06_the_highest_ballot_wins_whatever_the_order_and_whoever_reports_it() {
    let reports = [(0, B2, 22), (1, B1, 11), (2, B1, 11), (3, B1, 11)];
    for turn in 0..4 {
        let mut candidate = proposer(&square(), 0);
        campaign(&square(), &mut candidate, B2, START);
        let mut told = Vec::new();
        // The last in turn completes a column; a0's report may be one beyond the quorum.
        for (acceptor, ballot, number) in reports.iter().cycle().skip(turn).take(4) {
            let out = hand(&mut candidate, p1b(*acceptor, B3, vec![vote(0, *ballot, *number)]));
            told.push(*acceptor);
            if candidate.is_leading() {
                let expected = if told.contains(&0) { value(22) } else { value(11) };
                assert_eq!(asked(&out), [(0, expected)], "told by {told:?}");
                break;
            }
        }
    }
}

#[test]
fn r06_the_first_slot_of_a_ballot_never_changes() {
    let mut candidate = candidate(&square());
    for replica in 0..3 {
        introduce(&mut candidate, replica, 1, 50, START);
    }
    let out = out_of(|out| candidate.on_timeout(ProposerTimer::Phase1, START + millis(40), out));
    assert!(p1as(&out).iter().all(|(_, again)| *again == p1a(B1)), "{out:?}");
}

#[test]
fn r07_slots_are_recovered_once_a_ballot() {
    let mut leader = candidate(&square());
    let votes = || vec![vote(0, B1, 0), vote(2, B1, 2)];
    hand(&mut leader, p1b(0, B1, votes()));
    let out = hand(&mut leader, p1b(2, B1, votes()));
    assert_eq!(asked_slots(&out), [0, 1, 2]);
    for late in [1, 2, 3] {
        let out = hand(&mut leader, p1b(late, B1, vec![vote(5, B1, 5)]));
        assert!(out.sends.is_empty(), "a late promise: {:?}", out.sends);
    }
    assert_eq!(leader.next_slot(), Some(Slot(3)));
}

#[test]
fn r07_nothing_below_truncation_is_proposed_and_everything_above_is() {
    // (largest truncation, slots voted in, slots proposed)
    let cases: [(u64, &[u64], &[u64]); 4] =
        [(0, &[], &[]), (5, &[7], &[5, 6, 7]), (9, &[7], &[]), (3, &[1, 2, 4], &[3, 4])];
    for (truncated, voted, proposed) in cases {
        let mut leader = candidate(&square());
        let votes = voted.iter().map(|slot| vote(*slot, B1, *slot)).collect();
        hand(&mut leader, p1b(0, B1, votes));
        let forgetting =
            P1b { truncated: Watermark(truncated), from: Slot(truncated), ..p1b(2, B1, vec![]) };
        let mut out = hand(&mut leader, forgetting);
        // There is credit beyond truncation once replicas say that they are there.
        for replica in 0..2 {
            let credit = introduce(&mut leader, replica, 1, truncated, START);
            out.sends.extend(credit.sends);
        }
        assert_eq!(asked_slots(&out), proposed, "truncated below {truncated}");
        let next = proposed.last().map_or(truncated, |last| last + 1);
        assert_eq!(leader.next_slot(), Some(Slot(next)));
        for (slot, proposed) in asked(&out) {
            let is_voted = voted.contains(&slot);
            assert_eq!(proposed.batch().is_some(), is_voted, "s{slot} is a no-op or the report");
        }
    }
}

#[test]
fn r07_even_what_has_votes_enough_is_proposed_again() {
    let mut leader = candidate(&square());
    let mut out = Outbox::default();
    for acceptor in [0, 1, 2] {
        out = hand(&mut leader, p1b(acceptor, B1, vec![vote(0, B1, 0)]));
    }
    assert_eq!(asked(&out), [(0, value(0))]);
}

/// A leader that has proposed slots 0 to 5; replicas 0 and 1 have executed them all, 2 only two.
fn leader_at_6(cluster: &ClusterSettings) -> Proposer {
    let mut leader = leader(cluster);
    (0..6).for_each(|number| {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    });
    for (replica, at) in [(0, 6), (1, 6), (2, 2)] {
        hear(&mut leader, executed(replica, 1, at), START);
    }
    leader
}

/// What acceptors report after [`leader_at_6`], and then some.
fn votes_from_2(until: u64) -> Vec<(Slot, Vote)> {
    (2..until).map(|slot| vote(slot, B1, slot)).collect()
}

/// Replica 2 needs slot 2, and the leader's new ballot is elected for it.
fn rerun_from_2(cluster: &ClusterSettings, until: u64) -> (Proposer, Outbox) {
    let mut leader = leader_at_6(cluster);
    ask_for(&mut leader, need(2, 1, 2));
    let ballot = leader.ballot().expect("a campaign");
    let mut out = Outbox::default();
    for acceptor in [0, 2] {
        let report = P1b { from: Slot(2), ..p1b(acceptor, ballot, votes_from_2(until)) };
        out.sends.extend(hand(&mut leader, report).sends);
    }
    assert!(leader.is_leading(), "a column has promised");
    (leader, out)
}

#[test]
fn r08_a_slot_below_the_leaders_start_takes_a_phase_1_in_a_new_ballot() {
    let mut leader = leader_at_6(&square());
    let out = ask_for(&mut leader, need(2, 1, 2));
    let ballot = leader.ballot().unwrap();
    assert!(ballot > B1 && !leader.is_leading());
    let first = Slot(2);
    assert_eq!(p1as(&out), [0, 1, 2, 3].map(|a| (a, P1a { ballot, first, page: first })));
    assert!(ask_for(&mut leader, need(2, 1, 2)).sends.is_empty(), "one run at a time");
    assert_eq!(leader.ballot(), Some(ballot));

    let (_, out) = rerun_from_2(&square(), 6);
    assert_eq!(asked(&out), (2..6).map(|slot| (slot, value(slot))).collect::<Vec<_>>());
}

#[test]
fn r08_requests_that_a_run_covers_are_ignored_until_it_is_over() {
    let (mut leader, _) = rerun_from_2(&square(), 6);
    let ballot = leader.ballot();
    hear(&mut leader, executed(2, 1, 4), START);
    assert!(ask_for(&mut leader, need(2, 1, 2)).sends.is_empty());
    assert_eq!(asked_slots(&ask_for(&mut leader, need(2, 1, 4))), [4], "an open slot, once more");
    assert_eq!(leader.ballot(), ballot);
    introduce(&mut leader, 1, 2, 0, START);
    assert!(ask_for(&mut leader, need(1, 2, 3)).sends.is_empty(), "nor those of others");
    assert_eq!(leader.ballot(), ballot);
    hear(&mut leader, executed(2, 1, 6), START);
    assert!(!p1as(&ask_for(&mut leader, need(1, 2, 3))).is_empty(), "the run is over");
}

#[test]
fn r08_a_run_ends_when_its_asker_is_silent() {
    let (mut leader, _) = rerun_from_2(&square(), 6);
    let later = START + square().replica_grace + millis(1);
    for acceptor in square().quorums.acceptors().iter() {
        let from = Listener::Acceptor(acceptor);
        leader.tell_heartbeat_ack(
            HeartbeatAck { from, ballot: leader.ballot().unwrap(), is_low: false, clock: Time(0) },
            later,
        );
    }
    hear(&mut leader, executed(0, 1, 6), later);
    introduce(&mut leader, 1, 2, 0, later);
    let out = out_of(|out| leader.tell_need(need(1, 2, 3), later, out));
    assert!(!p1as(&out).is_empty(), "another may ask now");
}

#[test]
fn r08_a_run_sends_at_most_one_window_beyond_its_asker() {
    let cluster = checked(small());
    let (mut leader, out) = rerun_from_2(&cluster, 14);
    assert_eq!(asked_slots(&out), (2..10).collect::<Vec<_>>());
    for others in [0, 1] {
        let out = hear(&mut leader, executed(others, 1, 14), START);
        assert!(asked_slots(&out).is_empty(), "others do not set its pace: {out:?}");
    }
    let out = hear(&mut leader, executed(2, 1, 5), START);
    assert_eq!(asked_slots(&out), [10, 11, 12]);
}

#[test]
fn r08_a_run_begins_by_dropping_what_was_open() {
    let mut leader = leader_at_6(&square());
    leader.tell_propose(harness::propose(batch(6)), START, &mut Outbox::default());
    ask_for(&mut leader, need(2, 1, 2));
    assert!(!leader.timers().is_set(ProposerTimer::Resend));
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Resend, START + millis(5000), out));
    assert!(asked(&out).is_empty(), "slot 6 is no longer ours: {out:?}");
}

#[test]
fn r08_what_acceptors_have_forgotten_is_answered_truncated() {
    let mut leader = leader_at_6(&square());
    ask_for(&mut leader, need(2, 1, 2));
    let ballot = leader.ballot().unwrap();
    let forgetting =
        |a| P1b { truncated: Watermark(5), from: Slot(5), ..p1b(a, ballot, votes_from_2(6)) };
    hand(&mut leader, forgetting(0));
    let out = hand(&mut leader, forgetting(2));
    let truncated = Truncated { acceptor: None, ..truncated(2, ballot, 5) };
    let told = pick!(out.sends, Replica(ToReplica::Truncated));
    assert_eq!(told, [(ReplicaId(2), &truncated)]);
    assert_eq!(asked_slots(&out), [5], "nothing below truncation is proposed");
    assert!(!p1as(&ask_for(&mut leader, need(2, 1, 3))).is_empty(), "requests count again");
}

#[test]
fn r08_a_former_lifes_request_moves_nobody() {
    let mut leader = leader_at_6(&square());
    introduce(&mut leader, 2, 2, 0, START);
    assert!(ask_for(&mut leader, need(2, 1, 2)).sends.is_empty());
    assert_eq!(leader.ballot(), Some(B1));
}

#[test]
fn r08_a_higher_ballot_moves_a_proxy_leaders_window_down() {
    let cluster = checked(small());
    let (mut proxy_leader, ring) = (proxy_leader(&cluster), u64::from(cluster.ring_slots()));
    proxy_leader.on_p2a(p2a(B1, ring + 3), START, &mut Outbox::default());
    let out = out_of(|out| proxy_leader.on_p2a(p2a(B1, 3), START, out));
    assert!(out.sends.is_empty(), "an older slot of the same ballot: {:?}", out.sends);
    let out = out_of(|out| proxy_leader.on_p2a(p2a(B2, 3), START, out));
    assert_eq!(pick!(out.sends, Acceptor(ToAcceptor::P2a)).len(), 2);
}

#[test]
fn r09_who_does_not_lead_says_who_might() {
    let mut follower = proposer(&square(), 0);
    let refuse = |proposer: &mut Proposer| {
        let out = out_of(|out| proposer.tell_propose(harness::propose(batch(3)), START, out));
        assert_eq!(out.sends.len(), 1, "{:?}", out.sends);
        *pick!(out.sends, Gateway(ToGateway::NotLeader))[0].1
    };
    let id = batch(3).id;
    let unknown = NotLeader { proposer: ProposerId(0), batch: id, attempt: 0, hint: None };
    assert_eq!(refuse(&mut follower), unknown);
    let heartbeat = heartbeat(&square(), B2, Stage::Leading);
    follower.tell_heartbeat(&heartbeat, START, &mut Outbox::default());
    assert_eq!(refuse(&mut follower), NotLeader { hint: Some(ProposerId(1)), ..unknown });
}

#[test]
fn r09_stepping_down_drops_open_slots_and_their_timers() {
    let mut leader = leader(&square());
    leader.tell_propose(harness::propose(batch(0)), START, &mut Outbox::default());
    assert!(leader.timers().is_set(ProposerTimer::Resend));
    let nack = Nack { slot: Some(Slot(0)), refused: B1, promised: B2 };
    let out = out_of(|out| leader.tell_nack(nack, START, out));
    assert_eq!(out.events, [Event::SteppedDown { ballot: B1, promised: B2 }]);
    assert_eq!((leader.ballot(), leader.timers().is_set(ProposerTimer::Resend)), (None, false));
    for timer in [ProposerTimer::Resend, ProposerTimer::Heartbeat] {
        let out = out_of(|out| leader.on_timeout(timer, START + millis(5000), out));
        assert!(out.sends.is_empty(), "{:?}", out.sends);
    }
}

#[test]
fn r09_stepping_down_refuses_what_waits_for_a_slot() {
    let cluster = checked(small());
    let mut leader = leader(&cluster);
    (0..10).for_each(|number| {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    });
    let nack = Nack { slot: None, refused: B1, promised: B2 };
    let out = out_of(|out| leader.tell_nack(nack, START, out));
    let refused = pick!(out.sends, Gateway(ToGateway::NotLeader));
    let numbers: Vec<_> = refused.iter().map(|(_, n)| (n.batch.number, n.hint)).collect();
    assert_eq!(numbers, [(8, Some(ProposerId(1))), (9, Some(ProposerId(1)))]);
}

/// Ballot, slot and value of each P2a to a proxy leader.
fn claims(out: &Outbox) -> Vec<(Ballot, Slot, Value)> {
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    p2as.into_iter()
        .map(|(_, P2a { ballot, slot, value, .. })| (*ballot, *slot, value.clone()))
        .collect()
}

#[test]
fn r09_a_resend_keeps_ballot_and_value() {
    let mut leader = leader(&square());
    let mut out = Outbox::default();
    (0..3).for_each(|number| leader.tell_propose(harness::propose(batch(number)), START, &mut out));
    let first = claims(&out);
    assert_eq!(first.len(), 3);
    let mut now = START;
    for _ in 0..4 {
        // A higher ballot was met meanwhile, which changes nothing for what is open.
        let ballot = harness::ballot(9, 1);
        let campaigning = heartbeat(&square(), ballot, Stage::Campaigning);
        leader.tell_heartbeat(&campaigning, now, &mut Outbox::default());
        now = now + millis(2000);
        let out = out_of(|out| leader.on_timeout(ProposerTimer::Resend, now, out));
        let again = claims(&out);
        assert!(again.contains(&first[0]), "the slot that holds all others up: {again:?}");
        assert!(again.iter().all(|claim| first.contains(claim)), "{again:?}");
    }
    hear(&mut leader, executed(0, 1, 3), now);
    hear(&mut leader, executed(1, 1, 3), now);
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Resend, now + millis(5000), out));
    assert!(claims(&out).is_empty(), "closed slots are not sent again");
}

#[test]
fn r09_a_proxy_leader_that_has_seen_it_chosen_says_so_again() {
    let mut proxy_leader = proxy_leader(&square());
    let ask = |proxy: &mut ProxyLeader| out_of(|out| proxy.on_p2a(p2a(B1, 0), START, out));
    ask(&mut proxy_leader);
    for voter in [0, 1] {
        proxy_leader.on_p2b(p2b(voter, B1, 0), START, &mut Outbox::default());
    }
    let out = ask(&mut proxy_leader);
    assert_eq!(pick!(out.sends, Replica(ToReplica::Chosen)).len(), 3);
    assert_eq!(out.sends.len(), 3, "and asks no acceptor: {:?}", out.sends);
}

/// Two acceptors of a column answer each P1a: they have voted for 50 slots, and tell of so many a
/// page. Returns what the candidate says in the end, and which pages it has asked for.
fn promise_50(leader: &mut Proposer, campaign: &Outbox, page_slots: u64) -> (Outbox, Vec<u64>) {
    let ballot = leader.ballot().expect("a campaign");
    let (mut unanswered, mut said, mut pages) = (p1as(campaign), Outbox::default(), Vec::new());
    unanswered.retain(|(to, _)| [0, 2].contains(to));
    while let Some((acceptor, P1a { page, .. })) = unanswered.pop() {
        let end = page.0 + page_slots;
        let votes = (page.0..end.min(50)).map(|slot| vote(slot, B1, slot)).collect();
        let to = Some(Watermark(end)).filter(|end| end.0 < 50);
        said = hand(leader, P1b { from: page, to, ..p1b(acceptor, ballot, votes) });
        unanswered.extend(p1as(&said));
        pages.push(page.0);
    }
    assert!(leader.is_leading(), "a column has promised");
    (said, pages)
}

/// Replicas get on, slot by slot, until it campaigns; returns what it asks for, and what it says
/// then.
fn get_on(leader: &mut Proposer, replicas: &[u8], said: &Outbox) -> (Vec<u64>, Outbox) {
    let mut slots = asked_slots(said);
    for at in 1.. {
        assert!(slots.last() >= Some(&(at - 1)), "it does not ask for s{}", at - 1);
        for replica in replicas {
            let out = hear(leader, executed(*replica, 1, at), START);
            slots.extend(asked_slots(&out));
            if !leader.is_leading() {
                return (slots, out);
            }
        }
    }
    unreachable!("there is an end")
}

/// Acceptors with a disk keep more than the 32 slots that a reign has room for.
#[test]
fn r29_a_log_longer_than_a_reign_has_room_for_is_recovered_part_by_part() {
    let cluster = checked(small());
    for page_slots in [10, 32, 50] {
        let mut leader = proposer(&cluster, 0);
        (0..2).for_each(|replica| drop(introduce(&mut leader, replica, 1, 0, START)));
        let said = campaign(&cluster, &mut leader, B1, START);
        let ballot = leader.ballot();
        let (said, pages) = promise_50(&mut leader, &said, page_slots);
        assert!(pages.iter().all(|page| *page < 32), "there is no room for {pages:?}");
        let out = out_of(|out| leader.tell_propose(harness::propose(batch(99)), START, out));
        assert!(asked(&out).is_empty());
        let (slots, out) = get_on(&mut leader, &[0, 1], &said);
        assert_eq!(
            slots,
            (0..32).collect::<Vec<_>>(),
            "no slot is free: an acceptor has voted above"
        );
        assert!(leader.ballot() > ballot, "phase 1 of the old ballot is over for good");
        assert!(p1as(&out).iter().all(|(_, p1a)| p1a.first == Slot(32)), "{out:?}");

        let (said, _) = promise_50(&mut leader, &out, page_slots);
        assert_eq!(asked(&said), (32..40).map(|slot| (slot, value(slot))).collect::<Vec<_>>());
        assert_eq!(leader.next_slot(), Some(Slot(50)), "the last part: what comes above is free");
    }
}

#[test]
fn r08_a_run_over_a_long_log_is_over_after_a_part_of_it() {
    let cluster = checked(small());
    let mut leader = proposer(&cluster, 0);
    for (replica, at) in [(0, 50), (1, 50), (2, 0)] {
        introduce(&mut leader, replica, 1, at, START);
    }
    let said = campaign(&cluster, &mut leader, B1, START);
    promise_50(&mut leader, &said, 10);
    let said = ask_for(&mut leader, need(2, 1, 0));
    let (said, _) = promise_50(&mut leader, &said, 10);
    let (slots, out) = get_on(&mut leader, &[2], &said);
    assert_eq!(slots, (0..32).collect::<Vec<_>>());
    assert!(p1as(&out).iter().all(|(_, p1a)| p1a.first == Slot(50)), "others get their turn");
}
