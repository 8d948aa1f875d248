//! A log on a faulty disk, beside a model of it: the list of what was appended.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file is a crate of its own and uses what it needs"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use loggos_protocol::{
    AcceptorId, AcceptorState, Ballot, Batch, BatchId, Content, DirectoryId, GatewayId,
    Incarnation, Payload, ProposerId, Record, ReplicaId, Rng, Slot, Table, Time, Value, Vote,
    Watermark,
};
use loggos_storage::sim::FaultyDisk;
use loggos_storage::{
    Buffer, Disk, Identity, Options, Poison, StorageError, Wal, Write, format, recover,
};

/// Segments of 16 blocks, so that there are many.
pub const OPTIONS: Options = Options {
    segment_bytes: 64 << 10,
    segments_max: 6,
    segments_reserve: 2,
    write_bytes_max: 12 << 10,
};

pub const ACCEPTORS: [AcceptorId; 2] = [AcceptorId(1), AcceptorId(3)];

pub fn identity() -> Identity {
    let acceptors = ACCEPTORS.into_iter().collect();
    Identity { cluster: 11, directory: DirectoryId(22), quorums: 33, acceptors }
}

pub fn table() -> Arc<Table> {
    Arc::new(Table::new(33, (20..24).map(DirectoryId).collect()))
}

pub fn ballot(round: u64) -> Ballot {
    Ballot { round, proposer: ProposerId(1), incarnation: Incarnation(9) }
}

pub fn promise(acceptor: AcceptorId, round: u64) -> Record {
    Record::Promise { acceptor, ballot: ballot(round) }
}

pub fn truncated(acceptor: AcceptorId, below: u64) -> Record {
    Record::Truncated { acceptor, truncated: Watermark(below) }
}

/// A vote for a batch whose block has `block_bytes`, all of them `fill`.
pub fn vote(
    acceptor: AcceptorId,
    slot: u64,
    round: u64,
    (block_bytes, fill): (usize, u8),
) -> Record {
    let block = Payload::copy(&vec![fill; block_bytes]);
    let id = BatchId { gateway: GatewayId(2), incarnation: Incarnation(5), number: slot };
    let checksum = block.checksum();
    let batch =
        Batch { id, attempt: 1, answerer: ReplicaId(2), commands_count: 3, block, checksum };
    let value = Value { stamp: Time(slot + round), content: Content::Batch(Arc::new(batch)) };
    Record::Vote { acceptor, slot: Slot(slot), vote: Vote { ballot: ballot(round), value } }
}

/// A vote for what was voted for in the slot before.
pub fn revote(acceptor: AcceptorId, slot: u64, round: u64) -> Record {
    Record::Revote { acceptor, slot: Slot(slot), ballot: ballot(round) }
}

/// The ballot of a record that is a vote in `slot`.
fn ballot_in(record: &Record, slot: Slot) -> Option<Ballot> {
    match record {
        Record::Vote { slot: at, vote, .. } if *at == slot => Some(vote.ballot),
        Record::Revote { slot: at, ballot, .. } if *at == slot => Some(*ballot),
        Record::Vote { .. }
        | Record::Revote { .. }
        | Record::Promise { .. }
        | Record::Truncated { .. }
        | Record::Table { .. } => None,
    }
}

pub fn noop(acceptor: AcceptorId, slot: u64, round: u64) -> Record {
    let vote = Vote { ballot: ballot(round), value: Value::noop(Time(slot)) };
    Record::Vote { acceptor, slot: Slot(slot), vote }
}

/// What is known of an acceptor.
pub type View = BTreeMap<AcceptorId, (AcceptorState, BTreeMap<Slot, Vote>)>;

