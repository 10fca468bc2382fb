//! All metrics of a mount. Names follow prometheus.io, "Metric and label naming": base units, counters end
//! in `_total`. They are kept from version to version, as dashboards and alerts hang on them.

use super::exposition::Exposition;
use crate::app::rooms::{Counts, RequestCounts};
use crate::app::status::Facts;
use crate::cache::{CacheStats, DiskStats};
use crate::fs::FileCounts;
use crate::hooks::{HookStatus, HooksStatus};
use crate::telemetry::spans::SpanCounts;

/// What a mount is, in the labels of one metric: the others need not repeat it.
struct About<'a> {
    bucket: &'a str,
    prefix: &'a str,
    mountpoint: &'a str,
    endpoint: &'a str,
    region: &'a str,
    /// Of `--memory`.
    memory_bytes: u64,
}

/// What a mount counts, at this moment.
pub(super) fn look(facts: &Facts) -> Exposition {
    let (sources, connection) = (&facts.config.sources, &facts.rooms.connection);
    let about = About {
        bucket: &sources.bucket_name(),
        prefix: sources.root_prefix(),
        mountpoint: &facts.mountpoint.to_string_lossy(),
        endpoint: &connection.endpoint,
        region: &connection.layout.regions(),
        memory_bytes: facts.config.memory_bytes,
    };
    let mut text = Exposition::default();
    of_mount(&mut text, &about, &facts.rooms.counts());
    text
}

fn of_mount(text: &mut Exposition, about: &About<'_>, counts: &Counts) {
    build(text);
    let labels = [
        ("bucket", about.bucket),
        ("prefix", about.prefix),
        ("mountpoint", about.mountpoint),
        ("endpoint", about.endpoint),
        ("region", about.region),
    ];
    text.gauge("s3mount_mount_info", "What is mounted where; always 1.").with(&labels, 1_u64);
    requests(text, &counts.requests);
    kernel(text, counts);
    memory(text, about, counts);
    memory_cache(text, &counts.cache);
    if let Some(disk) = &counts.disk {
        disk_cache(text, disk);
    }
    files(text, &counts.files);
    if let Some(told) = &counts.hooks {
        hooks(text, told);
        hook_queues(text, told);
    }
}

pub(super) fn build(text: &mut Exposition) {
    let mut build = text.gauge("s3mount_build_info", "The version of s3mount; always 1.");
    build.with(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64);
}

pub(super) fn requests(text: &mut Exposition, counts: &RequestCounts) {
    let help =
        "Requests to S3 that have ended, every try, by outcome: ok, a kind of error, or abandoned by who waited.";
    let mut requests = text.counter("s3mount_s3_requests_total", help);
    for of in &counts.operations {
        for (outcome, count) in &of.outcomes {
            requests.with(&[("operation", of.operation), ("outcome", outcome)], count);
        }
    }
    let help = "From sending a request to S3 to the last byte of its answer.";
    let mut durations = text.histogram("s3mount_s3_request_duration_seconds", help);
    for of in counts.operations.iter().filter(|of| of.durations.count > 0) {
        durations.observed(&[("operation", of.operation)], &of.durations);
    }
    let mut retries = text.counter("s3mount_s3_retries_total", "Requests to S3 that were sent once more.");
    for of in &counts.operations {
        retries.with(&[("operation", of.operation)], of.retries);
    }
    let help = "Operations on S3 that failed after all tries, by the kind of error.";
    let mut failures = text.counter("s3mount_s3_failures_total", help);
    for (kind, count) in &counts.failures {
        failures.with(&[("error", kind.name())], count);
    }
    text.gauge("s3mount_s3_requests_in_flight", "Requests to S3 that are under way.").is(counts.in_flight);
    let help = "Bytes of objects sent to S3, also in requests that failed.";
    text.counter("s3mount_s3_sent_bytes_total", help).is(counts.bytes_sent);
    text.counter("s3mount_s3_received_bytes_total", "Bytes of objects received from S3.").is(counts.bytes_received);
}

