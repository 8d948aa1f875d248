//! Sessions of clients that go from one gateway to another, and through snapshots.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::block::{BatchWriter, Outcome, Outcomes};
use crate::{
    BatchId, GatewayId, Incarnation, MalformedSnapshot, QuorumSystem, ReplicaId, Reply, Rng,
    Settings,
};

/// Answers each command with it, and with how many it has executed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Tape {
    executed: Vec<String>,
    is_frozen: Option<Vec<String>>,
}

impl StateMachine for Tape {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        self.executed.push(String::from_utf8_lossy(command).into_owned());
        reply.put(
            format!("{}#{}", self.executed[self.executed.len() - 1], self.executed.len())
                .as_bytes(),
        );
    }

    fn state_hash(&self) -> u64 {
        self.executed.len() as u64
    }

    fn freeze(&mut self) -> bool {
        self.is_frozen = Some(self.executed.clone());
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        part.extend(self.is_frozen.take().unwrap_or_default().join("\n").as_bytes());
        false
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        let text = String::from_utf8_lossy(part);
        self.executed = text.lines().map(str::to_owned).collect();
        Ok(())
    }
}

/// As long as a client's session may be unused.
const UNUSED_MAX: Duration = Duration::from_mins(10);

/// An executor, fed one batch at a time by two gateways.
struct Log {
    cluster: ClusterSettings,
    executor: Executor<Tape>,
    next: Slot,
    time: Time,
    /// The session of each gateway, and the next number in it.
    gateways: [(SessionId, u64); 2],
    last: Option<LastSent>,
}

/// The last block of commands that was sent, and what its gateway was told of each.
struct LastSent {
    block: Payload,
    session: SessionId,
    first: u64,
    told: Vec<Told>,
}

/// What a gateway is told of a command: its reply, and where it was executed; or why there is none.
type Told = Result<(Position, String), NoReply>;

impl Log {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let grid = QuorumSystem::grid(2, 2, 1).unwrap();
        let mut settings = Settings { gateways: 2, ..Settings::new(1, grid) };
        (settings.session_window, settings.batch_commands_max) = (64, 64);
        settings.client_session_unused_max = UNUSED_MAX;
        change(&mut settings);
        let cluster = settings.check().unwrap();
        let executor = Executor::new(Tape::default(), &cluster);
        let gateways = [0, 1].map(|slot| (SessionId { slot: Slot(slot), index: 0 }, 0));
        let (next, time) = (Slot(0), Time(0));
        let mut log = Self { cluster, executor, next, time, gateways, last: None };
        for gateway in [0, 1] {
            log.execute(BatchWriter::open(GatewayId(gateway), Incarnation(1)));
        }
        log
    }

    fn execute(&mut self, block: Payload) -> Payload {
        let id = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number: 0 };
        let (answerer, checksum) = (ReplicaId(0), block.checksum());
        let batch = Batch { id, attempt: 0, answerer, commands_count: 1, checksum, block };
        let outcomes = self.executor.execute(self.next, &batch, self.time, true).unwrap();
        self.next = self.next.next();
        self.executor.validate();
        outcomes.unwrap()
    }

    /// Has a gateway send what `fill` puts into a batch; returns what it is told of each command.
    fn send(&mut self, gateway: usize, fill: impl FnOnce(&mut BatchWriter)) -> Vec<Told> {
        let mut writer = BatchWriter::default();
        fill(&mut writer);
        let count = writer.commands_count();
        let (session, first) = self.gateways[gateway];
        let block = writer.close(session, first, first);
        self.gateways[gateway].1 += u64::from(count);
        let outcomes = self.execute(block.clone());
        let told = told(&outcomes, session, first, count);
        self.last = Some(LastSent { block, session, first, told: told.clone() });
        self.send_again();
        told
    }

    /// Has the last block of commands sent again, as after a lost answer: it is told the same.
    fn send_again(&mut self) {
        let Some(last) = self.last.take() else { return };
        let again = self.execute(last.block.clone());
        let count = u32::try_from(last.told.len()).unwrap();
        assert_eq!(told(&again, last.session, last.first, count), last.told, "sent again");
        self.last = Some(last);
    }

    /// Has a client send commands by a gateway, the first under `first`; each is called by its
    /// letter.
    fn by(&mut self, gateway: usize, client: SessionId, first: u64, commands: &str) -> Vec<Told> {
        self.send(gateway, |writer| put(writer, client, first, commands, 0))
    }

    fn open(&mut self, gateway: usize, key: u64) -> SessionId {
        let told = self.send(gateway, |writer| {
            writer.push_new_client(key);
        });
        let mut writer = BatchWriter::default();
        writer.push_new_client(key);
        let (session, first) = self.gateways[gateway];
        self.gateways[gateway].1 += 1;
        let block = writer.close(session, first, first);
        let outcomes = self.execute(block);
        let Some(Ok(Outcome::Done { mut replies, .. })) = Outcomes::new(outcomes.as_slice()).next()
        else {
            panic!("{outcomes:?}")
        };
        let name = replies.next().unwrap().unwrap();
        assert_eq!(told.len(), 1);
        SessionId::from_bytes(name).unwrap()
    }

    fn executed(&self) -> String {
        self.executor.machine.executed.concat()
    }

    /// Goes on with another executor, that was restored from a snapshot of this one.
    fn move_on(&mut self) {
        let mut frozen = self.executor.freeze().unwrap();
        let mut restored = Executor::new(Tape::default(), &self.cluster);
        restored.clear();
        while let Some(part) = self.executor.write(&mut frozen, 40) {
            restored.restore(part.as_slice()).unwrap();
        }
        restored.check_restored().unwrap();
        restored.validate();
        assert_eq!(restored.machine.executed, self.executor.machine.executed);
        self.executor = restored;
    }
}

