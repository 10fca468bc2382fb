//! What programs asked a mount for, and what they were promised: kept here, outside of the process
//! that is killed, and compared with what the bucket holds after it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;

use super::sys;

/// At most so much of a write reaches the file system at once (`max_write` of FUSE).
const KERNEL_WRITE_BYTES: usize = 1 << 20;
const KERNEL_PAGE_BYTES: usize = 4096;
/// So many steps are told when one went wrong.
const HISTORY: usize = 24;
/// Stands between steps where the bucket was as it has to be.
const CHECKED: &str = "checked";

/// Keys and bytes of a bucket; a directory is its marker, `NAME/`.
pub type State = BTreeMap<String, Bytes>;

/// One thing a program does. Names are keys, without a `/` at the end.
#[derive(Clone, Debug)]
pub enum Step {
    /// Creates a file or writes it anew: open, write, close.
    Write(String, Bytes),
    /// Adds to the end of a file.
    Append(String, Bytes),
    /// Writes a file, syncs it, adds the rest and closes it.
    Sync(String, Bytes, Bytes),
    /// A shell's redirection, which two children inherit: `{ printf A; printf B; } > NAME`.
    Redirect(String, String, String),
    /// The same, with a child that writes so many zeros.
    RedirectZeros(String, usize),
    /// Creates a file and closes one of two descriptors; the other stays open.
    CloseOne(String),
    Chmod(String),
    Remove(String),
    /// Of a file.
    Rename(String, String),
    /// Adds to a file and renames it while it is open.
    RenameOpen(String, String, Bytes),
    RenameTree(String, String),
    MakeDir(String),
    RemoveDir(String),
}

/// Without the bytes: some are megabytes.
impl std::fmt::Display for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write(name, bytes) => write!(formatter, "write {name} ({} bytes)", bytes.len()),
            Self::Append(name, more) => write!(formatter, "append to {name} ({} bytes)", more.len()),
            Self::Sync(name, ..) => write!(formatter, "sync and close {name}"),
            Self::Redirect(name, ..) | Self::RedirectZeros(name, _) => write!(formatter, "redirect to {name}"),
            Self::CloseOne(name) => write!(formatter, "close one of two of {name}"),
            Self::Chmod(name) => write!(formatter, "chmod {name}"),
            Self::Remove(name) => write!(formatter, "remove {name}"),
            Self::Rename(from, to) => write!(formatter, "rename {from} to {to}"),
            Self::RenameOpen(from, to, _) => write!(formatter, "append to {from} and rename it to {to} open"),
            Self::RenameTree(from, to) => write!(formatter, "rename the tree {from} to {to}"),
            Self::MakeDir(name) => write!(formatter, "mkdir {name}"),
            Self::RemoveDir(name) => write!(formatter, "rmdir {name}"),
        }
    }
}

