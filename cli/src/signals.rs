//! The signals that this process hears.

use std::io;
use std::os::raw::c_int;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The signals that end a process which does not hear them.
pub(crate) const ENDING: [c_int; 3] = [SIGHUP, SIGINT, SIGTERM];

/// Calls `heard` with each of `signals` that comes, on a thread of its own. Those that this process
/// was started to ignore, as `nohup` does with SIGHUP, it goes on to ignore.
///
/// # Errors
///
/// If the kernel lets us have no handler, or no thread.
pub(crate) fn hear(signals: &[c_int], heard: impl FnMut(c_int) + Send + 'static) -> io::Result<()> {
    let ignored = ignored();
    let is_heard = |signal: &&c_int| ignored & 1 << (**signal - 1) == 0;
    let mut signals = Signals::new(signals.iter().filter(is_heard))?;
    let thread = thread::Builder::new().name("loggos-signals".to_owned());
    thread.spawn(move || signals.forever().for_each(heard))?;
    Ok(())
}

/// The signals that this process ignores: signal n by bit n - 1. None, where the kernel does not
/// say.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
