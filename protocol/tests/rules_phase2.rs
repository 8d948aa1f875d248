//! R10 to R14: voting, and counting votes.

mod harness;

use harness::{
    B1, B2, B3, ProposerMessages, START, acceptor, batch, checked, executed, grid, heartbeat,
    leader, millis, out_of, p1a, p1b, p2a, p2b, pick, proxy_leader, set, small, square, truncate,
    truncated, value, vote,
};
use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, Chosen, Event, HeartbeatAck, Incarnation, Listener,
    Nack, Outbox, P2a, P2b, ProposerId, ProposerTimer, ProxyLeader, ProxyLeaderId,
    ProxyLeaderTimer, Slot, Stage, Time, To, ToAcceptor, ToProposer, ToProxyLeader, ToReplica,
    Truncated,
};

fn votes(out: &Outbox) -> Vec<(ProxyLeaderId, P2b)> {
    pick!(out.held, ProxyLeader(ToProxyLeader::P2b))
        .into_iter()
        .map(|(to, p2b)| (to, *p2b))
        .collect()
}

fn vote_on(acceptor: &mut Acceptor, p2a: P2a) -> Outbox {
    out_of(|out| acceptor.on_p2a(p2a, START, out))
}

/// The acceptors that a proxy leader asks, and for which P2a.
fn asked(out: &Outbox) -> (AcceptorSet, Vec<P2a>) {
    let p2as = pick!(out.sends, Acceptor(ToAcceptor::P2a));
    (p2as.iter().map(|(to, _)| *to).collect(), p2as.into_iter().map(|(_, p)| p.clone()).collect())
}

fn ask(proxy_leader: &mut ProxyLeader, p2a: P2a, now: Time) -> Outbox {
    out_of(|out| proxy_leader.on_p2a(p2a, now, out))
}

/// What a proxy leader says to replicas when it has a vote.
fn count(proxy_leader: &mut ProxyLeader, p2b: P2b, now: Time) -> Vec<Chosen> {
    let out = out_of(|out| proxy_leader.on_p2b(p2b, now, out));
    pick!(out.sends, Replica(ToReplica::Chosen)).into_iter().map(|(_, c)| c.clone()).collect()
}

#[test]
fn r10_a_vote_is_a_promise_even_where_the_p2a_overtakes_the_p1a() {
    let mut acceptor = acceptor(&square(), 0);
    assert_eq!(votes(&vote_on(&mut acceptor, p2a(B2, 0))), [(ProxyLeaderId(0), p2b(0, B2, 0))]);
    assert_eq!(acceptor.promised(), B2);
    assert!(votes(&vote_on(&mut acceptor, p2a(B1, 1))).is_empty(), "below the promise");
    let out = out_of(|out| acceptor.on_p1a(p1a(B1), START, out));
    assert!(out.held.is_empty(), "{:?}", out.held);
    assert_eq!(votes(&vote_on(&mut acceptor, p2a(B2, 1))).len(), 1, "at the promise");
}

#[test]
fn r10_another_value_in_a_ballot_and_slot_is_refused_loudly() {
    let mut acceptor = acceptor(&square(), 0);
    vote_on(&mut acceptor, p2a(B1, 3));
    let out = vote_on(&mut acceptor, P2a { value: value(99), ..p2a(B1, 3) });
    assert!(votes(&out).is_empty() && out.sends.is_empty());
    let (acceptor_id, slot) = (AcceptorId(0), Slot(3));
    assert_eq!(out.events, [Event::Equivocation { acceptor: acceptor_id, ballot: B1, slot }]);
    assert_eq!(acceptor.vote(slot).map(|v| &v.value), Some(&value(3)), "the first one stays");
    let out = vote_on(&mut acceptor, P2a { value: value(99), ..p2a(B2, 3) });
    assert_eq!(votes(&out).len(), 1, "another ballot may have another value");
    assert_eq!(acceptor.vote(slot).map(|v| &v.value), Some(&value(99)));
}

#[test]
fn r10_a_repeated_p2a_is_answered_to_whoever_sent_it_now() {
    let mut acceptor = acceptor(&square(), 0);
    for via in [0, 1, 0].map(ProxyLeaderId) {
        let out = vote_on(&mut acceptor, P2a { via, ..p2a(B1, 3) });
        assert_eq!(votes(&out), [(via, p2b(0, B1, 3))]);
    }
}

