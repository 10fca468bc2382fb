//! `s3mount versions PATH [--json]` and `s3mount undelete PATH [--version ID]`

use std::path::PathBuf;

use super::sockets::Socket;
use super::status_text::{bytes, clock};
use crate::app::control::{Reply, Request};
use crate::app::{Failure, FileVersion};
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File of a mounted bucket, also one that is deleted
    path: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Lists what the bucket has of a file, the newest first.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (socket, path) = Socket::holding(&self.path)?;
        let versions = socket.ask_for(&Request::Versions { path }, |reply| match reply {
            Reply::Versions(versions) => Some(versions),
            _ => None,
        })?;
        super::say(&if self.json { super::pretty(&versions) } else { versions.iter().map(line).collect() });
        Ok(())
    }
}

fn line(version: &FileVersion) -> String {
    let size = version.size.map_or_else(|| "deleted".to_owned(), bytes);
    let class = version.storage_class.as_deref().unwrap_or_default();
    let latest = if version.is_latest { "*" } else { " " };
    let text = format!("{latest} {}  {size:>10}  {class:<12} {}", clock(version.modified_s), printable(&version.id));
    text.trim_end().to_owned() + "\n"
}

#[derive(Debug, clap::Args)]
pub(super) struct Undelete {
    /// File of a mounted bucket, as it was
    path: PathBuf,
    /// This version, from the list that `s3mount versions` prints [default: the last before the deletion]
    #[arg(long, value_name = "ID")]
    version: Option<String>,
}

impl Undelete {
    /// Brings a version of a file back. Nothing is printed: it worked.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (socket, path) = Socket::holding(&self.path)?;
        let is_done = |reply| matches!(reply, Reply::Done).then_some(());
        socket.ask_for(&Request::Undelete { path, version: self.version }, is_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_line_and_a_deletion_too() {
        let version = FileVersion {
            id: "v\u{1b}1".into(),
            size: Some(1536),
            modified_s: 1_700_000_000,
            is_latest: false,
            storage_class: Some("STANDARD".into()),
            etag: Some("t".into()),
        };
        let told = line(&version);
        assert!(told.contains("1.5 KiB  STANDARD") && told.ends_with("v\\u{1b}1\n"), "{told}");
        let gone = FileVersion { id: "v2".into(), size: None, is_latest: true, storage_class: None, ..version };
        assert!(line(&gone).starts_with("* ") && line(&gone).contains("deleted"), "{}", line(&gone));
    }
}
