//! From bytes to what can be instantiated: which of the three kinds of guest it is, and what it asks for.

use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{Engine, ExternType, InstancePre, Module, Precompiled};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::Sandbox;
use super::guest::Guest;
use super::world::HookPre;

/// A compiled guest with its imports resolved, ready to be instantiated for each event.
#[derive(Clone)]
pub(in crate::hooks) enum Program {
    /// A core module that exports `_start`: WASI preview 1.
    Core(InstancePre<Guest>),
    /// A component that exports `wasi:cli/run`.
    Command(CommandPre<Guest>),
    /// A component that exports `handle`.
    Typed(HookPre<Guest>),
}

impl Sandbox {
    /// Compiles a module or a component, binary or text. Takes seconds for a large one.
    pub(in crate::hooks) fn compile(&self, source: &[u8]) -> Result<Vec<u8>, String> {
        let binary = wat::parse_bytes(source).map_err(|error| error.to_string())?;
        // The second half of the version: 0 of core modules, 1 of components.
        let compiled = match binary.get(6..8) {
            Some([1, 0]) => self.engine.precompile_component(&binary),
            _ => self.engine.precompile_module(&binary),
        };
        compiled.map_err(|error| format!("{error:#}"))
    }

    /// Takes a compiled guest in and checks that it is one of the three kinds and asks for nothing that
    /// is not there.
    ///
    /// # Safety
    /// `compiled` must come from [`Self::compile`] of a sandbox with the same
    /// [`Self::compatibility`], unchanged: it is native code and will be run.
    pub(in crate::hooks) unsafe fn load(&self, compiled: &[u8]) -> Result<Program, String> {
        if let Some(Precompiled::Component) = Engine::detect_precompiled(compiled) {
            // SAFETY: the caller's promise, above.
            let component = unsafe { Component::deserialize(&self.engine, compiled) };
            return self.component(&component.map_err(|error| format!("{error:#}"))?);
        }
        // SAFETY: the caller's promise, above.
        let module = unsafe { Module::deserialize(&self.engine, compiled) };
        self.module(&module.map_err(|error| format!("{error:#}"))?)
    }

    fn module(&self, module: &Module) -> Result<Program, String> {
        match module.get_export("_start") {
            Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
            _ => return Err("is no command: it exports no function _start".into()),
        }
        self.linker.instantiate_pre(module).map(Program::Core).map_err(|error| format!("{error:#}"))
    }

    fn component(&self, component: &Component) -> Result<Program, String> {
        let pre = self.component_linker.instantiate_pre(component).map_err(|error| format!("{error:#}"))?;
        if component.get_export_index(None, "handle").is_some() {
            let typed = HookPre::new(pre).map(Program::Typed);
            return typed.map_err(|error| format!("its handle is not that of s3mount:hooks: {error:#}"));
        }
        let command = CommandPre::new(pre).map(Program::Command);
        command.map_err(|_| "is no hook: it exports neither wasi:cli/run nor handle of s3mount:hooks".into())
    }
}

impl Program {
    /// Whether it gets its event as a value, and objects.
    pub(in crate::hooks) fn is_typed(&self) -> bool {
        matches!(self, Self::Typed(_))
    }

    /// What it is called in descriptions.
    pub(in crate::hooks) fn kind(&self) -> &'static str {
        match self {
            Self::Core(_) => "command (WASI preview 1)",
            Self::Command(_) => "command (WASI 0.2)",
            Self::Typed(_) => "typed (s3mount:hooks)",
        }
    }

    /// All that it can call, as `module::name`, sorted.
    pub(in crate::hooks) fn imports(&self) -> Vec<String> {
        let mut names = match self {
            Self::Core(pre) => {
                let imports = pre.module().imports();
                imports.map(|import| format!("{}::{}", import.module(), import.name())).collect()
            }
            Self::Command(pre) => component_imports(pre.instance_pre().component(), pre.engine()),
            Self::Typed(pre) => component_imports(pre.instance_pre().component(), pre.engine()),
        };
        names.sort();
        names
    }

    /// Whether it asks for anything that opens or lists files. What does not gets no directories, and its
    /// object is not fetched.
    pub(in crate::hooks) fn wants_files(&self) -> bool {
        const MODULE: &str = "wasi_snapshot_preview1::";
        let opens = |name: &str| name.starts_with("path_") || name == "fd_readdir";
        self.imports()
            .iter()
            .any(|import| import.starts_with("wasi:filesystem/") || import.strip_prefix(MODULE).is_some_and(opens))
    }

    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::Core(pre) => pre.module().engine(),
            Self::Command(pre) => pre.engine(),
            Self::Typed(pre) => pre.engine(),
        }
    }
}

/// The functions of imported interfaces; their types give nobody anything.
fn component_imports(component: &Component, engine: &Engine) -> Vec<String> {
    let mut names = Vec::new();
    let component = component.component_type();
    for (module, item) in component.imports(engine) {
        if let ComponentItem::ComponentInstance(interface) = &item.ty {
            let functions =
                interface.exports(engine).filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)));
            names.extend(functions.map(|(name, _)| format!("{module}::{name}")));
        }
    }
    names
}
