//! A replicated service inside a Tokio program: counters by name, over TCP, a line each way.
//!
//! The cluster's cores are threads of their own; Tokio's tasks await its replies like those of
//! anything else.
//!
//! `cargo run --release --example tokio_service` starts the service and talks to it.

#![expect(clippy::print_stdout, reason = "an example says what it does")]

use std::error::Error;

use loggos::kv::{Answer, Command, Kv};
use loggos::{Client, Config, LocalCluster};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Serves everybody who connects.
async fn serve(listener: TcpListener, client: Client) {
    while let Ok((stream, _)) = listener.accept().await {
        let client = client.clone();
        tokio::spawn(async move {
            if let Err(error) = converse(stream, &client).await {
                println!("a connection ended: {error}");
            }
        });
    }
}

/// Answers each line, which names a counter, with what that has become.
async fn converse(mut stream: TcpStream, client: &Client) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(name) = lines.next_line().await? {
        let answer = match increment(client, name.as_bytes()).await {
            Ok(value) => value.to_string(),
            Err(error) => format!("error: {error}"),
        };
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

async fn increment(client: &Client, name: &[u8]) -> Result<i64, Box<dyn Error + Send + Sync>> {
    let mut command = Vec::new();
    Command::Increment { key: name, by: 1 }.encode(&mut command)?;
    let executed = client.execute(&command).await?;
    let Answer::Number(value) = Answer::decode(executed.reply.as_slice())? else {
        return Err("it holds something else than a number".into());
    };
    Ok(value)
}

/// Adds to the counter `visits` so many times; returns the last answer.
async fn visit(address: std::net::SocketAddr, times: u32) -> std::io::Result<i64> {
    let mut stream = TcpStream::connect(address).await?;
    let (reader, mut writer) = stream.split();
    let mut lines = BufReader::new(reader).lines();
    let mut last = 0;
    for _ in 0..times {
        writer.write_all(b"visits\n").await?;
        let line = lines.next_line().await?.unwrap_or_default();
        last = line.parse().map_err(std::io::Error::other)?;
    }
    Ok(last)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    const VISITORS: u32 = 8;
    const VISITS: u32 = 100;
    let cluster = LocalCluster::start(&Config::standard(), |_| Kv::default())?;
    cluster.client().ready().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = tokio::spawn(serve(listener, cluster.client()));

    let mut visitors = JoinSet::new();
    (0..VISITORS).for_each(|_| drop(visitors.spawn(visit(address, VISITS))));
    let mut most = 0;
    while let Some(last) = visitors.join_next().await {
        most = most.max(last??);
    }
    println!("{VISITORS} visitors, {VISITS} visits each: {most} in all");
    assert_eq!(most, i64::from(VISITORS * VISITS), "each visit counts once");
    service.abort();
    Ok(cluster.stop()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs() {
        main().unwrap();
    }
}
