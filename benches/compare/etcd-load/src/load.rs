//! Closed loops of one put each, as those of `loggos bench`: the same keys, values and histogram.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::LocalSet;

use crate::etcd::Connection;

/// The longest latency that is told apart from longer ones.
const LATENCY_NANOS_MAX: u64 = 100_000_000_000;
/// How long a caller waits after an error, so that a cluster in trouble is not asked again and
/// again.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

const WARMING_UP: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What callers do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub endpoint: String,
    pub clients: u64,
    pub connections: u64,
    pub threads: u64,
    pub size: usize,
    pub keys: u64,
}

/// Whether it counts.
#[derive(Debug)]
pub struct Stage {
    stage: AtomicU8,
    began: OnceLock<Instant>,
    ended: OnceLock<Instant>,
}

/// What callers measured.
#[derive(Debug)]
pub struct Measured {
    /// Latency of every put that was acknowledged while it counted, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Puts that were acknowledged, whether they count or not.
    pub acknowledged: u64,
    pub errors: u64,
    pub error: Option<String>,
    /// The highest revision that was acknowledged.
    pub revision: i64,
}

impl Stage {
    pub fn new() -> Self {
        let stage = AtomicU8::new(WARMING_UP);
        Self { stage, began: OnceLock::new(), ended: OnceLock::new() }
    }

    fn now(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    pub fn start_measuring(&self) {
        self.began.get_or_init(Instant::now);
        self.stage.store(MEASURING, Ordering::Release);
    }

    pub fn stop_measuring(&self) {
        self.ended.get_or_init(Instant::now);
        self.stage.store(OVER, Ordering::Release);
    }

    /// How long it counted.
    pub fn elapsed(&self) -> Duration {
        let both = self.began.get().zip(self.ended.get());
        both.map_or(Duration::ZERO, |(began, ended)| *ended - *began)
    }
}

impl Measured {
    pub fn new() -> Self {
        Self {
            latency: Histogram::new_with_bounds(1, LATENCY_NANOS_MAX, 3).expect("bounds in order"),
            acknowledged: 0,
            errors: 0,
            error: None,
            revision: 0,
        }
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.acknowledged += other.acknowledged;
        self.errors += other.errors;
        self.error = self.error.or(other.error);
        self.revision = self.revision.max(other.revision);
        self
    }
}

/// Runs the callers of one thread of several, over connections of its own, until it is over.
pub fn run(plan: &Plan, thread: u64, stage: &'static Stage) -> Result<Measured, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let measured = Rc::new(RefCell::new(Measured::new()));
    let callers = LocalSet::new();
    callers.block_on(&runtime, async {
        let mut connections = Vec::new();
        for _ in (thread..plan.connections).step_by(to_usize(plan.threads)) {
            let connection = Connection::open(&plan.endpoint).await;
            connections.push(connection.map_err(|error| format!("{}: {error}", plan.endpoint))?);
        }
        let mut running = Vec::new();
        for client in (thread..plan.clients).step_by(to_usize(plan.threads)) {
            let connection = connections[running.len() % connections.len()].clone();
            let (plan, measured) = (plan.clone(), Rc::clone(&measured));
            let caller = call_until_over(plan, client, connection, stage, measured);
            running.push(tokio::task::spawn_local(caller));
        }
        for caller in running {
            caller.await.map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    })?;
    drop(callers);
    Ok(Rc::into_inner(measured).expect("all callers have ended").into_inner())
}

async fn call_until_over(
    plan: Plan,
    client: u64,
    mut connection: Connection,
    stage: &'static Stage,
    measured: Rc<RefCell<Measured>>,
) {
    let mut random = Random::new(client);
    let mut value = vec![b'v'; plan.size];
    while stage.now() != OVER {
        let key = key(random.next() % plan.keys);
        value[..8].copy_from_slice(&random.next().to_le_bytes());
        let started = Instant::now();
        let put = connection.put(&key, &value).await;
        let took = started.elapsed();
        let is_ok = put.is_ok();
        {
            let mut measured = measured.borrow_mut();
            match put {
                Ok(revision) => {
                    measured.acknowledged += 1;
                    measured.revision = measured.revision.max(revision);
                    // All that is answered while it counts, whenever it was sent, as in `loggos
                    // bench`.
                    if stage.now() == MEASURING {
                        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                        measured.latency.saturating_record(nanos);
                    }
                }
                Err(error) => {
                    measured.errors += 1;
                    measured.error.get_or_insert_with(|| error.to_string());
                }
            }
        }
        if !is_ok {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }
}

/// The key of a number, as `loggos bench` writes them: sixteen bytes.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    key
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Marsaglia's xorshift, with the seeds of `loggos bench`.
struct Random(u64);

impl Random {
    fn new(client: u64) -> Self {
        Self(0x9E37_79B9_7F4A_7C15 ^ (client + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
