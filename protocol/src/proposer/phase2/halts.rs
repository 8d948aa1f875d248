//! What a leader knows of replicas that have halted.

use super::{Open, Phase2};
use crate::proposer::shared::Shared;
use crate::{
    Event, Halt, Halted, Incarnation, LoggedCommand, Outbox, Payload, ReplicaId, Roster, Run,
    RunOwner, Runs, SessionId, Slot, Time, Value, Watermark,
};

/// What a replica has said last of why it has halted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct LastHalt {
    incarnation: Incarnation,
    why: Halt,
    heard_at: Time,
}

impl Phase2 {
    /// Notes that a replica has halted.
    ///
    /// source: R28
    pub(in crate::proposer) fn on_halted(
        &mut self,
        halted: Halted,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        let Halted { replica, incarnation, why } = halted;
        let Some(last) = self.halts.get_mut(usize::from(replica.0)) else {
            shared.counters.foreign += 1;
            return out.ignored("Halted: of no replica");
        };
        *last = Some(LastHalt { incarnation, why, heard_at: now });
    }

    /// Why a replica has halted, if its current life has said so within an election timeout.
    fn halt_of(&self, replica: ReplicaId, roster: &Roster, now: Time) -> Option<&Halt> {
        let last = self.halts[usize::from(replica.0)].as_ref()?;
        let is_current = roster.incarnation(replica) == Some(last.incarnation)
            && now.since(last.heard_at) < self.cluster.election_timeout;
        is_current.then_some(&last.why)
    }

    /// Gives a skip of `command` the next slot, as an operator wants it, if every replica has
    /// halted there in its current life; asks for that slot again if it has one.
    ///
    /// Why all of them: a replica that has executed the command may have answered it, and what came
    /// after. One that is not heard may be such a one. Of the lives that are heard none has; and
    /// when each learns of the skip, none will: it has halted there, and executes nothing before
    /// its next life, which skips the command. What former lives have executed, before all were
    /// started again with a machine that panics there, only the log above may tell:
    /// [`was_executed`](Self::was_executed).
    ///
    /// It takes no credit, since there is none left perhaps, and no room in logs that are low: what
    /// it takes is little, and nothing else gets on before it is chosen. But it lies where a
    /// replica that has halted has room for it.
    ///
    /// source: R38
    pub(in crate::proposer) fn on_skip(
        &mut self,
        command: LoggedCommand,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        if let Some((slot, _)) = self.skip.filter(|(_, skipped)| *skipped == command)
            && !self.floor.covers(slot)
        {
            return self.resend_one(slot, now, out);
        }
        let refuse = |why, out: &mut Outbox| out.event(Event::SkipRefused { command, why });
        let is_halted_there = |replica: ReplicaId| {
            let why = self.halt_of(replica, &shared.roster, now);
            matches!(why, Some(Halt::Panicked { command: at, .. }) if *at == command)
        };
        if !shared.roster.replicas().all(is_halted_there) || !self.is_heard(now) {
            return refuse("not every replica has halted there, as far as is known here", out);
        }
        if self.was_executed(command) {
            return refuse("it was executed before replicas were started again", out);
        }
        let slot = self.next;
        let end = command.at.slot.0 + u64::from(self.cluster.slots_held_when_halted());
        let has_room = slot.0 < end && slot.0 < self.floor.0 + self.open.capacity();
        if !has_room || self.is_part || self.sent.first_open() != slot {
            return refuse("no slot is free", out);
        }
        let value = Value::skip(shared.stamp(now), command);
        self.open.insert(slot, Open::new(value, now));
        self.next = slot.next();
        (self.skip, self.progress_at) = (Some((slot, command)), now);
        self.ask(slot, now, out);
        self.sent = Watermark(self.next.0);
        self.assert_order();
        self.advance(shared, now, out);
    }

