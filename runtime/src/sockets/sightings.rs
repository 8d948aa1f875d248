//! The last known positions of other cores' logs, by which an older copy of a log is recognised.
//!
//! ```text
//!   this life of a log      began with ───────▶ is at          told by hello, welcome, log
//!   an earlier life         … was at ─┐
//!                                     └─ above what this life began with? Then this log is an older copy
//! ```
//!
//! A core tells of synced batches only, and recovery finds all batches that were synced. So a life
//! that began with less than another life had reached is not its successor. Numbers of one and the
//! same life never count against it, in any order of arrival: the batch that it began with does not
//! change.
//!
//! source: R33

use std::fmt;

use loggos_net::wire::LogPosition;
use loggos_protocol::DirectoryId;

/// The last batches that were seen of up to `logs_max` logs. The log that was not seen for longest
/// is forgotten first.
#[derive(Debug)]
pub(crate) struct Sightings {
    /// In the order in which they were last seen.
    seen: Vec<Sighting>,
    logs_max: usize,
}

/// The last known position of one log.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    directory: DirectoryId,
    /// The life that has told of it last.
    life: u64,
    /// The last batch that this life has told of. Never goes down within a life.
    synced: u64,
    /// The last batch that any other life has told of. Never goes down.
    earlier: u64,
}

/// A log that is an older copy: its life began with less than had been synced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Older {
    /// The last batch that it began with.
    recovered: u64,
    /// The last batch that was seen of another life.
    seen: u64,
}

impl Sightings {
    /// Returns sightings of no log, and later of `logs_max` logs at the most.
    pub(crate) fn new(logs_max: usize) -> Self {
        assert!(logs_max > 0, "it could remember no log");
        Self { seen: Vec::new(), logs_max }
    }

    /// Remembers where a log stands in that `life` of its core.
    ///
    /// # Errors
    ///
    /// If the log is an older copy; then nothing is remembered of this life.
    ///
    /// source: R33, "an older backup … is caught where a live peer has seen a later log number"
    pub(crate) fn see(&mut self, life: u64, log: LogPosition) -> Result<(), Older> {
        let LogPosition { directory, recovered, synced } = log;
        let at = self.seen.iter().position(|seen| seen.directory == directory);
        let last = at.map(|at| self.seen[at]);
        let last = last.unwrap_or(Sighting { directory, life, synced: 0, earlier: 0 });
        let next = match last.life == life {
            true => Sighting { synced: last.synced.max(synced), ..last },
            false => Sighting { directory, life, synced, earlier: last.earlier.max(last.synced) },
        };
        if recovered < next.earlier {
            return Err(Older { recovered, seen: next.earlier });
        }
        match at {
            Some(at) => drop(self.seen.remove(at)),
            None if self.seen.len() == self.logs_max => drop(self.seen.remove(0)),
            None => {}
        }
        self.seen.push(next);
        Ok(())
    }
}

impl fmt::Display for Older {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recovered, seen } = self;
        write!(
            f,
            "the log is an older copy: it was recovered up to batch {recovered}, and batch {seen} was synced"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(directory: u64, recovered: u64, synced: u64) -> LogPosition {
        LogPosition { directory: DirectoryId(directory), recovered, synced }
    }

    #[test]
    fn r33_a_log_that_comes_back_with_less_than_was_seen_is_an_older_copy() {
        let mut sightings = Sightings::new(4);
        assert_eq!(sightings.see(1, at(7, 5, 9)), Ok(()));
        for recovered in 0..9 {
            let older = Err(Older { recovered, seen: 9 });
            // However far it has come since, with others' help.
            assert_eq!(sightings.see(2, at(7, recovered, recovered)), older);
            assert_eq!(sightings.see(2, at(7, recovered, 100)), older);
        }
        assert_eq!(sightings.see(3, at(7, 9, 9)), Ok(()), "all that was synced is there");
        assert_eq!(sightings.see(4, at(7, 8, 8)), Err(Older { recovered: 8, seen: 9 }));
    }

    #[test]
    fn r33_numbers_of_the_same_life_never_count_against_it() {
        let mut sightings = Sightings::new(4);
        for synced in [5, 9, 6, 5, 12, 5] {
            assert_eq!(sightings.see(1, at(7, 5, synced)), Ok(()));
        }
        assert_eq!(sightings.see(2, at(7, 12, 20)), Ok(()));
        assert_eq!(sightings.see(2, at(7, 12, 13)), Ok(()), "a hello that was overtaken");
        assert_eq!(sightings.see(3, at(7, 19, 19)), Err(Older { recovered: 19, seen: 20 }));
        assert_eq!(sightings.see(2, at(7, 12, 21)), Ok(()), "who was refused has changed nothing");
    }

    /// Of two lives at once, which one directory copied to another machine can have, one is
    /// stopped.
    #[test]
    fn r33_the_last_words_of_a_life_do_no_harm_to_the_next() {
        let mut sightings = Sightings::new(4);
        assert_eq!(sightings.see(1, at(7, 5, 9)), Ok(()));
        assert_eq!(sightings.see(2, at(7, 9, 9)), Ok(()));
        assert!(sightings.see(1, at(7, 5, 9)).is_err());
        assert_eq!(sightings.see(2, at(7, 9, 11)), Ok(()));
        // Nothing was written in between: it cannot be told which came first, nor need it.
        let mut sightings = Sightings::new(4);
        for life in [1, 2, 1, 2] {
            assert_eq!(sightings.see(life, at(7, 5, 5)), Ok(()));
        }
        assert_eq!(sightings.see(2, at(7, 5, 6)), Ok(()));
    }

    #[test]
    fn logs_are_told_apart_and_those_not_seen_for_longest_are_forgotten() {
        let mut sightings = Sightings::new(2);
        for directory in [1, 2] {
            assert_eq!(sightings.see(1, at(directory, 0, 9)), Ok(()));
        }
        assert_eq!(sightings.see(1, at(1, 0, 9)), Ok(()));
        assert_eq!(sightings.see(1, at(3, 0, 9)), Ok(()));
        assert!(sightings.see(2, at(1, 0, 0)).is_err());
        assert!(sightings.see(2, at(3, 0, 0)).is_err());
        assert_eq!(sightings.see(2, at(2, 0, 0)), Ok(()), "it is forgotten");
    }
}
