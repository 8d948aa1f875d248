//! What callers of the library see: calls as tasks, calls that do not wait, and when a cluster is
//! ready.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod harness;

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use harness::{DEADLINE, Nodes, Spread, increment};
use loggos::kv::{Answer, Kv};
use loggos::{
    CallError, Config, CoreStatus, GatewayId, LocalCluster, NotReady, RemoteCluster, RemoteOptions,
    RoleId,
};

/// Polls a future, again and again, until it is over.
fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let started = Instant::now();
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        assert!(started.elapsed() < DEADLINE, "it does not end");
        std::thread::yield_now();
    }
}

fn is_task<F: Future + Send + 'static>(future: F) -> F {
    future
}

#[test]
fn a_cluster_is_ready_once_it_serves_and_while_it_does() {
    let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default()).unwrap();
    cluster.wait_ready(DEADLINE).unwrap();
    let client = cluster.client();
    wait_for(is_task(client.ready())).unwrap();
    client.execute_blocking(&increment(b"ready")).unwrap();

    let gateway = RoleId::Gateway(GatewayId(0));
    cluster.kill(gateway).unwrap();
    let started = Instant::now();
    while cluster.wait_ready(Duration::ZERO).is_ok() {
        assert!(started.elapsed() < DEADLINE, "its gateway is gone");
        std::thread::yield_now();
    }
    let waiting = client.ready();
    cluster.restart(gateway).unwrap();
    wait_for(waiting).unwrap();
    client.execute_blocking(&increment(b"ready")).unwrap();

    cluster.stop().unwrap();
    assert_eq!(wait_for(client.ready()), Err(CallError::Stopped));
}

#[test]
fn a_cluster_tells_who_leads_and_how_its_cores_stand_again_and_again() {
    let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default()).unwrap();
    cluster.wait_ready(DEADLINE).unwrap();
    let first = cluster.leader().unwrap();
    cluster.kill(RoleId::Proposer(first)).unwrap();
    let started = Instant::now();
    while cluster.leader().is_none_or(|leader| leader == first) {
        assert!(started.elapsed() < DEADLINE, "nobody else leads");
    }
    let (told, heard) = std::sync::mpsc::channel();
    let hook = move |cores: Vec<CoreStatus>| drop(told.send(cores));
    cluster.watch(Duration::from_millis(5), hook).unwrap();
    for _ in 0..3 {
        let cores = heard.recv_timeout(DEADLINE).unwrap();
        assert_eq!(cores.len(), cluster.cores().len());
        assert!(cores.iter().any(|core| core.ticks > 0), "{cores:?}");
    }
    cluster.stop().unwrap();
    let end = heard.iter().count(); // it ends with the cluster
    assert!(end < 1000, "{end} more");
}

#[test]
fn calls_are_tasks_that_borrow_nothing_and_may_be_submitted_at_once() {
    let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default()).unwrap();
    let client = cluster.client();
    let call = is_task(client.execute(&increment(b"task")));
    let calls: Vec<_> =
        (0..100).map(|_| is_task(client.try_execute(&increment(b"task")).unwrap())).collect();
    drop(client);
    // The first is sent last: the others were before it was polled.
    for (number, submitted) in (1..).zip(calls) {
        let executed = wait_for(submitted).unwrap();
        assert_eq!(Answer::decode(executed.reply.as_slice()).unwrap(), Answer::Number(number));
    }
    let executed = wait_for(call).unwrap();
    assert_eq!(Answer::decode(executed.reply.as_slice()).unwrap(), Answer::Number(101));
    let client = cluster.client();
    cluster.stop().unwrap();
    assert_eq!(client.try_execute(&increment(b"task")).unwrap_err(), CallError::Stopped);
}

#[test]
fn a_cluster_of_other_processes_is_ready_or_says_why_it_is_not() {
    let nodes = Nodes::start(Spread::OneCore);
    let options = RemoteOptions::new(vec![nodes.address(0)]);
    let named = RemoteOptions { cluster: "another".to_owned(), ..options.clone() };
    RemoteCluster::connect(options).unwrap().wait_ready(DEADLINE).unwrap();

    let cluster = RemoteCluster::connect(named).unwrap();
    let started = Instant::now();
    let troubles = loop {
        let NotReady { troubles } = cluster.wait_ready(Duration::from_millis(50)).unwrap_err();
        if !troubles.is_empty() || started.elapsed() > DEADLINE {
            break troubles; // it has been refused by then
        }
    };
    let [(address, why)] = &troubles[..] else { panic!("{troubles:?}") };
    assert_eq!(*address, nodes.address(0));
    assert!(why.contains("another"), "{why}");
    nodes.stop();
}
