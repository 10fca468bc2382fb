//! What S3 keeps of an object besides its bytes and its metadata, seen through a mount.

use std::fs::{self, File};
use std::io::Write;
use std::time::SystemTime;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{ObjectLockLegalHoldStatus, ObjectLockMode, ServerSideEncryption, StorageClass};

use crate::assert_errno;
use crate::stage::{Maker, Mount, Stage, sys};

fn put_a_page(mount: &Mount, key: &str, bytes: &[u8]) {
    mount.outside().put_by(key, bytes, |put| {
        put.content_type("text/x-own")
            .cache_control("max-age=60")
            .content_encoding("gzip")
            .content_disposition("attachment")
            .content_language("de")
            .website_redirect_location("/other")
            .storage_class("STANDARD_IA".into())
    });
}

fn assert_is_a_page(told: &HeadObjectOutput, key: &str) {
    assert_eq!(told.content_type(), Some("text/x-own"), "{key}");
    assert_eq!(told.cache_control(), Some("max-age=60"), "{key}");
    assert_eq!(told.content_encoding(), Some("gzip"), "{key}");
    assert_eq!(told.content_disposition(), Some("attachment"), "{key}");
    assert_eq!(told.content_language(), Some("de"), "{key}");
    assert_eq!(told.website_redirect_location(), Some("/other"), "{key}");
    assert_eq!(told.storage_class().map(StorageClass::as_str), Some("STANDARD_IA"), "{key}");
}

#[test]
fn headers_and_class_survive_a_rewrite_a_chmod_and_a_rename() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    for key in ["written", "truncated", "chmodded", "renamed", "d/moved"] {
        put_a_page(&mount, key, b"old");
    }
    put_a_page(&mount, "large", &vec![1; 17 << 20]);
    mount.start();
    let append = |name| File::options().append(true).open(mount.at(name)).unwrap().write_all(b" new").unwrap();
    append("written");
    append("large");
    fs::write(mount.at("truncated"), "new").unwrap();
    sys::chmod(&mount.at("chmodded"), 0o600).unwrap();
    fs::rename(mount.at("renamed"), mount.at("name")).unwrap();
    fs::rename(mount.at("d"), mount.at("e")).unwrap();
    mount.settle();
    for key in ["written", "truncated", "chmodded", "name", "e/moved", "large"] {
        assert_is_a_page(&mount.outside().told(key), key);
    }
    assert_eq!(mount.outside().bytes("written"), b"old new");
}

#[test]
fn the_class_is_kept_where_only_the_listing_knows_it() {
    let mut mount = Stage::on(Maker::Embedded).args(&["--storage-class", "GLACIER_IR"]).prepare();
    put_a_page(&mount, "ia", b"old");
    mount.outside().put("standard", b"old");
    mount.start();
    for (old, new) in [("ia", "ia2"), ("standard", "standard2")] {
        fs::rename(mount.at(old), mount.at(new)).unwrap();
    }
    mount.settle();
    assert_is_a_page(&mount.outside().told("ia2"), "ia2");
    assert_eq!(mount.outside().told("standard2").storage_class(), None, "S3 does not name the usual class");
}

#[test]
fn new_files_get_what_the_options_say() {
    let classes = "logs/**=GLACIER_IR,**/*.hot=STANDARD,STANDARD_IA";
    let options = ["--storage-class", classes, "--tags", "team=data,stage=a b", "--sse", "AES256"];
    let mount = Stage::on(Maker::Embedded).args(&options).mount();
    fs::create_dir(mount.at("logs")).unwrap();
    fs::write(mount.at("logs/a"), "x").unwrap();
    fs::write(mount.at("a"), "x").unwrap();
    fs::write(mount.at("a.hot"), "x").unwrap();
    fs::write(mount.at("large"), vec![1; 17 << 20]).unwrap();
    mount.settle();
    let class = |key: &str| {
        let told = mount.outside().told(key);
        assert_eq!(told.server_side_encryption().map(ServerSideEncryption::as_str), Some("AES256"), "{key}");
        told.storage_class().map_or("STANDARD", |class| class.as_str()).to_owned()
    };
    assert_eq!(
        (class("logs/a"), class("a"), class("large")),
        ("GLACIER_IR".into(), "STANDARD_IA".into(), "STANDARD_IA".into())
    );
    assert_eq!((class("a.hot"), class("logs/")), ("STANDARD".into(), "STANDARD".into()));
    for key in ["a", "large"] {
        let tags = [("stage".to_owned(), "a b".to_owned()), ("team".to_owned(), "data".to_owned())];
        assert_eq!(mount.outside().tags(key), tags, "{key}");
    }
}

