//! Other hooks for a mount that goes on: prepared aside, where anything may fail, then put in place in
//! one step that can't.
//!
//! What waits in the journal stays there under its hook's name; a run that has begun ends with the
//! module it began with.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::invocation::Hook;
use super::sandbox::Sandbox;
use super::{Error, HookSpec, Hooks, Result, modules, tell_of_unknown_hooks};

/// Hooks that could be put in place.
pub struct Prepared(Vec<Arc<Hook>>);

/// What putting them in place has changed, by the names of hooks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Switched {
    pub added: Vec<String>,
    /// Were there before.
    pub replaced: Vec<String>,
    pub removed: Vec<String>,
    /// Removed, and events wait for them.
    pub waited_for: Vec<String>,
}

/// Compiles the modules of hooks, in their order. What hooks of the same names counted goes on.
pub(super) fn prepare(
    sandbox: &Arc<Sandbox>,
    directory: &Path,
    specs: Vec<HookSpec>,
    before: &[Arc<Hook>],
) -> Result<Vec<Arc<Hook>>> {
    let programs = modules::prepare(sandbox, &directory.join("modules"), &specs)?;
    let hook = |(spec, program): (HookSpec, _)| {
        let log = directory.join(format!("{}.log", spec.name));
        let same = before.iter().find(|hook| hook.spec.name == spec.name);
        let counters = same.map(|hook| Arc::clone(&hook.counters)).unwrap_or_default();
        Arc::new(Hook::new(spec, program, counters, log))
    };
    Ok(specs.into_iter().zip(programs).map(hook).collect())
}

impl Hooks {
    /// Gets hooks ready to take the place of those there are. Compiles: takes its time, and changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error`] naming the hook whose module can't be used.
    pub fn prepare(&self, specs: Vec<HookSpec>) -> Result<Prepared> {
        let sandbox = &self.worker.surroundings.runner.sandbox;
        Ok(Prepared(prepare(sandbox, &self.directory, specs, &self.worker.hooks())?))
    }

    /// The hooks there are without one of them.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn prepare_without(&self, name: &str) -> Result<Prepared> {
        let hooks = self.worker.hooks();
        let others: Vec<_> = hooks.iter().filter(|hook| hook.spec.name != name).cloned().collect();
        if others.len() == hooks.len() {
            let names: Vec<&str> = hooks.iter().map(|hook| hook.spec.name.as_str()).collect();
            let known = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(Error::Asked(format!("no hook has the name {}; there are {known}", name.escape_debug())));
        }
        Ok(Prepared(others))
    }

    /// From now on these hooks count, for all events that no hook was asked about yet.
    pub fn switch(&self, prepared: Prepared) -> Switched {
        let Prepared(hooks) = prepared;
        let names = |hooks: &[Arc<Hook>]| hooks.iter().map(|hook| hook.spec.name.clone()).collect::<BTreeSet<_>>();
        let now = names(&hooks);
        // What can't be read is complained of elsewhere.
        let _ = tell_of_unknown_hooks(&self.worker.journal, &hooks);
        let before = names(&self.worker.switch(hooks));
        let removed: Vec<String> = before.difference(&now).cloned().collect();
        let waits = |name: &&String| self.worker.journal.has_tasks(name).unwrap_or_default();
        Switched {
            added: now.difference(&before).cloned().collect(),
            replaced: now.intersection(&before).cloned().collect(),
            waited_for: removed.iter().filter(waits).cloned().collect(),
            removed,
        }
    }
}
