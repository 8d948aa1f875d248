//! `loggos status`: how the roles of a running cluster stand.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use loggos::Config;
use serde_json::{Value, json};

use self::survival::Survival;
use self::verdict::Verdict;
use crate::exit::{self, Exit};
use crate::remote::{Named, Target};

mod survival;
mod verdict;

/// The longest time until a node has answered.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);

/// What nodes have answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The status of each that has, by its name.
    pub(crate) nodes: Vec<(String, Value)>,
    /// Of each that has not, which one it is and why.
    pub(crate) silent: Vec<String>,
}

/// The options of `status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// Print everything, as JSON.
    #[arg(long)]
    json: bool,
}

/// Asks every node, and prints whether the cluster serves, and what they answer. The exit code
/// tells the former.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let Answers { nodes, silent } = ask(&options.target.nodes()?);
    let config: Option<Config> = options.target.config()?;
    let survival = config.map(|config| Survival::of(&config.cluster, &nodes));
    let verdict = Verdict::of(&nodes, &silent, survival);
    let mut out = exit::stdout();
    if options.json {
        writeln!(out, "{:#}", to_json(&nodes, &silent, survival, &verdict))?;
    } else {
        writeln!(out, "{verdict}")?;
        survival.map(|survival| writeln!(out, "{survival}")).transpose()?;
        if !nodes.is_empty() {
            print(&nodes, &mut out)?;
        }
    }
    // What is wrong was said.
    verdict.code().map_or(Ok(()), |code| Err(Exit { code, why: String::new() }.into()))
}

/// Asks these nodes, each of which has a name.
pub(crate) fn ask(nodes: &[Named]) -> Answers {
    let mut answers = Answers::default();
    for (name, address) in nodes {
        let answer = address.resolve().map_err(|error| error.to_string()).and_then(|address| {
            loggos::remote_status(address, TIMEOUT).map_err(|error| why(&error))
        });
        match answer.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
            Ok(status) => answers.nodes.push((name.clone(), status)),
            Err(error) if *name == address.to_string() => {
                answers.silent.push(format!("{name}: {error}"));
            }
            Err(error) => answers.silent.push(format!("node {name} at {address}: {error}")),
        }
    }
    answers
}

/// Why a node has not answered, without the number that the system has for it.
fn why(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        return format!("no answer in {TIMEOUT:?}");
    }
    error.raw_os_error().map_or_else(|| error.to_string(), |_| error.kind().to_string())
}

/// One document of the whole cluster: the nodes' replicas side by side, to be compared.
fn to_json(
    nodes: &[(String, Value)],
    silent: &[String],
    survival: Option<Survival>,
    verdict: &Verdict,
) -> Value {
    let all = |key: &str| -> Vec<Value> {
        let lists = nodes.iter().filter_map(|(_, status)| status[key].as_array());
        lists.flatten().cloned().collect()
    };
    let leaders = nodes.iter().map(|(_, status)| &status["leader"]).filter(|l| !l.is_null());
    json!({
        "verdict": verdict.word(),
        "reasons": verdict.reasons(),
        "leaders": leaders.collect::<Vec<_>>(),
        "replicas": all("replicas"),
        "roles": all("roles"),
        "cores": all("cores"),
        "nodes": nodes.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "silent": silent,
        "survives": survival.map(Survival::to_json),
    })
}

fn print(nodes: &[(String, Value)], out: &mut impl Write) -> io::Result<()> {
    let width = nodes.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(4);
    writeln!(out, "{:<width$} {:<16} {:<10} what", "node", "role", "state")?;
    for (name, status) in nodes {
        for role in status["roles"].as_array().into_iter().flatten() {
            let text = |key: &str| role[key].as_str().unwrap_or("").to_owned();
            let told = [
                "why",
                "halted",
                "ballot",
                "promised",
                "executed_watermark",
                "snapshot_watermark",
                "commands",
                "chosen",
                "votes",
            ];
            let told = told.iter().filter(|key| !role[**key].is_null());
            let told = told.map(|key| {
                let text = role[*key].as_str().map(str::to_owned);
                format!("{key} {}", text.unwrap_or_else(|| role[*key].to_string()))
            });
            let told = told.chain(transfer(&role["transfer"])).chain(fill(role, status));
            let told = told.collect::<Vec<_>>().join(", ");
            writeln!(out, "{name:<width$} {:<16} {:<10} {told}", text("role"), text("state"))?;
        }
    }
    Ok(())
}

/// How full the log of an acceptor is, if that has one: those of a core share it.
fn fill(role: &Value, status: &Value) -> Option<String> {
    let is_acceptor = role["role"].as_str().is_some_and(|name| name.starts_with("acceptor"));
    let core = status["cores"].as_array()?.iter().find(|core| core["core"] == role["core"])?;
    let count = |key: &str| core["log"][key].as_u64().filter(|_| is_acceptor);
    let (segments, most) = (count("segments")?, count("segments_max")?);
    Some(format!("log {segments} of {most} segments"))
}

/// How far a replica has got a peer's snapshot, or restored one, if it does.
fn transfer(transfer: &Value) -> Option<String> {
    let bytes = transfer["bytes"].as_u64()?;
    let what = match transfer["donor"].as_str() {
        Some(donor) => format!("gets a snapshot of {donor}"),
        None => "restores a snapshot".to_owned(),
    };
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let total = transfer["bytes_total"].as_u64().map_or(0, mib);
    let rate = transfer["bytes_per_second"].as_u64().map_or(0, mib);
    Some(format!("{what}: {} of {total} MiB, {rate} MiB/s", mib(bytes)))
}
