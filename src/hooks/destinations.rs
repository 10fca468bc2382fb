//! Where it is told how the events of a hook ended, in Lambda's words: another hook, an object, a queue,
//! a webhook, a function.
//!
//! What is to be told is noted in the transaction that ends the event's task: as a call of the other hook,
//! or as a task under the destination's own name, which the worker delivers.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};

use super::event::{self, timestamp};
use super::invocation::{Surroundings, Tried};
use super::rules::MAX_LINEAGE;
use super::sandbox::Ended;
use super::{HookSpec, lineage};
use crate::bucket::{self, Layout, Properties, PutOptions};
use crate::error::Kind;
use crate::journal::{EventName, NewCall, NewEvent, Task, stored_etag};
use crate::relay::{self, Function, Queue};

/// What can't be delivered for so long is given up.
const DELIVERY_MAX_AGE: Duration = Duration::from_hours(24);

/// Where to tell something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A hook of the same settings.
    Hook(String),
    /// An object below this directory of the mount, which ends in `/`.
    Prefix(String),
    Queue(Queue),
    Webhook(String),
    Function(Function),
}

/// How the events of a hook are told to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Success,
    RetriesExhausted,
    EventAgeExceeded,
}

impl HookSpec {
    /// Who is told that a task has ended so.
    pub(super) fn told_of(&self, condition: Condition) -> Option<&Destination> {
        if condition == Condition::Success { self.on_success.as_ref() } else { self.on_failure.as_ref() }
    }
}

impl Destination {
    /// Reads `hook:NAME`, `prefix:DIRECTORY`, `sqs:URL`, `webhook:URL` or `lambda:NAME`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("hook", name)) if !name.is_empty() => Ok(Self::Hook(name.to_owned())),
            Some(("prefix", directory)) => {
                let trimmed = directory.trim_matches('/');
                match trimmed.split('/').find_map(crate::key::oddity) {
                    Some(oddity) => Err(format!("\"{directory}\" can't be a directory ({oddity:?})")),
                    None => Ok(Self::Prefix(format!("{trimmed}/"))),
                }
            }
            Some(("sqs", url)) => Queue::at(url).map(Self::Queue),
            Some(("webhook", url)) => relay::check_url(url).map(|()| Self::Webhook(url.to_owned())),
            Some(("lambda", name)) => Function::named(name).map(Self::Function),
            _ => Err(format!(
                "\"{text}\" is no destination: hook:NAME, prefix:DIRECTORY, sqs:URL, webhook:URL or lambda:NAME"
            )),
        }
    }

    /// The name that its tasks have. No hook has such a name, but the one that is meant.
    #[must_use]
    pub fn task_name(&self) -> String {
        match self {
            Self::Hook(name) => name.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Destination {
    /// As [`Destination::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(name) => write!(f, "hook:{name}"),
            Self::Prefix(directory) => write!(f, "prefix:{directory}"),
            Self::Queue(queue) => write!(f, "sqs:{}", queue.url()),
            Self::Webhook(url) => write!(f, "webhook:{url}"),
            Self::Function(function) => write!(f, "lambda:{function}"),
        }
    }
}

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::RetriesExhausted => "RetriesExhausted",
            Self::EventAgeExceeded => "EventAgeExceeded",
        }
    }
}

/// What follows when a task has ended so. `payload`: what the hook was given.
pub(super) fn calls(
    spec: &HookSpec,
    layout: &Layout,
    task: &Task,
    payload: &str,
    condition: Condition,
    tried: &Tried,
    problem: Option<&str>,
) -> Vec<NewCall> {
    let Some(destination) = spec.told_of(condition) else { return Vec::new() };
    let lineage = [task.event.fact.lineage.as_slice(), std::slice::from_ref(&spec.name)].concat();
    if lineage.len() >= MAX_LINEAGE {
        tracing::warn!("nobody is told of {}: {MAX_LINEAGE} hooks had a hand in it already", task.event.id);
        return Vec::new();
    }
    let record = record(&spec.name, layout, task, payload, condition, tried, problem);
    vec![NewCall { id: task.event.id.clone(), hook: destination.task_name(), payload: record.to_string(), lineage }]
}

/// The record as Lambda writes it, version 1.0.
fn record(
    hook: &str,
    layout: &Layout,
    task: &Task,
    payload: &str,
    condition: Condition,
    tried: &Tried,
    problem: Option<&str>,
) -> Value {
    // As text, where it is no JSON.
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    let arn = format!("arn:aws:lambda:{}:000000000000:function:{hook}:$LATEST", event::region(layout, task));
    let mut record = json!({
        "version": "1.0",
        "timestamp": timestamp(SystemTime::now()),
        "requestContext": {
            "requestId": task.event.id,
            "functionArn": arn,
            "condition": condition.name(),
            "approximateInvokeCount": task.failures + u32::from(condition == Condition::Success),
        },
        "requestPayload": value(payload),
    });
    if let Some((ended, answer)) = &tried.answer {
        let mut context = json!({"statusCode": 200, "executedVersion": "$LATEST"});
        if let Some(problem) = problem {
            context["functionError"] = "Unhandled".into();
            record["responsePayload"] = json!({"errorType": error_kind(Some(ended)), "errorMessage": problem});
        } else {
            let text = String::from_utf8_lossy(&answer.bytes);
            record["responsePayload"] = if text.is_empty() { Value::Null } else { value(&text) };
        }
        record["responseContext"] = context;
    }
    record
}