#[test]
fn r10_below_truncation_there_is_no_vote() {
    let mut acceptor = acceptor(&square(), 0);
    vote_on(&mut acceptor, p2a(B1, 3));
    truncate(&mut acceptor, 5);
    let out = vote_on(&mut acceptor, p2a(B1, 3));
    assert!(votes(&out).is_empty(), "not even for what it had voted for: {:?}", out.held);
    let told = pick!(out.sends, ProxyLeader(ToProxyLeader::Truncated));
    assert_eq!(told, [(ProxyLeaderId(0), &truncated(3, B1, 5))]);
}

#[test]
fn r10_truncated_closes_the_slot_at_proxy_leader_and_proposer() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    let forgotten = truncated(0, B1, 1);
    let out = out_of(|out| proxy_leader.on_truncated(forgotten, out));
    let told = [To::Proposer(ProposerId(0), ToProposer::Truncated(forgotten))];
    assert_eq!(out.sends, told, "chosen, but no replica is told a value");
    assert!(count(&mut proxy_leader, p2b(0, B1, 0), START).is_empty());
    assert!(count(&mut proxy_leader, p2b(1, B1, 0), START).is_empty(), "the entry is gone");

    let mut leader = leader(&square());
    (0..2).for_each(|number| {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    });
    leader.tell_truncated(truncated(0, B2, 2), START, &mut Outbox::default());
    leader.tell_truncated(forgotten, START, &mut Outbox::default());
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Resend, START + millis(2000), out));
    let resent = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    assert!(resent.iter().map(|(_, p2a)| p2a.slot.0).eq([1]), "slot 0 is closed: {resent:?}");
}

#[test]
fn r10_a_truncated_of_another_ballot_or_slot_closes_nothing() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    for (slot, ballot) in [(0, B2), (1, B1)] {
        let out = out_of(|out| proxy_leader.on_truncated(truncated(slot, ballot, 2), out));
        assert!(out.sends.is_empty(), "{:?}", out.sends);
    }
    count(&mut proxy_leader, p2b(0, B1, 0), START);
    assert_eq!(count(&mut proxy_leader, p2b(1, B1, 0), START).len(), 3, "still in hand");
}

#[test]
fn r10_above_the_window_a_p2a_is_refused_and_no_vote_is_dropped() {
    let cluster = checked(small());
    let (mut acceptor, ring) = (acceptor(&cluster, 0), u64::from(cluster.ring_slots()));
    (0..ring).for_each(|slot| drop(vote_on(&mut acceptor, p2a(B1, slot))));
    for slot in [ring, ring + 1, 7 * ring + 3] {
        let out = vote_on(&mut acceptor, p2a(B2, slot));
        assert!(votes(&out).is_empty() && out.sends.is_empty(), "{slot}");
    }
    for slot in 0..ring {
        assert_eq!(acceptor.vote(Slot(slot)).map(|v| v.ballot), Some(B1), "s{slot} is kept");
    }
    truncate(&mut acceptor, 1);
    assert_eq!(votes(&vote_on(&mut acceptor, p2a(B2, ring))).len(), 1, "there is room now");
}

#[test]
fn r10_a_promise_keeps_what_was_voted_below_it() {
    let mut acceptor = acceptor(&square(), 0);
    vote_on(&mut acceptor, p2a(B1, 0));
    let out = out_of(|out| acceptor.on_p1a(p1a(B2), START, out));
    let reported = pick!(out.held, Proposer(ToProposer::P1b))[0].1;
    assert_eq!(**reported, p1b(0, B2, vec![vote(0, B1, 0)]));
}

#[test]
fn r11_votes_of_two_ballots_never_add_up() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    assert!(count(&mut proxy_leader, p2b(0, B1, 0), START).is_empty());
    let higher = P2a { value: value(50), ..p2a(B2, 0) };
    assert_eq!(asked(&ask(&mut proxy_leader, higher, START)).0, set([0, 1]), "it starts over");
    for stale_or_single in [p2b(1, B2, 0), p2b(0, B1, 0), p2b(1, B1, 0), p2b(0, B3, 0)] {
        assert!(count(&mut proxy_leader, stale_or_single, START).is_empty());
    }
    let chosen = count(&mut proxy_leader, p2b(0, B2, 0), START);
    assert_eq!(chosen[0], Chosen { slot: Slot(0), ballot: B2, value: value(50) });
}

#[test]
fn r11_a_p2a_of_a_lower_ballot_is_refused() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B2, 0), START);
    count(&mut proxy_leader, p2b(0, B2, 0), START);
    assert!(ask(&mut proxy_leader, p2a(B1, 0), START).sends.is_empty());
    let chosen = count(&mut proxy_leader, p2b(1, B2, 0), START);
    assert_eq!(chosen[0].ballot, B2, "its votes are kept");
}

