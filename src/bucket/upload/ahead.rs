//! Parts that leave while their object is still being written.
//!
//! Whoever sends claims a part first; what is written into it from then on makes it stale. So one who
//! runs ahead of the writer and one who sends the rest at the end can work on the same upload, and no
//! part is told to be sent that holds other bytes than the object.

use std::collections::BTreeMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use rangemap::RangeSet;
use tokio::sync::{Notify, OnceCell, Semaphore};

use super::{PartSource, Schedule, Session, UploadSettings};
use crate::bucket::{Bucket, Condition, ETag, Part, PutOptions, Result};

/// An upload of an object that may still change. It begins with the first part; dropped before it was
/// completed, it is aborted.
#[derive(Debug)]
pub struct UploadAhead {
    bucket: Arc<dyn Bucket>,
    key: String,
    options: PutOptions,
    settings: UploadSettings,
    session: OnceCell<Session>,
    parts: Mutex<BTreeMap<u16, Claimed>>,
    slots: Semaphore,
    /// Told of whatever may let somebody go on.
    changed: Notify,
}

/// A part that somebody has taken on, and its range.
#[derive(Debug)]
struct Claimed {
    range: Range<u64>,
    state: State,
}

#[derive(Debug)]
enum State {
    Leaving {
        is_stale: bool,
    },
    Sent(Part),
    /// Written over since it was claimed. Two must not be on their way under one number: nobody could
    /// tell which of them the server has in the end.
    Stale,
}

impl UploadAhead {
    /// An upload to `key`; nothing is sent yet. The condition of `options` is not looked at.
    pub fn new(bucket: Arc<dyn Bucket>, key: &str, options: PutOptions, settings: UploadSettings) -> Self {
        let slots = Semaphore::new(settings.concurrency.max(1));
        let (key, session, parts, changed) = (key.to_owned(), OnceCell::new(), Mutex::default(), Notify::new());
        Self { bucket, key, options, settings, session, parts, slots, changed }
    }

    /// Where it goes.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the object will carry.
    pub fn options(&self) -> &PutOptions {
        &self.options
    }

    /// These bytes are others from now on. To be told after they were written.
    pub fn wrote(&self, range: &Range<u64>) {
        // Most are written behind all that was claimed.
        let mut parts = self.parts.lock();
        let behind = parts.values_mut().rev().take_while(|claimed| range.start < claimed.range.end);
        for claimed in behind.filter(|claimed| claimed.range.start < range.end) {
            claimed.state = match claimed.state {
                State::Leaving { .. } => State::Leaving { is_stale: true },
                _ => State::Stale,
            };
        }
    }

    /// There may be more to send.
    pub fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Whether a part was taken on that goes beyond this size.
    pub fn reaches_beyond(&self, size: u64) -> bool {
        self.parts.lock().values().any(|claimed| claimed.range.end > size)
    }

