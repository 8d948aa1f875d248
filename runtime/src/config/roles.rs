//! Roles as they are written: `proxy leader 1`.

use loggos_protocol::{
    AcceptorId, GatewayId, ProposerId, ProxyLeaderId, ReplicaId, RoleId, Settings,
};

use super::error::{Report, nearest};

/// A kind of role.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    /// The setting that says how many there are.
    setting: &'static str,
    role: fn(u8) -> RoleId,
    count: fn(&Settings) -> u8,
}

/// A text that names no role of the cluster.
#[derive(Debug)]
pub(super) struct Unread {
    pub(super) what: String,
    pub(super) meant: Meant,
}

/// The meaning of a word that names no role of the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Meant {
    /// Probably this one.
    Role(RoleId),
    /// One that the cluster does not have.
    Another,
    /// Unknown.
    Unknown,
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

/// Reads a role of the cluster of `settings`; of any cluster, where these are not known.
pub(super) fn read_role(
    text: &str,
    settings: Option<&Settings>,
    report: &Report<'_>,
) -> Result<RoleId, Unread> {
    let words: Vec<_> = text.split_whitespace().collect();
    let is_number = |word: &&&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let number = words.last().filter(is_number);
    let name = words[..words.len() - usize::from(number.is_some())].join(" ");
    let known = |kind: &Kind| settings.filter(|_| !report.is_mistaken(kind.setting));
    // Where the count is not known, a number is as good as another.
    let role = |kind: &Kind, number: &str| {
        let count = known(kind).map_or(u8::MAX, kind.count);
        number.parse::<u8>().ok().filter(|id| *id < count).map(kind.role)
    };
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        let nearest = nearest(&name, KINDS.iter().map(|kind| kind.name));
        let Some(kind) = KINDS.iter().find(|kind| Some(kind.name) == nearest) else {
            let what = format!(
                "unknown role `{text}`; roles are gateway, proposer, proxy leader, acceptor and \
                 replica, each with its number, such as `acceptor 3`"
            );
            return Err(Unread { what, meant: Meant::Unknown });
        };
        let (nearest, shown) = (kind.name, number.copied().unwrap_or("0"));
        let meant = number.and_then(|number| role(kind, number));
        return Err(Unread {
            what: format!("unknown role `{text}`; did you mean `{nearest} {shown}`?"),
            meant: meant.map_or(Meant::Unknown, Meant::Role),
        });
    };
    let Some(number) = number else {
        let name = kind.name;
        let what = format!("`{text}` says not which {name}: add its number, such as `{name} 0`");
        return Err(Unread { what, meant: Meant::Unknown });
    };
    role(kind, number).ok_or_else(|| {
        let what = no_such_role(text, kind, known(kind).map(kind.count));
        Unread { what, meant: Meant::Another }
    })
}

/// All roles of the cluster of `settings` that a node must name, but for kinds whose number is
/// mistaken. Proxy leaders that proposers have of their own need not be named.
pub(super) fn roles_to_name<'a>(
    settings: &'a Settings,
    report: &'a Report<'_>,
) -> impl Iterator<Item = RoleId> + 'a {
    let kinds = KINDS.iter().filter(|kind| !report.is_mistaken(kind.setting));
    let roles = kinds.flat_map(|kind| (0..(kind.count)(settings)).map(kind.role));
    let is_own =
        |role: &RoleId| settings.proxy_leaders == 0 && matches!(role, RoleId::ProxyLeader(_));
    roles.filter(move |role| !is_own(role))
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