#[test]
fn r11_a_vote_for_another_slot_in_the_same_place_does_not_count() {
    let cluster = checked(small());
    let (mut proxy_leader, ring) = (proxy_leader(&cluster), u64::from(cluster.ring_slots()));
    ask(&mut proxy_leader, p2a(B1, 3), START);
    ask(&mut proxy_leader, p2a(B1, ring + 3), START);
    for voter in [2, 3] {
        assert!(count(&mut proxy_leader, p2b(voter, B1, 3), START).is_empty());
    }
    count(&mut proxy_leader, p2b(2, B1, ring + 3), START);
    assert_eq!(count(&mut proxy_leader, p2b(3, B1, ring + 3), START)[0].slot, Slot(ring + 3));
}

#[test]
fn r11_votes_of_all_rows_tried_add_up_as_a_set() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    assert!(count(&mut proxy_leader, p2b(0, B1, 0), START).is_empty());
    let later = START + millis(1000);
    let out = out_of(|out| proxy_leader.on_timeout(ProxyLeaderTimer::Retry, later, out));
    assert_eq!(asked(&out).0, set([2, 3]), "the other row");
    assert!(count(&mut proxy_leader, p2b(2, B1, 0), later).is_empty(), "a0 and a2 are no row");
    assert_eq!(count(&mut proxy_leader, p2b(1, B1, 0), later).len(), 3, "a0 and a1 are one");
}

/// What a retry after a second says.
fn retry(proxy_leader: &mut ProxyLeader, now: &mut Time) -> Outbox {
    *now = *now + millis(1000);
    out_of(|out| proxy_leader.on_timeout(ProxyLeaderTimer::Retry, *now, out))
}

#[test]
fn r12_a_slot_without_a_quorum_is_retried_on_every_write_quorum() {
    let mut proxy_leader = proxy_leader(&checked(grid(3, 2)));
    let mut now = START;
    let mut tried = vec![asked(&ask(&mut proxy_leader, p2a(B1, 1), now)).0];
    for _ in 0..5 {
        let (whom, what) = asked(&retry(&mut proxy_leader, &mut now));
        assert!(what.iter().all(|again| *again == p2a(B1, 1)), "same ballot and value");
        tried.push(whom);
    }
    for row in [[0, 1], [2, 3], [4, 5]].map(set) {
        assert!(tried.contains(&row), "{row:?} is not in {tried:?}");
    }
    assert_eq!(tried[..2], [set([2, 3]), set([4, 5])], "its own first, then another");
}

#[test]
fn r12_a_row_with_a_suspect_is_avoided_until_the_suspect_votes() {
    let mut proxy_leader = proxy_leader(&square());
    let mut now = START;
    ask(&mut proxy_leader, p2a(B1, 0), now);
    count(&mut proxy_leader, p2b(1, B1, 0), now);
    retry(&mut proxy_leader, &mut now);
    assert_eq!(proxy_leader.suspects(), set([0]), "a1 has voted");
    let at_once = asked(&ask(&mut proxy_leader, p2a(B1, 2), now)).0;
    assert_eq!(at_once, set([2, 3]), "slot 2 would be for row {{a0, a1}}");
    let out = out_of(|out| proxy_leader.on_p2b(p2b(0, B1, 0), now, out));
    let cleared = Event::Suspected {
        proxy_leader: ProxyLeaderId(0),
        acceptor: AcceptorId(0),
        suspected: false,
    };
    assert!(out.events.contains(&cleared), "{:?}", out.events);
    assert_eq!(asked(&ask(&mut proxy_leader, p2a(B1, 4), now)).0, set([0, 1]));
}

#[test]
fn r12_suspects_are_probed_with_the_latest_value() {
    let mut proxy_leader = proxy_leader(&square());
    let mut now = START;
    ask(&mut proxy_leader, p2a(B1, 0), now);
    retry(&mut proxy_leader, &mut now);
    assert_eq!(proxy_leader.suspects(), set([0, 1]));
    ask(&mut proxy_leader, p2a(B1, 5), now);
    assert!(proxy_leader.timers().is_set(ProxyLeaderTimer::SuspectProbe));
    let out = out_of(|out| proxy_leader.on_timeout(ProxyLeaderTimer::SuspectProbe, now, out));
    assert_eq!(asked(&out), (set([0, 1]), vec![p2a(B1, 5); 2]));
    assert!(
        proxy_leader.timers().is_set(ProxyLeaderTimer::SuspectProbe),
        "for as long as there are suspects"
    );
}

