//! The log that acceptors share, and what waits for it: all that stands between an acceptor and a
//! disk but the I/O.
//!
//! ```text
//!   acceptor                    SharedLog                            driver: a core, or the simulator
//!   records, held ── take ────▶ appends; keeps each message
//!                               behind the records it rests on ─────▶ wal.gather: write, sync
//!                               durable ↑ ◀────────────────────────── wal.on_synced
//!   on_durable ◀─ next_durable ─┘│
//!   (sent)     ◀───── release ───┘
//!   (dropped)  ◀── is_too_much   while the disk has more to do than it may
//!   recalls ───────── take ────▶ where the votes are ───────────────▶ ReadRequest: read, off the loop
//!   on_recalled ◀──────────────────────────────────────────────────── if is_current
//!   restore    ◀───── restart ── once all is durable that its former life has appended
//! ```
//!
//! # A life that ends while the log goes on
//!
//! An acceptor may end, and start over, in a process whose log lives on. Its records may be on
//! their way to the disk at that moment: appended, not synced. Are they part of what the next life
//! comes back with?
//!
//! - *If not*, two values can be chosen in a slot. The next life promises ballot 2, and reports no
//!   vote in the slot; the leader of ballot 2 gives it another value. Then the sync completes, and
//!   the vote of ballot 1 is on disk: recalled for a replica that replays, it completes a write
//!   quorum of ballot 1.
//! - *If so*, the next life speaks of what is not synced, for which nothing that it says waits: it
//!   may be lost.
//!
//! So the next life waits until that is settled: it begins when all that was appended before is
//! durable, and then it comes back with all of it. If the log fails before, it never begins.
//!
//! source: R31, R32

use std::collections::VecDeque;

use loggos_protocol::{
    Acceptor, AcceptorId, ClusterSettings, Envelope, Outbox, Recall, Recalled, Slot, ToAcceptor,
    Vote, Watermark,
};

use crate::{VotePlace, Wal};

/// The log that acceptors share, and what waits for it.
#[derive(Debug)]
pub struct SharedLog {
    /// The log: its driver writes and syncs what it gathers. Records come in by
    /// [`take`](SharedLog::take).
    pub wal: Wal,
    lives: Vec<Life>,
    bounds: Bounds,
}

/// What may wait for the disk before acceptors take in nothing more that would have to. All of it
/// is asked for again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// Messages of one acceptor.
    pub held_max: usize,
    /// Bytes of records that are not being written yet.
    pub gathered_bytes_max: usize,
}

/// The life of an acceptor: the one that goes on, or the next.
#[derive(Debug)]
struct Life {
    acceptor: AcceptorId,
    /// Counts its lives in this process.
    number: u64,
    /// How many records the log had with the last one of this acceptor, in whichever life.
    appended: u64,
    /// What waits for that many records to be durable, oldest first.
    held: VecDeque<(u64, Envelope)>,
    /// So many records of the acceptor are durable when so many of the log are; oldest first.
    marks: VecDeque<(u64, u64)>,
}

/// Votes to be read back.
#[derive(Debug)]
#[must_use = "an acceptor waits for its votes"]
pub struct ReadRequest {
    /// The votes, and the acceptor that asks for them.
    pub recall: Recall,
    /// The life of the acceptor that asks.
    life: u64,
    /// Where they were when it asked, in slot order.
    places: Vec<VotePlace>,
}

impl SharedLog {
    /// Returns what acceptors share: a log that has just been recovered.
    #[must_use]
    pub fn new(wal: Wal, bounds: Bounds) -> Self {
        let lives = wal.identity().acceptors.iter().map(|acceptor| Life {
            acceptor,
            number: 0,
            appended: 0,
            held: VecDeque::new(),
            marks: VecDeque::new(),
        });
        Self { lives: lives.collect(), wal, bounds }
    }

    /// Whether a message is better dropped than handed to its acceptor, whose log has as much to
    /// write as it may have: whatever it makes of it would have to wait, too. It will be sent again
    /// (R29).
    ///
    /// So a disk that hangs costs no more memory than that, however long it does. And a log without
    /// room takes in nothing more that it would have to write before the truncation that makes
    /// room: what waits has to fit in the one segment that is kept for it. Heartbeats, pre-votes
    /// and reports are taken in, and complaints: nothing that they lead to waits.
    ///
    /// source: R29
    #[must_use]
    pub fn is_too_much(&self, acceptor: AcceptorId, message: &ToAcceptor) -> bool {
        let has_to_wait = match message {
            ToAcceptor::Probe(_)
            | ToAcceptor::Form(_)
            | ToAcceptor::P1a(_)
            | ToAcceptor::P2a(_)
            | ToAcceptor::Replay(_) => true,
            ToAcceptor::PreVote(_)
            | ToAcceptor::Heartbeat(_)
            | ToAcceptor::Executed(_)
            | ToAcceptor::Unserved(_)
            | ToAcceptor::PreRead(_) => false,
        };
        let is_full = self.life(acceptor).held.len() >= self.bounds.held_max
            || self.wal.gathered_bytes() >= self.bounds.gathered_bytes_max
            || self.wal.is_full();
        has_to_wait && is_full
    }

