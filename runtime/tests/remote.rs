//! A client whose cluster has forgotten everything: it is told so, and not that its commands are
//! done.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use loggos::kv::{Command, Kv};
use loggos::{
    CallError, Config, Desk, Idle, Next, Node, NodeConfig, Position, RemoteCluster, RemoteOptions,
    Resident,
};
use loggos_net::Outgoing;
use loggos_net::wire::{self, Welcome};

fn start(address: SocketAddr) -> Node {
    let mut config = Config::standard();
    config.idle = Idle::Park; // tests share the machine
    config.nodes = vec![NodeConfig {
        name: "all".to_owned(),
        address,
        cpus: std::mem::take(&mut config.cpus),
        roles: config.placement.keys().copied().collect(),
        data: None,
    }];
    Node::start(&config, 0, |_| Kv::default()).unwrap()
}

#[test]
fn r04_a_client_stays_with_the_formation_that_it_has_talked_to() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut put = Vec::new();
    Command::Put { key: b"key", value: b"value" }.encode(&mut put).unwrap();
    let deadline = Duration::from_secs(3);
    let connect = |deadline| {
        RemoteCluster::connect(RemoteOptions { deadline, ..RemoteOptions::new(vec![address]) })
    };
    let node = start(address);
    let cluster = connect(Duration::from_secs(60)).unwrap();
    cluster.client().execute_blocking(&put).unwrap();
    let forgetful = connect(deadline).unwrap();
    forgetful.client().execute_blocking(&put).unwrap();
    node.stop().unwrap();
    // In memory, another life is another cluster.
    let _node = start(address);
    let stranger = connect(Duration::from_secs(60)).unwrap();
    stranger.client().execute_blocking(&put).unwrap();
    let told = forgetful.client().execute_blocking(&put);
    assert_eq!(told, Err(CallError::Busy), "never sent on");
}

#[test]
fn r04_a_gateway_that_knows_of_no_formation_is_given_no_command() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = RemoteOptions {
        deadline: Duration::from_secs(3),
        ..RemoteOptions::new(vec![listener.local_addr().unwrap()])
    };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        let client = cluster.client();
        let call = scope.spawn(move || client.execute_blocking(b"command"));
        let (mut gateway, _) = listener.accept().unwrap();
        gateway.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut welcome = Outgoing::default();
        wire::encode_welcome(
            &Welcome {
                version: wire::WIRE_VERSION,
                nonce: 1,
                formation: None,
                log: None,
                commands_in_flight_max: 1_000,
                command_bytes_max: 1_000,
            },
            &mut welcome,
        );
        let mut hello = [0; 1024];
        assert!(gateway.read(&mut hello).unwrap() > 0, "it says who it is");
        welcome.pieces().for_each(|piece| gateway.write_all(piece).unwrap());
        let mut said = Vec::new();
        // Closed, whether in good order or not.
        let _ended = gateway.read_to_end(&mut said);
        assert!(said.is_empty(), "{} bytes were said to who may forget them", said.len());
        assert_eq!(call.join().unwrap(), Err(CallError::Busy), "never sent on");
    });
}

/// A core that ends as if the machine had failed.
#[test]
fn a_node_of_which_a_core_has_panicked_says_so() {
    struct Panics;

    impl Resident for Panics {
        fn turn(&mut self, _desk: &mut Desk<'_>) -> Next {
            panic!("as the test wants it");
        }

        fn on_result(&mut self, _tag: u64, _result: Result<(Position, &[u8]), CallError>) {}
    }

    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = start(address);
    assert!(!node.has_failed(), "nothing has happened yet");
    node.move_in(|| Panics);
    let started = Instant::now();
    while !node.has_failed() {
        assert!(started.elapsed() < Duration::from_secs(60), "nobody notices");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(node.client().execute_blocking(b"command"), Err(CallError::Stopped));
    let error = node.stop().unwrap_err().to_string();
    assert!(error.contains("has panicked"), "{error}");
}
