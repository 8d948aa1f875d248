//! `loggos plan`: how many of each role a load takes, by what each has been measured to cost.
//!
//! ```text
//!   role           does for each command               of which more help
//!   gateway        its share of all                    yes
//!   leader         its part of each slot, and the      no; proxy leaders relieve it
//!                  proxy leaders' if there are none
//!   proxy leader   its share of all slots              yes
//!   acceptor       its share of the votes              yes: more rows, as many votes a slot
//!   replica        all                                 no
//! ```
//!
//! Every role is taken to have a core of its own, and the one that has most to do for a command is
//! the bottleneck. It is added to, one at a time, as the paper takes its system apart: the leader
//! first, then its proxies, until what is left cannot be divided.
//!
//! source: \[CP\], its ablation study

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use loggos::{QuorumSystem, Settings};
use serde::Deserialize;
use serde_json::Value;

use crate::bench;
use crate::exit;

/// The part of a core that a role may have: beyond that, commands wait for one another.
const BUSY_MAX: f64 = 0.8;

/// Costs of cores that had less to do than this are too high.
const BUSY_MIN: f64 = 0.5;
/// No cluster is planned for more commands a second.
const TARGET_MAX: f64 = 1e12;

/// The options of `plan`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Commands a second, such as 2M or 500k.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    target: f64,
    /// Losses of each role to survive, from 1 to 7: the grid of more would have more than 64
    /// acceptors.
    #[arg(long, value_name = "F", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    faults: u8,
    /// Bytes of a value.
    #[arg(long, value_name = "B", default_value_t = 16, conflicts_with = "costs", value_parser = clap::value_parser!(u32).range(bench::SIZES))]
    size: u32,
    /// The most commands in a batch, from 1 to 512. Batches are full only where callers have as
    /// many in flight; 1 tells what commands cost without batches.
    #[arg(long, value_name = "N", default_value_t = 512, conflicts_with = "costs", value_parser = clap::value_parser!(u32).range(1..=512))]
    batch: u32,
    /// What roles cost: the figures that `loggos bench --json` has written, of one run of a whole
    /// cluster under load. By default puts are measured in this process, which takes some seconds;
    /// roles in processes of their own cost more.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
}

/// Measures, plans and tells.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (figures, place) = match &options.costs {
        Some(file) => (Figures::read(file)?, file.display().to_string()),
        None => {
            let report = bench::measure_here(options.size, options.batch)?;
            (serde_json::from_value(report)?, "this process".to_owned())
        }
    };
    let costs = Costs::of(&figures).map_err(|why| format!("{place}: {why}"))?;
    let plan = Plan::new(&costs, options.faults, options.target)?;
    write!(exit::stdout(), "costs from {place}: {costs}\n\n{plan}")?;
    match plan.answer {
        Some(_) => Ok(()),
        None => Err(plan.limit().into()),
    }
}

/// The part of a benchmark's figures that a plan is made from.
#[derive(Debug, Deserialize)]
struct Figures {
    unreplicated: bool,
    /// Absent where it was measured with `--connect`.
    cluster: Option<ClusterFigures>,
    operations: u64,
    load: LoadFigures,
    roles: Vec<RoleFigures>,
    cores: Vec<CoreFigures>,
}

