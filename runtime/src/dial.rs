//! One connection that this process makes, and makes again when it has ended.
//!
//! ```text
//!   down ──── due ────▶ calling ──── welcomed ────▶ up
//!    ▲                     │                        │
//!    └── ended: wait, twice as long after each failure in a row
//! ```

use std::time::Duration;

use loggos_net::ConnectionId;
use loggos_protocol::Time;

/// The waits before the next call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// After the first call that has failed.
    pub(crate) wait_first: Duration,
    /// After a connection that was up has ended.
    pub(crate) wait_after_up: Duration,
    /// At the most; a dial that waits as long reports its trouble.
    pub(crate) wait_max: Duration,
}

/// A connection to one address, and when to call it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dial {
    state: DialState,
    pace: Pace,
    /// The wait after the next failure.
    wait: Duration,
    /// Whether its trouble was reported: once, and not with every call that fails.
    is_reported: bool,
}

/// The stage of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DialState {
    /// Not connected. The next call is not made before `until`.
    Down { until: Time },
    /// Called; not welcomed yet.
    Calling { connection: ConnectionId, since: Time },
    /// Welcomed.
    Up { connection: ConnectionId },
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DialEnd {
    /// Whether it was up.
    pub(crate) was_up: bool,
    /// Whether to log it: it was up, or calls have failed for long; and it was not logged since it
    /// was last up. So a process that has just started has time to begin to listen.
    pub(crate) is_news: bool,
}

impl Dial {
    /// Returns one that may be called at once.
    pub(crate) fn new(pace: Pace) -> Self {
        let state = DialState::Down { until: Time(0) };
        Self { state, pace, wait: pace.wait_first, is_reported: false }
    }

    pub(crate) fn state(&self) -> DialState {
        self.state
    }

    /// Whether it is down and may be called.
    pub(crate) fn is_due(&self, now: Time) -> bool {
        self.due_at().is_some_and(|due| due <= now)
    }

    /// The time when it may be called, if it is down.
    pub(crate) fn due_at(&self) -> Option<Time> {
        match self.state {
            DialState::Down { until } => Some(until),
            DialState::Calling { .. } | DialState::Up { .. } => None,
        }
    }

    /// The connection that is up.
    pub(crate) fn up(&self) -> Option<ConnectionId> {
        match self.state {
            DialState::Up { connection } => Some(connection),
            DialState::Down { .. } | DialState::Calling { .. } => None,
        }
    }

    /// The connection that is called or up.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        match self.state {
            DialState::Down { .. } => None,
            DialState::Calling { connection, .. } | DialState::Up { connection } => {
                Some(connection)
            }
        }
    }

    /// The connection that is not welcomed, though it was called more than `greeting_max` ago.
    pub(crate) fn unanswered(&self, greeting_max: Duration, now: Time) -> Option<ConnectionId> {
        match self.state {
            DialState::Calling { connection, since } if now.since(since) > greeting_max => {
                Some(connection)
            }
            DialState::Down { .. } | DialState::Calling { .. } | DialState::Up { .. } => None,
        }
    }

    /// Whether it waits as long as it ever does.
    pub(crate) fn waits_longest(&self) -> bool {
        self.wait >= self.pace.wait_max
    }

    /// A call was made.
    pub(crate) fn on_called(&mut self, connection: ConnectionId, now: Time) {
        self.state = DialState::Calling { connection, since: now };
    }

    /// The call was welcomed; returns whether that is news, since trouble was reported before.
    pub(crate) fn on_welcome(&mut self, connection: ConnectionId) -> bool {
        self.state = DialState::Up { connection };
        self.wait = self.pace.wait_first;
        std::mem::take(&mut self.is_reported)
    }

    /// The connection has ended, or has not come about.
    pub(crate) fn on_end(&mut self, now: Time) -> DialEnd {
        let was_up = self.up().is_some();
        if was_up {
            self.wait = self.pace.wait_after_up;
        }
        self.state = DialState::Down { until: now + self.wait };
        self.wait = (2 * self.wait).min(self.pace.wait_max);
        let is_news =
            (was_up || self.waits_longest()) && !std::mem::replace(&mut self.is_reported, true);
        DialEnd { was_up, is_news }
    }
}

#[cfg(test)]
mod tests {
    use loggos_net::{Ring, RingOptions};

    use super::*;

    const PACE: Pace = Pace {
        wait_first: Duration::from_millis(10),
        wait_after_up: Duration::from_millis(1),
        wait_max: Duration::from_millis(40),
    };
    const END: DialEnd = DialEnd { was_up: false, is_news: false };

    /// A name for a connection; where it leads makes no difference.
    fn connection() -> ConnectionId {
        let mut ring = Ring::new(&RingOptions::default()).unwrap();
        ring.connect(([127, 0, 0, 1], 1).into()).unwrap()
    }

    /// Ends it at `now`; returns how, and how many milliseconds it waits then.
    fn end(dial: &mut Dial, now: Time) -> (DialEnd, u128) {
        let end = dial.on_end(now);
        (end, dial.due_at().unwrap().since(now).as_millis())
    }

    #[test]
    fn waits_double_up_to_the_most_and_trouble_is_news_once() {
        let mut dial = Dial::new(PACE);
        assert!(dial.is_due(Time(0)), "nothing is waited for before the first call");
        let is_news = DialEnd { is_news: true, ..END };
        let expected = [(END, 10), (is_news, 20), (END, 40), (END, 40)];
        for (index, expected) in expected.into_iter().enumerate() {
            dial.on_called(connection(), Time(0));
            assert_eq!(end(&mut dial, Time(7)), expected, "failure {index}");
        }
        assert!(!dial.is_due(Time(7)));
        assert!(dial.is_due(Time(7) + PACE.wait_max));
        assert!(dial.on_welcome(connection()), "that it is up again is news");
        assert!(!dial.on_welcome(connection()), "but once");
    }

    #[test]
    fn what_was_up_is_called_again_soon_and_its_end_is_news() {
        let mut dial = Dial::new(PACE);
        let id = connection();
        dial.on_called(id, Time(0));
        assert_eq!((dial.connection(), dial.up()), (Some(id), None));
        assert!(!dial.on_welcome(id), "no trouble was reported");
        assert_eq!((dial.connection(), dial.up()), (Some(id), Some(id)));
        assert_eq!(end(&mut dial, Time(9)), (DialEnd { was_up: true, is_news: true }, 1));
        assert_eq!((dial.connection(), dial.up()), (None, None));
        assert_eq!(end(&mut dial, Time(9)), (END, 2));
    }

    #[test]
    fn a_call_is_unanswered_once_the_greeting_time_has_passed() {
        let mut dial = Dial::new(PACE);
        let (id, greeting_max) = (connection(), Duration::from_nanos(50));
        assert_eq!(dial.unanswered(greeting_max, Time(1_000)), None, "it was not called");
        dial.on_called(id, Time(100));
        assert_eq!(dial.unanswered(greeting_max, Time(150)), None);
        assert_eq!(dial.unanswered(greeting_max, Time(151)), Some(id));
        dial.on_welcome(id);
        assert_eq!(dial.unanswered(greeting_max, Time(1_000)), None);
    }
}
