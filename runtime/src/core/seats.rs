//! The seats of a core, each for one role; and the lives of these roles.

use std::collections::VecDeque;

use loggos_protocol::{Envelope, Incarnation, Life, Replica, Role, RoleId, StateMachine, Time};

use super::Core;
use crate::random::random_u64;
use crate::status::Traffic;

/// Messages that wait for a role that is paused; what exceeds them is dropped and sent again by its
/// sender (R29).
const INBOX_MESSAGES_MAX: usize = 1 << 16;

/// A role's place on a core.
pub(super) struct Seat<M> {
    pub(super) id: RoleId,
    /// `None` while the role is down: killed, retired, about to start over, or without a log that
    /// serves.
    pub(super) role: Option<Role<M>>,
    /// Whether it is to start over, once what its former life has under way with the log is
    /// settled.
    is_to_start: bool,
    pub(super) inbox: VecDeque<Envelope>,
    /// It takes nothing in before then.
    pub(super) paused_until: Option<Time>,
    pub(super) traffic: Traffic,
    /// Clock cycles that it was busy for. Never goes down.
    pub(super) cycles: u64,
}

impl<M> Seat<M> {
    /// Returns an empty seat.
    pub(super) fn new(id: RoleId) -> Self {
        Self {
            id,
            role: None,
            is_to_start: false,
            inbox: VecDeque::new(),
            paused_until: None,
            traffic: Traffic::default(),
            cycles: 0,
        }
    }

    /// Puts a message in the inbox; returns how many more are pending for that: none while the role
    /// is paused.
    pub(super) fn take_in(&mut self, envelope: Envelope) -> usize {
        if self.paused_until.is_some() && self.inbox.len() >= INBOX_MESSAGES_MAX {
            self.traffic.dropped += 1;
            return 0;
        }
        self.inbox.push_back(envelope);
        usize::from(self.paused_until.is_none())
    }
}

impl<M: StateMachine> Core<M> {
    /// The seat of a role, if that lives on this core.
    pub(super) fn seat_of(&self, id: RoleId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.id == id)
    }

    /// Ends the life of a role; it will not hear of what it has under way with the log.
    pub(super) fn end_life(&mut self, id: RoleId) {
        let Some(index) = self.seat_of(id) else { return };
        let seat = &mut self.seats[index];
        (seat.role, seat.is_to_start) = (None, false);
        match id {
            RoleId::Acceptor(id) => self.log.iter_mut().for_each(|log| log.end_life(id)),
            RoleId::Replica(id) => self.snapshots.iter_mut().for_each(|it| it.end_life(id)),
            RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => {}
        }
    }

    /// Ends the life of a role, and begins the next as soon as the former is settled.
    pub(super) fn restart(&mut self, id: RoleId, now: Time) {
        self.end_life(id);
        if let Some(index) = self.seat_of(id) {
            self.seats[index].is_to_start = true;
        }
        self.start_over(now);
    }

    /// Starts the roles that are to start over, where their former lives are settled: what such a
    /// life has appended to the log is durable, and of the snapshots that it was writing nothing is
    /// left.
    pub(super) fn start_over(&mut self, now: Time) {
        for index in 0..self.seats.len() {
            let Seat { id, is_to_start, .. } = self.seats[index];
            let is_settled = match (&self.log, id) {
                (Some(log), RoleId::Acceptor(acceptor)) => log.is_settled(acceptor),
                (_, RoleId::Replica(replica)) => {
                    self.snapshots.as_ref().is_none_or(|it| it.is_settled(replica))
                }
                (_, _) => true,
            };
            if is_to_start && is_settled {
                self.seats[index].is_to_start = false;
                self.begin_life(index, now);
            }
        }
    }

    /// Starts the role of a seat.
    pub(super) fn begin_life(&mut self, index: usize, now: Time) {
        self.seats[index].role = self.make(self.seats[index].id, now);
        if let Some(Role::Replica(replica)) = &mut self.seats[index].role {
            replica.on_start(now, &mut self.out);
            self.post(index);
        }
    }

    /// Makes a role: a durable acceptor with what its log says, unless that has failed; a durable
    /// replica with what is in its directory; any other with a blank memory.
    ///
    /// source: R2, R4, R34
    fn make(&self, id: RoleId, now: Time) -> Option<Role<M>> {
        let (cluster, seed) = (self.cluster.clone(), random_u64());
        if let (Some(log), RoleId::Acceptor(id)) = (&self.log, id) {
            let mut acceptor = log.restart(cluster, id, seed)?;
            acceptor.on_start(now);
            return Some(Role::Acceptor(Box::new(acceptor)));
        }
        let life = Life { incarnation: Incarnation(random_u64()), seed };
        if let RoleId::Replica(id) = id
            && let Some(found) = self.snapshots.as_ref().and_then(|it| it.found(id))
        {
            let machine = (self.factory)(id);
            let replica = Replica::durable(cluster, id, life.incarnation, machine, found);
            return Some(Role::Replica(Box::new(replica)));
        }
        Some(Role::start(cluster, id, life, now, |replica| (self.factory)(replica)))
    }
}
