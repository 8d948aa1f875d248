//! Histories with a known verdict, and the search against one that is too simple to be wrong.

use std::collections::BTreeMap;
use std::ops::{Range, RangeFrom};

use loggos_protocol::{Rng, Time};

use super::history::Event;
use super::*;

/// An operation, in the order of its fields: client, when, command, and what it was told.
type Told = (u32, Range<u64>, Command, Answer);
/// An operation of unknown outcome, from when on, and when its client gave up, if it did.
type Unknown = (u32, RangeFrom<u64>, Option<u64>, Command);

fn put(value: &str) -> Command {
    Command::Put(value.into())
}

fn cas(expected: Option<&str>, value: &str) -> Command {
    Command::CompareAndSet { expected: expected.map(Into::into), value: value.into() }
}

fn value(value: &str) -> Answer {
    Answer::Value(value.into())
}

/// The history of these operations on one key. What happens at the same time overlaps.
fn history(told: &[Told], unknown: &[Unknown]) -> History {
    let mut plans = Vec::new();
    for (client, when, command, answer) in told {
        let fate = Fate::Answered(Some(answer.clone()));
        plans.push(Planned::new(*client, "k", command, when.clone(), fate));
    }
    for (client, from, given_up, command) in unknown {
        let (end, fate) = given_up.map_or((from.start, Fate::Open), |end| (end, Fate::Unknown));
        plans.push(Planned::new(*client, "k", command, from.start..end, fate));
    }
    assemble(&plans)
}

fn verdict(told: &[Told], unknown: &[Unknown]) -> Verdict {
    let history = history(told, unknown);
    let verdict = history.check(STEPS_MAX);
    assert_eq!(verdict == Verdict::Linearizable, has_order(&history), "{verdict}");
    verdict
}

fn assert_linearizable(told: &[Told], unknown: &[Unknown]) {
    assert_eq!(verdict(told, unknown), Verdict::Linearizable);
}

/// Asserts that the operation of `client` that was invoked at `invoked` is the one without a place.
fn assert_violation(told: &[Told], unknown: &[Unknown], (client, invoked): (u32, u64)) {
    let verdict = verdict(told, unknown);
    let Verdict::NotLinearizable(violation) = verdict else { panic!("{verdict}") };
    let unplaced = (violation.unplaced.client, violation.unplaced.invoked);
    assert_eq!(unplaced, (client, Time(invoked)), "{violation}");
}

mod violations {
    use super::*;

    #[test]
    fn a_stale_read_has_no_place() {
        let told = [
            (1, 0..10, put("a"), Answer::Stored),
            (1, 20..30, put("b"), Answer::Stored),
            (2, 40..50, Command::Get, value("a")),
        ];
        assert_violation(&told, &[], (2, 40));
    }