#[derive(Debug, Deserialize)]
struct ClusterFigures {
    gateways: usize,
    proposers: usize,
    proxy_leaders: usize,
    acceptors: usize,
    replicas: usize,
    votes_per_slot: u32,
    killed: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LoadFigures {
    value_bytes: u32,
    reads: f64,
    duration_s: f64,
    commands_per_slot: f64,
}

#[derive(Debug, Deserialize)]
struct RoleFigures {
    role: String,
    #[serde(default)]
    node: Option<String>,
    core: usize,
    cpu_ns_per_command: f64,
}

#[derive(Debug, Deserialize)]
struct CoreFigures {
    #[serde(default)]
    node: Option<String>,
    core: usize,
    busy: f64,
    callers_ns_per_command: f64,
}

/// What a command costs each kind of role, in nanoseconds of a core, with what its core does for
/// it: sockets, mailboxes, ticks.
#[derive(Clone, Debug, PartialEq)]
struct Costs {
    value_bytes: u32,
    /// The part of the commands that were reads.
    reads: f64,
    commands_per_slot: f64,
    /// Of all gateways together: they share the commands.
    gateways: f64,
    leader: f64,
    /// Of a message, as its proxy leader takes it in or sends it; a slot has several.
    proxied_message: f64,
    /// Of a vote; a slot has several.
    vote: f64,
    /// Of each replica.
    replica: f64,
    /// How busy the busiest core was: one with little to do spends much of its time on what is not
    /// for commands.
    busiest: f64,
}

impl Costs {
    /// # Errors
    ///
    /// If they are not those of a whole cluster that works, or of no command.
    fn of(figures: &Figures) -> Result<Self, String> {
        let Some(cluster) = &figures.cluster else {
            return Err(
                "was measured with --connect, which has the roles of one node only: measure \
                        the whole cluster, with --config"
                    .to_owned(),
            );
        };
        if figures.unreplicated {
            return Err(
                "was measured with --unreplicated: roles cost more where they replicate".to_owned()
            );
        }
        if let Some(killed) = &cluster.killed {
            return Err(format!("was measured without {killed}, which was killed"));
        }
        let costs = |kind: &str, count: usize| {
            let is_one = move |role: &&RoleFigures| {
                role.role.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))
            };
            let costs: Vec<_> =
                figures.roles.iter().filter(is_one).map(|role| figures.cost(role)).collect();
            if costs.len() == count {
                Ok(costs)
            } else {
                Err(format!("has {} of {count} roles of the kind {kind}", costs.len()))
            }
        };
        let sum = |costs: &[f64]| costs.iter().sum::<f64>();
        let replicas = costs("replica", cluster.replicas)?;
        let votes = f64::from(cluster.votes_per_slot);
        let proxied = proxied_messages(votes, as_f64(replicas.len()));
        let found = Self {
            value_bytes: figures.load.value_bytes,
            reads: figures.load.reads,
            commands_per_slot: figures.load.commands_per_slot,
            gateways: sum(&costs("gateway", cluster.gateways)?),
            leader: costs("proposer", cluster.proposers)?.into_iter().fold(0.0, f64::max),
            proxied_message: sum(&costs("proxy leader", cluster.proxy_leaders)?) / proxied,
            vote: sum(&costs("acceptor", cluster.acceptors)?) / votes,
            replica: sum(&replicas) / as_f64(replicas.len()),
            busiest: figures.cores.iter().map(|core| core.busy).fold(0.0, f64::max),
        };
        let Self { gateways, leader, proxied_message, vote, replica, .. } = found;
        let is_cost = |cost: f64| cost.is_finite() && cost > 0.0;
        if [gateways, leader, proxied_message, vote, replica].into_iter().all(is_cost) {
            Ok(found)
        } else {
            Err("has no cost for some role: no command was answered".to_owned())
        }
    }
}

impl Figures {
    /// Reads what `loggos bench --json` has written.
    fn read(file: &Path) -> Result<Self, String> {
        let place = file.display();
        let text = std::fs::read(file).map_err(|error| format!("{place}: {error}"))?;
        let report: Value = serde_json::from_slice(&text)
            .map_err(|error| format!("{place}: no figures of `loggos bench --json`: {error}"))?;
        if report.get("runs").is_some() {
            return Err(format!(
                "{place}: has the runs of a sweep; a plan takes the figures of one run, without --sweep"
            ));
        }
        serde_json::from_value(report)
            .map_err(|error| format!("{place}: no figures of `loggos bench --json`: {error}"))
    }

    /// What a command costs a role, with its share of what its core does for it.
    fn cost(&self, role: &RoleFigures) -> f64 {
        let at = |core: &&CoreFigures| (&core.node, core.core) == (&role.node, role.core);
        let Some(core) = self.cores.iter().find(at) else { return role.cpu_ns_per_command };
        let beside =
            self.roles.iter().filter(|other| (&other.node, other.core) == (&role.node, role.core));
        let roles: f64 = beside.map(|role| role.cpu_ns_per_command).sum();
        let busy = core.busy * self.load.duration_s * 1e9 / as_f64(self.operations);
        let busy = busy - core.callers_ns_per_command;
        if roles > 0.0 { role.cpu_ns_per_command * (busy / roles).max(1.0) } else { 0.0 }
    }
}

/// The messages that a slot is at its proxy leader: the leader's, one to each acceptor that is
/// asked and its vote, one to each replica.
fn proxied_messages(votes: f64, replicas: f64) -> f64 {
    1.0 + 2.0 * votes + replicas
}

/// A kind of role that can be the bottleneck.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Gateway,
    Leader,
    ProxyLeader,
    Acceptor,
    Replica,
}

/// How many there are of each role.
#[derive(Clone, Debug, PartialEq)]
struct Shape {
    faults: u8,
    gateways: u8,
    /// None: the leader does their work.
    proxy_leaders: u8,
    /// Rows of a grid whose columns are `faults + 1`.
    rows: u8,
}

