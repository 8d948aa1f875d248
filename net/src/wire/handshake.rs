//! The first words on a connection.
//!
//! ```text
//!   the connecting side             the accepting side
//!      │ ── Hello ──────────────────────▶ │   versions, digests, formation, what for
//!      │ ◀────────────────────── Welcome ─│   the version to speak, limits
//!      │ ◀── or ──────────────── Refusal ─│   why not; then it closes
//!      │ ── Log ────────────────────────▶ │   now and then: how far a peer's log is (R33)
//! ```
//!
//! **The same in every version, for ever**: the head of a frame, what a Hello begins with (magic,
//! versions, digest of the headers), and all of a Refusal. So a process that speaks other versions
//! can be told so. A Hello is written in the lowest version that its sender speaks.

use loggos_protocol::{DirectoryId, FormationId};

use super::cursor::Cursor;
use super::encode::frame;
use super::layout::{Laid, Layout, put};
use super::{Kind, Message, WIRE_VERSION, WireError, headers, wire_digest};
use crate::Outgoing;

/// The longest name of a cluster, in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// The longest explanation in a [`Refusal`], in bytes. What is longer is cut.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 256;

const MAGIC: [u8; 6] = *b"LOGGOS";

/// The first frame on a connection, from the side that has connected.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Hello {
    /// The digest of the sender's header layout: see [`wire_digest`].
    pub wire_digest: u64,
    /// The lowest and the highest version that the sender speaks.
    pub versions: (u8, u8),
    /// The cluster that the sender belongs to, of up to [`CLUSTER_NAME_BYTES_MAX`] bytes.
    pub cluster_name: String,
    /// The digest of the properties that all nodes of a cluster share (R3): see
    /// [`ClusterSettings::digest`](loggos_protocol::ClusterSettings::digest).
    pub cluster_digest: u64,
    /// The formation that the sender belongs to, if it knows of one (R4).
    pub formation: Option<FormationId>,
    /// The life of the sending process, or core of one.
    pub nonce: u64,
    /// The position of the sending core's log, if it is a peer's and has one (R33).
    pub log: Option<LogPosition>,
    /// The purpose of the connection.
    pub purpose: Purpose,
}

impl Hello {
    /// Returns the hello of a sender that is no node, to the cluster of that name, or to any.
    #[must_use]
    pub fn of_client(cluster_name: String, purpose: Purpose, nonce: u64) -> Self {
        Self {
            wire_digest: wire_digest(),
            versions: (WIRE_VERSION, WIRE_VERSION),
            cluster_name,
            cluster_digest: 0,
            formation: None,
            nonce,
            log: None,
            purpose,
        }
    }
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Purpose {
    /// Messages from the roles of one core to those of another.
    Peer {
        /// The sender's node.
        from_node: u8,
        /// Its core.
        from_core: u8,
        /// The receiver's node.
        to_node: u8,
        /// Its core.
        to_core: u8,
    },
    /// A client's commands.
    Client,
    /// Questions for the status.
    Status,
}

/// Where a core's log stands, by the numbers of its batches: what peers remember of it, to know an
/// older copy by (R33).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LogPosition {
    /// The memory that it belongs to (R4).
    pub directory: DirectoryId,
    /// The last batch that this life of the core found, before it added its own: the same as long
    /// as that lasts.
    pub recovered: u64,
    /// The last batch that is durable: never goes down.
    pub synced: u64,
}

/// The answer to a [`Hello`] that was accepted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Welcome {
    /// The version that both speak from now on.
    pub version: u8,
    /// The life of the answering process, or core of one.
    pub nonce: u64,
    /// The formation that it belongs to, if it knows of one (R4).
    pub formation: Option<FormationId>,
    /// The position of the answering core's log, if it has one and a peer has connected (R33).
    pub log: Option<LogPosition>,
    /// The most commands of a client without an answer.
    pub commands_in_flight_max: u32,
    /// The longest command.
    pub command_bytes_max: u32,
}

/// The answer to a [`Hello`] that was not accepted, or the last word on a connection.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// The same for a person, of up to [`REFUSAL_TEXT_BYTES_MAX`] bytes.
    pub text: String,
}

