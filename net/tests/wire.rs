//! Frames: every message comes back as it was, and nothing else does.

mod samples;

use bytes::Bytes;
use loggos_net::Outgoing;
use loggos_net::wire::{
    self, BatchPool, FrameReader, HEAD_BYTES, Hello, Kind, Message, Purpose, Reason, Refusal,
    WIRE_VERSION, WireError,
};
use loggos_protocol::{Envelope, ProxyLeaderId, ReplicaId, Rng, To, ToProxyLeader, ToReplica};
use samples::{FRAME_BYTES_MAX, LONG, craft, frame, messages, parts, read};

fn only(said: Vec<Result<Message, WireError>>) -> Result<Message, WireError> {
    let [only] = <[_; 1]>::try_from(said).expect("one frame");
    only
}

fn read_one(bytes: Vec<u8>) -> Result<Message, WireError> {
    only(read([Bytes::from(bytes)]))
}

#[test]
fn every_kind_of_message_has_a_sample_and_its_own_number() {
    let mut missing: Vec<_> = Kind::ALL.to_vec();
    for message in messages() {
        let bytes = frame(&message);
        let kind = Kind::from_number(bytes[9]).unwrap();
        if let Message::Envelope(envelope) = &message {
            assert_eq!(kind, samples::kind(&envelope.to), "{message:?}");
        }
        missing.retain(|k| *k != kind);
    }
    assert_eq!(missing, [], "kinds without a sample");
    let unknown = (0..=u8::MAX).filter(|number| Kind::from_number(*number).is_none());
    assert_eq!(unknown.count() + Kind::ALL.len(), 256, "two kinds of one number");
}

#[test]
fn every_message_comes_back_as_it_was_and_goes_out_again_as_it_came() {
    for message in messages() {
        let bytes = frame(&message);
        let back = read_one(bytes.clone()).unwrap();
        assert_eq!(back, message);
        assert_eq!(frame(&back), bytes, "{message:?}");
    }
}

#[test]
fn a_stream_of_all_messages_may_arrive_byte_by_byte() {
    let messages = messages();
    let stream: Vec<u8> = messages.iter().flat_map(frame).collect();
    let pieces = stream.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
    let said: Result<Vec<_>, _> = read(pieces).into_iter().collect();
    assert_eq!(said.unwrap(), messages);
}

#[test]
fn a_stream_may_be_split_anywhere_and_only_what_straddles_is_copied() {
    let messages = messages();
    for pair in messages.windows(2) {
        let [first, second] = [&pair[0], &pair[1]].map(frame);
        let stream = Bytes::from([&first[..], &second].concat());
        for split in 0..=stream.len() {
            let mut reader = FrameReader::new(FRAME_BYTES_MAX);
            let mut batches = BatchPool::new(8);
            let mut said = Vec::new();
            for piece in [stream.slice(..split), stream.slice(split..)] {
                reader.push(piece);
                while let Some(frame) = reader.next() {
                    said.push(frame.unwrap().decode(&mut batches).unwrap());
                }
            }
            assert_eq!(said, pair, "split at {split}");
            let straddling = match split {
                s if s == 0 || s == first.len() || s == stream.len() => 0,
                s if s < first.len() => first.len(),
                _ => second.len(),
            };
            assert_eq!(reader.copied_bytes(), straddling as u64, "split at {split}");
        }
    }
}

#[test]
fn pieces_may_come_faster_than_frames_are_taken() {
    let messages = messages();
    let stream: Bytes = messages.iter().flat_map(frame).collect();
    for size in [1, 7, 100, 1000] {
        let mut reader = FrameReader::new(FRAME_BYTES_MAX);
        (0..stream.len()).step_by(size).for_each(|at| {
            reader.push(stream.slice(at..stream.len().min(at + size)));
        });
        let mut batches = BatchPool::new(8);
        let frames = std::iter::from_fn(|| reader.next());
        let said: Vec<_> = frames.map(|f| f.unwrap().decode(&mut batches).unwrap()).collect();
        assert_eq!(said, messages);
    }
}

#[test]
fn no_byte_changes_unnoticed() {
    for message in messages() {
        let bytes = frame(&message);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xFF] {
                let mut broken = bytes.clone();
                broken[at] ^= flip;
                let said = read_one(broken);
                assert!(said.is_err(), "byte {at} of {message:?} became {said:?}");
            }
        }
    }
}

