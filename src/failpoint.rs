//! Named moments at which a crash is worth trying: each stands for a window between two steps that
//! have to fit together, and one sentence says what a crash there leaves behind.
//!
//! `S3MOUNT_CRASH_AT=rename-copied` kills the process when it gets there, `rename-copied:3` at the
//! third time; `tests/mount/kills.rs` does so at every point. Builds for use (without
//! `debug_assertions`) do not read the variable: nobody's environment may stop a mount.
//!
//! Not the `fail` crate: it takes a lock and looks up a string at each point, has no action that ends
//! a process as `kill -9` does, and its names are spread over the code, so that nothing could hold
//! that each is tried.

#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Names the point to die at, and the how manieth time: `NAME[:N]`.
pub const VARIABLE: &str = "S3MOUNT_CRASH_AT";

/// The table: what a crash at the point leaves behind, the point, its name.
macro_rules! failpoints {
    ($(#[doc = $window:literal] $point:ident = $name:literal,)+) => {
        /// A moment at which the process may die.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Failpoint {
            $(#[doc = $window] $point,)+
        }

        impl Failpoint {
            /// Every point, in the order of this table.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// The name that [`VARIABLE`] takes.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }

            /// The sentence that says what a crash here leaves behind.
            #[must_use]
            pub const fn window(self) -> &'static str {
                match self {
                    $(Self::$point => $window,)+
                }
            }
        }
    };
}

