//! R22 to R25: sessions, and how a gateway sees its batches through.

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::{
    B1, B2, Echo, Net, ProposerMessages, START, batch, campaign, grid, heartbeat, introduce,
    leader, millis, out_of, p1b, pick, proposer, replica, small, square, vote,
};
use loggos_protocol::{
    AcceptorSet, Ask, Ballot, Batch, BatchId, BatchWriter, Caller, ClientId, ClusterSettings,
    Event, Failure, Gateway, GatewayId, GatewayTimer, Halt, Halted, Heartbeat, Incarnation,
    LoggedCommand, NotExecuted, NotLeader, Outbox, Outcome, Outcomes, Payload, Position, Propose,
    Proposer, ProposerId, Replica, ReplicaId, ResultWriter, Results, RoleId, Run, Runs, SessionId,
    Settings, Slot, Stage, Time, To, ToAcceptor, ToGateway, ToProposer, ToProxyLeader, ToReplica,
};

const LIFE: Incarnation = Incarnation(1);
const SESSION: SessionId = SessionId { slot: Slot(0), index: 0 };

/// What became of each run of a block, in words.
fn in_words(outcomes: &Payload) -> Vec<String> {
    let words = |outcome: Outcome<'_>| match outcome {
        Outcome::Done { first, replies, .. } => {
            let replies: Vec<_> =
                replies.map(|reply| String::from_utf8_lossy(reply.expect("a short one"))).collect();
            format!("done from {first}: {}", replies.join(" "))
        }
        Outcome::Opened(session) => format!("opened {session}"),
        Outcome::OutOfOrder { next, .. } => format!("out of order, next is {next}"),
        Outcome::UnknownSession(session) => format!("unknown {session}"),
        Outcome::Trimmed(_) => "trimmed".to_owned(),
    };
    Outcomes::new(outcomes.as_slice()).map(|outcome| words(outcome.expect("a block"))).collect()
}

/// A replica, fed one slot at a time.
struct Log {
    replica: Replica<Echo>,
    next: Slot,
}

impl Log {
    fn new(settings: Settings) -> Self {
        Self { replica: replica(&harness::checked(settings), 0), next: Slot(0) }
    }

    /// A log whose first slot opens [`SESSION`].
    fn with_session() -> Self {
        let mut log = Self::new(Settings { session_window: 512, ..small() });
        assert_eq!(log.open(1), "opened session s0.0", "the first slot");
        log
    }

    fn execute(&mut self, block: Payload) -> String {
        let chosen = harness::chosen(self.next, block);
        self.next = self.next.next();
        let out = out_of(|out| self.replica.on_chosen(chosen, START, out));
        in_words(&pick!(out.sends, Gateway(ToGateway::Results))[0].1.outcomes).join(", ")
    }

    fn open(&mut self, life: u64) -> String {
        self.execute(BatchWriter::open(GatewayId(0), Incarnation(life)))
    }

    /// Executes commands of [`SESSION`] from `first` on; each is called by its letter.
    fn run(&mut self, first: u64, commands: &str, lowest_unanswered: u64) -> String {
        self.run_in(SESSION, first, commands, lowest_unanswered)
    }

    fn run_in(&mut self, session: SessionId, first: u64, commands: &str, lowest: u64) -> String {
        let mut writer = BatchWriter::default();
        for command in commands.bytes() {
            writer.push(&[command]);
        }
        self.execute(writer.close(session, first, lowest))
    }

    fn executed(&self) -> String {
        let commands = self.replica.machine().executed.iter();
        commands.map(|(_, command)| String::from_utf8_lossy(command)).collect()
    }
}

#[test]
fn r22_an_unknown_session_is_refused_and_not_created() {
    let mut log = Log::new(small());
    let unknown = SessionId { slot: Slot(7), index: 3 };
    for _ in 0..2 {
        assert_eq!(log.run_in(unknown, 0, "a", 0), "unknown session s7.3");
    }
    assert_eq!(log.executed(), "");
}

#[test]
fn r22_a_second_open_of_a_life_returns_its_first_session() {
    let mut log = Log::with_session();
    assert_eq!(log.open(1), "opened session s0.0");
    assert_eq!(log.open(2), "opened session s2.0", "another life, another session");
    assert_eq!(log.run(0, "a", 0), "done from 0: a#1");
}

#[test]
fn r22_a_closed_sessions_name_is_not_used_again() {
    let mut log = Log::new(Settings { sessions_max: 1, ..small() });
    assert_eq!(log.open(1), "opened session s0.0");
    assert_eq!(log.open(2), "opened session s1.0");
    assert_eq!(log.run(0, "a", 0), "unknown session s0.0", "the one unused for longest is closed");
    assert_eq!(log.open(1), "opened session s3.0");
}

/// By use, not by age: a session that is used is never closed while there is one that is not.
#[test]
fn r22_the_session_closed_is_the_one_unused_for_longest() {
    let mut log = Log::new(Settings { sessions_max: 3, ..small() });
    let named = |slot| SessionId { slot: Slot(slot), index: 0 };
    for life in 0..3 {
        assert_eq!(log.open(life), format!("opened session s{life}.0"));
    }
    for used in [0, 2] {
        assert_eq!(log.run_in(named(used), 0, "a", 0).split(':').next(), Some("done from 0"));
    }
    assert_eq!(log.open(3), "opened session s5.0");
    assert_eq!(log.run_in(named(1), 0, "a", 0), "unknown session s1.0", "never used");
    assert_eq!(log.open(4), "opened session s7.0");
    assert_eq!(log.run_in(named(0), 1, "b", 0), "unknown session s0.0", "used before the other");
    for used in [2, 5, 7] {
        let said = log.run_in(named(used), u64::from(used == 2), "c", 0);
        assert!(said.starts_with("done"), "s{used}.0: {said}");
    }
}

