//! Telling the service manager how the mount is (sd_notify(3)); nothing where none has started it.
//!
//! systemd counts a `Type=notify` service as started when the mount is usable, waits longer where there
//! is more to do, and with `WatchdogSec=` restarts a mount that has ceased to answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// So many signs of life in the time after which their absence counts (sd_watchdog_enabled(3) says two).
const SIGNS_A_PERIOD: u32 = 3;

/// The mount is usable.
pub(super) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// There is more to do than usual: wait this long from now.
pub(super) fn extend(patience: Duration) {
    notify(&[NotifyState::ExtendTimeoutUsec(micros(patience))]);
}

/// Says as long as it lives that the mount answers, and when it goes that the mount is about to end.
#[derive(Debug)]
pub(super) struct Watch {
    asking: Option<JoinHandle<()>>,
    /// What the end may take.
    grace: Duration,
}

impl Watch {
    /// Of a mount that is usable.
    pub(super) fn over(mountpoint: &Path, grace: Duration) -> Self {
        let ask = |period: Duration| tokio::spawn(ask(mountpoint.to_owned(), period / SIGNS_A_PERIOD));
        Self { asking: sd_notify::watchdog_enabled().map(ask), grace }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(asking) = &self.asking {
            asking.abort();
        }
        notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros(self.grace))]);
    }
}

async fn ask(mountpoint: PathBuf, every: Duration) {
    let mut tick = tokio::time::interval(every);
    loop {
        tick.tick().await;
        let mountpoint = mountpoint.clone();
        // Through the kernel and back, and S3 is not asked: what hangs here hangs for every program.
        let answer = tokio::task::spawn_blocking(move || nix::sys::statvfs::statvfs(&mountpoint).is_ok()).await;
        if matches!(answer, Ok(true)) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(state) {
        tracing::warn!(%cause, "cannot tell the service manager how the mount is");
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
