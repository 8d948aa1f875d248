//! No core sleeps over work: interleavings of who sleeps and who has work for it, and every order
//! in which they may see each other's writes.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p loggos-net --test loom --release`.

#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeSet;
use std::sync::Mutex as StdMutex;

use loggos_net::Slumber;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// A core, the work that it finds, and what wakes it.
#[derive(Default)]
struct Core {
    slumber: Slumber,
    /// As weakly ordered as any queue is.
    work: AtomicUsize,
    bell: Bell,
}

/// What an eventfd is: it has been rung or not, and to hear it is to wait until it has been.
#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    ringing: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock().unwrap() = true;
        self.ringing.notify_one();
    }

    fn hear(&self) {
        let mut has_rung = self.has_rung.lock().unwrap();
        while !*has_rung {
            has_rung = self.ringing.wait(has_rung).unwrap();
        }
        *has_rung = false;
    }
}

impl Core {
    fn give_work(&self) {
        self.work.fetch_add(1, Ordering::Release);
        if self.slumber.disturb() {
            self.bell.ring();
        }
    }

    /// Works until there was as much to do as `wanted`. Asleep over work, it never wakes: loom
    /// takes that for the deadlock that it is. Returns how often it slept.
    fn work(&self, wanted: usize) -> usize {
        let (mut done, mut slept) = (0, 0);
        while done < wanted {
            if self.slumber.begin(|| self.work.load(Ordering::Acquire) > done) {
                self.bell.hear();
                slept += 1;
            }
            self.slumber.end();
            done = self.work.load(Ordering::Acquire);
        }
        slept
    }
}

/// Tries a core for which each of so many others has work once; how often it may have slept. What
/// interrupts a thread is tried up to so many times at once; none is without end.
fn try_all(givers: usize, interruptions_max: Option<usize>) -> BTreeSet<usize> {
    let seen = std::sync::Arc::new(StdMutex::new(BTreeSet::new()));
    let slept = std::sync::Arc::clone(&seen);
    let mut model = loom::model::Builder::new();
    model.preemption_bound = interruptions_max;
    model.check(move || {
        let core = Arc::new(Core::default());
        let others: Vec<_> = (0..givers)
            .map(|_| {
                let core = Arc::clone(&core);
                thread::spawn(move || core.give_work())
            })
            .collect();
        slept.lock().unwrap().insert(core.work(givers));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn a_core_does_not_sleep_over_work() {
    assert_eq!(try_all(1, None), BTreeSet::from([0, 1]));
}

#[test]
fn a_core_that_one_has_woken_does_not_sleep_over_the_work_of_another() {
    assert!(try_all(2, Some(3)).contains(&2), "it never slept between the two");
}
