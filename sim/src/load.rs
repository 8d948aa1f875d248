//! The clients: closed loops that know what they asked for and what they were told.
//!
//! Most share the session of a gateway, and end with it. Movers have their own, and go from gateway
//! to gateway. Readers change nothing.

mod movers;
mod readers;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use loggos_kv as kv;
use loggos_protocol::{
    Caller, ClientId, Failure, GatewayId, Position, Rng, RunOwner, Time, Watermark,
};

use self::movers::Mover;
use self::readers::{Reader, Reflected, Seen};
use crate::linearizability::{Answer, Command, History, OperationId, Value};
use crate::recorder::CommandId;
use crate::sights::Sights;
use crate::swarm::LoadPlan;

/// All clients of a run.
#[derive(Debug)]
pub(crate) struct Load {
    plan: LoadPlan,
    clients: BTreeMap<(GatewayId, ClientId), Client>,
    /// Those whose gateway is [`NO_GATEWAY`], by their numbers.
    movers: Vec<Mover>,
    readers: Vec<Reader>,
    /// All that any client has been told of.
    told: Reflected,
    /// What reads were told; and how many commands are below each bound of the log, as they said.
    reads_seen: Vec<Seen>,
    commands_at: BTreeMap<Watermark, u64>,
    /// What was asked for, of which key, if there are reads to be checked by it.
    asked: BTreeMap<CommandId, (Vec<u8>, Command)>,
    /// The life of each gateway, and the commands given to it.
    lives: BTreeMap<GatewayId, Life>,
    lives_count: u32,
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// What was asked for and told, in the order in which that was.
    pub(crate) history: History,
    /// The largest position among them.
    last_position: Option<u64>,
    pub(crate) unknown: u64,
    /// Commands that were executed, as their clients were told, and whose replies were too large.
    pub(crate) unanswerable: Vec<CommandId>,
    pub(crate) busy: u64,
    /// The situations that movers have come to.
    pub(crate) sights: Sights,
    /// Commands of movers that were sent again, and their wishes for sessions.
    pub(crate) copies: u64,
    /// The time when all healed, and the clients that have had no answer since to a command asked
    /// after that.
    healed_at: Option<Time>,
    unserved: BTreeSet<(GatewayId, ClientId)>,
    /// The longest that a client waited for the first such answer.
    pub(crate) longest_wait: Duration,
}

/// A command whose reply came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) id: CommandId,
    /// The position that the reply named.
    pub(crate) position: u64,
    /// The largest position that had been acknowledged when it was submitted: it must come after.
    pub(crate) not_before: Option<u64>,
}

/// What is submitted to a gateway.
pub(crate) type Submitted = (Caller, RunOwner, Vec<u8>);

/// The gateway of clients that go from one to another.
pub(crate) const NO_GATEWAY: GatewayId = GatewayId(u8::MAX);

/// What a client needs to ask for something.
struct Asking<'a> {
    plan: &'a LoadPlan,
    history: &'a mut History,
    asked: &'a mut BTreeMap<CommandId, (Vec<u8>, Command)>,
    rng: &'a mut Rng,
    not_before: Option<u64>,
    now: Time,
}

#[derive(Debug, Default)]
struct Client {
    done: u32,
    under_way: BTreeMap<u64, UnderWay>,
    /// What it saw last of each key: what it expects there.
    seen: BTreeMap<Vec<u8>, Value>,
}

#[derive(Clone, Debug)]
struct UnderWay {
    id: CommandId,
    operation: OperationId,
    key: Vec<u8>,
    not_before: Option<u64>,
    asked_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    life: u32,
    next_number: u32,
}

impl Load {
    pub(crate) fn new(plan: LoadPlan, gateways: u8, rng: &mut Rng) -> Self {
        let mut load = Self {
            clients: BTreeMap::new(),
            movers: Vec::new(),
            readers: Vec::new(),
            told: Reflected::default(),
            reads_seen: Vec::new(),
            commands_at: BTreeMap::new(),
            asked: BTreeMap::new(),
            lives: BTreeMap::new(),
            lives_count: 0,
            acknowledged: Vec::new(),
            history: History::default(),
            last_position: None,
            unknown: 0,
            unanswerable: Vec::new(),
            busy: 0,
            copies: 0,
            sights: Sights::default(),
            healed_at: None,
            unserved: BTreeSet::new(),
            longest_wait: Duration::ZERO,
            plan,
        };
        for gateway in (0..gateways).map(GatewayId) {
            load.start_life(gateway, Time(0));
            for client in (0..load.plan.clients_per_gateway).map(ClientId) {
                load.clients.insert((gateway, client), Client::default());
            }
            let readers = (0..load.plan.readers_per_gateway).map(|_| Reader::new(gateway));
            load.readers.extend(readers);
        }
        for id in (0..load.plan.movers).map(ClientId) {
            let life = load.next_life();
            load.movers.push(Mover::new(life, rng));
            load.clients.insert((NO_GATEWAY, id), Client::default());
        }
        load
    }

