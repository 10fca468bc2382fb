//! Directories of which S3 is told a moment later: they are there for everybody here meanwhile, and
//! no crash loses them.

use s3mount::bucket::{Condition, PutOptions};
use s3mount::fs::BacklogLimits;

use super::*;

/// Nothing is sent by itself: the uploader has not begun.
async fn house_on(bucket: Arc<MemoryBucket>, state: tempfile::TempDir, write_back: bool) -> House {
    let limits = BacklogLimits { free_percent: 0, ..BacklogLimits::default() };
    let write_back = write_back.then_some(limits);
    // Everything is asked for anew: S3 has not heard of what waits.
    let none = Duration::ZERO;
    let noting = |settings| Settings {
        attributes_wait: true,
        write_back,
        attr_ttl: none,
        list_ttl: none,
        negative_ttl: none,
        ..settings
    };
    House::with(bucket, state, noting).await
}

async fn house(write_back: bool) -> House {
    house_on(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), write_back).await
}

async fn mkdir(house: &House, parent: Ino, name: &str, mode: u32) -> Ino {
    house.fs.mkdir(parent, OsStr::new(name), mode, ME).await.unwrap().ino
}

async fn chmod(house: &House, ino: Ino, mode: u32) {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    assert_eq!(u32::from(house.fs.setattr(ino, set).await.unwrap().stat.perm), mode);
}

async fn stored_mode(house: &House, key: &str) -> u32 {
    let there = house.bucket.head(key).await.unwrap();
    Attributes::from_metadata(&there.metadata).mode.unwrap() & 0o7777
}

fn puts(house: &House) -> u64 {
    house.bucket.requests().get("PutObject").copied().unwrap_or_default()
}

fn open_notes(house: &House) -> usize {
    house.journal.open_notes().unwrap().len()
}

/// As `kill -9` leaves it, and the next start.
async fn restarted(house: House, write_back: bool) -> House {
    let House { bucket, fs, journal, state, .. } = house;
    fs.stop_removals().await;
    drop((fs, journal));
    house_on(bucket, state, write_back).await
}

#[tokio::test]
async fn mode_and_times_of_a_directory_are_one_request() {
    let house = house(false).await;
    let ino = mkdir(&house, ROOT, "d", 0o755).await;
    assert_eq!((puts(&house), house.bucket.keys()), (1, vec!["d/".to_owned()]), "made at once");
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let dated = SetAttr { mtime: Some(NewTime::At(past)), ..SetAttr::default() };
    house.fs.setattr(ino, dated).await.unwrap();
    chmod(&house, ino, 0o700).await;
    assert_eq!((puts(&house), open_notes(&house)), (1, 1));
    let seen = house.lookup(ROOT, "d").await.unwrap().stat;
    assert_eq!((seen.perm, seen.mtime), (0o700, past));
    told(&house).await;
    assert_eq!((puts(&house), stored_mode(&house, "d/").await, open_notes(&house)), (2, 0o700, 0));
    let house = restarted(house, false).await;
    let seen = house.lookup(ROOT, "d").await.unwrap().stat;
    assert_eq!((seen.perm, seen.mtime), (0o700, past));
}

#[tokio::test]
async fn a_mode_that_a_crash_left_is_set_by_the_next_start() {
    let house = house(false).await;
    mkdir(&house, ROOT, "d", 0o755).await;
    mkdir(&house, ROOT, "gone", 0o755).await;
    house.bucket.insert("p/f", "a directory without a marker", Metadata::new());
    for name in ["d", "gone", "p"] {
        let ino = house.lookup(ROOT, name).await.unwrap().ino;
        chmod(&house, ino, 0o750).await;
    }
    house.fs.rmdir(ROOT, OsStr::new("gone")).await.unwrap();
    assert_eq!(stored_mode(&house, "d/").await, 0o755);
    let house = restarted(house, false).await;
    assert_eq!((stored_mode(&house, "d/").await, stored_mode(&house, "p/").await), (0o750, 0o750));
    assert_eq!((house.bucket.keys(), open_notes(&house)), (vec!["d/".into(), "p/".into(), "p/f".into()], 0));
    assert_eq!(house.lookup(ROOT, "d").await.unwrap().stat.perm, 0o750);
}

