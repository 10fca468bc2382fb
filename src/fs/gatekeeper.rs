//! Somebody may forbid what a close, a rename or an unlink is about to do: he is asked before the bucket
//! hears of it.
//!
//! What is asked about is what hooks would be told of afterwards. A draft is asked about once for each
//! generation and key, under a freeze that lasts until it is stored: what was allowed is what is sent.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use nix::errno::Errno;
use tokio::sync::RwLockWriteGuard;

use super::commit::admit;
use super::content::Content;
use super::inodes::Ino;
use super::persist::Snapshot;
use super::stat::FileKind;
use super::{Error, Fs, Result};
use crate::bucket::ETag;
use crate::bucket::upload::MULTIPART_FROM_BYTES;
use crate::journal::EventName;

/// Something that is about to happen to an object.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub event: EventName,
    pub key: String,
    pub size: u64,
    /// What the object is to hold; `None` for a removal.
    pub bytes: Option<Proposed>,
}

/// Where proposed bytes lie.
#[derive(Clone, Debug)]
pub enum Proposed {
    /// A file that nobody changes until the answer is there. It must not be changed, nor kept.
    File(PathBuf),
    /// A version in the bucket.
    Version { key: String, etag: ETag },
}

/// What becomes of a proposal.
#[derive(Clone, Debug)]
pub enum Answer {
    Allowed,
    Refused(Refusal),
    /// Nobody could be asked, and why: it is not done, and may be proposed again.
    Unanswered(String),
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the program sees.
    pub errno: Errno,
    /// The name of who refused.
    pub by: String,
    pub reason: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused by hook \"{}\" with {:?}: {}", self.by, self.errno, self.reason)
    }
}

/// Who is asked.
#[async_trait]
pub trait Gatekeeper: fmt::Debug + Send + Sync {
    /// Whether he wants to be asked of anything at all.
    fn is_awake(&self) -> bool;
    /// Whether he wants to be asked of this. At once.
    fn guards(&self, event: EventName, key: &str) -> bool;
    /// Takes as long as it takes, but not for ever.
    async fn ask(&self, proposal: Proposal) -> Answer;
    /// What he, or who stands behind him, has done with a version since it was stored, in words; without an ETag
    /// it is still to be stored. `None` where nobody does anything with it.
    async fn tell_of(&self, _key: &str, _etag: Option<&ETag>) -> Option<String> {
        None
    }
}

/// What was said of a draft, by key: of one generation.
#[derive(Debug, Default)]
pub struct Verdicts {
    generation: u64,
    by_key: Vec<(String, Said)>,
}

/// That it is allowed, or why not.
pub type Said = std::result::Result<(), Refusal>;

/// Keys that a draft can have been asked about: a few renames.
const MAX_VERDICTS: usize = 8;

impl Verdicts {
    /// What was said of this generation under this key, if anything was.
    fn of(&self, generation: u64, key: &str) -> Option<Said> {
        let said = self.by_key.iter().find(|(known, _)| known == key).filter(|_| self.generation == generation);
        said.map(|(_, said)| said.clone())
    }

    /// Notes it.
    pub fn note(&mut self, generation: u64, key: &str, said: Said) {
        if self.generation != generation {
            *self = Self { generation, by_key: Vec::new() };
        }
        self.by_key.retain(|(known, _)| known != key);
        if self.by_key.len() == MAX_VERDICTS {
            drop(self.by_key.remove(0));
        }
        self.by_key.push((key.to_owned(), said));
    }

    /// Whether this generation was asked about under this key, and allowed.
    pub fn allow(&self, generation: u64, key: &str) -> bool {
        self.of(generation, key) == Some(Ok(()))
    }
}

/// Keeps a draft as it is.
pub type Frozen<'a> = RwLockWriteGuard<'a, ()>;

impl Fs {
    /// From now on nothing happens in the bucket that this one does not allow. A second one is not taken.
    pub fn guard_with(&self, gatekeeper: std::sync::Arc<dyn Gatekeeper>) {
        let _ = self.gatekeeper.set(gatekeeper);
    }

    /// Whether somebody has to be asked of this.
    pub(super) fn is_guarded(&self, event: EventName, key: &str) -> bool {
        self.gatekeeper.get().is_some_and(|gatekeeper| gatekeeper.guards(event, key))
    }

    /// Whether anybody wants to be asked of anything.
    pub(super) fn has_gatekeeper(&self) -> bool {
        self.gatekeeper.get().is_some_and(|gatekeeper| gatekeeper.is_awake())
    }

    /// Whether anybody has to be asked before a file of this name is stored, whatever its size.
    pub(super) fn is_guarded_file(&self, key: &str) -> bool {
        self.is_guarded(EventName::CreatedPut, key) || self.is_guarded(EventName::CreatedMultipart, key)
    }

