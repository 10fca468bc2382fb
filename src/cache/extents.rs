//! Which bytes of which version are here or on their way, and the one budget over all of them.
//!
//! Pure bookkeeping: no waiting, no requests. The bytes of a version are extents that never
//! overlap; an extent is one fetched buffer, evicted as a whole, so that what is accounted is what
//! is in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use lru::LruCache;

use super::Pinned;
use super::ahead::Stream;
use super::flight::{Flight, Waiting};
use crate::bucket::ETag;

/// Charged for each extent besides its bytes, so that a million tiny ones are bounded as well.
const OVERHEAD_BYTES: u64 = 256;

/// What an extent of this many bytes takes from the budget.
pub(super) fn charge(range: &Range<u64>) -> u64 {
    range.end - range.start + OVERHEAD_BYTES
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    version: u64,
    start: u64,
}

struct Held {
    bytes: Bytes,
    /// Brought by read-ahead and not asked for yet.
    unread: bool,
    stream: Weak<Stream>,
}

enum Extent {
    Held(Held),
    Coming(Arc<Flight>),
}

impl Extent {
    fn end(&self, start: u64) -> u64 {
        match self {
            Self::Held(held) => start + held.bytes.len() as u64,
            Self::Coming(flight) => flight.range.end,
        }
    }
}

struct Version {
    key: Arc<str>,
    etag: ETag,
    extents: BTreeMap<u64, Extent>,
}

/// A stretch of a range that was looked up.
pub(super) enum Piece {
    /// Its bytes.
    Here(Bytes),
    /// Part of a flight: what to wait for, and the part within the flight's bytes.
    Coming(Waiting, Range<usize>),
    /// Neither here nor coming.
    Gap(Range<u64>),
}

/// A range found wholly in memory.
pub(super) struct Hit {
    pub first: Bytes,
    pub rest: Vec<Bytes>,
    /// The read-ahead that brought it and wants to know.
    pub stream: Option<Arc<Stream>>,
}

/// All extents of all versions.
pub(super) struct Extents {
    limit_bytes: u64,
    held_bytes: u64,
    reserved_bytes: u64,
    /// Of read-ahead: coming, or here and unread.
    ahead_bytes: u64,
    evictions: u64,
    next_version: u64,
    names: HashMap<Arc<str>, Vec<u64>>,
    versions: HashMap<u64, Version>,
    /// Recency of what was read at least once; evicted first.
    read: LruCache<Place, ()>,
    /// Recency of what read-ahead brought and nobody read: evicted only when a reader needs room.
    unread: LruCache<Place, ()>,
}