#[test]
fn what_is_written_is_locked_and_can_still_be_rewritten_renamed_and_removed() {
    let options = ["--object-lock", "GOVERNANCE:30d", "--legal-hold"];
    let mut mount = Stage::on(Maker::Seaweedfs).args(&options).prepare();
    mount.outside().keep_versions();
    mount.outside().allow_locks();
    mount.start();
    let may_delete = |(key, id): &(String, String)| mount.outside().delete_version(key, id);
    let tried = mount.outside().versions("");
    assert!(!tried.is_empty() && tried.iter().all(may_delete), "what the start tries out is not locked: {tried:?}");
    fs::write(mount.at("a"), "one").unwrap();
    fs::write(mount.at("a"), "two").unwrap();
    fs::write(mount.at("large"), vec![1; 17 << 20]).unwrap();
    fs::rename(mount.at("a"), mount.at("b")).unwrap();
    mount.settle();
    let in_days = |days: i64| DateTime::from(SystemTime::now()).secs() + days * 86_400;
    for key in ["b", "large"] {
        let told = mount.outside().told(key);
        assert_eq!(told.object_lock_mode().map(ObjectLockMode::as_str), Some("GOVERNANCE"), "{key}");
        assert_eq!(told.object_lock_legal_hold_status(), Some(&ObjectLockLegalHoldStatus::On), "{key}");
        let until = told.object_lock_retain_until_date().unwrap().secs();
        assert!((in_days(29)..=in_days(30)).contains(&until), "{key}: {until}");
    }
    fs::remove_file(mount.at("b")).unwrap();
    mount.settle();
    assert_eq!(mount.outside().keys(""), ["large"]);
    assert_eq!(mount.outside().versions("a").len(), 2, "each rewriting leaves one");
    assert!(!may_delete(&mount.outside().versions("b")[0]), "the lock is one");
}

#[test]
fn a_lock_is_not_asked_of_a_bucket_that_has_none() {
    for maker in [Maker::Embedded, Maker::Ministack] {
        let mut mount = Stage::on(maker).args(&["--legal-hold"]).prepare();
        assert!(mount.start_unless_it_dies().is_some(), "{maker:?}");
        let log = mount.log();
        assert!(log.contains("has no Object Lock") && log.contains("leave them out"), "{maker:?}: {log}");
    }
}

#[test]
fn a_file_has_the_type_of_its_extension_unless_somebody_said_another() {
    let mount = Stage::on(Maker::Embedded).mount();
    let content_type = |key: &str| {
        File::open(mount.at(key)).and_then(|file| file.sync_all()).unwrap();
        mount.outside().told(key).content_type().map(str::to_owned)
    };
    fs::write(mount.at("page.html"), "x").unwrap();
    assert_eq!(content_type("page.html").as_deref(), Some("text/html"));
    // As editors and rsync store: under another name first.
    fs::write(mount.at(".data.json.x7Qp"), "{}").unwrap();
    fs::rename(mount.at(".data.json.x7Qp"), mount.at("data.json")).unwrap();
    assert_eq!(content_type("data.json").as_deref(), Some("application/json"));
    sys::setxattr(&mount.at("data.json"), "user.s3.content-type", b"text/x-mine", 0).unwrap();
    assert_eq!(content_type("data.json").as_deref(), Some("text/x-mine"));
    assert_eq!(sys::getxattr(&mount.at("data.json"), "user.s3.content-type").unwrap(), b"text/x-mine");
    fs::write(mount.at("data.json"), "[]").unwrap();
    assert_eq!(content_type("data.json").as_deref(), Some("text/x-mine"));
    sys::removexattr(&mount.at("data.json"), "user.s3.content-type").unwrap();
    assert_eq!(content_type("data.json").as_deref(), Some("application/json"));
    assert_errno!(sys::setxattr(&mount.at("data.json"), "user.s3.content-type", b"a\r\nb", 0), EINVAL);
}

#[test]
fn what_s3_knows_is_told_to_who_asks_by_name() {
    let mut mount = Stage::on(Maker::Embedded).prepare();
    put_a_page(&mount, "page", b"old");
    mount.start();
    let page = mount.at("page");
    let told = |name: &str| String::from_utf8(sys::getxattr(&page, name).unwrap()).unwrap();
    let there = mount.outside().told("page");
    assert_eq!(format!("\"{}\"", told("user.s3.etag")), there.e_tag().unwrap());
    assert_eq!(told("user.s3.storage-class"), "STANDARD_IA");
    assert_eq!(told("user.s3.pending"), "0");
    assert_errno!(sys::getxattr(&page, "user.s3.version-id"), ENODATA);
    assert_eq!(sys::listxattr(&page).unwrap(), Vec::<String>::new(), "cp -a must not take them for the file's own");
    for name in ["user.s3.etag", "user.s3.storage-class", "user.s3.version-id", "user.s3.pending"] {
        assert_errno!(sys::setxattr(&page, name, b"x", 0), EPERM);
    }
}

#[test]
fn in_a_bucket_that_keeps_versions_each_has_its_name() {
    let mount = Stage::on(Maker::Embedded).mount();
    mount.outside().keep_versions();
    let version = || sys::getxattr(&mount.at("f"), "user.s3.version-id").unwrap();
    fs::write(mount.at("f"), "one").unwrap();
    let first = version();
    assert_eq!(Some(first.as_slice()), mount.outside().told("f").version_id().map(str::as_bytes));
    fs::write(mount.at("f"), "two").unwrap();
    assert_ne!(version(), first);
}
