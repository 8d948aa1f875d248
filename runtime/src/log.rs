//! The log of a core: what its acceptors write down before they say so, driven by the core's ring.
//!
//! ```text
//!   of a tick              the log                               the ring, the librarian
//!   shared.take   ───────▶ gathers records; keeps what waits ──▶ votes to be read back
//!   write         ───────▶ one write, if none is under way ────▶ written and synced in one operation
//!   on_written    ◀─────── durable ↑ ◀──────────────────────────
//!   release       ◀─────── what waited for that
//!   next_recalled ◀────────────────────────────────────────────── votes
//! ```
//!
//! One write is under way at a time; what is appended meanwhile is the next, so a slow disk makes long
//! writes, and a tick never waits for one. What fails poisons the log, and then nothing that waits for it is
//! ever sent (R34).

mod librarian;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use loggos_net::wire::LogPosition;
use loggos_net::{Ring, RingFile, Written};
use loggos_protocol::{Acceptor, AcceptorId, Cluster, Envelope, Outbox, Recalled, Time, To};
use loggos_storage::{
    Bounds, FileId, Folder, Poison, ReadRequest, SharedLog, VotePlace, Wal, Write,
};
use tracing::warn;

pub(crate) use self::librarian::condemned;
use self::librarian::{Answer, Librarian};
use crate::alarm::Alarm;
use crate::status::LogState;

/// How long a log must be idle before it writes a mark (R33).
const IDLE: Duration = Duration::from_millis(200);

/// How long a write takes that is called hanging.
const HANG: Duration = Duration::from_secs(1);

/// How long until a file is tried for again that there was no room for.
const ROOM: Duration = Duration::from_secs(1);

/// What a core's log is started with: recovered, and nothing done with it yet.
#[derive(Debug)]
pub(crate) struct LogPlan {
    pub(crate) wal: Wal,
    pub(crate) folder: PathBuf,
    /// The same, locked as long as anybody may write there.
    pub(crate) disk: Folder,
    /// Its files, open for direct I/O.
    pub(crate) files: Vec<(FileId, File)>,
    pub(crate) segment_bytes: u32,
}

/// The log of a core.
#[derive(Debug)]
pub(crate) struct Log {
    shared: SharedLog,
    /// The last batch that it came back with, found there.
    recovered: u64,
    /// Who says that it is an older copy, and why, if somebody does.
    outdated: Option<String>,
    /// Files that the ring is not told of yet.
    fresh: Vec<(FileId, File)>,
    /// By number.
    files: Vec<Option<RingFile>>,
    /// What is being written, and since when.
    in_flight: Option<(RingFile, Write, Time)>,
    librarian: Librarian,
    /// When it has been idle for so long that it writes a mark.
    idle_at: Option<Time>,
    is_low: bool,
    /// Whether there was no room for another file when that was last tried.
    is_refused: bool,
    /// When it is tried again.
    room_at: Option<Time>,
}

/// Why a log serves no more, for good.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// It has failed (R34).
    Poison(Poison),
    /// It is an older copy: another node has seen more of it (R33).
    Outdated {
        /// What that one says.
        why: String,
    },
}

/// How a log stands.
#[derive(Clone, Debug)]
pub(crate) struct LogStatus {
    /// Writes, each a sync, since it was formatted.
    pub(crate) synced: u64,
    pub(crate) segments: usize,
    /// Records that wait to be durable.
    pub(crate) waiting: u64,
    /// Messages that wait for them.
    pub(crate) held: usize,
    /// How long the write under way has taken so far.
    pub(crate) writing_for: Duration,
    pub(crate) is_low: bool,
    /// Whether records wait for room.
    pub(crate) is_full: bool,
    pub(crate) stopped: Option<Stop>,
}

impl Log {
    /// Goes on with a log. Not to be called on the core: the librarian would be pinned to it, too.
    ///
    /// # Errors
    ///
    /// If there can be no other thread.
    pub(crate) fn start(plan: LogPlan, page_bytes_max: u32, alarm: Alarm) -> io::Result<Self> {
        let LogPlan { wal, folder, disk, files, segment_bytes } = plan;
        let librarian =
            Librarian::start((folder, disk), segment_bytes.into(), page_bytes_max, alarm)?;
        Ok(Self {
            is_low: wal.is_low(),
            recovered: wal.found(),
            outdated: None,
            shared: SharedLog::new(wal, Bounds::default()),
            fresh: files,
            files: Vec::new(),
            in_flight: None,
            librarian,
            idle_at: None,
            is_refused: false,
            room_at: None,
        })
    }

    /// Begins a life of an acceptor, see [`SharedLog::restart`]; not of one that has stopped.
    pub(crate) fn restart(
        &self,
        cluster: Cluster,
        acceptor: AcceptorId,
        seed: u64,
    ) -> Option<Acceptor> {
        self.outdated.is_none().then(|| self.shared.restart(cluster, acceptor, seed)).flatten()
    }

    /// Whether the next life of an acceptor may begin, see [`SharedLog::is_settled`].
    pub(crate) fn is_settled(&self, acceptor: AcceptorId) -> bool {
        self.shared.is_settled(acceptor)
    }

    /// Takes in what an acceptor wants written down, said after that, and read back.
    ///
    /// source: R31, R34
    pub(crate) fn take(&mut self, acceptor: &Acceptor, out: &mut Outbox) {
        for request in self.shared.take(acceptor, out) {
            self.librarian.read(request);
        }
    }

