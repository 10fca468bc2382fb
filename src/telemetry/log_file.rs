//! A log file that cannot fill the disk: at its limit it becomes `….log.1` and a new one begins.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

/// Two files of this size are kept at most.
const LIMIT_BYTES: u64 = 8 << 20;
/// How much is kept before the file's name is known; the rest is dropped.
const EARLY_BYTES: usize = 64 << 10;

#[derive(Debug)]
enum Target {
    Early(Vec<u8>),
    Open { path: PathBuf, file: File, written_bytes: u64 },
}

/// Where the subscriber writes; clones share the file.
#[derive(Clone, Debug)]
pub(super) struct LogFile(Arc<Mutex<Target>>);

impl Default for LogFile {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Target::Early(Vec::new()))))
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let written_bytes = file.metadata()?.len();
    Ok((file, written_bytes))
}

impl LogFile {
    pub(super) fn open(&self, path: &Path) -> io::Result<()> {
        let (mut file, written_bytes) = append_to(path)?;
        let mut target = self.0.lock();
        if let Target::Early(lines) = &*target {
            file.write_all(lines)?;
        }
        *target = Target::Open { path: path.to_owned(), file, written_bytes };
        Ok(())
    }
}

impl Target {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Early(lines) => {
                if lines.len() + line.len() <= EARLY_BYTES {
                    lines.extend_from_slice(line);
                }
                Ok(())
            }
            Self::Open { path, file, written_bytes } => {
                if *written_bytes + line.len() as u64 > LIMIT_BYTES {
                    std::fs::rename(&*path, path.with_extension("log.1"))?;
                    (*file, *written_bytes) = append_to(path)?;
                }
                *written_bytes += line.len() as u64;
                file.write_all(line)
            }
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().write(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for LogFile {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn early_lines_are_in_the_file_and_it_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3mount.log");
        let mut log = LogFile::default();
        log.write_all(b"first\n").unwrap();
        log.open(&path).unwrap();
        log.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first\nsecond\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3mount.log");
        let mut log = LogFile::default();
        log.open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.write_all(&line).unwrap();
        }
        let total: u64 =
            std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 2 * LIMIT_BYTES, "{total}");
        assert!(dir.path().join("s3mount.log.1").exists());
    }
}
