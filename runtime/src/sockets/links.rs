//! The links of a core: its way to each core of another node.
//!
//! A link carries messages one way; answers take the other core's own link. What a link cannot take
//! is dropped and counted, since its sender will send it again (R27, R29).

use std::time::Duration;

use loggos_net::wire::{self, Welcome};
use loggos_net::{ConnectionId, Ring};
use loggos_protocol::{Envelope, Time};
use tracing::{info, warn};

use super::connections::{Connection, GREETING_MAX, Party, Stage};
use super::{Incoming, Sockets};
use crate::Address;
use crate::dial::{Dial, DialEnd, Pace};
use crate::names::Destination;

/// The longest time that a link with something to send sends nothing; then it is taken for dead.
pub(super) const STALL_MAX: Duration = Duration::from_secs(5);
/// Bytes that wait to be sent over a link; what exceeds them is dropped. As many again are reserved
/// for what elections need.
pub(super) const LINK_BYTES_MAX: usize = 8 << 20;
/// A link that was up is called again soon, to learn whether the process behind it has ended (R28).
const PACE: Pace = Pace {
    wait_first: Duration::from_millis(10),
    wait_after_up: Duration::from_millis(1),
    wait_max: Duration::from_secs(1),
};

/// A core of another node.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    pub(crate) node: u8,
    pub(crate) core: u8,
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) destination: Destination,
    /// Whether the link is kept up even if there is nothing to say: a leader may live there, and
    /// that it ends is to be known at once.
    pub(crate) is_watched: bool,
}

/// This core's way to a core of another node.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) remote: Remote,
    pub(super) dial: Dial,
    /// The life that it led to when it was last up: the nonce of that core's welcome.
    pub(super) life: Option<u64>,
    /// Whether it was up and has ended, and it is not known yet whether the process behind it has.
    is_in_doubt: bool,
    /// The time when something was last sent, or there was nothing to send.
    progress_at: Time,
    /// The last batch of our log that the remote core was told of; never goes down while the link
    /// is up.
    pub(super) told_batch: u64,
}

impl Link {
    pub(super) fn new(remote: Remote) -> Self {
        let dial = Dial::new(PACE);
        Self { remote, dial, life: None, is_in_doubt: false, progress_at: Time(0), told_batch: 0 }
    }

    /// Whether to call now, to learn whether the process behind it has ended.
    pub(super) fn is_doubt_due(&self, now: Time) -> bool {
        self.is_in_doubt && self.dial.is_due(now)
    }

    /// The time when that is due.
    pub(super) fn doubt_due_at(&self) -> Option<Time> {
        self.dial.due_at().filter(|_| self.is_in_doubt)
    }

    /// Whether to call now, though there is nothing to say.
    pub(super) fn is_watch_due(&self, now: Time) -> bool {
        self.remote.is_watched && self.dial.is_due(now)
    }

    /// The connection that takes too long to answer, or to send what waits.
    pub(super) fn late(&self, now: Time) -> Option<ConnectionId> {
        let stalled = self.dial.up().filter(|_| now.since(self.progress_at) > STALL_MAX);
        stalled.or_else(|| self.dial.unanswered(GREETING_MAX, now))
    }

    /// Notes that it has sent something by now, or has nothing to send, or could not be observed.
    pub(super) fn note_progress(&mut self, now: Time) {
        self.progress_at = now;
    }

    /// It is up, and leads to that `life`.
    pub(super) fn on_welcome(&mut self, connection: ConnectionId, life: u64, now: Time) {
        (self.life, self.is_in_doubt, self.progress_at) = (Some(life), false, now);
        if self.dial.on_welcome(connection) {
            info!(node = self.remote.name, address = %self.remote.address, "reached again");
        }
    }

    /// It is down, or has not come about.
    pub(super) fn on_end(&mut self, now: Time, why: &str) {
        let DialEnd { was_up, is_news } = self.dial.on_end(now);
        // A link that has been called for long in vain is called when there is something to say.
        self.is_in_doubt = (self.is_in_doubt || was_up) && !self.dial.waits_longest();
        if is_news {
            let Remote { name, address, .. } = &self.remote;
            warn!(node = name, %address, why, "cannot be reached");
        }
    }

    /// Notes that the call was refused; returns whether that shows that the process which the link
    /// led to has ended.
    pub(super) fn on_refused(&mut self) -> bool {
        std::mem::take(&mut self.is_in_doubt)
    }
}