    #[test]
    fn of_two_increments_answered_the_same_number_one_is_lost() {
        let told = [
            (1, 0..10, Command::Increment(1), Answer::Number(1)),
            (2, 5..15, Command::Increment(1), Answer::Number(1)),
        ];
        assert_violation(&told, &[], (2, 5));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_not_read() {
        let told = [(1, 0..30, put("a"), Answer::Stored), (2, 10..20, Command::Get, value("b"))];
        assert_violation(&told, &[(3, 0.., None, put("c"))], (2, 10));
    }

    #[test]
    fn after_a_read_of_the_new_value_nobody_reads_the_old() {
        let told = [
            (1, 0..10, put("old"), Answer::Stored),
            (1, 20..90, put("new"), Answer::Stored),
            (2, 30..40, Command::Get, value("new")),
            (3, 50..60, Command::Get, value("old")),
        ];
        assert_violation(&told, &[], (3, 50));
        // The same with the write's outcome unknown: it appeared, and then vanished.
        let unknown = [(1, 20.., Some(25), put("new"))];
        let told = [told[0].clone(), told[2].clone(), told[3].clone()];
        assert_violation(&told, &unknown, (3, 50));
    }

    #[test]
    fn a_refused_write_is_not_seen() {
        let mut history = History::default();
        let refused = history.invoke(1, b"k", put("a"), Time(0));
        let get = history.invoke(2, b"k", Command::Get, Time(5));
        history.refuse(refused, Time(10));
        history.answer(get, value("a"), Time(20));
        let verdict = history.check(STEPS_MAX);
        assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{verdict}");
    }

    #[test]
    fn a_value_is_not_read_before_its_write_is_invoked() {
        let get = (2, 0..10, Command::Get, value("a"));
        let told = [get.clone(), (1, 11..20, put("a"), Answer::Stored)];
        assert_violation(&told, &[], (2, 0));
        assert_violation(&[get], &[(1, 11.., None, put("a"))], (2, 0));
    }

    /// Each client's own order is fine, and so is the order a, b, b, a; only time says otherwise.
    #[test]
    fn an_order_that_clients_agree_on_but_time_does_not_is_none() {
        let told = [
            (1, 0..10, put("a"), Answer::Stored),
            (2, 20..30, put("b"), Answer::Stored),
            (1, 40..50, Command::Get, value("a")),
        ];
        assert_violation(&told, &[], (1, 40));
    }

    #[test]
    fn two_readers_do_not_see_two_writes_in_opposite_orders() {
        let told = [
            (1, 0..100, put("a"), Answer::Stored),
            (2, 0..100, put("b"), Answer::Stored),
            (3, 10..20, Command::Get, value("a")),
            (3, 30..40, Command::Get, value("b")),
            (4, 15..25, Command::Get, value("b")),
            (4, 45..55, Command::Get, value("a")),
        ];
        assert_violation(&told, &[], (4, 45));
    }

    #[test]
    fn an_unknown_write_takes_effect_once() {
        let told = [
            (1, 0..10, put("a"), Answer::Stored),
            (2, 30..40, Command::Get, value("b")),
            (1, 50..60, put("a"), Answer::Stored),
            (2, 70..80, Command::Get, value("b")),
        ];
        assert_violation(&told, &[(3, 20.., None, put("b"))], (2, 70));
        assert_linearizable(&told, &[(3, 20.., None, put("b")), (4, 20.., None, put("b"))]);
    }

    #[test]
    fn only_one_of_two_clients_swaps_the_same_value() {
        let told = [
            (1, 0..10, cas(None, "a"), Answer::Swapped),
            (2, 0..10, cas(None, "b"), Answer::Swapped),
        ];
        assert_violation(&told, &[], (2, 0));
        let mismatch = (2, 0..10, cas(None, "b"), Answer::Mismatch(Some("a".into())));
        assert_linearizable(&[told[0].clone(), mismatch], &[]);
    }

    /// Hidden by another put it would still have to have been answered as a put.
    #[test]
    fn an_answer_to_another_command_has_no_place() {
        let told = [(1, 0..10, put("a"), Answer::Stored), (2, 0..20, put("b"), Answer::Missing)];
        assert_violation(&told, &[], (2, 0));
    }

    #[test]
    fn on_one_key_of_many_it_is_found() {
        let mut history = History::default();
        for key in 0..10u8 {
            let write = history.invoke(1, &[key], put("a"), Time(0));
            let read = history.invoke(2, &[key], Command::Get, Time(0));
            history.answer(write, Answer::Stored, Time(0));
            history.answer(read, value(if key == 7 { "b" } else { "a" }), Time(0));
        }
        let Verdict::NotLinearizable(violation) = history.check(STEPS_MAX) else { panic!() };
        assert_eq!(violation.key, [7]);
    }

    #[test]
    fn a_person_is_told_what_could_not_be_placed_and_what_could() {
        let told = [
            (1, 0..10, put("a"), Answer::Stored),
            (1, 20..30, put("b"), Answer::Stored),
            (2, 40..50, Command::Get, value("a")),
        ];
        let unknown = [(3, 25.., Some(35), cas(Some("b"), "c")), (4, 45.., None, Command::Delete)];
        let expected = "\
key \"k\" is not linearizable: this has no place
  client 2, from 0.000000040s to 0.000000050s: get → \"a\"
the key may by then have had: nothing, \"b\", \"c\"
open at that answer, the latest last:
  client 3, from 0.000000025s on, given up at 0.000000035s: set \"c\" if it has \"b\" → unknown
  client 4, from 0.000000045s on: delete → nothing yet
what changed the key, in an order that explains all answers before:
  client 1, from 0.000000000s to 0.000000010s: put \"a\" → stored
  client 1, from 0.000000020s to 0.000000030s: put \"b\" → stored
";
        assert_eq!(verdict(&told, &unknown).to_string(), expected);
    }
}

mod no_violations {
    use super::*;

