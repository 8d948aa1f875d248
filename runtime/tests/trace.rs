//! What cores tell of their turns.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use loggos::kv::{Command, Kv};
use loggos::{
    CallError, Config, CoreTrace, Desk, Doing, LocalCluster, Next, Position, Resident, Turn,
};

/// A put, over and over.
struct Busy(Vec<u8>);

impl Resident for Busy {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        let is_taken = desk.execute(0, &self.0);
        assert!(is_taken, "one command has room");
        Next::OnResult
    }

    fn on_result(&mut self, _: u64, _: Result<(Position, &[u8]), CallError>) {}
}

#[test]
fn a_trace_has_the_turns_of_every_role_inside_the_ticks_of_its_core() {
    let config = Config::standard();
    let cluster = LocalCluster::start(&config, |_| Kv::default()).unwrap();
    let mut put = Vec::new();
    Command::Put { key: b"key", value: b"value" }.encode(&mut put).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while cluster.client().execute_blocking(&put).is_err() {
        assert!(Instant::now() < deadline, "the cluster never served");
    }
    cluster.move_in(move || Busy(put));
    let traces = cluster.trace(Duration::from_millis(50));
    assert_eq!(traces.len(), config.cpus.len());
    let cores: HashMap<_, _> =
        cluster.status().iter().map(|status| (status.role, status.core)).collect();
    for CoreTrace { core, turns } in &traces {
        // What a tick consists of ends before it does.
        let mut inside: Vec<Turn> = Vec::new();
        for turn in turns {
            assert!(turn.from <= turn.to, "{turn:?}");
            match turn.doing {
                Doing::Tick => {
                    let is_inside = |it: &Turn| turn.from <= it.from && it.to <= turn.to;
                    assert!(inside.iter().all(is_inside), "{turn:?} is all of {inside:?}");
                    inside.clear();
                }
                Doing::Role(role) => {
                    assert_eq!(
                        cores[&role], *core,
                        "{role} has a turn on a core that is not its own"
                    );
                    inside.push(*turn);
                }
                Doing::Callers => inside.push(*turn),
                Doing::Sleep => {}
            }
        }
    }
    let count =
        |doing| traces.iter().flat_map(|trace| &trace.turns).filter(|t| t.doing == doing).count();
    assert!(count(Doing::Callers) > 0, "callers were heard");
    for role in config.placement.keys().filter(|role| role.to_string().starts_with("replica")) {
        assert!(count(Doing::Role(*role)) > 0, "{role} has executed commands");
    }
    cluster.stop().unwrap();
}

#[test]
fn a_trace_that_another_takes_the_place_of_ends_with_what_it_has() {
    let config = Config::standard();
    let cluster = LocalCluster::start(&config, |_| Kv::default()).unwrap();
    let (first, second) = std::thread::scope(|threads| {
        let first = threads.spawn(|| cluster.trace(Duration::from_millis(100)));
        let second = threads.spawn(|| cluster.trace(Duration::from_millis(100)));
        (first.join().unwrap(), second.join().unwrap())
    });
    for traces in [first, second] {
        assert_eq!(traces.len(), config.cpus.len(), "each core has told both");
    }
    cluster.stop().unwrap();
}
