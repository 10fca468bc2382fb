//! Learning what a directory holds: one LIST answers for all its names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use parking_lot::Mutex;

use super::inodes::Ino;
use super::names::{Child, Listing, Seen};
use super::pages::{Lines, PageStream, Place, Rest};
use super::resolve::is_doubted;
use super::{Error, Fs, Result};
use crate::bucket::{self, ListRequest};
use crate::error::Kind;
use crate::key::{Oddity, ROOT_INO};

/// How long a listing that had no answer speaks for the next one of that directory.
const OUTAGE_STANDS: Duration = Duration::from_secs(2);

/// Listings under way: whoever wants the same one waits for it instead of asking again, and takes
/// its failure too. Else those who wait would fail one after the other, each after a deadline of
/// its own. Some wait in the kernel, which lets one at a time change a directory: for them the
/// failure of an outage stands for [`OUTAGE_STANDS`].
#[derive(Debug, Default)]
pub struct Flights {
    flights: Mutex<HashMap<Ino, Arc<Flight>>>,
    /// When S3 last left a question without an answer.
    silence: Mutex<Option<(Instant, bucket::Error)>>,
}

#[derive(Debug, Default)]
struct Flight {
    gate: tokio::sync::Mutex<()>,
    failed: Mutex<Option<(Instant, bucket::Error)>>,
}

impl Flights {
    fn join(&self, ino: Ino) -> Arc<Flight> {
        self.flights.lock().entry(ino).or_default().clone()
    }

    fn leave(&self, ino: Ino) {
        let mut flights = self.flights.lock();
        // This one and the caller's: nobody else waits. Failures stay for those to come.
        if flights.get(&ino).is_some_and(|flight| Arc::strong_count(flight) <= 2 && flight.failed.lock().is_none()) {
            flights.remove(&ino);
        }
    }
}

impl Flights {
    /// S3 answered, or did not.
    pub fn note_outcome<T>(&self, outcome: &Result<T>) {
        let silence = match outcome {
            Err(Error::Bucket(error)) if is_silence(error) => Some((Instant::now(), error.clone())),
            _ => None,
        };
        *self.silence.lock() = silence;
    }

    /// S3 has answered something that was asked at this moment.
    pub fn note_answer(&self, asked: Instant) {
        let mut silence = self.silence.lock();
        if silence.as_ref().is_some_and(|(at, _)| *at <= asked) {
            *silence = None;
        }
    }

    /// The failure to answer with while an outage stands.
    pub fn outage(&self) -> Option<Error> {
        let silence = self.silence.lock();
        let (_, error) = silence.as_ref().filter(|(at, _)| at.elapsed() < OUTAGE_STANDS)?;
        Some(error.clone().into())
    }
}

/// S3 gave no answer at all.
pub fn is_silence(error: &bucket::Error) -> bool {
    matches!(error.kind, Kind::Unreachable | Kind::Deadline)
}

impl Flight {
    fn note<T>(&self, outcome: &Result<T>) {
        *self.failed.lock() = match outcome {
            Err(Error::Bucket(error)) => Some((Instant::now(), error.clone())),
            _ => None,
        };
    }

    /// How the flight failed that was under way at `since`, or had no answer just before, if so.
    fn failure_since(&self, since: Instant) -> Option<Error> {
        let failed = self.failed.lock();
        let (at, error) = failed.as_ref()?;
        (*at >= since || (is_silence(error) && since - *at < OUTAGE_STANDS)).then(|| error.clone().into())
    }
}

impl Fs {
    /// Makes sure that the directory's names were asked for within `ttl`, giving up after `max_pages`:
    /// the names found so far are merged all the same.
    pub(super) async fn list_pages(&self, ino: Ino, ttl: Duration, max_pages: usize) -> Result<()> {
        if self.is_listed(ino, ttl) {
            return Ok(());
        }
        let wanted = Instant::now();
        let flight = self.listings.join(ino);
        let outcome = self.list_once(ino, ttl, max_pages, &flight, wanted).await;
        self.listings.leave(ino);
        outcome
    }

