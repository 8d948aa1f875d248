//! A state machine that is not replicated.

use loggos_protocol::{
    At, NotAQuery, Outcome, Outcomes, Reply, ResultWriter, RunReplies, SessionId, StateMachine,
};

/// Applies a command to a machine that nothing replicates, as its unit tests want; returns its
/// reply. [`conformance`](crate::conformance) tests what replication asks of it.
///
/// ```
/// use loggos::kv::{Answer, Command, Kv};
/// use loggos::{At, Slot, Time, apply};
///
/// let mut command = Vec::new();
/// Command::Increment { key: b"visits", by: 2 }.encode(&mut command)?;
/// let reply = apply(&mut Kv::default(), At { slot: Slot(1), index: 0, time: Time(0) }, &command);
/// assert_eq!(Answer::decode(&reply)?, Answer::Number(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn apply<M: StateMachine + ?Sized>(machine: &mut M, at: At, command: &[u8]) -> Vec<u8> {
    reply_of(at, |reply| machine.apply(at, command, reply)).1
}

/// Asks a machine that nothing replicates, as its unit tests want; returns its answer.
///
/// # Errors
///
/// If this is no query that the machine answers.
pub fn query<M: StateMachine + ?Sized>(
    machine: &M,
    at: At,
    query: &[u8],
) -> Result<Vec<u8>, NotAQuery> {
    let (answered, reply) = reply_of(at, |reply| machine.query(at, query, reply));
    answered.map(|()| reply)
}

/// What `ask` returns, and what it writes.
fn reply_of<T>(at: At, ask: impl FnOnce(&mut Reply<'_>) -> T) -> (T, Vec<u8>) {
    let mut writer = ResultWriter::default();
    writer.start_done(SessionId::default(), 0, at.position());
    let returned = ask(&mut RunReplies::new(&mut writer).reply());
    writer.end_done();
    let outcomes = writer.take();
    let mut outcomes = Outcomes::new(outcomes.as_slice());
    let Some(Ok(Outcome::Done { mut replies, .. })) = outcomes.next() else {
        unreachable!("one run was written")
    };
    let reply = replies.next().and_then(Result::ok).map(<[u8]>::to_vec).unwrap_or_default();
    (returned, reply)
}
