//! What real processes say when they cannot do what they are asked to: once, with what is wrong,
//! and where it is a command that was asked, with exit code 1.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The roles of the default cluster, in two nodes that both call each other.
const ROLES: [(&str, &str); 2] = [
    (
        "front",
        r#""gateway 0", "proposer 0", "proxy leader 0", "acceptor 0", "acceptor 1", "replica 0""#,
    ),
    (
        "back",
        r#""proposer 1", "proxy leader 1", "acceptor 2", "acceptor 3", "replica 1", "replica 2""#,
    ),
];

/// What anything that must happen may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "{what} did not happen in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn loggos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loggos"));
    command.env("LOGGOS_LOG", "warn").env("NO_COLOR", "1");
    command
}

/// Ports that were free a moment ago, each another one.
fn ports<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|port| port.local_addr().unwrap())
}

/// A configuration in `folder` of two nodes.
fn two_nodes(folder: &Path, file: &str, cluster: &str, addresses: [SocketAddr; 2]) -> PathBuf {
    let mut text =
        format!("[cluster]\ndurability = \"memory\"\n{cluster}\n[cores]\nidle = \"park\"\n");
    for ((name, roles), address) in ROLES.iter().zip(addresses) {
        writeln!(text, "[nodes.{name}]\naddress = \"{address}\"\nroles = [{roles}]\ncpus = [0]")
            .unwrap();
    }
    written(folder, file, &text)
}

fn written(folder: &Path, file: &str, text: &str) -> PathBuf {
    let path = folder.join(file);
    std::fs::write(&path, text).unwrap();
    path
}

/// A node that runs, and what it has said on standard error. It ends with the test.
struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts a node, and waits until it listens.
    fn start(config: &Path, name: &str) -> Self {
        let mut child = loggos()
            .args(["node", "--name", name, "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = child.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(errors).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line))); // the test may be over
        });
        let mut listens = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut listens).unwrap();
        let running = Self { child, lines, said: Vec::new() };
        assert!(listens.contains("listens on"), "node {name} said {listens:?}");
        running
    }

    /// How many lines on standard error have had all of `words` so far.
    fn said(&mut self, words: &[&str]) -> usize {
        self.said.extend(self.lines.try_iter());
        let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
        self.said.iter().filter(has_all).count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended
        drop(self.child.wait());
    }
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// What a command that fails with exit code 1 says.
fn failure(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

fn refused(address: SocketAddr) -> u64 {
    let status = loggos::remote_status(address, DEADLINE).unwrap();
    let status: Value = serde_json::from_slice(&status).unwrap();
    let cores = status["cores"].as_array().unwrap();
    cores.iter().map(|core| core["sockets"]["connections_refused"].as_u64().unwrap()).sum()
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let [other] = ports();
    let config = two_nodes(folder.path(), "a.toml", "", [address, other]);
    let said = failure(loggos().args(["node", "--name", "front", "--config"]).arg(config));
    assert!(said.contains("front") && said.contains(&address.to_string()), "{said}");
    assert!(said.contains("in use"), "{said}");
    let said = failure(loggos().args(["up", "--listen", &address.to_string()]));
    assert!(said.contains(&address.to_string()) && said.contains("in use"), "{said}");
}

#[test]
fn a_node_that_is_not_there_is_told_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = two_nodes(folder.path(), "a.toml", "", ports());
    let said = failure(loggos().args(["node", "--name", "frond", "--config"]).arg(&config));
    assert!(said.contains("`frond`") && said.contains("front"), "{said}");
    let said = failure(loggos().args(["node", "--name", "elsewhere", "--config"]).arg(&config));
    assert!(said.contains("front") && said.contains("back"), "{said}");
}

