//! Sentences of the paper and of the seed's surroundings, one test each, in the paper's order.
//!
//! §n is of \[CP\]; "seed" quotes the notes on what the seed imports.

mod harness;

use std::collections::BTreeMap;

use harness::{
    B1, B2, Echo, Net, ProposerMessages, START, acceptor, acceptors, ballot, campaign, checked,
    grid, leader, least_quorums, millis, p1a, p1b, p2a, p2b, pick, proposer, proxy_leader, replica,
    set, square, value, vote,
};
use loggos_protocol::{
    AcceptorSet, Ballot, Caller, Chosen, ClientId, ClusterSettings, Content, Envelope, Outbox, P2a,
    ProposerId, ProxyLeaderId, Query, QuorumSystem, ReadLevel, ReplicaId, RoleId, Settings, Slot,
    To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica, Value, Watermark,
};

const fn is_of_proposer_0(role: RoleId) -> bool {
    matches!(role, RoleId::Proposer(ProposerId(0)))
}

fn is_p2a(to: &To) -> bool {
    matches!(to, To::ProxyLeader(_, ToProxyLeader::P2a(_)))
}

fn is_p2a_to_acceptor(to: &To) -> bool {
    matches!(to, To::Acceptor(_, ToAcceptor::P2a(_)))
}

fn is_propose(to: &To) -> bool {
    matches!(to, To::Proposer(_, ToProposer::Propose(_)))
}

fn is_results(to: &To) -> bool {
    matches!(to, To::Gateway(_, ToGateway::Results(_)))
}

/// §2.3: "only one replica needs to send the result of executing x back to the client".
#[test]
fn all_replicas_execute_and_one_answers() {
    let mut net = Net::new(grid(2, 2));
    net.write(7);
    assert_eq!(net.replies(), [(7, "7#1".to_owned())]);
    assert_eq!(net.count(|_, to| is_results(to)), 1);
    let executed: Vec<_> = net.replicas().map(|r| r.machine().executed.len()).collect();
    assert_eq!(executed, [1, 1, 1]);
}

/// §2.3: the leader runs phase 1 once for the whole log.
#[test]
fn a_steady_leader_runs_phase_1_for_no_slot() {
    let mut net = Net::new(grid(2, 2));
    (0..50).for_each(|tag| net.write(tag));
    assert_eq!(net.replies.len(), 50);
    assert_eq!(net.count(|_, to| matches!(to, To::Acceptor(_, ToAcceptor::P1a(_)))), 0);
}

/// §2.3: slots are proposed in increasing order.
#[test]
fn each_batch_gets_the_slot_after_the_one_before() {
    let mut leader = leader(&square());
    let mut out = Outbox::default();
    (0..20).for_each(|number| {
        leader.tell_propose(harness::propose(harness::batch(number)), START, &mut out);
    });
    let asked = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    assert!(asked.iter().map(|(_, p2a)| p2a.slot.0).eq(0..20), "{asked:?}");
    assert!(asked.iter().map(|(_, p2a)| p2a.value.batch().unwrap().id.number).eq(0..20));
}

/// §2.4: without compartments, a leader handles 3f + 4 messages a command.
#[test]
fn a_leader_that_is_its_own_proxy_handles_3f_plus_4_messages_a_command() {
    for f in [1, 2, 3] {
        let quorums = QuorumSystem::majority(f).unwrap();
        let settings = Settings { proxy_leaders: 0, replicas: f + 1, ..Settings::new(f, quorums) };
        let mut net = Net::new(settings);
        (0..10).for_each(|tag| net.write(tag));
        assert_eq!(net.replies.len(), 10);
        let is_own = |role| {
            let proxy_leader = RoleId::ProxyLeader(ProxyLeaderId(0));
            is_of_proposer_0(role) || role == proxy_leader
        };
        let handled = net.count(|from, to| is_own(from) != is_own(to.role()));
        assert_eq!(handled, 10 * (3 * usize::from(f) + 4), "f = {f}");
    }
}

