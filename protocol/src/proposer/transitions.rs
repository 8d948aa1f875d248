//! From phase to phase: what ends with one, and what the next begins with.

use crate::{Ballot, Event, Outbox, Stage, Time, ToReplica, Truncated, Watermark};

use super::heartbeats::Beat;
use super::next::{Campaign, Next};
use super::phase1::Phase1;
use super::phase2::Phase2;
use super::pre_vote::PreVote;
use super::{Phase, Proposer, ProposerTimer};

impl Proposer {
    /// Goes on to what comes next: as a rule the phase goes on, and there is nothing to do.
    #[inline]
    pub(super) fn enter(&mut self, next: Next, now: Time, out: &mut Outbox) {
        if !matches!(next, Next::Stay) {
            self.enter_next(next, now, out);
        }
    }

    fn enter_next(&mut self, next: Next, now: Time, out: &mut Outbox) {
        match next {
            Next::Stay => {}
            Next::Follow => self.phase = Phase::Following,
            Next::PreVote { nonce } => self.phase = Phase::PreVote(PreVote::new(nonce)),
            Next::Campaign(campaign) => self.campaign(campaign, now, out),
            Next::Lead => self.lead(now, out),
            Next::Fail => {
                self.shared.fruitless_campaigns += 1;
                self.give_up(out);
                self.shared.back_off(now);
            }
            Next::HandOver => {
                self.hand_over(out);
                self.shared.back_off(now);
            }
            Next::StepDown(promised) => self.step_down(promised, now, out),
        }
    }

    /// Starts phase 1 in a ballot larger than any seen, over all slots from `campaign.first` on.
    ///
    /// An old reign's open slots are dropped: what of them was chosen, phase 1 finds. A leader that
    /// goes on in a new ballot is no better for it: its patience is what it was, or one that
    /// achieves nothing would lead for as long as replicas ask it for reruns.
    ///
    /// source: R5, R8, R28, \[CP §2.1\]
    fn campaign(&mut self, campaign: Campaign, now: Time, out: &mut Outbox) {
        let before = (self.shared.complaints.clone(), self.shared.fruitless_campaigns);
        let goes_on = self.is_leading();
        self.give_up(out);
        let shared = &mut self.shared;
        if goes_on {
            (shared.complaints, shared.fruitless_campaigns) = before;
        }
        assert!(shared.membership.table().is_some(), "campaigned without a table");
        assert!(!shared.has_left, "campaigned after it was told to stop");
        let round = shared.seen.round + 1;
        let ballot = Ballot { round, proposer: shared.id, incarnation: shared.incarnation };
        assert!(ballot > shared.seen, "{ballot} does not outbid {}", shared.seen);
        shared.seen = ballot;
        shared.counters.campaigns += 1;
        let phase1 = Box::new(Phase1::new(&shared.cluster, ballot, campaign, now));
        phase1.heartbeat(shared, now, out);
        phase1.ask(shared, now, out);
        self.phase = Phase::Phase1(phase1);
    }

    /// Ends phase 1: every slot that it covers and an acceptor has voted in, or that lies between
    /// such, is proposed anew in our ballot. This happens once a ballot, because the campaign ends
    /// here.
    ///
    /// source: R7
    fn lead(&mut self, now: Time, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Following);
        let Phase::Phase1(phase1) = phase else { unreachable!("only a candidate is elected") };
        let (ballot, first, rerun_for) = (phase1.ballot, phase1.first(), phase1.rerun_for);
        let shared = &mut self.shared;
        let recovered = phase1.finish(shared.cluster.quorums);
        assert!(!shared.has_left, "leads after it was told to stop");
        assert!(recovered.base >= first, "{ballot} recovered slots below its first one, {first}");
        let noops = recovered.values.iter().filter(|v| v.is_none()).count() as u64;
        let stamps = recovered.values.iter().flatten().map(|value| value.stamp);
        stamps.for_each(|stamp| shared.take_over_stamp(stamp));
        if let (Some(asker), None) = (rerun_for, recovered.rerun_for) {
            let (slot, truncated) = (first, recovered.truncated);
            let truncated = Truncated { acceptor: None, slot, ballot, truncated };
            out.tell_replica(asker.replica, ToReplica::Truncated(truncated));
        }
        let mut reign = Phase2::new(shared, ballot, recovered, now);
        shared.counters.elections += 1;
        shared.counters.noops += noops;
        shared.leader = Some(shared.id);
        out.event(Event::Elected { ballot, first, next: reign.next(), noops });
        shared.timers.stop(ProposerTimer::Phase1);
        reign.heartbeat(shared, now, out);
        reign.advance(shared, now, out);
        self.phase = Phase::Phase2(Box::new(reign));
    }

    /// Ends a campaign or reign, and has the others not wait for an election timeout.
    ///
    /// source: R28
    pub(super) fn hand_over(&mut self, out: &mut Outbox) {
        if let Some(ballot) = self.ballot() {
            let chosen = self.chosen_watermark();
            self.shared.say_heartbeat(
                Beat { ballot, stage: Stage::Leaving, chosen, is_silent: false },
                out,
            );
        }
        self.shared.leader = None;
        self.give_up(out);
    }

    /// Ends a campaign or reign that a larger ballot has overtaken.
    ///
    /// source: R13, R28
    fn step_down(&mut self, promised: Ballot, now: Time, out: &mut Outbox) {
        if let Some(ballot) = self.ballot() {
            assert!(promised > ballot, "{ballot} was ended by {promised}");
            out.event(Event::SteppedDown { ballot, promised });
        }
        self.shared.leader = Some(promised.proposer).filter(|winner| *winner != self.shared.id);
        self.give_up(out);
        self.shared.heard = Some((now, promised.proposer));
        self.shared.back_off(now);
    }

    /// Drops whatever belongs to the campaign or reign: open slots, timers, and what waits for a
    /// slot, whose gateways are told.
    ///
    /// source: R9
    fn give_up(&mut self, out: &mut Outbox) {
        let phase = std::mem::replace(&mut self.phase, Phase::Following);
        let shared = &mut self.shared;
        for timer in [ProposerTimer::Heartbeat, ProposerTimer::Phase1, ProposerTimer::Resend] {
            shared.timers.stop(timer);
        }
        match phase {
            Phase::Following | Phase::PreVote(_) | Phase::Phase1(_) => {}
            Phase::Phase2(reign) => reign.end(shared, out),
        }
        shared.complaints.iter_mut().for_each(|complaint| complaint.since = None);
    }

    /// The bound of what is known to be chosen.
    fn chosen_watermark(&self) -> Watermark {
        match &self.phase {
            Phase::Phase2(reign) => reign.chosen_watermark(&self.shared),
            Phase::Following | Phase::PreVote(_) | Phase::Phase1(_) => self.shared.executed(),
        }
    }
}
