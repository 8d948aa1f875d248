//! What the disk takes to sync, while several files are synced at once, and nothing else: threads
//! that each write a block of 4 KiB over zeroes, past the cache (`O_DIRECT`) and on the disk when
//! the write returns (`O_DSYNC`).
//!
//! It is what three acceptors on one disk cannot do without; a command waits for the second of
//! three.
//!
//! Usage: `syncs FOLDER [FILES] [SECONDS]`; prints JSON.

#![expect(clippy::print_stdout, reason = "it reports")]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{env, process, thread};

use rustix::fs::OFlags;

/// What a disk writes at least, where direct I/O wants it.
#[repr(align(4096))]
struct Block([u8; Self::BYTES]);

impl Block {
    const BYTES: usize = 4096;
}

/// How many blocks a file has, which are written over and over.
const BLOCKS: u64 = 4096;
/// How long each file is written before it counts.
const WARM_UP: Duration = Duration::from_millis(200);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Opens a new file of zeroes that are on the disk already: what is timed neither grows it nor
/// changes what the file system knows of it. Its name is gone before anything can go wrong.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECT | OFlags::DSYNC;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let zeroes = vec![0; Block::BYTES * 256];
    let preparing = OpenOptions::new().write(true).create_new(true).open(path)?;
    let file = OpenOptions::new().write(true).custom_flags(flags).open(path);
    fs::remove_file(path)?;
    let (file, bytes) = (file?, BLOCKS * Block::BYTES as u64);
    for offset in (0..bytes).step_by(zeroes.len()) {
        preparing.write_all_at(&zeroes, offset)?;
    }
    preparing.sync_all()?;
    Ok(file)
}

/// Writes block after block; returns what each took once it counted.
fn write(file: &File, most: Duration) -> io::Result<Vec<Duration>> {
    let (block, mut took) = (Block([0x5A; Block::BYTES]), Vec::new());
    let started = Instant::now();
    for place in (0..BLOCKS).cycle() {
        let began = Instant::now();
        if began - started > WARM_UP + most {
            break;
        }
        file.write_all_at(&block.0, place * Block::BYTES as u64)?;
        if began - started > WARM_UP {
            took.push(began.elapsed());
        }
    }
    Ok(took)
}

fn measure(folder: &Path, files: usize, most: Duration) -> Outcome<()> {
    let path = |file| folder.join(format!("loggos-syncs-{}-{file}", process::id()));
    let files: Vec<File> = (0..files).map(|file| open(&path(file))).collect::<Result<_, _>>()?;
    let took = thread::scope(|scope| {
        let writers: Vec<_> =
            files.iter().map(|file| scope.spawn(move || write(file, most))).collect();
        let took = writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked"));
        took.collect::<Result<Vec<_>, _>>()
    })?;
    let mut took: Vec<Duration> =
        took.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    took.sort_unstable();
    let us = |percent: usize| {
        let place = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        took.get(place).map(|took| took.as_secs_f64() * 1e6).ok_or("nothing was written in time")
    };
    println!(
        r#"{{"files": {}, "syncs": {}, "sync_us": {{"p50": {:.1}, "p99": {:.1}}}}}"#,
        files.len(),
        took.len(),
        us(50)?,
        us(99)?,
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let folder = arguments.first().ok_or("usage: syncs FOLDER [FILES] [SECONDS]")?;
    let files: usize = arguments.get(1).map_or(Ok(3), |files| files.parse())?;
    let seconds: u64 = arguments.get(2).map_or(Ok(2), |seconds| seconds.parse())?;
    measure(Path::new(folder), files.max(1), Duration::from_secs(seconds.max(1)))
}
