//! Real processes, a role each: on ports that the kernel gave, or on hosts of their own. All of
//! them end with the test.

pub(crate) mod hosts;
pub(crate) mod load;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use self::hosts::Hosts;
use self::load::GATEWAYS;

/// What anything that must happen may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A look takes no longer; what exceeds it is the machine's.
const STANDSTILL: Duration = Duration::from_secs(5);

/// Looks again and again whether something holds. Time in which this thread did not run, since the
/// machine stood still, does not count.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    loop {
        let looked = Instant::now();
        if holds() {
            return;
        }
        assert!(waited < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
        waited += looked.elapsed().min(STANDSTILL);
    }
}

/// How many nodes there are of each kind.
const KINDS: [(&str, u8); 5] =
    [("gateway", 2), ("proposer", 2), ("proxy-leader", 2), ("acceptor", 4), ("replica", 3)];
/// Where a node listens that has a host of its own.
const PORT: u16 = 7400;

/// A cluster of thirteen processes: f = 1, two gateways, two proposers, two proxy leaders, a 2 × 2
/// grid and three replicas.
pub(crate) struct Nodes {
    _folder: tempfile::TempDir,
    config: PathBuf,
    addresses: BTreeMap<String, SocketAddr>,
    running: BTreeMap<String, Child>,
    /// Where they live, if it is not on this machine itself.
    hosts: Option<Hosts>,
}

/// An address with a free port for each node.
fn free_addresses() -> BTreeMap<String, SocketAddr> {
    // Held until all are known, so that no two are the same.
    let ports: Vec<(String, TcpListener)> =
        names().map(|name| (name, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
    ports.iter().map(|(name, port)| (name.clone(), port.local_addr().unwrap())).collect()
}

impl Nodes {
    /// Starts all nodes on this machine, and waits until each listens.
    pub(crate) fn start() -> Self {
        // A connection of another test may take a port before its node listens there.
        let started = (0..10).find_map(|_| Self::start_at(free_addresses(), None));
        started.expect("a free port for each node")
    }

    /// Starts each node on a host of its own, if there can be such hosts; two more are for the
    /// clients of each gateway.
    pub(crate) fn start_apart() -> Option<Self> {
        let clients = GATEWAYS.map(|gateway| format!("client-{gateway}"));
        let hosts = Hosts::new(&names().chain(clients).collect::<Vec<_>>())?;
        let address = |name: &str| SocketAddr::new(hosts.address(name), PORT);
        let addresses = names().map(|name| (name.clone(), address(&name))).collect();
        Self::start_at(addresses, Some(hosts))
    }

    /// Starts all nodes; returns `None` if one of them cannot listen at its address.
    fn start_at(addresses: BTreeMap<String, SocketAddr>, hosts: Option<Hosts>) -> Option<Self> {
        let mut text =
            "[cluster]\ngateways = 2\ndurability = \"memory\"\n[cores]\nidle = \"park\"\n"
                .to_owned();
        for (name, address) in &addresses {
            let (kind, id) = name.rsplit_once('-').unwrap();
            let role = format!("{} {id}", kind.replace('-', " "));
            writeln!(text, "[nodes.{name}]\naddress = \"{address}\"\nroles = [\"{role}\"]")
                .unwrap();
            text.push_str("cpus = [0]\n");
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cluster.toml");
        std::fs::write(&config, text).unwrap();
        let running = BTreeMap::new();
        let mut nodes = Self { _folder: folder, config, addresses, running, hosts };
        names().all(|name| nodes.listens(&name)).then_some(nodes)
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    /// The hosts that nodes and clients live on.
    pub(crate) fn hosts(&self) -> &Hosts {
        self.hosts.as_ref().unwrap()
    }

    /// Does `what` where a node or client of that name lives.
    pub(crate) fn on<T: Send>(&self, name: &str, what: impl FnOnce() -> T + Send) -> T {
        match &self.hosts {
            Some(hosts) => hosts.on(name, what),
            None => what(),
        }
    }

    /// Starts a node, and waits until it listens. While it is down, a connection may have its port
    /// for a while.
    pub(crate) fn restart(&mut self, name: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.listens(name) {
            assert!(Instant::now() < deadline, "node {name} does not listen");
        }
    }

    /// Starts a node; returns whether it listens.
    fn listens(&mut self, name: &str) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loggos"));
        command
            .args(["node", "--config", self.config.to_str().unwrap(), "--name", name])
            .env("LOGGOS_LOG", "error")
            .stdout(Stdio::piped());
        let mut child = self.on(name, || command.spawn().unwrap());
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let listens = said.contains("listens on");
        match listens {
            true => drop(self.running.insert(name.to_owned(), child)),
            false => drop(child.wait().unwrap()), // it has said why
        }
        listens
    }

    /// Kills a node with no warning.
    pub(crate) fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops a node in mid-thought, or lets it go on.
    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        kill_process(Pid::from_child(&self.running[name]), signal).unwrap();
    }

    /// Returns the status of a node, if it answers; asked from its own host.
    pub(crate) fn status(&self, name: &str) -> Option<Value> {
        let address = self.addresses[name];
        let status = self.on(name, || loggos::remote_status(address, Duration::from_secs(1)));
        serde_json::from_slice(&status.ok()?).ok()
    }

    /// What the only role of a node says of itself under `key`; 0 if it does not answer.
    pub(crate) fn role(&self, name: &str, key: &str) -> u64 {
        let status = self.status(name);
        status.and_then(|status| status["roles"][0][key].as_u64()).unwrap_or(0)
    }

    /// Waits until a proposer believes to lead, and returns its name.
    pub(crate) fn leader(&self) -> String {
        let mut leader = None;
        wait_for("a leader", || {
            leader = ["proposer-0", "proposer-1"].into_iter().find(|name| self.leads(name));
            leader.is_some()
        });
        leader.unwrap().to_owned()
    }

    /// Whether a proposer believes to lead.
    pub(crate) fn leads(&self, name: &str) -> bool {
        self.status(name).is_some_and(|status| !status["leader"].is_null())
    }

    /// Waits until all replicas that run have executed as much, and compares them.
    pub(crate) fn wait_until_equal(&self) {
        let names = self.running.keys().filter(|name| name.starts_with("replica"));
        let names: Vec<&String> = names.collect();
        wait_for("equal replicas", || {
            let statuses = names.iter().filter_map(|name| self.status(name));
            let replicas: Vec<Value> = statuses.map(|s| s["replicas"][0].clone()).collect();
            let executed = |replica: &Value| replica["executed_watermark"].as_u64();
            let is_level = replicas.len() == names.len()
                && replicas.iter().all(|replica| executed(replica) == executed(&replicas[0]));
            if is_level {
                let hash = &replicas[0]["state_hash"];
                assert!(replicas.iter().all(|r| r["state_hash"] == *hash), "{replicas:#?}");
            }
            is_level
        });
    }
}

/// The names of all nodes.
fn names() -> impl Iterator<Item = String> {
    KINDS.into_iter().flat_map(|(kind, count)| (0..count).map(move |id| format!("{kind}-{id}")))
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // How the test came to fail may be seen by how they stand.
            for name in self.running.keys() {
                println!("{name}: {}", self.status(name).unwrap_or_default());
            }
        }
        for child in self.running.values_mut() {
            // Stopped or not, it ends; what has ended already is no matter.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
