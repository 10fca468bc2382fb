//! A directory page by page: LIST a few pages ahead of whoever reads the directory.
//!
//! What fits is kept and becomes the directory's listing; of a larger directory only the part that
//! is being read is in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::heads::Heads;
use super::names::{Child, Listing, MAX_NAMES_KEPT};
use super::status::OddKeys;
use super::told::Origins;
use crate::bucket::{self, Bucket, ListPage, ListRequest};
use crate::key::{self, Oddity};
use crate::telemetry::spans;

/// Pages that wait for the reader, at most; one more is being asked for.
const PAGES_AHEAD: usize = 2;

/// What a listing is made with.
#[derive(Clone, Debug)]
pub struct Lister {
    pub bucket: Arc<dyn Bucket>,
    pub origins: Arc<Origins>,
    pub odd_keys: Arc<Mutex<OddKeys>>,
    pub heads: Arc<Heads>,
}

impl Lister {
    /// Sorts the keys of a page into names and oddities.
    pub fn sort(&self, prefix: &str, page: ListPage, listing: &mut Listing) {
        let tells = self.origins.tells(&page);
        listing.keys += page.objects.len() + page.prefixes.len();
        listing.last_key = page.last_key();
        for object in page.objects {
            let name = &object.key[prefix.len().min(object.key.len())..];
            if name.is_empty() && !prefix.is_empty() {
                if object.size > 0 {
                    listing.odd += 1;
                    self.odd_keys.lock().note(&object.key, Oddity::MarkerWithBody);
                }
                listing.marker = Some(self.origins.seen(&object, tells));
            } else if let Some(oddity) = key::oddity(name) {
                listing.odd += 1;
                self.odd_keys.lock().note(&object.key, oddity);
            } else if listing.names.get(name).is_some_and(|child| child.is_directory) {
                // Where keys come in no order, the directory may be told before the file of its name.
                listing.odd += 1;
                self.odd_keys.lock().note(&object.key, Oddity::Shadowed);
            } else {
                let seen = Some(self.origins.seen(&object, tells));
                listing.names.insert(name.to_owned(), Child { ino: None, is_directory: false, seen });
            }
        }
        for below in page.prefixes {
            let name = &below[prefix.len()..below.len() - 1];
            if let Some(oddity) = key::oddity(name) {
                listing.odd += 1;
                listing.odd_prefixes.push((below, oddity));
                continue;
            }
            let directory = Child { ino: None, is_directory: true, seen: None };
            if listing.names.insert(name.to_owned(), directory).is_some() {
                listing.odd += 1;
                self.odd_keys.lock().note(below.trim_end_matches('/'), Oddity::Shadowed);
            }
        }
    }
}

/// One page, sorted.
#[derive(Debug)]
pub struct Page {
    pub listing: Listing,
    /// The last key or prefix in it: everything up to here has been told, but for names that the
    /// next page may still turn into directories.
    pub last_key: String,
    /// Those names.
    pub held_back: BTreeMap<String, Child>,
    pub is_last: bool,
}

/// Between two pages.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The key before; empty at the beginning.
    after: String,
    /// Names from before it that are not told yet.
    held_back: BTreeMap<String, Child>,
}

/// Pages of a directory as they come.
#[derive(Debug)]
pub struct PageStream {
    pages: mpsc::Receiver<bucket::Result<Page>>,
}

impl PageStream {
    /// Lists `prefix` from a place on. Ends when nobody reads it any more.
    pub fn begin(lister: Lister, prefix: &str, from: Place) -> Self {
        let (sender, pages) = mpsc::channel(PAGES_AHEAD);
        tokio::spawn(spans::carried(list_on(lister, prefix.to_owned(), from, sender)));
        Self { pages }
    }

    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> bucket::Result<Option<Page>> {
        self.pages.recv().await.transpose()
    }
}

