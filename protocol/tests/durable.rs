//! Durable acceptors: what they write down, what they keep, and what they come back with.

mod harness;

use std::time::Duration;

use harness::{
    B1, B2, B3, Net, START, directory, millis, out_of, p1a, p2a, pick, read_back, small, table,
    value,
};
use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, AcceptorState, Cause, ClusterSettings, Event, Executed,
    Form, Heartbeat, LogRoom, Outbox, P1a, P2a, PAGES_AHEAD, PreVote, ProposerId, Recall, Recalled,
    Record, Replay, ReplicaId, RoleId, Settings, Slot, Stage, Time, To, ToAcceptor, ToProposer,
    ToProxyLeader, ToReplica, Vote, Watermark,
};

/// The smallest ring, and pages of three slots.
fn cluster() -> ClusterSettings {
    harness::checked(Settings { page_slots_max: 3, ..small() })
}

/// A disk that forgets nothing, and an acceptor on it.
struct Node {
    acceptor: Acceptor,
    /// All records, in order.
    log: Vec<Record>,
}

impl Node {
    /// A member of its cluster.
    fn new() -> Self {
        let acceptor = restore(&AcceptorState::default());
        let mut node = Self { acceptor, log: Vec::new() };
        let form = Form { proposer: ProposerId(0), table: table(&cluster()) };
        node.take(|acceptor, out| acceptor.on_form(&form, out));
        node
    }

    /// Lets it act, and writes down what it says; nothing is synced.
    fn take(&mut self, act: impl FnOnce(&mut Acceptor, &mut Outbox)) -> Outbox {
        let out = out_of(|out| act(&mut self.acceptor, out));
        self.acceptor.validate();
        self.log.extend(out.records.iter().cloned());
        out
    }

    fn sync(&mut self) {
        self.acceptor.on_durable(self.acceptor.recorded());
        self.acceptor.validate();
    }

    fn p2a(&mut self, p2a: P2a) -> Outbox {
        self.take(|acceptor, out| acceptor.on_p2a(p2a, START, out))
    }

    /// The same, with what it has to look up first.
    fn p2a_recalled(&mut self, p2a: P2a) -> Outbox {
        let mut out = self.p2a(p2a);
        match out.recalls.pop() {
            Some(recall) => self.recalled(&self.answer(&recall)),
            None => out,
        }
    }

    /// f+1 replicas have executed everything below.
    fn executed(&mut self, below: u64) {
        (0..2).for_each(|replica| drop(self.hears(says(replica, 7, below, 0), START)));
    }

    /// What the disk answers to a recall.
    fn answer(&self, recall: &Recall) -> Recalled {
        read_back(&self.log, recall.clone())
    }

    fn recalled(&mut self, recalled: &Recalled) -> Outbox {
        self.take(|acceptor, out| acceptor.on_recalled(recalled, START, out))
    }

    /// Stops, and comes back with what is written down.
    fn restart(&mut self) {
        let mut state = AcceptorState::default();
        self.log.iter().for_each(|record| state.on_record(record));
        self.acceptor = restore(&state);
    }

    /// All that it reports for a campaign from slot 0 on, page by page.
    fn promise(&mut self, ballot: loggos_protocol::Ballot) -> Vec<(Slot, Vote)> {
        let (mut votes, mut page) = (Vec::new(), Slot(0));
        loop {
            let p1a = P1a { ballot, first: Slot(0), page };
            let mut out = self.take(|acceptor, out| acceptor.on_p1a(p1a, START, out));
            if let Some(recall) = out.recalls.pop() {
                out = self.recalled(&self.answer(&recall));
            }
            let p1bs = pick!(out.held, Proposer(ToProposer::P1b));
            let (_, p1b) = p1bs.first().expect("a P1a of the promised ballot is answered");
            assert_eq!(p1b.from, page, "a page starts where it was asked to");
            votes.extend(p1b.votes.iter().cloned());
            match p1b.to {
                Some(to) => page = to.first_open(),
                None => return votes,
            }
        }
    }
}

