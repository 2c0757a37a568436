//! New memory while it is written: not initialised yet, or written by several tasks.

use std::mem::MaybeUninit;

/// Copies `from` into new memory of its length, and returns that.
///
/// # Panics
/// If they are not of one length.
pub fn copied<'a>(to: &'a mut [MaybeUninit<f32>], from: &[f32]) -> &'a mut [f32] {
    // SAFETY: `MaybeUninit<f32>` has the layout of `f32`, and any f32 is one.
    to.copy_from_slice(unsafe { &*(from as *const [f32] as *const [MaybeUninit<f32>]) });
    // SAFETY: all of it was written just now.
    unsafe { written(to) }
}

/// New memory after it has been written.
///
/// # Safety
/// Every element has been written.
#[inline(always)]
pub unsafe fn written<T>(memory: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: `MaybeUninit<T>` has the layout of `T`, and the caller has written all elements.
    unsafe { &mut *(memory as *mut [MaybeUninit<T>] as *mut [T]) }
}

/// The address of a buffer of which tasks write disjoint parts.
#[derive(Clone, Copy)]
pub struct Shared<T>(pub *mut T);
// SAFETY: only unsafe code writes through the address; it gives each task a part of its own, and uses the buffer as a
// whole again when all tasks have ended.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as for `Send`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Element `offset`.
    ///
    /// # Safety
    /// `offset` lies within the buffer.
    pub unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the address stays within the buffer, as the caller promises.
        unsafe { self.0.add(offset) }
    }
}
