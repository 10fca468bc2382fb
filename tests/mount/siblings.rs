//! Many small files: requests that reading them costs, from a mount that knows nothing.

use std::fs;
use std::path::Path;

use crate::stage::{Maker, Mount, Stage, process};

fn number(mount: &Mount, operation: &str) -> u64 {
    mount.status()["requests"][operation].as_u64().unwrap_or(0)
}

fn content(name: &str) -> Vec<u8> {
    name.bytes().cycle().take(4096).collect()
}

/// A mount of a bucket with so many objects in each directory, written by another client.
fn mount_of(directories: &[&str], files: usize) -> Mount {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for directory in directories {
        for file in 0..files {
            let key = format!("{directory}/f{file:03}");
            mount.outside().put(&key, &content(&key));
        }
    }
    mount.start();
    mount
}

fn assert_same(mount: &Mount, directory: &str, copy: &Path) {
    for entry in fs::read_dir(copy.join(directory)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let key = format!("{directory}/{name}");
        assert!(fs::read(copy.join(&key)).unwrap() == content(&key), "{key}\n{}", mount.log());
    }
}

#[test]
fn grep_asks_for_each_object_once_and_again_for_none() {
    let mount = mount_of(&["d"], 200);
    let lists_before = number(&mount, "ListObjectsV2");
    process::bash(mount.path(), "grep -r -c f d | wc -l | grep -qx 200");
    assert_eq!(number(&mount, "GetObject"), 200);
    assert_eq!(number(&mount, "HeadObject"), 0);
    let lists = number(&mount, "ListObjectsV2");
    assert!(lists - lists_before <= 3, "{} LISTs", lists - lists_before);
    process::bash(mount.path(), "grep -r -c f d | wc -l | grep -qx 200");
    assert_eq!(number(&mount, "GetObject"), 200);
}

#[test]
fn tar_and_cp_get_the_right_bytes_with_one_get_each() {
    for command in ["tar c a b c d | tar x -C", "cp -r a b c d"] {
        let mount = mount_of(&["a", "b", "c", "d"], 20);
        let copy = mount.beside("copy");
        fs::create_dir(&copy).unwrap();
        process::bash(mount.path(), &format!("{command} {}", copy.display()));
        assert_eq!(number(&mount, "GetObject"), 80, "{command}");
        for directory in ["a", "b", "c", "d"] {
            assert_eq!(fs::read_dir(copy.join(directory)).unwrap().count(), 20);
            assert_same(&mount, directory, &copy);
        }
    }
}

#[test]
fn a_single_small_file_is_one_get() {
    let mount = mount_of(&["d"], 20);
    for _ in 0..3 {
        assert!(fs::read(mount.at("d/f007")).unwrap() == content("d/f007"));
    }
    assert_eq!((number(&mount, "GetObject"), number(&mount, "HeadObject")), (1, 0));
}

#[test]
fn a_file_is_read_right_by_all_who_open_it_at_once() {
    let mount = mount_of(&["d"], 60);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let mount = &mount;
            scope.spawn(move || {
                for file in 0..60 {
                    let key = format!("d/f{:03}", (file + thread / 2) % 60);
                    assert!(fs::read(mount.at(&key)).unwrap() == content(&key), "{key}");
                }
            });
        }
    });
    assert_eq!(number(&mount, "GetObject"), 60);
}

#[test]
fn a_file_that_is_written_while_others_open_it_has_the_written_bytes() {
    let mount = mount_of(&["d"], 40);
    for file in 0..40 {
        let path = mount.at(&format!("d/f{file:03}"));
        let written = format!("written {file}").repeat(100);
        std::thread::scope(|scope| {
            scope.spawn(|| fs::read(&path));
            scope.spawn(|| fs::write(&path, &written).unwrap());
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), written, "{file}");
        let size = fs::metadata(&path).unwrap().len();
        assert_eq!(size, written.len() as u64);
    }
}
