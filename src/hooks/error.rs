//! What can go wrong while hooks are read and started. What goes wrong while one runs is its
//! task's outcome, and no error of s3mount.

use std::path::PathBuf;

use crate::error::Kind;
use crate::relay;

/// Result of reading or starting hooks.
pub type Result<T> = std::result::Result<T, Error>;

/// Why hooks could not be read or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: can't be read: {cause}", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    /// The settings are wrong, at this line.
    #[error("{}:{line}: {}{problem}", path.display(), of_hook(hook))]
    Settings { path: PathBuf, line: usize, hook: String, problem: String },
    #[error("hook \"{hook}\": {}: {problem}", path.display())]
    Module { hook: String, path: PathBuf, problem: String },
    #[error("hooks: {what}: {cause}")]
    Start { what: String, cause: String },
    /// What was asked for can't be meant.
    #[error("{0}")]
    Asked(String),
    #[error("there is no object {}", key.escape_debug())]
    NoObject { key: String },
    #[error("the mount is being stopped; what its hooks have not seen is delivered after the next mount")]
    Stopping,
    #[error("the queue: {0}")]
    Queue(relay::Error),
    #[error(transparent)]
    Bucket(crate::bucket::Error),
    #[error(transparent)]
    Journal(#[from] crate::journal::Error),
}

impl Error {
    /// What kind of failure this is, for the exit code.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { .. } | Self::Settings { .. } | Self::Module { .. } | Self::Asked(_) => Kind::Usage,
            Self::NoObject { .. } => Kind::NotFound,
            Self::Stopping => Kind::Busy,
            Self::Queue(relay::Error::Away(_)) => Kind::Unreachable,
            Self::Queue(relay::Error::Refused(_)) => Kind::Refused,
            Self::Bucket(error) => error.kind,
            Self::Start { .. } => Kind::Local,
            Self::Journal(error) => error.kind(),
        }
    }
}

fn of_hook(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("hook \"{name}\": ") }
}
