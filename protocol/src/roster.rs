//! The roster: how far each replica is, in its current life.
//!
//! ```text
//!  input      when                              does                          says
//!  Executed   of the life we know               executed ↑, heard             nothing
//!             of another, answers our nonce     that life is current now      nothing
//!             of another                        a fresh nonce                 Identify
//! ```
//!
//! A restarted replica may hold less than it did, so what its former life had executed must not
//! count: neither for phase 1's first slot (R5) nor for truncation (R16). Lives are random numbers
//! and have no order; what tells the current one is that only a living process answers a fresh
//! nonce. A former life's late message cannot carry it: the nonce was drawn after that life had
//! ended, or it would not have been replaced.
//!
//! Why two watchers may disagree: each acts on lower bounds of its own. A watcher that has not met
//! the new life yet still counts the old one, as it could have done a moment before the restart.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Executed, Incarnation, ReplicaId, Rng, Time, Watermark};

/// The replicas as one proposer or acceptor knows them.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Roster {
    replicas: Box<[ReplicaState]>,
    nonces: Rng,
    /// Counts lives that have begun or ended. Never goes down.
    lives: u64,
}

/// The number of replaced lives that are remembered of a replica. Only one that still runs could
/// answer a nonce after it was replaced: two processes under one name, which is an operator's
/// mistake.
const REPLACED_MAX: usize = 8;

#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
struct ReplicaState {
    /// The last lives that were replaced.
    replaced: VecDeque<Incarnation>,
    /// The life that answered our latest nonce.
    incarnation: Option<Incarnation>,
    /// The executed watermark of that life. Never goes down within it.
    executed: Watermark,
    /// Everything below is in a durable snapshot of that life's directory, as it has said. Never
    /// goes down within the life.
    snapshot: Watermark,
    heard_at: Time,
    /// Since when it has executed nothing although f+1 replicas are further; `None` if it has, or
    /// is as far.
    stuck_since: Option<Time>,
    /// The life that may be the new one, and the nonce that it has to answer. One nonce a life,
    /// however often it is asked: answers to two questions of ours must not outdate each other for
    /// ever.
    asked: Option<(Incarnation, u64)>,
}

impl Roster {
    /// Returns a roster of `count` replicas of which nothing is known; nonces follow from `seed`.
    #[must_use]
    pub fn new(count: u8, seed: u64) -> Self {
        assert!(count > 0, "a cluster without replicas");
        Self {
            replicas: (0..count).map(|_| ReplicaState::default()).collect(),
            nonces: Rng::new(seed),
            lives: 0,
        }
    }

    /// The number of lives of replicas that have begun or ended, as far as is known.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Takes in how far a replica is. Returns a nonce to identify it by, if its life is not the one
    /// that we know.
    ///
    /// source: R16, "an incarnation replaced by a completed, nonce-answered handshake never counts again"
    #[must_use]
    pub fn on_executed(&mut self, executed: &Executed, now: Time) -> Option<u64> {
        let entry = self.replicas.get_mut(usize::from(executed.replica.0))?; // none of ours
        if entry.replaced.contains(&executed.incarnation) {
            return None;
        }
        if entry.incarnation == Some(executed.incarnation) {
            if entry.executed.raise(executed.executed) {
                entry.stuck_since = None;
            }
            entry.snapshot.raise(executed.snapshot);
        } else {
            let asked = entry.asked.filter(|(life, _)| *life == executed.incarnation);
            let nonce = asked.map_or_else(|| self.nonces.next_u64(), |(_, nonce)| nonce);
            if asked.is_none() || executed.nonce != Some(nonce) {
                entry.asked = Some((executed.incarnation, nonce));
                return Some(nonce);
            }
            if let Some(replaced) = entry.incarnation.replace(executed.incarnation) {
                assert_ne!(replaced, executed.incarnation, "a life replaced itself");
                entry.replaced.truncate(REPLACED_MAX - 1);
                entry.replaced.push_front(replaced);
            }
            assert!(entry.replaced.len() <= REPLACED_MAX, "{} lives", entry.replaced.len());
            (entry.executed, entry.stuck_since) = (executed.executed, None);
            entry.snapshot = executed.snapshot;
            entry.asked = None;
            self.lives += 1;
        }
        entry.heard_at = now;
        None
    }

    /// The executed watermark of `replica`, in its current life; zero before that is known.
    #[must_use]
    pub fn executed(&self, replica: ReplicaId) -> Watermark {
        self.entry(replica).map_or(Watermark(0), |entry| entry.executed)
    }

