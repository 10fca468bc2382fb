//! Synchronous hooks: asked before a close, a rename or an unlink reaches the bucket; each may forbid it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Hooks;
use super::input;
use super::invocation::{Hook, Outcome, Publication, append};
use super::invoke::task;
use super::mode::OnError;
use super::report::{self, Report};
use super::sandbox::Captured;
use super::workspace::Workspace;
use crate::bucket::ETag;
use crate::error::{Errno, Kind};
use crate::journal::{EventName, NewEvent, Task, stored_etag};

/// What a hook that names none fails the call with: a rule forbids it, whoever asks.
const ERRNO_DEFAULT: Errno = Errno::EPERM;
/// What a hook can name. Not those that make programs try again, nor those that mean something else here
/// (`EIO`: bytes are damaged; `ESTALE`: another client was faster).
const ERRNOS: [(&str, Errno); 16] = [
    ("EPERM", Errno::EPERM),
    ("EACCES", Errno::EACCES),
    ("EINVAL", Errno::EINVAL),
    ("EBADMSG", Errno::EBADMSG),
    ("EILSEQ", Errno::EILSEQ),
    ("EPROTO", Errno::EPROTO),
    ("EFBIG", Errno::EFBIG),
    ("ENOSPC", Errno::ENOSPC),
    ("EDQUOT", Errno::EDQUOT),
    ("EROFS", Errno::EROFS),
    ("EEXIST", Errno::EEXIST),
    ("EBUSY", Errno::EBUSY),
    ("EDOM", Errno::EDOM),
    ("ERANGE", Errno::ERANGE),
    ("ENOTSUP", Errno::ENOTSUP),
    ("ECANCELED", Errno::ECANCELED),
];
/// How the line begins that says why.
const MARK: &str = "veto:";
const REASON_CHARS: usize = 300;

/// Something that is about to happen to an object.
#[derive(Clone, Debug)]
pub struct Question {
    pub event: EventName,
    pub key: String,
    pub size: u64,
    /// What it is to hold; `None` for a removal.
    pub bytes: Option<Bytes>,
}

/// Where the bytes of a question lie.
#[derive(Clone, Debug)]
pub enum Bytes {
    /// A local file that stays as it is until the answer is there.
    File(PathBuf),
    /// A version in the bucket.
    Version { key: String, etag: ETag },
}

/// What the hooks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allowed,
    Refused {
        hook: String,
        errno: Errno,
        reason: String,
    },
    /// Hooks are being stopped.
    Unanswered,
}

/// What a hook has said when it forbade something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Veto {
    errno: Errno,
    reason: String,
}

impl Veto {
    /// The first line of stdout as `veto: EINVAL no JSON in line 3`; both words may be missing. Without a
    /// reason the last line of stderr is one.
    pub(super) fn said(stdout: &Captured, stderr: &Captured) -> Self {
        let text = String::from_utf8_lossy(&stdout.bytes);
        let line = text.lines().next().and_then(|line| line.strip_prefix(MARK)).unwrap_or_default().trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match errno_named(word) {
            Some(errno) => Self::because(errno, rest, stderr),
            None => Self::because(ERRNO_DEFAULT, line, stderr),
        }
    }

    fn because(errno: Errno, reason: &str, stderr: &Captured) -> Self {
        let reason: String = reason.trim().chars().flat_map(harmless).take(REASON_CHARS).collect();
        let last_words = || report::last_words(stderr).unwrap_or_else(|| "it gives no reason".into());
        Self { errno, reason: if reason.is_empty() { last_words() } else { reason } }
    }
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with {:?}: {}", self.errno, self.reason)
    }
}

fn errno_named(name: &str) -> Option<Errno> {
    ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, errno)| *errno)
}

