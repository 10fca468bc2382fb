//! Writes `NAME.sha256` beside a file, as `sha256sum -c` reads it.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

fn main() -> Result<(), Box<dyn Error>> {
    let input = std::env::var("S3MOUNT_INPUT")?;
    let name = std::env::var("S3MOUNT_NAME")?;
    let output = Path::new("/out").join(format!("{name}.sha256"));
    fs::create_dir_all(output.parent().ok_or("a file without a directory")?)?;
    fs::write(output, line(&digest(&input)?, &name))?;
    Ok(())
}

fn digest(path: &str) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => break,
            length => hasher.update(&block[..length]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

/// As coreutils write it: the name without its directory, and a backslash in front of the line
/// when the name had to be escaped.
fn line(digest: &str, name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    let escaped = file.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    let mark = if escaped == file { "" } else { "\\" };
    format!("{mark}{digest}  {escaped}\n")
}
