//! Symlinks and fifos wait to be sent as files do.

use super::*;

async fn symlink(house: &House, name: &str, target: &str) -> Ino {
    house.fs.symlink(ROOT, OsStr::new(name), OsStr::new(target), ME).await.unwrap().ino
}

async fn fifo(house: &House, name: &str) -> Ino {
    house.fs.mknod(ROOT, OsStr::new(name), libc::S_IFIFO | 0o640, 0, ME).await.unwrap().ino
}

fn stored_kind(house: &House, key: &str) -> u32 {
    let metadata = house.bucket.info(key).unwrap().metadata;
    Attributes::from_metadata(&metadata).mode.unwrap() & libc::S_IFMT
}

#[tokio::test]
async fn a_symlink_or_a_fifo_that_is_removed_before_sending_costs_nothing() {
    let house = house().await;
    let probe = symlink(&house, "probe", "testing").await;
    assert_eq!(house.fs.readlink(probe).await.unwrap(), "testing");
    fifo(&house, "fifo").await;
    assert_eq!(house.fs.status().pending.files, 2);
    let again = house.fs.symlink(ROOT, OsStr::new("probe"), OsStr::new("other"), ME).await.unwrap_err();
    assert_eq!(again.errno(), Errno::EEXIST);
    house.fs.unlink(ROOT, OsStr::new("probe")).await.unwrap();
    house.fs.unlink(ROOT, OsStr::new("fifo")).await.unwrap();
    assert!(house.fs.sync(None).await.is_empty() && house.names(ROOT).await.is_empty());
    assert_eq!((requests(&house), house.fs.status().pending.files), (0, 0));
    assert!(house.journal.open_intents().unwrap().is_empty());
}

#[tokio::test]
async fn a_symlink_and_a_fifo_are_sent_soon_with_what_was_said_of_them_since() {
    let house = house().await;
    let (link, pipe) = (symlink(&house, "l.tmp", "target").await, fifo(&house, "p").await);
    house.fs.setattr(pipe, SetAttr { mode: Some(0o600), ..SetAttr::default() }).await.unwrap();
    rename(&house, "l.tmp", "l").await;
    let uploader = house.fs.start_uploader();
    all_sent(&house).await;
    assert_eq!((house.bucket.count("PutObject"), requests(&house)), (2, 2));
    assert_eq!(house.bucket.keys(), ["l", "p"]);
    assert_eq!(house.bucket.bytes("l").unwrap(), "target");
    assert_eq!((stored_kind(&house, "l"), stored_kind(&house, "p")), (libc::S_IFLNK, libc::S_IFIFO));
    assert_eq!(house.bucket.info("p").unwrap().metadata["file-permissions"], "0010600");
    assert_eq!(house.fs.readlink(link).await.unwrap(), "target");
    assert_eq!((house.bucket.count("GetObject"), drafts(&house)), (0, 0));
    uploader.stop().await;
}

#[tokio::test]
async fn a_symlink_outlives_a_crash_and_hooks_hear_nothing_of_it() {
    let change = |settings| Settings { events: true, ..waiting(roomy())(settings) };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), change).await;
    symlink(&house, "l", "target").await;
    fifo(&house, "p").await;
    symlink(&house, "removed", "target").await;
    house.fs.unlink(ROOT, OsStr::new("removed")).await.unwrap();
    let (bucket, state) = crash(house, None).await;
    let house = House::with(bucket, state, change).await;
    let link = house.lookup(ROOT, "l").await.unwrap();
    assert_eq!(house.fs.readlink(link.ino).await.unwrap(), "target");
    assert_eq!(house.names(ROOT).await, ["l", "p"]);
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(house.bucket.keys(), ["l", "p"]);
    assert_eq!((stored_kind(&house, "l"), stored_kind(&house, "p")), (libc::S_IFLNK, libc::S_IFIFO));
    let events = house.journal.events(10).unwrap();
    assert!(events.is_empty() && house.journal.open_intents().unwrap().is_empty(), "{events:?}");
}

#[tokio::test]
async fn of_a_symlink_that_another_client_made_meanwhile_theirs_stays() {
    let house = house().await;
    symlink(&house, "l", "ours").await;
    house.bucket.insert("l", "theirs", Metadata::new());
    assert_eq!(house.fs.sync(None).await.len(), 1);
    assert_eq!(house.bucket.bytes("l").unwrap(), "theirs");
    assert_eq!(kept_conflicts(&house), [b"ours".to_vec()]);
}

#[tokio::test]
async fn beyond_the_bound_a_symlink_goes_at_the_pace_of_s3() {
    let limits = BacklogLimits { files: 0, ..roomy() };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), waiting(limits)).await;
    house.bucket.inject(Fault::once("PutObject", Effect::Fail(Kind::AccessDenied)));
    let refused = house.fs.symlink(ROOT, OsStr::new("l"), OsStr::new("target"), ME).await.unwrap_err();
    assert_eq!((refused.errno(), house.names(ROOT).await.len()), (Errno::EACCES, 0));
    symlink(&house, "l", "target").await;
    assert_eq!(house.bucket.bytes("l").unwrap(), "target");
    assert_eq!(house.fs.status().pending.files, 0);
}
