//! A chmod, chown or utimes to what a file is already: S3 is told nothing, and ctime moves here.

use s3mount::bucket::clock::ServerClock;

use super::*;

/// A house of which nothing that was noted is sent by itself.
async fn patient(attributes_wait: bool) -> House {
    let long = Duration::from_mins(10);
    let settings = |settings| Settings { attributes_wait, attr_ttl: long, list_ttl: long, ..settings };
    House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), settings).await
}

async fn chmod(house: &House, ino: Ino, mode: u32) -> Entry {
    house.fs.setattr(ino, SetAttr { mode: Some(mode), ..SetAttr::default() }).await.unwrap()
}

fn stored_mode(house: &House, key: &str) -> u32 {
    Attributes::from_metadata(&house.bucket.info(key).unwrap().metadata).mode.unwrap() & 0o7777
}

/// Requests that tell S3 something.
fn told(house: &House) -> u64 {
    let requests = house.bucket.requests();
    ["PutObject", "CopyObject"].iter().filter_map(|name| requests.get(name)).sum()
}

#[tokio::test]
async fn it_costs_no_request_and_moves_ctime_also_over_a_restart() {
    for attributes_wait in [false, true] {
        let house = patient(attributes_wait).await;
        let before = house.write_file(ROOT, "f", b"bytes").await;
        let requests = house.bucket.requests();
        let same = SetAttr {
            mode: Some(0o100_644),
            uid: Some(before.stat.uid),
            gid: Some(before.stat.gid),
            mtime: Some(NewTime::At(house.fs.getattr(before.ino).await.unwrap().stat.mtime)),
            ..SetAttr::default()
        };
        let after = house.fs.setattr(before.ino, same).await.unwrap();
        assert!(after.stat.ctime > before.stat.ctime, "POSIX marks it for update");
        house.fs.setxattr(before.ino, OsStr::new("user.k"), b"v", 0).await.unwrap();
        assert!(house.fs.sync(None).await.is_empty());
        let once = told(&house);
        house.fs.setxattr(before.ino, OsStr::new("user.k"), b"v", 0).await.unwrap();
        let after = chmod(&house, before.ino, 0o644).await;
        assert_eq!((told(&house), once), (once, requests["PutObject"] + 1));
        assert_eq!((house.fs.count_unstored(), house.journal.open_notes().unwrap().len()), (0, 0));
        let house = house.restart().await;
        let found = house.lookup(ROOT, "f").await.unwrap();
        assert_eq!((found.ino, &found.stat), (after.ino, &after.stat));
    }
}

#[tokio::test]
async fn it_costs_none_while_the_file_is_open_and_stored() {
    let house = patient(false).await;
    // What Vim does with the file that it saves.
    let (entry, opened) = house.fs.create(ROOT, OsStr::new("f"), 0o644, WRITE, ME).await.unwrap();
    house.fs.write(opened.handle, 0, b"bytes").await.unwrap();
    house.fs.fsync(opened.handle).await.unwrap();
    let synced = house.fs.getattr(entry.ino).await.unwrap().stat;
    let after = chmod(&house, entry.ino, 0o644).await.stat;
    assert!(after.ctime > synced.ctime);
    house.fs.flush(opened.handle, ME).await.unwrap();
    house.fs.release(opened.handle).await.unwrap();
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(told(&house), 1, "{:?}", house.bucket.requests());
    assert_eq!(house.fs.getattr(entry.ino).await.unwrap().stat, after);
}

#[tokio::test]
async fn what_differs_from_what_s3_has_or_is_about_to_have_is_told() {
    let house = patient(false).await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    chmod(&house, ino, 0o644).await;
    assert_eq!((stored_mode(&house, "f"), told(&house)), (0o644, 3));
    // While S3 is being told of the first, the index still has what was before.
    house.bucket.inject(Fault::once("CopyObject", Effect::Delay(Duration::from_millis(100))));
    let copied = house.bucket.count("CopyObject");
    let first = async { chmod(&house, ino, 0o600).await };
    let second = async {
        while house.bucket.count("CopyObject") == copied {
            tokio::task::yield_now().await;
        }
        chmod(&house, ino, 0o644).await
    };
    tokio::join!(first, second);
    assert!(house.fs.sync(None).await.is_empty());
    assert_eq!(stored_mode(&house, "f"), 0o644);
    // Noted, and not told yet.
    let house = patient(true).await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    chmod(&house, ino, 0o600).await;
    chmod(&house, ino, 0o644).await;
    let House { bucket, fs, journal, state, .. } = house;
    drop((fs, journal));
    assert_eq!(stored_mode(&House::on(bucket, state).await, "f"), 0o644);
}

#[tokio::test]
async fn what_only_the_options_of_the_mount_say_is_told() {
    let house = patient(false).await;
    house.bucket.insert("f", "bytes", Metadata::new());
    let theirs = house.lookup(ROOT, "f").await.unwrap();
    assert_eq!(theirs.stat.perm, 0o644);
    chmod(&house, theirs.ino, 0o644).await;
    assert_eq!(stored_mode(&house, "f"), 0o644);
    // Other mounts show by default what LIST tells of an object that s3fs wrote, and all of ours.
    let times = ["mtime", "atime", "ctime"].map(|name| (name.to_owned(), "1600000000".to_owned()));
    let owned = [("mode", "33184"), ("uid", "7"), ("gid", "8")].map(|(name, is)| (name.to_owned(), is.to_owned()));
    house.bucket.insert("g", "bytes", times.into_iter().chain(owned).collect());
    house.fs.invalidate("").await.unwrap();
    let theirs = house.lookup(ROOT, "g").await.unwrap().ino;
    chmod(&house, theirs, 0o640).await;
    assert_eq!(house.bucket.info("g").unwrap().metadata["file-permissions"], "0100640");
}

#[tokio::test]
async fn what_an_object_does_not_say_is_told_also_where_every_object_was_asked_for() {
    let full = |settings| Settings { attrs: Attrs::Full, ..settings };
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), full).await;
    house.bucket.insert("f", "bytes", Metadata::new());
    let theirs = house.lookup(ROOT, "f").await.unwrap();
    chmod(&house, theirs.ino, theirs.stat.perm.into()).await;
    assert_eq!(stored_mode(&house, "f"), u32::from(theirs.stat.perm));
}

#[tokio::test]
async fn what_another_mount_has_set_meanwhile_is_set_back() {
    let bucket = Arc::new(MemoryBucket::new());
    let asking = |clock_ahead_s: i64| {
        move |settings: Settings| {
            let layout = settings.layout.with_clock(&ServerClock::behind_by_s(clock_ahead_s));
            Settings { attr_ttl: Duration::ZERO, list_ttl: Duration::ZERO, layout, ..settings }
        }
    };
    // Writes ten seconds before the other one, as the bucket dates it.
    let house = House::with(bucket.clone(), tempfile::tempdir().unwrap(), asking(10)).await;
    let other = House::with(bucket, tempfile::tempdir().unwrap(), asking(0)).await;
    let ino = house.write_file(ROOT, "f", b"bytes").await.ino;
    let theirs = other.lookup(ROOT, "f").await.unwrap().ino;
    chmod(&other, theirs, 0o604).await;
    chmod(&house, ino, 0o644).await;
    assert_eq!(stored_mode(&house, "f"), 0o644);
}
