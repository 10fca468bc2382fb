"""Everyday commands, whose requests are held against the fewest that they could do with.

What they find is old to the mount: it was put into the bucket by others, and nothing was asked for a while.
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
    # later, or is gone: where a command does that, only closes that are answered before can be held to it.
    held: tuple = BOTH

    def count(self, s3):
        return self.requests(s3) if callable(self.requests) else self.requests


def untar(work, archive):
    run("tar", "-x", "-f", work.sources / f"{archive}.tar", "-C", work.mnt / archive)


def copy(work, option, into):
    run("cp", option, work.sources / "copied", work.mnt / into)


def clone(work):
    run("git", "clone", "-q", f"file://{work.sources / 'small-repository'}", work.mnt / "cloned" / "here")


CHANGED = "part000/file0000.txt"


def change(work):
    with open(work.mnt / "cloned" / "here" / CHANGED, "w") as file:
        file.write(EDITED_TEXT)


def commit(work):
    git = ["git", "-C", work.mnt / "cloned" / "here"]
    run(*git, *AUTHOR, "commit", "-q", "-a", "-m", "Change a file")
    run(*git, "fsck", "--no-progress")


STATEMENTS = ["create table t (a)", "insert into t values (1)", "insert into t values (2)"]


def sqlite(work):
    run("sqlite3", work.mnt / "sqlite" / "data.db", "; ".join(STATEMENTS))


def vim(work, directory, *options):
    """Vim without a terminal, and without what somebody has in ~/.vimrc."""
    edit = ["-c", "%s/two/2/", "-c", "wq", work.mnt / directory / "text"]
    run("vim", "-es", "-u", "NONE", "-i", "NONE", *options, *edit)


def vim_plain(work):
    vim(work, "vim", "-n")


def vim_swap(work):
    # Backups are not made below /tmp by default.
    vim(work, "vim-swap", "--cmd", "set nocompatible backupskip=")


def sed(work):
    run("sed", "-i", "s/two/2/", work.mnt / "sed" / "text")


def move(work):
    run("mv", work.mnt / "renamed", work.mnt / "renamed-away")


def look(work, directory):
    run("ls", "-l", work.mnt / directory)


def remove(work, directory):
    run("rm", "-r", work.mnt / directory / "old")


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
    expect(s3.count("renamed/"), 0, "objects left at the old place")
    holds(s3, "renamed-away", moved_files())


def check_removed(s3, _sizes, directory):
    expect(s3.count(f"{directory}/old/"), 0, "objects in the bucket")
    expect(s3.count(f"{directory}/"), 1, "objects beside them")
