//! The embedded S3 server as a client of AWS's own SDK sees it: semantics, persistence, faults.

mod conditions;
mod faults;
mod links;
mod listing;
mod multipart;
mod objects;
mod restarts;
mod stage;
mod versions;
