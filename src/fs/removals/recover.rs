//! After a crash: what was noted and is still there goes now.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::book::{Kept, Removal};
use crate::bucket::ETag;
use crate::failpoint::{self, Failpoint};
use crate::fs::recovery::RecoveryReport;
use crate::fs::{Fs, Result};
use crate::journal::{Intent, Note};

impl Fs {
    /// Deletes what was noted and still is the version that was removed; what another client has
    /// written since stays. What S3 cannot answer now goes on waiting, unseen.
    ///
    /// # Errors
    /// Only when the journal itself cannot be read or written.
    pub(in crate::fs) async fn recover_removals(&self, report: &mut RecoveryReport) -> Result<()> {
        self.take_up_notes().await?;
        let waiting = |fs: &Self| {
            let book = fs.removals.waiting.book.lock();
            (book.len(), book.due().is_some())
        };
        let (noted, mut is_open) = waiting(self);
        if is_open {
            failpoint::reach(Failpoint::RecoverRemove);
        }
        let mut left = noted;
        while is_open {
            self.removal_round().await;
            let (now, is_due) = waiting(self);
            is_open = is_due && now < left;
            left = now;
        }
        if noted > left {
            failpoint::reach(Failpoint::RecoverRemoveSettle);
        }
        report.finished += noted - left;
        report.left += left;
        if waiting(self).1 {
            self.removals.ensure_task(&self.me);
        }
        Ok(())
    }

    async fn take_up_notes(&self) -> Result<()> {
        let mut under_way = HashSet::new();
        for (id, intent) in self.journal.open_intents()? {
            under_way.insert(id.0);
            if let Intent::Removed { notes } = intent {
                self.journal.close_notes(&notes)?;
                self.journal.settle(&[id], Vec::new()).await?;
            }
        }
        let (mut over, mut latest, mut attributes) = (Vec::new(), HashMap::new(), Vec::new());
        for (number, note) in self.journal.open_notes()? {
            match &note {
                // Who finishes the operation deletes this too, or nobody does.
                Note::Remove { intent: Some(id), .. } if under_way.contains(id) => over.push(number),
                Note::Attributes { key, .. } | Note::Append { key, .. } => attributes.push((key.clone(), number)),
                Note::Remove { key, .. } | Note::Keep { key, .. } => {
                    let earlier = latest.insert(key.clone(), (number, note));
                    over.extend(earlier.map(|(number, _)| number));
                }
            }
        }
        // What was removed after them needs none.
        over.extend(attributes.into_iter().filter(|(key, _)| latest.contains_key(key)).map(|(_, number)| number));
        self.journal.close_notes(&over)?;
        let mut book = self.removals.waiting.book.lock();
        for (key, (number, note)) in latest {
            match note {
                Note::Remove { etag, event, .. } => {
                    let etag = etag.as_deref().map(ETag::new);
                    book.add(&key, Removal { number, etag, event, sent: Vec::new(), doubtful: true, failed: None });
                }
                Note::Keep { metadata, .. } => {
                    book.keep(&key, Kept { number, metadata, since: SystemTime::now(), failed: None });
                }
                Note::Attributes { .. } | Note::Append { .. } => {}
            }
        }
        Ok(())
    }
}
