use std::process::ExitCode;

fn main() -> ExitCode {
    keep_one_heap();
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
