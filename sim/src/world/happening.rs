//! What happens in a world, and when.

use loggos_protocol::{Envelope, GatewayId, Incarnation, RoleId, Time, To};

use crate::store::Work;

#[derive(Debug)]
pub(super) struct Scheduled {
    pub(super) at: Time,
    /// In which order it was made: breaks ties.
    pub(super) made: u64,
    pub(super) what: Happening,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Happening {
    Deliver(RoleId, Envelope),
    Release(RoleId, Incarnation, Vec<To>),
    Disk(RoleId, Incarnation, Work),
    Snapshot(RoleId, Incarnation),
    Wake(RoleId),
    Resume(RoleId),
    Submit(GatewayId),
    Fault,
    Gone(RoleId, RoleId),
    Restart(RoleId),
    Operate,
    Heal,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.made) == (other.at, other.made)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.made).cmp(&(other.at, other.made))
    }
}
