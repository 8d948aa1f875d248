//! The directory of a durable replica, on a disk that does at once what it is told.

use std::collections::BTreeMap;

use loggos_protocol::{
    DirectoryId, LoggedCommand, Payload, ReplicaDirectory, SnapshotDone, SnapshotId, SnapshotInfo,
    SnapshotOrder,
};

/// A directory of snapshots.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotFiles {
    pub(crate) directory: u64,
    pub(crate) stored: BTreeMap<SnapshotId, (SnapshotInfo, Vec<Payload>)>,
    pub(crate) set_aside: Vec<SnapshotId>,
    pub(crate) skips: Vec<LoggedCommand>,
    writing: BTreeMap<SnapshotId, Vec<Payload>>,
    /// Whether nothing can be written.
    pub(crate) is_full: bool,
    /// Whether orders wait.
    pub(crate) hangs: bool,
    waiting: Vec<SnapshotOrder>,
}

impl SnapshotFiles {
    /// Returns an empty directory.
    pub(crate) fn new(directory: u64) -> Self {
        Self { directory, ..Self::default() }
    }

    /// What the next life finds: what was being written is gone.
    pub(crate) fn find(&mut self) -> ReplicaDirectory {
        self.writing.clear();
        self.waiting.clear();
        let snapshots: Vec<SnapshotInfo> = self.stored.values().map(|(info, _)| *info).collect();
        let is_log = snapshots.iter().any(|info| !info.is_origin());
        let is_used = is_log || !self.set_aside.is_empty() || !self.skips.is_empty();
        let (directory, skips) = (DirectoryId(self.directory), self.skips.clone());
        ReplicaDirectory { directory, snapshots, is_used, skips }
    }

    /// Takes orders in; returns the answers to all that do not wait.
    pub(crate) fn take(&mut self, orders: &mut Vec<SnapshotOrder>) -> Vec<SnapshotDone> {
        self.waiting.append(orders);
        if self.hangs {
            return Vec::new();
        }
        let orders = std::mem::take(&mut self.waiting);
        orders.into_iter().filter_map(|order| self.carry_out(order)).collect()
    }

    /// How many orders wait.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    fn carry_out(&mut self, order: SnapshotOrder) -> Option<SnapshotDone> {
        match order {
            SnapshotOrder::Begin { id, .. } if self.is_full => {
                self.writing.remove(&id);
                Some(SnapshotDone::Failed(id))
            }
            SnapshotOrder::Begin { id, .. } => {
                self.writing.insert(id, Vec::new());
                None
            }
            SnapshotOrder::Part { id, bytes } => {
                self.writing.get_mut(&id)?.push(bytes);
                Some(SnapshotDone::Written(id))
            }
            SnapshotOrder::Finish(info) => {
                let parts = self.writing.remove(&info.id)?;
                assert_eq!(parts.len(), info.parts as usize, "parts of {}", info.id);
                self.stored.insert(info.id, (info, parts));
                Some(SnapshotDone::Finished(info.id))
            }
            SnapshotOrder::Abandon(id) => {
                self.writing.remove(&id);
                None
            }
            SnapshotOrder::Remove(id) => {
                self.stored.remove(&id);
                None
            }
            SnapshotOrder::SetAside(id) => {
                self.stored.remove(&id);
                self.set_aside.push(id);
                None
            }
            SnapshotOrder::Skip(command) => {
                let is_durable = !self.is_full;
                self.skips.extend(is_durable.then_some(command));
                Some(SnapshotDone::Noted { command, is_durable })
            }
            SnapshotOrder::Read { snapshot, part } => {
                let parts = self.stored.get(&snapshot).map(|(_, parts)| parts);
                let bytes = parts.and_then(|parts| parts.get(part as usize)).cloned();
                Some(SnapshotDone::Read { snapshot, part, bytes })
            }
        }
    }

    /// The newest snapshot that is stored, as one that a log is to start from.
    pub(crate) fn newest_as_origin(&self) -> (SnapshotInfo, Vec<Payload>) {
        let (_, (info, parts)) = self.stored.last_key_value().expect("there is one");
        (info.as_origin(), parts.clone())
    }

    /// The slots of the snapshots that are stored.
    pub(crate) fn slots(&self) -> Vec<u64> {
        self.stored.keys().map(|id| id.at.0).collect()
    }

    /// Loses a part of a stored snapshot.
    pub(crate) fn damage(&mut self, id: SnapshotId) {
        let (_, parts) = self.stored.get_mut(&id).expect("it is stored");
        parts.pop();
    }

    /// Changes what is in the last part of a stored snapshot, which its own sum does not tell.
    pub(crate) fn change(&mut self, id: SnapshotId) {
        let (_, parts) = self.stored.get_mut(&id).expect("it is stored");
        let last = parts.last_mut().expect("it has a part");
        let mut bytes = last.as_slice().to_vec();
        if let Some(byte) = bytes.last_mut() {
            *byte ^= 1;
        }
        *last = Payload::copy(&bytes);
    }
}
