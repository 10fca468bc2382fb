"""What hooks cost: by themselves, and for who closes files. `scripts/bench hooks`."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import mounts
import servers

ROOT = Path(__file__).resolve().parent.parent.parent
PARSER = ROOT / "hooks" / "built" / "eventkey.wasm"
MEMORY = Path("/dev/shm")
ROUNDS = 5
CLOSES, CLOSED_BYTES = 300, 4096
FLIGHT, WRITERS = 1000, 16
PROBES = 300
DRAIN_DEADLINE_S = 300

NOTHING = '(module (memory (export "memory") 1) (func (export "_start")))'
# A tenth of a second of the processor, so that closes are ahead of their hooks.
BUSY = """(module (memory (export "memory") 1) (func (export "_start") (local i32)
  (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100000000))))))"""
LOOP = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'


def hook(directory, name, module, rest=""):
    file = directory / f"{name}.wat"
    file.write_text(module)
    return f'[[hook]]\nname = "{name}"\nwasm = "{file}"\nmatch = ["in/**"]\noutput = "made"\n{rest}\n'


class Bench:
    """A server in memory, and mounts on it."""

    def __init__(self, stack, binary, profile):
        self.stack, self.binary = stack, binary
        self.place = Path(tempfile.mkdtemp(prefix="s3mount-bench-"))
        stack.callback(shutil.rmtree, self.place, ignore_errors=True)
        data = Path(tempfile.mkdtemp(prefix="s3mount-bench-", dir=MEMORY if MEMORY.is_dir() else None))
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        self.log = self.place / "log"
        self.server = servers.Embedded(binary, data, profile, self.log)
        stack.callback(self.server.stop)

    def mount(self, name, hooks=None):
        place = self.place / name
        place.mkdir()
        mount = mounts.Mount(mounts.S3mount(self.binary), self.server.port, place, self.log)
        options = []
        if hooks:
            file = place / "hooks.toml"
            file.write_text(hooks)
            options = ["--hooks", file]
        # A prefix each: what one writes is no business of the other.
        mount.tool.command = prefixed(mount.tool.command, name)
        self.stack.callback(mount.stop)
        mount.start(options)
        (mount.path / "in").mkdir()
        return mount


def prefixed(command, name):
    def with_prefix(*args):
        words, env = command(*args)
        return [f"{servers.BUCKET}/{name}" if word == servers.BUCKET else word for word in words], env

    return with_prefix


def waiting(binary, mount):
    """Events and tasks that are not settled."""
    told = subprocess.run([binary, "hooks", "stats", mount.path, "--json"], capture_output=True, text=True, check=True)
    hooks = json.loads(told.stdout)[0]["hooks"]
    return hooks["events_waiting"] + sum(hook["queued"] + hook["running"] for hook in hooks["hooks"])


def drain(binary, mount):
    deadline = time.monotonic() + DRAIN_DEADLINE_S
    while waiting(binary, mount):
        if time.monotonic() > deadline:
            raise RuntimeError(f"hooks are not done after {DRAIN_DEADLINE_S} s")
        time.sleep(0.05)


def alone(rate, events, say):
    """The runs without a mount: without the journal's fsync where there is a file system in memory."""
    figures = {}
    for place, directory in [("memory", MEMORY if MEMORY.is_dir() else None), ("disk", None)]:
        with tempfile.TemporaryDirectory(prefix="s3mount-bench-", dir=directory) as parent:
            command = [rate, parent, str(events), PARSER]
            rounds = [json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(ROUNDS)]
        figures[place] = {
            guest: {name: statistics.median(told[guest][name] for told in rounds) for name in rounds[0][guest]}
            for guest in rounds[0]
        }
        for guest, told in figures[place].items():
            say(f"    {place:<8} {guest:<10} {told['serial_us']:8.1f} µs one at a time, {told['per_s']:8.0f} a second, load {told['load_ms']:.2f} ms")
    return figures


def close_ms(path, body):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(fd, body)
    begun = time.monotonic()
    os.close(fd)
    return (time.monotonic() - begun) * 1000


def closes(binary, profile, say):
    """Closes with a hook and without, by turns on two mounts."""
    with ExitStack() as stack:
        bench = Bench(stack, binary, profile)
        plain, hooked = bench.mount("plain"), bench.mount("hooked", hook(bench.place, "nothing", NOTHING))
        took = {"plain": [], "hooked": []}
        for number in range(CLOSES):
            body = os.urandom(CLOSED_BYTES)
            for name, mount in [("plain", plain), ("hooked", hooked)][:: 1 if number % 2 else -1]:
                took[name].append(close_ms(mount.path / "in" / f"f{number}", body))
        drain(binary, hooked)
        figures = {name: statistics.median(times) for name, times in took.items()}
    say(f"    {profile.name:<8} close of {CLOSED_BYTES} bytes: {figures['plain']:.2f} ms without a hook, {figures['hooked']:.2f} ms with one")
    return figures