/// §3.1: "a proxy leader broadcasts it to the acceptors, gathers a quorum of f+1 Phase2b responses,
/// and notifies the replicas of the chosen value".
#[test]
fn a_proxy_leader_broadcasts_gathers_and_notifies() {
    let cluster = square();
    let mut proxy_leader = proxy_leader(&cluster);
    let mut out = Outbox::default();
    proxy_leader.on_p2a(p2a(B1, 4), START, &mut out);
    let asked = pick!(out.sends, Acceptor(ToAcceptor::P2a));
    assert_eq!(asked.iter().map(|(a, _)| *a).collect::<AcceptorSet>(), set([0, 1]));

    out = Outbox::default();
    proxy_leader.on_p2b(p2b(0, B1, 4), START, &mut out);
    proxy_leader.on_p2b(p2b(0, B1, 4), START, &mut out);
    assert!(out.sends.is_empty(), "one acceptor's vote, twice: {:?}", out.sends);
    proxy_leader.on_p2b(p2b(1, B1, 4), START, &mut out);
    let chosen = Chosen { slot: Slot(4), ballot: B1, value: value(4) };
    let told = [0, 1, 2].map(|r| To::Replica(ReplicaId(r), ToReplica::Chosen(chosen.clone())));
    assert_eq!(out.sends, told);
}

/// §3.1: "With proxy leaders, the leader only processes 2."
#[test]
fn a_slot_costs_the_leader_one_message_in_and_one_out() {
    let mut net = Net::new(grid(2, 2));
    (0..100).for_each(|tag| net.write(tag)); // in no time: nothing periodic is sent
    assert_eq!(net.replies.len(), 100);
    assert_eq!(net.count(|_, to| is_of_proposer_0(to.role()) && is_propose(to)), 100);
    assert_eq!(net.count(|from, to| is_of_proposer_0(from) && is_p2a(to)), 100);
    let others = |from, to: &To| {
        (is_of_proposer_0(from) || is_of_proposer_0(to.role())) && !is_propose(to) && !is_p2a(to)
    };
    assert_eq!(net.count(others), 0, "a leader processes 2 messages a slot");
}

/// §3.1: commands are spread over the proxy leaders; seed: "slot % proxies picks the proxy leader".
#[test]
fn proxy_leaders_take_turns_by_slot() {
    let cluster = checked(Settings { proxy_leaders: 3, ..grid(2, 2) });
    let mut leader = leader(&cluster);
    let mut out = Outbox::default();
    (0..30).for_each(|number| {
        leader.tell_propose(harness::propose(harness::batch(number)), START, &mut out);
    });
    for (to, p2a) in pick!(out.sends, ProxyLeader(ToProxyLeader::P2a)) {
        assert_eq!(u64::from(to.0), p2a.slot.0 % 3, "{}", p2a.slot);
        assert_eq!(p2a.via, to, "acceptors answer the proxy leader that asks them");
    }
}

/// §3.2: "every quorum contacted in Phase 1 (called a read quorum) intersects every quorum
/// contacted in Phase 2 (called a write quorum)": so what one write quorum voted for, every read
/// quorum reports, and the next leader proposes it again.
#[test]
fn a_chosen_value_survives_every_election() {
    let systems = [
        QuorumSystem::grid(2, 2, 1),
        QuorumSystem::grid(2, 3, 1),
        QuorumSystem::grid(3, 2, 1),
        QuorumSystem::grid(3, 3, 1),
        QuorumSystem::majority(1),
        QuorumSystem::flexible(5, 2, 4, 1),
    ];
    for quorums in systems.map(Result::unwrap) {
        let cluster = checked(Settings::new(1, quorums));
        let count = quorums.acceptors_count();
        for write in least_quorums(count, |s| quorums.is_write_quorum(s)) {
            for read in least_quorums(count, |s| quorums.is_read_quorum(s)) {
                let proposed = elect_over(&cluster, write, read);
                assert_eq!(proposed.len(), 1, "{quorums}: {write:?} chose, {read:?} promised");
                assert_eq!((proposed[0].slot, &proposed[0].value), (Slot(0), &value(0)));
            }
        }
    }
}

/// `write` votes for slot 0 in ballot 1; returns what proposer 1 proposes when `read` has promised.
fn elect_over(cluster: &ClusterSettings, write: AcceptorSet, read: AcceptorSet) -> Vec<P2a> {
    let mut acceptors = acceptors(cluster);
    for voter in write.iter() {
        acceptors[usize::from(voter.0)].on_p2a(p2a(B1, 0), START, &mut Outbox::default());
    }
    let mut leader = proposer(cluster, 1);
    let campaign = campaign(cluster, &mut leader, B1, START);
    let mut out = Outbox::default();
    for (to, p1a) in pick!(campaign.sends, Acceptor(ToAcceptor::P1a)) {
        let mut promise = Outbox::default();
        if read.contains(to) {
            acceptors[usize::from(to.0)].on_p1a(*p1a, START, &mut promise);
        }
        for (_, p1b) in pick!(promise.held, Proposer(ToProposer::P1b)) {
            leader.tell_p1b(*p1b.clone(), START, &mut out);
        }
    }
    assert!(leader.is_leading(), "a read quorum elects");
    pick!(out.sends, ProxyLeader(ToProxyLeader::P2a)).into_iter().map(|(_, p)| p.clone()).collect()
}

