//! Receive buffers: each is used again once no piece of it is held any more.

use std::collections::VecDeque;

use bytes::BytesMut;

/// Buffers that were left to the holders of their pieces and are remembered, per ring. With 64 KiB
/// each this is some MiB: about what the log of a busy core holds on to.
const LEFT_MAX: usize = 64;

/// Gives connections what to receive into.
///
/// ```text
///   a connection's buffer: [ held │ free │ held │  room  ]
///                             no piece of it is held ──▶ all of it is room again
///                             else, little room left ──▶ left to the holders ──▶ … ──▶ taken again
/// ```
///
/// Memory that was received into before is mapped, and may be in cache; what is freshly allocated
/// the kernel has to clear first, page by page.
#[derive(Debug)]
pub(super) struct ReceiveBuffers {
    receive_bytes: usize,
    /// Those that were left to the holders of their pieces, oldest first.
    left: VecDeque<BytesMut>,
    allocated: u64,
}

impl ReceiveBuffers {
    /// Of `receive_bytes` each.
    pub(super) fn new(receive_bytes: usize) -> Self {
        assert!(receive_bytes > 0, "a receive buffer that holds nothing");
        Self { receive_bytes, left: VecDeque::with_capacity(LEFT_MAX), allocated: 0 }
    }

    /// Returns a buffer with room to receive into; `last` is what the connection received into
    /// before, if it has.
    ///
    /// The room is all of `receive_bytes` if no piece of `last` is held any more: then the next
    /// receive falls on memory that is in cache. Else it is the rest of `last`, unless that is
    /// little: then `last` is exchanged for another.
    pub(super) fn with_room(&mut self, last: Option<BytesMut>) -> BytesMut {
        if let Some(mut last) = last {
            assert!(last.is_empty(), "what was received is taken out first");
            if last.try_reclaim(self.receive_bytes) || last.capacity() > self.receive_bytes / 8 {
                return last;
            }
            if self.left.len() == LEFT_MAX {
                self.left.pop_front();
            }
            self.left.push_back(last);
        }
        match self.left.front_mut().is_some_and(|left| left.try_reclaim(self.receive_bytes)) {
            true => self.left.pop_front().expect("it was just looked at"),
            false => {
                self.allocated += 1;
                // Not `reserve` of the last one, which would double a buffer that is still held.
                BytesMut::with_capacity(self.receive_bytes)
            }
        }
    }

    /// Returns the number of buffers allocated so far. It stands still in a steady state.
    pub(super) fn allocated(&self) -> u64 {
        self.allocated
    }
}

/// Takes what was received out of `buffer`, which keeps its spare room.
pub(super) fn take_received(buffer: &mut BytesMut) -> bytes::Bytes {
    buffer.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(buffer: &mut BytesMut, bytes: usize) -> bytes::Bytes {
        buffer.extend_from_slice(&vec![7; bytes]);
        take_received(buffer)
    }

    #[test]
    fn a_buffer_that_is_not_held_is_used_again_from_its_start() {
        let mut buffers = ReceiveBuffers::new(1000);
        let mut buffer = buffers.with_room(None);
        let start = buffer.as_ptr();
        for bytes in (0..100).map(|n| [900, 1000][n % 2]) {
            let received = receive(&mut buffer, bytes);
            assert_eq!(received.as_ptr(), start);
            drop(received);
            buffer = buffers.with_room(Some(buffer));
        }
        assert_eq!(buffers.allocated(), 1);
    }

    #[test]
    fn a_buffer_that_is_held_is_filled_up_before_there_is_another() {
        let mut buffers = ReceiveBuffers::new(1000);
        let mut buffer = buffers.with_room(None);
        let mut held = Vec::new();
        while buffers.allocated() == 1 {
            held.push(receive(&mut buffer, 50));
            buffer = buffers.with_room(Some(buffer));
        }
        assert_eq!(held.len(), 18, "an eighth may be left");
        assert_eq!(buffer.capacity(), 1000, "never more than one receive takes");
    }

    #[test]
    fn buffers_that_were_left_to_a_log_come_back_once_it_has_let_go() {
        for bytes in [100, 950, 1000] {
            let mut buffers = ReceiveBuffers::new(1000);
            let (mut buffer, mut log) = (None, VecDeque::new());
            let mut allocated = 0;
            for received in 0..10_000 {
                let mut with_room = buffers.with_room(buffer);
                log.push_back(receive(&mut with_room, bytes));
                buffer = Some(with_room);
                if log.len() > 30 {
                    log.pop_front();
                }
                if received == 1_000 {
                    allocated = buffers.allocated();
                    assert!(allocated <= 30 + 3, "{allocated} for a log of 30");
                }
            }
            assert_eq!(buffers.allocated(), allocated, "in a steady state, {bytes} at a time");
        }
    }

    #[test]
    fn of_buffers_that_stay_held_only_so_many_are_remembered() {
        let mut buffers = ReceiveBuffers::new(1000);
        let (mut buffer, mut held) = (None, Vec::new());
        for _ in 0..10 * LEFT_MAX {
            let mut with_room = buffers.with_room(buffer);
            held.push(receive(&mut with_room, 950));
            buffer = Some(with_room);
        }
        assert_eq!((buffers.left.len(), buffers.left.capacity()), (LEFT_MAX, LEFT_MAX));
    }
}
