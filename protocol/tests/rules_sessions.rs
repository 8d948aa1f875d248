//! Sessions of clients, as gateways send for them: R22, R23, R25, R38.

mod harness;

use harness::{Echo, Net, grid, millis};
use loggos_protocol::{
    Caller, ClientId, Event, Failure, GatewayId, Halt, LoggedCommand, ReplicaId, RoleId, RunOwner,
    SessionId, Settings, Submission, To, ToGateway,
};

/// A cluster of two gateways, and a client that has a session.
struct Moving {
    net: Net,
    session: SessionId,
}

impl Moving {
    fn new() -> Self {
        Self::with(Settings { gateways: 2, ..grid(2, 2) })
    }

    fn with(settings: Settings) -> Self {
        let mut net = Net::durable_replicas(settings);
        net.write_of_client(0, 0, RunOwner::NewClient { key: 7 }, "");
        let (_, answer) = net.replies.pop().expect("a session is answered with its name");
        let (_, name) = answer.expect("it is open");
        let session = SessionId::from_bytes(&name).expect("the reply is its name");
        Self { net, session }
    }

    /// Has the client send its command `number` by a gateway.
    fn send(&mut self, gateway: u8, number: u64, lowest_unanswered: u64, command: &str) {
        let owner = RunOwner::Client { session: self.session, first: number, lowest_unanswered };
        self.net.write_of_client(gateway, number, owner, command);
    }

    /// What the client was told since this was last asked.
    fn told(&mut self) -> Vec<(u64, String)> {
        let told = self.net.replies();
        self.net.replies.clear();
        told
    }

    fn executed(&self) -> Vec<&[u8]> {
        let Echo { executed, .. } = self.net.replica(0).machine();
        executed.iter().map(|(_, command)| &command[..]).collect()
    }

    /// Starts all replicas again with a machine that panics at the command "x", and comes to it.
    fn start_with_panic(&mut self) -> LoggedCommand {
        let all = || (0..3).map(|id| RoleId::Replica(ReplicaId(id)));
        all().for_each(|id| self.net.stop(id));
        self.net.machine = || Echo::that_panics_at(b"x");
        all().for_each(|id| self.net.start(id));
        self.net.run_for(millis(5000));
        let halts: Vec<_> = self.net.replicas().map(|it| it.halted().cloned()).collect();
        let Some(Halt::Panicked { command, .. }) = &halts[0] else { panic!("{halts:?}") };
        *command
    }
}

fn told(all: &[(u64, &str)]) -> Vec<(u64, String)> {
    all.iter().map(|(tag, reply)| (*tag, (*reply).to_owned())).collect()
}

#[test]
fn r23_a_client_that_goes_to_another_gateway_gets_the_answers_that_it_missed() {
    let mut it = Moving::new();
    it.send(0, 0, 0, "a");
    assert_eq!(it.told(), told(&[(0, "a#1")]));
    it.net.lose(|_, to| matches!(to, To::Gateway(GatewayId(0), ToGateway::Results(_))));
    it.send(0, 1, 1, "b");
    it.send(0, 2, 1, "c");
    assert_eq!(it.told(), [], "its gateway hears nothing");
    it.send(1, 1, 1, "b");
    it.send(1, 2, 1, "c");
    it.send(1, 3, 1, "d");
    assert_eq!(it.told(), told(&[(1, "b#2"), (2, "c#3"), (3, "d#4")]));
    it.net.lose(|_, _| false);
    it.net.run_for(millis(3000));
    assert_eq!(it.told(), told(&[(1, "b#2"), (2, "c#3")]), "the first gateway asks for them");
    assert_eq!(it.executed(), [b"a", b"b", b"c", b"d"]);
}

#[test]
fn r23_what_comes_too_early_by_another_gateway_is_refused_and_comes_again() {
    let mut it = Moving::new();
    it.net.lose(|from, to| from == RoleId::Gateway(GatewayId(0)) && matches!(to, To::Proposer(..)));
    it.send(0, 0, 0, "a");
    it.send(1, 1, 0, "b");
    assert_eq!(it.told(), told(&[(1, &format!("{:?}", Failure::OutOfOrder))]));
    it.net.lose(|_, _| false);
    it.net.run_for(millis(3000));
    assert_eq!(it.told(), told(&[(0, "a#1")]));
    it.send(1, 1, 1, "b");
    assert_eq!(it.told(), told(&[(1, "b#2")]));
}

#[test]
fn r22_a_session_of_a_client_that_does_not_exist_is_an_error_of_its_own() {
    let mut it = Moving::new();
    it.session.index += 1;
    it.send(1, 0, 0, "a");
    assert_eq!(it.told(), told(&[(0, &format!("{:?}", Failure::NoSession))]));
    assert!(it.executed().is_empty());
}

