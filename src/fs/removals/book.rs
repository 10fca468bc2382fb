//! What waits to be deleted, by key, and what answers of S3 are to look like meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime};

use crate::bucket::{self, ETag, Listed, Metadata};
use crate::journal::Sent;

/// What came so long after nothing else is sent.
const QUIET: Duration = Duration::from_millis(100);
/// What waits for so long is sent, whatever comes after it.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// So many wait for nothing.
const MANY: usize = 1_000;
/// Removals that are sent before anything is settled.
const REMOVALS_IN_ROUND: usize = 8_000;
/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// What nearly every server gives an empty object as its tag: the MD5 of nothing.
const EMPTY_ETAG: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// A try that failed: in which round, and why.
pub type Failure = (u64, bucket::Error);

/// An object that is to go.
#[derive(Clone, Debug)]
pub struct Removal {
    /// Its note in the journal.
    pub number: u64,
    /// The version that was removed, where one was known.
    pub etag: Option<ETag>,
    /// Hooks are told.
    pub event: bool,
    /// What S3 may hold instead, and is to go just as well: uploads of ours that nobody heard of.
    pub sent: Vec<Sent>,
    /// Time has passed since, and somebody else may have written the key: looked at before it goes.
    pub doubtful: bool,
    pub failed: Option<Failure>,
}

impl Removal {
    /// It is looked at before it goes.
    pub fn unless_replaced(self) -> Self {
        Self { doubtful: true, ..self }
    }
}

/// A directory that had no marker and gets one, before the last thing in it goes.
#[derive(Clone, Debug)]
pub struct Kept {
    pub number: u64,
    pub metadata: Metadata,
    pub since: SystemTime,
    pub failed: Option<Failure>,
}

impl Kept {
    /// The marker as LIST will tell it.
    fn listed(&self, key: &str) -> Listed {
        let (etag, checksums) = (Self::etag(), vec!["CRC32C".to_owned()]);
        Listed { key: key.to_owned(), etag, size: 0, modified: self.since, storage_class: None, checksums }
    }

    /// The marker's tag, on nearly every server. What is asked for later tells the true one.
    pub fn etag() -> ETag {
        ETag::new(EMPTY_ETAG)
    }
}

