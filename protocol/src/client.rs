//! The client: what its callers' commands and reads go through on their way to a gateway and back.
//!
//! ```text
//!  input      when                      does                          says
//!  submit     it is its turn, none      call ← deadline               the command, to the gateway
//!             waits, and the gateway
//!             has room
//!             it is its turn            call ← deadline, queue ←      nothing yet
//!                                       command
//!             else                      call ← deadline, its order ←  nothing yet
//!                                       command
//!  read       it is its turn, or not    call ← deadline, its order ←  nothing yet
//!                                       read
//!  next       the gateway has room      queue → command               the oldest command, to the gateway
//!  next_read  likewise                  order → read                  the next read, to the gateway
//!  reply      of a call under way       call → gone, its order goes   the result, to the caller
//!                                       on
//!             of a call that is over                                  nothing
//!  deadline   no reply so far           call → gone, likewise         Busy if it was never sent on,
//!                                                                     else DeadlineExceeded
//! ```
//!
//! Commands leave in the order in which they came: what the gateway has no room for waits here, and
//! all that came later behind it. A deadline ends the caller's wait and nothing else: a command
//! once sent on is executed or not, whether its caller waits or not (R23).
//!
//! **Program order** (R21). The calls of one [`OrderId`] take effect in the order in which they
//! were made, though none waits for the one before. Commands do so in the log. A read does not go
//! through the log: so it leaves when the commands before it have ended, and the commands behind it
//! leave when it has. Reads that follow each other leave together, if one group of the gateway
//! takes them: then later ones reflect no less than earlier ones. Calls of different orders never
//! wait for each other.
//!
//! What a deadline has ended does not hold up what comes behind: its outcome is unknown, and may
//! be that it takes effect later.

mod order;
mod session;

use std::collections::VecDeque;
use std::time::Duration;

pub use self::order::OrderId;
use self::order::{Operation, Order};
pub use self::session::ClientSession;
use crate::{Caller, ClientId, Failure, Payload, ReadGroup, ReadLevel, Time};

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
    /// Commands whose turn it is, and that the gateway has not been given yet, oldest first.
    queue: VecDeque<(u64, Payload)>,
    /// By their ids.
    orders: Vec<Order>,
    /// Orders of which a read is next, and may leave; the first of them has waited longest.
    reading: VecDeque<OrderId>,
}

