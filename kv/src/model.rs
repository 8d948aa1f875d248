//! The machine against a model that is too simple to be wrong: an ordered map.

use std::collections::BTreeMap;

use loggos_protocol::conformance::Conformance;
use loggos_protocol::{
    At, BatchWriter, Items, ReplyItems, ResultWriter, Rng, Run, RunReplies, Runs, SessionId, Slot,
    StateMachine as _, Time,
};

use crate::{Answer, Command, Kv, Version};

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Version)>;

fn at(slot: u64) -> At {
    At { slot: Slot(slot), index: 0, time: Time(0) }
}

/// Executes one command on the model; returns the encoded answer.
fn execute(model: &mut Model, version: Version, bytes: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::new();
    let Ok(command) = Command::decode(bytes) else {
        Answer::Malformed.encode(&mut encoded);
        return encoded;
    };
    let key = command.key();
    let current = model.get(key).cloned();
    let value_now = current.as_ref().map(|(value, _)| &value[..]);
    let mut set = |value: &[u8]| drop(model.insert(key.to_vec(), (value.to_vec(), version)));
    let answer = match (command, &current) {
        (Command::Put { value, .. }, _) => {
            set(value);
            Answer::Stored
        }
        (Command::Get { .. } | Command::GetVersioned { .. } | Command::Delete { .. }, None) => {
            Answer::Missing
        }
        (Command::Get { .. }, Some((value, _))) => Answer::Value(value),
        (Command::GetVersioned { .. }, Some((value, version))) => {
            Answer::Versioned { value, version: *version }
        }
        (Command::Delete { .. }, Some(_)) => {
            model.remove(key);
            Answer::Deleted
        }
        (Command::Increment { by, .. }, _) => {
            let text = value_now.map_or(Ok("0"), str::from_utf8).unwrap_or_default();
            match text.parse::<i128>().map(|number| number + i128::from(by)) {
                Err(_) => Answer::NotANumber,
                Ok(sum) => match i64::try_from(sum) {
                    Err(_) => Answer::Overflow,
                    Ok(sum) => {
                        set(sum.to_string().as_bytes());
                        Answer::Number(sum)
                    }
                },
            }
        }
        (Command::CompareAndSet { expected, value, .. }, _) => {
            if value_now == expected {
                set(value);
                Answer::Swapped
            } else {
                Answer::Mismatch(value_now)
            }
        }
    };
    answer.encode(&mut encoded);
    encoded
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap()
}

fn random_key(rng: &mut Rng, keys: usize) -> Vec<u8> {
    let number = below(rng, keys);
    let pad = [0, 0, 8, 40, 300][number % 5];
    [vec![b'k'; pad], number.to_string().into_bytes()].concat()
}

fn random_value(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 | 1 => rng.below(4).to_string().into_bytes(),
        2 => i64::MAX.to_string().into_bytes(),
        3 => vec![b'v'; [0, 30, 44, 45, 46][below(rng, 5)]],
        4 => vec![b'w'; below(rng, 3000)],
        5..8 => vec![b'x'; below(rng, 4)],
        8.. => unreachable!("below eight"),
    }
}

fn random_command(rng: &mut Rng, model: &Model, keys: usize, deletes: u64) -> Vec<u8> {
    let key = &random_key(rng, keys)[..];
    let value = &random_value(rng)[..];
    let guess = random_value(rng);
    let current = model.get(key).map(|(value, _)| &value[..]);
    let command = match rng.below(10 + deletes) {
        0..3 => Command::Put { key, value },
        3 => Command::Get { key },
        4 => Command::GetVersioned { key },
        5 | 6 => Command::Increment { key, by: [1, -1, i64::MIN, i64::MAX][below(rng, 4)] },
        7 => Command::CompareAndSet { key, expected: current, value },
        8 => Command::CompareAndSet { key, expected: Some(&guess), value },
        9 => Command::CompareAndSet { key, expected: None, value },
        10.. => Command::Delete { key },
    };
    let mut bytes = Vec::new();
    command.encode(&mut bytes).unwrap();
    if rng.below(20) == 0 {
        bytes.truncate(below(rng, bytes.len()));
    }
    bytes
}