fn put(writer: &mut BatchWriter, client: SessionId, first: u64, commands: &str, lowest: u64) {
    for (number, command) in (first..).zip(commands.bytes()) {
        writer.push_of_client(client, number, lowest, &[command]);
    }
}

/// What a block of outcomes says of each of `count` commands from `first` on.
fn told(outcomes: &Payload, session: SessionId, first: u64, count: u32) -> Vec<Told> {
    let mut told = BTreeMap::new();
    for outcome in Outcomes::new(outcomes.as_slice()) {
        let Ok(Outcome::Done { session: theirs, first, mut at, replies, .. }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(theirs, session);
        for (number, reply) in (first..).zip(replies) {
            let reply = reply.map(|reply| (at, String::from_utf8_lossy(reply).into_owned()));
            assert_eq!(told.insert(number, reply), None, "told twice of {number}");
            at.index += 1;
        }
    }
    assert!(told.keys().copied().eq(first..first + u64::from(count)), "{told:?}");
    told.into_values().collect()
}

fn replies(told: &[Told]) -> Vec<Result<&str, NoReply>> {
    told.iter().map(|told| told.as_ref().map(|(_, reply)| &reply[..]).map_err(|why| *why)).collect()
}

#[test]
fn r22_a_client_session_is_opened_once_for_a_key_whichever_gateway_asks() {
    let mut log = Log::new();
    let first = log.open(0, 7);
    assert_eq!(log.open(1, 7), first);
    assert_ne!(log.open(1, 8), first);
    assert_eq!(replies(&log.by(1, first, 0, "a")), [Ok("a#1")]);
}

#[test]
fn r22_an_unknown_client_session_is_refused_and_not_created() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    let unknown = SessionId { slot: client.slot, index: 9 };
    for _ in 0..2 {
        assert_eq!(replies(&log.by(0, unknown, 0, "ab")), [Err(NoReply::NoSession); 2]);
    }
    // That of a gateway is none of a client.
    let (gateway, _) = log.gateways[1];
    assert_eq!(replies(&log.by(0, gateway, 0, "a")), [Err(NoReply::NoSession)]);
    assert_eq!(log.executed(), "");
}

#[test]
fn r23_what_a_client_sends_again_by_another_gateway_is_answered_and_not_executed() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    let first = log.by(0, client, 0, "abc");
    assert_eq!(replies(&first), [Ok("a#1"), Ok("b#2"), Ok("c#3")]);
    // All of it, a part, and with more behind it: told from where it was executed.
    assert_eq!(log.by(1, client, 0, "abc"), first);
    assert_eq!(log.by(1, client, 1, "bc"), first[1..]);
    let more = log.by(1, client, 2, "cde");
    assert_eq!((&more[0], replies(&more[1..])), (&first[2], vec![Ok("d#4"), Ok("e#5")]));
    // What the first gateway had still on its way comes late.
    let late = log.by(0, client, 1, "bcdef");
    assert_eq!(
        (&late[..2], &late[2..4], replies(&late[4..])),
        (&first[1..], &more[1..], vec![Ok("f#6")])
    );
    assert_eq!(log.executed(), "abcdef");
}

