//! `loggos up` and `loggos node`: processes that listen, until they are told to stop; and `loggos
//! format`, which comes before.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use clap::Args;
use loggos::kv::Kv;
use loggos::{Config, Durability, Node, NodeConfig};
use signal_hook::consts::{SIGHUP, SIGXFSZ};
use signal_hook::low_level::signal_name;
use tracing::info;

use crate::exit;
use crate::lines::Lines;
use crate::log;
use crate::remote::address;
use crate::signals;

/// The address where `up` listens, and that clients connect to, by default.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7420";

/// The interval of checks that all cores are alive.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The options of `up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpOptions {
    /// The address to listen at for clients.
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_ADDRESS, value_parser = address)]
    listen: SocketAddr,
}

/// The options of `node`.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeOptions {
    /// The cluster's configuration, the same for all its nodes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The name of the node to run.
    #[arg(long, value_name = "NAME")]
    name: String,
}

/// Runs the default cluster in this process.
pub(crate) fn up(options: &UpOptions) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::standard();
    config.durability = Some(Durability::Memory);
    config.nodes = vec![NodeConfig {
        name: "up".to_owned(),
        address: options.listen.into(),
        cpus: std::mem::take(&mut config.cpus),
        roles: config.placement.keys().copied().collect(),
        data: None,
    }];
    serve(&config, 0)
}

/// Runs one node.
pub(crate) fn run(options: &NodeOptions) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&options.config)?;
    let node = config.node(&options.name)?;
    serve(&config, node)
}

/// Creates a node's data directory.
pub(crate) fn format(options: &NodeOptions) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&options.config)?;
    let (name, node) = (&options.name, config.node(&options.name)?);
    let path = Node::format(&config, node)
        .map_err(|error| format!("node {name} cannot be formatted: {error}"))?;
    writeln!(exit::stdout(), "node {name} is formatted in {}", path.display())?;
    Ok(())
}

fn serve(config: &Config, node: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (stop, stopped) = mpsc::channel();
    signals::hear(&signals::ENDING, move |signal| {
        if signal == SIGHUP {
            info!("SIGHUP changes nothing: SIGTERM stops a node");
        } else {
            // A second signal finds us stopping already.
            let _unheard = stop.send(signal);
        }
    })?;
    // To write beyond the limit of a file's size is an error then, not the end of the process.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    let (cluster, NodeConfig { name, address, .. }) = (&config.name, &config.nodes[node]);
    let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
    info!("node {name} of cluster {cluster} starts: loggos {version}, process {process}");
    let node = Node::start(config, node, |_| Kv::default())
        .map_err(|error| format!("node {name} cannot start at {address}: {error}"))?;
    // A standard output that is full or stalled is no reason to end, nor to wait.
    let out = Lines::start("loggos-stdout", io::stdout())?;
    let listens = format!("node {name} of cluster {cluster} listens on {}\n", node.address());
    out.push(listens.into_bytes());
    out.flush(log::FLUSH_MAX);
    let signal = loop {
        match stopped.recv_timeout(LOOK_INTERVAL) {
            Ok(signal) => break signal,
            Err(RecvTimeoutError::Timeout) => {}
            // The thread that hears signals has died.
            Err(RecvTimeoutError::Disconnected) => return Err("it hears no signals".into()),
        }
        if node.has_failed() {
            // A node without one of its cores must end, so that its supervisor starts a whole one.
            // To drop it would be to wait for the others.
            std::mem::forget(node);
            return Err(format!("node {name}: a core has failed").into());
        }
    };
    let signal = signal_name(signal).unwrap_or("a signal");
    info!("node {name} stops: {signal} has told it to");
    node.stop()?;
    info!("node {name} has stopped");
    Ok(())
}
