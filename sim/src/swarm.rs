//! Swarm testing: each seed draws its own cluster, load and faults, so that runs differ in kind and
//! not just in detail.

use std::time::Duration;

use loggos_protocol::{ClusterSettings, QuorumSystem, ReplicaId, Rng, Settings, Watermark};
use loggos_storage::{Bounds, Options};

use crate::network::NetworkPlan;
use crate::recorder::CommandId;
use crate::trap::{TrapKind, TrapPlan};

/// All that a run is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everything else was drawn from.
    pub seed: u64,
    /// The cluster.
    pub cluster: ClusterSettings,
    pub(crate) network: NetworkPlan,
    pub(crate) faults: FaultPlan,
    pub(crate) load: LoadPlan,
    /// Whether up to f of each role stay outside when all else heals.
    pub(crate) has_outsiders: bool,
    /// Where the log starts, if from a snapshot of another cluster.
    pub(crate) origin: Option<Watermark>,
    /// At which command the state machine panics, if at any.
    pub(crate) trap: Option<TrapPlan>,
}

/// The faults of the processes.
#[derive(Clone, Debug)]
pub(crate) struct FaultPlan {
    /// The time when faults start: usually once the cluster has formed.
    pub(crate) from: Duration,
    /// The time when everything heals.
    pub(crate) until: Duration,
    /// The mean time between two faults.
    pub(crate) every: Duration,
    /// The longest a process is paused, or down before it restarts.
    pub(crate) down_max: Duration,
    /// The longest that a sync takes.
    pub(crate) sync_max: Duration,
    /// Percent of faults that are crashes; the others are pauses.
    pub(crate) crash_percent: u64,
    /// Percent of faults that hit a whole quorum: it is paused.
    pub(crate) quorum_percent: u64,
    /// How wrong clocks are set at the most, how much too fast or slow they run in a million parts,
    /// and how far they jump ahead.
    pub(crate) clock_skew_max: Duration,
    pub(crate) clock_drift_parts: u64,
    pub(crate) clock_jump_max: Duration,
    /// Whether more may be lost than the cluster survives: then only safety is checked.
    pub(crate) is_reckless: bool,
    /// Whether an acceptor or replica that has crashed stays down, even when all else heals.
    pub(crate) is_for_good: bool,
    /// The acceptors' disks; `None` if they have only memory.
    pub(crate) disks: Option<DiskPlan>,
}

/// The faults of the disks.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    pub(crate) options: Options,
    /// What may wait for the disk.
    pub(crate) bounds: Bounds,
    /// Percent of crashes that take the machine down, and what was not synced.
    pub(crate) power_percent: u64,
    /// Percent of crashes of all processes at once.
    pub(crate) blackout_percent: u64,
    /// Percent of faults after which an acceptor's disk fails, or is the last thing to work.
    pub(crate) failure_percent: u64,
    /// Percent of crashes after which a disk is damaged, if the cluster can do without that
    /// acceptor.
    pub(crate) damage_percent: u64,
    /// Percent of operations that take up to `slow_max`.
    pub(crate) slow_percent: u64,
    pub(crate) slow_max: Duration,
    /// Percent of faults after which an acceptor's disk hangs, for up to `hang_max`.
    pub(crate) hang_percent: u64,
    pub(crate) hang_max: Duration,
    /// Percent of a replica's crashes after which its directory is empty, if the cluster can do
    /// without what was in it.
    pub(crate) wipe_percent: u64,
    /// The number of segments that there is room for until all has healed.
    pub(crate) capacity_segments: Option<u32>,
    /// How long syncs take when all has healed, until every client is served; and whether on all
    /// disks or on f.
    pub(crate) healed_sync: Duration,
    pub(crate) are_all_slow: bool,
    /// The number of acceptors that share a process, a disk and a log.
    pub(crate) acceptors_per_log: u8,
}

/// The load of the clients.
#[derive(Clone, Debug)]
pub(crate) struct LoadPlan {
    pub(crate) clients_per_gateway: u32,
    /// Commands that each client has under way at once.
    pub(crate) pipeline: u32,
    /// Percent of turns in which a client submits what it may; in the others it rests.
    pub(crate) eager_percent: u64,
    /// Commands after which a client is done.
    pub(crate) commands_per_client: u32,
    pub(crate) command_bytes_max: u64,
    pub(crate) keys: u64,
    /// Clients that go from gateway to gateway, and the numbers that each may have without an
    /// answer.
    pub(crate) movers: u32,
    pub(crate) mover_window: u32,
    /// Clients that read, and the reads that each has under way at once, and after which it is
    /// done.
    pub(crate) readers_per_gateway: u32,
    pub(crate) reads_under_way: u32,
    pub(crate) reads_per_reader: u32,
}