#[test]
fn r12_back_off_is_exponential_up_to_its_bound() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    assert_eq!(proxy_leader.timers().next_at(), Some(START + millis(20)), "no sooner than needed");
    let (mut now, mut asked_at, mut waits) = (START, START, Vec::new());
    while waits.len() < 9 {
        now = proxy_leader.timers().next_at().unwrap();
        while let Some(timer) = proxy_leader.timers().take_due(now) {
            let out = out_of(|out| proxy_leader.on_timeout(timer, now, out));
            if timer == ProxyLeaderTimer::Retry && !out.sends.is_empty() {
                waits.push(now.since(asked_at));
                asked_at = now;
            }
        }
    }
    let expected = [20, 40, 80, 160, 320, 640, 1000, 1000, 1000].map(millis);
    assert_eq!(waits, expected, "until {now}");
}

#[test]
fn r12_a_proposer_resends_a_silent_proxy_leaders_slots_through_another() {
    let mut leader = leader(&square());
    let mut out = Outbox::default();
    (0..6).for_each(|number| leader.tell_propose(harness::propose(batch(number)), START, &mut out));
    let out = out_of(|out| leader.on_timeout(ProposerTimer::Resend, START + millis(2000), out));
    let resent = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    let slots: Vec<_> = resent.iter().map(|(to, p2a)| (to.0, p2a.slot.0)).collect();
    assert_eq!(slots, [(1, 0), (1, 2), (1, 4)], "all that went through proxy leader 0");
    let out =
        out_of(|out| leader.tell_propose(harness::propose(batch(6)), START + millis(2000), out));
    assert_eq!(pick!(out.sends, ProxyLeader(ToProxyLeader::P2a))[0].0, ProxyLeaderId(1));
    let ack = HeartbeatAck {
        from: Listener::ProxyLeader(ProxyLeaderId(0)),
        ballot: B1,
        is_low: false,
        clock: Time(0),
    };
    for (numbers, heard_at, is_tried) in [(7..9, 2299, false), (9..11, 2300, true)] {
        leader.tell_heartbeat_ack(ack, START + millis(heard_at));
        let out = out_of(|out| {
            numbers.for_each(|number| {
                leader.tell_propose(harness::propose(batch(number)), START, out);
            });
        });
        let turns = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
        let is_asked = turns.iter().any(|(to, _)| *to == ProxyLeaderId(0));
        assert_eq!(is_asked, is_tried, "heard at {heard_at}: {turns:?}");
    }
}

/// It is alive, and reaches no acceptor, or no replica: what clears it is a slot that it gets
/// chosen.
#[test]
fn r12_a_proxy_leader_that_answers_and_achieves_nothing_is_tried_ever_more_seldom() {
    let mut leader = leader(&square());
    let (mut now, mut trials) = (START, Vec::new());
    for number in 0..2000 {
        now = now + millis(10);
        let ack = HeartbeatAck {
            from: Listener::ProxyLeader(ProxyLeaderId(0)),
            ballot: B1,
            is_low: false,
            clock: Time(0),
        };
        leader.tell_heartbeat_ack(ack, now);
        let mut out = out_of(|out| leader.tell_propose(harness::propose(batch(number)), now, out));
        let mut is_tried = false;
        let slots = loop {
            let asked = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
            is_tried |= asked.iter().any(|(to, _)| *to == ProxyLeaderId(0));
            let by_other = asked.iter().filter(|(to, _)| *to == ProxyLeaderId(1));
            if let Some(slots) = by_other.map(|(_, p2a)| p2a.slot.0 + 1).max() {
                break slots;
            }
            now = leader.timers().next_at().expect("a slot is open");
            out = Outbox::default();
            while let Some(timer) = leader.timers().take_due(now) {
                leader.on_timeout(timer, now, &mut out);
            }
        };
        trials.extend(is_tried.then_some(now));
        for replica in 0..2 {
            leader.tell_executed(&executed(replica, 1, slots), now, &mut Outbox::default());
        }
    }
    let pauses: Vec<_> = trials.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(pauses.len() > 4 && pauses.is_sorted(), "{pauses:?}");
    assert!(pauses.last() > Some(&millis(4000)), "{pauses:?}");
}

#[test]
fn r12_any_answer_clears_a_suspect() {
    let mut proxy_leader = proxy_leader(&square());
    let mut now = START;
    ask(&mut proxy_leader, p2a(B1, 0), now);
    count(&mut proxy_leader, p2b(1, B1, 0), now);
    retry(&mut proxy_leader, &mut now);
    assert_eq!(proxy_leader.suspects(), set([0]));
    // Probed with a slot that was executed and forgotten meanwhile, it is alive and cannot vote.
    proxy_leader.on_truncated(truncated(0, B1, 1), &mut Outbox::default());
    assert!(proxy_leader.suspects().is_empty());
}

