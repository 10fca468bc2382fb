"""What the workloads find: objects in the bucket, and files outside of the mounts."""

import io
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


def tree(name, count):
    """A source tree: small files, ten to a directory."""
    sizes = random.Random(name)
    for number in range(count):
        path = f"part{number // FILES_PER_DIRECTORY:03}/file{number:04}.txt"
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
    """What lies outside of the mounts: an archive to extract, a repository to clone."""
    with tarfile.open(place / "tree.tar", "w") as archive:
        for path, body in tree("untarred", sizes.tree):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(body), 0o644, 1_700_000_000
            archive.addfile(entry, io.BytesIO(body))
    repository = place / "repository"
    for path, body in tree("cloned", sizes.cloned):
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(body)
    run("git", "init", "-q", repository)
    run("git", "-C", repository, "add", ".")
    author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost", "-c", "commit.gpgsign=false"]
    run("git", "-C", repository, *author, "commit", "-q", "-m", "Add the files")
    run("git", "-C", repository, "gc", "-q")
