//! A counter on three durable nodes, one of which is stopped and comes back.
//!
//! Nodes are processes, as a rule, on machines of their own: here all three are in this one, which
//! takes nothing but different addresses.
//!
//! `cargo run --release --example three_nodes`.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use loggos::{
    At, Client, Config, MalformedSnapshot, Node, RemoteCluster, RemoteOptions, Reply, StateMachine,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Counts its commands.
#[derive(Default)]
struct Counter {
    count: u64,
    /// The count when it was frozen.
    frozen: Option<u64>,
}

impl StateMachine for Counter {
    fn apply(&mut self, _: At, _: &[u8], reply: &mut Reply<'_>) {
        self.count += 1;
        reply.put(&self.count.to_le_bytes());
    }

    fn state_hash(&self) -> u64 {
        self.count
    }

    fn freeze(&mut self) -> bool {
        self.frozen = Some(self.count);
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, _: usize) -> bool {
        part.extend(self.frozen.take().unwrap_or(self.count).to_le_bytes());
        false
    }

    fn clear(&mut self) {
        *self = Self::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        self.count = u64::from_le_bytes(part.try_into().map_err(|_| MalformedSnapshot)?);
        Ok(())
    }
}

/// Returns the configuration of three nodes with all roles each, which keep their data in `data`;
/// snapshots come early, so that there are some.
fn config(data: &Path) -> Result<Config, Box<dyn Error>> {
    let mut text = String::from(
        "[cluster]\nname = \"three\"\nf = 1\nquorums = \"majority\"\nproposers = 3\n\
         proxy_leaders = 0\nreplicas = 3\ngateways = 3\n[limits]\ncheckpoint_interval = 200\n",
    );
    let listeners = ["a", "b", "c"].map(|name| (name, TcpListener::bind("127.0.0.1:0")));
    for (id, (name, listener)) in listeners.into_iter().enumerate() {
        let (address, data) = (listener?.local_addr()?, data.join(name));
        let roles = ["gateway", "proposer", "acceptor", "replica"].map(|it| format!("{it} {id}"));
        text += &format!(
            "[nodes.{name}]\naddress = \"{address}\"\ncpus = [0]\nroles = {roles:?}\ndata = {data:?}\n"
        );
    }
    Ok(Config::from_toml(&text)?)
}

/// Counts up so many times; returns the last count.
fn count(client: &Client, times: u64) -> Result<u64, Box<dyn Error>> {
    let mut last = 0;
    for _ in 0..times {
        let executed = client.execute_blocking(b"")?;
        last = u64::from_le_bytes(executed.reply.as_slice().try_into()?);
    }
    Ok(last)
}

/// The slots that the replica of a node has executed.
fn executed(node: &Node) -> Option<u64> {
    let status = node.status();
    status.iter().find_map(|role| Some(role.standing.replica()?.executed.0))
}

fn main() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?;
    let config = config(data.path())?;
    for node in 0..3 {
        Node::format(&config, node)?;
    }
    let start = |node| Node::start(&config, node, |_| Counter::default());
    let (a, b, c) = (start(0)?, start(1)?, start(2)?);
    let cluster = RemoteCluster::connect(RemoteOptions::new(vec![a.address(), b.address()]))?;
    cluster.wait_ready(PATIENCE)?;
    let client = cluster.client();
    println!("three nodes count to {}", count(&client, 300)?);

    c.stop()?;
    println!("two of them count to {}", count(&client, 700)?);

    let c = start(2)?;
    let (began, most) = (Instant::now(), executed(&a));
    while executed(&c) < most {
        assert!(began.elapsed() < PATIENCE, "node c does not catch up");
        std::thread::sleep(Duration::from_millis(10));
    }
    println!(
        "node c has caught up after {:?}; all count to {}",
        began.elapsed(),
        count(&client, 1)?
    );
    drop(cluster);
    for node in [c, b, a] {
        node.stop()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use loggos::conformance::Conformance;

    use super::*;

    #[test]
    fn replicas_stay_equal_and_are_restored_from_snapshots() {
        let conforms = Conformance::default().check(Counter::default, |_| Vec::new());
        conforms.unwrap_or_else(|violation| panic!("{violation}"));
    }

    #[test]
    fn it_runs() {
        main().unwrap();
    }
}
