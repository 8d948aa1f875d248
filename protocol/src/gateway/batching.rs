//! Commands on their way out: what is taken in, and batches.

use std::sync::Arc;

use super::in_flight::{InFlight, InFlightStage, Left, Sending};
use super::{Gateway, GatewayTimer};
use crate::block::{BatchWriter, CLIENT_RUN_HEADER_BYTES, COMMAND_HEADER_BYTES};
use crate::outbox::Caller;
use crate::{AcceptorSet, Batch, BatchId, Failure, Outbox, Payload, RunOwner, Time};

/// A command for the next batch, and on whose behalf it is sent.
///
/// From bytes alone it is one of a caller that shares the gateway's session.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// The owner: a client with a session calls the command `first`. One that asks for a session
    /// does so by an empty command.
    pub owner: RunOwner,
    /// The command.
    pub command: &'a [u8],
}

impl<'a> From<&'a [u8]> for Submission<'a> {
    #[inline]
    fn from(command: &'a [u8]) -> Self {
        Self { owner: RunOwner::Gateway, command }
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Submission<'a> {
    #[inline]
    fn from(command: &'a [u8; N]) -> Self {
        Self::from(command.as_slice())
    }
}

impl Gateway {
    /// Takes a command in, to be sent with the next batch, or refuses it.
    ///
    /// A command that is refused here was never sent on, and never will be: `Busy`, `TooLarge` and
    /// `NoRoom` are safe to answer with another try. `Halted` is said later, too, of one that was
    /// sent on. A driver that asks [`Gateway::has_room`] first is not refused as busy, and so keeps
    /// its commands in order.
    ///
    /// source: R23, R24, R29
    pub fn submit(&mut self, caller: Caller, command: Submission<'_>, now: Time, out: &mut Outbox) {
        if !self.try_submit(caller, command, now, out) {
            self.counters.busy += 1;
            out.replies.fail(caller, Failure::Busy);
        }
    }

    /// Likewise, but for a command that is refused as busy: then nothing is done, and it returns
    /// false.
    ///
    /// source: R23, R24, R29
    #[inline]
    pub fn try_submit(
        &mut self,
        caller: Caller,
        command: Submission<'_>,
        now: Time,
        out: &mut Outbox,
    ) -> bool {
        let Submission { owner, command } = command;
        let may_be_refused = self.no_room.is_some() || self.halts.has_any();
        if (may_be_refused || command.len() > self.cluster.command_bytes_max as usize)
            && let Some(why) = self.refusal(command.len(), now)
        {
            out.replies.fail(caller, why);
            return true;
        }
        if self.callers.len() >= self.cluster.session_window as usize {
            return false;
        }
        if !self.fits(command.len()) {
            if !self.may_send() {
                return false;
            }
            self.close_batch(now, out);
        }
        self.counters.commands += 1;
        self.callers.push_back(caller);
        self.writer.put(owner, command);
        self.waiting_since.get_or_insert(now);
        true
    }

    /// Why a command of so many bytes is refused, whether there is room or not.
    #[cold]
    fn refusal(&self, command_bytes: usize, now: Time) -> Option<Failure> {
        if command_bytes > self.cluster.command_bytes_max as usize {
            return Some(Failure::TooLarge);
        }
        if let Some(acceptors) = self.wanting_room(now) {
            return Some(Failure::NoRoom(acceptors));
        }
        self.halted(now).map(|why| Failure::Halted(Arc::clone(why)))
    }

    /// Whether a command of so many bytes can be taken in now, or is refused for another reason
    /// than being too many.
    #[must_use]
    pub fn has_room(&self, command_bytes: usize, now: Time) -> bool {
        let has_room = self.callers.len() < self.cluster.session_window as usize
            && (self.fits(command_bytes) || self.may_send());
        has_room || self.refusal(command_bytes, now).is_some()
    }

    /// Whether commands or reads wait for the end of a tick.
    #[must_use]
    pub fn is_forming(&self) -> bool {
        !self.writer.is_empty() || self.reads.are_forming()
    }