    /// A gateway has started over: what it had under way has an unknown outcome, but for what
    /// movers had there.
    pub(crate) fn start_life(&mut self, gateway: GatewayId, now: Time) {
        self.movers.iter_mut().for_each(|mover| mover.leave(gateway));
        self.give_up_reads(gateway, now);
        let life = self.next_life();
        self.lives.insert(gateway, life);
        for (_, client) in self.clients.range_mut(clients_of(gateway)) {
            self.unknown += client.give_up(&mut self.history, now);
        }
    }

    fn next_life(&mut self) -> Life {
        let life = self.lives_count;
        self.lives_count += 1;
        Life { life, next_number: 0 }
    }

    /// Draws the commands that the clients of `gateway` submit now.
    pub(crate) fn submissions(
        &mut self,
        gateway: GatewayId,
        now: Time,
        rng: &mut Rng,
    ) -> Vec<Submitted> {
        let mut submissions = self.mover_submissions(gateway, now, rng);
        let (not_before, plan) = (self.last_position, &self.plan);
        let (history, asked) = (&mut self.history, &mut self.asked);
        let asking = &mut Asking { plan, history, asked, rng, not_before, now };
        let Some(life) = self.lives.get_mut(&gateway) else { return submissions };
        for ((_, id), client) in self.clients.range_mut(clients_of(gateway)) {
            if asking.rng.below(100) >= plan.eager_percent {
                continue;
            }
            for _ in 0..client.left(plan) {
                let (tag, command) = client.ask((gateway, *id), life, asking);
                submissions.push((Caller { client: *id, tag }, RunOwner::Gateway, command));
            }
        }
        submissions
    }

    /// Takes a reply in.
    pub(crate) fn on_reply(
        &mut self,
        gateway: GatewayId,
        caller: Caller,
        reply: Result<(Position, &[u8]), Failure>,
        now: Time,
    ) {
        let (client, tag) = (caller.client.0, caller.tag);
        if let Some(reader) = client.checked_sub(readers::FIRST) {
            self.on_read((reader, tag), reply, now);
        } else if let Some(mover) = client.checked_sub(movers::FIRST) {
            self.on_reply_to_mover(gateway, (mover, tag), reply, now);
        } else {
            self.tell((gateway, caller.client), tag, reply, now);
        }
    }

    /// Tells a client what became of a command.
    fn tell(
        &mut self,
        id: (GatewayId, ClientId),
        tag: u64,
        reply: Result<(Position, &[u8]), Failure>,
        now: Time,
    ) {
        let caller = Caller { client: id.1, tag };
        let client = self.clients.get_mut(&id).expect("a client of ours");
        let under_way = client.under_way.remove(&tag);
        let UnderWay { id: command_id, operation, key, not_before, asked_at } =
            under_way.unwrap_or_else(|| panic!("{caller:?} was answered twice"));
        match reply {
            Ok((at, reply)) => {
                if self.healed_at.is_some_and(|healed_at| asked_at >= healed_at)
                    && self.unserved.remove(&id)
                {
                    self.longest_wait = self.longest_wait.max(now.since(asked_at));
                }
                let (position, answer) = reply.split_first_chunk().expect("a position");
                let position = u64::from_le_bytes(*position);
                self.last_position = self.last_position.max(Some(position));
                self.told.raise(Reflected::with(position, at));
                self.acknowledged.push(Acknowledged { id: command_id, position, not_before });
                let answer = decode(answer);
                match &answer {
                    Answer::Value(value) => drop(client.seen.insert(key, Some(value.clone()))),
                    Answer::Missing => drop(client.seen.insert(key, None)),
                    Answer::Mismatch(value) => drop(client.seen.insert(key, value.clone())),
                    Answer::Stored
                    | Answer::Deleted
                    | Answer::Number(_)
                    | Answer::Swapped
                    | Answer::NotANumber
                    | Answer::Overflow => {}
                }
                self.history.answer(operation, answer, now);
                client.done += 1;
            }
            Err(Failure::Busy | Failure::NoRoom(_)) => {
                self.busy += 1; // never sent on: another will be drawn
                self.asked.remove(&command_id);
                self.history.refuse(operation, now);
            }
            Err(Failure::OutcomeUnknown | Failure::DeadlineExceeded | Failure::Halted(_)) => {
                self.unknown += 1;
                self.history.give_up(operation, now);
                client.done += 1;
            }
            Err(Failure::Skipped) => {
                self.history.refuse(operation, now); // it has no effect, ever
                client.done += 1;
            }
            Err(Failure::ReplyTooLarge) => {
                self.unanswerable.push(command_id);
                self.unserved.remove(&id);
                self.history.give_up(operation, now);
                client.done += 1;
            }
            Err(
                why @ (Failure::TooLarge
                | Failure::NoSession
                | Failure::OutOfOrder
                | Failure::NotAQuery
                | Failure::Panicked),
            ) => {
                panic!("{caller:?} was within the limit, and is told of no session: {why:?}")
            }
        }
    }

