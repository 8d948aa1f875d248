//! A process of a cluster: its cores, and what can be told to them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::Thread;
use std::time::{Duration, Instant};

use loggos_net::RingRecord;
use loggos_protocol::{ReplicaId, RoleId, StateMachine};
use tracing::info;

use crate::client::{Client, Port};
use crate::config::Config;
use crate::core::{Core, Order, Place, Routes, Sibling};
use crate::data::{self, Data, DataError};
use crate::descriptors::{self, Descriptors};
use crate::executor::{self, Executor};
use crate::layout::{Layout, ProcessPlan};
use crate::resident::{MoveIn, Resident};
use crate::status::{CoreStatus, RoleStatus};
use crate::trace::CoreTrace;

/// The longest time to wait for the next core's report of its roles.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The cores of this process. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Process {
    /// One for each core, until it is waited for.
    executors: Vec<Executor>,
    siblings: Arc<[Sibling]>,
    routes: Arc<Routes>,
    is_stopping: Arc<AtomicBool>,
    has_core_ended: Arc<AtomicBool>,
    port: Arc<Port>,
    /// The core of the gateway that the port leads to, if there is one.
    gateway_core: Option<usize>,
    /// Threads that tell how cores stand. They end by themselves: nobody waits for what they call.
    watchers: Mutex<Vec<Thread>>,
    /// The address where it listens, if it does.
    address: Option<SocketAddr>,
    /// The data directory, if acceptors and replicas are durable: locked as long as this is.
    _data: Option<Data>,
}

/// The reason why a cluster did not start.
#[derive(Debug)]
pub enum StartError {
    /// An executor, a ring or an address was not available: the text says what to set.
    Executor(io::Error),
    /// The data directory is not to be served from.
    Data(DataError),
}

impl Process {
    /// Starts the cores of `node`, or of the whole cluster where the configuration has no nodes.
    /// Where acceptors are durable their logs are recovered first.
    ///
    /// # Errors
    ///
    /// If the machine's cores, rings or the address are not available; if the data directory is not
    /// to be served from.
    pub(crate) fn start<M, F>(
        config: &Config,
        node: Option<usize>,
        machine: F,
    ) -> Result<Self, StartError>
    where
        M: StateMachine + 'static,
        F: Fn(ReplicaId) -> M + Send + Sync + 'static,
    {
        Self::start_recorded(config, node, machine, None)
    }

    /// Starts it; `recorder` hears of what the rings do.
    ///
    /// # Errors
    ///
    /// As [`Process::start`].
    pub(crate) fn start_recorded<M, F>(
        config: &Config,
        node: Option<usize>,
        machine: F,
        recorder: Option<&mpsc::Sender<RingRecord>>,
    ) -> Result<Self, StartError>
    where
        M: StateMachine + 'static,
        F: Fn(ReplicaId) -> M + Send + Sync + 'static,
    {
        let factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync> = Arc::new(machine);
        let limit = descriptors::raise_limit();
        let descriptors = node.map(|node| descriptors::share_out(config, node, limit));
        let descriptors = descriptors.transpose()?;
        if let Some(Descriptors { limit, reserved, clients_max: clients_max @ 1.., .. }) =
            descriptors
        {
            info!(
                "room for {clients_max} clients: of {limit} file descriptors {reserved} are reserved"
            );
        }
        let layout = Layout::new(config, node, descriptors)?;
        executor::check(layout.cpus)?;
        let mut data = match config.is_durable() {
            true => data::open(config, node).map_err(StartError::Data)?,
            false => None,
        };
        let (logs, replicas) = match &mut data {
            Some(data) => (std::mem::take(&mut data.logs), std::mem::take(&mut data.replicas)),
            None => (Vec::new(), Vec::new()),
        };
        let ProcessPlan { cores, routes, siblings, port, gateway_core, is_stopping } =
            layout.plan(logs, replicas, recorder)?;
        let mut process = Self {
            executors: Vec::new(),
            siblings,
            routes,
            is_stopping,
            has_core_ended: Arc::new(AtomicBool::new(false)),
            port,
            gateway_core,
            watchers: Mutex::default(),
            address: None,
            _data: data,
        };
        let (ready, opened) = mpsc::channel();
        for (plan, cpu) in cores.into_iter().zip(layout.cpus) {
            let (name, factory) = (format!("loggos-{}", plan.core), Arc::clone(&factory));
            let closer = CoreEnd {
                sibling: process.siblings[plan.core].clone(),
                port: plan.gateway.is_some().then(|| Arc::clone(&plan.port)),
                has_ended: Arc::clone(&process.has_core_ended),
            };
            let ready = ready.clone();
            let executor = Executor::start(&name, *cpu, move || async move {
                let _closer = closer;
                match Core::start(plan, factory) {
                    Ok((core, address)) => {
                        drop(ready.send(Ok(address))); // unless the process has given up starting
                        drop(ready);
                        core.run().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // On an error what has started so far is stopped, by being dropped.
            process.executors.push(executor?);
        }
        drop(ready);
        for _ in 0..process.executors.len() {
            // A core whose executor cannot begin, or that panics as it starts, sends nothing.
            let Ok(address) = opened.recv() else {
                let error = process.halt().err();
                let error = error.unwrap_or_else(|| io::Error::other("a core ended as it started"));
                return Err(error.into());
            };
            process.address = process.address.or(address?);
        }
        Ok(process)
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Whether a core has ended, though it was not told to: it has failed, and its roles are gone.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_core_ended.load(Ordering::SeqCst) && !self.is_stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Arc::clone(&self.port))
    }

    pub(crate) fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        if let Some(core) = self.gateway_core {
            self.siblings[core].order(Order::MoveIn(MoveIn(Box::new(|| Box::new(make())))));
        }
    }

    pub(crate) fn status(&self) -> Vec<RoleStatus> {
        let cores = self.cores().into_iter();
        let mut roles: Vec<_> = cores.flat_map(|status| status.roles).collect();
        roles.sort_by_key(|status| status.role);
        roles
    }

    /// Returns how all cores stand, but for those that have failed.
    pub(crate) fn cores(&self) -> Vec<CoreStatus> {
        report(&self.siblings)
    }

    /// Tells `hook` how all cores stand, once each `interval`, on a thread of its own.
    ///
    /// # Errors
    ///
    /// If there can be no thread for it.
    pub(crate) fn watch(
        &self,
        interval: Duration,
        mut hook: impl FnMut(Vec<CoreStatus>) + Send + 'static,
    ) -> io::Result<()> {
        let (siblings, is_stopping) = (Arc::clone(&self.siblings), Arc::clone(&self.is_stopping));
        let watcher = std::thread::Builder::new().name("loggos-watch".to_owned());
        let watcher = watcher.spawn(move || {
            let mut due = Instant::now() + interval;
            while !is_stopping.load(Ordering::SeqCst) {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    hook(report(&siblings));
                    due = Instant::now() + interval;
                } else {
                    std::thread::park_timeout(left);
                }
            }
        })?;
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watcher.thread().clone());
        Ok(())
    }

