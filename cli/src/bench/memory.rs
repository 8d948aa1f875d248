//! The memory of this process, as the kernel counts it.

use std::fmt;

use serde::Serialize;

/// The memory of a cluster in this process, with its callers.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    pub(super) resident_bytes: u64,
    /// The part of it that is on huge pages. A large table on others costs every access the
    /// translation of its address.
    pub(super) huge_page_bytes: u64,
}

impl Memory {
    /// Returns that of this moment, where the kernel tells.
    pub(crate) fn now() -> Option<Self> {
        Self::read(&std::fs::read_to_string("/proc/self/smaps_rollup").ok()?)
    }

    fn read(rollup: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let kib =
                rollup.lines().find_map(|line| line.strip_prefix(name))?.strip_suffix("kB")?;
            kib.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Self { resident_bytes: bytes("Rss:")?, huge_page_bytes: bytes("AnonHugePages:")? })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [resident, huge] = [self.resident_bytes, self.huge_page_bytes].map(|bytes| bytes >> 20);
        write!(f, "{resident} MiB resident, {huge} MiB of it on huge pages")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_sums_are_read() {
        let rollup = "7ffc-7ffd ---p 0 0:0 0 [rollup]\nRss:  3072 kB\nAnonHugePages:   2048 kB\n";
        let memory = Memory::read(rollup).unwrap();
        assert_eq!(memory.to_string(), "3 MiB resident, 2 MiB of it on huge pages");
        assert!(Memory::read("Rss: 3072 kB\n").is_none());
        assert!(Memory::now().unwrap().resident_bytes > 0);
    }
}
