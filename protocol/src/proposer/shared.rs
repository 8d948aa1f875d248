//! What a proposer knows in every phase.

use std::time::Duration;

use crate::{
    AcceptorId, AcceptorSet, Ballot, Batch, ClusterSettings, DirectoryId, Event, Executed, Former,
    HeartbeatAck, Identify, Incarnation, Latency, Listener, Membership, NotLeader, Outbox,
    ProposerId, Rng, Roster, Slot, Time, Timers, ToGateway, ToReplica, Watcher, Watermark,
};

use super::suspicion::{Suspicion, Suspicions};
use super::{ProposerCounters, ProposerTimer};

/// A proposer's knowledge, whatever its phase.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Shared {
    pub(super) cluster: ClusterSettings,
    pub(super) id: ProposerId,
    pub(super) incarnation: Incarnation,
    pub(super) former: Former,
    pub(super) membership: Membership,
    /// The largest ballot seen anywhere: the next campaign outbids it. Never goes down.
    pub(super) seen: Ballot,
    /// The proposer that leads, as far as we know.
    pub(super) leader: Option<ProposerId>,
    /// The time when another leader or candidate was last heard, and which.
    pub(super) heard: Option<(Time, ProposerId)>,
    /// Until when it asks for pre-votes often: the life of the leader that it heard has ended.
    pub(super) urgent_until: Option<Time>,
    pub(super) roster: Roster,
    /// From asking for a slot, the last time, to its execution by f+1 replicas: how long to wait
    /// before it is asked for again.
    pub(super) latency: Latency,
    /// Likewise, from the first time: how long to wait before another may do better (R28).
    pub(super) pace: Latency,
    /// Campaigns of ours in a row that were in vain: they elected no leader, or one that got
    /// nothing chosen of what was wanted. Each doubles our patience, and after them we let others
    /// campaign first (R28).
    pub(super) fruitless_campaigns: u32,
    /// While it lets others campaign first: until when, and the largest ballot seen when that was
    /// drawn.
    pub(super) deferring: Option<(Time, Ballot)>,
    /// What proxy leaders were under suspicion for when it last led.
    pub(super) suspicions: Suspicions,
    /// Acceptors whose logs had little room when they were last heard.
    pub(super) low: AcceptorSet,
    /// Those of them for want of whose room nothing new was proposed, when that was last looked at.
    pub(super) no_room: AcceptorSet,
    /// The time when each acceptor was last heard to say how much room it has.
    pub(super) room_heard_at: Box<[Time]>,
    /// Of each gateway, what it says by way of acceptors.
    pub(super) complaints: Box<[Complaint]>,
    /// Since when f+1 replicas have been where they are, while a campaign waits for them to replay.
    pub(super) replay_awaited: Option<(Slot, Time)>,
    /// The last stamp given (R26). Never goes down.
    stamp: Time,
    /// What the clock of each acceptor showed last; zero before it was heard.
    clocks: Box<[Time]>,
    /// Room to sort them in.
    clocks_sorted: Box<[Time]>,
    /// What our clock shows by then is given as a stamp.
    stamp_max: Time,
    /// Whether our clock was ahead of that when acceptors' were last heard.
    is_ahead: bool,
    /// Whether it was told to stop, and must not campaign any more.
    pub(super) has_left: bool,
    pub(super) rng: Rng,
    pub(super) timers: Timers<ProposerTimer, 5>,
    pub(super) counters: ProposerCounters,
}

/// That a gateway gets no answers from the leader we are, as acceptors have heard.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Complaint {
    /// The time when it was first made, unless the gateway was heard since.
    pub(super) since: Option<Time>,
    /// The number of times that we have handed over for it since the gateway was last heard.
    pub(super) hand_overs: u32,
}

