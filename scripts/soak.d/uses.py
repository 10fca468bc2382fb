"""What is done with the mounts: each function is one round of one user, and says what it must find."""

import errno
import gzip
import hashlib
import json
import os
import sqlite3
import subprocess
import tarfile
import urllib.request
from contextlib import closing

from crew import Wrong, names
from objects import KIB, MIB, NEEDLE, noise, tree

TREE_FILES = 120
SMALL_FILES = 60
LARGE_BYTES = 64 * MIB
CHANGES, READS = 8, 20
TRANSACTIONS, ROWS = 15, 40
LOG_LINES, LOG_LINE_BYTES = 240, 4 * KIB
VERSIONS = 25

# Nothing of the machine's settings, and nothing that goes on in the background.
GIT = {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_COUNT": "3",
    "GIT_CONFIG_KEY_0": "gc.auto", "GIT_CONFIG_VALUE_0": "0",
    "GIT_CONFIG_KEY_1": "user.name", "GIT_CONFIG_VALUE_1": "soak",
    "GIT_CONFIG_KEY_2": "user.email", "GIT_CONFIG_VALUE_2": "soak@example.com",
}  # fmt: skip

HOOKS = """
[[hook]]
name = "sha256sum"
wasm = "{built}/sha256sum.wasm"
match = ["hooks/**"]
exclude = ["**/*.sha256", "**/*.gz"]

[[hook]]
name = "gunzip"
wasm = "{built}/gunzip.wasm"
match = ["hooks/**/*.gz"]
"""


def make_sources(local):
    """What the users bring along: a tree, an archive of it, and a repository."""
    source = local / "tree"
    for path, body in tree("soak", TREE_FILES):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(body + NEEDLE)
    (source / "large").write_bytes(noise("large", 3 * MIB))
    (source / "part000" / "link").symlink_to("../large")
    (source / "empty").mkdir()
    (source / "part001").chmod(0o750)
    with tarfile.open(local / "tree.tar", "w") as archive:
        archive.add(source, "tree")
    subprocess.run(["cp", "-a", source, local / "repository"], check=True)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run(["git", *words], cwd=local / "repository", env={**os.environ, **GIT}, check=True)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(directory):
    """What a tree holds: path → mode and bytes of a file, target of a link."""
    found = {}
    for path in names(directory):
        whole = directory / path
        if whole.is_symlink():
            found[path] = os.readlink(whole)
        else:
            mode = oct(whole.stat().st_mode)
            found[path] = mode if whole.is_dir() else (mode, digest(whole))
    return found


# --- trees ------------------------------------------------------------------------------------

def archives(desk):
    """tar, grep, cp, mv, find and diff."""
    source, made = desk.local / "tree", desk.here / "tree"
    desk.run("tar", "-x", "-f", desk.local / "tree.tar", "-C", desk.here)
    desk.run("tar", "-d", "-f", desk.local / "tree.tar", "-C", desk.here)
    hits = desk.run("grep", "-rlF", NEEDLE.decode().strip(), made).splitlines()
    desk.expect(len(hits), TREE_FILES, "files that grep found")
    desk.run("cp", "-a", made, desk.here / "copy")
    desk.run("diff", "-r", "--no-dereference", made, desk.here / "copy")
    desk.run("mv", desk.here / "copy", desk.here / "moved")
    packed = desk.local / f"{desk.name}.tar"
    desk.run("tar", "-c", "-f", packed, "-C", desk.here, "tree")
    desk.run("tar", "-d", "-f", packed, "-C", desk.local)
    found = desk.run("find", desk.here, "-type", "f", "-size", "-2000k").splitlines()
    desk.expect(len(found), 2 * TREE_FILES, "files that find found")
    wanted = contents(source)
    desk.until_same(lambda: contents(desk.there / "moved"), wanted, "the moved tree is whole on the other mount")
    # A rename is copies, then removals: a listing in between has both, and is believed for its time.
    desk.until(lambda: not os.path.lexists(desk.there / "copy"), "the old name is gone on the other mount")


