//! The bytes that go out on a connection: some written here, and payloads that are only referenced.
//!
//! ```text
//!   bytes     │ head, header │ head, header │ … │        one buffer, reused
//!                            ▲              ▲
//!   payloads              [ 4 KiB ]     [ 64 KiB ]       by count, where the sender got them
//! ```
//!
//! All of it leaves with one gathered send. Short payloads are copied among the bytes: a copy costs
//! less than another piece of the send.

use bytes::Bytes;
use loggos_protocol::Payload;

/// The bytes that a connection sends next.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// Payloads in order, each with how many of `bytes` go before it.
    payloads: Vec<(usize, Bytes)>,
    payload_bytes: usize,
    frames: usize,
}

impl Outgoing {
    /// Adds bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds a payload: by reference, unless it is short.
    pub fn put_payload(&mut self, payload: &Payload) {
        match payload.shared() {
            Some(shared) => {
                self.payloads.push((self.bytes.len(), shared.clone()));
                self.payload_bytes += shared.len();
            }
            None => self.put(payload.as_slice()),
        }
    }

    /// The bytes written from `start` on, to fill in what is only known at the end. Payloads by
    /// reference are not among them.
    pub fn written_from(&mut self, start: usize) -> &mut [u8] {
        &mut self.bytes[start..]
    }

    /// Returns the number of bytes written, payloads by reference left out.
    #[must_use]
    pub fn written(&self) -> usize {
        self.bytes.len()
    }

    /// Notes that a frame is whole.
    pub fn end_frame(&mut self) {
        self.frames += 1;
    }

    /// Frames in it.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// All bytes, payloads included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.payload_bytes
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything in the order in which it goes out, in as few pieces as there can be. None is
    /// empty.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.payloads.iter().map(|(at, payload)| (*at, Some(payload)));
        let ends = ends.chain(std::iter::once((self.bytes.len(), None)));
        let starts = std::iter::once(0).chain(self.payloads.iter().map(|(at, _)| *at));
        let pieces = starts.zip(ends).flat_map(|(start, (end, payload))| {
            [Some(&self.bytes[start..end]), payload.map(|payload| &payload[..])]
        });
        pieces.flatten().filter(|piece| !piece.is_empty())
    }

    /// Forgets everything, keeping the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.payloads.clear();
        (self.payload_bytes, self.frames) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use loggos_protocol::INLINE_BYTES_MAX;

    use super::*;

    #[test]
    fn pieces_come_in_order_and_long_payloads_are_not_copied() {
        let short = Payload::copy(&[1; INLINE_BYTES_MAX]);
        let long = Payload::copy(&[2; INLINE_BYTES_MAX + 1]);
        let mut outgoing = Outgoing::default();
        for payload in [&long, &short, &long, &long] {
            outgoing.put(b"head");
            outgoing.put_payload(payload);
        }
        let whole: Vec<u8> = outgoing.pieces().flatten().copied().collect();
        let expected = [&long, &short, &long, &long].map(|p| [b"head", p.as_slice()].concat());
        assert_eq!(whole, expected.concat());
        assert_eq!(outgoing.len(), whole.len());
        let shared = long.shared().unwrap().as_ptr();
        assert_eq!(outgoing.pieces().filter(|piece| piece.as_ptr() == shared).count(), 3);
        assert_eq!(outgoing.pieces().count(), 6, "what lies side by side is one piece");
        outgoing.clear();
        assert_eq!((outgoing.pieces().count(), outgoing.is_empty()), (0, true));
    }
}
