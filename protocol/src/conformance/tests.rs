use std::cell::Cell;
use std::collections::BTreeMap;

use super::*;
use crate::{MalformedSnapshot, NotAQuery, Reply};

/// What is wrong with a [`Shelf`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Bug {
    #[default]
    None,
    NoSnapshots,
    AnswersByItsAge,
    RunsBackwards,
    SkipsInRuns,
    HashesItsAge,
    WritesWhatIsThereNow,
    LeavesTheLastOut,
    KeepsTheFirstOnClear,
    StaysFrozenOnClear,
    PanicsOnDamage,
    WritesNothing,
    FreezesOnce,
    FreezesNoMoreOnceRestored,
    RunsChangeWhatIsFrozen,
    ReplacesTheLastPart,
    HasNoClear,
    RefusesItsParts,
    QueriesAnswerByItsAge,
    QueriesChangeIt,
    PanicsAtAQuery,
}

/// Puts bytes on places: a command is a place and a byte, and is answered with what was there.
#[derive(Default)]
struct Shelf {
    bug: Bug,
    places: BTreeMap<u8, u8>,
    /// What is frozen and not written yet.
    frozen: Option<Vec<(u8, u8)>>,
    /// Calls that it has had.
    age: u64,
    frozen_times: u64,
    is_restored: bool,
    queries: Cell<u64>,
}

impl StateMachine for Shelf {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        self.age += 1;
        let before = self.places.insert(command[0], command[1]);
        reply.put(&[before.unwrap_or_default(), at.time.0.to_le_bytes()[0]]);
        if self.bug == Bug::AnswersByItsAge {
            reply.put(&[u8::from(self.age % 50 == 49)]);
        }
    }

    fn apply_run(&mut self, at: At, commands: Items<'_>, replies: &mut RunReplies<'_>) {
        let mut commands: Vec<&[u8]> = commands.collect();
        if self.bug == Bug::RunsBackwards {
            commands.reverse();
        } else if self.bug == Bug::SkipsInRuns && commands.len() > 20 {
            commands.pop();
        }
        if self.bug == Bug::RunsChangeWhatIsFrozen
            && let Some(frozen) = &mut self.frozen
        {
            frozen.iter_mut().for_each(|(_, byte)| *byte = 1);
        }
        let mut at = at;
        for command in commands {
            self.apply(at, command, &mut replies.reply());
            at.index += 1;
        }
    }

    /// A query is a place of an even number.
    fn query(&self, _: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        assert!(self.bug != Bug::PanicsAtAQuery || query[0] < 200, "a place too far");
        self.queries.set(self.queries.get() + 1);
        reply.put(&[self.places.get(&query[0]).copied().unwrap_or_default()]);
        if self.bug == Bug::QueriesAnswerByItsAge {
            reply.put(&[u8::from(self.age % 50 == 49)]);
        }
        if query[0].is_multiple_of(2) { Ok(()) } else { Err(NotAQuery) }
    }

    fn state_hash(&self) -> u64 {
        let hash = |hash: u64, (place, byte): (&u8, &u8)| {
            (hash.wrapping_mul(31) + u64::from(*place)).wrapping_mul(31) + u64::from(*byte)
        };
        let age = if self.bug == Bug::HashesItsAge { self.age } else { 0 };
        let queries = if self.bug == Bug::QueriesChangeIt { self.queries.get() } else { 0 };
        let age = age + queries;
        self.places.iter().fold(age, hash)
    }

    fn freeze(&mut self) -> bool {
        assert!(self.frozen.is_none(), "frozen already");
        self.frozen_times += 1;
        let is_again = self.bug == Bug::FreezesOnce && self.frozen_times > 1;
        let has_none = [Bug::NoSnapshots, Bug::HasNoClear].contains(&self.bug);
        let may = !has_none && !is_again;
        if may {
            let mut frozen: Vec<_> = self.places.clone().into_iter().collect();
            let is_empty = self.bug == Bug::FreezesNoMoreOnceRestored && self.is_restored;
            if self.bug == Bug::LeavesTheLastOut || is_empty {
                frozen.pop();
            }
            self.frozen = Some(frozen);
        }
        may
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let frozen = self.frozen.as_mut().unwrap();
        if self.bug == Bug::WritesNothing {
            return true;
        }
        for _ in 0..bytes_max.div_ceil(2) {
            let Some((place, byte)) = frozen.pop() else { break };
            let now = self.places[&place];
            let byte = if self.bug == Bug::WritesWhatIsThereNow { now } else { byte };
            part.extend([place, byte]);
        }
        let is_more = !frozen.is_empty();
        if !is_more {
            self.frozen = None;
            if self.bug == Bug::ReplacesTheLastPart {
                part.clear();
            }
        }
        is_more
    }

    fn clear(&mut self) {
        if self.bug == Bug::HasNoClear {
            return; // as by default
        }
        if self.bug == Bug::KeepsTheFirstOnClear {
            let first = self.places.pop_first();
            self.places = first.into_iter().collect();
        } else {
            self.places.clear();
        }
        if self.bug != Bug::StaysFrozenOnClear {
            self.frozen = None;
        }
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        if self.bug == Bug::RefusesItsParts && part.len() > 100 {
            return Err(MalformedSnapshot);
        }
        self.is_restored = true;
        for entry in part.chunks(2) {
            match entry {
                [place, byte] => drop(self.places.insert(*place, *byte)),
                _ if self.bug == Bug::PanicsOnDamage => panic!("half an entry"),
                _ => return Err(MalformedSnapshot),
            }
        }
        Ok(())
    }
}

