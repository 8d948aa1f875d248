//! The client: what a caller's commands go through on their way to a gateway and back.
//!
//! ```text
//!  input      when                      does                          says
//!  submit     none waits, and the       call ← deadline               the command, to the gateway
//!             gateway has room
//!             else                      call ← deadline, queue ←      nothing yet
//!                                       command
//!  next       the gateway has room      queue → command               the oldest command, to the gateway
//!  reply      of a call under way       call → gone                   the result, to the caller
//!             of a call that is over                                  nothing
//!  deadline   no reply so far           call → gone                   Busy if it was never sent on,
//!                                                                     else DeadlineExceeded
//! ```
//!
//! Commands leave in the order in which they came: what the gateway has no room for waits here, and
//! all that came later behind it. A deadline ends the caller's wait and nothing else: a command
//! once sent on is executed or not, whether its caller waits or not (R23).

mod session;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::session::ClientSession;
use crate::{Caller, ClientId, Failure, Payload, Time};

/// The calls of one client of a gateway. `T` is what the driver needs to know to hand a result
/// back.
#[derive(Debug)]
pub struct Client<T> {
    id: ClientId,
    /// How long a call may take.
    deadline: Duration,
    /// Those under way are linked in the order in which they started, which is that of their
    /// deadlines. The place [`ENDS`] has no call: it links to the oldest and the newest.
    calls: Vec<CallPlace<T>>,
    free: Vec<u32>,
    /// Commands that the gateway has not been given yet, oldest first.
    queue: VecDeque<(u64, Payload)>,
}

/// The place at which the list of calls begins and ends.
const ENDS: u32 = 0;

#[derive(Debug)]
struct CallPlace<T> {
    /// The number of calls that have had this place: tells a late reply from one to the call that
    /// has it now.
    generation: u32,
    /// The places of the calls that started before and after this one, or [`ENDS`].
    older: u32,
    newer: u32,
    call: Option<Call<T>>,
}

#[derive(Debug)]
struct Call<T> {
    caller: T,
    started_at: Time,
    /// Whether its command was sent on.
    is_sent: bool,
}

