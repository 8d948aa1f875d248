//! Frames on their way out.
//!
//! A frame is written once, front to back; only its head is filled in at the end. Payloads follow
//! the header by reference, unless they are short.

use super::Kind;
use super::head::{self, HEAD_BYTES, checksum};
use super::headers::Checked;
use crate::Outgoing;

/// Appends a frame of `kind`.
#[inline]
pub(super) fn frame(
    kind: Kind,
    out: &mut Outgoing,
    header: impl FnOnce(&mut Outgoing),
    payloads: impl FnOnce(&mut Outgoing),
) {
    let (start, before) = (out.written(), out.len());
    out.put(&[0; HEAD_BYTES]);
    header(out);
    let header_bytes = out.written() - start - HEAD_BYTES;
    payloads(out);
    let length = out.len() - before;
    head::fill(out.written_from(start), kind, length, header_bytes);
    out.end_frame();
}

/// Lays out a payload that is checked against a checksum made here.
pub(super) fn checked(payload: &[u8]) -> Checked {
    Checked { bytes: payload_bytes(payload).into(), checksum: checksum(payload).into() }
}

pub(super) fn payload_bytes(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).expect("a payload is shorter than 4 GiB")
}