#[test]
fn r23_commands_are_executed_strictly_in_number_order() {
    let mut log = Log::with_session();
    assert_eq!(log.run(1, "b", 0), "out of order, next is 0");
    assert_eq!(log.run(0, "a", 0), "done from 0: a#1");
    assert_eq!(log.run(2, "cd", 0), "out of order, next is 1");
    assert_eq!(log.run(1, "b", 0), "done from 1: b#2");
    assert_eq!(log.run(2, "cd", 0), "done from 2: c#3 d#4");
    assert_eq!(log.executed(), "abcd");
}

#[test]
fn r23_what_was_executed_is_answered_again_and_not_executed() {
    let mut log = Log::with_session();
    assert_eq!(log.run(0, "ab", 0), "done from 0: a#1 b#2");
    assert_eq!(log.run(2, "c", 0), "done from 2: c#3");
    assert_eq!(log.run(0, "ab", 0), "done from 0: a#1 b#2");
    let told = "done from 1: b#2, done from 2: c#3, done from 3: d#4"; // each from where it was
    assert_eq!(log.run(1, "bcd", 0), told, "and what is new is executed");
    assert_eq!(log.executed(), "abcd");
}

#[test]
fn r23_a_reply_tells_where_its_command_was_executed_even_if_it_is_given_late() {
    let mut net = Net::new(small());
    net.lose(|_, to| matches!(to, To::Gateway(_, ToGateway::Results(_))));
    net.submit(1, "a");
    net.submit(2, "b");
    net.tick();
    net.lose(|_, _| false);
    net.run_for(millis(1000));
    net.write(3);
    let places = net.replies.iter().map(|(caller, reply)| {
        let (at, _) = reply.as_ref().expect("all were executed");
        (caller.tag, at.slot.0, at.index)
    });
    assert!(places.eq([(1, 1, 0), (2, 1, 1), (3, 2, 0)]), "{:?}", net.replies);
}

#[test]
fn r23_answers_are_forgotten_only_by_the_owners_lowest_unanswered_number() {
    let mut log = Log::with_session();
    for number in 0..20 {
        log.run(number, "x", 0);
    }
    assert_eq!(log.run(0, "x", 0), "done from 0: x#1", "kept, however many came after");
    assert_eq!(log.run(20, "x", 5), "done from 20: x#21");
    assert_eq!(log.run(4, "x", 4), "trimmed");
    assert_eq!(log.run(5, "x", 5), "done from 5: x#6");
    assert_eq!(log.executed().len(), 21, "below the window nothing is ever executed");
}

#[test]
fn r23_no_number_beyond_the_session_window_is_executed() {
    let mut log = Log::new(Settings { session_window: 4, batch_commands_max: 4, ..small() });
    log.open(1);
    assert_eq!(log.run(0, "abcd", 0), "done from 0: a#1 b#2 c#3 d#4");
    assert_eq!(log.run(4, "e", 0), "out of order, next is 4", "0 + 4 is not below 0 + 4");
    assert_eq!(log.run(4, "e", 1), "done from 4: e#5");
}

/// A gateway that leads a conversation of its own.
struct Desk {
    cluster: ClusterSettings,
    gateway: Gateway,
    now: Time,
}

impl Desk {
    /// A gateway that has heard of a leader and opened [`SESSION`], with batches of one command.
    fn new() -> Self {
        Self::with(Settings { batch_commands_max: 1, ..grid(2, 2) })
    }

    fn with(settings: Settings) -> Self {
        let cluster = harness::checked(settings);
        let gateway = Gateway::new(cluster.clone(), GatewayId(0), LIFE, 5, START);
        let mut desk = Self { cluster, gateway, now: START };
        let open = desk.lead_by(B1);
        let asked = pick!(open.sends, Proposer(ToProposer::Propose))[0].1.clone();
        desk.results(&asked.batch, |writer| writer.opened(SESSION));
        assert_eq!(desk.gateway.session(), Some(SESSION), "it is open");
        desk
    }

    fn lead_by(&mut self, ballot: Ballot) -> Outbox {
        let heartbeat = heartbeat(&self.cluster, ballot, Stage::Leading);
        out_of(|out| self.gateway.on_heartbeat(&heartbeat, self.now, out))
    }

    /// Submits a command; returns what is said.
    fn submit(&mut self, tag: u64) -> Outbox {
        let caller = Caller { client: ClientId(0), tag };
        out_of(|out| {
            self.gateway.submit(caller, b"x".into(), self.now, out);
            self.gateway.flush(self.now, out);
        })
    }

    /// Submits `count` commands, one batch each; returns the batches.
    fn batches(&mut self, count: u64) -> Vec<Batch> {
        (0..count).flat_map(|tag| proposed(&self.submit(tag))).map(|(_, batch)| batch).collect()
    }

