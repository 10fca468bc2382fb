//! The files that a close has left to be sent: which one is next, which wait after a failure, and
//! how many there may be.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;

use super::inodes::Ino;
use crate::bucket::retry::pause;
use crate::error::Kind;

/// Files on their way at once: what fills a fast line at 20 ms to the first byte. The bytes of each
/// are lent by the memory budget.
pub const PARALLEL_UPLOADS: usize = 32;
/// How long a closed file waits at least. What programs do right after a close (rename the temporary
/// file, set its mode, write it anew, remove it) then rides along, and costs no request of its own.
const LINGER: Duration = Duration::from_millis(250);
/// The same of a stored file whose attributes are to follow: without `--write-back`, too.
const LINGER_ATTRIBUTES: Duration = Duration::from_millis(100);
/// The same of a file that was appended to, whose times are to follow: who appends often does so again soon.
const LINGER_APPENDED: Duration = Duration::from_secs(1);
/// The same of a directory: whoever unpacks one sets its times when its files are there.
const LINGER_DIRECTORY: Duration = Duration::from_millis(500);
/// How soon a file is looked at again that somebody is writing to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Pauses after failures double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The same where trying again soon is of little use: S3 has refused it.
const REFUSED_FIRST_PAUSE: Duration = Duration::from_secs(15);
const REFUSED_LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How much may wait to be sent. Beyond it a close stores its file by itself, as without
/// `--write-back`, and so goes at the pace of S3.
#[derive(Clone, Copy, Debug)]
pub struct BacklogLimits {
    pub files: usize,
    /// Of the file system that the drafts lie on, so much is left to others.
    pub free_percent: u64,
}

impl Default for BacklogLimits {
    fn default() -> Self {
        Self { files: 10_000, free_percent: 5 }
    }
}

impl BacklogLimits {
    /// Whether the disk that `directory` is on has too little room for more drafts.
    #[must_use]
    pub fn disk_is_full(&self, directory: &Path) -> bool {
        let Ok(disk) = nix::sys::statvfs::statvfs(directory) else { return false };
        disk.blocks_available() * 100 < disk.blocks() * self.free_percent
    }
}

/// What is waiting, for `s3mount status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BacklogStatus {
    pub files: usize,
    pub bytes: u64,
    /// Being sent now.
    pub sending: usize,
    /// For how long the oldest has waited.
    pub oldest_s: u64,
    /// The last failure of a file that still waits.
    pub last_error: Option<String>,
}

/// What the uploader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Send(Ino),
    /// Nothing before this moment.
    At(Instant),
    /// Nothing before something changes.
    Idle,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    order: u64,
    bytes: u64,
    /// `None` while it is being sent.
    due: Option<Instant>,
    failures: u32,
    cause: Option<String>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: HashMap<Ino, Entry>,
    /// When whose turn comes; of several at once, the oldest.
    due: BTreeSet<(Instant, u64, Ino)>,
    added: u64,
    bytes: u64,
    sending: usize,
    pauses: usize,
    /// S3 has not answered the last one: one at a time is enough to find out when it does.
    outage: bool,
    last_failed: Option<Ino>,
}

/// The queue of the uploader. Files are named by their inodes: a rename changes nothing here.
#[derive(Debug, Default)]
pub struct Backlog {
    queue: Mutex<Queue>,
    changed: Notify,
}

/// Nothing is begun while this lives.
#[derive(Debug)]
pub struct Paused<'a>(&'a Backlog);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().pauses -= 1;
        self.0.changed.notify_one();
    }
}

impl Queue {
    /// Changes when an entry's turn comes.
    fn set_due(&mut self, ino: Ino, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&ino) else { return };
        let before = std::mem::replace(&mut entry.due, due);
        let order = entry.order;
        if let Some(before) = before {
            self.due.remove(&(before, order, ino));
        }
        if let Some(due) = due {
            self.due.insert((due, order, ino));
        }
    }

    fn remove(&mut self, ino: Ino) {
        self.set_due(ino, None);
        if let Some(entry) = self.entries.remove(&ino) {
            self.bytes -= entry.bytes;
        }
    }

    fn hurry(&mut self, now: Instant) {
        let waiting: Vec<Ino> = self.due.iter().map(|(_, _, ino)| *ino).collect();
        for ino in waiting {
            self.set_due(ino, Some(now));
        }
    }
}

impl Backlog {
    /// Another file waits, or one that waits has so many bytes now.
    pub fn add(&self, ino: Ino, bytes: u64, now: Instant) {
        self.enter(ino, bytes, now, LINGER);
    }

    /// The attributes of a stored file wait.
    pub fn add_attributes(&self, ino: Ino, now: Instant) {
        self.enter(ino, 0, now, LINGER_ATTRIBUTES);
    }

