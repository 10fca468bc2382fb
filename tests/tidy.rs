//! The house rules: what `ARCHITECTURE.md` promises about the code, and what the documents promise
//! about the tests, held in place by reading the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may import (`crate::ROOM`): data takes one direction through the house.
const ARROWS: [(&str, &[&str]); 16] = [
    ("main", &["cli"]),
    ("cli", &["app", "config", "mount", "error", "telemetry"]),
    (
        "app",
        &[
            "config",
            "mount",
            "fs",
            "cache",
            "bucket",
            "journal",
            "hooks",
            "lambda",
            "relay",
            "demo",
            "key",
            "error",
            "telemetry",
            "failpoint",
        ],
    ),
    ("config", &["key", "error", "telemetry"]),
    ("mount", &["fs", "key", "error", "telemetry"]),
    ("fs", &["cache", "bucket", "journal", "key", "error", "telemetry", "failpoint"]),
    ("hooks", &["journal", "bucket", "relay", "key", "error", "telemetry", "failpoint"]),
    ("lambda", &["hooks", "error"]),
    ("relay", &["error"]),
    ("cache", &["bucket", "key", "error", "telemetry"]),
    ("journal", &["bucket", "key", "error", "telemetry", "failpoint"]),
    ("bucket", &["key", "error", "telemetry", "failpoint"]),
    ("demo", &["error"]),
    ("telemetry", &["error", "key"]),
    ("key", &[]),
    ("failpoint", &[]),
];

/// Crates that one room alone may know, and where.
const CONFINED: [(&str, &str); 7] = [
    ("fuser", "src/mount/"),
    ("aws_sdk_s3", "src/bucket/"),
    ("aws_config", "src/bucket/"),
    ("wasmtime", "src/hooks/sandbox/"),
    ("s3s", "src/demo/"),
    ("redb", "src/journal/ src/cache/"),
    ("opentelemetry_proto", "src/app/otlp/"),
];

/// Rooms that say nothing of what they are for.
const FORBIDDEN_ROOMS: [&str; 8] = ["utils", "util", "common", "helpers", "helper", "manager", "core", "misc"];

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a directory of the repository that ends so, by its path in the repository.
fn files(dir: &str, ending: &str) -> BTreeMap<String, String> {
    fn walk(dir: &Path, ending: &str, found: &mut BTreeMap<String, String>) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for path in entries.map(|entry| entry.expect("directory entry").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), "target" | ".git" | "built") {
                    walk(&path, ending, found);
                }
            } else if name.ends_with(ending) {
                let shown = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                // What is no text (a test picture) has no rules here.
                if let Ok(text) = fs::read_to_string(&path) {
                    found.insert(shown, text);
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root().join(dir), ending, &mut found);
    found
}

/// The code of a file without its tests and comments.
fn production(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The first module of a path: `src/fs/ops/read.rs` is in room `fs`.
fn room(path: &str) -> &str {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

/// Identifiers that follow `crate::`, also in `crate::{a, b::c}`.
fn imported_rooms(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(rooms.insert(word(rest))),
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (position, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            rooms.insert(word(&list[position..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    rooms.remove("");
    rooms
}

fn complain(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}

#[test]
fn imports_point_one_way() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let rooms: BTreeSet<&str> = arrows.keys().copied().chain(["error"]).collect();
    let mut complaints = Vec::new();
    for (path, text) in files("src", ".rs").iter().filter(|(path, _)| !is_test_file(path)) {
        let from = room(path);
        for to in imported_rooms(&production(text)) {
            let is_room = rooms.contains(to.as_str());
            if is_room && to != from && !arrows.get(from).is_some_and(|allowed| allowed.contains(&to.as_str())) {
                complaints.push(format!("{path}: {from} must not know {to}"));
            }
        }
    }
    complain("data takes one direction through the rooms", &complaints);
}

#[test]
fn every_room_has_its_arrows() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).chain(["error", "lib"]).collect();
    let files = files("src", ".rs");
    let rooms: BTreeSet<&str> = files.keys().map(|path| room(path)).collect();
    let unknown: Vec<String> = rooms.difference(&known).map(ToString::to_string).collect();
    complain("add the room to ARROWS and to ARCHITECTURE.md", &unknown);
}

#[test]
fn each_foreign_crate_is_known_by_one_room() {
    let mut complaints = Vec::new();
    for (path, text) in files("src", ".rs") {
        let code = production(&text);
        for (name, allowed) in CONFINED {
            let uses = [format!("use {name}"), format!("{name}::")].iter().any(|form| {
                code.match_indices(form.as_str()).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    let after = code[at + form.len()..].chars().next();
                    let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
                    whole && (form.ends_with(':') || !after.is_some_and(|c| c.is_alphanumeric() || c == '_'))
                })
            });
            if uses && !allowed.split(' ').any(|dir| path.starts_with(dir)) {
                complaints.push(format!("{path} knows {name}, which belongs to {allowed}"));
            }
        }
    }
    complain("one room for each foreign crate", &complaints);
}

#[test]
fn files_are_short() {
    let mut complaints = Vec::new();
    for dir in ["src", "tests", "hooks"] {
        for (path, text) in files(dir, ".rs") {
            let lines = text.lines().count();
            if lines > MAX_FILE_LINES {
                complaints.push(format!("{path}: {lines} lines"));
            }
        }
    }
    complain("no file above 600 lines", &complaints);
}

/// Where each function begins and how many lines it has.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = code.split_once("fn ").is_some_and(|(before, _)| before.split_whitespace().all(is_modifier));
        if !is_function || code.ends_with(';') {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let end = format!("{indent}}}");
        let length = lines[number..].iter().position(|line| **line == end || line.ends_with("{}")).unwrap_or(0) + 1;
        let name = code.split("fn ").nth(1).unwrap_or_default().split(['(', '<']).next().unwrap_or_default();
        found.push((number + 1, name.to_owned(), length));
    }
    found
}