fn kernel(text: &mut Exposition, counts: &Counts) {
    let mut asked = text.counter("s3mount_fuse_requests_total", "Requests of the kernel, by FUSE operation.");
    for (operation, count) in &counts.asked {
        asked.with(&[("operation", operation)], count);
    }
    let help = "Requests of the kernel that were answered with an error; ENOENT is an everyday answer.";
    let mut errors = text.counter("s3mount_fuse_errors_total", help);
    for (errno, count) in &counts.answered_errors {
        errors.with(&[("errno", errno)], count);
    }
}

fn memory(text: &mut Exposition, about: &About<'_>, counts: &Counts) {
    let mut used = text.gauge("s3mount_memory_used_bytes", "Of --memory, what is used, by what for.");
    for (used_for, bytes) in [
        ("cache", counts.cache.memory_bytes),
        ("in_flight", counts.cache.in_flight_bytes),
        ("drafts", counts.files.draft_memory_bytes),
        ("disk_queue", counts.disk.map_or(0, |disk| disk.waiting_bytes)),
    ] {
        used.with(&[("use", used_for)], bytes);
    }
    text.gauge("s3mount_memory_limit_bytes", "What --memory allows, for all of it.").is(about.memory_bytes);
}

fn memory_cache(text: &mut Exposition, cache: &CacheStats) {
    text.counter("s3mount_memory_cache_hits_total", "Reads answered from memory.").is(cache.hits);
    text.counter("s3mount_memory_cache_misses_total", "Reads that memory did not answer.").is(cache.misses);
    text.counter("s3mount_memory_cache_evictions_total", "Extents dropped to stay within the limit.")
        .is(cache.evictions);
}

fn disk_cache(text: &mut Exposition, disk: &DiskStats) {
    text.gauge("s3mount_disk_cache_bytes", "Bytes in the cache directory, of all mounts.").is(disk.disk_bytes);
    text.gauge("s3mount_disk_cache_limit_bytes", "What --cache-size allows.").is(disk.limit_bytes);
    text.gauge("s3mount_disk_cache_entries", "Versions of objects in the cache directory.").is(disk.entries);
    text.counter("s3mount_disk_cache_hits_total", "Reads answered from the cache on disk.").is(disk.hits);
    text.counter("s3mount_disk_cache_misses_total", "Reads that the cache on disk did not answer.").is(disk.misses);
    text.counter("s3mount_disk_cache_evictions_total", "Versions deleted to stay within the limit.").is(disk.evictions);
    text.counter("s3mount_disk_cache_damaged_blocks_total", "Blocks that did not match their checksum.")
        .is(disk.damaged);
    text.counter("s3mount_disk_cache_written_bytes_total", "Bytes written to the cache on disk.")
        .is(disk.written_bytes);
    let help = "Bytes that were not cached: the disk was slower than the readers, too full or failed.";
    text.counter("s3mount_disk_cache_skipped_bytes_total", help).is(disk.skipped_bytes);
}

fn files(text: &mut Exposition, files: &FileCounts) {
    text.gauge("s3mount_open_handles", "Open files, by how often each is open.").is(files.open_handles);
    text.gauge("s3mount_known_inodes", "Files and directories that the kernel knows.").is(files.inodes);
    text.gauge("s3mount_dirty_files", "Files that S3 does not have as they are here.").is(files.dirty);
    let waiting = &files.pending;
    text.gauge("s3mount_backlog_files", "Closed files that wait to be sent to S3.").is(waiting.files);
    text.gauge("s3mount_backlog_bytes", "Bytes of closed files that wait to be sent to S3.").is(waiting.bytes);
    let help = "For how long the oldest closed file has waited to be sent to S3; 0 if none waits.";
    text.gauge("s3mount_backlog_oldest_age_seconds", help).is(waiting.oldest_s);
    text.gauge("s3mount_removals_waiting", "Objects removed here that are still to go from the bucket.")
        .is(files.removals_waiting);
    let help = "Versions of ours that lost against another client's; their bytes are kept as .conflict files.";
    text.counter("s3mount_conflicts_total", help).is(files.conflicts);
    text.gauge("s3mount_rejected_files", "Files refused by hooks whose bytes are kept.").is(files.rejected);
    text.gauge("s3mount_odd_keys", "Keys seen in the bucket that fit no path.").is(files.odd_keys);
    let help = "Opens of files that the kernel reads from the cache on disk by itself.";
    text.counter("s3mount_passthrough_opens_total", help).is(files.passthrough_opens);
}

