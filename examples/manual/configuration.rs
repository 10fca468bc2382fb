//! `docs/CONFIGURATION.md`: what people wrote in `docs/CONFIGURATION.md.in`, and every option of a mount as the
//! command line itself tells of it.

use clap::{Arg, Command};

const BEGINNING: &str = include_str!("../../docs/CONFIGURATION.md.in");

/// What makes the document anew.
pub const MADE_BY: &str = "cargo run --example manual -- --configuration docs/CONFIGURATION.md";

/// The document for this command line.
pub fn document(command: &Command) -> String {
    let mut command = command.clone().disable_help_flag(true).disable_version_flag(true);
    command.build();
    BEGINNING
        .replace("@MADE_BY@", MADE_BY)
        .replace("@ARGUMENTS@\n", &arguments(&command))
        .replace("@OPTIONS@\n", &options(&command))
}

/// What stands on the command line only: the two names, and options without a heading.
fn arguments(command: &Command) -> String {
    let rows = shown(command).filter(|arg| arg.get_help_heading().is_none()).map(|arg| {
        let environment = arg.get_env().map_or_else(|| "–".to_owned(), |name| code(&name.to_string_lossy()));
        row(&[name(arg), environment, meaning(arg)])
    });
    row(&["argument", "environment", "meaning"].map(str::to_owned))
        + &row(&["---"; 3].map(str::to_owned))
        + &rows.collect::<String>()
}

/// A table for each heading, in the order of `s3mount --help`.
fn options(command: &Command) -> String {
    let mut headings: Vec<&str> = Vec::new();
    for heading in shown(command).filter_map(Arg::get_help_heading) {
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    let table = |heading: &&str| {
        let rows = shown(command).filter(|arg| arg.get_help_heading() == Some(heading)).map(option);
        let head = row(&["option", "environment", "in the file", "default", "meaning"].map(str::to_owned));
        format!("## {heading}\n\n{head}{}{}", row(&["---"; 5].map(str::to_owned)), rows.collect::<String>())
    };
    headings.iter().map(table).collect::<Vec<_>>().join("\n")
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set())
}

fn option(arg: &Arg) -> String {
    let environment = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let key = arg.get_long().unwrap_or_default();
    row(&[name(arg), code(&environment), code(key), default(arg), meaning(arg)])
}

/// `--region NAME`, `BUCKET[/PREFIX]`. Of what is on or off the flag alone says on.
fn name(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().join(" ");
    let value = if arg.get_num_args().is_some_and(|count| count.takes_values()) { value } else { String::new() };
    let dashed = match (arg.get_short(), arg.get_long()) {
        (_, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    };
    let joint = if arg.is_require_equals_set() { format!("{dashed}[={value}]") } else { format!("{dashed} {value}") };
    code(joint.trim())
}

/// What `[default: …]` says at the end of the help, where the command line itself has none.
fn default(arg: &Arg) -> String {
    let help = help(arg);
    match help.rsplit_once("[default: ") {
        Some((_, default)) => default.trim_end_matches(']').to_owned(),
        None if arg.is_require_equals_set() => code("false"),
        None => "none".to_owned(),
    }
}

fn meaning(arg: &Arg) -> String {
    let help = help(arg);
    let told = help.rsplit_once("[default: ").map_or(help.as_str(), |(told, _)| told.trim()).to_owned();
    if arg.is_hide_possible_values_set() {
        return told;
    }
    let values = arg.get_possible_values();
    let values = values.iter().map(|value| match value.get_help() {
        Some(help) => format!("<br>`{}`: {help}", value.get_name()),
        None => format!("<br>`{}`", value.get_name()),
    });
    told + &values.collect::<String>()
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ")
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn row(cells: &[String]) -> String {
    format!("| {} |\n", cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | "))
}