fn restore(state: &AcceptorState) -> Acceptor {
    Acceptor::restore(cluster(), AcceptorId(0), directory(0), state, 1)
}

fn slots(votes: &[(Slot, Vote)]) -> Vec<u64> {
    votes.iter().map(|(slot, _)| slot.0).collect()
}

#[test]
fn r31_whatever_is_said_was_written_down_before() {
    let mut node = Node::new();
    assert!(matches!(node.log[..], [Record::Table { .. }]), "the table, before Formed");
    let out = node.take(|acceptor, out| acceptor.on_p1a(p1a(B1), START, out));
    assert!(matches!(out.records[..], [Record::Promise { ballot: B1, .. }]), "{:?}", out.records);
    assert_eq!((out.held.len(), out.sends.len()), (1, 0));
    let out = node.p2a(p2a(B1, 0));
    assert!(matches!(out.records[..], [Record::Vote { .. }]), "{:?}", out.records);
    assert_eq!((out.held.len(), out.sends.len()), (1, 0));
    let out = node.p2a(p2a(B1, 0));
    assert!(out.records.is_empty(), "it is written down");
    assert_eq!((out.held.len(), out.sends.len()), (1, 0), "it may not be synced yet");
    let replay = Replay { replica: ReplicaId(0), first: Slot(0) };
    let out = node.take(|acceptor, out| acceptor.on_replay(replay, out));
    assert_eq!((out.held.len(), out.sends.len()), (1, 0), "nor what it tells replicas");
}

/// The value is in the log, once: in memory or on disk makes no difference. Another value is
/// written down.
#[test]
fn r31_a_vote_that_is_cast_again_is_written_down_without_its_value() {
    for executed in [0, 10] {
        let mut node = Node::new();
        (0..10).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
        node.sync();
        node.executed(executed);
        node.promise(B2);
        let out = node.p2a_recalled(p2a(B2, 3));
        let [Record::Revote { slot: Slot(3), ballot: B2, .. }] = out.records[..] else {
            panic!("{:?}", out.records)
        };
        let again = Vote { ballot: B2, value: p2a(B1, 3).value };
        assert!(node.promise(B3).contains(&(Slot(3), again)), "reported with its value");
        let out = node.p2a_recalled(P2a { value: value(5), ..p2a(B3, 4) });
        assert!(matches!(out.records[..], [Record::Vote { .. }]), "{:?}", out.records);
    }
}

/// A P2a may overtake the P1a: the promise must be written down all the same, or the P1a, which
/// finds it made, would be answered without.
#[test]
fn r31_a_promise_that_a_refused_p2a_brought_is_written_down() {
    let mut node = Node::new();
    node.p2a(p2a(B2, 1 << 40));
    let out = node.take(|acceptor, out| acceptor.on_p1a(p1a(B2), START, out));
    assert_eq!(out.held.len(), 1);
    node.restart();
    assert_eq!(node.acceptor.promised(), B2);
}

#[test]
fn r31_a_table_that_came_with_a_heartbeat_is_written_down() {
    let acceptor = restore(&AcceptorState::default());
    let mut node = Node { acceptor, log: Vec::new() };
    let (stage, table) = (Stage::Leading, table(&cluster()));
    let (chosen, no_room) = (Watermark(0), AcceptorSet::default());
    let heartbeat = Heartbeat { ballot: B1, stage, chosen, no_room, is_silent: false, table };
    node.take(|acceptor, out| acceptor.on_heartbeat(&heartbeat, START, out));
    assert!(matches!(node.log[..], [Record::Table { .. }]));
}

#[test]
fn r04_it_comes_back_as_who_it_was() {
    let mut node = Node::new();
    node.take(|acceptor, out| acceptor.on_p1a(p1a(B1), START, out));
    (0..5).for_each(|slot| drop(node.p2a(p2a(B2, slot))));
    node.restart();
    assert_eq!(node.acceptor.promised(), B2);
    assert_eq!(node.acceptor.formation(), Some(table(&cluster()).id()));
    let out = node.p2a(p2a(B1, 9));
    assert_eq!(pick!(out.sends, ProxyLeader(ToProxyLeader::Nack)).len(), 1, "it has promised more");
    assert_eq!(slots(&node.promise(B3)), [0, 1, 2, 3, 4]);
}

