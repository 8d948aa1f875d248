//! How messages travel, between the cores of a process and between processes; and how a core does
//! I/O and sleeps.
//!
//! ```text
//!   a core of the same process     mailbox     parcels, each handed over as one vector; Slumber wakes the receiver
//!   a core of another process      wire        messages as frames, and back
//!                                  Outgoing    what a connection sends next: written bytes and references
//!                                  Ring        all sockets of a core, and the writes of its log, on one io_uring
//! ```

#![deny(unsafe_code)]

mod mailbox;
mod outgoing;
mod ring;
mod slumber;
pub mod wire;

pub use mailbox::{MailboxReceiver, MailboxSender, mailbox};
pub use outgoing::Outgoing;
pub use ring::{
    AlignedBytes, CONNECT_MAX, CloseReason, ConnectionId, Ring, RingCounters, RingEvent, RingFile,
    RingOptions, RingRecord, Written,
};
pub use slumber::Slumber;
