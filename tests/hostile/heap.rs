//! [`Heap`]: an allocator that counts, so that a test can say what something holds.
//!
//! Each thread counts what it allocated less what it freed. A gateway in memory lives on one
//! thread, so the difference over an attack is what the attack made it hold.
#![allow(unsafe_code)] // GlobalAlloc: an allocator cannot be written otherwise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Heap;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Bytes that this thread holds.
pub fn held() -> isize {
    HELD.get()
}

/// The most that this thread held while `work` ran, above what it held before.
pub fn peak_of(work: impl FnOnce()) -> isize {
    let before = held();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

fn add(bytes: isize) {
    // A thread that is ending has no counters any more.
    let _ = HELD.try_with(|held| {
        let now = held.get() + bytes;
        held.set(now);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now)));
    });
}

// SAFETY: every call goes to the system's allocator unchanged; the counters do not allocate.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        unsafe { System.realloc(pointer, layout, size) }
    }
}
