//! The work whose instructions are counted.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use loggos_benches::votes::Log;
use loggos_benches::{KeyValue, Line, messages, settings};
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Message};
use loggos_protocol::{
    AcceptorId, AcceptorSet, Ballot, Batch, Client, ClientId, DirectoryId, Envelope, Gateway,
    GatewayId, Heartbeat, Incarnation, OrderId, Outbox, Position, ResultWriter, Results, SessionId,
    Slot, Stage, Start, Table, Time, To, ToAcceptor, ToProposer, ToProxyLeader, Watermark,
};
use loggos_storage::sim::FaultyDisk;

/// A put of 16-byte key and value.
const COMMAND_BYTES: usize = 35;
/// Slots under way at once.
const WINDOW: u32 = 256;
/// Frames in a piece of a stream.
const FRAMES: u32 = 256;

/// Work whose instructions are counted.
pub(crate) struct Work {
    /// The unit that is counted.
    pub(crate) name: &'static str,
    /// Does it, after what is not counted, and returns the number of units.
    pub(crate) run: fn() -> u64,
}

pub(crate) const WORK: [Work; 14] = [
    Work { name: "a slot, 1 command a batch", run: || slots(1) },
    Work { name: "a slot, 16 commands a batch", run: || slots(16) },
    Work { name: "a command, 512 a batch", run: || 512 * slots(512) },
    Work { name: "a command through client and gateway, 512 a batch", run: gateway },
    Work { name: "P2b encoded", run: || encode(&messages::p2b()) },
    Work { name: "P2b decoded", run: || decode(&messages::p2b()) },
    Work { name: "P2a of 1 KiB encoded", run: || encode(&messages::p2a_to_acceptor(1024)) },
    Work { name: "P2a of 1 KiB decoded", run: || decode(&messages::p2a_to_acceptor(1024)) },
    Work { name: "P2a of 1 KiB forwarded", run: forward },
    Work { name: "Results of 1 KiB encoded", run: || encode(&messages::results(1024)) },
    Work { name: "Results of 1 KiB decoded", run: || decode(&messages::results(1024)) },
    Work { name: "a put, 512 a batch", run: || key_value(|key, out| KeyValue::put(key, key, out)) },
    Work { name: "a get, 512 a batch", run: || key_value(KeyValue::get) },
    Work { name: "a vote of 128 bytes appended to the log, 16 a write", run: append },
];

/// What `callgrind` counts: nothing but `work`.
#[inline(never)]
fn counted_work(work: &mut dyn FnMut()) {
    work();
    black_box(()); // the call above is not the last thing it does, and so is inside it
}

fn slots(batch: u32) -> u64 {
    let mut line = Line::new(&settings(batch, WINDOW), COMMAND_BYTES);
    let commands = WINDOW * batch;
    let rounds = if batch == 1 { 8 } else { 2 };
    (0..rounds).for_each(|_| _ = line.run(commands)); // every ring is full once
    let mut slots = 0;
    counted_work(&mut || slots = (0..rounds).map(|_| line.run(commands)).sum());
    assert_eq!(slots, u64::from(WINDOW * rounds), "batches of another size");
    slots
}

/// A gateway and a client of it, whose cluster answers at once.
struct Desk {
    gateway: Gateway,
    client: Client<u64>,
    session: SessionId,
    out: Outbox,
    now: Time,
    results: ResultWriter,
    next: u64,
}

impl Desk {
    const BATCH: u32 = 512;

    fn new() -> Self {
        let cluster = settings(Self::BATCH, WINDOW);
        let now = Time(1_000_000_000);
        let directories = cluster.quorums.acceptors().iter().map(|it| DirectoryId(it.0.into()));
        let heartbeat = Heartbeat {
            ballot: Ballot { round: 1, ..Ballot::default() },
            stage: Stage::Leading,
            chosen: Watermark(0),
            no_room: AcceptorSet::default(),
            is_silent: false,
            table: Arc::new(Table::new(cluster.digest(), directories.collect())),
        };
        let gateway = Gateway::new(cluster, GatewayId(0), Incarnation(1), 1, now);
        let mut desk = Self {
            gateway,
            client: Client::new(ClientId(0), Duration::from_secs(10)),
            session: SessionId { slot: Slot(0), index: 0 },
            out: Outbox::default(),
            now,
            results: ResultWriter::default(),
            next: 0,
        };
        desk.gateway.on_heartbeat(&heartbeat, now, &mut desk.out);
        let opening = desk.take_batch();
        desk.results.opened(desk.session);
        let results = desk.answer(&opening);
        desk.gateway.on_results(&results, now, &mut desk.out);
        desk
    }

    /// The batch that it has proposed.
    fn take_batch(&mut self) -> Arc<Batch> {
        let proposed = self.out.sends.drain(..).find_map(|to| match to {
            To::Proposer(_, ToProposer::Propose(propose)) => Some(propose.batch),
            To::Proposer(..)
            | To::Gateway(..)
            | To::ProxyLeader(..)
            | To::Acceptor(..)
            | To::Replica(..) => None,
        });
        proposed.expect("a batch was sent")
    }

