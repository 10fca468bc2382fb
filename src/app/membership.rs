//! Which buckets a mount of several had when it was there last. Its state is named by the place where it
//! is mounted, so that buckets can come and go; what waits for one must never go to another.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::Failure;
use crate::bucket::{Layout, Root};
use crate::error::Kind;
use crate::journal::{Intent, Journal};

const FILE_NAME: &str = "buckets.json";

/// Compares with the last time and remembers what there is now. Where a name stands for something else,
/// what was known of its objects is forgotten.
///
/// # Errors
/// When work waits for a bucket that is not there any more, or must not be written to any more, or the file
/// cannot be read or written.
pub(super) fn check(state: &Path, layout: &Layout, journal: &Journal, index: &Path) -> Result<(), Failure> {
    if !layout.is_united() {
        return Ok(());
    }
    for root in layout.roots().iter().filter(|root| root.read_only) {
        let (changes, name) = (changes(journal, &root.at)?, root.at.trim_end_matches('/'));
        if changes > 0 {
            let told = format!("{changes} changes wait for the directory {name}, which is to be read only");
            return Err(Failure::new(Kind::Usage, told)
                .hint("mount it once without read-only, and change it when `s3mount sync` is done"));
        }
    }
    let path = state.join(FILE_NAME);
    let before = read(&path).map_err(|cause| local("read", &path, &cause))?;
    let now: BTreeMap<String, String> = layout.roots().iter().map(|root| (root.at.clone(), place(root))).collect();
    if before == now {
        return Ok(());
    }
    let gone = || before.iter().filter(|(name, place)| now.get(*name) != Some(place));
    for (name, place) in gone() {
        let waiting = waiting(journal, name)?;
        if waiting > 0 {
            let name = name.trim_end_matches('/');
            let told = format!("{waiting} changes and events wait for the directory {name}, which was {place}");
            return Err(Failure::new(Kind::Usage, told).hint(
                "name that bucket once more, mount, and change it when `s3mount sync` and `s3mount hooks wait` are done",
            ));
        }
    }
    if gone().next().is_some() {
        // An object of the same name and bytes may be there, with other attributes.
        let _ = fs::remove_file(index);
    }
    write(state, &path, &now).map_err(|cause| local("write", &path, &cause))
}

fn place(root: &Root) -> String {
    format!("s3://{}/{} at {}", root.bucket, root.prefix, root.server)
}

fn read(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// The old one or the new one, whatever happens meanwhile.
fn write(state: &Path, path: &Path, now: &BTreeMap<String, String>) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(state)?;
    file.write_all(&serde_json::to_vec(now)?)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(state)?.sync_all()
}

/// What is still to be written under keys that begin so.
fn changes(journal: &Journal, at: &str) -> Result<usize, Failure> {
    let is_there = |key: &String| key.starts_with(at);
    let intents = journal.open_intents()?.into_iter().filter(|(_, intent)| keys_of(intent).into_iter().any(is_there));
    let notes = journal.open_notes()?.into_iter().filter(|(_, note)| is_there(note.key()));
    Ok(intents.count() + notes.count())
}

/// How much the journal holds about keys that begin so.
fn waiting(journal: &Journal, at: &str) -> Result<usize, Failure> {
    let is_there = |key: &String| key.starts_with(at);
    let events = journal.events(usize::MAX)?.into_iter().filter(|event| is_there(&event.fact.key));
    let mut tasks = 0;
    for hook in journal.hooks_with_tasks()? {
        tasks += journal.tasks_of(&hook, usize::MAX, |fact| is_there(&fact.key))?.len();
    }
    Ok(changes(journal, at)? + events.count() + tasks)
}

fn keys_of(intent: &Intent) -> Vec<&String> {
    match intent {
        Intent::Put { key, .. } | Intent::Deferred { key, .. } | Intent::Upload { key, .. } => vec![key],
        Intent::Rename { from, to, .. } | Intent::RenameTree { from, to, .. } => vec![from, to],
        // It stands for notes, which are counted by themselves.
        Intent::Removed { .. } => Vec::new(),
    }
}

fn local(what: &str, path: &Path, cause: &io::Error) -> Failure {
    Failure::new(Kind::Local, format!("cannot {what} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Note;

    fn layout(buckets: &[(&str, &str)]) -> Layout {
        let root = |(name, bucket): &(&str, &str)| {
            let (at, bucket) = (format!("{name}/"), (*bucket).to_owned());
            Root { at, bucket, server: "http://h".into(), ..Root::default() }
        };
        Layout::of_several(buckets.iter().map(root).collect())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_waits_for_a_bucket_never_goes_to_another() {
        let state = tempfile::tempdir().unwrap();
        let index = state.path().join("index");
        fs::write(&index, "known").unwrap();
        let journal = Journal::open(state.path()).unwrap();
        let check = |buckets: &[(&str, &str)]| check(state.path(), &layout(buckets), &journal, &index);
        check(&[("a", "one"), ("b", "two")]).unwrap();
        let intent = Intent::Put { key: "a/x".into(), op_id: "o".into(), multipart: false };
        let id = journal.intend(intent).await.unwrap();
        let note = Note::Keep { key: "b/d/".into(), metadata: crate::bucket::Metadata::new() };
        let number = journal.note(&note).unwrap();

        let fixed = |name: &str| {
            let root = |root: &Root| Root { read_only: root.at == name, ..root.clone() };
            let roots = layout(&[("a", "one"), ("b", "two")]).roots().iter().map(root).collect();
            super::check(state.path(), &Layout::of_several(roots), &journal, &index)
        };
        for name in ["a", "b"] {
            let told = fixed(&format!("{name}/")).unwrap_err().message;
            assert!(told.contains(&format!("1 changes wait for the directory {name}, which is to be read")), "{told}");
        }
        fixed("").unwrap();

        // One more is no matter, nor is one less that nothing waits for.
        check(&[("a", "one"), ("b", "two"), ("c", "three")]).unwrap();
        assert!(index.exists());
        check(&[("a", "one"), ("b", "two")]).unwrap();
        for other in [&[("b", "two")][..], &[("a", "other"), ("b", "two")]] {
            let failure = check(other).unwrap_err();
            assert!(failure.message.contains("1 changes") && failure.message.contains("s3://one/"), "{failure}");
        }
        assert!(check(&[("a", "one")]).unwrap_err().message.contains("s3://two/"));
        journal.settle(&[id], Vec::new()).await.unwrap();
        journal.close_notes(&[number]).unwrap();
        assert!(!index.exists(), "c was there with what was known of it");
        fs::write(&index, "known").unwrap();
        check(&[("a", "other")]).unwrap();
        assert!(!index.exists(), "what was known is of another bucket");
    }
}
