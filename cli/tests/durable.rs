//! Three real nodes with data directories: what was acknowledged is there after all of them were
//! killed at once, and a node whose directory is not what it should be says so and does not serve.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three nodes, each with a folder to keep its data in. Those that run end with the test.
struct Cluster {
    folder: tempfile::TempDir,
    config: PathBuf,
    running: Vec<Child>,
}

fn loggos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggos"));
    command.env("LOGGOS_LOG", "error").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

impl Cluster {
    fn new() -> Self {
        let held = NAMES.map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = held.map(|port| port.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("cluster.toml");
        std::fs::write(&config, text("durable", &addresses)).unwrap();
        Self { folder, config, running: Vec::new() }
    }

    /// Runs a command that takes the name of a node.
    fn run(&self, command: &str, name: &str) -> Output {
        loggos().args([command, "--name", name, "--config"]).arg(&self.config).output().unwrap()
    }

    fn format(&self) {
        for name in NAMES {
            let output = self.run("format", name);
            assert!(output.status.success(), "{output:?}");
        }
    }

    /// Starts all nodes, and waits until each listens.
    fn start(&mut self) {
        self.start_by(|_| loggos());
    }

    fn start_by(&mut self, command: impl Fn(&str) -> Command) {
        for name in NAMES {
            let mut child = command(name)
                .args(["node", "--name", name, "--config"])
                .arg(&self.config)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut said = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
            self.running.push(child);
            assert!(said.contains("listens on"), "node {name} said {said:?}");
        }
    }

    fn kill(&mut self) {
        self.running.iter_mut().for_each(|child| child.kill().unwrap());
        self.running
            .drain(..)
            .for_each(|mut child| assert!(child.wait().is_ok(), "it cannot be waited for"));
    }

    fn kv(&self, arguments: &[&str]) -> String {
        let output = loggos().args(["kv", "--config"]).arg(&self.config).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How an acceptor stands.
    fn acceptor(&self, id: usize) -> Value {
        let output = loggos().args(["status", "--json", "--config"]).arg(&self.config).output();
        let status: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        let mut roles = status["roles"].as_array().unwrap().iter();
        let name = format!("acceptor {id}");
        roles.find(|role| role["role"] == name).cloned().unwrap_or_default()
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("data-{name}"))
    }

    /// What a node says that does not serve.
    fn refusal(&self, name: &str) -> String {
        let output = self.run("node", name);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty(), "it listens");
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.running.iter_mut().for_each(|child| drop(child.kill())); // it may have ended
        self.running.iter_mut().for_each(|child| drop(child.wait()));
    }
}

fn text(cluster: &str, addresses: &[SocketAddr]) -> String {
    let mut text = format!(
        "[cluster]\nname = \"{cluster}\"\nquorums = \"majority\"\ngateways = 1\nproposers = 3\n\
         [limits]\nlog_segment_bytes = \"1MiB\"\nlog_bytes_max = \"16MiB\"\n\
         [timing]\ndeadline = \"30s\"\n[cores]\nidle = \"park\"\n"
    );
    for (id, (name, address)) in NAMES.iter().zip(addresses).enumerate() {
        let gateway = if id == 0 { "\"gateway 0\", " } else { "" };
        let proxy_leader = if id < 2 { format!("\"proxy leader {id}\", ") } else { String::new() };
        let roles = format!(
            "{gateway}{proxy_leader}\"proposer {id}\", \"acceptor {id}\", \"replica {id}\""
        );
        writeln!(text, "[nodes.{name}]\naddress = \"{address}\"\nroles = [{roles}]\ncpus = [0]")
            .unwrap();
        writeln!(text, "data = \"data-{name}\"").unwrap();
    }
    text
}

#[test]
fn r31_what_was_acknowledged_is_there_after_all_nodes_were_killed() {
    let mut cluster = Cluster::new();
    cluster.format();
    for life in 0..3 {
        cluster.start();
        for key in 0..life * 5 {
            let found = cluster.kv(&["get", &format!("key-{key}")]);
            assert_eq!(found, format!("value-{key}\n"), "in life {life}");
        }
        for key in life * 5..(life + 1) * 5 {
            cluster.kv(&["put", &format!("key-{key}"), &format!("value-{key}")]);
        }
        cluster.kill();
    }
}

#[test]
fn r04_a_node_serves_from_no_directory_but_its_own() {
    let mut cluster = Cluster::new();
    let said = |said: String, words: &[&str]| {
        assert!(words.iter().all(|word| said.contains(word)), "{words:?} in {said}");
    };
    said(cluster.refusal("a"), &["no data directory", "data-a", "loggos format"]);
    std::fs::create_dir(cluster.data("a")).unwrap();
    said(cluster.refusal("a"), &["empty", "data-a"]);
    cluster.format();
    let again = cluster.run("format", "a");
    assert_eq!(again.status.code(), Some(1));
    said(String::from_utf8(again.stderr).unwrap(), &["not empty", "data-a"]);
    cluster.start();
    said(cluster.refusal("a"), &["another process uses", "data-a"]);
    cluster.kill();
    swap(&cluster.data("a"), &cluster.data("b"));
    said(cluster.refusal("a"), &["belongs to another", "node: expected a, found b"]);
    swap(&cluster.data("a"), &cluster.data("b"));
    let log = cluster.data("c").join("core-0");
    for file in log.read_dir().unwrap() {
        std::fs::write(file.unwrap().path(), vec![0; 1 << 20]).unwrap();
    }
    said(cluster.refusal("c"), &["hold no segment", "core-0"]);
    std::fs::remove_file(cluster.data("c").join("node")).unwrap();
    said(cluster.refusal("c"), &["is missing", "node"]);
}

fn swap(a: &Path, b: &Path) {
    let other = a.with_extension("other");
    std::fs::rename(a, &other).unwrap();
    std::fs::rename(b, a).unwrap();
    std::fs::rename(&other, b).unwrap();
}

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn r34_an_acceptor_whose_log_fails_stops_saying_so_and_the_other_roles_go_on() {
    let mut cluster = Cluster::new();
    cluster.format();
    // What writes beyond a limit gets an error then, and is not killed.
    cluster.start_by(|_| {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_loggos")]);
        command.env("LOGGOS_LOG", "off").stdin(Stdio::null());
        command
    });
    cluster.kv(&["put", "before", "all"]);
    // The reserve has been made: no file is written but the log.
    let reserve = cluster.data("a").join("core-0").join("log.00002");
    let started = Instant::now();
    while reserve.metadata().map_or(0, |file| file.len()) < 1 << 20 {
        assert!(started.elapsed() < DEADLINE, "no reserve is made");
        std::thread::sleep(Duration::from_millis(5));
    }
    let limit = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
    prlimit(Some(Pid::from_child(&cluster.running[0])), Resource::Fsize, limit).unwrap();
    let value = "x".repeat(16_000);
    let stopped = (0..40).position(|round| {
        cluster.kv(&["put", &format!("key-{round}"), &value]);
        cluster.acceptor(0)["state"] == "stopped"
    });
    assert!(stopped.is_some(), "{}", cluster.acceptor(0));
    let why = cluster.acceptor(0)["why"].to_string();
    assert!(why.contains("a write to the log failed"), "{why}");
    for id in [1, 2] {
        assert_eq!(cluster.acceptor(id)["state"], "up");
    }
    // Its node's gateway and replica are at work, and so is the cluster, on the other two.
    cluster.kv(&["put", "after", "all"]);
    assert_eq!(cluster.kv(&["get", "after"]), "all\n");
}
