//! The log that acceptors share, and what waits for it: all that stands between an acceptor and a disk but the I/O.
//!
//! ```text
//!   acceptor                    SharedLog                            driver: a core, or the simulator
//!   records, held ── take ────▶ appends; keeps each message
//!                               behind the records it rests on ─────▶ wal.gather: write, sync
//!                               durable ↑ ◀────────────────────────── wal.on_synced
//!   on_durable ◀─ next_durable ─┘│
//!   (sent)     ◀───── release ───┘
//!   recalls ───────── take ────▶ where the votes are ───────────────▶ ReadRequest: read, off the loop
//!   on_recalled ◀──────────────────────────────────────────────────── if is_current
//!   restore    ◀───── restart ── once all is durable that its former life has appended
//! ```
//!
//! # A life that ends while the log goes on
//!
//! An acceptor may end, and start over, in a process whose log lives on. Its records may be on their way to the disk
//! at that moment: appended, not synced. Are they part of what the next life comes back with?
//!
//! - *If not*, two values can be chosen in a slot. The next life promises ballot 2, and reports no vote in the slot;
//!   the leader of ballot 2 gives it another value. Then the sync completes, and the vote of ballot 1 is on disk:
//!   recalled for a replica that replays, it completes a write quorum of ballot 1.
//! - *If so*, the next life speaks of what is not synced, for which nothing that it says waits: it may be lost.
//!
//! So the next life waits until that is settled: it begins when all that was appended before is durable, and then it
//! comes back with all of it. If the log fails before, it never begins.
//!
//! source: R31, R32

use std::collections::VecDeque;

use loggos_protocol::{
    Acceptor, AcceptorId, Cluster, Envelope, Outbox, Recall, Recalled, Slot, Vote, Watermark,
};

use crate::{VotePlace, Wal};

/// The log that acceptors share, and what waits for it.
#[derive(Debug)]
pub struct SharedLog {
    /// The log: its driver writes and syncs what it gathers. Records come in by [`take`](SharedLog::take).
    pub wal: Wal,
    lives: Vec<Life>,
    /// What waits for records to be durable, oldest first.
    held: VecDeque<Held>,
    /// What acceptors are to be told is durable, oldest first.
    marks: VecDeque<Mark>,
}

/// The life of an acceptor that goes on, or the next one.
#[derive(Debug)]
struct Life {
    acceptor: AcceptorId,
    /// Counts its lives in this process.
    number: u64,
    /// How many records of the log must be durable before it may begin: all that former ones have appended.
    begins_at: u64,
}

/// What an acceptor says once so many records of the log are durable.
#[derive(Debug)]
struct Held {
    appended: u64,
    acceptor: AcceptorId,
    envelope: Envelope,
}

/// So many records of one acceptor are durable when so many of the log are.
#[derive(Clone, Copy, Debug)]
struct Mark {
    appended: u64,
    acceptor: AcceptorId,
    recorded: u64,
}

/// Votes to be read back.
#[derive(Debug)]
#[must_use = "an acceptor waits for its votes"]
pub struct ReadRequest {
    /// Who asks for which.
    pub recall: Recall,
    /// The life of the acceptor that asks.
    life: u64,
    /// Where they were when it asked, in slot order.
    places: Vec<VotePlace>,
}

impl SharedLog {
    /// Returns what acceptors share: a log that has just been recovered.
    #[must_use]
    pub fn new(wal: Wal) -> Self {
        let acceptors = wal.identity().acceptors.iter();
        let lives = acceptors.map(|acceptor| Life { acceptor, number: 0, begins_at: 0 }).collect();
        Self { wal, lives, held: VecDeque::new(), marks: VecDeque::new() }
    }

    /// Takes in what an acceptor wants written down, said after that, and read back; returns what is to be read.
    ///
    /// A failed log keeps nothing: what rests on it is never said.
    ///
    /// source: R31, R34
    #[must_use = "an acceptor waits for its votes"]
    pub fn take(&mut self, acceptor: &Acceptor, out: &mut Outbox) -> Vec<ReadRequest> {
        let (id, formation) = (acceptor.id(), acceptor.formation());
        assert!(self.is_settled(id), "{id:?} acts before its former life is settled");
        if !out.records.is_empty() {
            out.records.drain(..).for_each(|record| self.wal.append(&record));
            let (appended, recorded) = (self.wal.appended(), acceptor.recorded());
            self.marks.push_back(Mark { appended, acceptor: id, recorded });
        }
        let appended = self.wal.appended();
        let held = out.held.drain(..).map(|to| Envelope { formation, to });
        let held = held.map(|envelope| Held { appended, acceptor: id, envelope });
        if self.wal.poisoned().is_none() {
            self.held.extend(held);
        } else {
            drop(held);
        }
        let life = self.life(id).number;
        let recalls = out.recalls.drain(..);
        recalls.map(|recall| ReadRequest::new(&self.wal, recall, life)).collect()
    }

