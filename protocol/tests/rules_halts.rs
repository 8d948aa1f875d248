//! Replicas that have halted: what they still do, and what others make of it.

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Echo, Net, chosen, grid, millis, small};
use loggos_protocol::{
    BatchWriter, Event, Halt, LoggedCommand, Payload, Position, ProposerId, Replica, ReplicaId,
    RoleId, Settings, Slot, To, ToGateway, ToProxyLeader, ToReplica,
};

/// A cluster whose replicas have all halted at the same command, after ten others.
fn halted() -> Net {
    let mut net = Net::durable_replicas(Settings { gateways: 2, ..grid(2, 2) });
    (0..10).for_each(|tag| net.write(tag));
    net.submit(10, "panic");
    net.tick();
    net.run_for(millis(1000));
    assert!(net.replicas().all(|replica| replica.halted().is_some()), "each comes to it");
    net
}

#[test]
fn r25_callers_of_every_gateway_are_told_of_a_halt() {
    let mut net = halted();
    let (tag, told) = net.replies().pop().expect("the last is told");
    assert_eq!(tag, 10);
    assert!(told.contains("Halted") && told.contains("has met its command"), "{told}");
    let whys: Vec<_> = net.replicas().map(|replica| replica.halted().cloned()).collect();
    assert!(whys.iter().all(|why| *why == whys[0]), "the same command everywhere: {whys:?}");
    let Some(Halt::Panicked { command, .. }) = &whys[0] else { panic!("{whys:?}") };
    assert_eq!(command.checksum, Payload::copy(b"panic").checksum());
    // For as long as they are halted, and whether a gateway has anything under way or not.
    for _ in 0..20 {
        net.run_for(millis(3000));
        assert!((0..2).all(|gateway| net.gateway(gateway).halted(net.now).is_some()));
    }
}

#[test]
fn r28_a_leader_stays_that_gets_nothing_executed_since_replicas_have_halted() {
    let mut net = halted();
    net.events.clear();
    (11..40).for_each(|tag| net.write(tag));
    net.run_for(Duration::from_secs(120));
    assert!(net.proposer(0).is_leading());
    assert_eq!(net.events, [], "no other leader would do better");
}

#[test]
fn r05_replicas_that_have_halted_count_for_the_next_leader() {
    let mut net = halted();
    (11..20).for_each(|tag| net.write(tag));
    (0..2).for_each(|proposer| net.stop(RoleId::Proposer(ProposerId(proposer))));
    net.start(RoleId::Proposer(ProposerId(1))); // it has met no replica yet
    net.run_for(Duration::from_secs(20));
    assert!(net.proposer(1).is_leading(), "{:?}", net.events);
    assert!(!net.events.iter().any(|event| matches!(event, Event::Silenced { .. })));
    assert!(net.gateway(0).halted(net.now).is_some(), "they say so to it, too");
}

/// The command at which all replicas have halted.
fn command(net: &Net) -> LoggedCommand {
    let halts: Vec<_> = net.replicas().map(|replica| replica.halted().cloned()).collect();
    let Some(Halt::Panicked { command, .. }) = halts[0] else { panic!("{halts:?}") };
    command
}

/// The slot that a leader gives a skip, if this is what it says.
fn skip_slot(to: &To) -> Option<Slot> {
    match to {
        To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) => p2a.value.skipped().map(|_| p2a.slot),
        To::ProxyLeader(..)
        | To::Gateway(..)
        | To::Proposer(..)
        | To::Acceptor(..)
        | To::Replica(..) => None,
    }
}

fn halts(net: &Net) -> usize {
    net.replicas().filter(|replica| replica.halted().is_some()).count()
}

/// Asserts that all replicas have executed the same, and the command "panic" nowhere.
fn assert_equal(net: &Net) {
    let states: Vec<_> = net.replicas().map(|it| (it.executed(), it.machine().clone())).collect();
    assert!(states.iter().all(|state| *state == states[0]), "replicas differ: {states:?}");
    assert!(states[0].1.executed.iter().all(|(_, command)| command != b"panic"), "{states:?}");
}

#[test]
fn r38_a_command_is_skipped_and_all_go_on() {
    let mut net = halted();
    (11..14).for_each(|tag| net.write(tag));
    let before = net.replica(0).executed();
    net.skip(command(&net));
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 0);
    assert!(net.replicas().all(|replica| replica.executed() > before), "they go on");
    assert_equal(&net);
    let skips = net.events.iter().filter(|event| matches!(event, Event::Skips { .. })).count();
    assert_eq!(skips, 3, "{:?}", net.events);
    assert_eq!(net.gateway(0).unanswered(), 0, "what was in flight is answered");
    net.write(20);
    assert!(net.replies().pop().is_some_and(|(tag, reply)| tag == 20 && reply.starts_with("20#")));
}

