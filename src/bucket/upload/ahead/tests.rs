use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::MIN_PART_BYTES;
use super::*;
use crate::bucket::memory::{Effect, Fault, MemoryBucket};
use crate::error::Kind;

/// A file that is being written.
#[derive(Default)]
struct Growing(Mutex<Vec<u8>>);

#[async_trait]
impl PartSource for Growing {
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(&self.0.lock()[range.start as usize..range.end as usize]))
    }
}

struct Stage {
    memory: Arc<MemoryBucket>,
    upload: Arc<UploadAhead>,
    file: Arc<Growing>,
}

impl Stage {
    fn new() -> Self {
        let memory = Arc::new(MemoryBucket::new());
        let settings = UploadSettings { part_bytes: MIN_PART_BYTES, concurrency: 2, memory: None, on_begin: None };
        let upload = Arc::new(UploadAhead::new(memory.clone(), "k", PutOptions::default(), settings));
        Self { memory, upload, file: Arc::default() }
    }

    /// Grows the file by parts that nobody writes to any more, and a few bytes.
    fn write(&self, parts: u8) {
        for part in 0..parts {
            self.file.0.lock().extend(vec![part; MIN_PART_BYTES as usize]);
        }
        self.file.0.lock().extend(b"rest");
        self.upload.wake();
    }

    fn overwrite(&self, at: u64) {
        self.file.0.lock()[at as usize] = 99;
        self.upload.wrote(&(at..at + 1));
    }

    fn run_ahead(&self) -> tokio::task::JoinHandle<Result<()>> {
        let (upload, file) = (self.upload.clone(), self.file.clone());
        tokio::spawn(async move {
            let all = || {
                let end = file.0.lock().len() as u64;
                (end > 0).then_some(0..end).into_iter().collect()
            };
            upload.send_written(file.as_ref(), all).await
        })
    }

    async fn until_sent(&self, parts: usize) {
        let sent = || self.upload.parts.lock().values().filter(|part| matches!(part.state, State::Sent(_))).count();
        while sent() < parts {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn finish(&self) -> Result<ETag> {
        let size = self.file.0.lock().len() as u64;
        self.upload.finish(self.file.as_ref(), size, &Condition::None).await
    }

    fn assert_stored(&self) {
        assert!(self.memory.bytes("k").unwrap() == *self.file.0.lock(), "other bytes than the file has");
        assert_eq!(self.memory.open_uploads(), 0);
    }
}

#[tokio::test]
async fn whole_parts_leave_while_it_is_written_and_the_rest_at_the_end() {
    let stage = Stage::new();
    let ahead = stage.run_ahead();
    stage.write(3);
    stage.until_sent(3).await;
    assert_eq!(stage.memory.bytes("k"), None);
    stage.finish().await.unwrap();
    ahead.abort();
    stage.assert_stored();
    assert_eq!((stage.memory.count("UploadPart"), stage.memory.count("CreateMultipartUpload")), (4, 1));
}

#[tokio::test]
async fn what_was_written_over_is_sent_again_and_nothing_else() {
    let stage = Stage::new();
    let ahead = stage.run_ahead();
    stage.write(3);
    stage.until_sent(3).await;
    stage.overwrite(MIN_PART_BYTES + 7);
    stage.finish().await.unwrap();
    ahead.abort();
    stage.assert_stored();
    assert_eq!(stage.memory.count("UploadPart"), 5);
}

#[tokio::test]
async fn a_part_written_over_while_it_leaves_is_sent_again_after_that() {
    let stage = Stage::new();
    stage.memory.inject(Fault::once("UploadPart", Effect::Delay(Duration::from_millis(100))));
    let ahead = stage.run_ahead();
    stage.write(1);
    while stage.memory.count("UploadPart") == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stage.overwrite(7);
    stage.finish().await.unwrap();
    ahead.abort();
    stage.assert_stored();
    assert_eq!(stage.memory.count("UploadPart"), 3);
}

#[tokio::test]
async fn a_part_that_failed_ahead_is_sent_at_the_end() {
    let stage = Stage::new();
    stage.memory.inject(Fault::once("UploadPart", Effect::Fail(Kind::AccessDenied)));
    let ahead = stage.run_ahead();
    stage.write(3);
    assert_eq!(ahead.await.unwrap().unwrap_err().kind, Kind::AccessDenied);
    stage.finish().await.unwrap();
    stage.assert_stored();
}

#[tokio::test]
async fn an_end_that_failed_is_tried_again_without_sending_what_was_sent() {
    let stage = Stage::new();
    stage.write(3);
    stage.memory.inject(Fault::once("CompleteMultipartUpload", Effect::Fail(Kind::AccessDenied)));
    assert_eq!(stage.finish().await.unwrap_err().kind, Kind::AccessDenied);
    // The last part is longer now than it was.
    stage.write(0);
    stage.finish().await.unwrap();
    stage.assert_stored();
    assert_eq!(stage.memory.count("UploadPart"), 5);
}

#[tokio::test]
async fn what_is_dropped_is_aborted() {
    let stage = Stage::new();
    let ahead = stage.run_ahead();
    stage.write(3);
    stage.until_sent(1).await;
    ahead.abort();
    let _ = ahead.await;
    let Stage { memory, upload, .. } = stage;
    drop(upload);
    while memory.open_uploads() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
