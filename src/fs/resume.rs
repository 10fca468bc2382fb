//! Closes that an earlier mount answered from its journal: their drafts are taken over as files that
//! wait to be sent, so that whoever looks sees them as they were left.

use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::content::{Content, Deferral};
use super::draft::Draft;
use super::inodes::{Ino, Node};
use super::stat::Stat;
use super::{Fs, Result};
use crate::bucket::attributes::Attributes;
use crate::bucket::{ETag, Metadata, Properties};
use crate::cache::Remembered;
use crate::journal::{DraftBytes, Intent, IntentId, Sent};
use crate::key::ROOT_INO;

/// A close that the journal answers for.
#[derive(Clone, Debug)]
pub struct Left {
    pub id: IntentId,
    pub key: String,
    pub draft: DraftBytes,
    pub size: u64,
    pub metadata: Metadata,
    pub base_etag: Option<String>,
    pub properties: Properties,
    /// A gatekeeper has allowed it.
    pub allowed: bool,
    /// What S3 may hold instead of the version `base_etag`.
    pub earlier: Vec<Sent>,
}

impl Left {
    /// Of an open intent, if it is one.
    pub fn of(id: IntentId, intent: &Intent) -> Option<Self> {
        match intent.clone() {
            Intent::Deferred { key, draft, size, metadata, base_etag, properties, allowed, earlier } => {
                Some(Self { id, key, draft, size, metadata, base_etag, properties, allowed, earlier })
            }
            _ => None,
        }
    }

    /// As the journal keeps it.
    pub fn intent(&self) -> Intent {
        let Self { key, draft, size, metadata, base_etag, properties, allowed, earlier, .. } = self.clone();
        Intent::Deferred { key, draft, size, metadata, base_etag, properties, allowed, earlier }
    }
}

impl Fs {
    /// Makes the file of a close that was left. `None` when its draft is gone, which no crash does.
    pub(super) async fn resume(&self, left: &Left) -> Result<Option<Ino>> {
        let is_gone = matches!(&left.draft, DraftBytes::File(name) if !self.settings.draft_dir.join(name).exists());
        if is_gone {
            tracing::error!(key = %left.key.escape_debug(), "its draft is gone from the state directory");
            return Ok(None);
        }
        let below = self.path_of(&left.key).ok_or(Errno::EINVAL)?;
        let (directories, name) = below.rsplit_once('/').unwrap_or(("", &below));
        let parent = self.resume_directories(directories).await?;
        let ino = self.index.get(&left.key).and_then(|remembered| remembered.attributes.ino);
        let mut node = self.node_of_left(left)?;
        let mut tree = self.tree.lock();
        if tree.child(parent, name).is_some() {
            // Two that were left have one name; what the journal holds of it comes with the next start.
            return Err(Errno::EEXIST.into());
        }
        let ino = tree.pick_ino(&left.key, ino);
        (node.ino, node.parent, node.name) = (ino, parent, name.to_owned());
        tree.link(node);
        Ok(Some(ino))
    }

    /// The file of a close that was left, which has no number and no place yet.
    pub(super) fn node_of_left(&self, left: &Left) -> Result<Node> {
        let attributes = Attributes::from_metadata(&left.metadata);
        let (properties, size) = (left.properties.clone(), left.size);
        let remembered = Remembered { size, attributes: attributes.clone(), properties, ..Remembered::default() };
        let stat = Stat::of_object(&remembered, false, &self.settings);
        let (draft, kept) = Draft::resume(&self.drafts, &left.draft, left.size)?;
        let content = Content::resumed(draft, attributes, &left.earlier);
        let generation = content.generation();
        if left.allowed {
            content.verdicts.lock().note(generation, &left.key, Ok(()));
        }
        let (key, metadata, id, allowed) = (left.key.clone(), left.metadata.clone(), left.id, left.allowed);
        content.set_deferral(Some(Deferral { generation, key, metadata, id, kept, allowed }));
        let mut node = Node::new(0, ROOT_INO, "", stat, Instant::now());
        node.etag = left.base_etag.as_deref().map(ETag::new);
        node.content = Some(Arc::new(content));
        Ok(node)
    }

    /// The nodes of the directories along a path. S3 is asked only where the index has forgotten one.
    async fn resume_directories(&self, path: &str) -> Result<Ino> {
        let mut parent = ROOT_INO;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let known = self.tree.lock().child(parent, name).map(|node| (node.ino, node.is_directory()));
            parent = match known {
                Some((ino, true)) => ino,
                Some(_) => return Err(Errno::ENOTDIR.into()),
                None => {
                    let key = self.child_key(parent, name, true)?;
                    let told = self.attributes(&key, true, None).await;
                    let unknown = || Remembered { untold: true, ..Remembered::default() };
                    let ino = self.adopt(parent, name, &key, true, &told.unwrap_or_else(|_| unknown()), Instant::now());
                    // The listings of its time will tell whether it is still there.
                    if let Some(node) = self.tree.lock().get_mut(ino) {
                        node.expire();
                    }
                    ino
                }
            };
        }
        Ok(parent)
    }
}
