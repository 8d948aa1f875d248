//! Program order: the calls of one caller, of which some read past the log.
//!
//! ```text
//!   under way                 next, and it …                  leaves
//!   nothing                   anything                        now
//!   commands                  a command                       now
//!   commands                  a read                          when they have ended
//!   reads                     a command                       when they have ended
//!   reads                     a read that joins their group   now
//!   reads                     another read                    when they have ended
//! ```
//!
//! source: R21

use std::collections::VecDeque;

use crate::{Payload, ReadGroup, ReadLevel};

/// Names calls that take effect in the order in which they are made. Ids are given by the driver,
/// from 1 on, without gaps.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OrderId(pub u32);

impl OrderId {
    /// That of calls which have no order among each other.
    pub const NONE: Self = Self(0);

    pub(super) fn place(self) -> usize {
        self.0 as usize
    }
}

/// What a call wants done.
#[derive(Debug)]
pub(super) enum Operation {
    Command(Payload),
    Read(ReadLevel, Payload),
}

/// The calls of one order.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Whether its calls have no order: then they are not counted, and only reads wait.
    is_free: bool,
    /// Commands that may leave or have left, or reads that have left: of one kind only.
    under_way: u32,
    is_reading: bool,
    /// The group of the reads that left last.
    group: Option<ReadGroup>,
    /// The tags of calls that wait for those under way, oldest first; commands wait only here, and
    /// reads until the gateway has room for them.
    waiting: VecDeque<(u64, Operation)>,
    /// Whether it is among those of which a read may be next.
    pub(super) is_listed: bool,
}

impl Order {
    /// That of calls without one.
    pub(super) fn free() -> Self {
        Self { is_free: true, ..Self::default() }
    }

    /// Whether a command that comes now may leave; then it is under way.
    #[inline]
    pub(super) fn begins_command(&mut self) -> bool {
        let may_leave = self.waiting.is_empty() && (self.under_way == 0 || !self.is_reading);
        if may_leave {
            self.under_way += 1;
            self.is_reading = false;
        }
        may_leave
    }

    /// Has a call wait.
    pub(super) fn wait(&mut self, tag: u64, operation: Operation) {
        self.waiting.push_back((tag, operation));
    }

    /// A call that was under way has ended; returns whether others may leave now.
    #[inline]
    pub(super) fn ends(&mut self) -> bool {
        assert!(self.under_way > 0, "a call ended that was not under way");
        self.under_way -= 1;
        self.under_way == 0 && !self.waiting.is_empty()
    }

    /// Takes the next call out that is waited for, if it is a command that may leave: then it is
    /// under way.
    pub(super) fn next_command(
        &mut self,
        is_waited_for: impl Fn(u64) -> bool,
    ) -> Option<(u64, Payload)> {
        while self.waiting.pop_front_if(|(tag, _)| !is_waited_for(*tag)).is_some() {}
        if self.under_way > 0 && self.is_reading {
            return None;
        }
        let is_command = |(_, it): &mut (u64, Operation)| matches!(it, Operation::Command(_));
        let (tag, operation) = self.waiting.pop_front_if(is_command)?;
        let Operation::Command(command) = operation else { unreachable!("it was seen to be one") };
        self.under_way += 1;
        self.is_reading = false;
        Some((tag, command))
    }

    /// Whether a read is next, and may leave if its group allows.
    pub(super) fn is_read_next(&self) -> bool {
        let is_read = matches!(self.waiting.front(), Some((_, Operation::Read(..))));
        is_read && (self.is_free || self.under_way == 0 || self.is_reading)
    }

    /// The next call, if it is a read.
    pub(super) fn next_read(&self) -> Option<(u64, ReadLevel, usize)> {
        match self.waiting.front()? {
            (tag, Operation::Read(level, query)) => Some((*tag, *level, query.len())),
            (_, Operation::Command(_)) => None,
        }
    }

    /// Takes the next read out, if it may leave in `group`.
    pub(super) fn take_read(&mut self, group: ReadGroup) -> Option<(ReadLevel, Payload)> {
        let joins = self.is_reading && self.group == Some(group);
        if !self.is_free && self.under_way > 0 && !joins {
            return None;
        }
        let Some((_, Operation::Read(level, query))) = self.waiting.pop_front() else {
            unreachable!("a read was next")
        };
        self.under_way += u32::from(!self.is_free);
        (self.is_reading, self.group) = (true, Some(group));
        Some((level, query))
    }

    /// Forgets the next call: its caller waits no more.
    pub(super) fn forget_next(&mut self) {
        self.waiting.pop_front();
    }
}
