//! `loggos wal`: what is in an acceptor's log, and whether it can be relied on.
//!
//! Reads only: a log that is in use, or a copy of one. While a node writes, what is read first may
//! be older than what is read last; so where something seems to be missing it is looked for again,
//! and is missing only if it is twice.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use loggos_protocol::{AcceptorId, Ballot, Content, Value};
use loggos_storage::{
    BLOCK_BYTES, Buffer, Damage, Disk, EntryPlace, Folder, LogEntry, Scan, StorageError, scan,
};
use serde_json::{Value as Json, json};

use crate::exit;
use crate::log;

/// The most attempts to read a log that changes meanwhile.
const READS_MAX: u32 = 5;

/// The operation on a log.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Say whether a log is sound, whose it is, and what it knows of each acceptor.
    ///
    /// Reads every block, changes nothing, and decides as a node does when it starts. A log that a
    /// node is writing to can be looked at: that its end is not finished is as it should be. So it
    /// is after a crash: what was never synced is cut off when the node starts.
    ///
    /// Exit code: 0 sound; 1 damaged, or no log that can be used; 2 it cannot be read, or was not
    /// asked for rightly.
    #[command(verbatim_doc_comment)]
    Verify(VerifyOptions),
    /// Print what is in a log, a line for each record, in the order in which they were written.
    ///
    /// Prints what comes before the first damage, and then says what is wrong. Of a log that is
    /// written to at the same time, that may be nothing: ask verify, or dump a copy. Exit codes are
    /// those of verify.
    Dump(DumpOptions),
}

#[derive(Args, Clone, Debug)]
struct VerifyOptions {
    /// The directory with the log's files: log.00000 and so on.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Print everything, as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct DumpOptions {
    /// The directory with the log's files: log.00000 and so on.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Only what this acceptor has written.
    #[arg(long, value_name = "NUMBER")]
    acceptor: Option<u8>,
    /// Only votes, and those in this slot and later ones.
    #[arg(long, value_name = "SLOT")]
    from_slot: Option<u64>,
    /// Only votes, and those in earlier slots than this one.
    #[arg(long, value_name = "SLOT")]
    to_slot: Option<u64>,
    /// Print each record as JSON, one a line.
    #[arg(long)]
    json: bool,
}

/// Runs `loggos wal`.
pub(crate) fn run(options: &Options) -> ExitCode {
    let (Command::Verify(VerifyOptions { path, .. }) | Command::Dump(DumpOptions { path, .. })) =
        &options.command;
    let done = not_above(path).and_then(|()| match &options.command {
        Command::Verify(options) => verify(options),
        Command::Dump(options) => dump(options),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                log::complain(&text);
            }
            ExitCode::from(failure.code())
        }
    }
}

/// The reasons of exit codes other than 0.
#[derive(Debug)]
enum Failure {
    Log(PathBuf, StorageError),
    /// It is the directory above logs: these.
    Above(PathBuf, Vec<String>),
    /// Standard output takes no more.
    Output(io::Error),
}

