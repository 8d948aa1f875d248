//! Puts from independent callers to the leader of an etcd cluster, as `loggos bench` puts to
//! Loggos: the same keys and values, each caller sends its next put when it has an answer, and the
//! figures are called the same in JSON.
//!
//! Callers share HTTP/2 connections, as those of etcd's own `benchmark put --target-leader` do.

mod etcd;
mod load;

use std::error::Error;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, value_parser};
use etcd::{Connection, StatusResponse};
use load::{Measured, Plan, Stage};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print so many ports of 127.0.0.1 that the kernel says are free.
    Ports { count: usize },
    /// Wait until all members agree on who leads, and print that.
    Wait {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Put to the leader, and print what came of it as JSON.
    Put(Put),
}

#[derive(Args)]
struct Cluster {
    /// The members, such as http://127.0.0.1:2379.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// How many seconds they may take to elect a leader.
    #[arg(long, default_value_t = 20)]
    patience: u64,
}

#[derive(Args)]
struct Put {
    #[command(flatten)]
    cluster: Cluster,
    /// Independent callers, of one put at a time each.
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u64).range(1..))]
    clients: u64,
    /// Connections that they share.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..))]
    connections: u64,
    /// Threads that they share.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    threads: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 16, value_parser = value_parser!(u64).range(8..))]
    size: u64,
    /// Keys, of 16 bytes each.
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u64).range(1..))]
    keys: u64,
    /// Seconds to run before measuring.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
}

fn main() -> Outcome<()> {
    match Line::parse().command {
        Command::Ports { count } => ports(count),
        Command::Wait { cluster } => {
            let (endpoint, status) = leader(&cluster)?;
            println!("{endpoint} leads, etcd {}", status.version);
            Ok(())
        }
        Command::Put(put) => measure(&put),
    }
}

/// Prints free ports: all are held until all are known, so none is told twice.
fn ports(count: usize) -> Outcome<()> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0"));
    for listener in listeners.collect::<Result<Vec<_>, _>>()? {
        println!("{}", listener.local_addr()?.port());
    }
    Ok(())
}

/// Asks all members until they agree on who leads; returns that one.
fn leader(cluster: &Cluster) -> Outcome<(String, StatusResponse)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let started = Instant::now();
    loop {
        match runtime.block_on(ask_for_leader(&cluster.endpoints)) {
            Ok(leader) => return Ok(leader),
            Err(error) if started.elapsed().as_secs() >= cluster.patience => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

async fn ask_for_leader(endpoints: &[String]) -> Outcome<(String, StatusResponse)> {
    let mut found = Vec::new();
    for endpoint in endpoints {
        let status = Connection::open(endpoint).await?.status().await?;
        found.push((endpoint.clone(), status));
    }
    let leads = |(_, status): &(String, StatusResponse)| status.is_leader();
    let leader = found.iter().find(|member| leads(member)).ok_or("no member leads")?;
    if found.iter().any(|(_, status)| status.leader != leader.1.leader) {
        return Err("members do not agree on who leads".into());
    }
    Ok(leader.clone())
}

fn measure(put: &Put) -> Outcome<()> {
    let (endpoint, before) = leader(&put.cluster)?;
    let plan = Plan {
        endpoint: endpoint.clone(),
        clients: put.clients,
        connections: put.connections.min(put.clients),
        threads: put.threads.min(put.connections).min(put.clients),
        size: usize::try_from(put.size)?,
        keys: put.keys,
    };
    let stage: &'static Stage = Box::leak(Box::new(Stage::new()));
    let threads: Vec<_> = (0..plan.threads)
        .map(|thread| {
            let plan = plan.clone();
            thread::spawn(move || load::run(&plan, thread, stage))
        })
        .collect();
    thread::sleep(Duration::try_from_secs_f64(put.warmup)?);
    let cpu_before = cpu();
    stage.start_measuring();
    thread::sleep(Duration::try_from_secs_f64(put.duration)?);
    stage.stop_measuring();
    let cpu = cpu().saturating_sub(cpu_before);
    let mut measured = Measured::new();
    for thread in threads {
        measured = measured.merge(thread.join().map_err(|_| "a thread of callers panicked")??);
    }
    let (_, after) = leader(&put.cluster)?;
    check(&measured, &before)?;
    tell(&plan, &measured, stage.elapsed(), cpu, (&before, &after));
    Ok(())
}

/// Every put is a revision of its own: acknowledged ones cannot be more than the store has counted.
fn check(measured: &Measured, before: &StatusResponse) -> Outcome<()> {
    if measured.latency.is_empty() {
        let error = measured.error.clone().unwrap_or_else(|| "all were too slow".to_owned());
        return Err(format!("no put was acknowledged: {error}").into());
    }
    let revisions = measured.revision - before.header.unwrap_or_default().revision;
    if u64::try_from(revisions).unwrap_or(0) < measured.acknowledged {
        return Err(format!("{} puts in {revisions} revisions", measured.acknowledged).into());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn tell(
    plan: &Plan,
    measured: &Measured,
    elapsed: Duration,
    cpu: Duration,
    (before, after): (&StatusResponse, &StatusResponse),
) {
    let operations = measured.latency.len();
    let us = |quantile| measured.latency.value_at_quantile(quantile) as f64 / 1e3;
    let term = |status: &StatusResponse| status.header.unwrap_or_default().raft_term;
    let report = json!({
        "throughput_mean": operations as f64 / elapsed.as_secs_f64(),
        "operations": operations,
        "errors": measured.errors,
        "error": measured.error,
        "latency_us": {
            "p50": us(0.5),
            "p90": us(0.9),
            "p99": us(0.99),
            "p999": us(0.999),
            "max": measured.latency.max() as f64 / 1e3,
        },
        "load": {
            "clients": plan.clients,
            "connections": plan.connections,
            "threads": plan.threads,
            "value_bytes": plan.size,
            "keys": plan.keys,
            "duration_s": elapsed.as_secs_f64(),
        },
        "client_cpu_us_per_operation": cpu.as_secs_f64() * 1e6 / operations as f64,
        "elections": term(after) - term(before),
        "version": after.version,
    });
    println!("{report:#}");
}

/// The processor time that this process has taken.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
