//! The plan that a core is started with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use loggos_net::{MailboxReceiver, MailboxSender, Ring, RingOptions, RingRecord};
use loggos_protocol::{ClusterSettings, Envelope, RoleId};

use super::orders::Sibling;
use super::routes::Routes;
use crate::alarm::Alarm;
use crate::client::Port;
use crate::clock::Clock;
use crate::idle::Idle;
use crate::log::Log;
use crate::snapshots::Snapshots;
use crate::sockets::{NodeIdentity, Remote, Sockets};

/// The longest time that a node waits for an address that is in use.
const ADDRESS_MAX: Duration = Duration::from_secs(2);
const ADDRESS_PAUSE: Duration = Duration::from_millis(10);

/// The plan that a core is started with.
#[derive(Debug)]
pub(crate) struct CorePlan {
    pub(crate) core: usize,
    pub(crate) cluster: ClusterSettings,
    /// The roles that live here, in the order of their seats.
    pub(crate) roles: Vec<RoleId>,
    pub(crate) routes: Arc<Routes>,
    /// All cores of this process, this one among them.
    pub(crate) siblings: Arc<[Sibling]>,
    /// The way to each core of this process; `None` in the place of this one.
    pub(crate) outlets: Vec<Option<Outlet>>,
    /// The ways from the other cores.
    pub(crate) inlets: Vec<MailboxReceiver<Envelope>>,
    pub(crate) port: Arc<Port>,
    /// The seat of the gateway that the port's commands go to, if it lives here.
    pub(crate) gateway: Option<usize>,
    /// The deadline of a call.
    pub(crate) deadline: Duration,
    pub(crate) is_stopping: Arc<AtomicBool>,
    pub(crate) idle: Idle,
    pub(crate) clock: Clock,
    /// The plan of the sockets, if the cluster has several processes.
    pub(crate) network: Option<NetworkPlan>,
    /// The log of the acceptors that live here, if they are durable.
    pub(crate) log: Option<Log>,
    /// The snapshots of the replicas that live here, if they are durable.
    pub(crate) snapshots: Option<Snapshots>,
    /// Hears of what the ring does, in tests.
    pub(crate) recorder: Option<mpsc::Sender<RingRecord>>,
}

/// The plan that the sockets of a core are started with.
#[derive(Debug)]
pub(crate) struct NetworkPlan {
    pub(crate) identity: NodeIdentity,
    pub(crate) remotes: Arc<[Remote]>,
    /// The address where this core accepts other nodes and clients, if it is the one that does.
    pub(crate) listen: Option<SocketAddr>,
}

/// The way to another core of this process: one message a tick, and what wakes that core.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) mailbox: MailboxSender<Envelope>,
    pub(crate) alarm: Alarm,
}

impl NetworkPlan {
    pub(super) fn open(self, cluster: &ClusterSettings) -> Sockets {
        // What a role may hold, and as much again on its way.
        let batches_max = 8 * cluster.ring_slots() as usize;
        let acceptors = cluster.quorums.acceptors_count();
        Sockets::new(self.identity, &self.remotes, batches_max, acceptors.into())
    }
}

/// Opens the ring of a core, on its own thread; `alarm` ends its sleep.
pub(super) fn open_ring(
    alarm: &Alarm,
    recorder: Option<mpsc::Sender<RingRecord>>,
) -> io::Result<Ring> {
    let mut ring = Ring::new(&RingOptions::default())?;
    ring.set_alarm(alarm.eventfd()?);
    recorder.into_iter().for_each(|recorder| ring.set_recorder(recorder));
    Ok(ring)
}

/// Listens for other nodes and for clients. Waits a while for an address that is in use: the kernel
/// closes the sockets of a ring after its process has ended, not before, and a process that is
/// started again at once meets them.
pub(super) fn listen(ring: &mut Ring, address: SocketAddr) -> io::Result<SocketAddr> {
    let started = Instant::now();
    loop {
        let listens = ring.listen(address);
        let in_use = listens.as_ref().is_err_and(|it| it.kind() == io::ErrorKind::AddrInUse);
        if !in_use || started.elapsed() >= ADDRESS_MAX {
            return listens;
        }
        std::thread::sleep(ADDRESS_PAUSE); // nothing else is on this core yet
    }
}