    #[test]
    fn nothing_at_all() {
        assert_linearizable(&[], &[]);
        assert_linearizable(&[], &[(1, 0.., None, put("a"))]);
    }

    #[test]
    fn writes_at_once_come_in_any_order() {
        let values = ["a", "b", "c"];
        for last in values {
            let mut told: Vec<Told> = (1..)
                .zip(values)
                .map(|(client, value)| (client, 0..10, put(value), Answer::Stored))
                .collect();
            told.push((4, 20..30, Command::Get, value(last)));
            assert_linearizable(&told, &[]);
        }
    }

    #[test]
    fn a_write_of_unknown_outcome_is_seen_late_or_never() {
        let before = [
            (1, 10..20, put("a"), Answer::Stored),
            (1, 30..40, Command::Get, value("a")),
            (1, 50..60, Command::Get, value("a")),
        ];
        let unknown = [(2, 0.., Some(5), put("b"))];
        assert_linearizable(&before, &unknown);
        let late = (1, 70..80, Command::Get, value("b"));
        assert_linearizable(&[&before[..], &[late]].concat(), &unknown);
    }

    #[test]
    fn an_operation_takes_effect_after_its_client_went_on_with_the_next() {
        let told = [
            (1, 20..30, put("next"), Answer::Stored),
            (1, 40..50, Command::Get, value("next")),
            (1, 60..70, Command::Get, value("given up")),
        ];
        assert_linearizable(&told, &[(1, 0.., Some(10), put("given up"))]);
    }

    #[test]
    fn what_is_answered_when_something_else_is_invoked_overlaps_it_if_invoked_first() {
        let mut history = History::default();
        let write = history.invoke(1, b"k", put("a"), Time(0));
        let read = history.invoke(2, b"k", Command::Get, Time(5));
        history.answer(write, Answer::Stored, Time(5));
        history.answer(read, Answer::Missing, Time(5));
        assert_eq!(history.check(STEPS_MAX), Verdict::Linearizable);

        let mut history = History::default();
        let write = history.invoke(1, b"k", put("a"), Time(0));
        history.answer(write, Answer::Stored, Time(5));
        let read = history.invoke(2, b"k", Command::Get, Time(5));
        history.answer(read, Answer::Missing, Time(5));
        let verdict = history.check(STEPS_MAX);
        assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{verdict}");
    }

    #[test]
    fn every_answer_of_the_chart() {
        let told = [
            (1, 0..1, Command::Get, Answer::Missing),
            (1, 2..3, Command::Delete, Answer::Missing),
            (1, 4..5, Command::Increment(-3), Answer::Number(-3)),
            (1, 6..7, cas(Some("-3"), "7"), Answer::Swapped),
            (1, 8..9, Command::Increment(i64::MAX), Answer::Overflow),
            (1, 10..11, cas(None, "x"), Answer::Mismatch(Some("7".into()))),
            (1, 12..13, put("007"), Answer::Stored),
            (1, 14..15, Command::Increment(1), Answer::NotANumber),
            (1, 16..17, Command::Get, value("007")),
            (1, 18..19, Command::Delete, Answer::Deleted),
            (1, 20..21, cas(Some("7"), "x"), Answer::Mismatch(None)),
        ];
        // One after the other only one order is in question, so the simple search is quick here
        // too.
        assert_linearizable(&told, &[]);
    }
}

mod costs {
    use super::*;

