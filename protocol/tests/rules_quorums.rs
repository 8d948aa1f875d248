//! R1 to R4, R17 and R30: which memories count, and how numbers are told apart.

mod harness;

use std::sync::Arc;

use harness::{
    B1, B2, Net, ProposerMessages, START, acceptor, ask_pre_votes, ballot, campaign, checked,
    directory, grid, heartbeat, millis, out_of, p1a, p1b, p2a, p2b, pick, proposer,
    proposer_in_life, proxy_leader, quiet, replica, square, table, truncate,
};
use loggos_protocol::{
    Acceptor, AcceptorId, Ballot, DirectoryId, Envelope, Event, Form, FormationId, Formed, Gateway,
    GatewayId, Incarnation, Outbox, P1b, P2b, PreVoteAck, Probe, Proposer, ProposerId,
    ProposerTimer, Role, RoleId, Slot, Stage, Table, Time, To, ToAcceptor, ToProposer,
    ToProxyLeader, ToReplica, Unserved, Watermark,
};

#[test]
fn r01_promises_of_a_row_elect_nobody_however_often_they_come() {
    let mut candidate = proposer(&square(), 0);
    campaign(&square(), &mut candidate, Ballot::default(), START);
    for acceptor in [0, 1, 1, 0, 1] {
        candidate.tell_p1b(p1b(acceptor, B1, vec![]), START, &mut Outbox::default());
        assert!(!candidate.is_leading(), "a row of a 2 × 2 grid misses the other row");
    }
    candidate.tell_p1b(p1b(2, B1, vec![]), START, &mut Outbox::default());
    assert!(candidate.is_leading(), "a0 and a2 are a column");
}

#[test]
fn r01_quiet_acceptors_are_counted_as_a_set() {
    let mut candidate = proposer(&square(), 0);
    let nonce = ask_pre_votes(&mut candidate, START);
    for acceptor in [0, 1, 1, 0, 1] {
        let ack = quiet(acceptor, nonce, Ballot::default());
        candidate.tell_pre_vote_ack(ack, START, &mut Outbox::default());
        assert_eq!(candidate.ballot(), None, "a row is no read quorum");
    }
}

#[test]
fn r01_a_vote_sent_twice_chooses_nothing() {
    let mut proxy_leader = proxy_leader(&square());
    proxy_leader.on_p2a(p2a(B1, 0), START, &mut Outbox::default());
    for voter in [0, 0, 0, 2, 2] {
        let out = out_of(|out| proxy_leader.on_p2b(p2b(voter, B1, 0), START, out));
        assert!(out.sends.is_empty(), "a0 and a2 are no row: {:?}", out.sends);
    }
}

#[test]
fn r02_two_lives_of_a_proposer_never_share_a_ballot() {
    let ballots = [3, 4].map(|life| {
        let mut candidate = proposer_in_life(&square(), 0, Incarnation(life));
        campaign(&square(), &mut candidate, Ballot::default(), START);
        candidate.ballot().unwrap()
    });
    assert_eq!(ballots.map(|b| (b.round, b.proposer)), [(1, ProposerId(0)); 2]);
    assert_ne!(ballots[0], ballots[1]);
}

#[test]
fn r02_a_campaign_outbids_every_ballot_that_was_met() {
    let mut candidate = proposer(&square(), 0);
    campaign(&square(), &mut candidate, ballot(41, 1), START);
    assert_eq!(candidate.ballot().map(|b| b.round), Some(42));
}

#[test]
fn r03_a_node_that_was_configured_apart_is_refused_loudly() {
    let other = checked(grid(2, 3));
    assert_ne!(other.digest(), square().digest());
    let stranger = heartbeat(&other, B2, Stage::Leading);
    let mut gateway = Gateway::new(square(), GatewayId(0), Incarnation(1), 1, Time(0));
    let probe = Probe { proposer: ProposerId(0), nonce: 1, cluster_digest: other.digest() };
    let refusals = [
        out_of(|out| acceptor(&square(), 0).on_heartbeat(&stranger, START, out)),
        out_of(|out| acceptor(&square(), 0).on_probe(probe, out)),
        out_of(|out| proxy_leader(&square()).on_heartbeat(&stranger, out)),
        out_of(|out| proposer(&square(), 0).tell_heartbeat(&stranger, START, out)),
        out_of(|out| replica(&square(), 0).on_heartbeat(&stranger, START, out)),
        out_of(|out| gateway.on_heartbeat(&stranger, START, out)),
    ];
    for out in refusals {
        assert!(out.sends.is_empty(), "{:?}", out.sends);
        assert!(matches!(out.events[..], [Event::Foreign { .. }]), "{:?}", out.events);
    }
    assert_eq!(gateway.formation(), None);
}

