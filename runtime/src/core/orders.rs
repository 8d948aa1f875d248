//! The orders that any thread can give a core.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_protocol::{Role, RoleId, StateMachine, Time};

use super::Core;
use crate::alarm::Alarm;
use crate::resident::MoveIn;
use crate::sockets::HandedOver;
use crate::status::CoreStatus;

/// An order to a core.
#[derive(Debug)]
pub(crate) enum Order {
    /// Ends a role, as a crash would.
    Kill(RoleId),
    /// Ends a role in good order: a leader hands over first.
    Retire(RoleId),
    /// Lets a role take nothing in for a while.
    Pause(RoleId, Duration),
    /// Starts a role over, with a blank memory; a durable acceptor with what its log says.
    Restart(RoleId),
    /// Reports how the core's roles stand, and then rings the alarm of the thread that waits for
    /// it, if it has one.
    Report(mpsc::Sender<CoreStatus>, Option<Alarm>),
    /// Takes a resident in.
    MoveIn(MoveIn),
    /// Takes a connection over from another core.
    Adopt(HandedOver),
}

/// The way to give orders to a core.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(super) orders: Arc<SegQueue<Order>>,
    alarm: Alarm,
}

impl Sibling {
    /// Returns the way to a core that `alarm` wakes.
    pub(crate) fn new(alarm: Alarm) -> Self {
        Self { orders: Arc::new(SegQueue::new()), alarm }
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Gives an order, and wakes the core.
    pub(crate) fn order(&self, order: Order) {
        self.orders.push(order);
        self.alarm.ring();
    }
}

impl<M: StateMachine> Core<M> {
    /// Carries the orders out that were given; returns whether there were any.
    pub(super) fn take_orders(&mut self, now: Time) -> bool {
        let mut has_worked = false;
        while let Some(order) = self.orders.pop() {
            has_worked = true;
            match order {
                Order::Kill(id) => self.end_life(id),
                Order::Retire(id) => self.retire(id),
                Order::Pause(id, most) => self.pause(id, now + most),
                Order::Restart(id) => self.restart(id, now),
                Order::Report(to, alarm) => {
                    drop(to.send(self.status())); // the thread may wait no more
                    alarm.iter().for_each(Alarm::ring);
                }
                Order::Adopt(handed_over) => {
                    if let Some(sockets) = &mut self.sockets {
                        sockets.adopt(&mut self.ring, handed_over, now);
                    }
                }
                Order::MoveIn(resident) => self.callers.move_in(resident, now),
            }
        }
        has_worked
    }

    fn retire(&mut self, id: RoleId) {
        let Some(index) = self.seat_of(id) else { return };
        if let Some(Role::Proposer(proposer)) = &mut self.seats[index].role {
            proposer.leave(&mut self.out);
            self.post(index);
        }
        self.seats[index].role = None;
    }

    fn pause(&mut self, id: RoleId, until: Time) {
        let Some(index) = self.seat_of(id) else { return };
        let seat = &mut self.seats[index];
        if seat.paused_until.replace(until).is_none() {
            self.pending -= seat.inbox.len();
        }
    }
}
