//! `loggos snapshot`: backups of a cluster, and new clusters that start from one.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use loggos::kv::Kv;
use loggos::{Backup, Config, SnapshotInfo};
use serde_json::{Value, json};

use crate::exit;
use crate::log;

/// The options of `snapshot`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Save the newest durable snapshot of a node's replica to a file, while the cluster works.
    Save(Save),
    /// Check a snapshot, and tell what it is of.
    Info(Info),
    /// Create the data directory of a node, once, for a new cluster that starts from a snapshot.
    Restore(Restore),
}

/// Which node.
#[derive(Args, Clone, Debug)]
struct Place {
    /// The cluster's configuration, the same for all its nodes.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The name of the node, which must be one on this machine.
    #[arg(long, value_name = "NAME")]
    name: String,
}

#[derive(Args, Clone, Debug)]
struct Save {
    #[command(flatten)]
    place: Place,
    /// The file to save to: there must be none.
    #[arg(value_name = "TO")]
    to: PathBuf,
    /// Print what was saved as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct Info {
    /// The file.
    #[arg(value_name = "SNAPSHOT")]
    file: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct Restore {
    /// The file: the same for all nodes of the new cluster.
    #[arg(value_name = "SNAPSHOT")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Take a snapshot of a cluster of another name.
    #[arg(long)]
    from_other_cluster: bool,
    /// Print what was restored as JSON.
    #[arg(long)]
    json: bool,
}

/// Saves, checks or restores a snapshot.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    match &options.command {
        Command::Save(options) => save(options),
        Command::Info(options) => info(options),
        Command::Restore(options) => restore(options),
    }
}

fn save(options: &Save) -> Result<(), Box<dyn std::error::Error>> {
    let (config, node) = options.place.load()?;
    let mut backup = Backup::newest(&config, Some(node))?;
    let info = backup.info();
    backup.save(&options.to, progress(&info))?;
    let to = options.to.display().to_string();
    tell(options.json, &info, "file", &to, format!("saved {} to {to}", Told(&info)))
}

fn info(options: &Info) -> Result<(), Box<dyn std::error::Error>> {
    let mut backup = Backup::open(&options.file)?;
    let info = backup.info();
    backup.check(progress(&info))?;
    let file = options.file.display().to_string();
    tell(options.json, &info, "file", &file, format!("{file}: {}, whole", Told(&info)))
}

fn restore(options: &Restore) -> Result<(), Box<dyn std::error::Error>> {
    let (config, node) = options.place.load()?;
    let mut backup = Backup::open(&options.file)?;
    let (info, file) = (backup.info(), options.file.display());
    if !backup.is_of(&config) && !options.from_other_cluster {
        let cluster = &config.name;
        return Err(format!(
            "{file} is a snapshot of another cluster than {cluster}. To start {cluster} from it all the \
             same, give --from-other-cluster"
        )
        .into());
    }
    let name = &options.place.name;
    let path = backup
        .restore(&config, Some(node), Kv::default(), progress(&info))
        .map_err(|error| format!("node {name} cannot be restored: {error}"))?;
    let path = path.display().to_string();
    let text = format!(
        "node {name} is restored in {path}, from {}. Restore all nodes from the same file before they start",
        Told(&info)
    );
    tell(options.json, &info, "data", &path, text)
}

impl Place {
    fn load(&self) -> Result<(Config, usize), Box<dyn std::error::Error>> {
        let config = Config::load(&self.config)?;
        let node = config.node(&self.name)?;
        Ok((config, node))
    }
}

/// A snapshot in words.
struct Told<'a>(&'a SnapshotInfo);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let SnapshotInfo { id, bytes, parts, state_hash, .. } = self.0;
        write!(
            f,
            "snapshot {id}: everything below slot {}, {bytes} bytes in {parts} parts, state {state_hash:016x}",
            id.at.0
        )
    }
}

/// Prints what was done: `text`, or as JSON with the place where it is now.
fn tell(
    is_json: bool,
    info: &SnapshotInfo,
    place: &str,
    path: &str,
    text: String,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = exit::stdout();
    if !is_json {
        return Ok(writeln!(out, "{text}")?);
    }
    let mut told = json!({
        "snapshot": info.id.to_string(),
        "slot": info.id.at.0,
        "bytes": info.bytes,
        "parts": info.parts,
        "state_hash": format!("{:016x}", info.state_hash),
    });
    told[place] = Value::from(path);
    Ok(writeln!(out, "{told:#}")?)
}

/// Shows on a terminal how much of a snapshot is done.
fn progress(info: &SnapshotInfo) -> impl FnMut(u64) + use<> {
    let (all, is_shown, mut shown) = (info.bytes.max(1), io::stderr().is_terminal(), None);
    move |bytes| {
        let percent = bytes.saturating_mul(100) / all;
        if is_shown && shown.replace(percent) != Some(percent) {
            // Behind the last one, the line is free for what comes next.
            log::show(&format!("\r{percent:3} %{}", if percent == 100 { "\r     \r" } else { "" }));
        }
    }
}
