use std::time::{Duration, UNIX_EPOCH};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn at(seconds: u64, nanos: u32) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos))
}

#[test]
fn the_aws_names_are_written() {
    let attributes = Attributes {
        mode: Some(0o100_644),
        uid: Some(1000),
        gid: Some(100),
        mtime: at(1_595_002_920, 0),
        ctime: at(1_595_002_920, 7),
        ..Attributes::default()
    };
    let written = metadata(&[
        ("file-permissions", "0100644"),
        ("file-owner", "1000"),
        ("file-group", "100"),
        ("file-mtime", "1595002920000000000ns"),
        ("s3mount-ctime", "1595002920000000007ns"),
    ]);
    assert_eq!(attributes.to_metadata().unwrap(), written);
    assert_eq!(Attributes::from_metadata(&written), attributes);
}

#[test]
fn milliseconds_are_read_as_fsx_reads_them() {
    let read = Attributes::from_metadata(&metadata(&[("file-mtime", "1595002920123")]));
    assert_eq!(read.mtime, at(1_595_002_920, 123_000_000));
}

#[test]
fn s3fs_is_read_and_its_names_are_replaced() {
    let s3fs = metadata(&[("mode", "33188"), ("uid", "7"), ("gid", "8"), ("mtime", "1595002920.5"), ("ctime", "12")]);
    let read = Attributes::from_metadata(&s3fs);
    assert_eq!((read.mode, read.uid, read.gid), (Some(0o100_644), Some(7), Some(8)));
    assert_eq!((read.mtime, read.ctime), (at(1_595_002_920, 500_000_000), at(12, 0)));
    let again = read.to_metadata().unwrap();
    assert!(!again.contains_key("mtime") && !again.contains_key("mode"), "stale names stay beside ours: {again:?}");
    assert_eq!(Attributes::from_metadata(&again), read);
}

#[test]
fn rclone_times_and_modes_are_read() {
    for mtime in ["2020-07-17T16:22:00.123456789Z", "1595002920.123456789", "2020-07-17T18:22:00.123456789+02:00"] {
        let read = Attributes::from_metadata(&metadata(&[("mtime", mtime), ("mode", "0100664")]));
        assert_eq!(read.mtime, at(1_595_002_920, 123_456_789), "{mtime}");
        assert_eq!(read.mode, Some(0o100_664));
    }
}

#[test]
fn our_names_win_and_the_peers_stale_ones_go() {
    let read = Attributes::from_metadata(&metadata(&[("file-mtime", "5000000000ns"), ("mtime", "9")]));
    assert_eq!(read.mtime, at(5, 0));
    assert!(read.other.is_empty());
}

#[test]
fn strange_values_are_no_error_and_foreign_words_stay() {
    let strange = metadata(&[("file-mtime", "soon"), ("file-owner", "-1"), ("mode", "fast"), ("author", "eve")]);
    let read = Attributes::from_metadata(&strange);
    assert_eq!((read.mtime, read.uid, read.mode), (None, None, None));
    assert_eq!(read.to_metadata().unwrap(), metadata(&[("mode", "fast"), ("author", "eve")]));
}

#[test]
fn times_before_1970_survive() {
    let attributes = Attributes { mtime: Some(UNIX_EPOCH - Duration::new(3, 5)), ..Attributes::default() };
    assert_eq!(Attributes::from_metadata(&attributes.to_metadata().unwrap()), attributes);
}

#[test]
fn more_than_an_object_holds_is_refused() {
    let xattrs = BTreeMap::from([("user.big".to_owned(), vec![0; 1600])]);
    let attributes = Attributes { xattrs, ..Attributes::default() };
    assert!(attributes.to_metadata().unwrap_err().bytes > MAX_METADATA_BYTES);
    let huge = BTreeMap::from([("user.huge".to_owned(), vec![0; 70_000])]);
    assert!(Attributes { xattrs: huge, ..Attributes::default() }.to_metadata().is_err());
}

fn any_time() -> impl Strategy<Value = Option<SystemTime>> {
    let after = (0..1_u64 << 40, 0..1_000_000_000_u32).prop_map(|(s, n)| UNIX_EPOCH + Duration::new(s, n));
    let before = (0..1_u64 << 40, 0..1_000_000_000_u32).prop_map(|(s, n)| UNIX_EPOCH - Duration::new(s, n));
    proptest::option::of(prop_oneof![after, before])
}

prop_compose! {
    fn any_attributes()(
        (mode, uid, gid, rdev) in any::<(Option<u32>, Option<u32>, Option<u32>, Option<u32>)>(),
        (mtime, atime, ctime) in (any_time(), any_time(), any_time()),
        ino in any::<Option<u64>>(),
        op_id in proptest::option::of("[a-f0-9-]{1,36}"),
        xattrs in btree_map("[a-z.]{1,20}", vec(any::<u8>(), 0..100), 0..5),
        other in btree_map("x-[a-z-]{1,10}", "[ -~]{0,20}", 0..4),
    ) -> Attributes {
        Attributes { mode, uid, gid, mtime, atime, ctime, rdev, ino, xattrs, op_id, other }
    }
}

const NAMES: [&str; 16] = [
    "file-permissions",
    "file-owner",
    "file-group",
    "file-mtime",
    "file-atime",
    "mode",
    "uid",
    "gid",
    "mtime",
    "atime",
    "ctime",
    "s3mount-ctime",
    "s3mount-rdev",
    "s3mount-ino",
    "s3mount-xattrs",
    "s3mount-op",
];

proptest! {
    #[test]
    fn what_is_written_is_read(attributes in any_attributes()) {
        prop_assert_eq!(Attributes::from_metadata(&attributes.to_metadata().unwrap()), attributes);
    }

    #[test]
    fn hostile_values_never_panic(pairs in vec((0..NAMES.len(), "\\PC{0,40}|[-+.0-9nse]{0,50}"), 0..12)) {
        let metadata: Metadata = pairs.into_iter().map(|(name, value)| (NAMES[name].to_owned(), value)).collect();
        let read = Attributes::from_metadata(&metadata);
        if let Ok(again) = read.to_metadata() {
            prop_assert_eq!(Attributes::from_metadata(&again), read);
        }
    }
}