    /// Returns what each core does in the next `time`, but for those that have failed.
    pub(crate) fn trace(&self, time: Duration) -> Vec<CoreTrace> {
        let (sender, receiver) = mpsc::channel();
        for core in self.siblings.iter() {
            core.order(Order::Trace(sender.clone(), time));
        }
        drop(sender);
        let traces = self.siblings.iter().map(|_| receiver.recv_timeout(REPORT_TIMEOUT + time));
        let mut traces: Vec<_> = traces.flatten().collect();
        traces.sort_by_key(|trace| trace.core);
        traces
    }

    /// Gives `order` to the core of `role`; returns whether the role is in this process.
    pub(crate) fn order_role(&self, role: RoleId, order: Order) -> bool {
        let Some(Place::Here { core, .. }) = self.routes.place(role) else { return false };
        self.siblings[core].order(order);
        true
    }

    /// Stops all cores and waits for them.
    ///
    /// # Errors
    ///
    /// If a core had failed.
    pub(crate) fn halt(&mut self) -> io::Result<()> {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.siblings.iter().for_each(|core| core.alarm().ring());
        let watchers = self.watchers.get_mut().unwrap_or_else(PoisonError::into_inner);
        watchers.iter().for_each(Thread::unpark);
        let mut first_error = Ok(());
        for executor in self.executors.drain(..) {
            // Every core is waited for, even if another one had failed.
            let ended = executor.join();
            first_error = first_error.and(ended);
        }
        self.port.close();
        first_error
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::error!(%error, "a core had failed");
        }
    }
}

/// Asks all cores how they stand. Those that have failed say nothing.
fn report(siblings: &[Sibling]) -> Vec<CoreStatus> {
    let (sender, receiver) = mpsc::channel();
    for core in siblings {
        core.order(Order::Report(sender.clone(), None));
    }
    drop(sender);
    let reports = siblings.iter().map(|_| receiver.recv_timeout(REPORT_TIMEOUT));
    let mut cores: Vec<_> = reports.flatten().collect();
    cores.sort_by_key(|status| status.core);
    cores
}

/// Notes that a core has ended, by a panic or not, and closes the ways to it: no thread waits for a
/// dead core.
struct CoreEnd {
    sibling: Sibling,
    port: Option<Arc<Port>>,
    has_ended: Arc<AtomicBool>,
}

impl Drop for CoreEnd {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.sibling.close();
        self.port.iter().for_each(|port| port.close());
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(error) => error.fmt(f),
            Self::Data(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Executor(error)
    }
}
