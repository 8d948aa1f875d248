//! The one place that knows glommio: an executor for each core, on a thread that is pinned to it.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;

use glommio::{LocalExecutorBuilder, Placement};
use rustix::process::{Resource, getrlimit};

/// Memory that glommio locks for each executor's rings.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// A running executor.
#[derive(Debug)]
pub(crate) struct Executor(glommio::ExecutorJoinHandle<()>);

impl Executor {
    /// Starts an executor pinned to `cpu` and runs what `main` returns on it.
    ///
    /// # Errors
    ///
    /// If the core does not exist, or the machine lets us have no ring: the text says what to set.
    pub(crate) fn start<F, Fut>(name: &str, cpu: usize, main: F) -> io::Result<Self>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
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
        LocalExecutorBuilder::new(Placement::Fixed(cpu)).name(name).spawn(main).map(Self).map_err(
            |error| {
                io::Error::other(format!(
                    "cannot start an executor on core {cpu}: {error}. It needs io_uring: see that \
                     the kernel is 6.1 or newer, that /proc/sys/kernel/io_uring_disabled is 0, and \
                     that no container profile forbids it"
                ))
            },
        )
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it ended by a panic.
    pub(crate) fn join(self) -> io::Result<()> {
        self.0.join().map_err(|error| io::Error::other(error.to_string()))
    }
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
