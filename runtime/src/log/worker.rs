//! The log's worker thread: it makes new files and reads votes back, which would block the core.
//!
//! ```text
//!   core                           worker
//!   Request::Create ─────────────▶ makes a file of zeros, and syncs it and its name
//!   Request::Read ───────────────▶ reads blocks of votes, past the page cache; those for replicas last
//!        ◀── answers, alarm ─────── answers either
//!   Request::Condemn ────────────▶ writes a file that forbids to serve from this directory
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crossbeam::queue::SegQueue;
use loggos_protocol::{Cause, Slot, Vote, Watermark};
use loggos_storage::{Buffer, Disk, FileId, Folder, ReadRequest, VotePlace};

use tracing::error;

use super::sync_directory;
use crate::alarm::Alarm;

/// The file that forbids to serve from a log, since it is an older copy.
const CONDEMNED_FILE: &str = "outdated";
/// The most that is read at once, unless a single vote is longer.
const CHUNK_BYTES: u64 = 256 * 1024;
/// The most bytes between two votes that are read with them, though they were not asked for.
const GAP_BYTES: u64 = 32 * 1024;

/// The core's end of the worker thread. Dropping it waits until all requests are done.
#[derive(Debug)]
pub(crate) struct LogWorker {
    /// `None` once the thread is to end.
    requests: Option<Sender<Request>>,
    answers: Arc<SegQueue<Answer>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Request {
    Create(FileId),
    Read(ReadRequest),
    Condemn(String),
}

/// The result of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Created(FileId, io::Result<File>),
    /// Votes in slot order; below the watermark, all that were asked for.
    Read(ReadRequest, Watermark, Vec<(Slot, Vote)>),
    /// A vote could not be read, or is not what was written there.
    Unreadable(ReadRequest, VotePlace, io::Error),
}

impl Request {
    fn is_for_replica(&self) -> bool {
        match self {
            Self::Read(request) => matches!(request.recall.cause, Cause::Replay(_)),
            Self::Create(_) | Self::Condemn(_) => false,
        }
    }
}

impl LogWorker {
    /// Starts the thread that `files` are for; `alarm` wakes the core once it has answered.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn start(mut files: WorkerFiles, alarm: Alarm) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let answers = Arc::new(SegQueue::new());
        let answered = Arc::clone(&answers);
        let work = move || {
            files.serve(&asked, |answer| {
                answered.push(answer);
                alarm.ring();
            });
        };
        let thread = std::thread::Builder::new().name("loggos-log".to_owned()).spawn(work)?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread) })
    }

    pub(crate) fn create(&self, file: FileId) {
        self.ask(Request::Create(file));
    }

    pub(crate) fn read(&self, request: ReadRequest) {
        self.ask(Request::Read(request));
    }

    /// Asks for the file that says that this directory is an older copy, and why: no process serves
    /// from it again (R33).
    pub(crate) fn condemn(&self, why: String) {
        self.ask(Request::Condemn(why));
    }

    /// Returns the oldest answer, once.
    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Whether there is an answer.
    pub(crate) fn has_answered(&self) -> bool {
        !self.answers.is_empty()
    }

    fn ask(&self, request: Request) {
        let asked = self.requests.as_ref().map(|requests| requests.send(request));
        assert!(matches!(asked, Some(Ok(()))), "the log's worker thread has ended");
    }
}

