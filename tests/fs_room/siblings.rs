//! Siblings ahead: what is fetched before it is asked for, and what is not.

use std::time::{Duration, Instant};

use s3mount::bucket::memory::{Effect, Fault};
use s3mount::bucket::{Metadata, memory::MemoryBucket};
use s3mount::fs::Ino;

use super::{House, ME, ROOT, after_the_ttl};

fn name(number: usize) -> String {
    format!("f{number:03}")
}

fn fill(bucket: &MemoryBucket, directory: &str, count: usize, bytes: usize) {
    for number in 0..count {
        let key = format!("{directory}/{}", name(number));
        bucket.insert(&key, vec![number as u8; bytes], Metadata::new());
    }
}

/// A directory of files, listed, with their inode numbers in the order of the names.
async fn listed(house: &House, directory: &str) -> Vec<Ino> {
    let parent = house.lookup(ROOT, directory).await.unwrap().ino;
    let handle = house.fs.opendir(parent).unwrap();
    let lines = house.fs.readdir(handle, 2).await.unwrap();
    // The kernel remembers what it has listed.
    let inos = lines.iter().map(|line| house.fs.enter_listed(line).unwrap().ino).collect();
    house.fs.releasedir(handle);
    inos
}

async fn house_with(count: usize, bytes: usize) -> (House, Vec<Ino>) {
    let house = House::new().await;
    fill(&house.bucket, "d", count, bytes);
    let inos = listed(&house, "d").await;
    (house, inos)
}

fn gets(house: &House) -> u64 {
    house.bucket.count("GetObject")
}

/// Waits until so many GETs were sent and all are answered.
async fn settled(house: &House, count: u64) {
    let begun = Instant::now();
    while gets(house) < count || house.cache.stats().in_flight_bytes > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} GETs, {count} expected", gets(house));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(gets(house), count);
}

#[tokio::test]
async fn files_opened_in_order_are_fetched_before_they_are_opened() {
    let (house, inos) = house_with(40, 4096).await;
    for ino in &inos[..2] {
        house.read_file(*ino).await;
    }
    settled(&house, 2).await;
    house.read_file(inos[2]).await;
    settled(&house, 3 + 4).await;
    for (number, ino) in inos.iter().enumerate().skip(3) {
        assert_eq!(house.read_file(*ino).await, vec![number as u8; 4096]);
    }
    settled(&house, 40).await;
}

#[tokio::test]
async fn the_order_of_inode_numbers_is_foretold_too() {
    let (house, mut inos) = house_with(40, 4096).await;
    inos.sort_unstable();
    for ino in &inos[..3] {
        house.read_file(*ino).await;
    }
    settled(&house, 3 + 4).await;
    for ino in &inos[3..] {
        house.read_file(*ino).await;
    }
    settled(&house, 40).await;
}

#[tokio::test]
async fn a_file_out_of_order_ends_it() {
    let (house, inos) = house_with(100, 4096).await;
    for ino in &inos[..3] {
        house.read_file(*ino).await;
    }
    settled(&house, 7).await;
    for jump in [60, 90, 30, 75, 20, 50] {
        house.read_file(inos[jump]).await;
    }
    settled(&house, 13).await;
}

#[tokio::test]
async fn a_failed_guess_aborts_what_is_under_way() {
    let (house, inos) = house_with(100, 4096).await;
    for number in 3..50 {
        let key = format!("d/{}", name(number));
        house.bucket.inject(Fault::once("GetObject", Effect::Hang).on_key(&key));
    }
    for ino in &inos[..3] {
        house.read_file(*ino).await;
    }
    assert!(house.cache.stats().in_flight_bytes > 0, "nothing was fetched ahead");
    house.read_file(inos[80]).await;
    settled(&house, 8).await;
}

#[tokio::test]
async fn files_opened_at_random_are_fetched_alone() {
    let (house, inos) = house_with(100, 4096).await;
    for round in 0..30 {
        house.read_file(inos[round * 37 % 100]).await;
    }
    settled(&house, 30).await;
}

