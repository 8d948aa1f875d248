//! The floor: what the machine itself takes for what a cluster cannot do without.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use serde::Serialize;

const ROUND_TRIPS: usize = 5_000;
const SYNCS: usize = 300;
/// The length of a small message.
const MESSAGE_BYTES: usize = 64;
/// The least that a disk writes.
const BLOCK_BYTES: usize = 4096;

/// The times of the machine itself, in microseconds; medians.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Floor {
    /// A message there and back over loopback, between two threads that block.
    pub(crate) loopback_rtt_us: f64,
    /// A block written and synced, in the folder for temporary files.
    pub(crate) sync_us: f64,
}

/// Measures the floor.
pub(crate) fn measure() -> io::Result<Floor> {
    Ok(Floor { loopback_rtt_us: loopback()?, sync_us: sync()? })
}

fn loopback() -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..ROUND_TRIPS {
            far.read_exact(&mut message)?;
            far.write_all(&message)?;
        }
        Ok(())
    });
    let mut message = [0; MESSAGE_BYTES];
    let took = median(ROUND_TRIPS, || {
        near.write_all(&message)?;
        near.read_exact(&mut message)
    })?;
    echo.join().map_err(|_| io::Error::other("the echo panicked"))??;
    Ok(took)
}

fn sync() -> io::Result<f64> {
    let path = std::env::temp_dir().join(format!("loggos-floor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // The name is not needed any more, and nothing is left behind however this ends.
    std::fs::remove_file(&path)?;
    let block = [0; BLOCK_BYTES];
    // Written once before, so that what is timed does not grow the file.
    for _ in 0..SYNCS {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    median(SYNCS, || {
        file.write_all(&block)?;
        file.sync_data()
    })
}

fn median(rounds: usize, mut round: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let mut took = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        round()?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took[rounds / 2].as_secs_f64() * 1e6)
}
