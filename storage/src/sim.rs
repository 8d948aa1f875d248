//! A disk in memory that fails as disks do, on order or by a seed: the log's here, the snapshots'
//! in [`FaultySnapshotDisk`].
//!
//! ```text
//!   write_at ──▶ cached, pending          what a read sees; what a process that is killed leaves behind
//!   sync     ──▶ durable                  what a machine that loses power leaves behind, besides
//!                                         any part of what is pending
//! ```

mod snapshots;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};

use loggos_protocol::Rng;

pub use self::snapshots::FaultySnapshotDisk;
use crate::{Disk, FileId};

/// A disk that fails on order.
#[derive(Clone, Debug)]
pub struct FaultyDisk {
    files: BTreeMap<FileId, File>,
    rng: Rng,
    orders: Orders,
    /// The number of bytes of files that there may be.
    pub capacity_bytes: u64,
}

/// A fault of an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The process or machine stops before it, or half-way: nothing answers until
    /// [`FaultyDisk::kill`] or [`FaultyDisk::lose_power`].
    Crash,
    /// It fails, a write half-way. What a failed sync has not made durable, no later one will, and
    /// is not read any more: reads do not go through a cache.
    Error(ErrorKind),
    /// It is said to have been done: a write that goes nowhere, a sync that does nothing.
    Lie,
    /// A write goes to another file or place, where the next sync finds it, of whatever file; a
    /// sync is what it is.
    Misdirect(FileId, u64),
}

/// The faults that are ordered of a disk.
#[derive(Clone, Debug, Default)]
struct Orders {
    /// Operations so far: reads, writes, syncs, and each step of a creation.
    operations: u64,
    /// The faults, by operation.
    faults: BTreeMap<u64, Fault>,
    has_crashed: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Writes that no sync has reached, oldest first.
    pending: Vec<(usize, Vec<u8>)>,
    /// Whether its name is durable.
    is_named: bool,
}

impl Orders {
    /// Orders `fault` for the operation that `after` others precede.
    fn add(&mut self, after: u64, fault: Fault) {
        self.faults.insert(self.operations + after, fault);
    }

    /// Forgets them: another process uses the disk.
    fn clear(&mut self) {
        self.faults.clear();
        self.has_crashed = false;
    }

    /// Counts an operation; returns what is to go wrong in it.
    fn step(&mut self) -> io::Result<Option<Fault>> {
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        self.has_crashed |= fault == Some(Fault::Crash);
        if self.has_crashed && fault.is_none() { Err(crashed()) } else { Ok(fault) }
    }
}

