//! The only room that knows wasmtime: runs a command module (`_start`, WASI preview 1) that may be
//! hostile.
//!
//! What bounds it: time by a timer and epochs, memory by a limiter, disk by [`Quota`], the two
//! output pipes by cutting, open files by the size of its table, stack and tables by wasmtime.
//! It reaches three directories and nothing else; it has no network.

mod guest;
mod pipes;
mod quota;
mod ticker;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use wasmtime::{Config, Engine, ExternType, InstancePre, Linker, Module};

use guest::Guest;
pub(super) use pipes::Captured;
pub(super) use quota::Quota;
use ticker::Ticker;

/// Stack of a guest's own calls; wasmtime traps above it.
const STACK_BYTES: usize = 1 << 20;
/// The thread's part of the same stack: the calls into WASI need room beyond the guest's.
const FIBER_STACK_BYTES: usize = 2 << 20;

/// Compiles and runs guests.
pub(super) struct Sandbox {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Ticker,
}

/// A compiled module with its imports resolved, ready to be instantiated for each event.
#[derive(Clone)]
pub(super) struct Program {
    pre: InstancePre<Guest>,
}

/// One run: what goes in and what it may use.
pub(super) struct Call {
    /// `argv[0]`.
    pub(super) name: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: String,
    /// Host directories behind `/in` (read only), `/tmp` and `/out`.
    pub(super) input: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) output: PathBuf,
    pub(super) quota: Quota,
    pub(super) memory_bytes: u64,
    pub(super) timeout: Duration,
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Exit(i32),
    /// `unreachable`, out of bounds, stack exhausted and so on, with the cause.
    Trapped(String),
    TimedOut,
    /// More on disk than it may have.
    StorageExceeded(String),
    Cancelled,
    /// It could not be started.
    NotStarted(String),
}

/// What came out of a run.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) ended: Ended,
    pub(super) duration: Duration,
    pub(super) memory_peak_bytes: u64,
    /// It asked for more memory than it may have, and was told no.
    pub(super) memory_refused: bool,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

impl Sandbox {
    pub(super) fn new() -> Result<Self, String> {
        let mut config = Config::new();
        config.epoch_interruption(true).max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_STACK_BYTES);
        let engine = Engine::new(&config).map_err(|error| format!("{error:#}"))?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, Guest::wasi).map_err(|error| format!("{error:#}"))?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| error.to_string())?;
        Ok(Self { engine, linker, ticker })
    }

    /// Names everything a compiled module depends on besides its source: version, settings, CPU.
    pub(super) fn compatibility(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    /// Compiles a module, binary or text. Takes seconds for a large one.
    pub(super) fn compile(&self, module: &[u8]) -> Result<Vec<u8>, String> {
        self.engine.precompile_module(module).map_err(|error| format!("{error:#}"))
    }

    /// Takes a compiled module in and checks that it is a command that asks for WASI only.
    ///
    /// # Safety
    /// `compiled` must come from [`Self::compile`] of a sandbox with the same
    /// [`Self::compatibility`], unchanged: it is native code and will be run.
    pub(super) unsafe fn load(&self, compiled: &[u8]) -> Result<Program, String> {
        // SAFETY: the caller's promise, above.
        let module = unsafe { Module::deserialize(&self.engine, compiled) }.map_err(|error| format!("{error:#}"))?;
        match module.get_export("_start") {
            Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
            _ => return Err("is no command: it exports no function _start".into()),
        }
        let pre = self.linker.instantiate_pre(&module).map_err(|error| format!("{error:#}"))?;
        Ok(Program { pre })
    }

    /// Runs a program to its end, on a thread of its own, so that a guest which never waits holds
    /// up nobody. Ends soon after `cancel` becomes true.
    pub(super) async fn run(&self, program: &Program, call: Call, cancel: watch::Receiver<bool>) -> Run {
        // With the guest, and not with this future: whoever drops the future leaves the guest to be
        // stopped by its epochs.
        let ticking = self.ticker.tick();
        let program = program.clone();
        let runtime = tokio::runtime::Handle::current();
        let run = tokio::task::spawn_blocking(move || {
            let _ticking = ticking;
            runtime.block_on(guest::run(&program, call, cancel))
        });
        run.await.unwrap_or_else(|error| {
            let ended = if error.is_panic() {
                Ended::Trapped("the sandbox itself panicked; please report this".into())
            } else {
                Ended::Cancelled
            };
            Run::without_start(ended)
        })
    }
}

impl Program {
    /// All that the module can call, as `module::name`, sorted.
    pub(super) fn imports(&self) -> Vec<String> {
        let imports = self.pre.module().imports();
        let mut names: Vec<_> = imports.map(|import| format!("{}::{}", import.module(), import.name())).collect();
        names.sort();
        names
    }
}

impl Run {
    fn without_start(ended: Ended) -> Self {
        Self {
            ended,
            duration: Duration::ZERO,
            memory_peak_bytes: 0,
            memory_refused: false,
            stdout: Captured::default(),
            stderr: Captured::default(),
        }
    }
}
