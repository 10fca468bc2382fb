//! Large files: what did not change is not moved, and parts leave before the close.

use super::*;

pub const MIB: u64 = 1 << 20;

/// Bytes that differ from place to place.
pub fn pattern(bytes: u64) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(bytes as usize);
    for page in 0..bytes.div_ceil(4096) {
        pattern.resize(bytes.min((page + 1) * 4096) as usize, (page as u8) ^ (page >> 8) as u8);
    }
    pattern
}

/// A large object of another client, and what is in it.
async fn over_object(bytes: u64) -> (House, Vec<u8>) {
    let house = House::patient().await;
    let body = pattern(bytes);
    house.bucket.insert("f", body.clone(), Metadata::from([("theirs".to_owned(), "kept".to_owned())]));
    (house, body)
}

impl House {
    async fn open_large(&self) -> u64 {
        let ino = self.lookup(ROOT, "f").await.unwrap().ino;
        self.fs.open(ino, WRITE, ME).await.unwrap().handle
    }

    /// Open, changed once and stored: nothing is left to be asked of it.
    async fn open_known(&self) -> u64 {
        let handle = self.open_large().await;
        self.fs.write(handle, 10 * MIB, b"changed").await.unwrap();
        self.fs.fsync(handle).await.unwrap();
        handle
    }

    fn requests(&self) -> u64 {
        self.bucket.requests().values().sum()
    }
}

#[tokio::test]
async fn four_kibibytes_inside_a_large_object_cost_seven_requests_and_two_parts() {
    let (house, mut body) = over_object(256 * MIB).await;
    let handle = house.open_large().await;
    let at = 128 * MIB;
    house.fs.write(handle, at, &[9; 4096]).await.unwrap();
    house.fs.fsync(handle).await.unwrap();
    body[at as usize..at as usize + 4096].fill(9);
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert!(house.requests() <= 7, "{:?}", house.bucket.requests());
    let moved = house.bucket.moved();
    assert!(moved.sent + moved.fetched <= 11_000_000, "{moved:?}");
    assert_eq!(house.bucket.info("f").unwrap().metadata["theirs"], "kept");
    assert_eq!(house.bucket.open_uploads(), 0);
}

#[tokio::test]
async fn what_is_appended_to_a_large_object_is_all_that_moves() {
    let (house, mut body) = over_object(64 * MIB).await;
    let handle = house.open_large().await;
    let mut requests = house.requests();
    for round in 1..=3_u8 {
        house.fs.write(handle, body.len() as u64, &[round; 4096]).await.unwrap();
        house.fs.fsync(handle).await.unwrap();
        body.extend_from_slice(&[round; 4096]);
        assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
        // The first has to ask for the metadata that it carries along, and has begun an upload without it.
        let cost = house.requests() - requests - if round == 1 { 3 } else { 0 };
        assert!(cost <= 5, "{cost} requests in round {round}: {:?}", house.bucket.requests());
        requests = house.requests();
    }
    let moved = house.bucket.moved();
    assert!(moved.sent <= 2 * 5 * MIB + 3 * 4096 && moved.fetched <= 5 * MIB, "{moved:?}");
    assert_eq!(house.bucket.info("f").unwrap().metadata["theirs"], "kept");
}

#[tokio::test]
async fn what_was_written_here_is_changed_in_place_too() {
    let house = House::patient().await;
    let mut body = pattern(40 * MIB);
    let (_, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, &body).await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    let before = house.bucket.moved();
    house.fs.write(opened.handle, 20 * MIB, b"changed").await.unwrap();
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    body[20 * MIB as usize..20 * MIB as usize + 7].copy_from_slice(b"changed");
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    let moved = house.bucket.moved();
    assert_eq!((moved.sent - before.sent, moved.fetched), (5 * MIB, 0));
}