#[test]
#[should_panic(expected = "of another cluster")]
fn r04_the_log_of_another_acceptor_is_none_of_its() {
    let state = AcceptorState { table: Some(table(&cluster())), ..AcceptorState::default() };
    drop(Acceptor::restore(cluster(), AcceptorId(1), directory(0), &state, 1));
}

#[test]
fn r10_no_vote_leaves_memory_before_it_is_synced() {
    let mut node = Node::new();
    (0..3).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    node.executed(3);
    assert!(node.acceptor.vote(Slot(0)).is_some(), "executed, and not synced");
    node.sync();
    assert!((0..3).all(|slot| node.acceptor.vote(Slot(slot)).is_none()), "synced");
    node.p2a(p2a(B1, 3));
    node.sync();
    assert!(node.acceptor.vote(Slot(3)).is_some(), "synced, and not executed");
    node.executed(4);
    assert!(node.acceptor.vote(Slot(3)).is_none());
}

#[test]
fn r16_a_durable_acceptor_does_not_forget_what_replicas_have_executed() {
    let mut node = Node::new();
    (0..7).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    node.sync();
    node.executed(5);
    assert_eq!(node.acceptor.truncated(), Watermark(0));
    assert_eq!(slots(&node.promise(B2)), [0, 1, 2, 3, 4, 5, 6], "from disk and from memory");
}

#[test]
fn r10_a_p2a_below_memory_is_checked_against_the_disk() {
    let mut node = Node::new();
    (0..3).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    node.sync();
    node.executed(3);
    let ask = |node: &mut Node, p2a| {
        let out = node.p2a(p2a);
        let is_vote =
            |record: &Record| matches!(record, Record::Vote { .. } | Record::Revote { .. });
        assert!(
            out.held.is_empty() && !out.records.iter().any(is_vote),
            "not before the disk was asked"
        );
        let recall = out.recalls.into_iter().next().expect("the disk is asked");
        node.recalled(&node.answer(&recall))
    };
    let again = ask(&mut node, p2a(B1, 1));
    assert_eq!(pick!(again.held, ProxyLeader(ToProxyLeader::P2b)).len(), 1, "voted for already");
    assert!(again.records.is_empty());
    let other = ask(&mut node, P2a { value: value(9), ..p2a(B1, 1) });
    assert!(other.held.is_empty() && other.records.is_empty(), "another value in that ballot");
    assert_eq!(node.acceptor.counters().equivocations, 1);
    let newer = ask(&mut node, p2a(B2, 1));
    assert_eq!(newer.held.len(), 1);
    assert!(matches!(newer.records[..], [Record::Revote { slot: Slot(1), .. }]), "cast again");
}

/// Two P2as of one slot are at the disk at once; what the second finds there is older than the vote
/// for the first.
#[test]
fn r10_a_vote_that_was_cast_while_the_disk_was_asked_counts() {
    let mut node = Node::new();
    node.p2a(p2a(B1, 0));
    node.sync();
    node.executed(1);
    let recalls: Vec<_> = [p2a(B2, 0), P2a { value: value(9), ..p2a(B2, 0) }]
        .into_iter()
        .map(|p2a| node.p2a(p2a).recalls.pop().expect("the disk is asked"))
        .collect();
    let answers: Vec<_> = recalls.iter().map(|recall| node.answer(recall)).collect();
    assert_eq!(node.recalled(&answers[0]).records.len(), 1);
    node.sync();
    assert_eq!(node.recalled(&answers[1]).records.len(), 0, "another value in one ballot");
    assert_eq!(node.acceptor.counters().equivocations, 1);
    node.sync();
    assert_eq!(node.acceptor.vote(Slot(0)), None, "no recall is under way: it may leave memory");
}

