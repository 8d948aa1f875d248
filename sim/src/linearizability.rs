//! Whether one machine, doing one thing at a time, could have told the clients what they were told.
//!
//! A history is linearizable \[Herlihy & Wing 1990\] if each of its operations can be given a
//! moment between its invocation and its answer such that the machine, executing them in the order
//! of these moments, answers each as it was answered. What the clients learn from each other on
//! other ways is then never contradicted by the machine. Operations on different keys have nothing
//! to do with each other, so a history is linearizable exactly if what it says of each key is (the
//! same paper's locality), and a key is all that is ever searched.
//!
//! # The search
//!
//! The events of a key are taken in the order in which they happened, and operations are placed as
//! late as possible: only when an answer is next whose operation may not be placed later \[Lowe
//! 2017: just-in-time linearization\]. Every choice of what to place then leads to another
//! configuration:
//!
//! ```text
//!  configuration   the next event │ the value of the key │ the status of each open operation
//!
//!  status          Owed        must be placed before its answer
//!                  Optional    may be placed, and need not be
//!                  Placed      has its moment, and is not placed again
//!
//!  next event      when                       does
//!  invocation      will be answered           opens it, Owed
//!                  outcome unknown            opens it, Optional
//!  answer          Placed, or Optional        closes it
//!                  Optional or Owed, unless   places any open operation that would change the value, and
//!                  it says that nothing       be answered as it was; the answer is next again
//!                  was changed
//!  none                                       the history is linearizable
//! ```
//!
//! The configuration that is furthest comes first, and of several that have come as far the one
//! with the fewest operations placed, which leaves the others most freedom. One seen before is not
//! searched again: \[Wing & Gong 1993\] with the memory that \[Lowe 2017\] gave it. If none is
//! left, no order exists, and the furthest answer that was ever next says where: those before it
//! can be explained, with it they cannot.
//!
//! # What is left out, and why that is sound
//!
//! A set of open operations has exponentially many subsets. Four things that cannot change the
//! verdict keep nearly all of them away.
//!
//! - *What changes nothing is not placed.* An owed operation that fits the value and leaves it
//!   alone, as a read that saw it, becomes Optional: that it came now is true, and that it comes
//!   later is not ruled out.
//! - *A put hides other puts.* When a put is placed, every other owed put becomes Optional: it can
//!   have come just before, since a put fits everywhere, and no client can have seen it. Without
//!   this, every subset of twenty puts at once would be a configuration.
//! - *One configuration covers another* of the same event and value if each operation is Optional
//!   in the first or has the same status in both. Whatever comes after the second can come after
//!   the first: an operation placed in the second is left where it is Optional, and one still owed
//!   is placed where the second places it. What is covered is dropped. So an unknown put is only
//!   worth a configuration in which it was the last.
//! - *Unknown operations that ask for the same are placed in the order of their invocations.* No
//!   client was answered, so nothing tells them apart but when they were invoked, and if any may be
//!   placed, the first may. Unknown increments by one number are hence counted, not chosen from.
//!
//! An Optional operation that was answered always has a place among those Placed, whichever others
//! of its kind take theirs: those that leave a value alone do not disturb each other, and of puts
//! before a put only the last is seen. An Optional one of unknown outcome needs none. A read of
//! unknown outcome, and whatever was refused, is not looked at at all.
//!
//! What is left can still be exponential (unknown increments by many different numbers are a
//! knapsack problem), so the search stops at a bound and says [`Verdict::Undecided`].
//!
//! # Sources
//!
//! - \[Herlihy & Wing 1990\] Linearizability: a correctness condition for concurrent objects.
//!   TOPLAS 12(3).
//! - \[Wing & Gong 1993\] Testing and verifying concurrent objects. J. Parallel Distrib. Comput.
//!   17(1-2).
//! - \[Lowe 2017\] Testing for linearizability. Concurrency and Computation: Practice and
//!   Experience 29(4).

mod history;
mod search;
#[cfg(test)]
mod tests;

pub use history::{Answer, Command, Ending, History, Operation, OperationId, Value};

use std::fmt;

use crate::linearizability::history::Shown;
use crate::linearizability::search::Search;

/// Steps that usually are plenty, and that take about a tenth of a second. A step is one operation
/// tried or remembered in a configuration, or two configurations compared; it takes some tens of
/// bytes.
pub const STEPS_MAX: u64 = 1_000_000;
/// Values and operations of each kind that a person is shown.
const SHOWN_MAX: usize = 8;

/// What came of checking a history.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    NotLinearizable(Box<Violation>),
    /// The search for an order of this key's operations was given up after so many steps. The
    /// operations on all other keys have one, or were too many too.
    Undecided {
        /// The first key that was too much.
        key: Vec<u8>,
        /// How far the search went.
        steps: u64,
    },
}

/// Answers that no order explains.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The key that they are about.
    pub key: Vec<u8>,
    /// The operation that could not be placed: all answers before its own can be explained, and
    /// with its own they cannot. (What is answered later may come before it, if it fits with that
    /// answer.)
    pub unplaced: Operation,
    /// Every value that the key may have had before that answer.
    pub values: Vec<Value>,
    /// The others that were open at that answer, by invocation: those with a known outcome, and
    /// writes.
    pub open: Vec<Operation>,
    /// The operations that changed the value, in one order that explains all answers before.
    pub placed: Vec<Operation>,
}

impl History {
    /// Checks whether the history is linearizable, in up to `steps_max` steps a key.
    ///
    /// Operations that have not ended count as unknown. Of several keys with a violation the first
    /// is reported; a key without a verdict does not keep the others from being checked.
    pub fn check(&self, steps_max: u64) -> Verdict {
        let mut verdict = Verdict::Linearizable;
        for (key, events) in self.events_by_key() {
            match Search::new(self, events, steps_max).run(key) {
                Verdict::Linearizable => {}
                Verdict::NotLinearizable(violation) => return Verdict::NotLinearizable(violation),
                undecided @ Verdict::Undecided { .. } => {
                    if verdict == Verdict::Linearizable {
                        verdict = undecided;
                    }
                }
            }
        }
        verdict
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::NotLinearizable(violation) => violation.fmt(f),
            Self::Undecided { key, steps } => {
                write!(f, "key {}: no verdict after {steps} steps", Shown(key))
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key {} is not linearizable: this has no place", Shown(&self.key))?;
        writeln!(f, "  {}", self.unplaced)?;
        let values = self.values.iter().take(SHOWN_MAX);
        let values: Vec<_> = values.map(|value| Shown::optional(value.as_deref())).collect();
        let more = if self.values.len() > SHOWN_MAX { ", or others" } else { "" };
        writeln!(f, "the key may by then have had: {}{more}", values.join(", "))?;
        if !self.open.is_empty() {
            writeln!(f, "open at that answer, the latest last:")?;
            write_last(f, &self.open)?;
        }
        if !self.placed.is_empty() {
            writeln!(f, "what changed the key, in an order that explains all answers before:")?;
            write_last(f, &self.placed)?;
        }
        Ok(())
    }
}

fn write_last(f: &mut fmt::Formatter<'_>, operations: &[Operation]) -> fmt::Result {
    let left_out = operations.len().saturating_sub(SHOWN_MAX);
    if left_out > 0 {
        writeln!(f, "  ({left_out} before these)")?;
    }
    operations[left_out..].iter().try_for_each(|operation| writeln!(f, "  {operation}"))
}
