//! How commands end: with which exit code, and what they have printed by then.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how a test came to fail is said there")]

#[expect(dead_code, reason = "other tests ask for other things")]
mod kept;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use kept::{end_by, loggos, stop, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill()); // it may have ended
        drop(self.0.wait());
    }
}

/// Starts that program with the signals as they are by default, though those who started the tests
/// ignore some: what is ignored is inherited, and a shell cannot take it back.
fn with_default_signals(program: &str) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", program]).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = with_default_signals(env!("CARGO_BIN_EXE_loggos"));
    command.args(["bench", "--unreplicated", "--park", "--clients", "4", "--keys", "100"]);
    command.args(arguments).env("LOGGOS_LOG", "warn");
    command
}

#[test]
fn a_bench_that_is_cut_short_tells_its_figures_and_says_so() {
    let mut command = bench(&["--warmup", "1ms", "--duration", "10min"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let tasks = format!("/proc/{}/task", running.0.id());
    // Its core has a thread of that name.
    wait_for("a core", || {
        let tasks = std::fs::read_dir(&tasks).unwrap().map_while(Result::ok);
        let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.map_while(Result::ok).any(|name| name.starts_with("loggos-0"))
    });
    let code = end_by(&mut running.0, Signal::INT);
    let mut said = [String::new(), String::new()];
    running.0.stdout.take().unwrap().read_to_string(&mut said[0]).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut said[1]).unwrap();
    assert_eq!(code, Some(130), "{said:?}");
    assert!(said[0].starts_with("cluster ") && said[0].contains("throughput "), "{said:?}");
    assert!(said[1].starts_with("loggos: cut short by a signal: "), "{said:?}");
}

#[test]
fn a_bench_that_cannot_write_its_figures_does_not_measure() {
    for file in ["--json", "--report"] {
        let Output { status, stdout, stderr } =
            bench(&["--duration", "10min", file, "/proc/figures"]).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{said}");
        assert!(said.starts_with("loggos: /proc/figures: "), "{said}");
    }
}

#[test]
fn a_role_that_is_not_there_is_named_as_users_name_it() {
    let words = ["bench", "--park", "--duration", "1s", "--kill", "replica 9"];
    // On a busy machine it would also be logged that the first election takes its time.
    let output = loggos().args(words).env("LOGGOS_LOG", "error").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*said), (Some(1), "loggos: the cluster has no replica 9\n"));
}

