//! Real processes, a role each, on ports that the kernel gave: all of them end with the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What anything that must happen may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A cluster of thirteen processes: f = 1, two gateways, two proposers, two proxy leaders, a 2 × 2 grid and
/// three replicas.
pub(crate) struct Nodes {
    _folder: tempfile::TempDir,
    config: PathBuf,
    addresses: BTreeMap<String, SocketAddr>,
    running: BTreeMap<String, Child>,
}

impl Nodes {
    /// Starts all nodes, and waits until each listens.
    pub(crate) fn start() -> Self {
        let kinds =
            [("gateway", 2), ("proposer", 2), ("proxy leader", 2), ("acceptor", 4), ("replica", 3)];
        let roles: Vec<String> = kinds
            .iter()
            .flat_map(|(kind, count)| (0..*count).map(move |id| format!("{kind} {id}")))
            .collect();
        // Held until all are known, so that no two are the same.
        let ports: Vec<TcpListener> =
            roles.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let mut text = String::from("[cluster]\ngateways = 2\n[cores]\nidle = \"park\"\n");
        let mut addresses = BTreeMap::new();
        for (role, port) in roles.iter().zip(&ports) {
            let (name, address) = (role.replace(' ', "-"), port.local_addr().unwrap());
            writeln!(text, "[nodes.{name}]\naddress = \"{address}\"\nroles = [\"{role}\"]")
                .unwrap();
            text.push_str("cpus = [0]\n");
            addresses.insert(name, address);
        }
        drop(ports);
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cluster.toml");
        std::fs::write(&config, text).unwrap();
        let mut nodes = Self { _folder: folder, config, addresses, running: BTreeMap::new() };
        for name in nodes.addresses.keys().cloned().collect::<Vec<_>>() {
            nodes.restart(&name);
        }
        nodes
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        self.addresses[name]
    }

    /// Starts a node, and waits until it listens.
    pub(crate) fn restart(&mut self, name: &str) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loggos"))
            .args(["node", "--config", self.config.to_str().unwrap(), "--name", name])
            .env("LOGGOS_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert!(said.contains("listens on"), "node {name} said {said:?}");
        self.running.insert(name.to_owned(), child);
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

    /// How a node's roles stand, if it answers.
    pub(crate) fn status(&self, name: &str) -> Option<Value> {
        let status = loggos::remote_status(self.addresses[name], Duration::from_secs(1)).ok()?;
        serde_json::from_slice(&status).ok()
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

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            // Stopped or not, it ends; what has ended already is no matter.
            drop(child.kill());
            drop(child.wait());
        }
    }
}