#[tokio::test]
async fn a_directory_that_waits_is_there_for_everybody_here() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    let below = mkdir(&house, above, "b", 0o711).await;
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
    assert_eq!((house.names(ROOT).await, house.names(above).await), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(house.lookup(above, "b").await.unwrap().ino, below);
    assert_eq!(house.fs.getattr(below).await.unwrap().stat.perm, 0o711);
    let again = house.fs.mkdir(ROOT, OsStr::new("a"), 0o755, ME).await;
    assert_eq!(again.unwrap_err().errno(), Errno::EEXIST);
    let full = house.fs.rmdir(ROOT, OsStr::new("a")).await;
    assert_eq!(full.unwrap_err().errno(), Errno::ENOTEMPTY);
    house.fs.rmdir(above, OsStr::new("b")).await.unwrap();
    house.fs.rmdir(ROOT, OsStr::new("a")).await.unwrap();
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!((house.bucket.keys(), puts(&house), open_notes(&house)), (Vec::<String>::new(), 0, 0));
    // Made again while its removal waits.
    mkdir(&house, ROOT, "a", 0o755).await;
    house.fs.rmdir(ROOT, OsStr::new("a")).await.unwrap();
    mkdir(&house, ROOT, "a", 0o700).await;
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!((house.bucket.keys(), stored_mode(&house, "a/").await), (vec!["a/".to_owned()], 0o700));
}

#[tokio::test]
async fn a_directory_that_a_crash_left_is_made_by_the_next_start() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    let below = mkdir(&house, above, "b", 0o711).await;
    house.write_file(below, "f", b"bytes").await;
    mkdir(&house, ROOT, "gone", 0o755).await;
    house.fs.rmdir(ROOT, OsStr::new("gone")).await.unwrap();
    let house = restarted(house, true).await;
    let above = house.lookup(ROOT, "a").await.unwrap().ino;
    let below = house.lookup(above, "b").await.unwrap();
    assert_eq!(below.stat.perm, 0o711);
    let file = house.lookup(below.ino, "f").await.unwrap().ino;
    assert_eq!(house.read_file(file).await, "bytes");
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.keys(), ["a/", "a/b/", "a/b/f"]);
    assert_eq!((stored_mode(&house, "a/b/").await, open_notes(&house)), (0o711, 0));
}

#[tokio::test]
async fn a_directory_that_waits_is_renamed_with_all_below() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o750).await;
    let below = mkdir(&house, above, "b", 0o711).await;
    house.write_file(below, "f", b"bytes").await;
    mkdir(&house, ROOT, "z", 0o700).await;
    house.fs.rename(ROOT, OsStr::new("a"), ROOT, OsStr::new("z"), 0).await.unwrap();
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.keys(), ["z/", "z/b/", "z/b/f"]);
    assert_eq!((stored_mode(&house, "z/").await, stored_mode(&house, "z/b/").await), (0o750, 0o711));
    let house = restarted(house, true).await;
    assert_eq!((house.names(ROOT).await, open_notes(&house)), (vec!["z".to_owned()], 0));
}

#[tokio::test]
async fn fsync_of_a_directory_sends_what_waits_in_it() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o750).await;
    let below = mkdir(&house, above, "b", 0o711).await;
    mkdir(&house, below, "c", 0o755).await;
    house.fs.sync_directory(above).await.unwrap();
    assert_eq!(house.bucket.keys(), ["a/", "a/b/"]);
    assert!(house.fs.drain(Duration::from_secs(5)).await.is_empty());
    assert_eq!(house.bucket.keys(), ["a/", "a/b/", "a/b/c/"]);
    assert_eq!(open_notes(&house), 0);
}

#[tokio::test]
async fn a_directory_that_another_client_made_meanwhile_is_theirs() {
    let house = house(true).await;
    let ino = mkdir(&house, ROOT, "d", 0o700).await;
    let theirs = Attributes { mode: Some(0o40_775), ..Attributes::default() };
    let (metadata, condition) = (theirs.to_metadata().unwrap(), Condition::IfAbsent);
    house.bucket.put("d/", Bytes::new(), &PutOptions { metadata, condition, ..PutOptions::default() }).await.unwrap();
    house.bucket.insert("d/f", "theirs", Metadata::new());
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!((stored_mode(&house, "d/").await, open_notes(&house)), (0o775, 0));
    assert_eq!(house.names(ino).await, ["f"]);
    assert_eq!(house.fs.getattr(ino).await.unwrap().stat.perm, 0o775);
}

/// Everything is sent by the uploader, in its own time.
async fn told(house: &House) {
    let uploader = house.fs.start_uploader();
    while house.fs.count_unstored() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    uploader.stop().await;
}

#[tokio::test]
async fn a_new_directory_costs_no_request_where_another_lies_in_it() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    let below = mkdir(&house, above, "b", 0o755).await;
    house.write_file(below, "f", b"bytes").await;
    mkdir(&house, mkdir(&house, ROOT, "closed", 0o700).await, "c", 0o755).await;
    let dated = mkdir(&house, ROOT, "dated", 0o755).await;
    mkdir(&house, dated, "d", 0o755).await;
    let past = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    house.fs.setattr(dated, SetAttr { mtime: Some(NewTime::At(past)), ..SetAttr::default() }).await.unwrap();
    let made = house.lookup(ROOT, "a").await.unwrap().stat;
    told(&house).await;
    let keys = ["a/b/", "a/b/f", "closed/", "closed/c/", "dated/", "dated/d/"];
    assert_eq!((house.bucket.keys(), puts(&house), open_notes(&house)), (keys.map(str::to_owned).into(), 6, 0));
    assert_eq!(
        (house.names(ROOT).await.join(" "), house.names(above).await.join(" ")),
        ("a closed dated".into(), "b".into())
    );
    let house = restarted(house, true).await;
    let seen = house.lookup(ROOT, "a").await.unwrap().stat;
    assert_eq!((seen.perm, seen.uid, seen.gid, seen.mtime), (0o755, made.uid, made.gid, made.mtime));
}

