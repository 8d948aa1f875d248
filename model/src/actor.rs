//! A role, what its driver adds to it, and the steps that the two can take.

use std::time::Duration;

use loggos_protocol::{
    Acceptor, AcceptorId, Ballot, Batch, BatchId, Chosen, DirectoryId, Event, GatewayId,
    Incarnation, Outbox, Payload, PreVoteAck, Propose, Proposer, ProposerTimer, ProxyLeader,
    ProxyLeaderTimer, ReplicaId, Time, To, ToAcceptor, ToProposer, ToProxyLeader, ToReplica, Value,
};

use crate::bounds::Bounds;

/// The time when everything happens but timers.
pub(crate) const START: Time = Time(1_000_000_000_000);
/// The time after which each timer fires: later than all that is waited for.
const LATE: Duration = Duration::from_secs(2);

/// A letter's number: letters are numbered as they come up.
pub(crate) type LetterNo = u16;

/// A role that can be copied and compared.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Role {
    Proposer(Box<Proposer>),
    ProxyLeader(Box<ProxyLeader>),
    Acceptor(Box<Acceptor>),
}

/// A role, its clock, and what may still happen to it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Actor {
    pub(crate) role: Role,
    /// How many timers have fired: what its clock goes by.
    fired: u8,
    /// How often each may happen yet, as in [`Bounds`].
    campaigns: u8,
    commands: u8,
    resends: u8,
    retries: u8,
    repeats: u8,
    /// Slots that may be filled.
    slots: u64,
    /// Letters it has had that are answered anew each time; in order.
    taken: Vec<LetterNo>,
    /// What a larger ballot ended last.
    pub(crate) lost: Option<Lost>,
}

/// What a larger ballot ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Lost {
    Campaign,
    Reign,
}

/// What can happen to a role.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Stimulus {
    /// A letter arrives.
    Letter(LetterNo),
    /// A proposer's patience ends.
    Campaign,
    /// A leader is given a command.
    Command,
    /// A leader has waited for an open slot too long.
    Resend,
    /// A proxy leader has waited for a vote too long.
    Retry,
}

/// A message under way, or that was.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Letter {
    pub(crate) to: To,
    /// What a P2b's sender held in that slot as it spoke.
    pub(crate) voted: Option<Value>,
}

/// What came of a stimulus.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) actor: Actor,
    pub(crate) says: Vec<Letter>,
    pub(crate) says_chosen: Vec<Chosen>,
}

impl Actor {
    pub(crate) fn new(mut role: Role, bounds: &Bounds) -> Self {
        role.forget_counters();
        let (campaigns, commands) = match &role {
            Role::Proposer(p) => {
                let id = usize::from(p.id().0);
                (bounds.campaigns[id], bounds.commands[id])
            }
            Role::ProxyLeader(_) | Role::Acceptor(_) => (0, 0),
        };
        Self {
            role,
            fired: 0,
            campaigns,
            commands,
            resends: bounds.resends,
            retries: bounds.retries,
            repeats: bounds.repeats,
            slots: bounds.slots,
            taken: Vec::new(),
            lost: None,
        }
    }

    /// Takes a step, in a copy. Returns `None` where there is none to take.
    ///
    /// # Panics
    ///
    /// If the role asserts something that does not hold.
    pub(crate) fn step(&self, stimulus: Stimulus, letter: Option<&Letter>) -> Option<Taken> {
        let mut next = self.clone();
        let mut out = Outbox::default();
        match (stimulus, letter) {
            (Stimulus::Letter(_), letter) => next.take(letter?, &mut out),
            (Stimulus::Campaign, _) => next.campaign(&mut out)?,
            (Stimulus::Command, _) => next.command(&mut out)?,
            (Stimulus::Resend, _) => next.resend(&mut out)?,
            (Stimulus::Retry, _) => next.retry(&mut out)?,
        }
        next.check(self, &out);
        next.note_loss(self);
        next.role.forget_counters();
        if let (Stimulus::Letter(number), Some(letter)) = (stimulus, letter)
            && asks(&letter.to)
            && (next.role != self.role || !out.held.is_empty())
        {
            next.note_taken(number)?;
        }
        let says_chosen = out.sends.iter().filter_map(chosen).cloned().collect();
        let said = out.sends.into_iter().chain(out.held).filter(matters);
        let says = said.map(|to| Letter { voted: next.role.voted(&to), to }).collect();
        Some(Taken { actor: next, says, says_chosen })
    }

