//! The callers of a core: futures at the port, residents, and clients of connections; and the queue
//! of their commands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use loggos_net::ConnectionId;
use loggos_protocol::{
    Caller, Client, ClientId, Failure, OrderId, Payload, Position, ReadGroup, ReadLevel, RunOwner,
    Start, Time, Watermark,
};

use crate::client::{Answer, CallError, Executed, Operation, Port, Submission};
use crate::resident::{Commands, Entry, MoveIn, Tenant};
use crate::sockets::Charge;

/// The most commands that a tick takes from callers.
pub(crate) const CALLS_A_TICK: usize = 4096;

/// The recipient of a call's result.
#[derive(Debug)]
enum Recipient {
    /// The call's future.
    Call { answer: Answer, is_read: bool },
    /// A resident, under the tag that it gave the call.
    Resident { id: u64, tag: u64, is_read: bool },
    /// A client of a connection.
    Remote(RemoteCall),
}

/// A command or read of a connection's client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteCall {
    pub(crate) connection: ConnectionId,
    pub(crate) name: RemoteName,
    /// What it counts for until it is answered.
    pub(crate) charge: Charge,
}

/// What a connection's client calls a command or read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RemoteName {
    /// Its name in the client's session; or it asks for one.
    Command(RunOwner),
    /// The client's own number for it.
    Read(u64),
}

/// A result for a client of a connection, to be sent there.
pub(crate) type ToRemote<'a> = (RemoteCall, Result<(Position, &'a [u8]), Failure>);

/// All callers of a core.
#[derive(Debug)]
pub(crate) struct Callers {
    port: Arc<Port>,
    client: Client<Recipient>,
    /// The most commands under way.
    window: usize,
    /// Sorted by id.
    residents: Vec<Tenant>,
    /// The id of the next resident.
    residents_count: u64,
    /// The index of the resident that has the first turn, modulo their number.
    first_turn: usize,
    /// The commands that a resident submits in its turn.
    commands: Commands,
    /// The order of the reads of each connection that has any under way, and how many these are.
    connections: HashMap<ConnectionId, (OrderId, usize)>,
    /// All that callers of this process have been told of lies below.
    seen: Watermark,
}

impl Callers {
    pub(crate) fn new(port: Arc<Port>, deadline: Duration, window: usize) -> Self {
        Self {
            port,
            client: Client::new(ClientId(0), deadline),
            window,
            residents: Vec::new(),
            residents_count: 0,
            first_turn: 0,
            commands: Commands::default(),
            connections: HashMap::new(),
            seen: Watermark(0),
        }
    }

    /// Takes a resident in.
    pub(crate) fn move_in(&mut self, MoveIn(make): MoveIn, now: Time) {
        self.residents.push(Tenant::new(self.residents_count, make(), now));
        self.residents_count += 1;
    }

    /// Returns how many more commands may be taken in. Commands beyond the window wait at the port
    /// or in their socket, and their callers with them (R29).
    pub(crate) fn room(&self) -> usize {
        self.window.saturating_sub(self.client.under_way())
    }

    /// Gives residents their turns, in which they may submit up to `calls_max` commands; returns
    /// how many they have. Their commands go to the gateway at once, as far as `take` takes them:
    /// see [`Client::submit`].
    ///
    /// Where room is short each resident gets an equal share, and the port one, too; and each time
    /// another resident has the first turn. So a resident that always wants more takes nothing from
    /// the others.
    pub(crate) fn take_turns(
        &mut self,
        calls_max: usize,
        now: Time,
        mut take: impl FnMut(Caller, &[u8]) -> bool,
    ) -> usize {
        let (room, before) = (self.room().min(calls_max), self.client.under_way());
        let due = self.residents.iter().filter(|tenant| tenant.is_due(now, room)).count();
        if due == 0 {
            return 0;
        }
        let share = (room / (due + usize::from(!self.port.is_empty()))).max(1);
        let mut commands = std::mem::take(&mut self.commands);
        let count = self.residents.len();
        self.first_turn += 1;
        for offset in 0..count {
            let place = (self.first_turn + offset) % count;
            let share = share.min(room - (self.client.under_way() - before));
            let tenant = &mut self.residents[place];
            if !tenant.is_due(now, share) {
                continue;
            }
            let id = tenant.id;
            tenant.turn(&mut commands, share, now);
            for (Entry { tag, caller, consistency, .. }, bytes) in commands.iter() {
                let order = tenant.order(caller, &self.port);
                let is_read = consistency.is_some();
                let caller = Recipient::Resident { id, tag, is_read };
                let start = Start { caller, order, now };
                match consistency {
                    None => self.client.submit(start, bytes, &mut take),
                    Some(it) => self.client.read(start, it.level(), Payload::copy(bytes)),
                }
            }
            commands.clear();
        }
        self.commands = commands;
        for left in self.residents.extract_if(.., |tenant| tenant.has_left) {
            left.orders.iter().for_each(|order| self.port.give_order_back(*order));
        }
        self.client.under_way() - before
    }

