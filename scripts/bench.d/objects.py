"""What the workloads find: objects in the bucket, and files outside of the mounts."""

import io
import os
import random
import tarfile
from dataclasses import dataclass

from commands import run

KIB, MIB = 1 << 10, 1 << 20
SMALL_BYTES = 4 * KIB
PARALLEL_READERS = 4
FILES_PER_DIRECTORY = 10
NEEDLE = b"\na needle in a haystack\n"
# Where there are more objects than one wants to put one by one, and the object of one byte that they are copies of.
CROWDS, SINGLE = ("listed", "found", "crowd"), "single"


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is."""

    large_mib: int = 1024
    parallel_mib: int = 1024
    written_mib: int = 1024
    rewritten_mib: int = 256
    small: int = 200
    searched: int = 200
    listed: int = 10_000
    found: int = 10_000
    crowd: int = 100_000
    own: int = 10_000
    tree: int = 400
    moved: int = 100
    cloned: int = 400


QUICK = Sizes(32, 16, 16, 16, 20, 20, 300, 300, 2000, 100, 40, 10, 30)


def noise(name, length):
    """The same incompressible bytes in each run."""
    return random.Random(name).randbytes(length)


def tree(name, count, files_per_directory=FILES_PER_DIRECTORY):
    """A source tree: small files, so many to a directory."""
    sizes = random.Random(name)
    for number in range(count):
        path = f"part{number // files_per_directory:03}/file{number:04}.txt"
        yield path, noise(f"{name}{number}", sizes.randint(512, 8 * KIB))


def large_body(mib):
    """No tool looks for repetitions further apart than this."""
    return noise("large", MIB) * mib


def parallel_keys():
    return [f"parallel/{number}" for number in range(PARALLEL_READERS)]


def large_objects(sizes):
    """The keys of those that are too large to be in memory all at once, and how their bodies are made."""
    yield "large", lambda: large_body(sizes.large_mib)
    for key in parallel_keys():
        yield key, lambda: large_body(sizes.parallel_mib)
    for key in ("rewritten", "appended"):
        yield key, lambda: large_body(sizes.rewritten_mib)


def small_objects(sizes):
    """All other objects that are in the bucket before a tool sees it."""
    for number in range(sizes.small):
        yield f"small/{number:04}", noise(number, SMALL_BYTES)
    for number in range(sizes.searched):
        yield f"searched/{number:04}", noise(number, SMALL_BYTES) + NEEDLE
    for path, body in tree("tree", sizes.tree):
        yield f"tree/{path}", body
        yield f"removed/{path}", body
    for number in range(sizes.moved):
        yield f"moved/{number:04}", noise(number, SMALL_BYTES)
    yield from everyday_objects()


# What everyday commands find and make is of one size: their floors are.
EVERYDAY = ("untar", "untar-plain", "cp-r", "cp-a", "cloned", "sqlite", "vim", "vim-swap", "sed", "mv", "rm", "rm-known")
EDITED = ("vim", "vim-swap", "sed")
REMOVED = ("rm", "rm-known")
EDITED_TEXT = "one\ntwo\nthree\n"
COPIED_MTIME_S = 1_600_000_000
AUTHOR = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false"]


def unpacked_files():
    return tree("unpacked", 200, files_per_directory=5)


def copied_files():
    return [(f"{number:02}", noise(f"copied{number}", SMALL_BYTES)) for number in range(20)]


def dropped_files():
    return [(f"{number:02}", noise(f"dropped{number}", SMALL_BYTES)) for number in range(20)]


def moved_files():
    return [(f"{number:04}", noise(f"renamed{number}", SMALL_BYTES)) for number in range(200)]


def everyday_objects():
    """A directory for each command, in which there is something already."""
    for name in EVERYDAY:
        yield f"{name}/README", EDITED_TEXT.encode()
    for name in EDITED:
        yield f"{name}/text", EDITED_TEXT.encode()
    for name in REMOVED:
        for path, body in dropped_files():
            yield f"{name}/old/{path}", body
    for path, body in moved_files():
        yield f"mv/old/{path}", body


def directory(key):
    """What a step calls by name that finds it."""
    return key.partition("/")[0]


def names(sizes):
    """Keys of objects of one byte, too many to be put one by one."""
    for number in range(sizes.listed):
        yield f"listed/{number:05}"
    for number in range(sizes.found):
        yield f"found/{number // FILES_PER_DIRECTORY:04}/{number:05}"
    for number in range(sizes.crowd):
        yield f"crowd/{number:06}"


def make_sources(place, sizes):
    """What lies outside of the mounts: archives to extract, repositories to clone, files to copy."""
    make_archive(place / "tree.tar", tree("untarred", sizes.tree))
    make_repository(place / "repository", tree("cloned", sizes.cloned))
    make_archive(place / "untar-plain.tar", unpacked_files())
    write_files(place / "unpacked", unpacked_files())
    run("tar", "-c", "-f", place / "untar.tar", "-C", place / "unpacked", *sorted(os.listdir(place / "unpacked")))
    make_repository(place / "small-repository", tree("small-repository", 40))
    write_files(place / "copied", copied_files())
    for path, _ in copied_files():
        os.utime(place / "copied" / path, (COPIED_MTIME_S, COPIED_MTIME_S))


def make_archive(place, files):
    """An archive of files, without their directories."""
    with tarfile.open(place, "w") as archive:
        for path, body in files:
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(body), 0o644, 1_700_000_000
            archive.addfile(entry, io.BytesIO(body))


def write_files(place, files):
    for path, body in files:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(body)


def make_repository(place, files):
    """A repository of one commit, packed."""
    write_files(place, files)
    run("git", "init", "-q", place)
    run("git", "-C", place, "add", ".")
    run("git", "-C", place, *AUTHOR, "commit", "-q", "-m", "Add the files")
    run("git", "-C", place, "gc", "-q")
