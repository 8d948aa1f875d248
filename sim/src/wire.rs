//! The wire between roles: every simulated message is a frame on its way, as it would be between
//! machines.
//!
//! What is sent is encoded; what arrives has been cut out of a stream that came in pieces, and
//! decoded. So a run tests the codec with every message that the roles ever say, in every state
//! that they say it in. A frame that was damaged on the way must be told from a whole one: then it
//! is lost, with its connection.

use bytes::Bytes;
use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Message};
use loggos_protocol::{ClusterSettings, Envelope, Rng};

/// What a frame takes besides what is bounded by settings: heads, and fields of each slot of a
/// page.
const FRAME_ROOM_BYTES: u32 = 64 << 10;
/// Batches that are used again.
const BATCHES_MAX: usize = 1 << 12;

/// Encodes and decodes messages.
#[derive(Debug)]
pub(crate) struct Wire {
    outgoing: Outgoing,
    batches: BatchPool,
    /// The longest frame that roles of this cluster send: a page and one batch more, or results and
    /// one reply more, or a part of a snapshot.
    frame_bytes_max: u32,
}

impl Wire {
    pub(crate) fn new(cluster: &ClusterSettings) -> Self {
        let page = cluster.page_bytes_max + cluster.batch_bytes_max;
        let results = cluster.results_bytes_max + cluster.reply_bytes_max;
        let longest = page.max(results).max(cluster.snapshot_part_bytes);
        Self {
            outgoing: Outgoing::default(),
            batches: BatchPool::new(BATCHES_MAX),
            frame_bytes_max: longest + FRAME_ROOM_BYTES,
        }
    }

    /// Carries a message over; returns what arrives.
    ///
    /// # Panics
    ///
    /// If that is anything but the message.
    pub(crate) fn carry(&mut self, envelope: &Envelope, rng: &mut Rng) -> Envelope {
        let mut frame = Bytes::from(self.encode(envelope));
        let mut reader = FrameReader::new(self.frame_bytes_max);
        // Half of them arrive in one piece, the others in two.
        if rng.below(2) == 0 {
            reader.push(frame.split_to(below(rng, frame.len())));
            assert!(reader.next().is_none(), "half a frame was taken for a whole one");
        }
        reader.push(frame);
        let arrived = reader.next().map(|frame| frame.and_then(|it| it.decode(&mut self.batches)));
        match arrived {
            Some(Ok(Message::Envelope(arrived))) => {
                assert_eq!(arrived, *envelope, "a message was changed by being sent");
                arrived
            }
            other => panic!("{envelope:?} arrived as {other:?}"),
        }
    }

    /// Damages a message on the way: a bit of it is another, or its end is missing.
    ///
    /// # Panics
    ///
    /// If it is not noticed.
    pub(crate) fn damage(&mut self, envelope: &Envelope, rng: &mut Rng) {
        let mut frame = self.encode(envelope);
        let at = below(rng, frame.len());
        if rng.below(2) == 0 {
            frame[at] ^= 1 << rng.below(8);
        } else {
            frame.truncate(at);
        }
        let mut reader = FrameReader::new(self.frame_bytes_max);
        reader.push(Bytes::from(frame));
        if let Some(Ok(frame)) = reader.next() {
            let arrived = frame.decode(&mut self.batches);
            assert!(arrived.is_err(), "{envelope:?} was damaged and arrived as {arrived:?}");
        }
    }

    fn encode(&mut self, envelope: &Envelope) -> Vec<u8> {
        self.outgoing.clear();
        wire::encode(envelope, &mut self.outgoing);
        let mut frame = Vec::with_capacity(self.outgoing.len());
        self.outgoing.pieces().for_each(|piece| frame.extend_from_slice(piece));
        frame
    }
}

fn below(rng: &mut Rng, length: usize) -> usize {
    usize::try_from(rng.below(length as u64)).unwrap_or(0)
}
