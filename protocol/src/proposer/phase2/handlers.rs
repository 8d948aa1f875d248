//! What a leader does with messages and timers.

use crate::{
    AcceptorId, AcceptorSet, Event, FillTo, HeartbeatAck, Listener, Need, Outbox, PreVoteAck,
    Propose, Stage, Time, ToReplica, Truncated, Unserved, Watermark,
};

use super::Phase2;
use super::sequence::Acceptance;
use crate::proposer::ProposerTimer;
use crate::proposer::heartbeats::Beat;
use crate::proposer::next::{Asker, Campaign, Next};
use crate::proposer::shared::{Complaint, Shared};

/// The most times that a leader's patience with a gateway that it does not hear doubles.
const HAND_OVERS_MAX: u32 = 16;

impl Phase2 {
    /// Gives a batch the next slot. One that has overtaken others of its gateway waits for them.
    ///
    /// source: R24, R29, \[CP §4.1\]
    pub(in crate::proposer) fn on_propose(
        &mut self,
        propose: Propose,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        let id = propose.batch.id;
        if id.gateway.0 >= shared.cluster.gateways || propose.lowest > id.number {
            shared.counters.foreign += 1;
            return out.ignored("Propose: of no gateway, or below its lowest");
        }
        shared.complaints[usize::from(id.gateway.0)] = Complaint::default();
        match self.admit(propose, now) {
            Acceptance::Accepted => self.advance(shared, now, out),
            Acceptance::Early => shared.counters.early += 1,
            Acceptance::Duplicate => {
                shared.counters.duplicates += 1;
                out.ignored("Propose: the batch has a slot, or is answered");
            }
            Acceptance::Dropped => {
                shared.counters.dropped += 1;
                out.ignored("Propose: there is no room for the batch");
            }
        }
    }

    /// Notes that an acceptor, a proxy leader or a gateway hears us.
    ///
    /// source: R26, R28
    pub(in crate::proposer) fn on_heartbeat_ack(
        &mut self,
        ack: HeartbeatAck,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        shared.hear_clock(&ack, now, out);
        if ack.ballot != self.ballot {
            return out.ignored("HeartbeatAck: of another ballot");
        }
        match ack.from {
            Listener::Acceptor(acceptor) => {
                self.on_acceptor(acceptor, now);
                shared.hear_room(acceptor, ack.is_low, now);
            }
            Listener::ProxyLeader(proxy_leader) => self.on_proxy_leader(proxy_leader, now),
            Listener::Gateway(gateway) => {
                if let Some(complaint) = shared.complaints.get_mut(usize::from(gateway.0)) {
                    *complaint = Complaint::default();
                }
            }
        }
    }

    /// Hears an acceptor that it asked because it had fallen silent: one that hears it, or that has
    /// promised a larger ballot.
    ///
    /// source: R28
    pub(in crate::proposer) fn on_pre_vote_ack(&mut self, ack: PreVoteAck, now: Time) -> Next {
        if ack.promised > self.ballot {
            return Next::StepDown(ack.promised);
        }
        self.on_acceptor(ack.acceptor, now);
        Next::Stay
    }

    /// Notes when an acceptor was heard.
    ///
    /// source: R28
    fn on_acceptor(&mut self, acceptor: AcceptorId, now: Time) {
        if let Some(heard_at) = self.acceptors_heard_at.get_mut(usize::from(acceptor.0)) {
            *heard_at = now;
        }
    }

    /// Closes what f+1 replicas have executed, and fills as many slots as that gives credit for.
    ///
    /// source: R5, R9, R29
    pub(in crate::proposer) fn on_executed(
        &mut self,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        if let Some(closed) = self.close(&shared.roster, now, out) {
            shared.latency.sample(closed.since_last_ask);
            shared.pace.sample(closed.since_first_ask);
            shared.fruitless_campaigns = 0;
            if std::mem::take(&mut self.is_silent) {
                shared.timers.set(ProposerTimer::Heartbeat, now);
            }
        }
        self.go_on(shared, now, out)
    }

