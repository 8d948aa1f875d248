//! The adversary: draws what befalls the processes, their disks and their clocks.
//!
//! A fault is a series of [`Part`]s. The world draws the blow of each, if there is one, and
//! strikes it before the next is drawn: the leader may have changed by then.

use std::io::ErrorKind;
use std::time::Duration;

use loggos_protocol::{AcceptorId, AcceptorSet, QuorumSystem, Rng, RoleId, Time};
use loggos_storage::sim::Fault;

use crate::network::{ACCEPTORS, KINDS, PROPOSERS, REPLICAS, kind};
use crate::swarm::FaultPlan;

/// The parts of one fault, in the order in which they strike.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    DiskFailure,
    DiskHang,
    LifeEnd,
    SnapshotFailure,
    Outage,
    SleepingVoter,
    ClockJump,
    FalseEvidence,
}

/// A fault that strikes a role, or several.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    /// An acceptor's disk fails after so many operations.
    FailDisk { acceptor: RoleId, after: u64, fault: Fault },
    /// A replica's disk fails after so many operations.
    FailSnapshots { replica: RoleId, after: u64, fault: Fault },
    /// An acceptor's disk does nothing for a while.
    HangDisk { acceptor: RoleId, until: Time },
    /// The life of a durable acceptor ends, in a process that goes on.
    EndLife(RoleId),
    /// All processes crash.
    Blackout { down: Duration },
    /// A whole write quorum, or read quorum, is struck.
    Quorum { quorum: AcceptorSet, is_write: bool, down: Duration },
    /// A process crashes.
    Crash { id: RoleId, down: Duration },
    /// A process stands still.
    Pause { id: RoleId, down: Duration },
    /// A clock jumps ahead.
    SetClockAhead { id: RoleId, by: Duration },
    /// Other roles are told that a life has ended, which is false.
    SayGone(RoleId),
}

/// What the adversary sees of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) faults: &'a FaultPlan,
    pub(crate) quorums: QuorumSystem,
    /// All roles, in order.
    pub(crate) ids: &'a [RoleId],
    /// The first proposer that leads, as it sees it.
    pub(crate) leader: Option<RoleId>,
    pub(crate) now: Time,
}

/// The victim of one fault, and how long it is down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adversary {
    victim: RoleId,
    /// How long what is struck stands still, or is down.
    down: Duration,
}

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::DiskFailure,
        Self::DiskHang,
        Self::LifeEnd,
        Self::SnapshotFailure,
        Self::Outage,
        Self::SleepingVoter,
        Self::ClockJump,
        Self::FalseEvidence,
    ];
}

impl Adversary {
    /// Draws the victim of a fault.
    pub(crate) fn draw(view: &View<'_>, rng: &mut Rng) -> Self {
        let victim = view.draw_victim(rng);
        Self { victim, down: rng.up_to(view.faults.down_max) + Duration::from_millis(1) }
    }

    /// Draws the blow of a part.
    pub(crate) fn blow(&self, part: Part, view: &View<'_>, rng: &mut Rng) -> Option<Blow> {
        match part {
            Part::DiskFailure => view.draw_disk_failure(rng),
            Part::DiskHang => view.draw_disk_hang(rng),
            Part::LifeEnd => {
                let strikes = view.faults.disks.is_some() && rng.below(8) == 0;
                strikes.then(|| Blow::EndLife(view.draw_of(ACCEPTORS, rng)))
            }
            Part::SnapshotFailure => view.draw_snapshot_failure(rng),
            Part::Outage => Some(self.draw_outage(view, rng)),
            Part::SleepingVoter => {
                // An acceptor that sleeps through the election wakes up with votes that phase 1 has
                // not found.
                let strikes = kind(self.victim) == PROPOSERS && rng.below(2) == 0;
                let pause = |id| Blow::Pause { id, down: self.down };
                strikes.then(|| pause(view.draw_of(ACCEPTORS, rng)))
            }
            Part::ClockJump => (rng.below(4) == 0).then(|| {
                let id = *view.draw_from(view.ids, rng);
                Blow::SetClockAhead { id, by: rng.up_to(view.faults.clock_jump_max) }
            }),
            Part::FalseEvidence => {
                (rng.below(8) == 0).then(|| Blow::SayGone(view.draw_victim(rng)))
            }
        }
    }