#[tokio::test]
async fn bytes_that_were_never_fetched_are_read_from_the_new_version() {
    let (house, body) = over_object(64 * MIB).await;
    let handle = house.open_large().await;
    house.fs.write(handle, 30 * MIB, b"changed").await.unwrap();
    house.fs.fsync(handle).await.unwrap();
    for at in [0, 10 * MIB, 30 * MIB + 7, 50 * MIB, 64 * MIB - 4096] {
        let bytes = house.fs.read(handle, at, 4096).await.unwrap();
        assert!(bytes == body[at as usize..(at as usize + 4096).min(body.len())], "at {at}");
    }
    assert_eq!(house.fs.read(handle, 30 * MIB, 7).await.unwrap(), "changed");
}

#[tokio::test]
async fn a_large_object_cut_and_grown_again_shows_zeros() {
    let (house, mut body) = over_object(64 * MIB).await;
    let ino = house.lookup(ROOT, "f").await.unwrap().ino;
    for size in [40 * MIB + 1, 60 * MIB] {
        house.fs.setattr(ino, SetAttr { size: Some(size), ..SetAttr::default() }).await.unwrap();
        body.resize(size as usize, 0);
        assert!(house.bucket.bytes("f").unwrap() == body, "at {size}");
    }
    assert!(house.bucket.moved().fetched <= 5 * MIB, "{:?}", house.bucket.moved());
}

/// Two objects of others that nothing but a listing has told of yet, and what is appended to the first.
async fn appended(metadata: Metadata) -> (House, u64, Vec<u8>) {
    let house = House::patient().await;
    let mut body = pattern(64 * MIB);
    house.bucket.insert("f", body.clone(), metadata.clone());
    house.bucket.insert("g", body.clone(), metadata);
    let handle = house.open_large().await;
    house.fs.write(handle, 64 * MIB, b"more").await.unwrap();
    body.extend(b"more");
    (house, handle, body)
}

#[tokio::test]
async fn an_upload_begins_beside_the_question_what_it_carries() {
    let (house, handle, body) = appended(Metadata::new()).await;
    house.fs.fsync(handle).await.unwrap();
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert_eq!((house.bucket.count("HeadObject"), house.bucket.count("CreateMultipartUpload")), (1, 1));

    let (house, handle, _) = appended(Metadata::new()).await;
    house.bucket.inject(Fault::once("HeadObject", Effect::Fail(Kind::AccessDenied)));
    assert_eq!(house.fs.fsync(handle).await.unwrap_err().errno(), Errno::EACCES);
    assert_eq!((house.bucket.count("CreateMultipartUpload"), house.bucket.open_uploads()), (1, 0));
    assert_eq!(house.journal.open_intents().unwrap(), []);
}

#[tokio::test]
async fn an_upload_that_would_have_carried_something_else_is_given_up_for_another() {
    let (house, handle, body) = appended(Metadata::from([("theirs".to_owned(), "kept".to_owned())])).await;
    house.fs.fsync(handle).await.unwrap();
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert_eq!(house.bucket.info("f").unwrap().metadata["theirs"], "kept");
    assert_eq!((house.bucket.count("CreateMultipartUpload"), house.bucket.count("AbortMultipartUpload")), (2, 1));
    house.journal.settle_gathered().await;
    assert_eq!((house.bucket.open_uploads(), house.journal.open_intents().unwrap()), (0, vec![]));
    // The next is not guessed.
    let ino = house.lookup(ROOT, "g").await.unwrap().ino;
    let handle = house.fs.open(ino, WRITE, ME).await.unwrap().handle;
    house.fs.write(handle, 64 * MIB, b"more").await.unwrap();
    house.fs.fsync(handle).await.unwrap();
    assert_eq!((house.bucket.count("CreateMultipartUpload"), house.bucket.count("AbortMultipartUpload")), (3, 1));
}

