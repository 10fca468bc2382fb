//! s3mount: an S3 bucket as a file system, with WASM hooks that fire when a file is closed.
//!
//! The crate is laid out as rooms; data takes one direction through them:
//!
//! ```text
//! main → cli → app ─┬→ mount → fs ─┬→ cache ──→ bucket
//!                   │              └→ journal ─→ bucket
//!                   ├→ lambda → hooks
//!                   └→ hooks ──────┬→ journal
//!                                  ├→ bucket
//!                                  └→ relay
//! floor (imports nothing above it): key, error, telemetry, failpoint
//! ```
//!
//! `fs` and `hooks` never know each other: the journal is the only room both touch.
//! `ARCHITECTURE.md` tells the whole story; `tests/tidy.rs` holds the arrows in place.

pub mod app;
pub mod bucket;
pub mod cache;
pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
pub mod failpoint;
pub mod fs;
pub mod hooks;
pub mod journal;
pub mod key;
pub mod lambda;
pub mod mount;
pub mod relay;
pub mod telemetry;
