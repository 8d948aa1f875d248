//! Files for further segments: those that are free, and those that may still be made.

use std::collections::VecDeque;

use crate::fields::length;
use crate::{FileId, Options};

/// The files that a log has come back with, besides those that hold a segment.
#[derive(Debug)]
pub(crate) struct FilesFound {
    pub(crate) free: VecDeque<FileId>,
    /// Too short: their making was interrupted.
    pub(crate) unfinished: VecDeque<FileId>,
    /// The first that is not there.
    pub(crate) next: FileId,
}

/// The files of a log that hold no segment.
#[derive(Debug)]
pub(crate) struct Files {
    /// In the order in which they became free: the oldest segment is written over first.
    free: VecDeque<FileId>,
    /// To be made before others: they are there, and too short.
    unfinished: VecDeque<FileId>,
    /// The first that is not there.
    next: FileId,
    growth: Growth,
    /// Whether the last file that was asked for could be made. To ask again is not to have it: a
    /// log that took that for room would eat up its reserve, a little each time.
    has_room: bool,
    /// The number of files that there may be, those in use included.
    count_max: u32,
    /// How many are to be free: made before they are needed, so that a full disk is met early.
    reserve: u32,
}

/// Whether there may be more files.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Growth {
    Possible,
    UnderWay,
    Refused,
}

impl Files {
    pub(crate) fn new(found: FilesFound, options: &Options) -> Self {
        let FilesFound { free, unfinished, next } = found;
        let (count_max, reserve) = (options.segments_max, options.segments_reserve);
        Self {
            free,
            unfinished,
            next,
            growth: Growth::Possible,
            has_room: true,
            count_max,
            reserve,
        }
    }

    /// Takes a file to be used.
    pub(crate) fn take(&mut self) -> Option<FileId> {
        self.free.pop_front()
    }

    /// Takes in that a file is not needed any more.
    pub(crate) fn release(&mut self, file: FileId) {
        self.free.push_back(file);
    }

    /// The file to be made, if fewer are free than should be, and there may be more than those and
    /// the `used_count` in use.
    pub(crate) fn wanted(&mut self, used_count: usize) -> Option<FileId> {
        let free_count = length(self.free.len());
        let count = free_count.saturating_add(length(used_count));
        let is_wanted = free_count < self.reserve && count < self.count_max;
        if self.growth != Growth::Possible || !is_wanted {
            return None;
        }
        self.growth = Growth::UnderWay;
        Some(self.to_be_made())
    }

    pub(crate) fn on_created(&mut self) {
        assert_eq!(self.growth, Growth::UnderWay, "no file was asked for");
        self.growth = Growth::Possible;
        self.has_room = true;
        self.free.push_back(self.to_be_made());
        if self.unfinished.pop_front().is_none() {
            self.next.0 += 1;
        }
    }

    pub(crate) fn on_no_room(&mut self) {
        assert_eq!(self.growth, Growth::UnderWay, "no file was asked for");
        self.growth = Growth::Refused;
        self.has_room = false;
    }

    pub(crate) fn try_again(&mut self) {
        if self.growth == Growth::Refused {
            self.growth = Growth::Possible;
        }
    }

    /// The number of segments that there may be besides the `used_count` in use.
    pub(crate) fn left(&self, used_count: usize) -> u32 {
        let free_count = length(self.free.len());
        match self.has_room {
            true => self.count_max.saturating_sub(length(used_count)).max(free_count),
            false => free_count,
        }
    }

    /// How many are free: made, and not in use.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Whether there may be more besides those and the `used_count` in use, as far as is known.
    pub(crate) fn can_grow(&self, used_count: usize) -> bool {
        let count = length(self.free.len()).saturating_add(length(used_count));
        self.growth != Growth::Refused && count < self.count_max
    }

    /// Asserts that no file is both free and one of `used`.
    pub(crate) fn validate(&self, mut used: impl Iterator<Item = FileId>) {
        assert!(
            used.all(|file| !self.free.contains(&file) && file < self.next),
            "a file is used twice"
        );
        assert!(self.free.iter().all(|file| *file < self.next), "a file is free and not there");
        let is_finished = |file: &FileId| !self.unfinished.contains(file);
        assert!(self.free.iter().all(is_finished), "a file is free and too short");
    }

    fn to_be_made(&self) -> FileId {
        self.unfinished.front().copied().unwrap_or(self.next)
    }
}