/// A cluster, and what limits it.
#[derive(Clone, Debug)]
struct Step {
    shape: Shape,
    bottleneck: Kind,
    /// Commands a second, with the bottleneck as busy as it may be.
    rate: f64,
}

impl Shape {
    /// The smallest cluster that survives so many losses.
    fn smallest(faults: u8) -> Self {
        Self { faults, gateways: faults + 1, proxy_leaders: 0, rows: faults + 1 }
    }

    fn columns(&self) -> u8 {
        self.faults + 1
    }

    fn proposers(&self) -> u8 {
        self.faults + 1
    }

    fn replicas(&self) -> u8 {
        2 * self.faults + 1
    }

    fn roles(&self) -> u32 {
        let Self { gateways, proxy_leaders, rows, .. } = *self;
        [gateways, self.proposers(), proxy_leaders, self.replicas()]
            .map(u32::from)
            .iter()
            .sum::<u32>()
            + u32::from(rows) * u32::from(self.columns())
    }

    /// What the busiest role of each kind takes for a command.
    fn loads(&self, costs: &Costs) -> [(Kind, f64); 5] {
        let (votes, replicas) = (f64::from(self.columns()), f64::from(self.replicas()));
        let proxied = costs.proxied_message * proxied_messages(votes, replicas);
        let (leader, proxy_leader) = match self.proxy_leaders {
            0 => (costs.leader + proxied, 0.0),
            proxy_leaders => (costs.leader, proxied / f64::from(proxy_leaders)),
        };
        [
            (Kind::Gateway, costs.gateways / f64::from(self.gateways)),
            (Kind::Leader, leader),
            (Kind::ProxyLeader, proxy_leader),
            (Kind::Acceptor, costs.vote / f64::from(self.rows)),
            (Kind::Replica, costs.replica),
        ]
    }

    fn step(self, costs: &Costs) -> Step {
        let loads = self.loads(costs);
        let most = loads.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (bottleneck, load) = most.expect("there are five kinds");
        Step { shape: self, bottleneck, rate: BUSY_MAX * 1e9 / load }
    }

    /// The cluster with one more of what is the bottleneck; none, if that cannot be divided.
    fn with_one_more(&self, bottleneck: Kind) -> Option<Self> {
        let mut shape = self.clone();
        match bottleneck {
            Kind::Gateway => shape.gateways += 1,
            Kind::Leader if self.proxy_leaders == 0 => shape.proxy_leaders = self.faults + 1,
            Kind::ProxyLeader => shape.proxy_leaders += 1,
            Kind::Acceptor => shape.rows += 1,
            Kind::Leader | Kind::Replica => return None,
        }
        shape.is_sound().then_some(shape)
    }

    /// Whether there can be such a cluster.
    fn is_sound(&self) -> bool {
        let Ok(grid) = QuorumSystem::grid(self.rows, self.columns(), self.faults) else {
            return false;
        };
        let settings = Settings {
            gateways: self.gateways,
            proxy_leaders: self.proxy_leaders,
            ..Settings::new(self.faults, grid)
        };
        settings.check().is_ok()
    }
}

/// From the smallest cluster to the one that is wanted, and one step on.
#[derive(Debug)]
struct Plan {
    target: f64,
    steps: Vec<Step>,
    /// The step that reaches the target, if one does.
    answer: Option<usize>,
}

impl Plan {
    /// # Errors
    ///
    /// If no cluster survives so many losses.
    fn new(costs: &Costs, faults: u8, target: f64) -> Result<Self, String> {
        let smallest = Shape::smallest(faults);
        if !smallest.is_sound() {
            return Err(format!("no cluster survives {faults} losses of each role"));
        }
        let mut plan = Self { target, steps: vec![smallest.step(costs)], answer: None };
        loop {
            let last = plan.steps.last().expect("there is the smallest");
            let was_reached = plan.answer.is_some();
            if last.rate >= target && !was_reached {
                plan.answer = Some(plan.steps.len() - 1);
            }
            match last.shape.with_one_more(last.bottleneck) {
                Some(next) if !was_reached => plan.steps.push(next.step(costs)),
                Some(_) | None => return Ok(plan),
            }
        }
    }