    /// The names of a directory for a reader: those known within `ttl`, else the first page of them,
    /// with the rest to come.
    pub(super) async fn read_lines_of(&self, ino: Ino, ttl: Duration) -> Result<Lines> {
        let wanted = Instant::now();
        let flight = self.listings.join(ino);
        let outcome = {
            let _turn = flight.gate.lock().await;
            match flight.failure_since(wanted) {
                Some(failure) if !self.is_listed(ino, ttl) => Err(failure),
                _ => {
                    let outcome = self.begin_lines(ino, ttl).await;
                    flight.note(&outcome);
                    outcome
                }
            }
        };
        self.listings.leave(ino);
        outcome
    }

    async fn begin_lines(&self, ino: Ino, ttl: Duration) -> Result<Lines> {
        if let Some(lines) = self.known_lines_of(ino, Some(ttl)) {
            return Ok(lines);
        }
        let prefix = self.tree.lock().key(ino).ok_or(Errno::ENOENT)?;
        let since = self.tree.lock().forgotten_since(&prefix);
        if let Some((listing, asked)) = self.walks.listing(&prefix, ttl, since).await? {
            self.take_listing(ino, &prefix, listing, asked).await?;
        } else if let Some(lines) = self.begun_lines_of(ino, ttl, &prefix) {
            return Ok(lines);
        } else {
            let stream = PageStream::begin(self.lister.clone(), &prefix, Place::default());
            let rest = Some(Rest::new(&prefix, stream));
            let mut lines = Lines { names: Vec::new(), first: 0, asked: Instant::now(), rest };
            if !self.read_page(ino, &mut lines).await? {
                return Ok(lines);
            }
        }
        self.known_lines_of(ino, None).ok_or_else(|| Errno::ENOENT.into())
    }

    /// The names of a directory as memory has them, if they were asked for within `ttl`.
    fn known_lines_of(&self, ino: Ino, ttl: Option<Duration>) -> Option<Lines> {
        let mut tree = self.tree.lock();
        let directory = tree.directory_mut(ino)?;
        if ttl.is_some_and(|ttl| !directory.is_fresh(ttl)) {
            return None;
        }
        let names = directory.children().map(|(name, child)| (name.clone(), child.clone())).collect();
        let asked = directory.listed_at().unwrap_or_else(Instant::now);
        Some(Lines { names, first: 0, asked, rest: None })
    }

    /// The first page of a directory as memory has it, with the rest to come.
    fn begun_lines_of(&self, ino: Ino, ttl: Duration, prefix: &str) -> Option<Lines> {
        let (begun, names) = {
            let mut tree = self.tree.lock();
            let directory = tree.directory_mut(ino)?;
            let begun = directory.begun(ttl)?.clone();
            // A name that was asked for by itself may lie behind the page.
            let within = |(name, child): &(&String, &Child)| {
                let slash = if child.is_directory { "/" } else { "" };
                format!("{prefix}{name}{slash}") <= begun.last_key
            };
            let names = directory.children().filter(within).map(|(name, child)| (name.clone(), child.clone()));
            let names = names.collect();
            (begun, names)
        };
        let first_page = Listing { names, marker: begun.marker, pages: 1, ..Listing::default() };
        let rest = Rest::after(prefix, first_page, &begun.last_key, self.lister.clone());
        let names = rest.told();
        Some(Lines { names, first: 0, asked: begun.asked, rest: Some(rest) })
    }

