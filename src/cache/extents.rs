//! Which bytes of which version are here or on their way, and the one budget over all of them.
//!
//! Pure bookkeeping: no waiting, no requests. The bytes of a version are extents that never
//! overlap; an extent is one fetched buffer, evicted as a whole, so that what is accounted is what
//! is in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;

use super::ahead::Stream;
use super::budget::{Budget, Place};
use super::flight::{Flight, Waiting};
use super::{Headers, Pinned};
use crate::bucket::{ETag, ObjectInfo};

/// Charged for each extent besides its bytes, so that a million tiny ones are bounded as well.
const OVERHEAD_BYTES: u64 = 256;

/// What an extent of this many bytes takes from the budget.
pub(super) fn charge(range: &Range<u64>) -> u64 {
    range.end - range.start + OVERHEAD_BYTES
}

/// Charged for a GET besides its bytes, and at most as much as those: what its connection has read and
/// not handed over yet. hyper's buffers grow to 400 KiB, and the next one is filled while the last one
/// is copied.
const MAX_CONNECTION_BYTES: u64 = 512 << 10;

fn connection_charge(flight: &Flight) -> u64 {
    MAX_CONNECTION_BYTES.min(flight.range.end - flight.range.start)
}

/// What a flight takes from the budget before it starts.
fn flight_charge(flight: &Flight) -> u64 {
    connection_charge(flight) + (0..flight.seats()).map(|seat| charge(flight.seat(seat))).sum::<u64>()
}

struct Held {
    bytes: Bytes,
    /// The read-ahead of the handle that it was fetched for.
    stream: Weak<Stream>,
}

enum Extent {
    Held(Held),
    /// A seat of a flight.
    Coming(Arc<Flight>, usize),
}

impl Extent {
    fn end(&self, start: u64) -> u64 {
        match self {
            Self::Held(held) => start + held.bytes.len() as u64,
            Self::Coming(flight, seat) => flight.seat(*seat).end,
        }
    }
}

struct Version {
    key: Arc<str>,
    etag: ETag,
    /// When the bucket was last asked for bytes of this version and had them.
    confirmed: Option<Instant>,
    headers: Option<Headers>,
    extents: BTreeMap<u64, Extent>,
}

/// A stretch of a range that was looked up.
pub(super) enum Piece {
    /// Its bytes.
    Here(Bytes),
    /// Part of a seat of a flight: what to wait for, and the part within the seat's bytes.
    Coming(Waiting, Range<usize>),
    /// Neither here nor coming.
    Gap(Range<u64>),
}

impl Piece {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::Coming(_, within) => within.len() as u64,
            Self::Gap(range) => range.end - range.start,
        }
    }
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
    budget: Budget,
    evictions: u64,
    last_version: u64,
    names: HashMap<Arc<str>, Vec<u64>>,
    versions: HashMap<u64, Version>,
}

