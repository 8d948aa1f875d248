//! `loggos skip`: the way out when a command makes every replica's machine panic.
//!
//! ```text
//!   ask all nodes ──▶ has every replica halted at that command? ── no ──▶ why not, and what to do
//!                          │ yes
//!                          ▼
//!   tell proposers, ask all nodes, … ──▶ no replica is halted there any more
//! ```
//!
//! Here it is only checked to tell what is the matter: it is the leader who sees to it that nothing
//! is skipped that a replica may have executed.
//!
//! source: R38

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use loggos::{LoggedCommand, Position, Slot};
use serde_json::Value;

use crate::exit;
use crate::remote;
use crate::status::{self, Answers};

/// How long replicas have to take a skip in.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// The options of `skip`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The cluster's configuration, which has the addresses of its nodes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The slot of the command, as `status` tells it.
    #[arg(long)]
    slot: u64,
    /// Its index in that slot.
    #[arg(long)]
    index: u32,
    /// Its checksum, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
    checksum: u32,
}

fn hexadecimal(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 16).map_err(|error| error.to_string())
}

/// Has the command skipped, and waits until replicas go on.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let config = remote::load(&options.config)?;
    let at = Position { slot: Slot(options.slot), index: options.index };
    let command = LoggedCommand { at, checksum: options.checksum };
    if !config.is_durable() {
        return Err(
            "this cluster is in memory: a replica that has halted has no snapshot to go back to. \
                    Start the cluster anew"
                .into(),
        );
    }
    let nodes = remote::named(&config);
    let answers = status::ask(&nodes);
    let count = config.cluster.replicas;
    let wrong = obstacles(&answers, count, command);
    if !wrong.is_empty() {
        return Err(format!("{command} cannot be skipped:\n{}", wrong.join("\n")).into());
    }
    let started = Instant::now();
    loop {
        for address in nodes.iter().filter_map(|(_, address)| address.resolve().ok()) {
            // One that does not answer is asked again with the next round; others may have the
            // leader.
            let _tried = loggos::remote_skip(address, command, status::TIMEOUT);
        }
        let answers = status::ask(&nodes);
        let halted = of_kind(&answers.nodes, "replica");
        let halted = halted.filter(|(_, role)| is_halted_at(role, command)).count();
        // Gateways go by what they have heard last.
        let are_told =
            of_kind(&answers.nodes, "gateway").all(|(_, role)| role["state"] != "halted");
        if halted == 0 && are_told && answers.silent.is_empty() {
            let mut out = exit::stdout();
            writeln!(
                out,
                "skipped {command}: the replicas start over from their snapshots, and go on without it"
            )?;
            return Ok(());
        }
        if started.elapsed() > DEADLINE {
            let mut wrong = obstacles(&answers, count, command);
            wrong.insert(0, format!("{halted} of {count} replicas are still halted at it"));
            let what =
                format!("{command} is not skipped so far, and may be yet: proposers were told");
            return Err(format!("{what}:\n{}", wrong.join("\n")).into());
        }
        std::thread::sleep(PAUSE);
    }
}

/// The roles of a kind on nodes that have answered, each with the name of its node.
fn of_kind<'a>(
    nodes: &'a [(String, Value)],
    kind: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Value)> {
    nodes.iter().flat_map(move |(name, status)| {
        let roles = status["roles"].as_array().into_iter().flatten();
        let is_it =
            move |role: &&Value| role["role"].as_str().is_some_and(|name| name.starts_with(kind));
        roles.filter(is_it).map(move |role| (name.as_str(), role))
    })
}

fn is_halted_at(role: &Value, command: LoggedCommand) -> bool {
    let at = &role["halted_at"];
    at["slot"].as_u64() == Some(command.at.slot.0)
        && at["index"].as_u64() == Some(command.at.index.into())
        && at["checksum"].as_str() == Some(&format!("{:08x}", command.checksum))
}

/// Why the command cannot be skipped, and what to do about it.
fn obstacles(answers: &Answers, count: u8, command: LoggedCommand) -> Vec<String> {
    let mut wrong: Vec<String> = answers
        .silent
        .iter()
        .map(|why| format!("{why}. Its replica may have executed the command: start that node"))
        .collect();
    let known: Vec<_> = of_kind(&answers.nodes, "replica").collect();
    if known.iter().all(|(_, role)| role["state"] != "halted") && !known.is_empty() {
        wrong.push("no replica has halted".to_owned());
        return wrong;
    }
    for (node, role) in &known {
        let name = format!("{} of node {node}", role["role"].as_str().unwrap_or_default());
        let executed = role["executed_watermark"].as_u64().unwrap_or(0);
        if is_halted_at(role, command) {
            continue;
        }
        wrong.push(match role["halted"].as_str() {
            Some(why) => format!("{name} has halted elsewhere: {why}"),
            None if executed > command.at.slot.0 => format!("{name} has executed it"),
            None => format!("{name} has not come to it yet: wait until it has"),
        });
    }
    if known.len() < usize::from(count) && answers.silent.is_empty() {
        wrong.push(format!("{} of {count} replicas are known", known.len()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMAND: LoggedCommand =
        LoggedCommand { at: Position { slot: Slot(7), index: 2 }, checksum: 0x00AB_CDEF };

    fn halted(index: u64) -> Value {
        let halted_at = json!({"slot": 7, "index": index, "checksum": "00abcdef"});
        json!({"state": "halted", "halted": "it panicked", "halted_at": halted_at, "executed_watermark": 7})
    }

    fn up(executed: u64) -> Value {
        json!({"state": "up", "halted": null, "halted_at": null, "executed_watermark": executed})
    }

    fn wrong(roles: &[Value], silent: &[&str]) -> String {
        let nodes = roles.iter().zip(["a", "b", "c"]).zip(0..).map(|((role, name), id)| {
            let mut role = role.clone();
            role["role"] = json!(format!("replica {id}"));
            (name.to_owned(), json!({ "roles": [role, {"role": "gateway 0", "state": "up"}] }))
        });
        let silent = silent.iter().map(|&why| why.to_owned()).collect();
        obstacles(&Answers { nodes: nodes.collect(), silent }, 3, COMMAND).join("\n")
    }

    #[test]
    fn what_all_have_halted_at_can_be_skipped_and_for_all_else_it_is_said_what_to_do() {
        assert_eq!(wrong(&[halted(2), halted(2), halted(2)], &[]), "");
        assert_eq!(wrong(&[up(9), up(9), up(9)], &[]), "no replica has halted");
        let text = wrong(&[halted(2), up(8), halted(2)], &[]);
        assert_eq!(text, "replica 1 of node b has executed it");
        let text = wrong(&[halted(2), up(7), halted(2)], &[]);
        assert_eq!(text, "replica 1 of node b has not come to it yet: wait until it has");
        let text = wrong(&[halted(2), halted(2), halted(1)], &[]);
        assert_eq!(text, "replica 2 of node c has halted elsewhere: it panicked");
        let text = wrong(&[halted(2), halted(2)], &["node c at 127.0.0.1:1: no answer in 2s"]);
        assert!(
            text.ends_with(
                "no answer in 2s. Its replica may have executed the command: start that node"
            ),
            "{text}"
        );
        assert_eq!(wrong(&[halted(2), halted(2)], &[]), "2 of 3 replicas are known");
    }
}
