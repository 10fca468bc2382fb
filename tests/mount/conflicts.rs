//! Two machines write the same names at once: what was accepted was built on the version before it, and
//! what was refused is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::stage::{Dice, Maker, Mount, Stage, sys};

/// Tries of each mount; `S3MOUNT_SOAK_ROUNDS` says how many else.
const ROUNDS: usize = 1000;
const NAMES: u64 = 2;

fn rounds() -> usize {
    std::env::var("S3MOUNT_SOAK_ROUNDS").ok().map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

/// A line, and onto how much of which file it was put.
#[derive(Clone, Debug)]
struct Added {
    name: String,
    line: String,
    base_bytes: usize,
    /// The whole file was written, not the line alone.
    anew: bool,
}

/// How the closes of one mount ended: the file, and the line that was added to it.
#[derive(Debug, Default)]
struct Outcomes {
    accepted: Vec<Added>,
    refused: Vec<(String, String)>,
    /// Opens and reads that found their version gone, and how; nothing was written then.
    unread: Vec<(String, String)>,
}

/// Reads what is there and adds a line, by writing the line or the whole file anew.
fn add_line(file: &mut File, line: &str, anew: bool) -> io::Result<usize> {
    let mut text = String::new();
    let base_bytes = file.read_to_string(&mut text)?;
    if anew {
        file.write_all_at((text + line).as_bytes(), 0)?;
    } else {
        file.write_all_at(line.as_bytes(), base_bytes as u64)?;
    }
    Ok(base_bytes)
}

/// Adds lines to files that the other mount adds lines to.
fn add_lines(dir: &Path, who: &str, rounds: usize, mut dice: Dice) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for round in 0..rounds {
        let (name, line) = (format!("f{}", dice.roll(NAMES)), format!("{who} {round}\n"));
        let anew = dice.roll(2) == 0;
        let opened = OpenOptions::new().read(true).write(true).open(dir.join(&name));
        let written = opened.and_then(|mut file| add_line(&mut file, &line, anew).map(|base_bytes| (file, base_bytes)));
        let Ok((file, base_bytes)) =
            written.inspect_err(|error| assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{error}"))
        else {
            outcomes.unread.push((name, line));
            continue;
        };
        match sys::close(file) {
            Ok(()) => outcomes.accepted.push(Added { name, line, base_bytes, anew }),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{who} round {round}: {error}");
                outcomes.refused.push((name, line));
            }
        }
    }
    outcomes
}

/// The lines that were put onto as many bytes as this one: one of them may have been put over it.
fn beside(all: &[&Added], lost: &str) -> String {
    let Some(lost) = all.iter().find(|added| added.line == lost) else { return String::new() };
    let same = |other: &&&Added| other.name == lost.name && other.base_bytes == lost.base_bytes;
    let tell = |other: &&Added| format!("{:?} (anew: {})", other.line, other.anew);
    all.iter().filter(same).map(tell).collect::<Vec<_>>().join(", ")
}

/// What lies in the conflict files of a mount, all together.
fn kept(mount: &Mount) -> String {
    let texts = mount.conflicts().into_iter().map(|path| std::fs::read(path).unwrap());
    texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned() + "\n").collect()
}

#[test]
fn two_mounts_lose_no_accepted_version_and_keep_each_refused_one() {
    play(Stage::on(Maker::Embedded));
}

/// Where a line that is put behind the others is all that is sent.
#[test]
fn two_mounts_of_a_directory_bucket_lose_no_accepted_line() {
    play(Stage::on(Maker::Embedded).directory_bucket());
}

fn play(stage: Stage) {
    let mut left = stage.prepare();
    for number in 0..NAMES {
        left.outside().put(&format!("f{number}"), b"begin\n");
    }
    let mut right = left.elsewhere();
    left.start();
    right.start();
    let (of_left, of_right) = std::thread::scope(|scope| {
        let playing = [(&left, "left"), (&right, "right")].map(|(mount, who)| {
            let (dir, dice) = (mount.path().to_owned(), Dice::new(who.len() as u64));
            scope.spawn(move || add_lines(&dir, who, rounds(), dice))
        });
        let [left, right] = playing.map(|player| player.join().unwrap());
        (left, right)
    });
    eprintln!(
        "{} accepted, {} refused, {} not read",
        of_left.accepted.len() + of_right.accepted.len(),
        of_left.refused.len() + of_right.refused.len(),
        of_left.unread.len() + of_right.unread.len()
    );
    let mut accepted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let all: Vec<&Added> = of_left.accepted.iter().chain(&of_right.accepted).collect();
    for Added { name, line, .. } in &all {
        accepted.entry(name.clone()).or_default().insert(line.clone());
    }
    for (name, lines) in accepted {
        // Each version holds all before it: one that was built on another than the last has lost a line.
        let text = String::from_utf8(left.outside().bytes(&name)).unwrap();
        let found: Vec<String> = text.lines().skip(1).map(|line| format!("{line}\n")).collect();
        let distinct: BTreeSet<String> = found.iter().cloned().collect();
        assert_eq!(distinct.len(), found.len(), "{name} has a line twice");
        if let Some(lost) = lines.difference(&distinct).next() {
            panic!("{name} lost {lost:?}, which was accepted; as much was read before {}", beside(&all, lost));
        }
        if let Some(line) = distinct.difference(&lines).next() {
            let how = |list: &dyn Fn(&Outcomes) -> bool| list(&of_left) || list(&of_right);
            let refused = how(&|outcomes| outcomes.refused.iter().any(|(_, other)| other == line));
            panic!("{name} has {line:?}, which was {}", if refused { "refused" } else { "not even read" });
        }
    }
    for (mount, outcomes) in [(&left, &of_left), (&right, &of_right)] {
        assert!(!outcomes.accepted.is_empty() && !outcomes.refused.is_empty(), "no conflict at all: {outcomes:?}");
        let kept = kept(mount);
        for (name, line) in &outcomes.refused {
            assert!(kept.contains(line.as_str()), "{name}: {line:?} was refused and is not kept");
        }
    }
}

/// `>>` of a shell: where the end is the kernel says, and takes the size that it remembers.
#[test]
fn of_two_mounts_that_append_none_writes_over_a_line_of_the_other() {
    const APPENDS: usize = 60;
    let mut left = Stage::on(Maker::Embedded).prepare();
    left.outside().put("log", b"begin\n");
    let mut right = left.elsewhere();
    left.start();
    right.start();
    let mut accepted = Vec::new();
    for round in 0..APPENDS {
        for (mount, who) in [(&left, "left"), (&right, "right")] {
            let line = format!("{who} {round}\n");
            let opened = OpenOptions::new().append(true).open(mount.at("log"));
            let written = opened.and_then(|mut file| file.write_all(line.as_bytes()).map(|()| file));
            match written.and_then(sys::close) {
                Ok(()) => accepted.push(line),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ESTALE), "{line}: {error}"),
            }
        }
    }
    let text = String::from_utf8(left.outside().bytes("log")).unwrap();
    let lost: Vec<_> = accepted.iter().filter(|line| !text.contains(line.as_str())).collect();
    assert!(lost.is_empty(), "of {} accepted lines {lost:?} are gone:\n{text}", accepted.len());
    assert!(accepted.len() > APPENDS / 2, "{} accepted", accepted.len());
}
