//! What a running mount does for commands.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::Status;
use super::control::{Reply, Request, Service};
use super::status::Facts;

impl Service for Facts {
    fn status(&self) -> Status {
        Facts::status(self)
    }

    fn carry_out<'a>(&'a self, request: Request, tell: &'a mpsc::Sender<Reply>) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            match request {
                Request::Warm { paths } => self.warm(&paths, tell).await,
                Request::Invalidate { paths } => self.invalidate(&paths).await,
                Request::ClearCache { directory } => self.clear(&directory).await,
                Request::Sync { timeout_ms } => self.sync(timeout_ms.map(Duration::from_millis), tell).await,
                Request::Restore { restore } => self.restore(&restore, tell).await,
                Request::Versions { path } => self.versions(&path).await,
                Request::Undelete { path, version } => self.undelete(&path, version.as_deref()).await,
                Request::Hooks { ask } => self.ask_hooks(ask, tell).await,
                Request::Status | Request::Unmount { .. } => Reply::Done,
            }
        })
    }
}
