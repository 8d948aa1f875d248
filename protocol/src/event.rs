//! News that a person should read, or a simulator check.

use std::fmt;
use std::time::Duration;

use crate::{
    AcceptorId, Ballot, FormationId, GatewayId, LoggedCommand, ProposerId, ProxyLeaderId,
    ReplicaId, SessionId, Slot, SnapshotId, Watermark,
};

/// News that a person should read, or a simulator check.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Event {
    /// The cluster's table stands.
    Formed {
        /// The proposer that found out.
        proposer: ProposerId,
        /// The table's hash.
        formation: FormationId,
    },
    /// A proposer leads.
    Elected {
        /// In which ballot.
        ballot: Ballot,
        /// The first slot its phase 1 covered.
        first: Slot,
        /// The first slot it is free to fill.
        next: Slot,
        /// Holes it fills with no-ops.
        noops: u64,
    },
    /// A proposer no longer leads.
    SteppedDown {
        /// The ballot it led or campaigned in.
        ballot: Ballot,
        /// The ballot it met.
        promised: Ballot,
    },
    /// A campaign got no read quorum in time.
    CampaignFailed {
        /// Its ballot.
        ballot: Ballot,
    },
    /// A leader cannot reach its acceptors, or chooses nothing, and falls silent towards acceptors
    /// and proposers, so that another may lead.
    Silenced {
        /// Its ballot.
        ballot: Ballot,
    },
    /// A leader hands over, because a gateway does not reach it.
    HandedOver {
        /// Its ballot.
        ballot: Ballot,
        /// The gateway that gets no answers.
        unserved: GatewayId,
    },
    /// A proxy leader has an acceptor under suspicion, or no longer.
    Suspected {
        /// The proxy leader that suspects.
        proxy_leader: ProxyLeaderId,
        /// The acceptor.
        acceptor: AcceptorId,
        /// Whether it does now.
        suspected: bool,
    },
    /// An acceptor is not the one that the table has in its place: it has forgotten, and does not
    /// count (R4).
    Forgotten {
        /// Which.
        acceptor: AcceptorId,
    },
    /// Replicas were restored from different snapshots, or some from none: no cluster is formed of
    /// them (R4).
    OriginsDiffer {
        /// The proposer that found out.
        proposer: ProposerId,
    },
    /// A sender of another formation, or configured apart, was refused (R3, R4).
    Foreign {
        /// The place where it was refused.
        at: &'static str,
    },
    /// One ballot, two values for a slot: its proposer broke R2.
    Equivocation {
        /// Which acceptor refused it.
        acceptor: AcceptorId,
        /// The ballot.
        ballot: Ballot,
        /// The slot.
        slot: Slot,
    },
    /// A replica can go no further, and says why.
    Halted {
        /// Which.
        replica: ReplicaId,
        /// Where it stands.
        executed: Watermark,
        /// Why.
        why: Halt,
    },
    /// A proposer's clock is ahead of acceptors': the log's time stands still while it leads, until
    /// they have caught up (R26).
    ClockAhead {
        /// By how much.
        by: Duration,
    },
    /// A gateway has reads wait for slots far beyond what a leader proposes: another leads by now,
    /// or the gateway is wrong (R20).
    FillRefused {
        /// The gateway.
        gateway: GatewayId,
        /// Its bound.
        to: Watermark,
        /// The leader's first free slot.
        next: Slot,
    },
    /// A leader was told to skip a command, and does not.
    SkipRefused {
        /// The command.
        command: LoggedCommand,
        /// Why not.
        why: &'static str,
    },
    /// A replica that has halted begins another life, in which it skips a command.
    Skips {
        /// Which.
        replica: ReplicaId,
        /// The command.
        command: LoggedCommand,
    },
    /// The state machine has no snapshots: a peer that is too far behind for the log that is left
    /// cannot be brought up, and acceptors' logs on disk cannot be truncated.
    NoSnapshots {
        /// The replica whose state machine it is.
        replica: ReplicaId,
    },
    /// A stored snapshot cannot be restored, and is set aside.
    SnapshotSetAside {
        /// The replica whose snapshot it is.
        replica: ReplicaId,
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A message was ignored. Noted only while [`Outbox::is_tracing`](crate::Outbox::is_tracing).
    Ignored {
        /// The message, and why.
        why: &'static str,
    },
    /// A gateway has a session.
    SessionOpened {
        /// The gateway.
        gateway: GatewayId,
        /// The session.
        session: SessionId,
    },
    /// A gateway lost its session, and with it the outcome of what it had under way.
    SessionLost {
        /// The gateway.
        gateway: GatewayId,
        /// The session.
        session: SessionId,
    },
}

