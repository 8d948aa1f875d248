//! The proxy leader: gets a value chosen, and says so.
//!
//! ```text
//!  input      when                              does                       says
//!  P2a        its place is free or older, or    entry ← p2a, no votes      P2a, to a write quorum
//!             the ballot is higher
//!             same slot and ballot, undecided                              P2a, to another write quorum
//!             same slot and ballot, chosen                                 Chosen again
//!             else                              counts it                  nothing
//!  P2b        slot and ballot are the entry's,  votes ∪ acceptor           nothing
//!             its directory the table's
//!             … and a write quorum is whole     chosen                     Chosen, to all replicas
//!             else                              counts it                  nothing
//!  Nack       slot and ballot are the entry's   entry → gone               nothing: its proposer knows
//!  Truncated  slot and ballot are the entry's   entry → gone               Truncated, to the proposer
//!  Retry      undecided since the timeout       suspects the silent ones   P2a, to another write quorum
//!  gone       an acceptor has ended             suspects it                P2a of what it was asked for, to
//!                                                                          another write quorum
//! ```
//!
//! Could two proxy leaders make two values of a slot chosen? Only acceptors choose: a value is
//! chosen once a write quorum has voted for it in one ballot, by any count. A proxy leader counts
//! only votes that name its entry's slot and ballot, and in one ballot a slot has one value (R2,
//! R7), so what it reports was chosen. Losing an entry loses nothing either: the proposer sends it
//! again.

use std::collections::VecDeque;

use crate::{
    AcceptorSet, Ballot, Chosen, ClusterSettings, Event, FormationId, Heartbeat, HeartbeatAck,
    Latency, Listener, Membership, Nack, Outbox, P2a, P2b, ProxyLeaderId, RoleId, Slot, Stage,
    Time, TimerName, Timers, ToAcceptor, ToProposer, ToProxyLeader, ToReplica, Truncated, Value,
    Window,
};

/// The timers of a proxy leader.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProxyLeaderTimer {
    /// Slots have no write quorum: ask other acceptors.
    Retry,
    /// Ask suspected acceptors whether they vote again.
    SuspectProbe,
}

impl TimerName<2> for ProxyLeaderTimer {
    const ALL: [Self; 2] = [Self::Retry, Self::SuspectProbe];

    fn index(self) -> usize {
        self as usize
    }
}

/// Broadcasts for the leader, which is thereby left to sequence. \[CP §3.1\]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ProxyLeader {
    cluster: ClusterSettings,
    id: ProxyLeaderId,
    membership: Membership,
    entries: Window<Entry>,
    /// Slots in the order they were last asked for, each with when that was: the front is the next
    /// to time out. An entry decided or replaced since is skipped.
    waiting: VecDeque<(Slot, Ballot, Time)>,
    /// Acceptors that let a slot time out and have not voted since.
    suspects: AcceptorSet,
    /// The last value asked for: what suspects are probed with.
    last_asked: Option<Slot>,
    /// From the first asking of a write quorum to the last vote needed.
    latency: Latency,
    timers: Timers<ProxyLeaderTimer, 2>,
    counters: ProxyLeaderCounters,
}

/// A slot in the hands of a proxy leader.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Entry {
    ballot: Ballot,
    value: Value,
    is_recovered: bool,
    /// The acceptors that voted for exactly this, in whichever write quorum they were asked.
    votes: AcceptorSet,
    /// The acceptors that were asked.
    asked: AcceptorSet,
    asked_at: Time,
    /// The number of times that a write quorum was asked before: back-off goes by it.
    attempt: u32,
    /// Which write quorum's turn it is, counted from the one with the fewest suspects.
    turn: u32,
    is_chosen: bool,
}

impl Entry {
    fn p2a(&self, slot: Slot, via: ProxyLeaderId) -> P2a {
        let Self { ballot, value, is_recovered, .. } = self;
        let (ballot, is_recovered) = (*ballot, *is_recovered);
        P2a { ballot, slot, via, is_recovered, value: value.clone() }
    }
}

