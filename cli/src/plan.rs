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
use std::path::PathBuf;

use clap::Args;
use loggos::{QuorumSystem, Settings};
use serde::Deserialize;

use crate::bench;
use crate::exit;

/// The part of a core that a role may have: beyond that, commands wait for one another.
const BUSY_MAX: f64 = 0.8;

/// The options of `plan`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Commands a second, such as 2M or 500k.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    target: f64,
    /// Losses of each role to survive.
    #[arg(long, value_name = "F", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=7))]
    faults: u8,
    /// Bytes of a value.
    #[arg(long, value_name = "B", default_value_t = 16, conflicts_with = "costs", value_parser = clap::value_parser!(u32).range(bench::SIZES))]
    size: u32,
    /// Commands in a batch: 512 where callers have as many in flight, 1 where none waits for
    /// another.
    #[arg(long, value_name = "N", default_value_t = 512, conflicts_with = "costs", value_parser = clap::value_parser!(u32).range(1..=512))]
    batch: u32,
    /// What roles cost: the figures that `loggos bench --json` has written, of any cluster. By
    /// default puts are measured in this process, which takes some seconds; roles in processes of
    /// their own cost more.
    #[arg(long, value_name = "FILE")]
    costs: Option<PathBuf>,
}

/// Measures, plans and tells.
pub(crate) fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let report = match &options.costs {
        Some(file) => {
            let text =
                std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            serde_json::from_slice(&text).map_err(|error| {
                format!("{}: no figures of `loggos bench`: {error}", file.display())
            })?
        }
        None => bench::measure_here(options.size, options.batch)?,
    };
    let costs = Costs::of(&report)?;
    let plan = Plan::new(&costs, options.faults, options.target)?;
    let place = options.costs.as_ref().map_or_else(
        || "in this process".to_owned(),
        |file| format!("as {} has it", file.display()),
    );
    write!(exit::stdout(), "measured {place}: {costs}\n\n{plan}")?;
    match plan.answer {
        Some(_) => Ok(()),
        None => Err(plan.limit().into()),
    }
}

/// The part of a benchmark's figures that a plan is made from.
#[derive(Debug, Deserialize)]
pub(crate) struct Figures {
    operations: u64,
    load: LoadFigures,
    roles: Vec<RoleFigures>,
    cores: Vec<CoreFigures>,
}

#[derive(Debug, Deserialize)]
struct LoadFigures {
    value_bytes: u32,
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
    messages_in_per_slot: f64,
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
}

impl Costs {
    /// # Errors
    ///
    /// If nothing was measured, or a kind of role is missing.
    fn of(figures: &Figures) -> Result<Self, String> {
        if figures.operations == 0 {
            return Err("nothing was measured: no operation was answered".to_owned());
        }
        let of_kind = |kind: &str| {
            let is_one = move |role: &&RoleFigures| {
                role.role.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))
            };
            let roles: Vec<_> = figures.roles.iter().filter(is_one).collect();
            let costs: Vec<_> = roles.iter().map(|role| figures.cost(role)).collect();
            let heard: f64 = roles.iter().map(|role| role.messages_in_per_slot).sum();
            if roles.is_empty() {
                Err(format!("there is no {kind} in it"))
            } else {
                Ok((costs, heard))
            }
        };
        let sum = |costs: &[f64]| costs.iter().sum::<f64>();
        let (gateways, _) = of_kind("gateway")?;
        let (proposers, _) = of_kind("proposer")?;
        let (replicas, _) = of_kind("replica")?;
        let (acceptors, asked) = of_kind("acceptor")?;
        // The votes of a slot are the messages that acceptors get for it; a few others pass for
        // none.
        let votes = asked.round().max(1.0);
        let (proxy_leaders, _) = of_kind("proxy leader")?;
        Ok(Self {
            value_bytes: figures.load.value_bytes,
            commands_per_slot: figures.load.commands_per_slot,
            gateways: sum(&gateways),
            leader: proposers.iter().copied().fold(0.0, f64::max),
            proxied_message: sum(&proxy_leaders) / proxied_messages(votes, as_f64(replicas.len())),
            vote: sum(&acceptors) / votes,
            replica: sum(&replicas) / as_f64(replicas.len()),
        })
    }
}

impl Figures {
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
        Self { faults, gateways: 1, proxy_leaders: 0, rows: faults + 1 }
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

    /// Why the target cannot be reached.
    fn limit(&self) -> String {
        let last = self.steps.last().expect("there is the smallest");
        let why = match last.bottleneck {
            Kind::Leader => "the leader gives every slot its number, and there is but one",
            Kind::Replica => "every replica executes every command",
            Kind::Gateway | Kind::ProxyLeader | Kind::Acceptor => "there can be no more of them",
        };
        format!(
            "{} commands/s are out of reach, {} is the most: {why}. Larger batches take fewer slots; cheaper \
             commands or several clusters divide what replicas do",
            told(self.target),
            told(last.rate)
        )
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value_bytes, commands_per_slot, gateways, leader, vote, replica, .. } = self;
        write!(
            f,
            "{value_bytes}-byte values, {commands_per_slot:.1} commands a slot\n\
             ns a command: gateways {gateways:.1}, leader {leader:.1}, a message at a proxy leader {:.1}, a vote \
             {vote:.1}, a replica {replica:.1}",
            self.proxied_message
        )
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
                Some(answer) if answer + 1 == number => "what the next one buys".to_owned(),
                _ => String::new(),
            };
            writeln!(f, "{}", format!("{row} {note}").trim_end())?;
        }
        writeln!(
            f,
            "\neach role on a core of its own, at most {:.0} % busy; - : the leader is its own proxy",
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
    let (rate, unit) = match rate {
        rate if rate < 1e3 => (rate, ""),
        rate if rate < 1e6 => (rate / 1e3, " k"),
        rate => (rate / 1e6, " M"),
    };
    let digits = usize::from(rate < 100.0) + usize::from(rate < 10.0);
    format!("{rate:.digits$}{unit}")
}