    fn answer(&mut self, batch: &Batch) -> Results {
        let (replica, outcomes) = (batch.answerer, self.results.take());
        Results { replica, batch: batch.id, attempt: batch.attempt, slot: Slot(1), outcomes }
    }

    /// Counts what a batch of commands takes until it is on its way, and again from its results to
    /// the callers.
    fn turn(&mut self) {
        self.now.0 += 100_000;
        let command = [7; COMMAND_BYTES];
        counted_work(&mut || {
            let Self { client, gateway, now, out, .. } = self;
            for caller in 0..u64::from(Self::BATCH) {
                let start = Start { caller, order: OrderId::NONE, now: *now };
                client.submit(start, black_box(&command), |caller, command| {
                    gateway.try_submit(caller, command.into(), *now, out)
                });
            }
            gateway.flush(*now, out);
        });
        let batch = self.take_batch();
        assert_eq!(batch.commands_count, Self::BATCH, "one batch");
        let at = Position { slot: Slot(1), index: 0 };
        self.results.start_done(self.session, self.next, at);
        for _ in 0..Self::BATCH {
            self.results.start_reply();
            self.results.put(&[1]);
            self.results.end_reply();
        }
        self.results.end_done();
        self.next += u64::from(Self::BATCH);
        let results = self.answer(&batch);
        counted_work(&mut || {
            self.gateway.on_results(&results, self.now, &mut self.out);
            for (caller, result) in self.out.replies.iter() {
                assert!(result.is_ok(), "answered");
                black_box(self.client.on_reply(caller.tag).expect("its caller waits"));
            }
            self.out.replies.clear();
        });
    }
}

fn gateway() -> u64 {
    const TURNS: u32 = 16;
    let mut desk = Desk::new();
    (0..TURNS).for_each(|_| desk.turn());
    u64::from(TURNS * Desk::BATCH)
}

fn encode(envelope: &Envelope) -> u64 {
    let mut out = Outgoing::default();
    let mut encode_all = || {
        out.clear();
        (0..FRAMES).for_each(|_| wire::encode(black_box(envelope), &mut out));
        black_box(out.len());
    };
    encode_all(); // it has its room now
    counted_work(&mut encode_all);
    FRAMES.into()
}

fn decode(envelope: &Envelope) -> u64 {
    decode_each(envelope, |message| drop(black_box(message)))
}

/// Counts cutting and decoding a stream of `envelope`, and what `take` does with each message.
fn decode_each(envelope: &Envelope, mut take: impl FnMut(Message)) -> u64 {
    let mut out = Outgoing::default();
    (0..FRAMES).for_each(|_| wire::encode(envelope, &mut out));
    let stream: Bytes = out.pieces().flatten().copied().collect();
    let mut batches = BatchPool::new(64);
    let mut reader = FrameReader::new(1 << 20);
    let mut decode_all = || {
        reader.push(stream.clone());
        while let Some(frame) = reader.next() {
            take(frame.and_then(|frame| frame.decode(&mut batches)).expect("a good frame"));
        }
    };
    decode_all(); // the pool has its batches now
    counted_work(&mut decode_all);
    FRAMES.into()
}

fn forward() -> u64 {
    let mut out = Outgoing::default();
    decode_each(&messages::p2a_to_proxy_leader(1024), |message| {
        if out.frames() == FRAMES as usize {
            out.clear();
        }
        let Message::Envelope(Envelope { formation, to }) = message else { return };
        let To::ProxyLeader(_, ToProxyLeader::P2a(p2a)) = to else { return };
        let to = To::Acceptor(AcceptorId(0), ToAcceptor::P2a(p2a));
        wire::encode(&Envelope { formation, to }, &mut out);
    })
}

/// Counts what the key-value machine does with a command, of keys that are in no order and all
/// there.
fn key_value(command: impl Fn(&[u8], &mut Vec<u8>)) -> u64 {
    const KEYS: u64 = 100_000;
    const BATCHES: u64 = 32;
    let mut store = KeyValue::new(KEYS, |key, out| KeyValue::put(key, key, out));
    for _ in 0..BATCHES {
        let commands = store.commands(&command);
        store.run(&commands, &mut counted_work);
    }
    BATCHES * u64::from(KeyValue::BATCH_COMMANDS)
}

/// Counts appending and gathering, without the disk.
fn append() -> u64 {
    const VOTES: u64 = 16;
    const WRITES: u64 = 256;
    let mut log = Log::new(FaultyDisk::new(1), 128, 512);
    let mut write_all = || {
        for _ in 0..WRITES {
            log.append(VOTES);
            log.flush(|_, _| {});
        }
    };
    write_all();
    counted_work(&mut write_all);
    VOTES * WRITES
}
