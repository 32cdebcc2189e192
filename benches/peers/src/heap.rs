//! How much memory is allocated.

#![expect(unsafe_code, reason = "the C library's account has no safe wrapper")]

/// Bytes that are allocated in this process at this moment, with the allocator's own headers.
pub fn allocated_bytes() -> u64 {
    // SAFETY: needed because no crate wraps it; it takes no arguments, and the C library locks its arenas while
    // it adds them up.
    let info = unsafe { libc::mallinfo2() };
    (info.uordblks + info.hblkhd) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted() {
        const BYTES: usize = 8 << 20;
        let before = allocated_bytes();
        let held = std::hint::black_box(vec![1_u8; BYTES]);
        let with = allocated_bytes();
        assert!(with >= before + BYTES as u64, "{before} {with}");
        drop(held);
        assert!(allocated_bytes() < before + BYTES as u64);
    }
}
