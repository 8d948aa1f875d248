//! A whole cluster on one thread, with nothing between its roles.

use loggos_protocol::{
    At, Caller, ClientId, ClusterSettings, Envelope, GatewayId, Incarnation, Items, Life, Outbox,
    QuorumSystem, ReplicaId, Reply, Role, RoleId, RunReplies, Settings, StateMachine, Time, To,
};

/// Reads every byte of every command, and answers nothing: what replicas at least have to do.
#[derive(Clone, Debug, Default)]
pub struct Reader(u64);

impl StateMachine for Reader {
    fn apply(&mut self, _: At, command: &[u8], _: &mut Reply<'_>) {
        self.read(command);
    }

    fn apply_run(&mut self, _: At, commands: Items<'_>, replies: &mut RunReplies<'_>) {
        for command in commands {
            self.read(command);
            drop(replies.reply());
        }
    }

    fn state_hash(&self) -> u64 {
        self.0
    }
}

impl Reader {
    /// Reads all of a command.
    pub fn read(&mut self, command: &[u8]) {
        let (words, rest) = command.as_chunks::<8>();
        for word in words {
            self.0 = self.0.rotate_left(5) ^ u64::from_le_bytes(*word);
        }
        for byte in rest {
            self.0 = self.0.rotate_left(5) ^ u64::from(*byte);
        }
    }
}

/// A cluster whose messages are function calls.
#[derive(Debug)]
pub struct Line {
    roles: Vec<Role<Reader>>,
    /// Where each kind of role starts: gateways, proposers, proxy leaders, acceptors, replicas.
    starts: [usize; 5],
    inboxes: Vec<Vec<Envelope>>,
    out: Outbox,
    now: Time,
    command: Vec<u8>,
    replies: u64,
}

/// The cluster that the figures are for: f = 1, two proxy leaders, a 2 × 2 grid, three replicas.
///
/// # Panics
///
/// If `batch_commands` or `window` are none that a cluster can have.
#[must_use]
pub fn settings(batch_commands: u32, window: u32) -> ClusterSettings {
    let grid = QuorumSystem::grid(2, 2, 1).expect("a 2 × 2 grid survives one loss");
    let mut settings = Settings::new(1, grid);
    settings.batch_commands_max = batch_commands;
    settings.batches_in_flight_max = window;
    settings.session_window = window * batch_commands * 2;
    settings.slot_window = window.next_power_of_two();
    settings.check().expect("the benchmarks keep within the limits")
}

impl Line {
    /// Starts a cluster, and lets it elect its leader. Commands have `command_bytes`.
    #[must_use]
    pub fn new(cluster: &ClusterSettings, command_bytes: usize) -> Self {
        let now = Time(1_000_000_000);
        let acceptors = cluster.quorums.acceptors();
        let ids: [Vec<RoleId>; 5] = [
            (0..cluster.gateways).map(|id| RoleId::Gateway(GatewayId(id))).collect(),
            cluster.all_proposers().map(RoleId::Proposer).collect(),
            cluster.all_proxy_leaders().map(RoleId::ProxyLeader).collect(),
            acceptors.iter().map(RoleId::Acceptor).collect(),
            (0..cluster.replicas).map(|id| RoleId::Replica(ReplicaId(id))).collect(),
        ];
        let (mut roles, mut starts) = (Vec::new(), [0; 5]);
        for (start, ids) in starts.iter_mut().zip(ids) {
            *start = roles.len();
            for id in ids {
                let seed = 1 + roles.len() as u64;
                let life = Life { incarnation: Incarnation(seed), seed };
                roles.push(Role::start(cluster.clone(), id, life, now, |_| Reader::default()));
            }
        }
        let mut line = Self {
            inboxes: roles.iter().map(|_| Vec::new()).collect(),
            roles,
            starts,
            out: Outbox::default(),
            now,
            command: vec![b'c'; command_bytes],
            replies: 0,
        };
        for _ in 0..2_000 {
            line.pass(std::time::Duration::from_millis(1));
        }
        assert!(line.is_ready(), "no leader after two seconds of virtual time");
        line
    }

    /// Submits `commands`, and lets all roles work until every reply is back. Returns how many
    /// slots that took.
    pub fn run(&mut self, commands: u32) -> u64 {
        let before = (self.slots(), self.replies);
        self.now.0 += 1_000;
        for tag in 0..u64::from(commands) {
            let Role::Gateway(gateway) = &mut self.roles[0] else { unreachable!("the first role") };
            let caller = Caller { client: ClientId(0), tag };
            gateway.submit(caller, self.command[..].into(), self.now, &mut self.out);
        }
        if let Role::Gateway(gateway) = &mut self.roles[0] {
            gateway.flush(self.now, &mut self.out);
        }
        self.post(0);
        self.exchange();
        assert_eq!(self.replies - before.1, u64::from(commands), "some have no reply");
        // Replicas tell how far they are by timer, and the leader has credit again.
        self.pass(std::time::Duration::from_millis(10));
        self.slots() - before.0
    }

    /// Lets time pass, and all that follows from it happen.
    fn pass(&mut self, time: std::time::Duration) {
        self.now = self.now + time;
        for index in 0..self.roles.len() {
            self.roles[index].on_time(self.now, &mut self.out);
            self.post(index);
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        let mut inbox = Vec::new();
        let mut is_quiet = false;
        while !is_quiet {
            is_quiet = true;
            for index in 0..self.roles.len() {
                std::mem::swap(&mut inbox, &mut self.inboxes[index]);
                is_quiet &= inbox.is_empty();
                for envelope in inbox.drain(..) {
                    self.roles[index].on_envelope(envelope, self.now, &mut self.out);
                }
                std::mem::swap(&mut inbox, &mut self.inboxes[index]);
                self.post(index);
            }
        }
    }

    /// Moves what a role says to those it says it to; in memory, what is held waits for nothing.
    fn post(&mut self, index: usize) {
        let formation = self.roles[index].formation();
        let Self { out, inboxes, starts, .. } = self;
        for lane in [&mut out.sends, &mut out.held] {
            for to in lane.drain(..) {
                inboxes[place(starts, &to)].push(Envelope { formation, to });
            }
        }
        self.replies += out.replies.iter().count() as u64;
        out.replies.clear();
        out.events.clear();
    }

    fn is_ready(&self) -> bool {
        let gateway = &self.roles[0];
        matches!(gateway, Role::Gateway(gateway) if gateway.session().is_some())
    }

    fn slots(&self) -> u64 {
        let replica = &self.roles[self.starts[4]];
        let Role::Replica(replica) = replica else { unreachable!("replicas are last") };
        replica.executed().0
    }
}

fn place(starts: &[usize; 5], to: &To) -> usize {
    let role = to.role();
    starts[role.kind()] + usize::from(role.number())
}
