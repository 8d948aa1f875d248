//! The status of a node, asked from outside.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use loggos_net::Outgoing;
use loggos_net::wire::{self, BatchPool, FrameReader, Hello, Message, Purpose};
use loggos_protocol::LoggedCommand;

use super::FRAME_BYTES_MAX;
use crate::random::random_u64;

/// Asks the node at `address` how its roles stand; returns its answer, in JSON.
///
/// # Errors
///
/// If it cannot be reached, does not answer within `timeout`, or refuses us: the text is its
/// reason.
pub fn remote_status(address: SocketAddr, timeout: Duration) -> io::Result<Vec<u8>> {
    ask(address, timeout, |_| ())
}

/// Tells the node at `address` that an operator wants `command` skipped, at which every replica has
/// halted. The leader sees to it, if every replica has, and if the log does not show that the
/// command was executed before: the status of the replicas tells whether it was skipped. What is
/// told twice is done once.
///
/// # Errors
///
/// As [`remote_status`].
pub fn remote_skip(
    address: SocketAddr,
    command: LoggedCommand,
    timeout: Duration,
) -> io::Result<()> {
    // The answer to what is asked behind it shows that it has arrived.
    ask(address, timeout, |outgoing| wire::encode_skip(command, outgoing)).map(|_| ())
}

/// Says something to the node at `address`, and asks it for its status.
fn ask(
    address: SocketAddr,
    timeout: Duration,
    say: impl FnOnce(&mut Outgoing),
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let mut outgoing = Outgoing::default();
    wire::encode_hello(
        &Hello::of_client(String::new(), Purpose::Status, random_u64()),
        &mut outgoing,
    );
    say(&mut outgoing);
    wire::encode_status_request(&mut outgoing);
    for piece in outgoing.pieces() {
        stream.write_all(piece)?;
    }
    let mut reader = FrameReader::new(FRAME_BYTES_MAX);
    loop {
        while let Some(frame) = reader.next() {
            let message = frame.and_then(|frame| frame.decode(&mut BatchPool::new(1)));
            match message.map_err(io::Error::other)? {
                Message::Welcome(_) => {}
                Message::Status(status) => return Ok(status.as_slice().to_vec()),
                Message::Refusal(refusal) => return Err(io::Error::other(refusal.text)),
                Message::Envelope(_)
                | Message::Hello(_)
                | Message::Log(_)
                | Message::Session { .. }
                | Message::Commands(_)
                | Message::Reads(_)
                | Message::Replies(_)
                | Message::Failed { .. }
                | Message::StatusRequest
                | Message::Skip(_) => {
                    return Err(io::Error::other("unexpected message"));
                }
            }
        }
        let mut piece = vec![0; 64 << 10];
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => piece.truncate(count),
            // A read with a timeout is not begun again by the kernel.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        reader.push(piece.into());
    }
}