async fn list_on(lister: Lister, prefix: String, from: Place, pages: mpsc::Sender<bucket::Result<Page>>) {
    let Place { after, mut held_back } = from;
    let start_after = Some(after.clone()).filter(|after| !after.is_empty());
    let mut request = ListRequest { prefix, delimited: true, start_after, ..ListRequest::default() };
    loop {
        let answer = tokio::select! {
            answer = lister.bucket.list(&request) => answer,
            () = pages.closed() => return,
        };
        let mut page = match answer {
            Ok(page) => page,
            Err(error) => return drop(pages.send(Err(error)).await),
        };
        // A common prefix is told again when one begins inside of it.
        page.prefixes.retain(|below| *below > after);
        request.token.clone_from(&page.next);
        let is_last = request.token.is_none();
        let last_key = page.last_key();
        let (names, pages_worth) = (std::mem::take(&mut held_back), page.pages());
        let mut listing = Listing { names, pages: pages_worth, ..Listing::default() };
        lister.sort(&request.prefix, page, &mut listing);
        if !is_last {
            held_back = hold_back(&mut listing, last_key.strip_prefix(&request.prefix).unwrap_or_default());
        }
        for (name, child) in &listing.names {
            if let Some(seen) = child.seen.as_ref().filter(|seen| seen.asks) {
                lister.heads.ahead(&format!("{}{name}", request.prefix), seen);
            }
        }
        let page = Page { listing, last_key, held_back: held_back.clone(), is_last };
        if pages.send(Ok(page)).await.is_err() || is_last {
            return;
        }
    }
}

/// A file `a` and a prefix `a/` may lie pages apart, with `a-b` between them, and the directory is
/// to win: files that the next key may still follow with a slash wait for the next page.
pub fn hold_back(listing: &mut Listing, last_name: &str) -> BTreeMap<String, Child> {
    let undecided: Vec<String> = listing
        .names
        .iter()
        .filter(|(name, child)| !child.is_directory && last_name.starts_with(name.as_str()))
        .map(|(name, _)| name.clone())
        .collect();
    undecided.into_iter().filter_map(|name| listing.names.remove_entry(&name)).collect()
}

/// What an open directory shows, in the order of its positions.
#[derive(Debug)]
pub struct Lines {
    /// The names from position `first` on, as far as they are known.
    pub names: Vec<(String, Child)>,
    pub first: usize,
    /// When they were asked for.
    pub asked: Instant,
    /// The pages to come; `None` when all names are there.
    pub rest: Option<Rest>,
}

/// The part of a directory that is not read yet.
#[derive(Debug)]
pub struct Rest {
    pub prefix: String,
    stream: PageStream,
    /// Everything so far, as long as it is little enough to be kept.
    pub gathered: Option<Listing>,
    /// Where each page begins: its first position, and how to get there.
    marks: Vec<(usize, Place)>,
    next: Place,
}

impl Rest {
    /// Everything is to come.
    pub fn new(prefix: &str, stream: PageStream) -> Self {
        let gathered = Some(Listing::default());
        Self { prefix: prefix.to_owned(), stream, gathered, marks: Vec::new(), next: Place::default() }
    }
}

impl Rest {
    /// What comes after a first page that ends with `last_key`.
    pub fn after(prefix: &str, mut first_page: Listing, last_key: &str, lister: Lister) -> Self {
        let held_back = hold_back(&mut first_page, last_key.strip_prefix(prefix).unwrap_or_default());
        let next = Place { after: last_key.to_owned(), held_back };
        let stream = PageStream::begin(lister, prefix, next.clone());
        let (gathered, marks) = (Some(first_page), vec![(0, Place::default())]);
        Self { prefix: prefix.to_owned(), stream, gathered, marks, next }
    }

    /// The names that were gathered so far.
    pub fn told(&self) -> Vec<(String, Child)> {
        let names = self.gathered.iter().flat_map(|gathered| &gathered.names);
        names.map(|(name, child)| (name.clone(), child.clone())).collect()
    }
}