/// Executes the commands as a run; returns the encoded answers.
fn execute_run(kv: &mut Kv, at: At, commands: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut writer = BatchWriter::default();
    for command in commands {
        writer.push(command);
    }
    let block = writer.close(SessionId::default(), 0, 0);
    let Some(Ok(Run::Commands(run))) = Runs::new(block.as_slice()).next() else {
        panic!("the block does not read back")
    };
    let mut answers = Vec::new();
    kv.execute_run(at, run.commands, |answer| {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        answers.push(bytes);
    });
    answers
}

/// Answers a query, if it is one.
fn query(kv: &Kv, at: At, query: &[u8]) -> Option<Vec<u8>> {
    let mut writer = ResultWriter::default();
    writer.start_done(SessionId::default(), 0, at.position());
    let answered = kv.query(at, query, &mut RunReplies::new(&mut writer).reply());
    let replies = writer.end_done();
    let replies = writer.copy(replies);
    let reply = ReplyItems::new(replies.as_slice()).next()?.ok()?.to_vec();
    answered.ok().map(|()| reply)
}

fn assert_same(kv: &Kv, model: &Model) {
    assert_eq!(kv.len(), model.len());
    assert_eq!(kv.is_empty(), model.is_empty());
    for (key, (value, _)) in model {
        assert_eq!(kv.get(key), Some(&value[..]));
    }
    kv.store.validate();
}

#[test]
fn the_machine_answers_as_an_ordered_map_would() {
    // Few keys and many deletions: the table stays small, its chains are cut and closed all the
    // time. Many keys and few deletions: it grows.
    for (seed, keys, deletes) in [(1, 5, 4), (2, 12, 10), (3, 50, 20), (4, 3000, 1), (5, 3000, 8)] {
        let mut rng = Rng::new(seed);
        let (mut kv, mut model) = (Kv::default(), Model::new());
        for slot in 0..12_000 {
            let command = random_command(&mut rng, &model, keys, deletes);
            let version = Version { slot: Slot(slot), index: 7 };
            let answer = {
                let key_hash = kv.prepare(&command);
                let mut bytes = Vec::new();
                kv.execute(version, &command, key_hash).encode(&mut bytes);
                bytes
            };
            assert_eq!(
                Answer::decode(&answer),
                Answer::decode(&execute(&mut model, version, &command)),
                "seed {seed}, slot {slot}: {:?}",
                Command::decode(&command),
            );
            if slot % 1000 == 0 {
                assert_same(&kv, &model);
            }
        }
        assert_same(&kv, &model);
    }
}

#[test]
fn what_reads_is_answered_as_a_query_and_what_writes_is_refused_as_one() {
    let (mut rng, mut kv, mut model) = (Rng::new(5), Kv::default(), Model::new());
    for slot in 0..10_000 {
        let command = random_command(&mut rng, &model, 30, 5);
        let before = kv.store.digest();
        let asked = query(&kv, at(slot), &command);
        assert_eq!(kv.store.digest(), before, "a query changed the state");
        let executed = execute_run(&mut kv, at(slot), std::slice::from_ref(&command)).pop();
        let reads = Command::decode(&command).is_ok_and(|command| {
            matches!(command, Command::Get { .. } | Command::GetVersioned { .. })
        });
        assert_eq!(asked, executed.filter(|_| reads), "{command:?}");
        execute(&mut model, Version { slot: Slot(slot), index: 0 }, &command);
    }
    assert_same(&kv, &model);
}

#[test]
fn a_run_does_what_its_commands_would_one_by_one() {
    let mut rng = Rng::new(9);
    let (mut in_runs, mut one_by_one, mut model) = (Kv::default(), Kv::default(), Model::new());
    for slot in 0..300 {
        let count = [1, 2, 31, 32, 33, 64, 100][below(&mut rng, 7)];
        let commands: Vec<_> =
            (0..count).map(|_| random_command(&mut rng, &model, 400, 3)).collect();
        let answers = execute_run(&mut in_runs, at(slot), &commands);
        assert_eq!(answers.len(), count);
        for ((command, answer), index) in commands.iter().zip(answers).zip(0..) {
            let version = Version { slot: Slot(slot), index };
            let key_hash = one_by_one.prepare(command);
            let mut alone = Vec::new();
            one_by_one.execute(version, command, key_hash).encode(&mut alone);
            assert_eq!(answer, alone);
            assert_eq!(answer, execute(&mut model, version, command));
        }
        assert_eq!(in_runs.store.digest(), one_by_one.store.digest());
    }
    assert_same(&in_runs, &model);
    assert_same(&one_by_one, &model);
}

