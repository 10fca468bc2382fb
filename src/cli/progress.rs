//! The line of a terminal that says how far long work is.

use std::fmt::Display;
use std::io::Write;

/// Back to the beginning of the line, which is emptied (ECMA-48: EL).
const ANEW: &str = "\r\x1b[K";

/// On stderr, and only if that is a terminal.
#[derive(Debug, Default)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// In the place of what it said before.
    pub(super) fn show(&mut self, text: impl Display) {
        if super::is_watched() {
            self.shown = true;
            let _ = write!(std::io::stderr(), "{ANEW}{text}");
        }
    }

    /// Makes room for what is said next.
    pub(super) fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "{ANEW}");
        }
    }
}
