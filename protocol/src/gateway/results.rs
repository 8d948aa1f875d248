//! Results on their way back: replies to clients, sessions opened and lost.

use std::collections::VecDeque;
use std::ops::Range;

use super::in_flight::{AnsweredRun, InFlight, InFlightStage, Left, Sending};
use super::{Gateway, GatewayTimer};
use crate::block::{Outcome, Outcomes};
use crate::{Event, Failure, Incarnation, Outbox, Results, SessionId, Time, ToReplica};

impl Gateway {
    /// Hands results back to the clients.
    ///
    /// source: R23, R24, \[CP §4.2\]
    pub fn on_results(&mut self, results: &Results, now: Time, out: &mut Outbox) {
        self.hear(results.replica);
        let mut has_answered = false;
        for outcome in Outcomes::new(results.outcomes.as_slice()) {
            let Ok(outcome) = outcome else { return out.ignored("Results: malformed") };
            let is_open = |place: &usize| self.in_flight[*place].stage != InFlightStage::Done;
            let Some(place) = self.place_of(results.batch).filter(is_open) else {
                self.counters.stale_results += 1;
                return out.ignored("Results: their batch is answered, or not ours");
            };
            match outcome {
                Outcome::Done { session, first, at, count, replies } => {
                    let batch = &self.in_flight[place];
                    let numbers = first..first.saturating_add(count.into());
                    let is_part = numbers.start >= batch.first && numbers.end <= batch.end();
                    if self.session == Some(session) && is_part && count > 0 {
                        self.sample_latency(place, results, now);
                        (self.unserved_since, self.served_at) = (now, now);
                        self.reads.note_executed(at.slot.watermark_after());
                        self.done(place, AnsweredRun { numbers, at, replies }, out);
                        has_answered = true;
                    } else {
                        out.ignored("Results: of another session, or not of these commands");
                    }
                }
                Outcome::Opened(session) => self.opened(session, now, out),
                Outcome::OutOfOrder { session, next } => {
                    if self.session == Some(session) {
                        self.out_of_order(results, next, now, out);
                    }
                }
                Outcome::UnknownSession(session) => {
                    if self.session == Some(session) {
                        self.lose_session(session, now, out);
                    }
                }
                Outcome::Trimmed(_) => {
                    // Only what we have said to be answered is trimmed, and that is not in flight.
                    self.counters.stale_results += 1;
                    out.ignored("Results: trimmed");
                }
            }
        }
        if has_answered {
            self.ask_for_rest(results, now, out);
        }
        self.flush(now, out);
    }

    /// Measures how long an attempt took, if it was answered by the replica that was to answer it:
    /// another was asked what had become of the batch.
    pub(super) fn sample_latency(&mut self, place: usize, results: &Results, now: Time) {
        let InFlight { sent_first, sent_last, left: Left::All, .. } = self.in_flight[place] else {
            return; // a later part of it
        };
        let is_answered =
            |sent: &Sending| (sent.attempt, sent.answerer) == (results.attempt, results.replica);
        if let Some(sent) = [sent_last, sent_first].into_iter().find(is_answered) {
            self.latency.sample(now.since(sent.at));
        }
    }

    /// Hands on the replies to commands of a batch.
    pub(super) fn done(&mut self, place: usize, run: AnsweredRun<'_>, out: &mut Outbox) {
        let AnsweredRun { numbers, mut at, replies } = run;
        let batch = &mut self.in_flight[place];
        let is_part = numbers.start >= batch.first && numbers.end <= batch.end();
        debug_assert!(is_part, "{numbers:?} are not all of {:?}", batch.batch.id);
        let offset = usize::try_from(numbers.start - self.lowest_unanswered).unwrap_or(usize::MAX);
        let callers = self.callers.range(offset..).take(count(&numbers));
        let end = if matches!(batch.left, Left::All) && !self.halts.were_some_told() {
            // As almost always: all of them wait.
            let told = out.replies.push_run(callers.copied(), at, replies);
            self.counters.replies += told;
            numbers.start + told
        } else {
            let mut end = numbers.start;
            for (((place, caller), number), reply) in
                (offset..).zip(callers).zip(numbers.clone()).zip(replies)
            {
                end = number + 1;
                if batch.is_left(number) && !self.halts.was_told(place) {
                    match reply {
                        Ok(reply) => out.replies.push(*caller, at, reply),
                        Err(why) => out.replies.fail(*caller, why.into()),
                    }
                    self.counters.replies += 1;
                }
                at.index += 1;
            }
            end
        };
        batch.on_answered(numbers.start..end);
        if batch.unanswered().is_empty() {
            batch.stage = InFlightStage::Done;
        }
        self.forget_done();
    }

