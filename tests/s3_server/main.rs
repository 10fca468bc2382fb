//! The embedded S3 server as a client of AWS's own SDK sees it: semantics, persistence, faults.

#![allow(clippy::unwrap_used, reason = "all of this binary is test: a failed unwrap is a failed test")]

mod appends;
mod conditions;
mod faults;
mod links;
mod listing;
mod multipart;
mod objects;
mod restarts;
mod stage;
mod versions;
