//! The metrics that every process has under the same names (prometheus.io, "Writing client libraries",
//! "Process metrics"). What the system does not tell is left out.

use std::fs;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::unistd::{SysconfVar, sysconf};

use super::exposition::Exposition;

/// Fields of proc_pid_stat(5), counted behind the name of the program.
const THREADS: usize = 17;
const START_TICKS: usize = 19;
const VIRTUAL_BYTES: usize = 20;
const RESIDENT_PAGES: usize = 21;

/// Adds what the system counts of this process.
pub(super) fn write(text: &mut Exposition) {
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let [user, system] = [usage.user_time(), usage.system_time()];
        #[expect(clippy::cast_precision_loss, reason = "exact for 200 years")]
        let cpu_s = (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6;
        text.counter("process_cpu_seconds_total", "User and system CPU time spent.").is(cpu_s);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        text.gauge("process_open_fds", "Open file descriptors.").is(open.count().saturating_sub(1));
    }
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        text.gauge("process_max_fds", "Most file descriptors that may be open.").is(soft);
    }
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    // The name may hold anything, also blanks and parentheses.
    let fields: Vec<u64> = stat.rsplit(')').next().unwrap_or_default().split(' ').map(number).collect();
    let field = |index: usize| fields.get(index + 1).copied().unwrap_or_default();
    let of_system = |variable| sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
    text.gauge("process_virtual_memory_bytes", "Virtual memory.").is(field(VIRTUAL_BYTES));
    if let Some(page_bytes) = of_system(SysconfVar::PAGE_SIZE) {
        text.gauge("process_resident_memory_bytes", "Memory that is in RAM.").is(field(RESIDENT_PAGES) * page_bytes);
    }
    text.gauge("process_threads", "Threads.").is(field(THREADS));
    if let (Some(boot_s), Some(per_s)) = (boot_time_s(), of_system(SysconfVar::CLK_TCK)) {
        let start_s = boot_s + field(START_TICKS) / per_s;
        text.gauge("process_start_time_seconds", "When the process began, since 1970.").is(start_s);
    }
}

/// Fields that are no numbers, or negative, are none of ours.
fn number(field: &str) -> u64 {
    field.trim().parse().unwrap_or_default()
}

/// Since 1970.
fn boot_time_s() -> Option<u64> {
    fs::read_to_string("/proc/stat").ok()?.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_uses_memory_and_began_in_the_past() {
        let mut text = Exposition::default();
        write(&mut text);
        let text = text.into_text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!((1.0..10_000.0).contains(&value("process_threads")));
        assert!((3.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        // The clock may have been set since; not by days.
        assert!((now - value("process_start_time_seconds")).abs() < 86_400.0);
    }
}
