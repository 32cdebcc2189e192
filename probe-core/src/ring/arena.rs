//! The receive buffers of all slots: one allocation at start, whose pages the kernel gives on first use.

#![expect(unsafe_code, reason = "the kernel writes into these bytes while safe code reads others of them")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::model::limits::SLOT_BUFFER_BYTES;

/// Behind the last slot: where the wake-up read puts its eight bytes.
const WAKE_BYTES: usize = 8;
const ALIGNMENT_BYTES: usize = 4096;

/// Zeroed memory that is only reached through raw pointers and short slices, so that no Rust reference
/// covers bytes that the kernel may write.
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the arena owns its memory, hands out slices only under `&self`, and has no interior pointers.
unsafe impl Send for Arena {}

impl Arena {
    pub fn new(slots: u32) -> Arena {
        let size = slots as usize * SLOT_BUFFER_BYTES + WAKE_BYTES;
        let layout = Layout::from_size_align(size, ALIGNMENT_BYTES).expect("slots are limited at start");
        // SAFETY: needed for memory that no reference covers; the layout has a size greater than zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Arena { base, layout }
    }

    /// Start of the free part of a slot's buffer, for the kernel to write to, and its length in bytes.
    pub fn free_part(&self, slot: usize, filled: usize) -> (*mut u8, u32) {
        assert!(filled < SLOT_BUFFER_BYTES, "the buffer of slot {slot} is full");
        (self.pointer(slot, filled), (SLOT_BUFFER_BYTES - filled) as u32)
    }

    /// The first `filled` bytes of a slot's buffer.
    pub fn filled_part(&self, slot: usize, filled: usize) -> &[u8] {
        assert!(filled <= SLOT_BUFFER_BYTES);
        // SAFETY: needed to read what the kernel wrote. The range is inside the allocation (`pointer` checks
        // the slot) and initialised; the kernel only writes behind `filled`, see `free_part`.
        unsafe { std::slice::from_raw_parts(self.pointer(slot, 0), filled) }
    }

    /// Moves the bytes from `count` to `filled` to the front. Only while no receive is in flight.
    pub fn shift(&mut self, slot: usize, count: usize, filled: usize) {
        assert!(count <= filled && filled <= SLOT_BUFFER_BYTES);
        // SAFETY: needed to move inside memory without references. Both ranges are inside the slot's buffer;
        // `copy` allows them to overlap; the caller has checked that the kernel does not write.
        unsafe { std::ptr::copy(self.pointer(slot, count), self.pointer(slot, 0), filled - count) }
    }

    /// Where the wake-up read puts its eight bytes.
    pub fn wake_bytes(&self) -> (*mut u8, u32) {
        // SAFETY: needed to name the last bytes of the allocation, which `new` reserved for this.
        let start = unsafe { self.base.as_ptr().add(self.layout.size() - WAKE_BYTES) };
        (start, WAKE_BYTES as u32)
    }

    fn pointer(&self, slot: usize, offset: usize) -> *mut u8 {
        let at = slot * SLOT_BUFFER_BYTES + offset;
        assert!(at < self.layout.size() - WAKE_BYTES, "slot {slot} is outside the arena");
        // SAFETY: needed for pointers into the allocation; the assertion keeps the sum inside it.
        unsafe { self.base.as_ptr().add(at) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: needed to free what `new` allocated with this very layout; the owner (`Uring`) drops the
        // arena only when the kernel has completed every operation on it.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_do_not_overlap_and_shift_keeps_the_rest() {
        let mut arena = Arena::new(2);
        for slot in 0..2 {
            let (start, len) = arena.free_part(slot, 0);
            assert_eq!(len as usize, SLOT_BUFFER_BYTES);
            // SAFETY: the kernel's part, played by the test: eight bytes of the slot's own buffer.
            unsafe { std::ptr::copy_nonoverlapping([slot as u8; 8].as_ptr(), start, 8) };
        }
        assert_eq!(arena.filled_part(0, 8), [0; 8]);
        assert_eq!(arena.filled_part(1, 8), [1; 8]);
        arena.shift(1, 6, 8);
        assert_eq!(arena.filled_part(1, 2), [1; 2]);
    }
}
