//! The snapshots of the durable replicas of a core, written and read by a thread beside it.
//!
//! ```text
//!   core                         worker thread
//!   take ── orders ────────────▶ carries them out, one after the other
//!   next ◀─ answers, alarm ───── what the replica waits for; errors are logged
//!   end_life ──────────────────▶ gives up what that life was writing, and looks what is there
//! ```
//!
//! A replica whose life ends and begins again in this process may get answers to its former life:
//! each life has a number, and what is of another is dropped.
//!
//! source: R16, R35

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use crossbeam::queue::SegQueue;
use loggos_protocol::{
    DirectoryId, LoggedCommand, ReplicaDirectory, ReplicaId, SnapshotDone, SnapshotInfo,
    SnapshotOrder,
};
use loggos_storage::{SnapshotFolder, SnapshotStore};
use tracing::warn;

use crate::alarm::Alarm;

/// The directory of a durable replica, opened.
#[derive(Debug)]
pub(crate) struct ReplicaPlan {
    pub(crate) replica: ReplicaId,
    pub(crate) directory: DirectoryId,
    pub(crate) store: SnapshotStore<SnapshotFolder>,
    /// Whether an earlier life has left anything there.
    pub(crate) is_used: bool,
}

/// The snapshots of the durable replicas of a core.
#[derive(Debug)]
pub(crate) struct Snapshots {
    lives: BTreeMap<ReplicaId, ReplicaLife>,
    /// `None` once the thread is to end.
    requests: Option<Sender<Request>>,
    answers: Arc<SegQueue<Answer>>,
    thread: Option<JoinHandle<()>>,
}

/// The life of a replica that answers are for.
#[derive(Debug, Default)]
struct ReplicaLife {
    number: u64,
    /// What it comes back with, until it is started.
    found: Option<ReplicaDirectory>,
}

#[derive(Debug)]
struct Request {
    replica: ReplicaId,
    life: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Order(SnapshotOrder),
    /// Look what is there, for another life.
    Find,
}

#[derive(Debug)]
struct Answer {
    replica: ReplicaId,
    life: u64,
    what: AnswerTo,
}

#[derive(Debug)]
enum AnswerTo {
    Order(SnapshotDone),
    Find(ReplicaDirectory),
}

impl Snapshots {
    /// Starts the thread for the replicas of a core; `alarm` wakes the core once it has answered.
    /// Must not be called on the core's own thread, or the worker would be pinned to that core,
    /// too.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn start(plans: Vec<ReplicaPlan>, alarm: Alarm) -> io::Result<Self> {
        let lives = plans.iter().map(|plan| {
            let found = Some(plan.find());
            (plan.replica, ReplicaLife { number: 0, found })
        });
        let lives = lives.collect();
        let (requests, asked) = mpsc::channel();
        let answers = Arc::new(SegQueue::new());
        let answered = Arc::clone(&answers);
        let mut stores: BTreeMap<_, _> =
            plans.into_iter().map(|plan| (plan.replica, plan)).collect();
        let work = move || {
            serve(&mut stores, &asked, |answer| {
                answered.push(answer);
                alarm.ring();
            });
        };
        let thread = std::thread::Builder::new().name("loggos-snapshots".to_owned()).spawn(work)?;
        Ok(Self { lives, requests: Some(requests), answers, thread: Some(thread) })
    }

    /// Whether `replica` is durable, and of this core.
    pub(crate) fn has(&self, replica: ReplicaId) -> bool {
        self.lives.contains_key(&replica)
    }

    /// Hands the orders of a replica to the worker thread.
    pub(crate) fn take(&self, replica: ReplicaId, orders: &mut Vec<SnapshotOrder>) {
        for order in orders.drain(..) {
            self.ask(replica, What::Order(order));
        }
    }

    /// Returns the next answer to a replica in its current life. Takes in what is found for lives
    /// that are to begin.
    pub(crate) fn next(&mut self) -> Option<(ReplicaId, SnapshotDone)> {
        while let Some(Answer { replica, life, what }) = self.answers.pop() {
            let current = self.lives.get_mut(&replica).filter(|it| it.number == life);
            let Some(current) = current else { continue };
            match what {
                AnswerTo::Order(done) => return Some((replica, done)),
                AnswerTo::Find(found) => current.found = Some(found),
            }
        }
        None
    }

    /// Whether the worker thread has answered.
    pub(crate) fn has_answered(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Ends the life of a replica: what it was writing is given up, and the next one begins when
    /// [`found`](Self::found) has something.
    pub(crate) fn end_life(&mut self, replica: ReplicaId) {
        let Some(life) = self.lives.get_mut(&replica) else { return };
        life.number += 1;
        life.found = None;
        self.ask(replica, What::Find);
    }

    /// Whether the next life of a replica may begin.
    pub(crate) fn is_settled(&self, replica: ReplicaId) -> bool {
        self.lives.get(&replica).is_none_or(|life| life.found.is_some())
    }

    /// What the next life of a replica comes back with.
    pub(crate) fn found(&self, replica: ReplicaId) -> Option<ReplicaDirectory> {
        self.lives.get(&replica)?.found.clone()
    }

    fn ask(&self, replica: ReplicaId, what: What) {
        let life = self.lives.get(&replica).map_or(0, |life| life.number);
        let request = Request { replica, life, what };
        let is_asked = self.requests.as_ref().is_some_and(|it| it.send(request).is_ok());
        assert!(is_asked, "the worker thread of snapshots has ended");
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.requests = None;
        // A panic was reported by the thread itself.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

impl ReplicaPlan {
    fn find(&self) -> ReplicaDirectory {
        let snapshots: Vec<SnapshotInfo> = self.store.stored().collect();
        let skips: Vec<LoggedCommand> = self.store.skips().collect();
        let is_log = snapshots.iter().any(|info| !info.is_origin()) || !skips.is_empty();
        let is_used = self.is_used || is_log;
        ReplicaDirectory { directory: self.directory, snapshots, is_used, skips }
    }
}

/// Carries out what is asked for, until no core asks any more.
fn serve(
    stores: &mut BTreeMap<ReplicaId, ReplicaPlan>,
    asked: &Receiver<Request>,
    tell: impl Fn(Answer),
) {
    while let Ok(Request { replica, life, what }) = asked.recv() {
        let Some(plan) = stores.get_mut(&replica) else { continue };
        let order = match what {
            What::Find => {
                plan.store.abandon_all();
                plan.is_used = true; // a life that has ended may have executed something
                tell(Answer { replica, life, what: AnswerTo::Find(plan.find()) });
                continue;
            }
            What::Order(order) => order,
        };
        let done = plan.store.carry_out(order);
        if let Some(error) = done.error {
            warn!(%error, "replica {}: its disk has failed it", replica.0);
        }
        if let Some(done) = done.done {
            tell(Answer { replica, life, what: AnswerTo::Order(done) });
        }
    }
}
