//! `hooks.toml` → checked hooks. Every default and every limit of a hook is written here, once.

mod limits;

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::delivery::Delivery;
use super::destinations::Destination;
use super::mode::Mode;
use super::rules::{EventPattern, Globs};
use super::{Error, Result, cycles, mode, serverless, target, units, yaml};
use limits::{concurrency, delivery, memory, timeout};

/// Largest `.wasm` or `.wat` file: compiling takes time and memory by its size.
pub const MAX_MODULE_BYTES: u64 = 64 << 20;
const MEMORY_DEFAULT_BYTES: u64 = 128 << 20;
/// What a 32-bit module can address.
const MEMORY_MAX_BYTES: u64 = 4 << 30;
const MEMORY_MIN_BYTES: u64 = 64 << 10;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_mins(15);
const CONCURRENCY_DEFAULT: usize = 2;
/// Somebody waits for each of them.
const CONCURRENCY_SYNC_DEFAULT: usize = 8;
const CONCURRENCY_MAX: u16 = 64;
/// As in Lambda.
const RETRIES_DEFAULT: u16 = 2;
const RETRIES_MAX: u16 = 1000;
const FIRST_DELAY_DEFAULT: Duration = Duration::from_secs(1);
const LONGEST_DELAY_DEFAULT: Duration = Duration::from_mins(5);
const DELAY_MAX: Duration = Duration::from_hours(24);
/// Longer than any event should wait, and far from where times end.
const MAX_AGE_MAX: Duration = Duration::from_hours(24 * 365);
const STORAGE_DEFAULT_BYTES: u64 = 512 << 20;
const MAX_INPUT_DEFAULT_BYTES: u64 = 5 << 30;
/// As in Lambda: names and values together.
const ENV_MAX_BYTES: usize = 4096;
const NAME_MAX_LENGTH: usize = 64;
const SETTINGS_MAX_BYTES: u64 = 1 << 20;

/// One hook, as its settings say, checked.
#[derive(Clone, Debug)]
pub struct HookSpec {
    /// Letters, digits, `-` and `_`; unique in the file.
    pub name: String,
    /// The module, `.wasm` or `.wat`; of no file with a target.
    pub wasm: PathBuf,
    /// Who is handed the events, in place of a module that is run: a queue, a webhook or a function.
    pub target: Option<Destination>,
    /// None: nothing that happens to an object fires it.
    pub events: Vec<EventPattern>,
    pub mode: Mode,
    /// Any of these must match the path in the mount; every path when there is none.
    pub matches: Globs,
    /// None of these may match.
    pub exclude: Globs,
    /// The path must begin and end with these.
    pub prefix: String,
    pub suffix: String,
    /// Directory below the mount's root that `/out` is published to, empty or ending in `/`;
    /// `None` = the directory that names are relative to, so that results lie beside their source.
    pub output: Option<String>,
    pub env: BTreeMap<String, String>,
    /// What a typed hook can ask for by name.
    pub config: BTreeMap<String, String>,
    /// Paths of objects that a typed hook may read beside its event's own.
    pub read: Globs,
    /// Directories that a typed hook may write below, each empty (everything) or ending in `/`.
    pub write: Vec<String>,
    pub memory_bytes: u64,
    pub timeout: Duration,
    /// How many events at a time.
    pub concurrency: usize,
    pub delivery: Delivery,
    /// Who is told of its events that went well, and of those that were given up.
    pub on_success: Option<Destination>,
    pub on_failure: Option<Destination>,
    /// Its output may fire it again, also through others.
    pub allow_recursion: bool,
    /// It answers plain HTTP, where the Lambda API listens.
    pub url: bool,
    /// What `/tmp` and `/out` may hold together.
    pub storage_bytes: u64,
    /// A larger object is not fetched; its task is given up.
    pub max_input_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    hook: Vec<Spanned<RawHook>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawHook {
    pub(super) name: Spanned<String>,
    pub(super) wasm: Option<Spanned<PathBuf>>,
    pub(super) target: Option<Spanned<String>>,
    pub(super) events: Option<Vec<Spanned<String>>>,
    pub(super) mode: Option<Spanned<String>>,
    pub(super) kind: Option<Spanned<String>>,
    pub(super) view: Option<Spanned<String>>,
    pub(super) on_error: Option<Spanned<String>>,
    #[serde(default, rename = "match")]
    matches: Vec<Spanned<String>>,
    #[serde(default)]
    exclude: Vec<Spanned<String>>,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    suffix: String,
    pub(super) output: Option<Spanned<String>>,
    pub(super) env: Option<Spanned<BTreeMap<String, String>>>,
    #[serde(default)]
    config: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) read: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) write: Vec<Spanned<String>>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    concurrency: Option<Spanned<u16>>,
    pub(super) retries: Option<Spanned<u16>>,
    pub(super) retry_delay: Option<Spanned<String>>,
    pub(super) retry_max_delay: Option<Spanned<String>>,
    pub(super) max_age: Option<Spanned<String>>,
    pub(super) storage: Option<Spanned<String>>,
    pub(super) max_input: Option<Spanned<String>>,
    pub(super) on_success: Option<Spanned<String>>,
    pub(super) on_failure: Option<Spanned<String>>,
    #[serde(default)]
    allow_recursion: bool,
    pub(super) url: Option<Spanned<bool>>,
}

