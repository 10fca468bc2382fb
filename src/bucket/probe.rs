//! What the server really does, found out by effect: many answer 200 to headers they ignore.

/// What was found out. `None` = not tried; then the server is taken at its word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Capabilities {
    /// Whether PUT honours `If-None-Match: *` and `If-Match`.
    pub conditional_writes: Option<bool>,
    /// Whether LIST tells the checksum algorithm of an object.
    pub list_checksums: Option<bool>,
}
