//! The options by which commands name the cluster that they talk to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use loggos::{
    Address, CallError, Client, Config, Consistency, Executed, NoAddress, NodeConfig,
    RemoteCluster, RemoteOptions, RoleId,
};

use crate::node::DEFAULT_ADDRESS;

/// How long a command waits for a process to answer at one of the addresses.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(1);

/// The cluster to talk to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Target {
    /// The cluster's configuration, which has the addresses of its nodes.
    #[arg(long, value_name = "FILE", global = true, conflicts_with = "connect")]
    config: Option<PathBuf>,
    /// The address of a node: a host and a port, such as localhost:7401.
    #[arg(
        long,
        value_name = "ADDR",
        global = true,
        default_value = DEFAULT_ADDRESS,
        value_parser = address
    )]
    connect: SocketAddr,
}

/// Reads an address; looks up a host that is named.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let address: Address = text.parse().map_err(|error: NoAddress| error.to_string())?;
    address.resolve().map_err(|error| error.to_string())
}

/// A node's name, or its address where it has none, and its address.
pub(crate) type Named = (String, Address);

/// The nodes of a configuration.
pub(crate) fn named(config: &Config) -> Vec<Named> {
    let nodes = config.nodes.iter();
    nodes.map(|node| (node.name.clone(), node.address.clone())).collect()
}

impl Target {
    /// The nodes to talk to, each with its name where that is known.
    pub(crate) fn nodes(&self) -> Result<Vec<Named>, Box<dyn std::error::Error>> {
        let Some(file) = &self.config else {
            return Ok(vec![(self.connect.to_string(), self.connect.into())]);
        };
        Ok(named(&load(file)?))
    }

    /// The configuration, if it was named.
    pub(crate) fn config(&self) -> Result<Option<Config>, Box<dyn std::error::Error>> {
        self.config.as_ref().map(|file| load(file)).transpose()
    }

    /// The options to reach a gateway.
    pub(crate) fn options(&self) -> Result<RemoteOptions, Box<dyn std::error::Error>> {
        let Some(file) = &self.config else {
            return Ok(RemoteOptions::new(vec![self.connect]));
        };
        Ok(options_of(&load(file)?)?)
    }

    /// Executes one command.
    ///
    /// # Errors
    ///
    /// If it has no result: the text says which addresses could not be used, and why.
    pub(crate) fn execute(&self, command: &[u8]) -> Result<Executed, Box<dyn std::error::Error>> {
        Ok(execute(self.options()?, &self.nodes()?, command)?)
    }

    /// Asks one query.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub(crate) fn query(
        &self,
        consistency: Consistency,
        query: &[u8],
    ) -> Result<Executed, Box<dyn std::error::Error>> {
        let ask = |client: Client| client.query_blocking(consistency, query);
        Ok(call(self.options()?, &self.nodes()?, query.len(), ask)?)
    }
}

/// Executes one command at the cluster of `options`, whose `nodes` have names. Waits no longer than
/// UNREACHABLE_AFTER for a process to answer at one of the addresses.
///
/// # Errors
///
/// If it has no result: the text says which addresses could not be used, and why.
pub(crate) fn execute(
    options: RemoteOptions,
    nodes: &[Named],
    command: &[u8],
) -> Result<Executed, String> {
    call(options, nodes, command.len(), |client| client.execute_blocking(command))
}

/// Has `ask` ask a client of that cluster something of so many bytes, likewise.
fn call(
    options: RemoteOptions,
    nodes: &[Named],
    bytes: usize,
    ask: impl FnOnce(Client) -> Result<Executed, CallError>,
) -> Result<Executed, String> {
    let unreachable_after = Some(UNREACHABLE_AFTER);
    let cluster = RemoteCluster::connect(RemoteOptions { unreachable_after, ..options })
        .map_err(|error| error.to_string())?;
    ask(cluster.client()).map_err(|error| {
        let troubles = cluster.troubles().into_iter().map(|(address, why)| {
            let is_it = |(name, of): &&Named| {
                *name != of.to_string() && of.resolve().is_ok_and(|of| of == address)
            };
            let node = nodes.iter().find(is_it);
            let node = node.map(|(name, _)| format!("node {name} at ")).unwrap_or_default();
            format!("\n{node}{address}: {why}")
        });
        let length = match (&error, cluster.command_bytes_max()) {
            (CallError::TooLarge, Some(most)) => {
                format!(": {bytes} bytes, where {most} are the most")
            }
            _ => String::new(),
        };
        error.to_string() + &length + &troubles.collect::<String>()
    })
}

/// Reads the configuration of a cluster that listens.
pub(crate) fn load(file: &Path) -> Result<Config, Box<dyn std::error::Error>> {
    let config = Config::load(file)?;
    if config.nodes.is_empty() {
        let file = file.display();
        return Err(
            format!("{file} has no [nodes]: its cluster has no address to connect to").into()
        );
    }
    Ok(config)
}

/// Returns the options to reach the gateways of a cluster with nodes.
///
/// # Errors
///
/// If no host of them can be looked up: says why.
pub(crate) fn options_of(config: &Config) -> Result<RemoteOptions, String> {
    let is_gateway = |role: &RoleId| matches!(role, RoleId::Gateway(_));
    let nodes = config.nodes.iter().filter(|node| node.roles.iter().any(is_gateway));
    let resolve = |node: &NodeConfig| {
        node.address
            .resolve()
            .map_err(|error| format!("node {} at {}: {error}", node.name, node.address))
    };
    let (found, lost): (Vec<_>, Vec<_>) = nodes.map(resolve).partition(Result::is_ok);
    let addresses: Vec<SocketAddr> = found.into_iter().flatten().collect();
    if addresses.is_empty() {
        let why: Vec<_> = lost.into_iter().filter_map(Result::err).collect();
        return Err(why.join("\n"));
    }
    Ok(RemoteOptions {
        cluster: config.name.clone(),
        deadline: config.deadline,
        ..RemoteOptions::new(addresses)
    })
}
