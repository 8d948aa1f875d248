//! What the benchmarks share.

mod line;
pub mod messages;
pub mod votes;

pub use line::{Line, Reader, settings};
