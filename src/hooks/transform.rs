//! What a transform makes of a version of an object: once, and kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::invocation::{Hook, Outcome, Publication, append};
use super::invoke::task;
use super::report::Report;
use super::workspace::Workspace;
use super::{Hooks, input, publish};
use crate::bucket::{ETag, Error, Result};
use crate::error::Kind;
use crate::journal::{EventName, NewEvent, stored_etag};

/// What all views keep on the local disk; the oldest go first.
const MAX_KEPT_BYTES: u64 = 1 << 30;

/// A file of a view.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) etag: ETag,
    pub(super) size: u64,
    pub(super) path: PathBuf,
    /// Of the source.
    pub(super) modified: SystemTime,
}

/// Where views keep their files, and who is making which.
#[derive(Debug)]
pub(super) struct Kept {
    directory: PathBuf,
    flights: Mutex<std::collections::HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Kept {
    pub(super) fn in_directory(directory: PathBuf) -> Self {
        Self { directory, flights: Mutex::default() }
    }

    fn find(&self, etag: &ETag) -> Option<Made> {
        let path = self.directory.join(etag.as_str());
        let metadata = fs::metadata(&path).ok()?;
        Some(Made { etag: etag.clone(), size: metadata.len(), path, modified: metadata.modified().ok()? })
    }

    /// Takes a file in.
    fn keep(&self, file: &Path, etag: &ETag, modified: SystemTime) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        fs::File::options().write(true).open(file)?.set_modified(modified)?;
        fs::rename(file, self.directory.join(etag.as_str()))?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            all.push(((metadata.ctime(), metadata.ctime_nsec()), metadata.len(), entry.path()));
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, size, _)| size).sum();
        // The last one is about to be read.
        for (_, size, path) in all.iter().rev().skip(1).rev() {
            if bytes <= MAX_KEPT_BYTES {
                break;
            }
            fs::remove_file(path)?;
            bytes -= size;
        }
        Ok(())
    }

    fn flight(&self, etag: &ETag) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock();
        flights.retain(|_, flight| Arc::strong_count(flight) > 1);
        Arc::clone(flights.entry(etag.as_str().to_owned()).or_default())
    }
}

impl Hooks {
    pub(super) fn prefix(&self) -> &str {
        &self.worker.surroundings.runner.prefix
    }

    /// The keys of all views, each ending in `/`.
    #[must_use]
    pub fn views(&self) -> Vec<String> {
        let hooks = self.worker.hooks();
        let views = hooks.iter().filter_map(|hook| hook.spec.mode.view());
        views.map(|view| format!("{}{view}", self.prefix())).collect()
    }

    /// The view that a key is in: its hook, its own key, and the path in it.
    pub(super) fn view_of(&self, key: &str) -> Option<(Arc<Hook>, String, String)> {
        let path = key.strip_prefix(self.prefix())?;
        let in_view = |hook: &Arc<Hook>| Some((Arc::clone(hook), path.strip_prefix(hook.spec.mode.view()?)?));
        let (hook, below) = self.worker.hooks().iter().find_map(in_view)?;
        let view = key[..key.len() - below.len()].to_owned();
        Some((hook, view, below.to_owned()))
    }

    /// A version that was made before.
    pub(super) fn kept(&self, _hook: &Hook, etag: &ETag) -> Option<Made> {
        self.made.find(etag)
    }

    /// What the hook makes of a version of an object; `None` if its rule does not show it.
    pub(super) async fn made(
        &self,
        hook: &Hook,
        source: &str,
        etag: &ETag,
        size: u64,
        modified: SystemTime,
    ) -> Option<Result<Made>> {
        let path = source.strip_prefix(self.prefix())?;
        if self.view_of(source).is_some() || !hook.spec.shows(path) {
            return None;
        }
        let made_as = tag(hook, source, etag);
        if let Some(made) = self.made.find(&made_as) {
            return Some(Ok(made));
        }
        let flight = self.made.flight(&made_as);
        let _alone = flight.lock().await;
        if let Some(made) = self.made.find(&made_as) {
            return Some(Ok(made));
        }
        let event = NewEvent { size, etag: Some(stored_etag(etag)), ..NewEvent::now(EventName::CreatedPut, source) };
        Some(self.make(hook, path, event, &made_as, modified).await)
    }

    async fn make(
        &self,
        hook: &Hook,
        path: &str,
        event: NewEvent,
        made_as: &ETag,
        modified: SystemTime,
    ) -> Result<Made> {
        let key = event.key.clone();
        let Ok(_place) = hook.places.acquire().await else { return Err(failed(&key, "hooks are being stopped")) };
        let surroundings = &self.worker.surroundings;
        let workspace = Workspace::new(&surroundings.runner.work).map_err(|error| local("HeadObject", &key, &error))?;
        let input = workspace.input().join(path);
        match input::fetch(surroundings.bucket.as_ref(), &event, &input, hook.spec.max_input_bytes).await {
            Ok(()) => {}
            Err(input::Error::Bucket(error)) => return Err(error),
            Err(error) => return Err(failed(&key, &error.to_string())),
        }
        let task = task(&hook.spec, event);
        let cancel = self.worker.cancel.subscribe();
        // Who only looks changes nothing.
        let ran = surroundings.runner.run(Publication::Dry, hook, &task, path, &workspace, cancel).await;
        let outcome = match ran.verdict.clone() {
            Err(outcome) => outcome,
            Ok(()) => match only_file(&workspace.output()) {
                Err(problem) => Outcome::Failed(problem),
                Ok(file) => {
                    self.made.keep(&file, made_as, modified).map_err(|error| local("HeadObject", &key, &error))?;
                    Outcome::Done(Vec::new())
                }
            },
        };
        let report = Report { again: None, ..surroundings.runner.report(hook, &task, &ran, &outcome) };
        append(hook, report.text()).await;
        if let Outcome::Failed(problem) | Outcome::Fatal(problem) = &outcome {
            hook.counters.failed(&key, problem);
            tracing::warn!("view of hook \"{}\": {}: {}", hook.spec.name, key.escape_debug(), problem.escape_debug());
            return Err(failed(&key, problem.lines().next().unwrap_or_default()));
        }
        self.made.find(made_as).ok_or_else(|| failed(&key, "hooks are being stopped"))
    }
}

/// The file that a hook leaves in `/out`, whatever its name.
fn only_file(out: &Path) -> std::result::Result<PathBuf, String> {
    let mut files = publish::collect(out, "").map_err(|error| error.to_string())?;
    match (files.pop(), files.pop()) {
        (Some(file), None) => Ok(file.file),
        (None, _) => Err("it left no file in /out".into()),
        (Some(_), Some(_)) => Err("it left more than one file in /out".into()),
    }
}

/// The version of a file in a view: of this object, in this version, by this hook as it is now.
fn tag(hook: &Hook, source: &str, etag: &ETag) -> ETag {
    let mut digest = Sha256::new();
    for part in [hook.identity.as_str(), source, etag.as_str()] {
        digest.update(part);
        digest.update([0]);
    }
    ETag::new(&hex::encode(digest.finalize())[..32])
}

fn failed(key: &str, cause: &str) -> Error {
    let (kind, operation, key, cause) = (Kind::HookFailed, "HeadObject", key.to_owned(), cause.to_owned());
    Error { kind, operation, key, cause, http_status: None, request_id: None }
}

/// The local disk's.
pub(super) fn local(operation: &'static str, key: &str, error: &io::Error) -> Error {
    let (kind, key, cause) = (Kind::Local, key.to_owned(), error.to_string());
    Error { kind, operation, key, cause, http_status: None, request_id: None }
}