#[test]
fn r06_a_page_from_disk_has_what_was_voted_since_it_was_asked_for() {
    let mut node = Node::new();
    (0..3).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    node.sync();
    node.executed(3);
    let replay = Replay { replica: ReplicaId(0), first: Slot(0) };
    let page = node.take(|acceptor, out| acceptor.on_replay(replay, out)).recalls.pop();
    let page = node.answer(&page.expect("the disk is asked"));
    let p2a = node.p2a(p2a(B2, 1)).recalls.pop().expect("the disk is asked");
    node.recalled(&node.answer(&p2a));
    let out = node.recalled(&page);
    let replayed = pick!(out.held, Replica(ToReplica::Replayed));
    let ballots: Vec<_> = replayed[0].1.votes.iter().map(|(_, vote)| vote.ballot).collect();
    assert_eq!(ballots, [B1, B2, B1]);
}

#[test]
fn r06_a_page_that_comes_from_disk_too_late_is_refused() {
    let mut node = Node::new();
    node.p2a(p2a(B1, 0));
    node.sync();
    node.executed(1);
    let late = node.take(|acceptor, out| acceptor.on_p1a(p1a(B2), START, out)).recalls.pop();
    let late = node.answer(&late.expect("the disk is asked"));
    node.take(|acceptor, out| acceptor.on_p1a(p1a(B3), START, out));
    let out = node.recalled(&late);
    assert!(out.held.is_empty(), "promised more since");
    assert_eq!(pick!(out.sends, Proposer(ToProposer::Nack)).len(), 1);
}

#[test]
fn r29_the_disk_is_asked_for_a_bounded_number_of_things() {
    let mut node = Node::new();
    node.p2a(p2a(B1, 0));
    node.sync();
    node.executed(1);
    let asked = (0..99).filter(|_| !node.p2a(p2a(B1, 0)).recalls.is_empty()).count();
    assert_eq!(asked as u64, u64::from(cluster().ring_slots()));
    let recall = Recall {
        acceptor: AcceptorId(0),
        from: Slot(0),
        to: Watermark(1),
        cause: Cause::P2a(p2a(B1, 0)),
    };
    node.recalled(&node.answer(&recall));
    assert_eq!(node.p2a(p2a(B1, 0)).recalls.len(), 1);
}

impl Node {
    /// A replica says that it has executed and holds a snapshot; a new life answers the nonce.
    fn hears(&mut self, said: Executed, now: Time) -> Outbox {
        let out = self.take(|a, out| a.on_executed(&said, now, out));
        match pick!(out.sends, Replica(ToReplica::Identify)).first().map(|it| it.1.nonce) {
            Some(nonce) => {
                let said = Executed { nonce: Some(nonce), ..said };
                self.take(|a, out| a.on_executed(&said, now, out))
            }
            None => out,
        }
    }

    /// An acceptor that has voted in ten slots, all of them synced.
    fn voted() -> Self {
        let mut node = Self::new();
        (0..10).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
        node.sync();
        node
    }
}

/// What a life of a replica says: what it has executed, and holds a snapshot of.
fn says(replica: u8, life: u64, executed: u64, snapshot: u64) -> Executed {
    Executed { snapshot: Watermark(snapshot), ..harness::executed(replica, life, executed) }
}

fn truncations(out: &Outbox) -> Vec<u64> {
    let truncated = |record: &Record| match record {
        Record::Truncated { truncated, .. } => Some(truncated.0),
        Record::Promise { .. }
        | Record::Vote { .. }
        | Record::Revote { .. }
        | Record::Table { .. } => None,
    };
    out.records.iter().filter_map(truncated).collect()
}

