//! The first words on a connection: what this core says, and which senders it refuses, and why.
//!
//! ```text
//!   hello of a peer, client or status request
//!      │ another build, cluster or configuration? (R3) another formation? (R4) too many clients?
//!      │ a node, core or gateway that is not here?                                        ──▶ Refusal
//!      ▼
//!   for another core of this node? ──────────────────────────▶ Admission::Elsewhere, which judges it again
//!      │
//!      ▼
//!   its log an older copy of one that was seen? (R33)                                      ──▶ Refusal
//!      │
//!      ▼
//!   Admission::Here ──▶ Welcome
//! ```
//!
//! It touches no socket, so that tests can hand it any hello.

use std::time::Duration;

use loggos_net::wire::{self, Hello, LogPosition, Purpose, Reason, Refusal, WIRE_VERSION, Welcome};
use loggos_protocol::FormationId;
use tracing::warn;

use super::budget::COMMANDS_MAX;
use super::connections::{Party, STATUS_MAX};
use super::links::Remote;
use super::sightings::Sightings;

/// The identity of this core, to other nodes and to clients.
#[derive(Clone, Debug)]
pub(crate) struct NodeIdentity {
    pub(crate) cluster_name: String,
    /// The digest of the properties that all nodes must share: quorums, f, windows (R3), and the
    /// place of every role.
    pub(crate) digest: u64,
    pub(crate) node: u8,
    pub(crate) core: u8,
    /// The last core of this node.
    pub(crate) core_last: u8,
    /// Drawn at each start: another nonce of the same core shows that it has started again.
    pub(crate) nonce: u64,
    /// The core whose gateway serves clients, if this node has one.
    pub(crate) gateway_core: Option<u8>,
    pub(crate) command_bytes_max: u32,
    /// The most commands of a session without an answer (R23).
    pub(crate) session_window: u32,
    pub(crate) frame_bytes_max: u32,
    /// The most clients that are connected at once.
    pub(crate) clients_max: usize,
    /// The most connections that have not said what they are.
    pub(crate) strangers_max: usize,
}

/// The knowledge of this core by which it judges a hello.
#[derive(Debug)]
pub(super) struct Handshake {
    identity: NodeIdentity,
    /// The formation that roles of this core belong to, once they know of one (R4).
    formation: Option<FormationId>,
    /// The position of this core's log (R33); `None` if it has no log, or one that has stopped.
    log: Option<LogPosition>,
    /// The last known positions of the logs of other cores.
    sightings: Sightings,
    /// For how long the cluster has not served the gateway of this core, if it does not (R37).
    unserved: Option<Duration>,
    /// The nodes that were refused so far, and why: each is reported once.
    refused_nodes: Vec<(u8, Reason)>,
}

/// The connections of a core that were welcomed, but for its peers'.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Parties {
    pub(super) clients: usize,
    /// Those that ask for the status.
    pub(super) asking: usize,
}

/// The decision on a hello that is not refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// The sender is welcome on this core.
    Here(Party),
    /// The connection belongs to another core of this node.
    Elsewhere { core: u8 },
}

impl Handshake {
    /// Returns one that remembers up to `logs_max` logs of other cores.
    pub(super) fn new(identity: NodeIdentity, logs_max: usize) -> Self {
        let sightings = Sightings::new(logs_max);
        let (formation, log, unserved, refused_nodes) = (None, None, None, Vec::new());
        Self { identity, formation, log, sightings, unserved, refused_nodes }
    }

    pub(super) fn clients_max(&self) -> usize {
        self.identity.clients_max
    }

    pub(super) fn strangers_max(&self) -> usize {
        self.identity.strangers_max
    }

    pub(super) fn frame_bytes_max(&self) -> u32 {
        self.identity.frame_bytes_max
    }

    pub(super) fn formation(&self) -> Option<FormationId> {
        self.formation
    }

    /// Names the formation that roles of this core belong to: the first one, for good.
    pub(super) fn set_formation(&mut self, formation: Option<FormationId>) {
        self.formation = self.formation.or(formation);
    }

    pub(super) fn log(&self) -> Option<LogPosition> {
        self.log
    }

    pub(super) fn set_log(&mut self, log: Option<LogPosition>) {
        self.log = log;
    }

    pub(super) fn is_unserved(&self) -> bool {
        self.unserved.is_some()
    }

    /// Takes in for how long the cluster has not served the gateway of this core, if it does not.
    pub(super) fn set_unserved(&mut self, unserved: Option<Duration>) {
        self.unserved = unserved;
    }