    /// Whether a message is better dropped, see [`SharedLog::is_too_much`].
    pub(crate) fn is_too_much(&self, to: &To) -> bool {
        match to {
            To::Acceptor(id, message) => self.shared.is_too_much(*id, message),
            To::Gateway(..) | To::Proposer(..) | To::ProxyLeader(..) | To::Replica(..) => false,
        }
    }

    /// The next message that may leave.
    ///
    /// source: R31
    pub(crate) fn release(&mut self) -> Option<Envelope> {
        self.shared.release().map(|(_, envelope)| envelope)
    }

    /// Whether there is one.
    pub(crate) fn has_released(&self) -> bool {
        self.shared.has_released()
    }

    /// The next acceptor that is to be told how many of its records are durable.
    pub(crate) fn next_durable(&mut self) -> Option<(AcceptorId, u64)> {
        self.shared.next_durable()
    }

    /// Starts the next write, if there is anything to write and none is under way; and asks for the next
    /// file, if one is wanted.
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
            self.librarian.create(file);
        }
    }

    /// Writes a mark, if the log has been idle for long enough: so that what was written last can be told from
    /// what was never whole (R33). Tries for a file again that there was no room for.
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

    /// When [`Log::on_time`] is to be called next.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let idle_at = self.idle_at.filter(|_| self.in_flight.is_none());
        idle_at.into_iter().chain(self.room_at).min()
    }

    /// Takes in what came of the write that is under way.
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

    /// Takes in what the librarian has done, up to the next votes that were read back for an acceptor that still
    /// lives.
    pub(crate) fn next_recalled(&mut self) -> Option<Recalled> {
        while let Some(answer) = self.librarian.answer() {
            match answer {
                Answer::Created(file, Ok(opened)) => {
                    self.fresh.push((file, opened));
                    self.shared.wal.on_file_created();
                    self.is_refused = false;
                }
                Answer::Created(file, Err(error)) => {
                    if !std::mem::replace(&mut self.is_refused, true) {
                        warn!(%error, "{file} cannot be made: the log goes on in those it has");
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

    /// Whether the librarian has answered.
    pub(crate) fn has_work(&self) -> bool {
        self.librarian.has_answered()
    }

    /// Ends the life of an acceptor, see [`SharedLog::end_life`].
    pub(crate) fn end_life(&mut self, acceptor: AcceptorId) {
        self.shared.end_life(acceptor);
    }

    /// Stops for good, since another node has seen more of this log than it came back with. What is told from now
    /// on might contradict what was told then; so nothing is, in later lives neither, when nobody may remember.
    ///
    /// source: R33
    pub(crate) fn on_outdated(&mut self, why: String) {
        if self.outdated.is_none() {
            self.librarian.condemn(why.clone());
            self.outdated = Some(why);
        }
    }

    /// Why it has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        let outdated = self.outdated.clone().map(|why| Stop::Outdated { why });
        outdated.or_else(|| self.shared.wal.poisoned().map(Stop::Poison))
    }

    /// Where it stands, for other nodes to remember, while it serves.
    ///
    /// source: R33
    pub(crate) fn position(&self) -> Option<LogPosition> {
        let directory = self.shared.wal.identity().directory;
        let position =
            LogPosition { directory, recovered: self.recovered, synced: self.shared.wal.synced() };
        self.outdated.is_none().then_some(position)
    }

    /// Whether little room is left in it, if that has changed since it was last asked.
    pub(crate) fn low_has_changed(&mut self) -> Option<bool> {
        let is_low = self.shared.wal.is_low();
        (std::mem::replace(&mut self.is_low, is_low) != is_low).then_some(is_low)
    }

    pub(crate) fn status(&self, now: Time) -> LogStatus {
        let begun_at = self.in_flight.as_ref().map(|(_, _, at)| *at);
        LogStatus {
            synced: self.shared.wal.synced(),
            segments: self.shared.wal.segments_count(),
            waiting: self.shared.wal.appended() - self.shared.wal.durable(),
            held: self.shared.held_count(),
            writing_for: begun_at.map_or(Duration::ZERO, |at| now.since(at)),
            is_low: self.is_low,
            is_full: self.shared.wal.is_full(),
            stopped: self.stopped(),
        }
    }

    /// Tries again where what was to be read is not where it was. If it ought to be, the disk has lost it.
    ///
    /// source: R34
    fn on_unreadable(&mut self, request: ReadRequest, place: VotePlace, error: &io::Error) {
        match self.shared.look_again(request, place) {
            Some(request) => self.librarian.read(request),
            None => {
                warn!(%error, "{} cannot be read", place.file);
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

impl LogStatus {
    pub(crate) fn state(&self) -> LogState {
        if self.writing_for >= HANG {
            LogState::Hangs
        } else if self.is_full {
            LogState::Full
        } else if self.is_low {
            LogState::Low
        } else {
            LogState::Fine
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poison(poison) => poison.fmt(f),
            Self::Outdated { why } => write!(
                f,
                "the data directory is an older copy, of which another node says: {why}. This acceptor has \
                 forgotten promises or votes and must not serve from it; put the latest one back, or go on \
                 without this acceptor"
            ),
        }
    }
}

/// Makes durable which files a directory has.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
