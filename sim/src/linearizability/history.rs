//! What clients asked for and were told, in the order in which it happened; and what the machine
//! should do.
//!
//! ```text
//!  command           when                         does                  answers
//!  Put               always                       value ← the new one   Stored
//!  Get               present                                            Value
//!                    absent                                             Missing
//!  Delete            present                      forgets it            Deleted
//!                    absent                                             Missing
//!  Increment         absent, counts as 0          value ← the sum       Number
//!                    a decimal 64-bit integer     value ← the sum       Number
//!                    anything else                                      NotANumber
//!                    the sum has over 64 bits                           Overflow
//!  CompareAndSet     value (or absence) expected  value ← the new one   Swapped
//!                    otherwise                                          Mismatch
//! ```
//!
//! That is the key-value machine's own chart, written down a second time on purpose: a checker that
//! asked the machine what is right would find it right. Where in the log a value was written is not
//! modelled, so a versioned read is checked as a read.

use std::collections::BTreeMap;
use std::fmt;

use loggos_protocol::Time;

/// What a key has: the bytes of its value, or nothing.
pub type Value = Option<Vec<u8>>;

/// What a client asks of the key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Gives it a value.
    Put(Vec<u8>),
    /// Asks for its value.
    Get,
    /// Takes its value away.
    Delete,
    /// Adds to its value, a decimal integer in ASCII.
    Increment(i64),
    /// Gives it a value if it has the expected one.
    CompareAndSet {
        /// What it must have.
        expected: Value,
        /// What it gets.
        value: Vec<u8>,
    },
}

/// What a client is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The put is done.
    Stored,
    /// The value that was asked for.
    Value(Vec<u8>),
    /// The key to be read or deleted has no value.
    Missing,
    /// The key has no value any more.
    Deleted,
    /// What the value is after the increment.
    Number(i64),
    /// The expectation was met and the value is set.
    Swapped,
    /// The expectation was not met: this is what the key has.
    Mismatch(Value),
    /// The value to be incremented is no decimal 64-bit integer.
    NotANumber,
    /// The sum does not fit in 64 bits.
    Overflow,
}

/// The outcome of an operation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Nothing yet: it may have taken effect at any time since, or may still, or never.
    Open,
    /// The client was told what came of it.
    Answered(Time, Answer),
    /// The client stopped waiting then. The operation may take effect all the same, also later, or
    /// never.
    Unknown(Time),
    /// It had no effect, and never will: it was refused, or not even sent.
    Refused(Time),
}

/// What one client asked for, and what became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operation {
    /// The client that asked; for people only. One client may have several under way.
    pub client: u32,
    /// What it is about.
    pub key: Vec<u8>,
    /// The request.
    pub command: Command,
    /// When.
    pub invoked: Time,
    /// Its outcome.
    pub ending: Ending,
}

/// Names an operation of a history, in the order of their invocations.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OperationId(pub(super) usize);

/// All operations, and the order of their invocations and answers.
///
/// The order is that of the calls: of two events at the same time the first came before the second.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(super) operations: Vec<Operation>,
    pub(super) events: Vec<Event>,
    /// The time of the last event. Never goes back.
    now: Time,
}

/// Something that a client saw happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    Invoked(OperationId),
    Answered(OperationId),
}

impl History {
    /// Notes that `client` asks for something.
    pub fn invoke(&mut self, client: u32, key: &[u8], command: Command, now: Time) -> OperationId {
        self.pass(now);
        let id = OperationId(self.operations.len());
        let (key, ending) = (key.to_vec(), Ending::Open);
        self.operations.push(Operation { client, key, command, invoked: now, ending });
        self.events.push(Event::Invoked(id));
        id
    }

    /// Notes that the client was answered.
    pub fn answer(&mut self, id: OperationId, answer: Answer, now: Time) {
        self.end(id, Ending::Answered(now, answer), now);
        self.events.push(Event::Answered(id));
    }

    /// Notes that the client stopped waiting. An answer that comes later is not for it any more.
    pub fn give_up(&mut self, id: OperationId, now: Time) {
        self.end(id, Ending::Unknown(now), now);
    }

    /// Notes that the client knows that the operation had no effect and will have none.
    pub fn refuse(&mut self, id: OperationId, now: Time) {
        self.end(id, Ending::Refused(now), now);
    }

    /// All operations, in the order of their invocations.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub(super) fn operation(&self, id: OperationId) -> &Operation {
        &self.operations[id.0]
    }

    /// What there is to explain of each key, in order.
    pub(super) fn events_by_key(&self) -> BTreeMap<&[u8], Vec<Event>> {
        let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for event in &self.events {
            let operation = self.operation(event.operation());
            if operation.is_answered() || operation.may_write() {
                by_key.entry(&operation.key[..]).or_default().push(*event);
            }
        }
        by_key
    }

    fn end(&mut self, id: OperationId, ending: Ending, now: Time) {
        self.pass(now);
        let operation = &mut self.operations[id.0];
        assert!(operation.ending == Ending::Open, "ended twice: {operation}");
        operation.ending = ending;
    }

    fn pass(&mut self, now: Time) {
        assert!(self.now <= now, "time went back from {} to {now}", self.now);
        self.now = now;
    }
}