    /// From now on all is healed, and how long each client waits for its next answer is measured.
    pub(crate) fn heal(&mut self, now: Time) {
        self.healed_at = Some(now);
        self.movers.iter_mut().for_each(Mover::settle_down);
        self.unserved =
            self.clients.keys().filter(|(gateway, _)| *gateway != NO_GATEWAY).copied().collect();
    }

    /// Whether some client of each of these gateways has got an answer since all has healed, if any
    /// had something left to ask.
    pub(crate) fn is_served(&self, counts: impl Fn(GatewayId) -> bool) -> bool {
        let mut gateways = self.lives.keys().copied().filter(|gateway| counts(*gateway));
        gateways.all(|gateway| {
            let clients = self.clients.range(clients_of(gateway));
            let (mut is_served, mut are_all_done) = (false, true);
            for (id, client) in clients {
                is_served |= !self.unserved.contains(id);
                are_all_done &= client.done >= self.plan.commands_per_client;
            }
            is_served || are_all_done
        })
    }

    /// Whether every client of the gateways that `counts` has got all its answers.
    pub(crate) fn is_done(&self, counts: impl Fn(GatewayId) -> bool) -> bool {
        let mut readers = self.readers.iter().filter(|reader| counts(reader.gateway()));
        let mut clients = self.clients.iter().filter(|((gateway, _), _)| counts(*gateway));
        clients.all(|(_, client)| {
            client.under_way.is_empty() && client.done >= self.plan.commands_per_client
        }) && readers.all(|reader| reader.is_done(self.plan.reads_per_reader))
    }

    /// Which client waits for what, for a person.
    pub(crate) fn waiting(&self) -> String {
        let waiting = self.clients.iter().filter(|(_, client)| {
            !client.under_way.is_empty() || client.done < self.plan.commands_per_client
        });
        let lines = waiting.map(|((gateway, id), client)| {
            let (done, under_way) = (client.done, client.under_way.values());
            let ids: Vec<_> = under_way.map(|u| (u.id.life, u.id.number)).collect();
            format!("gateway {} client {}: {done} done, waits for {ids:?}", gateway.0, id.0)
        });
        let readers = (0..).zip(&self.readers);
        let readers = readers.filter(|(_, reader)| !reader.is_done(self.plan.reads_per_reader));
        let readers = readers.map(|(index, reader)| format!("reader {index}: {reader:?}"));
        lines.chain(readers).collect::<Vec<_>>().join("\n")
    }
}

impl Client {
    /// How many commands it may ask for now.
    fn left(&self, plan: &LoadPlan) -> u32 {
        let under_way = u32::try_from(self.under_way.len()).unwrap_or(u32::MAX);
        let left = plan.commands_per_client.saturating_sub(self.done.saturating_add(under_way));
        left.min(plan.pipeline.saturating_sub(under_way))
    }

    /// Draws a command; returns its tag and its bytes.
    fn ask(
        &mut self,
        (gateway, id): (GatewayId, ClientId),
        life: &mut Life,
        asking: &mut Asking<'_>,
    ) -> (u64, Vec<u8>) {
        let Asking { plan, history, asked, rng, not_before, now } = asking;
        let command_id = CommandId { life: life.life, number: life.next_number };
        life.next_number += 1;
        let tag = u64::from(command_id.life) << 32 | u64::from(command_id.number);
        let key = key_of(rng.below(plan.keys));
        let what = draw(tag, self.seen.get(&key), plan.command_bytes_max, rng);
        let mut command = Vec::new();
        command_id.encode(&mut command);
        encode(&key, &what, &mut command);
        if plan.readers_per_gateway > 0 {
            asked.insert(command_id, (key.clone(), what.clone()));
        }
        let person = u32::from(gateway.0) * 1_000 + id.0;
        let operation = history.invoke(person, &key, what, *now);
        let (not_before, asked_at) = (*not_before, *now);
        let under_way = UnderWay { id: command_id, operation, key, not_before, asked_at };
        self.under_way.insert(tag, under_way);
        (tag, command)
    }

