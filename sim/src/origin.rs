//! The snapshot that some clusters start from: of another cluster, in which gateways had opened
//! sessions and nothing else had happened.

use std::sync::Arc;

use loggos_protocol::{
    Ballot, Batch, BatchId, BatchWriter, Chosen, ClusterSettings, Content, DirectoryId,
    FormationId, GatewayId, Heartbeat, Incarnation, Outbox, Replica, ReplicaDirectory, ReplicaId,
    Rng, Slot, SnapshotDone, SnapshotOrder, Stage, Table, Time, Value, Watermark,
};

use crate::recorder::Recorder;

/// Returns the orders that write a snapshot of everything below `at`, which is at most one window.
///
/// They are those of a replica that is told of a session and of no-ops; its driver is here.
pub(crate) fn orders(
    cluster: &ClusterSettings,
    at: Watermark,
    rng: &mut Rng,
) -> Vec<SnapshotOrder> {
    let directory = DirectoryId(rng.next_u64());
    let found =
        ReplicaDirectory { directory, snapshots: Vec::new(), is_used: false, skips: Vec::new() };
    let (id, life) = (ReplicaId(0), Incarnation(rng.next_u64()));
    let mut replica = Replica::durable(cluster.clone(), id, life, Recorder::default(), found);
    let (mut now, mut out) = (Time(0), Outbox::default());
    replica.on_heartbeat(&heartbeat(cluster), now, &mut out);
    // From the last to the first, so that all are executed at once: the first snapshot is taken
    // then.
    for slot in (0..at.0).rev().map(Slot) {
        let chosen = Chosen { slot, ballot: Ballot::default(), value: value(slot) };
        replica.on_chosen(chosen, now, &mut out);
    }
    let mut orders = Vec::new();
    while !matches!(orders.last(), Some(SnapshotOrder::Finish(_))) {
        now = replica.timers().next_at().expect("a snapshot is being written");
        replica.on_time(now, &mut out);
        for order in out.snapshots.drain(..) {
            if let SnapshotOrder::Part { id, .. } = &order {
                replica.on_snapshot_done(SnapshotDone::Written(*id), now, &mut Outbox::default());
            }
            orders.push(order);
        }
    }
    orders.iter_mut().for_each(|order| match order {
        SnapshotOrder::Begin { formation, .. } => *formation = FormationId::NONE,
        SnapshotOrder::Finish(info) => *info = info.as_origin(),
        SnapshotOrder::Part { .. }
        | SnapshotOrder::Abandon(_)
        | SnapshotOrder::Remove(_)
        | SnapshotOrder::SetAside(_)
        | SnapshotOrder::Skip(_)
        | SnapshotOrder::Read { .. } => {}
    });
    orders
}

fn heartbeat(cluster: &ClusterSettings) -> Heartbeat {
    let directories = cluster.quorums.acceptors().iter().map(|id| DirectoryId(id.0.into()));
    let table = Arc::new(Table::new(cluster.digest(), directories.collect()));
    let (ballot, chosen, no_room) = Default::default();
    Heartbeat { ballot, stage: Stage::Leading, chosen, no_room, is_silent: false, table }
}

fn value(slot: Slot) -> Value {
    let stamp = Time(0);
    if slot != Slot(0) {
        return Value::noop(stamp);
    }
    let (gateway, incarnation) = (GatewayId(0), Incarnation(1));
    let block = BatchWriter::open(gateway, incarnation);
    let batch = Batch {
        id: BatchId { gateway, incarnation, number: 0 },
        attempt: 0,
        answerer: ReplicaId(0),
        commands_count: 0,
        checksum: block.checksum(),
        block,
    };
    Value { stamp, content: Content::Batch(Arc::new(batch)) }
}
