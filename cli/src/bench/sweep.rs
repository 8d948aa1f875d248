//! A sweep: the same measurement over and over, with other settings each time.
//!
//! ```text
//!   --sweep clients=1,16,256 --sweep size=16,1000
//!
//!   run        1    2    3    4    5     6
//!   clients    1   16  256    1   16   256      the first varies fastest: one curve each time round
//!   size      16   16   16 1000 1000  1000
//! ```

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use loggos::{Config, QuorumSystem, Settings};
use serde::Serialize;

use super::Options;
use super::report::Report;

/// More runs than this are more likely a mistake than a wish.
const RUNS_MAX: usize = 1000;
/// The most commands in flight: callers keep some hundred bytes for each.
const IN_FLIGHT_MAX: u64 = 1 << 24;

/// A setting, and the values that it takes in turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Axis {
    what: What,
    values: Vec<Step>,
}

/// What can be swept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Clients,
    Pipeline,
    Size,
    ProxyLeaders,
    Acceptors,
    Replicas,
}

/// A setting with one of its values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    Clients(u32),
    Pipeline(u32),
    Size(u32),
    ProxyLeaders(u8),
    /// Rows and columns of the grid.
    Acceptors(u8, u8),
    Replicas(u8),
}

/// What a sweep has measured.
#[derive(Debug, Serialize)]
pub(super) struct Sweep {
    /// The command line.
    pub(super) command: String,
    /// The settings that were swept.
    pub(super) axes: Vec<String>,
    pub(super) runs: Vec<Run>,
}

/// A run of a sweep.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// The value of each setting, in the order of the axes.
    pub(super) values: Vec<String>,
    pub(super) report: Report,
}

impl What {
    const ALL: [Self; 6] = [
        Self::Clients,
        Self::Pipeline,
        Self::Size,
        Self::ProxyLeaders,
        Self::Acceptors,
        Self::Replicas,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Pipeline => "pipeline",
            Self::Size => "size",
            Self::ProxyLeaders => "proxy-leaders",
            Self::Acceptors => "acceptors",
            Self::Replicas => "replicas",
        }
    }

    /// Whether it is one of the cluster, not of the load.
    fn is_of_cluster(self) -> bool {
        matches!(self, Self::ProxyLeaders | Self::Acceptors | Self::Replicas)
    }

    fn step(self, value: &str) -> Option<Step> {
        let positive = |value: &str| value.parse().ok().filter(|number| *number > 0);
        Some(match self {
            Self::Clients => Step::Clients(positive(value)?),
            Self::Pipeline => Step::Pipeline(positive(value)?),
            Self::Size => {
                Step::Size(positive(value).filter(|size| super::SIZES.contains(&i64::from(*size)))?)
            }
            Self::ProxyLeaders => Step::ProxyLeaders(value.parse().ok()?),
            Self::Acceptors => {
                let (rows, columns) = value.split_once('x')?;
                Step::Acceptors(rows.parse().ok()?, columns.parse().ok()?)
            }
            Self::Replicas => Step::Replicas(value.parse().ok()?),
        })
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || What::ALL.map(What::name).join(", ");
        let Some((name, values)) = text.split_once('=') else {
            return Err(format!(
                "must be a setting and its values, as in clients=1,16,256; settings are {}",
                names()
            ));
        };
        let what = What::ALL.into_iter().find(|what| what.name() == name);
        let what = what.ok_or_else(|| format!("`{name}` is not one of {}", names()))?;
        let step = |value| what.step(value).ok_or_else(|| format!("`{value}`: {}", what.values()));
        let values: Vec<Step> = values.split(',').map(step).collect::<Result<_, _>>()?;
        match values.iter().enumerate().find(|(place, value)| values[..*place].contains(value)) {
            Some((_, twice)) => Err(format!("{name}={twice} is given twice")),
            None => Ok(Self { what, values }),
        }
    }
}

impl What {
    /// What its values are.
    fn values(self) -> &'static str {
        match self {
            Self::Clients | Self::Pipeline => "must be a number from 1",
            Self::Size => "must be from 8 to 16384",
            Self::ProxyLeaders | Self::Replicas => "must be a number of at most 64",
            Self::Acceptors => "must be the rows and columns of a grid, as in 2x2",
        }
    }
}