    /// Why the target cannot be reached, and what would help.
    fn limit(&self) -> String {
        let last = self.steps.last().expect("there is the smallest");
        let why = match last.bottleneck {
            Kind::Leader => {
                "the leader gives every slot its number, and there is only one. Larger batches need \
                 fewer slots"
            }
            Kind::Replica => {
                "every replica executes every command. Cheaper commands would help, or several clusters"
            }
            Kind::Gateway | Kind::ProxyLeader | Kind::Acceptor => {
                "there are as many of that role as a cluster can have"
            }
        };
        let (target, most) = (told(self.target), told(last.rate));
        format!("{target} commands/s cannot be reached; the most is {most}: {why}")
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value_bytes, reads, commands_per_slot, gateways, leader, vote, replica, .. } =
            self;
        let reads = 100.0 * reads;
        write!(
            f,
            "{value_bytes}-byte values, {reads:.0} % reads, {commands_per_slot:.1} commands a slot\n\
             ns a command: gateways {gateways:.1}, leader {leader:.1}, a message at a proxy leader {:.1}, a vote \
             {vote:.1}, a replica {replica:.1}",
            self.proxied_message
        )?;
        if self.busiest < BUSY_MIN {
            write!(
                f,
                "\nno core was more than {:.0} % busy: with more to do, a command costs less",
                100.0 * self.busiest
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "gateways proposers proxy leaders acceptors replicas cores commands/s  bottleneck"
        )?;
        for (number, Step { shape, bottleneck, rate }) in self.steps.iter().enumerate() {
            let mut row = String::new();
            write!(
                row,
                "{:>8} {:>9} {:>13} {:>9} {:>8} {:>5} {:>10}  {:<13}",
                shape.gateways,
                shape.proposers(),
                if shape.proxy_leaders == 0 {
                    "-".to_owned()
                } else {
                    shape.proxy_leaders.to_string()
                },
                format!("{}x{}", shape.rows, shape.columns()),
                shape.replicas(),
                shape.roles(),
                told(*rate),
                bottleneck.to_string()
            )?;
            let note = match self.answer {
                Some(answer) if answer == number => format!("enough for {}", told(self.target)),
                Some(answer) if answer + 1 == number => {
                    "with one more of what limits it".to_owned()
                }
                _ => String::new(),
            };
            writeln!(f, "{}", format!("{row} {note}").trim_end())?;
        }
        writeln!(
            f,
            "\neach role on a core of its own, at most {:.0} % busy; -: none, the leader does their work",
            100.0 * BUSY_MAX
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gateway => "gateway",
            Self::Leader => "leader",
            Self::ProxyLeader => "proxy leader",
            Self::Acceptor => "acceptor",
            Self::Replica => "replica",
        })
    }
}