    fn results(&mut self, batch: &Batch, write: impl FnOnce(&mut ResultWriter)) -> Outbox {
        let mut writer = ResultWriter::default();
        write(&mut writer);
        let results = Results {
            replica: batch.answerer,
            batch: batch.id,
            attempt: batch.attempt,
            slot: Slot(9),
            outcomes: writer.take(),
        };
        out_of(|out| self.gateway.on_results(&results, self.now, out))
    }

    /// Answers a batch of one command, the `number`-th.
    fn answer(&mut self, batch: &Batch, number: u64) -> Outbox {
        self.results(batch, |writer| {
            writer.start_done(SESSION, number, Position::default());
            writer.start_reply();
            writer.put(b"y");
            writer.end_reply();
            writer.end_done();
        })
    }

    /// A replica says that its machine has panicked in `slot`.
    fn halt(&mut self, replica: u8, slot: u64) -> Outbox {
        let why = halt(slot);
        let halted = Halted { replica: ReplicaId(replica), incarnation: Incarnation(8), why };
        out_of(|out| self.gateway.on_halted(halted, self.now, out))
    }

    fn pass(&mut self, time: u64) -> Outbox {
        self.now = self.now + millis(time);
        out_of(|out| self.gateway.on_timeout(GatewayTimer::Resend, self.now, out))
    }
}

fn halt(slot: u64) -> Halt {
    let at = Position { slot: Slot(slot), index: 3 };
    Halt::Panicked { command: LoggedCommand { at, checksum: 5 }, message: "no account".to_owned() }
}

/// Each proposed batch, and the proposer that it is for.
fn proposed(out: &Outbox) -> Vec<(ProposerId, Batch)> {
    let proposed = pick!(out.sends, Proposer(ToProposer::Propose));
    proposed.into_iter().map(|(to, propose)| (to, Batch::clone(&propose.batch))).collect()
}

/// Number and attempt of each proposed batch.
fn attempts(out: &Outbox) -> Vec<(u64, u32)> {
    proposed(out).into_iter().map(|(_, b)| (b.id.number, b.attempt)).collect()
}

fn tags_told(out: &Outbox) -> Vec<(u64, Option<Failure>)> {
    out.replies.iter().map(|(caller, reply)| (caller.tag, reply.err())).collect()
}

#[test]
fn r23_a_gateway_resends_from_the_gap_once_and_in_number_order() {
    let mut desk = Desk::new();
    let batches = desk.batches(4);
    desk.answer(&batches[0], 0);
    let out = desk.results(&batches[2], |writer| writer.out_of_order(SESSION, 1));
    assert_eq!(attempts(&out), [(2, 1), (3, 1), (4, 1)], "batch 0 was the Open");
    let out = desk.results(&batches[3], |writer| writer.out_of_order(SESSION, 1));
    assert!(out.sends.is_empty(), "that gap is seen to: {:?}", out.sends);
    let current = Batch { attempt: 1, ..batches[3].clone() };
    let out = desk.results(&current, |writer| writer.out_of_order(SESSION, 2));
    assert_eq!(attempts(&out), [(3, 2), (4, 2)], "another gap");
}

#[test]
fn r23_a_resend_keeps_its_numbers_and_its_block() {
    let mut desk = Desk::new();
    let batch = desk.batches(1).remove(0);
    let out = desk.results(&batch, |writer| writer.out_of_order(SESSION, 0));
    let (_, again) = proposed(&out).remove(0);
    assert_eq!((again.id, &again.block), (batch.id, &batch.block));
}

#[test]
fn r23_a_command_sent_on_is_resent_until_it_is_answered() {
    let mut desk = Desk::new();
    let batch = desk.batches(1).remove(0);
    let mut last = batch.attempt;
    for _ in 0..20 {
        let out = desk.pass(3000);
        last = attempts(&out).first().map_or(last, |(_, attempt)| *attempt);
    }
    assert!(last >= 9, "attempt {last} after a minute");
    assert_eq!(tags_told(&desk.answer(&batch, 0)), [(0, None)], "the answer to any attempt counts");
    assert!(desk.pass(3000).sends.is_empty());
}

/// The leader that is heard may be the one that serves, or a deposed one while its successor, any
/// of the others, is not heard.
#[test]
fn r09_what_has_no_answer_goes_to_the_leader_that_is_heard_and_to_each_other_proposer() {
    for leads in 0..4 {
        let mut desk = Desk::with(Settings { proposers: 4, batch_commands_max: 1, ..grid(2, 2) });
        let heard = Ballot { proposer: ProposerId(leads), ..B2 };
        desk.lead_by(heard);
        desk.submit(0);
        let mut told = BTreeMap::<ProposerId, u32>::new();
        for _ in 0..1000 {
            desk.lead_by(heard);
            for (to, _) in proposed(&desk.pass(50)) {
                *told.entry(to).or_default() += 1;
            }
        }
        let resends: u32 = told.values().sum();
        assert!((20..).contains(&resends), "sent again {resends} times");
        let (to_leader, of_each) = (told[&heard.proposer], resends / 6);
        assert!(to_leader.abs_diff(resends / 2) <= 1, "{leads} leads: {told:?}");
        assert!(told.len() == 4 && told.values().all(|count| *count >= of_each - 1), "{told:?}");
    }
}

