//! The one place that knows glommio: an executor for each core, on a thread that is pinned to it.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;

use glommio::{BuilderErrorKind, GlommioError, LocalExecutorBuilder, Placement};
use rustix::process::{Resource, getrlimit};

/// Memory that glommio locks for each executor's rings.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

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
    /// `main`, and [`Executor::join`] says why.
    ///
    /// # Errors
    ///
    /// If there is too little lockable memory or no thread: the text says what to set.
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
