//! Names the time since this machine was booted: what was written in it and not synced is still there.

use std::sync::LazyLock;

static ID: LazyLock<Option<String>> =
    LazyLock::new(|| Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned()));

/// `None` where the kernel does not tell it (random(4)).
pub(super) fn id() -> Option<&'static str> {
    ID.as_deref()
}
