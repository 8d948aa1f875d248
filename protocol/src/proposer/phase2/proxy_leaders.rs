//! Which proxy leader gets a slot, and which ones hold slots up.

use std::time::Duration;

use crate::{Outbox, ProxyLeaderId, Slot, Time, Watermark};

use super::Phase2;

/// The least that a proxy leader is said to have held others up for: zero means not measured.
const HOLD_MIN: Duration = Duration::from_micros(1);

impl Phase2 {
    /// Measures, for the slots below `to` that are about to be closed, how long each proxy leader
    /// has held all others up: the one of the first slot since there was progress last, the others
    /// not at all. Returns the former.
    ///
    /// A slot that was asked for again tells nothing: it may have been chosen by either.
    pub(super) fn measure_holds(&mut self, to: Watermark, now: Time) -> Option<ProxyLeaderId> {
        let mut unmeasured = self.cluster.proxy_leaders_of(self.ballot.proposer).len();
        if self.attempt > 0 || unmeasured == 1 {
            return None;
        }
        let first = self.open.at(self.floor.first_open())?;
        let (held_by, since) = (first.via, self.progress_at.max(first.asked_at.1));
        for slot in (self.floor.0..to.0).map(Slot) {
            if unmeasured == 0 {
                break;
            }
            let Some(open) = self.open.at(slot) else { continue };
            let suspicion = &mut self.suspicions[usize::from(open.via.0)];
            if suspicion.measured < to {
                unmeasured -= 1;
                let held_for = if open.via == held_by { now.since(since) } else { Duration::ZERO };
                if suspicion.holds.mean().is_zero() {
                    suspicion.holds.sample(HOLD_MIN);
                }
                // One slot may be late for many reasons: it takes two in a row to be slow.
                suspicion.holds.sample(held_for.clamp(HOLD_MIN, 8 * self.cluster.resend_min));
                suspicion.measured = to;
            }
        }
        Some(held_by)
    }

    /// Whether slots in the hands of a proxy leader hold others up much longer than those of some
    /// other that is not suspected.
    pub(super) fn is_slow(&self, proxy_leader: ProxyLeaderId) -> bool {
        let hold = |p: ProxyLeaderId| self.suspicions[usize::from(p.0)].holds.mean();
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer).map(ProxyLeaderId);
        let others = ours.filter(|p| *p != proxy_leader && !self.is_suspected(*p));
        let least = others.map(hold).filter(|hold| !hold.is_zero()).min();
        least.is_some_and(|least| hold(proxy_leader) > 2 * least + self.cluster.resend_min)
    }

    /// Hears a proxy leader: it is alive, and may be tried again if its time has come.
    ///
    /// source: R12
    pub(super) fn on_proxy_leader(&mut self, proxy_leader: ProxyLeaderId, now: Time) {
        if let Some(suspicion) = self.suspicions.get_mut(usize::from(proxy_leader.0)) {
            suspicion.until.take_if(|until| *until <= now);
        }
    }

    /// Takes in that the life of a proxy leader has ended: what is in its hands goes elsewhere at
    /// once.
    ///
    /// source: R12, R28
    pub(in crate::proposer) fn on_gone(
        &mut self,
        gone: ProxyLeaderId,
        now: Time,
        out: &mut Outbox,
    ) {
        if usize::from(gone.0) < self.suspicions.len() {
            self.give_to_others(gone, now, out);
        }
    }

    /// Suspects a proxy leader, and gives what is in its hands to others.
    pub(super) fn give_to_others(&mut self, blamed: ProxyLeaderId, now: Time, out: &mut Outbox) {
        if !self.suspect(blamed, now) {
            return;
        }
        for slot in (self.floor.0..self.sent.0).map(Slot) {
            if self.open.at(slot).is_some_and(|open| open.via == blamed) {
                self.ask(slot, now, out);
            }
        }
    }

    /// Suspects a proxy leader, if there is another to try; returns whether that is new. Where all
    /// others are suspected already they are cleared: the one that fails now is no better.
    pub(super) fn suspect(&mut self, proxy_leader: ProxyLeaderId, now: Time) -> bool {
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer);
        if ours.len() == 1 || self.is_suspected(proxy_leader) {
            return false;
        }
        assert!(ours.contains(&proxy_leader.0), "{proxy_leader:?} does not work for this leader");
        if ours.clone().map(ProxyLeaderId).all(|p| p == proxy_leader || self.is_suspected(p)) {
            ours.for_each(|p| self.suspicions[usize::from(p)].until = None);
        }
        let suspicion = &mut self.suspicions[usize::from(proxy_leader.0)];
        suspicion.until =
            Some(now + self.cluster.election_timeout * (1 << suspicion.trials.min(6)));
        suspicion.trials += 1;
        true
    }

    fn is_suspected(&self, proxy_leader: ProxyLeaderId) -> bool {
        self.suspicions[usize::from(proxy_leader.0)].until.is_some()
    }

    /// The proxy leader of `slot`: they take turns by slot, and by attempt, leaving out suspects
    /// while there are others.
    ///
    /// source: \[seed\], "slot % proxies"
    pub(super) fn proxy_leader_for(&self, slot: Slot) -> ProxyLeaderId {
        let ours = self.cluster.proxy_leaders_of(self.ballot.proposer);
        let count = u64::try_from(ours.len()).unwrap_or(u64::MAX);
        let turn = slot.0.wrapping_add(u64::from(self.attempt)) % count;
        let in_turn = |i: u64| {
            let offset = u8::try_from((turn + i) % count).unwrap_or(0);
            ProxyLeaderId(ours.start + offset)
        };
        let healthy = (0..count).map(in_turn).find(|p| !self.is_suspected(*p));
        healthy.unwrap_or_else(|| in_turn(0))
    }
}
