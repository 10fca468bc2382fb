//! s3mount through a real mount: the real binary, a real kernel, real S3 servers.
//!
//! One file per POSIX verb, then what is larger than a verb. `docs/SEMANTICS.md` names the test of
//! each of its statements; `stage` explains how to run the POSIX part on a plain directory.

#![allow(
    clippy::unwrap_used,
    clippy::duration_suboptimal_units,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "all of this binary is test: a failed unwrap is a failed test, and numbers here are small"
)]

mod stage;

// POSIX, one verb each.
mod create;
mod fallocate;
mod flush;
mod fsync;
mod full_disk;
mod getattr;
mod link;
mod locks;
mod lookup;
mod lseek;
mod mkdir;
mod mknod;
mod mmap;
mod open;
mod read;
mod readdir;
mod rename;
mod rmdir;
mod setattr;
mod statfs;
mod symlink;
mod truncate;
mod unlink;
mod versions;
mod write;
mod xattr;

// Larger than a verb.
mod apart;
mod cache;
mod cache_command;
mod command;
mod conflicts;
mod crash;
mod credentials;
mod directory_buckets;
#[path = "../hooks_room/guests.rs"]
#[expect(dead_code, reason = "most of them are for the hooks by themselves")]
mod guests;
mod hooks_command;
mod hooks_delivery;
mod hooks_deploy;
mod hooks_destinations;
mod hooks_hostile;
mod hooks_replay;
mod hooks_run;
mod hooks_sync;
mod hooks_view;
mod hooks_worker;
#[path = "../hooks_room/hostile_guests.rs"]
mod hostile_guests;
mod kills;
mod lambda_api;
mod metrics;
mod objects;
mod odd_keys;
mod otlp;
mod outage;
mod parts;
mod passthrough;
mod permissions;
mod programs;
mod properties;
mod races;
mod random_kills;
mod remount;
mod replaced;
mod secrets;
mod service;
mod siblings;
mod suites;
mod united;
mod watch;
mod write_back;
