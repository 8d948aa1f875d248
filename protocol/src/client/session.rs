//! A client's own session: what it has sent and has no answer to, which goes with it to another
//! gateway.
//!
//! ```text
//!   number    first ───────────────────────────────────────────▶ next
//!             │ awaited, doubted, answered │ sent once: awaited, refused │
//!
//!   answer of its way            of a command sent once          of one sent before
//!   reply, ReplyTooLarge,        told                            told
//!     Skipped
//!   Busy, TooLarge, NoRoom       refused                         doubted
//!   OutOfOrder                   refused                         doubted
//!   NoSession                    refused; the session has ended  doubted; the session has ended
//!   Halted                       told; doubted                   told; doubted
//!   OutcomeUnknown,              doubted                         doubted
//!     DeadlineExceeded
//!   the way ends                 doubted                         doubted
//! ```
//!
//! What is *doubted* may have been executed. It is sent again, under the same number, and in number
//! order: then it is executed once, and has the answer that it had (R23). It is sent until it has
//! one, though its caller may wait no longer, for no later command is executed before it.
//!
//! What is *refused* was not executed, and no copy of it is left that may be: it was sent once, and
//! that copy has had its answer. So its number may be given to another command. But only to the
//! next one that is sent: once all numbers above it are refused, too, it is given back. Until then
//! its caller is told nothing, and nothing new is sent. If the way ends before, or a number above
//! it is in doubt, it is sent again like the others.
//!
//! Why no two commands have one number. A number is given back only if no copy of any command under
//! it, or under one above it, is on its way or in the log unanswered: all were sent once, and that
//! copy's answer has come back. The answer `OutOfOrder` or `NoSession` is that of the place in the
//! log where the gateway's session has executed the command's run, which it does once. The others
//! are said of what was never sent on.
//!
//! A session ends where it was not used for long, or to make room (R22). What was refused for that
//! was not executed in it, and is sent in another one. The outcome of what is in doubt is unknown:
//! it may have been executed before the session has ended; it will not be from then on.
//!
//! source: R22, R23, R24

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Failure, Payload, RunOwner, SessionId, Time};

/// The wait before commands are sent again the way on which they have just been: it doubles each
/// time, from the least to the most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// A client's session, and its commands that have no answer.
///
/// A driver has one way to a gateway at a time. It sends what [`next_again`](Self::next_again) and
/// [`next_given_back`](Self::next_given_back) return, then what is new, under the names that
/// [`push`](Self::push) gives; takes in all answers, and calls [`settle`](Self::settle) until that
/// returns nothing.
#[derive(Debug)]
pub struct ClientSession {
    /// Another one for each session.
    key: u64,
    id: Option<SessionId>,
    /// Whether it was asked for on this way.
    is_asked_for: bool,
    /// Whether replicas have said that it has ended.
    has_ended: bool,
    /// The number of the first of `entries`: the lowest unanswered.
    first: u64,
    entries: VecDeque<Entry>,
    /// The entries whose answer is awaited on this way.
    awaited: usize,
    /// Those that are doubted or refused.
    unsettled: usize,
    /// While entries are sent again: the index up to which that was done.
    again: Option<usize>,
    /// How often entries were sent again on this way since a command was answered, or a session was
    /// asked for in vain; and when they may be the next time.
    rounds: u32,
    paused_until: Time,
    /// Commands whose numbers were given back, to be sent under others.
    given_back: VecDeque<(u64, Payload)>,
}

