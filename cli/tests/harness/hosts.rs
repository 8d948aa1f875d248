//! Hosts of their own for nodes and clients: network namespaces on a switch that is one, too, so
//! that what is cut between them touches no other host.
//!
//! ```text
//!   gateway-0           acceptor-3          client-1        hosts, with their addresses
//!     eth0                 eth0               eth0
//!      │                    │                  │
//!    plug 1      …        plug 4      …      plug 15        the switch: in one bridge are those that
//!   ═══════════════ joined ════════════════════════         reach each other, in another those that
//!                               ══════════ parted ═══       were parted from them
//! ```
//!
//! A namespace lives for as long as a descriptor of it is open or a process is in it. Its name is
//! given up at once, so nothing stays behind, not even after a test that was killed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Hosts that reach each other, until something is done about it.
pub(crate) struct Hosts {
    switch: Namespace,
    hosts: BTreeMap<String, Host>,
}

struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
    /// The switch's end of its cable.
    plug: String,
}

struct Namespace(File);

impl Hosts {
    /// Makes hosts of these names, or says that none can be made here. Where `LOGGOS_NAMESPACES` is
    /// `must`, that is a failure.
    pub(crate) fn new(names: &[String]) -> Option<Self> {
        match Self::make(names) {
            Ok(hosts) => Some(hosts),
            Err(error) => {
                let is_must = std::env::var("LOGGOS_NAMESPACES").is_ok_and(|it| it == "must");
                assert!(!is_must, "no network namespaces can be made: {error}");
                println!("NOT TESTED, since no network namespaces can be made: {error}");
                None
            }
        }
    }

    fn make(names: &[String]) -> io::Result<Self> {
        let switch = Namespace::new()?;
        let bridges = ["joined", "parted"];
        switch.ip(bridges.map(|it| format!("link add {it} type bridge\nlink set {it} up")))?;
        let mut hosts = BTreeMap::new();
        for (name, number) in names.iter().zip(1_u8..) {
            let (namespace, address) = (Namespace::new()?, Ipv4Addr::new(10, 77, 0, number));
            let (plug, path) = (format!("plug{number}"), namespace.path());
            switch.ip([
                format!("link add {plug} type veth peer name eth0 netns {path}"),
                format!("link set {plug} master joined up"),
            ])?;
            namespace.ip([
                "link set lo up".to_owned(),
                "link set eth0 up".to_owned(),
                format!("address add {address}/24 dev eth0"),
                // What is lost on arrival is lost before it is known whom it is for.
                "rule add pref 2 lookup local".to_owned(),
                "rule del pref 0".to_owned(),
            ])?;
            hosts.insert(name.clone(), Host { namespace, address, plug });
        }
        Ok(Self { switch, hosts })
    }

    pub(crate) fn address(&self, name: &str) -> IpAddr {
        self.hosts[name].address.into()
    }

    /// Does `what` on a host: processes that it starts live there.
    pub(crate) fn on<T: Send>(&self, name: &str, what: impl FnOnce() -> T + Send) -> T {
        self.hosts[name].namespace.enter(what)
    }

    /// All but one.
    pub(crate) fn others(&self, name: &str) -> Vec<&str> {
        self.hosts.keys().map(String::as_str).filter(|other| *other != name).collect()
    }

    /// Parts hosts from all that are not: what is sent between them is lost, without an error.
    pub(crate) fn part(&self, names: &[&str]) {
        self.plug_into("parted", names);
    }

    /// Undoes [`Hosts::part`].
    pub(crate) fn join(&self, names: &[&str]) {
        self.plug_into("joined", names);
    }

    /// Loses what comes from some hosts to others, and nothing that goes the other way.
    pub(crate) fn mute(&self, from: &[&str], to: &[&str]) {
        self.lose("add", from, to);
    }

    /// Undoes [`Hosts::mute`].
    pub(crate) fn unmute(&self, from: &[&str], to: &[&str]) {
        self.lose("del", from, to);
    }

    fn plug_into(&self, bridge: &str, names: &[&str]) {
        let plugs = names.iter().map(|name| &self.hosts[*name].plug);
        self.switch.ip(plugs.map(|plug| format!("link set {plug} master {bridge}"))).unwrap();
    }

    fn lose(&self, change: &str, from: &[&str], to: &[&str]) {
        for to in to {
            let from = from.iter().map(|from| self.hosts[*from].address);
            let rules = from.map(|from| format!("rule {change} pref 1 from {from} blackhole"));
            self.hosts[*to].namespace.ip(rules).unwrap();
        }
    }
}

impl Namespace {
    fn new() -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("loggos-{}-{number}", std::process::id());
        ip(&["netns", "add", &name], "")?;
        let held = File::open(Path::new("/run/netns").join(&name));
        ip(&["netns", "delete", &name], "")?;
        held.map(Self)
    }

    /// Where other processes find it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Does `what` here, on a thread of its own: threads and processes that it starts are here,
    /// too.
    fn enter<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.0.as_fd(), kind).unwrap();
            what()
        };
        let done = std::thread::scope(|scope| scope.spawn(enter).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn ip(&self, commands: impl IntoIterator<Item = String>) -> io::Result<()> {
        let mut batch = String::new();
        for command in commands {
            writeln!(batch, "{command}").unwrap();
        }
        self.enter(|| ip(&["-batch", "-"], &batch))
    }
}

/// Has `ip` of iproute2 do something.
fn ip(args: &[&str], input: &str) -> io::Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("ip of iproute2: {error}")))?;
    // It may have failed before it has read anything: then what it says tells why.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let done = child.wait_with_output()?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
        return Err(io::Error::other(format!("ip {}: {why}", args.join(" "))));
    }
    Ok(())
}