impl<T> Client<T> {
    /// Returns a client without calls.
    #[must_use]
    pub fn new(id: ClientId, deadline: Duration) -> Self {
        Self {
            id,
            deadline,
            calls: vec![CallPlace { generation: 0, older: ENDS, newer: ENDS, call: None }],
            free: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Starts a call. Its `command` goes to the gateway at once if none waits and `take` takes it,
    /// which is given the name to take it under; else it is queued.
    pub fn submit(
        &mut self,
        caller: T,
        command: &[u8],
        now: Time,
        take: impl FnOnce(Caller, &[u8]) -> bool,
    ) {
        let (tag, place) = self.start(caller, now);
        if self.queue.is_empty() && take(Caller { client: self.id, tag }, command) {
            let call = self.calls[place as usize].call.as_mut();
            call.expect("it has just started").is_sent = true;
        } else {
            self.queue.push_back((tag, Payload::copy(command)));
        }
    }

    /// Starts a call, and queues its command.
    pub fn enqueue(&mut self, caller: T, command: Payload, now: Time) {
        let (tag, _) = self.start(caller, now);
        self.queue.push_back((tag, command));
    }

    /// Starts a call; returns its tag and its place.
    fn start(&mut self, caller: T, now: Time) -> (u64, u32) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.calls.push(CallPlace { generation: 0, older: ENDS, newer: ENDS, call: None });
            u32::try_from(self.calls.len() - 1).expect("fewer than 2^32 calls at once")
        });
        let newest = std::mem::replace(&mut self.calls[ENDS as usize].older, place);
        self.calls[newest as usize].newer = place;
        let entry = &mut self.calls[place as usize];
        assert!(entry.call.is_none(), "a free place has a call");
        (entry.older, entry.newer) = (newest, ENDS);
        entry.call = Some(Call { caller, started_at: now, is_sent: false });
        (u64::from(entry.generation) << 32 | u64::from(place), place)
    }

    /// Takes the next command out of the queue, if the gateway has room for one of so many bytes:
    /// it is to be given to it, under the returned name, on behalf of that caller. To be asked
    /// until there is none.
    pub fn next(&mut self, has_room: impl Fn(usize) -> bool) -> Option<(Caller, &T, Payload)> {
        loop {
            let (tag, command) = self.queue.pop_front_if(|(_, command)| has_room(command.len()))?;
            // A call that is over has been told that its command was never sent.
            if self.is_under_way(tag) {
                let name = Caller { client: self.id, tag };
                let call = self.call_mut(tag)?;
                call.is_sent = true;
                return Some((name, &call.caller, command));
            }
        }
    }

    /// Takes a reply in; returns the caller to hand it to, unless the call is over.
    pub fn on_reply(&mut self, tag: u64) -> Option<T> {
        self.finish(tag).map(|call| call.caller)
    }

    /// A call whose deadline has passed, and what to tell its caller; to be asked until there is
    /// none.
    ///
    /// source: R23, R24
    pub fn overdue(&mut self, now: Time) -> Option<(T, Failure)> {
        self.next_timeout().filter(|at| *at <= now)?;
        let oldest = self.calls[ENDS as usize].newer;
        let generation = self.calls[oldest as usize].generation;
        let call = self.finish(u64::from(generation) << 32 | u64::from(oldest))?;
        let why = if call.is_sent { Failure::DeadlineExceeded } else { Failure::Busy };
        self.forget_overdue();
        Some((call.caller, why))
    }

    /// Ends one call whose command was not sent on; to be asked until there is none.
    pub fn give_up_unsent(&mut self) -> Option<T> {
        while let Some((tag, _)) = self.queue.pop_front() {
            if let Some(call) = self.finish(tag) {
                return Some(call.caller);
            }
        }
        None
    }

    /// The time when a call is overdue next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let oldest = self.calls[ENDS as usize].newer;
        let call = self.calls[oldest as usize].call.as_ref()?;
        Some(call.started_at + self.deadline)
    }

    /// Ends all calls; returns the callers to tell.
    pub fn stop(&mut self) -> impl Iterator<Item = T> + '_ {
        self.calls.iter_mut().filter_map(|place| place.call.take()).map(|call| call.caller)
    }

    /// Calls under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.calls.len() - 1 - self.free.len()
    }

    /// Whether commands wait for room at the gateway.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Drops commands whose calls are over from the front of the queue. Commands are queued in the
    /// order of their deadlines, so none of them stays behind one that lives.
    fn forget_overdue(&mut self) {
        while self.queue.front().is_some_and(|(tag, _)| !self.is_under_way(*tag)) {
            self.queue.pop_front();
        }
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
        let (older, newer) = (entry.older, entry.newer);
        self.calls[older as usize].newer = newer;
        self.calls[newer as usize].older = older;
        debug_assert!(self.free.len() < self.calls.len(), "more places are free than there are");
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
        Client::new(ClientId(0), DEADLINE)
    }

    fn command() -> Payload {
        Payload::inline(b"command").unwrap()
    }

    fn sent(client: &mut Client<&'static str>) -> u64 {
        client.next(|_| true).unwrap().0.tag
    }

    #[test]
    fn a_reply_ends_its_call_once() {
        let mut client = client();
        client.enqueue("first", command(), Time(0));
        let first = sent(&mut client);
        assert_eq!(client.on_reply(first), Some("first"));
        assert_eq!(client.on_reply(first), None);
        client.enqueue("second", command(), Time(2));
        let second = sent(&mut client);
        assert_eq!(client.on_reply(first), None, "its place has another call");
        assert_eq!(client.on_reply(second), Some("second"));
        assert_eq!((client.under_way(), client.next_timeout()), (0, None));
    }

    #[test]
    fn whichever_calls_end_the_others_keep_the_order_of_their_deadlines() {
        for ended in 0..16_u32 {
            let mut client = client();
            let names = ["a", "b", "c", "d"];
            for (name, at) in names.into_iter().zip(0..) {
                client.enqueue(name, command(), Time(at));
            }
            let tags: Vec<_> = names.iter().map(|_| sent(&mut client)).collect();
            let has_ended = |index: &usize| ended & 1 << index != 0;
            for index in (0..4).filter(has_ended) {
                assert_eq!(client.on_reply(tags[index]), Some(names[index]));
            }
            client.enqueue("last", command(), Time(9)); // in the place of one that has ended
            let left = (0..4).filter(|index| !has_ended(index)).map(|index| names[index]);
            let left: Vec<_> = left.chain(["last"]).collect();
            let overdue = std::iter::from_fn(|| client.overdue(Time(109)));
            assert_eq!(overdue.map(|(name, _)| name).collect::<Vec<_>>(), left, "{ended:04b}");
            assert_eq!((client.under_way(), client.next_timeout()), (0, None));
        }
    }

    #[test]
    fn a_command_goes_to_the_gateway_at_once_unless_others_wait() {
        let mut client = client();
        let mut taken = Vec::new();
        client.submit("first", b"1", Time(0), |caller, command| {
            taken.push((caller, command.to_vec()));
            true
        });
        client.submit("second", b"2", Time(0), |_, _| false);
        client.submit("third", b"3", Time(0), |_, _| panic!("it would overtake the second"));
        let [(Caller { tag: first, .. }, bytes)] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((client.on_reply(*first), &bytes[..]), (Some("first"), &b"1"[..]));
        let queued = std::iter::from_fn(|| client.next(|_| true).map(|(.., command)| command));
        assert_eq!(queued.collect::<Vec<_>>(), [b"2", b"3"].map(|it| Payload::copy(it)));
    }

    #[test]
    fn commands_wait_in_order_until_there_is_room_for_the_first() {
        let mut client = client();
        let long = Payload::inline(&[1; 50]).unwrap();
        client.enqueue("long", long.clone(), Time(0));
        client.enqueue("short", command(), Time(1));
        assert!(client.next(|bytes| bytes < 50).is_none(), "the short one overtook the long one");
        assert_eq!(client.next(|bytes| bytes <= 50).unwrap().2, long);
        assert_eq!(client.next(|_| true).unwrap().2, command());
        assert!(!client.is_waiting(), "nothing was left");
    }

    #[test]
    fn a_call_that_was_never_sent_on_ends_busy_and_its_command_stays_here() {
        let mut client = client();
        client.enqueue("waited", command(), Time(0));
        client.enqueue("waits", command(), Time(50));
        assert_eq!(client.overdue(Time(99)), None);
        assert_eq!(client.overdue(Time(100)), Some(("waited", Failure::Busy)));
        assert_eq!(client.overdue(Time(100)), None);
        assert_eq!(client.queue.len(), 1, "what is over takes no room");
        let left = sent(&mut client);
        assert!(client.next(|_| true).is_none(), "the other was told that it was never sent");
        assert_eq!(client.on_reply(left), Some("waits"));
    }

    #[test]
    fn what_was_not_sent_on_can_be_given_up_and_what_was_can_not() {
        let mut client = client();
        client.enqueue("over", command(), Time(0));
        client.enqueue("waits", command(), Time(50));
        client.enqueue("waits, too", command(), Time(50));
        assert_eq!(client.overdue(Time(100)), Some(("over", Failure::Busy)));
        client.enqueue("sent", command(), Time(50));
        client.queue.rotate_right(1);
        let sent = sent(&mut client);
        let given_up = std::iter::from_fn(|| client.give_up_unsent()).collect::<Vec<_>>();
        assert_eq!(given_up, ["waits", "waits, too"]);
        assert_eq!(client.on_reply(sent), Some("sent"));
    }

    #[test]
    fn a_call_sent_on_ends_unknown_at_its_deadline() {
        let mut client = client();
        client.enqueue("it", command(), Time(0));
        let it = sent(&mut client);
        assert_eq!(client.overdue(Time(99)), None);
        assert_eq!(client.overdue(Time(100)), Some(("it", Failure::DeadlineExceeded)));
        assert_eq!(client.on_reply(it), None);
    }
}
