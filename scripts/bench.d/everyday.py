"""Everyday commands, whose requests are held against the fewest that they could do with.

Each is done in a directory of its own, where a shell has been for a while. What it finds there was put into
the bucket by others.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from commands import Refused, expect, run
from objects import AUTHOR, COPIED_MTIME_S, EDITED_TEXT, copied_files, moved_files, unpacked_files

# Requests may be so many times the floor.
FACTOR = 1.2
# Longer than s3mount believes a listing: what a command finds it asks for.
IDLE_S = 6
BOTH = ("s3mount", "s3mount-write-back")
BEHIND = ("s3mount-write-back",)


@dataclass(frozen=True)
class Floor:
    """The fewest requests that a command could do with: a number, or what tells it from the bucket."""

    text: str
    requests: int | Callable
    # Who is held to `FACTOR` times as many. A close that is a commit stores what has another name a moment
    # later, or is gone: where a command does that, only a mount that stores behind closes can be held to it.
    held: tuple = BOTH

    def count(self, s3):
        return self.requests(s3) if callable(self.requests) else self.requests


def untar(work, archive):
    run("tar", "-x", "-f", work.sources / f"{archive}.tar")


def copy(work, option):
    run("cp", option, work.sources / "copied", ".")


def clone(work):
    run("git", "clone", "-q", f"file://{work.sources / 'small-repository'}", "here")


def change(_work):
    Path("here", "part000", "file0000.txt").write_text(EDITED_TEXT)


def commit(_work):
    run("git", "-C", "here", *AUTHOR, "commit", "-q", "-a", "-m", "Change a file")
    run("git", "-C", "here", "fsck", "--no-progress")


def sqlite(_work):
    run("sqlite3", "data.db", "create table t (a); insert into t values (1); insert into t values (2)")


def vim(_work, *options):
    """Vim without a terminal, and without what somebody has in ~/.vimrc."""
    run("vim", "-es", "-u", "NONE", "-i", "NONE", *options, "-c", "%s/two/2/", "-c", "wq", "text")


def vim_plain(work):
    vim(work, "-n")


def vim_swap(work):
    # Backups are not made below /tmp by default.
    vim(work, "--cmd", "set nocompatible backupskip=")


def sed(_work):
    run("sed", "-i", "s/two/2/", "text")


def move(_work):
    run("mv", "old", "new")


def look(_work):
    run("ls", "-l", "old")


def remove(_work):
    run("rm", "-r", "old")


# --- what is in the bucket after it -----------------------------------------------------------

def holds(s3, prefix, files):
    """Refuses a bucket that has anything else below a prefix than these files and its README."""
    wanted = {f"{prefix}/{path}": body for path, body in files}
    found = {key for key in s3.listing(f"{prefix}/") if not key.endswith("README")}
    if found != set(wanted):
        raise Refused(f"{len(found - set(wanted))} objects too many and {len(set(wanted) - found)} too few")
    if any(body != wanted[key] for key, body in s3.get_all(wanted)):
        raise Refused("other bytes in the bucket than were written")


def check_untar(s3, _sizes, archive):
    holds(s3, archive, unpacked_files())


def check_copy(s3, _sizes, into, keeps_times=False):
    holds(s3, f"{into}/copied", copied_files())
    told = [s3.metadata(f"{into}/copied/{path}") for path, _ in copied_files()]
    kept = sum(any(value.startswith(str(COPIED_MTIME_S)) for value in metadata.values()) for metadata in told)
    if keeps_times:
        expect(kept, len(told), "objects with the time of the original")


def check_repository(s3, _sizes, commits):
    """Git itself is asked, of a copy of what is in the bucket."""
    with tempfile.TemporaryDirectory() as place:
        for key, body in s3.get_all(s3.listing("cloned/here/")):
            path = Path(place, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        git = ["git", "-C", Path(place, "cloned", "here")]
        # Empty directories, without which Git does not know its own, need not be in the bucket.
        Path(place, "cloned/here/.git/refs").mkdir(exist_ok=True)
        run(*git, "fsck", "--no-progress")
        run(*git, "diff", "--quiet", "HEAD")
        expect(int(run(*git, "rev-list", "--count", "HEAD")), commits, "commits in the bucket")


def count_cloned(s3):
    """Each file of the clone, those of Git's too, and a listing."""
    return len(s3.listing("cloned/here/")) + 1


def check_sqlite(s3, _sizes):
    expect(sorted(s3.listing("sqlite/")), ["sqlite/README", "sqlite/data.db"], "in the bucket")
    with tempfile.TemporaryDirectory() as place:
        database = Path(place, "data.db")
        database.write_bytes(dict(s3.get_all(["sqlite/data.db"]))["sqlite/data.db"])
        said = run("sqlite3", database, "pragma integrity_check; select sum(a) from t").split()
        expect(said, [b"ok", b"3"], "in the database")


def check_edited(s3, _sizes, directory):
    holds(s3, directory, [("text", EDITED_TEXT.replace("two", "2").encode())])


def check_moved(s3, _sizes):
    holds(s3, "mv", [(f"new/{path}", body) for path, body in moved_files()])


def check_removed(s3, _sizes, directory):
    holds(s3, directory, [])
    expect(s3.count(f"{directory}/"), 1, "objects beside them")
