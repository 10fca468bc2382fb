//! Bytes that were refused: the latest of them stay in the state directory, for whoever wants them back,
//! and their file is again what it was before.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;

use super::content::{Content, Deferral};
use super::gatekeeper::Refusal;
use super::inodes::{Ino, Node, Tree};
use super::persist::Snapshot;
use super::resume::Left;
use super::{Fs, Result};
use crate::journal::stored_etag;

/// Files kept at most; when there are more, the oldest go.
const MAX_FILES: usize = 100;
/// The same for their bytes. The last one is kept however large it is.
const MAX_BYTES: u64 = 1 << 30;
/// Ending of the file that tells about another.
const ABOUT_SUFFIX: &str = ".json";

/// A file that was refused.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rejected {
    pub id: String,
    pub key: String,
    /// Where its bytes lie.
    pub path: PathBuf,
    pub size: u64,
    /// Since 1970.
    pub time_s: u64,
    /// Who refused it.
    pub by: String,
    /// `EPERM` and so on.
    pub errno: String,
    pub reason: String,
}

/// Where they are kept.
#[derive(Debug)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// Beside the directory of the drafts.
    pub fn beside(drafts: &Path) -> Self {
        Self(drafts.with_file_name("rejected"))
    }

    /// Copies a file here, in place of `before`.
    fn keep(&self, file: &Path, key: &str, refusal: &Refusal, before: Option<&str>) -> io::Result<Rejected> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let id = uuid::Uuid::now_v7().simple().to_string();
        let path = self.0.join(&id);
        let size = fs::copy(file, &path)?;
        let time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (errno, by, reason) = (format!("{:?}", refusal.errno), refusal.by.clone(), refusal.reason.clone());
        let rejected = Rejected { id, key: key.to_owned(), path, size, time_s, by, errno, reason };
        let about = serde_json::to_vec_pretty(&rejected)?;
        let place = self.about(&rejected.id);
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(place)?.write_all(&about)?;
        if let Some(before) = before {
            self.remove(before)?;
        }
        self.prune()?;
        Ok(rejected)
    }

    /// All of them, oldest first.
    pub fn list(&self) -> io::Result<Vec<Rejected>> {
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(ABOUT_SUFFIX)
                // Cut off by a crash: then nobody was told of it.
                && let Ok(rejected) = serde_json::from_slice::<Rejected>(&fs::read(&path)?)
            {
                found.push(rejected);
            }
        }
        // Ids grow with time.
        found.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(found)
    }

    /// Forgets one, if it is there.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        for path in [self.0.join(id), self.about(id)] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn about(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}{ABOUT_SUFFIX}"))
    }

    fn prune(&self) -> io::Result<()> {
        let all = self.list()?;
        let (mut count, mut bytes) = (all.len(), all.iter().map(|one| one.size).sum::<u64>());
        for oldest in &all {
            if count <= 1 || (count <= MAX_FILES && bytes <= MAX_BYTES) {
                break;
            }
            self.remove(&oldest.id)?;
            (count, bytes) = (count - 1, bytes - oldest.size);
        }
        Ok(())
    }
}

impl Fs {
    /// What was refused and is kept, oldest first.
    ///
    /// # Errors
    /// The local disk's.
    pub fn rejected(&self) -> io::Result<Vec<Rejected>> {
        self.shelf.list()
    }

    /// Forgets one that was refused, or all of them; returns how many there were.
    ///
    /// # Errors
    /// The local disk's.
    pub fn drop_rejected(&self, id: Option<&str>) -> io::Result<u64> {
        let meant = self.shelf.list()?.into_iter().filter(|one| id.is_none_or(|id| id == one.id));
        let mut count = 0;
        for one in meant {
            self.shelf.remove(&one.id)?;
            count += 1;
        }
        Ok(count)
    }

