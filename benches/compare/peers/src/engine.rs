//! Loggos on threads: `loggos bench`, as its users run it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::TURN;

/// The release build of the workspace that this crate is in.
const LOGGOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/release/loggos");

/// Throughput and median latency, with so many callers that have so many commands in flight each.
pub(crate) fn run(callers: u32, pipeline: u32) -> (f64, f64) {
    assert!(Path::new(LOGGOS).exists(), "build it: cargo build --release -p loggos-cli");
    let [warmup, duration] = TURN.map(|time| format!("{}ms", time.as_millis()));
    let (callers, pipeline) = (callers.to_string(), pipeline.to_string());
    let bench = Command::new(LOGGOS)
        .args(["bench", "--clients", &callers, "--pipeline", &pipeline])
        .args(["--warmup", &warmup, "--duration", &duration, "--json", "-"])
        .output()
        .expect("loggos starts");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    let report: Value = serde_json::from_slice(&bench.stdout).expect("a report as JSON");
    let figure = |value: &Value| value.as_f64().expect("a number");
    (figure(&report["throughput_mean"]) / 1e6, figure(&report["latency_us"]["p50"]))
}
