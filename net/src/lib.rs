//! How messages travel between the cores of a process.
//!
//! One [`mailbox`] for each ordered pair of cores, one message in it a tick.

#![forbid(unsafe_code)]

mod mailbox;

pub use mailbox::{MailboxReceiver, MailboxSender, mailbox};
