use std::io::{Seek, SeekFrom, Write};

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::*;
use crate::bucket::ETag;
use crate::cache::Modified;

fn sized(size: u64) -> Remembered {
    Remembered { size, ..Remembered::default() }
}

fn index(directory: &tempfile::TempDir) -> Arc<AttributeIndex> {
    AttributeIndex::open(&path(directory)).unwrap()
}

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("state/attributes.redb")
}

#[test]
fn a_change_is_seen_at_once_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = index(&directory);
    first.put("a", sized(1));
    first.put("b", sized(2));
    assert_eq!(first.get("a"), Some(sized(1)));
    first.flush();
    first.put("a", sized(3));
    first.remove("b");
    assert_eq!((first.get("a"), first.get("b")), (Some(sized(3)), None));
    drop(first);
    let second = index(&directory);
    assert_eq!((second.get("a"), second.get("b")), (Some(sized(3)), None));
}

#[test]
fn a_flush_reaches_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let first = index(&directory);
    first.put("a", sized(1));
    first.flush();
    // As after kill -9: the file as it is now, without a clean end.
    let copy = directory.path().join("copy.redb");
    std::fs::copy(path(&directory), &copy).unwrap();
    let second = AttributeIndex::open(&copy).unwrap();
    assert_eq!(second.get("a"), Some(sized(1)));
}

/// As after kill -9: what lies on the disk now, opened by another mount.
fn as_killed(directory: &tempfile::TempDir, mark: Option<&str>) -> (tempfile::TempDir, Arc<AttributeIndex>) {
    let killed = tempfile::tempdir().unwrap();
    let state = killed.path().join("state");
    std::fs::create_dir(&state).unwrap();
    for name in ["attributes.redb", "attributes.unwritten"] {
        let _ = std::fs::copy(directory.path().join("state").join(name), state.join(name));
    }
    if let Some(mark) = mark {
        std::fs::write(state.join("attributes.unwritten"), mark).unwrap();
    }
    let opened = AttributeIndex::open(&state.join("attributes.redb")).unwrap();
    assert!(!state.join("attributes.unwritten").exists());
    (killed, opened)
}

#[test]
fn a_crash_costs_the_keys_that_waited_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let first = index(&directory);
    first.put("changed \n \"twice\"", sized(1));
    first.put("kept", sized(2));
    first.remove("never was");
    first.flush();
    first.put("changed \n \"twice\"", sized(3));
    first.put("new", sized(4));
    first.put("changed \n \"twice\"", sized(5));
    let (_killed, second) = as_killed(&directory, None);
    assert_eq!(second.get("kept"), Some(sized(2)));
    assert_eq!((second.get("changed \n \"twice\""), second.get("new")), (None, None));
}

#[test]
fn a_mark_that_makes_no_sense_stands_for_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let first = index(&directory);
    first.put("a", sized(1));
    first.flush();
    first.put("b", sized(2));
    let whole = std::fs::read_to_string(directory.path().join("state/attributes.unwritten")).unwrap();
    for mark in ["", "another boot\n\"b\"\n", whole.trim_end(), &format!("{whole}b\n")] {
        assert_eq!(as_killed(&directory, Some(mark)).1.get("a"), None, "{mark:?}");
    }
    assert_eq!(as_killed(&directory, Some(&whole)).1.get("a"), Some(sized(1)));
}

#[test]
fn a_tree_moves_with_what_waits_and_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let index = index(&directory);
    index.put("d/written", sized(1));
    index.put("d/", sized(2));
    index.put("d0", sized(3));
    index.flush();
    index.put("d/waiting/x", sized(4));
    index.put("e/written", sized(5));
    index.rename_tree("d/", "e/");
    assert_eq!(index.get("e/written"), Some(sized(1)));
    assert_eq!(index.get("e/"), Some(sized(2)));
    assert_eq!(index.get("e/waiting/x"), Some(sized(4)));
    assert_eq!(index.get("d0"), Some(sized(3)));
    assert!(["d/written", "d/", "d/waiting/x"].iter().all(|key| index.get(key).is_none()));
}