impl Step {
    /// Has the next run take this value.
    fn apply(self, options: &mut Options, settings: &mut Settings) -> Result<(), String> {
        match self {
            Self::Clients(clients) => options.clients = clients,
            Self::Pipeline(pipeline) => options.pipeline = pipeline,
            Self::Size(size) => options.size = size,
            Self::ProxyLeaders(proxy_leaders) => settings.proxy_leaders = proxy_leaders,
            Self::Acceptors(rows, columns) => {
                let grid = QuorumSystem::grid(rows, columns, settings.f);
                settings.quorums =
                    grid.map_err(|error| format!("--sweep acceptors={self}: {error}"))?;
            }
            Self::Replicas(replicas) => settings.replicas = replicas,
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients(number) | Self::Pipeline(number) | Self::Size(number) => {
                write!(f, "{number}")
            }
            Self::ProxyLeaders(number) | Self::Replicas(number) => write!(f, "{number}"),
            Self::Acceptors(rows, columns) => write!(f, "{rows}x{columns}"),
        }
    }
}

/// The settings of each run, with its options and its cluster: all are found sound before the first
/// run begins.
///
/// # Errors
///
/// If a run would have a cluster that there is not, or there are too many.
pub(super) fn runs(
    options: &Options,
    config: &Config,
) -> Result<Vec<(Vec<Step>, Options, Config)>, String> {
    let axes = &options.sweep;
    for (place, axis) in axes.iter().enumerate() {
        let name = axis.what.name();
        if axes[..place].iter().any(|earlier| earlier.what == axis.what) {
            return Err(format!("--sweep {name} is given twice"));
        }
        let is_fixed = options.config.is_some() || options.connect.is_some();
        if axis.what.is_of_cluster() && (is_fixed || options.unreplicated) {
            return Err(format!(
                "--sweep {name} cannot be used with --config, --connect or --unreplicated: it changes \
                 the cluster, which is the default one"
            ));
        }
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.values.len()));
    let count = count.filter(|count| *count <= RUNS_MAX);
    let count = count.ok_or_else(|| format!("--sweep: more than {RUNS_MAX} runs"))?;
    (0..count).map(|number| run(number, options, config)).collect()
}

/// Run `number`: the first axis is its lowest digit.
fn run(
    number: usize,
    options: &Options,
    config: &Config,
) -> Result<(Vec<Step>, Options, Config), String> {
    let (mut rest, mut options, mut config) = (number, options.clone(), config.clone());
    let mut steps = Vec::new();
    for Axis { values, .. } in &options.sweep {
        steps.push(values[rest % values.len()]);
        rest /= values.len();
    }
    let in_flight = |options: &Options| u64::from(options.clients) * u64::from(options.pipeline);
    let mut settings = Settings::clone(&config.cluster);
    for step in &steps {
        step.apply(&mut options, &mut settings)?;
    }
    if in_flight(&options) > IN_FLIGHT_MAX {
        let Options { clients, pipeline, .. } = options;
        return Err(format!(
            "{clients} clients × {pipeline} in flight are more than {IN_FLIGHT_MAX} commands"
        ));
    }
    if settings != *config.cluster {
        let cluster = settings.check().map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            format!("--sweep: {}", errors.join("; "))
        })?;
        let idle = config.idle;
        config = Config::on_cpus(cluster, config.cpus);
        config.idle = idle;
        config.durability = options.durability;
    }
    Ok((steps, options, config))
}

impl Sweep {
    pub(super) fn new(command: String, axes: &[Axis]) -> Self {
        let axes = axes.iter().map(|axis| axis.what.name().to_owned()).collect();
        Self { command, axes, runs: Vec::new() }
    }

    /// The runs of each curve, along which only the first setting varies.
    pub(super) fn curves(&self) -> impl Iterator<Item = &[Run]> {
        self.runs.chunk_by(|a, b| a.values[1..] == b.values[1..])
    }

    /// The settings of a run, as text.
    pub(super) fn told(&self, run: &Run) -> String {
        self.told_of(run, 0)
    }

