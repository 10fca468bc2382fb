"""What reads, listings, writes and everyday commands must hold, on the S3-like profile: each bound once, and whether a run holds it.

Ratios are taken within one run. Figures in seconds are for the default sizes; with others they say less.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import everyday
import report
import steps

PROFILE = "s3"
PEERS = ("s3fs", "rclone")
WRITE_BACK = "s3mount-write-back"
MIB_IN_MB = (1 << 20) / 1e6
# A step that a peer did not end in time, or not rightly.
NEVER_S = float("inf")


class Missing(Exception):
    """The run has not measured what is asked."""


class Figures:
    """A run's figures on the S3-like profile."""

    def __init__(self, run):
        self.sizes = run["sizes"]
        self.results = run["results"].get(PROFILE, {})
        self.marks = run["marks"].get(PROFILE, {})

    def of(self, step, tool="s3mount"):
        result = self.results.get(tool, {}).get(step)
        if result is None:
            raise Missing
        if result["failure"]:
            raise Failed(result["failure"])
        return result

    def wall(self, step):
        return self.of(step)["wall_s"]

    def durable(self, step):
        """Until the last answer of the server."""
        return self.of(step)["durable_s"] or self.wall(step)

    def requests(self, step, *verbs):
        made = self.of(step)["requests"]
        return sum(count for verb, count in made.items() if not verbs or verb in verbs)

    def stored(self, step, tool):
        """Seconds until the last request of it was answered."""
        result = self.of(step, tool)
        return result["durable_s"] or result["wall_s"]

    def of_floor(self, step, tool):
        """The requests of an everyday command, of the fewest that it could do with."""
        result = self.of(step, tool)
        return sum(result["requests"].values()) / result["floor"]

    def peer_s(self, step, fits=lambda result: True):
        """The better of the peers whose result fits."""
        walls = []
        for tool in PEERS:
            result = self.results.get(tool, {}).get(step)
            if result is None:
                raise Missing
            walls.append(NEVER_S if result["failure"] or not fits(result) else result["wall_s"])
        return min(walls)

    def mark_s(self, name):
        if name not in self.marks:
            raise Missing
        return self.marks[name]["wall_s"]


class Failed(Exception):
    """The step did not do what it should."""


@dataclass(frozen=True)
class Promise:
    """`figure` of a run, which must be at least or at most so much."""

    steps: tuple
    text: str
    figure: Callable
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def bound(self):
        return f"≥ {self.least:g}{self.unit}" if self.most is None else f"≤ {self.most:g}{self.unit}"

    def holds(self, figure):
        return figure >= self.least if self.most is None else figure <= self.most


def moves_mb(most):
    return lambda result: result["moved_mb"] <= most


