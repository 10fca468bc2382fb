//! One guest: its state, its limits, its run.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wasmtime::{InstancePre, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};

use super::pipes::Pipe;
use super::world::{self, HookPre};
use super::{Call, Ended, Program, Quota, Run, Typed};

/// What is kept of each output; the rest is counted and dropped.
const STDERR_BYTES: usize = 256 << 10;
const STDOUT_BYTES: usize = 64 << 10;
/// Files, directories and streams a guest may have open: descriptors are shared with the mount.
const MAX_OPEN: usize = 128;
/// Elements of a table, 8 bytes each; a large program has some ten thousand functions in it.
pub(super) const MAX_TABLE_ELEMENTS: usize = 1 << 20;
pub(super) const MAX_TABLES: u32 = 8;
/// Of core instances and memories a component has several: its own, adapters, what it is composed of.
pub(super) const MAX_INSTANCES: u32 = 64;
pub(super) const MAX_MEMORIES: u32 = 8;
/// What a guest can have the host make up at once.
const MAX_RANDOM_BYTES: u64 = 1 << 20;
/// What a component can hand to the host in one call; larger than what [`super::world`] takes of an object.
const MAX_CALL_BYTES: usize = 32 << 20;
/// How often the guest's files are counted while it runs; less often where that takes long.
const QUOTA_INTERVAL: Duration = Duration::from_millis(50);
const QUOTA_SHARE: u32 = 4;
/// Longest text about a trap that is kept.
const TRAP_TEXT_BYTES: usize = 4096;

/// The state of one instance.
pub(in crate::hooks) struct Guest {
    wasi: WasiP1Ctx,
    pub(super) stderr: Pipe,
    pub(super) typed: Option<Typed>,
    limits: Limits,
    quota: Quota,
    quota_due: Instant,
    deadline: Instant,
}

/// Counts and limits a guest's memories, all together, and its tables.
struct Limits {
    memory_bytes: u64,
    used_bytes: u64,
    /// What the last growth asked for: it may still fail.
    growing_bytes: u64,
    peak_bytes: u64,
    memory_refused: bool,
    table_refused: bool,
}

/// Why the host stopped a guest at a tick.
#[derive(Debug)]
enum Stop {
    Deadline,
    Storage(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("timed out"),
            Self::Storage(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Stop {}

impl Guest {
    pub(super) fn wasi(&mut self) -> &mut WasiP1Ctx {
        &mut self.wasi
    }

    /// Called at every tick of the epoch, between two instructions of the guest.
    fn tick(&mut self) -> Result<(), Stop> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Stop::Deadline);
        }
        if now >= self.quota_due {
            self.quota.check().map_err(Stop::Storage)?;
            self.quota_due = Instant::now() + QUOTA_INTERVAL.max(now.elapsed() * QUOTA_SHARE);
        }
        Ok(())
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, now: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        self.growing_bytes = desired.saturating_sub(now) as u64;
        let all_bytes = self.used_bytes.saturating_add(self.growing_bytes);
        if all_bytes > self.memory_bytes {
            self.memory_refused = true;
            return Ok(false);
        }
        self.used_bytes = all_bytes;
        self.peak_bytes = self.peak_bytes.max(all_bytes);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used_bytes -= std::mem::take(&mut self.growing_bytes);
        Ok(())
    }

    fn table_growing(&mut self, _now: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        self.table_refused |= desired > MAX_TABLE_ELEMENTS;
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES as usize
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES as usize
    }
}

/// Runs a program in a fresh store. To be called on a thread that may be held up.
pub(super) async fn run(program: &Program, call: Call, mut cancel: watch::Receiver<bool>) -> Run {
    let (started, timeout) = (Instant::now(), call.timeout);
    let (stdout, stderr) = (Pipe::new(STDOUT_BYTES), Pipe::new(STDERR_BYTES));
    let guest = match guest(call, started, &stdout, &stderr) {
        Ok(guest) => guest,
        Err(error) => return Run::without_start(Ended::NotStarted(format!("{error:#}"))),
    };
    let mut store = Store::new(program.engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(MAX_CALL_BYTES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        context.data_mut().tick().map_err(wasmtime::Error::from)?;
        // Yielding lets the timer and the cancellation below have their say.
        Ok(UpdateDeadline::Yield(1))
    });
    let mut ended = tokio::select! {
        biased;
        () = cancelled(&mut cancel) => Ended::Cancelled,
        ended = tokio::time::timeout(timeout, start(program, &mut store, &stdout)) => ended.unwrap_or(Ended::TimedOut),
    };
    let guest = store.into_data();
    if let (Ended::Exit(0), Err(what)) = (&ended, guest.quota.check()) {
        ended = Ended::StorageExceeded(what);
    }
    Run {
        ended,
        duration: started.elapsed(),
        memory_peak_bytes: guest.limits.peak_bytes,
        memory_refused: guest.limits.memory_refused,
        table_refused: guest.limits.table_refused,
        stdout: stdout.captured(),
        stderr: stderr.captured(),
    }
}

