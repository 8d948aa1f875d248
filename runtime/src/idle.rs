//! What a loop does when it has nothing to do.

use std::time::Duration;

use loggos_protocol::Time;

/// How long a loop looks before it lets whoever else wants the core have it.
const LOOK_MAX: Duration = Duration::from_micros(2);
/// Others who have the core in turn, as other processes of a cluster do, give it back in less. In more, somebody has
/// had it who gives it to nobody, until the scheduler takes it from him.
const ROUND_MAX: Duration = Duration::from_millis(1);
/// How much looking it takes to judge by: an interrupt now and then is nobody who wants the core.
const LOOKED_MIN: Duration = Duration::from_millis(5);
/// The part of it that such others may have had, one in so many.
const LOST_PART: u32 = 2;
/// How long a core that was seen to be taken is left to others. Who sleeps there is at least woken in preference to
/// them. Finding out again costs a few milliseconds.
const TAKEN_TIME: Duration = Duration::from_millis(200);

/// What a core does when it has nothing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Idle {
    /// Keeps looking: the lowest latency, and a whole processor core for each core.
    Poll,
    /// Sleeps at once, until it is woken.
    Park,
    /// Keeps looking for a while, then sleeps; lets others who want the processor core have it meanwhile, and sleeps
    /// at once where one of them does not give it back.
    Adaptive {
        /// How long.
        poll_idle: Duration,
    },
}

/// Tells a loop when it may sleep.
#[derive(Debug)]
pub(crate) struct Vigil {
    idle: Idle,
    busy_at: Time,
    /// When the last round began, if there was nothing to do in it.
    looked_at: Option<Time>,
    /// How long it has looked since it last judged, and how much of that others have had.
    looked: Duration,
    lost: Duration,
    /// Until then we sleep at once.
    taken_until: Time,
    /// When the core was last offered to others.
    offered_at: Time,
}

impl Vigil {
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

    /// Notes that the loop has come round at `now`, and whether it has found something to do; returns
    /// whether it may sleep.
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

    /// Lets others have the processor core, between two looks for work: we may be waiting for what they do. Several
    /// loops that look so take turns at a core, and none of them need be woken, which takes longer than all their
    /// turns. Costs a system call now and then, so a loop that only polls keeps its core.
    pub(crate) fn offer(&mut self, now: Time) {
        let is_adaptive = matches!(self.idle, Idle::Adaptive { .. });
        if is_adaptive && self.looked_at.is_some() && now.since(self.offered_at) >= LOOK_MAX {
            self.offered_at = now;
            rustix::thread::sched_yield();
        }
    }

    /// Takes a round in which there was nothing to do into account.
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

    fn adaptive() -> Vigil {
        Vigil::new(Idle::Adaptive { poll_idle: POLL_IDLE }, Time(0))
    }

    #[test]
    fn a_core_of_its_own_is_watched_for_a_while_after_work() {
        let mut vigil = adaptive();
        let rounds = (1..=20).map(|round| vigil.may_sleep(Time(round * 20_000), round == 5));
        let first = rounds.take_while(|may_sleep| !may_sleep).count();
        assert_eq!(first, 14, "work in round 5, and 200 µs of 20 µs each");
    }

    /// Looks for so many rounds, each of so many microseconds, after work at `from`; returns when it ended.
    fn look(vigil: &mut Vigil, from: Time, rounds: u64, micros: u64) -> Time {
        vigil.may_sleep(from, true);
        let at = |round: u64| from + Duration::from_micros(round * micros);
        for round in 1..=rounds {
            vigil.may_sleep(at(round), false);
        }
        at(rounds)
    }

    #[test]
    fn a_core_that_somebody_else_keeps_is_left_at_once_and_tried_again_later() {
        let mut vigil = adaptive();
        let now = look(&mut vigil, Time(0), 4, 3_000);
        assert!(vigil.may_sleep(now, true), "somebody has had the core for 9 of 12 ms");
        let later = now + 2 * TAKEN_TIME;
        vigil.woke(later);
        assert!(!vigil.may_sleep(later, true), "it is tried again");
    }

    #[test]
    fn a_core_that_others_give_back_is_shared_with_them() {
        let mut vigil = adaptive();
        let mut now = Time(0);
        for _ in 0..1_000 {
            now = look(&mut vigil, now, 3, 60);
            assert!(!vigil.may_sleep(now, true), "five others, each a dozen microseconds");
        }
    }

    #[test]
    fn an_interrupt_now_and_then_is_nobody_who_wants_the_core() {
        let mut vigil = adaptive();
        let mut now = Time(0);
        for _ in 0..1_000 {
            now = look(&mut vigil, now, 1_000, 3);
            now = look(&mut vigil, now, 1, 2_000);
            assert!(!vigil.may_sleep(now, true), "2 of 5 ms were lost");
        }
    }

    #[test]
    fn work_that_takes_its_time_is_our_own() {
        let mut vigil = adaptive();
        for round in 1..=100 {
            assert!(!vigil.may_sleep(Time(round * 1_000_000), true), "it works");
        }
    }

    #[test]
    fn sleep_is_not_taken_for_somebody_else_at_work() {
        let mut vigil = adaptive();
        assert!(vigil.may_sleep(Time(300_000), false), "nothing to do for too long");
        vigil.woke(Time(900_000));
        assert!(!vigil.may_sleep(Time(910_000), false), "woken for nothing yet, it watches");
    }
}
