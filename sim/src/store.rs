//! An acceptor's log on a faulty disk.
//!
//! ```text
//!   records, held ──▶ SharedLog ── gather ──▶ Write ·▶ disk.write_at
//!                                                          ·
//!   released ◀── durable ◀── on_synced ◀·············· disk.sync
//!
//!   ····▶  takes virtual time, and may be the last thing the process or the machine does
//! ```
//!
//! The log, its recovery, the records and what waits for them are the real ones; the driver does
//! the I/O that the ring and the log worker of a node do, one write and sync at a time. The disk
//! outlives the process, and the log may outlive its acceptor. It loses what was not synced when
//! the machine stops, in whole or in part and in any order, fails operations on order, and is
//! damaged while no process uses it.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, ClusterSettings, DirectoryId, Envelope, Outbox,
    Recalled, Rng, Slot, To, Vote, Watermark,
};
use loggos_storage::sim::{Fault, FaultyDisk};
use loggos_storage::{
    BLOCK_BYTES, Bounds, Buffer, Disk, FileId, Identity, Options, Poison, ReadRequest, SharedLog,
    StorageError, VotePlace, Write, format, recover,
};

use crate::swarm::DiskPlan;

/// A disk, and while its process is up, the log on it.
#[derive(Debug)]
pub(crate) struct Store {
    disk: FaultyDisk,
    identity: Identity,
    options: Options,
    bounds: Bounds,
    page_bytes_max: usize,
    /// Whether one of the next operations was ordered to fail. A log that fails without has a bug.
    is_to_fail: bool,
    running: Option<Running>,
}

/// What is lost with the process.
#[derive(Debug)]
struct Running {
    shared: SharedLog,
    /// Votes that are being read, by number.
    reads: BTreeMap<u64, ReadRequest>,
    reads_count: u64,
    /// What is being written, or synced.
    write: Option<Write>,
    /// Whether the log has been idle for a while, and is to have a mark.
    is_mark_due: bool,
}

/// An acceptor that has come back, and its votes.
pub(crate) type Restored = (Acceptor, Vec<(Slot, Ballot)>);

/// The next work of the disk, in its own time.
#[derive(Clone, Debug, Hash)]
pub(crate) enum Work {
    /// Writes what was gathered.
    Write,
    /// Syncs what was written.
    Sync,
    /// Makes a file.
    Create(FileId),
    /// Sees whether there is room for more files by now.
    TryAgain,
    /// Writes a mark, if nothing else is to be written.
    Mark,
    /// Reads votes back, asked for under this number.
    Read(u64),
}

/// The result of that work.
#[derive(Debug)]
pub(crate) enum Done {
    /// Nothing to tell.
    Nothing,
    /// What acceptors may say now, and how many records of each are durable, if more are than
    /// before.
    Synced(Vec<(AcceptorId, Envelope)>, BTreeMap<AcceptorId, u64>),
    /// Votes.
    Read(Recalled),
    /// It has failed, for good, or was the last thing that the machine did: the acceptor stops.
    Failed,
}

impl Store {
    /// Returns a disk as `plan` has it that has just been formatted for `acceptors`; what is random
    /// follows from `rng`.
    pub(crate) fn new(
        cluster: &ClusterSettings,
        acceptors: AcceptorSet,
        plan: &DiskPlan,
        rng: &mut Rng,
    ) -> Self {
        let identity = Identity {
            cluster: 1,
            directory: DirectoryId(rng.next_u64()),
            quorums: cluster.digest(),
            acceptors,
        };
        let mut disk = FaultyDisk::new(rng.next_u64());
        format(&mut disk, &identity, &plan.options).expect("nothing is wrong with the disk yet");
        let (options, bounds) = (plan.options, plan.bounds);
        let page_bytes_max = cluster.page_bytes_max as usize;
        let mut store = Self {
            disk,
            identity,
            options,
            bounds,
            page_bytes_max,
            is_to_fail: false,
            running: None,
        };
        store.set_capacity(plan.capacity_segments);
        store
    }

    /// Comes back to the log, if it is not in use: the acceptor that it makes, and its votes.
    ///
    /// # Errors
    ///
    /// If the log is not to be used, or cannot be read just now.
    pub(crate) fn start(
        &mut self,
        cluster: ClusterSettings,
        acceptor: AcceptorId,
        seed: u64,
    ) -> Result<Restored, StorageError> {
        if self.running.is_none() {
            self.recover()?;
        }
        let restored = self.restart(cluster, acceptor, seed)?;
        Ok(restored.expect("a log that has just been recovered is settled"))
    }

    fn recover(&mut self) -> Result<(), StorageError> {
        let recovered = recover(&mut self.disk, &self.identity, &self.options)?;
        self.running = Some(Running {
            shared: SharedLog::new(recovered.wal, self.bounds),
            reads: BTreeMap::new(),
            reads_count: 0,
            write: None,
            is_mark_due: false,
        });
        Ok(())
    }

