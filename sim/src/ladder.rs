//! The ladder: which role said what to which, and what befell them, for a person to read.
//!
//! ```text
//!   1.402318512s  proposer 1       ──▶ acceptor 2        P1a b3.1.9c from s17, page s17
//!   1.402530000s  acceptor 0       ─✕  proposer 1        P1b b3.1.9c …            lost
//!   1.403000000s  * acceptor 3 crashes
//! ```

use std::collections::VecDeque;
use std::fmt::Write as _;

use loggos_protocol::{
    Content, Event, Heartbeat, P2a, Propose, RoleId, Slot, Time, To, ToAcceptor, ToGateway,
    ToProposer, ToProxyLeader, ToReplica, Value,
};

/// Lines that are remembered: what is older explains little.
const LINES_MAX: usize = 200_000;
/// Lines about a slot that are told, and lines about anything where no slot is known.
const TOLD_MAX: usize = 80;
/// Longer messages are cut.
const MESSAGE_CHARS_MAX: usize = 110;

/// What becomes of what is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// Nothing is written down.
    Nothing,
    /// The last lines are kept, for [`Ladder::about`].
    Last,
    /// Every line is told at once, on standard error.
    TellAll,
}

/// The events of a run, line by line.
#[derive(Debug)]
pub struct Ladder {
    keep: Keep,
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    text: String,
    slots: Slots,
}

/// The slots that a line is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Slots {
    /// None: it is about the whole.
    None,
    One(Slot),
    /// From the first on, to before the second.
    Range(Slot, Slot),
    /// A fault of a process: it concerns every slot.
    All,
}

impl Ladder {
    /// Returns one with nothing written down.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { keep, lines: VecDeque::new() }
    }

    /// Writes down a message on its way, or what else came of it.
    pub(crate) fn message(&mut self, now: Time, from: RoleId, to: &To, fate: &str) {
        if self.keep == Keep::Nothing {
            return;
        }
        let arrow = if fate.is_empty() { "──▶" } else { "─✕ " };
        let (from, receiver) = (from.to_string(), to.role().to_string());
        let text = format!("{now}  {from:<16} {arrow} {receiver:<16} {}  {fate}", brief(to));
        self.write(text, slots(to));
    }

    /// Writes down what befell a role.
    pub(crate) fn note(&mut self, now: Time, what: impl FnOnce() -> String) {
        if self.keep != Keep::Nothing {
            self.write(format!("{now}  * {}", what()), Slots::All);
        }
    }

    /// Whether it tells of everything, ignored messages included.
    pub(crate) fn tells_all(&self) -> bool {
        self.keep == Keep::TellAll
    }

    /// Writes down what a role tells.
    pub(crate) fn event(&mut self, now: Time, id: RoleId, event: &Event) {
        if let Event::Ignored { why } = event {
            self.write(format!("{now}  * {id} ignores {why}"), Slots::None);
        } else if self.keep != Keep::Nothing {
            // These come again and again, and explain no slot.
            let is_common = matches!(
                event,
                Event::Suspected { .. } | Event::Forgotten { .. } | Event::Foreign { .. }
            );
            let slots = if is_common { Slots::None } else { Slots::All };
            self.write(format!("{now}  * {event:?}"), slots);
        }
    }

    #[expect(clippy::print_stderr, reason = "it was asked for on the command line")]
    fn write(&mut self, text: String, slots: Slots) {
        if self.keep == Keep::TellAll {
            eprintln!("{text}");
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { text, slots });
    }

    /// The last lines about `slot`, or about anything if none is known.
    #[must_use]
    pub fn about(&self, slot: Option<Slot>) -> String {
        let concerns = |line: &&Line| slot.is_none_or(|slot| line.slots.contain(slot));
        let mut lines: Vec<&str> = self
            .lines
            .iter()
            .rev()
            .filter(concerns)
            .take(TOLD_MAX)
            .map(|line| &*line.text)
            .collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Slots {
    fn contain(self, slot: Slot) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one == slot,
            Self::Range(from, to) => (from..to).contains(&slot),
            Self::All => true,
        }
    }
}

