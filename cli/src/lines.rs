//! Lines for an operator, which never stop or slow those who write them.
//!
//! ```text
//!   push ─▶ a queue of LINES_MAX ─▶ a thread that writes them
//!              │ full: dropped, counted          │ fails: lost, counted
//!              └────────────────┬────────────────┘
//!                               └─▶ said in a line, once one can be written
//! ```
//!
//! Where they are written to may be full, gone, or a pipe that nobody reads. A core that wrote them
//! itself would stand still with it, or panic.
//!
//! source: R35

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel, sync_channel,
};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait.
const LINES_MAX: usize = 4096;
/// The longest line that waits whole, in bytes.
const LINE_BYTES_MAX: usize = 64 << 10;
/// The interval of attempts to put something into a queue that is full.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The front of a queue of lines; its copies share the queue.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    queue: SyncSender<Line>,
    /// The lines that found no room since it was last said.
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// To be answered once everything before it is written, or lost.
    Flush(Sender<()>),
}

/// The back of the queue.
struct Drain<W> {
    to: W,
    dropped: Arc<AtomicU64>,
    /// The lines that are lost and of which nothing was said, and why the last was.
    lost: u64,
    why: String,
}

impl Lines {
    /// Starts a thread of that name, which writes lines to `to`.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub(crate) fn start(name: &str, to: impl Write + Send + 'static) -> io::Result<Self> {
        let (queue, lines) = sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut drain = Drain { to, dropped: Arc::clone(&dropped), lost: 0, why: String::new() };
        let work = move || drain.run(&lines);
        std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { queue, dropped })
    }

    /// Queues a line, which ends with a newline, or drops and counts it.
    pub(crate) fn push(&self, mut line: Vec<u8>) {
        if line.len() > LINE_BYTES_MAX {
            line.truncate(LINE_BYTES_MAX);
            line.extend_from_slice("…\n".as_bytes());
        }
        if self.queue.try_send(Line::Text(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Queues a line, or drops and counts it if there is no room for so long. Never to be called on
    /// a core.
    pub(crate) fn push_within(&self, line: Vec<u8>, most: Duration) {
        if !self.queue_within(Line::Text(line), most) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every line so far is written or lost, but no longer than `most`.
    pub(crate) fn flush(&self, most: Duration) {
        let started = Instant::now();
        let (flushed, wait) = channel();
        if !self.queue_within(Line::Flush(flushed), most) {
            return;
        }
        match wait.recv_timeout(most.saturating_sub(started.elapsed())) {
            // What is left in the queue goes with the process.
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }
}

impl Lines {
    /// Queues it as soon as there is room; returns whether that was so in time.
    fn queue_within(&self, mut line: Line, most: Duration) -> bool {
        let started = Instant::now();
        while let Err(TrySendError::Full(back)) = self.queue.try_send(line) {
            if started.elapsed() >= most {
                return false;
            }
            line = back;
            std::thread::sleep(RETRY_INTERVAL);
        }
        true
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nobody waits for the thread
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl<W: Write> Drain<W> {
    fn run(&mut self, lines: &Receiver<Line>) {
        for line in lines {
            self.tell_lost();
            match line {
                Line::Text(text) => {
                    if let Err(error) = self.write(&text) {
                        self.lost += 1;
                        self.why = error.to_string();
                    }
                }
                Line::Flush(flushed) => drop(flushed.send(())), // or nobody waits any more
            }
        }
    }

    /// Says how many lines are missing here, if any are.
    fn tell_lost(&mut self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            self.lost += dropped;
            "they were not taken as fast as they came".clone_into(&mut self.why);
        }
        let note = format!("{} lines are missing here: {}\n", self.lost, self.why);
        if self.lost > 0 && self.write(note.as_bytes()).is_ok() {
            self.lost = 0;
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.to.write_all(line).and_then(|()| self.to.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// Writes to a text, while it may.
    #[derive(Clone, Default)]
    struct Sink {
        text: Arc<Mutex<Vec<u8>>>,
        /// Held while nothing can be written.
        stalled: Arc<Mutex<()>>,
        is_full: Arc<AtomicBool>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _may_go_on = self.stalled.lock().expect("no test panics with it");
            if self.is_full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.text.lock().expect("no test panics with it").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            let text = self.text.lock().expect("no test panics with it");
            String::from_utf8(text.clone()).expect("lines are text")
        }
    }

    fn line(text: &str) -> Vec<u8> {
        format!("{text}\n").into_bytes()
    }

    #[test]
    fn r35_lines_for_which_there_is_no_room_are_dropped_and_counted() {
        let sink = Sink::default();
        let lines = Lines::start("lines", sink.clone()).expect("a thread");
        let stalled = sink.stalled.lock().expect("no test panics with it");
        // The thread has taken one of them out, or none yet.
        for number in 0..LINES_MAX + 11 {
            lines.push(line(&number.to_string()));
        }
        lines.flush(Duration::ZERO); // returns though nothing is written
        lines.push_within(line("late"), Duration::ZERO); // so does this
        std::thread::scope(|scope| {
            let last = scope.spawn(|| lines.push_within(line("last"), DEADLINE));
            drop(stalled);
            last.join().expect("it found room");
        });
        lines.flush(DEADLINE);
        lines.push(line("after"));
        lines.flush(DEADLINE);
        let text = sink.text();
        let notes =
            text.lines().filter_map(|line| line.split_once(" lines are missing here: they "));
        let missing: Vec<usize> =
            notes.map(|(count, _)| count.parse().expect("a number")).collect();
        let (sum, notes) = (missing.iter().sum::<usize>(), missing.len());
        assert!((11..=12).contains(&sum), "{missing:?}");
        let written = text.lines().count() - notes;
        assert_eq!(written + sum, LINES_MAX + 11 + 3, "and nothing else is missing");
        assert!(text.ends_with("\nlast\nafter\n"), "and it goes on");
    }

    #[test]
    fn r35_lines_that_cannot_be_written_are_lost_and_counted() {
        let sink = Sink::default();
        let lines = Lines::start("lines", sink.clone()).expect("a thread");
        sink.is_full.store(true, Ordering::Relaxed);
        (0..3).for_each(|_| lines.push(line("lost")));
        lines.flush(DEADLINE);
        sink.is_full.store(false, Ordering::Relaxed);
        lines.push(line("written"));
        lines.flush(DEADLINE);
        assert_eq!(sink.text(), "3 lines are missing here: no storage space\nwritten\n");
    }

    #[test]
    fn a_long_line_is_cut() {
        let sink = Sink::default();
        let lines = Lines::start("lines", sink.clone()).expect("a thread");
        lines.push(vec![b'x'; 2 * LINE_BYTES_MAX]);
        lines.flush(DEADLINE);
        assert_eq!(sink.text(), format!("{}…\n", "x".repeat(LINE_BYTES_MAX)));
    }
}