/// A call to be started.
#[derive(Clone, Copy, Debug)]
pub struct Start<T> {
    /// What the driver needs to know to hand a result back.
    pub caller: T,
    /// The calls that it comes behind.
    pub order: OrderId,
    /// The time when it was made.
    pub now: Time,
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
    order: OrderId,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// It waits for calls before it.
    Behind,
    /// It is its turn.
    InTurn,
    /// It was given to the gateway.
    Sent,
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
            orders: vec![Order::free()],
            reading: VecDeque::new(),
        }
    }

    /// Starts a call. Its `command` goes to the gateway at once if it is its turn, none waits and
    /// `take` takes it, which is given the name to take it under; else it waits.
    ///
    /// source: R21
    pub fn submit(
        &mut self,
        start: Start<T>,
        command: &[u8],
        take: impl FnOnce(Caller, &[u8]) -> bool,
    ) {
        let order = start.order;
        let (tag, place) = self.start(start);
        if !self.begins_command(order) {
            return self.wait_behind(order, tag, command);
        }
        let is_taken = self.queue.is_empty() && take(Caller { client: self.id, tag }, command);
        let call = self.calls[place as usize].call.as_mut().expect("it has just started");
        if is_taken {
            call.stage = Stage::Sent;
        } else {
            call.stage = Stage::InTurn;
            self.queue.push_back((tag, Payload::copy(command)));
        }
    }

    /// Starts a call, whose command waits until it is asked for.
    ///
    /// source: R21
    pub fn enqueue(&mut self, start: Start<T>, command: Payload) {
        let order = start.order;
        let (tag, place) = self.start(start);
        if !self.begins_command(order) {
            return self.wait(order, tag, Operation::Command(command));
        }
        let call = self.calls[place as usize].call.as_mut().expect("it has just started");
        call.stage = Stage::InTurn;
        self.queue.push_back((tag, command));
    }

    /// Starts a call that reads, and waits until it is asked for.
    ///
    /// source: R21
    pub fn read(&mut self, start: Start<T>, level: ReadLevel, query: Payload) {
        let order = start.order;
        let (tag, _) = self.start(start);
        self.wait(order, tag, Operation::Read(level, query));
    }

    /// Takes the next command out of the queue, if the gateway has room for one of so many bytes:
    /// it is to be given to it, under the returned name, on behalf of that caller. To be asked
    /// until there is none.
    pub fn next(&mut self, has_room: impl Fn(usize) -> bool) -> Option<(Caller, &T, Payload)> {
        loop {
            let (tag, command) = self.queue.pop_front_if(|(_, command)| has_room(command.len()))?;
            // A call that is over has been told that its command was never sent.
            if self.is_under_way(tag) {
                return Some((Caller { client: self.id, tag }, self.send(tag), command));
            }
        }
    }

    /// Takes the next read out that may leave; `group` tells of one of that level and so many bytes
    /// which group of the gateway it would be in, if there is room for it. It is to be given to the
    /// gateway, under the returned name, on behalf of that caller. To be asked until there is none.
    ///
    /// source: R21
    pub fn next_read(
        &mut self,
        group: impl Fn(&T, ReadLevel, usize) -> Option<ReadGroup>,
    ) -> Option<(Caller, &T, ReadLevel, Payload)> {
        while let Some(id) = self.reading.front().copied() {
            let next = self.orders[id.place()].next_read();
            let Some((tag, level, bytes)) = next else {
                self.delist(id);
                self.go_on(id);
                continue;
            };
            let Some(call) = self.call_mut(tag) else {
                self.orders[id.place()].forget_next();
                continue;
            };
            let group = group(&call.caller, level, bytes)?;
            match self.orders[id.place()].take_read(group) {
                Some((level, query)) => {
                    let name = Caller { client: self.id, tag };
                    return Some((name, self.send(tag), level, query));
                }
                None => self.delist(id), // it goes on when those under way have ended
            }
        }
        None
    }

    /// Notes that what a call wants is given to the gateway; returns its caller.
    fn send(&mut self, tag: u64) -> &T {
        let call = self.call_mut(tag).expect("only what a caller waits for is sent");
        call.stage = Stage::Sent;
        &call.caller
    }

    /// Whether a command that comes now may leave, as far as its order is concerned.
    #[inline(always)]
    fn begins_command(&mut self, id: OrderId) -> bool {
        id == OrderId::NONE || self.order_mut(id).begins_command()
    }

    #[inline]
    fn order_mut(&mut self, id: OrderId) -> &mut Order {
        if id.place() >= self.orders.len() {
            self.orders.resize_with(id.place() + 1, Order::default);
        }
        &mut self.orders[id.place()]
    }

    #[cold]
    #[inline(never)]
    fn wait_behind(&mut self, id: OrderId, tag: u64, command: &[u8]) {
        self.wait(id, tag, Operation::Command(Payload::copy(command)));
    }

    fn wait(&mut self, id: OrderId, tag: u64, operation: Operation) {
        self.order_mut(id).wait(tag, operation);
        self.list(id);
    }

    /// Has an order asked for its reads, if one is next.
    fn list(&mut self, id: OrderId) {
        let order = &mut self.orders[id.place()];
        if order.is_read_next() && !order.is_listed {
            order.is_listed = true;
            self.reading.push_back(id);
        }
    }

    fn delist(&mut self, id: OrderId) {
        let first = self.reading.pop_front();
        assert_eq!(first, Some(id), "it is the first one's turn");
        self.orders[id.place()].is_listed = false;
    }

    /// What waits in an order may leave, as far as it allows: nothing is under way of it, or a call
    /// that waited is over.
    #[cold]
    #[inline(never)]
    fn go_on(&mut self, id: OrderId) {
        let Self { calls, orders, queue, .. } = self;
        while let Some((tag, command)) = orders[id.place()].next_command(|tag| is_open(calls, tag))
        {
            let call = call_mut(calls, tag).expect("its caller waits for it");
            call.stage = Stage::InTurn;
            queue.push_back((tag, command));
        }
        self.list(id);
    }

    /// Starts a call; returns its tag and its place.
    fn start(&mut self, start: Start<T>) -> (u64, u32) {
        let Start { caller, order, now } = start;
        let place = self.free.pop().unwrap_or_else(|| {
            self.calls.push(CallPlace { generation: 0, older: ENDS, newer: ENDS, call: None });
            u32::try_from(self.calls.len() - 1).expect("fewer than 2^32 calls at once")
        });
        let newest = std::mem::replace(&mut self.calls[ENDS as usize].older, place);
        self.calls[newest as usize].newer = place;
        let entry = &mut self.calls[place as usize];
        assert!(entry.call.is_none(), "a free place has a call");
        (entry.older, entry.newer) = (newest, ENDS);
        entry.call = Some(Call { caller, started_at: now, order, stage: Stage::Behind });
        (u64::from(entry.generation) << 32 | u64::from(place), place)
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
        let is_sent = call.stage == Stage::Sent;
        let why = if is_sent { Failure::DeadlineExceeded } else { Failure::Busy };
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
    pub fn has_commands(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether commands or reads wait for room at the gateway.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty() || !self.reading.is_empty()
    }

    /// Drops commands whose calls are over from the front of the queue. Commands are queued in the
    /// order of their deadlines, so none of them stays behind one that lives.
    fn forget_overdue(&mut self) {
        while self.queue.front().is_some_and(|(tag, _)| !self.is_under_way(*tag)) {
            self.queue.pop_front();
        }
    }

    /// Whether the call of that tag is not over.
    #[must_use]
    pub fn is_under_way(&self, tag: u64) -> bool {
        is_open(&self.calls, tag)
    }

    fn call_mut(&mut self, tag: u64) -> Option<&mut Call<T>> {
        call_mut(&mut self.calls, tag)
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
        let is_ordered = call.order != OrderId::NONE;
        if call.stage == Stage::Behind || is_ordered && self.orders[call.order.place()].ends() {
            self.go_on(call.order);
        }
        Some(call)
    }
}

