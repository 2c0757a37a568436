//! Memory for packed operands, kept by each thread from one matmul to the next.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;

/// Owned memory, aligned for vectors.
pub struct Scratch {
    ptr: *mut u32,
    layout: Layout,
}

impl Scratch {
    const NONE: Self = Self { ptr: std::ptr::null_mut(), layout: Layout::new::<()>() };

    fn new(words: usize) -> Self {
        let size = (words * 4).next_multiple_of(4096).max(4096);
        // (No operand is so large that the size would not fit.)
        let layout = Layout::from_size_align(size, 4096);
        let layout = layout.unwrap_or_else(|_| handle_alloc_error(Layout::new::<Self>()));
        // SAFETY: the size is not zero.
        let ptr = unsafe { alloc(layout) } as *mut u32;
        if ptr.is_null() {
            handle_alloc_error(layout);
        }
        Self { ptr, layout }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.ptr as *mut u8, self.layout) }
        }
    }
}

thread_local! {
    /// A thread's packed A (or a part of it).
    pub static A: Cell<Scratch> = const { Cell::new(Scratch::NONE) };
    /// A thread's packed part of B.
    pub static B: Cell<Scratch> = const { Cell::new(Scratch::NONE) };
}

/// Runs `work` with room for `words` 32-bit words of any content. The thread's memory is taken out of its cell
/// meanwhile, so a nested use (rayon may run another matmul on this thread while it waits) gets memory of its own.
pub fn with<R>(
    cell: &'static std::thread::LocalKey<Cell<Scratch>>, words: usize, work: impl FnOnce(*mut u32) -> R,
) -> R {
    let mut scratch = cell.with(|cell| cell.replace(Scratch::NONE));
    if scratch.layout.size() < words * 4 {
        scratch = Scratch::new(words);
    }
    let result = work(scratch.ptr);
    cell.with(|cell| cell.set(scratch));
    result
}