    async fn ask(&self, proposal: Proposal) -> Result<()> {
        let Some(gatekeeper) = self.gatekeeper.get().filter(|it| it.guards(proposal.event, &proposal.key)) else {
            return Ok(());
        };
        match gatekeeper.ask(proposal).await {
            Answer::Allowed => Ok(()),
            Answer::Refused(refusal) => Err(Error::Vetoed(refusal)),
            Answer::Unanswered(why) => Err(Error::Unasked(why)),
        }
    }

    /// Whether the object may go.
    pub(super) async fn permit_removal(&self, there: &Snapshot) -> Result<()> {
        if there.etag.is_none() || there.stat.kind != FileKind::File {
            return Ok(());
        }
        self.permit_removal_of(&there.key).await
    }

    /// The same of an object of which only the key is known.
    pub(super) async fn permit_removal_of(&self, key: &str) -> Result<()> {
        let (event, key) = (EventName::RemovedDelete, key.to_owned());
        self.ask(Proposal { event, key, size: 0, bytes: None }).await
    }

    /// Whether a version may be copied to a key.
    pub(super) async fn permit_copy(&self, from: &str, etag: &ETag, size: u64, to: &str) -> Result<()> {
        let bytes = Some(Proposed::Version { key: from.to_owned(), etag: etag.clone() });
        self.ask(Proposal { event: EventName::CreatedCopy, key: to.to_owned(), size, bytes }).await
    }

    /// Whether a file may have another key. Nothing has happened yet.
    pub(super) async fn permit_rename(
        &self,
        ino: Ino,
        before: &Snapshot,
        content: Option<&Content>,
        to: &str,
    ) -> Result<()> {
        match content.filter(|content| content.bytes_dirty()) {
            Some(content) => drop(self.permit_draft(ino, content, to, None).await?),
            None => {
                if let Some(etag) = before.etag.as_ref().filter(|_| before.stat.kind == FileKind::File) {
                    self.permit_copy(&before.key, etag, before.stat.size, to).await?;
                }
            }
        }
        self.permit_removal(before).await
    }

    /// Whether a draft may become the object at `key`. It stays as it was asked about while the answer
    /// lives; `None`: nobody guards that key. `EAGAIN` if `only` one generation is wanted, and this is
    /// another.
    ///
    /// # Errors
    /// [`Error::Vetoed`]; the bytes are kept then, unless the file has another name so far.
    pub(super) async fn permit_draft<'a>(
        &self,
        ino: Ino,
        content: &'a Content,
        key: &str,
        only: Option<u64>,
    ) -> Result<Option<Frozen<'a>>> {
        let is_file = || self.tree.lock().get(ino).is_some_and(|node| node.stat.kind == FileKind::File);
        if !self.is_guarded_file(key) || !is_file() {
            return Ok(None);
        }
        self.complete(content).await?;
        let frozen = content.freeze.write().await;
        let (path, size, generation) = {
            let mut draft = content.draft.lock();
            (draft.path()?, draft.size(), content.generation())
        };
        admit(only, generation)?;
        let said = content.verdicts.lock().of(generation, key);
        if let Some(said) = said {
            return said.map(|()| Some(frozen)).map_err(Error::Vetoed);
        }
        let bytes = Some(Proposed::File(path.clone()));
        let asked = self.ask(Proposal { event: created_by(size), key: key.to_owned(), size, bytes }).await;
        match &asked {
            Ok(()) => content.verdicts.lock().note(generation, key, Ok(())),
            Err(Error::Vetoed(refusal)) if self.is_under(ino, key) => {
                self.keep_refused(content, &path, key, refusal).await;
                content.verdicts.lock().note(generation, key, Err(refusal.clone()));
            }
            Err(_) => {}
        }
        asked.map(|()| Some(frozen))
    }
}

/// How S3 calls it when a file of this size is stored.
fn created_by(size: u64) -> EventName {
    if size < MULTIPART_FROM_BYTES { EventName::CreatedPut } else { EventName::CreatedMultipart }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_of_one_generation_and_one_key() {
        let mut verdicts = Verdicts::default();
        assert!(!verdicts.allow(0, "a"));
        let refusal = Refusal { errno: Errno::EPERM, by: "h".into(), reason: "no".into() };
        verdicts.note(1, "a", Ok(()));
        verdicts.note(1, "b", Err(refusal.clone()));
        assert!(verdicts.allow(1, "a") && !verdicts.allow(1, "b") && !verdicts.allow(2, "a"));
        assert_eq!(verdicts.of(1, "b"), Some(Err(refusal)));
        verdicts.note(2, "b", Ok(()));
        assert!(!verdicts.allow(1, "a") && verdicts.allow(2, "b"), "what was said of other bytes is over");
        (0..20).for_each(|number| verdicts.note(2, &number.to_string(), Ok(())));
        assert_eq!(verdicts.by_key.len(), MAX_VERDICTS);
    }
}
