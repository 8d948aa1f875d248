//! The state of a process's roles, for `status` and for tests.

use std::sync::Arc;
use std::time::Duration;

use loggos_net::RingCounters;
use loggos_protocol::{
    AcceptorCounters, Ballot, Event, GatewayCounters, Halt, LoggedCommand, ProposerCounters,
    ProxyLeaderCounters, ReplicaCounters, Role, RoleId, StateMachine, Time, TransferProgress,
    Watermark,
};
use serde_json::{Value, json};
use tracing::{debug, error, info, trace, warn};

use crate::log::{LogState, LogStatus};
use crate::sockets::SocketCounters;

/// The state of one role, at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RoleStatus {
    /// The role.
    pub role: RoleId,
    /// The core it lives on.
    pub core: usize,
    /// Its state, by its kind.
    pub standing: Standing,
    /// The messages it took in and sent.
    pub traffic: Traffic,
    /// The processor time it took.
    pub busy: Duration,
}

/// The state of a core and its roles.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoreStatus {
    /// Its number in its process.
    pub core: usize,
    /// Ticks that had work. Never goes down.
    pub ticks: u64,
    /// How it has spent its time.
    pub time: CoreTime,
    /// The state of its roles.
    pub roles: Vec<RoleStatus>,
    /// What its ring has sent, received and written.
    pub ring: RingCounters,
    /// `None` if it has no sockets.
    pub sockets: Option<SocketCounters>,
    /// `None` if it has no log.
    pub log: Option<LogStatus>,
}

/// How a core has spent its time since it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct CoreTime {
    /// In ticks that had work.
    pub busy: Duration,
    /// Looking for work, or waiting for its turn at a processor core that is shared.
    pub polling: Duration,
    /// Asleep.
    pub asleep: Duration,
    /// Of the time it was busy: with the turns of its callers, their commands until those are in a
    /// batch, and their results.
    pub callers: Duration,
}

/// Numbers of messages. None ever goes down while the role lives.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Taken in.
    pub messages_in: u64,
    /// Sent.
    pub messages_out: u64,
    /// Dropped while the role was paused, or waited for its disk.
    pub dropped: u64,
}

/// The state of a role, by its kind.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It was killed.
    Down,
    /// An acceptor whose log has failed, or is an older copy: it never serves again from there
    /// (R33, R34).
    Stopped {
        /// The cause.
        why: String,
    },
    /// A gateway.
    Gateway {
        /// For how long the cluster has not served it; `None` if it does (R37).
        unserved: Option<Duration>,
        /// The reason of one replica, if so many have halted that no f+1 are left.
        halted: Option<Arc<Halt>>,
        /// Its counters so far.
        counters: GatewayCounters,
    },
    /// A proposer.
    Proposer {
        /// Whether it leads.
        is_leading: bool,
        /// The ballot it leads or campaigns in.
        ballot: Option<Ballot>,
        /// Its counters so far.
        counters: ProposerCounters,
    },
    /// A proxy leader.
    ProxyLeader(ProxyLeaderCounters),
    /// An acceptor.
    Acceptor {
        /// The largest ballot it has promised.
        promised: Ballot,
        /// The slots below it are forgotten.
        truncated: Watermark,
        /// The state of its log.
        log: LogState,
        /// Its counters so far.
        counters: AcceptorCounters,
    },
    /// A replica.
    Replica(ReplicaStanding),
}

/// The state of a replica.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaStanding {
    /// The slots below it are executed.
    pub executed: Watermark,
    /// The digest of its state there.
    pub state_hash: u64,
    /// The slots below it are in a durable snapshot; zero in memory.
    pub snapshot: Watermark,
    /// The snapshot that it gets from a peer, or restores, and how far that is: while it restores
    /// one it executes nothing.
    pub transfer: Option<TransferProgress>,
    /// The bytes that this has brought in a second so far.
    pub transfer_bytes_per_second: u64,
    /// The reason why it executes no more, if so.
    pub halted: Option<Halt>,
    /// Its counters so far.
    pub counters: ReplicaCounters,
}

impl Standing {
    pub(crate) fn of<M: StateMachine>(role: &Role<M>, log: LogState, now: Time) -> Self {
        match role {
            Role::Gateway(role) => {
                let halted = role.halted(now).map(Arc::clone);
                let (unserved, counters) = (role.unserved_for(now), role.counters());
                Self::Gateway { unserved, halted, counters }
            }
            Role::Proposer(role) => Self::Proposer {
                is_leading: role.is_leading(),
                ballot: role.ballot(),
                counters: role.counters(),
            },
            Role::ProxyLeader(role) => Self::ProxyLeader(role.counters()),
            Role::Acceptor(role) => Self::Acceptor {
                promised: role.promised(),
                truncated: role.truncated(),
                log,
                counters: role.counters(),
            },
            Role::Replica(role) => Self::Replica(ReplicaStanding {
                executed: role.executed(),
                state_hash: role.state_hash(),
                snapshot: role.snapshot(),
                transfer: role.transfer_progress(),
                transfer_bytes_per_second: role.transfer_progress().map_or(0, |transfer| {
                    let nanos = now.since(transfer.since).as_nanos().max(1);
                    let bytes = u128::from(transfer.bytes) * 1_000_000_000 / nanos;
                    u64::try_from(bytes).unwrap_or(u64::MAX)
                }),
                halted: role.halted().cloned(),
                counters: role.counters(),
            }),
        }
    }