    /// Sends every part once it is `written`, until one fails: that one is left to
    /// [`finish`](Self::finish), and so is what is written over after it was sent.
    ///
    /// # Errors
    /// The first that there was; it never ends otherwise.
    pub async fn send_written(&self, source: &dyn PartSource, written: impl Fn() -> RangeSet<u64>) -> Result<()> {
        let mut leaving = FuturesUnordered::new();
        let failure = loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            while leaving.len() < self.settings.concurrency {
                let Some(claim) = self.claim_written(&written()) else { break };
                leaving.push(self.send(source, claim));
            }
            tokio::select! {
                Some(sent) = leaving.next() => if let Err(error) = sent { break error },
                () = changed => {}
            }
        };
        // What is on its way may still arrive.
        while leaving.next().await.is_some() {}
        Err(failure)
    }

    /// Sends what is left of `size` bytes that no longer change, and completes. After an error this may
    /// be tried again: parts that were sent stay.
    ///
    /// # Errors
    /// Those of the requests; [`crate::error::Kind::Local`] when the source cannot be read.
    pub async fn finish(&self, source: &dyn PartSource, size: u64, condition: &Condition) -> Result<ETag> {
        super::check_size(&self.key, size)?;
        let parts = self.send_rest(source, size).await?;
        self.session().await?.complete(&parts, condition).await
    }

    async fn send_rest(&self, source: &dyn PartSource, size: u64) -> Result<Vec<Part>> {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let claims = self.claim_rest(size);
            if !claims.is_empty() {
                let sends: Vec<_> = claims.into_iter().map(|claim| self.send(source, claim)).collect();
                let mut sends = stream::iter(sends).buffer_unordered(self.settings.concurrency.max(1));
                while let Some(sent) = sends.next().await {
                    sent?;
                }
            } else if let Some(parts) = self.sent() {
                return Ok(parts);
            } else {
                // Somebody else still sends a part.
                changed.await;
            }
        }
    }

    fn session(&self) -> BoxFuture<'_, Result<&Session>> {
        let begin = || Session::begin(&self.bucket, &self.key, &self.options, self.settings.on_begin.as_ref());
        Box::pin(self.session.get_or_try_init(begin))
    }

    fn send<'a>(&'a self, source: &'a dyn PartSource, claim: Claim<'a>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
            let session = self.session().await?;
            let part = session.send_part(source, claim.number, claim.range.clone(), &self.settings).await?;
            claim.sent(part);
            Ok(())
        })
    }

    /// Takes the upload out, if it was begun.
    pub fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// The first part that nobody has taken on and that is all written.
    fn claim_written(&self, written: &RangeSet<u64>) -> Option<Claim<'_>> {
        let end = written.iter().next_back().map_or(0, |range| range.end);
        let mut parts = self.parts.lock();
        let mut whole = self.schedule().parts().take_while(|(_, range)| range.end <= end);
        let is_ready =
            |(number, range): &(u16, Range<u64>)| !parts.contains_key(number) && written.gaps(range).next().is_none();
        let (number, range) = whole.find(is_ready)?;
        parts.insert(number, Claimed { range: range.clone(), state: State::Leaving { is_stale: false } });
        Some(Claim { upload: self, number, range })
    }

    /// All parts of an object of this size that are neither sent as they are now nor on their way.
    fn claim_rest(&self, size: u64) -> Vec<Claim<'_>> {
        let mut parts = self.parts.lock();
        let mut claims = Vec::new();
        for (number, range) in self.schedule().parts_of(size) {
            let open = parts.get(&number).is_none_or(|claimed| match claimed.state {
                State::Stale => true,
                State::Sent(_) => claimed.range != range,
                State::Leaving { .. } => false,
            });
            if open {
                parts.insert(number, Claimed { range: range.clone(), state: State::Leaving { is_stale: false } });
                claims.push(Claim { upload: self, number, range });
            }
        }
        claims
    }

    /// All parts, if all are sent.
    fn sent(&self) -> Option<Vec<Part>> {
        let parts = self.parts.lock();
        let sent = |claimed: &Claimed| if let State::Sent(part) = &claimed.state { Some(part.clone()) } else { None };
        parts.values().map(sent).collect()
    }

    fn schedule(&self) -> Schedule {
        Schedule::new(self.settings.part_bytes)
    }
}

/// A part that somebody has taken on. Dropped before it was sent, it is anybody's again.
struct Claim<'a> {
    upload: &'a UploadAhead,
    number: u16,
    range: Range<u64>,
}

impl Claim<'_> {
    fn sent(self, part: Part) {
        if let Some(claimed) = self.upload.parts.lock().get_mut(&self.number) {
            let is_stale = matches!(claimed.state, State::Leaving { is_stale: true });
            claimed.state = if is_stale { State::Stale } else { State::Sent(part) };
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut parts = self.upload.parts.lock();
        if parts.get(&self.number).is_some_and(|claimed| matches!(claimed.state, State::Leaving { .. })) {
            parts.remove(&self.number);
        }
        drop(parts);
        self.upload.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
