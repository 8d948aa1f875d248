//! R16: durable replicas take snapshots, start from them, and get and give them by their disks.

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Net, REPLICA, START, heartbeat, millis, out_of, small, worked};
use loggos_protocol::{
    AcceptorId, Event, FormationId, Incarnation, LogRoom, Probe, ProposerId, Replica,
    ReplicaDirectory, ReplicaId, Role, RoleId, Settings, SnapshotId, SnapshotInfo, Stage, To,
    ToProposer, ToReplica, Watermark,
};

/// A snapshot each 12 slots, in parts of a few commands.
fn settings() -> Settings {
    Settings { checkpoint_interval: 12, snapshot_part_bytes: 100, ..small() }
}

fn cluster() -> Net {
    worked(Net::durable_replicas(settings()), 60)
}

fn assert_equal(net: &Net) {
    let mut replicas = net.replicas().map(|replica| (replica.executed(), replica.machine()));
    let first = replicas.next().expect("a replica is up");
    for other in replicas {
        assert_eq!(other.0, first.0, "one is behind");
        assert!(other.1.executed == first.1.executed, "equal watermarks, different states");
    }
}

/// The newest snapshot in the directory of a replica.
fn newest(net: &mut Net, replica: u8) -> SnapshotId {
    *net.directory(replica).stored.keys().next_back().expect("it has a snapshot")
}

fn stop_all(net: &mut Net) {
    let ids: Vec<RoleId> = net.roles.keys().copied().collect();
    ids.iter().for_each(|id| net.stop(*id));
}

/// Stops all roles at once, and starts them again.
fn restart_all(net: &mut Net) {
    let ids: Vec<RoleId> = net.roles.keys().copied().collect();
    stop_all(net);
    ids.iter().for_each(|id| net.start(*id));
    net.run_for(millis(3000));
}

#[test]
fn r16_each_replica_takes_snapshots_in_its_turn_and_keeps_two() {
    let mut net = cluster();
    let slots = [0, 1, 2].map(|replica| net.directory(replica).slots());
    for (replica, slots) in slots.iter().enumerate() {
        assert_eq!(slots.len(), 2, "replica {replica}: {slots:?}");
        assert!(slots[1] - slots[0] <= 13, "replica {replica}: {slots:?}");
    }
    assert!(slots[0][1] != slots[1][1] && slots[1][1] != slots[2][1], "all at once: {slots:?}");
}

#[test]
fn r16_acceptors_truncate_up_to_what_all_replicas_hold() {
    let mut net = cluster();
    let least = (0..3).map(|replica| newest(&mut net, replica).at).min().expect("three");
    for acceptor in 0..net.cluster.quorums.acceptors_count() {
        assert_eq!(net.acceptor(acceptor).truncated(), least);
    }
    assert!(least.0 + 13 > net.replica(0).executed().0, "{least} is old");
}

#[test]
fn r16_after_a_restart_of_all_replicas_go_on_from_their_snapshots() {
    let mut net = cluster();
    let before = net.replica(0).machine().clone();
    let newest = [0, 1, 2].map(|replica| newest(&mut net, replica));
    let executed = net.replica(0).executed();
    restart_all(&mut net);
    assert_equal(&net);
    assert_eq!(net.replica(0).machine().executed, before.executed);
    for (replica, newest) in (0..3).zip(newest) {
        let counters = net.replica(replica).counters();
        assert_eq!((counters.restored, counters.transfers), (1, 0), "replica {replica}");
        assert!(counters.slots <= 1 + executed.0 - newest.at.0 + 5, "it replays what is above");
    }
    net.write(1000);
    assert_equal(&net);
}

/// Peers hold no log then, but acceptors do: on slow disks they take a while to tell it.
#[test]
fn r16_after_a_restart_of_all_no_replica_gets_a_peers_snapshot_though_disks_are_slow() {
    let mut net = cluster();
    net.sync_takes(|_| millis(150));
    restart_all(&mut net);
    assert_equal(&net);
    let transfers = [0, 1, 2].map(|replica| net.replica(replica).counters().transfers);
    assert_eq!(transfers, [0; 3]);
}

