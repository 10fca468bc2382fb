//! Learning attributes from S3, and what they change in the tree.
//!
//! They come from the index where the version is known, else from one HEAD.

use std::time::{Duration, Instant, SystemTime};

use super::heads::is_version;
use super::inodes::{Ino, KernelStat, Node};
use super::listing::is_silence;
use super::names::{Directory, Seen};
use super::resolve::is_doubted;
use super::stat::Stat;
use super::{Error, Fs, Result};
use crate::bucket::Properties;
use crate::bucket::attributes::Attributes;
use crate::cache::{Modified, Remembered};
use crate::error::Kind;

impl Fs {
    /// Attributes of a version: from the index, from LIST where it says enough, else from S3.
    pub(super) async fn attributes(&self, key: &str, directory: bool, seen: Option<&Seen>) -> Result<Remembered> {
        if let Some(remembered) = self.known_attributes(key, directory, seen) {
            return Ok(remembered);
        }
        if let Some(outcome) = self.heads.join(key).await {
            // Its answer is in the index now. If there was none, another try would cost the whole
            // deadline once more.
            outcome.or_else(|error| if is_silence(&error) { Err(error) } else { Ok(()) })?;
            if let Some(remembered) = self.known_attributes(key, directory, seen) {
                return Ok(remembered);
            }
        }
        match self.heads.ask(key).await {
            Ok(remembered) => Ok(remembered),
            Err(error) if directory && error.kind == Kind::NotFound => Ok(self.implicit_directory(key)),
            Err(error) => Err(error.into()),
        }
    }

    /// Learns what the marker of a directory is by now, before the attributes in it are changed: only a listing of the
    /// directory itself tells of another machine's change, and it may be long ago that it was read.
    pub(super) async fn ask_marker(&self, ino: Ino) {
        const LISTING_STANDS: Duration = Duration::from_secs(30);
        let asked = Instant::now();
        let (key, etag, modified) = {
            let tree = self.tree.lock();
            let is_old = |directory: &Directory| directory.listed_at().is_none_or(|at| at.elapsed() >= LISTING_STANDS);
            let is_unsure =
                |node: &&Node| node.etag.is_some() && !node.is_drafted() && node.directory.as_ref().is_some_and(is_old);
            let Some(node) = tree.get(ino).filter(is_unsure) else { return };
            let Some(key) = tree.key(ino) else { return };
            (key, node.etag.clone(), node.modified)
        };
        let is_recent = |by: SystemTime| by + LISTING_STANDS > self.settings.layout.clock(&key).stored_by();
        if matches!(modified, Modified::By(by) if is_recent(by)) || self.listings.outage().is_some() {
            return;
        }
        let answer = self.bucket.head(&key).await.map_err(Error::from);
        self.listings.note_outcome(&answer);
        // Without an answer the change itself will tell what is the matter. What is the same keeps the times that are
        // known here alone.
        if let Ok(info) = answer
            && !(etag.as_ref() == Some(&info.etag) && modified.is(info.modified))
        {
            let remembered = self.heads.remembered(&key, info);
            self.index.put(&key, remembered.clone());
            self.adopt_attributes(ino, true, &remembered, asked);
        }
    }

    /// What can be said of a version without asking S3.
    pub(super) fn known_attributes(&self, key: &str, directory: bool, seen: Option<&Seen>) -> Option<Remembered> {
        let asks = seen.map_or(self.origins.asks(), |seen| seen.asks);
        let remembered = self.index.get(key);
        let ino = remembered.as_ref().and_then(|remembered| remembered.attributes.ino);
        if let Some(remembered) = remembered {
            let current = match seen {
                Some(seen) => is_version(&remembered, seen),
                // A directory's version is checked when it is listed itself.
                None => directory && !is_doubted(remembered.etag.as_ref(), remembered.modified),
            };
            if current && !(asks && remembered.untold) {
                return Some(self.with_modified(key, remembered, seen));
            }
        }
        match seen {
            _ if asks => None,
            Some(seen) => {
                let attributes = Attributes { ino, ..Attributes::default() };
                let (etag, modified) = (Some(seen.etag.clone()), Modified::At(seen.modified));
                let properties = Properties { storage_class: seen.storage_class.clone(), ..Properties::default() };
                Some(Remembered { etag, size: seen.size, modified, attributes, properties, untold: true })
            }
            None if directory => Some(Remembered { untold: true, ..self.implicit_directory(key) }),
            None => None,
        }
    }

    /// The index learns when S3 stored what we wrote: PUT does not tell.
    fn with_modified(&self, key: &str, mut remembered: Remembered, seen: Option<&Seen>) -> Remembered {
        if let (None, Some(seen)) = (remembered.modified.date(), seen) {
            remembered.modified = remembered.modified.or(seen.modified);
            self.index.put(key, remembered.clone());
        }
        // A lifecycle rule moves an object without making another version of it.
        if let Some(class) = seen.and_then(|seen| seen.storage_class.clone()) {
            remembered.properties.storage_class = Some(class);
        }
        remembered
    }

    /// A directory that exists only because something lies in it. The moment we first saw it is
    /// remembered, so that its times stay the same after a remount.
    pub(super) fn implicit_directory(&self, key: &str) -> Remembered {
        let keyless = self.settings.layout.is_keyless(key);
        if let Some(kept) = self.index.get(key).filter(|_| keyless) {
            return kept;
        }
        let now = SystemTime::now();
        let attributes = Attributes { mtime: Some(now), ctime: Some(now), ..Attributes::default() };
        let remembered = Remembered { attributes, ..Remembered::default() };
        self.index.put(key, remembered.clone());
        remembered
    }

    /// Puts what S3 says into an existing node. Content that S3 lacks is left alone.
    pub(super) fn adopt_attributes(&self, ino: Ino, directory: bool, remembered: &Remembered, asked: Instant) {
        let mut stat = Stat::of_object(remembered, directory, &self.settings);
        let mut tree = self.tree.lock();
        if self.settings.show_versions {
            stat = self.as_shown(&tree.key(ino).unwrap_or_default(), stat);
        }
        if tree.changed_since(ino, asked) {
            // Written here while the answer was on its way: the answer is old.
            return;
        }
        let Some(node) = tree.get_mut(ino) else { return };
        // Opened since it was looked at: the next who asks parts the name from the readers.
        let is_read = !directory && (node.opens > 0 || node.backing.strong_count() > 0);
        if node.is_drafted() || (is_read && node.etag != remembered.etag) {
            return;
        }
        let changed = !directory && node.etag != remembered.etag && node.lookups > 0;
        if changed {
            node.kernel_stat = KernelStat::Outdated;
        }
        // The kernel believes those of a directory for as long as a listing; what changed may be a right.
        let other_rights = directory && node.lookups > 0 && !node.stat.is_like(&stat);
        node.stat = stat;
        node.etag.clone_from(&remembered.etag);
        node.modified = remembered.modified;
        node.told = !remembered.untold;
        node.checked = asked;
        drop(tree);
        if changed {
            self.tell_kernel(|kernel| kernel.forget_pages(ino));
        }
        if other_rights {
            self.tell_kernel(|kernel| kernel.forget_attributes(ino));
        }
    }
}
