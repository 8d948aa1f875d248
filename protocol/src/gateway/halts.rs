//! Replicas that have halted, and what callers are told when too few others are left.

use std::sync::Arc;

use super::{Gateway, InFlightStage};
use crate::{Failure, Halt, Halted, Outbox, ReplicaId, RoleId, Time};

/// What a gateway knows of replicas that answer nothing.
#[derive(Debug, Default)]
pub(super) struct Halts {
    /// Those that have said so and nothing else since, and when they said it last.
    halted: Vec<(ReplicaId, Arc<Halt>, Time)>,
    /// The number of callers, of those that have waited longest, that were told of a halt: they
    /// wait no more.
    told: usize,
}

impl Halts {
    /// Whether the caller at `place` of those that wait was told.
    pub(super) fn was_told(&self, place: usize) -> bool {
        place < self.told
    }

    /// Whether a replica has said so.
    pub(super) fn has_any(&self) -> bool {
        !self.halted.is_empty()
    }

    /// Whether callers were told that wait.
    pub(super) fn were_some_told(&self) -> bool {
        self.told > 0
    }

    /// Notes that the first `count` callers do not wait any more.
    pub(super) fn forget_callers(&mut self, count: usize) {
        self.told = self.told.saturating_sub(count);
    }

    pub(super) fn validate(&self, callers_count: usize) {
        assert!(self.told <= callers_count, "{} of {callers_count} callers were told", self.told);
    }
}

impl Gateway {
    /// Takes in that a replica has halted: another answers for it. If too few are left, callers
    /// need not wait for their deadlines to learn why they get no answers.
    ///
    /// What is in flight stays there: should a replica be started again, or go on, its results find
    /// their session, and only their callers are gone.
    ///
    /// source: R24, R25
    pub fn on_halted(&mut self, halted: Halted, now: Time, out: &mut Outbox) {
        let Halted { replica, why, .. } = halted;
        if replica.0 >= self.cluster.replicas {
            return out.ignored("Halted: of no replica of this cluster");
        }
        let before = self.halts.halted.iter().position(|(halted, ..)| *halted == replica);
        let before = before.map(|place| self.halts.halted.swap_remove(place));
        let is_news = before.is_none();
        let why =
            before.map(|(_, why, _)| why).filter(|it| **it == why).unwrap_or_else(|| Arc::new(why));
        self.hear(replica);
        self.suspect(replica);
        self.halts.halted.push((replica, why, now));
        self.fail_reads_if_halted(now, out);
        if self.halted(now).is_some() {
            return self.tell_halt(now, out);
        }
        if !is_news {
            return; // it answers at once: to ask it for that would go on without end
        }
        self.ask_others_than(RoleId::Replica(replica), now, out);
        for place in 0..self.in_flight.len() {
            let in_flight = &self.in_flight[place];
            let is_asked = match in_flight.stage {
                InFlightStage::Sent => in_flight.batch.answerer == replica,
                InFlightStage::Doubted(asked) => asked == replica,
                InFlightStage::Refused | InFlightStage::Done => false,
            };
            if is_asked {
                self.doubt(place, now, out);
            }
        }
    }

    /// Takes in that a replica lives, and has not halted as far as is known.
    pub(super) fn hear(&mut self, replica: ReplicaId) {
        self.suspects.retain(|suspect| *suspect != replica);
        if !self.halts.halted.is_empty() {
            self.halts.halted.retain(|(halted, ..)| *halted != replica);
        }
    }

    /// The reason why nothing is executed any more: no f+1 replicas are left that have not said
    /// within an election timeout that they have halted. `None` if there may be so many.
    #[must_use]
    pub fn halted(&self, now: Time) -> Option<&Arc<Halt>> {
        let timeout = self.cluster.election_timeout;
        let halted = self.halts.halted.iter().filter(|(.., at)| now.since(*at) < timeout);
        let (_, why, _) = halted.clone().min_by_key(|(replica, ..)| *replica)?;
        let left = usize::from(self.cluster.replicas) - halted.count();
        (left <= usize::from(self.cluster.f)).then_some(why)
    }

    /// The reason why nothing can be read any more: all replicas have said within an election
    /// timeout that they have halted.
    pub(super) fn all_halted(&self, now: Time) -> Option<Arc<Halt>> {
        let timeout = self.cluster.election_timeout;
        let halted = self.halts.halted.iter().filter(|(.., at)| now.since(*at) < timeout);
        let are_all = halted.count() == usize::from(self.cluster.replicas);
        are_all.then(|| self.halted(now).cloned()).flatten()
    }

    /// Tells all callers why they get no answers, if nothing is executed any more.
    pub(super) fn tell_halt(&mut self, now: Time, out: &mut Outbox) {
        let Some(why) = self.halted(now).map(Arc::clone) else { return };
        // A batch may be answered before one that was sent sooner, or in parts.
        let is_answered = |number| {
            let batch = self.in_flight.iter().find(|batch| number < batch.end());
            batch.is_some_and(|batch| !batch.is_left(number))
        };
        for (caller, number) in
            self.callers.iter().zip(self.lowest_unanswered..).skip(self.halts.told)
        {
            if !is_answered(number) {
                out.replies.fail(*caller, Failure::Halted(Arc::clone(&why)));
            }
        }
        self.halts.told = self.callers.len();
    }
}
