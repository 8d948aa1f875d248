//! How large the log may become.

use crate::batch::HEAD_BYTES;
use crate::segment::opening_bytes_max;
use crate::{BLOCK_BYTES, Identity};

/// The bounds of a log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Options {
    /// The length of a segment, a multiple of [`BLOCK_BYTES`]. Fixed when the log is formatted.
    pub segment_bytes: u32,
    /// The number of segments that there may be, with those that wait to be used again; at least 4.
    pub segments_max: u32,
    /// With fewer than this left, free or still to be made, no new slots are taken; at least 2, and
    /// less than `segments_max` by 2. The last of them is kept for what frees others: truncations
    /// are records, too. As many files are made ahead, if the disk has room for them.
    pub segments_reserve: u32,
    /// How long a write may be, unless a single record is longer; what is beyond is the next one.
    pub write_bytes_max: u32,
}

impl Default for Options {
    /// 4 GiB in segments of 64 MiB, two of them kept back, and writes of up to 1 MiB.
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_max: 64,
            segments_reserve: 2,
            write_bytes_max: 1 << 20,
        }
    }
}

impl Options {
    /// The mistake in them, if there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        let opening_bytes = opening_bytes_max(64);
        let segment_bytes_min = opening_bytes + 4 * BLOCK_BYTES;
        // A write that does not fit behind any opening, with a mark behind it, would open segment
        // after segment.
        let room_bytes = self.segment_bytes.saturating_sub(opening_bytes + BLOCK_BYTES);
        let problems = [
            (
                !self.segment_bytes.is_multiple_of(BLOCK_BYTES),
                "segment_bytes is no multiple of 4096",
            ),
            (self.segment_bytes < segment_bytes_min, "segment_bytes is below 64 KiB"),
            (self.segment_bytes > 1 << 30, "segment_bytes is above 1 GiB"),
            (self.segments_reserve < 2, "segments_reserve is below 2"),
            (
                self.segments_max < self.segments_reserve.saturating_add(2),
                "segments_max is not 2 above segments_reserve",
            ),
            (self.write_bytes_max < BLOCK_BYTES, "write_bytes_max is below 4096"),
            (
                self.write_bytes_max > self.segment_bytes / 4,
                "write_bytes_max is above a quarter of segment_bytes",
            ),
            (
                self.write_bytes_max > room_bytes,
                "write_bytes_max is above what a segment of segment_bytes has room for",
            ),
        ];
        problems.iter().find(|(is_one, _)| *is_one).map(|(_, problem)| *problem)
    }

    /// The longest record that fits in a fresh segment of `identity`'s log, in bytes: its value's
    /// block may be that long, less 640.
    #[must_use]
    pub fn record_bytes_max(&self, identity: &Identity) -> u32 {
        // The batch may end anywhere in its last block, and a mark's block is behind it.
        let opening = opening_bytes_max(identity.acceptors.len() as usize);
        self.segment_bytes - opening - HEAD_BYTES - BLOCK_BYTES
    }
}