    /// The attributes of a file wait whose bytes were appended.
    pub fn add_appended(&self, ino: Ino, now: Instant) {
        self.enter(ino, 0, now, LINGER_APPENDED);
    }

    /// A directory waits.
    pub fn add_directory(&self, ino: Ino, now: Instant) {
        self.enter(ino, 0, now, LINGER_DIRECTORY);
    }

    fn enter(&self, ino: Ino, bytes: u64, now: Instant, linger: Duration) {
        let mut queue = self.queue.lock();
        queue.added += 1;
        let order = queue.added;
        let fresh = Entry { since: now, order, bytes: 0, due: None, failures: 0, cause: None };
        let is_new = !queue.entries.contains_key(&ino);
        let entry = queue.entries.entry(ino).or_insert(fresh);
        let before = std::mem::replace(&mut entry.bytes, bytes);
        queue.bytes = queue.bytes + bytes - before;
        let is_late = |entry: &Entry| entry.failures == 0 && entry.due.is_some_and(|due| due > now + linger);
        let is_late = queue.entries.get(&ino).is_some_and(is_late);
        if is_new || is_late {
            queue.set_due(ino, Some(now + linger));
            drop(queue);
            self.changed.notify_one();
        }
    }

    /// It need not be sent any more. One that is being sent is let go of when that has ended.
    pub fn remove(&self, ino: Ino) {
        let mut queue = self.queue.lock();
        if queue.entries.get(&ino).is_some_and(|entry| entry.due.is_some()) {
            queue.remove(ino);
        }
    }

    /// Whose turn it is; that one counts as being sent from now on.
    pub fn next(&self, now: Instant) -> Next {
        let mut queue = self.queue.lock();
        let parallel = if queue.outage { 1 } else { PARALLEL_UPLOADS };
        if queue.pauses > 0 || queue.sending >= parallel {
            return Next::Idle;
        }
        match queue.due.first().copied() {
            None => Next::Idle,
            Some((due, ..)) if due > now => Next::At(due),
            Some((_, _, ino)) => {
                queue.set_due(ino, None);
                queue.sending += 1;
                Next::Send(ino)
            }
        }
    }

    /// Sending has ended well; `left`: the bytes of what has to be sent again, if something has.
    pub fn sent(&self, ino: Ino, left: Option<u64>, now: Instant) {
        let mut queue = self.queue.lock();
        queue.sending -= 1;
        if let Some(entry) = queue.entries.get_mut(&ino) {
            (entry.failures, entry.cause) = (0, None);
        }
        match left {
            None => queue.remove(ino),
            Some(_) => queue.set_due(ino, Some(now + LINGER)),
        }
        if std::mem::take(&mut queue.outage) {
            queue.hurry(now);
        }
    }

    /// Somebody writes to the file: it is not whole.
    pub fn put_off(&self, ino: Ino, now: Instant) {
        let mut queue = self.queue.lock();
        queue.sending -= 1;
        queue.set_due(ino, Some(now + LOOK_AGAIN));
    }

    /// Sending has failed; true when that is to be told: each file once, an outage once for all.
    pub fn failed(&self, ino: Ino, kind: Option<Kind>, cause: String, now: Instant) -> bool {
        let mut queue = self.queue.lock();
        queue.sending -= 1;
        let is_outage = matches!(kind, Some(Kind::Unreachable | Kind::Deadline | Kind::Busy));
        let begins = is_outage && !queue.outage;
        queue.outage |= is_outage;
        queue.last_failed = Some(ino);
        let Some(entry) = queue.entries.get_mut(&ino) else { return false };
        entry.failures += 1;
        entry.cause = Some(cause);
        let failures = entry.failures;
        let (first, longest) =
            if is_outage { (FIRST_PAUSE, LONGEST_PAUSE) } else { (REFUSED_FIRST_PAUSE, REFUSED_LONGEST_PAUSE) };
        queue.set_due(ino, Some(now + pause(first, longest, failures)));
        begins || (!is_outage && failures == 1)
    }

