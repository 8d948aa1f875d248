//! The state of this process's roles, asked over a connection.

use std::sync::mpsc;
use std::time::Duration;

use loggos_net::ConnectionId;
use loggos_protocol::{RoleId, StateMachine, Time};

use super::Core;
use super::orders::Order;
use super::seats::Seat;
use crate::log::LogStatus;
use crate::sockets::Sockets;
use crate::status::{CoreStatus, CoreTime, RoleStatus, Standing, to_json};

/// The longest time that an answer waits for a core to report the state of its roles.
const REPORT_MAX: Duration = Duration::from_secs(1);

/// A question that is being answered.
pub(super) struct StatusRequest {
    from: ConnectionId,
    since: Time,
    reports: mpsc::Receiver<CoreStatus>,
    /// The reports that have come so far.
    cores: Vec<CoreStatus>,
}

impl<M: StateMachine> Core<M> {
    /// Asks all cores of this process how their roles stand, for the other end of a connection.
    pub(super) fn ask_status(&mut self, from: ConnectionId, now: Time) {
        if self.status_requests.iter().any(|request| request.from == from) {
            return; // it is being answered
        }
        let (sender, reports) = mpsc::channel();
        for sibling in self.siblings.iter() {
            let alarm = Some(self.alarm().clone());
            sibling.order(Order::Report(sender.clone(), alarm));
        }
        self.status_requests.push(StatusRequest { from, since: now, reports, cores: Vec::new() });
    }

    /// Answers the questions for which all cores have reported, or which have waited long enough;
    /// returns whether there were any.
    pub(super) fn tell_status(&mut self, now: Time) -> bool {
        let (before, cores) = (self.status_requests.len(), self.siblings.len());
        let Some(sockets) = &mut self.sockets else { return false };
        self.status_requests.retain_mut(|request| {
            request.cores.extend(request.reports.try_iter());
            if request.cores.len() < cores && now.since(request.since) < REPORT_MAX {
                return true;
            }
            request.cores.sort_by_key(|status| status.core);
            let has_reported = |core: &usize| request.cores.iter().any(|it| it.core == *core);
            let silent: Vec<usize> = (0..cores).filter(|core| !has_reported(core)).collect();
            sockets.tell_status(&mut self.ring, request.from, &to_json(&request.cores, &silent));
            false
        });
        self.status_requests.len() < before
    }

    /// Reports how the roles of this core stand.
    pub(super) fn status(&self) -> CoreStatus {
        let log = self.log.as_ref().map(|log| log.status(self.now));
        let stopped = log.as_ref().and_then(|log| log.stopped.as_ref());
        let log_state = log.as_ref().map(LogStatus::state).unwrap_or_default();
        let absent = |seat: &Seat<M>| match (seat.id, stopped) {
            (RoleId::Acceptor(_), Some(why)) => Standing::Stopped { why: why.clone() },
            (_, _) => Standing::Down,
        };
        let standing = |seat: &Seat<M>| match &seat.role {
            Some(role) => Standing::of(role, log_state, self.now),
            None => absent(seat),
        };
        let roles = self.seats.iter().map(|seat| RoleStatus {
            role: seat.id,
            core: self.core,
            standing: standing(seat),
            traffic: seat.traffic,
            busy: self.clock.duration(seat.cycles),
        });
        CoreStatus {
            core: self.core,
            ticks: self.ticks,
            time: CoreTime { callers: self.clock.duration(self.callers_cycles), ..self.time },
            roles: roles.collect(),
            ring: self.ring.counters(),
            sockets: self.sockets.as_ref().map(Sockets::counters),
            log,
        }
    }
}