impl RawHook {
    /// Where a hook of the settings is named as a destination.
    fn called(&self) -> Vec<(String, Range<usize>)> {
        let named = [&self.on_success, &self.on_failure].into_iter().flatten();
        let of_hook = |said: &Spanned<String>| Some((said.get_ref().strip_prefix("hook:")?.to_owned(), said.span()));
        named.filter_map(of_hook).collect()
    }
}

/// Reads hooks from a TOML file with `[[hook]]` entries, or from a `serverless.yml`. Paths of modules
/// are relative to it.
///
/// # Errors
/// [`Error`] with the file, the line and the hook: unknown settings, values out of their limits,
/// modules that are missing, too large or no WebAssembly, hooks that fire each other in a ring.
pub fn load(path: &Path) -> Result<Vec<HookSpec>> {
    read(&Given { path, text: &read_text(path)?, modules: None, bucket: None })
}

/// The same for the mount of a bucket: events of another bucket are errors.
///
/// # Errors
/// As [`load`].
pub fn load_for(path: &Path, bucket: &str) -> Result<Vec<HookSpec>> {
    read(&Given { path, text: &read_text(path)?, modules: None, bucket: Some(bucket) })
}

/// A settings file that was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    /// Where the modules lie as `NAME.wasm`, if not where the settings say.
    pub(super) modules: Option<&'a Path>,
    /// The bucket that is mounted.
    pub(super) bucket: Option<&'a str>,
}

pub(super) fn read(given: &Given) -> Result<Vec<HookSpec>> {
    let Given { path, text, modules, bucket } = *given;
    if serverless::is_meant(path) {
        let translated = serverless::translate(text, bucket).map_err(|(hook, problem)| {
            let yaml::Problem { line, text: problem } = problem;
            Error::Settings { path: path.to_owned(), line, hook, problem }
        })?;
        // In Lambda no function has a place of its own for output: that it fires itself is found at run
        // time, by the lineage.
        return Ok(Reader { path, text: &translated.toml, modules, lines: Some(&translated.lines) }.hooks()?.0);
    }
    let reader = Reader { path, text, modules, lines: None };
    let (specs, places) = reader.hooks()?;
    let Some(ring) = cycles::find(&specs) else { return Ok(specs) };
    let names: Vec<&str> = ring.iter().map(|&index| specs[index].name.as_str()).collect();
    Err(reader.wrong(names[0], &places[ring[0]], recursion(&specs[ring[0]], &names[1..])))
}

/// Without a look at what hooks do to each other.
#[cfg(test)]
pub(super) fn parse(path: &Path) -> Result<Vec<HookSpec>> {
    let text = read_text(path)?;
    Ok(Reader { path, text: &text, modules: None, lines: None }.hooks()?.0)
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    read_limited(path, SETTINGS_MAX_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other))
        .map_err(|cause| Error::File { path: path.to_owned(), cause })
}

/// What is wrong with a hook that fires itself, through these others if there are any.
fn recursion(hook: &HookSpec, others: &[&str]) -> String {
    let place = hook.output.as_deref().map_or("beside its source".into(), |output| format!("to \"{output}\""));
    let ring = match others {
        [] => "its own rule takes it".to_owned(),
        others => format!("it fires \"{}\", and that this hook again", others.join("\", that \"")),
    };
    format!("its output goes {place}, where {ring}; choose another output or match, exclude, or allow-recursion = true")
}

/// The text being read, to say where in it something is wrong.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    modules: Option<&'a Path>,
    /// For each line of the text that of the file, where it is a translation.
    lines: Option<&'a [usize]>,
}

