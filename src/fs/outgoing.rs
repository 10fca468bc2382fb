//! Parts of a large new file leave while it is still being written.
//!
//! Once a draft without a version below it is large enough, an upload begins behind it and sends each
//! part that is whole, within the memory for parts; a write waits for none of it. The commit sends what
//! is left and what was written over, and completes. Attributes go with the begin of an upload, so for a
//! while writes do not move the file's times; what is different in the end is set by a copy of the
//! object onto itself.

use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::commit::Written;
use super::content::Content;
use super::doubt::{Sending, may_be_done};
use super::inodes::Ino;
use super::persist::lost_is_stale;
use super::{Fs, Result};
use crate::bucket::attributes::{Attributes, is_same_but_ctime};
use crate::bucket::upload::{FileParts, MULTIPART_FROM_BYTES, OnBegin, UploadAhead, UploadSettings};
use crate::bucket::{self, Condition, CopyRequest, ETag, PutOptions};
use crate::cache::Pinned;
use crate::error::Kind;
use crate::journal::{Intent, IntentId, Journal};

/// So long after it was begun, writes leave the times of a file as the upload has them.
const TIMES_KEPT: Duration = Duration::from_secs(10);

/// The upload behind a draft, if there is one.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Option<Arc<Outgoing>>>);

/// An upload behind a draft, and what must be known of it at the commit. Aborted when it is dropped
/// before it was completed, in the journal too.
#[derive(Debug)]
pub struct Outgoing {
    upload: UploadAhead,
    source: FileParts,
    /// Names the operation in the object's metadata.
    op_id: Option<String>,
    begun: Instant,
    intents: Arc<Mutex<Vec<IntentId>>>,
    journal: Arc<Journal>,
    runtime: Handle,
    sender: Mutex<Option<AbortHandle>>,
}

impl Slot {
    /// The upload under way.
    pub fn current(&self) -> Option<Arc<Outgoing>> {
        self.0.lock().clone()
    }

    /// These bytes were written.
    pub fn wrote(&self, range: &std::ops::Range<u64>) {
        if let Some(outgoing) = self.current() {
            outgoing.upload.wrote(range);
        }
    }

    /// The draft goes on in another file, which has the same bytes. With the draft locked.
    pub fn move_to(&self, reader: impl FnOnce() -> io::Result<File>) -> io::Result<()> {
        if let Some(outgoing) = self.current() {
            outgoing.source.move_to(reader()?);
        }
        Ok(())
    }

    /// The file was cut: an upload that has more of it is worth nothing, nor is one of a file so small.
    pub fn cut(&self, size: u64) {
        let is_small = size < MULTIPART_FROM_BYTES;
        if self.current().is_some_and(|outgoing| is_small || outgoing.upload.reaches_beyond(size)) {
            self.discard();
        }
    }

    /// Gives the upload up.
    pub fn discard(&self) {
        if let Some(outgoing) = self.0.lock().take() {
            outgoing.stop();
        }
    }

    /// Whether the file's times are to stay as its upload has them.
    pub fn keeps_times(&self) -> bool {
        self.current().is_some_and(|outgoing| outgoing.begun.elapsed() < TIMES_KEPT)
    }