/// Reasons are told in terminals.
fn harmless(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

impl Hooks {
    /// Whether any hook is a synchronous one.
    #[must_use]
    pub fn has_synchronous(&self) -> bool {
        self.worker.hooks().iter().any(|hook| hook.spec.mode.is_sync())
    }

    /// Whether a hook wants to be asked before this happens.
    #[must_use]
    pub fn is_asked(&self, event: EventName, key: &str) -> bool {
        self.path_in_mount(key).is_some_and(|path| !self.asked(event, path).is_empty())
    }

    /// Asks each hook that wants to be asked, in the order of the settings, until one says no. A run ends
    /// with its timeout, and whoever waits for a place has one after that.
    pub async fn ask(&self, question: &Question) -> Decision {
        let Some(path) = self.path_in_mount(&question.key) else { return Decision::Allowed };
        for hook in self.asked(question.event, path) {
            let decision = self.ask_one(&hook, path, question).await;
            if decision != Decision::Allowed {
                return decision;
            }
        }
        Decision::Allowed
    }

    fn path_in_mount<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(self.worker.surroundings.runner.prefix.as_str())
    }

    fn asked(&self, event: EventName, path: &str) -> Vec<Arc<Hook>> {
        let hooks = self.worker.hooks();
        let synchronous = hooks.iter().filter(|hook| hook.spec.mode.is_sync());
        synchronous.filter(|hook| hook.spec.wants(&NewEvent::now(event, path), path)).cloned().collect()
    }

    async fn ask_one(&self, hook: &Hook, path: &str, question: &Question) -> Decision {
        let Ok(_place) = hook.places.acquire().await else { return Decision::Unanswered };
        let runner = &self.worker.surroundings.runner;
        let etag = match &question.bytes {
            Some(Bytes::Version { etag, .. }) => Some(stored_etag(etag)),
            _ => None,
        };
        let task =
            task(&hook.spec, NewEvent { size: question.size, etag, ..NewEvent::now(question.event, &question.key) });
        let prepared = async {
            let workspace = Workspace::new(&runner.work).map_err(|error| format!("no directory to run in: {error}"))?;
            self.bring(question, &workspace.input().join(path), hook.spec.max_input_bytes).await?;
            Ok::<_, String>(workspace)
        };
        let workspace = match prepared.await {
            Ok(workspace) => workspace,
            Err(problem) => return failed(hook, &task, problem).await,
        };
        let cancel = self.worker.cancel.subscribe();
        // It says yes or no, and writes nothing.
        let mut ran = runner.run(Publication::Dry, hook, &task, path, &workspace, cancel).await;
        let wrote = std::mem::take(&mut ran.wrote);
        if !wrote.is_empty()
            && let Err(error) = self.worker.journal.settle(&[], wrote).await
        {
            tracing::error!("hook \"{}\": no other hook is told of what it wrote: {error}", hook.spec.name);
        }
        let outcome = ran.verdict.clone().err().unwrap_or(Outcome::Done(Vec::new()));
        // What it was asked about is not there to run it again with.
        let report = Report { again: None, ..runner.report(hook, &task, &ran, &outcome) };
        append(hook, report.text()).await;
        match (ran.veto(), outcome) {
            (Some(Veto { errno, reason }), _) => refused(hook, &task, errno, reason).await,
            (None, Outcome::Done(_)) => Decision::Allowed,
            (None, Outcome::Cancelled) => Decision::Unanswered,
            (None, Outcome::Superseded) => failed(hook, &task, "superseded".into()).await,
            (
                None,
                Outcome::Failed(problem)
                | Outcome::Fatal(problem)
                | Outcome::TooOld(problem)
                | Outcome::Delayed(problem),
            ) => failed(hook, &task, problem).await,
        }
    }

    /// Lays the bytes of a question where the hook finds them.
    async fn bring(&self, question: &Question, to: &Path, limit: u64) -> Result<(), String> {
        match &question.bytes {
            None => Ok(()),
            Some(Bytes::File(_)) if question.size > limit => {
                Err(input::Error::TooLarge { size: question.size, limit }.to_string())
            }
            Some(Bytes::File(file)) => {
                let (file, to) = (file.clone(), to.to_owned());
                let laid = tokio::task::spawn_blocking(move || lay(&file, &to)).await.map_err(io::Error::other);
                laid.flatten().map_err(|error| input::Error::Local(error).to_string())
            }
            Some(Bytes::Version { key, etag }) => {
                let there = NewEvent::now(question.event, key);
                let there = NewEvent { size: question.size, etag: Some(stored_etag(etag)), ..there };
                let bucket = self.worker.surroundings.bucket.as_ref();
                input::fetch(bucket, &there, to, limit).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// A link to the file, where the disk has any: a guest can only read what it finds there.
fn lay(file: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::hard_link(file, to).or_else(|_| fs::copy(file, to).map(drop))
}

async fn refused(hook: &Hook, task: &Task, errno: Errno, reason: String) -> Decision {
    hook.counters.refused();
    let (id, key) = (&task.event.id, task.event.fact.key.escape_debug());
    let line = format!("REFUSED RequestId: {id}\tKey: {key}\tErrno: {errno:?}\t{}\n", reason.escape_debug());
    append(hook, line).await;
    Decision::Refused { hook: hook.spec.name.clone(), errno, reason }
}

/// Not what the hook says, but that it says nothing.
async fn failed(hook: &Hook, task: &Task, problem: String) -> Decision {
    let key = &task.event.fact.key;
    hook.counters.failed(key, &problem);
    tracing::warn!("hook \"{}\" for {}: {}", hook.spec.name, key.escape_debug(), problem.escape_debug());
    if hook.spec.mode.on_error() != Some(OnError::Allow) {
        let reason = format!("the hook failed: {}", problem.lines().next().unwrap_or_default());
        return refused(hook, task, Kind::HookFailed.errno(), reason).await;
    }
    let (id, key) = (&task.event.id, key.escape_debug());
    append(hook, format!("ALLOWED RequestId: {id}\tKey: {key}\tthe hook failed, and on-error = \"allow\"\n")).await;
    Decision::Allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(text: &str) -> Captured {
        Captured { bytes: text.as_bytes().to_vec(), dropped: 0 }
    }

    #[test]
    fn a_veto_names_its_errno_and_its_reason() {
        for (stdout, stderr, errno, reason) in [
            ("veto: EINVAL no JSON: line 3\nmore\n", "", Errno::EINVAL, "no JSON: line 3"),
            ("veto: EFBIG", "one\ntoo much\n", Errno::EFBIG, "too much"),
            ("veto: not on a Friday", "", Errno::EPERM, "not on a Friday"),
            ("veto: ENOSUCH name\n", "", Errno::EPERM, "ENOSUCH name"),
            ("veto: ESTALE x", "", Errno::EPERM, "ESTALE x"),
            ("something else\nveto: EINVAL x\n", "why\n", Errno::EPERM, "why"),
            ("", "", Errno::EPERM, "it gives no reason"),
            ("veto: EINVAL a\x1b[31m", "", Errno::EINVAL, "a\\u{1b}[31m"),
        ] {
            let veto = Veto::said(&captured(stdout), &captured(stderr));
            assert_eq!(veto, Veto { errno, reason: reason.into() }, "{stdout:?}");
        }
        let long = Veto::said(&captured(&format!("veto: {}", "x".repeat(10_000))), &captured(""));
        assert_eq!(long.reason.len(), REASON_CHARS);
    }
}
