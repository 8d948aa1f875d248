//! Whether a cluster serves, by what its nodes have answered.
//!
//! ```text
//!   serving        every role is well
//!   degraded       gateways are served, and a role or a node is lost: what may be lost besides is told
//!   not serving    no gateway is served, and why, as far as that is known
//! ```
//!
//! source: R37

use std::fmt;

use serde_json::Value;

use super::survival::{Survival, is_good};

/// Whether a cluster serves, and what is wrong otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Serving,
    Degraded(Vec<String>),
    NotServing(Vec<String>),
    /// One node was asked, which has no gateway: its roles are well.
    Unknown,
}

impl Verdict {
    /// Judges by what `nodes` have answered, each with its name. Those of `silent` have not: what
    /// is said of each tells why. Of all nodes of the cluster also its `survival` is known.
    pub(crate) fn of(
        nodes: &[(String, Value)],
        silent: &[String],
        survival: Option<Survival>,
    ) -> Self {
        let roles = nodes.iter().flat_map(|(name, status)| {
            let roles = status["roles"].as_array().into_iter().flatten();
            roles.map(move |role| (name, role))
        });
        let (mut served, mut gateways) = (0, 0);
        let mut wrong = Vec::new();
        for (node, role) in roles {
            let name = role["role"].as_str().unwrap_or_default();
            if name.starts_with("gateway") {
                gateways += 1;
                served += usize::from(is_good(role));
            }
            if !is_good(role) {
                wrong.push(format!("{name} of node {node} {}", state(role)));
            } else if !role["transfer"].is_null() {
                wrong.push(format!("{name} of node {node} gets a snapshot"));
            }
        }
        for (node, status) in nodes {
            for core in status["silent_cores"].as_array().into_iter().flatten() {
                wrong.push(format!("core {core} of node {node} does not report"));
            }
        }
        wrong.extend_from_slice(silent);
        let mut too_few = survival.map(Survival::too_few).unwrap_or_default();
        too_few.retain(|kind| *kind != "gateways"); // each is told
        if !too_few.is_empty() {
            wrong.insert(0, format!("too few are left of: {}", too_few.join(", ")));
        }
        match (gateways, served) {
            (0, _) if survival.is_none() && wrong.is_empty() => Self::Unknown,
            (_, 0) => Self::NotServing(wrong),
            _ if wrong.is_empty() => Self::Serving,
            _ => Self::Degraded(wrong),
        }
    }

    /// The exit code of `status` that tells it.
    pub(crate) fn code(&self) -> Option<u8> {
        match self {
            Self::Serving | Self::Unknown => None,
            Self::Degraded(_) => Some(crate::exit::DEGRADED),
            Self::NotServing(_) => Some(crate::exit::NOT_SERVING),
        }
    }

    /// One or two words.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Degraded(_) => "degraded",
            Self::NotServing(_) => "not serving",
            Self::Unknown => "unknown",
        }
    }

    /// What is wrong.
    pub(crate) fn reasons(&self) -> &[String] {
        match self {
            Self::Serving | Self::Unknown => &[],
            Self::Degraded(wrong) | Self::NotServing(wrong) => wrong,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        if *self == Self::Unknown {
            f.write_str(": this node has no gateway; its roles are well")?;
        }
        let reasons = self.reasons();
        if reasons.is_empty() { Ok(()) } else { write!(f, ": {}", reasons.join("; ")) }
    }
}

/// What is wrong with a role, in words that follow its name.
fn state(role: &Value) -> String {
    let is_gateway = role["role"].as_str().is_some_and(|name| name.starts_with("gateway"));
    match (role["state"].as_str(), role["unserved_ms"].as_u64(), role["halted"].as_str()) {
        (Some("unserved"), Some(time), _) => {
            format!("has not been served for {}.{} s", time / 1000, time % 1000 / 100)
        }
        (Some("halted"), _, _) if is_gateway => "has no replica left that goes on".to_owned(),
        (Some("halted"), _, Some(why)) => format!("has halted: {why}"),
        (state, ..) => format!("is {}", state.unwrap_or("of another version")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, roles: &[(&str, &str)]) -> (String, Value) {
        let role = |(role, state): &(&str, &str)| {
            let unserved_ms = (*state == "unserved").then_some(2345);
            json!({"role": role, "state": state, "unserved_ms": unserved_ms})
        };
        (name.to_owned(), json!({ "roles": roles.iter().map(role).collect::<Vec<_>>() }))
    }

    #[test]
    fn a_cluster_serves_whose_gateways_are_served() {
        let well = node("a", &[("gateway 0", "up"), ("proposer 0", "leads"), ("replica 0", "up")]);
        let verdict = |nodes: &[&(String, Value)], silent: &[String]| {
            let nodes: Vec<_> = nodes.iter().copied().cloned().collect();
            let verdict = Verdict::of(&nodes, silent, None);
            (verdict.code(), verdict.to_string())
        };
        assert_eq!(verdict(&[&well], &[]), (None, "serving".to_owned()));
        let low = node("b", &[("gateway 1", "unserved"), ("acceptor 1", "log low")]);
        let wrong =
            "gateway 1 of node b has not been served for 2.3 s; acceptor 1 of node b is log low";
        assert_eq!(verdict(&[&well, &low], &[]), (Some(4), format!("degraded: {wrong}")));
        assert_eq!(verdict(&[&low], &[]), (Some(5), format!("not serving: {wrong}")));
        let silent = ["node c at 127.0.0.1:1: connection refused".to_owned()];
        let lost = |word: &str| format!("{word}: {}", silent[0]);
        assert_eq!(verdict(&[&well], &silent), (Some(4), lost("degraded")));
        assert_eq!(verdict(&[], &silent), (Some(5), lost("not serving")));
        let mut halted = node("a", &[("gateway 0", "halted"), ("replica 0", "halted")]);
        halted.1["roles"][1]["halted"] = json!("the state machine panicked");
        let expected = "not serving: gateway 0 of node a has no replica left that goes on; \
                        replica 0 of node a has halted: the state machine panicked";
        assert_eq!(verdict(&[&halted], &[]), (Some(5), expected.to_owned()));
        let mut hung = well.clone();
        hung.1["silent_cores"] = json!([1]);
        let expected = "degraded: core 1 of node a does not report";
        assert_eq!(verdict(&[&hung], &[]), (Some(4), expected.to_owned()));
        let mut behind = node("e", &[("replica 1", "up")]);
        behind.1["roles"][0]["transfer"] = json!({"donor": "replica 0"});
        let expected = "degraded: replica 1 of node e gets a snapshot";
        assert_eq!(verdict(&[&well, &behind], &[]), (Some(4), expected.to_owned()));
        let mut silent_gateway = node("d", &[("acceptor 2", "up")]);
        silent_gateway.1["silent_cores"] = json!([0]);
        assert_eq!(verdict(&[&silent_gateway], &[]).0, Some(5));
        let one = node("d", &[("acceptor 2", "up")]);
        assert_eq!(verdict(&[&one], &[]).0, None, "it has no gateway, and is well");
    }
}
