//! How much memory there is: the machine's, or what the control group leaves of it.

use std::fs;
use std::path::{Path, PathBuf};

use super::LEAST_MEMORY_BYTES;

/// More makes nothing faster: the kernel's page cache and the disk cache keep what was read.
const MOST_BYTES: u64 = 512 << 20;

/// What may be used where nothing is said: a quarter of what there is, within bounds.
pub(super) fn default_bytes() -> u64 {
    (bytes_there_are() / 4).clamp(LEAST_MEMORY_BYTES, MOST_BYTES)
}

/// The memory of this machine, or of the control group of this process where that is less.
#[must_use]
pub fn bytes_there_are() -> u64 {
    let machine = machine_bytes(Path::new("/proc/meminfo")).unwrap_or(u64::MAX);
    let groups = group_bytes(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    machine.min(groups.unwrap_or(u64::MAX))
}

fn machine_bytes(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The least limit of the control group of this process and of those above it (cgroups(7)). Version 2
/// has one tree and lists it as `0::PATH`; version 1 has a tree for memory: `4:memory:PATH`.
fn group_bytes(membership: &Path, mounted: &Path) -> Option<u64> {
    let text = fs::read_to_string(membership).ok()?;
    let limits = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        if controllers.is_empty() {
            least_limit(mounted, path, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            least_limit(&mounted.join("memory"), path, "memory.limit_in_bytes")
        } else {
            None
        }
    });
    limits.min()
}

/// In a container the path may be the host's, of which only the upper end is visible: what does not
/// exist has no limit.
fn least_limit(tree: &Path, group: &str, file: &str) -> Option<u64> {
    let group: PathBuf = tree.join(group.trim_start_matches('/'));
    let above = group.ancestors().take_while(|path| path.starts_with(tree));
    // Without a limit version 2 says "max", version 1 a number beyond every machine.
    above.filter_map(|path| fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of control groups: what the process is in, and the limits.
    fn limit(membership: &str, limits: &[(&str, &str)]) -> Option<u64> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("membership"), membership).unwrap();
        for (file, text) in limits {
            let path = dir.path().join("tree").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        group_bytes(&dir.path().join("membership"), &dir.path().join("tree"))
    }

    #[test]
    fn the_tightest_of_all_groups_above_counts() {
        let limits = [("a/memory.max", "1000\n"), ("a/b/memory.max", "max\n"), ("a/b/c/memory.max", "3000\n")];
        assert_eq!(limit("0::/a/b/c\n", &limits), Some(1000));
        assert_eq!(limit("0::/\n", &limits), None);
    }

    #[test]
    fn version_1_has_a_tree_for_memory() {
        let limits = [("memory/x/memory.limit_in_bytes", "4096\n"), ("memory/memory.limit_in_bytes", "8192\n")];
        assert_eq!(limit("5:cpu,cpuacct:/y\n4:memory:/x\n0::/\n", &limits), Some(4096));
        // The path of another namespace: its upper end is what there is.
        assert_eq!(limit("4:memory:/docker/0123\n", &limits), Some(8192));
    }

    #[test]
    fn the_default_fits_this_machine() {
        let machine = machine_bytes(Path::new("/proc/meminfo")).expect("Linux tells");
        assert!(default_bytes() <= (machine / 4).max(LEAST_MEMORY_BYTES) && default_bytes() <= MOST_BYTES);
    }
}
