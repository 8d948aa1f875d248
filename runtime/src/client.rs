//! The in-process client: futures that any executor can poll, and a blocking form.
//!
//! ```text
//!   any thread                               the gateway's core
//!   execute ── Submission ──▶ port ─────────▶ protocol::Client ──▶ Gateway
//!      ▲                                           │
//!      └── waker ◀── completion, in the call's ◀───┘
//!                    own cell
//! ```
//!
//! A call's cell is taken from a pool and goes back to it, so that a steady state allocates
//! nothing. Where the port is full, calls wait in a queue of their own until the gateway's core has
//! taken commands from it.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use crossbeam::queue::{ArrayQueue, SegQueue};
use loggos_protocol::{
    AcceptorSet, Failure, Halt, OrderId, Payload, Position, ReadLevel, Watermark,
};

use crate::alarm::Alarm;

/// Calls whose cells are kept for the next ones.
const POOL_CELLS: usize = 8192;
/// Commands on their way to the gateway's core.
const SUBMISSIONS_MAX: usize = 8192;

/// The result of a command or query.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Executed {
    /// Its position in the log. Of a query: that of the next command; it reflects all before.
    pub at: Position,
    /// The state machine's reply.
    pub reply: Payload,
}

/// The reason why a command has no result. [`CallError::may_have_executed`] tells what became of
/// it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CallError {
    /// It was never sent on, and will not be executed: until the deadline the gateway had as many
    /// commands under way as its window allows; or [`Client::try_execute`] found no room.
    Busy,
    /// It was never sent on, and will not be executed: no gateway could be reached, or none that
    /// the cluster serves.
    Unreachable,
    /// It was never sent on: it is longer than `command_bytes_max`.
    TooLarge,
    /// It was never sent on: the logs of these acceptors have too little room for new proposals.
    NoRoom(AcceptorSet),
    /// It was executed, but its reply is not available: it is longer than `reply_bytes_max`; or it
    /// was lost on its way, and replicas had more than `answers_bytes_max` bytes of replies to
    /// keep.
    ReplyTooLarge,
    /// It may have been executed: the session that it was sent in is lost. Of a client of other
    /// processes it will not be any more.
    OutcomeUnknown,
    /// It was skipped by an operator, since replicas had halted at it, and will never be executed.
    Skipped,
    /// So many replicas have halted that no f+1 are left, of which one for this reason. It may have
    /// been executed, or may yet be.
    Halted(Arc<Halt>),
    /// No answer came within the deadline. It may have been executed, or may yet be.
    DeadlineExceeded,
    /// The cluster has stopped. The command may have been executed.
    Stopped,
    /// It was to be read, and the state machine answers no such query. Nothing was executed.
    NotAQuery,
    /// It was to be read, and the state machine panicked at it. Nothing was executed.
    Panicked,
}

/// What the answer to a query must reflect.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Consistency {
    /// Every command and query that was answered before, whoever sent it. It costs a message to a
    /// few acceptors and back, and one to a replica, and no slot of the log.
    Linearizable,
    /// Whatever this process has been told by its cluster or connection; beyond that, what a
    /// replica has executed. It costs a message to a replica.
    Sequential,
    /// What a replica has executed.
    Eventual,
}

/// A cluster does not serve commands, though it was given time to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotReady {
    /// The addresses of a cluster of other processes that could not be used when they were last
    /// tried, each with the reason.
    pub troubles: Vec<(SocketAddr, String)>,
}

/// A handle to a cluster. Cheap to clone.
///
/// What is executed and asked by one client takes effect in the order in which it is submitted,
/// though none waits for the one before: so a query is held back behind commands that have no
/// answer yet, and commands behind queries. A clone is another client.
#[derive(Debug)]
pub struct Client {
    port: Arc<Port>,
    order: OrderId,
}

