//! Large blocks of memory, used again and again.
//!
//! Every step of a run needs the same large tensors as the step before. A general allocator gives such blocks back to
//! the system, which clears their pages anew each time: that took longer than the matmuls. [`Reusing`] keeps them (on huge
//! pages where available), and holds at most 256 MiB more than the program's peak.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// Blocks of at least this many bytes are kept.
const LEAST: usize = 1 << 20;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// How many bytes may be held beyond the peak.
const SLACK: usize = 256 << 20;
/// Sizes are rounded up to one of eight in each power of two.
const CLASSES: usize = 8 * 40;
/// How many classes larger than needed a kept block may be (half as large again): batches are never of one size.
const LARGER: usize = 4;
/// New blocks below this size are made this many classes larger than needed (a quarter as large again).
const ROOMY: usize = 64 << 20;
const GROWTH: usize = 2;
/// Bytes before a block, with its [`Header`]; a page, so that the block is aligned to one.
const HEAD: usize = 4096;

/// An allocator that keeps large blocks of `A`.
pub struct Reusing<A> {
    inner: A,
    kept: Mutex<Kept>,
}

struct Kept {
    /// The first free block of each class.
    free: [*mut Header; CLASSES],
    free_bytes: usize,
    used_bytes: usize,
    peak_bytes: usize,
}
// SAFETY: the addresses are of free blocks, which only the holder of the lock touches.
unsafe impl Send for Kept {}

/// The bytes before a block.
struct Header {
    class: usize,
    /// The next free block of the class, while this one is free.
    next: *mut Header,
}

/// The class of a block with room for `size` bytes.
fn class(size: usize) -> usize {
    let size = size + HEAD;
    let rounded = size.next_multiple_of(1 << (size.ilog2() - 3));
    let power = rounded.ilog2() as usize;
    (power - LEAST.ilog2() as usize) * 8 + (rounded >> (power - 3)) - 8
}

/// The bytes of a block of a class, with its header.
fn bytes(class: usize) -> usize {
    (8 + class % 8) << (LEAST.ilog2() as usize - 3 + class / 8)
}

/// The layout of the blocks of a class.
fn layout_of(class: usize) -> Option<Layout> {
    let size = bytes(class);
    Layout::from_size_align(size, if size >= HUGE { HUGE } else { HEAD }).ok()
}

/// The header of a block.
///
/// # Safety
/// The block came from [`Reusing::take`].
unsafe fn header(block: *mut u8) -> *mut Header {
    // SAFETY: a block of ours begins `HEAD` bytes after its header, within one allocation.
    unsafe { block.sub(HEAD) as *mut Header }
}

fn is_kept(layout: &Layout) -> bool {
    layout.size() >= LEAST && layout.size() < 1 << 50 && layout.align() <= HEAD
}

impl<A: GlobalAlloc> Reusing<A> {
    /// Keeps blocks of `inner`.
    pub const fn new(inner: A) -> Self {
        let kept = Kept { free: [null_mut(); CLASSES], free_bytes: 0, used_bytes: 0, peak_bytes: 0 };
        Self { inner, kept: Mutex::new(kept) }
    }

