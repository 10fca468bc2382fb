"""The workloads, the objects they find, and how each result is checked in the bucket."""

import io
import os
import random
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable

KIB, MIB = 1 << 10, 1 << 20
SMALL_BYTES = 4 * KIB
PARALLEL_READERS = 4
RANDOM_READS = 200
FILES_PER_DIRECTORY = 10
NEEDLE = b"\na needle in a haystack\n"
PARALLEL_WRITERS = 32
# The object of one byte that all those are copies of.
SINGLE = "single"
# What is told of files that are written here must be told of them elsewhere.
OWN_MODE, OWN_MTIME_S = 0o640, 1_600_000_000


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


class Refused(Exception):
    """A command did not do it; the text is what it said."""


def run(*command):
    """Runs a program; returns what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        raise Refused(said[0] if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout


def expect(count, wanted, what):
    if count != wanted:
        raise Refused(f"{count} {what} instead of {wanted}")


# --- what is there before ---------------------------------------------------------------------

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
    """The (key, body) pairs that are too large to be in memory all at once."""
    yield "large", large_body(sizes.large_mib)
    for key in parallel_keys():
        yield key, large_body(sizes.parallel_mib)
    yield "rewritten", large_body(sizes.rewritten_mib)
    yield "appended", large_body(sizes.rewritten_mib)


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


# --- what is done -----------------------------------------------------------------------------

def read_all(path, wanted):
    count = 0
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(MIB):
            count += len(piece)
    expect(count, wanted, "bytes")


def first_bytes(work):
    with open(work.mnt / "large", "rb", buffering=0) as file:
        expect(len(file.read(64 * KIB)), 64 * KIB, "bytes")


def read_large(work):
    read_all(work.mnt / "large", work.sizes.large_mib * MIB)


def read_parallel(work):
    with ThreadPoolExecutor(PARALLEL_READERS) as pool:
        paths = [work.mnt / key for key in parallel_keys()]
        for _ in pool.map(lambda path: read_all(path, work.sizes.parallel_mib * MIB), paths):
            pass


def read_random(work):
    places = random.Random("places")
    file = os.open(work.mnt / "large", os.O_RDONLY)
    for _ in range(RANDOM_READS):
        page = places.randrange(work.sizes.large_mib * MIB // SMALL_BYTES)
        expect(len(os.pread(file, SMALL_BYTES, page * SMALL_BYTES)), SMALL_BYTES, "bytes")
    os.close(file)


def write_large(work):
    piece = noise("written", MIB)
    with open(work.mnt / "written", "wb", buffering=0) as file:
        for _ in range(work.sizes.written_mib):
            file.write(piece)


def create_small(work):
    (work.mnt / "created").mkdir()
    for number in range(work.sizes.small):
        with open(work.mnt / "created" / f"{number:04}", "wb", buffering=0) as file:
            file.write(noise(number, SMALL_BYTES))


def read_small(work):
    for number in range(work.sizes.small):
        read_all(work.mnt / "small" / f"{number:04}", SMALL_BYTES)


def search(work):
    lines = run("grep", "-r", "-l", "-a", "needle in a", work.mnt / "searched").splitlines()
    expect(len(lines), work.sizes.searched, "files with a needle")


def list_crowd(work):
    lines = run("ls", work.mnt / "crowd").splitlines()
    expect(len(lines), work.sizes.crowd, "names")


def write_own(work):
    (work.mnt / "own").mkdir()

    def write(number):
        file = os.open(work.mnt / "own" / f"{number:05}", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(file, b"x")
        os.fchmod(file, OWN_MODE)
        os.utime(file, (OWN_MTIME_S, OWN_MTIME_S + number))
        os.close(file)

    with ThreadPoolExecutor(PARALLEL_WRITERS) as pool:
        for _ in pool.map(write, range(work.sizes.own)):
            pass


def list_own(work):
    lines = run("ls", "-l", "--time-style=+%s", work.mnt / "own").decode().splitlines()[1:]
    expect(len(lines), work.sizes.own, "names")
    for line in lines:
        mode, _, _, _, _, mtime, name = line.split()
        if (mode, int(mtime)) != ("-rw-r-----", OWN_MTIME_S + int(name)):
            raise Refused(f"{name} has {mode} and {mtime}")


def list_long(work):
    lines = run("ls", "-l", work.mnt / "listed").splitlines()
    expect(len(lines) - 1, work.sizes.listed, "names")  # the first line is the total


def find(work):
    lines = run("find", work.mnt / "found").splitlines()
    directories = -(-work.sizes.found // FILES_PER_DIRECTORY)
    expect(len(lines), work.sizes.found + directories + 1, "names")


def tar_extract(work):
    (work.mnt / "untarred").mkdir()
    run("tar", "-x", "-f", work.sources / "tree.tar", "-C", work.mnt / "untarred")


def tar_create(work):
    # Through a pipe: tar does not read the files if the archive is /dev/null.
    archive = run("tar", "-c", "-C", work.mnt, "tree")
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        expect(sum(entry.isfile() for entry in reader), work.sizes.tree, "files")


def remove_tree(work):
    run("rm", "-rf", work.mnt / "removed")


def move_directory(work):
    run("mv", work.mnt / "moved", work.mnt / "moved-away")


REWRITTEN_BYTES = noise("overwrite", SMALL_BYTES)


def overwrite(work):
    with open(work.mnt / "rewritten", "r+b", buffering=0) as file:
        file.seek(work.sizes.rewritten_mib * MIB // 2)
        file.write(REWRITTEN_BYTES)


def append(work, key="appended"):
    with open(work.mnt / key, "ab", buffering=0) as file:
        file.write(REWRITTEN_BYTES)


def clone(work):
    run("git", "clone", "-q", f"file://{work.sources / 'repository'}", work.mnt / "clone")


def status(work):
    changed = run("git", "-C", work.mnt / "clone", "status", "--porcelain").splitlines()
    expect(len(changed), 0, "changes")


# --- what is in the bucket after it -----------------------------------------------------------

def check_written(s3, sizes):
    expect(s3.size("written"), sizes.written_mib * MIB, "bytes in the bucket")


def check_own(s3, sizes):
    expect(s3.count("own/"), sizes.own, "objects in the bucket")


def check_created(s3, sizes):
    expect(s3.count("created/"), sizes.small, "objects in the bucket")


def check_extracted(s3, sizes):
    expect(s3.count("untarred/"), sizes.tree, "objects in the bucket")


def check_removed(s3, sizes):
    expect(s3.count("removed/"), 0, "objects in the bucket")


def check_moved(s3, sizes):
    expect(s3.count("moved/"), 0, "objects left at the old place")
    expect(s3.count("moved-away/"), sizes.moved, "objects at the new place")


def check_overwritten(s3, sizes):
    middle = sizes.rewritten_mib * MIB // 2
    before, after = large_body(sizes.rewritten_mib)[middle - 1 : middle], REWRITTEN_BYTES
    if s3.read("rewritten", middle - 1, 1 + SMALL_BYTES) != before + after:
        raise Refused("other bytes in the bucket than were written")


def check_appended(s3, sizes, key="appended"):
    end = sizes.rewritten_mib * MIB
    expect(s3.size(key), end + SMALL_BYTES, "bytes in the bucket")
    if s3.read(key, end, SMALL_BYTES) != REWRITTEN_BYTES:
        raise Refused("other bytes in the bucket than were written")


def check_cloned(s3, sizes):
    expect(s3.count("clone/part"), sizes.cloned, "objects in the bucket")


# --- all of it --------------------------------------------------------------------------------

COLD = "cold"  # a new mount; what the tool kept on disk is gone
AGAIN = "again"  # the mount of the step before
REMOUNTED = "remounted"  # a new mount; what the tool kept on disk is there


@dataclass(frozen=True)
class Work:
    """Where a step works."""

    mnt: Path
    sources: Path
    sizes: Sizes


@dataclass(frozen=True)
class Step:
    """A workload. `title` is formatted with the sizes."""

    name: str
    title: str
    run: Callable
    start: str = COLD
    check: Callable | None = None
    needs: str | None = None
    # Options of s3mount that it is about: then the other tools have no part in it.
    options: tuple = ()
    tools: tuple | None = None
    # Seconds that it may take, where that is more than for others.
    deadline_s: float = 0
    watches_disk: bool = False
    # What takes less than a moment is done several times, and the median taken.
    times: int = 1

    def is_for(self, tool):
        return (self.tools is None or tool.name in self.tools) and (tool.steps is None or self.name in tool.steps)


OWN = ("s3mount",)
TIGHT = ("--memory", "256M", "--cache-size", "512M")

STEPS = [
    Step("first", "first 64 KiB of a {large_mib} MiB object, cold", first_bytes),
    Step("read", "read {large_mib} MiB, cold", read_large),
    Step("reread", "read {large_mib} MiB again", read_large, AGAIN, needs="read", times=5),
    Step("remount", "read {large_mib} MiB after a remount", read_large, REMOUNTED, needs="read"),
    Step("parallel", "read 4 × {parallel_mib} MiB in parallel, cold", read_parallel),
    Step("tight", "the same, " + " ".join(TIGHT), read_parallel, options=TIGHT, tools=OWN, watches_disk=True),
    Step("random", "200 random 4 KiB reads in {large_mib} MiB, cold", read_random),
    Step("write", "write {written_mib} MiB, with close", write_large, check=check_written),
    Step("create", "create {small} files of 4 KiB", create_small, check=check_created),
    Step("small", "read {small} files of 4 KiB, cold", read_small),
    Step("small-again", "read {small} files of 4 KiB again", read_small, AGAIN, needs="small"),
    Step("grep", "`grep -r` in {searched} files, cold", search),
    Step("grep-again", "`grep -r` in {searched} files again", search, AGAIN, needs="grep"),
    Step("ls", "`ls -l` of {listed} objects, cold", list_long),
    Step("find", "`find` over {found} objects, 10 to a directory, cold", find),
    Step("crowd", "`ls` of {crowd} objects in one directory, cold", list_crowd),
    Step("own", "write {own} files, 32 at a time", write_own, check=check_own, tools=OWN, deadline_s=600),
    Step("ls-own", "`ls -l` of them by another machine, cold", list_own, needs="own", tools=OWN, deadline_s=60),
    Step("tar-x", "`tar x` of {tree} files", tar_extract, check=check_extracted),
    Step("tar-c", "`tar c` of {tree} files, cold", tar_create),
    Step("rm", "`rm -rf` of {tree} files", remove_tree, check=check_removed),
    Step("mv", "`mv` of a directory of {moved} files", move_directory, check=check_moved),
    Step("overwrite", "overwrite 4 KiB inside {rewritten_mib} MiB", overwrite, check=check_overwritten),
    Step("append-known", "append 4 KiB to it", partial(append, key="rewritten"), AGAIN,
         check=partial(check_appended, key="rewritten"), needs="overwrite"),
    Step("append", "append 4 KiB to another {rewritten_mib} MiB, cold", append, check=check_appended),
    Step("clone", "`git clone` of {cloned} files", clone, check=check_cloned),
    Step("status", "`git status` after a remount", status, REMOUNTED, needs="clone"),
]
