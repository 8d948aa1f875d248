//! The layout of roles on nodes and cores, and the plans that cores are started with.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};

use loggos_net::wire::RUN_BYTES_MAX;
use loggos_net::{MailboxReceiver, RingRecord, mailbox};
use loggos_protocol::{Digest, Envelope, GatewayId, RoleId};

use crate::alarm::Alarm;
use crate::client::Port;
use crate::clock::Clock;
use crate::config::{Config, NodeConfig};
use crate::core::{CorePlan, NetworkPlan, Outlet, Place, Routes, Sibling};
use crate::descriptors::Descriptors;
use crate::log::{Log, LogPlan};
use crate::names::{Destination, Names};
use crate::random::random_u64;
use crate::snapshots::{ReplicaPlan, Snapshots};
use crate::sockets::{NodeIdentity, Remote};

/// Parcels that a mailbox between two cores holds.
const MAILBOX_PARCELS_MAX: usize = 64;
/// The room in a client's frame beside the command or the run of them; a hello fits in it, too.
const FRAME_ROOM_BYTES: u32 = 4096;

/// The place of each role, as one process sees it.
pub(crate) struct Layout<'a> {
    config: &'a Config,
    /// The node that this process is; `None` where one process is the whole cluster.
    node: Option<usize>,
    /// Those of the node's process.
    descriptors: Option<Descriptors>,
    /// The processor core of each of our cores.
    pub(crate) cpus: &'a [usize],
    /// The roles of each of our cores, in the order of their seats.
    roles: Vec<Vec<RoleId>>,
    /// The cores of other nodes.
    remotes: Arc<[Remote]>,
    /// Where the node listens.
    listen: Option<SocketAddr>,
}

/// The plan that a process is started with.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) cores: Vec<CorePlan>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) siblings: Arc<[Sibling]>,
    /// To the first gateway of this process; closed if there is none.
    pub(crate) port: Arc<Port>,
    /// The core of that gateway.
    pub(crate) gateway_core: Option<usize>,
    /// Set to stop all cores.
    pub(crate) is_stopping: Arc<AtomicBool>,
}

impl<'a> Layout<'a> {
    /// Lays the roles out; looks the name up that the node has, if it has one.
    ///
    /// # Errors
    ///
    /// If there is no such name, or no thread to look up those of other nodes.
    pub(crate) fn new(
        config: &'a Config,
        node: Option<usize>,
        descriptors: Option<Descriptors>,
    ) -> io::Result<Self> {
        let cpus = node.map_or(&config.cpus, |node| &config.nodes[node].cpus);
        let is_ours = |role: &RoleId| node.is_none_or(|us| config.nodes[us].roles.contains(role));
        let mut roles: Vec<Vec<RoleId>> = vec![Vec::new(); cpus.len()];
        for (role, core) in config.placement.iter().filter(|(role, _)| is_ours(role)) {
            roles[*core].push(*role);
        }
        let others = config.nodes.iter().enumerate().filter(|(other, _)| Some(*other) != node);
        let mut names = Names::default();
        let mut cores = Vec::new();
        for (index, other) in others {
            cores.extend(remotes(config, index, other, &names.destination(&other.address)?));
        }
        let listen = node.map(|node| {
            let address = &config.nodes[node].address;
            let why = |error| io::Error::other(format!("{address} cannot be looked up: {error}"));
            address.resolve().map_err(why)
        });
        let (remotes, listen) = (cores.into(), listen.transpose()?);
        Ok(Self { config, node, descriptors, cpus, roles, remotes, listen })
    }

