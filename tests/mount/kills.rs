//! `kill -9` at every named point, and at random ones: what was promised is in the bucket.
//!
//! Each scene is a few steps and the points at which the mount dies in them, some of them while it
//! recovers from the death before. The ledger knows what may be found: what was promised, or a moment
//! of the step that was under way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use s3mount::failpoint::Failpoint;

use crate::stage::ledger::{Ledger, State, Step, differences};
use crate::stage::{Maker, Mount, PATIENCE, Stage, process, wait_for};

/// Sent in parts.
const LARGE_BYTES: usize = 20 << 20;
/// More than one DeleteObjects takes.
const MANY: usize = 1_050;

/// How a mount is told to store.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub args: &'static [&'static str],
    /// In a bucket like those of S3 Express One Zone.
    pub is_express: bool,
    /// How long after a start the bucket may show older moments than what was promised.
    pub behind: Duration,
}

/// A close answers for S3.
pub const DIRECT: Mode = Mode { args: &[], is_express: false, behind: Duration::ZERO };
/// S3 hears of closes later.
pub const WRITE_BACK: Mode = Mode { args: &["--write-back"], is_express: false, behind: PATIENCE };
/// The same of a directory bucket.
pub const EXPRESS: Mode = Mode { is_express: true, ..DIRECT };
pub const EXPRESS_WRITE_BACK: Mode = Mode { is_express: true, ..WRITE_BACK };

/// What is listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hooks {
    None,
    /// `uploads/NAME` → `uploads/NAME.sha256`, so that the journal knows of every operation.
    Sums,
}