    /// Asks a replica whose answer had no room for all of a batch's results for the others, unless
    /// it is asked already.
    ///
    /// source: R29
    pub(super) fn ask_for_rest(&mut self, results: &Results, now: Time, out: &mut Outbox) {
        let Some(place) = self.place_of(results.batch) else { return };
        let batch = &mut self.in_flight[place];
        let unanswered = batch.unanswered();
        if batch.stage == InFlightStage::Done || batch.asked_rest_from == Some(unanswered.start) {
            return;
        }
        batch.asked_rest_from = Some(unanswered.start);
        (batch.stage, batch.since) = (InFlightStage::Sent, now);
        let ask = batch.ask(self.session);
        self.counters.asks += 1;
        out.tell_replica(results.replica, ToReplica::Ask(ask));
    }

    pub(super) fn forget_done(&mut self) {
        while self.in_flight.front().is_some_and(|b| b.stage == InFlightStage::Done) {
            let Some(batch) = self.in_flight.pop_front() else { return };
            assert_eq!(batch.first, self.lowest_unanswered, "answered out of order");
            match batch.count() {
                1 => drop(self.callers.pop_front()), // at a third of the cost
                count => drop(self.callers.drain(..count as usize)),
            }
            self.halts.forget_callers(batch.count() as usize);
            self.lowest_unanswered = batch.end();
        }
        if self.in_flight.is_empty() {
            self.timers.stop(GatewayTimer::Resend);
        }
    }

    pub(super) fn opened(&mut self, session: SessionId, now: Time, out: &mut Outbox) {
        if self.session.is_some() {
            return out.ignored("Results: a session is open already");
        }
        assert_eq!(self.in_flight.len(), 1, "a batch was sent before the session was open");
        assert_eq!(self.in_flight[0].count(), 0, "commands were sent before the session was open");
        self.in_flight.clear();
        self.timers.stop(GatewayTimer::Resend);
        (self.session, self.served_at) = (Some(session), now);
        out.event(Event::SessionOpened { gateway: self.id, session });
    }

    /// Sends everything from the gap on once more, in number order, unless that was done since: the
    /// attempt that was out of order is then no longer the current one.
    ///
    /// source: R23, "once per gap, in number order"
    pub(super) fn out_of_order(
        &mut self,
        results: &Results,
        next: u64,
        now: Time,
        out: &mut Outbox,
    ) {
        if self.current(results.batch, results.attempt).is_none() {
            self.counters.stale_results += 1;
            return out.ignored("Results: out of order, and sent again since");
        }
        self.counters.out_of_order += 1;
        let gap = self.in_flight.iter().position(|b| b.end() > next);
        if let Some(gap) = gap {
            self.resend_from(gap, now, out);
        }
    }

    /// The replicated state has closed our session: what is in flight was executed or will never
    /// be, and we cannot tell which.
    ///
    /// The next session is asked for in a new life, and numbers start over with it. Were it the
    /// same life, a replica that lags behind could still answer for the old session: that it is
    /// open, and with the replies that its numbers had then.
    ///
    /// source: R22, R24, "an unknown outcome is an error of its own"
    pub(super) fn lose_session(&mut self, session: SessionId, now: Time, out: &mut Outbox) {
        self.counters.sessions_lost += 1;
        out.event(Event::SessionLost { gateway: self.id, session });
        let count = self.callers.len();
        let mut callers = (0..).zip(self.callers.drain(..));
        for batch in self.in_flight.drain(..) {
            let of_batch = (batch.first..batch.end()).zip(callers.by_ref());
            for (_, (place, caller)) in of_batch.filter(|(number, _)| batch.is_left(*number)) {
                if !self.halts.was_told(place) {
                    out.replies.fail(caller, Failure::OutcomeUnknown);
                }
            }
        }
        // What was not sent on yet waits for the next session.
        let waiting: VecDeque<_> = callers.map(|(_, caller)| caller).collect();
        self.halts.forget_callers(count - waiting.len());
        self.callers = waiting;
        assert!(self.in_flight.is_empty(), "a batch of a session that is lost");
        self.session = None;
        self.incarnation = Incarnation(self.incarnations.next_u64());
        self.lowest_unanswered = 0;
        self.open_session(now, out);
    }
}

fn count(numbers: &Range<u64>) -> usize {
    usize::try_from(numbers.end - numbers.start).unwrap_or(usize::MAX)
}
