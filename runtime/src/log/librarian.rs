//! What takes its time: new files, and votes read back. Done by a thread of its own, for the loop waits for
//! nothing.
//!
//! ```text
//!   core                           librarian
//!   Request::Create ─────────────▶ a file of zeros, synced, and its name
//!   Request::Read ───────────────▶ blocks of votes, past the cache
//!        ◀── answers, alarm ─────── either; what is for replicas after all else that waits
//!   Request::Condemn ────────────▶ a file that says that nobody may serve from here again
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

/// What is there where nobody may serve from a log, for it is an older copy.
const CONDEMNED_FILE: &str = "outdated";
/// How much is read at once, where a vote is not longer; and how much that nobody asked for may be in it.
const CHUNK_BYTES: u64 = 256 * 1024;
const GAP_BYTES: u64 = 32 * 1024;

/// Does what takes its time. Dropping it waits until it has done what it was asked for.
#[derive(Debug)]
pub(crate) struct Librarian {
    /// None once it is to end.
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

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Created(FileId, io::Result<File>),
    /// Votes in slot order, and up to where these are all there are.
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

impl Librarian {
    /// Hires one for the log in `folder`, with segments of so many bytes; `alarm` wakes whom it answers.
    ///
    /// # Errors
    ///
    /// If there can be no other thread.
    pub(crate) fn start(
        (folder, disk): (PathBuf, Folder),
        segment_bytes: u64,
        page_bytes_max: u32,
        alarm: Alarm,
    ) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let answers = Arc::new(SegQueue::new());
        let desk = Arc::clone(&answers);
        let work = move || {
            let page_bytes_max = page_bytes_max as usize;
            let mut shelf =
                Shelf { disk, folder, segment_bytes, page_bytes_max, bytes: Buffer::new() };
            shelf.serve(&asked, |answer| {
                desk.push(answer);
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

    /// Has it written down that this directory is an older copy, and why: nobody serves from it again (R33).
    pub(crate) fn condemn(&self, why: String) {
        self.ask(Request::Condemn(why));
    }

    pub(crate) fn answer(&self) -> Option<Answer> {
        self.answers.pop()
    }

    /// Whether it has answered.
    pub(crate) fn has_answered(&self) -> bool {
        !self.answers.is_empty()
    }

    fn ask(&self, request: Request) {
        let asked = self.requests.as_ref().map(|requests| requests.send(request));
        assert!(matches!(asked, Some(Ok(()))), "the librarian has left");
    }
}

impl Drop for Librarian {
    fn drop(&mut self) {
        self.requests = None;
        // If it has panicked, that was told.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Why nobody may serve from the log in `folder`, if that was written down.
pub(crate) fn condemned(folder: &Path) -> io::Result<Option<String>> {
    match std::fs::read(folder.join(CONDEMNED_FILE)) {
        Ok(why) => Ok(Some(String::from_utf8_lossy(&why).trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes it down. Whatever is left of the file by a crash says enough by being there.
fn condemn(folder: &Path, why: &str) -> io::Result<()> {
    let mut file = File::create(folder.join(CONDEMNED_FILE))?;
    writeln!(file, "{why}")?;
    file.sync_all()?;
    sync_directory(folder)
}

/// Where it looks.
struct Shelf {
    disk: Folder,
    folder: PathBuf,
    segment_bytes: u64,
    page_bytes_max: usize,
    /// What was read last.
    bytes: Buffer,
}

impl Shelf {
    fn serve(&mut self, asked: &Receiver<Request>, tell: impl Fn(Answer)) {
        let mut waiting = VecDeque::new();
        loop {
            if waiting.is_empty() {
                let Ok(request) = asked.recv() else { return };
                waiting.push_back(request);
            }
            waiting.extend(asked.try_iter());
            // Replicas that start over ask for everything there is. Elections do not wait for that.
            let is_first = waiting.iter().position(|request| !request.is_for_replica());
            let Some(request) = waiting.remove(is_first.unwrap_or(0)) else { continue };
            match request {
                Request::Create(file) => {
                    let created = self.disk.create(file, self.segment_bytes);
                    tell(Answer::Created(file, created.and_then(|()| self.disk.file(file))));
                }
                Request::Read(request) => tell(self.read(request)),
                Request::Condemn(why) => {
                    if let Err(error) = condemn(&self.folder, &why) {
                        error!(%error, "what is written down of an older copy may be lost: remove it");
                    }
                }
            }
        }
    }

    /// Reads a page of votes.
    fn read(&mut self, request: ReadRequest) -> Answer {
        let (places, covered) = request.page(self.page_bytes_max);
        let mut places = places.to_vec();
        // In the order of the disk, which is another one where slots were voted in more than once.
        places.sort_unstable_by_key(|place| (place.file, place.blocks()));
        let mut votes = BTreeMap::new();
        let mut rest = &places[..];
        while let Some(first) = rest.first() {
            let (run, others) = rest.split_at(run_length(rest));
            rest = others;
            if let Err(error) = self.read_run(run, &mut votes) {
                // They are read in this order: the first that is missing is the one that failed.
                let place = *run.iter().find(|p| !votes.contains_key(&p.slot)).unwrap_or(first);
                return Answer::Unreadable(request, place, error);
            }
        }
        let votes = votes.into_iter().collect();
        Answer::Read(request, covered, votes)
    }

    /// Reads votes that lie close to each other with one read.
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

/// How many of `places`, in the order of the disk and at least the first, are read at once.
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
