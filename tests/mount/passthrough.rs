//! Files that the kernel reads by itself from the cache on disk.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::stage::{Maker, Mount, PATIENCE, Stage, wait_for};

const BYTES: usize = 5 << 20;

fn pattern(seed: usize) -> Vec<u8> {
    (0..BYTES).map(|at| (at ^ (at >> 9) ^ (at >> 17) ^ seed) as u8).collect()
}

fn opens(mount: &Mount) -> u64 {
    mount.status()["files"]["passthrough_opens"].as_u64().unwrap_or(0)
}

fn whole(mut file: &File) -> Vec<u8> {
    let mut bytes = vec![0; fs_len(file)];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let mut beyond = [0];
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    assert_eq!(file.read(&mut beyond).unwrap(), 0);
    bytes
}

fn fs_len(file: &File) -> usize {
    usize::try_from(file.metadata().unwrap().len()).unwrap()
}

/// A mount with one object that lies on disk, and `None` where the kernel wants more privilege.
fn given() -> Option<Mount> {
    let mut mount = Stage::on(Maker::Embedded).args(&["--attr-ttl", "100ms", "--list-ttl", "100ms"]).prepare();
    mount.outside().put("object", &pattern(0));
    mount.start();
    if mount.status()["files"]["passthrough"] != true {
        return None;
    }
    assert!(fs::read(mount.at("object")).unwrap() == pattern(0));
    wait_for("the disk cache", PATIENCE, || {
        (mount.status()["disk"]["written_bytes"].as_u64()? >= BYTES as u64).then_some(())
    });
    // The first one shows whether the kernel takes files of this file system.
    drop(File::open(mount.at("object")).unwrap());
    (mount.status()["files"]["passthrough"] == true).then_some(mount)
}

/// Opens for reading such that the kernel reads by itself.
fn open_given(mount: &Mount, name: &str) -> File {
    let before = opens(mount);
    let file = File::open(mount.at(name)).unwrap();
    assert_eq!(opens(mount), before + 1, "the kernel does not read by itself\n{}", mount.log());
    file
}

fn gets(mount: &Mount) -> u64 {
    mount.status()["requests"]["GetObject"].as_u64().unwrap_or(0)
}

#[test]
fn what_lies_on_disk_is_read_by_the_kernel_with_the_right_bytes() {
    let Some(mut mount) = given() else { return };
    let before = gets(&mount);
    let (first, second) = (open_given(&mount, "object"), open_given(&mount, "object"));
    assert!(whole(&first) == pattern(0) && whole(&second) == pattern(0));
    assert_eq!(gets(&mount), before);
    drop((first, second));
    mount.remount();
    assert!(whole(&open_given(&mount, "object")) == pattern(0));
    assert_eq!(gets(&mount), 0);
}

#[test]
fn a_small_file_is_not_given() {
    let Some(mount) = given() else { return };
    fs::write(mount.at("small"), b"small").unwrap();
    let before = opens(&mount);
    for _ in 0..3 {
        assert_eq!(fs::read(mount.at("small")).unwrap(), b"small");
    }
    assert_eq!(opens(&mount), before);
}

/// What a writer does, the reader before it does not see, and the next one does.
fn written_while_read(write: impl FnOnce(&Path)) -> (Vec<u8>, Mount) {
    let mount = given().expect("asked before");
    let reader = open_given(&mount, "object");
    write(&mount.at("object"));
    assert!(whole(&reader) == pattern(0), "the reader keeps its version");
    let seen = fs::read(mount.at("object")).unwrap();
    drop(reader);
    assert!(fs::read(mount.at("object")).unwrap() == seen);
    assert!(mount.outside().bytes("object") == seen);
    (seen, mount)
}

#[test]
fn a_writer_gets_through_and_the_reader_keeps_its_version() {
    if given().is_none() {
        return;
    }
    let (seen, _mount) = written_while_read(|path| {
        let writer = OpenOptions::new().write(true).open(path).unwrap();
        writer.write_all_at(b"new", 100).unwrap();
    });
    let mut expected = pattern(0);
    expected[100..103].copy_from_slice(b"new");
    assert!(seen == expected);
    let (seen, _mount) = written_while_read(|path| fs::write(path, b"replaced").unwrap());
    assert_eq!(seen, b"replaced");
    let (seen, _mount) = written_while_read(|path| {
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    });
    assert!(seen[..BYTES] == pattern(0) && seen[BYTES..] == *b"more");
    let (seen, _mount) = written_while_read(|path| {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the path is a C string that lives through the call.
        assert_eq!(unsafe { libc::truncate(path.as_ptr(), 5) }, 0, "{}", std::io::Error::last_os_error());
    });
    assert!(seen == pattern(0)[..5]);
}