failpoints! {
    /// Changes wait for their commit, and none of them is on the disk.
    JournalBeforeCommit = "journal-before-commit",
    /// Changes are on the disk, and nobody who waits for them was told.
    JournalAfterCommit = "journal-after-commit",

    /// The journal knows of a PUT of which nothing was sent.
    PutIntended = "put-intended",
    /// A PUT is ready to be sent, and the key has its old version.
    PutBefore = "put-before",
    /// S3 has the new version, and neither journal nor writer know it.
    PutAfter = "put-after",
    /// A version is stored and settled in the journal, and its close is not answered.
    PutSettled = "put-settled",
    /// The journal knows of an append of which nothing was sent.
    AppendNoted = "append-noted",
    /// S3 has what was appended, the attributes of the time before, and nothing here knows.
    AppendDone = "append-done",
    /// New attributes of a closed file are noted, and chmod is not answered.
    AttributesNoted = "attributes-noted",
    /// New attributes of a closed file or a directory are in S3, and nothing here knows.
    AttributesStored = "attributes-stored",

    /// A large file is about to go in parts, and S3 knows of no upload.
    UploadBefore = "upload-before",
    /// S3 knows an upload that the journal does not know yet.
    UploadCreated = "upload-created",
    /// The journal knows an upload of which no part was told to be there yet.
    UploadNoted = "upload-noted",
    /// A part of an upload has arrived, and others have not.
    UploadBetweenParts = "upload-between-parts",
    /// All parts have arrived, and the key has its old version.
    UploadBeforeComplete = "upload-before-complete",
    /// The upload is completed, and the journal takes it for one under way.
    UploadCompleted = "upload-completed",

    /// A removal is noted, and unlink or rmdir is not answered.
    RemoveIntended = "remove-intended",
    /// Objects are deleted in S3, and nothing here knows it.
    RemoveDeleted = "remove-deleted",
    /// Objects are deleted and hooks told of it, and the notes of their removal still stand.
    RemoveTold = "remove-told",
    /// A directory got the marker that keeps it, and what was to leave it is still there.
    MarkerKept = "marker-kept",
    /// The removal of a directory's marker is noted, and rmdir is not answered.
    RmdirNoted = "rmdir-noted",

    /// The journal knows of a file's rename of which nothing was sent.
    RenameIntended = "rename-intended",
    /// A file lies under both names: copied, and not deleted.
    RenameCopied = "rename-copied",
    /// A file is copied and the removal of its old name noted, and its rename is not answered.
    RenameNoted = "rename-noted",
    /// A draft is stored under its new name, and its old version lies under the old one.
    RenameDirtyStored = "rename-dirty-stored",

    /// The journal knows of a directory's rename of which nothing was sent.
    TreeIntended = "tree-intended",
    /// Some keys of a directory are copied, and others are not.
    TreeBetweenCopies = "tree-between-copies",
    /// Some files of a directory have their new names alone, others their old ones.
    TreeBetweenRenames = "tree-between-renames",
    /// A directory lies under both names as a whole, or has its new one where its files are renamed; no event tells of it.
    TreeCopied = "tree-copied",
    /// A directory lies under both names as a whole, and its events are in the journal.
    TreeTold = "tree-told",
    /// Some of the old keys of a directory are deleted, and others are not.
    TreeBetweenDeletes = "tree-between-deletes",
    /// A directory has its new name only, and the journal takes its rename for one under way.
    TreeDeleted = "tree-deleted",
    /// A directory has its new name only, and the rename is not answered.
    TreeSettled = "tree-settled",

    /// A draft is on the local disk, and no record answers for it.
    DeferSynced = "defer-synced",
    /// The record of a deferred close is on the disk in place of the one before, and the close is not answered.
    DeferIntended = "defer-intended",

    /// A start has found a PUT that was under way, and asked nothing yet.
    RecoverPut = "recover-put",
    /// A start knows how a PUT has ended, and its record is still there.
    RecoverPutSettle = "recover-put-settle",
    /// A start has found removals that were noted, and asked nothing yet.
    RecoverRemove = "recover-remove",
    /// A start has done what was noted, and looked at nothing else.
    RecoverRemoveSettle = "recover-remove-settle",
    /// A start has found attributes that were noted, and sent nothing yet.
    RecoverAttributes = "recover-attributes",
    /// A start has sent attributes that were noted, and their note is still there.
    RecoverAttributesSettle = "recover-attributes-settle",
    /// A start has found an append that was under way, and asked nothing yet.
    RecoverAppend = "recover-append",
    /// A start has sent the attributes that an append left to follow, and their note is still there.
    RecoverAppendSettle = "recover-append-settle",
    /// A start has found a file's rename that was under way, and done nothing about it yet.
    RecoverRename = "recover-rename",
    /// A start has finished a file's rename or left it, and its record is still there.
    RecoverRenameSettle = "recover-rename-settle",
    /// A start has found a directory's rename that was under way, and done nothing about it yet.
    RecoverTree = "recover-tree",
    /// A start has finished a directory's rename, and its record is still there.
    RecoverTreeSettle = "recover-tree-settle",
    /// A start has found a draft whose close was acknowledged, and sent nothing of it yet.
    RecoverDeferred = "recover-deferred",
    /// A start has stored a draft whose close was acknowledged, and its record is still there.
    RecoverDeferredSettle = "recover-deferred-settle",
    /// A start has found an upload that was under way, and not aborted it yet.
    RecoverUpload = "recover-upload",
    /// A start has aborted an upload, and its record is still there.
    RecoverUploadSettle = "recover-upload-settle",
    /// A start is done with all records, and drafts without one still lie there.
    RecoverBeforeClear = "recover-before-clear",

    /// A hook has run, and nothing of its output is stored.
    HookBeforePublish = "hook-before-publish",
    /// Some files of a hook's output are stored, and others are not.
    HookBetweenFiles = "hook-between-files",
    /// The output of a hook is stored, and its task is still in the journal.
    HookPublished = "hook-published",
}

/// [`VARIABLE`] names no point.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}={0} is no point to crash at")]
pub struct Unknown(String);

impl Unknown {
    /// What to write instead: all names.
    #[must_use]
    pub fn hint(&self) -> String {
        let names: Vec<&str> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        format!("NAME or NAME:TIMES, with one of {}", names.join(", "))
    }
}

