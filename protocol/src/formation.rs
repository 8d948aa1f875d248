//! Formation: how a cluster of blank memories agrees, once, on which memories are its acceptors.
//!
//! ```text
//!  Probing(first) ──all blank──▶ Probing(second) ──all blank, same ids──▶ Storing ──▶ Standing
//!       │                             │                                    ▲   a read and a write
//!       └──────── an acceptor has a table ─────────────────────────────────┘   quorum hold the table
//! ```
//!
//! An acceptor that has forgotten must not count: its promise and its votes are what a chosen value
//! rests on. So a cluster is the *table* of its acceptors' directory ids, and an acceptor whose id
//! is not in its place of the table neither promises nor votes.
//!
//! Could two tables stand? A table stands when a read and a write quorum have stored it, an
//! acceptor stores the first one for good, and every read quorum meets every write quorum: the
//! acceptor in which one's read quorum meets the other's write quorum would have to hold both.
//!
//! Could a table be drawn up over a cluster that has already worked? It takes all acceptors and all
//! replicas to be blank at one moment. Every id answered the first probe before the second was
//! sent, and answered the second unchanged: at the moment between, all those memories were up and
//! blank. A memory that has a table, or has executed a slot, is not blank.
//!
//! Could a log start from a snapshot that some replica does not have? All replicas must have
//! answered both probes with the same one, which each has restored; the table names it for good,
//! and a replica that has restored another joins no cluster of that table. An acceptor that stores
//! the table has forgotten all below the snapshot's slot, and so has every other.
//!
//! source: R4

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::digest::Digest;
use crate::{
    AcceptorId, AcceptorSet, DirectoryId, FormationId, Formed, ProbeAck, QuorumSystem, Rememberer,
    SnapshotId, Watermark,
};

/// The acceptors that make up a cluster, by their memories.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Table {
    /// What nodes of the cluster agree on (R3).
    cluster_digest: u64,
    /// The acceptors' directories, in order.
    acceptors: Box<[DirectoryId]>,
    /// The snapshot that its log starts from, if it does not start with nothing.
    origin: Option<SnapshotId>,
}

impl Table {
    /// Returns the table of `acceptors`, of a cluster whose nodes agree on `cluster_digest`.
    #[must_use]
    pub fn new(cluster_digest: u64, acceptors: Box<[DirectoryId]>) -> Self {
        Self { cluster_digest, acceptors, origin: None }
    }

    /// Returns this table for a log that starts from the snapshot `origin`, or with nothing.
    #[must_use]
    pub fn with_origin(self, origin: Option<SnapshotId>) -> Self {
        Self { origin, ..self }
    }

    /// The snapshot that the log starts from, if it does not start with nothing.
    #[must_use]
    pub fn origin(&self) -> Option<SnapshotId> {
        self.origin
    }

    /// Where the log starts: all below is in the state that every replica began with.
    #[must_use]
    pub fn start(&self) -> Watermark {
        self.origin.map_or(Watermark(0), |origin| origin.at)
    }

    /// Its hash: the cluster's formation id. Never [`FormationId::NONE`].
    #[must_use]
    pub fn id(&self) -> FormationId {
        let seed = Digest::new("loggos formation").word(self.cluster_digest);
        let mut digest = self.acceptors.iter().fold(seed, |digest, a| digest.word(a.0));
        if let Some(SnapshotId { at, replica, incarnation }) = self.origin {
            digest = digest.word(at.0).word(replica.0.into()).word(incarnation.0);
        }
        FormationId(digest.finish().max(1))
    }

    /// Whether `directory` is what `acceptor`'s place holds.
    #[must_use]
    pub fn names(&self, acceptor: AcceptorId, directory: DirectoryId) -> bool {
        self.acceptors.get(usize::from(acceptor.0)) == Some(&directory)
    }

    /// What the nodes that drew it up agree on (R3).
    #[must_use]
    pub fn cluster_digest(&self) -> u64 {
        self.cluster_digest
    }