#[test]
fn r16_a_replica_whose_directory_was_wiped_gets_a_peers_snapshot_and_then_the_log() {
    let mut net = cluster();
    net.stop(REPLICA(1));
    net.wipe(1);
    let mut net = worked(net, 60);
    let truncated = net.acceptor(0).truncated();
    net.start(REPLICA(1));
    let mut net = worked(net, 20);
    net.run_for(millis(3000));
    assert_equal(&net);
    let sent: Vec<To> = net.sent.iter().map(|(_, to)| to.clone()).collect();
    for (_, fetch) in harness::pick!(sent, Replica(ToReplica::FetchPart)) {
        let is_enough = fetch.beyond.0 + 1 >= truncated.0;
        assert!(is_enough, "a snapshot below {truncated} leaves a hole: {fetch:?}");
    }
    let counters = net.replica(1).counters();
    assert_eq!((counters.transfers, counters.restored), (1, 1));
    assert!(newest(&mut net, 1).at > Watermark(60), "it holds a snapshot again");
    assert_eq!(net.replica(1).snapshot(), newest(&mut net, 1).at);
}

/// Else all would write at once, and none would be quick.
#[test]
fn r16_snapshots_by_bytes_are_taken_in_turn_too() {
    let by_bytes = Settings { checkpoint_interval: 1 << 20, checkpoint_bytes: 600, ..settings() };
    let mut net = worked(Net::durable_replicas(by_bytes), 5);
    let mut taken: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); 3];
    for _ in 0..200 {
        net = worked(net, 1);
        for (replica, taken) in (0..).zip(&mut taken) {
            taken.extend(net.directory(replica).slots());
        }
    }
    for (one, other) in [(0, 1), (1, 2), (2, 0)] {
        let both: Vec<_> = taken[one].intersection(&taken[other]).collect();
        assert!(taken[one].len() > 4 && both.len() <= 1, "but for the first: {taken:?}");
    }
}

#[test]
fn r16_a_replica_comes_back_from_a_wipe_of_each_in_turn() {
    let mut net = cluster();
    for round in 0..6 {
        let replica = round % 3;
        net.stop(REPLICA(replica));
        net.wipe(replica);
        net = worked(net, 30);
        net.start(REPLICA(replica));
        net = worked(net, 30);
        net.run_for(millis(3000));
        assert_equal(&net);
    }
}

/// What is being written is no snapshot, and neither is what was never said to be durable.
#[test]
fn r16_a_snapshot_counts_when_it_is_durable_and_not_before() {
    let mut net = cluster();
    (0..3).for_each(|replica| net.directory(replica).hangs = true);
    let before = [0, 1, 2].map(|replica| net.replica(replica).snapshot());
    let truncated = net.acceptor(0).truncated();
    let mut net = worked(net, 40);
    for replica in 0..3 {
        assert_eq!(net.replica(replica).snapshot(), before[usize::from(replica)]);
        assert!(net.directory(replica).waiting_count() > 0, "nothing was ordered");
        assert!(net.directory(replica).waiting_count() <= 20, "the disk is given too much");
    }
    assert_eq!(net.acceptor(0).truncated(), truncated);
    (0..3).for_each(|replica| net.directory(replica).hangs = false);
    let net = worked(net, 20);
    assert!(net.replica(0).snapshot() > before[0]);
    assert!(net.acceptor(0).truncated() > truncated);
}

#[test]
fn r16_a_snapshot_that_fails_is_tried_again_ever_more_seldom() {
    let mut net = cluster();
    let before = net.replica(0).snapshot();
    net.directory(0).is_full = true;
    let mut net = worked(net, 200);
    let failed = net.replica(0).counters().snapshots_failed;
    assert!((1..=2).contains(&failed), "{failed} attempts in a second");
    net.run_for(Duration::from_secs(60));
    let later = net.replica(0).counters().snapshots_failed;
    assert!(later > failed && later < 10, "{later} attempts in a minute");
    assert_eq!(net.directory(0).slots().len(), 2, "the old ones stay");
    net.directory(0).is_full = false;
    net.run_for(Duration::from_secs(61));
    assert!(net.replica(0).snapshot() > before, "there is room again");
}

