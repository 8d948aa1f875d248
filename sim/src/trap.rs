//! Traps: a command at which the state machine panics, everywhere or only now and then.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::rc::Rc;

use crate::recorder::CommandId;

/// At which command machines panic, and which of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrapPlan {
    pub(crate) command: CommandId,
    pub(crate) kind: TrapKind,
}

/// Which machines a trap is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrapKind {
    /// All of them, each time: as deterministic machines do.
    Everywhere,
    /// Those of up to f replicas, each time.
    OnSome,
    /// All of them, but each only the first time.
    Once,
}

/// The trap of one replica, for all of its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trap {
    command: Option<CommandId>,
    is_lasting: bool,
    has_sprung: Rc<Cell<bool>>,
}

impl Trap {
    /// Returns the trap of the replica of that number; one without effect, if it is not for it.
    pub(crate) fn of(plan: Option<TrapPlan>, replica: u8, f: u8) -> Self {
        let Some(TrapPlan { command, kind }) = plan else { return Self::default() };
        let is_for_it = kind != TrapKind::OnSome || replica < f;
        let is_lasting = kind != TrapKind::Once;
        Self { command: is_for_it.then_some(command), is_lasting, ..Self::default() }
    }

    /// Panics, if it is for this command. Without a word on standard error: that is the replica's
    /// business.
    pub(crate) fn spring(&self, command: CommandId) {
        if self.command == Some(command) && (self.is_lasting || !self.has_sprung.replace(true)) {
            resume_unwind(Box::new(format!("the machine has met {command:?}")));
        }
    }
}
