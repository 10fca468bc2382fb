//! What a mount has heard of its root before anybody asked.
//!
//! It lists the root to see that the bucket answers. Whoever looks up a name of that page within the
//! TTL is answered as if he had asked then; whatever mounts on demand has somebody waiting for just
//! that. The page proves nothing of names that it lacks, and is no listing: for both S3 is asked.

use std::collections::BTreeMap;
use std::time::Instant;

use nix::errno::Errno;

use super::inodes::Ino;
use super::names::{Child, Listing};
use super::pages::hold_back;
use super::{Error, Fs, RecoveryReport, Result};
use crate::bucket::ListPage;
use crate::key::ROOT_INO;

/// Names that S3 has told and nobody has looked up or changed since.
#[derive(Debug)]
pub struct Hints {
    asked: Instant,
    names: BTreeMap<String, Child>,
}

impl Hints {
    /// What a listing told that was asked for then.
    pub fn new(asked: Instant, names: BTreeMap<String, Child>) -> Self {
        Self { asked, names }
    }

    /// What was told of a name, and when that was asked for. Once: from then on it is known.
    pub fn take(&mut self, name: &str) -> Option<(Child, Instant)> {
        Some((self.names.remove(name)?, self.asked))
    }
}

impl Fs {
    /// Takes over the first page of the root, in which names that are looked up soon need not be asked
    /// for again. `recovered`: what [`Fs::recover`] did. If that was anything, the page is too old.
    pub fn hint_root(&self, page: ListPage, asked: Instant, recovered: &RecoveryReport) {
        if *recovered != RecoveryReport::default() {
            return;
        }
        let prefix = &self.settings.root_prefix;
        let (is_last, last_key) = (page.next.is_none(), page.last_key());
        let mut listing = Listing::default();
        self.lister.sort(prefix, page, &mut listing);
        if !is_last {
            hold_back(&mut listing, last_key.strip_prefix(prefix).unwrap_or_default());
        }
        // A view stands before what the bucket has under its name.
        let is_view = |name: &str| self.views.read().iter().any(|view| *view == format!("{prefix}{name}/"));
        listing.names.retain(|name, _| !is_view(name));
        if let Some(root) = self.tree.lock().directory_mut(ROOT_INO) {
            root.hints = Some(Hints::new(asked, listing.names));
        }
    }

    /// The node of a name of which there is a hint; `None` where S3 has to be asked.
    pub(super) async fn resolve_hinted(&self, parent: Ino, name: &str) -> Result<Option<Ino>> {
        let hint = self.tree.lock().directory_mut(parent).and_then(|directory| directory.hints.as_mut()?.take(name));
        let believed = |(child, asked): &(Child, Instant)| asked.elapsed() < self.ttl(child.is_directory);
        let Some((child, asked)) = hint.filter(believed) else { return Ok(None) };
        let found = if child.is_directory {
            self.enter_directory(parent, name, child, asked).await
        } else {
            self.node_of(parent, name, child, asked).await.map(Some)
        };
        // Gone meanwhile, or something else by now.
        found.or_else(|error| if matches!(error, Error::Posix(Errno::ENOENT)) { Ok(None) } else { Err(error) })
    }
}
