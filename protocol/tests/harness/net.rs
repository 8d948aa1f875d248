//! A whole cluster in virtual time: what is sent arrives at once, unless a test wants it lost or
//! doubled.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorState, At, Caller, ClientId, ClusterSettings, Envelope, Event,
    Failure, FormationId, Gateway, GatewayId, Incarnation, Life, LoggedCommand, MalformedSnapshot,
    NotAQuery, Outbox, Payload, Position, Proposer, ProposerId, ProxyLeader, Query, ReadLevel,
    Recall, Recalled, Record, Replica, ReplicaId, Reply, Role, RoleId, RunOwner, Settings, Slot,
    SnapshotInfo, StateMachine, Submission, Time, To, ToProposer, Vote,
};

use super::snapshots::SnapshotFiles;
use super::{START, millis};

/// A machine that answers with what it was told and how many commands it has executed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Echo {
    /// Every command, with when it was executed by the log's time.
    pub(crate) executed: Vec<(Time, Vec<u8>)>,
    /// How many commands are frozen, and how many of those are written.
    frozen: Option<(usize, usize)>,
    /// Another command that it panics at.
    panics_at: Option<Vec<u8>>,
}

impl Echo {
    pub(crate) fn that_panics_at(command: &[u8]) -> Self {
        Self { panics_at: Some(command.to_vec()), ..Self::default() }
    }
}

impl StateMachine for Echo {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        let is_it = command.starts_with(b"panic") || self.panics_at.as_deref() == Some(command);
        assert!(!is_it, "the machine has met its command");
        self.executed.push((at.time, command.to_vec()));
        reply.put(command);
        reply.put(format!("#{}", self.executed.len()).as_bytes());
    }

    /// Answers with what it was asked and how many commands it has executed.
    fn query(&self, _: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        reply.put(query);
        assert!(!query.starts_with(b"panic"), "the machine has met its query");
        reply.put(format!("@{}", self.executed.len()).as_bytes());
        if query.starts_with(b"command") { Err(NotAQuery) } else { Ok(()) }
    }

    fn state_hash(&self) -> u64 {
        self.executed.len() as u64
    }

    fn freeze(&mut self) -> bool {
        assert_eq!(self.frozen, None, "frozen again before all was written");
        self.frozen = Some((self.executed.len(), 0));
        true
    }

    /// Writes one command a part.
    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        let (count, written) = self.frozen.as_mut().expect("frozen before it is written");
        if let Some((time, command)) = self.executed[..*count].get(*written) {
            part.extend(time.0.to_le_bytes());
            part.extend(command);
            *written += 1;
        }
        let is_more = *written < *count;
        if !is_more {
            self.frozen = None;
        }
        is_more
    }

    fn clear(&mut self) {
        *self = Self { panics_at: self.panics_at.take(), ..Self::default() };
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        if part == b"" {
            return Ok(()); // no command was frozen
        }
        let (time, command) = part.split_first_chunk().ok_or(MalformedSnapshot)?;
        self.executed.push((Time(u64::from_le_bytes(*time)), command.to_vec()));
        Ok(())
    }
}

/// How many copies of a message from a role arrive.
type Copies = Box<dyn FnMut(RoleId, &To) -> usize>;

/// Where a command was executed and its reply, or why there is none.
type Answer = Result<(Position, Vec<u8>), Failure>;

/// A cluster and its network.
pub(crate) struct Net {
    pub(crate) cluster: ClusterSettings,
    pub(crate) now: Time,
    /// The roles that are up.
    pub(crate) roles: BTreeMap<RoleId, Role<Echo>>,
    /// Everything sent, lost or not, and its sender; nothing once `keeps_sent` is off, for long
    /// runs.
    pub(crate) sent: Vec<(RoleId, To)>,
    pub(crate) keeps_sent: bool,
    /// What the gateways' clients were told.
    pub(crate) replies: Vec<(Caller, Answer)>,
    pub(crate) events: Vec<Event>,
    /// Makes the machines of replicas that are started.
    pub(crate) machine: fn() -> Echo,
    copies: Copies,
    under_way: VecDeque<Envelope>,
    lives: u64,
    /// What acceptors have written down, each synced at once; `None` if they have no disks.
    disks: Option<BTreeMap<AcceptorId, Vec<Record>>>,
    /// The directories of replicas; none if they are in memory.
    pub(crate) directories: BTreeMap<RoleId, SnapshotFiles>,
    /// How long what an acceptor says waits for its sync.
    sync_takes: Box<dyn Fn(AcceptorId) -> Duration>,
    /// What waits, by when it may be said.
    held: BTreeMap<Time, Vec<(RoleId, Envelope)>>,
}