#[test]
fn r04_an_acceptor_without_a_table_neither_promises_nor_votes() {
    let mut blank = Acceptor::new(square(), AcceptorId(0), directory(0), 1);
    let mut out = Outbox::default();
    blank.on_p1a(p1a(B1), START, &mut out);
    blank.on_p2a(p2a(B1, 0), START, &mut out);
    assert!(out.sends.is_empty() && out.held.is_empty(), "{out:?}");
    assert_eq!((blank.promised(), blank.vote(Slot(0))), (Ballot::default(), None));
}

#[test]
fn r04_an_acceptor_stores_the_first_table_that_names_it_for_good() {
    let mut acceptor = Acceptor::new(square(), AcceptorId(0), directory(0), 1);
    let offer = |directories: [u64; 4]| {
        let directories = directories.map(DirectoryId).into();
        let table = Arc::new(Table::new(square().digest(), directories));
        Form { proposer: ProposerId(0), table }
    };
    let foreign = out_of(|out| acceptor.on_form(&offer([1, 2, 3, 4]), out));
    assert!(foreign.held.is_empty(), "it does not name this acceptor: {:?}", foreign.held);
    let (first, second) = (offer([100, 2, 3, 4]), offer([100, 6, 7, 8]));
    for form in [&first, &second] {
        let out = out_of(|out| acceptor.on_form(form, out));
        let formed = pick!(out.held, Proposer(ToProposer::Formed));
        assert!(matches!(formed[..], [(_, f)] if f.table == first.table), "{formed:?}");
    }
}

#[test]
fn r04_a_forgetful_acceptors_promise_vote_and_pre_vote_do_not_count() {
    let forgetful = DirectoryId(999);
    let is_said = |out: &Outbox| matches!(out.events[..], [Event::Forgotten { .. }]);

    let mut candidate = proposer(&square(), 0);
    let nonce = ask_pre_votes(&mut candidate, START);
    for acceptor in 0..4 {
        let ack = PreVoteAck { directory: forgetful, ..quiet(acceptor, nonce, B1) };
        assert!(is_said(&out_of(|out| candidate.tell_pre_vote_ack(ack, START, out))));
    }
    assert_eq!(candidate.ballot(), None);

    let mut candidate = proposer(&square(), 0);
    campaign(&square(), &mut candidate, Ballot::default(), START);
    for acceptor in 0..4 {
        let promise = P1b { directory: forgetful, ..p1b(acceptor, B1, vec![]) };
        assert!(is_said(&out_of(|out| candidate.tell_p1b(promise, START, out))));
    }
    assert!(!candidate.is_leading());

    let mut proxy_leader = proxy_leader(&square());
    proxy_leader.on_p2a(p2a(B1, 0), START, &mut Outbox::default());
    for acceptor in 0..2 {
        let vote = P2b { directory: forgetful, ..p2b(acceptor, B1, 0) };
        assert!(is_said(&out_of(|out| proxy_leader.on_p2b(vote, START, out))));
    }
    assert_eq!(proxy_leader.counters().chosen, 0);
}

#[test]
fn r04_no_phase_1_starts_before_a_table_stands() {
    let mut blank = Proposer::new(square(), ProposerId(0), Incarnation(1), 1, START);
    let asks = out_of(|out| blank.on_timeout(ProposerTimer::Formation, START, out));
    assert_eq!(pick!(asks.sends, Acceptor(ToAcceptor::Probe)).len(), 4);
    assert_eq!(pick!(asks.sends, Replica(ToReplica::Probe)).len(), 3);
    assert_eq!(asks.sends.len(), 7, "{:?}", asks.sends);
    for acceptor in [0, 1] {
        let (directory, acceptor) = (directory(acceptor), AcceptorId(acceptor));
        let formed = Formed { acceptor, directory, table: table(&square()) };
        blank.tell_formed(&formed, START, &mut Outbox::default());
    }
    let fired = out_of(|out| blank.on_timeout(ProposerTimer::Election, START, out));
    assert!(fired.sends.is_empty(), "a row has stored it, no read quorum: {:?}", fired.sends);
}

