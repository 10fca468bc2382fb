//! What is said of a hook's settings, and what its module wants.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::destinations::Destination;
use super::rules::EventPattern;
use super::sandbox::{Program, Sandbox};
use super::{Error, HookSpec, Hooks, Result, modules, settings};

/// A hook as it is set up. Defaults are filled in.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Description {
    pub name: String,
    pub wasm: PathBuf,
    /// `sqs:URL` and so on, in place of a module.
    pub target: Option<String>,
    /// Which of the three kinds of guest it is, in words.
    pub kind: String,
    /// `async`, `sync` or `transform`.
    pub mode: String,
    /// Of a transform: the directory that shows what it makes.
    pub view: Option<String>,
    /// Of a synchronous hook: `deny` or `allow`.
    pub on_error: Option<String>,
    /// `ObjectCreated:*` and so on.
    pub events: Vec<String>,
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    pub exclude: Vec<String>,
    pub prefix: String,
    pub suffix: String,
    /// `None`: beside the source.
    pub output: Option<String>,
    /// Names only: values may be secrets.
    pub env: Vec<String>,
    /// What a typed hook is granted: names of `config`, paths it may read and directories it may write.
    pub config: Vec<String>,
    pub read: Vec<String>,
    pub write: Vec<String>,
    pub memory_bytes: u64,
    pub timeout_ms: u64,
    pub concurrency: usize,
    pub storage_bytes: u64,
    pub max_input_bytes: u64,
    pub retries: u32,
    pub retry_delay_ms: u64,
    pub retry_max_delay_ms: u64,
    pub max_age_s: Option<u64>,
    pub allow_recursion: bool,
    /// Whether it answers plain HTTP.
    #[serde(default)]
    pub url: bool,
    /// `hook:NAME` and so on.
    pub on_success: Option<String>,
    pub on_failure: Option<String>,
    /// All that the module can call, `wasi_snapshot_preview1::fd_read` and so on, sorted.
    pub imports: Vec<String>,
}

/// Reads a settings file and compiles its modules, as a mount would; nothing is run.
///
/// # Errors
/// What a mount would say.
pub fn validate(file: &Path) -> Result<Vec<Description>> {
    let specs = settings::load(file)?;
    let scratch = scratch()?;
    let (_, programs) = compile(scratch.path(), &specs)?;
    Ok(specs.iter().zip(&programs).map(|(spec, program)| describe(spec, program)).collect())
}

/// A directory of this user's for as long as it is held.
pub(super) fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("s3mount-hooks-")
        .tempdir()
        .map_err(|error| Error::Start { what: "no temporary directory".into(), cause: error.to_string() })
}

/// A sandbox, and the programs of hooks in their order.
pub(super) fn compile(directory: &Path, specs: &[HookSpec]) -> Result<(Arc<Sandbox>, Vec<Program>)> {
    let failed = |cause| Error::Start { what: "WebAssembly does not run here".into(), cause };
    let sandbox = Arc::new(Sandbox::new().map_err(failed)?);
    let programs = modules::prepare(&sandbox, &directory.join("modules"), specs)?;
    Ok((sandbox, programs))
}

impl Hooks {
    /// How the hooks are set up, in the order of the settings.
    #[must_use]
    pub fn describe(&self) -> Vec<Description> {
        self.worker.hooks().iter().map(|hook| describe(&hook.spec, &hook.program)).collect()
    }
}

fn describe(spec: &HookSpec, program: &Program) -> Description {
    let delivery = &spec.delivery;
    Description {
        name: spec.name.clone(),
        wasm: spec.wasm.clone(),
        kind: if spec.target.is_some() { "hands its events over" } else { program.kind() }.to_owned(),
        target: spec.target.as_ref().map(Destination::to_string),
        mode: spec.mode.name().to_owned(),
        view: spec.mode.view().map(str::to_owned),
        on_error: spec.mode.on_error().map(|on_error| on_error.name().to_owned()),
        events: spec.events.iter().map(|event| EventPattern::name(*event).to_owned()).collect(),
        matches: spec.matches.patterns().to_vec(),
        exclude: spec.exclude.patterns().to_vec(),
        prefix: spec.prefix.clone(),
        suffix: spec.suffix.clone(),
        output: spec.output.clone(),
        env: spec.env.keys().cloned().collect(),
        config: spec.config.keys().cloned().collect(),
        read: spec.read.patterns().to_vec(),
        write: spec.write.clone(),
        memory_bytes: spec.memory_bytes,
        timeout_ms: spec.timeout.as_millis() as u64,
        concurrency: spec.concurrency,
        storage_bytes: spec.storage_bytes,
        max_input_bytes: spec.max_input_bytes,
        retries: delivery.retries,
        retry_delay_ms: delivery.first_delay.as_millis() as u64,
        retry_max_delay_ms: delivery.longest_delay.as_millis() as u64,
        allow_recursion: spec.allow_recursion,
        url: spec.url,
        on_success: spec.on_success.as_ref().map(Destination::to_string),
        on_failure: spec.on_failure.as_ref().map(Destination::to_string),
        max_age_s: delivery.max_age.map(|age| age.as_secs()),
        imports: program.imports(),
    }
}
