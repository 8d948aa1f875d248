//! What was measured.

use std::time::Duration;

/// What was done in some time.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) operations: u64,
    pub(crate) time: Duration,
    /// Of each operation, where there is one in flight.
    pub(crate) latencies: Vec<Duration>,
}

impl Figures {
    /// Millions of operations a second.
    pub(crate) fn millions(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64() / 1e6
    }

    /// The median latency in microseconds.
    pub(crate) fn median_us(mut self) -> f64 {
        let middle = self.latencies.len() / 2;
        let (_, median, _) = self.latencies.select_nth_unstable(middle);
        median.as_secs_f64() * 1e6
    }
}

/// The median of several turns, with the least and the largest.
pub(crate) fn told(mut figures: Vec<f64>) -> String {
    figures.sort_unstable_by(f64::total_cmp);
    let median = figures[figures.len() / 2];
    format!("{median:.2} ({:.2}-{:.2})", figures[0], figures[figures.len() - 1])
}
