//! Formation, as an acceptor takes part in it: it tells of its memory, and stores one table for
//! good.

use std::sync::Arc;

use super::Acceptor;
use crate::{
    Ballot, Event, Form, Formed, Outbox, Probe, ProbeAck, Record, Rememberer, Table, ToProposer,
};

impl Acceptor {
    /// Formation: tells whether this memory has ever done anything, and which table it holds.
    ///
    /// source: R3, R4
    pub fn on_probe(&mut self, probe: Probe, out: &mut Outbox) {
        if probe.cluster_digest != self.cluster.digest() {
            return self.refuse_foreign("acceptor: probe of another quorum system", out);
        }
        let ack = ProbeAck {
            from: Rememberer::Acceptor(self.id),
            nonce: probe.nonce,
            directory: self.directory,
            is_blank: self.membership.table().is_none(),
            origin: None,
            table: self.membership.table().cloned(),
        };
        // A table that is told of counts as stored: it waits for its sync like `Formed` does.
        out.hold_to_proposer(probe.proposer, ToProposer::ProbeAck(Box::new(ack)));
    }

    /// Formation: stores the first table that names this memory, for good, and tells which one it
    /// has.
    ///
    /// Stored before it is told (held lane): a table is taken to stand by what acceptors say they
    /// hold.
    ///
    /// source: R4
    pub fn on_form(&mut self, form: &Form, out: &mut Outbox) {
        if self.membership.table().is_none() {
            if !form.table.names(self.id, self.directory) {
                self.counters.foreign += 1;
                return out.event(Event::Forgotten { acceptor: self.id });
            }
            if !self.join(&form.table, out) {
                return self.refuse_foreign("acceptor: table of another quorum system", out);
            }
        }
        let Some(table) = self.membership.table().cloned() else { return };
        let formed = Formed { acceptor: self.id, directory: self.directory, table };
        out.hold_to_proposer(form.proposer, ToProposer::Formed(formed));
    }

    /// Joins the cluster of `table`, if none was joined; returns whether it is the one joined now.
    /// What lies below the start of its log is forgotten by then.
    ///
    /// source: R4
    pub(super) fn join(&mut self, table: &Arc<Table>, out: &mut Outbox) -> bool {
        let was_member = self.membership.table().is_some();
        let is_joined = self.membership.join(table);
        if is_joined && !was_member {
            let is_ours = table.names(self.id, self.directory);
            assert!(is_ours, "{:?} joined a cluster that does not know its memory", self.id);
            assert_eq!(self.promised, Ballot::default(), "promised before it joined");
            let (acceptor, start) = (self.id, table.start());
            let table = Arc::clone(table);
            self.ledger.record(|| Record::Table { acceptor, table }, out);
            self.ledger.start_at(start);
        }
        is_joined
    }

    pub(super) fn refuse_foreign(&mut self, at: &'static str, out: &mut Outbox) {
        self.counters.foreign += 1;
        out.event(Event::Foreign { at });
    }
}
