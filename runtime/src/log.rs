//! The log of a core: the records of its acceptors, written by the core's ring.
//!
//! ```text
//!   of a tick              the log                               the ring, the worker thread
//!   take          ───────▶ gathers records; holds messages ────▶ requests to read votes back
//!   write         ───────▶ one write, if none is under way ────▶ written and synced in one operation
//!   on_written    ───────▶ more is durable
//!   release       ◀─────── messages whose records are durable
//!   next_recalled ◀────────────────────────────────────────────── votes
//! ```
//!
//! One write is under way at a time. What is appended meanwhile is the next write: a slow disk
//! makes long writes, and a tick never waits for one. A write that fails poisons the log, and then
//! no message that waits for it is ever sent (R34).

mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loggos_net::wire::LogPosition;
use loggos_net::{Ring, RingFile, Written};
use loggos_protocol::{
    Acceptor, AcceptorId, ClusterSettings, Envelope, LogRoom, Outbox, Recalled, Time, To,
};
use loggos_storage::{
    Bounds, Buffer, FileId, Folder, Poison, ReadRequest, SharedLog, VotePlace, Wal, Write,
};
use tracing::warn;

pub use self::status::LogState;
pub use self::status::LogStatus;
pub(crate) use self::worker::condemned;
use self::worker::{Answer, LogWorker, WorkerFiles};
use crate::alarm::Alarm;

/// The time that a log is idle before it writes a mark (R33).
const IDLE: Duration = Duration::from_millis(200);

/// The wait before the next attempt to make a file that there was no room for.
const ROOM: Duration = Duration::from_secs(1);

/// The plan that a core's log is started with.
#[derive(Debug)]
pub(crate) struct LogPlan {
    /// The log as it was recovered.
    pub(crate) wal: Wal,
    pub(crate) folder: PathBuf,
    /// The same folder, locked as long as this process may write there.
    pub(crate) disk: Folder,
    /// The log's files, open for direct I/O.
    pub(crate) files: Vec<(FileId, File)>,
    pub(crate) segment_bytes: u32,
}

/// The log of a core.
#[derive(Debug)]
pub(crate) struct Log {
    shared: SharedLog,
    /// The last batch that recovery found.
    recovered: u64,
    /// The text of another node that found this log to be an older copy.
    outdated: Option<String>,
    /// Files that the ring does not know yet.
    fresh: Vec<(FileId, File)>,
    /// The ring's names of the files, by number.
    files: Vec<Option<RingFile>>,
    /// The write that is under way, and when it was started.
    in_flight: Option<(RingFile, Write, Time)>,
    worker: LogWorker,
    /// The time when the log will have been idle long enough to write a mark.
    idle_at: Option<Time>,
    room: LogRoom,
    /// Whether there was no room for another file at the last attempt.
    is_refused: bool,
    /// The time to try again.
    room_at: Option<Time>,
}

/// The reason why a log serves no more, for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// It has failed (R34).
    Poison(Poison),
    /// It is an older copy: another node has seen more of it (R33).
    Outdated {
        /// The text of that node.
        why: String,
    },
}

impl Log {
    /// Goes on with a recovered log. Must not be called on the core's own thread, or the worker
    /// thread would be pinned to that core, too.
    ///
    /// # Errors
    ///
    /// If the worker thread cannot be started.
    pub(crate) fn start(plan: LogPlan, page_bytes_max: u32, alarm: Alarm) -> io::Result<Self> {
        let LogPlan { wal, folder, disk, files, segment_bytes } = plan;
        let worker_files = WorkerFiles {
            folder,
            disk,
            segment_bytes: segment_bytes.into(),
            page_bytes_max: page_bytes_max as usize,
            bytes: Buffer::new(),
        };
        Ok(Self {
            room: wal.room(),
            recovered: wal.found(),
            outdated: None,
            shared: SharedLog::new(wal, Bounds::default()),
            fresh: files,
            files: Vec::new(),
            in_flight: None,
            worker: LogWorker::start(worker_files, alarm)?,
            idle_at: None,
            is_refused: false,
            room_at: None,
        })
    }