#[test]
fn r38_its_caller_learns_that_it_was_skipped_and_its_neighbours_are_executed() {
    let mut net = Net::durable_replicas(grid(2, 2));
    net.lose(|_, to| matches!(to, To::Gateway(_, ToGateway::Halted(_))));
    for (tag, command) in [(0, "a"), (1, "panic"), (2, "b"), (3, "panic 3"), (4, "c")] {
        net.submit(tag, command); // one batch
    }
    net.tick();
    for expected in [1, 3] {
        net.run_for(millis(1000));
        let command = command(&net);
        assert_eq!(command.at.index, expected);
        net.skip(command);
    }
    net.run_for(millis(3000));
    let replies = net.replies();
    let told: Vec<_> = replies.iter().map(|(tag, reply)| (*tag, reply.as_str())).collect();
    assert_eq!(told, [(0, "a#1"), (1, "Skipped"), (2, "b#2"), (3, "Skipped"), (4, "c#3")]);
    assert_equal(&net);
}

/// A cluster whose replicas have halted at the first slot of a window that is full.
fn halted_without_credit() -> Net {
    let settings = Settings { batch_commands_max: 1, batches_in_flight_max: 32, ..small() };
    let mut net = Net::durable_replicas(settings);
    // Gateways that are told of a halt take nothing more in.
    net.lose(|_, to| matches!(to, To::Gateway(_, ToGateway::Halted(_))));
    net.submit(0, "panic");
    net.tick();
    (1..20).for_each(|tag| net.write(tag));
    net.run_for(millis(3000));
    net.lose(|_, _| false);
    assert_eq!(halts(&net), 3, "each comes to it");
    let (executed, next) = (net.replica(0).executed(), net.proposer(0).next_slot());
    let end = Slot(executed.0 + u64::from(net.cluster.slot_window));
    assert_eq!(next, Some(end), "the window is full");
    net
}

#[test]
fn r38_a_skip_needs_no_credit() {
    let mut net = halted_without_credit();
    let command = command(&net);
    // Another leader, which has found a window full of slots.
    net.stop(RoleId::Proposer(ProposerId(0)));
    net.run_for(Duration::from_secs(20));
    net.skip(command);
    net.run_for(Duration::from_secs(20));
    assert_eq!(halts(&net), 0, "{:?}", net.events);
    assert_equal(&net);
}

/// A skip beyond the credit that a window gives, which only acceptors know of when its leader ends.
#[test]
fn r38_a_recovered_skip_needs_no_credit_either() {
    let mut net = halted_without_credit();
    let command = command(&net);
    net.lose(|_, to| matches!(to, To::Replica(_, ToReplica::Chosen(_) | ToReplica::Replayed(_))));
    net.skip(command);
    net.stop(RoleId::Proposer(ProposerId(0)));
    net.lose(|_, to| matches!(to, To::Replica(_, ToReplica::Replayed(_))));
    net.run_for(Duration::from_secs(20));
    assert_eq!(halts(&net), 0, "{:?}", net.events);
    assert_equal(&net);
}

#[test]
fn r38_a_skip_that_was_lost_is_asked_for_again() {
    let mut net = halted();
    let command = command(&net);
    net.lose(|_, to| matches!(to, To::ProxyLeader(_, ToProxyLeader::P2a(_))));
    net.skip(command);
    net.lose(|_, _| false);
    (0..3).for_each(|_| net.skip(command));
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 0, "{:?}", net.events);
    let slots: BTreeSet<Slot> = net.sent.iter().filter_map(|(_, to)| skip_slot(to)).collect();
    assert_eq!(slots.len(), 1, "one slot is enough: {slots:?}");
}

#[test]
fn r38_nothing_is_skipped_that_a_replica_may_have_executed() {
    let mut net = halted();
    let command = command(&net);
    let LoggedCommand { at: Position { slot, index }, checksum } = command;
    for other in [
        LoggedCommand { checksum: checksum ^ 1, ..command },
        LoggedCommand { at: Position { slot, index: index + 1 }, ..command },
        LoggedCommand { at: Position { slot: slot.next(), index }, ..command },
    ] {
        net.skip(other);
    }
    net.stop(RoleId::Replica(ReplicaId(2)));
    net.run_for(millis(3000));
    net.skip(command);
    net.run_for(millis(3000));
    let is_skip = |_, to: &To| skip_slot(to).is_some();
    assert_eq!(net.count(is_skip), 0, "one replica is not heard");
    net.start(RoleId::Replica(ReplicaId(2)));
    net.run_for(millis(3000));
    net.skip(command);
    net.run_for(millis(3000));
    assert_eq!((net.count(is_skip), halts(&net)), (1, 0));
}

