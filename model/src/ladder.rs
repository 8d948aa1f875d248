//! A path as a ladder of messages that a person can follow.

use std::fmt::Write;

use loggos_protocol::{P1b, P2a, To, ToAcceptor, ToProposer, ToProxyLeader};
use stateright::Path;

use crate::actor::{Letter, Stimulus};
use crate::checks::name;
use crate::model::{Action, Clusters, State};

/// A path, step by step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ladder {
    /// The number of steps that it takes.
    pub steps: usize,
    /// What happens to whom in each, and what is said.
    pub text: String,
}

/// Tells `path` step by step: what happens to whom, and what is said then that was not before.
pub(crate) fn ladder(clusters: &Clusters, path: Path<State, Action>) -> Ladder {
    let steps = path.into_vec();
    let mut text = String::new();
    for (number, pair) in steps.windows(2).enumerate() {
        let [(before, Some(action)), (after, _)] = pair else { continue };
        let who = clusters.world.name(action.place);
        let what = match action.stimulus {
            Stimulus::Letter(number) => format!("takes {}", content(&clusters.letter(number).to)),
            Stimulus::Campaign => "campaigns".to_owned(),
            Stimulus::Command => "is given a command".to_owned(),
            Stimulus::Resend => "asks another proxy leader".to_owned(),
            Stimulus::Retry => "asks other acceptors".to_owned(),
        };
        let mut step = format!("{:>3}  {who:<14}  {what}", number + 1);
        let mut last = String::new();
        for letter in clusters.news(before, after) {
            let Letter { to, .. } = &*letter;
            let says = content(to);
            if says != last {
                let _ = write!(step, "\n{:>23}says {says} to", "");
            }
            let _ = write!(step, " {}", receiver(to));
            last = says;
        }
        let _ = writeln!(text, "{step}");
    }
    if let Some((State { flaw: Some(flaw), .. }, _)) = steps.last() {
        let _ = writeln!(text, "     broken: {}", flaw.what);
    }
    Ladder { steps: steps.len() - 1, text }
}

fn receiver(to: &To) -> String {
    match to {
        To::Gateway(id, _) => format!("g{}", id.0),
        To::Proposer(id, _) => format!("p{}", id.0),
        To::ProxyLeader(id, _) => format!("l{}", id.0),
        To::Acceptor(id, _) => format!("a{}", id.0),
        To::Replica(id, _) => format!("r{}", id.0),
    }
}

fn content(to: &To) -> String {
    match to {
        To::Acceptor(_, ToAcceptor::P1a(p1a)) => format!("P1a {}", p1a.ballot),
        To::Acceptor(_, ToAcceptor::P2a(p2a)) | To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) => {
            let P2a { ballot, slot, value, .. } = p2a;
            format!("P2a {ballot} {slot} {}", name(value))
        }
        To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) => {
            format!("P2b {} {} of a{}", p2b.ballot, p2b.slot, p2b.acceptor.0)
        }
        To::Proposer(_, ToProposer::P1b(p1b)) => {
            let P1b { ballot, acceptor, votes, .. } = &**p1b;
            let mut text = format!("P1b {ballot} of a{}:", acceptor.0);
            for (slot, vote) in votes {
                let _ = write!(text, " {slot} {} {}", vote.ballot, name(&vote.value));
            }
            text + if votes.is_empty() { " nothing" } else { "" }
        }
        To::Proposer(_, ToProposer::Nack(nack)) | To::ProxyLeader(_, ToProxyLeader::Nack(nack)) => {
            format!("Nack {}, promised {}", nack.refused, nack.promised)
        }
        To::Gateway(..)
        | To::Replica(..)
        | To::Proposer(..)
        | To::ProxyLeader(..)
        | To::Acceptor(..) => {
            format!("{to:?}")
        }
    }
}
