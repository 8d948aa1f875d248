//! A slot that is missing: peers are asked for it in turn, then the leader; and what peers ask of
//! us.

use super::{Replica, ReplicaTimer};
use crate::{
    Ballot, Chosen, Fetch, Fetched, Need, Outbox, PAGES_AHEAD, ReplicaId, Slot, StateMachine, Time,
    ToProposer, ToReplica, Value,
};

/// The rounds in which every peer is asked for a slot before the leader is: it takes an election to
/// answer.
const PEER_ROUNDS: u32 = 3;

/// The number of times that a peer is asked for what comes next and has nothing.
const FOLLOW_ASKS: u32 = 3;

/// A peer that is asked for what comes next: what was chosen last came from it, and not from a
/// proxy leader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following {
    peer: ReplicaId,
    /// The number of times that it is asked again before it has something.
    asks_left: u32,
}

/// A slot that is missing.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub(super) slot: Slot,
    /// The number of times that peers were asked for it.
    pub(super) asked: u32,
    /// Peers that have executed it and hold it no more. One that has not executed it yet, or whose
    /// answer was lost, has not failed us.
    pub(super) let_go: Vec<ReplicaId>,
}

/// Slots that a peer was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetching {
    pub(super) peer: ReplicaId,
    pub(super) first: Slot,
    /// How many of the pages that answer it have not come.
    pub(super) pages_left: u32,
}

impl<M: StateMachine> Replica<M> {
    /// Gives a peer what it misses, as far as it is executed and still held.
    ///
    /// source: R15
    pub fn on_fetch(&mut self, fetch: Fetch, now: Time, out: &mut Outbox) {
        self.note_fetch(fetch.first, now);
        let (replica, executed, mut first) = (self.id, self.executed, fetch.first);
        for _ in 0..PAGES_AHEAD {
            let slots = self.page(first);
            let next = Slot(first.0 + slots.len() as u64);
            let is_last = slots.is_empty() || !executed.covers(next);
            let fetched = Fetched { replica, first, slots, executed };
            out.tell_replica(fetch.replica, ToReplica::Fetched(fetched));
            if is_last {
                break;
            }
            first = next;
        }
    }

    /// A page of what it has executed from `first` on, as far as it still holds that.
    pub(super) fn page(&self, first: Slot) -> Vec<(Ballot, Value)> {
        let (mut slots, mut bytes) = (Vec::new(), 0);
        for slot in (first.0..self.executed.0).map(Slot) {
            let is_full = slots.len() >= self.cluster.page_slots_max as usize
                || bytes >= self.cluster.page_bytes_max as usize;
            let donated = self.donation.as_ref().and_then(|donation| donation.executed(slot));
            let entry = self.log.at(slot).or(donated);
            let Some(entry) = entry.filter(|_| !is_full) else { break };
            bytes += entry.1.batch().map_or(0, |batch| batch.block.len());
            slots.push(entry.clone());
        }
        slots
    }

    /// Takes in what a peer has executed: its word is as good as a quorum's.
    ///
    /// source: R15
    pub fn on_fetched(&mut self, fetched: Fetched, now: Time, out: &mut Outbox) {
        self.chosen.raise(fetched.executed);
        let has_let_go = fetched.slots.is_empty() && fetched.executed.covers(fetched.first);
        if let Some(gap) = self.gap.as_mut().filter(|gap| has_let_go && gap.slot == fetched.first)
            && !gap.let_go.contains(&fetched.replica)
        {
            gap.let_go.push(fetched.replica);
        }
        self.transfer_if_needed(now, out);
        for (slot, (ballot, value)) in (fetched.first.0..).map(Slot).zip(fetched.slots) {
            if slot >= self.missing() {
                self.counters.fetched += 1;
                self.on_chosen(Chosen { slot, ballot, value }, now, out);
            }
        }
        let missing = self.missing();
        let Some(fetching) = self.fetching.as_mut().filter(|it| it.peer == fetched.replica) else {
            return out.ignored("Fetched: another peer was asked since");
        };
        fetching.pages_left = fetching.pages_left.saturating_sub(1);
        let is_last = fetching.pages_left == 0;
        let has_got_on = missing > fetching.first;
        if missing < fetched.executed.first_open() {
            if is_last && has_got_on {
                self.fetch(fetched.replica, out);
            }
        } else {
            self.follow(fetched.replica, has_got_on, now);
        }
    }

