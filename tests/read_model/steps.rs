//! What can happen, and how often.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::select;

use super::house::Damage;

/// Files that take part; a directory of theirs may be missing.
pub const PATHS: [&str; 6] = ["a", "b", "d/a", "d/b", "e/a", "f/a"];
/// Directories that take part. The first two are there from the beginning.
pub const DIRECTORIES: [&str; 3] = ["d", "e", "f"];
/// Modes that files get.
const MODES: [u32; 4] = [0o600, 0o640, 0o755, 0o444];
/// Fewer bytes may be those of another version: that has the same tag, and within one second nothing
/// tells one from the other.
const TELLTALE_BYTES: usize = 16;
/// How many files are open at once, at most.
pub const SLOTS: usize = 4;

pub type Path = &'static str;

/// One case: a mount and what happens to it.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each says by itself what kind of mount is played")]
pub struct Case {
    /// What S3 said is believed for a while, instead of never.
    pub believing: bool,
    /// LIST tells whose objects are whose.
    pub telling: bool,
    /// A disk cache so small that it must evict.
    pub small_disk: bool,
    /// Closes answer for the local disk; S3 is told when it matters to somebody else.
    pub write_back: bool,
    pub steps: Vec<Step>,
}

/// A step a line: what proptest shows of a failure.
impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { believing, telling, small_disk, write_back, steps } = self;
        writeln!(f, "believing: {believing}, telling: {telling}, small_disk: {small_disk}, write_back: {write_back}")?;
        steps.iter().try_for_each(|step| writeln!(f, "    {step:?}"))
    }
}

/// One step. Slots name open files: a step on an empty one does nothing.
#[derive(Clone, Debug)]
pub enum Step {
    // Programs on this mount.
    Open {
        slot: usize,
        path: Path,
        write: bool,
    },
    /// `open(O_CREAT)`.
    Create {
        slot: usize,
        path: Path,
    },
    Read {
        slot: usize,
        offset: u64,
        bytes: u32,
    },
    Write {
        slot: usize,
        offset: u64,
        bytes: usize,
    },
    Fsync {
        slot: usize,
    },
    /// One of several descriptors is closed: a flush that is not the last.
    Flush {
        slot: usize,
    },
    /// `fstat(2)`.
    Stat {
        slot: usize,
    },
    Close {
        slot: usize,
    },
    /// Open, read all, close.
    Load {
        path: Path,
    },
    /// Create or empty, write all, close.
    Save {
        path: Path,
        bytes: usize,
    },
    Truncate {
        path: Path,
        bytes: usize,
    },
    Chmod {
        path: Path,
        mode: u32,
    },
    Rename {
        from: Path,
        to: Path,
    },
    Remove {
        path: Path,
    },
    MoveDirectory {
        from: Path,
        to: Path,
    },
    /// fsync of a directory: what was removed is gone from the bucket, else it may still wait.
    Settle,
    /// The kernel lets go of every inode that is not open.
    Forget,
    // Other clients of the bucket.
    PutByOthers {
        path: Path,
        bytes: usize,
    },
    DeleteByOthers {
        path: Path,
    },
    // What happens to the machine.
    /// Killed and mounted again, with or without the local cache directory.
    Reboot {
        keep_cache: bool,
    },
    /// To some file of the disk cache at some place; the numbers wrap around.
    Damage {
        damage: Damage,
        file: usize,
        at: usize,
    },
    RemoveCacheDirectory,
    ClearDisk,
    /// Something else said that this key changed.
    ForgetKey {
        path: Path,
    },
    /// Longer than anything is believed.
    Wait,
    /// Every name, size and byte.
    CompareAll,
}

impl Step {
    /// Whether somebody looks at the bucket, or changes it.
    pub fn is_by_others(&self) -> bool {
        matches!(self, Self::PutByOthers { .. } | Self::DeleteByOthers { .. } | Self::CompareAll)
    }
}

/// Sizes on both sides of what matters: empty, a page, a block on disk (128 KiB), a block of the
/// bucket (1 MiB).
fn any_size() -> impl Strategy<Value = usize> {
    prop_oneof![1 => Just(0_usize), 4 => 1..6_000_usize, 4 => 120_000..400_000_usize, 1 => 1_000_000..1_300_000_usize]
}

fn any_offset() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0_u64), 3 => 0..6_000_u64, 3 => 0..420_000_u64, 1 => 0..1_400_000_u64]
}

fn by_programs() -> impl Strategy<Value = Step> {
    let (slot, path) = (|| 0..SLOTS, || select(&PATHS[..]));
    let directory = || select(&DIRECTORIES[..]);
    prop_oneof![
        6 => (slot(), path(), any::<bool>()).prop_map(|(slot, path, write)| Step::Open { slot, path, write }),
        2 => (slot(), path()).prop_map(|(slot, path)| Step::Create { slot, path }),
        9 => (slot(), any_offset(), 1..300_000_u32).prop_map(|(slot, offset, bytes)| Step::Read { slot, offset, bytes }),
        5 => (slot(), any_offset(), 1..20_000_usize)
            .prop_map(|(slot, offset, bytes)| Step::Write { slot, offset, bytes }),
        1 => slot().prop_map(|slot| Step::Fsync { slot }),
        1 => slot().prop_map(|slot| Step::Flush { slot }),
        2 => slot().prop_map(|slot| Step::Stat { slot }),
        4 => slot().prop_map(|slot| Step::Close { slot }),
        5 => path().prop_map(|path| Step::Load { path }),
        3 => (path(), any_size()).prop_map(|(path, bytes)| Step::Save { path, bytes }),
        2 => (path(), any_size()).prop_map(|(path, bytes)| Step::Truncate { path, bytes }),
        2 => (path(), select(&MODES[..])).prop_map(|(path, mode)| Step::Chmod { path, mode }),
        2 => (path(), path()).prop_map(|(from, to)| Step::Rename { from, to }),
        2 => path().prop_map(|path| Step::Remove { path }),
        1 => Just(Step::Settle),
        1 => (directory(), directory()).prop_map(|(from, to)| Step::MoveDirectory { from, to }),
        1 => Just(Step::Forget),
    ]
}

fn by_others() -> impl Strategy<Value = Step> {
    let path = || select(&PATHS[..]);
    prop_oneof![
        8 => (path(), any_size()).prop_map(|(path, size)| Step::PutByOthers { path, bytes: size.max(TELLTALE_BYTES) }),
        2 => path().prop_map(|path| Step::DeleteByOthers { path }),
        2 => prop::bool::weighted(0.8).prop_map(|keep_cache| Step::Reboot { keep_cache }),
        5 => (select(&[Damage::Flip, Damage::Cut][..]), 0..100_usize, 0..10_000_000_usize)
            .prop_map(|(damage, file, at)| Step::Damage { damage, file, at }),
        1 => Just(Step::RemoveCacheDirectory),
        1 => Just(Step::ClearDisk),
        2 => path().prop_map(|path| Step::ForgetKey { path }),
        1 => Just(Step::Wait),
        1 => Just(Step::CompareAll),
    ]
}

/// A case of so many steps on average; shrinking leaves out what is not needed.
pub fn any_case(steps: usize, write_back: bool) -> impl Strategy<Value = Case> {
    let any_step = prop_oneof![2 => by_programs(), 1 => by_others()];
    (any::<[bool; 3]>(), prop::collection::vec(any_step, 1..2 * steps)).prop_map(
        move |([believing, telling, small_disk], steps)| Case { believing, telling, small_disk, write_back, steps },
    )
}
