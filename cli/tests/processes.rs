//! Clusters of real processes that lose one, or have one stopped, under load from both gateways: commands
//! go on, nothing acknowledged is lost or executed twice, each caller's commands stay in order, and replicas
//! are equal in the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a fault was felt is reported, not asserted")]

mod harness;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::{DEADLINE, Nodes, wait_for};
use loggos::kv::{Answer, Command};
use loggos::{CallError, RemoteCluster, RemoteOptions};
use rustix::process::Signal;
use serde_json::Value;

/// Callers at each gateway.
const CALLERS: usize = 2;
/// What a stopped process sleeps: three election timeouts, on defaults.
const STOP: Duration = Duration::from_millis(900);

/// What one caller has counted.
#[derive(Default)]
struct Counted {
    acknowledged: AtomicU64,
    /// Increments that may have been executed, or not.
    unknown: AtomicU64,
}

/// Adds one to a counter of its own, over and over. Every answer must be one more than the last, but for what
/// was lost with a gateway: that may have counted, or not.
fn count(cluster: &RemoteCluster, caller: &str, counted: &Counted, is_over: &AtomicBool) {
    let key = format!("counter {caller}").into_bytes();
    let mut command = Vec::new();
    Command::Increment { key: &key, by: 1 }.encode(&mut command).unwrap();
    let client = cluster.client();
    let (mut last, mut unknown) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        match client.execute_blocking(&command) {
            Ok(executed) => {
                let answer = Answer::decode(executed.reply.as_slice()).unwrap();
                let Answer::Number(number) = answer else { panic!("{answer:?}") };
                let allowed = last + 1..=last + 1 + unknown;
                assert!(allowed.contains(&number), "{caller}: {number} is not in {allowed:?}");
                (last, unknown) = (number, 0);
                counted.acknowledged.fetch_add(1, Ordering::Release);
            }
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => {
                unknown += 1;
                counted.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Err(CallError::Busy) => {} // never sent: no gateway was there to take it
            Err(error) => panic!("{caller}: {error}"),
        }
    }
}

/// Runs a load at both gateways, lets `fault` strike in the middle of it, and waits until the callers that
/// can have got on well after that. `lost` names the gateway whose callers cannot, if there is one. A node that
/// `fault` has stopped, and returns, goes on after [`STOP`].
fn under_load(name: &str, fault: impl FnOnce(&mut Nodes) -> Option<String>, lost: Option<usize>) {
    let mut nodes = Nodes::start();
    let gateways = [nodes.address("gateway-0"), nodes.address("gateway-1")];
    let clusters = gateways.map(|address| {
        let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![address]) };
        RemoteCluster::connect(options).unwrap()
    });
    let counted: Vec<Counted> = (0..2 * CALLERS).map(|_| Counted::default()).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (index, counted) in counted.iter().enumerate() {
            let (cluster, is_over) = (&clusters[index / CALLERS], &is_over);
            let caller = format!("{} of gateway {}", index % CALLERS, index / CALLERS);
            scope.spawn(move || count(cluster, &caller, counted, is_over));
        }
        let alive = || counted.iter().enumerate().filter(|(i, _)| Some(i / CALLERS) != lost);
        let reach = |least: &dyn Fn(usize) -> u64| {
            alive().all(|(i, c)| c.acknowledged.load(Ordering::Acquire) >= least(i))
        };
        wait_for("the first commands", || reach(&|_| 20));
        let stopped = fault(&mut nodes);
        let struck = Instant::now();
        let now: Vec<u64> =
            counted.iter().map(|c| c.acknowledged.load(Ordering::Acquire)).collect();
        // What was answered before the fault may be counted after it: the second is surely a new one.
        wait_for("the next command", || reach(&|i| now[i] + 2));
        println!(
            "{name}: every caller had its next answers {:?} after the fault",
            struck.elapsed()
        );
        if let Some(stopped) = stopped {
            std::thread::sleep(STOP.saturating_sub(struck.elapsed())); // how long it sleeps is the fault
            nodes.signal(&stopped, Signal::CONT);
        }
        wait_for("many more commands", || reach(&|i| now[i] + 100));
        is_over.store(true, Ordering::Relaxed);
        if let Some(lost) = lost {
            // Its callers wait for a gateway that is gone: it comes back, so that they can end.
            nodes.restart(&format!("gateway-{lost}"));
        }
    });
    check_counters(&clusters[usize::from(lost == Some(0))], &counted);
    nodes.wait_until_equal();
}

/// Reads the counters back: what was acknowledged counted once, what is unknown at most once.
fn check_counters(cluster: &RemoteCluster, counted: &[Counted]) {
    for (index, counted) in counted.iter().enumerate() {
        let key = format!("counter {} of gateway {}", index % CALLERS, index / CALLERS);
        let mut command = Vec::new();
        Command::Get { key: key.as_bytes() }.encode(&mut command).unwrap();
        let executed = cluster.client().execute_blocking(&command).unwrap();
        let answer = Answer::decode(executed.reply.as_slice()).unwrap();
        let Answer::Value(value) = answer else { panic!("{key}: {answer:?}") };
        let value: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
        let acknowledged = counted.acknowledged.load(Ordering::Relaxed);
        let most = acknowledged + counted.unknown.load(Ordering::Relaxed);
        assert!((acknowledged..=most).contains(&value), "{key}: {value}, {acknowledged} to {most}");
    }
}

fn leader(nodes: &Nodes) -> String {
    let mut leader = None;
    wait_for("a leader", || {
        leader = ["proposer-0", "proposer-1"].into_iter().find(|name| {
            let status: Option<Value> = nodes.status(name);
            status.is_some_and(|status| !status["leader"].is_null())
        });
        leader.is_some()
    });
    leader.unwrap().to_owned()
}

fn kill(name: &'static str) {
    let fault = |nodes: &mut Nodes| {
        nodes.kill(name);
        None
    };
    under_load(&format!("kill -9 of {name}"), fault, None);
}

fn stop(name: &'static str) {
    let fault = |nodes: &mut Nodes| {
        nodes.signal(name, Signal::STOP);
        Some(name.to_owned())
    };
    under_load(&format!("stop of {name}"), fault, None);
}

#[test]
fn kill_of_the_leader() {
    let fault = |nodes: &mut Nodes| {
        let leader = leader(nodes);
        nodes.kill(&leader);
        None
    };
    under_load("kill -9 of the leader", fault, None);
}

#[test]
fn kill_of_an_acceptor() {
    kill("acceptor-1");
}

#[test]
fn kill_of_a_proxy_leader() {
    kill("proxy-leader-0");
}

#[test]
fn kill_of_a_replica() {
    kill("replica-1");
}

#[test]
fn kill_of_a_gateway() {
    let fault = |nodes: &mut Nodes| {
        nodes.kill("gateway-1");
        None
    };
    under_load("kill -9 of a gateway", fault, Some(1));
}

#[test]
fn stop_of_the_leader() {
    let fault = |nodes: &mut Nodes| {
        let leader = leader(nodes);
        nodes.signal(&leader, Signal::STOP);
        Some(leader)
    };
    under_load("stop of the leader", fault, None);
}

#[test]
fn stop_of_an_acceptor() {
    stop("acceptor-2");
}

#[test]
fn stop_of_a_replica() {
    stop("replica-0");
}