    /// A crash or a pause: of all, of a quorum, or of the victim.
    fn draw_outage(&self, view: &View<'_>, rng: &mut Rng) -> Blow {
        let (id, down) = (self.victim, self.down);
        let blackout_percent = view.faults.disks.as_ref().map_or(0, |it| it.blackout_percent);
        if rng.below(100) < blackout_percent {
            Blow::Blackout { down }
        } else if rng.below(100) < view.faults.quorum_percent {
            view.draw_quorum(down, rng)
        } else if rng.below(100) < view.faults.crash_percent {
            Blow::Crash { id, down }
        } else {
            Blow::Pause { id, down }
        }
    }
}

impl View<'_> {
    /// Every third time it is the leader, if there is one: elections are where bugs hide. Else a
    /// kind of role is drawn first, so that few of a kind are hit as often as many.
    fn draw_victim(&self, rng: &mut Rng) -> RoleId {
        if let Some(leader) = self.leader.filter(|_| rng.below(3) == 0) {
            return leader;
        }
        let kind = usize::try_from(rng.below(KINDS)).unwrap_or(0);
        self.draw_of(kind, rng)
    }

    /// Draws a role of one kind.
    pub(crate) fn draw_of(&self, drawn: usize, rng: &mut Rng) -> RoleId {
        let alike: Vec<RoleId> = self.ids.iter().copied().filter(|id| kind(*id) == drawn).collect();
        *self.draw_from(&alike, rng)
    }

    fn draw_from<'b, T>(&self, all: &'b [T], rng: &mut Rng) -> &'b T {
        &all[usize::try_from(rng.below(all.len() as u64)).unwrap_or(0)]
    }

    /// A disk that fails soon, or takes its process down with it.
    fn draw_disk_failure(&self, rng: &mut Rng) -> Option<Blow> {
        let percent = self.faults.disks.as_ref().map_or(0, |it| it.failure_percent);
        (rng.below(100) < percent).then(|| {
            let (acceptor, after) = (self.draw_of(ACCEPTORS, rng), rng.below(6));
            let fault = match rng.below(2) {
                0 => Fault::Crash,
                _ => Fault::Error(ErrorKind::Other),
            };
            Blow::FailDisk { acceptor, after, fault }
        })
    }

    /// Likewise of a replica: it may also be full for a while.
    fn draw_snapshot_failure(&self, rng: &mut Rng) -> Option<Blow> {
        let percent = self.faults.disks.as_ref().map_or(0, |it| it.failure_percent);
        (rng.below(100) < percent).then(|| {
            let (replica, after) = (self.draw_of(REPLICAS, rng), rng.below(30));
            let fault = match rng.below(3) {
                0 => Fault::Crash,
                1 => Fault::Error(ErrorKind::StorageFull),
                _ => Fault::Error(ErrorKind::Other),
            };
            Blow::FailSnapshots { replica, after, fault }
        })
    }

    fn draw_disk_hang(&self, rng: &mut Rng) -> Option<Blow> {
        let disks = self.faults.disks.as_ref()?;
        (rng.below(100) < disks.hang_percent).then(|| {
            let acceptor = self.draw_of(ACCEPTORS, rng);
            Blow::HangDisk { acceptor, until: self.now + rng.up_to(disks.hang_max) }
        })
    }

    /// A quorum without an acceptor that it could do without: a row or a column of a grid.
    fn draw_quorum(&self, down: Duration, rng: &mut Rng) -> Blow {
        let is_write = rng.below(2) == 0;
        let is_quorum = |set: AcceptorSet| match is_write {
            true => self.quorums.is_write_quorum(set),
            false => self.quorums.is_read_quorum(set),
        };
        // Acceptors are left out where they can be, in an order that is drawn.
        let mut left: Vec<AcceptorId> = self.quorums.acceptors().iter().collect();
        let mut quorum = self.quorums.acceptors();
        while !left.is_empty() {
            let any = usize::try_from(rng.below(left.len() as u64)).unwrap_or(0);
            let acceptor = left.swap_remove(any);
            quorum.remove(acceptor);
            if !is_quorum(quorum) {
                quorum.insert(acceptor);
            }
        }
        Blow::Quorum { quorum, is_write, down }
    }
}
