//! A whole cluster in this process: the embedded default, and what `loggos bench` measures.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_net::mailbox;
use loggos_protocol::{GatewayId, ReplicaId, RoleId, StateMachine};

use crate::client::{Client, Port};
use crate::clock::Clock;
use crate::config::Config;
use crate::core::{Core, CorePlan, Order, Place, Routes};
use crate::executor::{Alarm, Executor};
use crate::resident::{MoveIn, Resident};
use crate::status::RoleStatus;

/// Ticks that a mailbox between two cores holds.
const MAILBOX_TICKS_MAX: usize = 64;
/// How long a core may take to tell how its roles stand.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster whose roles all live in this process, on pinned cores.
///
/// Dropping it stops it.
#[derive(Debug)]
pub struct LocalCluster {
    cores: Vec<RunningCore>,
    routes: Arc<Routes>,
    is_stopping: Arc<AtomicBool>,
    port: Arc<Port>,
}

#[derive(Debug)]
struct RunningCore {
    executor: Option<Executor>,
    orders: Arc<SegQueue<Order>>,
    alarm: Alarm,
}

/// Why a cluster did not start.
#[derive(Debug)]
pub enum StartError {
    /// An executor could not be had: the text says what to set.
    Executor(io::Error),
}

/// A role that this cluster does not have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoSuchRole(pub RoleId);

impl LocalCluster {
    /// Starts the cluster that `config` describes; `machine` makes each replica's state machine, in its
    /// initial state, on the replica's own core.
    ///
    /// Returns at once; commands wait until a leader is elected.
    ///
    /// # Errors
    ///
    /// If the machine's cores or rings cannot be had.
    pub fn start<M, F>(config: &Config, machine: F) -> Result<Self, StartError>
    where
        M: StateMachine + 'static,
        F: Fn(ReplicaId) -> M + Send + Sync + 'static,
    {
        let factory: Arc<dyn Fn(ReplicaId) -> M + Send + Sync> = Arc::new(machine);
        let plans = plan(config).map_err(StartError::Executor)?;
        let routes = Arc::clone(&plans[0].routes);
        let is_stopping = Arc::clone(&plans[0].is_stopping);
        let port = Arc::clone(&plans[0].port);
        let mut cluster = Self { cores: Vec::new(), routes, is_stopping, port };
        for (plan, cpu) in plans.into_iter().zip(&config.cpus) {
            let (orders, alarm) = (Arc::clone(&plan.orders), plan.alarm.clone());
            let (name, factory) = (format!("loggos-{}", plan.core), Arc::clone(&factory));
            let closer = CloseOnDrop(Arc::clone(&plan.port), plan.gateway.is_some());
            let executor = Executor::start(&name, *cpu, move || async move {
                let _closer = closer;
                if let Err(error) = Core::new(plan, factory).run().await {
                    tracing::error!(%error, "a core cannot be woken, and does not run");
                }
            });
            // On an error what has started so far is stopped, by being dropped.
            let executor = Some(executor.map_err(StartError::Executor)?);
            cluster.cores.push(RunningCore { executor, orders, alarm });
        }
        Ok(cluster)
    }