impl Step {
    /// What the bucket may show while the step is under way, from what it was before to what it has
    /// to be once the step is answered; and from which of these on once a call before the last one has
    /// promised something.
    fn moments(&self, before: &State) -> (Vec<State>, usize) {
        let with = |name: &str, bytes: &[u8]| with(before.clone(), name, bytes);
        // As far as the kernel had handed it over: any close of a copy of the descriptor stores that, and
        // each process that another thread starts makes such a copy and closes it with its exec.
        let written = |name: &str, first: &[u8], rest: &[u8]| {
            // Seen: what begins within a page may come in two pieces, the first up to the page's end.
            let to_page_end = (KERNEL_PAGE_BYTES - first.len() % KERNEL_PAGE_BYTES) % KERNEL_PAGE_BYTES;
            let from_page_end = (to_page_end..rest.len()).step_by(KERNEL_WRITE_BYTES);
            let ends: BTreeSet<usize> =
                (0..rest.len()).step_by(KERNEL_WRITE_BYTES).chain(from_page_end).chain([rest.len()]).collect();
            let ends = ends.into_iter();
            ends.map(|end| with(name, &[first, &rest[..end]].concat())).collect::<Vec<_>>()
        };
        let (mut moments, mut halfway) = (vec![before.clone()], 0);
        match self {
            Self::Write(name, bytes) => moments.extend(written(name, b"", bytes)),
            Self::Append(name, more) => moments.extend(written(name, &before[name], more)),
            Self::Sync(name, first, rest) => {
                moments.extend(written(name, b"", first));
                halfway = moments.len();
                moments.extend(written(name, first, rest));
            }
            Self::Redirect(name, first, second) => {
                let texts = [String::new(), first.clone(), format!("{first}{second}")];
                moments.extend(texts.iter().map(|text| with(name, text.as_bytes())));
            }
            Self::RedirectZeros(name, size) => moments.extend([with(name, b""), with(name, &vec![0; *size])]),
            Self::CloseOne(name) => moments.push(with(name, b"")),
            Self::Chmod(_) => {}
            Self::Remove(name) => {
                let kept = kept_directory(before, name);
                moments.push(kept.clone());
                moments.push(without(kept, name));
            }
            Self::Rename(from, to) => {
                let both = with(to, &before[from]);
                moments.extend([both.clone(), without(both, from)]);
            }
            Self::RenameOpen(from, to, more) => {
                let bytes: Bytes = [&before[from], more.as_ref()].concat().into();
                moments.extend(written(from, &before[from], more));
                let copied: Vec<State> = moments.iter().map(|state| self::with(state.clone(), to, &bytes)).collect();
                moments.extend(copied);
                moments.push(without(with(to, &bytes), from));
                halfway = moments.len() - 1;
            }
            Self::RenameTree(from, to) => moments.push(moved(before, from, to)),
            Self::MakeDir(name) => moments.push(with(&format!("{name}/"), b"")),
            Self::RemoveDir(name) => moments.push(without(before.clone(), &format!("{name}/"))),
        }
        (moments, halfway)
    }

    /// Does it below `dir`; `promised` is called when a call before the last one has promised something.
    fn play(&self, dir: &Path, promised: &mut dyn FnMut(), held: &mut Vec<File>) -> io::Result<()> {
        match self {
            Self::Write(name, bytes) => write_and_close(File::create(dir.join(name))?, bytes),
            Self::Append(name, more) => write_and_close(OpenOptions::new().append(true).open(dir.join(name))?, more),
            Self::Sync(name, first, rest) => {
                let mut file = File::create(dir.join(name))?;
                file.write_all(first)?;
                file.sync_all()?;
                promised();
                write_and_close(file, rest)
            }
            Self::Redirect(name, first, second) => shell(
                "{ /usr/bin/printf %s \"$2\"; /usr/bin/printf %s \"$3\"; } > \"$1\"",
                &dir.join(name),
                &[first, second],
            ),
            Self::RedirectZeros(name, size) => {
                shell("{ head -c \"$2\" /dev/zero; /usr/bin/true; } > \"$1\"", &dir.join(name), &[&size.to_string()])
            }
            Self::CloseOne(name) => {
                let file = File::create(dir.join(name))?;
                held.push(file.try_clone()?);
                sys::close(file)
            }
            Self::Chmod(name) => sys::chmod(&dir.join(name), 0o600),
            Self::Remove(name) => fs::remove_file(dir.join(name)),
            Self::Rename(from, to) | Self::RenameTree(from, to) => fs::rename(dir.join(from), dir.join(to)),
            Self::RenameOpen(from, to, more) => {
                let mut file = OpenOptions::new().append(true).open(dir.join(from))?;
                file.write_all(more)?;
                fs::rename(dir.join(from), dir.join(to))?;
                promised();
                sys::close(file)
            }
            Self::MakeDir(name) => fs::create_dir(dir.join(name)),
            Self::RemoveDir(name) => fs::remove_dir(dir.join(name)),
        }
    }
}

fn write_and_close(mut file: File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    sys::close(file)
}

