//! How messages travel between the cores of a process.
//!
//! One [`mailbox`] for each ordered pair of cores, one message in it a tick.

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