#[test]
fn r16_a_snapshot_that_cannot_be_read_is_set_aside_and_the_one_before_is_restored() {
    for damage in 0..2 {
        let mut net = cluster();
        let (damaged, executed) = (newest(&mut net, 0), net.replica(0).executed());
        match damage {
            0 => net.directory(0).damage(damaged),
            _ => net.directory(0).change(damaged),
        }
        net.stop(REPLICA(0));
        net.start(REPLICA(0));
        net.run_for(millis(2000));
        let is_it = |event: &Event| matches!(event, Event::SnapshotSetAside { snapshot, .. } if *snapshot == damaged);
        assert!(net.events.iter().any(is_it), "{:?}", net.events);
        assert_eq!(net.directory(0).set_aside, [damaged]);
        assert_eq!(net.replica(0).executed(), executed);
        assert_equal(&net);
    }
}

#[test]
fn r16_without_any_snapshot_that_can_be_read_a_peers_is_fetched() {
    let mut net = cluster();
    for id in net.directory(0).stored.keys().copied().collect::<Vec<_>>() {
        net.directory(0).damage(id);
    }
    net.stop(REPLICA(0));
    net.start(REPLICA(0));
    net.run_for(millis(3000));
    assert_equal(&net);
    assert_eq!(net.replica(0).counters().transfers, 1);
    assert_eq!(net.directory(0).set_aside.len(), 2);
}

/// Loses a part of each snapshot of a replica.
fn damage_all(net: &mut Net, replica: u8) {
    let files = net.directory(replica);
    let ids: Vec<SnapshotId> = files.stored.keys().copied().collect();
    ids.into_iter().for_each(|id| files.damage(id));
}

/// A peer that gets a snapshot finds out that it is damaged: it is set aside, and another is taken.
#[test]
fn r16_a_donor_whose_snapshot_cannot_be_read_takes_another() {
    let mut net = cluster();
    net.stop(REPLICA(2));
    net.wipe(2);
    (0..2).for_each(|donor| damage_all(&mut net, donor));
    net.start(REPLICA(2));
    net.run_for(millis(10_000));
    assert_equal(&net);
    let set_aside = (0..2).map(|donor| net.directory(donor).set_aside.len()).sum::<usize>();
    assert!(set_aside > 0, "none was found to be damaged");
    let donors: Vec<u8> =
        (0..2).filter(|donor| !net.directory(*donor).set_aside.is_empty()).collect();
    for donor in donors {
        assert!(net.replica(donor).snapshot() > Watermark(0), "it holds one that can be read");
    }
}

/// A peer that waited for a donor whose disk is full would wait for ever.
#[test]
fn r16_a_donor_that_can_take_no_snapshot_is_left_for_another() {
    let mut net = cluster();
    net.stop(REPLICA(2));
    net.wipe(2);
    (0..2).for_each(|donor| damage_all(&mut net, donor));
    net.directory(0).is_full = true;
    net.start(REPLICA(2));
    net.run_for(millis(20_000));
    assert_eq!(net.replica(0).snapshot(), Watermark(0), "it has none that can be read");
    assert_equal(&net);
    assert!(net.replica(2).snapshot() > Watermark(0), "the other one has brought it up");
}

/// While a peer gets a snapshot it stays, though two newer ones are there; then it goes.
#[test]
fn r16_a_snapshot_that_a_peer_gets_is_kept_meanwhile() {
    let slow = Settings { transfer_bytes_per_second_max: 300, ..settings() };
    let mut net = worked(Net::durable_replicas(slow), 60);
    net.stop(REPLICA(2));
    net.wipe(2);
    net.start(REPLICA(2));
    let mut most = 0;
    for _ in 0..60 {
        net = worked(net, 10);
        most = most.max(net.directory(0).slots().len()).max(net.directory(1).slots().len());
    }
    assert_eq!(most, 3, "two, and the one that is lent");
    net.run_for(Duration::from_secs(60));
    net = worked(net, 30);
    assert_equal(&net);
    assert_eq!(net.replica(2).counters().transfers_abandoned, 0, "the first transfer succeeded");
    net.run_for(Duration::from_secs(10));
    for replica in 0..3 {
        assert_eq!(net.directory(replica).slots().len(), 2);
    }
}