#[test]
fn of_a_doubted_tree_every_version_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let index = index(&directory);
    let known = || Remembered { etag: Some(ETag::new("v")), modified: Modified::At(UNIX_EPOCH), ..sized(1) };
    index.put("d/written", known());
    index.flush();
    index.put("d/waiting", known());
    index.put("d0", known());
    index.doubt_tree("d/");
    let modified = |key: &str| index.get(key).unwrap().modified;
    assert_eq!((modified("d/written"), modified("d/waiting")), (Modified::Unknown, Modified::Unknown));
    assert_eq!(index.get("d0"), Some(known()));
    assert!(!modified("d/written").is(UNIX_EPOCH) && index.get("d/written").unwrap().size == 1);
}

#[test]
fn a_tree_moves_into_itself() {
    let directory = tempfile::tempdir().unwrap();
    let index = index(&directory);
    index.put("d/x", sized(1));
    index.rename_tree("d/", "d/d/");
    assert_eq!((index.get("d/x"), index.get("d/d/x")), (None, Some(sized(1))));
}

#[test]
fn a_file_in_use_leaves_an_index_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let first = index(&directory);
    let second = index(&directory);
    second.put("a", sized(1));
    second.flush();
    assert_eq!((first.get("a"), second.get("a")), (None, Some(sized(1))));
    first.put("b", sized(2));
    first.flush();
    drop((first, second));
    let third = index(&directory);
    assert_eq!((third.get("a"), third.get("b")), (None, Some(sized(2))));
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("state"), b"a file").unwrap();
    let error = AttributeIndex::open(&path(&directory)).unwrap_err();
    assert!(error.to_string().contains("state"), "{error}");
    assert_eq!(error.kind(), crate::error::Kind::Local);
}

fn filled(directory: &tempfile::TempDir) -> u64 {
    let index = index(directory);
    for number in 0..2_000 {
        index.put(&format!("key-{number:05}"), sized(number));
    }
    drop(index);
    std::fs::metadata(path(directory)).unwrap().len()
}

/// After damage every answer is the truth or nothing, and the index can be written again.
fn survives(directory: &tempfile::TempDir) {
    let damaged = index(directory);
    for number in 0..2_000 {
        let found = damaged.get(&format!("key-{number:05}"));
        assert!(found.is_none_or(|found| found == sized(number)));
    }
    damaged.put("new", sized(7));
    damaged.rename_tree("key-000", "key-1");
    damaged.flush();
    assert_eq!(damaged.get("new"), Some(sized(7)));
}

#[test]
fn a_file_that_is_no_index_starts_empty_and_is_kept_then() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    std::fs::write(path(&directory), b"no database at all".repeat(1000)).unwrap();
    survives(&directory);
    assert_eq!(index(&directory).get("new"), Some(sized(7)));
}

#[test]
fn a_truncated_file_starts_empty() {
    let directory = tempfile::tempdir().unwrap();
    let length = filled(&directory);
    let file = std::fs::OpenOptions::new().write(true).open(path(&directory)).unwrap();
    file.set_len(length / 3).unwrap();
    survives(&directory);
}

#[test]
fn flipped_bytes_never_give_a_wrong_answer() {
    let directory = tempfile::tempdir().unwrap();
    let length = filled(&directory);
    for damage in 0..40 {
        filled(&directory);
        let mut file = std::fs::OpenOptions::new().write(true).open(path(&directory)).unwrap();
        file.seek(SeekFrom::Start(length / 40 * damage)).unwrap();
        file.write_all(&[0xA5; 300]).unwrap();
        survives(&directory);
        std::fs::remove_file(path(&directory)).unwrap();
    }
}

#[test]
fn damage_while_open_never_gives_a_wrong_answer() {
    let directory = tempfile::tempdir().unwrap();
    let length = filled(&directory);
    let index = index(&directory);
    let mut file = std::fs::OpenOptions::new().write(true).open(path(&directory)).unwrap();
    file.write_all(&vec![0xA5; length as usize]).unwrap();
    for number in 0..2_000 {
        let found = index.get(&format!("key-{number:05}"));
        assert!(found.is_none_or(|found| found == sized(number)));
    }
    index.put("new", sized(7));
    index.flush();
    assert_eq!(index.get("new"), Some(sized(7)));
}

#[test]
fn an_index_in_memory_that_grew_too_large_starts_empty() {
    let directory = tempfile::tempdir().unwrap();
    let _holder = index(&directory);
    let index = index(&directory);
    for number in 0..=100_000 {
        index.put(&format!("key-{number}"), sized(number));
    }
    index.flush();
    index.put("new", sized(7));
    index.flush();
    assert_eq!((index.get("key-100000"), index.get("new")), (None, Some(sized(7))));
}