    /// Sees to a replica that can get a slot from no other role.
    ///
    /// An open slot is asked for again. One that we closed, or never covered, is not in our hands:
    /// to know what was chosen there takes a phase 1 that covers it, in a new ballot. Until that is
    /// over, or while one is under way, the question is dropped: it will come again.
    ///
    /// A leader that is stalled serves the request, too: the asker may be the replica without which
    /// nothing is executed by f+1.
    ///
    /// source: R8, R28
    pub(in crate::proposer) fn on_need(
        &mut self,
        need: Need,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        if shared.roster.incarnation(need.replica) != Some(need.incarnation) {
            out.ignored("Need: of a life that is not known to be current");
            return Next::Stay;
        }
        if !self.floor.covers(need.slot) {
            self.resend_one(need.slot, now, out);
            return Next::Stay;
        }
        // The asker may have been served since. And a leader that no read quorum has heard of late,
        // such as one that was paused, must not depose a leader it does not know of: a rerun asks
        // no pre-vote.
        let is_served = shared.roster.executed(need.replica).covers(need.slot);
        if self.rerun.is_some() || is_served || !self.is_heard(now) {
            out.ignored("Need: a rerun is under way, it is served, or no read quorum hears us");
            return Next::Stay;
        }
        shared.counters.reruns += 1;
        let asker = Asker { replica: need.replica, incarnation: need.incarnation };
        Next::Campaign(Campaign { first: need.slot, rerun_for: Some(asker) })
    }

    /// Sees to it that all below a bound is chosen, with no-ops where nothing else is proposed: an
    /// acceptor has voted above what phase 1 has found, for a leader of old, and reads wait for
    /// that.
    ///
    /// No slot is given twice, and none that phase 1 has not covered: those below the next one have
    /// their value, and are asked for until they are executed; the next ones are free, as for any
    /// batch (R7, R8). While this is the largest ballot, no acceptor has voted more than a window
    /// beyond what is proposed in it: where a gateway says so, another leads by now, or the bound
    /// is damaged.
    ///
    /// source: R20
    pub(in crate::proposer) fn on_fill_to(
        &mut self,
        fill: FillTo,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        let FillTo { gateway, to } = fill;
        if gateway.0 >= shared.cluster.gateways {
            shared.counters.foreign += 1;
            return out.ignored("FillTo: of no gateway");
        }
        let most = self.next.0.saturating_add(self.cluster.slot_window.into());
        if to.0 > most {
            shared.counters.fills_refused += 1;
            return out.event(Event::FillRefused { gateway, to, next: self.next });
        }
        if self.fill_to.raise(to) && to.0 > self.next.0 {
            shared.counters.fills += 1;
            self.advance(shared, now, out);
        }
    }

    /// Hands over to a proposer that may reach a gateway which does not reach us, after the least
    /// time that a leader that is stalled has: one that has campaigned in vain before, perhaps
    /// because it is half connected itself, must not hold on for longer than others.
    ///
    /// The next one may do no better, and another gateway may need us: so each hand-over for a
    /// gateway that is not heard afterwards doubles the time until the next, and one that is half
    /// connected hardly disturbs the others. Only time rests on it: it is an election like any
    /// other.
    ///
    /// source: R28
    pub(in crate::proposer) fn on_unserved(
        &self,
        unserved: Unserved,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        let (ballot, patience) = (self.ballot, shared.patience_min());
        let Some(complaint) = shared.complaints.get_mut(usize::from(unserved.gateway.0)) else {
            shared.counters.foreign += 1;
            out.ignored("Unserved: of no gateway");
            return Next::Stay;
        };
        let since = *complaint.since.get_or_insert(now);
        if now.since(since) < patience * (1 << complaint.hand_overs.min(HAND_OVERS_MAX)) {
            return Next::Stay;
        }
        complaint.hand_overs += 1;
        shared.counters.hand_overs += 1;
        out.event(Event::HandedOver { ballot, unserved: unserved.gateway });
        Next::HandOver
    }

    /// Closes what was chosen, executed and forgotten long ago.
    ///
    /// source: R10
    pub(in crate::proposer) fn on_truncated(
        &mut self,
        truncated: Truncated,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        if truncated.ballot != self.ballot {
            out.ignored("Truncated: of another ballot");
            return Next::Stay;
        }
        if let Some(rerun) = self.rerun {
            out.tell_replica(rerun.asker.replica, ToReplica::Truncated(truncated));
        }
        self.close_truncated(truncated.truncated, now);
        self.go_on(shared, now, out)
    }

    /// Goes on after slots were closed. If that was the last of a part of the log, phase 1 has to
    /// find what comes above: in a new ballot, for this one's has found what it was asked for.
    ///
    /// source: R8, R29
    fn go_on(&mut self, shared: &mut Shared, now: Time, out: &mut Outbox) -> Next {
        if self.is_over() && self.is_heard(now) {
            return Next::Campaign(Campaign {
                first: shared.executed().first_open(),
                rerun_for: None,
            });
        }
        self.advance(shared, now, out);
        Next::Stay
    }