/// The way of commands into the gateway's core, from any thread.
#[derive(Debug)]
pub(crate) struct Port {
    submissions: ArrayQueue<Submission>,
    /// The tasks of calls that found no room, oldest first. A call that has gone is `None`.
    waiting: SegQueue<Weak<AtomicWaker>>,
    pool: ArrayQueue<Arc<Cell>>,
    /// The orders of clients that were given so far; and those among them that are free again.
    orders_count: AtomicU32,
    free_orders: SegQueue<OrderId>,
    is_closed: AtomicBool,
    /// Whether commands are served now, as far as is known.
    is_ready: AtomicBool,
    /// The tasks that wait for that. One that has gone is `None`.
    waiting_ready: SegQueue<Weak<AtomicWaker>>,
    alarm: Alarm,
}

/// A call on its way to the gateway's core.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) order: OrderId,
    pub(crate) operation: Operation,
    pub(crate) answer: Answer,
}

/// What a call wants done.
#[derive(Debug)]
pub(crate) enum Operation {
    Execute(Payload),
    Query(Consistency, Payload),
}

/// The way of a call's result back to it. If it is dropped unused, the call ends as
/// [`CallError::Stopped`].
#[derive(Debug)]
pub(crate) struct Answer(Option<Arc<Cell>>);

/// A call under way: the place for its result, and the task that waits for it.
#[derive(Debug, Default)]
struct Cell {
    result: OnceLock<Result<Executed, CallError>>,
    waker: AtomicWaker,
}

/// The future of a command's result.
#[derive(Debug)]
#[must_use = "a command is sent when its call is first polled"]
pub struct Call {
    port: Arc<Port>,
    state: CallState,
}

#[derive(Debug)]
enum CallState {
    Unsent {
        order: OrderId,
        operation: Operation,
        /// Its task, if it has found no room; by name also in [`Port::waiting`], until it is woken.
        task: Option<Arc<AtomicWaker>>,
    },
    Waiting(Arc<Cell>),
    Over,
}

/// The future that resolves once a cluster serves commands.
#[derive(Debug)]
#[must_use = "nothing waits until it is polled"]
pub struct Ready {
    port: Arc<Port>,
    /// Its task, once it waits; by name also in [`Port::waiting_ready`], until it is woken.
    task: Option<Arc<AtomicWaker>>,
}

impl Client {
    pub(crate) fn new(port: Arc<Port>) -> Self {
        Self { order: port.take_order(), port }
    }

    /// Executes `command` on every replica; the future resolves to the reply of one of them.
    ///
    /// Commands of one client take effect in the order in which their futures are first polled.
    /// Dropping a future gives up the reply, not the command. It borrows nothing, so that it may
    /// be spawned as a task.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: it tells whether the command may have been executed.
    pub fn execute(&self, command: &[u8]) -> Call {
        self.call(Operation::Execute(Payload::copy(command)))
    }

    /// Asks the state machine of one replica `query`: see
    /// [`StateMachine::query`](crate::StateMachine::query). Nothing is put into the log, and no
    /// leader is asked: replicas share queries among them. What a client asks and executes takes
    /// effect in the order in which the futures are first polled.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. Whatever it says, nothing was executed, and it may be asked again.
    pub fn query(&self, consistency: Consistency, query: &[u8]) -> Call {
        self.call(Operation::Query(consistency, Payload::copy(query)))
    }

    fn call(&self, operation: Operation) -> Call {
        let state = CallState::Unsent { order: self.order, operation, task: None };
        Call { port: Arc::clone(&self.port), state }
    }

    /// Submits `command` now, where [`Client::execute`] waits for its first poll, and for room: the
    /// future resolves to the reply. Commands take effect in the order in which they are submitted.
    ///
    /// # Errors
    ///
    /// [`CallError::Busy`] if there is no room now: as many commands wait as may, on their way to
    /// the gateway's core. [`CallError::Stopped`] if the cluster has stopped. Neither was sent on.
    pub fn try_execute(&self, command: &[u8]) -> Result<Call, CallError> {
        if self.port.is_closed.load(Ordering::SeqCst) {
            return Err(CallError::Stopped);
        }
        let operation = Operation::Execute(Payload::copy(command));
        let pushed = self.port.push(self.order, operation, None);
        let cell = pushed.map_err(|_| CallError::Busy)?;
        Ok(Call { port: Arc::clone(&self.port), state: CallState::Waiting(cell) })
    }