impl Reader<'_> {
    fn wrong(&self, hook: &str, at: &Range<usize>, problem: String) -> Error {
        let before = self.text.get(..at.start).unwrap_or_default();
        let line = before.bytes().filter(|&byte| byte == b'\n').count();
        let line = self.lines.map_or(line + 1, |lines| lines.get(line).copied().unwrap_or(1));
        Error::Settings { path: self.path.to_owned(), line, hook: hook.to_owned(), problem }
    }

    /// The hooks, and where their names stand.
    fn hooks(&self) -> Result<(Vec<HookSpec>, Vec<Range<usize>>)> {
        let file: RawFile = toml::from_str(self.text)
            .map_err(|error| self.wrong("", &error.span().unwrap_or_default(), error.message().to_owned()))?;
        let (mut specs, mut places): (Vec<HookSpec>, _) = (Vec::new(), Vec::new());
        let mut calls: Vec<(String, String, Range<usize>)> = Vec::new();
        for raw in file.hook {
            let place = raw.get_ref().name.span();
            let own_name = raw.get_ref().name.get_ref().clone();
            calls.extend(raw.get_ref().called().into_iter().map(|(called, at)| (own_name.clone(), called, at)));
            let spec = self.hook(raw.into_inner())?;
            if specs.iter().any(|other| other.name == spec.name) {
                return Err(self.wrong(&spec.name, &place, "another hook has this name already".into()));
            }
            check_module(&spec)?;
            specs.push(spec);
            places.push(place);
        }
        let is_there = |name: &String| specs.iter().any(|spec| spec.name == *name);
        if let Some((hook, called, at)) =
            calls.into_iter().find(|(hook, called, _)| !is_there(called) || hook == called)
        {
            let problem = if hook == called { "it can't be its own destination" } else { "no hook has this name" };
            return Err(self.wrong(&hook, &at, format!("hook:{called}: {problem}")));
        }
        Ok((specs, places))
    }

    fn hook(&self, raw: RawHook) -> Result<HookSpec> {
        let name = raw.name.get_ref().clone();
        let wrong = |(at, problem): (Range<usize>, String)| self.wrong(&name, &at, problem);
        check_name(&name).map_err(|problem| wrong((raw.name.span(), problem)))?;
        let memory_bytes = value(raw.memory.as_ref(), memory).map_err(wrong)?;
        let timeout = value(raw.timeout.as_ref(), timeout).map_err(wrong)?;
        let target = target::read(&raw).map_err(wrong)?;
        let mode = mode::read(&raw).map_err(wrong)?;
        let delivery = delivery(&raw).map_err(wrong)?;
        let concurrency = value(raw.concurrency.as_ref(), |&number: &u16| concurrency(number)).map_err(wrong)?;
        let storage_bytes = value(raw.storage.as_ref(), units::bytes).map_err(wrong)?;
        let max_input_bytes = value(raw.max_input.as_ref(), units::bytes).map_err(wrong)?;
        let default_concurrency = if mode.takes_events() { CONCURRENCY_DEFAULT } else { CONCURRENCY_SYNC_DEFAULT };
        Ok(HookSpec {
            wasm: raw.wasm.as_ref().map_or_else(PathBuf::new, |said| self.module(&name, said.get_ref())),
            target,
            events: events(raw.events.as_deref()).map_err(wrong)?,
            mode,
            matches: globs(&raw.matches).map_err(wrong)?,
            exclude: globs(&raw.exclude).map_err(wrong)?,
            prefix: raw.prefix.trim_start_matches('/').to_owned(),
            suffix: raw.suffix,
            output: value(raw.output.as_ref(), output).map_err(wrong)?.flatten(),
            env: value(raw.env.as_ref(), env).map_err(wrong)?.unwrap_or_default(),
            config: raw.config,
            read: readable(&raw.read).map_err(wrong)?,
            write: writable(&raw.write).map_err(wrong)?,
            memory_bytes: memory_bytes.unwrap_or(MEMORY_DEFAULT_BYTES),
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
            concurrency: concurrency.unwrap_or(default_concurrency),
            delivery,
            on_success: value(raw.on_success.as_ref(), Destination::parse).map_err(wrong)?,
            on_failure: value(raw.on_failure.as_ref(), Destination::parse).map_err(wrong)?,
            allow_recursion: raw.allow_recursion,
            url: raw.url.is_some_and(Spanned::into_inner),
            storage_bytes: storage_bytes.unwrap_or(STORAGE_DEFAULT_BYTES),
            max_input_bytes: max_input_bytes.unwrap_or(MAX_INPUT_DEFAULT_BYTES),
            name,
        })
    }

    fn module(&self, hook: &str, said: &Path) -> PathBuf {
        match self.modules {
            Some(directory) => directory.join(format!("{hook}.wasm")),
            None => self.path.parent().unwrap_or(Path::new(".")).join(said),
        }
    }
}