#[test]
fn a_run_goes_on_from_the_index_it_starts_at() {
    let mut kv = Kv::default();
    let mut put = Vec::new();
    Command::Put { key: b"key", value: b"value" }.encode(&mut put).unwrap();
    let mut get = Vec::new();
    Command::GetVersioned { key: b"key" }.encode(&mut get).unwrap();
    let mut commands = vec![put; 40];
    commands.push(get);
    let answers = execute_run(&mut kv, At { index: 5, ..at(3) }, &commands);
    let version = Version { slot: Slot(3), index: 44 };
    assert!(answers[..40].iter().all(Vec::is_empty));
    assert_eq!(Answer::decode(&answers[40]), Ok(Answer::Versioned { value: b"value", version }));
}

#[test]
fn the_same_value_written_at_another_place_is_another_state() {
    let mut command = Vec::new();
    Command::Put { key: b"key", value: b"value" }.encode(&mut command).unwrap();
    let hashes = [1, 1, 2].map(|slot| {
        let mut kv = Kv::with_capacity(10);
        execute_run(&mut kv, at(slot), std::slice::from_ref(&command));
        kv.store.digest()
    });
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[1], hashes[2]);
}

#[test]
fn what_changes_nothing_leaves_the_state_as_it_was() {
    let mut kv = Kv::default();
    let mut rng = Rng::new(2);
    let mut bytes = Vec::new();
    Command::Put { key: b"key", value: b"007" }.encode(&mut bytes).unwrap();
    execute_run(&mut kv, at(0), &[bytes]);
    let before = kv.store.digest();
    let (key, value) = (&b"key"[..], &b"new"[..]);
    let cases = [
        (Command::Get { key }, Answer::Value(b"007")),
        (Command::Delete { key: b"other" }, Answer::Missing),
        (Command::Increment { key, by: 1 }, Answer::NotANumber),
        (Command::CompareAndSet { key, expected: None, value }, Answer::Mismatch(Some(b"007"))),
        (
            Command::CompareAndSet { key: b"other", expected: Some(b""), value },
            Answer::Mismatch(None),
        ),
    ];
    for (command, expected) in cases {
        let mut bytes = Vec::new();
        command.encode(&mut bytes).unwrap();
        let answers = execute_run(&mut kv, at(rng.below(9)), &[bytes]);
        assert_eq!(Answer::decode(&answers[0]), Ok(expected));
        assert_eq!(kv.store.digest(), before);
    }
}

#[test]
fn garbage_is_executed_or_answered_as_malformed_and_never_panics() {
    let mut rng = Rng::new(77);
    let mut kv = Kv::default();
    for slot in 0..30_000 {
        let len = below(&mut rng, 24);
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        // Half of them with a header that may be right, so that the rest is looked at too.
        if let [opcode, low, high, ..] = &mut bytes[..]
            && rng.below(2) == 0
        {
            (*opcode, *low, *high) = (*opcode % 9, *low % 8, 0);
        }
        let is_command = Command::decode(&bytes).is_ok();
        let before = kv.store.digest();
        let answers = execute_run(&mut kv, at(slot), &[bytes]);
        let answer = Answer::decode(&answers[0]).unwrap();
        assert_eq!(is_command, answer != Answer::Malformed);
        assert!(is_command || kv.store.digest() == before);
    }
    kv.store.validate();
}

#[test]
fn a_run_of_no_commands_has_no_answers() {
    let mut kv = Kv::default();
    kv.execute_run(at(0), Items::default(), |answer| panic!("{answer:?}"));
    assert!(kv.is_empty());
    assert_eq!(format!("{kv:?}"), "Kv(0 keys, state 0000000000000000)");
}

#[test]
fn replicas_of_the_machine_stay_equal_and_are_restored_from_its_snapshots() {
    let none = Model::new();
    for (keys, deletes) in [(5, 8), (300, 3)] {
        let conformance = Conformance { histories: 20, ..Conformance::default() };
        let draw = |rng: &mut Rng| random_command(rng, &none, keys, deletes);
        let conforms = conformance.check(Kv::default, draw);
        let conforms = conforms.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(conforms.snapshots > 20, "{conforms:?}");
    }
}
