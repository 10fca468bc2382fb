//! The clock that interrupts guests: one thread, and only while a guest runs.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use wasmtime::EngineWeak;

/// How long a guest can compute before the host has a say again.
const TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Advances an engine's epoch while somebody holds a [`Ticking`], also when the ticker is dropped
/// before.
pub(super) struct Ticker(Arc<Shared>);

/// Keeps the clock going.
pub(super) struct Ticking(Arc<Shared>);

impl Ticker {
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        std::thread::Builder::new().name("hook-ticker".into()).spawn({
            let shared = Arc::clone(&shared);
            move || advance(&shared, &engine)
        })?;
        Ok(Self(shared))
    }

    pub(super) fn tick(&self) -> Ticking {
        self.0.state.lock().running += 1;
        self.0.changed.notify_all();
        Ticking(Arc::clone(&self.0))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
    }
}

fn advance(shared: &Shared, engine: &EngineWeak) {
    let mut state = shared.state.lock();
    while !state.closed || state.running > 0 {
        if state.running == 0 {
            shared.changed.wait(&mut state);
            continue;
        }
        shared.changed.wait_for(&mut state, TICK);
        if let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
        }
    }
}