impl Failure {
    fn text(&self) -> Option<String> {
        match self {
            Self::Log(path, error) => Some(format!("{}: {error}", path.display())),
            Self::Above(path, logs) => Some(format!(
                "{} is a node's data directory: name a log in it, {}",
                path.display(),
                logs.join(" or ")
            )),
            Self::Output(error) => Some(error.to_string()),
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Log(_, StorageError::Disk { .. }) | Self::Above(..) | Self::Output(_) => 2,
            Self::Log(..) => 1,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Refuses a directory that has no log, and others with one each in it.
fn not_above(path: &Path) -> Result<(), Failure> {
    let Ok(entries) = path.read_dir() else { return Ok(()) }; // that is told where it is read
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let (files, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("log."));
    let mut logs: Vec<_> = others.into_iter().filter(|name| name.starts_with("core-")).collect();
    logs.sort_unstable();
    let is_above = files.is_empty() && !logs.is_empty();
    if is_above { Err(Failure::Above(path.to_owned(), logs)) } else { Ok(()) }
}

fn verify(options: &VerifyOptions) -> Result<(), Failure> {
    let path = &options.path;
    let is_live = is_live(path);
    let found = read(path, is_live);
    let mut out = BufWriter::new(exit::stdout());
    match &found {
        Ok(found) => {
            let has_rest = has_rest(path, found);
            match options.json {
                true => writeln!(out, "{:#}", to_json(found, is_live, has_rest))?,
                false => print(found, is_live, has_rest, &mut out)?,
            }
        }
        Err(error) if options.json => writeln!(out, "{:#}", refusal(error, is_live))?,
        Err(_) => {}
    }
    out.flush()?;
    found.map(|_| ()).map_err(|error| Failure::Log(path.clone(), error))
}

/// Reads a log; one that is written to meanwhile until it is sound, or the same is missing twice.
fn read(path: &Path, is_live: bool) -> Result<Scan, StorageError> {
    let mut before = None;
    for _ in 1..READS_MAX {
        let found = scan(&mut Folder::read_only(path), None, &mut |_, _| {});
        let Err(error) = found else { return found };
        let said = error.to_string();
        if !is_live || before.as_ref() == Some(&said) {
            return Err(error);
        }
        before = Some(said);
    }
    scan(&mut Folder::read_only(path), None, &mut |_, _| {})
}

/// Whether a process has locked the log, or one of its files. Asking for the lock would tell, too,
/// and might keep a node from starting.
fn is_live(path: &Path) -> bool {
    let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return false };
    let files = ["lock", "../lock", "log.00000"].map(|name| path.join(name).metadata());
    let inodes: Vec<_> = files.iter().flatten().map(|file| format!(":{}", file.ino())).collect();
    locks.lines().any(|line| {
        // 1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF
        let mut fields = line.split_whitespace();
        let is_flock = fields.nth(1) == Some("FLOCK");
        let file = fields.nth(3).unwrap_or_default();
        is_flock && inodes.iter().any(|inode| file.ends_with(inode.as_str()))
    })
}

/// Whether something is behind the log's end: an older use of the file, or what was not finished.
fn has_rest(path: &Path, found: &Scan) -> bool {
    let (file, offset) = found.end;
    if offset == found.segment_bytes {
        return false;
    }
    let mut block = Buffer::new();
    block.resize(BLOCK_BYTES as usize, 0);
    let read = Folder::read_only(path).read_at(file, offset, &mut block);
    read.is_ok() && block.iter().any(|byte| *byte != 0)
}

fn print(found: &Scan, is_live: bool, has_rest: bool, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "log of    {}", found.identity)?;
    let segments: Vec<_> =
        found.segments().map(|(number, file)| format!("{number} in {file}")).collect();
    let (count, bytes) = (segments.len(), found.segment_bytes);
    writeln!(out, "segments  {count} of {bytes} bytes: {}", segments.join(", "))?;
    writeln!(out, "batches   up to {}", found.last)?;
    writeln!(out, "end       {}, byte {}; after it {}", found.end.0, found.end.1, rest(has_rest))?;
    for (acceptor, state) in found.acceptors() {
        write!(out, "acceptor {}: promised {}, ", acceptor.0, state.promised)?;
        write!(out, "truncated below {}, ", state.truncated.0)?;
        match state.vote_watermark {
            Some(slot) => write!(out, "vote watermark {}, ", slot.0)?,
            None => write!(out, "no vote watermark, ")?,
        }
        write!(out, "votes in {} slots, ", found.votes_count(acceptor))?;
        match &state.table {
            Some(table) => writeln!(out, "table of {} acceptors", table.acceptors().len())?,
            None => writeln!(out, "no table")?,
        }
    }
    for Damage { file, offset, number, synced } in &found.dropped {
        write!(out, "lost      batches {number} to {synced}, from {file}, byte {offset} on: ")?;
        writeln!(out, "all their votes are truncated, and nothing else was in them alone")?;
    }
    if is_live {
        writeln!(out, "in use    a process writes to this log: these figures are a moment old")?;
    }
    writeln!(out, "sound")
}

fn rest(has_rest: bool) -> &'static str {
    match has_rest {
        true => "an older or unfinished batch, which recovery cuts off",
        false => "nothing",
    }
}