#[test]
fn r25_a_replica_that_does_not_answer_a_question_is_not_asked_next() {
    let mut desk = Desk::with(Settings { batch_commands_max: 1, ..grid(2, 2) });
    desk.submit(0);
    let mut asked = Vec::new();
    while asked.len() < 2 {
        let out = desk.pass(50);
        asked.extend(pick!(out.sends, Replica(ToReplica::Ask)).into_iter().map(|(to, _)| to));
        for (_, batch) in proposed(&out) {
            let last = asked.last().copied();
            assert_ne!(Some(batch.answerer), last, "it has just let a question go unanswered");
        }
    }
    assert_ne!(asked[0], asked[1], "{asked:?}");
}

#[test]
fn r25_what_a_halted_replica_was_to_answer_another_is_asked_at_once() {
    let mut desk = Desk::with(Settings { replicas: 4, batch_commands_max: 1, ..grid(2, 2) });
    let sent = desk.batches(3);
    let out = desk.halt(sent[1].answerer.0, 7);
    assert!(out.replies.is_empty(), "others may answer");
    let asks = pick!(out.sends, Replica(ToReplica::Ask));
    let [(asked, Ask { batch, .. })] = asks[..] else { panic!("{asks:?}") };
    assert_eq!(*batch, sent[1].id);
    assert_ne!(asked, sent[1].answerer);
    assert!(desk.halt(sent[1].answerer.0, 7).sends.is_empty(), "it is asked already");
    let out = desk.halt(asked.0, 7);
    let asks = pick!(out.sends, Replica(ToReplica::Ask));
    assert_eq!(asks.len(), 2, "its own, and the one that it was asked about: {asks:?}");
    assert!(asks.iter().all(|(to, _)| ![asked, sent[1].answerer].contains(to)), "{asks:?}");
    assert_ne!(desk.batches(1)[0].answerer, asked, "halted replicas have no turns");
    // The others say nothing: those that have halted are asked no more often for that.
    for _ in 0..100 {
        desk.pass(50);
        for replica in [asked.0, sent[1].answerer.0, asked.0] {
            assert!(desk.halt(replica, 7).sends.is_empty(), "replica {replica} is asked once more");
        }
    }
}

#[test]
fn r25_callers_learn_at_once_that_too_few_replicas_are_left_and_each_only_once() {
    let mut desk = Desk::new();
    let sent = desk.batches(2);
    let told = |tags: &[u64], slot| -> Vec<(u64, Option<Failure>)> {
        tags.iter().map(|tag| (*tag, Some(Failure::Halted(Arc::new(halt(slot)))))).collect()
    };
    assert!(desk.halt(1, 7).replies.is_empty(), "f + 1 are left");
    assert_eq!(tags_told(&desk.halt(2, 8)), told(&[0, 1], 7), "the reason of the first of them");
    assert!(desk.halt(0, 7).replies.is_empty(), "they were told");
    assert_eq!(tags_told(&desk.submit(2)), told(&[2], 7), "nothing would be executed");
    for _ in 0..100 {
        (0..3).for_each(|replica| drop(desk.halt(replica, 7)));
        desk.lead_by(B1);
        let sent_again = proposed(&desk.pass(50));
        assert!(sent_again.is_empty(), "another attempt would have no answer either");
        assert_eq!(desk.gateway.unserved_for(desk.now), None, "it is told why");
    }
    desk.pass(3000);
    // Replicas that have halted say so again and again. Silence is none of a halt.
    let out = desk.submit(3);
    assert_eq!(proposed(&out).len(), 1, "{:?}", tags_told(&out));
    assert!(desk.answer(&sent[0], 0).replies.is_empty(), "it was told, and waits no more");
    assert!(desk.answer(&sent[1], 1).replies.is_empty());
    let (_, third) = proposed(&out).remove(0);
    assert_eq!(tags_told(&desk.answer(&third, 2)), [(3, None)]);
    assert_eq!(desk.gateway.unanswered(), 0);
    desk.gateway.validate();
}

#[test]
fn r25_what_was_answered_out_of_turn_is_no_concern_of_a_halt() {
    let mut desk = Desk::new();
    let sent = desk.batches(3);
    assert_eq!(tags_told(&desk.answer(&sent[1], 1)), [(1, None)]);
    desk.halt(0, 7);
    let halted = |tag| (tag, Some(Failure::Halted(Arc::new(halt(7)))));
    assert_eq!(tags_told(&desk.halt(2, 7)), [halted(0), halted(2)]);
}

/// Replicas that were started again, one after the other, say nothing to a gateway that asks
/// nothing.
#[test]
fn r25_a_gateway_does_not_take_the_halt_of_one_replica_for_that_of_others_it_has_not_heard() {
    let mut desk = Desk::new();
    desk.halt(1, 7);
    for replica in [0, 2] {
        let (gone, now) = (RoleId::Replica(ReplicaId(replica)), desk.now);
        assert!(out_of(|out| desk.gateway.on_gone(gone, now, out)).replies.is_empty());
    }
    desk.halt(1, 7);
    assert_eq!(proposed(&desk.submit(1)).len(), 1, "f + 1 may be left");
}

