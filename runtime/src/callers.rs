//! The callers of a core: futures at the port, residents, and clients of connections; and the queue
//! of their commands.

use std::sync::Arc;
use std::time::Duration;

use loggos_net::ConnectionId;
use loggos_protocol::{
    Caller, Client, ClientId, Failure, OrderId, Payload, Position, RunOwner, Start, Time,
};

use crate::client::{Answer, CallError, Executed, Port};
use crate::resident::{Commands, MoveIn, Tenant};
use crate::sockets::Charge;

/// The most commands that a tick takes from callers.
pub(crate) const CALLS_A_TICK: usize = 4096;

/// The recipient of a command's result.
#[derive(Debug)]
enum Recipient {
    /// The call's future.
    Call(Answer),
    /// A resident, under the tag that it gave the command.
    Resident { id: u64, tag: u64 },
    /// A client of a connection.
    Remote(RemoteCall),
}

/// A command of a connection's client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RemoteCall {
    pub(crate) connection: ConnectionId,
    /// Its name in the client's session; or it asks for one.
    pub(crate) owner: RunOwner,
    /// What it counts for until it is answered.
    pub(crate) charge: Charge,
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
            for (tag, command) in commands.iter() {
                let start = in_any_order(Recipient::Resident { id, tag }, now);
                self.client.submit(start, command, &mut take);
            }
            commands.clear();
        }
        self.commands = commands;
        self.residents.retain(|tenant| !tenant.has_left);
        self.client.under_way() - before
    }

    /// Takes in up to `calls_max` of the commands that callers have submitted at the port; returns
    /// how many.
    pub(crate) fn take_submissions(&mut self, calls_max: usize, now: Time) -> usize {
        let waiting = self.port.len().min(calls_max).min(self.room());
        for _ in 0..waiting {
            let Some(submission) = self.port.pop() else { break };
            let start = in_any_order(Recipient::Call(submission.answer), now);
            self.client.enqueue(start, submission.command);
        }
        if waiting > 0 {
            self.port.wake_waiting();
        }
        waiting
    }

    /// Takes in a command of a connection's client.
    pub(crate) fn submit_remote(&mut self, call: RemoteCall, command: Payload, now: Time) {
        self.client.enqueue(in_any_order(Recipient::Remote(call), now), command);
    }

    /// Whether commands wait to be sent on.
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
            Recipient::Remote(call) => call.owner,
            Recipient::Call(_) | Recipient::Resident { .. } => RunOwner::Gateway,
        };
        Some((caller, owner, command))
    }

    /// Hands a result to its recipient. One for a client of a connection is returned, to be sent
    /// there.
    pub(crate) fn answer<'a>(
        &mut self,
        tag: u64,
        result: Result<(Position, &'a [u8]), Failure>,
    ) -> Option<ToRemote<'a>> {
        match self.client.on_reply(tag)? {
            Recipient::Remote(call) => Some((call, result)),
            recipient @ (Recipient::Call(_) | Recipient::Resident { .. }) => {
                hear(recipient, &mut self.residents, result.map_err(CallError::from));
                None
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

/// A call that comes behind no other, but in the log.
fn in_any_order(caller: Recipient, now: Time) -> Start<Recipient> {
    Start { caller, order: OrderId::NONE, now }
}

/// Tells a caller of this process; another is told by its connection, unless all ends.
fn hear(
    recipient: Recipient,
    residents: &mut [Tenant],
    result: Result<(Position, &[u8]), CallError>,
) {
    match recipient {
        Recipient::Call(answer) => {
            let executed = |(at, reply)| Executed { at, reply: Payload::copy(reply) };
            answer.give(result.map(executed));
        }
        Recipient::Resident { id, tag } => {
            // A resident that has moved out hears nothing.
            if let Ok(place) = residents.binary_search_by_key(&id, |tenant| tenant.id) {
                residents[place].on_result(tag, result);
            }
        }
        Recipient::Remote(_) => {}
    }
}