    /// The number of replicas that have been heard in a life that is known to be current.
    #[must_use]
    pub fn known_count(&self) -> usize {
        self.replicas.iter().filter(|entry| entry.incarnation.is_some()).count()
    }

    /// The current life of `replica`, if known.
    #[must_use]
    pub fn incarnation(&self, replica: ReplicaId) -> Option<Incarnation> {
        self.entry(replica)?.incarnation
    }

    /// The time when `replica` was last heard of, in its current life.
    #[must_use]
    pub fn heard_at(&self, replica: ReplicaId) -> Time {
        self.entry(replica).map_or(Time(0), |entry| entry.heard_at)
    }

    /// Takes in that the life of a replica has ended: it is not heard any more.
    ///
    /// source: R29
    pub fn on_gone(&mut self, replica: ReplicaId) {
        if let Some(entry) = self.replicas.get_mut(usize::from(replica.0)) {
            entry.heard_at = Time(0);
            self.lives += 1;
        }
    }

    /// Since when `replica` has executed nothing although f+1 replicas are further, as of the last
    /// [`note_progress`](Self::note_progress).
    #[must_use]
    pub fn stuck_since(&self, replica: ReplicaId) -> Option<Time> {
        self.entry(replica)?.stuck_since
    }

    /// Notes which replicas are behind what f+1 have executed.
    ///
    /// source: R29
    pub fn note_progress(&mut self, f: u8, now: Time) {
        let executed = self.executed_by_f_plus_1(f);
        for entry in &mut self.replicas {
            if entry.executed >= executed {
                entry.stuck_since = None;
            } else {
                entry.stuck_since.get_or_insert(now);
            }
        }
    }

    /// What is known of `replica`: nothing, if it is none of ours.
    fn entry(&self, replica: ReplicaId) -> Option<&ReplicaState> {
        self.replicas.get(usize::from(replica.0))
    }

    /// The bound of what at least `f + 1` replicas have executed in their current lives: the
    /// (f+1)-th largest watermark.
    ///
    /// source: R5, R16
    #[must_use]
    pub fn executed_by_f_plus_1(&self, f: u8) -> Watermark {
        self.reached_by_f_plus_1(f, |entry| entry.executed)
    }

    /// The bound of what at least `f + 1` replicas hold durable snapshots of, each in the directory
    /// of its current life.
    ///
    /// source: R16
    #[must_use]
    pub fn snapshot_by_f_plus_1(&self, f: u8) -> Watermark {
        self.reached_by_f_plus_1(f, |entry| entry.snapshot)
    }

    /// The bound of what every replica holds a durable snapshot of that was heard within `grace`;
    /// `None` if none was.
    ///
    /// source: R16, "the snapshots of every replica that is up"
    #[must_use]
    pub fn snapshot_by_all_up(&self, now: Time, grace: Duration) -> Option<Watermark> {
        let is_up = |entry: &&ReplicaState| {
            entry.incarnation.is_some() && now.since(entry.heard_at) < grace
        };
        self.replicas.iter().filter(is_up).map(|entry| entry.snapshot).min()
    }

    /// The (f+1)-th largest `mark` of all replicas.
    fn reached_by_f_plus_1(&self, f: u8, mark: impl Fn(&ReplicaState) -> Watermark) -> Watermark {
        // At most a handful of replicas: count for each how many are as far, without sorting a
        // copy.
        let needed = usize::from(f) + 1;
        debug_assert!(
            needed <= self.replicas.len(),
            "{needed} of {} replicas",
            self.replicas.len()
        );
        let is_reached = |least: Watermark| {
            self.replicas.iter().filter(|entry| mark(entry) >= least).count() >= needed
        };
        self.replicas.iter().map(&mark).filter(|m| is_reached(*m)).max().unwrap_or_default()
    }