/// The slot that an invariant's text names first, as `s17`.
#[must_use]
pub fn slot_of(text: &str) -> Option<Slot> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let slots = words.filter_map(|word| word.strip_prefix('s')?.parse().ok());
    slots.map(Slot).next()
}

/// The slots that a message is about.
fn slots(to: &To) -> Slots {
    let end = |from: Slot, count: usize| Slot(from.0 + count as u64);
    match to {
        To::Proposer(_, message) => match message {
            ToProposer::P1b(p1b) => {
                Slots::Range(p1b.from, p1b.to.map_or(Slot(u64::MAX), |to| Slot(to.0)))
            }
            ToProposer::Nack(nack) => nack.slot.map_or(Slots::None, Slots::One),
            ToProposer::Truncated(truncated) => Slots::One(truncated.slot),
            ToProposer::Need(need) => Slots::One(need.slot),
            ToProposer::FillTo(fill) => Slots::One(Slot(fill.to.0.saturating_sub(1))),
            ToProposer::ProbeAck(_)
            | ToProposer::Formed(_)
            | ToProposer::PreVoteAck(_)
            | ToProposer::Heartbeat(_)
            | ToProposer::HeartbeatAck(_)
            | ToProposer::Propose(_)
            | ToProposer::Executed(_)
            | ToProposer::Unserved(_)
            | ToProposer::Halted(_)
            | ToProposer::Skip(_) => Slots::None,
        },
        To::ProxyLeader(_, message) => match message {
            ToProxyLeader::P2a(p2a) => Slots::One(p2a.slot),
            ToProxyLeader::P2b(p2b) => Slots::One(p2b.slot),
            ToProxyLeader::Nack(nack) => nack.slot.map_or(Slots::None, Slots::One),
            ToProxyLeader::Truncated(truncated) => Slots::One(truncated.slot),
            ToProxyLeader::Heartbeat(_) => Slots::None,
        },
        To::Acceptor(_, message) => match message {
            ToAcceptor::P1a(p1a) => Slots::Range(p1a.page, Slot(u64::MAX)),
            ToAcceptor::P2a(p2a) => Slots::One(p2a.slot),
            ToAcceptor::Replay(replay) => Slots::One(replay.first),
            ToAcceptor::Probe(_)
            | ToAcceptor::Form(_)
            | ToAcceptor::PreVote(_)
            | ToAcceptor::Heartbeat(_)
            | ToAcceptor::Executed(_)
            | ToAcceptor::Unserved(_)
            | ToAcceptor::PreRead(_) => Slots::None,
        },
        To::Replica(_, message) => match message {
            ToReplica::Chosen(chosen) => Slots::One(chosen.slot),
            ToReplica::Fetch(fetch) => Slots::One(fetch.first),
            ToReplica::Fetched(fetched) => {
                Slots::Range(fetched.first, end(fetched.first, fetched.slots.len()))
            }
            ToReplica::Truncated(truncated) => Slots::One(truncated.slot),
            ToReplica::Read(read) => Slots::One(Slot(read.at_least.0.saturating_sub(1))),
            ToReplica::Replayed(page) => {
                Slots::Range(page.from, page.to.map_or(Slot(u64::MAX), |to| Slot(to.0)))
            }
            ToReplica::Probe(_)
            | ToReplica::Heartbeat(_)
            | ToReplica::Identify(_)
            | ToReplica::FetchPart(_)
            | ToReplica::FetchedPart(_)
            | ToReplica::Ask(_) => Slots::None,
        },
        To::Gateway(_, message) => match message {
            ToGateway::Results(results) => Slots::One(results.slot),
            ToGateway::PreReadAck(ack) => ack.vote_watermark.map_or(Slots::None, Slots::One),
            ToGateway::ReadResults(results) => {
                Slots::One(Slot(results.executed.0.saturating_sub(1)))
            }
            ToGateway::Heartbeat(_)
            | ToGateway::NotLeader(_)
            | ToGateway::NotExecuted(_)
            | ToGateway::Halted(_) => Slots::None,
        },
    }
}