#[derive(Debug)]
struct Entry {
    /// What the caller calls it; `None` once it was told.
    tag: Option<u64>,
    command: Payload,
    was_sent_before: bool,
    stage: Stage,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Stage {
    Awaited,
    Doubted,
    Refused(Failure),
    Answered,
}

impl ClientSession {
    /// Returns a client that has no session yet. It asks for one by `key`, which no client must
    /// have used: a random number.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self {
            key,
            id: None,
            is_asked_for: false,
            has_ended: false,
            first: 0,
            entries: VecDeque::new(),
            awaited: 0,
            unsettled: 0,
            again: None,
            rounds: 0,
            paused_until: Time(0),
            given_back: VecDeque::new(),
        }
    }

    /// Returns what asks for a session, if there is none, commands wait for one, here or as the
    /// driver says, and it was not asked for on this way.
    pub fn ask(&mut self, is_waiting: bool, now: Time) -> Option<RunOwner> {
        let is_wanted = self.may_ask(is_waiting) && now >= self.paused_until;
        self.is_asked_for |= is_wanted;
        is_wanted.then_some(RunOwner::NewClient { key: self.key })
    }

    fn may_ask(&self, is_waiting: bool) -> bool {
        let is_waiting = is_waiting || !self.given_back.is_empty();
        self.id.is_none() && !self.is_asked_for && is_waiting
    }

    /// Takes in the session that it has got. Asked for by two ways it gets the same twice.
    ///
    /// source: R22
    pub fn on_opened(&mut self, id: SessionId) {
        if self.is_asked_for && self.id.is_none() {
            (self.id, self.rounds) = (Some(id), 0);
        }
    }

    /// The wish for a session was refused on this way, or has an unknown outcome: it is asked for
    /// again.
    ///
    /// source: R22
    pub fn on_not_opened(&mut self, now: Time) {
        self.is_asked_for = false;
        self.pause(now);
    }

    fn pause(&mut self, now: Time) {
        let pause = PAUSE_MIN * (1 << self.rounds.min(PAUSE_DOUBLINGS_MAX));
        (self.paused_until, self.rounds) = (now + pause, self.rounds.saturating_add(1));
    }

    /// Whether a command that was not sent yet may be, if there may be `window` numbers without an
    /// answer.
    #[must_use]
    pub fn has_room(&self, window: usize) -> bool {
        self.id.is_some() && !self.has_ended && self.unsettled == 0 && self.entries.len() < window
    }

    /// Takes in a command that is to be sent now, and that its caller calls `tag`; returns its
    /// name, and the command.
    pub fn push(&mut self, tag: u64, command: Payload) -> (RunOwner, &Payload) {
        assert!(self.has_room(usize::MAX), "a command was sent behind one that is not settled");
        let number = self.first + self.entries.len() as u64;
        self.awaited += 1;
        let (tag, stage) = (Some(tag), Stage::Awaited);
        let entry = Entry { tag, command, was_sent_before: false, stage };
        (self.name(number), &self.entries.push_back_mut(entry).command)
    }

    /// Returns the tag of the next command whose number was given back, and the command, to be sent
    /// before new ones.
    pub fn next_given_back(&mut self) -> Option<(u64, Payload)> {
        self.given_back.pop_front()
    }

    /// Returns the next command that is to be sent again, and its name; up to `window` of them may
    /// be awaited.
    pub fn next_again(&mut self, window: usize, now: Time) -> Option<(RunOwner, &Payload)> {
        if self.again.is_none() && self.unsettled > 0 && self.awaited == 0 && self.id.is_some() {
            if self.has_ended || now < self.paused_until {
                return None;
            }
            self.again = Some(0);
            self.pause(now);
        }
        let done = self.again?;
        let is_due = |entry: &Entry| !matches!(entry.stage, Stage::Awaited | Stage::Answered);
        let Some(offset) = self.entries.iter().skip(done).position(is_due) else {
            self.again = None;
            return None;
        };
        if self.awaited >= window {
            return None;
        }
        let index = done + offset;
        self.again = Some(index + 1);
        (self.awaited, self.unsettled) = (self.awaited + 1, self.unsettled - 1);
        let name = self.name(self.first + index as u64);
        let entry = &mut self.entries[index];
        (entry.stage, entry.was_sent_before) = (Stage::Awaited, true);
        Some((name, &entry.command))
    }

    /// Returns the time when commands may be sent again, if some are to be; or a session may be
    /// asked for, if there is none and commands wait for one.
    #[must_use]
    pub fn next_timeout(&self, is_waiting: bool) -> Option<Time> {
        let is_due = match self.id {
            Some(_) => self.unsettled > 0 && self.awaited == 0 && self.again.is_none(),
            None => self.may_ask(is_waiting),
        };
        is_due.then_some(self.paused_until)
    }

    /// Takes in that the command `number` has a reply on this way; returns its tag, if its caller
    /// was not told before.
    ///
    /// source: R23
    pub fn on_reply(&mut self, number: u64) -> Option<u64> {
        let index = self.index(number)?;
        self.set(index, Stage::Answered);
        let tag = self.entries[index].tag.take();
        while self.entries.pop_front_if(|entry| entry.stage == Stage::Answered).is_some() {
            self.first += 1;
            self.again = self.again.map(|done| done.saturating_sub(1));
        }
        self.rounds = 0;
        tag
    }

    /// Takes in why the command `number` has no reply, as is said on this way; returns its tag, and
    /// what its caller is to be told, if anything now.
    ///
    /// source: R23, R24
    pub fn on_failure(&mut self, number: u64, why: Failure) -> Option<(u64, Failure)> {
        let index = self.index(number)?;
        let entry = &mut self.entries[index];
        if entry.stage != Stage::Awaited {
            return None; // no such question is open on this way
        }
        let stage = match &why {
            Failure::Skipped | Failure::ReplyTooLarge => {
                return self.on_reply(number).map(|tag| (tag, why));
            }
            Failure::OutcomeUnknown | Failure::DeadlineExceeded | Failure::Halted(_) => {
                Stage::Doubted
            }
            Failure::NotAQuery | Failure::Panicked => Stage::Doubted, // said of no command
            Failure::Busy
            | Failure::TooLarge
            | Failure::NoRoom(_)
            | Failure::NoSession
            | Failure::OutOfOrder => match entry.was_sent_before {
                true => Stage::Doubted,
                false => Stage::Refused(why.clone()),
            },
        };
        let is_told = matches!(why, Failure::Halted(_));
        let told = if is_told { entry.tag.take() } else { None };
        self.has_ended |= why == Failure::NoSession;
        self.set(index, stage);
        told.map(|tag| (tag, why))
    }

    /// The way has ended, or another is taken from now on.
    ///
    /// source: R23
    pub fn on_way_ended(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.stage == Stage::Awaited) {
            entry.stage = Stage::Doubted;
        }
        (self.unsettled, self.awaited) = (self.unsettled + self.awaited, 0);
        (self.is_asked_for, self.again) = (false, None);
        (self.rounds, self.paused_until) = (0, Time(0));
    }

    /// Does what follows from answers; to be called after all that have come, until it returns
    /// nothing: a caller's tag, and what it is to be told. `key` is for another session, if this
    /// one has ended.
    pub fn settle(&mut self, key: u64) -> Option<(u64, Failure)> {
        if self.again.is_some() {
            return None;
        }
        while let Some(last) = self.entries.back()
            && let Stage::Refused(why) = last.stage.clone()
        {
            assert!(!last.was_sent_before, "the number of a command sent twice is given back");
            let Entry { tag, command, .. } = self.entries.pop_back()?;
            self.unsettled -= 1;
            match (why, tag) {
                (_, None) => {}
                (Failure::OutOfOrder | Failure::NoSession, Some(tag)) => {
                    self.given_back.push_front((tag, command));
                }
                (why, Some(tag)) => return Some((tag, why)),
            }
        }
        if !self.has_ended || self.awaited > 0 {
            return None;
        }
        // What is left was sent before the session has ended, or in doubt.
        while let Some(entry) = self.entries.pop_front() {
            self.unsettled -= usize::from(entry.stage != Stage::Answered);
            if let Some(tag) = entry.tag {
                return Some((tag, Failure::OutcomeUnknown));
            }
        }
        let given_back = std::mem::take(&mut self.given_back);
        *self = Self { given_back, ..Self::new(key) };
        None
    }

    /// Its session, if it has one.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// Whether no command is left without an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.given_back.is_empty()
    }

    /// Asserts what must hold between any two calls.
    pub fn validate(&self) {
        let count = |is_it: fn(&Stage) -> bool| {
            self.entries.iter().filter(|entry| is_it(&entry.stage)).count()
        };
        let unsettled = count(|it| matches!(it, Stage::Doubted | Stage::Refused(_)));
        assert_eq!(self.awaited, count(|it| *it == Stage::Awaited), "awaited were not counted");
        assert_eq!(self.unsettled, unsettled, "unsettled were not counted");
        let is_open = |entry: &&Entry| entry.stage != Stage::Answered;
        let was_sent_before = self.entries.iter().filter(is_open).map(|it| it.was_sent_before);
        let is_in_order = was_sent_before.is_sorted_by(|a, b| a >= b);
        assert!(is_in_order, "sent more often than a command before it: {:?}", self.entries);
        let first = self.entries.front().map(|entry| &entry.stage);
        assert_ne!(first, Some(&Stage::Answered), "the lowest unanswered is answered");
    }

    /// The name that replicas know a command by.
    fn name(&self, number: u64) -> RunOwner {
        let session = self.id.expect("commands are sent in a session");
        RunOwner::Client { session, first: number, lowest_unanswered: self.first }
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    fn set(&mut self, index: usize, stage: Stage) {
        let count = |stage: &Stage| match stage {
            Stage::Awaited => (1, 0),
            Stage::Doubted | Stage::Refused(_) => (0, 1),
            Stage::Answered => (0, 0),
        };
        let entry = &mut self.entries[index];
        let (before, after) = (count(&entry.stage), count(&stage));
        self.awaited = self.awaited + after.0 - before.0;
        self.unsettled = self.unsettled + after.1 - before.1;
        entry.stage = stage;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Slot;

    const ID: SessionId = SessionId { slot: Slot(5), index: 1 };

    fn command(tag: u64) -> Payload {
        Payload::copy(&tag.to_le_bytes())
    }

    /// A client that has a session, and has sent commands with the tags 100, 101, and so on.
    fn client(commands: u64) -> ClientSession {
        let mut client = ClientSession::new(7);
        assert_eq!(client.ask(true, Time(0)), Some(RunOwner::NewClient { key: 7 }));
        assert_eq!(client.ask(true, Time(0)), None, "it was asked for");
        client.on_opened(ID);
        for tag in 100..100 + commands {
            send(&mut client, tag);
        }
        client
    }

    fn number_of(owner: RunOwner) -> u64 {
        let RunOwner::Client { session: ID, first, .. } = owner else { panic!("{owner:?}") };
        first
    }

    /// Sends a command; returns its number.
    fn send(client: &mut ClientSession, tag: u64) -> u64 {
        let (name, _) = client.push(tag, command(tag));
        client.validate();
        number_of(name)
    }

    fn fail(client: &mut ClientSession, number: u64, why: Failure) -> Option<(u64, Failure)> {
        let told = client.on_failure(number, why);
        client.validate();
        told
    }

    fn settle(client: &mut ClientSession) -> Vec<(u64, Failure)> {
        let told = std::iter::from_fn(|| client.settle(8)).collect();
        client.validate();
        told
    }

    /// The numbers of the commands that are sent again.
    fn again(client: &mut ClientSession, now: u64) -> Vec<u64> {
        let mut numbers = Vec::new();
        while let Some((name, sent)) = client.next_again(100, Time(now)) {
            assert_eq!(*sent, command(100 + number_of(name)));
            numbers.push(number_of(name));
        }
        client.validate();
        numbers
    }

    #[test]
    fn r23_the_lowest_number_goes_up_with_the_answers_and_no_further() {
        let mut client = client(3);
        assert_eq!(client.on_reply(1), Some(101));
        let RunOwner::Client { lowest_unanswered, first, .. } = client.push(103, command(103)).0
        else {
            panic!("no name")
        };
        assert_eq!((first, lowest_unanswered), (3, 0));
        assert_eq!((client.on_reply(0), client.on_reply(0)), (Some(100), None));
        let (name, _) = client.push(104, command(104));
        assert_eq!(name, RunOwner::Client { session: ID, first: 4, lowest_unanswered: 2 });
        assert!(client.has_room(4) && !client.has_room(3));
    }

    #[test]
    fn r23_what_a_way_has_not_answered_is_sent_again_by_the_next_in_order() {
        let mut client = client(4);
        client.on_reply(1);
        client.on_way_ended();
        assert!(!client.has_room(100), "nothing new overtakes it");
        assert_eq!(again(&mut client, 1), [0, 2, 3]);
        assert_eq!((again(&mut client, 1), settle(&mut client)), (vec![], vec![]));
        assert_eq!(send(&mut client, 104), 4);
    }

    #[test]
    fn r23_what_is_refused_behind_all_else_gives_its_number_back() {
        let mut client = client(4);
        assert_eq!(fail(&mut client, 1, Failure::Busy), None);
        assert_eq!(settle(&mut client), [], "those above it may yet be executed");
        assert!(!client.has_room(100), "nothing new is sent behind it");
        assert_eq!(fail(&mut client, 3, Failure::OutOfOrder), None);
        assert_eq!(fail(&mut client, 2, Failure::OutOfOrder), None);
        assert_eq!(settle(&mut client), [(101, Failure::Busy)]);
        let given_back = std::iter::from_fn(|| client.next_given_back()).map(|(tag, _)| tag);
        assert_eq!(given_back.collect::<Vec<_>>(), [102, 103], "they were only too early");
        assert_eq!(send(&mut client, 102), 1, "no copy under that number is left");
        assert_eq!(client.on_reply(0), Some(100));
    }

    #[test]
    fn r23_what_is_refused_before_one_in_doubt_is_sent_again_under_its_number() {
        for is_way_over in [false, true] {
            let mut client = client(3);
            client.on_reply(0);
            fail(&mut client, 1, Failure::Busy);
            match is_way_over {
                true => client.on_way_ended(),
                false => drop(fail(&mut client, 2, Failure::DeadlineExceeded)),
            }
            assert_eq!(settle(&mut client), []);
            assert_eq!(again(&mut client, 1), [1, 2]);
            // Now it says nothing: the first copy may be executed.
            fail(&mut client, 1, Failure::Busy);
            fail(&mut client, 2, Failure::OutOfOrder);
            assert_eq!(settle(&mut client), []);
            let later = (Time(1) + PAUSE_MIN).0;
            assert_eq!(
                (again(&mut client, later - 1), again(&mut client, later)),
                (vec![], vec![1, 2])
            );
            assert_eq!((client.on_reply(1), client.on_reply(2)), (Some(101), Some(102)));
        }
    }

    #[test]
    fn r24_a_caller_that_was_told_of_a_halt_hears_no_more_and_the_command_is_sent_on() {
        let mut client = client(2);
        let why = Failure::Halted(std::sync::Arc::new(crate::Halt::Malformed { slot: Slot(1) }));
        assert_eq!(fail(&mut client, 0, why.clone()), Some((100, why)));
        assert_eq!(fail(&mut client, 1, Failure::Skipped), Some((101, Failure::Skipped)));
        assert_eq!((settle(&mut client), again(&mut client, 1)), (vec![], vec![0]));
        assert_eq!((client.on_reply(0), client.is_idle()), (None, true));
    }

    #[test]
    fn r22_what_was_sent_once_goes_on_in_another_session_and_the_rest_is_unknown() {
        let mut client = client(2);
        client.on_way_ended();
        assert_eq!(again(&mut client, 1), [0, 1]);
        send(&mut client, 102);
        send(&mut client, 103);
        for number in 0..4 {
            assert_eq!(settle(&mut client), []);
            assert_eq!(fail(&mut client, number, Failure::NoSession), None);
        }
        let unknown = |tag| (tag, Failure::OutcomeUnknown);
        assert_eq!(settle(&mut client), [unknown(100), unknown(101)]);
        assert_eq!(client.next_timeout(false), Some(Time(0)), "these wait for another session");
        assert_eq!(client.ask(false, Time(1)), Some(RunOwner::NewClient { key: 8 }));
        client.on_opened(SessionId { slot: Slot(9), ..ID });
        let given_back = client.next_given_back().map(|(tag, _)| tag);
        assert_eq!(given_back, Some(102));
        let (name, _) = client.push(102, command(102));
        assert!(matches!(name, RunOwner::Client { first: 0, session, .. } if session > ID));
    }

    #[test]
    fn a_session_is_asked_for_again_by_another_way_and_after_a_pause() {
        let mut client = ClientSession::new(7);
        assert_eq!(client.ask(false, Time(0)), None, "nothing is to be sent");
        assert!(client.ask(true, Time(0)).is_some());
        client.on_not_opened(Time(0));
        assert_eq!(client.next_timeout(false), None, "nothing is to be sent");
        let due = client.next_timeout(true).unwrap();
        assert_eq!((due, client.ask(true, Time(due.0 - 1))), (Time(0) + PAUSE_MIN, None));
        assert_eq!(client.ask(true, due), Some(RunOwner::NewClient { key: 7 }), "by the same key");
        client.on_way_ended();
        assert!(client.ask(true, due).is_some());
        assert_eq!(client.next_timeout(true), None, "the answer is awaited");
        client.on_opened(ID);
        assert_eq!(client.next_timeout(true), None, "commands may be sent at once");
        client.on_opened(SessionId { index: 9, ..ID });
        assert_eq!(client.id(), Some(ID));
    }
}
