//! The search for an order of one key's operations; the parent module says how and why.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::history::{Event, History, Operation, OperationId, Value};
use super::{Verdict, Violation};

/// What has become of an open operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    /// It must be placed before its answer.
    Owed,
    /// It may be placed, and need not be.
    Optional,
    /// It has been placed.
    Placed,
}

/// The operations that are open, by invocation. All configurations of one event have the same.
type Open = Vec<(OperationId, Status)>;

/// One way to explain every event before the next.
#[derive(Debug)]
struct Configuration {
    /// The next event: an answer.
    next: usize,
    /// What the key has.
    value: Value,
    open: Open,
    /// The number of operations that have been placed.
    placed_count: usize,
    /// The last of them, as an index of the search's links.
    last: Option<usize>,
}

/// An operation placed, and the one placed before it.
#[derive(Clone, Copy, Debug)]
struct PathLink {
    before: Option<usize>,
    operation: OperationId,
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Search<'a> {
    history: &'a History,
    events: Vec<Event>,
    /// For each event and value, what was open in the configurations found. None covers another.
    seen: Vec<BTreeMap<Value, Vec<Open>>>,
    /// Configurations whose successors are still to be found: the furthest first, of those the one
    /// with the fewest operations placed, of those the one found first.
    queue: BTreeMap<(Reverse<usize>, usize, u64), Configuration>,
    /// How many were ever in the queue.
    found: u64,
    links: Vec<PathLink>,
    /// The furthest event that was next, and the last operation placed on the first way there.
    furthest: (usize, Option<usize>),
    steps: u64,
    steps_max: u64,
}

impl Configuration {
    fn status(&self, id: OperationId) -> Status {
        self.open[self.place_of(id)].1
    }

    fn close(&mut self, id: OperationId) {
        self.open.remove(self.place_of(id));
    }

    fn place_of(&self, id: OperationId) -> usize {
        let place = self.open.binary_search_by_key(&id, |(id, _)| *id);
        place.expect("what is answered is open until then")
    }
}

impl<'a> Search<'a> {
    /// Starts a search over the events of one key.
    pub(super) fn new(history: &'a History, events: Vec<Event>, steps_max: u64) -> Self {
        let seen = vec![BTreeMap::new(); events.len()];
        let (queue, links, furthest) = (BTreeMap::new(), Vec::new(), (0, None));
        Self { history, events, seen, queue, found: 0, links, furthest, steps: 0, steps_max }
    }

    /// Searches to the end, or the bound.
    pub(super) fn run(mut self, key: &[u8]) -> Verdict {
        let mut start =
            Configuration { next: 0, value: None, open: Open::new(), placed_count: 0, last: None };
        if self.advance(&mut start) {
            return Verdict::Linearizable;
        }
        self.note(start);
        while let Some((_, configuration)) = self.queue.pop_first() {
            if self.steps >= self.steps_max {
                return Verdict::Undecided { key: key.to_vec(), steps: self.steps };
            }
            for mut successor in self.successors(configuration) {
                if self.advance(&mut successor) {
                    return Verdict::Linearizable;
                }
                self.note(successor);
            }
        }
        Verdict::NotLinearizable(Box::new(self.violation(key)))
    }

    /// Goes on to the next answer whose operation could be placed before it; returns whether there
    /// is none.
    fn advance(&mut self, configuration: &mut Configuration) -> bool {
        while let Some(event) = self.events.get(configuration.next) {
            match *event {
                Event::Invoked(id) => {
                    let status = self.status_when_open(id, &configuration.value);
                    configuration.open.push((id, status));
                }
                Event::Answered(id) => {
                    let may_write = self.history.operation(id).may_write();
                    match configuration.status(id) {
                        Status::Optional if !may_write => configuration.close(id),
                        Status::Placed => configuration.close(id),
                        Status::Owed | Status::Optional => {
                            if self.furthest.0 < configuration.next {
                                self.furthest = (configuration.next, configuration.last);
                            }
                            return false;
                        }
                    }
                }
            }
            configuration.next += 1;
        }
        true
    }

