//! The options by which commands name the cluster that they talk to.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use loggos::{CallError, Config, Executed, RemoteCluster, RemoteOptions, RoleId};

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

/// Reads an address; looks up a host that is named. Of several addresses the first of IPv4 is
/// taken, where nodes listen by default.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    if text.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
        return Err("it must be a host and a port, such as localhost:7401".to_owned());
    }
    let found: Vec<_> = text.to_socket_addrs().map_err(|error| error.to_string())?.collect();
    let first = found.iter().find(|it| it.is_ipv4()).or_else(|| found.first());
    first.copied().ok_or_else(|| "the host has no address".to_owned())
}

impl Target {
    /// The nodes to talk to, each with its name where that is known.
    pub(crate) fn nodes(&self) -> Result<Vec<(String, SocketAddr)>, Box<dyn std::error::Error>> {
        let Some(file) = &self.config else {
            return Ok(vec![(self.connect.to_string(), self.connect)]);
        };
        let nodes = load(file)?.nodes.into_iter();
        Ok(nodes.map(|node| (node.name, node.address)).collect())
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
        Ok(options_of(&load(file)?))
    }

    /// Executes one command.
    ///
    /// # Errors
    ///
    /// If it has no result: the text says which addresses could not be used, and why.
    pub(crate) fn execute(&self, command: &[u8]) -> Result<Executed, Box<dyn std::error::Error>> {
        Ok(execute(self.options()?, &self.nodes()?, command)?)
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
    nodes: &[(String, SocketAddr)],
    command: &[u8],
) -> Result<Executed, String> {
    let unreachable_after = Some(UNREACHABLE_AFTER);
    let cluster = RemoteCluster::connect(RemoteOptions { unreachable_after, ..options })
        .map_err(|error| error.to_string())?;
    cluster.client().execute_blocking(command).map_err(|error| {
        let troubles = cluster.troubles().into_iter().map(|(address, why)| {
            let node = nodes.iter().find(|(name, of)| *of == address && *name != of.to_string());
            let node = node.map(|(name, _)| format!("node {name} at ")).unwrap_or_default();
            format!("\n{node}{address}: {why}")
        });
        let length = match (&error, cluster.command_bytes_max()) {
            (CallError::TooLarge, Some(most)) => {
                format!(": {} bytes, where {most} are the most", command.len())
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
pub(crate) fn options_of(config: &Config) -> RemoteOptions {
    let is_gateway = |role: &RoleId| matches!(role, RoleId::Gateway(_));
    let nodes = config.nodes.iter().filter(|node| node.roles.iter().any(is_gateway));
    RemoteOptions {
        cluster: config.name.clone(),
        deadline: config.deadline,
        ..RemoteOptions::new(nodes.map(|node| node.address).collect())
    }
}
