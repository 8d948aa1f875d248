//! What the sockets do under load, every role on a node of its own: all that a tick has for a
//! connection leaves with one send, and payloads are not copied on their way through.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with other tests")]
mod harness;

use harness::{DEADLINE, Nodes, Spread};
use loggos::kv::Command;
use loggos::{ClusterSettings, RemoteCluster, RemoteOptions, Settings};

/// Callers with a command in flight each, and how many each has.
const CALLERS: usize = 32;
const COMMANDS: usize = 100;
/// Too long to lie inside a message: passed on by reference, or copied.
const VALUE: [u8; 2048] = [7; 2048];

/// What the ring of a node with one core has done.
#[derive(Clone, Copy, Debug)]
struct Done {
    flushes: u64,
    sends: u64,
    sent_frames: u64,
    received_bytes: u64,
    copied_bytes: u64,
}

impl Done {
    fn of(nodes: &Nodes, node: usize) -> Self {
        let status = nodes.status(node);
        let count = |key: &str| status["cores"][0]["sockets"][key].as_u64().unwrap();
        Self {
            flushes: count("flushes"),
            sends: count("sends"),
            sent_frames: count("sent_frames"),
            received_bytes: count("received_bytes"),
            copied_bytes: count("copied_bytes"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            flushes: self.flushes - before.flushes,
            sends: self.sends - before.sends,
            sent_frames: self.sent_frames - before.sent_frames,
            received_bytes: self.received_bytes - before.received_bytes,
            copied_bytes: self.copied_bytes - before.copied_bytes,
        }
    }
}

/// Has all callers put long values, each its own key, over one connection.
fn load(nodes: &Nodes) {
    let options =
        RemoteOptions { deadline: DEADLINE, ..RemoteOptions::new(vec![nodes.address(0)]) };
    let cluster = RemoteCluster::connect(options).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let client = cluster.client();
            scope.spawn(move || {
                let mut put = Vec::new();
                let key = caller.to_le_bytes();
                Command::Put { key: &key, value: &VALUE }.encode(&mut put).unwrap();
                for _ in 0..COMMANDS {
                    client.execute_blocking(&put).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_tick_sends_once_on_a_connection_and_copies_no_payload() {
    // A batch for each command: the messages of a tick are many.
    let alone = |cluster: ClusterSettings| {
        Settings { batch_commands_max: 1, ..Settings::clone(&cluster) }.check().unwrap()
    };
    let nodes = Nodes::start_with(Spread::NodeEach, alone);
    let names: Vec<String> =
        nodes.config.nodes.iter().map(|node| node.roles[0].to_string()).collect();
    let before: Vec<Done> = (0..names.len()).map(|node| Done::of(&nodes, node)).collect();
    load(&nodes);
    let payload_bytes = (CALLERS * COMMANDS * VALUE.len()) as u64;
    let mut carriers = 0;
    for (node, name) in names.iter().enumerate() {
        let done = Done::of(&nodes, node).since(before[node]);
        println!("{name}: {done:?}");
        // To every other node, the callers, the witness, and the connection that asked for the
        // status.
        let connections = names.len() as u64 - 1 + 3;
        assert!(done.sends <= done.flushes * connections, "{name}: more than one send a flush");
        let has_carried = done.received_bytes > payload_bytes / 4;
        carriers += usize::from(has_carried);
        if has_carried {
            assert!(done.sent_frames > done.sends, "{name}: a send for every frame: {done:?}");
            // Only what lies across the end of a receive buffer.
            let copied = done.copied_bytes as f64 / done.received_bytes as f64;
            assert!(copied < 0.1, "{name} has copied {copied} of what it received");
        }
    }
    assert!(carriers >= 1 + 1 + 2 + 4, "gateway, leader, proxy leaders, acceptors: {carriers}");
    nodes.stop();
}
