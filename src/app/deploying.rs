//! The hooks of a mount: none, those it began with, or those that were deployed since.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::Failure;
use super::gate::Gate;
use crate::error::Kind;
use crate::fs::Fs;
use crate::hooks::{self, Deployed, HookSettings, HookSpec, Hooks, Prepared, Switched, Views};
use crate::journal::Journal;

/// Where hooks run, or could.
pub(super) struct HookPlace {
    /// Without hooks: those are given at the start.
    settings: HookSettings,
    deployed: Deployed,
    fs: Arc<Fs>,
    views: Arc<Views>,
    journal: Arc<Journal>,
    running: RwLock<Option<Arc<Hooks>>>,
    /// Held by who changes them.
    turn: tokio::sync::Mutex<()>,
}

impl HookPlace {
    pub(super) fn new(
        settings: HookSettings,
        deployed: Deployed,
        (fs, views): (&Arc<Fs>, &Arc<Views>),
        journal: &Arc<Journal>,
    ) -> Self {
        let (fs, views, journal) = (Arc::clone(fs), Arc::clone(views), Arc::clone(journal));
        Self { settings, deployed, fs, views, journal, running: RwLock::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The hooks, if this mount has any.
    pub(super) fn running(&self) -> Option<Arc<Hooks>> {
        self.running.read().clone()
    }

    /// Begins with these: they are asked from now on, and take events once that is said. Compiles: the
    /// caller waits.
    pub(super) fn open(&self, specs: Vec<HookSpec>) -> hooks::Result<()> {
        let hooks = self.opened(specs)?;
        self.put_in_place(&hooks);
        Ok(())
    }

    /// They take events from now on, if there are any.
    pub(super) fn begin(&self) {
        if let Some(hooks) = self.running() {
            hooks.begin(&Handle::current());
        }
    }

    /// Takes the hooks of a file, or of the mount's own, in place of those there are; and keeps them
    /// for the next start. All of it or nothing.
    pub(super) async fn deploy(&self, file: Option<&Path>) -> Result<Switched, Failure> {
        let _turn = self.turn.lock().await;
        let own = self.deployed.file();
        let file = file.filter(|file| own.is_none_or(|own| !is_same(own, file)));
        Ok(match (file, own) {
            (Some(file), _) => block_in_place(|| self.deploy_copy(file))?,
            (None, Some(own)) => block_in_place(|| self.deploy_own(own))?,
            (None, None) => {
                return Err(Failure::new(Kind::Usage, "the mount has no file of hooks of its own to read again")
                    .hint("name one: `s3mount hooks deploy FILE`"));
            }
        })
    }

    /// Takes a hook away, also for the next start.
    pub(super) async fn remove(&self, name: &str) -> Result<Switched, Failure> {
        let _turn = self.turn.lock().await;
        let Some(hooks) = self.running() else { return Err(Failure::new(Kind::Usage, "the mount has no hooks")) };
        Ok(block_in_place(|| {
            let prepared = hooks.prepare_without(name)?;
            self.deployed.remove(name)?;
            let switched = hooks.switch(prepared);
            self.fs.set_views(hooks.views());
            hooks::Result::Ok(switched)
        })?)
    }

    fn deploy_copy(&self, file: &Path) -> hooks::Result<Switched> {
        let (copied, specs) = self.deployed.copy(file)?;
        let kept = self.prepare(specs).and_then(|ready| self.deployed.keep(&copied).map(|()| ready));
        let (hooks, prepared) = kept.inspect_err(|_| self.deployed.drop_copy(&copied))?;
        Ok(self.switch(&hooks, prepared))
    }

    fn deploy_own(&self, own: &Path) -> hooks::Result<Switched> {
        let (hooks, prepared) = self.prepare(hooks::load_for(own, self.deployed.bucket())?)?;
        self.deployed.forget()?;
        Ok(self.switch(&hooks, prepared))
    }

    /// What will run these hooks, and they themselves.
    fn prepare(&self, specs: Vec<HookSpec>) -> hooks::Result<(Arc<Hooks>, Prepared)> {
        let hooks = self.running().map_or_else(|| self.opened(Vec::new()), Ok)?;
        let prepared = hooks.prepare(specs)?;
        Ok((hooks, prepared))
    }

    fn switch(&self, hooks: &Arc<Hooks>, prepared: Prepared) -> Switched {
        let switched = hooks.switch(prepared);
        self.put_in_place(hooks);
        hooks.begin(&Handle::current());
        tracing::info!(?switched, "hooks were deployed");
        switched
    }

    fn opened(&self, specs: Vec<HookSpec>) -> hooks::Result<Arc<Hooks>> {
        let settings = HookSettings { specs, ..self.settings.clone() };
        // What a hook writes under a key that was removed just now must not go with it.
        let (bucket, journal) = (self.fs.bucket(), Arc::clone(&self.journal));
        block_in_place(|| hooks::open(settings, bucket, journal)).map(Arc::new)
    }

    fn put_in_place(&self, hooks: &Arc<Hooks>) {
        self.running.write().replace(Arc::clone(hooks));
        // Only the first is taken: it is the same one as long as the mount lives.
        self.fs.guard_with(Arc::new(Gate::new(hooks)));
        self.views.attach(hooks);
        self.fs.set_views(hooks.views());
        self.fs.tell_hooks();
    }
}

/// Whether two names are of one file.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    real(one) == real(other)
}
