//! The arrivals of a core's sockets, and their receivers.

use loggos_protocol::{Envelope, LoggedCommand, Role, RoleId, StateMachine, Time, To, ToProposer};
use tracing::{info, warn};

use super::Core;
use super::orders::Order;
use super::routes::Place;
use super::seats::Seat;
use crate::log::Log;
use crate::sockets::{Incoming, Sockets};

impl<M: StateMachine> Core<M> {
    /// Hands the sockets what has happened to connections, and takes from them what has come in;
    /// returns whether anything has.
    pub(super) fn poll_sockets(&mut self, now: Time) -> bool {
        let Some(sockets) = &mut self.sockets else {
            assert!(self.events.is_empty(), "a connection of a core without sockets");
            return false;
        };
        // Half of the room is left to callers of this process, if any wait.
        let room = self.callers.room() / if self.callers.has_work(now) { 2 } else { 1 };
        if sockets.formation().is_none() {
            let formation = |seat: &Seat<M>| seat.role.as_ref().and_then(Role::formation);
            sockets.set_formation(self.seats.iter().find_map(formation));
        }
        sockets.set_log(self.log.as_ref().and_then(Log::position));
        sockets.begin_tick(&mut self.ring, room, now);
        for event in self.events.drain(..) {
            sockets.on_event(&mut self.ring, event, now);
        }
        let mut has_incoming = false;
        while let Some(what) = self.sockets.as_mut().and_then(Sockets::next_incoming) {
            has_incoming = true;
            self.on_incoming(what, now);
        }
        has_incoming
    }

    /// Takes in what has come over the sockets.
    fn on_incoming(&mut self, what: Incoming, now: Time) {
        match what {
            Incoming::Envelope(envelope) => {
                // Not hosted here: the sender's configuration differs from ours.
                if let Some(Place::Here { .. }) = self.routes.place(envelope.to.role()) {
                    self.route(envelope);
                }
            }
            Incoming::Command { call, command } => {
                self.callers.submit_remote(call, command, now);
            }
            Incoming::Read { call, level, query } => {
                self.callers.read_remote(call, level, query, now);
            }
            Incoming::StatusRequest(from) => self.ask_status(from, now),
            Incoming::Skip(command) => self.skip(command),
            Incoming::HandOver { core, handed_over } => {
                if let Some(sibling) = self.siblings.get(usize::from(core)) {
                    sibling.order(Order::Adopt(handed_over));
                }
            }
            Incoming::Gone { link } => self.on_gone(link, now),
            Incoming::Outdated { why } => {
                self.log.iter_mut().for_each(|log| log.on_outdated(why.clone()));
                self.watch_log(); // before an acceptor of this core takes in what has come with it
            }
        }
    }

    /// Tells all proposers that an operator wants a command skipped: the leader sees to it, if that
    /// may be.
    ///
    /// source: R38
    fn skip(&mut self, command: LoggedCommand) {
        let formation = self.seats.iter().find_map(|seat| seat.role.as_ref()?.formation());
        for proposer in self.cluster.all_proposers() {
            self.route(Envelope {
                formation,
                to: To::Proposer(proposer, ToProposer::Skip(command)),
            });
        }
    }

    /// Tells clients, and the log, when the cluster serves the gateway no more, or again. What this
    /// core has not heard because it stood still itself shows nothing.
    ///
    /// source: R37
    pub(super) fn watch_service(&mut self, now: Time) {
        let Some(index) = self.gateway else { return };
        let Seat { id, role, .. } = &self.seats[index];
        let Some(Role::Gateway(gateway)) = role else { return self.callers.set_ready(false) };
        let unserved = gateway.unserved_for(now);
        self.callers.set_ready(gateway.session().is_some() && unserved.is_none());
        if unserved.is_some() && now.since(self.stood_still_at) < self.cluster.election_timeout {
            return;
        }
        let was_served = std::mem::replace(&mut self.is_served, unserved.is_none());
        match unserved {
            Some(time) if was_served => {
                warn!("{id}: the cluster has not served it for {:.1} s", time.as_secs_f64());
            }
            None if !was_served => info!("{id}: the cluster serves it again"),
            Some(_) | None => {}
        }
        if let Some(sockets) = &mut self.sockets {
            sockets.set_unserved(&mut self.ring, unserved);
        }
    }

    /// Tells the roles of this core that those behind a link have ended.
    ///
    /// source: R28, R29
    fn on_gone(&mut self, link: usize, now: Time) {
        let gone: Vec<RoleId> = self.routes.behind(link);
        for index in 0..self.seats.len() {
            let Seat { role: Some(role), paused_until: None, .. } = &mut self.seats[index] else {
                continue;
            };
            gone.iter().for_each(|gone| role.on_gone(*gone, now, &mut self.out));
            self.post(index);
        }
    }
}