/// The reason why a replica halted. Callers are told, too.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Halt {
    /// A peer's snapshot could not be restored, and the replica's own state is gone.
    SnapshotRefused {
        /// The slot of the snapshot.
        at: Watermark,
    },
    /// The state machine panicked.
    Panicked {
        /// At which command: the one whose answer was begun last.
        command: LoggedCommand,
        /// The panic's message.
        message: String,
    },
    /// It has executed a command that the log says is skipped.
    Executed {
        /// The command.
        command: LoggedCommand,
    },
    /// A chosen block is not a block.
    Malformed {
        /// In which slot.
        slot: Slot,
    },
}

impl fmt::Display for Event {
    /// What a role says of itself, without its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formed { formation, .. } => write!(f, "the cluster has formed: {formation}"),
            Self::Elected { ballot, first, next, noops } => {
                let (Slot(first), Slot(next)) = (first, next);
                write!(f, "leads in {ballot}, from slot {next} on; phase 1 was of slots from {first} on, {noops} of them empty")
            }
            Self::SteppedDown { ballot, promised } => {
                write!(f, "gives up {ballot}: {promised} was promised")
            }
            Self::CampaignFailed { ballot } => {
                write!(f, "no read quorum has answered {ballot} in time")
            }
            Self::Silenced { ballot } => write!(
                f,
                "leads in {ballot} without effect, and falls silent, so that another may lead"
            ),
            Self::HandedOver { ballot, unserved } => {
                write!(f, "gives up {ballot}: gateway {} gets no answers from it", unserved.0)
            }
            Self::Suspected { acceptor, suspected: true, .. } => {
                write!(f, "suspects acceptor {}", acceptor.0)
            }
            Self::Suspected { acceptor, .. } => {
                write!(f, "suspects acceptor {} no longer", acceptor.0)
            }
            Self::Forgotten { acceptor } => write!(
                f,
                "acceptor {} was started with an empty memory, and does not count",
                acceptor.0
            ),
            Self::OriginsDiffer { .. } => f.write_str(
                "replicas were restored from different snapshots, or not all from one: no cluster is formed",
            ),
            Self::Foreign { at } => write!(f, "refused a message of another formation ({at})"),
            Self::Equivocation { acceptor, ballot, slot } => write!(
                f,
                "acceptor {} refused another value for slot {} in {ballot}",
                acceptor.0, slot.0
            ),
            Self::Halted { executed, why, .. } => {
                write!(f, "has halted, having executed {} slots: {why}", executed.0)
            }
            Self::ClockAhead { by } => {
                write!(f, "its clock is {by:.1?} ahead of acceptors': the log's time waits for them")
            }
            Self::FillRefused { gateway, to, next } => write!(
                f,
                "gateway {} has reads wait for slots below {}, and slot {} is the first free one: they are not filled",
                gateway.0, to.0, next.0
            ),
            Self::SkipRefused { command, why } => write!(f, "does not skip {command}: {why}"),
            Self::Skips { command, .. } => write!(f, "starts over, and skips {command}"),
            Self::NoSnapshots { .. } => f.write_str(
                "the state machine has no snapshots: a replica that is far behind cannot be brought up, and \
                 logs on disk are not truncated",
            ),
            Self::SnapshotSetAside { snapshot, why, .. } => {
                write!(f, "set snapshot {snapshot} aside: {why}")
            }
            Self::Ignored { why } => write!(f, "ignored a message: {why}"),
            Self::SessionOpened { session, .. } => write!(f, "serves: {session} is open"),
            Self::SessionLost { session, .. } => {
                write!(f, "{session} was closed: the outcome of what it had under way is unknown")
            }
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SnapshotRefused { at } => {
                write!(f, "the state machine cannot restore a peer's snapshot of slot {}", at.0)
            }
            Self::Panicked { command, message } => {
                write!(f, "the state machine panicked at {command}: {message}")
            }
            Self::Executed { command } => write!(
                f,
                "it has executed {command}, which is skipped: it must be restored from a replica that has skipped it"
            ),
            Self::Malformed { slot } => write!(f, "what is chosen in slot {} is damaged", slot.0),
        }
    }
}
