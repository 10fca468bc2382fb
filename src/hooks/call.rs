//! A hook called with a payload of the caller's, as Lambda's Invoke has it: at once, or by the queue.
//!
//! A payload that is the event of an object in this mount brings the object along, as it is now.

use super::destinations::error_kind;
use super::invocation::{Outcome, Publication, Surroundings, Tried, by_bucket};
use super::invoke::{Cancel, find};
use super::{Error, Hooks, Result, notification};
use crate::bucket::Layout;
use crate::error::Kind;
use crate::journal::{Event, EventName, NewCall, NewEvent, Task, stored_etag};

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    /// What the hook wrote to stdout; of a failure nothing.
    pub answer: Vec<u8>,
    /// How much more there was.
    pub answer_dropped: u64,
    /// Why it failed; `None` if it did not.
    pub problem: Option<CallProblem>,
    /// As in the hook's log.
    pub log: String,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallProblem {
    /// As Lambda names it: `Runtime.ExitError` and so on.
    pub kind: &'static str,
    pub message: String,
}

impl Hooks {
    /// Runs a hook once with a payload under this request id, and publishes what it leaves. Nothing of it
    /// is retried. Stops when dropped.
    ///
    /// # Errors
    /// When there is no such hook, or hooks are stopped. What goes wrong with the run is in the answer.
    pub async fn call(&self, hook: &str, id: &str, payload: String) -> Result<Called> {
        self.unless_stopping(self.call_once(hook, id, payload)).await
    }

    async fn call_once(&self, hook: &str, id: &str, payload: String) -> Result<Called> {
        let hook = find(&self.worker.hooks(), hook)?;
        let _place = self.on_demand.acquire().await.map_err(|_| Error::Stopping)?;
        let fact = NewEvent::now(EventName::CreatedPut, "");
        let event = Event { id: id.to_owned(), sequence: 0, fact };
        let task = Task::new(hook.spec.name.clone(), 0, Some(payload), event);
        let cancel = Cancel::default();
        let tried = self.worker.surroundings.attempt(&hook, &task, Publication::Publish, cancel.0.subscribe()).await;
        if let Outcome::Done(events) = &tried.outcome {
            self.worker.journal.settle(&[], events.clone()).await?;
        }
        Ok(called(tried))
    }

    /// Has a hook called by the queue: durable when this returns, then as often as its settings say.
    ///
    /// # Errors
    /// When there is no such hook, or it could not be stored.
    pub async fn call_later(&self, hook: &str, id: &str, payload: String) -> Result<()> {
        let hook = find(&self.worker.hooks(), hook)?.spec.name.clone();
        let call = NewCall { id: id.to_owned(), hook, payload, lineage: Vec::new() };
        Ok(self.worker.journal.call(vec![call]).await?)
    }
}

fn called(tried: Tried) -> Called {
    let ended = tried.answer.as_ref().map(|(ended, _)| ended);
    let problem = match &tried.outcome {
        Outcome::Done(_) => None,
        Outcome::Superseded => Some("the object was changed or removed meanwhile".to_owned()),
        Outcome::Cancelled => Some("s3mount is being stopped".to_owned()),
        Outcome::Failed(problem) | Outcome::Fatal(problem) | Outcome::TooOld(problem) | Outcome::Delayed(problem) => {
            Some(problem.clone())
        }
    };
    let problem = problem.map(|message| CallProblem { kind: error_kind(ended), message });
    let (answer, answer_dropped) = match tried.answer {
        Some((_, captured)) if problem.is_none() => (captured.bytes, captured.dropped),
        _ => (Vec::new(), 0),
    };
    Called { answer, answer_dropped, problem, log: tried.log }
}

/// What a payload says happened to a key of the mount, if it is an S3 event.
fn told(payload: &str, layout: &Layout) -> Option<(EventName, String)> {
    let told = notification::records(payload).ok()?.into_iter().next()?;
    let name = told.name.unwrap_or(EventName::CreatedPut);
    Some((name, layout.here(&told.bucket, &told.key)?))
}

impl Surroundings {
    /// The task of a call as it is to be run: about the object that its payload names, if that is there.
    pub(super) async fn called(&self, task: &Task, payload: &str) -> std::result::Result<Task, Outcome> {
        let Some((name, key)) = told(payload, &self.runner.layout) else { return Ok(task.clone()) };
        let mut about = task.clone();
        about.event.fact.name = name;
        about.event.fact.key = key;
        let is_ours = self.path_of(&about.event.fact).is_ok_and(|path| !path.is_empty());
        if !is_ours {
            return Ok(task.clone());
        }
        if name == EventName::RemovedDelete {
            return Ok(about);
        }
        match self.bucket.head(&about.event.fact.key).await {
            Ok(found) => {
                (about.event.fact.size, about.event.fact.etag) = (found.size, Some(stored_etag(&found.etag)));
                Ok(about)
            }
            // As in Lambda: the function is called all the same, and finds nothing.
            Err(error) if error.kind == Kind::NotFound => Ok(task.clone()),
            Err(error) => Err(by_bucket(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, bucket: &str, key: &str) -> String {
        format!(
            r#"{{"Records":[{{"eventName":"{name}","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"{key}"}}}}}}]}}"#
        )
    }

    #[test]
    fn a_payload_that_is_an_event_of_this_bucket_names_its_object() {
        let layout = Layout::of_bucket("b", "", "");
        for (payload, expected) in [
            (event("ObjectCreated:Put", "b", "a+b/%C3%A4%2B.jpg"), Some((EventName::CreatedPut, "a b/ä+.jpg"))),
            (event("s3:ObjectRemoved:DeleteMarkerCreated", "b", "a"), Some((EventName::RemovedDelete, "a"))),
            (event("ObjectCreated:Post", "b", "a%2Fb"), Some((EventName::CreatedPut, "a/b"))),
            (event("ObjectCreated:Put", "other", "a"), None),
            (event("ObjectCreated:Put", "b", "%FF"), None),
            ("{}".to_owned(), None),
            ("{\"Records\":[]}".to_owned(), None),
            ("no json".to_owned(), None),
        ] {
            assert_eq!(told(&payload, &layout), expected.map(|(name, key)| (name, key.to_owned())), "{payload}");
        }
    }
}
