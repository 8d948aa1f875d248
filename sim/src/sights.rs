//! What a run has come across: a simulator that never gets to see a situation does not test it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use loggos_protocol::{
    AcceptorId, Ballot, Envelope, Event, Failure, Halt, Outcome, Outcomes, ProposerId,
    ProxyLeaderId, Record, ReplicaId, Role, RoleId, Slot, SnapshotId, Time, To, ToAcceptor,
    ToGateway, ToProposer, ToProxyLeader, ToReplica, Watermark,
};

use crate::recorder::Recorder;

/// Names a situation, each with what it is called.
macro_rules! sights {
    ($($name:ident = $words:literal,)*) => {
        /// A situation that runs should get into.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[expect(missing_docs, reason = "each has its words")]
        pub enum Sight {
            $($name,)*
        }

        impl Sight {
            /// All there are.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

sights! {
    RetryElsewhere = "a slot asked of another write quorum",
    VoteAfterRetry = "a vote after that",
    LaterPage = "a promise of several pages",
    PreemptedInPhase1 = "a campaign ended by a larger ballot",
    PreemptedInPhase2 = "a reign ended by a larger ballot",
    Noop = "a hole filled with a no-op",
    Megabytes = "a batch of megabytes",
    ReplyInParts = "the results of a batch in parts",
    ReplyTooLarge = "a reply that is too large",
    RepliesLetGo = "replies let go, for there were too many to keep",
    GapFilled = "a slot fetched from a peer",
    Replayed = "a slot replayed from acceptors",
    GoneForGood = "a process that never comes back",
    Waited = "a campaign that waits for replicas to replay",
    LogShared = "acceptors that share a log",
    CameBack = "an acceptor come back from its disk",
    Recalled = "votes read back from disk",
    Revoted = "a vote cast again, for a value that is on disk",
    PowerLost = "a machine that lost power",
    TornWrite = "power lost in the middle of a write",
    Blackout = "all processes stopped at once",
    DiskFailed = "a disk that failed",
    LogLow = "a log with little room",
    LogFull = "a log with no room at all",
    LogRoomy = "a log with room again",
    NoRoom = "a client told that there is no room",
    DiskRefused = "a damaged log refused",
    DamageDropped = "damage that nothing was lost by",
    RecoveryCut = "a recovery cut short",
    Reelected = "a leader elected again, after another",
    TwoProxyLeaders = "a slot at two proxy leaders",
    TwoLeaders = "two proposers that both lead, as they see it",
    Refused = "an acceptor that has forgotten, refused",
    OutOfOrder = "commands out of order",
    Repeated = "commands answered from a session's memory",
    Busy = "a gateway with no room",
    SessionLost = "a session lost",
    ClockAhead = "a proposer whose clock is ahead of acceptors'",
    ClientMoved = "a client that goes to another gateway with commands under way",
    ClientRefused = "a client's commands that come too early by another gateway",
    ClientGivenBack = "a client's number given to another command",
    ClientSessionLost = "a client's session lost",
    ClientUnknown = "… and what it had sent twice is of unknown outcome",
    ReadWaited = "a read that waits for slots to be executed",
    ReadElsewhere = "a read asked of others, for want of answers",
    ReadInParts = "the replies to reads in parts",
    SlotFilled = "a slot filled because a read waits for it",
    Transferred = "a replica brought up by a peer's snapshot",
    TransferBroken = "a transfer given up, and begun anew",
    TransferResumed = "a part of a snapshot sent again",
    BackFromNothing = "a replica that was started blank and has all back",
    Checkpoint = "a durable snapshot",
    FromSnapshot = "a replica started from its snapshot",
    StartedFromSnapshot = "a log that starts from a snapshot of another cluster",
    LentFromDisk = "a part of a snapshot sent from disk",
    SnapshotFailed = "a snapshot that a disk could not write",
    SnapshotSetAside = "a damaged snapshot set aside",
    ReplicaWiped = "a replica's directory wiped",
    MachinePanicked = "a state machine that panics",
    SkipWanted = "a command that an operator wants skipped",
    CommandSkipped = "a command skipped",
    TruncatedOnDisk = "a durable acceptor that truncates",
    TruncatedBetweenPages = "a truncation between two pages of a promise",
    Rerun = "phase 1 for a slot that no other role can give",
    Suspected = "an acceptor under suspicion",
    Silenced = "a leader that falls silent",
    HandedOver = "a leader that hands over for a gateway that does not reach it",
    Lost = "a message lost",
    Copied = "a message copied",
    Late = "a message late",
    Damaged = "a message damaged",
    CutOff = "a full partition",
    CutOneWay = "a partition one way",
    Bridged = "a partition with a bridge",
    CutLinks = "single links cut",
    CutKinds = "one kind cut off from another",
    Flapping = "a partition that comes and goes",
    Lagging = "a replica that hears late of what is chosen",
    SlowNode = "a slow node",
    GatewayCrashed = "a gateway crashed",
    ProposerCrashed = "a proposer crashed",
    LeaderCrashed = "a leader crashed",
    ProxyLeaderCrashed = "a proxy leader crashed",
    AcceptorCrashed = "an acceptor crashed",
    ReplicaCrashed = "a replica crashed",
    CrashedUnsynced = "an acceptor crashed with votes unsynced",
    FalselyGone = "a process taken for ended that lives",
    LinkFull = "a message dropped, for its link is full",
    TooMuch = "a message dropped, for the disk has too much to do",
    DiskHung = "a disk that hangs for a while",
    SlowElection = "a leader elected though syncs take longer than an election timeout",
    StartedOver = "an acceptor started over in its process",
    StartedOverUnsynced = "an acceptor started over with votes unsynced",
    Restarted = "a process restarted",
    Paused = "a process paused",
    LeaderPaused = "a leader paused",
    WriteQuorumPaused = "a whole write quorum paused",
    ReadQuorumPaused = "a whole read quorum paused",
    ClockSkewed = "a clock set wrong",
    ClockJumped = "a clock that jumps ahead",
    GatewayGone = "a gateway gone for good, or cut off",
    ProposerGone = "a proposer gone for good, or cut off",
    ProxyLeaderGone = "a proxy leader gone for good, or cut off",
    AcceptorGone = "an acceptor gone for good, or cut off",
    ReplicaGone = "a replica gone for good, or cut off",
    GatewayHalf = "a gateway half connected for good",
    ProposerHalf = "a proposer half connected for good",
    ProxyLeaderHalf = "a proxy leader half connected for good",
    AcceptorHalf = "an acceptor half connected for good",
    ReplicaHalf = "a replica half connected for good",
    AcceptorHung = "an acceptor whose disk hangs for good",
    BeyondF = "more lost than the cluster survives",
}

/// The situations that a run came across.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sights(u128);

const _: () = assert!(Sight::ALL.len() <= 128, "a bit each");

impl Sights {
    /// Whether `sight` was come across.
    #[must_use]
    pub fn contains(self, sight: Sight) -> bool {
        self.0 & bit(sight) != 0
    }

    pub(crate) fn insert(&mut self, sight: Sight) {
        self.0 |= bit(sight);
    }

    pub(crate) fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

fn bit(sight: Sight) -> u128 {
    1 << sight as u32
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Watches a run, and notes what it comes across.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pub(crate) sights: Sights,
    /// The time when each slot's acceptors were first asked, and whether they were asked again
    /// later.
    asked: BTreeMap<(ProxyLeaderId, Slot, Ballot), (Time, bool)>,
    /// The proxy leader that got a slot first.
    given: BTreeMap<(Slot, Ballot), ProxyLeaderId>,
    elected: BTreeSet<Ballot>,
    /// Up to where each acceptor had truncated in its first page of a promise.
    paged: BTreeMap<(AcceptorId, Ballot), Watermark>,
    /// The parts of snapshots that replicas have asked for.
    parts_asked: BTreeSet<(ReplicaId, SnapshotId, u32)>,
    leaders: Vec<ProposerId>,
}

impl Witness {
    pub(crate) fn see(&mut self, sight: Sight) {
        self.sights.insert(sight);
    }

    fn see_if(&mut self, is_seen: bool, sight: Sight) {
        if is_seen {
            self.see(sight);
        }
    }

    pub(crate) fn on_records(&mut self, records: &[Record]) {
        let is_again = |record: &Record| matches!(record, Record::Revote { .. });
        self.see_if(records.iter().any(is_again), Sight::Revoted);
    }

    pub(crate) fn on_send(&mut self, now: Time, to: &To) {
        match to {
            To::Acceptor(_, ToAcceptor::P2a(p2a))
                if !self.sights.contains(Sight::VoteAfterRetry) =>
            {
                let asked = (p2a.via, p2a.slot, p2a.ballot);
                let (first, is_again) = self.asked.entry(asked).or_insert((now, false));
                *is_again |= *first < now;
            }
            To::Replica(_, ToReplica::FetchPart(fetch)) => {
                let asked = fetch.snapshot.map(|snapshot| (fetch.replica, snapshot, fetch.part));
                let is_again = asked.is_some_and(|asked| !self.parts_asked.insert(asked));
                self.see_if(is_again, Sight::TransferResumed);
            }
            To::Proposer(_, ToProposer::P1b(p1b)) => {
                let pages = (p1b.acceptor, p1b.ballot);
                let first = *self.paged.entry(pages).or_insert(p1b.truncated);
                self.see_if(first < p1b.truncated, Sight::TruncatedBetweenPages);
            }
            To::ProxyLeader(id, ToProxyLeader::P2a(p2a)) => {
                let bytes = p2a.value.batch().map_or(0, |batch| batch.block.len());
                self.see_if(bytes > 1 << 20, Sight::Megabytes);
                let first = *self.given.entry((p2a.slot, p2a.ballot)).or_insert(*id);
                self.see_if(first != *id, Sight::TwoProxyLeaders);
            }
            To::Acceptor(..)
            | To::ProxyLeader(..)
            | To::Gateway(..)
            | To::Proposer(..)
            | To::Replica(..) => {}
        }
    }

    pub(crate) fn on_delivered(&mut self, envelope: &Envelope) {
        match &envelope.to {
            To::Acceptor(_, ToAcceptor::P1a(p1a)) => {
                self.see_if(p1a.page > p1a.first, Sight::LaterPage);
            }
            To::ProxyLeader(id, ToProxyLeader::P2b(p2b)) => {
                let asked = self.asked.get(&(*id, p2b.slot, p2b.ballot));
                self.see_if(asked.is_some_and(|(_, is_again)| *is_again), Sight::VoteAfterRetry);
            }
            To::Gateway(_, ToGateway::Results(results)) => {
                let is_out_of_order = |outcome| matches!(outcome, Outcome::OutOfOrder { .. });
                let mut outcomes = Outcomes::new(results.outcomes.as_slice()).flatten();
                self.see_if(outcomes.any(is_out_of_order), Sight::OutOfOrder);
            }
            To::Gateway(_, ToGateway::ReadResults(results)) => {
                self.see_if(results.first > 0, Sight::ReadInParts);
            }
            To::Acceptor(..)
            | To::ProxyLeader(..)
            | To::Gateway(..)
            | To::Proposer(..)
            | To::Replica(..) => {}
        }
    }

    pub(crate) fn on_step(&mut self, role: &Role<Recorder>) {
        match role {
            Role::ProxyLeader(role) => {
                self.see_if(role.counters().retries > 0, Sight::RetryElsewhere);
            }
            Role::Proposer(role) => {
                self.see_if(role.counters().reruns > 0, Sight::Rerun);
                self.see_if(role.counters().waits > 0, Sight::Waited);
                self.see_if(role.counters().fills > 0, Sight::SlotFilled);
            }
            Role::Replica(role) => {
                self.see_if(role.counters().fetched > 0, Sight::GapFilled);
                self.see_if(role.counters().reads_waited > 0, Sight::ReadWaited);
                self.see_if(role.counters().partial_answers > 0, Sight::ReplyInParts);
                self.see_if(role.counters().replies_let_go > 0, Sight::RepliesLetGo);
                self.see_if(role.counters().replayed > 0, Sight::Replayed);
                self.see_if(role.counters().repeated_runs > 0, Sight::Repeated);
                let counters = role.counters();
                let has_got = counters.transfers > 0 && counters.restored > 0;
                self.see_if(has_got, Sight::Transferred);
                let has_restarted = counters.transfers_abandoned > 0;
                self.see_if(has_restarted && has_got, Sight::TransferBroken);
                self.see_if(role.snapshot() > Watermark(0), Sight::Checkpoint);
                let is_from_own = counters.restored > 0 && counters.transfers == 0;
                self.see_if(is_from_own, Sight::FromSnapshot);
                let has_lent = role.snapshot() > Watermark(0) && counters.parts_sent > 0;
                self.see_if(has_lent, Sight::LentFromDisk);
                self.see_if(counters.snapshots_failed > 0, Sight::SnapshotFailed);
            }
            Role::Gateway(role) => {
                self.see_if(role.counters().reads_again > 0, Sight::ReadElsewhere);
            }
            Role::Acceptor(_) => {}
        }
    }

    /// `has_unsynced`: whether it had said something that waited for a sync.
    pub(crate) fn on_crash(&mut self, id: RoleId, was_leading: bool, has_unsynced: bool) {
        self.see(match id {
            RoleId::Gateway(_) => Sight::GatewayCrashed,
            RoleId::Proposer(_) => Sight::ProposerCrashed,
            RoleId::ProxyLeader(_) => Sight::ProxyLeaderCrashed,
            RoleId::Acceptor(_) => Sight::AcceptorCrashed,
            RoleId::Replica(_) => Sight::ReplicaCrashed,
        });
        self.see_if(was_leading, Sight::LeaderCrashed);
        self.see_if(has_unsynced, Sight::CrashedUnsynced);
    }

    pub(crate) fn on_failure(&mut self, why: &Failure) {
        self.see_if(*why == Failure::Busy, Sight::Busy);
        self.see_if(*why == Failure::ReplyTooLarge, Sight::ReplyTooLarge);
        self.see_if(matches!(why, Failure::NoRoom(_)), Sight::NoRoom);
    }

    /// `leaders` says how many proposers lead now, as they see it.
    pub(crate) fn on_event(&mut self, event: &Event, leaders: impl FnOnce() -> usize) {
        match event {
            Event::Elected { ballot, noops, .. } => {
                self.see_if(*noops > 0, Sight::Noop);
                let is_last = self.leaders.last() == Some(&ballot.proposer);
                self.see_if(!is_last && self.leaders.contains(&ballot.proposer), Sight::Reelected);
                self.leaders.push(ballot.proposer);
                self.elected.insert(*ballot);
                self.see_if(leaders() > 1, Sight::TwoLeaders);
            }
            Event::SteppedDown { ballot, .. } => self.see(if self.elected.contains(ballot) {
                Sight::PreemptedInPhase2
            } else {
                Sight::PreemptedInPhase1
            }),
            Event::Suspected { .. } => self.see(Sight::Suspected),
            Event::Silenced { .. } => self.see(Sight::Silenced),
            Event::HandedOver { .. } => self.see(Sight::HandedOver),
            Event::ClockAhead { .. } => self.see(Sight::ClockAhead),
            Event::Forgotten { .. } => self.see(Sight::Refused),
            Event::SessionLost { .. } => self.see(Sight::SessionLost),
            Event::SnapshotSetAside { .. } => self.see(Sight::SnapshotSetAside),
            Event::Halted { why: Halt::Panicked { .. }, .. } => self.see(Sight::MachinePanicked),
            Event::Formed { .. }
            | Event::CampaignFailed { .. }
            | Event::Foreign { .. }
            | Event::Equivocation { .. }
            | Event::Halted { .. }
            | Event::Skips { .. }
            | Event::SkipRefused { .. }
            | Event::FillRefused { .. }
            | Event::NoSnapshots { .. }
            | Event::OriginsDiffer { .. }
            | Event::Ignored { .. }
            | Event::SessionOpened { .. } => {}
        }
    }
}