fn to_json(found: &Scan, is_live: bool, has_rest: bool) -> Json {
    let identity = &found.identity;
    let segments =
        found.segments().map(|(number, file)| json!({"segment": number, "file": file.to_string()}));
    let acceptors = found.acceptors().map(|(acceptor, state)| {
        let table = state.table.as_ref().map(|table| {
            table.acceptors().iter().map(|directory| hex(directory.0)).collect::<Vec<_>>()
        });
        json!({
            "acceptor": acceptor.0,
            "promised": ballot_json(state.promised),
            "truncated": state.truncated.0,
            "vote_watermark": state.vote_watermark.map(|slot| slot.0),
            "votes": found.votes_count(acceptor),
            "table": table,
        })
    });
    let dropped = found.dropped.iter().map(|Damage { file, offset, number, synced }| {
        json!({"file": file.to_string(), "offset": offset, "first": number, "last": synced})
    });
    json!({
        "verdict": "sound",
        "in_use": is_live,
        "identity": {
            "cluster": hex(identity.cluster),
            "directory": hex(identity.directory.0),
            "quorums": hex(identity.quorums),
            "acceptors": identity.acceptors.iter().map(|acceptor| acceptor.0).collect::<Vec<_>>(),
        },
        "segment_bytes": found.segment_bytes,
        "segments": segments.collect::<Vec<_>>(),
        "last_batch": found.last,
        "end": {"file": found.end.0.to_string(), "offset": found.end.1, "has_rest": has_rest},
        "acceptors": acceptors.collect::<Vec<_>>(),
        "lost": dropped.collect::<Vec<_>>(),
    })
}

/// The damage of a log, with its place if it has one.
fn refusal(error: &StorageError, is_live: bool) -> Json {
    let (verdict, place) = match error {
        StorageError::Disk { file, .. } => ("unreadable", file.map(|file| (file, None))),
        StorageError::Empty | StorageError::Unformatted | StorageError::NotEmpty => {
            ("no log", None)
        }
        StorageError::Newer { file, .. } => ("newer", Some((*file, None))),
        StorageError::Foreign { file, .. } => ("foreign", Some((*file, None))),
        StorageError::SegmentBytes { .. } => ("foreign", None),
        StorageError::Missing { file } | StorageError::Length { file, .. } => {
            ("damaged", Some((*file, None)))
        }
        StorageError::Damaged(Damage { file, offset, .. })
        | StorageError::Misdirected { file, offset, .. } => {
            ("damaged", Some((*file, Some(*offset))))
        }
    };
    json!({
        "verdict": verdict,
        "in_use": is_live,
        "reason": error.to_string(),
        "file": place.map(|(file, _)| file.to_string()),
        "offset": place.and_then(|(_, offset)| offset),
    })
}

fn dump(options: &DumpOptions) -> Result<(), Failure> {
    let mut out = BufWriter::new(exit::stdout());
    let mut written = Ok(());
    let mut folder = Folder::read_only(&options.path);
    let found = scan(&mut folder, None, &mut |place, entry| {
        if written.is_ok() && options.wants(place.acceptor, entry) {
            written = match options.json {
                true => writeln!(out, "{}", record_json(place, entry)),
                false => line(place, entry, &mut out),
            };
        }
    });
    written?;
    out.flush()?;
    found.map(|_| ()).map_err(|error| Failure::Log(options.path.clone(), error))
}

impl DumpOptions {
    fn wants(&self, acceptor: AcceptorId, entry: &LogEntry<'_>) -> bool {
        let is_any_slot = self.from_slot.is_none() && self.to_slot.is_none();
        let slots = self.from_slot.unwrap_or(0)..self.to_slot.unwrap_or(u64::MAX);
        let is_wanted = match entry {
            LogEntry::Vote { slot, .. } | LogEntry::Revote { slot, .. } => {
                is_any_slot || slots.contains(&slot.0)
            }
            LogEntry::Promise(_)
            | LogEntry::Truncated(_)
            | LogEntry::Table(_)
            | LogEntry::State(_) => is_any_slot,
        };
        is_wanted && self.acceptor.is_none_or(|wanted| wanted == acceptor.0)
    }
}