    /// Takes in up to `calls_max` of the commands that callers have submitted at the port; returns
    /// how many.
    pub(crate) fn take_submissions(&mut self, calls_max: usize, now: Time) -> usize {
        let waiting = self.port.len().min(calls_max).min(self.room());
        for _ in 0..waiting {
            let Some(submission) = self.port.pop() else { break };
            let Submission { order, operation, answer } = submission;
            let is_read = matches!(operation, Operation::Query(..));
            let start = Start { caller: Recipient::Call { answer, is_read }, order, now };
            match operation {
                Operation::Execute(command) => self.client.enqueue(start, command),
                Operation::Query(consistency, query) => {
                    self.client.read(start, consistency.level(), query);
                }
            }
        }
        if waiting > 0 {
            self.port.wake_waiting();
        }
        waiting
    }

    /// Takes in a command of a connection's client. It comes behind no other but in the log: the
    /// client keeps it from overtaking reads.
    pub(crate) fn submit_remote(&mut self, call: RemoteCall, command: Payload, now: Time) {
        let caller = Recipient::Remote(call);
        self.client.enqueue(Start { caller, order: OrderId::NONE, now }, command);
    }

    /// Takes in a read of a connection's client. Those of a connection are answered in their order.
    ///
    /// source: R21
    pub(crate) fn read_remote(
        &mut self,
        call: RemoteCall,
        level: ReadLevel,
        query: Payload,
        now: Time,
    ) {
        let new = || (self.port.take_order(), 0);
        let (order, under_way) = self.connections.entry(call.connection).or_insert_with(new);
        *under_way += 1;
        let start = Start { caller: Recipient::Remote(call), order: *order, now };
        self.client.read(start, level, query);
    }

    /// Whether commands wait to be sent on.
    pub(crate) fn has_commands(&self) -> bool {
        self.client.has_commands()
    }

    /// Whether commands or reads wait to be sent on.
    pub(crate) fn is_waiting(&self) -> bool {
        self.client.is_waiting()
    }

    /// Returns the next command to be sent on, and on whose behalf, if there is room for it: see
    /// [`Client::next`].
    pub(crate) fn next(
        &mut self,
        has_room: impl Fn(usize) -> bool,
    ) -> Option<(Caller, RunOwner, Payload)> {
        let (caller, recipient, command) = self.client.next(has_room)?;
        let owner = match recipient {
            Recipient::Remote(RemoteCall { name: RemoteName::Command(owner), .. }) => *owner,
            Recipient::Remote(RemoteCall { name: RemoteName::Read(_), .. }) => {
                unreachable!("a read among commands")
            }
            Recipient::Call { .. } | Recipient::Resident { .. } => RunOwner::Gateway,
        };
        Some((caller, owner, command))
    }

    /// Returns the next read to be sent on, if there is room for it: see [`Client::next_read`].
    pub(crate) fn next_read(
        &mut self,
        group: impl Fn(ReadLevel, usize) -> Option<ReadGroup>,
    ) -> Option<(Caller, ReadLevel, Payload)> {
        let seen = self.seen;
        let level_of = |recipient: &Recipient, level| match (recipient, level) {
            (Recipient::Remote(_), level) => level,
            (_, ReadLevel::Sequential { .. }) => ReadLevel::Sequential { seen },
            (_, level @ (ReadLevel::Linearizable | ReadLevel::Eventual)) => level,
        };
        let group = |recipient: &Recipient, level, bytes| group(level_of(recipient, level), bytes);
        let (caller, recipient, level, query) = self.client.next_read(group)?;
        Some((caller, level_of(recipient, level), query))
    }

