//! `durability`, and how large logs may become.

use loggos_protocol::{ClusterSettings, SettingsError};
use loggos_storage::{BLOCK_BYTES, Options};

use super::error::{Report, instead};
use super::given::Given;
use super::value::shown;

/// Files of a log that are made ahead, and kept back for what frees others.
const SEGMENTS_RESERVE: u32 = 2;
/// The longest write of the log, where segments are long enough.
const WRITE_BYTES_MAX: u32 = 1 << 20;
/// The bytes of a segment beside two of the longest batches: its head, and its end.
const SEGMENT_ROOM_BYTES: u32 = 128 << 10;

/// The place where acceptors keep their promises and votes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// In memory: an acceptor whose process has ended is gone for good (R4).
    Memory,
    /// In a log on disk, synced before anything is said (R31).
    Sync,
}

/// The bounds of each core's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LogLimits {
    /// All of it; what exceeds a multiple of `segment_bytes` is not used.
    pub bytes_max: u64,
    /// Each of its files. Fixed when a node is formatted.
    pub segment_bytes: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { bytes_max: 4 << 30, segment_bytes: 64 << 20 }
    }
}

impl LogLimits {
    pub(crate) fn options(&self) -> Options {
        let segments = self.bytes_max / u64::from(self.segment_bytes.max(1));
        Options {
            segment_bytes: self.segment_bytes,
            segments_max: u32::try_from(segments).unwrap_or(u32::MAX),
            segments_reserve: SEGMENTS_RESERVE,
            write_bytes_max: WRITE_BYTES_MAX.min(self.segment_bytes / 4),
        }
    }

    /// Returns their mistakes, for batches of up to `batch_bytes_max`.
    pub(super) fn problems(&self, batch_bytes_max: u32) -> Vec<SettingsError> {
        let least = SEGMENT_ROOM_BYTES.saturating_add(batch_bytes_max.saturating_mul(2));
        let mut problems = Vec::new();
        let mut add = |setting, what| problems.push(SettingsError { setting, what });
        if self.segment_bytes < least {
            add(
                "log_segment_bytes",
                format!("must be at least {least}: twice batch_bytes_max and 128KiB"),
            );
        } else if !self.segment_bytes.is_multiple_of(BLOCK_BYTES) {
            add("log_segment_bytes", "must be a multiple of 4KiB".to_owned());
        } else if self.bytes_max / u64::from(self.segment_bytes) < 4 {
            add("log_bytes_max", "must be at least four log_segment_bytes".to_owned());
        } else {
            assert_eq!(self.options().problem(), None, "the log's limits were checked");
        }
        problems
    }
}

/// Returns the bytes that the log of so many acceptors may need until replicas have snapshots of
/// what is in it: what is written between two snapshots, and as much again while one is written.
/// Each slot takes its batch, and of an acceptor's log that is idle in between two blocks.
///
/// source: R16
pub(super) fn log_bytes_needed(cluster: &ClusterSettings, acceptors_count: u32) -> u64 {
    let blocks = u64::from(cluster.checkpoint_interval) * 2 * u64::from(BLOCK_BYTES);
    let batches = cluster.checkpoint_bytes.saturating_mul(acceptors_count.into());
    blocks.saturating_add(batches).saturating_mul(2)
}

/// Reads `durability`, if it is given.
pub(super) fn read_durability(given: &Given<'_>, report: &mut Report<'_>) -> Option<Durability> {
    let entry = given.entry("durability")?;
    match entry.value.get_ref().as_str() {
        Some("memory") => Some(Durability::Memory),
        Some("sync") => Some(Durability::Sync),
        Some(_) | None => {
            let hint = entry.value.get_ref().as_str().map_or_else(String::new, |word| {
                format!("; {}", instead(word, ["memory", "sync"]))
            });
            let shown = shown(entry.value.get_ref());
            let what = format!("must be \"memory\" or \"sync\", not {shown}{hint}");
            report.add_mistaken("durability", &entry.value.span(), &what);
            None
        }
    }
}
