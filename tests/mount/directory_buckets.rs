//! A mount of a directory bucket (S3 Express One Zone), as the embedded server has them: listed in no order, by
//! directories alone, within a session, and without all that S3 refuses there.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use s3mount::demo::{Fault, FaultKind, RequestRecord};

use crate::assert_errno;
use crate::stage::servers::Inside;
use crate::stage::{Maker, Mount, Stage, fresh_bucket_name, process, sys};

const LARGE_BYTES: usize = 20 << 20;
/// Three pages of the server.
const MANY: usize = 2_300;

fn stage() -> Stage {
    Stage::on(Maker::Embedded).directory_bucket()
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31 + at / 251) % 253) as u8).collect()
}

/// Programs of a user's day in a mount.
fn usual_life(mount: &Mount) {
    let script = "
        export LC_ALL=C
        mkdir -p tree/a/deep tree/b; for i in 1 2 3 4 5; do echo $i > tree/a/f$i; done
        echo deep > tree/a/deep/file; : > tree/b/empty; ln -s ../a/f1 tree/b/link
        chmod 640 tree/a/f1; touch -d 2026-01-02 tree/a/f2
        cp -a tree copy; diff -r tree copy; rsync -a tree/ synced/; rsync -a --delete tree/ synced/
        mv copy moved; mv moved/a/f1 moved/a/f9; mv -T moved/b moved/c
        tar cf - tree | tar tf - > /dev/null
        find tree moved synced | sort > ../found; rm -r synced; ls -la tree tree/a
    ";
    process::bash(mount.path(), script);
}

#[test]
fn programs_find_what_they_wrote_in_a_directory_bucket() {
    let mut mount = stage().mount();
    usual_life(&mount);
    let found = fs::read_to_string(mount.beside("found")).unwrap();
    let expected = "moved moved/a moved/a/deep moved/a/deep/file moved/a/f2 moved/a/f3 moved/a/f4 moved/a/f5 moved/a/f9 \
        moved/c moved/c/empty moved/c/link synced synced/a synced/a/deep synced/a/deep/file synced/a/f1 synced/a/f2 \
        synced/a/f3 synced/a/f4 synced/a/f5 synced/b synced/b/empty synced/b/link tree tree/a tree/a/deep \
        tree/a/deep/file tree/a/f1 tree/a/f2 tree/a/f3 tree/a/f4 tree/a/f5 tree/b tree/b/empty tree/b/link";
    assert_eq!(found.lines().collect::<Vec<_>>(), expected.split_whitespace().collect::<Vec<_>>());
    mount.stop();
    mount.forget_state();
    mount.start();
    let elsewhere =
        process::bash(mount.path(), "find * | LC_ALL=C sort; stat -c '%a %Y' tree/a/f1 moved/a/f2; cat tree/b/link");
    let expected = found.lines().filter(|path| !path.starts_with("synced"));
    let told = format!("{}\n640 ", expected.collect::<Vec<_>>().join("\n"));
    assert!(elsewhere.starts_with(&told) && elsewhere.ends_with("\n1\n"), "{elsewhere}");
    process::bash(mount.path(), "rm -r tree moved");
    mount.settle();
    assert_eq!(mount.outside().keys(""), Vec::<String>::new());
}

