//! Attributes of closed files wait a moment before S3 is told: the rename or the write that often
//! follows a chmod or a utimes carries them, and one request is saved for each.
//!
//! A note in the journal answers for them meanwhile ([`Note::Attributes`]); the uploader sends them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::stream::{self, StreamExt};

use super::backlog::PARALLEL_UPLOADS;
use super::content::Content;
use super::doubt::is_of;
use super::inodes::{Ino, Node};
use super::persist::Snapshot;
use super::recovery::RecoveryReport;
use super::resume::Left;
use super::stat::FileKind;
use super::{Fs, Result};
use crate::bucket::{self, Condition, ETag, PutOptions};
use crate::error::Kind;
use crate::failpoint::{self, Failpoint};
use crate::journal::{Note, Sent, stored_etag};

/// What a note says that the object of a file is to get.
struct Noted {
    key: String,
    etag: Option<ETag>,
    size: u64,
    options: PutOptions,
    /// Versions of ours that S3 may have instead.
    earlier: Vec<Sent>,
}

impl Fs {
    /// Whether S3 has the bytes of a file, so that its attributes may wait.
    pub(super) fn attributes_may_wait(&self, ino: Ino, content: &Content) -> bool {
        let is_stored = || self.tree.lock().get(ino).is_some_and(|node| node.linked && node.etag.is_some());
        self.settings.attributes_wait && !content.bytes_dirty() && is_stored()
    }

    /// Notes what a file's attributes are, and has them sent soon. For callers that hold the namespace and
    /// the file's gate.
    pub(super) fn wait_with_attributes(&self, ino: Ino, content: &Content) -> Result<()> {
        let mut note = attributes_note(self.snapshot(ino)?)?;
        if let Note::Attributes { size, metadata, earlier, .. } = &mut note {
            *earlier = content.earlier(content.generation(), *size, metadata);
        }
        self.note_latest(&mut content.attributes_note.lock(), &note)?;
        failpoint::reach(Failpoint::AttributesNoted);
        self.backlog.add_attributes(ino, Instant::now());
        Ok(())
    }

    /// Notes something, in the place of what this note said before.
    pub(super) fn note_latest(&self, number: &mut Option<u64>, note: &Note) -> Result<()> {
        match *number {
            Some(number) => self.journal.note_again(number, note)?,
            None => *number = Some(self.journal.note(note)?),
        }
        Ok(())
    }

    /// What is done need not be looked at by the next start; if this fails, it is, to no harm.
    pub(super) fn close_notes(&self, numbers: &[u64]) {
        if let Err(error) = self.journal.close_notes(numbers) {
            tracing::warn!(cause = %error, "what was noted, and is done, is looked at once more by the next start");
        }
    }

    /// S3 has the attributes, or nobody wants them any more: unless they have changed again, the note is
    /// done.
    pub(super) fn end_waiting_attributes(&self, content: &Content) {
        let mut number = content.attributes_note.lock();
        if content.attributes_dirty.load(Ordering::Acquire) {
            return;
        }
        self.close_notes(number.take().as_slice());
    }

    /// Sends what waits at a directory and below it, where keys are about to change. For callers that have
    /// the namespace for themselves.
    pub(super) async fn send_waiting_attributes(&self, above: Ino) -> Result<()> {
        let waits = |node: &Node| {
            let is_waiting = |content: &Arc<Content>| content.attributes_note.lock().is_some();
            node.is_noted() || node.content.as_ref().is_some_and(is_waiting)
        };
        let waiting: Vec<Ino> = {
            let tree = self.tree.lock();
            let below = tree.nodes().filter(|node| node.linked && tree.is_within(node.ino, above));
            below.filter(|node| waits(node)).map(|node| node.ino).collect()
        };
        let sends = stream::iter(waiting).map(|ino| async move {
            let Some(content) = self.content(ino) else { return self.tell_noted(ino).await };
            let _gate = content.gate.lock().await;
            self.commit_gated(ino, &content).await?;
            // What an append leaves of them.
            if content.attributes_note.lock().is_some() { self.commit_gated(ino, &content).await } else { Ok(()) }
        });
        let outcomes: Vec<Result<()>> = sends.buffer_unordered(PARALLEL_UPLOADS).collect().await;
        outcomes.into_iter().collect()
    }

