//! The hellos that a core admits, and its answers to the others.

use std::net::SocketAddr;

use loggos_protocol::DirectoryId;

use super::*;
use crate::names::Destination;
use crate::sockets::CLIENTS_MAX;

const OURS: FormationId = FormationId(7);

/// Core 1 of node 2, whose cores are 0 to 3 and whose gateway is on core 0.
fn handshake() -> Handshake {
    let identity = NodeIdentity {
        cluster_name: "paxos".to_owned(),
        digest: 11,
        node: 2,
        core: 1,
        core_last: 3,
        nonce: 5,
        gateway_core: Some(0),
        command_bytes_max: 1 << 20,
        session_window: 1 << 16,
        frame_bytes_max: 2 << 20,
        clients_max: CLIENTS_MAX,
        strangers_max: 4,
    };
    let mut handshake = Handshake::new(identity, 4);
    handshake.set_formation(Some(OURS));
    handshake
}

/// The hello of core 0 of node 1, which looks for us.
fn hello() -> Hello {
    Hello {
        wire_digest: wire::wire_digest(),
        versions: (WIRE_VERSION, WIRE_VERSION),
        cluster_name: "paxos".to_owned(),
        cluster_digest: 11,
        formation: Some(OURS),
        nonce: 99,
        log: None,
        purpose: peer(2, 1),
    }
}

fn peer(to_node: u8, to_core: u8) -> Purpose {
    Purpose::Peer { from_node: 1, from_core: 0, to_node, to_core }
}

fn log(recovered: u64, synced: u64) -> Option<LogPosition> {
    Some(LogPosition { directory: DirectoryId(3), recovered, synced })
}

/// Returns why it is refused, if it is.
fn reason(hello: &Hello) -> Option<Reason> {
    handshake().judge(hello, Parties::default()).err().map(|refusal| refusal.reason)
}

const ADMITTED: Result<Admission, Refusal> = Ok(Admission::Here(Party::Peer { node: 1, life: 99 }));

#[test]
fn r03_r04_a_peer_is_refused_for_each_thing_that_is_not_as_ours() {
    assert_eq!(handshake().judge(&hello(), Parties::default()), ADMITTED);
    let cases = [
        (Hello { wire_digest: 0, ..hello() }, Reason::Wire),
        (Hello { cluster_name: "other".to_owned(), ..hello() }, Reason::Cluster),
        (Hello { cluster_name: String::new(), ..hello() }, Reason::Cluster),
        (Hello { cluster_digest: 12, ..hello() }, Reason::Digest),
        (Hello { formation: Some(FormationId(8)), ..hello() }, Reason::Formation),
        (Hello { purpose: peer(3, 1), ..hello() }, Reason::Node),
        (Hello { purpose: peer(2, 4), ..hello() }, Reason::Node),
    ];
    for (hello, expected) in cases {
        assert_eq!(reason(&hello), Some(expected), "{hello:?}");
    }
}

#[test]
fn r04_a_peer_that_knows_of_no_formation_is_admitted_and_so_is_any_to_a_core_that_knows_of_none() {
    assert_eq!(reason(&Hello { formation: None, ..hello() }), None);
    let mut blank = handshake();
    blank.formation = None;
    let other = Hello { formation: Some(FormationId(8)), ..hello() };
    assert_eq!(blank.judge(&other, Parties::default()), ADMITTED);
}

#[test]
fn r04_the_first_formation_stays() {
    let mut handshake = handshake();
    handshake.set_formation(Some(FormationId(8)));
    handshake.set_formation(None);
    assert_eq!(handshake.formation(), Some(OURS));
}

#[test]
fn a_connection_for_another_core_goes_there() {
    let cases = [(peer(2, 0), 0), (peer(2, 3), 3), (Purpose::Client, 0)];
    for (purpose, core) in cases {
        let admission = handshake().judge(&Hello { purpose, ..hello() }, Parties::default());
        assert_eq!(admission, Ok(Admission::Elsewhere { core }), "{purpose:?}");
    }
    let status = Hello { purpose: Purpose::Status, ..hello() };
    assert_eq!(handshake().judge(&status, Parties::default()), Ok(Admission::Here(Party::Status)));
}