/// §3.2: "Read quorums do not have to intersect other read quorums": two leaders may be elected by
/// columns that share no acceptor, and the rows see to it that the former chooses nothing more.
#[test]
fn two_leaders_of_disjoint_read_quorums_do_no_harm() {
    let quorums = square().quorums;
    let (left, right) = (set([0, 2]), set([1, 3]));
    assert!(quorums.is_read_quorum(left) && quorums.is_read_quorum(right));
    assert!(left.intersection(right).is_empty());

    let mut acceptors = acceptors(&square());
    for (column, ballot) in [(left, B1), (right, B2)] {
        for promising in column.iter() {
            let promising = &mut acceptors[usize::from(promising.0)];
            promising.on_p1a(p1a(ballot), START, &mut Outbox::default());
        }
    }
    for row in [[0, 1], [2, 3]] {
        let mut out = Outbox::default();
        for member in row {
            acceptors[member].on_p2a(p2a(B1, 0), START, &mut out);
        }
        assert_eq!(pick!(out.held, ProxyLeader(ToProxyLeader::P2b)).len(), 1, "row {row:?}");
        assert_eq!(pick!(out.sends, Proposer(ToProposer::Nack)).len(), 1, "row {row:?}");
    }
}

/// §3.2: each acceptor sees one part in (number of write quorums) of the commands; seed: "slot %
/// rows the row; all columns of the row are asked".
#[test]
fn an_acceptor_is_asked_for_one_slot_in_rows() {
    for (rows, columns) in [(2, 2), (3, 2), (4, 3)] {
        let mut net = Net::new(grid(rows, columns));
        let start = net.proposer(0).next_slot().unwrap().0;
        (0..60).for_each(|tag| net.write(tag));
        let mut asked = BTreeMap::<u8, u32>::new();
        for (_, to) in net.sent.iter().filter(|(_, to)| is_p2a_to_acceptor(to)) {
            let To::Acceptor(acceptor, ToAcceptor::P2a(p2a)) = to else { unreachable!() };
            assert!((start..start + 60).contains(&p2a.slot.0));
            assert_eq!(p2a.slot.0 % u64::from(rows), u64::from(acceptor.0 / columns));
            *asked.entry(acceptor.0).or_default() += 1;
        }
        let share = 60 / u32::from(rows);
        assert!(asked.into_values().eq(vec![share; usize::from(rows * columns)]), "{rows} rows");
    }
}

/// §3.2: more write quorums make read quorums larger, which only phase 1 pays.
#[test]
fn only_phase_1_pays_for_larger_read_quorums() {
    for rows in [2, 3, 5, 8] {
        let mut candidate = proposer(&checked(grid(rows, 2)), 0);
        campaign(&checked(grid(rows, 2)), &mut candidate, Ballot::default(), START);
        let column = (0..rows).map(|row| 2 * row);
        let promises = column.take_while(|acceptor| {
            let promise = p1b(*acceptor, B1, vec![]);
            candidate.tell_p1b(promise, START, &mut Outbox::default());
            !candidate.is_leading()
        });
        assert_eq!(promises.count(), usize::from(rows) - 1, "the last of a column elects");

        let mut net = Net::new(grid(rows, 2));
        (0..8).for_each(|tag| net.write(tag));
        assert_eq!(net.replies.len(), 8);
        assert_eq!(net.count(|_, to| is_p2a_to_acceptor(to)), 8 * 2, "{rows} rows");
    }
}

/// §3.3: "with n replicas, every replica only has to send back results for 1/n of the commands".
#[test]
fn each_batch_is_answered_once_and_each_replica_answers_its_share() {
    for replicas in [2, 3, 5] {
        let mut net = Net::new(Settings { replicas, ..grid(2, 2) });
        (0..60).for_each(|tag| net.write(tag));
        let mut answers = BTreeMap::<u8, usize>::new();
        let mut answered = Vec::new();
        for (_, to) in &net.sent {
            let To::Gateway(_, ToGateway::Results(results)) = to else { continue };
            *answers.entry(results.replica.0).or_default() += 1;
            answered.push(results.batch.number);
        }
        answered.sort_unstable();
        answered.dedup();
        assert_eq!(answered.len(), 60, "each batch is answered by exactly one");
        let share = 60 / usize::from(replicas);
        assert!(answers.into_values().eq(vec![share; replicas.into()]), "{replicas} replicas");
    }
}

