//! Everyday programs, on each of the three servers.

use std::fs;
use std::path::Path;

use crate::stage::{Maker, place_on, process};

macro_rules! on_every_server {
    ($($program:ident)*) => {
        mod embedded { $(#[test] fn $program() { super::$program(super::Maker::Embedded) })* }
        mod ministack { $(#[test] fn $program() { super::$program(super::Maker::Ministack) })* }
        mod seaweedfs { $(#[test] fn $program() { super::$program(super::Maker::Seaweedfs) })* }
    };
}

on_every_server! {
    git_clone_commit_and_fsck
    tar_extracts_what_it_packed
    rsync_sends_nothing_the_second_time
    sed_in_place
    vim_saves
    sqlite_with_rollback_journal
    sqlite_with_write_ahead_log
    make_builds
    cp_a_keeps_everything_over_a_remount
    mv_of_trees_and_rm_r
    shell_pipelines
}

/// A tree of 60 files in 12 directories, with odd modes, dates, an empty directory and symlinks.
pub fn grow_tree(dir: &Path) {
    process::bash(
        dir,
        "mkdir tree; cd tree
         for d in a b c d; do for e in 1 2 3; do
             mkdir -p $d/$e; for f in 1 2 3 4 5; do seq $((f * 200)) > $d/$e/file$f; done
         done; done
         mkdir empty; chmod 700 a; chmod 1777 b; chmod 640 a/1/file1; chmod 755 a/1/file2; chmod 444 a/1/file3
         : > a/zero; ln -s 1/file1 a/link; ln -s /nowhere/at/all dangling; ln -s ../b a/dirlink
         touch -d '2001-02-03 04:05:06.789' a/1/file4; touch -d '2011-02-03' c; printf 'x\\n' > 'name with spaces'
         head -c 3000000 /dev/urandom > big",
    );
}

/// Everything that `cp -a` promises, one line an entry.
pub fn listing(dir: &Path) -> String {
    process::bash(
        dir,
        "find . -mindepth 1 -printf '%P|%y|%m|%U|%G|%T@|%l|' -exec sh -c '[ -f \"$1\" ] && [ ! -h \"$1\" ] && cksum < \"$1\" || echo' _ {} \\; | sort",
    )
}

fn git_clone_commit_and_fsck(maker: Maker) {
    let mut place = place_on(maker);
    let local = tempfile::tempdir().unwrap();
    process::bash(
        local.path(),
        "git init -q source; cd source; git config user.email t@example.com; git config user.name t
         for d in $(seq 20); do mkdir d$d; for f in $(seq 16); do seq $((d * f)) > d$d/f$f; done; done
         git add -A; git commit -qm 'three hundred files'; git gc -q",
    );
    let source = local.path().join("source");
    process::bash(
        place.path(),
        &format!(
            "git clone -q {} copy; cd copy; git config user.email t@example.com; git config user.name t
             [ $(git ls-files | wc -l) = 320 ]; [ -z \"$(git status --porcelain)\" ]
             echo changed > d1/f1; git rm -q d2/f2; echo new > d3/new; git add -A; git commit -qm change
             git checkout -q -b other HEAD~1; [ -f d2/f2 ]; git checkout -q -; [ ! -f d2/f2 ]
             git fsck --strict; git gc -q; git fsck --strict",
            source.display()
        ),
    );
    place.remount();
    process::bash(
        place.path(),
        "cd copy; git fsck --strict; [ -z \"$(git status --porcelain)\" ]; [ \"$(git log --oneline | wc -l)\" = 2 ]",
    );
}

fn tar_extracts_what_it_packed(maker: Maker) {
    let mut place = place_on(maker);
    let local = tempfile::tempdir().unwrap();
    grow_tree(local.path());
    process::bash(local.path(), "tar cf tree.tar --format=posix tree");
    let archive = local.path().join("tree.tar");
    process::bash(place.path(), &format!("tar xpf {}", archive.display()));
    for _ in 0..2 {
        process::bash(place.path(), &format!("diff -r --no-dereference tree {}/tree", local.path().display()));
        assert_eq!(listing(&place.at("tree")), listing(&local.path().join("tree")));
        // Nothing may differ in tar's own eyes, and a second archive is the same as the first.
        process::bash(place.path(), &format!("tar df {}", archive.display()));
        place.remount();
    }
    process::bash(
        place.path(),
        "tar cf again.tar --format=posix tree && tar df again.tar && rm -r tree && tar xf again.tar",
    );
    process::bash(place.path(), &format!("diff -r --no-dereference tree {}/tree", local.path().display()));
}

fn rsync_sends_nothing_the_second_time(maker: Maker) {
    let mut place = place_on(maker);
    let local = tempfile::tempdir().unwrap();
    grow_tree(local.path());
    let source = local.path().join("tree");
    let rsync = |place: &Path| {
        process::bash(place, &format!("rsync -a --delete --itemize-changes {}/ copy/", source.display()))
    };
    assert!(rsync(place.path()).lines().count() > 60);
    assert_eq!(rsync(place.path()), "", "at once");
    place.remount();
    assert_eq!(rsync(place.path()), "", "after a remount");
    fs::write(source.join("a/1/file5"), "changed").unwrap();
    fs::remove_file(source.join("a/1/file1")).unwrap();
    let changed = rsync(place.path());
    assert!(changed.contains("a/1/file5") && changed.contains("*deleting"), "{changed}");
    assert_eq!(rsync(place.path()), "");
    process::bash(place.path(), &format!("diff -r --no-dereference copy {}", source.display()));
}

fn sed_in_place(maker: Maker) {
    let mut place = place_on(maker);
    process::bash(
        place.path(),
        "seq 1000 > f; chmod 640 f; sed -i 's/^500$/five hundred/' f; sed -i.bak 1d f; perl -pi -e 's/^999$/last/' f",
    );
    place.remount();
    let printed = process::bash(place.path(), "sed -n '499p;998p' f; wc -l < f; wc -l < f.bak; stat -c %a f; ls -A");
    assert_eq!(printed, "five hundred\nlast\n999\n1000\n640\nf\nf.bak\n");
}

fn vim_saves(maker: Maker) {
    let mut place = place_on(maker);
    process::bash(place.path(), "printf 'one\\ntwo\\nthree\\n' > f; chmod 664 f");
    for copy in ["no", "yes"] {
        // backupcopy decides between writing in place and rename: both are used in the wild.
        let line = format!(
            "vim -u NONE -es -c 'set backup backupskip= backupcopy={copy} writebackup' -c '2s/$/ {copy}/' -c 'wq' f"
        );
        process::bash(place.path(), &line);
    }
    place.remount();
    assert_eq!(fs::read_to_string(place.at("f")).unwrap(), "one\ntwo no yes\nthree\n");
    assert_eq!(process::bash(place.path(), "stat -c %a f; ls -A"), "664\nf\nf~\n");
}

fn sqlite_script(journal: &str) -> String {
    format!(
        "sqlite3 db 'PRAGMA journal_mode={journal}; CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);' > /dev/null
         for round in 1 2 3 4 5; do
             sqlite3 db \"PRAGMA journal_mode={journal}; BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)
                 INSERT INTO t(text) SELECT 'round $round row ' || i FROM n; COMMIT; UPDATE t SET text = text || '!' WHERE id % 7 = 0;\" > /dev/null
         done
         sqlite3 db 'BEGIN; DELETE FROM t; ROLLBACK; PRAGMA integrity_check; SELECT count(*) FROM t;'"
    )
}

fn sqlite_with(journal: &str, maker: Maker) {
    let mut place = place_on(maker);
    assert_eq!(process::bash(place.path(), &sqlite_script(journal)), "ok\n1000\n");
    place.remount();
    let check = "sqlite3 db 'PRAGMA integrity_check; SELECT count(*) FROM t; DELETE FROM t WHERE id > 10; VACUUM; \
                 PRAGMA integrity_check; SELECT count(*) FROM t;'";
    assert_eq!(process::bash(place.path(), check), "ok\n1000\nok\n10\n");
}

fn sqlite_with_rollback_journal(maker: Maker) {
    sqlite_with("DELETE", maker);
}

fn sqlite_with_write_ahead_log(maker: Maker) {
    sqlite_with("WAL", maker);
}

fn make_builds(maker: Maker) {
    let place = place_on(maker);
    process::bash(
        place.path(),
        "printf '#include <stdio.h>\\nint answer(void);\\nint main(void) { printf(\"%%d\\\\n\", answer()); return 0; }\\n' > main.c
         printf 'int answer(void) { return 42; }\\n' > answer.c
         printf 'CFLAGS = -O1\\nprog: main.o answer.o\\n\\t$(CC) -o $@ $^\\n' > Makefile",
    );
    let printed = process::bash(
        place.path(),
        "make -s -j2 prog; ./prog; make prog; touch answer.c; make prog | wc -l; ar rc lib.a answer.o; ar t lib.a",
    );
    assert_eq!(printed.lines().next(), Some("42"), "{printed}");
    assert!(printed.contains("up to date") && printed.ends_with("2\nanswer.o\n"), "{printed}");
}

fn cp_a_keeps_everything_over_a_remount(maker: Maker) {
    let mut place = place_on(maker);
    let local = tempfile::tempdir().unwrap();
    grow_tree(local.path());
    process::bash(
        local.path(),
        "chown 1001:1002 tree/a/1/file1 tree/b; chown -h 1003:1004 tree/dangling; mkfifo tree/pipe",
    );
    process::bash(place.path(), &format!("cp -a {}/tree copy", local.path().display()));
    let wanted = listing(&local.path().join("tree"));
    assert_eq!(listing(&place.at("copy")), wanted);
    place.remount();
    assert_eq!(listing(&place.at("copy")), wanted, "after a remount");
    // SeaweedFS keeps no metadata of a marker whose directory it has already made by itself.
    if maker != Maker::Seaweedfs {
        place.remount_elsewhere();
        assert_eq!(listing(&place.at("copy")), wanted, "on another machine");
    }
    process::bash(place.path(), "cp -a copy copy2");
    assert_eq!(listing(&place.at("copy2")), wanted, "copied within the mount");
}

fn mv_of_trees_and_rm_r(maker: Maker) {
    let mut place = place_on(maker);
    let local = tempfile::tempdir().unwrap();
    grow_tree(local.path());
    let wanted = listing(&local.path().join("tree"));
    process::bash(place.path(), &format!("cp -a {}/tree .; mkdir -p x/y; mv tree x/y/moved", local.path().display()));
    assert_eq!(listing(&place.at("x/y/moved")), wanted);
    place.remount();
    process::bash(place.path(), "[ ! -e tree ]; mv x/y/moved .; mv x x2; rm -r x2");
    assert_eq!(listing(&place.at("moved")), wanted);
    process::bash(place.path(), &format!("mv moved {}/back; [ -z \"$(ls -A)\" ]", local.path().display()));
    assert_eq!(listing(&local.path().join("back")), wanted, "moved out of the mount");
    process::bash(place.path(), &format!("mv {}/back in; rm -rf in; [ -z \"$(ls -A)\" ]", local.path().display()));
}

fn shell_pipelines(maker: Maker) {
    let place = place_on(maker);
    let printed = process::bash(
        place.path(),
        "seq 5000 > n; sort -R n > r; sort -n r | cmp - n; gzip -k n; zcat n.gz | cmp - n; split -l 1000 n part.; cat part.* | cmp - n
         wc -l < n; grep -c 7 n; tee t < n > /dev/null; cmp t n; head -c 100 n >> t; tail -c 100 t | cmp - <(head -c 100 n)
         dd if=n of=n bs=1 seek=10 count=5 conv=notrunc status=none; install -m 700 n inst; stat -c %a inst; touch -r n t; [ ! t -nt n ]
         mkdir -p p/q/r; rmdir -p p/q/r; ln -s n l; readlink l; mktemp ./tmp.XXXXXX > /dev/null; ls | wc -l",
    );
    assert_eq!(printed, "5000\n1355\n700\nn\n12\n");
}