#[test]
fn a_reader_that_wants_no_more_is_no_error() {
    for words in [&["config", "example"][..], &["bench", "--unreplicated", "--duration", "10ms"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let Output { status, stderr, .. } = loggos().args(words).stdout(writer).output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn the_figures_of_a_bench_go_to_their_file_though_the_reader_of_the_terminal_has_gone() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unread.json");
    drop(std::fs::remove_file(&file)); // there may be one of an earlier run
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bench(&["--warmup", "1ms", "--duration", "10ms"]);
    let run = command.arg("--json").arg(&file).stdout(writer).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    let figures: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(figures["operations"].is_u64(), "{figures}");
}

#[test]
fn a_missing_key_and_a_failed_command_have_codes_of_their_own() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = loggos();
    command.args(["up", "--listen", &address]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut up = Running(command.spawn().unwrap());
    let kv = |words: &[&str]| {
        let output = loggos().arg("kv").args(words).args(["--connect", &address]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    wait_for("a value that is taken", || kv(&["put", "word", "ten"]).0 == 0);
    for level in ["linearizable", "sequential", "eventual"] {
        wait_for("that value", || kv(&["get", "word", "--read", level]) == (0, String::new()));
    }
    assert_eq!(kv(&["get", "word"]), (0, String::new()));
    for (words, why) in [
        (&["get", "other"][..], "`other` has no value"),
        (&["incr", "word"], "the value of `word` is not a number"),
    ] {
        assert_eq!(kv(words), (3, format!("loggos: {why}\n")));
    }
    // As JSON: with where it was executed, and the same codes.
    let json = |words: &[&str]| {
        let output =
            loggos().arg("kv").args(words).args(["--json", "--connect", &address]).output();
        let output = output.unwrap();
        let object = serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
        (output.status.code().unwrap(), object)
    };
    let (code, stored) = json(&["put", "word", "nine"]);
    assert_eq!((code, &stored["key"], stored.get("value")), (0, &"word".into(), None));
    let (code, found) = json(&["get", "word"]);
    assert_eq!((code, &found["value"]), (0, &"nine".into()));
    assert!(found["slot"].as_u64() > stored["slot"].as_u64(), "{stored} {found}");
    let (code, missing) = json(&["get", "other"]);
    assert_eq!((code, &missing["value"]), (3, &serde_json::Value::Null));
    assert_eq!(json(&["incr", "count", "7"]).1["value"], 7);
    assert_eq!(json(&["incr", "word"]).0, 3);
    assert_eq!(kv(&["put", "word", "ten"]).0, 0);
    // A host may be named; and what is too long is told with how long it may be.
    let named = address.replace("127.0.0.1", "localhost");
    let output = loggos().args(["kv", "get", "word", "--connect", &named]).output().unwrap();
    assert_eq!(output.stdout, b"ten\n", "{output:?}");
    let (code, said) = kv(&["put", "long", &"x".repeat(60_000)]);
    let expected = "loggos: the command is too long; it was not executed: 60007 bytes, where 32768 are the most\n";
    assert_eq!((code, said.as_str()), (1, expected));
    for (address, why) in [
        ("localhost", "it must be a host and a port, such as localhost:7401"),
        ("nowhere.invalid:7401", "failed to lookup address information"),
    ] {
        let output = loggos().args(["kv", "get", "word", "--connect", address]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(address) && said.contains(why), "{said}");
    }
    assert_eq!(stop(&mut up.0), Some(0));
    assert_eq!(kv(&["get", "other"]).0, 1, "nobody is there");
    assert_eq!(kv(&["got", "other"]).0, 2, "there is no such command");
}

/// Starts a cluster that ignores those signals, in the words of a shell; waits until it listens.
fn up_ignoring(signals: &str) -> (Running, BufReader<ChildStdout>) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut command = with_default_signals("sh");
    let script = format!("trap '' {signals}; exec \"$0\" up --listen {address} 2>&1");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_loggos")]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut running = Running(child);
    let mut said = BufReader::new(running.0.stdout.take().unwrap());
    says(&mut said, "listens on");
    (running, said)
}

/// Reads on until a line has those words.
fn says(said: &mut BufReader<ChildStdout>, words: &str) {
    let mut lines = said.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains(words)), "it ended and did not say: {words}");
}

/// The signals that a process ignores, as the kernel has them.
fn ignored(running: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn sighup_stops_no_node() {
    let (mut up, mut said) = up_ignoring("USR2");
    let process = Pid::from_child(&up.0);
    kill_process(process, Signal::HUP).unwrap();
    says(&mut said, "SIGHUP changes nothing: SIGTERM stops a node");
    kill_process(process, Signal::HUP).unwrap();
    says(&mut said, "SIGHUP changes nothing");
    assert_eq!(stop(&mut up.0), Some(0));
    says(&mut said, "stops: SIGTERM has told it to");
}

#[test]
fn signals_that_a_process_was_started_to_ignore_stay_ignored() {
    let bit = |signal: Signal| 1 << (signal.as_raw() - 1);
    for signals in [&[Signal::HUP][..], &[Signal::INT], &[Signal::HUP, Signal::INT]] {
        let names: Vec<String> = signals.iter().map(|it| it.as_raw().to_string()).collect();
        let (mut up, _said) = up_ignoring(&names.join(" "));
        for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
            let is_ignored = ignored(&up) & bit(signal) != 0;
            assert_eq!(is_ignored, signals.contains(&signal), "{signal:?} of {signals:?}");
        }
        assert_eq!(stop(&mut up.0), Some(0));
    }
}

#[test]
fn sighup_cuts_a_bench_short() {
    let mut command = bench(&["--warmup", "1ms", "--duration", "10min"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut running = Running(child);
    let caught = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().to_owned();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0
    };
    wait_for("a handler", caught);
    assert_eq!(end_by(&mut running.0, Signal::HUP), Some(130));
}
