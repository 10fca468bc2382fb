//! Why the command ends with an error: what is said on the terminal, and the exit code.

use std::fmt;

use crate::error::Kind;
use crate::{config, failpoint, mount};

/// Some libraries tell a long story; its beginning says what is wrong.
const MESSAGE_CHARS: usize = 320;

/// A failure in the user's words: one line of what, and one of what to do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Without a newline.
    pub message: String,
    pub hint: Option<String>,
    /// From [`Kind::exit_code`].
    pub exit_code: u8,
}

impl Failure {
    /// A failure without a hint yet.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let words = message.into();
        let mut message = words.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS) {
            message.truncate(end);
            message.push('…');
        }
        Self { message, hint: None, exit_code: kind.exit_code() }
    }

    /// The same, with what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self { hint: error.hint.clone(), ..Self::new(Kind::Usage, error.to_string()) }
    }
}

impl From<failpoint::Unknown> for Failure {
    fn from(error: failpoint::Unknown) -> Self {
        Self::new(Kind::Usage, error.to_string()).hint(error.hint())
    }
}

impl From<mount::Error> for Failure {
    fn from(error: mount::Error) -> Self {
        Self { hint: error.hint(), ..Self::new(error.kind(), error.to_string()) }
    }
}
