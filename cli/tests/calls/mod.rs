//! What callers do that are to lose nothing: chance, many calls at once, a counter, and a load that
//! ends with its test.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loggos::kv::{Answer, Command};
use loggos::{CallError, Client, Executed};

/// Chance, by `SplitMix64`.
pub(crate) struct Chance(pub(crate) u64);

/// A number given by a variable of the environment.
pub(crate) fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|it| it.parse().unwrap())
}

/// The seed given as `LOGGOS_SEED`, or one of the time.
pub(crate) fn drawn_seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    given("LOGGOS_SEED").unwrap_or_else(now)
}

/// A counter that one caller adds to.
#[derive(Default)]
pub(crate) struct Counter {
    pub(crate) acknowledged: u64,
    /// Increments that may have counted, or not.
    pub(crate) unknown: u64,
}

/// Ends a load, also where a test fails in the middle of it: its threads are waited for.
pub(crate) struct End<'a>(pub(crate) &'a AtomicBool);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap();
            items.swap(last, other);
        }
    }

    /// Sleeps for less than `max`: when a fault strikes is drawn, too.
    pub(crate) fn sleep(&mut self, max: Duration) {
        let max = u64::try_from(max.as_micros()).unwrap();
        std::thread::sleep(Duration::from_micros(self.below(max)));
    }
}

impl Counter {
    /// The key of the counter of `caller`.
    pub(crate) fn key(caller: usize) -> Vec<u8> {
        format!("counter of {caller}").into_bytes()
    }

    /// The command that adds one to the counter of `caller`.
    pub(crate) fn add(caller: usize) -> Vec<u8> {
        let mut command = Vec::new();
        Command::Increment { key: &Self::key(caller), by: 1 }.encode(&mut command).unwrap();
        command
    }

    /// Takes in what came of adding one; returns whether that was acknowledged.
    pub(crate) fn on_added(&mut self, result: Result<Executed, CallError>) -> bool {
        match result {
            Ok(executed) => {
                let answer = Answer::decode(executed.reply.as_slice()).unwrap();
                let Answer::Number(number) = answer else { panic!("{answer:?}") };
                let number = u64::try_from(number).unwrap();
                let allowed = self.acknowledged + 1..=self.acknowledged + 1 + self.unknown;
                assert!(allowed.contains(&number), "{number} is not in {allowed:?}");
                self.unknown -= number - self.acknowledged - 1;
                self.acknowledged = number;
                true
            }
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => {
                self.unknown += 1;
                false
            }
            Err(CallError::Busy | CallError::Unreachable) => false, // never sent: no gateway was there to take it
            Err(error) => panic!("a counter: {error}"),
        }
    }

    /// Checks what was read of the counter.
    pub(crate) fn check(&self, found: Option<u64>) {
        let allowed = self.acknowledged..=self.acknowledged + self.unknown;
        let found = found.unwrap_or(0);
        assert!(allowed.contains(&found), "a counter: {found} is not in {allowed:?}");
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has commands executed, all at once; returns what came of each.
pub(crate) fn call_all(client: &Client, commands: &[Vec<u8>]) -> Vec<Result<Executed, CallError>> {
    let mut calls: Vec<_> =
        commands.iter().map(|command| Box::pin(client.execute(command))).collect();
    // A command is sent when its call is first polled.
    let mut no_task = Context::from_waker(Waker::noop());
    let first: Vec<_> = calls.iter_mut().map(|call| call.as_mut().poll(&mut no_task)).collect();
    let answers = calls.into_iter().zip(first).map(|(call, first)| match first {
        Poll::Ready(done) => done,
        Poll::Pending => wait(call),
    });
    answers.collect()
}

/// Reads keys that hold numbers, all at once.
pub(crate) fn read_all(client: &Client, keys: &[&[u8]]) -> Vec<Option<u64>> {
    let gets = keys.iter().map(|key| {
        let mut get = Vec::new();
        Command::Get { key }.encode(&mut get).unwrap();
        get
    });
    let results = call_all(client, &gets.collect::<Vec<_>>());
    results.into_iter().map(|done| number(&done.unwrap())).collect()
}

fn number(executed: &Executed) -> Option<u64> {
    let answer = Answer::decode(executed.reply.as_slice()).unwrap();
    if answer == Answer::Missing {
        return None;
    }
    let Answer::Value(value) = answer else { panic!("{answer:?}") };
    Some(std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// Waits on this thread.
fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Thread(std::thread::Thread);

    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = std::pin::Pin::new(&mut future).poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}