    /// Nothing is begun while the answer lives.
    pub fn pause(&self) -> Paused<'_> {
        self.queue.lock().pauses += 1;
        Paused(self)
    }

    /// Something may be there to do.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the file waits, or is being sent.
    pub fn holds(&self, ino: Ino) -> bool {
        self.queue.lock().entries.contains_key(&ino)
    }

    /// Whether the uploader is at it: then nobody waits for it.
    pub fn is_sending(&self, ino: Ino) -> bool {
        self.queue.lock().entries.get(&ino).is_some_and(|entry| entry.due.is_none())
    }

    /// Whether the close of a file has to wait for S3.
    pub fn is_full_for(&self, ino: Ino, limits: &BacklogLimits, directory: &Path) -> bool {
        let is_one_too_many = {
            let queue = self.queue.lock();
            queue.entries.len() >= limits.files && !queue.entries.contains_key(&ino)
        };
        is_one_too_many || limits.disk_is_full(directory)
    }

    /// How much is waiting.
    pub fn status(&self, now: Instant) -> BacklogStatus {
        let queue = self.queue.lock();
        let oldest = queue.entries.values().map(|entry| entry.since).min();
        let cause = |ino| queue.entries.get(ino).and_then(|entry| entry.cause.clone());
        BacklogStatus {
            files: queue.entries.len(),
            bytes: queue.bytes,
            sending: queue.sending,
            oldest_s: oldest.map_or(0, |since| now.duration_since(since).as_secs()),
            last_error: queue.last_failed.as_ref().and_then(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Everything whose turn it is.
    fn all_due(backlog: &Backlog, now: Instant) -> Vec<Ino> {
        std::iter::from_fn(|| if let Next::Send(ino) = backlog.next(now) { Some(ino) } else { None }).collect()
    }

    fn backlog_of(inos: std::ops::Range<Ino>, now: Instant) -> Backlog {
        let backlog = Backlog::default();
        inos.for_each(|ino| backlog.add(ino, 10, now));
        backlog
    }

    #[test]
    fn what_is_said_of_a_directory_while_it_is_filled_is_told_once() {
        let (backlog, now) = (Backlog::default(), Instant::now());
        backlog.add_directory(7, now);
        backlog.add(8, 10, now);
        assert_eq!(backlog.next(now + LINGER), Next::Send(8), "files do not wait for it");
        backlog.add_directory(7, now + LINGER);
        assert_eq!(backlog.next(now + LINGER), Next::At(now + LINGER_DIRECTORY));
        assert_eq!(backlog.next(now + LINGER_DIRECTORY), Next::Send(7));
    }

    #[test]
    fn the_oldest_goes_first_and_not_too_many_at_once() {
        let now = Instant::now();
        let backlog = backlog_of(0..40, now);
        assert_eq!(backlog.next(now), Next::At(now + LINGER), "what comes right after a close rides along");
        assert_eq!(all_due(&backlog, now + SECOND), (0..32).collect::<Vec<_>>());
        backlog.sent(7, None, now + SECOND);
        assert_eq!(all_due(&backlog, now + SECOND), [32]);
        assert_eq!((backlog.status(now).files, backlog.status(now).bytes), (39, 390));
    }

    #[test]
    fn a_refused_file_holds_up_no_other_and_is_told_once() {
        let now = Instant::now();
        let backlog = backlog_of(0..2, now);
        let later = now + SECOND;
        assert_eq!(backlog.next(later), Next::Send(0));
        assert!(backlog.failed(0, Some(Kind::AccessDenied), "no".into(), later));
        assert_eq!(all_due(&backlog, later), [1]);
        backlog.sent(1, None, later);
        assert_eq!(backlog.status(later).last_error.as_deref(), Some("no"));
        let much_later = now + Duration::from_hours(1);
        assert_eq!(backlog.next(much_later), Next::Send(0));
        assert!(!backlog.failed(0, Some(Kind::AccessDenied), "no".into(), much_later));
        assert_eq!(all_due(&backlog, much_later + Duration::from_hours(1)), [0], "for ever");
    }

    #[test]
    fn in_an_outage_one_tries_for_all_and_its_end_frees_all() {
        let now = Instant::now();
        let backlog = backlog_of(0..5, now);
        let later = now + SECOND;
        assert_eq!(all_due(&backlog, later).len(), 5);
        let told = (0..5).filter(|ino| backlog.failed(*ino, Some(Kind::Unreachable), "gone".into(), later)).count();
        assert_eq!(told, 1);
        let much_later = now + Duration::from_hours(1);
        let first = all_due(&backlog, much_later);
        assert_eq!(first.len(), 1);
        backlog.sent(first[0], None, later);
        assert_eq!(all_due(&backlog, later).len(), 4);
    }

    #[test]
    fn what_changed_while_it_was_sent_is_sent_again_and_what_is_gone_is_not() {
        let now = Instant::now();
        let backlog = backlog_of(0..2, now);
        let later = now + SECOND;
        assert_eq!(backlog.next(later), Next::Send(0));
        backlog.add(0, 30, later);
        backlog.sent(0, Some(30), later);
        backlog.remove(1);
        assert_eq!((backlog.status(now).files, backlog.status(now).bytes), (1, 30));
        assert_eq!(all_due(&backlog, later + SECOND), [0]);
    }

    #[test]
    fn nothing_begins_while_it_is_paused() {
        let now = Instant::now();
        let backlog = backlog_of(0..1, now);
        let paused = backlog.pause();
        assert_eq!(backlog.next(now + SECOND), Next::Idle);
        drop(paused);
        assert_eq!(backlog.next(now + SECOND), Next::Send(0));
    }
}
