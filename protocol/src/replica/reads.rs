//! Reads of gateways: answered from the state as it is, once enough is executed.
//!
//! A read that has to wait has the slots it waits for asked for, as if they were known to be chosen
//! (R20): from peers, and from acceptors, whose votes may show that they are. If they were never
//! chosen, the gateway has the leader fill them.
//!
//! While a snapshot is restored the machine is in the state of no slot, and all reads wait. A
//! replica that has halted answers none.
//!
//! source: R20, R21, \[CP §3.4\]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Replica;
use crate::{
    ClusterSettings, GatewayId, Incarnation, Items, Outbox, Read, ReadResults, StateMachine, Time,
    ToGateway, Watermark,
};

/// Reads that wait, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<(Watermark, GatewayId, Incarnation, u64), Arc<Read>>);

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The bound of what they wait for.
    pub(super) fn wanted(&self) -> Watermark {
        self.0.last_key_value().map_or(Watermark(0), |((at_least, ..), _)| *at_least)
    }

    /// Takes the next one out that waits for no more than `executed`.
    fn take(&mut self, executed: Watermark) -> Option<Arc<Read>> {
        let first = self.0.first_entry()?;
        (first.key().0 <= executed).then(|| first.remove())
    }
}

/// The most groups of reads that gateways have under way at once.
pub(super) fn results_held_max(cluster: &ClusterSettings) -> usize {
    usize::from(cluster.gateways) * cluster.batches_in_flight_max as usize
}

impl<M: StateMachine> Replica<M> {
    /// Answers a group of reads, now or once enough is executed.
    ///
    /// More wait than gateways can have under way only if some were started anew, or have asked
    /// another replica since: they ask again, if it matters.
    ///
    /// source: R20, R29, \[CP §3.4\]
    pub fn on_read(&mut self, read: Arc<Read>, now: Time, out: &mut Outbox) {
        if read.gateway.0 >= self.cluster.gateways {
            self.counters.foreign += 1;
            return out.ignored("Read: of no gateway");
        }
        if self.halted.is_some() {
            return self.tell_halted(read.gateway, out);
        }
        if self.restoring.is_none() && self.executed >= read.at_least {
            return self.answer_read(&read, out);
        }
        if self.reads.0.len() >= results_held_max(&self.cluster) {
            self.counters.reads_refused += 1;
            return out.ignored("Read: too many wait");
        }
        self.counters.reads_waited += 1;
        let key = (read.at_least, read.gateway, read.incarnation, read.group);
        self.reads.0.insert(key, read);
        self.watch_gap(now);
    }

    /// Answers what has waited for no more than is executed.
    pub(super) fn answer_waiting(&mut self, out: &mut Outbox) {
        assert!(self.restoring.is_none(), "read from a state that is being restored");
        while let Some(read) = self.reads.take(self.executed) {
            self.answer_read(&read, out);
        }
    }

    fn answer_read(&mut self, read: &Read, out: &mut Outbox) {
        assert!(self.executed >= read.at_least, "read at {}, too early", self.executed);
        assert!(self.halted.is_none(), "read from a state that is of no slot");
        let replies = self.executor.query(self.executed, Items::new(read.queries.as_slice()));
        let bytes = replies.len();
        let results = ReadResults {
            replica: self.id,
            incarnation: read.incarnation,
            group: read.group,
            first: read.first,
            executed: self.executed,
            replies,
        };
        let results = self.read_results.hand_out_holding(bytes, results);
        out.tell_gateway(read.gateway, ToGateway::ReadResults(results));
    }

    pub(super) fn validate_reads(&self) {
        let may_wait = self.restoring.is_some();
        let first = self.reads.0.first_key_value();
        let is_due = first.is_some_and(|((at_least, ..), _)| *at_least <= self.executed);
        assert!(!is_due || may_wait, "a read waits for what is executed");
        assert!(
            self.reads.is_empty() || self.halted.is_none(),
            "reads wait for one that has halted"
        );
    }
}
