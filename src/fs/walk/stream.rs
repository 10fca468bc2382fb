//! One walk: the pages of a flat listing, a bounded number ahead of whoever reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Walks;
use super::sorter::{Sorter, Unusable, Walked};
use super::table::Source;
use crate::bucket::{self, ListPage, ListRequest};
use crate::fs::listing::is_silence;

/// Pages ahead of the last reader, at most.
const MAX_PAGES_AHEAD: usize = 8;
/// Longest wait of a reader (every wait on S3 has a deadline).
const WAIT_DEADLINE: Duration = Duration::from_mins(1);

/// A flat listing under way.
#[derive(Debug)]
pub struct Walk {
    pub number: u64,
    /// The prefix that is walked.
    pub root: String,
    /// Keys strictly after this one are read.
    after: String,
    /// Begun on a slight hope: who comes asks no more of it until it has been of use.
    is_look: bool,
    reading: watch::Sender<Reading>,
}

#[derive(Clone, Debug)]
struct Reading {
    last_key: String,
    pages: usize,
    /// It stops when it has read so many.
    allowed_pages: usize,
    hits: u32,
    end: Option<End>,
}

#[derive(Clone, Debug)]
enum End {
    Over,
    Failed(bucket::Error),
}

/// How far a walk has come, for one who waits for a directory.
#[derive(Debug)]
pub enum Progress {
    /// It is behind the directory.
    Passed,
    /// It does not go on by itself, and has not reached the end of the directory.
    Paused,
    Ended,
    /// S3 gave no answer.
    Failed(bucket::Error),
}

impl Walk {
    /// A walk that may read `allowed_pages`.
    pub fn new(number: u64, root: &str, after: &str, allowed_pages: usize, is_look: bool) -> Self {
        let reading = Reading { last_key: after.to_owned(), pages: 0, allowed_pages, hits: 0, end: None };
        Self { number, root: root.to_owned(), after: after.to_owned(), is_look, reading: watch::Sender::new(reading) }
    }

    /// It was begun on a slight hope, and nobody has taken anything of it.
    pub fn is_look(&self) -> bool {
        self.is_look && self.reading.borrow().hits == 0
    }

    /// Pages read so far.
    pub fn pages(&self) -> usize {
        self.reading.borrow().pages
    }

    /// Lets it read so many pages in all.
    pub fn grant(&self, pages: usize) {
        self.reading.send_modify(|reading| reading.allowed_pages = reading.allowed_pages.max(pages));
    }

    /// Somebody took what this page brought: more of the kind is wanted, the more often the more.
    pub fn hit(&self, page: usize) {
        self.reading.send_modify(|reading| {
            let ahead = MAX_PAGES_AHEAD.min(1 << reading.hits.min(8));
            reading.hits += 1;
            reading.allowed_pages = reading.allowed_pages.max(page + 1 + ahead);
        });
    }

    /// Stops it.
    pub fn end(&self) {
        self.end_with(End::Over);
    }

    /// It will read nothing more.
    pub fn has_ended(&self) -> bool {
        self.reading.borrow().end.is_some()
    }

    /// The directory `prefix` is still to come, or is being read.
    pub fn is_ahead_of(&self, prefix: &str) -> bool {
        let reading = self.reading.borrow();
        prefix.len() > self.root.len()
            && prefix.starts_with(&self.root)
            && reading.end.is_none()
            && !reading.has_passed(prefix)
    }

    /// Waits until the directory is read, or will not be without more being granted.
    pub async fn wait_for(&self, prefix: &str) -> Progress {
        let mut reading = self.reading.subscribe();
        let settled = reading.wait_for(|reading| {
            reading.has_passed(prefix) || reading.end.is_some() || reading.pages >= reading.allowed_pages
        });
        match tokio::time::timeout(WAIT_DEADLINE, settled).await {
            Ok(Ok(reading)) => match &reading.end {
                _ if reading.has_passed(prefix) => Progress::Passed,
                Some(End::Failed(error)) => Progress::Failed(error.clone()),
                Some(End::Over) => Progress::Ended,
                None => Progress::Paused,
            },
            _ => Progress::Paused,
        }
    }

    /// Waits until it may read on; false when nobody wants it to.
    async fn may_go_on(&self, patience: Duration) -> bool {
        let mut reading = self.reading.subscribe();
        let allowed = reading.wait_for(|reading| reading.end.is_some() || reading.pages < reading.allowed_pages);
        let allowed = tokio::time::timeout(patience, allowed).await;
        matches!(allowed, Ok(Ok(reading)) if reading.end.is_none())
    }

    fn advance(&self, last_key: &str) {
        self.reading.send_modify(|reading| {
            reading.pages += 1;
            last_key.clone_into(&mut reading.last_key);
        });
    }

    fn fail(&self, error: bucket::Error) {
        self.end_with(End::Failed(error));
    }

    /// The first end counts.
    fn end_with(&self, end: End) {
        self.reading.send_modify(|reading| {
            reading.end.get_or_insert(end);
        });
    }
}

impl Reading {
    fn has_passed(&self, prefix: &str) -> bool {
        self.last_key.as_str() > prefix && !self.last_key.starts_with(prefix)
    }
}

/// Ends the walk when its task ends, however that comes.
struct Ending(Arc<Walk>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Reads on as long as somebody follows.
pub async fn run(walks: Arc<Walks>, walk: Arc<Walk>) {
    let _ending = Ending(walk.clone());
    let mut sorter = Sorter::new(&walk.root, &walk.after, walks.lister.odd_keys.clone());
    let start_after = Some(walk.after.clone()).filter(|after| !after.is_empty());
    let mut request = ListRequest { prefix: walk.root.clone(), start_after, ..ListRequest::default() };
    while walk.may_go_on(walks.ttl).await {
        let asked = Instant::now();
        let page = match walks.lister.bucket.list(&request).await {
            Ok(page) => page,
            Err(error) if is_silence(&error) => return walk.fail(error),
            Err(error) => {
                tracing::debug!(%error, "a walk ends");
                return walks.give_up(&walk);
            }
        };
        request.token.clone_from(&page.next);
        let mut walked = match sort(&walks, &mut sorter, &page, asked) {
            Ok(walked) => walked,
            Err(Unusable::Unordered) => return walks.disable(),
            Err(Unusable::TooLarge) => return walks.give_up(&walk),
        };
        if request.token.is_none() {
            walked.extend(sorter.finish());
        }
        walks.keep(walked, Source { walk: walk.number, page: walk.pages() });
        walk.advance(sorter.last_key());
        if request.token.is_none() {
            return;
        }
    }
}

/// Sorts a page into directories, and has what they will need asked for.
fn sort(walks: &Walks, sorter: &mut Sorter, page: &ListPage, asked: Instant) -> Result<Vec<Walked>, Unusable> {
    let tells = walks.lister.origins.tells(page);
    let mut walked = Vec::new();
    for object in &page.objects {
        let seen = walks.lister.origins.seen(object, tells);
        if seen.asks {
            walks.lister.heads.ahead(&object.key, &seen);
        }
        walked.extend(sorter.take(object, seen, asked)?);
    }
    Ok(walked)
}
