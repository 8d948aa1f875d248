//! Timers: each role keeps a small table of them, the driver asks for the earliest.

use std::time::Duration;

use crate::Time;

/// What a role may be waiting for. One list for all roles, so that a driver needs no other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Timer {
    /// Proposer: ask again for the memories and tables that formation misses.
    Formation,
    /// Proposer: say that we are here.
    Heartbeat,
    /// Proposer: nobody was heard for an election timeout; ask whether we may campaign.
    Election,
    /// Proposer: ask again for the pages that phase 1 misses.
    Phase1,
    /// Proposer: open slots make no progress. Gateway: batches have no answer.
    Resend,
    /// Proxy leader: slots have no write quorum.
    Retry,
    /// Proxy leader: see whether suspects are back.
    Probe,
    /// Replica: a slot is missing.
    Gap,
    /// Replica: ask again for the votes that a replay misses.
    Replay,
    /// Replica: tell how far we are.
    Report,
    /// Replica: write the next part of a snapshot for peers, or send it.
    Donation,
    /// Replica: ask again for the parts of a peer's snapshot, or restore the next one.
    Transfer,
    /// Gateway: close a batch that waited for company.
    Batch,
    /// Gateway: nothing has been answered for an election timeout.
    Unserved,
    /// Client: a command's deadline.
    Deadline,
}

/// When each [`Timer`] of a role fires.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Timers([Option<Time>; Timer::ALL.len()]);

impl Timer {
    const ALL: [Self; 15] = [
        Self::Formation,
        Self::Heartbeat,
        Self::Election,
        Self::Phase1,
        Self::Resend,
        Self::Retry,
        Self::Probe,
        Self::Gap,
        Self::Replay,
        Self::Report,
        Self::Donation,
        Self::Transfer,
        Self::Batch,
        Self::Unserved,
        Self::Deadline,
    ];
}

impl Timers {
    /// Sets `timer` to fire at `at`, whatever it was set to.
    pub fn set(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize] = Some(at);
    }

    /// Sets `timer` unless it is set already.
    pub fn set_if_unset(&mut self, timer: Timer, at: Time) {
        self.0[timer as usize].get_or_insert(at);
    }

    /// Stops `timer`.
    pub fn stop(&mut self, timer: Timer) {
        self.0[timer as usize] = None;
    }

    /// Stops all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether `timer` is set.
    #[must_use]
    pub fn is_set(&self, timer: Timer) -> bool {
        self.0[timer as usize].is_some()
    }

    /// When the next timer fires.
    #[must_use]
    pub fn next_at(&self) -> Option<Time> {
        self.0.iter().flatten().min().copied()
    }

    /// Takes a timer out that is due at `now`.
    pub fn take_due(&mut self, now: Time) -> Option<Timer> {
        let due = |timer: &Timer| self.0[*timer as usize].is_some_and(|at| at <= now);
        let timer = Timer::ALL.into_iter().find(due)?;
        self.stop(timer);
        Some(timer)
    }
}

/// A running estimate of how long something takes, and hence how long to wait for it.
///
/// Mean and deviation are smoothed as TCP does (RFC 6298): a timeout is the mean plus four deviations.
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

    /// How long it takes on average. Before the first measurement: zero.
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

    #[test]
    fn the_earliest_timer_is_taken_once() {
        let mut timers = Timers::default();
        assert_eq!((timers.next_at(), timers.take_due(Time(9))), (None, None));
        timers.set(Timer::Election, Time(5));
        timers.set(Timer::Heartbeat, Time(7));
        timers.set_if_unset(Timer::Heartbeat, Time(1));
        assert_eq!(timers.next_at(), Some(Time(5)));
        assert_eq!(timers.take_due(Time(4)), None);
        assert_eq!(timers.take_due(Time(6)), Some(Timer::Election));
        assert_eq!(timers.take_due(Time(6)), None);
        assert_eq!(timers.next_at(), Some(Time(7)));
    }

    #[test]
    fn each_timer_has_a_place_of_its_own() {
        for (place, timer) in Timer::ALL.into_iter().enumerate() {
            assert_eq!(timer as usize, place);
        }
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