#[test]
fn a_client_may_leave_the_cluster_unnamed_but_not_name_another() {
    let client = |cluster_name: &str| Hello {
        cluster_name: cluster_name.to_owned(),
        cluster_digest: 0,
        purpose: Purpose::Client,
        ..hello()
    };
    assert_eq!(reason(&client("")), None);
    assert_eq!(reason(&client("paxos")), None);
    assert_eq!(reason(&client("other")), Some(Reason::Cluster));
}

#[test]
fn a_client_of_a_node_without_a_gateway_is_refused_and_told_so() {
    let mut handshake = handshake();
    handshake.identity.gateway_core = None;
    let client = Hello { purpose: Purpose::Client, ..hello() };
    let refusal = handshake.judge(&client, Parties::default()).unwrap_err();
    assert_eq!(refusal.reason, Reason::Node);
    assert!(refusal.text.contains("no gateway"), "{refusal:?}");
}

/// Clients do not keep the status from being asked for, nor those that ask a client.
#[test]
fn r35_clients_beyond_the_most_are_refused_and_peers_are_not() {
    const FULL: Parties = Parties { clients: CLIENTS_MAX, asking: STATUS_MAX };
    let spare = [
        (Purpose::Client, Parties { clients: CLIENTS_MAX - 1, ..FULL }),
        (Purpose::Status, Parties { asking: STATUS_MAX - 1, ..FULL }),
        (peer(2, 1), FULL),
    ];
    for (purpose, spare) in spare {
        let hello = Hello { purpose, ..hello() };
        let reason = |parties| handshake().judge(&hello, parties).err().map(|it| it.reason);
        assert_eq!(reason(spare), None, "{purpose:?}");
        let expected = if spare == FULL { None } else { Some(Reason::Busy) };
        assert_eq!(reason(FULL), expected, "{purpose:?}");
    }
}

#[test]
fn r33_a_peer_whose_log_is_an_older_copy_is_refused() {
    let mut handshake = handshake();
    let before = Hello { nonce: 1, log: log(4, 9), ..hello() };
    assert!(handshake.judge(&before, Parties::default()).is_ok());
    let older = Hello { nonce: 2, log: log(8, 8), ..hello() };
    let refusal = handshake.judge(&older, Parties::default()).unwrap_err();
    assert_eq!(refusal.reason, Reason::Older);
    let whole = Hello { nonce: 3, log: log(9, 9), ..hello() };
    assert!(handshake.judge(&whole, Parties::default()).is_ok());
}

/// The position of its log counts on the core that it is for, not on the core that listens.
#[test]
fn r33_a_hello_for_another_core_leaves_no_trace() {
    let mut handshake = handshake();
    let elsewhere = Hello { nonce: 1, log: log(4, 9), purpose: peer(2, 0), ..hello() };
    assert_eq!(
        handshake.judge(&elsewhere, Parties::default()),
        Ok(Admission::Elsewhere { core: 0 })
    );
    assert!(
        handshake.judge(&Hello { nonce: 2, log: log(4, 4), ..hello() }, Parties::default()).is_ok()
    );
}

#[test]
fn a_peer_is_told_where_our_log_stands_and_a_client_is_not() {
    let mut handshake = handshake();
    handshake.set_log(log(1, 2));
    assert_eq!(handshake.welcome(Party::Peer { node: 1, life: 9 }).log, log(1, 2));
    assert_eq!(handshake.welcome(Party::Client).log, None);
    assert_eq!(handshake.welcome(Party::Status).log, None);
}

/// Two cores of one cluster welcome each other.
#[test]
fn our_hello_is_admitted_by_the_core_that_it_is_for() {
    let ours = handshake();
    let to = Remote {
        node: 1,
        core: 0,
        name: "one".to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        destination: Destination::Known(([127, 0, 0, 1], 1).into()),
        is_watched: true,
    };
    let mut theirs = handshake();
    theirs.identity = NodeIdentity { node: 1, core: 0, ..theirs.identity };
    let admission = theirs.judge(&ours.hello(&to), Parties::default());
    assert_eq!(admission, Ok(Admission::Here(Party::Peer { node: 2, life: 5 })));
}