/// The reason why a connection is refused.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Reason {
    /// No version is spoken by both.
    Version = 1,
    /// The same version, with headers laid out otherwise.
    Wire = 2,
    /// Another cluster.
    Cluster = 3,
    /// The same cluster, configured otherwise (R3).
    Digest = 4,
    /// Another formation (R4).
    Formation = 5,
    /// Another node or core than the one that was meant.
    Node = 6,
    /// The bytes that arrived are no frame, or a frame that is not expected here.
    Malformed = 7,
    /// There are as many connections as there may be.
    Busy = 8,
    /// The node is about to stop.
    Stopping = 9,
    /// A log that has forgotten what it had once: an older copy of it (R33).
    Older = 10,
    /// The cluster does not serve the gateway (R37). Clients that are connected hear it, too; that
    /// connection stays, for answers.
    Unserved = 11,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 11] = [
        Self::Version,
        Self::Wire,
        Self::Cluster,
        Self::Digest,
        Self::Formation,
        Self::Node,
        Self::Malformed,
        Self::Busy,
        Self::Stopping,
        Self::Older,
        Self::Unserved,
    ];
}

/// Appends a hello.
///
/// # Panics
///
/// Panics if the cluster's name is longer than [`CLUSTER_NAME_BYTES_MAX`].
pub fn encode_hello(hello: &Hello, out: &mut Outgoing) {
    let name = hello.cluster_name.as_bytes();
    assert!(name.len() <= CLUSTER_NAME_BYTES_MAX, "a cluster's name of {} bytes", name.len());
    let (version_min, version_max) = hello.versions;
    let greeting = headers::Greeting {
        magic: MAGIC,
        version_min,
        version_max,
        wire_digest: hello.wire_digest.into(),
    };
    let (purpose, path) = purpose_number(hello.purpose);
    let (cluster_name_bytes, cluster_name) = (byte(name.len()), padded(name));
    let header = headers::Hello {
        cluster_digest: hello.cluster_digest.into(),
        formation: hello.formation.lay_out(),
        nonce: hello.nonce.into(),
        log: hello.log.lay_out(),
        purpose,
        path,
        cluster_name_bytes,
        cluster_name,
    };
    let write = |out: &mut Outgoing| {
        put(&greeting, out);
        put(&header, out);
    };
    frame(Kind::Hello, out, write, |_| ());
}

/// Appends a welcome.
pub fn encode_welcome(welcome: &Welcome, out: &mut Outgoing) {
    let header = headers::Welcome {
        version: welcome.version,
        nonce: welcome.nonce.into(),
        formation: welcome.formation.lay_out(),
        log: welcome.log.lay_out(),
        commands_in_flight_max: welcome.commands_in_flight_max.into(),
        command_bytes_max: welcome.command_bytes_max.into(),
    };
    frame(Kind::Welcome, out, |out| put(&header, out), |_| ());
}

/// Appends how far the sender's log is by now.
pub fn encode_log(log: &LogPosition, out: &mut Outgoing) {
    frame(Kind::Log, out, |out| put(&log.lay_out(), out), |_| ());
}

/// Appends a refusal, with as much of its text as there is room for.
pub fn encode_refusal(refusal: &Refusal, out: &mut Outgoing) {
    let end = refusal.text.floor_char_boundary(REFUSAL_TEXT_BYTES_MAX);
    let text = &refusal.text.as_bytes()[..end];
    let text_bytes = u16::try_from(text.len()).expect("it was cut");
    let header = headers::Refusal {
        reason: refusal.reason as u8,
        text_bytes: text_bytes.into(),
        text: padded(text),
    };
    frame(Kind::Refusal, out, |out| put(&header, out), |_| ());
}

/// Reads a Hello, of which all that is certain is how it begins.
pub(super) fn take_hello(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let greeting: &headers::Greeting = from.header()?;
    if greeting.magic != MAGIC {
        return Err(WireError::Magic);
    }
    let versions @ (min, max) = (greeting.version_min, greeting.version_max);
    if from.version() != WIRE_VERSION || !(min..=max).contains(&WIRE_VERSION) {
        return Err(WireError::Versions { min, max });
    }
    let digest = u64::from(greeting.wire_digest);
    let hello = take_rest_of_hello(digest, versions, from).map_err(|error| {
        if digest == wire_digest() { error } else { WireError::WireDigest { digest } }
    });
    hello.map(Message::Hello)
}

