//! `[placement]`: which role lives on which core.

use std::collections::BTreeMap;

use loggos_protocol::{
    AcceptorId, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, RoleId, Settings,
};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Report, nearest};
use super::value::number;

/// A kind of role.
struct Kind {
    name: &'static str,
    /// The setting that says how many there are.
    setting: &'static str,
    role: fn(u8) -> RoleId,
    count: fn(&Settings) -> u8,
}

static KINDS: [Kind; 5] = [
    Kind {
        name: "gateway",
        setting: "gateways",
        role: |id| RoleId::Gateway(GatewayId(id)),
        count: |settings| settings.gateways,
    },
    Kind {
        name: "proposer",
        setting: "proposers",
        role: |id| RoleId::Proposer(ProposerId(id)),
        count: |settings| settings.proposers,
    },
    Kind {
        name: "proxy leader",
        setting: "proxy_leaders",
        role: |id| RoleId::ProxyLeader(ProxyLeaderId(id)),
        count: |settings| match settings.proxy_leaders {
            // Each proposer has one then.
            0 => settings.proposers,
            count => count,
        },
    },
    Kind {
        name: "acceptor",
        setting: "quorums",
        role: |id| RoleId::Acceptor(AcceptorId(id)),
        count: |settings| settings.quorums.acceptors_count(),
    },
    Kind {
        name: "replica",
        setting: "replicas",
        role: |id| RoleId::Replica(ReplicaId(id)),
        count: |settings| settings.replicas,
    },
];

/// What the other sections say of roles and cores, as far as they are right.
#[derive(Debug)]
pub(super) struct Room<'a> {
    /// None if nobody knows, for a mistake elsewhere.
    pub(super) settings: Option<&'a Settings>,
    /// None if nobody knows, for a mistake elsewhere.
    pub(super) cores: Option<usize>,
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
        let core = read_core(value, room, report);
        let role = match read_role(name.get_ref(), room, report) {
            Ok(role) => role,
            Err(what) => {
                report.add(&name.span(), what);
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
    room: &Room<'_>,
    report: &mut Report<'_>,
) -> Option<usize> {
    let most = room.cores.and_then(|cores| u32::try_from(cores - 1).ok());
    match number::<u32>(value.get_ref(), 0..=most.unwrap_or(u32::MAX)) {
        Ok(core) => Some(core as usize),
        Err(what) => {
            report.add(&value.span(), format!("a role's core, an index into `cpus`, {what}"));
            None
        }
    }
}

fn read_role(text: &str, room: &Room<'_>, report: &Report<'_>) -> Result<RoleId, String> {
    let words: Vec<_> = text.split_whitespace().collect();
    let is_number = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let number = words.last().filter(is_number);
    let name = words[..words.len() - usize::from(number.is_some())].join(" ");
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        let number = number.copied().unwrap_or("0");
        return Err(match nearest(&name, KINDS.iter().map(|kind| kind.name)) {
            Some(nearest) => format!("unknown role `{text}`; did you mean `{nearest} {number}`?"),
            None => format!(
                "unknown role `{text}`; roles are gateway, proposer, proxy leader, acceptor and \
                 replica, each with its number, such as `acceptor 3`"
            ),
        });
    };
    let Some(number) = number else {
        let name = kind.name;
        return Err(format!("`{text}` says not which {name}: add its number, such as `{name} 0`"));
    };
    let known = room.settings.filter(|_| !report.is_mistaken(kind.setting));
    // Where the count is not known, a number is as good as another.
    let count = known.map_or(u8::MAX, kind.count);
    let id = number.parse::<u8>().ok().filter(|id| *id < count);
    let id = id.ok_or_else(|| no_such_role(text, kind, known.map(kind.count)))?;
    Ok((kind.role)(id))
}

fn no_such_role(text: &str, kind: &Kind, count: Option<u8>) -> String {
    let name = kind.name;
    match count {
        None => {
            format!("there is no `{text}`: no cluster has more than `{name} 0` to `{name} 254`")
        }
        Some(1) => format!("there is no `{text}`: the cluster has only `{name} 0`"),
        Some(count) => format!(
            "there is no `{text}`: the cluster has {count} of this kind, `{name} 0` to `{name} {}`",
            count.saturating_sub(1),
        ),
    }
}