    /// Executes `command` like [`Client::execute`], and blocks this thread meanwhile. Must not be
    /// called on a core of the cluster.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: it tells whether the command may have been executed.
    pub fn execute_blocking(&self, command: &[u8]) -> Result<Executed, CallError> {
        let result = block_on(self.execute(command), None);
        result.expect("without a limit it waits for the result")
    }

    /// Asks like [`Client::query`], and blocks this thread meanwhile. Must not be called on a core
    /// of the cluster.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. Whatever it says, nothing was executed, and it may be asked again.
    pub fn query_blocking(
        &self,
        consistency: Consistency,
        query: &[u8],
    ) -> Result<Executed, CallError> {
        let result = block_on(self.query(consistency, query), None);
        result.expect("without a limit it waits for the result")
    }

    /// Waits until the cluster serves commands: a leader is elected, and the gateway has a session;
    /// of other processes, a gateway is connected that is served. What is submitted before waits,
    /// too, but no longer than to its deadline.
    ///
    /// # Errors
    ///
    /// [`CallError::Stopped`] if the cluster has stopped.
    pub fn ready(&self) -> Ready {
        Ready { port: Arc::clone(&self.port), task: None }
    }

    /// Waits like [`Client::ready`], for `most` at the most, and blocks this thread meanwhile.
    ///
    /// # Errors
    ///
    /// If it does not; then `troubles` is asked why.
    pub(crate) fn wait_ready(
        &self,
        most: Duration,
        troubles: impl FnOnce() -> Vec<(SocketAddr, String)>,
    ) -> Result<(), NotReady> {
        match block_on(self.ready(), Some(Instant::now() + most)) {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => Err(NotReady { troubles: troubles() }),
        }
    }
}

impl Clone for Client {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.port))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.port.give_order_back(self.order);
    }
}

impl Consistency {
    /// The level of a read by a caller who has seen nothing yet.
    pub(crate) fn level(self) -> ReadLevel {
        match self {
            Self::Linearizable => ReadLevel::Linearizable,
            Self::Sequential => ReadLevel::Sequential { seen: Watermark(0) },
            Self::Eventual => ReadLevel::Eventual,
        }
    }
}

/// Polls `future` to its end on this thread, which sleeps meanwhile; `None` if that is not before
/// `until`.
fn block_on<F: Future>(future: F, until: Option<Instant>) -> Option<F::Output> {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => std::thread::park(),
            Some(Duration::ZERO) => return None,
            Some(left) => std::thread::park_timeout(left),
        }
    }
}

