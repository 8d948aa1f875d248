//! A connection, its stage, and the bounds of connections.
//!
//! ```text
//!   stage                                 what its other end may send
//!   called by us ──▶ Link                 a welcome; a refusal
//!   accepted ──────▶ Unknown              a hello
//!        welcomed ─▶ Admitted(Party)      a peer messages, a client commands and status requests, others status requests
//!        refused ──▶ Refused              nothing: it is closed once it was told why
//! ```

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use loggos_net::wire::{Commands, FrameReader, Hello, Reads, RepliesWriter};
use loggos_protocol::{SessionId, Time};

use super::budget::Account;

/// The longest time until an accepted connection has said hello, until a called core has answered,
/// and that one is there which asks for the status.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(5);
/// The most connections of clients, where there are descriptors for as many.
pub(crate) const CLIENTS_MAX: usize = 3072;
/// The most connections that have not said what they are, likewise; and the most clients that are
/// on their way to another core.
pub(crate) const STRANGERS_MAX: usize = 1024;
/// The most connections that ask for the status.
pub(crate) const STATUS_MAX: usize = 16;
/// The longest frame that a peer may send: a page of votes is one, and ends after the batch that is
/// one too many. Its checksum is checked before room is made for it.
pub(super) const PEER_FRAME_BYTES_MAX: u32 = 256 << 20;

/// What a client has asked for in one frame.
#[derive(Debug)]
pub(super) enum Asked {
    Commands(Commands),
    Reads(Reads),
}

/// A connection, by what it has said so far.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) reader: FrameReader,
    pub(super) stage: Stage,
    pub(super) address: SocketAddr,
    /// The time when it was welcomed.
    admitted_at: Time,
    /// What it holds as a client.
    pub(super) account: Account,
    /// The session that its commands belong to, once it has one.
    pub(super) session: Option<SessionId>,
    /// Its commands or reads that were not taken in yet, of the last frame that was read.
    pub(super) asked: Option<Asked>,
    /// The replies to it of this tick.
    pub(super) replies: Option<RepliesWriter>,
}

/// The stage of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// Called by us, for the link of that index.
    Link(usize),
    /// Accepted; it has not said who it is.
    Unknown { since: Time },
    /// Accepted and welcomed.
    Admitted(Party),
    /// Was refused, and is closed once it has been told why.
    Refused { since: Time },
}

/// The other end of a connection that was welcomed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Party {
    /// A core of another node, in that life of it.
    Peer {
        node: u8,
        life: u64,
    },
    Client,
    /// Asks for the status.
    Status,
}

/// A connection on its way to another core of this node, with its hello.
#[derive(Debug)]
pub(crate) struct HandedOver {
    pub(super) socket: OwnedFd,
    pub(super) hello: Hello,
    /// With the bytes that came behind the hello.
    pub(super) connection: Box<Connection>,
    /// Counts as on its way, until the other core has judged it.
    pub(super) on_its_way: Arc<()>,
}

impl Connection {
    /// Returns a new connection with `address`, whose frames are at most `frame_bytes_max` long
    /// until it is known for a peer's.
    pub(super) fn new(stage: Stage, address: SocketAddr, frame_bytes_max: u32) -> Self {
        Self {
            reader: FrameReader::new(frame_bytes_max),
            stage,
            address,
            admitted_at: Time(0),
            account: Account::default(),
            session: None,
            asked: None,
            replies: None,
        }
    }

    /// Welcomes it.
    pub(super) fn admit(&mut self, party: Party, now: Time) {
        self.admitted_at = now;
        if matches!(party, Party::Peer { .. }) {
            self.reader.set_frame_bytes_max(PEER_FRAME_BYTES_MAX);
        }
        self.stage = Stage::Admitted(party);
    }

    /// Whether it was accepted, and is none of those that were welcomed.
    pub(super) fn is_stranger(&self) -> bool {
        matches!(self.stage, Stage::Unknown { .. } | Stage::Refused { .. })
    }

    /// The link that it was called for.
    pub(super) fn link(&self) -> Option<usize> {
        match self.stage {
            Stage::Link(link) => Some(link),
            Stage::Unknown { .. } | Stage::Admitted(_) | Stage::Refused { .. } => None,
        }
    }

    /// Returns its other end, once that was welcomed.
    pub(super) fn party(&self) -> Option<Party> {
        match self.stage {
            Stage::Admitted(party) => Some(party),
            Stage::Link(_) | Stage::Unknown { .. } | Stage::Refused { .. } => None,
        }
    }

    /// Whether it has taken too long to say who it is, to read why it is refused, or to ask for the
    /// status: those that may ask are few, and one that stays keeps another out.
    pub(super) fn is_late(&self, now: Time) -> bool {
        match self.stage {
            Stage::Unknown { since } | Stage::Refused { since } => now.since(since) > GREETING_MAX,
            Stage::Admitted(Party::Status) => now.since(self.admitted_at) > GREETING_MAX,
            Stage::Link(_) | Stage::Admitted(Party::Peer { .. } | Party::Client) => false,
        }
    }
}
