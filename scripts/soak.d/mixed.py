#!/usr/bin/env python3
"""A soak of mixed use: two mounts of one bucket, used as on a user's machine, for an hour.

One mount is as it is by default, the other has --write-back; they share a cache, as mounts of a user do. What is
written on one is checked there and on the other. The data is bounded: each round removes what it made. All of it
takes half a core or so, since users rest after each round. Fails when a byte is wrong, memory, descriptors, threads or
files on disk grow, a log has a warning or an error, or the end leaves anything behind.
"""

import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# Servers and mounts are started as for the benchmarks.
sys.path.insert(0, str(ROOT / "scripts" / "bench.d"))
sys.dont_write_bytecode = True

import mounts  # noqa: E402
import samples  # noqa: E402
import servers  # noqa: E402
import uses  # noqa: E402
from crew import Crew  # noqa: E402

MEMORY = Path("/dev/shm")
BUILT = ROOT / "hooks" / "built"
CACHE_MIB, MEMORY_MIB = 128, 96
# What the process takes beside --memory, as docs/OPERATIONS.md has it; its own file is resident, too.
PROCESS_MIB = {"anonymous memory": 85, "resident memory": 125}
SAMPLE_EVERY_S = 5
# Of the lines of progress where no terminal is.
TELL_EVERY_S = 60
UNMOUNT_DEADLINE_S = 300
FAULT = re.compile(r"\b(WARN|ERROR)\b|panicked")
LEFT = re.compile(r"what the last mount (has )?left")


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/soak mixed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="?", type=float, default=60, metavar="MINUTES", help="[default: 60]")
    parser.add_argument("--binary", type=Path, metavar="PATH", help="s3mount to use [default: build it in release]")
    parser.add_argument("--uses", default=",".join(uses.USES), metavar="LIST", help="[default: %(default)s]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy the logs there, and the state directories as the unmount leaves them")
    args = parser.parse_args()
    if unknown := set(args.uses.split(",")) - set(uses.USES):
        parser.error(f"no such use: {', '.join(sorted(unknown))}")
    return args