    /// A thousand operations of twelve clients on twenty keys, two in a hundred of unknown outcome.
    #[test]
    fn a_usual_history_is_checked_in_a_few_steps_an_operation() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let load = Load { clients: 12, keys: 20, operations: 1000, unknown_percent: 2 };
            let history = true_history(&mut rng, &load);
            assert_eq!(history.operations().len(), 1000);
            assert_eq!(history.check(1_000), Verdict::Linearizable, "seed {seed}");
        }
    }

    #[test]
    fn a_crowd_on_one_key_is_checked_within_the_bound() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed);
            let load = Load { clients: 12, keys: 1, operations: 1000, unknown_percent: 2 };
            let history = true_history(&mut rng, &load);
            assert_eq!(history.check(STEPS_MAX), Verdict::Linearizable, "seed {seed}");
        }
    }

    /// Without an order every way must be tried; subsets of thirty would be too many.
    #[test]
    fn many_puts_at_once_are_no_subsets_of_each_other() {
        let puts = (0..30).map(|n| (n, 0..10, put(&n.to_string()), Answer::Stored));
        let mut told: Vec<Told> = puts.collect();
        told.push((30, 20..30, Command::Get, value("none of them")));
        let Verdict::NotLinearizable(violation) = history(&told, &[]).check(STEPS_MAX) else {
            panic!()
        };
        assert_eq!((violation.unplaced.client, violation.values.len()), (30, 30));
    }

    #[test]
    fn many_unknown_operations_are_no_subsets_of_each_other() {
        let commands: [fn(u32) -> Command; 4] = [
            |n| put(&n.to_string()),
            |_| Command::Increment(1),
            |_| Command::Delete,
            |n| cas(Some(&n.to_string()), &(n + 1).to_string()),
        ];
        for command in commands {
            let unknown: Vec<_> = (0..40).map(|n| (n, 0.., None, command(n))).collect();
            let told = [
                (200, 0..10, put("0"), Answer::Stored),
                (200, 20..30, Command::Get, value("0")),
                (200, 40..50, Command::Get, value("none of theirs")),
            ];
            let verdict = history(&told, &unknown).check(STEPS_MAX);
            assert!(matches!(verdict, Verdict::NotLinearizable(_)), "{verdict}");
        }
    }

    #[test]
    fn a_search_that_takes_too_long_is_given_up_at_the_bound() {
        let unknown: Vec<_> = (0..60).map(|n| (n, 0.., None, Command::Increment(1 << n))).collect();
        let told = [(100, 20..30, Command::Get, value("none of the sums"))];
        let mut history = history(&told, &unknown);
        let verdict = history.check(STEPS_MAX);
        let Verdict::Undecided { key, steps } = &verdict else { panic!("{verdict}") };
        assert_eq!(key, b"k");
        assert!((STEPS_MAX..2 * STEPS_MAX).contains(steps), "{steps}");
        // Another key's violation is found all the same.
        let get = history.invoke(100, b"other", Command::Get, Time(100));
        history.answer(get, value("never written"), Time(101));
        assert!(matches!(history.check(STEPS_MAX), Verdict::NotLinearizable(_)));
    }
}

/// What a made-up operation will be told.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    /// This, or if it is not fixed, what the machine says.
    Answered(Option<Answer>),
    Unknown,
    Open,
    Refused,
}

/// An operation to be made history.
#[derive(Clone, Debug)]
struct Planned {
    client: u32,
    key: &'static str,
    command: Command,
    invoked: u64,
    /// The time when the machine executes it; never, if it has no effect.
    executed: Option<u64>,
    ended: u64,
    fate: Fate,
}

impl Planned {
    fn new(
        client: u32,
        key: &'static str,
        command: &Command,
        when: Range<u64>,
        fate: Fate,
    ) -> Self {
        let Range { start: invoked, end: ended } = when;
        let command = command.clone();
        Self { client, key, command, invoked, executed: None, ended, fate }
    }
}

/// Makes history of plans whose answers are fixed. Of events at one time, invocations come first.
fn assemble(plans: &[Planned]) -> History {
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        events.push((plan.invoked, false, index));
        if plan.fate != Fate::Open {
            events.push((plan.ended, true, index));
        }
    }
    events.sort_unstable();
    let mut history = History::default();
    let mut ids = vec![None; plans.len()];
    for (at, is_end, index) in events {
        let (plan, now) = (&plans[index], Time(at));
        if !is_end {
            let command = plan.command.clone();
            ids[index] = Some(history.invoke(plan.client, plan.key.as_bytes(), command, now));
            continue;
        }
        let id = ids[index].unwrap();
        match &plan.fate {
            Fate::Answered(answer) => history.answer(id, answer.clone().unwrap(), now),
            Fate::Unknown => history.give_up(id, now),
            Fate::Refused => history.refuse(id, now),
            Fate::Open => unreachable!("never ends"),
        }
    }
    history
}

/// Fixes the answers of `plans` by executing them on one machine, one after the other.
fn execute(plans: &mut [Planned]) {
    let mut machine: BTreeMap<&str, Value> = BTreeMap::new();
    let mut order: Vec<_> = plans.iter_mut().filter(|plan| plan.executed.is_some()).collect();
    order.sort_by_key(|plan| plan.executed);
    for plan in order {
        let value = machine.entry(plan.key).or_default();
        let (answer, after) = plan.command.execute(value);
        *value = after;
        if let Fate::Answered(told) = &mut plan.fate {
            *told = Some(answer);
        }
    }
}