/// §3.4: a read costs one message to each acceptor of a read quorum and one to one replica, and the
/// leader none.
#[test]
fn a_read_asks_one_read_quorum_and_one_replica_and_no_leader() {
    let mut net = Net::new(grid(2, 3));
    net.write(1);
    net.sent.clear();
    net.read(0, 2, ReadLevel::Linearizable, "q");
    assert_eq!(net.replies().last(), Some(&(2, "q@1".to_owned())));
    let is_pre_read = |to: &To| matches!(to, To::Acceptor(_, ToAcceptor::PreRead(_)));
    let is_read = |to: &To| matches!(to, To::Replica(_, ToReplica::Read(_)));
    assert_eq!(net.count(|_, to| is_pre_read(to)), 2, "a column");
    assert_eq!(net.count(|_, to| is_read(to)), 1);
    let answers = |_, to: &To| matches!(to, To::Gateway(..));
    assert_eq!((net.sent.len(), net.count(answers)), (2 + 2 + 1 + 1, 2 + 1), "and the answers");
}

/// §3.4: "the index of the largest log entry in which the acceptor has voted", and of these the
/// largest of a read quorum: a read waits for what only one of them has voted in.
#[test]
fn a_read_waits_for_the_largest_slot_that_its_read_quorum_has_voted_in() {
    let mut net = Net::new(grid(2, 2));
    net.write(1);
    // Slots of even numbers go to the first row.
    let is_chosen = |to: &To| matches!(to, To::Replica(_, ToReplica::Chosen(_)));
    net.lose(move |_, to| is_chosen(to));
    net.submit(2, "put");
    net.tick();
    net.read(0, 3, ReadLevel::Linearizable, "q");
    let sent: Vec<_> = net.sent.iter().map(|(_, to)| to.clone()).collect();
    let reads = pick!(sent, Replica(ToReplica::Read));
    assert_eq!(reads.last().map(|(_, read)| read.at_least), Some(Watermark(3)));
    assert_eq!(net.replies().len(), 1, "neither is answered");
    net.lose(|_, _| false);
    net.run_for(millis(1000));
    let mut replies = net.replies();
    replies.sort();
    assert_eq!(replies[2], (3, "q@2".to_owned()), "with all that comes before");
}

/// §4.1, of reads: one message of each kind for all reads of a batch.
#[test]
fn a_batch_of_reads_costs_as_many_messages_as_one() {
    let mut net = Net::new(grid(2, 2));
    let now = net.now;
    net.with_gateway(0, |gateway, out| {
        for tag in 0..100 {
            let caller = Caller { client: ClientId(0), tag };
            let query = Query { level: ReadLevel::Linearizable, bytes: b"q" };
            gateway.read(caller, query, now, out);
        }
    });
    net.tick();
    assert_eq!(net.replies.len(), 100);
    assert_eq!(net.sent.len(), 2 + 2 + 1 + 1);
}

/// §3.4: "Recall that replicas execute commands in log order".
#[test]
fn replicas_execute_in_log_order_whatever_the_order_they_hear_in() {
    let mut net = Net::new(grid(2, 2));
    let slow = RoleId::Replica(ReplicaId(0));
    net.lose(move |_, to| to.role() == slow && matches!(to, To::Replica(_, ToReplica::Chosen(_))));
    (0..5).for_each(|tag| net.write(tag));
    let sent: Vec<_> = net.sent.drain(..).map(|(_, to)| to).collect();
    let mut chosen = pick!(sent, Replica(ToReplica::Chosen));
    chosen.retain(|(to, _)| *to == ReplicaId(0));
    assert_eq!(chosen.len(), 5);
    for (_, chosen) in chosen.into_iter().rev() {
        assert_eq!(net.replica(0).machine(), &Echo::default(), "nothing before the first");
        let (to, formation) =
            (To::Replica(ReplicaId(0), ToReplica::Chosen(chosen.clone())), net.formation());
        let now = net.now;
        net.step(slow, |role, out| role.on_envelope(Envelope { formation, to }, now, out));
    }
    assert_eq!(net.replica(0).machine(), net.replica(1).machine());
    assert_eq!(net.replica(0).machine().executed.len(), 5);
}

/// §4.1: "the leader is responsible for sequencing batches": one message a batch, whatever is in
/// it.
#[test]
fn a_batch_costs_one_message_however_many_commands_it_holds() {
    let mut net = Net::new(grid(2, 2));
    (0..100).for_each(|tag| net.submit(tag, "put"));
    net.tick();
    assert_eq!(net.replies.len(), 100);
    assert_eq!(net.count(|_, to| is_propose(to)), 1);
    assert_eq!(net.count(|_, to| is_p2a(to)), 1);
    assert_eq!(net.count(|_, to| is_p2a_to_acceptor(to)), 2);
}