    /// Returns the state of the replica, if it is one and runs.
    #[must_use]
    pub fn replica(&self) -> Option<&ReplicaStanding> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Down
            | Self::Stopped { .. }
            | Self::Gateway { .. }
            | Self::Proposer { .. }
            | Self::ProxyLeader(_)
            | Self::Acceptor { .. } => None,
        }
    }

    /// Whether it is the proposer that leads, as far as it knows.
    #[must_use]
    pub fn is_leading(&self) -> bool {
        matches!(self, Self::Proposer { is_leading: true, .. })
    }
}

/// Whether ignored messages are logged: `trace` is on for this module.
pub(crate) fn is_tracing() -> bool {
    tracing::enabled!(tracing::Level::TRACE)
}

/// Writes an event of a role to the log of the process.
pub(crate) fn tell(event: &Event, role: RoleId) {
    match event {
        Event::Formed { .. } | Event::Elected { .. } | Event::SessionOpened { .. } => {
            info!("{role}: {event}");
        }
        Event::SteppedDown { .. }
        | Event::CampaignFailed { .. }
        | Event::Silenced { .. }
        | Event::HandedOver { .. }
        | Event::Skips { .. }
        | Event::ClockAhead { .. }
        | Event::SkipRefused { .. }
        | Event::FillRefused { .. }
        | Event::SessionLost { .. } => warn!("{role}: {event}"),
        Event::Suspected { .. } => debug!("{role}: {event}"),
        Event::Ignored { .. } => trace!("{role}: {event}"),
        Event::Forgotten { .. }
        | Event::Foreign { .. }
        | Event::NoSnapshots { .. }
        | Event::OriginsDiffer { .. }
        | Event::SnapshotSetAside { .. } => warn!("{role}: {event}"),
        Event::Equivocation { .. } | Event::Halted { .. } => error!("{role}: {event}"),
    }
}

/// Returns the state of one process's roles as JSON.
///
/// `replicas` has what replicas are compared by; `roles` everything. Cores that are `silent` have
/// not reported.
pub(crate) fn to_json(cores: &[CoreStatus], silent: &[usize]) -> Vec<u8> {
    let mut roles: Vec<&RoleStatus> = cores.iter().flat_map(|core| &core.roles).collect();
    roles.sort_by_key(|status| status.role);
    let replicas = roles.iter().filter_map(|status| {
        let replica = status.standing.replica()?;
        Some(json!({
            "role": status.role.to_string(),
            "executed_watermark": replica.executed.0,
            "state_hash": format!("{:016x}", replica.state_hash),
            "halted": replica.halted.as_ref().map(ToString::to_string),
        }))
    });
    let leader = roles.iter().find(|status| status.standing.is_leading());
    let status = json!({
        "leader": leader.map(|status| status.role.to_string()),
        "replicas": replicas.collect::<Vec<_>>(),
        "roles": roles.iter().map(|status| status.to_json()).collect::<Vec<_>>(),
        "cores": cores.iter().map(CoreStatus::to_json).collect::<Vec<_>>(),
        "silent_cores": silent,
    });
    status.to_string().into_bytes()
}

impl CoreStatus {
    fn to_json(&self) -> Value {
        let sockets = self.sockets.map(|sockets| {
            json!({
                "messages_dropped": sockets.dropped,
                "connections_refused": sockets.refused,
                "connections_evicted": sockets.evicted,
                "clients": sockets.clients,
                "clients_max": sockets.clients_max,
                "clients_turned_away": sockets.turned_away,
                "connections_malformed": sockets.malformed,
                "flushes": self.ring.flushes,
                "sends": self.ring.sends,
                "sent_frames": self.ring.sent_frames,
                "sent_bytes": self.ring.sent_bytes,
                "receives": self.ring.receives,
                "received_bytes": self.ring.received_bytes,
                "copied_bytes": sockets.copied_bytes,
                "enters": self.ring.enters,
                "syncs": self.ring.syncs,
                "synced_bytes": self.ring.synced_bytes,
            })
        });
        let log = self.log.as_ref().map(|log| {
            json!({
                "synced": log.synced,
                "segments": log.segments,
                "segments_max": log.segments_max,
                "waiting": log.waiting,
                "held": log.held,
                "writing_ms": u64::try_from(log.writing_for.as_millis()).unwrap_or(u64::MAX),
                "low": log.is_low,
                "failed": log.stopped,
            })
        });
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        json!({
            "core": self.core,
            "ticks": self.ticks,
            "busy_ns": nanos(self.time.busy),
            "polling_ns": nanos(self.time.polling),
            "asleep_ns": nanos(self.time.asleep),
            "callers_ns": nanos(self.time.callers),
            "sockets": sockets,
            "log": log,
        })
    }
}

