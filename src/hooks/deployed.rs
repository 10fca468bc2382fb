//! What was deployed onto a running mount, kept for its next start.
//!
//! `current.json` says what counts, and is replaced in one step; beside it lies the directory that it
//! names, a copy of the settings and modules as they were deployed: who deploys may throw away what it
//! was made from. **What was said last counts**: a deployment holds until the mount is started with other
//! `--hooks`, or with a file that was changed since.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::settings::{self, Given, read_text};
use super::{Error, HookSpec, Result, modules};

const CURRENT: &str = "current.json";

/// The deployments of one mount.
#[derive(Clone, Debug)]
pub struct Deployed {
    /// Holds [`CURRENT`] and copies.
    directory: PathBuf,
    /// What is mounted: settings that name another bucket are refused.
    bucket: String,
    /// What `--hooks` names.
    file: Option<PathBuf>,
}

/// Settings and modules that were copied, and count for nothing yet.
#[derive(Clone, Debug)]
pub struct Copied {
    name: String,
    settings: String,
    from: PathBuf,
}

/// What counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    /// Directory and settings file in it; `None`: the mount's own file.
    copy: Option<(String, String)>,
    /// Where the copy was made from, for people.
    from: Option<String>,
    /// Hooks that were taken away since.
    removed: BTreeSet<String>,
    /// What `--hooks` named then, and the SHA-256 of what stood there.
    over: Option<(String, String)>,
}

impl Deployed {
    /// What is mounted, as settings would name it.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Those of the mount with this state directory.
    #[must_use]
    pub fn new(state_dir: &Path, bucket: &str, file: Option<&Path>) -> Self {
        let directory = state_dir.join("hooks").join("deployed");
        Self { directory, bucket: bucket.to_owned(), file: file.map(Path::to_owned) }
    }

    /// The mount's own file, which `--hooks` names.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The hooks of a mount that starts, where those of `--hooks` have been read already.
    ///
    /// # Errors
    /// When what was deployed can't be read (any more).
    pub fn at_start(&self, own: Option<Vec<HookSpec>>) -> Result<Option<Vec<HookSpec>>> {
        let Some(current) = self.current()? else { return Ok(own) };
        if self.file.is_some() && self.over()? != current.over {
            tracing::warn!("--hooks has changed since hooks were deployed or removed here: it counts now");
            self.forget()?;
            return Ok(own);
        }
        let specs = match &current.copy {
            Some((copy, settings)) => Some(self.read_copy(copy, settings)?),
            None => own,
        };
        tracing::info!(from = ?current.from, removed = ?current.removed, "hooks are as they were deployed");
        Ok(specs.map(|specs| specs.into_iter().filter(|spec| !current.removed.contains(&spec.name)).collect()))
    }

    /// Copies settings and modules, and reads the copy.
    ///
    /// # Errors
    /// When the settings are wrong, or the copy can't be made. Nothing of it is left then.
    pub fn copy(&self, from: &Path) -> Result<(Copied, Vec<HookSpec>)> {
        let text = read_text(from)?;
        let given = Given { path: from, text: &text, modules: None, bucket: Some(&self.bucket) };
        let specs = settings::read(&given)?;
        modules::private_directory(&self.directory)?;
        let name = uuid::Uuid::now_v7().to_string();
        let settings = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copied = Copied { name, settings, from: from.to_owned() };
        let read = self.fill(&copied, &text, &specs).and_then(|()| self.read_copy(&copied.name, &copied.settings));
        if read.is_err() {
            self.drop_copy(&copied);
        }
        Ok((copied, read?))
    }

    /// Forgets a copy that shall not count after all.
    pub fn drop_copy(&self, copied: &Copied) {
        let _ = fs::remove_dir_all(self.directory.join(&copied.name));
    }

    /// From now on the copy counts, also for the next start.
    ///
    /// # Errors
    /// When it could not be written; what counted before does.
    pub fn keep(&self, copied: &Copied) -> Result<()> {
        let Copied { name, settings, from } = copied;
        let copy = Some((name.clone(), settings.clone()));
        let from = Some(from.to_string_lossy().into_owned());
        let current = Current { copy, from, removed: BTreeSet::new(), over: self.over()? };
        self.write(&current)?;
        self.clear(Some(name));
        Ok(())
    }

    /// From now on one hook less counts, also for the next start.
    ///
    /// # Errors
    /// When it could not be written; what counted before does.
    pub fn remove(&self, hook: &str) -> Result<()> {
        modules::private_directory(&self.directory)?;
        let mut current = self.current()?.unwrap_or_default();
        if current.copy.is_none() {
            current.over = self.over()?;
        }
        current.removed.insert(hook.to_owned());
        self.write(&current)
    }