fn shell(script: &str, path: &Path, words: &[&str]) -> io::Result<()> {
    let mut shell = Command::new("bash");
    shell.args(["-ec", script, "bash"]).arg(path).args(words);
    let ended = shell.stdin(Stdio::null()).stderr(Stdio::null()).status()?;
    if ended.success() { Ok(()) } else { Err(io::Error::other("the shell failed")) }
}

fn with(mut state: State, name: &str, bytes: &[u8]) -> State {
    state.insert(name.to_owned(), Bytes::copy_from_slice(bytes));
    state
}

fn without(mut state: State, name: &str) -> State {
    state.remove(name);
    state
}

/// A directory that is no more than the prefix of its last file gets a marker before that goes.
fn kept_directory(before: &State, leaving: &str) -> State {
    let mut state = before.clone();
    if let Some((parent, _)) = leaving.rsplit_once('/') {
        let parent = format!("{parent}/");
        if !before.keys().any(|key| key.starts_with(&parent) && key != leaving) {
            state.insert(parent, Bytes::new());
        }
    }
    state
}

fn moved(before: &State, from: &str, to: &str) -> State {
    let from = format!("{from}/");
    let place = |key: &String| key.strip_prefix(&from).map_or(key.clone(), |rest| format!("{to}/{rest}"));
    before.iter().map(|(key, bytes)| (place(key), bytes.clone())).collect()
}

/// What the bucket may hold now.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The first is what was promised last; the others are what is under way.
    moments: Vec<State>,
    /// Calls that were answered with success.
    pub acknowledged: usize,
    /// Descriptors that stay open.
    held: Vec<File>,
    /// The last steps and how they ended, for who has to find out what went wrong.
    history: VecDeque<String>,
}

impl Ledger {
    pub fn new(state: State) -> Self {
        Self { moments: vec![state], ..Self::default() }
    }

    /// The state that was promised last.
    pub fn promised(&self) -> &State {
        &self.moments[0]
    }

    /// Does a step in a mount.
    ///
    /// # Errors
    /// When the mount is dead; what may be found is kept.
    pub fn play(&mut self, dir: &Path, step: &Step) -> io::Result<()> {
        let (moments, halfway) = step.moments(&self.moments[0]);
        self.moments = moments;
        let mut reached = 0;
        let mut held = std::mem::take(&mut self.held);
        let played = step.play(dir, &mut || reached = halfway, &mut held);
        self.held = held;
        if played.is_ok() {
            reached = self.moments.len() - 1;
        }
        self.acknowledged += usize::from(reached > 0 || played.is_ok());
        self.moments.drain(..reached);
        self.note(format!("{step} {}", if played.is_ok() { "done" } else { "cut off" }));
        played
    }

    fn note(&mut self, line: String) {
        self.history.push_back(line);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    /// Descriptors of a dead mount are closed.
    pub fn let_go(&mut self) {
        self.held.clear();
    }

    /// Whether this may be what the bucket holds; if so it is what is promised from now on.
    pub fn settle(&mut self, found: &State) -> Result<(), String> {
        if self.moments.contains(found) {
            if self.history.back().is_some_and(|line| line != CHECKED) {
                self.note(CHECKED.to_owned());
            }
            self.moments = vec![found.clone()];
            return Ok(());
        }
        let told: Vec<String> = self.moments.iter().map(|moment| differences(moment, found)).collect();
        let history = self.history.make_contiguous().join("; ");
        Err(format!("{}\nafter: {history}", told.join("\n  or ")))
    }
}

/// What is not as it should be, in words.
pub fn differences(wanted: &State, found: &State) -> String {
    let begin = |bytes: &Bytes| format!("{} bytes {:?}", bytes.len(), &bytes[..bytes.len().min(24)]);
    let mut told = Vec::new();
    for (key, bytes) in wanted {
        match found.get(key) {
            None => told.push(format!("{key} is missing")),
            Some(other) if other != bytes => {
                told.push(format!("{key} has {} instead of {}", begin(other), begin(bytes)));
            }
            Some(_) => {}
        }
    }
    told.extend(found.keys().filter(|key| !wanted.contains_key(*key)).map(|key| format!("{key} is there")));
    told.join(", ")
}
