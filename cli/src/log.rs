//! What a process says for its operator, on standard error.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::lines::Lines;

/// Where everything goes, once it is started.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The variable of the environment that says what is logged.
const VARIABLE: &str = "LOGGOS_LOG";
/// The longest time that a process waits for lines to be written that it says once.
pub(crate) const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Starts to log: from `level` up, unless the environment says otherwise. Panics are logged
/// whatever it says.
///
/// # Errors
///
/// If what the environment says is not understood, or the thread cannot be started.
pub(crate) fn start(level: LevelFilter) -> Result<(), String> {
    let lines = Lines::start("loggos-lines", io::stderr())
        .map_err(|error| format!("cannot start the thread of the log: {error}"))?;
    let lines = LINES.get_or_init(|| lines);
    let shown = match std::env::var(VARIABLE) {
        Ok(text) => filter(&text).map_err(|error| format!("{VARIABLE}=\"{text}\": {error}"))?,
        Err(std::env::VarError::NotPresent) => Targets::new().with_default(level),
        Err(error @ std::env::VarError::NotUnicode(_)) => {
            return Err(format!("{VARIABLE}: {error}"));
        }
    };
    let is_coloured =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(lines.clone())
        .with_ansi(is_coloured)
        .log_internal_errors(false);
    tracing_subscriber::registry().with(shown).with(layer).init();
    // The hook of the standard library waits for standard error.
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let mut text = format!("thread `{}` {panic}\n", thread.name().unwrap_or("unnamed"));
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            writeln!(text, "{trace}").expect("a text takes all");
        }
        show(&text);
        if thread.name() == Some("main") {
            finish(); // the process ends with it
        }
    }));
    Ok(())
}

/// Says why a command has failed.
pub(crate) fn complain(text: &str) {
    let line = format!("loggos: {text}\n");
    match LINES.get() {
        // The reason why a process ends is not dropped for what waits before it.
        Some(lines) => lines.push_within(line.into_bytes(), FLUSH_MAX),
        None => show(&line),
    }
}

/// Says something that is a line, or several.
pub(crate) fn say(text: &str) {
    show(&format!("{text}\n"));
}

/// Puts a text on standard error as it is, such as the progress of something.
pub(crate) fn show(text: &str) {
    match LINES.get() {
        Some(lines) => lines.push(text.as_bytes().to_vec()),
        None => drop(io::stderr().write_all(text.as_bytes())), // nothing is left to say it to
    }
}

/// Waits for the last lines, if they can be written soon.
pub(crate) fn finish() {
    LINES.get().inspect(|lines| lines.flush(FLUSH_MAX));
}

/// Reads which lines are shown: a level, or `module=level`, or several of these.
///
/// # Errors
///
/// If a part is neither. A word that is no level would be taken for a module, and nothing else
/// would be shown.
fn filter(text: &str) -> Result<Targets, String> {
    for part in text.split(',').map(str::trim) {
        let (module, level) = part.rsplit_once('=').unwrap_or(("loggos", part));
        if level.parse::<LevelFilter>().is_err() || level.is_empty() {
            let levels = "the levels are off, error, warn, info, debug and trace";
            return Err(format!("`{level}` is not a level: {levels}"));
        }
        let is_module = |it: &str| it.chars().all(|c| c.is_alphanumeric() || "_:".contains(c));
        if module.is_empty() || !is_module(module) {
            return Err(format!("`{module}` is not a module, such as loggos::sockets"));
        }
    }
    text.split_whitespace().collect::<String>().parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::filter::LevelFilter as Level;

    use super::*;

    #[test]
    fn a_filter_is_understood_or_refused() {
        let shown = filter("warn,\tloggos::sockets=debug\n").expect("it is one");
        assert!(shown.would_enable("loggos::sockets", &tracing::Level::DEBUG));
        assert!(!shown.would_enable("loggos::status", &tracing::Level::INFO));
        assert!(shown.would_enable("loggos::status", &tracing::Level::WARN));
        assert_eq!(filter("off").expect("it is one").default_level(), Some(Level::OFF));
        for text in
            ["wran", "", "info,", "loggos::sockets", "loggos=loud", "=info", "a b=info", "5x"]
        {
            filter(text).expect_err(text);
        }
    }
}