#[test]
fn r16_a_durable_acceptor_truncates_what_f_plus_1_hold_in_snapshots_and_nothing_else() {
    let mut node = Node::voted();
    let one = node.hears(says(0, 70, 9, 8), START);
    assert_eq!((truncations(&one), node.acceptor.truncated()), (vec![], Watermark(0)));
    let again = node.hears(says(0, 70, 9, 9), START);
    assert_eq!(truncations(&again), [0; 0], "one replica counts once");
    let executed = node.hears(says(1, 71, 10, 0), START);
    assert_eq!(truncations(&executed), [0; 0], "what is executed is in memory only");
    let snapshot = node.hears(says(1, 71, 10, 4), START);
    assert_eq!((truncations(&snapshot), node.acceptor.truncated()), (vec![4], Watermark(4)));
    node.restart();
    assert_eq!(node.acceptor.truncated(), Watermark(4));
    // Below, there is no vote to compare with; above, all is as it was.
    let told = node.p2a(p2a(B2, 3));
    assert_eq!(pick!(told.sends, ProxyLeader(ToProxyLeader::Truncated)).len(), 1);
    assert_eq!(node.p2a_recalled(p2a(B2, 4)).held.len(), 1);
}

#[test]
fn r16_a_former_lifes_snapshot_does_not_count() {
    let mut node = Node::voted();
    node.hears(says(0, 70, 9, 9), START);
    node.hears(says(0, 80, 2, 0), START); // wiped, and started again
    let late = node.hears(says(0, 70, 9, 9), START);
    assert_eq!(truncations(&late), [0; 0]);
    let out = node.hears(says(1, 71, 9, 9), START);
    assert_eq!(truncations(&out), [0; 0], "one holds it, and one that has lost it");
}

#[test]
fn r16_with_ample_room_every_replica_that_is_up_is_waited_for() {
    let mut node = Node::voted();
    let grace = cluster().replica_grace;
    node.hears(says(2, 72, 1, 0), START);
    node.hears(says(0, 70, 9, 9), START);
    let waits = node.hears(says(1, 71, 9, 7), START);
    assert_eq!(truncations(&waits), [0; 0], "the third is up, and has none");
    let some = node.hears(says(2, 72, 9, 3), START);
    assert_eq!(truncations(&some), [3]);
    node.acceptor.set_room(LogRoom::Scarce);
    let scarce = node.hears(says(2, 72, 9, 3), START);
    assert_eq!(truncations(&scarce), [7], "f + 1 hold it");
    node.acceptor.set_room(LogRoom::Ample);
    let later = START + grace;
    node.hears(says(0, 70, 9, 9), later);
    let silent = node.hears(says(1, 71, 9, 8), later);
    assert_eq!(truncations(&silent), [8], "the third is down");
}

/// At a restart of all some replicas are heard sooner than others.
#[test]
fn r16_after_a_start_replicas_that_were_not_heard_yet_are_waited_for() {
    let (mut node, grace) = (Node::voted(), cluster().replica_grace);
    node.acceptor.on_start(START);
    node.hears(says(0, 70, 9, 9), START);
    let two = node.hears(says(1, 71, 9, 7), START);
    assert_eq!(truncations(&two), [0; 0], "the third may come back, and hold less");
    let three = node.hears(says(2, 72, 4, 3), START);
    assert_eq!(truncations(&three), [3]);
    let mut alone = Node::voted();
    alone.acceptor.on_start(START);
    alone.hears(says(0, 70, 9, 9), START);
    alone.hears(says(1, 71, 9, 7), START);
    let later = alone.hears(says(1, 71, 9, 7), START + grace);
    assert_eq!(truncations(&later), [7], "the third does not come back");
}

/// What was asked of the disk before a truncation is answered after it.
#[test]
fn r16_votes_that_come_back_from_disk_after_their_truncation_are_not_used() {
    let mut node = Node::voted();
    node.executed(10);
    node.sync();
    let p2a = node.p2a(p2a(B2, 2)).recalls.pop().expect("it is on disk");
    let p1a = node.take(|a, out| a.on_p1a(P1a { page: Slot(0), ..p1a(B3) }, START, out));
    let p1a = p1a.recalls.first().cloned().expect("it is on disk");
    let (late_p2a, late_p1a) = (node.answer(&p2a), node.answer(&p1a));
    for replica in 0..2 {
        node.hears(says(replica, 7, 10, 5), START);
    }
    assert_eq!(node.acceptor.truncated(), Watermark(5));
    let out = node.recalled(&late_p2a);
    assert!(out.held.is_empty(), "no vote below what is truncated: {out:?}");
    let out = node.recalled(&late_p1a);
    assert!(out.held.is_empty(), "a page of what is truncated: {out:?}");
    let page = node.recalled(&node.answer(&out.recalls[0]));
    let pages = pick!(page.held, Proposer(ToProposer::P1b));
    assert_eq!((pages[0].1.truncated, pages[0].1.from), (Watermark(5), Slot(5)));
}

