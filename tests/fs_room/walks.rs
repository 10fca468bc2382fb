//! Walked trees: what a tree costs that is entered directory by directory, and that it is right.

use std::collections::BTreeSet;

use super::*;

/// Every path below a directory as `find` sees it: readdir with attributes, then down.
async fn find(house: &House) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut stack = vec![(ROOT, String::new())];
    while let Some((ino, path)) = stack.pop() {
        let mut below = Vec::new();
        for (name, entry) in house.list(ino, true).await {
            let entry = entry.expect("nothing is removed meanwhile");
            let path = format!("{path}{name}");
            if entry.stat.kind == s3mount::fs::FileKind::Directory {
                found.insert(format!("{path}/"));
                below.push((entry.ino, format!("{path}/")));
            } else {
                found.insert(path);
            }
        }
        stack.extend(below.into_iter().rev());
    }
    found
}

/// Every path that keys stand for, directories too.
fn paths<'a>(keys: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for key in keys {
        let slashes = key.match_indices('/').map(|(at, _)| key[..=at].to_owned());
        paths.extend(slashes);
        paths.insert(key.to_owned());
    }
    paths
}

fn requests(house: &House) -> u64 {
    house.bucket.requests().values().sum()
}

/// What each request takes, so that things can happen meanwhile.
fn slow(house: &House) {
    house.bucket.inject(Fault::always(Effect::Delay(Duration::from_millis(2))));
}