/// What was done, for answers that were asked for before.
#[derive(Debug)]
enum Past {
    Removed,
    Kept(Kept),
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// An object may be written under this key.
    Free(&'a str),
    /// Nothing waits under this prefix.
    Below(&'a str),
    /// Everything up to this note is done.
    UpTo(u64),
}

/// Whether it is there, and how the last try went if not.
#[derive(Debug)]
pub enum Standing {
    Over,
    Waiting(Option<Failure>),
}

/// Everything to be done at once.
#[derive(Debug)]
pub struct Round {
    pub removals: Vec<(String, Removal)>,
    pub kept: Vec<(String, Kept)>,
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Book {
    removals: BTreeMap<String, Removal>,
    kept: BTreeMap<String, Kept>,
    /// Done, but answers are on their way that were asked for before: at which moment.
    past: BTreeMap<String, (u64, Past)>,
    /// Answers on their way, by the moment of their asking.
    asked: BTreeMap<u64, usize>,
    /// Counts what was done: the moments.
    moment: u64,
    rounds: u64,
    /// When the first and the last came that no round has taken yet.
    fresh: Option<(Instant, Instant)>,
    /// Somebody waits.
    hurry: bool,
    retry: Option<(Instant, Duration)>,
    last_number: u64,
    /// What was given up last.
    refused: Option<Failure>,
}

impl Book {
    /// How many objects wait.
    pub fn len(&self) -> usize {
        self.removals.len()
    }

    /// Some of the keys that wait since this note or longer, and how many more there are.
    pub fn some_keys(&self, up_to: u64, most: usize) -> (Vec<String>, usize) {
        let mut old = self.removals.iter().filter(|(_, removal)| removal.number <= up_to);
        let keys = old.by_ref().take(most).map(|(key, _)| key.clone()).collect();
        (keys, old.count())
    }

    /// The last note that was taken in.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// A round that ended.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// What was given up in a round after this one.
    pub fn refused_since(&self, round: u64) -> Option<&bucket::Error> {
        self.refused.as_ref().filter(|(at, _)| *at > round).map(|(_, error)| error)
    }

    /// One more is to go. Returns whether the task has to be told.
    pub fn add(&mut self, key: &str, removal: Removal) -> bool {
        self.last_number = self.last_number.max(removal.number);
        self.removals.insert(key.to_owned(), removal);
        self.note_fresh() || self.removals.len() == MANY
    }

    /// One more directory is to have a marker. Returns whether the task has to be told.
    pub fn keep(&mut self, key: &str, kept: Kept) -> bool {
        self.last_number = self.last_number.max(kept.number);
        self.kept.insert(key.to_owned(), kept);
        self.note_fresh()
    }

    fn note_fresh(&mut self) -> bool {
        let now = Instant::now();
        let was_idle = self.fresh.is_none();
        self.fresh = Some((self.fresh.map_or(now, |(first, _)| first), now));
        was_idle
    }

    /// Whether a marker is on its way already.
    pub fn keeps(&self, key: &str) -> bool {
        self.kept.contains_key(key)
    }

    /// The directory goes itself. Returns the number of its note.
    pub fn release(&mut self, key: &str) -> Option<u64> {
        self.kept.remove(key).map(|kept| kept.number)
    }

    /// The marker that a round has put goes too: its tag. Returns the removal if it lacked one.
    pub fn learn_tag(&mut self, key: &str, etag: &ETag) -> Option<Removal> {
        let removal = self.removals.get_mut(key).filter(|removal| removal.etag.is_none())?;
        removal.etag = Some(etag.clone());
        Some(removal.clone())
    }

    /// Somebody waits: now.
    pub fn set_hurry(&mut self) {
        self.hurry = true;
    }

    /// When the next round is to begin.
    pub fn due(&self) -> Option<Instant> {
        if self.removals.is_empty() && self.kept.is_empty() {
            return None;
        }
        let now = Instant::now();
        if self.hurry {
            return Some(now);
        }
        match (self.retry, self.fresh) {
            (Some((at, _)), _) => Some(at),
            (None, Some((first, last))) if self.removals.len() < MANY => Some((first + LONGEST_WAIT).min(last + QUIET)),
            _ => Some(now),
        }
    }

    /// Takes what there is, at most as much as is well sent at once.
    pub fn begin_round(&mut self) -> Round {
        let removals = self.removals.iter().take(REMOVALS_IN_ROUND);
        let removals: Vec<_> = removals.map(|(key, removal)| (key.clone(), removal.clone())).collect();
        self.hurry = self.removals.len() > removals.len();
        self.fresh = None;
        let kept = self.kept.iter().map(|(key, kept)| (key.clone(), kept.clone())).collect();
        Round { removals, kept }
    }

    /// A removal is over: done, or given up.
    pub fn end_removal(&mut self, key: &str) {
        if self.removals.remove(key).is_some() {
            self.note_past(key, Past::Removed);
        }
    }

    /// A directory has its marker.
    pub fn end_kept(&mut self, key: &str) {
        if let Some(kept) = self.kept.remove(key) {
            self.note_past(key, Past::Kept(kept));
        }
    }

    fn note_past(&mut self, key: &str, past: Past) {
        self.moment += 1;
        if !self.asked.is_empty() {
            self.past.insert(key.to_owned(), (self.moment, past));
        }
    }

    /// It is tried again later; others may write the key until then.
    pub fn fail(&mut self, key: &str, error: &bucket::Error) {
        let failure = Some((self.rounds + 1, error.clone()));
        if let Some(kept) = self.kept.get_mut(key) {
            kept.failed.clone_from(&failure);
        }
        if let Some(removal) = self.removals.get_mut(key) {
            (removal.failed, removal.doubtful) = (failure, true);
        }
    }

    /// It will not be tried again.
    pub fn refuse(&mut self, error: &bucket::Error) {
        self.refused = Some((self.rounds + 1, error.clone()));
    }

    /// The round is over, and something of it is left or nothing is.
    pub fn end_round(&mut self, has_failed: bool) {
        self.rounds += 1;
        self.hurry &= !has_failed;
        self.retry = has_failed.then(|| {
            let pause = self.retry.map_or(FIRST_PAUSE, |(_, pause)| (2 * pause).min(LONGEST_PAUSE));
            (Instant::now() + pause, pause)
        });
    }

    /// How things stand with what somebody waits for.
    pub fn standing(&self, wanted: Wanted<'_>) -> Standing {
        let mut failures: Vec<&Option<Failure>> = Vec::new();
        match wanted {
            Wanted::Free(key) => {
                let above = key.match_indices('/').map(|(at, _)| &key[..=at]);
                let removals = above.chain([key]).filter_map(|key| self.removals.get(key));
                failures.extend(removals.map(|removal| &removal.failed));
                failures.extend(self.kept.get(key).map(|kept| &kept.failed));
            }
            Wanted::Below(prefix) => {
                failures.extend(below(&self.removals, prefix).map(|(_, removal)| &removal.failed));
                failures.extend(below(&self.kept, prefix).map(|(_, kept)| &kept.failed));
            }
            Wanted::UpTo(number) => {
                let removals = self.removals.values().filter(|removal| removal.number <= number);
                failures.extend(removals.map(|removal| &removal.failed));
                failures.extend(self.kept.values().filter(|kept| kept.number <= number).map(|kept| &kept.failed));
            }
        }
        if failures.is_empty() {
            return Standing::Over;
        }
        Standing::Waiting(failures.into_iter().flatten().max_by_key(|(round, _)| *round).cloned())
    }

    /// A question is on its way to S3: the moment, for [`Book::answered`].
    pub fn ask(&mut self) -> u64 {
        *self.asked.entry(self.moment).or_default() += 1;
        self.moment
    }

    /// Its answer was looked at.
    pub fn answered(&mut self, moment: u64) {
        if let Some(count) = self.asked.get_mut(&moment) {
            *count -= 1;
            if *count == 0 {
                self.asked.remove(&moment);
            }
        }
        match self.asked.first_key_value() {
            Some((oldest, _)) => self.past.retain(|_, (at, _)| *at > *oldest),
            None => self.past.clear(),
        }
    }

    /// Nothing waits, and nothing that was asked for before something was done is on its way.
    pub fn is_blank(&self) -> bool {
        self.removals.is_empty() && self.kept.is_empty() && self.past.is_empty()
    }

    /// Whether an answer that was asked for at a moment may not show this key.
    pub fn hides(&self, key: &str, moment: u64) -> bool {
        let past = || matches!(self.past.get(key), Some((at, Past::Removed)) if *at > moment);
        self.removals.contains_key(key) || past()
    }

    /// The marker that an answer asked for at a moment is to show for a directory, if it is one that
    /// gets one.
    pub fn marker(&self, key: &str, moment: u64) -> Option<&Kept> {
        let past = || match self.past.get(key) {
            Some((at, Past::Kept(kept))) if *at > moment => Some(kept),
            _ => None,
        };
        self.kept.get(key).or_else(past)
    }

    /// The marker to be shown in the place of a key that is not: that of the nearest directory above.
    pub fn marker_above(&self, key: &str, moment: u64) -> Option<Listed> {
        let mut directories = key.trim_end_matches('/').match_indices('/').map(|(at, _)| &key[..=at]);
        directories.by_ref().rev().find_map(|above| Some(self.marker(above, moment)?.listed(above)))
    }

    /// The marker of a directory as LIST will tell it.
    pub fn listed_marker(&self, key: &str, moment: u64) -> Option<Listed> {
        Some(self.marker(key, moment)?.listed(key))
    }
}

fn below<'a, T>(map: &'a BTreeMap<String, T>, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a T)> {
    map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix))
}