#[test]
fn r34_with_little_room_only_what_may_have_been_chosen_gets_in() {
    let mut node = Node::new();
    node.p2a(p2a(B1, 0));
    node.acceptor.set_room(LogRoom::Low);
    assert!(node.p2a(p2a(B1, 1)).held.is_empty(), "a new slot");
    let recovered = P2a { is_recovered: true, ..p2a(B1, 2) };
    assert_eq!(node.p2a(recovered).held.len(), 1, "one that others may have voted in");
    assert_eq!(node.p2a(p2a(B2, 0)).held.len(), 1, "one that was voted in");
    assert_eq!(node.take(|a, out| a.on_p1a(p1a(B3), START, out)).held.len(), 1, "a promise");
    node.acceptor.set_room(LogRoom::Ample);
    assert_eq!(node.p2a(p2a(B3, 1)).held.len(), 1);
}

#[test]
fn r31_in_memory_nothing_is_written_down() {
    let mut acceptor = harness::acceptor(&cluster(), 0);
    let out = out_of(|out| {
        acceptor.on_p1a(p1a(B1), START, out);
        acceptor.on_p2a(p2a(B1, 0), START, out);
    });
    assert!(out.records.is_empty() && out.recalls.is_empty());
    assert_eq!(out.held.len(), 2);
}

/// What waits for a sync is let go only when no recall is under way. The last one must not leave it
/// there: no other might come.
#[test]
fn r29_who_comes_back_from_disk_last_makes_room() {
    let mut node = Node::new();
    let ring = u64::from(cluster().ring_slots());
    (0..ring).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    node.sync();
    node.executed(ring);
    let recall = |mut out: Outbox| out.recalls.pop();
    let page = |node: &mut Node| {
        let replay = Replay { replica: ReplicaId(0), first: Slot(0) };
        recall(node.take(|acceptor, out| acceptor.on_replay(replay, out)))
    };
    let votes: Vec<_> = (0..ring).map(|slot| recall(node.p2a(p2a(B2, slot))).unwrap()).collect();
    node.recalled(&node.answer(&votes[0]));
    let late = page(&mut node).expect("the disk is asked");
    votes[1..].iter().for_each(|vote| drop(node.recalled(&node.answer(vote))));
    node.sync();
    assert_eq!(page(&mut node), None, "too much waits");
    node.recalled(&node.answer(&late));
    assert!(page(&mut node).is_some(), "all is synced, and no recall is under way");
}

#[test]
fn r28_an_acceptor_that_came_back_may_have_heard_a_leader_just_before() {
    let is_quiet = |node: &mut Node, after| {
        let pre_vote = PreVote { proposer: ProposerId(1), nonce: 3 };
        let now = START + millis(after);
        let out = node.take(|acceptor, out| acceptor.on_pre_vote(pre_vote, now, out));
        pick!(out.sends, Proposer(ToProposer::PreVoteAck))[0].1.is_quiet
    };
    let mut node = Node::new();
    node.acceptor.on_start(START);
    assert!(!is_quiet(&mut node, 0), "it is a member");
    node.restart();
    node.acceptor.on_start(START);
    assert!(!is_quiet(&mut node, 299) && is_quiet(&mut node, 300));
    let mut acceptor = restore(&AcceptorState::default());
    acceptor.on_start(START);
    let mut formatted = Node { acceptor, log: Vec::new() };
    let form = Form { proposer: ProposerId(0), table: table(&cluster()) };
    formatted.take(|acceptor, out| acceptor.on_form(&form, out));
    assert!(is_quiet(&mut formatted, 0), "there was no leader to hear");
}

