//! `loggos config`: is a configuration right, and what cluster does it make?

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use loggos::{Config, Losses, RoleId};

/// What to do with configurations.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, Subcommand)]
enum Command {
    /// Say what cluster a configuration makes, or all that is wrong with it.
    ///
    /// Prints one line for each kind of role, with the processor core of each, and tries every loss of f
    /// acceptors: whether a read and a write quorum is left. What the cluster does not survive goes to
    /// standard error, as do all mistakes, each with its line and column. Succeeds if there are no mistakes.
    Check(CheckOptions),
    /// Print a configuration that names every key, with what it means and its default.
    Example,
}

#[derive(Args, Clone, Debug)]
struct CheckOptions {
    /// The configuration, in TOML.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs `loggos config`.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    match &options.command {
        Command::Check(options) => check(options),
        Command::Example => Ok(std::io::stdout().lock().write_all(Config::example().as_bytes())?),
    }
}

fn check(options: &CheckOptions) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&options.file)?;
    let losses = losses(&config)?;
    let mut out = std::io::stdout().lock();
    write!(out, "{}", roles(&config))?;
    writeln!(out, "{losses}")?;
    for weakness in config.weaknesses() {
        eprintln!("{}: warning: {weakness}", options.file.display());
    }
    Ok(())
}

/// One line for each kind of role, with the processor cores in the order of the roles.
fn roles(config: &Config) -> String {
    let kinds = ["gateways", "proposers", "proxy leaders", "acceptors", "replicas"];
    let mut text = String::new();
    for kind in kinds {
        let roles = config.placement.iter().filter(|(role, _)| kind_of(**role) == kind);
        let cpus: Vec<_> = roles.map(|(_, core)| config.cpus[*core].to_string()).collect();
        let note = if kind == "acceptors" {
            format!(" ({})", config.cluster.quorums)
        } else {
            String::new()
        };
        let (count, cpus) = (cpus.len(), cpus.join(" "));
        writeln!(text, "{kind:<13} {count:>3}  on cpus {cpus}{note}").expect("a string takes all");
    }
    text
}

fn kind_of(role: RoleId) -> &'static str {
    match role {
        RoleId::Gateway(_) => "gateways",
        RoleId::Proposer(_) => "proposers",
        RoleId::ProxyLeader(_) => "proxy leaders",
        RoleId::Acceptor(_) => "acceptors",
        RoleId::Replica(_) => "replicas",
    }
}

/// What every loss of f acceptors leaves.
fn losses(config: &Config) -> Result<String, String> {
    let (f, acceptors) = (config.cluster.f, config.cluster.quorums.acceptors_count());
    let kept =
        format!("every loss of {f} of {acceptors} acceptors leaves a read and a write quorum");
    match config.try_losses() {
        Losses::Survived { sets } => Ok(format!("{kept}: {sets} tried")),
        Losses::TooMany { sets } => {
            Ok(format!("{kept}, by the sizes of its quorums: {sets} are too many to try"))
        }
        Losses::Fatal { lost } => {
            let lost: Vec<_> = lost.iter().map(|acceptor| acceptor.0.to_string()).collect();
            Err(format!("without acceptors {} no quorum of a kind is left", lost.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use loggos::{QuorumSystem, Settings};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn config() -> Config {
        let settings = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap());
        Config::on_cpus(settings.check().unwrap(), vec![0, 3])
    }

    #[test]
    fn each_kind_of_role_has_a_line_with_its_cores() {
        let expected = "\
gateways        1  on cpus 0
proposers       2  on cpus 0 3
proxy leaders   2  on cpus 0 3
acceptors       4  on cpus 0 0 3 3 (2 × 2 grid)
replicas        3  on cpus 0 0 3
";
        assert_eq!(roles(&config()), expected);
    }

    #[test]
    fn the_losses_that_were_tried_are_counted() {
        let said = losses(&config()).unwrap();
        assert_eq!(
            said,
            "every loss of 1 of 4 acceptors leaves a read and a write quorum: 4 tried"
        );
    }

    #[test]
    fn a_check_needs_a_file() {
        assert!(Line::try_parse_from(["config", "check"]).is_err());
        assert!(Line::try_parse_from(["config", "check", "a.toml"]).is_ok());
        assert!(Line::try_parse_from(["config", "example"]).is_ok());
    }
}