    /// Whether the caller of what was sent on under `tag` still waits for it.
    pub(crate) fn is_waited_for(&self, tag: u64) -> bool {
        self.client.is_under_way(tag)
    }

    /// Hands a result to its recipient. One for a client of a connection is returned, to be sent
    /// there.
    pub(crate) fn answer<'a>(
        &mut self,
        tag: u64,
        result: Result<(Position, &'a [u8]), Failure>,
    ) -> Option<ToRemote<'a>> {
        match self.client.on_reply(tag)? {
            Recipient::Remote(call) => {
                self.end_remote(call);
                Some((call, result))
            }
            recipient @ (Recipient::Call { is_read, .. } | Recipient::Resident { is_read, .. }) => {
                if let Ok((at, _)) = &result {
                    let after = at.slot.watermark_after();
                    self.seen.raise(if is_read { Watermark(at.slot.0) } else { after });
                }
                hear(recipient, &mut self.residents, result.map_err(CallError::from));
                None
            }
        }
    }

    /// A connection's client has its answer: of a connection that reads no more, the order is free.
    fn end_remote(&mut self, call: RemoteCall) {
        if let RemoteName::Read(_) = call.name
            && let Some((order, under_way)) = self.connections.get_mut(&call.connection)
        {
            *under_way -= 1;
            if *under_way == 0 {
                self.port.give_order_back(*order);
                self.connections.remove(&call.connection);
            }
        }
    }

    /// Ends one call whose deadline has passed; to be called until it returns `None`. One whose
    /// command was not sent on ends as `unsent`.
    pub(crate) fn overdue(
        &mut self,
        unsent: &CallError,
        now: Time,
    ) -> Option<Option<ToRemote<'static>>> {
        let (recipient, why) = self.client.overdue(now)?;
        if let Recipient::Remote(call) = recipient {
            self.end_remote(call);
            return Some(Some((call, Err(why))));
        }
        let why = if why == Failure::Busy { unsent.clone() } else { why.into() };
        hear(recipient, &mut self.residents, Err(why));
        Some(None)
    }

    /// Ends all calls whose commands were not sent on, for the reason that a gateway gave: that
    /// there is no room for them, or nothing is executed.
    pub(crate) fn give_up_unsent_for(&mut self, why: &Failure) {
        if matches!(why, Failure::NoRoom(_) | Failure::Halted(_)) {
            self.give_up_unsent(&why.clone().into());
        }
    }

    /// Ends all calls whose commands were not sent on.
    pub(crate) fn give_up_unsent(&mut self, why: &CallError) {
        while let Some(recipient) = self.client.give_up_unsent() {
            hear(recipient, &mut self.residents, Err(why.clone()));
        }
    }

    /// Ends all calls, and takes in no more.
    pub(crate) fn stop(&mut self) {
        self.port.close();
        for recipient in self.client.stop() {
            hear(recipient, &mut self.residents, Err(CallError::Stopped));
        }
    }

    /// Tells callers that wait for it whether commands are served now.
    #[inline]
    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.port.set_ready(is_ready);
    }

    /// Whether a caller has commands to submit now.
    pub(crate) fn has_work(&self, now: Time) -> bool {
        let room = self.room();
        !self.port.is_empty() && room > 0
            || self.residents.iter().any(|tenant| tenant.is_due(now, room))
    }

    /// Returns when a caller is due next.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let residents = self.residents.iter().filter_map(|tenant| tenant.due);
        residents.chain(self.client.next_timeout()).min()
    }
}

/// Tells a caller of this process; another is told by its connection, unless all ends.
fn hear(
    recipient: Recipient,
    residents: &mut [Tenant],
    result: Result<(Position, &[u8]), CallError>,
) {
    match recipient {
        Recipient::Call { answer, .. } => {
            let executed = |(at, reply)| Executed { at, reply: Payload::copy(reply) };
            answer.give(result.map(executed));
        }
        Recipient::Resident { id, tag, .. } => {
            // A resident that has moved out hears nothing.
            if let Ok(place) = residents.binary_search_by_key(&id, |tenant| tenant.id) {
                residents[place].on_result(tag, result);
            }
        }
        Recipient::Remote(_) => {}
    }
}