#[test]
fn r04_a_role_refuses_what_another_formation_sends() {
    let mut role = Role::<harness::Echo>::Acceptor(Box::new(acceptor(&square(), 0)));
    let to = || To::Acceptor(AcceptorId(0), ToAcceptor::P1a(p1a(B1)));
    for formation in [None, Some(FormationId(1))] {
        let out = out_of(|out| role.on_envelope(Envelope { formation, to: to() }, START, out));
        assert!(out.held.is_empty(), "{formation:?} is not its own: {:?}", out.held);
    }
    let formation = role.formation();
    let out = out_of(|out| role.on_envelope(Envelope { formation, to: to() }, START, out));
    assert_eq!(out.held.len(), 1, "of its own formation");
}

/// A complaint may come before its gateway knows a formation; one of another cluster's gateway must
/// not have our leader deposed.
#[test]
fn r04_a_complaint_of_another_formations_gateway_is_not_passed_on() {
    let mut acceptor = acceptor(&square(), 0);
    acceptor.on_heartbeat(&heartbeat(&square(), B1, Stage::Leading), START, &mut Outbox::default());
    let mut role = Role::<harness::Echo>::Acceptor(Box::new(acceptor));
    let unserved = Unserved { gateway: GatewayId(0) };
    let to = || To::Acceptor(AcceptorId(0), ToAcceptor::Unserved(unserved));
    let ours = role.formation();
    for (formation, passed_on) in [(Some(FormationId(1)), 0), (None, 1), (ours, 1)] {
        let out = out_of(|out| role.on_envelope(Envelope { formation, to: to() }, START, out));
        assert_eq!(out.sends.len(), passed_on, "{formation:?}: {:?}", out.sends);
    }
}

#[test]
fn r04_an_acceptor_that_missed_the_forming_gets_the_table_from_a_heartbeat() {
    let mut late = Acceptor::new(square(), AcceptorId(0), directory(0), 1);
    let heartbeat = heartbeat(&square(), B1, Stage::Leading);
    late.on_heartbeat(&heartbeat, START, &mut Outbox::default());
    let out = out_of(|out| late.on_p1a(p1a(B1), START, out));
    assert_eq!(out.held.len(), 1);
}

#[test]
fn r04_an_acceptor_restarted_in_memory_never_promises_or_votes_again() {
    let mut net = Net::new(grid(2, 2));
    let forgetful = RoleId::Acceptor(AcceptorId(3));
    net.write(0);
    net.start(forgetful);
    net.sent.clear();
    for tag in 1..20 {
        net.write(tag);
        net.run_for(millis(50));
    }
    assert_eq!(net.replies.len(), 20, "one lost acceptor is survived");
    let speaks = |from, to: &To| {
        let is_counted =
            matches!(to, To::Proposer(_, ToProposer::P1b(_) | ToProposer::PreVoteAck(_)))
                || matches!(to, To::ProxyLeader(_, ToProxyLeader::P2b(_)));
        from == forgetful && is_counted
    };
    assert_eq!(net.acceptor(3).promised(), Ballot::default());
    assert_eq!(net.count(speaks), 0, "a memory that has forgotten must not count");
}

#[test]
fn r17_bounds_are_exclusive() {
    let bound = Watermark(5);
    assert!(bound.covers(Slot(4)) && !bound.covers(Slot(5)));
    assert_eq!((bound.first_open(), Slot(4).watermark_after()), (Slot(5), bound));
    let mut acceptor = acceptor(&square(), 0);
    truncate(&mut acceptor, 5);
    acceptor.on_p2a(p2a(B1, 4), START, &mut Outbox::default());
    acceptor.on_p2a(p2a(B1, 5), START, &mut Outbox::default());
    assert_eq!(acceptor.vote(Slot(4)), None, "below `truncated`");
    assert!(acceptor.vote(Slot(5)).is_some(), "`truncated` itself is not truncated");
}

#[test]
fn r30_slots_beyond_32_bits_are_other_slots() {
    let far = 1 << 40;
    let mut acceptor = acceptor(&square(), 0);
    truncate(&mut acceptor, far);
    let out = out_of(|out| acceptor.on_p2a(p2a(B1, 3), START, out));
    assert!(out.held.is_empty(), "slot 3 is not slot 2^40 + 3: {:?}", out.held);
    let out = out_of(|out| acceptor.on_p2a(p2a(B1, far + 3), START, out));
    assert_eq!(out.held.len(), 1);
}

#[test]
#[should_panic(expected = "overflow")]
fn r30_the_last_slot_has_no_next() {
    let _ = Slot(u64::MAX).next();
}