#[test]
fn a_directory_of_several_pages_is_read_whole_and_in_order() {
    let mount = stage().mount();
    let name = |number: usize| format!("f{number:05}");
    for number in 0..MANY {
        mount.outside().put(&format!("many/{}", name(number)), b"x");
    }
    mount.outside().put("many/sub/file", b"y");
    mount.outside().put("other", b"z");
    let shown: Vec<String> = fs::read_dir(mount.at("many"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut expected: Vec<String> = (0..MANY).map(name).chain(["sub".to_owned()]).collect();
    let distinct: BTreeSet<&String> = shown.iter().collect();
    assert_eq!(distinct.len(), expected.len(), "each once");
    expected.sort();
    let mut sorted = shown.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(fs::read(mount.at(&format!("many/{}", name(MANY - 1)))).unwrap(), b"x");
    assert_errno!(fs::metadata(mount.at("many/nothing")), ENOENT);
    assert_errno!(fs::remove_dir(mount.at("many")), ENOTEMPTY);
    assert_errno!(sys::rename_with(&mount.at("many"), &mount.at("other"), libc::RENAME_NOREPLACE), EEXIST);
    sys::rename_with(&mount.at("many"), &mount.at("moved"), libc::RENAME_NOREPLACE).unwrap();
    assert_eq!(fs::read_dir(mount.at("moved")).unwrap().count(), MANY + 1);
    fs::remove_dir_all(mount.at("moved")).unwrap();
    mount.settle();
    assert_eq!(mount.outside().keys(""), ["other"]);
}

#[test]
fn a_large_file_of_a_directory_bucket_is_rewritten_in_parts() {
    let mount = stage().mount();
    let mut expected = bytes(LARGE_BYTES);
    fs::write(mount.at("large"), &expected).unwrap();
    assert_eq!(mount.outside().bytes("large"), expected);
    let file = OpenOptions::new().write(true).open(mount.at("large")).unwrap();
    for at in [0, 9 << 20, LARGE_BYTES - 100] {
        file.write_all_at(b"changed", at as u64).unwrap();
        expected[at..at + 7].copy_from_slice(b"changed");
    }
    sys::close(file).unwrap();
    assert_eq!(mount.outside().bytes("large"), expected);
    OpenOptions::new().append(true).open(mount.at("large")).unwrap().write_all(b"and more").unwrap();
    expected.extend_from_slice(b"and more");
    assert_eq!(mount.outside().bytes("large"), expected);
    assert!(fs::read(mount.at("large")).unwrap() == expected);
}

#[test]
fn of_two_mounts_of_a_directory_bucket_the_later_close_is_refused_and_kept() {
    let left = stage().args(&["--attr-ttl", "0s", "--list-ttl", "0s"]).mount();
    let mut right = left.elsewhere();
    right.start();
    let _undisturbed = process::without_children();
    fs::write(left.at("file"), "theirs: none\n").unwrap();
    let mut ours = OpenOptions::new().append(true).open(left.at("file")).unwrap();
    ours.write_all(b"ours\n").unwrap();
    fs::write(right.at("file"), "theirs\n").unwrap();
    assert_errno!(sys::close(ours), ESTALE);
    assert_eq!(fs::read_to_string(left.at("file")).unwrap(), "theirs\n");
    assert_eq!(left.conflicts().len(), 1);
    // Of two who make the same name one wins.
    let made = File::create_new(left.at("new")).unwrap();
    fs::write(right.at("new"), "right").unwrap();
    (&made).write_all(b"left").unwrap();
    assert_errno!(sys::close(made), ESTALE);
    assert_eq!(left.outside().bytes("new"), b"right");
}

#[test]
fn after_a_kill_the_next_mount_of_a_directory_bucket_sends_what_was_promised() {
    let mut mount = stage().args(&["--write-back"]).mount();
    process::bash(
        mount.path(),
        "mkdir d; for i in 1 2 3; do echo $i > d/f$i; done; mv d/f1 d/f4; rm d/f2; chmod 600 d/f3",
    );
    mount.kill();
    mount.start();
    let shown = process::bash(mount.path(), "cd d; ls; cat f3 f4; stat -c %a f3");
    assert_eq!(shown, "f3\nf4\n3\n1\n600\n");
    mount.stop();
    assert_eq!(mount.outside().keys(""), ["d/", "d/f3", "d/f4"]);
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new());
}

#[test]
fn no_request_of_a_usual_life_is_one_that_a_directory_bucket_refuses() {
    let inside = Inside::start("secret");
    let mut mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    usual_life(&mount);
    fs::write(mount.at("large"), bytes(LARGE_BYTES)).unwrap();
    mount.stop();
    let bucket = mount.outside().bucket().to_owned();
    process::run(mount.command().args(["gc", &bucket]));
    let doctor = process::output(mount.command().args(["doctor", &bucket]), crate::stage::PATIENCE);
    let requests = inside.server().requests();
    let refused: Vec<_> = requests
        .iter()
        // A name that is not there, and conditions, are asked for by HEAD and PUT.
        .filter(|request| !matches!(request.status, 200..=299 | 404 | 412))
        .map(|request| format!("{} {:?}: {}", request.operation, request.key, request.status))
        .collect();
    // Which doctor tries, and takes for an answer.
    let refused: Vec<_> = refused.into_iter().filter(|told| !told.starts_with("GetBucketLifecycle")).collect();
    assert_eq!(refused, Vec::<String>::new());
    let sessions = requests.iter().filter(|request| request.operation == "CreateSession").count();
    assert!((1..20).contains(&sessions), "{sessions} sessions");
    assert!(doctor.status.success(), "{doctor:?}");
    assert_eq!(mount.outside().keys(".s3mount"), Vec::<String>::new(), "the probe is left behind");
}

#[test]
fn files_move_between_a_directory_bucket_and_another() {
    let mut mount = stage().prepare();
    let plain = mount.outside().clone().with_bucket(&fresh_bucket_name());
    plain.create_bucket(plain.bucket());
    mount.set_source(&format!("fast={},plain={}", mount.outside().bucket(), plain.bucket()));
    mount.start();
    plain.put_by("theirs", b"1", |put| put.content_encoding("gzip").cache_control("no-store"));
    process::bash(mount.path(), "mkdir fast/d; echo 2 > fast/d/f; mv fast/d/f plain/f; mv plain/theirs fast/d/; ls -R");
    mount.settle();
    assert_eq!((mount.outside().keys(""), plain.keys("")), (vec!["d/".into(), "d/theirs".into()], vec!["f".into()]));
    assert_eq!(plain.bytes("f"), b"2\n");
    // Written anew, with what such a bucket keeps of it.
    process::bash(mount.path(), "echo more >> fast/d/theirs; chmod 600 fast/d/theirs");
    mount.stop();
    assert_eq!(mount.outside().bytes("d/theirs"), b"1more\n");
    assert_eq!(mount.outside().told("d/theirs").cache_control(), Some("no-store"));
}

#[test]
fn an_upload_under_way_shows_its_directory_until_gc_ends_it() {
    let mount = stage().args(&["--list-ttl", "0s"]).mount();
    mount.outside().begin_upload("ghost/large");
    assert_eq!(process::bash(mount.path(), "ls; ls ghost"), "ghost\n");
    super::kills::abort_all_uploads(&mount);
    assert_eq!(process::bash(mount.path(), "ls"), "");
}

fn counted(inside: &Inside, operation: &str) -> u64 {
    inside.server().request_counts().get(operation).copied().unwrap_or(0)
}

#[test]
fn a_directory_bucket_renames_a_file_itself_also_when_the_answer_is_lost() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    process::bash(mount.path(), "mkdir d; echo first > d/a.txt; chmod 604 d/a.txt; sync d/a.txt; echo old > b.txt");
    mount.settle();
    let before = ["CopyObject", "DeleteObject", "DeleteObjects"].map(|operation| counted(&inside, operation));
    inside.server().faults().add(Fault::once("RenameObject", FaultKind::AppliedThenLostReply));
    let shown = process::bash(mount.path(), "mv d/a.txt b.txt; cat b.txt; stat -c %a b.txt; ls d; echo more >> b.txt");
    assert_eq!(shown, "first\n604\n");
    mount.settle();
    let after = ["CopyObject", "DeleteObject", "DeleteObjects"].map(|operation| counted(&inside, operation));
    assert_eq!((after, counted(&inside, "RenameObject")), (before, 2), "sent twice, and done once");
    assert_eq!(mount.outside().keys(""), ["b.txt", "d/"]);
    assert_eq!(mount.outside().bytes("b.txt"), b"first\nmore\n");
    // A zone that does not know it is asked once.
    inside.server().faults().add(Fault::once("RenameObject", FaultKind::Status(501)));
    process::bash(mount.path(), "mv b.txt c.txt; cat c.txt; echo x > e.txt; mv e.txt f.txt");
    assert_eq!(counted(&inside, "RenameObject"), 3, "who refuses once is not asked again");
    mount.settle();
    assert_eq!(mount.outside().keys(""), ["c.txt", "d/", "f.txt"]);
    assert_eq!(mount.outside().bytes("c.txt"), b"first\nmore\n");
}