#[test]
fn r23_a_clients_commands_are_executed_in_the_order_of_their_numbers() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    assert_eq!(replies(&log.by(1, client, 1, "bc")), [Err(NoReply::OutOfOrder); 2]);
    assert_eq!(log.executed(), "");
    assert_eq!(replies(&log.by(1, client, 0, "ab")), [Ok("a#1"), Ok("b#2")]);
    assert_eq!(replies(&log.by(0, client, 2, "c")), [Ok("c#3")]);
    // Beyond the window: as many have no answer as may.
    assert_eq!(replies(&log.by(0, client, 3, &"d".repeat(62))), [Err(NoReply::OutOfOrder); 62]);
    assert_eq!(replies(&log.send(0, |writer| put(writer, client, 3, "d", 3))), [Ok("d#4")]);
}

/// The window bounds what is new; what was executed is answered whatever comes behind it.
#[test]
fn r23_what_was_executed_is_answered_though_the_rest_is_beyond_the_window() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    log.by(0, client, 0, "ab");
    let told = log.by(1, client, 1, &"x".repeat(64));
    assert_eq!(replies(&told[..1]), [Ok("b#2")]);
    assert_eq!(replies(&told[1..]), [Err(NoReply::OutOfOrder); 63]);
    // In one run, what the client has answers to by its end counts for all of it.
    let told = log.send(0, |writer| {
        for number in 2..66 {
            let lowest = if number < 34 { 0 } else { 2 };
            writer.push_of_client(client, number, lowest, b"y");
        }
    });
    assert!(told.iter().all(Result::is_ok), "{told:?}");
    assert_eq!(log.executed().len(), 66);
}

/// Numbers are a client's: they may be any.
#[test]
fn r23_no_number_of_a_client_halts_a_replica() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    let unknown = SessionId { slot: Slot(u64::MAX), index: u32::MAX };
    for (session, why) in [(unknown, NoReply::NoSession), (client, NoReply::OutOfOrder)] {
        for first in [u64::MAX - 1, u64::MAX] {
            let told = log.send(1, |writer| {
                writer.push_of_client(session, first, u64::MAX, b"a");
                writer.push_of_client(session, first.wrapping_add(1), u64::MAX, b"b");
            });
            let is_next = first == u64::MAX && session == client; // that is number 0
            let second = if is_next { Ok("b#1") } else { Err(why) };
            assert_eq!(replies(&told), [Err(why), second], "{first}");
        }
    }
    assert_eq!(replies(&log.by(0, client, 1, "c")), [Ok("c#2")]);
}

/// A gateway that asks what became of a batch is told of all of it, though its runs were executed
/// one by one: no more at once than fits, and something each time.
#[test]
fn r25_a_batch_of_several_runs_is_known_as_a_whole() {
    let mut log = Log::with(|settings| {
        (settings.reply_bytes_max, settings.results_bytes_max) = (400, 1000);
    });
    let clients = [7, 8].map(|key| log.open(0, key));
    let (session, first) = log.gateways[0];
    let command = [b'x'; 300];
    let told = log.send(0, |writer| {
        for number in 0..4 {
            writer.push_of_client(clients[0], number, 0, &command);
            writer.push_of_client(clients[1], number, 0, &command);
            writer.push(&command);
        }
    });
    let id = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number: 0 };
    let ask = |first, count| Ask { batch: id, attempt: 0, session: Some(session), first, count };
    let (mut heard, end) = (Vec::new(), first + 12);
    let mut asks = 0;
    while heard.len() < 12 {
        let from = first + heard.len() as u64;
        let left = u32::try_from(end - from).unwrap();
        let Known::Executed(outcomes) = log.executor.known(&ask(from, left), true) else {
            panic!("{from} was executed")
        };
        assert!(outcomes.len() < 1500, "{} bytes", outcomes.len());
        let count = Outcomes::new(outcomes.as_slice())
            .map(|outcome| match outcome {
                Ok(Outcome::Done { count, .. }) => count,
                other => panic!("{other:?}"),
            })
            .sum();
        heard.extend(self::told(&outcomes, session, from, count));
        asks += 1;
    }
    assert_eq!((heard, asks), (told, 4));
    assert!(matches!(log.executor.known(&ask(first, 13), true), Known::NotYet), "one is not");
}