impl FaultyDisk {
    /// Returns an empty disk; all that is random follows from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (files, orders) = (BTreeMap::new(), Orders::default());
        Self { files, rng: Rng::new(seed), orders, capacity_bytes: u64::MAX }
    }

    /// Orders `fault` for the operation that `after` others precede.
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

    /// The machine loses power: of what no sync has reached any part may be there, in any order; a
    /// write may be torn at any byte, or lack any of its sectors, of 512 bytes or of 4 KiB, where
    /// there is then what was there before, or zeros.
    pub fn lose_power(&mut self) {
        self.kill();
        let rng = &mut self.rng;
        self.files.retain(|_, file| file.is_named || rng.below(2) == 0);
        for file in self.files.values_mut() {
            file.is_named = true;
            let pending = std::mem::take(&mut file.pending);
            for (offset, bytes) in shuffled(pending, rng) {
                persist(&mut file.durable, offset, &bytes, rng);
            }
            file.cached.clone_from(&file.durable);
        }
    }

    /// Flips a bit, durably.
    pub fn flip(&mut self, file: FileId, bit: u64) {
        let file = self.files.get_mut(&file).expect("a file of this disk");
        let at = usize::try_from(bit / 8).expect("a place in memory");
        for bytes in [&mut file.durable, &mut file.cached] {
            bytes[at] ^= 1 << (bit % 8);
        }
    }

    /// Puts `bytes` where they do not belong, durably.
    pub fn overwrite(&mut self, file: FileId, offset: u64, bytes: &[u8]) {
        let file = self.files.get_mut(&file).expect("a file of this disk");
        let at = place(offset);
        for content in [&mut file.durable, &mut file.cached] {
            content[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Shortens a file, or makes it longer by zeros, durably.
    pub fn resize(&mut self, file: FileId, bytes: u64) {
        let file = self.files.get_mut(&file).expect("a file of this disk");
        for content in [&mut file.durable, &mut file.cached] {
            content.resize(place(bytes), 0);
        }
    }

    /// Takes a file away, durably.
    pub fn remove(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    /// The content of a file.
    #[must_use]
    pub fn content(&self, file: FileId) -> &[u8] {
        &self.files[&file].cached
    }

    fn file(&mut self, file: FileId) -> io::Result<&mut File> {
        self.files.get_mut(&file).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// Makes durable what is in a file.
    fn settle(&mut self, file: FileId) -> io::Result<()> {
        let file = self.file(file)?;
        for (offset, bytes) in file.pending.drain(..) {
            file.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (file, offset) = (self.file(file)?, place(offset));
        let end = offset + bytes.len();
        if end > file.cached.len() {
            return Err(ErrorKind::UnexpectedEof.into()); // the log writes in files that are long enough
        }
        file.cached[offset..end].copy_from_slice(bytes);
        file.pending.push((offset, bytes.to_vec()));
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn files(&mut self) -> io::Result<Vec<(FileId, u64)>> {
        let length = |file: &File| file.cached.len() as u64;
        Ok(self.files.iter().map(|(id, file)| (*id, length(file))).collect())
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if let Some(fault) = self.orders.step()? {
            return Err(error(fault));
        }
        let (file, offset) = (self.file(file)?, place(offset));
        let bytes = file.cached.get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.orders.step()? {
            None => self.write(file, offset, bytes),
            Some(Fault::Lie) => Ok(()),
            Some(Fault::Misdirect(file, offset)) => {
                self.write(file, offset, bytes)?;
                self.settle(file)
            }
            Some(fault @ (Fault::Crash | Fault::Error(_))) => {
                let written = self.rng.below(bytes.len() as u64 + 1);
                self.write(file, offset, &bytes[..place(written)])?;
                Err(error(fault))
            }
        }
    }

    fn sync(&mut self, id: FileId) -> io::Result<()> {
        let fault = self.orders.step()?;
        let Self { files, rng, .. } = self;
        let file = files.get_mut(&id).ok_or(ErrorKind::NotFound)?;
        match fault {
            Some(Fault::Lie) => Ok(()),
            Some(Fault::Crash) => Err(crashed()),
            Some(fault @ Fault::Error(_)) => {
                // What was not written by then is dropped, and the next sync knows of nothing to
                // do.
                for (offset, bytes) in file.pending.drain(..) {
                    persist(&mut file.durable, offset, &bytes, rng);
                }
                file.cached.clone_from(&file.durable);
                Err(error(fault))
            }
            Some(Fault::Misdirect(..)) | None => self.settle(id),
        }
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        match self.orders.step()? {
            None => self.files.values_mut().for_each(|file| file.is_named = true),
            Some(Fault::Lie) => {}
            Some(fault) => return Err(error(fault)),
        }
        Ok(())
    }

    fn create(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        let used: u64 = self.files.values().map(|file| file.cached.len() as u64).sum();
        if used.saturating_add(bytes) > self.capacity_bytes {
            return Err(ErrorKind::StorageFull.into());
        }
        let fault = self.orders.step()?;
        let there = if fault.is_some() { self.rng.below(bytes / 512) * 512 } else { bytes };
        let zeros = vec![0; place(there)];
        let made =
            File { durable: zeros.clone(), cached: zeros, pending: Vec::new(), is_named: false };
        self.files.insert(file, made);
        match fault {
            Some(fault) => Err(error(fault)),
            None => self.sync_directory(),
        }
    }
}

/// Writes some part of `bytes`.
fn persist(durable: &mut [u8], offset: usize, bytes: &[u8], rng: &mut Rng) {
    let zeros = rng.below(4) == 0;
    let sector = match rng.below(5) {
        0 => return,
        1 => bytes.len(),
        2 => {
            let torn = place(rng.below(bytes.len() as u64 + 1));
            return durable[offset..offset + torn].copy_from_slice(&bytes[..torn]);
        }
        3 => 512,
        _ => 4096,
    };
    for start in (0..bytes.len()).step_by(sector.max(1)) {
        let end = (start + sector).min(bytes.len());
        if sector == bytes.len() || rng.below(2) == 0 {
            durable[offset + start..offset + end].copy_from_slice(&bytes[start..end]);
        } else if zeros && rng.below(2) == 0 {
            durable[offset + start..offset + end].fill(0);
        }
    }
}

fn shuffled<T>(mut items: Vec<T>, rng: &mut Rng) -> Vec<T> {
    for last in (1..items.len()).rev() {
        items.swap(last, place(rng.below(last as u64 + 1)));
    }
    items
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a place in memory")
}

fn crashed() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "crashed")
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Error(kind) => kind.into(),
        Fault::Crash | Fault::Lie | Fault::Misdirect(..) => crashed(),
    }
}
