//! The numbers of the protocol, each its own type so that no two can be swapped by accident.

use std::fmt;

/// A position in the log. Slots start at zero, are decided in any order and executed in this one.
///
/// source: R30, "slots and numbers are u64 and never wrap"
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u64);

/// An *exclusive* upper bound in the log: all slots below it are chosen, executed or truncated.
///
/// Inclusive bounds are an `Option<Slot>`; that the two are different types is R17.
///
/// source: R17
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Watermark(pub u64);

/// A leader's claim on the log, totally ordered: by `round`, then by `proposer`, then by
/// `incarnation`.
///
/// No two processes ever hold the same ballot, not even two lives of one proposer, because the
/// incarnation differs. That is what lets an acceptor keep just the largest ballot, and what makes
/// "one ballot, one value a slot" true.
///
/// source: R2
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ballot {
    /// Counts attempts from 1 on; 0 is the ballot below all others. Declared first: it decides
    /// the derived order.
    pub round: u64,
    /// The proposer that claims.
    pub proposer: ProposerId,
    /// Which life of that proposer claims.
    pub incarnation: Incarnation,
}

/// One life of a process: a durable counter, or 64 random bits handed in by the runtime. Never a
/// clock.
///
/// source: R2
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation(pub u64);

/// The identity of an acceptor's or replica's memory: a random number made with its data directory,
/// or, in memory, at each start. A memory that forgets gets a new one.
///
/// source: R4
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DirectoryId(pub u64);

/// The hash of a cluster's [`Table`](crate::Table): which acceptors, by directory, make it up.
///
/// source: R4
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FormationId(pub u64);

impl FormationId {
    /// The formation of no cluster: that of a snapshot from which one is to start. No table has it.
    pub const NONE: Self = Self(0);
}

/// A proposer, `0..proposers`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProposerId(pub u8);

/// A proxy leader, `0..proxy_leaders`; without any, each proposer has its own, of its own number.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProxyLeaderId(pub u8);

/// An acceptor, `0..64`: its place in the cluster's ordered list of acceptors.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AcceptorId(pub u8);

/// A replica, `0..replicas`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReplicaId(pub u8);

/// A gateway, `0..gateways`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GatewayId(pub u8);

/// A client of one gateway; the gateway's runtime numbers them.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub u32);

/// A batch: which gateway formed it, in which life, and its running number in that life.
///
/// source: R24, "batch ids carry the gateway's incarnation"
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BatchId {
    /// The gateway that formed it.
    pub gateway: GatewayId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Counts that life's batches, from 0.
    pub number: u64,
}

/// A command's place in the log.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Its slot.
    pub slot: Slot,
    /// Its index among that slot's commands.
    pub index: u32,
}

/// A command of the log, by its place and what it is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LoggedCommand {
    /// Its place.
    pub at: Position,
    /// The CRC32C of its bytes.
    pub checksum: u32,
}

/// A session: named by the place of its `Open` in the log, hence never reused.
///
/// source: R22
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId {
    /// The slot of its `Open`.
    pub slot: Slot,
    /// The index of its `Open` among that slot's commands.
    pub index: u32,
}

impl SessionId {
    /// Its bytes, in which a client is told it: slot, and index.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.slot.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.index.to_le_bytes());
        bytes
    }

    /// The session of these bytes; `None` if they are not twelve.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (slot, index) = bytes.split_first_chunk()?;
        let index = u32::from_le_bytes(index.try_into().ok()?);
        Some(Self { slot: Slot(u64::from_le_bytes(*slot)), index })
    }
}

impl Slot {
    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The bound that covers this slot and all below it.
    #[must_use]
    pub fn watermark_after(self) -> Watermark {
        Watermark(self.0 + 1)
    }
}

impl Watermark {
    /// Whether `slot` is below this bound.
    #[must_use]
    pub fn covers(self, slot: Slot) -> bool {
        slot.0 < self.0
    }

    /// The first slot that is not below this bound.
    #[must_use]
    pub fn first_open(self) -> Slot {
        Slot(self.0)
    }

    /// Moves the bound up to `to`; returns whether it moved. Never moves it down.
    pub fn raise(&mut self, to: Self) -> bool {
        let moved = to > *self;
        if moved {
            *self = to;
        }
        moved
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.0)
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.0)
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{}.{:x}", self.round, self.proposer.0, self.incarnation.0)
    }
}

impl fmt::Display for FormationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch {} of gateway {}.{:x}", self.number, self.gateway.0, self.incarnation.0)
    }
}

impl fmt::Display for LoggedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at: Position { slot, index }, checksum } = self;
        write!(f, "command {index} of slot {} (checksum {checksum:08x})", slot.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}.{}", self.slot, self.index)
    }
}