/// What makes a history up.
struct Load {
    clients: u32,
    keys: usize,
    operations: usize,
    unknown_percent: u64,
}

const KEYS: [&str; 20] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t",
];

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

/// A command; `fresh` is a value that no other command writes.
fn draw_command(rng: &mut Rng, fresh: usize) -> Command {
    // Half of the values are few, so that writes of the same value meet.
    let value = if rng.below(2) == 0 { fresh } else { below(rng, 3) }.to_string();
    match rng.below(10) {
        0..3 => Command::Get,
        3..5 => put(&value),
        5 | 6 => Command::Increment([1, 1, 0, -2][below(rng, 4)]),
        7 => Command::Delete,
        8 => cas(None, &value),
        9.. => cas(Some(&below(rng, 3).to_string()), &value),
    }
}

/// Draws what clients do, each one thing after the other, with executions somewhere in between, or
/// long after a client has given up.
fn draw_plans(rng: &mut Rng, load: &Load) -> Vec<Planned> {
    let mut free_at: Vec<u64> = (0..load.clients).map(|_| rng.below(20)).collect();
    let mut plans = Vec::new();
    for index in 0..load.operations {
        let client = (0..free_at.len()).min_by_key(|client| free_at[*client]).unwrap();
        let invoked = free_at[client];
        let (wait, answer) = (rng.below(30), rng.below(30));
        let (executed, ended) = (invoked + wait, invoked + wait + answer);
        let is_unknown = rng.below(100) < load.unknown_percent;
        let (executed, fate) = match (is_unknown, rng.below(4)) {
            (false, _) if rng.below(50) == 0 => (None, Fate::Refused),
            (false, _) => (Some(executed), Fate::Answered(None)),
            (true, 0) => (None, Fate::Unknown),
            (true, 1) => (Some(executed), Fate::Unknown),
            (true, 2) => (Some(executed + rng.below(200)), Fate::Unknown),
            (true, _) => (Some(executed + rng.below(200)), Fate::Open),
        };
        let (client_id, key) = (u32::try_from(client).unwrap(), KEYS[below(rng, load.keys)]);
        let command = draw_command(rng, 10 + index);
        let planned = Planned::new(client_id, key, &command, invoked..ended, fate);
        plans.push(Planned { executed, ..planned });
        free_at[client] = ended + 1 + rng.below(10);
    }
    plans
}

/// A history that one machine made: linearizable whatever was drawn.
fn true_history(rng: &mut Rng, load: &Load) -> History {
    let mut plans = draw_plans(rng, load);
    execute(&mut plans);
    assemble(&plans)
}

/// Draws an answer that a command might have had, if not this time.
fn draw_answer(rng: &mut Rng, command: &Command, plans: usize) -> Answer {
    let value = if rng.below(2) == 0 { below(rng, 3) } else { 10 + below(rng, plans) }.to_string();
    let is_absent = rng.below(3) == 0;
    match command {
        Command::Put(_) if rng.below(10) == 0 => Answer::Missing,
        Command::Put(_) => Answer::Stored,
        Command::Get | Command::Delete if is_absent => Answer::Missing,
        Command::Get => Answer::Value(value.into_bytes()),
        Command::Delete => Answer::Deleted,
        Command::Increment(_) => Answer::Number(value.parse().unwrap()),
        Command::CompareAndSet { .. } if rng.below(2) == 0 => Answer::Swapped,
        Command::CompareAndSet { .. } => Answer::Mismatch((!is_absent).then(|| value.into_bytes())),
    }
}

/// Gives one answered operation another answer.
fn mutate(rng: &mut Rng, plans: &mut [Planned]) {
    let count = plans.len();
    let at = below(rng, count);
    if let Fate::Answered(answer) = &mut plans[at].fate {
        *answer = Some(draw_answer(rng, &plans[at].command, count));
    }
}

/// Tries every order of every choice of the operations. One key.
fn has_order(history: &History) -> bool {
    let operations = history.operations();
    let position = |event: &Event| history.events.iter().position(|other| other == event);
    let when: Vec<_> = (0..operations.len())
        .map(OperationId)
        .map(|id| (position(&Event::Invoked(id)), position(&Event::Answered(id))))
        .collect();
    let mut order = Vec::new();
    explains(operations, &when, &mut order, &None)
}