fn line(place: EntryPlace, entry: &LogEntry<'_>, out: &mut impl Write) -> io::Result<()> {
    let EntryPlace { segment, file, offset, batch, acceptor } = place;
    write!(out, "segment {segment} {file} {offset:>8} batch {batch} acceptor {} ", acceptor.0)?;
    match entry {
        LogEntry::Promise(ballot) => writeln!(out, "promise {ballot}"),
        LogEntry::Vote { slot, ballot, value } => {
            write!(out, "vote slot {} {ballot} ", slot.0)?;
            match value.decode() {
                Some(Value { content: Content::Noop, .. }) => writeln!(out, "no-op"),
                Some(Value { content: Content::Batch(batch), .. }) => {
                    let (commands, bytes) = (batch.commands_count, batch.block.len());
                    writeln!(out, "{commands} commands, {bytes} bytes, {}", batch.id)
                }
                None => writeln!(out, "a block with a wrong checksum"),
            }
        }
        LogEntry::Revote { slot, ballot } => {
            writeln!(out, "vote slot {} {ballot} again, for the same value", slot.0)
        }
        LogEntry::Truncated(truncated) => writeln!(out, "truncated below {}", truncated.0),
        LogEntry::Table(table) => {
            write!(out, "table of {} acceptors", table.acceptors().len())?;
            match table.origin() {
                Some(origin) => writeln!(out, ", from snapshot {origin} on"),
                None => writeln!(out),
            }
        }
        LogEntry::State(state) => {
            write!(
                out,
                "state promised {}, truncated below {}",
                state.promised, state.truncated.0
            )?;
            match state.vote_watermark {
                Some(slot) => writeln!(out, ", vote watermark {}", slot.0),
                None => writeln!(out),
            }
        }
    }
}

fn record_json(place: EntryPlace, entry: &LogEntry<'_>) -> Json {
    let mut record = json!({
        "segment": place.segment,
        "file": place.file.to_string(),
        "offset": place.offset,
        "batch": place.batch,
        "acceptor": place.acceptor.0,
    });
    let more = match entry {
        LogEntry::Promise(ballot) => json!({"kind": "promise", "ballot": ballot_json(*ballot)}),
        LogEntry::Vote { slot, ballot, value } => {
            json!({"kind": "vote", "slot": slot.0, "ballot": ballot_json(*ballot), "value": value_json(value.decode())})
        }
        LogEntry::Revote { slot, ballot } => {
            json!({"kind": "revote", "slot": slot.0, "ballot": ballot_json(*ballot)})
        }
        LogEntry::Truncated(truncated) => json!({"kind": "truncated", "truncated": truncated.0}),
        LogEntry::Table(table) => {
            let acceptors = table.acceptors().iter().map(|directory| hex(directory.0));
            let origin = table.origin().map(|origin| origin.to_string());
            json!({"kind": "table", "table": acceptors.collect::<Vec<_>>(), "origin": origin})
        }
        LogEntry::State(state) => json!({
            "kind": "state",
            "promised": ballot_json(state.promised),
            "truncated": state.truncated.0,
            "vote_watermark": state.vote_watermark.map(|slot| slot.0),
        }),
    };
    if let (Json::Object(record), Json::Object(more)) = (&mut record, more) {
        record.extend(more);
    }
    record
}

/// `null` is a value whose block is not what its gateway has summed.
fn value_json(value: Option<Value>) -> Json {
    value.map_or(Json::Null, |value| match value.content {
        Content::Noop => json!({"noop": true, "commands": 0, "bytes": 0}),
        Content::Batch(batch) => json!({
            "noop": false,
            "commands": batch.commands_count,
            "bytes": batch.block.len(),
            "gateway": batch.id.gateway.0,
            "number": batch.id.number,
            "attempt": batch.attempt,
        }),
    })
}

fn ballot_json(ballot: Ballot) -> Json {
    let Ballot { round, proposer, incarnation } = ballot;
    json!({"round": round, "proposer": proposer.0, "incarnation": hex(incarnation.0)})
}

/// Random numbers and digests: JSON's own numbers are exact up to 2^53 only.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}