    /// Begins a life of an acceptor, see [`SharedLog::restart`]; `None` if the log has stopped.
    pub(crate) fn restart(
        &self,
        cluster: ClusterSettings,
        acceptor: AcceptorId,
        seed: u64,
    ) -> Option<Acceptor> {
        self.outdated.is_none().then(|| self.shared.restart(cluster, acceptor, seed)).flatten()
    }

    /// Whether the next life of an acceptor may begin, see [`SharedLog::is_settled`].
    pub(crate) fn is_settled(&self, acceptor: AcceptorId) -> bool {
        self.shared.is_settled(acceptor)
    }

    /// Takes from the outbox of an acceptor its records, the messages that wait for them, and its
    /// requests to read votes.
    ///
    /// source: R31, R34
    pub(crate) fn take(&mut self, acceptor: &Acceptor, out: &mut Outbox) {
        for request in self.shared.take(acceptor, out) {
            self.worker.read(request);
        }
    }

    /// Whether a message must be dropped, since too much waits for the disk: see
    /// [`SharedLog::is_too_much`].
    pub(crate) fn is_too_much(&self, to: &To) -> bool {
        match to {
            To::Acceptor(id, message) => self.shared.is_too_much(*id, message),
            To::Gateway(..) | To::Proposer(..) | To::ProxyLeader(..) | To::Replica(..) => false,
        }
    }

    /// Returns the next message that may leave: its records are durable.
    ///
    /// source: R31
    pub(crate) fn release(&mut self) -> Option<Envelope> {
        self.shared.release().map(|(_, envelope)| envelope)
    }

    /// Whether a message may leave.
    pub(crate) fn can_release(&self) -> bool {
        self.shared.can_release()
    }

    /// Returns the next acceptor to be told how many of its records are durable, with that number.
    pub(crate) fn next_durable(&mut self) -> Option<(AcceptorId, u64)> {
        self.shared.next_durable()
    }

    /// Starts the next write, if there are records to write and no write is under way; asks the
    /// worker thread for another file, if the log wants one.
    pub(crate) fn write(&mut self, ring: &mut Ring, now: Time) {
        self.add_files(ring);
        if self.outdated.is_some() {
            return;
        }
        if let Some(write) = self.shared.wal.gather() {
            self.idle_at = Some(now + IDLE);
            self.begin(write, ring, now);
        }
        if self.is_refused && self.room_at.is_none() {
            self.room_at = Some(now + ROOM);
        }
        if let Some(file) = self.shared.wal.wants_file() {
            self.worker.create(file);
        }
    }

    /// Writes a mark, if the log has been idle for long enough: recovery can then tell its last
    /// batch from one that was never complete (R33). Tries again for a file that there was no room
    /// for.
    pub(crate) fn on_time(&mut self, ring: &mut Ring, now: Time) {
        if self.room_at.take_if(|at| *at <= now).is_some() {
            self.shared.wal.try_again();
        }
        if self.idle_at.is_some_and(|at| at <= now) && self.in_flight.is_none() {
            self.idle_at = None;
            if self.outdated.is_none()
                && let Some(write) = self.shared.wal.gather_mark()
            {
                self.begin(write, ring, now);
            }
        }
    }

