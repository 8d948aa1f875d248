//! How commands end: their exit codes, and a standard output whose reader has had enough.

use std::fmt;
use std::io::{self, ErrorKind, StdoutLock, Write};

use crate::log;

/// The command line, or the environment, was not understood.
pub(crate) const USAGE: u8 = 2;
/// The command was executed, and found no value, or not one of the kind it needs.
pub(crate) const NO_SUCH_VALUE: u8 = 3;
/// `status` has found a cluster that serves, and of which something is lost.
pub(crate) const DEGRADED: u8 = 4;
/// `status` has found a cluster that does not serve.
pub(crate) const NOT_SERVING: u8 = 5;
/// A signal has cut it short: that of a shell for an interrupt.
pub(crate) const INTERRUPTED: u8 = 130;

/// The end of a command that has an exit code of its own.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: u8,
    /// The reason, for standard error; empty if it was told.
    pub(crate) why: String,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Exit {}

/// The reader of standard output has gone: it has what it wanted.
#[derive(Debug)]
struct ReaderGone;

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reader of standard output has gone")
    }
}

impl std::error::Error for ReaderGone {}

/// Whether a command has ended since nobody reads on, as with `| head`.
pub(crate) fn is_reader_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let error = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is_some_and(|error| error.is::<ReaderGone>())
}

/// Standard output, for what a command was asked for.
#[derive(Debug)]
pub(crate) struct Stdout(StdoutLock<'static>);

/// Returns standard output, for what a command was asked for. What was said before, such as how far
/// it is, comes first on a terminal.
pub(crate) fn stdout() -> Stdout {
    log::finish();
    Stdout(io::stdout().lock())
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(naming_reader)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(naming_reader)
    }
}

/// A broken pipe of standard output is no failure, unlike one of a connection.
fn naming_reader(error: io::Error) -> io::Error {
    let is_reader_gone = error.kind() == ErrorKind::BrokenPipe;
    if is_reader_gone { io::Error::new(ErrorKind::BrokenPipe, ReaderGone) } else { error }
}