fn is_modifier(word: &str) -> bool {
    word.starts_with("pub") || word.ends_with(')') || ["const", "async", "unsafe", "extern", "in"].contains(&word)
}

#[test]
fn functions_are_short() {
    let mut complaints = Vec::new();
    for dir in ["src", "tests", "hooks"] {
        for (path, text) in files(dir, ".rs") {
            for (line, name, length) in functions(&text) {
                if length > MAX_FUNCTION_LINES {
                    complaints.push(format!("{path}:{line} fn {name}: {length} lines"));
                }
            }
        }
    }
    complain("no function above 70 lines", &complaints);
}

#[test]
fn production_code_does_not_unwrap_and_leaves_nothing_undone() {
    let mut complaints = Vec::new();
    for (path, text) in files("src", ".rs").into_iter().filter(|(path, _)| !is_test_file(path)) {
        let code = production(&text);
        for (number, line) in code.lines().enumerate() {
            for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
                if line.contains(word) {
                    complaints.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
        for word in ["TODO", "FIXME", "XXX"] {
            if text.contains(word) {
                complaints.push(format!("{path}: {word}"));
            }
        }
    }
    complain("say `expect(\"the invariant as its sentence\")`, or answer an error", &complaints);
}

#[test]
fn every_unsafe_says_why_it_is_safe() {
    let mut complaints = Vec::new();
    for dir in ["src", "tests", "hooks"] {
        for (path, text) in files(dir, ".rs") {
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                let is_unsafe = code.contains("unsafe {") || code.contains("unsafe impl");
                let above = &lines[number.saturating_sub(6)..number];
                if is_unsafe && !code.contains('"') && !above.iter().any(|line| line.contains("// SAFETY:")) {
                    complaints.push(format!("{path}:{}", number + 1));
                }
            }
        }
    }
    complain("a `// SAFETY:` comment above every unsafe block", &complaints);
}

#[test]
fn every_public_function_is_documented() {
    let mut complaints = Vec::new();
    for (path, text) in files("src", ".rs").into_iter().filter(|(path, _)| !is_test_file(path)) {
        let lines: Vec<&str> = text.split("#[cfg(test)]").next().unwrap_or_default().lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_public = ["pub fn ", "pub async fn ", "pub const fn "].iter().any(|form| code.starts_with(form));
            let above = lines[..number].iter().rev().map(|line| line.trim_start());
            let mut above = above.skip_while(|line| line.starts_with("#[") || line.ends_with(")]"));
            if is_public && !above.next().is_some_and(|line| line.starts_with("///")) {
                complaints.push(format!("{path}:{}: {code}", number + 1));
            }
        }
    }
    complain("every pub fn has a /// comment", &complaints);
}

#[test]
fn rooms_are_named_for_what_they_do() {
    let named: Vec<String> = files("src", ".rs")
        .into_keys()
        .filter(|path| path.split('/').any(|part| FORBIDDEN_ROOMS.contains(&part.trim_end_matches(".rs"))))
        .collect();
    complain("no room for leftovers", &named);
}

#[test]
fn commands_of_the_readme_exist() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut complaints = Vec::new();
    for (at, _) in readme.match_indices("scripts/") {
        let of_a_name = |c: &char| c.is_alphanumeric() || matches!(c, '/' | '-' | '_' | '@' | '.');
        let name: String = readme[at..].chars().take_while(of_a_name).collect();
        // A sentence may end with it.
        let name = name.trim_end_matches('.');
        if !root().join(name).exists() {
            complaints.push(name.to_owned());
        }
    }
    complain("README.md names a script that is not there", &complaints);
    for name in ["scripts/demo", "scripts/test"] {
        assert!(readme.contains(name), "README.md does not name {name}");
    }
}

/// `file::test` of every test that goes through a mount, counts what a reader costs the bucket, or
/// breaks the bucket under the file system.
fn mount_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    let rooms = ["tests/mount", "tests/cache_room", "tests/fs_room"];
    for (path, text) in rooms.iter().flat_map(|room| files(room, ".rs")) {
        let module = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        for (_, name, _) in functions(&text) {
            tests.insert(format!("{module}::{name}"));
        }
    }
    tests
}

