//! What commands ask of hooks: of a running mount's, or of a settings file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::control::{HooksRequest, Reply};
use super::status::Facts;
use super::{Failure, serve};
use crate::error::Kind;
use crate::hooks::{self, Hooks, is_at_or_below};
use crate::mount;

pub use crate::fs::Rejected;
pub use crate::hooks::{
    DeadLetter, Description, HookTrace, Invocation, LocalRun, OpenTask, Redriven, Replay, Replayed, Switched, Trace,
    Which, is_hook_name,
};

/// Dead letters in one reply: each has some kilobytes.
const LETTERS_AT_A_TIME: usize = 200;
/// Between two tries to store what could not be.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Reads a settings file and compiles its modules, as a mount would.
///
/// # Errors
/// What a mount would say.
pub fn validate_hooks(file: &Path) -> Result<Vec<Description>, Failure> {
    Ok(hooks::validate(file)?)
}

/// Runs a hook of a settings file once on a local file. Must be called before any thread is started.
///
/// # Errors
/// Why it could not be run; how it ended is in the answer.
pub fn invoke_on_file(run: &LocalRun) -> Result<Invocation, Failure> {
    let runtime = serve::runtime()?;
    Ok(hooks::invoke_file(run, runtime.handle())?)
}

impl Facts {
    pub(super) async fn ask_hooks(&self, ask: HooksRequest, tell: &mpsc::Sender<Reply>) -> Reply {
        let ask = match ask {
            HooksRequest::Deploy { file } => {
                let done = self.deploy(file).await;
                return done.map_or_else(Reply::Refused, |switched| Reply::Switched(Box::new(switched)));
            }
            HooksRequest::Remove { hook } => {
                let done = self.rooms.hooks.remove(&hook).await;
                return done.map_or_else(Reply::Refused, |switched| Reply::Switched(Box::new(switched)));
            }
            ask => ask,
        };
        let Some(hooks) = self.rooms.hooks.running() else {
            let message = format!("the mount on {} has no hooks", self.mountpoint.display());
            let hint = "mount with --hooks FILE, or `s3mount hooks deploy FILE`";
            return Reply::Refused(Failure::new(Kind::Usage, message).hint(hint));
        };
        self.carry_out_with(&hooks, ask, tell).await.unwrap_or_else(Reply::Refused)
    }

    async fn deploy(&self, file: Option<PathBuf>) -> Result<Switched, Failure> {
        if let Some(file) = file.as_ref().filter(|file| mount::lies_on(file, &self.mountpoint)) {
            let message = format!("{} lies on the mount itself", file.display());
            return Err(Failure::new(Kind::Usage, message).hint("the mount would wait for itself: copy it elsewhere"));
        }
        self.rooms.hooks.deploy(file.as_deref()).await
    }

    fn rejected(&self) -> Result<Reply, Failure> {
        let rejected = tokio::task::block_in_place(|| self.rooms.fs.rejected());
        Ok(Reply::Rejected(rejected.map_err(|cause| shelf_failed(&cause))?))
    }

    fn drop_rejected(&self, id: Option<&str>) -> Result<Reply, Failure> {
        let count =
            tokio::task::block_in_place(|| self.rooms.fs.drop_rejected(id)).map_err(|cause| shelf_failed(&cause))?;
        Ok(Reply::Moved { count, unknown_hooks: Vec::new() })
    }

    async fn wait_for_hooks(&self, hooks: &Hooks, path: &str, deadline_ms: Option<u64>) -> Result<Reply, Failure> {
        let waiting = async {
            // What was closed or removed has its event when the bucket knows of it.
            while self.rooms.sync(None).await.iter().any(|left| is_at_or_below(&left.path, path)) {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Ok(Reply::Waited { dead: hooks.wait(path).await? })
        };
        let Some(deadline_ms) = deadline_ms else { return waiting.await };
        tokio::time::timeout(Duration::from_millis(deadline_ms), waiting).await.unwrap_or_else(|_| {
            let late = Failure::new(Kind::Deadline, "the hooks are not done yet");
            Err(late.hint("`s3mount hooks trace KEY` tells what they wait for"))
        })
    }

    async fn carry_out_with(
        &self,
        hooks: &Hooks,
        ask: HooksRequest,
        tell: &mpsc::Sender<Reply>,
    ) -> Result<Reply, Failure> {
        match ask {
            HooksRequest::List => Ok(Reply::Hooks(hooks.describe())),
            HooksRequest::DeadLetters { which } => {
                let letters = tokio::task::block_in_place(|| hooks.dead_letters(&which))?;
                for some in letters.chunks(LETTERS_AT_A_TIME) {
                    // Nobody listens any more: then nobody misses the rest.
                    let _ = tell.send(Reply::DeadLetters(some.to_vec())).await;
                }
                Ok(Reply::Done)
            }
            HooksRequest::Redrive { which } => {
                let Redriven { count, unknown_hooks } = hooks.redrive(&which).await?;
                Ok(Reply::Moved { count, unknown_hooks })
            }
            HooksRequest::Drop { which } => {
                let count = hooks.drop_dead_letters(&which).await?;
                Ok(Reply::Moved { count, unknown_hooks: Vec::new() })
            }
            HooksRequest::Invoke { hook, path, event, dry_run } => {
                Ok(Reply::Invoked(Box::new(hooks.invoke(&hook, &path, &event, dry_run).await?)))
            }
            HooksRequest::Replay { replay } => {
                // Whoever does not keep up misses what the next one says again.
                let heard = |so_far: &Replayed| drop(tell.try_send(Reply::Replaying(so_far.clone())));
                let replayed = hooks.replay(&replay, heard).await?;
                tracing::info!(?replay, ?replayed, "what is in the bucket was told to hooks again");
                Ok(Reply::Replayed(replayed))
            }
            HooksRequest::Trace { path } => {
                Ok(Reply::Traced(Box::new(tokio::task::block_in_place(|| hooks.trace(&path))?)))
            }
            HooksRequest::Rejected => self.rejected(),
            HooksRequest::DropRejected { id } => self.drop_rejected(id.as_deref()),
            HooksRequest::Wait { path, deadline_ms } => self.wait_for_hooks(hooks, &path, deadline_ms).await,
            HooksRequest::Deploy { .. } | HooksRequest::Remove { .. } => Ok(Reply::Done),
        }
    }
}

fn shelf_failed(cause: &std::io::Error) -> Failure {
    Failure::new(Kind::Local, format!("the files that hooks refused: {cause}"))
}
