//! One slice, written by many threads, each in its own places.

use std::{cell::UnsafeCell, ops::Range};

/// A mutable slice that the threads of a region share. Which places belong to whom is the caller's promise.
pub struct DisjointMut<'a, T> {
    cells: &'a [UnsafeCell<T>],
}

// SAFETY: access goes through unsafe methods whose callers promise that no place is used by two threads at once.
unsafe impl<T: Send + Sync> Sync for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    pub fn new(slice: &'a mut [T]) -> Self {
        let data = slice.as_mut_ptr() as *const UnsafeCell<T>;
        // SAFETY: `UnsafeCell<T>` has the layout of `T`, and the slice is borrowed mutably for `'a`.
        Self { cells: unsafe { std::slice::from_raw_parts(data, slice.len()) } }
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// # Safety
    /// While the result lives, nobody else uses an element of `range`.
    #[expect(clippy::mut_from_ref, reason = "handing out disjoint parts is the type's purpose")]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        let cells = &self.cells[range];
        // SAFETY: in bounds by the indexing above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(cells.as_ptr() as *mut T, cells.len()) }
    }

    /// What an earlier stage wrote.
    ///
    /// # Safety
    /// While the result lives, nobody writes an element of `range`.
    pub unsafe fn read(&self, range: Range<usize>) -> &[T] {
        let cells = &self.cells[range];
        // SAFETY: in bounds by the indexing above; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(cells.as_ptr() as *const T, cells.len()) }
    }

    /// # Safety
    /// Nobody else uses element `index` at the same time.
    pub unsafe fn write(&self, index: usize, value: T) {
        // SAFETY: in bounds by the indexing; exclusive by the caller's promise.
        unsafe { *self.cells[index].get() = value };
    }
}