impl Future for Ready {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(ready) = this.port.readiness() {
            return Poll::Ready(ready);
        }
        let task = this.task.get_or_insert_default();
        task.register(cx.waker());
        if Arc::weak_count(task) == 0 {
            this.port.waiting_ready.push(Arc::downgrade(task));
        }
        // It may have come between the check and the registration.
        this.port.readiness().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Future for Call {
    type Output = Result<Executed, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let CallState::Unsent { .. } = this.state {
            match this.send(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let CallState::Waiting(cell) = &this.state else { panic!("polled after it was over") };
        if cell.result.get().is_none() {
            cell.waker.register(cx.waker());
            // The result may have come between the check and the registration.
            if cell.result.get().is_none() {
                return Poll::Pending;
            }
        }
        Poll::Ready(this.finish())
    }
}

impl Call {
    /// Submits the command; returns whether there was room. If not, its task is woken once there
    /// may be.
    fn send(&mut self, cx: &Context<'_>) -> Result<bool, CallError> {
        let state = std::mem::replace(&mut self.state, CallState::Over);
        let CallState::Unsent { order, operation, task } = state else { panic!("sent twice") };
        if self.port.is_closed.load(Ordering::SeqCst) {
            return Err(CallError::Stopped);
        }
        match self.port.push(order, operation, Some(cx)) {
            Ok(cell) => {
                self.state = CallState::Waiting(cell);
                Ok(true)
            }
            Err(operation) => {
                let task = task.unwrap_or_default();
                task.register(cx.waker());
                if Arc::weak_count(&task) == 0 {
                    self.port.waiting.push(Arc::downgrade(&task));
                }
                self.state = CallState::Unsent { order, operation, task: Some(task) };
                // What has made room, or closed the port, may have looked before it was there.
                if !self.port.submissions.is_full() || self.port.is_closed.load(Ordering::SeqCst) {
                    cx.waker().wake_by_ref();
                }
                Ok(false)
            }
        }
    }

    /// Takes the result out of the cell, which goes back to the pool if the gateway's core has
    /// released it.
    fn finish(&mut self) -> Result<Executed, CallError> {
        let state = std::mem::replace(&mut self.state, CallState::Over);
        let CallState::Waiting(mut cell) = state else { panic!("finished before it was sent") };
        if let Some(own) = Arc::get_mut(&mut cell) {
            let result = own.result.take().expect("it was seen to be there");
            drop(self.port.pool.push(cell)); // a full pool just means that it is freed
            return result;
        }
        cell.result.get().expect("it was seen to be there").clone()
    }
}

impl Drop for Call {
    /// Lets the next one in, if this one was woken since there was room, and does not need it.
    fn drop(&mut self) {
        if let CallState::Unsent { task: Some(task), .. } = &self.state
            && Arc::weak_count(task) == 0
        {
            self.port.wake_waiting();
        }
    }
}

impl Cell {
    fn give(&self, result: Result<Executed, CallError>) {
        assert!(self.result.set(result).is_ok(), "a call was answered twice");
        self.waker.wake();
    }
}

impl Answer {
    pub(crate) fn give(mut self, result: Result<Executed, CallError>) {
        if let Some(cell) = self.0.take() {
            cell.give(result);
        }
    }

    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            cell.give(Err(CallError::Stopped));
        }
    }
}

impl Port {
    pub(crate) fn new(alarm: Alarm) -> Arc<Self> {
        Arc::new(Self {
            submissions: ArrayQueue::new(SUBMISSIONS_MAX),
            waiting: SegQueue::new(),
            pool: ArrayQueue::new(POOL_CELLS),
            orders_count: AtomicU32::new(0),
            free_orders: SegQueue::new(),
            is_closed: AtomicBool::new(false),
            is_ready: AtomicBool::new(false),
            waiting_ready: SegQueue::new(),
            alarm,
        })
    }

    /// Takes in a call, and rings for the gateway's core; `cx`, if any, is woken with its
    /// result. Gives it back if there is no room.
    fn push(
        &self,
        order: OrderId,
        operation: Operation,
        cx: Option<&Context<'_>>,
    ) -> Result<Arc<Cell>, Operation> {
        if self.submissions.is_full() {
            return Err(operation); // without a cell of the pool, which would be lost
        }
        let cell = self.pool.pop().unwrap_or_default();
        if let Some(cx) = cx {
            cell.waker.register(cx.waker());
        }
        let answer = Answer(Some(Arc::clone(&cell)));
        let submission = Submission { order, operation, answer };
        if let Err(submission) = self.submissions.push(submission) {
            submission.answer.forget();
            return Err(submission.operation);
        }
        self.alarm.ring();
        self.sweep_if_closed();
        Ok(cell)
    }

