//! The handlers of operations that have come back from the kernel.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::BytesMut;
use io_uring::types::Timespec;
use rustix::io::Errno;

use super::buffers::take_received;
use super::files::{FileWrite, Written};
use super::gather::Gather;
use super::operations::{Operation, Timer};
use super::record::RingRecord;
use super::socket::prepare;
use super::{CloseReason, ConnectionId, Ring, RingEvent, live, record, seated};

/// The pause of a listener when there is no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Ring {
    /// An operation has come back from the kernel.
    pub(super) fn on_completion(
        &mut self,
        operation: Operation,
        result: Result<usize, Errno>,
        events: &mut Vec<RingEvent>,
    ) {
        match operation {
            Operation::Accept(listener, socket) => {
                self.on_accept(listener, socket, result.err(), events);
            }
            Operation::Connect(id, _) => self.on_connect(id, result.err(), events),
            Operation::Receive(id, buffer) => self.on_receive(id, buffer, result, events),
            Operation::Send(id, gather) => self.on_send(id, gather, result, events),
            Operation::Write(write) => self.on_write(write, result),
            Operation::Wait(Timer::Accept(listener), _) => self.accept(listener),
            Operation::Wait(Timer::Connect(id), _) => {
                // Also if the wait itself failed: better no connection than one that is waited for
                // for ever.
                let connection = live(&mut self.seats, id);
                if let Some(connecting) = connection.and_then(|it| it.connecting) {
                    self.operations.start(Operation::Cancel(connecting.connect), None);
                }
            }
            Operation::Alarm(count) => {
                // One that cannot be read would end every sleep at once.
                let is_readable = matches!(result, Ok(_) | Err(Errno::INTR | Errno::AGAIN));
                if let Some(eventfd) = self.alarm.as_ref().filter(|_| is_readable) {
                    self.operations.start(Operation::Alarm(count), Some(eventfd.as_fd()));
                }
            }
            Operation::Cancel(_) => {} // what was cancelled tells
        }
    }

    fn on_accept(
        &mut self,
        listener: usize,
        socket: Option<OwnedFd>,
        error: Option<Errno>,
        events: &mut Vec<RingEvent>,
    ) {
        match error {
            None | Some(Errno::INTR | Errno::CONNABORTED) => self.accept(listener),
            // No descriptor or no memory, for example: there may be some in a while.
            Some(_) => {
                let pause = Box::new(Timespec::from(ACCEPT_PAUSE));
                self.operations.start(Operation::Wait(Timer::Accept(listener), pause), None);
            }
        }
        let Some(socket) = socket else { return };
        // A peer that has broken off by now has no address.
        let Ok(Some(peer)) = rustix::net::getpeername(&socket) else { return };
        let Ok(peer) = SocketAddr::try_from(peer) else { return };
        if prepare(&socket).is_ok() {
            self.counters.accepted += 1;
            events.push(RingEvent::Accepted(self.seat(socket), peer));
        }
    }

    fn on_connect(&mut self, id: ConnectionId, error: Option<Errno>, events: &mut Vec<RingEvent>) {
        let connection = seated(&mut self.seats, id);
        let connecting = connection.connecting.take().expect("a connect completes once");
        if connection.is_closing {
            return self.settle(id);
        }
        match error {
            None => {
                self.operations.start(Operation::Cancel(connecting.timeout), None);
                connection.mark_dirty(id, &mut self.dirty);
                self.counters.connected += 1;
                events.push(RingEvent::Connected(id));
            }
            Some(error) => {
                let kind = match error {
                    // Only the timeout cancels a connection that is not closing.
                    Errno::CANCELED => io::ErrorKind::TimedOut,
                    other => {
                        self.operations.start(Operation::Cancel(connecting.timeout), None);
                        other.kind()
                    }
                };
                self.fail(id, CloseReason::ConnectFailed(kind), events);
            }
        }
    }

    fn on_receive(
        &mut self,
        id: ConnectionId,
        mut buffer: BytesMut,
        result: Result<usize, Errno>,
        events: &mut Vec<RingEvent>,
    ) {
        let connection = seated(&mut self.seats, id);
        let is_closing = connection.is_closing;
        if !is_closing && matches!(result, Err(Errno::INTR | Errno::AGAIN)) {
            return connection.start_receive(id, buffer, &mut self.operations);
        }
        let received = take_received(&mut buffer);
        (connection.receive, connection.buffer) = (None, Some(buffer));
        match result {
            _ if is_closing => self.settle(id),
            Ok(0) => self.fail(id, CloseReason::PeerClosed, events),
            Ok(bytes) => {
                self.counters.receives += 1;
                self.counters.received_bytes += bytes as u64;
                events.push(RingEvent::Received(id, received));
            }
            Err(error) => self.fail(id, CloseReason::Failed(error.kind()), events),
        }
    }

    fn on_send(
        &mut self,
        id: ConnectionId,
        mut gather: Box<Gather>,
        result: Result<usize, Errno>,
        events: &mut Vec<RingEvent>,
    ) {
        let connection = seated(&mut self.seats, id);
        let sent = match result {
            Err(Errno::INTR | Errno::AGAIN) => Ok(0),
            // A send of bytes cannot take none of them: to try again would loop.
            Ok(0) => Err(io::ErrorKind::WriteZero),
            other => other.map_err(|error| error.kind()),
        };
        self.counters.sent_bytes += sent.unwrap_or(0) as u64;
        let whole = sent.ok().and_then(|bytes| gather.advance(bytes));
        if whole.is_none() && sent.is_ok() && !connection.is_closing {
            events.extend(sent.is_ok_and(|bytes| bytes > 0).then_some(RingEvent::SentPart(id)));
            return connection.start_send(id, gather, &mut self.operations);
        }
        (connection.send, connection.gather, connection.sending_bytes) = (None, Some(gather), 0);
        if connection.is_closing {
            return self.settle(id);
        }
        match (sent, whole) {
            (Err(kind), _) => self.fail(id, CloseReason::Failed(kind), events),
            (Ok(_), whole) => {
                if !connection.outgoing.is_empty() {
                    connection.mark_dirty(id, &mut self.dirty);
                }
                events.extend(whole.map(|bytes| RingEvent::Sent(id, bytes)));
            }
        }
    }

    fn on_write(&mut self, mut write: FileWrite, result: Result<usize, Errno>) {
        let file = write.file;
        let open = &mut self.files[file.0 as usize];
        let Some(outcome) = write.advance(result) else {
            self.operations.start(Operation::Write(write), Some(open.file.as_fd()));
            return;
        };
        let bytes = write.into_bytes();
        if outcome.is_ok() {
            self.counters.syncs += 1;
            self.counters.synced_bytes += bytes.len() as u64;
        }
        open.is_busy = false;
        let is_durable = outcome.is_ok();
        record(self.recorder.as_ref(), || RingRecord::Written { file, is_durable });
        self.written.push_back(Written { file, bytes, outcome });
    }

    fn fail(&mut self, id: ConnectionId, reason: CloseReason, events: &mut Vec<RingEvent>) {
        self.close(id);
        events.push(RingEvent::Closed(id, reason));
    }

    /// Accepts the next connection of a listener.
    pub(super) fn accept(&mut self, listener: usize) {
        let socket = self.listeners[listener].as_fd();
        self.operations.start(Operation::Accept(listener, None), Some(socket));
    }

    /// Lets go of a closing connection once nothing of it is in flight: its socket is closed with
    /// it.
    pub(super) fn settle(&mut self, id: ConnectionId) {
        let connection = seated(&mut self.seats, id);
        if connection.is_closing && connection.in_flight().next().is_none() {
            drop(self.unseat(id));
        }
    }
}