fn rate(text: &str) -> Result<f64, String> {
    let digits = text.trim_end_matches(['k', 'M']);
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        _ => return Err("is a number, or one of thousands or millions as in 500k or 2M".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{text}` is not a number such as 2M"))?;
    let rate = number * factor;
    if rate >= 1.0 && rate.is_finite() { Ok(rate) } else { Err("must be at least 1".to_owned()) }
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
            commands_per_slot: 1.0,
            gateways: 3000.0,
            leader: 2000.0,
            proxied_message: 1000.0,
            vote: 2000.0,
            replica: 1500.0,
        }
    }

    #[test]
    fn a_plan_takes_the_system_apart_as_the_paper_does() {
        let plan = Plan::new(&costs(), 1, 399e3).unwrap();
        let bottlenecks: Vec<_> = plan.steps.iter().map(|step| step.bottleneck).collect();
        let expected = [
            Kind::Leader,      // with all that its proxies would do: 2 + 8 µs
            Kind::ProxyLeader, // two: 4 µs
            Kind::Gateway,     // three proxies 2.7 µs, the gateway 3
            Kind::ProxyLeader, // two gateways 1.5
            Kind::Leader,      // four proxies 2 µs, as much as the leader
        ];
        assert_eq!(bottlenecks[..4], expected[..4], "{plan}");
        assert!(plan.steps.is_sorted_by(|a, b| a.rate <= b.rate), "{plan}");
        assert_eq!(plan.steps[0].rate.round(), 80_000.0, "a leader of 10 µs is 80 % busy");
        assert_eq!(plan.answer, Some(4), "{plan}");
        assert_eq!(plan.steps[4].shape.proxy_leaders, 4, "{plan}");
    }

    #[test]
    fn what_cannot_be_divided_is_named() {
        let plan = Plan::new(&costs(), 1, 5e6).unwrap();
        assert!(plan.answer.is_none(), "{plan}");
        assert!(
            plan.limit().contains("400 k is the most: the leader gives every slot"),
            "{}",
            plan.limit()
        );
        let batched = Costs { leader: 1.0, proxied_message: 1.0, vote: 1.0, ..costs() };
        let plan = Plan::new(&batched, 1, 5e6).unwrap();
        assert!(
            plan.limit().contains("533 k is the most: every replica executes"),
            "{}",
            plan.limit()
        );
        let text = plan.to_string();
        assert!(
            text.contains("2             -       2x2        3    11      533 k  replica\n"),
            "{text}"
        );
    }

    #[test]
    fn the_cost_of_a_role_has_its_share_of_its_core() {
        let role = |name: &str, core, cpu_ns_per_command, messages_in_per_slot| RoleFigures {
            role: name.to_owned(),
            node: None,
            core,
            cpu_ns_per_command,
            messages_in_per_slot,
        };
        let core = |core, busy, callers_ns_per_command| CoreFigures {
            node: None,
            core,
            busy,
            callers_ns_per_command,
        };
        let figures = Figures {
            operations: 1_000_000,
            load: LoadFigures { value_bytes: 16, duration_s: 1.0, commands_per_slot: 1.0 },
            roles: vec![
                role("gateway 0", 0, 100.0, 1.0),
                role("proposer 0", 0, 50.0, 1.0),
                role("proposer 1", 1, 1.0, 0.0),
                role("proxy leader 0", 0, 50.0, 3.0),
                role("acceptor 0", 1, 20.0, 1.02),
                role("acceptor 1", 1, 20.0, 1.02),
                role("replica 0", 1, 59.0, 1.0),
            ],
            // 600 ns a command, of which 200 are the callers': twice what roles say of themselves.
            cores: vec![core(0, 0.6, 200.0), core(1, 0.1, 0.0)],
        };
        let expected = Costs {
            value_bytes: 16,
            commands_per_slot: 1.0,
            gateways: 200.0,
            leader: 100.0,
            proxied_message: 100.0 / 6.0,
            vote: 20.0,
            replica: 59.0,
        };
        assert_eq!(Costs::of(&figures).unwrap(), expected);
        let none = Figures { operations: 0, ..figures };
        assert!(Costs::of(&none).unwrap_err().starts_with("nothing was measured"));
    }

    #[test]
    fn rates_are_read_and_told() {
        assert_eq!(["2M", "500k", "7"].map(|text| rate(text).unwrap()), [2e6, 500e3, 7.0]);
        assert_eq!(
            [12.0, 2e6, 533_333.0, 45_600.0].map(told),
            ["12.0", "2.00 M", "533 k", "45.6 k"]
        );
        for wrong in ["", "M", "2G", "0", "-1", "NaN", "inf", "1kM"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
