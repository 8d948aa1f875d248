//! Pre-vote: asking acceptors whether a campaign would depose a leader that is heard.

use std::time::Duration;

use crate::{
    AcceptorSet, Outbox, PreVote as Message, PreVoteAck, ProposerId, Slot, Stage, Time, ToAcceptor,
    Watermark,
};

use super::ProposerTimer;
use super::heartbeats::Beat;
use super::next::{Campaign, Next};
use super::shared::Shared;

/// How many election timeouts f+1 replicas that replay may stay where they are, before a campaign
/// proposes anew what they do not get on with.
const REPLAY_PATIENCE: u32 = 2;

/// How much later each proposer asks for pre-votes than the one before it, when the leader's life
/// has ended, and how often: acceptors come to know of it at other moments.
const EVIDENCE_STAGGER: Duration = Duration::from_millis(10);
const EVIDENCE_RETRY: Duration = Duration::from_millis(5);

/// Pre-votes that are under way.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct PreVote {
    nonce: u64,
    /// The acceptors that have heard no leader for an election timeout.
    quiet: AcceptorSet,
    /// Above every slot that any of them has voted in.
    votes_end: Watermark,
}

impl PreVote {
    /// Starts to ask, with a nonce that no earlier question had.
    pub(super) fn new(nonce: u64) -> Self {
        Self { nonce, quiet: AcceptorSet::default(), votes_end: Watermark(0) }
    }

    /// Campaigns once a read and a write quorum of acceptors have heard no leader for an election
    /// timeout: a leader that gets anything chosen would have been heard by one of them.
    ///
    /// source: R28
    pub(super) fn on_ack(
        &mut self,
        ack: PreVoteAck,
        shared: &mut Shared,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        if ack.nonce != self.nonce || !ack.is_quiet {
            out.ignored("PreVoteAck: of an earlier question, or a leader is heard");
            return Next::Stay;
        }
        self.quiet.insert(ack.acceptor);
        self.votes_end.raise(ack.votes_end);
        let quorums = shared.cluster.quorums;
        if !quorums.is_read_quorum(self.quiet) || !quorums.is_write_quorum(self.quiet) {
            return Next::Stay;
        }
        let first = shared.executed().first_open();
        if shared.awaits_replay(first, self.votes_end, now) {
            shared.await_replay(now, out);
            return Next::Follow;
        }
        if shared.defers(now) {
            return Next::Follow;
        }
        Next::Campaign(Campaign { first, rerun_for: None })
    }
}

impl Shared {
    /// Asks acceptors whether we may campaign, if a table stands and no leader was heard for a
    /// while. `asked` is the pre-vote that is under way.
    ///
    /// source: R28
    pub(super) fn election(
        &mut self,
        asked: Option<&PreVote>,
        now: Time,
        out: &mut Outbox,
    ) -> Next {
        let cluster = &self.cluster;
        if self.membership.table().is_none() {
            return Next::Stay;
        }
        let patience = cluster.election_timeout + cluster.election_stagger * u32::from(self.id.0);
        if let Some((at, _)) = self.heard.filter(|(at, _)| now.since(*at) < patience) {
            self.timers.set(ProposerTimer::Election, at + patience);
            self.tell_replicas(Stage::Following, out);
            return Next::Stay;
        }
        self.urgent_until.take_if(|until| *until <= now);
        if self.urgent_until.is_some() {
            // Acceptors may come to know of it a little later: they are asked again, and what the
            // others have said meanwhile still counts.
            self.timers.set(ProposerTimer::Election, now + EVIDENCE_RETRY);
            if let Some(asked) = asked {
                self.say_pre_vote(asked.nonce, out);
                return Next::Stay;
            }
        }
        self.tell_replicas(Stage::Following, out);
        self.leader = None;
        self.counters.pre_votes += 1;
        let nonce = self.rng.next_u64();
        self.say_form(out); // an acceptor without a table cannot answer
        self.say_pre_vote(nonce, out);
        Next::PreVote { nonce }
    }