/// A log that is low takes nothing new: replicas take snapshots at once, whatever the interval.
#[test]
fn r16_replicas_take_snapshots_when_acceptors_need_room() {
    let rare = Settings { checkpoint_interval: 1 << 20, ..settings() };
    let mut net = worked(Net::durable_replicas(rare), 40);
    assert!(net.acceptor(0).truncated() <= Watermark(3), "the first snapshot was taken at once");
    for acceptor in 0..net.cluster.quorums.acceptors_count() {
        net.step(RoleId::Acceptor(AcceptorId(acceptor)), |role, _| {
            if let Role::Acceptor(acceptor) = role {
                acceptor.set_room(LogRoom::Low);
            }
        });
    }
    net.submit(1000, "waits for room");
    net.tick();
    net.run_for(millis(1000));
    assert!(net.acceptor(0).truncated() > Watermark(30), "{}", net.acceptor(0).truncated());
}

#[test]
fn r16_the_bytes_of_batches_call_for_a_snapshot_too() {
    let rare = Settings { checkpoint_interval: 1 << 20, checkpoint_bytes: 400, ..settings() };
    let net = worked(Net::durable_replicas(rare), 60);
    assert!(net.replica(0).snapshot() > Watermark(40), "{}", net.replica(0).snapshot());
}

fn replica(found: ReplicaDirectory) -> Replica<harness::Echo> {
    let cluster = harness::checked(settings());
    Replica::durable(cluster, ReplicaId(0), Incarnation(9), harness::Echo::default(), found)
}

/// What replica 0 answers when it is asked whether it is blank.
fn says_blank(found: ReplicaDirectory) -> bool {
    let mut replica = replica(found);
    let probe = Probe { proposer: ProposerId(0), nonce: 1, cluster_digest: 0 };
    let out = out_of(|out| replica.on_probe(probe, out));
    let acks = harness::pick!(out.sends, Proposer(ToProposer::ProbeAck));
    assert_eq!(acks[0].1.directory.0, 77, "the directory's id, not the life's");
    acks[0].1.is_blank
}

fn info(formation: FormationId) -> SnapshotInfo {
    let id = SnapshotId { at: Watermark(7), replica: ReplicaId(0), incarnation: Incarnation(3) };
    SnapshotInfo { id, formation, parts: 1, bytes: 1, digest: 1, state_hash: 1 }
}

#[test]
fn r04_a_directory_with_anything_in_it_is_not_blank() {
    let directory = loggos_protocol::DirectoryId(77);
    let empty =
        ReplicaDirectory { directory, snapshots: Vec::new(), is_used: false, skips: Vec::new() };
    assert!(says_blank(empty.clone()));
    assert!(!says_blank(ReplicaDirectory { is_used: true, ..empty.clone() }), "a damaged one");
    let snapshots = vec![info(FormationId(5))];
    assert!(!says_blank(ReplicaDirectory { snapshots, is_used: true, ..empty }));
}

#[test]
fn r04_a_replica_with_a_snapshot_joins_no_other_formation() {
    let cluster = harness::checked(settings());
    let heard = heartbeat(&cluster, harness::B1, Stage::Leading);
    let (ours, other) = (heard.table.id(), FormationId(5));
    for (formation, joins) in [(ours, true), (other, false)] {
        let directory = loggos_protocol::DirectoryId(77);
        let snapshots = vec![info(formation)];
        let mut replica =
            replica(ReplicaDirectory { directory, snapshots, is_used: true, skips: Vec::new() });
        out_of(|out| replica.on_heartbeat(&heard, START, out));
        assert_eq!(replica.formation().is_some(), joins);
    }
}
