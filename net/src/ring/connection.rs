//! A connection: its socket, and what is under way on it.
//!
//! ```text
//!   Connecting ──connected──▶ open ──close, end, error──▶ closing ──nothing in flight──▶ gone
//! ```

use std::mem;
use std::os::fd::{AsFd, OwnedFd};

use bytes::BytesMut;

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
    /// The buffer of the last receive. `None` before the first one, and while the kernel has it.
    pub(super) buffer: Option<BytesMut>,
    /// The send that is in flight.
    pub(super) send: Option<OperationId>,
    /// The gathered send. `None` while the kernel has it.
    pub(super) gather: Option<Box<Gather>>,
    /// Bytes of the gathered send that the kernel has not taken.
    pub(super) sending_bytes: usize,
    /// The frames of the next send.
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
            buffer: None,
            send: None,
            gather: Some(Box::default()),
            sending_bytes: 0,
            outgoing: Outgoing::default(),
            is_dirty: false,
            is_closing: false,
        }
    }

    /// Returns the operations that are in flight.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = OperationId> + use<> {
        let connect = self.connecting.map(|connecting| connecting.connect);
        [connect, self.receive, self.send].into_iter().flatten()
    }

    /// Has the next flush look at it.
    pub(super) fn mark_dirty(&mut self, id: ConnectionId, dirty: &mut Vec<ConnectionId>) {
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
        self.sending_bytes = gather.left();
        let send = Operation::Send(id, gather);
        self.send = Some(operations.start(send, Some(self.socket.as_fd())));
    }
}
