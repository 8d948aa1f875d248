//! The client: what a caller's commands go through on their way to a gateway and back.
//!
//! ```text
//!  input      when                      does                          says
//!  submit     always                    call ← command, deadline      the command, to the gateway
//!  reply      of a call under way       call → gone                   the result, to the caller
//!             Busy, before the deadline waits a little                the command, once more
//!             of a call that is over                                  nothing
//!  deadline   no reply so far           call → gone                   Busy if it was never sent on,
//!                                                                     else DeadlineExceeded
//! ```
//!
//! A deadline ends the caller's wait and nothing else: a command once sent on is executed or not, whoever
//! waits (R23). Only what the gateway refused as `Busy` is certain never to be executed, and is sent again
//! here without asking.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Caller, ClientId, Failure, Payload, Time};

/// The calls of one client of a gateway. `T` is what the driver needs to know to hand a result back.
#[derive(Debug)]
pub struct Client<T> {
    id: ClientId,
    /// How long a call may take.
    deadline: Duration,
    /// How long to wait before a command that was refused as `Busy` is sent again.
    back_off: Duration,
    calls: Vec<Place<T>>,
    free: Vec<u32>,
    /// Calls in the order in which they started, which is that of their deadlines.
    deadlines: VecDeque<(Time, u64)>,
    /// Calls to be sent again, in the order in which that is due.
    retries: VecDeque<(Time, u64)>,
}

#[derive(Debug)]
struct Place<T> {
    /// How many calls have had this place: tells a late reply from one to the call that has it now.
    generation: u32,
    call: Option<Call<T>>,
}

#[derive(Debug)]
struct Call<T> {
    caller: T,
    command: Payload,
    /// Whether the gateway has refused it, for the moment, as `Busy`.
    is_refused: bool,
}

/// What a client wants done when time has passed.
#[derive(Debug)]
pub enum Due<T> {
    /// Submit this once more.
    Again(Caller, Payload),
    /// Tell the caller that there will be no result.
    Over(T, Failure),
}

impl<T> Client<T> {
    /// Returns a client without calls.
    #[must_use]
    pub fn new(id: ClientId, deadline: Duration, back_off: Duration) -> Self {
        Self {
            id,
            deadline,
            back_off,
            calls: Vec::new(),
            free: Vec::new(),
            deadlines: VecDeque::new(),
            retries: VecDeque::new(),
        }
    }

    /// Starts a call: the driver submits the command under the returned name.
    pub fn submit(&mut self, caller: T, command: Payload, now: Time) -> Caller {
        let place = self.free.pop().unwrap_or_else(|| {
            self.calls.push(Place { generation: 0, call: None });
            u32::try_from(self.calls.len() - 1).expect("fewer than 2^32 calls at once")
        });
        let entry = &mut self.calls[place as usize];
        assert!(entry.call.is_none(), "a free place has a call");
        entry.call = Some(Call { caller, command, is_refused: false });
        let tag = u64::from(entry.generation) << 32 | u64::from(place);
        // One slow call must not keep the deadlines of all that are over behind it.
        if self.deadlines.len() > 2 * self.calls.len() + 1024 {
            let mut deadlines = std::mem::take(&mut self.deadlines);
            deadlines.retain(|(_, tag)| self.is_under_way(*tag));
            self.deadlines = deadlines;
        }
        self.deadlines.push_back((now + self.deadline, tag));
        Caller { client: self.id, tag }
    }

    /// Takes a reply in; returns whom to hand it to, unless the call goes on or is over.
    pub fn on_reply(&mut self, tag: u64, failure: Option<Failure>, now: Time) -> Option<T> {
        let call = self.call_mut(tag)?;
        if failure == Some(Failure::Busy) {
            call.is_refused = true;
            self.retries.push_back((now + self.back_off, tag));
            return None;
        }
        self.finish(tag).map(|call| call.caller)
    }

    /// What is due at `now`; to be asked until there is nothing.
    ///
    /// source: R23, R24
    pub fn due(&mut self, now: Time) -> Option<Due<T>> {
        while let Some((_, tag)) = self.retries.pop_front_if(|(at, _)| *at <= now) {
            let caller = Caller { client: self.id, tag };
            if let Some(call) = self.call_mut(tag) {
                call.is_refused = false;
                return Some(Due::Again(caller, call.command.clone()));
            }
        }
        while let Some((_, tag)) = self.deadlines.pop_front_if(|(at, _)| *at <= now) {
            if let Some(call) = self.finish(tag) {
                let why = if call.is_refused { Failure::Busy } else { Failure::DeadlineExceeded };
                return Some(Due::Over(call.caller, why));
            }
        }
        None
    }