#[test]
fn r38_what_was_skipped_is_skipped_on_replay_too() {
    let mut net = halted();
    net.skip(command(&net));
    net.run_for(millis(3000));
    (11..14).for_each(|tag| net.write(tag));
    net.events.clear();
    for id in (0..3).map(|id| RoleId::Replica(ReplicaId(id))) {
        net.stop(id);
    }
    (0..3).for_each(|id| net.start(RoleId::Replica(ReplicaId(id))));
    net.run_for(millis(5000));
    assert!(
        net.events.iter().all(|event| !matches!(event, Event::Halted { .. })),
        "{:?}",
        net.events
    );
    assert_equal(&net);
    net.write(20);
    assert!(net.replies().pop().is_some_and(|(_, reply)| reply.starts_with("20#14")));
}

#[test]
fn r38_a_disk_that_cannot_note_it_is_asked_again() {
    let mut net = halted();
    net.directory(1).is_full = true;
    net.skip(command(&net));
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 1);
    net.directory(1).is_full = false;
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 0);
    assert_equal(&net);
}

/// Tells a replica that a command which it has executed is skipped.
fn skip_executed(net: &mut Net, id: u8) -> LoggedCommand {
    let replica = net.replica(id);
    let slot = Slot(replica.executed().0 - 1);
    let command = LoggedCommand { at: Position { slot, index: 0 }, checksum: 7 };
    let told = chosen(replica.executed().first_open(), BatchWriter::skip(command));
    let now = net.now;
    net.step(RoleId::Replica(ReplicaId(id)), |role, out| {
        let loggos_protocol::Role::Replica(replica) = role else { unreachable!("by its id") };
        replica.on_chosen(told, now, out);
    });
    command
}

#[test]
fn r38_a_replica_that_has_executed_it_starts_over_if_its_snapshots_are_older() {
    let mut net = Net::durable_replicas(grid(2, 2));
    (0..5).for_each(|tag| net.write(tag));
    let command = skip_executed(&mut net, 1);
    assert_eq!(net.replica(1).halted(), Some(&Halt::Executed { command }));
    assert!(net.replica(1).is_to_start_over());
}

#[test]
fn r38_a_replica_that_has_it_in_a_snapshot_stops() {
    let settings = Settings { checkpoint_interval: 1, ..grid(2, 2) };
    let mut net = Net::durable_replicas(settings);
    (0..5).for_each(|tag| net.write(tag));
    net.run_for(millis(3000));
    assert!(net.replica(1).snapshot() == net.replica(1).executed(), "all is in a snapshot");
    let command = skip_executed(&mut net, 1);
    assert_eq!(net.replica(1).halted(), Some(&Halt::Executed { command }));
    net.run_for(millis(3000));
    assert!(!net.replica(1).is_to_start_over(), "it would come back with what is in the snapshot");
    let text = net.replica(1).halted().map(ToString::to_string).unwrap_or_default();
    assert!(text.contains("must be restored from a replica that has skipped it"), "{text}");
}

#[test]
fn r38_a_snapshot_tells_what_was_skipped() {
    let settings = Settings { gateways: 2, checkpoint_interval: 1, ..grid(2, 2) };
    let mut net = Net::durable_replicas(settings);
    net.submit(0, "panic");
    net.tick();
    net.run_for(millis(1000));
    let command = command(&net);
    net.skip(command);
    net.run_for(millis(3000));
    (1..20).for_each(|tag| net.write(tag));
    net.run_for(millis(3000));
    let id = RoleId::Replica(ReplicaId(2));
    net.stop(id);
    net.start(id);
    net.run_for(millis(3000));
    assert!(net.replica(2).counters().restored > 0, "it starts from its snapshot");
    let told = chosen(net.replica(2).executed().first_open(), BatchWriter::skip(command));
    let now = net.now;
    net.step(id, |role, out| {
        let loggos_protocol::Role::Replica(replica) = role else { unreachable!("by its id") };
        replica.on_chosen(told, now, out);
    });
    assert_eq!(net.replica(2).halted(), None, "it knows that it has skipped it");
}

#[test]
fn r38_a_replica_in_memory_has_nothing_to_go_back_to() {
    let mut net = Net::new(grid(2, 2));
    net.submit(0, "panic");
    net.tick();
    net.run_for(millis(1000));
    net.skip(command(&net));
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 3);
    assert!(!net.replicas().any(Replica::is_to_start_over), "its state is that of no slot");
}