#[test]
fn a_stream_that_ends_within_a_frame_yields_none() {
    for message in messages() {
        let bytes = frame(&message);
        for end in 0..bytes.len() {
            assert_eq!(read([Bytes::copy_from_slice(&bytes[..end])]), [], "{end} of {message:?}");
        }
    }
}

/// Frames that are whole, with a right head, and yet cut short or drawn out inside.
#[test]
fn headers_and_payloads_that_do_not_add_up_are_refused() {
    for message in messages() {
        let bytes = frame(&message);
        let (kind, header, payloads) = parts(&bytes);
        for end in 0..header.len() {
            let cut = craft(WIRE_VERSION, kind, &header[..end], payloads);
            assert!(read_one(cut).is_err(), "a header of {end} bytes of {message:?}");
            let moved = craft(WIRE_VERSION, kind, &header[..end], &bytes[HEAD_BYTES + end..]);
            assert!(read_one(moved).is_err(), "a header that ends {end} bytes in, of {message:?}");
        }
        for end in 0..payloads.len() {
            let cut = read_one(craft(WIRE_VERSION, kind, header, &payloads[..end]));
            assert!(matches!(
                cut,
                Err(WireError::Payloads { .. } | WireError::PayloadChecksum { .. })
            ));
        }
        let drawn_out = craft(WIRE_VERSION, kind, header, &[payloads, &[0]].concat());
        assert_eq!(read_one(drawn_out), Err(WireError::Payloads { wanted: 0, there: 1 }));
        let drawn_out = craft(WIRE_VERSION, kind, &[header, &[0]].concat(), payloads);
        let said = read_one(drawn_out);
        assert!(matches!(said, Err(WireError::HeaderLength { .. })), "{said:?} of {message:?}");
    }
}

#[test]
fn a_frame_that_is_too_long_is_refused_from_its_head_alone() {
    let max = 100;
    for (length, said) in [(100, None), (101, Some(101)), (u32::MAX, Some(u32::MAX))] {
        let mut head = [0; HEAD_BYTES];
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..10].copy_from_slice(&[WIRE_VERSION, Kind::StatusRequest.number()]);
        head[12..16].copy_from_slice(&84_u32.to_le_bytes());
        let mut reader = FrameReader::new(max);
        reader.push(Bytes::copy_from_slice(&head));
        let error = reader.next().map(|frame| frame.unwrap_err());
        assert_eq!(error, said.map(|length| WireError::TooLong { length, max }));
    }
}

#[test]
fn a_frame_shorter_than_its_header_is_refused() {
    let mut bytes = frame(&Message::StatusRequest);
    for (length, header_bytes) in [(0_u32, 0_u32), (15, 0), (16, 1), (100, u32::MAX)] {
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[12..16].copy_from_slice(&header_bytes.to_le_bytes());
        assert_eq!(read_one(bytes.clone()), Err(WireError::TooShort { length, header_bytes }));
    }
}

#[test]
fn other_versions_and_unknown_kinds_are_refused() {
    for message in messages() {
        let bytes = frame(&message);
        let (kind, header, payloads) = parts(&bytes);
        for version in [0, WIRE_VERSION + 1, u8::MAX] {
            let said = read_one(craft(version, kind, header, payloads));
            match &message {
                Message::Hello(_) => assert_eq!(said, Err(WireError::Versions { min: 1, max: 1 })),
                Message::Refusal(_) => assert_eq!(said, Ok(message.clone()), "in every version"),
                Message::Envelope(_)
                | Message::Welcome(_)
                | Message::Log(_)
                | Message::Session { .. }
                | Message::Commands(_)
                | Message::Reads(_)
                | Message::Replies(_)
                | Message::Failed { .. }
                | Message::StatusRequest
                | Message::Skip(_)
                | Message::Status(_) => assert_eq!(said, Err(WireError::Version { version })),
            }
        }
    }
    for kind in (0..=u8::MAX).filter(|number| Kind::from_number(*number).is_none()) {
        let said = read_one(craft(WIRE_VERSION, kind, &[], &[]));
        assert_eq!(said, Err(WireError::Kind { kind }));
    }
}

