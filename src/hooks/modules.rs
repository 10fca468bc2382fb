//! Modules are compiled once, off the event path, and kept.
//!
//! A kept file is native code that will be run, so its directory must be ours alone; its name says
//! what it was made of (SHA-256 of the source, compatibility of the engine), and its last 32 bytes
//! are the SHA-256 of the rest, so that a file cut by a crash is compiled anew.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::sandbox::{Program, Sandbox};
use super::{Error, HookSpec, Result};

/// How long all modules together may take to compile. A thread that compiles can't be stopped:
/// after that long it is left behind.
const COMPILE_TIMEOUT: Duration = Duration::from_mins(1);
const DIGEST_BYTES: usize = 32;

/// Compiles or loads the modules of hooks, in their order; waits for it.
pub(super) fn prepare(sandbox: &Arc<Sandbox>, directory: &Path, specs: &[HookSpec]) -> Result<Vec<Program>> {
    prepare_within(COMPILE_TIMEOUT, sandbox, directory, specs)
}

fn prepare_within(
    timeout: Duration,
    sandbox: &Arc<Sandbox>,
    directory: &Path,
    specs: &[HookSpec],
) -> Result<Vec<Program>> {
    private_directory(directory)?;
    let deadline = Instant::now() + timeout;
    let mut waiting = Vec::new();
    for spec in specs {
        let (sender, receiver) = mpsc::channel();
        let (sandbox, spec, directory) = (Arc::clone(sandbox), spec.clone(), directory.to_owned());
        let work = move || drop(sender.send(program(&sandbox, &spec, &directory)));
        std::thread::Builder::new()
            .name("hook-compile".into())
            .spawn(work)
            .map_err(|error| Error::Start { what: "no thread to compile on".into(), cause: error.to_string() })?;
        waiting.push(receiver);
    }
    let mut programs = Vec::new();
    let mut used = HashSet::new();
    for (spec, receiver) in specs.iter().zip(waiting) {
        let wrong = |problem| Error::Module { hook: spec.name.clone(), path: spec.wasm.clone(), problem };
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = receiver.recv_timeout(left).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => wrong(format!("is not compiled after {} s", timeout.as_secs_f64())),
            mpsc::RecvTimeoutError::Disconnected => wrong("the compiler panicked over it".into()),
        })?;
        let (program, path) = outcome.map_err(wrong)?;
        programs.push(program);
        used.insert(path);
    }
    remove_others(directory, &used);
    Ok(programs)
}

/// Makes a directory that only we can use, and makes sure of it.
pub(super) fn private_directory(directory: &Path) -> Result<()> {
    let failed = |cause: String| Error::Start { what: directory.display().to_string(), cause };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| failed(error.to_string()))?;
    let metadata = fs::symlink_metadata(directory).map_err(|error| failed(error.to_string()))?;
    let ours = metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
        return Err(failed("others could write here, and what lies here is run; remove it, or chmod 700".into()));
    }
    Ok(())
}

fn program(sandbox: &Sandbox, spec: &HookSpec, directory: &Path) -> std::result::Result<(Program, PathBuf), String> {
    let source = spec.module().map_err(|error| error.to_string())?;
    let name = format!("{}-{:016x}.cwasm", hex::encode(Sha256::digest(&source)), sandbox.compatibility());
    let path = directory.join(name);
    if let Some(compiled) = read_kept(&path) {
        // SAFETY: the directory is ours alone (`private_directory`), the name has the engine's
        // compatibility, and the digest says that these are the bytes we once wrote.
        match unsafe { sandbox.load(&compiled) } {
            Ok(program) => return Ok((program, path)),
            Err(error) => tracing::warn!("compiling the module of \"{}\" again: {error}", spec.name),
        }
    }
    let compiled = sandbox.compile(&source)?;
    // SAFETY: it comes from this very sandbox.
    let program = unsafe { sandbox.load(&compiled) }?;
    if let Err(error) = keep(&path, &compiled) {
        tracing::warn!("{}: can't keep the compiled module: {error}", path.display());
    }
    Ok((program, path))
}

fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let code_length = bytes.len().checked_sub(DIGEST_BYTES)?;
    let digest = bytes.split_off(code_length);
    (Sha256::digest(&bytes).as_slice() == digest).then_some(bytes)
}

