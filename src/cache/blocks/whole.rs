//! Whole versions, as files.

use std::fs::File;
use std::time::Duration;

use super::super::{Pinned, Whole};
use super::BlockCache;

impl BlockCache {
    /// A local file with all bytes of a version, each verified by this process; what is not yet may
    /// be for so long.
    pub async fn whole_file(&self, object: &Pinned, budget: Duration) -> Option<File> {
        let disk = self.disk.clone()?;
        match disk.whole(object) {
            Whole::File(file) => Some(file),
            Whole::No => None,
            Whole::Unverified => {
                let object = object.clone();
                let verifying = tokio::task::spawn_blocking(move || disk.verify(&object, budget));
                // One that panicked has told nothing; the panic itself was logged.
                verifying.await.ok().flatten()
            }
        }
    }
}
