//! Closing without waiting: what the kernel lets go of only after a grace period or two.

use std::ops::Deref;
use std::thread;

/// Something that is slow to close, closed on a thread of its own.
///
/// A packet socket takes the kernel 10 ms, and so does a netfilter socket when something was
/// removed shortly before. A plain thread: one of the runtime's would stay in the namespace
/// that it was started from.
#[derive(Debug)]
pub(super) struct ClosedLater<T: Send + 'static> {
    /// `None` only while it is being dropped.
    held: Option<T>,
}

impl<T: Send + 'static> ClosedLater<T> {
    pub(super) fn new(held: T) -> Self {
        Self { held: Some(held) }
    }
}

impl<T: Send + 'static> Deref for ClosedLater<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send + 'static> Drop for ClosedLater<T> {
    fn drop(&mut self) {
        let held = self.held.take();
        // Where no thread can be had, it is closed here.
        let _not_started = thread::Builder::new().name("close".into()).spawn(move || drop(held));
    }
}