/// What a message says, in a line.
fn brief(to: &To) -> String {
    match to {
        To::Acceptor(_, ToAcceptor::P1a(p1a)) => {
            format!("P1a {} from {}, page {}", p1a.ballot, p1a.first, p1a.page)
        }
        To::Proposer(_, ToProposer::P1b(p1b)) => {
            let mut text =
                format!("P1b {} truncated {}, from {}:", p1b.ballot, p1b.truncated, p1b.from);
            for (slot, vote) in &p1b.votes {
                let (ballot, value) = (vote.ballot, told(&vote.value));
                write!(text, " {slot} {ballot} {value},").expect("a string takes everything");
            }
            text
        }
        To::Acceptor(_, ToAcceptor::P2a(p2a)) | To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) => {
            let P2a { ballot, slot, via, is_recovered, value } = p2a;
            let recovered = if *is_recovered { " recovered" } else { "" };
            let via = RoleId::ProxyLeader(*via);
            format!("P2a {slot} {ballot}{recovered} {} via {via}", told(value))
        }
        To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) => format!("P2b {} {}", p2b.slot, p2b.ballot),
        To::Replica(_, ToReplica::Chosen(chosen)) => {
            format!("Chosen {} {} {}", chosen.slot, chosen.ballot, told(&chosen.value))
        }
        To::Proposer(_, ToProposer::Propose(propose)) => {
            let Propose { batch, lowest } = propose;
            format!("Propose {}, attempt {}, lowest {lowest}", batch.id, batch.attempt)
        }
        To::Gateway(_, ToGateway::Results(results)) => {
            format!("Results {} of {}, attempt {}", results.slot, results.batch, results.attempt)
        }
        To::Gateway(_, ToGateway::Heartbeat(heartbeat))
        | To::Proposer(_, ToProposer::Heartbeat(heartbeat))
        | To::ProxyLeader(_, ToProxyLeader::Heartbeat(heartbeat))
        | To::Acceptor(_, ToAcceptor::Heartbeat(heartbeat))
        | To::Replica(_, ToReplica::Heartbeat(heartbeat)) => {
            let Heartbeat { ballot, stage, chosen, .. } = heartbeat;
            format!("Heartbeat {ballot} {stage:?}, chosen {chosen}")
        }
        To::Gateway(_, message) => cut(&format!("{message:?}")),
        To::Proposer(_, message) => cut(&format!("{message:?}")),
        To::ProxyLeader(_, message) => cut(&format!("{message:?}")),
        To::Acceptor(_, message) => cut(&format!("{message:?}")),
        To::Replica(_, message) => cut(&format!("{message:?}")),
    }
}

fn told(value: &Value) -> String {
    match &value.content {
        Content::Noop => "no-op".to_owned(),
        Content::Batch(batch) => format!("{}, attempt {}", batch.id, batch.attempt),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use loggos_protocol::{AcceptorId, Ballot, DirectoryId, P2b, ProxyLeaderId};

    use super::*;

    #[test]
    fn the_slot_of_an_invariant_is_found_in_its_text() {
        assert_eq!(slot_of("s17: two values were chosen, the second in b3.1.9c"), Some(Slot(17)));
        assert_eq!(slot_of("replica 0 executed <5, s4 is missing"), Some(Slot(4)));
        assert_eq!(slot_of("no progress in 60s after all has healed"), None);
    }

    #[test]
    fn a_ladder_tells_of_the_slot_that_is_asked_for() {
        let mut ladder = Ladder::new(Keep::Last);
        let p2b = |slot| {
            let (acceptor, directory) = (AcceptorId(1), DirectoryId(1));
            let p2b = P2b { acceptor, directory, ballot: Ballot::default(), slot: Slot(slot) };
            To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2b(p2b))
        };
        let from = RoleId::Acceptor(AcceptorId(1));
        ladder.message(Time(1), from, &p2b(4), "");
        ladder.message(Time(2), from, &p2b(5), "lost");
        ladder.note(Time(3), || "acceptor 1 crashes".to_owned());
        let told = ladder.about(Some(Slot(5)));
        assert!(told.contains("P2b s5") && told.contains("lost") && told.contains("crashes"));
        assert!(!told.contains("P2b s4"), "{told}");
        assert!(ladder.about(None).contains("P2b s4"));
    }
}