    /// Decides what becomes of a connection that begins with `hello`, while this core has `parties`
    /// that are none of its peers. Where the sender's log stands is remembered if the connection
    /// stays on this core.
    ///
    /// # Errors
    ///
    /// If it is refused: the refusal says why.
    ///
    /// source: R3, R4, R33, R37
    pub(super) fn judge(&mut self, hello: &Hello, parties: Parties) -> Result<Admission, Refusal> {
        self.refuse_foreign(hello)?;
        let ours = &self.identity;
        let (party, core) = match hello.purpose {
            Purpose::Peer { to_node, .. } if to_node != ours.node => {
                let text =
                    format!("this is node {}, not the node {to_node} that was called", ours.node);
                return refused(Reason::Node, text);
            }
            Purpose::Peer { to_core, .. } if to_core > ours.core_last => {
                return refused(Reason::Node, format!("this node has no core {to_core}"));
            }
            Purpose::Peer { from_node: node, to_core, .. } => {
                (Party::Peer { node, life: hello.nonce }, to_core)
            }
            Purpose::Status if parties.asking >= STATUS_MAX => {
                let text = format!("{STATUS_MAX} others ask for the status already");
                return refused(Reason::Busy, text);
            }
            Purpose::Client => match ours.gateway_core {
                Some(_) if parties.clients >= ours.clients_max => {
                    let text = format!("{} clients are connected already", ours.clients_max);
                    return refused(Reason::Busy, text);
                }
                Some(core) => (Party::Client, core),
                None => {
                    let text = "this node has no gateway: connect to one that has";
                    return refused(Reason::Node, text.to_owned());
                }
            },
            Purpose::Status => (Party::Status, ours.core),
        };
        if core != ours.core {
            return Ok(Admission::Elsewhere { core });
        }
        if let Some(log) = hello.log {
            self.see(hello.nonce, log)?;
        }
        if let (Party::Client, Some(unserved)) = (party, self.unserved) {
            return Err(not_served(unserved));
        }
        Ok(Admission::Here(party))
    }

    /// Refuses a hello of another build, cluster, configuration or formation.
    ///
    /// source: R3, R4
    fn refuse_foreign(&self, hello: &Hello) -> Result<(), Refusal> {
        let ours = &self.identity;
        if hello.wire_digest != wire::wire_digest() {
            return Err(other_wire());
        }
        let is_peer = matches!(hello.purpose, Purpose::Peer { .. });
        if hello.cluster_name != ours.cluster_name && (is_peer || !hello.cluster_name.is_empty()) {
            let text =
                format!("this is cluster `{}`, not `{}`", ours.cluster_name, hello.cluster_name);
            return refused(Reason::Cluster, text);
        }
        if is_peer && hello.cluster_digest != ours.digest {
            let text = "the configurations differ: roles, limits, nodes or placement";
            return refused(Reason::Digest, text.to_owned());
        }
        if let (Some(theirs), Some(our)) = (hello.formation, self.formation)
            && theirs != our
        {
            let text = format!(
                "this node belongs to formation {our} of the cluster, not {theirs}: one of the two has lost \
                 its memory"
            );
            return refused(Reason::Formation, text);
        }
        Ok(())
    }

    /// Remembers where another core's log stands, in that `life` of the core.
    ///
    /// # Errors
    ///
    /// If it is an older copy of a log that was seen before.
    ///
    /// source: R33
    pub(super) fn see(&mut self, life: u64, log: LogPosition) -> Result<(), Refusal> {
        self.sightings
            .see(life, log)
            .map_err(|older| Refusal { reason: Reason::Older, text: older.to_string() })
    }

    /// Returns the hello to a core of another node.
    pub(super) fn hello(&self, to: &Remote) -> Hello {
        Hello {
            wire_digest: wire::wire_digest(),
            versions: (WIRE_VERSION, WIRE_VERSION),
            cluster_name: self.identity.cluster_name.clone(),
            cluster_digest: self.identity.digest,
            formation: self.formation,
            nonce: self.identity.nonce,
            log: self.log,
            purpose: Purpose::Peer {
                from_node: self.identity.node,
                from_core: self.identity.core,
                to_node: to.node,
                to_core: to.core,
            },
        }
    }

    /// Returns the welcome of `party`. Only a peer is told where our log stands.
    pub(super) fn welcome(&self, party: Party) -> Welcome {
        Welcome {
            version: WIRE_VERSION,
            nonce: self.identity.nonce,
            formation: self.formation,
            log: self.log.filter(|_| matches!(party, Party::Peer { .. })),
            commands_in_flight_max: u32::try_from(COMMANDS_MAX)
                .expect("a few thousand")
                .min(self.identity.session_window),
            command_bytes_max: self.identity.command_bytes_max,
        }
    }

    /// Reports that a node is refused: once for each reason, since that node calls again and again.
    pub(super) fn report_refused(&mut self, node: u8, refusal: &Refusal) {
        let refused = (node, refusal.reason);
        if !self.refused_nodes.contains(&refused) {
            warn!(node, reason = refusal.text, "refused a node");
            self.refused_nodes.push(refused);
        }
    }
}

/// Returns the refusal of a hello in other versions than ours, of which only these can be read.
pub(super) fn other_versions(min: u8, max: u8) -> Refusal {
    let text = format!("this process speaks wire version {WIRE_VERSION}, not {min} to {max}");
    Refusal { reason: Reason::Version, text }
}

/// Returns the refusal of clients whose gateway is not served.
///
/// source: R37
pub(super) fn not_served(unserved: Duration) -> Refusal {
    let text =
        format!("the cluster has not served this gateway for {:.1} s", unserved.as_secs_f64());
    Refusal { reason: Reason::Unserved, text }
}

/// Returns the refusal of a hello in our version whose messages are laid out otherwise.
pub(super) fn other_wire() -> Refusal {
    let text = "the same wire version with another message layout: use one build";
    Refusal { reason: Reason::Wire, text: text.to_owned() }
}

fn refused<T>(reason: Reason, text: String) -> Result<T, Refusal> {
    Err(Refusal { reason, text })
}

#[cfg(test)]
mod tests;
