//! `[nodes]`: which processes there are, and which role lives in which.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use loggos_protocol::{ProposerId, ProxyLeaderId, RoleId, Settings};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::cores::read_cpu_list;
use super::error::{Report, instead};
use super::given::{Given, in_a_node, misplaced};
use super::keys::{self, NODE_KEYS};
use super::roles::{Meant, read_role, roles_to_name};
use super::spread::spread_in_node;
use super::value::{name, shown};
use super::{Durability, NodeConfig};
use crate::Address;

/// The most nodes of a cluster.
pub(super) const NODES_MAX: usize = 64;

/// The nodes of a text, as far as they are right.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    /// In order of name once they are whole.
    nodes: Vec<NodeConfig>,
    /// The node of each role, an index into `nodes`.
    homes: BTreeMap<RoleId, usize>,
    /// The number of cores that each role can choose from, where that is known.
    pub(super) cores: BTreeMap<RoleId, usize>,
    /// Proxy leaders that no node names: each lives with its proposer.
    implied: Vec<ProxyLeaderId>,
}

/// The nodes as far as they have been read.
struct Reading<'a> {
    settings: Option<&'a Settings>,
    usable: &'a [usize],
    nodes: Nodes,
    /// The node of each address. An IPv4 address is the same however it is written.
    addresses: BTreeMap<Address, String>,
    /// The node of each data directory of each machine.
    folders: BTreeMap<(String, PathBuf), String>,
    durability: Option<Durability>,
    /// Roles that are not missing, since a word that is no role was probably meant to be one of
    /// them.
    meant: BTreeSet<RoleId>,
    /// Whether it is known of all such words which role they were meant to be.
    is_meant_known: bool,
}

/// Reads the nodes, each with all cores that are `usable` here unless it names its own; none if the
/// text has no nodes.
///
/// Where `settings` are not known, for a mistake elsewhere, no role is missing.
pub(super) fn read_nodes(
    given: &Given<'_>,
    settings: Option<&Settings>,
    usable: &[usize],
    durability: Option<Durability>,
    report: &mut Report<'_>,
) -> Option<Nodes> {
    let table = given.nodes.filter(|table| !table.is_empty())?;
    let mut reading = Reading {
        settings,
        usable,
        nodes: Nodes::default(),
        addresses: BTreeMap::new(),
        folders: BTreeMap::new(),
        durability,
        meant: BTreeSet::new(),
        is_meant_known: true,
    };
    // In the order of the text, so that it is the second of two that is refused.
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (index, (name, value)) in entries.into_iter().enumerate() {
        if index == NODES_MAX {
            let what = format!("more than {NODES_MAX} nodes: a cluster has at most as many");
            report.add(&name.span(), what);
        }
        reading.read_node(name, value, report);
    }
    if let Some(entry) = given.entry("cpus") {
        let what = "`cpus` in [cores] is for one process: here are [nodes], so write it in the table \
                    of each node";
        let first = table.iter().next().map(|(name, _)| header(name.get_ref()));
        report.add(&entry.at, format!("{what}, such as {}", first.unwrap_or_default()));
    }
    reading.add_implied(report);
    reading.check_complete(given, report);
    Some(reading.nodes)
}

