//! Formation, as a proposer drives it: memories are asked for, and the table that names them is
//! offered.

use std::sync::Arc;

use crate::{Event, Form, Formed, Outbox, Probe, ProbeAck, Time, ToAcceptor, ToReplica};

use super::ProposerTimer;
use super::shared::Shared;

impl Shared {
    /// Counts a memory.
    ///
    /// source: R4
    pub(super) fn on_probe_ack(&mut self, ack: &ProbeAck, now: Time, out: &mut Outbox) {
        let next_nonce = self.rng.next_u64();
        let goes_on = self.former.on_probe_ack(ack, next_nonce);
        if self.former.take_origins_differed() {
            out.event(Event::OriginsDiffer { proposer: self.id });
        }
        self.after_formation_step(now, out);
        if goes_on {
            self.form(now, out);
        }
    }

    /// Counts a stored table.
    ///
    /// source: R4
    pub(super) fn on_formed(&mut self, formed: &Formed, now: Time, out: &mut Outbox) {
        self.former.on_formed(formed);
        self.after_formation_step(now, out);
    }

    /// Asks for the memories, or tables, that formation misses.
    ///
    /// source: R4, R27
    pub(super) fn form(&mut self, now: Time, out: &mut Outbox) {
        if self.former.standing().is_some() {
            return;
        }
        self.timers.set(ProposerTimer::Formation, now + self.cluster.heartbeat_interval);
        if let Some(nonce) = self.former.probe_nonce() {
            let cluster_digest = self.cluster.digest();
            let probe = Probe { proposer: self.id, nonce, cluster_digest };
            for acceptor in self.cluster.quorums.acceptors().iter() {
                out.tell_acceptor(acceptor, ToAcceptor::Probe(probe));
            }
            for replica in self.roster.replicas() {
                out.tell_replica(replica, ToReplica::Probe(probe));
            }
        }
        self.say_form(out);
    }

    /// Offers the table to every acceptor that is not known to have one.
    ///
    /// source: R4
    pub(super) fn say_form(&self, out: &mut Outbox) {
        let Some((table, missing)) = self.former.to_store() else { return };
        for acceptor in missing.iter() {
            let form = Form { proposer: self.id, table: Arc::clone(table) };
            out.tell_acceptor(acceptor, ToAcceptor::Form(form));
        }
    }

    /// Joins the table once it stands; proposer 0 then campaigns at once, the others in their turn.
    ///
    /// source: R4
    pub(super) fn after_formation_step(&mut self, now: Time, out: &mut Outbox) {
        let Some(table) = self.former.standing() else { return };
        let is_new = self.membership.table().is_none();
        if is_new && self.membership.join(&Arc::clone(table)) {
            let formation = table.id();
            out.event(Event::Formed { proposer: self.id, formation });
        }
        if !self.timers.is_set(ProposerTimer::Election) && !self.has_left {
            let turn = self.cluster.election_stagger * u32::from(self.id.0);
            self.timers.set(ProposerTimer::Election, now + turn);
            self.timers.stop(ProposerTimer::Formation);
        }
    }
}