    /// Sends what has arrived, commands as one batch: the driver calls this at the end of each
    /// tick, so what came while the last tick ran is the next batch.
    ///
    /// source: R19, \[CP §3.4, §4.1\]
    pub fn flush(&mut self, now: Time, out: &mut Outbox) {
        if self.reads.are_forming() {
            self.flush_reads(now, out);
        }
        let Some(since) = self.waiting_since else { return };
        let due = since + self.cluster.batch_delay;
        if now < due {
            return self.timers.set_if_unset(GatewayTimer::Batch, due);
        }
        self.close_batch(now, out);
    }

    /// The acceptors for want of whose room nothing new is proposed, as the leader says. One that
    /// was not heard for an election timeout says nothing: the next may have room.
    pub(super) fn wanting_room(&self, now: Time) -> Option<AcceptorSet> {
        let (said_at, acceptors) = self.no_room?;
        (now.since(said_at) < self.cluster.election_timeout).then_some(acceptors)
    }

    /// Whether a command of so many bytes fits the batch that forms, though it may be the first of
    /// a client's run.
    pub(super) fn fits(&self, command_bytes: usize) -> bool {
        let header_bytes = CLIENT_RUN_HEADER_BYTES + COMMAND_HEADER_BYTES;
        let bytes = self.writer.len() + header_bytes + command_bytes;
        self.writer.is_empty()
            || (bytes <= self.cluster.batch_bytes_max as usize
                && self.writer.commands_count() < self.cluster.batch_commands_max)
    }

    /// Whether there may be one more batch in flight.
    pub(super) fn may_send(&self) -> bool {
        self.session.is_some() && self.in_flight.len() < self.cluster.batches_in_flight_max as usize
    }

    /// Sends what waits as one batch, if there may be one more in flight.
    pub(super) fn close_batch(&mut self, now: Time, out: &mut Outbox) {
        let Some(session) = self.session.filter(|_| self.may_send()) else { return };
        if self.writer.is_empty() {
            return;
        }
        let count = self.writer.commands_count();
        let end = self.lowest_unanswered + self.callers.len() as u64;
        let first = end - u64::from(count);
        let next = self.in_flight.back().map_or(self.lowest_unanswered, InFlight::end);
        assert_eq!(first, next, "commands between two batches belong to neither");
        let block = self.writer.close(session, first, self.lowest_unanswered);
        self.waiting_since = None;
        self.timers.stop(GatewayTimer::Batch);
        self.counters.batches += 1;
        self.send_new(count, block, now, out);
    }

    pub(super) fn open_session(&mut self, now: Time, out: &mut Outbox) {
        let block = BatchWriter::open(self.id, self.incarnation);
        self.send_new(0, block, now, out);
    }

    pub(super) fn send_new(&mut self, count: u32, block: Payload, now: Time, out: &mut Outbox) {
        let last = self.in_flight.back();
        let first = last.map_or(self.lowest_unanswered, InFlight::end);
        let most = self.cluster.batches_in_flight_max as usize;
        assert!(self.in_flight.len() < most, "{most} batches are in flight");
        let number = self.next_batch;
        self.next_batch += 1;
        let bytes = block.len();
        let batch = Batch {
            id: BatchId { gateway: self.id, incarnation: self.incarnation, number },
            attempt: 0,
            answerer: self.next_answerer(number),
            commands_count: count,
            checksum: block.checksum(),
            block,
        };
        let batch = self.batches.hand_out_holding(bytes, batch);
        if self.in_flight.is_empty() {
            self.unserved_since = now;
            self.timers.set_if_unset(GatewayTimer::Unserved, now + self.cluster.election_timeout);
        }
        self.propose(&batch, out);
        let sent = Sending::new(&batch, now);
        self.in_flight.push_back(InFlight {
            batch,
            first,
            left: Left::All,
            asked_rest_from: None,
            sent_first: sent,
            sent_last: sent,
            since: now,
            stage: InFlightStage::Sent,
        });
        if !self.timers.is_set(GatewayTimer::Resend) {
            self.timers.set(GatewayTimer::Resend, now + self.timeout(0));
        }
    }
}