#[test]
fn no_other_bucket_is_asked_to_rename() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).mount();
    process::bash(
        mount.path(),
        "echo 1 > a.txt; echo 2 > b.txt; mv a.txt b.txt; mkdir d; mv b.txt d; mv d e; cat e/b.txt",
    );
    mount.settle();
    assert_eq!(counted(&inside, "RenameObject"), 0);
    assert_eq!(mount.outside().bytes("e/b.txt"), b"1\n");
}

/// What was asked of a key since there were so many requests.
fn asked(inside: &Inside, since: usize, operation: &str, key: &str) -> Vec<RequestRecord> {
    let requests = inside.server().requests().into_iter().skip(since);
    requests.filter(|request| request.operation == operation && request.key == key).collect()
}

#[test]
fn what_is_appended_in_a_directory_bucket_is_all_that_is_sent() {
    let inside = Inside::start("secret");
    let mut mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    let mut expected = bytes(300_000);
    fs::write(mount.at("log"), &expected).unwrap();
    process::bash(mount.path(), "chmod 640 log; touch -d 2026-01-02 log; setfattr -n user.a -v b log");
    mount.settle();
    let before = inside.server().requests().len();
    process::bash(mount.path(), "for i in 1 2 3 4 5 6 7 8; do echo line $i >> log; done");
    expected.extend((1..=8).flat_map(|line| format!("line {line}\n").into_bytes()));
    let sent = asked(&inside, before, "PutObject", "log");
    assert_eq!(sent.iter().map(|request| request.bytes).collect::<Vec<_>>(), [7; 8], "just the new bytes, each once");
    assert_eq!(asked(&inside, before, "GetObject", "log"), [], "nothing of the old ones comes here");
    assert_eq!(mount.outside().bytes("log"), expected);
    // The times follow, and nothing else has changed.
    mount.settle();
    let look = "stat -c '%a %s %Y' log; getfattr --only-values -n user.a log; echo";
    let shown = process::bash(mount.path(), look);
    let touched = process::bash(mount.path(), "date -d 2026-01-02 +%s");
    assert!(shown.starts_with("640 300056 ") && shown.ends_with("\nb\n") && !shown.contains(touched.trim()), "{shown}");
    mount.stop();
    mount.forget_state();
    mount.start();
    assert_eq!(process::bash(mount.path(), look), shown);
    assert!(fs::read(mount.at("log")).unwrap() == expected);
    // Other bytes than new ones at the end: the object is written anew.
    let before = inside.server().requests().len();
    process::bash(
        mount.path(),
        "printf X | dd of=log bs=1 seek=5 conv=notrunc status=none; echo end >> log; truncate -s 9 log",
    );
    expected.splice(5..6, *b"X");
    let sent = asked(&inside, before, "PutObject", "log");
    assert_eq!(sent.iter().map(|request| request.bytes).collect::<Vec<_>>(), [300_056, 4, 9]);
    mount.settle();
    assert_eq!(mount.outside().bytes("log"), expected[..9]);
}

