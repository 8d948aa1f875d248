//! Clusters of real processes that lose one, or have one stopped, under load from both gateways:
//! commands go on, nothing acknowledged is lost or executed twice, each caller's commands stay in
//! order, and replicas are equal in the end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how long a fault was felt is reported, not asserted")]

#[expect(dead_code, reason = "nothing is cut here: all live on one host")]
mod harness;

use std::time::{Duration, Instant};

use harness::load::{GATEWAYS, under_load};
use harness::{Nodes, wait_for};
use rustix::process::Signal;

/// What a stopped process sleeps: three election timeouts, on defaults.
const STOP: Duration = Duration::from_millis(900);
/// More slots than a replica holds, on defaults.
const LOG_SLOTS_MAX: u64 = 2 * 2048;
/// Answers to every caller that show that all goes on.
const MANY: u64 = 100;

fn kill(pick: impl FnOnce(&Nodes) -> String) {
    under_load(Nodes::start(), |nodes, load| {
        let (name, before) = (pick(nodes), load.pace(&GATEWAYS));
        let fault = format!("kill -9 of {name}");
        nodes.kill(&name);
        // From before the next answer on: both are told from the same moment.
        std::thread::scope(|scope| {
            scope.spawn(|| load.tell_recovery(&fault, before, &GATEWAYS));
            load.go_on_after(&fault, &GATEWAYS);
        });
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

fn stop(pick: impl FnOnce(&Nodes) -> String) {
    under_load(Nodes::start(), |nodes, load| {
        let name = pick(nodes);
        nodes.signal(&name, Signal::STOP);
        let stopped = Instant::now();
        load.go_on_after(&format!("stop of {name}"), &GATEWAYS);
        // How long it sleeps is the fault.
        std::thread::sleep(STOP.saturating_sub(stopped.elapsed()));
        nodes.signal(&name, Signal::CONT);
        load.wait_for_more(MANY, &GATEWAYS);
    });
}

#[test]
fn kill_of_the_leader() {
    kill(Nodes::leader);
}

#[test]
fn kill_of_an_acceptor() {
    kill(|_| "acceptor-1".to_owned());
}

#[test]
fn kill_of_a_proxy_leader() {
    kill(|_| "proxy-leader-0".to_owned());
}

#[test]
fn kill_of_a_replica() {
    kill(|_| "replica-1".to_owned());
}

/// Each of two replicas loses its memory, one after the other, once its peers hold none of the
/// slots that it begins with any more.
#[test]
fn replicas_that_are_killed_come_back_with_the_state_of_a_peer() {
    under_load(Nodes::start(), |nodes, load| {
        for name in ["replica-1", "replica-2"] {
            nodes.kill(name);
            let executed = |nodes: &Nodes| nodes.role("replica-0", "executed_watermark");
            let before = executed(nodes);
            wait_for("a longer log than peers hold", || executed(nodes) > before + LOG_SLOTS_MAX);
            nodes.restart(name);
            wait_for("the state of a peer", || nodes.role(name, "restored") == 1);
            load.wait_for_more(MANY, &GATEWAYS);
        }
    });
}

#[test]
fn kill_of_a_gateway() {
    under_load(Nodes::start(), |nodes, load| {
        nodes.kill("gateway-1");
        load.go_on_after("kill -9 of gateway-1", &[0]);
        load.wait_for_more(MANY, &[0]);
        // Its callers wait for a gateway that is gone: it comes back, so that they can end.
        nodes.restart("gateway-1");
    });
}

#[test]
fn stop_of_the_leader() {
    stop(Nodes::leader);
}

#[test]
fn stop_of_an_acceptor() {
    stop(|_| "acceptor-2".to_owned());
}

#[test]
fn stop_of_a_replica() {
    stop(|_| "replica-0".to_owned());
}
