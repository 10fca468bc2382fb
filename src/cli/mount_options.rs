//! `-o opt,opt` as mount(8) and /etc/fstab pass it: each becomes the flag of the same name, so
//! that there is one parser, and the last word counts whoever said it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::Args;

use crate::app::Failure;
use crate::config::Options;
use crate::error::Kind;

/// Options of mount(8) and fstab(5) that say nothing to a file system over S3, or what is so anyway
/// (`nosuid nodev default_permissions` always hold; a close is stored: `sync`).
const IGNORED: [&str; 37] = [
    "async",
    "atime",
    "auto",
    "auto_unmount",
    "defaults",
    "default_permissions",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "group",
    "iversion",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "noiversion",
    "nolazytime",
    "nomand",
    "nonempty",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "suid",
    "sync",
    "user",
    "users",
    "_netdev",
];
/// The same for options with a value, and for whole families.
const IGNORED_PREFIXES: [&str; 7] = ["x-", "X-", "comment=", "fsname=", "subtype=", "max_read=", "user="];

/// Replaces each `-o LIST` in the arguments by flags. Called as `mount.s3mount`, the helper's own
/// flags (`-n -s -v`, `-t TYPE`; mount(8), "external helpers") are taken out as well, and what comes first
/// is the bucket, also if it has the name of a command. Called as `umount.fuse.s3mount`, it is the command of
/// that name.
pub(super) fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if arguments.first().is_some_and(|name| is_helper(name, b"umount.")) {
        return Ok(expand_umount(arguments));
    }
    let helper = arguments.first().is_some_and(|name| is_helper(name, b"mount."));
    let mut expanded = Vec::with_capacity(arguments.len() + 1);
    let mut rest = arguments.into_iter().peekable();
    if helper {
        expanded.extend(rest.next());
        let is_bucket = |first: &OsString| !first.as_bytes().starts_with(b"-");
        expanded.extend(rest.peek().is_some_and(is_bucket).then(|| OsString::from("mount")));
    }
    while let Some(argument) = rest.next() {
        match argument.as_bytes() {
            b"--" => {
                expanded.push(argument);
                expanded.extend(rest.by_ref());
            }
            b"-o" => {
                let list = rest.next().ok_or_else(|| wrong("-o needs a list of options, such as -o ro,allow_other"))?;
                expand_list(&list, &mut expanded)?;
            }
            [b'-', b'o', list @ ..] => expand_list(OsStr::from_bytes(list), &mut expanded)?,
            b"-n" | b"-s" | b"-v" if helper => {}
            b"-t" if helper => drop(rest.next()),
            _ => expanded.push(argument),
        }
    }
    Ok(expanded)
}

/// What umount(8) passes to its helpers: `DIR [-flnrv] [-N NAMESPACE] [-t TYPE]`.
fn expand_umount(arguments: Vec<OsString>) -> Vec<OsString> {
    let mut arguments = arguments.into_iter();
    let mut expanded: Vec<OsString> = arguments.next().into_iter().collect();
    expanded.extend(["umount", "--helper"].map(OsString::from));
    while let Some(argument) = arguments.next() {
        match argument.as_bytes() {
            b"-N" | b"-t" => drop(arguments.next()),
            [b'-', b'-', ..] => expanded.push(argument),
            [b'-', flags @ ..] => expanded.extend(flags.contains(&b'l').then(|| OsString::from("--lazy"))),
            _ => expanded.push(argument),
        }
    }
    expanded
}

fn is_helper(program: &OsStr, prefix: &[u8]) -> bool {
    Path::new(program).file_name().is_some_and(|name| name.as_bytes().starts_with(prefix))
}

fn wrong(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Usage, message).hint("see `s3mount --help`; options of other file systems are refused")
}

fn expand_list(list: &OsStr, expanded: &mut Vec<OsString>) -> Result<(), Failure> {
    for option in split_commas(list.as_bytes()) {
        if let Some(flag) = flag_of(&option)? {
            expanded.push(flag);
        }
    }
    Ok(())
}