    /// Takes in what an acceptor wants written down, said after that, and read back; returns what
    /// is to be read.
    ///
    /// A failed log keeps nothing: what rests on it is never said.
    ///
    /// source: R31, R34
    #[must_use = "an acceptor waits for its votes"]
    pub fn take(&mut self, acceptor: &Acceptor, out: &mut Outbox) -> Vec<ReadRequest> {
        let (id, formation, wal) = (acceptor.id(), acceptor.formation(), &mut self.wal);
        let life = self.lives.iter_mut().find(|life| life.acceptor == id);
        let life = life.expect("an acceptor of another log");
        if !out.records.is_empty() {
            out.records.drain(..).for_each(|record| wal.append(&record));
            life.appended = wal.appended();
            life.marks.push_back((life.appended, acceptor.recorded()));
        }
        let held = out.held.drain(..).map(|to| (life.appended, Envelope { formation, to }));
        match wal.poisoned() {
            None => life.held.extend(held),
            Some(_) => drop(held),
        }
        let recalls = out.recalls.drain(..);
        recalls.map(|recall| ReadRequest::new(wal, recall, life.number)).collect()
    }

    /// Takes the next held message whose records are durable, and the acceptor that sends it.
    ///
    /// source: R31
    pub fn release(&mut self) -> Option<(AcceptorId, Envelope)> {
        let durable = self.wal.durable();
        self.lives.iter_mut().find_map(|life| {
            let (_, envelope) = life.held.pop_front_if(|held| held.0 <= durable)?;
            Some((life.acceptor, envelope))
        })
    }

    /// Whether a held message can be released.
    #[must_use]
    pub fn can_release(&self) -> bool {
        let durable = self.wal.durable();
        self.lives.iter().any(|life| life.held.front().is_some_and(|held| held.0 <= durable))
    }

    /// The number of messages that are held back.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.lives.iter().map(|life| life.held.len()).sum()
    }

    /// The next acceptor that is to be told how many of its records are durable: before anything is
    /// released, since what is released may be answered.
    pub fn next_durable(&mut self) -> Option<(AcceptorId, u64)> {
        let durable = self.wal.durable();
        self.lives.iter_mut().find_map(|life| {
            let (_, recorded) = life.marks.pop_front_if(|mark| mark.0 <= durable)?;
            Some((life.acceptor, recorded))
        })
    }

    /// Ends the life of `acceptor`: what it was about to say is never said, as if it had crashed
    /// before, and what it has asked for is for no life. What it has appended stays in the log.
    pub fn end_life(&mut self, acceptor: AcceptorId) {
        let life = self.lives.iter_mut().find(|life| life.acceptor == acceptor);
        let life = life.expect("an acceptor of another log");
        life.number += 1;
        life.held.clear();
        life.marks.clear();
    }

    /// Whether all that former lives of `acceptor` have appended is durable, so that the next may
    /// begin.
    #[must_use]
    pub fn is_settled(&self, acceptor: AcceptorId) -> bool {
        self.life(acceptor).appended <= self.wal.durable()
    }

    /// Begins a life of `acceptor`: with what the log says of it, all of which is durable. `None`
    /// if it is too early, or too late: what its former life has left is not settled, or the log
    /// has failed.
    ///
    /// Call [`Acceptor::on_start`] when it starts to serve.
    ///
    /// source: R4, R32, R34
    #[must_use]
    pub fn restart(
        &self,
        cluster: ClusterSettings,
        acceptor: AcceptorId,
        seed: u64,
    ) -> Option<Acceptor> {
        if !self.is_settled(acceptor) || self.wal.poisoned().is_some() {
            return None;
        }
        let state = self.wal.state(acceptor);
        assert_eq!(state, self.wal.durable_state(acceptor), "{acceptor:?} knows what may be lost");
        let state = state.expect("an acceptor of another log");
        let directory = self.wal.identity().directory;
        let mut restored = Acceptor::restore(cluster, acceptor, directory, state, seed);
        restored.set_room(self.wal.room());
        Some(restored)
    }

    /// Whether the acceptor that asked still lives: if not, its votes are for no life.
    #[must_use]
    pub fn is_current(&self, request: &ReadRequest) -> bool {
        self.life(request.recall.acceptor).number == request.life
    }

    /// Looks up once more where the votes are that an acceptor asks for, since the one at `place`
    /// could not be read: it may have been truncated meanwhile, and written over. `None` if it has
    /// not: then the disk has lost it, and the log is to be [poisoned](crate::Poison::Read).
    ///
    /// source: R34
    #[must_use]
    pub fn look_again(&self, request: ReadRequest, place: VotePlace) -> Option<ReadRequest> {
        let ReadRequest { recall, life, .. } = request;
        let next = place.slot.watermark_after();
        let places = self.wal.votes(recall.acceptor, place.slot, next);
        let is_lost = places.iter().any(|now| now.is_of_same_record(&place));
        (!is_lost).then(|| ReadRequest::new(&self.wal, recall, life))
    }

    fn life(&self, acceptor: AcceptorId) -> &Life {
        let life = self.lives.iter().find(|life| life.acceptor == acceptor);
        life.expect("an acceptor of another log")
    }
}

impl Default for Bounds {
    /// 65 536 messages, and 128 MiB: twice what the default window may have under way.
    fn default() -> Self {
        Self { held_max: 1 << 16, gathered_bytes_max: 128 << 20 }
    }
}

impl ReadRequest {
    fn new(wal: &Wal, recall: Recall, life: u64) -> Self {
        let places = wal.votes(recall.acceptor, recall.from, recall.to);
        Self { recall, life, places }
    }

    /// What to read: votes until there are enough for a page of `bytes_max`, at least one if there
    /// is one; and up to where that covers what was asked for.
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
