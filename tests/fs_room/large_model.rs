//! Random changes to a large file, held against the bytes that it should have.

use proptest::prelude::*;

use super::parts::{MIB, pattern};
use super::*;

/// What is done to the file.
#[derive(Clone, Debug)]
enum Change {
    Write {
        at: u64,
        bytes: u64,
        with: u8,
    },
    Append {
        bytes: u64,
        with: u8,
    },
    Resize(u64),
    Punch {
        at: u64,
        bytes: u64,
    },
    Chmod(u32),
    Sync,
    Reopen,
    Rename,
    /// The next request of this operation fails.
    Break(&'static str),
}

fn any_change() -> impl Strategy<Value = Change> {
    let length = || prop_oneof![1..5_000_u64, 1..3 * MIB, 5 * MIB..12 * MIB];
    let operations = ["UploadPart", "UploadPartCopy", "CreateMultipartUpload", "CompleteMultipartUpload", "GetObject"];
    prop_oneof![
        6 => (0..40 * MIB, length(), any::<u8>()).prop_map(|(at, bytes, with)| Change::Write { at, bytes, with }),
        4 => (length(), any::<u8>()).prop_map(|(bytes, with)| Change::Append { bytes, with }),
        2 => (0..48 * MIB).prop_map(Change::Resize),
        1 => (0..40 * MIB, length()).prop_map(|(at, bytes)| Change::Punch { at, bytes }),
        1 => (0..0o1000_u32).prop_map(Change::Chmod),
        4 => Just(Change::Sync),
        2 => Just(Change::Reopen),
        1 => Just(Change::Rename),
        1 => prop::sample::select(operations.to_vec()).prop_map(Change::Break),
    ]
}

/// The file, and what it should hold.
struct Player {
    house: House,
    ino: Ino,
    handle: u64,
    name: String,
    body: Vec<u8>,
}

impl Player {
    async fn begin(foreign: bool) -> Self {
        let house = House::patient().await;
        let body = if foreign { pattern(30 * MIB) } else { Vec::new() };
        let (ino, handle) = if foreign {
            house.bucket.insert("f0", body.clone(), Metadata::new());
            let ino = house.lookup(ROOT, "f0").await.unwrap().ino;
            (ino, house.fs.open(ino, WRITE, ME).await.unwrap().handle)
        } else {
            let (entry, opened) = house.fs.create(ROOT, OsStr::new("f0"), 0o644, WRITE, ME).await.unwrap();
            (entry.ino, opened.handle)
        };
        let mut player = Self { house, ino, handle, name: "f0".to_owned(), body };
        if foreign {
            // From here on its attributes are ours.
            player.write(0, 1, 1).await;
        }
        player
    }

    async fn play(&mut self, change: &Change) {
        match *change {
            Change::Write { at, bytes, with } => self.write(at, bytes, with).await,
            Change::Append { bytes, with } => self.write(self.body.len() as u64, bytes, with).await,
            Change::Resize(size) => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                self.house.fs.setattr(self.ino, set).await.unwrap();
                self.body.resize(size as usize, 0);
            }
            Change::Punch { at, bytes } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                self.house.fs.fallocate(self.handle, at, bytes, mode).await.unwrap();
                let end = self.body.len().min((at + bytes) as usize);
                self.body[(at as usize).min(end)..end].fill(0);
            }
            Change::Chmod(mode) => {
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                // What is broken may hit the HEAD that this needs, or nothing.
                self.house.fs.setattr(self.ino, set).await.unwrap();
            }
            Change::Sync => self.sync().await,
            Change::Reopen => {
                self.sync().await;
                self.house.fs.release(self.handle).await.unwrap();
                self.handle = self.house.fs.open(self.ino, WRITE, ME).await.unwrap().handle;
            }
            Change::Rename => {
                self.house.bucket.heal();
                let to = format!("{}x", self.name);
                self.house.fs.rename(ROOT, OsStr::new(&self.name), ROOT, OsStr::new(&to), 0).await.unwrap();
                self.name = to;
            }
            Change::Break(operation) => {
                self.house.bucket.inject(Fault::once(operation, Effect::Fail(Kind::AccessDenied)));
            }
        }
    }

    async fn write(&mut self, at: u64, bytes: u64, with: u8) {
        let bytes = vec![with; bytes as usize];
        let end = at as usize + bytes.len();
        self.body.resize(self.body.len().max(end), 0);
        self.body[at as usize..end].copy_from_slice(&bytes);
        for (index, piece) in bytes.chunks(MIB as usize).enumerate() {
            self.house.fs.write(self.handle, at + index as u64 * MIB, piece).await.unwrap();
        }
    }

    /// Stores the file, for which it may have to be tried again, and compares it everywhere.
    async fn sync(&self) {
        if self.house.fs.fsync(self.handle).await.is_err() {
            self.house.bucket.heal();
            self.house.fs.fsync(self.handle).await.unwrap();
        }
        self.house.bucket.heal();
        assert!(self.house.bucket.bytes(&self.name).unwrap() == self.body, "other bytes in the bucket");
        let stat = self.house.fs.getattr(self.ino).await.unwrap().stat;
        let stored = self.house.bucket.info(&self.name).unwrap();
        let attributes = Attributes::from_metadata(&stored.metadata);
        assert_eq!((stored.size, attributes.mode), (stat.size, Some(stat.mode())));
        assert_eq!(attributes.mtime, Some(stat.mtime));
        for at in [0, self.body.len() / 3, self.body.len().saturating_sub(4096)] {
            let read = self.house.fs.read(self.handle, at as u64, 4096).await.unwrap();
            assert!(read == self.body[at..self.body.len().min(at + 4096)], "other bytes are read at {at}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]
    #[test]
    fn a_large_file_has_the_bytes_that_were_written(
        foreign in any::<bool>(),
        changes in prop::collection::vec(any_change(), 1..14),
    ) {
        RUNTIME.block_on(async {
            let mut player = Player::begin(foreign).await;
            for change in &changes {
                player.play(change).await;
            }
            player.play(&Change::Write { at: 0, bytes: 1, with: 1 }).await;
            player.play(&Change::Sync).await;
            let house = player.house;
            house.fs.release(player.handle).await.unwrap();
            let gone = async {
                while house.bucket.open_uploads() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::time::timeout(Duration::from_mins(1), gone).await.expect("an upload is left");
        });
    }
}
