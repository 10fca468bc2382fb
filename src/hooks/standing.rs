//! How far each hook is with a file, in a word: for whoever asks the file itself.

use std::sync::Arc;

use super::worker::Worker;
use super::{HookSpec, Hooks, Result};
use crate::bucket::ETag;
use crate::journal::{EventName, NewEvent, Standing, stored_etag};

impl Hooks {
    /// `HOOK:STATE` of each hook that fires for what is written at this key, in the order of the settings, with blanks
    /// between: `pending`, `running`, `done`, `failed`, or `unknown` where the journal remembers nothing of the
    /// version; `None` where no hook fires. Without an ETag the version is still to be stored. Reads the journal: some
    /// milliseconds.
    ///
    /// # Errors
    /// [`super::Error::Journal`].
    pub async fn standing(&self, key: &str, etag: Option<&ETag>) -> Result<Option<String>> {
        let hooks = self.worker.hooks();
        let Some(path) = key.strip_prefix(self.worker.surroundings.runner.prefix.as_str()) else { return Ok(None) };
        let specs: Vec<HookSpec> =
            hooks.iter().map(|hook| &hook.spec).filter(|spec| fires(spec, key, path)).cloned().collect();
        if specs.is_empty() {
            return Ok(None);
        }
        // What has ended without anybody waiting for it is an event when it is written.
        self.worker.journal.settle_gathered().await;
        let (worker, etag) = (Arc::clone(&self.worker), etag.map(stored_etag));
        let (key, path) = (key.to_owned(), path.to_owned());
        let look = move || {
            let words = specs.iter().map(|spec| look_for(&worker, spec, &key, &path, etag.as_deref()));
            Ok(Some(words.collect::<Result<Vec<_>>>()?.join(" ")))
        };
        // It fails when the program ends.
        tokio::task::spawn_blocking(look).await.unwrap_or(Ok(None))
    }
}

/// Whether it takes any event that comes of writing an object there.
fn fires(spec: &HookSpec, key: &str, path: &str) -> bool {
    let written = EventName::ALL.into_iter().filter(|name| *name != EventName::RemovedDelete);
    let mut written = written.map(|name| NewEvent::now(name, key));
    !spec.mode.is_sync() && spec.mode.view().is_none() && written.any(|event| spec.wants(&event, path))
}

fn look_for(worker: &Worker, spec: &HookSpec, key: &str, path: &str, etag: Option<&str>) -> Result<String> {
    let standing = match etag {
        None => Standing::Pending,
        Some(etag) => worker.journal.standing(&spec.name, key, etag, |event| spec.wants(event, path))?,
    };
    let word = match standing {
        Standing::Running => "running",
        Standing::Pending => "pending",
        Standing::Done => "done",
        Standing::Failed => "failed",
        Standing::Unknown => "unknown",
    };
    Ok(format!("{}:{word}", spec.name))
}