#[test]
fn what_is_spare_in_a_head_must_be_zero() {
    let mut bytes = frame(&Message::StatusRequest);
    bytes[11] = 1;
    samples::seal(&mut bytes);
    assert_eq!(read_one(bytes), Err(WireError::Spare { spare: 0x100 }));
}

#[test]
fn after_a_broken_frame_there_is_nothing_more() {
    let good = Bytes::from(frame(&Message::StatusRequest));
    let mut bad = good.to_vec();
    bad[9] = 0xFF;
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    reader.push(Bytes::from(bad));
    reader.push(good.clone());
    assert_eq!(reader.next().unwrap().unwrap_err(), WireError::Kind { kind: 0xFF });
    reader.push(good);
    assert!(reader.next().is_none());
}

/// A Hello of a later version, of which this one knows no more than how it begins.
#[test]
fn whoever_speaks_later_versions_only_is_recognised() {
    let mut greeting = b"LOGGOS".to_vec();
    greeting.extend([2, 5]);
    greeting.extend(7_u64.to_le_bytes());
    greeting.extend(b"whatever comes later");
    let said = read_one(craft(2, Kind::Hello.number(), &greeting, b"and payloads"));
    assert_eq!(said, Err(WireError::Versions { min: 2, max: 5 }));
}

#[test]
fn whoever_lays_headers_out_otherwise_is_recognised() {
    let other = wire::wire_digest() + 1;
    let hello = Hello { wire_digest: other, ..samples::hello(Purpose::Client) };
    let bytes = frame(&Message::Hello(hello.clone()));
    assert_eq!(read_one(bytes.clone()), Ok(Message::Hello(hello)), "it can still be read");
    let (kind, header, _) = parts(&bytes);
    let shorter = craft(WIRE_VERSION, kind, &header[..header.len() - 1], &[]);
    assert_eq!(read_one(shorter), Err(WireError::WireDigest { digest: other }));
}

#[test]
fn whoever_is_none_of_us_is_recognised() {
    let bytes = frame(&Message::Hello(samples::hello(Purpose::Client)));
    let (kind, header, _) = parts(&bytes);
    let mut header = header.to_vec();
    header[0] = b'l';
    let said = read_one(craft(WIRE_VERSION, kind, &header, &[]));
    assert_eq!(said, Err(WireError::Magic));
    let http = b"GET / HTTP/1.1\r\nHost: loggos\r\n\r\n".to_vec();
    assert!(matches!(read_one(http), Err(WireError::TooLong { .. })));
}

#[test]
fn a_long_explanation_is_cut_between_characters() {
    let text = "å".repeat(200);
    let refusal = Refusal { reason: Reason::Digest, text: format!("x{text}") };
    let said = read_one(frame(&Message::Refusal(refusal)));
    let cut = Refusal { reason: Reason::Digest, text: format!("x{}", "å".repeat(127)) };
    assert_eq!(said, Ok(Message::Refusal(cut)));
}

