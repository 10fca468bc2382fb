use std::process::ExitCode;

fn main() -> ExitCode {
    s3mount::cli::run()
}
