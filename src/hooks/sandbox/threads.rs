//! The threads that guests run on: whoever asks the mount for something goes before them.

use std::cell::Cell;

use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};

/// Of 19 at most: of a processor that others want too, a guest has a quarter.
const NICENESS: libc::c_int = 5;
/// More than ever run at a time: places bound those of the queue, and those on demand.
pub(super) const MAX_THREADS: u32 = 512;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is one of them, which may be held up.
pub(super) fn is_ours() -> bool {
    IS_OURS.get()
}

/// Does something that waits for the disk: here, where that holds up nobody, else on a thread for it.
pub(in crate::hooks) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if is_ours() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}

/// Threads that are begun when they are needed, and kept for a while.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    pub(super) fn new() -> std::io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.thread_name("hook").max_blocking_threads(MAX_THREADS as usize).on_thread_start(begin);
        Ok(Self(Some(builder.build()?)))
    }

    /// Runs something on one of them.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("it is taken when it is dropped").spawn_blocking(work)
    }
}

impl Drop for Threads {
    /// Without waiting: a guest is stopped by its own deadline.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Linux gives each thread a niceness of its own. Without it guests only run sooner.
fn begin() {
    IS_OURS.set(true);
    // SAFETY: no memory is touched; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_step_back_and_nobody_else() {
        // SAFETY: as above.
        let niceness = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = niceness();
        let threads = Threads::new().unwrap();
        let of_guest = Builder::new_current_thread().build().unwrap().block_on(threads.spawn(niceness)).unwrap();
        assert_eq!((of_guest, niceness()), (before.max(NICENESS), before));
    }
}
