//! The reads of a connection to a cluster.
//!
//! They change nothing, so they have no session: what has no answer when a connection ends is asked
//! again over the next, whoever may have answered it before. The gateway answers those of a
//! connection in their order.

use std::collections::BTreeMap;

use loggos_net::Outgoing;
use loggos_net::wire::ReadsWriter;
use loggos_protocol::{Failure, Payload, ReadGroup, ReadLevel};

use super::caller::{Limits, OUTGOING_BYTES_MAX};
use crate::callers::Callers;

/// The first number of a read: commands have lower ones.
const FIRST: u64 = 1 << 63;

/// Reads without an answer.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The number of reads so far.
    count: u64,
    /// By their numbers.
    sent: BTreeMap<u64, Read>,
    /// How many of them are to be sent again.
    unsent: usize,
}

#[derive(Debug)]
struct Read {
    tag: u64,
    level: ReadLevel,
    query: Payload,
    is_sent: bool,
}

impl Reads {
    /// Whether a number is a read's.
    pub(super) fn has(number: u64) -> bool {
        number >= FIRST
    }

    /// Takes in that a read is answered; returns its tag.
    pub(super) fn on_answer(&mut self, number: u64) -> Option<u64> {
        let read = self.sent.remove(&number)?;
        self.unsent -= usize::from(!read.is_sent);
        Some(read.tag)
    }

    /// What was sent is to be sent again, if its caller waits for it.
    pub(super) fn on_way_ended(&mut self, callers: &Callers) {
        self.sent.retain(|_, read| callers.is_waited_for(read.tag));
        self.sent.values_mut().for_each(|read| read.is_sent = false);
        self.unsent = self.sent.len();
    }

    /// Sends what is to be sent again, and then what callers ask for, until as many are under way
    /// as the gateway allows.
    pub(super) fn send(
        &mut self,
        callers: &mut Callers,
        writer: &mut ReadsWriter,
        outgoing: &mut Outgoing,
        limits: Limits,
    ) {
        if self.unsent > 0 {
            for (number, read) in self.sent.iter_mut().filter(|(_, read)| !read.is_sent) {
                if outgoing.len() >= OUTGOING_BYTES_MAX {
                    break;
                }
                writer.put(*number, read.level, read.query.as_slice(), outgoing);
                read.is_sent = true;
                self.unsent -= 1;
            }
        }
        let window = limits.commands_in_flight as usize;
        while self.unsent == 0
            && outgoing.len() < OUTGOING_BYTES_MAX
            && self.sent.len() < window
            && let Some((caller, level, query)) = callers.next_read(|_, _| Some(ReadGroup::ALL))
        {
            if query.len() > limits.command_bytes as usize {
                callers.answer(caller.tag, Err(Failure::TooLarge));
                continue;
            }
            let number = FIRST + self.count;
            self.count += 1;
            writer.put(number, level, query.as_slice(), outgoing);
            self.sent.insert(number, Read { tag: caller.tag, level, query, is_sent: true });
        }
        writer.end(outgoing);
    }
}