fn check(bug: Bug) -> Result<Conforms, Violation> {
    let make = || Shelf { bug, ..Shelf::default() };
    Conformance::default().check(make, |rng| rng.next_u64().to_le_bytes()[..2].to_vec())
}

fn fault(bug: Bug) -> Fault {
    check(bug).expect_err("it has a bug").fault
}

#[test]
fn a_machine_without_bugs_conforms() {
    let conforms = check(Bug::None).unwrap();
    assert!(conforms.commands > 10_000 && conforms.snapshots > 100, "{conforms:?}");
    // A machine without snapshots need not have a `clear`.
    for without in [Bug::NoSnapshots, Bug::HasNoClear] {
        let conforms = check(without).unwrap();
        assert!(conforms.commands > 10_000 && conforms.snapshots == 0, "{conforms:?}");
    }
}

#[test]
fn each_kind_of_bug_is_found_and_named() {
    let by_run = "a second machine, by apply_run";
    let in_runs = fault(Bug::RunsBackwards);
    assert!(
        matches!(in_runs, Fault::Answers { by, .. } | Fault::States { by, .. } if by == by_run)
    );
    assert!(
        matches!(fault(Bug::SkipsInRuns), Fault::Replies { commands, replies } if commands == replies + 1)
    );
    // What depends on the machine's own past shows on one whose past is another.
    assert!(matches!(fault(Bug::AnswersByItsAge), Fault::Answers { .. }));
    assert!(matches!(fault(Bug::HashesItsAge), Fault::States { .. }));
    let restored = "a machine that was restored";
    for bug in [
        Bug::WritesWhatIsThereNow,
        Bug::LeavesTheLastOut,
        Bug::FreezesNoMoreOnceRestored,
        Bug::RunsChangeWhatIsFrozen,
    ] {
        assert!(matches!(fault(bug), Fault::States { by, .. } if by == restored), "{bug:?}");
    }
    let cleared = fault(Bug::KeepsTheFirstOnClear);
    assert!(
        matches!(cleared, Fault::States { by: "a machine that was cleared", .. }),
        "{cleared:?}"
    );
    for (bug, at) in [(Bug::StaysFrozenOnClear, "freeze"), (Bug::PanicsOnDamage, "restore")] {
        assert!(matches!(fault(bug), Fault::Panicked { method, .. } if method == at), "{bug:?}");
    }
    let by_query = fault(Bug::QueriesAnswerByItsAge);
    assert!(matches!(by_query, Fault::Answers { by: "a second machine, by query", .. }));
    let changed = fault(Bug::QueriesChangeIt);
    assert!(matches!(changed, Fault::States { by: "the same machine, after queries", .. }));
    let panicked = fault(Bug::PanicsAtAQuery);
    assert!(matches!(panicked, Fault::Panicked { method: "query", .. }));
    assert_eq!(fault(Bug::WritesNothing), Fault::Endless);
    assert_eq!(fault(Bug::ReplacesTheLastPart), Fault::Endless);
    assert_eq!(fault(Bug::FreezesOnce), Fault::SometimesFrozen);
    assert!(matches!(fault(Bug::RefusesItsParts), Fault::Refused { .. }));
}

#[test]
fn a_violation_comes_again_with_the_seed_that_it_names() {
    let violation = check(Bug::LeavesTheLastOut).unwrap_err();
    let again = Conformance { seed: violation.seed, histories: 1, ..Conformance::default() };
    let make = || Shelf { bug: Bug::LeavesTheLastOut, ..Shelf::default() };
    let command = |rng: &mut Rng| rng.next_u64().to_le_bytes()[..2].to_vec();
    assert_eq!(again.check(make, command), Err(violation));
}