def build():
    subprocess.run(["cargo", "build", "--release", "--bin", "s3mount"], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "s3mount"


class Soaked(mounts.Mount):
    """A mount with bounds, whose cache is that of all mounts here."""

    def __init__(self, tool, port, work_dir):
        super().__init__(tool, port, work_dir / tool.name, work_dir / f"{tool.name}.log")
        self.name, self.hooks = tool.name, work_dir / "hooks.toml"
        self.kept, self.cache = work_dir / "kept", work_dir / "kept" / "cache"
        self.state = None

    def start(self):
        bounds = ["--cache-size", f"{CACHE_MIB}M", "--memory", f"{MEMORY_MIB}M", "--flush-open-after", "5s"]
        super().start([*bounds, "--hooks", self.hooks, "--metrics-listen", "127.0.0.1:0"])
        self.state = Path(self.status()["state_dir"])

    def status(self):
        return json.loads(mounts.output(self.tool.binary, "status", self.path, "--json"))

    def end(self):
        """Unmounts, and tells what should not be: what was said, and what is left in the state directory."""
        done = subprocess.run([self.tool.binary, "umount", self.path], capture_output=True, text=True, timeout=UNMOUNT_DEADLINE_S)
        if done.returncode != 0 or done.stdout or done.stderr:
            yield f"umount of {self.name} ended with {done.returncode}: {done.stdout}{done.stderr}".strip()
        if (code := self.process.wait(mounts.STOP_DEADLINE_S)) != 0:
            yield f"{self.name} ended with {code}"
        for kind in ("drafts", "hooks/work"):
            if left := list((self.state / kind).iterdir()):
                yield f"{self.name} left {len(left)} in {kind}: {left[0].name}"
        if (size := (self.state / "notes.log").stat().st_size) > 0:
            yield f"{self.name} left {size} bytes of notes.log"
        self.process = None


class Soak:
    """The server, both mounts, and what is found out about them."""

    def __init__(self, stack, binary, minutes):
        self.binary, self.minutes = binary, minutes
        self.work_dir = Path(tempfile.mkdtemp(prefix="s3mount-soak-"))
        stack.callback(shutil.rmtree, self.work_dir, ignore_errors=True)
        data = Path(tempfile.mkdtemp(prefix="s3mount-soak-", dir=MEMORY if MEMORY.is_dir() else None))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        local = self.work_dir / "local"
        local.mkdir()
        uses.make_sources(local)
        (self.work_dir / "hooks.toml").write_text(uses.HOOKS.format(built=BUILT))
        profile = next(profile for profile in servers.PROFILES if profile.name == "s3")
        self.server = servers.Embedded(binary, data, profile, self.work_dir / "server.log")
        stack.callback(self.server.stop)
        self.mounts = [Soaked(tool(binary), self.server.port, self.work_dir) for tool in (mounts.S3mount, mounts.S3mountWriteBack)]
        for mount in self.mounts:
            stack.callback(mount.stop)
            mount.start()
        daemons = {mount.name: mount.process for mount in self.mounts} | {"server": self.server.process}
        # Of cached attributes each mount has its own. The log beside the objects is rewritten each 200,000 changes only.
        directories = {"cached blocks": next(self.mounts[0].cache.glob("blocks-*")), "cache": self.mounts[0].cache, "objects": data / "bodies"}
        directories |= {f"state of {mount.name}": mount.state for mount in self.mounts}
        filled = {(mount.name, measure): MEMORY_MIB + more for mount in self.mounts for measure, more in PROCESS_MIB.items()}
        self.samples = samples.Samples(daemons, directories, filled)
        self.crew = Crew(binary, self.mounts, local)
        stack.callback(self.crew.stop)

    def run(self, chosen):
        """All rounds, with samples taken meanwhile."""
        for name in chosen:
            (self.mounts[0].path / name).mkdir()
        self.crew.start({name: uses.USES[name] for name in chosen})
        told_s, every_s = 0.0, 0 if sys.stdout.isatty() else TELL_EVERY_S
        while (passed_s := time.monotonic() - self.samples.begun) < self.minutes * 60 and not self.crew.ending.wait(SAMPLE_EVERY_S):
            self.samples.take()
            if passed_s - told_s >= every_s:
                told_s = passed_s
                self.tell(passed_s)
        self.crew.end()

    def tell(self, passed_s):
        line = f"[{int(passed_s) // 60:02}:{int(passed_s) % 60:02}] {self.crew.rounds.total()} rounds, {self.samples.now()}"
        if sys.stdout.isatty():
            print(f"\r{line[: shutil.get_terminal_size().columns - 1]}\033[K", end="", flush=True)
        else:
            print(line, flush=True)

    def processors(self):
        """Processors in use on average, by the users, the mounts and the server."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        daemons = [mounts.cpu_s(process) or 0 for process in self.samples.daemons.values()]
        return (sum(usage.ru_utime + usage.ru_stime for usage in used) + sum(daemons)) / self.samples.at_s[-1]

    def end(self, chosen):
        """Unmounts, and tells all that is not as it should be, in a line each."""
        for name in chosen:
            # What cannot be removed is told by what is left in the bucket.
            shutil.rmtree(self.mounts[0].path / name, ignore_errors=True)
            if not self.crew.rounds[name]:
                yield f"{name} came to the end of no round"
        yield from self._unmount()
        # What was left in a journal would be told by the next start.
        for mount in self.mounts:
            mount.start()
            if pending := mount.status()["files"]["pending"]["files"]:
                yield f"{mount.name} finds {pending} files to store at its next start"
        yield from self._unmount()
        yield from self._bucket()
        yield from self.logged()
        if (most := max(self.samples.values["cached blocks", "on disk"])) > CACHE_MIB:
            yield f"the cache took {most:.1f} MiB of the disk, with --cache-size {CACHE_MIB}M"

    def _unmount(self):
        for mount in self.mounts:
            yield from (f"status of {mount.name}: {what}" for what in uses.trouble(mount.status()))
            yield from mount.end()

    def _bucket(self):
        """What should not be in the bucket any more."""
        client = self.server.client()
        if count := client.count(""):
            yield f"{count} objects are left in the bucket"
        url = f"http://127.0.0.1:{self.server.port}"
        _, keys = self.mounts[0].tool.command(self.server.port, "", self.work_dir)
        command = [self.binary, "gc", servers.BUCKET, "--endpoint-url", url, "--older-than", "0s", "--json"]
        done = subprocess.run(command, env={**os.environ, **keys}, capture_output=True, text=True, check=True)
        if uploads := json.loads(done.stdout):
            yield f"multipart uploads are left in the bucket: {uploads}"

    def logged(self):
        """Lines of the logs that should not be there."""
        for log in sorted(self.work_dir.glob("*.log")):
            for line in log.read_text(errors="replace").splitlines():
                if FAULT.search(line) or LEFT.search(line):
                    yield f"{log.stem}: {line}"

    def keep(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        for log in self.work_dir.glob("*.log"):
            shutil.copy(log, directory)
        shutil.copytree(self.work_dir / "kept" / "state", directory / "state", dirs_exist_ok=True)


def main():
    args = arguments()
    if os.geteuid() != 0:
        sys.exit("error: run it as root: it mounts")
    binary = (args.binary or build()).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    chosen = args.uses.split(",")
    with ExitStack() as stack:
        soak = Soak(stack, binary, args.minutes)
        if args.keep_logs:
            stack.callback(soak.keep, args.keep_logs)
        try:
            soak.run(chosen)
        except samples.Died as died:
            sys.exit("\n".join(["", *soak.crew.complaints, *soak.logged(), f"FAILED: {died}"]))
        processors = soak.processors()
        wrong = [*soak.crew.complaints, *soak.end(chosen)]
    rows = list(soak.samples.rows())
    wrong += [f"{row['who']}: {row['measure']} grows" for row in rows if not row["flat"]]
    print(f"\n\n{samples.as_text(rows)}\n")
    print("rounds: " + ", ".join(f"{name} {soak.crew.rounds[name]}" for name in chosen))
    print(f"{processors:.2f} processors on average; the other mount or a hook was waited for {soak.crew.longest_seen_s:.1f} s at most")
    if args.json:
        figures = {
            "minutes": args.minutes, "processors": processors, "longest_seen_s": soak.crew.longest_seen_s,
            "rounds": soak.crew.rounds, "wrong": wrong, "measures": rows, "samples": soak.samples.as_dict(),
        }  # fmt: skip
        args.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    for line in wrong:
        print(f"WRONG: {line}")
    print("FAILED" if wrong else "all holds")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: everything is unmounted and ended")
