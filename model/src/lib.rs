//! Every behaviour of a small cluster, up to stated bounds, by the real roles.
//!
//! The simulator draws long runs of whole clusters; here the smallest clusters are searched
//! through, so that "not found" means "not there" within the bounds.
//!
//! ```text
//!   state    the roles + every letter ever sent
//!   action   a role takes a letter in: any letter, at any time, as often as it likes or never
//!            a proposer's patience ends: it campaigns
//!            a leader is given a command
//!            a timer fires: a proxy leader asks other acceptors, a leader another proxy leader
//! ```
//!
//! A letter that was sent stays deliverable for ever, so loss (it never is), duplication (it is
//! again) and reordering (in any order) need no actions of their own, nor does a crash in which
//! nothing is to be forgotten: nothing more is delivered there.
//!
//! What is left out, and why that hides nothing that agreement rests on:
//!
//! - Formation (R4): the search starts with a table that stands.
//! - Replicas: they only listen. So nothing is executed, and nothing truncated.
//! - Pre-votes and heartbeats: they decide when a proposer campaigns or steps down. Here each may
//!   campaign at any time, and steps down when it is refused.
//! - Restarts: an acceptor that has forgotten is another acceptor (R4).
//!
//! Time is no part of it either. A role's clock stands still, but for the timers that fire there,
//! of which there is a bounded number; so all that a role remembers of time follows from how many
//! did.

mod actor;
mod bounds;
mod checks;
mod ladder;
mod model;
mod search;
mod world;

pub use bounds::Bounds;
pub use ladder::Ladder;
pub use search::{Finding, Findings, Limits, search};
pub use world::World;
