//! A role, whichever it is, as a driver sees it.
//!
//! A driver owns roles and an [`Outbox`], and does no more than this: it hands messages and due
//! timers in, sends what comes out, and holds back what waits for a sync. The simulator and the
//! runtime are two such drivers.

use std::fmt;
use std::str::FromStr;

use crate::{
    Acceptor, AcceptorId, ClusterSettings, DirectoryId, Envelope, Event, FormationId, Gateway,
    GatewayId, Incarnation, Outbox, Proposer, ProposerId, ProxyLeader, ProxyLeaderId, Replica,
    ReplicaId, StateMachine, Time, To, ToAcceptor,
};

/// The name of a role of a cluster.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum RoleId {
    /// A gateway.
    Gateway(GatewayId),
    /// A proposer.
    Proposer(ProposerId),
    /// A proxy leader.
    ProxyLeader(ProxyLeaderId),
    /// An acceptor.
    Acceptor(AcceptorId),
    /// A replica.
    Replica(ReplicaId),
}

impl RoleId {
    /// The number of kinds of roles.
    pub const KINDS: usize = 5;

    /// The number of its kind, below [`KINDS`](Self::KINDS).
    #[inline]
    #[must_use]
    pub fn kind(self) -> usize {
        match self {
            Self::Gateway(_) => 0,
            Self::Proposer(_) => 1,
            Self::ProxyLeader(_) => 2,
            Self::Acceptor(_) => 3,
            Self::Replica(_) => 4,
        }
    }

    /// Its number among those of its kind.
    #[inline]
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Gateway(GatewayId(number))
            | Self::Proposer(ProposerId(number))
            | Self::ProxyLeader(ProxyLeaderId(number))
            | Self::Acceptor(AcceptorId(number))
            | Self::Replica(ReplicaId(number)) => number,
        }
    }
}

/// A life of a role that starts with a blank memory.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// The life's name, which no life of the role has had before (R2).
    pub incarnation: Incarnation,
    /// All that the role draws at random follows from it.
    pub seed: u64,
}

/// A role.
#[derive(Debug)]
pub enum Role<M> {
    /// A gateway.
    Gateway(Box<Gateway>),
    /// A proposer.
    Proposer(Box<Proposer>),
    /// A proxy leader.
    ProxyLeader(Box<ProxyLeader>),
    /// An acceptor.
    Acceptor(Box<Acceptor>),
    /// A replica.
    Replica(Box<Replica<M>>),
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRole;

impl fmt::Display for RoleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(id) => write!(f, "gateway {}", id.0),
            Self::Proposer(id) => write!(f, "proposer {}", id.0),
            Self::ProxyLeader(id) => write!(f, "proxy leader {}", id.0),
            Self::Acceptor(id) => write!(f, "acceptor {}", id.0),
            Self::Replica(id) => write!(f, "replica {}", id.0),
        }
    }
}

impl FromStr for RoleId {
    type Err = NoRole;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, NoRole> {
        let (kind, number) = text.rsplit_once(' ').ok_or(NoRole)?;
        let number = number.parse().map_err(|_| NoRole)?;
        match kind {
            "gateway" => Ok(Self::Gateway(GatewayId(number))),
            "proposer" => Ok(Self::Proposer(ProposerId(number))),
            "proxy leader" => Ok(Self::ProxyLeader(ProxyLeaderId(number))),
            "acceptor" => Ok(Self::Acceptor(AcceptorId(number))),
            "replica" => Ok(Self::Replica(ReplicaId(number))),
            _ => Err(NoRole),
        }
    }
}

impl fmt::Display for NoRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "names no role; roles are such as \"gateway 0\", \"proxy leader 1\", \"replica 2\"",
        )
    }
}

impl std::error::Error for NoRole {}

impl To {
    /// The role that this is for.
    #[inline]
    #[must_use]
    pub fn role(&self) -> RoleId {
        match self {
            Self::Gateway(id, _) => RoleId::Gateway(*id),
            Self::Proposer(id, _) => RoleId::Proposer(*id),
            Self::ProxyLeader(id, _) => RoleId::ProxyLeader(*id),
            Self::Acceptor(id, _) => RoleId::Acceptor(*id),
            Self::Replica(id, _) => RoleId::Replica(*id),
        }
    }
}

impl<M: StateMachine> Role<M> {
    /// Starts the role of `id` with a blank memory; a replica gets the `machine`, in its initial
    /// state.
    ///
    /// An acceptor in memory has a new directory in each life: it has forgotten what it knew in the
    /// last one (R4).
    pub fn start(
        cluster: ClusterSettings,
        id: RoleId,
        life: Life,
        now: Time,
        machine: impl FnOnce(ReplicaId) -> M,
    ) -> Self {
        let Life { incarnation, seed } = life;
        match id {
            RoleId::Gateway(id) => {
                Self::Gateway(Box::new(Gateway::new(cluster, id, incarnation, seed, now)))
            }
            RoleId::Proposer(id) => {
                Self::Proposer(Box::new(Proposer::new(cluster, id, incarnation, seed, now)))
            }
            RoleId::ProxyLeader(id) => Self::ProxyLeader(Box::new(ProxyLeader::new(cluster, id))),
            RoleId::Acceptor(id) => {
                let directory = DirectoryId(incarnation.0);
                Self::Acceptor(Box::new(Acceptor::new(cluster, id, directory, seed)))
            }
            RoleId::Replica(id) => {
                Self::Replica(Box::new(Replica::new(cluster, id, incarnation, machine(id))))
            }
        }
    }

