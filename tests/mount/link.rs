//! Hard links: one object has one name.

use std::fs;

use crate::assert_errno;
use crate::stage::{Maker, Stage};

#[test]
fn a_hard_link_is_enotsup() {
    let mount = Stage::on(Maker::Embedded).mount();
    fs::write(mount.at("f"), "x").unwrap();
    assert_errno!(fs::hard_link(mount.at("f"), mount.at("g")), ENOTSUP);
    assert_errno!(fs::metadata(mount.at("g")), ENOENT);
    assert_eq!(fs::read(mount.at("f")).unwrap(), b"x");
}