/// The name that Lambda has for an end; the nearest one.
pub(super) fn error_kind(ended: Option<&Ended>) -> &'static str {
    match ended {
        // It ended well, and what it left could not be stored.
        Some(Ended::Exit(0)) => "Runtime.OutputFailed",
        Some(Ended::Exit(_)) => "Runtime.ExitError",
        Some(Ended::TimedOut) => "Sandbox.Timedout",
        Some(Ended::Trapped(_)) => "Runtime.Trapped",
        Some(Ended::StorageExceeded(_)) => "Runtime.StorageExceeded",
        Some(Ended::Cancelled) => "Runtime.Cancelled",
        Some(Ended::NotStarted(_)) => "Runtime.InvalidEntrypoint",
        None => "Runtime.NotStarted",
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delivered {
    /// And these are the facts about it.
    Done(Vec<NewEvent>),
    Again(String),
    Never(String),
}

impl Surroundings {
    /// Tells a destination that is no hook what a task says.
    pub(super) async fn deliver(&self, destination: &Destination, task: &Task) -> Delivered {
        let payload = task.payload.clone().unwrap_or_default();
        let id = &task.event.id;
        let told = match destination {
            Destination::Hook(name) => {
                return Delivered::Never(format!("{name} is a hook, and takes its tasks itself"));
            }
            Destination::Prefix(directory) => return self.write_record(directory, task, payload).await,
            other => {
                let group = task.event.fact.lineage.last().map_or("s3mount", String::as_str);
                self.say(other, id, group, payload).await
            }
        };
        let age = SystemTime::now().duration_since(task.redriven.unwrap_or(task.event.fact.time)).unwrap_or_default();
        match told {
            Ok(()) => Delivered::Done(Vec::new()),
            Err(relay::Error::Away(problem)) if age < DELIVERY_MAX_AGE => Delivered::Again(problem),
            Err(error) => Delivered::Never(error.to_string()),
        }
    }

    /// Says something to who is neither a hook nor an object here.
    pub(super) async fn say(&self, to: &Destination, id: &str, group: &str, json: String) -> relay::Result<()> {
        match to {
            Destination::Webhook(url) => self.relay.post(url, id, json).await,
            Destination::Queue(queue) => self.relay.send(queue, id, group, &json).await,
            Destination::Function(function) => self.relay.invoke(function, json).await,
            Destination::Hook(_) | Destination::Prefix(_) => {
                Err(relay::Error::Refused(format!("{to} is of this mount")))
            }
        }
    }

    /// `DIRECTORY/HOOK/ID.json`: the same over all tries.
    async fn write_record(&self, directory: &str, task: &Task, record: String) -> Delivered {
        let lineage = task.event.fact.lineage.clone();
        let hook = lineage.last().map_or("hook", String::as_str);
        let key = format!("{}{directory}{hook}/{}.json", self.runner.prefix, task.event.id);
        let size = record.len() as u64;
        let (metadata, properties) =
            (lineage::metadata(&lineage), Properties::of_type(Some("application/json".into())));
        let options = PutOptions { metadata, properties, ..PutOptions::default() };
        match self.bucket.put(&key, Bytes::from(record), &options).await {
            Ok(etag) => {
                self.front.changed(&key);
                let etag = Some(stored_etag(&etag));
                Delivered::Done(vec![NewEvent { size, etag, lineage, ..NewEvent::now(EventName::CreatedPut, &key) }])
            }
            Err(error) if may_go_better(&error) => Delivered::Again(error.to_string()),
            Err(error) => Delivered::Never(error.to_string()),
        }
    }
}

fn may_go_better(error: &bucket::Error) -> bool {
    matches!(error.kind, Kind::Busy | Kind::Deadline | Kind::Unreachable | Kind::NoCredentials)
}

/// The destinations of hooks that are no hooks themselves, each once.
pub(super) fn queues<'a>(hooks: impl Iterator<Item = &'a HookSpec>) -> Vec<Arc<Destination>> {
    let mut found: Vec<Arc<Destination>> = Vec::new();
    for destination in hooks.flat_map(|spec| [&spec.on_success, &spec.on_failure]).flatten() {
        if !matches!(destination, Destination::Hook(_)) && !found.iter().any(|known| **known == *destination) {
            found.push(Arc::new(destination.clone()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_and_told_alike() {
        for text in ["hook:a", "prefix:results/", "sqs:http://h:1/1/q", "webhook:https://h/x?y=z", "lambda:f:live"] {
            assert_eq!(Destination::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Destination::parse("prefix:/a/b").unwrap(), Destination::Prefix("a/b/".into()));
        for wrong in
            ["", "a", "hook:", "prefix:", "prefix:a/../b", "sqs:a", "webhook:a", "sns:x", "webhook:ftp://h", "lambda:"]
        {
            assert!(Destination::parse(wrong).is_err(), "{wrong}");
        }
    }
}
