//! `s3mount hooks validate FILE`, `list [MOUNTPOINT]`, `stats [MOUNTPOINT]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::app::control::{HooksRequest, Reply, Request};
use crate::app::{self, Description, Failure};
use crate::cli::sockets::{Socket, all_statuses};
use crate::cli::status_text::bytes;
use crate::cli::{pretty, say};
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Validate {
    /// The settings file, as --hooks takes it
    file: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Of this mount only; without it, of all mounts of this user
    mountpoint: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Stats {
    /// Of this mount only; without it, of all mounts of this user
    mountpoint: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let hooks = app::validate_hooks(&self.file)?;
        if self.json {
            say(&pretty(&hooks));
        } else {
            say(&hooks.iter().map(described).collect::<Vec<_>>().join("\n"));
            say(&format!("{}: {} hook(s), nothing wrong\n", printable(&self.file.to_string_lossy()), hooks.len()));
        }
        Ok(())
    }
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut found = Vec::new();
        for socket in meant(self.mountpoint.as_deref())? {
            let request = Request::Hooks { ask: HooksRequest::List };
            let hooks = socket.ask_for(&request, |reply| match reply {
                Reply::Hooks(hooks) => Some(hooks),
                _ => None,
            })?;
            found.push((socket.mountpoint, hooks));
        }
        if self.json {
            let all: Vec<Value> = found.iter().map(|(at, hooks)| json!({"mountpoint": at, "hooks": hooks})).collect();
            say(&pretty(&all));
        } else if found.is_empty() {
            say("no mount has hooks\n");
        }
        for (mountpoint, hooks) in found.iter().filter(|_| !self.json) {
            say(&format!("{}\n\n", printable(&mountpoint.to_string_lossy())));
            say(&hooks.iter().map(|hook| described(hook) + "\n").collect::<String>());
        }
        Ok(())
    }
}

impl Stats {
    pub(super) fn run(self) -> Result<(), Failure> {
        let statuses = match &self.mountpoint {
            Some(mountpoint) => vec![Socket::at(mountpoint)?.status()?],
            None => all_statuses()?,
        };
        let found: Vec<_> = statuses.iter().filter(|status| status.hooks.is_object()).collect();
        if self.json {
            let told = found.iter().map(|status| json!({"mountpoint": status.mountpoint, "hooks": status.hooks}));
            say(&pretty(&told.collect::<Vec<Value>>()));
        } else if found.is_empty() {
            say("no mount has hooks\n");
        }
        for status in found.iter().filter(|_| !self.json) {
            say(&counted(&status.mountpoint, &status.hooks));
        }
        Ok(())
    }
}

/// The mounts that have hooks.
fn meant(mountpoint: Option<&Path>) -> Result<Vec<Socket>, Failure> {
    if let Some(mountpoint) = mountpoint {
        return Ok(vec![Socket::at(mountpoint)?]);
    }
    let statuses = all_statuses()?.into_iter().filter(|status| status.hooks.is_object());
    statuses.map(|status| Socket::at(&status.mountpoint)).collect()
}

fn described(hook: &Description) -> String {
    let mut lines = vec![printable(&hook.name)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<12} {}", printable(&text)));
    match &hook.target {
        Some(target) => line("target", target.clone()),
        None => line("module", hook.wasm.to_string_lossy().into_owned()),
    }
    match &hook.on_error {
        _ if hook.view.is_some() => line("view", hook.view.clone().unwrap_or_default()),
        Some(on_error) => line("asked before", format!("{}; if it fails: {on_error}", hook.events.join(", "))),
        None => line("events", hook.events.join(", ")),
    }
    for (name, patterns) in [("match", &hook.matches), ("exclude", &hook.exclude)] {
        if !patterns.is_empty() {
            line(name, patterns.join("  "));
        }
    }
    for (name, text) in [("prefix", &hook.prefix), ("suffix", &hook.suffix)] {
        if !text.is_empty() {
            line(name, text.clone());
        }
    }
    if hook.mode == "async" && hook.target.is_none() {
        line("output", hook.output.clone().unwrap_or_else(|| "beside the source".into()));
    }
    line("kind", hook.kind.clone());
    line("wants", wanted(&hook.imports));
    for (name, granted) in [("may read", &hook.read), ("may write", &hook.write), ("config", &hook.config)] {
        if !granted.is_empty() {
            line(name, granted.join("  "));
        }
    }
    if hook.url {
        line("url", format!("/function-url/{}/ of --lambda-listen", hook.name));
    }
    if hook.allow_recursion {
        line("recursion", "may fire itself, also through others".into());
    }
    for (name, destination) in [("on success", &hook.on_success), ("on failure", &hook.on_failure)] {
        if let Some(destination) = destination {
            line(name, destination.clone());
        }
    }
    if !hook.env.is_empty() {
        line("environment", hook.env.join(", "));
    }
    line(
        "limits",
        format!(
            "memory {}, {} on disk, {}, {} at a time",
            bytes(hook.memory_bytes),
            bytes(hook.storage_bytes),
            time(hook.timeout_ms),
            hook.concurrency
        ),
    );
    let age =
        hook.max_age_s.map_or(String::new(), |age_s| format!(", as long as the event is not older than {age_s} s"));
    let (first, longest) = (time(hook.retry_delay_ms), time(hook.retry_max_delay_ms));
    if hook.mode == "async" {
        line("retries", format!("{}, the first after {first}, at most {longest} apart{age}", hook.retries));
    }
    lines.join("\n") + "\n"
}