/// What a disk with these records answers to a recall.
pub(crate) fn read_back(log: &[Record], recall: Recall) -> Recalled {
    let mut votes: BTreeMap<Slot, Vote> = BTreeMap::new();
    for record in log {
        match record {
            Record::Vote { slot, vote, .. } => drop(votes.insert(*slot, vote.clone())),
            Record::Revote { slot, ballot, .. } => {
                let vote = votes.get_mut(slot).expect("a vote is cast before it is cast again");
                vote.ballot = *ballot;
            }
            Record::Promise { .. } | Record::Truncated { .. } | Record::Table { .. } => {}
        }
    }
    votes.retain(|slot, _| (recall.from..recall.to.first_open()).contains(slot));
    Recalled { covered: recall.to, votes: votes.into_iter().collect(), recall }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} roles at {}", self.roles.len(), self.now)
    }
}

impl Net {
    /// Returns a cluster that has formed, elected proposer 0 and opened a session for each gateway.
    pub(crate) fn new(settings: Settings) -> Self {
        Self::with_disks(settings, None, false)
    }

    /// The same, with durable acceptors.
    pub(crate) fn durable(settings: Settings) -> Self {
        Self::with_disks(settings, Some(BTreeMap::new()), false)
    }

    /// The same, with durable acceptors and replicas.
    pub(crate) fn durable_replicas(settings: Settings) -> Self {
        Self::with_disks(settings, Some(BTreeMap::new()), true)
    }

    /// The same, of replicas that start from a snapshot each, if they have one; whether a cluster
    /// has formed is not said.
    pub(crate) fn from_snapshots(
        settings: Settings,
        origins: &[Option<(SnapshotInfo, Vec<Payload>)>],
    ) -> Self {
        let mut net = Self::blank(settings, Some(BTreeMap::new()));
        for (replica, origin) in (0..).zip(origins) {
            net.wipe(replica);
            let files = net.directory(replica);
            files.stored.extend(origin.iter().map(|origin| (origin.0.id, origin.clone())));
        }
        net.start_all();
        net.run_for(millis(1000));
        net
    }

    fn with_disks(
        settings: Settings,
        disks: Option<BTreeMap<AcceptorId, Vec<Record>>>,
        has_directories: bool,
    ) -> Self {
        let mut net = Self::blank(settings, disks);
        if has_directories {
            (0..net.cluster.replicas).for_each(|replica| net.wipe(replica));
        }
        net.start_all();
        net.run_for(Duration::ZERO);
        assert!(net.proposer(0).is_leading(), "proposer 0 campaigns at once");
        assert!(net.gateway(0).session().is_some(), "a leader was heard");
        net.sent.clear();
        net
    }

    /// A cluster of which no role is started.
    fn blank(settings: Settings, disks: Option<BTreeMap<AcceptorId, Vec<Record>>>) -> Self {
        Self {
            now: START,
            roles: BTreeMap::new(),
            sent: Vec::new(),
            keeps_sent: true,
            replies: Vec::new(),
            events: Vec::new(),
            machine: Echo::default,
            copies: Box::new(|_, _| 1),
            under_way: VecDeque::new(),
            lives: 0,
            disks,
            directories: BTreeMap::new(),
            sync_takes: Box::new(|_| Duration::ZERO),
            held: BTreeMap::new(),
            cluster: super::checked(settings),
        }
    }

    fn start_all(&mut self) {
        let cluster = self.cluster.clone();
        let acceptors = cluster.quorums.acceptors().iter().map(RoleId::Acceptor);
        let roles = (cluster.all_proposers().map(RoleId::Proposer))
            .chain(cluster.all_proxy_leaders().map(RoleId::ProxyLeader))
            .chain(acceptors)
            .chain((0..cluster.replicas).map(|r| RoleId::Replica(ReplicaId(r))))
            .chain((0..cluster.gateways).map(|g| RoleId::Gateway(GatewayId(g))));
        roles.for_each(|role| self.start(role));
    }