    /// Sets when to look again whether a leader is heard.
    ///
    /// source: R28
    pub(super) fn look_again(&mut self, now: Time) {
        let cluster = &self.cluster;
        let again = cluster.election_timeout / 2 + self.rng.up_to(cluster.election_stagger);
        self.timers.set(ProposerTimer::Election, now + again);
    }

    /// Asks each acceptor whether it hears a leader.
    ///
    /// source: R28
    pub(super) fn say_pre_vote(&self, nonce: u64, out: &mut Outbox) {
        for acceptor in self.cluster.quorums.acceptors().iter() {
            let pre_vote = Message { proposer: self.id, nonce };
            out.tell_acceptor(acceptor, ToAcceptor::PreVote(pre_vote));
        }
    }

    /// Asks for pre-votes almost at once, since the leader that it followed has ended: the next
    /// proposer first, the others a little later each.
    ///
    /// source: R28
    pub(super) fn hurry(&mut self, ended: ProposerId, now: Time) {
        let count = self.cluster.proposers;
        let turn = (self.id.0 + count - ended.0 - 1) % count;
        self.urgent_until = Some(now + self.cluster.election_timeout);
        self.timers.set(ProposerTimer::Election, now + EVIDENCE_STAGGER * u32::from(turn));
    }

    /// Whether replicas should rather replay what acceptors hold than have it all proposed anew:
    /// there is more than a reign leaves behind, as when all nodes were stopped, and they get on. A
    /// campaign then would recover, keep and write again the whole log.
    ///
    /// Waiting ends: votes are added by leaders only, and f+1 replicas that are stuck are not
    /// waited for. With fewer than f+1 there, nothing could be executed by enough, under any
    /// leader.
    ///
    /// source: R15
    fn awaits_replay(&mut self, first: Slot, votes_end: Watermark, now: Time) -> bool {
        if votes_end.0.saturating_sub(first.0) <= self.cluster.ring_slots().into() {
            self.replay_awaited = None;
            return false;
        }
        let are_here = self.roster.known_count() > usize::from(self.cluster.f);
        match self.replay_awaited.filter(|(at, _)| *at == first && are_here) {
            Some((_, since)) => now.since(since) < REPLAY_PATIENCE * self.cluster.election_timeout,
            None => {
                self.replay_awaited = Some((first, now));
                true
            }
        }
    }

    /// Has replicas replay, and asks again soon whether to campaign.
    ///
    /// source: R15
    fn await_replay(&mut self, now: Time, out: &mut Outbox) {
        self.tell_replicas(Stage::Waiting, out);
        self.counters.waits += 1;
        self.timers.set(ProposerTimer::Election, now + self.cluster.heartbeat_interval);
    }

    /// Whether it lets others campaign first: its last campaigns were in vain, and since it was
    /// first given leave to campaign again, each other proposer has not had the time to look for a
    /// leader and find none.
    ///
    /// One that is half connected, hears no replica, say, and cannot know it, would otherwise lead
    /// as often as any other, each time for longer (`Shared::patience`). The wait is drawn anew
    /// when another has campaigned; it ends, because one that none has overtaken meanwhile
    /// campaigns. Where all have campaigned in vain, as after a time without enough replicas,
    /// chance decides, and not their numbers: or two that are half connected could take turns for
    /// ever.
    ///
    /// source: R28
    fn defers(&mut self, now: Time) -> bool {
        if self.fruitless_campaigns == 0 {
            return false;
        }
        let spread = self.cluster.election_stagger * u32::from(self.cluster.proposers);
        let deferring = self.deferring.filter(|(_, seen)| *seen == self.seen);
        let (until, seen) = deferring.unwrap_or_else(|| {
            let wait = self.cluster.election_timeout + spread + self.rng.up_to(spread);
            (now + wait, self.seen)
        });
        let is_over = now >= until;
        self.deferring = (!is_over).then_some((until, seen));
        if !is_over {
            self.timers.set(ProposerTimer::Election, until);
        }
        !is_over
    }

    /// Tells replicas what a proposer that does not lead knows.
    fn tell_replicas(&self, stage: Stage, out: &mut Outbox) {
        let beat = Beat { ballot: self.seen, stage, chosen: self.executed(), is_silent: false };
        self.say_heartbeat_to_replicas(beat, AcceptorSet::default(), out);
    }
}
