//! `s3mount status --watch` into a pipe, as a script would read it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::stage::{Maker, Mount, PATIENCE, Stage, process};

/// A watch that runs, and what it says.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn over(mount: &Mount, only: bool) -> Self {
        let mut command = mount.command();
        command.args(["status", "--watch=100ms"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        if only {
            command.arg(mount.path());
        }
        let mut child = process::spawn(command, Signal::SIGKILL);
        let stdout = child.stdout.take().unwrap();
        Self { child, lines: read(stdout) }
    }

    fn wait_for(&self, mut what: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect("the line that is waited for");
            assert!(!line.contains('\x1b'), "no terminal is told anything: {line:?}");
            if what(&line) {
                return line;
            }
        }
    }

    fn end(mut self) -> Option<i32> {
        process::wait(&mut self.child, PATIENCE).expect("its end").code()
    }
}

fn read(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if line.is_err() || sender.send(line.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
    lines
}

#[test]
fn what_happens_is_told_as_it_happens_until_ctrl_c() {
    let mount = Stage::on(Maker::Embedded).mount();
    for only in [true, false] {
        let watching = Watching::over(&mount, only);
        watching.wait_for(|line| line.contains(mount.outside().bucket()));
        watching.wait_for(|line| line == "  requests  0/s");
        fs::write(mount.at("f"), vec![7; 100_000]).unwrap();
        // A look between the two may have the bytes and not yet the request.
        let (mut put, mut sent) = (false, false);
        watching.wait_for(|line| {
            put |= line.starts_with("  requests") && line.contains("PutObject") && line.contains("/s");
            sent |= line.starts_with("  bytes") && line.contains("KiB/s up");
            put && sent
        });
        watching.wait_for(|line| line.starts_with("  files") && line.contains("all stored"));
        process::signal(watching.child.id(), Signal::SIGINT);
        assert_eq!(watching.end(), Some(0));
    }
}

#[test]
fn a_mount_that_ends_is_told_and_ends_the_watch() {
    let mut mount = Stage::on(Maker::Embedded).mount();
    let watching = Watching::over(&mount, true);
    watching.wait_for(|line| line.contains("requests"));
    mount.stop();
    watching.wait_for(|line| line.ends_with("has ended") && line.contains(&*mount.path().to_string_lossy()));
    assert_eq!(watching.end(), Some(0));
    let output = process::output(mount.command().args(["status", "--watch"]).arg(mount.path()), PATIENCE);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let mount = Stage::on(Maker::Embedded).mount();
    let script = format!(
        "\"$1\" status --watch=100ms {} | head -n 2 | tail -n 1; echo \"${{PIPESTATUS[0]}}\"",
        mount.path().display()
    );
    let mut bash = mount.command();
    bash = {
        let mut command = std::process::Command::new("bash");
        for (name, value) in bash.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    };
    let told = process::run(bash.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_s3mount")]));
    assert!(told.contains(mount.outside().bucket()) && told.ends_with("\n0\n"), "{told}");
}
