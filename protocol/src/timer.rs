//! Timers: each role names its own and keeps a small table of them; the driver asks for the
//! earliest.

use std::marker::PhantomData;
use std::time::Duration;

use crate::Time;

/// The `COUNT` timers of one role.
pub trait TimerName<const COUNT: usize>: Copy {
    /// Each timer, in the order in which those that are due at once fire.
    const ALL: [Self; COUNT];

    /// The timer's index in `ALL`.
    fn index(self) -> usize;
}

/// The time when each timer of a role fires.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Timers<T, const COUNT: usize> {
    /// By the timer's index; `None` while it is stopped.
    fires_at: [Option<Time>; COUNT],
    names: PhantomData<T>,
}

impl<T, const COUNT: usize> Default for Timers<T, COUNT> {
    fn default() -> Self {
        Self { fires_at: [None; COUNT], names: PhantomData }
    }
}

impl<T: TimerName<COUNT>, const COUNT: usize> Timers<T, COUNT> {
    /// Sets `timer` to fire at `at`, whatever it was set to.
    pub fn set(&mut self, timer: T, at: Time) {
        self.fires_at[timer.index()] = Some(at);
    }

    /// Sets `timer` unless it is set already.
    pub fn set_if_unset(&mut self, timer: T, at: Time) {
        self.fires_at[timer.index()].get_or_insert(at);
    }

    /// Stops `timer`.
    pub fn stop(&mut self, timer: T) {
        self.fires_at[timer.index()] = None;
    }

    /// Stops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether `timer` is set.
    #[must_use]
    pub fn is_set(&self, timer: T) -> bool {
        self.fires_at[timer.index()].is_some()
    }

    /// The time when the next timer fires.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.fires_at.iter().flatten().min().copied()
    }

    /// Takes a timer out that is due at `now`.
    pub fn take_due(&mut self, now: Time) -> Option<T> {
        let is_due = |timer: &T| self.fires_at[timer.index()].is_some_and(|at| at <= now);
        let timer = T::ALL.into_iter().find(is_due)?;
        self.stop(timer);
        Some(timer)
    }
}

/// A running estimate of how long something takes, and hence how long to wait for it.
///
/// Mean and deviation are smoothed as TCP does (RFC 6298): a timeout is the mean plus four
/// deviations.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Latency {
    mean: Duration,
    deviation: Duration,
}

impl Latency {
    /// Takes a measurement in.
    pub fn sample(&mut self, took: Duration) {
        if self.mean.is_zero() {
            self.mean = took;
            self.deviation = took / 2;
            return;
        }
        self.deviation = (self.deviation * 3 + self.mean.abs_diff(took)) / 4;
        self.mean = (self.mean * 7 + took) / 8;
    }

    /// The mean time that it takes. Before the first measurement: zero.
    #[must_use]
    pub fn mean(&self) -> Duration {
        self.mean
    }

    /// The longest that something takes, as far as measured. Before the first measurement: zero.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        self.mean + self.deviation * 4
    }

    /// How long to wait before the `attempt`-th repetition: the estimate, doubled each time, within
    /// `least..=most`. Before the first measurement: `least`.
    #[must_use]
    pub fn timeout(&self, attempt: u32, least: Duration, most: Duration) -> Duration {
        let once = self.estimate().max(least);
        once.saturating_mul(1 << attempt.min(16)).min(most.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GatewayTimer, ProposerTimer, ProxyLeaderTimer, ReplicaTimer};

    #[test]
    fn the_earliest_timer_is_taken_once() {
        let mut timers = Timers::default();
        assert_eq!((timers.next_at(), timers.take_due(Time(9))), (None, None));
        timers.set(ProposerTimer::Election, Time(5));
        timers.set(ProposerTimer::Heartbeat, Time(7));
        timers.set_if_unset(ProposerTimer::Heartbeat, Time(1));
        assert_eq!(timers.next_at(), Some(Time(5)));
        assert_eq!(timers.take_due(Time(4)), None);
        assert_eq!(timers.take_due(Time(6)), Some(ProposerTimer::Election));
        assert_eq!(timers.take_due(Time(6)), None);
        assert_eq!(timers.next_at(), Some(Time(7)));
    }

    #[test]
    fn each_timer_has_an_index_of_its_own() {
        fn indices<T: TimerName<COUNT>, const COUNT: usize>() -> [usize; COUNT] {
            T::ALL.map(T::index)
        }
        assert_eq!(indices::<GatewayTimer, 4>(), [0, 1, 2, 3]);
        assert_eq!(indices::<ProposerTimer, 5>(), [0, 1, 2, 3, 4]);
        assert_eq!(indices::<ProxyLeaderTimer, 2>(), [0, 1]);
        assert_eq!(indices::<ReplicaTimer, 6>(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_timeout_follows_the_measured_latency_and_doubles() {
        let (least, most) = (Duration::from_millis(1), Duration::from_millis(100));
        let mut latency = Latency::default();
        assert_eq!(latency.timeout(0, least, most), least);
        (0..50).for_each(|_| latency.sample(Duration::from_millis(4)));
        let steady = latency.timeout(0, least, most);
        assert!((4..6).contains(&steady.as_millis()), "{steady:?}");
        assert_eq!(latency.timeout(2, least, most), steady * 4);
        assert_eq!(latency.timeout(40, least, most), most);
    }
}
