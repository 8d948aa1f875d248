//! A disk of named files in memory that fails as disks do.
//!
//! ```text
//!   append ──▶ cached      what a read sees; what a process that is killed leaves behind
//!   sync   ──▶ durable     what a machine that loses power leaves behind, besides any part of the rest
//!   create, rename, remove ──▶ names ── sync_directory ──▶ durable names
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use loggos_protocol::Rng;

use super::{Fault, Orders, error, place};
use crate::SnapshotDisk;

/// A disk of named files that fails on order.
#[derive(Clone, Debug)]
pub struct FaultySnapshotDisk {
    files: BTreeMap<u64, File>,
    /// The file of each name.
    names: BTreeMap<String, u64>,
    /// The same, as it was last synced.
    durable_names: BTreeMap<String, u64>,
    /// Files made so far.
    made: u64,
    rng: Rng,
    orders: Orders,
    /// The number of bytes of files that there may be.
    pub capacity_bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct File {
    cached: Vec<u8>,
    /// So many bytes of it are durable.
    durable: usize,
    /// Whether a sync of it has failed: what was not durable then never will be.
    is_lost: bool,
}

impl FaultySnapshotDisk {
    /// Returns an empty disk; all that is random follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            made: 0,
            rng: Rng::new(seed),
            orders: Orders::default(),
            capacity_bytes: u64::MAX,
        }
    }

    /// Orders `fault` for the operation that `after` others precede. A misdirected write is one
    /// that is lost.
    pub fn order(&mut self, after: u64, fault: Fault) {
        self.orders.add(after, fault);
    }

    /// The number of operations that there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.orders.operations
    }

    /// The process is killed: what it wrote is kept by the operating system.
    pub fn kill(&mut self) {
        self.orders.clear();
    }

    /// The machine loses power: of what was written to a file since its last sync any part may be
    /// there, with zeros or garbage behind it; and of the names that changed since the last sync of
    /// the directory any may be as before.
    pub fn lose_power(&mut self) {
        self.kill();
        let Self { files, names, durable_names, rng, .. } = self;
        let changed: BTreeSet<String> = names.keys().chain(durable_names.keys()).cloned().collect();
        for name in changed {
            let (now, before) = (names.get(&name).copied(), durable_names.get(&name).copied());
            match if rng.below(2) == 0 { now } else { before } {
                Some(file) => names.insert(name, file),
                None => names.remove(&name),
            };
        }
        durable_names.clone_from(names);
        for file in files.values_mut() {
            let lost = file.cached.len() - file.durable;
            let kept = file.durable + place(rng.below(lost as u64 + 1));
            match rng.below(3) {
                0 => file.cached.truncate(kept),
                1 => file.cached[kept..].fill(0),
                _ => file.cached[kept..].iter_mut().for_each(|byte| *byte ^= 0x5A),
            }
            file.durable = file.cached.len();
        }
        self.forget_unnamed();
    }

    /// Flips a bit of a file, durably.
    pub fn flip(&mut self, name: &str, bit: u64) {
        let file = self.file(name).expect("a file of this disk");
        file.cached[place(bit / 8)] ^= 1 << (bit % 8);
    }

    /// Shortens a file, or makes it longer by zeros, durably.
    pub fn resize(&mut self, name: &str, bytes: u64) {
        let file = self.file(name).expect("a file of this disk");
        file.cached.resize(place(bytes), 0);
        file.durable = file.cached.len();
    }

    /// The content of a file, if there is one of that name.
    #[must_use]
    pub fn content(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files[self.names.get(name)?].cached)
    }

    /// Puts a file in place, durably.
    pub fn put(&mut self, name: &str, content: &[u8]) {
        self.made += 1;
        let (cached, durable) = (content.to_vec(), content.len());
        self.files.insert(self.made, File { cached, durable, is_lost: false });
        self.names.insert(name.to_owned(), self.made);
        self.durable_names.insert(name.to_owned(), self.made);
    }

    /// Counts an operation that does all or nothing; returns whether it is to be done.
    fn may(&mut self) -> io::Result<bool> {
        match self.orders.step()? {
            None => Ok(true),
            Some(Fault::Lie | Fault::Misdirect(..)) => Ok(false),
            Some(fault @ (Fault::Crash | Fault::Error(_))) => Err(error(fault)),
        }
    }

    /// Forgets the files that have no name any more, and will not have one after a loss of power.
    fn forget_unnamed(&mut self) {
        let Self { files, names, durable_names, .. } = self;
        files.retain(|id, _| names.values().chain(durable_names.values()).any(|it| it == id));
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        let id = self.names.get(name).ok_or(ErrorKind::NotFound)?;
        self.files.get_mut(id).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl SnapshotDisk for FaultySnapshotDisk {
    fn names(&mut self) -> io::Result<Vec<String>> {
        self.may()?;
        Ok(self.names.keys().cloned().collect())
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        self.may()?;
        Ok(self.file(name)?.cached.len() as u64)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        if self.may()? {
            self.made += 1;
            self.files.insert(self.made, File::default());
            self.names.insert(name.to_owned(), self.made);
        }
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let lengths = self.names.values().map(|id| self.files[id].cached.len() as u64);
        let used: u64 = lengths.sum();
        if used.saturating_add(bytes.len() as u64) > self.capacity_bytes {
            return Err(ErrorKind::StorageFull.into());
        }
        match self.orders.step()? {
            None => self.file(name)?.cached.extend(bytes),
            Some(Fault::Lie | Fault::Misdirect(..)) => {
                let file = self.file(name)?;
                file.cached.resize(file.cached.len() + bytes.len(), 0);
            }
            Some(fault @ (Fault::Crash | Fault::Error(_))) => {
                let written = place(self.rng.below(bytes.len() as u64 + 1));
                self.file(name)?.cached.extend(&bytes[..written]);
                return Err(error(fault));
            }
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        match self.may() {
            Ok(true) => {
                let file = self.file(name)?;
                if !file.is_lost {
                    file.durable = file.cached.len();
                }
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(error) => {
                self.file(name)?.is_lost = true;
                Err(error)
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        if self.may()? {
            let file = self.names.remove(from).ok_or(ErrorKind::NotFound)?;
            self.names.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        if self.may()? {
            self.durable_names.clone_from(&self.names);
            self.forget_unnamed();
        }
        Ok(())
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.may()?;
        let (file, offset) = (self.file(name)?, place(offset));
        let bytes = file.cached.get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        if self.may()? {
            self.names.remove(name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(())
    }
}