#[test]
fn nodes_with_different_configurations_say_so_once() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ports();
    let one = two_nodes(folder.path(), "one.toml", "name = \"same\"", addresses);
    let limits = "name = \"same\"\nreplicas = 3\n[limits]\nslot_window = 512";
    let other = two_nodes(folder.path(), "other.toml", limits, addresses);
    let mut front = Running::start(&one, "front");
    let mut back = Running::start(&other, "back");
    let put = || failure(loggos().args(["kv", "--config"]).arg(&one).args(["put", "a", "1"]));
    assert!(put().contains("loggos: "), "a command of a cluster that is none says so");
    // Each has called often enough to wait as long as it ever does between two attempts, and then
    // again.
    wait_for("many attempts", || addresses.iter().all(|address| refused(*address) >= 9));
    let why = ["cannot be reached", "it refuses us", "configurations differ"];
    wait_for("the front's word", || front.said(&why) > 0);
    wait_for("the back's word", || back.said(&why) > 0);
    for (node, other) in [(&mut front, "back"), (&mut back, "front")] {
        assert_eq!(node.said(&why), 1, "{:#?}", node.said);
        assert_eq!(node.said(&[other]), 1, "{:#?}", node.said);
    }
}

#[test]
fn a_peer_that_cannot_be_reached_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ports();
    let config = two_nodes(folder.path(), "a.toml", "", addresses);
    let mut back = Running::start(&config, "back");
    let why = ["cannot be reached", "front"];
    wait_for("a word", || back.said(&why) > 0);
    // One that it reaches counts its attempts: as many more go by without another word.
    let listener = TcpListener::bind(addresses[0]).unwrap();
    for _ in 0..4 {
        drop(listener.accept().unwrap());
    }
    assert_eq!(back.said(&why), 1, "{:#?}", back.said);
    drop(listener);
    // And once it is there, it is reached.
    let _front = Running::start(&config, "front");
    let put = run(loggos().args(["kv", "put", "a", "1", "--config"]).arg(&config));
    assert!(put.status.success(), "{put:?}");
    assert_eq!(back.said(&why), 1, "{:#?}", back.said);
}

#[test]
fn a_command_to_a_dead_address_fails_within_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(two_nodes(folder.path(), "a.toml", "", ports())).unwrap();
    let config =
        written(folder.path(), "b.toml", &format!("{text}\n[timing]\ndeadline = \"300ms\"\n"));
    let started = Instant::now();
    let said = failure(loggos().args(["kv", "--config"]).arg(&config).args(["get", "a"]));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}: it has not tried");
    assert!(took < Duration::from_secs(5), "{took:?} is the default deadline, or worse");
    assert!(said.contains("no gateway could be reached; the command was not executed"), "{said}");
    assert!(said.contains("node front at ") && said.contains(": connection refused"), "{said}");
    let told = |word| said.lines().filter(|line| line.contains(word)).count();
    assert_eq!((told("cannot be reached"), told("loggos: ")), (1, 1), "{said}");
    let status = run(loggos().args(["status", "--config"]).arg(&config));
    let said = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(5), "{said}");
    assert!(said.starts_with("not serving: too few are left of: "), "{said}");
    assert!(said.contains("; node back at ") && said.contains("; node front at "), "{said}");
}

#[test]
fn garbage_to_a_node_leaves_commands_working() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = ports();
    let config = two_nodes(folder.path(), "a.toml", "", addresses);
    let mut nodes = [Running::start(&config, "front"), Running::start(&config, "back")];
    let kv = |arguments: &[&str]| {
        let output = run(loggos().args(["kv", "--config"]).arg(&config).args(arguments));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(kv(&["incr", "n"]), "1\n");
    for (round, address) in (2..).zip(addresses.iter().cycle().take(6)) {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xFF; 100], &[0; 70_000], b""] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            drop(stream.write_all(garbage)); // it may be closed by then
            if !garbage.is_empty() {
                match stream.read(&mut [0; 1]) {
                    Ok(count) => assert_eq!(count, 0, "garbage is answered"),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
                }
            }
        }
        assert_eq!(kv(&["incr", "n"]), format!("{round}\n"));
    }
    for node in &mut nodes {
        assert!(node.child.try_wait().unwrap().is_none(), "a node has ended");
        assert_eq!(node.said(&[]), 0, "{:#?}", node.said);
    }
}
