//! The one place that knows glommio: a pinned executor, and how a core sleeps and is woken.
//!
//! ```text
//!   other core                         this core
//!   push; is it asleep? ──── no ───▶   finds it with the next tick
//!            │
//!           yes ── eventfd ──▶ glommio's ring ──▶ a task that sets the alarm ──▶ the loop
//! ```
//!
//! A core that is awake is told nothing: its loop looks into its mailboxes. One that is about to sleep
//! says so and then looks once more, and who pushes looks whether it sleeps after having pushed: see
//! [`Slumber`].

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use loggos_net::Slumber;
use rustix::event::EventfdFlags;
use rustix::process::{Resource, getrlimit};

/// Memory that glommio locks for each executor's rings.
const LOCKED_BYTES_MIN: u64 = 512 * 1024;

/// Wakes a core, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<AlarmState>);

#[derive(Debug)]
struct AlarmState {
    slumber: Slumber,
    eventfd: OwnedFd,
}

/// How this core sleeps.
#[derive(Debug)]
pub(crate) struct Bed {
    alarm: Alarm,
    ringing: Rc<Ringing>,
}

/// What the task that reads the eventfd tells the loop.
#[derive(Debug, Default)]
struct Ringing {
    rang: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A running executor.
#[derive(Debug)]
pub(crate) struct Executor(glommio::ExecutorJoinHandle<()>);

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(AlarmState { slumber: Slumber::default(), eventfd })))
    }

    /// Sleeps on this thread by `sleep`, which the alarm's eventfd ends; not at all if `has_work` says so once
    /// everybody could know that we sleep.
    pub(crate) fn sleep(&self, has_work: impl FnOnce() -> bool, sleep: impl FnOnce()) {
        if self.0.slumber.begin(has_work) {
            sleep();
        }
        self.0.slumber.end();
    }

    /// Another descriptor of what wakes the core when something is written to it.
    pub(crate) fn eventfd(&self) -> io::Result<OwnedFd> {
        self.0.eventfd.as_fd().try_clone_to_owned()
    }

    /// Wakes the core if it sleeps. To be called after what it shall find has been pushed.
    pub(crate) fn ring(&self) {
        if self.0.slumber.disturb() {
            let rung = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
            assert!(rung.is_ok(), "an eventfd that is read to zero took no one: {rung:?}");
        }
    }
}

impl Bed {
    /// Returns the bed of the core that this runs on, to be woken by `alarm`.
    pub(crate) fn new(alarm: Alarm) -> io::Result<Self> {
        let eventfd = alarm.0.eventfd.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor was just duplicated and is given up here, so the file is its only owner.
        let file = unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) };
        let ringing = Rc::new(Ringing::default());
        let heard = Rc::downgrade(&ringing);
        glommio::spawn_local(async move {
            while file.read_at(0, 8).await.is_ok() {
                let Some(ringing) = heard.upgrade() else { break };
                ringing.ring();
            }
        })
        .detach();
        Ok(Self { alarm, ringing })
    }

    /// Sleeps until the alarm rings, another task of this core wakes us by [`Bed::waker`], or `most` has
    /// passed; not at all if `has_work` says so once everybody could know that we sleep.
    pub(crate) async fn sleep(&self, most: Duration, has_work: impl FnOnce() -> bool) {
        if self.alarm.0.slumber.begin(has_work) {
            let mut timer = Timer::new(most);
            poll_fn(|cx| {
                if self.ringing.rang.get() || Pin::new(&mut timer).poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                *self.ringing.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
        self.ringing.rang.set(false);
        self.alarm.0.slumber.end();
    }
}

impl Ringing {
    fn ring(&self) {
        self.rang.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

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
                     the kernel is 5.8 or newer, that /proc/sys/kernel/io_uring_disabled is 0, and \
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