/// A leader that was cut off from acceptors long ago, and hears replicas.
#[test]
fn r38_a_leader_that_was_deposed_skips_nothing() {
    let mut net = Net::durable_replicas(Settings { gateways: 2, ..grid(2, 2) });
    net.write(0);
    let is_old = |role: RoleId| role == RoleId::Proposer(ProposerId(0));
    let is_voter =
        |role| matches!(role, RoleId::Acceptor(_) | RoleId::Proposer(_) | RoleId::Gateway(_));
    net.lose(move |from, to| {
        let to = to.role();
        is_old(from) && is_voter(to) || is_voter(from) && is_old(to)
    });
    net.run_for(Duration::from_secs(20));
    assert!(net.proposer(0).is_leading() && net.proposer(1).is_leading(), "both, as they see it");
    (1..30).for_each(|tag| net.write(tag));
    net.submit(30, "panic");
    net.tick();
    net.run_for(millis(1000));
    let command = command(&net);
    net.skip(command);
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 0, "the other leader has it skipped");
    assert_equal(&net);
}

/// All replicas have executed and answered it, and halt at it when they come to it once more.
#[test]
fn r38_what_was_answered_before_all_replicas_started_again_is_not_skipped() {
    let mut net = Net::durable_replicas(grid(2, 2));
    (0..5).for_each(|tag| net.write(tag));
    let slot = net.replica(0).executed().0 - 3; // others have come after it
    let all = || (0..3).map(|id| RoleId::Replica(ReplicaId(id)));
    all().for_each(|id| net.stop(id));
    net.machine = || Echo::that_panics_at(b"2");
    all().for_each(|id| net.start(id));
    net.run_for(millis(5000));
    assert_eq!(halts(&net), 3, "{:?}", net.events);
    let command = command(&net);
    assert_eq!(command.at.slot, Slot(slot));
    net.events.clear();
    net.skip(command);
    net.run_for(millis(3000));
    assert_eq!(halts(&net), 3, "its caller was answered");
    let why = "it was executed before replicas were started again";
    assert_eq!(net.events, [Event::SkipRefused { command, why }]);
}

/// The skip is in the last slot that a full window leaves, and what says that it is chosen is lost.
#[test]
fn r38_a_replica_that_missed_the_skip_behind_a_full_window_gets_it_from_others() {
    let mut net = halted_without_credit();
    let command = command(&net);
    net.lose(|_, to| matches!(to, To::Replica(ReplicaId(2), ToReplica::Chosen(_))));
    net.skip(command);
    net.run_for(millis(3000));
    assert_eq!(net.replica(0).halted(), None);
    net.lose(|_, _| false);
    net.run_for(Duration::from_secs(20));
    assert_eq!(halts(&net), 0, "{:?}", net.events);
    assert_equal(&net);
}

/// Alone halted, and behind what others still hold: nobody waits for it.
#[test]
fn r28_a_replica_that_has_halted_asks_for_no_election() {
    let mut net = Net::new(small());
    net.lose(|_, to| matches!(to, To::Replica(ReplicaId(2), ToReplica::Chosen(_))));
    net.machine = || Echo::that_panics_at(b"3");
    net.stop(RoleId::Replica(ReplicaId(2)));
    net.start(RoleId::Replica(ReplicaId(2)));
    (0..5).for_each(|tag| net.write(tag));
    net.run_for(millis(1000));
    assert!(net.replica(2).halted().is_some(), "{:?}", net.events);
    net.lose(|_, to| {
        matches!(to, To::Replica(ReplicaId(2), ToReplica::Chosen(_) | ToReplica::Fetched(_)))
    });
    (5..100).for_each(|tag| net.write(tag));
    net.events.clear();
    net.run_for(Duration::from_secs(120));
    let elections = net.events.iter().filter(|it| matches!(it, Event::Elected { .. })).count();
    assert_eq!(elections, 0, "{:?}", net.events);
    assert!(net.gateway(0).halted(net.now).is_none());
}

/// A replica that was started again with a machine that does not panic there: that its former life
/// had halted, as the leader heard a moment ago, says nothing of it.
#[test]
fn r38_the_halt_of_a_former_life_does_not_count() {
    let mut net = Net::durable_replicas(grid(2, 2));
    let all = || (0..3).map(|id| RoleId::Replica(ReplicaId(id)));
    all().for_each(|id| net.stop(id));
    net.machine = || Echo::that_panics_at(b"9");
    all().for_each(|id| net.start(id));
    net.run_for(millis(1000));
    net.write(9);
    net.run_for(millis(1000));
    let command = command(&net);
    net.machine = Echo::default;
    net.stop(RoleId::Replica(ReplicaId(2)));
    net.start(RoleId::Replica(ReplicaId(2)));
    net.run_for(net.cluster.election_timeout / 2);
    assert_eq!(net.replica(2).halted(), None, "it will execute the command");
    net.events.clear();
    net.skip(command);
    let why = "not every replica has halted there, as far as is known here";
    assert_eq!(net.events, [Event::SkipRefused { command, why }]);
}