impl Reading<'_> {
    fn read_node(
        &mut self,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        report: &mut Report<'_>,
    ) {
        let node = key.get_ref().as_ref();
        let Some(table) = value.get_ref().as_table() else {
            self.is_meant_known = false;
            let what = if NODE_KEYS.iter().any(|key| key.name == node) {
                in_a_node(node)
            } else {
                let (header, shown) = (header(node), shown(value.get_ref()));
                format!("a node must be a table, written {header}, not {shown}")
            };
            report.add(&key.span(), what);
            return;
        };
        if let Err(what) = name(node) {
            report.add(&key.span(), format!("a node's name {what}"));
        }
        for (other, value) in table.iter() {
            if NODE_KEYS.iter().all(|key| key.name != other.get_ref()) {
                let what = unknown_key(node, other.get_ref(), value.get_ref());
                report.add(&other.span(), what);
            }
        }
        let address = self.read_address(node, key, table, report);
        let cpus = match table.get("cpus") {
            Some(value) => read_cpu_list(value, None, report),
            None => Some(self.usable.to_vec()),
        };
        let data = table.get("data").and_then(|value| {
            let data = read_data(value, report)?;
            self.check_folder(node, address.as_ref(), &data)
                .unwrap_or_else(|what| report.add(&value.span(), what));
            Some(data)
        });
        let roles = self.read_roles(key, table, report);
        let is_durable = roles.iter().any(is_durable);
        if self.durability == Some(Durability::Sync) && is_durable && !table.contains_key("data") {
            let what = format!(
                "`data` is missing in {}: with durability = \"sync\" its acceptors and replicas need a \
                 directory, such as \"data/{node}\"",
                header(node)
            );
            add_missing(key, what, report);
        }
        let index = self.nodes.nodes.len();
        for role in &roles {
            self.nodes.homes.insert(*role, index);
            self.nodes.cores.extend(cpus.as_ref().map(|cpus| (*role, cpus.len())));
        }
        self.nodes.nodes.push(NodeConfig {
            name: node.to_owned(),
            // If any of these is mistaken, no configuration comes of it.
            address: address.unwrap_or_else(|| SocketAddr::from(([0; 4], 0)).into()),
            cpus: cpus.unwrap_or_default(),
            roles,
            data,
        });
    }

    fn read_address(
        &mut self,
        node: &str,
        key: &Spanned<Cow<'_, str>>,
        table: &DeTable<'_>,
        report: &mut Report<'_>,
    ) -> Option<Address> {
        let Some(value) = table.get("address") else {
            let what = format!(
                "`address` is missing in {}: where it listens, such as \"127.0.0.1:7401\"",
                header(node)
            );
            add_missing(key, what, report);
            return None;
        };
        let address = read_address(value.get_ref());
        let address = address.and_then(|address| {
            let canonical = |ip: SocketAddr| SocketAddr::new(ip.ip().to_canonical(), ip.port());
            let place = address.ip().map_or_else(|| address.clone(), |ip| canonical(ip).into());
            match self.addresses.get(&place) {
                Some(first) => Err(format!(
                    "{address} is the address of node `{first}` already: each needs its own"
                )),
                None => {
                    self.addresses.insert(place, node.to_owned());
                    Ok(address)
                }
            }
        });
        address.map_err(|what| report.add(&value.span(), format!("`address` {what}"))).ok()
    }

    /// Checks that no other node of the same machine keeps its data there.
    fn check_folder(
        &mut self,
        node: &str,
        address: Option<&Address>,
        data: &Path,
    ) -> Result<(), String> {
        let Some(address) = address else { return Ok(()) };
        let machine = address.machine();
        let parts = data.components().filter(|part| *part != Component::CurDir);
        match self.folders.entry((machine, parts.collect())) {
            Entry::Occupied(first) => Err(format!(
                "`data` is that of node `{}` already, on the same machine: each needs its own",
                first.get()
            )),
            Entry::Vacant(place) => {
                place.insert(node.to_owned());
                Ok(())
            }
        }
    }

    /// Reads the roles of the node that is named at `key`, without those that another has already.
    fn read_roles(
        &mut self,
        key: &Spanned<Cow<'_, str>>,
        table: &DeTable<'_>,
        report: &mut Report<'_>,
    ) -> Vec<RoleId> {
        let node = key.get_ref().as_ref();
        let wanted = "an array of at least one role, such as [\"acceptor 0\", \"replica 0\"]";
        let Some(value) = table.get("roles") else {
            self.is_meant_known = false;
            let what = format!("`roles` is missing in {}: {wanted}", header(node));
            add_missing(key, what, report);
            return Vec::new();
        };
        let array = value.get_ref().as_array();
        let Some(array) = array.filter(|array| !array.is_empty()) else {
            self.is_meant_known &= array.is_some();
            let not = array.map_or_else(|| shown(value.get_ref()), |_| "an empty one".to_owned());
            report.add(&value.span(), format!("`roles` must be {wanted}, not {not}"));
            return Vec::new();
        };
        let mut roles = BTreeSet::new();
        for item in array.iter() {
            match self.read_role(item, report) {
                Ok(role) => {
                    let first =
                        self.nodes.homes.get(&role).map(|home| &self.nodes.nodes[*home].name);
                    let first = first.map(String::as_str);
                    match first.or_else(|| roles.contains(&role).then_some(node)) {
                        Some(first) => {
                            let what = format!(
                                "`{role}` is in node `{first}` already: each role lives in one node"
                            );
                            report.add(&item.span(), what);
                        }
                        None => {
                            roles.insert(role);
                        }
                    }
                }
                Err(what) => report.add(&item.span(), what),
            }
        }
        roles.into_iter().collect()
    }

    fn read_role(
        &mut self,
        item: &Spanned<DeValue<'_>>,
        report: &Report<'_>,
    ) -> Result<RoleId, String> {
        let Some(text) = item.get_ref().as_str() else {
            self.is_meant_known = false;
            let shown = shown(item.get_ref());
            return Err(format!("a role must be a string such as \"acceptor 0\", not {shown}"));
        };
        let read = read_role(text, self.settings, report);
        match read.as_ref().map_or_else(|unread| unread.meant, |role| Meant::Role(*role)) {
            Meant::Role(role) => {
                self.meant.insert(role);
            }
            Meant::Another => {}
            Meant::Unknown => self.is_meant_known = false,
        }
        read.map_err(|unread| unread.what)
    }

    /// Adds proxy leaders that no node names to the nodes of their proposers, where each proposer
    /// has one.
    fn add_implied(&mut self, report: &Report<'_>) {
        let is_known = !report.is_mistaken("proxy_leaders") && !report.is_mistaken("proposers");
        let Some(settings) =
            self.settings.filter(|settings| settings.proxy_leaders == 0 && is_known)
        else {
            return;
        };
        for id in 0..settings.proposers {
            let (proposer, proxy_leader) = of_one(id);
            let is_named = self.meant.contains(&proxy_leader);
            let home = self.nodes.homes.get(&proposer).copied().filter(|_| !is_named);
            if let Some(home) = home {
                let roles = &mut self.nodes.nodes[home].roles;
                let at = roles.partition_point(|role| *role < proxy_leader);
                roles.insert(at, proxy_leader);
                self.nodes.homes.insert(proxy_leader, home);
                let cores = self.nodes.cores.get(&proposer).copied();
                self.nodes.cores.extend(cores.map(|cores| (proxy_leader, cores)));
                self.nodes.implied.push(ProxyLeaderId(id));
            }
        }
    }

    /// Reports every role that is in no node, unless it may be one that was not understood.
    fn check_complete(&self, given: &Given<'_>, report: &mut Report<'_>) {
        let Some(settings) = self.settings.filter(|_| self.is_meant_known) else { return };
        let is_missing = |role: &RoleId| !self.meant.contains(role);
        let missing: Vec<_> = roles_to_name(settings, report).filter(is_missing).collect();
        for role in missing {
            let what = format!("`{role}` is in no node: name it in the `roles` of one");
            report.add(&given.section("nodes"), what);
        }
    }
}