    /// Returns what this process is started with. `logs` are those of its cores, where acceptors
    /// are durable, and `replicas` those that are.
    ///
    /// # Errors
    ///
    /// If there can be no eventfd, or no thread beside a log or beside replicas.
    pub(crate) fn plan(
        &self,
        mut logs: Vec<Option<LogPlan>>,
        mut replicas: Vec<ReplicaPlan>,
        recorder: Option<&mpsc::Sender<RingRecord>>,
    ) -> io::Result<ProcessPlan> {
        let config = self.config;
        let routes = Arc::new(Routes::new(&config.cluster, |id| self.place(id)));
        let siblings = self.cpus.iter().map(|_| Ok(Sibling::new(Alarm::new()?)));
        let siblings: Arc<[Sibling]> = siblings.collect::<io::Result<Vec<_>>>()?.into();
        let gateway = (0..config.cluster.gateways)
            .filter_map(|id| routes.place(RoleId::Gateway(GatewayId(id))))
            .find_map(|place| match place {
                Place::Here { core, index } => Some((core, index)),
                Place::There { .. } => None,
            });
        let gateway_core = gateway.map(|(core, _)| core);
        let port = Port::new(siblings[gateway_core.unwrap_or(0)].alarm().clone());
        if gateway.is_none() {
            port.close();
        }
        let is_stopping = Arc::new(AtomicBool::new(false));
        let clock = Clock::start();
        let mut cores = Vec::new();
        logs.resize_with(self.cpus.len(), || None);
        let ways = mailboxes(&siblings, config.mailbox_messages_max).into_iter().zip(logs);
        for (core, (Ways { outlets, inlets }, log)) in ways.enumerate() {
            let alarm = siblings[core].alarm();
            let page_bytes_max = config.cluster.page_bytes_max;
            let log = log.map(|log| Log::start(log, page_bytes_max, alarm.clone())).transpose()?;
            let is_here =
                |plan: &mut ReplicaPlan| self.roles[core].contains(&RoleId::Replica(plan.replica));
            let here: Vec<_> = replicas.extract_if(.., is_here).collect();
            let snapshots = match here.is_empty() {
                true => None,
                false => Some(Snapshots::start(here, alarm.clone())?),
            };
            cores.push(CorePlan {
                core,
                cluster: config.cluster.clone(),
                roles: self.roles[core].clone(),
                routes: Arc::clone(&routes),
                siblings: Arc::clone(&siblings),
                outlets,
                inlets,
                port: Arc::clone(&port),
                gateway: gateway.filter(|(at, _)| *at == core).map(|(_, index)| index),
                deadline: config.deadline,
                is_stopping: Arc::clone(&is_stopping),
                idle: config.idle,
                clock: clock.clone(),
                network: self.node.map(|node| self.network(node, core, gateway_core)),
                log,
                snapshots,
                recorder: recorder.cloned(),
            });
        }
        Ok(ProcessPlan { cores, routes, siblings, port, gateway_core, is_stopping })
    }

    /// The place of a role.
    fn place(&self, id: RoleId) -> Place {
        let config = self.config;
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

    /// What the sockets of a core of `node` are started with.
    fn network(&self, node: usize, core: usize, gateway_core: Option<usize>) -> NetworkPlan {
        let command_bytes_max = self.config.cluster.command_bytes_max;
        let descriptors = self.descriptors.expect("a node shares out its descriptors");
        NetworkPlan {
            identity: NodeIdentity {
                cluster_name: self.config.name.clone(),
                digest: agreement(self.config),
                node: to_u8(node),
                core: to_u8(core),
                core_last: to_u8(self.cpus.len() - 1),
                nonce: random_u64(),
                gateway_core: gateway_core.map(to_u8),
                command_bytes_max,
                session_window: self.config.cluster.session_window,
                frame_bytes_max: command_bytes_max.max(RUN_BYTES_MAX) + FRAME_ROOM_BYTES,
                clients_max: descriptors.clients_max,
                strangers_max: descriptors.strangers_max,
            },
            remotes: Arc::clone(&self.remotes),
            listen: self.listen.filter(|_| core == 0),
        }
    }
}

/// The cores of another node.
fn remotes(
    config: &Config,
    index: usize,
    node: &NodeConfig,
    destination: &Destination,
) -> impl Iterator<Item = Remote> {
    let has_proposer = |core| {
        let is_there = |role: &&RoleId| config.placement.get(role) == Some(&core);
        node.roles.iter().filter(is_there).any(|role| matches!(role, RoleId::Proposer(_)))
    };
    (0..node.cpus.len()).map(move |core| Remote {
        node: to_u8(index),
        core: to_u8(core),
        name: node.name.clone(),
        address: node.address.clone(),
        destination: destination.clone(),
        is_watched: has_proposer(core),
    })
}

/// Makes a mailbox for each ordered pair of cores, and returns the ends by core: those that send,
/// by the core that they lead to, and those that receive.
fn mailboxes(siblings: &[Sibling], messages_max: usize) -> Vec<Ways> {
    let cores = siblings.len();
    let none = || {
        let outlets = std::iter::repeat_with(|| None).take(cores).collect();
        Ways { outlets, inlets: Vec::new() }
    };
    let mut ways: Vec<Ways> = std::iter::repeat_with(none).take(cores).collect();
    for (from, to) in (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))) {
        if from != to {
            let (mailbox, inlet) = mailbox(MAILBOX_PARCELS_MAX, messages_max);
            ways[from].outlets[to] = Some(Outlet { mailbox, alarm: siblings[to].alarm().clone() });
            ways[to].inlets.push(inlet);
        }
    }
    ways
}

/// The ways between a core and the others of its process.
struct Ways {
    /// To each core; `None` in the place of this one.
    outlets: Vec<Option<Outlet>>,
    /// From each other core.
    inlets: Vec<MailboxReceiver<Envelope>>,
}

/// Returns the digest of what nodes must agree on: besides what the cluster itself depends on (R3),
/// where every role lives, and how long the messages may be that nodes send each other.
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

/// Narrows the index of a node or core, which the configuration bounds, to a byte.
fn to_u8(index: usize) -> u8 {
    u8::try_from(index).expect("a configuration has at most 64 nodes, of at most 256 cores each")
}
