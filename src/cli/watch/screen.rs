//! Where looks are shown: in the place of the last one on a terminal, else one below the other.
//!
//! The terminal is left as it is: no mode, no second screen, no hidden cursor. So there is nothing to put in
//! order when this ends, however it ends.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Up so many lines, to their beginning; what is left of the line, and of the screen, emptied (ECMA-48: CPL, EL, ED).
const UP: &str = "F";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// Columns and rows of a terminal.
type Size = (usize, usize);

pub(super) struct Screen {
    is_terminal: bool,
    /// Lines that stand there from the last look.
    shown: usize,
}

impl Screen {
    pub(super) fn of_stdout() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), shown: 0 }
    }

    /// Shows a look; whether anybody is there to see it.
    pub(super) fn show(&mut self, lines: &[String]) -> bool {
        let size = terminal_size::terminal_size_of(io::stdout());
        let size = size.map_or((80, 24), |(width, height)| (usize::from(width.0), usize::from(height.0)));
        let text = if self.is_terminal { self.in_place(lines, size) } else { lines.join("\n") + "\n\n" };
        // In one piece, or it would flicker.
        io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_ok()
    }

    /// Takes away what the terminal has echoed of Ctrl-C.
    pub(super) fn leave(&self) {
        if self.is_terminal {
            let _ = write!(io::stdout(), "\r{CLEAR_LINE}");
        }
    }

    fn in_place(&mut self, lines: &[String], (columns, rows): Size) -> String {
        let mut text = match self.shown {
            0 => String::new(),
            shown => format!("\x1b[{shown}{UP}"),
        };
        // The cursor has the last row; what has scrolled away could not be reached again.
        let fitting = lines.len().min(rows.saturating_sub(1).max(1));
        for line in &lines[..fitting] {
            // A line that fills its row to the end leaves the cursor at different places.
            let line: String = line.chars().take(columns.saturating_sub(1)).collect();
            let _ = writeln!(text, "{line}{CLEAR_LINE}");
        }
        self.shown = fitting;
        text + CLEAR_BELOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_look_takes_the_place_of_the_one_before() {
        let mut screen = Screen { is_terminal: true, shown: 0 };
        assert_eq!(screen.in_place(&lines("one\ntwo\nthree"), (80, 24)), "one\x1b[K\ntwo\x1b[K\nthree\x1b[K\n\x1b[J");
        assert_eq!(screen.in_place(&lines("four"), (80, 24)), "\x1b[3Ffour\x1b[K\n\x1b[J");
        assert_eq!(screen.in_place(&lines("five"), (80, 24)), "\x1b[1Ffive\x1b[K\n\x1b[J");
    }

    #[test]
    fn nothing_is_shown_that_could_not_be_overwritten() {
        let mut screen = Screen { is_terminal: true, shown: 0 };
        assert_eq!(screen.in_place(&lines("123456\ntwo\nthree"), (5, 3)), "1234\x1b[K\ntwo\x1b[K\n\x1b[J");
        assert_eq!(screen.shown, 2);
    }
}