/// A problem and where it stands.
pub(super) type Located<T> = std::result::Result<T, (Range<usize>, String)>;
type Checked<T> = std::result::Result<T, String>;

pub(super) fn value<T: Borrow<B>, B: ?Sized, U>(
    raw: Option<&Spanned<T>>,
    check: impl Fn(&B) -> Checked<U>,
) -> Located<Option<U>> {
    raw.map(|raw| check(raw.get_ref().borrow()).map_err(|problem| (raw.span(), problem))).transpose()
}

/// Whether a hook may have this name.
#[must_use]
pub fn is_hook_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=NAME_MAX_LENGTH).contains(&name.len()) && name.chars().all(plain)
}

fn check_name(name: &str) -> Checked<()> {
    if !is_hook_name(name) {
        return Err(format!("a name has 1 to {NAME_MAX_LENGTH} letters, digits, - and _"));
    }
    Ok(())
}

fn events(raw: Option<&[Spanned<String>]>) -> Located<Vec<EventPattern>> {
    let Some(raw) = raw else { return Ok(vec![EventPattern::AnyCreated]) };
    raw.iter().map(|text| EventPattern::parse(text.get_ref()).map_err(|problem| (text.span(), problem))).collect()
}

fn globs(raw: &[Spanned<String>]) -> Located<Globs> {
    let mut globs = Globs::default();
    for text in raw {
        globs.add(text.get_ref()).map_err(|problem| (text.span(), problem))?;
    }
    Ok(globs)
}

/// A directory means all that is below it.
fn readable(raw: &[Spanned<String>]) -> Located<Globs> {
    let mut globs = Globs::default();
    for text in raw {
        let pattern =
            if text.get_ref().ends_with('/') { format!("{}**", text.get_ref()) } else { text.get_ref().clone() };
        globs.add(&pattern).map_err(|problem| (text.span(), problem))?;
    }
    Ok(globs)
}

fn writable(raw: &[Spanned<String>]) -> Located<Vec<String>> {
    let one = |text: &Spanned<String>| output(text.get_ref()).map_err(|problem| (text.span(), problem));
    raw.iter().map(|text| Ok(one(text)?.unwrap_or_default())).collect()
}

/// Empty means beside the source.
fn output(text: &str) -> Checked<Option<String>> {
    let trimmed = text.trim_matches('/');
    if trimmed.is_empty() {
        return Ok(None);
    }
    match trimmed.split('/').find_map(crate::key::oddity) {
        Some(oddity) => Err(format!("\"{text}\" can't be a directory ({oddity:?})")),
        None => Ok(Some(format!("{trimmed}/"))),
    }
}

fn env(raw: &BTreeMap<String, String>) -> Checked<BTreeMap<String, String>> {
    for (name, value) in raw {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("{name:?} can't be an environment variable"));
        }
        if name.starts_with("AWS_LAMBDA_") || name.starts_with("S3MOUNT_") {
            return Err(format!("{name} is set by s3mount itself"));
        }
    }
    if raw.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > ENV_MAX_BYTES {
        return Err(format!("more than {ENV_MAX_BYTES} bytes of environment"));
    }
    Ok(raw.clone())
}

/// A look at the first bytes: what can be told without compiling.
fn check_module(spec: &HookSpec) -> Result<()> {
    let wrong = |problem: String| Error::Module { hook: spec.name.clone(), path: spec.wasm.clone(), problem };
    let bytes = spec.module().map_err(|error| wrong(error.to_string()))?;
    match bytes.get(..8) {
        Some(b"\0asm\x01\0\0\0" | [b'\0', b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        _ if std::str::from_utf8(&bytes).is_ok_and(is_text) => Ok(()),
        _ => Err(wrong("is no WebAssembly, neither binary nor text".into())),
    }
}

fn is_text(text: &str) -> bool {
    text.contains("(module") || text.contains("(component")
}

impl HookSpec {
    /// The bytes of its module; with a target, of one that does nothing.
    pub(super) fn module(&self) -> std::io::Result<Vec<u8>> {
        if self.target.is_some() { Ok(target::NO_PROGRAM.to_vec()) } else { read_module(&self.wasm) }
    }
}

/// The bytes of a module, up to [`MAX_MODULE_BYTES`].
fn read_module(path: &Path) -> std::io::Result<Vec<u8>> {
    read_limited(path, MAX_MODULE_BYTES)
}

fn read_limited(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
