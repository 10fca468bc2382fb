//! Wires the rooms together: start, signals, readiness, drain, end.

mod caching;
mod consuming;
pub mod control;
mod daemon;
pub mod demo;
mod deploying;
mod doctor;
mod failure;
mod gate;
mod gc;
mod hooking;
mod interrupts;
mod membership;
mod metrics;
mod otlp;
mod places;
mod restoring;
mod rooms;
mod running;
mod serve;
mod service;
mod status;
mod supervisor;
mod versions;

pub use caching::{CacheDirectory, clear_directory, look_into};
pub use consuming::run_worker;
pub use daemon::Ready;
pub use doctor::{Finding, State, doctor};
pub use failure::Failure;
pub use gc::{Fate, Incomplete, gc};
pub use hooking::{
    DeadLetter, Description, HookTrace, Invocation, LocalRun, OpenTask, Rejected, Replay, Replayed, Switched, Trace,
    Which, invoke_on_file, is_hook_name, validate_hooks,
};
pub use places::{run_dir, socket_path};
pub use restoring::Restore;
pub use status::{Left, Status};
pub use versions::FileVersion;

pub use crate::bucket::s3::RestoreTier;

use serve::Job;

use crate::config::Config;
use crate::failpoint;
use crate::telemetry;

/// Where the mount's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// In the terminal, until it is unmounted.
    Foreground,
    /// Apart from it: the command returns when the mount is usable.
    Background,
}

/// Mounts. In the foreground this returns when the mount has ended, else when it is usable. Must be
/// called before any thread is started.
///
/// # Errors
/// Why there is no mount, or what was left when it ended.
pub fn mount(config: Config, stay: Stay) -> Result<(), Failure> {
    failpoint::arm()?;
    let serve = |config: Config, log, ready| {
        let job = Job { config, log, ready, greeting: String::new(), state_key: None };
        serve::on_runtime(async { serve::serve(job).await?.conclude().await })
    };
    match stay {
        Stay::Foreground => {
            let log = telemetry::log_to_stderr(config.log);
            serve(config, log, Ready::foreground())
        }
        Stay::Background => daemon::in_background(move |ready| {
            let log = telemetry::log_to_file(config.log);
            serve(config, log, ready)
        })
        .map(drop),
    }
}