impl Plan {
    /// Draws the plan of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5EED_0F5A_11CE);
        let cluster = draw_cluster(&mut rng, seed);
        let is_calm = rng.below(10) == 0;
        let percent = |rng: &mut Rng, most: u64| if is_calm { 0 } else { rng.below(most + 1) };
        let network = NetworkPlan {
            loss_percent: percent(&mut rng, 20),
            copy_percent: percent(&mut rng, 20),
            damage_percent: percent(&mut rng, 3),
            slow_percent: percent(&mut rng, 10),
            delay_max: Duration::from_micros(100 + rng.below(5_000)),
            slow_max: Duration::from_millis(10 + rng.below(1_500)),
            partition_percent: percent(&mut rng, 60),
            slow_node_percent: percent(&mut rng, 40),
            slow_node_max: Duration::from_millis(1 + rng.below(200)),
            lagging: draw_lagging(&mut Rng::new(seed ^ 0x0001_A661), cluster.replicas),
            link_messages_max: draw_link(&mut Rng::new(seed ^ 0x0011_4B5F)),
        };
        let from = if rng.below(10) == 0 { 0 } else { 400 };
        let faults = FaultPlan {
            from: Duration::from_millis(from),
            until: Duration::from_millis(2_000 + rng.below(3_000)),
            every: Duration::from_millis(if is_calm { 60_000 } else { 20 + rng.below(300) }),
            down_max: Duration::from_millis(50 + rng.below(1_500)),
            sync_max: Duration::from_micros(rng.below(3_000)),
            crash_percent: rng.below(101),
            quorum_percent: rng.below(10),
            clock_skew_max: Duration::from_millis(rng.below(3) * rng.below(2_000)),
            clock_drift_parts: rng.below(2) * rng.below(50_000),
            clock_jump_max: Duration::from_millis(rng.below(3) * rng.below(1_000)),
            is_reckless: rng.below(30) == 0,
            is_for_good: rng.below(4) == 0,
            disks: draw_disks(&mut rng, seed, cluster.election_timeout),
        };
        let (movers, mover_window) = draw_movers(&cluster, seed);
        let mut readers = Rng::new(seed ^ 0x0000_4EAD);
        let load = LoadPlan {
            clients_per_gateway: 1 + small(&mut rng, 6),
            pipeline: 1 + small(&mut rng, 8),
            // Clients that rest are still at it when the second and third leader fall.
            eager_percent: if rng.below(2) == 0 { 100 } else { 1 + rng.below(4) },
            commands_per_client: 50 + small(&mut rng, 400),
            command_bytes_max: 1 + rng.below(200),
            keys: 3 + rng.below(40),
            movers,
            mover_window,
            readers_per_gateway: small(&mut readers, 3),
            reads_under_way: 1 + small(&mut readers, 6),
            reads_per_reader: 20 + small(&mut readers, 200),
        };
        let (load, disks) = match cluster.command_bytes_max {
            LONG_BYTES => lengthen(load, faults.disks),
            _ => (load, faults.disks),
        };
        let faults = FaultPlan { disks, ..faults };
        // In the others all come back, and have to catch up.
        let has_outsiders = Rng::new(seed ^ 0x0007_51DE).below(4) != 0;
        let mut origins = Rng::new(seed ^ 0x000_0516_1A5E);
        let has_origin = faults.disks.is_some() && origins.below(4) == 0;
        let start = 1 + origins.below(cluster.slot_window.into());
        let origin = has_origin.then_some(Watermark(start));
        let plan = Self { seed, cluster, network, faults, load, has_outsiders, origin, trap: None };
        plan.with_trap()
    }

    /// Draws a command at which machines panic, for some of the clusters whose replicas can start
    /// over from their disks. All replicas are needed then, in the end.
    fn with_trap(mut self) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x0000_7EA9);
        let Some(disks) = self.faults.disks.as_mut().filter(|_| rng.below(5) == 0) else {
            return self;
        };
        let kinds = [TrapKind::Everywhere, TrapKind::Everywhere, TrapKind::OnSome, TrapKind::Once];
        let kind = kinds[usize::try_from(rng.below(4)).unwrap_or(0)];
        // That of a gateway, or of a client that goes from one to another.
        let lives = u64::from(self.cluster.gateways) + u64::from(self.load.movers);
        let life = u32::try_from(rng.below(lives)).unwrap_or(0);
        let command = CommandId { life, number: small(&mut rng, 40) };
        if kind == TrapKind::Once {
            // A restart while a command is skipped would execute it (R38).
            disks.failure_percent = 0;
        }
        (self.has_outsiders, self.faults.is_for_good, self.faults.is_reckless) =
            (false, false, false);
        self.trap = Some(TrapPlan { command, kind });
        self
    }

    /// Whether the machines of some replicas panic at what the others execute.
    pub(crate) fn has_trap_on_some(&self) -> bool {
        self.trap.is_some_and(|trap| trap.kind == TrapKind::OnSome)
    }
}

