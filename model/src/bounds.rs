//! How much may happen in a world, so that there is an end to its behaviours.

/// How many proposers there are, f + 1: they come first among the roles.
pub(crate) const PROPOSERS: usize = 2;

/// How often what may happen.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Bounds {
    /// Slots that may be filled.
    pub slots: u64,
    /// Campaigns of each proposer.
    pub campaigns: [u8; PROPOSERS],
    /// Commands that each proposer is given while it leads.
    pub commands: [u8; PROPOSERS],
    /// Times each proposer sends its open slots through another proxy leader.
    pub resends: u8,
    /// Times each proxy leader asks another write quorum because a timer fired.
    pub retries: u8,
    /// Times each acceptor takes in a P1a, and each proxy leader a P2a, that it had before. All
    /// else may be repeated for ever: only these are answered anew, from what has changed since.
    pub repeats: u8,
    /// Whether acceptors' answers to proxy leaders are all lost. Nothing is said to be chosen then,
    /// but what is chosen follows from what acceptors have said, heard or not; so agreement can be
    /// looked into further.
    pub is_deaf: bool,
}
