use std::process::ExitCode;

fn main() -> ExitCode {
    keep_one_heap();
    find_home();
    s3mount::cli::run()
}

/// One heap for all threads: glibc gives each its own, and what one frees another cannot use. With
/// four readers in 256 MiB that was 40 MiB of resident memory, for no time saved.
fn keep_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no other thread runs yet, and the values are those of mallopt(3).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Units of systemd for mounts, and for services of root, have no HOME, and `~/.aws` is looked for there.
fn find_home() {
    if std::env::var_os("HOME").is_some_and(|home| !home.is_empty()) {
        return;
    }
    if let Ok(Some(user)) = nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("HOME", user.dir) };
    }
}
