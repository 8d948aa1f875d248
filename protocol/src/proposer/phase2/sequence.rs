//! The order in which a gateway's batches get slots: that of their numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Batch, BatchId, Incarnation, Propose, Slot, Time, Watermark};

use super::Phase2;

/// What a reign has to say about one batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Acceptance {
    /// It has a slot, or will get one; and so may others that have waited for it.
    Accepted,
    /// It waits for one of a lower number.
    Early,
    /// It has a slot, or is answered (R24).
    Duplicate,
    /// There is no room for it (R29).
    Dropped,
}

/// The batches of one gateway, in the order in which they get slots: that of their numbers.
///
/// Replicas execute a session's commands in the order of their numbers, and refuse a batch that
/// comes before another (R23). Its slot is wasted then, and so are those of all batches behind it,
/// which have to be sent again: where messages overtake each other all the time, that multiplies.
/// So a reign gives slots in the order of numbers only, and each batch one slot. It begins with the
/// lowest batch that has no answer: all before that were executed, so it will be, wherever it is
/// put; and so will those behind it, each in a later slot than the one before.
///
/// Does a batch that is sent again never need another slot? Not while the one it has is open: it
/// will be chosen, and the batch executed there at the latest. If its answer is lost, its gateway
/// asks a replica (R25). A session that was opened and closed again before its gateway knew is the
/// exception: no replica can tell. So once all that a gateway was given is closed, its lowest batch
/// gets another slot if it is sent again. If the reign ends, the next one begins anew.
///
/// source: R23, R24
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Sequence {
    /// The gateway's life.
    incarnation: Option<Incarnation>,
    /// The number of the next batch to get a slot. Only goes up, within a life.
    next: u64,
    /// Batches above that, by number.
    early: BTreeMap<u64, Arc<Batch>>,
    /// All slots that were given are below.
    pub(super) given: Watermark,
}

impl Phase2 {
    /// Takes a batch in: it gets the next free slot, now or when there is credit, if it is the next
    /// of its gateway.
    ///
    /// source: R23, R24, R29
    pub(super) fn admit(&mut self, propose: Propose, now: Time) -> Acceptance {
        if self.queue.is_empty() {
            self.queue_moved_at = now;
        }
        let Propose { batch, lowest } = propose;
        let BatchId { gateway, incarnation, number } = batch.id;
        let in_flight_max = u64::from(self.cluster.batches_in_flight_max);
        let most = usize::from(self.cluster.gateways) * self.cluster.batches_in_flight_max as usize;
        let has_room = self.queue.len() < most;
        if self.is_recovered(&batch) {
            return Acceptance::Duplicate;
        }
        let sequence = &mut self.sequences[usize::from(gateway.0)];
        if sequence.incarnation != Some(incarnation) {
            // A late message of a former life must not hold up the current one, which begins with
            // its lowest.
            if sequence.incarnation.is_some() && number != lowest {
                return Acceptance::Dropped;
            }
            let incarnation = Some(incarnation);
            *sequence = Sequence { incarnation, next: lowest, ..Sequence::default() };
        }
        sequence.skip_to(lowest);
        if number < sequence.next {
            let is_closed = sequence.given <= self.floor
                && !self.queue.iter().any(|batch| batch.id.gateway == gateway);
            if number != lowest || !is_closed {
                return Acceptance::Duplicate;
            }
            sequence.next = number;
        }
        if number - sequence.next >= in_flight_max || !has_room {
            return Acceptance::Dropped;
        }
        if number > sequence.next && !sequence.early.contains_key(&sequence.next) {
            sequence.early.insert(number, batch);
            return Acceptance::Early;
        }
        if number == sequence.next {
            self.queue.push_back(batch);
            sequence.next += 1;
        } else {
            sequence.early.insert(number, batch);
        }
        while self.queue.len() < most
            && let Some(batch) = sequence.early.remove(&sequence.next)
        {
            self.queue.push_back(batch);
            sequence.next += 1;
        }
        assert!(self.queue.len() <= most, "{} batches wait, {most} may", self.queue.len());
        Acceptance::Accepted
    }

    /// Whether this very attempt is open in a slot that phase 1 has found. A later one is not the
    /// same: its gateway may have been told that this one was out of order.
    fn is_recovered(&self, batch: &Batch) -> bool {
        let mut open = (self.floor.0..self.recovered.0).filter_map(|slot| self.open.at(Slot(slot)));
        open.any(|open| {
            let found = open.value.batch();
            found.is_some_and(|it| (it.id, it.attempt) == (batch.id, batch.attempt))
        })
    }
}

impl Sequence {
    /// Goes on at `lowest` at the least: all below is answered.
    fn skip_to(&mut self, lowest: u64) {
        if lowest > self.next {
            self.next = lowest;
            self.early = self.early.split_off(&lowest);
            debug_assert!(self.early.keys().all(|number| *number >= lowest), "an answered batch");
        }
    }
}