#[test]
fn r23_answers_that_a_client_has_are_forgotten() {
    let mut log = Log::new();
    let client = log.open(0, 7);
    log.by(0, client, 0, "ab");
    assert_eq!(replies(&log.send(0, |writer| put(writer, client, 2, "c", 2))), [Ok("c#3")]);
    let told = log.by(1, client, 0, "abcd");
    let forgotten = Err(NoReply::Forgotten);
    assert_eq!(replies(&told), [forgotten, forgotten, Ok("c#3"), Ok("d#4")]);
    assert_eq!(log.executed(), "abcd");
}

/// A client decides of how many runs its commands are: each counts, though its reply is short.
#[test]
fn r29_answers_to_clients_that_do_not_say_what_they_have_are_bounded() {
    let mut log = Log::with(|settings| {
        (settings.reply_bytes_max, settings.answers_bytes_max) = (20, 3000);
    });
    let clients = [7, 8].map(|key| log.open(0, key));
    log.by(0, clients[1], 0, "a");
    for number in 0..60 {
        assert!(log.by(0, clients[0], number, "b")[0].is_ok());
    }
    assert_eq!(replies(&log.by(1, clients[0], 0, "b")), [Err(NoReply::Forgotten)]);
    assert_eq!(replies(&log.by(1, clients[0], 59, "b")), [Ok("b#61")]);
    assert_eq!(replies(&log.by(1, clients[1], 0, "a")), [Ok("a#1")], "it keeps little");
    assert!(log.executor.let_go() > 30);
    log.move_on();
    assert_eq!(replies(&log.by(1, clients[0], 59, "b")), [Ok("b#61")]);
    assert_eq!(log.executor.machine.executed.len(), 61);
}

/// However short replies must be, a client learns what its session is called.
#[test]
fn r22_the_name_of_a_session_has_room_whatever_the_limits_are() {
    let mut log = Log::with(|settings| {
        (settings.reply_bytes_max, settings.answers_bytes_max) = (1, 13);
    });
    let client = log.open(0, 7);
    assert_eq!(replies(&log.by(0, client, 0, "a")), [Err(NoReply::TooLarge)], "it is executed");
    assert_eq!(log.executed(), "a");
}

/// A client that wants the same answer many times at once gets no longer block for it.
#[test]
fn r29_a_block_of_answers_given_again_is_bounded() {
    let mut log = Log::with(|settings| {
        (settings.reply_bytes_max, settings.answers_bytes_max) = (100, 1000);
    });
    let client = log.open(0, 7);
    let command = [b'x'; 90];
    let told = log.send(0, |writer| {
        writer.push_of_client(client, 0, 0, &command);
    });
    assert!(told[0].is_ok());
    let told = log.send(1, |writer| {
        for _ in 0..20 {
            writer.push_of_client(client, 0, 0, &command);
        }
    });
    let given = told.iter().take_while(|told| told.is_ok()).count();
    assert!((3..10).contains(&given), "{given}");
    assert!(told[given..].iter().all(|told| *told == Err(NoReply::TooLarge)), "{told:?}");
    assert_eq!(log.executor.machine.executed.len(), 1);
}

#[test]
fn runs_of_clients_and_of_others_share_a_batch() {
    let mut log = Log::new();
    let clients = [7, 8].map(|key| log.open(0, key));
    let told = log.send(0, |writer| {
        writer.push(b"a");
        writer.push_of_client(clients[0], 0, 0, b"b");
        writer.push_of_client(clients[0], 1, 0, b"c");
        writer.push_of_client(clients[1], 5, 0, b"d");
        writer.push(b"e");
        writer.push_of_client(clients[1], 0, 0, b"f");
        writer.push_new_client(9);
    });
    let late = Err(NoReply::OutOfOrder);
    assert_eq!(replies(&told)[..6], [Ok("a#1"), Ok("b#2"), Ok("c#3"), late, Ok("e#4"), Ok("f#5")]);
    let positions = told.iter().flatten().map(|(at, _)| at.index);
    assert!(positions.eq([0, 1, 2, 4, 5, 6]), "{told:?}");
    assert_eq!(log.executed(), "abcef");
}