impl Shared {
    /// Returns what a proposer knows at first: nothing of a cluster.
    pub(super) fn new(
        cluster: ClusterSettings,
        id: ProposerId,
        incarnation: Incarnation,
        seed: u64,
        now: Time,
    ) -> Self {
        let mut rng = Rng::new(seed);
        let nonce = rng.next_u64();
        let mut timers = Timers::default();
        timers.set(ProposerTimer::Formation, now);
        Self {
            id,
            incarnation,
            former: Former::new(cluster.quorums, cluster.digest(), cluster.replicas, nonce),
            membership: Membership::new(cluster.digest(), cluster.quorums.acceptors_count()),
            seen: Ballot::default(),
            leader: None,
            heard: None,
            urgent_until: None,
            roster: Roster::new(cluster.replicas, rng.next_u64()),
            latency: Latency::default(),
            pace: Latency::default(),
            fruitless_campaigns: 0,
            deferring: None,
            suspicions: vec![Suspicion::default(); cluster.proxy_leaders_running().into()].into(),
            low: AcceptorSet::default(),
            no_room: AcceptorSet::default(),
            room_heard_at: vec![Time(0); cluster.quorums.acceptors_count().into()].into(),
            complaints: vec![Complaint::default(); cluster.gateways.into()].into(),
            replay_awaited: None,
            stamp: Time(0),
            clocks: vec![Time(0); cluster.quorums.acceptors_count().into()].into(),
            clocks_sorted: vec![Time(0); cluster.quorums.acceptors_count().into()].into(),
            stamp_max: Time(0),
            is_ahead: false,
            has_left: false,
            rng,
            timers,
            counters: ProposerCounters::default(),
            cluster,
        }
    }

    /// The stamp of what is proposed now: the time that our clock shows, if that is not ahead of
    /// acceptors' clocks; else the last stamp once more.
    ///
    /// source: R26
    pub(super) fn stamp(&mut self, now: Time) -> Time {
        if now <= self.stamp_max {
            self.stamp = self.stamp.max(now);
        }
        self.stamp
    }

    /// The last stamp, which no-ops have.
    pub(super) fn last_stamp(&self) -> Time {
        self.stamp
    }

    /// Takes over a stamp that another leader has given.
    ///
    /// source: R26
    pub(super) fn take_over_stamp(&mut self, stamp: Time) {
        self.stamp = self.stamp.max(stamp);
    }

    /// Takes in what an acceptor's clock shows, and from that how far ours may be.
    ///
    /// The log's time never goes down, so a leader whose clock is wrong could end, for good, all
    /// that is to end years later. What half of the acceptors' clocks have passed is no such time,
    /// where no more than f of them are wrong, or have not been heard of late: those count as
    /// behind. A clock that is behind does no harm but that the log's time waits for it.
    ///
    /// What was heard may be as old as a leader may go unheard, so as much is added.
    ///
    /// source: R26
    pub(super) fn hear_clock(&mut self, ack: &HeartbeatAck, now: Time, out: &mut Outbox) {
        let Listener::Acceptor(acceptor) = ack.from else { return };
        let Some(heard) = self.clocks.get_mut(usize::from(acceptor.0)) else { return };
        *heard = ack.clock;
        self.clocks_sorted.copy_from_slice(&self.clocks);
        let middle = (self.clocks.len() - 1) / 2;
        let (_, median, _) = self.clocks_sorted.select_nth_unstable(middle);
        let median = *median;
        if median == Time(0) {
            return; // too few were heard
        }
        self.stamp_max = median + self.cluster.clock_jump_max + self.cluster.election_timeout;
        let was_ahead = self.is_ahead;
        self.is_ahead = now > self.stamp_max;
        if self.is_ahead && !was_ahead {
            out.event(Event::ClockAhead { by: now.since(median) });
        }
    }

    /// The bound of what f+1 replicas have executed.
    pub(super) fn executed(&self) -> Watermark {
        self.roster.executed_by_f_plus_1(self.cluster.f)
    }

    /// Notes how far a replica is; returns whether that counts. A replica in a new life has to
    /// identify itself first.
    ///
    /// source: R5
    pub(super) fn on_executed(&mut self, executed: &Executed, now: Time, out: &mut Outbox) -> bool {
        if let Some(nonce) = self.roster.on_executed(executed, now) {
            let identify = Identify { watcher: Watcher::Proposer(self.id), nonce };
            out.tell_replica(executed.replica, ToReplica::Identify(identify));
            return false;
        }
        self.roster.note_progress(self.cluster.f, now);
        true
    }

