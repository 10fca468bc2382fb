//! Random work behind closes, with answers that are lost and mounts that die: nobody else writes to the bucket, so
//! there is no conflict, and what was answered is there.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Two beside each other, and two in a directory that is `d` or `e`.
const NAMES: [&str; 4] = ["a", "b", "x", "y"];
const IN_DIRECTORY: usize = 2;

/// What is done to the files, which are named by their places in [`NAMES`].
#[derive(Clone, Debug)]
enum Act {
    Write(usize),
    Append(usize),
    Rename(usize, usize),
    Chmod(usize),
    Unlink(usize),
    /// The directory gets its other name.
    RenameTree,
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
        2 => Just(Act::RenameTree),
        4 => prop::sample::select(operations.to_vec()).prop_map(Act::Send),
        4 => Just(Act::Die),
    ]
}

/// A mount, and what it has to have.
struct Player {
    house: House,
    /// Bytes and permission bits, by place in [`NAMES`].
    files: BTreeMap<usize, (Vec<u8>, u32)>,
    directory: &'static str,
    /// Acts so far: no two versions are the same.
    acts: usize,
}

/// As programs mount, with write-back or without: attributes wait, too.
pub async fn mounted(bucket: Arc<MemoryBucket>, state: tempfile::TempDir, write_back: bool) -> House {
    let settings = |settings| {
        let settings = Settings { attributes_wait: true, ..waiting(roomy())(settings) };
        if write_back { settings } else { Settings { write_back: None, ..settings } }
    };
    House::with(bucket, state, settings).await
}

impl Player {
    async fn begin(random_tags: bool) -> Self {
        let bucket = Arc::new(MemoryBucket::new());
        if random_tags {
            bucket.give_random_tags();
        }
        let files = BTreeMap::from([0, 2].map(|place| (place, (b"was there before".to_vec(), 0o644))));
        // Of another client, without attributes; and a directory that stays when it is empty.
        for key in ["a", "d/x"] {
            bucket.insert(key, "was there before", Metadata::new());
        }
        bucket.insert("d/", "", Metadata::new());
        let house = mounted(bucket, tempfile::tempdir().unwrap(), true).await;
        Self { house, files, directory: "d", acts: 0 }
    }

    async fn parent(&self, place: usize) -> Ino {
        if place < IN_DIRECTORY { ROOT } else { self.house.lookup(ROOT, self.directory).await.unwrap().ino }
    }

    fn key(&self, place: usize) -> String {
        if place < IN_DIRECTORY { NAMES[place].to_owned() } else { format!("{}/{}", self.directory, NAMES[place]) }
    }

    async fn entry(&self, place: usize) -> Entry {
        self.house.lookup(self.parent(place).await, NAMES[place]).await.unwrap()
    }

    async fn play(&mut self, act: &Act) {
        self.acts += 1;
        let text = format!("act {} ", self.acts).into_bytes();
        let is_there = |place: usize| self.files.contains_key(&place);
        match *act {
            Act::Write(place) => {
                let mode = self.write(place, &text).await;
                self.files.insert(place, (text, mode));
            }
            Act::Append(place) if is_there(place) => {
                let ino = self.entry(place).await.ino;
                let (bytes, _) = self.files.get_mut(&place).unwrap();
                rewrite(&self.house, ino, bytes.len() as u64, &text).await;
                bytes.extend(text);
            }
            Act::Rename(from, to) if from != to && is_there(from) => {
                let places = (self.parent(from).await, self.parent(to).await);
                let names = (OsStr::new(NAMES[from]), OsStr::new(NAMES[to]));
                self.house.fs.rename(places.0, names.0, places.1, names.1, 0).await.unwrap();
                let moved = self.files.remove(&from).unwrap();
                self.files.insert(to, moved);
            }
            Act::Chmod(place) if is_there(place) => {
                let mode = 0o600 | (self.acts % 64) as u32;
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                self.house.fs.setattr(self.entry(place).await.ino, set).await.unwrap();
                self.files.get_mut(&place).unwrap().1 = mode;
            }
            Act::Unlink(place) if is_there(place) => {
                self.house.fs.unlink(self.parent(place).await, OsStr::new(NAMES[place])).await.unwrap();
                self.files.remove(&place);
            }
            Act::RenameTree => {
                let to = if self.directory == "d" { "e" } else { "d" };
                rename(&self.house, self.directory, to).await;
                self.directory = to;
            }
            Act::Send(operation) => {
                self.house.bucket.inject(Fault::once(operation, Effect::LoseReply(Kind::Deadline)));
                self.house.fs.sync(None).await;
                self.house.bucket.heal();
            }
            _ => {}
        }
    }

    /// Writes a file anew; answers its mode.
    async fn write(&self, place: usize, bytes: &[u8]) -> u32 {
        let (parent, flags) = (self.parent(place).await, WRITE | libc::O_TRUNC);
        let (entry, opened) = self.house.fs.create(parent, OsStr::new(NAMES[place]), 0o644, flags, ME).await.unwrap();
        self.house.fs.write(opened.handle, 0, bytes).await.unwrap();
        self.house.fs.flush(opened.handle, ME).await.unwrap();
        self.house.fs.release(opened.handle).await.unwrap();
        u32::from(entry.stat.perm)
    }

    fn names(&self, places: std::ops::Range<usize>) -> Vec<&'static str> {
        places.filter(|place| self.files.contains_key(place)).map(|place| NAMES[place]).collect()
    }

    /// The mount shows what it has to.
    async fn check(&self) {
        let beside = [self.names(0..IN_DIRECTORY), vec![self.directory]].concat();
        assert_eq!(self.house.names(ROOT).await, beside);
        let directory = self.parent(IN_DIRECTORY).await;
        assert_eq!(self.house.names(directory).await, self.names(IN_DIRECTORY..NAMES.len()));
        for (place, (bytes, mode)) in &self.files {
            let entry = self.entry(*place).await;
            assert_eq!(self.house.read_file(entry.ino).await, bytes[..], "{}", self.key(*place));
            assert_eq!(u32::from(entry.stat.perm), *mode, "mode of {}", self.key(*place));
        }
    }

    /// So does the bucket, once all is sent.
    async fn check_bucket(&self) {
        assert!(self.house.fs.sync(None).await.is_empty(), "something cannot be sent");
        assert_eq!(kept_conflicts(&self.house), Vec::<Vec<u8>>::new(), "a conflict without another client");
        let marker = format!("{}/", self.directory);
        let mut wanted: Vec<String> = self.files.keys().map(|place| self.key(*place)).chain([marker]).collect();
        wanted.sort();
        assert_eq!(self.house.bucket.keys(), wanted);
        for (place, (bytes, mode)) in &self.files {
            let key = self.key(*place);
            assert_eq!(self.house.bucket.bytes(&key).unwrap(), bytes[..], "{key} in the bucket");
            let stored = Attributes::from_metadata(&self.house.bucket.info(&key).unwrap().metadata).mode;
            assert_eq!(stored.map_or(0o644, |stored| stored & 0o7777), *mode, "mode of {key} in the bucket");
        }
    }
}

async fn died(player: Player) -> Player {
    player.house.fs.stop_removals().await;
    let Player { house, files, directory, acts } = player;
    let (bucket, state) = crash(house, None).await;
    Player { house: mounted(bucket, state, true).await, files, directory, acts }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]
    #[test]
    fn whatever_dies_and_is_lost_on_the_way_arrives(
        random_tags in any::<bool>(),
        acts in prop::collection::vec(any_act(), 1..24),
    ) {
        RUNTIME.block_on(async {
            let mut player = Player::begin(random_tags).await;
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