/// A rate for people, of three digits.
fn told(rate: f64) -> String {
    // What would be rounded up to a thousand of one unit is one of the next.
    let (rate, unit) = match rate {
        rate if rate < 999.5 => (rate, ""),
        rate if rate < 999.5e3 => (rate / 1e3, " k"),
        rate => (rate / 1e6, " M"),
    };
    let digits = usize::from(rate < 100.0) + usize::from(rate < 10.0);
    format!("{rate:.digits$}{unit}")
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches(['k', 'M']);
    let factor = match &text[number.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        _ => f64::NAN,
    };
    let rate = number.parse().unwrap_or(f64::NAN) * factor;
    if (1.0..=TARGET_MAX).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be a number from 1 on, with k for thousands or M for millions, as in 2M"
            .to_owned())
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures of which three digits are shown")]
fn as_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Costs as between processes: messages are what is dear.
    fn costs() -> Costs {
        Costs {
            value_bytes: 16,
            reads: 0.0,
            commands_per_slot: 1.0,
            gateways: 6000.0,
            leader: 2000.0,
            proxied_message: 1000.0,
            vote: 2000.0,
            replica: 1500.0,
            busiest: 1.0,
        }
    }

    #[test]
    fn a_plan_takes_the_system_apart_as_the_paper_does() {
        let plan = Plan::new(&costs(), 1, 399e3).unwrap();
        let found: Vec<_> = plan.steps.iter().map(|step| step.bottleneck).collect();
        let expected = [
            Kind::Leader,      // with all that its proxies would do: 2 + 8 µs
            Kind::ProxyLeader, // two: 4 µs
            Kind::Gateway,     // three proxies 2.7 µs, two gateways 3
            Kind::ProxyLeader, // three gateways 2
        ];
        assert_eq!(found[..4], expected, "{plan}");
        assert!(plan.steps.is_sorted_by(|a, b| a.rate <= b.rate), "{plan}");
        assert_eq!(plan.steps[0].rate.round(), 80_000.0, "a leader of 10 µs is 80 % busy");
        // Four proxies take 2 µs each, as much as the leader.
        assert_eq!(plan.answer, Some(4), "{plan}");
        assert_eq!(plan.steps[4].shape.proxy_leaders, 4, "{plan}");
    }

    #[test]
    fn what_cannot_be_divided_is_named() {
        let plan = Plan::new(&costs(), 1, 5e6).unwrap();
        assert!(plan.answer.is_none(), "{plan}");
        assert!(plan.limit().contains("the most is 400 k: the leader gives"), "{}", plan.limit());
        let batched = Costs { leader: 1.0, proxied_message: 1.0, vote: 1.0, ..costs() };
        let plan = Plan::new(&batched, 1, 5e6).unwrap();
        assert!(plan.limit().contains("the most is 533 k: every replica"), "{}", plan.limit());
        let last =
            "       4         2             -       2x2        3    13      533 k  replica\n";
        assert!(plan.to_string().contains(last), "{plan}");
    }

    fn role(name: &str, core: usize, cpu_ns_per_command: f64) -> RoleFigures {
        RoleFigures { role: name.to_owned(), node: None, core, cpu_ns_per_command }
    }

    /// One role of each kind, but for two acceptors that both vote, on two cores.
    fn figures() -> Figures {
        let core = |core, busy, callers_ns_per_command| CoreFigures {
            node: None,
            core,
            busy,
            callers_ns_per_command,
        };
        let cluster = ClusterFigures {
            gateways: 1,
            proposers: 2,
            proxy_leaders: 1,
            acceptors: 2,
            replicas: 1,
            votes_per_slot: 2,
            killed: None,
        };
        Figures {
            unreplicated: false,
            cluster: Some(cluster),
            operations: 1_000_000,
            load: LoadFigures {
                value_bytes: 16,
                reads: 0.0,
                duration_s: 1.0,
                commands_per_slot: 1.0,
            },
            roles: vec![
                role("gateway 0", 0, 100.0),
                role("proposer 0", 0, 50.0),
                role("proposer 1", 1, 1.0),
                role("proxy leader 0", 0, 50.0),
                role("acceptor 0", 1, 20.0),
                role("acceptor 1", 1, 20.0),
                role("replica 0", 1, 59.0),
            ],
            // 600 ns a command, of which 200 are the callers': twice what roles say of themselves.
            cores: vec![core(0, 0.6, 200.0), core(1, 0.1, 0.0)],
        }
    }

    #[test]
    fn the_cost_of_a_role_has_its_share_of_its_core() {
        let expected = Costs {
            value_bytes: 16,
            reads: 0.0,
            commands_per_slot: 1.0,
            gateways: 200.0,
            leader: 100.0,
            proxied_message: 100.0 / 6.0,
            vote: 20.0,
            replica: 59.0,
            busiest: 0.6,
        };
        assert_eq!(Costs::of(&figures()).unwrap(), expected);
    }

    #[test]
    fn costs_are_those_of_a_whole_cluster_that_works() {
        let refused = |change: fn(&mut Figures)| {
            let mut figures = figures();
            change(&mut figures);
            Costs::of(&figures).unwrap_err()
        };
        assert!(refused(|it| it.cluster = None).contains("--connect"));
        assert!(refused(|it| it.unreplicated = true).contains("--unreplicated"));
        assert_eq!(refused(|it| drop(it.roles.pop())), "has 0 of 1 roles of the kind replica");
        assert!(refused(|it| it.roles[0].cpu_ns_per_command = 0.0).contains("no cost"));
        assert!(refused(|it| it.operations = 0).contains("no cost"));
        let killed = refused(|it| {
            it.cluster.as_mut().unwrap().killed = Some("replica 1".to_owned());
        });
        assert_eq!(killed, "was measured without replica 1, which was killed");
    }

    #[test]
    fn costs_of_cores_with_little_to_do_are_told_to_be_too_high() {
        assert!(!costs().to_string().contains("busy"));
        let idle = Costs { busiest: 0.04, ..costs() };
        assert!(
            idle.to_string()
                .ends_with("no core was more than 4 % busy: with more to do, a command costs less")
        );
    }

    #[test]
    fn rates_are_read_and_told() {
        assert_eq!(["2M", "500k", "7"].map(|text| rate(text).unwrap()), [2e6, 500e3, 7.0]);
        assert_eq!(
            [12.0, 2e6, 533_333.0, 45_600.0].map(told),
            ["12.0", "2.00 M", "533 k", "45.6 k"]
        );
        assert_eq!([999.4, 999.9, 999_999.0].map(told), ["999", "1.00 k", "1.00 M"]);
        for wrong in ["", "M", "2G", "0", "-1", "NaN", "inf", "1kM", "1e300"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
