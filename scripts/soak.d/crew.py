"""Who uses the mounts: one thread each, round after round, each round in a directory of its own that is gone at its end."""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

COMMAND_DEADLINE_S = 300
# The list TTL is five seconds; the rest is for a machine that has other work.
SEEN_DEADLINE_S = 120
LOOK_EVERY_S = 0.5
# After a round its user rests this many times as long as the round took: with these, all users together take about
# half a core.
REST = 2.0
LEAST_REST_S = 2.0
GRACE_S = 600
# A run in which so much is wrong tells nothing more.
MOST_COMPLAINTS = 20
# What another mount does meanwhile may show to who looks.
PASSING = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)


class Wrong(Exception):
    """What is there is not what should be."""


class Stopped(Exception):
    """Everything ends now."""


class Crew:
    """All users. `ending`: begin no more rounds; `stopped`: end at once."""

    def __init__(self, binary, mounts, local):
        self.binary, self.mounts, self.local = binary, mounts, local
        self.ending, self.stopped = threading.Event(), threading.Event()
        self.rounds, self.complaints = Counter(), []
        self.doing, self.threads, self.children = {}, {}, set()
        self.longest_seen_s = 0.0

    def start(self, uses):
        for name, use in uses.items():
            self.threads[name] = threading.Thread(target=self._work, args=(name, use), daemon=True)
            self.threads[name].start()

    def complain(self, text):
        self.complaints.append(text)
        print(f"\nWRONG: {text}", flush=True)
        if len(self.complaints) >= MOST_COMPLAINTS:
            self.ending.set()

    def end(self):
        """Lets each user end its round; tells who does not."""
        self.ending.set()
        deadline = time.monotonic() + GRACE_S
        frames = sys._current_frames
        for name, thread in self.threads.items():
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                where = "".join(traceback.format_stack(frames()[thread.ident])[-2:])
                self.complain(f"{name} hangs, {self.doing.get(name, 'at its beginning')}:\n{where}")

    def stop(self):
        """Ends users and their programs at once."""
        self.stopped.set()
        self.ending.set()
        for child in list(self.children):
            child.kill()
        for thread in self.threads.values():
            thread.join(10)

    def _work(self, name, use):
        chance = random.Random(name)
        while not self.ending.is_set():
            begun = time.monotonic()
            desk = Desk(self, name, self.rounds[name], chance)
            try:
                desk.open()
                use(desk)
                desk.clear()
            except Stopped:
                return
            except Exception as error:
                if self.stopped.is_set():
                    return
                self.complain(told(error, f"{name}, round {desk.number} on {desk.mount.name}, {self.doing.get(name)}"))
                desk.leave()
            self.rounds[name] += 1
            took_s = time.monotonic() - begun
            self.ending.wait(max(LEAST_REST_S, REST * took_s) * chance.uniform(0.5, 1.5))


class Desk:
    """Where a user works in a round: `here` on one mount, by turns; `there` is the same directory on the other."""

    def __init__(self, crew, name, number, chance):
        self.crew, self.name, self.number, self.random = crew, name, number, chance
        self.mount, self.other = crew.mounts if number % 2 == 0 else crew.mounts[::-1]
        self.here = self.mount.path / name / f"{number:05}"
        self.there = self.other.path / name / f"{number:05}"
        self.local, self.binary = crew.local, crew.binary

    def open(self):
        self.note("making its directory")
        self.until(self.here.parent.is_dir, "its own directory is there")
        self.here.mkdir()

    def clear(self):
        """Removes all that the round made, from this mount or from the other one, and looks from both."""
        by, seen_from = self.here, self.there
        if self.random.random() < 0.5:
            self.hand_over()
            by, seen_from = seen_from, by
        self.run("rm", "-rf", by)
        self.until(lambda: not os.path.lexists(seen_from), f"{seen_from} is gone")

    def leave(self):
        """After something went wrong: takes away what can be."""
        shutil.rmtree(self.here, ignore_errors=True)

    def hand_over(self):
        """What was made here is in the bucket, and the other mount shows it."""
        self.run(self.binary, "sync", self.mount.path)
        wanted = names(self.here)
        self.until(lambda: names(self.there) == wanted, "the other mount lists the same")

    def note(self, doing):
        self.crew.doing[self.name] = doing

    def run(self, *command, cwd=None, codes=(0,), env=None):
        """Runs a program; returns what it printed."""
        words = [str(part) for part in command]
        shown = " ".join(words)[:200]
        self.note(f"running {shown}")
        child = subprocess.Popen(
            words, cwd=cwd, env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.crew.children.add(child)
        try:
            out, err = child.communicate(timeout=COMMAND_DEADLINE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            raise Wrong(f"{shown}: not done after {COMMAND_DEADLINE_S} s") from None
        finally:
            self.crew.children.discard(child)
        self._go_on()
        if child.returncode not in codes:
            said = (err or out).decode(errors="replace").strip()[-500:]
            raise Wrong(f"{shown}: ended with {child.returncode}: {said}")
        return out

    def until(self, condition, what):
        """Waits for what another mount, S3 or a hook has to do first."""
        self.note(f"waiting until {what}")
        begun = time.monotonic()
        while not self._holds(condition):
            took_s = time.monotonic() - begun
            if took_s > SEEN_DEADLINE_S:
                raise Wrong(f"not after {SEEN_DEADLINE_S} s: {what}")
            self._go_on()
            self.crew.stopped.wait(LOOK_EVERY_S)
        self.crew.longest_seen_s = max(self.crew.longest_seen_s, time.monotonic() - begun)

    def until_same(self, find, wanted, what):
        """Waits until what is found is what is wanted; of two dicts, tells what differs if that never comes."""
        seen = {}

        def is_same():
            seen["last"] = find()
            return seen["last"] == wanted

        try:
            self.until(is_same, what)
        except Wrong as error:
            raise Wrong(f"{error}; {difference(seen.get('last'), wanted)}") from None

    def _holds(self, condition):
        try:
            return condition()
        except OSError as error:
            if error.errno in PASSING:
                return False
            raise

    def expect(self, found, wanted, what):
        if found != wanted:
            raise Wrong(f"{what}: {shortly(found)} instead of {shortly(wanted)}")

    def pause(self, seconds):
        self._go_on()
        self.crew.stopped.wait(seconds)

    def is_last(self):
        """Nothing new is to be begun."""
        return self.crew.ending.is_set()

    def _go_on(self):
        if self.crew.stopped.is_set():
            raise Stopped


def told(error, where):
    """What went wrong, in a line; where in the work, if Python said it."""
    line = traceback.extract_tb(error.__traceback__)[-1]
    text = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error} (line {line.lineno}, {Path(line.filename).name})"
    return f"{time.strftime('%H:%M:%S')} {where}: {text}"


def names(directory):
    """Paths of all that is below a directory."""
    found = set()
    for parent, directories, files in os.walk(directory, onerror=refuse):
        found.update(os.path.relpath(os.path.join(parent, name), directory) for name in directories + files)
    return found


def difference(found, wanted):
    """Which entries of a dict are not as they should be."""
    if not isinstance(found, dict):
        return f"{shortly(found)} instead of {shortly(wanted)}"
    differing = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return f"{len(differing)} differ: " + ", ".join(f"{name}: {found.get(name)} instead of {wanted.get(name)}" for name in differing[:5])


def refuse(error):
    raise error


def shortly(value):
    """A value as an error shows it; of two large ones what is in them matters less than that they differ."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}… ({len(text)} characters)"