#[test]
fn random_bytes_are_refused_or_waited_for_and_never_panic() {
    let mut rng = Rng::new(1);
    for _ in 0..20_000 {
        let length = rng.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
        if let Some(head) = bytes.first_chunk_mut::<HEAD_BYTES>().filter(|_| rng.below(2) == 0) {
            head[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
            head[8] = WIRE_VERSION;
        }
        let said = read([Bytes::from(bytes)]);
        assert!(said.iter().all(Result::is_err), "{said:?}");
    }
}

/// Headers changed at random, under a right checksum: what is accepted is what somebody could have
/// sent.
#[test]
fn mutated_frames_are_refused_or_are_frames_that_would_be_sent_so() {
    let mut rng = Rng::new(2);
    let mut accepted = 0;
    let messages = messages();
    for round in 0..200 {
        for message in &messages {
            let bytes = frame(message);
            let (mut kind, header, payloads) = parts(&bytes);
            let (mut header, mut payloads) = (header.to_vec(), payloads.to_vec());
            for _ in 0..=rng.below(3) {
                mutate(if rng.below(4) == 0 { &mut payloads } else { &mut header }, &mut rng);
            }
            if round % 8 == 0 {
                let any = usize::try_from(rng.below(Kind::ALL.len() as u64)).unwrap();
                kind = Kind::ALL[any].number();
            }
            let mutant = craft(WIRE_VERSION, kind, &header, &payloads);
            if let Ok(said) = read_one(mutant.clone()) {
                assert_eq!(frame(&said), mutant, "{said:?}");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 1000, "only {accepted} mutants were frames");
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = usize::try_from(rng.below(bytes.len() as u64 + 1)).expect("it was one");
    let random = rng.next_u64().to_le_bytes()[0];
    match rng.below(6) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, random),
        2 if at < bytes.len() => bytes[at] ^= 1 << (random % 8),
        _ if at < bytes.len() => bytes[at] = random,
        _ => (),
    }
}

#[test]
fn long_payloads_are_passed_on_without_a_copy() {
    let stream: Bytes =
        samples::envelopes().into_iter().map(Message::Envelope).flat_map(|m| frame(&m)).collect();
    let range = stream.as_ptr_range();
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    reader.push(stream);
    let mut batches = BatchPool::new(8);
    let mut out = Outgoing::default();
    let mut long = 0;
    while let Some(frame) = reader.next() {
        let message = frame.unwrap().decode(&mut batches).unwrap();
        let Message::Envelope(envelope) = &message else { panic!("{message:?}") };
        out.clear();
        wire::encode(envelope, &mut out);
        let here = out.pieces().filter(|piece| range.contains(&piece.as_ptr()));
        let here: Vec<_> = here.map(<[u8]>::len).collect();
        assert!(here.iter().all(|bytes| *bytes == LONG), "{here:?}");
        long += here.len();
    }
    // Results, P1b, Propose, Chosen, Fetched, Replayed, FetchedPart, Read, ReadResults and two P2a.
    assert_eq!((long, reader.copied_bytes()), (11, 0));
}

/// Proxy leader's work: a P2a comes in and goes out to two acceptors, and the batch is freed a
/// window later.
#[test]
fn a_pool_stops_allocating_once_it_has_as_many_batches_as_are_held() {
    let held_max = 20;
    let stream = Bytes::from(frame(&Message::Envelope(Envelope {
        formation: None,
        to: To::ProxyLeader(ProxyLeaderId(0), ToProxyLeader::P2a(samples::p2a(LONG))),
    })));
    let mut batches = BatchPool::new(64);
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    let mut held = std::collections::VecDeque::new();
    for slot in 0..10_000_u64 {
        reader.push(stream.clone());
        held.push_back(reader.next().unwrap().unwrap().decode(&mut batches).unwrap());
        if held.len() == held_max {
            held.pop_front();
        }
        if slot == 100 {
            assert_eq!(batches.allocated(), held_max as u64);
        }
    }
    assert_eq!(batches.allocated(), held_max as u64);
}

#[test]
fn every_error_says_what_is_wrong() {
    let errors = [
        (WireError::TooLong { length: 9, max: 8 }, "a frame of 9 bytes, where 8 are the most"),
        (WireError::Version { version: 3 }, "a frame of version 3"),
        (WireError::Kind { kind: 255 }, "a frame of the unknown kind 0xff"),
        (WireError::Discriminant { of: "stage", value: 9 }, "9 is no stage"),
    ];
    for (error, text) in errors {
        assert_eq!(error.to_string(), text);
    }
}

/// The bytes of one frame, spelled out: whoever changes the format changes this.
#[test]
fn a_frame_has_these_bytes() {
    let to = To::Replica(
        ReplicaId(2),
        ToReplica::Fetch(loggos_protocol::Fetch {
            replica: ReplicaId(1),
            first: loggos_protocol::Slot(0x0102_0304_0506_0708),
        }),
    );
    let formation = Some(loggos_protocol::FormationId(0xA0));
    let bytes = frame(&Message::Envelope(Envelope { formation, to }));
    let behind_checksum = [
        35, 0, 0, 0, // length
        1, 0x54, 0, 0, // version, kind, spare
        19, 0, 0, 0, // header
        1, 0xA0, 0, 0, 0, 0, 0, 0, 0, 2, // route
        1, 8, 7, 6, 5, 4, 3, 2, 1, // replica, first
    ];
    assert_eq!(bytes[4..], behind_checksum);
    assert_eq!(bytes[..4], crc_fast::crc32_iscsi(&behind_checksum).to_le_bytes());
}