    /// Starts a role, in a new life that remembers nothing but what is on its disk.
    pub(crate) fn start(&mut self, id: RoleId) {
        self.lives += 1;
        let life = Life { incarnation: Incarnation(self.lives), seed: 1000 + self.lives };
        let role = match (&self.disks, id) {
            (Some(disks), RoleId::Acceptor(id)) => {
                let mut state = AcceptorState::default();
                disks.get(&id).into_iter().flatten().for_each(|record| state.on_record(record));
                let (cluster, directory) = (self.cluster.clone(), super::directory(id.0));
                let mut acceptor = Acceptor::restore(cluster, id, directory, &state, life.seed);
                acceptor.on_start(self.now);
                Role::Acceptor(Box::new(acceptor))
            }
            (_, RoleId::Replica(replica)) if self.directories.contains_key(&id) => {
                let found = self.directories.get_mut(&id).map(SnapshotFiles::find);
                let found = found.expect("it was just looked for");
                let (cluster, machine) = (self.cluster.clone(), (self.machine)());
                let replica = Replica::durable(cluster, replica, life.incarnation, machine, found);
                Role::Replica(Box::new(replica))
            }
            _ => Role::start(self.cluster.clone(), id, life, self.now, |_| (self.machine)()),
        };
        let is_durable_replica = self.directories.contains_key(&id);
        self.roles.insert(id, role);
        let now = self.now;
        self.step(id, |role, out| {
            if let (Role::Replica(replica), true) = (role, is_durable_replica) {
                replica.on_start(now, out);
            }
        });
    }

    /// Gives a replica an empty directory, for its next life.
    pub(crate) fn wipe(&mut self, replica: u8) {
        self.lives += 1;
        let files = SnapshotFiles::new(500 + self.lives);
        self.directories.insert(RoleId::Replica(ReplicaId(replica)), files);
    }

    /// The directory of a replica.
    pub(crate) fn directory(&mut self, replica: u8) -> &mut SnapshotFiles {
        let files = self.directories.get_mut(&RoleId::Replica(ReplicaId(replica)));
        files.expect("replicas have directories")
    }

    /// Ends a role's life.
    pub(crate) fn stop(&mut self, id: RoleId) {
        self.roles.remove(&id).expect("only a role that is up can be stopped");
    }

    /// Decides from now on how many copies of each message arrive.
    pub(crate) fn deliver(&mut self, copies: impl FnMut(RoleId, &To) -> usize + 'static) {
        self.copies = Box::new(copies);
    }

    /// Loses from now on what `is_lost`, and nothing else.
    pub(crate) fn lose(&mut self, is_lost: impl Fn(RoleId, &To) -> bool + 'static) {
        self.deliver(move |from, to| usize::from(!is_lost(from, to)));
    }

    /// Decides from now on how long the syncs of each acceptor take.
    pub(crate) fn sync_takes(&mut self, takes: impl Fn(AcceptorId) -> Duration + 'static) {
        self.sync_takes = Box::new(takes);
    }

    /// Cuts a role off from now on, both ways.
    pub(crate) fn cut_off(&mut self, role: RoleId) {
        self.lose(move |from, to| from == role || to.role() == role);
    }

    /// Gives a command to gateway 0, to go out with the next [`Net::tick`].
    pub(crate) fn submit(&mut self, tag: u64, command: &str) {
        let (caller, now) = (Caller { client: ClientId(0), tag }, self.now);
        self.with_gateway(0, |gateway, out| {
            gateway.submit(caller, command.as_bytes().into(), now, out);
        });
    }

    /// Gives a client's command to a gateway, and lets everything arrive.
    pub(crate) fn write_of_client(
        &mut self,
        gateway: u8,
        tag: u64,
        owner: RunOwner,
        command: &str,
    ) {
        let (caller, now) = (Caller { client: ClientId(1), tag }, self.now);
        self.with_gateway(gateway, |gateway, out| {
            let submission = Submission { owner, command: command.as_bytes() };
            gateway.submit(caller, submission, now, out);
            gateway.flush(now, out);
        });
        self.run_for(Duration::ZERO);
    }

    /// Sends what was submitted as one batch, and lets everything arrive.
    pub(crate) fn tick(&mut self) {
        let now = self.now;
        self.with_gateway(0, |gateway, out| gateway.flush(now, out));
        self.run_for(Duration::ZERO);
    }

