//! R29 of results: what one message has no room for is asked for, and what is too long to be kept
//! is said to be.

mod harness;

use std::sync::Arc;

use harness::{B1, START, batch, grid, heartbeat, out_of, pick, replica, small};
use loggos_protocol::{
    Ask, Batch, BatchWriter, Caller, ClientId, Gateway, GatewayId, Incarnation, Outbox, Outcome,
    Outcomes, Payload, Position, Replica, ReplicaId, ResultWriter, Results, SessionId, Settings,
    Slot, Stage, ToGateway, ToProposer, ToReplica,
};

const LIFE: Incarnation = Incarnation(1);
const SESSION: SessionId = SessionId { slot: Slot(0), index: 0 };

/// A gateway with a batch of four commands under way.
struct Desk {
    gateway: Gateway,
    batch: Batch,
}

impl Desk {
    fn new() -> Self {
        let cluster = harness::checked(grid(2, 2));
        let gateway = Gateway::new(cluster.clone(), GatewayId(0), LIFE, 5, START);
        let mut desk = Self { gateway, batch: batch(0) };
        let heartbeat = heartbeat(&cluster, B1, Stage::Leading);
        let out = out_of(|out| desk.gateway.on_heartbeat(&heartbeat, START, out));
        desk.take_batch(&out);
        desk.tell(|writer| writer.opened(SESSION));
        let out = out_of(|out| {
            for tag in 0..4 {
                let caller = Caller { client: ClientId(0), tag };
                desk.gateway.submit(caller, b"x".into(), START, out);
            }
            desk.gateway.flush(START, out);
        });
        desk.take_batch(&out);
        desk
    }

    fn take_batch(&mut self, out: &Outbox) {
        let proposed = pick!(out.sends, Proposer(ToProposer::Propose));
        self.batch = Batch::clone(&proposed[0].1.batch);
    }

    fn tell(&mut self, write: impl FnOnce(&mut ResultWriter)) -> Outbox {
        let mut writer = ResultWriter::default();
        write(&mut writer);
        let (batch, attempt, outcomes) = (self.batch.id, self.batch.attempt, writer.take());
        let results = Results { replica: ReplicaId(1), batch, attempt, slot: Slot(9), outcomes };
        let out = out_of(|out| self.gateway.on_results(&results, START, out));
        self.gateway.validate();
        out
    }

    /// Tells the results of commands from `first` on: their replies are these letters.
    fn part(&mut self, first: u64, replies: &str) -> Outbox {
        self.tell(|writer| put_part(writer, first, replies))
    }
}

fn put_part(writer: &mut ResultWriter, first: u64, replies: &str) {
    let index = u32::try_from(first).expect("a small number");
    writer.start_done(SESSION, first, Position { slot: Slot(9), index });
    for reply in replies.bytes() {
        writer.start_reply();
        writer.put(&[reply]);
        writer.end_reply();
    }
    writer.end_done();
}