PROMISES = [
    Promise(("read",), "read cold, of what the SDK alone reaches",
            lambda f: 100 * f.mark_s("sdk") / f.wall("read"), least=60, unit=" %"),
    Promise(("read",), "read cold, times the better peer",
            lambda f: f.peer_s("read") / f.wall("read"), least=1.8, unit=" ×"),
    Promise(("parallel",), "four at once, of what the SDK alone reaches",
            lambda f: 100 * f.mark_s("sdk-parallel") / f.wall("parallel"), least=60, unit=" %"),
    Promise(("parallel",), "four at once, times the better peer",
            lambda f: f.peer_s("parallel") / f.wall("parallel"), least=1.8, unit=" ×"),
    Promise(("first",), "requests for the first 64 KiB", lambda f: f.requests("first"), most=2),
    Promise(("read",), "CPU of the daemon for a GiB read cold",
            lambda f: f.of("read")["cpu_s"] * 1024 / f.sizes["large_mib"], most=1.5, unit=" s"),
    Promise(("read", "reread"), "read again, of a local file",
            lambda f: 100 * f.mark_s("local") / f.wall("reread"), least=90, unit=" %"),
    Promise(("read", "reread"), "GETs for it", lambda f: f.requests("reread", "GET"), most=0),
    Promise(("read", "remount"), "read after a remount, of a local file",
            lambda f: 100 * f.mark_s("local") / f.wall("remount"), least=90, unit=" %"),
    Promise(("read", "remount"), "GETs for it", lambda f: f.requests("remount", "GET"), most=0),
    Promise(("small",), "small files in order, cold", lambda f: f.wall("small"), most=1.0, unit=" s"),
    Promise(("tar-c",), "tar c, cold", lambda f: f.wall("tar-c"), most=2.0, unit=" s"),
    Promise(("grep",), "GETs of a cold grep, for each file",
            lambda f: f.requests("grep", "GET") / f.sizes["searched"], most=1),
    Promise(("grep",), "other requests of it", lambda f: f.requests("grep") - f.requests("grep", "GET"), most=3),
    Promise(("grep", "grep-again"), "requests of a warm grep", lambda f: f.requests("grep-again"), most=0),
    Promise(("clone", "status"), "requests of git status after a remount", lambda f: f.requests("status"), most=12),
    Promise(("ls",), "ls -l of foreign objects", lambda f: f.wall("ls"), most=0.5, unit=" s"),
    Promise(("ls",), "requests for it", lambda f: f.requests("ls"), most=12),
    Promise(("find",), "find over directories of ten", lambda f: f.wall("find"), most=1.2, unit=" s"),
    Promise(("find",), "requests for it", lambda f: f.requests("find"), most=15),
    Promise(("crowd",), "ls of a huge directory", lambda f: f.wall("crowd"), most=10, unit=" s"),
    Promise(("crowd",), "peak memory of it", lambda f: f.of("crowd")["peak_mb"] / MIB_IN_MB, most=512, unit=" MiB"),
    Promise(("own", "ls-own"), "requests in flight when others' attributes are listed",
            lambda f: f.of("ls-own")["in_flight"], least=20),
    Promise(("create",), "small files created with --write-back, closed",
            lambda f: f.of("create", WRITE_BACK)["wall_s"], most=0.5, unit=" s"),
    Promise(("create",), "the same, in S3", lambda f: f.stored("create", WRITE_BACK), most=1.0, unit=" s"),
    Promise(("tar-x",), "tar x with --write-back, closed",
            lambda f: f.of("tar-x", WRITE_BACK)["wall_s"], most=0.9, unit=" s"),
    Promise(("tar-x",), "the same, in S3", lambda f: f.stored("tar-x", WRITE_BACK), most=1.5, unit=" s"),
    Promise(("tar-x",), "requests for it, for each file",
            lambda f: sum(f.of("tar-x", WRITE_BACK)["requests"].values()) / f.sizes["tree"], most=1.1),
    Promise(("clone",), "git clone with --write-back",
            lambda f: f.of("clone", WRITE_BACK)["wall_s"], most=1.8, unit=" s"),
    Promise(("random",), "moved by 200 random reads", lambda f: f.of("random")["moved_mb"], most=256, unit=" MB"),
    Promise(("random",), "their time, of the better peer that moves as little",
            lambda f: 100 * f.wall("random") / f.peer_s("random", moves_mb(256)), most=100, unit=" %"),
    Promise(("tight",), "peak memory with --memory 256M",
            lambda f: f.of("tight")["peak_mb"] / MIB_IN_MB, most=320, unit=" MiB"),
    Promise(("tight",), "most on disk with --cache-size 512M",
            lambda f: f.of("tight")["disk_mb"] / MIB_IN_MB, most=512, unit=" MiB"),
    Promise(("write",), "write with close, of what the SDK alone reaches",
            lambda f: 100 * f.mark_s("sdk-write") / f.wall("write"), least=55, unit=" %"),
    Promise(("write",), "its time, of s3fs'",
            lambda f: 100 * f.wall("write") / f.of("write", "s3fs")["wall_s"], most=16, unit=" %"),
    Promise(("write",), "CPU of the daemon for a GiB written",
            lambda f: f.of("write")["cpu_s"] * 1024 / f.sizes["written_mib"], most=1.5, unit=" s"),
    Promise(("write",), "peak memory of it", lambda f: f.of("write")["peak_mb"] / MIB_IN_MB, most=256, unit=" MiB"),
    Promise(("overwrite",), "requests to change 4 KiB inside a large object", lambda f: f.requests("overwrite"), most=7),
    Promise(("overwrite",), "moved by it", lambda f: f.of("overwrite")["moved_mb"], most=11, unit=" MB"),
    Promise(("overwrite",), "its time, of s3fs'",
            lambda f: 100 * f.wall("overwrite") / f.of("overwrite", "s3fs")["wall_s"], most=75, unit=" %"),
    Promise(("overwrite", "append-known"), "requests to append 4 KiB to it", lambda f: f.requests("append-known"), most=5),
    Promise(("overwrite", "append-known"), "its time, of s3fs'",
            lambda f: 100 * f.wall("append-known") / f.of("append-known", "s3fs")["wall_s"], most=65, unit=" %"),
    Promise(("append",), "requests to append 4 KiB to another, cold", lambda f: f.requests("append"), most=5),
    Promise(("append",), "its time, of s3fs'",
            lambda f: 100 * f.wall("append") / f.of("append", "s3fs")["wall_s"], most=65, unit=" %"),
    Promise(("rm",), "`rm -rf` of a tree until the bucket is empty", lambda f: f.durable("rm"), most=1.0, unit=" s"),
    Promise(("rm",), "requests for it besides LIST", lambda f: f.requests("rm") - f.requests("rm", "LIST"), most=10),
    Promise(("mv",), "`mv` of a directory", lambda f: f.wall("mv"), most=0.8, unit=" s"),
    Promise(("mv",), "requests for it", lambda f: f.requests("mv"), most=105),
]  # fmt: skip