#[test]
fn a_log_that_stays_open_in_a_directory_bucket_sends_what_was_added_with_each_fsync() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    let mut log = OpenOptions::new().create_new(true).append(true).open(mount.at("log")).unwrap();
    let mut expected = Vec::new();
    for line in ["one\n", "two, longer\n", "three\n"] {
        log.write_all(line.as_bytes()).unwrap();
        log.sync_all().unwrap();
        expected.extend_from_slice(line.as_bytes());
        assert_eq!(mount.outside().bytes("log"), expected);
    }
    let sent = asked(&inside, 0, "PutObject", "log");
    assert_eq!(sent.iter().map(|request| request.bytes).collect::<Vec<_>>(), [4, 12, 6]);
    // Behind what was written, zeros.
    log.set_len(30).unwrap();
    sys::close(log).unwrap();
    expected.resize(30, 0);
    assert_eq!(mount.outside().bytes("log"), expected);
    // A mode that is asked for goes with what fsync stores.
    let mut log = OpenOptions::new().append(true).open(mount.at("log")).unwrap();
    sys::chmod(&mount.at("log"), 0o604).unwrap();
    log.write_all(b"x").unwrap();
    log.sync_all().unwrap();
    assert_eq!(mount.outside().told("log").metadata().unwrap()["file-permissions"], "0100604");
    // Also of what is too large for one PUT.
    fs::write(mount.at("large"), bytes(LARGE_BYTES)).unwrap();
    let before = inside.server().requests().len();
    process::bash(mount.path(), "echo more >> large");
    assert_eq!(asked(&inside, before, "PutObject", "large").iter().map(|it| it.bytes).collect::<Vec<_>>(), [5]);
    assert_eq!(asked(&inside, before, "CreateMultipartUpload", "large"), []);
    let large = mount.outside().bytes("large");
    assert!(large.len() == LARGE_BYTES + 5 && large.ends_with(b"more\n") && large.starts_with(&bytes(LARGE_BYTES)));
}