def rsync(desk):
    """A tree that is sent, changed, and sent again."""
    source = desk.local / f"{desk.name}-{desk.mount.name}"
    options = ["-a", "--delete"] + (["--inplace"] if desk.number % 4 < 2 else [])
    desk.run("rsync", "-a", "--delete", f"{desk.local}/tree/", f"{source}/")
    desk.run("rsync", *options, f"{source}/", f"{desk.here}/to/")
    desk.expect(desk.run("rsync", *options, "-i", f"{source}/", f"{desk.here}/to/"), b"", "what rsync sends the second time")
    files = sorted(path for path in names(source) if path.endswith(".txt"))
    for path in desk.random.sample(files, 20):
        with open(source / path, "ab") as file:
            file.write(desk.random.randbytes(3000))
    for path in desk.random.sample(files, 10):
        (source / path).unlink(missing_ok=True)
    desk.run("rsync", *options, f"{source}/", f"{desk.here}/to/")
    wanted = contents(source)
    desk.expect(contents(desk.here / "to"), wanted, "what rsync sent")
    desk.until_same(lambda: contents(desk.there / "to"), wanted, "what rsync sent is whole on the other mount")


def git(desk):
    """A clone that is worked in, and looked at from the other mount."""
    here, there = desk.here / "clone", desk.there / "clone"

    def run(*words, cwd=here, codes=(0,), **more):
        return desk.run("git", *words, cwd=cwd, codes=codes, env={**GIT, **more}).decode()

    run("clone", "-q", desk.local / "repository", here, cwd=desk.local)
    desk.expect(run("status", "--porcelain"), "", "what git status tells of a fresh clone")
    for number in range(3):
        changed = here / f"part{desk.random.randrange(TREE_FILES // 10):03}" / f"new{number}"
        changed.write_bytes(desk.random.randbytes(2000))
        if number == 1:
            run("mv", "large", "renamed")
        run("add", "-A")
        run("commit", "-qm", f"change {number}")
    desk.expect(run("status", "--porcelain"), "", "what git status tells after a commit")
    if desk.number % 3 == 0:
        run("gc", "-q")
    run("fsck", "--full")
    head = run("rev-parse", "HEAD")
    desk.hand_over()
    desk.until((there / ".git" / "HEAD").exists, "the clone is there on the other mount")
    # Until the TTLs are over it may have one file of before a commit, and another of after it.
    passing = {"cwd": there, "codes": (0, 128)}
    desk.until(lambda: run("rev-parse", "HEAD", **passing) == head, "the commit is there on the other mount")
    desk.until(
        lambda: run("status", "--porcelain", GIT_OPTIONAL_LOCKS="0", **passing) == "",
        "git status on the other mount is clean",
    )
    run("fsck", "--full", cwd=there)


# --- small files ------------------------------------------------------------------------------

