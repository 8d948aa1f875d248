//! The callers: closed loops of one command each, all on the gateway's core.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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
        Self { options: options.clone(), stage: AtomicU8::new(WARMING_UP) }
    }

    pub(crate) fn start_measuring(&self) {
        self.stage.store(MEASURING, Ordering::Release);
    }

    pub(crate) fn stop_measuring(&self) {
        self.stage.store(OVER, Ordering::Release);
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

/// Runs `callers` closed loops until the measurement is over, and hands in what they measured.
pub(crate) async fn run_callers(
    client: Client,
    load: Arc<Load>,
    callers: u64,
    under_way: Arc<AtomicU64>,
    done: Sender<Measured>,
) {
    let measured = Rc::new(RefCell::new(Measured::new(&load.options)));
    for caller in 0..callers {
        let (client, load) = (client.clone(), Arc::clone(&load));
        let (measured, under_way, done) =
            (Rc::clone(&measured), Arc::clone(&under_way), done.clone());
        loggos::spawn_local(async move {
            run_caller(&client, &load, caller, &measured).await;
            if Rc::strong_count(&measured) == 1 {
                let nothing = RefCell::new(Measured::new(&load.options));
                measured.swap(&nothing);
                drop(done.send(nothing.into_inner())); // the bench may have given up
            }
            drop(measured);
            under_way.fetch_sub(1, Ordering::Release);
        });
    }
}

async fn run_caller(client: &Client, load: &Load, caller: u64, measured: &RefCell<Measured>) {
    let options = &load.options;
    let mut random =
        Random(0x9E37_79B9_7F4A_7C15 ^ (caller + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9));
    let mut command = Vec::new();
    let mut value = vec![b'v'; options.size as usize];
    loop {
        let stage = load.stage.load(Ordering::Relaxed);
        if stage == OVER {
            return;
        }
        let number = u32::try_from(random.next() % u64::from(options.keys)).unwrap_or(0);
        let is_read = options.is_read(random.next());
        let key = key(number);
        command.clear();
        let encoded = if is_read {
            Command::Get { key: &key }.encode(&mut command)
        } else {
            value[..8].copy_from_slice(&random.next().to_le_bytes());
            Command::Put { key: &key, value: &value }.encode(&mut command)
        };
        encoded.expect("the options bound key and value");
        let started = Instant::now();
        let result = client.execute(&command).await;
        let now = Instant::now();
        let mut measured = measured.borrow_mut();
        match result {
            Ok(executed) => {
                if stage == MEASURING && load.stage.load(Ordering::Relaxed) == MEASURING {
                    measured.count(now - started, now);
                }
                if !is_read {
                    let written = &mut measured.written[number as usize];
                    *written = (*written).max(pack(executed.at));
                }
            }
            Err(CallError::Stopped) => return,
            Err(error) => {
                measured.errors += 1;
                measured.unknown += u64::from(!is_read && !was_never_sent(error));
            }
        }
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
