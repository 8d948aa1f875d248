//! What the fuzz targets run. Ordinary tests of `net` and `runtime` take in the same modules, and
//! run them over `corpus`; see `docs/TESTING.md`.

pub mod configuration;
pub mod contents;
#[allow(dead_code, reason = "shared with the tests of net")]
#[path = "../../net/tests/samples/mod.rs"]
mod samples;
pub mod seeds;
pub mod wire;
