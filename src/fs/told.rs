//! Whose objects are these? LIST returns no metadata, but the algorithms of an object's checksums:
//! what s3mount writes carries CRC32C. An object without it has no attributes of ours, so what LIST
//! says is enough to show it, and a bucket of foreign objects is listed without a HEAD.
//!
//! **Invariant:** what S3 knows of an *untold* node (one that LIST alone has described) is asked for
//! before anything is written over it, and its defaults never enter the index as truth.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use nix::errno::Errno;

use super::inodes::Ino;
use super::names::Seen;
use super::persist::{lost_is_stale, pin};
use super::stat::Stat;
use super::{Error, Fs, Result};
use crate::bucket::{self, ListPage, Listed, ObjectInfo};
use crate::cache::{Headers, Remembered};
use crate::error::Kind;

/// Where the attributes in a listing come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attrs {
    /// One HEAD, paid once ever, for objects that may be ours; LIST for all others.
    #[default]
    Auto,
    /// One HEAD, paid once ever, for each object.
    Full,
    /// LIST and the index only; modes and owners of what other machines wrote are not seen.
    List,
}

/// Tells from a listing which objects may carry attributes.
#[derive(Debug)]
pub struct Origins {
    attrs: Attrs,
    /// Whether the server's LIST tells checksums, where that was tried.
    list_checksums: Option<bool>,
    /// A listing has told one: so the server does.
    proven: AtomicBool,
}

impl Origins {
    /// By what the user wants, and what is known of the server.
    pub fn new(attrs: Attrs, list_checksums: Option<bool>) -> Self {
        Self { attrs, list_checksums, proven: AtomicBool::new(false) }
    }

    /// What a page says of one of its objects. `tells` is what [`Self::tells`] said of the page.
    pub fn seen(&self, object: &Listed, tells: bool) -> Seen {
        let asks = match self.attrs {
            Attrs::Full => true,
            Attrs::List => false,
            Attrs::Auto => !tells || object.has_our_checksum(),
        };
        let Listed { etag, size, modified, storage_class, .. } = object.clone();
        Seen { etag, size, modified, storage_class, asks }
    }

    /// Whether a missing checksum in this page means something. What one page proves holds from
    /// then on.
    pub fn tells(&self, page: &ListPage) -> bool {
        self.list_checksums.unwrap_or_else(|| {
            let proof = page.objects.iter().any(|object| !object.checksums.is_empty());
            self.proven.fetch_or(proof, Ordering::Relaxed) || proof
        })
    }

    /// HEADs for the sake of a listing are allowed.
    pub fn asks(&self) -> bool {
        self.attrs != Attrs::List
    }
}

