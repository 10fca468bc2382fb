//! What a terminal is told while a mount stores what it has, and of what it could not.

use std::io::Write;

use crate::app::{Failure, Left};
use crate::error::Kind;
use crate::telemetry::printable;

/// The line that says how many files are still to be stored.
#[derive(Default)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// So many are left.
    pub(super) fn show(&mut self, files: u64) {
        if files > 0 && super::is_watched() {
            self.shown = true;
            let _ = write!(std::io::stderr(), "\r\x1b[Kstoring {files} file(s) …");
        }
    }

    /// Makes room for what is said next.
    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Names what could not be stored.
pub(super) fn tell(left: &[Left]) {
    for file in left {
        let _ = writeln!(std::io::stderr(), "not stored: {}: {}", printable(&file.path), printable(&file.cause));
    }
}

/// The mount hung up before it said how it went.
pub(super) fn cut_off() -> Failure {
    Failure::new(Kind::Local, "the mount's process ended before everything was stored")
        .hint("mount the bucket again at the same place: what is left is stored then")
}
