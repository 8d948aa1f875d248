//! What strangers send, up to the messages that it says.
//!
//! A checksum is more than a fuzzer guesses, so both targets also put right those of what they are
//! given: then what they guard is looked at too.

use bytes::Bytes;
use loggos_net::wire::{HEAD_BYTES, Kind, Message, WIRE_VERSION, WireError};

use crate::samples::{craft, frame, parts, read, seal};

/// Payloads of one frame whose checksums are put right.
const MENDED_MAX: usize = 8;

/// A stream: four sizes of pieces, taken in turn (0 is all that is left), then what arrives in
/// them.
pub fn frames(data: &[u8]) {
    let Some((sizes, stream)) = data.split_first_chunk::<4>() else { return };
    arrive(sizes, stream);
    let mended = mended_stream(stream);
    if mended != stream {
        arrive(sizes, &mended);
    }
}

/// A frame: version, kind, length of its header in two bytes, then header and payloads.
pub fn headers(data: &[u8]) {
    let Some(([version, kind, h0, h1], rest)) = data.split_first_chunk::<4>() else { return };
    let kind =
        Kind::from_number(*kind).unwrap_or_else(|| Kind::ALL[usize::from(*kind) % Kind::ALL.len()]);
    let header_bytes = usize::from(u16::from_le_bytes([*h0, *h1])).min(rest.len());
    let (header, payloads) = rest.split_at(header_bytes);
    let as_it_is = craft(*version, kind.number(), header, payloads);
    check(&as_it_is);
    let mut mended = as_it_is.clone();
    mend(&mut mended);
    if mended != as_it_is {
        check(&mended);
    }
}

/// The input of [`headers`] that is this frame.
pub fn header_input(frame: &[u8]) -> Vec<u8> {
    let (kind, header, payloads) = parts(frame);
    let header_bytes = u16::try_from(header.len()).expect("a short header");
    [&[frame[8], kind][..], &header_bytes.to_le_bytes(), header, payloads].concat()
}

/// However a stream is cut, it says the same, and that reads back as itself.
fn arrive(sizes: &[u8], stream: &[u8]) {
    let stream = Bytes::copy_from_slice(stream);
    let said = read([stream.clone()]);
    let mut rest = stream;
    let pieces = sizes.iter().cycle().map_while(|size| match usize::from(*size) {
        _ if rest.is_empty() => None,
        0 => Some(std::mem::take(&mut rest)),
        size => Some(rest.split_to(size.min(rest.len()))),
    });
    assert_eq!(read(pieces), said, "in pieces of {sizes:?}");
    let messages = said.iter().filter_map(|said| said.as_ref().ok());
    let again = read([Bytes::from_iter(messages.clone().flat_map(frame))]);
    assert!(again.iter().flatten().eq(messages), "{said:?} came back as {again:?}");
    said.iter().filter_map(|said| said.as_ref().err()).for_each(told);
}

/// What is accepted is what a correct sender could have sent.
fn check(bytes: &[u8]) {
    match only(bytes) {
        // A refusal is the same in every version, and goes out in ours.
        Some(Ok(said)) if bytes[8] != WIRE_VERSION => {
            assert_eq!(only(&frame(&said)), Some(Ok(said)), "of another version");
        }
        Some(Ok(said)) => assert_eq!(frame(&said), bytes, "{said:?}"),
        Some(Err(error)) => told(&error),
        None => panic!("nothing was said of a whole frame"),
    }
}

fn told(error: &WireError) {
    assert!(!error.to_string().is_empty(), "{error:?}");
}

/// What one frame says; none if it is no whole one.
fn only(bytes: &[u8]) -> Option<Result<Message, WireError>> {
    read([Bytes::copy_from_slice(bytes)]).pop()
}

/// `stream` with all checksums right, up to where it is unknown where the next frame begins.
fn mended_stream(stream: &[u8]) -> Vec<u8> {
    let mut mended = stream.to_vec();
    let mut rest = &mut mended[..];
    while let Some(head) = rest.first_chunk::<HEAD_BYTES>() {
        let [length, header_bytes] = [4, 12]
            .map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        let (length, header_end) = (length as usize, HEAD_BYTES + header_bytes as usize);
        if length < header_end || length > rest.len() {
            break;
        }
        let (frame, behind) = rest.split_at_mut(length);
        mend(frame);
        rest = behind;
    }
    mended
}

/// Puts the checksums of a whole frame right.
fn mend(frame: &mut [u8]) {
    for _ in 0..MENDED_MAX {
        seal(frame);
        let Some(Err(WireError::PayloadChecksum { said, is })) = only(frame) else { break };
        if !mend_payload(frame, said, is) {
            break;
        }
    }
}

/// Replaces the checksum `said` in a frame's header by what it `is`; returns whether it was found.
/// Where a header has the same bytes more than once it is the last that makes a difference:
/// checksums come last in their layouts.
fn mend_payload(frame: &mut [u8], said: u32, is: u32) -> bool {
    let header_end = HEAD_BYTES + parts(frame).1.len();
    let refused = Some(Err(WireError::PayloadChecksum { said, is }));
    for at in (HEAD_BYTES..header_end.saturating_sub(3)).rev() {
        let place = at..at + 4;
        if frame[place.clone()] == said.to_le_bytes() {
            frame[place.clone()].copy_from_slice(&is.to_le_bytes());
            seal(frame);
            if only(frame) != refused {
                return true;
            }
            frame[place].copy_from_slice(&said.to_le_bytes());
        }
    }
    false
}
