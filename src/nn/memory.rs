//! Large blocks of memory, used again and again.
//!
//! Every step of a run needs the same large tensors as the step before. A general allocator gives such blocks back to
//! the system, which clears their pages anew each time: that took longer than the matrix products. [`Reusing`] keeps
//! them, on huge pages where the system has some, and never more than the program has needed at its peak.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// Blocks from this size on are kept.
const LEAST: usize = 1 << 20;
/// Of huge pages.
const HUGE: usize = 2 << 20;
/// What may be kept beyond the peak.
const SLACK: usize = 256 << 20;
/// Sizes are rounded up to one of eight in each power of two.
const CLASSES: usize = 8 * 40;

/// An allocator that keeps large blocks of `A`.
pub struct Reusing<A> {
    inner: A,
    kept: Mutex<Kept>,
}

struct Kept {
    /// For each class its free blocks, each of which starts with the address of the next.
    free: [*mut u8; CLASSES],
    free_bytes: usize,
    used_bytes: usize,
    peak_bytes: usize,
}
// SAFETY: the addresses are of free blocks, which nobody but the owner of the lock touches.
unsafe impl Send for Kept {}

/// The class of a size of at least [`LEAST`], and the size of its blocks.
fn class(size: usize) -> (usize, usize) {
    let step = 1 << (size.ilog2() - 3);
    let rounded = size.next_multiple_of(step);
    let power = rounded.ilog2();
    ((power as usize - LEAST.ilog2() as usize) * 8 + (rounded >> (power - 3)) - 8, rounded)
}

/// The layout of the blocks of a class.
fn layout_of(size: usize) -> Option<Layout> {
    Layout::from_size_align(size, if size >= HUGE { HUGE } else { 4096 }).ok()
}

fn is_kept(layout: &Layout) -> bool {
    layout.size() >= LEAST && layout.size() < 1 << 50 && layout.align() <= 4096
}

impl<A: GlobalAlloc> Reusing<A> {
    /// Keeps blocks of `inner`.
    pub const fn new(inner: A) -> Self {
        let kept = Kept { free: [null_mut(); CLASSES], free_bytes: 0, used_bytes: 0, peak_bytes: 0 };
        Self { inner, kept: Mutex::new(kept) }
    }

    /// A block for `size` bytes and whether it has been used before.
    fn take(&self, size: usize) -> (*mut u8, bool) {
        let (index, rounded) = class(size);
        let Some(layout) = layout_of(rounded) else { return (null_mut(), false) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.used_bytes += rounded;
        kept.peak_bytes = kept.peak_bytes.max(kept.used_bytes);
        let block = kept.free[index];
        if !block.is_null() {
            // SAFETY: a free block starts with the address of the next.
            kept.free[index] = unsafe { (block as *const *mut u8).read() };
            kept.free_bytes -= rounded;
            return (block, true);
        }
        let limit = kept.peak_bytes + SLACK;
        let mut from = CLASSES;
        while kept.used_bytes + kept.free_bytes > limit && from > 0 {
            from -= 1;
            let size = (8 + from % 8) << (LEAST.ilog2() as usize - 3 + from / 8);
            while !kept.free[from].is_null() && kept.used_bytes + kept.free_bytes > limit {
                let block = kept.free[from];
                let Some(layout) = layout_of(size) else { break };
                // SAFETY: a free block of this class, which `inner` gave with this layout.
                unsafe {
                    kept.free[from] = (block as *const *mut u8).read();
                    self.inner.dealloc(block, layout);
                }
                kept.free_bytes -= size;
            }
        }
        drop(kept);
        // SAFETY: the size is not zero.
        let block = unsafe { self.inner.alloc(layout) };
        if block.is_null() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.used_bytes -= rounded;
        } else {
            on_huge_pages(block, rounded);
        }
        (block, false)
    }

    fn give_back(&self, block: *mut u8, size: usize) {
        let (index, rounded) = class(size);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the block is free from here on, and large enough for an address.
        unsafe { (block as *mut *mut u8).write(kept.free[index]) };
        kept.free[index] = block;
        kept.free_bytes += rounded;
        kept.used_bytes -= rounded;
    }
}

