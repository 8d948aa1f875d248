//! `loggos bench` from end to end, as short as it can be.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What a run has told.
struct Told {
    text: String,
    figures: Value,
    page: String,
}

/// Runs it with these options, and reads what it tells in every form.
fn bench(name: &str, options: &[&str]) -> Told {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let [page, json] = ["html", "json"].map(|kind| folder.join(format!("{name}.{kind}")));
    let run = Command::new(env!("CARGO_BIN_EXE_loggos"))
        .args(["bench", "--park", "--keys", "100", "--warmup", "10ms", "--duration", "100ms"])
        .args(options)
        .arg("--json")
        .arg(&json)
        .arg("--report")
        .arg(&page)
        .output()
        .expect("loggos starts");
    assert!(run.status.success(), "{run:?}");
    Told {
        text: String::from_utf8(run.stdout).expect("text"),
        figures: serde_json::from_slice(&std::fs::read(&json).expect("the figures")).expect("JSON"),
        page: std::fs::read_to_string(&page).expect("the page"),
    }
}

#[test]
fn a_baseline_is_measured_and_told_in_every_form() {
    let Told { text, figures, page } =
        bench("bench", &["--unreplicated", "--clients", "4", "--floor"]);
    assert!(text.contains("unreplicated") && text.contains("one replica at slot"), "{text}");

    assert_eq!(figures["unreplicated"], true, "{figures}");
    assert_eq!(figures["roles"].as_array().map(Vec::len), Some(5), "{figures}");
    assert!(figures["operations"].as_u64() > Some(0), "{figures}");
    assert!(figures["floor"]["loopback_rtt_us"].as_f64() > Some(0.0), "{figures}");

    assert!(page.contains("--unreplicated --clients 4"), "{page}");
    assert!(page.contains("acceptor 0") && page.trim_end().ends_with("</html>"), "{page}");
}

#[test]
fn a_sweep_measures_every_combination_and_tells_it_in_every_form() {
    let Told { text, figures, page } =
        bench("sweep", &["--sweep", "clients=1,4", "--sweep", "replicas=2,3"]);
    let words = text.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>());
    let expected = [["clients", "replicas"], ["1", "2"], ["4", "2"], ["1", "3"], ["4", "3"]];
    assert_eq!(words.collect::<Vec<_>>(), expected, "{text}");

    let runs = figures["runs"].as_array().unwrap();
    let replicas = runs.iter().map(|run| run["report"]["read_back"]["replicas"].as_u64().unwrap());
    assert_eq!(replicas.collect::<Vec<_>>(), [2, 2, 3, 3], "{figures}");

    let dots = page.matches("<circle").count();
    assert_eq!(dots, 8, "the p50 and the p99 of each run: {page}");
    assert!(page.contains("clients 4, replicas 3") && page.trim_end().ends_with("</html>"));
}

#[test]
fn a_plan_is_made_from_what_was_measured() {
    bench("costs", &["--clients", "64"]);
    let costs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("costs.json");
    let plan = |target| {
        let mut plan = Command::new(env!("CARGO_BIN_EXE_loggos"));
        plan.args(["plan", "--target", target, "--costs"]).arg(&costs).output().unwrap()
    };
    let enough = plan("100");
    assert!(enough.status.success(), "{enough:?}");
    let text = String::from_utf8(enough.stdout).unwrap();
    assert!(text.contains("ns a command: gateways") && text.contains("enough for 100"), "{text}");
    let too_much = plan("900000M");
    assert_eq!(too_much.status.code(), Some(1), "{too_much:?}");
    let why = String::from_utf8(too_much.stderr).unwrap();
    assert!(why.contains("cannot be reached"), "{why}");
}
