//! The sections and keys of a configuration's text, and the mistakes in their names.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Report, instead};
use super::keys::{self, Key, NODE_KEYS, NODES, PLACEMENT, SECTIONS};
use super::value::shown;

/// The known sections and keys of a text, with their values.
#[derive(Debug, Default)]
pub(super) struct Given<'t> {
    sections: BTreeMap<&'static str, Range<usize>>,
    pub(super) entries: BTreeMap<&'static str, GivenKey<'t>>,
    pub(super) nodes: Option<&'t DeTable<'t>>,
    pub(super) placement: Option<&'t DeTable<'t>>,
}

/// A key and its value in a text.
#[derive(Debug)]
pub(super) struct GivenKey<'t> {
    pub(super) key: &'static Key,
    pub(super) at: Range<usize>,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Given<'t> {
    pub(super) fn new(root: &'t DeTable<'t>, report: &mut Report<'_>) -> Self {
        let mut given = Self::default();
        for (name, value) in root.iter() {
            let Some(section) = SECTIONS.iter().find(|section| section.name == name.get_ref())
            else {
                report.add(&name.span(), unknown_section(name.get_ref()));
                continue;
            };
            given.sections.insert(section.name, name.span());
            let Some(table) = value.get_ref().as_table() else {
                let (name, shown) = (section.name, shown(value.get_ref()));
                let what = format!("`{name}` must be a section, written [{name}], not {shown}");
                report.add(&value.span(), what);
                continue;
            };
            match section.name {
                NODES => given.nodes = Some(table),
                PLACEMENT => given.placement = Some(table),
                section => given.add_section(section, table, report),
            }
        }
        given
    }

    fn add_section(
        &mut self,
        section: &'static str,
        table: &'t DeTable<'t>,
        report: &mut Report<'_>,
    ) {
        for (name, value) in table.iter() {
            match keys::find(name.get_ref()) {
                Some(key) if key.section == section => {
                    self.entries.insert(key.name, GivenKey { key, at: name.span(), value });
                }
                Some(key) => report.add(&name.span(), misplaced(key)),
                None if is_of_nodes(name.get_ref()) => {
                    report.add(&name.span(), in_a_node(name.get_ref()));
                }
                None => {
                    let hint = instead(name.get_ref(), keys::names_in(section));
                    let what = format!("unknown key `{}` in [{section}]; {hint}", name.get_ref());
                    report.add(&name.span(), what);
                }
            }
        }
    }

    /// Returns the entry of `key`, if the text has it.
    pub(super) fn entry(&self, key: &str) -> Option<&GivenKey<'t>> {
        self.entries.get(key)
    }

    /// Returns the place of `section`; or the beginning of the text.
    pub(super) fn section(&self, section: &str) -> Range<usize> {
        self.sections.get(section).cloned().unwrap_or_default()
    }

    /// Returns the place of `key`; or of its section, if it has none; or the beginning of the text.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        let section = || self.sections.get(keys::find(key)?.section);
        self.entry(key).map(|entry| &entry.at).or_else(section).cloned().unwrap_or_default()
    }
}

fn unknown_section(name: &str) -> String {
    match keys::find(name) {
        Some(key) => misplaced(key),
        None if is_of_nodes(name) => in_a_node(name),
        None => {
            let hint = instead(name, SECTIONS.iter().map(|section| section.name));
            format!("unknown section `{name}`; {hint}")
        }
    }
}

fn is_of_nodes(key: &str) -> bool {
    NODE_KEYS.iter().any(|known| known.name == key)
}

/// Returns the message about a key that is in another section than its own.
pub(super) fn misplaced(key: &Key) -> String {
    format!("`{}` belongs in [{}]", key.name, key.section)
}

/// Returns the message about a node's key that is outside the nodes' tables.
pub(super) fn in_a_node(key: &str) -> String {
    format!("`{key}` belongs in the table of a node, such as [nodes.a]")
}
