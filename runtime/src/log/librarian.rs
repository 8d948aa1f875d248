//! What takes its time: new files, and votes read back. Done by a thread of its own, for the loop waits for
//! nothing.
//!
//! ```text
//!   core                           librarian
//!   Request::Create ─────────────▶ a file of zeros, synced, and its name
//!   Request::Read ───────────────▶ blocks of votes, past the cache
//!        ◀── answers, alarm ─────── either, in the order of the requests
//!   Request::Condemn ────────────▶ a file that says that nobody may serve from here again
//! ```

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crossbeam::queue::SegQueue;
use loggos_protocol::{Recall, Recalled, Watermark};
use loggos_storage::{Buffer, Disk, FileId, Folder, VotePlace};

use tracing::error;

use super::sync_directory;
use crate::executor::Alarm;

/// What is there where nobody may serve from a log, for it is an older copy.
const CONDEMNED_FILE: &str = "outdated";
/// How much is read at once, where a vote is not longer: the next vote is mostly behind it.
const CHUNK_BYTES: u64 = 128 * 1024;

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
    Read(Errand),
    Condemn(String),
}

/// Votes to be read back.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) recall: Recall,
    /// The life of the acceptor that asked.
    pub(crate) life: u64,
    /// Where they are, in slot order.
    pub(crate) places: Vec<VotePlace>,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Created(FileId, io::Result<File>),
    Recalled(Recalled, u64),
    /// A vote could not be read, or is not what was written there.
    Unreadable(Errand, VotePlace, io::Error),
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
            let mut shelf = Shelf {
                disk,
                folder,
                segment_bytes,
                page_bytes_max,
                bytes: Buffer::new(),
                at: None,
            };
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

    pub(crate) fn read(&self, errand: Errand) {
        self.ask(Request::Read(errand));
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
    /// What was read last, and from where.
    bytes: Buffer,
    at: Option<(FileId, u64)>,
}

impl Shelf {
    fn serve(&mut self, asked: &Receiver<Request>, tell: impl Fn(Answer)) {
        for request in asked {
            match request {
                Request::Create(file) => {
                    let created = self.disk.create(file, self.segment_bytes);
                    tell(Answer::Created(file, created.and_then(|()| self.disk.file(file))));
                }
                Request::Read(errand) => tell(self.read(errand)),
                Request::Condemn(why) => {
                    if let Err(error) = condemn(&self.folder, &why) {
                        error!(%error, "what is written down of an older copy may be lost: remove it");
                    }
                }
            }
        }
    }

    /// Reads votes until there are enough for a page; at least one, if there is one.
    fn read(&mut self, errand: Errand) -> Answer {
        self.at = None; // what was read for another errand may have been written over
        let (mut votes, mut bytes) = (Vec::new(), 0);
        for place in &errand.places {
            if bytes >= self.page_bytes_max {
                let covered = Watermark(place.slot.0);
                return Answer::Recalled(
                    Recalled { recall: errand.recall, covered, votes },
                    errand.life,
                );
            }
            let (_, length) = place.blocks();
            match self.vote(place) {
                Ok(vote) => votes.push((place.slot, vote)),
                Err(error) => {
                    let place = *place;
                    return Answer::Unreadable(errand, place, error);
                }
            }
            bytes += length;
        }
        let covered = errand.recall.to;
        Answer::Recalled(Recalled { recall: errand.recall, covered, votes }, errand.life)
    }

    fn vote(&mut self, place: &VotePlace) -> io::Result<loggos_protocol::Vote> {
        let (offset, length) = place.blocks();
        let end = offset + length as u64;
        let is_there = self.at.is_some_and(|(file, at)| {
            file == place.file && at <= offset && end <= at + self.bytes.len() as u64
        });
        if !is_there {
            self.at = None;
            let wanted = (length as u64).max(CHUNK_BYTES).min(self.segment_bytes - offset);
            self.bytes.clear();
            self.bytes.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.disk.read_at(place.file, offset, &mut self.bytes)?;
            self.at = Some((place.file, offset));
        }
        let (_, at) = self.at.expect("it was just read");
        let start = usize::try_from(offset - at).map_err(io::Error::other)?;
        let vote = place.vote(&self.bytes[start..start + length]);
        vote.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}
