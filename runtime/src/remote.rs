//! A cluster of other processes, as its clients see it: one connection to one of its gateways.
//!
//! ```text
//!   any thread                this connection's own thread                        a node with a gateway
//!   execute ──▶ port ──▶ Callers ──▶ frames ──▶ ring ════ socket ════▶ Sockets ──▶ Callers ──▶ Gateway
//!      ▲                    │
//!      └──── completion ◀───┘
//! ```
//!
//! Commands belong to a session of the client's own, and are executed in the order in which they
//! were sent, each once (R22, R23). When a connection breaks, those without an answer are sent
//! again over the next one, to the next address, ahead of new ones: what was executed is answered,
//! and not executed again. They are sent until they are answered; a deadline ends only a caller's
//! wait.
//!
//! A gateway that the cluster does not serve says so (R37), and all goes to another. While none is
//! found, the connection to the one that was left is kept, for it may be served again.

mod caller;
mod reads;
mod status;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_net::wire;

use self::caller::Caller;
pub use self::status::{remote_skip, remote_status};
use crate::alarm::Alarm;
use crate::client::{Client, NotReady, Port};
use crate::idle::Idle;
use crate::resident::{MoveIn, Resident};

/// The longest frame that a gateway sends us: a reply.
const FRAME_BYTES_MAX: u32 = 64 << 20;

/// The options to reach a cluster.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Nodes that have gateways. One is connected to at a time; the next is tried when the
    /// connection has ended, or the cluster does not serve that gateway.
    pub addresses: Vec<SocketAddr>,
    /// The cluster's name; empty takes any.
    pub cluster: String,
    /// The deadline of a call. Its command may be executed later all the same.
    pub deadline: Duration,
    /// How long commands wait while no process answers at any of the addresses, all of which have
    /// been tried: then their calls end as [`Unreachable`](crate::CallError::Unreachable).
    /// `None`: to their deadline. Calls that are made later end at once, until one is reached.
    pub unreachable_after: Option<Duration>,
    /// Commands in flight at the most; others wait.
    pub commands_in_flight_max: u32,
    /// The behaviour of the connection's thread when it has no work.
    pub idle: Idle,
}

/// A connection to a cluster of other processes.
///
/// Dropping it ends it; calls under way end as [`Stopped`](crate::CallError::Stopped).
#[derive(Debug)]
pub struct RemoteCluster {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    port: Arc<Port>,
    residents: SegQueue<MoveIn>,
    alarm: Alarm,
    is_stopping: AtomicBool,
    /// Of the gateway that was connected last; 0 before there is one.
    command_bytes_max: AtomicU32,
    /// Why each address could not be used when it was last tried; none where it could be.
    troubles: Mutex<Vec<Option<String>>>,
}

impl Shared {
    fn troubles(&self) -> MutexGuard<'_, Vec<Option<String>>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteOptions {
    /// Returns the options to reach any cluster at `addresses`.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        Self {
            addresses,
            cluster: String::new(),
            deadline: Duration::from_secs(5),
            unreachable_after: None,
            commands_in_flight_max: 65_536,
            idle: Idle::Park,
        }
    }
}

impl RemoteCluster {
    /// Starts to connect. Commands wait until that has succeeded, or their deadline has passed.
    ///
    /// # Errors
    ///
    /// If the machine lets us have no ring or thread: the text says what to set.
    ///
    /// # Panics
    ///
    /// If there are no addresses, or the cluster's name is longer than one can be.
    pub fn connect(options: RemoteOptions) -> io::Result<Self> {
        assert!(!options.addresses.is_empty(), "a cluster without an address");
        let name_bytes = options.cluster.len();
        assert!(name_bytes <= wire::CLUSTER_NAME_BYTES_MAX, "a name of {name_bytes} bytes");
        let alarm = Alarm::new()?;
        let shared = Arc::new(Shared {
            port: Port::new(alarm.clone()),
            residents: SegQueue::new(),
            alarm,
            is_stopping: AtomicBool::new(false),
            command_bytes_max: AtomicU32::new(0),
            troubles: Mutex::new(vec![None; options.addresses.len()]),
        });
        let addresses = options.addresses.clone();
        let (ready, opened) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("loggos-client".to_owned()).spawn(move || {
                // The ring belongs to the thread that opens it.
                match Caller::new(options, theirs) {
                    Ok(caller) => {
                        drop(ready.send(Ok(())));
                        caller.run();
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            })?;
        let opened = opened.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")));
        opened.map(|()| Self { addresses, shared, thread: Some(thread) })
    }

    /// Returns a handle to submit commands with, from any thread.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.shared.port))
    }

    /// Waits until commands are served, like [`Client::ready`], for `most` at the most; blocks this
    /// thread meanwhile.
    ///
    /// # Errors
    ///
    /// If they are not: the error tells for each address why, such as that another cluster is
    /// there.
    pub fn wait_ready(&self, most: Duration) -> Result<(), NotReady> {
        self.client().wait_ready(most, || self.troubles())
    }

    /// Returns the longest command that the cluster takes, once a gateway has said so.
    #[must_use]
    pub fn command_bytes_max(&self) -> Option<u32> {
        Some(self.shared.command_bytes_max.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Returns the addresses that could not be used when they were last tried, each with the
    /// reason.
    #[must_use]
    pub fn troubles(&self) -> Vec<(SocketAddr, String)> {
        let troubles = self.shared.troubles();
        let all = self.addresses.iter().zip(troubles.iter());
        all.filter_map(|(address, trouble)| Some((*address, trouble.clone()?))).collect()
    }

    /// Lets a caller live on the connection's thread, and be called by its loop. `make` makes it
    /// there.
    pub fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        self.shared.residents.push(MoveIn(Box::new(|| Box::new(make()))));
        self.shared.alarm.ring();
    }
}

impl Drop for RemoteCluster {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        self.shared.alarm.ring();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a connection had panicked");
        }
        self.shared.port.close();
    }
}