#[tokio::test]
async fn the_next_directory_is_fetched_when_it_is_listed() {
    let house = House::new().await;
    for directory in ["a", "b", "c"] {
        fill(&house.bucket, directory, 8, 1000);
    }
    for ino in listed(&house, "a").await {
        house.read_file(ino).await;
    }
    settled(&house, 8).await;
    let inos = listed(&house, "b").await;
    settled(&house, 16).await;
    for ino in inos {
        house.read_file(ino).await;
    }
    settled(&house, 16).await;
}

#[tokio::test]
async fn directories_that_are_only_listed_are_soon_left_alone() {
    let house = House::new().await;
    let names: Vec<String> = (0..10).map(|number| format!("d{number}")).collect();
    for directory in &names {
        fill(&house.bucket, directory, 5, 1000);
    }
    for ino in listed(&house, "d0").await {
        house.read_file(ino).await;
    }
    for directory in &names[1..] {
        listed(&house, directory).await;
    }
    settled(&house, 5 * 4).await;
}

#[tokio::test]
async fn what_is_fetched_ahead_stays_within_its_share_of_memory() {
    let (house, inos) = house_with(64, 1 << 20).await;
    let limit = house.cache.stats().limit_bytes;
    for (number, ino) in inos.iter().enumerate() {
        assert_eq!(house.read_file(*ino).await, vec![number as u8; 1 << 20]);
        let stats = house.cache.stats();
        assert!(stats.memory_bytes + stats.in_flight_bytes <= limit, "{stats:?}");
        let unread = gets(&house).saturating_sub(number as u64 + 1) << 20;
        assert!(unread <= limit / 4, "{unread} bytes ahead of {limit}");
    }
    settled(&house, 64).await;
}

#[tokio::test]
async fn what_is_cached_is_not_fetched_again() {
    let (house, inos) = house_with(30, 4096).await;
    for _ in 0..2 {
        for ino in &inos {
            house.read_file(*ino).await;
        }
        settled(&house, 30).await;
    }
}

#[tokio::test]
async fn large_files_among_small_ones_are_left_to_their_readers() {
    let house = House::new().await;
    fill(&house.bucket, "d", 10, 1000);
    house.bucket.insert("d/f004", vec![4; 3 << 20], Metadata::new());
    let inos = listed(&house, "d").await;
    for ino in &inos[..4] {
        house.read_file(*ino).await;
    }
    settled(&house, 9).await;
}

#[tokio::test]
async fn what_changes_after_it_was_fetched_ahead_is_seen_after_the_ttl() {
    let (house, inos) = house_with(12, 100).await;
    for ino in &inos[..4] {
        house.read_file(*ino).await;
    }
    settled(&house, 12).await;
    for number in 4..12 {
        house.bucket.insert(&format!("d/{}", name(number)), "changed", Metadata::new());
    }
    after_the_ttl().await;
    for ino in &inos[4..] {
        assert_eq!(house.read_file(*ino).await, "changed");
    }
}

#[tokio::test]
async fn what_changes_before_it_is_fetched_ahead_is_never_shown_old() {
    let (house, inos) = house_with(12, 100).await;
    for number in 3..12 {
        house.bucket.insert(&format!("d/{}", name(number)), "changed", Metadata::new());
    }
    for ino in &inos[..3] {
        house.read_file(*ino).await;
    }
    for ino in &inos[3..] {
        assert_eq!(house.read_file(*ino).await, "changed");
    }
}

#[tokio::test]
async fn fetching_ahead_checks_the_versions() {
    let (house, inos) = house_with(12, 100).await;
    after_the_ttl().await;
    let lists = house.bucket.count("ListObjectsV2");
    let heads = house.bucket.count("HeadObject");
    for ino in &inos {
        house.read_file(*ino).await;
    }
    settled(&house, 12).await;
    assert_eq!(house.bucket.count("ListObjectsV2"), lists, "the GETs say it all");
    assert_eq!(house.bucket.count("HeadObject"), heads);
}

#[tokio::test]
async fn opening_for_writing_foretells_nothing() {
    let (house, inos) = house_with(12, 100).await;
    for ino in &inos[..6] {
        let opened = house.fs.open(*ino, libc::O_WRONLY | libc::O_TRUNC, ME).await.unwrap();
        house.fs.flush(opened.handle, ME).await.unwrap();
        house.fs.release(opened.handle).await.unwrap();
    }
    settled(&house, 0).await;
}