    /// Waits for no answer any more; returns how many it had none to.
    fn give_up(&mut self, history: &mut History, now: Time) -> u64 {
        let under_way = std::mem::take(&mut self.under_way);
        for under_way in under_way.values() {
            history.give_up(under_way.operation, now);
            self.done += 1;
        }
        under_way.len() as u64
    }
}

fn clients_of(gateway: GatewayId) -> RangeInclusive<(GatewayId, ClientId)> {
    (gateway, ClientId(0))..=(gateway, ClientId(u32::MAX))
}

fn key_of(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

/// Draws what is asked of a key. What is written is written nowhere else.
fn draw(tag: u64, seen: Option<&Value>, bytes_max: u64, rng: &mut Rng) -> Command {
    let value = |rng: &mut Rng| {
        let mut value = tag.to_string().into_bytes();
        if rng.below(4) == 0 {
            // No number, and of any length.
            value.resize(value.len() + usize::try_from(rng.below(bytes_max)).unwrap_or(0), b'x');
        }
        value
    };
    match rng.below(20) {
        0..7 => Command::Put(value(rng)),
        7..13 => Command::Get,
        13..16 => Command::Increment(1 + rng.below(3).cast_signed()),
        16 => Command::Delete,
        _ => Command::CompareAndSet {
            expected: seen.cloned().unwrap_or_default(),
            value: value(rng),
        },
    }
}

fn encode(key: &[u8], asked: &Command, command: &mut Vec<u8>) {
    let asked = match asked {
        Command::Put(value) => kv::Command::Put { key, value },
        Command::Get => kv::Command::Get { key },
        Command::Delete => kv::Command::Delete { key },
        Command::Increment(by) => kv::Command::Increment { key, by: *by },
        Command::CompareAndSet { expected, value } => {
            kv::Command::CompareAndSet { key, expected: expected.as_deref(), value }
        }
    };
    asked.encode(command).expect("a short key");
}

fn decode(answer: &[u8]) -> Answer {
    match kv::Answer::decode(answer).expect("the machine's own answer") {
        kv::Answer::Stored => Answer::Stored,
        kv::Answer::Value(value) | kv::Answer::Versioned { value, .. } => {
            Answer::Value(value.to_vec())
        }
        kv::Answer::Missing => Answer::Missing,
        kv::Answer::Deleted => Answer::Deleted,
        kv::Answer::Number(number) => Answer::Number(number),
        kv::Answer::Swapped => Answer::Swapped,
        kv::Answer::Mismatch(value) => Answer::Mismatch(value.map(<[u8]>::to_vec)),
        kv::Answer::NotANumber => Answer::NotANumber,
        kv::Answer::Overflow => Answer::Overflow,
        kv::Answer::Malformed => panic!("a command was changed on its way"),
    }
}

#[cfg(test)]
mod tests {
    use loggos_kv::Kv;
    use loggos_protocol::{
        At, Items, Position, ResultWriter, RunReplies, SessionId, Slot, StateMachine as _,
    };

    use super::*;

    /// Has the machine execute a command; returns its answer.
    fn execute(machine: &mut Kv, slot: u64, command: &[u8]) -> Answer {
        let position = Position { slot: Slot(slot), index: 0 };
        let at = At { slot: position.slot, index: position.index, time: Time(0) };
        let mut writer = ResultWriter::default();
        writer.start_done(SessionId { slot: Slot(0), index: 0 }, 0, position);
        machine.apply(at, command, &mut RunReplies::new(&mut writer).reply());
        let replies = writer.end_done();
        let reply = writer.copy(replies);
        decode(Items::new(reply.as_slice()).next().expect("a reply"))
    }

    #[test]
    fn what_histories_are_checked_against_is_what_the_machine_does() {
        let mut rng = Rng::new(11);
        let mut machine = Kv::default();
        let mut values: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
        let mut kinds = Vec::new();
        for slot in 0..50_000 {
            let key = format!("key {}", rng.below(8)).into_bytes();
            let value = values.entry(key.clone()).or_default();
            let seen = if rng.below(2) == 0 { value.clone() } else { None };
            let asked = match rng.below(50) {
                0 => Command::Put(i64::MAX.to_string().into_bytes()),
                _ => draw(slot, Some(&seen), 20, &mut rng),
            };
            let mut command = Vec::new();
            encode(&key, &asked, &mut command);
            let (answer, after) = asked.execute(value);
            assert_eq!(execute(&mut machine, slot, &command), answer, "{asked:?} of {value:?}");
            assert_eq!(machine.get(&key), after.as_deref(), "after {asked:?} of {value:?}");
            let kind = std::mem::discriminant(&answer);
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            *value = after;
        }
        assert_eq!(kinds.len(), 9, "not every kind of answer came up");
    }
}