/// How long a command and a reply may be where they are long.
const LONG_BYTES: u32 = 2 << 20;

/// Has clients submit a few long commands, for which disks have longer segments.
fn lengthen(load: LoadPlan, disks: Option<DiskPlan>) -> (LoadPlan, Option<DiskPlan>) {
    let disks = disks.map(|disks| {
        let options = Options { segment_bytes: 8 << 20, ..disks.options };
        let bounds =
            Bounds { gathered_bytes_max: disks.bounds.gathered_bytes_max << 10, ..disks.bounds };
        DiskPlan { options, bounds, ..disks }
    });
    let load = LoadPlan {
        clients_per_gateway: load.clients_per_gateway.min(2),
        pipeline: load.pipeline.min(2),
        commands_per_client: 4 + load.commands_per_client % 8,
        command_bytes_max: u64::from(LONG_BYTES / 2) - 1_000, // a compare-and-set has two values
        ..load
    };
    (load, disks)
}

/// Draws a replica that lags, for a third of the clusters.
fn draw_lagging(rng: &mut Rng, replicas: u8) -> Option<(ReplicaId, Duration)> {
    let lags = rng.below(3) == 0;
    let replica = ReplicaId(small_u8(rng, replicas.into()));
    let most = Duration::from_millis(5 + rng.below(60));
    lags.then_some((replica, most))
}

/// Draws the number of clients that go from gateway to gateway, for half of the clusters, and what
/// each may have without an answer.
fn draw_movers(cluster: &ClusterSettings, seed: u64) -> (u32, u32) {
    let mut rng = Rng::new(seed ^ 0x0000_A10F);
    let movers = if rng.below(2) == 0 { 1 + small(&mut rng, 4) } else { 0 };
    (movers, 1 + small(&mut rng, cluster.session_window.into()))
}

fn draw_link(rng: &mut Rng) -> Option<u32> {
    (rng.below(3) == 0).then(|| 8 << rng.below(6))
}

fn draw_disks(rng: &mut Rng, seed: u64, election_timeout: Duration) -> Option<DiskPlan> {
    let (slowness, wipes) = (&mut Rng::new(seed ^ 0xD15C), &mut Rng::new(seed ^ 0x0001_7EED));
    let options = Options {
        segment_bytes: (64 * 1024) << rng.below(3),
        segments_max: 1 << 16,
        segments_reserve: 2,
        write_bytes_max: 4096 << rng.below(2),
    };
    let plan = DiskPlan {
        options,
        power_percent: rng.below(101),
        blackout_percent: rng.below(10),
        failure_percent: rng.below(50),
        damage_percent: rng.below(30),
        slow_percent: rng.below(3),
        slow_max: Duration::from_millis(1 + rng.below(1_000)),
        bounds: Bounds {
            held_max: 8 << slowness.below(8),
            gathered_bytes_max: (4 << 10) << slowness.below(8),
        },
        hang_percent: slowness.below(2) * slowness.below(10),
        hang_max: Duration::from_millis(100 + slowness.below(5_000)),
        healed_sync: match slowness.below(3) {
            0 => election_timeout * (1 + small(slowness, 3)),
            _ => Duration::ZERO,
        },
        are_all_slow: slowness.below(2) == 0,
        capacity_segments: (slowness.below(2) == 0).then(|| 3 + small(slowness, 4)),
        wipe_percent: wipes.below(60),
        acceptors_per_log: if slowness.below(4) == 0 { 2 } else { 1 },
    };
    (rng.below(2) == 0).then_some(plan)
}

fn small(rng: &mut Rng, below: u64) -> u32 {
    u32::try_from(rng.below(below)).unwrap_or(0)
}