/// One metric with a sample for each hook.
fn of_hooks(text: &mut Exposition, name: &str, help: &str, hooks: &[HookStatus], value: impl Fn(&HookStatus) -> f64) {
    let mut samples = if name.ends_with("_total") { text.counter(name, help) } else { text.gauge(name, help) };
    for hook in hooks {
        samples.with(&[("hook", &hook.name)], value(hook));
    }
}

/// What hooks have done.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows numbers as f64 only")]
pub(super) fn hooks(text: &mut Exposition, told: &HooksStatus) {
    let hooks = &told.hooks;
    let mut each = |name: &str, help: &str, value: fn(&HookStatus) -> u64| {
        of_hooks(text, name, help, hooks, |hook| value(hook) as f64);
    };
    each("s3mount_hook_invocations_total", "Runs of a hook, retries among them.", |hook| hook.invocations);
    each("s3mount_hook_errors_total", "Runs of a hook that failed.", |hook| hook.errors);
    each("s3mount_hook_refused_total", "What a synchronous hook has forbidden.", |hook| hook.refused);
    let help = "Events whose object had changed before the hook saw it.";
    each("s3mount_hook_superseded_total", help, |hook| hook.superseded);
    let help = "Events that a hook was not run for, as it was done with the same bytes.";
    each("s3mount_hook_unchanged_total", help, |hook| hook.unchanged);
    let help = "Most memory that one run of a hook has used.";
    each("s3mount_hook_max_memory_used_bytes", help, |hook| hook.max_memory_used_bytes);
    let help = "Memory that a hook may have, times the time that it ran: Lambda bills it as GB-seconds of 2^30 bytes.";
    let byte_seconds = |hook: &HookStatus| hook.gb_seconds * (1_u64 << 30) as f64;
    of_hooks(text, "s3mount_hook_billed_byte_seconds_total", help, hooks, byte_seconds);
    let mut durations = text.histogram("s3mount_hook_duration_seconds", "How long the runs of a hook took.");
    for hook in hooks {
        durations.observed(&[("hook", &hook.name)], &hook.durations);
    }
    let help = "Events that no hook saw, because too many had a hand in their object already.";
    text.counter("s3mount_hook_recursive_invocations_dropped_total", help).is(told.recursive_invocations_dropped);
    let help = "Records for the destinations of hooks that were given up.";
    text.counter("s3mount_hook_destination_delivery_failures_total", help).is(told.destination_delivery_failures);
}

/// What they have yet to do; of a worker the queue knows that.
#[expect(clippy::cast_precision_loss, reason = "Prometheus knows numbers as f64 only")]
fn hook_queues(text: &mut Exposition, told: &HooksStatus) {
    let mut each = |name: &str, help: &str, value: fn(&HookStatus) -> u64| {
        of_hooks(text, name, help, &told.hooks, |hook| value(hook) as f64);
    };
    each("s3mount_hook_queued", "Events that wait for a hook, or for its next try.", |hook| hook.queued);
    each("s3mount_hook_running", "Runs of a hook at this moment.", |hook| hook.running);
    each("s3mount_hook_dead_letters", "Events that a hook was given up for, and that are kept.", |hook| hook.dead);
    let help = "Events that no hook was asked about yet.";
    text.gauge("s3mount_hook_events_waiting", help).is(told.events_waiting);
}

/// Of `--otlp-endpoint`.
pub(super) fn collector(text: &mut Exposition, told: SpanCounts) {
    let help = "Spans by what became of them: the collector of --otlp-endpoint has them, or nobody will.";
    let mut spans = text.counter("s3mount_otlp_spans_total", help);
    spans.with(&[("outcome", "sent")], told.sent);
    spans.with(&[("outcome", "dropped")], told.dropped);
}

#[cfg(test)]
mod tests;
