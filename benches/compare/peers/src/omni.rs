//! Three omnipaxos servers whose messages are function calls, or go from thread to thread.

mod threads;

use loggos_benches::Reader;
use omnipaxos::macros::Entry;
use omnipaxos::messages::Message;
use omnipaxos::util::LogEntry;
use omnipaxos::{ClusterConfig, OmniPaxos, OmniPaxosConfig, ServerConfig};
use omnipaxos_storage::memory_storage::MemoryStorage;

use crate::load::Command;

pub(crate) use threads::run;

/// Decided commands after which the log is trimmed, on all servers.
const TRIM_INTERVAL: usize = 1 << 18;

/// What is replicated: as cheap to copy as it can be, which omnipaxos does for each server.
#[derive(Clone, Debug, Entry)]
pub(crate) struct Entry(Command);

struct Server {
    pid: u64,
    omnipaxos: OmniPaxos<Entry, MemoryStorage<Entry>>,
    /// Everything below was read.
    read: usize,
    machine: Reader,
}

/// The servers, with the messages between them.
pub(crate) struct Cluster {
    servers: Vec<Server>,
    leader: usize,
    messages: Vec<Message<Entry>>,
    trimmed: usize,
}

impl Cluster {
    /// Starts a cluster, and lets it elect its leader. It sends its entries on in batches of that
    /// size, which is the option its documentation has for it.
    pub(crate) fn new(batch_size: usize) -> Self {
        let nodes = vec![1, 2, 3];
        let start = |pid: &u64| {
            let cluster_config = ClusterConfig {
                configuration_id: 1,
                nodes: nodes.clone(),
                ..ClusterConfig::default()
            };
            let server_config = ServerConfig { pid: *pid, batch_size, ..ServerConfig::default() };
            let config = OmniPaxosConfig { cluster_config, server_config };
            let omnipaxos = config.build(MemoryStorage::default()).expect("a sound configuration");
            Server { pid: *pid, omnipaxos, read: 0, machine: Reader::default() }
        };
        let servers: Vec<_> = nodes.iter().map(start).collect();
        let mut cluster = Self { servers, leader: 0, messages: Vec::new(), trimmed: 0 };
        for _ in 0..100 {
            cluster.servers.iter_mut().for_each(|server| server.omnipaxos.tick());
            cluster.exchange();
        }
        let leader = cluster.servers[0].omnipaxos.get_current_leader();
        let (pid, _) = leader.expect("a leader after a hundred ticks");
        cluster.leader = usize::try_from(pid - 1).expect("one of three");
        cluster
    }

    /// Has so many commands decided, and read on every server.
    pub(crate) fn run(&mut self, commands: u32) {
        let leader = &mut self.servers[self.leader];
        for _ in 0..commands {
            leader.omnipaxos.append(Entry([b'c'; _])).expect("it is not reconfigured");
        }
        let end = self.servers[self.leader].read + commands as usize;
        self.exchange();
        if self.servers.iter().any(|server| server.omnipaxos.get_decided_idx() < end) {
            // The last that is decided is told with what is accepted next, or with a tick.
            self.servers.iter_mut().for_each(|server| server.omnipaxos.tick());
            self.exchange();
        }
        for server in &mut self.servers {
            let decided = server.omnipaxos.read_decided_suffix(server.read).unwrap_or_default();
            for entry in decided {
                let LogEntry::Decided(Entry(command)) = entry else { panic!("{entry:?}") };
                server.machine.read(&command);
                server.read += 1;
            }
            assert_eq!(server.read, end, "some are not decided");
        }
        if end - self.trimmed >= TRIM_INTERVAL {
            self.servers[self.leader].omnipaxos.trim(Some(end)).expect("all have decided so far");
            self.exchange();
            self.trimmed = end;
        }
    }

    /// Delivers messages until there are no more.
    fn exchange(&mut self) {
        loop {
            for server in &mut self.servers {
                server.omnipaxos.take_outgoing_messages(&mut self.messages);
            }
            if self.messages.is_empty() {
                return;
            }
            for message in self.messages.drain(..) {
                let to = usize::try_from(message.get_receiver() - 1).expect("one of three");
                self.servers[to].omnipaxos.handle_incoming(message);
            }
        }
    }
}
