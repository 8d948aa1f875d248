//! A process's own clock: it was set wrong, it runs fast or slow, and now and then it jumps ahead.
//!
//! It never goes back within a life, which is all that roles are promised (R26): what bends it back
//! on a machine, the driver's clock does not follow.

use std::time::Duration;

use loggos_protocol::Time;

/// Ticks of the true clock in which a clock's rate is told.
const PARTS: u128 = 1_000_000;

/// A clock that is not the true one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The time when it last jumped, in true time.
    since: Time,
    /// What it showed then.
    showed: Time,
    /// How far it gets in [`PARTS`] of true time.
    rate: u128,
}

impl Clock {
    /// A clock that shows `shown` at the true time `now`, and runs too fast by so many parts in a
    /// million; too slow if they are negative.
    pub(crate) fn new(now: Time, shown: Time, fast_parts: i64) -> Self {
        let rate = i128::from(fast_parts) + PARTS.cast_signed();
        let rate = u128::try_from(rate).expect("a clock does not run backwards");
        assert!(rate > 0, "a clock that stands still");
        Self { since: now, showed: shown, rate }
    }

    /// What it shows at the true time `now`.
    pub(crate) fn show(&self, now: Time) -> Time {
        self.showed + scaled(now.since(self.since), self.rate, PARTS)
    }

    /// The true time at which it will show `shown`, or a little later.
    pub(crate) fn when(&self, shown: Time) -> Time {
        let rounding = Duration::from_nanos(2);
        self.since + scaled(shown.since(self.showed), PARTS, self.rate) + rounding
    }

    /// Sets it ahead.
    pub(crate) fn jump(&mut self, now: Time, ahead: Duration) {
        (self.since, self.showed) = (now, self.show(now) + ahead);
    }
}

fn scaled(duration: Duration, by: u128, parts: u128) -> Duration {
    let nanos = duration.as_nanos() * by / parts;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_what_it_was_waited_for() {
        let start = Time(1_000_000_000);
        for fast_parts in [-50_000, -7, 0, 3, 50_000] {
            let mut clock = Clock::new(start, Time(999_999_999_999), fast_parts);
            let mut now = start;
            for step in 1..1_000 {
                let wanted = clock.show(now) + Duration::from_nanos(step * 7_919);
                let then = clock.when(wanted);
                assert!(then > now && clock.show(then) >= wanted, "{fast_parts}: {clock:?}");
                let late = clock.show(then).since(wanted);
                assert!(late < Duration::from_nanos(5), "{fast_parts}: {late:?}");
                now = then;
                if step % 100 == 0 {
                    let before = clock.show(now);
                    clock.jump(now, Duration::from_secs(1));
                    assert_eq!(clock.show(now), before + Duration::from_secs(1));
                }
            }
        }
    }
}