    /// The next message that may be said.
    ///
    /// source: R31
    pub fn release(&mut self) -> Option<Envelope> {
        let durable = self.wal.durable();
        self.held.pop_front_if(|held| held.appended <= durable).map(|held| held.envelope)
    }

    /// Whether there is one.
    #[must_use]
    pub fn has_released(&self) -> bool {
        self.held.front().is_some_and(|held| held.appended <= self.wal.durable())
    }

    /// Whether a message is held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The next acceptor that is to be told how many of its records are durable: before anything is released, since
    /// what is released may be answered.
    pub fn next_durable(&mut self) -> Option<(AcceptorId, u64)> {
        let durable = self.wal.durable();
        let mark = self.marks.pop_front_if(|mark| mark.appended <= durable)?;
        Some((mark.acceptor, mark.recorded))
    }

    /// Ends the life of `acceptor`: what it was about to say is never said, as if it had crashed before, and what it
    /// has asked for is for nobody. What it has appended stays in the log.
    pub fn end_life(&mut self, acceptor: AcceptorId) {
        let appended = self.wal.appended();
        let life = self.lives.iter_mut().find(|life| life.acceptor == acceptor);
        let life = life.expect("an acceptor of another log");
        life.number += 1;
        life.begins_at = appended;
        self.held.retain(|held| held.acceptor != acceptor);
        self.marks.retain(|mark| mark.acceptor != acceptor);
    }

    /// Whether all that former lives of `acceptor` have appended is durable, so that the next may begin.
    #[must_use]
    pub fn is_settled(&self, acceptor: AcceptorId) -> bool {
        self.life(acceptor).begins_at <= self.wal.durable()
    }

    /// Begins a life of `acceptor`: with what the log says of it, all of which is durable. `None` if it is too early,
    /// or too late: what its former life has left is not settled, or the log has failed.
    ///
    /// Call [`Acceptor::on_start`] when it starts to serve.
    ///
    /// source: R4, R32, R34
    #[must_use]
    pub fn restart(&self, cluster: Cluster, acceptor: AcceptorId, seed: u64) -> Option<Acceptor> {
        if !self.is_settled(acceptor) || self.wal.poisoned().is_some() {
            return None;
        }
        let state = self.wal.state(acceptor);
        assert_eq!(state, self.wal.durable_state(acceptor), "{acceptor:?} knows what may be lost");
        let state = state.expect("an acceptor of another log");
        let directory = self.wal.identity().directory;
        let mut restored = Acceptor::restore(cluster, acceptor, directory, state, seed);
        restored.set_low(self.wal.is_low());
        Some(restored)
    }

    /// Whether the acceptor that asked still lives: if not, its votes are for nobody.
    #[must_use]
    pub fn is_current(&self, request: &ReadRequest) -> bool {
        self.life(request.recall.acceptor).number == request.life
    }

    /// Looks up once more where the votes are that somebody asks for, since the one at `place` could not be read:
    /// it may have been truncated meanwhile, and written over. `None` if it has not: then the disk has lost it, and
    /// the log is to be [poisoned](crate::Poison::Read).
    ///
    /// source: R34
    #[must_use]
    pub fn look_again(&self, request: ReadRequest, place: VotePlace) -> Option<ReadRequest> {
        let ReadRequest { recall, life, .. } = request;
        let next = place.slot.watermark_after();
        let is_lost = self.wal.votes(recall.acceptor, place.slot, next).contains(&place);
        (!is_lost).then(|| ReadRequest::new(&self.wal, recall, life))
    }

    fn life(&self, acceptor: AcceptorId) -> &Life {
        let life = self.lives.iter().find(|life| life.acceptor == acceptor);
        life.expect("an acceptor of another log")
    }
}

impl ReadRequest {
    fn new(wal: &Wal, recall: Recall, life: u64) -> Self {
        let places = wal.votes(recall.acceptor, recall.from, recall.to);
        Self { recall, life, places }
    }

    /// What to read: votes until there are enough for a page of `bytes_max`, at least one if there is one; and up to
    /// where that covers what was asked for.
    #[must_use]
    pub fn page(&self, bytes_max: usize) -> (&[VotePlace], Watermark) {
        let mut bytes = 0;
        let fits = |place: &&VotePlace| {
            let has_room = bytes < bytes_max;
            bytes += place.record_bytes();
            has_room
        };
        let count = self.places.iter().take_while(fits).count().max(1).min(self.places.len());
        let covered = match self.places.get(count) {
            Some(next) => Watermark(next.slot.0),
            None => self.recall.to,
        };
        (&self.places[..count], covered)
    }

    /// The answer: `votes` in slot order, which is all there are up to `covered`.
    #[must_use]
    pub fn answer(self, covered: Watermark, votes: Vec<(Slot, Vote)>) -> Recalled {
        Recalled { recall: self.recall, covered, votes }
    }
}
