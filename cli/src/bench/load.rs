//! The callers, all on the gateway's core: closed loops of one command each; or, at a given rate, whoever
//! is free takes the next one that is due.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use hdrhistogram::Histogram;
use loggos::kv::Command;
use loggos::{CallError, Client, Position, Slot};
use quanta::Instant;

use super::{Options, was_never_sent};

/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// The longest latency that is told apart from longer ones.
const LATENCY_NANOS_MAX: u64 = 100_000_000_000;

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What callers do, and whether it counts.
#[derive(Debug)]
pub(crate) struct Load {
    options: Options,
    stage: AtomicU8,
    answered: AtomicU64,
    is_interrupted: AtomicBool,
}

/// What they measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Latency of every operation that was answered while it counted, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Operations answered, by second of the measurement.
    pub(crate) by_second: Vec<u64>,
    pub(crate) errors: u64,
    /// Writes that may have been executed although nobody was told.
    pub(crate) unknown: u64,
    pub(crate) elapsed: Duration,
    /// The highest acknowledged write of each key, packed: this table is touched at random with every
    /// operation, and shall not push the cluster out of the cache.
    written: Vec<u64>,
    started: Option<Instant>,
}

impl Load {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            options: options.clone(),
            stage: AtomicU8::new(WARMING_UP),
            answered: AtomicU64::new(0),
            is_interrupted: AtomicBool::new(false),
        }
    }

    pub(crate) fn start_measuring(&self) {
        self.stage.store(MEASURING, Ordering::Release);
    }

    pub(crate) fn stop_measuring(&self) {
        self.stage.store(OVER, Ordering::Release);
    }

    /// Ends it early: the figures so far are still told.
    pub(crate) fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Release);
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.is_interrupted.load(Ordering::Acquire)
    }

    /// Operations answered so far, whether they count or not.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    fn callers(&self) -> u64 {
        u64::from(self.options.clients) * u64::from(self.options.pipeline)
    }
}

impl Measured {
    fn new(options: &Options) -> Self {
        let seconds = usize::try_from(options.duration.as_secs() + 2).unwrap_or(0);
        Self {
            latency: Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("bounds in order"),
            by_second: Vec::with_capacity(seconds),
            errors: 0,
            unknown: 0,
            elapsed: Duration::ZERO,
            written: vec![0; options.keys as usize],
            started: None,
        }
    }

    /// The keys that were written, with the highest acknowledged write of each.
    pub(crate) fn written(&self) -> impl Iterator<Item = (u32, Position)> + '_ {
        let keys = self.written.iter().zip(0..).filter(|(written, _)| **written > 0);
        keys.map(|(written, key)| (key, unpack(*written)))
    }

    /// Operations answered while it counted.
    pub(crate) fn operations(&self) -> u64 {
        self.latency.len()
    }

    fn count(&mut self, took: Duration, now: Instant) {
        let started = *self.started.get_or_insert(now);
        self.elapsed = now - started;
        let second = usize::try_from(self.elapsed.as_secs()).unwrap_or(usize::MAX);
        if second >= self.by_second.len() {
            self.by_second.resize(second + 1, 0);
        }
        self.by_second[second] += 1;
        self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// Packs a position so that later ones are larger, and none is zero.
fn pack(at: Position) -> u64 {
    assert!(at.slot.0 < 1 << 47 && at.index < (1 << 16) - 1, "{at:?} is beyond any benchmark");
    at.slot.0 << 16 | u64::from(at.index + 1)
}

fn unpack(packed: u64) -> Position {
    let index = u32::try_from(packed & 0xFFFF).unwrap_or(0) - 1;
    Position { slot: Slot(packed >> 16), index }
}

/// The key of a number: sixteen bytes, all keys alike long.
pub(crate) fn key(number: u32) -> [u8; KEY_BYTES] {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

/// Runs all callers until the measurement is over, and hands in what they measured.
pub(crate) async fn run_callers(client: Client, load: Arc<Load>, done: Sender<Measured>) {
    let measured = Rc::new(RefCell::new(Measured::new(&load.options)));
    let pace = load.options.rate.map(|rate| Rc::new(Pace::new(rate)));
    for caller in 0..load.callers() {
        let (client, load) = (client.clone(), Arc::clone(&load));
        let (measured, pace, done) = (Rc::clone(&measured), pace.clone(), done.clone());
        loggos::spawn_local(async move {
            run_caller(&client, &load, caller, &measured, pace.as_deref()).await;
            // The last one out hands in; where nobody waits for it any more, so be it.
            if let Some(measured) = Rc::into_inner(measured) {
                drop(done.send(measured.into_inner()));
            }
        });
    }
}

async fn run_caller(
    client: &Client,
    load: &Load,
    caller: u64,
    measured: &RefCell<Measured>,
    pace: Option<&Pace>,
) {
    let mut operation = Operation::new(&load.options, caller);
    loop {
        let started = match pace {
            Some(pace) => pace.next_due(load).await,
            None => Instant::now(),
        };
        let stage = load.stage();
        if stage == OVER {
            return;
        }
        operation.draw(&load.options);
        let result = client.execute(&operation.command).await;
        let now = Instant::now();
        let mut measured = measured.borrow_mut();
        match result {
            Ok(executed) => {
                load.answered.fetch_add(1, Ordering::Relaxed);
                if stage == MEASURING && load.stage() == MEASURING {
                    measured.count(now.saturating_duration_since(started), now);
                }
                if !operation.is_read {
                    let written = &mut measured.written[operation.key as usize];
                    *written = (*written).max(pack(executed.at));
                }
            }
            Err(CallError::Stopped) => return,
            Err(error) => {
                measured.errors += 1;
                measured.unknown += u64::from(!operation.is_read && !was_never_sent(error));
            }
        }
    }
}

/// When operations are due, at a given rate: they are handed out in order, each once.
#[derive(Debug)]
struct Pace {
    every: Duration,
    next_at: Cell<Instant>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self { every: Duration::from_secs(1) / rate, next_at: Cell::new(Instant::now()) }
    }

    /// Waits for the next operation that nobody has taken, and returns when it was due: the wait of one
    /// that found no caller free counts, as it would for whoever sent it.
    async fn next_due(&self, load: &Load) -> Instant {
        let due = self.next_at.get();
        self.next_at.set(due + self.every);
        loop {
            let now = Instant::now();
            if now >= due || load.stage() == OVER {
                return due;
            }
            loggos::sleep(due - now).await;
        }
    }
}

/// What one caller does next.
#[derive(Debug)]
struct Operation {
    random: Random,
    command: Vec<u8>,
    value: Vec<u8>,
    key: u32,
    is_read: bool,
}

impl Operation {
    fn new(options: &Options, caller: u64) -> Self {
        let seed = (caller + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let value = vec![b'v'; options.size as usize];
        let random = Random(0x9E37_79B9_7F4A_7C15 ^ seed);
        Self { random, command: Vec::new(), value, key: 0, is_read: false }
    }

    fn draw(&mut self, options: &Options) {
        self.key = u32::try_from(self.random.next() % u64::from(options.keys)).unwrap_or(0);
        self.is_read = options.is_read(self.random.next());
        let key = key(self.key);
        self.command.clear();
        let encoded = if self.is_read {
            Command::Get { key: &key }.encode(&mut self.command)
        } else {
            self.value[..8].copy_from_slice(&self.random.next().to_le_bytes());
            Command::Put { key: &key, value: &self.value }.encode(&mut self.command)
        };
        encoded.expect("the options bound key and value");
    }
}

/// Marsaglia's xorshift: which key comes next need not be unpredictable, only cheap.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