    /// Gives a read to a gateway, and lets everything arrive.
    pub(crate) fn read(&mut self, gateway: u8, tag: u64, level: ReadLevel, query: &str) {
        let (caller, now) = (Caller { client: ClientId(0), tag }, self.now);
        self.with_gateway(gateway, |gateway, out| {
            gateway.read(caller, Query { level, bytes: query.as_bytes() }, now, out);
            gateway.flush(now, out);
        });
        self.run_for(Duration::ZERO);
    }

    /// Writes one command in a batch of its own, tagged `tag` and called by it.
    pub(crate) fn write(&mut self, tag: u64) {
        self.submit(tag, &tag.to_string());
        self.tick();
    }

    /// Delivers, and fires timers, until `duration` has passed.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            while let Some(envelope) = self.under_way.pop_front() {
                let now = self.now;
                self.step(envelope.to.role(), |role, out| role.on_envelope(envelope, now, out));
            }
            self.start_over();
            let next = self.roles.values_mut().filter_map(Role::next_timeout).min();
            let synced_at = self.held.keys().next().copied();
            let next = next.into_iter().chain(synced_at).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while let Some(held) = self.held.first_entry().filter(|held| *held.key() <= self.now) {
                held.remove().into_iter().for_each(|(from, envelope)| self.send(from, envelope));
            }
            let (now, ids) = (self.now, self.roles.keys().copied().collect::<Vec<_>>());
            ids.into_iter().for_each(|id| self.step(id, |role, out| role.on_time(now, out)));
        }
        self.now = end;
    }

    /// Has an operator want a command skipped.
    pub(crate) fn skip(&mut self, command: LoggedCommand) {
        let formation = self.formation();
        for proposer in self.cluster.all_proposers() {
            let to = To::Proposer(proposer, ToProposer::Skip(command));
            self.under_way.push_back(Envelope { formation, to });
        }
        self.run_for(Duration::ZERO);
    }

    /// Starts replicas over that have halted and can go on in another life, as their driver does.
    fn start_over(&mut self) {
        let is_over =
            |role: &Role<Echo>| matches!(role, Role::Replica(it) if it.is_to_start_over());
        let over = self.roles.iter().filter(|(_, role)| is_over(role)).map(|(id, _)| *id);
        let over: Vec<RoleId> = over.collect();
        over.into_iter().for_each(|id| self.start(id));
    }

    /// Lets one role act, if it is up, checks it, and hands on what it says.
    pub(crate) fn step(&mut self, id: RoleId, act: impl FnOnce(&mut Role<Echo>, &mut Outbox)) {
        let Some(role) = self.roles.get_mut(&id) else { return };
        let mut out = Outbox::default();
        act(role, &mut out);
        role.validate();
        if let (Some(disks), Role::Acceptor(acceptor)) = (&mut self.disks, &mut *role) {
            let log = disks.entry(acceptor.id()).or_default();
            loop {
                log.append(&mut out.records);
                acceptor.on_durable(acceptor.recorded());
                let Some(recall) = out.recalls.pop() else { break };
                acceptor.on_recalled(&read_back(log, recall), self.now, &mut out);
                acceptor.validate();
            }
        }
        if let (Some(files), Role::Replica(replica)) = (self.directories.get_mut(&id), &mut *role) {
            loop {
                let done = files.take(&mut out.snapshots);
                if done.is_empty() {
                    break;
                }
                for done in done {
                    replica.on_snapshot_done(done, self.now, &mut out);
                    replica.validate();
                }
            }
        }
        assert!(out.snapshots.is_empty(), "{id} orders snapshots, and has no directory");
        let formation = role.formation();
        self.events.append(&mut out.events);
        let replies = out.replies.iter();
        self.replies
            .extend(replies.map(|(caller, r)| (caller, r.map(|(at, reply)| (at, reply.to_vec())))));
        out.sends.into_iter().for_each(|to| self.send(id, Envelope { formation, to }));
        let takes = match id {
            RoleId::Acceptor(acceptor) => (self.sync_takes)(acceptor),
            RoleId::Gateway(_)
            | RoleId::Proposer(_)
            | RoleId::ProxyLeader(_)
            | RoleId::Replica(_) => Duration::ZERO,
        };
        for envelope in out.held.into_iter().map(|to| Envelope { formation, to }) {
            match takes.is_zero() {
                true => self.send(id, envelope),
                false => self.held.entry(self.now + takes).or_default().push((id, envelope)),
            }
        }
    }

    fn send(&mut self, from: RoleId, envelope: Envelope) {
        for _ in 0..(self.copies)(from, &envelope.to) {
            self.under_way.push_back(envelope.clone());
        }
        if self.keeps_sent {
            self.sent.push((from, envelope.to));
        }
    }

    /// How many records acceptors have written down, together.
    pub(crate) fn records_written(&self) -> usize {
        self.disks.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// How many bytes of values acceptors have written down, together.
    pub(crate) fn value_bytes_written(&self) -> usize {
        let records = self.disks.iter().flat_map(BTreeMap::values).flatten();
        let block_bytes = |record: &Record| match record {
            Record::Vote { vote, .. } => vote.value.batch().map_or(0, |batch| batch.block.len()),
            Record::Promise { .. }
            | Record::Revote { .. }
            | Record::Truncated { .. }
            | Record::Table { .. } => 0,
        };
        records.map(block_bytes).sum()
    }

    /// How many promises each acceptor has written down.
    pub(crate) fn promises_written(&self) -> Vec<usize> {
        let is_promise = |record: &&Record| matches!(record, Record::Promise { .. });
        let disks = self.disks.iter().flat_map(BTreeMap::values);
        disks.map(|log| log.iter().filter(is_promise).count()).collect()
    }

    /// The formation of this cluster.
    pub(crate) fn formation(&self) -> Option<FormationId> {
        self.roles.values().find_map(Role::formation)
    }

    /// How many of the messages sent so far `is_counted`, by sender and message.
    pub(crate) fn count(&self, is_counted: impl Fn(RoleId, &To) -> bool) -> usize {
        self.sent.iter().filter(|(from, to)| is_counted(*from, to)).count()
    }

    /// The replies so far, as text, by tag.
    pub(crate) fn replies(&self) -> Vec<(u64, String)> {
        let texts = self.replies.iter().map(|(caller, reply)| {
            let text = match reply {
                Ok((_, reply)) => String::from_utf8_lossy(reply).into_owned(),
                Err(why) => format!("{why:?}"),
            };
            (caller.tag, text)
        });
        texts.collect()
    }

    pub(crate) fn gateway(&self, id: u8) -> &Gateway {
        let Role::Gateway(gateway) = &self.roles[&RoleId::Gateway(GatewayId(id))] else {
            unreachable!("roles are kept by id")
        };
        gateway
    }

    pub(crate) fn proposer(&self, id: u8) -> &Proposer {
        let Role::Proposer(proposer) = &self.roles[&RoleId::Proposer(ProposerId(id))] else {
            unreachable!("roles are kept by id")
        };
        proposer
    }

    pub(crate) fn acceptor(&self, id: u8) -> &Acceptor {
        let Role::Acceptor(acceptor) = &self.roles[&RoleId::Acceptor(AcceptorId(id))] else {
            unreachable!("roles are kept by id")
        };
        acceptor
    }

    pub(crate) fn replica(&self, id: u8) -> &Replica<Echo> {
        let Role::Replica(replica) = &self.roles[&RoleId::Replica(ReplicaId(id))] else {
            unreachable!("roles are kept by id")
        };
        replica
    }

    /// Every replica that is up.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = &Replica<Echo>> {
        self.roles.values().filter_map(|role| match role {
            Role::Replica(replica) => Some(&**replica),
            Role::Gateway(_) | Role::Proposer(_) | Role::ProxyLeader(_) | Role::Acceptor(_) => None,
        })
    }

    /// Lets a gateway act.
    pub(crate) fn with_gateway(&mut self, id: u8, act: impl FnOnce(&mut Gateway, &mut Outbox)) {
        self.step(RoleId::Gateway(GatewayId(id)), |role, out| {
            let Role::Gateway(gateway) = role else { unreachable!("roles are kept by id") };
            act(gateway, out);
        });
    }
}

/// A cluster that has executed `commands` more.
pub(crate) fn worked(mut net: Net, commands: u64) -> Net {
    for tag in 0..commands {
        net.write(tag);
        net.run_for(millis(1));
    }
    net.run_for(millis(500));
    net
}
