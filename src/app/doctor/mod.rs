//! Examines all that a mount needs, without mounting: first this machine, then the bucket.
//!
//! Each thing is tried, not guessed from settings: who may do what is known by doing it. What cannot
//! be found out (the caller may not ask, the server has no such thing) is passed over in silence, and
//! nothing is left behind that could be removed.

mod bucket;
mod inventory;
mod machine;
mod rights;

use super::{Failure, rooms, serve};
use crate::config::Config;
use crate::error::Kind;

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Good,
    /// A mount works, but not as well, or not as safely, as it could.
    Warning,
    /// A mount does not work, or not all of it; what it would fail with.
    Broken(Kind),
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// One or two words.
    pub about: &'static str,
    pub state: State,
    /// May hold names from the bucket and words of the server: to be escaped for a terminal.
    pub told: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Finding {
    fn good(about: &'static str, told: impl Into<String>) -> Self {
        Self { about, state: State::Good, told: told.into(), advice: None }
    }

    fn warning(about: &'static str, told: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { about, state: State::Warning, told: told.into(), advice: Some(advice.into()) }
    }

    fn broken(about: &'static str, kind: Kind, told: impl Into<String>, advice: Option<String>) -> Self {
        Self { about, state: State::Broken(kind), told: told.into(), advice }
    }
}

/// Takes findings as they are made.
type Tell<'a> = &'a mut dyn FnMut(Finding);

/// Examines the machine, and, where `with_bucket`, the buckets of `config`. Each finding is told when
/// it is known. Must be called before any thread is started.
///
/// # Errors
/// When this process cannot examine anything; what is wrong with a mount is a finding.
pub fn doctor(config: &Config, with_bucket: bool, tell: Tell) -> Result<(), Failure> {
    machine::examine(config, tell);
    if !with_bucket {
        return Ok(());
    }
    serve::on_runtime(async {
        for (name, source, own) in config.each() {
            bucket::examine(own, source, rooms::connect_settings(own, name, source), tell).await;
        }
        Ok(())
    })
}
