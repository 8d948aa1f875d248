//! The durable acceptors of a core, and the log that they share.

use loggos_protocol::{AcceptorId, LogRoom, Role, RoleId, StateMachine, Time};
use tracing::{error, warn};

use super::Core;
use super::routes::Place;
use crate::log::Log;

impl<M: StateMachine> Core<M> {
    /// Takes in what the log has written and what was read back from it; returns whether there was
    /// anything.
    pub(super) fn poll_log(&mut self, now: Time) -> bool {
        let Some(log) = &mut self.log else { return false };
        let mut has_worked = false;
        while let Some(written) = self.ring.next_written() {
            has_worked = true;
            log.on_written(written);
        }
        while let Some(recalled) = self.log.as_mut().and_then(Log::next_recalled) {
            has_worked = true;
            let index = self.seat_of_acceptor(recalled.recall.acceptor);
            if let Some(Role::Acceptor(acceptor)) = &mut self.seats[index].role {
                acceptor.on_recalled(&recalled, now, &mut self.out);
                self.post(index);
            }
        }
        self.watch_log();
        self.start_over(now);
        has_worked
    }

    /// Starts the log's next write, if there is anything to write and none is under way.
    pub(super) fn write_log(&mut self, now: Time) {
        if let Some(log) = &mut self.log {
            log.write(&mut self.ring, now);
            self.watch_log();
        }
    }

    /// Whether a held message may leave.
    pub(super) fn can_release(&self) -> bool {
        !self.held_in_memory.is_empty() || self.log.as_ref().is_some_and(Log::can_release)
    }

    /// Releases held messages whose records are durable: first those that wait in the log, then
    /// those of acceptors in memory, which wait for no record.
    ///
    /// source: R31
    pub(super) fn release(&mut self) {
        while let Some((acceptor, recorded)) = self.log.as_mut().and_then(Log::next_durable) {
            let index = self.seat_of_acceptor(acceptor);
            if let Some(Role::Acceptor(acceptor)) = &mut self.seats[index].role {
                acceptor.on_durable(recorded);
            }
        }
        while let Some(envelope) = self.log.as_mut().and_then(Log::release) {
            self.route(envelope);
        }
        let mut held = std::mem::take(&mut self.held_in_memory);
        for envelope in held.drain(..) {
            self.route(envelope);
        }
        self.held_in_memory = held;
    }

    /// Tells acceptors that little room is left in their log, and stops them for good when it has
    /// failed, or is an older copy: what they hold is never sent, and the other roles go on.
    ///
    /// source: R33, R34
    pub(super) fn watch_log(&mut self) {
        let core = self.core;
        let Some(log) = &mut self.log else { return };
        if let Some(why) = log.stopped() {
            for seat in &mut self.seats {
                if let (RoleId::Acceptor(id), Some(_)) = (seat.id, &seat.role) {
                    error!(%why, "acceptor {} stops for good", id.0);
                    seat.role = None;
                    log.end_life(id);
                }
            }
        }
        if let Some((before, room)) = log.room_has_changed() {
            match (before, room) {
                (_, LogRoom::Low) => {
                    warn!(
                        "little room is left in the log of core {core}: its acceptors vote for no new slots"
                    );
                }
                (LogRoom::Low, _) => warn!("there is room in the log of core {core} again"),
                (LogRoom::Scarce | LogRoom::Ample, LogRoom::Scarce | LogRoom::Ample) => {}
            }
            for seat in &mut self.seats {
                if let Some(Role::Acceptor(acceptor)) = &mut seat.role {
                    acceptor.set_room(room);
                }
            }
        }
    }

    /// The seat of an acceptor of this core's log.
    fn seat_of_acceptor(&self, acceptor: AcceptorId) -> usize {
        match self.routes.place(RoleId::Acceptor(acceptor)) {
            Some(Place::Here { core, index }) if core == self.core => index,
            Some(Place::Here { .. } | Place::There { .. }) | None => {
                unreachable!("the log is of acceptors of this core")
            }
        }
    }
}