/// The command at which a replica has halted, if its machine has panicked there.
fn halted_at(why: &Halt) -> Option<Value> {
    match why {
        Halt::Panicked { command: LoggedCommand { at, checksum }, .. } => Some(json!({
            "slot": at.slot.0,
            "index": at.index,
            "checksum": format!("{checksum:08x}"),
        })),
        Halt::Malformed { .. } | Halt::SnapshotRefused { .. } | Halt::Executed { .. } => None,
    }
}

impl ReplicaStanding {
    fn to_json(&self) -> Value {
        json!({
            "state": if self.halted.is_some() {
                "halted"
            } else if self.transfer.is_some_and(|transfer| transfer.donor.is_none()) {
                "restoring"
            } else {
                "up"
            },
            "executed_watermark": self.executed.0,
            "snapshot_watermark": self.snapshot.0,
            "state_hash": format!("{:016x}", self.state_hash),
            "halted": self.halted.as_ref().map(ToString::to_string),
            "halted_at": self.halted.as_ref().and_then(halted_at),
            "commands": self.counters.commands,
            "gaps": self.counters.gaps,
            "fetched": self.counters.fetched,
            "snapshots": self.counters.snapshots,
            "snapshots_failed": self.counters.snapshots_failed,
            "transfer": self.transfer.map(|transfer| json!({
                "donor": transfer.donor.map(|donor| format!("replica {}", donor.0)),
                "snapshot": transfer.snapshot.map(|info| info.id.at.0),
                "bytes": transfer.bytes,
                "bytes_total": transfer.snapshot.map(|info| info.bytes),
                "bytes_per_second": self.transfer_bytes_per_second,
            })),
            "transfers": self.counters.transfers,
            "restored": self.counters.restored,
        })
    }
}

impl RoleStatus {
    fn to_json(&self) -> Value {
        let standing = match &self.standing {
            Standing::Down => json!({ "state": "down" }),
            Standing::Stopped { why } => json!({ "state": "stopped", "why": why }),
            Standing::Gateway { unserved, halted, counters } => json!({
                "state": match (halted, unserved) {
                    (Some(_), _) => "halted",
                    (None, Some(_)) => "unserved",
                    (None, None) => "up",
                },
                "halted": halted.as_ref().map(ToString::to_string),
                "unserved_ms": unserved.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
                "commands": counters.commands,
                "replies": counters.replies,
                "batches": counters.batches,
                "resends": counters.resends,
                "reads": counters.reads,
                "read_replies": counters.read_replies,
                "probes": counters.probes,
                "reads_again": counters.reads_again,
                "sessions_lost": counters.sessions_lost,
                "complaints": counters.complaints,
            }),
            Standing::Proposer { is_leading, ballot, counters } => json!({
                "state": if *is_leading { "leads" } else { "follows" },
                "ballot": ballot.map(|ballot| ballot.to_string()),
                "elections": counters.elections,
                "hand_overs": counters.hand_overs,
                "dropped": counters.dropped,
            }),
            Standing::ProxyLeader(counters) => json!({
                "state": "up",
                "chosen": counters.chosen,
                "retries": counters.retries,
                "suspicions": counters.suspicions,
            }),
            Standing::Acceptor { promised, truncated, log, counters } => json!({
                "state": if *log == LogState::Hangs {
                    "disk hangs"
                } else if *log == LogState::Full {
                    "log full"
                } else if *log == LogState::Low {
                    "log low"
                } else if counters.foreign > 0 && *promised == Ballot::default() {
                    "forgotten"
                } else {
                    "up"
                },
                "promised": promised.to_string(),
                "truncated": truncated.0,
                "votes": counters.votes,
                "nacks": counters.nacks,
            }),
            Standing::Replica(replica) => replica.to_json(),
        };
        let mut role = json!({
            "role": self.role.to_string(),
            "core": self.core,
            "messages_in": self.traffic.messages_in,
            "messages_out": self.traffic.messages_out,
            "messages_dropped": self.traffic.dropped,
            "busy_ns": u64::try_from(self.busy.as_nanos()).unwrap_or(u64::MAX),
        });
        if let (Value::Object(role), Value::Object(standing)) = (&mut role, standing) {
            role.extend(standing);
        }
        role
    }
}