impl Drop for LogWorker {
    fn drop(&mut self) {
        self.requests = None;
        // A panic was reported by the thread itself.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Returns why no process may serve from the log in `folder`, if that was written down.
pub(crate) fn condemned(folder: &Path) -> io::Result<Option<String>> {
    match std::fs::read(folder.join(CONDEMNED_FILE)) {
        Ok(why) => Ok(Some(String::from_utf8_lossy(&why).trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes down that no process may serve from the log in `folder`. The file counts by its
/// existence, so that a crash while its text is written makes no difference.
fn condemn(folder: &Path, why: &str) -> io::Result<()> {
    let mut file = File::create(folder.join(CONDEMNED_FILE))?;
    writeln!(file, "{why}")?;
    file.sync_all()?;
    sync_directory(folder)
}

/// The files that the worker thread works on.
#[derive(Debug)]
pub(crate) struct WorkerFiles {
    pub(crate) folder: PathBuf,
    pub(crate) disk: Folder,
    /// The length of a new file.
    pub(crate) segment_bytes: u64,
    /// The most bytes of votes in an answer, unless a single one is longer.
    pub(crate) page_bytes_max: usize,
    /// The bytes of the last read.
    pub(crate) bytes: Buffer,
}

impl WorkerFiles {
    fn serve(&mut self, asked: &Receiver<Request>, tell: impl Fn(Answer)) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(request) = asked.recv() else { return };
                waiting.push_back(request);
            }
            waiting.extend(asked.try_iter());
            // Replicas that start over ask for all votes that there are. Elections must not wait
            // for these.
            let next = waiting.iter().position(|request| !request.is_for_replica());
            let Some(request) = waiting.remove(next.unwrap_or(0)) else { continue };
            match request {
                Request::Create(file) => {
                    let created = self.disk.create(file, self.segment_bytes);
                    tell(Answer::Created(file, created.and_then(|()| self.disk.file(file))));
                }
                Request::Read(request) => tell(self.read(request)),
                Request::Condemn(why) => {
                    if let Err(error) = condemn(&self.folder, &why) {
                        error!(
                            %error,
                            "cannot mark {} as an older copy: never start from it again",
                            self.folder.display()
                        );
                    }
                }
            }
        }
    }

    /// Reads one page of the votes that are asked for.
    fn read(&mut self, request: ReadRequest) -> Answer {
        let (places, covered) = request.page(self.page_bytes_max);
        let mut places = places.to_vec();
        // In the order of the disk, which differs from that of slots where a slot was voted in more
        // than once.
        places.sort_unstable_by_key(|place| (place.file, place.blocks()));
        let mut votes = BTreeMap::new();
        let mut rest = &places[..];
        while let Some(first) = rest.first() {
            let (run, others) = rest.split_at(run_length(rest));
            rest = others;
            if let Err(error) = self.read_run(run, &mut votes) {
                // They are read in this order, so the first one without a vote is the one that
                // failed.
                let place = *run.iter().find(|p| !votes.contains_key(&p.slot)).unwrap_or(first);
                return Answer::Unreadable(request, place, error);
            }
        }
        let votes = votes.into_iter().collect();
        Answer::Read(request, covered, votes)
    }

    /// Reads votes that lie close together by one read.
    fn read_run(&mut self, run: &[VotePlace], votes: &mut BTreeMap<Slot, Vote>) -> io::Result<()> {
        let (start, end) = (run[0].blocks().0, run.iter().map(end).max().unwrap_or(0));
        self.bytes.clear();
        self.bytes.resize(usize::try_from(end - start).map_err(io::Error::other)?, 0);
        self.disk.read_at(run[0].file, start, &mut self.bytes)?;
        for place in run {
            let (offset, length) = place.blocks();
            let at = usize::try_from(offset - start).map_err(io::Error::other)?;
            let vote = place.vote(&self.bytes[at..at + length]);
            votes.insert(place.slot, vote.ok_or(io::ErrorKind::InvalidData)?);
        }
        Ok(())
    }
}

/// Returns how many of `places`, which are in the order of the disk, are read at once: at least the
/// first.
fn run_length(places: &[VotePlace]) -> usize {
    let (first, start) = (&places[0], places[0].blocks().0);
    let mut reached = end(first);
    let others = places[1..].iter().take_while(|place| {
        let is_close = place.file == first.file
            && place.blocks().0 <= reached + GAP_BYTES
            && end(place) <= start + CHUNK_BYTES;
        reached = reached.max(end(place));
        is_close
    });
    1 + others.count()
}

fn end(place: &VotePlace) -> u64 {
    let (offset, length) = place.blocks();
    offset + length as u64
}