fn is_open<T>(calls: &[CallPlace<T>], tag: u64) -> bool {
    let (generation, place) = split(tag);
    calls.get(place).is_some_and(|p| p.generation == generation && p.call.is_some())
}

fn call_mut<T>(calls: &mut [CallPlace<T>], tag: u64) -> Option<&mut Call<T>> {
    let (generation, place) = split(tag);
    let place = calls.get_mut(place).filter(|p| p.generation == generation)?;
    place.call.as_mut()
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

    /// A call of the first order.
    fn by(caller: &'static str, now: Time) -> Start<&'static str> {
        Start { caller, order: OrderId(1), now }
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
        client.enqueue(by("first", Time(0)), command());
        let first = sent(&mut client);
        assert_eq!(client.on_reply(first), Some("first"));
        assert_eq!(client.on_reply(first), None);
        client.enqueue(by("second", Time(2)), command());
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
                client.enqueue(by(name, Time(at)), command());
            }
            let tags: Vec<_> = names.iter().map(|_| sent(&mut client)).collect();
            let has_ended = |index: &usize| ended & 1 << index != 0;
            for index in (0..4).filter(has_ended) {
                assert_eq!(client.on_reply(tags[index]), Some(names[index]));
            }
            client.enqueue(by("last", Time(9)), command()); // in the place of one that has ended
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
        client.submit(by("first", Time(0)), b"1", |caller, command| {
            taken.push((caller, command.to_vec()));
            true
        });
        client.submit(by("second", Time(0)), b"2", |_, _| false);
        client.submit(by("third", Time(0)), b"3", |_, _| panic!("it would overtake the second"));
        let [(Caller { tag: first, .. }, bytes)] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!((client.on_reply(*first), &bytes[..]), (Some("first"), &b"1"[..]));
        let queued = std::iter::from_fn(|| client.next(|_| true).map(|(.., command)| command));
        assert_eq!(queued.collect::<Vec<_>>(), [b"2", b"3"].map(|it| Payload::copy(it)));
    }

    #[test]
    fn commands_wait_in_order_until_there_is_room_for_the_first() {
        let mut client = client();
        let long = Payload::inline(&[1; 50]).unwrap();
        client.enqueue(by("long", Time(0)), long.clone());
        client.enqueue(by("short", Time(1)), command());
        assert!(client.next(|bytes| bytes < 50).is_none(), "the short one overtook the long one");
        assert_eq!(client.next(|bytes| bytes <= 50).unwrap().2, long);
        assert_eq!(client.next(|_| true).unwrap().2, command());
        assert!(!client.is_waiting(), "nothing was left");
    }

    #[test]
    fn a_call_that_was_never_sent_on_ends_busy_and_its_command_stays_here() {
        let mut client = client();
        client.enqueue(by("waited", Time(0)), command());
        client.enqueue(by("waits", Time(50)), command());
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
        client.enqueue(by("over", Time(0)), command());
        client.enqueue(by("waits", Time(50)), command());
        client.enqueue(by("waits, too", Time(50)), command());
        assert_eq!(client.overdue(Time(100)), Some(("over", Failure::Busy)));
        client.enqueue(by("sent", Time(50)), command());
        client.queue.rotate_right(1);
        let sent = sent(&mut client);
        let given_up = std::iter::from_fn(|| client.give_up_unsent()).collect::<Vec<_>>();
        assert_eq!(given_up, ["waits", "waits, too"]);
        assert_eq!(client.on_reply(sent), Some("sent"));
    }

    #[test]
    fn a_call_sent_on_ends_unknown_at_its_deadline() {
        let mut client = client();
        client.enqueue(by("it", Time(0)), command());
        let it = sent(&mut client);
        assert_eq!(client.overdue(Time(99)), None);
        assert_eq!(client.overdue(Time(100)), Some(("it", Failure::DeadlineExceeded)));
        assert_eq!(client.on_reply(it), None);
    }

    const LEVEL: ReadLevel = ReadLevel::Linearizable;

    fn of(order: u32, caller: &'static str) -> Start<&'static str> {
        Start { caller, order: OrderId(order), now: Time(0) }
    }

    /// What leaves if there is room: commands, and reads into the group `before`.
    fn leaving(client: &mut Client<&'static str>, before: u64) -> Vec<(&'static str, u64)> {
        let mut left = Vec::new();
        while let Some((name, caller, _)) = client.next(|_| true) {
            left.push((*caller, name.tag));
        }
        let group = ReadGroup::test(before);
        while let Some((name, caller, _, _)) = client.next_read(|_, _, _| Some(group)) {
            left.push((*caller, name.tag));
        }
        left
    }

    fn names(left: &[(&'static str, u64)]) -> Vec<&'static str> {
        left.iter().map(|(name, _)| *name).collect()
    }

    #[test]
    fn r21_a_read_waits_for_earlier_commands_and_later_commands_for_it() {
        let mut client = client();
        client.enqueue(of(1, "w1"), command());
        client.enqueue(of(1, "w2"), command());
        client.read(of(1, "r1"), LEVEL, command());
        client.read(of(1, "r2"), LEVEL, command());
        client.submit(of(1, "w3"), b"w3", |_, _| panic!("it would overtake the reads"));
        client.read(of(1, "r3"), LEVEL, command());
        let first = leaving(&mut client, 0);
        assert_eq!(names(&first), ["w1", "w2"]);
        client.on_reply(first[0].1);
        assert_eq!(names(&leaving(&mut client, 0)), [""; 0], "w2 is under way");
        client.on_reply(first[1].1);
        let reads = leaving(&mut client, 0);
        assert_eq!(names(&reads), ["r1", "r2"]);
        client.on_reply(reads[1].1);
        assert_eq!(names(&leaving(&mut client, 0)), [""; 0], "r1 is under way");
        client.on_reply(reads[0].1);
        let last = leaving(&mut client, 0);
        assert_eq!(names(&last), ["w3"]);
        client.on_reply(last[0].1);
        assert_eq!(names(&leaving(&mut client, 0)), ["r3"]);
    }

    #[test]
    fn r21_reads_under_way_together_are_of_one_group() {
        let mut client = client();
        client.read(of(1, "r1"), LEVEL, command());
        let first = leaving(&mut client, 0);
        client.read(of(1, "r2"), LEVEL, command());
        let second = leaving(&mut client, 0);
        assert_eq!((names(&first), names(&second)), (vec!["r1"], vec!["r2"]));
        client.read(of(1, "r3"), LEVEL, command());
        assert_eq!(names(&leaving(&mut client, 1)), [""; 0], "that group is closed");
        assert!(!client.is_waiting(), "nothing is to be tried again");
        client.on_reply(second[0].1);
        assert_eq!(names(&leaving(&mut client, 1)), [""; 0]);
        client.on_reply(first[0].1);
        assert_eq!(names(&leaving(&mut client, 1)), ["r3"]);
    }

    #[test]
    fn r21_calls_of_different_orders_or_of_none_do_not_wait_for_each_other() {
        let mut client = client();
        client.enqueue(of(1, "w1"), command());
        client.read(of(2, "r2"), LEVEL, command());
        client.enqueue(of(0, "w0"), command());
        client.read(of(0, "r0"), LEVEL, command());
        client.enqueue(of(0, "w00"), command());
        assert_eq!(names(&leaving(&mut client, 0)), ["w1", "w0", "w00", "r2", "r0"]);
        client.read(of(0, "r00"), LEVEL, command());
        assert_eq!(names(&leaving(&mut client, 1)), ["r00"], "of another group");
    }

    #[test]
    fn a_call_that_waits_behind_others_ends_busy_and_holds_none_up() {
        for last in ["w2", "r3"] {
            let mut client = client();
            client.enqueue(of(1, "w1"), command());
            client.read(of(1, "r1"), LEVEL, command());
            client.enqueue(of(1, "over"), command());
            client.read(of(1, "over, too"), LEVEL, command());
            let late = Start { now: Time(50), ..of(1, last) };
            match last {
                "w2" => client.enqueue(late, command()),
                _ => client.read(late, LEVEL, command()),
            }
            let first = leaving(&mut client, 0);
            assert_eq!(names(&first), ["w1"]);
            let overdue: Vec<_> = std::iter::from_fn(|| client.overdue(Time(100))).collect();
            let busy = ["r1", "over", "over, too"].map(|name| (name, Failure::Busy));
            assert_eq!(overdue[0], ("w1", Failure::DeadlineExceeded));
            assert_eq!(overdue[1..], busy);
            assert_eq!(names(&leaving(&mut client, 0)), [last]);
            assert_eq!(client.under_way(), 1);
        }
    }

    /// Random calls of some orders: at any time what is under way of one is commands, or reads of
    /// one group; calls of an order leave in their order, and all do in the end.
    #[test]
    fn r21_whatever_is_called_and_answered_when_each_order_is_kept() {
        let mut rng = crate::Rng::new(21);
        for _ in 0..200 {
            let mut client: Client<(u32, u32, bool)> = Client::new(ClientId(0), DEADLINE);
            let (mut group, mut counts, mut left) = (0, [0; 3], [0; 3]);
            let mut under_way: Vec<(u64, u32, Option<u64>)> = Vec::new();
            for step in 0..400 {
                let order = u32::try_from(rng.below(3)).unwrap();
                let is_read = rng.below(3) > 0;
                if step < 300 && rng.below(2) == 0 {
                    let caller = (order, counts[order as usize], is_read);
                    counts[order as usize] += 1;
                    let start = Start { caller, order: OrderId(1 + order), now: Time(0) };
                    match is_read {
                        true => client.read(start, LEVEL, command()),
                        false => client.enqueue(start, command()),
                    }
                }
                let room = rng.below(3);
                for _ in 0..room {
                    let sent = match client.next(|_| true) {
                        Some((name, caller, _)) => Some((name.tag, *caller, None)),
                        None => {
                            let next = client.next_read(|_, _, _| Some(ReadGroup::test(group)));
                            next.map(|(name, caller, ..)| (name.tag, *caller, Some(group)))
                        }
                    };
                    let Some((tag, (order, number, is_read), of_group)) = sent else { break };
                    assert_eq!(is_read, of_group.is_some(), "as it was called");
                    assert_eq!(number, left[order as usize], "in its order");
                    left[order as usize] += 1;
                    under_way.push((tag, order, of_group));
                    let mut others = under_way.iter().filter(|(_, of, _)| *of == order);
                    assert!(others.all(|(.., other)| *other == of_group), "one kind, one group");
                }
                group += u64::from(rng.below(4) == 0);
                while !under_way.is_empty() && (step >= 300 || rng.below(3) == 0) {
                    let at = usize::try_from(rng.below(under_way.len() as u64)).unwrap();
                    let (tag, ..) = under_way.swap_remove(at);
                    assert!(client.on_reply(tag).is_some(), "it was under way");
                }
            }
            assert!(!client.is_waiting(), "something was left");
            assert_eq!((counts, client.under_way()), (left, 0));
        }
    }
}