    fn now(&self) -> Time {
        START + LATE * u32::from(self.fired)
    }

    /// Hands a letter to the role.
    fn take(&mut self, letter: &Letter, out: &mut Outbox) {
        let now = self.now();
        match (&mut self.role, letter.to.clone()) {
            (Role::Proposer(role), To::Proposer(_, message)) => role.on_message(message, now, out),
            (Role::ProxyLeader(role), To::ProxyLeader(_, message)) => {
                role.on_message(message, now, out);
            }
            (Role::Acceptor(role), To::Acceptor(_, message)) => role.on_message(message, now, out),
            (role, to) => panic!("{role:?} was handed {to:?}"),
        }
    }

    /// Notes a letter that was not refused and is answered anew each time; `None` if it may not be
    /// repeated any more.
    fn note_taken(&mut self, number: LetterNo) -> Option<()> {
        match self.taken.binary_search(&number) {
            Ok(_) => self.repeats = self.repeats.checked_sub(1)?,
            Err(at) => self.taken.insert(at, number),
        }
        Some(())
    }

    /// Notes what a larger ballot has ended in this step.
    fn note_loss(&mut self, before: &Self) {
        if let (Role::Proposer(before), Role::Proposer(after)) = (&before.role, &self.role)
            && after.counters().preemptions > 0
        {
            self.lost = Some(if before.is_leading() { Lost::Reign } else { Lost::Campaign });
        }
    }

    /// Starts a campaign, and gives up one under way. The pre-vote is granted: every acceptor is
    /// quiet, and had promised nothing when it was asked.
    fn campaign(&mut self, out: &mut Outbox) -> Option<()> {
        self.campaigns = self.campaigns.checked_sub(1)?;
        self.fired += 1;
        let now = self.now();
        let Role::Proposer(role) = &mut self.role else { return None };
        if role.is_leading() {
            return None;
        }
        if role.ballot().is_some() {
            role.on_timeout(ProposerTimer::Phase1, now, out);
        }
        role.on_timeout(ProposerTimer::Election, now, out);
        for to in std::mem::take(&mut out.sends) {
            if let To::Acceptor(acceptor, ToAcceptor::PreVote(pre_vote)) = to {
                let ack = PreVoteAck {
                    acceptor,
                    directory: directory(acceptor),
                    nonce: pre_vote.nonce,
                    is_quiet: true,
                    is_low: false,
                    promised: Ballot::default(),
                    votes_end: loggos_protocol::Watermark(0),
                };
                role.on_message(ToProposer::PreVoteAck(ack), now, out);
            }
        }
        Some(())
    }

    /// Gives a leader a command that no other leader is given.
    fn command(&mut self, out: &mut Outbox) -> Option<()> {
        self.commands = self.commands.checked_sub(1)?;
        let now = self.now();
        let Role::Proposer(role) = &mut self.role else { return None };
        if role.next_slot()?.0 >= self.slots {
            return None;
        }
        // Fewer are left each time, and a leader wants numbers that rise.
        let number = u64::from(u8::MAX - self.commands);
        let incarnation = Incarnation(role.id().0.into());
        let batch = Batch {
            id: BatchId { gateway: GatewayId(0), incarnation, number },
            attempt: 0,
            answerer: ReplicaId(0),
            commands_count: 1,
            block: Payload::empty(),
            checksum: Payload::empty().checksum(),
        };
        let propose = Propose { lowest: batch.id.number, batch: batch.into() };
        role.on_message(ToProposer::Propose(propose), now, out);
        Some(())
    }