/// What happens until the mount dies, and where it does: a chain is a death in the steps, and then
/// one in each start that follows.
struct Scene {
    objects: Vec<(String, Bytes)>,
    steps: Vec<Step>,
    hooks: Hooks,
    chains: &'static [&'static [&'static str]],
    /// An upload is left that no journal knows: `s3mount gc` finds it.
    orphans: bool,
}

fn text(words: &str) -> Bytes {
    Bytes::copy_from_slice(words.as_bytes())
}

fn objects(list: &[(&str, &str)]) -> Vec<(String, Bytes)> {
    list.iter().map(|(key, words)| ((*key).to_owned(), text(words))).collect()
}

fn large(seed: usize) -> Bytes {
    (0..LARGE_BYTES).map(|at| ((at * 31 + at / 251 + seed) % 253) as u8).collect()
}

/// Versions, attributes, renames and removals of small files.
fn files(hooks: Hooks, chains: &'static [&'static [&'static str]]) -> Scene {
    let name = |name: &str| format!("uploads/{name}");
    let steps = vec![
        Step::Write(name("new"), text("the first version")),
        Step::Write(name("old"), text("the second version of what was there")),
        Step::Append(name("old"), text(", and more")),
        Step::Sync(name("synced"), text("half"), text(" and half")),
        Step::Chmod(name("old")),
        Step::Rename(name("old"), name("moved")),
        Step::Rename(name("new"), name("moved")),
        Step::RenameOpen(name("moved"), name("last"), text(", longer")),
        Step::Remove(name("last")),
        // Nothing comes that could carry these.
        Step::Chmod(name("synced")),
    ];
    Scene {
        objects: objects(&[("uploads/", ""), ("uploads/old", "what was there")]),
        steps,
        hooks,
        chains,
        orphans: false,
    }
}

fn plain_files() -> Scene {
    files(
        Hooks::None,
        &[
            &["put-before"],
            &["put-before:2"],
            &["put-before:3"],
            &["put-before:5"],
            &["put-after"],
            &["put-after:3"],
            &["put-after:4"],
            &["put-settled:2"],
            &["attributes-noted", "recover-attributes"],
            &["attributes-noted", "recover-attributes-settle"],
            &["attributes-stored"],
            &["rename-copied"],
            &["rename-copied:2"],
            &["rename-noted:2"],
            &["rename-dirty-stored"],
            &["remove-deleted"],
        ],
    )
}

fn files_that_fire_hooks() -> Scene {
    files(
        Hooks::Sums,
        &[
            &["journal-before-commit"],
            &["journal-before-commit:2"],
            &["journal-after-commit"],
            &["journal-after-commit:2"],
            &["journal-after-commit:5"],
            &["put-intended", "recover-put"],
            &["put-before:2", "recover-put-settle"],
            &["put-after", "recover-put"],
            &["put-after:2", "recover-put-settle"],
            &["put-settled"],
            &["rename-intended", "recover-rename"],
            &["rename-copied", "recover-rename"],
            &["rename-copied:2", "recover-rename-settle"],
            &["rename-noted", "recover-rename-settle"],
            &["rename-dirty-stored"],
            &["remove-intended", "recover-remove"],
            &["remove-deleted", "recover-remove-settle"],
            &["remove-told"],
        ],
    )
}

/// Closes that are sent behind the programs, renamed and removed before and after that.
fn write_back() -> Scene {
    let steps = vec![
        Step::Write("uploads/new".into(), text("the first version")),
        Step::Append("uploads/old".into(), text(", and more")),
        Step::Sync("uploads/synced".into(), text("half"), text(" and half")),
        Step::Rename("uploads/stored".into(), "uploads/moved".into()),
        Step::Rename("uploads/new".into(), "uploads/old".into()),
        Step::RenameOpen("uploads/old".into(), "uploads/last".into(), text(", longer")),
        Step::Chmod("uploads/last".into()),
        Step::Write("uploads/removed".into(), text("not for long")),
        Step::Remove("uploads/removed".into()),
        Step::Write("uploads/stays".into(), text("for long")),
    ];
    let chains: &[&[&str]] = &[
        &["defer-synced"],
        &["defer-synced:2"],
        &["defer-synced:4"],
        &["defer-intended", "recover-deferred"],
        &["defer-intended:2", "recover-deferred"],
        &["defer-intended:5", "recover-deferred"],
        &["journal-before-commit:2"],
        &["journal-before-commit:4"],
        &["journal-after-commit:3"],
        &["journal-after-commit:5"],
        &["put-before"],
        &["put-after"],
        &["put-before:2"],
        &["put-after:2"],
        &["put-after:3"],
        &["put-settled"],
        &["put-settled:2"],
        &["rename-copied"],
        &["rename-dirty-stored"],
        &["remove-deleted"],
    ];
    Scene {
        objects: objects(&[("uploads/", ""), ("uploads/old", "what was there"), ("uploads/stored", "as it is")]),
        steps,
        hooks: Hooks::None,
        chains,
        orphans: false,
    }
}

/// What a hook makes of versions that stay.
fn outputs_of_hooks() -> Scene {
    let steps = vec![
        Step::Write("uploads/new".into(), text("the first version")),
        Step::Write("uploads/other".into(), text("another file")),
    ];
    let chains: &[&[&str]] =
        &[&["hook-before-publish"], &["hook-between-files"], &["hook-published"], &["hook-published:2"]];
    Scene { objects: objects(&[("uploads/", "")]), steps, hooks: Hooks::Sums, chains, orphans: false }
}

fn directories() -> Scene {
    let steps = vec![
        Step::Remove("prefix/only".into()),
        Step::MakeDir("made".into()),
        Step::Write("made/file".into(), text("in it")),
        Step::Remove("made/file".into()),
        Step::RemoveDir("made".into()),
    ];
    let chains: &[&[&str]] = &[&["marker-kept"], &["rmdir-noted"], &["remove-deleted"], &["remove-told"]];
    Scene { objects: objects(&[("prefix/only", "alone")]), steps, hooks: Hooks::None, chains, orphans: false }
}

fn large_files() -> Scene {
    let chains: &[&[&str]] = &[
        &["upload-before"],
        &["upload-noted", "recover-upload"],
        &["upload-between-parts", "recover-upload-settle"],
        &["upload-between-parts:2", "recover-before-clear"],
        &["upload-before-complete", "recover-upload"],
        &["upload-completed", "recover-upload-settle"],
    ];
    let steps = vec![Step::Write("large".into(), large(1))];
    Scene { objects: objects(&[("large", "small as yet")]), steps, hooks: Hooks::None, chains, orphans: false }
}

/// Between the answer of S3 and the journal's record nothing here knows of the upload.
fn orphans() -> Scene {
    Scene { chains: &[&["upload-created"]], orphans: true, ..large_files() }
}

fn redirections() -> Scene {
    let redirect = |name: &str| Step::Redirect(name.into(), "one ".into(), "two".into());
    let steps = vec![
        redirect("uploads/new"),
        redirect("uploads/old"),
        Step::CloseOne("uploads/open".into()),
        Step::Write("uploads/other".into(), text("closed while that is open")),
        Step::Rename("uploads/new".into(), "uploads/moved".into()),
    ];
    let chains: &[&[&str]] = &[
        &["journal-before-commit"],
        &["journal-before-commit:3"],
        &["journal-after-commit"],
        &["journal-after-commit:2"],
        &["journal-after-commit:4"],
        &["defer-synced"],
        &["defer-synced:2"],
        &["defer-intended", "recover-deferred"],
        &["defer-intended:2", "recover-deferred"],
        &["defer-intended:3", "recover-deferred-settle"],
        &["defer-intended:4", "recover-deferred-settle"],
        &["put-before", "recover-deferred"],
        &["put-after", "recover-deferred"],
        &["put-after", "recover-deferred-settle"],
        &["put-after:2", "recover-deferred-settle"],
        &["put-settled:2"],
        &["put-after:3", "recover-deferred-settle"],
        &["rename-copied", "recover-deferred"],
    ];
    Scene { objects: objects(&[("uploads/old", "what was there")]), steps, hooks: Hooks::None, chains, orphans: false }
}

/// A large draft whose close was promised is sent by the next start, in parts.
fn large_redirections() -> Scene {
    let chains: &[&[&str]] = &[
        &["defer-intended:2", "upload-before"],
        &["defer-intended:2", "upload-noted", "recover-upload"],
        &["defer-intended:2", "upload-between-parts"],
        &["defer-intended:2", "upload-before-complete"],
        &["defer-intended:2", "upload-completed", "recover-deferred-settle"],
    ];
    let steps = vec![Step::RedirectZeros("large".into(), LARGE_BYTES)];
    Scene { objects: Vec::new(), steps, hooks: Hooks::None, chains, orphans: false }
}

/// Files of a directory bucket that grow. What is there has no checksum that could be gone on with, so that it is written
/// anew at first.
fn growing_files() -> Scene {
    let steps = vec![
        Step::Append("log".into(), text(", and more")),
        Step::Append("log".into(), text(", and yet more")),
        Step::Sync("synced".into(), text("half"), text(" and half")),
        Step::Append("synced".into(), text(", and more")),
        Step::Chmod("log".into()),
        Step::RenameOpen("log".into(), "last".into(), text(", longer")),
        Step::Append("last".into(), text(", at last")),
    ];
    let chains: &[&[&str]] = &[
        &["append-noted", "recover-append"],
        &["append-noted:2"],
        &["append-done", "recover-append"],
        &["append-done", "recover-append-settle"],
        &["append-done:2", "recover-append"],
        &["append-done:3", "recover-append", "recover-append-settle"],
        &["append-done:4"],
        &["attributes-stored"],
        &["put-before"],
        &["put-after:2"],
    ];
    Scene { objects: objects(&[("log", "what was there")]), steps, hooks: Hooks::None, chains, orphans: false }
}

/// The same, sent behind the programs.
fn growing_files_behind_a_close() -> Scene {
    let chains: &[&[&str]] = &[
        &["append-noted", "recover-append", "recover-deferred"],
        &["append-done", "recover-append-settle", "recover-deferred"],
        &["put-before", "recover-deferred"],
        &["put-after", "recover-deferred"],
        &["defer-intended:2"],
    ];
    Scene { chains, ..growing_files() }
}

/// A directory of a directory bucket, whose files are renamed and whose markers are copied.
fn renamed_trees() -> Scene {
    let chains: &[&[&str]] = &[
        &["tree-intended", "recover-tree"],
        &["tree-between-renames"],
        &["tree-between-renames:5", "recover-tree"],
        &["tree-between-renames:7", "recover-tree", "recover-tree-settle"],
        &["tree-between-renames:17"],
        &["tree-between-copies", "recover-tree"],
        &["tree-copied", "recover-tree"],
        &["tree-told", "recover-tree-settle"],
        &["tree-between-deletes", "recover-tree-settle"],
        &["tree-deleted", "recover-tree"],
        &["tree-settled"],
        &["tree-settled", "recover-deferred"],
    ];
    Scene { chains, ..trees() }
}

/// What was renamed before the crash fires its hooks, too.
fn renamed_trees_that_fire_hooks() -> Scene {
    let objects = (0..9).map(|number| (format!("in/f{number}"), text(&format!("file {number}")))).collect();
    let steps = vec![Step::RenameTree("in".into(), "uploads".into())];
    let chains: &[&[&str]] =
        &[&["tree-between-renames"], &["tree-between-renames:4", "recover-tree"], &["tree-copied"], &["tree-told"]];
    Scene { objects, steps, hooks: Hooks::Sums, chains, orphans: false }
}

fn trees() -> Scene {
    let mut objects =
        objects(&[("uploads/", ""), ("uploads/sub/", ""), ("uploads/sub/deep", "deep"), ("uploads/e", "")]);
    objects.extend((0..9).map(|number| (format!("uploads/f{number}"), text(&format!("file {number}")))));
    let steps = vec![
        Step::Write("uploads/written".into(), text("by this mount")),
        Step::CloseOne("uploads/open".into()),
        Step::RenameTree("uploads".into(), "moved".into()),
        Step::RenameTree("moved".into(), "uploads".into()),
    ];
    let chains: &[&[&str]] = &[
        &["tree-intended", "recover-tree"],
        &["tree-between-copies"],
        &["tree-between-copies:7", "recover-tree"],
        &["tree-between-copies:20"],
        &["tree-copied", "recover-tree"],
        &["tree-told", "recover-tree-settle"],
        &["tree-between-deletes", "recover-tree-settle"],
        &["tree-deleted", "recover-tree"],
        &["tree-settled"],
        &["tree-settled", "recover-deferred"],
    ];
    Scene { objects, steps, hooks: Hooks::None, chains, orphans: false }
}

fn a_tree_of_many_files() -> Scene {
    let objects = (0..MANY).map(|number| (format!("many/f{number}"), text("x"))).collect();
    let steps = vec![Step::RenameTree("many".into(), "moved".into())];
    Scene { objects, steps, hooks: Hooks::None, chains: &[&["tree-between-deletes"]], orphans: false }
}

/// The bucket below a prefix, without what hooks wrote.
fn found(mount: &Mount, prefix: &str) -> State {
    let keys = mount.outside().keys(prefix).into_iter().filter(|key| !key.ends_with(".sha256"));
    keys.map(|key| (key.clone(), Bytes::from(mount.outside().bytes(&key)))).collect()
}

/// The bucket is what the ledger allows, and the mount shows the same.
pub fn check(mount: &Mount, prefix: &str, ledger: &mut Ledger, mode: Mode, told: &str) {
    let until = Instant::now() + mode.behind;
    loop {
        let found = found(mount, prefix);
        // First the mount: it is ahead of the bucket in what is to go.
        match shows(mount, prefix, &found).and_then(|()| ledger.settle(&found)) {
            Ok(()) => return,
            Err(difference) => assert!(Instant::now() < until, "{told}: {difference}\n{}", mount.log()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether the mount has these files and no others.
fn shows(mount: &Mount, prefix: &str, found: &State) -> Result<(), String> {
    let files: State =
        found.iter().filter(|(key, _)| !key.ends_with('/')).map(|(key, bytes)| (key.clone(), bytes.clone())).collect();
    let mut shown = State::new();
    read_below(mount, prefix, &mut shown).map_err(|error| format!("below {prefix:?} through the mount: {error}"))?;
    shown.retain(|key, _| !key.ends_with(".sha256"));
    if shown == files { Ok(()) } else { Err(format!("through the mount: {}", differences(&files, &shown))) }
}

fn read_below(mount: &Mount, directory: &str, files: &mut State) -> std::io::Result<()> {
    for entry in std::fs::read_dir(mount.at(directory))? {
        let entry = entry?;
        let key = format!("{directory}/{}", entry.file_name().to_string_lossy());
        let key = key.trim_start_matches('/').to_owned();
        if entry.file_type()?.is_dir() {
            read_below(mount, &key, files)?;
        } else {
            files.insert(key, std::fs::read(entry.path())?.into());
        }
    }
    Ok(())
}

/// No upload is left, but for what only `s3mount gc` can find.
fn check_uploads(mount: &Mount, orphans: bool, told: &str) {
    assert_eq!(!mount.outside().pending_uploads().is_empty(), orphans, "{told}: uploads are left");
    abort_all_uploads(mount);
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new(), "{told}: uploads are left after gc");
}

/// `s3mount gc` of everything; answers what it printed.
pub fn abort_all_uploads(mount: &Mount) -> String {
    process::run(mount.command().args(["gc", mount.outside().bucket(), "--older-than", "0s", "--delete"]))
}

/// Every file has the sum that its hook has to write.
fn check_sums(mount: &Mount, found: &State, told: &str) {
    for (key, bytes) in found.iter().filter(|(key, _)| !key.ends_with('/')) {
        let Some(name) = key.strip_prefix("uploads/").filter(|_| !is_from_outside(bytes)) else { continue };
        let wanted = super::hooks_run::sha256_line(bytes, name);
        wait_for(&format!("{told}: the sum of {key}"), PATIENCE, || {
            (mount.outside().get(&format!("{key}.sha256"))?.bytes == wanted.as_bytes()).then_some(())
        });
    }
}

/// Hooks see what the mount writes.
fn is_from_outside(bytes: &[u8]) -> bool {
    bytes == b"what was there"
}

fn prepared(scene: &Scene, mode: Mode) -> (Mount, Ledger) {
    let mut stage = Stage::on(Maker::Embedded).args(mode.args);
    if mode.is_express {
        stage = stage.directory_bucket();
    }
    if scene.hooks == Hooks::Sums {
        stage = stage.hooks(&super::hooks_run::sha256sum_hooks());
    }
    let mount = stage.prepare();
    let objects: State = scene.objects.iter().cloned().collect();
    for (key, bytes) in &objects {
        mount.outside().put(key, bytes);
    }
    (mount, Ledger::new(objects))
}

/// Dies at each point of a chain, once more at the last one, and is whole at the end.
fn play(scene: &Scene, chain: &[&str], mode: Mode) {
    let kind = if mode.is_express { "in a directory bucket" } else { "" };
    let told = format!("{} {} {kind}", chain.join(", then "), mode.args.join(" "));
    eprintln!("to die at {told}");
    let (mut mount, mut ledger) = prepared(scene, mode);
    mount.crash_at(chain.first().copied());
    mount.start();
    let dir = mount.path().to_owned();
    for (number, step) in (1..).zip(&scene.steps) {
        if let Err(error) = ledger.play(&dir, step) {
            // Not the step itself: some write megabytes.
            eprintln!("step {number} of {}: {error}", scene.steps.len());
            break;
        }
    }
    let died = mount.wait_end(PATIENCE);
    assert_eq!(process::signal_of(died), Some(libc::SIGKILL), "{told}: ended by itself\n{}", mount.log());
    ledger.let_go();
    for point in &chain[1..] {
        mount.crash_at(Some(point));
        let died = mount.start_unless_it_dies();
        let killed = died.and_then(process::signal_of);
        assert_eq!(killed, Some(libc::SIGKILL), "{told}: {point} was not reached\n{}", mount.log());
    }
    mount.crash_at(chain.last().copied());
    if mount.start_unless_it_dies().is_none() {
        mount.kill();
    }
    mount.crash_at(None);
    mount.start();
    check(&mount, "", &mut ledger, mode, &told);
    assert!(mount.conflicts().is_empty(), "{told}: a conflict, though nobody else wrote\n{}", mount.log());
    check_uploads(&mount, scene.orphans, &told);
    if scene.hooks == Hooks::Sums {
        check_sums(&mount, ledger.promised(), &told);
    }
}

fn play_all(scene: &Scene) {
    play_all_in(scene, DIRECT);
}

fn play_all_in(scene: &Scene, mode: Mode) {
    for chain in scene.chains {
        play(scene, chain, mode);
    }
}

#[test]
fn at_every_point_of_small_files_nothing_promised_is_lost() {
    play_all(&plain_files());
}

#[test]
fn at_every_point_behind_a_close_nothing_promised_is_lost() {
    play_all_in(&write_back(), WRITE_BACK);
}

#[test]
fn at_every_point_of_files_with_hooks_nothing_promised_is_lost_and_each_version_is_seen() {
    play_all(&files_that_fire_hooks());
    play_all(&outputs_of_hooks());
}

#[test]
fn at_every_point_of_directories_nothing_promised_is_lost() {
    play_all(&directories());
}

#[test]
fn at_every_point_of_an_upload_the_object_is_whole_and_nothing_is_left() {
    play_all(&large_files());
}

#[test]
fn an_upload_that_no_journal_knows_is_found_by_gc() {
    play_all(&orphans());
}

#[test]
fn at_every_point_of_a_redirection_nothing_promised_is_lost() {
    play_all(&redirections());
}

#[test]
fn a_large_draft_is_sent_by_a_start_that_is_killed_too() {
    play_all(&large_redirections());
}

#[test]
fn at_every_point_of_a_directory_rename_one_whole_tree_is_left() {
    play_all(&trees());
}

#[test]
fn at_every_point_of_an_append_the_object_has_the_bytes_once() {
    play_all_in(&growing_files(), EXPRESS);
    play_all_in(&growing_files_behind_a_close(), EXPRESS_WRITE_BACK);
}

#[test]
fn at_every_point_of_a_directory_rename_by_a_directory_bucket_one_whole_tree_is_left() {
    play_all_in(&renamed_trees(), EXPRESS);
    play_all_in(&renamed_trees_that_fire_hooks(), EXPRESS);
}

#[test]
fn killed_between_two_batches_of_deletes_one_whole_tree_is_left() {
    play_all(&a_tree_of_many_files());
}

#[test]
fn every_failpoint_is_tried() {
    let scenes = [
        plain_files(),
        files_that_fire_hooks(),
        outputs_of_hooks(),
        directories(),
        large_files(),
        orphans(),
        redirections(),
        large_redirections(),
        trees(),
        a_tree_of_many_files(),
        growing_files(),
        growing_files_behind_a_close(),
        renamed_trees(),
        renamed_trees_that_fire_hooks(),
    ];
    let tried: Vec<&str> = scenes.iter().flat_map(|scene| scene.chains.concat()).collect();
    for point in Failpoint::ALL {
        let is_tried = tried.iter().any(|tried| tried.split(':').next() == Some(point.name()));
        assert!(is_tried, "no scene dies at {}", point.name());
    }
}
