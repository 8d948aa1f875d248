//! Acceptors that end and start over in a process whose log lives on.

mod harness;

use std::sync::Arc;

use harness::{ballot, vote};
use loggos_protocol::{
    Acceptor, AcceptorId, AcceptorSet, Ballot, ClusterSettings, DirectoryId, Envelope, Form,
    Outbox, P1a, P1b, P2a, PreVote, ProposerId, ProxyLeaderId, QuorumSystem, Record, Settings,
    Slot, Table, Time, To, ToAcceptor, ToProposer, ToProxyLeader,
};
use loggos_storage::sim::FaultyDisk;
use loggos_storage::{
    Bounds, Buffer, Disk, Identity, Options, Poison, ReadRequest, SharedLog, Write, format, recover,
};

const A: AcceptorId = AcceptorId(0);
const B: AcceptorId = AcceptorId(2);
const NOW: Time = Time(1_000_000_000);

/// Acceptors A and B on a disk, and what they have said.
struct Core {
    cluster: ClusterSettings,
    disk: FaultyDisk,
    shared: SharedLog,
    acceptors: Vec<Acceptor>,
    under_way: Option<Write>,
    asked: Vec<ReadRequest>,
    said: Vec<To>,
}

impl Core {
    /// Both belong to a cluster, and that is durable.
    fn new() -> Self {
        Self::with(Bounds::default())
    }

    fn with(bounds: Bounds) -> Self {
        let quorums = QuorumSystem::grid(2, 2, 1).expect("both sides hold f + 1");
        let cluster = Settings::new(1, quorums).check().expect("settings that make a cluster");
        let options =
            Options { segment_bytes: 1 << 20, write_bytes_max: 1 << 16, ..Options::default() };
        let directory = DirectoryId(7);
        let identity = Identity {
            cluster: 1,
            directory,
            quorums: cluster.digest(),
            acceptors: AcceptorSet::from_iter([A, B]),
        };
        let mut disk = FaultyDisk::new(1);
        format(&mut disk, &identity, &options).expect("an empty disk");
        let wal = recover(&mut disk, &identity, &options).expect("formatted").wal;
        let shared = SharedLog::new(wal, bounds);
        let acceptors =
            [A, B].map(|id| shared.restart(cluster.clone(), id, 1).expect("its first life"));
        let mut core = Self {
            disk,
            shared,
            acceptors: acceptors.into(),
            under_way: None,
            asked: Vec::new(),
            said: Vec::new(),
            cluster,
        };
        let directories = [directory, DirectoryId(8), directory, DirectoryId(9)];
        let table = Arc::new(Table::new(core.cluster.digest(), directories.into_iter().collect()));
        for id in [A, B] {
            core.tell(
                id,
                ToAcceptor::Form(Form { proposer: ProposerId(0), table: Arc::clone(&table) }),
            );
        }
        core.flush();
        core.said.clear();
        core
    }

    fn acceptor(&mut self, id: AcceptorId) -> &mut Acceptor {
        self.acceptors.iter_mut().find(|acceptor| acceptor.id() == id).expect("it lives")
    }

    fn step(&mut self, id: AcceptorId, what: impl FnOnce(&mut Acceptor, &mut Outbox)) {
        let mut out = Outbox::default();
        let acceptor = self.acceptors.iter_mut().find(|acceptor| acceptor.id() == id);
        let acceptor = acceptor.expect("it lives");
        what(acceptor, &mut out);
        acceptor.validate();
        self.asked.extend(self.shared.take(acceptor, &mut out));
        self.said.append(&mut out.sends);
        self.release();
    }

    fn tell(&mut self, id: AcceptorId, message: ToAcceptor) {
        self.step(id, |acceptor, out| acceptor.on_message(message, NOW, out));
    }

    /// Asks for a vote in `slot`.
    fn propose(&mut self, id: AcceptorId, slot: u64, round: u64) {
        let Record::Vote { vote, .. } = vote(id, slot, round, (100, 7)) else { unreachable!() };
        let p2a = P2a {
            ballot: vote.ballot,
            slot: Slot(slot),
            via: ProxyLeaderId(0),
            is_recovered: false,
            value: vote.value,
        };
        self.tell(id, ToAcceptor::P2a(p2a));
    }

    fn ask_for_promise(&mut self, id: AcceptorId, ballot: Ballot) {
        self.tell(id, ToAcceptor::P1a(P1a { ballot, first: Slot(0), page: Slot(0) }));
    }

    fn begin_write(&mut self) {
        self.under_way = self.shared.wal.gather();
        assert!(self.under_way.is_some(), "something to write");
    }

    fn end_write(&mut self) {
        let write = self.under_way.take().expect("a write is under way");
        self.disk.write_at(write.file, write.offset, &write.bytes).expect("no fault is ordered");
        self.disk.sync(write.file).expect("no fault is ordered");
        self.shared.wal.on_synced(write);
        while let Some((id, records)) = self.shared.next_durable() {
            self.acceptor(id).on_durable(records);
        }
        self.release();
    }

