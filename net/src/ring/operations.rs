//! The unsafe part: the operations that the kernel is at, each with the memory that it uses.
//!
//! ```text
//!   Operation ──▶ in flight ─────────────────────────────────▶ Operation, result
//!      with its       │ entry                   completion ▲       with its
//!      memory         ▼                                    │       memory
//!                 backlog ─▶ submission queue ─▶ kernel ─▶ completion queue
//! ```
//!
//! All memory that the kernel reads or writes is moved in here when an operation starts and comes
//! out with its completion, so no other code can touch or free it in between. Buffers, addresses
//! and headers lie on the heap, so their owners may move.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use rustix::io::Errno;
use rustix::net::SocketAddrAny;

use super::files::FileWrite;
use super::gather::Gather;
use super::{ConnectionId, RingOptions};

/// The longest time that a dropped ring waits for the operations that it has cancelled.
const DROP_MAX: Duration = Duration::from_secs(1);
/// The time of one such wait.
const DROP_WAIT: Duration = Duration::from_millis(20);

/// An operation of the kernel, with the memory that it uses meanwhile.
pub(super) enum Operation {
    /// A new connection of a listener: its socket, once there is one.
    Accept(usize, Option<OwnedFd>),
    Connect(ConnectionId, Box<SocketAddrAny>),
    /// Fills the spare room of the buffer.
    Receive(ConnectionId, BytesMut),
    /// Sends what is left.
    Send(ConnectionId, Box<Gather>),
    /// Writes what is left to a file, and syncs it.
    Write(FileWrite),
    Wait(Timer, Box<Timespec>),
    /// Reads an eventfd; completes once it is written to.
    Alarm(Box<[u8; 8]>),
    Cancel(OperationId),
}

/// The purpose of a wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Timer {
    /// A listener accepts again.
    Accept(usize),
    /// A connection that has not come about is given up.
    Connect(ConnectionId),
}

/// An operation in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OperationId {
    place: u32,
    /// Tells apart the operations that one place has held. Wraps: none outlives 2³² others.
    number: u32,
}

#[derive(Default)]
struct OperationPlace {
    number: u32,
    operation: Option<Operation>,
}

/// All operations of a ring.
pub(super) struct Operations {
    ring: IoUring,
    is_polled: bool,
    in_flight: Vec<OperationPlace>,
    vacant: Vec<u32>,
    /// Entries that the submission queue had no room for, oldest first.
    backlog: VecDeque<squeue::Entry>,
    enters: u64,
}

impl OperationId {
    fn to_user_data(self) -> u64 {
        u64::from(self.number) << 32 | u64::from(self.place)
    }
}