impl Fs {
    /// Learns what S3 knows of a node that only LIST has described, before it is written anew.
    ///
    /// # Errors
    /// `ESTALE` when the object is another one by now and somebody has this one open.
    pub(super) async fn ensure_told(&self, ino: Ino) -> Result<()> {
        const TRIES: u32 = 3;
        for _ in 0..TRIES {
            let asked = Instant::now();
            let (key, directory) = {
                let tree = self.tree.lock();
                let node = tree.get(ino).ok_or(Errno::ESTALE)?;
                if node.told || !node.linked {
                    return Ok(());
                }
                (tree.key(ino).ok_or(Errno::ESTALE)?, node.is_directory())
            };
            if let Some((remembered, asked)) = self.told_by_get(ino)
                && self.tell(ino, remembered, asked)?
            {
                return Ok(());
            }
            // Who waits here has waited for a lookup before: in an outage that would be two deadlines.
            if let Some(outage) = self.listings.outage() {
                return Err(outage);
            }
            let answer = self.heads.ask(&key).await.map_err(Error::from);
            self.listings.note_outcome(&answer);
            let remembered = match answer {
                Ok(remembered) => remembered,
                Err(error) if directory && error.is_not_found() => self.implicit_directory(&key),
                Err(Error::Bucket(error)) => return Err(lost_is_stale(error)),
                Err(other) => return Err(other),
            };
            if self.tell(ino, remembered, asked)? {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN.into())
    }

    /// Whether there is nothing left to ask of a file that is about to be written.
    pub(super) fn is_told(&self, ino: Ino) -> bool {
        self.tree.lock().get(ino).is_none_or(|node| node.told || !node.linked)
    }

    /// A GET of some bytes has told as much as a HEAD: there is nothing left to ask.
    pub(super) fn tell_fetched(&self, ino: Ino, key: &str, fetched: ObjectInfo, asked: Instant) -> Result<()> {
        if !self.is_told(ino) {
            // Where something was changed meanwhile, a HEAD will tell.
            self.tell(ino, self.heads.remembered(key, fetched), asked)?;
        }
        Ok(())
    }

    /// What a GET has told already of the version that is there, and when it was asked. Only now, that somebody
    /// writes: a file does not get other times by being read.
    fn told_by_get(&self, ino: Ino) -> Option<(Remembered, Instant)> {
        let (pinned, listed) = {
            let tree = self.tree.lock();
            let node = tree.get(ino).filter(|node| node.checked.elapsed() < self.settings.attr_ttl)?;
            (pin(&tree.key(ino)?, node)?, node.modified.date()?)
        };
        let Headers { asked, info } = self.cache.headers(&pinned)?;
        let when = SystemTime::now().checked_sub(asked.elapsed())?;
        let remembered = self.heads.remembered_at(when, &pinned.key, ObjectInfo::clone(&info));
        // Attributes may have changed under the same tag since then.
        remembered.modified.is(listed).then_some((remembered, asked))
    }

    /// Takes over what a HEAD said; false when the object was changed or renamed here meanwhile.
    fn tell(&self, ino: Ino, remembered: Remembered, asked: Instant) -> Result<bool> {
        let mut tree = self.tree.lock();
        if tree.changed_since(ino, asked) {
            return Ok(false);
        }
        let node = tree.get_mut(ino).ok_or(Errno::ESTALE)?;
        if node.told {
            return Ok(true);
        }
        if node.etag != remembered.etag && !node.is_directory() {
            if node.opens > 0 || node.is_drafted() || node.backing.strong_count() > 0 {
                node.expire();
                return Err(another_version(tree.key(ino).unwrap_or_default()));
            }
            drop(tree);
            self.adopt_attributes(ino, false, &remembered, asked);
            return Ok(true);
        }
        let stat = Stat::of_object(&remembered, node.is_directory(), &self.settings);
        let Stat { size, mtime, atime, ctime, .. } = std::mem::replace(&mut node.stat, stat);
        if node.is_drafted() {
            node.stat = Stat { size, mtime, atime, ctime, ..node.stat.clone() };
        }
        node.etag = remembered.etag;
        node.modified = remembered.modified;
        node.told = true;
        Ok(true)
    }
}

/// For who is about to write over it that is a conflict, as if the write itself had been refused.
fn another_version(key: String) -> Error {
    let cause = "the object is another version now than was opened".to_owned();
    let (kind, operation) = (Kind::Changed, "HeadObject");
    bucket::Error { kind, operation, key, cause, http_status: None, request_id: None }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::ETag;

    fn listed(checksums: &[&str]) -> Listed {
        let checksums = checksums.iter().map(ToString::to_string).collect();
        let (etag, modified) = (ETag::new("t"), SystemTime::UNIX_EPOCH);
        Listed { key: "k".into(), etag, size: 1, modified, storage_class: None, checksums }
    }

    fn page(checksums: &[&str]) -> ListPage {
        ListPage { objects: vec![listed(checksums)], ..ListPage::default() }
    }

    #[test]
    fn objects_without_our_checksum_are_foreign() {
        let origins = Origins::new(Attrs::Auto, Some(true));
        assert!(origins.seen(&listed(&["CRC32C"]), true).asks);
        assert!(!origins.seen(&listed(&["CRC64NVME"]), true).asks);
        assert!(!origins.seen(&listed(&[]), true).asks);
    }

    #[test]
    fn where_list_tells_no_checksums_every_object_is_asked_for() {
        let mute = Origins::new(Attrs::Auto, Some(false));
        assert!(mute.seen(&listed(&[]), mute.tells(&page(&["CRC32C"]))).asks);
        let unknown = Origins::new(Attrs::Auto, None);
        assert!(!unknown.tells(&page(&[])));
        assert!(unknown.tells(&page(&["SHA256"])));
        assert!(unknown.tells(&page(&[])), "what one page proved holds for the next");
    }

    #[test]
    fn the_user_may_want_all_heads_or_none() {
        assert!(Origins::new(Attrs::Full, Some(true)).seen(&listed(&[]), true).asks);
        assert!(!Origins::new(Attrs::List, Some(false)).seen(&listed(&["CRC32C"]), false).asks);
    }
}