    /// Has a peer asked for what comes next in a while, if we got on by it, or did lately: what is
    /// chosen may not come to us, and that it was is told only now and then by those that follow
    /// the leader. One that holds credit would hold up all others meanwhile.
    ///
    /// source: R15, R29
    fn follow(&mut self, peer: ReplicaId, has_got_on: bool, now: Time) {
        let left = self.following.map_or(0, |following| following.asks_left);
        let asks_left = if has_got_on { FOLLOW_ASKS } else { left };
        self.following = (asks_left > 0).then_some(Following { peer, asks_left });
        if asks_left > 0 && !self.timers.is_set(ReplicaTimer::Gap) {
            self.timers.set(ReplicaTimer::Gap, now + self.cluster.resend_min);
        }
    }

    /// Asks the peer that it follows for what comes next, and again if no answer comes.
    fn ask_followed(&mut self, now: Time, out: &mut Outbox) {
        if let Some(following) = &mut self.following
            && following.asks_left > 0
            && self.restoring.is_none()
        {
            following.asks_left -= 1;
            let peer = following.peer;
            self.fetch(peer, out);
            self.timers.set(ReplicaTimer::Gap, now + self.cluster.resend_min);
        }
    }

    /// Asks a peer for what it has executed from the slot on that is missing.
    pub(super) fn fetch(&mut self, peer: ReplicaId, out: &mut Outbox) {
        let first = self.missing();
        assert_ne!(peer, self.id, "a replica asks itself for slots");
        self.fetching = Some(Fetching { peer, first, pages_left: PAGES_AHEAD });
        out.tell_replica(peer, ToReplica::Fetch(Fetch { replica: self.id, first }));
    }

    /// Starts to wait for a slot that is known to be chosen and was not told to us.
    pub(super) fn watch_gap(&mut self, now: Time) {
        let slot = self.missing();
        let is_behind = self.is_behind() && self.restoring.is_none();
        if is_behind && !self.timers.is_set(ReplicaTimer::Gap) {
            self.gap = Some(Gap { slot, asked: 0, let_go: Vec::new() });
            self.timers.set(ReplicaTimer::Gap, now + self.cluster.resend_min);
        }
    }

    /// Asks the peers in turn for the slot that is missing, acceptors once each peer was asked, and
    /// the leader ever more seldom.
    ///
    /// source: R8, R15
    pub(super) fn fill_gap(&mut self, now: Time, out: &mut Outbox) {
        let slot = self.missing();
        if !self.is_behind() || self.restoring.is_some() {
            self.gap = None;
            return self.ask_followed(now, out);
        }
        self.timers.set(ReplicaTimer::Gap, now + self.cluster.resend_min);
        let Some(gap) = self.gap.as_mut().filter(|gap| gap.slot == slot) else {
            self.gap = Some(Gap { slot, asked: 0, let_go: Vec::new() });
            return self.ask_followed(now, out); // another slot: it may be on its way
        };
        if gap.asked == 0 {
            self.counters.gaps += 1;
        }
        let turn = gap.asked;
        gap.asked += 1;
        self.transfer_if_needed(now, out);
        // What one that has halted misses, nobody waits for.
        if self.is_leaders_turn(turn) && !self.is_transferring() && self.halted.is_none() {
            let need = Need { replica: self.id, incarnation: self.incarnation, slot };
            if self.leader > Ballot::default() {
                out.tell_proposer(self.leader.proposer, ToProposer::Need(need));
            }
        }
        if turn >= u32::from(self.cluster.replicas - 1) {
            self.start_replay(now, out); // every peer has been asked once
        }
        let peers = self.cluster.replicas - 1;
        if let Ok(offset) = u8::try_from(turn % u32::from(peers.max(1)))
            && peers > 0
        {
            let peer = ReplicaId((self.id.0 + 1 + offset) % self.cluster.replicas);
            self.fetch(peer, out);
        }
    }

    /// Whether it is time to ask the leader: after some rounds of asking peers, and then ever more
    /// seldom, because each time may cost an election.
    pub(super) fn is_leaders_turn(&self, turn: u32) -> bool {
        let asks = self.asks_of_peers().max(1);
        let times = turn / asks;
        turn.is_multiple_of(asks)
            && (times.is_power_of_two() || (times > 0 && times.is_multiple_of(64)))
    }

    /// The number of times that peers are asked before the leader is.
    pub(super) fn asks_of_peers(&self) -> u32 {
        PEER_ROUNDS * u32::from(self.cluster.replicas - 1)
    }
}