#[tokio::test]
async fn a_change_of_a_version_that_is_gone_is_estale_and_kept_aside() {
    for during in [false, true] {
        let (house, _) = over_object(64 * MIB).await;
        let handle = house.open_large().await;
        // At the end: nothing has to be fetched that would tell.
        house.fs.write(handle, 64 * MIB, b"ours").await.unwrap();
        if during {
            house.bucket.inject(Fault::once("UploadPartCopy", Effect::Fail(Kind::NotFound)));
        } else {
            house.bucket.insert("f", "theirs", Metadata::new());
        }
        assert_eq!(house.fs.flush(handle, ME).await.unwrap_err().errno(), Errno::ESTALE);
        if !during {
            assert_eq!(house.bucket.bytes("f").unwrap(), "theirs");
        }
        assert_eq!(house.bucket.open_uploads(), 0);
        assert_eq!(house.fs.status().dirty_files, Vec::<String>::new());
        let drafts = std::fs::read_dir(house.state.path().join("drafts")).unwrap();
        let kept = drafts.filter(|entry| entry.as_ref().unwrap().path().extension().is_some()).count();
        assert_eq!(kept, 1);
    }
}

#[tokio::test]
async fn a_server_that_copies_no_parts_gets_the_whole_object() {
    for kind in [Kind::Unsupported, Kind::Refused] {
        let (house, mut body) = over_object(32 * MIB).await;
        house.bucket.inject(Fault { operation: Some("UploadPartCopy"), ..Fault::always(Effect::Fail(kind)) });
        let handle = house.open_large().await;
        for at in [1, 20 * MIB] {
            house.fs.write(handle, at, b"changed").await.unwrap();
            house.fs.fsync(handle).await.unwrap();
            body[at as usize..at as usize + 7].copy_from_slice(b"changed");
            assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
        }
        assert!(house.bucket.count("UploadPartCopy") <= 2, "it was told once that the server does not copy");
        assert_eq!(house.bucket.open_uploads(), 0);
    }
}

#[tokio::test]
async fn a_change_that_could_not_be_stored_is_stored_by_the_next_close() {
    let (house, mut body) = over_object(32 * MIB).await;
    let handle = house.open_large().await;
    house.fs.write(handle, 10 * MIB, b"changed").await.unwrap();
    house.bucket.inject(Fault::once("UploadPart", Effect::Fail(Kind::QuotaExceeded)));
    assert_eq!(house.fs.flush(handle, ME).await.unwrap_err().errno(), Errno::EDQUOT);
    assert!(house.bucket.bytes("f").unwrap() == body, "the old version is what was there");
    house.fs.flush(handle, ME).await.unwrap();
    body[10 * MIB as usize..10 * MIB as usize + 7].copy_from_slice(b"changed");
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert_eq!(house.bucket.open_uploads(), 0);
}

#[tokio::test]
async fn a_changed_large_file_is_renamed_with_its_change() {
    let (house, mut body) = over_object(32 * MIB).await;
    let handle = house.open_large().await;
    house.fs.write(handle, 10 * MIB, b"changed").await.unwrap();
    house.fs.rename(ROOT, OsStr::new("f"), ROOT, OsStr::new("g"), 0).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    body[10 * MIB as usize..10 * MIB as usize + 7].copy_from_slice(b"changed");
    assert_eq!(house.bucket.keys(), ["g"]);
    house.fs.write(handle, 20 * MIB, b"changed").await.unwrap();
    house.fs.flush(handle, ME).await.unwrap();
    body[20 * MIB as usize..20 * MIB as usize + 7].copy_from_slice(b"changed");
    assert!(house.bucket.bytes("g").unwrap() == body, "other bytes than were written");
    assert!(house.bucket.moved().sent <= 11 * MIB, "{:?}", house.bucket.moved());
}

