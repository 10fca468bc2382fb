//! The mount's side: answers about its status, and passes orders on to the main loop.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Reply, Request};
use crate::app::Status;

/// A request is a short line that a command writes at once.
const REQUEST_DEADLINE: Duration = Duration::from_secs(5);
/// Less than the command waits.
const STATUS_DEADLINE: Duration = Duration::from_secs(4);
const REQUEST_BYTES: u64 = 4096;
/// More than anybody needs; each costs a descriptor.
const CONNECTIONS: usize = 16;

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
    /// Listens at `path`, in place of what a killed process left there.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start<S>(path: &Path, status: S, orders: mpsc::Sender<Order>) -> io::Result<Self>
    where
        S: Fn() -> Status + Send + Sync + 'static,
    {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let inode = fs::symlink_metadata(path)?.ino();
        let accepting = tokio::spawn(accept(listener, Arc::new(status), orders));
        Ok(Self { path: path.to_owned(), inode, accepting })
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

async fn accept<S>(listener: UnixListener, status: Arc<S>, orders: mpsc::Sender<Order>)
where
    S: Fn() -> Status + Send + Sync + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (status, orders) = (Arc::clone(&status), orders.clone());
        tokio::spawn(async move {
            if let Err(cause) = answer(stream, status, orders).await {
                tracing::debug!(%cause, "control connection");
            }
            drop(place);
        });
    }
}

async fn answer<S>(stream: UnixStream, status: Arc<S>, orders: mpsc::Sender<Order>) -> io::Result<()>
where
    S: Fn() -> Status + Send + Sync + 'static,
{
    let (input, mut output) = stream.into_split();
    let mut line = String::new();
    tokio::time::timeout(REQUEST_DEADLINE, BufReader::new(input.take(REQUEST_BYTES)).read_line(&mut line)).await??;
    match serde_json::from_str(&line)? {
        Request::Status => {
            // It takes locks and reads the journal.
            let told = tokio::task::spawn_blocking(move || status());
            let told = tokio::time::timeout(STATUS_DEADLINE, told).await??;
            send(&mut output, &Reply::Status(Box::new(told))).await
        }
        Request::Unmount { lazy } => {
            let (lines, mut answers) = mpsc::channel(8);
            let (_until_return, written) = oneshot::channel();
            if orders.send(Order { lazy, replies: Replies { lines, written } }).await.is_err() {
                return Ok(());
            }
            while let Some(reply) = answers.recv().await {
                send(&mut output, &reply).await?;
            }
            Ok(())
        }
    }
}

async fn send(output: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    output.write_all(&line).await
}