/// The counters of a proxy leader's work.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ProxyLeaderCounters {
    /// Values got chosen.
    pub chosen: u64,
    /// Times it said so again.
    pub chosen_again: u64,
    /// Slots asked of another write quorum.
    pub retries: u64,
    /// P2as refused for an older ballot, or a place that a newer slot has.
    pub stale_p2as: u64,
    /// P2as with another value for a ballot and slot in hand.
    pub equivocations: u64,
    /// Votes for what it does not hold (any more).
    pub stale_p2bs: u64,
    /// Entries given up to a larger ballot.
    pub preempted: u64,
    /// Times an acceptor came under suspicion.
    pub suspicions: u64,
    /// Messages of acceptors that are not the table's, or before a table was known.
    pub foreign: u64,
}

impl ProxyLeader {
    /// Returns a proxy leader with nothing in hand.
    #[must_use]
    pub fn new(cluster: ClusterSettings, id: ProxyLeaderId) -> Self {
        assert!(id.0 < cluster.proxy_leaders_running(), "{id:?} is not in the cluster");
        Self {
            id,
            membership: Membership::new(cluster.digest(), cluster.quorums.acceptors_count()),
            entries: Window::new(cluster.ring_slots()),
            waiting: VecDeque::new(),
            suspects: AcceptorSet::default(),
            last_asked: None,
            latency: Latency::default(),
            timers: Timers::default(),
            counters: ProxyLeaderCounters::default(),
            cluster,
        }
    }

