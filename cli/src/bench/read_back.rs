//! Reading back what was written: each key must hold what the highest acknowledged write left
//! there.

use std::sync::mpsc::Sender;

use loggos::kv::{Answer, Command};
use loggos::{CallError, Desk, Next, Position, Resident};

use super::load::{Measured, key};

/// Reads all keys that were written, many at once.
pub(crate) struct ReadBack {
    /// Each key with the highest acknowledged write to it.
    written: Vec<(u32, Position)>,
    /// Whether a write without an answer may have come later than the last one with.
    has_unknown: bool,
    next: usize,
    checked: usize,
    mistake: Option<String>,
    done: Sender<Result<usize, String>>,
}

/// Reads back what `measured` says was written; tells how many keys that were, or what is wrong
/// with one.
pub(crate) fn read_back(
    measured: &Measured,
) -> impl FnOnce(Sender<Result<usize, String>>) -> ReadBack + Send + use<> {
    let (written, has_unknown) = (measured.written().collect(), measured.unknown > 0);
    move |done| ReadBack { written, has_unknown, next: 0, checked: 0, mistake: None, done }
}

impl Resident for ReadBack {
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next {
        if self.mistake.is_some() || self.checked == self.written.len() {
            let result = self.mistake.take().map_or(Ok(self.checked), Err);
            drop(self.done.send(result)); // the measurement may have been given up
            return Next::Leave;
        }
        while let Some((number, _)) = self.written.get(self.next) {
            let mut get = Vec::new();
            let encoded = Command::GetVersioned { key: &key(*number) }.encode(&mut get);
            encoded.expect("keys of a benchmark are short");
            if !desk.execute(self.next as u64, &get) {
                break;
            }
            self.next += 1;
        }
        Next::OnResult
    }

    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        self.checked += 1;
        let place = usize::try_from(tag).expect("the place of a key");
        let (number, written) = self.written[place];
        let mistake = match result.map(|(_, reply)| Answer::decode(reply)) {
            Err(error) => Some(format!("cannot be read: {error}")),
            Ok(Ok(Answer::Versioned { version, .. })) => {
                let is_it = (version.slot, version.index) == (written.slot, written.index);
                (!is_it && !self.has_unknown)
                    .then(|| format!("holds {version}, acknowledged was {written:?}"))
            }
            Ok(_) => Some(format!("{written:?} was acknowledged and is not there")),
        };
        if let Some(mistake) = mistake {
            self.mistake = Some(format!("key {number}: {mistake}"));
        }
    }
}