    /// Whether it is of a cluster whose nodes agree on `cluster_digest`, and names each of its
    /// acceptors. A directory beyond these would have the vote of an acceptor that there is not
    /// count.
    ///
    /// source: R3, R4
    fn is_of(&self, cluster_digest: u64, acceptors_count: u8) -> bool {
        self.cluster_digest == cluster_digest
            && self.acceptors.len() == usize::from(acceptors_count)
    }

    /// The acceptors' directories, in the order of their ids.
    #[must_use]
    pub fn acceptors(&self) -> &[DirectoryId] {
        &self.acceptors
    }
}

/// A role's knowledge of its cluster: none, or a table for good.
///
/// source: R4, "every role and client refuses another formation"
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Membership {
    cluster_digest: u64,
    acceptors_count: u8,
    /// The formation that it belonged to in an earlier life, for good.
    belongs_to: Option<FormationId>,
    /// The snapshot of which it has the state, to start a log from.
    origin: Option<SnapshotId>,
    known: Option<(FormationId, Arc<Table>)>,
}

impl Membership {
    /// Returns a membership of nothing yet, that accepts only tables of `cluster_digest` that name
    /// `acceptors_count` acceptors.
    #[must_use]
    pub fn new(cluster_digest: u64, acceptors_count: u8) -> Self {
        Self { cluster_digest, acceptors_count, belongs_to: None, origin: None, known: None }
    }

    /// Accepts from now on only the table of `formation`, which what the role has on disk is of.
    pub(crate) fn belong_to(&mut self, formation: FormationId) {
        assert!(self.known.is_none(), "a member changes its formation");
        self.belongs_to = Some(formation);
    }

    /// Accepts from now on only tables of logs that start from `origin`, of which this memory has
    /// the state; with `None` those of any log, for it has none.
    pub(crate) fn start_from(&mut self, origin: Option<SnapshotId>) {
        assert!(self.known.is_none(), "a member changes where its log starts");
        self.origin = origin;
    }

    /// The snapshot that it starts a log from, if it has restored one for that.
    #[must_use]
    pub fn origin(&self) -> Option<SnapshotId> {
        self.origin
    }

    /// The formation, if known.
    #[must_use]
    pub fn formation(&self) -> Option<FormationId> {
        self.known.as_ref().map(|(id, _)| *id)
    }

    /// The table, if known.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<Table>> {
        self.known.as_ref().map(|(_, table)| table)
    }

    /// Joins the cluster of `table`, if none was joined; returns whether it is the one joined now.
    pub fn join(&mut self, table: &Arc<Table>) -> bool {
        if !table.is_of(self.cluster_digest, self.acceptors_count) {
            return false;
        }
        if self.known.is_some() {
            return self.is_joined(table);
        }
        let id = table.id();
        if self.belongs_to.is_some_and(|formation| formation != id)
            || self.origin.is_some() && self.origin != table.origin
        {
            return false;
        }
        self.known = Some((id, Arc::clone(table)));
        true
    }

    /// Whether `table` is the one joined.
    #[must_use]
    pub fn is_joined(&self, table: &Arc<Table>) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|(id, known)| Arc::ptr_eq(known, table) || *id == table.id())
    }

    /// Whether `acceptor` with `directory` is in its place of the table.
    #[must_use]
    pub fn names(&self, acceptor: AcceptorId, directory: DirectoryId) -> bool {
        self.known.as_ref().is_some_and(|(_, table)| table.names(acceptor, directory))
    }
}

/// A proposer's part in formation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Former {
    quorums: QuorumSystem,
    cluster_digest: u64,
    replicas_count: u8,
    /// Names the probe under way.
    nonce: u64,
    stage: FormerStage,
    /// The table each acceptor is known to hold, by its hash.
    stored: BTreeMap<FormationId, AcceptorSet>,
    /// Whether replicas were found to start from different snapshots, since that was last asked.
    have_origins_differed: bool,
}

/// A memory that has answered as blank: its identity, and the snapshot that it starts from.
type Memory = (DirectoryId, Option<SnapshotId>);

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum FormerStage {
    /// Asking all memories: `first` has the ids of a completed first probe.
    Probing {
        answers: BTreeMap<Rememberer, Memory>,
        first: Option<BTreeMap<Rememberer, Memory>>,
    },
    Storing(Arc<Table>),
    Standing(Arc<Table>),
}