/// It tells a proposer that means to campaign above which slot it has never voted.
fn votes_end(acceptor: &mut Acceptor) -> u64 {
    let pre_vote = PreVote { proposer: ProposerId(1), nonce: 3 };
    let out = out_of(|out| acceptor.on_pre_vote(pre_vote, START, out));
    pick!(out.sends, Proposer(ToProposer::PreVoteAck))[0].1.votes_end.0
}

#[test]
fn r18_the_last_vote_is_known_though_memory_has_let_it_go_or_was_lost() {
    let mut node = Node::new();
    assert_eq!(votes_end(&mut node.acceptor), 0);
    [0, 5, 2].into_iter().for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    assert_eq!(votes_end(&mut node.acceptor), 6);
    node.sync();
    node.executed(9);
    assert_eq!(votes_end(&mut node.acceptor), 6, "none is in memory");
    node.restart();
    assert_eq!(votes_end(&mut node.acceptor), 6);
}

#[test]
fn r18_the_last_vote_is_at_least_the_last_one_truncated() {
    let mut acceptor = harness::acceptor(&cluster(), 0);
    acceptor.on_p2a(p2a(B1, 2), START, &mut Outbox::default());
    harness::truncate(&mut acceptor, 2);
    assert_eq!(votes_end(&mut acceptor), 3);
    harness::truncate(&mut acceptor, 7);
    assert_eq!(votes_end(&mut acceptor), 7, "others have voted there");
    let mut state = AcceptorState { table: Some(table(&cluster())), ..AcceptorState::default() };
    state.on_record(&Record::Truncated { acceptor: AcceptorId(0), truncated: Watermark(4) });
    assert_eq!(votes_end(&mut restore(&state)), 4);
}

/// A cluster with 100 commands in its log, three times what a reign has room for, that was stopped
/// as a whole and started again, without the acceptor `dead`.
fn stopped_and_started(dead: Option<u8>) -> Net {
    let mut net = Net::durable(small());
    (0..100).for_each(|tag| net.write(tag));
    assert!((0..100).eq(net.replies().iter().map(|(tag, _)| *tag)), "all are answered");
    let all: Vec<_> = net.roles.keys().copied().collect();
    all.iter().for_each(|role| net.stop(*role));
    let is_up = |role: &RoleId| dead.is_none_or(|id| *role != RoleId::Acceptor(AcceptorId(id)));
    all.into_iter().filter(is_up).for_each(|role| net.start(role));
    net.run_for(millis(10_000));
    net.write(100);
    assert_eq!(net.replies().last(), Some(&(100, "100#101".to_owned())), "nothing is lost");
    net
}

#[test]
fn r15_when_all_come_back_replicas_replay_and_nobody_proposes_it_anew() {
    let net = stopped_and_started(None);
    for replica in net.replicas() {
        assert!(replica.counters().replayed > 60, "{:?}", replica.counters());
    }
    let is_p1a_of_all =
        |to: &To| matches!(to, To::Acceptor(_, ToAcceptor::P1a(p1a)) if p1a.first < Slot(60));
    assert_eq!(net.count(|_, to| is_p1a_of_all(to)), 0);
}

/// Acceptors take ten milliseconds for each page, and a page has one slot. Several are under way at
/// any time.
#[test]
fn r15_replaying_takes_as_long_as_what_is_missing_by_the_pages_under_way() {
    const PAGE_TAKES: Duration = Duration::from_millis(10);
    let mut net = Net::durable(Settings { page_slots_max: 1, ..small() });
    (0..400).for_each(|tag| net.write(tag));
    net.keeps_sent = false;
    let missing = net.replica(0).executed();
    let all: Vec<_> = net.roles.keys().copied().collect();
    all.iter().for_each(|role| net.stop(*role));
    net.sync_takes(|_| PAGE_TAKES);
    all.into_iter().for_each(|role| net.start(role));
    let is_behind = |net: &Net, to| net.replicas().any(|replica| replica.executed() < to);
    while is_behind(&net, Watermark(8)) {
        net.run_for(PAGE_TAKES);
    }
    let began = net.now;
    while is_behind(&net, missing) {
        net.run_for(PAGE_TAKES);
    }
    let most = PAGE_TAKES * u32::try_from(missing.0).expect("few slots") / PAGES_AHEAD;
    let took = net.now.since(began);
    assert!(took <= most, "{took:?} for {missing}");
}