impl Extents {
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            held_bytes: 0,
            reserved_bytes: 0,
            ahead_bytes: 0,
            evictions: 0,
            next_version: 0,
            names: HashMap::new(),
            versions: HashMap::new(),
            read: LruCache::unbounded(),
            unread: LruCache::unbounded(),
        }
    }

    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    pub fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The range, when all of it is in memory.
    pub fn hit(&mut self, object: &Pinned, range: &Range<u64>) -> Option<Hit> {
        let version = self.version_id(object)?;
        let extents = &self.versions.get(&version)?.extents;
        let (&start, extent) = extents.range(..=range.start).next_back()?;
        let Extent::Held(held) = extent else { return None };
        let end = extent.end(start);
        if end <= range.start {
            return None;
        }
        let first = part(&held.bytes, start, range);
        let stream = held.stream.upgrade();
        let mut rest = Vec::new();
        let mut reached = end;
        let mut more = extents.range(end..);
        while reached < range.end {
            let (&next, extent) = more.next()?;
            let Extent::Held(held) = extent else { return None };
            if next != reached {
                return None;
            }
            rest.push(part(&held.bytes, next, range));
            reached = extent.end(next);
        }
        self.touch(version, start);
        if !rest.is_empty() {
            self.touch_range(version, start + 1..range.end);
        }
        Some(Hit { first, rest, stream })
    }

    /// The range cut into what is here, what comes and what is missing, in order.
    pub fn pieces(&mut self, object: &Pinned, range: &Range<u64>) -> Vec<Piece> {
        let Some(version) = self.version_id(object) else { return vec![Piece::Gap(range.clone())] };
        let mut pieces = Vec::new();
        let mut reached = range.start;
        for (start, extent) in self.versions[&version].overlapping(range) {
            if start > reached {
                pieces.push(Piece::Gap(reached..start));
            }
            pieces.push(match extent {
                Extent::Held(held) => Piece::Here(part(&held.bytes, start, range)),
                Extent::Coming(flight) => Piece::Coming(flight.join(), within(&flight.range, range)),
            });
            reached = extent.end(start);
        }
        if reached < range.end {
            pieces.push(Piece::Gap(reached..range.end));
        }
        self.touch_range(version, range.clone());
        pieces
    }

    /// What of the range is neither here nor coming.
    pub fn gaps(&self, object: &Pinned, range: &Range<u64>) -> Vec<Range<u64>> {
        let Some(version) = self.version_id(object) else { return vec![range.clone()] };
        let mut gaps = Vec::new();
        let mut reached = range.start;
        for (start, extent) in self.versions[&version].overlapping(range) {
            if start > reached {
                gaps.push(reached..start);
            }
            reached = extent.end(start);
        }
        if reached < range.end {
            gaps.push(reached..range.end);
        }
        gaps
    }

    /// The largest stretch around a gap, within `wanted`, of which nothing is here or coming.
    pub fn widen(&self, object: &Pinned, gap: &Range<u64>, wanted: &Range<u64>) -> Range<u64> {
        let Some(version) = self.version_id(object) else { return wanted.clone() };
        let extents = &self.versions[&version].extents;
        let before = extents.range(..gap.start).next_back().map_or(0, |(&start, extent)| extent.end(start));
        let after = extents.range(gap.end..).next().map_or(u64::MAX, |(&start, _)| start);
        before.max(wanted.start)..after.min(wanted.end)
    }

    /// Enters a flight over a gap.
    pub fn board(&mut self, object: &Pinned, flight: Arc<Flight>) {
        let version = self.version_id_or_new(object);
        let entry = self.versions.get_mut(&version).expect("the id was just looked up");
        entry.extents.insert(flight.range.start, Extent::Coming(flight));
    }

    /// Takes room for a flight from the budget, evicting what was read longest ago. For read-ahead
    /// only up to half of the budget, and never at the cost of other read-ahead.
    pub fn reserve(&mut self, flight: &Flight) -> bool {
        let bytes = charge(&flight.range);
        if flight.ahead && self.ahead_bytes + bytes > self.limit_bytes / 2 {
            return false;
        }
        if !self.make_room(bytes, !flight.ahead) {
            return false;
        }
        self.reserved_bytes += bytes;
        if flight.ahead {
            self.ahead_bytes += bytes;
        }
        true
    }

    /// Ends a flight: its room is given back, or taken by its bytes. Bytes of a flight that is no
    /// longer entered (forgotten, cancelled) are not kept.
    pub fn land(&mut self, object: &Pinned, flight: &Arc<Flight>, reserved: bool, bytes: Option<&Bytes>) {
        let charge = charge(&flight.range);
        if reserved {
            self.reserved_bytes -= charge;
            if flight.ahead {
                self.ahead_bytes -= charge;
            }
        }
        let Some(version) = self.take_off(object, flight) else { return };
        if let Some(bytes) = bytes {
            let unread = flight.ahead && !flight.has_waiters();
            let held = Held { bytes: bytes.clone(), unread, stream: flight.stream.clone() };
            self.hold(version, flight.range.start, held);
        }
        self.drop_version_if_empty(version);
    }

    /// Takes a flight out of the books when it is entered; the id of its version if it was.
    fn take_off(&mut self, object: &Pinned, flight: &Arc<Flight>) -> Option<u64> {
        let version = self.version_id(object)?;
        let extents = &mut self.versions.get_mut(&version)?.extents;
        match extents.get(&flight.range.start) {
            Some(Extent::Coming(entered)) if Arc::ptr_eq(entered, flight) => {
                extents.remove(&flight.range.start);
                Some(version)
            }
            _ => None,
        }
    }

    /// Holds bytes that are known without a request; what is here or coming already stays.
    pub fn insert(&mut self, object: &Pinned, start: u64, bytes: &Bytes) {
        let range = start..start + bytes.len() as u64;
        for gap in self.gaps(object, &range) {
            if !self.make_room(charge(&gap), false) {
                return;
            }
            let slice = part(bytes, start, &gap);
            // A small rest of a large buffer would keep all of it in memory: a copy is cheaper.
            let bytes = if slice.len() * 2 < bytes.len() { Bytes::copy_from_slice(&slice) } else { slice };
            let version = self.version_id_or_new(object);
            self.hold(version, gap.start, Held { bytes, unread: false, stream: Weak::new() });
        }
    }

    /// Drops every version of a key. Flights under way still reach those who wait for them.
    pub fn forget(&mut self, key: &str) {
        for version in self.names.remove(key).unwrap_or_default() {
            let Some(entry) = self.versions.remove(&version) else { continue };
            for (start, extent) in entry.extents {
                if let Extent::Held(held) = extent {
                    self.unlist(Place { version, start }, &held);
                }
            }
        }
    }

    /// A read-ahead lost interest in a range: its flights that nobody waits for are returned for
    /// the caller to abort, what it brought unread goes first when room is needed.
    pub fn abandon(&mut self, object: &Pinned, range: &Range<u64>, stream: &Weak<Stream>) -> Vec<Arc<Flight>> {
        let Some(version) = self.version_id(object) else { return Vec::new() };
        let mut idle = Vec::new();
        let mut unread = Vec::new();
        for (start, extent) in self.versions[&version].overlapping(range) {
            match extent {
                Extent::Coming(flight) if flight.ahead && flight.stream.ptr_eq(stream) && !flight.has_waiters() => {
                    idle.push(flight.clone());
                }
                Extent::Held(held) if held.unread && held.stream.ptr_eq(stream) => unread.push(start),
                _ => {}
            }
        }
        for start in unread {
            self.touch(version, start);
            self.read.demote(&Place { version, start });
        }
        for flight in &idle {
            self.take_off(object, flight);
        }
        self.drop_version_if_empty(version);
        idle
    }

    fn hold(&mut self, version: u64, start: u64, held: Held) {
        let bytes = charge(&(start..start + held.bytes.len() as u64));
        self.held_bytes += bytes;
        let place = Place { version, start };
        if held.unread {
            self.ahead_bytes += bytes;
            self.unread.put(place, ());
        } else {
            self.read.put(place, ());
        }
        let entry = self.versions.get_mut(&version).expect("a version with a flight or a fresh one is entered");
        entry.extents.insert(start, Extent::Held(held));
    }

    /// Evicts until so many bytes more fit. Unread read-ahead only when `unread_too`.
    fn make_room(&mut self, bytes: u64, unread_too: bool) -> bool {
        while self.held_bytes + self.reserved_bytes + bytes > self.limit_bytes {
            let mut oldest = self.read.peek_lru().map(|(place, ())| *place);
            if oldest.is_none() && unread_too {
                oldest = self.unread.peek_lru().map(|(place, ())| *place);
            }
            let Some(place) = oldest else { return false };
            self.evict(place);
        }
        true
    }

    fn evict(&mut self, place: Place) {
        let entry = self.versions.get_mut(&place.version).expect("what is listed for eviction is entered");
        let extent = entry.extents.remove(&place.start);
        let Some(Extent::Held(held)) = extent else { unreachable!("only held extents are listed for eviction") };
        self.unlist(place, &held);
        self.evictions += 1;
        self.drop_version_if_empty(place.version);
    }

    fn unlist(&mut self, place: Place, held: &Held) {
        let bytes = charge(&(place.start..place.start + held.bytes.len() as u64));
        self.held_bytes -= bytes;
        if held.unread {
            self.ahead_bytes -= bytes;
            self.unread.pop(&place);
        } else {
            self.read.pop(&place);
        }
    }

    fn touch(&mut self, version: u64, start: u64) {
        let place = Place { version, start };
        if self.read.promote(&place) {
            return;
        }
        let entry = self.versions.get_mut(&version).expect("only places of entered versions are touched");
        if let Some(Extent::Held(held)) = entry.extents.get_mut(&start) {
            held.unread = false;
            self.ahead_bytes -= charge(&(start..start + held.bytes.len() as u64));
            self.unread.pop(&place);
            self.read.put(place, ());
        }
    }

    fn touch_range(&mut self, version: u64, range: Range<u64>) {
        let touched: Vec<u64> = self.versions[&version]
            .overlapping(&range)
            .filter_map(|(start, extent)| matches!(extent, Extent::Held(_)).then_some(start))
            .collect();
        for start in touched {
            self.touch(version, start);
        }
    }

    fn version_id(&self, object: &Pinned) -> Option<u64> {
        let ids = self.names.get(&object.key)?;
        ids.iter().copied().find(|id| self.versions[id].etag == object.etag)
    }

    fn version_id_or_new(&mut self, object: &Pinned) -> u64 {
        if let Some(id) = self.version_id(object) {
            return id;
        }
        self.next_version += 1;
        let id = self.next_version;
        let version = Version { key: object.key.clone(), etag: object.etag.clone(), extents: BTreeMap::new() };
        self.versions.insert(id, version);
        self.names.entry(object.key.clone()).or_default().push(id);
        id
    }

    fn drop_version_if_empty(&mut self, version: u64) {
        if self.versions.get(&version).is_none_or(|entry| !entry.extents.is_empty()) {
            return;
        }
        let entry = self.versions.remove(&version).expect("looked up above");
        if let Some(ids) = self.names.get_mut(&entry.key) {
            ids.retain(|id| *id != version);
            if ids.is_empty() {
                self.names.remove(&entry.key);
            }
        }
    }
}

impl Version {
    /// The extents that share bytes with a range, in order.
    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Extent)> {
        let before = self.extents.range(..range.start).next_back();
        let first = before.filter(|(start, extent)| extent.end(**start) > range.start);
        first.into_iter().chain(self.extents.range(range.clone())).map(|(start, extent)| (*start, extent))
    }
}

/// The part of an extent, which begins at `start`, that lies within a range; shares its buffer.
fn part(bytes: &Bytes, start: u64, range: &Range<u64>) -> Bytes {
    bytes.slice(within(&(start..start + bytes.len() as u64), range))
}

/// Where the common part of both lies within `whole`.
fn within(whole: &Range<u64>, range: &Range<u64>) -> Range<usize> {
    let start = range.start.max(whole.start) - whole.start;
    let end = range.end.min(whole.end) - whole.start;
    start as usize..end as usize
}
