//! R4: a cluster whose log starts from a snapshot of another's.

mod harness;

use harness::{B1, Net, REPLICA, batch, millis, small, worked};
use loggos_protocol::{
    AcceptorId, BatchWriter, Chosen, Content, Event, Payload, Role, RoleId, SessionId, Settings,
    Slot, SnapshotInfo, Time, Value, Watermark,
};

type Origin = (SnapshotInfo, Vec<Payload>);

/// A snapshot each 12 slots, in parts of a few commands.
fn settings() -> Settings {
    Settings { checkpoint_interval: 12, snapshot_part_bytes: 100, ..small() }
}

/// The newest snapshot of a replica of a cluster that has executed some commands.
fn backup(replica: u8) -> Origin {
    worked(Net::durable_replicas(settings()), 60).directory(replica).newest_as_origin()
}

/// The commands in a snapshot: slot 0 opens the session of the only gateway.
fn commands_in(origin: &Origin) -> usize {
    usize::try_from(origin.0.id.at.0 - 1).expect("few")
}

fn start_from(origin: &Origin) -> Net {
    Net::from_snapshots(settings(), &[0; 3].map(|_| Some(origin.clone())))
}

/// All replicas have what was in the snapshot, then a session, then so many commands.
fn assert_went_on(net: &Net, origin: &Origin, commands: usize) {
    for replica in net.replicas() {
        let executed = replica.executed().0 - origin.0.id.at.0;
        assert_eq!(executed, 1 + commands as u64, "{:?}", replica.id());
        let in_all = commands_in(origin) + commands;
        assert_eq!(replica.machine().executed.len(), in_all, "{:?}", replica.id());
    }
}

fn differ(net: &Net) -> bool {
    net.events.iter().any(|event| matches!(event, Event::OriginsDiffer { .. }))
}

#[test]
fn r04_replicas_with_one_snapshot_form_a_cluster_whose_log_starts_there() {
    let origin = backup(1);
    let mut net = start_from(&origin);
    assert!(net.proposer(0).is_leading(), "it has formed");
    let acceptors: Vec<AcceptorId> = net.cluster.quorums.acceptors().iter().collect();
    for acceptor in &acceptors {
        assert_eq!(net.acceptor(acceptor.0).truncated(), origin.0.id.at);
        net.stop(RoleId::Acceptor(*acceptor));
        net.start(RoleId::Acceptor(*acceptor));
        assert_eq!(net.acceptor(acceptor.0).truncated(), origin.0.id.at, "from its log");
    }
    let net = worked(net, 10);
    assert_eq!(net.replies().len(), 10);
    assert_went_on(&net, &origin, 10);
}

#[test]
fn r04_replicas_with_different_snapshots_form_no_cluster() {
    let [one, other] = [0, 1].map(backup);
    assert_ne!(one.0.id, other.0.id);
    for last in [Some(other), None] {
        let net = Net::from_snapshots(settings(), &[Some(one.clone()), Some(one.clone()), last]);
        assert_eq!(net.formation(), None);
        assert!(differ(&net), "and that is said");
    }
}

#[test]
fn r04_replicas_whose_snapshot_is_of_no_use_form_no_cluster() {
    let origin = backup(0);
    let mut damaged = origin.clone();
    damaged.1.pop();
    let is_said = |event: &Event| matches!(event, Event::SnapshotSetAside { .. });
    // Also where it is so with all of them: a cluster with nothing in it is not what was wanted.
    for origins in [[&origin, &origin, &damaged], [&damaged; 3]] {
        let net = Net::from_snapshots(settings(), &origins.map(|it| Some(it.clone())));
        assert_eq!(net.formation(), None);
        assert!(net.events.iter().any(is_said), "{:?}", net.events);
    }
}

/// Until the cluster has a snapshot of its own, that is all that a replica has.
#[test]
fn r04_a_replica_starts_from_that_snapshot_again_and_follows_no_log_that_does_not() {
    let (origin, other) = (backup(0), backup(1));
    let mut net = Net::from_snapshots(settings(), &[0; 3].map(|_| Some(origin.clone())));
    (0..3).for_each(|replica| net.directory(replica).is_full = true);
    let mut net = worked(net, 5);
    net.stop(REPLICA(2));
    net.start(REPLICA(2));
    net.run_for(millis(1000));
    assert_went_on(&net, &origin, 5);
    net.stop(REPLICA(2));
    net.wipe(2);
    net.directory(2).stored.insert(other.0.id, other.clone());
    net.start(REPLICA(2));
    let mut net = worked(net, 5);
    assert_eq!(net.replica(2).executed(), other.0.id.at, "the state of another log");
    assert!(net.replica(2).counters().foreign > 0);
    net.stop(REPLICA(2));
    assert_went_on(&net, &origin, 10);
}

#[test]
fn r04_the_first_snapshots_of_the_log_take_the_place_of_the_one_that_it_starts_from() {
    let origin = backup(0);
    let mut net = start_from(&origin);
    let start = origin.0.id.at.0;
    for replica in 0..3 {
        let stored: Vec<SnapshotInfo> =
            net.directory(replica).stored.values().map(|(info, _)| *info).collect();
        assert!(stored.iter().any(|info| !info.is_origin()), "one of its own, at once: {stored:?}");
    }
    // A replica with an empty directory has the state of a peer, and never that of no log.
    net.stop(REPLICA(1));
    net.wipe(1);
    net.start(REPLICA(1));
    net.run_for(millis(2000));
    assert!(net.replica(1).executed().0 >= start);
    let mut net = worked(net, 60);
    assert_went_on(&net, &origin, 60);
    for replica in 0..3 {
        let is_origin = |(info, _): &Origin| info.is_origin();
        assert!(!net.directory(replica).stored.values().any(is_origin), "{replica}");
    }
}

#[test]
fn r04_the_sessions_of_the_other_cluster_are_unknown() {
    let origin = backup(0);
    let mut net = start_from(&origin);
    let mut writer = BatchWriter::default();
    writer.push(b"from another cluster");
    let number = commands_in(&origin) as u64;
    let block = writer.close(SessionId { slot: Slot(0), index: 0 }, number, number);
    let batch = loggos_protocol::Batch { checksum: block.checksum(), block, ..batch(0) };
    let slot = net.replica(0).executed().first_open();
    let value = Value { stamp: Time(0), content: Content::Batch(batch.into()) };
    let now = net.now;
    let chosen = Chosen { slot, ballot: B1, value };
    net.step(REPLICA(0), |role, out| {
        let Role::Replica(replica) = role else { unreachable!("roles are kept by id") };
        replica.on_chosen(chosen, now, out);
    });
    let replica = net.replica(0);
    assert_eq!(replica.executed(), Watermark(slot.0 + 1));
    assert_eq!(replica.counters().refused_runs, 1, "it was not executed");
    assert_eq!(replica.machine().executed.len(), commands_in(&origin));
}