    /// The time when [`Log::on_time`] is to be called next.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let idle_at = self.idle_at.filter(|_| self.in_flight.is_none());
        idle_at.into_iter().chain(self.room_at).min()
    }

    /// The write under way has ended.
    ///
    /// source: R31, R34
    pub(crate) fn on_written(&mut self, Written { file, bytes, outcome }: Written) {
        let (to, mut write, _) = self.in_flight.take().expect("a write was under way");
        assert_eq!(to, file, "a write to another file");
        match outcome {
            Ok(()) => {
                write.bytes = bytes;
                self.shared.wal.on_synced(write);
            }
            Err(kind) => self.shared.wal.poison(Poison::Write(kind)),
        }
    }

    /// Takes in answers of the worker thread, until one has votes for an acceptor; returns these.
    /// Votes that a former life of an acceptor has asked for are dropped.
    pub(crate) fn next_recalled(&mut self) -> Option<Recalled> {
        while let Some(answer) = self.worker.answer() {
            match answer {
                Answer::Created(file, Ok(opened)) => {
                    self.fresh.push((file, opened));
                    self.shared.wal.on_file_created();
                    self.is_refused = false;
                }
                Answer::Created(file, Err(error)) => {
                    if !std::mem::replace(&mut self.is_refused, true) {
                        warn!(%error, "cannot make {file}: the log goes on in the files that it has");
                    }
                    self.shared.wal.on_no_room();
                }
                Answer::Read(request, covered, votes) if self.shared.is_current(&request) => {
                    return Some(request.answer(covered, votes));
                }
                Answer::Read(..) => {}
                Answer::Unreadable(request, place, error) => {
                    self.on_unreadable(request, place, &error);
                }
            }
        }
        None
    }

    /// Whether the worker thread has answered.
    pub(crate) fn has_work(&self) -> bool {
        self.worker.has_answered()
    }

    /// Ends the life of an acceptor, see [`SharedLog::end_life`].
    pub(crate) fn end_life(&mut self, acceptor: AcceptorId) {
        self.shared.end_life(acceptor);
    }

    /// Stops for good, since another node has seen more of this log than recovery found. What
    /// acceptors say from now on could contradict what they said then, so they say nothing more;
    /// nor do later lives, when no other node may remember.
    ///
    /// source: R33
    pub(crate) fn on_outdated(&mut self, why: String) {
        if self.outdated.is_none() {
            self.worker.condemn(why.clone());
            self.outdated = Some(why);
        }
    }

    /// Returns why it has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        let outdated = self.outdated.clone().map(|why| Stop::Outdated { why });
        outdated.or_else(|| self.shared.wal.poisoned().map(Stop::Poison))
    }

    /// Returns where it stands, for other nodes to remember; `None` once it is known to be an older
    /// copy.
    ///
    /// source: R33
    pub(crate) fn position(&self) -> Option<LogPosition> {
        let directory = self.shared.wal.identity().directory;
        let position =
            LogPosition { directory, recovered: self.recovered, synced: self.shared.wal.synced() };
        self.outdated.is_none().then_some(position)
    }

    /// Returns the room that was left in it at the last call, and that is left now, if they differ.
    pub(crate) fn room_has_changed(&mut self) -> Option<(LogRoom, LogRoom)> {
        let room = self.shared.wal.room();
        let before = std::mem::replace(&mut self.room, room);
        (before != room).then_some((before, room))
    }

    pub(crate) fn status(&self, now: Time) -> LogStatus {
        let begun_at = self.in_flight.as_ref().map(|(_, _, at)| *at);
        LogStatus {
            synced: self.shared.wal.synced(),
            segments: self.shared.wal.segments_count(),
            segments_max: self.shared.wal.segments_max(),
            waiting: self.shared.wal.appended() - self.shared.wal.durable(),
            held: self.shared.held_count(),
            writing_for: begun_at.map_or(Duration::ZERO, |at| now.since(at)),
            is_low: self.room == LogRoom::Low,
            is_full: self.shared.wal.is_full(),
            stopped: self.stopped().map(|why| why.to_string()),
        }
    }

    /// A vote could not be read. If it has moved since it was asked for, it is asked for again; if
    /// not, the disk has lost it.
    ///
    /// source: R34
    fn on_unreadable(&mut self, request: ReadRequest, place: VotePlace, error: &io::Error) {
        match self.shared.look_again(request, place) {
            Some(request) => self.worker.read(request),
            None => {
                warn!(%error, "cannot read {}", place.file);
                self.shared.wal.poison(Poison::Read(error.kind()));
            }
        }
    }

    fn begin(&mut self, mut write: Write, ring: &mut Ring, now: Time) {
        let file = self.files.get(write.file.0 as usize).copied().flatten();
        let file = file.expect("every file of the log was opened");
        ring.write(file, write.offset, std::mem::take(&mut write.bytes));
        self.in_flight = Some((file, write, now));
    }

    fn add_files(&mut self, ring: &mut Ring) {
        for (FileId(number), file) in self.fresh.drain(..) {
            let place = number as usize;
            self.files.resize(self.files.len().max(place + 1), None);
            self.files[place] = Some(ring.add_file(file.into()));
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poison(poison) => poison.fmt(f),
            Self::Outdated { why } => write!(
                f,
                "the data directory is an older copy. Another node said: {why}. Its acceptors have forgotten \
                 promises or votes and must not serve from it. Put the latest copy back, or go on without \
                 them"
            ),
        }
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