    /// An order for a caller's calls. One that was given back may have calls under way still: the
    /// next caller's come behind these.
    pub(crate) fn take_order(&self) -> OrderId {
        let new = || OrderId(self.orders_count.fetch_add(1, Ordering::Relaxed) + 1);
        self.free_orders.pop().unwrap_or_else(new)
    }

    pub(crate) fn give_order_back(&self, order: OrderId) {
        self.free_orders.push(order);
    }

    pub(crate) fn pop(&self) -> Option<Submission> {
        self.submissions.pop()
    }

    /// Wakes as many of those that wait for room as there is room for.
    pub(crate) fn wake_waiting(&self) {
        let mut room = SUBMISSIONS_MAX.saturating_sub(self.submissions.len());
        while room > 0
            && let Some(waiting) = self.waiting.pop()
        {
            let Some(task) = waiting.upgrade() else { continue };
            drop(waiting); // it may queue again from now on
            task.wake();
            room -= 1;
        }
    }

    /// Takes in whether commands are served now; to be called by one thread.
    #[inline]
    pub(crate) fn set_ready(&self, is_ready: bool) {
        if self.is_ready.load(Ordering::Relaxed) != is_ready {
            self.is_ready.store(is_ready, Ordering::SeqCst);
            self.wake_ready();
        }
    }

    fn wake_ready(&self) {
        while let Some(waiting) = self.waiting_ready.pop() {
            let Some(task) = waiting.upgrade() else { continue };
            drop(waiting); // it may queue again from now on
            task.wake();
        }
    }

    /// Whether commands are served now; `None` if they are not yet.
    fn readiness(&self) -> Option<Result<(), CallError>> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Some(Err(CallError::Stopped));
        }
        self.is_ready.load(Ordering::SeqCst).then_some(Ok(()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.submissions.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.submissions.len()
    }

    /// Ends all calls, now and to come, as [`CallError::Stopped`].
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.sweep_if_closed();
    }

    /// Empties a port that is closed. A caller calls it after a push, and [`Port::close`] after
    /// closing: one of the two finds a submission that the other missed.
    fn sweep_if_closed(&self) {
        if self.is_closed.load(Ordering::SeqCst) {
            while let Some(submission) = self.submissions.pop() {
                drop(submission); // answers Stopped
            }
            while let Some(waiting) = self.waiting.pop() {
                waiting.upgrade().iter().for_each(|task| task.wake());
            }
            self.wake_ready();
        }
    }
}

