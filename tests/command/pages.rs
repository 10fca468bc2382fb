//! What people wrote for the package is held to what the program does. (The options in `s3mount(1)` and the
//! completions come from the program itself.)

use std::collections::{BTreeMap, BTreeSet};

use super::*;

#[path = "../../examples/manual/configuration.rs"]
mod configuration;

fn of_repository(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The heads of a page's `.TP` in a section, as a reader sees them, by their first word.
fn heads(page: &str, section: &str) -> BTreeMap<String, String> {
    let (_, rest) = page.split_once(&format!(".SH {section}\n")).expect("a section");
    let lines: Vec<&str> = rest.lines().take_while(|line| !line.starts_with(".SH ")).collect();
    let heads = lines.windows(2).filter(|pair| pair[0] == ".TP").map(|pair| {
        let plain = [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\(dq", "\""), (".B ", "")];
        plain.iter().fold(pair[1].to_owned(), |head, (roff, shown)| head.replace(roff, shown))
    });
    heads.map(|head| (head.split(' ').next().unwrap_or_default().to_owned(), head)).collect()
}

/// The settings that the parser knows: it names them to who writes another one.
fn settings_of_the_parser() -> BTreeSet<String> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("hooks.toml");
    fs::write(&file, "[[hook]]\nnonsense = 1\n").expect("a settings file");
    let said = s3mount::hooks::load(&file).expect_err("there is no such setting").to_string();
    let (_, known) = said.split_once("expected one of").unwrap_or_else(|| panic!("no settings are named: {said}"));
    quoted(known).map(str::to_owned).collect()
}

#[test]
fn the_page_of_hooks_toml_has_each_setting_and_no_other() {
    let page = heads(&of_repository("packaging/hooks.toml.5.in"), "SETTINGS");
    let settings = settings_of_the_parser();
    assert!(settings.len() > 20, "{settings:?}");
    assert_eq!(page.into_keys().collect::<BTreeSet<_>>(), settings);
}

#[test]
fn the_page_of_hooks_toml_and_its_document_tell_the_same_defaults() {
    let page = heads(&of_repository("packaging/hooks.toml.5.in"), "SETTINGS");
    let document = of_repository("docs/HOOKS.md");
    let (_, table) = document.split_once("| setting | default | meaning and limits |\n|---|---|---|\n").unwrap();
    let mut in_document = BTreeSet::new();
    for row in table.lines().take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let value = cells[1].trim().strip_prefix('`').and_then(|value| value.split('`').next());
        for name in quoted(cells[0]) {
            let head = page.get(name).unwrap_or_else(|| panic!("{name} is not in the page"));
            assert!(value.is_none_or(|value| head.contains(value)), "{name}: {value:?} is not in: {head}");
            in_document.insert(name.to_owned());
        }
    }
    assert_eq!(page.into_keys().collect::<BTreeSet<_>>(), in_document);
}

#[test]
fn the_page_of_s3mount_tells_each_exit_status() {
    let page = heads(&of_repository("packaging/s3mount.1.in"), "EXIT STATUS");
    let source = of_repository("src/error.rs");
    let (_, table) = source.split_once("fn exit_code").unwrap();
    let code = table.split("#[cfg(test)]").next().unwrap_or_default();
    let numbers = code.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() == 2);
    let in_table: BTreeSet<String> = numbers.chain(["0"]).map(str::to_owned).collect();
    assert_eq!(page.into_keys().collect::<BTreeSet<_>>(), in_table);
}

#[test]
fn all_that_the_example_for_a_service_says_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s3mount.toml");
    // What is proposed stands behind a # without a space.
    let lines = of_repository("packaging/s3mount.toml");
    let lines = lines.lines().map(|line| if line.starts_with("# ") { line } else { line.trim_start_matches('#') });
    let said = lines.collect::<Vec<_>>().join("\n");
    assert!(said.contains("\nmemory = "), "{said}");
    assert_understood(&said, &file);
}

/// A file that says all gets as far as the mountpoint, which is not there.
fn assert_understood(said: &str, file: &Path) {
    let mount = |said: &str| {
        fs::write(file, said.replace("/mnt/my-bucket", "/mnt/none/at all")).expect("a settings file");
        let mut command = s3mount();
        command.arg("--config").arg(file);
        command
    };
    assert_refused(&mut mount(said), 64, &["/mnt/none/at all"]);
    assert_refused(&mut mount(&said.replace("\nmemory", "\nmemmory")), 64, &["s3mount.toml", "memmory"]);
}

#[test]
fn the_document_of_the_options_is_what_the_program_says() {
    let made = configuration::document(&s3mount::cli::command());
    let is = of_repository("docs/CONFIGURATION.md");
    // A whole document in an assertion would hide which line it is.
    let other = made.lines().zip(is.lines()).find(|(made, is)| made != is);
    assert!(made == is, "docs/CONFIGURATION.md is not up to date: {}\n{other:#?}", configuration::MADE_BY);
}

#[test]
fn the_example_in_the_document_of_the_options_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let document = of_repository("docs/CONFIGURATION.md");
    let (_, example) = document.split_once("```toml\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    assert!(example.contains("\nmemory = "), "{example}");
    assert_understood(example, &dir.path().join("s3mount.toml"));
}