/// What follows from records, worked out as simply as can be.
fn view_of(records: &[Record]) -> View {
    let mut view: View =
        ACCEPTORS.into_iter().map(|acceptor| (acceptor, Default::default())).collect();
    for record in records {
        let (state, votes) = view.get_mut(&record.acceptor()).expect("of this log");
        match record {
            Record::Promise { ballot, .. } => state.promised = *ballot,
            Record::Vote { slot, vote, .. } => {
                state.promised = vote.ballot;
                state.vote_watermark = state.vote_watermark.max(Some(*slot));
                votes.insert(*slot, vote.clone());
            }
            Record::Revote { slot, ballot, .. } => {
                state.promised = *ballot;
                votes.get_mut(slot).expect("voted before").ballot = *ballot;
            }
            Record::Truncated { truncated, .. } => {
                state.truncated = *truncated;
                let last = truncated.0.checked_sub(1).map(Slot);
                state.vote_watermark = state.vote_watermark.max(last);
            }
            Record::Table { table, .. } => {
                state.join(table);
            }
        }
    }
    for (state, votes) in view.values_mut() {
        votes.retain(|slot, _| !state.truncated.covers(*slot));
    }
    view
}

/// What a log gives back.
pub fn view_in(wal: &Wal, disk: &mut impl Disk) -> View {
    let view = ACCEPTORS.into_iter().map(|acceptor| {
        let places = wal.votes(acceptor, Slot(0), Watermark(u64::MAX));
        let votes = places.into_iter().map(|place| {
            let (offset, length) = place.blocks();
            let mut blocks = Buffer::new();
            blocks.resize(length, 0);
            disk.read_at(place.file, offset, &mut blocks).expect("no fault is ordered");
            (place.slot, place.vote(&blocks).expect("a vote is where it was written"))
        });
        let votes = votes.collect();
        (acceptor, (wal.state(acceptor).expect("of this log").clone(), votes))
    });
    view.collect()
}

/// A node's log, its driver, and the model.
pub struct Node {
    pub disk: FaultyDisk,
    pub wal: Wal,
    pub options: Options,
    /// All that was appended, but for what a crash has taken.
    pub history: Vec<Record>,
    /// How much of it may have been told: what is more may be lost, what is less may not.
    pub told: usize,
    /// What of it was there when this life began.
    base: usize,
}

impl Node {
    pub fn new(seed: u64) -> Self {
        Self::with(seed, OPTIONS)
    }

    pub fn with(seed: u64, options: Options) -> Self {
        let mut disk = FaultyDisk::new(seed);
        format(&mut disk, &identity(), &options).expect("an empty disk");
        let wal = recover(&mut disk, &identity(), &options).expect("just formatted").wal;
        Self { disk, wal, options, history: Vec::new(), told: 0, base: 0 }
    }

    pub fn append(&mut self, record: Record) {
        self.wal.append(&record);
        self.history.push(record);
    }

    /// Writes and syncs all there is, as a driver does.
    pub fn flush(&mut self) {
        loop {
            self.make_file();
            let Some(write) = self.wal.gather() else { break };
            self.finish(write);
        }
    }