def of_floor(step, tool):
    option = " --write-back" if tool == WRITE_BACK else ""
    return Promise((step.name,), f"requests of {step.title}{option}", lambda f: f.of_floor(step.name, tool),
                   most=everyday.FACTOR, unit=" × the floor")  # fmt: skip


PROMISES += [of_floor(step, tool) for tool in everyday.BOTH for step in steps.EVERYDAY if tool in step.floor.held]


def needed_steps(everyday_only=False):
    """Names of all steps that some promise is about."""
    if everyday_only:
        return {step.name for step in steps.EVERYDAY}
    return {step for promise in PROMISES for step in promise.steps}


def check(run):
    """(verdict, text, figure, bound) of each promise; the verdict is None where nothing was measured."""
    figures, wanted = Figures(run), needed_steps(run["everyday"])
    # Everyday commands have tables of their own: in a run without them nothing is missing.
    apart = needed_steps(everyday_only=True)
    for promise in PROMISES:
        if not wanted.issuperset(promise.steps):
            continue
        try:
            figure = promise.figure(figures)
            verdict, shown = promise.holds(figure), f"{figure:.4g}{promise.unit}"
        except Missing:
            if apart.issuperset(promise.steps):
                continue
            verdict, shown = None, "not measured"
        except Failed as failed:
            verdict, shown = False, str(failed)
        yield verdict, promise.text, shown, promise.bound()


def as_text(run):
    """The verdicts as a table, and whether none is against a promise."""
    words = {True: "holds", False: "DOES NOT HOLD", None: "–"}
    rows = [(words[verdict], text, shown, bound) for verdict, text, shown, bound in check(run)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join(lines), all(verdict is not False for verdict, *_ in check(run))


def write_markdown(run, path):
    """Writes the verdicts between the marks of a document."""
    words = {True: "yes", False: "**no**", None: "–"}
    rows = [f"| {text} | {bound} | {shown} | {words[verdict]} |" for verdict, text, shown, bound in check(run)]
    head = [f"`{run['command']}`", "", run["machine"], "", "| what | bound | measured | holds |", "|---|---|---|---|"]
    report.write_between(run, " --check", "\n".join([*head, *rows, ""]), Path(path))
