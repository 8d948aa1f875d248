//! The orders that any thread can give a core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crossbeam::queue::SegQueue;
use loggos_protocol::{Role, RoleId, StateMachine, Time};

use super::Core;
use crate::alarm::Alarm;
use crate::resident::MoveIn;
use crate::sockets::HandedOver;
use crate::status::CoreStatus;
use crate::trace::{CoreTrace, Tracing};

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
    /// Traces what the core does for so long.
    Trace(mpsc::Sender<CoreTrace>, Duration),
    /// Takes a resident in.
    MoveIn(MoveIn),
    /// Takes a connection over from another core.
    Adopt(HandedOver),
}

/// The way to give orders to a core.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    queue: Arc<OrderQueue>,
    alarm: Alarm,
}

#[derive(Debug, Default)]
struct OrderQueue {
    orders: SegQueue<Order>,
    /// Whether the core has ended.
    is_closed: AtomicBool,
}

impl Sibling {
    /// Returns the way to a core that `alarm` wakes.
    pub(crate) fn new(alarm: Alarm) -> Self {
        Self { queue: Arc::default(), alarm }
    }

    pub(crate) fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// Gives an order, and wakes the core. An order to a core that has ended is dropped, and with
    /// it the way back of its answer: no thread waits for that.
    pub(crate) fn order(&self, order: Order) {
        self.queue.orders.push(order);
        self.alarm.ring();
        self.sweep_if_closed();
    }

    /// Notes that the core has ended, and drops all orders, now and to come.
    pub(crate) fn close(&self) {
        self.queue.is_closed.store(true, Ordering::SeqCst);
        self.sweep_if_closed();
    }

    /// Empties the queue of a core that has ended. It is called after an order is pushed, and after
    /// the queue is closed: one of the two finds an order that the other missed.
    fn sweep_if_closed(&self) {
        if self.queue.is_closed.load(Ordering::SeqCst) {
            while let Some(order) = self.queue.orders.pop() {
                drop(order);
            }
        }
    }

    /// Returns the next order to the core.
    pub(super) fn next_order(&self) -> Option<Order> {
        self.queue.orders.pop()
    }

    /// Whether an order waits.
    pub(super) fn has_orders(&self) -> bool {
        !self.queue.orders.is_empty()
    }
}

impl<M: StateMachine> Core<M> {
    /// Carries the orders out that were given; returns whether there were any.
    pub(super) fn take_orders(&mut self, now: Time) -> bool {
        let mut has_worked = false;
        while let Some(order) = self.siblings[self.core].next_order() {
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
                Order::Trace(to, time) => {
                    let former = self.tracing.replace(Tracing::new(now + time, to));
                    former.into_iter().for_each(|former| former.end(self.core));
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
        self.end_life(id);
    }

    fn pause(&mut self, id: RoleId, until: Time) {
        let Some(index) = self.seat_of(id) else { return };
        let seat = &mut self.seats[index];
        if seat.paused_until.replace(until).is_none() {
            self.pending -= seat.inbox.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_a_core_that_has_ended_is_dropped_with_the_way_back_of_its_answer() {
        let core = Sibling::new(Alarm::new().unwrap());
        let (before, after) = (mpsc::channel(), mpsc::channel());
        core.order(Order::Report(before.0, None));
        core.close();
        core.order(Order::Report(after.0, None));
        for answers in [before.1, after.1] {
            assert!(matches!(answers.recv(), Err(mpsc::RecvError)), "no thread waits for it");
        }
    }
}
