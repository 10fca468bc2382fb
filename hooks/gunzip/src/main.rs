//! Expands `NAME.gz` to `NAME`, all its members one after the other.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;

use flate2::read::MultiGzDecoder;

/// The host does not try again: the same bytes would fail the same way.
const FATAL: u8 = 65;

fn main() -> ExitCode {
    match expand() {
        Ok(bytes) => {
            eprintln!("{bytes} bytes");
            ExitCode::SUCCESS
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            eprintln!("not a whole gzip file: {error}");
            ExitCode::from(FATAL)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn expand() -> io::Result<u64> {
    let variable = |name: &str| std::env::var(name).map_err(io::Error::other);
    let name = variable("S3MOUNT_NAME")?;
    let mut input = MultiGzDecoder::new(BufReader::new(File::open(variable("S3MOUNT_INPUT")?)?));
    let output = Path::new("/out").join(name.strip_suffix(".gz").unwrap_or(&name));
    fs::create_dir_all(output.parent().unwrap_or(Path::new("/out")))?;
    io::copy(&mut input, &mut File::create(output)?)
}