    /// What a configuration leads to.
    fn successors(&mut self, configuration: Configuration) -> Vec<Configuration> {
        let answered = self.events[configuration.next].operation();
        let placeable = self.placeable(&configuration);
        let mut successors = Vec::with_capacity(1 + placeable.len());
        let placed = placeable.into_iter();
        successors.extend(placed.map(|(id, value)| self.place(&configuration, id, value)));
        if configuration.status(answered) == Status::Optional {
            let mut closed = configuration;
            closed.close(answered);
            closed.next += 1;
            successors.push(closed);
        }
        successors
    }

    /// What an operation without a place is while the key has `value`.
    fn status_when_open(&self, id: OperationId, value: &Value) -> Status {
        let operation = self.history.operation(id);
        if !operation.is_answered() || operation.place(value).as_ref() == Some(value) {
            Status::Optional
        } else {
            Status::Owed
        }
    }

    /// The operations that may be placed next, with what the key has then.
    fn placeable(&mut self, configuration: &Configuration) -> Vec<(OperationId, Value)> {
        let Configuration { value, open, .. } = configuration;
        self.steps += open.len() as u64;
        let mut placeable = Vec::new();
        for (place, &(id, status)) in open.iter().enumerate() {
            if status == Status::Placed || self.has_earlier_twin(id, &open[..place]) {
                continue;
            }
            let after = self.history.operation(id).place(value);
            placeable.extend(after.filter(|after| after != value).map(|after| (id, after)));
        }
        placeable
    }

    /// Whether an operation is of unknown outcome and one that asks for the same is to be placed
    /// before it.
    fn has_earlier_twin(&self, id: OperationId, earlier: &[(OperationId, Status)]) -> bool {
        let operation = self.history.operation(id);
        let is_twin = |&(id, status): &(OperationId, Status)| {
            let other = self.history.operation(id);
            status == Status::Optional && !other.is_answered() && other.command == operation.command
        };
        !operation.is_answered() && earlier.iter().any(is_twin)
    }

    /// The configuration in which an operation has been placed and the key has `value`.
    fn place(
        &mut self,
        configuration: &Configuration,
        placed: OperationId,
        value: Value,
    ) -> Configuration {
        let is_put = |id| self.history.operation(id).is_put();
        let hides_puts = is_put(placed);
        let now = |&(id, status): &(OperationId, Status)| {
            let status = match status {
                _ if id == placed => Status::Placed,
                Status::Owed if hides_puts && is_put(id) => Status::Optional,
                Status::Owed => self.status_when_open(id, &value),
                Status::Optional | Status::Placed => status,
            };
            (id, status)
        };
        let open = configuration.open.iter().map(now).collect();
        self.links.push(PathLink { before: configuration.last, operation: placed });
        let last = Some(self.links.len() - 1);
        let placed_count = configuration.placed_count + 1;
        Configuration { next: configuration.next, value, open, placed_count, last }
    }

    /// Queues a configuration, unless one found before covers it.
    fn note(&mut self, configuration: Configuration) {
        let Configuration { next, value, open, placed_count, .. } = &configuration;
        let seen = self.seen[*next].entry(value.clone()).or_default();
        self.steps += 1 + seen.len() as u64;
        if seen.iter().any(|before| covers(before, open)) {
            return;
        }
        seen.retain(|before| !covers(open, before));
        seen.push(open.clone());
        self.steps += open.len() as u64;
        self.found += 1;
        self.queue.insert((Reverse(*next), *placed_count, self.found), configuration);
    }

    /// What the furthest event says, after a search that found no order.
    fn violation(&self, key: &[u8]) -> Violation {
        let (furthest, mut last) = self.furthest;
        let seen = &self.seen[furthest];
        let unplaced = self.events[furthest].operation();
        let operation = |id| self.history.operation(id).clone();
        let open = seen.values().flatten().next().into_iter().flatten();
        let open = open.filter(|(id, _)| *id != unplaced).map(|(id, _)| operation(*id)).collect();
        let mut placed: Vec<Operation> = Vec::new();
        while let Some(link) = last.map(|last| self.links[last]) {
            placed.push(operation(link.operation));
            last = link.before;
        }
        placed.reverse();
        let values = seen.keys().cloned().collect();
        Violation { key: key.to_vec(), unplaced: operation(unplaced), values, open, placed }
    }
}

/// Whether whatever can come after the second can come after the first, if the value is the same.
fn covers(first: &Open, second: &Open) -> bool {
    let mut statuses = first.iter().zip(second);
    statuses.all(|((_, first), (_, second))| *first == Status::Optional || first == second)
}