    pub fn append_all(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            self.append(record);
            self.flush();
        }
    }

    pub fn mark(&mut self) {
        if let Some(write) = self.wal.gather_mark() {
            self.finish(write);
        }
    }

    pub fn finish(&mut self, write: Write) {
        if let Err(error) = self.disk.write_at(write.file, write.offset, &write.bytes) {
            return self.wal.poison(Poison::Write(error.kind()));
        }
        if let Err(error) = self.disk.sync(write.file) {
            return self.wal.poison(Poison::Sync(error.kind()));
        }
        self.on_synced(write);
    }

    pub fn on_synced(&mut self, write: Write) {
        self.wal.on_synced(write);
        self.wal.validate();
        self.told =
            self.told.max(self.base + usize::try_from(self.wal.durable()).expect("few records"));
    }

    pub fn make_file(&mut self) {
        while let Some(file) = self.wal.wants_file() {
            match self.disk.create(file, u64::from(self.options.segment_bytes)) {
                Ok(()) => self.wal.on_file_created(),
                Err(_) => self.wal.on_no_room(),
            }
        }
    }

    /// Recovers; `Err` leaves the node as it was.
    pub fn recover(&mut self) -> Result<(), StorageError> {
        self.wal = recover(&mut self.disk, &identity(), &self.options)?.wal;
        Ok(())
    }

    /// The process is killed, or the machine loses power, and the node starts again.
    pub fn restart(&mut self, with_power: bool) {
        match with_power {
            true => self.disk.kill(),
            false => self.disk.lose_power(),
        }
        self.recover().unwrap_or_else(|error| panic!("refused after a crash: {error}"));
        self.check();
    }

    /// Votes in slots from `slot` on until another segment is opened; returns the next slot.
    pub fn fill_segment(&mut self, mut slot: u64) -> u64 {
        let segments_count = self.wal.segments_count();
        while self.wal.segments_count() <= segments_count {
            self.append(vote(ACCEPTORS[0], slot, 1, (3000, 1)));
            self.flush();
            slot += 1;
        }
        slot
    }

    /// Compares what was recovered with the model: it is all that was appended up to some point,
    /// which is not before what was told. From here on that is what has happened, and has been
    /// told.
    pub fn check(&mut self) {
        let is = view_in(&self.wal, &mut self.disk);
        let point = (self.told..=self.history.len()).find(|p| view_of(&self.history[..*p]) == is);
        let point = point.unwrap_or_else(|| {
            let wanted = view_of(&self.history[..self.told]);
            panic!("told {} of {}: {wanted:#?}\nfound {is:#?}", self.told, self.history.len())
        });
        self.history.truncate(point);
        (self.told, self.base) = (point, point);
    }

    /// Compares what the log tells while it runs with the model: of votes those that are durable,
    /// of the rest all.
    pub fn check_live(&mut self) {
        let durable = self.base + usize::try_from(self.wal.durable()).expect("few records");
        let (mut wanted, of_all) = (view_of(&self.history[..durable]), view_of(&self.history));
        for (acceptor, (state, votes)) in &mut wanted {
            state.clone_from(&of_all[acceptor].0);
            votes.retain(|slot, _| !state.truncated.covers(*slot));
        }
        assert_eq!(view_in(&self.wal, &mut self.disk), wanted, "the log and what is durable");
    }

    /// Asserts that nothing was recovered that was never appended: all that holds where a disk has
    /// lied.
    pub fn check_nothing_is_made_up(&mut self, appended: &[Record]) {
        for (acceptor, (state, votes)) in view_in(&self.wal, &mut self.disk) {
            let own = || appended.iter().filter(|record| record.acceptor() == acceptor);
            for (slot, vote) in votes {
                let has_value = |record: &Record| match record {
                    Record::Vote { slot: at, vote: own, .. } => {
                        *at == slot && own.value == vote.value
                    }
                    Record::Revote { .. }
                    | Record::Promise { .. }
                    | Record::Truncated { .. }
                    | Record::Table { .. } => false,
                };
                assert!(own().any(has_value), "made up: {slot} {:?}", vote.value);
                let is_cast = own().any(|record| ballot_in(record, slot) == Some(vote.ballot));
                assert!(is_cast, "made up: {slot} {}", vote.ballot);
            }
            let mut most = AcceptorState::default();
            own().for_each(|record| most.on_record(record));
            assert!(state.promised <= most.promised, "made up: {:?}", state.promised);
            assert!(state.truncated <= most.truncated, "made up: {:?}", state.truncated);
            assert!(state.vote_watermark <= most.vote_watermark, "made up: {state:?}");
        }
    }

    /// Whether what was recovered is all there was.
    pub fn is_complete(&mut self) -> bool {
        view_in(&self.wal, &mut self.disk) == view_of(&self.history)
    }
}

/// Records that acceptors may want to log.
pub struct Records {
    rng: Rng,
    round: u64,
    /// In which slots there is a vote, the truncated ones among them.
    voted: BTreeMap<AcceptorId, BTreeSet<u64>>,
    next: BTreeMap<AcceptorId, (u64, u64, u64)>, // slot, truncated, the round of its promise
    /// For a while the only one that has anything to log: what the other has said, heads carry on.
    alone: Option<AcceptorId>,
}

impl Records {
    pub fn new(seed: u64) -> Self {
        let next = ACCEPTORS.into_iter().map(|acceptor| (acceptor, (0, 0, 0))).collect();
        let voted = ACCEPTORS.into_iter().map(|acceptor| (acceptor, BTreeSet::new())).collect();
        Self { rng: Rng::new(seed), round: 1, voted, next, alone: None }
    }

