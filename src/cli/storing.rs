//! What a terminal is told while a mount stores what it has, and of what it could not.

use std::io::Write;

use super::progress::Progress;
use crate::app::{Failure, Left};
use crate::error::Kind;
use crate::telemetry::printable;

/// So many files are still to be stored.
pub(super) fn show(progress: &mut Progress, files: u64) {
    if files > 0 {
        progress.show(format_args!("storing {files} file(s) …"));
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
