//! When a loop without work polls, yields its processor core or sleeps.

use std::time::Duration;

use loggos_protocol::Time;

/// The time that a loop polls before it yields the processor core.
const LOOK_MAX: Duration = Duration::from_micros(2);
/// A round that takes longer was interrupted by a thread that does not yield in turn, as the cores
/// of other processes of a cluster do; it kept the processor core until the scheduler took it away.
const ROUND_MAX: Duration = Duration::from_millis(1);
/// The time that it polls before it judges: an interrupt now and then is no other thread that wants
/// the processor core.
const LOOKED_MIN: Duration = Duration::from_millis(5);
/// The part of this time that such threads may have had: one in `LOST_PART`.
const LOST_PART: u32 = 2;
/// How long a processor core that such a thread was seen on is left to it: the loop sleeps at once,
/// and a sleeper is at least woken in preference to that thread. Finding out again costs a few
/// milliseconds.
const TAKEN_TIME: Duration = Duration::from_millis(200);

/// The behaviour of a core that has no work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Idle {
    /// Keeps polling: the lowest latency, and a whole processor core for each core.
    Poll,
    /// Sleeps at once, until it is woken.
    Park,
    /// Polls for a while, then sleeps. Yields the processor core to other threads meanwhile, and
    /// sleeps at once where one of them does not yield in turn.
    Adaptive {
        /// The time that it polls after its last work.
        poll_idle: Duration,
    },
}

/// Tells a loop when it may sleep.
#[derive(Debug)]
pub(crate) struct IdlePolicy {
    idle: Idle,
    busy_at: Time,
    /// The time when the last round began, if it found no work.
    looked_at: Option<Time>,
    /// How long it has polled since it last judged, and the part of that in which others had the
    /// processor core.
    looked: Duration,
    lost: Duration,
    /// Until then it sleeps at once.
    taken_until: Time,
    /// The time when it last yielded.
    offered_at: Time,
}

impl IdlePolicy {
    pub(crate) fn new(idle: Idle, now: Time) -> Self {
        Self {
            idle,
            busy_at: now,
            looked_at: None,
            looked: Duration::ZERO,
            lost: Duration::ZERO,
            taken_until: Time(0),
            offered_at: now,
        }
    }

    /// Notes that a round has ended at `now`, and whether it found work; returns whether the loop
    /// may sleep.
    pub(crate) fn may_sleep(&mut self, now: Time, has_worked: bool) -> bool {
        if let Some(at) = self.looked_at {
            self.judge(now.since(at), now);
        }
        self.looked_at = (!has_worked).then_some(now);
        if has_worked {
            self.busy_at = now;
        }
        match self.idle {
            Idle::Poll => false,
            Idle::Park => true,
            Idle::Adaptive { poll_idle } => {
                now < self.taken_until || now.since(self.busy_at) >= poll_idle
            }
        }
    }

    /// Yields the processor core between two rounds without work: this loop may be waiting for
    /// another one there. Several loops that poll so take turns at a processor core, and none of
    /// them need be woken, which takes longer than all their turns. It costs a system call now and
    /// then, so [`Idle::Poll`] never yields.
    pub(crate) fn offer(&mut self, now: Time) {
        let is_adaptive = matches!(self.idle, Idle::Adaptive { .. });
        if is_adaptive && self.looked_at.is_some() && now.since(self.offered_at) >= LOOK_MAX {
            self.offered_at = now;
            rustix::thread::sched_yield();
        }
    }

    /// Takes a round without work into account.
    fn judge(&mut self, round: Duration, now: Time) {
        self.looked += round;
        if round > ROUND_MAX {
            self.lost += round;
        }
        if self.looked >= LOOKED_MIN {
            if self.lost > self.looked / LOST_PART {
                self.taken_until = now + TAKEN_TIME;
            }
            (self.looked, self.lost) = (Duration::ZERO, Duration::ZERO);
        }
    }

    /// Notes that the loop has slept until `now`.
    pub(crate) fn woke(&mut self, now: Time) {
        (self.looked_at, self.busy_at) = (None, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL_IDLE: Duration = Duration::from_micros(200);

    fn adaptive() -> IdlePolicy {
        IdlePolicy::new(Idle::Adaptive { poll_idle: POLL_IDLE }, Time(0))
    }

    #[test]
    fn a_core_of_its_own_is_watched_for_a_while_after_work() {
        let mut policy = adaptive();
        let rounds = (1..=20).map(|round| policy.may_sleep(Time(round * 20_000), round == 5));
        let first = rounds.take_while(|may_sleep| !may_sleep).count();
        assert_eq!(first, 14, "work in round 5, and 200 µs of 20 µs each");
    }

    /// Polls for `rounds` rounds of `micros` microseconds each, after work at `from`; returns when
    /// the last one ended.
    fn look(policy: &mut IdlePolicy, from: Time, rounds: u64, micros: u64) -> Time {
        policy.may_sleep(from, true);
        let at = |round: u64| from + Duration::from_micros(round * micros);
        for round in 1..=rounds {
            policy.may_sleep(at(round), false);
        }
        at(rounds)
    }

    #[test]
    fn a_core_that_another_thread_keeps_is_left_at_once_and_tried_again_later() {
        let mut policy = adaptive();
        let now = look(&mut policy, Time(0), 4, 3_000);
        assert!(policy.may_sleep(now, true), "another thread has had the core for 9 of 12 ms");
        let later = now + 2 * TAKEN_TIME;
        policy.woke(later);
        assert!(!policy.may_sleep(later, true), "it is tried again");
    }

    #[test]
    fn a_core_that_others_give_back_is_shared_with_them() {
        let mut policy = adaptive();
        let mut now = Time(0);
        for _ in 0..1_000 {
            now = look(&mut policy, now, 3, 60);
            assert!(!policy.may_sleep(now, true), "five others, each a dozen microseconds");
        }
    }

    #[test]
    fn an_interrupt_now_and_then_is_not_taken_for_another_thread() {
        let mut policy = adaptive();
        let mut now = Time(0);
        for _ in 0..1_000 {
            now = look(&mut policy, now, 1_000, 3);
            now = look(&mut policy, now, 1, 2_000);
            assert!(!policy.may_sleep(now, true), "2 of 5 ms were lost");
        }
    }

    #[test]
    fn work_that_takes_its_time_is_our_own() {
        let mut policy = adaptive();
        for round in 1..=100 {
            assert!(!policy.may_sleep(Time(round * 1_000_000), true), "it works");
        }
    }

    #[test]
    fn sleep_is_not_taken_for_another_thread_at_work() {
        let mut policy = adaptive();
        assert!(policy.may_sleep(Time(300_000), false), "nothing to do for too long");
        policy.woke(Time(900_000));
        assert!(!policy.may_sleep(Time(910_000), false), "woken for nothing yet, it watches");
    }
}