    /// From now on the mount's own file counts.
    ///
    /// # Errors
    /// When that could not be written.
    pub fn forget(&self) -> Result<()> {
        let path = self.directory.join(CURRENT);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(not_written(&path, &cause)),
            _ => {}
        }
        self.clear(None);
        Ok(())
    }

    fn current(&self) -> Result<Option<Current>> {
        let path = self.directory.join(CURRENT);
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|cause| Error::File { path, cause: cause.into() })
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error::File { path, cause }),
        }
    }

    /// What `--hooks` names, and what stands there now.
    fn over(&self) -> Result<Option<(String, String)>> {
        let Some(file) = &self.file else { return Ok(None) };
        let bytes = fs::read(file).map_err(|cause| Error::File { path: file.clone(), cause })?;
        Ok(Some((file.to_string_lossy().into_owned(), hex::encode(Sha256::digest(&bytes)))))
    }

    fn read_copy(&self, copy: &str, settings: &str) -> Result<Vec<HookSpec>> {
        let modules = self.directory.join(copy);
        let path = modules.join(settings);
        let text = read_text(&path)?;
        // The bucket was looked at when it was copied, and is part of the state directory's name.
        settings::read(&Given { path: &path, text: &text, modules: Some(&modules), bucket: None })
    }

    fn fill(&self, copied: &Copied, text: &str, specs: &[HookSpec]) -> Result<()> {
        let copy = self.directory.join(&copied.name);
        modules::private_directory(&copy)?;
        write_synced(&copy.join(&copied.settings), text.as_bytes())?;
        for spec in specs.iter().filter(|spec| spec.target.is_none()) {
            let module = spec.module().map_err(|cause| Error::File { path: spec.wasm.clone(), cause })?;
            write_synced(&copy.join(format!("{}.wasm", spec.name)), &module)?;
        }
        Ok(())
    }

    /// Written beside its place and moved there: a crash finds the one or the other.
    fn write(&self, current: &Current) -> Result<()> {
        let (path, new) = (self.directory.join(CURRENT), self.directory.join("current.new"));
        write_synced(&new, &serde_json::to_vec(current).expect("texts are JSON"))?;
        let moved = fs::rename(&new, &path).and_then(|()| File::open(&self.directory)?.sync_all());
        moved.map_err(|cause| not_written(&path, &cause))
    }

    /// Removes all copies but one. What can't be removed now is removed the next time.
    fn clear(&self, kept: Option<&str>) {
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() && kept.is_none_or(|kept| entry.file_name() != kept) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|cause| not_written(path, &cause))
}

fn not_written(path: &Path, cause: &io::Error) -> Error {
    Error::Start { what: path.display().to_string(), cause: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Desk(tempfile::TempDir);

    impl Desk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Writes a settings file with hooks of these names.
        fn file(&self, file: &str, names: &[&str]) -> PathBuf {
            fs::write(self.0.path().join("m.wat"), "(module)").unwrap();
            let hook = |name| format!("[[hook]]\nname = \"{name}\"\nwasm = \"m.wat\"\nmatch = [\"x\"]\n");
            let path = self.0.path().join(file);
            fs::write(&path, names.iter().map(hook).collect::<String>()).unwrap();
            path
        }

        fn mount(&self, file: Option<&Path>) -> Deployed {
            Deployed::new(self.0.path(), "bucket", file)
        }
    }

    /// The names of the hooks that a mount starts with.
    fn names(mount: &Deployed) -> Vec<String> {
        let own = mount.file().map(|file| settings::load(file).unwrap());
        mount.at_start(own).unwrap().unwrap_or_default().into_iter().map(|spec| spec.name).collect()
    }

    fn deploy(mount: &Deployed, file: &Path) {
        let (copied, _) = mount.copy(file).unwrap();
        mount.keep(&copied).unwrap();
    }

    fn copies(mount: &Deployed) -> usize {
        fs::read_dir(&mount.directory)
            .map_or(0, |entries| entries.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count())
    }

    #[test]
    fn what_was_said_last_counts() {
        let desk = Desk::new();
        let (own, other) = (desk.file("own.toml", &["own"]), desk.file("other.toml", &["a", "b"]));
        let mount = desk.mount(Some(&own));
        assert_eq!(names(&mount), ["own"]);
        deploy(&mount, &other);
        assert_eq!(names(&mount), ["a", "b"], "the deployment came after the file");
        assert_eq!(names(&desk.mount(None)), ["a", "b"], "a start without --hooks says nothing");
        mount.remove("a").unwrap();
        assert_eq!(names(&mount), ["b"]);
        desk.file("own.toml", &["own", "more"]);
        assert_eq!(names(&mount), ["own", "more"], "the file was changed after it");
        assert_eq!(copies(&mount), 0);
        deploy(&mount, &other);
        assert_eq!(names(&desk.mount(Some(&desk.file("third.toml", &["third"])))), ["third"], "another file is named");
        mount.remove("own").unwrap();
        assert_eq!(names(&mount), ["more"]);
        mount.forget().unwrap();
        assert_eq!(names(&mount), ["own", "more"]);
    }

    #[test]
    fn a_copy_needs_nothing_of_what_it_was_made_from() {
        let desk = Desk::new();
        let mount = desk.mount(None);
        let file = desk.file("hooks.toml", &["a"]);
        deploy(&mount, &file);
        deploy(&mount, &desk.file("hooks.toml", &["b"]));
        assert_eq!(copies(&mount), 1, "the one before is gone");
        fs::remove_file(file).unwrap();
        fs::remove_file(desk.0.path().join("m.wat")).unwrap();
        assert_eq!(names(&mount), ["b"]);
        let spec = mount.at_start(None).unwrap().unwrap().remove(0);
        assert_eq!(fs::read(spec.wasm).unwrap(), b"(module)");
    }

    #[test]
    fn what_is_wrong_leaves_no_copy() {
        let desk = Desk::new();
        let mount = desk.mount(None);
        deploy(&mount, &desk.file("hooks.toml", &["a"]));
        let twice = desk.file("twice.toml", &["b", "b"]);
        assert!(mount.copy(&twice).unwrap_err().to_string().contains("twice.toml:6: hook \"b\""));
        assert!(mount.copy(&desk.0.path().join("none.toml")).is_err());
        assert_eq!((names(&mount), copies(&mount)), (vec!["a".to_owned()], 1));
    }
}
