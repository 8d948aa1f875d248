//! The one place that knows glommio: an executor for each core, on a thread that is pinned to it.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;

use glommio::{BuilderErrorKind, GlommioError, LocalExecutorBuilder, Placement};
use loggos_net::{Ring, RingOptions};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Memory that glommio locks for each executor's rings.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// What an executor and its core have beyond files and connections: rings, and other descriptors.
const RINGS: usize = 4;
const DESCRIPTORS: usize = 24;
pub(crate) const CORE_DESCRIPTORS: u64 = (RINGS + DESCRIPTORS) as u64;

/// What they have in memory before there is any load.
const MEMORY_BYTES: usize = 16 << 20;

/// Sees whether executors on `cpus` would get what they need, all at once. The library that has
/// them panics where the kernel refuses it something.
///
/// # Errors
///
/// If they would not: the text says what to set.
pub(crate) fn check(cpus: &[usize]) -> io::Result<()> {
    // On a thread of its own: it is pinned, and what the kernel still has to do for rings that are
    // gone interrupts system calls of the thread that made them.
    std::thread::scope(|scope| {
        let trial = std::thread::Builder::new().spawn_scoped(scope, || try_all(cpus))?;
        trial.join().unwrap_or_else(|_| Err(io::Error::other("the trial of the machine panicked")))
    })
}

fn try_all(cpus: &[usize]) -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock).current;
    if limit.is_some_and(|bytes| bytes < LOCKED_BYTES_MIN) {
        return Err(io::Error::other(format!(
            "each core needs {} KiB of lockable memory, and the limit is {} KiB: raise it with \
             `ulimit -l {}`, or LimitMEMLOCK= of a systemd unit",
            LOCKED_BYTES_MIN / 1024,
            limit.unwrap_or(0) / 1024,
            LOCKED_BYTES_MIN / 1024,
        )));
    }
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(cpus.len() * MEMORY_BYTES).map_err(|error| {
        io::Error::other(format!(
            "there is not enough memory: each core needs {} MiB to begin with ({error}): see `ulimit -v`",
            MEMORY_BYTES >> 20
        ))
    })?;
    let (mut rings, mut descriptors) = (Vec::new(), Vec::new());
    for cpu in cpus {
        pin(*cpu)?;
        for _ in 0..RINGS {
            let ring = Ring::new(&RingOptions::default())?;
            ring.probe()?;
            rings.push(ring);
        }
        for _ in 0..DESCRIPTORS {
            let descriptor = eventfd(0, EventfdFlags::CLOEXEC).map_err(|error| {
                io::Error::other(format!(
                    "core {cpu} gets no file descriptor ({error}): raise the limit with `ulimit -n`, or \
                     LimitNOFILE= of a systemd unit"
                ))
            });
            descriptors.push(descriptor?);
        }
    }
    Ok(())
}

/// Pins this thread to `cpu`.
fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    if cpu < CpuSet::MAX_CPU {
        cpus.set(cpu);
    }
    sched_setaffinity(None, &cpus).map_err(|error| {
        io::Error::other(format!(
            "no executor on core {cpu}: {error}. The machine does not have that core, or this process may not \
             use it (`taskset`, cpuset, a container profile): give the node other `cpus`"
        ))
    })
}

/// A running executor.
#[derive(Debug)]
pub(crate) struct Executor {
    cpu: usize,
    handle: glommio::ExecutorJoinHandle<()>,
}

impl Executor {
    /// Starts a thread with an executor that is pinned to `cpu`, and runs what `main` returns on
    /// it.
    ///
    /// If the core is not there, or the executor gets no ring, the thread ends without calling
    /// `main`, and [`Executor::join`] says why. [`check`] says it better.
    ///
    /// # Errors
    ///
    /// If there is no thread.
    pub(crate) fn start<F, Fut>(name: &str, cpu: usize, main: F) -> io::Result<Self>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let executor = LocalExecutorBuilder::new(Placement::Fixed(cpu)).name(name);
        let handle = executor.spawn(main).map_err(|error| ended(cpu, &error))?;
        Ok(Self { cpu, handle })
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it ended by a panic, or could not begin: the text says what to set.
    pub(crate) fn join(self) -> io::Result<()> {
        self.handle.join().map_err(|error| ended(self.cpu, &error))
    }
}

/// Returns the error of an executor that has ended by itself.
fn ended(cpu: usize, error: &GlommioError<()>) -> io::Error {
    if let GlommioError::BuilderError(BuilderErrorKind::ThreadPanic(_)) = error {
        return io::Error::other(format!("the thread on core {cpu} has panicked"));
    }
    io::Error::other(format!(
        "cannot start an executor on core {cpu}: {error}. It needs that core, and io_uring: see that the \
         kernel is 6.1 or newer, that /proc/sys/kernel/io_uring_disabled is 0, and that no container \
         profile forbids it"
    ))
}

/// Lets the other tasks of this core run.
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
