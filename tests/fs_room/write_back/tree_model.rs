//! Random directories, with answers that are lost and mounts that die: nobody else writes to the bucket, so each
//! directory that was made is there, for other clients too, until it is removed.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::mounted;
use super::*;

const DIRECTORIES: [&str; 5] = ["p", "q", "p/r", "q/r", "q/r/s"];
/// So many in a directory keep it without a marker.
const FILES: [&str; 3] = ["f", "g", "h"];

#[derive(Clone, Debug)]
enum Act {
    Make(&'static str),
    Remove(&'static str),
    Fill(&'static str),
    Clear(&'static str),
    Write(&'static str, &'static str),
    Unlink(&'static str, &'static str),
    Move(&'static str, &'static str, &'static str),
    Rename(&'static str, &'static str),
    Chmod(&'static str),
    /// Everything is stored; the answer to the next request of this operation is lost.
    Sync(&'static str),
    /// What waits of one directory is stored.
    Fsync(&'static str),
    Die,
}

fn any_act() -> impl Strategy<Value = Act> {
    let directory = || prop::sample::select(DIRECTORIES.to_vec());
    let file = || prop::sample::select(FILES.to_vec());
    let operations = ["PutObject", "CopyObject", "DeleteObjects", "DeleteObject", "none", "none"];
    prop_oneof![
        6 => directory().prop_map(Act::Make),
        2 => directory().prop_map(Act::Remove),
        3 => directory().prop_map(Act::Fill),
        3 => directory().prop_map(Act::Clear),
        1 => (directory(), file()).prop_map(|(directory, file)| Act::Write(directory, file)),
        2 => (directory(), file()).prop_map(|(directory, file)| Act::Unlink(directory, file)),
        2 => (directory(), directory(), file()).prop_map(|(from, to, file)| Act::Move(from, to, file)),
        3 => (directory(), directory()).prop_map(|(from, to)| Act::Rename(from, to)),
        1 => directory().prop_map(Act::Chmod),
        4 => prop::sample::select(operations.to_vec()).prop_map(Act::Sync),
        1 => directory().prop_map(Act::Fsync),
        3 => Just(Act::Die),
    ]
}

/// A mount, and the paths that it has to have: of files with their bytes, of directories without.
struct Player {
    house: House,
    write_back: bool,
    paths: BTreeMap<String, Option<Vec<u8>>>,
    acts: usize,
}

fn above(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(above, _)| above)
}

fn name(path: &str) -> &OsStr {
    OsStr::new(path.rsplit('/').next().unwrap())
}

impl Player {
    fn is_there(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }

    fn below(&self, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        self.paths.keys().filter(|path| path.starts_with(&prefix)).cloned().collect()
    }

    async fn ino(&self, path: &str) -> Ino {
        let mut ino = ROOT;
        for name in path.split('/') {
            ino = self.house.lookup(ino, name).await.unwrap_or_else(|errno| panic!("{path}: {errno}")).ino;
        }
        ino
    }

    async fn parent(&self, path: &str) -> Ino {
        match above(path) {
            Some(above) => self.ino(above).await,
            None => ROOT,
        }
    }

    async fn write(&mut self, path: &str) {
        let text = format!("act {} of {path}", self.acts).into_bytes();
        let (parent, flags) = (self.parent(path).await, WRITE | libc::O_TRUNC);
        let (_, opened) = self.house.fs.create(parent, name(path), 0o644, flags, ME).await.unwrap();
        self.house.fs.write(opened.handle, 0, &text).await.unwrap();
        self.house.fs.flush(opened.handle, ME).await.unwrap();
        self.house.fs.release(opened.handle).await.unwrap();
        self.paths.insert(path.to_owned(), Some(text));
    }

    async fn unlink(&mut self, path: &str) {
        if self.is_there(path) {
            self.house.fs.unlink(self.parent(path).await, name(path)).await.unwrap();
            self.paths.remove(path);
        }
    }

    async fn make(&mut self, path: &str) {
        if above(path).is_some_and(|above| !self.is_there(above)) {
            return;
        }
        let made = self.house.fs.mkdir(self.parent(path).await, name(path), 0o755, ME).await;
        match made {
            Ok(_) => assert_eq!(self.paths.insert(path.to_owned(), None), None, "{path} was there"),
            Err(error) => assert!(self.is_there(path) && error.errno() == Errno::EEXIST, "{path}: {error}"),
        }
    }

    async fn remove(&mut self, path: &str) {
        if !self.is_there(path) {
            return;
        }
        match self.house.fs.rmdir(self.parent(path).await, name(path)).await {
            Ok(()) => {
                assert_eq!(self.below(path), Vec::<String>::new(), "{path} was not empty");
                self.paths.remove(path);
            }
            Err(error) => assert!(!self.below(path).is_empty() && error.errno() == Errno::ENOTEMPTY, "{path}: {error}"),
        }
    }

    /// As rename(2), of a file or a directory, where it can be.
    async fn rename(&mut self, from: &str, to: &str) {
        let is_possible = self.is_there(from)
            && from != to
            && !to.starts_with(&format!("{from}/"))
            && above(to).is_none_or(|above| self.is_there(above));
        if !is_possible {
            return;
        }
        let (parents, is_full) = ((self.parent(from).await, self.parent(to).await), !self.below(to).is_empty());
        match self.house.fs.rename(parents.0, name(from), parents.1, name(to), 0).await {
            Ok(()) => {
                assert!(!is_full, "{to} was not empty");
                for old in self.below(from).into_iter().chain([from.to_owned()]) {
                    let moved = self.paths.remove(&old).unwrap();
                    self.paths.insert(format!("{to}{}", &old[from.len()..]), moved);
                }
            }
            Err(error) => assert!(is_full && error.errno() == Errno::ENOTEMPTY, "{from} to {to}: {error}"),
        }
    }

    async fn play(&mut self, act: &Act) {
        self.acts += 1;
        match *act {
            Act::Make(path) => self.make(path).await,
            Act::Remove(path) => self.remove(path).await,
            Act::Fill(path) if self.is_there(path) => {
                for file in FILES {
                    self.write(&format!("{path}/{file}")).await;
                }
            }
            Act::Clear(path) => {
                for file in FILES {
                    self.unlink(&format!("{path}/{file}")).await;
                }
            }
            Act::Write(path, file) if self.is_there(path) => self.write(&format!("{path}/{file}")).await,
            Act::Unlink(path, file) => self.unlink(&format!("{path}/{file}")).await,
            Act::Move(from, to, file) => self.rename(&format!("{from}/{file}"), &format!("{to}/{file}")).await,
            Act::Rename(from, to) => self.rename(from, to).await,
            Act::Chmod(path) if self.is_there(path) => {
                let set = SetAttr { mode: Some(0o700 | (self.acts % 64) as u32), ..SetAttr::default() };
                self.house.fs.setattr(self.ino(path).await, set).await.unwrap();
            }
            Act::Sync(operation) => {
                self.house.bucket.inject(Fault::once(operation, Effect::LoseReply(Kind::Deadline)));
                self.house.fs.sync(None).await;
                self.house.bucket.heal();
            }
            Act::Fsync(path) if self.is_there(path) => {
                self.house.fs.sync_directory(self.ino(path).await).await.unwrap();
            }
            _ => {}
        }
    }

    /// The mount shows what it has to, and no more.
    async fn check(&self) {
        let directories = self.paths.iter().filter(|(_, bytes)| bytes.is_none()).map(|(path, _)| path.as_str());
        for directory in directories.chain([""]) {
            let is_in = |path: &&String| above(path).unwrap_or("") == directory;
            let wanted: Vec<_> = self.paths.keys().filter(is_in).map(|path| name(path).to_str().unwrap()).collect();
            let ino = if directory.is_empty() { ROOT } else { self.ino(directory).await };
            assert_eq!(self.house.names(ino).await, wanted, "in {directory:?}");
        }
        for (path, bytes) in self.paths.iter().filter_map(|(path, bytes)| Some((path, bytes.as_ref()?))) {
            assert_eq!(self.house.read_file(self.ino(path).await).await, bytes[..], "{path}");
        }
    }

    /// So does the bucket, once all is sent.
    async fn check_bucket(&self) {
        assert!(self.house.fs.sync(None).await.is_empty(), "something cannot be sent");
        assert_eq!(kept_conflicts(&self.house), Vec::<Vec<u8>>::new(), "a conflict without another client");
        let keys = self.house.bucket.keys();
        for (path, bytes) in &self.paths {
            match bytes {
                Some(bytes) => assert_eq!(self.house.bucket.bytes(path).unwrap(), bytes[..], "{path}"),
                None => assert!(keys.iter().any(|key| key.starts_with(&format!("{path}/"))), "{path} in {keys:?}"),
            }
        }
        for key in &keys {
            assert!(self.is_there(key.trim_end_matches('/')), "{key} is in the bucket");
        }
    }
}

async fn died(player: Player) -> Player {
    player.house.fs.stop_removals().await;
    let Player { house, write_back, paths, acts } = player;
    let (bucket, state) = crash(house, None).await;
    Player { house: mounted(bucket, state, write_back).await, write_back, paths, acts }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]
    #[test]
    fn directories_stay_until_they_are_removed(
        write_back in prop::bool::weighted(0.8),
        acts in prop::collection::vec(any_act(), 1..30),
    ) {
        RUNTIME.block_on(async {
            let (bucket, state) = (Arc::new(MemoryBucket::new()), tempfile::tempdir().unwrap());
            let house = mounted(bucket, state, write_back).await;
            let mut player = Player { house, write_back, paths: BTreeMap::new(), acts: 0 };
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
