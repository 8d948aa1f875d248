//! Callers that count, at both gateways: what was acknowledged counts once, what is unknown at most
//! once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use loggos::kv::{Answer, Command};
use loggos::{CallError, RemoteCluster, RemoteOptions};

use super::{DEADLINE, Nodes, wait_for};

/// How long answers are counted to tell how many there are in a while.
const PACE_TIME: Duration = Duration::from_millis(100);
/// How long it is watched whether there are half as many again as before a fault.
const RECOVERY_MAX: Duration = Duration::from_secs(3);
/// Callers at each gateway.
const CALLERS: usize = 2;
/// All gateways.
pub(crate) const GATEWAYS: [usize; 2] = [0, 1];

/// A load under way.
pub(crate) struct Load {
    /// By caller: first those of gateway 0.
    counted: [Counted; 2 * CALLERS],
    is_over: AtomicBool,
}

/// What one caller has counted.
#[derive(Default)]
struct Counted {
    acknowledged: AtomicU64,
    /// Increments that may have been executed, or not.
    unknown: AtomicU64,
}

/// Ends a load, also where a test fails in the middle of it: its threads are waited for.
struct End<'a>(&'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Lets `strike` do its worst to a cluster under load, with clients on a host `client-N` for each
/// gateway. Then ends the load, reads the counters back and compares the replicas.
pub(crate) fn under_load(mut nodes: Nodes, strike: impl FnOnce(&mut Nodes, &Load)) {
    let clusters = GATEWAYS.map(|gateway| {
        let address = nodes.address(&format!("gateway-{gateway}"));
        let options = RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![address]) };
        nodes.on(&format!("client-{gateway}"), || RemoteCluster::connect(options).unwrap())
    });
    let load = Load { counted: Default::default(), is_over: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        let end = End(&load);
        for (index, counted) in load.counted.iter().enumerate() {
            let (cluster, is_over) = (&clusters[index / CALLERS], &load.is_over);
            scope.spawn(move || count(cluster, &name(index), counted, is_over));
        }
        wait_for("the first commands", || load.acknowledged().iter().all(|count| *count >= 20));
        strike(&mut nodes, &load);
        drop(end);
    });
    load.check(&clusters[0]);
    nodes.wait_until_equal();
}

impl Load {
    /// How many commands of each caller were acknowledged.
    fn acknowledged(&self) -> Vec<u64> {
        self.counted.iter().map(|it| it.acknowledged.load(Ordering::Acquire)).collect()
    }

    /// Likewise, of the callers at one gateway.
    pub(crate) fn acknowledged_at(&self, gateway: usize) -> Vec<u64> {
        self.acknowledged()[gateway * CALLERS..][..CALLERS].to_vec()
    }

    /// Waits until every caller at `gateways` has been answered what it has asked since a fault,
    /// and tells how long that took.
    pub(crate) fn go_on_after(&self, fault: &str, gateways: &[usize]) {
        let struck = Instant::now();
        // What was answered before the fault may be counted after it: the second is surely a new
        // one.
        self.wait_for_more(2, gateways);
        println!("{fault}: every caller had its next answers after {:?}", struck.elapsed());
    }

    /// How many answers the callers at `gateways` get in a while.
    pub(crate) fn pace(&self, gateways: &[usize]) -> u64 {
        let answers = || -> u64 { gateways.iter().flat_map(|it| self.acknowledged_at(*it)).sum() };
        let before = answers();
        std::thread::sleep(PACE_TIME); // what comes meanwhile is counted
        answers() - before
    }

    /// Tells when there were half as many answers again as `before` a fault, if soon.
    pub(crate) fn tell_recovery(&self, fault: &str, before: u64, gateways: &[usize]) {
        let struck = Instant::now();
        while struck.elapsed() < RECOVERY_MAX {
            let begun = struck.elapsed();
            let now = self.pace(gateways);
            if 2 * now >= before {
                return println!(
                    "{fault}: {now} answers in {PACE_TIME:?} after {begun:?}, of {before}"
                );
            }
        }
        println!(
            "{fault}: less than half of {before} answers in {PACE_TIME:?} after {RECOVERY_MAX:?}"
        );
    }

    /// Waits until every caller at `gateways` has so many answers more than now.
    pub(crate) fn wait_for_more(&self, answers: u64, gateways: &[usize]) {
        let before = self.acknowledged();
        let what = format!("{answers} answers of gateways {gateways:?}");
        wait_for(&what, || {
            let now = self.acknowledged();
            let mut callers = (0..now.len()).filter(|index| gateways.contains(&(index / CALLERS)));
            callers.all(|index| now[index] >= before[index] + answers)
        });
    }

    /// Reads the counters back.
    fn check(&self, cluster: &RemoteCluster) {
        for (index, counted) in self.counted.iter().enumerate() {
            let name = name(index);
            let mut command = Vec::new();
            Command::Get { key: &key(&name) }.encode(&mut command).unwrap();
            let executed = cluster.client().execute_blocking(&command).unwrap();
            let answer = Answer::decode(executed.reply.as_slice()).unwrap();
            let Answer::Value(value) = answer else { panic!("{name}: {answer:?}") };
            let value: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
            let acknowledged = counted.acknowledged.load(Ordering::Relaxed);
            let most = acknowledged + counted.unknown.load(Ordering::Relaxed);
            let allowed = acknowledged..=most;
            assert!(allowed.contains(&value), "{name}: {value} is not in {allowed:?}");
        }
    }
}

fn name(index: usize) -> String {
    format!("caller {} of gateway {}", index % CALLERS, index / CALLERS)
}

fn key(caller: &str) -> Vec<u8> {
    format!("counter of {caller}").into_bytes()
}

/// Adds one to a counter of its own, over and over. Every answer must be one more than the last,
/// but for what was lost with a gateway: that may have counted, or not.
fn count(cluster: &RemoteCluster, caller: &str, counted: &Counted, is_over: &AtomicBool) {
    let mut command = Vec::new();
    Command::Increment { key: &key(caller), by: 1 }.encode(&mut command).unwrap();
    let client = cluster.client();
    let (mut last, mut unknown) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        match client.execute_blocking(&command) {
            Ok(executed) => {
                let answer = Answer::decode(executed.reply.as_slice()).unwrap();
                let Answer::Number(number) = answer else { panic!("{answer:?}") };
                let allowed = last + 1..=last + 1 + unknown;
                assert!(allowed.contains(&number), "{caller}: {number} is not in {allowed:?}");
                (last, unknown) = (number, unknown - (number - last - 1));
                counted.acknowledged.fetch_add(1, Ordering::Release);
            }
            Err(CallError::OutcomeUnknown | CallError::DeadlineExceeded) => {
                unknown += 1;
                counted.unknown.fetch_add(1, Ordering::Relaxed);
            }
            Err(CallError::Busy | CallError::Unreachable) => {} // never sent: no gateway was there to take it
            Err(error) => panic!("{caller}: {error}"),
        }
    }
}
