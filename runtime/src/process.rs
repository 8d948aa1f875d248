//! A process of a cluster: its cores, and what can be told to them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_net::{MailboxReceiver, MailboxSender, RingRecord, mailbox};
use loggos_protocol::{Digest, Envelope, GatewayId, ReplicaId, RoleId, StateMachine};

use crate::alarm::Alarm;
use crate::client::{Client, Port};
use crate::clock::Clock;
use crate::cluster::StartError;
use crate::config::{Config, Durability, NodeConfig};
use crate::core::{Core, CorePlan, NetworkPlan, Order, Place, Routes, Sibling};
use crate::data::{self, Data};
use crate::executor::Executor;
use crate::log::{Log, LogPlan};
use crate::random::random_u64;
use crate::resident::{MoveIn, Resident};
use crate::sockets::{Identity, Remote};
use crate::status::RoleStatus;

/// Ticks that a mailbox between two cores holds.
const MAILBOX_TICKS_MAX: usize = 64;
/// How long a core may take to tell how its roles stand.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a frame beside the command in it, and of a hello.
const FRAME_ROOM_BYTES: u32 = 4096;

/// The way to another core: which, how, and what wakes it.
type Outlet = (usize, MailboxSender<Envelope>, Alarm);

/// The cores of this process. Dropping it stops them.
#[derive(Debug)]
pub(crate) struct Process {
    cores: Vec<RunningCore>,
    routes: Arc<Routes>,
    is_stopping: Arc<AtomicBool>,
    has_core_ended: Arc<AtomicBool>,
    port: Arc<Port>,
    /// The core of the gateway that the port leads to, if there is one.
    gateway_core: Option<usize>,
    /// Where it listens, if it does.
    address: Option<SocketAddr>,
    /// The data directory, if acceptors are durable: nobody else's as long as this is.
    _data: Option<Data>,
}

#[derive(Debug)]
struct RunningCore {
    executor: Option<Executor>,
    sibling: Sibling,
}