    /// All replicas.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..u8::try_from(self.replicas.len()).unwrap_or(u8::MAX)).map(ReplicaId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executed(replica: u8, life: u64, executed: u64, nonce: Option<u64>) -> Executed {
        Executed {
            replica: ReplicaId(replica),
            incarnation: Incarnation(life),
            executed: Watermark(executed),
            snapshot: Watermark(executed / 2),
            nonce,
        }
    }

    fn introduce(roster: &mut Roster, replica: u8, life: u64, at: u64) {
        let nonce = roster.on_executed(&executed(replica, life, at, None), Time(0));
        assert!(nonce.is_some(), "an unknown life is asked");
        assert_eq!(roster.on_executed(&executed(replica, life, at, nonce), Time(0)), None);
    }

    /// R5: the (f+1)-th largest, by distinct replica.
    #[test]
    fn r05_f_plus_1_replicas_have_executed_it() {
        let mut roster = Roster::new(3, 1);
        introduce(&mut roster, 0, 10, 100);
        assert_eq!(roster.executed_by_f_plus_1(1), Watermark(0));
        introduce(&mut roster, 2, 12, 70);
        assert_eq!(roster.executed_by_f_plus_1(1), Watermark(70));
        assert_eq!(roster.on_executed(&executed(0, 10, 200, None), Time(0)), None);
        assert_eq!(roster.executed_by_f_plus_1(1), Watermark(70), "one replica counts once");
    }

    /// R16: a restart lowers the mark, and the former life's late messages do not raise it again.
    #[test]
    fn r16_a_replaced_life_never_counts_again() {
        let mut roster = Roster::new(2, 1);
        introduce(&mut roster, 0, 10, 100);
        introduce(&mut roster, 1, 11, 100);
        assert_eq!(roster.executed_by_f_plus_1(1), Watermark(100));
        introduce(&mut roster, 0, 20, 3);
        assert_eq!(roster.executed_by_f_plus_1(1), Watermark(3));
        for nonce in [None, Some(1)] {
            assert_eq!(roster.on_executed(&executed(0, 10, 150, nonce), Time(0)), None);
            assert_eq!(roster.executed_by_f_plus_1(1), Watermark(3), "a replaced life");
        }
    }

    /// R16: likewise of snapshots, each replica counted once, and a former life's never again.
    #[test]
    fn r16_f_plus_1_replicas_hold_snapshots_of_it_in_their_current_lives() {
        let mut roster = Roster::new(3, 1);
        introduce(&mut roster, 0, 10, 100);
        assert_eq!(roster.snapshot_by_f_plus_1(1), Watermark(0));
        introduce(&mut roster, 2, 12, 60);
        assert_eq!(roster.snapshot_by_f_plus_1(1), Watermark(30));
        assert_eq!(roster.on_executed(&executed(0, 10, 200, None), Time(0)), None);
        assert_eq!(roster.snapshot_by_f_plus_1(1), Watermark(30), "one replica counts once");
        introduce(&mut roster, 0, 20, 4);
        assert_eq!(roster.snapshot_by_f_plus_1(1), Watermark(2), "a wiped directory");
        assert_eq!(roster.on_executed(&executed(0, 10, 300, None), Time(0)), None);
        assert_eq!(roster.snapshot_by_f_plus_1(1), Watermark(2), "a former life");
    }

    #[test]
    fn r16_replicas_that_are_up_are_waited_for_and_others_are_not() {
        let (mut roster, grace) = (Roster::new(3, 1), Duration::from_nanos(5));
        assert_eq!(roster.snapshot_by_all_up(Time(0), grace), None);
        introduce(&mut roster, 0, 10, 100);
        introduce(&mut roster, 1, 11, 60);
        assert_eq!(roster.snapshot_by_all_up(Time(4), grace), Some(Watermark(30)));
        assert_eq!(roster.on_executed(&executed(0, 10, 200, None), Time(4)), None);
        assert_eq!(roster.snapshot_by_all_up(Time(5), grace), Some(Watermark(100)));
        assert_eq!(roster.snapshot_by_all_up(Time(9), grace), None);
    }

    #[test]
    fn a_new_life_is_asked_with_one_nonce_however_often_it_is_heard() {
        let mut roster = Roster::new(1, 1);
        let nonce = roster.on_executed(&executed(0, 10, 5, None), Time(0));
        assert!(nonce.is_some(), "an unknown life is asked, not believed");
        for stale in [None, nonce.map(|n| n ^ 1)] {
            let again = roster.on_executed(&executed(0, 10, 5, stale), Time(0));
            assert_eq!(again, nonce, "two nonces would outdate each other");
        }
        assert_eq!(roster.executed_by_f_plus_1(0), Watermark(0));
        assert_eq!(roster.on_executed(&executed(0, 10, 5, nonce), Time(0)), None);
        assert_eq!(roster.executed_by_f_plus_1(0), Watermark(5));
    }
}
