//! How the roles of a process stand, for `status` and for tests.

use std::time::Duration;

use loggos_protocol::{
    AcceptorCounters, Ballot, Event, GatewayCounters, Halt, ProposerCounters, ProxyLeaderCounters,
    ReplicaCounters, Role, RoleId, StateMachine, Watermark,
};
use tracing::{debug, error, info, warn};

/// One role, at one moment.
#[derive(Clone, Debug)]
pub struct RoleStatus {
    /// Which.
    pub role: RoleId,
    /// The core it lives on.
    pub core: usize,
    /// How it stands.
    pub standing: Standing,
    /// What went through it.
    pub traffic: Traffic,
    /// Processor time that it took.
    pub busy: Duration,
}

/// Messages through a role.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Taken in.
    pub messages_in: u64,
    /// Sent.
    pub messages_out: u64,
    /// Dropped because it took in nothing.
    pub dropped: u64,
}

/// How a role stands, by its kind.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It was killed.
    Down,
    /// A gateway.
    Gateway(GatewayCounters),
    /// A proposer.
    Proposer {
        /// Whether it leads.
        is_leading: bool,
        /// The ballot it leads or campaigns in.
        ballot: Option<Ballot>,
        /// What it did.
        counters: ProposerCounters,
    },
    /// A proxy leader.
    ProxyLeader(ProxyLeaderCounters),
    /// An acceptor.
    Acceptor {
        /// What it has promised.
        promised: Ballot,
        /// What it has forgotten.
        truncated: Watermark,
        /// What it did.
        counters: AcceptorCounters,
    },
    /// A replica.
    Replica(ReplicaStanding),
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct ReplicaStanding {
    /// How far it is.
    pub executed: Watermark,
    /// Its state's digest there.
    pub state_hash: u64,
    /// Why it goes no further.
    pub halted: Option<Halt>,
    /// What it did.
    pub counters: ReplicaCounters,
}

impl Standing {
    pub(crate) fn of<M: StateMachine>(role: &Role<M>) -> Self {
        match role {
            Role::Gateway(role) => Self::Gateway(role.counters()),
            Role::Proposer(role) => Self::Proposer {
                is_leading: role.is_leading(),
                ballot: role.ballot(),
                counters: role.counters(),
            },
            Role::ProxyLeader(role) => Self::ProxyLeader(role.counters()),
            Role::Acceptor(role) => Self::Acceptor {
                promised: role.promised(),
                truncated: role.truncated(),
                counters: role.counters(),
            },
            Role::Replica(role) => Self::Replica(ReplicaStanding {
                executed: role.executed(),
                state_hash: role.machine().state_hash(),
                halted: role.halted().cloned(),
                counters: role.counters(),
            }),
        }
    }

    /// How the replica stands, if it is one and runs.
    #[must_use]
    pub fn replica(&self) -> Option<&ReplicaStanding> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Down
            | Self::Gateway(_)
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

/// Tells an event to whoever reads the log.
pub(crate) fn tell(event: &Event) {
    match event {
        Event::Formed { .. } | Event::Elected { .. } | Event::SessionOpened { .. } => {
            info!(?event);
        }
        Event::SteppedDown { .. }
        | Event::CampaignFailed { .. }
        | Event::Silenced { .. }
        | Event::SessionLost { .. } => warn!(?event),
        Event::Suspected { .. } => debug!(?event),
        Event::Forgotten { .. } | Event::Foreign { .. } => warn!(?event),
        Event::Equivocation { .. } | Event::Halted { .. } => error!(?event),
    }
}
