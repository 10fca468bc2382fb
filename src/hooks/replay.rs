//! Events told again, for objects that are in the bucket: as if each had been created just now.
//!
//! ```text
//! LIST, page by page ─ since, rules ─→ HEAD: what it is now, which hooks made it ─→ journal.events
//! ```
//!
//! From there they go the way of all events, but to the chosen hooks only. One page is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::invocation::Hook;
use super::invoke::find;
use super::{Error, Hooks, Result, lineage};
use crate::bucket::{ETag, ListRequest, Listed};
use crate::error::Kind;
use crate::journal::{EventName, NewEvent, stored_etag};

/// Objects that are asked for at a time.
const PARALLEL: usize = 16;

/// Which objects, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replay {
    /// What their paths in the mount begin with.
    pub prefix: String,
    /// Written then, in milliseconds since 1970, or later. Servers tell whole seconds.
    pub since_ms: Option<u64>,
    /// For these hooks; none: for all that take events.
    pub hooks: Vec<String>,
    /// Only count.
    pub dry_run: bool,
}

/// How far a replay is.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Replayed {
    /// Objects that were looked at.
    pub listed: u64,
    /// Those of them that are told to hooks.
    pub objects: u64,
    /// How many are told to each of the chosen hooks.
    pub hooks: BTreeMap<String, u64>,
}

impl Hooks {
    /// Tells hooks again of what is in the bucket; `heard` hears of it after each page. What was told is
    /// durable by then, and stays when this is dropped.
    ///
    /// # Errors
    /// When there is no such hook, the bucket can't be asked, it could not be stored, or hooks are stopped.
    pub async fn replay(&self, replay: &Replay, heard: impl FnMut(&Replayed)) -> Result<Replayed> {
        self.unless_stopping(self.replay_pages(replay, heard)).await
    }

    async fn replay_pages(&self, replay: &Replay, mut heard: impl FnMut(&Replayed)) -> Result<Replayed> {
        let chosen = self.chosen(&replay.hooks)?;
        let surroundings = &self.worker.surroundings;
        let since = replay.since_ms.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        let prefix = format!("{}{}", surroundings.runner.prefix, replay.prefix);
        let mut request = ListRequest { prefix, ..ListRequest::default() };
        let hooks = chosen.iter().map(|hook| (hook.spec.name.clone(), 0)).collect();
        let mut so_far = Replayed { hooks, ..Replayed::default() };
        loop {
            let page = surroundings.bucket.list(&request).await.map_err(Error::Bucket)?;
            so_far.listed += page.objects.len() as u64;
            let wanted = page.objects.into_iter().filter(|object| since.is_none_or(|since| object.modified >= since));
            let wanted = wanted.filter(|object| !self.names(&chosen, &as_listed(object)).is_empty());
            let events: Vec<NewEvent> = stream::iter(wanted)
                .map(|object| self.as_it_is(&chosen, object))
                .buffered(PARALLEL)
                .try_filter_map(|event| std::future::ready(Ok(event)))
                .try_collect()
                .await?;
            for name in events.iter().flat_map(|event| &event.replayed_for) {
                *so_far.hooks.entry(name.clone()).or_default() += 1;
            }
            so_far.objects += events.len() as u64;
            if !replay.dry_run && !events.is_empty() {
                self.worker.journal.settle(&[], events).await?;
            }
            heard(&so_far);
            request.token = page.next;
            if request.token.is_none() {
                return Ok(so_far);
            }
        }
    }

    fn chosen(&self, names: &[String]) -> Result<Vec<Arc<Hook>>> {
        let all = self.worker.hooks();
        if names.is_empty() {
            return Ok(all.iter().filter(|hook| hook.spec.mode.takes_events()).cloned().collect());
        }
        names.iter().map(|name| find(&all, name)).collect::<Result<Vec<_>>>().and_then(|hooks| {
            match hooks.iter().find(|hook| !hook.spec.mode.takes_events()) {
                None => Ok(hooks),
                Some(hook) => Err(Error::Asked(format!("the hook {} takes no events", hook.spec.name))),
            }
        })
    }

    /// Those of the chosen hooks that see this.
    fn names(&self, chosen: &[Arc<Hook>], fact: &NewEvent) -> Vec<String> {
        // What lies under the name of a view is hidden by it.
        let Ok(path) = self.worker.surroundings.path_of(fact) else { return Vec::new() };
        let is_hidden = self.view_of(&fact.key).is_some();
        let wanting = chosen.iter().filter(|hook| !is_hidden && hook.spec.wants(fact, path));
        wanting.map(|hook| hook.spec.name.clone()).collect()
    }

    /// The event of an object, with what only HEAD tells; none if nobody is to see it, or it is gone.
    async fn as_it_is(&self, chosen: &[Arc<Hook>], object: Listed) -> Result<Option<NewEvent>> {
        let found = match self.worker.surroundings.bucket.head(&object.key).await {
            Ok(found) => found,
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Bucket(error)),
        };
        let lineage = lineage::of(&found.metadata);
        let fact = NewEvent { lineage, ..as_listed(&Listed { etag: found.etag, size: found.size, ..object }) };
        let replayed_for = self.names(chosen, &fact);
        Ok((!replayed_for.is_empty()).then_some(NewEvent { replayed_for, ..fact }))
    }
}

fn as_listed(object: &Listed) -> NewEvent {
    let (size, etag) = (object.size, Some(stored_etag(&object.etag)));
    NewEvent { size, etag, ..NewEvent::now(event_name(&object.etag), &object.key) }
}

/// How an object came to be is told by its tag: that of an upload in parts ends in their number.
fn event_name(etag: &ETag) -> EventName {
    if etag.as_str().contains('-') { EventName::CreatedMultipart } else { EventName::CreatedPut }
}
