//! `loggos bench` from end to end, as short as it can be.

use std::path::Path;
use std::process::Command;

#[test]
fn a_baseline_is_measured_and_told_in_every_form() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (page, json) = (folder.join("bench.html"), folder.join("bench.json"));
    let run = Command::new(env!("CARGO_BIN_EXE_loggos"))
        .args(["bench", "--unreplicated", "--park", "--clients", "4", "--keys", "100"])
        .args(["--warmup", "10ms", "--duration", "200ms", "--floor"])
        .arg("--json")
        .arg(&json)
        .arg("--report")
        .arg(&page)
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.contains("unreplicated") && text.contains("one replica at slot"), "{text}");

    let figures = std::fs::read(&json).unwrap();
    let figures: serde_json::Value = serde_json::from_slice(&figures).unwrap();
    assert_eq!(figures["unreplicated"], true, "{figures}");
    assert_eq!(figures["roles"].as_array().map(Vec::len), Some(5), "{figures}");
    assert!(figures["operations"].as_u64() > Some(0), "{figures}");
    assert!(figures["floor"]["loopback_rtt_us"].as_f64() > Some(0.0), "{figures}");

    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("loggos bench --unreplicated --park --clients 4"), "{page}");
    assert!(page.contains("acceptor 0") && page.trim_end().ends_with("</html>"), "{page}");
}