impl Former {
    /// Returns a former that has asked no memory yet; its first probe is named `nonce`.
    #[must_use]
    pub fn new(quorums: QuorumSystem, cluster_digest: u64, replicas_count: u8, nonce: u64) -> Self {
        let stage = FormerStage::Probing { answers: BTreeMap::new(), first: None };
        let stored = BTreeMap::new();
        let have_origins_differed = false;
        Self {
            quorums,
            cluster_digest,
            replicas_count,
            nonce,
            stage,
            stored,
            have_origins_differed,
        }
    }

    /// Whether replicas were found to start from different snapshots, or some from none, since this
    /// was last asked: no cluster is formed of these.
    pub fn take_origins_differed(&mut self) -> bool {
        std::mem::take(&mut self.have_origins_differed)
    }

    /// The probe under way, while there is one.
    #[must_use]
    pub fn probe_nonce(&self) -> Option<u64> {
        matches!(self.stage, FormerStage::Probing { .. }).then_some(self.nonce)
    }

    /// The table to be stored, or that stands, and the acceptors not known to hold one: a table
    /// stands before all have it, and those that could not be reached then must not stay without.
    #[must_use]
    pub fn to_store(&self) -> Option<(&Arc<Table>, AcceptorSet)> {
        let table = match &self.stage {
            FormerStage::Probing { .. } => return None,
            FormerStage::Storing(table) | FormerStage::Standing(table) => table,
        };
        let have = self.stored.values().fold(AcceptorSet::default(), |all, set| all.union(*set));
        Some((table, self.quorums.acceptors().without(have)))
    }

    /// The table, once it stands.
    #[must_use]
    pub fn standing(&self) -> Option<&Arc<Table>> {
        match &self.stage {
            FormerStage::Standing(table) => Some(table),
            FormerStage::Probing { .. } | FormerStage::Storing(_) => None,
        }
    }

    /// Counts the answer to a probe; returns whether that was the last one it waited for, and there
    /// is more to ask now. The next probe is named `next_nonce`.
    ///
    /// source: R4
    pub fn on_probe_ack(&mut self, ack: &ProbeAck, next_nonce: u64) -> bool {
        if let (Some(table), Rememberer::Acceptor(acceptor)) = (&ack.table, ack.from) {
            let was_probing = matches!(self.stage, FormerStage::Probing { .. });
            self.on_table(acceptor, ack.directory, table);
            return was_probing;
        }
        let memories =
            usize::from(self.quorums.acceptors_count()) + usize::from(self.replicas_count);
        let FormerStage::Probing { answers, first } = &mut self.stage else {
            return false;
        };
        let is_ours = match ack.from {
            Rememberer::Acceptor(id) => self.quorums.acceptors().contains(id),
            Rememberer::Replica(id) => id.0 < self.replicas_count,
        };
        if ack.nonce != self.nonce || !is_ours {
            return false;
        }
        if !ack.is_blank {
            // A memory remembers a cluster: no new one may be drawn up over it. The table will come
            // from an acceptor; until then, ask again from the start, when it is time.
            answers.clear();
            *first = None;
            self.nonce = next_nonce;
            return false;
        }
        answers.insert(ack.from, (ack.directory, ack.origin));
        assert!(answers.len() <= memories, "{} of {memories} have answered", answers.len());
        if answers.len() < memories {
            return false;
        }
        self.nonce = next_nonce;
        let answers = std::mem::take(answers);
        if first.as_ref() != Some(&answers) {
            *first = Some(answers);
            return true;
        }
        let mut origins = answers.iter().filter_map(|(from, (_, origin))| match from {
            Rememberer::Acceptor(_) => None,
            Rememberer::Replica(_) => Some(*origin),
        });
        let origin = origins.next().flatten();
        if !origins.all(|other| other == origin) {
            self.have_origins_differed = true;
            return false; // asked again, from the start, when it is time
        }
        let acceptors = answers.iter().filter_map(|(from, (directory, _))| match from {
            Rememberer::Acceptor(_) => Some(*directory), // in order, as the map is
            Rememberer::Replica(_) => None,
        });
        let table = Table::new(self.cluster_digest, acceptors.collect()).with_origin(origin);
        let named = table.acceptors().len();
        assert_eq!(named, usize::from(self.quorums.acceptors_count()), "a table of some acceptors");
        self.stage = FormerStage::Storing(Arc::new(table));
        true
    }

