//! The one thing that safe Rust has no word for: asking for memory before it is needed.

/// Starts to load the cache line that `target` begins in. Does nothing where the processor's way to
/// say so is not known here; what the program computes is the same with and without.
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