fn small_u8(rng: &mut Rng, below: u64) -> u8 {
    u8::try_from(rng.below(below)).unwrap_or(0)
}

fn draw_cluster(rng: &mut Rng, seed: u64) -> ClusterSettings {
    // Sequences of their own: what is drawn from the other one stays as it was.
    let transfers = &mut Rng::new(seed ^ 0x0005_4A95);
    let checkpoints = &mut Rng::new(seed ^ 0x00C4_EC4B);
    let f = if rng.below(4) == 0 { 2 } else { 1 };
    let quorums = match rng.below(4) {
        0 => QuorumSystem::majority(f),
        1 => {
            // Any pair of sizes that meet, with one acceptor more than it takes.
            let acceptors = 2 * f + 2;
            let write = f + 1 + small_u8(rng, 2);
            QuorumSystem::flexible(acceptors, acceptors - write + 1, write, f)
        }
        _ => QuorumSystem::grid(f + 1 + small_u8(rng, 3), f + 1 + small_u8(rng, 2), f),
    };
    let mut settings = Settings::new(f, quorums.expect("drawn within the limits"));
    settings.proposers = f + 1 + small_u8(rng, 2);
    settings.proxy_leaders = [0, f + 1, f + 2][usize::from(small_u8(rng, 3))];
    settings.replicas = (2 * f + 1 + small_u8(rng, 2)) - if rng.below(8) == 0 { f } else { 0 };
    settings.gateways = 1 + small_u8(rng, 3);
    settings.slot_window = 8 << rng.below(5);
    settings.batch_commands_max = 1 + small(rng, 8);
    settings.session_window = settings.batch_commands_max + small(rng, 64);
    let few_sessions = u32::from(settings.gateways).max(2);
    settings.sessions_max = if rng.below(10) < 4 { few_sessions } else { 64 };
    let clients = &mut Rng::new(seed ^ 0x000C_11E7);
    settings.client_sessions_max = if clients.below(2) == 0 { 4 + small(clients, 3) } else { 64 };
    if clients.below(2) == 0 {
        settings.client_session_unused_max = Duration::from_millis(1_500 + clients.below(2_500));
    }
    settings.clock_jump_max = Duration::from_millis(20 + clients.below(1_000));
    settings.batches_in_flight_max = 1 + small(rng, 16);
    settings.command_bytes_max = 512;
    settings.batch_bytes_max = 600 + small(rng, 2_000);
    settings.batch_delay = Duration::from_micros(rng.below(3) * 300);
    settings.page_slots_max = 1 + small(rng, 16);
    settings.heartbeat_interval = Duration::from_millis(10 + rng.below(40));
    settings.election_timeout = settings.heartbeat_interval * (3 + small(rng, 4));
    settings.page_bytes_max = 100 + small(rng, 5_000);
    settings.snapshot_part_bytes = 1 + small(transfers, 4_000);
    // As fast as it takes to get the longest state twice within the bound of a run: the first copy
    // may be of no more use once it is there.
    settings.transfer_bytes_per_second_max = 10_000 << transfers.below(7);
    settings.transfer_log_bytes_max = 2_000 << transfers.below(8);
    settings.checkpoint_interval = 5 + small(checkpoints, 200);
    settings.checkpoint_bytes = 1_000 << checkpoints.below(8);
    settings.checkpoint_bytes_per_second_max = 5_000 << checkpoints.below(8);
    settings.reply_bytes_max = match transfers.below(4) {
        0 => 16 + small(transfers, 100),
        _ => 512,
    };
    settings.answers_bytes_max = settings.reply_bytes_max
        + match transfers.below(2) {
            0 => 1 + small(transfers, 1 << 11),
            _ => 1 << 20,
        };
    settings.results_bytes_max = 1 << transfers.below(12);
    if transfers.below(24) == 0 {
        settings.command_bytes_max = LONG_BYTES;
        settings.batch_bytes_max = 2 * LONG_BYTES;
        settings.reply_bytes_max = LONG_BYTES;
        settings.answers_bytes_max = 3 * LONG_BYTES;
        settings.results_bytes_max = 100_000 + small(transfers, 2_000_000);
        settings.page_bytes_max = 256 << 10;
        settings.snapshot_part_bytes = 60 << 10;
        settings.transfer_bytes_per_second_max = 64 << 20;
        settings.transfer_log_bytes_max = 16 << 20;
        settings.checkpoint_bytes = 4 << 20;
        settings.checkpoint_bytes_per_second_max = 64 << 20;
    }
    settings.check().expect("drawn within the limits")
}
