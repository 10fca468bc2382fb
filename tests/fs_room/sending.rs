//! Parts of a large new file leave before its close.

use s3mount::bucket::ETag;
use s3mount::bucket::upload::UploadSettings;
use s3mount::journal::{EventName, Intent};

use super::parts::{MIB, pattern};
use super::*;

/// A file being written whose first parts have left.
struct Sending {
    house: House,
    ino: Ino,
    handle: u64,
    body: Vec<u8>,
}

const PART: u64 = 8 * MIB;

impl Sending {
    /// Writes whole parts and a bit, and waits until so many are in the bucket.
    async fn begin(house: House, parts: u64) -> Self {
        let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
        let mut sending = Self { house, ino: entry.ino, handle: opened.handle, body: Vec::new() };
        sending.append(parts * PART + 1).await;
        sending.until(|house| house.bucket.count("UploadPart") >= parts && house.bucket.under_way() == 0).await;
        sending
    }

    async fn append(&mut self, bytes: u64) {
        let from = self.body.len();
        self.body.extend(pattern(bytes));
        for at in (from..self.body.len()).step_by(MIB as usize) {
            let end = self.body.len().min(at + MIB as usize);
            self.house.fs.write(self.handle, at as u64, &self.body[at..end]).await.unwrap();
        }
    }

