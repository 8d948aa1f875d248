//! With f of each role gone for good, cut off or half connected, what is left serves every command.

mod harness;

use std::time::Duration;

use harness::{Net, REPLICA, grid, millis, small};
use loggos_protocol::{
    AcceptorId, Event, GatewayId, LogRoom, ProposerId, ProxyLeaderId, QuorumSystem, ReplicaId,
    Role, RoleId, Settings, To, ToProposer, ToReplica,
};

const GATEWAY: RoleId = RoleId::Gateway(GatewayId(0));
const PROPOSER: fn(u8) -> RoleId = |id| RoleId::Proposer(ProposerId(id));
const PROXY_LEADER: fn(u8) -> RoleId = |id| RoleId::ProxyLeader(ProxyLeaderId(id));
const ACCEPTOR: fn(u8) -> RoleId = |id| RoleId::Acceptor(AcceptorId(id));

/// A kind of cluster, and how it is started.
type Mode = (&'static str, fn(Settings) -> Net);
/// Which messages are lost, by sender.
type IsLost = fn(RoleId, &To) -> bool;

/// In memory, and with durable acceptors.
const MODES: [Mode; 2] = [("memory", Net::new), ("durable", Net::durable)];

/// The longest that a command may wait for an answer once the last fault is over: 30 election
/// timeouts.
const SERVED_WITHIN: Duration = Duration::from_secs(9);

/// Writes a command with a tag of its own, and waits for its answer.
fn assert_served(net: &mut Net, tag: u64, what: &str) {
    let written_at = net.now;
    net.write(tag);
    while !net.replies().iter().any(|(answered, _)| *answered == tag) {
        assert!(net.now.since(written_at) < SERVED_WITHIN, "{what}: {tag} has no answer\n{net:?}");
        net.run_for(millis(10));
    }
}

/// A replica that was started blank is one of the f+1 without which nothing goes on, and hears of
/// the cluster from its leader only, which is stalled for want of that replica.
#[test]
fn r28_a_replica_that_starts_over_is_served_by_a_stalled_leader() {
    for (mode, start) in MODES {
        for settings in [small(), grid(2, 2)] {
            for lost in
                [vec![], vec![PROPOSER(1)], vec![ACCEPTOR(1)], vec![PROPOSER(1), ACCEPTOR(1)]]
            {
                for down in [100, 1000, 4000] {
                    let what = format!("{mode}, without {lost:?}, down for {down} ms");
                    let mut net = start(settings.clone());
                    (0..100).for_each(|tag| net.write(tag));
                    net.keeps_sent = false;
                    lost.iter().chain(&[REPLICA(0)]).for_each(|role| net.stop(*role));
                    net.run_for(millis(3000));
                    net.stop(REPLICA(2));
                    net.write(100);
                    net.run_for(millis(down));
                    net.start(REPLICA(2));
                    (200..210).for_each(|tag| assert_served(&mut net, tag, &what));
                    net.run_for(SERVED_WITHIN);
                    assert_eq!(net.replica(1).executed(), net.replica(2).executed(), "{what}");
                }
            }
        }
    }
}

/// No replica has anything any more, and with an acceptor lost the votes of some slots are no write
/// quorum: only a phase 1 of the stalled leader brings them back.
#[test]
fn r08_a_stalled_leader_runs_phase_1_again_for_replicas_that_all_start_over() {
    for settings in [small(), grid(2, 2)] {
        let mut net = Net::durable(settings);
        (0..100).for_each(|tag| net.write(tag));
        net.keeps_sent = false;
        let lost = [PROPOSER(1), ACCEPTOR(1), REPLICA(0)];
        lost.iter().chain(&[REPLICA(1), REPLICA(2)]).for_each(|role| net.stop(*role));
        net.write(100);
        net.run_for(millis(3000));
        [REPLICA(1), REPLICA(2)].into_iter().for_each(|role| net.start(role));
        assert_served(&mut net, 200, "replicas that all start over");
    }
}

/// A campaign that gives up before a sync is over elects no leader, however often it is tried.
#[test]
fn r28_disks_slower_than_the_election_timeout_elect_a_leader() {
    let majority = Settings::new(1, QuorumSystem::majority(1).unwrap());
    for settings in [majority, grid(2, 2), grid(3, 3)] {
        for millis_a_sync in [100, 290, 310, 400, 1000, 3000] {
            let count = settings.quorums.acceptors_count();
            for slow in [vec![0], vec![0, 1], (0..count).collect::<Vec<_>>()] {
                let what = format!("{}: {millis_a_sync} ms at {slow:?}", settings.quorums);
                let mut net = Net::durable(settings.clone());
                net.write(0);
                net.keeps_sent = false;
                net.sync_takes(move |acceptor| match slow.contains(&acceptor.0) {
                    true => millis(millis_a_sync),
                    false => Duration::ZERO,
                });
                net.stop(PROPOSER(0));
                net.run_for(millis(30_000));
                assert!(net.proposer(1).is_leading(), "{what}: {:?}", net.events);
                net.start(PROPOSER(0));
                for tag in 1..20 {
                    let written_at = net.now;
                    net.write(tag);
                    while !net.replies().iter().any(|(answered, _)| *answered == tag) {
                        net.run_for(millis(10));
                        assert!(net.now.since(written_at) < millis(30_000), "{what}: {tag}");
                    }
                }
                let after = net.promises_written().into_iter().max().unwrap_or(0);
                assert!(after <= 8, "{what}: {after} promises");
            }
        }
    }
}

/// Whatever a gateway sends it is lost; it hears the acceptors, has nothing open and seems to be in
/// good health.
#[test]
fn r28_a_leader_that_no_gateway_reaches_is_replaced() {
    for (mode, start) in MODES {
        let mut net = start(grid(2, 2));
        net.lose(|from, to| from == GATEWAY && to.role() == PROPOSER(0));
        net.run_for(millis(2000));
        assert_served(&mut net, 1, mode);
        assert!(net.proposer(1).is_leading(), "{mode}");
    }
}

/// The other gateway acknowledges heartbeats: the leader seems to be in good health.
#[test]
fn r28_a_leader_that_one_of_two_gateways_does_not_reach_is_replaced() {
    for (mode, start) in MODES {
        let mut net = start(Settings { gateways: 2, ..grid(2, 2) });
        net.lose(|from, to| from == GATEWAY && to.role() == PROPOSER(0));
        net.run_for(millis(2000));
        (0..10).for_each(|tag| assert_served(&mut net, tag, mode));
        assert!(net.proposer(1).is_leading(), "{mode}");
        assert_eq!(hand_overs(&net), 1, "{mode}");
    }
}

/// It has no session, and knows neither the cluster nor its leader.
#[test]
fn r28_a_gateway_that_starts_and_does_not_hear_the_leader_is_served() {
    for (mode, start) in MODES {
        let mut net = start(Settings { gateways: 2, ..grid(2, 2) });
        net.stop(GATEWAY);
        net.start(GATEWAY);
        net.lose(|from, to| from == PROPOSER(0) && to.role() == GATEWAY);
        assert_served(&mut net, 0, mode);
    }
}

/// It complains of each leader in turn, and each hands over for it: ever more seldom.
#[test]
fn r28_a_gateway_that_reaches_no_leader_hardly_disturbs_the_others() {
    for (mode, start) in MODES {
        let mut net = start(Settings { gateways: 2, ..grid(2, 2) });
        net.keeps_sent = false;
        let other = RoleId::Gateway(GatewayId(1));
        net.stop(other);
        net.start(other);
        net.lose(move |from, to| from == other && matches!(to, To::Proposer(..)));
        let end = net.now + Duration::from_secs(300);
        let mut tag = 0;
        while net.now < end {
            assert_served(&mut net, tag, mode);
            tag += 1;
            net.run_for(millis(100));
        }
        assert!((4..=20).contains(&hand_overs(&net)), "{mode}: {} hand-overs", hand_overs(&net));
    }
}

fn hand_overs(net: &Net) -> usize {
    net.events.iter().filter(|event| matches!(event, Event::HandedOver { .. })).count()
}

/// Neither heartbeats nor what is chosen come to it: all others go on, and nothing tells it that it
/// misses anything.
#[test]
fn r15_a_replica_that_does_not_hear_the_leader_catches_up() {
    for (mode, start) in MODES {
        for is_blank in [false, true] {
            let mut net = start(small());
            net.keeps_sent = false;
            (0..100).for_each(|tag| net.write(tag));
            if is_blank {
                net.stop(REPLICA(2));
                net.start(REPLICA(2));
            }
            net.lose(|from, to| {
                let is_leaders = from == PROPOSER(0) || matches!(from, RoleId::ProxyLeader(_));
                is_leaders && to.role() == REPLICA(2)
            });
            (100..105).for_each(|tag| net.write(tag)); // few enough for the leader not to wait for it
            net.run_for(Duration::from_secs(10));
            assert!(net.proposer(0).is_leading(), "{mode}");
            let executed = [2, 1].map(|replica| net.replica(replica).executed());
            assert_eq!(executed[0], executed[1], "{mode}, blank: {is_blank}");
        }
    }
}

/// Two of three acceptors have voted, and one of them is lost. With the third, which has little
/// room, what they have chosen is chosen again: were it not, nothing above would ever be executed
/// by a replica that misses it.
#[test]
fn r34_with_little_room_what_was_chosen_is_chosen_again() {
    let majority = QuorumSystem::majority(1).expect("of three");
    let mut net = Net::durable(Settings { slot_window: 8, ..Settings::new(1, majority) });
    net.lose(|_, to| {
        let is_to_third = matches!(to, To::Acceptor(AcceptorId(2), _));
        is_to_third || matches!(to, To::Replica(ReplicaId(1 | 2), _))
    });
    net.submit(1, "1");
    net.tick();
    net.stop(ACCEPTOR(0));
    net.stop(REPLICA(0)); // nobody who has executed it is left
    net.stop(PROPOSER(0));
    net.step(ACCEPTOR(2), |role, _| {
        let Role::Acceptor(acceptor) = role else { unreachable!("roles are kept by id") };
        acceptor.set_room(LogRoom::Low);
    });
    net.lose(|_, _| false);
    net.run_for(millis(5000));
    for replica in [1, 2] {
        let executed = net.replica(replica).machine().executed.len();
        assert_eq!(executed, 1, "replica {replica}: {:?}", net.events);
    }
}

/// For half an hour, with a client that asks all the while. A cluster that elected leaders in vain
/// would fill what room is left.
#[test]
fn r34_a_cluster_whose_logs_are_low_stands_still_and_goes_on_when_there_is_room() {
    let set_room = |net: &mut Net, room| {
        for id in 0..4 {
            net.step(ACCEPTOR(id), |role, _| {
                let Role::Acceptor(acceptor) = role else { unreachable!("roles are kept by id") };
                acceptor.set_room(room);
            });
        }
    };
    let mut net = Net::durable(grid(2, 2));
    net.keeps_sent = false;
    (0..10).for_each(|tag| net.write(tag));
    set_room(&mut net, LogRoom::Low);
    let before = net.records_written();
    for minute in 1..=30 {
        (0..10).for_each(|tag| net.submit(minute * 1000 + tag, "x"));
        net.tick();
        net.run_for(Duration::from_secs(60));
    }
    let written = net.records_written() - before;
    assert!(written < 100, "{written} records: {:?}", net.events);
    let refused = net.replies().iter().filter(|(_, reply)| reply.starts_with("NoRoom")).count();
    assert!(refused >= 290, "{refused} commands were refused");
    set_room(&mut net, LogRoom::Ample);
    assert_served(&mut net, 1_000_000, "there is room");
}

/// Leaders follow each other, for any of them might do better, and each proposes all open slots
/// anew: less and less often, and without writing their values again.
#[test]
fn r34_a_log_hardly_grows_while_f_plus_1_replicas_are_down() {
    for settings in [small(), grid(2, 2)] {
        let mut net = Net::durable(settings);
        net.write(0);
        net.keeps_sent = false;
        for replica in [1, 2] {
            net.stop(REPLICA(replica));
        }
        for tag in 1..=64 {
            net.submit(tag, &"x".repeat(1000));
            net.tick();
        }
        let (bytes, records) = (net.value_bytes_written(), net.records_written());
        net.run_for(Duration::from_secs(20 * 60));
        let more = net.value_bytes_written() - bytes;
        assert!(more <= 64 << 10, "{more} bytes of values, in what slots the window had kept back");
        let elected = |event: &&Event| matches!(event, Event::Elected { .. });
        let elections = net.events.iter().filter(elected).count();
        let records = net.records_written() - records;
        assert!((1..60).contains(&elections), "{elections} elections");
        let open = usize::from(net.cluster.quorums.acceptors_count()) * 66;
        assert!(records <= (elections + 3) * open, "{records} records in {elections} elections");
        for replica in [1, 2] {
            net.start(REPLICA(replica));
        }
        net.run_for(Duration::from_secs(60));
        assert_served(&mut net, 1000, "replicas are back");
    }
}

/// Only the leader can give a replica what one acceptor has voted for and another has not seen: it
/// is proposed anew, part by part.
#[test]
fn r34_values_are_not_written_again_for_replicas_that_start_over_without_one_acceptor() {
    for starts_all_over in [false, true] {
        let mut net = Net::durable(small());
        (0..400).for_each(|tag| net.write(tag));
        net.keeps_sent = false;
        net.stop(ACCEPTOR(1));
        net.run_for(Duration::from_secs(1));
        let bytes = net.value_bytes_written();
        let roles: Vec<RoleId> = match starts_all_over {
            true => net.roles.keys().copied().collect(),
            false => vec![REPLICA(2)],
        };
        roles.iter().for_each(|role| net.stop(*role));
        roles.iter().for_each(|role| net.start(*role));
        net.run_for(Duration::from_secs(120));
        let executed = net.replica(2).machine().executed.len();
        assert_eq!(executed, 400, "all over: {starts_all_over}");
        // Half of the slots have had their votes in the other column, where all values are new.
        let more = net.value_bytes_written() - bytes;
        assert!(more <= bytes / 2 + 100, "{more} bytes of values, after {bytes}");
    }
}

/// Commands that are served one after the other within ten seconds.
fn served_in_ten_seconds(net: &mut Net) -> u64 {
    let end = net.now + Duration::from_secs(10);
    let mut tag = 1000;
    while net.now < end {
        assert_served(net, tag, "a proxy leader achieves nothing");
        tag += 1;
        net.run_for(millis(1));
    }
    tag - 1000
}

/// Commands that are served within three seconds, with eight under way at all times.
fn served_eight_at_a_time(net: &mut Net) -> usize {
    let (end, before) = (net.now + Duration::from_secs(3), net.replies.len());
    let mut tag = 1_000_000;
    while net.now < end {
        let under_way = tag - 1_000_000 - (net.replies.len() - before) as u64;
        for _ in under_way..8 {
            net.write(tag);
            tag += 1;
        }
        net.run_for(millis(1));
    }
    net.replies.len() - before
}

/// What it got voted for, replicas get from acceptors, before the leader asks for it again: its
/// slots seem to be chosen without delay, as things are with such disks. Once these are fast, only
/// others' slots show that it is slow.
#[test]
fn r12_a_proxy_leader_that_is_slow_beside_others_hardly_slows_them() {
    let served = |is_lost: IsLost| {
        let mut net = Net::durable(grid(2, 2));
        net.keeps_sent = false;
        net.sync_takes(|_| millis(200));
        (0..40).for_each(|tag| {
            net.write(tag);
            net.run_for(millis(50));
        });
        net.run_for(millis(1000));
        net.sync_takes(|_| Duration::ZERO);
        net.lose(is_lost);
        served_eight_at_a_time(&mut net)
    };
    let healthy = served(|_, _| false);
    let slow = served(|from, to| from == PROXY_LEADER(0) && matches!(to, To::Replica(..)));
    assert!(10 * slow > 8 * healthy, "{slow} of {healthy} were served");
}

#[test]
fn r12_a_proxy_leader_that_achieves_nothing_hardly_slows_the_others() {
    let served = |is_lost: IsLost| {
        let mut net = Net::new(grid(2, 2));
        net.lose(is_lost);
        served_in_ten_seconds(&mut net)
    };
    let healthy = served(|_, _| false);
    let kinds: [(&str, IsLost); 3] = [
        ("deaf to acceptors", |from, to| {
            matches!(from, RoleId::Acceptor(_)) && to.role() == PROXY_LEADER(0)
        }),
        ("unheard by acceptors", |from, to| {
            from == PROXY_LEADER(0) && matches!(to, To::Acceptor(..))
        }),
        ("unheard by replicas", |from, to| {
            from == PROXY_LEADER(0) && matches!(to, To::Replica(..))
        }),
    ];
    for (kind, is_lost) in kinds {
        let served = served(is_lost);
        assert!(10 * served > 8 * healthy, "{kind}: {served} of {healthy} were served");
    }
}

/// It reports all the while, and so seems to be in good health; what it misses it can get from no
/// other role.
#[test]
fn r29_a_replica_that_is_heard_and_stands_still_does_not_stop_the_others() {
    for (mode, start) in MODES {
        let mut net = start(small());
        net.keeps_sent = false;
        net.write(0);
        net.lose(|from, to| {
            let reaches = matches!(from, RoleId::Proposer(_) | RoleId::Gateway(_));
            to.role() == REPLICA(2) && !reaches
        });
        (1000..1100).for_each(|tag| assert_served(&mut net, tag, mode));
        assert!(net.replica(2).executed() < net.replica(1).executed(), "{mode}");
    }
}

/// It holds credit, since it gets on: what it learns from its peers, and how fast, is the pace of
/// all.
#[test]
fn r29_a_replica_that_is_told_nothing_and_lives_by_its_peers_does_not_slow_the_others_much() {
    for (mode, start) in MODES {
        let mut net = start(small());
        net.keeps_sent = false;
        net.write(0);
        net.lose(|from, to| {
            let is_leaders = from == PROPOSER(0) || matches!(from, RoleId::ProxyLeader(_));
            to.role() == REPLICA(2) && is_leaders
        });
        let served = served_eight_at_a_time(&mut net);
        let windows = 3000 / (3 * net.cluster.resend_min.as_millis() as usize);
        let least = windows * net.cluster.slot_window as usize;
        assert!(served >= least, "{mode}: {served} of at least {least} were served");
        assert!(net.replica(2).executed().0 > 0, "{mode}");
    }
}

/// A leader that reruns for each replica that asks begins a reign each time. Were it given new
/// patience with each, it would lead for as long as one replica that is half connected asks.
#[test]
fn r28_reruns_do_not_keep_a_leader_that_no_gateway_reaches() {
    for (mode, start) in MODES {
        let mut net = start(small());
        (0..100).for_each(|tag| net.write(tag));
        net.keeps_sent = false;
        net.stop(REPLICA(2));
        net.start(REPLICA(2));
        net.lose(|from, to| {
            let is_unasked = from == GATEWAY && to.role() == PROPOSER(0);
            is_unasked || matches!(to, To::Replica(ReplicaId(2), message) if !is_heartbeat(message))
        });
        net.run_for(millis(2000));
        (200..205).for_each(|tag| assert_served(&mut net, tag, mode));
    }
}

fn is_heartbeat(message: &ToReplica) -> bool {
    matches!(message, ToReplica::Heartbeat(_) | ToReplica::Identify(_))
}

/// It knows by acceptors that all its slots were executed, and not by which replicas: so nothing is
/// open, and nothing that waits gets a slot.
#[test]
fn r28_a_leader_that_hears_no_replica_is_replaced_though_nothing_is_open() {
    for settings in [small(), grid(2, 2)] {
        let mut net = Net::new(settings);
        (0..100).for_each(|tag| net.write(tag));
        net.keeps_sent = false;
        net.lose(|_, to| matches!(to, To::Proposer(ProposerId(0), ToProposer::Executed(_))));
        (200..300).for_each(|tag| assert_served(&mut net, tag, "no replica is heard"));
    }
}

/// Its process has closed its connections, and no process is at its address: its silence need not
/// be waited for.
fn is_gone(net: &mut Net, gone: RoleId) {
    let now = net.now;
    net.stop(gone);
    let others: Vec<_> = net.roles.keys().copied().collect();
    others.into_iter().for_each(|id| net.step(id, |role, out| role.on_gone(gone, now, out)));
}

#[test]
fn r28_a_leader_whose_process_has_ended_is_replaced_at_once() {
    for (mode, start) in MODES {
        let mut net = start(grid(2, 2));
        net.write(0);
        let ended_at = net.now;
        is_gone(&mut net, PROPOSER(0));
        assert_served(&mut net, 1, mode);
        let took = net.now.since(ended_at);
        assert!(took <= millis(20), "{mode}: {took:?}");
    }
}

/// Acceptors that still hear it refuse the pre-votes of a proposer that is misled.
#[test]
fn r28_a_leader_that_some_take_for_ended_goes_on() {
    for misled in [vec![PROPOSER(1)], vec![PROPOSER(1), ACCEPTOR(0)]] {
        let mut net = Net::new(grid(2, 2));
        net.write(0);
        let now = net.now;
        for id in misled {
            net.step(id, |role, out| role.on_gone(PROPOSER(0), now, out));
        }
        net.run_for(millis(2000));
        assert!(net.proposer(0).is_leading());
        assert_eq!(net.proposer(1).counters().campaigns, 0);
    }
}

/// If all are misled it is deposed, as after a silence, and nothing is lost.
#[test]
fn r28_a_leader_that_all_take_for_ended_is_deposed_and_harms_nobody() {
    let mut net = Net::new(grid(2, 2));
    (0..10).for_each(|tag| net.write(tag));
    let (now, others) = (net.now, net.roles.keys().copied().collect::<Vec<_>>());
    let misled = others.into_iter().filter(|id| *id != PROPOSER(0));
    misled.for_each(|id| net.step(id, |role, out| role.on_gone(PROPOSER(0), now, out)));
    net.run_for(millis(20));
    assert!(net.proposer(1).is_leading() && !net.proposer(0).is_leading());
    (10..20).for_each(|tag| assert_served(&mut net, tag, "a leader deposed for nothing"));
    assert_eq!(net.replica(0).machine().executed.len(), 20);
}

#[test]
fn r12_what_is_in_the_hands_of_a_role_that_has_ended_goes_elsewhere_at_once() {
    for gone in [PROXY_LEADER(0), PROXY_LEADER(1), ACCEPTOR(0), ACCEPTOR(3), REPLICA(0), REPLICA(1)]
    {
        let mut net = Net::new(grid(2, 2));
        (0..10).for_each(|tag| net.write(tag));
        // What it is sent is lost from now on, and it ends with that in its hands.
        net.lose(move |_, to| to.role() == gone);
        (10..20).for_each(|tag| {
            net.submit(tag, "in its hands");
            net.tick();
        });
        let ended_at = net.now;
        is_gone(&mut net, gone);
        while (10..20).any(|tag| !net.replies().iter().any(|(answered, _)| *answered == tag)) {
            net.run_for(millis(1));
            assert!(net.now.since(ended_at) <= millis(5), "{gone}");
        }
    }
}

/// It has ended with the leader, as where they share a process: the next leader does without it.
#[test]
fn r12_a_proxy_leader_that_ended_with_the_leader_gets_no_slot_of_the_next() {
    let mut net = Net::new(grid(2, 2));
    (0..10).for_each(|tag| net.write(tag));
    let ended_at = net.now;
    is_gone(&mut net, PROXY_LEADER(0));
    is_gone(&mut net, PROPOSER(0));
    (10..14).for_each(|tag| assert_served(&mut net, tag, "the next leader"));
    let took = net.now.since(ended_at);
    assert!(took <= millis(20), "{took:?}");
}
