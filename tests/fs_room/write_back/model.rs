//! Random work behind closes, with answers that are lost and mounts that die: nobody else writes to the bucket, so
//! there is no conflict, and what was answered is there.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is done to the files, which are named by their places in [`NAMES`].
#[derive(Clone, Debug)]
enum Act {
    Write(usize),
    Append(usize),
    Rename(usize, usize),
    Chmod(usize),
    Unlink(usize),
    /// All that waits is sent, and the answer to the next request of this operation is lost.
    Send(&'static str),
    Die,
}

fn any_act() -> impl Strategy<Value = Act> {
    let name = || 0..NAMES.len();
    let operations = ["PutObject", "CopyObject", "DeleteObjects", "DeleteObject", "HeadObject", "none"];
    prop_oneof![
        4 => name().prop_map(Act::Write),
        2 => name().prop_map(Act::Append),
        3 => (name(), name()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => name().prop_map(Act::Chmod),
        2 => name().prop_map(Act::Unlink),
        4 => prop::sample::select(operations.to_vec()).prop_map(Act::Send),
        4 => Just(Act::Die),
    ]
}

/// A mount, and what it has to have by name: bytes and permission bits.
struct Player {
    house: House,
    files: BTreeMap<&'static str, (Vec<u8>, u32)>,
    /// Acts so far: no two versions are the same.
    acts: usize,
}

async fn mounted(bucket: Arc<MemoryBucket>, state: tempfile::TempDir) -> House {
    let settings = |settings| Settings { attributes_wait: true, ..waiting(roomy())(settings) };
    House::with(bucket, state, settings).await
}

impl Player {
    async fn begin() -> Self {
        let bucket = Arc::new(MemoryBucket::new());
        // Of another client, without attributes.
        bucket.insert("a", "was there before", Metadata::new());
        let house = mounted(bucket, tempfile::tempdir().unwrap()).await;
        Self { house, files: BTreeMap::from([("a", (b"was there before".to_vec(), 0o644))]), acts: 0 }
    }

    async fn ino(&self, name: &str) -> Ino {
        self.house.lookup(ROOT, name).await.unwrap().ino
    }

    async fn play(&mut self, act: &Act) {
        self.acts += 1;
        let text = format!("act {} ", self.acts).into_bytes();
        let is_there = |name: usize| self.files.contains_key(NAMES[name]);
        match *act {
            Act::Write(name) => {
                let mode = self.write(NAMES[name], &text).await;
                self.files.insert(NAMES[name], (text, mode));
            }
            Act::Append(name) if is_there(name) => {
                let ino = self.ino(NAMES[name]).await;
                let file = self.files.get_mut(NAMES[name]).unwrap();
                rewrite(&self.house, ino, file.0.len() as u64, &text).await;
                file.0.extend(text);
            }
            Act::Rename(from, to) if from != to && is_there(from) => {
                rename(&self.house, NAMES[from], NAMES[to]).await;
                let moved = self.files.remove(NAMES[from]).unwrap();
                self.files.insert(NAMES[to], moved);
            }
            Act::Chmod(name) if is_there(name) => {
                let mode = 0o600 | (self.acts % 64) as u32;
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                self.house.fs.setattr(self.ino(NAMES[name]).await, set).await.unwrap();
                self.files.get_mut(NAMES[name]).unwrap().1 = mode;
            }
            Act::Unlink(name) if is_there(name) => {
                self.house.fs.unlink(ROOT, OsStr::new(NAMES[name])).await.unwrap();
                self.files.remove(NAMES[name]);
            }
            Act::Send(operation) => {
                self.house.bucket.inject(Fault::once(operation, Effect::LoseReply(Kind::Deadline)));
                self.house.fs.sync(None).await;
                self.house.bucket.heal();
            }
            Act::Die => {}
            _ => return,
        }
    }

    /// Writes a file anew; answers its mode.
    async fn write(&self, name: &'static str, bytes: &[u8]) -> u32 {
        let flags = WRITE | libc::O_TRUNC;
        let (entry, opened) = self.house.fs.create(ROOT, OsStr::new(name), 0o644, flags, ME).await.unwrap();
        self.house.fs.write(opened.handle, 0, bytes).await.unwrap();
        self.house.fs.flush(opened.handle, ME).await.unwrap();
        self.house.fs.release(opened.handle).await.unwrap();
        u32::from(entry.stat.perm)
    }

    /// The mount shows what it has to.
    async fn check(&self) {
        let wanted: Vec<&str> = self.files.keys().copied().collect();
        assert_eq!(self.house.names(ROOT).await, wanted);
        for (name, (bytes, mode)) in &self.files {
            let entry = self.house.lookup(ROOT, name).await.unwrap();
            assert_eq!(self.house.read_file(entry.ino).await, bytes[..], "{name}");
            assert_eq!(u32::from(entry.stat.perm), *mode, "mode of {name}");
        }
    }

    /// So does the bucket, once all is sent.
    async fn check_bucket(&self) {
        assert!(self.house.fs.sync(None).await.is_empty(), "something cannot be sent");
        assert_eq!(kept_conflicts(&self.house), Vec::<Vec<u8>>::new(), "a conflict without another client");
        let wanted: Vec<&str> = self.files.keys().copied().collect();
        assert_eq!(self.house.bucket.keys(), wanted);
        for (name, (bytes, mode)) in &self.files {
            assert_eq!(self.house.bucket.bytes(name).unwrap(), bytes[..], "{name} in the bucket");
            let stored = Attributes::from_metadata(&self.house.bucket.info(name).unwrap().metadata).mode;
            assert_eq!(stored.map_or(*mode, |stored| stored & 0o7777), *mode, "mode of {name} in the bucket");
        }
    }
}

async fn died(player: Player) -> Player {
    player.house.fs.stop_removals().await;
    let Player { house, files, acts } = player;
    let (bucket, state) = crash(house, None).await;
    Player { house: mounted(bucket, state).await, files, acts }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
    #[test]
    fn whatever_dies_and_is_lost_on_the_way_arrives(acts in prop::collection::vec(any_act(), 1..24)) {
        RUNTIME.block_on(async {
            let mut player = Player::begin().await;
            for act in &acts {
                player.play(act).await;
                if matches!(act, Act::Die) {
                    player = died(player).await;
                }
                player.check().await;
            }
            player.check_bucket().await;
        });
    }
}
