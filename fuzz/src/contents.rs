//! What payloads hold: blocks of a batch and of its results, and commands and answers of the
//! key-value store.

use loggos::kv::{Answer, Command, Kv};
use loggos::{At, Items, RunReplies, Slot, StateMachine, Time};
use loggos_protocol::{Outcome, Outcomes, ResultWriter, Run, RunAnswers, Runs, SessionId};

const SESSION: SessionId = SessionId { slot: Slot(1), index: 2 };
const AT: At = At { slot: Slot(3), index: 4, time: Time(5) };

/// `data` as a block of commands, as one of outcomes, and as commands that any client may send.
pub fn contents(data: &[u8]) {
    for run in Runs::new(data).map_while(Result::ok) {
        if let Run::Commands(run) = run {
            execute(run.commands);
        }
    }
    outcomes(data);
    execute(Items::new(data));
    if let Ok(answer) = Answer::decode(data) {
        let mut encoded = Vec::new();
        answer.encode(&mut encoded);
        assert_eq!(encoded, data, "{answer:?}");
    }
}

/// What reads as outcomes is what a replica would have written.
fn outcomes(block: &[u8]) {
    let mut writer = ResultWriter::default();
    for outcome in Outcomes::new(block).map_while(Result::ok) {
        match outcome {
            Outcome::Done { session, first, at, count, replies } => {
                writer.done(session, first, RunAnswers { at, count, replies });
                for reply in replies {
                    let _ = reply.map(Answer::decode);
                }
            }
            Outcome::Opened(session) => writer.opened(session),
            Outcome::OutOfOrder { session, next } => writer.out_of_order(session, next),
            Outcome::UnknownSession(session) => writer.unknown_session(session),
            Outcome::Trimmed(session) => writer.trimmed(session),
        }
    }
    assert!(block.starts_with(writer.take().as_slice()), "a block that no correct gateway writes");
}

/// Any commands do and answer in a run what they would one by one.
fn execute(commands: Items<'_>) {
    let (mut in_runs, mut one_by_one) = (Kv::default(), Kv::default());
    let in_a_run = replies(|replies| in_runs.apply_run(AT, commands, replies));
    let alone = replies(|replies| {
        for (command, index) in commands.zip(AT.index..) {
            one_by_one.apply(At { index, ..AT }, command, &mut replies.reply());
        }
    });
    assert_eq!(in_a_run, alone, "other answers");
    assert_eq!(in_runs.state_hash(), one_by_one.state_hash(), "other states");
    for command in commands {
        if let Ok(decoded) = Command::decode(command) {
            let mut encoded = Vec::new();
            decoded.encode(&mut encoded).expect("what was encoded has lengths that can be");
            assert_eq!(encoded, command, "{decoded:?}");
        }
    }
}

/// What `answer` replies; all of it can be read.
fn replies(answer: impl FnOnce(&mut RunReplies<'_>)) -> Vec<Vec<u8>> {
    let mut writer = ResultWriter::default();
    writer.start_done(SESSION, 1, AT.position());
    answer(&mut RunReplies::new(&mut writer));
    writer.end_done();
    let block = writer.take();
    let Some(Ok(Outcome::Done { replies, count, .. })) = Outcomes::new(block.as_slice()).next()
    else {
        panic!("a run's outcome does not read back");
    };
    let replies: Vec<_> = replies.flatten().map(<[u8]>::to_vec).collect();
    assert_eq!(replies.len(), count as usize, "one reply for each command");
    assert!(replies.iter().all(|reply| Answer::decode(reply).is_ok()), "{replies:?}");
    replies
}