#[tokio::test]
async fn a_thousand_directories_of_ten_objects_cost_eleven_listings() {
    let house = House::patient().await;
    let keys: Vec<String> = (0..10_000).map(|number| format!("d{:03}/f{}", number / 10, number % 10)).collect();
    for key in &keys {
        house.bucket.insert(key, "x", Metadata::new());
    }
    assert_eq!(find(&house).await, paths(keys.iter().map(String::as_str)));
    assert!(requests(&house) <= 12, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn a_deep_tree_is_walked_too() {
    let house = House::patient().await;
    let key = |number: u32| format!("a{}/b{}/c{}/f{}", number / 500, number / 50 % 10, number / 5 % 10, number % 5);
    let keys: Vec<String> = (0..3_000).map(key).collect();
    for key in &keys {
        house.bucket.insert(key, "x", Metadata::new());
    }
    slow(&house);
    assert_eq!(find(&house).await, paths(keys.iter().map(String::as_str)));
    assert!(requests(&house) <= 20, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn siblings_listed_one_by_one_become_a_walk() {
    let house = House::patient().await;
    for number in 0..100 {
        house.bucket.insert(&format!("top/d{number:02}/f"), "x", Metadata::new());
    }
    let top = house.lookup(ROOT, "top").await.unwrap().ino;
    for number in 0..100 {
        let directory = house.lookup(top, &format!("d{number:02}")).await.unwrap().ino;
        house.lookup(directory, "f").await.unwrap();
    }
    assert!(requests(&house) <= 8, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn who_goes_down_into_a_small_tree_finds_it_read() {
    let house = House::patient().await;
    for key in ["r/.git/HEAD", "r/.git/refs/heads/main", "r/.git/refs/tags/v1", "r/.git/info/exclude", "r/src/a/b/c/d"]
    {
        house.bucket.insert(key, "x", Metadata::new());
    }
    for path in ["r/.git/HEAD", "r/.git/refs/heads/main", "r/.git/info/exclude", "r/.git/refs/tags/v1", "r/src/a/b/c/d"]
    {
        let mut ino = ROOT;
        for name in path.split('/') {
            ino = house.lookup(ino, name).await.unwrap().ino;
        }
    }
    // The root, `r`, `.git`, and beside that all that comes behind it in `r`.
    assert_eq!(house.bucket.count("ListObjectsV2"), 4, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn looking_below_in_vain_costs_one_page_and_is_left_off() {
    let house = House::patient().await;
    for number in 0..12_000 {
        let (top, table, day, file) = (number / 6_000, number / 1_500 % 4, number / 50 % 30, number % 50);
        house.bucket.insert(&format!("l{top}/t{table}/day{day:02}/f{file}"), "x", Metadata::new());
    }
    // Down to what a page of a table does not reach, and back to the top.
    for path in ["l0/t0/day25/f1", "l1/t1/day25/f1", "l0/t2/day25/f1", "l1/t3/day25/f1"] {
        let mut ino = ROOT;
        for name in path.split('/') {
            ino = house.lookup(ino, name).await.unwrap().ino;
        }
    }
    // The root, two directories in it, two in each path, and one look.
    assert_eq!(house.bucket.count("ListObjectsV2"), 1 + 2 + 4 * 2 + 1, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn coming_back_to_one_directory_begins_no_walk() {
    let house = House::patient().await;
    house.bucket.insert("top/f", "x", Metadata::new());
    for number in 0..3_000 {
        house.bucket.insert(&format!("top/sub/f{number:04}"), "x", Metadata::new());
    }
    for _ in 0..4 {
        let top = house.lookup(ROOT, "top").await.unwrap().ino;
        house.lookup(top, "f").await.unwrap();
        house.fs.forget_key("top/f");
    }
    // The root and the directory, each time; a walk would read the other directory in it.
    assert_eq!(house.bucket.count("ListObjectsV2"), 8, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn a_guess_that_fails_costs_a_few_requests() {
    let house = House::patient().await;
    for number in 0..6_000 {
        house.bucket.insert(&format!("d{}/f{number:05}", number / 2_000), "x", Metadata::new());
    }
    for name in ["d0", "d1", "d2"] {
        house.lookup(ROOT, name).await.unwrap();
    }
    // The root, a page of each, and two pages of the walk that the third began.
    assert!(requests(&house) <= 6, "{:?}", house.bucket.requests());
}

#[tokio::test]
async fn a_walk_that_nobody_follows_stops() {
    let house = House::patient().await;
    for number in 0..50_000 {
        house.bucket.insert(&format!("d{:02}/f{number:05}", number / 1_000), "x", Metadata::new());
    }
    assert_eq!(house.list(ROOT, true).await.len(), 50);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(house.bucket.count("ListObjectsV2"), 2, "one page for 50 directories");
}

#[tokio::test]
async fn the_walk_shows_odd_keys_as_a_listing_does() {
    let keys =
        ["../up", "/lead", "a", "a-b/x", "a/b", "a/b/c", "a//c", "d/.", "d/./x", "d/", "m/", "m/x", "z/y//", "q/r/s/t"];
    let mut seen = Vec::new();
    for walks in [true, false] {
        let house = House::new().await;
        for key in keys {
            house.bucket.insert(key, if key == "m/" { "body" } else { "x" }, Metadata::new());
        }
        let found = if walks {
            find(&house).await
        } else {
            // Only the third sibling begins a walk: there are never three here.
            let mut all = BTreeSet::new();
            for path in ["", "a/", "a/b/", "a-b/", "d/", "m/", "q/", "q/r/", "q/r/s/", "z/", "z/y/"] {
                let fresh = House::on(house.bucket.clone(), tempfile::tempdir().unwrap()).await;
                let mut ino = ROOT;
                for name in path.split_terminator('/') {
                    ino = fresh.lookup(ino, name).await.unwrap().ino;
                }
                for (name, entry) in fresh.list(ino, true).await {
                    let directory = entry.unwrap().stat.kind == s3mount::fs::FileKind::Directory;
                    all.insert(format!("{path}{name}{}", if directory { "/" } else { "" }));
                }
            }
            for name in ["a", "d", "m", "q", "z"] {
                let ino = house.lookup(ROOT, name).await.unwrap().ino;
                house.names(ino).await;
            }
            all
        };
        seen.push(found);
        assert_eq!(house.bucket.keys().len(), keys.len());
    }
    assert_eq!(seen[0], seen[1]);
    let expected =
        ["a-b/", "a-b/x", "a/", "a/b/", "a/b/c", "d/", "m/", "m/x", "q/", "q/r/", "q/r/s/", "q/r/s/t", "z/", "z/y/"];
    assert_eq!(seen[0], expected.map(str::to_owned).into());
}

#[tokio::test]
async fn what_was_changed_here_after_the_walk_asked_wins() {
    let house = House::patient().await;
    for number in 0..50 {
        house.bucket.insert(&format!("d{number:02}/old"), "x", Metadata::new());
    }
    // The walk reads everything now.
    let entries = house.list(ROOT, true).await;
    let ino = entries[7].1.as_ref().unwrap().ino;
    house.write_file(ino, "new", b"x").await;
    house.fs.unlink(ino, OsStr::new("old")).await.unwrap();
    assert_eq!(house.names(ino).await, ["new"]);
    // Also when the directory that knew of the changes has been forgotten since.
    let other = entries[8].1.as_ref().unwrap().ino;
    let made = house.write_file(other, "new", b"x").await.ino;
    house.fs.forget(made, 1);
    house.fs.forget(other, 1);
    let again = house.lookup(ROOT, "d08").await.unwrap().ino;
    assert_eq!(house.names(again).await, ["new", "old"]);
}

#[tokio::test]
async fn removing_a_tree_costs_no_listing_for_each_directory() {
    let house = House::patient().await;
    for number in 0..400 {
        house.bucket.insert(&format!("d{:02}/f{}", number / 10, number % 10), "x", Metadata::new());
    }
    // As `rm -r` does it, and the kernel, which forgets what has no name any more.
    for (name, entry) in house.list(ROOT, true).await {
        let ino = entry.unwrap().ino;
        for (file, entry) in house.list(ino, true).await {
            house.fs.unlink(ino, OsStr::new(&file)).await.unwrap();
            house.fs.forget(entry.unwrap().ino, 1);
        }
        house.fs.rmdir(ROOT, OsStr::new(&name)).await.unwrap();
        house.fs.forget(ino, 1);
    }
    assert!(house.bucket.requests()["ListObjectsV2"] <= 4, "{:?}", house.bucket.requests());
    house.fs.settle_removals().await.unwrap();
    assert_eq!(house.bucket.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_renamed_after_the_walk_asked_shows_what_it_holds_now() {
    let house = House::patient().await;
    for number in 0..50 {
        house.bucket.insert(&format!("d{number:02}/f{number:02}"), "x", Metadata::new());
    }
    house.list(ROOT, true).await;
    house.fs.rename(ROOT, OsStr::new("d07"), ROOT, OsStr::new("e"), 0).await.unwrap();
    house.fs.rename(ROOT, OsStr::new("d08"), ROOT, OsStr::new("d07"), 0).await.unwrap();
    let d07 = house.lookup(ROOT, "d07").await.unwrap().ino;
    let e = house.lookup(ROOT, "e").await.unwrap().ino;
    assert_eq!((house.names(d07).await, house.names(e).await), (vec!["f08".to_owned()], vec!["f07".to_owned()]));
}

#[tokio::test]
async fn what_others_change_is_seen_when_the_walk_is_too_old() {
    let house = House::with(Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap(), |settings| Settings {
        list_ttl: Duration::from_millis(200),
        attr_ttl: Duration::from_millis(200),
        ..settings
    })
    .await;
    for number in 0..50 {
        house.bucket.insert(&format!("d{number:02}/old"), "x", Metadata::new());
    }
    let ino = house.list(ROOT, true).await[7].1.as_ref().unwrap().ino;
    house.bucket.insert("d07/theirs", "x", Metadata::new());
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(house.names(ino).await, ["old", "theirs"]);
}

#[tokio::test]
async fn attributes_of_walked_files_and_markers_of_ours_are_asked_for_ahead() {
    let writer = House::new().await;
    for number in 0..20 {
        let directory = writer.fs.mkdir(ROOT, OsStr::new(&format!("d{number:02}")), 0o750, ME).await.unwrap().ino;
        writer.write_file(directory, "f", b"x").await;
    }
    let reader = House::on(writer.bucket.clone(), tempfile::tempdir().unwrap()).await;
    slow(&reader);
    for (_, entry) in reader.list(ROOT, true).await {
        let entry = entry.unwrap();
        assert_eq!(entry.stat.perm, 0o750);
        let file = reader.list(entry.ino, true).await.remove(0).1.unwrap();
        assert_eq!(file.stat.perm, 0o644);
    }
    assert_eq!(reader.bucket.count("HeadObject"), 40);
    assert!(reader.bucket.most_at_once("HeadObject") >= 20);
}

#[tokio::test]
async fn an_outage_during_a_walk_is_one_error_and_passes() {
    let house = House::new().await;
    for number in 0..50 {
        house.bucket.insert(&format!("d{number:02}/f"), "x", Metadata::new());
    }
    house.list(ROOT, true).await;
    house.bucket.inject(Fault::always(Effect::Fail(Kind::Unreachable)));
    let house = House::on(house.bucket.clone(), tempfile::tempdir().unwrap()).await;
    assert_eq!(house.lookup(ROOT, "d07").await.unwrap_err(), Errno::EHOSTUNREACH);
    house.bucket.heal();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    house.lookup(ROOT, "d07").await.unwrap();
}