/// What the row of the dead acceptor had chosen no replica can count: phase 1 has to find it, part
/// by part.
#[test]
fn r07_when_all_but_one_acceptor_come_back_the_log_is_recovered_part_by_part() {
    let net = stopped_and_started(Some(1));
    let elected = net.events.iter().filter(|event| matches!(event, Event::Elected { .. }));
    assert!(elected.count() > 3, "one reign has room for 32 slots");
    assert!(net.replicas().all(|replica| replica.executed() == net.replica(0).executed()));
}

/// A replica asks again and again until it has its page: the disk must not be asked as often, or it
/// never gets to what else is wanted.
#[test]
fn r29_the_disk_is_asked_for_one_page_at_a_time_for_each_asker() {
    let mut node = Node::new();
    node.p2a(p2a(B1, 0));
    node.sync();
    node.executed(1);
    let replay = |node: &mut Node, replica| {
        let replay = Replay { replica: ReplicaId(replica), first: Slot(0) };
        node.take(|acceptor, out| acceptor.on_replay(replay, out)).recalls
    };
    let asked = replay(&mut node, 0);
    assert_eq!(asked.len(), 1);
    assert!(replay(&mut node, 0).is_empty(), "it is on its way");
    assert_eq!(replay(&mut node, 1).len(), 1, "another replica");
    assert_eq!(node.take(|a, out| a.on_p1a(p1a(B2), START, out)).recalls.len(), 1, "a proposer");
    node.recalled(&node.answer(&asked[0]));
    assert!(replay(&mut node, 0).is_empty(), "it has come, and waits for the sync of the promise");
    node.sync();
    assert_eq!(replay(&mut node, 0).len(), 1, "it has left, and may be lost");
}

/// A disk that hangs would otherwise fill memory with one and the same page.
#[test]
fn r29_a_page_that_waits_for_a_sync_is_not_made_twice() {
    let mut node = Node::new();
    let pages = |node: &mut Node, ballot| {
        let out = node.take(|acceptor, out| acceptor.on_p1a(p1a(ballot), START, out));
        pick!(out.held, Proposer(ToProposer::P1b)).len()
    };
    assert_eq!(pages(&mut node, B1), 1);
    assert_eq!(pages(&mut node, B1), 0, "the same page is held");
    assert_eq!(pages(&mut node, B2), 1, "another ballot's is another page");
    node.sync();
    assert_eq!(pages(&mut node, B2), 1, "it has left, and may be lost");
}

/// However far a replica gets meanwhile by what others tell: it asks for another slot each time.
#[test]
fn r29_while_pages_for_a_replica_wait_for_a_sync_no_more_are_made_for_it() {
    let mut node = Node::new();
    (0..8).for_each(|slot| drop(node.p2a(p2a(B1, slot))));
    let pages = |node: &mut Node, replica, first| {
        let replay = Replay { replica: ReplicaId(replica), first: Slot(first) };
        let out = node.take(|acceptor, out| acceptor.on_replay(replay, out));
        pick!(out.held, Replica(ToReplica::Replayed)).len()
    };
    assert_eq!(pages(&mut node, 0, 0), 3, "three slots a page");
    assert_eq!(pages(&mut node, 0, 4), 0, "they are held");
    assert_eq!(pages(&mut node, 1, 4), 2, "for another replica");
    node.sync();
    assert_eq!(pages(&mut node, 0, 4), 2);
}