    /// A block for `size` bytes, of zeros if `zeroed`.
    fn take(&self, size: usize, zeroed: bool) -> *mut u8 {
        let wanted = class(size);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for class in wanted..(wanted + LARGER + 1).min(CLASSES) {
            let head = kept.free[class];
            if !head.is_null() {
                // SAFETY: a free block of this class.
                kept.free[class] = unsafe { (*head).next };
                kept.free_bytes -= bytes(class);
                kept.use_more(bytes(class));
                drop(kept);
                // SAFETY: the block follows its header, and has that many bytes.
                unsafe {
                    let block = (head as *mut u8).add(HEAD);
                    if zeroed {
                        block.write_bytes(0, size);
                    }
                    return block;
                }
            }
        }
        // (The system gives no memory to the room to grow before it is touched.)
        let made = if bytes(wanted) < ROOMY { wanted + GROWTH } else { wanted };
        let Some(layout) = layout_of(made) else { return null_mut() };
        kept.use_more(layout.size());
        let limit = kept.peak_bytes + SLACK;
        let mut from = CLASSES;
        while kept.used_bytes + kept.free_bytes > limit && from > 0 {
            from -= 1;
            let Some(layout) = layout_of(from) else { continue };
            while !kept.free[from].is_null() && kept.used_bytes + kept.free_bytes > limit {
                let head = kept.free[from];
                // SAFETY: a free block of this class, which `inner` gave with this layout.
                unsafe {
                    kept.free[from] = (*head).next;
                    self.inner.dealloc(head as *mut u8, layout);
                }
                kept.free_bytes -= layout.size();
            }
        }
        drop(kept);
        // SAFETY: the size is not zero.
        let start = unsafe { if zeroed { self.inner.alloc_zeroed(layout) } else { self.inner.alloc(layout) } };
        if start.is_null() {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).used_bytes -= layout.size();
            return start;
        }
        on_huge_pages(start, layout.size());
        // SAFETY: the block is large enough for its header.
        unsafe {
            (start as *mut Header).write(Header { class: made, next: null_mut() });
            start.add(HEAD)
        }
    }

    /// Keeps a block for later.
    ///
    /// # Safety
    /// It came from [`Self::take`], and nobody uses it any more.
    unsafe fn give_back(&self, block: *mut u8) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the block came from `take`, so it has a header, which is ours to change once its user is gone.
        unsafe {
            let head = header(block);
            let class = (*head).class;
            (*head).next = kept.free[class];
            kept.free[class] = head;
            kept.free_bytes += bytes(class);
            kept.used_bytes -= bytes(class);
        }
    }
}

impl Kept {
    fn use_more(&mut self, bytes: usize) {
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }
}

/// Asks for huge pages below a block; the answer does not matter.
fn on_huge_pages(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE {
        // SAFETY: a hint on memory of our own; whole huge pages only, so that nobody else's is touched.
        unsafe { libc::madvise(block.cast(), size / HUGE * HUGE, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, size);
}

// SAFETY: blocks come from `inner`; a kept one is handed out to one owner at a time, and is as large and as aligned as
// its class says, which is what was asked for or more.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reusing<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the contract with the caller is that of `inner`.
        if is_kept(&layout) { self.take(layout.size(), false) } else { unsafe { self.inner.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_kept(&layout) {
            // SAFETY: as in `alloc`.
            return unsafe { self.inner.alloc_zeroed(layout) };
        }
        self.take(layout.size(), true)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from this allocator with this layout, as the caller promises; whether a block is one of ours follows from its layout.
        unsafe { if is_kept(&layout) { self.give_back(block) } else { self.inner.dealloc(block, layout) } }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return null_mut() };
        // SAFETY: the block came from this allocator with this layout, as the caller promises, and `new_size` is not 0; the
        // copy stays within both blocks.
        unsafe {
            match (is_kept(&layout), is_kept(&new)) {
                (false, false) => self.inner.realloc(block, layout, new_size),
                (true, true) if new_size + HEAD <= bytes((*header(block)).class) => block,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts what the system holds.
    struct Counting(AtomicUsize);

    // SAFETY: all is passed on to the system's allocator.
    unsafe impl GlobalAlloc for &Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.fetch_add(layout.size(), Ordering::Relaxed);
            // SAFETY: the contract with the caller is that of the system's allocator.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.fetch_sub(layout.size(), Ordering::Relaxed);
            // SAFETY: as in `alloc`.
            unsafe { System.dealloc(block, layout) }
        }
    }

    #[test]
    fn classes_hold_what_they_promise() {
        let mut last = 0;
        for i in 0..200_000usize {
            let size = LEAST + i * 12_347;
            let class = class(size);
            let room = bytes(class) - HEAD;
            assert!(room >= size && room - size <= size / 8 + HEAD, "{size} {room}");
            assert!(class >= last && class < CLASSES);
            last = class;
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
            let again = memory.alloc_zeroed(layout(70)); // a block may be larger than needed
            assert_eq!(again, first);
            assert!((0..70 << 20).step_by(4096).all(|i| again.add(i).read() == 0));
            assert_eq!(memory.realloc(again, layout(70), 90 << 20), again);
            let grown = memory.realloc(again, layout(90), 200 << 20);
            memory.dealloc(grown, layout(200));
            for mib in [300, 500, 400, 50, 350, 450, 150, 220] {
                let block = memory.alloc(layout(mib));
                assert_eq!(block as usize % HUGE, HEAD);
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
