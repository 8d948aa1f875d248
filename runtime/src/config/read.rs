//! Reads a configuration.

use std::collections::BTreeMap;

use loggos_protocol::{ClusterSettings, Settings, SettingsError};
use toml::de::DeTable;

use super::cores::{IdleKind, read_cpus, read_idle};
use super::durability::read_durability;
use super::error::{ConfigError, Report};
use super::given::{Given, GivenKey};
use super::keys::{self, Draft, Kind};
use super::nodes::read_nodes;
use super::placement::{Cores, Room, read_placement};
use super::quorums::{read_f, read_quorums};
use super::value::{NUMBER_MAX, bytes, long_bytes, name, number, shown, time};
use super::{Config, NAME, standard_grid};
use crate::idle::Idle;

/// Reads `text` for a process that may use the processor cores `usable`.
pub(super) fn read(text: &str, usable: &[usize]) -> Result<Config, Vec<ConfigError>> {
    let mut report = Report::new(text);
    let (root, broken) = DeTable::parse_recoverable(text);
    for error in broken {
        report.add_broken(error.span().unwrap_or_default(), error.message());
    }
    let given = Given::new(root.get_ref(), &mut report);
    let f = read_f(&given, &mut report);
    let quorums = read_quorums(&given, f, &mut report);
    // Where these are mistaken no cluster comes of it, but the rest can still be looked at.
    let settings = Settings::new(f.unwrap_or(1), quorums.unwrap_or_else(standard_grid));
    let mut draft = Draft::new(settings);
    draft.fill(&given, &mut report);
    let durability = read_durability(&given, &mut report);
    let name = read_name(&given, &mut report);
    let idle = read_idle(&given, &mut report);
    let cluster = draft.check(&given, &mut report);

    let is_known = report.is_toml() && !report.is_mistaken("f");
    let settings = is_known.then_some(&draft.settings);
    let nodes = read_nodes(&given, settings, usable, durability, &mut report);
    let cpus = match &nodes {
        None => read_cpus(&given, usable, &mut report),
        Some(_) => None,
    };
    let cores = match (&nodes, &cpus) {
        (Some(nodes), _) if report.is_toml() => Cores::OfNodes(&nodes.cores),
        (None, Some(cpus)) if report.is_toml() => Cores::All(cpus.len()),
        (Some(_) | None, _) => Cores::Unknown,
    };
    let room = Room { settings, cores };
    let placement = match given.placement {
        Some(table) => read_placement(table, &room, &mut report),
        None => BTreeMap::new(),
    };
    let (Some(cluster), true) = (cluster, report.is_empty()) else {
        return Err(report.finish());
    };
    let mut config = match nodes {
        Some(nodes) => {
            let (nodes, placement) = nodes.finish(&placement);
            Config { nodes, placement, cpus: Vec::new(), ..Config::on_cpus(cluster, vec![0]) }
        }
        None => {
            let cpus = cpus.unwrap_or_else(|| usable.to_vec());
            let mut config = Config::on_cpus(cluster, cpus);
            config.placement.extend(placement);
            config
        }
    };
    config.name = name;
    config.durability = durability;
    config.log = draft.log;
    config.deadline = draft.deadline;
    config.mailbox_messages_max = draft.mailbox_messages_max as usize;
    config.idle = match idle {
        IdleKind::Adaptive => Idle::Adaptive { poll_idle: draft.poll_idle },
        IdleKind::Poll => Idle::Poll,
        IdleKind::Park => Idle::Park,
    };
    Ok(config)
}

impl Draft {
    /// Takes in all plain values that are given.
    fn fill(&mut self, given: &Given<'_>, report: &mut Report<'_>) {
        for entry in given.entries.values() {
            if let Err(what) = self.set(entry) {
                report.add_mistaken(entry.key.name, &entry.value.span(), &what);
            }
        }
    }

    fn set(&mut self, entry: &GivenKey<'_>) -> Result<(), String> {
        let value = entry.value.get_ref();
        match entry.key.kind {
            Kind::Count(place) => *place(self) = number(value, 0..=u8::MAX.into())?,
            Kind::Number(place) => *place(self) = number(value, 0..=NUMBER_MAX)?,
            Kind::Bytes(place) => *place(self) = bytes(value)?,
            Kind::LongBytes(place) => *place(self) = long_bytes(value)?,
            Kind::Time(place) => *place(self) = time(value)?,
            Kind::Own(_) => {}
        }
        Ok(())
    }

    /// Checks that the values go together; none if they make no cluster.
    fn check(&mut self, given: &Given<'_>, report: &mut Report<'_>) -> Option<ClusterSettings> {
        let mut errors = Vec::new();
        if self.deadline.is_zero() {
            errors
                .push(SettingsError { setting: "deadline", what: "must be above zero".to_owned() });
        }
        if !self.deadline.is_zero() && self.settings.batch_delay >= self.deadline {
            let what = format!("must be below deadline = {:?}", self.deadline);
            errors.push(SettingsError { setting: "batch_delay", what });
        }
        if self.mailbox_messages_max == 0 {
            let what = "must be at least 1".to_owned();
            errors.push(SettingsError { setting: "mailbox_messages_max", what });
        }
        errors.extend(self.log.problems(self.settings.batch_bytes_max));
        let cluster = self.settings.clone().check();
        let cluster = cluster.map_err(|contradictions| errors.extend(contradictions)).ok();
        // What was not understood contradicts nothing.
        if report.is_toml() && !report.is_mistaken("f") {
            for error in errors {
                if !report.is_mistaken(error.setting) && !report.names_mistaken(&error.what) {
                    let what = self.contradiction(&error, given);
                    report.add(&given.place_of(error.setting), what);
                }
            }
        }
        cluster
    }

    fn contradiction(&mut self, error: &SettingsError, given: &Given<'_>) -> String {
        let SettingsError { setting, what } = error;
        let is_default = given.entry(setting).is_none();
        match keys::find(setting).filter(|_| is_default).and_then(|key| key.shown(self)) {
            Some(default) => format!("`{setting}`, by default {default}: {what}"),
            None => format!("`{setting}`: {what}"),
        }
    }
}

/// Reads `name`; the default if it is mistaken.
fn read_name(given: &Given<'_>, report: &mut Report<'_>) -> String {
    let Some(entry) = given.entry("name") else { return NAME.to_owned() };
    let value = entry.value.get_ref();
    let text = value.as_str();
    let checked = text.map_or_else(
        || Err(format!("must be a string such as \"{NAME}\", not {}", shown(value))),
        name,
    );
    if let Err(what) = checked {
        report.add_mistaken("name", &entry.value.span(), &what);
    }
    text.unwrap_or(NAME).to_owned()
}
