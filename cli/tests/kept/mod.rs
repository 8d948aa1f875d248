//! Real processes that keep what they have voted on disk. All of them end with the test; the folder
//! of a test that fails stays, for inquiry.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// What anything that must happen may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A look takes no longer; what exceeds it is the machine's.
const STANDSTILL: Duration = Duration::from_secs(5);

/// The port of the first node: one that the kernel gives to no other socket.
const PORT: u16 = 7400;

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

/// A node of a cluster to be.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    /// As in `gateway 0`.
    pub(crate) roles: Vec<String>,
}

impl Plan {
    pub(crate) fn new(name: impl Into<String>, roles: &[String]) -> Self {
        Self { name: name.into(), roles: roles.to_vec() }
    }

    fn has_data(&self) -> bool {
        self.has("acceptor") || self.has("replica")
    }

    fn has(&self, kind: &str) -> bool {
        self.roles.iter().any(|role| role.starts_with(kind))
    }
}

/// Three nodes with a role of each kind, of which two are a quorum: the configuration needs
/// `quorums = "majority"`, and three proposers and gateways.
pub(crate) fn three_nodes() -> Vec<Plan> {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let roles = |id: usize| kinds.map(|kind| format!("{kind} {id}"));
    (0..3).map(|id| Plan::new(format!("node-{id}"), &roles(id))).collect()
}

/// A cluster of processes. Nodes are told by their place in the plan.
pub(crate) struct Cluster {
    /// None once it is kept.
    folder: Option<TempDir>,
    config: PathBuf,
    plans: Vec<Plan>,
    addresses: Vec<SocketAddr>,
    running: Vec<Option<Child>>,
    /// What nodes are limited to.
    pub(crate) limit: Option<&'static str>,
}

/// A node that was started, and does not listen yet.
pub(crate) struct Starting(BufReader<ChildStdout>);

/// Addresses for so many nodes, which stay free while a node is away. A port that the kernel gave
/// would not: it may give it to any outgoing call, such as that of a node that looks for the one
/// that is away.
fn addresses(count: usize) -> Vec<SocketAddr> {
    static CLUSTERS: AtomicU8 = AtomicU8::new(0);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    assert!(cluster < 200, "as many clusters as there are addresses");
    let port = |node: usize| PORT + u16::try_from(node).unwrap();
    (0..count).map(|node| (Ipv4Addr::new(127, high, low, 1 + cluster), port(node)).into()).collect()
}

pub(crate) fn loggos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggos"));
    command.env("LOGGOS_LOG", "warn").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// The same command under a limit, as `ulimit` has them.