    async fn overwrite(&mut self, at: u64, bytes: &[u8]) {
        self.house.fs.write(self.handle, at, bytes).await.unwrap();
        self.body[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    async fn until(&self, holds: impl Fn(&House) -> bool) {
        let waiting = async {
            while !holds(&self.house) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(2), waiting).await.expect("it never came to that");
    }

    async fn close(&self) -> Result<(), Errno> {
        self.house.fs.flush(self.handle, ME).await.map_err(|error| error.errno())
    }

    fn assert_stored(&self, key: &str) {
        assert!(self.house.bucket.bytes(key).unwrap() == self.body, "other bytes than were written");
        assert_eq!(self.house.bucket.open_uploads(), 0);
    }

    fn intents(&self) -> Vec<Intent> {
        self.house.journal.open_intents().unwrap().into_iter().map(|(_, intent)| intent).collect()
    }
}

#[tokio::test]
async fn parts_leave_before_the_close_and_each_leaves_once() {
    let mut sending = Sending::begin(House::new().await, 4).await;
    assert_eq!(sending.house.bucket.bytes("f"), None, "a reader of the bucket sees no half file");
    assert!(matches!(sending.intents().as_slice(), [Intent::Upload { .. }]));
    sending.append(PART).await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.count("UploadPart"), 6);
    assert_eq!(sending.house.bucket.count("CreateMultipartUpload"), 1);
    assert_eq!(sending.house.bucket.count("CopyObject"), 0);
    assert_eq!(sending.house.bucket.moved().sent, sending.body.len() as u64);
    // Behind the close, which need not wait for it.
    sending.until(|house| house.journal.open_intents().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_part_written_over_after_it_left_is_sent_again() {
    let mut sending = Sending::begin(House::new().await, 4).await;
    sending.overwrite(PART - 2, b"both").await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.count("UploadPart"), 4 + 2 + 1);
}

#[tokio::test]
async fn parts_of_two_writers_leave_as_they_become_whole() {
    let house = House::new().await;
    let (entry, first) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    let second = house.fs.open(entry.ino, WRITE, ME).await.unwrap();
    let body = pattern(48 * MIB);
    let mut sending = Sending { house, ino: entry.ino, handle: first.handle, body };
    for step in 0..24 {
        for (handle, at) in [(first.handle, step * MIB), (second.handle, (24 + step) * MIB)] {
            let bytes = &sending.body[at as usize..(at + MIB) as usize];
            sending.house.fs.write(handle, at, bytes).await.unwrap();
        }
    }
    sending.until(|house| house.bucket.count("UploadPart") >= 4).await;
    sending.overwrite(30 * MIB, b"changed").await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
}

#[tokio::test]
async fn a_file_cut_below_what_was_sent_gives_its_upload_up() {
    for size in [0, 20 * MIB] {
        let mut sending = Sending::begin(House::new().await, 4).await;
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        sending.house.fs.setattr(sending.ino, set).await.unwrap();
        sending.until(|house| house.bucket.open_uploads() == 0).await;
        sending.body.truncate(size as usize);
        sending.append(10).await;
        sending.close().await.unwrap();
        sending.assert_stored("f");
        sending.until(|house| house.journal.open_intents().unwrap().is_empty()).await;
    }
}

#[tokio::test]
async fn a_file_removed_while_it_is_sent_leaves_nothing() {
    let sending = Sending::begin(House::new().await, 4).await;
    sending.house.fs.unlink(ROOT, OsStr::new("f")).await.unwrap();
    sending.until(|house| house.bucket.open_uploads() == 0).await;
    sending.house.fs.release(sending.handle).await.unwrap();
    assert_eq!(sending.house.bucket.keys(), Vec::<String>::new());
    sending.until(|house| house.journal.open_intents().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_file_renamed_while_it_is_sent_is_whole_under_its_new_name() {
    let sending = Sending::begin(House::new().await, 4).await;
    sending.house.fs.rename(ROOT, OsStr::new("f"), ROOT, OsStr::new("g"), 0).await.unwrap();
    sending.until(|house| house.bucket.open_uploads() == 0).await;
    sending.close().await.unwrap();
    sending.assert_stored("g");
    assert_eq!(sending.house.bucket.keys(), ["g"]);
}

#[tokio::test]
async fn a_name_taken_meanwhile_is_estale_and_the_upload_is_given_up() {
    let sending = Sending::begin(House::new().await, 4).await;
    sending.house.bucket.insert("f", "theirs", Metadata::new());
    assert_eq!(sending.close().await, Err(Errno::ESTALE));
    assert_eq!(sending.house.bucket.bytes("f").unwrap(), "theirs");
    sending.until(|house| house.bucket.open_uploads() == 0).await;
    let drafts = std::fs::read_dir(sending.house.state.path().join("drafts")).unwrap();
    let kept = drafts.filter_map(Result::ok).find(|entry| entry.path().extension().is_some()).unwrap();
    assert!(std::fs::read(kept.path()).unwrap() == sending.body, "ours is kept whole");
}

#[tokio::test]
async fn a_part_that_fails_fails_no_write_and_the_close_sends_it() {
    let house = House::new().await;
    house.bucket.inject(Fault::once("UploadPart", Effect::Fail(Kind::AccessDenied)));
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    let mut sending = Sending { house, ino: entry.ino, handle: opened.handle, body: Vec::new() };
    sending.append(20 * MIB).await;
    sending.until(|house| house.bucket.count("UploadPart") > 0 && house.bucket.under_way() == 0).await;
    sending.append(20 * MIB).await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
}

#[tokio::test]
async fn an_upload_that_cannot_be_begun_fails_no_write_and_the_close_begins_it() {
    let house = House::new().await;
    house.bucket.inject(Fault::once("CreateMultipartUpload", Effect::Fail(Kind::AccessDenied)));
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    let mut sending = Sending { house, ino: entry.ino, handle: opened.handle, body: Vec::new() };
    sending.append(20 * MIB).await;
    sending.until(|house| house.bucket.count("CreateMultipartUpload") > 0).await;
    sending.append(20 * MIB).await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
}

#[tokio::test]
async fn a_close_that_failed_is_tried_again_with_the_parts_that_were_sent() {
    let mut sending = Sending::begin(House::new().await, 4).await;
    sending.house.bucket.inject(Fault::once("CompleteMultipartUpload", Effect::Fail(Kind::AccessDenied)));
    assert_eq!(sending.close().await, Err(Errno::EACCES));
    sending.overwrite(PART, b"changed").await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.count("UploadPart"), 4 + 1 + 1);
    assert_eq!(sending.house.bucket.count("CreateMultipartUpload"), 1);
}

#[tokio::test]
async fn an_upload_that_the_server_has_forgotten_is_begun_anew() {
    let sending = Sending::begin(House::new().await, 4).await;
    for upload in sending.house.bucket.list_uploads("").await.unwrap() {
        sending.house.bucket.abort_upload("f", &upload.upload_id).await.unwrap();
    }
    sending.close().await.unwrap();
    sending.assert_stored("f");
    sending.until(|house| house.journal.open_intents().unwrap().is_empty()).await;
}

#[tokio::test]
async fn a_mode_set_while_parts_leave_is_stored_and_hooks_hear_of_one_upload() {
    let with_events = |settings| Settings { events: true, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), with_events).await;
    let sending = Sending::begin(house, 4).await;
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    sending.house.fs.setattr(sending.ino, set).await.unwrap();
    sending.close().await.unwrap();
    sending.assert_stored("f");
    let stored = sending.house.bucket.info("f").unwrap();
    assert_eq!(stored.metadata["file-permissions"], "0100600");
    assert_eq!(sending.house.bucket.count("CopyObject"), 1);
    let events = sending.house.journal.events(10).unwrap();
    let told: Vec<_> = events.iter().map(|event| (event.fact.name, event.fact.etag.clone())).collect();
    assert_eq!(told, [(EventName::CreatedMultipart, Some(stored.etag.to_string()))]);
    // What is written next is a change to the version that has the mode.
    sending.house.fs.write(sending.handle, 0, b"x").await.unwrap();
    sending.close().await.unwrap();
    assert_eq!(sending.house.bucket.info("f").unwrap().metadata["file-permissions"], "0100600");
}

#[tokio::test]
async fn a_mode_set_to_what_it_is_while_parts_leave_is_not_worth_a_copy() {
    let sending = Sending::begin(House::new().await, 4).await;
    let before = sending.house.fs.getattr(sending.ino).await.unwrap().stat;
    let set = SetAttr { mode: Some(before.perm.into()), ..SetAttr::default() };
    let after = sending.house.fs.setattr(sending.ino, set).await.unwrap().stat;
    assert!(after.ctime > before.ctime);
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.count("CopyObject"), 0);
    assert_eq!(sending.house.fs.getattr(sending.ino).await.unwrap().stat.ctime, after.ctime);
}

#[tokio::test]
async fn a_mode_that_could_not_be_stored_is_stored_by_the_next_close() {
    let sending = Sending::begin(House::new().await, 4).await;
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    sending.house.fs.setattr(sending.ino, set).await.unwrap();
    sending.house.bucket.inject(Fault::once("CopyObject", Effect::Fail(Kind::AccessDenied)));
    assert_eq!(sending.close().await, Err(Errno::EACCES));
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.info("f").unwrap().metadata["file-permissions"], "0100600");
    assert_eq!(sending.house.bucket.count("UploadPart"), 5, "its bytes were there already");
}