    /// Asks for all slots that there is credit and room for, and has a timer watch them.
    ///
    /// source: R26, R27, R34
    pub(in crate::proposer) fn advance(
        &mut self,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        shared.no_room = shared.wanting_room(now);
        let stamp = shared.stamp(now);
        assert!(self.ballot <= shared.seen, "leads in {}, which was not seen", self.ballot);
        self.has_room = shared.no_room.is_empty();
        shared.counters.proposed += self.pump(&shared.roster, stamp, now, out);
        if !self.has_open() {
            shared.timers.stop(ProposerTimer::Resend);
        } else if !shared.timers.is_set(ProposerTimer::Resend)
            && let Some(at) = self.resend_at(&shared.latency)
        {
            // Once it is set, it is only ever due later: it looks again when it fires.
            shared.timers.set(ProposerTimer::Resend, at);
        }
    }

    /// Asks again for slots that make no progress, if that is due.
    ///
    /// source: R9
    pub(in crate::proposer) fn resend_if_due(
        &mut self,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        let due = self.resend_at(&shared.latency);
        if due.is_some_and(|at| at <= now) {
            shared.counters.resent += self.resend(now, out);
        }
        if let Some(at) = self.resend_at(&shared.latency) {
            shared.timers.set(ProposerTimer::Resend, at);
        }
        self.advance(shared, now, out);
    }

    /// Says that we lead; or falls silent towards acceptors and proposers, if being heard there
    /// only keeps a better leader away.
    ///
    /// Proxy leaders, replicas and gateways hear of the table and the ballot all the while: what
    /// they do with it may be the progress that is missing. A replica that has just started, for
    /// example, learns the table from here only, and f+1 may not be there without it. It keeps no
    /// other leader away, because none of them is asked before a campaign.
    ///
    /// source: R28
    pub(in crate::proposer) fn heartbeat(
        &mut self,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) {
        shared.timers.set(ProposerTimer::Heartbeat, now + shared.cluster.heartbeat_interval);
        // There may be room by now, or none; and a replica that is silent or stands still has given
        // its credit up.
        self.advance(shared, now, out);
        let is_useless = self.is_useless(shared, now);
        let was_silent = std::mem::replace(&mut self.is_silent, is_useless);
        let (ballot, chosen) = (self.ballot, self.chosen_watermark(shared));
        let beat = Beat { ballot, stage: Stage::Leading, chosen, is_silent: is_useless };
        shared.say_heartbeat_to_followers(beat, out);
        if !is_useless {
            shared.say_heartbeat_to_electors(beat, out);
        } else {
            if !was_silent {
                out.event(Event::Silenced { ballot });
            }
            // Whether acceptors are back is asked in a way that does not count as being heard.
            shared.say_pre_vote(0, out);
        }
    }

    /// Whether another might do better: no read quorum hears us, or nothing gets chosen although
    /// something is open, and not for want of replicas that have not halted.
    ///
    /// source: R28
    fn is_useless(&self, shared: &Shared, now: Time) -> bool {
        let patience = shared.patience();
        let is_stalled = self.stalled_since().is_some_and(|since| now.since(since) >= patience);
        // But for what skips the command at which they have: that needs no replica to be chosen.
        let is_skipping = self.skip.is_some_and(|(slot, _)| !self.floor.covers(slot));
        let is_excused = self.is_halted(&shared.roster, now) && !is_skipping;
        is_stalled && !is_excused || !self.is_heard(now)
    }

    /// Whether a read quorum of acceptors has heard us within an election timeout.
    ///
    /// source: R28
    pub(super) fn is_heard(&self, now: Time) -> bool {
        let timeout = self.cluster.election_timeout;
        let heard = self.acceptors_heard_at.iter().zip(0..);
        let hearing: AcceptorSet = heard
            .filter(|(at, _)| now.since(**at) < timeout)
            .map(|(_, acceptor)| AcceptorId(acceptor))
            .collect();
        self.cluster.quorums.is_read_quorum(hearing)
    }

    /// The bound of what is known to be chosen: what f+1 replicas have executed, or acceptors have
    /// truncated. The latter may be more: of the f+1 that had executed it one may have died since,
    /// and the others do not know of what they miss but by this.
    ///
    /// source: R15
    pub(in crate::proposer) fn chosen_watermark(&self, shared: &Shared) -> Watermark {
        shared.executed().max(self.floor)
    }

    /// Ends the reign: open slots are dropped, and what waits for a slot is refused. It was in vain
    /// if nothing was chosen although something was open, waited, or was wanted by a gateway that
    /// was not heard.
    ///
    /// source: R9, R28
    pub(in crate::proposer) fn end(mut self, shared: &mut Shared, out: &mut Outbox) {
        shared.suspicions.clone_from(&self.suspicions);
        let is_wanted = self.floor.0 < self.next.0
            || self.has_waiting()
            || shared.complaints.iter().any(|complaint| complaint.since.is_some());
        if is_wanted && !self.has_chosen {
            shared.fruitless_campaigns += 1;
        }
        for batch in self.queue.drain(..) {
            shared.refuse(&batch, out);
        }
    }
}
