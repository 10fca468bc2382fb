//! Objects that another client replaces while they are open here: one version or `ESTALE`, never a mix.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

/// Every so many bytes tell the version and their position.
const CHUNK: usize = 512;

/// How the versions of an object differ in size.
#[derive(Clone, Copy, Debug)]
struct Shape {
    bytes: usize,
    growth: isize,
}

const SHAPES: [Shape; 6] = [
    Shape { bytes: 10_000, growth: 0 },
    Shape { bytes: 10_000, growth: 5_000 },
    Shape { bytes: 300_000, growth: -7_777 },
    Shape { bytes: 3 << 20, growth: 0 },
    Shape { bytes: 3 << 20, growth: 100_000 },
    Shape { bytes: 3 << 20, growth: -100_000 },
];

impl Shape {
    fn size(self, version: usize) -> usize {
        self.bytes.checked_add_signed(self.growth * (version % 20) as isize).unwrap()
    }

    fn version(self, version: usize) -> Vec<u8> {
        let mut bytes = vec![b'.'; self.size(version)];
        for (at, chunk) in bytes.chunks_mut(CHUNK).enumerate() {
            let told = format!("{version:08} {at:08} ");
            let fits = told.len().min(chunk.len());
            chunk[..fits].copy_from_slice(&told.as_bytes()[..fits]);
        }
        bytes
    }

    /// The version that these bytes are all of; panics when they are of none, or of several.
    fn of(self, bytes: &[u8]) -> usize {
        let number = String::from_utf8_lossy(&bytes[..8.min(bytes.len())]).parse();
        let version = number.unwrap_or_else(|_| panic!("{self:?}: {} bytes of no version", bytes.len()));
        let expected = self.version(version);
        if bytes != expected {
            let wrong = bytes.iter().zip(&expected).position(|(found, expected)| found != expected);
            let (found, expected) = (bytes.len(), expected.len());
            panic!("{self:?}: {found} bytes where version {version} has {expected}, first wrong at {wrong:?}");
        }
        version
    }
}

fn mount() -> Mount {
    Stage::on(Maker::Embedded).args(&["--attr-ttl", "100ms", "--list-ttl", "100ms"]).mount()
}

/// Reads all of an open file; `None` for `ESTALE`.
fn whole(file: &File) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read_at(&mut buffer, all.len() as u64) {
            Ok(0) => return Some(all),
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => return None,
            Err(error) => panic!("read: {error}"),
        }
    }
}

#[test]
fn an_open_file_stays_what_it_was_and_a_new_open_shows_what_it_is() {
    let mount = mount();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let name = format!("f{number}");
        mount.outside().put(&name, &shape.version(0));
        for round in 0..4 {
            let before = wait_for("the version just put", PATIENCE, || {
                let file = File::open(mount.at(&name)).ok()?;
                let mut head = [0; 100];
                file.read_exact_at(&mut head, 0).ok()?;
                head.starts_with(format!("{round:08} ").as_bytes()).then_some(file)
            });
            mount.outside().put(&name, &shape.version(round + 1));
            if round % 2 == 0 {
                // Somebody else notices: what he learns must not reach the first one.
                wait_for("the new size", PATIENCE, || {
                    let found = fs::metadata(mount.at(&name)).ok()?.len();
                    let other = File::open(mount.at(&name)).ok()?;
                    let seen = whole(&other)?;
                    (found == shape.size(round + 1) as u64 && shape.of(&seen) == round + 1).then_some(())
                });
            }
            if let Some(bytes) = whole(&before) {
                assert_eq!(shape.of(&bytes), round, "through a file opened before");
            }
        }
    }
}

#[test]
fn readers_never_see_a_mix_while_an_object_is_replaced_all_the_time() {
    let mount = mount();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let name = format!("f{number}");
        mount.outside().put(&name, &shape.version(0));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !over.load(Ordering::Relaxed) {
                        let Ok(file) = File::open(mount.at(&name)) else { continue };
                        let Some(bytes) = whole(&file) else { continue };
                        let version = shape.of(&bytes);
                        assert!(version >= last, "version {version} after {last}");
                        last = version;
                    }
                });
            }
            for version in 1..20 {
                mount.outside().put(&name, &shape.version(version));
                std::thread::yield_now();
            }
            wait_for("the last version", PATIENCE, || {
                let file = File::open(mount.at(&name)).ok()?;
                (shape.of(&whole(&file)?) == 19).then_some(())
            });
            over.store(true, Ordering::Relaxed);
        });
    }
}

/// Maps a file, says so, waits for a line, and copies all of the mapping to another file.
const MAPPER: &str = "import mmap, sys\n\
    file = open(sys.argv[1], 'rb')\n\
    map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n\
    map[:100]; print('mapped', flush=True); sys.stdin.readline()\n\
    open(sys.argv[2], 'wb').write(map[:])";

fn mapped_over_a_change(mount: &Mount, path: &Path, copy: &Path, change: impl FnOnce()) -> Option<Vec<u8>> {
    let mut command = Command::new("python3");
    command.args(["-c", MAPPER]).args([path, copy]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "mapped\n", "{}", mount.log());
    change();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let ended = process::wait(&mut child, PATIENCE).expect("the mapping is read");
    // What cannot be had any more is SIGBUS here: mmap(2).
    ended.success().then(|| fs::read(copy).unwrap())
}

#[test]
fn a_mapping_is_one_version_too() {
    let mount = mount();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let name = format!("f{number}");
        mount.outside().put(&name, &shape.version(0));
        for round in 0..3 {
            wait_for("the version just put", PATIENCE, || {
                let file = File::open(mount.at(&name)).ok()?;
                (shape.of(&whole(&file)?) == round).then_some(())
            });
            let copy = mount.beside("copy");
            let seen = mapped_over_a_change(&mount, &mount.at(&name), &copy, || {
                mount.outside().put(&name, &shape.version(round + 1));
                wait_for("the new version", PATIENCE, || {
                    let file = File::open(mount.at(&name)).ok()?;
                    (shape.of(&whole(&file)?) == round + 1).then_some(())
                });
            });
            if let Some(bytes) = seen {
                assert_eq!(shape.of(&bytes), round, "through a mapping made before");
            }
        }
    }
}