/// `file::test` of every test there is.
fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for (path, text) in ["tests", "src"].iter().flat_map(|dir| files(dir, ".rs")) {
        let module = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        tests.extend(functions(&text).into_iter().map(|(_, name, _)| format!("{module}::{name}")));
    }
    tests
}

/// What stands between backquotes and looks like `module::test_name`.
fn named_tests(line: &str) -> Vec<&str> {
    line.split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::") && code.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':'))
        .collect()
}

/// Holds the statements of a document against the tests, and answers how many there are. Statements are the rows of
/// tables that have a column for their test.
fn complain_of_statements(path: &str, tests: &BTreeSet<String>) -> usize {
    let text = fs::read_to_string(root().join(path)).expect(path);
    let (mut complaints, mut statements, mut has_column) = (Vec::new(), 0, false);
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let named = named_tests(line);
        for name in &named {
            if !tests.contains(*name) {
                complaints.push(format!("{path}:{}: there is no test {name}", number + 1));
            }
        }
        let is_head = lines.get(number + 1).is_some_and(|next| next.starts_with("| ---"));
        if is_head {
            has_column = line.ends_with("| test |");
        } else if has_column && line.starts_with("| ") && !line.starts_with("| ---") {
            statements += 1;
            if named.is_empty() {
                complaints.push(format!("{path}:{}: no test: {line}", number + 1));
            }
        }
    }
    complain(&format!("each statement of {path} names an existing test"), &complaints);
    statements
}

#[test]
fn every_statement_of_semantics_names_its_test() {
    let statements = complain_of_statements("docs/SEMANTICS.md", &mount_tests());
    assert!(statements > 50, "only {statements} statements");
}

#[test]
fn every_promise_of_security_names_its_test() {
    let statements = complain_of_statements("docs/SECURITY.md", &all_tests());
    assert!(statements > 30, "only {statements} statements");
}

#[test]
fn every_feature_of_s3_names_its_test() {
    let statements = complain_of_statements("docs/S3.md", &all_tests());
    assert!(statements > 15, "only {statements} statements");
}

#[test]
fn every_promise_of_hooks_names_its_test() {
    let text = fs::read_to_string(root().join("docs/HOOKS.md")).expect("docs/HOOKS.md");
    let mut tests = BTreeSet::new();
    for (path, text) in ["tests", "src/hooks", "src/journal", "src/lambda"].iter().flat_map(|dir| files(dir, ".rs")) {
        let module = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        tests.extend(functions(&text).into_iter().map(|(_, name, _)| format!("{module}::{name}")));
    }
    let (_, promises) = text.split_once("| promise | test |\n|---|---|\n").expect("a table of promises");
    let mut complaints = Vec::new();
    for line in promises.lines().take_while(|line| line.starts_with('|')) {
        let named = named_tests(line);
        if named.is_empty() {
            complaints.push(format!("no test: {line}"));
        }
        complaints.extend(named.iter().filter(|name| !tests.contains(**name)).map(|name| format!("no test {name}")));
    }
    complain("each promise of HOOKS.md names an existing test", &complaints);
}

#[test]
fn every_excluded_case_of_pjdfstest_names_its_line_in_semantics() {
    let semantics = fs::read_to_string(root().join("docs/SEMANTICS.md")).expect("docs/SEMANTICS.md");
    let list = fs::read_to_string(root().join("tests/suites/pjdfstest-expected.txt")).expect("expectations");
    let mut complaints = Vec::new();
    let mut reason: Option<&str> = None;
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.strip_prefix("# SEMANTICS: ") {
            Some(sentence) => {
                reason = Some(sentence);
                if !semantics.contains(sentence) {
                    complaints.push(format!("docs/SEMANTICS.md does not say: {sentence}"));
                }
            }
            None if !line.starts_with('#') && reason.is_none() => complaints.push(format!("no reason for {line}")),
            None => {}
        }
    }
    complain("pjdfstest exclusions point at SEMANTICS.md", &complaints);
}

#[test]
fn nothing_committed_knows_the_machine_it_was_written_on() {
    // Spelt so that this file does not contain what it forbids.
    let forbidden = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat(), ["/ho", "me/"].concat()];
    let mut complaints = Vec::new();
    for (path, text) in files("", "") {
        if path.starts_with("hooks/target") || path.ends_with("Cargo.lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for word in &forbidden {
                // `…/.cache` of an example user in a document is no path of a machine.
                if path != ".git" && line.contains(word.as_str()) && !line.contains(&format!("{word}you")) {
                    complaints.push(format!("{path}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    complain("no absolute path of a machine", &complaints);
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let mut complaints = Vec::new();
    // What is only sourced begins with no `#!`.
    let commands = files("scripts", "").into_iter().filter(|(_, text)| text.starts_with("#!"));
    for path in commands.map(|(path, _)| path).chain([".ci/run".to_owned()]) {
        let mode = fs::metadata(root().join(&path)).map_or(0, |meta| meta.permissions().mode());
        if mode & 0o111 != 0o111 {
            complaints.push(path);
        }
    }
    complain("not executable", &complaints);
}