    /// Takes the next page of a directory; what was all of it becomes its listing. Returns whether
    /// that was the last page.
    pub(super) async fn read_page(&self, ino: Ino, lines: &mut Lines) -> Result<bool> {
        let asked = lines.asked;
        let prefix = lines.rest.as_ref().map(|rest| rest.prefix.clone()).unwrap_or_default();
        if lines.rest.is_some() && self.tree.lock().key(ino).as_deref() != Some(prefix.as_str()) {
            // Renamed while it is being read: under the old prefix there is nothing any more, which is
            // not to be taken for the end.
            return Err(Errno::ESTALE.into());
        }
        let local = |from: &str, until: &str| self.local_names(ino, &prefix, asked, from, until);
        let is_last = lines.read_page(local).await?;
        let Some(rest) = &mut lines.rest else { return Ok(true) };
        match &rest.gathered {
            Some(gathered) if gathered.complete => {
                if let Some(gathered) = rest.gathered.take() {
                    self.take_listing(ino, &prefix, gathered, asked).await?;
                }
            }
            Some(_) => {}
            None => {
                if let Some(directory) = self.tree.lock().directory_mut(ino) {
                    directory.is_large = true;
                }
            }
        }
        if is_last && lines.first == 0 {
            lines.rest = None;
        }
        Ok(is_last)
    }

    /// Names made here since `asked` whose keys lie above `from` and not above `until` (empty: the
    /// end): what a page of that range may lack.
    fn local_names(&self, ino: Ino, prefix: &str, asked: Instant, from: &str, until: &str) -> BTreeMap<String, Child> {
        let tree = self.tree.lock();
        let Some(directory) = tree.get(ino).and_then(|node| node.directory.as_ref()) else { return BTreeMap::new() };
        let is_drafted = |child: &Child| child.ino.is_some_and(|ino| tree.is_held(ino));
        let drafts = directory.children().filter(|(_, child)| is_drafted(child));
        let in_range = |name: &str, child: &Child| {
            let key = format!("{prefix}{name}{}", if child.is_directory { "/" } else { "" });
            key.as_str() > from && (until.is_empty() || key.as_str() <= until)
        };
        let local = directory.made_since(asked).chain(drafts).filter(|(name, child)| in_range(name, child));
        local.map(|(name, child)| (name.clone(), child.clone())).collect()
    }

    async fn list_once(
        &self,
        ino: Ino,
        ttl: Duration,
        max_pages: usize,
        flight: &Flight,
        wanted: Instant,
    ) -> Result<()> {
        let _turn = flight.gate.lock().await;
        if self.is_listed(ino, ttl) {
            return Ok(());
        }
        if let Some(failure) = flight.failure_since(wanted) {
            return Err(failure);
        }
        let outcome = self.fetch_listing(ino, ttl, max_pages).await;
        flight.note(&outcome);
        outcome
    }

    fn is_listed(&self, ino: Ino, ttl: Duration) -> bool {
        self.tree.lock().directory_mut(ino).is_some_and(|directory| directory.is_fresh(ttl))
    }

    async fn fetch_listing(&self, ino: Ino, ttl: Duration, max_pages: usize) -> Result<()> {
        let prefix = self.tree.lock().key(ino).ok_or(Errno::ENOENT)?;
        let (listing, asked) = self.read_listing(&prefix, max_pages, ttl).await?;
        self.take_listing(ino, &prefix, listing, asked).await
    }

    /// What lies in a directory and when that was asked for: from a walk that has just been there,
    /// else from S3.
    pub(super) async fn read_listing(
        &self,
        prefix: &str,
        max_pages: usize,
        ttl: Duration,
    ) -> Result<(Listing, Instant)> {
        let since = self.tree.lock().forgotten_since(prefix);
        match self.walks.listing(prefix, ttl, since).await? {
            Some(walked) => Ok(walked),
            None => self.ask_listing(prefix, max_pages).await,
        }
    }

