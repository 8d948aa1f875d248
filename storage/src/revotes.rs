//! In which ballots votes were cast again, for a value that the log holds already.

use std::collections::BTreeMap;
use std::ops::Range;

use loggos_protocol::{AcceptorId, Ballot, Slot};
use rangemap::RangeMap;

use crate::state::States;

/// The last ballot in which each vote was cast again, by acceptor and slot.
///
/// A leader that is elected proposes all open slots anew, so neighbours share a ballot: a range of
/// slots takes the room of one. Later elections over the same slots take the place of earlier ones,
/// so that nothing grows by them.
#[derive(Debug, Default)]
pub(crate) struct Revotes(BTreeMap<AcceptorId, RangeMap<u64, Ballot>>);

impl Revotes {
    /// Takes in a vote cast again. An acceptor's ballots never go down in its log, so the last one
    /// is the largest.
    pub(crate) fn add(&mut self, acceptor: AcceptorId, slot: Slot, ballot: Ballot) {
        let slots = slot.0..slot.watermark_after().0;
        self.0.entry(acceptor).or_default().insert(slots, ballot);
    }

    /// In which of these slots `acceptor` has cast its vote again, and in which ballot the last
    /// time.
    pub(crate) fn within(
        &self,
        acceptor: AcceptorId,
        slots: Range<Slot>,
    ) -> impl Iterator<Item = (Slot, Ballot)> + '_ {
        let slots = slots.start.0..slots.end.0;
        let ballots = self.0.get(&acceptor).filter(|_| !slots.is_empty());
        let wanted = slots.clone();
        let runs = ballots.into_iter().flat_map(move |ballots| ballots.overlapping(wanted.clone()));
        runs.flat_map(move |(run, ballot)| {
            let both = run.start.max(slots.start)..run.end.min(slots.end);
            both.map(|slot| (Slot(slot), *ballot))
        })
    }

    /// Lets go of those in slots that are truncated.
    pub(crate) fn truncate(&mut self, states: &States) {
        for (acceptor, ballots) in &mut self.0 {
            let truncated = states.at(*acceptor).map_or(0, |state| state.truncated.0);
            if truncated > 0 {
                ballots.remove(0..truncated);
            }
        }
    }
}