    /// Keeps a draft that was refused; nobody changes it meanwhile. A file that its writer changes and
    /// closes again and again is kept once.
    pub(super) async fn keep_refused(&self, content: &Content, draft: &Path, key: &str, refusal: &Refusal) {
        let (place, draft, own_key, why) = (self.shelf.clone(), draft.to_owned(), key.to_owned(), refusal.clone());
        let before = content.rejected.lock().take();
        let keep = move || place.keep(&draft, &own_key, &why, before.as_deref());
        let key = key.escape_debug();
        match tokio::task::spawn_blocking(keep).await.map_err(io::Error::other).flatten() {
            Ok(kept) => {
                tracing::warn!(%key, kept = %kept.path.display(), "not stored: {}", refusal.to_string().escape_debug());
                *content.rejected.lock() = Some(kept.id);
            }
            Err(cause) => tracing::error!(%key, %cause, "refused, and its bytes could not be kept"),
        }
    }

    /// A file whose bytes were refused becomes what it was before them, unless somebody still writes to it:
    /// what an allowed close of it has left to be sent, else what S3 has, else nothing. For callers that
    /// hold the file's gate.
    pub(super) async fn take_back_refused(&self, ino: Ino, content: &Arc<Content>) -> Result<()> {
        let there = self.snapshot(ino)?;
        let (parent, name) = {
            let mut tree = self.tree.lock();
            // Who opens it from here on finds the tree locked, and then another inode.
            if self.handles.is_written(ino) {
                return Ok(());
            }
            let node = tree.get(ino).ok_or(Errno::ESTALE)?;
            let (parent, name) = (node.parent, node.name.clone());
            tree.doubt(ino);
            tree.supersede(ino);
            if let Some(directory) = tree.directory_mut(parent) {
                directory.remove_absent(&name);
            }
            if let Some(left) = content.take_promise().map(|deferral| left_of(&there, deferral, content)) {
                self.link_left(&mut tree, &left, parent, &name);
            }
            (parent, name)
        };
        content.set_stored(content.generation());
        content.attributes_dirty.store(false, Ordering::Release);
        self.tell_kernel(|kernel| kernel.forget_name(parent, &name));
        self.undefer(ino, content).await
    }

    /// Gives the name to the version that a close has left to be sent.
    fn link_left(&self, tree: &mut Tree, left: &Left, parent: Ino, name: &str) {
        match self.node_of_left(left) {
            Ok(node) => {
                let ino = tree.pick_ino(&left.key, None);
                tree.link(Node { ino, parent, name: name.to_owned(), ..node });
                self.backlog.add(ino, left.size, Instant::now());
            }
            // The journal still has it.
            Err(cause) => tracing::error!(key = %left.key.escape_debug(), %cause, "left for the next start"),
        }
    }
}

/// A close that the journal answers for, as a crash would leave it.
fn left_of(there: &Snapshot, deferral: Deferral, content: &Content) -> Left {
    let size = deferral.kept.promised().unwrap_or(0);
    let earlier = content.earlier(deferral.generation, size, &deferral.metadata);
    Left {
        id: deferral.id,
        key: deferral.key,
        draft: deferral.kept.record(),
        size,
        metadata: deferral.metadata,
        base_etag: there.etag.as_ref().map(stored_etag),
        properties: there.stat.properties.clone(),
        allowed: deferral.allowed,
        earlier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> Refusal {
        Refusal { errno: Errno::EINVAL, by: "json".into(), reason: "no JSON".into() }
    }

    #[test]
    fn what_was_refused_is_kept_listed_replaced_and_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&dir.path().join("drafts"));
        assert_eq!(shelf.list().unwrap(), []);
        let draft = dir.path().join("draft");
        fs::write(&draft, "one").unwrap();
        let one = shelf.keep(&draft, "in/a", &refusal(), None).unwrap();
        fs::write(&draft, "two").unwrap();
        let two = shelf.keep(&draft, "in/a", &refusal(), Some(&one.id)).unwrap();
        assert_eq!((two.errno.as_str(), two.size), ("EINVAL", 3));
        assert_eq!(shelf.list().unwrap(), std::slice::from_ref(&two));
        assert_eq!(fs::read_to_string(&two.path).unwrap(), "two");
        shelf.remove(&two.id).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("rejected")).unwrap().count(), 0);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::beside(&dir.path().join("drafts"));
        let draft = dir.path().join("draft");
        fs::write(&draft, "x").unwrap();
        let kept: Vec<_> = (0..=MAX_FILES).map(|_| shelf.keep(&draft, "a", &refusal(), None).unwrap()).collect();
        assert_eq!(shelf.list().unwrap(), kept[1..]);
    }
}