impl Sockets {
    /// Sends a message over a link, or drops it. A link that is down is called, if it is time.
    pub(crate) fn send(&mut self, ring: &mut Ring, link: usize, envelope: &Envelope, now: Time) {
        let Some(connection) = self.links[link].dial.up() else {
            self.counters.dropped += 1;
            if self.links[link].dial.is_due(now) {
                self.call(ring, link, now);
            }
            return;
        };
        let room = if envelope.to.is_urgent() { 2 * LINK_BYTES_MAX } else { LINK_BYTES_MAX };
        match ring.outgoing(connection).filter(|outgoing| outgoing.len() < room) {
            Some(outgoing) => wire::encode(envelope, outgoing),
            None => self.counters.dropped += 1,
        }
    }

    /// Notes which links have nothing left to send, before the ring sends what has gathered.
    pub(crate) fn note_idle_links(&mut self, ring: &mut Ring, now: Time) {
        for link in &mut self.links {
            if let Some(connection) = link.dial.up()
                && ring.outgoing(connection).is_none_or(|outgoing| outgoing.is_empty())
            {
                link.note_progress(now);
            }
        }
    }

    /// Ends links that have taken too long, and calls those that are to be up always.
    pub(super) fn sweep_links(&mut self, ring: &mut Ring, now: Time) {
        for link in 0..self.links.len() {
            if let Some(connection) = self.links[link].late(now) {
                self.close(ring, connection);
                self.links[link].on_end(now, "it does not answer");
            }
        }
        for link in 0..self.links.len() {
            if self.links[link].is_watch_due(now) {
                self.call(ring, link, now);
            }
        }
    }

    /// Tells the cores that links lead to how far our log is, where it has moved on.
    ///
    /// source: R33
    pub(super) fn tell_log(&mut self, ring: &mut Ring) {
        let Some(log) = self.handshake.log() else { return };
        for link in self.links.iter_mut().filter(|link| link.told_batch < log.synced) {
            if let Some(connection) = link.dial.up()
                && let Some(outgoing) = ring.outgoing(connection)
            {
                wire::encode_log(&log, outgoing);
                link.told_batch = log.synced;
            }
        }
    }

    /// Says who we are to the core that a link has reached.
    pub(super) fn greet(&mut self, ring: &mut Ring, id: ConnectionId) {
        let link = self.connections.get(&id).and_then(Connection::link);
        let Some(link) = link.map(|link| &mut self.links[link]) else { return };
        link.told_batch = self.handshake.log().map_or(0, |log| log.synced);
        if let Some(outgoing) = ring.outgoing(id) {
            wire::encode_hello(&self.handshake.hello(&link.remote), outgoing);
        }
        ring.receive(id);
    }

    pub(super) fn call(&mut self, ring: &mut Ring, link: usize, now: Time) {
        let called = self.links[link].remote.destination.to_call().and_then(|address| {
            let called = ring.connect(address).map_err(|error| error.to_string());
            called.map(|id| (id, address))
        });
        match called {
            Ok((id, address)) => {
                self.links[link].dial.on_called(id, now);
                self.insert(id, Stage::Link(link), address);
            }
            Err(why) => self.links[link].on_end(now, &why),
        }
    }

    /// A link is up, unless the log of the core that it leads to is an older copy: then that core
    /// is told.
    pub(super) fn on_welcome(
        &mut self,
        ring: &mut Ring,
        link: usize,
        welcome: &Welcome,
        now: Time,
    ) {
        if self.links[link].life.is_some_and(|life| life != welcome.nonce) {
            self.on_gone(ring, link);
        }
        let Some(id) = self.links[link].dial.connection() else { return };
        match welcome.log.map_or(Ok(()), |log| self.handshake.see(welcome.nonce, log)) {
            Ok(()) => self.links[link].on_welcome(id, welcome.nonce, now),
            Err(refusal) => {
                self.handshake.report_refused(self.links[link].remote.node, &refusal);
                self.refuse(ring, id, refusal, now);
                self.links[link].on_end(now, "its log is an older copy");
            }
        }
    }

    /// The life that a link led to has ended: what it has said and is not read yet counts no more,
    /// or its last heartbeat would be heard after its end.
    pub(super) fn on_gone(&mut self, ring: &mut Ring, link: usize) {
        let Some(gone) = self.links[link].life.take() else { return };
        let is_of_it = |connection: &Connection| match connection.party() {
            Some(Party::Peer { life, .. }) => life == gone,
            Some(Party::Client | Party::Status) | None => false,
        };
        let of_it = self.connections.iter().filter(|(_, connection)| is_of_it(connection));
        for id in of_it.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close(ring, id);
        }
        self.incoming.push_back(Incoming::Gone { link });
    }
}