    /// Its settings from axis `first` on.
    pub(super) fn told_of(&self, run: &Run, first: usize) -> String {
        let settings = self.axes.iter().zip(&run.values).skip(first);
        settings.map(|(axis, value)| format!("{axis} {value}")).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn print_head(&self, mut to: impl Write) -> io::Result<()> {
        for axis in &self.axes {
            write!(to, "{axis:>13} ")?;
        }
        writeln!(
            to,
            "{:>12} {:>9} {:>9} {:>9} {:>13} {:>14}",
            "operations/s", "p50 µs", "p99 µs", "errors", "commands/slot", "busiest core"
        )
    }

    /// Prints the last run.
    pub(super) fn print_last(&self, mut to: impl Write) -> io::Result<()> {
        let Some(Run { values, report }) = self.runs.last() else { return Ok(()) };
        for value in values {
            write!(to, "{value:>13} ")?;
        }
        writeln!(
            to,
            "{:>12.0} {:>9.1} {:>9.1} {:>9} {:>13.1} {:>14}",
            report.throughput_mean,
            report.latency_us.p50,
            report.latency_us.p99,
            report.errors,
            report.load.commands_per_slot,
            report.busiest_core()
        )
    }

    pub(super) fn print_json(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut to, self)?;
        writeln!(to)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &[&str]) -> Options {
        Cli::parse_from(std::iter::once(&"bench").chain(words)).options
    }

    fn planned(words: &[&str]) -> Result<Vec<(Vec<Step>, Options, Config)>, String> {
        runs(&options(words), &Config::standard())
    }

    #[test]
    fn an_axis_is_a_setting_and_its_values() {
        let axis: Axis = "acceptors=2x2,3x4".parse().unwrap();
        assert_eq!(axis.values, [Step::Acceptors(2, 2), Step::Acceptors(3, 4)]);
        let axis: Axis = "clients=1,256".parse().unwrap();
        assert_eq!(axis.values, [Step::Clients(1), Step::Clients(256)]);
        let refused = |text: &str| text.parse::<Axis>().unwrap_err();
        assert!(refused("clients").starts_with("must be a setting and its values"));
        assert_eq!(refused("clients=1,2,1"), "clients=1 is given twice");
        assert!(refused("windows=1").starts_with("`windows` is not one of clients, pipeline"));
        assert_eq!(refused("clients=1,0"), "`0`: must be a number from 1");
        assert_eq!(refused("size=7"), "`7`: must be from 8 to 16384");
        assert_eq!(
            refused("acceptors=4"),
            "`4`: must be the rows and columns of a grid, as in 2x2"
        );
    }

    #[test]
    fn the_first_axis_varies_fastest() {
        let runs = planned(&["--sweep", "clients=1,2", "--sweep", "replicas=2,3"]).unwrap();
        let found =
            runs.iter().map(|(_, options, config)| (options.clients, config.cluster.replicas));
        assert_eq!(found.collect::<Vec<_>>(), [(1, 2), (2, 2), (1, 3), (2, 3)]);
        assert_eq!(planned(&[]).unwrap().len(), 1);
    }

    #[test]
    fn a_sweep_that_cannot_be_run_is_refused_before_it_begins() {
        let refused = |words: &[&str]| planned(words).unwrap_err();
        assert_eq!(
            refused(&["--sweep", "size=16", "--sweep", "size=32"]),
            "--sweep size is given twice"
        );
        let fixed = refused(&["--unreplicated", "--sweep", "replicas=2"]);
        assert!(fixed.starts_with("--sweep replicas cannot be used with --config"), "{fixed}");
        assert!(refused(&["--sweep", "acceptors=2x2,1x1"]).starts_with("--sweep acceptors=1x1: "));
        assert!(refused(&["--sweep", "replicas=1"]).starts_with("--sweep: "));
        let many: Vec<_> = (1..=40).map(|clients| clients.to_string()).collect();
        let [clients, pipeline] =
            ["clients", "pipeline"].map(|it| format!("{it}={}", many.join(",")));
        let many = refused(&["--sweep", &clients, "--sweep", &pipeline]);
        assert_eq!(many, "--sweep: more than 1000 runs");
        let huge = refused(&["--clients", "4", "--sweep", "pipeline=1,4294967295"]);
        assert!(huge.ends_with("in flight are more than 16777216 commands"), "{huge}");
    }
}