/// Each client's reply, as text: its tag, its place in the slot, and the reply.
fn told(out: &Outbox) -> String {
    let told = out.replies.iter().map(|(caller, reply)| match reply {
        Ok((at, reply)) => {
            format!("{} at {}: {}", caller.tag, at.index, String::from_utf8_lossy(reply))
        }
        Err(why) => format!("{}: {why:?}", caller.tag),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The first number and the count of what replicas are asked for, and which.
fn asked(out: &Outbox) -> Vec<(u8, u64, u32)> {
    let asked = pick!(out.sends, Replica(ToReplica::Ask));
    asked.into_iter().map(|(replica, ask)| (replica.0, ask.first, ask.count)).collect()
}

#[test]
fn r29_a_gateway_asks_for_the_results_that_a_message_had_no_room_for() {
    let mut desk = Desk::new();
    let out = desk.part(0, "a");
    assert_eq!((told(&out).as_str(), asked(&out)), ("0 at 0: a", vec![(1, 1, 3)]));
    let out = desk.part(0, "a");
    assert_eq!((told(&out).as_str(), asked(&out)), ("", vec![]), "it comes twice");
    let out = desk.part(1, "bc");
    assert_eq!((told(&out).as_str(), asked(&out)), ("1 at 1: b, 2 at 2: c", vec![(1, 3, 1)]));
    let out = desk.part(0, "abcd");
    assert_eq!((told(&out).as_str(), asked(&out)), ("3 at 3: d", vec![]), "of another attempt");
    assert_eq!(desk.gateway.unanswered(), 0);
}

/// A batch whose commands were executed in several runs has as many outcomes, in one message.
#[test]
fn r29_the_rest_of_results_is_asked_for_once_a_message() {
    let mut desk = Desk::new();
    let out = desk.tell(|writer| {
        put_part(writer, 0, "a");
        put_part(writer, 1, "b");
    });
    assert_eq!((told(&out).as_str(), asked(&out)), ("0 at 0: a, 1 at 1: b", vec![(1, 2, 2)]));
    let out = desk.tell(|writer| (0..4).for_each(|number| put_part(writer, number, "x")));
    assert_eq!((told(&out).as_str(), asked(&out)), ("2 at 2: x, 3 at 3: x", vec![]));
    assert_eq!(desk.gateway.unanswered(), 0);
}

#[test]
fn r29_results_that_overtake_each_other_are_told_once_each() {
    let mut desk = Desk::new();
    let out = desk.part(2, "c");
    assert_eq!((told(&out).as_str(), asked(&out)), ("2 at 2: c", vec![(1, 0, 4)]));
    let out = desk.part(1, "bcd");
    assert_eq!((told(&out).as_str(), asked(&out)), ("1 at 1: b, 3 at 3: d", vec![]), "asked");
    assert_eq!(told(&desk.part(0, "abcd")), "0 at 0: a");
    assert_eq!(desk.gateway.unanswered(), 0);
}

#[test]
fn r29_results_beyond_the_batch_are_not_its_own() {
    let mut desk = Desk::new();
    assert_eq!(told(&desk.part(1, "bcde")), "");
    assert_eq!(told(&desk.part(4, "e")), "");
    assert_eq!(told(&desk.part(0, "")), "");
    assert_eq!(desk.gateway.unanswered(), 4);
}

#[test]
fn r24_commands_that_were_answered_are_not_of_unknown_outcome() {
    let mut desk = Desk::new();
    desk.part(1, "bc");
    let out = desk.tell(|writer| writer.unknown_session(SESSION));
    assert_eq!(told(&out), "0: OutcomeUnknown, 3: OutcomeUnknown");
}

/// A replica that has opened [`SESSION`], with a machine that answers with the command and its
/// count.
struct Log {
    replica: Replica<harness::Echo>,
    next: Slot,
}

impl Log {
    fn new(settings: Settings) -> Self {
        let mut log = Self { replica: replica(&harness::checked(settings), 0), next: Slot(0) };
        log.execute(BatchWriter::open(GatewayId(0), LIFE));
        log
    }

    fn execute(&mut self, block: Payload) -> String {
        let chosen = harness::chosen(self.next, block);
        self.next = self.next.next();
        let out = out_of(|out| self.replica.on_chosen(chosen, START, out));
        self.replica.validate();
        answered(&out)
    }

    /// Executes commands of these letters, each as long as it is told.
    fn run(&mut self, first: u64, commands: &[(u8, usize)]) -> String {
        let mut writer = BatchWriter::default();
        for (letter, bytes) in commands {
            writer.push(&vec![*letter; *bytes]);
        }
        self.execute(writer.close(SESSION, first, 0))
    }

    fn ask(&mut self, first: u64, count: u32) -> String {
        let ask = Ask { batch: batch(0).id, attempt: 0, session: Some(SESSION), first, count };
        answered(&out_of(|out| self.replica.on_ask(&ask, out)))
    }
}

/// What a gateway is answered: the first number, and letter and length of each reply; `!` if it was
/// too large.
fn answered(out: &Outbox) -> String {
    let mut words = Vec::new();
    for (_, results) in pick!(out.sends, Gateway(ToGateway::Results)) {
        for outcome in Outcomes::new(results.outcomes.as_slice()) {
            if let Ok(Outcome::Done { first, at, replies, .. }) = outcome {
                words.push(format!("{first} at {}:", at.index));
                words.extend(replies.map(|reply| match reply {
                    Ok(reply) => format!("{}{}", char::from(reply[0]), reply.len()),
                    Err(_) => "!".to_owned(),
                }));
            }
        }
    }
    words.join(" ")
}

#[test]
fn r29_a_replica_answers_with_as_much_as_a_message_has_room_for() {
    let mut log = Log::new(Settings { results_bytes_max: 100, ..small() });
    assert_eq!(log.run(0, &[(b'a', 40), (b'b', 40), (b'c', 200), (b'd', 1)]), "0 at 0: a42 b42");
    assert_eq!(log.ask(0, 4), "0 at 0: a42 b42");
    assert_eq!(log.ask(2, 2), "2 at 2: c202", "one at the least");
    assert_eq!(log.ask(3, 1), "3 at 3: d3");
    assert_eq!(log.ask(3, 2), "", "there is no such command yet");
    assert_eq!(log.replica.counters().partial_answers, 2);
}

#[test]
fn r29_a_long_answer_is_freed_once_its_gateway_has_it() {
    for (bytes, is_kept) in [(100, true), (100_000, false)] {
        let mut log = Log::new(Settings {
            command_bytes_max: 1 << 20,
            batch_bytes_max: 2 << 20,
            ..grid(2, 2)
        });
        let mut writer = BatchWriter::default();
        writer.push(&vec![b'a'; bytes]);
        let chosen = harness::chosen(log.next, writer.close(SESSION, 0, 0));
        let out = out_of(|out| log.replica.on_chosen(chosen, START, out));
        let answers = pick!(out.sends, Gateway(ToGateway::Results));
        let answer = Arc::downgrade(answers[0].1);
        drop(out);
        assert_eq!(answer.upgrade().is_some(), is_kept, "{bytes} bytes");
    }
}

#[test]
fn r29_a_reply_beyond_the_bound_is_executed_and_said_to_be_too_large() {
    let mut log = Log::new(Settings { reply_bytes_max: 12, ..small() });
    let commands = [(b'a', 10), (b'b', 11), (b'c', 3)];
    assert_eq!(log.run(0, &commands), "0 at 0: a12 ! c5");
    assert_eq!(log.run(0, &commands), "0 at 0: a12 ! c5", "and is so when it is sent again");
    assert_eq!(
        log.run(1, &[(b'b', 11), (b'c', 3), (b'd', 20)]),
        "1 at 1: ! c5 3 at 2: !",
        "with a new one"
    );
    assert_eq!(log.replica.machine().executed.len(), 4);
}

/// Two replicas that keep as much let go of the same, in the same slot: what a client is told is
/// the same, whichever it asks.
#[test]
fn r29_replicas_let_go_of_the_oldest_replies_and_remember_that_they_were_executed() {
    let settings = Settings { reply_bytes_max: 90, answers_bytes_max: 200, ..small() };
    let mut log = Log::new(settings);
    assert_eq!(log.run(0, &[(b'a', 50), (b'b', 28)]), "0 at 0: a52 b30");
    assert_eq!(log.run(2, &[(b'c', 80)]), "2 at 0: c82");
    assert_eq!(log.ask(0, 2), "0 at 0: a52 b30", "164 bytes");
    assert_eq!(log.run(3, &[(b'd', 34)]), "3 at 0: d36");
    assert_eq!(log.ask(0, 2), "0 at 0: a52 b30", "200 bytes");
    assert_eq!(log.run(4, &[(b'e', 1)]), "4 at 0: e3");
    assert_eq!(log.ask(0, 2), "0 at 0: ! !", "the oldest run");
    assert_eq!(log.ask(2, 1), "2 at 0: c82");
    assert_eq!(log.run(0, &[(b'a', 50), (b'b', 28)]), "0 at 0: ! !", "and is not executed again");
    assert_eq!(log.replica.machine().executed.len(), 5);
    assert_eq!(log.replica.counters().replies_let_go, 1);
}
