//! Child processes that cannot outlive the tests, and waits on them with a deadline.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use parking_lot::{RwLock, RwLockReadGuard};

type Request = (Command, Sender<io::Result<Child>>);

/// Held while a child is being started.
static STARTING: RwLock<()> = RwLock::new(());

/// As long as this is held, no test starts a child: it would close, and so store, what it inherits of files that this
/// process is just writing. Not to be held by who starts one himself.
pub fn without_children() -> RwLockReadGuard<'static, ()> {
    STARTING.read()
}

/// The child executes its program when this returns, and has closed what it inherited.
fn start(command: &mut Command) -> io::Result<Child> {
    let _alone = STARTING.write();
    command.spawn()
}

/// Spawns a child that gets `at_our_end` when this test process ends, however it ends.
///
/// Linux sends that signal when the *thread* that spawned the child ends, and libtest has one thread
/// per test: so one thread that never ends does all the spawning.
pub fn spawn(mut command: Command, at_our_end: Signal) -> Child {
    static KEEPER: OnceLock<Sender<Request>> = OnceLock::new();
    // SAFETY: prctl is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, at_our_end as libc::c_ulong) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let name = command.get_program().display().to_string();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(start(command.stdin(Stdio::null())));
            }
        });
        sender
    });
    let (answer, child) = channel();
    keeper.send((command, answer)).expect("the keeper never ends");
    child.recv().expect("the keeper answers").unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
}

/// Waits for a child's end; `None` when it still runs after `patience`.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if begun.elapsed() > patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end, at most `patience`; kills it and panics after that.
pub fn output(command: &mut Command, patience: Duration) -> Output {
    let shown = format!("{command:?}");
    let child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let child = child.unwrap_or_else(|error| panic!("cannot start {shown}: {error}"));
    let pid = child.id();
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(patience) else {
        signal(pid, Signal::SIGKILL);
        panic!("no end after {patience:?}: {shown}")
    };
    output.expect("output of a child")
}

/// Runs a command that has to succeed and answers what it printed.
pub fn run(command: &mut Command) -> String {
    let output = output(command, Duration::from_secs(240));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{errors}", output.status);
    text
}

/// Runs a bash script with `set -euo pipefail` in a directory.
pub fn bash(dir: &std::path::Path, script: &str) -> String {
    run(Command::new("bash").current_dir(dir).args(["-euo", "pipefail", "-c", script]))
}

/// The signal that ended a process.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("process ids fit"));
    let _ = nix::sys::signal::kill(pid, signal);
}
