//! Callers that live on the gateway's core: every command has one result, in order, and room is
//! shared.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use loggos::kv::{Answer, Command, Kv};
use loggos::{CallError, Config, Desk, Idle, LocalCluster, Next, Position, Resident, Settings};

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::standard();
    config.idle = Idle::Park; // tests share the machine
    config.deadline = DEADLINE;
    config
}

fn increment(key: &[u8]) -> Vec<u8> {
    let mut command = Vec::new();
    Command::Increment { key, by: 1 }.encode(&mut command).unwrap();
    command
}

/// Increments a key of its own so many times, as fast as the desk has room, and tells what it
/// heard.
struct Counter {
    command: Vec<u8>,
    next: u64,
    count: u64,
    heard: Vec<(u64, i64, Position)>,
    done: Sender<Vec<(u64, i64, Position)>>,
}

impl Counter {
    fn new(key: &[u8], count: u64, done: Sender<Vec<(u64, i64, Position)>>) -> Self {
        Self { command: increment(key), next: 0, count, heard: Vec::new(), done }
    }
}

impl Resident for Counter {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        if self.heard.len() as u64 == self.count {
            self.done.send(std::mem::take(&mut self.heard)).unwrap();
            return Next::Leave;
        }
        while self.next < self.count && desk.execute(self.next, &self.command) {
            self.next += 1;
        }
        Next::OnResult
    }

    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        let (at, reply) = result.unwrap();
        let Answer::Number(number) = Answer::decode(reply).unwrap() else { panic!("no number") };
        self.heard.push((tag, number, at));
    }
}

fn check(heard: &Receiver<Vec<(u64, i64, Position)>>, count: u64) {
    let mut heard = heard.recv_timeout(DEADLINE).unwrap();
    heard.sort_unstable(); // batches are answered by different replicas: results may overtake
    assert!(heard.iter().map(|(tag, ..)| *tag).eq(0..count), "each result once");
    let in_order = 1..=i64::try_from(count).unwrap();
    assert!(heard.iter().map(|(_, number, _)| *number).eq(in_order), "executed out of order");
    assert!(heard.is_sorted_by(|a, b| a.2 < b.2), "later commands are later in the log");
}

/// Wants another turn at once, always, and never has a command.
struct Restless {
    has_turn: Sender<()>,
}

impl Resident for Restless {
    fn turn(&mut self, _: &mut Desk<'_>) -> Next {
        let _ = self.has_turn.send(()); // the test may listen no more
        Next::After(Duration::ZERO)
    }

    fn on_result(&mut self, _: u64, _: Result<(Position, &[u8]), CallError>) {
        unreachable!("it has submitted nothing")
    }
}

#[test]
fn a_resident_that_always_wants_a_turn_keeps_the_core_from_nothing() {
    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    let (has_turn, turns) = channel();
    cluster.move_in(move || Restless { has_turn });
    turns.recv_timeout(DEADLINE).unwrap();
    let (done, heard) = channel();
    cluster.move_in(move || Counter::new(b"counted", 1000, done));
    check(&heard, 1000);
    cluster.stop().unwrap();
}

#[test]
fn residents_that_want_more_room_than_there_is_share_it() {
    let mut config = config();
    config.cluster = {
        let mut settings = Settings::clone(&config.cluster);
        (settings.session_window, settings.batch_commands_max) = (64, 16);
        settings.check().unwrap()
    };
    let cluster = LocalCluster::start(&config, |_| Kv::default()).unwrap();
    let mut heard = Vec::new();
    for key in [b"one", b"two"] {
        let (done, receiver) = channel();
        cluster.move_in(move || Counter::new(key, 5_000, done));
        heard.push(receiver);
    }
    let client = cluster.client();
    for expected in 1..=20 {
        let executed = client.execute_blocking(&increment(b"three")).unwrap();
        let answer = Answer::decode(executed.reply.as_slice()).unwrap();
        assert_eq!(answer, Answer::Number(expected), "beside residents, calls go on");
    }
    heard.iter().for_each(|heard| check(heard, 5_000));
    cluster.stop().unwrap();
}

#[test]
fn a_resident_has_its_turn_when_it_asked_for_it() {
    struct Sleeper(u32, Sender<u32>);
    impl Resident for Sleeper {
        fn turn(&mut self, _: &mut Desk<'_>) -> Next {
            self.0 += 1;
            if self.0 == 3 {
                self.1.send(self.0).unwrap();
                return Next::Leave;
            }
            Next::After(Duration::from_millis(2))
        }

        fn on_result(&mut self, _: u64, _: Result<(Position, &[u8]), CallError>) {
            panic!("it has submitted nothing");
        }
    }
    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    let (sender, turns) = channel();
    cluster.move_in(move || Sleeper(0, sender));
    assert_eq!(turns.recv_timeout(DEADLINE), Ok(3));
    assert!(turns.recv_timeout(DEADLINE).is_err(), "it was dropped when it left");
    cluster.stop().unwrap();
}

#[test]
fn residents_of_a_cluster_that_stops_hear_of_every_command_before_they_go() {
    struct Endless {
        command: Vec<u8>,
        submitted: u64,
        heard: u64,
        gone: Sender<(u64, u64)>,
    }
    impl Resident for Endless {
        fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
            while self.submitted - self.heard < 100 && desk.execute(self.submitted, &self.command) {
                self.submitted += 1;
            }
            Next::OnResult
        }

        fn on_result(&mut self, _: u64, result: Result<(Position, &[u8]), CallError>) {
            self.heard += 1;
            assert!(matches!(result, Ok(_) | Err(CallError::Stopped)), "{result:?}");
        }
    }
    impl Drop for Endless {
        fn drop(&mut self) {
            self.gone.send((self.submitted, self.heard)).unwrap();
        }
    }
    let cluster = LocalCluster::start(&config(), |_| Kv::default()).unwrap();
    let (gone, counts) = channel();
    let command = increment(b"key");
    cluster.move_in(move || Endless { command, submitted: 0, heard: 0, gone });
    cluster.client().execute_blocking(&increment(b"other")).unwrap();
    cluster.stop().unwrap();
    let (submitted, heard) = counts.recv().unwrap();
    assert!(submitted > 0, "it had no turn");
    assert_eq!(submitted, heard, "some command was never heard of");
}