    /// Puts an upload here unless there is one; true if it was put.
    fn begin(&self, outgoing: &Arc<Outgoing>) -> bool {
        let mut slot = self.0.lock();
        if slot.is_none() {
            *slot = Some(outgoing.clone());
            return true;
        }
        false
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Outgoing {
    /// Names the operation in the object's metadata.
    pub fn op_id(&self) -> Option<&String> {
        self.op_id.as_ref()
    }

    /// What its object carries at first.
    pub fn options(&self) -> &PutOptions {
        self.upload.options()
    }

    /// Its records in the journal, for whoever settles them.
    pub fn take_intents(&self) -> Vec<IntentId> {
        std::mem::take(&mut self.intents.lock())
    }

    /// Sends what is left of this generation, and completes.
    async fn finish(
        &self,
        content: &Content,
        generation: u64,
        size: u64,
        condition: &Condition,
    ) -> bucket::Result<ETag> {
        let carries = Attributes::from_metadata(&self.upload.options().metadata);
        let sending = Sending::version(content, generation, size, carries);
        let finished = self.upload.finish(&self.source, size, condition).await;
        sending.end(finished.as_ref().is_err_and(|error| may_be_done(error.kind)));
        finished
    }

    fn stop(&self) {
        if let Some(sender) = self.sender.lock().take() {
            sender.abort();
        }
    }

    /// Sends what is whole from now on.
    fn start(self: &Arc<Self>, content: Weak<Content>) {
        let outgoing = self.clone();
        let sending = self.runtime.spawn(async move {
            let written = || content.upgrade().map(|content| content.draft.lock().written().clone());
            let sent = outgoing.upload.send_written(&outgoing.source, || written().unwrap_or_default()).await;
            if let Err(error) = sent {
                tracing::debug!(cause = %error, "a part could not be sent ahead; its file's commit will send it");
            }
        });
        *self.sender.lock() = Some(sending.abort_handle());
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Whoever closes the journal need not wait for this.
        let journal = Arc::downgrade(&self.journal);
        let (session, intents) = (self.upload.take_session(), self.intents.clone());
        if session.is_none() && intents.lock().is_empty() {
            return;
        }
        self.runtime.spawn(async move {
            if let Some(session) = session {
                session.abort().await;
            }
            // Not before: it may have been on its way to the journal until now.
            let intents = std::mem::take(&mut *intents.lock());
            if let Some(journal) = journal.upgrade().filter(|_| !intents.is_empty())
                && let Err(error) = journal.settle(&intents, Vec::new()).await
            {
                tracing::debug!(cause = %error, "the next start looks for an upload that is gone");
            }
        });
    }
}

impl Fs {
    /// After a write, now and then: parts may leave.
    pub(super) fn send_ahead(&self, ino: Ino, content: &Arc<Content>) {
        let Some(outgoing) = content.outgoing.current() else { return self.begin_ahead(ino, content) };
        outgoing.upload.wake();
    }

    fn begin_ahead(&self, ino: Ino, content: &Arc<Content>) {
        let told = self.tree.lock().get(ino).is_some_and(|node| node.told && node.linked);
        let Some(runtime) = self.runtime.clone().filter(|_| told) else { return };
        // What goes wrong here goes wrong again at the commit, where somebody hears of it.
        let Ok(snapshot) = self.snapshot(ino) else { return };
        if self.is_guarded_file(&snapshot.key) {
            // Nothing of it leaves before it was allowed.
            return;
        }
        let Ok(outgoing) = self.new_outgoing(ino, content, &snapshot.key, self.new_op_id(), runtime) else { return };
        if content.outgoing.begin(&outgoing) {
            // The draft may have left its file before anybody could tell this upload.
            let mut draft = content.draft.lock();
            if content.outgoing.move_to(|| draft.reader()).is_err() {
                return content.outgoing.discard();
            }
            drop(draft);
            outgoing.start(Arc::downgrade(content));
        }
    }

    /// The upload that a commit under this key is to finish: the one under way, or a new one.
    pub(super) async fn outgoing_to_finish(&self, ino: Ino, content: &Content, key: &str) -> Result<Arc<Outgoing>> {
        if let Some(outgoing) = content.outgoing.current().filter(|outgoing| outgoing.upload.key() == key) {
            return Ok(outgoing);
        }
        self.renew_outgoing(ino, content, key, self.new_op_id()).await
    }

    /// Begins anew.
    pub(super) async fn renew_outgoing(
        &self,
        ino: Ino,
        content: &Content,
        key: &str,
        op_id: Option<String>,
    ) -> Result<Arc<Outgoing>> {
        self.ensure_told(ino).await?;
        let outgoing = self.new_outgoing(ino, content, key, op_id, Handle::current())?;
        loop {
            content.outgoing.discard();
            // A writer may have been faster; his is for another key, or without an operation's id.
            if content.outgoing.begin(&outgoing) {
                return Ok(outgoing);
            }
        }
    }

    /// Sends what is left of the draft, and completes. Its writers are kept out meanwhile.
    pub(super) async fn finish_outgoing(
        &self,
        ino: Ino,
        content: &Content,
        outgoing: &Arc<Outgoing>,
        condition: &Condition,
    ) -> Result<Written> {
        let (generation, size) = {
            let draft = content.draft.lock();
            (content.generation(), draft.size())
        };
        let mut outgoing = outgoing.clone();
        let mut finished = outgoing.finish(content, generation, size, condition).await;
        if finished.as_ref().is_err_and(|error| error.kind == Kind::NoSuchUpload) {
            // A rule of the bucket may have ended it: it was under way for as long as the file was written.
            let (key, op_id) = (outgoing.upload.key().to_owned(), outgoing.op_id.clone());
            outgoing = self.renew_outgoing(ino, content, &key, op_id).await?;
            finished = outgoing.finish(content, generation, size, condition).await;
        }
        let etag = match finished {
            Ok(etag) => etag,
            Err(error) => {
                if !may_go_on(&error) {
                    content.outgoing.discard();
                }
                return Err(lost_is_stale(error));
            }
        };
        content.outgoing.discard();
        let uploads = outgoing.take_intents();
        let stat = self.snapshot(ino)?.stat;
        let metadata = stat.to_attributes(outgoing.op_id.clone()).to_metadata()?;
        let now = PutOptions { metadata, properties: stat.properties, condition: Condition::None };
        let begun_with = outgoing.upload.options();
        // When a mode was set to what it was is not worth a copy of all of it.
        let same = is_same_but_ctime(&now.metadata, &begun_with.metadata) && now.properties == begun_with.properties;
        let restated = if same { None } else { Some(now) };
        Ok(Written { restated, uploads, ..Written::in_parts(generation, etag, size) })
    }

    /// Gives the version that was just written the attributes that changed while its parts were sent: a
    /// copy onto itself.
    pub(super) async fn restate(
        &self,
        ino: Ino,
        content: &Content,
        pinned: &mut Pinned,
        options: PutOptions,
    ) -> Result<()> {
        let key = pinned.key.to_string();
        let from_etag = Some(pinned.etag.clone());
        let request = CopyRequest { from_etag, replace: Some(options), ..CopyRequest::new(key.clone(), key.clone()) };
        let carries = request.replace.as_ref().map(|options| Attributes::from_metadata(&options.metadata));
        let sending = Sending::version(content, content.stored(), pinned.size, carries.unwrap_or_default());
        let copied = self.copy(&request, pinned.size).await;
        sending.end(copied.as_ref().is_err_and(|error| may_be_done(error.kind)));
        match copied.map_err(lost_is_stale) {
            Ok(etag) => {
                pinned.etag = etag;
                self.stored(ino, &key, &pinned.etag);
                content.draft.lock().rebase(pinned.clone());
                Ok(())
            }
            Err(error) => {
                if error.is_conflict() {
                    // Theirs by now, with attributes of its own.
                    self.tree.lock().doubt(ino);
                } else {
                    content.attributes_dirty.store(true, Ordering::Release);
                }
                // Under the new name of a rename the bytes are there: that is made, whatever becomes of a
                // mode that was changed just now.
                if self.is_under(ino, &key) { Err(error) } else { Ok(()) }
            }
        }
    }

    fn new_outgoing(
        &self,
        ino: Ino,
        content: &Content,
        key: &str,
        op_id: Option<String>,
        runtime: Handle,
    ) -> Result<Arc<Outgoing>> {
        let source = FileParts::from(content.draft.lock().reader()?);
        let stat = self.snapshot(ino)?.stat;
        let metadata = stat.to_attributes(op_id.clone()).to_metadata()?;
        let options = PutOptions { metadata, properties: stat.properties, condition: Condition::None };
        let intents = Arc::<Mutex<Vec<IntentId>>>::default();
        let on_begin = Some(noting_upload(&self.journal, &intents, key));
        let settings = UploadSettings { on_begin, ..self.settings.upload.clone() };
        let upload = UploadAhead::new(self.bucket.clone(), key, options, settings);
        let (journal, sender, begun) = (self.journal.clone(), Mutex::default(), Instant::now());
        Ok(Arc::new(Outgoing { upload, source, op_id, begun, intents, journal, runtime, sender }))
    }

    /// What a version is to carry that a crash may leave in doubt.
    pub(super) fn new_op_id(&self) -> Option<String> {
        self.tells_hooks().then(|| uuid::Uuid::now_v7().to_string())
    }
}

/// Whether parts that were sent may be used by the next try.
fn may_go_on(error: &bucket::Error) -> bool {
    !matches!(error.kind, Kind::Changed | Kind::NotFound | Kind::NoSuchUpload | Kind::Refused)
}

/// Notes an upload in the journal as soon as it is begun, so that the next start aborts it if a crash
/// leaves it: parts are billed.
pub fn noting_upload(journal: &Arc<Journal>, noted: &Arc<Mutex<Vec<IntentId>>>, key: &str) -> OnBegin {
    let (journal, noted, key) = (journal.clone(), noted.clone(), key.to_owned());
    Arc::new(move |upload_id| {
        let (journal, noted, key) = (journal.clone(), noted.clone(), key.clone());
        Box::pin(async move {
            match journal.intend(Intent::Upload { key, upload_id }).await {
                Ok(id) => noted.lock().push(id),
                // The upload can do without; only its remains would be found by nobody.
                Err(error) => tracing::warn!(cause = %error, "an upload is not in the journal"),
            }
        })
    })
}
