//! How many more losses of each kind of role a running cluster survives.

use std::fmt;

use loggos_protocol::{AcceptorId, AcceptorSet, ClusterSettings};
use serde_json::{Value, json};

/// The number of further losses of each kind of role that the cluster survives, whichever they are;
/// `None` where it works no more, or not for all clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Survival {
    gateways: Option<u32>,
    proposers: Option<u32>,
    proxy_leaders: Option<u32>,
    acceptors: Option<u32>,
    replicas: Option<u32>,
}

impl Survival {
    /// Judges by what the nodes have answered: a role whose node did not counts as lost.
    ///
    /// A replica counts if it could bring up the others: what acceptors have forgotten it has
    /// executed and, where replicas have disks, holds in a durable snapshot (R16). f + 1 of them
    /// must be left, or acceptors may forget nothing.
    pub(crate) fn of(cluster: &ClusterSettings, nodes: &[(String, Value)]) -> Self {
        let roles: Vec<&Value> =
            nodes.iter().filter_map(|(_, status)| status["roles"].as_array()).flatten().collect();
        let good = |kind: &str| -> Vec<(&Value, u8)> {
            let name = |role: &Value| {
                let (of, id) = role["role"].as_str()?.rsplit_once(' ')?;
                (of == kind).then(|| id.parse().ok()).flatten()
            };
            let good = roles.iter().copied().filter(|role| is_good(role));
            good.filter_map(|role| Some((role, name(role)?))).collect()
        };
        let beyond = |kind: &str, least: u8| -> Option<u32> {
            u32::try_from(good(kind).len()).ok()?.checked_sub(least.into())
        };
        let acceptors = good("acceptor");
        let mark = |role: &Value, key: &str| role[key].as_u64().unwrap_or(0);
        let forgotten = acceptors.iter().map(|(role, _)| mark(role, "truncated")).max();
        let are_durable =
            good("replica").iter().any(|(role, _)| mark(role, "snapshot_watermark") > 0);
        let key = if are_durable { "snapshot_watermark" } else { "executed_watermark" };
        let whole =
            good("replica").iter().filter(|(it, _)| Some(mark(it, key)) >= forgotten).count();
        let left: AcceptorSet = acceptors.iter().map(|(_, id)| AcceptorId(*id)).collect();
        Self {
            gateways: beyond("gateway", 1),
            proposers: beyond("proposer", 1),
            proxy_leaders: beyond("proxy leader", 1),
            acceptors: cluster.quorums.losses_survived(left),
            replicas: u32::try_from(whole)
                .ok()
                .and_then(|it| it.checked_sub(u32::from(cluster.f) + 1)),
        }
    }

    /// The kinds of role of which too few are left.
    pub(crate) fn too_few(self) -> Vec<&'static str> {
        let kinds = self.kinds().into_iter();
        kinds.filter(|(_, count)| count.is_none()).map(|(kind, _)| kind).collect()
    }

    fn kinds(self) -> [(&'static str, Option<u32>); 5] {
        [
            ("gateways", self.gateways),
            ("proposers", self.proposers),
            ("proxy leaders", self.proxy_leaders),
            ("acceptors", self.acceptors),
            ("replicas", self.replicas),
        ]
    }

    pub(crate) fn to_json(self) -> Value {
        let Self { gateways, proposers, proxy_leaders, acceptors, replicas } = self;
        json!({
            "gateways": gateways,
            "proposers": proposers,
            "proxy_leaders": proxy_leaders,
            "acceptors": acceptors,
            "replicas": replicas,
        })
    }
}

/// Whether a role does all that it is there for.
pub(crate) fn is_good(role: &Value) -> bool {
    ["up", "leads", "follows"].contains(&role["state"].as_str().unwrap_or_default())
}

impl fmt::Display for Survival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        let survived =
            kinds.iter().filter_map(|(kind, count)| Some(format!("{} {kind}", (*count)?)));
        let survived = survived.collect::<Vec<_>>().join(", ");
        write!(f, "survives the loss of {survived} more, of each kind by itself")?;
        let too_few = self.too_few().join(", ");
        if too_few.is_empty() { Ok(()) } else { write!(f, "; too few are left of: {too_few}") }
    }
}

#[cfg(test)]
mod tests {
    use loggos::Config;

    use super::*;

    /// The standard cluster, a grid of 2 x 2, with these roles in these states.
    fn survival(states: &[(&str, Value)]) -> Survival {
        let config = Config::standard();
        let roles = config.placement.keys().map(|role| {
            let name = role.to_string();
            let given = states.iter().find(|(of, _)| *of == name).map(|(_, state)| state.clone());
            let mut role = given.unwrap_or_else(|| {
                json!({"state": "up", "truncated": 10, "executed_watermark": 20, "snapshot_watermark": 10})
            });
            role["role"] = json!(name);
            role
        });
        let status = json!({ "roles": roles.collect::<Vec<_>>() });
        Survival::of(&config.cluster, &[("all".to_owned(), status)])
    }

    #[test]
    fn a_whole_cluster_survives_f_of_each() {
        let whole = survival(&[]);
        let counts = (whole.proposers, whole.proxy_leaders, whole.acceptors, whole.replicas);
        assert_eq!(counts, (Some(1), Some(1), Some(1), Some(1)));
        assert_eq!(whole.gateways, Some(0), "there is one");
        assert!(whole.to_string().contains("0 gateways, 1 proposers"), "{whole}");
    }

    #[test]
    fn what_is_down_or_behind_does_not_count() {
        let down = json!({"state": "down"});
        let behind = json!({"state": "up", "executed_watermark": 20, "snapshot_watermark": 9});
        let lost = survival(&[
            ("acceptor 3", down.clone()),
            ("replica 0", behind),
            ("replica 1", down.clone()),
            ("gateway 0", down),
        ]);
        assert_eq!((lost.acceptors, lost.replicas, lost.gateways), (Some(0), None, None));
        assert!(lost.to_string().ends_with("too few are left of: gateways, replicas"), "{lost}");
    }
}
