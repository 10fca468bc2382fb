//! What hooks cost by themselves, beside `scripts/bench hooks`: a journal, a bucket in memory, and guests.
//!
//! `hooks_rate DIRECTORY EVENTS MODULE.wasm…` prints one line of JSON: for a guest that does nothing and for each
//! module, microseconds an event when guests run one at a time (the journal's commit of one goes on beside the next),
//! and events settled in a second when as many run as there are places. In DIRECTORY the journal is kept: on a disk its fsync is part of
//! the figures, in memory it is not. Besides: milliseconds to load a module that is compiled already.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use s3mount::bucket::memory::MemoryBucket;
use s3mount::bucket::{Bucket, Layout, Metadata};
use s3mount::hooks::{self, HookSettings, Hooks};
use s3mount::journal::{EventName, Journal, NewEvent, stored_etag};
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

const USAGE: &str = "usage: hooks_rate DIRECTORY EVENTS MODULE.wasm…";
const NOTHING: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";
/// Hooks of one module whose loading is compared with that of a single one.
const LOADED: u32 = 50;
const DEADLINE: Duration = Duration::from_mins(5);

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A journal with a hooks file, in a directory of its own.
struct Rig {
    dir: tempfile::TempDir,
    journal: Arc<Journal>,
    bucket: Arc<MemoryBucket>,
}

impl Rig {
    fn new(parent: &Path) -> Outcome<Self> {
        let dir = tempfile::tempdir_in(parent)?;
        let journal = Journal::open(&dir.path().join("state"))?;
        Ok(Self { dir, journal, bucket: Arc::new(MemoryBucket::new()) })
    }

    /// Starts hooks of one module: `count` of them, of which the first fires.
    fn start(&self, module: &Path, count: u32, concurrency: u32) -> Outcome<Hooks> {
        let module = module.display();
        let hook = |number: u32| {
            let rule = if number == 0 { "in/*" } else { "elsewhere/*" };
            format!(
                "[[hook]]\nname = \"h{number}\"\nwasm = \"{module}\"\nmatch = [\"{rule}\"]\noutput = \"out\"\nconcurrency = {concurrency}\n"
            )
        };
        let file = self.dir.path().join("hooks.toml");
        fs::write(&file, (0..count).map(hook).collect::<String>())?;
        let settings = HookSettings::new(
            hooks::load(&file)?,
            Layout::of_bucket("bench", "us-east-1", ""),
            &self.dir.path().join("state"),
        );
        let bucket: Arc<dyn Bucket> = self.bucket.clone();
        Ok(hooks::start(settings, bucket, Arc::clone(&self.journal), &Handle::current())?)
    }

    /// Objects in the bucket, and what a close of each would have told.
    async fn fill(&self, events: u32) -> Outcome<()> {
        let fact = |number: u32| {
            let key = format!("in/{number}");
            let etag = self.bucket.insert(&key, "some bytes", Metadata::new());
            let (etag, time) = (Some(stored_etag(&etag)), SystemTime::now());
            NewEvent { size: 10, etag, time, ..NewEvent::now(EventName::CreatedPut, &key) }
        };
        self.journal.settle(&[], (0..events).map(fact).collect()).await?;
        Ok(())
    }
}

/// Seconds until a queue of this many events is settled.
async fn run(parent: &Path, module: &Path, events: u32, concurrency: u32) -> Outcome<f64> {
    let rig = Rig::new(parent)?;
    // Compiled and warm before the clock starts.
    let hooks = rig.start(module, 1, concurrency)?;
    rig.fill(8).await?;
    settled(&hooks, 8).await?;
    rig.fill(events).await?;
    let begun = Instant::now();
    settled(&hooks, events + 8).await?;
    let seconds = begun.elapsed().as_secs_f64();
    hooks.stop(DEADLINE).await;
    Ok(seconds)
}

async fn settled(hooks: &Hooks, events: u32) -> Outcome<()> {
    tokio::time::timeout(DEADLINE, hooks.idle()).await?;
    let status = hooks.status().hooks.remove(0);
    if (status.invocations, status.errors) != (u64::from(events), 0) {
        return Err(format!("{} runs, {} failed: {:?}", status.invocations, status.errors, status.last_error).into());
    }
    Ok(())
}

/// Milliseconds to load one compiled module.
async fn load_ms(parent: &Path, module: &Path) -> Outcome<f64> {
    let rig = Rig::new(parent)?;
    let mut took = Vec::new();
    for count in [1, 1, 1 + LOADED] {
        let begun = Instant::now();
        let hooks = rig.start(module, count, 1)?;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        hooks.stop(DEADLINE).await;
    }
    Ok((took[2] - took[1]) / f64::from(LOADED))
}

async fn figures(parent: &Path, events: u32, modules: &[PathBuf]) -> Outcome<Value> {
    let nothing = tempfile::Builder::new().suffix(".wat").tempfile()?;
    fs::write(nothing.path(), NOTHING)?;
    let mut all = Map::new();
    for module in std::iter::once(nothing.path()).chain(modules.iter().map(PathBuf::as_path)) {
        let name = if module == nothing.path() {
            "nothing".into()
        } else {
            module.file_stem().unwrap_or_default().to_string_lossy()
        };
        let serial_us = run(parent, module, events, 1).await? * 1e6 / f64::from(events);
        let per_s = f64::from(events) / run(parent, module, events, 64).await?;
        let load_ms = load_ms(parent, module).await?;
        all.insert(name.into_owned(), json!({"serial_us": serial_us, "per_s": per_s, "load_ms": load_ms}));
    }
    Ok(Value::Object(all))
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let parent = PathBuf::from(words.next().ok_or(USAGE)?);
    let events = words.next().ok_or(USAGE)?.parse()?;
    let modules = words.map(fs::canonicalize).collect::<Result<Vec<_>, _>>()?;
    println!("{}", figures(&parent, events, &modules).await?);
    Ok(())
}
