//! What a message costs from one parked process to the next, and nothing else: processes in a ring,
//! each asleep in its `io_uring` until what it passes on arrives.
//!
//! A command of a cluster whose roles are processes takes eight such hops: client, gateway, leader,
//! proxy leader, acceptor, proxy leader, replica, gateway, client.
//!
//! Usage: `hops [PROCESSES] [LAPS]`

#![expect(clippy::print_stdout, reason = "it reports")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use loggos_net::{ConnectionId, Ring, RingEvent, RingOptions};
use rustix::thread::{CpuSet, sched_setaffinity};

/// What a small message is about.
const MESSAGE: [u8; 64] = [7; 64];
/// How long a process sleeps at the most.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Laps that are not counted.
const WARM_UP_LAPS: usize = 200;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A process of the ring.
struct Process {
    ring: Ring,
    events: Vec<RingEvent>,
}

impl Process {
    /// Makes one, on the processor core that its place in the ring gives it.
    fn new(place: usize) -> io::Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        let mut mine = CpuSet::new();
        mine.set(place % cpus);
        sched_setaffinity(None, &mine)?;
        Ok(Self { ring: Ring::new(&RingOptions::default())?, events: Vec::new() })
    }

    /// Sleeps until something has happened that `take` makes something of.
    fn until<T>(
        &mut self,
        mut take: impl FnMut(&mut Ring, RingEvent) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            self.ring.flush();
            self.ring.sleep(SLEEP_MAX)?;
            self.ring.poll(&mut self.events)?;
            let taken = self.events.drain(..).filter_map(|event| take(&mut self.ring, event));
            if let Some(taken) = taken.last() {
                return Ok(taken);
            }
        }
    }

    /// Tells where it listens, is told where the next one does, and waits for both neighbours.
    fn join(
        &mut self,
        tell: impl FnOnce(SocketAddr) -> io::Result<SocketAddr>,
    ) -> io::Result<(ConnectionId, ConnectionId)> {
        let address = self.ring.listen((Ipv4Addr::LOCALHOST, 0).into())?;
        let next = tell(address)?;
        self.ring.connect(next)?;
        let (mut from, mut to) = (None, None);
        self.until(|ring, event| {
            match event {
                RingEvent::Accepted(id, _) => {
                    ring.receive(id);
                    from = Some(id);
                }
                RingEvent::Connected(id) => to = Some(id),
                RingEvent::Received(..)
                | RingEvent::Sent(..)
                | RingEvent::SentPart(_)
                | RingEvent::Closed(..) => {}
            }
            from.zip(to)
        })
    }

    fn send(&mut self, to: ConnectionId) {
        if let Some(outgoing) = self.ring.outgoing(to) {
            outgoing.put(&MESSAGE);
        }
    }

    /// Waits for the message; returns whether there will be more.
    fn receive(&mut self) -> io::Result<bool> {
        let mut missing = MESSAGE.len();
        self.until(|ring, event| match event {
            RingEvent::Received(id, bytes) => {
                ring.receive(id);
                missing -= bytes.len();
                (missing == 0).then_some(true)
            }
            RingEvent::Closed(..) => Some(false),
            RingEvent::Accepted(..)
            | RingEvent::Connected(_)
            | RingEvent::Sent(..)
            | RingEvent::SentPart(_) => None,
        })
    }
}

/// Passes on what it gets, until its neighbour has gone.
fn pass_on(place: usize) -> Outcome<()> {
    let mut process = Process::new(place)?;
    let (_, to) = process.join(|address| {
        println!("{address}");
        let mut next = String::new();
        io::stdin().read_line(&mut next)?;
        next.trim().parse().map_err(io::Error::other)
    })?;
    while process.receive()? {
        process.send(to);
    }
    Ok(())
}

/// A process of the ring, and what it is told through.
struct Neighbour {
    child: Child,
    stdin: ChildStdin,
    address: SocketAddr,
}

impl Neighbour {
    fn start(place: usize) -> Outcome<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["pass-on", &place.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no pipe to a process")?;
        let stdout = child.stdout.take().ok_or("no pipe from a process")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        Ok(Self { child, stdin, address: address.trim().parse()? })
    }
}

fn measure(processes: usize, laps: usize) -> Outcome<()> {
    let mut others: Vec<Neighbour> =
        (1..processes).map(Neighbour::start).collect::<Outcome<_>>()?;
    let mut process = Process::new(0)?;
    let (_, to) = process.join(|address| {
        let addresses: Vec<SocketAddr> = others.iter().map(|other| other.address).collect();
        let nexts = addresses[1..].iter().copied().chain([address]);
        for (other, next) in others.iter_mut().zip(nexts) {
            writeln!(other.stdin, "{next}")?;
        }
        Ok(addresses[0])
    })?;
    let mut took = Vec::with_capacity(laps);
    for lap in 0..WARM_UP_LAPS + laps {
        let started = Instant::now();
        process.send(to);
        if !process.receive()? {
            return Err("the ring broke".into());
        }
        if lap >= WARM_UP_LAPS {
            took.push(started.elapsed());
        }
    }
    drop(process); // each ends when the one before it has gone
    for other in &mut others {
        other.child.wait()?;
    }
    took.sort_unstable();
    let hop = took[laps / 2].as_secs_f64() * 1e6 / processes as f64;
    println!(
        "{processes} parked processes in a ring: {hop:.1} µs a hop, {:.0} µs for eight",
        8.0 * hop
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pass-on", place] => pass_on(place.parse()?),
        [] => measure(12, 5_000),
        [processes] => measure(processes.parse::<usize>()?.max(2), 5_000),
        [processes, laps, ..] => {
            measure(processes.parse::<usize>()?.max(2), laps.parse::<usize>()?.max(1))
        }
    }
}