/// Index in [`Failpoint::ALL`] of the point to die at.
#[cfg(debug_assertions)]
static ARMED: AtomicUsize = AtomicUsize::new(usize::MAX);
/// How often it is to be reached until then.
#[cfg(debug_assertions)]
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Reads [`VARIABLE`]; before anything that has a point in it.
///
/// # Errors
/// [`Unknown`], which lists the names there are.
#[cfg(debug_assertions)]
pub fn arm() -> Result<(), Unknown> {
    let Some(wanted) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let wanted = wanted.to_string_lossy();
    let (point, times) = parse(&wanted).ok_or_else(|| Unknown(wanted.escape_debug().to_string()))?;
    LEFT.store(times, Ordering::Relaxed);
    ARMED.store(point as usize, Ordering::Relaxed);
    Ok(())
}

/// Nothing: see the top of the file.
///
/// # Errors
/// None.
#[cfg(not(debug_assertions))]
pub const fn arm() -> Result<(), Unknown> {
    Ok(())
}

#[cfg(debug_assertions)]
fn parse(wanted: &str) -> Option<(Failpoint, u32)> {
    let (name, times) = wanted.split_once(':').unwrap_or((wanted, "1"));
    let point = Failpoint::ALL.iter().copied().find(|point| point.name() == name)?;
    let times = times.parse().ok().filter(|times| *times > 0)?;
    Some((point, times))
}

/// Here the process may be made to die.
#[cfg(debug_assertions)]
pub fn reach(point: Failpoint) {
    if ARMED.load(Ordering::Relaxed) == point as usize && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        die();
    }
}

/// Nothing: see the top of the file.
#[cfg(not(debug_assertions))]
pub const fn reach(_: Failpoint) {}

/// As `kill -9` from outside: no destructor, no handler, no buffer runs.
#[cfg(debug_assertions)]
fn die() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    // The signal ends all threads at their next step; this one must not take it.
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("src/failpoint.rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_point_has_one_name_and_one_sentence_and_is_reached() {
        let mut files = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
        let texts: Vec<String> = files.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        let (mut names, mut sentences) = (BTreeSet::new(), BTreeSet::new());
        for point in Failpoint::ALL {
            assert!(names.insert(point.name()), "{point:?} has the name of another");
            let window = point.window().trim();
            assert!(sentences.insert(window) && window.ends_with('.') && window.len() > 20, "{point:?}: {window}");
            let words: Vec<String> = names_as_words(&format!("{point:?}"));
            assert_eq!(words.join("-"), point.name(), "the name of {point:?} is not its own");
            let call = format!("Failpoint::{point:?}");
            let reached = texts.iter().any(|text| {
                let after = |at: usize| text[at + call.len()..].chars().next();
                text.match_indices(&call).any(|(at, _)| !after(at).is_some_and(char::is_alphanumeric))
            });
            assert!(reached, "{point:?} is reached nowhere");
        }
        assert!(names.len() >= 20);
    }

    fn names_as_words(variant: &str) -> Vec<String> {
        let starts: Vec<usize> = variant.match_indices(char::is_uppercase).map(|(at, _)| at).collect();
        let ends = starts.iter().skip(1).copied().chain([variant.len()]);
        starts.iter().zip(ends).map(|(start, end)| variant[*start..end].to_lowercase()).collect()
    }

    #[test]
    #[cfg(debug_assertions)]
    fn the_variable_names_a_point_and_a_time() {
        assert_eq!(parse("rename-copied"), Some((Failpoint::RenameCopied, 1)));
        assert_eq!(parse("tree-between-copies:7"), Some((Failpoint::TreeBetweenCopies, 7)));
        for wrong in ["", "rename", "rename-copied:0", "rename-copied:x", "rename-copied:"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        let hint = Unknown("x".into()).hint();
        assert!(Failpoint::ALL.iter().all(|point| hint.contains(point.name())));
    }
}
