//! Messages as bytes: frames with a fixed head, an rkyv header and raw payloads.
//!
//! ```text
//!   Envelope ──encode──▶ Outgoing ═══ socket ═══▶ Bytes ──FrameReader──▶ Frame ──decode──▶ Message
//!                            │                      ▲ │                                       │
//!                            └── payloads by ref ───┘ └────────── payloads by reference ──────┘
//! ```
//!
//! Every byte is described in `docs/WIRE.md`. Nothing here does I/O, and nothing that arrives makes
//! it panic: what is not as it should be is a [`WireError`], after which the connection is of no
//! more use.
//!
//! What is checked where. Head and header of every frame: their checksum, then that every field is
//! one, that what is absent is zero, and that the lengths add up. Blocks of batches: against the
//! checksum that their gateway made, by every receiver, since a proxy leader hands them to an
//! acceptor of its own process without a frame. Outcomes, commands, replies and status: against one
//! that their sender made.

mod bodies;
mod client;
mod cursor;
mod decode;
mod encode;
mod error;
mod halts;
mod handshake;
mod head;
mod headers;
mod kind;
mod layout;
mod pool;
mod reader;
mod run;
mod values;

use loggos_protocol::{Envelope, Failure, LoggedCommand, Payload, SessionId};

pub use client::{
    Commands, CommandsWriter, Reads, ReadsWriter, Replies, RepliesWriter, encode_failed,
    encode_session, encode_skip, encode_status, encode_status_request,
};
pub use decode::Frame;
pub use error::WireError;
pub use handshake::{
    CLUSTER_NAME_BYTES_MAX, Hello, LogPosition, Purpose, REFUSAL_TEXT_BYTES_MAX, Reason, Refusal,
    Welcome, encode_hello, encode_log, encode_refusal, encode_welcome,
};
pub use head::{HEAD_BYTES, WIRE_VERSION};
pub use kind::{Kind, encode};
pub use pool::BatchPool;
pub use reader::FrameReader;
pub use run::RUN_BYTES_MAX;

/// The content of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// A message between roles.
    Envelope(Envelope),
    /// The sender has connected, and says who it is.
    Hello(Hello),
    /// The connection is accepted.
    Welcome(Welcome),
    /// It is not.
    Refusal(Refusal),
    /// The position of the sender's log by now (R33).
    Log(LogPosition),
    /// From a client: its session, or its wish for one. To a client: the session that it has got.
    Session {
        /// The session.
        session: Option<SessionId>,
        /// What a client asks for one by.
        key: u64,
    },
    /// Commands of a client.
    Commands(Commands),
    /// Reads of a client.
    Reads(Reads),
    /// Replies to commands and reads of a client.
    Replies(Replies),
    /// A command or read of a client has no reply.
    Failed {
        /// The number that the client gave it.
        number: u64,
        /// Why.
        failure: Failure,
    },
    /// A question for the node's status.
    StatusRequest,
    /// A command is to be skipped, at which all replicas have halted.
    Skip(LoggedCommand),
    /// The node's status.
    Status(Payload),
}

/// A digest of how all headers are laid out, by the names and sizes of their fields, and of the
/// numbers of the kinds. Two builds with different digests do not understand each other, even if
/// they claim the same version.
#[must_use]
pub fn wire_digest() -> u64 {
    const DIGEST: u64 = digest();
    DIGEST
}

/// FNV-1a, as all digests of Loggos.
const fn digest() -> u64 {
    let mut digest = 0xCBF2_9CE4_8422_2325;
    let mut at = 0;
    while at < headers::LAYOUTS.len() {
        let layout = headers::LAYOUTS[at];
        digest = digest_text(digest, layout.name);
        let mut field = 0;
        while field < layout.fields.len() {
            let (name, size) = layout.fields[field];
            digest = digest_bytes(digest_text(digest, name), &(size as u64).to_le_bytes());
            field += 1;
        }
        at += 1;
    }
    let mut at = 0;
    while at < Kind::ALL.len() {
        let kind = Kind::ALL[at];
        digest = digest_bytes(digest_text(digest, kind.name()), &[kind.number()]);
        at += 1;
    }
    digest
}

/// Adds a text, and its length so that two do not run together.
const fn digest_text(digest: u64, text: &str) -> u64 {
    digest_bytes(digest_bytes(digest, text.as_bytes()), &(text.len() as u64).to_le_bytes())
}

const fn digest_bytes(mut digest: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        digest = (digest ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        at += 1;
    }
    digest
}