#[test]
fn who_opens_while_it_is_written_reads_what_is_written() {
    let Some(mount) = given() else { return };
    let writer = OpenOptions::new().read(true).write(true).open(mount.at("object")).unwrap();
    writer.write_all_at(b"new", 0).unwrap();
    let before = opens(&mount);
    let reader = File::open(mount.at("object")).unwrap();
    assert_eq!(opens(&mount), before);
    assert!(whole(&reader)[..3] == *b"new" && whole(&writer)[..3] == *b"new");
}

#[test]
fn a_file_removed_or_renamed_over_stays_readable_without_a_request() {
    let Some(mount) = given() else { return };
    let reader = open_given(&mount, "object");
    fs::write(mount.at("other"), b"other").unwrap();
    let before = gets(&mount);
    fs::rename(mount.at("other"), mount.at("object")).unwrap();
    assert!(whole(&reader) == pattern(0));
    assert_eq!(gets(&mount), before);
    assert_eq!(fs::read(mount.at("object")).unwrap(), b"other");
    fs::remove_file(mount.at("object")).unwrap();
    assert!(whole(&reader) == pattern(0));
}

#[test]
fn a_change_in_the_bucket_leaves_the_reader_its_version() {
    let Some(mount) = given() else { return };
    let reader = open_given(&mount, "object");
    mount.outside().put("object", &pattern(7));
    wait_for("the new version", PATIENCE, || (fs::read(mount.at("object")).unwrap() == pattern(7)).then_some(()));
    assert!(whole(&reader) == pattern(0));
}

#[test]
fn attributes_change_under_a_reader() {
    let Some(mount) = given() else { return };
    let reader = open_given(&mount, "object");
    crate::stage::sys::chmod(&mount.at("object"), 0o600).unwrap();
    assert_eq!(fs::metadata(mount.at("object")).unwrap().mode() & 0o777, 0o600);
    assert!(whole(&reader) == pattern(0));
    assert!(whole(&File::open(mount.at("object")).unwrap()) == pattern(0));
}

#[test]
fn eviction_takes_nothing_from_who_reads() {
    let Some(mount) = given() else { return };
    let reader = open_given(&mount, "object");
    fs::remove_dir_all(mount.beside("cache/blocks-2")).unwrap();
    assert!(whole(&reader) == pattern(0));
    assert!(fs::read(mount.at("object")).unwrap() == pattern(0));
}

#[test]
fn a_mapping_of_such_a_file_outlives_its_descriptor() {
    let Some(mount) = given() else { return };
    let reader = open_given(&mount, "object");
    // SAFETY: the mapping is read below while it lives, within its length, and nothing writes to it.
    let mapped = unsafe {
        use std::os::fd::AsRawFd;
        let at = libc::mmap(std::ptr::null_mut(), BYTES, libc::PROT_READ, libc::MAP_PRIVATE, reader.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        std::slice::from_raw_parts(at.cast::<u8>(), BYTES)
    };
    drop(reader);
    fs::write(mount.at("object"), b"replaced").unwrap();
    assert!(mapped == pattern(0));
    assert_eq!(fs::read(mount.at("object")).unwrap(), b"replaced");
}

/// A file system on top of another, on which the kernel stacks no further one. Gone at the end.
struct Stacked(std::path::PathBuf);

impl Stacked {
    fn new(place: &Path) -> Self {
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| place.join(name));
        for directory in [&lower, &upper, &work, &merged] {
            fs::create_dir(directory).unwrap();
        }
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        nix::mount::mount(
            Some("overlay"),
            &merged,
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )
        .expect("overlayfs");
        Self(merged)
    }
}

impl Drop for Stacked {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn where_the_kernel_refuses_we_read() {
    if given().is_none() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let stacked = Stacked::new(place.path());
    let mut mount = Stage::on(Maker::Embedded).args(&["--cache-dir", stacked.0.to_str().unwrap()]).prepare();
    mount.outside().put("object", &pattern(0));
    mount.start();
    assert!(fs::read(mount.at("object")).unwrap() == pattern(0));
    wait_for("the disk cache", PATIENCE, || {
        (mount.status()["disk"]["written_bytes"].as_u64()? >= BYTES as u64).then_some(())
    });
    let reader = File::open(mount.at("object")).unwrap();
    assert!(whole(&reader) == pattern(0));
    assert_eq!(mount.status()["files"]["passthrough"], false);
    fs::write(mount.at("object"), b"written").unwrap();
    assert_eq!(fs::read(mount.at("object")).unwrap(), b"written");
    drop(mount);
}
