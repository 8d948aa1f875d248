//! What must hold of all that was ever said.

use std::sync::Arc;

use loggos_protocol::{
    AcceptorSet, Ballot, Chosen, Content, P2a, QuorumSystem, Slot, To, ToAcceptor, ToProxyLeader,
    Value,
};

use crate::actor::Letter;

/// What was broken, and how.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Flaw {
    pub(crate) property: &'static str,
    pub(crate) what: String,
}

pub(crate) const AGREEMENT: &str = "at most one value is chosen a slot";
pub(crate) const ONE_PROPOSAL: &str = "one ballot has one value a slot";
pub(crate) const TRUTH: &str = "what is said to be chosen is chosen";
pub(crate) const ASSERTIONS: &str = "no role breaks an assertion";

/// All that was ever said.
#[derive(Debug)]
pub(crate) struct Said<'a> {
    pub(crate) quorums: QuorumSystem,
    pub(crate) letters: Vec<&'a Arc<Letter>>,
}

impl Said<'_> {
    /// What `news` breaks, which is among the letters already.
    pub(crate) fn flaw(&self, news: &Letter) -> Option<Flaw> {
        p2a(&news.to).map_or_else(|| self.flaw_of_vote(news), |p2a| self.flaw_of_p2a(p2a))
    }

    fn flaw_of_p2a(&self, p2a: &P2a) -> Option<Flaw> {
        let is_same = |other: &&P2a| (other.slot, other.ballot) == (p2a.slot, p2a.ballot);
        let mut others = self.letters.iter().filter_map(|letter| self::p2a(&letter.to));
        let other = others.find(|other| is_same(other) && other.value != p2a.value)?;
        let (slot, ballot) = (p2a.slot, p2a.ballot);
        let what = format!("{slot} {ballot}: {} and {}", name(&p2a.value), name(&other.value));
        Some(Flaw { property: ONE_PROPOSAL, what })
    }

    fn flaw_of_vote(&self, news: &Letter) -> Option<Flaw> {
        let (slot, ballot, value) = vote(news)?;
        if !self.is_chosen(slot, ballot, value) {
            return None;
        }
        let votes = self.letters.iter().filter_map(|letter| vote(letter));
        let mut others = votes.filter(|(of, _, other)| *of == slot && *other != value);
        let (_, earlier, other) = others.find(|(_, b, v)| self.is_chosen(slot, *b, v))?;
        let what = format!("{slot}: {} in {ballot}, and {} in {earlier}", name(value), name(other));
        Some(Flaw { property: AGREEMENT, what })
    }

    /// What is wrong with saying that a slot is chosen.
    pub(crate) fn flaw_of_chosen(&self, chosen: &Chosen) -> Option<Flaw> {
        let Chosen { slot, ballot, value } = chosen;
        if self.is_chosen(*slot, *ballot, value) {
            return None;
        }
        let what = format!("{slot} {ballot}: {} has no write quorum", name(value));
        Some(Flaw { property: TRUTH, what })
    }

    /// Whether `news` makes it so that proposer 1 has proposed what is chosen in an earlier ballot
    /// of proposer 0: by proposing that, or by being the last vote needed.
    pub(crate) fn is_recovery(&self, news: &Letter) -> bool {
        let p2as = self.letters.iter().filter_map(|letter| p2a(&letter.to));
        let votes = self.letters.iter().filter_map(|letter| vote(letter));
        let is_pair = |p2a: &P2a, (slot, ballot, value): (Slot, Ballot, &Value)| {
            let is_anew = ballot.proposer < p2a.ballot.proposer && ballot < p2a.ballot;
            is_anew && (slot, value) == (p2a.slot, &p2a.value)
        };
        let is_chosen = |(slot, ballot, value)| self.is_chosen(slot, ballot, value);
        match (p2a(&news.to), vote(news)) {
            (Some(p2a), _) => votes.filter(|vote| is_pair(p2a, *vote)).any(is_chosen),
            (None, Some(vote)) => p2as.filter(|p2a| is_pair(p2a, vote)).any(|_| is_chosen(vote)),
            (None, None) => false,
        }
    }

    /// Whether a write quorum has voted for `value` in `ballot`.
    fn is_chosen(&self, slot: Slot, ballot: Ballot, value: &Value) -> bool {
        let mut voters = AcceptorSet::default();
        for letter in &self.letters {
            if let To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) = &letter.to
                && vote(letter) == Some((slot, ballot, value))
            {
                voters.insert(p2b.acceptor);
            }
        }
        self.quorums.is_write_quorum(voters)
    }
}

fn p2a(to: &To) -> Option<&P2a> {
    match to {
        To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) | To::Acceptor(_, ToAcceptor::P2a(p2a)) => {
            Some(p2a)
        }
        To::ProxyLeader(..)
        | To::Acceptor(..)
        | To::Gateway(..)
        | To::Proposer(..)
        | To::Replica(..) => None,
    }
}

fn vote(letter: &Letter) -> Option<(Slot, Ballot, &Value)> {
    let To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) = &letter.to else { return None };
    letter.voted.as_ref().map(|value| (p2b.slot, p2b.ballot, value))
}

/// Names a value by the command in it: the first proposer's are x, the second's are y.
pub(crate) fn name(value: &Value) -> String {
    match &value.content {
        Content::Noop => "no-op".to_owned(),
        Content::Batch(batch) => {
            let letter = if batch.id.incarnation.0 == 0 { 'x' } else { 'y' };
            format!("{letter}{}", batch.id.number)
        }
    }
}
