//! The kernel edge: the only room that knows `fuser`.

pub mod adapter;
