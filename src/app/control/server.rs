//! The mount's side: answers about its status, and passes orders on to the main loop.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Reply, Request, Service};

/// A request is a short line that a command writes at once.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Less than the command waits.
const STATUS_DEADLINE: Duration = Duration::from_secs(4);
/// Room for the paths that a command line holds.
const REQUEST_BYTES: u64 = 4 << 20;
/// A mount that hangs has a socket, too.
const SWEEP_DEADLINE: Duration = Duration::from_millis(100);
/// How often whoever waits hears that it is still under way.
const PULSE: Duration = Duration::from_secs(1);
/// More than anybody needs, also of those that wait for hooks; each costs a descriptor.
const CONNECTIONS: usize = 128;

/// An unmount that somebody asked for; replies go to `replies`.
#[derive(Debug)]
pub struct Order {
    pub lazy: bool,
    pub replies: Replies,
}

/// The way back to who asked.
#[derive(Debug)]
pub struct Replies {
    lines: mpsc::Sender<Reply>,
    /// Resolves when the connection is closed.
    written: oneshot::Receiver<()>,
}

impl Replies {
    /// Tells something if there is room; nobody misses a sign of life.
    pub fn mention(&self, reply: Reply) {
        let _ = self.lines.try_send(reply);
    }

    /// Tells the outcome and waits until it is written, at most a second: the process may end then.
    pub async fn conclude(self, reply: Reply) {
        let told = async move {
            // Whoever asked may be gone; the outcome is in the log as well.
            let _ = self.lines.send(reply).await;
            drop(self.lines);
            let _ = self.written.await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), told).await;
    }
}

/// The listening socket; removed from the file system when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    inode: u64,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Listens at `path`, in place of what a killed process left there. What others have left beside it is
    /// taken away, too: their mountpoints may never be used again.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn start(path: &Path, service: Arc<dyn Service>, orders: mpsc::Sender<Order>) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
        // One process at a time: nobody listens at a socket that is just being made.
        let locked = directory.clone();
        let _alone = tokio::task::spawn_blocking(move || lock(&locked)).await??;
        sweep(&directory).await;
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let inode = fs::symlink_metadata(path)?.ino();
        let accepting = tokio::spawn(accept(listener, service, orders));
        Ok(Self { path: path.to_owned(), inode, accepting })
    }
}

fn lock(directory: &Path) -> io::Result<Flock<File>> {
    Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

/// Removes the sockets at which nobody listens any more.
async fn sweep(directory: &Path) {
    for path in super::all_sockets(directory) {
        // What is no socket refuses, too.
        if !fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            continue;
        }
        let connected = tokio::time::timeout(SWEEP_DEADLINE, UnixStream::connect(&path)).await;
        if let Ok(Err(cause)) = connected
            && cause.kind() == io::ErrorKind::ConnectionRefused
            && fs::remove_file(&path).is_ok()
        {
            tracing::debug!(path = %path.display(), "removed the socket of a mount that was killed");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        // After a lazy unmount another mount may already listen under the same name.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn accept(listener: UnixListener, service: Arc<dyn Service>, orders: mpsc::Sender<Order>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (service, orders) = (Arc::clone(&service), orders.clone());
        tokio::spawn(async move {
            if let Err(cause) = answer(stream, service, orders).await {
                tracing::debug!(%cause, "control connection");
            }
            drop(place);
        });
    }
}

async fn answer(stream: UnixStream, service: Arc<dyn Service>, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let (input, mut output) = stream.into_split();
    let mut line = String::new();
    tokio::time::timeout(REQUEST_DEADLINE, BufReader::new(input.take(REQUEST_BYTES)).read_line(&mut line)).await??;
    match serde_json::from_str(&line)? {
        Request::Status => {
            let told = tokio::task::spawn_blocking(move || service.status());
            let told = tokio::time::timeout(STATUS_DEADLINE, told).await??;
            send(&mut output, &Reply::Status(Box::new(told))).await
        }
        Request::Unmount { lazy } => {
            let (lines, mut answers) = mpsc::channel(8);
            let (_until_return, written) = oneshot::channel();
            if orders.send(Order { lazy, replies: Replies { lines, written } }).await.is_err() {
                return Ok(());
            }
            pass_on(&mut answers, &mut output).await
        }
        request => {
            let (lines, mut answers) = mpsc::channel(8);
            let work = async move {
                let reply = service.carry_out(request, &lines).await;
                // The other half of this future reads it, or is gone with it.
                let _ = lines.send(reply).await;
                Ok(())
            };
            // Who asked went away, if sending fails: then nobody wants the rest.
            tokio::try_join!(work, pass_on(&mut answers, &mut output)).map(drop)
        }
    }
}

/// Sends what comes, and a sign of life each second, until nothing more can come.
async fn pass_on(answers: &mut mpsc::Receiver<Reply>, output: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    let mut pulse = tokio::time::interval(PULSE);
    loop {
        let reply = tokio::select! {
            reply = answers.recv() => match reply {
                Some(reply) => reply,
                None => return Ok(()),
            },
            _ = pulse.tick() => Reply::Alive,
        };
        send(output, &reply).await?;
    }
}

async fn send(output: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    output.write_all(&line).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Listener;

    use super::*;

    #[tokio::test]
    async fn only_sockets_that_nobody_listens_at_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let alive = Listener::bind(at("alive.sock")).unwrap();
        drop(Listener::bind(at("killed.sock")).unwrap());
        drop(Listener::bind(at("other")).unwrap());
        fs::write(at("file.sock"), "no socket").unwrap();
        sweep(dir.path()).await;
        let left = ["alive.sock", "killed.sock", "other", "file.sock"].map(|name| at(name).exists());
        assert_eq!(left, [true, false, true, true]);
        drop(alive);
    }
}