pub(crate) fn limited(limit: &str, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

/// Tells a process to stop, waits until it has, and returns its exit code.
pub(crate) fn stop(child: &mut Child) -> Option<i32> {
    end_by(child, Signal::TERM)
}

/// Sends a signal to a process, waits until it has ended, and returns its exit code.
pub(crate) fn end_by(child: &mut Child, signal: Signal) -> Option<i32> {
    kill_process(Pid::from_child(child), signal).unwrap();
    let mut status = None;
    wait_for("the end of a process", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().code()
}

impl Cluster {
    /// Lays out a cluster and formats its directories. `config` is of the file, beyond what all
    /// clusters have; `data` is where a node keeps its data, if not in the cluster's folder.
    pub(crate) fn new(
        config: &str,
        plans: Vec<Plan>,
        data: impl Fn(&str) -> Option<PathBuf>,
    ) -> Self {
        let cluster = Self::laid_out(config, plans, data);
        for plan in cluster.plans.iter().filter(|plan| plan.has_data()) {
            let done = cluster.command("format", &plan.name).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        cluster
    }

    /// The same, without directories.
    pub(crate) fn laid_out(
        config: &str,
        plans: Vec<Plan>,
        data: impl Fn(&str) -> Option<PathBuf>,
    ) -> Self {
        let addresses = addresses(plans.len());
        let mut text = format!("{config}\n[cores]\nidle = \"park\"\n");
        for (index, (plan, address)) in plans.iter().zip(&addresses).enumerate() {
            writeln!(text, "[nodes.{}]\naddress = \"{address}\"", plan.name).unwrap();
            writeln!(text, "roles = {:?}\ncpus = [{}]", plan.roles, index % 2).unwrap();
            if plan.has_data() {
                let path = data(&plan.name).unwrap_or_else(|| format!("data-{}", plan.name).into());
                writeln!(text, "data = {path:?}").unwrap();
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cluster.toml");
        std::fs::write(&config, text).unwrap();
        let running = plans.iter().map(|_| None).collect();
        Self { folder: Some(folder), config, plans, addresses, running, limit: None }
    }

    pub(crate) fn nodes_count(&self) -> usize {
        self.plans.len()
    }

    pub(crate) fn name(&self, node: usize) -> &str {
        &self.plans[node].name
    }

    /// Where the gateways are.
    pub(crate) fn gateways(&self) -> Vec<SocketAddr> {
        let nodes = self.plans.iter().zip(&self.addresses);
        nodes.filter(|(plan, _)| plan.has("gateway")).map(|(_, address)| *address).collect()
    }

    /// Where a node keeps its data, if in the cluster's folder.
    pub(crate) fn data(&self, node: usize) -> PathBuf {
        self.folder().join(format!("data-{}", self.name(node)))
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    /// A command that takes the name of a node.
    pub(crate) fn command(&self, command: &str, name: &str) -> Command {
        self.command_of(&[command], name)
    }

    /// The same, of several words.
    pub(crate) fn command_of(&self, command: &[&str], name: &str) -> Command {
        let mut it = loggos();
        it.args(command).args(["--name", name, "--config"]).arg(&self.config);
        it
    }

    /// A command of a client.
    pub(crate) fn client_command(&self, words: &[&str]) -> Command {
        let mut it = loggos();
        it.args(words).arg("--config").arg(&self.config);
        it
    }

    /// Starts a node, and does not wait for it. What it logs is in the folder.
    pub(crate) fn spawn(&mut self, node: usize) -> Starting {
        let log = self.folder().join(format!("{}.log", self.name(node)));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = self.spawn_to(node, Stdio::piped(), log.into());
        Starting(BufReader::new(child.stdout.take().unwrap()))
    }

    /// What a node has logged so far, if nothing else was made of that.
    pub(crate) fn log(&self, node: usize) -> String {
        let log = self.folder().join(format!("{}.log", self.name(node)));
        std::fs::read_to_string(log).unwrap()
    }

    /// The same, and says what it says elsewhere.
    pub(crate) fn spawn_to(&mut self, node: usize, out: Stdio, log: Stdio) -> &mut Child {
        let mut command = self.command("node", self.name(node));
        if let Some(limit) = self.limit {
            command = limited(limit, &command);
        }
        let child = command.stdout(out).stderr(log).spawn().unwrap();
        let place = &mut self.running[node];
        assert!(place.is_none(), "node {node} is running");
        place.insert(child)
    }

    /// Waits until a node that was started listens.
    pub(crate) fn await_start(&self, node: usize, Starting(mut stdout): Starting) {
        let mut said = String::new();
        stdout.read_line(&mut said).unwrap();
        let (name, log) = (self.name(node), || self.log(node));
        assert!(said.contains("listens on"), "{name} said {said:?}, {:?}", log());
    }

    /// Starts nodes, all at once, and waits until they listen.
    pub(crate) fn start(&mut self, nodes: &[usize]) {
        let starting: Vec<_> = nodes.iter().map(|node| (*node, self.spawn(*node))).collect();
        starting.into_iter().for_each(|(node, starting)| self.await_start(node, starting));
    }

    /// Sends a signal to a node.
    pub(crate) fn signal(&self, node: usize, signal: Signal) {
        let child = self.running[node].as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Kills nodes with no warning, and as much at once as can be.
    pub(crate) fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.running[*node].as_mut().unwrap().kill().unwrap();
        }
        for node in nodes {
            self.running[*node].take().unwrap().wait().unwrap();
        }
    }

    /// Tells a node to stop, and returns its exit code.
    pub(crate) fn stop(&mut self, node: usize) -> Option<i32> {
        let code = stop(self.running[node].as_mut().unwrap());
        self.running[node] = None;
        code
    }

    /// How much memory a node has, in bytes.
    pub(crate) fn memory_bytes(&self, node: usize) -> u64 {
        let child = self.running[node].as_ref().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// What `loggos status --json` says of the whole cluster; null if that is nothing.
    pub(crate) fn status(&self) -> Value {
        let output = self.client_command(&["status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// How a role stands; null if its node does not answer.
    pub(crate) fn role(&self, name: &str) -> Value {
        let status = self.status();
        let mut roles = status["roles"].as_array().into_iter().flatten();
        roles.find(|role| role["role"] == name).cloned().unwrap_or_default()
    }

    /// Waits until all `count` replicas have executed as much, and compares them.
    pub(crate) fn wait_until_equal(&self, count: usize) {
        wait_for("equal replicas", || {
            let status = self.status();
            let Some(replicas) = status["replicas"].as_array() else { return false };
            let executed = |replica: &Value| replica["executed_watermark"].as_u64();
            for replica in replicas {
                assert!(replica["halted"].is_null(), "{replica:#?}");
                let mut same = replicas.iter().filter(|it| executed(it) == executed(replica));
                assert!(same.all(|it| it["state_hash"] == replica["state_hash"]), "{replicas:#?}");
            }
            replicas.len() == count
                && replicas.iter().all(|it| executed(it) == executed(&replicas[0]))
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // How the test came to fail may be seen by how they stand, and by what they have kept.
            println!("{:#}", self.status());
            println!("kept: {:?}", self.folder.take().map(TempDir::keep));
        }
        self.running.iter_mut().flatten().for_each(|child| drop(child.kill())); // it may have ended
        self.running.iter_mut().flatten().for_each(|child| drop(child.wait()));
    }
}
