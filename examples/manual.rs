//! Writes the manual pages and the completions of shells, from the very command line that the program
//! parses: `manual DIR [DATE]`. `scripts/package` runs it; what it needs is in no other program.
//!
//! `s3mount.1` and `hooks.toml.5` are written by people, in `packaging/`: what stands between `@` there is
//! filled in. Each command has a page of its own, `s3mount-COMMAND.1`, with the commands below it.
//!
//! `manual --configuration FILE` writes one document instead, `docs/CONFIGURATION.md`.

#[path = "manual/configuration.rs"]
mod configuration;

use std::error::Error;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

const OWN_PAGE: &str = include_str!("../packaging/s3mount.1.in");
const HOOKS_PAGE: &str = include_str!("../packaging/hooks.toml.5.in");
const MANUAL: &str = "User commands";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: manual DIR [DATE], or manual --configuration FILE")?;
    if directory == "--configuration" {
        let file = arguments.next().ok_or("usage: manual --configuration FILE")?;
        fs::write(file, configuration::document(&s3mount::cli::command()))?;
        return Ok(());
    }
    let date = arguments.next().unwrap_or_default();
    let directory = Path::new(&directory);
    fs::create_dir_all(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut s3mount::cli::command(), "s3mount", directory)?;
    }

    let mut command = s3mount::cli::command().mut_subcommands(without_help);
    command.build();
    let with_pages = || command.get_subcommands().filter(|command| has_page(command));
    for command in with_pages() {
        fs::write(directory.join(format!("{}.1", dashed(command))), page(command, &date)?)?;
    }
    let pages: Vec<String> = with_pages().map(reference).collect();
    let filled = |page: &str| page.replace("@DATE@", &date).replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    let own = filled(OWN_PAGE)
        .replace("@USAGE@\n", &usage(&command))
        .replace("@OPTIONS@\n", &format!(".SH OPTIONS\n{}", options(&command)?))
        .replace("@COMMANDS@\n", &commands(&command))
        .replace("@SEE_ALSO@", &pages.join(",\n"));
    fs::write(directory.join("s3mount.1"), own)?;
    fs::write(directory.join("hooks.toml.5"), filled(HOOKS_PAGE))?;
    Ok(())
}

/// Without `--help` of a command and those below it, of which a page has nothing to tell.
fn without_help(command: Command) -> Command {
    command.disable_help_flag(true).mut_subcommands(without_help)
}

/// `s3mount mount` is what `s3mount` does: its page is that one.
fn has_page(command: &Command) -> bool {
    command.get_name() != "mount"
}

/// `s3mount hooks` → `s3mount-hooks`, as the page is called.
fn dashed(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).replace(' ', "-")
}

/// `s3mount-hooks(1)` as the other pages write it.
fn reference(command: &Command) -> String {
    format!(".BR {} (1)", dashed(command).replace('-', "\\-"))
}

/// The page of a command, with those below it.
fn page(command: &Command, date: &str) -> Outcome<String> {
    let leaves = leaves(command);
    let mut page = Vec::new();
    let title = dashed(command).to_uppercase();
    let version = concat!("s3mount ", env!("CARGO_PKG_VERSION"));
    Man::new(command.clone()).title(title).date(date).source(version).manual(MANUAL).render_title(&mut page)?;
    let mut page = String::from_utf8(page)?;

    page += &section("SH", "NAME", &format!("{} - {}", dashed(command), about(command)));
    page += ".SH SYNOPSIS\n";
    page += &leaves.iter().map(|leaf| usage(leaf)).collect::<Vec<_>>().join(".br\n");
    if let [only] = leaves.as_slice() {
        page += &section("SH", "DESCRIPTION", &format!("{}.", about(only)));
        page += ".SH OPTIONS\n";
        page += &options(only)?;
    } else {
        page += ".SH COMMANDS\n";
        for leaf in leaves {
            page += &section("SS", leaf.get_bin_name().unwrap_or_default(), &format!("{}.", about(leaf)));
            // Headings among its options would look like those of commands.
            page.extend(options(leaf)?.split_inclusive('\n').filter(|line| !line.starts_with(".SS ")));
        }
    }
    page += ".SH EXIT STATUS\nAs of\n.BR s3mount (1).\n.SH SEE ALSO\n.BR s3mount (1),\n.BR hooks.toml (5)\n";
    Ok(page)
}

fn section(level: &str, heading: &str, text: &str) -> String {
    Roff::new().control(level, [heading]).text([roman(text)]).to_roff()
}

/// The commands that do something: this one, or all below it.
fn leaves(command: &Command) -> Vec<&Command> {
    if command.has_subcommands() { command.get_subcommands().flat_map(leaves).collect() } else { vec![command] }
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// As `--help` tells it, one line for each way to call it. (clap_mangen's synopsis names every option.)
fn usage(command: &Command) -> String {
    let said = command.clone().render_usage().to_string();
    let lines = said.trim_start_matches("Usage: ").lines().map(str::trim);
    lines.map(|line| Roff::new().text([bold(line)]).to_roff()).collect::<Vec<_>>().join(".br\n")
}

/// The options below their headings, which are sections of ours.
fn options(command: &Command) -> Outcome<String> {
    let mut section = Vec::new();
    Man::new(command.clone()).render_options_section(&mut section)?;
    let section = String::from_utf8(section)?;
    let options = section.split_once(".SH OPTIONS\n").map_or("", |(_, options)| options);
    Ok(options.replace("\n.SH ", "\n.SS "))
}

/// Each command with its page.
fn commands(command: &Command) -> String {
    let line = |command: &Command| {
        let name = if has_page(command) { reference(command) } else { format!(".B s3mount {}", command.get_name()) };
        format!(".TP\n{name}\n{}", Roff::new().text([roman(about(command))]).to_roff())
    };
    command.get_subcommands().map(line).collect()
}