fn guest(call: Call, now: Instant, stdout: &Pipe, stderr: &Pipe) -> wasmtime::Result<Guest> {
    let mut wasi = WasiCtxBuilder::new();
    // This thread may wait for files, and directories remember so when they are opened. After that
    // it must not be said any more: `poll_oneoff` would sleep where no timeout reaches it.
    wasi.allow_blocking_current_thread(true)
        .arg(&call.name)
        .envs(&call.env)
        .stdin(MemoryInputPipe::new(call.stdin))
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .max_random_size(MAX_RANDOM_BYTES);
    if let Some(directories) = &call.directories {
        wasi.preopened_dir(&directories.input, "/in", FsPerms::ReadOnly)?
            .preopened_dir(&directories.scratch, "/tmp", FsPerms::ReadWrite)?
            .preopened_dir(&directories.output, "/out", FsPerms::ReadWrite)?;
    }
    wasi.allow_blocking_current_thread(false);
    let mut wasi = wasi.build_p1();
    wasi.ctx().table.set_max_capacity(MAX_OPEN);
    let limits = Limits {
        memory_bytes: call.memory_bytes,
        used_bytes: 0,
        growing_bytes: 0,
        peak_bytes: 0,
        memory_refused: false,
        table_refused: false,
    };
    let (deadline, stderr) = (now + call.timeout, stderr.clone());
    Ok(Guest { wasi, stderr, typed: call.typed, limits, quota: call.quota, quota_due: now + QUOTA_INTERVAL, deadline })
}

/// Instantiating is inside of all limits too: a module may have a start section.
async fn start(program: &Program, store: &mut Store<Guest>, stdout: &Pipe) -> Ended {
    let ended = match program {
        Program::Core(pre) => start_core(pre, store).await,
        Program::Command(pre) => start_command(pre, store).await,
        Program::Typed(pre) => start_typed(pre, store, stdout).await,
    };
    ended.unwrap_or_else(|ended| ended)
}

async fn start_core(pre: &InstancePre<Guest>, store: &mut Store<Guest>) -> Result<Ended, Ended> {
    let instance = pre.instantiate_async(&mut *store).await.map_err(|error| not_started(&error))?;
    let start = instance.get_typed_func::<(), ()>(&mut *store, "_start").map_err(|error| not_started(&error))?;
    let called = start.call_async(store, ()).await;
    called.map(|()| Ended::Exit(0)).map_err(|error| ended_by(&error))
}

async fn start_command(pre: &CommandPre<Guest>, store: &mut Store<Guest>) -> Result<Ended, Ended> {
    let command = pre.instantiate_async(&mut *store).await.map_err(|error| not_started(&error))?;
    let called = command.wasi_cli_run().call_run(store).await.map_err(|error| ended_by(&error))?;
    Ok(Ended::Exit(i32::from(called.is_err())))
}

async fn start_typed(pre: &HookPre<Guest>, store: &mut Store<Guest>, stdout: &Pipe) -> Result<Ended, Ended> {
    let Some(event) = store.data().typed.as_ref().map(|typed| typed.event.clone()) else {
        return Err(Ended::NotStarted("it was given no event".into()));
    };
    let hook = pre.instantiate_async(&mut *store).await.map_err(|error| not_started(&error))?;
    let answer = hook.call_handle(&mut *store, &event).await.map_err(|error| ended_by(&error))?;
    Ok(Ended::Exit(world::told(answer, stdout, &store.data().stderr)))
}

fn not_started(error: &wasmtime::Error) -> Ended {
    if error.is::<Trap>() || error.is::<Stop>() || error.is::<I32Exit>() {
        return ended_by(error);
    }
    Ended::NotStarted(cut(&format!("{error:#}")))
}

fn ended_by(error: &wasmtime::Error) -> Ended {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ended::Exit(exit.0);
    }
    match error.downcast_ref::<Stop>() {
        Some(Stop::Deadline) => Ended::TimedOut,
        Some(Stop::Storage(what)) => Ended::StorageExceeded(what.clone()),
        None => Ended::Trapped(cut(of_guest(&format!("{error:?}")))),
    }
}

/// Without the host's own stack, which is told where `RUST_BACKTRACE` is set.
fn of_guest(text: &str) -> &str {
    text.split_once("\n\nStack backtrace:").map_or(text, |(text, _)| text)
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TRAP_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|&cancelled| cancelled).await.is_err() {
        // Nobody is left to cancel: then nobody does.
        std::future::pending::<()>().await;
    }
}
