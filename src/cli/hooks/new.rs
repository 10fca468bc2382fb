//! `s3mount hooks new --lang rust|c NAME [--dir DIR]`

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::app::{Failure, is_hook_name};
use crate::cli::say;
use crate::error::Kind;
use crate::telemetry::printable;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The hook: letters, digits, `-` and `_`
    name: String,
    /// What it is written in
    #[arg(long, value_enum)]
    lang: Language,
    /// The directory to make [default: NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Rust,
    C,
}

/// A file of the project: its place, its mode, and its text, in which `@NAME@` and `@SOURCE@` are filled in.
type Template = (&'static str, u32, &'static str);

const OF_ALL: [Template; 6] = [
    ("hooks.toml", 0o666, include_str!("templates/hooks.toml.in")),
    ("README.md", 0o666, include_str!("templates/README.md.in")),
    ("test.sh", 0o777, include_str!("templates/test.sh.in")),
    ("test/three.txt", 0o666, "one\ntwo\nthree\n"),
    ("test/three.txt.lines", 0o666, "3\n"),
    (".gitignore", 0o666, include_str!("templates/gitignore.in")),
];

impl Language {
    fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/main.rs",
            Self::C => "hook.c",
        }
    }

    fn templates(self) -> Vec<Template> {
        let own: &[Template] = match self {
            Self::Rust => &[
                ("src/main.rs", 0o666, include_str!("templates/rust/main.rs.in")),
                ("Cargo.toml", 0o666, include_str!("templates/rust/Cargo.toml.in")),
                ("build.rs", 0o666, include_str!("templates/rust/build.rs.in")),
                ("build.sh", 0o777, include_str!("templates/rust/build.sh.in")),
            ],
            Self::C => &[
                ("hook.c", 0o666, include_str!("templates/c/hook.c.in")),
                ("build.sh", 0o777, include_str!("templates/c/build.sh.in")),
            ],
        };
        [own, &OF_ALL].concat()
    }
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { name, lang, dir } = self;
        // An option to every program that gets it, otherwise.
        let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !is_hook_name(&name) {
            let message = format!("'{}' is no name of a hook", printable(&name));
            return Err(Failure::new(Kind::Usage, message)
                .hint("a name has up to 64 letters, digits, - and _, and begins with a letter or digit"));
        }
        let dir = dir.unwrap_or_else(|| PathBuf::from(&name));
        make(&dir, &name, lang).map_err(|cause| {
            let place = printable(&dir.to_string_lossy());
            match cause.kind() {
                io::ErrorKind::AlreadyExists => Failure::new(Kind::Usage, format!("{place} is there already"))
                    .hint("nothing was written; name another directory with --dir"),
                _ => Failure::new(Kind::Local, format!("{place}: {cause}")),
            }
        })?;
        let place = printable(&dir.to_string_lossy());
        say(&format!("{place}: the program is {}; ./build.sh builds it, ./test.sh tries it\n", lang.source()));
        Ok(())
    }
}

/// The directory must be new: then nothing in it can be written over.
fn make(dir: &Path, name: &str, lang: Language) -> io::Result<()> {
    fs::create_dir(dir)?;
    for (place, mode, text) in lang.templates() {
        let path = dir.join(place);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        file.write_all(text.replace("@NAME@", name).replace("@SOURCE@", lang.source()).as_bytes())?;
    }
    Ok(())
}
