//! All metrics of a worker (`s3mount hooks worker`): those of a mount, as far as it has what they are about, and the queue's.

use std::sync::Arc;

use super::exposition::Exposition;
use super::of_mount::{build, hooks, requests};
use crate::app::rooms::RequestCounts;
use crate::bucket::client::Connection;
use crate::bucket::request_log::RequestLog;
use crate::config::Config;
use crate::hooks::{Hooks, HooksStatus, MessageCounts};
use crate::relay::Queue;

/// What a worker is, and where it counts.
pub(in crate::app) struct Working {
    /// In the labels of one metric, and in what a collector is told.
    about: [(&'static str, String); 5],
    requests: Arc<RequestLog>,
    hooks: Arc<Hooks>,
}

impl Working {
    pub(in crate::app) fn new(config: &Config, connection: &Connection, queue: &Queue, hooks: &Arc<Hooks>) -> Self {
        let about = [
            ("bucket", config.sources.bucket_name()),
            ("prefix", config.sources.root_prefix().to_owned()),
            ("queue", queue.url().to_owned()),
            ("endpoint", connection.endpoint.clone()),
            ("region", connection.layout.regions()),
        ];
        Self { about, requests: Arc::clone(&connection.requests), hooks: Arc::clone(hooks) }
    }

    /// Names and values.
    pub(in crate::app) fn about(&self) -> &[(&'static str, String)] {
        &self.about
    }
}

/// What a worker counts, at this moment.
pub(super) fn look(working: &Working) -> Exposition {
    let mut text = Exposition::default();
    let Working { about, requests, hooks } = working;
    of_worker(&mut text, about, hooks.messages(), &RequestCounts::of(requests), &hooks.status());
    text
}

pub(super) fn of_worker(
    text: &mut Exposition,
    about: &[(&str, String); 5],
    told: MessageCounts,
    counts: &RequestCounts,
    status: &HooksStatus,
) {
    build(text);
    let labels = about.each_ref().map(|(name, value)| (*name, value.as_str()));
    text.gauge("s3mount_worker_info", "What hooks are run for; always 1.").with(&labels, 1_u64);
    messages(text, told);
    requests(text, counts);
    hooks(text, status);
}

fn messages(text: &mut Exposition, told: MessageCounts) {
    let help = "Messages that the queue has given out to this worker, some of them more than once.";
    text.counter("s3mount_queue_messages_received_total", help).is(told.received);
    let help = "Messages that were deleted, as all of their hooks were done.";
    text.counter("s3mount_queue_messages_deleted_total", help).is(told.deleted);
    let help = "Messages that were left to the queue: a hook failed for them, or the worker was ended.";
    text.counter("s3mount_queue_messages_returned_total", help).is(told.returned);
    let help = "Questions for messages that the queue did not answer as it should.";
    text.counter("s3mount_queue_receive_failures_total", help).is(told.failed_receives);
}
