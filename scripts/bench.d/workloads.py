"""What is done in a mount, and how each result is checked in the bucket."""

import io
import os
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from commands import Refused, expect, run
from objects import FILES_PER_DIRECTORY, KIB, MIB, PARALLEL_READERS, SMALL_BYTES, Sizes, large_body, noise, parallel_keys

RANDOM_READS = 200
PARALLEL_WRITERS = 32
# What is told of files that are written here must be told of them elsewhere.
OWN_MODE, OWN_MTIME_S = 0o640, 1_600_000_000


@dataclass(frozen=True)
class Work:
    """Where a step works."""

    mnt: Path
    sources: Path
    sizes: Sizes


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
