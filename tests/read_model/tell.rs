//! Closes that S3 is told of later.

use super::play::World;
use super::reference::{File, FileId, Unstored};

impl World {
    /// In a write-back mount: S3 is told of every close.
    pub async fn tell(&mut self) {
        if !self.write_back {
            return;
        }
        let told = self.house().fs.sync(None).await;
        for id in self.reference.told() {
            if self.has_last_close(id) {
                continue;
            }
            let expected = self.reference.commit(id);
            self.compare_stored(id, expected, Ok(())).await;
        }
        // It may have stored what is just being written to a file whose last close had to wait.
        let bucket = &self.house().bucket;
        let is_stored = |file: &File| {
            let there = file.path().and_then(|path| bucket.bytes(path));
            file.unstored == Unstored::Bytes && there.is_some_and(|bytes| bytes == file.bytes)
        };
        let stored = self.reference.files.iter().filter(|(_, file)| is_stored(file)).map(|(id, _)| *id);
        for id in stored.collect::<Vec<_>>() {
            self.reference.commit(id).expect("what S3 took is not estranged");
        }
        self.reference.files.values_mut().for_each(|file| file.waiting = false);
        let foreign = |cause: &str| cause.contains("Precondition") || cause.contains("NoSuchKey");
        assert!(told.iter().all(|left| foreign(&left.cause)), "{told:?}");
    }

    /// Whether S3 has a file as it was stored last, and not what was written to it since.
    fn has_last_close(&self, id: FileId) -> bool {
        let file = &self.reference.files[&id];
        let Some(path) = file.path().filter(|_| !self.reference.is_estranged(id)) else { return false };
        let (there, stored) = (self.house().bucket.bytes(path), self.reference.stored.get(path));
        file.unstored == Unstored::Bytes
            && file.promised.is_none()
            && there.zip(stored).is_some_and(|(there, stored)| there == stored.bytes)
    }
}
