//! `kill -9` at random instants, again and again on one mount, also while it recovers.
//!
//! `S3MOUNT_SOAK_KILLS` says how many; `scripts/soak` asks for more than `scripts/test`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::kills::{DIRECT, Mode, WRITE_BACK, abort_all_uploads, check};
use crate::stage::ledger::{Ledger, State, Step};
use crate::stage::{Dice, Maker, Mount, PATIENCE, Stage};

/// Of all tests here together.
const KILLS: usize = 100;
/// Sent in parts.
const LARGE_BYTES: usize = 17 << 20;
/// Each works in a directory of its own: what it was promised is known without the others.
const PLAYERS: [&str; 2] = ["left", "right"];
/// Random kills of a start come within this.
const START_MS: u64 = 400;

fn kills() -> usize {
    std::env::var("S3MOUNT_SOAK_KILLS").ok().map_or(KILLS, |text| text.parse().expect("a number of kills"))
}

/// A program that does one random thing after the other, and its ledger.
struct Player {
    root: &'static str,
    ledger: Ledger,
    dice: Dice,
    steps: usize,
}

impl Player {
    fn name(&mut self) -> String {
        format!("{}/n{}", self.root, self.dice.roll(6))
    }

    /// A file that is there.
    fn some_file(&mut self) -> Option<String> {
        let begin = format!("{}/n", self.root);
        let files: Vec<String> = self.ledger.promised().keys().filter(|key| key.starts_with(&begin)).cloned().collect();
        (!files.is_empty()).then(|| files[self.dice.roll(files.len() as u64) as usize].clone())
    }

    fn bytes(&mut self) -> Bytes {
        // Some of them too large to lie in the journal.
        let most = if self.dice.roll(4) == 0 { 10_000 } else { 400 };
        let size = 1 + self.dice.roll(most) as usize;
        Bytes::from(format!("{} step {} ", self.root, self.steps).repeat(size))
    }

    fn large(&mut self) -> Bytes {
        let seed = self.steps;
        (0..LARGE_BYTES).map(|at| ((at / 97 + seed) % 251) as u8).collect()
    }

    fn next_step(&mut self) -> Step {
        self.steps += 1;
        let (name, bytes) = (self.name(), self.bytes());
        let words = |part: &str| format!("{part} {} ", self.steps);
        let redirect = Step::Redirect(name.clone(), words("one"), words("two"));
        let kind = self.dice.roll(40);
        let Some(file) = self.some_file() else { return Step::Write(name, bytes) };
        match kind {
            0 => Step::Write(name, self.large()),
            1..=5 => Step::Append(file, bytes),
            6..=8 => Step::Sync(name, bytes.clone(), bytes),
            9..=12 => redirect,
            13 | 14 => Step::Chmod(file),
            15..=18 => Step::Remove(file),
            19..=22 if file != name => Step::Rename(file, name),
            23..=25 if file != name => Step::RenameOpen(file, name, bytes),
            26..=28 => self.toggle("tree", Step::RenameTree),
            29 | 30 => self.make_or_remove(),
            _ => Step::Write(name, bytes),
        }
    }

    /// From the one name to the other, and back.
    fn toggle(&self, name: &str, step: impl Fn(String, String) -> Step) -> Step {
        let (one, two) = (format!("{}/{name}1", self.root), format!("{}/{name}2", self.root));
        if self.ledger.promised().contains_key(&format!("{one}/")) { step(one, two) } else { step(two, one) }
    }

    fn make_or_remove(&self) -> Step {
        let name = format!("{}/made", self.root);
        if self.ledger.promised().contains_key(&format!("{name}/")) {
            Step::RemoveDir(name)
        } else {
            Step::MakeDir(name)
        }
    }
}

/// What lies in a player's directory at the beginning.
fn beginning(root: &str) -> State {
    let mut state = State::from([(format!("{root}/"), Bytes::new()), (format!("{root}/tree1/"), Bytes::new())]);
    state
        .extend((0..5).map(|number| (format!("{root}/tree1/f{number}"), Bytes::from(format!("in the tree {number}")))));
    state
}

/// Plays until the mount dies, at no particular moment of a step.
fn one_round(mount: &mut Mount, players: &mut [Player], dice: &mut Dice) {
    let (dir, done) = (mount.path().to_owned(), AtomicUsize::new(0));
    let enough = dice.roll(16) as usize;
    std::thread::scope(|scope| {
        for player in players {
            let (dir, done) = (&dir, &done);
            scope.spawn(move || {
                loop {
                    let step = player.next_step();
                    if player.ledger.play(dir, &step).is_err() {
                        return;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let begun = Instant::now();
        while done.load(Ordering::Relaxed) < enough && begun.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        for _ in 0..dice.roll(2_000_000) {
            std::hint::spin_loop();
        }
        mount.kill();
    });
    assert!(done.load(Ordering::Relaxed) >= enough, "steps do not succeed while the mount lives\n{}", mount.log());
}

fn play(kills: usize, seed: u64, mode: Mode) {
    let mut mount = Stage::on(Maker::Embedded).args(mode.args).prepare();
    let mut dice = Dice::new(seed);
    let mut players: Vec<Player> = PLAYERS
        .iter()
        .enumerate()
        .map(|(number, root)| {
            let state = beginning(root);
            for (key, bytes) in &state {
                mount.outside().put(key, bytes);
            }
            Player { root, ledger: Ledger::new(state), dice: Dice::new(seed + 1 + number as u64), steps: 0 }
        })
        .collect();
    mount.start();
    let mut killed = 0;
    while killed < kills {
        one_round(&mut mount, &mut players, &mut dice);
        killed += 1;
        while dice.roll(3) == 0 && killed < kills {
            mount.spawn();
            std::thread::sleep(Duration::from_millis(dice.roll(START_MS)));
            mount.kill();
            killed += 1;
        }
        mount.start();
        for player in &mut players {
            check(&mount, player.root, &mut player.ledger, mode, &format!("seed {seed}, kill {killed}"));
        }
    }
    let acknowledged: usize = players.iter().map(|player| player.ledger.acknowledged).sum();
    eprintln!("{killed} kills {}: {acknowledged} steps acknowledged, 0 not found", mode.args.join(" "));
    assert!(acknowledged > kills / 2, "only {acknowledged} steps");
    // What was begun in the moment of a kill may be in no journal.
    abort_all_uploads(&mount);
    assert_eq!(mount.outside().pending_uploads(), Vec::<String>::new());
}

/// Half of the kills, in each way of storing.
fn play_half(seed: u64) {
    for mode in [DIRECT, WRITE_BACK] {
        play(kills() / 4, seed, mode);
    }
}

#[test]
fn random_kills_lose_nothing_that_was_promised() {
    play_half(7);
}

#[test]
fn more_random_kills_lose_nothing_that_was_promised() {
    play_half(1_000_007);
}