    /// Notes how much room an acceptor has.
    pub(super) fn hear_room(&mut self, acceptor: AcceptorId, is_low: bool, now: Time) {
        let Some(heard_at) = self.room_heard_at.get_mut(usize::from(acceptor.0)) else { return };
        *heard_at = now;
        if is_low {
            self.low.insert(acceptor);
        } else {
            self.low.remove(acceptor);
        }
    }

    /// The acceptors for want of whose room nothing can be proposed for the first time: those that
    /// are low, if a write quorum was heard within an election timeout, and none without them. None
    /// if something can be.
    ///
    /// What they refuse would hold up all that comes behind it until the next leader, which would
    /// do no better; and each election takes some of the room that is left. So a cluster whose logs
    /// are low has a leader, and stands still, until there is room. A leader that does not hear a
    /// write quorum cannot tell: it proposes, and if it stalls, another may do better.
    ///
    /// source: R34
    pub(super) fn wanting_room(&self, now: Time) -> AcceptorSet {
        if self.low.is_empty() {
            return self.low;
        }
        let quorums = self.cluster.quorums;
        let is_heard = |acceptor: &AcceptorId| {
            now.since(self.room_heard_at[usize::from(acceptor.0)]) < self.cluster.election_timeout
        };
        let heard: AcceptorSet = quorums.acceptors().iter().filter(is_heard).collect();
        let is_wanted =
            quorums.is_write_quorum(heard) && !quorums.is_write_quorum(heard.without(self.low));
        if is_wanted { self.low } else { AcceptorSet::default() }
    }

    /// How long a leader goes on that achieves nothing, before it makes way. Elections that chose
    /// nothing make it longer: what they lacked may be time.
    ///
    /// source: R28
    pub(super) fn patience(&self) -> Duration {
        self.grown(self.patience_min())
    }

    /// How long a leader goes on that achieves nothing, if elections were never in vain.
    ///
    /// source: R28
    pub(super) fn patience_min(&self) -> Duration {
        let measured = (8 * self.pace.estimate()).min(8 * self.cluster.resend_max);
        (2 * self.cluster.election_timeout).max(measured)
    }

    /// Patience, as it has grown by campaigns that were in vain.
    ///
    /// source: R28
    pub(super) fn grown(&self, patience: Duration) -> Duration {
        patience * (1 << self.fruitless_campaigns.min(6))
    }

    /// Sets when to look again for a leader, a random while from now.
    ///
    /// source: R28
    pub(super) fn back_off(&mut self, now: Time) {
        let cluster = &self.cluster;
        let turn = cluster.election_stagger * u32::from(self.id.0);
        let wait = cluster.election_timeout + turn + self.rng.up_to(cluster.election_stagger);
        self.timers.set(ProposerTimer::Election, now + wait);
    }

    /// Tells a batch's gateway that we do not lead, and which proposer may.
    ///
    /// source: R9
    pub(super) fn refuse(&mut self, batch: &Batch, out: &mut Outbox) {
        self.counters.not_leader += 1;
        let hint = self.leader.filter(|leader| *leader != self.id);
        let (proposer, attempt) = (self.id, batch.attempt);
        let not_leader = NotLeader { proposer, batch: batch.id, attempt, hint };
        out.tell_gateway(batch.id.gateway, ToGateway::NotLeader(not_leader));
    }

    /// Whether `acceptor` with this memory is the table's; if not, it has forgotten, and says
    /// nothing that counts.
    ///
    /// source: R4
    pub(super) fn counts(
        &mut self,
        acceptor: AcceptorId,
        directory: DirectoryId,
        out: &mut Outbox,
    ) -> bool {
        let counts = self.membership.names(acceptor, directory);
        if !counts {
            self.counters.foreign += 1;
            out.event(Event::Forgotten { acceptor });
        }
        counts
    }
}
