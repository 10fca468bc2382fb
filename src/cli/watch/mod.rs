//! `s3mount status --watch`: look after look, until Ctrl-C or the end of the mount.

mod block;
mod interrupts;
mod screen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::status::status_at;
use super::status_text::clock;
use crate::app::control;
use crate::app::{self, Failure, Status};
use crate::error::Kind;
use crate::mount;
use crate::telemetry::printable;

use interrupts::Interrupts;
use screen::Screen;

/// More often would be about us, not about the mount.
const LEAST_PERIOD: Duration = Duration::from_millis(100);

/// A mount as it was at some moment.
struct Look {
    status: Status,
    at: Instant,
}

/// Mounts as they were at the last look, by where they are.
type Looks = BTreeMap<PathBuf, Look>;

/// Shows one mount until it ends, or all there are. Before any thread is started.
pub(super) fn watch(run_dir: &Path, only: Option<&Path>, every: Duration) -> Result<(), Failure> {
    if every < LEAST_PERIOD {
        return Err(Failure::new(Kind::Usage, "--watch: looking more often than every 100ms is no use"));
    }
    let interrupts = Interrupts::take()?;
    let mut screen = Screen::of_stdout();
    let mut before = Looks::new();
    loop {
        let sockets = match only {
            Some(mountpoint) => vec![app::socket_path(run_dir, mountpoint)],
            None => control::all_sockets(run_dir),
        };
        let (now, silent) = look(&sockets);
        if let Some(mountpoint) = only.filter(|_| now.is_empty() && before.is_empty()) {
            // Why a mount that was there does not answer may be its end; here there was none.
            return Err(silent.into_iter().next().unwrap_or_else(|| mount::silence(mountpoint).into()));
        }
        let is_over = only.is_some() && now.is_empty() && silent.is_empty();
        if !screen.show(&frame(&before, &now, &silent)) || is_over {
            return Ok(());
        }
        if silent.is_empty() {
            before = now;
        } else {
            before.extend(now);
        }
        if interrupts.came_within(every)? {
            screen.leave();
            return Ok(());
        }
    }
}

/// What answers, and why something else does not.
fn look(sockets: &[PathBuf]) -> (Looks, Vec<Failure>) {
    let (mut looks, mut silent) = (Looks::new(), Vec::new());
    for socket in sockets {
        match status_at(socket) {
            Ok(Some(status)) => drop(looks.insert(status.mountpoint.clone(), Look { status, at: Instant::now() })),
            Ok(None) => {}
            Err(failure) => silent.push(failure),
        }
    }
    (looks, silent)
}

/// A block for each mount; those that are gone are named once.
fn frame(before: &Looks, now: &Looks, silent: &[Failure]) -> Vec<String> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut lines = vec![clock(time.as_secs())];
    for (mountpoint, look) in now {
        // Another process counts from zero.
        let earlier = before.get(mountpoint).filter(|earlier| earlier.status.pid == look.status.pid);
        let earlier = earlier.map(|earlier| (&earlier.status, (look.at - earlier.at).as_secs_f64()));
        lines.extend(block::lines(&look.status, earlier));
    }
    lines.extend(silent.iter().map(ToString::to_string));
    if silent.is_empty() {
        let gone = before.keys().filter(|mountpoint| !now.contains_key(*mountpoint));
        lines.extend(
            gone.map(|mountpoint| format!("the mount on {} has ended", printable(&mountpoint.to_string_lossy()))),
        );
    }
    if lines.len() == 1 {
        lines.push("nothing is mounted".to_owned());
    }
    lines
}