#[test]
fn r25_a_session_that_is_lost_is_no_news_to_callers_that_were_told_of_a_halt() {
    let mut desk =
        Desk::with(Settings { batch_commands_max: 1, batches_in_flight_max: 2, ..grid(2, 2) });
    let sent: Vec<_> = (0..3).flat_map(|tag| proposed(&desk.submit(tag))).collect();
    assert_eq!(sent.len(), 2, "the third waits");
    (0..3).for_each(|replica| drop(desk.halt(replica, 7)));
    desk.pass(3000);
    let out = desk.results(&sent[0].1, |writer| writer.unknown_session(SESSION));
    assert!(out.replies.is_empty(), "{:?}", tags_told(&out));
    let (_, open) = proposed(&out).remove(0);
    let session = SessionId { slot: Slot(50), index: 0 };
    let out = desk.results(&open, |writer| writer.opened(session));
    assert_eq!(proposed(&out).len(), 1, "the third is sent on");
    desk.gateway.validate();
}

#[test]
fn r24_results_of_another_life_are_dropped() {
    let mut desk = Desk::new();
    let batch = desk.batches(1).remove(0);
    let id = BatchId { incarnation: Incarnation(2), ..batch.id };
    assert!(desk.answer(&Batch { id, ..batch.clone() }, 0).replies.is_empty());
    let id = BatchId { gateway: GatewayId(1), ..batch.id };
    assert!(desk.answer(&Batch { id, ..batch.clone() }, 0).replies.is_empty());
    assert_eq!(tags_told(&desk.answer(&batch, 0)), [(0, None)]);
    assert!(desk.answer(&batch, 0).replies.is_empty(), "answered once");
}

#[test]
fn r24_an_attempt_that_is_still_open_is_dropped() {
    let mut leader = leader(&square());
    let slots = |out: &Outbox| pick!(out.sends, ProxyLeader(ToProxyLeader::P2a)).len();
    let mut propose = |batch: Batch| {
        slots(&out_of(|out| leader.tell_propose(harness::propose(batch), START, out)))
    };
    let batch = batch(3);
    assert_eq!([propose(batch.clone()), propose(batch.clone())], [1, 0]);
    assert_eq!(propose(Batch { attempt: 1, ..batch.clone() }), 0, "it has a slot");
    let id = BatchId { incarnation: Incarnation(2), ..batch.id };
    assert_eq!(propose(Batch { id, ..batch }), 1, "the same number in another life");
}

#[test]
fn r24_an_attempt_that_waits_for_a_slot_is_dropped_too() {
    let cluster = harness::checked(small());
    let mut leader = leader(&cluster);
    for number in (0..12).chain(8..12) {
        leader.tell_propose(harness::propose(batch(number)), START, &mut Outbox::default());
    }
    assert_eq!(leader.counters().duplicates, 4);
}

#[test]
fn r24_busy_is_said_only_of_what_was_never_sent_on() {
    let settings = grid(2, 2);
    let mut desk =
        Desk::with(Settings { batch_commands_max: 1, batches_in_flight_max: 2, ..settings });
    let mut sent = Vec::new();
    let mut told = Vec::new();
    for tag in 0..5 {
        let out = desk.submit(tag);
        sent.extend(proposed(&out));
        told.extend(tags_told(&out));
    }
    let busy = |tag| (tag, Some(Failure::Busy));
    assert_eq!((sent.len(), told), (2, vec![busy(3), busy(4)]), "2 in flight, 1 waits");
    let out = desk.answer(&sent[0].1, 0);
    assert_eq!((tags_told(&out), proposed(&out).len()), (vec![(0, None)], 1), "2 goes out");
}

#[test]
fn r24_what_was_never_sent_on_waits_for_the_next_session() {
    let settings = grid(2, 2);
    let mut desk =
        Desk::with(Settings { batch_commands_max: 1, batches_in_flight_max: 2, ..settings });
    let sent: Vec<_> = (0..3).flat_map(|tag| proposed(&desk.submit(tag))).collect();
    let out = desk.results(&sent[0].1, |writer| writer.unknown_session(SESSION));
    let unknown = || Some(Failure::OutcomeUnknown);
    assert_eq!(tags_told(&out), [(0, unknown()), (1, unknown())], "2 was never sent on");
    let (_, open) = proposed(&out).remove(0);
    let session = SessionId { slot: Slot(50), index: 0 };
    let out = desk.results(&open, |writer| writer.opened(session));
    let (_, again) = proposed(&out).remove(0);
    let run = Runs::new(again.block.as_slice()).next();
    let Some(Ok(Run::Commands(run))) = run else { panic!("no commands: {run:?}") };
    assert_eq!((run.session, run.first, run.count), (session, 0, 1));
}

#[test]
fn r24_an_unknown_outcome_is_an_error_of_its_own() {
    let mut desk = Desk::new();
    let batches = desk.batches(3);
    desk.answer(&batches[1], 1);
    let out = desk.results(&batches[0], |writer| writer.unknown_session(SESSION));
    let unknown = || Some(Failure::OutcomeUnknown);
    assert_eq!(tags_told(&out), [(0, unknown()), (2, unknown())], "1 was answered");
    assert!(out.events.contains(&Event::SessionLost { gateway: GatewayId(0), session: SESSION }));
    let (_, open) = proposed(&out).remove(0);
    assert_ne!(open.id.incarnation, LIFE, "a new session needs a new life");
    assert!(desk.answer(&batches[2], 2).replies.is_empty(), "the former life is over");
}

