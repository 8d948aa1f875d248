//! A replica that has halted: it executes nothing, and takes part in all else.
//!
//! ```text
//!             executed            missing     executed + window
//!                ▼                   ▼              ▼
//!   ─────────────┬───┬───┬───┬───┬───┬─ ─ ─ ─ ─ ─ ─ ┐
//!    executed    │ s │   held, in order  the next is asked for
//!   ─────────────┴───┴───┴───┴───┴───┴─ ─ ─ ─ ─ ─ ─ ┘
//!                  └─ where it has halted
//! ```
//!
//! It still tells how far it is, answers peers that miss what it has executed, lends its stored
//! snapshots, and takes in what is chosen above the slot at which it has halted. Were it silent,
//! replicas of which all have halted could not be counted in phase 1 (R5), and no leader would be
//! elected any more. Its state is that of no slot: it takes no snapshots, gives none from memory,
//! and answers no gateway.

use super::{Replica, ReplicaTimer};
use crate::{
    Event, GatewayId, Halt, Halted, Heartbeat, Outbox, Slot, Stage, StateMachine, ToGateway,
    ToProposer,
};

impl<M: StateMachine> Replica<M> {
    /// The first slot that is neither executed nor held: with one that has not halted, the next
    /// that it executes.
    pub(super) fn missing(&self) -> Slot {
        let mut slot = self.executed.first_open();
        while self.halted.is_some() && self.log.at(slot).is_some() {
            slot = slot.next();
        }
        slot
    }

    /// Whether it misses what is known to be chosen, and has room for it.
    pub(super) fn is_behind(&self) -> bool {
        let missing = self.missing();
        missing < self.chosen.first_open() && self.has_room_for(missing)
    }

    /// Whether a slot is kept if it is told of now: one of the next window, of which the first is
    /// executed at once by a replica that has not halted.
    pub(super) fn has_room_for(&self, slot: Slot) -> bool {
        slot.0 - self.executed.0 < u64::from(self.cluster.slot_window)
    }

    /// Goes no further.
    pub(super) fn halt(&mut self, why: Halt, out: &mut Outbox) {
        assert!(self.halted.is_none(), "halted again: {why:?}");
        if self.donation.take().is_some() {
            self.timers.stop(ReplicaTimer::Donation);
        }
        if self.transfer.is_some() {
            self.abandon_transfer(out);
        }
        self.drop_checkpoint(out);
        self.halted = Some(why.clone());
        self.cluster.all_gateways().for_each(|gateway| self.tell_halted(gateway, out));
        out.event(Event::Halted { replica: self.id, executed: self.executed, why });
    }

    /// Tells a gateway why nothing is answered here.
    pub(super) fn tell_halted(&self, gateway: GatewayId, out: &mut Outbox) {
        out.tell_gateway(gateway, ToGateway::Halted(self.say_halted()));
    }

    /// Tells the leader, and gateways once more: they take no halt for lasting that they do not
    /// hear of again.
    pub(super) fn repeat_halted(&self, heartbeat: &Heartbeat, out: &mut Outbox) {
        if self.halted.is_some() && heartbeat.stage == Stage::Leading {
            let leader = heartbeat.ballot.proposer;
            out.tell_proposer(leader, ToProposer::Halted(self.say_halted()));
            self.cluster.all_gateways().for_each(|gateway| self.tell_halted(gateway, out));
        }
    }

    fn say_halted(&self) -> Box<Halted> {
        let why = self.halted.clone().expect("only a replica that has halted says so");
        Box::new(Halted { replica: self.id, incarnation: self.incarnation, why })
    }
}
