//! One guest: its state, its limits, its run.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiView};

use super::pipes::Pipe;
use super::{Call, Ended, Program, Quota, Run};

/// What is kept of each output; the rest is counted and dropped.
const STDERR_BYTES: usize = 256 << 10;
const STDOUT_BYTES: usize = 64 << 10;
/// Files, directories and streams a guest may have open: descriptors are shared with the mount.
const MAX_OPEN: usize = 128;
/// Elements of a table, 8 bytes each; a large program has some ten thousand functions in it.
const MAX_TABLE_ELEMENTS: usize = 1 << 20;
const MAX_TABLES: usize = 8;
/// How often the guest's files are counted while it runs.
const QUOTA_INTERVAL: Duration = Duration::from_millis(50);
/// Longest text about a trap that is kept.
const TRAP_TEXT_BYTES: usize = 4096;

/// The state of one instance.
pub(super) struct Guest {
    wasi: WasiP1Ctx,
    memory: Memory,
    quota: Quota,
    quota_checked: Instant,
    deadline: Instant,
}

/// Counts and limits a guest's memory.
struct Memory {
    limit_bytes: u64,
    peak_bytes: u64,
    refused: bool,
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
        if now.duration_since(self.quota_checked) >= QUOTA_INTERVAL {
            self.quota.check().map_err(Stop::Storage)?;
            self.quota_checked = Instant::now();
        }
        Ok(())
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, _now: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.limit_bytes {
            self.refused = true;
            return Ok(false);
        }
        self.peak_bytes = self.peak_bytes.max(desired as u64);
        Ok(true)
    }

    fn table_growing(&mut self, _now: usize, desired: usize, _max: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    /// The limiter is told the size of one memory, never of all together.
    fn memories(&self) -> usize {
        1
    }
}

/// Runs a program in a fresh store. To be called on a thread that may be held up.
pub(super) async fn run(program: &Program, call: Call, mut cancel: watch::Receiver<bool>) -> Run {
    let started = Instant::now();
    let (stdout, stderr) = (Pipe::new(STDOUT_BYTES), Pipe::new(STDERR_BYTES));
    let guest = match guest(&call, started, &stdout, &stderr) {
        Ok(guest) => guest,
        Err(error) => return Run::without_start(Ended::NotStarted(format!("{error:#}"))),
    };
    let mut store = Store::new(program.pre.module().engine(), guest);
    store.limiter(|guest| &mut guest.memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| {
        context.data_mut().tick().map_err(wasmtime::Error::from)?;
        // Yielding lets the timer and the cancellation below have their say.
        Ok(UpdateDeadline::Yield(1))
    });
    let mut ended = tokio::select! {
        biased;
        () = cancelled(&mut cancel) => Ended::Cancelled,
        ended = tokio::time::timeout(call.timeout, start(program, &mut store)) => ended.unwrap_or(Ended::TimedOut),
    };
    let guest = store.into_data();
    if let (Ended::Exit(0), Err(what)) = (&ended, guest.quota.check()) {
        ended = Ended::StorageExceeded(what);
    }
    Run {
        ended,
        duration: started.elapsed(),
        memory_peak_bytes: guest.memory.peak_bytes,
        memory_refused: guest.memory.refused,
        stdout: stdout.captured(),
        stderr: stderr.captured(),
    }
}

fn guest(call: &Call, now: Instant, stdout: &Pipe, stderr: &Pipe) -> wasmtime::Result<Guest> {
    let mut wasi = WasiCtxBuilder::new();
    // This thread may wait for files, and directories remember so when they are opened. After that
    // it must not be said any more: `poll_oneoff` would sleep where no timeout reaches it.
    wasi.allow_blocking_current_thread(true)
        .arg(&call.name)
        .envs(&call.env)
        .stdin(MemoryInputPipe::new(call.stdin.clone()))
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .preopened_dir(&call.input, "/in", FsPerms::ReadOnly)?
        .preopened_dir(&call.scratch, "/tmp", FsPerms::ReadWrite)?
        .preopened_dir(&call.output, "/out", FsPerms::ReadWrite)?
        .allow_blocking_current_thread(false);
    let mut wasi = wasi.build_p1();
    wasi.ctx().table.set_max_capacity(MAX_OPEN);
    Ok(Guest {
        wasi,
        memory: Memory { limit_bytes: call.memory_bytes, peak_bytes: 0, refused: false },
        quota: call.quota.clone(),
        quota_checked: now,
        deadline: now + call.timeout,
    })
}

/// Instantiating is inside of all limits too: a module may have a start section.
async fn start(program: &Program, store: &mut Store<Guest>) -> Ended {
    let instance = match program.pre.instantiate_async(&mut *store).await {
        Ok(instance) => instance,
        Err(error) if error.is::<Trap>() || error.is::<Stop>() || error.is::<I32Exit>() => return ended_by(&error),
        Err(error) => return Ended::NotStarted(cut(&format!("{error:#}"))),
    };
    let called = match instance.get_typed_func::<(), ()>(&mut *store, "_start") {
        Ok(start) => start.call_async(&mut *store, ()).await,
        Err(error) => return Ended::NotStarted(cut(&format!("{error:#}"))),
    };
    match called {
        Ok(()) => Ended::Exit(0),
        Err(error) => ended_by(&error),
    }
}

fn ended_by(error: &wasmtime::Error) -> Ended {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ended::Exit(exit.0);
    }
    match error.downcast_ref::<Stop>() {
        Some(Stop::Deadline) => Ended::TimedOut,
        Some(Stop::Storage(what)) => Ended::StorageExceeded(what.clone()),
        None => Ended::Trapped(cut(&format!("{error:?}"))),
    }
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
