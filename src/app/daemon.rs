//! Leaving the terminal: the shell gets its prompt back when the mount is usable, not before, and
//! hears of every failure until then.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::{Failure, supervisor};
use crate::error::Kind;

/// Every failure of a start is told within 15 s; this leaves a second for the rest.
const START_DEADLINE: Duration = Duration::from_secs(14);

/// What the background process tells the one at the terminal.
#[derive(serde::Serialize, serde::Deserialize)]
enum Message {
    /// There is more to do than usual; wait this many seconds from now.
    Extend(u64),
    /// Usable; the text is for stdout.
    Ready(String),
    Failed(Failure),
}

/// Tells whoever waits that the mount is usable.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// For a process that stays in the foreground: nobody waits but its user, or a service manager.
    #[must_use]
    pub fn foreground() -> Self {
        Self(None)
    }

    /// Whether this process has left the terminal, or is about to.
    #[must_use]
    pub fn is_background(&self) -> bool {
        self.0.is_some()
    }

    /// Asks whoever waits for more patience, counted from now.
    pub fn extend(&mut self, patience: Duration) {
        match &mut self.0 {
            Some(pipe) => drop(send(pipe, &Message::Extend(patience.as_secs()))),
            None => supervisor::extend(patience),
        }
    }

    /// Sends the text to the terminal's stdout and lets go of the terminal. Returns whether anybody
    /// was still waiting: who pressed Ctrl-C during the start wants no mount.
    #[must_use]
    pub fn tell(self, text: String) -> bool {
        let Some(mut pipe) = self.0 else {
            let _ = io::stdout().write_all(text.as_bytes());
            supervisor::ready();
            return true;
        };
        let heard = send(&mut pipe, &Message::Ready(text));
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
            std::process::exit(run_detached(work, theirs.into()))
        }
    }
}

fn run_detached<W>(work: W, pipe: File) -> i32
where
    W: FnOnce(Ready) -> Result<(), Failure>,
{
    let Ok(mut second) = pipe.try_clone() else { return i32::from(Kind::Local.exit_code()) };
    match work(Ready(Some(pipe))) {
        Ok(()) => 0,
        Err(failure) => {
            tracing::error!("{failure}");
            // After `tell` nobody reads any more; that is no error.
            send(&mut second, &Message::Failed(failure.clone()));
            i32::from(failure.exit_code)
        }
    }
}

/// Sends a line of JSON. Whether the reader is still there: not killed, its deadline not over.
fn send(pipe: &mut File, message: &Message) -> bool {
    let mut line = serde_json::to_vec(message).expect("a message of strings and numbers is JSON");
    line.push(b'\n');
    pipe.write_all(&line).is_ok()
}

fn let_go_of_terminal() -> io::Result<()> {
    // A session of its own: Ctrl-C and the terminal's end are not for us. Not before the mount is there: an
    // automounter lets only its own process group look at the mountpoint until then (autofs(5), `pgrp=`).
    let _ = setsid();
    std::env::set_current_dir("/")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

fn await_start(pipe: &OwnedFd, child: Pid) -> Result<String, Failure> {
    let mut patience = START_DEADLINE;
    let mut lines = Lines::default();
    loop {
        match lines.next(pipe, Instant::now() + patience).as_deref().map(serde_json::from_slice) {
            Ok(Ok(Message::Extend(seconds))) => patience = Duration::from_secs(seconds),
            Ok(Ok(Message::Ready(text))) => return Ok(text),
            Ok(Ok(Message::Failed(failure))) => {
                let _ = waitpid(child, None);
                return Err(failure);
            }
            Ok(Err(_)) | Err(NoLine::End) => return Err(ended_silently(child)),
            Err(NoLine::Late) => return Err(too_late(child, patience)),
        }
    }
}

fn too_late(child: Pid, patience: Duration) -> Failure {
    // It was never usable, so it holds nothing that a kill would lose.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
    Failure::new(Kind::Deadline, format!("not mounted after {} s", patience.as_secs()))
        .hint("something hangs; `s3mount --foreground --log-level debug …` shows what")
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

/// Why there is no further line.
enum NoLine {
    End,
    Late,
}

/// What came through the pipe and is not yet a line.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn next(&mut self, pipe: &OwnedFd, until: Instant) -> Result<Vec<u8>, NoLine> {
        loop {
            if let Some(end) = self.0.iter().position(|byte| *byte == b'\n') {
                return Ok(self.0.drain(..=end).collect());
            }
            let left = until.saturating_duration_since(Instant::now());
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) => return Err(NoLine::Late),
                Ok(_) => {}
                Err(nix::Error::EINTR) => continue,
                Err(_) => return Err(NoLine::End),
            }
            let mut piece = [0; 4096];
            match nix::unistd::read(pipe, &mut piece) {
                Ok(0) | Err(_) => return Err(NoLine::End),
                Ok(length) => self.0.extend_from_slice(&piece[..length]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedFd, File) {
        let (ours, theirs) = nix::unistd::pipe().unwrap();
        (ours, theirs.into())
    }

    fn next(lines: &mut Lines, pipe: &OwnedFd, patience: Duration) -> Option<Message> {
        let line = lines.next(pipe, Instant::now() + patience).ok()?;
        Some(serde_json::from_slice(&line).unwrap())
    }

    #[test]
    fn messages_come_one_by_one_however_they_are_cut() {
        let (ours, mut theirs) = pipe();
        let mut ready = Ready(Some(theirs.try_clone().unwrap()));
        ready.extend(Duration::from_mins(5));
        let failed = serde_json::to_vec(&Message::Failed(Failure::new(Kind::Busy, "later"))).unwrap();
        let (begin, end) = failed.split_at(5);
        theirs.write_all(begin).unwrap();
        let mut lines = Lines::default();
        assert!(matches!(next(&mut lines, &ours, Duration::from_secs(10)), Some(Message::Extend(300))));
        assert!(matches!(lines.next(&ours, Instant::now()), Err(NoLine::Late)), "half a message is none");
        theirs.write_all(end).unwrap();
        theirs.write_all(b"\n").unwrap();
        assert!(matches!(next(&mut lines, &ours, Duration::from_secs(10)), Some(Message::Failed(_))));
        drop((ready, theirs));
        assert!(matches!(lines.next(&ours, Instant::now() + Duration::from_secs(10)), Err(NoLine::End)));
    }

    #[test]
    fn nobody_at_the_other_end_is_noticed() {
        let (ours, mut theirs) = pipe();
        drop(ours);
        assert!(!send(&mut theirs, &Message::Ready(String::new())));
    }
}
