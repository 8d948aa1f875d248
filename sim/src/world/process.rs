//! A process: a role, its clock, and what waits for it.

use loggos_protocol::{Incarnation, Role, Time};

use super::happening::Happening;
use crate::clock::Clock;
use crate::recorder::Recorder;

#[derive(Debug)]
pub(super) struct Process {
    /// `None` while it is down.
    pub(super) role: Option<Role<Recorder>>,
    pub(super) incarnation: Incarnation,
    pub(super) clock: Clock,
    /// What arrived while it was paused.
    pub(super) backlog: Vec<Happening>,
    pub(super) paused_until: Option<Time>,
    pub(super) wake_at: Option<Time>,
    /// Syncs that are under way.
    pub(super) releases: u32,
}

impl Process {
    /// Whether it is a proposer that leads, as it sees it.
    pub(super) fn leads(&self) -> bool {
        match &self.role {
            Some(Role::Proposer(proposer)) => proposer.is_leading(),
            Some(
                Role::Gateway(_) | Role::ProxyLeader(_) | Role::Acceptor(_) | Role::Replica(_),
            )
            | None => false,
        }
    }
}