    /// When something may be due next.
    #[must_use]
    pub fn next_timeout(&mut self) -> Option<Time> {
        while self.deadlines.front().is_some_and(|(_, tag)| !self.is_under_way(*tag)) {
            self.deadlines.pop_front();
        }
        let deadline = self.deadlines.front().map(|(at, _)| *at);
        let retry = self.retries.front().map(|(at, _)| *at);
        deadline.into_iter().chain(retry).min()
    }

    /// Ends all calls; returns whom to tell.
    pub fn stop(&mut self) -> impl Iterator<Item = T> + '_ {
        self.calls.iter_mut().filter_map(|place| place.call.take()).map(|call| call.caller)
    }

    /// Calls under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.calls.len() - self.free.len()
    }

    fn is_under_way(&self, tag: u64) -> bool {
        let (generation, place) = split(tag);
        self.calls.get(place).is_some_and(|p| p.generation == generation && p.call.is_some())
    }

    fn call_mut(&mut self, tag: u64) -> Option<&mut Call<T>> {
        let (generation, place) = split(tag);
        let place = self.calls.get_mut(place).filter(|p| p.generation == generation)?;
        place.call.as_mut()
    }

    fn finish(&mut self, tag: u64) -> Option<Call<T>> {
        let (generation, place) = split(tag);
        let entry = self.calls.get_mut(place).filter(|p| p.generation == generation)?;
        let call = entry.call.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(u32::try_from(place).unwrap_or(u32::MAX));
        Some(call)
    }
}

/// The generation and the place that a tag names.
fn split(tag: u64) -> (u32, usize) {
    let place = tag & u64::from(u32::MAX);
    (u32::try_from(tag >> 32).unwrap_or(0), usize::try_from(place).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_nanos(100);

    fn client() -> Client<&'static str> {
        Client::new(ClientId(0), DEADLINE, Duration::from_nanos(10))
    }

    fn command() -> Payload {
        Payload::inline(b"command").unwrap()
    }

    #[test]
    fn a_reply_ends_its_call_once() {
        let mut client = client();
        let first = client.submit("first", command(), Time(0));
        assert_eq!(client.on_reply(first.tag, None, Time(1)), Some("first"));
        assert_eq!(client.on_reply(first.tag, None, Time(1)), None);
        let second = client.submit("second", command(), Time(2));
        assert_eq!(client.on_reply(first.tag, None, Time(3)), None, "its place has another call");
        assert_eq!(client.on_reply(second.tag, None, Time(3)), Some("second"));
        assert_eq!((client.under_way(), client.next_timeout()), (0, None));
    }

    #[test]
    fn one_slow_call_does_not_keep_the_deadlines_of_others() {
        let mut client = client();
        client.submit("slow", command(), Time(0));
        for _ in 0..100_000 {
            let caller = client.submit("quick", command(), Time(1));
            assert_eq!(client.on_reply(caller.tag, None, Time(1)), Some("quick"));
        }
        assert!(client.deadlines.len() <= 2 * client.calls.len() + 1025);
        assert_eq!((client.under_way(), client.next_timeout()), (1, Some(Time(100))));
    }

    #[test]
    fn what_was_busy_is_sent_again_until_the_deadline() {
        let mut client = client();
        let caller = client.submit("it", command(), Time(0));
        assert_eq!(client.on_reply(caller.tag, Some(Failure::Busy), Time(5)), None);
        assert_eq!(client.next_timeout(), Some(Time(15)));
        assert!(client.due(Time(14)).is_none());
        assert!(matches!(client.due(Time(15)), Some(Due::Again(again, _)) if again == caller));
        assert_eq!(client.on_reply(caller.tag, Some(Failure::Busy), Time(95)), None);
        assert!(matches!(client.due(Time(100)), Some(Due::Over("it", Failure::Busy))));
    }

    #[test]
    fn a_call_sent_on_ends_unknown_at_its_deadline() {
        let mut client = client();
        let caller = client.submit("it", command(), Time(0));
        assert!(client.due(Time(99)).is_none());
        let over = client.due(Time(100));
        assert!(matches!(over, Some(Due::Over("it", Failure::DeadlineExceeded))), "{over:?}");
        assert_eq!(client.on_reply(caller.tag, None, Time(101)), None);
    }
}
