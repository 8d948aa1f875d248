//! Where and when a benchmark has run: without that, a figure says nothing.

use std::fmt;
use std::time::SystemTime;

use loggos::Durability;
use serde::Serialize;

/// Where and when a benchmark has run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    /// The time when it began, in UTC.
    pub(super) date: String,
    /// The machine that measured, which may have run the cluster, too.
    pub(super) host: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    /// Processor cores that the measuring process could use.
    pub(super) cpus: usize,
    /// Where acceptors kept their votes; `None` where only the cluster knows.
    pub(super) durability: Option<&'static str>,
    pub(super) version: &'static str,
}

impl Setting {
    /// Returns that of this moment, on this machine; `durability` is that of the cluster.
    pub(crate) fn now(durability: Option<Durability>) -> Self {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        Self {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            host: text(names.nodename()),
            kernel: format!("{} {}", text(names.sysname()), text(names.release())),
            processor: processor().unwrap_or_else(|| text(names.machine())),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            durability: durability.map(|durability| match durability {
                Durability::Memory => "in memory",
                Durability::Sync => "synced to disk",
            }),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// The name of the processor, as the kernel has it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, host, kernel, processor, cpus, durability: _, version } = self;
        write!(f, "{date}, on {host}: {processor}, {cpus} cores, {kernel}; loggos {version}")
    }
}
