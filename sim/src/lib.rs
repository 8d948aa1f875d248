//! A whole cluster in one thread, in virtual time, under faults, checked after every step.
//!
//! ```text
//!            swarm: what this seed's cluster, load and faults are
//!              │
//!              ▼
//!   load ◀──▶ world ◀──▶ network: loss, copies, delays, partitions
//!              │ owns the real roles, and is their only driver
//!              ▼
//!            checker: after every step, and at the end
//! ```
//!
//! A run is a pure function of its seed: one generator draws everything, events of the same time are taken
//! in the order in which they were made, and no container has a random order. So a seed that fails fails
//! again, and [`Outcome::trace_hash`] is how a test holds us to it.
//!
//! A run has two parts. In the first, faults strike, within what the cluster claims to survive; only
//! safety is checked. Then everything heals, and every client must finish within a bound of virtual time.

mod checker;
pub mod linearizability;
mod load;
mod network;
mod recorder;
mod swarm;
mod world;

pub use swarm::Plan;
pub use world::{Outcome, World};

/// Runs one seed to its end.
///
/// # Panics
///
/// If an invariant does not hold: the message says which.
#[must_use]
pub fn run(seed: u64, trace: bool) -> Outcome {
    World::new(Plan::draw(seed), trace).run()
}
