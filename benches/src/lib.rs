//! What the benchmarks share.

mod key_value;
mod line;
pub mod messages;
pub mod votes;

pub use key_value::KeyValue;
pub use line::{Line, Reader, settings};
