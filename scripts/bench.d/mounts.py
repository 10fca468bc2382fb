"""The mounts of the tools: started, watched, and ended."""

import os
import shutil
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

from processes import START_DEADLINE_S, STOP_DEADLINE_S, output, spawn, until
from servers import ACCESS_KEY, BUCKET, SECRET_KEY

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Tool:
    """A program that mounts a bucket."""

    # How long after a close it may still wait before it begins to store.
    write_back_s = 0.0
    # The same of all else that it tells later.
    lingers_s = 0.0
    # Names of the steps that it has a part in; None: all.
    steps = None

    def command(self, port, mountpoint, kept):
        """The command line that mounts in the foreground, and its environment. `kept` is the
        directory for all that the tool keeps on disk."""
        raise NotImplementedError

    def unmount(self, mountpoint):
        return ["fusermount3", "-u", mountpoint]


class S3mount(Tool):
    name = "s3mount"
    write_back_s = 0.2
    # What was removed, and what is said of directories, may wait for more of it.
    lingers_s = 0.5

    def __init__(self, binary):
        self.binary = binary

    def version(self):
        return output(self.binary, "--version").split()[1]

    def command(self, port, mountpoint, kept):
        command = [self.binary, "mount", BUCKET, mountpoint, "--foreground", "--endpoint-url", f"http://127.0.0.1:{port}"]
        command += ["--cache-dir", kept / "cache", "--state-dir", kept / "state"]
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        return command, {**keys, "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}

    def unmount(self, mountpoint):
        return [self.binary, "umount", mountpoint]


class S3mountWriteBack(S3mount):
    """Closes answer from the local disk; what that is about is writing."""

    name = "s3mount-write-back"
    steps = ("write", "create", "tar-x", "rm", "mv", "clone", "status")

    def command(self, port, mountpoint, kept):
        command, env = super().command(port, mountpoint, kept)
        return [*command, "--write-back"], env


class S3fs(Tool):
    name = "s3fs"

    def version(self):
        return output("s3fs", "--version").split(" V")[1].split()[0]

    def command(self, port, mountpoint, kept):
        password = kept / "password"
        password.write_text(f"{ACCESS_KEY}:{SECRET_KEY}\n")
        password.chmod(0o600)
        options = [f"url=http://127.0.0.1:{port}", "use_path_request_style", f"passwd_file={password}"]
        return ["s3fs", BUCKET, mountpoint, "-f", "-o", ",".join(options)], {}


class Rclone(Tool):
    name = "rclone"
    # Five seconds by default; before it sends a large file it reads all of it for the checksum.
    write_back_s = 8.0

    def version(self):
        return output("rclone", "version").split()[1].lstrip("v")

    def command(self, port, mountpoint, kept):
        command = ["rclone", "mount", f"bench:{BUCKET}", mountpoint, "--vfs-cache-mode", "full"]
        command += ["--cache-dir", kept / "cache"]
        remote = {
            "TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": f"http://127.0.0.1:{port}", "REGION": "us-east-1",
            "ACCESS_KEY_ID": ACCESS_KEY, "SECRET_ACCESS_KEY": SECRET_KEY, "FORCE_PATH_STYLE": "true",
        }  # fmt: skip
        return command, {"RCLONE_CONFIG": "/dev/null"} | {f"RCLONE_CONFIG_BENCH_{k}": v for k, v in remote.items()}


def is_mounted(mountpoint):
    """Without a stat(2), which a broken mount answers late or never."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(mountpoint) for line in mounts)


def disk_bytes(directory):
    """What all files below a directory take on disk; some may go meanwhile."""
    total = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def cpu_s(process):
    """User and system time of a process so far; None if it is dead."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Mount:
    """A mount of one tool. What the tool keeps on disk stays until `forget`."""

    def __init__(self, tool, port, place, log):
        self.tool, self.port, self.log = tool, port, log
        self.path, self.kept = place / "mnt", place / "kept"
        self.process = None

    def start(self, options=()):
        self.path.mkdir(parents=True, exist_ok=True)
        self.kept.mkdir(exist_ok=True)
        command, env = self.tool.command(self.port, self.path, self.kept)
        command = [*command, *options]
        self.process = spawn(command, self.log, env)
        until(lambda: is_mounted(self.path), START_DEADLINE_S, f"the mount of {self.tool.name}", self.process)

    @contextmanager
    def inside(self, directory):
        """A descriptor of a directory of the mount, for who is to be in it without looking it up; None of none."""
        place = None if directory is None else os.open(self.path / directory, os.O_PATH | os.O_DIRECTORY)
        try:
            yield place
        finally:
            if place is not None:
                os.close(place)

    def stop(self, deadline_s=STOP_DEADLINE_S):
        """Unmounts in order; what does not go is killed and taken away."""
        if self.process is None:
            return
        try:
            subprocess.run(self.tool.unmount(self.path), capture_output=True, timeout=deadline_s)
            self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        """Ends the daemon at once, so that whoever waits for it gets an error."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
        if is_mounted(self.path):
            subprocess.run(["umount", "-l", self.path], capture_output=True)

    def forget(self):
        """Empties what the tool keeps on disk: the next start is cold."""
        shutil.rmtree(self.kept, ignore_errors=True)

    def disk_mb(self):
        """What the tool keeps on disk takes there."""
        return disk_bytes(self.kept) / 1e6

    def cpu_s(self):
        """User and system time of the daemon so far; None if it is dead."""
        return cpu_s(self.process)

    def forget_peak(self):
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mb(self):
        """Most resident memory of the daemon since `forget_peak`."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        peak = next((line for line in lines if line.startswith("VmHWM:")), None)
        return None if peak is None else int(peak.split()[1]) * 1024 / 1e6