fn take_rest_of_hello(
    wire_digest: u64,
    versions: (u8, u8),
    from: &mut Cursor<'_>,
) -> Result<Hello, WireError> {
    let header: &headers::Hello = from.header()?;
    from.end()?;
    let name_bytes = usize::from(header.cluster_name_bytes);
    let log: Option<LogPosition> = Laid::read(&header.log)?;
    let purpose = purpose(header.purpose, &header.path)?;
    if log.is_some() && !matches!(purpose, Purpose::Peer { .. }) {
        return Err(WireError::Absent);
    }
    Ok(Hello {
        wire_digest,
        versions,
        cluster_name: text(&header.cluster_name, name_bytes)?,
        cluster_digest: header.cluster_digest.into(),
        formation: Laid::read(&header.formation)?,
        nonce: header.nonce.into(),
        log,
        purpose,
    })
}

pub(super) fn take_welcome(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &headers::Welcome = from.header()?;
    Ok(Message::Welcome(Welcome {
        version: header.version,
        nonce: header.nonce.into(),
        formation: Laid::read(&header.formation)?,
        log: Laid::read(&header.log)?,
        commands_in_flight_max: header.commands_in_flight_max.into(),
        command_bytes_max: header.command_bytes_max.into(),
    }))
}

pub(super) fn take_log(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &headers::LogPosition = from.header()?;
    LogPosition::read(header).map(Message::Log)
}

pub(super) fn take_refusal(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &headers::Refusal = from.header()?;
    let mut reasons = Reason::ALL.into_iter();
    let reason = reasons.find(|reason| *reason as u8 == header.reason);
    let unknown = WireError::Discriminant { of: "reason", value: header.reason };
    let text = text(&header.text, usize::from(u16::from(header.text_bytes)))?;
    Ok(Message::Refusal(Refusal { reason: reason.ok_or(unknown)?, text }))
}

impl Laid for LogPosition {
    type Layout = headers::LogPosition;

    fn lay_out(&self) -> headers::LogPosition {
        headers::LogPosition {
            directory: self.directory.lay_out(),
            recovered: self.recovered.into(),
            synced: self.synced.into(),
        }
    }

    fn read(layout: &headers::LogPosition) -> Result<Self, WireError> {
        Ok(Self {
            directory: Laid::read(&layout.directory)?,
            recovered: layout.recovered.into(),
            synced: layout.synced.into(),
        })
    }
}

fn purpose_number(purpose: Purpose) -> (u8, headers::Path) {
    match purpose {
        Purpose::Peer { from_node, from_core, to_node, to_core } => {
            (1, headers::Path { from_node, from_core, to_node, to_core })
        }
        Purpose::Client => (2, Layout::ZERO),
        Purpose::Status => (3, Layout::ZERO),
    }
}

fn purpose(number: u8, path: &headers::Path) -> Result<Purpose, WireError> {
    let headers::Path { from_node, from_core, to_node, to_core } = *path;
    let purpose = match number {
        1 => Purpose::Peer { from_node, from_core, to_node, to_core },
        2 => Purpose::Client,
        3 => Purpose::Status,
        value => return Err(WireError::Discriminant { of: "purpose", value }),
    };
    if purpose_number(purpose).1 != *path {
        return Err(WireError::Absent);
    }
    Ok(purpose)
}

/// Fills the place of a text up with zeros.
fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut padded = [0; N];
    padded[..text.len()].copy_from_slice(text);
    padded
}

/// Reads the text of `bytes` bytes; zeros follow it.
fn text(padded: &[u8], bytes: usize) -> Result<String, WireError> {
    let (text, rest) = padded.split_at_checked(bytes).ok_or(WireError::Text)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(WireError::Absent);
    }
    let text = std::str::from_utf8(text).map_err(|_| WireError::Text)?;
    Ok(text.to_owned())
}

fn byte(count: usize) -> u8 {
    u8::try_from(count).expect("a cluster's name is short")
}