#[tokio::test]
async fn a_new_directory_stays_whatever_others_do_with_a_file_in_it() {
    let house = house(true).await;
    let ino = mkdir(&house, mkdir(&house, ROOT, "a", 0o755).await, "b", 0o755).await;
    house.write_file(ino, "f", b"bytes").await;
    told(&house).await;
    house.bucket.delete("a/b/f", None).await.unwrap();
    let above = house.lookup(ROOT, "a").await.unwrap().ino;
    assert_eq!(house.lookup(above, "b").await.unwrap().ino, ino);
    assert_eq!(house.names(ino).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_new_directory_costs_no_request_where_several_files_lie_in_it() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    let ino = mkdir(&house, above, "b", 0o755).await;
    for name in ["f", "g", "h"] {
        house.write_file(ino, name, b"bytes").await;
    }
    told(&house).await;
    assert_eq!((house.bucket.keys().join(" "), puts(&house), open_notes(&house)), ("a/b/f a/b/g a/b/h".into(), 3, 0));
    let house = restarted(house, true).await;
    let above = house.lookup(ROOT, "a").await.unwrap().ino;
    let ino = house.lookup(above, "b").await.unwrap().ino;
    for name in ["f", "g", "h"] {
        house.fs.unlink(ino, OsStr::new(name)).await.unwrap();
    }
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["a/b/"], "it stays when its last file goes");
}

#[tokio::test]
async fn a_directory_stays_when_a_hook_deletes_its_last_file() {
    let house = house(true).await;
    house.bucket.insert("a/f", "bytes", Metadata::new());
    let ino = house.lookup(ROOT, "a").await.unwrap().ino;
    house.fs.keep_directory_of("a/f").await;
    assert_eq!(house.bucket.keys(), ["a/", "a/f"]);
    house.bucket.delete("a/f", None).await.unwrap();
    house.fs.forget_key("a/f");
    assert_eq!(house.lookup(ROOT, "a").await.unwrap().ino, ino);
    assert_eq!(house.names(ino).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_without_a_marker_gets_one_before_the_last_directory_in_it_goes() {
    let house = house(true).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    mkdir(&house, above, "b", 0o755).await;
    told(&house).await;
    assert_eq!(house.bucket.keys(), ["a/b/"]);
    // What only we know of keeps no directory in the bucket.
    let (_, opened) = house.fs.create(above, OsStr::new("draft"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"half").await.unwrap();
    house.fs.rmdir(above, OsStr::new("b")).await.unwrap();
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), ["a/"]);
    let marker = Attributes::from_metadata(&house.bucket.head("a/").await.unwrap().metadata);
    assert_eq!((marker.mode, marker.uid), (None, None), "the options of a mount are not what somebody has said");
    assert_eq!(house.names(above).await, ["draft"]);
}

#[tokio::test]
async fn a_directory_with_drafts_below_stays_here_though_s3_has_it_no_more() {
    let house = house(true).await;
    house.bucket.insert("a/b/f", "theirs", Metadata::new());
    let above = house.lookup(ROOT, "a").await.unwrap().ino;
    let ino = house.lookup(above, "b").await.unwrap().ino;
    house.write_file(ino, "g", b"bytes").await;
    house.bucket.delete("a/b/f", None).await.unwrap();
    assert_eq!((house.names(ROOT).await, house.names(above).await), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(house.lookup(ROOT, "a").await.unwrap().ino, above);
    assert_eq!(house.lookup(above, "b").await.unwrap().ino, ino);
    assert_eq!(house.fs.rmdir(ROOT, OsStr::new("a")).await.unwrap_err().errno(), Errno::ENOTEMPTY);
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.keys(), ["a/b/g"]);
}

#[tokio::test]
async fn a_directory_renamed_over_another_keeps_its_own_attributes() {
    let house = house(true).await;
    mkdir(&house, ROOT, "closed", 0o700).await;
    let above = mkdir(&house, ROOT, "a", 0o755).await;
    mkdir(&house, above, "b", 0o755).await;
    told(&house).await;
    assert_eq!(house.bucket.keys(), ["a/b/", "closed/"]);
    house.fs.rename(ROOT, OsStr::new("a"), ROOT, OsStr::new("closed"), 0).await.unwrap();
    assert_eq!(house.bucket.keys(), ["closed/", "closed/b/"]);
    let house = restarted(house, true).await;
    assert_eq!(house.lookup(ROOT, "closed").await.unwrap().stat.perm, 0o755);
}