#[test]
fn r26_a_client_session_ends_when_it_is_not_used_for_long_by_the_logs_time() {
    let mut log = Log::new();
    let (one, other) = (log.open(0, 7), log.open(0, 8));
    log.by(0, one, 0, "a");
    log.time = log.time + UNUSED_MAX;
    assert_eq!(replies(&log.by(1, one, 1, "b")), [Ok("b#2")], "it is used in time");
    log.time = log.time + Duration::from_nanos(1);
    assert_eq!(replies(&log.by(0, other, 0, "c")), [Err(NoReply::NoSession)]);
    let again = log.open(0, 8);
    assert!(again > other, "its name is not used again");
    assert_eq!(replies(&log.by(0, other, 0, "c")), [Err(NoReply::NoSession)]);
    log.move_on();
    log.time = log.time + (UNUSED_MAX - Duration::from_nanos(1));
    assert_eq!(replies(&log.by(1, one, 2, "d")), [Ok("d#3")], "times are in snapshots");
    log.time = log.time + UNUSED_MAX + Duration::from_nanos(1);
    log.move_on();
    assert_eq!(replies(&log.by(1, one, 3, "e")), [Err(NoReply::NoSession)]);
}

#[test]
fn r22_the_client_session_unused_for_longest_makes_room() {
    let mut log = Log::with(|settings| settings.client_sessions_max = 2);
    let clients = [7, 8].map(|key| log.open(0, key));
    log.by(0, clients[0], 0, "a");
    let newest = log.open(1, 9);
    assert_eq!(replies(&log.by(0, clients[1], 0, "b")), [Err(NoReply::NoSession)]);
    assert_eq!(replies(&log.by(0, clients[0], 1, "c")), [Ok("c#2")]);
    assert_eq!(replies(&log.by(0, newest, 0, "d")), [Ok("d#3")]);
}

/// Clients send what they have no answer to again and again, by one gateway and the other, which
/// send it late, and again; now and then by a replica that was restored.
#[test]
fn r23_each_command_of_a_client_is_executed_once_and_in_order_and_has_one_answer() {
    for seed in 0..200 {
        let (mut log, mut rng) = (Log::new(), Rng::new(seed));
        let clients: Vec<SessionId> = (0..3).map(|key| log.open(0, key)).collect();
        // By client: the lowest number without an answer, and the answers.
        let mut lowest = [0; 3];
        let mut answers: Vec<BTreeMap<u64, (Position, String)>> = vec![BTreeMap::new(); 3];
        for _ in 0..40 {
            let client = usize::try_from(rng.below(3)).unwrap();
            let gateway = usize::try_from(rng.below(2)).unwrap();
            // From a number that it has no answer to, or a late copy of what it had.
            let first = (lowest[client] + rng.below(4)).saturating_sub(rng.below(3));
            let count = 1 + rng.below(6);
            let known = lowest[client].saturating_sub(rng.below(4));
            let told = log.send(gateway, |writer| {
                for number in first..first + count {
                    let command = format!("{client}.{number} ");
                    writer.push_of_client(clients[client], number, known, command.as_bytes());
                }
            });
            for (number, told) in (first..).zip(told) {
                match told {
                    Ok(told) => {
                        let answered =
                            answers[client].entry(number).or_insert_with(|| told.clone());
                        assert_eq!(*answered, told, "seed {seed}: {client}.{number}");
                    }
                    Err(why) => {
                        let is_right = match why {
                            NoReply::OutOfOrder => !answers[client].contains_key(&first),
                            NoReply::Forgotten => number < lowest[client],
                            NoReply::TooLarge
                            | NoReply::Skipped
                            | NoReply::NoSession
                            | NoReply::NotAQuery
                            | NoReply::Panicked => false,
                        };
                        assert!(is_right, "seed {seed}: {client}.{number}: {why:?}");
                    }
                }
            }
            while answers[client].contains_key(&lowest[client]) {
                lowest[client] += 1;
            }
            if rng.below(5) == 0 {
                log.move_on();
                log.send_again();
            }
        }
        for (client, answers) in answers.iter().enumerate() {
            let executed = log.executor.machine.executed.iter();
            let own = executed.filter(|it| it.starts_with(&format!("{client}.")));
            let expected = (0..answers.len()).map(|number| format!("{client}.{number} "));
            assert!(own.cloned().eq(expected), "seed {seed}: client {client}");
            assert!(answers.keys().copied().eq(0..answers.len() as u64), "seed {seed}");
        }
    }
}