impl Extents {
    /// Nothing yet, and room for so many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        let budget = Budget::new(limit_bytes);
        Self { budget, evictions: 0, last_version: 0, names: HashMap::new(), versions: HashMap::new() }
    }

    /// The accounts over all extents.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Extents dropped so far to make room.
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
        self.budget.touch(Place { version, start }, end <= range.end);
        if !rest.is_empty() {
            self.touch_range(version, &(end..range.end));
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
                Extent::Coming(flight, seat) => Piece::Coming(flight.join(*seat), within(flight.seat(*seat), range)),
            });
            reached = extent.end(start);
        }
        if reached < range.end {
            pieces.push(Piece::Gap(reached..range.end));
        }
        self.touch_range(version, range);
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
    pub fn board(&mut self, object: &Pinned, flight: &Arc<Flight>) {
        let version = self.version_id_or_new(object);
        let entry = self.versions.get_mut(&version).expect("the id was just looked up");
        for seat in 0..flight.seats() {
            entry.extents.insert(flight.seat(seat).start, Extent::Coming(flight.clone(), seat));
        }
    }

    /// Takes room for a flight from the budget, evicting what was read longest ago. For read-ahead
    /// only up to half of the budget, and never at the cost of other read-ahead.
    pub fn reserve(&mut self, flight: &Flight) -> bool {
        let bytes = flight_charge(flight);
        if flight.ahead && !self.budget.fits_ahead(bytes) {
            return false;
        }
        self.reserve_bytes(bytes, flight.ahead)
    }

    /// Takes room for bytes that are not held here.
    pub fn reserve_bytes(&mut self, bytes: u64, ahead: bool) -> bool {
        if !self.make_room(bytes, !ahead) {
            return false;
        }
        self.budget.reserve(bytes, ahead);
        true
    }

    /// Gives back what [`Extents::reserve_bytes`] took.
    pub fn release_bytes(&mut self, bytes: u64) {
        self.budget.release(bytes, false);
    }

    /// A seat of a flight is over: its room is given back, or taken by its bytes. Bytes of a flight
    /// that is no longer entered (forgotten, cancelled) are not kept.
    pub fn land(&mut self, object: &Pinned, flight: &Arc<Flight>, seat: usize, reserved: bool, bytes: Option<&Bytes>) {
        let range = flight.seat(seat);
        if reserved {
            self.budget.release(charge(range), flight.ahead);
        }
        let Some(version) = self.take_off(object, flight, seat) else { return };
        if let Some(bytes) = bytes {
            let unread = flight.ahead && !flight.is_awaited(seat);
            let held = Held { bytes: bytes.clone(), stream: flight.stream.clone() };
            self.hold(Place { version, start: range.start }, held, flight.ahead, unread);
        }
        self.drop_version_if_empty(version);
    }

    /// A flight that had room is over, with all of its seats.
    pub fn end(&mut self, flight: &Flight) {
        self.budget.release(connection_charge(flight), flight.ahead);
    }

    /// Takes a seat out of the books when it is entered; the id of its version if it was.
    fn take_off(&mut self, object: &Pinned, flight: &Arc<Flight>, seat: usize) -> Option<u64> {
        let version = self.version_id(object)?;
        let extents = &mut self.versions.get_mut(&version)?.extents;
        let start = flight.seat(seat).start;
        match extents.get(&start) {
            Some(Extent::Coming(entered, _)) if Arc::ptr_eq(entered, flight) => {
                extents.remove(&start);
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
            self.hold(Place { version, start: gap.start }, Held { bytes, stream: Weak::new() }, false, false);
        }
    }

    /// The bucket had this version when it was asked at `asked`.
    pub fn confirm(&mut self, object: &Pinned, asked: Instant) {
        let entry = self.version_id(object).and_then(|version| self.versions.get_mut(&version));
        if let Some(entry) = entry {
            entry.confirmed = entry.confirmed.max(Some(asked));
        }
    }

    /// When the bucket was last asked for bytes of this version and had them.
    pub fn confirmed(&self, object: &Pinned) -> Option<Instant> {
        self.versions[&self.version_id(object)?].confirmed
    }

    /// What the bucket said of this version beside bytes of it. Kept while any of them are here, and where it is
    /// little: what is charged besides bytes has to cover it.
    pub fn keep_headers(&mut self, object: &Pinned, asked: Instant, info: &ObjectInfo) {
        let metadata_bytes: usize = info.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        let entry = self.version_id(object).and_then(|version| self.versions.get_mut(&version));
        if let Some(entry) = entry.filter(|_| metadata_bytes as u64 <= OVERHEAD_BYTES) {
            entry.headers = Some(Headers { asked, info: Arc::new(info.clone()) });
        }
    }

    /// What was kept of that.
    pub fn headers(&self, object: &Pinned) -> Option<Headers> {
        self.versions[&self.version_id(object)?].headers.clone()
    }

    /// Drops every version of a key. Flights under way still reach those who wait for them.
    pub fn forget(&mut self, key: &str) {
        for version in self.names.remove(key).unwrap_or_default() {
            let Some(entry) = self.versions.remove(&version) else { continue };
            for start in entry.extents.into_keys() {
                self.budget.let_go(Place { version, start });
            }
        }
    }

    /// A version has another name now, and the same bytes. What is on its way reaches those who wait for it and
    /// is not kept; what is held under the new name already stays.
    pub fn relabel(&mut self, from: &Pinned, to: &Pinned) {
        let Some(version) = self.version_id(from) else { return };
        if self.version_id(to).is_some() {
            return;
        }
        self.unname(&from.key, version);
        self.names.entry(to.key.clone()).or_default().push(version);
        let entry = self.versions.get_mut(&version).expect("its id was just looked up");
        (entry.key, entry.etag) = (to.key.clone(), to.etag.clone());
        // These are of the other object: its tag is among them.
        (entry.confirmed, entry.headers) = (None, None);
        entry.extents.retain(|_, extent| matches!(extent, Extent::Held(_)));
        self.drop_version_if_empty(version);
    }

    /// A read-ahead lost interest in a range: its flights that nobody waits for are returned for
    /// the caller to abort, what it brought unread goes first when room is needed.
    pub fn abandon(&mut self, object: &Pinned, range: &Range<u64>, stream: &Weak<Stream>) -> Vec<Arc<Flight>> {
        let Some(version) = self.version_id(object) else { return Vec::new() };
        let mut idle: Vec<Arc<Flight>> = Vec::new();
        let mut brought = Vec::new();
        for (start, extent) in self.versions[&version].overlapping(range) {
            match extent {
                Extent::Coming(flight, _) if flight.stream.ptr_eq(stream) && !flight.has_waiters() => {
                    idle.push(flight.clone());
                }
                Extent::Held(held) if held.stream.ptr_eq(stream) => brought.push(Place { version, start }),
                _ => {}
            }
        }
        // A flight is met once for each of its seats.
        idle.dedup_by(|one, other| Arc::ptr_eq(one, other));
        for place in brought {
            if self.budget.is_unread(place) {
                self.budget.demote(place);
            }
        }
        for flight in &idle {
            for seat in 0..flight.seats() {
                self.take_off(object, flight, seat);
            }
        }
        self.drop_version_if_empty(version);
        idle
    }

    fn hold(&mut self, place: Place, held: Held, streamed: bool, unread: bool) {
        self.budget.hold(place, charge(&(0..held.bytes.len() as u64)), streamed, unread);
        let entry = self.versions.get_mut(&place.version).expect("a version with a flight or a fresh one is entered");
        entry.extents.insert(place.start, Extent::Held(held));
    }

    /// Evicts until so many bytes more fit. Unread read-ahead only when `unread_too`.
    fn make_room(&mut self, bytes: u64, unread_too: bool) -> bool {
        while !self.budget.fits(bytes) || self.budget.has_surplus() {
            let Some(place) = self.budget.oldest(unread_too) else { return false };
            self.budget.let_go(place);
            let entry = self.versions.get_mut(&place.version).expect("what is accounted is entered");
            entry.extents.remove(&place.start);
            self.evictions += 1;
            self.drop_version_if_empty(place.version);
        }
        true
    }

    fn touch_range(&mut self, version: u64, range: &Range<u64>) {
        for (start, extent) in self.versions[&version].overlapping(range) {
            self.budget.touch(Place { version, start }, extent.end(start) <= range.end);
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
        self.last_version += 1;
        let id = self.last_version;
        let (key, etag) = (object.key.clone(), object.etag.clone());
        let version = Version { key, etag, confirmed: None, headers: None, extents: BTreeMap::new() };
        self.versions.insert(id, version);
        self.names.entry(object.key.clone()).or_default().push(id);
        id
    }

    fn drop_version_if_empty(&mut self, version: u64) {
        if self.versions.get(&version).is_none_or(|entry| !entry.extents.is_empty()) {
            return;
        }
        let entry = self.versions.remove(&version).expect("looked up above");
        self.unname(&entry.key, version);
    }

    fn unname(&mut self, key: &str, version: u64) {
        let Some(ids) = self.names.get_mut(key) else { return };
        ids.retain(|id| *id != version);
        if ids.is_empty() {
            self.names.remove(key);
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