impl Nodes {
    /// Returns the nodes in order of name, and the core of each role: as `placed`, else spread over
    /// the cores of its node. All must have been right.
    pub(super) fn finish(
        mut self,
        placed: &BTreeMap<RoleId, usize>,
    ) -> (Vec<NodeConfig>, BTreeMap<RoleId, usize>) {
        let mut placement = BTreeMap::new();
        for node in &self.nodes {
            let is_implied = |role: &RoleId| match role {
                RoleId::ProxyLeader(id) => self.implied.contains(id),
                RoleId::Gateway(_)
                | RoleId::Proposer(_)
                | RoleId::Acceptor(_)
                | RoleId::Replica(_) => false,
            };
            let named: Vec<_> =
                node.roles.iter().copied().filter(|role| !is_implied(role)).collect();
            placement.extend(spread_in_node(&named, node.cpus.len()));
        }
        placement.extend(placed);
        for id in &self.implied {
            let (proposer, proxy_leader) = of_one(id.0);
            let core = placement[&proposer];
            placement.entry(proxy_leader).or_insert(core);
        }
        self.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        (self.nodes, placement)
    }
}

/// A proposer and the proxy leader that is its own where the cluster has none.
fn of_one(id: u8) -> (RoleId, RoleId) {
    (RoleId::Proposer(ProposerId(id)), RoleId::ProxyLeader(ProxyLeaderId(id)))
}

/// Reports what a node lacks, where all that it has is known.
fn add_missing(key: &Spanned<Cow<'_, str>>, what: String, report: &mut Report<'_>) {
    if report.is_toml() {
        report.add(&key.span(), what);
    }
}

fn read_address(value: &DeValue<'_>) -> Result<Address, String> {
    let address = value.as_str().and_then(|text| text.parse::<Address>().ok());
    let address = address.ok_or_else(|| {
        let shown = shown(value);
        format!("must be a host and a port, such as \"127.0.0.1:7401\", not {shown}")
    })?;
    if address.port() == 0 {
        return Err("must have a port other than 0: others connect to it".to_owned());
    }
    if let Some(ip) = address.ip().map(|ip| ip.ip()).filter(|ip| ip.is_unspecified()) {
        return Err(format!("must be one that others can connect to, not {ip}"));
    }
    Ok(address)
}

/// Whether a role needs a data directory where the cluster is durable.
pub(super) fn is_durable(role: &RoleId) -> bool {
    matches!(role, RoleId::Acceptor(_) | RoleId::Replica(_))
}

fn read_data(value: &Spanned<DeValue<'_>>, report: &mut Report<'_>) -> Option<PathBuf> {
    let path = value.get_ref().as_str().filter(|path| !path.is_empty() && !path.contains('\0'));
    if path.is_none() {
        let shown = shown(value.get_ref());
        let what =
            format!("`data` must be the path of a directory, such as \"data/a\", not {shown}");
        report.add(&value.span(), what);
    }
    path.map(PathBuf::from)
}

fn unknown_key(node: &str, key: &str, value: &DeValue<'_>) -> String {
    let header = header(node);
    if key == "name" {
        return format!("a node's name is that of its table: {header}");
    }
    if let Some(key) = keys::find(key) {
        return misplaced(key);
    }
    let hint = instead(key, NODE_KEYS.iter().map(|key| key.name));
    let dotted = match value {
        DeValue::Table(_) => format!("; a name with a dot is quoted: [nodes.\"{node}.{key}\"]"),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => String::new(),
    };
    format!("unknown key `{key}` in {header}; {hint}{dotted}")
}

/// Returns the heading of a node's table.
fn header(node: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !node.is_empty() && node.bytes().all(is_bare) {
        format!("[nodes.{node}]")
    } else {
        format!("[nodes.\"{}\"]", node.escape_debug())
    }
}