#[test]
fn r25_another_replica_is_asked_before_a_batch_is_proposed_again() {
    let mut desk = Desk::new();
    let batch = desk.batches(1).remove(0);
    let out = desk.pass(100);
    assert!(proposed(&out).is_empty(), "not yet: {:?}", out.sends);
    let asks = pick!(out.sends, Replica(ToReplica::Ask));
    assert_eq!(asks.len(), 1);
    assert_ne!(asks[0].0, batch.answerer);
    let (id, session) = (batch.id, Some(SESSION));
    assert_eq!(*asks[0].1, Ask { batch: id, attempt: 0, session, first: 0, count: 1 });
    let not_executed = NotExecuted { replica: asks[0].0, batch: id, attempt: 0 };
    let out = out_of(|out| desk.gateway.on_not_executed(not_executed, desk.now, out));
    assert_eq!(attempts(&out), [(1, 1)]);
    let again = out_of(|out| desk.gateway.on_not_executed(not_executed, desk.now, out));
    assert!(again.sends.is_empty(), "that attempt is over: {:?}", again.sends);
}

#[test]
fn r25_a_silent_replica_is_not_named_again_until_it_is_heard() {
    let mut desk = Desk::new();
    let silent = desk.batches(1)[0].answerer;
    desk.pass(100);
    let named: Vec<_> = desk.batches(6).into_iter().map(|b| b.answerer).collect();
    assert!(!named.contains(&silent), "{named:?}");
    let id = BatchId { gateway: GatewayId(0), incarnation: LIFE, number: 99 };
    let heard = NotExecuted { replica: silent, batch: id, attempt: 0 };
    desk.gateway.on_not_executed(heard, desk.now, &mut Outbox::default());
    let named: Vec<_> = desk.batches(6).into_iter().map(|b| b.answerer).collect();
    assert!(named.contains(&silent), "{named:?}");
}

#[test]
fn r25_with_a_new_leader_everything_in_flight_is_asked_about() {
    let mut desk = Desk::new();
    desk.batches(3);
    let out = desk.lead_by(B2);
    assert_eq!(pick!(out.sends, Replica(ToReplica::Ask)).len(), 3);
    assert!(proposed(&out).is_empty());
    let out = desk.lead_by(B2);
    assert!(pick!(out.sends, Replica(ToReplica::Ask)).is_empty(), "once a leader");
}

#[test]
fn r25_a_replica_answers_for_a_batch_that_another_was_to_answer() {
    let mut log = Log::with_session();
    log.run(0, "ab", 0);
    let ask = |session, first, count| {
        let batch = harness::batch_id(40);
        Ask { batch, attempt: 2, session, first, count }
    };
    let out = out_of(|out| log.replica.on_ask(&ask(Some(SESSION), 0, 2), out));
    let results = pick!(out.sends, Gateway(ToGateway::Results))[0].1;
    assert_eq!(
        (results.attempt, in_words(&results.outcomes)),
        (2, vec!["done from 0: a#1 b#2".to_owned()])
    );
    let out = out_of(|out| log.replica.on_ask(&ask(Some(SESSION), 2, 1), out));
    let not_executed = pick!(out.sends, Gateway(ToGateway::NotExecuted));
    assert_eq!((not_executed[0].1.replica, not_executed.len()), (ReplicaId(0), 1));
    let out = out_of(|out| log.replica.on_ask(&ask(None, 0, 0), out));
    let results = pick!(out.sends, Gateway(ToGateway::Results))[0].1;
    assert_eq!(in_words(&results.outcomes), ["opened session s0.0"]);
}

#[test]
fn r25_a_replica_answers_for_each_batch_that_is_not_trimmed() {
    let mut log = Log::with_session();
    for (first, commands) in [(0, "ab"), (2, "c"), (3, "def"), (6, "g")] {
        log.run(first, commands, 0);
    }
    let mut answer = |first, count| {
        let (batch, session) = (harness::batch_id(40), Some(SESSION));
        let ask = Ask { batch, attempt: 2, session, first, count };
        let out = out_of(|out| log.replica.on_ask(&ask, out));
        let results = pick!(out.sends, Gateway(ToGateway::Results));
        results.first().map(|(_, results)| in_words(&results.outcomes).join(", "))
    };
    let expected = ["a#1 b#2", "c#3", "d#4 e#5 f#6", "g#7"];
    for ((first, count), replies) in [(0, 2), (2, 1), (3, 3), (6, 1)].into_iter().zip(expected) {
        assert_eq!(answer(first, count), Some(format!("done from {first}: {replies}")));
    }
    assert_eq!(answer(4, 2), Some("done from 4: e#5 f#6".to_owned()), "the rest of a batch");
    let of_two_runs = "done from 2: c#3, done from 3: d#4"; // as a batch may have them
    assert_eq!(answer(2, 2), Some(of_two_runs.to_owned()));
    assert_eq!(answer(7, 1), None, "not executed yet");
    assert_eq!(answer(6, 2), None, "nor all of this");
}

#[test]
fn r28_a_gateway_complains_once_an_election_timeout_while_nothing_is_answered() {
    let mut desk = Desk::new();
    let complaints = |desk: &mut Desk, after: u64| {
        let now = START + millis(after);
        let out = out_of(|out| desk.gateway.on_timeout(GatewayTimer::Unserved, now, out));
        pick!(out.sends, Acceptor(ToAcceptor::Unserved)).len()
    };
    assert_eq!(complaints(&mut desk, 300), 0, "it waits for nothing");
    desk.now = START + millis(400);
    let batches = desk.batches(2);
    assert_eq!(complaints(&mut desk, 699), 0);
    assert_eq!(complaints(&mut desk, 700), 4);
    desk.now = START + millis(800);
    desk.answer(&batches[0], 0);
    assert_eq!(complaints(&mut desk, 1000), 0, "one was answered since");
    assert!(desk.gateway.timers().is_set(GatewayTimer::Unserved), "it looks again");
    assert_eq!(complaints(&mut desk, 1100), 4);
}

