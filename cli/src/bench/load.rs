//! The callers, all on the gateway's core: closed loops of one command each; or, at a given rate, a
//! free caller takes the next command that is due.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use loggos::kv::Command;
use loggos::{CallError, Desk, Next, Position, Resident, Slot};
use quanta::Instant;

use super::Options;

/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// The longest latency that is told apart from longer ones.
const LATENCY_NANOS_MAX: u64 = 100_000_000_000;

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// The stage of the load: whether callers run, and whether their operations count.
#[derive(Debug)]
pub(crate) struct Load {
    options: Options,
    stage: AtomicU8,
    /// The time when measuring began, and how long it went on.
    started: OnceLock<Instant>,
    elapsed: OnceLock<Duration>,
    answered: AtomicU64,
    is_interrupted: Arc<AtomicBool>,
}

/// The measurements of callers.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Latency of every operation that was answered while it counted, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// Operations answered, by second of the measurement.
    pub(crate) by_second: Vec<u64>,
    /// Their latency, more coarsely, where the figures go to a file.
    pub(crate) latency_by_second: Option<Vec<Histogram<u64>>>,
    pub(crate) errors: u64,
    /// Writes that may have been executed, though their outcome is unknown.
    pub(crate) unknown: u64,
    pub(crate) elapsed: Duration,
    /// The highest acknowledged write of each key, packed: this table is touched at random with
    /// every operation, and shall not push the cluster out of the cache.
    written: Vec<u64>,
}

/// Which share of the clients the callers of one entrance are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The entrance's number, below `count`.
    pub(crate) index: u32,
    /// The number of entrances that share the clients.
    pub(crate) count: u32,
}

impl Load {
    /// Returns one that has not begun. It ends early when `is_interrupted` is set: the figures so
    /// far count all the same.
    pub(crate) fn new(options: &Options, is_interrupted: &Arc<AtomicBool>) -> Self {
        Self {
            options: options.clone(),
            stage: AtomicU8::new(WARMING_UP),
            started: OnceLock::new(),
            elapsed: OnceLock::new(),
            answered: AtomicU64::new(0),
            is_interrupted: Arc::clone(is_interrupted),
        }
    }

    pub(crate) fn start_measuring(&self) {
        self.started.get_or_init(Instant::now);
        self.stage.store(MEASURING, Ordering::Release);
    }

    pub(crate) fn stop_measuring(&self) {
        self.elapsed.get_or_init(|| self.started.get().map_or(Duration::ZERO, Instant::elapsed));
        self.stage.store(OVER, Ordering::Release);
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
}

impl Measured {
    fn new(options: &Options) -> Self {
        let seconds = usize::try_from(options.duration.as_secs() + 2).unwrap_or(0);
        Self {
            latency: Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("bounds in order"),
            by_second: Vec::with_capacity(seconds),
            latency_by_second: options.files().next().map(|_| Vec::with_capacity(seconds)),
            errors: 0,
            unknown: 0,
            elapsed: Duration::ZERO,
            written: vec![0; options.keys as usize],
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

    /// Counts an operation that was answered so long after measuring began.
    fn count(&mut self, took: Duration, since: Duration) {
        let second = usize::try_from(since.as_secs()).unwrap_or(usize::MAX);
        if second >= self.by_second.len() {
            self.by_second.resize(second + 1, 0);
        }
        self.by_second[second] += 1;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.latency.saturating_record(nanos);
        if let Some(seconds) = &mut self.latency_by_second {
            if second >= seconds.len() {
                seconds.resize_with(second + 1, coarse_histogram);
            }
            seconds[second].saturating_record(nanos);
        }
    }

    /// Adds the measurements of another one.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.latency.add(&other.latency).expect("both have the same bounds");
        let seconds = self.by_second.len().max(other.by_second.len());
        self.by_second.resize(seconds, 0);
        for (ours, theirs) in self.by_second.iter_mut().zip(other.by_second) {
            *ours += theirs;
        }
        if let (Some(ours), Some(theirs)) = (&mut self.latency_by_second, other.latency_by_second) {
            ours.resize_with(ours.len().max(theirs.len()), coarse_histogram);
            for (ours, theirs) in ours.iter_mut().zip(theirs) {
                ours.add(&theirs).expect("both have the same bounds");
            }
        }
        for (ours, theirs) in self.written.iter_mut().zip(other.written) {
            *ours = (*ours).max(theirs);
        }
        self.errors += other.errors;
        self.unknown += other.unknown;
        self.elapsed = self.elapsed.max(other.elapsed);
        self
    }

    /// Ends the measurement: seconds in which nothing was answered are seconds all the same.
    fn close(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
        let seconds = usize::try_from(elapsed.as_secs()).unwrap_or(usize::MAX);
        self.by_second.resize(seconds.max(self.by_second.len()), 0);
    }
}

/// A histogram of one second: some tens of KiB.
fn coarse_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 2).expect("bounds in order")
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
    for pair in key[6..].rchunks_exact_mut(2) {
        let two = u8::try_from(rest % 100).unwrap_or(0);
        pair.copy_from_slice(&[b'0' + two / 10, b'0' + two % 10]);
        rest /= 100;
    }
    key
}

/// Reads the clock once for several callers that have their turns, or hear results, one right after
/// the other.
#[derive(Debug)]
struct SharedClock {
    now: Instant,
    uses_left: u32,
}

impl SharedClock {
    /// The number of times that one reading is used, which takes about a microsecond.
    const USES: u32 = 16;

    fn now(&mut self) -> Instant {
        if self.uses_left == 0 {
            (self.now, self.uses_left) = (Instant::now(), Self::USES);
        }
        self.uses_left -= 1;
        self.now
    }