    /// Counts the table that an acceptor holds.
    ///
    /// source: R4
    pub fn on_formed(&mut self, formed: &Formed) {
        self.on_table(formed.acceptor, formed.directory, &formed.table);
    }

    /// Takes in that a leader works with `table`, which therefore stands.
    pub fn on_standing(&mut self, table: &Arc<Table>) {
        let is_ours = table.is_of(self.cluster_digest, self.quorums.acceptors_count());
        if is_ours && self.standing().is_none() {
            self.stage = FormerStage::Standing(Arc::clone(table));
        }
    }

    /// A proposer that meets a table anywhere adopts it; one that a read and a write quorum hold
    /// stands, and no other can.
    ///
    /// source: R4
    fn on_table(&mut self, acceptor: AcceptorId, directory: DirectoryId, table: &Arc<Table>) {
        let is_ours = table.is_of(self.cluster_digest, self.quorums.acceptors_count());
        if !is_ours || !table.names(acceptor, directory) {
            return;
        }
        let stored = self.stored.entry(table.id()).or_default();
        stored.insert(acceptor);
        if matches!(self.stage, FormerStage::Standing(_)) {
            return; // even if all memories are lost since, and another cluster was formed of new ones
        }
        if self.quorums.is_read_quorum(*stored) && self.quorums.is_write_quorum(*stored) {
            self.stage = FormerStage::Standing(Arc::clone(table));
        } else if matches!(self.stage, FormerStage::Probing { .. }) {
            self.stage = FormerStage::Storing(Arc::clone(table));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplicaId;

    fn former() -> Former {
        let quorums = QuorumSystem::grid(2, 2, 1).unwrap();
        Former::new(quorums, quorums.digest(1), 2, 100)
    }

    fn memories() -> impl Iterator<Item = Rememberer> {
        let acceptors = (0..4).map(|a| Rememberer::Acceptor(AcceptorId(a)));
        acceptors.chain((0..2).map(|r| Rememberer::Replica(ReplicaId(r))))
    }

    fn ack(from: Rememberer, nonce: u64, directory: u64) -> ProbeAck {
        let directory = DirectoryId(directory);
        ProbeAck { from, nonce, directory, is_blank: true, origin: None, table: None }
    }

    fn answer_all(former: &mut Former, directory: u64) {
        let nonce = former.probe_nonce().expect("probing");
        for memory in memories() {
            former.on_probe_ack(&ack(memory, nonce, directory), nonce + 1);
        }
    }

    fn formed(acceptor: u8, table: &Arc<Table>) -> Formed {
        let directory = table.acceptors[usize::from(acceptor)];
        Formed { acceptor: AcceptorId(acceptor), directory, table: Arc::clone(table) }
    }

    #[test]
    fn r04_a_table_takes_two_probes_of_all_memories_with_the_same_ids() {
        let mut former = former();
        answer_all(&mut former, 7);
        assert!(former.to_store().is_none(), "after one probe");
        answer_all(&mut former, 8);
        assert!(former.to_store().is_none(), "after two probes that differ");
        answer_all(&mut former, 8);
        let (table, missing) = former.to_store().expect("storing");
        assert_eq!((table.acceptors.len(), missing.len()), (4, 4));
    }

    #[test]
    fn r04_an_answer_to_the_first_probe_does_not_count_for_the_second() {
        let mut former = former();
        let first = former.probe_nonce().expect("probing");
        answer_all(&mut former, 7);
        for memory in memories() {
            assert!(!former.on_probe_ack(&ack(memory, first, 7), 999), "a stale answer");
        }
        assert!(former.to_store().is_none());
    }

    #[test]
    fn r04_a_memory_that_is_not_blank_stops_a_new_table() {
        let mut former = former();
        answer_all(&mut former, 7);
        let nonce = former.probe_nonce().expect("probing");
        let mut used = ack(Rememberer::Replica(ReplicaId(1)), nonce, 7);
        used.is_blank = false;
        assert!(!former.on_probe_ack(&used, nonce + 1), "asked again without waiting");
        for memory in memories() {
            former.on_probe_ack(&ack(memory, nonce, 7), nonce + 2);
        }
        assert!(former.to_store().is_none());
        answer_all(&mut former, 7);
        assert!(former.to_store().is_none(), "both probes start over");
    }

    #[test]
    fn r04_an_answer_from_outside_the_cluster_does_not_count() {
        let mut former = former();
        let strangers = [Rememberer::Acceptor(AcceptorId(4)), Rememberer::Replica(ReplicaId(2))];
        for _ in 0..2 {
            let nonce = former.probe_nonce().expect("probing");
            for memory in memories().skip(2).chain(strangers) {
                assert!(!former.on_probe_ack(&ack(memory, nonce, 7), nonce + 1), "{memory:?}");
            }
        }
        assert!(former.to_store().is_none(), "two acceptors have not answered");
    }

    #[test]
    fn r04_a_table_that_names_more_acceptors_or_fewer_than_there_are_is_refused() {
        let digest = former().quorums.digest(1);
        for (count, is_ours) in [(3, false), (4, true), (5, false)] {
            let table = Table::new(digest, (0..count).map(DirectoryId).collect());
            let table = Arc::new(table);
            let mut membership = Membership::new(digest, 4);
            assert_eq!(membership.join(&table), is_ours, "{count} acceptors");
            assert!(is_ours || !membership.names(AcceptorId(0), DirectoryId(0)));
            let mut former = former();
            (0..4).for_each(|acceptor| {
                if usize::from(acceptor) < table.acceptors.len() {
                    former.on_formed(&formed(acceptor, &table));
                }
            });
            assert_eq!(former.standing().is_some(), is_ours, "{count} acceptors");
        }
    }

    #[test]
    fn r04_a_table_stands_once_a_read_and_a_write_quorum_hold_it() {
        let mut former = former();
        answer_all(&mut former, 7);
        answer_all(&mut former, 7);
        let table = Arc::clone(former.to_store().expect("storing").0);
        for acceptor in [0, 1, 1] {
            former.on_formed(&formed(acceptor, &table));
            assert!(former.standing().is_none(), "a row is no read quorum");
        }
        former.on_formed(&formed(2, &table));
        assert_eq!(former.standing(), Some(&table));
        let missing = former.to_store().expect("the table").1;
        assert!(
            missing.iter().eq([AcceptorId(3)]),
            "an acceptor that could not be reached is still offered it"
        );
    }

    #[test]
    fn r04_a_table_met_anywhere_is_adopted_and_a_forgetful_acceptor_does_not_count() {
        let mut former = former();
        let directories = (0..4).map(DirectoryId).collect();
        let quorums = QuorumSystem::grid(2, 2, 1).unwrap();
        let table = Arc::new(Table::new(quorums.digest(1), directories));
        let mut forgetful = formed(0, &table);
        forgetful.directory = DirectoryId(77);
        former.on_formed(&forgetful);
        assert!(former.to_store().is_none());
        former.on_formed(&formed(3, &table));
        assert_eq!(former.to_store().map(|(t, _)| t), Some(&table));
    }

    /// R3: a table drawn up under another quorum system, or another f, is refused.
    #[test]
    fn r03_a_table_of_another_quorum_system_is_refused() {
        let quorums = QuorumSystem::grid(2, 2, 1).unwrap();
        let table = |digest| Arc::new(Table::new(digest, (0..4).map(DirectoryId).collect()));
        let mut membership = Membership::new(quorums.digest(1), quorums.acceptors_count());
        assert!(!membership.join(&table(quorums.digest(0))));
        assert_eq!(membership.formation(), None);
        assert!(membership.join(&table(quorums.digest(1))));
        let other = Table::new(quorums.digest(1), (5..9).map(DirectoryId).collect());
        assert!(!membership.join(&Arc::new(other)), "the first one is for good");
        let mut former = former();
        former.on_formed(&formed(0, &table(quorums.digest(0))));
        assert!(former.to_store().is_none());
    }
}
