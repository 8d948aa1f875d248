//! Two things that safe Rust has no word for: asking for memory before it is needed, and for large
//! pages under it. Both are advice: what the program computes is the same with and without.

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};

/// The size of a huge page, on x86-64 and with 4 KiB pages on AArch64.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Starts to load the cache line that `target` begins in. Does nothing where the processor's way to
/// say so is not known here.
#[inline]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "prefetching is an intrinsic"))]
pub(crate) fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing the program can see and faults on no address; the SSE it
        // belongs to is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// Asks the system to put what lies in `memory` on huge pages, as far as it fills whole ones. To be
/// called before the memory is written to: pages that are there stay as they are.
///
/// A random access to a large table costs the translation of its address, too: with pages of 4 KiB
/// that is another miss of the cache, and on a virtual machine several. Where the system has no
/// huge pages, or is configured not to give any, nothing changes.
#[expect(unsafe_code, reason = "the system call takes an address")]
pub(crate) fn on_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    let addresses = memory.as_mut_ptr_range();
    let start = addresses.start.addr().next_multiple_of(HUGE_PAGE_BYTES);
    let end = addresses.end.addr() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
    if start >= end {
        return;
    }
    let at = addresses.start.with_addr(start).cast();
    // An error says that the kernel has none.
    // SAFETY: the range is inside `memory`, which is borrowed for the call; this advice changes
    // neither what is in it nor what may be done with it.
    _ = unsafe { madvise(at, end - start, Advice::LinuxHugepage) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_length_can_be_advised() {
        for bytes in [0, 1, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 5] {
            let mut memory: Vec<u8> = Vec::with_capacity(bytes);
            on_huge_pages(memory.spare_capacity_mut());
            memory.resize(bytes, 7);
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }
}