    fn release(&mut self) {
        let released = std::iter::from_fn(|| self.shared.release());
        self.said.extend(released.map(|(_, Envelope { to, .. })| to));
    }

    fn flush(&mut self) {
        while let Some(write) = self.shared.wal.gather() {
            self.under_way = Some(write);
            self.end_write();
        }
    }

    /// Reads the votes that were asked for.
    fn read(&mut self) {
        for request in std::mem::take(&mut self.asked) {
            if !self.shared.is_current(&request) {
                continue;
            }
            let (places, covered) = request.page(usize::MAX);
            let votes = places.iter().map(|place| {
                let (offset, bytes) = place.blocks();
                let mut blocks = Buffer::new();
                blocks.resize(bytes, 0);
                self.disk.read_at(place.file, offset, &mut blocks).expect("no fault is ordered");
                (place.slot, place.vote(&blocks).expect("a vote is where it was written"))
            });
            let votes = votes.collect();
            let id = request.recall.acceptor;
            let recalled = request.answer(covered, votes);
            self.step(id, |acceptor, out| acceptor.on_recalled(&recalled, NOW, out));
        }
    }

    fn end_life(&mut self, id: AcceptorId) {
        self.shared.end_life(id);
        self.acceptors.retain(|acceptor| acceptor.id() != id);
    }

    /// Starts `id` over; returns whether its next life has begun.
    fn start_over(&mut self, id: AcceptorId) -> bool {
        let restored = self.shared.restart(self.cluster.clone(), id, 1);
        let has_begun = restored.is_some();
        self.acceptors.extend(restored);
        has_begun
    }

    fn promises(&self) -> Vec<&P1b> {
        let p1b = |to| match to {
            &To::Proposer(_, ToProposer::P1b(ref p1b)) => Some(&**p1b),
            To::Proposer(..)
            | To::Gateway(..)
            | To::ProxyLeader(..)
            | To::Acceptor(..)
            | To::Replica(..) => None,
        };
        self.said.iter().filter_map(p1b).collect()
    }

    /// The slots that A has said to have voted in.
    fn votes_said(&self) -> Vec<u64> {
        let p2b = |to: &To| match to {
            To::ProxyLeader(_, ToProxyLeader::P2b(p2b)) => Some(p2b.slot.0),
            To::ProxyLeader(..)
            | To::Gateway(..)
            | To::Proposer(..)
            | To::Acceptor(..)
            | To::Replica(..) => None,
        };
        self.said.iter().filter_map(p2b).collect()
    }
}

/// Else the vote that is on its way to the disk would be missing from the next life's promise, and
/// be there again later: two values could be chosen.
#[test]
fn r31_a_life_begins_when_all_that_the_former_one_has_appended_is_durable() {
    let mut core = Core::new();
    core.propose(A, 0, 1);
    core.begin_write();
    core.propose(A, 1, 1);
    core.end_life(A);
    assert!(!core.start_over(A), "two votes are on their way");
    core.end_write();
    assert!(!core.start_over(A), "the second vote is");
    core.flush();
    assert!(core.start_over(A), "all is durable");
    core.ask_for_promise(A, ballot(2));
    core.read();
    core.flush();
    let [promise] = core.promises()[..] else { panic!("one page: {:?}", core.said) };
    let votes: Vec<_> = promise.votes.iter().map(|(slot, vote)| (slot.0, vote.ballot)).collect();
    assert_eq!(votes, [(0, ballot(1)), (1, ballot(1))], "what it has voted for before");
}

#[test]
fn r31_a_life_that_has_ended_says_nothing_more_and_others_do() {
    let mut core = Core::new();
    core.propose(A, 0, 1);
    core.propose(B, 5, 1);
    core.begin_write();
    core.end_life(A);
    core.end_write();
    assert_eq!(core.votes_said(), [5], "only B lives");
    assert!(core.start_over(A));
    core.propose(A, 0, 1);
    core.read();
    core.flush();
    assert_eq!(core.votes_said(), [5, 0], "the next life says it when it is asked again");
}

/// It would take votes for synced that are not, let them go from memory, and forget them in a
/// promise (R10).
#[test]
fn r10_a_life_is_not_told_that_the_records_of_the_former_one_are_durable() {
    let mut core = Core::new();
    (0..3).for_each(|slot| core.propose(A, slot, 1));
    core.begin_write();
    core.end_life(A);
    let write = core.under_way.take().expect("a write is under way");
    core.shared.wal.on_synced(write);
    assert!(core.start_over(A));
    core.propose(A, 3, 1);
    assert_eq!(core.shared.next_durable(), None, "nothing of this life is durable");
}

