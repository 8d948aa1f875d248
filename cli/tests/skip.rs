//! A command at which every replica's machine panics: what callers and `loggos status` say, and the
//! way out, `loggos skip` (R38). The nodes are processes of this very test, which run a machine of
//! their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kept::{Cluster, three_nodes, wait_for};
use loggos::{
    At, CallError, Config, Halt, MalformedSnapshot, Node, RemoteCluster, RemoteOptions, Reply,
    StateMachine,
};
use serde_json::Value;

/// In the environment of a process that is to be a node: its number, and the configuration.
const NODE: &str = "LOGGOS_TEST_NODE";
const CONFIG: &str = "LOGGOS_TEST_CONFIG";

/// Counts its commands, and panics at some: but not before it has changed something.
#[derive(Debug, Default)]
struct Fragile {
    count: u64,
    frozen: Option<u64>,
}

impl StateMachine for Fragile {
    fn apply(&mut self, _: At, command: &[u8], reply: &mut Reply<'_>) {
        self.count += 1;
        assert!(!command.starts_with(b"bad"), "no account {}", String::from_utf8_lossy(command));
        reply.put(&self.count.to_le_bytes());
    }

    fn state_hash(&self) -> u64 {
        self.count
    }

    fn freeze(&mut self) -> bool {
        self.frozen = Some(self.count);
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        part.extend(self.frozen.take().unwrap().to_le_bytes());
        false
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        self.count = u64::from_le_bytes(part.try_into().map_err(|_| MalformedSnapshot)?);
        Ok(())
    }
}

/// A node, if this process is started as one; it ends with its standard input.
#[test]
fn node_process() {
    let (Ok(node), Ok(config)) = (std::env::var(NODE), std::env::var(CONFIG)) else { return };
    let config = Config::load(config).unwrap();
    let node = Node::start(&config, node.parse().unwrap(), |_| Fragile::default()).unwrap();
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
    node.stop().unwrap();
}

/// Three nodes with all roles each, and the processes that run them.
struct Nodes {
    cluster: Cluster,
    running: Vec<Option<Child>>,
}

impl Nodes {
    fn start() -> Self {
        let config = "[cluster]\nname = \"skip\"\nquorums = \"majority\"\nproposers = 3\n\
                      proxy_leaders = 0\ngateways = 3";
        let cluster = Cluster::new(config, three_nodes(), |_| None);
        let mut nodes = Self { cluster, running: vec![None, None, None] };
        (0..3).for_each(|node| nodes.start_one(node));
        nodes
    }

    fn start_one(&mut self, node: usize) {
        let log = self.cluster.data(node).with_extension("said");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "node_process", "--nocapture"]).env(NODE, node.to_string());
        command.env(CONFIG, self.cluster.config()).env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running[node] = Some(command.spawn().unwrap());
    }

    /// Kills a node with no warning.
    fn kill(&mut self, node: usize) {
        let mut child = self.running[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn client(&self) -> RemoteCluster {
        let options = RemoteOptions::new(self.cluster.gateways());
        RemoteCluster::connect(RemoteOptions { deadline: Duration::from_secs(60), ..options })
            .unwrap()
    }

    /// The commands at which replicas have halted, as `status` tells them.
    fn halted_at(&self) -> Vec<Value> {
        let status = self.cluster.status();
        let roles = status["roles"].as_array().into_iter().flatten();
        roles.map(|role| role["halted_at"].clone()).filter(|at| !at.is_null()).collect()
    }

    /// What `loggos skip` says of such a command, and its exit code.
    fn skip(&self, at: &Value) -> (Option<i32>, String) {
        let (slot, index) = (at["slot"].to_string(), at["index"].to_string());
        let checksum = at["checksum"].as_str().unwrap();
        let words = ["skip", "--slot", &slot, "--index", &index, "--checksum", checksum];
        let output = self.cluster.client_command(&words).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{:#}", self.cluster.status());
        }
        self.running.iter_mut().flatten().for_each(|child| drop(child.kill()));
        self.running.iter_mut().flatten().for_each(|child| drop(child.wait()));
    }
}

/// The number of commands that were executed, the one that asks included.
fn count(remote: &RemoteCluster) -> u64 {
    let executed = remote.client().execute_blocking(b"good").unwrap();
    u64::from_le_bytes(executed.reply.as_slice().try_into().unwrap())
}

#[test]
fn r38_a_command_that_halts_all_replicas_is_skipped() {
    let mut nodes = Nodes::start();
    let remote = nodes.client();
    (1..=20).for_each(|number| assert_eq!(count(&remote), number));

    // Callers are told, of this command and of others; so is who asks for the status.
    for command in [b"bad 7".as_slice(), b"good"] {
        let told = remote.client().execute_blocking(command);
        let Err(CallError::Halted(why)) = &told else { panic!("{told:?}") };
        let Halt::Panicked { message, .. } = &**why else { panic!("{why:?}") };
        assert_eq!(message, "no account bad 7");
    }
    wait_for("three halts", || nodes.halted_at().len() == 3);
    let at = nodes.halted_at()[0].clone();
    let output = nodes.cluster.client_command(&["status"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.starts_with("not serving: ") && said.contains("no account bad 7"), "{said}");

    // After a restart of all it is the same.
    (0..3).for_each(|node| nodes.kill(node));
    (0..3).for_each(|node| nodes.start_one(node));
    wait_for("three halts again", || nodes.halted_at() == vec![at.clone(); 3]);

    // Nothing is skipped that a replica may have executed.
    nodes.kill(1);
    let (code, said) = nodes.skip(&at);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Its replica may have executed the command: start that node"), "{said}");
    nodes.start_one(1);
    wait_for("three halts once more", || nodes.halted_at().len() == 3);

    // A good command is not skipped, and the bad one is.
    let mut other = at.clone();
    other["slot"] = (at["slot"].as_u64().unwrap() - 1).into();
    let (code, said) = nodes.skip(&other);
    assert!(code == Some(1) && said.contains("has halted elsewhere"), "{said}");
    let (code, said) = nodes.skip(&at);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("skipped command "), "{said}");

    // All goes on: the command has changed nothing, and the one behind it may have been executed.
    let counted = count(&remote);
    assert!((21..=22).contains(&counted), "{counted}");
    nodes.cluster.wait_until_equal(3);
    (0..3).for_each(|node| nodes.kill(node));
    (0..3).for_each(|node| nodes.start_one(node));
    let remote = nodes.client(); // what the former has sent to a node that was killed is unknown
    assert_eq!(count(&remote), counted + 1, "on replay, too");
    nodes.cluster.wait_until_equal(3);
    assert_eq!(nodes.halted_at(), [] as [Value; 0]);
    let (code, said) = nodes.skip(&at);
    assert!(code == Some(1) && said.contains("no replica has halted"), "{said}");
}