/// Whether some operations executed after those of `order` leave no answer unexplained.
fn explains(
    operations: &[Operation],
    when: &[(Option<usize>, Option<usize>)],
    order: &mut Vec<usize>,
    value: &Value,
) -> bool {
    let is_answered = |index: &usize| when[*index].1.is_some();
    let left: Vec<usize> = (0..operations.len()).filter(|index| !order.contains(index)).collect();
    if !left.iter().any(is_answered) {
        return true;
    }
    for &next in &left {
        // Whatever was answered before this was invoked must have been executed before it.
        let is_late = left.iter().any(|other| is_answered(other) && when[*other].1 < when[next].0);
        let (answer, after) = operations[next].command.execute(value);
        let fits = match &operations[next].ending {
            Ending::Answered(_, told) => *told == answer,
            Ending::Open | Ending::Unknown(_) => true,
            Ending::Refused(_) => false,
        };
        if fits && !is_late {
            order.push(next);
            if explains(operations, when, order, &after) {
                return true;
            }
            order.pop();
        }
    }
    false
}

#[test]
fn what_one_machine_did_is_linearizable() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let load = Load {
            clients: 1 + u32::try_from(rng.below(12)).unwrap(),
            keys: 1 + below(&mut rng, 5),
            operations: 1 + below(&mut rng, 300),
            unknown_percent: rng.below(6),
        };
        let verdict = true_history(&mut rng, &load).check(STEPS_MAX);
        assert_eq!(verdict, Verdict::Linearizable, "seed {seed}: {verdict}");
    }
}

#[test]
fn on_small_histories_the_verdict_is_that_of_trying_every_order() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..60_000 {
        let mut rng = Rng::new(seed);
        let load = Load {
            clients: 1 + u32::try_from(rng.below(5)).unwrap(),
            keys: 1,
            operations: 2 + below(&mut rng, 6),
            unknown_percent: [0, 10, 40][below(&mut rng, 3)],
        };
        let mut plans = draw_plans(&mut rng, &load);
        execute(&mut plans);
        for _ in 0..seed % 4 {
            mutate(&mut rng, &mut plans);
        }
        let history = assemble(&plans);
        let (verdict, has_order) = (history.check(STEPS_MAX), has_order(&history));
        match verdict {
            Verdict::Linearizable => assert!(has_order, "seed {seed}: {history:#?}"),
            Verdict::NotLinearizable(_) => assert!(!has_order, "seed {seed}: {verdict}"),
            Verdict::Undecided { .. } => panic!("seed {seed}: {verdict}"),
        }
        assert!(seed % 4 > 0 || has_order, "seed {seed} is what one machine did");
        (good, bad) = (good + u32::from(has_order), bad + u32::from(!has_order));
    }
    assert!(good > 20_000 && bad > 15_000, "{good} good, {bad} bad: not much of a test");
}

/// The furthest answer is no matter of luck: those before it have an order, and with it there is
/// none.
#[test]
fn a_violation_names_the_first_answer_that_is_too_much() {
    let mut violations = 0;
    for seed in 0..5_000 {
        let mut rng = Rng::new(seed);
        let load = Load { clients: 4, keys: 1, operations: 7, unknown_percent: 10 };
        let mut plans = draw_plans(&mut rng, &load);
        execute(&mut plans);
        mutate(&mut rng, &mut plans);
        let history = assemble(&plans);
        let Verdict::NotLinearizable(violation) = history.check(STEPS_MAX) else { continue };
        let is_unplaced = |event: &Event| matches!(event, Event::Answered(id) if *history.operation(*id) == violation.unplaced);
        let at = history.events.iter().position(is_unplaced).unwrap();
        assert!(has_order(&cut(&history, at)), "seed {seed}: {violation}");
        assert!(!has_order(&cut(&history, at + 1)), "seed {seed}: {violation}");
        violations += 1;
    }
    assert!(violations > 1_000, "{violations} are not much of a test");
}

/// The first events of a history. What was answered later may have come before, if with that
/// answer.
fn cut(history: &History, events: usize) -> History {
    let mut cut = history.clone();
    cut.events.truncate(events);
    let invocations = cut.events.iter().filter(|event| matches!(event, Event::Invoked(_)));
    cut.operations.truncate(invocations.count());
    cut
}
