//! In which ballots votes were cast again, for a value that the log holds already.

use std::collections::BTreeMap;

use loggos_protocol::{AcceptorId, Ballot, Slot};
use rangemap::RangeMap;

use crate::state::States;

/// The last ballot in which each vote was cast again, by acceptor and slot.
///
/// A leader that is elected proposes all open slots anew, so neighbours share a ballot: a range of slots takes the room
/// of one. Later elections over the same slots take the place of earlier ones, so that nothing grows by them.
#[derive(Debug, Default)]
pub(crate) struct Revotes(BTreeMap<AcceptorId, RangeMap<u64, Ballot>>);

impl Revotes {
    /// Takes in a vote cast again. An acceptor's ballots never go down in its log, so the last one is the largest.
    pub(crate) fn add(&mut self, acceptor: AcceptorId, slot: Slot, ballot: Ballot) {
        let slots = slot.0..slot.watermark_after().0;
        self.0.entry(acceptor).or_default().insert(slots, ballot);
    }

    /// The last ballot in which the vote in `slot` was cast again, if it was.
    pub(crate) fn at(&self, acceptor: AcceptorId, slot: Slot) -> Option<Ballot> {
        self.0.get(&acceptor)?.get(&slot.0).copied()
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
