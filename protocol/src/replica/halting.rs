//! A replica that has halted: it executes nothing, and takes part in all else.
//!
//! ```text
//!             executed            missing     executed + 1.5 windows
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
//! and tells gateways nothing but that it has halted.
//!
//! ```text
//!   input    when                                       does                     orders, says
//!   Chosen   it skips the command at which it halted    waits for the note       Skip
//!   halt     such a value is held already               likewise                 Skip
//!            it is of a command that was executed,      likewise                 Skip
//!            and no snapshot holds that
//!   Noted    durable                                    is to start over         Skips, to the operator
//!            not durable                                orders again at the next
//!                                                       heartbeat
//! ```
//!
//! **Why the state is restored.** The command may have changed a part of what it was about to
//! change when the machine panicked. Nothing but the log below it tells the state in which it is
//! skipped, so the next life restores the newest snapshot, which is of an earlier slot, and
//! executes all that follows again but for that command.
//!
//! **Why the skip is noted before that.** The next life comes to the command before it comes to the
//! slot that skips it. A machine that panics each time would bring it to where it was; one that
//! panics only now and then would execute the command, and answer for it.
//!
//! source: R25, R38

use super::{Replica, ReplicaTimer};
use crate::{
    Event, GatewayId, Halt, Halted, Heartbeat, LoggedCommand, Outbox, Slot, SnapshotOrder, Stage,
    StateMachine, ToGateway, ToProposer, Value,
};

/// How far a replica that has halted is with skipping the command at which it has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Skip {
    /// The log does not skip it, as far as is known.
    #[default]
    Unknown,
    /// It does, and the disk was told to note it.
    Ordered(LoggedCommand),
    /// Likewise, and the disk has failed.
    Failed(LoggedCommand),
    /// That is noted durably.
    Noted,
}

impl<M: StateMachine> Replica<M> {
    /// The first slot that is neither executed nor held: with one that has not halted, the next
    /// that it executes.
    pub(super) fn missing(&self) -> Slot {
        if self.halted.is_some() { self.held.first_open() } else { self.executed.first_open() }
    }

    /// Notes what it holds without a hole, now that it has halted, or that more has come.
    pub(super) fn note_held(&mut self) {
        self.held.raise(self.executed);
        while self.log.at(self.held.first_open()).is_some() {
            self.held = self.held.first_open().watermark_after();
        }
    }

    /// Whether it misses what is known to be chosen, or what reads wait for, and has room for it.
    pub(super) fn is_behind(&self) -> bool {
        let missing = self.missing();
        let wanted = self.chosen.max(self.reads.wanted());
        missing < wanted.first_open() && self.has_room_for(missing)
    }

    /// Whether a slot is kept if it is told of now: one of the next window, and of somewhat more
    /// once it has halted, at the expense of what it has executed longest ago.
    pub(super) fn has_room_for(&self, slot: Slot) -> bool {
        let room = match self.halted {
            None => self.cluster.slot_window,
            Some(_) => self.cluster.slots_held_when_halted(),
        };
        slot.0 - self.executed.0 < room.into()
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
        self.reads.clear(); // gateways ask others, now that they are told
        self.halted = Some(why.clone());
        self.note_held();
        self.cluster.all_gateways().for_each(|gateway| self.tell_halted(gateway, out));
        out.event(Event::Halted { replica: self.id, executed: self.executed, why: why.clone() });
        match why {
            Halt::Panicked { .. } => {
                let held: Vec<_> = self.log.iter().map(|(_, (_, value))| value.clone()).collect();
                held.iter().for_each(|value| self.look_for_skip(value, out));
            }
            Halt::Executed { command } => self.note_skip(command, out),
            Halt::Malformed { .. } | Halt::SnapshotRefused { .. } => {}
        }
    }

    /// Notes that the log skips the command at which it has halted, if `value` does.
    ///
    /// source: R38
    pub(super) fn look_for_skip(&mut self, value: &Value, out: &mut Outbox) {
        if let Some(Halt::Panicked { command, .. }) = &self.halted
            && value.skipped() == Some(*command)
        {
            self.note_skip(*command, out);
        }
    }

    /// Notes for its next life that a command is skipped, if that can go on without it: the
    /// snapshots in its directory are of earlier slots. In memory there are none.
    fn note_skip(&mut self, command: LoggedCommand, out: &mut Outbox) {
        let Some(checkpoints) = &self.checkpoints else { return };
        let can_go_back = checkpoints.stored.keys().all(|id| id.at.0 <= command.at.slot.0);
        if can_go_back && matches!(self.skip, Skip::Unknown | Skip::Failed(_)) {
            self.skip = Skip::Ordered(command);
            out.snapshots.push(SnapshotOrder::Skip(command));
        }
    }

    /// Starts over, now that the next life will skip the command; or tries again later.
    ///
    /// source: R38
    pub(super) fn on_skip_noted(
        &mut self,
        command: LoggedCommand,
        is_durable: bool,
        out: &mut Outbox,
    ) {
        if self.skip != Skip::Ordered(command) {
            return out.ignored("Noted: it was not ordered in this life");
        }
        self.skip = if is_durable { Skip::Noted } else { Skip::Failed(command) };
        if is_durable {
            out.event(Event::Skips { replica: self.id, command });
        }
    }

    /// Tells a gateway why nothing is answered here.
    pub(super) fn tell_halted(&self, gateway: GatewayId, out: &mut Outbox) {
        out.tell_gateway(gateway, ToGateway::Halted(self.say_halted()));
    }

    /// Tells the leader, and gateways once more: they take no halt for lasting that they do not
    /// hear of again.
    pub(super) fn repeat_halted(&mut self, heartbeat: &Heartbeat, out: &mut Outbox) {
        if let Skip::Failed(command) = self.skip {
            self.note_skip(command, out);
        }
        if self.halted.is_some()
            && heartbeat.stage == Stage::Leading
            && heartbeat.ballot == self.leader
        {
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
