//! A record of a ring's sends and writes, for tests of their order.

use super::{ConnectionId, RingFile};

/// Something that a ring has started, before the kernel hears of it, or whose end it has seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RingRecord {
    /// A send was started, of all these bytes.
    Send(ConnectionId, Vec<u8>),
    /// A write was started.
    Write {
        /// To which file.
        file: RingFile,
        /// At which byte.
        offset: u64,
        /// Of how many.
        bytes: usize,
    },
    /// A write has come to its end.
    Written {
        /// To which file.
        file: RingFile,
        /// Whether all of it is durable.
        is_durable: bool,
    },
}