/// `wasi_snapshot_preview1 (fd_read, fd_write)`.
fn wanted(imports: &[String]) -> String {
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for import in imports {
        let (module, name) = import.split_once("::").unwrap_or(("", import));
        modules.entry(module).or_default().push(name);
    }
    let modules: Vec<_> =
        modules.into_iter().map(|(module, names)| format!("{module} ({})", names.join(", "))).collect();
    if modules.is_empty() { "nothing".into() } else { modules.join(", ") }
}

fn time(ms: u64) -> String {
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

fn counted(mountpoint: &Path, hooks: &Value) -> String {
    let all = hooks["hooks"].as_array().into_iter().flatten();
    printable(&mountpoint.to_string_lossy()) + "\n" + &all.map(counted_one).collect::<String>()
}

/// Days of costs for a reader; `--json` has all.
const DAYS_TOLD: usize = 7;

fn counted_one(hook: &Value) -> String {
    let number = |name: &str| hook[name].as_u64().unwrap_or(0);
    let mut lines = vec![format!("  {}", printable(hook["name"].as_str().unwrap_or("?")))];
    let mut line = |name: &str, value: String| lines.push(format!("    {name:<12} {value}"));
    line("runs", format!("{}, {} failed, {} running", number("invocations"), number("errors"), number("running")));
    let passed_over = format!("{} overtaken, {} unchanged", number("superseded"), number("unchanged"));
    line("waiting", format!("{}, {} given up, {passed_over}", number("queued"), number("dead")));
    if number("refused") > 0 {
        line("refused", number("refused").to_string());
    }
    let mean_ms = number("duration_ms").checked_div(number("invocations")).unwrap_or(0);
    let billed = hook["gb_seconds"].as_f64().unwrap_or(0.0);
    line("time", format!("{mean_ms} ms a run, {billed:.3} GB-seconds in all"));
    for (day, billed) in hook["gb_seconds_by_day"].as_object().into_iter().flatten().rev().take(DAYS_TOLD) {
        line(day, format!("{:.3} GB-seconds", billed.as_f64().unwrap_or(0.0)));
    }
    line("memory", format!("{} at most", bytes(number("max_memory_used_bytes"))));
    if let Some(error) = hook["last_error"]["message"].as_str() {
        line("last error", super::first_line(error));
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_told_by_their_modules() {
        let imports = ["a::x", "wasi::fd_read", "wasi::fd_write"].map(str::to_owned);
        assert_eq!(wanted(&imports), "a (x), wasi (fd_read, fd_write)");
        assert_eq!(wanted(&[]), "nothing");
    }

    #[test]
    fn the_numbers_of_a_hook_in_words() {
        let hook = json!({"name": "h", "invocations": 4, "errors": 1, "duration_ms": 10, "gb_seconds": 0.5, "dead": 1,
            "gb_seconds_by_day": {"2026-11-26": 0.4, "2026-11-27": 0.1},
            "last_error": {"message": "trapped: x\n 1: y"}});
        let text = counted(Path::new("/m"), &json!({"hooks": [hook]}));
        for part in [
            "/m\n  h\n",
            "4, 1 failed, 0 running",
            "0, 1 given up",
            "2 ms a run, 0.500",
            "2026-11-26   0.400 GB",
            "trapped: x\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