impl Operations {
    pub(super) fn new(options: &RingOptions) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        // Room for what completes at once; what exceeds it the kernel keeps for us.
        builder.dontfork().setup_cqsize(options.entries.saturating_mul(4));
        if options.is_polled {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        }
        let ring = builder.build(options.entries)?;
        Ok(Self {
            ring,
            is_polled: options.is_polled,
            in_flight: Vec::new(),
            vacant: Vec::new(),
            backlog: VecDeque::new(),
            enters: 0,
        })
    }

    /// Asks the kernel which operations it has.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.ring.submitter().register_probe(&mut Probe::new())
    }

    /// Queues an operation, on `socket` if it is on one, or on a file; the kernel hears of it with
    /// the next submit.
    ///
    /// The descriptor must stay open until the operation has come back: else it may go to another
    /// of that number.
    pub(super) fn start(
        &mut self,
        operation: Operation,
        socket: Option<BorrowedFd<'_>>,
    ) -> OperationId {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.in_flight.push(OperationPlace::default());
            u32::try_from(self.in_flight.len() - 1).expect("fewer operations than sockets")
        });
        let held = &mut self.in_flight[place as usize];
        held.number = held.number.wrapping_add(1);
        let id = OperationId { place, number: held.number };
        let operation = held.operation.insert(operation);
        let fd = Fd(socket.map_or(-1, |socket| socket.as_raw_fd()));
        let entry = match operation {
            Operation::Accept(..) => opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build(),
            Operation::Connect(_, address) => {
                opcode::Connect::new(fd, address.as_ptr().cast(), address.addr_len()).build()
            }
            Operation::Receive(_, buffer) => {
                let room = buffer.spare_capacity_mut();
                let bytes = u32::try_from(room.len()).unwrap_or(u32::MAX);
                opcode::Recv::new(fd, room.as_mut_ptr().cast(), bytes).build()
            }
            Operation::Send(_, gather) => {
                // To the last byte, as far as the kernel can: each partial send costs another
                // operation.
                let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
                opcode::SendMsg::new(fd, gather.header()).flags(flags.cast_unsigned()).build()
            }
            Operation::Write(write) => {
                let left = write.left();
                let bytes = u32::try_from(left.len()).expect("a write is far below 4 GiB");
                // Its completion says that the data is durable: there is no sync to be told apart
                // from it.
                opcode::Write::new(fd, left.as_ptr(), bytes)
                    .offset(write.offset_left())
                    .rw_flags(libc::RWF_DSYNC)
                    .build()
            }
            Operation::Wait(_, most) => opcode::Timeout::new(&raw const **most).build(),
            Operation::Alarm(count) => {
                let bytes = u32::try_from(count.len()).unwrap_or(0);
                opcode::Read::new(fd, count.as_mut_ptr(), bytes).build()
            }
            Operation::Cancel(other) => opcode::AsyncCancel::new(other.to_user_data()).build(),
        };
        self.push(entry.user_data(id.to_user_data()));
        id
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.backlog.push_back(entry);
        self.fill();
        if !self.backlog.is_empty() {
            // A failure leaves it where it is, and comes again with the next submit, which tells.
            drop(self.submit());
        }
    }

    /// Moves entries of the backlog to the submission queue while there is room.
    fn fill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the entry was built by `start` of memory that stays in `in_flight`,
            // untouched, until its completion has been taken; `drop` leaks what has not come back
            // by then.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Hands everything queued to the kernel, and lets it post what it holds back, if there is
    /// either.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. That it has no room just now is none: what is queued goes next time.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        let mut is_held_back = self.is_held_back();
        loop {
            self.fill();
            let queued = self.ring.submission().len();
            if queued == 0 && !is_held_back {
                return Ok(());
            }
            self.enters += 1;
            match self.ring.submit() {
                Ok(0) if queued > 0 => return Ok(()),
                Ok(_) => is_held_back = false,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(Errno::AGAIN | Errno::BUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Whether the kernel has completions that it posts only when we enter: tasks to run for us, or
    /// more than the queue had room for.
    pub(super) fn is_held_back(&mut self) -> bool {
        let queue = self.ring.submission();
        queue.cq_overflow() || self.is_polled && queue.taskrun()
    }

    /// Whether something is there to be taken, or waits to be submitted.
    pub(super) fn has_work(&mut self) -> bool {
        !self.ring.completion().is_empty()
            || !self.backlog.is_empty()
            || !self.ring.submission().is_empty()
            || self.is_held_back()
    }

    /// Takes the next operation that has completed, with what came of it.
    pub(super) fn next(&mut self) -> Option<(Operation, Result<usize, Errno>)> {
        let completion = self.ring.completion().next()?;
        let place = completion.user_data() & u64::from(u32::MAX);
        let place = u32::try_from(place).expect("it was just cut to that");
        let held = &mut self.in_flight[place as usize];
        let id = OperationId { place, number: held.number };
        assert_eq!(id.to_user_data(), completion.user_data(), "a completion of nothing in flight");
        let mut operation = held.operation.take().expect("each operation completes once");
        self.vacant.push(place);
        let result = usize::try_from(completion.result())
            .map_err(|_| Errno::from_raw_os_error(-completion.result()));
        if let (Operation::Accept(_, socket), Ok(_)) = (&mut operation, result) {
            // SAFETY: the kernel has just made this descriptor for us, and nothing else owns it.
            *socket = Some(unsafe { OwnedFd::from_raw_fd(completion.result()) });
        }
        if let (Operation::Receive(_, buffer), Ok(bytes)) = (&mut operation, result) {
            let end = buffer.len() + bytes;
            assert!(end <= buffer.capacity(), "more was received than there was room for");
            // SAFETY: that it is within the capacity was just asserted, and the kernel has written
            // `bytes` bytes from the length on.
            unsafe { buffer.set_len(end) };
        }
        Some((operation, result))
    }

    /// Hands everything queued to the kernel and sleeps until something completes, or `most` has
    /// passed.
    pub(super) fn sleep(&mut self, most: Duration) -> io::Result<()> {
        self.fill();
        self.enters += 1;
        let most = Timespec::from(most);
        let args = SubmitArgs::new().timespec(&most);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => Ok(()),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::TIME | Errno::INTR | Errno::AGAIN | Errno::BUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Returns the number of system calls that entered the ring.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    fn is_idle(&self) -> bool {
        self.vacant.len() == self.in_flight.len()
    }
}

impl Drop for Operations {
    /// Cancels everything and waits until the kernel is done with our memory; if it is not done in
    /// time, the memory is leaked rather than freed under it.
    fn drop(&mut self) {
        let others =
            self.in_flight.iter().zip(0_u32..).filter(|(held, _)| held.operation.is_some());
        let others: Vec<_> =
            others.map(|(held, place)| OperationId { place, number: held.number }).collect();
        for other in others {
            self.start(Operation::Cancel(other), None);
        }
        let deadline = Instant::now() + DROP_MAX;
        let wait = Timespec::from(DROP_WAIT);
        while !self.is_idle() && Instant::now() < deadline {
            self.fill();
            // An error, too, only means that we look again.
            let args = SubmitArgs::new().timespec(&wait);
            drop(self.ring.submitter().submit_with_args(1, &args));
            while self.next().is_some() {}
        }
        if !self.is_idle() {
            mem::forget(mem::take(&mut self.in_flight));
        }
    }
}