    /// Ends the acceptor's life, in a process that goes on.
    pub(crate) fn end_life(&mut self, acceptor: AcceptorId) {
        self.running.iter_mut().for_each(|running| running.shared.end_life(acceptor));
    }

    /// Begins another life of the acceptor in the same process, once the former one is settled: the
    /// acceptor, and its votes.
    ///
    /// # Errors
    ///
    /// If the log cannot be read just now.
    pub(crate) fn restart(
        &mut self,
        cluster: ClusterSettings,
        acceptor: AcceptorId,
        seed: u64,
    ) -> Result<Option<Restored>, StorageError> {
        let Some(running) = &self.running else { return Ok(None) };
        let Some(restored) = running.shared.restart(cluster, acceptor, seed) else {
            return Ok(None);
        };
        let places = running.shared.wal.votes(acceptor, Slot(0), Watermark(u64::MAX));
        let mut votes = Vec::new();
        for place in &places {
            match read(&mut self.disk, place) {
                Ok(vote) => votes.push((place.slot, vote.ballot)),
                Err(kind) => {
                    assert!(kind != ErrorKind::InvalidData, "{}: not what was found", place.slot);
                    return Err(StorageError::Disk { file: Some(place.file), error: kind.into() });
                }
            }
        }
        Ok(Some((restored, votes)))
    }

    /// Whether a message is dropped, for the disk has as much to do as it may.
    pub(crate) fn is_too_much(&self, to: &To) -> bool {
        match (&self.running, to) {
            (Some(running), To::Acceptor(id, message)) => running.shared.is_too_much(*id, message),
            (_, _) => false,
        }
    }

    /// Takes in what the acceptor wants written down, said and read; returns what the disk is to do
    /// for it, and what may be said at once, for it rests on nothing new.
    pub(crate) fn take(
        &mut self,
        acceptor: &mut Acceptor,
        out: &mut Outbox,
    ) -> (Vec<Work>, Vec<(AcceptorId, Envelope)>) {
        let Some(running) = &mut self.running else { return (Vec::new(), Vec::new()) };
        let requests = running.shared.take(acceptor, out);
        acceptor.set_room(running.shared.wal.room());
        let mut work: Vec<Work> = requests.into_iter().map(|it| running.read(it)).collect();
        work.extend(running.next());
        (work, running.release())
    }

    /// Does a piece of work that was due; returns what came of it, and what the disk is to do next.
    pub(crate) fn work(&mut self, work: Work) -> (Done, Vec<Work>) {
        let (is_write, is_sync) = (matches!(work, Work::Write), matches!(work, Work::Sync));
        let is_creation = matches!(work, Work::Create(_));
        let done = match self.try_work(work) {
            Ok(done) => done,
            Err(poison) => {
                assert!(self.is_to_fail, "nothing is wrong with the disk, and yet: {poison}");
                return (Done::Failed, Vec::new());
            }
        };
        let Some(running) = &mut self.running else { return (done, Vec::new()) };
        if is_write {
            return (done, vec![Work::Sync]);
        }
        let mut next = running.next();
        if is_creation {
            next.push(Work::TryAgain);
        }
        if is_sync && running.write.is_none() {
            next.push(Work::Mark);
        }
        (done, next)
    }

    /// Bounds what the disk holds, in segments, or ends that.
    pub(crate) fn set_capacity(&mut self, segments: Option<u32>) {
        let bytes = |segments| u64::from(segments) * u64::from(self.options.segment_bytes);
        self.disk.capacity_bytes = segments.map_or(u64::MAX, bytes);
    }

    /// Whether little room is left in the log, and whether none is.
    pub(crate) fn is_low_or_full(&self) -> (bool, bool) {
        let wal = self.running.as_ref().map(|running| &running.shared.wal);
        wal.map_or((false, false), |wal| (wal.is_low(), wal.is_full()))
    }

    /// Whether the log is in use.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The reason why the log takes nothing in any more, if so.
    pub(crate) fn poisoned(&self) -> Option<Poison> {
        self.running.as_ref().and_then(|running| running.shared.wal.poisoned())
    }

