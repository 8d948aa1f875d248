//! Three omnipaxos servers on two threads, each with a core of its own: the leader on one, the
//! followers on the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use omnipaxos::OmniPaxos;
use omnipaxos::messages::Message;
use omnipaxos::util::LogEntry;
use omnipaxos_storage::memory_storage::MemoryStorage;

use super::{Cluster, Entry, Server};
use crate::figures::Figures;
use crate::load::{Commands, Machine};
use crate::{TURN, pin};

/// How often a server's clock ticks.
const TICK: Duration = Duration::from_millis(10);
/// Executed commands after which the leader trims the log.
const TRIM_INTERVAL: usize = 1 << 16;

/// Runs it with so many commands in flight. The leader's thread is its own client: it appends a
/// command for each that it has executed, without a session, and without a message for it.
pub(crate) fn run(in_flight: usize) -> Figures {
    let mut cluster = Cluster::new(1);
    let leader = cluster.servers.remove(cluster.leader);
    let (to_followers, from_leader) = channel();
    let (to_leader, from_followers) = channel();
    let mut leader = Node::new(vec![leader], to_followers, from_followers);
    let mut followers = Node::new(cluster.servers, to_leader, from_leader);
    let done = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            pin(1);
            while !done.load(Ordering::Relaxed) {
                followers.turn();
            }
        });
        let leading = threads.spawn(|| {
            pin(0);
            let figures = lead(&mut leader, in_flight);
            done.store(true, Ordering::Relaxed);
            figures
        });
        leading.join().expect("the leader's thread ends by itself")
    })
}

fn lead(node: &mut Node, in_flight: usize) -> Figures {
    let mut commands = Commands::default();
    let mut figures = Figures::default();
    let (mut under_way, mut trimmed) = (0, 0);
    for time in TURN {
        figures = Figures::default();
        let began = Instant::now();
        let mut appended = began;
        while began.elapsed() < time {
            let leader = &mut node.replicas[0];
            if under_way < in_flight {
                appended = Instant::now();
                for _ in under_way..in_flight {
                    leader.omnipaxos.append(Entry(commands.next())).expect("no reconfiguration");
                }
                under_way = in_flight;
            }
            if leader.executed >= trimmed + TRIM_INTERVAL {
                trimmed = leader.executed;
                // Up to what all have decided: the least of which the leader has heard.
                _ = leader.omnipaxos.trim(None);
            }
            let executed = node.turn();
            under_way -= executed;
            figures.operations += executed as u64;
            if in_flight == 1 && executed == 1 {
                figures.latencies.push(appended.elapsed());
            }
        }
        figures.time = began.elapsed();
    }
    figures
}

/// A thread with its replicas.
struct Node {
    replicas: Vec<Replica>,
    out: Sender<Vec<Message<Entry>>>,
    inbox: Receiver<Vec<Message<Entry>>>,
    ticked: Instant,
}

struct Replica {
    pid: u64,
    omnipaxos: OmniPaxos<Entry, MemoryStorage<Entry>>,
    machine: Machine,
    /// Everything below was executed.
    executed: usize,
}

impl Node {
    fn new(
        servers: Vec<Server>,
        out: Sender<Vec<Message<Entry>>>,
        inbox: Receiver<Vec<Message<Entry>>>,
    ) -> Self {
        let replica = |Server { pid, omnipaxos, .. }| Replica {
            pid,
            omnipaxos,
            machine: Machine::default(),
            executed: 0,
        };
        let replicas = servers.into_iter().map(replica).collect();
        Self { replicas, out, inbox, ticked: Instant::now() }
    }

    /// Takes what has arrived, executes what is decided, and sends what that gives. Returns the
    /// number of commands that its first replica has executed.
    fn turn(&mut self) -> usize {
        let before = self.replicas[0].executed;
        while let Ok(messages) = self.inbox.try_recv() {
            for message in messages {
                let to = message.get_receiver();
                let replica = self.replicas.iter_mut().find(|replica| replica.pid == to);
                let replica = replica.expect("two threads: what the other sends is for this one");
                // Before the leader's order to trim what is decided may be obeyed.
                replica.execute();
                replica.omnipaxos.handle_incoming(message);
            }
        }
        if self.ticked.elapsed() >= TICK {
            self.ticked = Instant::now();
            self.replicas.iter_mut().for_each(|replica| replica.omnipaxos.tick());
        }
        self.replicas.iter_mut().for_each(Replica::execute);
        let mut messages = Vec::new();
        for replica in &mut self.replicas {
            replica.omnipaxos.take_outgoing_messages(&mut messages);
        }
        // Heartbeats of the followers to one another.
        let own = |message: &mut Message<Entry>| {
            self.replicas.iter().any(|replica| replica.pid == message.get_receiver())
        };
        for message in messages.extract_if(.., own).collect::<Vec<_>>() {
            let to = message.get_receiver();
            let replica = self.replicas.iter_mut().find(|replica| replica.pid == to);
            replica.expect("it was found").omnipaxos.handle_incoming(message);
        }
        if !messages.is_empty() {
            // The other thread may have ended.
            _ = self.out.send(messages);
        }
        self.replicas[0].executed - before
    }
}

impl Replica {
    fn execute(&mut self) {
        if self.omnipaxos.get_decided_idx() == self.executed {
            return;
        }
        let decided = self.omnipaxos.read_decided_suffix(self.executed).unwrap_or_default();
        for entry in decided {
            let LogEntry::Decided(Entry(command)) = entry else { panic!("{entry:?}") };
            self.machine.put(&command);
            self.executed += 1;
        }
    }
}
