//! A small disk, to be filled.

use std::fs;
use std::path::PathBuf;

/// A small file system of its own, gone at the end.
pub struct SmallDisk(pub PathBuf);

impl SmallDisk {
    pub fn new(place: PathBuf, bytes: usize) -> Self {
        fs::create_dir(&place).unwrap();
        let options = format!("size={bytes}");
        nix::mount::mount(Some("disk"), &place, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(options.as_str()))
            .expect("tmpfs");
        Self(place)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
