//! The options of a ring, and the errors of a kernel that refuses it.

use std::io;

use rustix::io::Errno;

/// The options of a ring.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RingOptions {
    /// Operations that one system call submits; more take more calls. 1 to 32,768.
    pub entries: u32,
    /// The size of a receive buffer, and so the most that one receive brings. Working sets of more
    /// than some 64 KiB a connection fall out of the cache.
    pub receive_bytes: usize,
    /// Whether the core polls: the kernel then does its part of an operation only while we are in a
    /// system call, rather than interrupt us. It sleeps all the same. Needs Linux 6.1.
    pub is_polled: bool,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { entries: 256, receive_bytes: 64 * 1024, is_polled: true }
    }
}

/// Returns the error of a kernel that refuses a ring: its text says what to set.
pub(super) fn refusal(error: &io::Error, options: &RingOptions) -> io::Error {
    let advice = match Errno::from_io_error(error) {
        Some(Errno::PERM | Errno::ACCESS) => {
            "io_uring is switched off here: set /proc/sys/kernel/io_uring_disabled to 0, and see that no \
             container profile (seccomp) forbids io_uring_setup or io_uring_register"
        }
        Some(Errno::NOSYS) => {
            "there is no io_uring: it needs Linux 5.11 or newer, and a container profile (seccomp) that \
             allows io_uring_setup and io_uring_register"
        }
        Some(Errno::NOMEM) => {
            "there is not enough lockable memory: raise it with `ulimit -l`, or LimitMEMLOCK= of a systemd \
             unit"
        }
        Some(Errno::MFILE | Errno::NFILE) => {
            "there is no file descriptor left: raise the limit with `ulimit -n`, or LimitNOFILE= of a \
             systemd unit"
        }
        Some(Errno::INVAL) if options.is_polled => {
            "entries are 1 to 32768, and a ring that is polled needs Linux 6.1 or newer"
        }
        _ => "entries are 1 to 32768, and Linux is 5.11 or newer",
    };
    io::Error::new(error.kind(), format!("cannot make an io_uring: {error}: {advice}"))
}