/// Commands of clients and others fill a batch up to its bounds, headers and all.
#[test]
fn r29_a_batch_of_many_clients_is_as_long_as_it_may_be() {
    // Of some lengths, one more command without its headers would just fit.
    for command_bytes in 60..=100 {
        batches_of_many_clients(command_bytes);
    }
}

fn batches_of_many_clients(command_bytes: usize) {
    let bytes_max = 1000;
    let (command_bytes_max, batch_bytes_max) = (100, bytes_max);
    let mut it =
        Moving::with(Settings { gateways: 2, command_bytes_max, batch_bytes_max, ..grid(2, 2) });
    let session = it.session;
    let now = it.net.now;
    it.net.sent.clear();
    it.net.with_gateway(0, |gateway, out| {
        for number in 0..40 {
            let caller = Caller { client: ClientId(1), tag: number };
            let other = SessionId { index: session.index + 1, ..session };
            let session = if number % 2 == 0 { session } else { other };
            let owner = RunOwner::Client { session, first: number / 2, lowest_unanswered: 0 };
            let command = vec![b'y'; command_bytes];
            gateway.submit(caller, Submission { owner, command: &command }, now, out);
        }
        gateway.flush(now, out);
    });
    it.net.run_for(millis(1000));
    let lengths: Vec<usize> = it
        .net
        .sent
        .iter()
        .filter_map(|(_, to)| match to {
            To::Proposer(_, loggos_protocol::ToProposer::Propose(it)) => Some(it.batch.block.len()),
            To::Gateway(..)
            | To::Proposer(..)
            | To::ProxyLeader(..)
            | To::Acceptor(..)
            | To::Replica(..) => None,
        })
        .collect();
    assert!(lengths.iter().all(|bytes| *bytes <= bytes_max as usize), "{lengths:?}");
    assert!(lengths[0] > bytes_max as usize / 2, "{lengths:?}");
    assert_eq!(it.executed().len(), 20, "the other has no session");
}

/// All replicas have executed a command, and halt at it when they come to it once more. Its client
/// has had the answer, and says so by another gateway, which has sent no copy.
#[test]
fn r38_what_a_client_has_the_answer_to_is_not_skipped() {
    let mut it = Moving::with(Settings { gateways: 3, ..grid(2, 2) });
    // Its own gateway never learns it.
    it.net.lose(|_, to| matches!(to, To::Gateway(GatewayId(0), _)));
    it.send(0, 0, 0, "x");
    it.send(1, 0, 0, "x");
    assert_eq!(it.told(), told(&[(0, "x#1")]));
    it.send(2, 1, 1, "b");
    assert_refused(it);
}

/// Likewise; but only that gateway has said so: it has gone on to another command.
#[test]
fn r38_what_another_gateway_has_the_answer_to_is_not_skipped() {
    let mut it = Moving::new();
    it.net.lose(|_, to| matches!(to, To::Gateway(GatewayId(0), _)));
    it.send(0, 0, 0, "x");
    it.send(1, 0, 0, "x");
    assert_eq!(it.told(), told(&[(0, "x#1")]));
    it.net.write_of_client(1, 9, RunOwner::Gateway, "another's");
    assert_refused(it);
}

#[test]
fn r38_what_no_client_has_the_answer_to_is_skipped() {
    let mut it = Moving::new();
    it.net.lose(|_, to| matches!(to, To::Gateway(..)));
    it.send(0, 0, 0, "x");
    it.send(1, 0, 0, "x");
    it.net.write_of_client(1, 9, RunOwner::Gateway, "another's");
    let command = it.start_with_panic();
    it.net.lose(|_, _| false);
    it.net.skip(command);
    it.net.run_for(millis(5000));
    assert!(it.net.replicas().all(|it| it.halted().is_none()), "{:?}", it.net.events);
    let skipped = format!("{:?}", Failure::Skipped);
    let told_of_it = it.told().into_iter().filter(|(tag, _)| *tag == 0);
    assert_eq!(told_of_it.collect::<Vec<_>>(), told(&[(0, &skipped), (0, &skipped)]));
    it.send(1, 1, 1, "b");
    assert_eq!(it.told(), told(&[(1, "b#2")]), "the session goes on");
}

fn assert_refused(mut it: Moving) {
    let command = it.start_with_panic();
    it.net.lose(|_, _| false);
    it.net.events.clear();
    it.net.skip(command);
    it.net.run_for(millis(3000));
    let why = "it was executed before replicas were started again";
    assert_eq!(it.net.events, [Event::SkipRefused { command, why }], "it was answered");
}