    /// Whether a command that all replicas have halted at was executed before, as the open slots
    /// show, or is not among them: its owner has had the answer; or f+1 replicas were once further,
    /// or there would have been no credit for the last slots.
    ///
    /// A client's command has two owners, its gateway and the client; and as many more as there are
    /// copies behind it, by other gateways: each that was told what became of one was told it by a
    /// replica that had executed this one. A gateway may have been told of an older attempt at such
    /// a copy, that came too early to be executed; then a skip is refused that would do no harm.
    ///
    /// source: R38
    fn was_executed(&self, command: LoggedCommand) -> bool {
        let LoggedCommand { at, checksum } = command;
        let block = |slot| Some(self.open.at(slot)?.value.batch()?.block.as_slice());
        let sender = block(at.slot).and_then(|block| sender(block, at.index, checksum));
        let Some(Sender { gateway, client }) = sender else { return true };
        let slots = || (at.slot.0..self.next.0).map(Slot);
        let runs = |slot| block(slot).into_iter().flat_map(Runs::new).flatten();
        let copies = slots().flat_map(runs).filter_map(|run| copy_in(&run, client?));
        let names: Vec<(SessionId, u64)> =
            [gateway].into_iter().chain(client).chain(copies).collect();
        let end = at.slot.0 + u64::from(self.cluster.slot_window);
        slots().any(|slot| {
            let has_skip = self.open.at(slot).is_some_and(|it| it.value.skipped().is_some());
            let is_batch = block(slot).is_some() && !has_skip;
            runs(slot).any(|run| is_answered(&run, &names)) || slot.0 >= end && is_batch
        })
    }

    /// Whether so many replicas have halted that no f+1 of them can execute what is open: no other
    /// leader would do better.
    ///
    /// source: R28
    pub(super) fn is_halted(&self, roster: &Roster, now: Time) -> bool {
        let halted = roster.replicas().filter(|it| self.halt_of(*it, roster, now).is_some());
        roster.replicas().count() - halted.count() <= usize::from(self.cluster.f)
    }
}

/// The sender of a command.
struct Sender {
    /// Its gateway's session, and its number there.
    gateway: (SessionId, u64),
    /// Likewise, if it is a client's that has a session.
    client: Option<(SessionId, u64)>,
}

/// The sender of the command at `index` of a block, if it is that command.
fn sender(block: &[u8], index: u32, checksum: u32) -> Option<Sender> {
    let mut first = 0;
    for run in Runs::new(block) {
        match run.ok()? {
            Run::Open { .. } => first += 1,
            Run::Skip(_) => {}
            Run::Commands(run) if index - first < run.count => {
                let offset = u64::from(index - first);
                let command = run.commands.skipping(offset).next()?;
                let client = match run.owner {
                    RunOwner::Client { session, first, .. } => {
                        Some((session, first.checked_add(offset)?))
                    }
                    RunOwner::Gateway | RunOwner::NewClient { .. } => None,
                };
                let is_it = Payload::copy(command).checksum() == checksum;
                return is_it
                    .then_some(Sender { gateway: (run.session, run.first + offset), client });
            }
            Run::Commands(run) => first += run.count,
        }
        if first > index {
            return None;
        }
    }
    None
}

/// What its gateway calls the command of a client that is `name` to that, if the run has it.
fn copy_in(run: &Run<'_>, name: (SessionId, u64)) -> Option<(SessionId, u64)> {
    let Run::Commands(run) = run else { return None };
    let RunOwner::Client { session, first, .. } = run.owner else { return None };
    let offset = name.1.checked_sub(first).filter(|offset| *offset < run.count.into())?;
    (session == name.0).then(|| (run.session, run.first + offset))
}

/// Whether the sender of a run says that it has the answer to one of these.
fn is_answered(run: &Run<'_>, names: &[(SessionId, u64)]) -> bool {
    let Run::Commands(run) = run else { return false };
    let says = |session, lowest_unanswered| {
        names.iter().any(|(named, number)| *named == session && lowest_unanswered > *number)
    };
    let does_client_say = match run.owner {
        RunOwner::Client { session, lowest_unanswered, .. } => says(session, lowest_unanswered),
        RunOwner::Gateway | RunOwner::NewClient { .. } => false,
    };
    does_client_say || says(run.session, run.lowest_unanswered)
}