#[test]
fn an_append_whose_answer_is_lost_is_not_sent_again() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    let fault = |operation: &str, times, kind| Fault {
        operation: Some(operation.to_owned()),
        key_contains: Some("log".to_owned()),
        times,
        kind,
    };
    process::bash(mount.path(), "echo first > log");
    let before = inside.server().requests().len();
    inside.server().faults().add(fault("PutObject", 1, FaultKind::AppliedThenLostReply));
    process::bash(mount.path(), "echo second >> log");
    assert_eq!(asked(&inside, before, "PutObject", "log").len(), 1);
    assert_eq!(mount.outside().bytes("log"), b"first\nsecond\n");
    // One that was never done is.
    inside.server().faults().add(fault("PutObject", 1, FaultKind::ResetBefore));
    process::bash(mount.path(), "echo third >> log");
    assert_eq!(mount.outside().bytes("log"), b"first\nsecond\nthird\n");
    // Nobody says what became of it: the close fails, and who looks later finds it there.
    inside.server().faults().add(fault("PutObject", 1, FaultKind::AppliedThenLostReply));
    inside.server().faults().add(fault("HeadObject", 1_000, FaultKind::Status(403)));
    let mut log = OpenOptions::new().append(true).open(mount.at("log")).unwrap();
    log.write_all(b"fourth\n").unwrap();
    assert!(log.sync_all().is_err());
    inside.server().faults().clear();
    log.write_all(b"fifth\n").unwrap();
    log.sync_all().unwrap();
    sys::close(log).unwrap();
    assert_eq!(mount.outside().bytes("log"), b"first\nsecond\nthird\nfourth\nfifth\n");
    assert!(mount.conflicts().is_empty());
}

#[test]
fn what_cannot_be_appended_to_is_written_anew() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    // With another checksum than ours, which S3 does not go on with.
    mount.outside().put("theirs", b"theirs\n");
    process::bash(mount.path(), "echo ours >> theirs");
    assert_eq!(mount.outside().bytes("theirs"), b"theirs\nours\n");
    let before = inside.server().requests().len();
    process::bash(mount.path(), "echo more >> theirs");
    assert_eq!(asked(&inside, before, "PutObject", "theirs").iter().map(|it| it.bytes).collect::<Vec<_>>(), [5]);
    // A zone that has no appends.
    inside.server().faults().add(Fault::once("PutObject", FaultKind::Status(501)));
    process::bash(mount.path(), "echo again >> theirs; echo still >> theirs");
    let sent = asked(&inside, before, "PutObject", "theirs");
    assert_eq!(
        sent.iter().skip(2).map(|it| it.bytes).collect::<Vec<_>>(),
        [23, 29],
        "who refuses once is not asked again"
    );
    assert_eq!(mount.outside().bytes("theirs"), b"theirs\nours\nmore\nagain\nstill\n");
}

#[test]
fn of_two_mounts_that_append_the_later_is_refused_and_kept() {
    let left = stage().args(&["--attr-ttl", "0s", "--list-ttl", "0s"]).mount();
    let mut right = left.elsewhere();
    right.start();
    let _undisturbed = process::without_children();
    fs::write(left.at("log"), "both\n").unwrap();
    let mut ours = OpenOptions::new().append(true).open(left.at("log")).unwrap();
    ours.write_all(b"ours\n").unwrap();
    OpenOptions::new().append(true).open(right.at("log")).unwrap().write_all(b"theirs\n").unwrap();
    assert_errno!(sys::close(ours), ESTALE);
    assert_eq!(left.outside().bytes("log"), b"both\ntheirs\n");
    assert_eq!(fs::read_to_string(left.at("log")).unwrap(), "both\ntheirs\n");
    let kept: Vec<_> = left.conflicts().iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(kept, [b"both\nours\n"]);
}

#[test]
fn the_times_of_an_append_are_there_after_a_kill() {
    let mut mount = stage().mount();
    process::bash(mount.path(), "echo first > log; touch -d 2026-01-02 log");
    mount.settle();
    mount.stop();
    mount.crash_at(Some("append-done"));
    mount.start();
    let before = std::time::SystemTime::now();
    let _ = OpenOptions::new().append(true).open(mount.at("log")).and_then(|mut log| log.write_all(b"second\n"));
    mount.wait_end(crate::stage::PATIENCE);
    mount.crash_at(None);
    mount.start();
    assert_eq!(fs::read(mount.at("log")).unwrap(), b"first\nsecond\n");
    assert!(fs::metadata(mount.at("log")).unwrap().modified().unwrap() >= before, "not the time of the write");
}

