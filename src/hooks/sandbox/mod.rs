//! The only room that knows wasmtime: runs a guest that may be hostile.
//!
//! A guest is one of three, told by its binary: a core module that is a command of WASI preview 1, a component
//! that is one of WASI 0.2, or a component of the typed world ([`world`]).
//!
//! What bounds it: time by a timer and epochs, memory and tables by a limiter, disk by [`Quota`], the two
//! output pipes by cutting, open files by the size of its table, its stack by wasmtime.
//! It reaches three directories and what it was granted, nothing else; it has no network.

mod guest;
mod pipes;
mod program;
mod quota;
mod threads;
mod ticker;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Linker, PoolingAllocationConfig, component};

use guest::Guest;
pub(super) use pipes::Captured;
pub(super) use program::Program;
pub(super) use quota::Quota;
use threads::Threads;
pub(super) use threads::blocking;
use ticker::Ticker;
pub(super) use world::{Event, Typed, since_1970_ms};

use crate::telemetry::spans;

/// Stack of a guest's own calls; wasmtime traps above it.
const STACK_BYTES: usize = 1 << 20;
/// The thread's part of the same stack: the calls into WASI need room beyond the guest's.
const FIBER_STACK_BYTES: usize = 2 << 20;

/// Memories, tables and instances in the pool: several for each guest that may run at a time.
const POOLED: u32 = 2048;
/// Of a memory this much is cleared by writing, the rest by giving it back to the kernel.
const KEPT_BYTES: usize = 64 << 10;
/// Without a pool: room for a memory to grow where it is.
const SPARE_BYTES: u64 = 1 << 20;

/// Compiles and runs guests.
pub(super) struct Sandbox {
    engine: Engine,
    /// For core modules, and for components.
    linker: Linker<Guest>,
    component_linker: component::Linker<Guest>,
    ticker: Ticker,
    threads: Threads,
}

/// One run: what goes in and what it may use.
pub(super) struct Call {
    /// `argv[0]`.
    pub(super) name: String,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: String,
    /// None for a program that [wants no files](Program::wants_files).
    pub(super) directories: Option<Directories>,
    pub(super) quota: Quota,
    pub(super) memory_bytes: u64,
    pub(super) timeout: Duration,
    /// For a [typed](Program::is_typed) program.
    pub(super) typed: Option<Typed>,
}

/// Host directories behind `/in` (read only), `/tmp` and `/out`.
pub(super) struct Directories {
    pub(super) input: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) output: PathBuf,
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// A typed hook's answer counts as the exit code of a command that says the same.
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
    /// The same of tables.
    pub(super) table_refused: bool,
    pub(super) stdout: Captured,
    pub(super) stderr: Captured,
}

impl Sandbox {
    pub(super) fn new() -> Result<Self, String> {
        let mut config = Config::new();
        config.epoch_interruption(true).max_wasm_stack(STACK_BYTES).async_stack_size(FIBER_STACK_BYTES);
        let engine = engine(&mut config).map_err(|error| format!("{error:#}"))?;
        let mut linker = Linker::new(&engine);
        let mut component_linker = component::Linker::new(&engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, Guest::wasi)
            // Sockets too: a standard library may ask for them without a use. None can be opened.
            .and_then(|()| wasmtime_wasi::p2::add_to_linker_async(&mut component_linker))
            .and_then(|()| world::add_to_linker(&mut component_linker))
            .map_err(|error| format!("{error:#}"))?;
        let ticker = Ticker::start(engine.weak()).map_err(|error| error.to_string())?;
        let threads = Threads::new().map_err(|error| error.to_string())?;
        Ok(Self { engine, linker, component_linker, ticker, threads })
    }

    /// Names everything a compiled module depends on besides its source: version, settings, CPU.
    pub(super) fn compatibility(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        hasher.finish()
    }

    /// Has a thread that may be held up do all of something around a run: each change of threads
    /// costs as much as a small guest.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let runtime = tokio::runtime::Handle::current();
        let work = spans::carried(work);
        self.threads.spawn(move || runtime.block_on(work))
    }

    /// Runs a program to its end, on a thread where a guest that never waits holds up nobody. Ends
    /// soon after `cancel` becomes true.
    pub(super) async fn run(&self, program: &Program, call: Call, cancel: watch::Receiver<bool>) -> Run {
        // With the guest, and not with this future: whoever drops the future leaves the guest to be
        // stopped by its epochs.
        let ticking = self.ticker.tick();
        if threads::is_ours() {
            return guest::run(program, call, cancel).await;
        }
        let program = program.clone();
        let run = self.spawn(async move {
            let _ticking = ticking;
            guest::run(&program, call, cancel).await
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

/// Instances come from a pool: mapping memory anew costs more than a small guest runs. The pool takes
/// some terabytes of addresses and no memory; where those are not to be had (`ulimit -v`), there is none.
fn engine(config: &mut Config) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_stacks(threads::MAX_THREADS)
        .total_component_instances(threads::MAX_THREADS)
        .total_core_instances(POOLED)
        .total_memories(POOLED)
        .total_tables(POOLED)
        .max_memories_per_module(guest::MAX_MEMORIES)
        .max_tables_per_module(guest::MAX_TABLES)
        .max_core_instances_per_component(guest::MAX_INSTANCES)
        .max_memories_per_component(guest::MAX_MEMORIES)
        .max_tables_per_component(guest::MAX_INSTANCES)
        .table_elements(guest::MAX_TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEPT_BYTES);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(config).or_else(|error| {
        tracing::warn!(%error, "hooks are slower: there are no addresses for a pool of instances");
        // Nor for the gigabytes that each memory would have around it.
        config.memory_reservation(0).memory_guard_size(0).memory_reservation_for_growth(SPARE_BYTES);
        Engine::new(config.allocation_strategy(InstanceAllocationStrategy::OnDemand))
    })
}

impl Run {
    fn without_start(ended: Ended) -> Self {
        Self {
            ended,
            duration: Duration::ZERO,
            memory_peak_bytes: 0,
            memory_refused: false,
            table_refused: false,
            stdout: Captured::default(),
            stderr: Captured::default(),
        }
    }
}