    /// Takes a message in.
    pub fn on_message(&mut self, message: ToProxyLeader, now: Time, out: &mut Outbox) {
        match message {
            ToProxyLeader::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, out),
            ToProxyLeader::P2a(p2a) => self.on_p2a(p2a, now, out),
            ToProxyLeader::P2b(p2b) => self.on_p2b(p2b, now, out),
            ToProxyLeader::Nack(nack) => self.on_nack(nack, out),
            ToProxyLeader::Truncated(truncated) => self.on_truncated(truncated, out),
        }
    }

    /// Joins the leader's cluster, and shows it that we live.
    ///
    /// source: R4, R9
    pub fn on_heartbeat(&mut self, heartbeat: &Heartbeat, out: &mut Outbox) {
        if !self.membership.join(&heartbeat.table) {
            self.counters.foreign += 1;
            return out.event(Event::Foreign { at: "proxy leader: heartbeat" });
        }
        if heartbeat.stage == Stage::Leading {
            let from = Listener::ProxyLeader(self.id);
            let ack =
                HeartbeatAck { from, ballot: heartbeat.ballot, is_low: false, clock: Time(0) };
            out.tell_proposer(heartbeat.ballot.proposer, ToProposer::HeartbeatAck(ack));
        }
    }

    /// Asks a write quorum to vote.
    ///
    /// The entry holds slot, ballot and value in full, and a higher ballot starts it over without
    /// its votes: votes of two ballots never add up. An older slot in its place is displaced; were
    /// it still open, its proposer would send it again. A newer slot gives way only to a higher
    /// ballot, which has a reason to go back (R8).
    ///
    /// source: R9, R11, \[CP §3.1\], "a proxy leader broadcasts it to the acceptors"
    pub fn on_p2a(&mut self, p2a: P2a, now: Time, out: &mut Outbox) {
        let P2a { ballot, slot, value, is_recovered, .. } = p2a;
        if let Some((occupant, entry)) = self.entries.occupant(slot) {
            if occupant == slot && entry.ballot == ballot {
                if entry.value != value {
                    // Its proposer broke R2. An acceptor that has voted would refuse it as well.
                    self.counters.equivocations += 1;
                    return out.ignored("P2a: another value than before, in the same ballot");
                }
                return self.on_repeated_p2a(slot, now, out);
            }
            if entry.ballot > ballot || (entry.ballot == ballot && occupant > slot) {
                self.counters.stale_p2as += 1;
                return out.ignored("P2a: its place has a larger ballot, or a later slot");
            }
        }
        let (votes, asked) = <(AcceptorSet, AcceptorSet)>::default();
        let entry = Entry {
            ballot,
            value,
            is_recovered,
            votes,
            asked,
            asked_at: now,
            attempt: 0,
            turn: 0,
            is_chosen: false,
        };
        self.entries.insert(slot, entry);
        self.ask(slot, now, out);
        self.forget_decided();
    }

    /// Counts a vote; the one that completes a write quorum decides the slot.
    ///
    /// Votes from all write quorums tried add up: they are for the same ballot and value, and what
    /// matters is whether *some* write quorum is whole.
    ///
    /// source: R4, R11, \[CP §3.1\], "gathers a quorum of f+1 Phase2b responses"
    pub fn on_p2b(&mut self, p2b: P2b, now: Time, out: &mut Outbox) {
        if !self.membership.names(p2b.acceptor, p2b.directory) {
            self.counters.foreign += 1;
            return out.event(Event::Forgotten { acceptor: p2b.acceptor });
        }
        self.hear(p2b.acceptor, out);
        let Some(entry) = self.entries.at_mut(p2b.slot).filter(|e| e.ballot == p2b.ballot) else {
            self.counters.stale_p2bs += 1;
            return out.ignored("P2b: its slot is not in hand in that ballot");
        };
        entry.votes.insert(p2b.acceptor);
        if entry.is_chosen || !self.cluster.quorums.is_write_quorum(entry.votes) {
            return;
        }
        entry.is_chosen = true;
        if entry.attempt == 0 {
            self.latency.sample(now.since(entry.asked_at)); // of a repeated one it is not known
        }
        self.counters.chosen += 1;
        self.say_chosen(p2b.slot, out);
    }

    /// Gives an entry up: its proposer, told as well, cannot get it chosen in that ballot.
    ///
    /// source: R13
    pub fn on_nack(&mut self, nack: Nack, out: &mut Outbox) {
        let Some(slot) = nack.slot else { return out.ignored("Nack: of no slot") };
        let is_ours = |e: &&Entry| e.ballot == nack.refused && !e.is_chosen;
        if self.entries.at(slot).filter(is_ours).is_some() {
            self.entries.remove(slot);
            self.counters.preempted += 1;
        } else {
            out.ignored("Nack: its slot is not in hand in that ballot, or chosen");
        }
    }

    /// Gives an entry up that was chosen, executed and forgotten long ago.
    ///
    /// source: R10
    pub fn on_truncated(&mut self, truncated: Truncated, out: &mut Outbox) {
        let Truncated { acceptor, slot, ballot, .. } = truncated;
        if let Some(acceptor) = acceptor {
            self.hear(acceptor, out);
        }
        if self.entries.at(slot).is_some_and(|e| e.ballot == ballot && !e.is_chosen) {
            self.entries.remove(slot);
            out.tell_proposer(ballot.proposer, ToProposer::Truncated(truncated));
        } else {
            out.ignored("Truncated: its slot is not in hand in that ballot, or chosen");
        }
    }

    /// Takes in that the life of an acceptor has ended: it is suspected without waiting for its
    /// silence, and what it was asked for is asked of another write quorum.
    ///
    /// source: R12
    pub fn on_gone(&mut self, gone: RoleId, now: Time, out: &mut Outbox) {
        let RoleId::Acceptor(acceptor) = gone else { return };
        let is_ours = self.cluster.quorums.acceptors().contains(acceptor);
        assert!(is_ours, "{acceptor:?} is not in the cluster");
        if !self.suspects.contains(acceptor) {
            self.suspects.insert(acceptor);
            self.counters.suspicions += 1;
            self.say_suspected(acceptor, true, out);
            self.timers
                .set_if_unset(ProxyLeaderTimer::SuspectProbe, now + self.cluster.probe_interval);
            let waits = |(slot, ballot, asked_at): &(Slot, Ballot, Time)| {
                let entry = self.entries.at(*slot)?;
                let is_current = entry.ballot == *ballot && entry.asked_at == *asked_at;
                let waits = entry.asked.contains(acceptor) && !entry.votes.contains(acceptor);
                (is_current && waits && !entry.is_chosen).then_some(*slot)
            };
            for slot in self.waiting.iter().filter_map(waits).collect::<Vec<_>>() {
                self.ask_again(slot, true, now, out);
            }
        }
    }

    /// Fires every timer that is due.
    pub fn on_time(&mut self, now: Time, out: &mut Outbox) {
        while let Some(timer) = self.timers.take_due(now) {
            self.on_timeout(timer, now, out);
        }
    }

    /// Does what a timer asks for.
    pub fn on_timeout(&mut self, timer: ProxyLeaderTimer, now: Time, out: &mut Outbox) {
        match timer {
            ProxyLeaderTimer::Retry => self.retry(now, out),
            ProxyLeaderTimer::SuspectProbe => self.probe(now, out),
        }
    }

    /// Asserts what must hold between any two messages.
    pub fn validate(&self) {
        for (slot, entry) in self.entries.iter() {
            let is_whole = self.cluster.quorums.is_write_quorum(entry.votes);
            assert_eq!(entry.is_chosen, is_whole, "{slot}: {:?}", entry.votes);
            assert!(!entry.asked.is_empty(), "{slot}: no acceptor was asked");
        }
        let is_watched =
            self.timers.is_set(ProxyLeaderTimer::Retry) || self.undecided().next().is_none();
        assert!(is_watched, "undecided slots and no timer");
    }

    /// Its timers.
    pub fn timers(&mut self) -> &mut Timers<ProxyLeaderTimer, 2> {
        &mut self.timers
    }

    /// The formation it belongs to.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.membership.formation()
    }

    /// The proxy leader's id.
    #[must_use]
    pub fn id(&self) -> ProxyLeaderId {
        self.id
    }

    /// The counters of its work.
    #[must_use]
    pub fn counters(&self) -> ProxyLeaderCounters {
        self.counters
    }

    /// Takes out what it did since this was last asked.
    pub fn take_counters(&mut self) -> ProxyLeaderCounters {
        std::mem::take(&mut self.counters)
    }

    /// The acceptors that it suspects.
    #[must_use]
    pub fn suspects(&self) -> AcceptorSet {
        self.suspects
    }

    /// A proposer that asks again has seen no progress: the replicas missed the Chosen, or some
    /// write quorum is slow.
    ///
    /// source: R9, R12
    fn on_repeated_p2a(&mut self, slot: Slot, now: Time, out: &mut Outbox) {
        if self.entries.at(slot).is_some_and(|e| e.is_chosen) {
            self.counters.chosen_again += 1;
            self.say_chosen(slot, out);
        } else {
            self.ask_again(slot, false, now, out);
        }
    }

    fn say_chosen(&self, slot: Slot, out: &mut Outbox) {
        let entry = self.entries.at(slot).expect("only a held entry is chosen");
        let is_chosen = entry.is_chosen && self.cluster.quorums.is_write_quorum(entry.votes);
        assert!(is_chosen, "{slot} is said to be chosen by {:?} only", entry.votes);
        for replica in (0..self.cluster.replicas).map(crate::ReplicaId) {
            let chosen = Chosen { slot, ballot: entry.ballot, value: entry.value.clone() };
            out.tell_replica(replica, ToReplica::Chosen(chosen));
        }
    }

    /// Asks the write quorum that is `slot`'s turn, leaving out acceptors that have voted already.
    ///
    /// Always the same ballot and value: they are the entry's.
    ///
    /// source: R12
    fn ask(&mut self, slot: Slot, now: Time, out: &mut Outbox) {
        let entry = self.entries.at_mut(slot).expect("only a held entry is asked for");
        assert!(!entry.is_chosen, "{slot} is chosen, and asked for again");
        let quorum = self.cluster.quorums.write_quorum(slot, entry.turn, self.suspects);
        entry.asked = entry.asked.union(quorum);
        entry.asked_at = now;
        for acceptor in quorum.without(entry.votes).iter() {
            let p2a = entry.p2a(slot, self.id);
            out.tell_acceptor(acceptor, ToAcceptor::P2a(p2a));
        }
        self.waiting.push_back((slot, entry.ballot, now));
        self.last_asked = Some(slot);
        if !self.timers.is_set(ProxyLeaderTimer::Retry) {
            self.timers.set(ProxyLeaderTimer::Retry, now + self.timeout(0));
        }
    }

    /// Asks for `slot` once more: where there is a new suspect, the write quorum with the fewest of
    /// them, else the next in turn.
    fn ask_again(&mut self, slot: Slot, is_suspect_new: bool, now: Time, out: &mut Outbox) {
        let Some(entry) = self.entries.at_mut(slot) else { return };
        entry.attempt += 1;
        entry.turn = if is_suspect_new { 0 } else { entry.turn + 1 };
        self.counters.retries += 1;
        self.ask(slot, now, out);
    }

    /// Asks other write quorums for what has waited too long, and suspects the acceptors that kept
    /// it waiting.
    ///
    /// source: R12
    fn retry(&mut self, now: Time, out: &mut Outbox) {
        // What is asked again goes to the back: look at each once, not at what this adds.
        for _ in 0..self.waiting.len() {
            let Some(&(slot, ballot, asked_at)) = self.waiting.front() else { break };
            let is_current = |e: &&Entry| e.ballot == ballot && e.asked_at == asked_at;
            let Some(entry) = self.entries.at(slot).filter(is_current).filter(|e| !e.is_chosen)
            else {
                self.waiting.pop_front();
                continue;
            };
            // Back-off is by slot, the order by when it was asked: a slot on its second attempt may
            // hold up one on its first, by at most that one's own timeout more.
            if now.since(asked_at) < self.timeout(entry.attempt) {
                break;
            }
            self.waiting.pop_front();
            let silent = entry.asked.without(entry.votes).without(self.suspects);
            for acceptor in silent.iter() {
                self.suspects.insert(acceptor);
                self.counters.suspicions += 1;
                self.say_suspected(acceptor, true, out);
            }
            self.timers
                .set_if_unset(ProxyLeaderTimer::SuspectProbe, now + self.cluster.probe_interval);
            self.ask_again(slot, !silent.is_empty(), now, out);
        }
        let next =
            self.undecided().next().map(|(asked_at, attempt)| asked_at + self.timeout(attempt));
        match next {
            Some(at) => {
                self.timers.set(ProxyLeaderTimer::Retry, at.max(now + self.cluster.resend_min / 4));
            }
            None => self.timers.stop(ProxyLeaderTimer::Retry),
        }
    }

    /// Asks suspects for their vote on the latest value, without waiting for it: any vote of theirs
    /// clears them.
    ///
    /// source: R12, "suspects are probed back"
    fn probe(&mut self, now: Time, out: &mut Outbox) {
        if self.suspects.is_empty() {
            return;
        }
        self.timers.set(ProxyLeaderTimer::SuspectProbe, now + self.cluster.probe_interval);
        let are_ours = self.cluster.quorums.acceptors().contains_all(self.suspects);
        assert!(are_ours, "{:?} are not all in the cluster", self.suspects);
        let Some(slot) = self.last_asked else { return };
        let Some(entry) = self.entries.at(slot) else { return };
        for acceptor in self.suspects.iter() {
            let p2a = entry.p2a(slot, self.id);
            out.tell_acceptor(acceptor, ToAcceptor::P2a(p2a));
        }
    }

    /// The time when each undecided slot was asked for, the longest ago first, and how often.
    fn undecided(&self) -> impl Iterator<Item = (Time, u32)> + '_ {
        self.waiting.iter().filter_map(|(slot, ballot, asked_at)| {
            let entry = self.entries.at(*slot)?;
            let waits = entry.ballot == *ballot && entry.asked_at == *asked_at && !entry.is_chosen;
            waits.then_some((*asked_at, entry.attempt))
        })
    }

    /// Keeps `waiting` as short as what is undecided, at a constant cost a slot.
    fn forget_decided(&mut self) {
        for _ in 0..2 {
            let Some((slot, ballot, asked_at)) = self.waiting.front() else { return };
            let waits = |e: &Entry| e.ballot == *ballot && e.asked_at == *asked_at && !e.is_chosen;
            if self.entries.at(*slot).is_some_and(waits) {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn timeout(&self, attempt: u32) -> std::time::Duration {
        self.latency.timeout(attempt, self.cluster.resend_min, self.cluster.resend_max)
    }

    /// An acceptor answers: it is no suspect any more.
    fn hear(&mut self, acceptor: crate::AcceptorId, out: &mut Outbox) {
        if self.suspects.remove(acceptor) {
            self.say_suspected(acceptor, false, out);
        }
    }

    fn say_suspected(&self, acceptor: crate::AcceptorId, suspected: bool, out: &mut Outbox) {
        out.event(Event::Suspected { proxy_leader: self.id, acceptor, suspected });
    }
}