    /// Returns a handle to submit commands with, from any thread.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.port))
    }

    /// Lets a caller live on the core of the first gateway, and be called by its loop: the nearest that a
    /// caller can be. `make` makes it there.
    pub fn move_in<R: Resident + 'static>(&self, make: impl FnOnce() -> R + Send + 'static) {
        let place = self.routes.role(RoleId::Gateway(GatewayId(0)));
        let core = place.map_or(0, |place| place.core);
        self.order(core, Order::MoveIn(MoveIn(Box::new(|| Box::new(make())))));
    }

    /// Tells how every role stands. The roles of a core that has failed are left out.
    #[must_use]
    pub fn status(&self) -> Vec<RoleStatus> {
        let (sender, receiver) = mpsc::channel();
        for core in 0..self.cores.len() {
            self.order(core, Order::Report(sender.clone()));
        }
        drop(sender);
        let mut roles = Vec::new();
        for _ in 0..self.cores.len() {
            roles.extend(receiver.recv_timeout(REPORT_TIMEOUT).unwrap_or_default());
        }
        roles.sort_by_key(|status| status.role);
        roles
    }

    /// Ends a role, as a crash would: at once, and with all that it remembers.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn kill(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Kill(role))
    }

    /// Ends a role in good order: a leader announces it first, so that the next one need not wait for an
    /// election timeout.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn retire(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Retire(role))
    }

    /// Lets a role take nothing in for a while, as a stopped process would not.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn pause(&self, role: RoleId, most: Duration) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Pause(role, most))
    }

    /// Starts a role over in a new life, with a blank memory.
    ///
    /// An acceptor that has forgotten is not let in again (R4); a replica gets what it missed from its
    /// peers, as far back as they hold it.
    ///
    /// # Errors
    ///
    /// If there is no such role.
    pub fn restart(&self, role: RoleId) -> Result<(), NoSuchRole> {
        self.order_role(role, Order::Restart(role))
    }

    /// Stops all cores and waits for them. Calls under way end as
    /// [`CallError::Stopped`](crate::CallError::Stopped).
    ///
    /// # Errors
    ///
    /// If a core had failed.
    pub fn stop(mut self) -> io::Result<()> {
        self.halt()
    }

    fn order_role(&self, role: RoleId, order: Order) -> Result<(), NoSuchRole> {
        let place = self.routes.role(role).ok_or(NoSuchRole(role))?;
        self.order(place.core, order);
        Ok(())
    }

    fn order(&self, core: usize, order: Order) {
        self.cores[core].orders.push(order);
        self.cores[core].alarm.ring();
    }

    fn halt(&mut self) -> io::Result<()> {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.cores.iter().for_each(|core| core.alarm.ring());
        let mut first_error = Ok(());
        for core in &mut self.cores {
            if let Some(executor) = core.executor.take() {
                // Every core is waited for, whatever became of the others.
                let ended = executor.join();
                first_error = first_error.and(ended);
            }
        }
        self.port.close();
        first_error
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::error!(%error, "a core had failed");
        }
    }
}

/// Closes the port when its core ends, in whichever way: nobody shall wait for a dead core.
struct CloseOnDrop(Arc<Port>, bool);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if self.1 {
            self.0.close();
        }
    }
}

/// Lays the cluster out on cores, with a mailbox for each ordered pair of them.
fn plan(config: &Config) -> io::Result<Vec<CorePlan>> {
    let cores = config.cpus.len();
    let mut roles: Vec<Vec<RoleId>> = vec![Vec::new(); cores];
    for (role, core) in &config.placement {
        roles[*core].push(*role);
    }
    let routes = Arc::new(Routes::new(&config.cluster, |id| {
        let core = config.placement[&id];
        let index = roles[core].iter().position(|role| *role == id);
        Place { core, index: index.expect("it was put there") }
    }));
    let alarms = (0..cores).map(|_| Alarm::new()).collect::<io::Result<Vec<_>>>()?;
    let gateway = routes.role(RoleId::Gateway(GatewayId(0))).expect("a cluster has a gateway");
    let port = Port::new(alarms[gateway.core].clone());
    let is_stopping = Arc::new(AtomicBool::new(false));
    let clock = Clock::start();
    let mut senders: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    let mut receivers: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
        if from != to {
            let (sender, receiver) = mailbox(MAILBOX_TICKS_MAX, config.mailbox_messages_max);
            senders[from].push((to, sender, alarms[to].clone()));
            receivers[to].push(receiver);
        }
    }
    let ends = senders.into_iter().zip(receivers).zip(roles).zip(alarms);
    let plans = ends.enumerate().map(|(core, (((senders, receivers), roles), alarm))| CorePlan {
        core,
        cluster: config.cluster.clone(),
        roles,
        routes: Arc::clone(&routes),
        senders,
        receivers,
        port: Arc::clone(&port),
        gateway: (gateway.core == core).then_some(gateway.index),
        deadline: config.deadline,
        orders: Arc::new(SegQueue::new()),
        is_stopping: Arc::clone(&is_stopping),
        idle: config.idle,
        alarm,
        clock: clock.clone(),
    });
    Ok(plans.collect())
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Executor(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl fmt::Display for NoSuchRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cluster has no {:?}", self.0)
    }
}

impl std::error::Error for NoSuchRole {}