#[test]
fn r37_a_gateway_knows_for_how_long_the_cluster_has_not_served_it() {
    let mut desk = Desk::new();
    let unserved = |desk: &Desk, at: u64| desk.gateway.unserved_for(START + millis(at));
    let hear = |desk: &mut Desk, at: u64, is_silent: bool| {
        let heartbeat = Heartbeat { is_silent, ..heartbeat(&desk.cluster, B1, Stage::Leading) };
        let now = START + millis(at);
        out_of(|out| desk.gateway.on_heartbeat(&heartbeat, now, out));
    };
    let timeout = 300;
    // Idle, it is served while it hears a leader that gets something chosen.
    assert_eq!(unserved(&desk, timeout - 1), None);
    assert_eq!(unserved(&desk, timeout), Some(millis(timeout)));
    hear(&mut desk, 400, false);
    assert_eq!(unserved(&desk, 400), None);
    hear(&mut desk, 600, true);
    assert_eq!(unserved(&desk, 700), Some(millis(300)), "the leader gets nothing chosen");
    // With a batch under way it is served while that is answered in time.
    hear(&mut desk, 1000, false);
    desk.now = START + millis(1000);
    let batches = desk.batches(1);
    (1010..1400).step_by(50).for_each(|at| hear(&mut desk, at, false));
    assert_eq!(unserved(&desk, 1299), None);
    assert_eq!(unserved(&desk, 1300), Some(millis(300)), "though a leader is heard");
    desk.now = START + millis(1400);
    desk.answer(&batches[0], 0);
    assert_eq!(unserved(&desk, 1400), None);
    // No other gateway would do better where there is no room, and its clients hear of that.
    desk.now = START + millis(1410);
    let batches = desk.batches(1);
    let no_room = AcceptorSet::from_bits(0b110);
    let full = Heartbeat { no_room, ..heartbeat(&desk.cluster, B1, Stage::Leading) };
    for at in (1420..3000).step_by(50) {
        let now = START + millis(at);
        out_of(|out| desk.gateway.on_heartbeat(&full, now, out));
        assert_eq!(unserved(&desk, at), None, "at {at}");
    }
    desk.now = START + millis(3000);
    desk.answer(&batches[0], 1);
    // Answers that take long are waited for.
    (3010..4000).step_by(50).for_each(|at| hear(&mut desk, at, false));
    desk.now = START + millis(3050);
    desk.batches(1);
    assert_eq!(unserved(&desk, 3050 + 400), None, "the last one has taken as long");
}

#[test]
fn r34_a_gateway_tells_clients_that_there_is_no_room() {
    let mut desk = Desk::new();
    let hear = |desk: &mut Desk, acceptors: u64| {
        let no_room = AcceptorSet::from_bits(acceptors);
        let heartbeat = Heartbeat { no_room, ..heartbeat(&desk.cluster, B1, Stage::Leading) };
        out_of(|out| desk.gateway.on_heartbeat(&heartbeat, START, out));
    };
    hear(&mut desk, 0b110);
    let out = desk.submit(0);
    let no_room = Failure::NoRoom(AcceptorSet::from_bits(0b110));
    assert_eq!((tags_told(&out), out.sends.len()), (vec![(0, Some(no_room))], 0), "not sent on");
    hear(&mut desk, 0);
    assert_eq!(proposed(&desk.submit(1)).len(), 1);
    hear(&mut desk, 0b110);
    desk.now = START + millis(300);
    assert_eq!(proposed(&desk.submit(2)).len(), 1, "that leader is not heard any more");
}

#[test]
fn r09_a_gateway_tries_all_proposers_in_turn() {
    let settings = Settings { proposers: 3, batch_commands_max: 1, ..grid(2, 2) };
    let mut desk = Desk::with(settings);
    let mut batch = desk.batches(1).remove(0);
    let mut tried = vec![ProposerId(0)];
    for _ in 0..3 {
        let proposer = *tried.last().unwrap();
        let refusal = NotLeader { proposer, batch: batch.id, attempt: batch.attempt, hint: None };
        let out = out_of(|out| desk.gateway.on_not_leader(refusal, desk.now, out));
        assert!(out.sends.is_empty(), "without a hint it waits a little: {:?}", out.sends);
        assert!(desk.pass(19).sends.is_empty(), "a little is resend_min");
        let (next, again) = proposed(&desk.pass(1)).remove(0);
        tried.push(next);
        batch = again;
    }
    assert_eq!(tried.iter().map(|p| p.0).collect::<Vec<_>>(), [0, 1, 2, 0]);
}

#[test]
fn r09_a_gateway_follows_a_hint_at_once_and_ignores_stale_ones() {
    let mut desk = Desk::new();
    let batch = desk.batches(1).remove(0);
    let hint = Some(ProposerId(1));
    let refusal = NotLeader { proposer: ProposerId(0), batch: batch.id, attempt: 0, hint };
    let out = out_of(|out| desk.gateway.on_not_leader(refusal, desk.now, out));
    let sent = proposed(&out);
    assert_eq!((sent[0].0, sent[0].1.attempt), (ProposerId(1), 1));
    let out = out_of(|out| desk.gateway.on_not_leader(refusal, desk.now, out));
    assert!(out.sends.is_empty(), "a refusal of attempt 0, doubled: {:?}", out.sends);
}

