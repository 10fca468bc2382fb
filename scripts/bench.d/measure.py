"""Runs one step in a process of its own and takes its measures."""

import json
import os
import select
import signal
import statistics
import time
from dataclasses import asdict, dataclass, field

from commands import Refused

# A tool is done when no request was seen for this long after what it may wait itself.
QUIET_S = 0.3
SETTLE_DEADLINE_S = 60
# How long a step that ran out of time gets to die once its mount is gone.
DEATH_S = 10
DISK_POLL_S = 0.1


@dataclass
class Result:
    """The measures of a step. `failure` tells why there are none, or that they are worth nothing."""

    failure: str | None = None
    timed_out: bool = False
    wall_s: float | None = None
    # Until the last answer of the server, where that came later than the end of the step.
    durable_s: float | None = None
    cpu_s: float | None = None
    peak_mb: float | None = None
    # Over the network, both directions, headers included.
    moved_mb: float | None = None
    # Most that the tool had on disk, where that was looked at.
    disk_mb: float | None = None
    # Requests that waited for an answer at the same time, at most.
    in_flight: int = 0
    requests: dict = field(default_factory=dict)
    # The fewest that it could do with, and each that was sent, where that is what it is about.
    floor: int | None = None
    asked: list = field(default_factory=list)

    def as_dict(self):
        return asdict(self)


def measure(step, work, mount, wire, deadline_s, place=None):
    """Runs a step on a mount that is at rest, in the directory with the descriptor `place`. A mount whose step ran out of time is gone afterwards."""
    settle(wire, 0, time.monotonic() + SETTLE_DEADLINE_S)
    mount.forget_peak()
    cpu_before = mount.cpu_s()
    wire.reset()
    disk = Disk(mount) if step.watches_disk else None
    result, ended = in_child(lambda: step.run(work), step.times, wire, mount, deadline_s, disk, place)
    if result.timed_out:
        wire.read()
        result.requests = dict(wire.requests)
        return result
    if step.check:
        # Only where each request counts is the rest of the wait worth it: the next step finds what is known a second long.
        later_s = mount.tool.lingers_s if step.floor else 0
        settle(wire, max(mount.tool.write_back_s, later_s), time.monotonic() + SETTLE_DEADLINE_S)
        if wire.last_seen and wire.last_seen > ended:
            result.durable_s = result.wall_s + wire.last_seen - ended
    wire.read()
    result.asked = wire.asked if step.floor else []
    result.requests, result.moved_mb, result.in_flight = dict(wire.requests), wire.moved_mb(), wire.most_unanswered
    result.disk_mb = disk and disk.most_mb
    cpu_after = mount.cpu_s()
    if cpu_after is None or mount.process.poll() is not None:
        result.failure = "the daemon died"
        return result
    result.cpu_s = cpu_after - cpu_before
    result.peak_mb = mount.peak_mb()
    return result


def prepare(step, work, mount, wire, deadline_s, place):
    """What a step wants done in its mount before, and the time without a request. Tells a failure."""
    if step.prepare:
        result, _ = in_child(lambda: step.prepare(work), 1, wire, mount, deadline_s, place=place)
        if result.failure:
            return f"not prepared: {result.failure}"
        settle(wire, max(mount.tool.write_back_s, mount.tool.lingers_s), time.monotonic() + SETTLE_DEADLINE_S)
    time.sleep(step.idle_s)
    return None


class Disk:
    """Most that a tool had on disk, looked at now and then."""

    def __init__(self, mount):
        self.mount, self.most_mb = mount, 0.0

    def look(self):
        self.most_mb = max(self.most_mb, self.mount.disk_mb())


def settle(wire, write_back_s, deadline):
    """Waits until the tool has nothing under way."""
    wire.read()
    quiet_since = time.monotonic()
    seen = sum(wire.requests.values())
    while time.monotonic() < deadline:
        if time.monotonic() - quiet_since > write_back_s + QUIET_S and wire.unanswered <= 0:
            return
        select.select([wire], [], [], QUIET_S / 2)
        wire.read()
        if sum(wire.requests.values()) != seen:
            seen, quiet_since = sum(wire.requests.values()), time.monotonic()


def in_child(function, times, wire, mount, deadline_s, disk=None, place=None):
    """Runs a function in a child process that can be given up on: a system call on a broken mount
    may never return; in the directory `place`, if any. Returns the result and when it ended."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if place is not None:
            os.fchdir(place)
        os.write(writer, json.dumps(timed(function, times)).encode())
        os._exit(0)
    os.close(writer)
    try:
        told = wait_for(reader, wire, deadline_s, disk)
    finally:
        os.close(reader)
        bury(child, mount)
    if told is None:
        return Result(failure=f"> {deadline_s:g} s", timed_out=True), time.time()
    failure, wall_s, ended = json.loads(told)
    return Result(failure=failure, wall_s=wall_s), ended


def timed(function, times):
    """Runs a function so many times; the time is the median."""
    walls_s, failure = [], None
    try:
        for _ in range(times):
            start = time.perf_counter()
            function()
            walls_s.append(time.perf_counter() - start)
    except Refused as refused:
        failure = str(refused)
    except OSError as error:
        failure = error.strerror
    except Exception as error:  # the parent waits for an answer, whatever it is
        failure = f"{type(error).__name__}: {error}"
    return failure, statistics.median(walls_s or [0]), time.time()


def wait_for(reader, wire, deadline_s, disk):
    """What the child says at its end; None when it does not say anything in time. The requests are
    taken in meanwhile, so that the kernel need not keep them."""
    deadline = time.monotonic() + deadline_s
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reader, wire], [], [], min(left, DISK_POLL_S) if disk else left)
        if disk:
            disk.look()
        if reader in ready:
            return os.read(reader, 1 << 16) or None
        wire.read()
    return None


def bury(child, mount):
    """Ends the child with all that it started; if it hangs in the mount, the mount goes first."""
    for attempt in ("kindly", "with its mount"):
        if attempt == "with its mount":
            mount.kill()
        deadline = time.monotonic() + DEATH_S
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0] == child:
                return
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:
                pass
            time.sleep(0.01)
    raise RuntimeError(f"process {child} hangs in a mount that is gone")