#[tokio::test]
async fn an_upload_begun_beside_an_edge_that_is_gone_is_aborted() {
    for late in ["CreateMultipartUpload", "GetObject"] {
        let (house, _) = over_object(64 * MIB).await;
        let handle = house.open_known().await;
        house.fs.write(handle, 40 * MIB, b"ours").await.unwrap();
        house.bucket.insert("f", "theirs", Metadata::new());
        house.bucket.inject(Fault::once(late, Effect::Delay(Duration::from_millis(50))));
        assert_eq!(house.fs.fsync(handle).await.unwrap_err().errno(), Errno::ESTALE, "{late}");
        assert_eq!(house.bucket.bytes("f").unwrap(), "theirs");
        assert_eq!(house.bucket.count("CreateMultipartUpload"), 2, "{late}: one of each change");
        assert_eq!((house.bucket.count("AbortMultipartUpload"), house.bucket.open_uploads()), (1, 0), "{late}");
        // Nobody waits until the record of the first, which is complete, is gone.
        let settled = async {
            while !house.journal.open_intents().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), settled).await.expect("a record is left");
    }
}

#[tokio::test]
async fn no_upload_begins_where_the_edge_would_tell_what_it_carries_and_is_gone() {
    let (house, _) = over_object(64 * MIB).await;
    let handle = house.open_large().await;
    house.fs.write(handle, 40 * MIB, b"ours").await.unwrap();
    house.bucket.insert("f", "theirs", Metadata::new());
    assert_eq!(house.fs.fsync(handle).await.unwrap_err().errno(), Errno::ESTALE);
    assert_eq!((house.bucket.count("GetObject"), house.bucket.count("CreateMultipartUpload")), (1, 0));
}

#[tokio::test]
async fn copies_wait_for_no_edge() {
    let (house, _) = over_object(64 * MIB).await;
    let handle = house.open_known().await;
    house.bucket.inject(Fault::once("GetObject", Effect::Hang));
    house.fs.write(handle, 40 * MIB, b"ours").await.unwrap();
    let storing = tokio::spawn({
        let fs = house.fs.clone();
        async move { fs.fsync(handle).await }
    });
    let waiting = async {
        while house.bucket.count("UploadPartCopy") < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("both copies of the second change");
    assert_eq!(house.bucket.count("UploadPart"), 1, "the part of the first change");
    storing.abort();
    assert!(storing.await.unwrap_err().is_cancelled());
    let aborting = async {
        while house.bucket.open_uploads() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), aborting).await.expect("what was given up is aborted");
}

#[tokio::test]
async fn a_part_that_may_not_be_sent_while_it_comes_is_sent_whole() {
    let (house, mut body) = over_object(64 * MIB).await;
    house.bucket.inject(Fault::once("UploadPart", Effect::Fail(Kind::Unsupported)));
    house.open_known().await;
    body[10 * MIB as usize..10 * MIB as usize + 7].copy_from_slice(b"changed");
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert_eq!((house.bucket.count("GetObject"), house.bucket.count("UploadPart")), (1, 2));
    assert_eq!(house.bucket.open_uploads(), 0);
}

#[tokio::test]
async fn many_changes_far_apart_are_stored_as_they_were_written() {
    let (house, mut body) = over_object(256 * MIB).await;
    let handle = house.open_large().await;
    for number in 0..14 {
        let at = (9 + 17 * number) * MIB;
        house.fs.write(handle, at, &[number as u8 + 1; 4096]).await.unwrap();
        // Some parts lack two stretches.
        house.fs.write(handle, at + MIB * (number % 2), &[77; 10]).await.unwrap();
        body[at as usize..at as usize + 4096].fill(number as u8 + 1);
        body[(at + MIB * (number % 2)) as usize..][..10].fill(77);
    }
    house.fs.fsync(handle).await.unwrap();
    assert!(house.bucket.bytes("f").unwrap() == body, "other bytes than were written");
    assert_eq!(house.bucket.info("f").unwrap().metadata["theirs"], "kept");
    assert_eq!(house.bucket.count("UploadPart"), 14);
}
