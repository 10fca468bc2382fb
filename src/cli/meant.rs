//! What was probably meant by words that failed: a bucket by the name of a command, a command by a misspelt one.

use std::ffi::OsString;

use super::mount_options;
use crate::app::Failure;
use crate::error::Kind;
use crate::telemetry::printable;

/// For each so many letters of a command's name one may be wrong: none in `gc`, one in `sync`, two in `status`.
const LETTERS_PER_SLIP: usize = 3;

/// The first word of a line that is wrong as a command, and right as a mount of the bucket it would name.
pub(super) fn bucket(arguments: &[OsString]) -> Option<String> {
    let name = arguments.get(1)?.to_str()?;
    super::command().find_subcommand(name)?;
    let mut as_mount = arguments.to_vec();
    as_mount.insert(1, "mount".into());
    super::command().try_get_matches_from(as_mount).is_ok().then(|| name.to_owned())
}

/// The same line with the command that its first word is close to, if it is right then.
pub(super) fn command(arguments: &[OsString]) -> Option<String> {
    let word = arguments.get(1)?.to_str()?;
    let commands = super::command();
    let names = commands.get_subcommands().map(clap::Command::get_name);
    let (slips, name) = names.map(|name| (strsim::osa_distance(word, name), name)).min()?;
    if slips == 0 || slips * LETTERS_PER_SLIP > name.len() {
        return None;
    }
    let mut meant = arguments.to_vec();
    meant[1] = name.into();
    let expanded = mount_options::expand(meant).ok()?;
    let words: Vec<String> = expanded.iter().skip(1).map(|word| printable(&word.to_string_lossy())).collect();
    super::command().try_get_matches_from(expanded).is_ok().then(|| format!("s3mount {}", words.join(" ")))
}

/// The failure of a mount that nobody has asked for by its command: its bucket may be a misspelt command. What
/// was told without that stays told: any name may be a bucket's.
pub(super) fn hinted(failure: Failure, arguments: &[OsString]) -> Failure {
    // A mount may end so after it has served for days.
    if failure.exit_code == Kind::Deadline.exit_code() {
        return failure;
    }
    let Some(line) = command(arguments) else { return failure };
    let question = format!("did you mean `{line}`?");
    let hint = match &failure.hint {
        Some(hint) => format!("{question} If it is a bucket: {hint}"),
        None => question,
    };
    failure.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str) -> Option<String> {
        command(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_misspelt_command_is_known_by_a_line_that_is_right_with_it() {
        for (typed, right) in [
            ("s3mount statsu /mnt/x", "s3mount status /mnt/x"),
            ("s3mount moutn demo C", "s3mount mount demo C"),
            ("s3mount unmount --lazy C", "s3mount umount --lazy C"),
            ("/usr/bin/s3mount hoks list", "s3mount hooks list"),
            ("s3mount snyc", "s3mount sync"),
        ] {
            assert_eq!(meant(typed).as_deref(), Some(right), "{typed}");
        }
    }

    #[test]
    fn other_names_commands_and_lines_that_stay_wrong_are_not() {
        for typed in ["s3mount photos /m", "s3mount gx /m", "s3mount status /m", "s3mount mount statsu /m"] {
            assert_eq!(meant(typed), None, "{typed}");
        }
        for typed in ["s3mount", "s3mount statsu /m --regoin x", "s3mount s3://statsu /m", "s3mount statsu/a /m"] {
            assert_eq!(meant(typed), None, "{typed}");
        }
    }

    #[test]
    fn what_was_told_stays_told_and_the_end_of_a_mount_is_left_alone() {
        let typed: Vec<_> = ["s3mount", "statsu", "/m"].map(OsString::from).into();
        let told = hinted(Failure::new(Kind::Usage, "taken").hint("unmount it"), &typed);
        assert_eq!(told.hint.unwrap(), "did you mean `s3mount status /m`? If it is a bucket: unmount it");
        assert_eq!(hinted(Failure::new(Kind::Deadline, "not stored"), &typed).hint, None);
    }
}