/// Written beside its place and moved there: whoever opens it finds it whole. Each writer has a file of
/// his own, since several hooks may have the same module.
fn keep(path: &Path, compiled: &[u8]) -> std::io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    file.write_all(compiled)?;
    file.write_all(&Sha256::digest(compiled))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Each build of a hook leaves a file of megabytes: those of no hook any more go.
fn remove_others(directory: &Path, used: &HashSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !used.contains(&entry.path())
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!("{}: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const COMMAND: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")))";

    fn hook(directory: &Path, module: &[u8]) -> Vec<HookSpec> {
        fs::write(directory.join("m.wasm"), module).unwrap();
        let file = directory.join("hooks.toml");
        fs::write(&file, "[[hook]]\nname = \"h\"\nwasm = \"m.wasm\"").unwrap();
        super::super::settings::parse(&file).unwrap()
    }

    fn kept(directory: &Path) -> Vec<PathBuf> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn a_module_is_compiled_once_and_again_when_its_file_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Arc::new(Sandbox::new().unwrap());
        let specs = hook(dir.path(), COMMAND.as_bytes());
        let cache = dir.path().join("modules");
        prepare(&sandbox, &cache, &specs).unwrap();
        let file = kept(&cache).remove(0);
        let whole = fs::read(&file).unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        prepare(&sandbox, &cache, &specs).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), written, "it was not compiled again");

        for damaged in [&whole[..whole.len() / 2], b"", &[whole.as_slice(), b"x"].concat()] {
            fs::write(&file, damaged).unwrap();
            prepare(&sandbox, &cache, &specs).unwrap();
            assert_eq!(fs::read(&file).unwrap(), whole);
        }
    }

    #[test]
    fn a_module_of_many_hooks_is_kept_whoever_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("module.cwasm");
        let compiled = vec![7; 4 << 20];
        std::thread::scope(|threads| {
            let keeping: Vec<_> = (0..8).map(|_| threads.spawn(|| keep(&path, &compiled))).collect();
            for kept in keeping {
                kept.join().unwrap().unwrap();
            }
        });
        assert_eq!((kept(dir.path()), read_kept(&path)), (vec![path.clone()], Some(compiled)));
    }

    #[test]
    fn a_new_build_replaces_the_kept_one() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Arc::new(Sandbox::new().unwrap());
        let cache = dir.path().join("modules");
        prepare(&sandbox, &cache, &hook(dir.path(), COMMAND.as_bytes())).unwrap();
        let before = kept(&cache);
        prepare(&sandbox, &cache, &hook(dir.path(), COMMAND.replace("memory\") 1", "memory\") 2").as_bytes())).unwrap();
        let after = kept(&cache);
        assert_eq!(after.len(), 1);
        assert_ne!(after, before);
    }

    #[test]
    fn a_module_that_takes_too_long_to_compile_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Arc::new(Sandbox::new().unwrap());
        // One function of many blocks: what register allocation takes longest for.
        let block = "(br_if 0 (local.tee 0 (i32.mul (local.get 0) (local.get 0)))) ".repeat(20_000);
        let bomb = format!("(module (func (export \"_start\") (local i32) {block}))");
        let specs = hook(dir.path(), bomb.as_bytes());
        let begun = Instant::now();
        let error = prepare_within(Duration::from_millis(20), &sandbox, &dir.path().join("modules"), &specs);
        let error = error.err().unwrap().to_string();
        assert!(error.contains("hook \"h\"") && error.ends_with("is not compiled after 0.02 s"), "{error}");
        assert!(begun.elapsed() < COMPILE_TIMEOUT);
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_hook_named() {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Arc::new(Sandbox::new().unwrap());
        let cache = dir.path().join("modules");
        for (module, expected) in [
            ("(module (memory (export \"memory\") 1))", "no function _start"),
            ("(module (func (export \"_start\") (param i32)) (memory (export \"memory\") 1))", "no function _start"),
            (
                "(module (import \"env\" \"steal\" (func)) (memory (export \"memory\") 1) (func (export \"_start\")))",
                "env::steal",
            ),
            ("(module (func (export \"_start\") i32.add))", "type mismatch"),
            ("\0asm\x01\0\0\0 and then nothing that makes sense", ""),
        ] {
            let error =
                prepare(&sandbox, &cache, &hook(dir.path(), module.as_bytes())).err().expect(module).to_string();
            assert!(error.contains("hook \"h\"") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("modules");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
        let sandbox = Arc::new(Sandbox::new().unwrap());
        assert!(matches!(prepare(&sandbox, &cache, &[]), Err(Error::Start { .. })));
    }
}