    /// After a crash: attributes that were noted go to the versions that they were meant for, where those
    /// are still there.
    ///
    /// # Errors
    /// Only when the journal itself cannot be read or written. What S3 cannot answer now is left for the
    /// next start.
    pub(super) async fn recover_attributes(&self, report: &mut RecoveryReport) -> Result<()> {
        // A later close on top of the same version carries them, and that version is to be there still.
        let closes = self.journal.open_intents()?.into_iter().filter_map(|(id, intent)| Left::of(id, &intent));
        let carried: HashSet<_> = closes.map(|left| (left.key, left.base_etag)).collect();
        let (mut latest, mut over) = (BTreeMap::new(), Vec::new());
        for (number, note) in self.journal.open_notes()? {
            match note {
                Note::Attributes { key, etag, .. } if carried.contains(&(key.clone(), etag.clone())) => {
                    over.push(number);
                }
                Note::Attributes { key, etag, size, metadata, properties, earlier } => {
                    let options = PutOptions { metadata, properties, condition: Condition::None };
                    let etag = etag.as_deref().map(ETag::new);
                    let noted = Noted { key: key.clone(), etag, size, options, earlier };
                    over.extend(latest.insert(key, (number, noted)).map(|(number, _)| number));
                }
                Note::Append { key, tail, metadata, properties } => {
                    let options = PutOptions { metadata, properties, condition: Condition::None };
                    self.recover_append(number, &key, &tail, options, report).await?;
                }
                Note::Remove { .. } | Note::Keep { .. } => {}
            }
        }
        self.journal.close_notes(&over)?;
        if !latest.is_empty() {
            failpoint::reach(Failpoint::RecoverAttributes);
        }
        let sends = stream::iter(latest.into_values()).map(|(number, noted)| async move {
            let restated = self.restate_noted(&noted).await;
            (number, noted.key, restated)
        });
        let mut sends = sends.buffer_unordered(PARALLEL_UPLOADS);
        while let Some((number, key, restated)) = sends.next().await {
            match restated {
                Ok(_) => report.finished += 1,
                // Another version is there now, or none.
                Err(error) if matches!(error.kind, Kind::Changed | Kind::NotFound) => report.dropped += 1,
                Err(error) => {
                    tracing::warn!(key = %key.escape_debug(), cause = %error, "left for the next start");
                    report.left += 1;
                    continue;
                }
            }
            failpoint::reach(Failpoint::RecoverAttributesSettle);
            self.index.remove(&key);
            self.journal.close_notes(&[number])?;
        }
        Ok(())
    }

    async fn restate_noted(&self, noted: &Noted) -> bucket::Result<ETag> {
        let Noted { key, etag, size, options, earlier } = noted;
        let restated = self.restate_object(key, etag.as_ref(), *size, options.clone()).await;
        match restated {
            Err(error) if error.kind == Kind::Changed && !earlier.is_empty() => {
                let there = self.bucket.head(key).await?;
                if there.size == *size && earlier.iter().any(|sent| is_of(sent, &there)) {
                    return self.restate_object(key, Some(&there.etag), *size, options.clone()).await;
                }
                Err(error)
            }
            restated => restated,
        }
    }
}

/// What the journal keeps of the attributes of a file or a directory.
pub(super) fn attributes_note(there: Snapshot) -> Result<Note> {
    let Snapshot { key, stat, etag, .. } = there;
    let size = if stat.kind == FileKind::Directory { 0 } else { stat.size };
    let (etag, metadata) = (etag.as_ref().map(stored_etag), stat.to_attributes(None).to_metadata()?);
    Ok(Note::Attributes { key, etag, size, metadata, properties: stat.properties, earlier: Vec::new() })
}
