//! `[placement]`: which role lives on which core.

use std::collections::BTreeMap;

use loggos_protocol::{RoleId, Settings};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Report;
use super::roles::read_role;
use super::value::number;

/// The roles and cores of the other sections, as far as these have no mistake.
#[derive(Debug)]
pub(super) struct Room<'a> {
    /// `None` if a mistake elsewhere leaves them unknown.
    pub(super) settings: Option<&'a Settings>,
    pub(super) cores: Cores<'a>,
}

/// The number of cores to choose from.
#[derive(Debug)]
pub(super) enum Cores<'a> {
    /// A mistake elsewhere leaves it unknown.
    Unknown,
    /// That number, for every role.
    All(usize),
    /// Those of a role's node, where that is known.
    OfNodes(&'a BTreeMap<RoleId, usize>),
}

/// Reads which role goes to which core.
pub(super) fn read_placement(
    table: &DeTable<'_>,
    room: &Room<'_>,
    report: &mut Report<'_>,
) -> BTreeMap<RoleId, usize> {
    let mut placement = BTreeMap::new();
    let mut spelled: BTreeMap<RoleId, &str> = BTreeMap::new();
    // In the order of the text, so that it is the second spelling that is refused.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let role = read_role(name.get_ref(), room.settings, report);
        let core = read_core(value, &room.cores, role.as_ref().ok(), report);
        let role = match role {
            Ok(role) => role,
            Err(unread) => {
                report.add(&name.span(), unread.what);
                continue;
            }
        };
        if let Some(first) = spelled.get(&role) {
            let what = format!("`{}` is `{first}` once more: name it once", name.get_ref());
            report.add(&name.span(), what);
            continue;
        }
        spelled.insert(role, name.get_ref());
        if let Some(core) = core {
            placement.insert(role, core);
        }
    }
    placement
}

fn read_core(
    value: &Spanned<DeValue<'_>>,
    cores: &Cores<'_>,
    role: Option<&RoleId>,
    report: &mut Report<'_>,
) -> Option<usize> {
    let (count, whose) = match cores {
        Cores::Unknown => (None, ""),
        Cores::All(count) => (Some(*count), ""),
        Cores::OfNodes(counts) => (role.and_then(|role| counts.get(role)).copied(), " of its node"),
    };
    let most = count.and_then(|count| u32::try_from(count - 1).ok());
    match number::<u32>(value.get_ref(), 0..=most.unwrap_or(u32::MAX)) {
        Ok(core) => Some(core as usize),
        Err(what) => {
            let what = format!("a role's core, an index into `cpus`{whose}, {what}");
            report.add(&value.span(), what);
            None
        }
    }
}
