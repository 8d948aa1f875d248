//! A gathered send: pieces that lie in several places and leave with one operation.

use std::ptr;

use crate::Outgoing;

/// Pieces that one operation takes (`IOV_MAX`); the rest goes with the next.
const PIECES_MAX: usize = 1024;
/// Bytes that one operation takes, which completes once all of them have gone: so a long send to a
/// slow reader shows that it comes forward.
pub(super) const OPERATION_BYTES_MAX: usize = 256 << 10;
/// Above this, the room of what was sent is given back rather than kept for the next.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The bytes that are being sent, and how far that has come. On the heap, as the kernel reads its
/// header.
pub(super) struct Gather {
    /// Not touched while there is anything in `pieces`, which point into it.
    outgoing: Outgoing,
    pieces: Vec<libc::iovec>,
    /// The first of `pieces` that has not been sent entirely; itself cut to what is left of it.
    next: usize,
    header: libc::msghdr,
    left: usize,
}

impl Default for Gather {
    fn default() -> Self {
        let header = libc::msghdr {
            msg_name: ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: ptr::null_mut(),
            msg_iovlen: 0,
            msg_control: ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        };
        Self { outgoing: Outgoing::default(), pieces: Vec::new(), next: 0, header, left: 0 }
    }
}

impl Gather {
    /// Takes all of `outgoing`, and leaves the room of the last send for the next.
    pub(super) fn load(&mut self, outgoing: &mut Outgoing) {
        assert_eq!(self.left, 0, "what is being sent goes out before anything newer");
        std::mem::swap(&mut self.outgoing, outgoing);
        self.left = self.outgoing.len();
        let piece = |piece: &[u8]| libc::iovec {
            iov_base: piece.as_ptr().cast_mut().cast(),
            iov_len: piece.len(),
        };
        let pieces = self.outgoing.pieces().flat_map(|piece| piece.chunks(OPERATION_BYTES_MAX));
        self.pieces.extend(pieces.map(piece));
    }

    /// The header of an operation that sends what is left, or the first of it.
    pub(super) fn header(&mut self) -> *const libc::msghdr {
        let left = &mut self.pieces[self.next..];
        let mut bytes = 0;
        let fit = left.iter().take(PIECES_MAX).take_while(|piece| {
            bytes += piece.iov_len;
            bytes <= OPERATION_BYTES_MAX
        });
        self.header.msg_iovlen = fit.count();
        self.header.msg_iov = left.as_mut_ptr();
        &raw const self.header
    }

    /// Bytes that have not gone yet.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Notes that `sent` more bytes have gone; returns how many there were in all, once none is
    /// left.
    pub(super) fn advance(&mut self, sent: usize) -> Option<usize> {
        assert!(sent <= self.left, "more was sent than there was");
        self.left -= sent;
        if self.left > 0 {
            self.cut(sent);
            return None;
        }
        let bytes = self.outgoing.len();
        self.pieces.clear();
        self.next = 0;
        if self.outgoing.written() > KEPT_BYTES_MAX {
            self.outgoing = Outgoing::default();
        } else {
            self.outgoing.clear();
        }
        Some(bytes)
    }

    /// Cuts `sent` bytes off the front of the pieces.
    fn cut(&mut self, mut sent: usize) {
        while sent > 0 {
            let piece = &mut self.pieces[self.next];
            let cut = sent.min(piece.iov_len);
            piece.iov_base = piece.iov_base.wrapping_byte_add(cut);
            piece.iov_len -= cut;
            sent -= cut;
            if piece.iov_len == 0 {
                self.next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use loggos_protocol::Payload;

    use super::*;

    /// Lengths of what is left, and how far into the pieces each begins.
    fn left(gather: &Gather, starts: &[*const u8]) -> Vec<(usize, usize)> {
        let pieces = gather.pieces[gather.next..].iter().zip(&starts[gather.next..]);
        pieces.map(|(p, start)| (p.iov_base.addr() - start.addr(), p.iov_len)).collect()
    }

    #[test]
    fn a_partial_send_goes_on_where_it_stopped() {
        let payload = Payload::copy(&[7; 100]);
        let mut outgoing = Outgoing::default();
        outgoing.put(&[1; 10]);
        outgoing.put_payload(&payload);
        outgoing.put(&[2; 5]);
        let mut gather = Gather::default();
        gather.load(&mut outgoing);
        assert!(outgoing.is_empty(), "the second buffer is free for what comes next");
        let starts: Vec<_> = gather.outgoing.pieces().map(<[u8]>::as_ptr).collect();
        assert_eq!(gather.advance(4), None);
        assert_eq!(left(&gather, &starts), [(4, 6), (0, 100), (0, 5)]);
        assert_eq!(gather.advance(6 + 99), None);
        assert_eq!(left(&gather, &starts), [(99, 1), (0, 5)]);
        assert_eq!(gather.advance(1), None);
        assert_eq!(left(&gather, &starts), [(0, 5)]);
        assert_eq!(gather.advance(5), Some(115));
        assert!(gather.outgoing.is_empty(), "payloads are let go as soon as they are sent");
    }
}