#[test]
fn r13_a_nack_goes_to_the_proposer_of_the_refused_ballot_and_to_the_proxy_leader() {
    let mut acceptor = acceptor(&square(), 0);
    acceptor.on_p1a(p1a(B2), START, &mut Outbox::default());
    let out = vote_on(&mut acceptor, P2a { via: ProxyLeaderId(1), ..p2a(B1, 4) });
    let nack = Nack { slot: Some(Slot(4)), refused: B1, promised: B2 };
    let told = [
        To::ProxyLeader(ProxyLeaderId(1), ToProxyLeader::Nack(nack)),
        To::Proposer(ProposerId(0), ToProposer::Nack(nack)),
    ];
    assert_eq!(out.sends, told, "the loser's; the winner has no use for it");
    let out = out_of(|out| acceptor.on_p1a(p1a(B1), START, out));
    assert_eq!(pick!(out.sends, Proposer(ToProposer::Nack))[0].0, ProposerId(0));
    let silenced = heartbeat(&square(), B1, Stage::Leading);
    let out = out_of(|out| acceptor.on_heartbeat(&silenced, START, out));
    assert_eq!(pick!(out.sends, Proposer(ToProposer::Nack))[0].0, ProposerId(0));
}

#[test]
fn r13_a_nack_of_another_ballot_or_slot_does_nothing() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B2, 0), START);
    let nack = |slot: Option<u64>, refused| Nack { slot: slot.map(Slot), refused, promised: B3 };
    let unequal = [nack(Some(0), B1), nack(Some(1), B2), nack(None, B2)];
    unequal.into_iter().for_each(|nack| proxy_leader.on_nack(nack, &mut Outbox::default()));
    count(&mut proxy_leader, p2b(0, B2, 0), START);
    assert_eq!(count(&mut proxy_leader, p2b(1, B2, 0), START).len(), 3, "still in hand");

    let mut leader = leader(&square());
    let other_life = Ballot { incarnation: Incarnation(1), ..B1 };
    for refused in [other_life, B2] {
        leader.tell_nack(nack(Some(0), refused), START, &mut Outbox::default());
        assert!(leader.is_leading(), "{refused} is not its ballot");
    }
    leader.tell_nack(nack(Some(0), B1), START, &mut Outbox::default());
    assert!(!leader.is_leading());
}

#[test]
fn r13_a_nack_of_slot_and_ballot_ends_the_entry() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B1, 0), START);
    count(&mut proxy_leader, p2b(0, B1, 0), START);
    let nack = Nack { slot: Some(Slot(0)), refused: B1, promised: B2 };
    proxy_leader.on_nack(nack, &mut Outbox::default());
    assert!(count(&mut proxy_leader, p2b(1, B1, 0), START).is_empty());
    let mut now = START;
    assert!(retry(&mut proxy_leader, &mut now).sends.is_empty(), "nothing is asked again");
}

#[test]
fn r14_chosen_carries_slot_ballot_and_value() {
    let mut proxy_leader = proxy_leader(&square());
    ask(&mut proxy_leader, p2a(B2, 6), START);
    count(&mut proxy_leader, p2b(0, B2, 6), START);
    let chosen = Chosen { slot: Slot(6), ballot: B2, value: value(6) };
    assert_eq!(count(&mut proxy_leader, p2b(1, B2, 6), START), vec![chosen; 3]);
}

#[test]
fn r27_an_acceptor_that_no_cluster_can_have_is_no_harm() {
    let mut proxy_leader = proxy_leader(&square());
    let truncated = Truncated { acceptor: Some(AcceptorId(200)), ..truncated(0, B1, 1) };
    proxy_leader.on_truncated(truncated, &mut Outbox::default());
    assert!(proxy_leader.suspects().is_empty(), "{:?}", proxy_leader.suspects());
}

/// A reader of a trace learns why nothing came of a message; without a trace that costs nothing.
#[test]
fn an_ignored_message_says_why_while_that_is_traced() {
    let mut proxy_leader = proxy_leader(&square());
    let late = || p2b(0, B1, 7);
    let untraced = out_of(|out| proxy_leader.on_p2b(late(), START, out));
    assert_eq!(untraced.events, [], "nothing is traced");
    let mut traced = Outbox { is_tracing: true, ..Outbox::default() };
    proxy_leader.on_p2b(late(), START, &mut traced);
    let why = "P2b: its slot is not in hand in that ballot";
    assert_eq!(traced.events, [Event::Ignored { why }]);
}