def small(desk):
    """Many files that are written, appended to, renamed and removed, on either mount."""
    def mess(directory, bodies):
        for name in desk.random.sample(sorted(bodies), SMALL_FILES // 2):
            kind = desk.random.randrange(4)
            if kind == 0:
                bodies[name] = desk.random.randbytes(desk.random.randrange(20 * KIB))
                (directory / name).write_bytes(bodies[name])
            elif kind == 1:
                more = desk.random.randbytes(500)
                with open(directory / name, "ab") as file:
                    file.write(more)
                bodies[name] += more
            elif kind == 2:
                os.rename(directory / name, directory / f"{name}r")
                bodies[f"{name}r"] = bodies.pop(name)
            else:
                (directory / name).unlink()
                del bodies[name]

    def holds(directory, bodies):
        return names(directory) == set(bodies) and all((directory / name).read_bytes() == body for name, body in bodies.items())

    bodies = {f"f{number:03}": desk.random.randbytes(desk.random.randrange(20 * KIB)) for number in range(SMALL_FILES)}
    for name, body in bodies.items():
        (desk.here / name).write_bytes(body)
    mess(desk.here, bodies)
    desk.expect(holds(desk.here, bodies), True, "what was written is read back")
    desk.run(desk.binary, "sync", desk.mount.path)
    desk.until(lambda: holds(desk.there, bodies), "the other mount shows what was written")
    mess(desk.there, bodies)
    desk.expect(holds(desk.there, bodies), True, "what was written on the other mount is read back")
    desk.run(desk.binary, "sync", desk.other.path)
    desk.until(lambda: holds(desk.here, bodies), "this mount shows what the other one wrote")


def versions(desk):
    """A file that is replaced while it is read elsewhere: a reader gets one version whole, and never an older one."""
    bodies = [desk.random.randbytes(desk.random.randrange(100, 300 * KIB)) for _ in range(VERSIONS)]
    file, other, last = desk.here / "file", desk.there / "file", -1
    for number, body in enumerate(bodies):
        if number % 2:
            (desk.here / "file.new").write_bytes(body)
            os.replace(desk.here / "file.new", file)
        else:
            file.write_bytes(body)
        for _ in range(3):
            try:
                seen = other.read_bytes()
            except OSError as error:
                if error.errno == errno.ESTALE or (error.errno == errno.ENOENT and last < 0):
                    continue
                raise
            if seen not in bodies[: number + 1]:
                raise Wrong(f"{len(seen)} bytes on the other mount that are no version, after {number}")
            if (which := bodies.index(seen)) < last:
                raise Wrong(f"version {which} on the other mount after version {last}")
            last = which
        desk.pause(0.2)
    desk.until(lambda: other.read_bytes() == bodies[-1], "the other mount shows the last version")


# --- large files and files that stay open -----------------------------------------------------

def large(desk):
    """Changes inside a large file, and reads of it, beside a copy in memory."""
    file, mirror = desk.here / "large", bytearray(desk.random.randbytes(LARGE_BYTES))
    desk.note("writing a large file")
    with open(file, "wb") as opened:
        for start in range(0, LARGE_BYTES, MIB):
            opened.write(mirror[start : start + MIB])
    for number in range(4):
        desk.note(f"changing a large file for the {number}. time")
        with open(file, "r+b", buffering=0) as opened:
            for _ in range(CHANGES):
                start, length = spot(desk, len(mirror))
                mirror[start : start + length] = change = desk.random.randbytes(length)
                os.pwrite(opened.fileno(), change, start)
            read_spots(desk, opened.fileno(), mirror)
            if number % 2:
                os.fsync(opened.fileno())
        desk.pause(1)
    with open(file, "ab") as opened:
        mirror += (tail := desk.random.randbytes(3 * MIB))
        opened.write(tail)
    os.truncate(file, size := desk.random.randrange(LARGE_BYTES // 2, len(mirror)))
    del mirror[size:]
    wanted = hashlib.sha256(mirror).hexdigest()
    desk.expect(digest(file), wanted, "the checksum of a large file")
    desk.run(desk.binary, "sync", desk.mount.path)
    desk.until(lambda: digest(desk.there / "large") == wanted, "the large file is the same on the other mount")
    with open(desk.there / "large", "rb", buffering=0) as opened:
        read_spots(desk, opened.fileno(), mirror)


def spot(desk, size):
    start = desk.random.randrange(size)
    return start, min(desk.random.randint(1, 256 * KIB), size - start)


def read_spots(desk, fd, mirror):
    for _ in range(READS):
        start, length = spot(desk, len(mirror))
        if os.pread(fd, length, start) != mirror[start : start + length]:
            raise Wrong(f"wrong bytes at {start}, {length} long, of {len(mirror)}")


def log(desk):
    """A log that stays open for minutes and is followed from the other mount. It is stored by fsync, or by
    --flush-open-after alone."""
    written, synced = bytearray(), desk.number % 4 < 2
    with open(desk.here / "log", "ab", buffering=0) as opened:
        for number in range(LOG_LINES):
            line = b"%06d %s\n" % (number, noise(number, LOG_LINE_BYTES // 2).hex().encode())
            opened.write(line)
            written += line
            if number % 20 == 19:
                if synced:
                    desk.note("syncing the log")
                    os.fsync(opened.fileno())
                desk.until(lambda: (desk.there / "log").read_bytes() == written, "the other mount shows the log")
            if desk.is_last():
                break
            desk.pause(1)
    desk.expect((desk.here / "log").read_bytes() == written, True, "the log is read back")


def database(desk):
    """sqlite, with its rollback journal or its write-ahead log."""
    file, mode = desk.here / "db", ("DELETE", "WAL")[desk.number // 2 % 2]
    desk.note(f"in sqlite with {mode}")
    with closing(sqlite3.connect(file, timeout=60)) as base:
        base.execute(f"PRAGMA journal_mode={mode}")
        base.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
        for _ in range(TRANSACTIONS):
            with base:
                base.executemany("INSERT INTO rows (body) VALUES (?)", [(desk.random.randbytes(300),) for _ in range(ROWS)])
            desk.pause(0.2)
        with base:
            base.execute("DELETE FROM rows WHERE id % 3 = 0")
        desk.expect(base.execute("PRAGMA integrity_check").fetchone(), ("ok",), "the database's check")
        rows = base.execute("SELECT count(*) FROM rows").fetchone()
    wanted = digest(file)
    desk.run(desk.binary, "sync", desk.mount.path)
    desk.until(lambda: digest(desk.there / "db") == wanted, "the database is the same on the other mount")
    with closing(sqlite3.connect(f"file:{desk.there}/db?immutable=1", uri=True)) as base:
        desk.expect(base.execute("PRAGMA integrity_check").fetchone(), ("ok",), "the database's check on the other mount")
        desk.expect(base.execute("SELECT count(*) FROM rows").fetchone(), rows, "rows on the other mount")


# --- hooks, and who looks after the mounts -------------------------------------------------------

def hooks(desk):
    """Files whose hooks make others beside them."""
    bodies = {f"{number}.txt": desk.random.randbytes(desk.random.randrange(100 * KIB)) for number in range(10)}
    for name, body in bodies.items():
        if name < "3":
            (desk.here / f"{name}.gz").write_bytes(gzip.compress(body))
        else:
            (desk.here / name).write_bytes(body)
    desk.run(desk.binary, "sync", desk.mount.path)
    desk.run(desk.binary, "hooks", "wait", desk.here, "--timeout", "120s")

    def summed(directory, name):
        return (directory / f"{name}.sha256").read_text().split()[0] == hashlib.sha256(bodies[name]).hexdigest()

    for directory in (desk.here, desk.there):
        desk.until(lambda: all(summed(directory, name) for name in bodies), f"{directory} has the sums of the hooks")
        for name, body in bodies.items():
            desk.expect((directory / name).read_bytes() == body, True, f"{directory}/{name} is what it should be")


def control(desk):
    """status, metrics and the like, and a listing of everything."""
    at = desk.mount.path
    told = json.loads(desk.run(desk.binary, "status", at, "--json"))
    for what in trouble(told):
        raise Wrong(f"status of {desk.mount.name}: {what}")
    desk.run(desk.binary, "status", at)
    desk.run(desk.binary, "hooks", "stats", at, "--json")
    desk.run(desk.binary, "cache", "stats", "--cache-dir", desk.mount.cache)
    with urllib.request.urlopen(f"http://{told['metrics']}/metrics", timeout=60) as answer:
        desk.expect(b"s3mount_s3_requests_total" in answer.read(), True, "the metrics tell of requests")
    desk.run("df", at)
    # Others remove what it is about to look at.
    desk.run("ls", "-lR", at, codes=(0, 1, 2))


def trouble(told):
    """What `s3mount status` tells that should not be."""
    files, runs = told["files"], told["hooks"]["hooks"]
    found = [f"{what}: {files[what]}" for what in ("conflicts", "rejected", "odd_keys") if files[what]]
    found += [f"damaged blocks: {told['disk']['damaged']}"] if told["disk"]["damaged"] else []
    found += [f"last error: {files['pending']['last_error']}"] if files["pending"]["last_error"] else []
    found += [f"hook {hook['name']}: {hook['last_error'] or 'given up'}" for hook in runs if hook["dead"] or hook["errors"]]
    return found


USES = {
    "archives": archives, "rsync": rsync, "git": git, "small": small, "versions": versions, "large": large,
    "log": log, "database": database, "hooks": hooks, "control": control,
}  # fmt: skip