/// Splits at commas; `\,` is a comma of a value, as in libfuse.
fn split_commas(list: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = list.iter();
    while let Some(byte) = bytes.next() {
        let current = parts.last_mut().expect("begins with one part");
        match byte {
            b',' => parts.push(Vec::new()),
            b'\\' => current.extend(bytes.next()),
            _ => current.push(*byte),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn flag_of(option: &[u8]) -> Result<Option<OsString>, Failure> {
    let (name, value) = match option.iter().position(|byte| *byte == b'=') {
        Some(at) => (&option[..at], Some(&option[at..])),
        None => (option, None),
    };
    let text = String::from_utf8_lossy(option).into_owned();
    let name = String::from_utf8_lossy(name).replace('_', "-");
    let flag = match text.as_str() {
        "ro" => "--read-only=true".into(),
        "rw" => "--read-only=false".into(),
        "noexec" => "--no-exec=true".into(),
        _ if is_own(&name) => {
            let mut flag = format!("--{name}").into_bytes();
            flag.extend(value.unwrap_or_default());
            OsString::from_vec(flag)
        }
        plain if IGNORED.contains(&plain) => return Ok(None),
        family if IGNORED_PREFIXES.iter().any(|prefix| family.starts_with(prefix)) => return Ok(None),
        _ => return Err(wrong(format!("unknown option -o {}", text.escape_debug()))),
    };
    Ok(Some(flag))
}

/// Whether one of our flags has this name.
fn is_own(name: &str) -> bool {
    let command = Options::augment_args(clap::Command::new("options"));
    name == "config" || command.get_arguments().any(|flag| flag.get_long() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(line: &str) -> Result<String, Failure> {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        expand(arguments).map(|list| list.join(OsStr::new(" ")).into_string().unwrap())
    }

    #[test]
    fn generic_options_vanish_and_ours_become_flags() {
        let line = "s3mount b /m -o rw,noauto,_netdev,nofail,user,x-systemd.automount,uid=1000,cache_dir=/c,ro";
        assert_eq!(
            expanded(line).unwrap(),
            "s3mount b /m --read-only=false --uid=1000 --cache-dir=/c --read-only=true"
        );
        assert_eq!(expanded("s3mount b /m -oro").unwrap(), "s3mount b /m --read-only=true");
    }

    #[test]
    fn a_comma_in_a_value_is_escaped() {
        assert_eq!(expanded(r"s3mount b /m -o hooks=/a\,b,ro").unwrap(), "s3mount b /m --hooks=/a,b --read-only=true");
    }

    #[test]
    fn unknown_options_are_refused_by_name() {
        for line in ["s3mount b /m -o passwd_file=/x", "s3mount b /m -o foreground", "s3mount b /m -o"] {
            assert_eq!(expanded(line).unwrap_err().exit_code, 64, "{line}");
        }
        assert!(expanded("s3mount b /m -o use_cache=/x").unwrap_err().message.contains("use_cache=/x"));
    }

    #[test]
    fn the_umount_helper_takes_the_flags_of_umount8() {
        assert_eq!(
            expanded("/sbin/umount.fuse.s3mount /m -n -v -N /ns -t fuse.s3mount").unwrap(),
            "/sbin/umount.fuse.s3mount umount --helper /m"
        );
        assert_eq!(expanded("umount.fuse.s3mount /m -l").unwrap(), "umount.fuse.s3mount umount --helper /m --lazy");
    }

    #[test]
    fn the_mount_helper_takes_the_flags_of_mount8() {
        assert_eq!(
            expanded("/sbin/mount.s3mount b /m -n -v -t fuse.s3mount -o ro").unwrap(),
            "/sbin/mount.s3mount mount b /m --read-only=true"
        );
        assert_eq!(expanded("mount.s3mount status /m").unwrap(), "mount.s3mount mount status /m");
        assert_eq!(expanded("mount.s3mount --help").unwrap(), "mount.s3mount --help");
        assert_eq!(expanded("s3mount b /m -- -o x").unwrap(), "s3mount b /m -- -o x");
    }
}
