//! Addresses by which processes find each other.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// The longest name of a host, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// An address to listen at, and to connect to: a host and a port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(String),
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoAddress;

impl Address {
    /// The IP address and the port, unless the host is named.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address by number. A name is looked up, which may take seconds: not to be called
    /// on the core of a cluster. Of several addresses the first of IPv4 is taken, where nodes
    /// listen by default.
    ///
    /// # Errors
    ///
    /// If the name cannot be looked up, or has no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let name = match &self.host {
            Host::Ip(ip) => return Ok(SocketAddr::new(*ip, self.port)),
            Host::Name(name) => name,
        };
        let found: Vec<_> = (name.as_str(), self.port).to_socket_addrs()?.collect();
        let first = found.iter().find(|it| it.is_ipv4()).or_else(|| found.first()).copied();
        first.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address"))
    }

    /// The machine that it names, as far as a name tells: loopback addresses are of one.
    pub(crate) fn machine(&self) -> String {
        match &self.host {
            Host::Ip(ip) if ip.to_canonical().is_loopback() => "localhost".to_owned(),
            Host::Ip(ip) => ip.to_canonical().to_string(),
            Host::Name(name) => name.clone(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), port: address.port() }
    }
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (name, port) = text.rsplit_once(':').ok_or(NoAddress)?;
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name =
            !name.is_empty() && name.len() <= HOST_BYTES_MAX && name.bytes().all(is_letter);
        // What has digits and dots only was meant as an IP address.
        let is_mistaken = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let port = port.parse().map_err(|_| NoAddress)?;
        match is_name && !is_mistaken {
            true => Ok(Self { host: Host::Name(name.to_ascii_lowercase()), port }),
            false => Err(NoAddress),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it must be a host and a port, such as localhost:7401")
    }
}

impl std::error::Error for NoAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for text in ["127.0.0.1:7401", "[::1]:7401", "localhost:7401", "node-a.rack_1.example:1"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let ip = address.ip().map(|ip| ip.to_string());
            assert_eq!(ip.is_some(), text.starts_with(['1', '[']), "{text}");
        }
        let one: Address = "Node.Example:7401".parse().unwrap();
        assert_eq!(Ok(one), "node.example:7401".parse(), "names of hosts have no case");
        let long = format!("{}:1", "x".repeat(HOST_BYTES_MAX + 1));
        for text in [
            "",
            "7401",
            ":7401",
            "host",
            "host:",
            "host:70000",
            "a b:1",
            "::1:7401",
            "10.0.0:1",
            "a/b:1",
            &long,
        ] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
    }

    #[test]
    fn names_are_looked_up_and_numbers_are_not() {
        let of = |text: &str| text.parse::<Address>().unwrap().resolve();
        assert!(of("localhost:7401").unwrap().ip().is_loopback());
        assert_eq!(of("192.0.2.7:1").unwrap().to_string(), "192.0.2.7:1");
        // Reserved for what must not exist (RFC 6761).
        assert!(of("nowhere.invalid:1").is_err());
    }

    #[test]
    fn loopback_addresses_are_of_one_machine() {
        let machine = |text: &str| text.parse::<Address>().unwrap().machine();
        let all = ["localhost:1", "127.0.0.1:2", "127.0.7.1:2", "[::1]:3"].map(machine);
        assert!(all.iter().all(|it| *it == all[0]), "{all:?}");
        assert_ne!(machine("192.0.2.7:1"), machine("192.0.2.8:1"));
    }
}