#[test]
fn no_other_bucket_is_asked_to_append() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).mount();
    process::bash(mount.path(), "echo 1 > log; echo 2 >> log; echo 3 >> log");
    mount.settle();
    // The server refuses it, as S3 does.
    let refused: Vec<_> = inside.server().requests().into_iter().filter(|request| request.status >= 500).collect();
    assert_eq!(refused, []);
    assert_eq!(mount.outside().bytes("log"), b"1\n2\n3\n");
}

#[test]
fn a_directory_bucket_renames_the_files_of_a_directory_itself() {
    let inside = Inside::start("secret");
    let mut mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    process::bash(
        mount.path(),
        "mkdir -p d/sub; for i in 1 2 3 4 5; do echo $i > d/f$i; done; echo s > d/sub/s; : > d/empty",
    );
    process::bash(mount.path(), "chmod 604 d/f1; ln -s f1 d/link");
    process::run(mount.command().arg("sync").arg(mount.path()));
    let mut open = OpenOptions::new().append(true).open(mount.at("d/f5")).unwrap();
    let before = counted(&inside, "CopyObject");
    inside.server().faults().add(Fault::once("RenameObject", FaultKind::AppliedThenLostReply));
    process::bash(mount.path(), "mv d e");
    let copied = inside.server().requests().into_iter().filter(|it| it.operation == "CopyObject").map(|it| it.key);
    let copied: Vec<_> = copied.skip(usize::try_from(before).unwrap()).collect();
    assert_eq!((counted(&inside, "RenameObject"), copied), (8 + 1, Vec::<String>::new()), "no copy of a file");
    open.write_all(b"more\n").unwrap();
    sys::close(open).unwrap();
    let look = "find * | sort; cat e/f[1-5] e/sub/s e/link; stat -c %a e/f1";
    let shown = process::bash(mount.path(), look);
    assert!(shown.ends_with("1\n2\n3\n4\n5\nmore\ns\n1\n604\n"), "{shown}");
    mount.stop();
    mount.forget_state();
    mount.start();
    assert_eq!(process::bash(mount.path(), look), shown);
    let files = ["e/", "e/empty", "e/f1", "e/f2", "e/f3", "e/f4", "e/f5", "e/link", "e/sub/", "e/sub/s"];
    assert_eq!(mount.outside().keys(""), files);
}

#[test]
fn a_rename_of_a_directory_that_fails_leaves_the_old_tree_whole() {
    let inside = Inside::start("secret");
    let mount = Stage::at(inside.endpoint()).directory_bucket().mount();
    process::bash(mount.path(), "mkdir -p d/sub; for i in 1 2 3 4 5; do echo $i > d/f$i; done; echo s > d/sub/s");
    mount.settle();
    let whole = mount.outside().keys("");
    let fault = |key: &str, times, kind| Fault {
        operation: Some("RenameObject".to_owned()),
        key_contains: Some(key.to_owned()),
        times,
        kind,
    };
    inside.server().faults().add(fault("e/f3", 1, FaultKind::Status(403)));
    assert_errno!(fs::rename(mount.at("d"), mount.at("e")), EACCES);
    assert_eq!(mount.outside().keys(""), whole);
    assert_eq!(process::bash(mount.path(), "cat d/f? d/sub/s; ls"), "1\n2\n3\n4\n5\ns\nd\n");
    // What cannot be taken back at once is later.
    inside.server().faults().add(fault("e/f3", 1, FaultKind::Status(403)));
    inside.server().faults().add(fault("d/f1", 1, FaultKind::Status(403)));
    assert_errno!(fs::rename(mount.at("d"), mount.at("e")), EACCES);
    crate::stage::wait_for("the old tree", crate::stage::PATIENCE, || {
        (mount.outside().keys("") == whole).then_some(())
    });
    assert_eq!(process::bash(mount.path(), "cat d/f? d/sub/s"), "1\n2\n3\n4\n5\ns\n");
    process::bash(mount.path(), "mv d e; cat e/f? e/sub/s");
}
