//! What a process says, and where nobody can take it: a standard output or a log that is full,
//! gone, or stalled stops no node and slows none (R35). And what it says where it can be read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::fs::File;
use std::io::{PipeReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use kept::{Cluster, Plan, loggos, stop, wait_for};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::fcntl_setpipe_size;
use tempfile::TempDir;

const NODES: [usize; 3] = [0, 1, 2];

/// A place for what a process says.
#[derive(Clone, Copy, Debug)]
enum Sink {
    /// No room is left.
    Full,
    /// A pipe whose reader has ended.
    Gone,
    /// A pipe whose reader does not read, and that takes no more.
    Stalled,
    /// The same, of which a write does not wait.
    NonBlocking,
}

/// What keeps a pipe open.
type Kept = Option<PipeReader>;

impl Sink {
    const ALL: [Self; 4] = [Self::Full, Self::Gone, Self::Stalled, Self::NonBlocking];

    fn open(self) -> (Stdio, Kept) {
        if matches!(self, Self::Full) {
            return (File::options().write(true).open("/dev/full").unwrap().into(), None);
        }
        let (reader, mut writer) = std::io::pipe().unwrap();
        if matches!(self, Self::Gone) {
            return (writer.into(), None);
        }
        let bytes = fcntl_setpipe_size(&writer, 4096).unwrap();
        writer.write_all(&vec![b'.'; bytes]).unwrap();
        if matches!(self, Self::NonBlocking) {
            let flags = fcntl_getfl(&writer).unwrap();
            fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
        }
        (writer.into(), Some(reader))
    }
}

fn three_nodes() -> Cluster {
    let kinds = ["gateway", "proposer", "acceptor", "replica"];
    let roles = |id: usize| kinds.map(|kind| format!("{kind} {id}"));
    let plans = NODES.map(|id| Plan::new(format!("node-{id}"), &roles(id)));
    let config = "[cluster]\nname = \"heard\"\ndurability = \"sync\"\nquorums = \"majority\"\nproposers = 3\n\
                  proxy_leaders = 0\ngateways = 3\n[limits]\nlog_segment_bytes = \"1MiB\"";
    Cluster::new(config, plans.to_vec(), |_| None)
}

fn kv(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster.client_command(&["kv"]).args(arguments).output().unwrap()
}

/// Waits until the cluster takes a value, and returns it.
fn put_and_get(cluster: &Cluster, value: &str) {
    wait_for("a value that is taken", || kv(cluster, &["put", "key", value]).status.success());
    let got = kv(cluster, &["get", "key"]);
    assert_eq!(String::from_utf8(got.stdout).unwrap().trim(), value, "the value that it took");
}

/// The warning that one node is gone is what the others cannot write.
#[test]
fn r35_a_log_that_is_full_gone_or_stalled_stops_no_node() {
    for sink in Sink::ALL {
        println!("{sink:?}");
        let mut cluster = three_nodes();
        let mut kept = Vec::new();
        let mut start = |cluster: &mut Cluster, node: usize| {
            let ((out, a), (log, b)) = (sink.open(), sink.open());
            cluster.spawn_to(node, out, log);
            kept.extend([a, b]);
        };
        NODES.iter().for_each(|node| start(&mut cluster, *node));
        put_and_get(&cluster, "all");
        for node in NODES {
            cluster.kill(&[node]);
            put_and_get(&cluster, &format!("without {node}"));
            start(&mut cluster, node);
            cluster.wait_until_equal(NODES.len());
        }
        // What was written for no one to read has ended none of them.
        assert_eq!(NODES.map(|node| cluster.stop(node)), [Some(0); 3], "{sink:?}");
    }
}

/// Runs a command whose log goes to a sink.
fn run_into(sink: Sink, command: &mut Command) -> Output {
    let (log, kept) = sink.open();
    let output = command.stderr(log).output().unwrap();
    drop(kept);
    output
}

#[test]
fn a_command_that_cannot_say_why_it_fails_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    for sink in Sink::ALL {
        for words in
            [&["config", "check"][..], &["status", "--config"], &["kv", "get", "a", "--config"]]
        {
            let output = run_into(sink, loggos().args(words).arg(&missing));
            assert_eq!(output.status.code(), Some(1), "{sink:?} {words:?}");
        }
        let output = run_into(sink, loggos().env("LOGGOS_LOG", "wran").args(["config", "example"]));
        assert_eq!(output.status.code(), Some(2), "{sink:?}");
    }
}

/// A process of a cluster in memory, which logs to a file. It ends with the test.
struct Up {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Up {
    /// Starts it under a limit, as `ulimit` has them, and waits until it serves.
    fn start(folder: &TempDir, limit: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = folder.path().join("log");
        let line = format!("ulimit {limit}; exec \"$0\" up --listen {address}");
        let mut command = Command::new("sh");
        command.args(["-c", &line, env!("CARGO_BIN_EXE_loggos")]);
        command.env_remove("LOGGOS_LOG").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let up = Self { child: command.spawn().unwrap(), address, log };
        wait_for("a value that is taken", || up.client(&["kv", "put", "a", "1"]).status.success());
        up
    }

    fn client(&self, words: &[&str]) -> Output {
        loggos().args(words).args(["--connect", &self.address]).output().unwrap()
    }

    /// Tells it to stop; returns its exit code and what it has logged.
    fn stop(mut self) -> (Option<i32>, String) {
        (stop(&mut self.child), std::fs::read_to_string(&self.log).unwrap())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended
        drop(self.child.wait());
    }
}

/// The kernel ends a process with a signal that writes beyond that limit, unless it is told not to.
#[test]
fn r35_a_log_at_the_limit_of_file_sizes_stops_no_node() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, "-f 0");
    assert_eq!(up.stop(), (Some(0), String::new()));
}

#[test]
fn a_log_tells_start_service_and_stop_with_the_names_that_status_has() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, "-f unlimited");
    let status = up.client(&["status", "--json"]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let (leader, process) = (status["leaders"][0].as_str().unwrap(), up.child.id());
    let is_leader = |role: &&serde_json::Value| role["role"] == leader;
    let leads = status["roles"].as_array().unwrap().iter().find(is_leader).unwrap();
    let leads = format!("{leader}: leads in {}, ", leads["ballot"].as_str().unwrap());
    let (code, log) = up.stop();
    assert_eq!(code, Some(0), "{log}");
    let version = env!("CARGO_PKG_VERSION");
    let lines = [
        &format!("node up of cluster loggos starts: loggos {version}, process {process}"),
        ": the cluster has formed: ",
        &leads,
        "gateway 0: serves: session ",
        "node up stops: SIGTERM has told it to",
        "node up has stopped",
    ];
    let mut rest = &log[..];
    for line in lines {
        let at = rest.find(line).unwrap_or_else(|| panic!("`{line}` is not in its place in {log}"));
        rest = &rest[at..];
    }
    assert!(!log.contains('\x1b'), "colours are for terminals: {log}");
}