impl Lines {
    /// Takes the next page; `local` are names that were made here and that no listing may know.
    /// Returns whether it was the last.
    pub async fn read_page(&mut self, local: impl Fn(&str, &str) -> BTreeMap<String, Child>) -> bucket::Result<bool> {
        let Some(rest) = &mut self.rest else { return Ok(true) };
        let Some(mut page) = rest.stream.next().await? else { return Ok(true) };
        let next = Place { after: page.last_key, held_back: page.held_back };
        let from = std::mem::replace(&mut rest.next, next);
        let until = if page.is_last { "" } else { rest.next.after.as_str() };
        let local = local(&from.after, until);
        rest.marks.push((self.first + self.names.len(), from));
        for (name, child) in local.into_iter().filter(|(name, _)| !rest.next.held_back.contains_key(name)) {
            page.listing.names.entry(name).or_insert(child);
        }
        self.names.extend(page.listing.names.iter().map(|(name, child)| (name.clone(), child.clone())));
        if let Some(gathered) = &mut rest.gathered {
            gathered.append(page.listing);
            gathered.complete = page.is_last;
            if gathered.names.len() > MAX_NAMES_KEPT {
                rest.gathered = None;
            }
        }
        Ok(page.is_last)
    }

    /// Lets go of what lies before a position, in a directory that is not kept whole.
    pub fn forget_before(&mut self, position: usize) {
        if self.rest.as_ref().is_some_and(|rest| rest.gathered.is_none()) {
            let passed = position.saturating_sub(self.first).min(self.names.len());
            self.names.drain(..passed);
            self.first += passed;
        }
    }

    /// Goes back (`seekdir(3)`) to the page that holds a position which was let go of.
    pub fn seek_back(&mut self, position: usize, lister: Lister) {
        let Some(rest) = &mut self.rest else { return };
        let page = rest.marks.partition_point(|(first, _)| *first <= position).saturating_sub(1);
        let Some((first, place)) = rest.marks.get(page).cloned() else { return };
        rest.marks.truncate(page);
        rest.stream = PageStream::begin(lister, &rest.prefix, place.clone());
        rest.next = place;
        self.first = first;
        self.names.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::memory::MemoryBucket;
    use crate::bucket::{Layout, Metadata};
    use crate::cache::AttributeIndex;
    use crate::fs::Attrs;

    /// Names as they come, page by page, directories with a slash.
    async fn pages(keys: &[String]) -> Vec<Vec<String>> {
        let bucket = Arc::new(MemoryBucket::new());
        for key in keys {
            bucket.insert(key, "x", Metadata::new());
        }
        let state = tempfile::tempdir().unwrap();
        let index = AttributeIndex::open(&state.path().join("index")).unwrap();
        let lister = Lister {
            heads: Heads::new(bucket.clone(), index, Layout::of_bucket("", "", "")),
            bucket,
            origins: Arc::new(Origins::new(Attrs::Auto, Some(true))),
            odd_keys: Arc::default(),
        };
        let mut stream = PageStream::begin(lister, "p/", Place::default());
        let mut pages = Vec::new();
        while let Some(page) = stream.next().await.unwrap() {
            let slash = |child: &Child| if child.is_directory { "/" } else { "" };
            pages.push(page.listing.names.iter().map(|(name, child)| format!("{name}{}", slash(child))).collect());
        }
        pages
    }

    #[tokio::test]
    async fn a_directory_wins_over_a_file_that_lies_pages_before_it() {
        let between = (0..2_500).map(|number| format!("p/a-{number:04}"));
        let keys: Vec<String> = ["p/a", "p/a-", "p/a/x", "p/b"].map(str::to_owned).into_iter().chain(between).collect();
        let pages = pages(&keys).await;
        assert_eq!(pages.len(), 3);
        let all: Vec<&String> = pages.iter().flatten().collect();
        assert_eq!(all.len(), 2_503);
        assert!(all.iter().any(|name| *name == "a/") && !all.iter().any(|name| *name == "a"));
        assert_eq!(all.iter().filter(|name| **name == "a-").count(), 1);
    }
}