    /// Has the clock read when it is used next: time may have passed.
    fn turn(&mut self) {
        self.uses_left = 0;
    }
}

/// All callers of the measurement, as one resident of the gateway's core.
pub(crate) struct Callers {
    load: Arc<Load>,
    /// `None` once it was handed in.
    measured: Option<Measured>,
    done: Sender<Measured>,
    pace: Option<Pace>,
    /// Each caller's commands, as many as it may have in flight, side by side.
    operations: Vec<Operation>,
    /// Those that are not in flight.
    idle: Vec<u32>,
    randoms: Vec<Random>,
    command: Vec<u8>,
    value: Vec<u8>,
    clock: SharedClock,
    /// Operations answered that `load` was not told of.
    answered: u64,
    is_over: bool,
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
struct Operation {
    started: Instant,
    key: u32,
    is_read: bool,
}

impl Callers {
    /// Returns the callers of one entrance, which have sent nothing; what they measured
    /// goes to `done` when all have their last answers.
    pub(crate) fn new(load: Arc<Load>, done: Sender<Measured>, share: Share) -> Self {
        let options = &load.options;
        let clients: Vec<u64> =
            (share.index..options.clients).step_by(share.count as usize).map(u64::from).collect();
        let count = u32::try_from(clients.len()).unwrap_or(u32::MAX) * options.pipeline;
        let started = Instant::now();
        let operation = Operation { started, key: 0, is_read: false };
        Self {
            measured: Some(Measured::new(options)),
            done,
            pace: options.rate.map(|rate| Pace::new(rate, share)),
            operations: vec![operation; count as usize],
            idle: (0..count).rev().collect(),
            randoms: clients.into_iter().map(Random::new).collect(),
            command: Vec::new(),
            value: vec![b'v'; options.size as usize],
            clock: SharedClock { now: started, uses_left: 0 },
            answered: 0,
            is_over: false,
            load,
        }
    }

    /// Draws what the operation of `place` does next.
    fn draw(&mut self, place: u32, started: Instant) {
        let options = &self.load.options;
        let random = &mut self.randoms[(place / options.pipeline) as usize];
        let key = random.below(options.keys);
        let is_read = options.is_read(random.next());
        self.operations[place as usize] = Operation { started, key, is_read };
        let key = self::key(key);
        self.command.clear();
        let encoded = if is_read {
            Command::Get { key: &key }.encode(&mut self.command)
        } else {
            self.value[..8].copy_from_slice(&random.next().to_le_bytes());
            Command::Put { key: &key, value: &self.value }.encode(&mut self.command)
        };
        encoded.expect("the options bound key and value");
    }
}

impl Resident for Callers {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        self.clock.turn();
        self.load.answered.fetch_add(std::mem::take(&mut self.answered), Ordering::Relaxed);
        if self.is_over || self.load.stage() == OVER {
            if self.idle.len() < self.operations.len() {
                return Next::OnResult;
            }
            if let Some(mut measured) = self.measured.take() {
                measured.close(self.load.elapsed.get().copied().unwrap_or_default());
                drop(self.done.send(measured)); // the measurement may have been given up
            }
            return Next::Leave;
        }
        while let Some(place) = self.idle.last().copied() {
            let now = self.clock.now();
            let started = self.pace.as_ref().map_or(now, |pace| pace.next_at);
            if started > now {
                return Next::After(started - now);
            }
            self.draw(place, started);
            let options = &self.load.options;
            let is_read = self.operations[place as usize].is_read;
            let consistency = options.consistency.consistency().filter(|_| is_read);
            let desk = desk.caller(place / options.pipeline);
            let is_taken = match consistency {
                None => desk.execute(place.into(), &self.command),
                Some(it) => desk.query(place.into(), it, &self.command),
            };
            if !is_taken {
                break;
            }
            self.idle.pop();
            if let Some(pace) = &mut self.pace {
                pace.next_at += pace.every;
            }
        }
        self.clock.turn();
        Next::OnResult
    }

    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        let place = u32::try_from(tag).expect("the name of a place");
        self.idle.push(place);
        let operation = self.operations[place as usize];
        let Some(measured) = &mut self.measured else { return };
        match result {
            Ok((at, _)) => {
                self.answered += 1;
                // All that is answered while it counts, whenever it was sent: a stall at the
                // beginning is in the figures.
                if let (MEASURING, Some(began)) = (self.load.stage(), self.load.started.get()) {
                    let now = self.clock.now();
                    let took = now.saturating_duration_since(operation.started);
                    measured.count(took, now.saturating_duration_since(*began));
                }
                if !operation.is_read {
                    let written = &mut measured.written[operation.key as usize];
                    *written = (*written).max(pack(at));
                }
            }
            Err(error) => {
                // A cluster that is gone is not asked again and again.
                self.is_over |= error == CallError::Stopped;
                measured.errors += 1;
                measured.unknown += u64::from(!operation.is_read && error.may_have_executed());
            }
        }
    }
}

/// The times when operations are due, at a given rate: they are handed out in order, each once. The
/// wait of one that found no caller free counts, as it would for a client.
#[derive(Debug)]
struct Pace {
    every: Duration,
    next_at: Instant,
}

impl Pace {
    /// Returns the pace of one entrance: all entrances take turns.
    fn new(rate: u32, share: Share) -> Self {
        let every = Duration::from_secs(1) / rate;
        Self { every: every * share.count, next_at: Instant::now() + every * share.index }
    }
}

/// Marsaglia's xorshift: which key comes next need not be unpredictable, only cheap.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn new(caller: u64) -> Self {
        let seed = (caller + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        Self(0x9E37_79B9_7F4A_7C15 ^ seed)
    }

    /// A number below `bound`, without a division.
    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