/// §4.2: "the unbatchers are responsible for sending the results of executing the commands back to
/// the clients": one message brings the results of a batch, and each goes to the client that waits
/// for it.
#[test]
fn the_results_of_a_batch_come_in_one_message_and_reach_their_callers() {
    let mut net = Net::new(grid(2, 2));
    for (tag, command) in [(9, "a"), (4, "b"), (6, "c")] {
        net.submit(tag, command);
    }
    net.tick();
    assert_eq!(net.count(|_, to| is_results(to)), 1);
    let replies = [(9, "a#1"), (4, "b#2"), (6, "c#3")].map(|(tag, r)| (tag, r.to_owned()));
    assert_eq!(net.replies(), replies);
}

/// Seed: "Proposer 0 starts as candidate at once."
#[test]
fn proposer_0_leads_before_any_time_has_passed() {
    let net = Net::new(grid(2, 2));
    assert_eq!((net.now, net.proposer(0).is_leading()), (START, true));
    assert_eq!(net.proposer(1).ballot(), None);
}

/// Seed: "(number, proposer), ordered so".
#[test]
fn ballots_are_ordered_by_round_and_then_by_proposer() {
    assert!(ballot(1, 9) < ballot(2, 0) && ballot(2, 0) < ballot(2, 1));
}

/// Seed: "per slot the value of the highest ballot; holes between checkpoint and largest slot
/// become no-ops".
#[test]
fn a_new_leader_proposes_the_highest_ballots_values_and_fills_holes() {
    let mut leader = proposer(&square(), 0);
    campaign(&square(), &mut leader, B2, START);
    let ballot = leader.ballot().unwrap();
    let mut out = Outbox::default();
    let high_and_low = vec![vote(0, B2, 20), vote(3, B1, 13)];
    leader.tell_p1b(p1b(0, ballot, high_and_low), START, &mut out);
    let low_and_high = vec![vote(0, B1, 10), vote(3, B2, 23)];
    leader.tell_p1b(p1b(2, ballot, low_and_high), START, &mut out);
    let asked = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    let values: Vec<_> = asked.iter().map(|(_, p2a)| &p2a.value.content).collect();
    let (first, last) = (value(20).content, value(23).content);
    assert_eq!(values, [&first, &Content::Noop, &Content::Noop, &last]);
}

/// Seed: "stores (ballot, value) by slot when the ballot is at least the promise".
#[test]
fn an_acceptor_refuses_a_ballot_below_its_promise() {
    let mut acceptor = acceptor(&square(), 0);
    let mut out = Outbox::default();
    acceptor.on_p1a(p1a(B2), START, &mut out);
    acceptor.on_p2a(p2a(B1, 0), START, &mut out);
    assert_eq!(acceptor.vote(Slot(0)), None);
    let nacks = pick!(out.sends, Proposer(ToProposer::Nack));
    assert!(matches!(nacks[..], [(ProposerId(0), n)] if n.promised == B2), "{nacks:?}");
    acceptor.on_p2a(p2a(B2, 0), START, &mut out);
    assert_eq!(acceptor.vote(Slot(0)).map(|v| v.ballot), Some(B2));
}

/// Seed: plain Paxos is "majority of 2f+1, no proxies"; "the proposer is its own proxy".
#[test]
fn plain_paxos_works_without_proxy_leaders_through_a_lost_leader() {
    let quorums = QuorumSystem::majority(1).unwrap();
    let mut net = Net::new(Settings { proxy_leaders: 0, ..Settings::new(1, quorums) });
    (0..10).for_each(|tag| net.write(tag));
    net.stop(RoleId::Proposer(ProposerId(0)));
    net.stop(RoleId::ProxyLeader(ProxyLeaderId(0)));
    (10..20).for_each(|tag| net.write(tag));
    net.run_for(millis(2000));
    let expected: Vec<_> = (0..20).map(|tag| (tag, format!("{tag}#{}", tag + 1))).collect();
    assert_eq!(net.replies(), expected);
    assert!(net.proposer(1).is_leading());
}

/// Seed: replicas "reorder by slot, apply".
#[test]
fn a_replica_that_is_told_twice_executes_once() {
    let mut replica = replica(&square(), 1);
    let mut out = Outbox::default();
    for slot in [1, 0, 0, 1] {
        let value = Value::noop(START);
        replica.on_chosen(Chosen { slot: Slot(slot), ballot: B1, value }, START, &mut out);
    }
    assert_eq!((replica.executed(), replica.counters().slots), (Watermark(2), 2));
    assert_eq!(replica.machine(), &Echo::default());
}
