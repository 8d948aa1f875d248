//! A connection: its socket, and what is under way on it.
//!
//! ```text
//!   Connecting ──connected──▶ open ──close, end, error──▶ closing ──nothing in flight──▶ gone
//! ```

use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Bytes, BytesMut};

use super::ConnectionId;
use super::gather::Gather;
use super::operations::{Operation, OperationId, Operations};
use crate::Outgoing;

/// A connection's place: it stays while the kernel is at anything of it.
#[derive(Default)]
pub(super) struct Seat {
    /// Of the connection that is here, or will be here next.
    pub(super) generation: u32,
    pub(super) connection: Option<Connection>,
}

pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) connecting: Option<Connecting>,
    /// The receive that is armed.
    pub(super) receive: Option<OperationId>,
    /// Where it receives. Empty while the kernel has it.
    pub(super) buffer: BytesMut,
    /// The send that is in flight.
    pub(super) send: Option<OperationId>,
    /// What it sends. `None` while the kernel has it.
    pub(super) gather: Option<Box<Gather>>,
    /// What goes out with the next send.
    pub(super) outgoing: Outgoing,
    /// Whether the next flush looks here.
    pub(super) is_dirty: bool,
    /// It is dead, and only waits for what is in flight.
    pub(super) is_closing: bool,
}

/// A connection that has not come about yet.
#[derive(Clone, Copy)]
pub(super) struct Connecting {
    pub(super) connect: OperationId,
    pub(super) timeout: OperationId,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            connecting: None,
            receive: None,
            buffer: BytesMut::new(),
            send: None,
            gather: Some(Box::default()),
            outgoing: Outgoing::default(),
            is_dirty: false,
            is_closing: false,
        }
    }

    /// What the kernel is at.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = OperationId> + use<> {
        let connect = self.connecting.map(|connecting| connecting.connect);
        [connect, self.receive, self.send].into_iter().flatten()
    }

    /// Has the next flush look at it.
    pub(super) fn soil(&mut self, id: ConnectionId, dirty: &mut Vec<ConnectionId>) {
        if !mem::replace(&mut self.is_dirty, true) {
            dirty.push(id);
        }
    }

    pub(super) fn start_receive(
        &mut self,
        id: ConnectionId,
        buffer: BytesMut,
        operations: &mut Operations,
    ) {
        let receive = Operation::Receive(id, buffer);
        self.receive = Some(operations.start(receive, Some(self.socket.as_fd())));
    }

    pub(super) fn start_send(
        &mut self,
        id: ConnectionId,
        gather: Box<Gather>,
        operations: &mut Operations,
    ) {
        let send = Operation::Send(id, gather);
        self.send = Some(operations.start(send, Some(self.socket.as_fd())));
    }
}

/// Takes what was received out of `buffer`, which keeps its spare room.
pub(super) fn take_received(buffer: &mut BytesMut) -> Bytes {
    buffer.split().freeze()
}

/// Makes room in an empty receive buffer; returns whether that took a fresh one.
///
/// All of `receive_bytes` if nobody holds a piece of it any more: then the next receive falls on memory that
/// is in cache. Else what is left, unless that is little.
pub(super) fn make_room(buffer: &mut BytesMut, receive_bytes: usize) -> bool {
    if buffer.try_reclaim(receive_bytes) || buffer.capacity() > receive_bytes / 8 {
        return false;
    }
    // Not `reserve`, which would double what somebody else still holds.
    *buffer = BytesMut::with_capacity(receive_bytes);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(buffer: &mut BytesMut, bytes: usize) -> Bytes {
        buffer.extend_from_slice(&vec![7; bytes]);
        take_received(buffer)
    }

    #[test]
    fn a_buffer_that_nobody_holds_is_used_again_from_its_start() {
        let mut buffer = BytesMut::new();
        assert!(make_room(&mut buffer, 1000));
        let start = buffer.as_ptr();
        for _ in 0..100 {
            let received = receive(&mut buffer, 900);
            assert_eq!(received.as_ptr(), start);
            drop(received);
            assert!(!make_room(&mut buffer, 1000));
        }
    }

    #[test]
    fn a_buffer_that_is_held_is_filled_up_before_there_is_another() {
        let mut buffer = BytesMut::new();
        assert!(make_room(&mut buffer, 1000));
        let mut held = Vec::new();
        while !make_room(&mut buffer, 1000) {
            held.push(receive(&mut buffer, 50));
        }
        assert_eq!(held.len(), 18, "an eighth may be left");
        assert_eq!(buffer.capacity(), 1000, "never more than one receive takes");
    }
}
