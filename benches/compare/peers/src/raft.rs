//! Three openraft servers in one Tokio runtime with a worker a core. Their network is a call of the
//! other's function, their log a queue behind a lock, and their machine what the other peers have.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Cursor;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use openraft::error::{InstallSnapshotError, RPCError, RaftError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{LogFlushed, LogState, RaftLogStorage, RaftStateMachine};
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, OptionalSend, RaftLogReader, RaftNetwork,
    RaftNetworkFactory, RaftSnapshotBuilder, Snapshot, SnapshotMeta, SnapshotPolicy, StorageError,
    StoredMembership, Vote,
};

use crate::TURN;
use crate::figures::Figures;
use crate::load::{Command, Commands, Machine};

openraft::declare_raft_types!(
    pub(crate) Types:
        D = Put,
        R = (),
);

type Raft = openraft::Raft<Types>;
type Stored<T> = Result<T, StorageError<u64>>;
type Called<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Put(Command);

impl fmt::Display for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Runs it with so many commands in flight, each of a task of its own, which sends its next when it
/// has an answer.
pub(crate) fn run(in_flight: usize) -> Figures {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().expect("a runtime starts");
    let figures = runtime.block_on(measure(in_flight));
    runtime.shutdown_timeout(Duration::from_secs(10));
    figures
}

async fn measure(in_flight: usize) -> Figures {
    let nodes = Arc::new(Nodes::default());
    let config = Config {
        max_payload_entries: 4096,
        // Ours write none either in so short a time.
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate().expect("a sound configuration"));
    for (id, node) in nodes.0.iter().enumerate() {
        let network = Network(Arc::clone(&nodes));
        let (log, machine) = (Log::default(), Executor::default());
        let raft = Raft::new(id as u64, Arc::clone(&config), network, log, machine).await;
        assert!(node.set(raft.expect("a server starts")).is_ok(), "it is set once");
    }
    let leader = nodes.get(0);
    let members: BTreeMap<_, _> = (0..3).map(|id| (id, BasicNode::default())).collect();
    leader.initialize(members).await.expect("it is new");
    let led = leader.wait(Some(Duration::from_secs(10))).current_leader(0, "a leader").await;
    led.expect("the server that is told of the others leads them");

    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let callers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (raft, done) = (leader.clone(), Arc::clone(&done));
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let mut commands = Commands::default();
                let mut latencies = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let sent = (in_flight == 1).then(Instant::now);
                    raft.client_write(Put(commands.next())).await.expect("it leads");
                    latencies.extend(sent.map(|sent| sent.elapsed()));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    let mut figures = Figures::default();
    for time in TURN {
        let (began, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        tokio::time::sleep(time).await;
        figures.operations = answered.load(Ordering::Relaxed) - before;
        figures.time = began.elapsed();
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        figures.latencies.extend(caller.await.expect("a caller ends by itself"));
    }
    for id in 0..3 {
        nodes.get(id).shutdown().await.expect("a server ends");
    }
    figures
}

/// The servers, once they are started.
#[derive(Default)]
struct Nodes([OnceLock<Raft>; 3]);

impl Nodes {
    fn get(&self, id: u64) -> &Raft {
        self.0[usize::try_from(id).expect("one of three")].get().expect("all were started")
    }
}

/// How a server reaches the others.
struct Network(Arc<Nodes>);

impl RaftNetworkFactory<Types> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &BasicNode) -> Link {
        Link { nodes: Arc::clone(&self.0), target }
    }
}

/// How it reaches one of them.
struct Link {
    nodes: Arc<Nodes>,
    target: u64,
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Called<AppendEntriesResponse<u64>> {
        Ok(self.nodes.get(self.target).append_entries(request).await.expect("it runs"))
    }

    async fn install_snapshot(
        &mut self,
        _: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<
        InstallSnapshotResponse<u64>,
        RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>,
    > {
        unreachable!("no server takes snapshots")
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _: RPCOption) -> Called<VoteResponse<u64>> {
        Ok(self.nodes.get(self.target).vote(request).await.expect("it runs"))
    }
}

/// A server's log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    vote: Option<Vote<u64>>,
    /// From index 0 on.
    entries: VecDeque<Entry<Types>>,
}

impl Log {
    fn with<T>(&self, call: impl FnOnce(&mut Kept) -> T) -> T {
        call(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Stored<Vec<Entry<Types>>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => *before + 1,
            Bound::Unbounded => 0,
        };
        let entries = |kept: &mut Kept| {
            let entries = kept.entries.range(index(from).min(kept.entries.len())..);
            entries.take_while(|entry| range.contains(&entry.log_id.index)).cloned().collect()
        };
        Ok(self.with(entries))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Stored<LogState<Types>> {
        let last_log_id = self.with(|kept| kept.entries.back().map(|entry| entry.log_id));
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Stored<()> {
        self.with(|kept| kept.vote = Some(*vote));
        Ok(())
    }

    async fn read_vote(&mut self) -> Stored<Option<Vote<u64>>> {
        Ok(self.with(|kept| kept.vote))
    }

    async fn append<I>(&mut self, entries: I, flushed: LogFlushed<Types>) -> Stored<()>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
    {
        self.with(|kept| kept.entries.extend(entries));
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<u64>) -> Stored<()> {
        self.with(|kept| kept.entries.truncate(index(from.index)));
        Ok(())
    }

    async fn purge(&mut self, _: LogId<u64>) -> Stored<()> {
        unreachable!("no server takes snapshots")
    }
}

/// A server's state machine.
#[derive(Default)]
struct Executor {
    machine: Machine,
    executed: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
}

impl RaftStateMachine<Types> for Executor {
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(
        &mut self,
    ) -> Stored<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>)> {
        Ok((self.executed, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Stored<Vec<()>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
    {
        let mut replies = Vec::new();
        for Entry { log_id, payload } in entries {
            match payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(Put(command)) => self.machine.put(&command),
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                }
            }
            self.executed = Some(log_id);
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn begin_receiving_snapshot(&mut self) -> Stored<Box<Cursor<Vec<u8>>>> {
        unreachable!("no server takes snapshots")
    }

    async fn install_snapshot(
        &mut self,
        _: &SnapshotMeta<u64, BasicNode>,
        _: Box<Cursor<Vec<u8>>>,
    ) -> Stored<()> {
        unreachable!("no server takes snapshots")
    }

    async fn get_current_snapshot(&mut self) -> Stored<Option<Snapshot<Types>>> {
        Ok(None)
    }
}

/// What builds a server's snapshots: the policy is never to take one.
struct NoSnapshots;

impl RaftSnapshotBuilder<Types> for NoSnapshots {
    async fn build_snapshot(&mut self) -> Stored<Snapshot<Types>> {
        unreachable!("no server takes snapshots")
    }
}

fn index(index: u64) -> usize {
    usize::try_from(index).expect("a log that fits in memory")
}