impl Event {
    pub(super) fn operation(self) -> OperationId {
        match self {
            Self::Invoked(id) | Self::Answered(id) => id,
        }
    }
}

impl Operation {
    /// What the key has after this, if it has `value` before; `None` if that cannot be, as it would
    /// have been answered otherwise.
    pub(super) fn place(&self, value: &Value) -> Option<Value> {
        let (answer, after) = self.command.execute(value);
        match &self.ending {
            Ending::Answered(_, told) => (answer == *told).then_some(after),
            Ending::Open | Ending::Unknown(_) => Some(after),
            Ending::Refused(_) => None,
        }
    }

    /// Whether it fits whatever the key has, and leaves the key the same whatever that was.
    pub(super) fn is_put(&self) -> bool {
        matches!(self.command, Command::Put(_)) && self.place(&None).is_some()
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.ending, Ending::Answered(..))
    }

    /// Whether it may have changed the value: a known answer says so.
    pub(super) fn may_write(&self) -> bool {
        match &self.ending {
            Ending::Answered(_, answer) => answer.is_of_a_write(),
            Ending::Open | Ending::Unknown(_) => self.command != Command::Get,
            Ending::Refused(_) => false,
        }
    }
}

impl Answer {
    fn is_of_a_write(&self) -> bool {
        match self {
            Self::Stored | Self::Deleted | Self::Number(_) | Self::Swapped => true,
            Self::Value(_)
            | Self::Missing
            | Self::Mismatch(_)
            | Self::NotANumber
            | Self::Overflow => false,
        }
    }
}

impl Command {
    /// What the machine answers if the key has `value`, and what the key has then.
    pub(crate) fn execute(&self, value: &Value) -> (Answer, Value) {
        let unchanged = |answer| (answer, value.clone());
        match (self, value) {
            (Self::Put(new), _) => (Answer::Stored, Some(new.clone())),
            (Self::Get | Self::Delete, None) => (Answer::Missing, None),
            (Self::Get, Some(current)) => unchanged(Answer::Value(current.clone())),
            (Self::Delete, Some(_)) => (Answer::Deleted, None),
            (Self::Increment(by), _) => {
                let Some(current) = value.as_deref().map_or(Some(0), parse) else {
                    return unchanged(Answer::NotANumber);
                };
                match current.checked_add(*by) {
                    Some(sum) => (Answer::Number(sum), Some(sum.to_string().into_bytes())),
                    None => unchanged(Answer::Overflow),
                }
            }
            (Self::CompareAndSet { expected, value: new }, current) => {
                if current == expected {
                    (Answer::Swapped, Some(new.clone()))
                } else {
                    unchanged(Answer::Mismatch(current.clone()))
                }
            }
        }
    }
}

/// Reads a number in the one form that an increment writes it: `+1`, `-0` and `007` are none.
fn parse(text: &[u8]) -> Option<i64> {
    let number: i64 = str::from_utf8(text).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == text).then_some(number)
}

/// Bytes, for a person.
pub(super) struct Shown<'a>(pub(super) &'a [u8]);

impl Shown<'_> {
    pub(super) fn optional(value: Option<&[u8]>) -> String {
        value.map_or_else(|| "nothing".to_owned(), |bytes| Shown(bytes).to_string())
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}, from {} ", self.client, self.invoked)?;
        match &self.ending {
            Ending::Open => write!(f, "on: {} → nothing yet", self.command),
            Ending::Answered(at, answer) => write!(f, "to {at}: {} → {answer}", self.command),
            Ending::Unknown(at) => write!(f, "on, given up at {at}: {} → unknown", self.command),
            Ending::Refused(at) => write!(f, "to {at}: {} → refused", self.command),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(value) => write!(f, "put {}", Shown(value)),
            Self::Get => f.write_str("get"),
            Self::Delete => f.write_str("delete"),
            Self::Increment(by) => write!(f, "increment by {by}"),
            Self::CompareAndSet { expected, value } => {
                let expected = Shown::optional(expected.as_deref());
                write!(f, "set {} if it has {expected}", Shown(value))
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Value(value) => Shown(value).fmt(f),
            Self::Missing => f.write_str("missing"),
            Self::Deleted => f.write_str("deleted"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Swapped => f.write_str("swapped"),
            Self::Mismatch(value) => {
                write!(f, "mismatch, it has {}", Shown::optional(value.as_deref()))
            }
            Self::NotANumber => f.write_str("not a number"),
            Self::Overflow => f.write_str("overflow"),
        }
    }
}
