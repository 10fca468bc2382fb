//! Verifying ahead what was used last, so that the first open after a start finds it verified.
//!
//! Only what the system still has in memory: it costs a tenth of a second for each GiB and no read
//! of the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::ledger::Name;
use super::{DiskCache, Inner, Opened, name};

/// Files looked at, at most.
const MAX_FILES: usize = 64;
/// Their bytes, at most.
const MAX_BYTES: u64 = 4 << 30;
/// Smaller ones are not given to the kernel.
const LEAST_BYTES: u64 = 4 << 20;
/// Time for all of them.
const BUDGET: Duration = Duration::from_secs(1);

impl DiskCache {
    /// Verifies what was used last on a thread of its own, for [`DiskCache::whole`].
    pub fn verify_recent(&self) {
        let inner = Arc::clone(&self.inner);
        let verifying = move || inner.verify_recent(Instant::now() + BUDGET);
        // Without a thread the first open verifies.
        let _ = std::thread::Builder::new().name("disk-verify".to_owned()).spawn(verifying);
    }
}

impl Inner {
    fn verify_recent(&self, until: Instant) {
        let mut left_bytes = MAX_BYTES;
        let entries = self.directory.scan().entries;
        for (name, _) in entries.into_iter().rev().take(MAX_FILES) {
            let Some(entry) = self.open_quietly(&name).filter(|entry| entry.size() >= LEAST_BYTES) else { continue };
            if entry.size() > left_bytes || Instant::now() > until {
                return;
            }
            left_bytes -= entry.size();
            // Who reads what is damaged will tell of it, by its key.
            let _ = entry.verify(1, until);
        }
    }

    /// Opens an entry without counting that as a use.
    fn open_quietly(&self, wanted: &Name) -> Option<Arc<Entry>> {
        if let Some(opened) = self.open.lock().peek(wanted) {
            return Some(opened.entry.clone());
        }
        let stem = self.directory.stem(wanted);
        let (identity, size) = Entry::peek(&stem).ok().filter(|(identity, _)| name(identity) == *wanted)?;
        let entry = Arc::new(Entry::open(&stem, &identity, size).ok()?);
        let mut open = self.open.lock();
        let opened = open.get_or_insert(*wanted, || Opened { entry, touched: Instant::now() });
        Some(opened.entry.clone())
    }
}