    /// Hands a message to the role. One of another formation is refused here, once for all roles,
    /// but for what sets a formation up or tells of it: each role compares the tables of these.
    ///
    /// A role that knows of no formation yet takes in only such messages; so a blank replica cannot
    /// be fed slots of one cluster and then join another.
    ///
    /// source: R4, "every role and client refuses another formation"
    pub fn on_envelope(&mut self, envelope: Envelope, now: Time, out: &mut Outbox) {
        let is_same = envelope.formation.is_some() && envelope.formation == self.formation();
        if !is_same && self.refuses(&envelope, out) {
            return;
        }
        match (self, envelope.to) {
            (Self::Gateway(role), To::Gateway(_, message)) => role.on_message(message, now, out),
            (Self::Proposer(role), To::Proposer(_, message)) => role.on_message(message, now, out),
            (Self::ProxyLeader(role), To::ProxyLeader(_, message)) => {
                role.on_message(message, now, out);
            }
            (Self::Acceptor(role), To::Acceptor(_, message)) => role.on_message(message, now, out),
            (Self::Replica(role), To::Replica(_, message)) => role.on_message(message, now, out),
            (role, to) => panic!("{:?} was handed a message to {:?}", role.id(), to.role()),
        }
    }

    /// Whether it refuses a message that is not, or not known to be, of its formation.
    #[cold]
    fn refuses(&self, envelope: &Envelope, out: &mut Outbox) -> bool {
        let is_foreign = envelope.formation.is_some() && self.formation().is_some();
        // A complaint has no table to compare: one of another formation would depose our leader.
        let is_complaint = matches!(envelope.to, To::Acceptor(_, ToAcceptor::Unserved(_)));
        if envelope.to.precedes_formation() && !(is_foreign && is_complaint) {
            return false;
        }
        if is_foreign {
            out.event(Event::Foreign { at: "role: on_envelope" });
        } else {
            out.ignored("any message: its sender, or this role, knows of no formation yet");
        }
        true
    }

    /// Takes in that the life of another role has ended, as far as the driver can tell: its process
    /// has closed its connections, and no process answers at its address.
    ///
    /// source: R28, R29
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        match self {
            Self::Acceptor(role) => role.on_gone(gone),
            Self::Proposer(role) => role.on_gone(gone, now, out),
            Self::ProxyLeader(role) => role.on_gone(gone, now, out),
            Self::Gateway(role) => role.on_gone(gone, now, out),
            Self::Replica(_) => {}
        }
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        match self {
            Self::Gateway(role) => role.on_time(now, out),
            Self::Proposer(role) => role.on_time(now, out),
            Self::ProxyLeader(role) => role.on_time(now, out),
            Self::Acceptor(_) => {} // has no timers
            Self::Replica(role) => role.on_time(now, out),
        }
    }

    /// The time when the next timer fires.
    pub fn next_timeout(&mut self) -> Option<Time> {
        match self {
            Self::Gateway(role) => role.timers().next_at(),
            Self::Proposer(role) => role.timers().next_at(),
            Self::ProxyLeader(role) => role.timers().next_at(),
            Self::Acceptor(_) => None,
            Self::Replica(role) => role.timers().next_at(),
        }
    }

    /// The role's id.
    #[must_use]
    pub fn id(&self) -> RoleId {
        match self {
            Self::Gateway(role) => RoleId::Gateway(role.id()),
            Self::Proposer(role) => RoleId::Proposer(role.id()),
            Self::ProxyLeader(role) => RoleId::ProxyLeader(role.id()),
            Self::Acceptor(role) => RoleId::Acceptor(role.id()),
            Self::Replica(role) => RoleId::Replica(role.id()),
        }
    }

    /// The formation it belongs to, with which the driver marks all that it sends.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        match self {
            Self::Gateway(role) => role.formation(),
            Self::Proposer(role) => role.formation(),
            Self::ProxyLeader(role) => role.formation(),
            Self::Acceptor(role) => role.formation(),
            Self::Replica(role) => role.formation(),
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        match self {
            Self::Gateway(role) => role.validate(),
            Self::Proposer(role) => role.validate(),
            Self::ProxyLeader(role) => role.validate(),
            Self::Acceptor(role) => role.validate(),
            Self::Replica(role) => role.validate(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{At, QuorumSystem, Reply, Settings};

    /// A machine that knows its replica.
    struct Owned(ReplicaId);

    impl StateMachine for Owned {
        fn apply(&mut self, _: At, _: &[u8], _: &mut Reply<'_>) {}

        fn state_hash(&self) -> u64 {
            self.0.0.into()
        }
    }

    #[test]
    fn a_role_is_who_it_was_started_as() {
        let settings = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap());
        let cluster = Settings { gateways: 2, ..settings }.check().unwrap();
        let life = Life { incarnation: Incarnation(1), seed: 2 };
        for id in [
            RoleId::Gateway(GatewayId(1)),
            RoleId::Proposer(ProposerId(1)),
            RoleId::ProxyLeader(ProxyLeaderId(1)),
            RoleId::Acceptor(AcceptorId(3)),
            RoleId::Replica(ReplicaId(2)),
        ] {
            let role = Role::start(cluster.clone(), id, life, Time(0), Owned);
            assert_eq!(role.id(), id);
            let Role::Replica(replica) = role else { continue };
            assert_eq!(replica.machine().state_hash(), 2, "the machine of another replica");
        }
    }

    #[test]
    fn a_role_reads_back_from_its_name() {
        for role in [
            RoleId::Gateway(GatewayId(0)),
            RoleId::Proposer(ProposerId(1)),
            RoleId::ProxyLeader(ProxyLeaderId(2)),
            RoleId::Acceptor(AcceptorId(63)),
            RoleId::Replica(ReplicaId(4)),
        ] {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        for text in ["", "replica", "replica x", "replica 256", "disk 0"] {
            assert_eq!(text.parse::<RoleId>(), Err(NoRole), "{text}");
        }
    }
}
