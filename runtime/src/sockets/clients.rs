//! The clients of a core: their answers on the way out, and how far their commands are read.

use std::time::Duration;

use loggos_net::wire::{self, RepliesWriter};
use loggos_net::{ConnectionId, Ring};
use loggos_protocol::{Payload, ReadLevel, RunOwner, SessionId, Time};
use tracing::warn;

use super::Sockets;
use super::budget::Budget;
use super::connections::{Asked, Connection, Party, Stage};
use super::handshake::not_served;
use crate::callers::{RemoteCall, RemoteName, ToRemote};

/// What a client asks for: by which name, of which level if it is a read, and its bytes.
pub(super) type NextAsked = (RemoteName, Option<ReadLevel>, Payload);

/// Why a client is read no further.
pub(super) enum Pause {
    /// It holds its share of the memory for clients.
    ForShare,
    /// This tick takes in no more commands.
    ForRoom,
}

impl Connection {
    /// Takes the next command or read out of the last frame; none if all are taken in.
    ///
    /// # Errors
    ///
    /// If it may not be asked for.
    #[inline]
    pub(super) fn next_asked(&mut self) -> Option<Result<NextAsked, &'static str>> {
        match self.asked.as_mut()? {
            Asked::Commands(commands) => {
                let (first, command) = commands.next()?;
                let lowest_unanswered = commands.lowest_unanswered();
                let Some(session) = self.session else {
                    return Some(Err("commands without a session"));
                };
                let owner = RunOwner::Client { session, first, lowest_unanswered };
                Some(Ok((RemoteName::Command(owner), None, command)))
            }
            Asked::Reads(reads) => {
                let (number, query) = reads.next()?;
                Some(Ok((RemoteName::Read(number), Some(reads.level()), query)))
            }
        }
    }

    /// Whether it is not to be read on, in a tick that takes in `room` more commands of clients.
    #[inline]
    pub(super) fn pause(&mut self, budget: &Budget, room: usize) -> Option<Pause> {
        match self.stage {
            Stage::Admitted(Party::Client | Party::Status) if !budget.has_room(&self.account) => {
                self.account.is_held = true;
                Some(Pause::ForShare)
            }
            Stage::Admitted(Party::Client) if room == 0 => Some(Pause::ForRoom),
            Stage::Link(_) | Stage::Unknown { .. } | Stage::Admitted(_) | Stage::Refused { .. } => {
                None
            }
        }
    }
}

/// The most writers of replies that are kept for the next tick.
const WRITERS_MAX: usize = 64;

impl Sockets {
    /// Answers a client's command, unless it has gone. Replies are on their way only after
    /// [`Sockets::end_replies`].
    pub(crate) fn answer(&mut self, ring: &mut Ring, (call, result): ToRemote<'_>) {
        let RemoteCall { connection: to, name, charge } = call;
        let mut connection = self.connections.get_mut(&to);
        self.budget.refund(connection.as_mut().map(|it| &mut it.account), charge);
        let (Some(connection), Some(outgoing)) = (connection, ring.outgoing(to)) else { return };
        let unended_bytes =
            |connection: &Connection| connection.replies.as_ref().map_or(0, RepliesWriter::len);
        let before = outgoing.len() + unended_bytes(connection);
        match (name, result) {
            (RemoteName::Command(RunOwner::NewClient { .. }), Ok((_, name))) => {
                connection.session = SessionId::from_bytes(name);
                wire::encode_session(connection.session, 0, outgoing);
            }
            (RemoteName::Command(RunOwner::NewClient { .. }), Err(why)) => {
                wire::encode_failed(u64::MAX, &why, outgoing);
            }
            (
                RemoteName::Command(RunOwner::Client { first: number, .. })
                | RemoteName::Read(number),
                Ok((at, reply)),
            ) => {
                let replies = connection.replies.get_or_insert_with(|| {
                    self.answered.push(to);
                    self.replies.pop().unwrap_or_default()
                });
                replies.put(number, at, reply, outgoing);
            }
            (
                RemoteName::Command(RunOwner::Client { first: number, .. })
                | RemoteName::Read(number),
                Err(why),
            ) => {
                wire::encode_failed(number, &why, outgoing);
            }
            (RemoteName::Command(RunOwner::Gateway), _) => {
                unreachable!("a connection's client has its own session")
            }
        }
        let bytes = outgoing.len() + unended_bytes(connection) - before;
        let account = &mut connection.account;
        account.expect(bytes);
        self.budget.add_unsent(account, bytes);
        if self.budget.is_beyond(account, self.parties.clients) {
            warn!(address = %connection.address, "closed a client: answers to it take too much memory");
            return self.close(ring, to);
        }
        if account.is_held && self.budget.has_room(account) {
            account.is_held = false;
            self.stalled.push_back(to); // it is read on
        }
    }

    /// Puts the replies of this tick on their way.
    pub(crate) fn end_replies(&mut self, ring: &mut Ring) {
        for to in self.answered.drain(..) {
            let connection = self.connections.get_mut(&to);
            let Some(mut replies) = connection.and_then(|it| it.replies.take()) else { continue };
            if let Some(outgoing) = ring.outgoing(to) {
                replies.end(outgoing);
                if self.replies.len() < WRITERS_MAX {
                    self.replies.push(replies);
                }
            }
        }
    }

    /// Answers a question for the status.
    pub(crate) fn tell_status(&mut self, ring: &mut Ring, to: ConnectionId, status: &[u8]) {
        let Some(connection) = self.connections.get_mut(&to) else { return };
        let Some(outgoing) = ring.outgoing(to) else { return };
        let before = outgoing.len();
        wire::encode_status(status, outgoing);
        let bytes = outgoing.len() - before;
        self.budget.add_unsent(&mut connection.account, bytes);
    }

    /// Takes in for how long the cluster has not served the gateway, if it does not. Clients are
    /// told once: new commands they may take elsewhere, and what they have sent is answered here.
    ///
    /// source: R37
    pub(crate) fn set_unserved(&mut self, ring: &mut Ring, unserved: Option<Duration>) {
        let was_served = !self.handshake.is_unserved();
        self.handshake.set_unserved(unserved);
        let Some(unserved) = unserved.filter(|_| was_served) else { return };
        for (id, connection) in &self.connections {
            if connection.party() == Some(Party::Client)
                && let Some(outgoing) = ring.outgoing(*id)
            {
                wire::encode_refusal(&not_served(unserved), outgoing);
            }
        }
    }

    /// The kernel has taken bytes of a client's answers.
    pub(super) fn on_answers_sent(&mut self, ring: &mut Ring, id: ConnectionId, now: Time) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let account = &mut connection.account;
        self.budget.set_unsent(account, ring.unsent_bytes(id));
        if account.is_held && self.budget.has_room(account) {
            account.is_held = false;
            self.read(ring, id, now);
        }
    }
}