impl Process {
    /// Starts the cores of `node`, or of the whole cluster where the configuration has no nodes. Where acceptors
    /// are durable their logs are recovered first.
    ///
    /// # Errors
    ///
    /// If the machine's cores, rings or the address cannot be had; if the data directory is not to be served from.
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
        let mut data = match config.durability {
            Some(Durability::Sync) => data::open(config, node).map_err(StartError::Data)?,
            Some(Durability::Memory) | None => None,
        };
        let layout = Layout::of(config, node);
        let plans = layout.plan(config, data.as_mut(), recorder)?;
        let (ready, opened) = mpsc::channel();
        let first = &plans[0];
        let mut process = Self {
            cores: Vec::new(),
            routes: Arc::clone(&first.routes),
            is_stopping: Arc::clone(&first.is_stopping),
            has_core_ended: Arc::new(AtomicBool::new(false)),
            port: Arc::clone(&first.port),
            gateway_core: plans.iter().position(|plan| plan.gateway.is_some()),
            address: None,
            _data: data,
        };
        for (plan, cpu) in plans.into_iter().zip(layout.cpus) {
            let sibling = Sibling { orders: Arc::clone(&plan.orders), alarm: plan.alarm.clone() };
            let (name, factory) = (format!("loggos-{}", plan.core), Arc::clone(&factory));
            let closer = CoreEnd {
                port: plan.gateway.is_some().then(|| Arc::clone(&plan.port)),
                has_ended: Arc::clone(&process.has_core_ended),
            };
            let ready = ready.clone();
            let executor = Executor::start(&name, *cpu, move || async move {
                let _closer = closer;
                match Core::start(plan, factory) {
                    Ok((core, address)) => {
                        drop(ready.send(Ok(address))); // unless the process has given up starting
                        core.run().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
            // On an error what has started so far is stopped, by being dropped.
            process.cores.push(RunningCore { executor: Some(executor?), sibling });
        }
        drop(ready);
        for opened in opened.iter().take(process.cores.len()) {
            process.address = process.address.or(opened?);
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
            self.order(core, Order::MoveIn(MoveIn(Box::new(|| Box::new(make())))));
        }
    }

    pub(crate) fn status(&self) -> Vec<RoleStatus> {
        let (sender, receiver) = mpsc::channel();
        for core in 0..self.cores.len() {
            self.order(core, Order::Report(sender.clone(), None));
        }
        drop(sender);
        let mut roles = Vec::new();
        for _ in 0..self.cores.len() {
            let status = receiver.recv_timeout(REPORT_TIMEOUT);
            roles.extend(status.into_iter().flat_map(|status| status.roles));
        }
        roles.sort_by_key(|status| status.role);
        roles
    }

    /// Gives `order` to the core of `role`; returns whether the role is in this process.
    pub(crate) fn order_role(&self, role: RoleId, order: Order) -> bool {
        let Some(Place::Here { core, .. }) = self.routes.role(role) else { return false };
        self.order(core, order);
        true
    }

    /// Stops all cores and waits for them.
    ///
    /// # Errors
    ///
    /// If a core had failed.
    pub(crate) fn halt(&mut self) -> io::Result<()> {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.cores.iter().for_each(|core| core.sibling.alarm.ring());
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

    fn order(&self, core: usize, order: Order) {
        self.cores[core].sibling.order(order);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.halt() {
            tracing::error!(%error, "a core had failed");
        }
    }
}

/// Says that a core has ended, in whichever way, and closes its port: nobody shall wait for a dead core.
struct CoreEnd {
    port: Option<Arc<Port>>,
    has_ended: Arc<AtomicBool>,
}

impl Drop for CoreEnd {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.port.iter().for_each(|port| port.close());
    }
}

/// Which roles are where, as one process sees it.
struct Layout<'a> {
    node: Option<usize>,
    cpus: &'a [usize],
    /// The roles of each of our cores, in the order of their places.
    roles: Vec<Vec<RoleId>>,
    /// The cores of other nodes.
    remotes: Arc<[Remote]>,
}

impl<'a> Layout<'a> {
    fn of(config: &'a Config, node: Option<usize>) -> Self {
        let cpus = node.map_or(&config.cpus, |node| &config.nodes[node].cpus);
        let mut roles: Vec<Vec<RoleId>> = vec![Vec::new(); cpus.len()];
        let mut remotes = Vec::new();
        match node {
            None => {
                for (role, core) in &config.placement {
                    roles[*core].push(*role);
                }
            }
            Some(ours) => {
                for (role, core) in &config.placement {
                    if config.nodes[ours].roles.contains(role) {
                        roles[*core].push(*role);
                    }
                }
                let has_proposer = |node: &NodeConfig, core| {
                    let is_there = |role: &&RoleId| config.placement.get(role) == Some(&core);
                    let mut roles = node.roles.iter().filter(is_there);
                    roles.any(|role| matches!(role, RoleId::Proposer(_)))
                };
                for (index, other) in config.nodes.iter().enumerate().filter(|(i, _)| *i != ours) {
                    remotes.extend((0..other.cpus.len()).map(|core| Remote {
                        node: small(index),
                        core: small(core),
                        name: other.name.clone(),
                        address: other.address,
                        is_watched: has_proposer(other, core),
                    }));
                }
            }
        }
        Self { node, cpus, roles, remotes: remotes.into() }
    }

    /// Where a role lives.
    fn place(&self, config: &Config, id: RoleId) -> Place {
        let core = config.placement[&id];
        let home = config.nodes.iter().position(|node| node.roles.contains(&id));
        if self.node == home {
            let index = self.roles[core].iter().position(|role| *role == id);
            return Place::Here { core, index: index.expect("it was put there") };
        }
        let is_home = |remote: &Remote| {
            Some(usize::from(remote.node)) == home && usize::from(remote.core) == core
        };
        let link = self.remotes.iter().position(is_home);
        Place::There { link: link.expect("every core of another node has a link") }
    }

    /// Plans every core, with a mailbox for each ordered pair of them.
    fn plan(
        &self,
        config: &Config,
        data: Option<&mut Data>,
        recorder: Option<&mpsc::Sender<RingRecord>>,
    ) -> io::Result<Vec<CorePlan>> {
        let cores = self.cpus.len();
        let routes = Arc::new(Routes::new(&config.cluster, |id| self.place(config, id)));
        let siblings = (0..cores)
            .map(|_| Ok(Sibling { orders: Arc::new(SegQueue::new()), alarm: Alarm::new()? }))
            .collect::<io::Result<Vec<_>>>()?;
        // The port leads to the first gateway of this process.
        let gateway = (0..config.cluster.gateways)
            .filter_map(|id| routes.role(RoleId::Gateway(GatewayId(id))))
            .find_map(|place| match place {
                Place::Here { core, index } => Some((core, index)),
                Place::There { .. } => None,
            });
        let port = Port::new(siblings[gateway.map_or(0, |(core, _)| core)].alarm.clone());
        if gateway.is_none() {
            port.close();
        }
        let mut logs = data.map(|data| std::mem::take(&mut data.logs)).unwrap_or_default();
        logs.resize_with(cores, || None);
        let network = |core: usize| {
            let node = self.node?;
            Some(NetworkPlan {
                identity: Identity {
                    cluster_name: config.name.clone(),
                    digest: agreement(config),
                    node: small(node),
                    core: small(core),
                    core_last: small(cores - 1),
                    nonce: random_u64(),
                    gateway_core: gateway.map(|(core, _)| small(core)),
                    command_bytes_max: config.cluster.command_bytes_max,
                    frame_bytes_max: config.cluster.command_bytes_max + FRAME_ROOM_BYTES,
                },
                remotes: Arc::clone(&self.remotes),
                listen: (core == 0).then(|| config.nodes[node].address),
            })
        };
        let is_stopping = Arc::new(AtomicBool::new(false));
        let clock = Clock::start();
        let (senders, receivers) = mailboxes(&siblings, config.mailbox_messages_max);
        let ends = senders.into_iter().zip(receivers).zip(&self.roles).zip(&siblings).zip(logs);
        let all: Arc<[Sibling]> = siblings.clone().into();
        let page_bytes_max = config.cluster.page_bytes_max;
        let plan = |(core, ((((senders, receivers), roles), sibling), log)): (usize, _)| {
            let (roles, sibling): (&Vec<RoleId>, &Sibling) = (roles, sibling);
            let log: Option<LogPlan> = log;
            let log = log.map(|log| Log::start(log, page_bytes_max, sibling.alarm.clone()));
            let log = log.transpose()?;
            Ok(CorePlan {
                core,
                cluster: config.cluster.clone(),
                roles: roles.clone(),
                routes: Arc::clone(&routes),
                senders,
                receivers,
                port: Arc::clone(&port),
                gateway: gateway.filter(|(at, _)| *at == core).map(|(_, index)| index),
                deadline: config.deadline,
                orders: Arc::clone(&sibling.orders),
                is_stopping: Arc::clone(&is_stopping),
                idle: config.idle,
                alarm: sibling.alarm.clone(),
                clock: clock.clone(),
                siblings: Arc::clone(&all),
                network: network(core),
                log,
                recorder: recorder.cloned(),
            })
        };
        ends.enumerate().map(plan).collect()
    }
}

/// The ends of a mailbox for each ordered pair of cores, by core: those that send, each with where it leads and
/// what wakes whoever is there, and those that receive.
fn mailboxes(
    siblings: &[Sibling],
    messages_max: usize,
) -> (Vec<Vec<Outlet>>, Vec<Vec<MailboxReceiver<Envelope>>>) {
    let cores = siblings.len();
    let mut senders: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    let mut receivers: Vec<Vec<_>> = (0..cores).map(|_| Vec::new()).collect();
    for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
        if from != to {
            let (sender, receiver) = mailbox(MAILBOX_TICKS_MAX, messages_max);
            senders[from].push((to, sender, siblings[to].alarm.clone()));
            receivers[to].push(receiver);
        }
    }
    (senders, receivers)
}

/// What nodes must agree on: besides what the cluster itself depends on (R3), where everybody lives, and how
/// long the messages may be that they send each other.
pub(crate) fn agreement(config: &Config) -> u64 {
    let cluster = &config.cluster;
    let digest = Digest::new("loggos nodes").word(cluster.digest()).word(config.layout_digest());
    let limits = [
        cluster.batch_bytes_max,
        cluster.batch_commands_max,
        cluster.command_bytes_max,
        cluster.page_bytes_max,
        cluster.page_slots_max,
    ];
    limits.into_iter().fold(digest, |digest, limit| digest.word(limit.into())).finish()
}

/// The configuration bounds nodes and their cores.
fn small(index: usize) -> u8 {
    u8::try_from(index).expect("a configuration has at most 64 nodes, of at most 256 cores each")
}
