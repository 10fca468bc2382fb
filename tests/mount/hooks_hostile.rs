//! A mount whose hooks mean harm.

use std::fs;
use std::time::Instant;

use crate::hooks_command::json;
use crate::hostile_guests;
use crate::stage::{Maker, PATIENCE, Stage};

#[test]
fn the_mount_answers_while_every_hostile_module_runs() {
    let all = hostile_guests::all();
    let dir = tempfile::tempdir().unwrap();
    let hook = |hostile: &hostile_guests::Hostile| {
        let file = dir.path().join(hostile.name).with_extension("wat");
        fs::write(&file, &hostile.module).unwrap();
        let (name, rest) = (hostile.name, hostile_guests::settings(hostile));
        format!("[[hook]]\nname = \"{name}\"\nwasm = \"{}\"\n{rest}\n", file.display())
    };
    let toml = all.iter().map(hook).collect::<Vec<_>>().concat();
    let mut mount = Stage::on(Maker::Embedded).hooks(&toml).mount();
    fs::create_dir(mount.at("trap")).unwrap();
    fs::write(mount.at("trap/x"), "bytes").unwrap();

    let begun = Instant::now();
    let mut rounds = 0;
    loop {
        let file = mount.at(&format!("f{}", rounds % 8));
        let text = format!("round {rounds}");
        fs::write(&file, &text).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(file.metadata().unwrap().len(), text.len() as u64);
        assert!(fs::read_dir(mount.path()).unwrap().count() >= 2);
        rounds += 1;
        let hooks = &mount.status()["hooks"];
        let busy = |hook: &serde_json::Value| hook["queued"] != 0 || hook["running"] != 0;
        if hooks["events_waiting"] == 0 && !hooks["hooks"].as_array().unwrap().iter().any(busy) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE * 5, "{hooks}");
    }
    assert!(rounds >= 10, "only {rounds} rounds while they ran");

    let dead = json(&mount, &["dead-letters", "list", "--json"]);
    let reason = |name: &str| {
        let letter = dead.as_array().unwrap().iter().find(|letter| letter["hook"] == name);
        letter.map(|letter| letter["reason"].as_str().unwrap().to_owned())
    };
    assert_eq!(hostile_guests::complaints(&all, reason), [""; 0]);
    assert_eq!(mount.outside().keys("made/"), ["made/again", "made/x"]);
    assert!(mount.is_alive());
    mount.stop();
}
