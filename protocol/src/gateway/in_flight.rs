//! A batch in flight: its attempts, and which of its commands have no answer yet.

use std::iter;
use std::ops::Range;
use std::sync::Arc;

use crate::block::ReplyItems;
use crate::{Ask, Batch, Position, ReplicaId, SessionId, Time};

/// A batch without an answer.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    /// As it was last sent.
    pub(super) batch: Arc<Batch>,
    /// The number of its first command.
    pub(super) first: u64,
    /// Its commands that have no answer: its results may come in parts.
    pub(super) left: Left,
    /// The first of these when the replica that answered was last asked for the others.
    pub(super) asked_rest_from: Option<u64>,
    /// Its first attempt.
    pub(super) sent_first: Sending,
    /// Its current one.
    pub(super) sent_last: Sending,
    /// The time when it got into its stage.
    pub(super) since: Time,
    pub(super) stage: InFlightStage,
}

/// The numbers of a batch's commands that have no answer.
#[derive(Clone, Debug)]
pub(super) enum Left {
    All,
    Piece(Range<u64>),
    /// What was told of was not the first of what was left.
    Pieces(Vec<Range<u64>>),
}

/// An attempt on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sending {
    pub(super) attempt: u32,
    pub(super) answerer: ReplicaId,
    pub(super) at: Time,
}

/// Commands of a batch that are answered together.
pub(super) struct AnsweredRun<'a> {
    pub(super) numbers: Range<u64>,
    /// The place where the first of them was executed.
    pub(super) at: Position,
    /// A reply to each.
    pub(super) replies: ReplyItems<'a>,
}

impl InFlight {
    pub(super) fn count(&self) -> u32 {
        self.batch.commands_count
    }

    /// Whether the command of this number has no answer.
    pub(super) fn is_left(&self, number: u64) -> bool {
        match &self.left {
            Left::All => (self.first..self.end()).contains(&number),
            Left::Piece(piece) => piece.contains(&number),
            Left::Pieces(pieces) => pieces.iter().any(|it| it.contains(&number)),
        }
    }

    /// From the first to the last command that has no answer.
    pub(super) fn unanswered(&self) -> Range<u64> {
        match &self.left {
            Left::All => self.first..self.end(),
            Left::Piece(piece) => piece.clone(),
            Left::Pieces(pieces) => {
                let start = pieces.first().map_or_else(|| self.end(), |first| first.start);
                start..pieces.last().map_or(start, |last| last.end)
            }
        }
    }

    /// Asks what became of those of its commands that have no answer.
    pub(super) fn ask(&self, session: Option<SessionId>) -> Ask {
        let Range { start: first, end } = self.unanswered();
        let count = u32::try_from(end - first).unwrap_or(u32::MAX);
        let Batch { id: batch, attempt, .. } = *self.batch;
        Ask { batch, attempt, session, first, count }
    }

    /// Takes in that commands have their answers.
    ///
    /// source: R24
    pub(super) fn on_answered(&mut self, numbers: Range<u64>) {
        let Range { start: first, end } = self.unanswered();
        let mut before = std::mem::replace(&mut self.left, Left::All);
        // As almost always: they are told of in order.
        let is_next = numbers.start <= first && !matches!(before, Left::Pieces(_));
        self.left = if is_next {
            Left::Piece(numbers.end.clamp(first, end)..end)
        } else {
            let whole = iter::once(first..end).collect();
            let pieces = match &mut before {
                Left::Pieces(pieces) => std::mem::take(pieces),
                Left::All | Left::Piece(_) => whole,
            };
            let rest = |it: Range<u64>| {
                [it.start..it.end.min(numbers.start), it.start.max(numbers.end)..it.end]
            };
            Left::Pieces(pieces.into_iter().flat_map(rest).filter(|it| !it.is_empty()).collect())
        };
    }

    /// The number of the first command after it.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.count())
    }
}

impl Sending {
    pub(super) fn new(batch: &Batch, now: Time) -> Self {
        Self { attempt: batch.attempt, answerer: batch.answerer, at: now }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum InFlightStage {
    /// Sent, and not heard of since.
    Sent,
    /// Maybe lost: this replica was asked.
    Doubted(ReplicaId),
    /// Not proposed: the proposer that it was sent to does not lead.
    Refused,
    /// Answered; waits for those before it.
    Done,
}