fn slots_asked_for(out: &Outbox) -> Vec<Slot> {
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    p2as.into_iter().map(|(_, p2a)| p2a.slot).collect()
}

/// The numbers of the batches that are asked for, in the order of their slots.
fn batches_asked_for(out: &Outbox) -> Vec<u64> {
    let p2as = pick!(out.sends, ProxyLeader(ToProxyLeader::P2a));
    p2as.into_iter().filter_map(|(_, p2a)| p2a.value.batch()).map(|it| it.id.number).collect()
}

/// A batch before the one it follows would be refused when it is executed, and its slot wasted, as
/// would be those of all others that are sent again behind it.
#[test]
fn r23_a_leader_gives_slots_in_the_order_of_a_gateways_numbers() {
    let mut leader = leader(&square());
    let mut propose = |number, attempt, lowest| {
        let batch = Arc::new(Batch { attempt, ..batch(number) });
        batches_asked_for(&out_of(|out| leader.tell_propose(Propose { batch, lowest }, START, out)))
    };
    assert_eq!(propose(5, 0, 3), [], "3 has no answer, so 5 cannot be executed yet");
    assert_eq!(propose(6, 0, 3), []);
    assert_eq!(propose(3, 0, 3), [3], "all before are executed");
    assert_eq!(propose(3, 1, 3), [], "it has a slot");
    assert_eq!(propose(4, 2, 3), [4, 5, 6], "5 and 6 have waited for it");
    assert_eq!(propose(9, 0, 8), [], "7 is answered, 8 is not");
    assert_eq!(propose(10, 0, 9), [9, 10], "8 is");
    assert_eq!(propose(8, 1, 8), [], "it was");
    let counters = leader.counters();
    assert_eq!((counters.early, counters.duplicates, counters.proposed), (3, 2, 6));
}

/// A session may have been opened and closed again before its gateway knew: then no replica can
/// tell it, and only its Open in another slot can.
#[test]
fn r24_the_lowest_batch_gets_another_slot_once_all_that_its_gateway_was_given_is_closed() {
    let mut leader = leader(&square());
    let propose = |number, attempt, leader: &mut Proposer| {
        let batch = Arc::new(Batch { attempt, ..batch(number) });
        let propose = Propose { batch, lowest: 0 };
        batches_asked_for(&out_of(|out| leader.tell_propose(propose, START, out)))
    };
    assert_eq!((propose(0, 0, &mut leader), propose(1, 0, &mut leader)), (vec![0], vec![1]));
    for (executed, asked_for) in [(1, vec![]), (2, vec![0])] {
        for replica in [0, 1] {
            introduce(&mut leader, replica, 1, executed, START);
        }
        assert_eq!(propose(0, executed.try_into().unwrap(), &mut leader), asked_for, "<{executed}");
    }
    assert_eq!(propose(1, 1, &mut leader), [1], "it goes on from there");
}

/// A late message of a former life must not take the place of the current one's.
#[test]
fn r24_a_gateways_life_begins_with_its_lowest_batch() {
    let mut leader = leader(&square());
    let mut propose = |life, number, lowest| {
        let id = BatchId { incarnation: Incarnation(life), ..batch(number).id };
        let batch = Arc::new(Batch { id, ..batch(number) });
        batches_asked_for(&out_of(|out| leader.tell_propose(Propose { batch, lowest }, START, out)))
    };
    assert_eq!(propose(2, 0, 0), [0]);
    assert_eq!(propose(1, 7, 6), [], "of another life, and not its lowest");
    assert_eq!(propose(2, 1, 0), [1], "it goes on");
    assert_eq!(propose(3, 0, 0), [0], "the next life");
}

#[test]
fn r29_a_leader_keeps_as_many_early_batches_as_a_gateway_may_have_in_flight() {
    let cluster = harness::checked(Settings { batches_in_flight_max: 4, ..grid(2, 2) });
    let mut leader = leader(&cluster);
    for number in 1..9 {
        let propose = Propose { batch: batch(number).into(), lowest: 0 };
        leader.tell_propose(propose, START, &mut Outbox::default());
    }
    assert_eq!((leader.counters().early, leader.counters().dropped), (3, 5));
    let propose = Propose { batch: batch(0).into(), lowest: 0 };
    let out = out_of(|out| leader.tell_propose(propose, START, out));
    assert_eq!(batches_asked_for(&out), [0, 1, 2, 3]);
}

#[test]
fn r24_an_attempt_in_a_recovered_slot_is_dropped_while_it_is_open() {
    let mut leader = proposer(&square(), 0);
    campaign(&square(), &mut leader, Ballot::default(), START);
    for acceptor in [0, 2] {
        let p1b = p1b(acceptor, B1, vec![vote(0, Ballot::default(), 3)]);
        leader.tell_p1b(p1b, START, &mut Outbox::default());
    }
    let out = out_of(|out| leader.tell_propose(harness::propose(batch(3)), START, out));
    assert_eq!(slots_asked_for(&out), [], "its value is open in slot 0");
}