    fn try_work(&mut self, work: Work) -> Result<Done, Poison> {
        let Self { disk, running, options, .. } = self;
        let running = running.as_mut().expect("work of a log that runs");
        let wal = &mut running.shared.wal;
        match work {
            Work::Write => {
                let write = running.write.as_ref().expect("a write was gathered");
                let result = disk.write_at(write.file, write.offset, &write.bytes);
                poison(wal, result, Poison::Write)?;
                Ok(Done::Nothing)
            }
            Work::Sync => {
                let write = running.write.take().expect("a write was gathered");
                let result = disk.sync(write.file);
                poison(wal, result, Poison::Sync)?;
                wal.on_synced(write);
                let recorded = std::iter::from_fn(|| running.shared.next_durable()).collect();
                Ok(Done::Synced(running.release(), recorded))
            }
            Work::Create(file) => {
                match disk.create(file, options.segment_bytes.into()) {
                    Ok(()) => wal.on_file_created(),
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        return Ok(Done::Failed);
                    }
                    Err(_) => wal.on_no_room(),
                }
                Ok(Done::Nothing)
            }
            Work::TryAgain => {
                wal.try_again();
                Ok(Done::Nothing)
            }
            Work::Mark => {
                running.is_mark_due = true;
                Ok(Done::Nothing)
            }
            Work::Read(number) => {
                let request = running.reads.remove(&number).expect("votes that were asked for");
                let (places, covered) = request.page(self.page_bytes_max);
                let mut votes = Vec::new();
                for place in places.iter().copied() {
                    match read(disk, &place) {
                        Ok(vote) => votes.push((place.slot, vote)),
                        Err(error) => {
                            let Some(request) = running.shared.look_again(request, place) else {
                                running.shared.wal.poison(Poison::Read(error));
                                return Err(Poison::Read(error));
                            };
                            let work = running.read(request);
                            return self.try_work(work);
                        }
                    }
                }
                Ok(match running.shared.is_current(&request) {
                    true => Done::Read(request.answer(covered, votes)),
                    false => Done::Nothing,
                })
            }
        }
    }

    /// Whether something was written, or is being, that no sync has covered.
    pub(crate) fn is_writing(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.write.is_some())
    }

    /// Whether something is held back.
    pub(crate) fn is_holding(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.shared.held_count() > 0)
    }

    /// The process ends; and with it the machine, if it `loses_power`.
    pub(crate) fn crash(&mut self, loses_power: bool) {
        self.running = None;
        self.is_to_fail = false;
        if loses_power {
            self.disk.lose_power();
        } else {
            self.disk.kill();
        }
    }

    /// Has one of the next operations fail, or be the last.
    pub(crate) fn order(&mut self, after: u64, fault: Fault) {
        self.is_to_fail = true;
        self.disk.order(after, fault);
    }

    /// Damages one place: a bit, a sector or a block, of any file.
    ///
    /// It comes back first, undamaged, if it can: then it has a mark behind whatever it has ever
    /// synced, and no single place is the only one that speaks for the rest. Damage to the last
    /// thing on a disk is what a torn write looks like, and outside the fault model (R33).
    pub(crate) fn damage(&mut self, rng: &mut Rng) -> bool {
        assert!(self.running.is_none(), "the disk of a node that is up is damaged");
        if recover(&mut self.disk, &self.identity, &self.options).is_err() {
            return false;
        }
        let files = self.disk.files().expect("a disk in memory");
        let (file, bytes) = files[usize::try_from(rng.below(files.len() as u64)).unwrap_or(0)];
        let written = self.disk.content(file).iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let at = rng.below((written as u64 + 1).min(bytes));
        match rng.below(3) {
            0 => self.disk.flip(file, at * 8 + rng.below(8)),
            1 => self.disk.overwrite(file, at / 512 * 512, &[0; 512]),
            _ => {
                let at = at / u64::from(BLOCK_BYTES) * u64::from(BLOCK_BYTES);
                let garbage: Vec<u8> =
                    (0..BLOCK_BYTES / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
                self.disk.overwrite(file, at, &garbage);
            }
        }
        true
    }
}

impl Running {
    /// What the disk is to do now besides what it is at.
    fn next(&mut self) -> Vec<Work> {
        let wal = &mut self.shared.wal;
        let mut work: Vec<Work> = wal.wants_file().map(Work::Create).into_iter().collect();
        if self.write.is_none() {
            self.write = wal.gather();
            if self.write.is_none() && std::mem::take(&mut self.is_mark_due) {
                self.write = wal.gather_mark();
            }
            work.extend(self.write.as_ref().map(|_| Work::Write));
        }
        work
    }

    /// Has votes read.
    fn read(&mut self, request: ReadRequest) -> Work {
        self.reads_count += 1;
        self.reads.insert(self.reads_count, request);
        Work::Read(self.reads_count)
    }

    fn release(&mut self) -> Vec<(AcceptorId, Envelope)> {
        std::iter::from_fn(|| self.shared.release()).collect()
    }
}

fn poison(
    wal: &mut loggos_storage::Wal,
    result: std::io::Result<()>,
    why: fn(ErrorKind) -> Poison,
) -> Result<(), Poison> {
    result.map_err(|error| {
        wal.poison(why(error.kind()));
        why(error.kind())
    })
}

fn read(disk: &mut FaultyDisk, place: &VotePlace) -> Result<Vote, ErrorKind> {
    let (offset, bytes) = place.blocks();
    let mut blocks = Buffer::new();
    blocks.resize(bytes, 0);
    disk.read_at(place.file, offset, &mut blocks).map_err(|error| error.kind())?;
    place.vote(&blocks).ok_or(ErrorKind::InvalidData)
}