    /// The next record; `is_low` is whether slots are refused.
    pub fn next(&mut self, is_low: bool) -> Record {
        if self.rng.below(50) == 0 {
            self.alone = ACCEPTORS.get(self.below(3)).copied();
        }
        let either = ACCEPTORS[self.below(2)];
        let acceptor = self.alone.filter(|_| !is_low).unwrap_or(either);
        let choice = self.rng.below(20);
        let (bytes, fill) = (self.block_bytes(), self.fill());
        let (slot, below, round) = self.next.get_mut(&acceptor).expect("of this log");
        match choice {
            0 => {
                self.round += 1;
                *round = self.round;
                promise(acceptor, *round)
            }
            1 => Record::Table { acceptor, table: table() },
            2 if *below < *slot && !is_low => {
                // A slot once more, in a new ballot.
                self.round += 1;
                *round = self.round;
                let again = *below + self.rng.below(*slot - *below);
                self.voted.get_mut(&acceptor).expect("of this log").insert(again);
                vote(acceptor, again, *round, (bytes, fill))
            }
            6 if !is_low => {
                // For the same value once more, in a new ballot.
                let voted = &self.voted[&acceptor];
                let from = *below + self.rng.below(*slot - *below + 1);
                let again = voted.range(from..).next().or_else(|| voted.range(*below..).next());
                match again {
                    Some(again) => {
                        self.round += 1;
                        *round = self.round;
                        revote(acceptor, *again, *round)
                    }
                    None => promise(acceptor, *round),
                }
            }
            3 => {
                *below += self.rng.below(*slot - *below + 1);
                truncated(acceptor, *below)
            }
            _ if is_low || choice == 4 => {
                *below = *slot;
                truncated(acceptor, *below)
            }
            5 => {
                *slot += 1 + self.rng.below(2);
                self.voted.get_mut(&acceptor).expect("of this log").insert(*slot - 1);
                noop(acceptor, *slot - 1, *round)
            }
            _ => {
                *slot += 1;
                self.voted.get_mut(&acceptor).expect("of this log").insert(*slot - 1);
                vote(acceptor, *slot - 1, *round, (bytes, fill))
            }
        }
    }

    fn block_bytes(&mut self) -> usize {
        match self.rng.below(8) {
            0 => 0,
            1 => self.below(9000),
            _ => self.below(1500),
        }
    }

    fn fill(&mut self) -> u8 {
        u8::try_from(self.rng.below(256)).expect("a byte")
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.rng.below(bound)).expect("a small number")
    }

    /// After a crash: goes on from what is left.
    pub fn resume(&mut self, wal: &Wal) {
        for (acceptor, (slot, below, round)) in &mut self.next {
            let state = wal.state(*acceptor).expect("of this log");
            *slot = state.vote_watermark.map_or(0, |slot| slot.0 + 1);
            (*below, *round) = (state.truncated.0, state.promised.round);
            self.round = self.round.max(*round);
            let places = wal.votes(*acceptor, Slot(0), Watermark(u64::MAX));
            let voted = places.iter().map(|place| place.slot.0).collect();
            self.voted.insert(*acceptor, voted);
        }
    }
}

/// The seeds to run: from `LOGGOS_FIRST` on, or 0, `LOGGOS_SEEDS` of them, or this many. Says which
/// one failed.
pub fn seeds(default: u64) -> impl ExactSizeIterator<Item = u64> {
    let set = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (first, count): (u64, u64) =
        (set("LOGGOS_FIRST").unwrap_or(0), set("LOGGOS_SEEDS").unwrap_or(default));
    Seeds { first, count, next: 0 }
}

struct Seeds {
    first: u64,
    count: u64,
    next: u64,
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.next += 1;
        (self.next <= self.count).then_some(self.first + self.next - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::try_from(self.count - self.next.min(self.count)).expect("few seeds");
        (count, Some(count))
    }
}

impl ExactSizeIterator for Seeds {}

impl Drop for Seeds {
    #[expect(clippy::print_stderr, reason = "how a test came to fail is said there")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed", self.first + self.next - 1);
        }
    }
}