/// Asks for huge pages below a block; the answer does not matter.
fn on_huge_pages(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE {
        unsafe extern "C" {
            fn madvise(address: *mut u8, length: usize, advice: i32) -> i32; // libc, which std links anyway
        }
        const MADV_HUGEPAGE: i32 = 14;
        // SAFETY: a hint on memory of our own; whole huge pages only, so that nobody else's is touched.
        unsafe { madvise(block, size / HUGE * HUGE, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, size);
}

// SAFETY: blocks come from `inner`; a kept one is handed out to one owner at a time, and is as large and as aligned as
// its class says, which is what was asked for or more.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reusing<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        if is_kept(&layout) { self.take(layout.size()).0 } else { unsafe { self.inner.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_kept(&layout) {
            // SAFETY: the caller's.
            return unsafe { self.inner.alloc_zeroed(layout) };
        }
        let (block, _) = self.take(layout.size());
        if !block.is_null() {
            // SAFETY: the block has that many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        if is_kept(&layout) {
            self.give_back(block, layout.size())
        } else {
            unsafe { self.inner.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        // SAFETY: the caller's; the copy stays within both blocks.
        unsafe {
            match (is_kept(&layout), is_kept(&new)) {
                (false, false) => self.inner.realloc(block, layout, new_size),
                (true, true) if class(layout.size()) == class(new_size) => block,
                _ => {
                    let to = self.alloc(new);
                    if !to.is_null() {
                        to.copy_from_nonoverlapping(block, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    to
                }
            }
        }
    }
}

/// `len` numbers of any value, for an operation that writes every one of them.
pub(super) fn unfilled(len: usize) -> Vec<f32> {
    if len == 0 {
        return Vec::new();
    }
    let mut values = std::mem::ManuallyDrop::new(Vec::<std::mem::MaybeUninit<f32>>::with_capacity(len));
    // SAFETY: the capacity; every caller writes all elements before any of them is read.
    unsafe { Vec::from_raw_parts(values.as_mut_ptr() as *mut f32, len, values.capacity()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts what the system holds.
    struct Counting(AtomicUsize);

    // SAFETY: passed on.
    unsafe impl GlobalAlloc for &Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(layout.size(), Ordering::Relaxed);
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_sub(layout.size(), Ordering::Relaxed);
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn classes_hold_what_they_promise() {
        let mut last = 0;
        for i in 0..200_000usize {
            let size = LEAST + i * 12_347;
            let (index, rounded) = class(size);
            assert!(rounded >= size && rounded - size <= size / 8 + 1, "{size} {rounded}");
            assert!(index >= last && index < CLASSES);
            assert_eq!(rounded, (8 + index % 8) << (LEAST.ilog2() as usize - 3 + index / 8));
            last = index;
        }
    }

    #[test]
    fn blocks_are_used_again_and_never_more_is_held_than_at_the_peak() {
        let counting = Counting(AtomicUsize::new(0));
        let memory = Reusing::new(&counting);
        let layout = |mib: usize| Layout::from_size_align(mib << 20, 64).unwrap();
        // SAFETY: every block is freed with its layout.
        unsafe {
            let first = memory.alloc(layout(100));
            first.write_bytes(7, 100 << 20);
            memory.dealloc(first, layout(100));
            let again = memory.alloc_zeroed(layout(97)); // of the same class
            assert_eq!(again, first);
            assert!((0..97 << 20).step_by(4096).all(|i| again.add(i).read() == 0));
            let grown = memory.realloc(again, layout(97), 200 << 20);
            memory.dealloc(grown, layout(200));
            for mib in [300, 500, 400, 50, 350, 450, 150, 220] {
                let block = memory.alloc(layout(mib));
                assert_eq!(block as usize % HUGE, 0);
                memory.dealloc(block, layout(mib));
            }
            assert!(counting.0.load(Ordering::Relaxed) <= (512 << 20) + SLACK);
            let small = memory.alloc(layout(1));
            *small = 1;
            let small = memory.realloc(small, layout(1), 100);
            assert_eq!(*small, 1);
            memory.dealloc(small, Layout::from_size_align(100, 64).unwrap());
        }
    }
}