#[tokio::test]
async fn times_told_while_parts_leave_are_those_that_are_stored() {
    let mut sending = Sending::begin(House::new().await, 4).await;
    let told = sending.house.fs.getattr(sending.ino).await.unwrap().stat;
    sending.append(PART).await;
    sending.close().await.unwrap();
    assert_eq!(sending.house.fs.getattr(sending.ino).await.unwrap().stat.mtime, told.mtime);
    let stored = Attributes::from_metadata(&sending.house.bucket.info("f").unwrap().metadata);
    assert_eq!((stored.mtime, stored.ctime), (Some(told.mtime), Some(told.ctime)));
    assert_eq!(sending.house.bucket.count("CopyObject"), 0);
}

#[tokio::test]
async fn a_large_file_written_over_is_sent_ahead_and_only_over_its_version() {
    let house = House::new().await;
    let before: ETag = house.bucket.insert("f", pattern(20 * MIB), Metadata::new());
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    let opened = house.fs.open(ino, WRITE | libc::O_TRUNC, ME).await.unwrap();
    let mut sending = Sending { house, ino, handle: opened.handle, body: Vec::new() };
    sending.append(40 * MIB).await;
    sending.until(|house| house.bucket.count("UploadPart") >= 5).await;
    assert_eq!(sending.house.bucket.info("f").unwrap().etag, before);
    sending.close().await.unwrap();
    sending.assert_stored("f");
}

#[tokio::test]
async fn uploads_of_a_killed_writer_are_aborted_by_the_next_start() {
    let sending = Sending::begin(House::new().await, 4).await;
    let Sending { house, .. } = sending;
    // What a crash leaves: the upload there, its record in the journal.
    house.bucket.inject(Fault { operation: Some("AbortMultipartUpload"), ..Fault::always(Effect::Hang) });
    let House { bucket, fs, journal, state, .. } = house;
    let open = Arc::downgrade(&journal);
    drop((fs, journal));
    while open.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(bucket.open_uploads(), 1);
    bucket.heal();
    let house = House::on(bucket, state).await;
    assert_eq!(house.bucket.open_uploads(), 0);
}

#[tokio::test]
async fn no_more_parts_leave_at_once_than_the_settings_say() {
    let few =
        |settings| Settings { upload: UploadSettings { concurrency: 2, ..UploadSettings::default() }, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), few).await;
    let slow = Effect::Delay(Duration::from_millis(20));
    house.bucket.inject(Fault { operation: Some("UploadPart"), ..Fault::always(slow) });
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    let mut sending = Sending { house, ino: entry.ino, handle: opened.handle, body: Vec::new() };
    sending.append(80 * MIB).await;
    sending.close().await.unwrap();
    sending.assert_stored("f");
    assert_eq!(sending.house.bucket.most_at_once("UploadPart"), 2);
}
