//! A durable replica's snapshots on a faulty disk.
//!
//! ```text
//!   orders ──▶ queue ·▶ carried out, one after the other ·▶ answers to the replica
//!
//!   ····▶  takes virtual time, and may be the last thing that the process does
//! ```
//!
//! The store is the real one; the driver does what the snapshot worker of a node does. The disk
//! outlives the process, and loses what was not synced when the machine stops.

use std::collections::VecDeque;
use std::io::ErrorKind;

use loggos_protocol::{
    DirectoryId, ReplicaDirectory, ReplicaId, Rng, SnapshotDone, SnapshotInfo, SnapshotOrder,
    Watermark,
};
use loggos_storage::sim::{Fault, FaultySnapshotDisk};
use loggos_storage::{SnapshotDisk, SnapshotError, SnapshotOwner, SnapshotStore};

/// A disk, and while its process is up, the snapshots on it.
#[derive(Debug)]
pub(crate) struct ReplicaStore {
    owner: SnapshotOwner,
    state: State,
    /// What the replica has ordered and is not carried out, oldest first.
    queue: VecDeque<SnapshotOrder>,
    /// Whether one of the next operations was ordered to fail.
    is_to_fail: bool,
}

#[derive(Debug)]
enum State {
    Closed(FaultySnapshotDisk),
    Open(SnapshotStore<FaultySnapshotDisk>),
    /// Between the two.
    Moving,
}

/// The outcome of a piece of work.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was carried out; the replica may wait for the answer.
    Done(Option<SnapshotDone>),
    /// The same, and the disk has failed.
    Failed(Option<SnapshotDone>),
    /// It was the last thing that the process did.
    Crashed,
}

impl ReplicaStore {
    /// Returns an empty directory of `replica`, just formatted; what is random follows from `rng`.
    pub(crate) fn new(replica: ReplicaId, rng: &mut Rng) -> Self {
        let directory = DirectoryId(rng.next_u64());
        Self {
            owner: SnapshotOwner { cluster: 1, directory, replica },
            state: State::Closed(FaultySnapshotDisk::new(rng.next_u64())),
            queue: VecDeque::new(),
            is_to_fail: false,
        }
    }

    /// Opens the directory for another life of the replica; returns what is there.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    pub(crate) fn start(&mut self) -> Result<ReplicaDirectory, SnapshotError> {
        self.close();
        let State::Closed(disk) = std::mem::replace(&mut self.state, State::Moving) else {
            unreachable!("it was just closed")
        };
        match SnapshotStore::open(disk.clone(), self.owner) {
            Ok((store, damaged)) => {
                let snapshots: Vec<SnapshotInfo> = store.stored().collect();
                let is_log = snapshots.iter().any(|info| !info.is_origin());
                let skips: Vec<_> = store.skips().collect();
                let is_used = is_log || !damaged.is_empty() || !skips.is_empty();
                self.state = State::Open(store);
                let directory = self.owner.directory;
                Ok(ReplicaDirectory { directory, snapshots, is_used, skips })
            }
            Err(error) => {
                self.state = State::Closed(disk);
                Err(error)
            }
        }
    }

    /// Puts a snapshot there, before its replica is started.
    pub(crate) fn restore(&mut self, orders: &[SnapshotOrder]) {
        self.start().expect("nothing is wrong with the disk yet");
        let State::Open(store) = &mut self.state else { unreachable!("it was just opened") };
        for order in orders {
            let carried_out = store.carry_out(order.clone());
            assert!(carried_out.error.is_none(), "nothing is wrong with the disk yet");
        }
        self.close();
    }

    /// Takes the replica's orders; returns whether the disk was idle, and has something to do now.
    pub(crate) fn take(&mut self, orders: &mut Vec<SnapshotOrder>) -> bool {
        let was_idle = self.queue.is_empty();
        self.queue.extend(orders.drain(..));
        was_idle && !self.queue.is_empty()
    }

    /// What the disk does next.
    pub(crate) fn next(&self) -> Option<&SnapshotOrder> {
        self.queue.front()
    }

    /// Carries the next order out.
    pub(crate) fn work(&mut self) -> Outcome {
        let State::Open(store) = &mut self.state else { unreachable!("work of a closed store") };
        let order = self.queue.pop_front().expect("there is something to do");
        let carried_out = store.carry_out(order);
        match carried_out.error {
            None => Outcome::Done(carried_out.done),
            Some(error) if error.kind() == ErrorKind::BrokenPipe => Outcome::Crashed,
            Some(error) => {
                let is_damage = error.kind() == ErrorKind::InvalidData;
                assert!(self.is_to_fail || is_damage, "nothing is wrong with the disk: {error}");
                Outcome::Failed(carried_out.done)
            }
        }
    }

    /// Has one of the next operations fail, or be the last.
    pub(crate) fn order(&mut self, after: u64, fault: Fault) {
        if let State::Open(store) = &mut self.state {
            self.is_to_fail = true;
            store.disk().order(after, fault);
        }
    }

    /// Whether one of its operations was ordered to fail.
    pub(crate) fn may_fail(&self) -> bool {
        self.is_to_fail
    }

    /// The process ends; and with it the machine, if it `loses_power`.
    pub(crate) fn crash(&mut self, loses_power: bool) {
        self.close();
        self.queue.clear();
        self.is_to_fail = false;
        if let State::Closed(disk) = &mut self.state {
            if loses_power { disk.lose_power() } else { disk.kill() }
        }
    }

    /// Flips a bit of a snapshot; returns whether there is one.
    pub(crate) fn damage(&mut self, rng: &mut Rng) -> bool {
        let State::Closed(disk) = &mut self.state else {
            unreachable!("the disk of a replica that is up is damaged")
        };
        let names = disk.names().expect("a disk in memory");
        let Some(name) =
            names.get(usize::try_from(rng.below(names.len().max(1) as u64)).unwrap_or(0))
        else {
            return false;
        };
        let bits = disk.content(name).map_or(0, |content| content.len() as u64 * 8);
        if bits > 0 {
            disk.flip(name, rng.below(bits));
        }
        bits > 0
    }

    /// Whether a loss of power now would leave a whole snapshot of everything below `mark`.
    pub(crate) fn holds(&self, mark: Watermark) -> bool {
        let mut disk = match &self.state {
            State::Closed(disk) => disk.clone(),
            State::Open(store) => store.clone_disk(),
            State::Moving => unreachable!("no method leaves it so"),
        };
        disk.lose_power();
        let Ok((mut store, _)) = SnapshotStore::open(disk, self.owner) else { return false };
        let infos: Vec<SnapshotInfo> = store.stored().filter(|info| info.id.at >= mark).collect();
        infos.iter().any(|info| (0..info.parts).all(|part| store.read(info.id, part).is_ok()))
    }

    fn close(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Moving) {
            State::Open(store) => State::Closed(store.into_disk()),
            closed @ (State::Closed(_) | State::Moving) => closed,
        };
    }
}
