//! The errors of bytes that arrived.

use std::fmt;

/// The reason why bytes are no frame, or a frame says nothing. The connection is to be closed:
/// where the next frame would begin is not known, or its sender is not one of us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireError {
    /// A frame claims to be longer than a frame may be.
    TooLong {
        /// The length that it claims.
        length: u32,
        /// The greatest length allowed.
        max: u32,
    },
    /// A frame claims to be shorter than its head and header.
    TooShort {
        /// The length that it claims.
        length: u32,
        /// The header's length that it claims.
        header_bytes: u32,
    },
    /// A frame of another version, which is not a handshake.
    Version {
        /// That version.
        version: u8,
    },
    /// A Hello in another version, whose sender does not speak this one, or should have used it.
    Versions {
        /// The lowest version that the sender speaks.
        min: u8,
        /// The highest.
        max: u8,
    },
    /// A Hello in the same version, whose sender lays out headers in another way.
    WireDigest {
        /// The digest of those.
        digest: u64,
    },
    /// A frame of no kind.
    Kind {
        /// The number in the kind's place.
        kind: u8,
    },
    /// A part of the head that must be zero is not.
    Spare {
        /// Its value.
        spare: u16,
    },
    /// Head and header are not what they were when their checksum was made.
    HeaderChecksum {
        /// The checksum in the head.
        said: u32,
        /// The checksum of head and header as they arrived.
        is: u32,
    },
    /// A header is not as long as what it holds.
    HeaderLength {
        /// The bytes that should be left of it.
        needed: u64,
        /// The bytes that are left.
        is: usize,
    },
    /// A header that its layout does not admit.
    Malformed,
    /// A number that stands for nothing.
    Discriminant {
        /// The type that it should be a value of.
        of: &'static str,
        /// The number.
        value: u8,
    },
    /// Something that is said not to be there is not zero.
    Absent,
    /// The lengths of payloads do not add up to the frame's.
    Payloads {
        /// The length of the next payload; 0 after the last.
        wanted: usize,
        /// The bytes that are left.
        there: usize,
    },
    /// A payload is not what it was when its checksum was made.
    PayloadChecksum {
        /// The checksum in the header.
        said: u32,
        /// The checksum of the payload as it arrived.
        is: u32,
    },
    /// A Hello that does not begin as all do: no node or client of Loggos sent it.
    Magic,
    /// A text is not UTF-8, or longer than its place.
    Text,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooLong { length, max } => {
                write!(f, "a frame of {length} bytes, where {max} are the most")
            }
            Self::TooShort { length, header_bytes } => {
                write!(f, "a frame of {length} bytes with a header of {header_bytes}")
            }
            Self::Version { version } => write!(f, "a frame of version {version}"),
            Self::Versions { min, max } => {
                write!(f, "a hello of the wire versions {min} to {max}")
            }
            Self::WireDigest { digest } => {
                write!(f, "a hello of another message layout, with digest {digest:016x}")
            }
            Self::Kind { kind } => write!(f, "a frame of the unknown kind {kind:#04x}"),
            Self::Spare { spare } => {
                write!(f, "a head with {spare:#06x} in the place that is always zero")
            }
            Self::HeaderChecksum { said, is } => {
                write!(f, "a header with checksum {is:08x} instead of {said:08x}")
            }
            Self::HeaderLength { needed, is } => {
                write!(f, "a header with {is} bytes left, where {needed} are needed")
            }
            Self::Malformed => f.write_str("a malformed header"),
            Self::Discriminant { of, value } => write!(f, "{value} is no {of}"),
            Self::Absent => f.write_str("something that is absent, and yet not zero"),
            Self::Payloads { wanted, there } => {
                write!(f, "{there} bytes of payload left, where {wanted} are needed")
            }
            Self::PayloadChecksum { said, is } => {
                write!(f, "a payload with checksum {is:08x} instead of {said:08x}")
            }
            Self::Magic => f.write_str("a hello that does not begin with LOGGOS"),
            Self::Text => f.write_str("a text that is not UTF-8, or too long"),
        }
    }
}

impl std::error::Error for WireError {}