    /// Sends open slots through another proxy leader.
    fn resend(&mut self, out: &mut Outbox) -> Option<()> {
        self.resends = self.resends.checked_sub(1)?;
        self.fired += 1;
        let now = self.now();
        let Role::Proposer(role) = &mut self.role else { return None };
        if !role.timers().is_set(ProposerTimer::Resend) {
            return None;
        }
        role.on_timeout(ProposerTimer::Resend, now, out);
        Some(())
    }

    /// Asks other acceptors for what is undecided.
    fn retry(&mut self, out: &mut Outbox) -> Option<()> {
        self.retries = self.retries.checked_sub(1)?;
        self.fired += 1;
        let now = self.now();
        let Role::ProxyLeader(role) = &mut self.role else { return None };
        if !role.timers().is_set(ProxyLeaderTimer::Retry) {
            return None;
        }
        role.on_timeout(ProxyLeaderTimer::Retry, now, out);
        (!out.sends.is_empty()).then_some(()) // else nothing was undecided
    }

    /// Asserts what must hold after every step of this role.
    fn check(&self, before: &Self, out: &Outbox) {
        match &self.role {
            Role::Proposer(role) => role.validate(),
            Role::ProxyLeader(role) => role.validate(),
            Role::Acceptor(role) => role.validate(),
        }
        if let (Role::Acceptor(before), Role::Acceptor(after)) = (&before.role, &self.role) {
            assert!(before.promised() <= after.promised(), "a promise went back");
        }
        for event in &out.events {
            assert!(!matches!(event, Event::Equivocation { .. }), "{event:?}");
        }
    }
}

impl Role {
    /// Statistics are no part of a state.
    fn forget_counters(&mut self) {
        match self {
            Self::Proposer(role) => drop(role.take_counters()),
            Self::ProxyLeader(role) => drop(role.take_counters()),
            Self::Acceptor(role) => drop(role.take_counters()),
        }
    }

    /// What the sender of a P2b holds for what it says it has voted for.
    fn voted(&self, to: &To) -> Option<Value> {
        let (Self::Acceptor(acceptor), To::ProxyLeader(_, ToProxyLeader::P2b(p2b))) = (self, to)
        else {
            return None;
        };
        let vote = acceptor.vote(p2b.slot).filter(|vote| vote.ballot == p2b.ballot);
        Some(vote.expect("an acceptor says what it has just voted").value.clone())
    }
}

/// The identity of each acceptor's memory.
pub(crate) fn directory(acceptor: AcceptorId) -> DirectoryId {
    DirectoryId(100 + u64::from(acceptor.0))
}

/// Whether `to` is answered anew each time, from what has changed since.
fn asks(to: &To) -> bool {
    match to {
        To::Acceptor(_, message) => matches!(message, ToAcceptor::P1a(_)),
        To::ProxyLeader(_, message) => matches!(message, ToProxyLeader::P2a(_)),
        To::Proposer(..) | To::Gateway(..) | To::Replica(..) => false,
    }
}

/// Whether agreement can rest on `to`: what only says who is there is lost in this network.
fn matters(to: &To) -> bool {
    match to {
        To::Acceptor(_, message) => {
            matches!(message, ToAcceptor::P1a(_) | ToAcceptor::P2a(_))
        }
        To::Proposer(_, message) => {
            matches!(message, ToProposer::P1b(_) | ToProposer::Nack(_))
        }
        To::ProxyLeader(_, message) => !matches!(message, ToProxyLeader::Heartbeat(_)),
        To::Gateway(..) | To::Replica(..) => false,
    }
}

fn chosen(to: &To) -> Option<&Chosen> {
    match to {
        To::Replica(_, ToReplica::Chosen(chosen)) => Some(chosen),
        To::Replica(..)
        | To::Gateway(..)
        | To::Proposer(..)
        | To::ProxyLeader(..)
        | To::Acceptor(..) => None,
    }
}
