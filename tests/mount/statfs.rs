//! statfs: room enough that no program refuses to write.

use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::stage::{Maker, Stage, place, process};

#[test]
fn there_is_room_and_names_have_255_bytes() {
    let place = place();
    let answer = statvfs(place.path()).unwrap();
    assert_eq!(answer.name_max(), 255);
    assert!(answer.blocks_available() > 0 && answer.files_available() > 0);
    assert!(answer.block_size() >= 512 && answer.fragment_size() >= 512);
}

#[test]
fn df_shows_the_bucket_and_at_least_a_tebibyte_free() {
    let mount = Stage::on(Maker::Embedded).mount();
    let answer = statvfs(mount.path()).unwrap();
    assert!(u128::from(answer.blocks_available()) * u128::from(answer.fragment_size()) >= 1 << 40);
    let shown = process::run(Command::new("df").arg("--output=source,fstype").arg(mount.path()));
    assert!(shown.contains(mount.outside().bucket()), "{shown}");
    assert!(shown.contains("fuse.s3mount"), "{shown}");
}