def flight(binary, say):
    """Most memory while a thousand closes wait for their hooks, beside as many without."""
    figures = {}
    for name, module in [("plain", None), ("hooked", BUSY)]:
        with ExitStack() as stack:
            bench = Bench(stack, binary, servers.PROFILES[0])
            mount = bench.mount(name, module and hook(bench.place, "busy", module))
            mount.forget_peak()

            def write(start):
                for number in range(start, FLIGHT, WRITERS):
                    (mount.path / "in" / f"f{number}").write_bytes(b"x" * CLOSED_BYTES)

            writers = [threading.Thread(target=write, args=(start,)) for start in range(WRITERS)]
            for writer in writers:
                writer.start()
            for writer in writers:
                writer.join()
            queued = waiting(binary, mount) if module else 0
            if module:
                drain(binary, mount)
            figures[name] = {"peak_mb": mount.peak_mb(), "queued": queued}
    more = figures["hooked"]["peak_mb"] - figures["plain"]["peak_mb"]
    say(f"    {FLIGHT} closes, {figures['hooked']['queued']} of them before their hooks: {figures['hooked']['peak_mb']:.0f} MB at most, {more:.0f} MB more than without hooks")
    return figures


def beside(binary, say):
    """What a small write, a read and a listing take while guests loop on every place there is."""
    with ExitStack() as stack:
        bench = Bench(stack, binary, servers.PROFILES[0])
        mount = bench.mount("beside", hook(bench.place, "loop", LOOP, 'timeout = "15m"\nconcurrency = 64'))
        figures = {"idle_ms": probe(mount)}
        for number in range(16):
            (mount.path / "in" / f"f{number}").write_bytes(b"x")
        deadline = time.monotonic() + DRAIN_DEADLINE_S
        while waiting(binary, mount) < 16 and time.monotonic() < deadline:
            time.sleep(0.05)
        figures["looping_ms"] = probe(mount)
    say(f"    write, read and listing: {figures['idle_ms']:.2f} ms idle, {figures['looping_ms']:.2f} ms while guests loop")
    return figures


def probe(mount):
    """Milliseconds of one round, median."""
    times = []
    for number in range(PROBES):
        file = mount.path / f"probe{number % 8}"
        begun = time.monotonic()
        file.write_bytes(b"x" * CLOSED_BYTES)
        file.read_bytes()
        os.listdir(mount.path)
        times.append((time.monotonic() - begun) * 1000)
    return statistics.median(times)


def build():
    """The guests, if they are not there. Installs compilers, for which it takes a network."""
    if not PARSER.exists():
        subprocess.run([ROOT / "scripts" / "build-hooks", "--all"], check=True)


def run(binary, rate, events, say):
    """All figures."""
    say("==> hooks by themselves")
    figures = {"alone": alone(rate, events, say)}
    say("==> closes")
    figures["closes"] = {profile.name: closes(binary, profile, say) for profile in servers.PROFILES}
    say("==> a thousand closes in flight")
    figures["flight"] = flight(binary, say)
    say("==> beside guests that loop")
    figures["beside"] = beside(binary, say)
    return figures


def verdicts(figures):
    """What was promised: a sentence, what came, whether it holds."""
    memory, disk = figures["alone"]["memory"], figures["alone"]["disk"]
    near = figures["closes"]["s3"]
    more_mb = figures["flight"]["hooked"]["peak_mb"] - figures["flight"]["plain"]["peak_mb"]
    ratio = figures["beside"]["looping_ms"] / figures["beside"]["idle_ms"]
    close_more_ms = near["hooked"] - near["plain"]
    return [
        ("a guest that does nothing, one at a time, settled without fsync: ≤ 60 µs an event", f"{memory['nothing']['serial_us']:.0f} µs", memory["nothing"]["serial_us"] <= 60),
        ("a Rust guest that parses the event, the same: ≤ 400 µs", f"{memory['eventkey']['serial_us']:.0f} µs", memory["eventkey"]["serial_us"] <= 400),
        ("through the durable queue: ≥ 3,000 a second", f"{disk['nothing']['per_s']:.0f}", disk["nothing"]["per_s"] >= 3000),
        ("a close with a hook: ≤ 10 % or ≤ 1 ms more", f"{close_more_ms:+.2f} ms of {near['plain']:.2f} ms", close_more_ms <= max(1, near["plain"] / 10)),
        ("a compiled module is loaded in ≤ 1 ms", f"{memory['eventkey']['load_ms']:.2f} ms", memory["eventkey"]["load_ms"] <= 1),
        ("1,000 closes in flight: ≤ 64 MB more memory", f"{more_mb:.0f} MB", more_mb <= 64),
        ("the mount beside guests that loop: ≤ 2 × idle", f"{ratio:.2f} ×", ratio <= 2),
    ]  # fmt: skip
