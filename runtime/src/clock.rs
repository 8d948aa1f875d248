//! The driver's clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loggos_protocol::Time;
use quanta::Instant;

/// Nanoseconds since the epoch that never go back: the wall clock when the process started, and
/// what the processor's cycle counter has counted since.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    cycles: quanta::Clock,
    started: Instant,
    started_at: Time,
}

impl Clock {
    /// Calibrates the counter: takes some milliseconds, once a process.
    pub(crate) fn start() -> Self {
        let cycles = quanta::Clock::new();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_at = Time(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        Self { started: cycles.now(), cycles, started_at }
    }

    pub(crate) fn now(&self) -> Time {
        self.started_at + self.cycles.now().duration_since(self.started)
    }

    /// The bare counter: some nanoseconds cheaper than [`Clock::now`], for timing roles.
    pub(crate) fn cycles(&self) -> u64 {
        self.cycles.raw()
    }

    /// The time when the bare counter said `cycles`: what [`Clock::now`] would have said then.
    pub(crate) fn time(&self, cycles: u64) -> Time {
        self.started_at + self.cycles.scaled(cycles).duration_since(self.started)
    }

    pub(crate) fn duration(&self, cycles: u64) -> Duration {
        Duration::from_nanos(self.cycles.delta_as_nanos(0, cycles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_counter_tells_the_same_time_as_the_clock() {
        let clock = Clock::start();
        for _ in 0..1000 {
            let (before, cycles, after) = (clock.now(), clock.cycles(), clock.now());
            let between = clock.time(cycles);
            assert!(before <= between && between <= after, "{before:?}, {between:?}, {after:?}");
        }
    }
}
