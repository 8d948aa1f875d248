//! A whole cluster in one thread, in virtual time, under faults, checked after every step.
//!
//! ```text
//!            swarm: what this seed's cluster, load and faults are
//!              │
//!              ▼
//!   load ◀──▶ world ◀──▶ network: loss, copies, delays, partitions ◀──▶ wire: the real frames
//!    │         │ ▲──── adversary: what befalls processes, disks and clocks
//!    │         │ owns the real roles, and is their only driver; each has a clock of its own
//!    │         ▼
//!    │       checker: after every step, and at the end
//!    ▼
//!   linearizability: what clients were told, at the end
//! ```
//!
//! A run is a pure function of its seed: one generator draws everything, events of the same time
//! are taken in the order in which they were made, and no container has a random order. So a seed
//! that fails fails again, and [`Outcome::trace_hash`] is how a test holds us to it. It is run
//! again to be explained: the ladder costs nothing until then.
//!
//! A run has two parts. In the first, faults strike, within what the cluster claims to survive;
//! only safety is checked. Then everything heals, and every client must finish within a bound of
//! virtual time. In three of four runs up to f of each role stay dead, cut off or half connected
//! for good, and the rest must serve all of its clients all the same.

mod adversary;
mod checker;
mod clock;
mod ladder;
pub mod linearizability;
mod load;
mod network;
mod origin;
mod outcome;
mod outsiders;
mod recorder;
mod replica_store;
mod sights;
mod store;
mod swarm;
mod trap;
mod wire;
mod world;

use std::cell::RefCell;
use std::rc::Rc;

pub use ladder::{Keep, Ladder, slot_of};
pub use outcome::Outcome;
pub use sights::{Sight, Sights};
pub use swarm::Plan;
pub use world::World;

/// Runs one seed to its end.
///
/// # Panics
///
/// If an invariant does not hold: the message says which.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    run_with(seed, Rc::new(RefCell::new(Ladder::new(Keep::Nothing))))
}

/// Runs one seed to its end, and writes down what happens in `ladder`.
///
/// # Panics
///
/// If an invariant does not hold: the message says which, and the ladder how it came to that.
#[must_use]
pub fn run_with(seed: u64, ladder: Rc<RefCell<Ladder>>) -> Outcome {
    run_plan(Plan::draw(seed), ladder)
}

/// Runs a plan to its end, and writes down what happens in `ladder`.
///
/// # Panics
///
/// If an invariant does not hold: the message says which, and the ladder how it came to that.
#[must_use]
pub fn run_plan(plan: Plan, ladder: Rc<RefCell<Ladder>>) -> Outcome {
    World::new(plan, ladder).run()
}
