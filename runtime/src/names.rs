//! The names of hosts, looked up beside the cores.
//!
//! ```text
//!   a link's core                          the thread of names
//!   address ── not looked up lately ─────▶ looks it up, which may take seconds
//!      ▲                                          │
//!      └──────── the last that was found ◀────────┘
//! ```
//!
//! A name is looked up again before it is next called, for a node may live elsewhere by then; the
//! core takes what was found last, and waits for nothing.
//!
//! source: R35, R36

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Address;

/// Between two lookups of a name.
const PAUSE: Duration = Duration::from_millis(500);

/// The address of a node, by number or as a name that is looked up beside the core.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Known(SocketAddr),
    Named(Arc<Name>),
}

/// The name of a host, and what was found for it.
#[derive(Debug)]
pub(crate) struct Name {
    address: Address,
    found: Mutex<Found>,
    /// Whether the thread has yet to look it up.
    is_wanted: AtomicBool,
    /// Where names go that are wanted: each is there once at the most.
    wanted: Sender<Arc<Self>>,
}

#[derive(Debug, Default)]
struct Found {
    address: Option<SocketAddr>,
    /// Why it was not found, when it was last looked up.
    trouble: Option<String>,
    at: Option<Instant>,
}

/// Looks names up, on a thread that ends with the last of them.
#[derive(Debug, Default)]
pub(crate) struct Names(Option<Sender<Arc<Name>>>);

impl Names {
    /// Returns what `address` leads to. The first that is named starts the thread; not to be called
    /// on a pinned core, or the thread would be pinned, too.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn destination(&mut self, address: &Address) -> io::Result<Destination> {
        if let Some(address) = address.ip() {
            return Ok(Destination::Known(address));
        }
        let wanted = match &self.0 {
            Some(wanted) => wanted.clone(),
            None => self.0.insert(start()?).clone(),
        };
        let (address, found) = (address.clone(), Mutex::default());
        let name = Arc::new(Name { address, found, is_wanted: AtomicBool::new(false), wanted });
        name.want();
        Ok(Destination::Named(name))
    }
}

fn start() -> io::Result<Sender<Arc<Name>>> {
    let (wanted, asked) = mpsc::channel::<Arc<Name>>();
    let work = move || {
        while let Ok(name) = asked.recv() {
            name.look_up();
        }
    };
    std::thread::Builder::new().name("loggos-names".to_owned()).spawn(work)?;
    Ok(wanted)
}

impl Destination {
    /// The address to call now. One that is named is looked up for the next call.
    ///
    /// # Errors
    ///
    /// If nothing was found for the name so far: says why.
    pub(crate) fn to_call(&self) -> Result<SocketAddr, String> {
        match self {
            Self::Known(address) => Ok(*address),
            Self::Named(name) => {
                name.want();
                let found = name.found.lock().unwrap_or_else(PoisonError::into_inner);
                let why =
                    || found.trouble.clone().unwrap_or_else(|| "its host is looked up".to_owned());
                found.address.ok_or_else(why)
            }
        }
    }
}

impl Name {
    fn want(self: &Arc<Self>) {
        let is_recent = {
            let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            found.at.is_some_and(|at| at.elapsed() < PAUSE)
        };
        if !is_recent && !self.is_wanted.swap(true, Ordering::Relaxed) {
            drop(self.wanted.send(Arc::clone(self))); // the thread ends with the last name
        }
    }

    fn look_up(&self) {
        let resolved = self.address.resolve();
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        match resolved {
            Ok(address) => (found.address, found.trouble) = (Some(address), None),
            // What was found before may still be right.
            Err(error) => found.trouble = Some(format!("its host cannot be looked up: {error}")),
        }
        found.at = Some(Instant::now());
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}