    /// What lies in a directory, from S3.
    pub(super) async fn ask_listing(&self, prefix: &str, max_pages: usize) -> Result<(Listing, Instant)> {
        let asked = Instant::now();
        let mut listing = Listing::default();
        let mut request =
            ListRequest { prefix: prefix.to_owned(), delimited: true, any_order: true, ..ListRequest::default() };
        loop {
            let page = self.bucket.list(&request).await?;
            listing.pages += page.pages();
            request.token.clone_from(&page.next);
            self.lister.sort(prefix, page, &mut listing);
            listing.complete = request.token.is_none();
            if listing.complete || listing.pages >= max_pages {
                if !self.settings.layout.lists_in_order() {
                    // Nobody could go on behind it.
                    listing.last_key.clear();
                }
                return Ok((listing, asked));
            }
        }
    }

    /// A listing becomes what is known of a directory.
    pub(super) async fn take_listing(
        &self,
        ino: Ino,
        prefix: &str,
        mut listing: Listing,
        asked: Instant,
    ) -> Result<()> {
        self.listings.note_answer(asked);
        let marker = listing.marker.clone();
        let complete = listing.complete;
        self.note_odd_prefixes(std::mem::take(&mut listing.odd_prefixes)).await?;
        self.merge(ino, &mut listing, asked);
        if complete {
            self.check_marker(ino, prefix, marker, asked).await?;
        }
        Ok(())
    }

    /// What lies below a component that has no path is told key by key, the first page of it.
    async fn note_odd_prefixes(&self, prefixes: Vec<(String, Oddity)>) -> Result<()> {
        for (prefix, oddity) in prefixes {
            if !self.odd_keys.lock().is_new_prefix(&prefix) {
                continue;
            }
            let page = self.bucket.list(&ListRequest { prefix, any_order: true, ..ListRequest::default() }).await?;
            for object in page.objects {
                self.odd_keys.lock().note(&object.key, oddity);
            }
        }
        Ok(())
    }

    fn merge(&self, ino: Ino, listing: &mut Listing, asked: Instant) {
        let mut tree = self.tree.lock();
        let held = tree.held_children(ino, listing);
        let Some(directory) = tree.directory_mut(ino) else { return };
        let gone = directory.merge(listing, asked, |child| held.contains(&child));
        let confirmed: Vec<_> = directory
            .children()
            .filter_map(|(name, child)| Some((child.ino?, child.seen.clone(), directory.changed_since(name, asked))))
            .collect();
        for orphan in gone {
            tree.orphan(orphan);
        }
        for (child, seen, changed_here) in confirmed {
            let Some(node) = tree.get_mut(child) else { continue };
            let known = match (&seen, &node.etag) {
                (Some(seen), Some(etag)) => *etag == seen.etag && node.modified.is(seen.modified),
                (None, _) => node.is_directory() && !is_doubted(node.etag.as_ref(), node.modified),
                (Some(_), None) => false,
            };
            if known && !changed_here {
                node.checked = asked;
                if let Some(seen) = seen {
                    node.modified = node.modified.or(seen.modified);
                }
            }
        }
        if let Some(node) = tree.get_mut(ino).filter(|node| !is_doubted(node.etag.as_ref(), node.modified)) {
            node.checked = node.checked.max(asked);
        }
    }

    /// A listing shows the directory's own marker: when it is another version, its attributes are
    /// read anew.
    async fn check_marker(&self, ino: Ino, key: &str, marker: Option<Seen>, asked: Instant) -> Result<()> {
        if ino == ROOT_INO && key.is_empty() {
            return Ok(());
        }
        {
            let mut tree = self.tree.lock();
            if tree.changed_since(ino, asked) {
                return Ok(());
            }
            let Some(node) = tree.get_mut(ino) else { return Ok(()) };
            match &marker {
                None => {
                    node.etag = None;
                    return Ok(());
                }
                // Every marker is empty and has the same tag: its date tells them apart.
                Some(seen) if self.is_current(node, Some(seen)) => {
                    node.modified = node.modified.or(seen.modified);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        let remembered = self.attributes(key, true, marker.as_ref()).await?;
        self.adopt_attributes(ino, true, &remembered, asked);
        Ok(())
    }
}