impl CallError {
    /// Whether the command may have been executed, or may yet be: to submit it again could execute
    /// it twice. Where it may not have been, another try is safe.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        match self {
            Self::Busy
            | Self::Unreachable
            | Self::TooLarge
            | Self::NoRoom(_)
            | Self::Skipped
            | Self::NotAQuery
            | Self::Panicked => false,
            Self::ReplyTooLarge
            | Self::OutcomeUnknown
            | Self::Halted(_)
            | Self::DeadlineExceeded
            | Self::Stopped => true,
        }
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Busy => Self::Busy,
            Failure::TooLarge => Self::TooLarge,
            Failure::ReplyTooLarge => Self::ReplyTooLarge,
            Failure::NoRoom(acceptors) => Self::NoRoom(acceptors),
            Failure::OutcomeUnknown | Failure::NoSession | Failure::OutOfOrder => {
                Self::OutcomeUnknown
            }
            Failure::NotAQuery => Self::NotAQuery,
            Failure::Panicked => Self::Panicked,
            Failure::Skipped => Self::Skipped,
            Failure::Halted(why) => Self::Halted(why),
            Failure::DeadlineExceeded => Self::DeadlineExceeded,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::NoRoom(acceptors) = self {
            let numbers: Vec<_> = acceptors.iter().map(|acceptor| acceptor.0.to_string()).collect();
            let numbers = numbers.join(", ");
            return write!(f, "no room on acceptors {numbers}; the command was not executed");
        }
        if let Self::Halted(why) = self {
            return write!(
                f,
                "the replicas have halted: {why}; the command may have been executed, or may yet be"
            );
        }
        f.write_str(match self {
            Self::NoRoom(_) | Self::Halted(_) => unreachable!("told above"),
            Self::Busy => "the cluster was busy until the deadline; the command was not executed",
            Self::Unreachable => "no gateway could be reached; the command was not executed",
            Self::TooLarge => "the command is too long; it was not executed",
            Self::ReplyTooLarge => "the command was executed; its reply is too long, or was lost",
            Self::OutcomeUnknown => {
                "the session was lost; the command may have been executed, or may yet be"
            }
            Self::DeadlineExceeded => {
                "no answer within the deadline; the command may have been executed, or may yet be"
            }
            Self::NotAQuery => "the state machine answers no such query",
            Self::Panicked => "the state machine panicked at the query, which changed nothing",
            Self::Skipped => "the command was skipped by an operator, and is not executed",
            Self::Stopped => "the cluster has stopped; the command may have been executed",
        })
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster does not serve commands yet")?;
        for (index, (address, why)) in self.troubles.iter().enumerate() {
            write!(f, "{} {address}: {why}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl std::error::Error for NotReady {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Task {
        call: Pin<Box<Call>>,
        wakes: Arc<Wakes>,
    }

    impl Task {
        fn new(client: &Client) -> Self {
            let mut task =
                Self { call: Box::pin(client.execute(b"command")), wakes: Arc::default() };
            assert!(task.poll().is_pending());
            task
        }

        fn poll(&mut self) -> Poll<Result<Executed, CallError>> {
            let waker = Waker::from(Arc::clone(&self.wakes));
            self.call.as_mut().poll(&mut Context::from_waker(&waker))
        }

        fn wakes(&self) -> usize {
            self.wakes.0.load(Ordering::SeqCst)
        }

        fn is_sent(&self) -> bool {
            matches!(self.call.state, CallState::Waiting(_))
        }
    }

    #[test]
    fn a_call_on_a_full_port_waits_until_there_is_room_and_does_not_spin() {
        let client = Client::new(Port::new(Alarm::new().unwrap()));
        let port = &client.port;
        let sent: Vec<_> = (0..SUBMISSIONS_MAX).map(|_| Task::new(&client)).collect();
        assert!(sent.iter().all(Task::is_sent));
        let mut waiting: Vec<_> = (0..4).map(|_| Task::new(&client)).collect();
        for task in &mut waiting {
            assert!(task.poll().is_pending() && !task.is_sent());
            assert_eq!(task.wakes(), 0, "it waits");
        }
        assert_eq!(port.waiting.len(), 4, "each once, however often it is polled");
        let wakes = |tasks: &[Task]| tasks.iter().map(Task::wakes).collect::<Vec<_>>();
        // Two have room. The first takes it; the second goes, and the third takes its place.
        drop((port.pop(), port.pop()));
        port.wake_waiting();
        assert_eq!(wakes(&waiting), [1, 1, 0, 0]);
        assert!(waiting[0].poll().is_pending() && waiting[0].is_sent());
        drop(waiting.remove(1));
        assert_eq!(wakes(&waiting), [1, 1, 0], "of three");
        // It is late, and waits behind the last one then.
        let late = Task::new(&client);
        assert!(late.is_sent() && waiting[1].poll().is_pending() && !waiting[1].is_sent());
        drop(port.pop());
        port.wake_waiting();
        assert_eq!(wakes(&waiting), [1, 1, 1]);
        // Of a port that closes all hear, however many.
        waiting.extend((0..2 * SUBMISSIONS_MAX).map(|_| Task::new(&client)));
        waiting.retain(|task| !task.is_sent());
        assert!(waiting.len() > 2 * SUBMISSIONS_MAX);
        port.close();
        for task in &mut waiting {
            assert!(task.wakes() > 0);
            assert_eq!(task.poll(), Poll::Ready(Err(CallError::Stopped)));
        }
    }
}
