//! Directories of many pages: told as they come, and the largest never whole in memory.

use std::collections::BTreeSet;

use super::*;

/// More than are kept in memory at once.
const HUGE: usize = 21_500;

fn fill(house: &House, directory: &str, count: usize) {
    for number in 0..count {
        house.bucket.insert(&format!("{directory}/f{number:06}"), "x", Metadata::new());
    }
}

/// What a handle tells from a position on, a portion at a time: names and the position after each.
async fn read_from(house: &House, handle: u64, mut from: u64, portions: usize) -> Vec<(String, u64)> {
    let mut lines = Vec::new();
    for _ in 0..portions {
        let read = house.fs.readdir(handle, from).await.unwrap();
        let Some(last) = read.last() else { break };
        from = last.next;
        lines.extend(read.into_iter().map(|line| (line.name, line.next)));
    }
    lines
}

#[tokio::test]
async fn the_first_names_are_told_before_the_last_page_is_read() {
    let house = House::patient().await;
    fill(&house, "d", 15_000);
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    let before = house.bucket.count("ListObjectsV2");
    let handle = house.fs.opendir(ino).unwrap();
    assert!(!house.fs.readdir(handle, 0).await.unwrap().is_empty());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(house.bucket.count("ListObjectsV2") - before <= 5, "a few pages ahead, no more");
    assert_eq!(read_from(&house, handle, 2, 100).await.len(), 15_000);
    // The look-up has brought the first of 15 pages.
    assert_eq!(house.bucket.count("ListObjectsV2") - before, 14);
    // It was kept: now it costs nothing.
    assert_eq!(house.names(ino).await.len(), 15_000);
    house.lookup(ino, "f014999").await.unwrap();
    assert_eq!(house.bucket.count("ListObjectsV2") - before, 14);
}

#[tokio::test]
async fn a_huge_directory_is_told_whole_and_not_kept() {
    let house = House::new().await;
    fill(&house, "d", HUGE);
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    let names: BTreeSet<String> = house.names(ino).await.into_iter().collect();
    assert_eq!(names.len(), HUGE);
    assert_eq!(house.fs.status().inodes, 2, "the root and the directory");
    assert_eq!(house.lookup(ino, "f000007").await.unwrap().stat.size, 1);
    assert_eq!(house.lookup(ino, "none").await.unwrap_err(), Errno::ENOENT);
}

#[tokio::test]
async fn positions_in_a_huge_directory_stay_valid() {
    let house = House::new().await;
    fill(&house, "d", HUGE);
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    let handle = house.fs.opendir(ino).unwrap();
    let lines = read_from(&house, handle, 2, 1_000).await;
    assert_eq!(lines.len(), HUGE);
    for index in [20_999, 5, 12_345, 1_000, 999, 0] {
        let again = read_from(&house, handle, lines[index].1, 1).await;
        assert_eq!(again[0], lines[index + 1], "after position {index}");
    }
    assert_eq!(read_from(&house, handle, lines[HUGE - 1].1, 1).await, Vec::new());
    assert_eq!(read_from(&house, handle, 0, 1).await[0].0, ".");
}

#[tokio::test]
async fn what_is_made_and_removed_here_shows_in_a_huge_directory() {
    let house = House::new().await;
    fill(&house, "d", HUGE);
    house.bucket.insert("d/f015000z/theirs", "x", Metadata::new());
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    // Another client takes away all that S3 has of a directory, and a file is being written in it.
    let left = house.lookup(ino, "f015000z").await.unwrap().ino;
    let (_, below) = house.fs.create(left, OsStr::new("ours"), 0o644, WRITE, ME).await.unwrap();
    house.bucket.remove("d/f015000z/theirs");
    let handle = house.fs.opendir(ino).unwrap();
    let begun = read_from(&house, handle, 2, 1).await;
    // Behind the pages that were read ahead already, and one that has no object yet.
    house.write_file(ino, "f015000x", b"new").await;
    let (_, draft) = house.fs.create(ino, OsStr::new("zz"), 0o644, WRITE, ME).await.unwrap();
    house.fs.mkdir(ino, OsStr::new("f015000y"), 0o755, ME).await.unwrap();
    house.fs.unlink(ino, OsStr::new("f001200")).await.unwrap();
    house.fs.unlink(ino, OsStr::new("f016000")).await.unwrap();
    let rest = read_from(&house, handle, begun.last().unwrap().1, 1_000).await;
    let all: Vec<String> = begun.into_iter().chain(rest).map(|(name, _)| name).collect();
    let unique: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), all.len(), "a name came twice");
    assert!(["f015000x", "f015000y", "f015000z", "zz"].iter().all(|name| unique.contains(name)));
    assert!(!unique.contains("f001200") && !unique.contains("f016000"));
    assert_eq!(all.len(), HUGE + 4 - 2);
    house.fs.release(below.handle).await.unwrap();
    house.fs.release(draft.handle).await.unwrap();
}

#[tokio::test]
async fn many_names_made_in_a_large_directory_do_not_cost_two_requests_each() {
    let house = House::new().await;
    fill(&house, "d", 2_500);
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    house.names(ino).await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    let before: u64 = house.bucket.requests().values().sum();
    for number in 0..100 {
        house.write_file(ino, &format!("new{number}"), b"x").await;
    }
    let cost = house.bucket.requests().values().sum::<u64>() - before - 100;
    assert!(cost <= 60, "{cost} requests beside the PUTs: {:?}", house.bucket.requests());
}

#[tokio::test]
async fn a_page_that_fails_is_an_error_and_not_an_end() {
    let house = House::new().await;
    fill(&house, "d", 15_000);
    let ino = house.lookup(ROOT, "d").await.unwrap().ino;
    house.bucket.inject(Fault::once("ListObjectsV2", Effect::Fail(Kind::AccessDenied)).after(6));
    let handle = house.fs.opendir(ino).unwrap();
    let mut from = 2;
    let failed = loop {
        match house.fs.readdir(handle, from).await {
            Ok(lines) => from = lines.last().expect("an error comes before the end").next,
            Err(error) => break error,
        }
    };
    assert_eq!(failed.errno(), Errno::EACCES);
    let rest = read_from(&house, handle, from, 1_000).await;
    assert_eq!(rest.last().unwrap().0, "f014999");
    assert_eq!(rest.len() as u64, 15_000 + 2 - from);
}

#[tokio::test]
async fn our_own_objects_in_a_huge_directory_are_asked_for_in_parallel() {
    let writer = House::new().await;
    fill(&writer, "d", HUGE);
    let ino = writer.lookup(ROOT, "d").await.unwrap().ino;
    for number in 0..200 {
        writer.fs.symlink(ino, OsStr::new(&format!("link{number:03}")), OsStr::new("f"), ME).await.unwrap();
    }
    let reader = House::on(writer.bucket.clone(), tempfile::tempdir().unwrap()).await;
    let delay = Effect::Delay(Duration::from_millis(5));
    reader.bucket.inject(Fault { operation: Some("HeadObject"), ..Fault::always(delay) });
    let ino = reader.lookup(ROOT, "d").await.unwrap().ino;
    let handle = reader.fs.opendir(ino).unwrap();
    let (mut from, mut symlinks) = (0, 0);
    loop {
        let read = reader.fs.readdir(handle, from).await.unwrap();
        let Some(last) = read.last() else { break };
        from = last.next;
        symlinks += read.iter().filter(|line| line.kind == s3mount::fs::FileKind::Symlink).count();
    }
    assert_eq!(symlinks, 200);
    assert!(reader.bucket.most_at_once("HeadObject") >= 20);
}