#[test]
fn what_a_former_life_has_asked_for_is_for_nobody() {
    let mut core = Core::new();
    core.propose(A, 0, 1);
    core.flush();
    core.end_life(A);
    assert!(core.start_over(A));
    core.ask_for_promise(A, ballot(2));
    let [request] = &core.asked[..] else { panic!("one page to read: {:?}", core.asked) };
    assert!(core.shared.is_current(request));
    core.end_life(A);
    let [request] = &core.asked[..] else { unreachable!("it is still being read") };
    assert!(!core.shared.is_current(request));
}

#[test]
fn r34_no_life_begins_on_a_log_that_has_failed() {
    let mut core = Core::new();
    core.end_life(B);
    core.shared.wal.poison(Poison::Write(std::io::ErrorKind::Other));
    assert!(!core.start_over(B), "what was settled before does not count");
    core.propose(A, 0, 1);
    assert_eq!(core.shared.held_count(), 0, "it would wait for ever");
}

/// What an acceptor says rests on its own records: those of others may be on their way for ever.
#[test]
fn r31_what_rests_on_nothing_new_does_not_wait_for_others() {
    let mut core = Core::new();
    core.propose(A, 0, 1);
    core.flush();
    core.propose(B, 5, 1);
    core.begin_write();
    core.said.clear();
    core.propose(A, 0, 1);
    assert_eq!(core.votes_said(), [0], "its vote is durable");
}

/// A role that asks does so again and again. What is dropped is what would have to wait.
#[test]
fn r29_a_disk_that_hangs_has_so_much_to_wait_for_it_and_no_more() {
    let mut core = Core::new();
    core.propose(A, 0, 1);
    core.begin_write();
    let Record::Vote { vote, .. } = vote(A, 0, 1, (100, 7)) else { unreachable!() };
    let p2a = P2a {
        ballot: vote.ballot,
        slot: Slot(0),
        via: ProxyLeaderId(0),
        is_recovered: false,
        value: vote.value,
    };
    let p2a = ToAcceptor::P2a(p2a);
    let mut taken = 0;
    while !core.shared.is_too_much(A, &p2a) && taken < 1_000_000 {
        core.tell(A, p2a.clone());
        taken += 1;
    }
    assert_eq!(core.shared.held_count(), Bounds::default().held_max, "{taken} were taken in");
    let pre_vote = ToAcceptor::PreVote(PreVote { proposer: ProposerId(1), nonce: 1 });
    assert!(!core.shared.is_too_much(A, &pre_vote), "its answer does not wait");
    assert!(!core.shared.is_too_much(B, &p2a), "B has said nothing");
    core.end_write();
    assert!(!core.shared.is_too_much(A, &p2a), "the disk is back");
    assert_eq!(core.votes_said().len(), Bounds::default().held_max);
}

/// What waits is written before a truncation that comes later, in the one segment that is kept for
/// that.
#[test]
fn r34_a_full_log_takes_nothing_more_in_that_it_would_have_to_write() {
    let mut core = Core::new();
    let file = core.shared.wal.wants_file();
    assert!(file.is_some(), "one more is wanted");
    core.shared.wal.on_no_room();
    let mut slots = 0..1000;
    while !core.shared.wal.is_full() {
        core.propose(A, slots.next().expect("a full log"), 1);
        core.flush();
    }
    let p1a = ToAcceptor::P1a(P1a { ballot: ballot(2), first: Slot(0), page: Slot(0) });
    let pre_vote = ToAcceptor::PreVote(PreVote { proposer: ProposerId(1), nonce: 1 });
    assert!(core.shared.is_too_much(A, &p1a) && core.shared.is_too_much(B, &p1a));
    assert!(!core.shared.is_too_much(A, &pre_vote), "its answer does not wait");
    core.shared.wal.try_again();
    while let Some(file) = core.shared.wal.wants_file() {
        core.disk.create(file, 1 << 20).expect("there is room by now");
        core.shared.wal.on_file_created();
    }
    core.flush();
    assert!(!core.shared.is_too_much(A, &p1a), "there is room");
}

#[test]
fn r29_records_that_a_disk_that_hangs_has_yet_to_write_are_bounded_in_bytes() {
    let mut core = Core::with(Bounds { gathered_bytes_max: 4096, ..Bounds::default() });
    core.propose(A, 0, 1);
    core.begin_write();
    let p1a = |round| ToAcceptor::P1a(P1a { ballot: ballot(round), first: Slot(0), page: Slot(0) });
    let promises = (2..1000).take_while(|round| {
        let is_taken = !core.shared.is_too_much(A, &p1a(*round));
        is_taken.then(|| core.tell(A, p1a(*round)));
        is_taken
    });
    assert!((20..200).contains(&promises.count()), "a promise is some 50 bytes");
    assert!(core.shared.is_too_much(B, &p1a(2)), "they share the log");
}
