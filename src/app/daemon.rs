//! Leaving the terminal: the shell gets its prompt back when the mount is usable, not before, and
//! hears of every failure until then.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::Failure;
use crate::error::Kind;

/// Every failure of a start is told within 15 s; this leaves a second for the rest.
const START_DEADLINE: Duration = Duration::from_secs(14);
/// More than any text that is passed.
const MESSAGE_BYTES: u64 = 64 << 10;

/// What the background process tells the one at the terminal.
#[derive(serde::Serialize, serde::Deserialize)]
enum Message {
    /// Usable; the text is for stdout.
    Ready(String),
    Failed(Failure),
}

/// Tells whoever waits that the mount is usable.
#[derive(Debug)]
pub struct Ready(Option<OwnedFd>);

impl Ready {
    /// For a process that stays in the foreground: nobody waits but its user.
    #[must_use]
    pub fn foreground() -> Self {
        Self(None)
    }

    /// Whether this process has left the terminal, or is about to.
    #[must_use]
    pub fn is_background(&self) -> bool {
        self.0.is_some()
    }

    /// Sends the text to the terminal's stdout and lets go of the terminal. Returns whether anybody
    /// was still waiting: who pressed Ctrl-C during the start wants no mount.
    #[must_use]
    pub fn tell(self, text: String) -> bool {
        let Some(pipe) = self.0 else {
            let _ = io::stdout().write_all(text.as_bytes());
            return true;
        };
        let heard = send(pipe, &Message::Ready(text));
        if let Err(cause) = let_go_of_terminal() {
            tracing::warn!(%cause, "stdin, stdout and stderr stay open");
        }
        heard
    }
}

/// Runs `work` in a process of its own and returns when it says [`Ready::tell`], with its text, or
/// fails. Must be called before any thread is started.
///
/// # Errors
/// What `work` returns, or what became of the process.
pub fn in_background<W>(work: W) -> Result<String, Failure>
where
    W: FnOnce(Ready) -> Result<(), Failure>,
{
    let failed = |errno: nix::Error| Failure::new(Kind::Local, format!("cannot start in the background: {errno}"));
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(failed)?;
    // SAFETY: no thread has been started yet, so the child's copy of every lock is free.
    match unsafe { fork() }.map_err(failed)? {
        ForkResult::Parent { child } => {
            drop(theirs);
            await_start(&ours, child)
        }
        ForkResult::Child => {
            drop(ours);
            std::process::exit(run_detached(work, theirs))
        }
    }
}

fn run_detached<W>(work: W, pipe: OwnedFd) -> i32
where
    W: FnOnce(Ready) -> Result<(), Failure>,
{
    // A session of its own: Ctrl-C and the terminal's end are not for us.
    let _ = setsid();
    let Ok(second) = pipe.try_clone() else { return i32::from(Kind::Local.exit_code()) };
    match work(Ready(Some(pipe))) {
        Ok(()) => 0,
        Err(failure) => {
            tracing::error!("{failure}");
            // After `tell` nobody reads any more; that is no error.
            send(second, &Message::Failed(failure.clone()));
            i32::from(failure.exit_code)
        }
    }
}

/// Whether the reader is still there: not killed, its deadline not over.
fn send(pipe: OwnedFd, message: &Message) -> bool {
    let text = serde_json::to_vec(message).expect("a message of strings is JSON");
    File::from(pipe).write_all(&text).is_ok()
}

fn let_go_of_terminal() -> io::Result<()> {
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn await_start(pipe: &OwnedFd, child: Pid) -> Result<String, Failure> {
    let Some(text) = read_until(pipe, Instant::now() + START_DEADLINE) else {
        // It holds nothing yet that a kill would lose: no write was accepted before it is mounted.
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
        return Err(Failure::new(Kind::Deadline, format!("not mounted after {} s", START_DEADLINE.as_secs()))
            .hint("something hangs; `s3mount --foreground --log-level debug …` shows what"));
    };
    match serde_json::from_slice(&text) {
        Ok(Message::Ready(text)) => Ok(text),
        Ok(Message::Failed(failure)) => {
            let _ = waitpid(child, None);
            Err(failure)
        }
        Err(_) => Err(ended_silently(child)),
    }
}

fn ended_silently(child: Pid) -> Failure {
    let how = match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => format!("ended with exit code {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        _ => "ended".to_owned(),
    };
    Failure::new(Kind::Local, format!("the background process {how} before the mount was usable"))
        .hint("`s3mount --foreground …` shows why")
}

/// Everything until the first whole message or the end; `None` when the deadline is over.
fn read_until(pipe: &OwnedFd, until: Instant) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut reader = File::from(pipe.try_clone().ok()?).take(MESSAGE_BYTES);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(nix::Error::EINTR) => continue,
            Err(_) => return None,
        }
        let mut piece = [0; 4096];
        match reader.read(&mut piece) {
            Ok(0) | Err(_) => return Some(text),
            Ok(length) => text.extend_from_slice(&piece[..length]),
        }
        if serde_json::from_slice::<Message>(&text).is_ok() {
            return Some(text);
        }
    }
}
