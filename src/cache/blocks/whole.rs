//! Whole versions, as files.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::{DiskCache, Pinned, ReadAhead, Whole};
use super::BlockCache;

impl BlockCache {
    /// Lets what the disk was too slow for follow when it has time, from memory or from the bucket:
    /// an object that was read whole should be whole on disk. Needs the runtime; ends with it.
    pub fn keep_mending(self: &Arc<Self>) {
        let Some(disk) = self.disk.clone() else { return };
        let myself = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                let (object, range) = disk.next_skipped().await;
                let Some(cache) = myself.upgrade() else { return };
                cache.mend(&disk, &object, range).await;
            }
        });
    }

    async fn mend(self: &Arc<Self>, disk: &Arc<DiskCache>, object: &Pinned, range: Range<u64>) {
        let wanted = range.clone();
        // What was replaced or cannot be reached is not worth a word: nobody waits for it.
        if let Ok(bytes) = self.read(object, range, &ReadAhead::new()).await {
            disk.store(object, wanted.start, bytes).await;
        }
    }

    /// Hands a local file with all bytes of a version to the disk cache, which copies it soon.
    /// `is_unchanged` tells after that whether the file still held them.
    pub fn insert_file(&self, object: &Pinned, file: File, is_unchanged: impl Fn() -> bool + Send + 'static) {
        if let Some(disk) = &self.disk {
            disk.write_file(object, file, is_unchanged);
        }
    }

    /// A local file with all bytes of a version, each verified by this process; what is not yet may
    /// be for so long.
    pub async fn whole_file(&self, object: &Pinned, budget: Duration) -> Option<File> {
        let disk = self.disk.clone()?;
        let object = object.clone();
        let looking = tokio::task::spawn_blocking(move || match disk.whole(&object) {
            Whole::File(file) => Some(file),
            Whole::No => None,
            Whole::Unverified => disk.verify(&object, budget),
        });
        // One that panicked has told nothing; the panic itself was logged.
        looking.await.ok().flatten()
    }
}
